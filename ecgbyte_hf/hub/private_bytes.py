"""Names of persons in the headers of files that are kept as bytes: DICOM, EDF and BDF, pictures with EXIF."""

from __future__ import annotations

import re
import struct

import pyarrow as pa
import pyarrow.compute as pc

# In bytes 128 to 131, behind a preamble.
_DICOM = r"(?s)^.{128}DICM"
# Patient's name, number and birth date, explicit VR: group 0010, element, VR, length, and no empty value.
_DICOM_PATIENT = re.compile(rb"\x10\x00(?:[\x10\x20]\x00(?:PN|LO)|\x30\x00DA)(..)([^\x00 ])", re.DOTALL)
_EDF = r"^(?:0 {7}|\xffBIOSEMI)"
_EDF_PATIENT = slice(8, 88)
_EXIF = r"Exif\x00\x00(?:II|MM)"
# Tags of a picture's first directory: Artist, CameraOwnerName, XPAuthor, and where it was taken (GPS).
_EXIF_TAGS = {0x013B, 0xA430, 0x9C9D, 0x8825}
_MOST_TAGS = 4096


def names_a_person(values: pa.Array) -> str | None:
    """What the files in an array of bytes say about a person, as the end of a sentence; `None` if it is nothing."""
    for pattern, says, what in (
        (_DICOM, _dicom_names, "holds DICOM files that name a patient"),
        (_EDF, _edf_names, "holds EDF files that name a patient"),
        (_EXIF, _exif_names, "holds pictures whose EXIF names a person or a place"),
    ):
        found = pc.filter(values, pc.match_substring_regex(values, pattern))
        if any(says(one.as_py()) for one in found if one.is_valid):
            return what
    return None


def _dicom_names(content: bytes) -> bool:
    # Patient's data come before the waveform.
    found = _DICOM_PATIENT.finditer(content, 0, 1 << 16)
    return any(one[1] != b"\x00\x00" for one in found)


def _edf_names(content: bytes) -> bool:
    """EDF+ writes X for what was left out: number, sex, birth date, name."""
    words = content[_EDF_PATIENT].decode("latin-1").split()
    return any(word.strip("Xx.-_0") for index, word in enumerate(words) if index != 1 or len(word) > 1)


def _exif_names(content: bytes) -> bool:
    start = content.index(b"Exif\x00\x00") + 6
    order = "<" if content[start : start + 2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(f"{order}I", content, start + 4)
        (count,) = struct.unpack_from(f"{order}H", content, start + first)
        for number in range(min(count, _MOST_TAGS)):
            tag, _, size = struct.unpack_from(f"{order}HHI", content, start + first + 2 + 12 * number)
            if tag in _EXIF_TAGS and size:
                return True
    except struct.error:  # cut short
        return False
    return False
