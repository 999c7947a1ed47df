"""Reader of EDF, EDF+ and BDF by `pyedflib`, of files that are as large as their header says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError
from ecgbyte_hf.signal.channels import Channel, import_extra, make_record
from ecgbyte_hf.signal.records import EcgRecord, Given

DESCRIPTION = "EDF (.edf, .bdf)"

#: Bytes of the header, and of what it says of each signal; before the samples in a data record stand eight fields of
#: 16, 80, 8, 8, 8, 8, 8 and 80 bytes for each signal.
_FIXED_HEADER, _SIGNAL_HEADER, _SAMPLES_FIELD = 256, 256, 216


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of EDF or BDF."""
    return path.suffix.lower() in (".edf", ".bdf") and path.is_file()


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says; the channel of annotations is no lead and is not read."""
    pyedflib = import_extra(path, "pyedflib", "edf")
    if not path.is_file():
        raise EcgFileError(f"{path}: there is no such file. Check the path.")
    _check_size(path)
    try:
        file = pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS, pyedflib.CHECK_FILE_SIZE)
    except OSError as error:
        # Without the error's own text, which may quote the header.
        raise EcgFileError(
            f"{path}: `pyedflib` cannot read it: no EDF file, discontinuous (EDF+D), damaged, or open already. Export "
            "it again."
        ) from error
    with file:
        channels = [_channel(file, index) for index in range(file.signals_in_file)]
        return make_record(path, "edf", channels, lambda wanted: _samples(file, wanted), leads, given)


def _check_size(path: Path) -> None:
    """Refuse a file of another size than its header says; `pyedflib` would print such a header to standard output."""
    with path.open("rb") as file:
        header = file.read(_FIXED_HEADER)
        num_signals = _integer(path, header[252:256])
        header += file.read(_SIGNAL_HEADER * num_signals)
    start = _FIXED_HEADER + _SAMPLES_FIELD * num_signals
    fields = [header[start + 8 * index : start + 8 * index + 8] for index in range(num_signals)]
    sample_bytes = 3 if header.startswith(b"\xff") else 2  # BDF has 24 bits
    records = _integer(path, header[236:244])
    record_size = sample_bytes * sum(_integer(path, field) for field in fields)
    expected = _FIXED_HEADER + _SIGNAL_HEADER * num_signals + records * record_size
    size = path.stat().st_size
    if size != expected or records * record_size == 0:
        raise EcgFileError(
            f"{path}: got {size} bytes, expected {expected} for {records} data records of {record_size} bytes as the "
            "header says, and some. The file is truncated, or was never closed: download or export it again."
        )


def _integer(path: Path, field: bytes) -> int:
    """Return a number of the header: digits, filled up with blanks."""
    if not re.fullmatch(rb"\d+ *", field):
        # Without the text, which may be of another field.
        raise EcgFileError(f"{path}: the header is none of EDF, or truncated. Download or export it again.")
    return int(field)


def _channel(file: Any, index: int) -> Channel:
    """Describe a channel; `pyedflib` scales it by the header's physical and digital ranges."""
    digital = file.getDigitalMaximum(index) - file.getDigitalMinimum(index)
    physical = file.getPhysicalMaximum(index) - file.getPhysicalMinimum(index)
    scale = physical / digital
    return Channel(
        name=_lead_name(file.getLabel(index)),
        unit=file.getPhysicalDimension(index).strip(),
        sampling_rate=file.getSampleFrequency(index),
        scale=scale,
        offset=file.getPhysicalMinimum(index) - file.getDigitalMinimum(index) * scale,
    )


def _lead_name(label: str) -> str:
    """Return the lead of a label; in EDF+ it follows the signal's type, as in "ECG V1"."""
    kind, _, lead = label.strip().partition(" ")
    return lead.strip() if kind.upper() in ("ECG", "EKG") and lead.strip() else label.strip()


def _samples(file: Any, wanted: Sequence[int]) -> list[np.ndarray]:
    """Return the stored numbers of some channels."""
    return [file.readSignal(index, digital=True) for index in wanted]
