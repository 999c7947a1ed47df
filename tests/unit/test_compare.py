"""The comparison of two runs against values worked out by hand, and what may not be compared."""

import json

import pytest

from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.data.simulator import simulate_records
from ecgbyte_hf.evaluation.compare import compare_predictions, comparison_table
from ecgbyte_hf.evaluation.generate import write_predictions
from ecgbyte_hf.evaluation.statistics import paired_difference
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

OPTIONS = {1: ["no", "yes"], 2: ["fast", "none", "slow"]}


def question(sample_id, ecg_id, template, answer):
    verify = template == 1
    return {
        "sample_id": sample_id,
        "template_id": template,
        "question_id": template,
        "question_type": "single-verify" if verify else "single-query",
        "attribute_type": "rate" if verify else "noise",
        "question": "Is it fast?" if verify else "How noisy is it?",
        "answer": [answer],
        "ecg_id": [ecg_id],
        "attribute": None,
        "ecg_path": None,
    }


TEST = [
    question(1, 3, 2, "slow"),
    question(2, 3, 1, "yes"),
    question(3, 4, 1, "no"),
    question(4, 4, 2, "none"),
    question(5, 5, 1, "yes"),
]
# Right: 1 and 2; then 1, 3, 4 and 5.
FIRST = ["slow", "yes", "yes", "", "no"]
SECOND = ["slow", "no", "no", "none", "yes"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["II"])
    records = simulate_records(5, sampling_rate=100.0, leads=("II",))
    sources = [RecordSource(number, None, str(number), signal, 100.0, ("II",)) for number, _, signal in records]
    return prepare(
        sources,
        {"train": [question(9, 1, 1, "yes")], "test": TEST},
        tmp_path_factory.mktemp("compare") / "prepared",
        feature_extractor=extractor,
        template_options=OPTIONS,
        duration=10.0,
        arguments={},
    )


def predictions(path, texts, rows=TEST, **changes):
    written = [
        {**row, "options": OPTIONS[row["template_id"]], "prediction": text, **changes}
        for row, text in zip(rows, texts, strict=True)
    ]
    return write_predictions(path, written)


@pytest.fixture
def comparison(prepared, tmp_path):
    return compare_predictions(
        prepared,
        predictions(tmp_path / "a.jsonl", FIRST),
        predictions(tmp_path / "b.jsonl", SECOND),
        output=tmp_path / "comparison.json",
        n_resamples=300,
        seed=2,
    )


def test_overall_by_hand(comparison):
    overall = comparison["overall"]
    assert (overall["n"], overall["n_ecgs"], overall["first"], overall["second"]) == (5, 3, 2 / 5, 4 / 5)
    assert (overall["only_first"], overall["only_second"]) == (1, 3)
    expected = paired_difference([1, 0, 1, 1, 1], [1, 1, 0, 0, 0], [3, 3, 4, 4, 5], n_resamples=300, seed=2)
    assert overall["difference"] == {"value": pytest.approx(2 / 5), "ci95": list(expected.ci95)}
    # ECG 3 alone has 1 of 2 less, ECGs 4 and 5 all of theirs more.
    assert overall["difference"]["ci95"] == [-0.5, 1.0]


def test_groups_by_hand(comparison):
    """In the order of question types, and of the alphabet."""
    types, attributes = comparison["by_type"], comparison["by_attribute"]
    assert [(name, group["n"], group["difference"]["value"]) for name, group in types.items()] == [
        ("single-verify", 3, pytest.approx(1 / 3)),
        ("single-query", 2, 0.5),
    ]
    assert list(attributes) == ["noise", "rate"]
    assert attributes["rate"] == types["single-verify"]
    assert types["single-query"]["difference"]["ci95"] == [0.0, 1.0]


def test_the_other_way_round_has_the_other_sign(comparison, prepared, tmp_path):
    swapped = compare_predictions(
        prepared, tmp_path / "b.jsonl", tmp_path / "a.jsonl", output=tmp_path / "s.json", n_resamples=300, seed=2
    )
    low, high = comparison["overall"]["difference"]["ci95"]
    assert swapped["overall"]["difference"] == {
        "value": -comparison["overall"]["difference"]["value"],
        "ci95": pytest.approx([-high, -low]),
    }


def test_a_run_against_itself_differs_by_nothing(comparison, prepared, tmp_path):
    path = tmp_path / "a.jsonl"
    same = compare_predictions(prepared, path, path, output=tmp_path / "same.json", n_resamples=50)
    for group in (same["overall"], *same["by_type"].values(), *same["by_attribute"].values()):
        assert group["difference"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_it_is_the_file(comparison, tmp_path):
    assert json.loads((tmp_path / "comparison.json").read_text()) == comparison
    assert comparison["split"] == "test" and comparison["provenance"]["arguments"]["seed"] == 2


def test_table(comparison):
    lines = comparison_table(comparison).splitlines()
    assert lines[2].split() == ["all", "5", "40.0", "80.0", "+40.0", "-50.0", "to", "+100.0", "1", "3"]
    assert [line.split()[0] for line in lines[3:]] == ["single-verify", "single-query", "noise", "rate"]


class TestRefused:
    def refused(self, prepared, tmp_path, second, match):
        first = predictions(tmp_path / "first.jsonl", FIRST)
        with pytest.raises(EcgDataError, match=match):
            compare_predictions(prepared, first, second, output=tmp_path / "out.json")
        assert not (tmp_path / "out.json").exists()

    def test_fewer_questions(self, prepared, tmp_path):
        second = predictions(tmp_path / "b.jsonl", SECOND[:3], TEST[:3])
        self.refused(prepared, tmp_path, second, "answers 5 questions and .* 3, expected the same")

    def test_another_order(self, prepared, tmp_path):
        order = [1, 0, 2, 3, 4]
        second = predictions(tmp_path / "b.jsonl", SECOND, [TEST[i] for i in order])
        self.refused(prepared, tmp_path, second, "line 1 of .* differ in sample_id, question")

    @pytest.mark.parametrize(
        ("name", "value"),
        [("ecg_id", [4]), ("answer", ["no"]), ("options", ["yes"]), ("question", "Is it?"), ("question_type", "x")],
    )
    def test_other_questions(self, prepared, tmp_path, name, value):
        second = predictions(tmp_path / "b.jsonl", SECOND, **{name: value})
        self.refused(prepared, tmp_path, second, f"line 1 of .* differ in {name}, expected the same")

    def test_both_on_a_part_of_a_split(self, prepared, tmp_path):
        first = predictions(tmp_path / "a.jsonl", FIRST[:3], TEST[:3])
        with pytest.raises(EcgDataError, match="answers 3 questions, which are not all those of a split"):
            compare_predictions(prepared, first, first, output=tmp_path / "out.json")
