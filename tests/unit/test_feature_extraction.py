"""Cleaning: equal to the reference's way of doing it, and every record that must be refused."""

import importlib.util
import json
import platform
import sys
import types
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.signal import butter, filtfilt, iirnotch, resample_poly, sosfiltfilt, tf2sos

import rust_bpe
from ecgbyte_hf.models import feature_extraction_ecg_byte as cleaning
from ecgbyte_hf.models.errors_ecg_byte import EcgError, LeadError, SamplingRateError, SignalError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS, REFERENCE_LEADS, canonical_lead_name
from ecgbyte_hf.signal.records import EcgRecord, read_ecg


def plain_filters(lead: np.ndarray, rate: float = 500.0) -> np.ndarray:
    """Filter one lead as REFERENCE section 1 says, with nothing but the functions that it names."""
    limit = 0.45 * rate
    for frequency in (50, 60):
        if frequency <= limit:
            lead = filtfilt(*iirnotch(frequency, 30, fs=rate), lead)
    lead = filtfilt(*butter(4, [0.5, min(100, limit)], "bandpass", fs=rate), lead)
    return filtfilt(*butter(4, 0.05, "highpass", fs=rate), lead)


def plain_sections(lead: np.ndarray, rate: float = 500.0) -> np.ndarray:
    for frequency in (50, 60):
        lead = sosfiltfilt(tf2sos(*iirnotch(frequency, 30, fs=rate)), lead)
    lead = sosfiltfilt(butter(4, [0.5, 100], "bandpass", fs=rate, output="sos"), lead)
    return sosfiltfilt(butter(4, 0.05, "highpass", fs=rate, output="sos"), lead)


def plain_shrinkage(lead: np.ndarray) -> np.ndarray:
    coefficients = pywt.wavedec(lead, "db6", level=4)
    threshold = np.median(np.abs(coefficients[-4])) / 0.6745
    for i in range(1, 5):
        big = np.abs(coefficients[i]) > 1e-10
        shrunk = np.zeros_like(coefficients[i])
        shrunk[big] = pywt.threshold(coefficients[i][big], threshold, "soft")
        coefficients[i] = shrunk
    return pywt.waverec(coefficients, "db6")[: len(lead)]


def plain_spline(lead: np.ndarray, num_output: int) -> np.ndarray:
    return interp1d(np.linspace(0, 10, len(lead)), lead, kind="cubic")(np.linspace(0, 10, num_output))


def plain_reference(
    lead: np.ndarray, rate: float = 500.0, num_output: int | None = None, filters=plain_filters
) -> np.ndarray:
    num_output = round(len(lead) * 250 / rate) if num_output is None else num_output
    return plain_spline(plain_shrinkage(filters(lead, rate)), num_output)


@pytest.fixture(params=["rust", "scipy"])
def way(request, monkeypatch):
    """Clean by the Rust core, or as where it is absent."""
    monkeypatch.setattr(cleaning, "_clean_in_rust", rust_bpe.clean if request.param == "rust" else None)
    return request.param


def by_name(record) -> np.ndarray:
    """Return the signal in the reference's order of leads, found in a second way than the package's."""
    rows = {name.upper(): row for name, row in zip(record.lead_names, record.signal, strict=True)}
    return np.stack([rows[name.upper()] for name in REFERENCE_LEADS])


def simulated(num_samples: int = 5000, rate: float = 500, lead_names=CLINICAL_LEADS, seed: int = 0) -> EcgRecord:
    """Peaks at 72 a minute of another height in each lead, with drift, hum and noise."""
    times = np.arange(num_samples) / rate
    generator = np.random.default_rng(seed)
    beats = np.exp(-(((times % (60 / 72)) - 0.4) ** 2) / (2 * 0.012**2))
    heights = np.linspace(-1, 1.7, len(lead_names))[:, None]
    drift = 0.3 * np.sin(2 * np.pi * 0.2 * times) + 0.05 * np.sin(2 * np.pi * 50 * times)
    noise = generator.normal(scale=0.02, size=(len(lead_names), num_samples))
    return EcgRecord(heights * beats + drift + noise, rate, tuple(lead_names), name="simulated")


def changed(record, **values) -> EcgRecord:
    fields = {"signal": record.signal, "sampling_rate": record.sampling_rate, "lead_names": record.lead_names}
    return EcgRecord(**{**fields, "name": "changed", **values})


# ---- the reference profile


@pytest.mark.parametrize("num_samples", [5000, 4999, 1251, 177, 176])
def test_reference_is_the_plain_way(way, num_samples):
    record = simulated(num_samples)
    cleaned = EcgByteFeatureExtractor().clean(record)
    expected = np.stack([plain_reference(lead) for lead in by_name(record)])
    assert cleaned.dtype == np.float32
    assert cleaned.shape == expected.shape == (12, round(num_samples / 2))
    np.testing.assert_allclose(cleaned, expected, rtol=0, atol=1e-6)


