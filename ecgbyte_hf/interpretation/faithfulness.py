"""Whether a map of an ECG means something: does it point at the known place, and does deleting what it names hurt?

Two questions, because a map can look convincing and mean nothing (Adebayo et al., "Sanity checks for saliency maps",
2018). The share of a map inside the place that the answer comes from is compared with the place's share of the ECG and
with a model that learnt nothing. Deleting what a map calls most important is compared with deleting as much elsewhere:
the same pieces, moved along the ECG, so that both make as many edges, which a model that never saw any reacts to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
from ecgbyte_hf.evaluation.statistics import bootstrap_interval
from ecgbyte_hf.interpretation.reading import Reading, prompts_about
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# What is deleted, as a share of the samples.
SHARE = 0.1
# Tokens of one forward pass: 16 ECGs of 2,000 tokens would take gigabytes.
_MOST_TOKENS = 4096


@dataclass(frozen=True)
class Deletion:
    """What deleting a part of an ECG does to the logarithm of the answer's probability.

    Attributes:
        whole: With nothing deleted, nats.
        top: With what the map calls most important deleted.
        random: With as much deleted elsewhere, for each draw.
        share: Of the samples that were deleted.
    """

    whole: float
    top: float
    random: tuple[float, ...]
    share: float

    @property
    def drop(self) -> float:
        """Nats that the answer loses by deleting the top."""
        return self.whole - self.top

    @property
    def random_drop(self) -> float:
        """Nats that it loses by deleting as much elsewhere, mean over the draws."""
        return self.whole - float(np.mean(self.random))

    def to_dict(self) -> dict[str, Any]:
        """All numbers."""
        return {**asdict(self), "drop": self.drop, "random_drop": self.random_drop}


def top_samples(values: np.ndarray, share: float = SHARE) -> np.ndarray:
    """The largest values: booleans of the same shape. Of equal ones the first are taken.

    >>> top_samples(np.array([[0.1, 0.9], [0.5, 0.2]]), share=0.5).tolist()
    [[False, True], [True, False]]
    """
    if not 0.0 < share < 1.0:
        raise EcgDataError(f"got a share of {share}, expected more than 0 and less than 1")
    count = max(round(share * values.size), 1)
    chosen = np.zeros(values.size, dtype=bool)
    chosen[np.argsort(-values.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(values.shape)


def moved(chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same pieces somewhere else: moved along the ECG, lead after lead, what leaves at its end comes in again."""
    flat = chosen.ravel()
    return np.roll(flat, int(rng.integers(1, max(flat.size, 2)))).reshape(chosen.shape)


def deleted(signal: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The signal with its chosen samples at their lead's isoelectric line, its median.

    >>> deleted(np.array([[0.0, 2.0, 0.1, 0.0, 0.0]]), np.array([[False, True, False, False, False]])).tolist()
    [[0.0, 0.0, 0.1, 0.0, 0.0]]
    """
    line = np.median(signal, axis=1, keepdims=True).astype(signal.dtype)
    return np.where(chosen, line, signal)


def answer_logprobs(
    model: EcgLanguageModel,
    signals: Sequence[np.ndarray],
    question: str,
    answer: str,
    *,
    context: Mapping[str, Any] | None = None,
    batch_size: int = 16,
) -> list[float]:
    """The logarithm of the answer's probability, its end included, about each of several cleaned signals."""
    scores: list[float] = []
    for start in range(0, len(signals), batch_size):
        prompts = prompts_about(model, signals[start : start + batch_size], question, context=context)
        options = [[answer]] * len(prompts)
        for completion in model.complete(prompts, max_new_tokens=1, options=options, options_only=True):
            scores.append((completion.option_logprobs or {})[answer])
    return scores


def deletions(
    model: EcgLanguageModel,
    reading: Reading,
    maps: Mapping[str, np.ndarray],
    *,
    share: float = SHARE,
    draws: int = 10,
    seed: int = 0,
    context: Mapping[str, Any] | None = None,
) -> dict[str, Deletion]:
    """Delete what each map calls most important, and as much elsewhere.

    Args:
        model: The model.
        reading: What it read.
        maps: Name to values of the samples, (leads, samples), the most important the highest.
        share: Of the samples that are deleted.
        draws: Moved deletions for each map.
        seed: Of the draws.
        context: As in `read_question`.
    """
    if draws < 1:
        raise EcgDataError(f"got {draws} draws, expected at least 1")
    rng = np.random.default_rng(seed)
    signals = [reading.signal]
    for values in maps.values():
        top = top_samples(values, share)
        signals += [deleted(reading.signal, chosen) for chosen in (top, *(moved(top, rng) for _ in range(draws)))]
    size = min(max(_MOST_TOKENS // reading.num_tokens, 1), 16)
    whole, *rest = answer_logprobs(model, signals, reading.question, reading.answer, context=context, batch_size=size)
    results = {}
    for number, name in enumerate(maps):
        top_score, *random = rest[number * (draws + 1) : (number + 1) * (draws + 1)]
        results[name] = Deletion(whole, top_score, tuple(random), share)
    return results


def share_inside(values: np.ndarray, place: np.ndarray) -> float:
    """The share of a map that lies in a place; NaN where the map is 0 everywhere.

    Args:
        values: (leads, samples), none below 0: a token's value divided among its samples.
        place: Booleans of the same shape.

    >>> share_inside(np.array([[1.0, 3.0]]), np.array([[False, True]]))
    0.75
    """
    if values.shape != place.shape:
        raise EcgDataError(f"got a map of {values.shape} and a place of {place.shape}, expected the same samples")
    if (values < 0).any():
        raise EcgDataError("got a map with values below 0; a share needs what speaks for the answer alone")
    total = float(values.sum())
    return float(values[place].sum()) / total if total else float("nan")


def token_share(reading: Reading, place: np.ndarray) -> float:
    """The share of the ECG's tokens that a place has: what a map would have inside it that gives all tokens as much.

    It is more than the place's share of the samples where tokens are shorter than elsewhere.
    """
    return share_inside(reading.to_samples(np.ones(len(reading.ecg_ids))), place)


def mean_with_interval(values: Sequence[float], records: Sequence[int], *, seed: int = 0) -> dict[str, Any]:
    """Mean over records, its 95 % interval by bootstrap over them, and their number; NaN is refused."""
    low, high = bootstrap_interval(values, records, seed=seed)
    return {"mean": float(np.mean(values)), "ci95": [low, high], "n": len(values)}
