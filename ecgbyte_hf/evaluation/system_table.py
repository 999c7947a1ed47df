"""Several systems on one test: a table of their scores, controls, budgets and costs, over training seeds.

A system is whatever is trained and asked as a whole: the ECG tokens, or an encoder in front of a language model. All
have to be asked the same questions after the same training, and one that does not beat each of its own controls is
marked: until shown otherwise that is a fault of the system, not a finding about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.evaluation.evaluate import CONTROLS_OVER_ALL, percent
from ecgbyte_hf.evaluation.report_sections import markdown_table
from ecgbyte_hf.evaluation.seeds import check_comparable, identity_of_test, load_report, over_seeds
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, read_object, write_json

#: Options of a training that all systems must share.
BUDGET = ("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps")
_NOTHING = "–"

Log = Mapping[str, Any]


@dataclass(frozen=True)
class SystemRuns:
    """The files that the trainings of one system left.

    Attributes:
        reports: Of `ecgbyte evaluate`, one for each training seed.
        trainings: `training_log.json` of the language models that those report about.
        pretrainings: `training_log.json` of their encoders, where there are some.
        tried: `training_log.json` of all learning rates that were tried, with their validation losses.
    """

    reports: Sequence[str | Path]
    trainings: Sequence[str | Path] = ()
    pretrainings: Sequence[str | Path] = ()
    tried: Sequence[str | Path] = ()


def compare_systems(systems: Mapping[str, SystemRuns], *, output: str | Path) -> dict[str, Any]:
    """Put systems side by side and write the comparison.

    Args:
        systems: Name -> its files.
        output: JSON file to write.

    Returns:
        `split`, `n`, `n_seeds`, `order` (names; the others are compared with the first), `budget` (what all trainings
        share), `provenance`, and `systems`: for each name `exact_match`, `difference_to_first`,
        `difference_to_best_control` (`mean`, `values`, `sd` and `ci95`: over seeds as of `over_seeds`, of a single
        seed the interval by ECG or none), `by_attribute` and `controls` (means), `best_controls` (of each seed),
        `doubts` (why it is not above every control; empty if it is), `learning_rate`, `tried` (learning rate and
        validation loss), `parameters` (`trainable` and `all`), `seconds_per_step`, `pretraining` (`steps`,
        `seconds_per_step` and `trainable` parameters), each None if unknown.

    Raises:
        EcgDataError: no system, other questions, another number of seeds, or another budget for one of them.
    """
    if not systems or not all(runs.reports for runs in systems.values()):
        raise EcgDataError("got a system without a report, expected at least one report of each of the systems")
    reports = {name: [load_report(path) for path in runs.reports] for name, runs in systems.items()}
    _check_same_test(systems, reports)
    logs = {name: [_load_log(path) for path in runs.trainings] for name, runs in systems.items()}
    tried = {name: [_tried(path) for path in runs.tried] for name, runs in systems.items()}
    budget = _shared_budget(logs)
    _check_same_rates(tried)
    first = next(iter(reports.values()))
    comparison = {
        "split": first[0]["split"],
        "n": first[0]["exact_match"]["n"],
        "n_seeds": len(first),
        "order": list(systems),
        "budget": budget,
        "systems": {
            name: {
                **_scores(reports[name]),
                "difference_to_first": None if reports[name] is first else _difference(reports[name], first),
                **_costs(logs[name], [_load_log(path) for path in runs.pretrainings]),
                "tried": tried[name],
                "reports": list(map(str, runs.reports)),
            }
            for name, runs in systems.items()
        },
        "provenance": provenance(
            "systems",
            {name: _as_text(runs) for name, runs in systems.items()},
            data_hash=first[0]["provenance"].get("data_hash"),
        ),
    }
    write_json(output, comparison)
    return comparison


def _as_text(runs: SystemRuns) -> dict[str, list[str]]:
    return {kind: list(map(str, paths)) for kind, paths in vars(runs).items()}


def last_validation_loss(log: Log, path: str | Path) -> float:
    """The loss on the validation rows at the end of a training, nats per answer token.

    Raises:
        EcgDataError: none was logged.
    """
    found = [entry["eval_loss"] for entry in log["history"] if "eval_loss" in entry]
    if not found:
        raise EcgDataError(
            f"{path} holds no validation loss; train with --eval_strategy steps and the validation rows"
        )
    return float(found[-1])


def systems_lines(comparison: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """The cells of the comparison's table, its header first, and the remarks below it; scores in %."""
    systems = _in_order(comparison)
    interval = "95 % of seeds" if comparison["n_seeds"] > 1 else "95 % by ECG"
    controls = [name for name in CONTROLS_OVER_ALL if any(name in one["controls"] for one in systems.values())]
    header = ["system", "exact match", interval, *controls, "less best control", "less first", "above every control"]
    header += ["parameters trained", "parameters before", "s per step", "s per step before", "learning rate"]
    lines = [header]
    for name, one in systems.items():
        line = [name, percent(one["exact_match"]["mean"]), _range(one["exact_match"])]
        line += [percent(one["controls"][control]) if control in one["controls"] else _NOTHING for control in controls]
        line += [_signed(one["difference_to_best_control"]), _signed(one["difference_to_first"])]
        line += ["**no**" if one["doubts"] else "yes", *_cost_cells(one)]
        lines.append(line)
    remarks = [
        f"{name} is not above every control, which is a fault until shown otherwise: {'; '.join(one['doubts'])}"
        for name, one in systems.items()
        if one["doubts"]
    ]
    return lines, remarks


