"""How data sets use a tokenizer's vocabulary: counted while encoding, with a batch of records in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

import rust_bpe
from ecgbyte_hf.interpretation.usage_splits import HELD_OUT, data_hash_of, records_of_split, splits_seen
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance

if TYPE_CHECKING:
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

# Records that one call of the core encodes: 15 MB of 12 x 2500 float32.
_BATCH = 128
# Shares of all tokens for which the number of ids is told, and numbers of ids for which the share is.
_SHARES = (0.5, 0.9, 0.99)
_TOP = (10, 30, 100, 300, 1000, 3000)


def measure_usage(
    data: Mapping[str, PreparedData],
    tokenizer: EcgByteTokenizer,
    *,
    split: str = HELD_OUT,
    training: Mapping[str, Any] | None = None,
    vocabulary_sizes: Sequence[int] | None = None,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Encode the records of one or several data sets and count the tokens.

    Args:
        data: Prepared folders, whole or in windows, by the names that the figure shows.
        tokenizer: The tokenizer.
        split: Of every data set: `"held-out"`, all records that no training question refers to; `"all"`; or the name
            of a split of its questions.
        training: What the tokenizer's `training.json` holds; it tells whether the tokenizer was learnt from what is
            counted.
        vocabulary_sizes: Numbers of merges for which the compression is measured, the first so many of the
            tokenizer's; by default 0 and about three for every tenfold, up to all.
        num_threads: Threads of the core; None for all.

    Returns:
        `data_sets`, by name: `split`, `seen_by_tokenizer` (`"yes"`, `"in part"`, `"no"` or `"unknown"`), `splits`
        (these and `ecgs` of every split; see `splits_seen`); `records`, `samples`, `tokens`, `compression` (samples
        per token); `counts` (of every id, from 0); `tokens_per_ecg` and `token_length` (pairs of a value and how many
        records or tokens have it, in samples); `coverage` (`vocabulary`, `used`, `share_used`, `share_of_top` by the
        number of most frequent ids, `ids_for_share`); `by_lead` (samples, tokens, compression; a token that spans
        leads counts in each by its share of samples); `by_merges` (merges, tokens, compression). And `sampling_rate`,
        `merges`, `provenance`.

    Raises:
        EcgDataError: no data set, one without records or without that split, or a number of merges that the tokenizer
            does not have.
        EcgError: records that were not cleaned as the tokenizer expects.
    """
    if not data:
        raise EcgDataError("got no data set, expected at least one prepared folder")
    sizes = _checked_sizes(vocabulary_sizes, tokenizer.num_merges)
    for prepared in data.values():
        tokenizer.check_cleaning(prepared.preprocessor)
        if not prepared.ecg_ids:
            raise EcgDataError(f"{prepared.folder} holds no records, so there is nothing to count; prepare anew")
    chosen = {name: records_of_split(one, split) for name, one in data.items()}
    prefixes = {size: rust_bpe.Bpe(tokenizer.bpe.merges[:size], tokenizer.bpe.num_symbols) for size in sizes}
    return {
        "data_sets": {
            name: {
                **_split_facts(one, split, training),
                **_count(one, chosen[name], tokenizer, prefixes, num_threads),
            }
            for name, one in data.items()
        },
        "sampling_rate": tokenizer.sampling_rate,
        "merges": tokenizer.num_merges,
        "provenance": provenance(
            "plot usage",
            {
                "data": {
                    name: {
                        "folder": str(one.folder),
                        "fingerprint": one.fingerprint,
                        "window_seconds": one.window_seconds,
                        "window_stride": one.window_stride,
                    }
                    for name, one in data.items()
                },
                "split": split,
                "vocabulary_sizes": sizes,
                "num_threads": num_threads,
            },
            tokenizer=tokenizer.fingerprint,
            tokenizer_data_hash=data_hash_of(training),
        ),
    }


def _split_facts(prepared: PreparedData, split: str, training: Mapping[str, Any] | None) -> dict[str, Any]:
    splits = splits_seen(prepared, training)
    return {"split": split, "seen_by_tokenizer": splits[split]["seen_by_tokenizer"], "splits": splits}


def _checked_sizes(given: Sequence[int] | None, num_merges: int) -> list[int]:
    if given is None:
        steps = [digit * 10**power for power in range(1, 7) for digit in (1, 3)]
        given = [0, *(size for size in steps if size < num_merges), num_merges]
    sizes = sorted({int(size) for size in given})
    if not sizes or sizes[0] < 0 or sizes[-1] > num_merges:
        raise EcgDataError(
            f"got {', '.join(map(str, sizes)) or 'no'} merges to compare, expected numbers from 0 to the tokenizer's "
            f"{num_merges}"
        )
    return sizes


