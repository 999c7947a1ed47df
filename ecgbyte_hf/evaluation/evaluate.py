"""From prediction files to a report: exact match with intervals, beside every control."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.questions import rows_hash
from ecgbyte_hf.data.workers import worker_pool
from ecgbyte_hf.evaluation.controls import majority_predictions
from ecgbyte_hf.evaluation.generate import read_predictions
from ecgbyte_hf.evaluation.groups import score_groups
from ecgbyte_hf.evaluation.label_scores import (
    VerifyQuestions,
    auc_difference,
    probability_of_yes,
    score_labels,
    verify_questions,
)
from ecgbyte_hf.evaluation.predictions import asked_model
from ecgbyte_hf.evaluation.record_answers import record_answers
from ecgbyte_hf.evaluation.rules import EcgMeasurements, measure_ecg, rule_answer
from ecgbyte_hf.evaluation.scoring import cluster_key, score_rows, summarise
from ecgbyte_hf.evaluation.statements import StatementList, score_statements
from ecgbyte_hf.evaluation.statistics import paired_difference
from ecgbyte_hf.evaluation.text_metrics import TextOptions, answer_text_metrics, load_text_metrics
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError
from ecgbyte_hf.provenance import provenance, write_json

logger = logging.getLogger(__name__)

# A rule answers some questions only, so it is compared on those and is no control for all.
CONTROLS_OVER_ALL = ("majority", "question_only", "zero_signal", "shuffled")
#: Questions whose answer is a text that states findings.
REPORT_TYPES = ("report", "conversation")

Row = Mapping[str, Any]


def evaluate_predictions(
    prepared: PreparedData,
    predictions: str | Path,
    *,
    controls: Mapping[str, str | Path],
    output: str | Path,
    systems: Mapping[str, str | Path] | None = None,
    statements: str | Path | None = None,
    by_record: bool = False,
    with_rule: bool = True,
    text: TextOptions | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    num_proc: int = 1,
) -> dict[str, Any]:
    """Score a model's answers and those of its controls on the same questions, and write the report.

    Args:
        prepared: The prepared folder the questions came from; its training questions give the majority answers. With
            `by_record` whole, not in windows.
        predictions: What `ecgbyte generate` wrote.
        controls: Prediction files by name: `question_only`, `zero_signal`, `shuffled`.
        output: JSON file to write.
        systems: Prediction files of other systems on the same questions by name, such as a supervised network. They
            stand beside the model and are no controls.
        statements: File of labels and phrases to look for in reports; see `statements.py`. Ours by default.
        by_record: Take the answers about all windows of a record together; see `record_answers.py`. The files may be
            of windows of any lengths, and of whole records.
        with_rule: Also answer by rule what a rule can (needs neurokit2).
        text: Also compare the answers as texts (needs the extra `eval`).
        n_resamples: Bootstrap resamples of each interval.
        seed: Of the bootstrap.
        num_proc: Processes that measure ECGs for the rule.

    Returns:
        The report: `split`, `exact_match`, `answers_at_limit`, `controls`, `best_control`,
        `difference_to_best_control`, `by_attribute`, `rule`; `groups` (by sex, age, device and site; see `groups.py`);
        where there are yes/no questions `labels` (see `label_scores.py`: `systems` by name, and `differences` of macro
        AUC, the model less each); where there are reports `statements` (see `statements.py`); with `systems` also
        `systems`: name -> `exact_match` and `difference`, the model less this system; with `text` also
        `text_metrics`: `model`, and the same of each control and system; with `by_record` also `windows_per_record`:
        `model`, and each control and system that has a file -> how many windows make an answer.

    Raises:
        EcgDataError: the predictions are not all questions of one split, or those of another file are not the same;
            with `by_record`, windows are missing or `prepared` is itself in windows.
    """
    if by_record and prepared.window_seconds is not None:
        raise EcgDataError(
            f"got windows of {prepared.window_seconds:g} s, expected whole records to score by record; "
            "leave out --window-seconds (the files say what windows they have)"
        )
    if unknown := sorted(set(controls) - (set(CONTROLS_OVER_ALL) - {"majority"})):
        raise EcgDataError(
            f"got controls named {', '.join(unknown)}, expected question_only, zero_signal or shuffled (majority and "
            "rule are computed)"
        )
    systems = systems or {}
    if taken := sorted(set(systems) & {"model", "rule", *CONTROLS_OVER_ALL}):
        raise EcgDataError(
            f"got a system named {', '.join(taken)}, which is a control or the model; name it otherwise"
        )
    phrases = StatementList.load(statements)
    if text is not None:
        load_text_metrics()  # what is not installed is said before the work
    files = {"model": predictions, **controls, **systems}
    given = {name: read_predictions(path) for name, path in files.items()}
    num_given = {name: len(answers) for name, answers in given.items()}
    asked = asked_model(predictions, given["model"])
    if by_record:
        given = {name: record_answers(answers, files[name]) for name, answers in given.items()}
    rows = given["model"]
    split = split_of(prepared, rows, predictions)
    scored = score_rows(rows)
    clusters = [cluster_key(row) for row in rows]
    scored_controls = {
        "majority": score_rows(_with_predictions(rows, majority_predictions(prepared.questions("train"), rows)))
    }
    for name, answers in given.items():
        if _questions(answers) != _questions(rows):
            raise EcgDataError(f"{files[name]} does not answer the questions of {predictions} in the same order")
    scored_controls |= {name: score_rows(given[name]) for name in controls}
    scored_systems = {name: score_rows(given[name]) for name in systems}
    options = {"n_resamples": n_resamples, "seed": seed}
    summary = summarise(scored, **options)
    everybody = {"model": scored, **scored_controls, **scored_systems}
    at_limit = {name: _count_at_limit(answers) for name, answers in everybody.items() if name != "majority"}
    report: dict[str, Any] = {
        "split": split,
        **summary,
        "answers_at_limit": at_limit,
        "controls": {name: summarise(control, **options)["exact_match"] for name, control in scored_controls.items()},
    }
    if by_record:
        report["windows_per_record"] = {name: count // len(rows) for name, count in num_given.items()}
    best = max(scored_controls, key=lambda name: report["controls"][name]["overall"])
    report["best_control"] = best
    report["difference_to_best_control"] = _paired(scored, scored_controls[best], clusters, **options)
    report["by_attribute"] = {
        name: _against_best_control(name, scored, scored_controls, clusters, **options)
        for name in sorted({row["attribute_type"] for row in rows})
    }
    questions = verify_questions(scored, **options)
    if questions is not None:
        report["labels"] = _label_report(questions, everybody)
    report["groups"] = score_groups(
        prepared.metadata(),
        scored,
        scored_controls,
        questions=questions,
        probability=None if questions is None else probability_of_yes(questions, scored, "model"),
        **options,
    )
    if scored_systems:
        report["systems"] = {
            name: _system_report(name, answers, scored, clusters, report.get("labels"), **options)
            for name, answers in scored_systems.items()
        }
    if reports := [index for index, row in enumerate(rows) if row["question_type"] in REPORT_TYPES]:
        written = {name: [answers[index] for index in reports] for name, answers in everybody.items()}
        report["statements"] = score_statements(written["model"], phrases, written, **options)
    if text is not None:
        report["text_metrics"] = {
            name: answer_text_metrics(answers, text, computed=name == "majority")
            for name, answers in everybody.items()
        }
    if with_rule:
        report["rule"] = _rule_report(prepared, rows, scored, clusters, num_proc=num_proc, **options)
    arguments = {
        "predictions": str(predictions),
        "predictions_hash": rows_hash(rows),
        "controls": {name: str(path) for name, path in controls.items()},
        "systems": {name: str(path) for name, path in systems.items()},
        "statements": None if statements is None else str(statements),
        "text": None if text is None else asdict(text),
        "by_record": by_record,
        **options,
    }
    report["provenance"] = provenance(
        "evaluate",
        arguments,
        data_hash=prepared.report["data_hash"],
        data_source=prepared.report.get("source"),
        model=asked,
    )
    write_json(output, report)
    return report


def _label_report(questions: VerifyQuestions, everybody: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    scores = {name: score_labels(questions, answers, system=name) for name, answers in everybody.items()}
    differences = {name: auc_difference(questions, scores["model"], one) for name, one in scores.items()}
    return {
        "questions": questions.num_verify,
        "without_label": questions.without_label,
        "other_answer": questions.other_answer,
        "systems": {name: one.report for name, one in scores.items()},
        "differences": {name: one for name, one in differences.items() if one is not None and name != "model"},
    }


def _system_report(
    name: str,
    answers: Sequence[Row],
    scored: Sequence[Row],
    clusters: Sequence[int],
    labels: Mapping[str, Any] | None,
    **options: Any,
) -> dict[str, Any]:
    return {
        **summarise(answers, **options),
        "difference": {
            "exact_match": _paired(scored, answers, clusters, **options),
            "macro_auc": labels["differences"].get(name) if labels else None,
        },
    }


def _questions(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """What tells questions apart; ECG-QA's two wordings share their sample ids."""
    return [(row["sample_id"], tuple(row["ecg_id"]), row["question"], tuple(row["answer"])) for row in rows]


