"""Reader of WFDB recordings: a text header (.hea) and the signal files that it names (.dat, .mat of PhysioNet).

The `wfdb` package decodes them, but only a header that passes here: `wfdb` takes 250 Hz and a gain of 200 for granted
where a header states none, passes over what it does not understand ("5e2" Hz are 5, "\u00b5V" are "V"), allocates
what a header asks for, and opens what it names, be it a URL. The patterns below are narrower than those of `wfdb`, so
that it understands what they accept in the same way. Fields: header(5) and signal(5) of the WFDB manual.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.models.leads_ecg_byte import order_leads
from ecgbyte_hf.signal.records import MILLIVOLTS, EcgRecord, Given

DESCRIPTION = "WFDB (.hea with its .dat or .mat)"

#: A header holds a line for each signal and comments; the largest of PhysioNet's ECG databases are below 10 kB.
_LARGEST_HEADER = 1 << 20

#: Bytes of one sample by format. Left out: the compressed ones, and 61, of which `wfdb` gives no stored numbers.
_SAMPLE_BYTES: dict[str, int | Fraction] = {"8": 1, "16": 2, "24": 3, "32": 4, "80": 1, "160": 2}
_SAMPLE_BYTES |= {"212": Fraction(3, 2), "310": Fraction(4, 3), "311": Fraction(4, 3)}

#: Stands for no value in format 16.
_NO_VALUE = -32768

_RECORD_LINE = re.compile(
    r"""[-\w]+ [ \t]+ (?P<signals>\d{1,9})
    (?:[ \t]+ (?P<rate>[^\s/]+) (?:/ -?\d+\.?\d* (?:\(-?\d+\.?\d*\))?)?
    (?:[ \t]+ (?P<frames>(?!0+\b)\d{1,18}) (?:[ \t].*)?)?)?  # What follows are time and date.""",
    re.VERBOSE | re.ASCII,
)
#: The file is nothing but a name: `wfdb` would follow folders, "~" and URLs.
_SIGNAL_LINE = re.compile(
    r"""(?P<file>(?!-[ \t])[-\w]+\.?\w*)
    [ \t]+ (?P<format>\d{1,4}) (?:x(?P<per_frame>\d{1,9}))? (?::(?P<skew>\d{1,9}))? (?:\+(?P<offset>\d{1,18}))?
    (?:[ \t]+ (?P<gain>-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,9})?) (?:\((?P<baseline>-?\d{1,18})\))? (?:/(?P<unit>\S+))?
    (?:[ \t]+ \d{1,18} (?:[ \t]+ (?P<zero>-?\d{1,18})  # ADC resolution and zero
    (?:[ \t]+ -?\d{1,18} (?:[ \t]+ (?P<checksum>-?\d{1,18}) (?:[ \t]+ \d{1,18}  # first sample, checksum, block size
    (?:[ \t]+ (?P<name>.+))?)?)?)?)?)?)?""",
    re.VERBOSE | re.ASCII,
)


