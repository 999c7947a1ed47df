"""Encoders. Each gets the same records in its own format and its ids are held against ours.

Ours learnt the vocabulary, and everybody who can take it gets it. `rustbpe` and sentencepiece cannot: they learn their
own from the same records first, outside the clock.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contest import training
from contest.corpora import FIRST_LETTER, NUM_SYMBOLS
from contest.isolation import CannotDo, PeakMemory

#: The part of a record that is encoded before the clock starts, so that nothing is measured cold.
_WARM_UP = 600


@dataclass(frozen=True)
class Job:
    """What an encoder is made from.

    Attributes:
        merges: Our merges.
        folder: The tokenizer as `save_pretrained` writes it.
        train: File of the records that the vocabulary was learnt from.
        max_token_length: Longest token in symbols.
        threads: For those that can use several.
    """

    merges: np.ndarray
    folder: Path
    train: Path
    max_token_length: int
    threads: int

    def letters(self) -> list[str]:
        """Letters of every token, by id."""
        return [chr(FIRST_LETTER + symbol) for symbol in range(NUM_SYMBOLS)] + training.tokens_of(self.merges)


@dataclass(frozen=True)
class Encoder:
    """One way to encode.

    Attributes:
        encode: From what `prepare` gave to ids (of a whole batch if `is_batch`: to a list of them).
        prepare: From one record's symbols to what `encode` takes; outside the clock. `None`: signals in mV.
        algorithm: "greedy" or "bpe": which of our encodings the ids are held against.
        own_tokens: Letters of the ids if they are not ours.
        is_batch: Takes all records at once.
    """

    encode: Callable[[Any], Any]
    prepare: Callable[[np.ndarray], Any] | None
    algorithm: str
    own_tokens: Sequence[str] | None = None
    is_batch: bool = False


def _symbols(record: np.ndarray) -> np.ndarray:
    return record


def _text(record: np.ndarray) -> str:
    return (record + FIRST_LETTER).tobytes().decode("ascii")


def ours_greedy(job: Job) -> Encoder:
    """`Bpe.encode_greedy`."""
    return Encoder(_bpe(job).encode_greedy, _symbols, "greedy")


def ours_bpe(job: Job) -> Encoder:
    """`Bpe.encode_bpe`."""
    return Encoder(_bpe(job).encode_bpe, _symbols, "bpe")


def ours_greedy_batch(job: Job) -> Encoder:
    """`Bpe.encode_greedy_batch`."""
    bpe = _bpe(job)
    return Encoder(
        lambda batch: bpe.encode_greedy_batch(batch, num_threads=job.threads), _symbols, "greedy", is_batch=True
    )


def ours_bpe_batch(job: Job) -> Encoder:
    """`Bpe.encode_bpe_batch`."""
    bpe = _bpe(job)
    return Encoder(lambda batch: bpe.encode_bpe_batch(batch, num_threads=job.threads), _symbols, "bpe", is_batch=True)


def _bpe(job: Job) -> Any:
    import rust_bpe

    return rust_bpe.Bpe(job.merges)


def ours_signal(job: Job) -> Encoder:
    """`EcgByteTokenizer.encode_signal`: float32 mV to ids, quantising included."""
    return Encoder(_tokenizer(job).encode_signal, None, "greedy")


def ours_call(job: Job) -> Encoder:
    """`tokenizer(signal)`: float32 mV to a `BatchEncoding` of lists."""
    tokenizer = _tokenizer(job)
    return Encoder(lambda signal: tokenizer(signal)["input_ids"], None, "greedy")


def ours_call_arrays(job: Job) -> Encoder:
    """`tokenizer(signal, return_tensors="np")`: float32 mV to a `BatchEncoding` of arrays."""
    tokenizer = _tokenizer(job)
    return Encoder(lambda signal: tokenizer(signal, return_tensors="np")["input_ids"], None, "greedy")


def _tokenizer(job: Job) -> Any:
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

    return EcgByteTokenizer.from_pretrained(job.folder)


def stock(job: Job) -> Encoder:
    """`tokenizers` on the `tokenizer.json` that we save: our greedy encoding as a regular expression."""
    tokenizer = _stock(job)
    return Encoder(lambda text: tokenizer.encode(text).ids, _text, "greedy")


def stock_batch(job: Job) -> Encoder:
    """The same, all records in one call."""
    tokenizer = _stock(job)
    return Encoder(
        lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts)], _text, "greedy", is_batch=True
    )


def _stock(job: Job) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(job.folder / "tokenizer.json"))


def tokenizers_bpe(job: Job) -> Encoder:
    """The BPE model of `tokenizers` with our merges."""
    from tokenizers import Tokenizer, models

    tokens = job.letters()
    merges = [(tokens[left], tokens[right]) for left, right in job.merges.tolist()]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    return Encoder(lambda text: tokenizer.encode(text).ids, _text, "bpe")


def tiktoken(job: Job) -> Encoder:
    """`tiktoken` with our tokens as mergeable ranks, each record one piece."""
    return Encoder(_tiktoken(job).encode_ordinary, _text, "bpe")


def tiktoken_batch(job: Job) -> Encoder:
    """The same, all records in one call."""
    encoding = _tiktoken(job)
    return Encoder(
        lambda texts: encoding.encode_ordinary_batch(texts, num_threads=job.threads), _text, "bpe", is_batch=True
    )


def _tiktoken(job: Job) -> Any:
    import tiktoken as package

    tokens = job.letters()
    ranks = {token.encode("ascii"): index for index, token in enumerate(tokens)}
    if len(ranks) < len(tokens):
        raise CannotDo("two tokens have the same letters, and tiktoken knows tokens by their letters")
    return package.Encoding("ecg_byte", pat_str="[a-z]+", mergeable_ranks=ranks, special_tokens={})


def rustbpe(job: Job) -> Encoder:
    """`rustbpe` with the vocabulary that it learns itself."""
    texts = [_text(record) for record in np.load(job.train)]
    tokenizer = training.rustbpe_trained(texts, len(job.merges))
    tokens = [chr(byte) for byte in range(256)] + training.rustbpe_tokens(tokenizer)
    return Encoder(tokenizer.encode, _text, "bpe", own_tokens=tokens)


def sentencepiece(job: Job) -> Encoder:
    """`sentencepiece` with the vocabulary that it learns itself."""
    texts = [_text(record) for record in np.load(job.train)]
    processor = training.sentencepiece_trained(texts, len(job.merges), job.max_token_length, job.threads)
    tokens = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    return Encoder(processor.encode, _text, "bpe", own_tokens=tokens)


def plain_python(job: Job) -> Encoder:
    """The paper's way: a trie made from Python lists at every call, walked letter by letter."""
    tokens = [list(token) for token in job.letters()]

    def encode(text: str) -> list[int]:
        root: dict[str, Any] = {}
        for index, token in enumerate(tokens):
            node = root
            for letter in token:
                node = node.setdefault(letter, {})
            node[""] = index
        ids = []
        position = 0
        while position < len(text):
            node, end, best = root, position, -1
            for place in range(position, len(text)):
                if text[place] not in node:
                    break
                node = node[text[place]]
                if "" in node:
                    end, best = place + 1, node[""]
            ids.append(best)
            position = end
        return ids

    return Encoder(encode, _text, "greedy")


