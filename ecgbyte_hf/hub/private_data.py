"""What must not go out with a folder: who the patients are, where files lie on this machine, tokens of the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Direct identifiers, as data sets of recordings and the HIPAA rule of 18 name them; without case and underscores.
_IDENTIFYING = frozenset(
    "patientid patient patientname patientnumber patients subjectid subject subjectname subjects name firstname "
    "lastname surname givenname familyname fullname birthdate dateofbirth birthday dob patientbirthdate mrn "
    "medicalrecordnumber hadmid stayid ssn socialsecuritynumber nationalid insurancenumber phone phonenumber "
    "telephone email emailaddress address streetaddress postcode zipcode".split()
)
# In JSON of ours `name` is that of a metric or a class; in a table of records it is the patient's, or a file's.
_NOT_IN_JSON = frozenset({"name", "subject", "patient", "address", "email"})
_REPORT_COLUMN = re.compile(r"report(_lines|_en|_\d+)?", re.IGNORECASE)
#: What MIMIC-IV-ECG's tables have and PTB-XL's have not, and the other way round.
_MIMIC_COLUMNS = frozenset({"rr_interval", "p_onset", "qrs_onset", "t_end", "bandwidth", "filtering", "cart_id"})
_PTB_XL_COLUMNS = frozenset({"scp_codes", "strat_fold"})
# Sources whose answers are the reports, or conversations made of them.
_ANSWERED_BY_REPORTS = ("mimic_iv_ecg", "ecg_chat")
_ANSWER_COLUMNS = frozenset({"answer", "completion", "messages"})
_MIMIC_TEXT = "holds free text of MIMIC's reports (ODbL, or credentialed access)"
# MIMIC-IV's folders: `p` and the patient's number of eight digits, `s` and the study's.
_SUBJECT_PATH = r"(?<!\w)(?:files/)?(?:p\d{4}/)?p\d{8}(?!\w)(?:/s\d+(?:/\d+)?)?"
# An absolute path with at least two parts; not the rest of a URL, of a fraction or of another path.
_LOCAL_PATH = r"(?<![\w:/.<>])(?:file://|~)?/(?:[\w.@+-]+/)+[\w.@+-]+/?|\b[A-Za-z]:\\[^\s\"']+"
_TOKEN = r"\bhf_[A-Za-z0-9]{20,}"
_SUBJECTS, _PATHS, _TOKENS = (re.compile(pattern) for pattern in (_SUBJECT_PATH, _LOCAL_PATH, _TOKEN))
_LEFT_OUT = "(left out)"
# A vocabulary has words that look like anything.
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"})


def has_token(text: str) -> bool:
    """Whether a text holds a token of the Hub."""
    return _TOKENS.search(text) is not None


def local_paths(text: str) -> list[str]:
    """Absolute paths of some machine in a text.

    Example:
        >>> local_paths("trained on /home/ann/ptb-xl, see https://example.org/a/b, 500/100 Hz")
        ['/home/ann/ptb-xl']
    """
    return _PATHS.findall(text)


def shortened(text: str) -> str:
    r"""A text whose absolute paths and MIMIC-IV's patient folders are cut to their last part.

    Example:
        >>> shortened("--data /home/ann/runs/prepared --output rows")
        '--data prepared --output rows'
        >>> shortened("files/p1000/p10000032/s40689238/40689238")
        '40689238'
        >>> shortened("files/p1000/p10000032")
        '(left out)'
    """
    text = _PATHS.sub(lambda found: _last_part(found[0]), text)
    return _SUBJECTS.sub(lambda found: _study(found[0]), text)


def _study(path: str) -> str:
    _, slash, study = path.rpartition("/s")
    return study.rpartition("/")[2] if slash else _LEFT_OUT


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name


def scrubbed_json(path: Path) -> tuple[bytes | None, list[str]]:
    """A JSON file without paths of this machine and lists of patients.

    Args:
        path: The file.

    Returns:
        Its new content, `None` if nothing had to be changed, and what was changed, as lines.

    Raises:
        EcgDataError: not JSON.
    """
    if path.name in _VOCABULARIES:
        return None, []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EcgDataError(f"{path} is not JSON ({error}); delete it or make it anew") from error
    changes: list[str] = []
    clean = _scrubbed(content, "", changes)
    if not changes:
        return None, []
    return (json.dumps(clean, indent=2, ensure_ascii=False) + "\n").encode(), changes


def _scrubbed(value: Any, place: str, changes: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _scrubbed_entry(key, entry, f"{place}.{key}".strip("."), changes) for key, entry in value.items()}
    if isinstance(value, list):
        return [_scrubbed(entry, place, changes) for entry in value]
    # Chat templates are programs, whose slashes are no paths.
    if isinstance(value, str) and not place.endswith("chat_template"):
        clean = shortened(value)
        if clean != value:
            changes.append(f"{place}: a path was cut to {clean!r}")
        return clean
    return value


def _scrubbed_entry(key: str, entry: Any, place: str, changes: list[str]) -> Any:
    plain = _plain(key)
    if plain in _IDENTIFYING and plain not in _NOT_IN_JSON and isinstance(entry, (list, str)) and entry:
        changes.append(f"{place}: patients left out")
        return len(entry) if isinstance(entry, list) else _LEFT_OUT
    return _scrubbed(entry, place, changes)


def table_problems(path: Path, *, shown: str, source: str = "") -> list[str]:
    """Columns of a Parquet file that identify a patient or must not be shared.

    Every text of the file is looked at, a row group at a time.

    Args:
        path: The file.
        shown: Its name in messages.
        source: What the folder's report says the records are from, such as `"mimic_iv_ecg"`.

    Returns:
        A line for each column, with its name and what to do.

    Raises:
        EcgDataError: no Parquet file.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            is_mimic = "mimic" in source or "ecg_chat" in source or len(_MIMIC_COLUMNS & set(names)) > 1
            is_known_open = source.startswith(("ptb_xl", "synthetic")) or set(names) >= _PTB_XL_COLUMNS
            found: dict[str, str] = {}
            for name in names:
                if _identifying_field(file.schema_arrow.field(name)) and not _is_empty(file, name):
                    found[name] = "identifies patients"
                elif name in _ANSWER_COLUMNS and source.startswith(_ANSWERED_BY_REPORTS):
                    found[name] = _MIMIC_TEXT
                elif _REPORT_COLUMN.fullmatch(name) and not _is_empty(file, name):
                    if is_mimic:
                        found[name] = _MIMIC_TEXT
                    elif not is_known_open:
                        found[name] = "holds reports of an unknown source"
            texts = [name for name in names if name not in found and _has_text(file.schema_arrow.field(name).type)]
            for group in range(file.metadata.num_row_groups if texts else 0):
                table = file.read_row_group(group, columns=texts)
                for name in [name for name in texts if name not in found]:
                    if what := _text_problem(table.column(name)):
                        found[name] = what
    except (OSError, pa.ArrowException) as error:
        raise EcgDataError(f"{path} is no Parquet file that can be read: {' '.join(str(error).split())}") from error
    return [
        f"{shown}: the column {name} {what}; leave it out with --drop-columns {name}" for name, what in found.items()
    ]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _identifying_field(field: pa.Field) -> bool:
    """Whether a column, or a field inside of it, is named as an identifier."""
    return _plain(field.name) in _IDENTIFYING or any(
        _identifying_field(field.type.field(index)) for index in range(field.type.num_fields)
    )