def recognises(path: Path) -> bool:
    """Say whether there is a header at the path, or the path has the name of a header or of its signals."""
    return path.suffix.lower() in (".hea", ".dat") or _header_path(path).is_file()


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says; the path is its name with or without `.hea`, `.dat` or `.mat`.

    A header states everything but, at times, the names of its channels.
    """
    path = _header_path(path)
    record_line, channels = _parse_header(path)
    names = _names(path, channels, given)
    try:
        wanted = range(len(names)) if leads is None else order_leads(names, leads)
    except LeadError as error:
        raise LeadError(f"{path}: {error}") from None
    sampling_rate = _sampling_rate(path, record_line, channels)
    millivolts = [_millivolts(path, names[index], channels[index]) for index in wanted]
    _check_signal_files(path, record_line, channels)
    samples = _read_samples(path, names, record_line, channels)
    source = {
        "format": "wfdb",
        "units": [channels[index]["unit"] or "mV" for index in wanted],
        "gains": [float(channels[index]["gain"]) for index in wanted],
    }
    return EcgRecord(
        signal=np.stack([samples[index] * factor for index, factor in zip(wanted, millivolts, strict=True)]),
        sampling_rate=sampling_rate,
        lead_names=tuple(names[index] for index in wanted),
        name=path.stem,
        source=source,
    )


@dataclass(frozen=True)
class StoredSignal:
    """A recording's own whole numbers: the voltage in mV is `(samples - baseline) / gain`, lead by lead.

    Attributes:
        samples: (leads, samples) integers, unchanged; -32768 in format 16 means that there is no value (NaN).
        gains: Of each lead, per mV.
        baselines: Of each lead: the number that stands for 0 mV.
        sampling_rate: Hz.
        lead_names: As the file has them, in its order.
    """

    samples: np.ndarray
    gains: tuple[float, ...]
    baselines: tuple[int, ...]
    sampling_rate: float
    lead_names: tuple[str, ...]


def read_stored(path: Path) -> StoredSignal:
    """Read a recording's stored integers, after the same checks as `read`.

    Raises:
        EcgFileError, SamplingRateError, UnitError: as for `read`; also for leads that are shifted in time (a skew).
    """
    path = _header_path(path)
    record_line, channels = _parse_header(path)
    names = [channel["name"] or f"signal {index}" for index, channel in enumerate(channels)]
    sampling_rate = _sampling_rate(path, record_line, channels)
    millivolts = [_millivolts(path, name, channel) for name, channel in zip(names, channels, strict=True)]
    _check_signal_files(path, record_line, channels)
    if any(int(channel["skew"] or 0) for channel in channels):
        raise EcgFileError(f"{path}: its leads are shifted in time, expected none; use `read_ecg`, which aligns them.")
    return StoredSignal(
        samples=_stored_samples(path, names, record_line, channels),
        gains=tuple(float(channel["gain"]) / factor for channel, factor in zip(channels, millivolts, strict=True)),
        # header(5): where no baseline is stated, it is the ADC's zero.
        baselines=tuple(int(channel["baseline"] or channel["zero"] or 0) for channel in channels),
        sampling_rate=sampling_rate,
        lead_names=tuple(names),
    )


def _stored_samples(
    path: Path, names: list[str], record_line: re.Match[str], channels: list[re.Match[str]]
) -> np.ndarray:
    """Return the integers (leads, samples), checked against the header's sums."""
    if not _is_plain(channels):
        return np.stack(_read_record(path, names).e_d_signal)
    first = channels[0]
    place, offset = _signal_path(path, first["file"]), int(first["offset"] or 0)
    frames = int(record_line["frames"] or 0) or (place.stat().st_size - offset) // (2 * len(channels))
    stored = np.fromfile(place, "<i2", frames * len(channels), offset=offset).reshape(frames, len(channels)).T
    sums = stored.sum(axis=1, dtype=np.int64) % 65536
    stated = [None if channel["checksum"] is None else int(channel["checksum"]) for channel in channels]
    _check_sums(path, names, sums.tolist(), stated)
    return stored


def _is_plain(channels: list[re.Match[str]]) -> bool:
    """Whether there is one file of format 16: little-endian 16 bits, all leads of an instant together.

    Then numpy reads it: `wfdb` takes 3 ms for a record of PTB-XL, nearly all of it for the header.
    """
    first = channels[0]["file"]
    return {(channel["file"], channel["format"], channel["per_frame"] or "1") for channel in channels} == {
        (first, "16", "1")
    }


def _header_path(path: Path) -> Path:
    """Return the header that belongs to a record's name, header or signal file."""
    # A file's name may hold a dot, so what is there decides before the suffix does.
    appended = path.with_name(path.name + ".hea") if path.name and path.suffix != ".hea" else path
    if appended.is_file() or path.suffix.lower() not in (".hea", ".dat", ".mat"):
        return appended
    return path.with_suffix(".hea")


def _names(path: Path, channels: list[re.Match[str]], given: Given) -> list[str]:
    """Return the channels' names; if the header names none of them, those that are given."""
    if given.lead_names is None or any(channel["name"] for channel in channels):
        return [channel["name"] or f"signal {index}" for index, channel in enumerate(channels)]
    if len(given.lead_names) != len(channels):
        raise LeadError(
            f"{path}: got {len(given.lead_names)} lead_names, expected {len(channels)}, one for each channel."
        )
    return list(given.lead_names)


