"""Cleaning of a 12-lead ECG: order of the leads, filters, wavelet shrinkage, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

import numpy as np
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin

from .errors_ecg_byte import LeadError, SamplingRateError, SignalError
from .leads_ecg_byte import (
    LEAD_PROBLEMS,
    LIMB_LEADS_FROM_I_AND_II,
    REFERENCE_LEADS,
    canonical_lead_name,
    lead_problems,
    order_leads,
)

try:
    from rust_bpe import clean as _clean_in_rust
except ImportError:  # absent or older: scipy and PyWavelets do the same, some times slower
    _clean_in_rust = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from transformers.utils.generic import TensorType

PROFILES = ("reference", "reference-low", "sos", "none")
MISSING_LEADS = ("refuse", "zero", "derive")

#: Hz. The reference defines its filters at this rate; records at another one are brought to it first.
CLEANING_RATE = 500.0
#: Hz. Below, the reference's band up to 100 Hz is too close to half the rate, and resampling to 500 Hz cannot bring
#: back what was never recorded.
LOWEST_REFERENCE_RATE = 250.0
#: Hz. Below, too little of an ECG is left between 0.5 Hz and 0.45 of the rate.
LOWEST_RATE = 50.0
#: Hz. Above is no recorder, but a wrong unit.
HIGHEST_RATE = 1e6

BAND = (0.5, 100.0)
LOWEST_FREQUENCY = 0.05
WAVELET, WAVELET_LEVEL = "db6", 4
#: Samples. Four levels of db6 (12 taps) need 11 * 2**4 = 176; the filters' padding needs only 28.
SHORTEST = 176


class Record(Protocol):
    """What a recording must have to be cleaned; `EcgRecord` is one."""

    @property
    def signal(self) -> np.ndarray:
        """The signal as (leads, samples), mV."""

    @property
    def sampling_rate(self) -> float:
        """Samples per second."""

    @property
    def lead_names(self) -> Sequence[str]:
        """One name for each row of the signal."""


class EcgByteFeatureExtractor(FeatureExtractionMixin):
    """Turns recordings into the cleaned signal that the tokenizer and the encoders expect.

    The profile "reference" is the cleaning of the ECG-Byte paper (arXiv 2412.14373): notches at 50 and 60 Hz, a
    Butterworth band-pass of 0.5 to 100 Hz and high-pass of 0.05 Hz, all forwards and backwards, db6 wavelet shrinkage
    with one threshold per lead, and a cubic spline from 500 Hz to the output rate. "reference-low" is the same for
    records below 250 Hz, cleaned at their own rate with the filters kept under 0.45 of it: notches above that are left
    out, and the band-pass ends there. "sos" has the filters of "reference" as second-order sections, which keep the
    0.05 Hz high-pass exact: on 180 records of PTB-XL and 69 of MIMIC-IV-ECG it is 0.00003 and 0.00006 mV from
    "reference" in the median sample, 0.002 and 0.005 mV at the 99.9th percentile, 0.007 mV at most; of the 30,000
    symbols, 12 and 22 differ in the median record, 632 at most. "none" orders the leads and resamples, no more.

    Args:
        profile: "reference", "reference-low", "sos" or "none".
        sampling_rate: output rate in Hz.
        leads: output leads, in order; found in a record by name.
        on_problem: problems that are allowed: "nan" (bridged by straight lines in time; a lead with no number at all
            is still refused), "flat", "amplitude" (both passed on). Others are refused.
        missing_leads: what to do with a record that lacks some of `leads`. "refuse" it; "zero": give rows of zeros,
            which are no "flat" problem, and a mask that tells which; "derive" III, aVR, aVL and aVF from I and II,
            which is exact, and refuse others.
        kwargs: what `transformers` keeps in preprocessor_config.json besides.

    Raises:
        ValueError: a profile, problem or choice for missing leads of another name.
        SamplingRateError, LeadError: an output rate or leads that cannot be.

    Example:
        >>> from types import SimpleNamespace
        >>> from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
        >>> noise = np.random.default_rng(0).normal(size=(12, 5000))
        >>> record = SimpleNamespace(signal=noise, sampling_rate=500, lead_names=CLINICAL_LEADS)
        >>> EcgByteFeatureExtractor().clean(record).shape
        (12, 2500)
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        profile: str = "reference",
        sampling_rate: float = 250,
        leads: Sequence[str] = REFERENCE_LEADS,
        on_problem: Sequence[str] = (),
        missing_leads: str = "refuse",
        **kwargs: Any,
    ):
        """Check and keep the arguments; all of them are written by `save_pretrained`."""
        super().__init__(**kwargs)
        if profile not in PROFILES:
            raise ValueError(f"Got profile={profile!r}, expected one of {', '.join(PROFILES)}.")
        allowed = (on_problem,) if isinstance(on_problem, str) else tuple(on_problem)
        unknown = [name for name in allowed if name not in LEAD_PROBLEMS]
        if unknown:
            raise ValueError(f"Got on_problem={list(allowed)}, expected names out of {', '.join(LEAD_PROBLEMS)}.")
        if missing_leads not in MISSING_LEADS:
            raise ValueError(f"Got missing_leads={missing_leads!r}, expected one of {', '.join(MISSING_LEADS)}.")
        if not leads or isinstance(leads, str):
            raise LeadError(f"Got leads={leads!r}, expected a list of lead names such as {list(REFERENCE_LEADS)}.")
        order_leads(leads, leads)
        rate = _checked_rate(sampling_rate, 1, "sampling_rate (the output rate)")
        self.profile = profile
        self.sampling_rate = int(rate) if rate.is_integer() else rate
        self.leads = [canonical_lead_name(name) for name in leads]
        self.on_problem = sorted(set(allowed))
        self.missing_leads = missing_leads

    @overload
    def clean(self, record: Record, *, return_lead_mask: Literal[False] = False) -> np.ndarray: ...

    @overload
    def clean(self, record: Record, *, return_lead_mask: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...

    def clean(self, record: Record, *, return_lead_mask: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Clean one record.

        Args:
            record: anything with `signal` ((leads, samples), mV), `sampling_rate` (Hz) and `lead_names`, such as an
                `EcgRecord`. Channels other than `leads` are not looked at.
            return_lead_mask: return the mask of the leads too.

        Returns:
            float32 (len(leads), round(samples * output rate / record's rate)), mV; with `return_lead_mask` a pair of
            it and bool (len(leads),), False where `missing_leads="zero"` made a row of zeros.

        Raises:
            LeadError: a lead is missing or there twice, or names and rows differ in number.
            SignalError: NaN, flat leads, an amplitude that cannot be (unless allowed by `on_problem`), too short.
            SamplingRateError: a rate that is absent, not positive, different between leads, or below the profile's.
        """
        name = getattr(record, "name", "")
        where = f"Record {name!r}" if name else "The record"
        names = list(record.lead_names)
        stored = _checked_signal(record.signal, names, where)
        rate = _checked_rate(record.sampling_rate, len(names), f"{where}: sampling_rate")
        self._check_profile(rate, where)
        leads, mask = self.leads, np.ones(len(self.leads), dtype=bool)
        if self.missing_leads == "derive":
            stored, names = _with_limb_leads(stored, names, leads, where)
        elif self.missing_leads == "zero":
            mask = _recorded(names, leads, where)
            leads = [lead for lead, is_there in zip(leads, mask, strict=True) if is_there]
        cleaned = self._clean_leads(stored, names, leads, rate, where)
        if not mask.all():
            cleaned = _with_zeros(cleaned, mask)
        return (cleaned, mask) if return_lead_mask else cleaned

    def _clean_leads(
        self, stored: np.ndarray, names: Sequence[str], leads: Sequence[str], rate: float, where: str
    ) -> np.ndarray:
        """Clean these leads of a signal; each is cleaned by itself, whichever others are there."""
        try:
            rows = order_leads(names, leads)
        except LeadError as error:
            raise LeadError(f"{where}: {error}") from None
        signal = stored[rows].astype(np.float64, copy=False)
        signal = self._without_problems(signal, leads, where)

        new_rate = float(self.sampling_rate)
        num_output = _num_samples(signal.shape[1], rate, new_rate)
        if num_output == 0:
            raise SignalError(
                f"{where} is too short: got {signal.shape[1]} samples at {rate:g} Hz, expected enough for one at "
                f"{new_rate:g} Hz.",
                problems=("short",),
            )
        if self.profile == "none":
            return _resample(signal, rate, new_rate).astype(np.float32)
        if rate >= LOWEST_REFERENCE_RATE:
            signal, rate = _resample(signal, rate, CLEANING_RATE), CLEANING_RATE
        if signal.shape[1] < SHORTEST:
            raise SignalError(
                f"{where} is too short to clean: got {signal.shape[1]} samples at {rate:g} Hz, expected at least "
                f"{SHORTEST}. Give a longer record, or use profile='none'.",
                problems=("short",),
            )
        filters = _filters(rate, in_sections=self.profile == "sos")
        if new_rate < 2 * filters[-1].upper_edge:
            # A spline keeps nothing out: what lies above half the output rate would come back as another frequency.
            # At the reference's 250 Hz the band-pass has removed that.
            cleaned = _cleaned(signal, filters, signal.shape[1])
            return _resample(cleaned, rate, new_rate, num_output).astype(np.float32)
        return _cleaned(signal, filters, num_output).astype(np.float32)

    def __call__(
        self, records: Record | Sequence[Record], return_tensors: str | TensorType | None = None
    ) -> BatchFeature:
        """Clean one record or several.

        Args:
            records: one record, or a sequence of them, as for `clean`.
            return_tensors: "np" or "pt" for one array (records, leads, samples); None for a list of arrays.

        Returns:
            `BatchFeature` with "input_values": float32 (leads, samples) for each record; with `missing_leads="zero"`
            also "lead_mask": bool (leads,) for each, False where a lead is missing.
        """
        batch = [records] if hasattr(records, "signal") else records
        pairs = [self.clean(record, return_lead_mask=True) for record in cast("Sequence[Record]", batch)]
        cleaned = [values for values, _ in pairs]
        lengths = sorted({values.shape[1] for values in cleaned})
        if return_tensors is not None and len(lengths) > 1:
            raise SignalError(
                f"Got records of {', '.join(map(str, lengths))} samples after cleaning, expected one length for "
                f"return_tensors={return_tensors!r}. Cut them to segments first, or leave return_tensors out.",
                problems=("shape",),
            )
        features = {"input_values": cleaned}
        if self.missing_leads == "zero":
            features["lead_mask"] = [mask for _, mask in pairs]
        return BatchFeature(features, tensor_type=return_tensors)

    def _check_profile(self, rate: float, where: str) -> None:
        """Refuse rates that the profile is not made for."""
        if self.profile in ("reference", "sos") and rate < LOWEST_REFERENCE_RATE:
            raise SamplingRateError(
                f"{where}: got {rate:g} Hz, expected at least {LOWEST_REFERENCE_RATE:g} Hz for "
                f"profile={self.profile!r}. Use profile='reference-low' (filters kept under 0.45 of the rate) or "
                "profile='none'."
            )
        if self.profile == "reference-low" and rate < LOWEST_RATE:
            raise SamplingRateError(
                f"{where}: got {rate:g} Hz, expected at least {LOWEST_RATE:g} Hz for profile='reference-low'. "
                "Use profile='none'."
            )

    def _without_problems(self, signal: np.ndarray, leads: Sequence[str], where: str) -> np.ndarray:
        """Refuse a signal with problems that are not allowed; bridge NaN where they are."""
        found = lead_problems(signal, leads)
        refused = tuple(name for name in found if name not in self.on_problem)
        if refused:
            raise SignalError(
                f"{where}: got {'; '.join(found[name] for name in refused)}. Expected a signal without. Leave the "
                f"record out, or allow it with on_problem={[*self.on_problem, *refused]}.",
                problems=refused,
            )
        if "nan" not in found:
            return signal
        empty = [name for name, row in zip(leads, signal, strict=True) if not np.isfinite(row).any()]
        if empty:
            raise SignalError(
                f"{where}: got no number at all in {', '.join(empty)}, expected some to bridge the others from. "
                "Leave the record out, or ask for other leads with `leads=`.",
                problems=("nan",),
            )
        return _bridged(signal)


def _recorded(names: Sequence[str], leads: Sequence[str], where: str) -> np.ndarray:
    """Return which of the leads are among a record's names, as bool (leads,); at least one must be."""
    there = {canonical_lead_name(name).lower() for name in names}
    mask = np.array([lead.lower() in there for lead in leads])
    if not mask.any():
        raise LeadError(
            f"{where}: got the leads {', '.join(map(str, names)) or 'none'}, expected at least one of "
            f"{', '.join(leads)}: a record with none of them would be zeros throughout. Leave it out."
        )
    return mask


def _with_zeros(cleaned: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return all leads, with rows of zeros where the mask is False."""
    signal = np.zeros((len(mask), cleaned.shape[1]), dtype=cleaned.dtype)
    signal[mask] = cleaned
    return signal


def _with_limb_leads(
    stored: np.ndarray, names: Sequence[str], leads: Sequence[str], where: str
) -> tuple[np.ndarray, list[str]]:
    """Add those of the wanted leads that are missing and follow from I and II."""
    there = {canonical_lead_name(name) for name in names}
    absent = [lead for lead in leads if lead not in there and lead in LIMB_LEADS_FROM_I_AND_II]
    if not absent or not {"I", "II"} <= there:
        return stored, list(names)
    try:
        limbs = stored[order_leads(names, ("I", "II"))].astype(np.float64)
    except LeadError as error:
        raise LeadError(f"{where}: {error}") from None
    derived = np.array([LIMB_LEADS_FROM_I_AND_II[lead] for lead in absent]) @ limbs
    return np.concatenate((stored, derived)), [*names, *absent]


def _checked_signal(signal: Any, names: Sequence[str], where: str) -> np.ndarray:
    """Return the signal as an array (leads, samples) with a name for each row."""
    array = np.asarray(signal)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] == 0:
        raise SignalError(
            f"{where}: got a signal of shape {array.shape} and type {array.dtype}, expected real numbers (leads, "
            "samples) in mV.",
            problems=("shape",),
        )
    if len(names) != len(array):
        raise LeadError(
            f"{where}: got {len(names)} lead names for {len(array)} rows of the signal, expected one for each. "
            "Is the signal (samples, leads)? Then transpose it."
        )
    return array


def _checked_rate(rate: Any, num_leads: int, what: str) -> float:
    """Return a sampling rate as a float; a sequence must hold one number for each lead, and the same."""
    advice = "Give the rate at which it was recorded: it is not guessed."
    try:
        rates = np.atleast_1d(np.asarray(rate, dtype=np.float64))
    except (TypeError, ValueError):
        raise SamplingRateError(f"{what}: got {rate!r}, expected a number of Hz. {advice}") from None
    if rate is None or isinstance(rate, (str, bytes, bool)) or rates.ndim != 1 or rates.size not in (1, num_leads):
        raise SamplingRateError(f"{what}: got {rate!r}, expected a number of Hz. {advice}")
    if not ((rates >= 1) & (rates <= HIGHEST_RATE)).all():
        raise SamplingRateError(f"{what}: got {rate!r}, expected 1 to {HIGHEST_RATE:g} Hz. {advice}")
    if (rates != rates[0]).any():
        raise SamplingRateError(
            f"{what}: got {rate!r}, different between the leads, expected one rate for all. Bring them to one first."
        )
    return float(rates[0])


def _num_samples(num_input: int, rate: float, new_rate: float) -> int:
    """Return how many samples a record has at another rate; rates are taken as the decimals they are written as."""
    return round(num_input * Fraction(repr(new_rate)) / Fraction(repr(rate)))


def _bridged(signal: np.ndarray) -> np.ndarray:
    """Replace samples that are no number by the straight line between their neighbours in time.

    Before the first and after the last number of a lead, that number is kept.
    """
    bridged = signal.copy()
    time = np.arange(signal.shape[1])
    for row in bridged:
        good = np.isfinite(row)
        row[~good] = np.interp(time[~good], time[good], row[good])
    return bridged


@dataclass(frozen=True)
class _Section:
    """A recursion in `ba` form, and its state after a constant input of 1."""

    b: np.ndarray
    a: np.ndarray
    steady: np.ndarray


@dataclass(frozen=True)
class _Filter:
    """The sections of a filter, and the padding that scipy's `filtfilt` and `sosfiltfilt` take by default."""

    sections: tuple[_Section, ...]
    padding: int
    upper_edge: float

    @property
    def parts(self) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], int]:
        """As `rust_bpe.clean` takes it."""
        return [(section.b, section.a, section.steady) for section in self.sections], self.padding


@lru_cache(maxsize=32)
def _filters(rate: float, in_sections: bool = False) -> tuple[_Filter, ...]:
    """Design the reference's filters at a rate; above 222 Hz all of them fit under 0.45 of it.

    In `ba` form, one recursion for each filter, although second-order sections are more exact: the 0.05 Hz high-pass
    is ill-conditioned in `ba` form, and its errors are part of the reference's output. `in_sections` asks for the
    second-order sections.
    """
    from scipy.signal import butter, iirnotch, tf2sos

    limit = 0.45 * rate
    upper = min(BAND[1], limit)
    notches = [iirnotch(frequency, 30, fs=rate) for frequency in (50.0, 60.0) if frequency <= limit]
    band = [BAND[0], upper]
    if in_sections:
        sections = [tf2sos(b, a) for b, a in notches]
        sections.append(butter(4, band, "bandpass", fs=rate, output="sos"))
        sections.append(butter(4, LOWEST_FREQUENCY, "highpass", fs=rate, output="sos"))
        return tuple(_sections_filter(design, upper) for design in sections)
    designs = [*notches, butter(4, band, "bandpass", fs=rate), butter(4, LOWEST_FREQUENCY, "highpass", fs=rate)]
    return tuple(_ba_filter(b, a, upper) for b, a in designs)


def _ba_filter(b: np.ndarray, a: np.ndarray, upper: float) -> _Filter:
    """Return a filter of one recursion."""
    from scipy.signal import lfilter_zi

    return _Filter((_Section(b, a, lfilter_zi(b, a)),), 3 * max(len(a), len(b)), upper)


def _sections_filter(sos: np.ndarray, upper: float) -> _Filter:
    """Return a filter of second-order sections (sections, 6); poles and zeros at the origin shorten its padding."""
    from scipy.signal import sosfilt_zi

    sections = tuple(_Section(row[:3], row[3:], steady) for row, steady in zip(sos, sosfilt_zi(sos), strict=True))
    at_origin = min((sos[:, 2] == 0).sum(), (sos[:, 5] == 0).sum())
    return _Filter(sections, 3 * int(2 * len(sos) + 1 - at_origin), upper)


def _cleaned(signal: np.ndarray, filters: Sequence[_Filter], num_output: int) -> np.ndarray:
    """Filter, shrink and bring to `num_output` samples by the spline: in Rust, or where it is absent, by scipy.

    Filters and shrinkage of both ways are equal to the last bit on x86-64. The splines solve their equations in
    another order: on 180 records of PTB-XL and 69 of MIMIC-IV-ECG they were 5e-13 mV apart at most.
    """
    if _clean_in_rust is None:
        return _spline(_shrink(_filter(signal, filters)), num_output)
    return _clean_in_rust(
        signal,
        [design.parts for design in filters],
        wavelet=_low_pass(),
        levels=WAVELET_LEVEL,
        num_samples=num_output,
    )


@lru_cache(maxsize=1)
def _low_pass() -> tuple[float, ...]:
    """Return the analysis filter of the wavelet, which determines its other three."""
    import pywt

    return tuple(pywt.Wavelet(WAVELET).dec_lo)


def _filter(signal: np.ndarray, filters: Sequence[_Filter]) -> np.ndarray:
    """Apply the filters one after another, forwards and backwards over all leads at once.

    The arithmetic is that of `scipy.signal.filtfilt` (odd extension, initial state of a constant input), which works
    out the initial state at each call.
    """
    from scipy.signal import lfilter

    for design in filters:
        pad = design.padding
        extended = np.concatenate(
            (
                2 * signal[:, :1] - signal[:, pad:0:-1],
                signal,
                2 * signal[:, -1:] - signal[:, -2 : -pad - 2 : -1],
            ),
            axis=1,
        )
        for _ in range(2):
            first = extended[:, :1]
            for section in design.sections:
                extended = lfilter(section.b, section.a, extended, axis=1, zi=section.steady * first)[0]
            extended = extended[:, ::-1]
        signal = extended[:, pad:-pad]
    return signal


def _shrink(signal: np.ndarray) -> np.ndarray:
    """Soft-threshold the wavelet details of each lead, by one threshold out of its details of the deepest level.

    Four levels at any rate: the threshold is an estimate of the noise in the deepest one, which at the rates of
    "reference-low" lies lower in frequency (3 to 6 Hz at 100 Hz), so that it takes more of the ECG away.
    """
    import pywt

    coarse, *details = pywt.wavedec(signal, WAVELET, level=WAVELET_LEVEL, axis=1)
    # The name of the constant: median |x| of a normal distribution is 0.6745 standard deviations.
    threshold = np.median(np.abs(details[0]), axis=1, keepdims=True) / 0.6745
    shrunk = []
    for detail in details:
        size = np.abs(detail)
        kept = np.copysign(np.maximum(size - threshold, 0.0), detail)
        kept[size <= 1e-10] = 0.0
        shrunk.append(kept)
    # An odd length comes back with one sample more.
    return np.asarray(pywt.waverec([coarse, *shrunk], WAVELET, axis=1)[:, : signal.shape[1]])


def _resample(signal: np.ndarray, rate: float, new_rate: float, num_output: int | None = None) -> np.ndarray:
    """Bring (leads, samples) to another rate with an anti-aliasing filter, sample k at k / new_rate.

    The ratio is the exact one of the rates as decimals, if its terms stay below 100,000; else the nearest such: the
    filter has 20 taps for each, and the end of 10 s is then off by 0.1 ms at most.

    The ends are padded by reflection, after removing the mean. Measured on 8 s windows of records that go on beyond
    both ends (PTB s0010_re, 1000 to 500 Hz, 9 windows of 12 leads; PhysioNet/CinC 2015 a103l, 250 to 500 Hz, 97
    windows of 2), largest difference in mV from the whole record resampled, worst / median window: reflected
    0.0075 / 0.0041 and 0.107 / 0.005; scipy's padtype "line" 0.0085 / 0.0042 and 0.123 / 0.006; "mean" 0.069 / 0.039
    and 0.858 / 0.038; zeros 0.078 / 0.048 and 0.818 / 0.411. Unless the mean is removed, an offset of 5 mV leaves a
    ripple of 3 uV.
    """
    from scipy.signal import resample_poly

    if new_rate == rate:
        return signal
    if num_output is None:
        num_output = _num_samples(signal.shape[1], rate, new_rate)
    ratio = Fraction(repr(new_rate)) / Fraction(repr(rate))
    # The larger term is the one to limit.
    ratio = ratio.limit_denominator(100_000) if ratio < 1 else 1 / (1 / ratio).limit_denominator(100_000)
    mean = signal.mean(axis=1, keepdims=True)
    resampled = resample_poly(signal - mean, ratio.numerator, ratio.denominator, axis=1, padtype="symmetric")
    resampled += mean
    if resampled.shape[1] < num_output:
        # Where the ratio or, in two steps of resampling, the length between was rounded: a sample at the end.
        resampled = np.pad(resampled, ((0, 0), (0, num_output - resampled.shape[1])), mode="edge")
    return resampled[:, :num_output]


@dataclass(frozen=True)
class _Spline:
    """A cubic spline between two uniform grids as a linear map: banded equations, solved, then evaluated."""

    factors: np.ndarray
    pivots: np.ndarray
    evaluation: Any


@lru_cache(maxsize=4)
def _spline_map(num_input: int, num_output: int) -> _Spline:
    """Prepare the spline through `num_input` samples, not-a-knot at the ends, at `num_output` points.

    Both grids include both end points. That is `scipy.interpolate.interp1d(kind="cubic")` on `linspace(0, 10, n)` to
    `linspace(0, 10, m)`; only the samples differ between records, so the equations are factorised once: 1 ms for 12
    leads of 5000 samples, where one call of `interp1d` for each lead takes 10 ms.
    """
    from scipy.interpolate import BSpline
    from scipy.linalg.lapack import dgbtrf

    times = np.linspace(0.0, 1.0, num_input)
    knots = np.concatenate((np.zeros(4), times[2:-2], np.ones(4)))
    equations = BSpline.design_matrix(times, knots, 3).tocoo()
    banded = np.zeros((10, num_input))
    banded[6 + equations.row - equations.col, equations.col] = equations.data
    factors, pivots, _ = dgbtrf(banded, 3, 3)
    evaluation = BSpline.design_matrix(np.linspace(0.0, 1.0, num_output), knots, 3).tocsr()
    return _Spline(factors, pivots, evaluation)


def _spline(signal: np.ndarray, num_output: int) -> np.ndarray:
    """Resample (leads, samples) to `num_output` samples by the cubic spline through the samples."""
    from scipy.linalg.lapack import dgbtrs

    if num_output == signal.shape[1]:
        return signal
    spline = _spline_map(signal.shape[1], num_output)
    coefficients, _ = dgbtrs(spline.factors, 3, 3, signal.T, spline.pivots)
    return np.asarray(spline.evaluation @ coefficients).T
