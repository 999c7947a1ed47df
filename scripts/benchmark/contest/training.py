"""Trainers. Each gets the same records and gives its tokens in the order in which it learnt them, as letters.

The clock runs while merges are learnt: not while records are read or written as letters, nor while the vocabulary is
looked at. Memory is counted from the moment before training, with the records in memory in the trainer's own format.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contest.corpora import FIRST_LETTER, LEADS, NUM_SYMBOLS, DistinctRecords, FreshRecords
from contest.isolation import CannotDo, PeakMemory

#: No vocabulary of sentencepiece has longer tokens: its option may be at most this.
_SENTENCEPIECE_LONGEST = 512


def ours(records: str, num_records: int, num_merges: int, max_token_length: int, threads: int) -> dict[str, Any]:
    """`rust_bpe.train`."""
    import rust_bpe

    symbols = list(np.load(records)[:num_records])
    with _Clock() as clock:
        merges = rust_bpe.train(symbols, num_merges, max_token_length=max_token_length, num_threads=threads)
    return clock.report(tokens_of(merges), merges)


def plain(
    records: str, num_records: int, num_merges: int, max_token_length: int, threads: int, program: str | None
) -> dict[str, Any]:
    """`rust_bpe/examples/train_plain.rs`, built as `program`; one thread."""
    with tempfile.TemporaryDirectory(prefix="ecgbyte-benchmark-") as folder:
        symbols = np.load(records, mmap_mode="r")[:num_records]
        symbols.tofile(Path(folder, "symbols"))
        return run_plain(program, Path(folder, "symbols"), symbols.shape[1], num_merges, max_token_length)


def run_plain(
    program: str | None, symbols: Path, length: int, num_merges: int, max_token_length: int
) -> dict[str, Any]:
    """Run the plain trainer on a file of records of `length` symbols."""
    if program is None:
        raise CannotDo("cargo is not installed (https://rustup.rs), so rust_bpe/examples/train_plain.rs was not built")
    output = symbols.with_suffix(".merges")
    arguments = [symbols, length, NUM_SYMBOLS, num_merges, max_token_length, output]
    finished = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{program} ended with {finished.returncode}: {finished.stderr.strip()}")
    merges = np.loadtxt(output, dtype=np.uint32, ndmin=2).reshape(-1, 2)
    measured = json.loads(finished.stdout)
    kept = {name: measured[name] for name in ("seconds", "baseline_bytes", "peak_bytes")}
    return {**kept, "tokens": tokens_of(merges), "merges": merges.tolist()}


def tokenizers(records: str, num_records: int, num_merges: int, max_token_length: int, threads: int) -> dict[str, Any]:
    """`tokenizers.trainers.BpeTrainer`, each record one word."""
    return _tokenizers(_letters(np.load(records)[:num_records]), num_merges, max_token_length)


def tokenizers_leads(
    records: str, num_records: int, num_merges: int, max_token_length: int, threads: int
) -> dict[str, Any]:
    """The same, each lead a word: an easier job, since its time grows with the square of a word's length."""
    symbols = np.load(records)[:num_records]
    return _tokenizers(_letters(symbols.reshape(num_records * LEADS, -1)), num_merges, max_token_length)


def _tokenizers(texts: list[str], num_merges: int, max_token_length: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, models, trainers

    alphabet = sorted(set().union(*texts))
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + num_merges,
        max_token_length=max_token_length + 1,  # it merges what stays below, we what stays within
        initial_alphabet=alphabet,
        show_progress=False,
    )
    with _Clock() as clock:
        tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    ids = {chr(FIRST_LETTER + symbol): symbol for symbol in range(NUM_SYMBOLS)}
    merges = []
    for left, right in learnt:
        merges.append((ids[left], ids[right]))
        ids.setdefault(left + right, NUM_SYMBOLS + len(merges) - 1)
    return clock.report([left + right for left, right in learnt], merges)


def rustbpe(records: str, num_records: int, num_merges: int, max_token_length: int, threads: int) -> dict[str, Any]:
    """Karpathy's `rustbpe`, each record one word; it knows no longest token."""
    texts = _letters(np.load(records)[:num_records])
    with _Clock() as clock:
        tokenizer = rustbpe_trained(texts, num_merges)
    return clock.report(rustbpe_tokens(tokenizer))


def rustbpe_trained(texts: Sequence[str], num_merges: int) -> Any:
    """A trained `rustbpe.Tokenizer`; its first 256 ids are the bytes."""
    import rustbpe as package

    tokenizer = package.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), 256 + num_merges, pattern="[a-z]+")
    return tokenizer


def rustbpe_tokens(tokenizer: Any) -> list[str]:
    """What it learnt, as letters."""
    return [bytes(token).decode("latin-1") for token, _ in tokenizer.get_mergeable_ranks()[256:]]


