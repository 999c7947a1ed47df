"""Time of cleaning one record by the plain way, by ours without and with the Rust core, and how far apart they are.

Examples:
    python scripts/benchmark/cleaning.py --real physionet
    python scripts/benchmark/cleaning.py --records 4 --repeat 1 --output trial
    python scripts/benchmark/cleaning.py --from-json scripts/benchmark/results/cleaning.json

All on one thread. "Plain" is scipy.signal.filtfilt over all leads with filters designed for each record,
pywt.wavedec and waverec and scipy.interpolate.interp1d for each lead, and nothing else; ours is the whole of
EcgByteFeatureExtractor.clean. The folder of --output gets cleaning.json (every round, versions, machine) and
cleaning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

# Before numpy is imported: its libraries read them once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # the checkout's own package, installed or not

import numpy as np  # noqa: E402
from contest.corpora import REAL_FOLDERS  # noqa: E402
from tqdm import tqdm  # noqa: E402

from ecgbyte_hf.models import feature_extraction_ecg_byte as cleaning  # noqa: E402
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor  # noqa: E402
from ecgbyte_hf.models.leads_ecg_byte import order_leads  # noqa: E402

RATE, OUTPUT_RATE = 500.0, 250.0
STEPS = ("filters", "shrinkage", "spline", "whole")
CONTESTANTS = ("plain", "ours_scipy", "ours_rust")
LABELS = {"plain": "plain", "ours_scipy": "ours, scipy", "ours_rust": "ours, Rust"}
#: The tokenizer's bins, and by how much a percentile calibration widens the range, mV.
NUM_SYMBOLS, WIDENING, WIDTH_OFFSET = 26, 0.5, 1e-6

Step = Callable[[np.ndarray], np.ndarray]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--real", type=Path, metavar="DIR", help="folder with ptbxl/records500 and mimic_iv_ecg (default: simulate)")
    add("--records", type=int, default=20, help="records of each kind that are timed (default: %(default)s)")
    add("--compared", type=int, default=250, help="records of each kind that are compared (default: %(default)s)")
    add("--repeat", type=int, default=7, help="rounds over all records; the median counts (default: %(default)s)")
    add("--seed", type=int, default=0, help="of simulated records (default: %(default)s)")
    add("--output", type=Path, default=HERE / "results", metavar="DIR", help="for the results (default: %(default)s)")
    add("--from-json", type=Path, metavar="FILE", help="measure nothing; the tables of this result file")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print the tables."""
    from ecgbyte_hf.provenance import write_json, write_text

    options = parser().parse_args(arguments)
    if options.from_json is not None:
        results = json.loads(options.from_json.read_text(encoding="utf-8"))
        options.output = options.from_json.parent
    else:
        results = measure(options)
        write_json(options.output / "cleaning.json", results)
    text = text_of(results)
    write_text(options.output / "cleaning.md", text)
    sys.stdout.write(text)
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that cleaning.json holds."""
    from tokenizer import machine

    from ecgbyte_hf.provenance import provenance

    kept = {name: value for name, value in vars(options).items() if name not in ("output", "from_json")}
    kept["real"] = options.real is not None
    corpora = {}
    for name, records in records_of(options):
        if records:
            corpora[name] = {
                "records": len(records[: options.records]),
                "rounds_ms": time_steps([signal_of(record) for record in records[: options.records]], options.repeat),
                "differences_mv": differences(records),
                "sos": compare_profiles(records),
            }
    return {
        "provenance": provenance("scripts/benchmark/cleaning.py", kept),
        "machine": machine(),
        "has_rust": cleaning._clean_in_rust is not None,
        "first_call": first_call(),
        "corpora": corpora,
    }


# ---- records ------------------------------------------------------------------------------------------------------


def records_of(options: argparse.Namespace) -> Iterator[tuple[str, list[Any]]]:
    """Records that the reference profile accepts, by where they come from."""
    wanted = max(options.records, options.compared)
    if options.real is None:
        yield "simulated", simulated_records(wanted, options.seed)
        return
    for name, profile in REAL_FOLDERS:
        if profile == "reference":
            yield name, real_records(options.real / name, wanted)


def simulated_records(count: int, seed: int) -> list[Any]:
    """10 s at 500 Hz."""
    from ecgbyte_hf.data.simulator import simulate_records
    from ecgbyte_hf.signal.records import EcgRecord

    simulated = simulate_records(count, seed=seed, sampling_rate=RATE, duration=10)
    names = cleaning.REFERENCE_LEADS
    return [EcgRecord(np.asarray(signal, dtype=np.float64), RATE, names) for _, _, signal in simulated]


def real_records(folder: Path, count: int) -> list[Any]:
    """The folder's first records at 500 Hz that are not refused."""
    from ecgbyte_hf.models.errors_ecg_byte import EcgError
    from ecgbyte_hf.signal.records import read_ecg

    records: list[Any] = []
    refused = 0
    for header in sorted(folder.rglob("*.hea")):
        if len(records) == count:
            break
        try:
            record = read_ecg(header)
            EcgByteFeatureExtractor().clean(record)
        except EcgError:
            refused += 1
            continue
        if record.sampling_rate == RATE:
            records.append(record)
    tqdm.write(f"{folder.name}: {len(records)} records, {refused} refused")
    return records


