"""Learn an ECG-Byte vocabulary from a prepared folder and say how well it fits records it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.sampling import percentile_calibration
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.provenance import provenance, write_json


def train_tokenizer(
    prepared: PreparedData,
    output_dir: str | Path,
    *,
    num_merges: int,
    calibration: str = "percentile",
    lead_boundary: str = "cross",
    max_token_length: int | None = 1024,
    max_records: int | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train on the records of the training questions alone, save, and measure on the others.

    Args:
        prepared: The prepared folder.
        output_dir: Folder of the tokenizer; a `training.json` with the report is written beside its files.
        num_merges: Merges to learn.
        calibration: `"percentile"` or `"minmax"`.
        lead_boundary: `"cross"` or `"split"`.
        max_token_length: Longest token in samples.
        max_records: Most records to learn from, drawn uniformly; all by default.
        seed: Of that draw and of the calibration.
        num_threads: Threads of the Rust core.
        progress: Called with (merges done, merges wanted).

    Returns:
        The report: compression and the rest of `tokenizer_report` on held-out records.
    """
    feature_extractor = EcgByteFeatureExtractor.from_pretrained(prepared.folder)
    train_ids = prepared.train_ecg_ids()
    held_out = sorted(set(prepared.ecg_ids) - set(train_ids))
    if not train_ids:
        raise EcgDataError(f"{prepared.folder} has no training records to learn a tokenizer from")
    if max_records is not None and len(train_ids) > max_records:
        train_ids = sorted(np.random.default_rng(seed).choice(train_ids, max_records, replace=False).tolist())
    bounds = (
        percentile_calibration((prepared.signal(i) for i in train_ids), seed=seed)
        if calibration == "percentile"
        else EcgCalibration(calibration)
    )
    tokenizer = EcgByteTokenizer.train_from_iterator(
        (prepared.signal(i) for i in train_ids),
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
    judged_on = held_out or train_ids
    report = {
        "records_trained_on": len(train_ids),
        "merges": tokenizer.num_merges,
        "held_out": bool(held_out),
        **tokenizer_report(tokenizer, [prepared.signal(i) for i in judged_on]),
        "provenance": provenance(
            "train-tokenizer",
            {
                "num_merges": num_merges,
                "calibration": calibration,
                "lead_boundary": lead_boundary,
                "max_token_length": max_token_length,
                "max_records": max_records,
                "seed": seed,
            },
            data_hash=prepared.report["data_hash"],
        ),
    }
    write_json(Path(output_dir) / "training.json", report)
    return report


def tokenizer_report(tokenizer: EcgByteTokenizer, signals: list[np.ndarray]) -> dict[str, Any]:
    """How a tokenizer fits signals.

    Args:
        tokenizer: The tokenizer.
        signals: Float arrays (leads, samples) in mV.

    Returns:
        `records`, `compression` (samples per token), `tokens_per_ecg` (mean), `vocabulary_used` (share of symbols
        and merges that occur), `round_trip` (share of records whose symbols come back exactly), `clipped` (share of
        samples outside the range), `half_bin_mv` and `max_error_mv` (inside the range).
    """
    import rust_bpe

    samples = tokens = exact = clipped = 0
    used: set[int] = set()
    largest = widest = 0.0
    for signal in signals:
        low, high = tokenizer.calibration.bounds(signal)
        ids = tokenizer.encode_signal(signal)
        used.update(np.unique(ids).tolist())
        samples += signal.size
        tokens += len(ids)
        exact += bool(np.array_equal(tokenizer.bpe.decode(ids), rust_bpe.quantize(signal, low, high).reshape(-1)))
        own = tokenizer.calibration.method == "minmax"
        decoded = tokenizer.decode_signal(ids, low=low if own else None, high=high if own else None)
        error = np.abs(decoded - np.clip(signal.astype(np.float64), low, high))
        clipped += int(((signal < low) | (signal > high)).sum())
        largest = max(largest, float(error.max()))
        widest = max(widest, (high - low + 1e-6) / 52.0)
    return {
        "records": len(signals),
        "compression": samples / max(tokens, 1),
        "tokens_per_ecg": tokens / max(len(signals), 1),
        "vocabulary_used": len(used) / tokenizer.num_ecg_tokens,
        "round_trip": exact / max(len(signals), 1),
        "clipped": clipped / max(samples, 1),
        "half_bin_mv": widest,
        "max_error_mv": largest,
    }
