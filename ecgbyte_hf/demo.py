"""`ecgbyte demo`: from simulated ECGs to a scored language model, with the same functions as the commands.

One lead at 100 Hz, so that an ECG takes fewer than 300 tokens and a small model learns to read it on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as _replace
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.data.sources import prepare_synthetic
from ecgbyte_hf.evaluation.evaluate import evaluate_predictions, report_table
from ecgbyte_hf.evaluation.generate import EcgLanguageModel, generate_answers, make_prompter
from ecgbyte_hf.models.errors_ecg_byte import EcgError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.provenance import provenance, write_json, write_text
from ecgbyte_hf.training.extend_llm import extend_llm, load_prompter, save_ecg_parts
from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of
from ecgbyte_hf.training.train_tokenizer import train_tokenizer

Say = Callable[[str], None]

LEAD = "II"
SAMPLING_RATE = 100
# What one lead can show; the electrical axis takes two.
ATTRIBUTES = ("rate", "rhythm", "st", "qrs_width")


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does.

    Attributes:
        num_records: Simulated records, of which 90 % train, 5 % validate and 5 % test.
        num_merges: Merges of the ECG tokenizer.
        max_steps: Training steps.
        batch_size: Rows per step; a row is an ECG and four questions.
        learning_rate: Peak, reached after 5 % of the steps and falling as a cosine.
        hidden_size: Width of the model.
        num_layers: Its depth.
    """

    num_records: int = 2400
    num_merges: int = 700
    max_steps: int = 800
    batch_size: int = 8
    learning_rate: float = 1e-3
    hidden_size: int = 128
    num_layers: int = 3

    def replace(self, **changes: Any) -> DemoSize:
        """A copy with other values."""
        return _replace(self, **changes)


def run_demo(output_dir: str | Path, *, size: DemoSize | None = None, seed: int = 0, say: Say) -> str:
    """Simulate, train, ask, score.

    Args:
        output_dir: Folder for everything; `ecg-byte/`, `ecg-llm/`, `report.json`, `tokens.png` are what to look at.
        size: How much to do.
        seed: Of records and training.
        say: Called with a line of text after each stage.

    Returns:
        The closing table.

    Raises:
        EcgError: training failed; the message names its log.
    """
    size = size or DemoSize()
    root = Path(output_dir)
    root.mkdir(parents=True, exist_ok=True)
    clock = _Clock(say)
    with clock.stage("simulate records"):
        extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=SAMPLING_RATE, leads=[LEAD])
        prepared = prepare_synthetic(
            root / "prepared",
            feature_extractor=extractor,
            num_records=size.num_records,
            seed=seed,
            attributes=ATTRIBUTES,
        )
    with clock.stage("train the ECG tokenizer"):
        tokenizer_report = train_tokenizer(prepared, root / "ecg-byte", num_merges=size.num_merges, max_records=1000)
    with clock.stage("extend a small language model"):
        processor = EcgByteProcessor.from_pretrained(root / "ecg-byte")
        prompt = EcgPrompt(max_length=512, reserve=32)
        tiny = make_tiny_llama(
            root / "tiny-llama",
            texts_of(prepared, prompt),
            hidden_size=size.hidden_size,
            num_layers=size.num_layers,
            seed=seed,
        )
        # These rows are trained, and then their start made no difference (scripts/benchmark/new_rows.py); the
        # README's table is of this one.
        extend_llm(str(tiny), processor, root / "extended", prompt=prompt, init="spread", seed=seed)
    with clock.stage("write training rows"):
        for view, folder in (("true", "rows"), ("question_only", "rows-question-only")):
            prompter = load_prompter(root / "extended", prepared, view=view)
            encode_rows(
                prepared,
                root / folder,
                prompter,
                splits=["train", "validation"],
                questions_per_row=len(ATTRIBUTES),
                seed=seed,
            )
    with clock.stage("train with `trl sft`"):
        run_trl_sft(root / "extended", root / "rows", root / "ecg-llm", size=size, seed=seed)
        save_ecg_parts(root / "ecg-llm", processor, prompt)
    with clock.stage("train the question-only control"):
        run_trl_sft(root / "extended", root / "rows-question-only", root / "question-only-llm", size=size, seed=seed)
        save_ecg_parts(root / "question-only-llm", processor, prompt)
    with clock.stage("answer the test questions"):
        answers = _answer_all(root, prepared, seed)
    with clock.stage("score"):
        evaluation = evaluate_predictions(
            prepared,
            answers["true"],
            controls={name: path for name, path in answers.items() if name != "true"},
            output=root / "evaluation.json",
            seed=seed,
            num_proc=os.cpu_count() or 1,
        )
    with clock.stage("draw an ECG, ask about a file"):
        example = _example(root, prepared, processor)
    summary = _summary(evaluation, tokenizer_report, clock, size, seed)
    write_json(root / "report.json", summary)
    return _closing_text(root, evaluation, tokenizer_report, example, clock)


def run_trl_sft(model: Path, rows: Path, output: Path, *, size: DemoSize, seed: int) -> None:
    """Train with the unmodified `trl sft`, as from the shell; its output goes to `output + ".log"`.

    Raises:
        EcgError: it failed.
    """
    command = [str(Path(sys.executable).with_name("trl")), "sft"]
    command += ["--model_name_or_path", str(model), "--dataset_name", str(rows), "--output_dir", str(output)]
    options = {
        "max_steps": size.max_steps,
        "per_device_train_batch_size": size.batch_size,
        "learning_rate": size.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(size.max_steps // 20, 1),
        "weight_decay": 0.01,
        "adam_beta2": 0.98,
        "max_length": 512,
        "train_sampling_strategy": "group_by_length",
        "dtype": "float32",
        "bf16": "false",
        "gradient_checkpointing": "false",
        "logging_steps": 50,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": "true",
        "seed": seed,
    }
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    log = output.with_name(output.name + ".log")
    # `trl` starts its script through accelerate, which sets one thread unless told otherwise. Threads that wait
    # passively do not burn the core that another process needs.
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",
    }
    with open(log, "w", encoding="utf-8") as file:
        file.write(" ".join(command) + "\n")
        file.flush()
        finished = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if finished.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1]
        raise EcgError(f"`trl sft` ended with exit code {finished.returncode}: {last}; the whole output is in {log}")


