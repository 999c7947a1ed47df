"""What must not go out with a folder: who the patients are, where files lie on this machine, tokens of the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.hub.identifying_names import (
    identifies,
    identifies_in_json,
    is_date,
    is_identifying_entry,
    words_of,
)
from ecgbyte_hf.hub.private_text import (
    LEFT_OUT,
    column_problem,
    has_content,
    has_token,
    is_local_path,
    local_paths,
    shortened,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

_REPORT_COLUMN = re.compile(r"report(_lines|_en|_\d+)?", re.IGNORECASE)
#: What MIMIC-IV-ECG's tables have and PTB-XL's have not, and the other way round.
_MIMIC_COLUMNS = frozenset({"rr_interval", "p_onset", "qrs_onset", "t_end", "bandwidth", "filtering", "cart_id"})
_PTB_XL_COLUMNS = frozenset({"scp_codes", "strat_fold"})
# Sources whose answers are the reports, or conversations made of them.
_ANSWERED_BY_REPORTS = ("mimic_iv_ecg", "ecg_chat")
_ANSWER_COLUMNS = frozenset({"answer", "completion", "messages", "prompt", "options"})
# The same as token ids.
_ID_COLUMNS = frozenset({"input_ids", "labels", "token_ids"})
_MIMIC_TEXT = "holds free text of MIMIC's reports (ODbL, or credentialed access)"
# Looked through at a time: rows may hold whole files.
_ROWS = 1000
# A vocabulary has words that look like anything.
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"})
# What stands beside a person's name.
_OF_A_PERSON = frozenset({"age", "sex", "gender"})
# What a model or a tokenizer computes by: with another text or another label it were another one.
_COMPUTED_BY = frozenset(
    "config.json generation_config.json adapter_config.json tokenizer_config.json ecg_byte.json ecg_prompt.json "
    "processor_config.json preprocessor_config.json image_processor_config.json video_preprocessor_config.json".split()
)
# Of these, what says where something was loaded from, and is computed by nowhere.
_LOADED_FROM = frozenset(
    "_name_or_path name_or_path base_model_name_or_path tokenizer_file vocab_file merges_file special_tokens_map_file "
    "cache_dir".split()
)


def scrubbed_json(path: Path) -> tuple[bytes | None, list[str]]:
    """A JSON file without paths of this machine and lists of patients.

    Of the files that a model computes by, only what says where it was loaded from is cut.

    Args:
        path: The file.

    Returns:
        Its new content, `None` if nothing had to be changed, and what was changed, as lines.

    Raises:
        EcgDataError: not JSON, a list of records with identifiers, or a path in what a model computes by.
    """
    if path.name in _VOCABULARIES:
        return None, []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EcgDataError(f"{path} is not JSON ({error}); delete it or make it anew") from error
    if (key := _key_of_records(content)) is not None:
        raise EcgDataError(f"{path.name} holds a list of objects with {key!r}, which identifies patients; take it out")
    changes: list[str] = []
    if path.name in _COMPUTED_BY:
        clean = _loaded_from_cut(content, "", changes)
        if (place := _place_of_a_path(clean)) is not None:
            raise EcgDataError(
                f"{path.name}: {place} has a path of a machine, which is not cut in it; change it there"
            )
    else:
        clean = _scrubbed(content, "", changes)
    if not changes:
        return None, []
    return (json.dumps(clean, indent=2, ensure_ascii=False) + "\n").encode(), changes


def _loaded_from_cut(value: Any, place: str, changes: list[str]) -> Any:
    """The content of a configuration whose notes of where it was loaded from are cut, and nothing else is."""
    if isinstance(value, list):
        return [_loaded_from_cut(entry, place, changes) for entry in value]
    if not isinstance(value, dict):
        return value
    clean = {}
    for key, entry in value.items():
        where = f"{place}.{key}".strip(".")
        is_place = key in _LOADED_FROM and isinstance(entry, str)
        clean[key] = _scrubbed(entry, where, changes) if is_place else _loaded_from_cut(entry, where, changes)
    return clean


def _place_of_a_path(content: Any) -> str | None:
    """Where a configuration names a path of a machine; in a template or a label, other slashes are none."""
    waiting: list[tuple[Any, str]] = [(content, "")]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, dict):
            for key, entry in value.items():
                if is_local_path(key):
                    return f"a key of {place or 'the file'}"
                waiting.append((entry, f"{place}.{key}".strip(".")))
        elif isinstance(value, list):
            waiting += [(entry, place) for entry in value]
        elif isinstance(value, str) and is_local_path(value):
            return place or "the file"
    return None


def _scrubbed(value: Any, place: str, changes: list[str]) -> Any:
    if isinstance(value, dict):
        return _scrubbed_object(value, place, changes)
    if isinstance(value, list):
        return [_scrubbed(entry, place, changes) for entry in value]
    # Chat templates are programs, whose slashes are no paths.
    if isinstance(value, str) and not place.endswith("chat_template"):
        clean = shortened(value)
        if clean != value:
            changes.append(f"{place}: a path was cut to {clean!r}")
        return clean
    return value


def _scrubbed_object(value: dict[str, Any], place: str, changes: list[str]) -> dict[str, Any]:
    clean = {}
    for key, entry in value.items():
        short = key if place.endswith("auto_map") else shortened(key)
        if short != key:
            changes.append(f"{place or 'the file'}: a path was cut to {short!r}")
        while short in clean:  # two files of one name
            short += "_"
        clean[short] = _scrubbed_entry(key, entry, f"{place}.{short}".strip("."), changes)
    return clean


def _scrubbed_entry(key: str, entry: Any, place: str, changes: list[str]) -> Any:
    if not is_identifying_entry(key, entry):
        return _scrubbed(entry, place, changes)
    changes.append(f"{place}: patients left out")
    return len(entry) if isinstance(entry, (list, dict)) else LEFT_OUT


def _key_of_records(content: Any) -> str | None:
    """An identifying key of an object in a list, which is a table of patients whatever the file is called."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            for entry in value:
                for key in entry if isinstance(entry, dict) else ():
                    if identifies_in_json(key):
                        return str(key)
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
    return None


