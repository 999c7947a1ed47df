"""Splits that share no patient, and the check that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def patient_fraction(patient: str, seed: int) -> float:
    """A number in [0, 1) that depends on the patient and the seed alone, whatever else is in the data set.

    Example:
        >>> patient_fraction("15709", 0) == patient_fraction("15709", 0)
        True
    """
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def split_of_patient(patient: str, seed: int = 0, always_test: Collection[str] = ()) -> str:
    """`train`, `validation` or `test` (70 : 10 : 20) for a data set without splits of its own, by patient.

    Args:
        patient: Its number as text, such as MIMIC's `subject_id`.
        seed: Of the division.
        always_test: Patients whose ECGs another data set tests on, such as ECG-QA's: a model that learnt from them
            could not be tested there.

    Example:
        >>> split_of_patient("10000032"), split_of_patient("10000032", always_test={"10000032"})
        ('train', 'test')
    """
    if patient in always_test:
        return "test"
    place = patient_fraction(patient, seed)
    return "train" if place < 0.7 else "validation" if place < 0.8 else "test"


def split_of_fold(strat_fold: int, *, reference: bool = False) -> str:
    """Split of one of PTB-XL's ten folds: 1 to 8 train, 9 validates, 10 tests, as its authors recommend.

    Args:
        strat_fold: 1 to 10.
        reference: The ECG-Byte paper's choice instead: 1 to 7 train, 8 validates, 9 and 10 test.

    Raises:
        EcgDataError: there is no such fold.

    Example:
        >>> [split_of_fold(fold) for fold in (8, 9, 10)], split_of_fold(8, reference=True)
        (['train', 'validation', 'test'], 'validation')
    """
    if not 1 <= strat_fold <= 10:
        raise EcgDataError(f"got the fold {strat_fold}, expected 1 to 10 as in PTB-XL's column strat_fold")
    last_to_train = 7 if reference else 8
    if strat_fold <= last_to_train:
        return "train"
    return "validation" if strat_fold == last_to_train + 1 else "test"


def hold_out_patients(
    rows: Iterable[dict[str, Any]], patients: Mapping[int, str | None], *, fraction: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Divide questions so that no patient is on both sides.

    Args:
        rows: Question rows.
        patients: Patient of every ECG; an ECG without one counts as a patient of its own.
        fraction: Share of patients to hold out.
        seed: Of the division.

    Returns:
        Rows kept, rows held out, and comparison rows whose two ECGs fall on different sides: those are in neither.

    Raises:
        EcgDataError: a share that is none.
    """
    if not 0.0 <= fraction < 1.0:
        raise EcgDataError(f"got the share {fraction} of patients to hold out, expected 0 or more and less than 1")
    kept: list[dict[str, Any]] = []
    held_out: list[dict[str, Any]] = []
    straddling: list[dict[str, Any]] = []
    for row in rows:
        sides = {patient_fraction(_patient(patients, ecg_id), seed) < fraction for ecg_id in row["ecg_id"]}
        target = straddling if len(sides) > 1 else held_out if True in sides else kept
        target.append(row)
    return kept, held_out, straddling


def overlap_report(
    splits: Mapping[str, Iterable[dict[str, Any]]], patients: Mapping[int, str | None]
) -> dict[str, dict[str, Any]]:
    """For each pair of splits the ECGs and patients they share, and how many ECGs have no known patient.

    Returns:
        `{"train/test": {"ecgs": [...], "patients": [...]}, ...}` and `{"unknown_patients": {split: count}}`.
    """
    ecgs = {name: {ecg_id for row in rows for ecg_id in row["ecg_id"]} for name, rows in splits.items()}
    known = {name: {patients[i] for i in ids if patients.get(i) is not None} for name, ids in ecgs.items()}
    report: dict[str, dict[str, Any]] = {
        f"{first}/{second}": {
            "ecgs": sorted(ecgs[first] & ecgs[second]),
            "patients": sorted(str(patient) for patient in known[first] & known[second]),
        }
        for first, second in combinations(ecgs, 2)
    }
    report["unknown_patients"] = {name: sum(patients.get(i) is None for i in ids) for name, ids in ecgs.items()}
    return report


def _patient(patients: Mapping[int, str | None], ecg_id: int) -> str:
    patient = patients.get(ecg_id)
    return f"ecg-{ecg_id}" if patient is None else patient
