"""Cluster bootstrap: exact cases, coverage, and what the clusters change."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgbyte_hf.evaluation.statistics import bootstrap_interval, paired_difference
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def test_one_value_or_one_cluster_has_nothing_to_resample():
    assert bootstrap_interval([1, 1, 1, 1], [1, 2, 2, 3]) == (1.0, 1.0)
    assert bootstrap_interval([1, 0, 0, 0], ["a"] * 4) == (0.25, 0.25)


def test_two_clusters_give_the_four_draws_exactly():
    # Draws aa, ab, ba, bb with means 1, 1/3 (twice: cluster b has two of the three questions), 0.
    low, high = bootstrap_interval([1, 0, 0], ["a", "b", "b"], n_resamples=4000, level=0.6)
    assert (low, high) == (0.0, 1.0)
    low, high = bootstrap_interval([1, 0, 0], ["a", "b", "b"], n_resamples=4000, level=0.4)
    assert (low, high) == pytest.approx((1 / 3, 1 / 3))


def test_matches_a_slow_readable_twin():
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 40, 300)
    values = rng.uniform(size=300)
    ids = list(dict.fromkeys(clusters.tolist()))
    members = [values[clusters == number] for number in ids]
    twin = np.random.default_rng(11)
    drawn = twin.integers(len(ids), size=(200, len(ids)))
    means = [np.concatenate([members[index] for index in row]).mean() for row in drawn]
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap_interval(values, clusters.tolist(), n_resamples=200, seed=11) == pytest.approx(tuple(expected))


def test_questions_of_one_ecg_are_not_independent():
    rng = np.random.default_rng(0)
    per_ecg = np.repeat(rng.integers(0, 2, 100), 14)
    by_ecg = bootstrap_interval(per_ecg, np.repeat(np.arange(100), 14).tolist())
    by_question = bootstrap_interval(per_ecg, list(range(1400)))
    # Fourteen equal questions carry the information of one: the width differs by sqrt(14) = 3.7.
    assert np.ptp(by_ecg) / np.ptp(by_question) == pytest.approx(14**0.5, rel=0.1)
    assert np.ptp(by_ecg) == pytest.approx(2 * 1.96 * per_ecg.std() / 10, rel=0.1)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30),
    st.integers(0, 2**31),
)
def test_interval_lies_between_the_extreme_clusters(pairs, seed):
    values, clusters = [value for value, _ in pairs], [cluster for _, cluster in pairs]
    low, high = bootstrap_interval(values, clusters, n_resamples=50, seed=seed)
    means = [np.mean([v for v, c in pairs if c == cluster]) for cluster in set(clusters)]
    assert min(means) - 1e-12 <= low <= high <= max(means) + 1e-12
    assert bootstrap_interval(values, clusters, n_resamples=50, seed=seed) == (low, high)


def test_resamples_in_parts_like_in_one(monkeypatch):
    values, clusters = [1, 0, 1, 1, 0, 1], [1, 2, 3, 4, 5, 6]
    whole = bootstrap_interval(values, clusters, n_resamples=100)
    monkeypatch.setattr("ecgbyte_hf.evaluation.statistics._DRAWS_AT_ONCE", 7)
    assert bootstrap_interval(values, clusters, n_resamples=100) == whole


def test_paired_difference():
    a, b = [1, 1, 0, 1], [0, 1, 0, 0]
    difference, interval = paired_difference(a, b, [1, 2, 3, 4])
    assert difference == 0.5 and interval == (0.0, 1.0)
    assert paired_difference(b, a, [1, 2, 3, 4]).difference == -0.5
    same = paired_difference(a, a, [1, 2, 3, 4])
    assert same == (0.0, (0.0, 0.0)) and same.ci95 == (0.0, 0.0)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(5)
    hard = rng.uniform(size=500)
    a, b = hard < 0.55, hard < 0.5
    clusters = list(range(500))
    difference, (low, high) = paired_difference(a, b, clusters)
    assert 0.0 < low < difference < high
    assert high - low < 0.5 * np.ptp(bootstrap_interval(a, clusters))


@pytest.mark.parametrize(
    ("values", "clusters", "arguments", "message"),
    [
        ([], [], {}, "at least one question"),
        ([[1]], [1], {}, "shape"),
        ([1, 0], [1], {}, "2 values and 1 clusters"),
        ([1, float("nan")], [1, 2], {}, "NaN"),
        ([1], [1], {"n_resamples": 0}, "n_resamples=0"),
        ([1], [1], {"level": 1.0}, "level=1.0"),
    ],
)
def test_refusals(values, clusters, arguments, message):
    with pytest.raises(EcgDataError, match=message):
        bootstrap_interval(values, clusters, **arguments)


def test_paired_difference_refuses_other_questions():
    with pytest.raises(EcgDataError, match="same questions"):
        paired_difference([1, 0], [1], [1, 2])


def test_2000_resamples_of_5000_questions_take_less_than_a_second():
    rng = np.random.default_rng(0)
    values, clusters = rng.integers(0, 2, 5000), list(range(5000))
    start = time.perf_counter()
    bootstrap_interval(values, clusters, n_resamples=2000)
    assert time.perf_counter() - start < 1.0
