"""The interval of mV that a tokenizer's symbols divide, from all its training records alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import CalibrationError
from ecgbyte_hf.models.tokenization_ecg_byte import EcgCalibration

#: The paper's, in per cent.
PERCENTILES = (1.0, 99.0)


class CalibrationSample:
    """A uniform draw of values out of every record, from which percentiles are taken.

    The same number of values is drawn from every record, so no record counts more than another; the paper's code
    stops after 100,000 values, which come from the first few records. Memory is bounded, however many records there
    are. The draw of a record depends on its number and the seed alone, so the result is the same in any order, and
    parts that were drawn by several processes can be merged.

    Args:
        num_values: Most values kept, if that leaves at least one of each record. When more are drawn, half of each
            record's are dropped, again and again.
        per_record: Values drawn from each record at first, without replacement.
        seed: Of the draw.

    Example:
        >>> ramp = np.linspace(-1.0, 1.0, 10_001).reshape(1, -1)
        >>> one, other = CalibrationSample(), CalibrationSample()
        >>> one.add(1, ramp)
        >>> other.add(2, 2 * ramp)
        >>> one.merge(other)
        >>> round(one.calibration().high - 0.5, 1)
        1.9
    """

    def __init__(self, num_values: int = 4_000_000, per_record: int = 4096, seed: int = 0) -> None:
        self._num_values = num_values
        self._per_record = per_record
        self._settings = (num_values, per_record, seed)
        self._seed = seed
        self._drawn: dict[int, np.ndarray] = {}
        self._count = 0

    def add(self, ecg_id: int, signal: np.ndarray) -> None:
        """Draw from one record: a float array in mV, of any shape.

        Raises:
            CalibrationError: the record was drawn from before.
        """
        values = np.asarray(signal).reshape(-1)
        # In random order, so that any first part of a draw is a uniform draw too.
        rng = np.random.default_rng([self._seed, ecg_id])
        # As many as at first, even if fewer are kept by now: the order of the records makes no difference.
        drawn = rng.choice(values, min(len(values), self._settings[1]), replace=False)
        self._keep(ecg_id, drawn[: self._per_record].copy())
        self._thin()

    def merge(self, other: CalibrationSample) -> None:
        """Take in what another process drew from other records.

        Raises:
            CalibrationError: a record is in both, or the settings differ.
        """
        if self._settings != other._settings:
            raise CalibrationError(
                f"got draws with (num_values, per_record, seed) = {self._settings} and {other._settings}, "
                "expected the same"
            )
        self._per_record = min(self._per_record, other._per_record)
        self._cut()
        for ecg_id, values in other._drawn.items():
            self._keep(ecg_id, values[: self._per_record].copy())
        self._thin()

    def calibration(self, percentiles: tuple[float, float] = PERCENTILES) -> EcgCalibration:
        """Two percentiles, half a millivolt added on either side.

        Args:
            percentiles: Lower and upper, in per cent.

        Raises:
            CalibrationError: there is no record, or these are no percentiles.
        """
        lower, upper = percentiles
        if not 0 <= lower < upper <= 100:
            raise CalibrationError(f"got the percentiles {lower:g} and {upper:g}, expected 0 <= lower < upper <= 100")
        if not self._drawn:
            raise CalibrationError("no records to calibrate on; the training split is empty")
        low, high = np.percentile(np.concatenate(list(self._drawn.values())), [lower, upper])
        return EcgCalibration.from_percentiles(float(low), float(high))

    def _keep(self, ecg_id: int, values: np.ndarray) -> None:
        if ecg_id in self._drawn:
            raise CalibrationError(f"record {ecg_id} was drawn from twice; every record counts once")
        self._drawn[ecg_id] = values
        self._count += len(values)

    def _thin(self) -> None:
        while self._count > self._num_values and self._per_record > 1:
            self._per_record //= 2
            self._cut()

    def _cut(self) -> None:
        self._drawn = {ecg_id: values[: self._per_record].copy() for ecg_id, values in self._drawn.items()}
        self._count = sum(map(len, self._drawn.values()))


def percentile_calibration(
    signals: Iterable[tuple[int, np.ndarray]],
    *,
    num_values: int = 4_000_000,
    per_record: int = 4096,
    seed: int = 0,
    percentiles: tuple[float, float] = PERCENTILES,
) -> EcgCalibration:
    """The calibration of a corpus in one pass; see `CalibrationSample`.

    Args:
        signals: Number and float array (leads, samples) in mV of each record; a generator will do.
        num_values: Most values kept.
        per_record: Values drawn from each record at first.
        seed: Of the draw.
        percentiles: Lower and upper, in per cent.

    Raises:
        CalibrationError: there is no record, one comes twice, or these are no percentiles.
    """
    sample = CalibrationSample(num_values, per_record, seed)
    for ecg_id, signal in signals:
        sample.add(ecg_id, signal)
    return sample.calibration(percentiles)
