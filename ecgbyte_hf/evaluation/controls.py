"""What a score has to beat: answers that need no ECG, or not this one.

`majority` and `rule` need no model. `question_only` is a model trained the same way without the ECG block,
`zero_signal` and `shuffled` are the model itself on a silent or another patient's signal.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbyte_hf.evaluation.scoring import answer_text, gold_answer
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

#: Names of the controls, in the order in which reports show them.
CONTROLS = ("majority", "question_only", "zero_signal", "shuffled", "rule")


@dataclass(frozen=True)
class MajorityAnswers:
    """The most frequent answer set of each template, of each question type, and of all questions."""

    by_template: dict[int, frozenset[str]]
    by_type: dict[str, frozenset[str]]
    overall: frozenset[str]

    def answer(self, row: Mapping[str, Any]) -> frozenset[str]:
        """The answer for a question: of its template, else of its type, else of all."""
        template, question_type = int(row["template_id"]), str(row["question_type"])
        if template in self.by_template:
            return self.by_template[template]
        return self.by_type.get(question_type, self.overall)


def majority_answers(train_rows: Iterable[Mapping[str, Any]]) -> MajorityAnswers:
    """Count the answer sets of the training questions.

    Ties go to the set whose sorted options come first in the alphabet, so the empty set wins over any other.

    Raises:
        EcgDataError: no rows.
    """
    by_template: dict[int, Counter[frozenset[str]]] = defaultdict(Counter)
    by_type: dict[str, Counter[frozenset[str]]] = defaultdict(Counter)
    overall: Counter[frozenset[str]] = Counter()
    for row in train_rows:
        answer = gold_answer(row)
        by_template[int(row["template_id"])][answer] += 1
        by_type[str(row["question_type"])][answer] += 1
        overall[answer] += 1
    if not overall:
        raise EcgDataError("there is no training question to take the majority of")
    return MajorityAnswers(
        by_template={template: _most_frequent(counts) for template, counts in by_template.items()},
        by_type={question_type: _most_frequent(counts) for question_type, counts in by_type.items()},
        overall=_most_frequent(overall),
    )


def majority_predictions(train_rows: Iterable[Mapping[str, Any]], test_rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Answer each test question with the majority of the training questions, as text that `score_rows` reads."""
    majority = majority_answers(train_rows)
    return [answer_text(majority.answer(row)) for row in test_rows]


def shuffled_ecg_ids(rows: Iterable[Mapping[str, Any]], seed: int) -> dict[int, int]:
    """Give every ECG another one's signal.

    Args:
        rows: question rows; both ECGs of a comparison are mapped. Where ECGs are windows of records (`record_id`), a
            window is given the same window of another record.
        seed: the same ECGs and seed give the same mapping, whatever the order of the rows.

    Returns:
        ECG -> the ECG whose signal to use. One to one, no ECG is mapped to itself, and all questions of an ECG get the
        same signal: the ECGs in a random order, each followed by the next.

    Raises:
        EcgDataError: fewer than two ECGs.

    >>> shuffled_ecg_ids([{"ecg_id": [3]}, {"ecg_id": [8, 3]}], seed=0)
    {3: 8, 8: 3}
    """
    windows: dict[int, set[int]] = {}
    for row in rows:
        for record, ecg in zip(row.get("record_id") or row["ecg_id"], row["ecg_id"], strict=True):
            windows.setdefault(int(record), set()).add(int(ecg))
    records = sorted(windows)
    if len(records) < 2:
        raise EcgDataError(
            f"got {len(records)} ECGs, expected at least 2: with fewer none can have another one's signal"
        )
    order = [int(record) for record in np.random.default_rng(seed).permutation(records)]
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return {
        ecg: other
        for record in records
        for ecg, other in zip(sorted(windows[record]), sorted(windows[following[record]]), strict=True)
    }


def zero_signal(shape: Sequence[int]) -> NDArray[np.float32]:
    """A silent recording, 0 mV everywhere, float32."""
    return np.zeros(tuple(shape), dtype=np.float32)


def _most_frequent(counts: Counter[frozenset[str]]) -> frozenset[str]:
    return min(counts, key=lambda answer: (-counts[answer], sorted(answer)))
