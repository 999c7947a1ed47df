"""How often each symbol follows each other one, and logistic regression on it: the control that knows no order.

Of the quantised signal nothing is left but the counts of neighbouring pairs in each lead, so a model below this has
learnt amplitudes and slopes at most, and no shape that is longer than two samples.
"""

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
from ecgbyte_hf.models.vocabulary_ecg_byte import ALPHABET

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]

#: Inverse strengths of the penalty that are tried where a validation split judges them.
CHOICES_OF_C = (1e-4, 1e-3, 1e-2, 1e-1)
#: Without one.
DEFAULT_C = 1e-3
_LARGEST_NUM_ITERATIONS = 2000


def bigram_counts(symbols: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts (leads, 26, 26) of each pair of neighbouring symbols, first symbol first, of symbols (leads, samples).

    Example:
        >>> counts = bigram_counts(np.array([[0, 1, 1, 1]], np.uint8))
        >>> int(counts[0, 0, 1]), int(counts[0, 1, 1]), int(counts.sum())
        (1, 2, 3)
    """
    size = len(ALPHABET)
    pairs = symbols[:, :-1].astype(np.int64) * size + symbols[:, 1:]
    pairs += np.arange(len(symbols))[:, None] * size**2
    return np.bincount(pairs.ravel(), minlength=len(symbols) * size**2).reshape(len(symbols), size, size)


def bigram_features(signals: Array, tokenizer: Any) -> Array:
    """Square roots of the bigram counts of signals (records, leads, samples) in mV, (records, leads x 26 x 26).

    The square root makes the spread of a count about the same whether it is large or small.

    Args:
        signals: The signals.
        tokenizer: An `EcgByteTokenizer`, whose calibration quantises.
    """
    import rust_bpe

    features = np.empty((len(signals), signals.shape[1] * len(ALPHABET) ** 2), np.float32)
    for index, signal in enumerate(signals):
        symbols = rust_bpe.quantize(signal, *tokenizer.calibration.bounds(signal), num_symbols=len(ALPHABET))
        features[index] = np.sqrt(bigram_counts(symbols.reshape(signal.shape)).ravel())
    return features


@dataclass
class TrainedBigrams:
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


def train_bigrams(
    features: Array,
    targets: Array,
    *,
    choices: Sequence[float] = (DEFAULT_C,),
    judge: Callable[[TrainedBigrams], float] | None = None,
) -> TrainedBigrams:
    """Fit one logistic regression to each label.

    Args:
        features: (records, features).
        targets: (records, labels), 1, 0, or NaN for what is not asked and does not count.
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
        raise EcgDataError(f"the bigram counts of all {len(features)} records are the same: nothing can be learnt")
    mean, std = features[:, used].mean(axis=0), features[:, used].std(axis=0)
    standardised = (features[:, used] - mean) / std
    scores: dict[float, float] = {}
    best: TrainedBigrams | None = None
    for c in choices:
        weights, bias, not_converged = _fit(standardised, targets, c)
        fitted = TrainedBigrams(used, mean, std, weights, bias, c, scores, not_converged)
        if judge is None:
            return fitted
        scores[c] = judge(fitted)
        if best is not None and scores[c] < scores[best.c]:
            break
        best = fitted
    return cast(TrainedBigrams, best)


def _fit(features: Array, targets: Array, c: float) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Weights and biases of all labels, and how many fits did not converge."""
    from tqdm.auto import tqdm

    regression = _sklearn("linear_model").LogisticRegression
    weights, bias = np.zeros((targets.shape[1], features.shape[1])), np.zeros(targets.shape[1])
    not_converged = 0
    for label in tqdm(range(targets.shape[1]), desc=f"bigrams, C={c:g}", unit="label"):
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
            "the bigram baseline needs scikit-learn; install it with `pip install 'ecgbyte-hf[baselines]'`"
        ) from error
