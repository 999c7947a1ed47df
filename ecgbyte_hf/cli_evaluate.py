"""`ecgbyte baseline`, `evaluate`, `compare` and `seeds`: answers scored, beside supervised models, and over runs.

Only the standard library is imported here; each command imports what it needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ecgbyte_hf.command_line import Adder, add_perturb, add_window, load_processor, open_prepared, perturbed, say, seed


def add_commands(add: Adder) -> None:
    """Add all of them."""
    _add_baseline(add)
    _add_evaluate(add)
    _add_compare(add)
    _add_seeds(add)


def _add_baseline(add: Adder) -> None:
    command = add(
        "baseline",
        _baseline,
        "Train a supervised model of the signal on the labels that yes/no questions ask about, and answer with it.",
        "ecgbyte baseline --data prepared --kind resnet1d --output resnet1d.jsonl\n"
        "  ecgbyte baseline --data prepared --kind bigram --tokenizer ecg-byte --output bigram.jsonl",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    add_window(command)
    add_perturb(command)
    command.add_argument(
        "--kind",
        choices=("resnet1d", "bigram"),
        required=True,
        help="a one-dimensional ResNet, or logistic regression on counts of neighbouring symbols, without their order",
    )
    command.add_argument("--split", default="test", help="questions to answer (default: test)")
    command.add_argument(
        "--output", required=True, metavar="FILE", help="JSON Lines file; the report goes beside it as .report.json"
    )
    command.add_argument(
        "--worse",
        nargs="+",
        metavar="KIND=VALUE",
        default=[],
        help="once trained, also answer about recordings made worse, each change (as for --perturb) by itself, into "
        "FILE with -KIND=VALUE in its name",
    )
    command.add_argument("--tokenizer", metavar="DIR", help="bigram: what `ecgbyte train-tokenizer` wrote")
    command.add_argument(
        "--epochs",
        type=int,
        help="resnet1d: exactly so many (default: the best of 12 on validation, or 12 without it)",
    )
    command.add_argument(
        "--c",
        type=float,
        metavar="C",
        help="bigram: inverse strength of the penalty (default: the best of four on validation, or 0.001 without it)",
    )
    command.add_argument("--seed", type=seed, default=0, help="of the ResNet")
    command.add_argument("--num-threads", type=int, help="threads (default: all)")
    command.add_argument("--device", metavar="NAME", help="resnet1d: cuda or cpu (default: the best there is)")


#: Options of `baseline` that only one kind has.
_BASELINE_OPTIONS = {"tokenizer": "bigram", "c": "bigram", "epochs": "resnet1d", "device": "resnet1d"}


def _baseline(options: argparse.Namespace) -> int:
    surplus = [
        f"--{name}"
        for name, kind in _BASELINE_OPTIONS.items()
        if kind != options.kind and getattr(options, name) is not None
    ]
    if surplus or (options.kind == "bigram" and not options.tokenizer):
        what = f"leave out {', '.join(surplus)}" if surplus else "give --tokenizer, whose symbols are counted"
        say(f"ecgbyte baseline --kind {options.kind}: {what}", stream=sys.stderr)
        return 2
    from ecgbyte_hf.evaluation.signal_baselines import BaselineOptions, answer_by_baseline

    prepared = open_prepared(options)
    asked = prepared.questions(options.split) if options.perturb else []
    # It learns from recordings as they are.
    prepared = perturbed(prepared, options, only={one for row in asked for one in row.get("record_id", row["ecg_id"])})
    report = answer_by_baseline(
        prepared,
        options.output,
        kind=options.kind,
        split=options.split,
        processor=load_processor(options.tokenizer) if options.tokenizer else None,
        options=BaselineOptions(options.epochs, options.c, options.seed, options.num_threads, options.device),
        worse=options.worse,
    )
    for split, macro in report["macro_auc"].items():
        parts = {"all labels": macro, **macro["by_attribute"]}
        for name, mean in parts.items():
            if mean["labels"]:
                say(f"{split} {name}: macro AUC {mean['value']:.3f} over {mean['labels']} labels")
    unanswered = sum(report["unanswered"].values())
    without = f", {unanswered} of them empty" if unanswered else ""
    say(f"{report['questions']} answers in {options.output}{without}; {sum(report['seconds'].values()):.0f} s")
    return 0


def _add_evaluate(add: Adder) -> None:
    command = add(
        "evaluate",
        _evaluate,
        "Score answers by exact match, beside the controls.",
        "ecgbyte evaluate --data prepared --predictions answers.jsonl --control shuffled=shuffled.jsonl "
        "--output report.json",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    add_window(command)
    command.add_argument("--predictions", required=True, metavar="FILE", help="what `ecgbyte generate` wrote")
    command.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="answers of a control: question_only, zero_signal or shuffled; may be repeated",
    )
    command.add_argument(
        "--system",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="answers of another system, such as a supervised network, to stand beside the model; may be repeated",
    )
    command.add_argument(
        "--by-record",
        action="store_true",
        help="score one answer about each record: P(yes) averaged over its windows, other answers by vote; files of "
        "windows of any length and of whole records may stand side by side (leave out --window-seconds)",
    )
    command.add_argument("--output", required=True, metavar="FILE", help="JSON report; its tables go beside it as .md")
    command.add_argument(
        "--model-name",
        metavar="NAME",
        help="also write .model_index.yaml, the scores for this model's card on the Hub",
    )
    command.add_argument(
        "--dataset-id",
        metavar="USER/NAME",
        help="also write .eval_results.yaml, the scores on this data set of the Hub for the model's repository",
    )
    command.add_argument("--dataset-revision", metavar="COMMIT", help="of --dataset-id")
    command.add_argument("--source-url", metavar="URL", help="where this evaluation is described, for --dataset-id")
    command.add_argument(
        "--statements",
        metavar="FILE",
        help="YAML (label: phrases) or CSV (label, phrase) of what to look for in reports (default: our own list)",
    )
    command.add_argument("--no-rule", action="store_true", help="leave out the rule (it needs neurokit2)")
    _add_text_metrics(command)
    command.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples")
    command.add_argument("--seed", type=seed, default=0, help="of the bootstrap")
    command.add_argument("--num-proc", type=int, default=1, help="processes that measure ECGs for the rule")


def _add_text_metrics(command: argparse.ArgumentParser) -> None:
    text = command.add_argument_group("answers as texts")
    text.add_argument(
        "--text-metrics", action="store_true", help="also BLEU, ROUGE, METEOR and token F1 (needs the extra eval)"
    )
    text.add_argument(
        "--bertscore-model", metavar="DIR", help="also BERTScore with this encoder, such as roberta-large"
    )
    text.add_argument(
        "--bertscore-layer", type=int, metavar="N", help="of the encoder (default: as bert-score knows it)"
    )
    text.add_argument(
        "--answer-separator",
        metavar="TEXT",
        help="between several right answers, as the model was trained to write them (default: a comma and a space)",
    )


def _given_text_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("bertscore_model", "bertscore_layer", "answer_separator")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _evaluate(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.evaluate import CONTROLS_OVER_ALL, evaluate_predictions, report_table
    from ecgbyte_hf.evaluation.predictions import asked_model, read_predictions
    from ecgbyte_hf.evaluation.report_files import (
        check_dataset_id,
        check_own_scores,
        eval_results,
        markdown_path,
        write_report_files,
    )
    from ecgbyte_hf.evaluation.text_metrics import TextOptions

    given = _given_text_options(options)
    if given and not options.text_metrics:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        say(f"ecgbyte evaluate: {flags} needs --text-metrics", stream=sys.stderr)
        return 2
    if not options.dataset_id and (options.dataset_revision or options.source_url):
        say("ecgbyte evaluate: --dataset-revision and --source-url need --dataset-id", stream=sys.stderr)
        return 2
    controls, systems = _named_files(options.control), _named_files(options.system)
    for text in options.control:
        name = text.partition("=")[0]
        if name not in controls or name not in CONTROLS_OVER_ALL or name == "majority":
            say(
                f"ecgbyte evaluate: --control {text!r} is not NAME=FILE with NAME question_only, zero_signal or "
                "shuffled (majority is computed)",
                stream=sys.stderr,
            )
            return 2
    for text in options.system:
        if text.partition("=")[0] not in systems:
            say(f"ecgbyte evaluate: --system {text!r} is not NAME=FILE", stream=sys.stderr)
            return 2
    if options.dataset_id:
        check_dataset_id(options.dataset_id)
    markdown_path(options.output)  # refused before the work
    if options.dataset_id or options.model_name:
        asked = asked_model(options.predictions, read_predictions(options.predictions))
        check_own_scores({"provenance": {"model": asked}})
    prepared = open_prepared(options)
    report = evaluate_predictions(
        prepared,
        options.predictions,
        controls=controls,
        systems=systems,
        statements=options.statements,
        output=options.output,
        by_record=options.by_record,
        with_rule=not options.no_rule,
        text=TextOptions(**given) if options.text_metrics else None,
        n_resamples=options.resamples,
        seed=options.seed,
        num_proc=options.num_proc,
    )
    data_set = prepared.report.get("source", prepared.folder.name)
    results = None
    if options.dataset_id:
        results = eval_results(
            report,
            dataset_id=options.dataset_id,
            revision=options.dataset_revision,
            source_url=options.source_url,
            date=datetime.now(UTC).date().isoformat(),
        )
    written = write_report_files(
        report, options.output, data_set=data_set, model_name=options.model_name, results=results
    )
    say(report_table(report))
    say(f"saved {', '.join(map(str, [options.output, *written]))}")
    return 0


def _named_files(given: Sequence[str]) -> dict[str, str]:
    """Files by name, of those options that are NAME=FILE."""
    parts = [text.partition("=") for text in given]
    return {name: path for name, separator, path in parts if name and separator and path}


def _add_compare(add: Adder) -> None:
    command = add(
        "compare",
        _compare,
        "Compare two runs on the same questions, with paired intervals by ECG.",
        "ecgbyte compare --data prepared --first seed-0.jsonl --second seed-1.jsonl --output comparison.json",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    add_window(command)
    command.add_argument("--first", required=True, metavar="FILE", help="what `ecgbyte generate` wrote")
    command.add_argument("--second", required=True, metavar="FILE", help="of another run; above 0: this one is better")
    command.add_argument("--output", required=True, metavar="FILE", help="JSON file")
    command.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples")
    command.add_argument("--seed", type=seed, default=0, help="of the bootstrap")


def _compare(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.compare import compare_predictions, comparison_table

    comparison = compare_predictions(
        open_prepared(options),
        options.first,
        options.second,
        output=options.output,
        n_resamples=options.resamples,
        seed=options.seed,
    )
    say(comparison_table(comparison))
    return 0


def _add_seeds(add: Adder) -> None:
    command = add(
        "seeds",
        _seeds,
        "Mean, standard deviation and t-interval of the reports of several training seeds.",
        "ecgbyte seeds seed-0/report.json seed-1/report.json seed-2/report.json --output seeds.json",
    )
    command.add_argument("reports", nargs="+", metavar="REPORT", help="what `ecgbyte evaluate` wrote for each seed")
    command.add_argument("--output", required=True, metavar="FILE", help="JSON file")


def _seeds(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.seeds import seeds_table, summarise_seeds

    say(seeds_table(summarise_seeds(options.reports, output=options.output)))
    return 0