def _is_empty(file: pq.ParquetFile, name: str) -> bool:
    """Whether a column holds no value at all, as where somebody has blanked it."""
    groups = range(file.metadata.num_row_groups)
    columns = (file.read_row_group(group, columns=[name]).column(name) for group in groups)
    return all(column.null_count == len(column) for column in columns)


def _has_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _has_text(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text or any(_has_text(kind.field(index).type) for index in range(kind.num_fields))


def _text_problem(column: pa.ChunkedArray) -> str | None:
    for texts in _texts(column.combine_chunks()):
        for pattern, what in (
            (r"\bp\d{8}(/|$)", "holds paths with MIMIC's patient numbers"),
            (r"^(file://|~)?/([^/\s]+/)+[^/\s]+$", "holds paths of files on a machine"),
            (r"^[A-Za-z]:\\", "holds paths of files on a machine"),
            (_TOKEN, "holds a token of the Hub"),
        ):
            if pc.any(pc.match_substring_regex(texts, pattern)).as_py():
                return what
    return None


def _texts(array: pa.Array) -> Iterator[pa.Array]:
    """The texts in an array, in whatever lists and structures they are."""
    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        for chunk in array.chunks:
            yield from _texts(chunk)
    elif pa.types.is_dictionary(kind):
        yield from _texts(array.dictionary)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _texts(array.field(index))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _texts(array.flatten())


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