def has_mimic_columns(path: Path) -> bool:
    """Whether a Parquet file has the measurements that MIMIC-IV-ECG's tables have and no others.

    Raises:
        EcgDataError: no Parquet file.
    """
    try:
        return len(_MIMIC_COLUMNS & set(pq.read_schema(path).names)) > 1
    except (OSError, pa.ArrowException) as error:
        raise EcgDataError(f"{path} is no Parquet file that can be read: {' '.join(str(error).split())}") from error


def table_notes(path: Path, *, shown: str) -> list[str]:
    """Columns with dates or times that are named as such: shifted ones are no problem, true ones may be."""
    return [
        f"{shown}: the column {name} has dates or times; see that they are not those of a patient"
        for name in pq.read_schema(path).names
        if is_date(name) and not identifies(name)
    ]


def table_problems(path: Path, *, shown: str, source: str = "", holds_raw_ids: bool = False) -> list[str]:
    """Columns of a Parquet file that identify a patient or must not be shared.

    Every text and every byte string of the file is looked at, some rows at a time.

    Args:
        path: The file.
        shown: Its name in messages.
        source: What the folder's report says the records are from, such as `"mimic_iv_ecg"`.
        holds_raw_ids: Token ids are those of ECGs alone, without questions and answers.

    Returns:
        A line for each column, with its name and what to do.

    Raises:
        EcgDataError: no Parquet file.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            is_mimic = "mimic" in source or "ecg_chat" in source or len(_MIMIC_COLUMNS & set(names)) > 1
            if set(names) <= {"ecg_id", "input_ids"}:  # what `encode` writes of records
                holds_raw_ids = True
            answers = _ANSWER_COLUMNS if holds_raw_ids else _ANSWER_COLUMNS | _ID_COLUMNS
            is_known_open = source.startswith(("ptb_xl", "synthetic")) or set(names) >= _PTB_XL_COLUMNS
            found: dict[str, str] = {}
            for name in names:
                if _holds_identifiers(file, name):
                    found[name] = "identifies patients"
                elif name in answers and source.startswith(_ANSWERED_BY_REPORTS):
                    found[name] = _MIMIC_TEXT
                elif _REPORT_COLUMN.fullmatch(name) and not _is_empty(file, name):
                    if is_mimic:
                        found[name] = _MIMIC_TEXT
                    elif not is_known_open:
                        found[name] = "holds reports of an unknown source"
            open_to_see = [one for one in names if one not in found and has_content(file.schema_arrow.field(one).type)]
            for batch in file.iter_batches(_ROWS, columns=open_to_see) if open_to_see else ():
                for name in [name for name in open_to_see if name not in found]:
                    if what := column_problem(batch.column(name)):
                        found[name] = what
    except (OSError, pa.ArrowException) as error:
        raise EcgDataError(f"{path} is no Parquet file that can be read: {' '.join(str(error).split())}") from error
    return [*_metadata_problems(path, shown)] + [
        f"{shown}: the column {name} {what}; leave it out with --drop-columns {name}" for name, what in found.items()
    ]


def _metadata_problems(path: Path, shown: str) -> list[str]:
    """What was noted beside the columns."""
    noted = pq.read_schema(path).metadata or {}
    text = b"\n".join(name + b" " + value for name, value in noted.items()).decode("utf-8", "replace")
    found = []
    if has_token(text):
        found.append("a token of the Hub or of another service")
    if local_paths(text, rooted=True):
        found.append("paths of files on a machine")
    return [f"{shown}: the file's metadata holds {what}; write the file without it" for what in found]


def _holds_identifiers(file: pq.ParquetFile, name: str) -> bool:
    """Whether a column, or a field inside of it, is named as an identifier and has values."""
    if identifies(name):
        return not _is_empty(file, name)
    if not _identifying_field(file.schema_arrow.field(name).type):
        return False
    groups = range(file.metadata.num_row_groups)
    columns = (file.read_row_group(group, columns=[name]).column(name) for group in groups)
    return any(_has_identifiers(chunk) for column in columns for chunk in column.chunks)


def _identifying_field(kind: pa.DataType) -> bool:
    fields = [kind.field(index) for index in range(kind.num_fields)]
    names = {field.name for field in fields}
    return any(_identifies_inside(field.name, names) or _identifying_field(field.type) for field in fields)


def _has_identifiers(array: pa.Array) -> bool:
    """The same of the values; what somebody has blanked says nothing."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _has_identifiers(array.storage)
    if pa.types.is_dictionary(kind):
        return _has_identifiers(array.dictionary)
    if pa.types.is_map(kind):
        return _has_identifiers(array.keys) or _has_identifiers(array.items)
    if not pa.types.is_struct(kind):
        return kind.num_fields > 0 and _has_identifiers(array.flatten())  # every kind of list
    names = {kind.field(index).name for index in range(kind.num_fields)}
    return any(
        (_identifies_inside(kind.field(index).name, names) and column.null_count < len(column))
        or _has_identifiers(column)
        for index, column in enumerate(array.flatten())
    )


