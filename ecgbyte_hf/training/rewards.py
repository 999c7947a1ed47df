r"""Rewards for reinforcement learning by the unmodified `trl grpo`.

They read text rows and rows of messages of `ecgbyte encode`. The trainer saves no ECG tokenizer, so `ecgbyte generate`
is told where it is::

    trl grpo --reward_funcs ecgbyte_hf.training.rewards.exact_match_reward --model_name_or_path sft/merged \
        --dataset_name rows --output_dir grpo --max_completion_length 64
    ecgbyte generate --model grpo --ecg sft/merged/ecg_byte --data prepared --output answers.jsonl
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecgbyte_hf.evaluation.scoring import gold_answer, parse_answer
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def exact_match_reward(
    completions: Sequence[str | Sequence[Mapping[str, str]]],
    answer: Sequence[Sequence[str]] | None = None,
    options: Sequence[Sequence[str]] | None = None,
    **_: Any,
) -> list[float | None]:
    """1.0 where a completion is right by the measure of `ecgbyte evaluate`, else 0.0.

    Args:
        completions: What the model wrote for each row: a text, or of rows of messages a list of one message.
        answer: The rows' column of that name: the right answer as a list.
        options: The rows' column of that name: the valid answers of each question.

    Returns:
        A reward for each completion; None, which TRL leaves out, for free text: it has no options to match.

    Raises:
        EcgDataError: the rows lack one of the columns.

    Example:
        >>> exact_match_reward([" Yes.", " yes, no", " no"], [["yes"]] * 3, [["no", "yes"]] * 3)
        [1.0, 0.0, 0.0]
    """
    if answer is None or options is None:
        missing = [name for name, column in (("answer", answer), ("options", options)) if column is None]
        raise EcgDataError(
            f"the rows have no column {' and no column '.join(missing)}; write them with `ecgbyte encode --model` and "
            "one question per row"
        )
    return [
        float(parse_answer(_text(written), valid) == gold_answer({"answer": gold})) if valid else None
        for written, gold, valid in zip(completions, answer, options, strict=True)
    ]


def _text(completion: str | Sequence[Mapping[str, str]]) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]
