"""Time and memory of every figure and of every map of an answer, for one recording of 12 leads and 10 s.

Examples:
    ecgbyte prepare ptb_xl --data-dir ptb-xl --output prepared
    python scripts/benchmark/figures.py --data prepared --recording ptb-xl/records500/00000/00172_hr --work work
    python scripts/benchmark/figures.py --from-json scripts/benchmark/results/figures.json

A tokenizer is learnt from the training records of --data, and random Llamas are given rows for it; what they answer
means nothing, but takes as long as if it did. Every command runs in a process of its own, on one thread:
its seconds of processor time with all imports, and its highest memory. Then the maps alone, for models of several
depths: their memory above that of the loaded model must not grow with the number of layers. --work keeps tokenizer and
models, for a further run, and the figures. The folder of --output gets figures.json and figures.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before torch and the Hub's client are imported, which read them once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # the checkout's own package, installed or not

from contest.isolation import PeakMemory, run_isolated  # noqa: E402
from tqdm import tqdm  # noqa: E402

QUESTION, ANSWER = "Is the rhythm regular?", "yes"
#: Room for the ECG, the question and the answer, so that nothing is cut.
MAX_LENGTH = 4096
#: So that memory is what is needed, and not what glibc's heap keeps in gaps between blocks.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
DEPTHS = (4, 16)
MAPS = ("attention", "gradient_x_input", "integrated_gradients")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--data", type=Path, metavar="DIR", help="what `ecgbyte prepare` wrote")
    add("--recording", type=Path, metavar="PATH", help="a recording of the same leads")
    add("--work", type=Path, metavar="DIR", help="folder for tokenizer, models and figures")
    add("--num-merges", type=int, default=3500, help="(default: %(default)s)")
    add("--hidden-size", type=int, default=512, help="of the models (default: %(default)s)")
    add("--heads", type=int, default=8, help="of the models (default: %(default)s)")
    add("--layers", type=int, default=8, help="of the model of the commands (default: %(default)s)")
    add("--depths", type=int, nargs="+", default=list(DEPTHS), help="of the others (default: 4 16)")
    add("--integration-steps", type=int, default=4, help="of integrated gradients (default: %(default)s)")
    add("--draws", type=int, default=5, help="of the check by deletion (default: %(default)s)")
    add("--limit", type=float, default=1800, help="seconds for each command (default: %(default)s)")
    add("--output", type=Path, default=HERE / "results", metavar="DIR", help="(default: %(default)s)")
    add("--from-json", type=Path, metavar="FILE", help="measure nothing; the table of this result file")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print the tables."""
    from ecgbyte_hf.provenance import write_json, write_text

    options = parser().parse_args(arguments)
    if options.from_json is not None:
        results = json.loads(options.from_json.read_text(encoding="utf-8"))
        options.output = options.from_json.parent
    elif None in (options.data, options.recording, options.work):
        parser().error("give --data, --recording and --work")
    else:
        results = measure(options)
        write_json(options.output / "figures.json", results)
    text = text_of(results)
    write_text(options.output / "figures.md", text)
    sys.stdout.write(text)
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that figures.json holds."""
    from tokenizer import machine

    from ecgbyte_hf.provenance import provenance

    make_models(options)
    kept = {name: value for name, value in vars(options).items() if name not in ("output", "from_json", "work")}
    # A machine's folders are nobody's business.
    kept |= {"data": options.data.name, "recording": options.recording.name}
    start = run_isolated("figures:run_start", {"tokenizer": str(options.work / "ecg-byte")}, limit=options.limit)
    commands = [{"command": "a tokenizer loaded, nothing drawn", **start}]
    for name, (words, made) in tqdm(commands_of(options).items(), desc="commands", leave=False):
        ran = run_isolated("figures:run_command", {"words": words, "made": made}, limit=options.limit)
        commands.append({"command": name, **ran})
    maps = {
        str(depth): {
            method: run_isolated(
                "figures:run_map", map_arguments(options, depth, method), limit=options.limit, environment=GIVE_BACK
            )
            for method in MAPS
        }
        for depth in tqdm(options.depths, desc="depths", leave=False)
    }
    return {
        "provenance": provenance("scripts/benchmark/figures.py", kept),
        "machine": machine(),
        "commands": commands,
        "maps": maps,
    }


def make_models(options: argparse.Namespace) -> None:
    """The tokenizer, and a random model of each depth; what is there is kept."""
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
    from ecgbyte_hf.training.extend_llm import extend_llm
    from ecgbyte_hf.training.tiny_llm import make_tiny_llama
    from ecgbyte_hf.training.train_tokenizer import train_tokenizer

    if not (options.work / "ecg-byte").is_dir():
        train_tokenizer(PreparedData(options.data), options.work / "ecg-byte", num_merges=options.num_merges)
    processor = EcgByteProcessor.from_pretrained(options.work / "ecg-byte")
    prompt = EcgPrompt(max_length=MAX_LENGTH, reserve=32)
    texts = [prompt.render("", QUESTION) + prompt.render_answer([ANSWER])]
    for depth in sorted({options.layers, *options.depths}):
        folder = model_folder(options, depth)
        if folder.is_dir():
            continue
        shape = {"hidden_size": options.hidden_size, "num_layers": depth, "num_heads": options.heads}
        base = options.work / f"base-{depth}"
        make_tiny_llama(base, texts, text_vocab_size=300, max_positions=MAX_LENGTH, **shape)
        extend_llm(str(base), processor, folder, prompt=prompt)


def model_folder(options: argparse.Namespace, depth: int) -> Path:
    """Where the model of so many layers is."""
    return Path(options.work) / f"model-{depth}"


def commands_of(options: argparse.Namespace) -> dict[str, tuple[list[str], str]]:
    """What is measured, by what the table calls it: the words behind `ecgbyte`, and the file that they make."""
    figures = options.work / "figures"
    record = ["--record", str(options.recording)]
    tokens = ["--tokenizer", str(options.work / "ecg-byte")]
    asked = ["--model", str(model_folder(options, options.layers)), "--question", QUESTION, "--answer", ANSWER]
    asked += ["--device", "cpu", "--steps", str(options.integration_steps)]
    longest = str(25 + options.num_merges)
    commands = {
        "plot ecg, PNG": (["plot", "ecg", *record], "ecg.png"),
        "plot ecg, PDF": (["plot", "ecg", *record], "ecg.pdf"),
        "plot merges, 3x4": (["plot", "merges", *tokens, *record], "merges.png"),
        "plot merges, rows": (["plot", "merges", *tokens, *record, "--layout", "rows"], "merges-rows.png"),
        "plot merges, one token": (["plot", "merges", *tokens, "--token", longest], "token.png"),
        "plot decode, 12 leads": (["plot", "decode", *tokens, *record], "decode.png"),
        "plot usage": (["plot", "usage", *tokens, "--data", str(options.data)], "usage.png"),
    }
    last = str(options.layers - 1)
    for name, more in {
        "attention, mean": [],
        "attention, one layer": ["--layer", last],
        "attention, one head": ["--layer", last, "--head", "0"],
        "attention, the paper's": ["--method", "paper"],
        "attention, rollout": ["--method", "rollout"],
        "gradient x input": ["--method", "gradient_x_input"],
        f"integrated gradients, {options.integration_steps} steps": ["--method", "integrated_gradients"],
        f"attention, mean, --check, {options.draws} draws": ["--check", "--draws", str(options.draws)],
    }.items():
        made = f"map-{len(commands)}.png"
        commands[f"plot attention: {name}"] = (["plot", "attention", *record, *asked, *more], made)
    commands["report, 3 maps"] = (["report", str(options.recording), *asked], "report.html")
    return {
        name: ([*words, "--output", str(figures / made)], str(figures / made))
        for name, (words, made) in commands.items()
    }


def run_start(tokenizer: str) -> dict[str, Any]:
    """What every command that needs a tokenizer takes before it begins; as `run_command` has it."""
    began = time.process_time()
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

    EcgByteProcessor.from_pretrained(tokenizer)
    seconds = time.process_time() - began
    return {"seconds": seconds, "peak_bytes": PeakMemory(0).report()["peak_bytes"], "file_bytes": None}


def run_command(words: list[str], made: str) -> dict[str, Any]:
    """Run a command here; its processor seconds, the process's highest memory, and the bytes of what it made."""
    began = time.process_time()
    from ecgbyte_hf.cli import main as run

    code = run(words)
    if code:
        raise RuntimeError(f"ecgbyte {' '.join(words[:2])} ended with {code}")
    return {
        "seconds": time.process_time() - began,
        "peak_bytes": PeakMemory(0).report()["peak_bytes"],
        "file_bytes": Path(made).stat().st_size,
    }


