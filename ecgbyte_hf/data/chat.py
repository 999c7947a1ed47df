"""From a question and its ECGs to a training row or a prompt.

The ECG is cut in time so that the text always fits; an answer is never cut. Every ECG is encoded once per budget,
however many questions refer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, VocabularyError
from ecgbyte_hf.models.processing_ecg_byte import encode_within_budget

# What the model is shown in place of the ECG it is asked about.
ECG_VIEWS = ("true", "question_only", "zero_signal", "shuffled")
# Encoded ECGs that are kept, the oldest leaves first: 4 KB each at 1,000 tokens.
_KEPT_BLOCKS = 50_000


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt and what became of its ECGs.

    Attributes:
        text: The prompt.
        num_tokens: Its tokens, beginning of sequence included.
        seconds: Of ECG that it shows, the shorter of two; `None` without an ECG.
        was_cut: Whether that is less than there is.
    """

    text: str
    num_tokens: int
    seconds: float | None = None
    was_cut: bool = False


@dataclass
class BudgetReport:
    """What the budget did to the rows that were made."""

    rows: int = 0
    rows_cut: int = 0
    seconds_kept: list[float] = field(default_factory=list)
    longest_row: int = 0

    def add(self, prompt: RenderedPrompt, num_tokens: int) -> None:
        """Count a row of so many tokens that shows the ECGs of this prompt."""
        self.rows += 1
        self.rows_cut += prompt.was_cut
        if prompt.seconds is not None:
            self.seconds_kept.append(prompt.seconds)
        self.longest_row = max(self.longest_row, num_tokens)

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