def split_of(prepared: PreparedData, rows: Sequence[Mapping[str, Any]], predictions: str | Path) -> str:
    """The split whose questions these are, all of them: a score on a part of one would be somebody's choice.

    Raises:
        EcgDataError: they are not all those of a split, in its order.
    """
    asked = _questions(rows)
    counts = {}
    for split in prepared.splits:
        known = _questions(prepared.questions(split))
        if known == asked:
            return split
        counts[split] = f"{len(set(known) & set(asked))} of {split}'s {len(known)}"
    raise EcgDataError(
        f"{predictions} answers {len(asked)} questions, which are not all those of a split of {prepared.folder} in "
        f"their order: {', '.join(counts.values())}"
    )


def _count_at_limit(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(bool(row.get("reached_limit")) for row in rows)


def _with_predictions(rows: Sequence[Mapping[str, Any]], predictions: Sequence[str]) -> list[dict[str, Any]]:
    """The questions with another one's answers; the probabilities of the first do not come along."""
    questions = [{name: value for name, value in row.items() if name != "option_logprobs"} for row in rows]
    return [{**row, "prediction": text} for row, text in zip(questions, predictions, strict=True)]


def _paired(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], clusters: Sequence[int], **options: Any
) -> dict[str, Any]:
    difference = paired_difference(
        [row["correct"] for row in first], [row["correct"] for row in second], clusters, **options
    )
    return {"value": difference.difference, "ci95": list(difference.ci95)}


