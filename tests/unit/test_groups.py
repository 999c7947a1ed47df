"""Scores by group of records, worked out by hand."""

import pytest

from ecgbyte_hf.evaluation.groups import age_band, score_groups
from ecgbyte_hf.evaluation.statistics import bootstrap_interval

METADATA = {
    1: {"age": 30.0, "sex": "male", "device": "A", "site": "0"},
    2: {"age": 40.0, "sex": "female", "device": "A", "site": None},
    3: {"age": 90.0, "sex": "female", "device": "B", "site": None},
    9: {"age": 50.0, "sex": "male", "device": "C", "site": "1"},
}
ECGS = [1, 1, 2, 3, 4]


def rows(correct):
    return [{"ecg_id": [ecg], "correct": one} for ecg, one in zip(ECGS, correct, strict=True)]


@pytest.fixture(scope="module")
def report():
    controls = {"majority": rows([0, 0, 1, 1, 1]), "shuffled": rows([1, 0, 0, 0, 0])}
    return score_groups(METADATA, rows([1, 0, 1, 0, 1]), controls, n_resamples=50, seed=1)


@pytest.mark.parametrize(
    "age, band", [(0, "under 40"), (40, "40 to 59"), (59.9, "40 to 59"), (60, "60 to 79"), (80, "80 and over")]
)
def test_age_bands(age, band):
    assert age_band(age) == band


def test_groups_and_who_is_in_them(report):
    assert {name: list(part["groups"]) for name, part in report.items()} == {
        "sex": ["female", "male"],
        "age": ["under 40", "40 to 59", "80 and over"],
        "device": ["A", "B"],
        "site": ["0"],
    }
    assert {name: part["unknown"] for name, part in report.items()} == {"sex": 1, "age": 1, "device": 1, "site": 3}


def test_scores_of_a_group(report):
    device = report["device"]["groups"]["A"]
    assert (device["n"], device["n_ecgs"], device["value"]) == (3, 2, 2 / 3)
    assert tuple(device["ci95"]) == bootstrap_interval([1, 0, 1], [1, 1, 2], n_resamples=50, seed=1)
    assert (device["best_control"], device["best_control_value"]) == ("majority", 1 / 3)
    assert report["sex"]["groups"]["male"]["best_control"] == "shuffled"  # each group has its own
    assert report["sex"]["groups"]["female"]["difference_to_best_control"]["value"] == -0.5


def test_nothing_known():
    report = score_groups({9: METADATA[9]}, rows([1, 0, 1, 0, 1]), {"majority": rows([0] * 5)})
    assert list(report) == ["note"] and report["note"].startswith("not known")
