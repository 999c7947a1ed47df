"""How the rows of the ECG tokens begin, and whether they are trained: exact match of a small model on equal terms.

Examples:
    python scripts/benchmark/new_rows.py --work new-rows
    python scripts/benchmark/new_rows.py --work trial --records 40 --arms frozen:2 --base-steps 2 --merges 30
    python scripts/benchmark/new_rows.py --from-json scripts/benchmark/results/new_rows.json

A Llama of 3 layers and width 128 learns the questions and answers as text. It is extended by `extend_llm` with each
start of the rows, and trained by `ecgbyte sft` with LoRA on its seven projections, the rows frozen or trained too
(--train_ecg_rows): same base, data and batches, the same number of steps for all starts. Trained rows learn in fewer
steps, and with as many both would end where no difference of starts can show; so --arms names rows with steps. Each
start and arm has the learning rate that does best on the validation records with the first seed; a seed decides the
draw of the rows, LoRA's start and the order of the data. One simulated lead, 3 s at 100 Hz: query and choose questions
about the ST segment and the QRS complex. Verify questions are left out: a model this small answers them by chance
(see the demo's table).

One process on one thread. An arm that is in the folder of --work is not trained again. The folder of --output gets
new_rows.json (every arm, which questions it has right), new_rows.md and new_rows.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

# Before torch and the Hub's client are imported, which read them once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # the checkout's own package, installed or not

from tqdm import tqdm  # noqa: E402

INITS = ("mean", "resize", "spread", "waveform")
#: Rows frozen or trained, and training steps.
ARMS = ("trained:100", "frozen:100", "frozen:400")
ATTRIBUTES = ("st", "qrs_width")
QUESTION_TYPES = ("single-query", "single-choose")
SECONDS_OF_ECG = 3.0
MAX_LENGTH = 192
RANK = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LABELS = {
    "mean": "mean of the old rows",
    "resize": "transformers' resizing",
    "spread": "spread like the old rows",
    "waveform": "from the token's waveform",
}
COLOURS = ("#D55E00", "#56B4E9", "#0072B2", "#E69F00")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--work", type=Path, metavar="DIR", help="folder for data, models and finished arms")
    add("--records", type=int, default=4800, help="simulated records, 5 %% of them to test (default: %(default)s)")
    add("--merges", type=int, default=700, help="of the ECG tokenizer (default: %(default)s)")
    add("--base-steps", type=int, default=300, help="training steps on the text alone (default: %(default)s)")
    add("--arms", nargs="+", type=_arm_name, default=list(ARMS), metavar="ROWS:STEPS", help="(default: %(default)s)")
    add("--batch-size", type=int, default=8, help="rows of two questions in a step (default: %(default)s)")
    add("--learning-rates", type=float, nargs="+", default=[2e-3, 4e-3], help="(default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the arms (default: %(default)s)")
    add("--inits", nargs="+", choices=INITS, default=list(INITS), help="(default: all)")
    add("--output", type=Path, default=HERE / "results", metavar="DIR", help="for the results (default: %(default)s)")
    add("--from-json", type=Path, metavar="FILE", help="measure nothing; table and figure of this result file")
    return options


def _arm_name(text: str) -> str:
    rows, _, steps = text.partition(":")
    if rows not in ("frozen", "trained") or not steps.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected frozen:STEPS or trained:STEPS")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print the table."""
    from ecgbyte_hf.provenance import write_json, write_text

    options = parser().parse_args(arguments)
    if (options.work is None) == (options.from_json is None):
        parser().error("give --work DIR, or --from-json FILE")
    if options.from_json is not None:
        results = json.loads(options.from_json.read_text(encoding="utf-8"))
        options.output = options.from_json.parent
    else:
        results = measure(options)
        write_json(options.output / "new_rows.json", results)
    text = text_of(results)
    write_text(options.output / "new_rows.md", text)
    draw(results, options.output / "new_rows.png")
    sys.stdout.write(text)
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train and score all arms that are not there yet."""
    from ecgbyte_hf.provenance import provenance

    bench = Bench(options)
    tuning, runs = [], []
    for arm in options.arms:
        chosen = {}
        for init in options.inits:
            tried = [
                bench.run(init, arm, rate, options.seeds[0], "validation") for rate in sorted(options.learning_rates)
            ]
            chosen[init] = best_rate(tried)
            tuning.append({"init": init, "arm": arm, "tried": [_without_answers(run) for run in tried]})
        for seed in options.seeds:
            runs += [bench.run(init, arm, rate, seed, "test") for init, rate in chosen.items()]
    longest = max((arm.partition(":")[2] for arm in options.arms), key=int)
    rate = min(options.learning_rates)
    question_only = bench.run("spread", f"question-only:{longest}", rate, options.seeds[0], "test")
    kept = {name: value for name, value in vars(options).items() if name not in ("output", "from_json", "work")}
    return {
        "provenance": provenance("scripts/benchmark/new_rows.py", kept, data_hash=bench.prepared.report["data_hash"]),
        "setting": bench.setting(),
        "controls": {"majority": bench.majority(), "question_only": _without_answers(question_only)},
        "tuning": tuning,
        "ecg_id": runs[0]["ecg_id"],
        "runs": [{name: value for name, value in run.items() if name != "ecg_id"} for run in runs],
        "summary": summary_of(runs),
    }


def best_rate(tried: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate with the highest exact match; of equal ones the lowest rate."""
    best = max(tried, key=lambda run: (run["exact_match"], -run["learning_rate"]))
    return float(best["learning_rate"])