REAL_RECORDS = {
    "ptbxl/records500/00000": 12,
    "ptbxl/records500": 5,
    "ptbxl/records100": 100,
    "mimic_iv_ecg": 5,
    "ood/ptb_1000hz": 1,
    "ood/ptbxl_cinc2021_mat": 1,
    "ood/cpsc2018_cinc2020": 1,
    "ood/georgia": 1,
    "ood/chapman_ningbo": 1,
    "ood/reduced_leads": 1,
    "ood/ludb": 1,
    "ood/few_leads": 1,
}


def real_records(folder, step):
    """Those of a folder that can be read, with the leads of theirs that are among the twelve."""
    for header in sorted(folder.rglob("*.hea"))[::step]:
        try:
            record = read_ecg(header)
            leads = [lead for lead in REFERENCE_LEADS if lead in map(canonical_lead_name, record.lead_names)]
        except EcgError:
            continue
        if leads:
            yield record, leads


def plain_way(record, leads, num_output, filters=plain_filters) -> np.ndarray:
    """As the extractor is documented to do it, record for record: bridge NaN, 500 Hz, clean."""
    rows = {canonical_lead_name(name): row for name, row in zip(record.lead_names, record.signal, strict=True)}
    signal = np.stack([rows[name] for name in leads]).astype(np.float64)
    for row in signal:
        good = np.isfinite(row)
        row[~good] = np.interp(np.flatnonzero(~good), np.flatnonzero(good), row[good])
    rate = record.sampling_rate
    if rate not in (100, 500):
        mean, ratio = signal.mean(axis=1, keepdims=True), Fraction(500) / Fraction(rate)
        num_samples = round(signal.shape[1] * ratio)
        signal = resample_poly(signal - mean, ratio.numerator, ratio.denominator, axis=1, padtype="symmetric") + mean
        signal, rate = signal[:, :num_samples], 500
    return np.stack([plain_reference(lead, rate, num_output, filters) for lead in signal])


@pytest.mark.parametrize("folder", REAL_RECORDS)
def test_reference_on_real_records(test_data, way, folder):
    """1e-4 mV is what the ill-conditioned high-pass allows two implementations to differ; ours does 1e-6.

    float32 holds 24 bits of a value.
    """
    count = 0
    for record, leads in real_records(test_data / folder, REAL_RECORDS[folder]):
        profile = "reference" if record.sampling_rate >= 250 else "reference-low"
        extractor = EcgByteFeatureExtractor(profile, leads=leads, on_problem=["nan", "flat", "amplitude"])
        cleaned = extractor.clean(record)
        expected = plain_way(record, leads, cleaned.shape[1])
        np.testing.assert_allclose(cleaned, expected, rtol=2**-24, atol=1e-6, err_msg=record.name)
        count += 1
    assert count >= 1


@pytest.mark.parametrize("scale", [1e3, 1e-3])
def test_extreme_amplitudes_of_real_records(test_data, way, scale):
    """The errors of the high-pass grow with the signal, and are the same ones."""
    for name in ("ptbxl/records500/00000/00001_hr", "mimic_iv_ecg/files/p1000/p10001884/s44120736/44120736"):
        record = read_ecg(test_data / name)
        record = changed(record, signal=record.signal * scale)
        cleaned = EcgByteFeatureExtractor(on_problem="amplitude").clean(record)
        expected = plain_way(record, REFERENCE_LEADS, cleaned.shape[1])
        np.testing.assert_allclose(cleaned, expected, rtol=2**-24, atol=1e-9 * scale)


@pytest.mark.parametrize("profile", ["reference", "sos"])
@pytest.mark.parametrize("num_samples", [5000, 4999, 177, 176])
def test_both_ways_are_one(monkeypatch, profile, num_samples):
    """But for the order in which the spline's equations are solved."""
    signal = simulated(num_samples).signal
    filters = cleaning._filters(500.0, in_sections=profile == "sos")
    arguments = signal, filters, round(num_samples / 2)
    in_rust = cleaning._cleaned(*arguments)
    same_length = cleaning._cleaned(signal, filters, num_samples)
    monkeypatch.setattr(cleaning, "_clean_in_rust", None)
    np.testing.assert_allclose(in_rust, cleaning._cleaned(*arguments), rtol=0, atol=1e-13)
    if platform.machine() in ("x86_64", "AMD64"):
        np.testing.assert_array_equal(same_length, cleaning._cleaned(signal, filters, num_samples))