def map_arguments(options: argparse.Namespace, depth: int, method: str) -> dict[str, Any]:
    """What `run_map` is called with."""
    return {
        "model": str(model_folder(options, depth)),
        "recording": str(options.recording),
        "method": method,
        "steps": options.integration_steps,
    }


def run_map(model: str, recording: str, method: str, steps: int) -> dict[str, Any]:
    """A map alone: its processor seconds, and its memory above the process with the model loaded."""
    import torch

    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
    from ecgbyte_hf.interpretation.attribution import attribute
    from ecgbyte_hf.interpretation.reading import read_question
    from ecgbyte_hf.signal.records import read_ecg

    torch.set_num_threads(1)
    loaded = EcgLanguageModel.load(model, device="cpu")
    reading = read_question(loaded, read_ecg(recording), QUESTION, answer=ANSWER)
    with torch.inference_mode():  # so that what libraries keep of their first use is no part of the map
        loaded.model(input_ids=torch.from_numpy(reading.ids[None, -8:]), use_cache=False)
    memory, began = PeakMemory.start(), time.process_time()
    attribute(loaded, reading, [method], steps=steps)
    seconds, used = time.process_time() - began, memory.report()
    return {
        "seconds": seconds,
        "memory_bytes": used["peak_bytes"] - used["baseline_bytes"],
        "model_bytes": sum(one.numel() * one.element_size() for one in loaded.model.parameters()),
        "samples": list(reading.signal.shape),
        "ecg_tokens": len(reading.ecg_ids),
        "tokens": reading.num_tokens,
    }


