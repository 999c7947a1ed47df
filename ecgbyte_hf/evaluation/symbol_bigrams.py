"""How often each symbol follows each other one, and logistic regression on it: the control that knows no order.

Of the quantised signal nothing is left but the counts of neighbouring pairs in each lead, so a model below this has
learnt amplitudes and slopes at most, and no shape that is longer than two samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbyte_hf.models.vocabulary_ecg_byte import ALPHABET

Array = NDArray[np.float32]

#: Inverse strengths of the penalty that are tried where a validation split judges them.
CHOICES_OF_C = (1e-4, 1e-3, 1e-2, 1e-1)
#: Without one.
DEFAULT_C = 1e-3


def bigram_counts(symbols: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts (leads, 26, 26) of each pair of neighbouring symbols, first symbol first, of symbols (leads, samples).

    Example:
        >>> counts = bigram_counts(np.array([[0, 1, 1, 1]], np.uint8))
        >>> int(counts[0, 0, 1]), int(counts[0, 1, 1]), int(counts.sum())
        (1, 2, 3)
    """
    size = len(ALPHABET)
    pairs = symbols[:, :-1].astype(np.int64) * size + symbols[:, 1:]
    pairs += np.arange(len(symbols))[:, None] * size**2
    return np.bincount(pairs.ravel(), minlength=len(symbols) * size**2).reshape(len(symbols), size, size)


def bigram_features(signals: Array, tokenizer: Any) -> Array:
    """Square roots of the bigram counts of signals (records, leads, samples) in mV, (records, leads x 26 x 26).

    The square root makes the spread of a count about the same whether it is large or small.

    Args:
        signals: The signals.
        tokenizer: An `EcgByteTokenizer`, whose calibration quantises.
    """
    import rust_bpe

    features = np.empty((len(signals), signals.shape[1] * len(ALPHABET) ** 2), np.float32)
    for index, signal in enumerate(signals):
        symbols = rust_bpe.quantize(signal, *tokenizer.calibration.bounds(signal), num_symbols=len(ALPHABET))
        features[index] = np.sqrt(bigram_counts(symbols.reshape(signal.shape)).ravel())
    return features
