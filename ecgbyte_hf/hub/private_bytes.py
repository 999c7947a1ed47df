"""Names of persons in the headers of files that are kept as bytes: DICOM, EDF and BDF, pictures with EXIF or texts."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ecgbyte_hf.hub.identifying_names import identifies

# In bytes 128 to 131, behind a preamble.
_DICOM = r"(?s)^.{128}DICM"
# Little endian (group, element): name, number, birth date, other numbers and names, birth name, address, name of the
# mother, military rank, telephone, comments of the patient (0010); physicians and operators (0008).
_DICOM_PERSON = re.compile(
    rb"(?:\x10\x00(?:[\x10\x20\x30]\x00|[\x00\x01\x05\x40\x60\x80]\x10|\x54\x21|\x00\x40)"
    rb"|\x08\x00(?:[\x90\x92\x94]\x00|[\x48\x50\x60\x70]\x10))"
)
_SHORT_VR = (b"PN", b"LO", b"SH", b"DA", b"LT", b"ST", b"CS")
_WAVEFORMS = b"\x00\x54\x00\x01"
_LONGEST_VALUE = 1024
# What stands where a name was taken away.
_NO_NAME = re.compile(r"(?i)(?:anon\w*|unknown|none|null|n/?a|removed|redacted|de-?identified|x+|[-_.0]*)")
_EDF = r"^(?:0 {7}|\xffBIOSEMI)"
_EDF_PATIENT = slice(8, 88)
# In JPEG, WebP and PNG; a TIFF file begins with the same.
_EXIF = r"(?s)Exif\x00\x00(?:II|MM)|EXIF.{4}(?:II|MM)|eXIf(?:II|MM)|^(?:II\*\x00|MM\x00\*)"
_EXIF_STARTS = re.compile(rb"(?:Exif\x00\x00|EXIF....|eXIf|\A)(?=II\*\x00|MM\x00\*)", re.DOTALL)
# Tags of a picture's first directory: Artist, CameraOwnerName, XPAuthor, and where it was taken (GPS).
_EXIF_TAGS = {0x013B, 0xA430, 0x9C9D, 0x8825}
# Points to a second directory, where a camera's owner is.
_EXIF_DIRECTORY = 0x8769
_MOST_TAGS = 4096
_PNG = r"^\x89PNG\r\n"
_MOST_TEXT = 1 << 20


def names_a_person(values: pa.Array) -> str | None:
    """What the files in an array of bytes say about a person, as the end of a sentence; `None` if it is nothing."""
    for pattern, says, what in (
        (_DICOM, _dicom_names, "holds DICOM files that name a patient"),
        (_EDF, _edf_names, "holds EDF files that name a patient"),
        (_EXIF, _exif_names, "holds pictures whose EXIF names a person or a place"),
        (_PNG, _png_names, "holds pictures whose texts name a person"),
    ):
        found = pc.filter(values, pc.match_substring_regex(values, pattern))
        if any(says(one.as_py()) for one in found if one.is_valid):
            return what
    return None


def _dicom_names(content: bytes) -> bool:
    # Patient's data come before the waveform.
    end = content.find(_WAVEFORMS, 0, 1 << 16)
    found = _DICOM_PERSON.finditer(content, 128, 1 << 16 if end < 0 else end)
    return any(_is_name(_dicom_value(content, one.end())) for one in found)


def _dicom_value(content: bytes, start: int) -> bytes:
    """What follows a tag: with explicit VR two letters and two bytes of length, with implicit four bytes of it."""
    if len(content) < start + 4:
        return b""
    is_explicit = content[start : start + 2] in _SHORT_VR
    (length,) = (
        struct.unpack_from("<H", content, start + 2) if is_explicit else struct.unpack_from("<I", content, start)
    )
    return content[start + 4 : start + 4 + length] if length <= _LONGEST_VALUE else b""


def _is_name(value: bytes) -> bool:
    text = value.rstrip(b"\x00 ")
    if any(byte < ord(" ") and byte not in b"\x1b\t\r\n" for byte in text):  # samples that look like a tag
        return False
    return not all(_NO_NAME.fullmatch(word) for word in re.split(r"[\^= ]", text.decode("latin-1")))


def _edf_names(content: bytes) -> bool:
    """EDF+ writes X for what was left out: number, sex, birth date, name."""
    words = content[_EDF_PATIENT].decode("latin-1").split()
    return any(word.strip("Xx.-_0") for index, word in enumerate(words) if index != 1 or len(word) > 1)


def _exif_names(content: bytes) -> bool:
    return any(_tiff_names(content, found.end()) for found in _EXIF_STARTS.finditer(content))


def _tiff_names(content: bytes, start: int) -> bool:
    order = "<" if content[start : start + 2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(f"{order}I", content, start + 4)
        further = []
        for tag, size, value in _tags(content, start, first, order):
            if tag in _EXIF_TAGS and size:
                return True
            if tag == _EXIF_DIRECTORY:
                further.append(value)
        return any(
            tag in _EXIF_TAGS and size for one in further[:1] for tag, size, _ in _tags(content, start, one, order)
        )
    except struct.error:  # cut short
        return False


def _tags(content: bytes, start: int, directory: int, order: str) -> Iterator[tuple[int, int, int]]:
    """Tag, number of values, and the value or where it is, of a directory of TIFF."""
    (count,) = struct.unpack_from(f"{order}H", content, start + directory)
    for number in range(min(count, _MOST_TAGS)):
        tag, _, size, value = struct.unpack_from(f"{order}HHII", content, start + directory + 2 + 12 * number)
        yield tag, size, value


def _png_names(content: bytes) -> bool:
    return any(identifies(key) or key.lower() == "author" for key, text in png_texts(content) if text.strip())


def png_texts(content: bytes) -> Iterator[tuple[str, str]]:
    """The texts that a PNG file holds beside the picture, with their keywords: `tEXt`, `zTXt` and `iTXt`."""
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, chunk = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        key, _, text = chunk.partition(b"\x00")
        is_packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\x01")
        if kind == b"iTXt":  # flag, method, language, the keyword in it
            text = text[2:].partition(b"\x00")[2].partition(b"\x00")[2]
        elif kind == b"zTXt":
            text = text[1:]
        yield key.decode("latin-1"), (_unpacked(text) if is_packed else text).decode("utf-8", "replace")


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MOST_TEXT)
    except zlib.error:
        return b""
