"""Which rows a model is trained on, for its log and its card: their data set, its commit on the Hub, a hash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.hub_folder import is_repo_id
from ecgbyte_hf.data.questions import rows_hash
from ecgbyte_hf.data.row_signals import ROWS_REPORT
from ecgbyte_hf.provenance import read_object

# `datasets` 5 keeps what it has read in `USER___NAME/CONFIG/VERSION/COMMIT/`.
_COMMIT = re.compile(r"[0-9a-f]{40}")


def origin_of_rows(data: str | Path, rows: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Which rows these are.

    Args:
        data: Their folder, or the name of a data set on the Hub.
        rows: The splits as `datasets.load_dataset` gave them.

    Returns:
        `data_hash` by split and `data_source`, as `ecgbyte encode` noted them beside the rows; without its report
        `rows_hash` by split, of the rows themselves unless they are streamed. For a data set on the Hub `dataset` and
        `revision`, the commit that was read.
    """
    found: dict[str, Any] = {}
    if Path(data).is_dir():
        report = read_object(Path(data) / ROWS_REPORT)
    elif is_repo_id(str(data)) and rows is not None:
        found = {"dataset": str(data), "revision": _commit(str(data), rows)}
        report = _report_on_the_hub(str(data), found["revision"])
    else:
        return {}
    noted = (report or {}).get("provenance", {})
    found |= {name: noted.get(name) for name in ("data_hash", "data_source")}
    if found["data_hash"] is None:
        seen = {name: split for name, split in (rows or {}).items() if hasattr(split, "num_rows")}
        found["rows_hash"] = {name: rows_hash(split) for name, split in seen.items()} or None
    return found


def _commit(name: str, rows: Mapping[str, Any]) -> str | None:
    """The commit whose files were read, also from the cache; of streamed rows it is not known."""
    for split in rows.values():
        for file in getattr(split, "cache_files", ()):
            place = Path(file["filename"]).parent
            if _COMMIT.fullmatch(place.name) and name.replace("/", "___") in place.parts:
                return place.name
    return None


def _report_on_the_hub(name: str, revision: str | None) -> dict[str, Any] | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return read_object(hf_hub_download(name, ROWS_REPORT, repo_type="dataset", revision=revision))
    except EntryNotFoundError:  # not there, or without a network not in the cache
        return None
