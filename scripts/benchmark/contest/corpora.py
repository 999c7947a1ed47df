"""The records that are trained on and encoded: simulated, real, and as many fresh ones as one likes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from tqdm import tqdm

LEADS, SAMPLES, SAMPLING_RATE = 12, 2500, 250
NUM_SYMBOLS = 26
FIRST_LETTER = ord("a")

#: Folders of recordings, in the order in which they are taken, and the cleaning that their sampling rate allows.
REAL_FOLDERS = (
    ("ptbxl/records500", "reference"),
    ("mimic_iv_ecg", "reference"),
    ("ptbxl100/records100", "reference-low"),
)


@dataclass(frozen=True)
class Corpus:
    """Quantised records in files.

    Attributes:
        name: "simulated" or "real".
        folder: Holds `train.npy` (records, symbols) uint8, `held_out.npy` likewise, and `held_out_mv.npy` (records,
            leads, samples) float32.
        low: Lower end of the quantised interval, mV.
        high: Upper end.
        about: What the result file says of it.
    """

    name: str
    folder: Path
    low: float
    high: float
    about: dict[str, Any]

    @property
    def train(self) -> Path:
        """The file of training records."""
        return self.folder / "train.npy"


def simulated_signals(num_records: int, seed: int) -> list[np.ndarray]:
    """Float32 (leads, samples) in mV, each with noise of its own."""
    from ecgbyte_hf.data.simulator import simulate_records

    records = simulate_records(
        num_records, seed=seed, sampling_rate=float(SAMPLING_RATE), duration=SAMPLES / SAMPLING_RATE
    )
    return [signal for _, _, signal in tqdm(records, total=num_records, desc="simulate", unit="record", leave=False)]


def real_signals(folder: Path, num_records: int) -> tuple[list[np.ndarray], dict[str, int]]:
    """Cleaned 10 s recordings of `REAL_FOLDERS`, and how many came from where or were refused for what."""
    from ecgbyte_hf.models.errors_ecg_byte import EcgError
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
    from ecgbyte_hf.signal.records import read_ecg

    signals: list[np.ndarray] = []
    counts: Counter[str] = Counter()
    with tqdm(total=num_records, desc="read and clean", unit="record", leave=False) as bar:
        for name, profile in REAL_FOLDERS:
            extractor = EcgByteFeatureExtractor(profile=profile, sampling_rate=SAMPLING_RATE)
            for header in sorted((folder / name).rglob("*.hea")):
                if len(signals) == num_records:
                    return signals, dict(counts)
                try:
                    signal = extractor.clean(read_ecg(header))
                except EcgError as error:
                    counts[f"{name}: refused, {type(error).__name__}"] += 1
                    continue
                if signal.shape != (LEADS, SAMPLES):
                    counts[f"{name}: refused, not 10 s long"] += 1
                    continue
                counts[f"{name}, profile {profile}"] += 1
                signals.append(signal)
                bar.update()
    return signals, dict(counts)


def make_corpus(name: str, signals: list[np.ndarray], held_out: int, folder: Path, about: dict[str, Any]) -> Corpus:
    """Hold records out evenly, quantise all by the training records' percentiles, and write the files.

    Raises:
        ValueError: there are too few records.
    """
    import rust_bpe
    from ecgbyte_hf.data.calibration import percentile_calibration

    if len(signals) < 2 * held_out:
        raise ValueError(
            f"{name}: got {len(signals)} records, of which {held_out} are held out; expected twice as many. Give more "
            "records, or a smaller --held-out"
        )
    kept_back = set(np.linspace(0, len(signals) - 1, held_out).astype(int).tolist())
    train = [signal for index, signal in enumerate(signals) if index not in kept_back]
    test = [signals[index] for index in sorted(kept_back)]
    calibration = percentile_calibration(enumerate(train))
    low, high = calibration.bounds(train[0])

    folder.mkdir(parents=True, exist_ok=True)
    quantised = []
    for part, members in (("train", train), ("held_out", test)):
        symbols = np.stack([rust_bpe.quantize(signal, low, high).reshape(-1) for signal in members])
        np.save(folder / f"{part}.npy", symbols)
        quantised.append(symbols)
    np.save(folder / "held_out_mv.npy", np.stack(test))
    distinct = DistinctRecords(record for symbols in quantised for record in symbols)
    total = sum(1 for _ in distinct)
    about = {
        **about,
        "records": len(train),
        "symbols": int(quantised[0].size),
        "held_out_records": len(test),
        "distinct_records": distinct.count,
        "all_records": total,
        "low_mv": low,
        "high_mv": high,
        "sha256": hashlib.sha256(quantised[0].tobytes()).hexdigest(),
    }
    return Corpus(name, folder, low, high, about)


@dataclass
class DistinctRecords:
    """Passes records on and remembers the 128-bit digest of each.

    Attributes:
        records: uint8 arrays.
        seconds: Spent in making and hashing records, that is, outside whoever takes them.
    """

    records: Iterable[np.ndarray]
    seconds: float = 0.0
    _digests: set[bytes] = field(default_factory=set, repr=False)

    @property
    def count(self) -> int:
        """How many different records have passed."""
        return len(self._digests)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The records."""
        start = time.perf_counter()
        for record in self.records:
            self._digests.add(hashlib.blake2b(record.tobytes(), digest_size=16).digest())
            self.seconds += time.perf_counter() - start
            yield record
            start = time.perf_counter()
        self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class FreshRecords:
    """A stream of quantised records of which none is stored: pool members, shifted, scaled, with noise of their own.

    Each record is a member of the pool, turned in time by a random number of samples, times a random gain, plus
    Gaussian noise that is drawn for it alone. Equal arguments give the same stream.

    Attributes:
        pool: Float32 (members, leads, samples) in mV.
        low: Lower end of the quantised interval, mV.
        high: Upper end.
        seed: Of the stream.
        noise_mv: Standard deviation of the noise.
        gains: Smallest and largest gain.
    """

    pool: np.ndarray
    low: float
    high: float
    seed: int = 0
    noise_mv: float = 0.02
    gains: tuple[float, float] = (0.8, 1.25)

    @staticmethod
    def make_pool(num_members: int, seed: int, path: Path) -> dict[str, Any]:
        """Simulate a pool and store it; returns what `load` takes."""
        from ecgbyte_hf.data.calibration import percentile_calibration

        signals = simulated_signals(num_members, seed)
        low, high = percentile_calibration(enumerate(signals)).bounds(signals[0])
        np.save(path, np.stack(signals))
        return {"path": str(path), "low": low, "high": high, "seed": seed}

    @classmethod
    def load(cls, path: str, low: float, high: float, seed: int) -> FreshRecords:
        """From a stored pool. Nothing but numpy is imported, so the process's memory is the trainer's."""
        return cls(np.load(path), low, high, seed)

    def take(self, num_records: int) -> Iterator[np.ndarray]:
        """uint8 (leads * samples,), one by one."""
        import rust_bpe

        members, leads, samples = self.pool.shape
        # The inverse distribution function at 16 random bits: fresh Gaussian noise of 65,536 steps in a fifth of the
        # time that `standard_normal` takes (0.06 instead of 0.3 ms for 30,000 values).
        inverse = NormalDist(sigma=self.noise_mv).inv_cdf
        gaussian = np.array([inverse((step + 0.5) / 2**16) for step in range(2**16)], dtype=np.float32)
        rng = np.random.Generator(np.random.SFC64(self.seed))
        noise = np.empty((leads, samples), dtype=np.float32)
        record = np.empty_like(noise)
        for _ in range(num_records):
            member = self.pool[rng.integers(members)]
            shift = int(rng.integers(samples))
            gain = np.float32(rng.uniform(*self.gains))
            np.multiply(member[:, shift:], gain, out=record[:, : samples - shift])
            np.multiply(member[:, :shift], gain, out=record[:, samples - shift :])
            words = rng.bit_generator.random_raw(-(-noise.size // 4))
            bits = words.view(np.uint16)[: noise.size].reshape(noise.shape)
            np.take(gaussian, bits, out=noise, mode="clip")  # with "raise", numpy would buffer `out`
            np.add(record, noise, out=record)
            yield rust_bpe.quantize(record, self.low, self.high).reshape(-1)
