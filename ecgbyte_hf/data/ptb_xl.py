"""PTB-XL (Wagner et al., 2020): 21,799 12-lead ECGs of 10 s with labels and reports, in ten folds by patient.

Expected tree, as PhysioNet has it::

    ptbxl_database.csv         or labels.csv, a table that has four lists of labels instead of scp_codes
    scp_statements.csv         not needed with labels.csv
    records500/00000/00001_hr.{hea,dat} ...
    records100/00000/00001_lr.{hea,dat} ...
"""

from __future__ import annotations

import ast
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Features, List, Value

from ecgbyte_hf.data.builder import EcgBuilderConfig, EcgDatasetBuilder, split_generators
from ecgbyte_hf.data.questions import QUESTION_FEATURES, report_question
from ecgbyte_hf.data.splits import split_of_fold
from ecgbyte_hf.data.stored_signal import signal_features, stored_columns_or_none
from ecgbyte_hf.data.tables import CsvTable, record_path, required_number, whole_number
from ecgbyte_hf.data.translation import DEFAULT_MODEL, ReportTranslator
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

logger = logging.getLogger(__name__)

#: Sampling rate of each configuration with signals; a record is 10 s long and has 12 leads.
RATES = {"records500": 500, "records100": 100}
SECONDS, NUM_LEADS = 10, 12
LABELS = ("superclass", "subclass", "form", "rhythm")
#: Records in a unit of work: at 500 Hz 12 MB, and 218 units for the whole of PTB-XL.
SHARD = 100

_LABEL_COLUMNS = {"superclass": "super_class", "subclass": "sub_class", "form": "form", "rhythm": "rhythm"}
_ALWAYS = ("ecg_id", "patient_id", "strat_fold", "filename_lr", "filename_hr")
#: Tables derived from MERL's splits name these seven without their underscore.
_UNDERSCORED = {code.strip("_"): code for code in ("_AVB", "ISC_", "NST_", "NT_", "STD_", "STE_", "TAB_")}
_HINT = "name PTB-XL's folder as data_dir, with ptbxl_database.csv or labels.csv in it"

_METADATA: dict[str, Any] = {
    "ecg_id": Value("int64"),
    "patient_id": Value("string"),
    "age": Value("int32"),
    "sex": Value("int32"),
    "device": Value("string"),
    "strat_fold": Value("int32"),
    "report": Value("string"),
    "scp_codes": List({"code": Value("string"), "likelihood": Value("float32")}),
    **{name: List(Value("string")) for name in LABELS},
    "validated_by_human": Value("bool"),
}


@dataclass
class PtbXlConfig(EcgBuilderConfig):
    """What to read of PTB-XL.

    Attributes:
        metadata: Further tables with records of the same folder, such as rows that were downloaded later; relative to
            `data_dir`.
        reference_folds: The ECG-Byte paper's split (folds 1-7, 8, 9-10) instead of PTB-XL's own (1-8, 9, 10).
        skip_unreadable: Leave out records whose files are damaged, with a warning for each, instead of stopping.
        translate: Add the reports in English, by machine; the answers of `reports` are then those.
        translation_model: Its name on the Hub, or its folder.
        translation_device: Where it runs, such as `"cuda"`; a GPU if there is one by default.
    """

    version: datasets.Version = datasets.Version("1.0.3")
    metadata: Sequence[str] = ()
    reference_folds: bool = False
    skip_unreadable: bool = False
    translate: bool = False
    translation_model: str = DEFAULT_MODEL
    translation_device: str | None = None

    def tables(self) -> list[Path]:
        """The tables to read, the main one first."""
        further = [self.metadata] if isinstance(self.metadata, str | Path) else self.metadata
        return [main_table(self.root()), *(self.root() / path for path in further)]

    def source_files(self) -> list[str | Path]:
        """The tables, the statements, a local translation model, and every file of the records that are read."""
        found: list[str | Path] = [*self.tables(), self.root() / "scp_statements.csv"]
        if self.translate:
            found.extend(path for path in Path(self.translation_model).glob("*") if path.is_file())
        if self.name in RATES:
            found.extend(_files_below(self.root() / self.name))
        return found


