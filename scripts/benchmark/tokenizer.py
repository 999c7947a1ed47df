"""Time and memory of the tokenizer beside those of other byte-pair encoders, as ratios within one run.

Examples:
    pip install -e ".[benchmark]"
    python scripts/benchmark/tokenizer.py train encode lengths --real physionet --readme README.md
    python scripts/benchmark/tokenizer.py scale
    python scripts/benchmark/tokenizer.py train encode --records 60 --held-out 10 --merges 500 --output trial
    python scripts/benchmark/tokenizer.py --from-json scripts/benchmark/results/tokenizer.json --readme README.md

Parts:
    train    merges learnt from simulated (and real) records by every trainer that can do it
    encode   held-out records to ids by every encoder that can do it
    lengths  the same against the size of the corpus and the length of one sequence, for the figure
    scale    up to 200,000 records, 6.0e9 symbols, from a generator; the smallest size checked by the plain trainer
    all      all of these

The folder of --output gets tokenizer.json (every single run, versions, machine), tokenizer.md and tokenizer.png. A
part that is measured anew replaces that part in tokenizer.json and leaves the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # the checkout's own package, installed or not

from contest import corpora, report  # noqa: E402
from contest.corpora import Corpus  # noqa: E402
from contest.isolation import run_isolated  # noqa: E402
from contest.rows import Measurement, Row, run_all  # noqa: E402

PARTS = ("train", "encode", "lengths", "scale")
COMPETITORS = ("tokenizers", "tiktoken", "rustbpe", "sentencepiece")
MANIFEST = HERE.parents[1] / "rust_bpe" / "Cargo.toml"

#: Name, label, whether it can use several threads.
TRAINERS = (
    ("ours", "ours, `rust_bpe.train`", True),
    ("plain", "plain: recount and rewrite for each merge, Rust", False),
    # Two threads gain it nothing (60 records, 500 merges: 27.5 s on one, 32.0 s on two), and it is the slowest.
    ("tokenizers", "`tokenizers`, BpeTrainer, a record a word", False),
    ("tokenizers_leads", "`tokenizers`, BpeTrainer, a lead a word", True),
    ("rustbpe", "`rustbpe`", True),
    ("sentencepiece", "`sentencepiece`, BPE", True),
    ("tiktoken", "`tiktoken`", False),
)
#: Name, label, algorithm, whether it can use several threads.
ENCODERS = (
    ("ours_greedy", "ours greedy, symbols to ids", "greedy", False),
    ("ours_greedy_batch", "ours greedy, batch", "greedy", True),
    ("ours_signal", "ours greedy, float32 signal to ids", "greedy", False),
    ("ours_call_arrays", 'ours greedy, `tokenizer(signal, return_tensors="np")`', "greedy", False),
    ("ours_call", "ours greedy, `tokenizer(signal)`", "greedy", False),
    ("stock", "`tokenizers` greedy, our tokenizer.json", "greedy", False),
    ("stock_batch", "`tokenizers` greedy, our tokenizer.json, batch", "greedy", True),
    ("plain_python", "plain Python trie, greedy", "greedy", False),
    ("ours_bpe", "ours rank order, symbols to ids", "bpe", False),
    ("ours_bpe_batch", "ours rank order, batch", "bpe", True),
    ("tokenizers_bpe", "`tokenizers` rank order, BPE model, our merges", "bpe", False),
    ("tiktoken", "`tiktoken` rank order, our merges", "bpe", False),
    ("tiktoken_batch", "`tiktoken` rank order, our merges, batch", "bpe", True),
    ("rustbpe", "`rustbpe` rank order, its own merges", "bpe", False),
    ("sentencepiece", "`sentencepiece` rank order, its own merges", "bpe", False),
)
#: Those of the length curves.
LENGTH_TRAINERS = ("ours", "plain", "tokenizers", "tokenizers_leads", "rustbpe", "sentencepiece")
LENGTH_ENCODERS = ("ours_greedy", "ours_bpe", "stock", "tokenizers_bpe", "tiktoken")
SEQUENCE_LENGTHS = tuple(10**exponent for exponent in range(3, 8))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("parts", nargs="*", metavar="PART", help="train, encode, lengths, scale or all")
    add("--records", type=int, default=540, help="training records of 12 x 2500 symbols (default: %(default)s)")
    add("--held-out", type=int, default=60, help="records that are encoded (default: %(default)s)")
    add("--merges", type=int, default=3500, help="merges to learn (default: %(default)s)")
    add("--max-token-length", type=int, default=1024, help="longest token in symbols (default: %(default)s)")
    add(
        "--threads",
        type=int,
        nargs="+",
        default=[1, os.cpu_count() or 1],
        help="thread counts; 1 is always among them",
    )
    add("--real", type=Path, metavar="DIR", help="folder with ptbxl/records500, mimic_iv_ecg and ptbxl100/records100")
    add("--repeat", type=int, default=3, help="runs of each contestant; the median counts (default: %(default)s)")
    add("--repeat-under", type=float, default=20.0, help="seconds; what takes longer runs once (default: %(default)s)")
    add("--seconds", type=float, default=1.0, help="an encoder's run lasts at least this (default: %(default)s)")
    add("--limit", type=float, default=600.0, help="seconds after which a run is ended (default: %(default)s)")
    add("--only", nargs="+", metavar="NAME", help="only these contestants, by the names in the result file")
    add("--scale-records", type=int, nargs="+", default=[2_000, 20_000, 200_000], help="sizes (default: %(default)s)")
    add("--scale-limit", type=float, default=3600.0, help="--limit of the part scale (default: %(default)s)")
    add("--check-merges", type=int, help="merges that the plain trainer checks at the smallest size (default: all)")
    add("--pool", type=int, default=256, help="simulated records that fresh ones are made from (default: %(default)s)")
    add("--seed", type=int, default=0, help="of everything simulated (default: %(default)s)")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="for the results (default: results beside the script, or FILE's folder)",
    )
    add("--readme", type=Path, help=f"file to put a summary into, between {report.START} and {report.END}")
    add("--from-json", type=Path, metavar="FILE", help="measure nothing; tables and figure of this result file")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print the tables."""
    options = parser().parse_args(arguments)
    # Not by `choices`: with nargs="*" argparse holds the empty list against them.
    unknown = sorted(set(options.parts) - {*PARTS, "all"})
    if unknown:
        parser().error(f"unknown part {', '.join(unknown)}; known: {', '.join(PARTS)}, all")
    if bool(options.parts) == bool(options.from_json):
        parser().error("give the parts to measure, or --from-json FILE")
    options.output = options.output or (options.from_json.parent if options.from_json else HERE / "results")
    options.threads = sorted({1, *options.threads})
    # A README without its markers is said before hours of measuring.
    if options.readme is not None:
        report.replace_between_markers(options.readme.read_text(encoding="utf-8"), "")
    if options.from_json is not None:
        results = json.loads(options.from_json.read_text(encoding="utf-8"))
    else:
        results = measure(options)
    publish(results, options.output, options.readme)
    return 0


