"""Questions about simulated ECGs: the answers follow from the labels, and every answer can be scored."""

from collections import Counter

import numpy as np
import pytest

import ecgbyte_hf
from ecgbyte_hf.data.simulator import SimulatedLabels, draw_labels, record_rng
from ecgbyte_hf.data.synthetic import (
    ATTRIBUTES,
    question_rng,
    questions_about,
    synthetic_split,
    synthetic_template_options,
    template_id,
)
from ecgbyte_hf.evaluation.scoring import gold_answer, parse_answer, question_options
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

LABELS = SimulatedLabels(
    rate="tachycardia",
    rhythm="irregular",
    st="normal st",
    qrs_width="wide",
    axis="left axis deviation",
    heart_rate_bpm=120.0,
    rr_variation=0.2,
    st_mv=0.0,
    qrs_ms=150.0,
    axis_degrees=-50.0,
    noise_mv=0.01,
)


@pytest.fixture(scope="module")
def many():
    """(labels, rows) of 600 records."""
    labels = [draw_labels(record_rng(0, number)) for number in range(1, 601)]
    return [(one, questions_about(number, one, question_rng(0, number))) for number, one in enumerate(labels, start=1)]


class TestQuestions:
    def test_query_answers_are_the_labels(self):
        rows = questions_about(7, LABELS, question_rng(0, 7))
        answers = {row["attribute_type"]: row["answer"] for row in rows if row["question_type"] == "single-query"}
        assert answers == {
            "rate": ["tachycardia"],
            "rhythm": ["irregular"],
            "st": ["normal st"],
            "qrs_width": ["wide"],
            "axis": ["left axis deviation"],
        }
        assert [row["sample_id"] for row in rows] == list(range(700, 715))
        assert {tuple(row["ecg_id"]) for row in rows} == {(7,)}
        assert rows[0]["question"] == "What is the heart rate of this ECG?"

    def test_verify_and_choose_follow_from_the_label(self, many):
        for labels, rows in many:
            for row in rows:
                true = getattr(labels, row["attribute_type"])
                if row["question_type"] == "single-verify":
                    assert row["question"] == f"Does this ECG show {row['attribute'][0]}?"
                    assert row["answer"] == ["yes" if row["attribute"] == [true] else "no"]
                if row["question_type"] == "single-choose":
                    first, second = row["attribute"]
                    assert first != second and {first, second} <= set(ATTRIBUTES[row["attribute_type"]])
                    assert row["question"].endswith(f"does this ECG show, {first} or {second}?")
                    assert row["answer"] == [true if true in (first, second) else "none"]

    def test_half_of_verify_is_yes_for_each_attribute(self, many):
        for attribute in ATTRIBUTES:
            answers = Counter(
                row["answer"][0]
                for _, rows in many
                for row in rows
                if row["question_type"] == "single-verify" and row["attribute_type"] == attribute
            )
            assert answers["yes"] / 600 == pytest.approx(0.5, abs=0.06)

    def test_choose_is_balanced_in_order_and_none(self, many):
        rows = [row for _, rows in many for row in rows if row["question_type"] == "single-choose"]
        three = [row for row in rows if len(ATTRIBUTES[row["attribute_type"]]) == 3]
        two = [row for row in rows if len(ATTRIBUTES[row["attribute_type"]]) == 2]
        assert sum(row["answer"] == ["none"] for row in three) / len(three) == pytest.approx(0.2, abs=0.04)
        assert not any(row["answer"] == ["none"] for row in two)
        named = [row for row in rows if row["answer"] != ["none"]]
        first = sum(row["attribute"][0] == row["answer"][0] for row in named) / len(named)
        assert first == pytest.approx(0.5, abs=0.04)

    def test_only_what_is_asked_for(self):
        rows = questions_about(1, LABELS, question_rng(0, 1), ("st", "rate"))
        assert [row["attribute_type"] for row in rows] == ["st"] * 3 + ["rate"] * 3

    def test_every_right_answer_parses_to_itself(self, many):
        templates = synthetic_template_options()
        for _, rows in many[:100]:
            for row in rows:
                options = question_options(row, templates)
                if row["question_type"] == "single-choose":
                    assert set(options) == {*row["attribute"], "none"}
                gold = gold_answer(row)
                assert parse_answer(row["answer"][0], options) == gold
                wrong = [option for option in options if option != row["answer"][0]]
                assert all(parse_answer(option, options) != gold for option in wrong)

    def test_templates_are_one_for_each_type_and_attribute(self):
        templates = synthetic_template_options()
        assert len(templates) == 3 * len(ATTRIBUTES)
        assert templates[template_id("single-verify", "st")] == ["no", "yes"]
        assert templates[template_id("single-choose", "rate")] == ["bradycardia", "normal rate", "tachycardia", "none"]
        assert min(templates) > 70  # ECG-QA's


class TestBuilder:
    def test_the_same_questions_as_the_prepared_folder(self, small_prepared):
        data = ecgbyte_hf.load_dataset("synthetic", "questions", num_records=40, seed=3)
        for split in ("train", "validation", "test"):
            assert data[split].to_list() == small_prepared.questions(split)
        assert [len(data[split]) for split in ("train", "validation", "test")] == [540, 30, 30]

    def test_labels(self, many):
        labels = ecgbyte_hf.load_dataset("synthetic", "labels", num_records=20, split="train")
        assert labels["ecg_id"] == list(range(1, 19))
        assert labels[4] == {"ecg_id": 5, **many[4][0].to_dict()}

    def test_streaming_gives_the_same(self):
        streamed = ecgbyte_hf.load_dataset("synthetic", num_records=20, split="test", streaming=True)
        assert list(streamed) == ecgbyte_hf.load_dataset("synthetic", num_records=20, split="test").to_list()

    def test_split_is_by_record(self):
        splits = Counter(synthetic_split(number) for number in range(1, 101))
        assert splits == {"train": 90, "validation": 5, "test": 5}

    def test_unknown_names_are_answered_with_the_known_ones(self):
        with pytest.raises(EcgDataError, match="known: ecg_chat, ecg_qa, mimic_iv_ecg, ptb_xl, synthetic"):
            ecgbyte_hf.load_dataset("ecgqa")
        with pytest.raises(EcgDataError, match="choose one of questions, labels"):
            ecgbyte_hf.load_dataset("synthetic", "signals")


def test_the_generator_of_questions_is_not_that_of_the_signal():
    assert not np.allclose(question_rng(0, 1).normal(size=3), record_rng(0, 1).normal(size=3))
