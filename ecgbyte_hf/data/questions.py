"""The row of a question about one or two ECGs: ECG-QA's schema, which every data set here shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features, List, Value

QUESTION_FEATURES = Features(
    {
        "sample_id": Value("int64"),
        "template_id": Value("int32"),
        "question_id": Value("int32"),
        "question_type": Value("string"),
        "attribute_type": Value("string"),
        "question": Value("string"),
        "answer": List(Value("string")),
        "ecg_id": List(Value("int64")),
        "attribute": List(Value("string")),
        "ecg_path": List(Value("string")),
    }
)


def files_fingerprint(files: Iterable[Path]) -> str:
    """A short hash of names, sizes and times: a changed file changes it, so a stale cache is not read."""
    digest = hashlib.sha256()
    for path in sorted(files):
        stat = path.stat()
        digest.update(json.dumps([str(path), stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]


def rows_hash(rows: Iterable[dict[str, Any]]) -> str:
    """A hash of the rows' content, in their order: the identity of what a model was trained or judged on."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table one after another, a thousand of them as Python objects at a time."""
    for batch in table.to_batches(1000):
        yield from batch.to_pylist()


def ecg_ids_of(table: pa.Table) -> list[list[int]]:
    """The ECGs of each question."""
    ecg_ids: list[list[int]] = table.column("ecg_id").to_pylist()
    return ecg_ids