def make_vocabulary(
    train: str, num_merges: int, max_token_length: int, threads: int, low: float, high: float, output: str
) -> dict[str, int]:
    """Learn the vocabulary and save it: `merges.npy` and the tokenizer's own files."""
    import rust_bpe
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration

    merges = rust_bpe.train(np.load(train), num_merges, max_token_length=max_token_length, num_threads=threads)
    np.save(Path(output) / "merges.npy", merges)
    EcgByteTokenizer(merges=merges, calibration=EcgCalibration("percentile", low, high)).save_pretrained(output)
    return {"merges": len(merges), "longest_token": max(map(len, training.tokens_of(merges)), default=1)}


def encode_records(
    encoder: str,
    vocabulary: str,
    train: str,
    held_out: str,
    signals: str,
    max_token_length: int,
    threads: int,
    seconds: float,
) -> dict[str, Any]:
    """Encode held-out records again and again for at least `seconds`.

    Returns:
        `seconds` and `symbols` encoded in them, memory, `tokens_per_record`, and over how many records
        (`compared`) the ids were `same_ids` as ours.
    """
    job, contestant = _contestant(encoder, vocabulary, train, max_token_length, threads)
    symbols = np.load(held_out)
    items = list(np.load(signals)) if contestant.prepare is None else [contestant.prepare(row) for row in symbols]
    warm_up = items[0][..., :_WARM_UP] if contestant.prepare is None else items[0][:_WARM_UP]
    contestant.encode([warm_up] if contestant.is_batch else warm_up)

    memory, outputs, calls, spent = PeakMemory.start(), [], 0, 0.0
    calls_for_all = 1 if contestant.is_batch else len(items)
    for index in itertools.cycle(range(calls_for_all)):
        item = items if contestant.is_batch else items[index]
        start = time.perf_counter()
        output = contestant.encode(item)
        spent += time.perf_counter() - start
        if calls < calls_for_all:
            outputs += output if contestant.is_batch else [output]
        calls += 1
        if spent >= seconds:
            break
    encoded = calls * (symbols.size if contestant.is_batch else symbols.shape[1])
    return {
        "seconds": spent,
        "symbols": encoded,
        **memory.report(),
        "compared": len(outputs),
        "held_out_records": len(symbols),
        "tokens_per_record": float(np.mean([np.asarray(output).size for output in outputs])),
        "same_ids": _same_ids(job, contestant, outputs, symbols),
    }


