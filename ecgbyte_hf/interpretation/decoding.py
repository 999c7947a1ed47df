"""What the tokens keep of an ECG: the signal that they stand for, against the one that was encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgbyte_hf.interpretation.figures import ShownSignal, cleaned_signal
from ecgbyte_hf.models.vocabulary_ecg_byte import ALPHABET

if TYPE_CHECKING:
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer


@dataclass(frozen=True)
class Decoding:
    """A cleaned signal, what became of it, and the difference.

    Attributes:
        cleaned: The signal that was encoded.
        decoded: (leads, samples) in mV, at the centres of the bins.
        tokens: How many there are.
        low: Lower end of the bins, mV.
        high: Upper end.
    """

    cleaned: ShownSignal
    decoded: np.ndarray
    tokens: int
    low: float
    high: float

    @property
    def bin_mv(self) -> float:
        """Width of a bin."""
        return (self.high - self.low + 1e-6) / len(ALPHABET)

    @property
    def error(self) -> np.ndarray:
        """Decoded less cleaned, (leads, samples) in mV."""
        return np.asarray(self.decoded - self.cleaned.signal.astype(np.float64))

    @property
    def compression(self) -> float:
        """Samples per token."""
        return self.decoded.size / self.tokens

    def numbers(self) -> dict[str, Any]:
        """The figures of the whole record and of each lead.

        Returns:
            `samples`, `tokens`, `compression` (samples per token), `bin_mv`, `low_mv` and `high_mv`; the largest error
            `max_error_mv` and `max_error_bins`, `mean_error_mv` (absolute), and `clipped`, the samples outside low to
            high, where the error may be more than half a bin; under `by_lead` the last four of each lead.
        """
        by_lead = {lead: self._errors(row) for row, lead in enumerate(self.cleaned.leads)}
        return {
            "samples": int(self.decoded.size),
            "tokens": self.tokens,
            "compression": self.compression,
            "bin_mv": self.bin_mv,
            "low_mv": self.low,
            "high_mv": self.high,
            **self._errors(slice(None)),
            "by_lead": by_lead,
        }

    def _errors(self, rows: int | slice) -> dict[str, Any]:
        error, signal = np.abs(self.error[rows]), self.cleaned.signal[rows]
        return {
            "max_error_mv": float(error.max()),
            "max_error_bins": float(error.max() / self.bin_mv),
            "mean_error_mv": float(error.mean()),
            "clipped": int(np.count_nonzero((signal < self.low) | (signal > self.high))),
        }


def measure_decoding(record: Any, tokenizer: EcgByteTokenizer, *, seconds: float | None = None) -> Decoding:
    """Encode and decode.

    Args:
        record: An `EcgRecord`, which is cleaned as the tokenizer expects, or a cleaned array (leads, samples) in mV.
        tokenizer: The tokenizer.
        seconds: Encode only the beginning.

    Raises:
        EcgError: a record that cannot be cleaned or encoded.
    """
    cleaned = cleaned_signal(record, tokenizer).beginning(seconds)
    low, high = tokenizer.calibration.bounds(cleaned.signal)
    ids = tokenizer.encode_signal(cleaned.signal)
    given = (low, high) if tokenizer.calibration.method == "minmax" else (None, None)
    decoded = tokenizer.decode_signal(ids, low=given[0], high=given[1])
    return Decoding(cleaned, decoded, len(ids), low, high)