@dataclass(frozen=True)
class _EcgBlock:
    """The ids of each ECG, the seconds kept of the shortest, and whether something was cut."""

    ids: tuple[np.ndarray, ...]
    seconds: float
    was_cut: bool

    @property
    def num_tokens(self) -> int:
        """With the start and the end of each ECG."""
        return sum(len(part) + 2 for part in self.ids)

    def shows_the_same_as(self, other: _EcgBlock) -> bool:
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self.ids, other.ids, strict=True))


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

    Raises:
        VocabularyError: the language model has other ECG tokens than the ECG tokenizer.
    """

    def __init__(
        self,
        ecg_tokenizer: Any,
        lm_tokenizer: Any,
        prompt: EcgPrompt,
        signal_of: Callable[[int], np.ndarray],
        *,
        view: str = "true",
        substitutes: Mapping[int, int] | None = None,
    ) -> None:
        if view not in ECG_VIEWS:
            raise ValueError(f"unknown view {view!r}; known: {', '.join(ECG_VIEWS)}")
        if (view == "shuffled") != (substitutes is not None):
            raise ValueError("substitutes, a mapping of ECG numbers, belong to the view 'shuffled' and to no other")
        _check_ecg_tokens(ecg_tokenizer, lm_tokenizer)
        self.ecg_tokenizer = ecg_tokenizer
        self.lm_tokenizer = lm_tokenizer
        self.prompt = prompt
        self.view = view
        self.report = BudgetReport()
        self._signal_of = signal_of
        self.substitutes = None if substitutes is None else dict(substitutes)
        self._blocks: dict[tuple[tuple[int, ...], int], _EcgBlock] = {}

    def prompt_for(self, row: dict[str, Any]) -> RenderedPrompt:
        """The prompt of one question, the same in training and in generation.

        Raises:
            BudgetError: the question and one sample of each lead do not fit; the message names the row.
        """
        text_tokens = self._text_tokens(row)
        return self._prompt_around(row, self._block_for(row, text_tokens), text_tokens)

    def training_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """`prompt` and `completion` as text; the trainer adds the end-of-sequence token.

        Raises:
            BudgetError: question or answer do not fit; the message names the row.
            VocabularyError: the tokenizer joins the end of the prompt and the start of the answer.
        """
        completion, answer_tokens = self._answer(row)
        prompt = self.prompt_for(row)
        # The trainer divides the two texts by their ids, so what it will see is looked at here, for every row.
        together = self.lm_tokenizer(prompt.text + completion)["input_ids"]
        answer = self._ids(completion)
        if together[prompt.num_tokens :] != answer or len(together) != prompt.num_tokens + len(answer):
            raise VocabularyError(
                f"sample {row['sample_id']}: the language model's tokenizer does not divide prompt and answer where "
                f"one ends and the other begins: {prompt.text[-20:]!r}, {completion[:20]!r}; change template or "
                "completion in ecg_prompt.json"
            )
        self.report.add(prompt, prompt.num_tokens + answer_tokens)
        return {
            "prompt": prompt.text,
            "completion": completion,
            "sample_id": row["sample_id"],
            "ecg_id": row["ecg_id"],
        }

    def grouped_rows(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Several questions about the same ECGs in one tokenised row, so that the ECG is read once.

        Every answer and its end-of-sequence token carry loss, nothing else does. A later question sees the earlier
        ones and their answers: group only questions whose answers do not give one another away.

        The ECG is never cut further to make room for more questions: each is asked about the cut that generation
        will show it. Questions that do not fit behind it begin a row of their own; a larger `reserve` gives them room.

        Returns:
            Rows of `input_ids` and `labels` (-100 without loss).

        Raises:
            BudgetError: a question or an answer does not fit even alone; the message names the row.
        """
        waiting = list(rows)
        while waiting:
            made, taken = self._grouped_row(waiting)
            yield made
            waiting = waiting[taken:]

    def _grouped_row(self, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], int]:
        """One row with as many questions from the start as fit, and their number."""
        text_tokens = self._text_tokens(rows[0])
        block = self._block_for(rows[0], text_tokens)
        prompt = self._prompt_around(rows[0], block, text_tokens)
        input_ids = list(self.lm_tokenizer(prompt.text)["input_ids"])
        labels = [-100] * len(input_ids)
        taken = 0
        for row in rows:
            question: list[int] = []
            answer = [*self._ids(self._answer(row)[0]), self.lm_tokenizer.eos_token_id]
            if taken:
                question = self._ids(self.prompt.render("", row["question"]))
                if len(input_ids) + len(question) + len(answer) > self.prompt.max_length:
                    break
                if block is not None:
                    own = self._block_for(row, self._text_tokens(row))
                    if own is not None and not own.shows_the_same_as(block):
                        break
            input_ids += [*question, *answer]
            labels += [*[-100] * len(question), *answer]
            taken += 1
        self.report.add(prompt, len(input_ids))
        return {"input_ids": input_ids, "labels": labels}, taken

    def _ids(self, text: str) -> list[int]:
        return list(self.lm_tokenizer(text, add_special_tokens=False)["input_ids"])

    def _answer(self, row: dict[str, Any]) -> tuple[str, int]:
        """The completion of a row and its tokens."""
        completion = self.prompt.render_answer(row["answer"])
        try:
            return completion, self.prompt.check_answer(self.lm_tokenizer, completion)
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']}: {error}") from error

    def _prompt_around(self, row: dict[str, Any], block: _EcgBlock | None, text_tokens: int) -> RenderedPrompt:
        if block is None:
            return RenderedPrompt(self.prompt.render("", row["question"]), text_tokens)
        ecg = "".join(self.ecg_tokenizer.ecg_text(part) for part in block.ids)
        num_tokens = text_tokens + block.num_tokens
        return RenderedPrompt(self.prompt.render(ecg, row["question"]), num_tokens, block.seconds, block.was_cut)

    def _text_tokens(self, row: dict[str, Any]) -> int:
        ecg_token = "" if self.view == "question_only" else str(self.ecg_tokenizer.bos_token)
        try:
            return self.prompt.text_tokens(self.lm_tokenizer, row["question"], ecg_token=ecg_token)
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']}: {error}") from error

    def _block_for(self, row: dict[str, Any], text_tokens: int) -> _EcgBlock | None:
        """What a question is shown of its ECGs; `None` in the view that shows none."""
        if self.view == "question_only":
            return None
        try:
            return self._encoded(tuple(row["ecg_id"]), self.prompt.ecg_budget(text_tokens))
        except BudgetError as error:
            raise BudgetError(f"sample {row['sample_id']} (ECG {row['ecg_id']}): {error}") from error

    def _encoded(self, ecg_ids: tuple[int, ...], budget: int) -> _EcgBlock:
        key = (ecg_ids, budget // len(ecg_ids))
        if key not in self._blocks:
            signals = [self._shown(ecg_id) for ecg_id in ecg_ids]
            ids, kept = encode_within_budget(self.ecg_tokenizer, signals, budget)
            was_cut = any(samples < signal.shape[1] for samples, signal in zip(kept, signals, strict=True))
            if len(self._blocks) >= _KEPT_BLOCKS:
                self._blocks.pop(next(iter(self._blocks)))
            small = tuple(part.astype(np.int32) for part in ids)
            self._blocks[key] = _EcgBlock(small, min(kept) / self.ecg_tokenizer.sampling_rate, was_cut)
        return self._blocks[key]

    def _shown(self, ecg_id: int) -> np.ndarray:
        if self.substitutes is not None:
            if ecg_id not in self.substitutes:
                raise EcgDataError(f"no other ECG was named to be shown instead of {ecg_id}")
            ecg_id = self.substitutes[ecg_id]
        signal = self._signal_of(ecg_id)
        return np.zeros_like(signal) if self.view == "zero_signal" else signal


def _check_ecg_tokens(ecg_tokenizer: Any, lm_tokenizer: Any) -> None:
    """An ECG token that the language model does not know would be read as a dozen letters, without any error."""
    count = ecg_tokenizer.num_ecg_tokens
    known = lm_tokenizer.get_vocab()
    if f"<|ecg_{count - 1}|>" not in known or f"<|ecg_{count}|>" in known or str(ecg_tokenizer.bos_token) not in known:
        theirs = sum(token.startswith("<|ecg_") and token[6:-2].isdigit() for token in known)
        raise VocabularyError(
            f"the ECG tokenizer has {count} tokens and the language model knows {theirs} of them; use the ECG "
            "tokenizer that the model was extended with"
        )


def group_by_ecg(
    rows: Iterable[dict[str, Any]], size: int, rng: np.random.Generator
) -> Iterator[list[dict[str, Any]]]:
    """Groups of at most `size` questions about the same ECGs, no two about the same attribute.

    Questions about one attribute give one another's answers away ("Is it regular?" and "Which rhythm is it?"), so
    they go to different groups. Every row is in exactly one group.

    Raises:
        EcgDataError: a size below 1.
    """
    if size < 1:
        raise EcgDataError(f"got {size} questions per row, expected at least 1")
    by_ecg: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_ecg.setdefault(tuple(row["ecg_id"]), []).append(row)
    for questions in by_ecg.values():
        waiting = [questions[index] for index in rng.permutation(len(questions))]
        while waiting:
            group: list[dict[str, Any]] = []
            rest: list[dict[str, Any]] = []
            for row in waiting:
                is_new = all(row["attribute_type"] != other["attribute_type"] for other in group)
                (group if is_new and len(group) < size else rest).append(row)
            yield group
            waiting = rest
