"""Learn an ECG-Byte vocabulary from a prepared folder and say how well it fits records it has not seen.

The signals are never all in memory: one pass over the file draws the values of the calibration, a second feeds the
trainer, which keeps one byte per sample, a third measures on the records that were held out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data.calibration import PERCENTILES, percentile_calibration
from ecgbyte_hf.data.fingerprints import ecg_tokenizer_fingerprint
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.sampling import draw_uniform
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.provenance import provenance, write_json

# Records that one call of the core encodes while measuring.
_BATCH = 64


def train_tokenizer(
    prepared: PreparedData,
    output_dir: str | Path,
    *,
    num_merges: int,
    calibration: str = "percentile",
    percentiles: tuple[float, float] = PERCENTILES,
    lead_boundary: str = "cross",
    max_token_length: int | None = 1024,
    max_records: int | None = None,
    ecg_ids: Iterable[int] | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Train on the records of the training questions alone, save, and measure on the others.

    Args:
        prepared: The prepared folder.
        output_dir: Folder of the tokenizer; a `training.json` with the report is written beside its files.
        num_merges: Merges to learn.
        calibration: `"percentile"` or `"minmax"`.
        percentiles: Lower and upper, in per cent, for `"percentile"`.
        lead_boundary: `"cross"` or `"split"`.
        max_token_length: Longest token in samples.
        max_records: Most records to learn from, drawn uniformly; all by default.
        ecg_ids: Learn from these records and no others, such as those of `ecgbyte_hf.data.sampling.draw_stratified`.
        seed: Of that draw and of the calibration.
        num_threads: Threads of the Rust core.

    Returns:
        The report: `records_trained_on`, `merges`, `longest_token` (samples), `calibration` (mV), `held_out` (whether
        those measured on are others), their `tokenizer_report`, `seconds` of each pass, and `provenance`.

    Raises:
        EcgDataError: there are no training records, one of `ecg_ids` is not among them, `ecg_ids` and `max_records`
            are both given, or the prepared folder is damaged.
    """
    feature_extractor = EcgByteFeatureExtractor.from_pretrained(prepared.folder)
    train_ids = prepared.train_ecg_ids()
    held_out = sorted(set(prepared.ecg_ids) - set(train_ids))
    if not train_ids:
        raise EcgDataError(f"{prepared.folder} has no training records to learn a tokenizer from")
    if ecg_ids is not None:
        if max_records is not None:
            raise EcgDataError("got ecg_ids and max_records, expected one of them; draw fewer records instead")
        train_ids = check_training_records(prepared, ecg_ids)
    elif max_records is not None and len(train_ids) > max_records:
        train_ids = list(draw_uniform(train_ids, max_records, seed=seed).ecg_ids)
    seconds: dict[str, float] = {}
    with _timed(seconds, "calibrate"):
        bounds = calibrate(prepared, train_ids, calibration, percentiles, seed=seed)
    with _timed(seconds, "train"), _merge_bar() as progress:
        tokenizer = EcgByteTokenizer.train_from_iterator(
            _signals(prepared, train_ids, "read"),
            num_merges,
            calibration=bounds,
            lead_boundary=lead_boundary,
            max_token_length=max_token_length,
            sampling_rate=feature_extractor.sampling_rate,
            leads=feature_extractor.leads,
            feature_extractor=feature_extractor,
            num_threads=num_threads,
            progress=progress,
        )
    EcgByteProcessor(feature_extractor, tokenizer).save_pretrained(output_dir)
    with _timed(seconds, "measure"):
        signals = _signals(prepared, held_out or train_ids, "measure")
        fit = tokenizer_report(tokenizer, signals, num_threads=num_threads)
    report = {
        "records_trained_on": len(train_ids),
        "merges": tokenizer.num_merges,
        "longest_token": int(tokenizer.bpe.token_lengths.max()),
        "calibration": {"method": bounds.method, "low": bounds.low, "high": bounds.high},
        "held_out": bool(held_out),
        **fit,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "provenance": provenance(
            "train-tokenizer",
            {
                "num_merges": num_merges,
                "calibration": calibration,
                "percentiles": list(percentiles) if calibration == "percentile" else None,
                "lead_boundary": lead_boundary,
                "max_token_length": max_token_length,
                "max_records": max_records,
                "records": None if ecg_ids is None else _list_hash(train_ids),
                "window_seconds": prepared.window_seconds,
                "window_stride": prepared.window_stride,
                "seed": seed,
            },
            data_hash=prepared.report["data_hash"],
            data_source=prepared.report.get("source"),
            ecg=ecg_tokenizer_fingerprint(output_dir),
        ),
    }
    write_json(Path(output_dir) / "training.json", report)
    return report


