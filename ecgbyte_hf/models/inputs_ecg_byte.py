"""What may be given to an ECG-Byte tokenizer, turned into arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .errors_ecg_byte import SignalError, VocabularyError


def as_ids(ids: Any) -> np.ndarray:
    """`ids` as an int64 array of any shape, or a VocabularyError; a float is no id."""
    array = ids.detach().cpu().numpy() if hasattr(ids, "detach") else np.asarray(ids)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise VocabularyError(f"ids must be integers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def as_signal(item: Any, num_leads: int) -> np.ndarray:
    """`item` as a float32 or float64 array (leads, samples), or a SignalError that says what is wrong.

    NaN and infinity are not looked for: the core refuses them while it quantises, and `check_finite` says how many.
    """
    if hasattr(item, "detach"):  # a torch tensor, without importing torch; numpy has no bfloat16
        item = item.detach().cpu()
        item = item.float() if str(item.dtype) == "torch.bfloat16" else item
        signal = item.numpy()
    elif hasattr(item, "signal"):
        raise SignalError(
            f"expected a cleaned signal of shape ({num_leads}, samples), got a record; clean it with "
            "EcgByteFeatureExtractor.clean(record), or use EcgByteProcessor"
        )
    else:
        try:
            signal = np.asarray(item)
        except ValueError as error:
            raise SignalError(f"expected a signal of shape ({num_leads}, samples): {error}") from error
    if signal.dtype.kind != "f":
        raise SignalError(
            f"a signal must be floating point in mV, got {signal.dtype}; multiply stored integers by their gain"
        )
    if signal.dtype not in (np.float32, np.float64):  # half and long double precision, foreign byte order
        signal = signal.astype(np.float64 if signal.dtype.itemsize >= 8 else np.float32)
    if signal.ndim != 2 or signal.shape[0] != num_leads:
        raise SignalError(
            f"expected a signal of shape ({num_leads}, samples), got {signal.shape}", problems=("shape",)
        )
    return signal


def as_signals(items: Iterable[Any], num_leads: int) -> list[np.ndarray]:
    """`as_signal` of each item; an error names the item by its number."""
    signals = []
    for number, item in enumerate(items):
        with numbered("signal", number):
            signals.append(as_signal(item, num_leads))
    return signals


def check_finite(signal: np.ndarray) -> None:
    """Refuse NaN and infinity with a SignalError that counts them."""
    finite = np.isfinite(signal)
    if not finite.all():
        count = finite.size - int(np.count_nonzero(finite))
        raise SignalError(f"the signal holds {count} samples that are NaN or infinite", problems=("nan",))


@contextmanager
def numbered(what: str, number: int) -> Iterator[None]:
    """Name the item that a SignalError is about."""
    try:
        yield
    except SignalError as error:
        raise SignalError(f"{what} {number} (counted from 0): {error}", error.problems) from error


def as_batch(text: Any) -> tuple[list[Any], bool]:
    """What to encode, one by one, and whether it came as a batch."""
    if isinstance(text, str):
        return [text], False
    if hasattr(text, "ndim"):
        return (list(text), True) if text.ndim == 3 else ([text], False)
    if hasattr(text, "signal"):
        return [text], False
    if isinstance(text, Sequence) and not isinstance(text, (bytes, bytearray)):
        first = text[0] if len(text) else None
        if isinstance(first, (list, tuple)) and not (len(first) and isinstance(first[0], (list, tuple))):
            return [text], False  # a signal as nested lists, as `datasets` returns it without a format
        if not isinstance(first, (bool, int, float)):
            return list(text), True
    raise SignalError(
        f"expected a signal (leads, samples), a batch of signals, or strings of symbols; got {type(text).__name__}"
    )
