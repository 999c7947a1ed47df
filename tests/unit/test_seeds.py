"""Several training seeds: values worked out by hand, and reports that do not belong together."""

import copy
import json
import math

import pytest

from ecgbyte_hf import cli
from ecgbyte_hf.evaluation.seeds import over_seeds, seeds_table, summarise_seeds
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def report(seed, overall, auc, *, extra_control=False):
    match = {"overall": overall, "n": 10, "by_type": {"single-verify": {"value": overall + 0.1}}}
    controls = {"majority": {"overall": 0.4}, **({"shuffled": {"overall": 0.3}} if extra_control else {})}
    model = {"macro_auc": {"value": auc}, "by_attribute": {"form": {"macro_auc": {"value": auc}}, "rhythm": {}}}
    return {
        "split": "test",
        "exact_match": match,
        "controls": controls,
        "best_control": "majority",
        "difference_to_best_control": {"value": overall - 0.4},
        "labels": {"systems": {"model": model}},
        "systems": {"resnet": {"exact_match": {"overall": 0.75}}},
        "provenance": {
            "data_hash": {"test": "abc"},
            "arguments": {"predictions": "answers.jsonl", "predictions_hash": f"{seed}"},
        },
    }


def write(folder, *reports):
    paths = [folder / f"{number}.json" for number in range(len(reports))]
    for path, content in zip(paths, reports, strict=True):
        path.write_text(json.dumps(content))
    return paths


THREE = [report(0, 0.5, 0.8), report(1, 0.6, 0.7, extra_control=True), report(2, 0.7, 0.9)]


def test_by_hand():
    found = over_seeds([0.5, 0.6, 0.7])
    assert found["mean"] == pytest.approx(0.6) and found["sd"] == pytest.approx(0.1)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # t with two degrees of freedom
    assert found["ci95"] == pytest.approx([0.6 - half, 0.6 + half])


def test_summary(tmp_path):
    summary = summarise_seeds(write(tmp_path, *THREE), output=tmp_path / "out.json")
    assert summary == json.loads((tmp_path / "out.json").read_text())
    assert (summary["n_seeds"], summary["split"], summary["n"]) == (3, "test", 10)
    assert summary["exact_match"]["values"] == [0.5, 0.6, 0.7]
    assert summary["by_type"]["single-verify"]["mean"] == pytest.approx(0.7)
    assert summary["macro_auc"]["form"]["mean"] == summary["macro_auc"]["overall"]["mean"] == pytest.approx(0.8)
    assert list(summary["controls"]) == ["majority"] and summary["controls"]["majority"]["sd"] < 1e-12
    assert summary["difference_to_best_control"]["mean"] == pytest.approx(0.2)
    assert summary["systems"]["resnet"]["mean"] == 0.75
    lines = seeds_table(summary).splitlines()
    assert lines[2].split()[:4] == ["exact", "match", "60.0", "10.0"]


def change(place, value):
    changed = copy.deepcopy(THREE[1])
    target = changed
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    return changed


@pytest.mark.parametrize(
    "other, message",
    [
        (change(["provenance", "data_hash"], {"test": "xyz"}), r"differ in data \(hash\)"),
        (change(["split"], "validation"), "differ in split"),
        (change(["exact_match", "n"], 9), "differ in number of questions"),
        (change(["provenance", "arguments", "predictions_hash"], "0"), "the same run twice"),
        ({"split": "test"}, "is no report of `ecgbyte evaluate`"),
    ],
)
def test_reports_that_do_not_belong_together(tmp_path, other, message):
    with pytest.raises(EcgDataError, match=message):
        summarise_seeds(write(tmp_path, THREE[0], other), output=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_command(tmp_path, capsys):
    first, second, _ = map(str, write(tmp_path, *THREE))
    assert cli.main(["seeds", first, second, "--output", str(tmp_path / "out.json")]) == 0
    assert "t-interval of 2 seeds" in capsys.readouterr().out
    assert cli.main(["seeds", first, "--output", str(tmp_path / "o.json")]) == 1
    assert "expected at least two" in capsys.readouterr().err
    assert cli.main(["seeds", first, first, "--output", str(tmp_path / "o.json")]) == 1
