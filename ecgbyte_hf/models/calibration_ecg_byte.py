"""The interval of mV that the 26 symbols of ECG-Byte divide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .errors_ecg_byte import CalibrationError, SignalError

PERCENTILE_MARGIN_MV = 0.5


def is_finite_number(value: Any) -> bool:
    """Whether `value` is a number other than NaN and infinity; text that looks like one is not."""
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


@dataclass(frozen=True)
class EcgCalibration:
    """The interval of mV that the 26 symbols divide.

    Args:
        method: `"percentile"` (one interval for all records) or `"minmax"` (every record's own minimum and maximum).
        low: Lower end in mV; `None` for `"minmax"`.
        high: Upper end in mV; `None` for `"minmax"`.

    Raises:
        CalibrationError: the ends are missing, not finite, or not in order.

    Example:
        >>> EcgCalibration.from_percentiles(-0.75, 1.25)
        EcgCalibration(method='percentile', low=-1.25, high=1.75)
    """

    method: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Check the ends."""
        if self.method == "minmax":
            if self.low is not None or self.high is not None:
                raise CalibrationError("calibration 'minmax' takes each record's own range; leave low and high out")
        elif self.method != "percentile":
            raise CalibrationError(f"unknown calibration {self.method!r}; known: 'percentile', 'minmax'")
        elif not (is_finite_number(self.low) and is_finite_number(self.high)):
            raise CalibrationError(f"calibration needs finite low and high in mV, got {self.low!r} and {self.high!r}")
        elif cast(float, self.low) >= cast(float, self.high):
            raise CalibrationError(f"calibration needs low < high, got {self.low} and {self.high} mV")

    @classmethod
    def from_percentiles(cls, p1: float, p99: float) -> EcgCalibration:
        """The paper's interval: half a millivolt beyond the corpus' 1st and 99th percentile, or others (in mV)."""
        if p1 > p99:
            raise CalibrationError(f"the lower percentile cannot be above the upper one, got {p1} and {p99} mV")
        return cls("percentile", float(p1) - PERCENTILE_MARGIN_MV, float(p99) + PERCENTILE_MARGIN_MV)

    @classmethod
    def minmax(cls) -> EcgCalibration:
        """Every record's own minimum and maximum, as the released tokenizers of the paper were made."""
        return cls("minmax")

    def bounds(self, signal: np.ndarray) -> tuple[float, float]:
        """The (low, high) in mV that apply to `signal` (leads, samples)."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        if signal.size == 0:
            raise SignalError("an empty signal has no minimum and maximum; calibration 'minmax' needs samples")
        return float(signal.min()), float(signal.max())
