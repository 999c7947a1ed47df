"""A labelled 12-lead ECG simulator: the labels are the parameters a record was made with.

Every wave is a Gaussian in time times a fixed direction in space (frontal and horizontal plane), projected on the
leads, so Einthoven's and Goldberger's relations hold exactly. It is a teaching signal, not a model of a heart: good
for finding out whether a model reads the signal at all, since every answer is known.

An irregular rhythm is made as atrial fibrillation: intervals vary from beat to beat, P waves are absent and small
fibrillatory waves take their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from ecgbyte_hf.models.leads_ecg_byte import REFERENCE_LEADS

RATES = ("bradycardia", "normal rate", "tachycardia")
RHYTHMS = ("regular", "irregular")
ST_SHIFTS = ("st depression", "normal st", "st elevation")
QRS_WIDTHS = ("narrow", "wide")
AXES = ("left axis deviation", "normal axis", "right axis deviation")

# Ranges leave a gap around each clinical threshold (60 and 100 bpm, 120 ms, 0.1 mV), so that no label is a matter of
# a few samples.
RATE_BPM = {"bradycardia": (40.0, 55.0), "normal rate": (65.0, 92.0), "tachycardia": (108.0, 150.0)}
RR_VARIATION = {"regular": (0.005, 0.03), "irregular": (0.15, 0.25)}
ST_MV = {"st depression": (-0.35, -0.15), "normal st": (-0.03, 0.03), "st elevation": (0.15, 0.35)}
QRS_MS = {"narrow": (80.0, 100.0), "wide": (135.0, 170.0)}
AXIS_DEGREES = {
    "left axis deviation": (-75.0, -40.0),
    "normal axis": (0.0, 75.0),
    "right axis deviation": (105.0, 160.0),
}

# Seconds between two R peaks, at least: an irregular tachycardia would fall below it by chance.
_SHORTEST_RR = 0.3

_FRONTAL_DEGREES = {"I": 0.0, "II": 60.0}
# Directions of the precordial leads in the horizontal plane, degrees from the left, anterior positive.
_HORIZONTAL_DEGREES = {"V1": 115.0, "V2": 94.0, "V3": 75.0, "V4": 50.0, "V5": 20.0, "V6": 0.0}


@dataclass(frozen=True)
class SimulatedLabels:
    """What one record was made with; the class names are the answers to its questions."""

    rate: str
    rhythm: str
    st: str
    qrs_width: str
    axis: str
    heart_rate_bpm: float
    rr_variation: float
    st_mv: float
    qrs_ms: float
    axis_degrees: float
    noise_mv: float

    def to_dict(self) -> dict[str, str | float]:
        """Names and values."""
        return asdict(self)


def record_rng(seed: int, number: int) -> np.random.Generator:
    """The generator of one record, for its labels and then its samples. No record depends on how many there are."""
    return np.random.default_rng([seed, number])


def draw_labels(rng: np.random.Generator, *, noise_mv: tuple[float, float] = (0.005, 0.03)) -> SimulatedLabels:
    """Draw every label independently and uniformly over its classes, then its value uniformly in the class."""
    rate, rhythm = str(rng.choice(RATES)), str(rng.choice(RHYTHMS))
    st, width, axis = str(rng.choice(ST_SHIFTS)), str(rng.choice(QRS_WIDTHS)), str(rng.choice(AXES))
    return SimulatedLabels(
        rate=rate,
        rhythm=rhythm,
        st=st,
        qrs_width=width,
        axis=axis,
        heart_rate_bpm=float(rng.uniform(*RATE_BPM[rate])),
        rr_variation=float(rng.uniform(*RR_VARIATION[rhythm])),
        st_mv=float(rng.uniform(*ST_MV[st])),
        qrs_ms=float(rng.uniform(*QRS_MS[width])),
        axis_degrees=float(rng.uniform(*AXIS_DEGREES[axis])),
        noise_mv=float(rng.uniform(*noise_mv)),
    )


def simulate(
    labels: SimulatedLabels,
    rng: np.random.Generator,
    *,
    duration: float = 10.0,
    sampling_rate: float = 500.0,
    leads: tuple[str, ...] = REFERENCE_LEADS,
) -> np.ndarray:
    """One record.

    Args:
        labels: What to make.
        rng: Source of beat times, noise and the amplitudes no question asks for.
        duration: Seconds.
        sampling_rate: Hz.
        leads: Lead names, rows in this order.

    Returns:
        Float32 (leads, samples) in mV.
    """
    num_samples = round(duration * sampling_rate)
    times = np.arange(num_samples) / sampling_rate
    beats = _beat_times(labels, rng, duration)
    vectors = np.zeros((3, num_samples))
    for wave in _waves(labels, rng):
        vectors += np.outer(wave.direction, _wave_train(wave, times, beats))
    if labels.rhythm == "irregular":
        vectors += _fibrillation(rng, times)
    rows = _project(vectors, leads)
    return (rows + _noise(labels, rng, rows.shape, times)).astype(np.float32)


def simulate_records(
    num_records: int,
    *,
    seed: int = 0,
    duration: float = 10.0,
    sampling_rate: float = 500.0,
    leads: tuple[str, ...] = REFERENCE_LEADS,
) -> Iterator[tuple[int, SimulatedLabels, np.ndarray]]:
    """(record number from 1, labels, signal) one by one; record k is the same whatever `num_records` is."""
    for number in range(1, num_records + 1):
        rng = record_rng(seed, number)
        labels = draw_labels(rng)
        yield number, labels, simulate(labels, rng, duration=duration, sampling_rate=sampling_rate, leads=leads)


@dataclass(frozen=True)
class _Wave:
    centre: float  # seconds from the R peak
    width: float  # seconds, standard deviation of each flank
    direction: np.ndarray  # (3,) mV: left, down, front
    plateau: float = 0.0  # seconds of constant height before the falling flank


def _beat_times(labels: SimulatedLabels, rng: np.random.Generator, duration: float) -> np.ndarray:
    """R peak times (seconds), with two beats before the window and two after it.

    The intervals inside the window have exactly the mean that `heart_rate_bpm` says, and logarithms that spread by
    `rr_variation`. Independent draws would not do: over 10 s they leave irregular rates up to 16 % off, beyond 60 bpm
    for one bradycardia in 500, and irregular rhythms as even as regular ones.
    """
    mean = 60.0 / labels.heart_rate_bpm
    first = mean * rng.uniform()
    count = max(int((duration - first) / mean), 0)
    inside = _intervals(rng.normal(size=count), labels.rr_variation, mean)
    before, after = mean * np.exp(labels.rr_variation * rng.normal(size=(2, 2)))
    last = first + inside.sum()
    # The beats next to the window stay outside it, or there would be an interval more to count.
    previous = first - max(before[0], first + 0.05)
    following = last + max(after[0], duration - last + 0.05)
    return np.concatenate(
        [[previous - before[1], previous], first + np.cumsum([0.0, *inside]), [following, following + after[1]]]
    )


def _intervals(normal: np.ndarray, variation: float, mean: float) -> np.ndarray:
    """Intervals with this mean, from normal numbers that are brought to mean 0 and deviation 1 first."""
    if not len(normal):
        return normal
    centred = normal - normal.mean()
    deviation = centred.std() or 1.0
    intervals = np.exp(variation * centred / deviation)
    intervals = np.maximum(intervals * (mean / intervals.mean()), _SHORTEST_RR)
    return intervals * (mean / intervals.mean())


def _fibrillation(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Fibrillatory waves (3, samples) in mV: 5 to 8 Hz, their size slowly changing."""
    size = rng.uniform(0.03, 0.07) * (1.0 + 0.3 * np.sin(2.0 * np.pi * rng.uniform(0.2, 0.5) * times))
    phase = 2.0 * np.pi * (rng.uniform(5.0, 8.0) * times + rng.uniform())
    return np.outer(np.array([0.6, 0.8, 0.8]), size * np.sin(phase))