def _identifies_inside(name: str, beside: set[str]) -> bool:
    """A message has a `name` too, which is a tool's; beside an age or a sex it is a person's."""
    if name.lower() == "name":
        return any(_OF_A_PERSON & set(words_of(one)) or (one != name and identifies(one)) for one in beside)
    return identifies(name)


def _is_empty(file: pq.ParquetFile, name: str) -> bool:
    """Whether a column holds no value at all, as where somebody has blanked it."""
    groups = range(file.metadata.num_row_groups)
    columns = (file.read_row_group(group, columns=[name]).column(name) for group in groups)
    return all(column.null_count == len(column) for column in columns)


def without_columns(path: Path, dropped: Iterable[str], output: Path, *, keep_names: bool) -> Path:
    """A copy of a Parquet file without some columns' values, written a row group at a time.

    Args:
        path: The file.
        dropped: Columns; those that it does not have are passed over.
        output: The copy.
        keep_names: Leave the columns there, with no value in them, for readers that look for them.
    """
    unwanted = set(dropped)
    with pq.ParquetFile(path) as file:
        kept = [name for name in file.schema_arrow.names if name not in unwanted]
        schema = file.schema_arrow if keep_names else pa.schema([file.schema_arrow.field(name) for name in kept])
        if not keep_names:
            schema = schema.with_metadata(_metadata_without(file.schema_arrow.metadata, unwanted))
        with pq.ParquetWriter(output, schema, compression="zstd") as writer:
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns=kept)
                columns = [
                    table.column(field.name) if field.name in kept else pa.nulls(len(table), field.type)
                    for field in schema
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return output


def _metadata_without(metadata: dict[bytes, bytes] | None, dropped: set[str]) -> dict[bytes, bytes] | None:
    """What `datasets` notes of a table: it refuses a file that lacks a column that is described there."""
    if not metadata or b"huggingface" not in metadata:
        return None
    noted = json.loads(metadata[b"huggingface"])
    features = noted.get("info", {}).get("features", {})
    for name in dropped & set(features):
        del features[name]
    return {b"huggingface": json.dumps(noted).encode()}
