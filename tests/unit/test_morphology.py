"""Morphology features: known answers on made signals, what stays the same, and the table of a prepared folder."""

import math
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbyte_hf.data.morphology import (
    FEATURE_NAMES,
    FeatureTable,
    feature_columns,
    morphology_features,
    record_features,
)
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.simulator import simulate_records
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError, SamplingRateError, SignalError
from ecgbyte_hf.models.leads_ecg_byte import REFERENCE_LEADS

BEATS = ("heart_rate_bpm", "hrv_ms", "qrs_duration_ms", "t_amplitude_mv", "st_deviation_mv")
SPECTRUM = ("total_power_mv2", "peak_power_mv2_per_hz", "dominant_frequency_hz", "spectral_centroid_hz")


def features_of(lead, rate=250.0):
    values = morphology_features(np.asarray(lead)[None], rate, ["II"])
    return dict(zip(FEATURE_NAMES, values.tolist(), strict=True))


def spikes(rate=250.0, seconds=10.0, per_minute=75.0, *, width=0.08, start=0.5):
    """Triangles of 1 mV, `width` seconds wide at their feet."""
    times = np.arange(round(seconds * rate)) / rate
    centres = np.arange(start, seconds - 0.2, 60.0 / per_minute)
    return np.maximum(0.0, 1.0 - np.abs(times - centres[:, None]) / (width / 2)).max(axis=0)


def test_there_are_24_for_every_lead():
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 24
    signal = next(simulate_records(1, sampling_rate=250.0))[2]
    values = morphology_features(signal, 250.0, REFERENCE_LEADS)
    assert values.shape == (288,) and values.dtype == np.float64 and np.isfinite(values).all()
    columns = feature_columns(REFERENCE_LEADS)
    assert len(set(columns)) == 288 and columns[24 * 7 + 6] == "V2_p75_mv"
    # Lead after lead: each as if it were alone.
    for row, lead in enumerate(REFERENCE_LEADS):
        alone = morphology_features(signal[row : row + 1], 250.0, [lead])
        np.testing.assert_allclose(values[24 * row : 24 * row + 24], alone, rtol=1e-9, atol=1e-12)


class TestAmplitudes:
    def test_of_a_ramp(self):
        found = features_of(np.arange(101) / 100.0 - 0.2)
        expected = {"mean_mv": 0.3, "max_mv": 0.8, "min_mv": -0.2, "median_mv": 0.3, "p25_mv": 0.05, "p75_mv": 0.55}
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        assert found["std_mv"] == pytest.approx(math.sqrt((101**2 - 1) / 12) / 100)
        assert (found["mean_difference_mv"], found["rms_difference_mv"]) == pytest.approx((0.01, 0.01))

    def test_steps_up_and_down(self):
        found = features_of(np.tile([0.0, 0.3], 500))
        assert found["mean_difference_mv"] == pytest.approx(0.3 / 999)
        assert found["rms_difference_mv"] == pytest.approx(0.3)


class TestSpectrum:
    @pytest.mark.parametrize("rate", [100.0, 250.0, 500.0])
    @pytest.mark.parametrize("frequency", [5.0, 13.0, 31.0])
    def test_of_a_sine(self, rate, frequency):
        found = features_of(0.6 * np.sin(2 * np.pi * frequency * np.arange(round(10 * rate)) / rate), rate)
        step = rate / min(1024, 10 * rate)
        assert found["dominant_frequency_hz"] == pytest.approx(frequency, abs=step / 2)
        assert found["spectral_centroid_hz"] == pytest.approx(frequency, rel=0.01)
        # Parseval: the power of a sine is half its squared amplitude.
        assert found["total_power_mv2"] == pytest.approx(0.6**2 / 2, rel=0.01)
        # A Hann window spreads it over 1.5 frequency steps.
        assert 0.6 < found["peak_power_mv2_per_hz"] * 1.5 * step / (0.6**2 / 2) <= 1.01

    def test_centroid_of_two_sines_is_weighted_by_power(self):
        times = np.arange(5000) / 250.0
        found = features_of(np.sin(2 * np.pi * 10 * times) + 2.0 * np.sin(2 * np.pi * 40 * times))
        assert found["dominant_frequency_hz"] == pytest.approx(40.0, abs=0.2)
        assert found["spectral_centroid_hz"] == pytest.approx((10 + 4 * 40) / 5, rel=0.01)

    def test_an_offset_has_no_power(self):
        wave = np.sin(np.arange(2000) / 5.0)
        plain, shifted = features_of(wave), features_of(wave + 3.0)
        assert [shifted[name] for name in SPECTRUM] == pytest.approx([plain[name] for name in SPECTRUM])


