"""What a file outside of tables says about persons, places on a machine and tokens: its name, its text, its header."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from ecgbyte_hf.hub.private_bytes import png_texts
from ecgbyte_hf.hub.private_text import (
    column_problem,
    has_subject,
    has_token,
    is_local_path,
    local_paths,
    names_a_patient,
)

# Vocabularies, whose words look like anything, and programs, where `patient_id = row[0]` is a variable.
_NOT_SAID = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"})
_NOT_SAID_SUFFIXES = (".py", ".jinja", ".model")
_NOT_SAID_TEXTS = frozenset({"vocab.txt", "merges.txt"})
_TOKEN = "holds a token of the Hub or of another service; take it out, and revoke it in the service's settings"
_HEADER_LENGTH = 8
_LONGEST_HEADER = 100_000_000


def name_problems(name: str) -> list[str]:
    """What the name of a file in the repository says; MIMIC-IV's folders are called after patients."""
    if has_subject(name):
        return [f"{_hidden(name)}: its place has MIMIC's patient numbers; give it another name"]
    return []


def text_problems(name: str, text: str) -> list[str]:
    """Patients and their numbers in a text, or in the strings of JSON.

    Args:
        name: In the repository.
        text: Its content.
    """
    path = PurePosixPath(name)
    if path.name in _NOT_SAID | _NOT_SAID_TEXTS or path.suffix in _NOT_SAID_SUFFIXES:
        return []
    problems = []
    texts = list(_strings_of(text)) if path.suffix == ".json" else [text]
    if any(has_subject(one) for one in texts):
        problems.append(f"{name} has paths with MIMIC's patient numbers; take them out")
    if (label := next(filter(None, map(names_a_patient, texts)), None)) is not None:
        problems.append(f"{name} says who a patient is ({label} ...); take it out")
    return problems


def binary_problems(name: str, path: Path) -> list[str]:
    """What the header of weights, a picture or a document says.

    Args:
        name: In the repository.
        path: The file.
    """
    if path.suffix == ".safetensors":
        return _metadata_problems(name, path)
    if path.suffix not in (".png", ".pdf", ".model"):
        return []
    content = path.read_bytes()
    if path.suffix == ".model":
        return [f"{name} {_TOKEN}"] if has_token(content.decode("latin-1")) else []
    problems = []
    if (what := column_problem(pa.array([content], pa.large_binary()))) is not None:
        problems.append(f"{name} {what}; save it without that")
    elif path.suffix == ".png":
        texts = pa.array([text for _, text in png_texts(content)], pa.large_string())
        if (what := column_problem(texts)) is not None:
            problems.append(f"{name}: a text beside the picture {what}; save it without that")
    return problems


def _metadata_problems(name: str, path: Path) -> list[str]:
    """What was noted beside the tensors."""
    noted = _metadata_of(path)
    problems = []
    if any(has_token(text) for text in noted):
        problems.append(f"{name}: its metadata {_TOKEN}")
    if any(is_local_path(text) or local_paths(text, rooted=True) for text in noted):
        problems.append(f"{name}: its metadata holds paths of files on a machine; save it without them")
    if any(has_subject(text) or names_a_patient(text) for text in noted):
        problems.append(f"{name}: its metadata says who a patient is; save it without that")
    return problems


def _metadata_of(path: Path) -> list[str]:
    """Keys and values of a safetensors file's `__metadata__`; whether the file is whole is checked elsewhere."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH), "little")
        if length > _LONGEST_HEADER:
            return []
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return []
    noted = header.get("__metadata__") if isinstance(header, dict) else None
    return [str(one) for pair in noted.items() for one in pair] if isinstance(noted, dict) else []


def _strings_of(text: str) -> Iterator[str]:
    try:
        waiting: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):
        yield text
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield value


def _hidden(name: str) -> str:
    return re.sub(r"\d{4,}", "...", name)
