"""A recording, and how to read one from a file of any known format."""

from __future__ import annotations

import importlib
import math
import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, SignalError, UnitError
from ecgbyte_hf.models.leads_ecg_byte import canonical_lead_name, lead_problems, order_leads

if TYPE_CHECKING:
    import numpy as np


#: Format name -> module that reads it. A new format is one module (see `FormatReader`) and one line here. They are
#: asked in this order whether a path is theirs.
FORMATS: dict[str, str] = {
    "wfdb": "ecgbyte_hf.signal.wfdb_format",
    "mat": "ecgbyte_hf.signal.mat_format",
    "numpy": "ecgbyte_hf.signal.numpy_format",
    "text": "ecgbyte_hf.signal.text_format",
    "edf": "ecgbyte_hf.signal.edf_format",
    "dicom": "ecgbyte_hf.signal.dicom_format",
    "scp": "ecgbyte_hf.signal.scp_format",
    "aecg": "ecgbyte_hf.signal.aecg_format",
    "muse": "ecgbyte_hf.signal.muse_format",
    "sierra": "ecgbyte_hf.signal.sierra_format",
}

#: Millivolts in one unit. Case is not reliable (PhysioNet/CinC 2021 has "mv"), and no ECG is in megavolts.
MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "\u00b5v": 1e-3, "\u03bcv": 1e-3, "nv": 1e-6}


@dataclass(frozen=True)
class Given:
    """What the caller knows of a recording: used where the file does not state it, compared where it does.

    Attributes:
        sampling_rate: Hz.
        lead_names: of all channels of the file, in its order.
        units: one for all channels; a key of `MILLIVOLTS` in any case.
    """

    sampling_rate: float | None = None
    lead_names: tuple[str, ...] | None = None
    units: str | None = None