def _against_best_control(
    attribute: str,
    scored: Sequence[Mapping[str, Any]],
    controls: Mapping[str, Sequence[Mapping[str, Any]]],
    clusters: Sequence[int],
    **options: Any,
) -> dict[str, Any]:
    """The model on one attribute's questions beside the control that does best on these very questions."""
    chosen = [index for index, row in enumerate(scored) if row["attribute_type"] == attribute]
    ours = [scored[index] for index in chosen]
    theirs = {name: [rows[index] for index in chosen] for name, rows in controls.items()}
    means = {name: sum(row["correct"] for row in rows) / len(rows) for name, rows in theirs.items()}
    best = max(means, key=lambda name: means[name])
    return {
        "n": len(ours),
        "value": sum(row["correct"] for row in ours) / len(ours),
        "controls": means,
        "best_control": best,
        "difference_to_best_control": _paired(ours, theirs[best], [clusters[index] for index in chosen], **options),
    }


def _rule_report(
    prepared: PreparedData,
    rows: Sequence[Mapping[str, Any]],
    scored: Sequence[Mapping[str, Any]],
    clusters: Sequence[int],
    *,
    num_proc: int,
    **options: Any,
) -> dict[str, Any]:
    """What a rule on measured intervals answers, and the model on those same questions."""
    ecg_ids = sorted({ecg_id for row in rows for ecg_id in row["ecg_id"]})
    try:
        measurements = _measure_all(prepared, ecg_ids, num_proc)
    except LeadError as error:
        logger.warning("no rule is among the controls: %s", error)
        return {"n": 0, "questions": len(rows), "note": f"these records cannot be measured: {error}"}
    answers = [rule_answer(row, row["options"], [measurements[i] for i in row["ecg_id"]]) for row in rows]
    chosen = [index for index, answer in enumerate(answers) if answer is not None]
    if not chosen:
        return {"n": 0, "questions": len(rows), "note": "a rule applies to none of these questions"}
    ruled = score_rows(_with_predictions([rows[i] for i in chosen], [str(answers[i]) for i in chosen]))
    ours = [scored[index] for index in chosen]
    return {
        "n": len(chosen),
        "questions": len(rows),
        **summarise(ruled, **options),
        "model_on_the_same": summarise(ours, **options)["exact_match"],
        "difference_to_rule": _paired(ours, ruled, [clusters[index] for index in chosen], **options),
    }


