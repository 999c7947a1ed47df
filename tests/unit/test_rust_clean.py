"""Cleaning in Rust against scipy and PyWavelets, and its behaviour at the Python border."""

import platform
import threading

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.signal import butter, filtfilt, iirnotch, lfilter_zi, sosfilt_zi, sosfiltfilt

import rust_bpe

DESIGNS = {
    "notch": iirnotch(50, 30, fs=500),
    "band-pass": butter(4, [0.5, 100], "bandpass", fs=500),
    "high-pass": butter(4, 0.05, "highpass", fs=500),
    "odd order": butter(3, 40, fs=500),
    "order 11": butter(11, 100, fs=500),
    "longer b": (np.array([0.2, 0.3, 0.1, 0.4]), np.array([1.0, -0.5])),
    "a[0] is not 1": (np.array([0.4, 0.2]), np.array([2.0, -0.5, 0.25])),
}
LOW_PASS = pywt.Wavelet("db6").dec_lo


def noise(leads=12, samples=5000, seed=0):
    return np.random.default_rng(seed).normal(size=(leads, samples)).cumsum(axis=1) * 0.05


def assert_bits_equal(got, expected):
    """Compilers of other processors may fuse a multiplication and an addition of scipy's."""
    if platform.machine() in ("x86_64", "AMD64"):
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def plain_shrinkage(signal, wavelet="db6", levels=4):
    coarse, *details = pywt.wavedec(signal, wavelet, level=levels, axis=1)
    threshold = np.median(np.abs(details[0]), axis=1, keepdims=True) / 0.6745
    details = [np.where(abs(d) <= 1e-10, 0, np.sign(d) * np.maximum(abs(d) - threshold, 0)) for d in details]
    return pywt.waverec([coarse, *details], wavelet, axis=1)[:, : signal.shape[1]]


class TestFiltfilt:
    @pytest.mark.parametrize("name", DESIGNS)
    @pytest.mark.parametrize(("leads", "samples"), [(12, 5000), (1, 61), (5, 400), (3, 37)])
    def test_is_scipy_s(self, name, leads, samples):
        b, a = DESIGNS[name]
        signal = noise(leads, samples)
        filtered = rust_bpe.filtfilt(signal, b, a, lfilter_zi(b, a), 3 * max(len(a), len(b)))
        assert (filtered.dtype, filtered.shape) == (np.float64, signal.shape)
        assert_bits_equal(filtered, filtfilt(b, a, signal, axis=1))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 5e-324])
    def test_values_that_are_none_spread_as_in_scipy(self, value):
        b, a = DESIGNS["band-pass"]
        signal = noise(6, 300)
        signal[2, 100] = signal[5, 0] = value
        with np.errstate(all="ignore"):
            expected = filtfilt(b, a, signal, axis=1)
        assert_bits_equal(rust_bpe.filtfilt(signal, b, a, lfilter_zi(b, a), 27), expected)

    def test_any_layout(self):
        b, a = DESIGNS["notch"]
        arguments = (list(b), tuple(a), lfilter_zi(b, a), 9)
        signal = noise(8, 500)
        expected = rust_bpe.filtfilt(signal, *arguments)
        misaligned = np.zeros(signal.nbytes + 1, np.uint8)[1:].view(np.float64).reshape(signal.shape)
        misaligned[:] = signal
        wide = np.repeat(np.repeat(signal, 2, axis=0), 3, axis=1)
        for same in (np.asfortranarray(signal), wide[::2, ::3], signal[::-1, ::-1].copy()[::-1, ::-1], misaligned):
            np.testing.assert_array_equal(rust_bpe.filtfilt(same, *arguments), expected)
        single = signal.astype(np.float32)
        np.testing.assert_array_equal(
            rust_bpe.filtfilt(single, *arguments), rust_bpe.filtfilt(single.astype(np.float64), *arguments)
        )

    def test_the_signal_is_left_as_it_is(self):
        signal = noise(4, 100)
        before = signal.copy()
        rust_bpe.filtfilt(signal, [1, 1], [1, 0.5], [0.25], 6)[:] = 7
        np.testing.assert_array_equal(signal, before)