class TestBeats:
    @pytest.mark.parametrize("rate", [100.0, 250.0, 500.0])
    def test_regular_spikes(self, rate):
        found = features_of(spikes(rate), rate)
        assert found["heart_rate_bpm"] == pytest.approx(75.0)
        assert found["hrv_ms"] == pytest.approx(0.0, abs=1e-9)
        assert found["qrs_duration_ms"] == pytest.approx(80.0)
        assert (found["t_amplitude_mv"], found["st_deviation_mv"]) == (0.0, 0.0)

    def test_irregular_spikes(self):
        lead = np.zeros(2500)
        lead[[100, 300, 600, 800, 1100]] = 1.0  # 0.8, 1.2, 0.8, 1.2 s
        found = features_of(lead)
        assert found["heart_rate_bpm"] == pytest.approx(60.0)
        assert found["hrv_ms"] == pytest.approx(200.0)

    @pytest.mark.parametrize("width", [0.06, 0.12, 0.16])
    def test_wider_complexes_last_longer(self, width):
        assert features_of(spikes(500.0, width=width), 500.0)["qrs_duration_ms"] == pytest.approx(1000 * width)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_t_wave_and_st_segment(self, sign):
        lead = spikes()
        peaks = np.flatnonzero(lead > 0.999)
        for peak in peaks[:-1]:
            lead[peak + 15 : peak + 25] = sign * 0.1  # ST from 60 to 100 ms
            lead[peak + 60 : peak + 90] = sign * 0.3  # T from 240 to 360 ms
        found = features_of(lead)
        assert found["st_deviation_mv"] == pytest.approx(sign * 0.1)
        assert found["t_amplitude_mv"] == pytest.approx(sign * 0.3)
        # The median is the base line, so a shifted record is the same.
        shifted = features_of(lead + 0.2)
        assert shifted["st_deviation_mv"] == pytest.approx(sign * 0.1)
        assert shifted["t_amplitude_mv"] == pytest.approx(sign * 0.3)

    def test_the_next_beat_is_no_t_wave(self):
        found = features_of(spikes(per_minute=200.0))
        assert found["heart_rate_bpm"] == pytest.approx(200.0)
        assert found["t_amplitude_mv"] == 0.0

    @pytest.mark.parametrize("count", [0, 1])
    def test_without_two_r_peaks_they_are_zero(self, count):
        lead = np.full(2500, -0.1)
        lead[700 : 700 + count] = 1.0
        assert [features_of(lead)[name] for name in BEATS] == [0.0] * 5

    def test_low_peaks_and_near_peaks_are_no_r_peaks(self):
        lead = spikes()
        peaks = np.flatnonzero(lead > 0.999)
        lead[peaks + 100] = 0.49  # lower than half the maximum
        lead[peaks[:-1] + 40] = 0.9  # 0.16 s later, and lower than the peak before
        assert features_of(lead)["heart_rate_bpm"] == pytest.approx(75.0)

    def test_in_simulated_ecgs(self):
        """Lead II of regular rhythms: the simulator's rate, but where a T wave is as high as half the R wave."""
        right = []
        for _, labels, signal in simulate_records(80, sampling_rate=250.0, seed=4):
            if labels.rr_variation <= 0.05 and labels.axis == "normal axis":
                found = features_of(signal[REFERENCE_LEADS.index("II")])["heart_rate_bpm"]
                right.append(abs(found / labels.heart_rate_bpm - 1.0) < 0.03)
        assert len(right) >= 8 and np.mean(right) >= 0.6


