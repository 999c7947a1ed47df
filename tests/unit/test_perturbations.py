"""Signals made worse on purpose: by how much, the same at every call, and on windows too."""

import numpy as np
import pytest

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.evaluation.perturbations import Perturbation, perturb
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError

LIMB = ["I", "II", "III", "aVR", "aVL", "aVF"]


def limb_leads(right_arm, left_arm, left_leg):
    """The six limb leads of three electrodes, by their definitions."""
    return np.stack(
        [
            left_arm - right_arm,
            left_leg - right_arm,
            left_leg - left_arm,
            right_arm - (left_arm + left_leg) / 2,
            left_arm - (right_arm + left_leg) / 2,
            left_leg - (right_arm + left_arm) / 2,
        ]
    )


def apply(text, signal, lead_names=LIMB, seed=0):
    return Perturbation.parse(text).apply(
        signal, lead_names=lead_names, sampling_rate=100.0, rng=np.random.default_rng(seed)
    )


@pytest.mark.parametrize(("swap", "order"), [("ra-la", (1, 0, 2)), ("la-ll", (0, 2, 1)), ("ra-ll", (2, 1, 0))])
def test_swapped_electrodes_are_those_of_the_definitions(swap, order):
    electrodes = np.random.default_rng(1).normal(size=(3, 50))
    swapped = apply(f"swap={swap}", limb_leads(*electrodes))
    np.testing.assert_allclose(swapped, limb_leads(*electrodes[list(order)]), atol=1e-12)


def test_a_swap_leaves_the_chest_leads_and_needs_two_limb_leads():
    signal = np.random.default_rng(2).normal(size=(4, 20))
    swapped = apply("swap=ra-la", signal, ["V1", "I", "II", "V6"])
    np.testing.assert_array_equal(swapped[[0, 3]], signal[[0, 3]])
    np.testing.assert_allclose(swapped[[1, 2]], [-signal[1], signal[2] - signal[1]])
    with pytest.raises(LeadError, match="without II"):
        apply("swap=ra-la", signal, ["V1", "I", "V2", "V6"])


def test_amounts():
    silence = np.zeros((6, 20000), dtype=np.float32)
    noisy = apply("noise=0.2", silence)
    assert noisy.dtype == np.float32 and noisy.std() == pytest.approx(0.2, rel=0.02)
    wander = apply("wander=0.3", silence)
    assert np.abs(wander).max(axis=1) == pytest.approx(0.3, rel=1e-3)
    assert len({tuple(row[:50]) for row in wander}) == 6
    peaks = np.abs(np.fft.rfft(wander)).argmax(axis=1) * 100.0 / 20000
    assert ((peaks > 0.14) & (peaks < 0.41)).all()
    signal = np.random.default_rng(0).normal(size=(6, 30))
    np.testing.assert_allclose(apply("gain=1.5", signal), 1.5 * signal)
    dropped = apply("drop=2", signal)
    flat = (dropped == 0).all(axis=1)
    assert flat.sum() == 2
    np.testing.assert_array_equal(dropped[~flat], signal[~flat])
    assert any(((apply("drop=2", signal, seed=seed) == 0).all(axis=1) != flat).any() for seed in range(1, 9))


@pytest.mark.parametrize(
    "text", ["noise", "noise=", "noise=-1", "noise=nan", "hum=1", "drop=1.5", "swap=arms", "gain=inf"]
)
def test_what_is_no_perturbation(text):
    with pytest.raises(EcgDataError, match="expected"):
        Perturbation.parse(text)


def test_records_and_windows_show_the_same_changed_signal(small_prepared):
    plain = PreparedData(small_prepared.folder)
    changed = perturb(PreparedData(small_prepared.folder), ["gain=2", "noise=0.1"], seed=3)
    number = plain.ecg_ids[4]
    signal = changed.signal(number)
    residual = signal - 2 * plain.signal(number)
    assert residual.std() == pytest.approx(0.1, rel=0.1)
    np.testing.assert_array_equal(changed.signal(number), signal)
    np.testing.assert_array_equal(dict(changed.iter_signals())[number], signal)
    windows = perturb(WindowedData(small_prepared.folder, 3.0), ["gain=2", "noise=0.1"], seed=3)
    np.testing.assert_array_equal(windows.signal(number * 3 + 1), signal[:, 300:600])
    other = perturb(PreparedData(small_prepared.folder), ["gain=2", "noise=0.1"], seed=4)
    assert (other.signal(number) != signal).any()
    assert (changed.signal(plain.ecg_ids[5]) - 2 * plain.signal(plain.ecg_ids[5]) != residual).any()
    assert changed.questions("test") == plain.questions("test")


def test_leads_are_looked_at_before_the_work(small_prepared):
    count = len(small_prepared.leads)
    with pytest.raises(LeadError, match=f"records of {count} leads"):
        perturb(PreparedData(small_prepared.folder), [f"drop={count}"])
    if "I" not in small_prepared.leads:
        with pytest.raises(LeadError, match="without I"):
            perturb(PreparedData(small_prepared.folder), ["swap=ra-la"])


def test_some_records_alone(small_prepared):
    plain = PreparedData(small_prepared.folder)
    first, second = plain.ecg_ids[:2]
    changed = perturb(PreparedData(small_prepared.folder), ["gain=2"], only=[first])
    np.testing.assert_array_equal(changed.signal(first), 2 * plain.signal(first))
    np.testing.assert_array_equal(changed.signal(second), plain.signal(second))
