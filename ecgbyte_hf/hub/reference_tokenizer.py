"""Converts the tokenizers that the paper's code wrote.

Such a file is the pickle of `(vocab, merges)`. `vocab` maps 256 + n ids to texts: 0..255 are the bytes, of which only
97..122, the letters a to z, ever occur; 256 + r is the text of merge r. `merges` is a list of `(parts, id)` in the
order in which they were learnt, in one of two forms:

- bytes: `parts` are all letters of the token, as byte values (older code, and every released file);
- pair: `parts` are the two ids that were merged (newer code).

The form "bytes" does not say which two tokens were merged, and several splits give the same letters. The pair is found
by encoding the letters in rank order with the earlier merges, which is how the training corpus was divided when the
merge was learnt; that ends in exactly two parts, or the file is no such tokenizer and is refused.

The paper's code encodes by longest match over the texts. `EcgByteTokenizer` does too, over the same texts (no two
tokens have the same), so the ids are equal after the fixed formula 97 + k, 256 + r.

The order of `vocab`'s keys is that of a hash table, and the paper's language model adds its tokens `signal_ID` in that
order. It is kept for the conversion of checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.hub.reference_percentiles import read_percentiles
from ecgbyte_hf.hub.restricted_pickle import read_content, read_plain_pickle
from ecgbyte_hf.hub.whole_folder import new_folder, whole_folder
from ecgbyte_hf.models.calibration_ecg_byte import EcgCalibration
from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, VocabularyError
from ecgbyte_hf.models.leads_ecg_byte import REFERENCE_LEADS
from ecgbyte_hf.models.vocabulary_ecg_byte import ALPHABET
from ecgbyte_hf.provenance import provenance, write_json

# How the archives that torch.save writes begin.
_ARCHIVE = b"PK\x03\x04"
#: Of a file; the released one with 6,000 merges has 0.5 MB.
LARGEST_FILE = 16 << 20
#: Letters of a token, and of all tokens together: shared values could else stand for more than memory holds.
LONGEST_TOKEN = 1 << 16
MOST_LETTERS = 1 << 26
CONVERSION_FILE = "conversion.json"
NUM_BYTES = 256
_FIRST_LETTER = ord("a")


@dataclass(frozen=True)
class ReferenceVocabulary:
    """What a tokenizer file of the paper's code holds.

    Attributes:
        merges: uint32 (merges, 2), the pairs in our ids (symbols 0..25, then merges).
        id_order: The reference's ids in the order of its dictionary, the dead ones among them.
        merge_form: `"bytes"` or `"pair"`.
        longest_token: In letters.
        source: Name of the file.
        sha256: Of the file.
    """

    merges: np.ndarray
    id_order: tuple[int, ...]
    merge_form: str
    longest_token: int
    source: str
    sha256: str


def read_reference_vocabulary(path: str | Path) -> ReferenceVocabulary:
    """Read a tokenizer file of the paper's code, and check all of it.

    Args:
        path: The `.pkl`.

    Raises:
        EcgFileError: no pickle of plain data, damaged, too large, or one that asks for more.
        VocabularyError: other data than a vocabulary and its merges, or the two do not agree.
    """
    where = str(path)
    content = read_content(path, LARGEST_FILE)
    if content.startswith(_ARCHIVE):
        raise EcgFileError(f"{where}: an archive and no pickle; give a checkpoint to `ecgbyte convert checkpoint`")
    vocabulary, parts = _checked_parts(read_plain_pickle(content, where), where)
    tokens = [vocabulary[NUM_BYTES + rank] for rank in range(len(parts))]
    form = _merge_form(parts, where)
    pairs = _given_pairs(parts, tokens, where) if form == "pair" else _recovered_pairs(parts, tokens, where)
    return ReferenceVocabulary(
        merges=np.array(pairs, dtype=np.uint32).reshape(-1, 2),
        id_order=tuple(vocabulary),
        merge_form=form,
        longest_token=max(map(len, tokens), default=1),
        source=Path(path).name,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def make_processor(
    vocabulary: ReferenceVocabulary,
    *,
    calibration: EcgCalibration | None = None,
    sampling_rate: float = 250,
    leads: Sequence[str] = REFERENCE_LEADS,
    profile: str = "reference",
) -> Any:
    """The `EcgByteProcessor` of a vocabulary.

    Args:
        vocabulary: What `read_reference_vocabulary` returned.
        calibration: The interval that the symbols divide; by default every record's own minimum and maximum, with
            which the released tokenizers were made.
        sampling_rate: Hz of the signals that it was trained on.
        leads: Their order. The paper's code puts the leads of MIMIC-IV-ECG in the default order, and leaves those of
            PTB-XL as they are in the file: I, II, III, aVR, aVL, aVF, V1 to V6.
        profile: How they were cleaned, by name.
    """
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

    extractor = EcgByteFeatureExtractor(profile=profile, sampling_rate=sampling_rate, leads=leads)
    tokenizer = EcgByteTokenizer(
        merges=vocabulary.merges,
        calibration=calibration or EcgCalibration.minmax(),
        sampling_rate=extractor.sampling_rate,
        leads=extractor.leads,
        feature_extractor=extractor,
    )
    return EcgByteProcessor(extractor, tokenizer)


def convert_tokenizer(
    path: str | Path,
    output_dir: str | Path,
    *,
    percentiles: str | Path | None = None,
    sampling_rate: float = 250,
    leads: Sequence[str] = REFERENCE_LEADS,
    profile: str = "reference",
) -> dict[str, Any]:
    """Write the folder of an ECG-Byte tokenizer from a file of the paper's code.

    Args:
        path: The `.pkl`.
        output_dir: A new folder.
        percentiles: The `.npy` with the percentiles that the tokenizer was trained with.
        sampling_rate: As of `make_processor`.
        leads: As of `make_processor`.
        profile: As of `make_processor`.

    Returns:
        What `conversion.json` in the folder says: the source's hash, the form of its merges, counts.

    Raises:
        EcgFileError, VocabularyError, CalibrationError: see `read_reference_vocabulary` and `read_percentiles`.
        EcgError: the folder is there, or leads, rate or profile cannot be.
    """
    output_dir = new_folder(output_dir)
    vocabulary = read_reference_vocabulary(path)
    calibration = read_percentiles(percentiles) if percentiles is not None else None
    processor = make_processor(
        vocabulary, calibration=calibration, sampling_rate=sampling_rate, leads=leads, profile=profile
    )
    used = processor.tokenizer.calibration
    report = {
        **source_report(vocabulary),
        "calibration": {"method": used.method, "low": used.low, "high": used.high},
        "percentiles": Path(percentiles).name if percentiles is not None else None,
        "provenance": provenance(
            "convert tokenizer",
            {"sampling_rate": sampling_rate, "leads": list(leads), "profile": profile},
        ),
    }
    with whole_folder(output_dir) as partial:
        processor.save_pretrained(partial)
        write_json(partial / CONVERSION_FILE, report)
    return report


def source_report(vocabulary: ReferenceVocabulary) -> dict[str, Any]:
    """Where a vocabulary came from, and what it holds."""
    return {
        "source": vocabulary.source,
        "sha256": vocabulary.sha256,
        "merge_form": vocabulary.merge_form,
        "merges": len(vocabulary.merges),
        "reference_ids": len(vocabulary.id_order),
        "dead_ids": NUM_BYTES - len(ALPHABET),
        "longest_token": vocabulary.longest_token,
    }


# ---- the file ----------------------------------------------------------------------------------------------------


def _checked_parts(data: Any, where: str) -> tuple[dict[int, str], list[list[int]]]:
    """The vocabulary, and the parts of each merge, once their types, ids and sizes are right."""
    if type(data) is not tuple or len(data) != 2 or type(data[0]) is not dict or type(data[1]) is not list:
        raise VocabularyError(
            f"{where}: got {_type_names(data)}, expected the pair (vocabulary dictionary, list of merges) that the "
            "paper's code writes"
        )
    vocabulary, merges = data
    if len(vocabulary) != NUM_BYTES + len(merges):
        raise VocabularyError(
            f"{where}: {len(vocabulary)} ids and {len(merges)} merges, expected {NUM_BYTES} ids more than merges"
        )
    for key, text in vocabulary.items():
        if type(key) is not int or type(text) is not str:
            raise VocabularyError(
                f"{where}: the vocabulary maps a {type(key).__name__} to a {type(text).__name__}, expected a number "
                "to a text"
            )
        if not 0 <= key < len(vocabulary):
            raise VocabularyError(f"{where}: the id {key} is out of range, expected 0 to {len(vocabulary) - 1}")
    _check_texts(vocabulary, where)
    return vocabulary, [_checked_merge(merge, rank, where) for rank, merge in enumerate(merges)]


def _check_texts(vocabulary: dict[int, str], where: str) -> None:
    for index, letter in enumerate(ALPHABET, start=_FIRST_LETTER):
        if vocabulary[index] != letter:
            raise VocabularyError(f"{where}: the id {index} is {vocabulary[index][:20]!a}, expected {letter!r}")
    seen: dict[str, int] = {}
    num_letters = 0
    for index in range(NUM_BYTES, len(vocabulary)):
        text = vocabulary[index]
        num_letters += len(text)
        if not 2 <= len(text) <= LONGEST_TOKEN or num_letters > MOST_LETTERS:
            raise VocabularyError(
                f"{where}: the token {index} has {len(text)} letters, all before it {num_letters}; expected 2 to "
                f"{LONGEST_TOKEN}, and at most {MOST_LETTERS} in all"
            )
        if text.strip(ALPHABET):
            raise VocabularyError(f"{where}: the token {index} is {text[:20]!a}, expected letters a to z")
        if text in seen:
            raise VocabularyError(f"{where}: the tokens {seen[text]} and {index} have the same letters")
        seen[text] = index


def _checked_merge(merge: Any, rank: int, where: str) -> list[int]:
    if type(merge) is not tuple or len(merge) != 2 or type(merge[0]) not in (list, tuple):
        raise VocabularyError(f"{where}: merge {rank} is {_type_names(merge)}, expected (list of numbers, id)")
    parts, new_id = merge
    if type(new_id) is not int or new_id != NUM_BYTES + rank:
        got = new_id if type(new_id) is int else type(new_id).__name__
        raise VocabularyError(f"{where}: merge {rank} makes the id {got}, expected {NUM_BYTES + rank}")
    if not 2 <= len(parts) <= LONGEST_TOKEN:
        raise VocabularyError(f"{where}: merge {rank} has {len(parts)} parts, expected 2 to {LONGEST_TOKEN}")
    if any(type(part) is not int for part in parts):
        raise VocabularyError(f"{where}: merge {rank} has a part that is no number")
    return list(parts)


def _merge_form(parts: list[list[int]], where: str) -> str:
    """Whether merges are bytes or pairs. Where all are of two letters, both mean the same."""
    has_ids = any(part >= NUM_BYTES for merge in parts for part in merge)
    long = next((rank for rank, merge in enumerate(parts) if len(merge) > 2), None)
    if has_ids and long is not None:
        raise VocabularyError(
            f"{where}: merge {long} has {len(parts[long])} parts, and others have ids from {NUM_BYTES}; expected "
            "either all letters of each token or the two ids that were merged"
        )
    return "pair" if has_ids else "bytes"


def _given_pairs(parts: list[list[int]], tokens: list[str], where: str) -> list[tuple[int, int]]:
    """The pairs in our ids, of merges that name them."""
    pairs = []
    for rank, (left, right) in enumerate(parts):
        ids = [_compact(part, rank, where) for part in (left, right)]
        letters = "".join(ALPHABET[i] if i < len(ALPHABET) else tokens[i - len(ALPHABET)] for i in ids)
        if letters != tokens[rank]:
            raise VocabularyError(
                f"{where}: merge {rank} joins {left} and {right}, which is not the token {tokens[rank][:40]!r}"
            )
        pairs.append((ids[0], ids[1]))
    return pairs


def _compact(part: int, rank: int, where: str) -> int:
    """Our id of one of the reference's, which a merge of this rank may use."""
    if _FIRST_LETTER <= part < _FIRST_LETTER + len(ALPHABET):
        return part - _FIRST_LETTER
    if NUM_BYTES <= part < NUM_BYTES + rank:
        return part - NUM_BYTES + len(ALPHABET)
    raise VocabularyError(
        f"{where}: merge {rank} uses the id {part}, expected {_FIRST_LETTER} to "
        f"{_FIRST_LETTER + len(ALPHABET) - 1}, or an earlier merge from {NUM_BYTES}"
    )


