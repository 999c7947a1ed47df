"""What the builders share: errors that come out as ours, files that decide about the cache, and units of work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import datasets
from datasets.exceptions import DatasetGenerationError

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError

T = TypeVar("T")


@dataclass
class EcgBuilderConfig(datasets.BuilderConfig):
    """Configuration of a data set that is read from downloaded files.

    Attributes:
        fingerprint: Hash of the source files; part of the cache's name.
    """

    version: datasets.Version = datasets.Version("1.0.0")
    fingerprint: str = ""

    def root(self) -> Path:
        """The folder with the downloaded files.

        Raises:
            EcgDataError: none was named, or it is not there.
        """
        if not self.data_dir:
            raise EcgDataError(f"{self.name}: needs data_dir=..., the folder with the downloaded files")
        if not Path(self.data_dir).is_dir():
            raise EcgDataError(f"{self.data_dir} is no folder; name the one with the downloaded files as data_dir")
        return Path(self.data_dir)

    def source_files(self) -> Iterable[str | Path]:
        """The files that the rows depend on: where one comes, goes or changes, the cache is built anew."""
        raise NotImplementedError


class CarriedError(DatasetGenerationError):
    """Brings an error of ours out of a process that builds a part: there, `datasets` loses the cause of its own."""

    def __init__(self, message: str, error: EcgError) -> None:
        super().__init__(message, error)
        self.error = error


class EcgDatasetBuilder(datasets.GeneratorBasedBuilder):
    """Base of the builders that read downloaded files."""

    def _prepare_split_single(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except DatasetGenerationError as wrapped:
            error = own_error(wrapped)
            if error is None:
                raise
            raise CarriedError(str(error), error) from error


def own_error(error: BaseException | None) -> EcgError | None:
    """Our own error, if that is what `datasets` wraps.

    Example:
        >>> own_error(ValueError("not ours")) is None
        True
    """
    while error is not None:
        if isinstance(error, EcgError):
            return error
        if isinstance(error, CarriedError):
            return error.error
        error = error.__cause__
    return None


def shards_of(rows: Sequence[T], size: int) -> list[Sequence[T]]:
    """Rows in units of at most `size`, which `datasets` gives out to processes and to readers of a stream.

    Example:
        >>> shards_of([1, 2, 3, 4, 5], 2)
        [[1, 2], [3, 4], [5]]
    """
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def split_generators(rows_of_split: dict[str, Any], size: int) -> list[datasets.SplitGenerator]:
    """One generator for every split that has rows, which are given to `_generate_examples` as `shards`."""
    return [
        datasets.SplitGenerator(name=split, gen_kwargs={"shards": shards_of(rows_of_split[split], size)})
        for split in ("train", "validation", "test")
        if len(rows_of_split.get(split, ())) > 0
    ]
