"""Scores by sex, age, device and site, where the data set tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbyte_hf.evaluation.label_scores import VerifyQuestions, macro_auc_of_parts
from ecgbyte_hf.evaluation.scoring import cluster_key
from ecgbyte_hf.evaluation.statistics import bootstrap_interval, paired_difference

Row = Mapping[str, Any]

#: First age of each band; the last one is open.
AGE_BANDS = (0, 40, 60, 80)
DIMENSIONS = ("sex", "age", "device", "site")


def age_band(age: float) -> str:
    """The band that an age in years is in.

    >>> age_band(39.9), age_band(40.0), age_band(90.0)
    ('under 40', '40 to 59', '80 and over')
    """
    band = sum(age >= first for first in AGE_BANDS) - 1
    if band == 0:
        return f"under {AGE_BANDS[1]}"
    if band == len(AGE_BANDS) - 1:
        return f"{AGE_BANDS[-1]} and over"
    return f"{AGE_BANDS[band]} to {AGE_BANDS[band + 1] - 1}"


def score_groups(
    metadata: Mapping[int, Mapping[str, Any]],
    scored: Sequence[Row],
    controls: Mapping[str, Sequence[Row]],
    *,
    questions: VerifyQuestions | None = None,
    probability: NDArray[np.float64] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The model and its best control in each group of records.

    A comparison counts in the group of its first ECG.

    Args:
        metadata: What `PreparedData.metadata` gives.
        scored: The model's rows, as `score_rows` returned them.
        controls: The same of each control.
        questions: The yes/no questions among them, for the macro AUC.
        probability: (yes/no questions,), the model's P(yes).
        n_resamples: Bootstrap resamples of each interval.
        seed: Of the bootstrap.

    Returns:
        Dimension -> `groups` and `unknown` (questions of whose ECG it is not known); in `groups` the name -> `n`,
        `n_ecgs`, `value` (exact match), `ci95`, `best_control`, `best_control_value`, `difference_to_best_control`,
        and with probabilities `macro_auc` (`value`, `ci95`, `labels`). Without any metadata `{"note": ...}`.
    """
    ecg_ids = [int(row["ecg_id"][0]) for row in scored]
    if not any(ecg_id in metadata for ecg_id in ecg_ids):
        return {"note": "not known: the prepared data tell no sex, age, device or site of these ECGs"}
    members = _members(metadata, ecg_ids)
    correct = np.array([bool(row["correct"]) for row in scored])
    others = {name: np.array([bool(row["correct"]) for row in rows]) for name, rows in controls.items()}
    clusters = np.array([cluster_key(row) for row in scored])
    options = {"n_resamples": n_resamples, "seed": seed}
    report: dict[str, Any] = {
        dimension: {
            "groups": {name: _score_group(correct, others, clusters, one, **options) for name, one in groups.items()},
            "unknown": len(scored) - sum(int(one.sum()) for one in groups.values()),
        }
        for dimension, groups in members.items()
    }
    if questions is not None and probability is not None:
        places = [(dimension, name) for dimension, groups in members.items() for name in groups]
        parts = [members[dimension][name][questions.rows] for dimension, name in places]
        found = macro_auc_of_parts(questions, probability, parts)
        for (dimension, name), macro in zip(places, found, strict=True):
            report[dimension]["groups"][name]["macro_auc"] = macro
    return report


def _members(
    metadata: Mapping[int, Mapping[str, Any]], ecg_ids: Sequence[int]
) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Dimension -> group -> which of the questions are in it."""
    members: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for dimension in DIMENSIONS:
        names = np.array([_group(metadata.get(ecg_id, {}), dimension) or "" for ecg_id in ecg_ids])
        members[dimension] = {str(name): names == name for name in sorted(set(names.tolist()) - {""}, key=_order)}
    return members


def _group(facts: Mapping[str, Any], dimension: str) -> str | None:
    value = facts.get(dimension)
    if value is None:
        return None
    return age_band(value) if dimension == "age" else str(value)


def _order(name: str) -> tuple[int, str]:
    """Of age bands the first one first."""
    return (0 if name.startswith("under ") else 1, name)


def _score_group(
    correct: NDArray[np.bool_],
    others: Mapping[str, NDArray[np.bool_]],
    clusters: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    **options: int,
) -> dict[str, Any]:
    ours, mine = correct[chosen], clusters[chosen].tolist()
    means = {name: float(theirs[chosen].mean()) for name, theirs in others.items()}
    best = max(means, key=lambda name: means[name])
    difference = paired_difference(ours, others[best][chosen], mine, **options)
    return {
        "n": len(ours),
        "n_ecgs": len(set(mine)),
        "value": float(ours.mean()),
        "ci95": list(bootstrap_interval(ours, mine, **options)),
        "best_control": best,
        "best_control_value": means[best],
        "difference_to_best_control": {"value": difference.difference, "ci95": list(difference.ci95)},
    }
