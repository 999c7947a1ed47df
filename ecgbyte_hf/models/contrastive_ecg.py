"""The contrastive loss of the encoders, over all ranks of a distributed training."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F

from .errors_ecg_byte import EncoderError


class _GatherOverRanks(torch.autograd.Function):
    """Concatenates what the ranks hold; in the backward pass every rank gets the sum of all gradients of its part."""

    @staticmethod
    def forward(ctx: Any, embeddings: torch.Tensor) -> torch.Tensor:
        length = torch.tensor([len(embeddings)], device=embeddings.device)
        lengths = [torch.empty_like(length) for _ in range(dist.get_world_size())]
        dist.all_gather(lengths, length)
        sizes = [int(size) for size in lengths]
        # all_gather needs one shape, and the last batch of an epoch can be smaller on some ranks.
        padded = embeddings.new_zeros(max(sizes), *embeddings.shape[1:])
        padded[: len(embeddings)] = embeddings
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        rank = dist.get_rank()
        ctx.start, ctx.stop = sum(sizes[:rank]), sum(sizes[: rank + 1])
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.start : ctx.stop]


def gather_over_ranks(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of all ranks, in their order, with gradients to each rank's own.

    A loss of what this returns has the same value on every rank, and each rank's gradient of it is the number of ranks
    times its share. The mean over ranks, which `DistributedDataParallel` takes, is therefore the gradient that one
    process would have on the whole batch. Every rank must take part; their batches may differ in size. Without a
    process group the embeddings come back as they are.

    Args:
        embeddings: (batch of this rank, size).

    Returns:
        (batch of all ranks, size).
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return embeddings
    gathered: torch.Tensor = _GatherOverRanks.apply(embeddings)
    return gathered


def contrastive_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    scale: float | torch.Tensor,
    directions: Literal["sum", "mean"],
) -> torch.Tensor:
    """Return the symmetric InfoNCE loss: row i of one belongs to row i of the other, and to no other row.

    Texts that are in a batch several times, such as labels, do no harm: as their embeddings are the same, value and
    gradient are those of the loss in which every ECG with the text is a positive, in equal shares (UniCL, arXiv
    2204.03610). Only the lowest value that can be reached is higher: the logarithm of how often the text is there.

    It is computed in float32 whatever the mixed precision, since the exponentials of a similarity times 1 / 0.07 are
    compared.

    Args:
        first: (batch, size) embeddings of this rank; they need not have unit length.
        second: (batch, size) embeddings of this rank.
        scale: factor of the cosine similarity: the inverse of the temperature.
        directions: the "sum" of both directions' cross-entropies (MERL), or their "mean" (CLIP).

    Raises:
        EncoderError: batches that are not of one shape.
    """
    if first.shape != second.shape:
        raise EncoderError(
            f"Got embeddings of the shapes {tuple(first.shape)} and {tuple(second.shape)}, expected the same: one "
            "text for every ECG."
        )
    with torch.autocast(first.device.type, enabled=False):
        first, second = (F.normalize(gather_over_ranks(part.float()), dim=-1) for part in (first, second))
        logits = scale * first @ second.T
        targets = torch.arange(len(logits), device=logits.device)
        total = F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)
    return total if directions == "sum" else total / 2
