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
    stops after 100,000 values, which come from the first few records. One pass, and a bounded number of values in
    memory, however many records there are.

    Args:
        signals: Float arrays (leads, samples) in mV; a generator will do.
        num_values: Most values kept, if that leaves at least one of each record. When more are drawn, half of each
            record's are dropped, again and again.
        per_record: Values drawn from each record at first, without replacement.
        seed: Of the draw.

    Raises:
        CalibrationError: there is no signal.
    """
    rng = np.random.default_rng(seed)
    drawn: list[np.ndarray] = []
    count = 0
    for signal in signals:
        values = np.asarray(signal).reshape(-1)
        # In random order, so that any first part of a draw is a uniform draw too.
        drawn.append(rng.choice(values, min(len(values), per_record), replace=False))
        count += len(drawn[-1])
        while count > num_values and per_record > 1:
            per_record //= 2
            drawn = [values[:per_record].copy() for values in drawn]
            count = sum(map(len, drawn))
    if not drawn:
        raise CalibrationError("no records to calibrate on; the training split is empty")
    p1, p99 = np.percentile(np.concatenate(drawn), [1.0, 99.0])
    return EcgCalibration.from_percentiles(float(p1), float(p99))
