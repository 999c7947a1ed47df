"""Training rows that hold an ECG once and all questions about it behind, none of which sees another.

ECG-QA asks about 14 questions of one ECG, and the ECG is most of every sequence. In a shared-prefix row each question
sees the ECG and itself only, and its positions begin again behind the ECG, so that loss and gradient are those of
separate rows. `ecgbyte_hf.training.shared_prefix` builds the attention mask; `ecgbyte sft` uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ecgbyte_hf.data.chat import EcgPrompter, RenderedPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, VocabularyError

# Not `input_ids`: TRL's SFTTrainer would take the rows as ready, drop the two columns that it does not know, and train
# on them with a plain causal mask, without a word (trl 1.16). So it ends with a KeyError.
TOKEN_COLUMN = "token_ids"  # noqa: S105  (no password)
SEGMENT_COLUMN = "segment_ids"
SHARED_COLUMNS = (TOKEN_COLUMN, "labels", "position_ids", SEGMENT_COLUMN)
SHARED_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in SHARED_COLUMNS])
#: Four of the paper's sequences: an ECG of 960 tokens and about 80 questions of 40.
MAX_ROW_TOKENS = 4096


@dataclass(frozen=True)
class _Asked:
    """One question in ids: what it shares with others, its own part, and its answer with the end of sequence."""

    prompt: RenderedPrompt
    shared: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def num_own(self) -> int:
        return len(self.question) + len(self.answer)


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
        by_prefix: dict[tuple[int, ...], list[_Asked]] = {}
        for index in rng.permutation(len(questions)):
            asked = _asked(prompter, questions[index])
            by_prefix.setdefault(asked.shared, []).append(asked)
        for together in by_prefix.values():
            for group in _groups(together, questions_per_row, max_row_tokens):
                row = _row(group)
                prompter.report.add(group[0].prompt, len(row[TOKEN_COLUMN]))
                yield row


def _check_wording(prompter: EcgPrompter) -> None:
    template = prompter.prompt.template
    if template.index("{ecg}") > template.index("{question}"):
        raise EcgDataError(
            f"the prompt's template is {template!r}; rows can share an ECG only where it comes before the question: "
            "write separate rows, or change template in ecg_prompt.json"
        )


def _asked(prompter: EcgPrompter, row: dict[str, Any]) -> _Asked:
    """A question's ids, divided as a trainer divides the text of the separate row.

    Raises:
        BudgetError: question or answer do not fit; the message names the row.
        EcgDataError: nothing stands between the ECG and the answer.
        VocabularyError: prompt and answer cannot be told apart in the ids.
    """
    tokenizer = prompter.lm_tokenizer
    prompt = prompter.prompt_for(row)
    completion = prompter.prompt.render_answer(row["answer"])
    try:
        prompter.prompt.check_answer(tokenizer, completion)
    except BudgetError as error:
        raise BudgetError(f"sample {row['sample_id']}: {error}") from error
    ids = list(tokenizer(prompt.text + completion + tokenizer.eos_token)["input_ids"])
    answer = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if ids[: prompt.num_tokens] != tokenizer(prompt.text)["input_ids"] or ids[prompt.num_tokens :] != answer:
        raise VocabularyError(
            f"sample {row['sample_id']}: the language model's tokenizer does not divide prompt and answer where one "
            f"ends and the other begins: {prompt.text[-20:]!r}, {completion[:20]!r}; change template or completion in "
            "ecg_prompt.json"
        )
    num_shared = _num_shared(prompter, ids, len(row["ecg_id"]))
    if num_shared == prompt.num_tokens:
        # The first token of an answer is predicted from the one before it, which would be another question's.
        raise EcgDataError(f"sample {row['sample_id']}: no text stands between the ECG and the answer")
    shared, question = ids[:num_shared], ids[num_shared : prompt.num_tokens]
    return _Asked(prompt, tuple(shared), tuple(question), tuple(answer))


def _num_shared(prompter: EcgPrompter, ids: list[int], num_ecgs: int) -> int:
    """Tokens up to the end of the last ECG; where none is shown, those that begin every sequence."""
    if prompter.view == "question_only":
        return len(prompter.lm_tokenizer("")["input_ids"])
    end = prompter.lm_tokenizer.convert_tokens_to_ids(str(prompter.ecg_tokenizer.eos_token))
    return 1 + [index for index, token in enumerate(ids) if token == end][num_ecgs - 1]


def _groups(asked: list[_Asked], most: int | None, max_row_tokens: int) -> Iterator[list[_Asked]]:
    """Divided in order, each part as large as it may be."""
    group: list[_Asked] = []
    tokens = 0
    for one in asked:
        if group and (len(group) == most or tokens + one.num_own > max_row_tokens):
            yield group
            group = []
        if not group:
            tokens = len(one.shared)
        group.append(one)
        tokens += one.num_own
    if group:
        yield group


def _row(group: list[_Asked]) -> dict[str, list[int]]:
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
        row["position_ids"] += range(len(shared), len(shared) + one.num_own)
        row[SEGMENT_COLUMN] += [segment] * one.num_own
    return row
