"""What the package `rust_bpe` exports."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Numbers: TypeAlias = Sequence[float] | NDArray[np.float64]

__version__: str
__all__ = ["Bpe", "__version__", "clean", "filtfilt", "quantize", "train"]

def train(
    records: Iterable[NDArray[np.uint8]],
    num_merges: int,
    *,
    num_symbols: int = 26,
    max_token_length: int | None = None,
    num_threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> NDArray[np.uint32]: ...
def quantize(
    signal: NDArray[np.float32] | NDArray[np.float64], low: float, high: float, *, num_symbols: int = 26
) -> NDArray[np.uint8]: ...
def filtfilt(
    signal: NDArray[np.float32] | NDArray[np.float64],
    b: _Numbers,
    a: _Numbers,
    zi: _Numbers,
    padding: int,
) -> NDArray[np.float64]: ...
def clean(
    signal: NDArray[np.float32] | NDArray[np.float64],
    filters: Sequence[tuple[Sequence[tuple[_Numbers, _Numbers, _Numbers]], int]],
    *,
    wavelet: _Numbers | None = None,
    levels: int = 4,
    num_samples: int | None = None,
) -> NDArray[np.float64]: ...

@final
class Bpe:
    def __new__(cls, merges: ArrayLike, num_symbols: int = 26) -> Bpe: ...
    def __getnewargs__(self) -> tuple[NDArray[np.uint32], int]: ...
    @property
    def num_symbols(self) -> int: ...
    @property
    def num_merges(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def merges(self) -> NDArray[np.uint32]: ...
    @property
    def token_lengths(self) -> NDArray[np.uint32]: ...
    def token(self, id: int) -> NDArray[np.uint8]: ...
    def encode_greedy(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint32]: ...
    def encode_bpe(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint32]: ...
    def encode_greedy_batch(
        self, sequences: Iterable[NDArray[np.uint8]], *, num_threads: int | None = None
    ) -> list[NDArray[np.uint32]]: ...
    def encode_bpe_batch(
        self, sequences: Iterable[NDArray[np.uint8]], *, num_threads: int | None = None
    ) -> list[NDArray[np.uint32]]: ...
    def decode(self, ids: ArrayLike) -> NDArray[np.uint8]: ...
    def spans(self, ids: ArrayLike) -> NDArray[np.int64]: ...
    def encode_signal(
        self,
        signal: NDArray[np.float32] | NDArray[np.float64],
        low: float,
        high: float,
        *,
        algorithm: Literal["greedy", "bpe"] = "greedy",
        lead_boundary: Literal["cross", "split"] = "cross",
    ) -> NDArray[np.uint32]: ...
    def encode_signal_batch(
        self,
        signals: Iterable[NDArray[np.float32] | NDArray[np.float64]],
        low: float | Sequence[float] | NDArray[Any],
        high: float | Sequence[float] | NDArray[Any],
        *,
        algorithm: Literal["greedy", "bpe"] = "greedy",
        lead_boundary: Literal["cross", "split"] = "cross",
        num_threads: int | None = None,
    ) -> list[NDArray[np.uint32]]: ...
