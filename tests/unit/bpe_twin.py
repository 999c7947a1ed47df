"""The definitions behind `rust_bpe`, written as plainly as possible: recount everything, rewrite everything."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


def train(
    records: Iterable[Sequence[int]], num_merges: int, num_symbols: int = 26, max_token_length: float = np.inf
) -> list[Pair]:
    """The most frequent adjacent pair (overlapping windows), ties to the smallest pair, again and again."""
    corpus = [[int(symbol) for symbol in record] for record in records]
    lengths = [1] * num_symbols
    merges: list[Pair] = []
    while len(merges) < num_merges:
        counts = Counter(pair for ids in corpus for pair in zip(ids, ids[1:], strict=False))
        short = [pair for pair in counts if lengths[pair[0]] + lengths[pair[1]] <= max_token_length]
        if not short:
            break
        pair = min(short, key=lambda pair: (-counts[pair], pair))
        corpus = [replace(ids, pair, len(lengths)) for ids in corpus]
        lengths.append(lengths[pair[0]] + lengths[pair[1]])
        merges.append(pair)
    return merges


def replace(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """`ids` with `new_id` for `pair`, from left to right."""
    replaced = []
    position = 0
    while position < len(ids):
        matches = tuple(ids[position : position + 2]) == pair
        replaced.append(new_id if matches else ids[position])
        position += 2 if matches else 1
    return replaced


def encode_bpe(symbols: Sequence[int], merges: Sequence[Pair], num_symbols: int = 26) -> list[int]:
    """Each merge in the order in which it was learnt."""
    ids = [int(symbol) for symbol in symbols]
    for rank, pair in enumerate(merges):
        ids = replace(ids, pair, num_symbols + rank)
    return ids


def encode_greedy(symbols: Sequence[int], merges: Sequence[Pair], num_symbols: int = 26) -> list[int]:
    """The longest token that matches, from left to right."""
    token_ids = {symbols: token for token, symbols in enumerate(tokens(merges, num_symbols))}
    longest = max(map(len, token_ids))
    text = bytes(int(symbol) for symbol in symbols)
    ids = []
    position = 0
    while position < len(text):
        ends = range(min(len(text), position + longest), position, -1)
        end = next(end for end in ends if text[position:end] in token_ids)
        ids.append(token_ids[text[position:end]])
        position = end
    return ids


def tokens(merges: Sequence[Pair], num_symbols: int = 26) -> list[bytes]:
    """The symbols of every token, by id."""
    tokens = [bytes([symbol]) for symbol in range(num_symbols)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return tokens


def quantize(signal: NDArray[np.floating], low: float, high: float, num_symbols: int = 26) -> NDArray[np.uint8]:
    """Equal bins between `low` and `high`, values outside in the outermost; in float64."""
    unit = np.clip((signal.astype(np.float64) - low) / (high - low + 1e-6), 0, 1)
    return np.minimum(np.floor(num_symbols * unit), num_symbols - 1).astype(np.uint8)
