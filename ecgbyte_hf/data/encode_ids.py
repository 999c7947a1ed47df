"""Write the ids of every record of a prepared folder, in a job that can be killed and started again.

::

    ids-00000.parquet, ...   ecg_id, input_ids: a folder that `datasets.load_dataset` opens by itself
    encode.json              counts, speed, what the ids were made of
    .encode.partial/         while the job is not finished: job.json and the shards that are whole

Nothing is put where a trainer would read it before everything is there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, read_object, write_json

JOB_FOLDER = ".encode.partial"
REPORT_FILE = "encode.json"
RECORDS_PER_SHARD = 5000
_JOB_FILE = "job.json"
_IDS = pa.list_(pa.field("element", pa.int32(), nullable=False))
_SCHEMA = pa.schema([("ecg_id", pa.int64()), ("input_ids", _IDS)])
# Records that one call of the core encodes: 15 MB of 12 x 2500 float32, and work for many threads.
_BATCH = 128


@dataclass(frozen=True)
class _Shard:
    """A whole shard, and its counts."""

    file: str
    bytes: int
    records: int
    samples: int
    tokens: int


@dataclass
class _Times:
    """Seconds in which the job waited for one thing or another."""

    reading: float = 0.0
    core: float = 0.0
    writing: float = 0.0

    @contextmanager
    def spent(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)

    def to_dict(self, total: float) -> dict[str, float]:
        return {"total": round(total, 3), **{name: round(value, 3) for name, value in asdict(self).items()}}


def encode_records(
    prepared: PreparedData,
    ecg_tokenizer: Any,
    output_dir: str | Path,
    *,
    num_threads: int | None = None,
    records_per_shard: int = RECORDS_PER_SHARD,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the ids of every record, once, in the order of the prepared file.

    Started again after it was killed, the job goes on behind its last whole shard, and the result is the same as
    without the break. It refuses a folder in which a job with another tokenizer, other data or other shards was
    begun or finished.

    Args:
        prepared: The prepared folder.
        ecg_tokenizer: An `EcgByteTokenizer`.
        output_dir: Folder to write.
        num_threads: Threads of the Rust core; `None` for all. The ids do not depend on it.
        records_per_shard: Records in each file.
        overwrite: Begin anew in place of such another job.

    Returns:
        The report: `records`, `samples`, `tokens`, `compression`, `shards`; of this run `resumed_at_record`,
        `records_per_second`, `symbols_per_second` and `seconds` (`total`, and of these the time spent in the `core`,
        waiting for `reading` and for `writing`); `job` and `provenance`. If nothing was left to do, the report of the
        run that did it.

    Raises:
        EcgDataError: the folder holds something else.
        EcgError: the records were not cleaned as the tokenizer expects.
    """
    ecg_tokenizer.check_cleaning(prepared.preprocessor)
    if records_per_shard < 1:
        raise EcgDataError(f"got {records_per_shard} records per shard, expected at least 1")
    job = {
        "tokenizer": ecg_tokenizer.fingerprint,
        "data": prepared.fingerprint,
        "records": len(prepared.ecg_ids),
        "records_per_shard": records_per_shard,
    }
    folder = _JobFolder(Path(output_dir), job)
    finished = folder.open(overwrite)
    if finished is not None:
        return {**finished, "resumed_at_record": finished["records"]}

    done = folder.num_records_done
    times = _Times()
    start = time.perf_counter()
    samples_before = sum(shard.samples for shard in folder.shards)
    _write_shards(folder, prepared, ecg_tokenizer, num_threads, times)
    seconds = time.perf_counter() - start
    counts = {name: sum(getattr(shard, name) for shard in folder.shards) for name in ("records", "samples", "tokens")}
    report = {
        **counts,
        "compression": counts["samples"] / max(counts["tokens"], 1),
        "shards": [asdict(shard) for shard in folder.shards],
        "resumed_at_record": done,
        "records_per_second": round((counts["records"] - done) / seconds, 1),
        "symbols_per_second": round((counts["samples"] - samples_before) / seconds),
        "seconds": times.to_dict(seconds),
        "job": job,
        "provenance": provenance(
            "encode",
            {
                "data": str(prepared.folder),
                "window_seconds": prepared.window_seconds,
                "window_stride": prepared.window_stride,
                "records_per_shard": records_per_shard,
                "num_threads": num_threads,
            },
            data_hash=prepared.report["data_hash"],
            data_source=prepared.report.get("source"),
        ),
    }
    folder.finish(report)
    return report


def refuse_ids(folder: Path) -> None:
    """Raise an `EcgDataError` if a folder holds the ids of records, finished or not: rows would replace them."""
    if (folder / JOB_FOLDER).exists() or "job" in (read_object(folder / REPORT_FILE) or {}):
        raise EcgDataError(f"{folder} holds the ids of records; choose another folder for rows")


