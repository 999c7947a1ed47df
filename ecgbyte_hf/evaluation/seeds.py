"""Reports of several training seeds taken together: mean, standard deviation and t-interval over the seeds.

The interval of one report says how much its score depends on the ECGs that were asked about; this one says how much it
depends on the training. Sampling one checkpoint's answers with several seeds says nothing about either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.evaluation.evaluate import percent
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json

Report = Mapping[str, Any]


def summarise_seeds(reports: Sequence[str | Path], *, output: str | Path) -> dict[str, Any]:
    """Summarise the reports of several training runs and write the summary.

    Args:
        reports: Files that `ecgbyte evaluate` wrote, one for each training seed, at least two.
        output: JSON file to write.

    Returns:
        `n_seeds`, `split`, `n`, `reports`, and as `{mean, sd, ci95, values}` each: `exact_match`, `by_type` (by name),
        `macro_auc` (by attribute type, and `overall`; where all reports have it), `controls` (by name; those that all
        reports have), `difference_to_best_control` (each run's own best control, named in `best_controls`), `systems`
        (by name: exact match). `sd` is the sample standard deviation, `ci95` the t-interval of the mean.

    Raises:
        EcgDataError: fewer than two reports, the same run twice, or reports on other data, splits or questions.
    """
    if len(reports) < 2:
        raise EcgDataError(f"got {len(reports)} report, expected at least two: one seed has no spread")
    loaded = [load_report(path) for path in reports]
    check_comparable(loaded, reports)
    summary = {
        "n_seeds": len(loaded),
        "split": loaded[0]["split"],
        "n": loaded[0]["exact_match"]["n"],
        "reports": [str(path) for path in reports],
        "exact_match": over_seeds([one["exact_match"]["overall"] for one in loaded]),
        "by_type": {
            name: over_seeds([one["exact_match"]["by_type"][name]["value"] for one in loaded])
            for name in loaded[0]["exact_match"]["by_type"]
        },
        "macro_auc": _of_all([_macro_auc(one) for one in loaded]),
        "controls": _of_all([{name: value["overall"] for name, value in one["controls"].items()} for one in loaded]),
        "difference_to_best_control": over_seeds([one["difference_to_best_control"]["value"] for one in loaded]),
        "best_controls": [one["best_control"] for one in loaded],
        "systems": _of_all(
            [{name: one["exact_match"]["overall"] for name, one in each.get("systems", {}).items()} for each in loaded]
        ),
        "provenance": provenance(
            "seeds", {"reports": list(map(str, reports))}, data_hash=loaded[0]["provenance"]["data_hash"]
        ),
    }
    write_json(output, summary)
    return summary


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation and 95 % t-interval of the mean.

    Raises:
        EcgDataError: fewer than two values.

    >>> found = over_seeds([0.5, 0.7])
    >>> round(found["mean"], 3), round(found["sd"], 3)
    (0.6, 0.141)
    """
    from scipy.stats import t

    if len(values) < 2:
        raise EcgDataError(f"got {len(values)} value, expected at least two: one seed has no spread")
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
    return {"mean": mean, "sd": sd, "ci95": [mean - half, mean + half], "values": list(values)}


def seeds_table(summary: Mapping[str, Any]) -> str:
    """The summary as a table for the terminal, in %."""
    lines = [["", "mean", "sd", f"95 % t-interval of {summary['n_seeds']} seeds", "values"]]
    named = {
        "exact match": summary["exact_match"],
        **{f"  {name}": one for name, one in summary["by_type"].items()},
        **{f"macro AUC, {name}": one for name, one in summary["macro_auc"].items()},
        **{f"control {name}": one for name, one in summary["controls"].items()},
        "less the best control": summary["difference_to_best_control"],
        **{f"system {name}": one for name, one in summary["systems"].items()},
    }
    for name, one in named.items():
        interval = f"{percent(one['ci95'][0])} to {percent(one['ci95'][1])}"
        values = " ".join(map(percent, one["values"]))
        lines.append([name, percent(one["mean"]), percent(one["sd"]), interval, values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rendered = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([rendered[0], "-" * len(rendered[0]), *rendered[1:]])


def load_report(path: str | Path) -> Report:
    """Read a report of `ecgbyte evaluate`.

    Raises:
        EcgDataError: it is none.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise EcgDataError(f"{path}: not JSON ({error})") from error
    needed = ("split", "exact_match", "controls", "difference_to_best_control", "provenance")
    if not isinstance(report, dict) or not all(name in report for name in needed):
        raise EcgDataError(f"{path} is no report of `ecgbyte evaluate`")
    return report


def check_comparable(loaded: Sequence[Report], paths: Sequence[str | Path]) -> None:
    """Refuse reports that are not of one test, each of another training.

    Raises:
        EcgDataError: the same run twice, or reports on other data, splits or questions.
    """
    first = loaded[0]
    for report, path in zip(loaded[1:], paths[1:], strict=True):
        differing = [
            name for name, value in identity_of_test(first).items() if identity_of_test(report)[name] != value
        ]
        if differing:
            what = ", ".join(differing)
            raise EcgDataError(f"{path} and {paths[0]} differ in {what}; expected one test for all seeds")
    # Names alone are the same where every run has a folder of its own, answers alone where a model learnt nothing.
    runs = [
        tuple(report["provenance"]["arguments"].get(name) for name in ("predictions", "predictions_hash"))
        for report in loaded
    ]
    if len({Path(path).resolve() for path in paths}) < len(paths) or len(set(runs)) < len(runs):
        raise EcgDataError(f"got the same run twice among {', '.join(map(str, paths))}, expected one report per seed")


def identity_of_test(report: Report) -> dict[str, Any]:
    """What tells the tests of two reports apart, by what it is."""
    return {
        "data (hash)": report["provenance"].get("data_hash"),
        "split": report["split"],
        "number of questions": report["exact_match"]["n"],
        "question types": sorted(report["exact_match"]["by_type"]),
    }


def _macro_auc(report: Report) -> dict[str, float]:
    model = report.get("labels", {}).get("systems", {}).get("model", {})
    found = {name: one.get("macro_auc") for name, one in model.get("by_attribute", {}).items()}
    found["overall"] = model.get("macro_auc")
    return {name: one["value"] for name, one in found.items() if one and one["value"] is not None}


def _of_all(values: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Those that every report has."""
    shared = [name for name in values[0] if all(name in one for one in values)]
    return {name: over_seeds([one[name] for one in values]) for name in shared}
