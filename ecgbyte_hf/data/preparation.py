"""Read, clean and store every record once, in a job that can be killed and started again.

The prepared folder that comes out is described in `prepared.py`. Until it is whole, everything lies in
`.prepare.partial/` of it::

    job.json                 what the job is made of: a job of something else does not go on with it
    sources.parquet          number, file and patient of every record
    questions/<split>.parquet  all questions, those without a record too
    part-00000.parquet, part-00000.json   records that are done, and what became of each: the .json comes last

A part depends on its own sources alone, so parts can be made in any order, by several processes and machines.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.data.prepared import REPORT_FILE, PreparedData
from ecgbyte_hf.data.questions import ecg_ids_of, question_table, rows_hash, rows_of
from ecgbyte_hf.data.record_file import RecordWriter
from ecgbyte_hf.data.record_metadata import METADATA_FILE, metadata_table, read_metadata
from ecgbyte_hf.data.splits import overlap_report
from ecgbyte_hf.data.workers import in_order, worker_pool
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError
from ecgbyte_hf.provenance import provenance, read_object, versions, write_json

logger = logging.getLogger(__name__)

JOB_FOLDER = ".prepare.partial"
#: Records of 12 x 2500 in one file: 190 MB; PTB-XL gives 11 files, MIMIC-IV-ECG 391.
RECORDS_PER_PART = 2048
# Records that one process cleans at a time.
_CHUNK = 16
# While another job's work is being removed.
_CLEARING = ".prepare.clearing"
#: What writes the parts of a job.
Engine = Callable[["PrepareJob"], None]
_SOURCE_SCHEMA = pa.schema([("ecg_id", pa.int64()), ("path", pa.string()), ("patient_id", pa.string())])


@dataclass(frozen=True)
class RecordSource:
    """Where one record comes from.

    Attributes:
        ecg_id: Its number, which questions refer to.
        path: File that `read_ecg` opens, or `None` when `signal` is given.
        patient_id: Its patient, if known.
        signal: Samples (leads, samples) in mV instead of a file, with `sampling_rate` and `lead_names`.
        sampling_rate: Hz of `signal`.
        lead_names: Rows of `signal`.
    """

    ecg_id: int
    path: str | None = None
    patient_id: str | None = None
    signal: np.ndarray | None = field(default=None, repr=False)
    sampling_rate: float | None = None
    lead_names: Sequence[str] = ()

    @property
    def name(self) -> str:
        """For messages and the report."""
        return self.path or f"record {self.ecg_id}"

    def load(self) -> Any:
        """The record, as `clean` of a feature extractor takes it.

        Raises:
            EcgError: the file cannot be read.
        """
        from ecgbyte_hf.signal.records import read_ecg

        if self.path is not None:
            return read_ecg(self.path)
        return SimpleNamespace(
            signal=self.signal, sampling_rate=self.sampling_rate, lead_names=self.lead_names, name=self.name
        )

    def identity(self) -> list[Any]:
        """What tells this record from another one: for a file its size and time too, so that a changed one is seen."""
        if self.path is not None:
            return [self.ecg_id, self.patient_id, self.path, _stamps(Path(self.path))]
        content = hashlib.sha256(np.ascontiguousarray(self.signal).tobytes()).hexdigest()
        return [self.ecg_id, self.patient_id, content, str(self.sampling_rate), list(self.lead_names)]


def _stamps(path: Path) -> list[list[int]]:
    """Size and time of a recording's files; those of WFDB stand beside one another."""
    places = (path, *(path.with_name(path.name + ending) for ending in (".hea", ".dat", ".mat")))
    stamps = []
    for place in places:
        try:
            stat = place.stat()
        except OSError:  # absent: reading it will say so
            continue
        stamps.append([stat.st_size, stat.st_mtime_ns])
    return stamps


class PrepareOptions(TypedDict, total=False):
    """Options of `prepare` that no data set changes."""

    num_proc: int
    records_per_part: int
    overwrite: bool
    engine: Engine | None