def _direction(frontal_degrees: float, front: float, size: float) -> np.ndarray:
    angle = np.deg2rad(frontal_degrees)
    return size * np.array([np.cos(angle), np.sin(angle), front])


def _waves(labels: SimulatedLabels, rng: np.random.Generator) -> list[_Wave]:
    size = rng.uniform(0.8, 1.3)
    width = labels.qrs_ms / 1000.0
    r_sd = width / 5.0
    axis = labels.axis_degrees
    qt_scale = np.sqrt(60.0 / labels.heart_rate_bpm)
    st_start = 0.55 * width
    t_centre = st_start + 0.19 * qt_scale
    st_direction = np.array([1.0, 1.0, 0.4]) * labels.st_mv / np.cos(np.deg2rad(60.0 - 45.0)) / np.sqrt(2.0)
    p_wave = _Wave(-0.16 - 0.25 * width, 0.022, _direction(55.0, 0.15, rng.uniform(0.10, 0.18)))
    return [
        *([p_wave] if labels.rhythm == "regular" else []),
        _Wave(-0.40 * width, r_sd * 0.6, _direction(axis + 160.0, 0.3, 0.12 * size)),
        _Wave(0.0, r_sd, _direction(axis, -0.25, size)),
        _Wave(0.42 * width, r_sd * 0.7, _direction(axis + 190.0, -0.5, 0.25 * size)),
        _Wave(st_start, 0.02, st_direction, plateau=max(t_centre - st_start, 0.04)),
        _Wave(t_centre, 0.045 * qt_scale, _direction(45.0, 0.5, rng.uniform(0.22, 0.35))),
    ]


