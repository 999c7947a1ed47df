"""What the Parquet files of a data set hold, for the header of its card: configurations, splits, columns."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# `train.parquet`, `train-00000-of-00002.parquet`, `part-00000.parquet`
_FILE_NAME = re.compile(r"(\w+?)(?:-\d+(?:-of-\d+)?)?\.parquet")
# Folders that are no configuration of their own.
_DEFAULT_FOLDERS = ("", "data")
#: Folders of a prepared data set whose files are all of one split, which is named like them.
_ONE_SPLIT = ("records",)
#: Shown first where there are several configurations.
_FIRST_CONFIG = "questions"
_BLOCK = 1 << 20
_QUESTION_COLUMNS = {"question", "prompt", "messages", "labels", "questions"}


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        config: The configuration, `default` where there is one only.
        name: The split.
        paths: The files, relative to the data set's folder.
        rows: Rows of all of them.
        stored_bytes: Their size on disk.
        plain_bytes: Their size unpacked, as their footers say it.
        schema: Their Arrow schema.
        sha256: Of the files one behind another; of a single one it is what the Hub shows.
    """

    config: str
    name: str
    paths: tuple[str, ...]
    rows: int
    stored_bytes: int
    plain_bytes: int
    schema: Any
    sha256: str


@dataclass(frozen=True)
class DataSetFiles:
    """The splits of a data set, in the order of their configurations."""

    splits: tuple[SplitFiles, ...]

    @property
    def config_names(self) -> list[str]:
        """The configurations, the first one that is loaded by default."""
        return list(dict.fromkeys(split.config for split in self.splits))

    @property
    def has_questions(self) -> bool:
        """Whether rows hold questions and answers."""
        return any(_QUESTION_COLUMNS & set(split.schema.names) for split in self.splits)

    @property
    def size_category(self) -> str:
        """The Hub's category of the number of rows of the first configuration."""
        rows = sum(split.rows for split in self.splits if split.config == self.config_names[0])
        steps = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
        above = sum(rows >= 1000 * 10**power for power in range(len(steps)))
        if above == 0:
            return "n<1K"
        return f"{steps[above - 1]}<n<{steps[above]}" if above < len(steps) else "n>1T"

    def configs(self) -> list[dict[str, Any]]:
        """The header's `configs`: which files are which split."""
        made: list[dict[str, Any]] = []
        for name in self.config_names:
            files = [{"split": one.name, "path": list(one.paths)} for one in self._of(name)]
            made.append({"config_name": name, "data_files": files})
        if len(made) > 1:
            made[0]["default"] = True
        return made

    def dataset_info(self) -> list[dict[str, Any]]:
        """The header's `dataset_info`: columns, rows and bytes of each configuration.

        Raises:
            EcgDataError: files of one configuration have other columns than one another.
        """
        from datasets import Features

        made = []
        for name in self.config_names:
            parts = self._of(name)
            if any(not part.schema.equals(parts[0].schema) for part in parts):
                raise EcgDataError(f"the splits of {name!r} have different columns; write them by one command")
            try:
                features = Features.from_arrow_schema(parts[0].schema)._to_yaml_list()
            except (ValueError, TypeError, NotImplementedError) as error:
                raise EcgDataError(
                    f"{name!r} has a column that `datasets` does not read ({' '.join(str(error).split())}); write it "
                    "as text, numbers, lists or structures"
                ) from error
            made.append(
                {
                    "config_name": name,
                    "features": features,
                    "splits": [
                        {"name": part.name, "num_bytes": part.plain_bytes, "num_examples": part.rows} for part in parts
                    ],
                    "download_size": sum(part.stored_bytes for part in parts),
                    "dataset_size": sum(part.plain_bytes for part in parts),
                }
            )
        return made

    def _of(self, config: str) -> list[SplitFiles]:
        return [split for split in self.splits if split.config == config]


def data_set_files(folder: str | Path) -> DataSetFiles:
    """The Parquet files of a folder as configurations and splits.

    `questions/train.parquet` is the split `train` of `questions`; `train.parquet` and
    `data/train-00000-of-00002.parquet` are of the only configuration; all files of `records/` are one split.

    Raises:
        EcgDataError: there are none, one cannot be read, or its name is no split's.
    """
    folder = Path(folder)
    by_split: dict[tuple[str, str], list[Path]] = {}
    for place in sorted(folder.rglob("*.parquet")):
        inner = place.relative_to(folder)
        if any(part.startswith((".", "checkpoint-")) for part in inner.parts):
            continue  # of a job that was broken off
        by_split.setdefault(_config_and_split(inner), []).append(place)
    if not by_split:
        raise EcgDataError(f"{folder} holds no Parquet file; expected rows of `ecgbyte encode` or `ecgbyte prepare`")
    order = sorted(by_split, key=lambda key: (key[0] != _FIRST_CONFIG, key[0], _place(key[1]), key[1]))
    return DataSetFiles(tuple(_split_files(folder, *key, by_split[key]) for key in order))


def _place(split: str) -> int:
    known = ("train", "validation", "valid", "test")
    return known.index(split) if split in known else len(known)


def _config_and_split(inner: Path) -> tuple[str, str]:
    match = _FILE_NAME.fullmatch(inner.name)
    if match is None:
        raise EcgDataError(f"{inner}: expected a split's name, such as train.parquet or train-00000-of-00002.parquet")
    place = inner.parent.as_posix().removeprefix(".")
    if place in _ONE_SPLIT:
        return place, place
    if place not in _DEFAULT_FOLDERS:
        return place.replace("/", "-"), match[1]
    # A prepared folder's table of records, which has columns of its own.
    return ("metadata" if inner.name == "metadata.parquet" else "default"), match[1]


def _split_files(folder: Path, config: str, name: str, places: Iterable[Path]) -> SplitFiles:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = stored = plain = 0
    paths, schemas = [], []
    digest = hashlib.sha256()
    for place in places:
        try:
            footer = pq.read_metadata(place)
            schemas.append(footer.schema.to_arrow_schema().remove_metadata())
        except (OSError, pa.ArrowException) as error:
            raise EcgDataError(f"{place}: not Parquet, or damaged ({type(error).__name__}); write it anew") from error
        rows += footer.num_rows
        stored += place.stat().st_size
        plain += sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
        paths.append(place.relative_to(folder).as_posix())
        with place.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    if any(not schema.equals(schemas[0]) for schema in schemas):
        raise EcgDataError(f"the files of split {name!r} have different columns: {', '.join(paths)}; write them anew")
    return SplitFiles(config, name, tuple(paths), rows, stored, plain, schemas[0], digest.hexdigest())
