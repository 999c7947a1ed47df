"""The row of a question about one or two ECGs: ECG-QA's schema, which every data set here shares."""

from __future__ import annotations

import hashlib
import json
import os
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

#: A further column of data sets with conversations: all turns, with the roles of chat templates.
MESSAGES_FEATURE = List({"role": Value("string"), "content": Value("string")})

#: What the ECG-Byte paper asks about a record whose answer is its report.
REPORT_QUESTION = "Could you please help me explain my ECG?"
#: Template ids of rows that have no template, far from ECG-QA's 1..70 and from the simulator's 1001..1205.
REPORT_TEMPLATES = {"ptb_xl": 2001, "mimic_iv_ecg": 2002}
CONVERSATION_TEMPLATE = 2003


def report_question(data_set: str, ecg_id: int, report: str, path: str) -> dict[str, Any]:
    """The row that asks for a record's report.

    Args:
        data_set: `"ptb_xl"` or `"mimic_iv_ecg"`; decides the template's id.
        ecg_id: The record; the sample's id too, since there is one question about each.
        report: The answer.
        path: The record's file below the data set's folder, without extension.

    Example:
        >>> row = report_question("ptb_xl", 1, "sinus rhythm", "records500/00000/00001_hr")
        >>> row["question_type"], row["answer"], row["ecg_id"], row["template_id"]
        ('report', ['sinus rhythm'], [1], 2001)
    """
    return {
        "sample_id": ecg_id,
        "template_id": REPORT_TEMPLATES[data_set],
        "question_id": REPORT_TEMPLATES[data_set],
        "question_type": "report",
        "attribute_type": "report",
        "question": REPORT_QUESTION,
        "answer": [report],
        "ecg_id": [ecg_id],
        "attribute": None,
        "ecg_path": [path],
    }


def add_text_columns(rows: Any) -> Any:
    """Question rows with `answer_text` and `ecg_id_text`: the lists as plain text, for people who look at them.

    The Hub's viewer searches and counts columns of text; of lists it counts the lengths. The rows keep their lists,
    which are what scoring reads.

    Args:
        rows: A `Dataset`, a `DatasetDict`, or one of those that stream.

    Example:
        >>> from datasets import Dataset
        >>> add_text_columns(Dataset.from_list([{"answer": ["i", "v2"], "ecg_id": [4, 9]}]))[0]["answer_text"]
        'i, v2'
    """
    return rows.map(_text_columns)


def _text_columns(row: dict[str, Any]) -> dict[str, str]:
    return {"answer_text": ", ".join(row["answer"]), "ecg_id_text": ", ".join(str(one) for one in row["ecg_id"])}


def files_fingerprint(files: Iterable[str | Path]) -> str:
    """A short hash of names, sizes and times: a changed file changes it, so a stale cache is not read.

    A file that is not there counts as such, so that it is seen when it comes.
    """
    digest = hashlib.sha256()
    for path in sorted(os.fspath(path) for path in files):
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            digest.update(json.dumps([path]).encode())
        else:
            digest.update(json.dumps([path, stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]


def rows_hash(rows: Iterable[dict[str, Any]]) -> str:
    """A hash of the rows' content, in their order: the identity of what a model was trained or judged on."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def question_table(rows: Iterable[dict[str, Any]] | pa.Table) -> pa.Table:
    """Rows as a table with the columns of `QUESTION_FEATURES`, and `messages` where they are of conversations.

    Other columns are left out, what is missing is null.
    """
    if isinstance(rows, pa.Table):
        schema = _question_schema("messages" in rows.column_names)
        return rows.select(schema.names).cast(schema)
    listed = list(rows)
    schema = _question_schema(any(row.get("messages") is not None for row in listed))
    return pa.table({name: [row.get(name) for row in listed] for name in schema.names}, schema=schema)


def _question_schema(has_messages: bool) -> pa.Schema:
    return Features({**QUESTION_FEATURES, **({"messages": MESSAGES_FEATURE} if has_messages else {})}).arrow_schema


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table one after another, a thousand of them as Python objects at a time."""
    for batch in table.to_batches(1000):
        yield from batch.to_pylist()


def ecg_ids_of(table: pa.Table) -> list[list[int]]:
    """The ECGs of each question."""
    ecg_ids: list[list[int]] = table.column("ecg_id").to_pylist()
    return ecg_ids
