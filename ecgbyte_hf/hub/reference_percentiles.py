"""Reads the percentile files of the paper's code.

`np.save(path, {"percentile_1": ..., "percentile_99": ..., "global_min": ..., ...})` writes a `.npy` whose header says
type object and shape (), and behind it the pickle of an array of one dictionary with numpy scalars. That pickle asks
for numpy's `_reconstruct`, `ndarray`, `dtype` and `scalar`, the first and last in `numpy.core.multiarray` (numpy 1) or
`numpy._core.multiarray` (numpy 2). They are recognised by name and read as what they mean; numpy builds nothing here.
"""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.hub.restricted_pickle import Call, Name, read_content, read_plain_pickle
from ecgbyte_hf.models.calibration_ecg_byte import EcgCalibration
from ecgbyte_hf.models.errors_ecg_byte import CalibrationError, EcgFileError

#: Of a file; a real one has some 600 bytes.
LARGEST_FILE = 1 << 20
_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
ADMITTED = (
    "numpy.ndarray",
    "numpy.dtype",
    *(f"{module}.{name}" for module in _MULTIARRAYS for name in ("_reconstruct", "scalar")),
)
#: numpy's code of a number type -> that of `struct`.
_NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}
KEYS = ("percentile_1", "percentile_99")


def read_percentiles(path: str | Path) -> EcgCalibration:
    """The calibration that a percentile file of the paper's code stands for.

    Args:
        path: The `.npy`.

    Returns:
        Half a millivolt beyond the 1st and 99th percentile, as the paper quantises.

    Raises:
        EcgFileError: not such a file, damaged, or one whose pickle asks for more.
        CalibrationError: a percentile is missing or not finite, or the 1st is not below the 99th.
    """
    where = str(path)
    content = read_content(path, LARGEST_FILE)
    array = read_plain_pickle(content[_header_size(content, where) :], where, admitted=ADMITTED)
    table = _table(array, where)
    values = []
    for key in KEYS:
        if key not in table:
            raise CalibrationError(
                f"{where}: got a dictionary without {key!r}, expected {' and '.join(KEYS)}; give the file that the "
                "paper's preprocessing wrote"
            )
        values.append(_number(table[key], key, where))
    low, high = values
    if not low < high:
        raise CalibrationError(f"{where}: got the percentiles {low} and {high} mV, expected the 1st below the 99th")
    return EcgCalibration.from_percentiles(low, high)


def _header_size(content: bytes, where: str) -> int:
    """Bytes before the pickle; `numpy` reads a header as a literal of at most 10,000 characters."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    # On a damaged header anything may fail in `numpy` (ValueError, tokenize.TokenError, MemoryError were seen).
    except Exception as error:
        raise EcgFileError(
            f"{where}: the header of a NumPy array cannot be read ({type(error).__name__}); copy or download it again"
        ) from error
    if shape != () or dtype != np.dtype(object):
        raise EcgFileError(
            f"{where}: got an array of type {dtype} and shape {shape}, expected one dictionary (type object, shape "
            "()); give the percentile file, not a signal"
        )
    return file.tell()


def _table(array: Any, where: str) -> dict[Any, Any]:
    """The dictionary in the description of a pickled array of shape ()."""
    is_array = (
        _is_call(array, "_reconstruct")
        and len(array.arguments) == 3
        and array.arguments[0] == Name("numpy.ndarray")
        and array.arguments[1:] == ((0,), b"b")
        and type(array.state) is tuple
        and len(array.state) == 5
    )
    if is_array:
        version, shape, dtype, _, values = array.state
        holds_one = type(values) is list and len(values) == 1 and type(values[0]) is dict
        if version == 1 and shape == () and _type_code(dtype) in ("O", "O8") and holds_one:
            table: dict[Any, Any] = values[0]
            return table
    raise EcgFileError(f"{where}: the pickle is not that of one dictionary in an array; give the percentile file")


def _number(value: Any, key: str, where: str) -> float:
    """A plain number, or the description of a numpy scalar."""
    number = value
    if _is_call(value, "scalar") and len(value.arguments) == 2:
        dtype, content = value.arguments
        code, order = _NUMBERS.get(_type_code(dtype) or ""), _byte_order(dtype)
        if code and order and type(content) is bytes and len(content) == struct.calcsize(order + code):
            (number,) = struct.unpack(order + code, content)
    if type(number) not in (int, float):
        raise CalibrationError(f"{where}: {key} is a {type(number).__name__}, expected one number in mV")
    if not math.isfinite(number):
        raise CalibrationError(f"{where}: {key} is {number}, expected a finite number in mV")
    return float(number)


def _is_call(value: Any, name: str) -> bool:
    return type(value) is Call and value.name.path in [f"{module}.{name}" for module in _MULTIARRAYS]


def _type_code(dtype: Any) -> str | None:
    """Such as `f8`, of the description of a type."""
    is_type = type(dtype) is Call and dtype.name.path == "numpy.dtype" and len(dtype.arguments) == 3
    code = dtype.arguments[0] if is_type else None
    return code if type(code) is str else None


def _byte_order(dtype: Call) -> str | None:
    state = dtype.state
    is_known = type(state) is tuple and len(state) >= 2 and state[0] == 3 and state[1] in ("<", ">")
    return str(state[1]) if is_known else None
