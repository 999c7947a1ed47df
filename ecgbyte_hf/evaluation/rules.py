"""The fifth control: what a rule can answer from a few measurements of the signal.

A model that reads the signal should beat it on questions of rate, rhythm and intervals, and a data set whose questions
it answers was labelled by such a rule. It needs no training and sees nothing but the signal.

Two sets of measurements, for two kinds of questions:

- Rate, rhythm and the width of the QRS complex, from beats found in the slope of the leads. Numpy and scipy only.
- ECG-QA's numeric features, the way its authors took them: "by extracting P, Q, R, S, and T waves for each beat
  present in lead II" (README of Jwoo5/ecg-qa). They need NeuroKit2 (Makowski et al. 2021, doi
  10.3758/s13428-020-01516-y).

ECG-QA states neither landmarks nor ranges. Those here were found by comparing candidates with the answers to its 100
numeric comparison questions whose recordings the tests have, and taking round bounds, so the agreement is that of a
fit: of 100 normal/abnormal labels, RR 100, QT 99, corrected QT 98, P 95, QRS 89, PR 78 (no pair of landmarks explains
PR better than 81). Other landmarks do far worse: QT from the QRS onset 90, NeuroKit2's `prominence` method 51 to 77.

As physical durations NeuroKit2's wavelet landmarks are poor: against the machine's values of 68 MIMIC-IV-ECG records
its QRS onset to offset is 58 ms too wide (rank correlation 0.2). The width of the slope, `qrs_width_ms`, is 4 ms too
narrow on 12 leads (median absolute error 4 ms, correlation 0.90). So the rule about wide complexes uses that one.
"""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgbyte_hf.evaluation.scoring import NONE, normalise
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError, SamplingRateError, SignalError
from ecgbyte_hf.models.leads_ecg_byte import FLAT_PEAK_TO_PEAK, order_leads

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

#: Rate, bpm: below the first is bradycardia, above the second tachycardia.
RATE_LIMITS_BPM = (60.0, 100.0)
#: Coefficient of variation of the RR intervals from which a rhythm is irregular. Simulated regular rhythms lie below
#: 0.04 and irregular ones from 0.08.
IRREGULAR_RR_CV = 0.08
#: Width of the QRS complex, ms, from which it is wide.
WIDE_QRS_MS = 120.0


class NormalRange(NamedTuple):
    """Bounds of the normal range, both inside it."""

    low: float
    high: float


#: ECG-QA's numeric features: field of `EcgMeasurements` and normal range (module docstring). P has no lower bound:
#: ECG-QA asks whether a feature is below, within or above its range for all but "p duration" and "below".
NUMERIC_FEATURES: dict[str, tuple[str, NormalRange]] = {
    "rr interval": ("rr_s", NormalRange(0.6, 1.0)),
    "p duration": ("p_duration_ms", NormalRange(0.0, 120.0)),
    "pr interval": ("pr_ms", NormalRange(120.0, 200.0)),
    "qrs duration": ("qrs_ms", NormalRange(60.0, 110.0)),
    "qt interval": ("qt_ms", NormalRange(340.0, 430.0)),
    "qt corrected": ("qtc_ms", NormalRange(340.0, 450.0)),
}

#: ECG-QA templates that ask what the range of one feature is (verify, choose, query) or which features are normal.
_VERIFY_RANGE, _CHOOSE_RANGE, _QUERY_RANGE, _QUERY_NORMAL = 39, 40, 41, 42
#: ECG-QA templates on a change: (normal in the first ECG, normal in the second ECG) that they ask for.
_CHANGES = {
    50: (False, True), 51: (True, False), 52: (False, False), 53: (True, True),
    54: (False, True), 55: (True, False), 56: (False, False),
    64: (False, True), 65: (True, False), 66: (False, False), 67: (True, True),
    68: (False, True), 69: (True, False), 70: (False, False),
}  # fmt: skip

