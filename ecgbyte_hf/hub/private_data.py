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
# The same as words of longer names; `patients_name` is two of them.
_IDENTIFYING_WORDS = frozenset(
    "mrn birth birthday dob ssn zip postal postcode fax ip phone telephone email address account surname hadm pid nom "
    "physician doctor serial pat passport insurance".split()
)
_OF_A_NAME = frozenset("first last middle given family full maiden mother father".split())
# What may be said of a patient: `patient_age`, `num_patients`.
_HARMLESS_OF_PATIENTS = frozenset("age sex gender height weight num count".split())
_WHEN = frozenset("date time datetime timestamp".split())
_WHEN_IT_WAS = frozenset("recording acquisition admission discharge death".split())
# In JSON of ours `name` is that of a metric or a class; in a table of records it is the patient's, or a file's.
_NOT_IN_JSON = frozenset({"name", "subject", "patient", "address", "email"})
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
# MIMIC-IV's folders: `p` and the patient's number of eight digits, `s` and the study's.
_SUBJECT_PATH = r"(?<!\w)(?:files/)?(?:p\d{4}/)?p\d{8}(?!\w)(?:/s\d+(?:/\d+)?)?"
# An absolute path with at least two parts; not the rest of a URL, of a fraction or of another path.
_ELSEWHERE = r"\b[A-Za-z]:(?:\\|/[^\s/\"'])[^\s\"']*|\\\\[\w.-]+\\[^\s\"']+"
_LOCAL_PATH = rf"(?<![\w:/.<>])(?:file://|~)?/(?:[\w.@+-]+/)+[\w.@+-]+/?|{_ELSEWHERE}"
# Below a folder that a system has: looked for where much else has slashes. Up to the end with its spaces.
_ROOTS = "(?:home|Users|root|mnt|media|scratch|tmp|Volumes|data|var)"
_ROOTED_PATH = rf"(?:^|[^\w:/.<>])(?:file://)?/{_ROOTS}/[\w.@+-]+(?:/[\w.@+-]+)+|{_ELSEWHERE}"
_WHOLE_PATH = rf"(?:file://)?/{_ROOTS}/[^/\n:]+(?:/[^/\n:]+)+|[A-Za-z]:[\\/][^\n:/\\][^\n:]*"
_TOKEN = r"\bhf_[A-Za-z0-9]{20,}"
_SUBJECTS, _PATHS, _TOKENS = (re.compile(pattern) for pattern in (_SUBJECT_PATH, _LOCAL_PATH, _TOKEN))
_LEFT_OUT = "(left out)"
# A vocabulary has words that look like anything.
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"})


def has_token(text: str) -> bool:
    """Whether a text holds a token of the Hub."""
    return _TOKENS.search(text) is not None


def local_paths(text: str, *, rooted: bool = False) -> list[str]:
    """Absolute paths of some machine in a text; with `rooted` only those below folders that systems have.

    Example:
        >>> local_paths("trained on /home/ann/ptb-xl, see https://example.org/a/b, 500/100 Hz")
        ['/home/ann/ptb-xl']
    """
    if rooted:
        return [found.strip() for found in re.findall(_ROOTED_PATH, text)]
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
    if re.fullmatch(_WHOLE_PATH, text):
        return _last_part(text)
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
        EcgDataError: not JSON, or a list of records with identifiers.
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
    clean = _scrubbed(content, "", changes)
    if not changes:
        return None, []
    return (json.dumps(clean, indent=2, ensure_ascii=False) + "\n").encode(), changes


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
    if not _identifies_in_json(key):
        return _scrubbed(entry, place, changes)
    # A number under `patients` counts them, under `patient_id` it is one; so are the keys of an object.
    is_number = isinstance(entry, (int, float)) and not isinstance(entry, bool)
    is_one = is_number and not _words(key)[-1].endswith("s")
    is_by_patient = isinstance(entry, dict) and any(name.isdigit() for name in entry)
    if not entry or not (is_one or is_by_patient or isinstance(entry, (list, str))):
        return _scrubbed(entry, place, changes)
    changes.append(f"{place}: patients left out")
    return len(entry) if isinstance(entry, (list, dict)) else _LEFT_OUT


def _identifies_in_json(key: str) -> bool:
    return _plain(key) not in _NOT_IN_JSON and identifies(key)


def _key_of_records(content: Any) -> str | None:
    """An identifying key of an object in a list, which is a table of patients whatever the file is called."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            for entry in value:
                for key in entry if isinstance(entry, dict) else ():
                    if _identifies_in_json(key):
                        return str(key)
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
    return None


def identifies(name: str) -> bool:
    """Whether a column or a key is named as something that tells who a patient is.

    Example:
        >>> [name for name in ("ecg_id", "PatientsName", "patient_age", "subject_id_hash") if identifies(name)]
        ['PatientsName', 'subject_id_hash']
    """
    words = set(_words(name))
    if _plain(name) in _IDENTIFYING or words & _IDENTIFYING_WORDS:
        return True
    if any(word.startswith("patient") or re.match(r"subject(?!iv)|persons?$", word) for word in words):
        return not words & _HARMLESS_OF_PATIENTS
    is_name = bool(words & {"name", "names"} and words & _OF_A_NAME)
    return is_name or bool(words & _WHEN and words & _WHEN_IT_WAS) or words >= {"medical", "record"}


def _words(name: str) -> list[str]:
    """A name's words, which `_`, `-`, `.`, spaces, digits or capitals divide; at least one."""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return [word.lower() for word in found] or [name]


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
        if set(_words(name)) & _WHEN and not identifies(name)
    ]


def table_problems(path: Path, *, shown: str, source: str = "", holds_raw_ids: bool = False) -> list[str]:
    """Columns of a Parquet file that identify a patient or must not be shared.

    Every text of the file is looked at, a row group at a time.

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
                if _identifying_field(file.schema_arrow.field(name)) and not _is_empty(file, name):
                    found[name] = "identifies patients"
                elif name in answers and source.startswith(_ANSWERED_BY_REPORTS):
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
    return [*_metadata_problems(path, shown)] + [
        f"{shown}: the column {name} {what}; leave it out with --drop-columns {name}" for name, what in found.items()
    ]


def _metadata_problems(path: Path, shown: str) -> list[str]:
    """What was noted beside the columns."""
    noted = pq.read_schema(path).metadata or {}
    text = b"\n".join(name + b" " + value for name, value in noted.items()).decode("utf-8", "replace")
    found = []
    if has_token(text):
        found.append("a token of the Hub")
    if local_paths(text, rooted=True):
        found.append("paths of files on a machine")
    return [f"{shown}: the file's metadata holds {what}; write the file without it" for what in found]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _identifying_field(field: pa.Field) -> bool:
    """Whether a column, or a field inside of it, is named as an identifier."""
    return identifies(field.name) or any(
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
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return is_text or any(_has_text(kind.field(index).type) for index in range(kind.num_fields))


def _text_problem(column: pa.ChunkedArray) -> str | None:
    for texts in _texts(column.combine_chunks()):
        for pattern, what in (
            (r"\bp\d{8}(/|$)", "holds paths with MIMIC's patient numbers"),
            (r"^(file://|~)?/([^/\s]+/)+[^/\s]+$", "holds paths of files on a machine"),
            (rf"^(?:{_WHOLE_PATH})$|{_ROOTED_PATH}", "holds paths of files on a machine"),
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
    elif pa.types.is_string_view(kind):
        yield array.cast(pa.large_string())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array
    elif pa.types.is_map(kind):
        yield from _texts(array.keys)
        yield from _texts(array.items)
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