class TestWavelet:
    def test_bands_are_those_of_wavedec(self):
        signal = np.random.default_rng(0).normal(size=(3, 2500)).astype(np.float32)
        values = morphology_features(signal, 250.0, ["I", "II", "III"]).reshape(3, 24)
        place = FEATURE_NAMES.index("wavelet_a5_mv")
        bands = pywt.wavedec(signal.astype(np.float64), "db4", level=5, axis=1)
        expected = np.stack([np.abs(band).mean(axis=1) for band in bands], axis=1)
        np.testing.assert_allclose(values[:, place : place + 6], expected, rtol=1e-12)

    @pytest.mark.parametrize(
        ("frequency", "band"), [(90.0, "d1"), (45.0, "d2"), (22.0, "d3"), (11.0, "d4"), (6.0, "d5")]
    )
    def test_a_sine_is_in_the_band_of_its_frequency(self, frequency, band):
        found = features_of(np.sin(2 * np.pi * frequency * np.arange(5000) / 250.0))
        details = {name: found[f"wavelet_{name}_mv"] for name in ("d5", "d4", "d3", "d2", "d1")}
        assert max(details, key=details.get) == band

    def test_a_constant_is_in_the_approximation_alone(self):
        found = features_of(np.full(2500, 0.3))
        assert found["wavelet_a5_mv"] == pytest.approx(0.3 * 2**2.5)
        assert max(found[f"wavelet_d{level}_mv"] for level in range(1, 6)) < 1e-12


class TestWhatStays:
    def test_flat_leads_have_no_spectrum_and_no_beats(self):
        for level in (0.0, 0.3, -1.7):
            lead = np.full(2500, level) + 1e-8 * np.random.default_rng(0).normal(size=2500)
            found = features_of(lead)
            assert [found[name] for name in SPECTRUM] == [0.0] * 4
            assert all(map(math.isfinite, found.values()))

    @pytest.mark.parametrize("factor", [0.01, 3.0, 400.0])
    def test_scaling_a_signal_scales_what_is_in_millivolts(self, factor):
        lead = next(simulate_records(1, sampling_rate=250.0, seed=2))[2][1].astype(np.float64)
        plain, scaled = features_of(lead), features_of(factor * lead)
        for name in FEATURE_NAMES:
            power = 2 if "mv2" in name else 1 if name.endswith("_mv") else 0
            assert scaled[name] == pytest.approx(plain[name] * factor**power, rel=1e-9, abs=1e-12), name

    def test_the_signal_is_not_changed(self):
        signal = next(simulate_records(1, sampling_rate=100.0))[2]
        before = signal.copy()
        signal.flags.writeable = False
        morphology_features(signal, 100.0, REFERENCE_LEADS)
        np.testing.assert_array_equal(signal, before)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.floats(-1e5, 1e5, width=32), min_size=2, max_size=300),
        st.sampled_from([1.0, 25.0, 100.0, 250.0, 1000.0]),
    )
    def test_any_signal_has_finite_features(self, values, rate):
        found = morphology_features(np.array([values, values[::-1]], np.float32), rate, ["I", "II"])
        assert found.shape == (48,) and np.isfinite(found.astype(np.float32)).all()


class TestRefusals:
    def test_names_that_are_not_those_of_the_rows(self):
        for leads in (["I"], ["I", "I"], ["I", "II", "III"]):
            with pytest.raises(LeadError, match="expected a row for each"):
                morphology_features(np.zeros((2, 100)), 100.0, leads)
        with pytest.raises(LeadError):
            morphology_features(np.zeros(100), 100.0, ["I"])

    @pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
    def test_rate(self, rate):
        with pytest.raises(SamplingRateError, match="expected a positive one"):
            morphology_features(np.zeros((1, 100)), rate, ["I"])

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 2e6])
    def test_values(self, value):
        signal = np.zeros((1, 100))
        signal[0, 7] = value
        with pytest.raises(SignalError, match="expected finite values"):
            morphology_features(signal, 100.0, ["I"])

    def test_one_sample(self):
        with pytest.raises(SignalError, match="at least 2"):
            morphology_features(np.zeros((1, 1)), 100.0, ["I"])


