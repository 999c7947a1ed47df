"""The way from a record to ids: feature extractor and tokenizer together."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import BatchEncoding, ProcessorMixin

from .errors_ecg_byte import BudgetError


class EcgByteProcessor(ProcessorMixin):
    """Cleans a record and encodes it.

    Args:
        feature_extractor: An `EcgByteFeatureExtractor`.
        tokenizer: An `EcgByteTokenizer` trained on what the feature extractor returns.

    Example:
        >>> processor = EcgByteProcessor.from_pretrained("ecg-byte")  # doctest: +SKIP
        >>> ids = processor(read_ecg("00001_hr"))["input_ids"]  # doctest: +SKIP
    """

    def __init__(self, feature_extractor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(feature_extractor, tokenizer, **kwargs)
        if feature_extractor is not None and tokenizer is not None:
            _check_agreement(feature_extractor, tokenizer)

    def __call__(self, records: Any, **kwargs: Any) -> BatchEncoding:  # type: ignore[override]
        """Clean and encode.

        Args:
            records: One record with `.signal` (leads, samples) mV, `.sampling_rate`, `.lead_names`, or a list of them.
            kwargs: Passed to the tokenizer: padding, truncation, return_tensors, return_offsets_mapping, ...

        Returns:
            The tokenizer's BatchEncoding.
        """
        if isinstance(records, (list, tuple)):
            return self.tokenizer([self.feature_extractor.clean(record) for record in records], **kwargs)
        return self.tokenizer(self.feature_extractor.clean(records), **kwargs)

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
        records = records if isinstance(records, (list, tuple)) else [records]
        signals = [self.feature_extractor.clean(record) for record in records]
        pieces, _ = encode_within_budget(self.tokenizer, signals, max_tokens)
        return "".join(self.tokenizer.ecg_text(ids) for ids in pieces)


def encode_within_budget(
    tokenizer: Any, signals: list[np.ndarray], max_tokens: int | None
) -> tuple[list[np.ndarray], list[int]]:
    """Ids of signals that together stay within a budget, cut in time and never at the end of the ids.

    Leads are encoded one after the other, so cutting ids would lose the last leads. Instead all leads keep the same
    duration: the longest whose ids fit. Several signals share the budget equally; start and end tokens count.

    Args:
        tokenizer: An `EcgByteTokenizer`.
        signals: Float arrays (leads, samples) in mV.
        max_tokens: Most tokens for all signals together, two of them around each; `None` for no limit.

    Returns:
        The ids of each signal, and the number of samples per lead that were kept.

    Raises:
        BudgetError: not even one sample of each lead fits.
    """
    share = None if max_tokens is None else max_tokens // len(signals) - 2
    ids, kept = [], []
    for signal in signals:
        whole = tokenizer.encode_signal(signal)
        if share is None or len(whole) <= share:
            ids.append(whole)
            kept.append(signal.shape[1])
            continue
        samples, cut = _longest_that_fits(tokenizer, signal, share)
        ids.append(cut)
        kept.append(samples)
    return ids, kept


# How far above the bisection's answer a longer cut is looked for: a token more or less at one end of a lead can make
# a longer signal take fewer ids, so the count is not quite monotonic in the duration.
_SEARCH_SAMPLES = 16


def _longest_that_fits(tokenizer: Any, signal: np.ndarray, share: int) -> tuple[int, np.ndarray]:
    low, high = 0, signal.shape[1]
    while high - low > 1:
        middle = (low + high) // 2
        if len(tokenizer.encode_signal(signal[:, :middle])) <= share:
            low = middle
        else:
            high = middle
    for samples in range(min(low + _SEARCH_SAMPLES, signal.shape[1]), 0, -1):
        ids = tokenizer.encode_signal(signal[:, :samples])
        if len(ids) <= share:
            return samples, ids
    raise BudgetError(
        f"a budget of {max(share, 0)} ECG tokens does not hold one sample of {signal.shape[0]} leads; raise the "
        "maximum length or shorten the text"
    )


def _check_agreement(feature_extractor: Any, tokenizer: Any) -> None:
    for name in ("sampling_rate", "leads"):
        ours, theirs = getattr(feature_extractor, name), getattr(tokenizer, name)
        if (list(ours) if name == "leads" else ours) != (list(theirs) if name == "leads" else theirs):
            raise ValueError(
                f"feature extractor and tokenizer disagree on {name}: {ours} and {theirs}; train the tokenizer on "
                "what this feature extractor returns"
            )
