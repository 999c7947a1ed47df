"""Paths of a machine, tokens of the Hub and patients in texts, and in the bytes of files inside of tables.

Columns are looked through by Arrow's RE2, which is linear in the text; only what it stops at is looked at closer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecgbyte_hf.hub.identifying_names import identifies_in_json, is_identifying_entry
from ecgbyte_hf.hub.private_bytes import names_a_person

PATHS = "holds paths of files on a machine"
SUBJECTS = "holds paths with MIMIC's patient numbers"
TOKENS = "holds a token of the Hub or of another service"

# Below a folder that a system has: looked for where much else has slashes.
_ROOTS = (
    "(?:home|Users|root|mnt|media|scratch|tmp|Volumes|data|var|srv|opt|work|workspace|export|gpfs|lustre|nfs|kaggle"
    "|dbfs|storage|cluster|projects?)"
)
# A part of a path, and one of up to four words, as a user's folder `First Last`.
_PART = r"[^\s/\\:\"'<>|]+"
_WORDS = rf"{_PART}(?: [^\s/\\:\"'<>|-][^\s/\\:\"'<>|]*){{0,3}}"
# Up to the part whose end is seen, which has an ending if it is the only one (`A:/B` are two answers); parts inside
# may have spaces. Where every part begins as a new line that was written out does, only an ending tells (`A:\nyes`).
_FILE = r"[^\s\\/:*?\"'<>|]*\.[A-Za-z]\w{1,7}(?!\w)"
_NEW_LINES = r"(?!(?:\\+[nrt][^\\/:*?\"<>|\n]*)+(?:[/:*?\"<>|\n]|$))"
_WINDOWS = (
    r"\b[A-Za-z]:(?:"
    rf"(?=[\\/]){_NEW_LINES}(?:\\+|/)(?=[^\s/\\\"'])(?:[^\\/:*?\"<>|\n]+[\\/]+)+[^\s\\/:*?\"'<>|]*"
    rf"|(?:\\+|/)(?:[^\\/:*?\"<>|\n]+[\\/]+)*{_FILE})"
)
_UNC = r"(?<!\\)\\{2,8}[\w.-]+(?:\\{1,8}[^\\/:*?\"<>|\n]+(?=\\))*\\{1,8}[^\s\\\"']+"
_OF_A_USER = rf"(?:file://)?/(?:home|Users)/{_WORDS}/(?:[\w.@+-]+/)*[\w.@+-]+"
# An absolute path; one of two parts has an ending or begins at a root, since `/normal/abnormal` are two answers.
_ABSOLUTE = (
    rf"(?:file://|~)/(?:[\w.@+-]+/)+[\w.@+-]+|/(?:[\w.@+-]+/){{2,}}[\w.@+-]+|/{_ROOTS}/[\w.@+-]+"
    r"|/[\w@+-]+/[\w.@+-]*\.[A-Za-z]\w{1,7}\b"
)
# Not the rest of a URL, of a fraction or of another path.
_LOCAL_PATH = rf"(?<![\w:/.<>])(?:{_OF_A_USER}|{_ABSOLUTE})/?|{_WINDOWS}|{_UNC}"
_ROOTED_PATH = rf"(?<![\w:/.<>])(?:{_OF_A_USER}|(?:file://)?/{_ROOTS}/[\w.@+-]+(?:/[\w.@+-]+)+)|{_WINDOWS}|{_UNC}"
# A text that is a path up to its end, with its spaces; of Windows, as a pattern that Arrow does not know.
_WHOLE = rf"(?:file://)?/{_ROOTS}/[^/\n:]+(?:/[^/\n:]+)+|~?/[\w.@+-]+(?:/[^/\n:]+)+\.\w+|\\\\[^\\/:\n]+\\[^\n:]+"
_WHOLE_PATH = (
    rf"{_WHOLE}|[A-Za-z]:(?=[\\/]){_NEW_LINES}[\\/]+[^\n:/\\]+[\\/]+[^\n:/\\][^\n:]*"
    r"|[A-Za-z]:[\\/]+[^\n:/\\][^\n:]*\.[A-Za-z]\w{1,7}"
)
# MIMIC-IV's folders: `p` and the patient's number of eight digits, `s` and the study's.
_SUBJECT_PATH = r"(?<!\w)(?:files/)?(?:p\d{4}/)?p\d{8}(?!\w)(?:/s\d+(?:/\d+)?)?"
# Of the Hub, GitHub, GitLab, OpenAI and Anthropic, Amazon, Google, Slack.
_TOKEN = (
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|glpat-[\w-]{20,}"
    r"|sk-(?:proj|ant|svcacct)-[\w-]{20,}|sk-[A-Za-z0-9]{40,}|(?:AKIA|ASIA)[0-9A-Z]{16}\b|AIza[\w-]{35}"
    r"|xox[abprs]-[\w-]{20,})"
)
_ANY_PATH, _ANY_ROOTED, _ANY_SUBJECT, _ANY_TOKEN, _ANY_WINDOWS = (
    re.compile(pattern) for pattern in (_LOCAL_PATH, _ROOTED_PATH, _SUBJECT_PATH, _TOKEN, _WINDOWS)
)
LEFT_OUT = "(left out)"

# ---- for Arrow, which knows neither what stands before a match nor what follows it
_BEFORE = r"(?:^|[^\w:/.<>])"
_ENDINGS = (
    "(?:dat|hea|mat|edf|xml|dcm|scp|csv|tsv|txt|json|jsonl|parquet|npy|npz|h5|hdf5|pkl|zip|gz|pdf|png|jpe?g|log|py|sh|"
    "ipynb|yaml|yml|bin|pt|pth|safetensors)"
)
_BACKSLASHED = r"[^\\/:*?\"<>|\n]+"
_MAY_BE_WINDOWS = r"\b[A-Za-z]:[\\/]"
_IN_TEXTS = (
    (r"\bp\d{8}(/|$)", SUBJECTS),
    (r"^\s*(?:(?:file://|~)/(?:[^/\s]+/)+|/(?:[^/\s]+/){2,})[^/\s]+\s*$", PATHS),
    (rf"^\s*/(?:{_ROOTS}/[^/\s]+|[^/\s]+/[^/\s]+\.[A-Za-z]\w+)\s*$", PATHS),
    (rf"^\s*(?:{_WHOLE})\s*$", PATHS),
    (rf"{_BEFORE}(?:file://)?/{_ROOTS}/{_WORDS}/[^\s/]", PATHS),
    (rf"{_BEFORE}(?:file://|~)?/(?:{_WORDS}/)+[\w@+ -]+\.{_ENDINGS}\b", PATHS),
    (rf"{_BEFORE}(?:~[\w.-]*|file://[\w.-]*)/[\w.@+-]+/[^\s/]", PATHS),
    (rf"(?:^|[\s\"'=(\[,;])\\{{2,8}}[\w.-]{{2,}}\\{{1,4}}{_BACKSLASHED}", PATHS),
    (_TOKEN, TOKENS),
)
# Bytes of compressed data look like anything, so more has to fit: a letter, a colon and a backslash are none too rare.
_IN_BYTES = (
    (r"p\d{4}/p\d{8}\b", SUBJECTS),
    (rf"/{_ROOTS}/[\w.@+-]{{2,}}(?: [\w.@+-]+){{0,3}}/[\w.@+-]{{3,}}", PATHS),
    (r"\b[A-Za-z]:[\\/][\w.@+ -]{3,}[\\/][\w.@+ -]{3,}", PATHS),
    (r"\\\\[\w.-]{3,}\\[\w.@+$ -]{3,}\\[\w.@+ -]{3,}", PATHS),
    (_TOKEN, TOKENS),
)
_SAID_OF = (
    r"(?i)\b(?:(?:patient|subject|pat|medical[ _-]?record)[ _-]?(?:id|no|nr|num|number|name|identifier|code)"
    r"|case[ _-]?(?:id|identifier)"  # `case number: 12` counts them
    r"|mrn|ssn|hadm[ _-]?id|stay[ _-]?id|dob|date[ _-]of[ _-]birth|birth[ _-]?dat(?:e|um)|geburtsdatum|social security"
    r"(?: number)?)\b[\"']?\s*[:=#]\s*[\"']?"
)
# What is written in the place of a name or a number is none.
_NOBODY = r"(?:unknown|none|null|nan|n/?a|anon\w*|removed|redacted|x+)\b"
_SAID = re.compile(rf"{_SAID_OF}(?!{_NOBODY})([A-Za-z0-9][^\s,;\"'<]*)")
# In a card or a log: `patient_id: the patient's number` and `subject_id: int64` describe a column.
_SAID_IN_PROSE = re.compile(
    rf"{_SAID_OF}(?!{_NOBODY}|u?int\d|float\d|string\b)(?:(?=[^\s,;\"'<]{{0,40}}\d)[A-Za-z0-9][^\s,;\"'<]{{0,200}}"
    r"(?![^\s,;\"'<]|\s+(?:of|to|patients|subjects|unique|distinct|different|values)\b))"
)
_NAMED_IN_PROSE = re.compile(
    rf"\b[Pp](?:atient|ATIENT)(?:'?s)?[ -](?:[Nn]ame|NAME)\s?[:=]\s?(?!(?i:{_NOBODY}))"
    r"[A-Z][\w'-]{1,40}(?:[,^ ]{1,2}[A-Z][\w'-]{0,40}){0,3}[ ]?(?:$|[,;.^\n])"
)
_KEY_AND_VALUE = re.compile(r"[\"']([A-Za-z][\w .-]{0,40}?)\\{0,8}[\"']\s*:\s*([^,}\]\s][^,}\]\n]{0,60})")
_ELEMENT = re.compile(r"<(?:\w+:)?([A-Za-z][\w.-]{1,40})(?:\s[^<>]{0,200})?>\s*([^<>\s][^<>]{0,60})<")
# Elements of HL7 and FHIR that are parts of a name.
_PARTS_OF_A_NAME = frozenset({"family", "given"})
_TAG = re.compile(
    r"<(?:\w+:)?([A-Za-z][\w.-]{0,40})((?:\s+[\w:.-]{1,60}\s*=\s*(?:\"[^\"<>]{0,300}\"|'[^'<>]{0,300}'))+)"
)
_ATTRIBUTE = re.compile(r"([\w:.-]{1,60})\s*=\s*[\"']([^\"']*)")
_OF_AN_ELEMENT = frozenset({"value", "extension"})
# HL7's annotated ECG: a subject's number, and a name without a telling element.
_HL7_PERSON = re.compile(
    r"<(?:\w+:)?(?:(?:trialSubject|patientRole|subjectAssignment)\b[^<>]{0,300}>\s*<(?:\w+:)?id\b[^<>]{0,300}"
    r"\bextension\s*=\s*[\"'](?P<number>[^\"']+)"
    r"|(?:subjectDemographicPerson|patient|assignedPerson|trialSubject)\b[^<>]{0,300}>\s*<(?:\w+:)?name\b[^<>/]{0,300}>"
    r"\s*(?:<[^<>]{0,300}>\s*)?(?P<name>[^<>\s][^<>]{0,60}))"
)
_FHIR_PATIENT = re.compile(r"(?:https?://\S+/)?Patient/[\w.-]+")
# A WFDB header's first line, behind comments, and a comment on who it is of.
_WFDB_START = r"^(?:#[^\n]*\n)*[\w/.-]+ \d+ [\d./()]+"
_WFDB_PERSON = re.compile(rf"(?im)^#[ \t]*<?(?:patient|subject|name)>?[ \t]*[:=][ \t]*(?!{_NOBODY})[A-Za-z0-9]")
_XML_START = re.compile(rb"\s*<[?!A-Za-z]")
_UTF_16 = r"^(?:\xff\xfe|\xfe\xff|<\x00|\x00<)"
_MAY_SAY = (
    rf"{_SAID_OF}[A-Za-z0-9]",
    r"[\"'][A-Za-z][\w .-]{0,40}\\*[\"']\s*:\s*[^,}\]\s]",
    r"<(?:\w+:)?[A-Za-z][\w.-]{1,40}(?:\s[^<>]{0,200})?>\s*[^<>\s]",
)
_NOTHING = re.compile(r"(?i)\\*[\"']?(?:null|none|nan|false|true|0(?:\.0)?|unknown|anonym\w*|)\\*[\"']?\s*")
# Who speaks in a conversation.
_ROLES = frozenset({"doctor", "physician", "person", "persons"})
# So long is what says it where bytes are no text: three letters and a colon are in any file of some size.
_LONG_ENOUGH = 8
# What stands for bytes that are no letter.
_NOT_TEXT = "\ufffd"
# JSON in JSON in JSON, as logs of conversations have it.
_DEEPEST = 4


def has_token(text: str) -> bool:
    """Whether a text holds a token of the Hub or of another service."""
    return _ANY_TOKEN.search(text) is not None


def has_subject(text: str) -> bool:
    """Whether a text has a folder of MIMIC-IV, which is called after a patient's number."""
    return _ANY_SUBJECT.search(text) is not None


