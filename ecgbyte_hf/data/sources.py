"""`prepare` for each data set: where its records and questions come from, and how they are divided."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgbyte_hf.data import load_dataset
from ecgbyte_hf.data.ecg_qa import PAPER_QUESTION_TYPES, ptb_xl_path, read_template_options
from ecgbyte_hf.data.label_questions import (
    DEFAULT_LABEL_SETS,
    count_labels,
    count_unlabelled,
    label_questions,
    label_template_options,
)
from ecgbyte_hf.data.mimic_iv_ecg import read_record_paths
from ecgbyte_hf.data.preparation import PrepareOptions, RecordSource, prepare
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.ptb_xl import main_table
from ecgbyte_hf.data.questions import ecg_ids_of, question_table
from ecgbyte_hf.data.record_metadata import read_ptb_xl_metadata
from ecgbyte_hf.data.simulator import AXIS_DEGREES, SimulatedLabels, draw_labels, record_rng, simulate
from ecgbyte_hf.data.splits import (
    Folds,
    hold_out_patients,
    keep_fraction,
    resplit_rows,
    split_of_fold,
    without_shared_patients,
)
from ecgbyte_hf.data.synthetic import (
    ATTRIBUTES,
    question_rng,
    questions_about,
    synthetic_split,
    synthetic_template_options,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

logger = logging.getLogger(__name__)

# Name of the part of ECG-QA's own training split that no training question shares a patient with. It is named so
# that nobody takes it for ECG-QA's test split.
HELD_OUT_SPLIT = "train_patient_disjoint"
#: How questions are divided: the data set's own splits, less what would share a patient; as published; the paper's.
SPLITTINGS = ("disjoint", "published", "reference")


@dataclass(frozen=True)
class Division:
    """Which questions are taken, and how they are divided.

    Attributes:
        splits: `"disjoint"`: the data set's own splits, without those training and validation questions whose patient
            is in a later split too. `"published"`: as they are. `"reference"`: the ECG-Byte paper's, pooled and
            divided by row, so that test questions have their ECG and paraphrase in training.
        fraction: Share of the patients, all questions of an ECG together.
        held_out_fraction: Share of the training patients whose questions become the split `train_patient_disjoint`;
            for question types that the files at hand have in training alone.
        question_types: Only these, `("paper",)` for the three that the paper takes of ECG-QA; all by default.
        seed: Of every draw.
    """

    splits: str = "disjoint"
    fraction: float = 1.0
    held_out_fraction: float = 0.0
    question_types: Sequence[str] | None = None
    seed: int = 0

    def apply(
        self, tables: Mapping[str, pa.Table], patients: Mapping[int, str | None]
    ) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Divide questions.

        Args:
            tables: Rows of `QUESTION_FEATURES` by split.
            patients: Patient of every ECG, where known.

        Returns:
            The rows by split, and the counts of what was left out and why.

        Raises:
            EcgDataError: an unknown division or share, or a question type that does not occur.
        """
        if self.splits not in SPLITTINGS:
            raise EcgDataError(f"got the splits {self.splits!r}, expected one of {', '.join(SPLITTINGS)}")
        divided = _of_types(tables, self.question_types)
        notes: dict[str, Any] = {"splits": self.splits}
        if self.splits == "reference":
            divided = _resplit(divided, self.seed)
            logger.warning(
                "the paper's splits are by row: patients, ECGs and paraphrases are on both sides; see the report's "
                "overlap. Scores on them are not comparable with others"
            )
        if self.fraction != 1.0:
            keep = {
                name: keep_fraction(ecg_ids_of(table), patients, fraction=self.fraction, seed=self.seed)
                for name, table in divided.items()
            }
            divided, notes["questions_outside_fraction"] = _filtered(divided, keep)
        if self.splits == "disjoint":
            keep = without_shared_patients({name: ecg_ids_of(table) for name, table in divided.items()}, patients)
            divided, dropped = _filtered(divided, keep)
            notes["questions_of_patients_in_a_later_split"] = dropped
            if any(dropped.values()):
                logger.warning("questions left out since their patient is in a later split: %s", dropped)
        if self.held_out_fraction != 0.0 and "train" in divided:
            train = divided["train"]
            sides = np.array(
                hold_out_patients(ecg_ids_of(train), patients, fraction=self.held_out_fraction, seed=self.seed),
                dtype=object,
            )
            divided["train"], divided[HELD_OUT_SPLIT] = (
                train.filter(pa.array(sides == name, pa.bool_())) for name in ("kept", "held_out")
            )
            notes["questions_straddling_held_out_part"] = int(np.count_nonzero(sides == "straddling"))
            if notes["questions_straddling_held_out_part"]:
                logger.warning(
                    "%d comparison questions have an ECG on either side of the held-out part",
                    notes["questions_straddling_held_out_part"],
                )
        return divided, notes