@dataclass
class _Counts:
    """What has been counted so far."""

    ids: np.ndarray
    lead_tokens: np.ndarray
    lead_samples: int = 0
    records: int = 0
    tokens_per_ecg: Counter[int] = field(default_factory=Counter)
    prefix_tokens: Counter[int] = field(default_factory=Counter)

    def add(self, signal: np.ndarray, ids: np.ndarray, lengths: np.ndarray) -> None:
        self.ids += np.bincount(ids, minlength=len(self.ids))
        self.records += 1
        self.tokens_per_ecg[len(ids)] += 1
        self.lead_samples += signal.shape[1]
        self.lead_tokens += tokens_by_lead(lengths[ids], len(signal))


def tokens_by_lead(lengths: np.ndarray, num_leads: int) -> np.ndarray:
    """Tokens in each lead of one record, (leads,); one that spans two leads counts in both by its share of samples.

    Example:
        >>> tokens_by_lead(np.array([2, 4, 2]), 2).tolist()
        [1.5, 1.5]
    """
    ends = np.concatenate(([0], np.cumsum(lengths)))
    borders = np.arange(num_leads + 1) * (ends[-1] / num_leads)
    return np.diff(np.interp(borders, ends, np.arange(len(ends))))


def _count(
    prepared: PreparedData,
    ecg_ids: Sequence[int],
    tokenizer: EcgByteTokenizer,
    prefixes: Mapping[int, rust_bpe.Bpe],
    num_threads: int | None,
) -> dict[str, Any]:
    from tqdm.auto import tqdm

    counts = _Counts(np.zeros(tokenizer.num_ecg_tokens, dtype=np.int64), np.zeros(len(tokenizer.leads)))
    lengths = tokenizer.bpe.token_lengths.astype(np.int64)
    options: dict[str, Any] = {"algorithm": tokenizer.algorithm, "lead_boundary": tokenizer.lead_boundary}
    signals = prepared.iter_signals(ecg_ids)
    with closing(signals), tqdm(total=len(ecg_ids), desc="count", unit="record") as bar:
        for batch in _batches(signals):
            encoded = tokenizer.encode_signal_batch(batch, num_threads=num_threads)
            for signal, ids in zip(batch, encoded, strict=True):
                counts.add(signal, ids, lengths)
            lows, highs = zip(*(tokenizer.calibration.bounds(signal) for signal in batch), strict=True)
            for size, bpe in prefixes.items():
                whole = size == tokenizer.num_merges
                rows = (
                    encoded
                    if whole
                    else bpe.encode_signal_batch(batch, lows, highs, num_threads=num_threads, **options)
                )
                counts.prefix_tokens[size] += sum(map(len, rows))
            bar.update(len(batch))
    return _summary(counts, tokenizer, lengths)


def _batches(signals: Generator[tuple[int, np.ndarray], None, None]) -> Iterable[list[np.ndarray]]:
    while batch := [signal for _, signal in islice(signals, _BATCH)]:
        yield batch


def _summary(counts: _Counts, tokenizer: EcgByteTokenizer, lengths: np.ndarray) -> dict[str, Any]:
    samples, tokens = int(counts.ids @ lengths), int(counts.ids.sum())
    by_length = np.bincount(lengths, weights=counts.ids).astype(np.int64)
    return {
        "records": counts.records,
        "samples": samples,
        "tokens": tokens,
        "compression": samples / tokens,
        "counts": counts.ids.tolist(),
        "tokens_per_ecg": [[value, counts.tokens_per_ecg[value]] for value in sorted(counts.tokens_per_ecg)],
        "token_length": [[int(length), int(by_length[length])] for length in np.flatnonzero(by_length)],
        "coverage": _coverage(counts.ids),
        "by_lead": {
            lead: {
                "samples": counts.lead_samples,
                "tokens": float(of_lead),
                "compression": counts.lead_samples / float(of_lead),
            }
            for lead, of_lead in zip(tokenizer.leads, counts.lead_tokens, strict=True)
        },
        "by_merges": [
            {"merges": size, "tokens": number, "compression": samples / number}
            for size, number in sorted(counts.prefix_tokens.items())
        ],
    }


def _coverage(counts: np.ndarray) -> dict[str, Any]:
    """How much of the vocabulary is in use, and of all tokens by how few ids."""
    cumulative = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
    used = int(np.count_nonzero(counts))
    return {
        "vocabulary": len(counts),
        "used": used,
        "share_used": used / len(counts),
        "share_of_top": {str(top): float(cumulative[top - 1]) for top in _TOP if top <= len(counts)},
        "ids_for_share": {str(share): int(np.searchsorted(cumulative, share - 1e-12) + 1) for share in _SHARES},
    }
