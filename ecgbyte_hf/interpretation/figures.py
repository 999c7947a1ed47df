"""What all figures share: which signal is shown, the order of its leads, and how a figure is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError, SamplingRateError, SignalError
from ecgbyte_hf.models.inputs_ecg_byte import as_signal
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS, canonical_lead_name

if TYPE_CHECKING:
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

_FORMATS = (".png", ".svg", ".pdf")
_DPI = 150
_LEAST_DPI, _MOST_DPI = 20, 1200


@dataclass(frozen=True)
class ShownSignal:
    """A signal with what is needed to draw it.

    Attributes:
        signal: (leads, samples) in mV; NaN is a gap.
        sampling_rate: Hz.
        leads: One name for each row.
        name: Of the record.
    """

    signal: np.ndarray = field(repr=False)
    sampling_rate: float
    leads: tuple[str, ...]
    name: str = ""

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.signal.shape[1] / self.sampling_rate

    def beginning(self, seconds: float | None) -> ShownSignal:
        """The first seconds; all of it for None.

        Raises:
            EcgDataError: not even a sample, or more than there is.
        """
        if seconds is None:
            return self
        samples = round(seconds * self.sampling_rate) if math.isfinite(seconds) else 0
        if not 0 < samples <= self.signal.shape[1]:
            raise EcgDataError(f"got {seconds:g} s to draw, expected more than 0 and at most {self.seconds:g} s")
        return replace(self, signal=self.signal[:, :samples])


def recorded_signal(
    record: Any, *, leads: Sequence[str] | None = None, sampling_rate: float | None = None
) -> ShownSignal:
    """A record as it is, or an array with the names and the rate that it needs.

    Args:
        record: An `EcgRecord`, or a float array (leads, samples) in mV.
        leads: Names of an array's rows.
        sampling_rate: Hz of an array.

    Raises:
        LeadError: an array without names, or names that are not as many as rows.
        SamplingRateError: an array without a rate.
        SignalError: not (leads, samples), or nothing in it.
    """
    if hasattr(record, "signal"):
        rate, names = float(record.sampling_rate), tuple(map(canonical_lead_name, record.lead_names))
        shown = ShownSignal(np.asarray(record.signal), rate, names, str(getattr(record, "name", "")))
    else:
        if leads is None or isinstance(leads, str):
            raise LeadError(f"got an array with leads={leads!r}, expected the name of each of its rows")
        if sampling_rate is None or not 0 < sampling_rate < math.inf:
            raise SamplingRateError(f"got an array with sampling_rate={sampling_rate!r}, expected its rate in Hz")
        shown = ShownSignal(np.asarray(record), float(sampling_rate), tuple(map(canonical_lead_name, leads)))
    if shown.signal.ndim != 2 or shown.signal.dtype.kind not in "fiu" or not shown.signal.size:
        raise SignalError(
            f"got a signal of shape {shown.signal.shape} and type {shown.signal.dtype}, expected numbers (leads, "
            "samples) in mV",
            problems=("shape",),
        )
    if len(shown.leads) != len(shown.signal):
        raise LeadError(f"got {len(shown.leads)} lead names for {len(shown.signal)} rows of the signal")
    return shown


def cleaned_signal(record: Any, tokenizer: EcgByteTokenizer) -> ShownSignal:
    """A record as the tokenizer takes it: cleaned by the feature extractor that is kept with the tokenizer.

    Args:
        record: An `EcgRecord`, or a float array (leads, samples) in mV that is cleaned already.
        tokenizer: The tokenizer.

    Raises:
        EcgDataError: a record, and a tokenizer without a feature extractor.
        EcgError: what cleaning refuses, an array that is not of the tokenizer's leads, or one with NaN.
    """
    if not hasattr(record, "signal"):
        return ShownSignal(as_signal(record, len(tokenizer.leads)), tokenizer.sampling_rate, tokenizer.leads)
    if tokenizer.preprocessor_json is None:
        raise EcgDataError(
            "this tokenizer has no feature extractor to clean a record with; give the cleaned signal as an array "
            "(leads, samples), or save the tokenizer with feature_extractor="
        )
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

    extractor: Any = EcgByteFeatureExtractor.from_dict(json.loads(tokenizer.preprocessor_json))
    name = str(getattr(record, "name", ""))
    return ShownSignal(extractor.clean(record), tokenizer.sampling_rate, tokenizer.leads, name)


def clinical_order(leads: Sequence[str]) -> list[int]:
    """Rows in the order in which clinicians read leads; others follow as they are.

    Example:
        >>> clinical_order(["V1", "aVF", "Vx", "II"])
        [3, 1, 0, 2]
    """
    known = {lead: place for place, lead in enumerate(CLINICAL_LEADS)}
    return sorted(range(len(leads)), key=lambda row: known.get(leads[row], len(known)))


def check_figure_path(path: str | Path, *, dpi: float | None = None) -> Path:
    """Refuse a name under which no figure can be saved, or a resolution, before work is put into it.

    Raises:
        EcgDataError: the name does not end in .png, .svg or .pdf, or the resolution is not within 20 to 1200.
    """
    if dpi is not None and not _LEAST_DPI <= dpi <= _MOST_DPI:
        raise EcgDataError(f"got {dpi:g} dots per inch, expected {_LEAST_DPI} to {_MOST_DPI}")
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise EcgDataError(f"cannot draw to {path}: expected a name that ends in {', '.join(_FORMATS)}")
    return path


def save_figure(figure: Any, path: str | Path, *, dpi: float | None = None) -> Path:
    """Save as PNG, SVG or PDF, by the file's ending; in true size where the figure has one.

    Args:
        figure: A matplotlib figure.
        path: Where to.
        dpi: Pixels of a PNG in an inch; by default 254 (10 in a millimetre) of a figure with a true size, else 150.

    Raises:
        EcgDataError: another ending, or no such resolution.
    """
    path = check_figure_path(path, dpi=dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=getattr(figure, "saved_dpi", _DPI) if dpi is None else dpi)
    return path