def encode_length(
    encoder: str, vocabulary: str, train: str, max_token_length: int, threads: int, length: int, seconds: float
) -> dict[str, Any]:
    """Encode one sequence of `length` symbols, training records one after the other, for at least `seconds`."""
    _, contestant = _contestant(encoder, vocabulary, train, max_token_length, threads)
    if contestant.prepare is None or contestant.is_batch:
        raise CannotDo("takes no single sequence of symbols")
    symbols = np.load(train, mmap_mode="r").reshape(-1)[:length]
    item = contestant.prepare(np.ascontiguousarray(symbols))
    contestant.encode(item[:_WARM_UP])
    memory, calls, spent = PeakMemory.start(), 0, 0.0
    while spent < seconds or not calls:
        start = time.perf_counter()
        contestant.encode(item)
        spent += time.perf_counter() - start
        calls += 1
    return {"seconds": spent / calls, "calls": calls, **memory.report()}


def _contestant(encoder: str, vocabulary: str, train: str, max_token_length: int, threads: int) -> tuple[Job, Encoder]:
    folder = Path(vocabulary)
    job = Job(np.load(folder / "merges.npy"), folder, Path(train), max_token_length, threads)
    return job, globals()[encoder](job)


def _same_ids(job: Job, contestant: Encoder, outputs: list[Any], symbols: np.ndarray) -> bool:
    bpe = _bpe(job)
    encode = bpe.encode_greedy if contestant.algorithm == "greedy" else bpe.encode_bpe
    ours = {letters: index for index, letters in enumerate(job.letters())}
    for output, record in zip(outputs, symbols, strict=False):
        ids = np.asarray(output).reshape(-1).tolist()
        if contestant.own_tokens is not None:
            ids = [ours.get(contestant.own_tokens[index], -1) for index in ids]
        if ids != encode(record).tolist():
            return False
    return True