def _measure_all(prepared: PreparedData, ecg_ids: Sequence[int], num_proc: int) -> dict[int, EcgMeasurements]:
    from tqdm.auto import tqdm

    leads = prepared.leads
    measure = partial(measure_ecg, sampling_rate=prepared.sampling_rate, lead_names=leads)
    signals = (prepared.signal(ecg_id) for ecg_id in ecg_ids)
    bar = partial(tqdm, total=len(ecg_ids), desc="rule", unit="ECG")
    if num_proc <= 1:
        return dict(zip(ecg_ids, bar(map(measure, signals)), strict=True))
    found: list[EcgMeasurements] = []
    progress = bar()
    # Some ECGs at a time: the pool would ask for all of them at once, and hold their signals.
    with worker_pool(num_proc) as pool:
        while chunk := list(islice(signals, 64 * num_proc)):
            found += pool.map(measure, chunk, chunksize=8)
            progress.update(len(chunk))
    progress.close()
    return dict(zip(ecg_ids, found, strict=True))


def report_table(report: Mapping[str, Any]) -> str:
    """The report as a table for the terminal: one line per question type and attribute, one column per control."""
    lines, remarks = report_lines(report)
    widths = [max(len(line[column]) for line in lines if column < len(line)) for column in range(max(map(len, lines)))]
    rendered = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)) for line in lines]
    rendered = [rendered[0], "-" * len(rendered[0]), *rendered[1:], *remarks]
    return "\n".join(line.rstrip() for line in rendered)