@dataclass
class _JobFolder:
    """Where a job's files are, begun or finished."""

    path: Path
    job: dict[str, Any]
    shards: list[_Shard] = field(default_factory=list)

    @property
    def partial(self) -> Path:
        return self.path / JOB_FOLDER

    @property
    def num_records_done(self) -> int:
        return sum(shard.records for shard in self.shards)

    def open(self, overwrite: bool) -> dict[str, Any] | None:
        """Make the folder ready to go on; if this job is finished already, return its report instead."""
        finished = read_object(self.path / REPORT_FILE)
        begun = read_object(self.partial / _JOB_FILE)
        if finished is not None and finished.get("job") == self.job:
            if len(self._whole(finished)) == len(finished["shards"]):
                shutil.rmtree(self.partial, ignore_errors=True)  # killed before it could do so itself
                return finished
        elif finished is None and begun is not None and begun.get("job") == self.job:
            self.shards = self._whole(begun)
            return None
        if finished is not None or begun is not None:
            if not overwrite:
                raise EcgDataError(self._refusal(finished, begun))
            self._clear(REPORT_FILE, "*.parquet" if finished is not None else "ids-*.parquet")
        if stray := sorted(path.name for path in self.path.glob("*.parquet")):
            raise EcgDataError(
                f"{self.path} holds {', '.join(stray)}, which `ecgbyte encode` did not write; a trainer would read it "
                "as ids too. Choose another folder"
            )
        self.partial.mkdir(parents=True, exist_ok=True)
        self._save()
        return None

    def add(self, shard: _Shard) -> None:
        """Take note of a shard that is whole."""
        self.shards.append(shard)
        self._save()

    def finish(self, report: dict[str, Any]) -> None:
        """Put all shards in place; the report comes last."""
        for shard in self.shards:
            if (self.partial / shard.file).exists():  # else put in place before the job was killed
                (self.partial / shard.file).replace(self.path / shard.file)
        write_json(self.path / REPORT_FILE, report)
        shutil.rmtree(self.partial)

    def _save(self) -> None:
        shards = [asdict(shard) for shard in self.shards]
        write_json(self.partial / _JOB_FILE, {"job": self.job, "shards": shards})

    def _whole(self, stored: dict[str, Any]) -> list[_Shard]:
        """The first shards that are there, of the size that was noted."""
        whole = []
        for shard in (_Shard(**entry) for entry in stored["shards"]):
            places = (self.path / shard.file, self.partial / shard.file)
            if not any(place.is_file() and place.stat().st_size == shard.bytes for place in places):
                break
            whole.append(shard)
        return whole

    def _refusal(self, finished: dict[str, Any] | None, begun: dict[str, Any] | None) -> str:
        stored = (finished or begun or {}).get("job")
        if stored is None:
            what = "rows for a language model"
        elif stored == self.job:
            what = f"not all the files that its {REPORT_FILE} names, or changed ones"
        else:
            differing = [name for name, value in self.job.items() if stored.get(name) != value]
            state = "a finished job" if finished is not None else "a job that was begun"
            what = f"{state} with other {', '.join(differing)}"
        return f"{self.path} holds {what}; choose another folder, or begin anew in this one with --overwrite"

    def _clear(self, *patterns: str) -> None:
        for pattern in patterns:  # the report first: without it nothing looks whole
            for path in self.path.glob(pattern):
                path.unlink()
        shutil.rmtree(self.partial, ignore_errors=True)


def _write_shards(
    folder: _JobFolder, prepared: PreparedData, ecg_tokenizer: Any, num_threads: int | None, times: _Times
) -> None:
    from tqdm.auto import tqdm

    total, per_shard = folder.job["records"], folder.job["records_per_shard"]
    done = folder.num_records_done
    signals = prepared.iter_signals(prepared.ecg_ids[done:])
    with closing(signals), tqdm(total=total, initial=done, desc="encode", unit="record") as bar:
        start, samples = time.perf_counter(), 0
        for first in range(done, total, per_shard):
            path = folder.partial / f"ids-{first // per_shard:05d}.parquet"
            ahead = islice(signals, min(per_shard, total - first))
            counts = {"records": 0, "samples": 0, "tokens": 0}
            with _ShardWriter(path, times) as writer:
                while batch := _next_batch(ahead, times):
                    ecg_ids, arrays = zip(*batch, strict=True)
                    with times.spent("core"):
                        ids = ecg_tokenizer.encode_signal_batch(arrays, num_threads=num_threads)
                    writer.write(ecg_ids, ids)
                    counts["records"] += len(ids)
                    counts["samples"] += sum(signal.size for signal in arrays)
                    counts["tokens"] += sum(map(len, ids))
                    samples += sum(signal.size for signal in arrays)
                    speed = samples / (time.perf_counter() - start)
                    bar.set_postfix_str(f"{speed / 1e6:.0f} M symbols/s", refresh=False)
                    bar.update(len(ids))
            folder.add(_Shard(path.name, path.stat().st_size, **counts))


def _next_batch(signals: Iterator[tuple[int, np.ndarray]], times: _Times) -> list[tuple[int, np.ndarray]]:
    with times.spent("reading"):
        return list(islice(signals, _BATCH))


class _ShardWriter:
    """Writes one shard beside its place, in a thread of its own while the next ids are made; then renames it."""

    def __init__(self, path: Path, times: _Times) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.partial")
        self._times = times
        self._writer = pq.ParquetWriter(self._beside, _SCHEMA, compression="zstd")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ids")
        self._written: Future[None] | None = None

    def write(self, ecg_ids: Sequence[int], ids: Sequence[np.ndarray]) -> None:
        with self._times.spent("writing"):
            stops = np.cumsum([0, *map(len, ids)], dtype=np.int32)
            values = np.concatenate(ids).view(np.int32)  # ids are far below 2**31
            column = pa.ListArray.from_arrays(pa.array(stops), pa.array(values), type=_IDS)
            table = pa.Table.from_arrays([pa.array(ecg_ids, pa.int64()), column], schema=_SCHEMA)
            self._wait()
            self._written = self._thread.submit(self._writer.write_table, table)

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def __enter__(self) -> _ShardWriter:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with self._times.spent("writing"):
            try:
                if error is None:
                    self._wait()
            finally:
                self._thread.shutdown()
                self._writer.close()
            if error is None:
                self._beside.replace(self._path)