def signal_of(record: Any) -> np.ndarray:
    """The leads in the order in which they come out, float64 mV."""
    return np.asarray(record.signal, dtype=np.float64)[order_leads(record.lead_names, cleaning.REFERENCE_LEADS)]


# ---- the three ways -----------------------------------------------------------------------------------------------


def plain_steps() -> dict[str, Step]:
    """What the functions that the method names do when called as they are."""
    import pywt
    from scipy.interpolate import interp1d
    from scipy.signal import butter, filtfilt, iirnotch

    def filters(signal: np.ndarray) -> np.ndarray:
        for frequency in (50.0, 60.0):
            signal = filtfilt(*iirnotch(frequency, 30, fs=RATE), signal, axis=1)
        signal = filtfilt(*butter(4, [0.5, 100], "bandpass", fs=RATE), signal, axis=1)
        return filtfilt(*butter(4, 0.05, "highpass", fs=RATE), signal, axis=1)

    def shrunk(lead: np.ndarray) -> np.ndarray:
        coefficients = pywt.wavedec(lead, "db6", level=4)
        threshold = np.median(np.abs(coefficients[-4])) / 0.6745
        for detail in coefficients[1:]:
            is_something = np.abs(detail) > 1e-10
            detail[is_something] = pywt.threshold(detail[is_something], threshold, "soft")
            detail[~is_something] = 0
        return pywt.waverec(coefficients, "db6")[: len(lead)]

    def shrinkage(signal: np.ndarray) -> np.ndarray:
        return np.stack([shrunk(lead) for lead in signal])

    def spline(signal: np.ndarray) -> np.ndarray:
        before = np.linspace(0, 10, signal.shape[1])
        after = np.linspace(0, 10, num_output(signal))
        return np.stack([interp1d(before, lead, kind="cubic")(after) for lead in signal])

    def whole(signal: np.ndarray) -> np.ndarray:
        return spline(shrinkage(filters(signal)))

    return {"filters": filters, "shrinkage": shrinkage, "spline": spline, "whole": whole}


def scipy_steps() -> dict[str, Step]:
    """Ours where the Rust core is absent."""
    designs = cleaning._filters(RATE)
    return {
        "filters": lambda signal: cleaning._filter(signal, designs),
        "shrinkage": cleaning._shrink,
        "spline": lambda signal: cleaning._spline(signal, num_output(signal)),
        "whole": without_rust(whole_of_ours),
    }


def rust_steps() -> dict[str, Step]:
    """Ours with the Rust core; nothing where it is absent."""
    if cleaning._clean_in_rust is None:
        return {}
    clean, parts = cleaning._clean_in_rust, [design.parts for design in cleaning._filters(RATE)]
    low_pass = cleaning._low_pass()
    return {
        "filters": lambda signal: clean(signal, parts),
        "shrinkage": lambda signal: clean(signal, [], wavelet=low_pass, levels=cleaning.WAVELET_LEVEL),
        "spline": lambda signal: clean(signal, [], num_samples=num_output(signal)),
        "whole": whole_of_ours,
    }


def num_output(signal: np.ndarray) -> int:
    """Samples after resampling."""
    return round(signal.shape[1] * OUTPUT_RATE / RATE)


class OrderedRecord:
    """A signal whose leads are in order already."""

    sampling_rate = RATE
    lead_names = cleaning.REFERENCE_LEADS

    def __init__(self, signal: np.ndarray) -> None:
        """Keep the signal, (12, samples) in mV."""
        self.signal = signal


def whole_of_ours(signal: np.ndarray) -> np.ndarray:
    """All that `clean` does, its checks of the record included."""
    return EcgByteFeatureExtractor().clean(OrderedRecord(signal))


