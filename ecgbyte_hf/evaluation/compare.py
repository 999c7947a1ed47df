"""Two runs on the same questions: the difference of their exact match, with paired intervals by ECG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.ecg_qa import QUESTION_TYPES
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.evaluation.evaluate import percent, split_of
from ecgbyte_hf.evaluation.generate import read_predictions
from ecgbyte_hf.evaluation.scoring import cluster_key, score_rows
from ecgbyte_hf.evaluation.statistics import paired_difference
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json

Row = Mapping[str, Any]
# What both files must say alike of a question for their scores to be comparable.
_SHARED = ("sample_id", "ecg_id", "question", "question_type", "attribute_type", "answer", "options")


def compare_predictions(
    prepared: PreparedData,
    first: str | Path,
    second: str | Path,
    *,
    output: str | Path,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Exact match of two runs on the same questions, and write the comparison.

    Args:
        prepared: The prepared folder the questions came from.
        first: What `ecgbyte generate` wrote.
        second: What `ecgbyte generate` wrote in another run; a difference above 0 says that this one is better.
        output: JSON file to write.
        n_resamples: Bootstrap resamples of each interval.
        seed: Of the bootstrap.

    Returns:
        `split`, `overall`, `by_type`, `by_attribute`, `provenance`. `overall` and each group: `n`, `n_ecgs`, `first`
        and `second` (exact match), `difference` (`value`: second minus first; `ci95`: its 95 % percentile interval by
        ECG), `only_first` and `only_second` (questions that only one of them has right).

    Raises:
        EcgDataError: files that do not answer the same questions with the same options, or not all those of a split.
    """
    rows, others = read_predictions(first), read_predictions(second)
    _check_same_questions(rows, others, first, second)
    split = split_of(prepared, rows, first)
    pairs = list(zip(score_rows(rows), score_rows(others), strict=True))
    options = {"n_resamples": n_resamples, "seed": seed}

    def groups(key: str, order: Callable[[str], Any]) -> dict[str, Any]:
        names = sorted({str(row[key]) for row in rows}, key=order)
        return {name: _compare([pair for pair in pairs if pair[0][key] == name], **options) for name in names}

    ranks = {name: rank for rank, name in enumerate(QUESTION_TYPES)}
    comparison = {
        "split": split,
        "overall": _compare(pairs, **options),
        "by_type": groups("question_type", lambda name: (ranks.get(name, len(ranks)), name)),
        "by_attribute": groups("attribute_type", str),
        "provenance": provenance(
            "compare",
            {"first": str(first), "second": str(second), **options},
            data_hash=prepared.report["data_hash"],
        ),
    }
    write_json(output, comparison)
    return comparison


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """The comparison as a table for the terminal, in %."""
    lines = [["questions", "n", "first", "second", "second - first", "95 % interval", "only first", "only second"]]
    groups = {"all": comparison["overall"], **comparison["by_type"], **comparison["by_attribute"]}
    for name, group in groups.items():
        low, high = group["difference"]["ci95"]
        lines.append(
            [name, str(group["n"]), percent(group["first"]), percent(group["second"])]
            + [_signed(group["difference"]["value"]), f"{_signed(low)} to {_signed(high)}"]
            + [str(group["only_first"]), str(group["only_second"])]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rendered = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([rendered[0], "-" * len(rendered[0]), *rendered[1:]])


def _check_same_questions(rows: Sequence[Row], others: Sequence[Row], first: str | Path, second: str | Path) -> None:
    if len(rows) != len(others):
        raise EcgDataError(
            f"{first} answers {len(rows)} questions and {second} {len(others)}, expected the same questions"
        )
    for number, (row, other) in enumerate(zip(rows, others, strict=True), start=1):
        if differing := [name for name in _SHARED if row.get(name) != other.get(name)]:
            raise EcgDataError(
                f"line {number} of {first} and of {second} differ in {', '.join(differing)}, expected the same "
                "questions with the same options in the same order; answer one split of one prepared folder with both"
            )


def _compare(pairs: Sequence[tuple[Row, Row]], **options: Any) -> dict[str, Any]:
    first = [bool(row["correct"]) for row, _ in pairs]
    second = [bool(row["correct"]) for _, row in pairs]
    clusters = [cluster_key(row) for row, _ in pairs]
    difference = paired_difference(second, first, clusters, **options)
    return {
        "n": len(pairs),
        "n_ecgs": len(set(clusters)),
        "first": sum(first) / len(first),
        "second": sum(second) / len(second),
        "difference": {"value": difference.difference, "ci95": list(difference.ci95)},
        "only_first": sum(a and not b for a, b in zip(first, second, strict=True)),
        "only_second": sum(b and not a for a, b in zip(first, second, strict=True)),
    }


def _signed(value: float) -> str:
    return f"{100.0 * value:+.1f}"
