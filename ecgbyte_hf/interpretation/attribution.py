"""Which samples of an ECG, and which words, an answer came from, by several methods that can be compared."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
from ecgbyte_hf.interpretation.attention import AttentionSummary, watch_attention
from ecgbyte_hf.interpretation.gradients import gradient_x_input, integrated_gradients
from ecgbyte_hf.interpretation.reading import Reading
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json

logger = logging.getLogger(__name__)

#: Name -> what it is. Those of attention come from one forward pass together.
METHODS = {
    "attention": "attention of the answer, mean over layers and heads",
    "last_layer": "attention of the answer in the last layer, mean over heads",
    "paper": "attention that ECG tokens receive from ECG tokens, mean over layers and heads",
    "rollout": "attention rollout from the answer",
    "gradient_x_input": "gradient x input of the answer's log-probability",
    "integrated_gradients": "integrated gradients of the answer's log-probability",
}
# Nats by which sums of integrated gradients may be off without a warning.
_LARGEST_ERROR = 0.1
_OF_ATTENTION = ("attention", "last_layer", "paper", "rollout")


@dataclass(frozen=True)
class Attribution:
    """One method's value for every token of a reading.

    Attributes:
        method: One of `METHODS`.
        title: What it is, for a figure.
        values: (tokens,): shares of 1 for attention, nats of log-probability for gradients.
        is_signed: Whether negative values speak against the answer.
        error: Of integrated gradients, in nats.
    """

    method: str
    title: str
    values: np.ndarray
    is_signed: bool
    error: float | None = None

    @property
    def is_per_token(self) -> bool:
        """Whether figures show each sample the whole value of its token, as the paper does, rather than its part."""
        return self.method == "paper"

    @property
    def unit(self) -> str:
        """Of `values`."""
        return "nats" if self.is_signed else "share"

    def for_answer(self) -> np.ndarray:
        """(tokens,), what speaks for the answer: values below 0 become 0."""
        return np.maximum(self.values, 0.0)


def attribute(
    model: EcgLanguageModel,
    reading: Reading,
    methods: Sequence[str] = ("attention",),
    *,
    layer: int | None = None,
    head: int | None = None,
    steps: int = 32,
    summary: AttentionSummary | None = None,
) -> list[Attribution]:
    """Attribute an answer to the tokens that were read.

    Args:
        model: The model.
        reading: What it read, from `read_question`.
        methods: Some of `METHODS`.
        layer: For `attention` and `paper`: this layer alone, from 0.
        head: For `attention` and `paper`: this head alone, from 0.
        steps: Of integrated gradients.
        summary: From `watch_attention`, if it is there already.

    Raises:
        EcgDataError: an unknown method, a layer or head that the model lacks, or one that cannot be looked at.
        ImportError: captum is not installed.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise EcgDataError(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    if summary is None and any(method in _OF_ATTENTION for method in methods):
        summary = watch_attention(model.model, reading)
    return [_attribution(model, reading, method, layer, head, steps, summary) for method in methods]


def _attribution(
    model: EcgLanguageModel,
    reading: Reading,
    method: str,
    layer: int | None,
    head: int | None,
    steps: int,
    summary: AttentionSummary | None,
) -> Attribution:
    title = METHODS[method]
    error: float | None = None
    if method == "gradient_x_input":
        values = gradient_x_input(model.model, reading)
    elif method == "integrated_gradients":
        symbol = _median_symbol(model, reading)
        made = integrated_gradients(model.model, reading, steps=steps, symbol=symbol)
        values, error = made.values, made.error
        if error > _LARGEST_ERROR:
            logger.warning(
                "integrated gradients sum to %.2f nats less or more than what they explain; take more steps than %d",
                error,
                steps,
            )
    elif summary is None:
        raise EcgDataError(f"{method} needs the attention of a forward pass")
    elif method == "rollout":
        values = summary.rollout
    elif method == "last_layer":
        values = summary.of_answer(layer=len(summary.from_answer) - 1)
    else:
        values = (summary.of_answer if method == "attention" else summary.of_ecg)(layer=layer, head=head)
        if layer is not None or head is not None:
            title = title.partition(",")[0] + _where(layer, head)
    return Attribution(method, title, values, method not in _OF_ATTENTION, error)


def _where(layer: int | None, head: int | None) -> str:
    of_layer = "mean over layers" if layer is None else f"layer {layer}"
    return f", {of_layer}, " + ("mean over heads" if head is None else f"head {head}")


def _median_symbol(model: EcgLanguageModel, reading: Reading) -> int:
    """The language model's id of the token that is one sample of the ECG's median level."""
    symbols = model.processor.tokenizer.bpe.decode(reading.ecg_ids.astype(np.uint32))
    return int(model.lm_tokenizer.convert_tokens_to_ids(f"<|ecg_{int(np.median(symbols))}|>"))


def save_numbers(
    path: str | Path, reading: Reading, attributions: Sequence[Attribution], **extra: Any
) -> tuple[Path, Path]:
    """Write the numbers of a figure beside it: `NAME.npz` (arrays) and `NAME.json` (all else).

    The arrays are `signal` (leads, samples) in mV, `offsets`, `ecg_tokens`, and for each method `METHOD` (tokens,),
    `METHOD_samples` (leads, samples) and `METHOD_words`. No array needs pickle to be read.

    Args:
        path: Of the figure; its ending is replaced.
        reading: What was read.
        attributions: What is kept of it.
        extra: What else the JSON is to hold, such as a check.
    """
    arrays: dict[str, Any] = {"signal": reading.signal, "offsets": reading.offsets, "ecg_tokens": reading.ecg_ids}
    for one in attributions:
        arrays[one.method] = one.values
        arrays[f"{one.method}_samples"] = reading.to_samples(one.values)
        arrays[f"{one.method}_words"] = reading.to_words(one.values)
    arrays_path = Path(path).with_suffix(".npz")
    arrays_path.parent.mkdir(parents=True, exist_ok=True)
    with open(arrays_path, "wb") as file:
        np.savez_compressed(file, **arrays)
    content = {
        "question": reading.question,
        "answer": reading.answer,
        "answer_was_given": reading.is_given,
        "leads": reading.leads,
        "sampling_rate": reading.sampling_rate,
        "seconds_shown": reading.signal.shape[1] / reading.sampling_rate,
        "seconds": reading.seconds,
        "tokens": reading.num_tokens,
        "ecg_tokens": [reading.ecg.start, reading.ecg.stop],
        "words": [vars(word) for word in reading.words],
        "methods": {one.method: _figures(reading, one) for one in attributions},
        "arrays": arrays_path.name,
        "provenance": provenance("plot attention", extra.pop("arguments", {})),
        **extra,
    }
    return write_json(arrays_path.with_suffix(".json"), json.loads(json.dumps(content))), arrays_path


def _figures(reading: Reading, one: Attribution) -> dict[str, Any]:
    """Title, unit and sums of one method."""
    by_lead = reading.to_samples(one.values).sum(axis=1)
    return {
        "title": one.title,
        "unit": one.unit,
        "error": one.error,
        "sums": sums_by_kind(reading, one.values),
        "by_lead": {lead: float(value) for lead, value in zip(reading.leads, by_lead, strict=True)},
    }


def sums_by_kind(reading: Reading, values: np.ndarray) -> dict[str, float]:
    """Sums of (tokens,) over the ECG, the words of the text, those of the answer, and the special tokens."""
    sums = {"ecg": float(values[reading.ecg].sum()), "text": 0.0, "answer": 0.0, "special": 0.0}
    for word, value in zip(reading.words, reading.to_words(values), strict=True):
        sums[word.kind] += float(value)
    return sums