@contextmanager
def rust_put_away() -> Iterator[None]:
    """As if the Rust core were not installed."""
    kept, cleaning._clean_in_rust = cleaning._clean_in_rust, None
    try:
        yield
    finally:
        cleaning._clean_in_rust = kept


def without_rust(step: Step) -> Step:
    """The step as if the Rust core were not installed."""

    def run(signal: np.ndarray) -> np.ndarray:
        with rust_put_away():
            return step(signal)

    return run


# ---- measuring ----------------------------------------------------------------------------------------------------


def time_steps(signals: Sequence[np.ndarray], repeat: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds per record of each contestant's steps, one number for each round.

    Each step gets what it gets in the chain: the output of the plain steps before it. Contestants take turns, so that
    a slow minute of the machine meets all of them.
    """
    ways = {"plain": plain_steps(), "ours_scipy": scipy_steps(), "ours_rust": rust_steps()}
    filtered = [ways["plain"]["filters"](signal) for signal in signals]
    shrunk = [ways["plain"]["shrinkage"](signal) for signal in filtered]
    inputs = {"filters": signals, "shrinkage": filtered, "spline": shrunk, "whole": signals}
    rounds: dict[str, dict[str, list[float]]] = {name: {step: [] for step in ways[name]} for name in ways}
    for _ in tqdm(range(repeat), desc="time", unit="round", leave=False):
        for step in STEPS:
            for name, steps in ways.items():
                if step in steps:
                    rounds[name][step].append(milliseconds(steps[step], inputs[step]))
    return rounds


def milliseconds(step: Step, signals: Sequence[np.ndarray]) -> float:
    """Per signal, after one that does not count."""
    step(signals[0])
    began = time.perf_counter()
    for signal in signals:
        step(signal)
    return 1e3 * (time.perf_counter() - began) / len(signals)


def differences(records: Sequence[Any]) -> dict[str, float]:
    """Largest difference in mV between two ways over all records."""
    plain, scipy, rust = plain_steps()["whole"], without_rust(whole_of_ours), rust_steps().get("whole")
    largest: dict[str, float] = {"ours_scipy": 0.0}
    for record in tqdm(records, desc="compare", unit="record", leave=False):
        signal = signal_of(record)
        expected, by_scipy = plain(signal), scipy(signal)
        largest["ours_scipy"] = max(largest["ours_scipy"], float(np.abs(by_scipy - expected).max()))
        if rust is not None:
            by_rust = rust(signal)
            for name, other in (("ours_rust", expected), ("rust_to_scipy", by_scipy)):
                largest[name] = max(largest.get(name, 0.0), float(np.abs(by_rust - other).max()))
            exact = np.abs(steps_in_float64(signal, False) - steps_in_float64(signal, True)).max()
            largest["rust_to_scipy_float64"] = max(largest.get("rust_to_scipy_float64", 0.0), float(exact))
    return {"records": len(records), **largest}


def steps_in_float64(signal: np.ndarray, in_rust: bool) -> np.ndarray:
    """The cleaned signal before it becomes float32."""
    arguments = signal, cleaning._filters(RATE), num_output(signal)
    if in_rust:
        return cleaning._cleaned(*arguments)
    with rust_put_away():
        return cleaning._cleaned(*arguments)


def compare_profiles(records: Sequence[Any]) -> dict[str, float]:
    """How far the profile "sos" is from "reference", in mV and in symbols of a percentile calibration."""
    cleaned = {
        profile: np.stack([EcgByteFeatureExtractor(profile).clean(record) for record in same_length(records)])
        for profile in ("reference", "sos")
    }
    apart = np.abs(cleaned["reference"].astype(np.float64) - cleaned["sos"])
    low, high = np.percentile(cleaned["reference"], [1, 99])
    symbols = {name: symbols_of(values, low - WIDENING, high + WIDENING) for name, values in cleaned.items()}
    flips = (symbols["reference"] != symbols["sos"]).sum(axis=(1, 2))
    return {
        "records": len(flips),
        "median_mv": float(np.median(apart)),
        "p99.9_mv": float(np.percentile(apart, 99.9)),
        "max_mv": float(apart.max()),
        "symbols_per_record": int(symbols["sos"][0].size),
        "median_flips": float(np.median(flips)),
        "mean_flips": float(flips.mean()),
        "max_flips": int(flips.max()),
    }


def same_length(records: Sequence[Any]) -> list[Any]:
    """The records of the length of the first one."""
    return [record for record in records if record.signal.shape[1] == records[0].signal.shape[1]]


def symbols_of(signal: np.ndarray, low: float, high: float) -> np.ndarray:
    """The tokenizer's bins in float64."""
    unit = np.clip((signal.astype(np.float64) - low) / (high - low + WIDTH_OFFSET), 0, 1)
    return np.minimum(np.floor(NUM_SYMBOLS * unit), NUM_SYMBOLS - 1).astype(np.uint8)


FIRST_CALL = """
import json, sys, time
began = time.perf_counter()
from ecgbyte_hf.models import feature_extraction_ecg_byte as cleaning
import numpy as np
times = [time.perf_counter() - began]
if sys.argv[1] == "ours_scipy":
    cleaning._clean_in_rust = None
class Record:
    signal, sampling_rate, lead_names = np.random.default_rng(0).normal(size=(12, 5000)), 500, cleaning.REFERENCE_LEADS
extractor = cleaning.EcgByteFeatureExtractor()
for _ in range(2):
    began = time.perf_counter()
    extractor.clean(Record)
    times.append(time.perf_counter() - began)
print(json.dumps(times))
"""


def first_call() -> dict[str, dict[str, float]]:
    """Seconds of the import, of the first record (scipy's import, the filters' design) and of the second."""
    seconds = {}
    for name in CONTESTANTS[1:]:
        if name == "ours_rust" and cleaning._clean_in_rust is None:
            continue
        done = subprocess.run(
            [sys.executable, "-c", FIRST_CALL, name],
            cwd=HERE.parents[1],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds[name] = dict(zip(("import", "first", "second"), json.loads(done.stdout), strict=True))
    return seconds


# ---- telling ------------------------------------------------------------------------------------------------------


def text_of(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    machine = results["machine"]
    lines = [
        f"Cleaning a record of 12 leads, 10 s at {RATE:g} Hz, profile `reference`, on one thread; {machine['cpu']}. "
        "Median of the rounds, ms per record; in brackets how many times as fast as plain.",
        "",
    ]
    for name, corpus in sorted(results["corpora"].items()):
        lines += [f"**{name}**, {corpus['records']} records", "", *step_table(corpus["rounds_ms"]), ""]
        lines += [difference_line(corpus["differences_mv"]), profile_line(corpus["sos"]), ""]
    calls = []
    for name in CONTESTANTS:
        if seconds := results["first_call"].get(name):
            first = f"{LABELS[name]} {seconds['import']:.2f} s + {seconds['first']:.2f} s"
            calls.append(f"{first}, the second record {1e3 * seconds['second']:.1f} ms")
    lines.append(f"Import and first record in a new process: {'; '.join(calls)}.")
    return "\n".join(lines) + "\n"


def step_table(rounds: dict[str, dict[str, list[float]]]) -> list[str]:
    """One row for each step."""
    names = [name for name in CONTESTANTS if rounds[name]]
    rows = ["| step | " + " | ".join(LABELS[name] for name in names) + " |", "| --- " * (len(names) + 1) + "|"]
    for step in STEPS:
        plain = median(rounds["plain"][step])
        cells = [f"{plain:.2f}"]
        for name in names[1:]:
            ours = median(rounds[name][step])
            cells.append(f"{ours:.2f} ({plain / ours:.1f})")
        rows.append(f"| {step} | " + " | ".join(cells) + " |")
    return rows


def difference_line(differences_mv: dict[str, float]) -> str:
    """How far the ways are apart."""
    told = [
        f"{LABELS[name]} to plain {differences_mv[name]:.2g} mV" for name in CONTESTANTS[1:] if name in differences_mv
    ]
    if "rust_to_scipy" in differences_mv:
        before = differences_mv["rust_to_scipy_float64"]
        told.append(f"Rust to scipy {differences_mv['rust_to_scipy']:.2g} mV ({before:.2g} mV before float32)")
    return f"- Largest difference over {differences_mv['records']} records: {'; '.join(told)}."


def profile_line(sos: dict[str, float]) -> str:
    """How far "sos" is from "reference"."""
    return (
        f'- Profile "sos" to "reference" over {sos["records"]} records: median {sos["median_mv"]:.2g} mV, 99.9th '
        f"percentile {sos['p99.9_mv']:.2g} mV, largest {sos['max_mv']:.2g} mV; of {sos['symbols_per_record']:,} "
        f"symbols a record, {sos['median_flips']:g} differ in the median, {sos['max_flips']} at most."
    )


if __name__ == "__main__":
    sys.exit(main())