def _of_types(tables: Mapping[str, pa.Table], question_types: Sequence[str] | None) -> dict[str, pa.Table]:
    if question_types is None:
        return dict(tables)
    there = {kind for table in tables.values() for kind in table.column("question_type").unique().to_pylist()}
    wanted = PAPER_QUESTION_TYPES if tuple(question_types) == ("paper",) else tuple(question_types)
    if not there.intersection(wanted) or (wanted != PAPER_QUESTION_TYPES and not there.issuperset(wanted)):
        raise EcgDataError(
            f"got the question types {', '.join(question_types)}; those that are there: {', '.join(sorted(there))}"
        )
    return {
        name: table.filter(pc.is_in(table.column("question_type"), pa.array(wanted))) for name, table in tables.items()
    }


def _filtered(
    tables: Mapping[str, pa.Table], keep: Mapping[str, Sequence[bool]]
) -> tuple[dict[str, pa.Table], dict[str, int]]:
    """The rows to keep, and how many of each split were not."""
    kept = {name: table.filter(pa.array(keep[name], pa.bool_())) for name, table in tables.items()}
    return kept, {name: tables[name].num_rows - table.num_rows for name, table in kept.items()}


def _resplit(tables: Mapping[str, pa.Table], seed: int) -> dict[str, pa.Table]:
    pooled = pa.concat_tables(tables.values())
    names = np.array(resplit_rows(pooled.num_rows, seed), dtype=object)
    return {name: pooled.filter(pa.array(names == name, pa.bool_())) for name in ("train", "validation", "test")}


@dataclass(frozen=True)
class SimulatedSource(RecordSource):
    """A record that is simulated when it is its turn.

    Attributes:
        seed: Of the simulator.
        attributes: What is asked about; see `prepare_synthetic`.
        duration: Seconds.
    """

    seed: int = 0
    attributes: tuple[str, ...] = tuple(ATTRIBUTES)
    duration: float = 10.0

    def load(self) -> Any:
        """The record."""
        label, rng = _draw(self.seed, self.ecg_id, self.attributes)
        rate, leads = float(self.sampling_rate or 0.0), tuple(self.lead_names)
        signal = simulate(label, rng, duration=self.duration, sampling_rate=rate, leads=leads)
        return SimpleNamespace(signal=signal, sampling_rate=rate, lead_names=leads, name=self.name)

    def identity(self) -> list[Any]:
        """What it is made with."""
        made_with = [self.seed, list(self.attributes), self.duration, self.sampling_rate, list(self.lead_names)]
        return [self.ecg_id, self.patient_id, *made_with]


