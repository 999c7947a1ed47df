"""The prepared folder: every record read, cleaned and stored once, and the questions that refer to it.

::

    records.parquet            ecg_id, patient_id, name, sampling_rate, signal (leads x samples, float32 mV)
    questions/<split>.parquet  ECG-QA rows
    template_options.json      the valid answers of every template
    preprocessor_config.json   the feature extractor that cleaned the records
    prepare.json               counts, refusals with their reasons, overlaps, versions, arguments
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.data.questions import QUESTION_FEATURES, rows_hash
from ecgbyte_hf.data.record_file import RecordFile, RecordWriter
from ecgbyte_hf.data.splits import overlap_report
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError
from ecgbyte_hf.provenance import provenance, write_json

logger = logging.getLogger(__name__)

# Records that one process cleans at a time.
_CHUNK = 16


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


class PreparedData:
    """A prepared folder, opened for reading.

    Args:
        folder: What `prepare` wrote.

    Raises:
        EcgDataError: the folder is not a prepared one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # Written last: without it the job was killed, and what else is there may be half of it.
        if not (self.folder / "prepare.json").is_file():
            raise EcgDataError(f"{self.folder} holds no prepare.json; make it with `ecgbyte prepare`")
        self.report: dict[str, Any] = _read_json(self.folder / "prepare.json")
        self._preprocessor = _read_json(self.folder / "preprocessor_config.json")
        self.records = RecordFile(self.folder / "records.parquet")
        self.ecg_ids = self.records.ecg_ids
        self.patients = self.records.patients

    @property
    def preprocessor(self) -> dict[str, Any]:
        """Configuration of the feature extractor that cleaned the records."""
        return dict(self._preprocessor)

    @property
    def sampling_rate(self) -> float:
        """Hz of the stored signals."""
        return float(self._preprocessor["sampling_rate"])

    @property
    def leads(self) -> list[str]:
        """Names of the stored signals' rows."""
        return list(self._preprocessor["leads"])

    @property
    def splits(self) -> list[str]:
        """Names of the question splits, sorted."""
        return sorted(self.report["questions"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 that tells these records from others; see `RecordFile.fingerprint`."""
        cleaning = json.dumps(self._preprocessor, sort_keys=True)
        return hashlib.sha256((self.records.fingerprint + cleaning).encode()).hexdigest()

    def signal(self, ecg_id: int) -> np.ndarray:
        """The cleaned signal of one record: float32 (leads, samples) in mV, read-only.

        The records beside it are read with it and kept for a while, so near ones in turn are fast; for all of them
        use `iter_signals`.

        Raises:
            EcgDataError: no such record, or the file is damaged there.
        """
        return self.records.signal(ecg_id)

    def iter_signals(self, ecg_ids: Iterable[int] | None = None) -> Generator[tuple[int, np.ndarray], None, None]:
        """Number and signal of records in the order of the file, with a few of them in memory at a time.

        Args:
            ecg_ids: Only these, in any order; all by default.

        Raises:
            EcgDataError: no such record, or the file is damaged.
        """
        return self.records.iter_signals(ecg_ids)

    def questions(self, split: str) -> list[dict[str, Any]]:
        """The rows of one split.

        Raises:
            EcgDataError: no such split.
        """
        rows: list[dict[str, Any]] = self._question_table(split).to_pylist()
        return rows

    def _question_table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        if split not in self.splits:
            raise EcgDataError(f"{self.folder} has no split {split!r}; it has {', '.join(self.splits)}")
        return pq.read_table(self.folder / "questions" / f"{split}.parquet", columns=columns)

    def template_options(self) -> dict[int, list[str]]:
        """The valid answers of every template."""
        stored = _read_json(self.folder / "template_options.json")
        return {int(key): value for key, value in stored.items()}

    def check_processor(self, processor: Any) -> None:
        """Refuse an ECG processor that cleans in another way than these records were cleaned.

        Raises:
            EcgDataError: profile, rate or leads differ.
        """
        theirs = processor.feature_extractor.to_dict()
        differing = [
            f"{name} is {value!r} here and {theirs.get(name)!r} there"
            for name, value in self._preprocessor.items()
            # Which problems were allowed decides which records are there, not what cleaning does to them.
            if name in ("profile", "sampling_rate", "leads") and theirs.get(name) != value
        ]
        if differing:
            raise EcgDataError(
                f"{self.folder} was not prepared for this tokenizer: {'; '.join(differing)}; prepare the data anew or "
                "use the tokenizer that was trained on it"
            )

    def train_ecg_ids(self) -> list[int]:
        """Records that training questions refer to: the only ones a tokenizer may be learnt from."""
        # The column alone: as Python objects, a corpus' questions take hundreds of megabytes.
        numbers = self._question_table("train", columns=["ecg_id"]).column("ecg_id").combine_chunks().flatten()
        return sorted(numbers.unique().to_pylist())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}; prepare anew") from error
    except ValueError as error:
        raise EcgDataError(f"{path}: not JSON ({error}); prepare anew") from error
    if not isinstance(content, dict):
        raise EcgDataError(f"{path}: expected an object, got {type(content).__name__}; prepare anew")
    return content


def prepare(
    sources: Iterable[RecordSource],
    questions: Mapping[str, list[dict[str, Any]]],
    output_dir: str | Path,
    *,
    feature_extractor: Any,
    template_options: Mapping[int, list[str]],
    duration: float,
    arguments: dict[str, Any],
    num_records: int | None = None,
    num_proc: int = 1,
    notes: Mapping[str, Any] | None = None,
) -> PreparedData:
    """Read, clean and store every record once, and the questions whose records could all be used.

    A record that is refused is a line in the report, with the reason; the job goes on.

    Args:
        sources: Records to read.
        questions: Rows by split.
        output_dir: Folder to write.
        feature_extractor: Cleans the records; saved with them.
        template_options: Valid answers by template.
        duration: Seconds kept of each record; the rest is counted, shorter records are refused.
        arguments: For the report.
        num_records: Number of sources, for the progress bar.
        num_proc: Processes.
        notes: Further entries of the report.

    Raises:
        EcgDataError: no record at all could be used, one comes twice, or the duration is not positive.
    """
    if not duration > 0.0 or num_proc < 1:
        raise EcgDataError(f"got {duration:g} s and {num_proc} processes, expected more than 0 s and at least 1")
    output_dir = Path(output_dir)
    (output_dir / "questions").mkdir(parents=True, exist_ok=True)
    (output_dir / "prepare.json").unlink(missing_ok=True)
    for stale in (output_dir / "questions").glob("*.parquet"):  # splits of an earlier run
        stale.unlink()
    outcome = _write_records(
        _cleaned(sources, partial(_clean_one, feature_extractor, duration), num_proc, num_records),
        output_dir / "records.parquet",
    )
    if not outcome.patients:
        reasons = Counter(type_of for _, type_of, _ in outcome.refused)
        raise EcgDataError(f"no record could be used; {len(outcome.refused)} were refused: {dict(reasons)}")
    usable: dict[str, list[dict[str, Any]]] = {}
    dropped: dict[str, int] = {}
    for split, rows in questions.items():
        usable[split] = [row for row in rows if all(ecg_id in outcome.patients for ecg_id in row["ecg_id"])]
        dropped[split] = len(rows) - len(usable[split])
        _write_questions(usable[split], output_dir / "questions" / f"{split}.parquet")
    feature_extractor.save_pretrained(output_dir)
    write_json(output_dir / "template_options.json", {str(key): value for key, value in template_options.items()})
    report = {
        "records": len(outcome.patients),
        "records_cut_in_time": outcome.num_cut,
        "refused": [{"record": name, "error": type_of, "reason": reason} for name, type_of, reason in outcome.refused],
        "questions": {split: len(rows) for split, rows in usable.items()},
        "questions_without_their_record": dropped,
        "question_types": {
            split: dict(sorted(Counter(row["question_type"] for row in rows).items()))
            for split, rows in usable.items()
        },
        "data_hash": {split: rows_hash(rows) for split, rows in usable.items()},
        "overlap": overlap_report(usable, outcome.patients),
        "duration_seconds": duration,
        **(notes or {}),
        "provenance": provenance("prepare", arguments),
    }
    write_json(output_dir / "prepare.json", report)
    if outcome.refused:
        logger.warning("%d records were refused; the reasons are in prepare.json", len(outcome.refused))
    if any(dropped.values()):
        logger.warning("%d questions were left out since a record of theirs is not there", sum(dropped.values()))
    return PreparedData(output_dir)


@dataclass
class _Outcome:
    patients: dict[int, str | None] = field(default_factory=dict)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    num_cut: int = 0


@dataclass(frozen=True)
class _Cleaned:
    source: RecordSource
    name: str
    signal: np.ndarray | None = None
    sampling_rate: float = 0.0
    was_cut: bool = False
    error: tuple[str, str] | None = None


def _clean_one(feature_extractor: Any, duration: float, source: RecordSource) -> _Cleaned:
    from ecgbyte_hf.signal.records import read_ecg

    name = source.path or f"record {source.ecg_id}"
    try:
        record: Any
        if source.path is None:
            record = SimpleNamespace(
                signal=source.signal, sampling_rate=source.sampling_rate, lead_names=source.lead_names, name=name
            )
        else:
            record = read_ecg(source.path)
        signal = feature_extractor.clean(record)
        wanted = round(duration * feature_extractor.sampling_rate)
        if signal.shape[1] < wanted:
            seconds = signal.shape[1] / feature_extractor.sampling_rate
            raise EcgDataError(f"{name}: {seconds:.2f} s long, {duration:g} s are wanted; prepare shorter segments")
        bare = RecordSource(source.ecg_id, source.path, source.patient_id)
        return _Cleaned(
            bare, name, signal[:, :wanted], float(feature_extractor.sampling_rate), signal.shape[1] > wanted
        )
    except EcgError as error:
        return _Cleaned(
            RecordSource(source.ecg_id, source.path, source.patient_id),
            name,
            error=(type(error).__name__, str(error)),
        )


def _cleaned(
    sources: Iterable[RecordSource],
    clean: Callable[[RecordSource], _Cleaned],
    num_proc: int,
    total: int | None,
) -> Iterator[_Cleaned]:
    from tqdm.auto import tqdm

    bar = partial(tqdm, total=total, desc="records", unit="record")
    if num_proc == 1:
        yield from bar(map(clean, sources))
        return
    try:
        with ProcessPoolExecutor(num_proc) as pool:
            yield from bar(_in_order(pool, clean, sources, num_proc))
    except BrokenProcessPool as error:
        raise EcgDataError(
            "a process that cleans records was killed, as happens when memory runs out; use fewer processes"
        ) from error


def _in_order(
    pool: ProcessPoolExecutor,
    clean: Callable[[RecordSource], _Cleaned],
    sources: Iterable[RecordSource],
    num_proc: int,
) -> Iterator[_Cleaned]:
    """`pool.map`, but reading ahead a few chunks only: it would ask for all sources, and their signals, at once."""
    iterator = iter(sources)
    waiting: deque[Future[list[_Cleaned]]] = deque()
    while chunk := list(islice(iterator, _CHUNK)):
        waiting.append(pool.submit(_clean_chunk, clean, chunk))
        if len(waiting) > 2 * num_proc:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _clean_chunk(clean: Callable[[RecordSource], _Cleaned], chunk: list[RecordSource]) -> list[_Cleaned]:
    return [clean(source) for source in chunk]


def _write_records(cleaned: Iterable[_Cleaned], path: Path) -> _Outcome:
    outcome = _Outcome()
    partial_path = path.with_name(f".{path.name}.partial")
    path.unlink(missing_ok=True)
    with RecordWriter(partial_path) as writer:
        for item in cleaned:
            if item.error is not None:
                outcome.refused.append((item.name, *item.error))
                continue
            source = item.source
            if source.ecg_id in outcome.patients:
                raise EcgDataError(f"record {source.ecg_id} comes twice; every record needs its own number")
            outcome.patients[source.ecg_id] = source.patient_id
            outcome.num_cut += item.was_cut
            signal = cast(np.ndarray, item.signal)
            writer.add(source.ecg_id, source.patient_id, Path(item.name).name, item.sampling_rate, signal)
    partial_path.replace(path)
    return outcome


def _write_questions(rows: list[dict[str, Any]], path: Path) -> None:
    columns = {name: [row.get(name) for row in rows] for name in QUESTION_FEATURES}
    partial_path = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.table(columns, schema=QUESTION_FEATURES.arrow_schema), partial_path)
    partial_path.replace(path)