def _answer_all(root: Path, prepared: PreparedData, seed: int) -> dict[str, Path]:
    """Answers of the model to the test questions, and of the controls that need a model."""
    rows = prepared.questions("test")
    options = prepared.template_options()
    model = EcgLanguageModel.load(root / "ecg-llm")
    asked = {
        "true": model,
        "zero_signal": model,
        "shuffled": model,
        "question_only": EcgLanguageModel.load(root / "question-only-llm"),
    }
    answers = {}
    for view, asked_model in asked.items():
        output = root / "answers" / f"{view}.jsonl"
        output.with_name(output.name + ".partial").unlink(missing_ok=True)  # another run's model wrote it
        prompter = make_prompter(asked_model, prepared, rows, view=view, seed=seed)
        answers[view] = generate_answers(
            asked_model, rows, prompter, options, output, batch_size=64, max_new_tokens=16
        )
    return answers


def _example(root: Path, prepared: PreparedData, processor: EcgByteProcessor) -> dict[str, str]:
    """Write one test record as a WFDB file, draw its tokens, and ask the model about the file."""
    import numpy as np
    import wfdb

    from ecgbyte_hf.interpretation import plot_tokens, save_figure
    from ecgbyte_hf.signal.records import read_ecg

    row = prepared.questions("test")[0]
    signal = prepared.signal(row["ecg_id"][0])
    folder = root / "example"
    folder.mkdir(exist_ok=True)
    wfdb.wrsamp(
        "simulated",
        fs=SAMPLING_RATE,
        units=["mV"],
        sig_name=[LEAD],
        p_signal=signal.T.astype(np.float64),
        fmt=["16"],
        adc_gain=[1000.0],
        baseline=[0],
        write_dir=str(folder),
    )
    save_figure(plot_tokens(signal, processor.tokenizer, title="simulated ECG"), root / "tokens.png")
    model = EcgLanguageModel.load(root / "ecg-llm")
    answer = model.answer(read_ecg(folder / "simulated"), row["question"])
    return {
        "record": str(folder / "simulated"),
        "question": row["question"],
        "answer": answer,
        "right_answer": ", ".join(row["answer"]),
    }


class _Clock:
    """Seconds of each stage."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._start = time.monotonic()
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._say(f"{name} ...")
        start = time.monotonic()
        yield
        self.stages[name] = time.monotonic() - start
        self._say(f"{name}: {self.stages[name]:.0f} s")

    @property
    def total(self) -> float:
        return time.monotonic() - self._start


def _summary(
    evaluation: dict[str, Any], tokenizer_report: dict[str, Any], clock: _Clock, size: DemoSize, seed: int
) -> dict[str, Any]:
    """The short report; all details are in evaluation.json and ecg-byte/training.json."""
    match = evaluation["exact_match"]
    return {
        "exact_match": {
            "overall": match["overall"],
            "by_type": {name: value["value"] for name, value in match["by_type"].items()},
            "by_attribute": {name: value["value"] for name, value in match["by_attribute"].items()},
            "n": match["n"],
            "ci95": match["ci95"],
        },
        "controls": {name: control["overall"] for name, control in evaluation["controls"].items()},
        "best_control": evaluation["best_control"],
        "difference_to_best_control": evaluation["difference_to_best_control"],
        "by_attribute_against_best_control": evaluation["by_attribute"],
        "rule": {
            "n": evaluation["rule"]["n"],
            "overall": evaluation["rule"]["exact_match"]["overall"],
            "model_on_the_same": evaluation["rule"]["model_on_the_same"]["overall"],
        },
        "compression": tokenizer_report["compression"],
        "tokens_per_ecg": tokenizer_report["tokens_per_ecg"],
        "seconds": clock.total,
        "seconds_by_stage": clock.stages,
        "provenance": provenance("demo", {"size": vars(size), "seed": seed}),
    }


def _closing_text(
    root: Path, evaluation: dict[str, Any], tokenizer_report: dict[str, Any], example: dict[str, str], clock: _Clock
) -> str:
    difference = evaluation["difference_to_best_control"]
    low, high = difference["ci95"]
    text = "\n".join(
        [
            "",
            f"compression {tokenizer_report['compression']:.2f} samples per token, "
            f"{tokenizer_report['tokens_per_ecg']:.0f} tokens per ECG ({LEAD}, {SAMPLING_RATE} Hz, 10 s)",
            "",
            "exact match (%) on unseen records",
            report_table(evaluation),
            "",
            f"{100 * difference['value']:.1f} points above the best control ({evaluation['best_control']}), "
            f"95 % interval {100 * low:.1f} to {100 * high:.1f}",
            f"a file: {example['record']}: {example['question']} -> {example['answer']} "
            f"(right: {example['right_answer']})",
            "",
            f"ready to push: {root / 'ecg-byte'} (tokenizer), {root / 'ecg-llm'} (language model)",
            f"to look at: {root / 'tokens.png'}, {root / 'report.json'}, {root / 'evaluation.json'}",
            f"{clock.total:.0f} s in all",
        ]
    )
    write_text(root / "table.txt", text + "\n")
    return text
