"""XML as recorders write it, read without anything that a document can ask for.

`defusedxml` does it: a few hundred lines over the standard library's parser that raise at the first entity, whatever
it would expand to, and never open a file or an address. `lxml` would be one more parser in C, whose switches against
the same attacks have changed their meaning between versions.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError
from ecgbyte_hf.signal.channels import file_content, import_extra, start_of

#: Bytes. Ten minutes of 12 leads at 500 Hz as decimals are 18 million; a document of nothing but tags takes 40
#: times its size in memory (measured: 1,367 MiB of 32 MiB).
LARGEST_XML = 1 << 25

#: Recorders name a document type that nobody can fetch; it is not looked for. Any other one is refused.
_HARMLESS_DTD = {"RestingECG": "restecg.dtd"}
_PROLOG = re.compile(r"\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>", re.DOTALL)
_ELEMENT = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)")


def root_name(path: Path) -> str:
    """Return the name of the root element without its namespace; "" if the file does not look like XML."""
    content = start_of(path, 1 << 16)
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
    text = content.removeprefix(b"\xef\xbb\xbf").decode(encoding, "replace")
    place = 0
    while match := _PROLOG.match(text, place):
        place = match.end()
    root = _ELEMENT.match(text, place)
    return root[1] if root else ""


def is_xml_of(path: Path, root: str) -> bool:
    """Say whether the path has the suffix of XML and the file this root element."""
    return path.suffix.lower() == ".xml" and root_name(path) == root


def parse_xml(path: Path, root: str) -> Element:
    """Parse a document and return its root element.

    Raises:
        EcgFileError: it is too large, no XML, truncated, of another root element, has an entity, or refers to
            something outside it.
    """
    tree = import_extra(path, "defusedxml.ElementTree", "xml")
    defused = import_extra(path, "defusedxml", "xml")
    content = file_content(path, LARGEST_XML)
    try:
        element = _parsed(tree, defused, content)
    except defused.DefusedXmlException as error:
        # Without the error's own text, which may quote the document.
        raise EcgFileError(
            f"{path}: the XML has an entity, a document type or a reference to another file ({type(error).__name__}), "
            "expected none: they can fill the memory or open files. Remove it."
        ) from None
    except (ParseError, ValueError, LookupError) as error:
        # LookupError: an encoding that nobody knows.
        raise EcgFileError(
            f"{path}: not XML, or truncated ({type(error).__name__}). Download or export it again."
        ) from None
    if local_name(element) != root:
        raise EcgFileError(f"{path}: got the root element {local_name(element)[:40]!r}, expected {root!r}.")
    return element


def _parsed(tree: Any, defused: Any, content: bytes) -> Element:
    """Parse, with no document type but a harmless one."""
    try:
        return tree.fromstring(content, forbid_dtd=True)
    except defused.DTDForbidden as error:
        if _HARMLESS_DTD.get(error.name, "") != error.sysid or error.pubid is not None:
            raise
    return tree.fromstring(content)


def local_name(element: Element) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def text_of(path: Path, element: Element, name: str) -> str:
    """Return the text of the only child of this name, whatever its namespace."""
    found = element.findall(f"{{*}}{name}")
    if len(found) != 1:
        raise EcgFileError(
            f"{path}: got {len(found)} elements {name!r} in {local_name(element)!r}, expected one. The file is "
            "damaged, or of a version that is not known."
        )
    return (found[0].text or "").strip()


def number_of(path: Path, element: Element, name: str) -> float:
    """Return the number in the only child of this name."""
    return to_number(path, name, text_of(path, element, name))


def to_number(path: Path, what: str, text: str | None) -> float:
    """Return a number as XML writes it."""
    if text is None or not re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*", text, re.ASCII):
        # Without the text, which may be anything.
        raise EcgFileError(f"{path}: {what!r} is no number. The file is damaged: export it again.")
    return float(text)


def from_base64(path: Path, what: str, text: str) -> bytes:
    """Return bytes that are written as base64 with line breaks."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise EcgFileError(
            f"{path}: {what} is not base64. The file is truncated or damaged: export it again."
        ) from None