@pytest.mark.parametrize("core", [None, types.ModuleType("rust_bpe")], ids=["absent", "older"])
def test_without_the_core(monkeypatch, core):
    """As a copy in a Hub repository may be loaded."""
    monkeypatch.setitem(sys.modules, "rust_bpe", core)
    spec = importlib.util.spec_from_file_location("ecgbyte_hf.models.copy_without_core", cleaning.__file__)
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, copy)
    spec.loader.exec_module(copy)
    assert copy._clean_in_rust is None
    for profile in ("reference", "sos"):
        cleaned = copy.EcgByteFeatureExtractor(profile).clean(simulated())
        np.testing.assert_allclose(
            cleaned, EcgByteFeatureExtractor(profile).clean(simulated()), rtol=2**-23, atol=1e-12
        )


# ---- second-order sections


@pytest.mark.parametrize("num_samples", [5000, 1251, 176])
def test_sos_is_the_plain_way(way, num_samples):
    record = simulated(num_samples)
    cleaned = EcgByteFeatureExtractor("sos").clean(record)
    expected = np.stack([plain_reference(lead, filters=plain_sections) for lead in by_name(record)])
    np.testing.assert_allclose(cleaned, expected, rtol=0, atol=1e-6)


def test_sos_on_real_records(test_data, way):
    """Near the reference, and not the same: that has the rounding of the `ba` high-pass in it."""
    for folder in ("ptbxl/records500/00000", "mimic_iv_ecg"):
        for record, leads in real_records(test_data / folder, 30):
            options = {"leads": leads, "on_problem": ["nan", "flat"]}
            cleaned = EcgByteFeatureExtractor("sos", **options).clean(record)
            expected = plain_way(record, leads, cleaned.shape[1], plain_sections)
            np.testing.assert_allclose(cleaned, expected, rtol=0, atol=1e-6)
            apart = np.abs(cleaned - EcgByteFeatureExtractor(**options).clean(record)).max()
            assert 0 < apart < 0.05


def test_sos_removes_a_drift_that_ba_form_cannot_follow():
    """The section form of the 0.05 Hz high-pass leaves nothing of a constant; the `ba` form a wandering rest."""
    constant = np.full((1, 5000), 1000.0)
    left = {}
    for in_sections in (True, False):
        (*_, high_pass) = cleaning._filters(500.0, in_sections)
        left[in_sections] = np.abs(cleaning._filter(constant, [high_pass])).max()
    assert left[True] < 1e-6
    assert left[False] > 100 * left[True]


def test_leads_are_ordered_by_name_whatever_the_order():
    record = simulated()
    order = np.random.default_rng(1).permutation(12)
    shuffled = changed(record, signal=record.signal[order], lead_names=[record.lead_names[i].upper() for i in order])
    extractor = EcgByteFeatureExtractor()
    np.testing.assert_array_equal(extractor.clean(shuffled), extractor.clean(record))


def test_other_channels_do_not_matter():
    record = simulated()
    bad = np.vstack([np.full((1, 5000), np.nan), record.signal, np.full((1, 5000), 1e6)])
    wider = changed(record, signal=bad, lead_names=("resp", *record.lead_names, "PLETH"))
    extractor = EcgByteFeatureExtractor()
    np.testing.assert_array_equal(extractor.clean(wider), extractor.clean(record))


def test_the_record_is_left_as_it_is():
    for profile, leads in (("reference", REFERENCE_LEADS), ("none", CLINICAL_LEADS)):
        record = simulated()
        before = record.signal.copy()
        EcgByteFeatureExtractor(profile, 500, leads).clean(record)[:] = 7
        np.testing.assert_array_equal(record.signal, before)


