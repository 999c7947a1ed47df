"""Measurements become rows: one for every contestant and size, whatever happened to it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from contest.isolation import run_isolated

Row = dict[str, Any]
#: What a run gives that is too long for the result file: it is compared, then dropped.
_LEARNT = ("tokens", "merges")


@dataclass(frozen=True)
class Measurement:
    """One contestant at one size.

    Attributes:
        part: "train", "encode", "train-lengths", "encode-lengths" or "scale".
        contestant: Short name.
        label: The name in tables.
        function: What runs in a process of its own, `"module:name"`.
        arguments: For it.
        threads: Given to the contestant as its argument `threads` and through the variables it may read instead.
        symbols: Size of the job.
        about: What else the row holds (corpus, records, algorithm).
        is_series: A longer one of the same contestant is not tried once this one failed.
        show_progress: It has a progress bar of its own.
    """

    part: str
    contestant: str
    label: str
    function: str
    arguments: dict[str, Any]
    threads: int
    symbols: int
    about: dict[str, Any] = field(default_factory=dict)
    is_series: bool = False
    show_progress: bool = False

    def run(self, limit: float) -> dict[str, Any]:
        """One run in a process of its own."""
        environment = {
            "RAYON_NUM_THREADS": str(self.threads),
            "OMP_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "true" if self.threads > 1 else "false",
            "HF_HUB_OFFLINE": "1",
        }
        arguments = {**self.arguments, "threads": self.threads}
        return run_isolated(
            self.function, arguments, limit=limit, environment=environment, show_progress=self.show_progress
        )

    @property
    def series(self) -> tuple[Any, ...]:
        """Equal for the sizes of one curve."""
        return (self.part, self.contestant, self.threads, self.about.get("corpus"))


def run_all(
    measurements: list[Measurement],
    *,
    repeat: int,
    repeat_under: float,
    limit: float,
    on_run: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Run everything `repeat` times, round after round, so that a slow minute of the machine is shared by all.

    Args:
        measurements: What to run.
        repeat: Runs of each; the rows have their median.
        repeat_under: Seconds; what took longer is run once.
        limit: Seconds for each run.
        on_run: Called with a few words before each run, and with none for one that is left out.

    Returns:
        A row for each measurement, in order.
    """
    rows = [_empty_row(measurement) for measurement in measurements]
    learnt: list[dict[str, Any]] = [{} for _ in measurements]
    stopped: dict[tuple[Any, ...], str] = {}
    for number in range(repeat):
        for index, (measurement, row) in enumerate(zip(measurements, rows, strict=True)):
            is_done = number > 0 and (not row["runs"] or row["runs"][0]["seconds"] > repeat_under)
            if is_done or row["status"] not in ("ok", "not run"):
                on_run("")
                continue
            if number == 0 and measurement.is_series and measurement.series in stopped:
                row.update(status="not run", reason=stopped[measurement.series])
                on_run("")
                continue
            on_run(
                f"{measurement.label}, {measurement.threads} thread{'s' * (measurement.threads > 1)}, "
                f"{measurement.symbols:,} symbols"
            )
            outcome = measurement.run(limit)
            if outcome["status"] == "ok":
                learnt[index] = {name: outcome["result"].pop(name, None) for name in _LEARNT}
                row["runs"].append(outcome["result"])
            row.update(status=outcome["status"], reason=outcome.get("reason"))
            if outcome["status"] != "ok":
                stopped[measurement.series] = f"not run: with {measurement.symbols:,} symbols, {outcome['reason']}"
    for row in rows:
        _summarise(row)
    _compare_vocabularies(rows, learnt)
    add_ratios(rows)
    return rows


def _empty_row(measurement: Measurement) -> Row:
    return {
        "part": measurement.part,
        "contestant": measurement.contestant,
        "label": measurement.label,
        "threads": measurement.threads,
        "symbols": measurement.symbols,
        **measurement.about,
        "status": "not run",
        "reason": None,
        "runs": [],
    }


def _summarise(row: Row) -> None:
    """Medians of times; the highest memory; everything else as the last run had it."""
    runs = row["runs"]
    if not runs:
        return
    row.update({name: value for name, value in runs[-1].items() if name not in ("seconds", "symbols")})
    for name in [name for name in runs[-1] if name.endswith("seconds")]:
        row[name] = statistics.median(run[name] for run in runs)
    row["symbols_per_second"] = statistics.median(
        run.get("symbols", row["symbols"]) / max(run["seconds"], 1e-9) for run in runs
    )
    highest = max(runs, key=lambda run: run["peak_bytes"] - run["baseline_bytes"])
    row.update(baseline_bytes=highest["baseline_bytes"], peak_bytes=highest["peak_bytes"])


def _compare_vocabularies(rows: list[Row], learnt: list[dict[str, Any]]) -> None:
    """Hold what each trainer learnt against ours of the same job."""
    ours: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row, own in zip(rows, learnt, strict=True):
        if row["contestant"] == "ours" and own.get("tokens") is not None:
            ours.setdefault(_job_of(row), own)
    for row, own in zip(rows, learnt, strict=True):
        reference = ours.get(_job_of(row))
        if reference is None or own.get("tokens") is None:
            continue
        count = len(own["tokens"])
        wanted = reference["tokens"][:count]
        row["learnt"] = count
        row["same_vocabulary"] = len(set(wanted) & set(own["tokens"])) / max(len(set(wanted)), 1)
        if own.get("merges") is not None:
            row["same_merges"] = reference["merges"][:count] == own["merges"]


def add_ratios(rows: Iterable[Row]) -> None:
    """`times_ours`: how many times as long as ours on one thread takes for the same job."""
    rows = list(rows)
    base = {}
    for row in rows:
        name = f"ours_{row['algorithm']}" if "algorithm" in row else "ours"
        if row["contestant"] == name and row["threads"] == 1 and "symbols_per_second" in row:
            base[_job_of(row)] = row["symbols_per_second"]
    for row in rows:
        if "symbols_per_second" in row and _job_of(row) in base:
            row["times_ours"] = base[_job_of(row)] / row["symbols_per_second"]


def _job_of(row: Row) -> tuple[Any, ...]:
    """Rows with the same job can be compared."""
    return (row["part"], row.get("corpus"), row["symbols"], row.get("algorithm"))
