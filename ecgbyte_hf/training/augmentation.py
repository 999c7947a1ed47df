"""Random changes of the signals that training rows are made of.

A language model that reads tokens can be thrown off by noise that nobody sees: a few microvolts move a sample to the
next symbol, and the tokens around it become others. Rows of changed signals show that different tokens can mean the
same.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ecgbyte_hf.evaluation.perturbations import Perturbation
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

#: What can be drawn, and from which interval.
KINDS = {
    "noise": "0 to MV",
    "wander": "0 to MV",
    "gain": "1/FACTOR to FACTOR, evenly on a logarithmic scale",
    "drop": "0 to LEADS",
}


class Augmentation:
    """Changes of a signal by amounts that are drawn anew for each record, or window of one.

    Args:
        changes: `KIND=MOST` each, done in this order: `noise=MV` (standard deviation), `wander=MV` (amplitude),
            `gain=FACTOR`, `drop=LEADS` (flat leads). How much of it is drawn: see `KINDS`.
        sampling_rate: Hz.
        seed: Of the draws, together with the record's or window's number: the same rows every time.

    Raises:
        EcgDataError: another kind, or an amount that it does not take.

    Example:
        >>> augmentation = Augmentation(["gain=2"], sampling_rate=100, seed=0)
        >>> bool(0.5 <= augmentation(17, np.ones((1, 3)))[0, 0] <= 2.0)
        True
    """

    def __init__(self, changes: Iterable[str], *, sampling_rate: float, seed: int) -> None:
        self._parsed = [Perturbation.parse(change) for change in changes]
        for change in self._parsed:
            if change.kind not in KINDS:
                raise EcgDataError(f"got {change}, expected one of {', '.join(KINDS)}")
            if change.kind == "gain" and float(change.value) < 1.0:
                raise EcgDataError(f"got {change}, expected a factor of at least 1")
        self._sampling_rate = sampling_rate
        self._seed = seed

    def __str__(self) -> str:
        """The changes as they were given."""
        return " ".join(map(str, self._parsed))

    def __call__(self, ecg_id: int, signal: np.ndarray) -> np.ndarray:
        """A changed copy of (leads, samples) in mV.

        Raises:
            LeadError: all leads, or more, would be dropped.
        """
        rng = np.random.default_rng([self._seed, ecg_id])
        for change in self._parsed:
            most = float(change.value)
            if change.kind == "gain":
                amount = float(np.exp(rng.uniform(-np.log(most), np.log(most))))
            elif change.kind == "drop":
                amount = int(rng.integers(0, int(most), endpoint=True))
            else:
                amount = rng.uniform(0.0, most)
            drawn = Perturbation(change.kind, repr(amount))
            signal = drawn.apply(signal, lead_names=(), sampling_rate=self._sampling_rate, rng=rng)
        return signal