def test_some_leads_are_enough_when_asked_for():
    record = simulated(lead_names=("II", "V5", "I"))
    cleaned = EcgByteFeatureExtractor(leads=["I", "lead ii"]).clean(record)
    np.testing.assert_allclose(cleaned[0], plain_reference(record.signal[2]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(cleaned[1], plain_reference(record.signal[0]), rtol=0, atol=1e-6)


def test_integers_and_float32_are_signals_too():
    record = simulated()
    extractor = EcgByteFeatureExtractor()
    single = changed(record, signal=record.signal.astype(np.float32))
    assert np.abs(extractor.clean(single) - extractor.clean(record)).max() < 1e-3
    whole = changed(record, signal=np.round(record.signal * 10).astype(np.int16))
    assert extractor.clean(whole).shape == (12, 2500)


@settings(max_examples=15, deadline=None)
@given(st.integers(176, 1500), st.sampled_from([100, 125, 250, 360.5, 500, 1000]))
def test_every_length_gives_the_rounded_length(num_samples, output_rate):
    cleaned = EcgByteFeatureExtractor(sampling_rate=output_rate).clean(simulated(num_samples))
    assert cleaned.shape == (12, round(num_samples * output_rate / 500))
    assert np.isfinite(cleaned).all()


# ---- other rates


@pytest.mark.parametrize("rate", [250, 257, 360, 499.99, 1000, 1000 / 3])
def test_another_rate_gives_nearly_the_same_ecg(rate):
    """Of one heart, recorded at two rates. The noise of the recorder is another, hence the tolerance."""
    extractor = EcgByteFeatureExtractor()
    expected = extractor.clean(simulated(5000, 500))
    cleaned = extractor.clean(simulated(round(10 * rate), rate))
    assert cleaned.shape == expected.shape
    middle = slice(100, -100)
    assert np.sqrt(np.mean((cleaned - expected)[:, middle] ** 2)) < 0.02


def test_resampling_leaves_an_offset_and_the_ends_in_place():
    times = np.arange(2570) / 257
    slow = 5 + np.sin(2 * np.pi * 0.3 * times) * np.arange(1, 13)[:, None]
    record = EcgRecord(slow, 257, CLINICAL_LEADS)
    resampled = EcgByteFeatureExtractor("none", 500, CLINICAL_LEADS).clean(record)
    expected = 5 + np.sin(2 * np.pi * 0.3 * np.arange(5000) / 500) * np.arange(1, 13)[:, None]
    assert resampled.shape == (12, 5000)
    assert np.abs(resampled - expected)[:, 50:-50].max() < 0.02
    assert np.abs(resampled - expected).max() < 0.15


@pytest.mark.parametrize("profile", ["reference", "none"])
def test_a_low_output_rate_does_not_fold_high_frequencies_back(profile):
    """80 Hz would come back as 20 Hz in an output of 100 Hz."""
    times = np.arange(5000) / 500
    hum = np.sin(2 * np.pi * 80 * times) * np.ones((12, 1))
    cleaned = EcgByteFeatureExtractor(profile, 100).clean(EcgRecord(hum, 500, CLINICAL_LEADS))
    assert cleaned.shape == (12, 1000)
    at_20_hz = 2 * np.abs(np.mean(cleaned[:, 100:-100] * np.exp(-2j * np.pi * 20 * np.arange(100, 900) / 100), axis=1))
    assert at_20_hz.max() < 0.01


@pytest.mark.parametrize("rate", [50, 100, 120, 128, 200, 240, 249.9])
def test_reference_low_cleans_at_its_own_rate(way, rate):
    record = simulated(round(10 * rate), rate)
    cleaned = EcgByteFeatureExtractor("reference-low").clean(record)
    expected = np.stack([plain_reference(lead, rate) for lead in by_name(record)])
    assert cleaned.shape == expected.shape
    np.testing.assert_allclose(cleaned, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rate", "passes", "stopped"), [(100, 30, 48), (120, 40, 57), (128, 45, 62), (200, 80, 96), (240, 90, 115)]
)
def test_reference_low_ends_below_045_of_the_rate(way, rate, passes, stopped):
    """A wave well below that edge stays, one between it and half the rate goes."""
    times = np.arange(20 * rate) / rate
    size = {}
    for frequency in (passes, stopped):
        wave = np.sin(2 * np.pi * frequency * times) * np.ones((12, 1))
        cleaned = EcgByteFeatureExtractor("reference-low", rate).clean(EcgRecord(wave, rate, CLINICAL_LEADS))
        assert cleaned.shape == wave.shape
        size[frequency] = np.abs(cleaned[:, 5 * rate : -5 * rate]).max()
    assert size[passes] > 0.8
    assert size[stopped] < 0.1


@pytest.mark.parametrize("profile", ["reference", "reference-low", "sos"])
def test_the_order_of_the_steps_matters(way, profile):
    """What the comparison with the plain way would say of another order."""
    record = simulated()
    record.signal[:] += np.linspace(0, 3, 5000)
    lead = by_name(record)[1]
    cleaned = EcgByteFeatureExtractor(profile).clean(record)[1]

    def backwards(lead, rate):
        lead = filtfilt(*butter(4, 0.05, "highpass", fs=rate), lead)
        lead = filtfilt(*butter(4, [0.5, 100], "bandpass", fs=rate), lead)
        return filtfilt(*iirnotch(50, 30, fs=rate), filtfilt(*iirnotch(60, 30, fs=rate), lead))

    right = plain_reference(lead, filters=plain_sections if profile == "sos" else plain_filters)
    shrunk_first = plain_spline(plain_filters(plain_shrinkage(lead)), 2500)
    resampled_first = plain_shrinkage(plain_filters(plain_spline(lead, 2500), 250))
    assert np.abs(cleaned - right).max() < 1e-6
    for wrong in (plain_reference(lead, filters=backwards), shrunk_first, resampled_first):
        assert np.abs(cleaned - wrong).max() > 1e-4


@pytest.mark.parametrize(
    ("profile", "rate", "output_rate"),
    [
        ("reference", 500, 250),
        ("sos", 500, 250),
        ("reference", 1000, 250),
        ("reference-low", 100, 250),
        ("reference-low", 240, 500),
        ("none", 100, 250),
        ("none", 500, 125),
    ],
)
def test_beats_stay_where_they_are_in_time(way, profile, rate, output_rate):
    """To half a sample; the spline keeps both ends, so that it is up to half a sample early in the middle."""
    times = np.arange(10 * rate) / rate
    at = np.linspace(1, 9, 12)
    beats = np.exp(-((times - at[:, None]) ** 2) / (2 * 0.03**2))
    cleaned = EcgByteFeatureExtractor(profile, output_rate, CLINICAL_LEADS).clean(
        EcgRecord(beats, rate, CLINICAL_LEADS)
    )
    assert cleaned.shape == (12, 10 * output_rate)
    assert np.abs(cleaned.argmax(axis=1) / output_rate - at).max() < 1 / min(rate, output_rate)


def test_reference_low_on_a_real_record(test_data):
    record = read_ecg(test_data / "ptbxl/records100/00000/00001_lr")
    with pytest.raises(SamplingRateError, match=r"00001_lr.*got 100 Hz, expected at least 250 Hz.*'reference-low'"):
        EcgByteFeatureExtractor().clean(record)
    cleaned = EcgByteFeatureExtractor("reference-low").clean(record)
    expected = np.stack([plain_reference(lead, 100) for lead in by_name(record)])
    assert np.abs(cleaned - expected).max() <= 1e-5


def test_reference_low_is_the_reference_from_250_hz_on():
    for rate in (250, 500):
        record = simulated(10 * rate, rate)
        low = EcgByteFeatureExtractor("reference-low").clean(record)
        np.testing.assert_array_equal(low, EcgByteFeatureExtractor().clean(record))


def test_none_only_orders():
    record = simulated()
    cleaned = EcgByteFeatureExtractor("none", sampling_rate=500).clean(record)
    np.testing.assert_array_equal(cleaned, by_name(record).astype(np.float32))
    assert EcgByteFeatureExtractor("none", sampling_rate=100).clean(record).shape == (12, 1000)
    assert EcgByteFeatureExtractor("none").clean(changed(record, sampling_rate=100)).shape == (12, 12500)


# ---- rates that are refused


@pytest.mark.parametrize(
    "rate",
    [
        None,
        float("nan"),
        float("inf"),
        0,
        -500,
        0.0,
        "500",
        b"500",
        True,
        [],
        [500.0] * 11,
        [[500] * 12],
        {},
        1e9,
        1e-3,
    ],
)
@pytest.mark.parametrize("profile", ["reference", "reference-low", "sos", "none"])
def test_rates_that_cannot_be(rate, profile):
    with pytest.raises(SamplingRateError, match=r"'changed'.*got .*expected .* Hz"):
        EcgByteFeatureExtractor(profile).clean(changed(simulated(), sampling_rate=rate))


def test_rates_of_each_lead_must_be_one():
    record = simulated()
    extractor = EcgByteFeatureExtractor()
    with pytest.raises(SamplingRateError, match="different between the leads"):
        extractor.clean(changed(record, sampling_rate=[500.0] * 11 + [250.0]))
    same = extractor.clean(changed(record, sampling_rate=[500] * 12))
    np.testing.assert_array_equal(same, extractor.clean(record))


@pytest.mark.parametrize(
    ("profile", "rate"), [("reference", 249.9), ("reference", 100), ("sos", 249.9), ("reference-low", 49)]
)
def test_rates_below_a_profile_name_the_others(profile, rate):
    with pytest.raises(SamplingRateError, match=r"expected at least .*Use profile=.*'none'"):
        EcgByteFeatureExtractor(profile).clean(simulated(2000, rate))


# ---- leads and signals that are refused


def test_missing_and_double_leads():
    record = simulated()
    with pytest.raises(LeadError, match=r"'changed': Missing lead V6: got the leads"):
        EcgByteFeatureExtractor().clean(changed(record, signal=record.signal[:11], lead_names=CLINICAL_LEADS[:11]))
    with pytest.raises(LeadError, match="Lead V5 is there more than once"):
        EcgByteFeatureExtractor().clean(
            changed(record, signal=np.vstack([record.signal, record.signal[:1]]), lead_names=[*CLINICAL_LEADS, "v5"])
        )
    with pytest.raises(LeadError, match=r"got 12 lead names for 5000 rows.*transpose"):
        EcgByteFeatureExtractor().clean(changed(record, signal=record.signal.T))


@pytest.mark.parametrize(
    "signal", [np.zeros(5000), np.zeros((12, 0)), np.zeros((1, 12, 50)), np.full((12, 9), "a"), 1j * np.ones((12, 9))]
)
def test_shapes_that_are_no_signal(signal):
    with pytest.raises(SignalError, match="expected real numbers") as caught:
        EcgByteFeatureExtractor().clean(changed(simulated(), signal=signal))
    assert caught.value.problems == ("shape",)


@pytest.mark.parametrize(("profile", "rate"), [("reference", 500), ("reference", 1000), ("reference-low", 100)])
def test_a_record_that_is_too_short(profile, rate):
    shortest = 352 if rate == 1000 else 176
    with pytest.raises(SignalError, match=r"too short to clean: got \d+ samples at .* at least 176") as caught:
        EcgByteFeatureExtractor(profile).clean(simulated(shortest - 2, rate))
    assert caught.value.problems == ("short",)
    assert EcgByteFeatureExtractor(profile).clean(simulated(shortest, rate)).shape[1] == round(shortest * 250 / rate)


def test_too_short_for_one_sample():
    record = EcgRecord(np.arange(24.0).reshape(12, 2), 1000, CLINICAL_LEADS)
    with pytest.raises(SignalError, match="too short") as caught:
        EcgByteFeatureExtractor("none", 100).clean(record)
    assert caught.value.problems == ("short",)


def with_problem(problem: str) -> EcgRecord:
    record = simulated()
    if problem == "nan":
        record.signal[3, 100:120] = np.nan
        record.signal[7, 0] = np.inf
        record.signal[8, -1] = np.nan
    elif problem == "flat":
        record.signal[5] = 0.25
    else:
        record.signal[:] *= 1e-3 if problem == "amplitude" else 1e3
    return changed(record)


@pytest.mark.parametrize("profile", ["reference", "none"])
@pytest.mark.parametrize("kind", ["nan", "flat", "amplitude", "amplitude, large"])
def test_problems_are_refused_unless_allowed_by_name(kind, profile):
    record, problem = with_problem(kind), kind.split(",")[0]
    others = [name for name in ("nan", "flat", "amplitude") if name != problem]
    for allowed in ((), others):
        with pytest.raises(SignalError, match=rf"'changed': got .*on_problem=.*'{problem}'") as caught:
            EcgByteFeatureExtractor(profile, on_problem=allowed).clean(record)
        assert caught.value.problems == (problem,)
    cleaned = EcgByteFeatureExtractor(profile, on_problem=[problem]).clean(record)
    assert cleaned.shape == (12, 2500)
    assert np.isfinite(cleaned).all()


def test_all_problems_are_told_at_once():
    record = simulated()
    record.signal[3, 5] = np.nan
    record.signal[4] = 1.0
    with pytest.raises(SignalError, match=r"1 in aVR.*flat leads \(aVL\)") as caught:
        EcgByteFeatureExtractor().clean(record)
    assert caught.value.problems == ("nan", "flat")


def test_nan_is_bridged_by_straight_lines():
    record = simulated(rate=500)
    holes = record.signal.copy()
    holes[0, 100:104] = np.nan
    holes[0, :2] = np.nan
    holes[0, -3:] = -np.inf
    bridged = EcgByteFeatureExtractor("none", 500, CLINICAL_LEADS, on_problem="nan").clean(
        changed(record, signal=holes)
    )
    expected = record.signal.copy()
    expected[0, 99:105] = np.linspace(expected[0, 99], expected[0, 104], 6)
    expected[0, :2] = expected[0, 2]
    expected[0, -3:] = expected[0, -4]
    np.testing.assert_allclose(bridged, expected.astype(np.float32), rtol=1e-6)


def test_a_lead_without_any_number_is_refused_even_if_nan_is_allowed():
    record = simulated()
    record.signal[4] = np.nan
    with pytest.raises(SignalError, match="no number at all in aVL") as caught:
        EcgByteFeatureExtractor(on_problem=("nan", "flat", "amplitude")).clean(record)
    assert caught.value.problems == ("nan",)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mimic_iv_ecg/files/p1017/p10178639/s40130031/40130031", "nan"),
        ("ood/chapman_ningbo/JS20004", "flat"),
        ("ood/chapman_ningbo/JS11438", "flat"),
        ("ood/ptb_1000hz/S0001", "amplitude"),
    ],
)
def test_real_records_with_problems(test_data, name, problem):
    record = read_ecg(test_data / name)
    with pytest.raises(SignalError, match=record.name) as caught:
        EcgByteFeatureExtractor().clean(record)
    assert caught.value.problems == record.problems == (problem,)
    assert np.isfinite(EcgByteFeatureExtractor(on_problem=[problem]).clean(record)).all()


