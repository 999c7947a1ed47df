"""Which records of a prepared folder are counted, and whether the tokenizer was learnt from them.

A tokenizer saves more symbols on what it was learnt from than on other records, so those are counted by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

if TYPE_CHECKING:
    from ecgbyte_hf.data.prepared import PreparedData

#: All records that no training question refers to; tokenizers are learnt from none of them.
HELD_OUT = "held-out"
#: All records of the folder.
ALL = "all"
#: What `seen_by_tokenizer` may be, in words for a figure.
SEEN = {
    "yes": "the tokenizer was learnt from them",
    "in part": "the tokenizer was learnt from some of them",
    "no": "the tokenizer never saw them",
    "unknown": "whether the tokenizer saw them is not known",
}
_NO_SPLIT = "in no split"


def records_of_split(prepared: PreparedData, split: str = HELD_OUT) -> list[int]:
    """The records, or windows of records, that are to be counted.

    Args:
        prepared: The folder, whole or in windows.
        split: `HELD_OUT`, `ALL`, or the name of a split of the folder's questions.

    Raises:
        EcgDataError: no such split, or no record in it.
    """
    if split == ALL:
        chosen = list(prepared.ecg_ids)
    elif split == HELD_OUT:
        chosen = sorted(set(prepared.ecg_ids) - set(_asked(prepared, "train")))
    elif split in prepared.splits:
        chosen = _asked(prepared, split)
    else:
        raise EcgDataError(
            f"{prepared.folder} has no split {split!r}; it has {', '.join([HELD_OUT, ALL, *prepared.splits])}"
        )
    if not chosen:
        missing = "held-out record" if split == HELD_OUT else f"record in {split}"
        raise EcgDataError(
            f"{prepared.folder} has no {missing}, so there is nothing to count; give another split: "
            f"{', '.join([ALL, *prepared.splits])}"
        )
    return chosen


def splits_seen(prepared: PreparedData, training: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """How many ECGs each split has, and whether the tokenizer was learnt from them.

    Args:
        prepared: The folder, whole or in windows.
        training: What the tokenizer's `training.json` holds, if it has one.

    Returns:
        By split, `"held-out"` and `"all"` too, and `"in no split"` where there are such: `ecgs`, and
        `seen_by_tokenizer`, one of `SEEN`. It is unknown where the tokenizer has no report, or was learnt from data
        with other training questions, which may be about the same recordings.
    """
    members = {split: set(_asked(prepared, split)) for split in prepared.splits}
    everything = set(prepared.ecg_ids)
    train = members.get("train", set())
    alone = everything.difference(*members.values())
    members |= {HELD_OUT: everything - train, ALL: everything, **({_NO_SPLIT: alone} if alone else {})}
    return {
        name: {"ecgs": len(ids), "seen_by_tokenizer": _seen(ids, train, prepared, training)}
        for name, ids in members.items()
    }


def _asked(prepared: PreparedData, split: str) -> list[int]:
    return prepared.ecg_ids_of_split(split) if split in prepared.splits else []


def _seen(ids: set[int], train: set[int], prepared: PreparedData, training: Mapping[str, Any] | None) -> str:
    theirs = data_hash_of(training).get("train")
    if theirs is None or theirs != _mapping(prepared.report, "data_hash").get("train"):
        return "unknown"
    if not ids & train:
        return "no"
    arguments = _mapping(_mapping(training, "provenance"), "arguments")
    is_draw = arguments.get("max_records") is not None or arguments.get("records") is not None
    return "in part" if is_draw or ids - train else "yes"


def data_hash_of(training: Mapping[str, Any] | None) -> dict[str, Any]:
    """The hashes of the splits that a tokenizer's `training.json` names; empty where it names none."""
    return dict(_mapping(_mapping(training, "provenance"), "data_hash"))


def _mapping(content: Any, key: str) -> Mapping[str, Any]:
    """An object within an object of a JSON file; empty where it is absent or something else."""
    found = content.get(key) if isinstance(content, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def told(names: Iterable[str], usage: Mapping[str, Any]) -> list[str]:
    """For each data set its name, what was counted, and whether the tokenizer saw it; for legends and lines."""
    lines = []
    for name in names:
        one = usage["data_sets"][name]
        which = {ALL: "all records", HELD_OUT: "held-out records"}.get(one["split"], f"split {one['split']}")
        lines.append(f"{name}, {which} ({SEEN[one['seen_by_tokenizer']]})")
    return lines
