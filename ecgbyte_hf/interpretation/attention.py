"""Attention from an answer to the ECG and to the words, one layer at a time.

A layer's attention of all heads, (heads, tokens, tokens), would be 0.5 GB at 2,000 tokens and 32 heads in float32, and
a model has dozens of layers. Here it is made for a few tokens' rows at a time, by the model's own eager attention (so
grouped keys, sliding windows, soft caps and sinks are as the model has them), and reduced at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgbyte_hf.interpretation.reading import Reading
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Name of the attention under which transformers finds ours.
_NAME = "ecgbyte_watched"
# Numbers of a layer's attention that are in memory at once: 4 MB in float32, and some copies of them. Of 16 MB blocks
# the C library's heap had lost 300 MB to gaps between them after 16 layers.
_MOST_NUMBERS = 2**20
# Rows of the rollout that are multiplied at once.
_ROWS = 256


@dataclass(frozen=True)
class AttentionSummary:
    """What is kept of all layers' attention.

    Attributes:
        from_answer: (layers, heads, tokens), the mean attention of the answer to each token. The rows are those that
            predict the answer's tokens, its end excepted: the last of the prompt, and the answer's without its last.
        from_ecg: (layers, heads, tokens), the mean attention of the ECG's tokens to each token, as in the paper. A
            token sees none after it, so the first ones have more of it than the last.
        rollout: (tokens,), attention rollout from the same rows as `from_answer` (Abnar and Zuidema, 2020): the
            product over the layers of half the mean over heads and half the residual connection.
    """

    from_answer: np.ndarray
    from_ecg: np.ndarray
    rollout: np.ndarray

    def of_answer(self, *, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """(tokens,) of one layer and head, or the mean over all where they are not given.

        Raises:
            EcgDataError: the model has no such layer or head.
        """
        return _chosen(self.from_answer, layer, head)

    def of_ecg(self, *, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """As `of_answer`, of `from_ecg`."""
        return _chosen(self.from_ecg, layer, head)


def _chosen(values: np.ndarray, layer: int | None, head: int | None) -> np.ndarray:
    for name, number, count in (("layer", layer, values.shape[0]), ("head", head, values.shape[1])):
        if number is not None and not 0 <= number < count:
            raise EcgDataError(f"got {name} {number}, the model has {name}s 0 to {count - 1}")
    layers = values if layer is None else values[layer : layer + 1]
    heads = layers if head is None else layers[:, head : head + 1]
    return np.asarray(heads.mean(axis=(0, 1), dtype=np.float64))


def answer_rows(reading: Reading) -> slice:
    """The tokens that predict the answer, its end excepted."""
    return slice(reading.answer_start - 1, reading.num_tokens - 2)


def watch_attention(model: Any, reading: Reading) -> AttentionSummary:
    """One forward pass over prompt and answer, whose attention is reduced layer by layer.

    Args:
        model: The causal language model (`EcgLanguageModel.model`), adapter included.
        reading: What it reads.

    Raises:
        EcgDataError: the model's attention cannot be looked at.
    """
    import torch

    ids = torch.from_numpy(reading.ids[None]).to(model.device)
    watcher = _Watcher(answer_rows(reading), reading.ecg)
    with torch.inference_mode(), _watched(model, watcher):
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
    expected = getattr(_base(model).config.get_text_config(), "num_hidden_layers", None)
    if not watcher.layers or len(watcher.layers) != expected:
        raise EcgDataError(
            f"{len(watcher.layers)} of {expected} layers of {type(_base(model)).__name__} have attention to look at; "
            "use a gradient method, which needs none"
        )
    return watcher.summary()


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _watched(model: Any, watcher: _Watcher) -> Iterator[None]:
    """The model with our attention; its own comes back whatever happens."""
    from transformers.masking_utils import AttentionMaskInterface, eager_mask
    from transformers.modeling_utils import AttentionInterface

    base = _base(model)
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        raise EcgDataError("the adapter adds a prompt of its own, so tokens are not where they seem; merge or drop it")
    if not getattr(base, "_supports_attention_backend", False) or not base._can_set_attn_implementation():
        raise EcgDataError(
            f"{type(base).__name__} has no attention that can be exchanged; use a gradient method, which needs none"
        )
    AttentionInterface.register(_NAME, _watched_attention)
    AttentionMaskInterface.register(_NAME, eager_mask)
    before = base.config._attn_implementation
    token = _WATCHER.set(watcher)
    try:
        base.set_attn_implementation(_NAME)
        yield
    finally:
        base.set_attn_implementation(before)
        _WATCHER.reset(token)


class _Watcher:
    """Keeps of each layer's attention what the summary needs."""

    def __init__(self, answer: slice, ecg: slice) -> None:
        self._answer, self._ecg = answer, ecg
        self.layers: list[tuple[np.ndarray, np.ndarray]] = []
        # Both (tokens, tokens), of the CPU, and used again for every layer.
        self._rollout: Any = None
        self._mean: Any = None
        self._is_causal = True  # all layers so far

    def attend(self, eager: Callable[..., Any], module: Any, query: Any, key: Any, mask: Any, **given: Any) -> Any:
        """What `eager` gives for all rows, made from a few rows at a time.

        Args:
            eager: The model's own attention.
            module: The layer.
            query: (1, heads, tokens, width).
            key: (1, key heads, tokens, width).
            mask: (1, 1, tokens, tokens) that is added, or `None`.
            given: Values and the rest of what `eager` takes.
        """
        import torch

        if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
            raise EcgDataError(f"got {query.shape[0]} sequences or a cache, expected one sequence in one pass")
        heads, tokens = query.shape[1:3]
        step = max(_MOST_NUMBERS // (heads * tokens), 1)
        received = torch.zeros(2, heads, tokens)
        whole: Any = None
        mean = torch.empty(tokens, tokens) if self._mean is None else self._mean
        for start in range(0, tokens, step):
            rows = slice(start, min(start + step, tokens))
            part = None if mask is None else mask[:, :, rows]
            output, weights = eager(module, query[:, :, rows], key, attention_mask=part, **given)
            if whole is None:
                whole = output.new_empty(1, tokens, *output.shape[2:])
            whole[:, rows] = output
            weights = weights[0].float()
            mean[rows] = weights.mean(dim=0).cpu()
            for number, wanted in enumerate((self._answer, self._ecg)):
                first, last = max(wanted.start, rows.start), min(wanted.stop, rows.stop)
                if first < last:
                    received[number] += weights[:, first - start : last - start].sum(dim=1).cpu()
        counts = (self._answer.stop - self._answer.start, self._ecg.stop - self._ecg.start)
        self.layers.append((received[0].numpy() / counts[0], received[1].numpy() / counts[1]))
        self._roll(mean)
        return whole, None

    def _roll(self, mean: Any) -> None:
        """One more layer of the rollout: half attention, half residual connection, rows that sum to 1.

        Where a model has attention sinks, its rows alone sum to less.

        Args:
            mean: (tokens, tokens), the mean over heads; it is kept, and changed.
        """
        mixed = mean.div_(2.0 * mean.sum(dim=-1, keepdim=True))
        mixed.diagonal().add_(0.5)
        starts = range(0, len(mixed), _ROWS)
        self._is_causal &= not any(mixed[start : start + _ROWS].triu(start + 1).any() for start in starts)
        if self._rollout is None:
            self._rollout = mixed
            return
        self._mean = mixed
        if not self._is_causal:  # this layer, or one below it
            self._rollout = mixed @ self._rollout
            return
        # From the last rows up, in place: a causal row is made of rows above it alone, and those are not yet replaced.
        for start in reversed(starts):
            stop = start + _ROWS
            self._rollout[start:stop, :stop] = mixed[start:stop, :stop] @ self._rollout[:stop, :stop]

    def summary(self) -> AttentionSummary:
        answer, ecg = (np.stack(part) for part in zip(*self.layers, strict=True))
        return AttentionSummary(answer, ecg, self._rollout[self._answer].double().mean(dim=0).numpy())


# A context variable, so that a model in another thread is not mistaken for this one.
_WATCHER: ContextVar[_Watcher] = ContextVar("watcher")


def _watched_attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
    """As transformers calls it from a layer."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if eager is None:
        raise EcgDataError(
            f"{type(module).__name__} has no eager attention to look at; use a gradient method, which needs none"
        )
    return _WATCHER.get().attend(eager, module, query, key, attention_mask, value=value, **kwargs)
