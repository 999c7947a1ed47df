"""Bootstrap intervals over ECGs.

Questions about one ECG share its signal and are not independent: ECG-QA asks about 14 of each. So ECGs are drawn with
replacement, each with all its questions (cluster bootstrap), and an interval over questions would be too narrow.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Cluster indices drawn at a time: 2**21 of them and the gathered sums stay below 50 MB for any number of ECGs.
_DRAWS_AT_ONCE = 2**21


class PairedDifference(NamedTuple):
    """Mean of a minus mean of b over the same questions, and its 95 % interval."""

    difference: float
    ci95: tuple[float, float]


def bootstrap_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean of `values`, resampling clusters.

    Args:
        values: (questions,), booleans or numbers.
        clusters: (questions,), the ECG of each question.
        n_resamples: how many times all ECGs are drawn anew.
        seed: the same seed gives the same interval.
        level: probability the interval is to hold.

    Returns:
        the two bounds. With one ECG only there is nothing to resample, and both are the mean.

    Raises:
        EcgDataError: no values, not one cluster for each value, a value that is not finite, or an n_resamples or level
            that makes no interval.

    >>> bootstrap_interval([1, 1, 1], [7, 7, 8])
    (1.0, 1.0)
    """
    if n_resamples < 1 or not 0.0 < level < 1.0:
        raise EcgDataError(f"got n_resamples={n_resamples} and level={level}, expected at least 1 and between 0 and 1")
    sums, counts = _cluster_sums(values, clusters)
    means = _resampled_means(sums, counts, n_resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def paired_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Difference of two systems on the same questions: mean of a minus mean of b, with a 95 % interval by ECG.

    Both are resampled together, so what makes a question hard for both does not widen the interval.

    Raises:
        EcgDataError: lengths that differ, and as `bootstrap_interval`.

    >>> paired_difference([1, 1, 0], [0, 0, 0], [1, 1, 1]).difference
    0.6666666666666666
    """
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.shape != b.shape:
        raise EcgDataError(f"got {a.shape} and {b.shape} scores, expected the same questions in both")
    interval = bootstrap_interval(a - b, clusters, n_resamples=n_resamples, seed=seed)
    return PairedDifference(float(np.mean(a - b)), interval)


def _cluster_sums(values: ArrayLike, clusters: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of the values and number of questions of each cluster, in order of first appearance."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise EcgDataError(f"got values of shape {array.shape}, expected one number for each of at least one question")
    if len(clusters) != len(array):
        raise EcgDataError(f"got {len(array)} values and {len(clusters)} clusters, expected one ECG for each value")
    if not np.isfinite(array).all():
        raise EcgDataError("a value is NaN or infinite; score every question, an empty prediction is 0")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    return np.bincount(index, weights=array).astype(np.float64), np.bincount(index).astype(np.float64)


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], n_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    num_clusters = len(sums)
    rows = max(1, _DRAWS_AT_ONCE // num_clusters)
    means = np.empty(n_resamples)
    for first in range(0, n_resamples, rows):
        last = min(first + rows, n_resamples)
        drawn = rng.integers(num_clusters, size=(last - first, num_clusters))
        means[first:last] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