class FormatReader(Protocol):
    """What a module named in `FORMATS` holds."""

    #: What a user may look for, for messages: "WFDB (.hea with .dat or .mat)".
    DESCRIPTION: str

    def recognises(self, path: Path) -> bool:
        """Say whether the path names a recording of this format, without reading its samples."""

    def read(self, path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
        """Read the recording with exactly these leads in this order (None: all).

        `read_ecg` adds the problems, and compares what is given with what was read.
        """


@dataclass(frozen=True, eq=False)
class EcgRecord:
    """A recording as a file holds it, without the person's identity.

    Attributes:
        signal: (leads, samples), mV, float32 or float64; NaN where the file marks a sample as invalid.
        sampling_rate: Hz, the same for all leads.
        lead_names: one for each row of `signal`, as the file spells them; where it has codes, as is usual.
        name: the file's name without suffix, for messages.
        problems: what is wrong with it: "nan", "flat", "amplitude" (`find_problems`).
        source: what else is known of the file (format, units, gains, leads that were derived); never name, birth date,
            identifiers or dates.
    """

    signal: np.ndarray = field(repr=False)
    sampling_rate: float
    lead_names: tuple[str, ...]
    name: str = ""
    problems: tuple[str, ...] = ()
    source: dict[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Accept any sequence of names and problems, and keep it as a tuple."""
        object.__setattr__(self, "lead_names", tuple(self.lead_names))
        object.__setattr__(self, "problems", tuple(self.problems))


def find_problems(record: EcgRecord) -> tuple[str, ...]:
    """Return the names of the problems of all channels of a record: "nan", "flat", "amplitude".

    Raises:
        SignalError: the signal is not (leads, samples).
        LeadError: there is not one name for each row.
    """
    if record.signal.ndim != 2:
        raise SignalError(
            f"Record {record.name!r}: got a signal of shape {record.signal.shape}, expected (leads, samples).",
            problems=("shape",),
        )
    if len(record.lead_names) != record.signal.shape[0]:
        raise LeadError(
            f"Record {record.name!r}: got {len(record.lead_names)} lead names for {record.signal.shape[0]} rows of "
            "the signal, expected one for each. Is the signal (samples, leads)? Then transpose it."
        )
    return tuple(lead_problems(record.signal, record.lead_names))


def read_ecg(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    leads: Sequence[str] | None = None,
    sampling_rate: float | None = None,
    lead_names: Sequence[str] | None = None,
    units: str | None = None,
) -> EcgRecord:
    """Read one recording from a file on this machine.

    Problems of the signal are listed in `EcgRecord.problems`, not raised: cleaning refuses them. Names, dates,
    identifiers and comments in the file are dropped.

    Most formats state rate, leads and units. Text, NumPy and MATLAB files may not: then they must be given here. What
    is given and stated too must agree.

    Args:
        path: the recording. For WFDB the record's name with or without `.hea`, `.dat` or `.mat`.
        format: a key of `FORMATS`; None finds it by the files that are there.
        leads: read only these leads, in this order, by name whatever the case. None reads every channel.
        sampling_rate: Hz, for a file that states none.
        lead_names: one for each channel in the order of the file, for a file that states none.
        units: "V", "mV", "uV" or "nV", for a file that states none.

    Raises:
        EcgFileError: the file is missing, of no known format, truncated, corrupt, names a file outside its folder, or
            needs a package that is not installed.
        SamplingRateError: no sampling rate is stated or given, or several are.
        LeadError: a lead of `leads` is missing or there twice, lead names are neither stated nor given, or
            (`UnitError`) a channel to be read is not in volts.

    Example:
        ```python
        record = read_ecg("ptb-xl/records500/00000/00001_hr")
        record.signal.shape, record.sampling_rate  # ((12, 5000), 500.0)
        record = read_ecg("ecg.csv", sampling_rate=500, units="mV")
        ```
    """
    place = Path(path)
    if format is not None and format not in FORMATS:
        raise EcgFileError(
            f"{place}: got format={format!r}, expected one of {', '.join(FORMATS)}, or None to find it."
        )
    if "\0" in str(place):
        raise EcgFileError(f"Got the path {str(place)!r}, expected one without NUL.")
    given = _given(sampling_rate, lead_names, units)
    keys = [format] if format is not None else list(FORMATS)
    try:
        for reader in map(_reader, keys):
            if format is not None or reader.recognises(place):
                record = reader.read(place, leads, given)
                _compare(place, record, given, leads)
                return replace(record, problems=(*record.problems, *find_problems(record)))
        what = "the file is of no known format" if place.is_file() else "there is no such recording"
    except OSError as error:
        raise EcgFileError(f"{place}: cannot be read ({error.strerror or error}).") from error
    known = "; ".join(_reader(key).DESCRIPTION for key in keys)
    raise EcgFileError(f"{place}: {what}. Expected one of: {known}. Check the path and that all its files are there.")


def _given(sampling_rate: float | None, lead_names: Sequence[str] | None, units: str | None) -> Given:
    """Check what the caller says of a recording."""
    if sampling_rate is not None:
        is_number = isinstance(sampling_rate, numbers.Real) and not isinstance(sampling_rate, bool)
        if not is_number or not 0 < sampling_rate < math.inf:
            raise SamplingRateError(f"Got sampling_rate={sampling_rate!r}, expected a positive number of Hz.")
        sampling_rate = float(sampling_rate)
    if lead_names is not None:
        if isinstance(lead_names, str) or not all(isinstance(name, str) for name in lead_names):
            raise LeadError(f"Got lead_names={lead_names!r}, expected a list of one name for each channel.")
        order_leads(lead_names, lead_names)
        lead_names = tuple(lead_names)
    if units is not None and (not isinstance(units, str) or units.lower() not in MILLIVOLTS):
        raise UnitError(f"Got units={units!r}, expected V, mV, uV or nV.")
    return Given(sampling_rate, lead_names, units)


def _compare(path: Path, record: EcgRecord, given: Given, leads: Sequence[str] | None) -> None:
    """Refuse a recording that states something else than what is given."""
    advice = "Leave it out to take the file's, or check that this is the file you mean."
    # A rate may be stated as a step in time of seven digits or so.
    if given.sampling_rate is not None and not math.isclose(given.sampling_rate, record.sampling_rate, rel_tol=1e-6):
        raise SamplingRateError(
            f"{path}: got sampling_rate={given.sampling_rate:g}, expected {record.sampling_rate:.9g} Hz as the file "
            f"states. {advice}"
        )
    if given.lead_names is not None:
        stated = [canonical_lead_name(name).lower() for name in record.lead_names]
        named = [canonical_lead_name(name).lower() for name in given.lead_names]
        if stated != named if leads is None else not set(stated) <= set(named):
            raise LeadError(
                f"{path}: got lead_names={list(given.lead_names)}, expected {list(record.lead_names)} as the file "
                f"states. {advice}"
            )
    stated_units = (record.source or {}).get("units", ())
    if given.units is not None and any(
        MILLIVOLTS[unit.lower()] != MILLIVOLTS[given.units.lower()] for unit in stated_units
    ):
        raise UnitError(
            f"{path}: got units={given.units!r}, expected {', '.join(sorted(set(stated_units)))} as the file states. "
            f"{advice}"
        )


def _reader(key: str) -> FormatReader:
    """Import the module of a format: only then, since some need packages of their own."""
    return cast(FormatReader, importlib.import_module(FORMATS[key]))
