"""The probability of each valid answer, by ordinary forward passes over prompt and answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ecgbyte_hf.evaluation.prompt_ids import padded


def score_separately(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
    *,
    pad_token_id: int,
    batch_size: int,
    inputs_of: Callable[[Sequence[int]], dict[str, Any]] = lambda rows: {},
) -> list[list[float]]:
    """Log-probability of each answer as the completion of its prompt, as the sum over its tokens.

    Args:
        model: A causal language model.
        prompts: Ids of each prompt.
        answers: For each prompt the ids of its answers, with the end-of-sequence token; any number of them.
        pad_token_id: Of the padding, on the right: no position and no token of a prompt sees it.
        batch_size: Sequences of a forward pass.
        inputs_of: What else the model takes for a batch of prompts, which are given by their numbers.

    Returns:
        For each prompt the natural logarithms, in the order of its answers.
    """
    import torch

    scores: list[list[float]] = [[0.0] * len(each) for each in answers]
    pairs = [(row, column) for row, each in enumerate(answers) for column in range(len(each))]
    # Neighbours of equal length waste no padding.
    pairs.sort(key=lambda pair: -len(prompts[pair[0]]) - len(answers[pair[0]][pair[1]]))
    for start in range(0, len(pairs), max(batch_size, 1)):
        batch = pairs[start : start + batch_size]
        targets = [answers[row][column] for row, column in batch]
        # The last token is only predicted, never read.
        read = [[*prompts[row], *target[:-1]] for (row, _), target in zip(batch, targets, strict=True)]
        ids, mask = padded(read, pad_token_id, side="right", device=model.device)
        first = min(len(prompts[row]) for row, _ in batch) - 1
        columns = torch.arange(first, ids.shape[1], device=ids.device)
        with torch.inference_mode():
            others = inputs_of([row for row, _ in batch])
            logits = model(
                input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=columns, **others
            ).logits
        for index, ((row, column), target) in enumerate(zip(batch, targets, strict=True)):
            at = len(prompts[row]) - 1 - first
            scores[row][column] = float(logprobs_of(logits[index, at : at + len(target)], target).sum())
    return scores


def logprobs_of(logits: Any, targets: Sequence[int]) -> Any:
    """Log-probability of each target under its row of logits (targets, vocabulary), float32."""
    import torch

    values = logits.float()
    chosen = values.gather(-1, torch.as_tensor(list(targets), device=values.device)[:, None])[:, 0]
    return chosen - values.logsumexp(dim=-1)