def _wave_train(wave: _Wave, times: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """The wave's shape at every beat, summed: (samples,), height 1."""
    total = np.zeros_like(times)
    reach = 4.0 * wave.width
    step = times[1] - times[0] if len(times) > 1 else 1.0
    for beat in beats:
        start = beat + wave.centre
        first = max(int((start - reach) / step), 0)
        last = min(int((start + wave.plateau + reach) / step) + 2, len(times))
        if first >= last:
            continue
        offset = times[first:last] - start
        outside = np.where(offset < 0.0, offset, np.maximum(offset - wave.plateau, 0.0))
        total[first:last] += np.exp(-0.5 * (outside / wave.width) ** 2)
    return total


def _project(vectors: np.ndarray, leads: tuple[str, ...]) -> np.ndarray:
    left, down, front = vectors
    lead_i = left
    lead_ii = left * np.cos(np.deg2rad(60.0)) + down * np.sin(np.deg2rad(60.0))
    rows = {
        "I": lead_i,
        "II": lead_ii,
        "III": lead_ii - lead_i,
        "aVR": -(lead_i + lead_ii) / 2.0,
        "aVL": lead_i - lead_ii / 2.0,
        "aVF": lead_ii - lead_i / 2.0,
    }
    for name, degrees in _HORIZONTAL_DEGREES.items():
        angle = np.deg2rad(degrees)
        rows[name] = left * np.cos(angle) + front * np.sin(angle) + 0.15 * down
    return np.stack([rows[name] for name in leads])


def _noise(labels: SimulatedLabels, rng: np.random.Generator, shape: tuple[int, ...], times: np.ndarray) -> np.ndarray:
    """Muscle noise, mains hum and baseline wander."""
    num_leads = shape[0]
    phase = rng.uniform(0.0, 2.0 * np.pi, (num_leads, 2))
    wander = rng.uniform(0.0, 0.06, (num_leads, 1)) * np.sin(
        2.0 * np.pi * rng.uniform(0.15, 0.4) * times + phase[:, :1]
    )
    hum = rng.uniform(0.0, 0.01, (num_leads, 1)) * np.sin(2.0 * np.pi * 50.0 * times + phase[:, 1:])
    return rng.normal(0.0, labels.noise_mv, shape) + wander + hum