@dataclass(frozen=True)
class _Refusal:
    """A record that could not be used."""

    ecg_id: int
    record: str
    error: str
    reason: str


@dataclass(frozen=True)
class _Part:
    """What became of the sources of one file, and for which job it was made."""

    job: str
    bytes: int
    records: int
    cut_in_time: int
    refused: list[_Refusal]

    @classmethod
    def load(cls, path: Path) -> _Part | None:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**stored, "refused": [_Refusal(**entry) for entry in stored["refused"]]})
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # absent, or cut short by a full disk: made again
            return None


def prepare(
    sources: Iterable[RecordSource],
    questions: Mapping[str, list[dict[str, Any]] | pa.Table],
    output_dir: str | Path,
    *,
    feature_extractor: Any,
    template_options: Mapping[int, list[str]],
    duration: float,
    arguments: dict[str, Any],
    notes: Mapping[str, Any] | None = None,
    metadata: Mapping[int, Mapping[str, Any]] | None = None,
    **options: Unpack[PrepareOptions],
) -> PreparedData:
    """Read, clean and store every record once, and the questions whose records could all be used.

    A record that is refused is a line in the report, with the reason; the job goes on. Started again after it was
    killed, it goes on behind the last whole part, and the folder is the same, byte for byte, as without the break.

    Args:
        sources: Records to read.
        questions: Rows by split, as dictionaries or as a table of `QUESTION_FEATURES`.
        output_dir: Folder to write.
        feature_extractor: Cleans the records; saved with them.
        template_options: Valid answers by template.
        duration: Seconds kept of each record; the rest is counted, shorter records are refused.
        arguments: For the report.
        notes: Further entries of the report.
        metadata: What is known of records besides their signal; see `record_metadata.FIELDS`.
        options: `num_proc`: processes; the result does not depend on it. `records_per_part`: sources of each file of
            records. `overwrite`: begin anew in place of another job. `engine`: writes the parts in its own way,
            such as on several machines (`cluster.py`).

    Raises:
        EcgDataError: no record at all could be used, one comes twice, the folder holds another job's work, or the
            duration is not positive.
    """
    num_proc = options.get("num_proc", 1)
    if num_proc < 1:
        raise EcgDataError(f"got {num_proc} processes, expected at least 1")
    job = PrepareJob.plan(
        sources,
        questions,
        output_dir,
        feature_extractor=feature_extractor,
        template_options=template_options,
        duration=duration,
        arguments=arguments,
        notes=notes,
        metadata=metadata,
        records_per_part=options.get("records_per_part", RECORDS_PER_PART),
        overwrite=options.get("overwrite", False),
    )
    if not job.is_finished:
        engine = options.get("engine")
        if engine is None:
            job.write_parts(range(job.num_parts), num_proc=num_proc)
        else:
            engine(job)
        job.finish()
    return PreparedData(output_dir)


