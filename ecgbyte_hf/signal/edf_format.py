"""Reader of EDF, EDF+ and BDF by `pyedflib`, which also checks the file's size against its header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError
from ecgbyte_hf.signal.channels import Channel, import_extra, make_record
from ecgbyte_hf.signal.records import EcgRecord, Given

DESCRIPTION = "EDF (.edf, .bdf)"


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of EDF or BDF."""
    return path.suffix.lower() in (".edf", ".bdf") and path.is_file()


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says; the channel of annotations is no lead and is not read."""
    pyedflib = import_extra(path, "pyedflib", "edf")
    if not path.is_file():
        raise EcgFileError(f"{path}: there is no such file. Check the path.")
    try:
        file = pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS, pyedflib.CHECK_FILE_SIZE)
    except OSError as error:
        # Without the error's own text, which may quote the header.
        raise EcgFileError(
            f"{path}: `pyedflib` cannot read it: no EDF file, discontinuous (EDF+D), truncated, of another size than "
            "its header says, or open already. Download or export it again."
        ) from error
    with file:
        channels = [_channel(file, index) for index in range(file.signals_in_file)]
        return make_record(path, "edf", channels, lambda wanted: _samples(file, wanted), leads, given)


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
