"""MIMIC-IV-ECG 1.0 (Gow et al., 2023): 800,035 12-lead ECGs of 10 s with the machine's reports and measurements.

Expected tree, as PhysioNet has it::

    record_list.csv
    machine_measurements.csv
    files/p1000/p10000032/s40689238/40689238.{hea,dat} ...
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Features, List, Value

from ecgbyte_hf.data.builder import EcgBuilderConfig, EcgDatasetBuilder, split_generators
from ecgbyte_hf.data.ecg_qa import read_ecg_ids
from ecgbyte_hf.data.questions import QUESTION_FEATURES, report_question
from ecgbyte_hf.data.splits import split_of_patient
from ecgbyte_hf.data.stored_signal import signal_features, stored_columns_or_none
from ecgbyte_hf.data.tables import CsvTable, record_path, required_number, whole_number
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

logger = logging.getLogger(__name__)

RATE = 500
SHAPE = (12, 5000)
REPORT_LINES = tuple(f"report_{number}" for number in range(18))
#: In ms from the start of the averaged beat, the axes in degrees, `rr_interval` in ms.
MEASUREMENTS = (
    "rr_interval",
    "p_onset",
    "p_end",
    "qrs_onset",
    "qrs_end",
    "t_end",
    "p_axis",
    "qrs_axis",
    "t_axis",
)
#: From here on a number stands for "not measured": the machine writes 29999, at times 32767 or 65535 (the largest of
#: 16 bits). In a record of 10 s no interval is as long, and an axis has 360 degrees.
NOT_MEASURED = 29999
#: Records in a unit of work: at 120 kB each 31 MB, and 3,126 units for all of MIMIC-IV-ECG.
SHARD = 256

_LIST_COLUMNS = ("subject_id", "study_id", "path")
_HINT = "name MIMIC-IV-ECG's folder as data_dir, with record_list.csv and machine_measurements.csv in it"
_PLACES = np.dtype([("record", np.int64), ("measurement", np.int64)])
_NOWHERE = -1


@dataclass
class MimicIvEcgConfig(EcgBuilderConfig):
    """What to read of MIMIC-IV-ECG, and how to divide it.

    Attributes:
        record_list: The table of records, relative to `data_dir`; `record_list_with_backslashes.csv` can be read too.
        seed: Of the division by patient.
        skip_unreadable: Leave out records whose files are damaged, with a warning for each, instead of stopping.
        ecg_qa_dir: ECG-QA's `ecgqa` folder: the patients of its MIMIC test ECGs then are in the test split.
    """

    version: datasets.Version = datasets.Version("1.0.0")
    record_list: str = "record_list.csv"
    seed: int = 0
    skip_unreadable: bool = False
    ecg_qa_dir: str | None = None

    def tables(self) -> tuple[Path, Path]:
        """The list of records and the measurements."""
        return self.root() / self.record_list, self.root() / "machine_measurements.csv"

    def source_files(self) -> Iterator[str | Path]:
        """The tables, and for signals every file of the records in them."""
        yield from self.tables()
        if self.ecg_qa_dir is not None:
            yield _test_list(self.ecg_qa_dir)
        if self.name == "records":
            root = self.root()
            for path, _ in read_record_paths(self.tables()[0]).values():
                yield from (f"{root}/{path}.hea", f"{root}/{path}.dat")


class MimicIvEcg(EcgDatasetBuilder):
    """Builder of MIMIC-IV-ECG: `records` (with signals), `metadata` (the same without), `reports` (questions).

    Processes and streams hold 16 bytes for each record, whatever they read: where its lines are in the two tables. To
    find those takes some 18 s and 300 MB for all of MIMIC-IV-ECG.
    """

    BUILDER_CONFIG_CLASS = MimicIvEcgConfig
    BUILDER_CONFIGS = [MimicIvEcgConfig(name=name) for name in ("records", "metadata", "reports")]
    DEFAULT_WRITER_BATCH_SIZE = 100

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="MIMIC-IV-ECG: diagnostic electrocardiogram matched subset",
            homepage="https://physionet.org/content/mimic-iv-ecg/1.0/",
            license="ODbL-1.0",
            features=self._features(),
        )

    def _features(self) -> Features:
        if self.config.name == "reports":
            return QUESTION_FEATURES
        columns = {
            "ecg_id": Value("int64"),
            "patient_id": Value("string"),
            "filename": Value("string"),
            "report": Value("string"),
            "report_lines": List(Value("string")),
            **{name: Value("int32") for name in MEASUREMENTS},
            "bandwidth": Value("string"),
            "filtering": Value("string"),
        }
        return Features({**columns, **(signal_features(SHAPE) if self.config.name == "records" else {})})

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        always_test = self._test_patients()
        splits: dict[str, list[tuple[int, int]]] = {}
        for patient, places in self._present():
            split = split_of_patient(patient, self.config.seed, always_test)
            splits.setdefault(split, []).append(places)
        return split_generators({name: np.array(places, _PLACES) for name, places in splits.items()}, SHARD)

    def _test_patients(self) -> set[str]:
        if self.config.ecg_qa_dir is None:
            return set()
        return patients_of(read_ecg_ids(_test_list(self.config.ecg_qa_dir)), self.config.tables()[0])

    def _present(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Patient and places of the records that this configuration can give; the others are counted."""
        only_reports = self.config.name == "reports"
        place_of = self._measurement_places(only_reports)
        total, present, root, seen = 0, 0, self.config.root(), set[int]()
        with CsvTable(self.config.tables()[0], _LIST_COLUMNS, hint=_HINT) as table:
            for place, row in table:
                study, patient, path = _record(row, table.where)
                if study in seen:
                    raise EcgDataError(f"{table.where}: study {study} is there twice")
                seen.add(study)
                total += 1
                if self.config.name == "records" and not os.path.isfile(f"{root}/{path}.hea"):
                    continue
                measured = place_of.get(study, _NOWHERE)
                if only_reports and measured == _NOWHERE:
                    continue
                present += 1
                yield patient, (place, measured)
        self._count(total, present)

    def _measurement_places(self, only_reports: bool) -> dict[int, int]:
        """Where the line of each study is; of those with a report only, if asked for."""
        place_of: dict[int, int] = {}
        columns = ("subject_id", "study_id", *REPORT_LINES)
        with CsvTable(self.config.tables()[1], columns, hint=_HINT) as table:
            for place, row in table:
                study = required_number(row, "study_id", table.where)
                if study in place_of:
                    raise EcgDataError(f"{table.where}: study {study} is there twice")
                if not only_reports or _lines(row):
                    place_of[study] = place
        return place_of

    def _count(self, total: int, present: int) -> None:
        lacking = {"records": "file", "reports": "report"}.get(self.config.name, "line")
        if not present:
            raise EcgDataError(f"none of the {total} records of {self.config.tables()[0]} has a {lacking}; {_HINT}")
        if present < total:
            logger.warning("%d of %d records have no %s and are left out", total - present, total, lacking)

    def _generate_examples(self, shards: list[np.ndarray]) -> Iterator[tuple[int, dict[str, Any]]]:
        with (
            CsvTable(self.config.tables()[0], _LIST_COLUMNS, hint=_HINT) as records,
            CsvTable(self.config.tables()[1], (*REPORT_LINES, *MEASUREMENTS), hint=_HINT) as measurements,
        ):
            for places in shards:
                for record, measurement in places.tolist():
                    study, patient, path = _record(records.at(record), records.where)
                    row = None if measurement == _NOWHERE else measurements.at(measurement)
                    example = {"ecg_id": study, "patient_id": patient, "filename": path}
                    example |= _measured(row, patient, measurements.where)
                    if (complete := self._example(example)) is not None:
                        yield study, complete

    def _example(self, example: dict[str, Any]) -> dict[str, Any] | None:
        if self.config.name == "reports":
            return report_question("mimic_iv_ecg", example["ecg_id"], example["report"], example["filename"])
        if self.config.name == "records":
            path, skip = self.config.root() / example["filename"], self.config.skip_unreadable
            signal = stored_columns_or_none(path, SHAPE, RATE, skip_unreadable=skip)
            return None if signal is None else example | signal
        return example


