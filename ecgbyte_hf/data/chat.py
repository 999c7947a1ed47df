"""From a question and its ECGs to a training row or a prompt.

The ECG is cut in time so that the text always fits; an answer is never cut. Every ECG is encoded once per budget,
however many questions refer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError
from ecgbyte_hf.models.processing_ecg_byte import encode_within_budget

# What the model is shown in place of the ECG it is asked about.
ECG_VIEWS = ("true", "question_only", "zero_signal", "shuffled")


@dataclass
class BudgetReport:
    """What the budget did to the rows that were made."""

    rows: int = 0
    rows_cut: int = 0
    seconds_kept: list[float] = field(default_factory=list)
    longest_row: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the least and median seconds of ECG in a row (`None` where rows hold no ECG)."""
        kept = self.seconds_kept
        return {
            "rows": self.rows,
            "rows_with_ecg_cut": self.rows_cut,
            "least_seconds_of_ecg": min(kept) if kept else None,
            "median_seconds_of_ecg": float(np.median(kept)) if kept else None,
            "longest_row_tokens": self.longest_row,
        }


class EcgPrompter:
    """Writes prompts and training rows for one ECG tokenizer and one language model.

    Args:
        ecg_tokenizer: The `EcgByteTokenizer`.
        lm_tokenizer: The extended tokenizer of the language model.
        prompt: Wording and budget.
        signal_of: ECG number to cleaned signal (leads, samples) in mV.
        view: `"true"`, or what the controls show instead: `"question_only"` (no ECG block), `"zero_signal"`,
            `"shuffled"` (the ECG that `substitutes` names).
        substitutes: ECG number to the number of the ECG shown in its place, for `"shuffled"`.
    """

    def __init__(
        self,
        ecg_tokenizer: Any,
        lm_tokenizer: Any,
        prompt: EcgPrompt,
        signal_of: Callable[[int], np.ndarray],
        *,
        view: str = "true",
        substitutes: dict[int, int] | None = None,
    ) -> None:
        if view not in ECG_VIEWS:
            raise ValueError(f"unknown view {view!r}; known: {', '.join(ECG_VIEWS)}")
        if view == "shuffled" and substitutes is None:
            raise ValueError("view 'shuffled' needs substitutes: a mapping of ECG numbers")
        self.ecg_tokenizer = ecg_tokenizer
        self.lm_tokenizer = lm_tokenizer
        self.prompt = prompt
        self.view = view
        self.report = BudgetReport()
        self._signal_of = signal_of
        self._substitutes = substitutes or {}
        self._blocks: dict[tuple[tuple[int, ...], int], tuple[str, float, bool]] = {}

    def _shown(self, ecg_id: int) -> np.ndarray:
        signal = self._signal_of(self._substitutes.get(ecg_id, ecg_id))
        return np.zeros_like(signal) if self.view == "zero_signal" else signal

    def _ecg_block(self, ecg_ids: tuple[int, ...], budget: int) -> tuple[str, float, bool]:
        """Text of the ECG blocks, seconds kept, and whether something was cut."""
        share = budget // len(ecg_ids)
        key = (ecg_ids, share)
        if key not in self._blocks:
            signals = [self._shown(ecg_id) for ecg_id in ecg_ids]
            ids, kept = encode_within_budget(self.ecg_tokenizer, signals, share * len(ecg_ids))
            text = "".join(self.ecg_tokenizer.ecg_text(part) for part in ids)
            was_cut = any(samples < signal.shape[1] for samples, signal in zip(kept, signals, strict=True))
            self._blocks[key] = (text, min(kept) / self.ecg_tokenizer.sampling_rate, was_cut)
        return self._blocks[key]

    def prompt_text(self, row: dict[str, Any], budget: int | None = None) -> str:
        """The prompt of one question.

        Args:
            row: A question row.
            budget: Tokens for the ECG; by default what the prompt's `max_length` leaves.

        Raises:
            BudgetError: the question and one sample of each lead do not fit; the message names the row.
        """
        self.report.rows += 1
        if self.view == "question_only":
            return self.prompt.render("", row["question"])
        try:
            if budget is None:
                budget = self.prompt.ecg_budget(self.lm_tokenizer, row["question"])
            text, seconds, was_cut = self._ecg_block(tuple(row["ecg_id"]), budget)
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']} (ECG {row['ecg_id']}): {error}") from error
        self.report.rows_cut += was_cut
        self.report.seconds_kept.append(seconds)
        return self.prompt.render(text, row["question"])

    def training_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """`prompt` and `completion` as text; the trainer adds the end-of-sequence token.

        Raises:
            BudgetError: question or answer do not fit; the message names the row.
        """
        completion = self.prompt.render_answer(row["answer"])
        try:
            answer_tokens = self.prompt.check_answer(self.lm_tokenizer, completion)
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']}: {error}") from error
        prompt = self.prompt_text(row)
        length = len(self.lm_tokenizer(prompt)["input_ids"]) + answer_tokens
        self.report.longest_row = max(self.report.longest_row, length)
        return {"prompt": prompt, "completion": completion, "sample_id": row["sample_id"], "ecg_id": row["ecg_id"]}

    def grouped_row(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Several questions about the same ECGs in one tokenised row, so that the ECG is read once.

        Every answer and its end-of-sequence token carry loss, nothing else does. A later question sees the earlier
        ones and their answers: group only questions whose answers do not give one another away.

        Returns:
            `input_ids` and `labels` (-100 without loss).

        Raises:
            BudgetError: the texts do not fit; the message names the first row.
        """
        texts = [self.prompt.render("", row["question"]) for row in rows[1:]]
        answers = [self.prompt.render_answer(row["answer"]) for row in rows]
        encode = lambda text: self.lm_tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
        answer_ids = [[*encode(answer), self.lm_tokenizer.eos_token_id] for answer in answers]
        question_ids = [encode(text) for text in texts]
        first_text = len(self.lm_tokenizer(self.prompt.render("", rows[0]["question"]))["input_ids"])
        taken = first_text + sum(map(len, question_ids)) + sum(map(len, answer_ids))
        prompt = self.prompt_text(rows[0], self.prompt.max_length - taken)
        input_ids = self.lm_tokenizer(prompt)["input_ids"]
        labels = [-100] * len(input_ids)
        for index, answer in enumerate(answer_ids):
            if index:
                input_ids = input_ids + question_ids[index - 1]
                labels += [-100] * len(question_ids[index - 1])
            input_ids = input_ids + answer
            labels += answer
        if len(input_ids) > self.prompt.max_length:
            raise BudgetError(
                f"sample {rows[0]['sample_id']} and the {len(rows) - 1} grouped with it take {len(input_ids)} tokens "
                f"of {self.prompt.max_length}; group fewer questions or raise max_length"
            )
        self.report.longest_row = max(self.report.longest_row, len(input_ids))
        return {"input_ids": input_ids, "labels": labels}


def group_by_ecg(
    rows: Iterable[dict[str, Any]], size: int, rng: np.random.Generator
) -> Iterator[list[dict[str, Any]]]:
    """Groups of at most `size` questions about the same ECGs, no two about the same attribute.

    Questions about one attribute give one another's answers away ("Is it regular?" and "Which rhythm is it?"), so
    they go to different groups. Every row is in exactly one group.
    """
    by_ecg: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_ecg.setdefault(tuple(row["ecg_id"]), []).append(row)
    for questions in by_ecg.values():
        waiting = [questions[index] for index in rng.permutation(len(questions))]
        while waiting:
            group: list[dict[str, Any]] = []
            rest = []
            for row in waiting:
                is_new = all(row["attribute_type"] != other["attribute_type"] for other in group)
                (group if is_new and len(group) < size else rest).append(row)
            yield group
            waiting = rest
