"""A report for people and for the Hub: a Markdown table, and the `model-index` block of a model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ecgbyte_hf.evaluation.evaluate import TEXT_LINES, report_lines
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import write_text

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
    """The report as a Markdown table with its remarks."""
    lines, remarks = report_lines(report)
    width = max(map(len, lines))
    rows = [line + [""] * (width - len(line)) for line in lines]
    rows.insert(1, ["---"] * width)
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    notes = "\n".join(f"- {remark}" for remark in (*_REMARKS, *remarks))
    return f"# Exact match on split {report['split']}\n\n{table}\n\n{notes}\n"


def model_index(report: Mapping[str, Any], *, model_name: str, data_set: str) -> dict[str, Any]:
    """The `model-index` block for the YAML header of a model card.

    Args:
        report: What `evaluate_predictions` returned.
        model_name: The model's name on the Hub.
        data_set: The data set's name.

    Returns:
        `{"model-index": [...]}`: exact match overall and by question type, each with its interval and its best
        control, and text metrics where there are any. Values are fractions from 0 to 1.
    """
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


def write_report_files(
    report: Mapping[str, Any], output: str | Path, *, data_set: str, model_name: str | None = None
) -> list[Path]:
    """Write `report.md`, and with a model's name `report.model_index.yaml`, beside `report.json`.

    Raises:
        EcgDataError: as `markdown_path`.
    """
    import yaml

    written = [write_text(markdown_path(output), report_markdown(report))]
    if model_name is not None:
        content = model_index(report, model_name=model_name, data_set=data_set)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        written.append(write_text(Path(output).with_suffix(".model_index.yaml"), text))
    return written


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
    text = report.get("text_metrics", {}).get("model", {})
    for name, (convention, metric) in TEXT_LINES.items():
        if metric in text.get(convention, {}):
            kind = metric.partition("_")[0] if metric != "token_f1" else "f1"
            yield kind, name, text[convention][metric], {"convention": convention, "n": text["n"]}