def publish(results: dict[str, Any], output: Path, readme: Path | None) -> None:
    """Write table and figure beside the result file, and a summary into the README if there is one."""
    from ecgbyte_hf.provenance import write_text

    figure = report.draw(results, output / report.FIGURE)
    table = write_text(output / "tokenizer.md", report.text_of(results, report.FIGURE))
    if readme is not None:
        report.write_readme(readme, results, table, figure)
    sys.stdout.write(report.text_of(results))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the parts, each stored as soon as it is complete."""
    from ecgbyte_hf.provenance import write_json

    parts = PARTS if "all" in options.parts else tuple(name for name in PARTS if name in options.parts)
    file = options.output / "tokenizer.json"
    results: dict[str, Any] = {"parts": {}}
    if file.is_file():
        results = json.loads(file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="ecgbyte-benchmark-") as scratch:
        folder = Path(scratch)
        program = plain_program()
        members = prepare_corpora(options, folder) if set(parts) - {"scale"} else []
        plans = {
            "train": lambda: train_measurements(options, members, program),
            "encode": lambda: encode_measurements(options, members, folder),
            "lengths": lambda: length_measurements(options, members, program, folder),
            "scale": lambda: scale_measurements(options, program, folder),
        }
        for part in parts:
            began = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            rows = run_part(
                part, [m for m in plans[part]() if not options.only or m.contestant in options.only], options
            )
            about = {} if part == "scale" else {"corpora": {corpus.name: corpus.about for corpus in members}}
            results["parts"][part] = {
                "provenance": provenance_of(options, part),
                "machine": machine(),
                "began": began,
                **about,
                "rows": rows,
            }
            write_json(file, results)
    return results


def run_part(part: str, measurements: list[Measurement], options: argparse.Namespace) -> list[Row]:
    """Run a part's measurements behind a bar that names the one at work."""
    is_scale = part == "scale"
    repeat = 1 if is_scale else options.repeat
    with tqdm(total=len(measurements) * repeat, desc=part, unit="run", disable=is_scale) as bar:

        def on_run(what: str) -> None:
            bar.update()
            if what:
                bar.set_postfix_str(what)

        return run_all(
            measurements,
            repeat=repeat,
            repeat_under=options.repeat_under,
            limit=options.scale_limit if is_scale else options.limit,
            on_run=on_run,
        )


