"""Reader of NumPy files: `.npy` with the signal, `.npz` with the signal and at best rate, leads and units."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgError, EcgFileError
from ecgbyte_hf.signal.arrays import LEAD_NAMES, RATE_NAMES, SIGNAL_NAMES, UNIT_NAMES, record_of_arrays
from ecgbyte_hf.signal.channels import MOST_COMPRESSED_SAMPLES, file_content
from ecgbyte_hf.signal.records import EcgRecord, Given

DESCRIPTION = "NumPy (.npy, .npz)"

#: Bytes of an archive's arrays together, unpacked.
_LARGEST_ARCHIVE = 8 * MOST_COMPRESSED_SAMPLES
_KNOWN_NAMES = {*SIGNAL_NAMES, *RATE_NAMES, *LEAD_NAMES, *UNIT_NAMES}


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of a NumPy file."""
    return path.suffix.lower() in (".npy", ".npz") and path.is_file()


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says. Objects are refused: they would be pickles."""
    content = file_content(path)
    arrays = _archive(path, content) if content.startswith(b"PK") else {"signal": _array(path, content)}
    return record_of_arrays(path, "numpy", arrays, leads, given)


def _archive(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a `.npz` that can belong to a recording: of numbers, or with one of the names."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > _LARGEST_ARCHIVE:
                raise EcgFileError(
                    f"{path}: the arrays take {size} bytes unpacked, expected at most {_LARGEST_ARCHIVE}. Cut the "
                    "recording to parts first."
                )
            for member in members:
                # `zipfile` gives no more than the size that is stated, and checks its checksum.
                name, plain = member.filename.removesuffix(".npy"), archive.read(member)
                if name.lower() in _KNOWN_NAMES or _header(path, plain).dtype.kind in "fiu":
                    arrays[name] = _array(path, plain)
    except EcgError:
        raise
    # On a damaged archive anything may fail (BadZipFile, zlib.error, EOFError, ValueError were seen).
    except Exception as error:
        raise EcgFileError(
            f"{path}: not a NumPy archive, or damaged ({type(error).__name__}). Save it again."
        ) from error
    return arrays


class _Header(NamedTuple):
    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype
    size: int


def _header(path: Path, content: bytes) -> _Header:
    """Take the header of a `.npy` apart; `numpy` reads it as a literal of at most 10,000 characters."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, by_columns, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            # 3.0 is for names of fields beyond Latin-1: no signal has such.
            raise ValueError(f"version {version[0]}.{version[1]}")
    # On a damaged header anything may fail in `numpy` (ValueError, tokenize.TokenError, MemoryError were seen).
    except Exception as error:
        raise EcgFileError(
            f"{path}: the header of a NumPy array cannot be read ({type(error).__name__}). Save it again."
        ) from error
    return _Header(shape, by_columns, dtype, file.tell())


def _array(path: Path, content: bytes) -> np.ndarray:
    """Return the array of a `.npy`, if it is as large as its header says and holds no objects."""
    header = _header(path, content)
    if header.dtype.kind not in "fiuU":
        raise EcgFileError(
            f"{path}: got an array of type {header.dtype}, expected numbers or texts. Objects are pickles and are not "
            "read: save plain arrays."
        )
    stated, got = math.prod(header.shape) * header.dtype.itemsize, len(content) - header.size
    if any(length < 1 for length in header.shape) or stated == 0 or stated != got:
        raise EcgFileError(
            f"{path}: got {got} bytes of an array, expected {stated} for the shape {header.shape} that its header "
            "states, and some. The file is empty, truncated or damaged: save it again."
        )
    array = np.frombuffer(content, dtype=header.dtype, offset=header.size)
    return array.reshape(header.shape, order="F" if header.by_columns else "C")