def prepare_synthetic(
    output_dir: str | Path,
    *,
    feature_extractor: Any,
    num_records: int,
    seed: int = 0,
    attributes: Sequence[str] = tuple(ATTRIBUTES),
    duration: float = 10.0,
    **options: Unpack[PrepareOptions],
) -> PreparedData:
    """Simulate records at the feature extractor's rate and leads, and the questions about them.

    Args:
        output_dir: Folder to write.
        feature_extractor: Decides leads and sampling rate.
        num_records: Records of all splits together.
        seed: Of the simulator.
        attributes: What is asked. Without `"axis"` the electrical axis is normal in every record: one lead cannot
            show it, and far from normal it makes the QRS complex vanish from some leads.
        duration: Seconds.
        options: See `prepare`.
    """
    leads, rate = tuple(feature_extractor.leads), float(feature_extractor.sampling_rate)
    questions: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for ecg_id in range(1, num_records + 1):
        labels, _ = _draw(seed, ecg_id, attributes)
        rows = questions_about(ecg_id, labels, question_rng(seed, ecg_id), tuple(attributes))
        questions[synthetic_split(ecg_id)].extend(rows)
    sources = [
        SimulatedSource(
            ecg_id,
            patient_id=f"simulated-{ecg_id}",
            sampling_rate=rate,
            lead_names=leads,
            seed=seed,
            attributes=tuple(attributes),
            duration=duration,
        )
        for ecg_id in range(1, num_records + 1)
    ]
    return prepare(
        sources,
        questions,
        output_dir,
        feature_extractor=feature_extractor,
        template_options=synthetic_template_options(),
        duration=duration,
        arguments={"source": "synthetic", "num_records": num_records, "seed": seed, "attributes": list(attributes)},
        notes={"source": "synthetic"},
        **options,
    )


def _draw(seed: int, ecg_id: int, attributes: Sequence[str]) -> tuple[SimulatedLabels, np.random.Generator]:
    rng = record_rng(seed, ecg_id)
    labels = draw_labels(rng)
    if "axis" not in attributes:
        degrees = float(rng.uniform(*AXIS_DEGREES["normal axis"]))
        labels = replace(labels, axis="normal axis", axis_degrees=degrees)
    return labels, rng


def prepare_ecg_qa(
    output_dir: str | Path,
    *,
    data_dir: str | Path,
    signals_dir: str | Path,
    feature_extractor: Any,
    config: str | Sequence[str] = "ptbxl-template",
    metadata: Sequence[str | Path] = (),
    division: Division | None = None,
    duration: float = 10.0,
    **options: Unpack[PrepareOptions],
) -> PreparedData:
    """ECG-QA's questions on the recordings below `signals_dir`.

    Questions whose record is not there are left out and counted.

    Args:
        output_dir: Folder to write.
        data_dir: ECG-QA's `ecgqa` folder.
        signals_dir: The folder of PTB-XL, with `records500/` in it, or that of MIMIC-IV-ECG, with `files/` in it.
        feature_extractor: Cleans the records.
        config: `{ptbxl,mimic-iv-ecg}-{template,paraphrased}`, or both wordings of one: then the rows of the same
            split are pooled. The two word the same questions, so both halves of a pair are in the same split.
        metadata: For PTB-XL CSV files with `ecg_id` and `patient_id`, by default `ptbxl_database.csv` of
            `signals_dir`; for MIMIC-IV-ECG its record list, by default `record_list.csv`.
        division: Which questions are taken, and how they are divided.
        duration: Seconds kept of each record.
        options: See `prepare`.

    Raises:
        EcgDataError: no metadata, no questions, or no records.
    """
    configs = [config] if isinstance(config, str) else list(dict.fromkeys(config))
    halves = {name.rpartition("-")[0] for name in configs}
    if len(halves) != 1:
        raise EcgDataError(f"got the configurations {configs}, expected one or both wordings of one half of ECG-QA")
    half = halves.pop()
    division = division or Division()
    tables = _pooled(load_dataset("ecg_qa", name, data_dir=data_dir) for name in configs)
    paths, patients = _recordings(half, Path(signals_dir), metadata, tables)
    return _prepare_files(
        output_dir,
        tables,
        paths,
        patients,
        division,
        feature_extractor=feature_extractor,
        template_options=read_template_options(Path(data_dir) / half / "answers_for_each_template.csv"),
        duration=duration,
        source=f"ecg_qa {' '.join(configs)}",
        facts=read_ptb_xl_metadata(_patient_tables(Path(signals_dir), metadata)) if half == "ptbxl" else None,
        **options,
    )