def _header_lines(path: Path) -> list[str]:
    """Return the lines of a header without its comments, which may identify a person."""
    if not path.is_file() or path.stat().st_size > _LARGEST_HEADER:
        raise EcgFileError(
            f"{path}: the WFDB header is missing, no plain file, or larger than {_LARGEST_HEADER} bytes. A recording "
            "needs its .hea beside its .dat or .mat: check the path, or download the header too."
        )
    # `wfdb` drops what is not ASCII before it splits lines. UTF-8, with line breaks of its own, is decoded after that.
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("ascii", errors="surrogateescape")
    lines = [line.encode("ascii", "surrogateescape").decode("utf-8", "replace").strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _parse_header(path: Path) -> tuple[re.Match[str], list[re.Match[str]]]:
    """Take the record line and the signal lines apart."""
    lines = _header_lines(path) or [""]
    record_line = _RECORD_LINE.fullmatch(lines[0])
    if record_line is None:
        raise EcgFileError(
            # Four fields: what follows are time and date of the recording.
            f"{path}: not the header of a WFDB record: got {' '.join(lines[0].split()[:4])[:80]!r}, expected 'name "
            "signals rate samples', with no samples left out rather than 0. Is the file complete? A multi-segment "
            "record ('name/segments ...') cannot be read: read its segments one by one, each by its own header."
        )
    if not len(lines) - 1 == int(record_line["signals"]) > 0:
        raise EcgFileError(
            f"{path}: got {len(lines) - 1} signal lines, expected {record_line['signals']} as the record line says, "
            "and at least one. The header is damaged, or not one of a signal: download it again."
        )
    return record_line, [_parse_signal_line(path, line) for line in lines[1:]]


def _parse_signal_line(path: Path, line: str) -> re.Match[str]:
    """Take a signal line apart."""
    channel = _SIGNAL_LINE.fullmatch(line)
    if channel is None or channel["format"] not in _SAMPLE_BYTES:
        raise EcgFileError(
            f"{path}: got the signal line {line[:80]!r}, expected 'file format gain(baseline)/unit resolution zero "
            "first checksum block name', with a plain file name (letters, digits, _, - and one dot) in the header's "
            f"own folder and a format of {', '.join(_SAMPLE_BYTES)}. Check that the header is complete, and convert "
            "other formats to 16."
        )
    return channel


def _sampling_rate(path: Path, record_line: re.Match[str], channels: list[re.Match[str]]) -> float:
    """Return the samples per second of every channel: frames per second times samples per frame."""
    rate = record_line["rate"]
    # Without an exponent: `wfdb` would drop it.
    if rate is None or not re.fullmatch(r"\d{1,18}(\.\d*)?|\.\d+", rate, re.ASCII) or float(rate) == 0:
        raise SamplingRateError(
            f"{path}: the header states no sampling rate that can be used, got {str(rate)[:80]!r}, expected a "
            "positive one in Hz after the number of signals. Find it out and add it to the header: it is not guessed."
        )
    rates = {int(channel["per_frame"] or 1) * float(rate) for channel in channels}
    if len(rates) > 1 or 0 in rates:
        raise SamplingRateError(
            f"{path}: got sampling rates that differ between leads ({sorted(rates)} Hz), expected one rate for all. "
            "Bring the record to one rate first."
        )
    return rates.pop()


def _millivolts(path: Path, name: str, channel: re.Match[str]) -> float:
    """Return the millivolts in a channel's unit; its gain must be known too."""
    # header(5): a gain without a unit is per millivolt.
    unit = channel["unit"] or "mV"
    gain = float(channel["gain"] or 0)
    if unit.lower() not in MILLIVOLTS or gain == 0 or not math.isfinite(gain):
        raise UnitError(
            f"{path}: channel {name!r} is in {unit!r} with a gain of {channel['gain']}, expected a voltage (V, mV, "
            "uV, nV) and a gain other than 0. Correct the header, or read the other channels with `leads=`."
        )
    return MILLIVOLTS[unit.lower()]


def _check_signal_files(path: Path, record_line: re.Match[str], channels: list[re.Match[str]]) -> None:
    """Refuse signal files that are elsewhere, missing or too short, before memory of the stated size is asked for."""
    expected = int(record_line["frames"] or 0)
    for name, group in groupby(channels, key=lambda channel: channel["file"]):
        fields = [(c["format"], int(c["offset"] or 0), int(c["per_frame"] or 1)) for c in group]
        if len(set(fields)) > 1:
            raise EcgFileError(f"{path}: the channels of {name} differ in format or offset, expected the same.")
        storage, offset, per_frame = fields[0]
        place = _signal_path(path, name)
        size = place.stat().st_size
        got = math.floor((size - offset) / (_SAMPLE_BYTES[storage] * per_frame * len(fields)))
        # Where the header states no length, `wfdb` takes that of the first file.
        expected = expected or got
        if got < max(expected, 1) or (got > expected and not record_line["frames"]):
            raise EcgFileError(
                f"{place}: got {size} bytes ({got} frames in format {storage}), expected {max(expected, 1)} frames as "
                f"{path.name} or its first signal file says. The file is truncated: download it again."
            )


def _signal_path(header_path: Path, name: str) -> Path:
    """Return the signal file that a header names, if it is in the header's folder."""
    place = header_path.with_name(name)
    if not place.is_file():
        raise EcgFileError(
            f"{place}: the signal file that {header_path.name} names is missing, or no plain file. Download it."
        )
    folder, target = header_path.parent.resolve(), place.resolve().parent
    # The Hub's cache has links in REPO/snapshots/REVISION/... to the content in REPO/blobs.
    in_cache = target.name == "blobs" and target.parent / "snapshots" in folder.parents
    if target != folder and not in_cache:
        raise EcgFileError(f"{header_path}: {name!r} is a link that leaves the folder. Put the file itself there.")
    return place


def _read_samples(
    path: Path, names: list[str], record_line: re.Match[str], channels_of_header: list[re.Match[str]]
) -> list[np.ndarray]:
    """Return each channel in its unit, with NaN for invalid samples, checked against the header's sum."""
    if _is_plain(channels_of_header) and not any(int(channel["skew"] or 0) for channel in channels_of_header):
        stored = _stored_samples(path, names, record_line, channels_of_header)
        return [_in_unit(samples, channel) for samples, channel in zip(stored, channels_of_header, strict=True)]
    record = _read_record(path, names)
    with _damage_as_our_error(path):
        channels: list[np.ndarray] = record.dac(expanded=True)
    # The skew is undone here: `wfdb` fails where two differ, and allocates as much as the header says.
    for channel, skew, per_frame in zip(channels, record.skew, record.samps_per_frame, strict=True):
        kept = max(len(channel) - (skew or 0) * per_frame, 0)
        channel[:kept] = channel[len(channel) - kept :]
        channel[kept:] = np.nan
    return channels


def _in_unit(samples: np.ndarray, channel: re.Match[str]) -> np.ndarray:
    """The voltage of stored numbers, in the operations of `wfdb`."""
    # header(5): where no baseline is stated, it is the ADC's zero.
    voltage = samples.astype(np.float64)
    voltage -= int(channel["baseline"] or channel["zero"] or 0)
    voltage /= float(channel["gain"])
    voltage[samples == _NO_VALUE] = np.nan
    return voltage


def _read_record(path: Path, names: list[str]) -> Any:
    """Return what `wfdb` reads, stored numbers in `e_d_signal`, checked against the header's sum."""
    import wfdb

    # Resolved, because `wfdb` takes "link/.." for the folder itself; the header's own name may be a link.
    record_name = str(path.parent.resolve() / path.stem)
    if "::" in record_name:
        raise EcgFileError(f"{path}: got a path with '::', which `wfdb` takes for a chain of URLs. Rename the folder.")
    with _damage_as_our_error(path):
        record = wfdb.rdrecord(record_name, physical=False, smooth_frames=False, ignore_skew=True)
    _check_sums(path, names, record.calc_checksum(expanded=True), record.checksum)
    return record


def _check_sums(path: Path, names: list[str], sums: Sequence[int], stated: Sequence[int | None]) -> None:
    """Refuse samples that do not add up to what the header says."""
    for name, got, expected in zip(names, sums, stated, strict=True):
        if expected is not None and got != expected % 65536:
            raise EcgFileError(
                f"{path}: channel {name!r} adds up to {got}, expected {expected % 65536} as the header says: the "
                "signal file is corrupt, or belongs to another header. Download it again."
            )


@contextmanager
def _damage_as_our_error(path: Path) -> Iterator[None]:
    """Turn what `wfdb` raises on damaged content: ValueError, TypeError, IndexError, a bare Exception were seen."""
    try:
        yield
    except Exception as error:
        # Without the error's own text, which may quote the recording's date.
        raise EcgFileError(
            f"{path}: `wfdb` cannot read it ({type(error).__name__}): the header, its time and date included, or a "
            "signal file is damaged. Download them again."
        ) from error