#: Everything is measured at this rate, Hz: landmarks on a 100 Hz grid are 10 ms apart.
_RATE = 500
#: Shortest recording that is measured, seconds: two beats at 60 bpm.
_SHORTEST_SECONDS = 2.0
#: The slope of the QRS complex stands out between these frequencies, Hz; 8 to 30 Hz loses wide complexes (the rate of
#: 400 simulated records, lead II alone, falls in the right class for 75 % instead of 87 %).
_BEAT_BAND = (5.0, 25.0)
#: Seconds of smoothing that make one bump of a QRS complex, and of the shortest RR interval.
_BEAT_SMOOTHING, _SHORTEST_RR = 0.16, 0.25
#: A beat reaches this fraction of the usual beat; 0.3 takes T waves for beats (67 % instead of 87 %).
_BEAT_HEIGHT = 0.6
#: Correlation of the beats with their median, in the median, below which they are noise: above 0.86 for 99 % of 440
#: PTB-XL records (lowest 0.60), below 0.5 for 99 % of white noise and 95 % of random walks.
_BEAT_LIKENESS = 0.5
#: Band for the width of the QRS complex, Hz.
_WIDTH_BAND = (1.0, 40.0)
#: The complex lasts while the slope is above this multiple of the quiet part of the beat, but at least and at most
#: these fractions of its maximum. Without the upper one 18 % of simulated complexes (12 leads) fall in the wrong
#: class, with it 1 %: at a high rate no part of a beat is quiet.
_WIDTH_QUIET, _WIDTH_LOW, _WIDTH_HIGH = 4.0, 0.05, 0.15
#: Seconds that the slope may be lower within a complex: at the peak of a lead it is zero. 0.04 joins P waves to it.
_WIDTH_GAP = 0.02


@dataclass(frozen=True)
class EcgMeasurements:
    """Measurements of one recording; None is not measurable.

    Attributes:
        heart_rate_bpm: 60 over the mean RR interval.
        rr_s: median RR interval, seconds.
        rr_cv: standard deviation over mean of the RR intervals.
        p_duration_ms: P onset to P offset; this and the next four are ECG-QA's features, medians over the beats of
            lead II.
        pr_ms: P onset to R onset.
        qrs_ms: Q peak to S peak.
        qt_ms: Q peak to T offset.
        qtc_ms: the same after Bazett, qt / sqrt(rr).
        qrs_width_ms: onset to offset of the QRS complex of the median beat, over all given leads.
        problem: why something is None, or None.
    """

    heart_rate_bpm: float | None = None
    rr_s: float | None = None
    rr_cv: float | None = None
    p_duration_ms: float | None = None
    pr_ms: float | None = None
    qrs_ms: float | None = None
    qt_ms: float | None = None
    qtc_ms: float | None = None
    qrs_width_ms: float | None = None
    problem: str | None = None


def measure_ecg(
    signal: ArrayLike,
    sampling_rate: float,
    lead_names: Sequence[str] | None = None,
    *,
    intervals: bool = True,
) -> EcgMeasurements:
    """Measure rate, rhythm and intervals.

    Args:
        signal: (samples,) or (leads, samples), mV.
        sampling_rate: Hz, at least 50 so that a QRS complex is there to see.
        lead_names: one name for each lead; needed when there are several, of which one must be lead II.
        intervals: whether to measure ECG-QA's P, PR, QRS and QT, which needs NeuroKit2 and takes most of the time.

    Returns:
        the measurements. A recording with NaN, without beats (flat, noise) or shorter than 2 s raises nothing: it
        gives None and a `problem`, so that a batch can count them.

    Raises:
        ImportError: `intervals` without NeuroKit2.
        LeadError: several leads without names, names that do not match, or no lead II among them.
        SamplingRateError: a rate that is not a number of at least 50.
        SignalError: an array of another shape.
    """
    neurokit = _import_neurokit() if intervals else None
    leads, lead_ii = _as_leads(signal, lead_names)
    if not (isinstance(sampling_rate, (int, float, np.number)) and 50.0 <= float(sampling_rate) < math.inf):
        raise SamplingRateError(f"got a sampling rate of {sampling_rate!r}, expected a number of Hz from 50")
    problem = _unmeasurable(leads, lead_ii, float(sampling_rate))
    if problem is not None:
        logger.debug("not measured: %s", problem)
        return EcgMeasurements(problem=problem)
    leads = _resample(leads, float(sampling_rate))
    beats = find_beats(leads)
    if len(beats) < 3:
        return EcgMeasurements(problem=f"{len(beats)} beats found, 3 are needed")
    rr = np.diff(beats) / _RATE
    features: dict[str, float | None] = {}
    if neurokit is not None:
        features, problem = _numeric_features(neurokit, leads[lead_ii], float(np.median(rr)))
    return EcgMeasurements(
        heart_rate_bpm=float(60.0 / rr.mean()),
        rr_s=float(np.median(rr)),
        rr_cv=float(rr.std() / rr.mean()),
        qrs_width_ms=_qrs_width(leads, beats),
        problem=problem,
        **features,
    )


