"""A report for people and for the Hub: Markdown tables, a figure, the card's `model-index`, and `.eval_results`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgbyte_hf.evaluation.evaluate import TEXT_LINES, percent, report_lines
from ecgbyte_hf.evaluation.report_sections import markdown_table, report_sections
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import write_text

logger = logging.getLogger(__name__)

_REMARKS = (
    "Values in %. The interval is a 95 % bootstrap interval by ECG. A score means something only beside its controls.",
    "Research use only; not a medical device.",
)


def markdown_path(output: str | Path) -> Path:
    """Where the table of a report is: `report.md` beside `report.json`.

    Raises:
        EcgDataError: the report itself would be there.
    """
    path = Path(output).with_suffix(".md")
    if path == Path(output):
        raise EcgDataError(f"got {output} for the JSON report, but its table goes there; choose a name with .json")
    return path


def report_markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table with its remarks, and a table for each further part."""
    lines, remarks = report_lines(report)
    notes = "\n".join(f"- {remark}" for remark in (*_REMARKS, *remarks))
    parts = "".join(f"\n{section}" for section in report_sections(report))
    return f"# Exact match on split {report['split']}\n\n{markdown_table(lines)}\n\n{notes}\n{parts}"


def model_index(report: Mapping[str, Any], *, model_name: str, data_set: str) -> dict[str, Any]:
    """The `model-index` block for the YAML header of a model card.

    Args:
        report: What `evaluate_predictions` returned.
        model_name: The model's name on the Hub.
        data_set: The data set's name.

    Returns:
        `{"model-index": [...]}`: exact match overall and by question type, each with its interval and its best
        control, macro AUC of each attribute type, and text metrics where there are any. Values are fractions from 0
        to 1.

    Raises:
        EcgDataError: as `check_own_scores`.
    """
    check_own_scores(report)
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    results = [
        EvalResult(
            task_type="question-answering",
            dataset_type=data_set,
            dataset_name=data_set,
            dataset_split=report["split"],
            metric_type=kind,
            metric_name=name,
            metric_value=value,
            metric_args=arguments,
        )
        for kind, name, value, arguments in _metrics(report)
    ]
    return {"model-index": eval_results_to_model_index(model_name, results)}


def eval_results(
    report: Mapping[str, Any],
    *,
    dataset_id: str,
    revision: str | None = None,
    source_url: str | None = None,
    date: str | None = None,
) -> list[dict[str, Any]]:
    """Entries of a model repository's `.eval_results/*.yaml`, which its page and the data set's leaderboard show.

    Args:
        report: What `evaluate_predictions` returned.
        dataset_id: The data set on the Hub, `USER/NAME`.
        revision: Its commit.
        source_url: Where the evaluation can be looked up, such as the model repository.
        date: Of the evaluation, ISO 8601.

    Returns:
        An entry for exact match overall and by question type, and for the macro AUC of each attribute type. `task_id`
        is `exact_match`, `exact_match_<question type>` or `macro_auc_<attribute type>`: what the data set's own
        `eval.yaml` has to name. Values are fractions from 0 to 1; `notes` has split, n, interval and best control.

    Raises:
        EcgDataError: the name of the data set is none, or as `check_own_scores`.
    """
    check_own_scores(report)
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    check_dataset_id(dataset_id)
    entries = [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=task_id.replace(" ", "_"),
            value=value,
            dataset_revision=revision,
            date=date,
            source_url=source_url,
            notes=f"split {report['split']}, {notes}",
        )
        for task_id, value, notes in _tasks(report)
    ]
    return eval_result_entries_to_yaml(entries)


def are_own_scores(asked: Mapping[str, Any] | None) -> bool:
    """Whether answers are about the ECGs themselves, so that their scores are the model's and not a control's.

    Args:
        asked: What `asked_model` tells of the answers; `None` where nobody knows.
    """
    return asked is None or (asked.get("view") in (None, "true") and not asked.get("perturbations"))


def check_own_scores(report: Mapping[str, Any]) -> None:
    """Refuse a report about a control or about signals that were made worse: the Hub would show it as the model's.

    Raises:
        EcgDataError: it is one.
    """
    asked = report.get("provenance", {}).get("model")
    if asked is not None and not are_own_scores(asked):
        view = asked.get("view")
        shown = "signals that were made worse" if view in (None, "true") else view
        raise EcgDataError(
            f"the answers were given to {shown}, not to the ECGs themselves, so that their scores are not the model's "
            "for the Hub: leave --model-name and --dataset-id out"
        )


