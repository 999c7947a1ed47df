"""Which records a tokenizer is learnt from, and the interval of mV that its symbols divide."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import CalibrationError
from ecgbyte_hf.models.tokenization_ecg_byte import EcgCalibration


def percentile_calibration(
    signals: Iterable[np.ndarray], *, num_values: int = 4_000_000, per_record: int = 4096, seed: int = 0
) -> EcgCalibration:
    """The 1st and 99th percentile over all records alike, half a millivolt added on either side.

    The same number of values is drawn from every record, so no record counts more than another; the paper's code
    stops after 100,000 values, which come from the first few records.

    Args:
        signals: Float arrays (leads, samples) in mV.
        num_values: Most values kept; when more are drawn, a uniform part of all of them.
        per_record: Values drawn from each record, without replacement.
        seed: Of the draw.

    Raises:
        CalibrationError: there is no signal.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for signal in signals:
        values = np.asarray(signal).reshape(-1)
        drawn.append(values if len(values) <= per_record else rng.choice(values, per_record, replace=False))
    if not drawn:
        raise CalibrationError("no records to calibrate on; the training split is empty")
    pool = np.concatenate(drawn)
    if len(pool) > num_values:
        pool = rng.choice(pool, num_values, replace=False)
    p1, p99 = np.percentile(pool, [1.0, 99.0])
    return EcgCalibration.from_percentiles(float(p1), float(p99))
