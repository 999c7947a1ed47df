"""What happens to a model's answers when recordings get worse: noise, wander, gain, lost leads, swapped electrodes.

The stored signals are changed, so cleaning has been done before: this measures the model, not the filters.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError
from ecgbyte_hf.models.leads_ecg_byte import LIMB_LEADS_FROM_I_AND_II

# Hz of wander by breathing and movement.
_WANDER_BAND = (0.15, 0.4)
# What each limb lead shows when two electrodes are exchanged, as (weight of I, weight of II). With I = LA - RA and
# II = LL - RA, every limb lead follows from those two; the chest leads' reference, the mean of the three, stays.
_TRUE = {"I": (1.0, 0.0), "II": (0.0, 1.0), **LIMB_LEADS_FROM_I_AND_II}
_SWAPS = {
    "ra-la": {"I": ("I", -1.0), "II": ("III", 1.0)},
    "la-ll": {"I": ("II", 1.0), "II": ("I", 1.0)},
    "ra-ll": {"I": ("III", -1.0), "II": ("II", -1.0)},
}


@dataclass(frozen=True)
class Perturbation:
    """One change of a signal.

    Args:
        kind: `noise` (white, standard deviation in mV), `wander` (a sine of 0.15 to 0.4 Hz per lead, amplitude in mV),
            `gain` (factor), `drop` (so many leads, drawn for each record, are flat), or `swap` (electrodes exchanged:
            `ra-la`, `la-ll` or `ra-ll`).
        value: How much, or which.

    Raises:
        EcgDataError: another kind, or a value that it does not take.

    Example:
        >>> Perturbation.parse("noise=0.1")
        Perturbation(kind='noise', value='0.1')
    """

    kind: str
    value: str

    def __post_init__(self) -> None:
        """Check what a user wrote."""
        if self.kind == "swap":
            if self.value not in _SWAPS:
                raise EcgDataError(f"got swap={self.value}, expected one of {', '.join(_SWAPS)}")
            return
        if self.kind not in _CHANGES:
            raise EcgDataError(f"got {self.kind}={self.value}, expected one of {', '.join([*_CHANGES, 'swap'])}")
        try:
            amount = float(self.value)
        except ValueError as error:
            raise EcgDataError(f"got {self.kind}={self.value}, expected a number") from error
        if not (np.isfinite(amount) and amount >= 0) or (self.kind == "drop" and amount != int(amount)):
            whole = "whole " if self.kind == "drop" else ""
            raise EcgDataError(f"got {self.kind}={self.value}, expected a {whole}number of at least 0")

    @classmethod
    def parse(cls, text: str) -> Perturbation:
        """Read `KIND=VALUE`."""
        kind, equals, value = text.partition("=")
        if not equals:
            raise EcgDataError(f"got {text!r}, expected KIND=VALUE, such as noise=0.1")
        return cls(kind, value)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.kind}={self.value}"

    def apply(
        self, signal: np.ndarray, *, lead_names: Sequence[str], sampling_rate: float, rng: np.random.Generator
    ) -> np.ndarray:
        """A changed copy.

        Args:
            signal: (leads, samples) in mV.
            lead_names: Of its rows.
            sampling_rate: Hz.
            rng: What is drawn comes from it.

        Raises:
            LeadError: limb leads are swapped and I or II is not there; all leads, or more, would be dropped.
        """
        if self.kind == "swap":
            return _swap(signal, lead_names, self.value)
        return _CHANGES[self.kind](signal, float(self.value), sampling_rate, rng).astype(signal.dtype)


class PerturbedRecords:
    """Records of a prepared folder, or of windows of it, with changed signals.

    Use `perturb`; the object takes the place of `PreparedData.records`.
    """

    def __init__(
        self, prepared: PreparedData, perturbations: Sequence[Perturbation], seed: int, only: Iterable[int] | None
    ) -> None:
        self._records = prepared.records
        self._perturbations = list(perturbations)
        self._seed = seed
        self._only = None if only is None else set(only)
        #: What was done, for the identity of a run.
        self.changes = (*map(str, perturbations), f"seed={seed}")
        self._lead_names = prepared.leads
        self._sampling_rate = prepared.sampling_rate
        self.ecg_ids = self._records.ecg_ids
        self.patients = self._records.patients

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the records as they are stored."""
        return self._records.fingerprint

    def signal(self, ecg_id: int) -> np.ndarray:
        """The changed signal of one record, the same at every call: (leads, samples) in mV, read-only."""
        return self._changed(ecg_id, self._records.signal(ecg_id))

    def iter_signals(self, ecg_ids: Iterable[int] | None = None) -> Generator[tuple[int, np.ndarray], None, None]:
        """Number and changed signal of records, in the order of the file."""
        for ecg_id, signal in self._records.iter_signals(ecg_ids):
            yield ecg_id, self._changed(ecg_id, signal)

    def _changed(self, ecg_id: int, signal: np.ndarray) -> np.ndarray:
        if self._only is not None and ecg_id not in self._only:
            return signal
        rng = np.random.default_rng([self._seed, ecg_id])
        for perturbation in self._perturbations:
            signal = perturbation.apply(
                signal, lead_names=self._lead_names, sampling_rate=self._sampling_rate, rng=rng
            )
        signal.flags.writeable = False
        return signal