def names_a_patient(text: str) -> str | None:
    """By what words a text says who a patient is; `None` if it does not, or describes a column.

    Example:
        >>> [names_a_patient(one) for one in ("MRN: 88211", "patient_id: int64", "MRN: the patient's number")]
        ['MRN:', None, None]
    """
    found = _SAID_IN_PROSE.search(text) or _NAMED_IN_PROSE.search(text)
    return None if found is None else " ".join(re.split(r"(?<=[:=#])", found[0])[0].split())


def local_paths(text: str, *, rooted: bool = False) -> list[str]:
    """Absolute paths of some machine in a text; with `rooted` only those below folders that systems have.

    Example:
        >>> local_paths("trained on /home/ann/ptb-xl, see https://example.org/a/b, 500/100 Hz")
        ['/home/ann/ptb-xl']
    """
    return (_ANY_ROOTED if rooted else _ANY_PATH).findall(text)


def is_local_path(text: str) -> bool:
    """Whether a text is a path of some machine, or has one below a folder that systems have.

    Example:
        >>> [is_local_path(one) for one in ("Answer A:/B:/C: {ecg}", "/heart/ecg/x.dat", "see /home/ann/x")]
        [False, True, True]
    """
    return re.fullmatch(_WHOLE_PATH, text) is not None or bool(local_paths(text, rooted=True))


