"""Bootstrap intervals over ECGs.

Questions about one ECG share its signal and are not independent: ECG-QA asks about 14 of each. So ECGs are drawn with
replacement, each with all its questions (cluster bootstrap), and an interval over questions would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Cluster indices drawn at a time: 2**21 of them and the gathered sums stay below 50 MB for any number of ECGs.
_DRAWS_AT_ONCE = 2**21
# Weights drawn at a time, and resamples: rows of 128 numbers keep the sums over sorted questions in the cache.
_WEIGHTS_AT_ONCE, _RESAMPLES_AT_ONCE = 2**22, 128


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


class ClusterResamples:
    """The same resamples of ECGs for several statistics, so that they can be compared.

    Args:
        clusters: (questions,), the ECG of each question.
        n_resamples: How many times all ECGs are drawn anew.
        seed: The same seed and ECGs give the same resamples.

    Attributes:
        index: (questions,), the number of each question's ECG, in order of first appearance.
        num_clusters: Number of ECGs.

    Raises:
        EcgDataError: no questions, or no resample.
    """

    def __init__(self, clusters: Sequence[Hashable], *, n_resamples: int = 2000, seed: int = 0) -> None:
        if not len(clusters) or n_resamples < 1:
            raise EcgDataError(f"got {len(clusters)} questions and {n_resamples} resamples, expected at least 1 each")
        numbers: dict[Hashable, int] = {}
        self.index = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
        self.num_clusters = len(numbers)
        self.n_resamples = n_resamples
        self._seed = seed

    def weights(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """How often every ECG was drawn: slices of the resamples, and (ECGs, resamples of the slice)."""
        rng = np.random.default_rng(self._seed)
        size = max(1, min(self.n_resamples, _WEIGHTS_AT_ONCE // self.num_clusters, _RESAMPLES_AT_ONCE))
        for first in range(0, self.n_resamples, size):
            width = min(size, self.n_resamples - first)
            drawn = rng.integers(self.num_clusters, size=(width, self.num_clusters))
            places = drawn * width + np.arange(width)[:, None]
            counts = np.bincount(places.ravel(), minlength=self.num_clusters * width)
            yield slice(first, first + width), counts.reshape(self.num_clusters, width).astype(np.float32)

    def cluster_sums(self, values: ArrayLike, columns: ArrayLike, num_columns: int) -> NDArray[np.float32]:
        """Sums over the questions of each ECG, by column.

        Args:
            values: (questions,), numbers whose sums are exact in float32, such as booleans.
            columns: (questions,), the column that each is counted in, such as its label.
            num_columns: Columns in all.

        Returns:
            (ECGs, columns).
        """
        places = self.index * num_columns + np.asarray(columns)
        sums = np.bincount(places, weights=np.asarray(values, dtype=float), minlength=self.num_clusters * num_columns)
        return sums.reshape(self.num_clusters, num_columns).astype(np.float32)

    def sums_of_rows(self, values: ArrayLike) -> NDArray[np.float32]:
        """Sums of (questions, columns) over the questions of each ECG, (ECGs, columns)."""
        array = np.asarray(values, dtype=np.float32)
        sums = np.zeros((self.num_clusters, array.shape[1]), dtype=np.float32)
        np.add.at(sums, self.index, array)
        return sums

    def resampled_sums(self, sums: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sums of (ECGs, columns) over the ECGs of each resample, (resamples, columns)."""
        result = np.empty((self.n_resamples, sums.shape[1]))
        for part, weights in self.weights():
            result[part] = weights.T @ sums
        return result


def percentile_interval(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of a statistic's resamples; those in which it does not exist (NaN) are left out.

    Returns:
        the two bounds, or None where it exists in no resample.

    >>> percentile_interval([float("nan"), 2.0, 2.0])
    (2.0, 2.0)
    """
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    if not len(array):
        return None
    low, high = np.quantile(array, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


class AreaUnderCurve:
    """Area under the ROC curve of one label, for any weights of the ECGs.

    It is the probability that a positive question has the higher score, ties counting half (Mann and Whitney). Sorted
    once, it costs one running sum over the negative questions for many resamples together.

    Args:
        scores: (questions,), higher for the positive class.
        positive: (questions,), booleans.
        cluster_index: (questions,), the number of each question's ECG.
    """

    def __init__(self, scores: ArrayLike, positive: ArrayLike, cluster_index: ArrayLike) -> None:
        values, is_positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
        clusters = np.asarray(cluster_index)
        order = np.argsort(values[~is_positive], kind="stable")
        negatives = values[~is_positive][order]
        self._negatives = clusters[~is_positive][order]
        self._positives = clusters[is_positive]
        self._below = np.searchsorted(negatives, values[is_positive], side="left")
        self._not_above = np.searchsorted(negatives, values[is_positive], side="right")

    @property
    def has_both_classes(self) -> bool:
        """Whether there is a positive and a negative question."""
        return bool(len(self._negatives) and len(self._positives))

    def value(self) -> float:
        """With every question once; NaN without both classes."""
        if not self.has_both_classes:
            return math.nan
        total = float(np.sum(self._below, dtype=np.float64) + np.sum(self._not_above, dtype=np.float64)) / 2.0
        return total / (len(self._negatives) * len(self._positives))

    def weighted(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """In each resample of (ECGs, resamples); NaN where one of the classes was not drawn."""
        # Counts of drawn questions are whole and below 2**24: exact in float32.
        running = np.zeros((len(self._negatives) + 1, weights.shape[1]), dtype=np.float32)
        np.cumsum(weights[self._negatives], axis=0, out=running[1:])
        drawn = weights[self._positives]
        beaten = running[self._below]
        beaten += running[self._not_above]
        totals = np.einsum("pr,pr->r", drawn, beaten, dtype=np.float64) / 2.0
        pairs = running[-1].astype(np.float64) * drawn.sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            result: NDArray[np.float64] = totals / pairs
        return result