@dataclass(frozen=True)
class LabelOptions:
    """What is asked about PTB-XL's labels.

    Attributes:
        label_sets: Some of `LABEL_SETS`.
        negatives: In training, at most so many questions of each set and record whose answer is no; all by default.
            Validation and test are always asked everything.
    """

    label_sets: Sequence[str] = DEFAULT_LABEL_SETS
    negatives: int | None = None

    def tables(self, records: Mapping[str, list[dict[str, Any]]], seed: int) -> dict[str, pa.Table]:
        """The questions about the records of each split.

        Raises:
            EcgDataError: an unknown set or label, or less than one negative.
        """
        return {
            split: question_table(
                label_questions(
                    rows, self.label_sets, negatives=self.negatives if split == "train" else None, seed=seed
                )
            )
            for split, rows in records.items()
        }


def prepare_ptb_xl(
    output_dir: str | Path,
    *,
    data_dir: str | Path,
    feature_extractor: Any,
    sampling_rate: int = 500,
    questions: str = "reports",
    labels: LabelOptions | None = None,
    folds: Folds | None = None,
    translation_model: str | None = None,
    metadata: Sequence[str | Path] = (),
    division: Division | None = None,
    duration: float = 10.0,
    **options: Unpack[PrepareOptions],
) -> PreparedData:
    """PTB-XL's records with questions about their reports or their labels, by PTB-XL's folds.

    Args:
        output_dir: Folder to write.
        data_dir: PTB-XL's folder.
        feature_extractor: Cleans the records.
        sampling_rate: 500 or 100, whose files are read.
        questions: `"reports"`: the paper's question, whose answer is the report. `"labels"`: whether the ECG shows
            each label of some sets; a folder with `labels.csv` has these alone.
        labels: Of `"labels"`: which sets, by default the five diagnostic superclasses.
        folds: Which folds train, validate and test, if not PTB-XL's own 1 to 8, 9, 10.
        translation_model: Translates the reports into English, such as `Helsinki-NLP/opus-mt-de-en`; by default they
            stay as they are, mostly German.
        metadata: Further tables like `ptbxl_database.csv`.
        division: Which questions are taken; `"reference"` takes the paper's folds.
        duration: Seconds kept of each record.
        options: See `prepare`.

    Raises:
        EcgDataError: no table, no records, another rate or kind of questions, or two choices of folds.
    """
    division = division or Division()
    is_reference = division.splits == "reference"
    columns = {500: "filename_hr", 100: "filename_lr"}
    if sampling_rate not in columns or questions not in ("reports", "labels"):
        raise EcgDataError(
            f"got {sampling_rate} Hz and questions on {questions!r}, expected 500 or 100 and 'reports' or 'labels'"
        )
    if is_reference and folds is not None:
        raise EcgDataError("got the paper's splits and a choice of folds, which differ; leave one of them out")
    further = [str(path) for path in map(Path.resolve, map(Path, metadata)) if path != main_table(data_dir).resolve()]
    given: dict[str, Any] = {"data_dir": data_dir, "metadata": further, "reference_folds": is_reference}
    records = load_dataset("ptb_xl", "metadata", **given)
    by_split = _records_by_split(records, folds)
    notes: dict[str, Any] = {
        "translation_model": translation_model,
        "folds": folds.to_dict() if folds else _usual_folds(is_reference),
        "records_of_other_folds": sum(map(len, records.values())) - sum(map(len, by_split.values())),
    }
    labels = labels or LabelOptions()
    if questions == "reports":
        english: dict[str, Any] = (
            {} if translation_model is None else {"translate": True, "translation_model": translation_model}
        )
        tables = _pooled([load_dataset("ptb_xl", "reports", **given, **english)])
        tables = tables if folds is None else _of_splits(tables, by_split)
    else:
        tables = labels.tables(by_split, division.seed)
        notes["label_options"] = asdict(labels)
        notes["records_without_label"] = {
            split: count_unlabelled(rows, labels.label_sets) for split, rows in by_split.items()
        }
    return _prepare_files(
        output_dir,
        tables,
        _paths_of(records, data_dir, columns[sampling_rate]),
        _patients_of(records),
        division,
        feature_extractor=feature_extractor,
        template_options=label_template_options(labels.label_sets) if questions == "labels" else {},
        duration=duration,
        source=f"ptb_xl records{sampling_rate} {questions}",
        facts=read_ptb_xl_metadata([main_table(data_dir), *further]),
        # The paper's folds are PTB-XL's too: by patient, and divided already.
        applied=replace(division, splits="published") if is_reference else division,
        notes=notes,
        count=_label_counts if questions == "labels" else None,
        **options,
    )