@pytest.mark.parametrize(
    "name", ["ood/ptb_1000hz/s0010_re", "ood/cpsc2018_cinc2020/A0001", "ood/georgia/E07500", "ood/ludb/1"]
)
def test_recordings_of_other_origin(test_data, name):
    record = read_ecg(test_data / name)
    cleaned = EcgByteFeatureExtractor().clean(record)
    assert cleaned.shape == (12, round(record.signal.shape[1] * 250 / record.sampling_rate))
    assert 0.05 < np.ptp(cleaned, axis=1).max() < 20


def test_reduced_leads_are_missing_leads(test_data):
    record = read_ecg(test_data / "ood/reduced_leads/two_leads/HR06000")
    with pytest.raises(LeadError, match="HR06000.*Missing lead"):
        EcgByteFeatureExtractor().clean(record)
    assert EcgByteFeatureExtractor(leads=record.lead_names).clean(record).shape == (2, 2500)


# ---- missing leads


def without(record, *names):
    kept = [index for index, name in enumerate(record.lead_names) if name not in names]
    return changed(record, signal=record.signal[kept], lead_names=[record.lead_names[index] for index in kept])


def test_missing_leads_are_refused_unless_chosen_otherwise():
    record = without(simulated(), "V2", "III")
    with pytest.raises(LeadError, match="Missing lead III, V2"):
        EcgByteFeatureExtractor().clean(record)
    with pytest.raises(LeadError, match="Missing lead V2"):
        EcgByteFeatureExtractor(missing_leads="derive").clean(record)