class PrepareJob:
    """A job that was planned: its parts can be written in any order, then it is finished.

    Args:
        folder: The folder that is prepared.
        sources: All its records.
        settings: What `job.json` holds.
    """

    def __init__(self, folder: Path, sources: Sequence[RecordSource], settings: dict[str, Any]) -> None:
        from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

        self.folder = folder
        self.sources = sources
        self.settings = settings
        self.feature_extractor = cast(
            EcgByteFeatureExtractor, EcgByteFeatureExtractor.from_dict(settings["preprocessor"])
        )

    @classmethod
    def plan(
        cls,
        sources: Iterable[RecordSource],
        questions: Mapping[str, list[dict[str, Any]] | pa.Table],
        output_dir: str | Path,
        *,
        feature_extractor: Any,
        template_options: Mapping[int, list[str]],
        duration: float,
        arguments: dict[str, Any],
        notes: Mapping[str, Any] | None = None,
        metadata: Mapping[int, Mapping[str, Any]] | None = None,
        records_per_part: int = RECORDS_PER_PART,
        overwrite: bool = False,
    ) -> PrepareJob:
        """Write down what is to be done, or find that it was begun; see `prepare` for arguments and errors."""
        if not 0.0 < duration < math.inf or records_per_part < 1:
            raise EcgDataError(
                f"got {duration:g} s and {records_per_part} records per part, expected more than 0 s and at least 1"
            )
        listed = list(sources)
        if not listed:
            raise EcgDataError("got no record to prepare, expected at least one")
        counts = Counter(source.ecg_id for source in listed)
        if len(counts) < len(listed):
            twice = next(ecg_id for ecg_id, count in counts.items() if count > 1)
            raise EcgDataError(f"record {twice} comes twice; every record needs its own number")
        tables = {split: question_table(rows) for split, rows in questions.items()}
        facts = metadata_table(metadata or {}, (source.ecg_id for source in listed))
        installed = versions()
        settings = {
            "records": len(listed),
            "sources": _hash_of(source.identity() for source in listed),
            "questions": {split: rows_hash(rows_of(table)) for split, table in tables.items()},
            "template_options": {str(key): list(value) for key, value in template_options.items()},
            "preprocessor": _plain(feature_extractor.to_dict()),
            "duration_seconds": duration,
            "records_per_part": records_per_part,
            "arguments": _plain(arguments),
            "notes": _plain(dict(notes or {})),
            "metadata": _hash_of(rows_of(facts)) if facts.num_rows else None,
            # Another version may clean in another way: half a folder of each would be neither.
            "versions": {name: installed[name] for name in ("ecgbyte-hf", "ecgbyte-rust-bpe")},
        }
        job = cls(Path(output_dir), listed, settings)
        job._begin(overwrite, tables, facts)
        return job

    @classmethod
    def load(cls, output_dir: str | Path) -> PrepareJob:
        """A job that was planned by another process, perhaps on another machine with the same file system.

        Raises:
            EcgDataError: there is none, or its records are no files.
        """
        folder = Path(output_dir)
        settings = read_object(folder / JOB_FOLDER / "job.json")
        table = folder / JOB_FOLDER / "sources.parquet"
        if settings is None or not table.is_file():
            raise EcgDataError(f"{folder} holds no job that was planned on files; plan it with `ecgbyte prepare`")
        sources = [RecordSource(**row) for row in pq.read_table(table).to_pylist()]
        return cls(folder, sources, settings)

    @property
    def num_parts(self) -> int:
        """Files of records that the job makes."""
        return -(-len(self.sources) // self._per_part)

    @property
    def is_finished(self) -> bool:
        """Whether the folder is whole, made by this very job."""
        report = read_object(self.folder / REPORT_FILE)
        return report is not None and report.get("job") == self._identity and self._all_there(report)

    @property
    def is_on_files(self) -> bool:
        """Whether another process can load the job: all its records are files."""
        return all(source.path is not None for source in self.sources)

    def num_parts_done(self) -> int:
        """Parts that are whole, whoever wrote them."""
        return sum(self._part(index) is not None for index in range(self.num_parts))

    def write_parts(self, indices: Iterable[int], *, num_proc: int = 1) -> None:
        """Write those of these parts that are not there yet.

        Args:
            indices: Numbers of parts, 0 to `num_parts` - 1.
            num_proc: Processes, at least 1.

        Raises:
            EcgDataError: a process was killed.
        """
        from tqdm.auto import tqdm

        indices = list(indices)
        waiting = [index for index in indices if self._part(index) is None]
        total = sum(len(self._sources_of(index)) for index in indices)
        left = [source for index in waiting for source in self._sources_of(index)]
        clean = partial(_clean_one, self.feature_extractor, float(self.settings["duration_seconds"]))
        with (
            closing(_cleaned(left, clean, num_proc)) as cleaned,
            tqdm(total=total, initial=total - len(left), desc="records", unit="record") as bar,
        ):
            for index in waiting:
                self._write_part(index, cleaned, bar.update)

    def finish(self) -> PreparedData:
        """Put everything in place; the report comes last.

        Raises:
            EcgDataError: a part is missing, or no record at all could be used.
        """
        parts = [self._part(index) for index in range(self.num_parts)]
        if missing := [index for index, part in enumerate(parts) if part is None]:
            raise EcgDataError(f"{len(missing)} of {len(parts)} parts are not there yet, the first is {missing[0]}")
        made = cast("list[_Part]", parts)
        refused = [refusal for part in made for refusal in part.refused]
        if sum(part.records for part in made) == 0:
            reasons = dict(Counter(refusal.error for refusal in refused))
            shutil.rmtree(self._partial)  # nothing that another try could go on with
            raise EcgDataError(
                f"no record could be used; {len(refused)} were refused: {reasons}. The first: {refused[0].reason}"
            )
        unusable = {refusal.ecg_id for refusal in refused}
        patients = {one.ecg_id: one.patient_id for one in self.sources if one.ecg_id not in unusable}
        usable, num_dropped = self._usable_questions(patients)
        report = self._report(made, refused, patients, usable, num_dropped)
        self._put_in_place(usable, patients)
        write_json(self.folder / REPORT_FILE, report)
        shutil.rmtree(self._partial)
        if refused:
            logger.warning("%d records were refused; the reasons are in %s", len(refused), REPORT_FILE)
        if any(num_dropped.values()):
            count = sum(num_dropped.values())
            logger.warning("%d questions were left out since a record of theirs is not there", count)
        return PreparedData(self.folder)

    @property
    def _partial(self) -> Path:
        return self.folder / JOB_FOLDER

    @property
    def _per_part(self) -> int:
        return int(self.settings["records_per_part"])

    @cached_property
    def _identity(self) -> str:
        return _hash_of([self.settings])

    def _begin(self, overwrite: bool, tables: Mapping[str, pa.Table], facts: pa.Table) -> None:
        if self.is_finished:
            shutil.rmtree(self._partial, ignore_errors=True)  # killed before it could do so itself
            return
        finished, begun = (read_object(path) for path in (self.folder / REPORT_FILE, self._partial / "job.json"))
        is_clearing = (self.folder / _CLEARING).exists()
        if finished is None and begun == self.settings and not is_clearing:
            return
        if finished is not None or begun is not None or is_clearing:
            if not overwrite:
                raise EcgDataError(self._refusal(finished, begun))
            self._clear()
        elif (self.folder / "records").exists() or (self.folder / "questions").exists():
            raise EcgDataError(f"{self.folder} holds records/ or questions/ of something else; choose another folder")
        partial_dir = self._partial
        shutil.rmtree(partial_dir, ignore_errors=True)  # of a plan that was broken off
        (partial_dir / "questions").mkdir(parents=True, exist_ok=True)
        for split, table in tables.items():
            _write_table(table, partial_dir / "questions" / f"{split}.parquet")
        if facts.num_rows:
            _write_table(facts, partial_dir / METADATA_FILE)
        if self.is_on_files:
            columns = {name: [getattr(one, name) for one in self.sources] for name in _SOURCE_SCHEMA.names}
            _write_table(pa.table(columns, schema=_SOURCE_SCHEMA), partial_dir / "sources.parquet")
        write_json(partial_dir / "job.json", self.settings)  # last: without it nothing was begun

    def _refusal(self, finished: dict[str, Any] | None, begun: dict[str, Any] | None) -> str:
        if (self.folder / _CLEARING).exists():
            what = "a job that was being removed"
        elif begun is not None and finished is None:
            differing = ", ".join(key for key, value in self.settings.items() if begun.get(key) != value)
            what = f"a job that was begun with other {differing}"
        elif finished is not None and finished.get("job") == self._identity:
            what = f"not all the files that its {REPORT_FILE} names, or changed ones"
        else:
            what = "what another job prepared: other arguments, or files that have changed since"
        return f"{self.folder} holds {what}; choose another folder, or begin anew in this one with --overwrite"

    def _clear(self) -> None:
        """Remove another job's work; killed in between, the same command goes on with it."""
        (self.folder / _CLEARING).touch()
        (self.folder / REPORT_FILE).unlink(missing_ok=True)  # first: without it nothing looks whole
        (self.folder / METADATA_FILE).unlink(missing_ok=True)
        for name in (JOB_FOLDER, "records", "questions"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / _CLEARING).unlink()

    def _sources_of(self, index: int) -> Sequence[RecordSource]:
        return self.sources[index * self._per_part : (index + 1) * self._per_part]

    def _part(self, index: int) -> _Part | None:
        """What is known of a part, if it is whole."""
        part = _Part.load(self._partial / f"{_part_name(index)}.json")
        name = f"{_part_name(index)}.parquet"
        places = (self._partial / name, self.folder / "records" / name)
        if part is None or part.job != self._identity or all(_size_of(place) != part.bytes for place in places):
            return None
        return part

    def _write_part(self, index: int, cleaned: Iterator[_Cleaned], advance: Callable[[int], Any]) -> None:
        path = self._partial / f"{_part_name(index)}.parquet"
        # A name of its own: the same part may be written twice at a time where a task was taken for dead.
        beside = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
        refused: list[_Refusal] = []
        num_records = num_cut = 0
        with RecordWriter(beside) as writer:
            for item in islice(cleaned, len(self._sources_of(index))):
                advance(1)
                if item.refusal is not None:
                    refused.append(item.refusal)
                    continue
                num_records += 1
                num_cut += item.was_cut
                name = Path(item.source.name).name
                rate = float(self.feature_extractor.sampling_rate)
                writer.add(item.source.ecg_id, item.source.patient_id, name, rate, cast(np.ndarray, item.signal))
        try:
            part = _Part(self._identity, beside.stat().st_size, num_records, num_cut, refused)
            beside.replace(path)
        except FileNotFoundError as error:
            raise EcgDataError(
                f"{beside} is gone: another process works in {self.folder} too, or has finished it; start this again "
                "when it has ended"
            ) from error
        write_json(path.with_suffix(".json"), asdict(part))

    def _usable_questions(self, patients: Mapping[int, str | None]) -> tuple[dict[str, pa.Table], dict[str, int]]:
        """Questions by split whose records are all there, and the number of the others."""
        usable, num_dropped = {}, {}
        for split in self.settings["questions"]:
            table = pq.read_table(self._partial / "questions" / f"{split}.parquet")
            usable[split] = table.filter(pa.array(_all_known(table, patients)))
            num_dropped[split] = table.num_rows - usable[split].num_rows
        return usable, num_dropped

    def _report(
        self,
        parts: Sequence[_Part],
        refused: Sequence[_Refusal],
        patients: Mapping[int, str | None],
        usable: Mapping[str, pa.Table],
        num_dropped: Mapping[str, int],
    ) -> dict[str, Any]:
        types = {split: table.column("question_type").value_counts().to_pylist() for split, table in usable.items()}
        return {
            "records": sum(part.records for part in parts),
            "records_cut_in_time": sum(part.cut_in_time for part in parts),
            "parts": [{"bytes": part.bytes, "records": part.records} for part in parts],
            "refused": [asdict(refusal) for refusal in refused],
            "questions": {split: table.num_rows for split, table in usable.items()},
            "questions_without_their_record": dict(num_dropped),
            "question_types": {
                split: {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda one: one["values"])}
                for split, counts in types.items()
            },
            "data_hash": {split: rows_hash(rows_of(table)) for split, table in usable.items()},
            "overlap": overlap_report({name: ecg_ids_of(table) for name, table in usable.items()}, patients),
            "duration_seconds": self.settings["duration_seconds"],
            **self.settings["notes"],
            "job": self._identity,
            "provenance": provenance("prepare", self.settings["arguments"]),
        }

    def _put_in_place(self, usable: Mapping[str, pa.Table], ecg_ids: Iterable[int]) -> None:
        for name in ("records", "questions"):
            (self.folder / name).mkdir(exist_ok=True)
        for index in range(self.num_parts):
            name = f"{_part_name(index)}.parquet"
            if (self._partial / name).exists():  # else put in place before the job was killed
                (self._partial / name).replace(self.folder / "records" / name)
        for split, table in usable.items():
            _write_table(table, self.folder / "questions" / f"{split}.parquet")
        if self.settings.get("metadata") is not None:
            known = read_metadata(self._partial / METADATA_FILE)
            _write_table(metadata_table(known, ecg_ids), self.folder / METADATA_FILE)
        self.feature_extractor.save_pretrained(self.folder)
        write_json(self.folder / "template_options.json", self.settings["template_options"])

    def _all_there(self, report: dict[str, Any]) -> bool:
        if self.settings.get("metadata") is not None and not (self.folder / METADATA_FILE).is_file():
            return False
        sizes = (entry["bytes"] for entry in report["parts"])
        return all(
            _size_of(self.folder / "records" / f"{_part_name(index)}.parquet") == size
            for index, size in enumerate(sizes)
        ) and all((self.folder / "questions" / f"{split}.parquet").is_file() for split in report["questions"])


