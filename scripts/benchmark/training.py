"""Questions and useful tokens per second, and memory, of ways to train on questions about ECGs.

Examples:
    python scripts/benchmark/training.py
    python scripts/benchmark/training.py --steps 4 --records 12 --output trial
    python scripts/benchmark/training.py --device cuda --shape llama-3.2-1b --attention flex_attention --output gpu
    python scripts/benchmark/training.py --from-json scripts/benchmark/results/training.json

Simulated ECGs of 12 leads with 15 questions each, cut to prompts of --max-length tokens; random weights; LoRA on the
seven projections. Every way runs in a process of its own; the first steps do not count. Useful tokens are positions
that are no padding. The folder of --output gets training.json (every count, versions, machine) and training.md.
The option for a GPU has not been run yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # the checkout's own package, installed or not

from contest.finetuning import SHAPES, WAYS  # noqa: E402
from contest.isolation import run_isolated  # noqa: E402
from tqdm import tqdm  # noqa: E402

RATE = 100.0
NUM_MERGES = 500


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: bf16 (default: %(default)s)")
    add("--shape", choices=tuple(SHAPES), default="small", help="of the model (default: %(default)s)")
    add("--attention", default="sdpa", choices=("sdpa", "eager", "flex_attention"), help="(default: %(default)s)")
    add("--records", type=int, default=40, help="simulated ECGs (default: %(default)s)")
    add("--max-length", type=int, default=1024, help="of one question's row (default: %(default)s)")
    add("--batch-size", type=int, default=2, help="rows in a step (default: %(default)s)")
    add("--steps", type=int, default=24, help="that count (default: %(default)s)")
    add("--warm-up", type=int, default=2, help="steps before them (default: %(default)s)")
    add("--threads", type=int, default=1, help="on a CPU (default: %(default)s)")
    add("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS), help="(default: all)")
    add("--limit", type=float, default=1800, help="seconds for each way (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the ECGs (default: %(default)s)")
    add("--output", type=Path, default=HERE / "results", metavar="DIR", help="for the results (default: %(default)s)")
    add("--from-json", type=Path, metavar="FILE", help="measure nothing; the table of this result file")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print the table."""
    from ecgbyte_hf.provenance import write_json, write_text

    options = parser().parse_args(arguments)
    if options.warm_up < 1 or options.steps < 1:
        sys.exit("training.py: --warm-up and --steps are at least 1")
    if options.from_json is not None:
        results = json.loads(options.from_json.read_text(encoding="utf-8"))
        options.output = options.from_json.parent
    else:
        results = measure_all(options)
        write_json(options.output / "training.json", results)
    text = text_of(results)
    write_text(options.output / "training.md", text)
    sys.stdout.write(text)
    return 0


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that training.json holds."""
    from tokenizer import machine

    from ecgbyte_hf.provenance import provenance

    kept = {name: value for name, value in vars(options).items() if name not in ("output", "from_json")}
    names = ("device", "shape", "attention", "max_length", "batch_size", "steps", "warm_up", "threads")
    environment = {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ecgbyte-benchmark-") as folder:
        environment["HF_DATASETS_CACHE"] = str(Path(folder, "cache"))
        rows = write_rows(Path(folder), options)
        job = {"folder": folder, **{name: kept[name] for name in names}}
        for way in tqdm(options.ways, desc="train", unit="way"):
            results[way] = run_isolated(
                "contest.finetuning:measure", {"way": way, "job": job}, limit=options.limit, environment=environment
            )
    return {
        "provenance": provenance("scripts/benchmark/training.py", kept),
        "machine": {**machine(), **({"gpu": gpu_name()} if options.device == "cuda" else {})},
        "rows": rows,
        "ways": results,
    }


def gpu_name() -> str:
    """Of the first one."""
    import torch

    return str(torch.cuda.get_device_name())


def write_rows(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """ECGs, a tokenizer, an extended model (for its tokenizer) and the rows of each format; counts by format."""
    from ecgbyte_hf.data.encode import encode_rows
    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.data.sources import prepare_synthetic
    from ecgbyte_hf.data.synthetic import ATTRIBUTES
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
    from ecgbyte_hf.training.extend_llm import extend_llm, load_prompter
    from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of
    from ecgbyte_hf.training.train_tokenizer import train_tokenizer

    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=RATE)
    prepared = prepare_synthetic(
        folder / "prepared", feature_extractor=extractor, num_records=options.records, seed=options.seed
    )
    train_tokenizer(prepared, folder / "ecg-byte", num_merges=NUM_MERGES)
    prompt = EcgPrompt(max_length=options.max_length, reserve=min(64, options.max_length // 4))
    make_tiny_llama(folder / "base", texts_of(prepared, prompt), hidden_size=32, num_layers=1, num_heads=2)
    processor = EcgByteProcessor.from_pretrained(folder / "ecg-byte")
    extend_llm(str(folder / "base"), processor, folder / "model", prompt=prompt)
    prompter = load_prompter(folder / "model", prepared)
    counts = {}
    for row_format in ("text", "grouped", "shared"):
        report = encode_rows(
            prepared,
            folder / row_format,
            prompter,
            splits=["train"],
            row_format=row_format,
            questions_per_row=len(ATTRIBUTES) if row_format == "grouped" else None,
        )
        counts[row_format] = report["splits"]["train"]
    return counts


# ---- telling ------------------------------------------------------------------------------------------------------


def text_of(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    given = results["provenance"]["arguments"]
    by_cpu = given["device"] == "cpu"
    machine = results["machine"]
    where = f"{machine['cpu']}, {given['threads']} thread(s)" if by_cpu else machine["gpu"]
    rows = results["rows"]
    lines = [
        f"Shape `{given['shape']}` with random weights, LoRA, {given['attention']}, {where}; {given['steps']} steps "
        f"of {given['batch_size']} rows, rows of one question up to {given['max_length']} tokens.",
        f"{rows['text']['questions']} questions are {rows['text']['rows']} separate, {rows['grouped']['rows']} "
        f"grouped and {rows['shared']['rows']} shared-prefix rows (the longest "
        f"{rows['shared']['longest_row_tokens']} tokens). "
        + ("Seconds are the processor's; memory is what came on top of the loaded model." if by_cpu else ""),
        "",
        "| way | questions/s | x plain | useful tokens/s | padding | positions per question | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    seconds = "cpu_seconds" if by_cpu else "seconds"
    plain = results["ways"].get("plain_padded", {}).get("result")
    for way, answer in results["ways"].items():
        label = WAYS[way][0]
        if answer["status"] != "ok":
            lines.append(f"| {label} | {answer['reason']} | | | | | |")
            continue
        got = answer["result"]
        speed = got["questions"] / got[seconds]
        times = f"{speed / (plain['questions'] / plain[seconds]):.1f}" if plain else ""
        lines.append(
            f"| {label} | {speed:.2f} | {times} | {got['useful_tokens'] / got[seconds]:,.0f} "
            f"| {100 * (1 - got['useful_tokens'] / got['positions']):.1f} % "
            f"| {got['positions'] / got['questions']:,.0f} | {got['peak_bytes'] / 1e6:,.0f} MB |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
