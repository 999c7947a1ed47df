"""What each token adds to the logarithm of the answer's probability: gradient x input, and integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgbyte_hf.evaluation.option_scores import logprobs_of
from ecgbyte_hf.interpretation.reading import Reading
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Tokens of one forward and backward pass of integrated gradients.
_MOST_TOKENS = 4096


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated gradients and how exact they are.

    Attributes:
        values: (tokens,), nats. Those of the ECG's tokens sum to what the ECG adds to the logarithm of the answer's
            probability over a flat line; those of the words to what they add over padding. All others are 0.
        error: By how much the two sums differ from that; it falls with the number of steps.
    """

    values: np.ndarray
    error: float


def answer_logprob(model: Any, reading: Reading) -> Callable[[Any], Any]:
    """A function of ids (sequences, tokens) that gives the logarithm of the answer's probability, end included."""
    target = reading.ids[reading.answer_start :].tolist()

    def logprob(ids: Any) -> Any:
        import torch

        columns = torch.arange(reading.answer_start - 1, reading.num_tokens - 1, device=ids.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=columns).logits
        return torch.stack([logprobs_of(row, target).sum() for row in logits])

    return logprob


@contextmanager
def one_layer_at_a_time(model: Any) -> Iterator[None]:
    """Keep only the input of each layer; what else the backward pass needs is made again when its turn comes.

    Otherwise 2,000 tokens and 16 layers of width 512 took 1.9 GB. transformers' own checkpointing works in training
    alone, where dropout is on.
    """
    from functools import partial

    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    # A device hook of accelerate is an attribute of the layer itself.
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                del layer.forward
            else:
                layer.forward = own


def gradient_x_input(model: Any, reading: Reading) -> np.ndarray:
    """The gradient of the answer's log-probability at each token's embedding, times the embedding: (tokens,) in nats.

    Args:
        model: The causal language model (`EcgLanguageModel.model`).
        reading: What it reads.
    """
    import torch

    kept: list[Any] = []

    def keep(module: Any, inputs: Any, output: Any) -> Any:
        # A leaf of its own: embeddings that are frozen under an adapter have no gradient otherwise.
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad(), one_layer_at_a_time(model):
            logprob = answer_logprob(model, reading)(torch.from_numpy(reading.ids[None]).to(model.device))
            (gradient,) = torch.autograd.grad(logprob.sum(), kept[-1])
    finally:
        handle.remove()
    values: np.ndarray = (gradient * kept[-1].detach())[0].float().sum(dim=-1).cpu().double().numpy()
    return values


def integrated_gradients(
    model: Any, reading: Reading, *, steps: int = 32, batch_size: int | None = None, symbol: int | None = None
) -> IntegratedGradients:
    """Integrated gradients (Sundararajan et al., 2017) by captum, on the embedding layer.

    The ECG's tokens and the words are gone through one after the other: for the ECG the path begins with all its
    tokens being one sample of its median level, with the question as it is; for the words it begins with padding.

    Args:
        model: The causal language model (`EcgLanguageModel.model`).
        reading: What it reads.
        steps: Points on each path; each is a forward and a backward pass.
        batch_size: Points at a time; by default as many as have some thousands of tokens together, and at most 8.
        symbol: The language model's id of the ECG token that the path begins with.

    Raises:
        ImportError: captum is not installed (extra `interpretation`).
    """
    import torch

    try:
        from captum.attr import LayerIntegratedGradients
    except ImportError as error:
        raise ImportError(
            "integrated gradients need captum; install it with `pip install 'ecgbyte-hf[interpretation]'`"
        ) from error
    forward = answer_logprob(model, reading)
    captum = LayerIntegratedGradients(forward, model.get_input_embeddings())
    ids = torch.from_numpy(reading.ids[None]).to(model.device)
    size = batch_size or min(max(_MOST_TOKENS // reading.num_tokens, 1), 8)
    values = np.zeros(reading.num_tokens)
    largest_error = 0.0
    for places, stand_in in _paths(model, reading, symbol):
        start = ids.clone()
        start[0, places] = stand_in
        with one_layer_at_a_time(model):
            made = captum.attribute(
                ids, baselines=start, n_steps=steps, internal_batch_size=size, attribute_to_layer_input=False
            )
        part = made[0].float().sum(dim=-1).detach().cpu().double().numpy()
        with torch.no_grad():
            gained = float(forward(ids) - forward(start))
        largest_error = max(largest_error, abs(float(part[places].sum()) - gained))
        values[places] = part[places]
    return IntegratedGradients(values, largest_error)


def _paths(model: Any, reading: Reading, symbol: int | None) -> list[tuple[list[int], int]]:
    """The tokens of each path, and the id that they begin as."""
    pad = getattr(_config(model), "pad_token_id", None)
    words = [place for word in reading.words if word.kind == "text" for place in range(word.start, word.stop)]
    if symbol is None or pad is None:
        raise EcgDataError("integrated gradients begin with an ECG token and padding; give symbol and a pad_token_id")
    return [([*range(reading.ecg.start, reading.ecg.stop)], symbol), *([(words, pad)] if words else [])]


def _config(model: Any) -> Any:
    return model.config.get_text_config()
