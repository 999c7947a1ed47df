"""Reader of MATLAB files without a WFDB header: a matrix of numbers, and at best rate, leads and units.

Decoded here and not by `scipy.io`, which ends the process on some damaged files of version 5 (a segmentation fault
in scipy 1.17.1 on files with a few bytes changed). Of "MAT-File Format" (MathWorks) only what a recording needs is
decoded: matrices of numbers, texts, cells of texts, and a struct of these. All else is passed over.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError
from ecgbyte_hf.signal.arrays import record_of_arrays
from ecgbyte_hf.signal.channels import MOST_COMPRESSED_SAMPLES, file_content
from ecgbyte_hf.signal.records import EcgRecord, Given

DESCRIPTION = "MATLAB (.mat up to version 7.2)"

_LARGEST_UNPACKED = 8 * MOST_COMPRESSED_SAMPLES

_HEADER_5 = 128
_MATRIX, _COMPRESSED = 14, 15
#: Types of stored numbers of version 5.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
#: Classes of arrays of version 5.
_CELL, _STRUCT, _TEXT, _FIRST_NUMBERS, _LAST_NUMBERS = 1, 2, 4, 6, 15
_COMPLEX = 0x0800

_HEADER_4 = 20
#: Types of stored numbers of version 4.
_NUMBERS_4 = ("f8", "f4", "i4", "i2", "u2", "u1")


class _Variable(NamedTuple):
    """A name, and an array or the variables in a struct; None for what no recording needs."""

    name: str
    content: np.ndarray | list[_Variable] | None


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of a MATLAB file; one with a WFDB header is WFDB's."""
    return path.suffix.lower() == ".mat" and path.is_file()


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says. Variables may be in structs, as those of CPSC 2018 are."""
    content = file_content(path)
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise EcgFileError(f"{path}: got a MATLAB 7.3 file, expected version 7.2 or older. Save it with '-v7'.")
    order = {b"IM": "<", b"MI": ">"}.get(content[_HEADER_5 - 2 : _HEADER_5])
    variables = _version_4(path, content) if order is None else _version_5(path, content, order)
    arrays: dict[str, np.ndarray] = {}
    for name, array in _flattened(variables):
        if name in arrays:
            raise EcgFileError(f"{path}: got {name!r} twice, in structs, expected it once. Save one of them.")
        arrays[name] = array
    return record_of_arrays(path, "mat", arrays, leads, given)


def _flattened(variables: list[_Variable]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays, and those in a struct as if they were variables."""
    for name, content in variables:
        if isinstance(content, np.ndarray):
            yield name, content
        elif content is not None:
            yield from _flattened(content)


def _damaged(path: Path, what: str) -> EcgFileError:
    """Make the error of a file that is not as MATLAB writes it."""
    return EcgFileError(f"{path}: {what}. It is no MATLAB file, truncated or damaged: download or save it again.")


def _version_4(path: Path, content: bytes) -> list[_Variable]:
    """Decode a file of version 4: for each variable type, rows, columns, name and numbers, column after column."""
    variables, place = [], 0
    while place < len(content):
        if place + _HEADER_4 > len(content):
            raise _damaged(path, "the header of a variable is cut short")
        # The type is a number below 5000, so its bytes tell their order.
        order = "<" if struct.unpack_from("<I", content, place)[0] < 5000 else ">"
        kind, rows, columns, is_complex, name_size = struct.unpack_from(f"{order}5i", content, place)
        numbers = kind // 10 % 10
        if not (0 <= kind < 5000 and numbers < len(_NUMBERS_4) and min(rows, columns) >= 0 and name_size > 0):
            raise _damaged(path, "the header of a variable cannot be one")
        dtype = np.dtype(order + _NUMBERS_4[numbers])
        start = place + _HEADER_4 + name_size
        place = start + rows * columns * dtype.itemsize * (2 if is_complex else 1)
        if place > len(content):
            raise _damaged(path, f"got {len(content)} bytes, expected {place} for a matrix of {rows} x {columns}")
        if rows * columns and not is_complex and kind % 10 == 0:
            name = content[start - name_size : start].rstrip(b"\0").decode("latin-1")
            matrix = np.frombuffer(content, dtype=dtype, count=rows * columns, offset=start)
            variables.append(_Variable(name, matrix.reshape(rows, columns, order="F")))
    return variables


def _version_5(path: Path, content: bytes, order: str) -> list[_Variable]:
    """Decode a file of version 5 to 7.2: a header, and elements that are variables, compressed or not."""
    variables, left = [], _LARGEST_UNPACKED
    for kind, body in _elements(path, content[_HEADER_5:], order):
        inner = [(kind, body)]
        if kind == _COMPRESSED:
            plain = _decompressed(path, body, left)
            left -= len(plain)
            inner = list(_elements(path, plain, order))
        variables += [_matrix(path, one, order, 0) for kind, one in inner if kind == _MATRIX]
    return variables