def text_of(results: dict[str, Any]) -> str:
    """Both tables and what was measured."""
    arguments = results["provenance"]["arguments"]
    maps = {depth: results["maps"][depth] for depth in sorted(results["maps"], key=int)}
    known = next(one["result"] for methods in maps.values() for one in methods.values() if one["status"] == "ok")
    leads, samples = known["samples"]
    lines = [
        "# Time and memory of the figures",
        "",
        f"Made by `scripts/benchmark/figures.py`. The recording {arguments['recording']}: {leads} leads x {samples:,} "
        f"samples, {known['ecg_tokens']:,} ECG tokens of {known['tokens']:,} read; a tokenizer of "
        f"{arguments['num_merges']:,} merges; random Llamas, {arguments['hidden_size']} wide, {arguments['heads']} "
        f"heads, float32, one thread; {results['machine']['cpu']}.",
        "",
        "Each command in a process of its own: processor seconds with all imports, and highest memory. The model of "
        f"the maps has {arguments['layers']} layers. Integrated gradients take as much more as there are more "
        "steps (32 by default).",
        "",
        "| command | seconds | memory | file |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {one['command']} | {_command_cells(one)} |" for one in results["commands"]]
    lines += [
        "",
        "The maps alone: processor seconds, and memory above the process with the model loaded, by the layers of the "
        "model; glibc is told to give freed blocks back, which takes time. Attention is reduced layer by layer; "
        "gradients keep each layer's input and make the rest again.",
        "",
        "| map | " + " | ".join(f"{depth} layers" for depth in maps) + " |",
        "| --- |" + " --- |" * len(maps),
    ]
    lines += [
        f"| {method} | " + " | ".join(_map_cell(maps[depth][method]) for depth in maps) + " |" for method in MAPS
    ]
    lines.append("| weights of the model | " + " | ".join(_weights(maps[depth]) for depth in maps) + " |")
    return "\n".join(lines) + "\n"


def _command_cells(one: dict[str, Any]) -> str:
    if one["status"] != "ok":
        return f"{one['status']}: {one['reason']} | | "
    result = one["result"]
    size = "" if result["file_bytes"] is None else f"{result['file_bytes'] / 1e3:,.0f} kB"
    return f"{result['seconds']:.1f} | {result['peak_bytes'] / 1e6:,.0f} MB | {size}"


def _map_cell(one: dict[str, Any]) -> str:
    if one["status"] != "ok":
        return f"{one['status']}: {one['reason']}"
    return f"{one['result']['seconds']:.1f} s, {one['result']['memory_bytes'] / 1e6:,.0f} MB"


def _weights(methods: dict[str, Any]) -> str:
    sizes = [one["result"]["model_bytes"] for one in methods.values() if one["status"] == "ok"]
    return f"{sizes[0] / 1e6:,.0f} MB" if sizes else ""


if __name__ == "__main__":
    sys.exit(main())