def _records_by_split(records: Any, folds: Folds | None) -> dict[str, list[dict[str, Any]]]:
    """The rows of `metadata` by split.

    Raises:
        EcgDataError: a split's folds have no record.
    """
    if folds is None:
        return {split: list(rows) for split, rows in records.items()}
    divided: dict[str, list[dict[str, Any]]] = {split: [] for split in folds.to_dict()}
    there: set[int] = set()
    for rows in records.values():
        for row in rows:
            there.add(row["strat_fold"])
            split = folds.split_of(row["strat_fold"])
            if split is not None:
                divided[split].append(row)
    for split, chosen in folds.to_dict().items():
        if not divided[split]:
            raise EcgDataError(
                f"no record is in the folds {chosen} for {split}; the tables have the folds {sorted(there)}"
            )
    return divided


def _of_splits(tables: Mapping[str, pa.Table], records: Mapping[str, list[dict[str, Any]]]) -> dict[str, pa.Table]:
    """Questions about one ECG each, in the split of their record; those about other records are left out."""
    pooled = pa.concat_tables(tables.values())
    asked = pc.list_element(pooled.column("ecg_id"), 0)
    return {
        split: pooled.filter(pc.is_in(asked, pa.array([row["ecg_id"] for row in rows], pa.int64())))
        for split, rows in records.items()
    }


def _usual_folds(is_reference: bool) -> dict[str, list[int]]:
    folds: dict[str, list[int]] = {}
    for fold in range(1, 11):
        folds.setdefault(split_of_fold(fold, reference=is_reference), []).append(fold)
    return folds


