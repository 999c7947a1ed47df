"""Splits that share no patient, and the check that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def patient_fraction(patient: str, seed: int, purpose: str = "") -> float:
    """A number in [0, 1) that depends on the patient, the seed and the purpose, whatever else is in the data set.

    Two draws over the same patients need two purposes: a quarter of the patients drawn by the number that made them
    training patients would be training patients all.

    Example:
        >>> patient_fraction("15709", 0) == patient_fraction("15709", 0) != patient_fraction("15709", 0, "fraction")
        True
    """
    digest = hashlib.sha256(f"{purpose}{seed}:{patient}".encode()).digest()
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


@dataclass(frozen=True)
class Folds:
    """Another use of PTB-XL's ten folds than its authors': to choose on one fold and to report another.

    Attributes:
        test: The fold that tests.
        validation: The fold that validates; none by default.
        train: The folds to train on; by default those of 1 to 8 that neither test nor validate, so that PTB-XL's own
            validation and test folds are never trained on unless they are named.

    Raises:
        EcgDataError: there is no such fold, or one is named twice.

    Example:
        >>> choosing = Folds(test=9, validation=8)
        >>> [choosing.split_of(fold) for fold in (7, 8, 9, 10)], Folds(test=9).split_of(8)
        (['train', 'validation', 'test', None], 'train')
    """

    test: int
    validation: int | None = None
    train: Sequence[int] | None = None

    def __post_init__(self) -> None:
        named = [fold for folds in self.to_dict().values() for fold in folds]
        for fold in named:
            split_of_fold(fold)
        if len(set(named)) < len(named):
            raise EcgDataError(f"got the folds {self.to_dict()}, expected each of them once")

    def to_dict(self) -> dict[str, list[int]]:
        """The folds of each split; a split without any is left out."""
        taken = {self.test, self.validation}
        train = [fold for fold in range(1, 9) if fold not in taken] if self.train is None else list(self.train)
        validation = [] if self.validation is None else [self.validation]
        named = {"train": train, "validation": validation, "test": [self.test]}
        return {split: folds for split, folds in named.items() if folds}

    def split_of(self, strat_fold: int) -> str | None:
        """The split of a fold; `None` for one that is left out."""
        return next((split for split, folds in self.to_dict().items() if strat_fold in folds), None)


def hold_out_patients(
    ecg_ids: Iterable[Sequence[int]], patients: Mapping[int, str | None], *, fraction: float, seed: int
) -> list[str]:
    """Divide questions so that no patient is on both sides.

    Args:
        ecg_ids: The ECGs of each question.
        patients: Patient of every ECG; an ECG without one counts as a patient of its own.
        fraction: Share of patients to hold out.
        seed: Of the division.

    Returns:
        For each question `"kept"`, `"held_out"`, or `"straddling"`: a comparison of two ECGs on different sides.

    Raises:
        EcgDataError: a share that is none.
    """
    if not 0.0 <= fraction < 1.0:
        raise EcgDataError(f"got the share {fraction} of patients to hold out, expected 0 or more and less than 1")
    is_out = _PatientDraw(patients, fraction, seed, "hold-out")
    names = {frozenset([False]): "kept", frozenset([True]): "held_out"}
    return [names.get(frozenset(map(is_out, ids)), "straddling") for ids in ecg_ids]


def keep_fraction(
    ecg_ids: Iterable[Sequence[int]], patients: Mapping[int, str | None], *, fraction: float, seed: int
) -> list[bool]:
    """For each question, whether it is in a share of the patients: all questions about a patient's ECGs, or none.

    The paper used a quarter of each data set. A comparison is kept if both its patients are.

    Args:
        ecg_ids: The ECGs of each question.
        patients: Patient of every ECG; an ECG without one counts as a patient of its own.
        fraction: Share of patients to keep.
        seed: Of the draw.

    Raises:
        EcgDataError: a share that is none.
    """
    if not 0.0 < fraction <= 1.0:
        raise EcgDataError(f"got the share {fraction} of patients to keep, expected more than 0 and at most 1")
    is_kept = _PatientDraw(patients, fraction, seed, "fraction")
    return [all(map(is_kept, ids)) for ids in ecg_ids]


def without_shared_patients(
    splits: Mapping[str, Sequence[Sequence[int]]], patients: Mapping[int, str | None]
) -> dict[str, list[bool]]:
    """For each question of each split, whether it may stay so that no two splits share a patient or an ECG.

    What is tested on stays whole; validation gives way to it, and training to both.

    Args:
        splits: The ECGs of each question, by split.
        patients: Patient of every ECG; an ECG without one counts as a patient of its own.
    """
    order = sorted(splits, key=lambda name: ({"test": 0, "validation": 1}.get(name, 2), name))
    taken: set[str] = set()
    keep: dict[str, list[bool]] = {}
    for name in order:
        people = [{_patient(patients, ecg_id) for ecg_id in ids} for ids in splits[name]]
        keep[name] = [taken.isdisjoint(some) for some in people]
        taken |= {one for some, stays in zip(people, keep[name], strict=True) if stays for one in some}
    return {name: keep[name] for name in splits}


def resplit_rows(num_rows: int, seed: int) -> list[str]:
    """The ECG-Byte paper's split of pooled questions: 70 : 12 : 18 by row, whoever's ECG it is.

    Test questions then have their paraphrase and their ECG in training, so scores are not comparable with others.
    For the comparison with the paper alone.
    """
    names = ["train"] * num_rows
    order = np.random.default_rng(seed).permutation(num_rows)
    first, second = round(0.70 * num_rows), round(0.82 * num_rows)
    for name, part in (("validation", order[first:second]), ("test", order[second:])):
        for row in part.tolist():
            names[row] = name
    return names


def overlap_report(
    splits: Mapping[str, Iterable[Sequence[int]]], patients: Mapping[int, str | None]
) -> dict[str, dict[str, Any]]:
    """For each pair of splits the ECGs and patients they share, and how many ECGs have no known patient.

    Args:
        splits: The ECGs of each question, by split.
        patients: Patient of every ECG, where known.

    Returns:
        `{"train/test": {"ecgs": [...], "patients": [...]}, ...}` and `{"unknown_patients": {split: count}}`.
    """
    ecgs = {name: {ecg_id for ids in questions for ecg_id in ids} for name, questions in splits.items()}
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


class _PatientDraw:
    """Whether an ECG's patient is among a share of them."""

    def __init__(self, patients: Mapping[int, str | None], fraction: float, seed: int, purpose: str) -> None:
        self._patients, self._fraction, self._seed, self._purpose = patients, fraction, seed, purpose
        self._known: dict[str, bool] = {}

    def __call__(self, ecg_id: int) -> bool:
        patient = _patient(self._patients, ecg_id)
        if patient not in self._known:
            self._known[patient] = patient_fraction(patient, self._seed, self._purpose) < self._fraction
        return self._known[patient]


def _patient(patients: Mapping[int, str | None], ecg_id: int) -> str:
    patient = patients.get(ecg_id)
    return f"ecg-{ecg_id}" if patient is None else patient