def report_lines(report: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """The cells of the report's table, its header first, and the remarks below it.

    Values are in %; a line may be shorter or longer than the header.
    """
    beside = {**report["controls"], **_exact_match_of_systems(report)}
    controls = list(beside)
    header = ["questions", "n", "model", "95 % interval", *controls]
    lines = [header]
    overall = report["exact_match"]
    lines.append(
        ["all", str(overall["n"]), percent(overall["overall"]), _interval(overall["ci95"])]
        + [percent(beside[name]["overall"]) for name in controls]
    )
    for group in ("by_type", "by_attribute"):
        for name, value in overall[group].items():
            others = [beside[control][group][name]["value"] for control in controls]
            lines.append(
                [name, str(value["n"]), percent(value["value"]), _interval(value["ci95"]), *map(percent, others)]
            )
    rule = report.get("rule", {})
    if rule.get("n"):
        match = rule["model_on_the_same"]
        lines.append(
            ["where a rule applies", str(rule["n"]), percent(match["overall"]), _interval(match["ci95"])]
            + [""] * len(controls)
            + [f"rule {percent(rule['exact_match']['overall'])}"]
        )
    lines += _auc_lines(report.get("labels", {}), controls)
    lines += _statement_lines(report.get("statements", {}), controls)
    lines += _text_lines(report.get("text_metrics", {}), controls)
    cut = {name: count for name, count in report["answers_at_limit"].items() if count}
    remarks = [f"{name} is another system on the same questions, no control" for name in report.get("systems", {})]
    windows = {name: count for name, count in report.get("windows_per_record", {}).items() if count > 1}
    remarks += [f"an answer of {name} is that of {count} windows of a record" for name, count in windows.items()]
    remarks += [f"{count} answers of {name} were cut off at max_new_tokens" for name, count in cut.items()]
    left_out = report.get("text_metrics", {}).get("model", {}).get("left_out", {})
    return lines, remarks + [f"{name} is left out: {reason}" for name, reason in left_out.items()]


def _exact_match_of_systems(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one["exact_match"] for name, one in report.get("systems", {}).items()}


def _auc_lines(labels: Mapping[str, Any], beside: Sequence[str]) -> list[list[str]]:
    """The macro AUC of every attribute type; the others only where they have probabilities."""
    systems = labels.get("systems", {})
    lines = []
    for group, mine in systems.get("model", {}).get("by_attribute", {}).items():
        values = [systems[name]["by_attribute"][group].get("macro_auc") for name in ("model", *beside)]
        if not any(value and value["value"] is not None for value in values):
            continue
        count = sum(label["n"] for label in mine["labels"].values())
        over = next(value["labels"] for value in values if value)
        ours, *others = values
        name = f"macro AUC, {group} ({over} of {len(mine['labels'])} labels)"
        lines.append([name, str(count), *_value_and_interval(ours), *(_value_and_interval(one)[0] for one in others)])
    return lines


def _statement_lines(statements: Mapping[str, Any], beside: Sequence[str]) -> list[list[str]]:
    lines = []
    for kind in ("micro", "macro") if statements else ():
        values = [statements["systems"][name][f"{kind}_f1"] for name in ("model", *beside)]
        name = f"statements, {kind} F1"
        others = [_value_and_interval(value)[0] for value in values[1:]]
        lines.append([name, str(statements["n"]), *_value_and_interval(values[0]), *others])
    return lines


def _value_and_interval(found: Mapping[str, Any] | None) -> list[str]:
    """Two cells, empty where there is no value."""
    if found is None or found["value"] is None:
        return ["", ""]
    return [percent(found["value"]), _interval(found["ci95"]) if found["ci95"] else ""]


#: Name in the table -> convention and metric in the report.
TEXT_LINES = {
    "BLEU-1 per answer": ("paper_per_sample", "bleu_1"),
    "BLEU-4 per answer": ("paper_per_sample", "bleu_4"),
    "ROUGE-L per answer": ("paper_per_sample", "rouge_l"),
    "METEOR per answer": ("paper_per_sample", "meteor"),
    "BERTScore F1 per answer": ("paper_per_sample", "bertscore_f1"),
    "token F1 per answer": ("paper_per_sample", "token_f1"),
    "BLEU-1 of the corpus": ("corpus_level", "bleu_1"),
    "BLEU-4 of the corpus": ("corpus_level", "bleu_4"),
    "token F1 of the corpus": ("corpus_level", "token_f1"),
}


def _text_lines(text: Mapping[str, Any], controls: Sequence[str]) -> list[list[str]]:
    """Lines of the table; what perfect answers would score stands in the place of the interval."""
    lines = []
    for name, (convention, metric) in TEXT_LINES.items():
        if metric not in text.get("model", {}).get(convention, {}):
            continue
        perfect = text["model"]["perfect_answers"][convention].get(metric)
        lines.append(
            [name, str(text["model"]["n"]), percent(text["model"][convention][metric])]
            + ["" if perfect is None else f"perfect: {percent(perfect)}"]
            + [percent(text[control][convention][metric]) for control in controls]
        )
    return lines


def percent(value: float) -> str:
    """A fraction as per cent with one decimal."""
    return f"{100.0 * value:.1f}"


def _interval(ci95: Sequence[float]) -> str:
    return f"{100.0 * ci95[0]:.1f} to {100.0 * ci95[1]:.1f}"
