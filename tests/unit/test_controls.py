"""Majority answers, shuffled ECGs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgbyte_hf.evaluation.controls import (
    CONTROLS,
    majority_answers,
    majority_predictions,
    shuffled_ecg_ids,
    zero_signal,
)
from ecgbyte_hf.evaluation.scoring import score_rows
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def row(template, answer, question_type="single-verify"):
    return {
        "sample_id": 1,
        "template_id": template,
        "question_type": question_type,
        "answer": answer,
        "ecg_id": [1],
    }


def test_names():
    assert CONTROLS == ("majority", "question_only", "zero_signal", "shuffled", "rule")


class TestMajority:
    TRAIN = [
        row(1, ["no"]),
        row(1, ["no"]),
        row(1, ["yes"]),
        row(2, ["b", "a"], "single-query"),
        row(2, ["a", "b"], "single-query"),
        row(2, ["none"], "single-query"),
        row(3, ["c"], "single-query"),
        row(4, ["yes"]),
    ]

    def test_by_template_then_type_then_all(self):
        test = [
            row(1, ["yes"]),
            row(2, ["a"], "single-query"),
            row(3, ["a"], "single-query"),
            row(99, ["a"], "single-query"),
            row(99, ["a"], "single-choose"),
        ]
        assert majority_predictions(self.TRAIN, test) == ["no", "a b", "c", "a b", "a b"]

    def test_the_order_of_an_answer_does_not_matter(self):
        assert majority_answers(self.TRAIN).by_template[2] == {"a", "b"}

    def test_ties_go_to_the_first_in_the_alphabet(self):
        answers = majority_answers(self.TRAIN[::-1])
        assert answers.by_type["single-verify"] == {"no"}
        assert answers.overall == {"a", "b"}
        assert majority_answers([row(1, ["yes"]), row(1, ["none"])]).overall == frozenset()

    def test_none_is_written(self):
        assert majority_predictions([row(1, ["none"])], [row(1, ["a"])]) == ["none"]

    def test_predictions_score(self):
        options = ["a", "b", "none"]
        test = [row(2, ["b", "a"], "single-query"), row(2, ["a"], "single-query")]
        texts = majority_predictions(self.TRAIN, test)
        scored = score_rows([{**r, "options": options, "prediction": t} for r, t in zip(test, texts, strict=True)])
        assert [r["correct"] for r in scored] == [True, False]

    def test_no_training_rows(self):
        with pytest.raises(EcgDataError, match="no training question"):
            majority_predictions([], [row(1, ["a"])])


class TestShuffled:
    @given(st.sets(st.integers(0, 10**8), min_size=2, max_size=50), st.integers(0, 2**31))
    def test_one_to_one_without_a_fixed_point(self, ecgs, seed):
        mapping = shuffled_ecg_ids([{"ecg_id": [ecg]} for ecg in ecgs], seed)
        assert set(mapping) == set(mapping.values()) == ecgs
        assert all(ecg != other for ecg, other in mapping.items())

    def test_row_order_and_repeats_do_not_matter_but_the_seed_does(self):
        rows = [{"ecg_id": [ecg, ecg + 1]} for ecg in range(30)]
        assert shuffled_ecg_ids(rows, 1) == shuffled_ecg_ids(rows[::-1] + rows, 1)
        assert shuffled_ecg_ids(rows, 1) != shuffled_ecg_ids(rows, 2)

    def test_two_are_exchanged(self):
        assert shuffled_ecg_ids([{"ecg_id": [4, 9]}], 0) == {4: 9, 9: 4}

    @pytest.mark.parametrize("rows", [[], [{"ecg_id": [4]}, {"ecg_id": [4]}]])
    def test_one_has_no_other(self, rows):
        with pytest.raises(EcgDataError, match="at least 2"):
            shuffled_ecg_ids(rows, 0)


def test_zero_signal():
    signal = zero_signal((12, 2500))
    assert signal.shape == (12, 2500) and signal.dtype == np.float32 and not signal.any()