class TestTable:
    @pytest.fixture
    def opened(self, small_prepared):
        return PreparedData(small_prepared.folder)

    def test_every_record_once_in_order(self, opened):
        table = record_features(opened)
        assert table.ecg_ids.tolist() == sorted(opened.ecg_ids) and table.values.dtype == np.float32
        assert table.columns == feature_columns(["I", "aVF"]) and table.refused == ()
        for ecg_id in (1, 17, 40):
            expected = morphology_features(opened.signal(ecg_id), 100.0, ["I", "aVF"])
            row = table.values[table.ecg_ids.tolist().index(ecg_id)]
            np.testing.assert_array_equal(row, expected.astype(np.float32))

    def test_processes_make_no_difference(self, opened):
        alone, together = record_features(opened), record_features(opened, num_proc=2)
        np.testing.assert_array_equal(alone.ecg_ids, together.ecg_ids)
        np.testing.assert_array_equal(alone.values, together.values)

    def test_the_file_is_read_again_and_holds_plain_columns(self, opened, tmp_path):
        path = tmp_path / "new" / "features.parquet"
        first = record_features(opened, path)
        assert opened.records.groups_read == 3
        again = record_features(opened, path)
        some = record_features(opened, path, ecg_ids=[30, 4])
        assert opened.records.groups_read == 3
        np.testing.assert_array_equal(first.values, again.values)
        assert some.ecg_ids.tolist() == [4, 30]
        np.testing.assert_array_equal(some.values, first.values[[3, 29]])
        plain = pq.read_table(path)
        assert plain.column_names == ["ecg_id", *first.columns]
        np.testing.assert_array_equal(plain.column("aVF_hrv_ms").to_numpy(), first.values[:, 24 + 12])
        assert [item.name for item in path.parent.iterdir()] == ["features.parquet"]

    def test_other_records_or_a_broken_file_are_computed_anew(self, opened, tmp_path, caplog):
        path = tmp_path / "features.parquet"
        whole = record_features(opened)
        FeatureTable(whole.ecg_ids, whole.values * 0, whole.columns, "another").save(path)
        np.testing.assert_array_equal(record_features(opened, path).values, whole.values)
        assert "the features of other records; they are computed anew" in caplog.text
        path.write_bytes(path.read_bytes()[:-20])
        np.testing.assert_array_equal(record_features(opened, path).values, whole.values)
        record_features(opened, path, ecg_ids=[1, 2])  # a part of what is there
        np.testing.assert_array_equal(FeatureTable.load(path).values, whole.values)
        whole.select([1, 2]).save(path)
        assert len(record_features(opened, path).ecg_ids) == 40  # more than there was

    def test_an_older_version_is_refused(self, opened, tmp_path, monkeypatch):
        path = record_features(opened).save(tmp_path / "features.parquet")
        monkeypatch.setattr("ecgbyte_hf.data.morphology.FEATURES_VERSION", 2)
        with pytest.raises(EcgDataError, match="features of version 1, expected 2"):
            FeatureTable.load(path)

    @pytest.mark.parametrize("num_proc", [1, 2])
    def test_a_record_without_features_is_a_line_and_the_job_goes_on(
        self, num_proc, opened, tmp_path, monkeypatch, caplog
    ):
        real = opened.records.iter_signals

        def broken(ecg_ids=None):
            for ecg_id, signal in real(ecg_ids):
                yield ecg_id, np.full_like(signal, np.nan) if ecg_id == 5 else signal

        monkeypatch.setattr(opened.records, "iter_signals", broken)
        path = tmp_path / "features.parquet"
        table = record_features(opened, path, num_proc=num_proc)
        assert len(table.ecg_ids) == 39 and 5 not in table.ecg_ids
        assert [ecg_id for ecg_id, _ in table.refused] == [5] and "record 5: expected finite" in table.refused[0][1]
        assert "1 records have no features" in caplog.text
        # Stored with the others: it is neither forgotten nor tried again.
        monkeypatch.setattr(opened.records, "iter_signals", None)
        assert record_features(opened, path).refused == table.refused
        assert record_features(opened, path, ecg_ids=[4, 5, 6]).refused == table.refused
        assert record_features(opened, path, ecg_ids=[4, 6]).refused == ()

    def test_signals_are_not_kept(self, opened, monkeypatch):
        def many(ecg_ids=None):
            for ecg_id in ecg_ids:
                yield ecg_id, np.random.default_rng(ecg_id).normal(size=(2, 20_000)).astype(np.float32)

        monkeypatch.setattr(opened.records, "iter_signals", many)
        record_features(opened, ecg_ids=[1])  # imports
        tracemalloc.start()
        record_features(opened, ecg_ids=range(60))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60 * 2 * 20_000 * 4 / 2

    def test_refusals(self, opened):
        with pytest.raises(EcgDataError, match="holds no record 99"):
            record_features(opened, ecg_ids=[99])
        with pytest.raises(EcgDataError, match="0 processes"):
            record_features(opened, num_proc=0)
        with pytest.raises(EcgDataError, match="no features of record 7"):
            record_features(opened, ecg_ids=[1, 2]).select([2, 7])
        with pytest.raises(EcgDataError, match="ascending"):
            FeatureTable(np.array([2, 1]), np.zeros((2, 1), np.float32), ("a",))
        with pytest.raises(EcgDataError, match="expected \\(records, names\\)"):
            FeatureTable(np.array([1, 2]), np.zeros((2, 2), np.float32), ("a",))