def _recovered_pairs(parts: list[list[int]], tokens: list[str], where: str) -> list[tuple[int, int]]:
    """The pairs in our ids, of merges that only say all their letters."""
    for rank, (merge, token) in enumerate(zip(parts, tokens, strict=True)):
        if not all(0 <= part < NUM_BYTES for part in merge) or bytes(merge) != token.encode("ascii"):
            raise VocabularyError(f"{where}: merge {rank} has other letters than its token {token[:40]!r}")
    pairs: list[tuple[int, int]] = []
    ids: dict[tuple[int, int], int] = {}
    for rank, token in enumerate(tokens):
        found = _merge_ranked([ord(letter) - _FIRST_LETTER for letter in token], ids)
        if len(found) != 2:
            raise VocabularyError(
                f"{where}: merge {rank}, the token {token[:40]!r}, is {len(found)} tokens of the merges before it, "
                "expected 2; the merges are not those of a byte-pair training"
            )
        pairs.append((found[0], found[1]))
        ids[pairs[-1]] = len(ALPHABET) + rank
    return pairs


def _merge_ranked(parts: list[int], ids: dict[tuple[int, int], int]) -> list[int]:
    """Join pairs, the earliest merge first, each from left to right, until none is left.

    Not by the Rust core: that would have to be built anew for every merge.
    """
    following = list(range(1, len(parts) + 1))
    before = list(range(-1, len(parts) - 1))
    # A merge only makes pairs of a later one, so the smallest (id, place) is always the next.
    waiting = [(ids[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ids]
    heapify(waiting)
    while waiting:
        new_id, place = heappop(waiting)
        right = following[place]
        if parts[place] < 0 or right >= len(parts) or ids.get((parts[place], parts[right])) != new_id:
            continue  # one of the two was joined with another meanwhile
        parts[place], parts[right] = new_id, -1
        following[place] = following[right]
        if following[place] < len(parts):
            before[following[place]] = place
        for left in (before[place], place):
            if left >= 0 and following[left] < len(parts):
                pair = (parts[left], parts[following[left]])
                if pair in ids:
                    heappush(waiting, (ids[pair], left))
    return [part for part in parts if part >= 0]


def _type_names(data: Any) -> str:
    """What a value is, without its content: that may stand for more than memory holds."""
    if type(data) is not tuple:
        return f"a {type(data).__name__}"
    return f"({', '.join(type(item).__name__ for item in data[:4])}{', ...' if len(data) > 4 else ''})"
