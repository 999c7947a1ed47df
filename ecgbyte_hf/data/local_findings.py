"""Simulated ECGs whose finding lies in a known place: an ST shift in one lead, in no other.

In a real ECG an ST shift is seen in several leads. Here it is not, so that it is known which samples an answer about
the ST segment can come from, and whether an explanation of the answer points at them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ecgbyte_hf.data.simulator import ST_SHIFTS, SimulatedLabels, draw_labels, record_rng, simulate

QUESTION = "What is the st segment of this ECG?"
#: Amount of a shift in mV; larger than the simulator's own, since one lead alone has it.
SHIFT_MV = (0.25, 0.45)
# Of the shift's height: where it is less, nothing can be seen beside the noise.
_VISIBLE = 0.1


@dataclass(frozen=True)
class LocalFinding:
    """A record with an ST shift in one lead, or with none.

    Attributes:
        signal: Float32 (leads, samples) in mV.
        place: Booleans (leads, samples): the samples that the shift changes.
        answer: One of `ST_SHIFTS`.
        lead: Which lead; `None` for a normal ST segment.
    """

    signal: np.ndarray
    place: np.ndarray
    answer: str
    lead: str | None


def local_st_shift(
    number: int, *, leads: tuple[str, ...], duration: float, sampling_rate: float, seed: int = 0
) -> LocalFinding:
    """Record `number` of a seed: elevation, depression and none are as likely, and so is each lead.

    All else is regular, with narrow QRS complexes and a normal axis, and differs from record to record as in
    `simulate`.

    Args:
        number: Of the record; it does not depend on others.
        leads: Lead names, rows in this order.
        duration: Seconds.
        sampling_rate: Hz.
        seed: The same seed and number give the same record.

    Example:
        >>> record = local_st_shift(3, leads=("I", "V2"), duration=2.0, sampling_rate=100)
        >>> record.answer, record.lead, record.signal.shape
        ('st depression', 'V2', (2, 200))
    """
    rng = record_rng(seed, number)
    labels = replace(
        draw_labels(rng),
        rhythm="regular",
        rr_variation=0.02,
        heart_rate_bpm=float(rng.uniform(60.0, 100.0)),
        st="normal st",
        st_mv=0.0,
        qrs_width="narrow",
        qrs_ms=float(rng.uniform(80.0, 100.0)),
        axis="normal axis",
        axis_degrees=float(rng.uniform(0.0, 75.0)),
    )
    answer, row = str(rng.choice(ST_SHIFTS)), int(rng.integers(len(leads)))
    amount = float(rng.uniform(*SHIFT_MV))
    samples_seed = int(rng.integers(2**32))
    shape = {"duration": duration, "sampling_rate": sampling_rate}
    signal = simulate(labels, np.random.default_rng(samples_seed), leads=leads, **shape)
    place = np.zeros(signal.shape, dtype=bool)
    if answer == "normal st":
        return LocalFinding(signal, place, answer, None)
    course = _st_course(labels, samples_seed, duration, sampling_rate)
    signal[row] += (amount if answer == "st elevation" else -amount) * course
    place[row] = course > _VISIBLE
    return LocalFinding(signal, place, answer, leads[row])


def _st_course(labels: SimulatedLabels, seed: int, duration: float, sampling_rate: float) -> np.ndarray:
    """The ST segments of a record as a curve (samples,) of height 1.

    Two records from the same draws, one with a shift of 1 mV in lead II and one without, differ in nothing else.
    """
    shape = {"duration": duration, "sampling_rate": sampling_rate}
    with_shift, without = (
        simulate(replace(labels, st_mv=amount), np.random.default_rng(seed), leads=("II",), **shape)[0]
        for amount in (1.0, 0.0)
    )
    return (with_shift - without).astype(np.float32)