def join_report(lines: Iterable[str]) -> str:
    """A machine report as one text: its lines without their full stop, joined by one.

    Example:
        >>> join_report(["Sinus rhythm", "Possible left ventricular hypertrophy.", "Borderline ECG"])
        'Sinus rhythm. Possible left ventricular hypertrophy. Borderline ECG'
    """
    return ". ".join(line.removesuffix(".") for line in lines)


def read_record_paths(record_list: str | Path) -> dict[int, tuple[str, str]]:
    """The path and the patient of every study in a record list of MIMIC-IV-ECG.

    Args:
        record_list: A CSV with `subject_id`, `study_id` and `path`; the path may have backslashes, and other columns
            may be written in any way.

    Returns:
        Study to (path below the data set's folder, with slashes and without extension; `subject_id` as text).

    Raises:
        EcgDataError: the file cannot be read, lacks a column, has a line that is none, or a study twice.
    """
    paths: dict[int, tuple[str, str]] = {}
    with CsvTable(record_list, _LIST_COLUMNS, hint=_HINT) as table:
        for _, row in table:
            study, patient, path = _record(row, table.where)
            if study in paths:
                raise EcgDataError(f"{table.where}: study {study} is there twice")
            paths[study] = (path, patient)
    return paths


def patients_of(studies: set[int], record_list: str | Path) -> set[str]:
    """The patients of some studies; studies that the list lacks are counted in one warning."""
    found: dict[int, str] = {}
    with CsvTable(record_list, _LIST_COLUMNS, hint=_HINT) as table:
        for _, row in table:
            study, patient, _ = _record(row, table.where)
            if study in studies:
                found[study] = patient
    if len(found) < len(studies):
        logger.warning(
            "%d of ECG-QA's %d MIMIC test ECGs are not in %s: other ECGs of their patients cannot be told there",
            len(studies) - len(found),
            len(studies),
            record_list,
        )
    return set(found.values())


