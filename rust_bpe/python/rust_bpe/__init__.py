"""Byte-pair encoding of quantised ECG signals, and the cleaning before it.

>>> import numpy as np, rust_bpe
>>> records = [np.array([0, 1, 0, 1, 2], dtype=np.uint8)]
>>> merges = rust_bpe.train(records, num_merges=1, num_symbols=3)
>>> merges.tolist()
[[0, 1]]
>>> bpe = rust_bpe.Bpe(merges, num_symbols=3)
>>> bpe.encode_greedy(records[0]).tolist()
[3, 3, 2]
"""

from rust_bpe._core import Bpe, __version__, clean, filtfilt, quantize, train

__all__ = ["Bpe", "__version__", "clean", "filtfilt", "quantize", "train"]
