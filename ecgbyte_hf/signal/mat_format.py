"""Reader of MATLAB files without a WFDB header: a matrix of numbers, and at best rate, leads and units.

`scipy` decodes them (versions 4 and 5 to 7.2), but compressed variables are unpacked here first, so that what a
file claims is never asked for as memory: of plain bytes `scipy` can take no more than are there.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError
from ecgbyte_hf.signal.arrays import record_of_arrays
from ecgbyte_hf.signal.channels import MOST_COMPRESSED_SAMPLES, file_content
from ecgbyte_hf.signal.records import EcgRecord, Given

DESCRIPTION = "MATLAB (.mat up to version 7.2)"

_HEADER_SIZE = 128
_COMPRESSED = 15
_LARGEST_UNPACKED = 8 * MOST_COMPRESSED_SAMPLES


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of a MATLAB file; one with a WFDB header is WFDB's."""
    return path.suffix.lower() == ".mat" and path.is_file()


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says. Variables may be in one struct, as those of CPSC 2018 are."""
    from scipy.io import loadmat

    content = file_content(path)
    if content[:_HEADER_SIZE].startswith(b"MATLAB 7.3") or content.startswith(b"\x89HDF"):
        raise EcgFileError(f"{path}: got a MATLAB 7.3 file, expected version 7.2 or older. Save it with '-v7'.")
    # On damaged content anything may fail in `scipy` (ValueError, TypeError, KeyError, struct.error were seen).
    try:
        # The stubs know of names only.
        variables = loadmat(cast(Any, io.BytesIO(_unpacked(path, content))), chars_as_strings=True)
    except EcgFileError:
        raise
    except Exception as error:
        raise EcgFileError(
            f"{path}: `scipy` cannot read it ({type(error).__name__}): no MATLAB file, or truncated. Save it again."
        ) from error
    arrays: dict[str, np.ndarray] = {}
    for name, array in _flattened(variables):
        if name in arrays:
            raise EcgFileError(f"{path}: got {name!r} twice, in structs, expected it once. Save one of them.")
        arrays[name] = array
    return record_of_arrays(path, "mat", arrays, leads, given)


def _unpacked(path: Path, content: bytes) -> bytes:
    """Return a MATLAB 5 file with its compressed variables unpacked; any other file as it is."""
    order = {b"IM": "<", b"MI": ">"}.get(content[_HEADER_SIZE - 2 : _HEADER_SIZE])
    if order is None:
        return content
    parts, place, left = [content[:_HEADER_SIZE]], _HEADER_SIZE, _LARGEST_UNPACKED
    while place < len(content):
        if place + 8 > len(content):
            raise EcgFileError(f"{path}: got {len(content) - place} bytes of a variable's tag, expected 8. {_CUT}")
        kind, size = struct.unpack_from(f"{order}II", content, place)
        end = place + 8 + size
        if end > len(content):
            raise EcgFileError(f"{path}: got {len(content)} bytes, expected {end} as a variable's tag says. {_CUT}")
        if kind == _COMPRESSED:
            parts.append(_decompressed(path, content[place + 8 : end], left))
        else:
            parts.append(content[place:end])
        left -= len(parts[-1])
        place = end
    return b"".join(parts)


_CUT = "The file is truncated: download or save it again."


def _decompressed(path: Path, packed: bytes, largest: int) -> bytes:
    """Unpack one variable."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, max(largest, 1))
    except zlib.error as error:
        raise EcgFileError(f"{path}: a compressed variable is damaged. Download or save it again.") from error
    if not unpacker.eof:
        raise EcgFileError(
            f"{path}: a compressed variable is cut short, or its content is larger than {_LARGEST_UNPACKED} bytes. "
            "Save it again, in parts."
        )
    return plain


def _flattened(variables: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the variables, and the fields of a struct as if they were variables."""
    for name, value in variables.items():
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype.names is None:
            yield name, value
        elif value.size == 1:
            fields = zip(value.dtype.names, value.item(), strict=True)
            yield from ((field, content) for field, content in fields if isinstance(content, np.ndarray))