def _without_answers(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name not in ("correct", "ecg_id")}


class Bench:
    """Data, base model and finished arms in the folder of --work.

    Args:
        options: The command line's.

    Raises:
        SystemExit: the folder holds another benchmark.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        """Make what is not there yet."""
        from ecgbyte_hf.data.prompts import EcgPrompt
        from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
        from ecgbyte_hf.provenance import read_object, write_json

        self.options = options
        self.root = options.work
        mine = {name: getattr(options, name) for name in ("records", "merges", "base_steps", "batch_size")}
        theirs = read_object(self.root / "benchmark.json")
        if theirs not in (None, mine):
            sys.exit(f"{self.root} holds a benchmark with {theirs}, got {mine}; choose another folder for --work")
        write_json(self.root / "benchmark.json", mine)
        self.prompt = EcgPrompt(max_length=MAX_LENGTH, reserve=32)
        self.prepared = self._prepare()
        self.processor = EcgByteProcessor.from_pretrained(self.root / "ecg-byte")
        self._make_base()
        self._write_rows()

    def _prepare(self) -> Any:
        """Simulated records, and a tokenizer learnt from some of them."""
        from ecgbyte_hf.data.sources import prepare_synthetic
        from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
        from ecgbyte_hf.training.train_tokenizer import train_tokenizer

        extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["II"])
        prepared = prepare_synthetic(
            self.root / "prepared",
            feature_extractor=extractor,
            num_records=self.options.records,
            attributes=ATTRIBUTES,
            duration=SECONDS_OF_ECG,
        )
        if not (self.root / "ecg-byte" / "training.json").is_file():
            train_tokenizer(prepared, self.root / "ecg-byte", num_merges=self.options.merges, max_records=1000)
        return prepared

    def _make_base(self) -> None:
        """A small Llama that has learnt the questions and answers as text, without any ECG."""
        import torch
        from datasets import Dataset
        from transformers import set_seed
        from trl import SFTConfig, SFTTrainer

        from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of

        base = self.root / "base"
        if (base / "model.safetensors").is_file():
            return
        torch.set_num_threads(1)
        texts = texts_of(self.prepared, self.prompt)
        random = make_tiny_llama(self.root / "random", texts, hidden_size=128, num_layers=3)
        set_seed(0)
        trainer: Any = SFTTrainer(
            model=str(random),
            args=SFTConfig(
                output_dir=str(self.root / "base-training"),
                max_steps=self.options.base_steps,
                per_device_train_batch_size=32,
                learning_rate=2e-3,
                lr_scheduler_type="cosine",
                warmup_steps=max(self.options.base_steps // 20, 1),
                max_length=MAX_LENGTH,
                model_init_kwargs={"dtype": "float32"},
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                save_strategy="no",
                logging_steps=100,
                use_cpu=True,
                dataloader_pin_memory=False,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"text": texts}),
        )
        trainer.train()
        trainer.save_model(str(base))

    def _write_rows(self) -> None:
        """Training rows of two questions, with the ECG and without; they are the same for every start."""
        from ecgbyte_hf.data.encode import encode_rows
        from ecgbyte_hf.training.extend_llm import load_prompter

        extended = self.extended("spread", 0)
        for view, name in (("true", "rows"), ("question_only", "rows-question-only")):
            if not (self.root / name / "encode.json").is_file():
                encode_rows(
                    self.prepared,
                    self.root / name,
                    load_prompter(extended, self.prepared, view=view),
                    splits=["train"],
                    questions_per_row=len(ATTRIBUTES),
                    question_types=list(QUESTION_TYPES),
                )

    def extended(self, init: str, seed: int) -> Path:
        """The base model with rows for the ECG tokens."""
        from ecgbyte_hf.training.extend_llm import extend_llm

        folder: Path = self.root / "extended" / f"{init}-{seed}"
        if not (folder / "ecg_byte" / "ecg_prompt.json").is_file():
            extend_llm(str(self.root / "base"), self.processor, folder, prompt=self.prompt, init=init, seed=seed)
        return folder

    def questions(self, split: str) -> list[dict[str, Any]]:
        """Those of the types that are asked."""
        return [row for row in self.prepared.questions(split) if row["question_type"] in QUESTION_TYPES]

    def run(self, init: str, arm: str, rate: float, seed: int, split: str) -> dict[str, Any]:
        """Train and score one model, or read what an earlier run left of it.

        Args:
            init: Start of the rows.
            arm: `"frozen:STEPS"`, `"trained:STEPS"`, or `"question-only:STEPS"`: frozen, and no ECG is shown.
            rate: Learning rate.
            seed: Of the rows' draw, LoRA's start and the order of the data.
            split: Whose questions are answered.

        Returns:
            `exact_match`, `by_type`, `by_attribute`, `unparsed` (fractions), `correct` (a 0 or 1 for each question),
            `ecg_id` of each question, `seconds` of training, and the arguments.
        """
        from ecgbyte_hf.provenance import read_object, write_json

        name = f"{init}-{arm.replace(':', '-')}-{rate:g}-{seed}"
        path = self.root / "arms" / f"{name}-{split}.json"
        finished = read_object(path)
        if finished is None:
            tqdm.write(f"{time.strftime('%H:%M:%S')} {name} {split}", file=sys.stderr)
            model = self.root / "arms" / name
            seconds = self._train(model, init, arm, rate, seed)
            finished = {"init": init, "arm": arm, "learning_rate": rate, "seed": seed, "split": split}
            finished |= {**self._score(model, arm, split), "seconds": seconds}
            write_json(path, finished)
        return finished

    def _train(self, model: Path, init: str, arm: str, rate: float, seed: int) -> float:
        """`ecgbyte sft` in this process; seconds, those of the run that did it."""
        import torch
        from transformers import set_seed

        from ecgbyte_hf.provenance import read_object, write_json
        from ecgbyte_hf.training.sft import train

        known = read_object(model / "seconds.json")
        if known is not None:
            return float(known["seconds"])
        torch.set_num_threads(1)
        extended = self.extended(init, seed)
        set_seed(seed)  # LoRA's start is drawn before the trainer sets the seed
        began = time.perf_counter()
        folder = self.root / ("rows-question-only" if arm.startswith("question-only") else "rows")
        train(training_arguments(extended, folder, model, arm, rate, seed, self.options.batch_size))
        seconds = time.perf_counter() - began
        write_json(model / "seconds.json", {"seconds": seconds})
        return seconds

    def _score(self, model: Path, arm: str, split: str) -> dict[str, Any]:
        from ecgbyte_hf.evaluation.generate import (
            EcgLanguageModel,
            generate_answers,
            make_prompter,
            read_predictions,
        )
        from ecgbyte_hf.evaluation.scoring import score_rows

        language_model = EcgLanguageModel.load(model, device="cpu")
        questions = self.questions(split)
        view = "question_only" if arm.startswith("question-only") else "true"
        prompter = make_prompter(language_model, self.prepared, questions, view=view)
        answers = generate_answers(
            language_model,
            questions,
            prompter,
            self.prepared.template_options(),
            model / f"{split}.jsonl",
            batch_size=64,
            max_new_tokens=12,
        )
        return scores_of(score_rows(read_predictions(answers)))

    def majority(self) -> dict[str, Any]:
        """The most frequent training answer of each template."""
        from ecgbyte_hf.evaluation.controls import majority_predictions
        from ecgbyte_hf.evaluation.scoring import question_options, score_rows

        questions = self.questions("test")
        options = self.prepared.template_options()
        answers = majority_predictions(self.questions("train"), questions)
        rows = [
            {**row, "options": question_options(row, options), "prediction": answer}
            for row, answer in zip(questions, answers, strict=True)
        ]
        return _without_answers(scores_of(score_rows(rows)))

    def setting(self) -> dict[str, Any]:
        """What the text names: sizes and counts."""
        from ecgbyte_hf.provenance import read_object

        report = read_object(self.root / "ecg-byte" / "training.json") or {}
        questions = self.questions("test")
        return {
            "tokens_per_ecg": report["tokens_per_ecg"],
            "ecg_tokens": self.processor.tokenizer.num_ecg_tokens,
            "test_questions": len(questions),
            "test_ecgs": len({row["ecg_id"][0] for row in questions}),
            "validation_questions": len(self.questions("validation")),
            "rank": RANK,
        }


def training_arguments(
    model: Path, rows: Path, output: Path, arm: str, rate: float, seed: int, batch_size: int
) -> list[str]:
    """The command line of `ecgbyte sft` for one arm."""
    steps = int(arm.partition(":")[2])
    values = {
        "model_name_or_path": model,
        "dataset_name": rows,
        "output_dir": output,
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "learning_rate": rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(steps // 20, 1),
        "weight_decay": 0.01,
        "adam_beta2": 0.98,
        "max_length": MAX_LENGTH,
        "dtype": "float32",
        "bf16": "false",
        "gradient_checkpointing": "false",
        "logging_steps": 100,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": "true",
        "dataloader_pin_memory": "false",
        "disable_tqdm": "true",
        "seed": seed,
        "lora_r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0,
    }
    arguments = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    arguments += ["--use_peft", "--lora_target_modules", *TARGETS]
    return [*arguments, "--train_ecg_rows"] if arm.startswith("trained") else arguments


def scores_of(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Exact match of scored rows, and which they have right."""
    from ecgbyte_hf.evaluation.scoring import cluster_key, summarise

    match = summarise(scored)["exact_match"]
    return {
        "exact_match": match["overall"],
        "by_type": {name: value["value"] for name, value in match["by_type"].items()},
        "by_attribute": {name: value["value"] for name, value in match["by_attribute"].items()},
        "unparsed": match["unparsed"],
        "correct": "".join(str(int(row["correct"])) for row in scored),
        "ecg_id": [cluster_key(row) for row in scored],
    }


