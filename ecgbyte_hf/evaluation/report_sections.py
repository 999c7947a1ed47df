"""Further tables of a report in Markdown: labels, calibration, groups of records, statements, other systems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecgbyte_hf.evaluation.evaluate import percent

_NOTHING = "–"


def report_sections(report: Mapping[str, Any]) -> Iterator[str]:
    """Each further part that the report has, as a heading with its table."""
    labels = report.get("labels")
    if labels:
        yield from _label_sections(labels)
        if "calibration" in labels["systems"]["model"]:
            yield _calibration_section(labels)
    if "systems" in report:
        yield _systems_section(report)
    if "groups" in report:
        yield _groups_section(report["groups"])
    if "statements" in report:
        yield _statements_section(report["statements"])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the header first, as a Markdown table."""
    width = max(map(len, lines))
    rows = [[*line, *[""] * (width - len(line))] for line in lines]
    rows.insert(1, ["---"] * width)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _label_sections(labels: Mapping[str, Any]) -> Iterator[str]:
    systems = labels["systems"]
    for group, mine in systems["model"]["by_attribute"].items():
        others = [name for name in systems if name != "model" and "macro_auc" in systems[name]["by_attribute"][group]]
        header = ["label", "n", "% yes", "sensitivity", "specificity", "PPV", "F1"]
        has_scores = "macro_auc" in mine
        if has_scores:
            header += ["AUC", "average precision", "Brier"]
        lines = [[*header, *(f"AUC of {name}" for name in others)]]
        for label, one in mine["labels"].items():
            cells = [label, str(one["n"]), percent(one["prevalence"])]
            cells += [_estimate(one[name]) for name in ("sensitivity", "specificity", "ppv", "f1")]
            if has_scores:
                precision = one["average_precision"]
                cells += [_estimate(one["auc"]), _NOTHING if precision is None else percent(precision)]
                cells.append(f"{one['brier']:.3f}")
            their = [systems[name]["by_attribute"][group]["labels"][label]["auc"] for name in others]
            lines.append([*cells, *map(_estimate, their)])
        notes = []
        if has_scores:
            macro = mine["macro_auc"]
            count = len(mine["labels"])
            over = f"{macro['labels']} of {count} labels: those with both answers"
            notes.append(f"Macro AUC {_estimate(macro)}, over {over}.")
            if macro["left_out"]:
                notes.append(f"Left out: {', '.join(macro['left_out'])}.")
        if labels["other_answer"] or labels["without_label"]:
            notes.append(
                f"Of {labels['questions']} yes/no questions {labels['other_answer']} have another right answer (such "
                f"as not sure) and {labels['without_label']} ask about no single label; they are in exact match alone."
            )
        yield _section(f"Labels: {group}", lines, notes)


def _calibration_section(labels: Mapping[str, Any]) -> str:
    fits = {name: one["calibration"] for name, one in labels["systems"].items() if "calibration" in one}
    lines = [["probability of yes", *(cell for name in fits for cell in (f"{name}: n", "mean", "answer is yes"))]]
    for number, bounds in enumerate(fits["model"]["bins"]):
        line = [f"{percent(bounds['from'])} to {percent(bounds['to'])}"]
        for fit in fits.values():
            one = fit["bins"][number]
            shares = (one["mean_probability"], one["share_of_yes"])
            line += [str(one["n"]), *(_NOTHING if share is None else percent(share) for share in shares)]
        lines.append(line)
    notes = [
        f"{name}: Brier score {fit['brier']:.3f} ({fit['brier_ci95'][0]:.3f} to {fit['brier_ci95'][1]:.3f}), expected "
        f"calibration error {fit['ece']:.3f}."
        for name, fit in fits.items()
    ]
    return _section("Calibration", lines, notes)


def _systems_section(report: Mapping[str, Any]) -> str:
    lines = [["the model less", "exact match", "macro AUC"]]
    for name, one in report["systems"].items():
        macro = one["difference"]["macro_auc"]
        lines.append([name, _estimate(one["difference"]["exact_match"]), _estimate(macro and macro["overall"])])
        for group, difference in (macro or {}).get("by_attribute", {}).items():
            lines.append([f"{name}, {group}", "", _estimate(difference)])
    return _section("Other systems", lines, ["Above 0: the model is better. Both on the same resamples of ECGs."])


def _groups_section(groups: Mapping[str, Any]) -> str:
    if "note" in groups:
        return f"## Groups of records\n\n{groups['note'].capitalize()}.\n"
    has_scores = any("macro_auc" in one for part in groups.values() for one in part["groups"].values())
    header = ["group", "n", "ECGs", "exact match", "best control", "the model less it"]
    lines = [[*header, "macro AUC"] if has_scores else header]
    for dimension, part in groups.items():
        for name, one in part["groups"].items():
            cells = [f"{dimension}: {name}", str(one["n"]), str(one["n_ecgs"]), _estimate(one)]
            cells += [f"{percent(one['best_control_value'])} ({one['best_control']})"]
            cells.append(_estimate(one["difference_to_best_control"]))
            if has_scores:
                macro = one.get("macro_auc")
                cells.append(_NOTHING if macro is None else f"{_estimate(macro)}, {macro['labels']} labels")
            lines.append(cells)
    notes = ["A question about two ECGs is in the group of the first one."]
    notes += [f"Unknown {name}: {part['unknown']} questions." for name, part in groups.items() if part["unknown"]]
    return _section("Groups of records", lines, notes)


def _statements_section(statements: Mapping[str, Any]) -> str:
    systems = statements["systems"]
    lines = [["statement", "reports that make it", "precision", "recall", *(f"F1 of {name}" for name in systems)]]
    for label, count in statements["labels"].items():
        mine = systems["model"]["by_label"][label]
        precision = mine["precision"]
        cells = [label, str(count), _NOTHING if precision is None else percent(precision), percent(mine["recall"])]
        lines.append([*cells, *(percent(one["by_label"][label]["f1"]) for one in systems.values())])
    notes = [
        f"{name}: micro F1 {_estimate(one['micro_f1'])}, macro F1 {_estimate(one['macro_f1'])}."
        for name, one in systems.items()
    ]
    notes.append(
        f"{statements['references_without_statement']} of {statements['n']} real reports make none of the statements "
        "that are looked for."
    )
    return _section("Statements of reports", lines, notes)


def _section(title: str, lines: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    text = "".join(f"\n- {note}" for note in notes)
    return f"## {title}\n\n{markdown_table(lines)}\n" + (text + "\n" if text else "")


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return _NOTHING
    if found["ci95"] is None:
        return percent(found["value"])
    return f"{percent(found['value'])} ({percent(found['ci95'][0])} to {percent(found['ci95'][1])})"
