"""The simulator: every label is measured again in the signal that was made with it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import find_peaks

from ecgbyte_hf.data import simulator
from ecgbyte_hf.data.simulator import (
    AXES,
    AXIS_DEGREES,
    QRS_MS,
    QRS_WIDTHS,
    RATE_BPM,
    RATES,
    RHYTHMS,
    RR_VARIATION,
    ST_MV,
    ST_SHIFTS,
    draw_labels,
    record_rng,
    simulate,
    simulate_records,
)
from ecgbyte_hf.models.leads_ecg_byte import REFERENCE_LEADS

RATE = 500.0
NUMBERS = range(1, 61)


@pytest.fixture
def quiet(monkeypatch):
    """Signals without noise, hum and wander, which are drawn for each lead by itself."""
    monkeypatch.setattr(simulator, "_noise", lambda labels, rng, shape, times: np.zeros(shape))


def made(number, leads=REFERENCE_LEADS, **changes):
    """Labels and signal (leads, samples) of one record, with some of its labels set."""
    rng = record_rng(0, number)
    labels = replace(draw_labels(rng), **changes)
    return labels, simulate(labels, rng, sampling_rate=RATE, leads=leads).astype(np.float64)


def peaks_of(labels, signal):
    """R peaks as samples: maxima of the frontal vector, as leads I and aVF see it."""
    left, down = signal[0], signal[1] / np.cos(np.deg2rad(30.0))
    size = np.pad(left**2 + down**2, 1)
    return find_peaks(size, height=0.5 * size.max(), distance=0.2 * RATE)[0] - 1


class TestLabelsAreInTheSignal:
    @pytest.mark.parametrize("number", NUMBERS)
    def test_heart_rate_and_rr_variation(self, quiet, number):
        labels, signal = made(number, leads=("I", "aVF"), st="normal st", st_mv=0.0)
        intervals = np.diff(peaks_of(labels, signal)) / RATE
        assert 60.0 / intervals.mean() == pytest.approx(labels.heart_rate_bpm, rel=0.004)
        assert len(intervals) in (int(10.0 * labels.heart_rate_bpm / 60.0) + offset for offset in (-1, 0))
        low, high = {"bradycardia": (0, 60), "normal rate": (60, 100), "tachycardia": (100, 200)}[labels.rate]
        assert low < 60.0 / intervals.mean() < high
        if labels.heart_rate_bpm < 100.0:  # above, no interval may fall below 0.3 s
            assert np.log(intervals).std() == pytest.approx(labels.rr_variation, abs=0.004)
        assert (intervals.std() / intervals.mean() > 0.1) == (labels.rhythm == "irregular")

    @pytest.mark.parametrize("number", NUMBERS)
    def test_st_level_in_lead_ii(self, quiet, number):
        labels, signal = made(
            number, leads=("I", "aVF", "II"), heart_rate_bpm=60.0, rhythm="regular", rr_variation=0.005
        )
        without = replace(labels, st_mv=0.0)
        beat = peaks_of(without, made(number, leads=("I", "aVF"), **without.to_dict())[1])[4]
        width = labels.qrs_ms / 1000.0
        after_j = beat + round((0.55 * width + 0.05) * RATE)
        before_q = beat - round((0.4 * width + 0.065) * RATE)
        assert signal[2, after_j] - signal[2, before_q] == pytest.approx(labels.st_mv, abs=0.02)
        low, high = {"st depression": (-1, -0.1), "normal st": (-0.1, 0.1), "st elevation": (0.1, 1)}[labels.st]
        assert low < labels.st_mv < high

    @pytest.mark.parametrize("number", NUMBERS)
    def test_qrs_width_and_axis(self, quiet, number):
        labels, signal = made(
            number, leads=("I", "aVF"), heart_rate_bpm=60.0, rhythm="regular", rr_variation=0.005, st_mv=0.0
        )
        beat = peaks_of(labels, signal)[4]
        width = labels.qrs_ms / 1000.0
        reach = round(0.75 * width * RATE)  # neither P nor T begins within it
        part = signal[:, beat - reach : beat + reach + 1]
        size = np.hypot(part[0], part[1] / np.cos(np.deg2rad(30.0)))
        above = np.flatnonzero(size > 0.1 * size.max())
        measured = (above[-1] - above[0] + 1) / RATE
        assert measured == pytest.approx(width, rel=0.12)
        assert (measured > 0.12) == (labels.qrs_width == "wide")
        net_i, net_avf = part.sum(axis=1)
        axis = np.rad2deg(np.arctan2(net_avf / np.cos(np.deg2rad(30.0)), net_i))
        assert axis == pytest.approx(labels.axis_degrees, abs=2.0)
        signs = {
            "normal axis": (True, True),
            "left axis deviation": (True, False),
            "right axis deviation": (False, True),
        }
        assert (net_i > 0.0, net_avf > 0.0) == signs[labels.axis]

    def test_p_waves_are_absent_in_fibrillation_alone(self, quiet):
        for rhythm, has_p in (("regular", True), ("irregular", False)):
            rng = record_rng(0, 1)
            labels = replace(draw_labels(rng), rhythm=rhythm)
            assert len(simulator._waves(labels, rng)) == 5 + has_p
        regular = made(1, rhythm="regular", rr_variation=0.0)[1]
        irregular = made(1, rhythm="irregular", rr_variation=0.0)[1]
        assert regular.shape == irregular.shape and not np.allclose(regular, irregular)


class TestLeads:
    def test_einthoven_and_goldberger_hold_exactly(self, quiet):
        for number in range(1, 6):
            _, signal = made(number)
            lead = dict(zip(REFERENCE_LEADS, signal, strict=True))
            tolerance = {"rtol": 0.0, "atol": 1e-6}  # float32
            np.testing.assert_allclose(lead["I"] + lead["III"], lead["II"], **tolerance)
            np.testing.assert_allclose(lead["aVR"], -(lead["I"] + lead["II"]) / 2, **tolerance)
            np.testing.assert_allclose(lead["aVL"], (lead["I"] - lead["III"]) / 2, **tolerance)
            np.testing.assert_allclose(lead["aVF"], (lead["II"] + lead["III"]) / 2, **tolerance)
            assert np.abs(lead["I"]).max() > 0.05

    def test_rows_follow_the_names(self, quiet):
        whole = dict(zip(REFERENCE_LEADS, made(2)[1], strict=True))
        some = made(2, leads=("V6", "II", "aVR"))[1]
        np.testing.assert_array_equal(some, [whole["V6"], whole["II"], whole["aVR"]])

    def test_v1_looks_down_where_v6_looks_up(self, quiet):
        _, signal = made(3, axis="normal axis", axis_degrees=45.0, st_mv=0.0)
        v1, v6 = signal[REFERENCE_LEADS.index("V1")], signal[REFERENCE_LEADS.index("V6")]
        assert abs(v1.min()) > v1.max() and v6.max() > abs(v6.min())


class TestRecords:
    def test_a_record_does_not_depend_on_how_many_there_are(self):
        few, many = list(simulate_records(3, seed=5)), list(simulate_records(7, seed=5))
        for (number, labels, signal), (other_number, other_labels, other) in zip(few, many, strict=False):
            assert (number, labels) == (other_number, other_labels)
            np.testing.assert_array_equal(signal, other)
        assert [number for number, _, _ in many] == [1, 2, 3, 4, 5, 6, 7]

    def test_seed_and_number_decide(self):
        first = next(simulate_records(1, seed=0))
        again, other = next(simulate_records(1, seed=0)), next(simulate_records(1, seed=1))
        np.testing.assert_array_equal(first[2], again[2])
        assert first[1] == again[1] and first[1] != other[1]
        assert len({labels for _, labels, _ in simulate_records(20, duration=0.1)}) == 20

    @pytest.mark.parametrize(
        ("duration", "rate", "samples"), [(10.0, 500.0, 5000), (2.5, 100.0, 250), (0.0, 500.0, 0)]
    )
    def test_shape(self, duration, rate, samples):
        _, _, signal = next(simulate_records(1, duration=duration, sampling_rate=rate))
        assert signal.shape == (12, samples) and signal.dtype == np.float32

    def test_noise_is_as_labelled(self):
        rng = record_rng(0, 4)
        labels = replace(draw_labels(rng), noise_mv=0.03)
        noise = simulator._noise(labels, rng, (12, 5000), np.arange(5000) / RATE)
        assert np.diff(noise, axis=1).std() / np.sqrt(2.0) == pytest.approx(0.03, rel=0.1)


class TestLabels:
    def test_values_lie_in_their_class_and_classes_are_equally_frequent(self):
        drawn = [draw_labels(record_rng(0, number)) for number in range(3000)]
        for name, classes, value, ranges in [
            ("rate", RATES, "heart_rate_bpm", RATE_BPM),
            ("rhythm", RHYTHMS, "rr_variation", RR_VARIATION),
            ("st", ST_SHIFTS, "st_mv", ST_MV),
            ("qrs_width", QRS_WIDTHS, "qrs_ms", QRS_MS),
            ("axis", AXES, "axis_degrees", AXIS_DEGREES),
        ]:
            assert set(ranges) == set(classes)
            for chosen in classes:
                values = [getattr(labels, value) for labels in drawn if getattr(labels, name) == chosen]
                assert len(values) / len(drawn) == pytest.approx(1 / len(classes), abs=0.03)
                low, high = ranges[chosen]
                assert low <= min(values) and max(values) <= high

    def test_no_class_touches_a_clinical_threshold(self):
        assert RATE_BPM["bradycardia"][1] <= 55 and RATE_BPM["normal rate"][0] >= 65
        assert RATE_BPM["normal rate"][1] <= 92 and RATE_BPM["tachycardia"][0] >= 108
        assert QRS_MS["narrow"][1] <= 100 and QRS_MS["wide"][0] >= 135
        assert ST_MV["st depression"][1] <= -0.15 and ST_MV["st elevation"][0] >= 0.15
        assert RR_VARIATION["regular"][1] * 4 < RR_VARIATION["irregular"][0]