# ---- comparing ----------------------------------------------------------------------------------------------------


def summary_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each arm over its seeds, and the differences of arms.

    Returns:
        `arms`: `init`, `arm`, `values` by seed, `mean`, `sd`, `learning_rate`, `by_type`, `by_attribute`.
        `differences`: for two starts of one arm, and for two arms of one start: `value` (the second less the first,
        mean over the seeds), `sd` of the seeds' differences, `ci95` by ECG of the mean over the seeds.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["init"], run["arm"]), []).append(run)
    arms = [
        {
            "init": init,
            "arm": arm,
            "learning_rate": group[0]["learning_rate"],
            "values": {str(run["seed"]): run["exact_match"] for run in group},
            "mean": mean(run["exact_match"] for run in group),
            "sd": _sd([run["exact_match"] for run in group]),
            "by_type": _means(group, "by_type"),
            "by_attribute": _means(group, "by_attribute"),
        }
        for (init, arm), group in groups.items()
    ]
    differences = [
        {"first": list(first), "second": list(second), **difference_of(groups[first], groups[second])}
        for first, second in combinations(groups, 2)
        if (first[0] == second[0]) != (first[1] == second[1])
    ]
    return {"arms": arms, "differences": differences}


def difference_of(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Exact match of the second arm less that of the first, on the same questions with the same seeds."""
    from ecgbyte_hf.evaluation.statistics import paired_difference

    if [run["seed"] for run in first] != [run["seed"] for run in second]:
        raise ValueError("the arms have other seeds than one another; train both with all")
    right = [
        [mean(int(run["correct"][place]) for run in arm) for place in range(len(arm[0]["correct"]))]
        for arm in (second, first)
    ]
    found = paired_difference(*right, first[0]["ecg_id"])
    by_seed = [theirs["exact_match"] - ours["exact_match"] for ours, theirs in zip(first, second, strict=True)]
    return {"value": found.difference, "ci95": list(found.ci95), "sd": _sd(by_seed), "by_seed": by_seed}


def _means(group: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    return {name: mean(run[key][name] for run in group) for name in group[0][key]}


def _sd(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


# ---- telling ------------------------------------------------------------------------------------------------------


def text_of(results: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    given, setting = results["provenance"]["arguments"], results["setting"]
    seeds, arms, controls, summary = given["seeds"], given["arms"], results["controls"], results["summary"]
    rates = ", ".join(f"{rate:g}" for rate in given["learning_rates"])
    lines = [
        f"Exact match in % on {setting['test_questions']} questions about {setting['test_ecgs']} unseen simulated "
        f"ECGs (lead II, {SECONDS_OF_ECG:g} s at 100 Hz, {setting['tokens_per_ecg']:.0f} tokens of a vocabulary of "
        f"{setting['ecg_tokens']}): mean and standard deviation over {len(seeds)} training seeds. Llama of 3 layers "
        f"and width 128 that had learnt the text, LoRA of rank {setting['rank']}, {given['batch_size']} rows in a "
        f"step. Learning rate (of {rates}) chosen for each cell on {setting['validation_questions']} validation "
        f"questions with seed {seeds[0]}.",
        "",
        f"Without the ECG: the majority answers {_percent(controls['majority']['exact_match'])}, a model trained on "
        f"the questions only {_percent(controls['question_only']['exact_match'])}.",
        "",
        "| rows begin as | " + " | ".join(f"{_told(arm)} | rate" for arm in arms) + " |",
        "| --- " * (2 * len(arms) + 1) + "|",
    ]
    for init in given["inits"]:
        cells = [_cell(summary, init, arm) for arm in arms]
        told = [f"{_mean_and_sd(cell)} | {cell['learning_rate']:g}" for cell in cells]
        lines.append(f"| {LABELS[init]} (`{init}`) | {' | '.join(told)} |")
    lines += [
        "",
        "Differences, the second less the first, in points: mean (standard deviation) of the seeds' differences, and "
        "the 95 % interval by ECG of the mean:",
        "",
        "| first | second | " + " | ".join(map(_told, arms)) + " |",
        "| --- " * (len(arms) + 2) + "|",
    ]
    for first, second in combinations(given["inits"], 2):
        told = [_difference(summary, (first, arm), (second, arm)) for arm in arms]
        lines.append(f"| {first} | {second} | {' | '.join(told)} |")
    lines += [
        "",
        "| first | second | " + " | ".join(given["inits"]) + " |",
        "| --- " * (len(given["inits"]) + 2) + "|",
    ]
    for first, second in combinations(arms, 2):
        told = [_difference(summary, (init, first), (init, second)) for init in given["inits"]]
        lines.append(f"| {_told(first)} | {_told(second)} | {' | '.join(told)} |")
    return "\n".join([*lines, "", *_kind_table(summary)]) + "\n"


def _told(arm: str) -> str:
    """As in: rows frozen, 400 steps."""
    rows, _, steps = arm.partition(":")
    return f"rows {rows}, {steps} steps"


def _cell(summary: Mapping[str, Any], init: str, arm: str) -> Mapping[str, Any]:
    return next(cell for cell in summary["arms"] if (cell["init"], cell["arm"]) == (init, arm))


def _difference(summary: Mapping[str, Any], first: tuple[str, str], second: tuple[str, str]) -> str:
    """As `summary_of` found it, the second less the first."""
    found = next(
        entry for entry in summary["differences"] if (tuple(entry["first"]), tuple(entry["second"])) == (first, second)
    )
    low, high = found["ci95"]
    sd = "" if found["sd"] is None else f" ({_percent(found['sd'])})"
    return f"{_points(found['value'])}{sd}, {_points(low)} to {_points(high)}"


def _kind_table(summary: Mapping[str, Any]) -> Iterator[str]:
    """What kind of question each arm answers."""
    kinds = [(key, name) for key in ("by_type", "by_attribute") for name in summary["arms"][0][key]]
    yield "Mean over the seeds by kind of question:"
    yield ""
    yield "| begin as | | " + " | ".join(name for _, name in kinds) + " |"
    yield "| --- " * (len(kinds) + 2) + "|"
    for cell in summary["arms"]:
        values = " | ".join(_percent(cell[key][name]) for key, name in kinds)
        yield f"| {cell['init']} | {_told(cell['arm'])} | {values} |"


def _mean_and_sd(arm: Mapping[str, Any]) -> str:
    return _percent(arm["mean"]) + ("" if arm["sd"] is None else f" ({_percent(arm['sd'])})")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Exact match of each arm: a dot for each seed, a line at their mean, the controls across."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ecgbyte_hf.interpretation.figures import save_figure

    inits, arms = (results["provenance"]["arguments"][name] for name in ("inits", "arms"))
    figure = Figure(figsize=(8.0, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    width = 0.8 / len(arms)
    for number, arm in enumerate(arms):
        colour = COLOURS[number % len(COLOURS)]
        for place, init in enumerate(inits):
            cell = _cell(results["summary"], init, arm)
            values = [100 * value for value in cell["values"].values()]
            across = place + (number - (len(arms) - 1) / 2) * width
            label = None if place else _told(arm)
            axis.plot([across] * len(values), values, "o", color=colour, markersize=4.5, alpha=0.7, label=label)
            axis.hlines(100 * cell["mean"], across - 0.4 * width, across + 0.4 * width, color=colour, linewidth=2.5)
    for (name, control), style in zip(sorted(results["controls"].items()), ("--", ":"), strict=True):
        label = f"{name.replace('_', ' ')}, no ECG"
        axis.axhline(100 * control["exact_match"], color="#555555", linestyle=style, linewidth=1.2, label=label)
    axis.set_xticks(range(len(inits)), [LABELS[init].replace(" the ", "\nthe ", 1) for init in inits])
    axis.set_ylabel("exact match (%)")
    axis.set_ylim(0, 100)
    axis.legend(frameon=False, ncols=2, loc="lower right", fontsize=9)
    axis.grid(True, axis="y", color="#E5E5E5", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
