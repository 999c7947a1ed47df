"""Training rows that hold an ECG once and all questions about it behind, none of which sees another.

ECG-QA asks about 14 questions of one ECG, and the ECG is most of every sequence. In a shared-prefix row each question
sees the ECG and itself only, and its positions begin again behind the ECG, so that loss and gradient are those of
separate rows. `ecgbyte_hf.training.shared_prefix` builds the attention mask; `ecgbyte sft` uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ecgbyte_hf.data.chat import DividedRow, EcgPrompter
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError

# Not `input_ids`: TRL's SFTTrainer would take the rows as ready, drop the two columns that it does not know, and train
# on them with a plain causal mask, without a word (trl 1.16). So it ends with a KeyError.
TOKEN_COLUMN = "token_ids"  # noqa: S105  (no password)
SEGMENT_COLUMN = "segment_ids"
SHARED_COLUMNS = (TOKEN_COLUMN, "labels", "position_ids", SEGMENT_COLUMN)
SHARED_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in SHARED_COLUMNS])
#: Four of the paper's sequences: an ECG of 960 tokens and about 80 questions of 40.
MAX_ROW_TOKENS = 4096


def shared_rows(
    prompter: EcgPrompter,
    rows: Iterable[dict[str, Any]],
    rng: np.random.Generator,
    *,
    questions_per_row: int | None = None,
    max_row_tokens: int = MAX_ROW_TOKENS,
) -> Iterator[dict[str, list[int]]]:
    """Rows with an ECG and as many of its questions as there are and fit.

    Every question sees what `prompter.prompt_for` would show it alone: questions for which the ECG is cut otherwise
    are in another row.

    Args:
        prompter: Writes prompts; its report counts the rows that are made.
        rows: Questions.
        rng: For the order of the questions of one ECG.
        questions_per_row: Most questions in a row; all that fit by default.
        max_row_tokens: Most tokens in a row.

    Returns:
        Rows of int32 lists of one length. `token_ids`: beginning of sequence and ECG, then each question with its
        answer and the end of sequence. `labels`: -100 where no loss falls. `position_ids`: those of the separate
        rows. `segment_ids`: 0 what is shared, 1, 2, ... the questions. A token sees no later one, and only those of
        segment 0 and of its own.

    Raises:
        BudgetError: a question or an answer does not fit even alone, or `max_row_tokens` is less than a separate row
            may have.
        EcgDataError: no question per row, or a wording that puts the question before the ECG.
        VocabularyError: the tokenizer joins the end of the prompt and the start of the answer.
    """
    _check_wording(prompter)
    if questions_per_row is not None and questions_per_row < 1:
        raise EcgDataError(f"got {questions_per_row} questions per row, expected at least 1")
    if max_row_tokens < prompter.prompt.max_length:
        raise BudgetError(
            f"got rows of at most {max_row_tokens} tokens, and one question alone may have "
            f"{prompter.prompt.max_length}, which the model was extended for; give at least that"
        )
    by_ecg: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_ecg.setdefault(tuple(row["ecg_id"]), []).append(row)
    for questions in by_ecg.values():
        by_prefix: dict[tuple[int, ...], list[DividedRow]] = {}
        for index in rng.permutation(len(questions)):
            asked = prompter.divided_row(questions[index])
            if not asked.question:
                # The first token of an answer is predicted from the one before it, which would be another question's.
                sample = questions[index]["sample_id"]
                raise EcgDataError(f"sample {sample}: no text stands between the ECG and the answer")
            by_prefix.setdefault(asked.shared, []).append(asked)
        for together in by_prefix.values():
            for group in _groups(together, questions_per_row, max_row_tokens):
                row = _row(group)
                prompter.report.add(group[0], len(row[TOKEN_COLUMN]))
                yield row


def _check_wording(prompter: EcgPrompter) -> None:
    template = prompter.prompt.template
    if template.index("{ecg}") > template.index("{question}"):
        raise EcgDataError(
            f"the prompt's template is {template!r}; rows can share an ECG only where it comes before the question: "
            "write separate rows, or change template in ecg_prompt.json"
        )


def _num_own(asked: DividedRow) -> int:
    return len(asked.question) + len(asked.answer)


def _groups(asked: list[DividedRow], most: int | None, max_row_tokens: int) -> Iterator[list[DividedRow]]:
    """Divided in order, each part as large as it may be."""
    group: list[DividedRow] = []
    tokens = 0
    for one in asked:
        if group and (len(group) == most or tokens + _num_own(one) > max_row_tokens):
            yield group
            group = []
        if not group:
            tokens = len(one.shared)
        group.append(one)
        tokens += _num_own(one)
    if group:
        yield group


def _row(group: list[DividedRow]) -> dict[str, list[int]]:
    shared = group[0].shared
    row = {
        TOKEN_COLUMN: list(shared),
        "labels": [-100] * len(shared),
        "position_ids": list(range(len(shared))),
        SEGMENT_COLUMN: [0] * len(shared),
    }
    for segment, one in enumerate(group, start=1):
        row[TOKEN_COLUMN] += [*one.question, *one.answer]
        row["labels"] += [*[-100] * len(one.question), *one.answer]
        row["position_ids"] += range(len(shared), len(shared) + _num_own(one))
        row[SEGMENT_COLUMN] += [segment] * _num_own(one)
    return row