def shortened(text: str) -> str:
    r"""A text whose absolute paths and MIMIC-IV's patient folders are cut to their last part.

    Example:
        >>> shortened("--data /Users/Ann Smith/runs/prepared --output rows")
        '--data prepared --output rows'
        >>> shortened("files/p1000/p10000032/s40689238/40689238")
        '40689238'
        >>> shortened("files/p1000/p10000032")
        '(left out)'
    """
    if re.fullmatch(_WHOLE_PATH, text):
        return _last_part(text)
    text = _ANY_PATH.sub(lambda found: _last_part(found[0]), text)
    return _ANY_SUBJECT.sub(lambda found: _study(found[0]), text)


def _study(path: str) -> str:
    _, slash, study = path.rpartition("/s")
    return study.rpartition("/")[2] if slash else LEFT_OUT


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name


def has_content(kind: pa.DataType) -> bool:
    """Whether a column holds texts or bytes, in whatever lists and structures they are."""
    if isinstance(kind, pa.BaseExtensionType):
        return has_content(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return has_content(kind.value_type)
    return _is_text(kind) or _is_bytes(kind) or any(has_content(kind.field(i).type) for i in range(kind.num_fields))


def column_problem(column: pa.ChunkedArray | pa.Array) -> str | None:
    """What a column holds that must not go out, as the end of a sentence; `None` if nothing was found.

    Texts and bytes are looked through, in lists, structures, maps and dictionaries too, and JSON and XML in them. What
    is packed (zip, gzip) is not unpacked.
    """
    for values in _values(column):
        is_text = _is_text(values.type)
        for pattern, what in _IN_TEXTS if is_text else _IN_BYTES:
            if pc.any(pc.match_substring_regex(values, pattern)).as_py():
                return what
        if is_text and any(_ANY_WINDOWS.search(text) for text in _those(values, _MAY_BE_WINDOWS)):
            return PATHS
        found = _found_in_json(values) or _found_in_xml(values) or _found_said(values)
        if not is_text:
            found = found or _found_in_utf_16(values) or names_a_person(values)
        if found:
            return found
    return None


def _found_in_json(values: pa.Array) -> str | None:
    """What texts that are JSON hold: written out, backslashes and letters in them hide paths."""
    for text in _those(values, r"^\s*[{\[]\s*[\[{\"]"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            continue  # looked through as text
        if what := _in_json(content):
            return what
    return None


def _found_in_utf_16(values: pa.Array) -> str | None:
    texts = []
    for content in pc.unique(pc.filter(values, pc.match_substring_regex(values, _UTF_16))).to_pylist():
        order = "utf-16-be" if content[:1] == b"\x00" else "utf-16-le" if content[:1] == b"<" else "utf-16"
        try:
            texts.append(content.decode(order))
        except UnicodeDecodeError:  # samples
            continue
    return column_problem(pa.array(texts, pa.large_string())) if texts else None


def _found_in_xml(values: pa.Array) -> str | None:
    """What the attributes of XML say of a patient, and the header of a WFDB record."""
    for text in _those(values, r"<(?:\w+:)?[A-Za-z][\w.-]*\s[^<>]*="):
        for element, attributes in _TAG.findall(text):
            for name, value in _ATTRIBUTE.findall(attributes):
                if not name.startswith("xmlns") and _attribute_identifies(element, name, value):
                    return f"holds XML with {element!r}, which identifies patients"
    for text in _those(values, r"<(?:\w+:)?(?:trialSubject|patient|subject|assignedPerson)"):
        for found in _HL7_PERSON.finditer(text):
            if not _NOTHING.fullmatch(found["number"] or found["name"]):
                return "holds XML with a patient's name or number"
    for text in _those(values, _WFDB_START, also_binary=True):
        if _WFDB_PERSON.search(text):
            return "holds WFDB headers that name a patient"
    return None


def _attribute_identifies(element: str, name: str, value: str) -> bool:
    if _says_nothing(name, value):
        return False
    is_person = identifies_in_json(element) or element.lower() in _PARTS_OF_A_NAME
    return identifies_in_json(name) or (is_person and name.lower() in _OF_AN_ELEMENT)


def _names_of_fhir(content: dict[str, Any]) -> bool:
    """Whether an object is a patient, a person's name or a reference to a patient, as FHIR writes them."""
    is_patient = content.get("resourceType") == "Patient" and len(content) > 1
    is_name = bool(content.get("family")) and bool({"given", "use", "text"} & set(content))
    return is_patient or is_name or _FHIR_PATIENT.fullmatch(str(content.get("reference"))) is not None


def _in_json(content: Any) -> str | None:
    waiting: list[tuple[Any, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            if _names_of_fhir(value):
                return "holds a patient, as FHIR writes one"
            for key, entry in value.items():
                if str(key).lower() not in _ROLES and is_identifying_entry(str(key), entry):
                    return f"holds JSON with {str(key)!r}, which identifies patients"
            waiting += [(one, depth) for pair in value.items() for one in pair]
        elif isinstance(value, list):
            waiting += [(one, depth) for one in value]
        elif isinstance(value, str):
            for pattern, what in _COMPILED_IN_TEXTS:
                if pattern.search(value):
                    return what
            if _ANY_WINDOWS.search(value):
                return PATHS
            if depth < _DEEPEST and value.lstrip()[:1] in ("{", "["):
                try:
                    waiting.append((json.loads(value), depth + 1))
                except (ValueError, RecursionError):
                    continue
    return None


def _found_said(values: pa.Array) -> str | None:
    """What a text says of a patient: `Patient ID: 17`, `{'mrn': 17}`, `<PatientLastName>Smith<`."""
    said, keyed, elements = _MAY_SAY
    for text in _those(values, said, also_binary=True):
        for found in _SAID.finditer(text):
            label = found[0][: -len(found[1])]
            if len(label) >= _LONG_ENOUGH or _NOT_TEXT not in text:
                return f"says who a patient is ({' '.join(label.split())} ...)"
    for pattern, closer, what in ((keyed, _KEY_AND_VALUE, "JSON"), (elements, _ELEMENT, "XML")):
        for text in _those(values, pattern):
            for key, value in closer.findall(text):
                is_name = closer is _ELEMENT and key in _PARTS_OF_A_NAME
                if (
                    key.lower() not in _ROLES
                    and (is_name or identifies_in_json(key))
                    and not _says_nothing(key, value)
                ):
                    return f"holds {what} with {key!r}, which identifies patients"
    return None


def _says_nothing(key: str, value: str) -> bool:
    """Nothing, or a number under `patients`, which counts them."""
    is_count = key.lower().endswith("s") and re.fullmatch(r"\s*\d+(\.0)?\s*", value) is not None
    return is_count or _NOTHING.fullmatch(value) is not None


def _those(values: pa.Array, pattern: str, *, also_binary: bool = False) -> Iterator[str]:
    """The values that a pattern is found in, each once, as texts; bytes that are none only where they are wanted."""
    for value in pc.unique(pc.filter(values, pc.match_substring_regex(values, pattern))):
        plain = value.as_py()
        if isinstance(plain, bytes):
            plain = _text_of(plain)
            if not also_binary and _NOT_TEXT in plain:
                continue
        if plain is not None:
            yield plain


def _text_of(content: bytes) -> str:
    """Bytes as a text; XML that is not UTF-8 is latin-1, as GE MUSE writes it."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1" if _XML_START.match(content) else "utf-8", "replace")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    is_plain = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return is_plain or pa.types.is_fixed_size_binary(kind)


def _values(array: pa.ChunkedArray | pa.Array) -> Iterator[pa.Array]:
    """The texts and bytes in an array, in whatever lists and structures they are."""
    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        for chunk in array.chunks:
            yield from _values(chunk)
    elif isinstance(kind, pa.BaseExtensionType):
        yield from _values(array.storage)
    elif pa.types.is_dictionary(kind):
        yield from _values(array.dictionary)
    elif pa.types.is_run_end_encoded(kind):
        yield from _values(array.values)
    elif pa.types.is_string_view(kind):
        yield array.cast(pa.large_string())
    elif pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        yield array.cast(pa.large_binary())
    elif _is_text(kind) or _is_bytes(kind):
        yield array
    elif pa.types.is_map(kind):
        yield from _values(array.keys)
        yield from _values(array.items)
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _values(array.field(index))
    elif hasattr(array, "flatten"):  # every kind of list
        yield from _values(array.flatten())


_COMPILED_IN_TEXTS = tuple((re.compile(pattern), what) for pattern, what in _IN_TEXTS)