# ---- what is measured ---------------------------------------------------------------------------------------------


def prepare_corpora(options: argparse.Namespace, folder: Path) -> list[Corpus]:
    """Simulated records, and real ones if there are any."""
    wanted = options.records + options.held_out
    signals = corpora.simulated_signals(wanted, options.seed)
    members = [
        corpora.make_corpus("simulated", signals, options.held_out, folder / "simulated", {"seed": options.seed})
    ]
    if options.real is not None:
        signals, sources = corpora.real_signals(options.real, wanted)
        if len(signals) < wanted:
            tqdm.write(f"real: {len(signals)} records found in {options.real}, {wanted} wanted; using those")
        members.append(corpora.make_corpus("real", signals, options.held_out, folder / "real", {"sources": sources}))
    return members


def train_measurements(
    options: argparse.Namespace, members: Sequence[Corpus], program: str | None
) -> list[Measurement]:
    """Every trainer on every corpus."""
    return [
        training_measurement("train", trainer, corpus, corpus.about["records"], threads, options, program)
        for corpus in members
        for trainer in TRAINERS
        for threads in (options.threads if trainer[2] else [1])
    ]


def training_measurement(
    part: str,
    trainer: tuple[str, str, bool],
    corpus: Corpus,
    records: int,
    threads: int,
    options: argparse.Namespace,
    program: str | None,
) -> Measurement:
    """One trainer on the first records of a corpus."""
    name, label, _ = trainer
    arguments = {
        "records": str(corpus.train),
        "num_records": records,
        "num_merges": options.merges,
        "max_token_length": options.max_token_length,
    }
    return Measurement(
        part=part,
        contestant=name,
        label=label,
        function=f"contest.training:{name}",
        arguments={**arguments, "program": program} if name == "plain" else arguments,
        threads=threads,
        symbols=records * corpora.LEADS * corpora.SAMPLES,
        about={"corpus": corpus.name, "records": records},
        is_series=part == "train-lengths",
    )


def encode_measurements(options: argparse.Namespace, members: Sequence[Corpus], folder: Path) -> list[Measurement]:
    """Every encoder on every corpus."""
    measurements = []
    for corpus in members:
        vocabulary = learn_vocabulary(corpus, folder, options)
        for name, label, algorithm, is_parallel in ENCODERS:
            for threads in options.threads if is_parallel else [1]:
                arguments = {
                    "encoder": name,
                    "vocabulary": str(vocabulary),
                    "train": str(corpus.train),
                    "held_out": str(corpus.folder / "held_out.npy"),
                    "signals": str(corpus.folder / "held_out_mv.npy"),
                    "max_token_length": options.max_token_length,
                    "seconds": options.seconds,
                }
                about = {
                    "corpus": corpus.name,
                    "algorithm": algorithm,
                    "record_symbols": corpora.LEADS * corpora.SAMPLES,
                }
                function, symbols = "contest.encoding:encode_records", corpora.LEADS * corpora.SAMPLES
                measurements.append(Measurement("encode", name, label, function, arguments, threads, symbols, about))
    return measurements


