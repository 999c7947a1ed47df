"""Logistic regression of each label that yes/no questions ask about, on any features of the ECGs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]

_LARGEST_NUM_ITERATIONS = 2000


@dataclass
class LabelRegressions:
    """Logistic regressions on standardised features.

    Attributes:
        used: Which features vary in training.
        mean: Of those.
        std: Of those.
        weights: (labels, used features).
        bias: (labels,).
        c: Inverse strength of the penalty.
        scores: What `judge` said of each strength.
        not_converged: Labels whose fit was stopped early.
    """

    used: NDArray[np.bool_]
    mean: Array
    std: Array
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    c: float
    scores: dict[float, float] = field(default_factory=dict)
    not_converged: int = 0

    @property
    def num_parameters(self) -> int:
        """Numbers that were fitted."""
        return int(self.weights.size + self.bias.size)

    def logits(self, features: Array) -> NDArray[np.float64]:
        """Logits (records, labels)."""
        standardised = (features[:, self.used] - self.mean) / self.std
        result: NDArray[np.float64] = standardised @ self.weights.T + self.bias
        return result


def fit_label_regressions(
    features: Array,
    targets: Array,
    *,
    what: str,
    choices: Sequence[float],
    judge: Callable[[LabelRegressions], float] | None = None,
) -> LabelRegressions:
    """Fit one logistic regression to each label.

    Args:
        features: (records, features).
        targets: (records, labels), 1, 0, or NaN for what is not asked and does not count.
        what: What the features are, for messages.
        choices: Inverse strengths of the L2 penalty, the same for all labels. They are tried in turn until one is
            judged worse than the one before: a weaker penalty takes longer, and fits what is not there.
        judge: Scores a fit, higher is better; needed with several choices.

    Raises:
        EcgDataError: a strength that is none, several without a judge, or features that are the same in all records.
        ImportError: scikit-learn is absent.
    """
    if not choices or min(choices) <= 0.0 or (len(choices) > 1 and judge is None):
        raise EcgDataError(f"got C {list(choices)}, expected one above 0, or several and a validation split")
    used = np.ptp(features, axis=0) > 0
    if not used.any():
        raise EcgDataError(f"the {what} of all {len(features)} records are the same: nothing can be learnt")
    mean, std = features[:, used].mean(axis=0), features[:, used].std(axis=0)
    standardised = (features[:, used] - mean) / std
    scores: dict[float, float] = {}
    best: LabelRegressions | None = None
    for c in choices:
        weights, bias, not_converged = _fit(standardised, targets, c, what)
        fitted = LabelRegressions(used, mean, std, weights, bias, c, scores, not_converged)
        if judge is None:
            return fitted
        scores[c] = judge(fitted)
        if best is not None and scores[c] < scores[best.c]:
            break
        best = fitted
    return cast(LabelRegressions, best)


def _fit(features: Array, targets: Array, c: float, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Weights and biases of all labels, and how many fits did not converge."""
    from tqdm.auto import tqdm

    regression = _sklearn("linear_model").LogisticRegression
    weights, bias = np.zeros((targets.shape[1], features.shape[1])), np.zeros(targets.shape[1])
    not_converged = 0
    for label in tqdm(range(targets.shape[1]), desc=f"{what}, C={c:g}", unit="label"):
        is_asked = ~np.isnan(targets[:, label])
        answers = targets[is_asked, label]
        if len(np.unique(answers)) < 2:
            # One class alone: its share, as if one record of either class had been seen besides.
            bias[label] = logit((answers.sum() + 1.0) / (len(answers) + 2.0))
            continue
        fitted = regression(C=c, max_iter=_LARGEST_NUM_ITERATIONS).fit(features[is_asked], answers)
        weights[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
        not_converged += int(fitted.n_iter_[0] >= _LARGEST_NUM_ITERATIONS)
    if not_converged:
        logger.warning("the fit of %d labels was stopped after %d iterations", not_converged, _LARGEST_NUM_ITERATIONS)
    return weights, bias, not_converged


def _sklearn(module: str) -> Any:
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            "logistic regression needs scikit-learn; install it with `pip install 'ecgbyte-hf[baselines]'`"
        ) from error
