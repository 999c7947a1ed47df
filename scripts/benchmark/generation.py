"""Time and memory of answering all questions about an ECG: prompt by prompt, as a padded batch, with one prefix.

Examples:
    python scripts/benchmark/generation.py
    python scripts/benchmark/generation.py --ecgs 1 --repeat 1 --output trial
    python scripts/benchmark/generation.py --from-json scripts/benchmark/results/generation.json

A random Llama in float32 on one thread; prompts are random ids, an ECG followed by questions of different lengths, and
every answer has the same number of tokens. "Separate" and "padded" are transformers' own `generate`. The ways take
turns, and the processor time of this thread is what counts, so that other programs disturb it less. The answers of
all ways are compared in every round. The folder of --output gets generation.json and generation.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

# Before torch is imported: its libraries read them once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # the checkout's own package, installed or not

from contest.isolation import PeakMemory  # noqa: E402
from tqdm import tqdm  # noqa: E402

LABELS = {
    "separate": "one prompt after another",
    "padded": "padded batch of an ECG's questions",
    "shared": "shared prefix, one ECG at a time",
    "shared_together": "shared prefix, all ECGs in a batch",
}
EOS, PAD, FIRST_ID = 1, 2, 3
#: Tokens of a question with the words around it: ECG-QA's take about 15 to 40.
SHORTEST, LONGEST = 15, 40

Answers = list[list[int]]
Way = Callable[[], Answers]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--ecgs", type=int, default=2, help="(default: %(default)s)")
    add("--questions", type=int, default=14, help="about each ECG (default: %(default)s)")
    add("--ecg-tokens", type=int, default=900, help="of each ECG (default: %(default)s)")
    add("--new-tokens", type=int, default=6, help="of each answer (default: %(default)s)")
    add("--hidden-size", type=int, default=256, help="of the model (default: %(default)s)")
    add("--layers", type=int, default=4, help="of the model (default: %(default)s)")
    add("--vocabulary", type=int, default=4096, help="of the model (default: %(default)s)")
    add("--repeat", type=int, default=3, help="rounds; the median counts (default: %(default)s)")
    add("--seed", type=int, default=0, help="of model and prompts (default: %(default)s)")
    add("--output", type=Path, default=HERE / "results", metavar="DIR", help="for the results (default: %(default)s)")
    add("--from-json", type=Path, metavar="FILE", help="measure nothing; the table of this result file")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print the table."""
    from ecgbyte_hf.provenance import write_json, write_text

    options = parser().parse_args(arguments)
    if options.from_json is not None:
        results = json.loads(options.from_json.read_text(encoding="utf-8"))
        options.output = options.from_json.parent
    else:
        results = measure(options)
        write_json(options.output / "generation.json", results)
    text = text_of(results)
    write_text(options.output / "generation.md", text)
    sys.stdout.write(text)
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that generation.json holds."""
    import torch
    from tokenizer import machine

    from ecgbyte_hf.provenance import provenance

    torch.set_num_threads(1)
    kept = {name: value for name, value in vars(options).items() if name not in ("output", "from_json")}
    language_model = random_model(options)
    ways = ways_of(language_model, prompts_of(options), options.new_tokens)
    return {
        "provenance": provenance("scripts/benchmark/generation.py", kept),
        "machine": machine(),
        "parameters": sum(parameter.numel() for parameter in language_model.model.parameters()),
        **race(ways, options.repeat),
    }


def random_model(options: argparse.Namespace) -> Any:
    """A random Llama that never ends an answer, with what generation asks of a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel

    torch.manual_seed(options.seed)
    heads = max(options.hidden_size // 64, 1)
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden_size,
        intermediate_size=options.hidden_size * 8 // 3,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        max_position_embeddings=options.ecg_tokens + LONGEST + options.new_tokens,
        initializer_range=options.hidden_size**-0.5,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[EOS] = 0.0  # never the likeliest, so that every answer has all its tokens
    tokenizer = SimpleNamespace(eos_token_id=EOS, pad_token_id=PAD)
    return EcgLanguageModel(model, tokenizer, None, EcgPrompt())


def prompts_of(options: argparse.Namespace) -> list[tuple[list[int], list[list[int]]]]:
    """For each ECG its ids and those of the questions."""
    import numpy as np

    rng = np.random.default_rng(options.seed)

    def draw(length: int) -> list[int]:
        return [int(token) for token in rng.integers(FIRST_ID, options.vocabulary, length)]

    return [
        (
            draw(options.ecg_tokens),
            [draw(int(length)) for length in rng.integers(SHORTEST, LONGEST + 1, options.questions)],
        )
        for _ in range(options.ecgs)
    ]


def ways_of(
    language_model: Any, prompts: Sequence[tuple[list[int], list[list[int]]]], new_tokens: int
) -> dict[str, Way]:
    """What is compared: each gives the new tokens of every question in turn."""
    from ecgbyte_hf.evaluation.shared_prefix import PrefixedQuestions, complete_and_score

    rows = [PrefixedQuestions(ecg, questions, [[] for _ in questions]) for ecg, questions in prompts]
    whole = [[row.prefix + tail for tail in row.tails] for row in rows]

    def shared(batch: Sequence[PrefixedQuestions]) -> Answers:
        made = complete_and_score(
            language_model.model, batch, max_new_tokens=new_tokens, eos_token_id=EOS, pad_token_id=PAD
        )
        return [new for row, _ in made for new in row]

    def generate(batch: list[list[int]]) -> Answers:
        new: Answers = language_model._generate(batch, new_tokens, None)
        return new

    return {
        "separate": lambda: [new for batch in whole for prompt in batch for new in generate([prompt])],
        "padded": lambda: [new for batch in whole for new in generate(batch)],
        "shared": lambda: [new for row in rows for new in shared([row])],
        "shared_together": lambda: shared(rows),
    }


def race(ways: dict[str, Way], repeat: int) -> dict[str, Any]:
    """Seconds of every round, memory above what was in use before, and whether all answers are the same."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory = dict.fromkeys(ways, 0)
    answers: dict[str, Answers] = {}
    differing = dict.fromkeys(ways, 0)
    for _ in tqdm(range(repeat), desc="time", unit="round", leave=False):
        for name, way in ways.items():
            give_back_freed_memory()
            peak = PeakMemory.start()
            began = time.process_time()
            made = way()
            seconds[name].append(time.process_time() - began)
            used = peak.report()
            memory[name] = max(memory[name], used["peak_bytes"] - used["baseline_bytes"])
            reference = answers.setdefault("separate", made)
            differing[name] += sum(one != other for one, other in zip(made, reference, strict=True))
    return {
        "questions": len(answers["separate"]),
        "rounds_s": seconds,
        "memory_bytes": memory,
        "answers_that_differ": differing,
    }


def give_back_freed_memory() -> None:
    """So that one way's memory is not what the way before it left behind; glibc keeps freed blocks."""
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def text_of(results: dict[str, Any]) -> str:
    """The table and what it was measured on."""
    arguments = results["provenance"]["arguments"]
    separate = median(results["rounds_s"]["separate"])
    lines = [
        f"Answering {arguments['questions']} questions about each of {arguments['ecgs']} ECGs: "
        f"{arguments['ecg_tokens']} tokens of ECG, {SHORTEST} to {LONGEST} of question, {arguments['new_tokens']} of "
        f"answer; a random Llama of {results['parameters'] / 1e6:.1f} M parameters in float32 on one thread; "
        f"{results['machine']['cpu']}. Processor time, median of {arguments['repeat']} "
        "rounds; memory above the model.",
        "",
        "| way | ms per question | times as fast as separate | memory | answers that differ from separate |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in LABELS:
        rounds = results["rounds_s"][name]
        per_question = 1e3 * median(rounds) / results["questions"]
        differing = results["answers_that_differ"][name]
        lines.append(
            f"| {LABELS[name]} | {per_question:.1f} | {separate / median(rounds):.1f} | "
            f"{results['memory_bytes'][name] / 1e6:.0f} MB | {differing} of {results['questions'] * len(rounds)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
