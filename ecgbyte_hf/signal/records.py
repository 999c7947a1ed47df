"""A recording, and how to read one from a file of any known format."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SignalError
from ecgbyte_hf.models.leads_ecg_byte import lead_problems

if TYPE_CHECKING:
    import numpy as np


#: Format name -> module that reads it. A new format is one module (see `FormatReader`) and one line here. They are
#: asked in this order whether a path is theirs.
FORMATS: dict[str, str] = {
    "wfdb": "ecgbyte_hf.signal.wfdb_format",
}


class FormatReader(Protocol):
    """What a module named in `FORMATS` holds."""

    #: What a user may look for, for messages: "WFDB (.hea with .dat or .mat)".
    DESCRIPTION: str

    def recognises(self, path: Path) -> bool:
        """Say whether the path names a recording of this format, without reading its samples."""

    def read(self, path: Path, leads: Sequence[str] | None) -> EcgRecord:
        """Read the recording with exactly these leads in this order (None: all); `read_ecg` adds the problems."""


@dataclass(frozen=True, eq=False)
class EcgRecord:
    """A recording as a file holds it, without the person's identity.

    Attributes:
        signal: (leads, samples), mV, float32 or float64; NaN where the file marks a sample as invalid.
        sampling_rate: Hz, the same for all leads.
        lead_names: one for each row of `signal`, as the file spells them.
        name: the file's name without suffix, for messages.
        problems: what is wrong with it: "nan", "flat", "amplitude" (`find_problems`).
        source: what else is known of the file (format, units, gains); never name, birth date, identifiers or dates.
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
    path: str | os.PathLike[str], *, format: str | None = None, leads: Sequence[str] | None = None
) -> EcgRecord:
    """Read one recording from a file on this machine.

    Problems of the signal are listed in `EcgRecord.problems`, not raised: cleaning refuses them. Names, dates,
    identifiers and comments in the file are dropped.

    Args:
        path: the recording. For WFDB the record's name with or without `.hea`, `.dat` or `.mat`.
        format: a key of `FORMATS`; None finds it by the files that are there.
        leads: read only these leads, in this order, by name whatever the case. None reads every channel.

    Raises:
        EcgFileError: the file is missing, of no known format, truncated, corrupt, or names a file outside its folder.
        SamplingRateError: the file states no sampling rate, or several.
        LeadError: a lead of `leads` is missing or there twice, or (`UnitError`) a channel to be read is not in volts.

    Example:
        ```python
        record = read_ecg("ptb-xl/records500/00000/00001_hr")
        record.signal.shape, record.sampling_rate  # ((12, 5000), 500.0)
        ```
    """
    place = Path(path)
    if format is not None and format not in FORMATS:
        raise EcgFileError(
            f"{place}: got format={format!r}, expected one of {', '.join(FORMATS)}, or None to find it."
        )
    if "\0" in str(place):
        raise EcgFileError(f"Got the path {str(place)!r}, expected one without NUL.")
    readers = [_reader(key) for key in ([format] if format is not None else FORMATS)]
    try:
        for reader in readers:
            if format is not None or reader.recognises(place):
                record = reader.read(place, leads)
                return replace(record, problems=(*record.problems, *find_problems(record)))
        what = "the file is of no known format" if place.is_file() else "there is no such recording"
    except OSError as error:
        raise EcgFileError(f"{place}: cannot be read ({error.strerror or error}).") from error
    known = "; ".join(reader.DESCRIPTION for reader in readers)
    raise EcgFileError(f"{place}: {what}. Expected one of: {known}. Check the path and that all its files are there.")


def _reader(key: str) -> FormatReader:
    """Import the module of a format: only then, since some need packages of their own."""
    return cast(FormatReader, importlib.import_module(FORMATS[key]))
