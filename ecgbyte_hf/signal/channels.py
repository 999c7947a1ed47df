"""What the readers share: limits, optional packages, and the way from stored numbers to a record in millivolts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgError, EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.models.leads_ecg_byte import order_leads
from ecgbyte_hf.signal.records import MILLIVOLTS, EcgRecord, Given

#: Bytes. A day of 12 leads at 500 Hz in 16 bits is 1.04e9.
LARGEST_FILE = 1 << 30
#: Samples of all channels together, where compression hides from the file's size how many there are: a day of 12
#: leads at 250 Hz. As float64 they take 2 GiB.
MOST_COMPRESSED_SAMPLES = 1 << 28


@dataclass(frozen=True)
class Channel:
    """A channel as its file describes it; what the file does not state is None.

    Attributes:
        name: the lead.
        unit: as the file spells it.
        sampling_rate: Hz.
        scale: units in one stored number.
        offset: units at a stored 0.
    """

    name: str | None = None
    unit: str | None = None
    sampling_rate: float | None = None
    scale: float = 1.0
    offset: float = 0.0


#: Gives the stored numbers (channels, samples) of the channels at these places.
Decoder = Callable[[Sequence[int]], "np.ndarray | Sequence[np.ndarray]"]


def make_record(
    path: Path,
    format: str,
    channels: Sequence[Channel],
    decode: Decoder,
    leads: Sequence[str] | None,
    given: Given,
    **source: Any,
) -> EcgRecord:
    """Complete the channels with what is given, choose the leads, and bring them to millivolts.

    Args:
        path: the file, for messages.
        format: key of `FORMATS`.
        channels: all channels of the file, in its order.
        decode: called once, with the places of the chosen channels.
        leads: the leads to read; None for all.
        given: what the caller says.
        source: kept in `EcgRecord.source` beside format, units and gains.

    Raises:
        SamplingRateError, LeadError, UnitError: a rate, names or units that are neither stated nor given, or that
            cannot be; a lead that is missing or there twice.
        EcgFileError: there is no sample.
    """
    if not channels:
        raise EcgFileError(
            f"{path}: got no leads, expected some. The file is empty, or of a version that is not known."
        )
    channels = complete(path, channels, given)
    names = [str(channel.name) for channel in channels]
    try:
        wanted = list(range(len(names))) if leads is None else order_leads(names, leads)
    except LeadError as error:
        raise LeadError(f"{path}: {error}") from None
    chosen = [channels[index] for index in wanted]
    sampling_rate = _one_rate(path, chosen)
    factors = [_millivolts(path, channel) for channel in chosen]
    stored = decode(wanted)
    lengths = sorted({len(row) for row in stored})
    if len(lengths) != 1 or lengths == [0]:
        raise EcgFileError(
            f"{path}: got {' and '.join(map(str, lengths)) or 0} samples, expected as many for each lead, and some. "
            "The file is empty or truncated, or its leads differ in length: read those of one length with `leads=`."
        )
    # Infinite or signalling values are problems of the record, which are listed, not warned of.
    with np.errstate(over="ignore", invalid="ignore"):
        rows = [
            (np.asarray(row, dtype=np.float64) * channel.scale + channel.offset) * factor
            for row, channel, factor in zip(stored, chosen, factors, strict=True)
        ]
    return EcgRecord(
        signal=np.stack(rows),
        sampling_rate=sampling_rate,
        lead_names=tuple(names[index] for index in wanted),
        name=path.stem,
        source={
            "format": format,
            "units": [channel.unit for channel in chosen],
            "gains": [1 / channel.scale for channel in chosen],
            **source,
        },
    )


def complete(path: Path, channels: Sequence[Channel], given: Given) -> list[Channel]:
    """Fill in what the file does not state with what is given; all that is missing is named in one error."""
    rate = any(channel.sampling_rate is None for channel in channels) and given.sampling_rate is None
    names = any(channel.name is None for channel in channels) and given.lead_names is None
    units = any(channel.unit is None for channel in channels) and given.units is None
    if rate or names or units:
        raise missing_statement(path, rate=rate, names=names, units=units)
    lead_names = given.lead_names or ()
    if any(channel.name is None for channel in channels) and len(lead_names) != len(channels):
        raise LeadError(
            f"{path}: got {len(lead_names)} lead_names, expected {len(channels)}, one for each channel of the file in "
            "its order."
        )
    return [
        replace(
            channel,
            name=lead_names[index] if channel.name is None else channel.name,
            unit=given.units if channel.unit is None else channel.unit,
            sampling_rate=given.sampling_rate if channel.sampling_rate is None else channel.sampling_rate,
        )
        for index, channel in enumerate(channels)
    ]


def missing_statement(path: Path, *, rate: bool, names: bool, units: bool) -> EcgError:
    """Make the error that says what a file does not state, and how to give it."""
    kinds: tuple[tuple[bool, str, str, type[EcgError]], ...] = (
        (rate, "sampling rate", "sampling_rate=500", SamplingRateError),
        (names, "lead names", "lead_names=['I', 'II', ...]", LeadError),
        (units, "units", "units='mV'", UnitError),
    )
    absent = [kind for kind in kinds if kind[0]]
    examples = [example for _, _, example, _ in absent]
    options = ["--" + example.partition("=")[0].replace("_", "-") for example in examples]
    return absent[0][3](
        f"{path}: the file states no {' and no '.join(what for _, what, _, _ in absent)}, and nothing is guessed. "
        f"Give what is true of this file, such as read_ecg(path, {', '.join(examples)}), or `ecgbyte read` with "
        f"{', '.join(options)}."
    )


def _one_rate(path: Path, channels: Sequence[Channel]) -> float:
    """Return the rate of all chosen channels."""
    rates = {float(channel.sampling_rate or 0) for channel in channels}
    if not all(0 < rate < float("inf") for rate in rates):
        raise SamplingRateError(f"{path}: got a sampling rate of {sorted(rates)} Hz, expected a positive one.")
    if len(rates) > 1:
        raise SamplingRateError(
            f"{path}: got sampling rates that differ between leads ({sorted(rates)} Hz), expected one rate for all. "
            "Read the leads of one rate with `leads=`, or bring the file to one rate first."
        )
    return rates.pop()


def _millivolts(path: Path, channel: Channel) -> float:
    """Return the millivolts in a channel's unit; its scale must be usable too."""
    unit = channel.unit or ""
    if unit.lower() not in MILLIVOLTS or not np.isfinite(channel.scale) or channel.scale == 0:
        raise UnitError(
            f"{path}: channel {channel.name!r} is in {unit[:20]!r} with a scale of {channel.scale:g}, expected a "
            "voltage (V, mV, uV, nV) and a scale other than 0. Read the other channels with `leads=`."
        )
    if not np.isfinite(channel.offset):
        raise UnitError(f"{path}: channel {channel.name!r} has an offset of {channel.offset}, expected a number.")
    return MILLIVOLTS[unit.lower()]


def file_content(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """Return the bytes of a file, after a look at its size."""
    if not path.is_file():
        raise EcgFileError(f"{path}: there is no such file. Check the path.")
    size = path.stat().st_size
    if size > largest:
        raise EcgFileError(f"{path}: got {size} bytes, expected at most {largest}. Cut the recording to parts first.")
    return path.read_bytes()


def start_of(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, or none where there is no plain file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(size)


def import_extra(path: Path, module: str, extra: str) -> Any:
    """Import a package that only one group of formats needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EcgFileError(
            f"{path}: this format needs the package {module.partition('.')[0]}, which cannot be imported. Install it: "
            f"pip install 'ecgbyte-hf[{extra}]'"
        ) from error