class TestClean:
    @pytest.mark.parametrize("samples", [5000, 999, 61])
    def test_several_filters_and_sections(self, samples):
        signal = noise(7, samples)
        sos = butter(4, [0.5, 100], "bandpass", fs=500, output="sos")
        sections = [(row[:3], row[3:], zi) for row, zi in zip(sos, sosfilt_zi(sos), strict=True)]
        b, a = DESIGNS["notch"]
        filters = [([(b, a, lfilter_zi(b, a))], 9), (sections, 27)]
        expected = sosfiltfilt(sos, filtfilt(b, a, signal, axis=1), axis=1)
        # scipy's sections are added up in another order than its single recursion.
        np.testing.assert_allclose(rust_bpe.clean(signal, filters), expected, rtol=0, atol=1e-11)

    @pytest.mark.parametrize("wavelet", ["haar", "db2", "db6", "sym8"])
    @pytest.mark.parametrize("samples", [5000, 4999, 1251, 240])
    def test_shrinkage_is_pywt_s(self, wavelet, samples):
        signal = noise(5, samples)
        low_pass = pywt.Wavelet(wavelet).dec_lo
        shrunk = rust_bpe.clean(signal, [], wavelet=low_pass)
        assert_bits_equal(shrunk, plain_shrinkage(signal, wavelet))

    @settings(max_examples=30, deadline=None)
    @given(st.integers(22, 400), st.integers(1, 3), st.integers(0, 9))
    def test_shrinkage_of_any_length(self, samples, levels, seed):
        signal = np.round(noise(3, max(samples, 11 << levels), seed), 1)
        shrunk = rust_bpe.clean(signal, [], wavelet=LOW_PASS, levels=levels)
        assert_bits_equal(shrunk, plain_shrinkage(signal, levels=levels))

    @settings(max_examples=40, deadline=None)
    @given(st.integers(4, 300), st.integers(1, 700), st.integers(0, 9))
    def test_the_spline_is_interp1d_s(self, samples, num_samples, seed):
        signal = noise(3, samples, seed)
        resampled = rust_bpe.clean(signal, [], num_samples=num_samples)
        through = interp1d(np.linspace(0, 10, samples), signal, kind="cubic", axis=1)
        assert resampled.shape == (3, num_samples)
        np.testing.assert_allclose(resampled, through(np.linspace(0, 10, num_samples)), rtol=0, atol=1e-11)

    def test_nan_spreads_through_shrinkage_as_in_pywt(self):
        signal = noise(6, 400)
        signal[3, 200] = np.nan
        shrunk = rust_bpe.clean(signal, [], wavelet=LOW_PASS, levels=3)
        assert_bits_equal(shrunk, plain_shrinkage(signal, levels=3))
        assert np.isnan(shrunk).any(axis=1).tolist() == [False, False, False, True, False, False]

    def test_nothing_to_do(self):
        for signal in (noise(3, 10), np.zeros((0, 5)), np.zeros((4, 0))):
            np.testing.assert_array_equal(rust_bpe.clean(signal, []), signal)

    def test_threads_side_by_side(self):
        signal = noise(12, 5000)
        sections = [([(*DESIGNS["band-pass"], lfilter_zi(*DESIGNS["band-pass"]))], 27)]
        expected = rust_bpe.clean(signal, sections, wavelet=LOW_PASS, num_samples=2500)
        results = [None] * 6

        def work(index):
            results[index] = rust_bpe.clean(signal, sections, wavelet=LOW_PASS, num_samples=2500)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            np.testing.assert_array_equal(result, expected)


class TestRefusals:
    @pytest.mark.parametrize(
        ("signal", "error", "message"),
        [
            ([[1.0]], TypeError, "got list: expected a float32 or float64 array"),
            (np.zeros((2, 9), np.int16), TypeError, "got an array of dtype int16"),
            (np.zeros((2, 9), np.complex128), TypeError, "dtype complex128"),
            (np.zeros(9), ValueError, r"1-D: expected 2-D \(leads, samples\)"),
            (np.zeros((1, 2, 9)), ValueError, "3-D"),
        ],
    )
    def test_signals(self, signal, error, message):
        with pytest.raises(error, match=message):
            rust_bpe.clean(signal, [])
        with pytest.raises(error, match=message):
            rust_bpe.filtfilt(signal, [1, 1], [1, 0.5], [0.25], 3)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"b": []}, ValueError, "0 numbers in b, 2 in a and 1 in zi"),
            ({"zi": [1, 2]}, ValueError, "2 in zi"),
            ({"a": [0.0, 1.0]}, ValueError, r"a\[0\] of the filter is 0: expected a finite number"),
            ({"a": [np.nan, 1.0]}, ValueError, r"a\[0\] of the filter is NaN"),
            ({"padding": -1}, ValueError, "padding is -1"),
            ({"padding": 50}, ValueError, "50 samples: expected at least 51 for a filter's padding of 50"),
            ({"padding": 2**63 - 1}, ValueError, "expected at least"),
            ({"padding": 2**70}, OverflowError, "too large"),
            ({"padding": 1.5}, TypeError, "integer"),
            ({"b": "ab"}, TypeError, "Vec|float|real"),
            ({"b": [1, None]}, TypeError, "real|float"),
            ({"b": 1.0}, TypeError, "equence"),
        ],
    )
    def test_filters(self, change, error, message):
        arguments = {"b": [1, 1], "a": [1, 0.5], "zi": [0.25], "padding": 6, **change}
        with pytest.raises(error, match=message):
            rust_bpe.filtfilt(noise(2, 50), **arguments)
        parts = ([(arguments["b"], arguments["a"], arguments["zi"])], arguments["padding"])
        with pytest.raises(error, match=message):
            rust_bpe.clean(noise(2, 50), [parts])

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"filters": None}, TypeError, "filters"),
            ({"filters": [1]}, TypeError, "filters"),
            ({"filters": [([], 3), ([([1], [1], [])], 3)]}, ValueError, "filter 1: the filter has 1 numbers"),
            ({"wavelet": [0.5, 0.5, 0.5]}, ValueError, "3 numbers: expected an even count"),
            ({"wavelet": LOW_PASS, "levels": 0}, ValueError, "levels is 0: expected 1 to 30"),
            ({"wavelet": LOW_PASS, "levels": -1}, ValueError, "levels is -1"),
            ({"wavelet": LOW_PASS, "levels": 30}, ValueError, "expected at least 11811160064 for the levels"),
            ({"num_samples": -1}, ValueError, "num_samples is -1"),
            ({"num_samples": 2**62}, MemoryError, "do not fit into memory"),
        ],
    )
    def test_steps(self, arguments, error, message):
        with pytest.raises(error, match=message):
            rust_bpe.clean(noise(2, 300), **{"filters": [], **arguments})

    def test_a_signal_that_is_too_short_for_a_spline(self):
        assert rust_bpe.clean(noise(2, 3), [], num_samples=3).shape == (2, 3)
        with pytest.raises(ValueError, match="3 samples: expected at least 4 for a cubic spline"):
            rust_bpe.clean(noise(2, 3), [], num_samples=6)