def find_beats(leads: ArrayLike) -> NDArray[np.intp]:
    """Find the QRS complexes of a recording at 500 Hz.

    The slope of all leads together, smoothed, has one bump at each complex, whatever its polarity. Against the
    machine's RR interval of 69 MIMIC-IV-ECG records it is off by over 60 ms in 3, NeuroKit2's own peaks in 10.

    Args:
        leads: (leads, samples), at least 2 s.

    Returns:
        sample numbers, increasing; empty where nothing stands out from noise.
    """
    from scipy.ndimage import convolve1d
    from scipy.signal import find_peaks

    filtered = _band_pass(np.asarray(leads, dtype=float), _BEAT_BAND)
    slope = _slope(filtered)
    window = np.hanning(int(_BEAT_SMOOTHING * _RATE) | 1)
    bumps = convolve1d(slope, window / window.sum(), mode="nearest")
    # The median over stretches of 2 s: one artefact or extrasystole does not set the height of all beats.
    stretches = np.array_split(bumps, max(1, len(bumps) // (2 * _RATE)))
    usual = float(np.median([stretch.max() for stretch in stretches]))
    beats = np.asarray(find_peaks(bumps, height=_BEAT_HEIGHT * usual, distance=int(_SHORTEST_RR * _RATE))[0])
    if usual <= 0.0 or _likeness(filtered, beats) < _BEAT_LIKENESS:
        return np.empty(0, dtype=np.intp)
    return beats


def rule_answer(row: Mapping[str, Any], options: Sequence[str], measurements: Sequence[EcgMeasurements]) -> str | None:
    """Answer a question from measurements.

    Args:
        row: a question row.
        options: its valid options.
        measurements: one for each of its ECGs, in their order.

    Returns:
        the answer as text that `score_rows` reads, or None where the rule does not apply: another attribute, a
        template it does not know, or nothing measured. It answers ECG-QA's numeric features (templates 39 to 42, 50 to
        56, 64 to 70), and `rate`, `rhythm` and `qrs_width` of the synthetic data set.

    Raises:
        EcgDataError: not one measurement for each ECG.
    """
    if len(measurements) != len(row["ecg_id"]):
        raise EcgDataError(
            f"question {row.get('sample_id', '?')} is about {len(row['ecg_id'])} ECGs and got {len(measurements)} "
            "measurements, expected one for each"
        )
    if row["attribute_type"] == "numeric_feature":
        answer = _numeric_answer(row, measurements)
    else:
        answer = _class_answer(row, options, measurements[0])
    if answer is None:
        return None
    valid = {normalise(option) for option in options}
    written = " ".join(name for name in answer if name in valid)
    return written or (NONE if NONE in valid else None)


def ecg_class(attribute_type: str, measured: EcgMeasurements) -> str | None:
    """Class of one recording: `rate`, `rhythm` or `qrs_width`; None for another attribute or where not measured."""
    if attribute_type == "rate" and measured.heart_rate_bpm is not None:
        low, high = RATE_LIMITS_BPM
        if measured.heart_rate_bpm < low:
            return "bradycardia"
        return "tachycardia" if measured.heart_rate_bpm > high else "normal rate"
    if attribute_type == "rhythm" and measured.rr_cv is not None:
        return "irregular" if measured.rr_cv > IRREGULAR_RR_CV else "regular"
    if attribute_type == "qrs_width" and measured.qrs_width_ms is not None:
        return "wide" if measured.qrs_width_ms >= WIDE_QRS_MS else "narrow"
    return None


def feature_range(feature: str, measured: EcgMeasurements) -> str | None:
    """Where a numeric feature lies: "below", "within" or "above" its normal range; None where it was not measured."""
    field, normal = NUMERIC_FEATURES[feature]
    value = getattr(measured, field)
    if value is None:
        return None
    if value < normal.low:
        return "below"
    return "above" if value > normal.high else "within"


def _class_answer(row: Mapping[str, Any], options: Sequence[str], measured: EcgMeasurements) -> list[str] | None:
    found = ecg_class(str(row["attribute_type"]), measured)
    if found is None:
        return None
    if str(row["question_type"]).endswith("-verify"):
        asked = [normalise(name) for name in row.get("attribute") or ()]
        return ["yes" if found in asked else "no"] if asked else None
    return [found]


def _numeric_answer(row: Mapping[str, Any], measurements: Sequence[EcgMeasurements]) -> list[str] | None:
    template = int(row["template_id"])
    if template in _CHANGES and len(measurements) == 2:
        changed = _changed_features(_CHANGES[template], measurements)
        if str(row["question_type"]).endswith("-verify"):
            feature = _named_feature(row)
            answer = changed.get(feature) if feature else None
            return None if answer is None else ["yes" if answer else "no"]
        return [name for name, is_so in changed.items() if is_so] if changed else None
    if len(measurements) != 1:
        return None
    ranges = {name: feature_range(name, measurements[0]) for name in NUMERIC_FEATURES}
    if template == _QUERY_NORMAL:
        if all(found is None for found in ranges.values()):
            return None
        return [name for name, found in ranges.items() if found == "within"]
    feature = _named_feature(row)
    found = ranges.get(feature) if feature else None
    if found is None:
        return None
    if template == _VERIFY_RANGE:
        asked = [word for word in ("below", "within", "above") if word in _question_words(row)]
        return ["yes" if found == asked[0] else "no"] if len(asked) == 1 else None
    return [f"{found} the normal range"] if template in (_CHOOSE_RANGE, _QUERY_RANGE) else None


def _changed_features(asked: tuple[bool, bool], measurements: Sequence[EcgMeasurements]) -> dict[str, bool]:
    """Whether each feature measured in both ECGs changed from and to what is asked."""
    changed = {}
    for name in NUMERIC_FEATURES:
        ranges = [feature_range(name, measured) for measured in measurements]
        if None not in ranges:
            changed[name] = tuple(found == "within" for found in ranges) == asked
    return changed


def _question_words(row: Mapping[str, Any]) -> str:
    # `attribute` says "above the normal range of p duration", so a paraphrase of the question does no harm.
    return normalise(" ".join(row.get("attribute") or [str(row["question"])]))


def _named_feature(row: Mapping[str, Any]) -> str | None:
    named = [name for name in NUMERIC_FEATURES if name in _question_words(row)]
    return named[0] if len(named) == 1 else None


def _import_neurokit() -> Any:
    try:
        return importlib.import_module("neurokit2")
    except ImportError as error:
        raise ImportError(
            'the intervals of the rule control need NeuroKit2; install it with `pip install "ecgbyte-hf[rules]"`, or '
            "pass intervals=False for rate, rhythm and QRS width only"
        ) from error


def _as_leads(signal: ArrayLike, lead_names: Sequence[str] | None) -> tuple[Array, int]:
    """(leads, samples) and the row of lead II, or the only one."""
    leads = np.asarray(signal, dtype=float)
    if leads.ndim == 1:
        leads = leads[np.newaxis]
    if leads.ndim != 2 or not leads.shape[0]:
        raise SignalError(f"got a signal of shape {leads.shape}, expected (samples,) or (leads, samples)", ("shape",))
    if lead_names is not None and len(lead_names) != len(leads):
        raise LeadError(f"got {len(lead_names)} lead names for {len(leads)} leads, expected one for each")
    if len(leads) == 1:
        return leads, 0
    if lead_names is None:
        raise LeadError(f"got {len(leads)} leads without names; pass lead_names so that lead II can be found")
    return leads, order_leads(lead_names, ["II"])[0]


def _unmeasurable(leads: Array, lead_ii: int, sampling_rate: float) -> str | None:
    seconds = leads.shape[1] / sampling_rate
    if seconds < _SHORTEST_SECONDS:
        return f"{seconds:.2f} s long, {_SHORTEST_SECONDS:.0f} s are needed"
    if not np.isfinite(leads).all():
        return "NaN or infinity in the signal"
    if float(np.ptp(leads[lead_ii])) <= FLAT_PEAK_TO_PEAK:
        return "flat lead"
    return None


def _resample(leads: Array, sampling_rate: float) -> Array:
    from scipy.signal import resample_poly

    ratio = Fraction(_RATE / sampling_rate).limit_denominator(1000)
    if ratio == 1:
        return leads
    # Padding with a line keeps the ends of a drifting baseline from ringing.
    return np.asarray(resample_poly(leads, ratio.numerator, ratio.denominator, axis=-1, padtype="line"))


def _slope(leads: Array) -> Array:
    """Length of the vector of all leads' slopes, (samples,)."""
    return np.asarray(np.sqrt((np.gradient(leads, axis=-1) ** 2).sum(axis=0)))


def _likeness(filtered: Array, beats: NDArray[np.intp]) -> float:
    """Median correlation of the beats (0.2 s of all leads) with the median beat; 0 with fewer than three beats."""
    reach = int(0.1 * _RATE)
    segments = [filtered[:, beat - reach : beat + reach].ravel() for beat in _whole(filtered, beats, reach, reach)]
    if len(segments) < 3:
        return 0.0
    centred = np.asarray(segments) - np.mean(segments, axis=1, keepdims=True)
    typical = np.median(centred, axis=0)
    sizes = np.linalg.norm(centred, axis=1) * np.linalg.norm(typical)
    return float(np.median(centred @ typical / np.maximum(sizes, np.finfo(float).tiny)))


def _whole(leads: Array, beats: NDArray[np.intp], before: int, after: int) -> list[int]:
    """The beats with that many samples before and after them."""
    return [int(beat) for beat in beats if beat >= before and beat + after <= leads.shape[1]]


def _band_pass(leads: Array, band: tuple[float, float]) -> Array:
    from scipy.signal import butter, sosfiltfilt

    return np.asarray(sosfiltfilt(butter(2, band, "bandpass", fs=_RATE, output="sos"), leads, axis=-1))


def _qrs_width(leads: Array, beats: NDArray[np.intp]) -> float | None:
    """Width of the QRS complex of the median beat, ms: the stretch of steep slope around its steepest point."""
    before, after = int(0.2 * _RATE), int(0.3 * _RATE)
    whole = _whole(leads, beats, before, after)
    if len(whole) < 2:
        return None
    filtered = _band_pass(leads, _WIDTH_BAND)
    median_beat = np.median([filtered[:, beat - before : beat + after] for beat in whole], axis=0)
    slope = _slope(median_beat)
    near = int(0.1 * _RATE)
    steepest = before - near + int(np.argmax(slope[before - near : before + near]))
    quiet = float(np.quantile(slope, 0.2))
    limit = np.clip(_WIDTH_QUIET * quiet, _WIDTH_LOW * slope[steepest], _WIDTH_HIGH * slope[steepest])
    steep = np.flatnonzero(slope > limit)
    if not len(steep):
        return None
    runs = np.split(steep, np.flatnonzero(np.diff(steep) > int(_WIDTH_GAP * _RATE)) + 1)
    for run in runs:
        if run[0] <= steepest <= run[-1]:
            return float((run[-1] - run[0] + 1) * 1000.0 / _RATE)
    return None


def _numeric_features(neurokit: Any, lead: Array, rr_s: float) -> tuple[dict[str, float | None], str | None]:
    """ECG-QA's features of lead II at 500 Hz, and what went wrong."""
    with warnings.catch_warnings():
        # Means of no landmarks, and advice on the signal's quality: None is the answer to both.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", neurokit.misc.NeuroKitWarning)
        try:
            cleaned = neurokit.ecg_clean(lead, sampling_rate=_RATE)
            peaks = neurokit.ecg_peaks(cleaned, sampling_rate=_RATE)[1]["ECG_R_Peaks"]
            landmarks = neurokit.ecg_delineate(cleaned, peaks, sampling_rate=_RATE, method="dwt")[1]
        except (IndexError, ValueError, ZeroDivisionError) as error:
            # What NeuroKit2 0.2.13 raises on noise and on too few beats.
            logger.debug("intervals not measured: %s", error)
            return {}, f"NeuroKit2 found no waves ({type(error).__name__})"
    qt = _median_interval(landmarks, "ECG_Q_Peaks", "ECG_T_Offsets")
    features = {
        "p_duration_ms": _median_interval(landmarks, "ECG_P_Onsets", "ECG_P_Offsets"),
        "pr_ms": _median_interval(landmarks, "ECG_P_Onsets", "ECG_R_Onsets"),
        "qrs_ms": _median_interval(landmarks, "ECG_Q_Peaks", "ECG_S_Peaks"),
        "qt_ms": qt,
        "qtc_ms": None if qt is None else qt / math.sqrt(rr_s),
    }
    missing = [name for name, value in features.items() if value is None]
    return features, f"NeuroKit2 found no landmarks for {', '.join(missing)}" if missing else None


def _median_interval(landmarks: Mapping[str, Sequence[float]], start: str, end: str) -> float | None:
    """Median over beats of end - start, ms; None where no beat has both, or where they are out of order."""
    starts, ends = np.asarray(landmarks[start], dtype=float), np.asarray(landmarks[end], dtype=float)
    beats = min(len(starts), len(ends))
    lengths = (ends[:beats] - starts[:beats]) * 1000.0 / _RATE
    lengths = lengths[np.isfinite(lengths)]
    if not len(lengths):
        return None
    median = float(np.median(lengths))
    return median if median > 0.0 else None