def perturb(
    prepared: PreparedData, perturbations: Iterable[str], *, seed: int = 0, only: Iterable[int] | None = None
) -> PreparedData:
    """Let a prepared folder, whole or in windows, show changed signals.

    Args:
        prepared: The opened folder; it is changed itself, its files are not.
        perturbations: As `Perturbation.parse` reads them; they are done in this order, each on whole records.
        seed: Of what is drawn, together with the record's number.
        only: Numbers of the records to change; all by default.

    Returns:
        The same object.

    Raises:
        EcgDataError: a text that is no perturbation.
        LeadError: its leads do not allow one.
    """
    parsed = [Perturbation.parse(text) for text in perturbations]
    for perturbation in parsed:
        # Before hours of work: a small signal tells whether the leads are there.
        perturbation.apply(
            np.zeros((len(prepared.leads), 2), dtype=np.float32),
            lead_names=prepared.leads,
            sampling_rate=prepared.sampling_rate,
            rng=np.random.default_rng(0),
        )
    changed: Any = PerturbedRecords(prepared, parsed, seed, only)
    prepared.records = changed
    return prepared


def _noise(signal: np.ndarray, amount: float, sampling_rate: float, rng: np.random.Generator) -> np.ndarray:
    return signal + rng.normal(scale=amount, size=signal.shape)


def _wander(signal: np.ndarray, amount: float, sampling_rate: float, rng: np.random.Generator) -> np.ndarray:
    leads, samples = signal.shape
    frequency = rng.uniform(*_WANDER_BAND, size=(leads, 1))
    phase = rng.uniform(0.0, 2.0 * np.pi, size=(leads, 1))
    return signal + amount * np.sin(2.0 * np.pi * frequency * np.arange(samples) / sampling_rate + phase)


def _gain(signal: np.ndarray, amount: float, sampling_rate: float, rng: np.random.Generator) -> np.ndarray:
    return signal * amount


def _drop(signal: np.ndarray, amount: float, sampling_rate: float, rng: np.random.Generator) -> np.ndarray:
    leads = len(signal)
    if amount >= leads:
        raise LeadError(f"got drop={amount:g} for records of {leads} leads, expected fewer")
    changed = signal.copy()
    changed[rng.choice(leads, size=int(amount), replace=False)] = 0.0
    return changed


_CHANGES: dict[str, Callable[[np.ndarray, float, float, np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "wander": _wander,
    "gain": _gain,
    "drop": _drop,
}


def _swap(signal: np.ndarray, lead_names: Sequence[str], which: str) -> np.ndarray:
    """The limb leads as they are recorded with two electrodes exchanged."""
    rows = {name: index for index, name in enumerate(lead_names)}
    if missing := [name for name in ("I", "II") if name not in rows]:
        raise LeadError(f"got swap={which} for records without {', '.join(missing)}: limb leads follow from I and II")
    basis = signal[[rows["I"], rows["II"]]]
    seen = np.array([weight * np.array(_TRUE[source]) for source, weight in _SWAPS[which].values()]) @ basis
    changed = signal.copy()
    for name, weights in _TRUE.items():
        if name in rows:
            changed[rows[name]] = np.array(weights) @ seen
    return changed