def length_measurements(
    options: argparse.Namespace, members: Sequence[Corpus], program: str | None, folder: Path
) -> list[Measurement]:
    """Training on parts of the simulated corpus (`train` has all of it), and encoding one ever longer sequence."""
    corpus = members[0]
    measurements = []
    sizes = sorted({max(options.records // divisor, 1) for divisor in (81, 27, 9, 3)} - {options.records})
    for records in sizes:
        for trainer in TRAINERS:
            if trainer[0] in LENGTH_TRAINERS:
                for threads in options.threads if trainer[0] == "ours" else [1]:
                    measurements.append(
                        training_measurement("train-lengths", trainer, corpus, records, threads, options, program)
                    )
    vocabulary = learn_vocabulary(corpus, folder, options)
    for length in SEQUENCE_LENGTHS:
        if length > corpus.about["symbols"]:
            break
        for name, label, algorithm, _ in ENCODERS:
            if name in LENGTH_ENCODERS:
                arguments = {
                    "encoder": name,
                    "vocabulary": str(vocabulary),
                    "train": str(corpus.train),
                    "max_token_length": options.max_token_length,
                    "length": length,
                    "seconds": options.seconds,
                }
                about = {"corpus": corpus.name, "algorithm": algorithm}
                function = "contest.encoding:encode_length"
                measurements.append(
                    Measurement("encode-lengths", name, label, function, arguments, 1, length, about, is_series=True)
                )
    return measurements


def scale_measurements(options: argparse.Namespace, program: str | None, folder: Path) -> list[Measurement]:
    """Ours at every size on the most threads, and the plain trainer at the smallest."""
    sizes = sorted(options.scale_records)
    pool = corpora.FreshRecords.make_pool(options.pool, options.seed, folder / "pool.npy")
    jobs = [("ours", "ours", records, options.merges, options.threads[-1]) for records in sizes]
    jobs.insert(1, ("plain", "plain", sizes[0], options.check_merges or options.merges, 1))
    measurements = []
    for name, label, records, num_merges, threads in jobs:
        arguments = {
            "pool": pool,
            "num_records": records,
            "num_merges": num_merges,
            "max_token_length": options.max_token_length,
        }
        is_plain = name == "plain"
        measurements.append(
            Measurement(
                part="scale",
                contestant=name,
                label=f"{label}, {num_merges:,} merges",
                function=f"contest.training:{'scale_plain' if is_plain else 'scale'}",
                arguments={**arguments, "program": program} if is_plain else arguments,
                threads=threads,
                symbols=records * corpora.LEADS * corpora.SAMPLES,
                about={"records": records, "num_merges": num_merges},
                show_progress=not is_plain,
            )
        )
    return measurements


def learn_vocabulary(corpus: Corpus, folder: Path, options: argparse.Namespace) -> Path:
    """The folder of the tokenizer that encoders are given, learnt from the training records; once for each corpus."""
    vocabulary = folder / f"vocabulary-{corpus.name}"
    if vocabulary.is_dir():
        return vocabulary
    vocabulary.mkdir()
    arguments = {
        "train": str(corpus.train),
        "num_merges": options.merges,
        "max_token_length": options.max_token_length,
        "threads": options.threads[-1],
        "low": corpus.low,
        "high": corpus.high,
        "output": str(vocabulary),
    }
    outcome = run_isolated("contest.encoding:make_vocabulary", arguments, limit=options.limit)
    if outcome["status"] != "ok":
        raise SystemExit(f"no vocabulary to encode with: {outcome['reason']}")
    corpus.about["vocabulary"] = outcome["result"]
    return vocabulary


def plain_program() -> str | None:
    """Build the plain trainer and return its path; `None` without Rust's cargo, which its rows will say."""
    if shutil.which("cargo") is None:
        return None
    command = ["cargo", "build", "--release", "--example", "train_plain", "--message-format=json-render-diagnostics"]
    built = subprocess.run(
        [*command, "--manifest-path", str(MANIFEST)], stdout=subprocess.PIPE, text=True, check=False
    )
    if built.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed in {MANIFEST.parent}; see above")
    programs = [json.loads(line).get("executable") for line in built.stdout.splitlines()]
    return next(program for program in reversed(programs) if program)


# ---- where it was measured ----------------------------------------------------------------------------------------


def provenance_of(options: argparse.Namespace, part: str) -> dict[str, Any]:
    """Versions and arguments; what names a folder of this machine is left out."""
    from importlib import metadata

    from ecgbyte_hf.provenance import provenance

    kept = {name: value for name, value in vars(options).items() if name not in ("output", "readme", "from_json")}
    kept["real"] = options.real is not None
    competitors: dict[str, str | None] = {}
    for name in COMPETITORS:
        try:
            competitors[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            competitors[name] = None
    return provenance(f"scripts/benchmark/tokenizer.py {part}", kept, competitors=competitors)


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, system."""
    names = []
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    has_affinity = hasattr(os, "sched_getaffinity")
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
    }


if __name__ == "__main__":
    sys.exit(main())
