"""The prepared folder: every record read, cleaned and stored once, and the questions that refer to it.

::

    records/part-*.parquet     ecg_id, patient_id, name, sampling_rate, signal (leads x samples, float32 mV)
    questions/<split>.parquet  ECG-QA rows
    metadata.parquet           ecg_id, age, sex, device, site, where the data set tells them
    template_options.json      the valid answers of every template
    preprocessor_config.json   the feature extractor that cleaned the records
    report.json                counts, refusals with their reasons, overlaps, versions, arguments

`preparation.py` makes it; windows of the records are views (`PreparedData.windows`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.data.questions import QUESTION_FEATURES
from ecgbyte_hf.data.record_file import RecordFile
from ecgbyte_hf.data.record_metadata import METADATA_FILE, read_metadata
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.vocabulary_ecg_byte import checked_leads, checked_rate

#: Written last: a folder without it is not whole.
REPORT_FILE = "report.json"


class PreparedData:
    """A prepared folder, opened for reading.

    Args:
        folder: What `prepare` wrote.

    Raises:
        EcgDataError: the folder is not a prepared one.
        SamplingRateError, LeadError: its preprocessor_config.json has no sampling rate, or no leads.
    """

    #: Length of the windows that records are cut into; see `windows.py`.
    window_seconds: float | None = None
    #: Seconds from the start of one window to that of the next.
    window_stride: float | None = None

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # Without it the job was killed, and what else is there may be half of it.
        if not (self.folder / REPORT_FILE).is_file():
            raise EcgDataError(f"{self.folder} holds no {REPORT_FILE}; make it with `ecgbyte prepare`")
        self.report: dict[str, Any] = _read_json(self.folder / REPORT_FILE)
        if not isinstance(self.report.get("questions"), dict):
            raise EcgDataError(f"{self.folder / REPORT_FILE}: names no splits of questions; prepare anew")
        self._preprocessor = _read_json(self.folder / "preprocessor_config.json")
        checked_rate(self._preprocessor.get("sampling_rate"), f"{self.folder / 'preprocessor_config.json'}: ")
        checked_leads(self._preprocessor.get("leads"), f"{self.folder / 'preprocessor_config.json'}: ")
        self.records = RecordFile(self.folder / "records")
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
        return self.folder_fingerprint

    @property
    def folder_fingerprint(self) -> str:
        """The fingerprint of the folder, whole or in windows."""
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
        path = self.folder / "questions" / f"{split}.parquet"
        try:
            table = pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise EcgDataError(f"{path} cannot be read: {' '.join(str(error).split())}; prepare anew") from error
        _check_questions(path, table, columns)
        return table

    def template_options(self) -> dict[int, list[str]]:
        """The valid answers of every template."""
        path = self.folder / "template_options.json"
        stored = _read_json(path)
        for key, options in stored.items():
            is_list = isinstance(options, list) and all(isinstance(option, str) for option in options)
            if not key.removeprefix("-").isdecimal() or not is_list:
                raise EcgDataError(f"{path}: expected a list of answers for a template's number; prepare anew")
        return {int(key): value for key, value in stored.items()}

    def metadata(self) -> dict[int, dict[str, Any]]:
        """What the data set tells about its records.

        Returns:
            For each ECG of which something is known `age` (years; 90 stands for more than 89), `sex` (`"male"` or
            `"female"`), `device` and `site`, each None if unknown. Empty where the data set tells nothing.

        Raises:
            EcgDataError: the file is damaged.
        """
        return read_metadata(self.folder / METADATA_FILE)

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

    def ids_of_records(self, records: Iterable[int]) -> list[int]:
        """The numbers by which this object knows some records of the folder: the same, or those of their windows."""
        return list(records)

    def train_ecg_ids(self) -> list[int]:
        """Records that training questions refer to: the only ones a tokenizer may be learnt from."""
        return self.ecg_ids_of_split("train")

    def ecg_ids_of_split(self, split: str) -> list[int]:
        """Records that the questions of a split refer to, ascending.

        Raises:
            EcgDataError: no such split.
        """
        # The column alone: as Python objects, a corpus' questions take hundreds of megabytes.
        numbers = self._question_table(split, columns=["ecg_id"]).column("ecg_id").combine_chunks().flatten()
        return sorted(numbers.unique().to_pylist())


def _check_questions(path: Path, table: pa.Table, columns: list[str] | None) -> None:
    """Refuse a table that lacks a column of questions, or has it of another kind."""
    wanted = {field.name: field.type for field in QUESTION_FEATURES.arrow_schema}
    for name in columns or wanted:
        if name not in table.column_names:
            raise EcgDataError(f"{path} cannot be read: it has no column {name!r}; prepare anew")
        got, expected = table.schema.field(name).type, wanted[name]
        if not _is_alike(got, expected):
            raise EcgDataError(f"{path} cannot be read: column {name!r} is {got}, expected {expected}; prepare anew")


def _is_alike(got: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a column holds whole numbers, texts or lists as expected, whatever their width."""
    kinds = (pa.types.is_integer, lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind))
    if pa.types.is_list(got) or pa.types.is_large_list(got):
        return pa.types.is_list(expected) and _is_alike(got.value_type, expected.value_type)
    return any(is_kind(got) and is_kind(expected) for is_kind in kinds)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}; prepare anew") from error
    except (ValueError, RecursionError) as error:
        raise EcgDataError(f"{path}: not JSON ({error}); prepare anew") from error
    if not isinstance(content, dict):
        raise EcgDataError(f"{path}: expected an object, got {type(content).__name__}; prepare anew")
    return content