def _label_counts(tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    return {"labels": count_labels(tables)}


def prepare_mimic_iv_ecg(
    output_dir: str | Path,
    *,
    data_dir: str | Path,
    feature_extractor: Any,
    record_list: str | Path | None = None,
    ecg_qa_dir: str | Path | None = None,
    division: Division | None = None,
    duration: float = 10.0,
    **options: Unpack[PrepareOptions],
) -> PreparedData:
    """MIMIC-IV-ECG's records, with the machine's report as the answer to the paper's question, split by patient.

    Args:
        output_dir: Folder to write.
        data_dir: MIMIC-IV-ECG's folder.
        feature_extractor: Cleans the records.
        record_list: Its list of records if it is not `record_list.csv`.
        ecg_qa_dir: ECG-QA's `ecgqa` folder: patients that it tests on are then tested on here too.
        division: Which questions are taken.
        duration: Seconds kept of each record.
        options: See `prepare`.

    Raises:
        EcgDataError: no table, or no records.
    """
    division = division or Division()
    given = _mimic_options(data_dir, record_list, ecg_qa_dir, division)
    records = load_dataset("mimic_iv_ecg", "metadata", **given)
    return _prepare_files(
        output_dir,
        _pooled([load_dataset("mimic_iv_ecg", "reports", **given)]),
        _paths_of(records, data_dir, "filename"),
        _patients_of(records),
        division,
        feature_extractor=feature_extractor,
        template_options={},
        duration=duration,
        source="mimic_iv_ecg",
        **options,
    )


def prepare_ecg_chat(
    output_dir: str | Path,
    *,
    data_dir: str | Path,
    signals_dir: str | Path,
    feature_extractor: Any,
    file: str = "pretrain_mimic.json",
    ecg_qa_dir: str | Path | None = None,
    record_list: str | Path | None = None,
    division: Division | None = None,
    duration: float = 10.0,
    **options: Unpack[PrepareOptions],
) -> PreparedData:
    """ECG-Chat's conversations on the MIMIC-IV-ECG records below `signals_dir`, split by patient.

    Args:
        output_dir: Folder to write.
        data_dir: The folder with the conversations.
        signals_dir: MIMIC-IV-ECG's folder, with `files/` in it.
        feature_extractor: Cleans the records.
        file: The conversations, such as ECG-Chat's instructions, which have more turns.
        ecg_qa_dir: ECG-QA's `ecgqa` folder: patients that it tests on are then tested on here too.
        record_list: MIMIC's list of records if it is not `record_list.csv`.
        division: Which questions are taken.
        duration: Seconds kept of each record.
        options: See `prepare`.

    Raises:
        EcgDataError: no conversations, or no records.
    """
    division = division or Division()
    lists = [Path(record_list) if record_list else Path(signals_dir) / "record_list.csv"]
    given = _mimic_options(data_dir, lists[0] if ecg_qa_dir else None, ecg_qa_dir, division)
    tables = _pooled([load_dataset("ecg_chat", "pretrain_mimic", file=file, **given)])
    paths, patients = _recordings("mimic-iv-ecg", Path(signals_dir), lists, tables)
    return _prepare_files(
        output_dir,
        tables,
        paths,
        patients,
        division,
        feature_extractor=feature_extractor,
        template_options={},
        duration=duration,
        source=f"ecg_chat {Path(file).stem}",
        **options,
    )


def _prepare_files(
    output_dir: str | Path,
    tables: Mapping[str, pa.Table],
    paths: Mapping[int, Path],
    patients: Mapping[int, str | None],
    division: Division,
    *,
    feature_extractor: Any,
    template_options: Mapping[int, list[str]],
    duration: float,
    source: str,
    applied: Division | None = None,
    notes: Mapping[str, Any] | None = None,
    count: Callable[[Mapping[str, pa.Table]], dict[str, Any]] | None = None,
    facts: Mapping[int, Mapping[str, Any]] | None = None,
    **options: Unpack[PrepareOptions],
) -> PreparedData:
    """Divide the questions, and prepare the records asked about that are there.

    `count` counts the divided questions for the report.
    """
    with_question = {ecg_id for table in tables.values() for ids in ecg_ids_of(table) for ecg_id in ids}
    divided, counts = (applied or division).apply(tables, patients)
    asked = sorted({ecg_id for table in divided.values() for ids in ecg_ids_of(table) for ecg_id in ids})
    present = [ecg_id for ecg_id in asked if ecg_id in paths and _header(paths[ecg_id]).is_file()]
    if not present:
        example = next((str(paths[ecg_id]) for ecg_id in asked if ecg_id in paths), "none of them is in the tables")
        raise EcgDataError(f"none of the {len(asked)} records asked about is there ({example}); is the folder right?")
    if len(present) < len(asked):
        logger.warning("%d of the %d records asked about are not there", len(asked) - len(present), len(asked))
    return prepare(
        [RecordSource(ecg_id, str(paths[ecg_id]), patients.get(ecg_id)) for ecg_id in present],
        divided,
        output_dir,
        feature_extractor=feature_extractor,
        template_options=template_options,
        duration=duration,
        arguments={"source": source, "division": asdict(division)},
        notes={
            "source": source,
            "records_asked_about": len(asked),
            "records_not_there": len(asked) - len(present),
            "records_without_question": len(patients.keys() - with_question),
            **counts,
            **(notes or {}),
            **(count(divided) if count else {}),
            "splits": division.splits,
        },
        metadata=facts,
        **options,
    )


def _header(path: Path) -> Path:
    return path.with_name(f"{path.name}.hea")


def _pooled(data_sets: Iterable[Any]) -> dict[str, pa.Table]:
    """Rows of the same split of several data sets, as tables of `QUESTION_FEATURES`."""
    parts: dict[str, list[pa.Table]] = {}
    for data_set in data_sets:
        for split, rows in data_set.items():
            parts.setdefault(split, []).append(question_table(rows.with_format("arrow")[:]))
    return {split: pa.concat_tables(tables) for split, tables in parts.items()}


def _recordings(
    half: str, signals_dir: Path, metadata: Sequence[str | Path], tables: Mapping[str, pa.Table]
) -> tuple[dict[int, Path], dict[int, str | None]]:
    """Path and patient of the ECGs that questions of one half of ECG-QA may refer to."""
    if half == "ptbxl":
        patients = read_patients(_patient_tables(signals_dir, metadata))
        asked = {ecg_id for table in tables.values() for ids in ecg_ids_of(table) for ecg_id in ids}
        return {ecg_id: signals_dir / ptb_xl_path(ecg_id) for ecg_id in asked}, patients
    lists = [Path(path) for path in metadata] or [signals_dir / "record_list.csv"]
    found = {ecg_id: place for path in lists for ecg_id, place in read_record_paths(path).items()}
    return (
        {ecg_id: signals_dir / path for ecg_id, (path, _) in found.items()},
        {ecg_id: patient for ecg_id, (_, patient) in found.items()},
    )


def _patient_tables(signals_dir: Path, metadata: Sequence[str | Path]) -> list[Path]:
    return [Path(path) for path in metadata] or [signals_dir / "ptbxl_database.csv"]


def _mimic_options(
    data_dir: str | Path, record_list: str | Path | None, ecg_qa_dir: str | Path | None, division: Division
) -> dict[str, Any]:
    given: dict[str, Any] = {"data_dir": data_dir, "seed": division.seed}
    if record_list is not None:
        given["record_list"] = str(Path(record_list).resolve())
    if ecg_qa_dir is not None:
        given["ecg_qa_dir"] = str(ecg_qa_dir)
    return given


def _paths_of(records: Any, data_dir: str | Path, column: str) -> dict[int, Path]:
    return {
        ecg_id: Path(data_dir) / path
        for rows in records.values()
        for ecg_id, path in zip(rows["ecg_id"], rows[column], strict=True)
    }


def _patients_of(records: Any) -> dict[int, str | None]:
    return {
        ecg_id: patient
        for rows in records.values()
        for ecg_id, patient in zip(rows["ecg_id"], rows["patient_id"], strict=True)
    }


def read_patients(tables: Sequence[str | Path]) -> dict[int, str | None]:
    """Patient of every ECG from PTB-XL's tables.

    Raises:
        EcgDataError: a table is missing or lacks ecg_id or patient_id.
    """
    patients: dict[int, str | None] = {}
    for table in tables:
        try:
            with open(table, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                for row in reader:
                    ecg_id, patient = _patient_line(row, f"{table}, line {reader.line_num}")
                    if patients.setdefault(ecg_id, patient) != patient:
                        raise EcgDataError(f"{table}: ECG {ecg_id} has the patients {patients[ecg_id]} and {patient}")
        except OSError as error:
            raise EcgDataError(
                f"cannot read {table}: {error.strerror or error}; without patient ids no split can be checked. Name "
                "the table with --metadata"
            ) from error
        except UnicodeDecodeError as error:
            raise EcgDataError(f"{table} is not UTF-8 text: {error}") from error
        except csv.Error as error:
            raise EcgDataError(f"{table}: not a CSV table ({error})") from error
    return patients


def _patient_line(row: dict[str, Any], where: str) -> tuple[int, str | None]:
    try:
        patient = row["patient_id"].strip()
        # PTB-XL writes patients as "15709.0".
        return int(row["ecg_id"]), str(int(float(patient))) if patient else None
    except (KeyError, ValueError, OverflowError, AttributeError, TypeError) as error:
        got = {name: row.get(name) for name in ("ecg_id", "patient_id")}
        raise EcgDataError(f"{where}: got {got}, expected columns ecg_id and patient_id with numbers") from error