def _elements(path: Path, content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements that follow one another, each filled up to 8 bytes."""
    place = 0
    while place < len(content):
        if place + 8 > len(content):
            raise _damaged(path, "the tag of an element is cut short")
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, end = place + 8, place + 8 + size
        if kind >> 16:
            # Of up to four bytes, which stand in the tag.
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = place + 4, place + 4 + min(size, 4)
            place += 8
        elif end > len(content):
            raise _damaged(path, f"got {len(content)} bytes, expected {end} as the tag of an element says")
        else:
            place = end if kind == _COMPRESSED else end + -size % 8
        yield kind, content[start:end]


def _decompressed(path: Path, packed: bytes, largest: int) -> bytes:
    """Unpack one variable."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, max(largest, 1))
    except zlib.error as error:
        raise _damaged(path, "a compressed variable cannot be unpacked") from error
    if not unpacker.eof:
        raise EcgFileError(
            f"{path}: a compressed variable is cut short, or its content is larger than {_LARGEST_UNPACKED} bytes. "
            "Save it again, in parts."
        )
    return plain


def _matrix(path: Path, body: bytes, order: str, depth: int) -> _Variable:
    """Decode an array: flags, dimensions, name, and what its class has."""
    parts = list(_elements(path, body, order))
    if not parts:
        return _Variable("", None)  # an empty field of a struct
    if len(parts) < 3 or len(parts[0][1]) < 4:
        raise _damaged(path, "an array has no flags, dimensions and name")
    flags = struct.unpack_from(f"{order}I", parts[0][1])[0]
    shape = tuple(np.frombuffer(parts[1][1][: len(parts[1][1]) // 4 * 4], dtype=f"{order}i4").tolist())
    name, rest = parts[2][1].decode("latin-1"), parts[3:]
    kind = flags & 0xFF
    if min(shape, default=-1) < 0:
        raise _damaged(path, f"an array has the shape {shape}")
    if kind == _STRUCT and depth == 0 and math.prod(shape) == 1:
        return _Variable(name, _fields(path, rest, order))
    if kind == _CELL and depth < 2:
        return _Variable(name, _texts(path, rest, order))
    if not rest or flags & _COMPLEX or math.prod(shape) == 0:
        return _Variable(name, None)
    if kind == _TEXT:
        return _Variable(name, _characters(path, *rest[0], order, shape))
    if _FIRST_NUMBERS <= kind <= _LAST_NUMBERS:
        return _Variable(name, _numbers(path, *rest[0], order, shape))
    return _Variable(name, None)


def _numbers(path: Path, kind: int, content: bytes, order: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decode numbers, whatever type they are stored as: MATLAB takes the smallest that holds them."""
    if kind not in _NUMBERS:
        raise _damaged(path, f"numbers are stored as type {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise _damaged(path, f"got {len(content)} bytes of numbers, expected {math.prod(shape) * dtype.itemsize}")
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F")


def _characters(path: Path, kind: int, content: bytes, order: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Decode a text, or several of one length: the rows of a matrix of characters."""
    encoding = _TEXTS.get(kind)
    if encoding is None or len(shape) != 2:
        return None
    if encoding == "utf-16":
        encoding += "-le" if order == "<" else "-be"
    text = content.decode(encoding, "replace")
    if len(text) != math.prod(shape):
        raise _damaged(path, f"got {len(text)} characters, expected {math.prod(shape)}")
    return np.array([text[row :: shape[0]] for row in range(shape[0])])


def _texts(path: Path, parts: list[tuple[int, bytes]], order: str) -> np.ndarray | None:
    """Decode a cell whose elements are all texts; None for any other."""
    contents = [_matrix(path, body, order, 2).content for kind, body in parts if kind == _MATRIX]
    texts = [array for array in contents if isinstance(array, np.ndarray) and array.shape == (1,)]
    if not contents or len(texts) < len(contents) or any(text.dtype.kind != "U" for text in texts):
        return None
    return np.concatenate(texts)


def _fields(path: Path, parts: list[tuple[int, bytes]], order: str) -> list[_Variable]:
    """Decode a struct: the size of a field's name, the names, and the fields' arrays."""
    if len(parts) < 2 or len(parts[0][1]) < 4:
        raise _damaged(path, "a struct has no names of fields")
    size = struct.unpack_from(f"{order}i", parts[0][1])[0]
    names = parts[1][1]
    arrays = [body for kind, body in parts[2:] if kind == _MATRIX]
    if size <= 0 or len(names) != size * len(arrays):
        raise _damaged(path, f"got {len(arrays)} fields of a struct, expected as many as names")
    found = []
    for index, body in enumerate(arrays):
        name = names[index * size : (index + 1) * size].partition(b"\0")[0].decode("latin-1")
        found.append(_Variable(name, _matrix(path, body, order, 1).content))
    return found
