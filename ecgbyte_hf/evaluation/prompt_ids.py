"""Prompts as ids: an ECG that several questions share is tokenised once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)

# Heads whose ids are kept: those of a batch and its neighbours.
_KEPT_HEADS = 256


class PromptTokenizer:
    """Turns prompts into the ids that the language model's tokenizer gives them.

    A prompt is divided behind its last ECG. The head, which is most of it, is tokenised once for all prompts that
    begin with it, and the tail by itself. Whether a tokenizer gives the two parts the ids of the whole is looked at
    for the first prompt of every head.

    Args:
        lm_tokenizer: The language model's tokenizer.
        end_token: The token that ends an ECG.
    """

    def __init__(self, lm_tokenizer: Any, end_token: str) -> None:
        self._tokenizer = lm_tokenizer
        self._end_token = end_token
        self._heads: dict[str, list[int]] = {}
        self._divides = True

    def head(self, text: str) -> str:
        """The prompt up to the end of its last ECG; empty without one."""
        at = text.rfind(self._end_token)
        return text[: at + len(self._end_token)] if at >= 0 else ""

    def ids(self, text: str) -> list[int]:
        """The ids of a prompt, those that mark the beginning included."""
        head = self.head(text)
        if not head or not self._divides:
            return list(self._tokenizer(text)["input_ids"])
        # Behind the end of an ECG, as in the prompt: some tokenizers write a text's first word in another way.
        tail = self._tokenizer(self._end_token + text[len(head) :], add_special_tokens=False)["input_ids"][1:]
        if head in self._heads:
            return [*self._heads[head], *tail]
        whole = list(self._tokenizer(text)["input_ids"])
        if whole[len(whole) - len(tail) :] != list(tail):
            logger.warning("the tokenizer does not divide texts behind an ECG: every prompt is tokenised as a whole")
            self._divides = False
            return whole
        if len(self._heads) >= _KEPT_HEADS:
            self._heads.pop(next(iter(self._heads)))
        self._heads[head] = whole[: len(whole) - len(tail)]
        return whole


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many ids all prompts begin with, leaving at least one of each: its logits are what an answer begins with.

    >>> common_prefix([[5, 6, 7, 8], [5, 6, 9]]), common_prefix([[5, 6], [5, 6]])
    (2, 1)
    """
    shortest = min(len(prompt) for prompt in prompts)
    for index in range(shortest - 1):
        if any(prompt[index] != prompts[0][index] for prompt in prompts):
            return index
    return shortest - 1


def padded(sequences: Sequence[Sequence[int]], pad: int, *, side: str, device: Any) -> tuple[Any, Any]:
    """Sequences as one tensor (sequences, longest) and its mask, 1 where there is a token; int64."""
    import torch

    width = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        start = width - len(sequence) if side == "left" else 0
        ids[row, start : start + len(sequence)] = torch.as_tensor(list(sequence), dtype=torch.long)
        mask[row, start : start + len(sequence)] = 1
    return ids.to(device), mask.to(device)
