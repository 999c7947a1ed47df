"""The way from a record to ids: feature extractor and tokenizer together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchEncoding, ProcessorMixin

from .errors_ecg_byte import BudgetError, SignalError


class EcgByteProcessor(ProcessorMixin):
    """Cleans a record and encodes it.

    Args:
        feature_extractor: An `EcgByteFeatureExtractor`.
        tokenizer: An `EcgByteTokenizer` trained on what the feature extractor returns.

    Raises:
        EcgError: the two disagree on sampling rate, leads or profile.

    Example:
        >>> from types import SimpleNamespace
        >>> from ecgbyte_hf import EcgByteFeatureExtractor, EcgByteTokenizer, EcgCalibration
        >>> extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=250, leads=["II"])
        >>> calibration = EcgCalibration("percentile", -1.0, 1.0)
        >>> processor = EcgByteProcessor(extractor, EcgByteTokenizer(calibration=calibration, leads=["II"]))
        >>> record = SimpleNamespace(
        ...     signal=np.array([[-1.0, 0.0, 0.9]]), sampling_rate=250, lead_names=["II"]
        ... )
        >>> processor(record)["input_ids"]
        [0, 12, 24]
    """

    def __init__(self, feature_extractor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        """Keep both, after checking that they fit."""
        super().__init__(feature_extractor, tokenizer, **kwargs)
        if hasattr(tokenizer, "check_cleaning"):
            tokenizer.check_cleaning(feature_extractor.to_dict())

    def __call__(self, records: Any, **kwargs: Any) -> BatchEncoding:
        """Clean and encode.

        Args:
            records: One record with `.signal` (leads, samples) mV, `.sampling_rate`, `.lead_names`, or a list of them.
            kwargs: Passed to the tokenizer: padding, truncation, return_tensors, return_offsets_mapping, ...

        Returns:
            The tokenizer's BatchEncoding.

        Raises:
            SignalError: something that is not a record; and what `EcgByteFeatureExtractor.clean` raises.
        """
        signals = [self.feature_extractor.clean(record) for record in _as_records(records)]
        return self.tokenizer(signals[0] if hasattr(records, "signal") else signals, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """The names of what a call returns: the tokenizer's, since the cleaned signal stays inside."""
        return list(self.tokenizer.model_input_names)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write the folder of the tokenizer, with the feature extractor's `preprocessor_config.json`.

        Returns:
            The paths written by the processor itself.
        """
        if getattr(self.tokenizer, "preprocessor_json", "") is None:
            self.tokenizer.preprocessor_json = self.feature_extractor.to_json_string()
        return list(super().save_pretrained(str(save_directory), push_to_hub=push_to_hub, **kwargs))

    def ecg_text(self, records: Any, *, max_tokens: int | None = None) -> str:
        """The ECG block of a prompt for one record or for several that share the budget equally.

        Args:
            records: One record or a list of them.
            max_tokens: Most language-model tokens that the block may take; `None` for no limit.

        Returns:
            `<|ecg_start|><|ecg_17|>...<|ecg_end|>`, once per record.

        Raises:
            BudgetError: not even one sample of each lead fits.
        """
        signals = [self.feature_extractor.clean(record) for record in _as_records(records)]
        pieces, _ = encode_within_budget(self.tokenizer, signals, max_tokens)
        return "".join(self.tokenizer.ecg_text(ids) for ids in pieces)


def _as_records(records: Any) -> list[Any]:
    batch = [records] if hasattr(records, "signal") else records
    if isinstance(batch, Sequence) and not isinstance(batch, str) and all(hasattr(one, "signal") for one in batch):
        return list(batch)
    raise SignalError(
        "expected a record with signal, sampling_rate and lead_names, or a list of them; got "
        f"{type(records).__name__}; read a file with ecgbyte_hf.read_ecg(path), and give a cleaned array to the "
        "tokenizer"
    )


def encode_within_budget(
    tokenizer: Any, signals: Sequence[np.ndarray], max_tokens: int | None
) -> tuple[list[np.ndarray], list[int]]:
    """Ids of signals that together stay within a budget, cut in time and never at the end of the ids.

    Leads are encoded one after the other, so cutting ids would lose the last leads. Instead all leads keep the same
    duration, from the start: the longest whose ids fit. Several signals share the budget equally, and what one leaves
    over is not given to another; start and end tokens count. With calibration "minmax" the bins are those of the
    whole signal, however much of it is kept.

    How exact: a longer cut can take fewer ids, since its last samples may complete a long token, so bisection is not
    enough. With `lead_boundary="split"` and greedy encoding the answer is the longest duration, proven: see
    `_upper_bound`. With "cross" or rank order it is the longest up to a bound that allows for two tokens per lead of
    difference between the cut signal's ids and the whole signal's; a longer one is not looked for.

    Args:
        tokenizer: An `EcgByteTokenizer`.
        signals: Float arrays (leads, samples) in mV.
        max_tokens: Most tokens for all signals together, two of them around each; `None` for no limit.

    Returns:
        The ids of each signal, and the number of samples per lead that were kept.

    Raises:
        BudgetError: not even one sample of each lead fits.
    """
    share = None if max_tokens is None or not len(signals) else max_tokens // len(signals) - 2
    ids, kept = [], []
    for signal in signals:
        whole = tokenizer.encode_signal(signal)
        if share is None or len(whole) <= share:
            ids.append(whole)
            kept.append(signal.shape[1])
            continue
        samples, cut = _longest_that_fits(tokenizer, signal, whole, share)
        ids.append(cut)
        kept.append(samples)
    return ids, kept


def _longest_that_fits(tokenizer: Any, signal: np.ndarray, whole: np.ndarray, share: int) -> tuple[int, np.ndarray]:
    for samples in range(_upper_bound(tokenizer, signal.shape, whole, share), 0, -1):
        ids = tokenizer.encode_signal(signal, samples=samples)
        if len(ids) <= share:
            return samples, ids
    raise BudgetError(
        f"a budget of {max(share, 0)} ECG tokens does not hold one sample of {signal.shape[0]} leads; raise the "
        "maximum length or shorten the text"
    )


def _upper_bound(tokenizer: Any, shape: tuple[int, ...], whole: np.ndarray, share: int) -> int:
    """A duration in samples that no cut within `share` ids exceeds.

    A lead cut at m samples and encoded greedily has the whole lead's tokens up to the one that m falls into, and at
    least one more for the rest; where every lead is encoded by itself, that is at least as many as the tokens of
    the whole signal that begin before m in their lead. This count never falls as m grows, and its largest m within
    `share` is the bound. Where tokens cross leads or follow the rank order, they may come out differently from the
    cut on, so the bound is taken with two tokens more per lead.
    """
    num_leads, num_samples = shape
    starts = tokenizer.bpe.spans(whole)[:, 0]
    begun = np.bincount(starts % num_samples, minlength=num_samples).cumsum()
    is_exact = tokenizer.lead_boundary == "split" and tokenizer.algorithm == "greedy"
    slack = 0 if is_exact else 2 * num_leads
    # begun[i] tokens begin at or before sample i, so they are those of a cut at i + 1 samples.
    return int(np.searchsorted(begun, share + slack, side="right"))
