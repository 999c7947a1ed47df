"""The cleaned signals of a prepared folder as Parquet files, read a few records at a time.

A corpus does not fit into memory: 20,000 records of 12 x 2500 float32 are 2.4 GB. Row groups are small, so that one
record costs 3 ms to reach, and the last ones read are kept.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Without null values inside a signal, reading is a quarter faster: there is no flag for each sample.
_LEAD = pa.list_(pa.field("element", pa.float32(), nullable=False))
_SIGNAL = pa.list_(pa.field("element", _LEAD, nullable=False))
RECORD_SCHEMA = pa.schema(
    [
        ("ecg_id", pa.int64()),
        ("patient_id", pa.string()),
        ("name", pa.string()),
        ("sampling_rate", pa.float64()),
        ("signal", _SIGNAL),
    ]
)
# Records of 12 x 2500 take 1.9 MB together. Reading one of them reads all: 3 ms; 64 took 12 ms.
ROWS_PER_GROUP = 16
# Signals kept by `RecordFile.signal`, at least one row group.
_CACHE_BYTES = 64 * 2**20
# As many records as one call of the core encodes in `encode_ids`, read while it does so.
_GROUPS_AHEAD = 8
_FOOTER_END = b"PAR1"


class RecordWriter:
    """Writes records, `ROWS_PER_GROUP` at a time.

    Use as a context manager; the file is whole only after it was left without an error.

    Args:
        path: File to write.
    """

    def __init__(self, path: Path) -> None:
        # Samples of real ECGs, cleaned: their four bytes as four streams make 79 % of the plain size, written three
        # times and read a quarter faster than with the default, a dictionary of the values, which makes 101 %.
        self._writer = pq.ParquetWriter(
            path,
            RECORD_SCHEMA,
            compression="zstd",
            use_dictionary=False,
            column_encoding={"signal.list.element.list.element": "BYTE_STREAM_SPLIT"},
        )
        self._rows: list[tuple[int, str | None, str, float, np.ndarray]] = []

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def add(self, ecg_id: int, patient_id: str | None, name: str, sampling_rate: float, signal: np.ndarray) -> None:
        """Add one record; `signal` is float32 (leads, samples) in mV."""
        self._rows.append((ecg_id, patient_id, name, sampling_rate, signal))
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        ecg_ids, patients, names, rates, signals = zip(*self._rows, strict=True)
        samples = np.concatenate([signal.reshape(-1) for signal in signals])
        lead_ends = np.cumsum([0] + [signal.shape[1] for signal in signals for _ in range(signal.shape[0])])
        record_ends = np.cumsum([0] + [signal.shape[0] for signal in signals])
        leads = pa.ListArray.from_arrays(pa.array(lead_ends, pa.int32()), pa.array(samples), type=_LEAD)
        columns = [
            pa.array(ecg_ids, pa.int64()),
            pa.array(patients, pa.string()),
            pa.array(names, pa.string()),
            pa.array(rates, pa.float64()),
            pa.ListArray.from_arrays(pa.array(record_ends, pa.int32()), leads, type=_SIGNAL),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=RECORD_SCHEMA))
        self._rows.clear()


@dataclass(frozen=True)
class _RowGroup:
    """Some records: their samples behind one another, and where leads and records end."""

    samples: np.ndarray
    lead_starts: np.ndarray
    record_starts: np.ndarray

    def signal(self, row: int) -> np.ndarray:
        first, last = self.record_starts[row], self.record_starts[row + 1]
        samples = self.samples[self.lead_starts[first] : self.lead_starts[last]]
        return samples.reshape(last - first, -1)


@dataclass(frozen=True)
class _Part:
    """One file: where it is, its footer, and how it is read."""

    path: Path
    metadata: Any

    def read(self, columns: list[str], group: int | None = None) -> pa.Table:
        try:
            # Opened anew each time, 0.1 ms: hundreds of files need not stay open, and threads share nothing.
            with pq.ParquetFile(self.path, metadata=self.metadata) as file:
                if group is None:
                    return file.read(columns=columns)
                return file.read_row_group(group, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.path, error) from error


class RecordFile:
    """A file of records, or a folder of such files, opened for reading; numbers and patients alone stay in memory.

    Args:
        path: The Parquet file, or a folder with some, which are taken in the order of their names.

    Attributes:
        ecg_ids: Numbers of the records, in the order of the files.
        patients: Their patients by number, where known.
        groups_read: Row groups read so far.

    Raises:
        EcgDataError: a file is missing, damaged or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.groups_read = 0
        places = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        self._parts = [_open_part(place) for place in places]
        if not self._parts:
            raise EcgDataError(f"{path} holds no Parquet file of records; prepare anew")
        self.ecg_ids: list[int] = []
        self.patients: dict[int, str | None] = {}
        for part in self._parts:
            numbers = part.read(["ecg_id", "patient_id"])
            ecg_ids: list[int] = numbers.column("ecg_id").to_pylist()
            self.ecg_ids += ecg_ids
            self.patients.update(zip(ecg_ids, numbers.column("patient_id").to_pylist(), strict=True))
        self._row_of = {ecg_id: row for row, ecg_id in enumerate(self.ecg_ids)}
        self._groups = [(part, group) for part in self._parts for group in range(part.metadata.num_row_groups)]
        sizes = (part.metadata.row_group(group).num_rows for part, group in self._groups)
        self._group_starts = list(accumulate(sizes, initial=0))
        self._cache: OrderedDict[int, _RowGroup] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the files' sizes and footers.

        A footer has size, place, smallest and largest value of every column of every row group: other records have
        another one, and it is read at once, whatever the size of the file.
        """
        digest = hashlib.sha256()
        for part in self._parts:
            digest.update(_size_and_footer(part.path))
        return digest.hexdigest()

    def signal(self, ecg_id: int) -> np.ndarray:
        """The signal of one record: float32 (leads, samples) in mV, read-only.

        Raises:
            EcgDataError: no such record, or the file is damaged there.
        """
        row = self._row(ecg_id)
        group = bisect_right(self._group_starts, row) - 1
        if group in self._cache:
            self._cache.move_to_end(group)
        else:
            self._cache[group] = self._read(group)
            while len(self._cache) > 1 and sum(kept.samples.nbytes for kept in self._cache.values()) > _CACHE_BYTES:
                self._cache.popitem(last=False)
        return self._cache[group].signal(row - self._group_starts[group])

    def iter_signals(self, ecg_ids: Iterable[int] | None = None) -> Generator[tuple[int, np.ndarray], None, None]:
        """Records in the order of the file, whatever the order of `ecg_ids`, each row group read once.

        While the caller works on some, the next are read by another thread: `_GROUPS_AHEAD` row groups, no more.

        Args:
            ecg_ids: Only these; all by default.

        Yields:
            Number and signal, float32 (leads, samples) in mV, read-only.

        Raises:
            EcgDataError: no such record, or the file is damaged.
        """
        rows = range(len(self.ecg_ids)) if ecg_ids is None else sorted({self._row(ecg_id) for ecg_id in ecg_ids})
        wanted = self._by_group(rows)
        with ThreadPoolExecutor(1, thread_name_prefix="records") as reader:
            reads = (reader.submit(self._read, group) for group, _ in wanted)  # submitted when asked for
            ahead: deque[Future[_RowGroup]] = deque(islice(reads, _GROUPS_AHEAD))
            for group, rows_of_group in wanted:
                held = ahead.popleft().result()
                ahead.extend(islice(reads, 1))
                for row in rows_of_group:
                    yield self.ecg_ids[row], held.signal(row - self._group_starts[group])

    def _by_group(self, rows: Sequence[int]) -> list[tuple[int, list[int]]]:
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(bisect_right(self._group_starts, row) - 1, []).append(row)
        return list(groups.items())

    def _row(self, ecg_id: int) -> int:
        if ecg_id not in self._row_of:
            raise EcgDataError(f"{self.path.parent} holds no record {ecg_id}; it has {len(self._row_of)} records")
        return self._row_of[ecg_id]

    def _read(self, group: int) -> _RowGroup:
        part, group_of_part = self._groups[group]
        table = part.read(["signal"], group_of_part)
        self.groups_read += 1
        signals = table.column("signal").combine_chunks()
        leads = signals.values
        return _RowGroup(leads.values.to_numpy(), leads.offsets.to_numpy(), signals.offsets.to_numpy())


def _open_part(path: Path) -> _Part:
    try:
        with pq.ParquetFile(path) as file:
            if _kind_of(file.schema_arrow) != _kind_of(RECORD_SCHEMA):
                raise EcgDataError(f"{path} cannot be read: its columns are not those of records; prepare anew")
            return _Part(path, file.metadata)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _size_and_footer(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        end = file.read()
        length = int.from_bytes(end[:4], "little")
        if end[4:] != _FOOTER_END or length > size - 8:
            raise EcgDataError(f"{path} cannot be read: it was replaced by something else; prepare anew")
        file.seek(size - 8 - length)
        return size.to_bytes(8, "little") + file.read(length)


def _unreadable(path: Path, error: Exception) -> EcgDataError:
    reason = " ".join(str(error).split())  # pyarrow's may have several lines
    return EcgDataError(f"{path} cannot be read: {reason}; prepare anew")


def _kind_of(schema: pa.Schema) -> list[tuple[str, str]]:
    """Names and types; whether null is allowed, and what a list calls its elements, makes no difference."""
    return [(field.name, str(field.type).replace(" not null", "").replace("item:", "element:")) for field in schema]
