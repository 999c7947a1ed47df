"""Yes/no questions label by label: how often the label is found, and how well the probability of yes ranks and fits.

A label is what a verify question asks about ("Does this ECG show ...?"), the one value of its `attribute`.
Sensitivity, specificity and predictive value are those of the written answer; an answer that is neither yes nor no is
wrong. Where predictions carry `option_logprobs`, P(yes) = exp(yes) / (exp(yes) + exp(no)) gives the area under the
ROC curve (AUC), average precision, Brier score and calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbyte_hf.evaluation.scoring import cluster_key, gold_answer
from ecgbyte_hf.evaluation.statistics import AreaUnderCurve, ClusterResamples, bootstrap_interval, percentile_interval
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

Row = Mapping[str, Any]

#: Bins of equal width of the reliability table.
CALIBRATION_BINS = 10
_YES, _NO = frozenset({"yes"}), frozenset({"no"})


@dataclass(frozen=True)
class VerifyQuestions:
    """The yes/no questions of a file, the same for all who answered them.

    Attributes:
        rows: (questions,), their places in the file.
        label: (questions,), numbers of their labels.
        names: Attribute type and label of each number, sorted.
        positive: (questions,), whether the right answer is yes.
        clusters: (questions,), their ECGs.
        num_verify: Verify questions in the file.
        without_label: Those of them whose `attribute` is not one value.
        other_answer: Those whose right answer is neither yes nor no, such as "not sure".
        n_resamples: Bootstrap resamples.
        seed: Of the bootstrap.
    """

    rows: NDArray[np.int64]
    label: NDArray[np.int64]
    names: list[tuple[str, str]]
    positive: NDArray[np.bool_]
    clusters: list[int]
    num_verify: int
    without_label: int
    other_answer: int
    n_resamples: int
    seed: int

    @cached_property
    def resamples(self) -> ClusterResamples:
        """The same for everybody who is scored on these questions."""
        return ClusterResamples(self.clusters, n_resamples=self.n_resamples, seed=self.seed)

    @property
    def groups(self) -> list[str]:
        """The attribute types, sorted."""
        return sorted({group for group, _ in self.names})

    def labels_of(self, group: str) -> list[int]:
        """Numbers of the labels of an attribute type."""
        return [number for number, (name, _) in enumerate(self.names) if name == group]


def verify_questions(rows: Sequence[Row], *, n_resamples: int = 2000, seed: int = 0) -> VerifyQuestions | None:
    """Find the yes/no questions that ask about one label; None where there is none."""
    places: list[int] = []
    names: list[tuple[str, str]] = []
    templates: list[Any] = []
    positive: list[bool] = []
    clusters: list[int] = []
    num_verify = without_label = other_answer = 0
    for place, row in enumerate(rows):
        kind = str(row["question_type"])
        if not kind.endswith("-verify"):
            continue
        num_verify += 1
        attribute, answer = list(row.get("attribute") or ()), gold_answer(row)
        if answer not in (_YES, _NO):
            other_answer += 1
        elif len(attribute) != 1:
            without_label += 1
        else:
            group = str(row["attribute_type"])
            # Of two ECGs something else is asked than of one.
            names.append(
                (group if kind == "single-verify" else f"{kind} {group}", " ".join(str(attribute[0]).split()))
            )
            templates.append(row.get("template_id"))
            places.append(place)
            positive.append(answer == _YES)
            clusters.append(cluster_key(row))
    if not places:
        return None
    names = _told_apart(names, templates)
    known = sorted(set(names))
    numbers = {name: number for number, name in enumerate(known)}
    return VerifyQuestions(
        rows=np.array(places),
        label=np.array([numbers[name] for name in names]),
        names=known,
        positive=np.array(positive),
        clusters=clusters,
        num_verify=num_verify,
        without_label=without_label,
        other_answer=other_answer,
        n_resamples=n_resamples,
        seed=seed,
    )


def _told_apart(names: Sequence[tuple[str, str]], templates: Sequence[Any]) -> list[tuple[str, str]]:
    """Labels that several templates ask about get the template's number: "noise?" and "noise in lead V6?" are two."""
    asked: dict[tuple[str, str], set[Any]] = {}
    for name, template in zip(names, templates, strict=True):
        asked.setdefault(name, set()).add(template)
    return [
        (name[0], f"{name[1]} (template {template})") if len(asked[name]) > 1 else name
        for name, template in zip(names, templates, strict=True)
    ]