def _part_name(index: int) -> str:
    return f"part-{index:05d}"


def _size_of(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _hash_of(items: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON, so that what was stored compares equal."""
    return cast("dict[str, Any]", json.loads(json.dumps(content, default=str)))


def _write_table(table: pa.Table, path: Path) -> None:
    beside = path.with_name(f".{path.name}.partial")
    pq.write_table(table, beside)
    beside.replace(path)


def _all_known(table: pa.Table, patients: Mapping[int, str | None]) -> np.ndarray:
    """For each question, whether all its ECGs are among these."""
    column = table.column("ecg_id").combine_chunks()
    known = np.isin(column.flatten().to_numpy(), np.fromiter(patients, np.int64, len(patients)))
    missing_before = np.concatenate(([0], np.cumsum(~known)))
    stops = np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))
    starts = np.concatenate(([0], stops[:-1])) if len(stops) else stops
    return np.asarray(missing_before[stops] == missing_before[starts])


@dataclass(frozen=True)
class _Cleaned:
    source: RecordSource
    signal: np.ndarray | None = None
    was_cut: bool = False
    refusal: _Refusal | None = None


def _clean_one(feature_extractor: Any, duration: float, source: RecordSource) -> _Cleaned:
    bare = replace(source, signal=None)  # what is sent back to the process that writes
    try:
        signal = feature_extractor.clean(source.load())
        wanted = round(duration * feature_extractor.sampling_rate)
        if signal.shape[1] < wanted:
            seconds = signal.shape[1] / feature_extractor.sampling_rate
            raise EcgDataError(
                f"{source.name}: {seconds:.2f} s long, {duration:g} s are wanted; prepare shorter segments"
            )
        return _Cleaned(bare, signal[:, :wanted], signal.shape[1] > wanted)
    except EcgError as error:
        return _Cleaned(bare, refusal=_Refusal(source.ecg_id, source.name, type(error).__name__, str(error)))
    except Exception as error:
        # One record of hundreds of thousands must not end the job, whatever is wrong with it or with the code.
        logger.exception("%s: an error that nobody foresaw; the record is refused", source.name)
        reason = f"{source.name}: not foreseen, please report it: {' '.join(str(error).split())}"
        return _Cleaned(bare, refusal=_Refusal(source.ecg_id, source.name, type(error).__name__, reason))


def _cleaned(
    sources: Iterable[RecordSource], clean: Callable[[RecordSource], _Cleaned], num_proc: int
) -> Generator[_Cleaned, None, None]:
    if num_proc == 1:
        yield from map(clean, sources)
        return
    try:
        with worker_pool(num_proc) as pool:
            work = partial(_clean_chunk, clean)
            yield from in_order(pool, work, sources, num_proc=num_proc, chunk_size=_CHUNK)
    except BrokenProcessPool as error:
        raise EcgDataError(
            "a process that cleans records was killed, as happens when memory runs out; use fewer processes. The same "
            "command goes on where it was"
        ) from error


def _clean_chunk(clean: Callable[[RecordSource], _Cleaned], chunk: list[RecordSource]) -> list[_Cleaned]:
    return [clean(source) for source in chunk]
