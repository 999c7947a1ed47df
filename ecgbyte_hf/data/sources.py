"""`prepare` for each data set: where its records and questions come from."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data import load_dataset
from ecgbyte_hf.data.ecg_qa import ptb_xl_path, read_template_options
from ecgbyte_hf.data.prepared import PreparedData, RecordSource, prepare
from ecgbyte_hf.data.simulator import AXIS_DEGREES, SimulatedLabels, draw_labels, record_rng, simulate
from ecgbyte_hf.data.splits import hold_out_patients
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


def prepare_synthetic(
    output_dir: str | Path,
    *,
    feature_extractor: Any,
    num_records: int,
    seed: int = 0,
    duration: float = 10.0,
    attributes: Sequence[str] = tuple(ATTRIBUTES),
    num_proc: int = 1,
) -> PreparedData:
    """Simulate records at the feature extractor's rate and leads, and the questions about them.

    Args:
        output_dir: Folder to write.
        feature_extractor: Decides leads and sampling rate.
        num_records: Records of all splits together.
        seed: Of the simulator.
        duration: Seconds.
        attributes: What is asked. Without `"axis"` the electrical axis is normal in every record: one lead cannot
            show it, and far from normal it makes the QRS complex vanish from some leads.
        num_proc: Processes that clean.
    """
    leads = tuple(feature_extractor.leads)
    rate = float(feature_extractor.sampling_rate)
    labels = [_draw(seed, ecg_id, attributes) for ecg_id in range(1, num_records + 1)]
    questions: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for ecg_id, (label, _) in enumerate(labels, start=1):
        rows = questions_about(ecg_id, label, question_rng(seed, ecg_id), tuple(attributes))
        questions[synthetic_split(ecg_id)].extend(rows)

    def sources() -> Iterator[RecordSource]:
        for ecg_id, (label, rng) in enumerate(labels, start=1):
            signal = simulate(label, rng, duration=duration, sampling_rate=rate, leads=leads)
            yield RecordSource(ecg_id, None, f"simulated-{ecg_id}", signal, rate, leads)

    return prepare(
        sources(),
        questions,
        output_dir,
        feature_extractor=feature_extractor,
        template_options=synthetic_template_options(),
        duration=duration,
        arguments={"source": "synthetic", "num_records": num_records, "seed": seed, "attributes": list(attributes)},
        num_records=num_records,
        num_proc=num_proc,
        notes={"source": "synthetic"},
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
    duration: float = 10.0,
    held_out_fraction: float = 0.0,
    seed: int = 0,
    num_proc: int = 1,
) -> PreparedData:
    """ECG-QA's questions on the PTB-XL records below `signals_dir`, with ECG-QA's own splits.

    Questions whose record is not there are left out and counted.

    Args:
        output_dir: Folder to write.
        data_dir: ECG-QA's `ecgqa` folder.
        signals_dir: PTB-XL's folder, with `records500/` in it.
        feature_extractor: Cleans the records.
        config: `ptbxl-template` or `ptbxl-paraphrased`, or both: then the rows of the same split are pooled. The two
            word the same questions, so both halves of a pair are in the same split.
        metadata: CSV files with `ecg_id` and `patient_id`; `ptbxl_database.csv` of `signals_dir` by default.
        duration: Seconds kept of each record.
        held_out_fraction: Share of the training split's patients whose questions become the split
            `train_patient_disjoint` instead; for question types that the files at hand have in training alone.
        seed: Of that division.
        num_proc: Processes.

    Raises:
        EcgDataError: no metadata, no questions, or no records.
    """
    configs = [config] if isinstance(config, str) else list(dict.fromkeys(config))
    if not configs or not all(name.startswith("ptbxl-") for name in configs):
        raise EcgDataError(f"prepare reads ECG-QA's PTB-XL half so far, got config {config!r}; use ptbxl-template")
    signals_dir, data_dir = Path(signals_dir), Path(data_dir)
    tables = [Path(path) for path in metadata] or [signals_dir / "ptbxl_database.csv"]
    patients = read_patients(tables)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in configs:
        for split, dataset in load_dataset("ecg_qa", name, data_dir=data_dir).items():
            rows.setdefault(split, []).extend(dataset.to_list())
    asked = sorted({ecg_id for split in rows.values() for row in split for ecg_id in row["ecg_id"]})
    straddling = 0
    if held_out_fraction != 0.0 and "train" in rows:
        rows["train"], held_out, both = hold_out_patients(
            rows["train"], patients, fraction=held_out_fraction, seed=seed
        )
        rows[HELD_OUT_SPLIT] = held_out
        straddling = len(both)
        if both:
            logger.warning("%d comparison questions have an ECG on either side of the held-out part", straddling)
    present = [ecg_id for ecg_id in asked if (signals_dir / f"{ptb_xl_path(ecg_id)}.hea").is_file()]
    if not present:
        raise EcgDataError(f"none of the {len(asked)} records asked about is in {signals_dir}/records500")
    sources = [
        RecordSource(ecg_id, str(signals_dir / ptb_xl_path(ecg_id)), patients.get(ecg_id)) for ecg_id in present
    ]
    return prepare(
        sources,
        rows,
        output_dir,
        feature_extractor=feature_extractor,
        template_options=read_template_options(data_dir / "ptbxl" / "answers_for_each_template.csv"),
        duration=duration,
        arguments={
            "source": "ecg_qa",
            "config": configs,
            "held_out_fraction": held_out_fraction,
            "seed": seed,
        },
        num_records=len(sources),
        num_proc=num_proc,
        notes={
            "source": f"ecg_qa {' '.join(configs)}",
            "records_asked_about": len(asked),
            "records_not_there": len(asked) - len(present),
            "questions_straddling_held_out_part": straddling,
        },
    )


def read_patients(tables: Sequence[str | Path]) -> dict[int, str | None]:
    """Patient of every ECG from PTB-XL's tables.

    Raises:
        EcgDataError: a table is missing or lacks ecg_id or patient_id.
    """
    patients: dict[int, str | None] = {}
    for table in tables:
        try:
            with open(table, encoding="utf-8", newline="") as file:
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
    return patients


def _patient_line(row: dict[str, Any], where: str) -> tuple[int, str | None]:
    try:
        patient = row["patient_id"].strip()
        # PTB-XL writes patients as "15709.0".
        return int(row["ecg_id"]), str(int(float(patient))) if patient else None
    except (KeyError, ValueError, OverflowError, AttributeError, TypeError) as error:
        got = {name: row.get(name) for name in ("ecg_id", "patient_id")}
        raise EcgDataError(f"{where}: got {got}, expected columns ecg_id and patient_id with numbers") from error