def probability_of_yes(questions: VerifyQuestions, rows: Sequence[Row], system: str) -> NDArray[np.float64] | None:
    """P(yes) of these questions, from `option_logprobs` of the prediction rows.

    Args:
        questions: Which rows.
        rows: All rows of the file.
        system: Who answered, for messages.

    Returns:
        (questions,), or None where no row has it.

    Raises:
        EcgDataError: only some have it, or it holds no two log-probabilities.
    """
    return probabilities_of_yes([rows[place] for place in questions.rows], system)


def probabilities_of_yes(rows: Sequence[Row], system: str) -> NDArray[np.float64] | None:
    """P(yes) of prediction rows that answer yes/no questions, (rows,); see `probability_of_yes`."""
    given = [row.get("option_logprobs") for row in rows]
    missing = sum(one is None for one in given)
    if missing == len(given):
        return None
    if missing:
        raise EcgDataError(
            f"{missing} of the {len(given)} yes/no questions that {system} answered have no option_logprobs, expected "
            "them in all or in none: a part would be somebody's choice"
        )
    try:
        pairs = np.array([[float(one["yes"]), float(one["no"])] for one in given if one is not None])
    except (TypeError, KeyError, ValueError) as error:
        raise EcgDataError(
            f"option_logprobs of {system} are {given[0]!r:.80}, expected {{'yes': number, 'no': number}} in every row"
        ) from error
    # A probability of 0 is fine, two of them are not.
    difference = np.where(np.isneginf(pairs).all(axis=1) | np.isposinf(pairs).any(axis=1), np.nan, 0.0)
    with np.errstate(invalid="ignore"):
        difference += pairs[:, 0] - pairs[:, 1]
    if np.isnan(difference).any():
        where = rows[int(np.isnan(difference).argmax())]
        raise EcgDataError(
            f"option_logprobs of {system} are {where['option_logprobs']!r:.80} for question {where.get('sample_id')}, "
            "expected two log-probabilities"
        )
    from scipy.special import expit

    probability: NDArray[np.float64] = expit(difference)
    return probability


@dataclass(frozen=True)
class SystemScores:
    """What one system reached on the yes/no questions.

    Attributes:
        report: For the report; see `score_labels`.
        auc: (labels,), NaN without both classes; None without probabilities.
        resampled_auc: (labels, resamples).
    """

    report: dict[str, Any]
    auc: NDArray[np.float64] | None = None
    resampled_auc: NDArray[np.float64] | None = None


def score_labels(questions: VerifyQuestions, scored: Sequence[Row], *, system: str = "model") -> SystemScores:
    """Score one system on every label.

    Args:
        questions: From `verify_questions`.
        scored: All rows of its file, as `score_rows` returned them.
        system: Who answered, for messages.

    Returns:
        The scores. `report`: `by_attribute`: attribute type -> `labels` (label -> `n`, `positives`, `prevalence`;
        `sensitivity`, `specificity`, `ppv`, `f1`; with probabilities `auc`, `average_precision`, `brier`) and, with
        probabilities, `macro_auc`, `brier`, `ece`; over all labels `macro_auc` and `calibration`. Each of
        `sensitivity`, `specificity`, `ppv`, `f1`, `auc`, `macro_auc` is `{value, ci95}`; None stands for what does not
        exist, such as the sensitivity of a label that is in no record.

    Raises:
        EcgDataError: as `probability_of_yes`.
    """
    rates = _rates(questions, [_answered(scored[place]) for place in questions.rows])
    by_attribute: dict[str, Any] = {
        group: {"labels": {questions.names[number][1]: rates[number] for number in questions.labels_of(group)}}
        for group in questions.groups
    }
    probability = probability_of_yes(questions, scored, system)
    if probability is None:
        return SystemScores({"by_attribute": by_attribute})
    auc, resampled = resampled_auc(questions, probability)
    for number, (group, label) in enumerate(questions.names):
        mine = questions.label == number
        truth, given = questions.positive[mine], probability[mine]
        by_attribute[group]["labels"][label] |= {
            "auc": _with_interval(auc[number], resampled[number]),
            "average_precision": average_precision(truth, given),
            "brier": float(np.mean((given - truth) ** 2)),
        }
    for group in questions.groups:
        numbers = questions.labels_of(group)
        mine = np.isin(questions.label, numbers)
        fit = calibration(questions.positive[mine], probability[mine])
        by_attribute[group] |= {
            "macro_auc": _macro(questions, auc, resampled, numbers),
            "brier": fit["brier"],
            "ece": fit["ece"],
        }
    fit = calibration(questions.positive, probability)
    errors = (probability - questions.positive) ** 2
    options = {"n_resamples": questions.n_resamples, "seed": questions.seed}
    fit["brier_ci95"] = list(bootstrap_interval(errors, questions.clusters, **options))
    report = {
        "by_attribute": by_attribute,
        "macro_auc": _macro(questions, auc, resampled, list(range(len(questions.names)))),
        "calibration": fit,
    }
    return SystemScores(report, auc, resampled)