@pytest.mark.parametrize("profile", ["reference", "none"])
def test_missing_leads_as_zeros(profile):
    record = simulated()
    whole, everything = EcgByteFeatureExtractor(profile).clean(record, return_lead_mask=True)
    assert everything.dtype == bool and everything.tolist() == [True] * 12
    extractor = EcgByteFeatureExtractor(profile, missing_leads="zero")
    signal, mask = extractor.clean(without(record, "aVR", "V6"), return_lead_mask=True)
    assert mask.dtype == bool and (signal.dtype, signal.shape) == (np.float32, (12, 2500))
    assert [name for name, there in zip(REFERENCE_LEADS, mask, strict=True) if not there] == ["aVR", "V6"]
    np.testing.assert_array_equal(signal[~mask], np.zeros((2, 2500)))
    np.testing.assert_allclose(signal[mask], whole[mask], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(extractor.clean(record), whole)


def test_zeros_hide_no_problem_of_other_leads():
    record = simulated()
    record.signal[list(record.lead_names).index("V3")] = 0.5
    extractor = EcgByteFeatureExtractor(missing_leads="zero")
    with pytest.raises(SignalError, match=r"flat leads \(V3\)"):
        extractor.clean(without(record, "I"))
    with pytest.raises(LeadError, match="expected at least one of I, II"):
        extractor.clean(without(record, *REFERENCE_LEADS))
    with pytest.raises(LeadError, match="more than once"):
        extractor.clean(changed(without(record, "I"), lead_names=["II"] * 11))


@pytest.mark.parametrize(("profile", "exact_to"), [("none", 1e-6), ("reference", 1e-3)])
def test_limb_leads_are_derived_from_i_and_ii(profile, exact_to):
    """The reference's ill-conditioned filter makes 0.0001 mV of the last bit of a derived sample.

    Einthoven and Goldberger, as electrode potentials: I = L - R, II = F - R, III = F - L, aVR = R - (L + F) / 2.
    """
    right, left, foot, *chest = np.random.default_rng(5).normal(size=(9, 5000))
    leads = {"I": left - right, "II": foot - right, "III": foot - left}
    leads |= {"aVR": right - (left + foot) / 2, "aVL": left - (right + foot) / 2, "aVF": foot - (right + left) / 2}
    leads |= {f"V{index}": row for index, row in enumerate(chest, 1)}
    record = SimpleNamespace(signal=np.array(list(leads.values())), sampling_rate=[500] * 12, lead_names=list(leads))
    extractor = EcgByteFeatureExtractor(profile, missing_leads="derive")
    expected = EcgByteFeatureExtractor(profile).clean(record)
    np.testing.assert_array_equal(extractor.clean(record), expected)
    record = changed(without(record, "III", "aVR", "aVL", "aVF"), sampling_rate=[500] * 8)
    signal, mask = extractor.clean(record, return_lead_mask=True)
    np.testing.assert_allclose(signal, expected, rtol=0, atol=exact_to)
    assert mask.all()
    record = changed(record, sampling_rate=500)
    with pytest.raises(LeadError, match="Missing lead II, III"):
        extractor.clean(without(record, "II"))
    with pytest.raises(LeadError, match="more than once"):
        extractor.clean(changed(record, lead_names=["I", "II", "I", "V2", "V3", "V4", "V5", "V6"]))


def test_real_records_with_few_leads(test_data):
    record = read_ecg(test_data / "ood/reduced_leads/two_leads/HR06000")
    whole = read_ecg(test_data / "ood/ptbxl_cinc2021_mat/HR06000")
    signal, mask = EcgByteFeatureExtractor(missing_leads="zero").clean(record, return_lead_mask=True)
    assert mask.tolist() == [True, True] + [False] * 10 and not signal[2:].any()
    limbs = ["I", "II", "III", "aVL", "aVR", "aVF"]
    derived = EcgByteFeatureExtractor(leads=limbs, missing_leads="derive").clean(record)
    # The recorder rounds each lead to 1 uV, and cleaning shrinks noise of that size.
    np.testing.assert_allclose(derived, EcgByteFeatureExtractor(leads=limbs).clean(whole), atol=0.005)


def test_the_mask_in_a_batch():
    records = [simulated(seed=0), without(simulated(seed=1), "II")]
    extractor = EcgByteFeatureExtractor(missing_leads="zero")
    assert [mask.sum() for mask in extractor(records)["lead_mask"]] == [12, 11]
    batch = extractor(records, return_tensors="pt")
    assert (str(batch["lead_mask"].dtype), tuple(batch["lead_mask"].shape)) == ("torch.bool", (2, 12))
    assert batch["lead_mask"][1].tolist() == [True, False] + [True] * 10
    assert "lead_mask" not in EcgByteFeatureExtractor(missing_leads="derive")(records[:1])


def test_the_choice_for_missing_leads_is_saved(tmp_path):
    EcgByteFeatureExtractor(missing_leads="zero").save_pretrained(tmp_path)
    assert EcgByteFeatureExtractor.from_pretrained(tmp_path).missing_leads == "zero"
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    del config["missing_leads"]  # as older versions saved it
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert EcgByteFeatureExtractor.from_pretrained(tmp_path).missing_leads == "refuse"


# ---- as a feature extractor of transformers


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="expected one of reference, reference-low, sos, none"):
        EcgByteFeatureExtractor("clean")
    with pytest.raises(ValueError, match="Got missing_leads='skip', expected one of refuse, zero, derive"):
        EcgByteFeatureExtractor(missing_leads="skip")
    with pytest.raises(ValueError, match="expected names out of nan, flat, amplitude"):
        EcgByteFeatureExtractor(on_problem=["short"])
    for leads in ([], "II", ["I", "i"]):
        with pytest.raises(LeadError):
            EcgByteFeatureExtractor(leads=leads)
    for rate in (0, None, -1, "fast", [250, 250]):
        with pytest.raises(SamplingRateError, match="output rate"):
            EcgByteFeatureExtractor(sampling_rate=rate)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"profile": "reference-low", "sampling_rate": 100.5, "leads": ["V1", "II"], "on_problem": ("nan", "flat")},
        {"profile": "sos", "sampling_rate": 500},
        {"profile": "none", "sampling_rate": np.float64(500), "on_problem": "amplitude"},
    ],
)
def test_saving_and_loading_gives_the_same_bytes(tmp_path, arguments):
    extractor = EcgByteFeatureExtractor(**arguments)
    extractor.save_pretrained(tmp_path / "first")
    loaded = EcgByteFeatureExtractor.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    first, second = ((tmp_path / folder / "preprocessor_config.json").read_bytes() for folder in ("first", "second"))
    assert first == second
    assert loaded.to_dict() == extractor.to_dict()
    record = changed(simulated(), lead_names=CLINICAL_LEADS)
    np.testing.assert_array_equal(loaded.clean(record), extractor.clean(record))


