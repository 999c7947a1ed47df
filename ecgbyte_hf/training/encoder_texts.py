"""What an ECG is paired with when an encoder is pretrained: its report, its answered questions, or its labels.

All three are read from the questions of a prepared folder, so that any data set that `ecgbyte prepare` knows will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgbyte_hf.data.label_questions import VERIFY_SETS
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

Row = Mapping[str, Any]

#: `report`: the answer to a question of the type "report" or "conversation"; `answers`: all questions about the ECG,
#: each with its answer; `labels`: what the ECG shows of all that verify questions ask about.
TEXT_KINDS = ("report", "answers", "labels")
_REPORT_TYPES = ("report", "conversation")
_NAMES_OF_TEMPLATES = {
    template: labels.names[label] for labels in VERIFY_SETS.values() for label, template in labels.templates().items()
}


@dataclass(frozen=True)
class EcgTexts:
    """The texts of the ECGs of one split.

    Attributes:
        kind: One of `TEXT_KINDS`.
        parts: What there is to say about each ECG that has a text: reports, sentences, or names of labels.
        ecg_ids: All ECGs of the split, sorted, with a text or without.
    """

    kind: str
    parts: Mapping[int, tuple[str, ...]]
    ecg_ids: tuple[int, ...]

    @property
    def num_without(self) -> int:
        """ECGs of the split that have no text."""
        return len(self.ecg_ids) - len(self.parts)

    def text(self, ecg_id: int, rng: np.random.Generator | None = None) -> str:
        """The text of one ECG.

        Of several reports one is drawn, and answered questions come in any order, since a long text is cut at the
        tower's length. Labels have one text.

        Args:
            ecg_id: An ECG that has a text.
            rng: Draws; without it the text is always the same.
        """
        parts = self.parts[ecg_id]
        if self.kind == "labels":
            return ", ".join(parts)
        if self.kind == "report":
            return parts[0 if rng is None else int(rng.integers(len(parts)))]
        return " ".join(parts if rng is None else [parts[place] for place in rng.permutation(len(parts))])


def default_text_kind(rows: Sequence[Row]) -> str:
    """Reports where there are some, else labels, else answers."""
    if any(row["question_type"] in _REPORT_TYPES for row in rows):
        return "report"
    return "labels" if LabelNames(rows) else "answers"


def texts_of_split(prepared: PreparedData, split: str, kind: str, names: LabelNames | None = None) -> EcgTexts:
    """The texts of a split's ECGs. Questions about two ECGs at once tell of neither and are left out.

    Args:
        prepared: The prepared folder, whole or in windows.
        split: Whose questions are read.
        kind: One of `TEXT_KINDS`.
        names: The labels, of the training questions; those of the split by default.

    Raises:
        EcgDataError: no such kind or split.
    """
    if kind not in TEXT_KINDS:
        raise EcgDataError(f"got texts {kind!r}, expected one of {', '.join(TEXT_KINDS)}")
    rows = prepared.questions(split)
    if names is None:
        names = LabelNames(rows)
    parts: dict[int, list[str]] = {}
    for row in rows:
        if len(row["ecg_id"]) == 1:
            found = parts.setdefault(row["ecg_id"][0], [])
            found += [part for part in _parts_of(row, kind, names) if part not in found]
    told = {ecg_id: tuple(found) for ecg_id, found in sorted(parts.items()) if found}
    return EcgTexts(kind, told, tuple(sorted({ecg_id for row in rows for ecg_id in row["ecg_id"]})))


class LabelNames:
    """What verify questions ask about one ECG ("Does this ECG show ...?"), in words.

    A name that a question is answered with, such as "which of", is a label too if a verify question about the same
    attribute asks for it.

    Args:
        rows: Questions, of the training split.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._known: dict[tuple[str, str], str] = {}
        for row in rows:
            name = asked_label(row)
            if name is not None:
                self._known.setdefault((str(row["attribute_type"]), name), name)

    def __len__(self) -> int:
        return len(self._known)

    def shown(self, row: Row) -> list[str]:
        """The labels that a question and its answer say an ECG has."""
        asked = asked_label(row)
        if asked is not None:
            return [asked] if list(row["answer"]) == ["yes"] else []
        if not str(row["question_type"]).startswith("single-"):
            return []
        named = [(str(row["attribute_type"]), _plain(answer)) for answer in row["answer"]]
        return [self._known[key] for key in named if key in self._known]


def asked_label(row: Row) -> str | None:
    """What a verify question asks about one ECG, in words; None of any other question."""
    attribute = list(row.get("attribute") or ())
    if row["question_type"] != "single-verify" or len(row["ecg_id"]) != 1 or len(attribute) != 1:
        return None
    return label_words(int(row["template_id"]), str(attribute[0]))


def label_words(template_id: int, attribute: str) -> str:
    """A label in words, without article.

    Example:
        >>> label_words(2102, "MI"), label_words(1101, "tachycardia")
        ('myocardial infarction', 'tachycardia')
    """
    return _plain(_NAMES_OF_TEMPLATES.get(template_id, attribute))


def _plain(name: str) -> str:
    return " ".join(name.split()).removeprefix("a ").removeprefix("an ")


def _parts_of(row: Row, kind: str, names: LabelNames) -> list[str]:
    if kind == "labels":
        return names.shown(row)
    answers = [" ".join(answer.split()) for answer in row["answer"] if answer.strip()]
    if kind == "report":
        return answers if row["question_type"] in _REPORT_TYPES else []
    if not answers:
        return []
    question = " ".join(str(row["question"]).split())
    return [f"{question} {', '.join(answers)}."]
