"""Whether it matters which records a tokenizer is learnt from: the draws, judged on held-out records.

On 600 held-out records of PTB-XL at 100 Hz, with 1,000 merges from 200 or 1,000 of 4,400 records and 3 seeds,
stratified draws compressed 0.4 % (1,000 records) and 0.6 % (200) worse than uniform ones with the 2 to 4 clusters that
were found, 0.5 % and 1.2 % worse with 66. With the paper's scaling (8 clusters) they were 0.1 % better, and at the
10th percentile of the records the largest difference was 0.2 %: less than two standard deviations of the seeds'
differences. A mean over records as common as they are favours a draw in which they are as common.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data.morphology import FeatureTable
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.sampling import CorpusDraw, draw_clusters, draw_stratified, draw_uniform
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.provenance import provenance, write_json
from ecgbyte_hf.training.train_tokenizer import calibrate, check_training_records

METHODS = ("uniform", "stratified")
#: Samples per token: of all held-out records together, and the 10th percentile of the single records', since it is
#: for the uncommon ones that a draw is stratified.
METRICS = ("compression", "compression_p10")
# Records that one call of the core encodes.
_BATCH = 64


def compare_draws(
    prepared: PreparedData,
    features: FeatureTable,
    path: str | Path | None = None,
    *,
    num_records: int,
    num_merges: int = 1000,
    seeds: Sequence[int] = (0, 1, 2),
    scaling: str = "standardised",
    num_clusters: int | None = None,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Train a tokenizer on a uniform and on a stratified draw for every seed, and measure each on held-out records.

    All are calibrated alike, on all training records: otherwise the draw with more large amplitudes would have wider
    bins, and compress better by losing more. So only the merges differ. A seed decides the uniform draw, the clusters
    and the draw from them.

    Args:
        prepared: The prepared folder.
        features: Of its training records.
        path: JSON file for the report.
        num_records: Records of each draw.
        num_merges: Merges of each tokenizer.
        seeds: Two or more.
        scaling: Of the clusters; see `cluster_records`.
        num_clusters: Of the clusters; found from the data by default.
        num_threads: Threads of the Rust core.

    Returns:
        `runs` (one for each method and seed: `compression`, `compression_p10`, `merges`, `k`), for each of `METRICS`
        the `mean` and `sd` over the seeds of `uniform`, `stratified` and `difference` (stratified less uniform of the
        same seed), `held_out_records`, `seconds`, `provenance`.

    Raises:
        EcgDataError: there are no held-out records, fewer than two different seeds, or too few training records.
        ImportError: scikit-learn is absent.
    """
    seeds = list(dict.fromkeys(seeds))
    if len(seeds) < 2:
        raise EcgDataError(f"got the seeds {seeds}, expected two or more: one draw says nothing about the spread")
    train_ids = check_training_records(prepared, features.ecg_ids.tolist())
    held_out = sorted(set(prepared.ecg_ids) - set(prepared.train_ecg_ids()))
    if not held_out:
        raise EcgDataError(f"{prepared.folder} has training records only; a comparison needs others to measure on")
    start = time.perf_counter()
    calibration = calibrate(prepared, train_ids, "percentile", seed=0)
    seconds: dict[str, float] = {"calibrate": time.perf_counter() - start}

    def stratified(seed: int) -> CorpusDraw:
        clusters = draw_clusters(features, num_records, seed=seed, scaling=scaling, num_clusters=num_clusters)
        return draw_stratified(features, num_records, seed=seed, clusters=clusters)

    draws: dict[str, Callable[[int], CorpusDraw]] = {
        "uniform": lambda seed: draw_uniform(train_ids, num_records, seed=seed),
        "stratified": stratified,
    }
    runs = []
    for seed in seeds:
        for method in METHODS:
            start = time.perf_counter()
            draw = draws[method](seed)
            drawn = time.perf_counter()
            fit = _fit_of(prepared, draw, calibration, held_out, num_merges, num_threads)
            k = None if draw.clusters is None else draw.clusters.num_clusters
            runs.append({"method": method, "seed": seed, "k": k, **fit})
            seconds[f"draw {method}"] = seconds.get(f"draw {method}", 0.0) + drawn - start
            seconds["train and measure"] = seconds.get("train and measure", 0.0) + time.perf_counter() - drawn
    report = {
        "num_records": num_records,
        "num_merges": num_merges,
        "seeds": seeds,
        "held_out_records": len(held_out),
        "calibration": {"low": calibration.low, "high": calibration.high},
        "runs": runs,
        **{name: _summary(runs, name) for name in METRICS},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "provenance": provenance(
            "sample --compare",
            {"data": str(prepared.folder), "scaling": scaling, "num_clusters": num_clusters},
            data=prepared.fingerprint,
        ),
    }
    if path is not None:
        write_json(path, report)
    return report


def _fit_of(
    prepared: PreparedData,
    draw: CorpusDraw,
    calibration: EcgCalibration,
    held_out: list[int],
    num_merges: int,
    num_threads: int | None,
) -> dict[str, Any]:
    """How a tokenizer that is learnt from a draw fits the held-out records."""
    tokenizer = EcgByteTokenizer.train_from_iterator(
        (signal for _, signal in prepared.iter_signals(draw.ecg_ids)),
        num_merges,
        calibration=calibration,
        sampling_rate=prepared.sampling_rate,
        leads=prepared.leads,
        num_threads=num_threads,
    )
    tokens: list[int] = []
    samples: list[int] = []
    signals = (signal for _, signal in prepared.iter_signals(held_out))
    while batch := list(islice(signals, _BATCH)):
        samples.extend(signal.size for signal in batch)
        tokens.extend(map(len, tokenizer.encode_signal_batch(batch, num_threads=num_threads)))
    return {
        "merges": tokenizer.num_merges,
        "compression": sum(samples) / sum(tokens),
        "compression_p10": float(np.percentile(np.divide(samples, tokens), 10.0)),
    }


def _summary(runs: Sequence[dict[str, Any]], metric: str) -> dict[str, dict[str, float]]:
    by_method = {name: [run[metric] for run in runs if run["method"] == name] for name in METHODS}
    gains = np.subtract(by_method["stratified"], by_method["uniform"])
    return {name: _mean_and_sd(values) for name, values in (*by_method.items(), ("difference", gains.tolist()))}


def _mean_and_sd(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}


def comparison_table(report: dict[str, Any]) -> str:
    """The report of `compare_draws` for a terminal."""
    measured = f"{report['held_out_records']} held-out records, {len(report['seeds'])} seeds"
    lines = [f"{report['num_merges']} merges from {report['num_records']} records, measured on {measured}:"]
    headings = ("samples per token", "10th percentile")
    lines.append(f"  {'':12} {headings[0]:>22} {headings[1]:>22}")
    for name in (*METHODS, "difference"):
        sign = "+" if name == "difference" else ""
        cells = (
            f"{report[metric][name]['mean']:{sign}.4f} (sd {report[metric][name]['sd']:.4f})" for metric in METRICS
        )
        lines.append(f"  {name:12} " + " ".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)
