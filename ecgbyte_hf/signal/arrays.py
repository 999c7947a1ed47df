"""Recordings that are arrays by name: MATLAB variables and NumPy archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError
from ecgbyte_hf.signal.channels import Channel, make_record, missing_statement
from ecgbyte_hf.signal.records import EcgRecord, Given

#: Names under which a file may hold the signal; where none is there, its only matrix is the signal.
SIGNAL_NAMES = ("signal", "ecg", "data", "val", "p_signal")
RATE_NAMES = ("sampling_rate", "sampling_frequency", "fs")
LEAD_NAMES = ("lead_names", "leads", "sig_name")
UNIT_NAMES = ("units", "unit")


def record_of_arrays(
    path: Path, format: str, arrays: Mapping[str, np.ndarray], leads: Sequence[str] | None, given: Given
) -> EcgRecord:
    """Make a record of the arrays of a file; all but those named above are dropped unread.

    The signal may be (leads, samples) or (samples, leads): the number of lead names tells.
    """
    signal = _signal(path, arrays)
    names = _strings(path, arrays, LEAD_NAMES)
    units = _strings(path, arrays, UNIT_NAMES)
    rate = _rate(path, arrays)
    known = given.lead_names if names is None else names
    if known is None:
        raise missing_statement(
            path,
            rate=rate is None and given.sampling_rate is None,
            names=True,
            units=units is None and given.units is None,
        )
    signal = _leads_by_samples(path, signal, len(known))
    if units is not None and len(units) not in (1, len(known)):
        raise LeadError(f"{path}: got {len(units)} units, expected one, or one for each of {len(known)} leads.")
    per_lead = [None] * len(known) if units is None else units * (len(known) // len(units))
    channels = [
        Channel(name=None if names is None else names[index], unit=per_lead[index], sampling_rate=rate)
        for index in range(len(known))
    ]
    return make_record(path, format, channels, lambda wanted: signal[list(wanted)], leads, given)


def _one_of(path: Path, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    """Return the array of one of these names; None where there is none."""
    found = [key for key in arrays if key.lower() in names]
    if len(found) > 1:
        raise EcgFileError(f"{path}: got {', '.join(sorted(found))}, expected one of them. Leave one in the file.")
    return arrays[found[0]] if found else None


def _signal(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the array that is the signal, as it is stored."""
    signal = _one_of(path, arrays, SIGNAL_NAMES)
    if signal is None:
        matrices = [a for a in arrays.values() if a.ndim == 2 and a.dtype.kind in "fiu" and min(a.shape) > 1]
        if len(matrices) != 1:
            raise EcgFileError(
                f"{path}: got {len(matrices)} matrices of numbers and none named {', '.join(SIGNAL_NAMES)}, expected "
                "one. Save the signal (leads, samples) under one of these names."
            )
        signal = matrices[0]
    if signal.dtype.kind not in "fiu" or signal.ndim not in (1, 2):
        raise EcgFileError(
            f"{path}: got a signal of shape {signal.shape} and type {signal.dtype}, expected real numbers (leads, "
            "samples)."
        )
    return np.atleast_2d(signal)


def _leads_by_samples(path: Path, signal: np.ndarray, num_leads: int) -> np.ndarray:
    """Turn the signal so that the leads are its rows, where their number leaves no doubt."""
    if num_leads not in signal.shape:
        raise LeadError(
            f"{path}: got {num_leads} lead names for a signal of shape {signal.shape}, expected one for each lead: as "
            "many as the signal has rows or columns."
        )
    if signal.shape == (num_leads, num_leads) and num_leads > 1:
        raise LeadError(
            f"{path}: got a signal of shape {signal.shape}, expected more or fewer samples than leads: which of the "
            "axes is time cannot be known."
        )
    return signal if signal.shape[0] == num_leads else signal.T


def _rate(path: Path, arrays: Mapping[str, np.ndarray]) -> float | None:
    """Return the sampling rate that the file states, if it does."""
    array = _one_of(path, arrays, RATE_NAMES)
    if array is None:
        return None
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise SamplingRateError(
            f"{path}: got a sampling rate of shape {array.shape} and type {array.dtype}, expected one number of Hz."
        )
    return float(array.item())


def _strings(path: Path, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str] | None:
    """Return the strings that the file states, if it does."""
    array = _one_of(path, arrays, names)
    if array is None:
        return None
    if array.dtype.kind != "U":
        raise LeadError(f"{path}: got {names[0]} of type {array.dtype}, expected texts.")
    return [str(item).strip() for item in np.ravel(array)]