class PtbXl(EcgDatasetBuilder):
    """Builder of PTB-XL: `records500`, `records100`, `metadata` (the same without signals), `reports` (questions)."""

    BUILDER_CONFIG_CLASS = PtbXlConfig
    BUILDER_CONFIGS = [PtbXlConfig(name=name) for name in (*RATES, "metadata", "reports")]
    # A row at 500 Hz has 120 kB.
    DEFAULT_WRITER_BATCH_SIZE = SHARD

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="PTB-XL, a large publicly available electrocardiography dataset",
            homepage="https://physionet.org/content/ptb-xl/1.0.3/",
            license="CC-BY-4.0",
            features=self._features(),
        )

    def _features(self) -> Features:
        if self.config.name == "reports":
            return QUESTION_FEATURES
        columns = dict(_METADATA)
        if self.config.translate:
            columns["report_en"] = Value("string")
        if self.config.name == "metadata":
            return Features({**columns, "filename_lr": Value("string"), "filename_hr": Value("string")})
        shape = (NUM_LEADS, RATES[self.config.name] * SECONDS)
        return Features({**columns, "filename": Value("string"), **signal_features(shape)})

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        rows = read_records(self.config.tables())
        if self.config.name in RATES:
            rows = self._with_files(rows)
        if self.config.name == "reports":
            rows = _with_report(rows)
        if self.config.translate:
            _translate(rows, self.config)
        splits: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            split = split_of_fold(row["strat_fold"], reference=self.config.reference_folds)
            splits.setdefault(split, []).append(row)
        return split_generators(splits, SHARD)

    def _with_files(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records whose header is there; the others are counted in one warning."""
        root, column = self.config.root(), _file_column(self.config.name)
        start = len(str(root)) + 1
        headers = {path[start:].replace(os.sep, "/") for path in _files_below(root / self.config.name)}
        present = [row for row in rows if f"{row[column]}.hea" in headers]
        if not present:
            raise EcgDataError(f"none of the {len(rows)} records of the table is in {root / self.config.name}")
        if len(present) < len(rows):
            logger.warning(
                "%d of %d records of the table have no file in %s and are left out",
                len(rows) - len(present),
                len(rows),
                root / self.config.name,
            )
        return present

    def _generate_examples(self, shards: list[list[dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for rows in shards:
            for row in rows:
                example = self._example(row)
                if example is not None:
                    yield row["ecg_id"], example

    def _example(self, row: dict[str, Any]) -> dict[str, Any] | None:
        if self.config.name == "reports":
            report = row["report_en"] if self.config.translate else row["report"]
            return report_question("ptb_xl", row["ecg_id"], report, row["filename_hr"])
        example = {name: row[name] for name in self.info.features if name in row}
        if self.config.name == "metadata":
            return example
        filename = row[_file_column(self.config.name)]
        shape = (NUM_LEADS, RATES[self.config.name] * SECONDS)
        path, rate, skip = self.config.root() / filename, RATES[self.config.name], self.config.skip_unreadable
        signal = stored_columns_or_none(path, shape, rate, skip_unreadable=skip)
        return None if signal is None else {**example, "filename": filename, **signal}


def main_table(root: str | Path) -> Path:
    """PTB-XL's table of records: `ptbxl_database.csv`, or `labels.csv` where that is not there.

    Raises:
        EcgDataError: there is neither.
    """
    for name in ("ptbxl_database.csv", "labels.csv"):
        if (Path(root) / name).is_file():
            return Path(root) / name
    raise EcgDataError(f"{root} has neither ptbxl_database.csv nor labels.csv; {_HINT}")


def read_records(tables: Sequence[str | Path]) -> list[dict[str, Any]]:
    """PTB-XL's records as its tables describe them, without signals.

    Args:
        tables: `ptbxl_database.csv` or tables with the same columns, or with the four lists of labels instead of
            `scp_codes`. `scp_statements.csv` must lie beside those of the first kind.

    Returns:
        For each record in the tables' order: `ecg_id`, `patient_id` (text), `age` (years; PTB-XL writes 300 above 89),
        `sex` (0 male, 1 female), `device`, `strat_fold`, `report` (mostly German), `scp_codes` (a list of `{"code",
        "likelihood"}`; 0 means that PTB-XL does not know how likely the statement is, not that it is absent),
        `superclass`, `subclass`, `form`, `rhythm` (sorted lists), `validated_by_human`, `filename_lr`, `filename_hr`.
        None stands for what a table does not tell.

    Raises:
        EcgDataError: a table is missing, lacks a column, has a line that is none, or differs from another one.
    """
    records: dict[int, dict[str, Any]] = {}
    source: dict[int, Path] = {}
    for table in tables:
        for record in _read_table(Path(table)):
            ecg_id = record["ecg_id"]
            if records.setdefault(ecg_id, record) != record or source.get(ecg_id) == Path(table):
                raise EcgDataError(f"ECG {ecg_id} is in {source[ecg_id]} and in {table}, expected it once")
            source[ecg_id] = Path(table)
    return list(records.values())


def _read_table(path: Path) -> Iterator[dict[str, Any]]:
    with CsvTable(path, _ALWAYS, hint=_HINT) as table:
        if "scp_codes" in table.columns:
            statements = read_statements(path.with_name("scp_statements.csv"))
        elif set(_LABEL_COLUMNS.values()) <= set(table.columns):
            statements = None
        else:
            raise EcgDataError(f"{path} has neither scp_codes nor {', '.join(_LABEL_COLUMNS.values())}; {_HINT}")
        for _, row in table:
            yield _record(row, statements, table.where)


def _record(row: dict[str, str], statements: Mapping[str, Mapping[str, str]] | None, where: str) -> dict[str, Any]:
    patient = whole_number(row["patient_id"], where, "patient_id")
    if patient is None:
        raise EcgDataError(f"{where}: patient_id is empty; without it no split can be checked")
    if statements is None:
        codes, labels = None, {name: _label_list(row[column], where) for name, column in _LABEL_COLUMNS.items()}
    else:
        codes = _scp_codes(row["scp_codes"], where)
        labels = aggregate([code["code"] for code in codes], statements)
    fold = required_number(row, "strat_fold", where)
    try:
        split_of_fold(fold)
    except EcgDataError as error:
        raise EcgDataError(f"{where}: {error}") from None
    return {
        "ecg_id": required_number(row, "ecg_id", where),
        "patient_id": str(patient),
        "age": whole_number(row.get("age", ""), where, "age"),
        "sex": whole_number(row.get("sex", ""), where, "sex"),
        "device": row.get("device", "").strip() or None,
        "strat_fold": fold,
        "report": row.get("report", "").strip() or None,
        "scp_codes": codes,
        **labels,
        "validated_by_human": _truth(row.get("validated_by_human", "").strip(), where),
        "filename_lr": record_path(row["filename_lr"], where),
        "filename_hr": record_path(row["filename_hr"], where),
    }


def _truth(text: str, where: str) -> bool | None:
    if text not in ("True", "False", ""):
        raise EcgDataError(f"{where}: validated_by_human is {text!r:.60}, expected True or False")
    return text == "True" if text else None


def _scp_codes(text: str, where: str) -> list[dict[str, Any]]:
    value = _literal(text, where, "scp_codes")
    if not isinstance(value, dict) or not all(
        isinstance(code, str) and isinstance(likelihood, int | float) for code, likelihood in value.items()
    ):
        raise EcgDataError(f"{where}: scp_codes is {text!r:.80}, expected statements with their likelihood")
    return [{"code": code, "likelihood": float(likelihood)} for code, likelihood in value.items()]


def _label_list(text: str, where: str) -> list[str]:
    value: list[str] = _literal(text or "[]", where, "a list of labels")
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise EcgDataError(f"{where}: got {text!r:.80}, expected a list of labels")
    return sorted({_UNDERSCORED.get(label, label) for label in value})


def _literal(text: str, where: str, what: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise EcgDataError(f"{where}: {what} is {text!r:.80}, expected a Python literal") from error


def read_statements(path: str | Path) -> dict[str, dict[str, str]]:
    """PTB-XL's `scp_statements.csv`: statement to its line.

    Raises:
        EcgDataError: the file is missing or is another one.
    """
    columns = ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")
    with CsvTable(path, columns, hint="PTB-XL's scp_statements.csv belongs beside its table") as table:
        # The column of the codes has no name.
        return {row[table.columns[0]]: row for _, row in table}


def aggregate(codes: Sequence[str], statements: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """The labels that a record's statements amount to, as PTB-XL's `example_physionet.py` takes them together.

    A statement counts whatever its likelihood, since 0 only says that it is unknown: all form and rhythm statements
    have 0. Statements that the table does not know are passed over.

    Returns:
        `superclass`, `subclass` (of diagnostic statements), `form`, `rhythm` (the statements themselves), each sorted.

    Example:
        >>> lines = {"SR": {"diagnostic": "", "form": "", "rhythm": "1.0"}}
        >>> aggregate(["SR", "unknown"], lines)["rhythm"]
        ['SR']
    """
    known = [(code, statements[code]) for code in codes if code in statements]
    diagnostic = [line for _, line in known if _is_set(line["diagnostic"])]
    found: dict[str, set[str]] = {
        "superclass": {line["diagnostic_class"] for line in diagnostic},
        "subclass": {line["diagnostic_subclass"] for line in diagnostic},
        "form": {code for code, line in known if _is_set(line["form"])},
        "rhythm": {code for code, line in known if _is_set(line["rhythm"])},
    }
    return {name: sorted(labels - {""}) for name, labels in found.items()}


def _is_set(text: str) -> bool:
    return text.strip() in ("1", "1.0")


def _with_report(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that have a report; the others are counted in one warning."""
    kept = [row for row in rows if row["report"] is not None]
    if not kept:
        raise EcgDataError(f"none of {len(rows)} records has a report; reports need PTB-XL's ptbxl_database.csv")
    if len(kept) < len(rows):
        logger.warning("%d of %d records have no report and are left out", len(rows) - len(kept), len(rows))
    return kept


def _translate(rows: list[dict[str, Any]], config: PtbXlConfig) -> None:
    """Give every row `report_en`."""
    reports = list(dict.fromkeys(row["report"] for row in rows if row["report"] is not None))
    translator = ReportTranslator(config.translation_model, device=config.translation_device)
    english = dict(zip(reports, translator.translate(reports), strict=True))
    for row in rows:
        row["report_en"] = english.get(row["report"])


def _file_column(config_name: str) -> str:
    return "filename_hr" if config_name == "records500" else "filename_lr"


def _files_below(folder: Path) -> list[str]:
    """All files of the folders of records, by one look at each folder; as text, which is faster by far."""
    return [os.path.join(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names]