def _record(row: dict[str, str], where: str) -> tuple[int, str, str]:
    """Study, patient and path of a line of the record list."""
    patient = required_number(row, "subject_id", where)
    return required_number(row, "study_id", where), str(patient), record_path(row["path"], where)


def _measured(row: dict[str, str] | None, patient: str, where: str) -> dict[str, Any]:
    """The columns that come from a line of `machine_measurements.csv`; None and no lines where there is none."""
    if row is None:
        return {name: None for name in ("report", *MEASUREMENTS, "bandwidth", "filtering")} | {"report_lines": []}
    if required_number(row, "subject_id", where) != int(patient):
        raise EcgDataError(f"{where}: got the patient {row['subject_id']}, expected {patient} as in the record list")
    lines = _lines(row)
    return {
        "report": join_report(lines) or None,
        "report_lines": lines,
        **{name: _measurement(row[name], where, name) for name in MEASUREMENTS},
        "bandwidth": row.get("bandwidth", "").strip() or None,
        "filtering": row.get("filtering", "").strip() or None,
    }


def _lines(row: dict[str, str]) -> list[str]:
    return [line for line in (row[name].strip() for name in REPORT_LINES) if line.strip(".")]


def _measurement(text: str, where: str, column: str) -> int | None:
    value = whole_number(text, where, column)
    return None if value is None or abs(value) >= NOT_MEASURED else value


def _test_list(ecg_qa_dir: str | Path) -> Path:
    return Path(ecg_qa_dir) / "mimic-iv-ecg" / "test_ecgs.tsv"
