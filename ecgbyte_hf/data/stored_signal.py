"""Columns of a record's own integers: half the size of float32, and nothing is rounded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Array2D, List, Value

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError
from ecgbyte_hf.signal.wfdb_format import read_stored

logger = logging.getLogger(__name__)

#: What format 16 stores where there is no value: NaN in millivolts.
NO_VALUE = -32768


def signal_features(shape: tuple[int, int]) -> dict[str, Any]:
    """Columns of a record's stored integers: mV are `(signal - baseline) / gain`, lead by lead."""
    return {
        "sampling_rate": Value("float32"),
        "lead_names": List(Value("string")),
        "gain": List(Value("float64")),
        "baseline": List(Value("int32")),
        "signal": Array2D(shape, "int16"),
    }


def stored_columns(path: Path, shape: tuple[int, int], sampling_rate: float) -> dict[str, Any]:
    """What `signal_features` describes, of one record.

    Raises:
        EcgDataError: another shape or rate than the data set has, or numbers that do not fit 16 bits.
        EcgFileError: the record cannot be read.
    """
    stored = read_stored(path)
    got = (*stored.samples.shape, stored.sampling_rate)
    if got != (*shape, sampling_rate):
        raise EcgDataError(
            f"{path}: got {got[0]} leads of {got[1]} samples at {got[2]} Hz, expected {shape[0]} of {shape[1]} at "
            f"{sampling_rate} Hz. Is it a record of this data set? Download it again"
        )
    if stored.samples.min() < -32768 or stored.samples.max() > 32767:
        raise EcgDataError(f"{path}: its samples need more than 16 bits, expected 16 as the data set has")
    return {
        "sampling_rate": stored.sampling_rate,
        "lead_names": list(stored.lead_names),
        "gain": list(stored.gains),
        "baseline": list(stored.baselines),
        "signal": np.ascontiguousarray(stored.samples, dtype=np.int16),
    }


def stored_columns_or_none(
    path: Path, shape: tuple[int, int], sampling_rate: float, *, skip_unreadable: bool
) -> dict[str, Any] | None:
    """`stored_columns`; with `skip_unreadable` a warning and None where it would raise."""
    try:
        return stored_columns(path, shape, sampling_rate)
    except EcgError as error:
        if not skip_unreadable:
            raise
        logger.warning("left out: %s", error)
        return None


def millivolts(row: dict[str, Any]) -> np.ndarray:
    """The voltage of a row with these columns.

    Returns:
        float64 (leads, samples) in mV; NaN where the file has no value.

    Example:
        >>> row = {"signal": [[-1000, 2010, -32768]], "gain": [1000.0], "baseline": [10]}
        >>> millivolts(row).tolist()
        [[-1.01, 2.0, nan]]
    """
    stored = np.asarray(row["signal"])
    gain, baseline = (np.asarray(row[name], dtype=np.float64)[:, None] for name in ("gain", "baseline"))
    return np.where(stored == NO_VALUE, np.nan, (stored - baseline) / gain)