def sentencepiece(
    records: str, num_records: int, num_merges: int, max_token_length: int, threads: int
) -> dict[str, Any]:
    """The BPE of `sentencepiece`, each record one sentence, nothing normalised or split."""
    texts = _letters(np.load(records)[:num_records])
    with _Clock() as clock:
        processor = sentencepiece_trained(texts, num_merges, max_token_length, threads)
    return clock.report(sentencepiece_tokens(processor))


def sentencepiece_trained(texts: Sequence[str], num_merges: int, max_token_length: int, threads: int) -> Any:
    """A trained `SentencePieceProcessor`."""
    import io

    import sentencepiece as package

    model = io.BytesIO()
    package.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=1 + len(set().union(*texts)) + num_merges,  # the unknown token cannot be left out
        character_coverage=1.0,
        max_sentence_length=max(map(len, texts)) + 1,
        max_sentencepiece_length=min(max_token_length, _SENTENCEPIECE_LONGEST),
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_whitespace=False,
        split_by_unicode_script=False,
        split_by_number=False,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=threads,
        minloglevel=2,
    )
    return package.SentencePieceProcessor(model_proto=model.getvalue())


def sentencepiece_tokens(processor: Any) -> list[str]:
    """What it learnt, as letters; the unknown token and the symbols are left out."""
    pieces = [processor.id_to_piece(index) for index in range(1, processor.get_piece_size())]
    return [piece for piece in pieces if len(piece) > 1]


def tiktoken(**_: Any) -> dict[str, Any]:
    """No trainer to speak of."""
    raise CannotDo(
        "tiktoken has no trainer but the one in `tiktoken._educational`, which recounts all pairs in Python for every "
        "merge"
    )


def scale(
    pool: dict[str, Any], num_records: int, num_merges: int, max_token_length: int, threads: int
) -> dict[str, Any]:
    """`rust_bpe.train` from an iterator of fresh records, which are never all in memory.

    Returns:
        `generator_seconds` (making records, and the digests that prove them different), `reading_seconds` (until
        the core reports that it begins to merge, the generator's share included), `seconds` (everything but the
        generator), `distinct_records`, memory, and the merges.
    """
    from tqdm import tqdm

    import rust_bpe

    records = DistinctRecords(FreshRecords.load(**pool).take(num_records))
    shown = tqdm(records, total=num_records, desc=f"{num_records} records", unit="record", mininterval=1.0)
    bar: tqdm[Any] | None = None
    began = 0.0

    def progress(done: int, wanted: int) -> None:
        nonlocal bar, began
        if bar is None:
            began = time.perf_counter()
            bar = tqdm(total=wanted, desc="merges", unit="merge", mininterval=1.0)
        bar.update(done - bar.n)

    with _Clock() as clock:
        merges = rust_bpe.train(
            shown, num_merges, max_token_length=max_token_length, num_threads=threads, progress=progress
        )
    if bar is not None:
        bar.close()
    return {
        **clock.report(tokens_of(merges), merges),
        "seconds": clock.seconds - records.seconds,
        "generator_seconds": records.seconds,
        "reading_seconds": began - clock.start,
        "total_seconds": clock.seconds,
        "distinct_records": records.count,
    }


def scale_plain(
    pool: dict[str, Any], num_records: int, num_merges: int, max_token_length: int, threads: int, program: str | None
) -> dict[str, Any]:
    """The plain trainer on the same stream of records, by way of a file."""
    with tempfile.TemporaryDirectory(prefix="ecgbyte-benchmark-") as folder:
        symbols, length = Path(folder, "symbols"), 0
        with symbols.open("wb") as file:
            for record in FreshRecords.load(**pool).take(num_records):
                file.write(record.tobytes())
                length = record.size
        return run_plain(program, symbols, length, num_merges, max_token_length)


def tokens_of(merges: Any) -> list[str]:
    """The letters of each merge's token."""
    tokens = [chr(FIRST_LETTER + symbol) for symbol in range(NUM_SYMBOLS)]
    for left, right in np.asarray(merges).tolist():
        tokens.append(tokens[left] + tokens[right])
    return tokens[NUM_SYMBOLS:]


def _letters(symbols: np.ndarray) -> list[str]:
    return [(record + FIRST_LETTER).tobytes().decode("ascii") for record in symbols]


class _Clock:
    """Seconds and memory of the lines inside `with`."""

    def __enter__(self) -> _Clock:
        self._memory = PeakMemory.start()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start
        self._memory_report = self._memory.report()

    def report(self, tokens: list[str], merges: Any = None) -> dict[str, Any]:
        merges = None if merges is None else np.asarray(merges).tolist()
        return {"seconds": self.seconds, **self._memory_report, "tokens": tokens, "merges": merges}