def systems_markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as Markdown: the table, its remarks, and a table by attribute type."""
    lines, remarks = systems_lines(comparison)
    seeds = comparison["n_seeds"]
    spread = "their mean over seeds, with its 95 % t-interval" if seeds > 1 else "with the 95 % interval by ECG"
    notes = [
        f"{comparison['n']} questions of split {comparison['split']}, {seeds} training "
        f"seed{'s' if seeds > 1 else ''}. Scores in %: {spread}.",
        "“Less best control” is the system less that of its own controls that does best. It is above every control if "
        "the 95 % interval by ECG of that difference lies above 0 with each seed.",
        "“Parameters trained” and “s per step” are of training the language model, those “before” of pretraining the "
        "encoder. " + _budget_text(comparison),
        *remarks,
        "Research use only; not a medical device.",
    ]
    systems = _in_order(comparison)
    attributes = list(next(iter(systems.values()))["by_attribute"])
    by_attribute = [["system", *attributes]]
    for name, one in systems.items():
        by_attribute.append([name, *(percent(one["by_attribute"][attribute]) for attribute in attributes)])
    return (
        f"# Systems compared\n\n{markdown_table(lines)}\n\n"
        + "\n".join(f"- {note}" for note in notes)
        + f"\n\n## By attribute\n\n{markdown_table(by_attribute)}\n"
    )


def plot_systems(comparison: Mapping[str, Any]) -> Any:
    """A bar for each system with its interval and a point for each seed; a line where its best control is.

    Bars of systems that are not above every control are hatched.

    Args:
        comparison: What `compare_systems` returned.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    systems = _in_order(comparison)
    figure = Figure(figsize=(2.0 + 1.2 * len(systems), 4.4), layout="constrained")
    axis = figure.subplots()
    for place, one in enumerate(systems.values()):
        match = one["exact_match"]
        doubtful = bool(one["doubts"])
        axis.bar(
            place,
            100 * match["mean"],
            width=0.6,
            color="0.85" if doubtful else _BAR,
            hatch="//" if doubtful else None,
            edgecolor="0.4" if doubtful else _BAR,
        )
        if match["ci95"] is not None:
            low, high = (100 * value for value in match["ci95"])
            axis.plot([place, place], [low, high], color="black", linewidth=1.4)
        axis.scatter([place] * len(match["values"]), [100 * value for value in match["values"]], s=14, color="black")
        best = 100 * max(one["controls"].values())
        axis.plot([place - 0.4, place + 0.4], [best, best], color=_LINE, linewidth=2.0)
    axis.set_xticks(range(len(systems)), systems, rotation=20 if len(systems) > 4 else 0)
    axis.set_ylim(0, 100)
    axis.set_ylabel("exact match (%)")
    kind = "95 % t-interval over seeds" if comparison["n_seeds"] > 1 else "95 % interval by ECG"
    keys: list[Any] = [
        Line2D([], [], color="black", marker="o", markersize=4, label=f"seeds, {kind}"),
        Line2D([], [], color=_LINE, linewidth=2.0, label="best control of the system"),
    ]
    if any(one["doubts"] for one in systems.values()):
        keys.append(Patch(facecolor="0.85", edgecolor="0.4", hatch="//", label="not above every control"))
    figure.legend(handles=keys, loc="outside upper center", ncols=len(keys), frameon=False, fontsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure


# Okabe and Ito's blue and vermilion, for all kinds of colour vision.
_BAR, _LINE = "#0072B2", "#D55E00"


def _in_order(comparison: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The systems by name in their order, which a JSON file does not keep."""
    return {name: comparison["systems"][name] for name in comparison["order"]}


def _check_same_test(systems: Mapping[str, SystemRuns], reports: Mapping[str, Sequence[Log]]) -> None:
    first_name = next(iter(systems))
    first = reports[first_name]
    for name, runs in systems.items():
        check_comparable(reports[name], runs.reports)
        if len(reports[name]) != len(first):
            raise EcgDataError(
                f"got {len(reports[name])} reports of {name} and {len(first)} of {first_name}, expected as many "
                "training seeds of each system"
            )
        mine, theirs = identity_of_test(reports[name][0]), identity_of_test(first[0])
        if differing := [what for what in mine if mine[what] != theirs[what]]:
            raise EcgDataError(
                f"the reports of {name} and {first_name} differ in {', '.join(differing)}; expected one test for all "
                "systems"
            )


def _load_log(path: str | Path) -> Log:
    log = read_object(path)
    if log is None or not isinstance(log.get("history"), list) or "provenance" not in log:
        raise EcgDataError(f"{path} is no training_log.json of a finished training")
    return log


def _arguments(log: Log) -> Mapping[str, Any]:
    found: Mapping[str, Any] = log["provenance"].get("arguments", {})
    return found


def _shared_budget(logs: Mapping[str, Sequence[Log]]) -> dict[str, Any]:
    """What all trainings have alike."""
    shared: dict[str, Any] | None = None
    of: str | None = None
    for name, trainings in logs.items():
        for log in trainings:
            mine = {option: _arguments(log).get(option) for option in BUDGET}
            shared, of = (mine, name) if shared is None else (shared, of)
            if differing := [option for option in BUDGET if mine[option] != shared[option]]:
                what = ", ".join(f"{option} {mine[option]} instead of {shared[option]}" for option in differing)
                raise EcgDataError(
                    f"a training of {name} has {what} of {of}; expected the same budget for all systems and seeds"
                )
    return shared or {}


def _tried(path: str | Path) -> dict[str, float]:
    log = _load_log(path)
    return {"learning_rate": float(_arguments(log)["learning_rate"]), "eval_loss": last_validation_loss(log, path)}


def _check_same_rates(tried: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    rates = {name: sorted(one["learning_rate"] for one in runs) for name, runs in tried.items()}
    first = next(iter(rates))
    for name, mine in rates.items():
        if mine != rates[first]:
            raise EcgDataError(
                f"{name} was tried with the learning rates {mine} and {first} with {rates[first]}; expected the same "
                "tuning of all systems"
            )


def _scores(reports: Sequence[Log]) -> dict[str, Any]:
    matches = [report["exact_match"] for report in reports]
    differences = [report["difference_to_best_control"] for report in reports]
    names = [name for name in reports[0]["controls"] if all(name in report["controls"] for report in reports)]
    return {
        "exact_match": _over([one["overall"] for one in matches], matches[0]["ci95"]),
        "by_attribute": {
            name: _mean([one["by_attribute"][name]["value"] for one in matches]) for name in matches[0]["by_attribute"]
        },
        "controls": {name: _mean([report["controls"][name]["overall"] for report in reports]) for name in names},
        "best_controls": [report["best_control"] for report in reports],
        "difference_to_best_control": _over([one["value"] for one in differences], differences[0]["ci95"]),
        "doubts": _doubts(reports),
    }


def _doubts(reports: Sequence[Log]) -> list[str]:
    """Why a system is not above every control; none if it is."""
    found = []
    for number, report in enumerate(reports):
        where = f"run {number + 1}" if len(reports) > 1 else "its run"
        if missing := [name for name in CONTROLS_OVER_ALL if name not in report["controls"]]:
            found.append(f"{where} was not compared with {', '.join(missing)}")
        difference = report["difference_to_best_control"]
        if difference["ci95"][0] <= 0:
            low, high = difference["ci95"]
            found.append(
                f"{where} less {report['best_control']}: {100 * difference['value']:+.1f} ({100 * low:+.1f} to "
                f"{100 * high:+.1f})"
            )
    return found


def _difference(reports: Sequence[Log], first: Sequence[Log]) -> dict[str, Any]:
    pairs = zip(reports, first, strict=True)
    return _over([one["exact_match"]["overall"] - other["exact_match"]["overall"] for one, other in pairs], None)


def _over(values: Sequence[float], interval_of_one: Sequence[float] | None) -> dict[str, Any]:
    """Over seeds; a single one has no spread, and the interval that its report gives."""
    if len(values) > 1:
        return over_seeds(values)
    return {"mean": values[0], "sd": None, "ci95": interval_of_one, "values": list(values)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _costs(trainings: Sequence[Log], pretrainings: Sequence[Log]) -> dict[str, Any]:
    rates = sorted({float(_arguments(log)["learning_rate"]) for log in trainings})
    parameters = [log["parameters"] for log in trainings if "parameters" in log]
    return {
        "learning_rate": rates[0] if len(rates) == 1 else rates or None,
        "parameters": parameters[0] if parameters else None,
        "seconds_per_step": _mean_seconds(trainings),
        "pretraining": {
            "steps": _steps(pretrainings[0]),
            "seconds_per_step": _mean_seconds(pretrainings),
            "trainable": pretrainings[0].get("report", {}).get("trained_parameters"),
        }
        if pretrainings
        else None,
    }


def _steps(log: Log) -> int | None:
    steps = [entry["step"] for entry in log["history"] if "step" in entry]
    return max(steps, default=None)


def _mean_seconds(logs: Sequence[Log]) -> float | None:
    found = [seconds for seconds in map(seconds_per_step, logs) if seconds is not None]
    return _mean(found) if found else None


def seconds_per_step(log: Log) -> float | None:
    """Seconds of a training's step without validation; None where the training was broken off and went on.

    The trainer counts the time since it went on, and all steps.
    """
    arguments = _arguments(log)
    if arguments.get("resume_from_checkpoint") or arguments.get("resume"):
        return None
    total = [entry["train_runtime"] for entry in log["history"] if "train_runtime" in entry]
    steps = _steps(log)
    if not total or not steps:
        return None
    evaluation = sum(entry["eval_runtime"] for entry in log["history"] if "eval_runtime" in entry)
    return float(total[-1] - evaluation) / steps


def _cost_cells(one: Mapping[str, Any]) -> list[str]:
    parameters, before, rate = one["parameters"], one["pretraining"], one["learning_rate"]
    return [
        _NOTHING if parameters is None else f"{parameters['trainable']:,}",
        f"{before['trainable']:,}" if before and before["trainable"] else _NOTHING,
        _seconds(one["seconds_per_step"]),
        _seconds(before["seconds_per_step"] if before else None),
        _NOTHING if rate is None else f"{rate:g}" if isinstance(rate, float) else ", ".join(f"{r:g}" for r in rate),
    ]


def _budget_text(comparison: Mapping[str, Any]) -> str:
    budget = comparison["budget"]
    tried = comparison["systems"][comparison["order"][0]]["tried"]
    parts = []
    if (budget.get("max_steps") or 0) > 0:
        parts.append(f"{budget['max_steps']} steps")
    elif budget.get("num_train_epochs"):
        parts.append(f"{budget['num_train_epochs']:g} epochs")
    if budget.get("per_device_train_batch_size"):
        parts.append(f"batches of {budget['per_device_train_batch_size']} rows")
    if tried:
        rates = ", ".join(f"{one['learning_rate']:g}" for one in tried)
        parts.append(f"the learning rate of the lowest validation loss out of {rates}")
    return f"All systems have the same budget: {', '.join(parts)}." if parts else ""


def _range(found: Mapping[str, Any]) -> str:
    return _NOTHING if found["ci95"] is None else f"{percent(found['ci95'][0])} to {percent(found['ci95'][1])}"


def _signed(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return _NOTHING
    ends = "" if found["ci95"] is None else " ({:+.1f} to {:+.1f})".format(*(100 * end for end in found["ci95"]))
    return f"{100 * found['mean']:+.1f}{ends}"


def _seconds(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3g}"