def test_what_is_saved(tmp_path):
    EcgByteFeatureExtractor().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == {
        "feature_extractor_type": "EcgByteFeatureExtractor",
        "leads": list(REFERENCE_LEADS),
        "missing_leads": "refuse",
        "on_problem": [],
        "profile": "reference",
        "sampling_rate": 250,
    }


def test_an_argument_of_from_pretrained_wins(tmp_path):
    EcgByteFeatureExtractor().save_pretrained(tmp_path)
    loaded = EcgByteFeatureExtractor.from_pretrained(tmp_path, profile="none", on_problem=["nan"])
    assert (loaded.profile, loaded.on_problem, loaded.sampling_rate) == ("none", ["nan"], 250)


def test_one_record_or_many():
    extractor = EcgByteFeatureExtractor()
    records = [simulated(seed=seed) for seed in range(3)]
    for given_records in (records[0], records[:1]):
        values = extractor(given_records)["input_values"]
        assert len(values) == 1
        np.testing.assert_array_equal(values[0], extractor.clean(records[0]))
    plain = SimpleNamespace(signal=records[0].signal, sampling_rate=500, lead_names=list(CLINICAL_LEADS))
    np.testing.assert_array_equal(extractor(plain)["input_values"][0], extractor.clean(records[0]))
    assert extractor(tuple(records), return_tensors="np")["input_values"].shape == (3, 12, 2500)
    tensor = extractor(records, return_tensors="pt")["input_values"]
    assert (tuple(tensor.shape), str(tensor.dtype)) == ((3, 12, 2500), "torch.float32")


def test_records_of_different_lengths_make_no_tensor():
    records = [simulated(5000), simulated(4000)]
    assert [len(values[0]) for values in EcgByteFeatureExtractor()(records)["input_values"]] == [2500, 2000]
    with pytest.raises(SignalError, match="Got records of 2000, 2500 samples after cleaning"):
        EcgByteFeatureExtractor()(records, return_tensors="pt")