def check_dataset_id(dataset_id: str) -> None:
    """Refuse what is no name of a data set on the Hub.

    Raises:
        EcgDataError: it is not `USER/NAME`.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(dataset_id)
        is_whole = dataset_id.count("/") == 1
    except HFValidationError:
        is_whole = False
    if not is_whole:
        raise EcgDataError(f"got the data set {dataset_id!r}, expected USER/NAME on the Hub")


def write_report_files(
    report: Mapping[str, Any],
    output: str | Path,
    *,
    data_set: str,
    model_name: str | None = None,
    results: Sequence[Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Write what belongs beside `report.json`.

    `report.md`; with probabilities of yes `report.calibration.png` (needs matplotlib; left out with a warning without
    it); with a model's name `report.model_index.yaml`; with `results` (from `eval_results`)
    `report.eval_results.yaml`, which goes into the model's repository as `.eval_results/<name>.yaml`.

    Raises:
        EcgDataError: as `markdown_path`, and with a model's name as `check_own_scores`.
    """
    written = [write_text(markdown_path(output), report_markdown(report))]
    labels = report.get("labels", {"systems": {}})
    if any("calibration" in one for one in labels["systems"].values()):
        written += _write_calibration(labels, Path(output).with_suffix(".calibration.png"))
    if model_name is not None:
        content = model_index(report, model_name=model_name, data_set=data_set)
        written.append(_write_yaml(Path(output).with_suffix(".model_index.yaml"), content))
    if results is not None:
        written.append(_write_yaml(Path(output).with_suffix(".eval_results.yaml"), list(results)))
    return written


def _write_yaml(path: Path, content: Any) -> Path:
    import yaml

    return write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _write_calibration(labels: Mapping[str, Any], path: Path) -> list[Path]:
    from ecgbyte_hf.evaluation.calibration_figure import save_calibration

    try:
        return [save_calibration(labels, path)]
    except ImportError:
        logger.warning("no calibration figure without matplotlib: pip install 'ecgbyte-hf[plot]'")
        return []


def _tasks(report: Mapping[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Task, value and notes of each result for the Hub."""
    for kind, name, value, arguments in _metrics(report):
        group = name.partition(", ")[2]
        notes = f"n={arguments['n']}" if "n" in arguments else ""
        if arguments.get("ci95"):
            low, high = arguments["ci95"]
            notes += f", 95 % interval {percent(low)} to {percent(high)} %"
        if kind == "exact_match":
            notes += f", best control {arguments['best_control']} {percent(arguments['best_control_value'])} %"
            yield (f"exact_match_{group}" if group else "exact_match"), value, notes
        elif kind == "roc_auc":
            yield f"macro_auc_{group}", value, f"{notes}, mean over {arguments['labels']} labels"


def _metrics(report: Mapping[str, Any]) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """Type, name, value and arguments of each metric."""
    match, controls = report["exact_match"], report["controls"]
    best = report["best_control"]
    beside = {"best_control": best, "best_control_value": controls[best]["overall"]}
    yield "exact_match", "exact match", match["overall"], {"n": match["n"], "ci95": match["ci95"], **beside}
    for name, group in match["by_type"].items():
        values = {control: controls[control]["by_type"][name]["value"] for control in controls}
        best = max(values, key=lambda control: values[control])
        beside = {"best_control": best, "best_control_value": values[best]}
        yield "exact_match", f"exact match, {name}", group["value"], {"n": group["n"], "ci95": group["ci95"], **beside}
    for name, one in report.get("labels", {"systems": {}})["systems"].get("model", {}).get("by_attribute", {}).items():
        macro = one.get("macro_auc")
        if macro and macro["value"] is not None:
            count = sum(label["n"] for label in one["labels"].values())
            arguments = {"n": count, "ci95": macro["ci95"], "labels": macro["labels"]}
            yield "roc_auc", f"macro AUC, {name}", macro["value"], arguments
    text = report.get("text_metrics", {}).get("model", {})
    for name, (convention, metric) in TEXT_LINES.items():
        if metric in text.get(convention, {}):
            kind = metric.partition("_")[0] if metric != "token_f1" else "f1"
            yield kind, name, text[convention][metric], {"convention": convention, "n": text["n"]}