def calibrate(
    prepared: PreparedData,
    ecg_ids: list[int],
    method: str,
    percentiles: tuple[float, float] = PERCENTILES,
    *,
    seed: int,
) -> EcgCalibration:
    """The calibration of a tokenizer for these records; see `train_tokenizer` for the methods."""
    if method != "percentile":
        return EcgCalibration(method)
    return percentile_calibration(_records(prepared, ecg_ids, "calibrate"), seed=seed, percentiles=percentiles)


def check_training_records(prepared: PreparedData, ecg_ids: Iterable[int]) -> list[int]:
    """The given records in ascending order, if a tokenizer may be learnt from them.

    Raises:
        EcgDataError: there are none, or some are not records of the training questions.
    """
    wanted = sorted(set(ecg_ids))
    if not wanted:
        raise EcgDataError("got an empty list of records, expected at least one to learn from")
    strangers = sorted(set(wanted) - set(prepared.train_ecg_ids()))
    if strangers:
        named = ", ".join(map(str, strangers[:5])) + (f" and {len(strangers) - 5} more" if len(strangers) > 5 else "")
        raise EcgDataError(
            f"{len(strangers)} of {len(wanted)} records are not in the training split of {prepared.folder}: {named}; "
            "a tokenizer must not be learnt from what it is judged on. Draw from this folder with `ecgbyte sample`"
        )
    return wanted


def _list_hash(ecg_ids: list[int]) -> str:
    """A hash of the records, so that a report says which they were without naming thousands."""
    return hashlib.sha256(" ".join(map(str, ecg_ids)).encode()).hexdigest()[:16]


def tokenizer_report(
    tokenizer: EcgByteTokenizer, signals: Iterable[np.ndarray], *, num_threads: int | None = None
) -> dict[str, Any]:
    """How a tokenizer fits signals.

    Args:
        tokenizer: The tokenizer.
        signals: Float arrays (leads, samples) in mV; read once, a generator will do.
        num_threads: Threads of the Rust core.

    Returns:
        `records`, `compression` (samples per token), `tokens_per_ecg` (mean), `vocabulary_used` (share of symbols
        and merges that occur), `round_trip` (share of records whose symbols come back exactly), `clipped` (share of
        samples outside the range), `half_bin_mv` and `max_error_mv` (inside the range).
    """
    records = samples = tokens = exact = clipped = 0
    is_used = np.zeros(tokenizer.num_ecg_tokens, dtype=bool)
    largest = widest = 0.0
    iterator = iter(signals)
    while batch := list(islice(iterator, _BATCH)):
        all_ids = tokenizer.encode_signal_batch(batch, num_threads=num_threads)
        for signal, ids in zip(batch, all_ids, strict=True):
            low, high = tokenizer.calibration.bounds(signal)
            comes_back, outside, error = _decoded(tokenizer, signal, ids, low, high)
            is_used[ids] = True
            records += 1
            samples += signal.size
            tokens += len(ids)
            exact += comes_back
            clipped += outside
            largest = max(largest, error)
            widest = max(widest, (high - low + 1e-6) / 52.0)
    return {
        "records": records,
        "compression": samples / max(tokens, 1),
        "tokens_per_ecg": tokens / max(records, 1),
        "vocabulary_used": int(np.count_nonzero(is_used)) / tokenizer.num_ecg_tokens,
        "round_trip": exact / max(records, 1),
        "clipped": clipped / max(samples, 1),
        "half_bin_mv": widest,
        "max_error_mv": largest,
    }


def _decoded(
    tokenizer: EcgByteTokenizer, signal: np.ndarray, ids: np.ndarray, low: float, high: float
) -> tuple[bool, int, float]:
    """Whether the symbols come back, how many samples lie outside the range, and the largest error of the others."""
    import rust_bpe

    own_range: dict[str, Any] = {"low": low, "high": high} if tokenizer.calibration.method == "minmax" else {}
    symbols = rust_bpe.quantize(signal, low, high)
    comes_back = np.array_equal(tokenizer.bpe.decode(ids), symbols.reshape(-1))
    values = signal.astype(np.float64)
    inside = np.clip(values, low, high)
    outside = int(np.count_nonzero(inside != values))
    error = np.abs(np.subtract(tokenizer.decode_signal(ids, **own_range), inside, out=inside), out=inside)
    return comes_back, outside, float(error.max(initial=0.0))


def _records(prepared: PreparedData, ecg_ids: list[int], name: str) -> Iterator[tuple[int, np.ndarray]]:
    from tqdm.auto import tqdm

    return iter(tqdm(prepared.iter_signals(ecg_ids), total=len(ecg_ids), desc=name, unit="record"))


def _signals(prepared: PreparedData, ecg_ids: list[int], name: str) -> Iterator[np.ndarray]:
    return (signal for _, signal in _records(prepared, ecg_ids, name))


@contextmanager
def _merge_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress callback that shows its bar from its first call on, when the records are read."""
    from tqdm.auto import tqdm

    with ExitStack() as stack:
        bars: list[Any] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(tqdm(total=total, desc="merges", unit="merge")))
            bars[0].update(done - bars[0].n)

        yield progress


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