def auc_difference(questions: VerifyQuestions, first: SystemScores, second: SystemScores) -> dict[str, Any] | None:
    """Macro AUC of the first less that of the second on the same resamples; None unless both have probabilities.

    Returns:
        `overall` and `by_attribute`: attribute type -> `{value, ci95}`.
    """
    if first.auc is None or second.auc is None or first.resampled_auc is None or second.resampled_auc is None:
        return None
    value, resampled = first.auc - second.auc, first.resampled_auc - second.resampled_auc

    def of(numbers: list[int]) -> dict[str, Any] | None:
        mean = mean_over_labels(value[numbers, None])[0]
        return _with_interval(mean, mean_over_labels(resampled[numbers], value[numbers]))

    return {
        "overall": of(list(range(len(questions.names)))),
        "by_attribute": {group: of(questions.labels_of(group)) for group in questions.groups},
    }


def resampled_auc(
    questions: VerifyQuestions, probability: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC of every label, (labels,), and in every resample, (labels, resamples); NaN where it does not exist.

    Args:
        questions: The questions.
        probability: (questions,), of yes.
    """
    curves = _curves(questions, probability, np.ones(len(probability), dtype=bool))
    resampled = np.empty((len(curves), questions.n_resamples))
    for part, weights in questions.resamples.weights():
        resampled[:, part] = _weighted(curves, weights)
    return np.array([curve.value() for curve in curves]), resampled


def macro_auc_of_parts(
    questions: VerifyQuestions, probability: NDArray[np.float64], parts: Sequence[NDArray[np.bool_]]
) -> list[dict[str, Any] | None]:
    """Macro AUC on parts of the questions, such as those about one device's ECGs, in one pass over the resamples.

    Args:
        questions: The questions.
        probability: (questions,), of yes.
        parts: (questions,) each, which ones are in the part.

    Returns:
        For each part `value`, `ci95` and `labels` (those with both classes in it); None where no label has both.
    """
    curves = [_curves(questions, probability, part) for part in parts]
    values = [np.array([curve.value() for curve in one]) for one in curves]
    means = np.empty((len(parts), questions.n_resamples))
    for chunk, weights in questions.resamples.weights():
        for number, one in enumerate(curves):
            means[number, chunk] = mean_over_labels(_weighted(one, weights), values[number])
    found = []
    for value, resampled in zip(values, means, strict=True):
        entry = _with_interval(float(mean_over_labels(value[:, None])[0]), resampled)
        found.append(entry and {**entry, "labels": int(np.isfinite(value).sum())})
    return found


def _curves(
    questions: VerifyQuestions, probability: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> list[AreaUnderCurve]:
    index = questions.resamples.index
    curves = []
    for number in range(len(questions.names)):
        mine = (questions.label == number) & chosen
        curves.append(AreaUnderCurve(probability[mine], questions.positive[mine], index[mine]))
    return curves


def _weighted(curves: Sequence[AreaUnderCurve], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    found = np.full((len(curves), weights.shape[1]), np.nan)
    for number, curve in enumerate(curves):
        if curve.has_both_classes:
            found[number] = curve.weighted(weights)
    return found


def average_precision(positive: NDArray[np.bool_], probability: NDArray[np.float64]) -> float | None:
    """Mean of the precision at each step of the recall, ties together; None without a positive question.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7]))
    0.8333333333333333
    """
    if not positive.any():
        return None
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(positive[order])
    ends = np.append(np.diff(probability[order]) != 0, True)  # the last of those that are equal
    precision = hits[ends] / (np.flatnonzero(ends) + 1)
    steps = np.diff(hits[ends], prepend=0)
    return float(np.sum(precision * steps) / hits[-1])


def calibration(positive: NDArray[np.bool_], probability: NDArray[np.float64]) -> dict[str, Any]:
    """How far probabilities are from how often "yes" is right.

    Returns:
        `n`, `brier` (mean squared difference), `ece` (expected calibration error: the mean over the questions of the
        distance between mean probability and share of yes in their bin) and `bins`: `from`, `to`, `n`,
        `mean_probability`, `share_of_yes`, the last two None in an empty bin.
    """
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    given = np.bincount(bins, weights=probability, minlength=CALIBRATION_BINS)
    found = np.bincount(bins, weights=positive, minlength=CALIBRATION_BINS)
    table = [
        {
            "from": number / CALIBRATION_BINS,
            "to": (number + 1) / CALIBRATION_BINS,
            "n": int(count),
            "mean_probability": float(given[number] / count) if count else None,
            "share_of_yes": float(found[number] / count) if count else None,
        }
        for number, count in enumerate(counts)
    ]
    return {
        "n": len(probability),
        "brier": float(np.mean((probability - positive) ** 2)),
        "ece": float(np.sum(np.abs(given - found)) / len(probability)),
        "bins": table,
    }


def _answered(row: Row) -> bool | None:
    """Whether yes was written; None for an answer that is neither yes nor no."""
    return {("yes",): True, ("no",): False}.get(tuple(row["parsed"] or ()))


def _rates(questions: VerifyQuestions, answers: Sequence[bool | None]) -> list[dict[str, Any]]:
    """Counts, sensitivity, specificity, positive predictive value and F1 of each label."""
    positive, count = questions.positive, len(questions.names)
    yes = np.array([answer is True for answer in answers])
    no = np.array([answer is False for answer in answers])
    # Shares: of the questions in the second column those in the first.
    shares = {
        "sensitivity": (positive & yes, positive),
        "specificity": (~positive & no, ~positive),
        "ppv": (positive & yes, yes),
    }
    parts = [one for pair in shares.values() for one in pair]
    sums = np.concatenate([questions.resamples.cluster_sums(one, questions.label, count) for one in parts], axis=1)
    totals = sums.sum(axis=0, dtype=np.float64).reshape(len(parts), count)
    resampled = questions.resamples.resampled_sums(sums).T.reshape(len(parts), count, -1)
    numbers = np.bincount(questions.label, minlength=count)
    found = []
    for label in range(count):
        positives = int(totals[1, label])
        entry: dict[str, Any] = {
            "n": int(numbers[label]),
            "positives": positives,
            "prevalence": positives / int(numbers[label]),
        }
        for place, name in enumerate(shares):
            above, below = 2 * place, 2 * place + 1
            value = _ratio(totals[above, label], totals[below, label])
            entry[name] = _with_interval(float(value), _ratio(resampled[above, label], resampled[below, label]))
        # F1 = 2 * right yes / (questions whose answer is yes + answers of yes).
        value = _ratio(2 * totals[0, label], totals[1, label] + totals[5, label])
        drawn = _ratio(2 * resampled[0, label], resampled[1, label] + resampled[5, label])
        entry["f1"] = _with_interval(float(value), drawn)
        found.append(entry)
    return found


def _ratio(above: Any, below: Any) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: NDArray[np.float64] = np.divide(above, below)
    return ratio


def _with_interval(value: float, resampled: NDArray[np.float64]) -> dict[str, Any] | None:
    if math.isnan(value):
        return None
    interval = percentile_interval(resampled)
    return {"value": float(value), "ci95": None if interval is None else list(interval)}


def _macro(
    questions: VerifyQuestions, auc: NDArray[np.float64], resampled: NDArray[np.float64], numbers: list[int]
) -> dict[str, Any]:
    """Mean over the labels that have both classes, how many these are, and which ones lack one.

    A label that lacks a class in a resample is in its mean with the value of all ECGs.
    """
    mean = float(mean_over_labels(auc[numbers, None])[0])
    found = _with_interval(mean, mean_over_labels(resampled[numbers], auc[numbers]))
    left_out = [questions.names[number][1] for number in numbers if math.isnan(auc[number])]
    return {"value": None, "ci95": None, **(found or {}), "labels": len(numbers) - len(left_out), "left_out": left_out}


def mean_over_labels(values: NDArray[np.float64], of_all: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Column means of (labels, columns) without NaN; NaN where a column has nothing else.

    Args:
        values: One column for each resample.
        of_all: (labels,), on all ECGs; stands where a label has no value in a resample. The rarest labels miss most
            often, and are often the hardest: without them the mean of a resample would be another one, mostly higher.
    """
    if of_all is not None:
        values = np.where(np.isfinite(values), values, of_all[:, None])
    there = np.isfinite(values)
    return _ratio(np.where(there, values, 0.0).sum(axis=0), there.sum(axis=0))
