"""Reader of SCP-ECG (EN 1064, versions 1 and 2): the rhythm data of section 6.

Only the pointers (section 0), the Huffman tables (2), the leads (3) and the rhythm data (6) are looked at; patient and
acquisition data are in section 1. Refused, since no recording was at hand to check them: Huffman tables of the file's
own, reference beats to be added (sections 4 and 5), bimodal compression, and version 3.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, SamplingRateError
from ecgbyte_hf.signal.channels import Channel, file_content, make_record, start_of
from ecgbyte_hf.signal.records import EcgRecord, Given

DESCRIPTION = "SCP-ECG (.scp)"

#: Leads by their number in section 3; DICOM's codes for leads end with the same numbers.
SCP_LEADS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
SCP_LEADS |= {2 + number: f"V{number}" for number in range(1, 8)}
SCP_LEADS |= {8 + number: f"V{number}R" for number in range(2, 8)}
SCP_LEADS |= {16: "X", 17: "Y", 18: "Z", 66: "V8", 67: "V9", 68: "V8R", 69: "V9R"}

_LARGEST = 1 << 26
_SECTION_HEADER = struct.Struct("<HHIBB6x")
_POINTER = struct.Struct("<HII")
_LEAD = struct.Struct("<IIB")
_DEFAULT_TABLE = 19999
_ONES_BEFORE_8_BITS, _ONES_BEFORE_16_BITS = 9, 10


@dataclass(frozen=True)
class _Leads:
    """Section 3: a number for each lead, and how many samples all of them have."""

    numbers: list[int]
    num_samples: int


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of SCP-ECG, or its mark in the header of section 0."""
    if path.suffix.lower() == ".scp" and path.is_file():
        return True
    return start_of(path, 22)[16:] == b"SCPECG"


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says."""
    sections = _sections(path, file_content(path, _LARGEST))
    described = _leads(path, sections)
    rhythm = _needed(path, sections, 6)
    if len(rhythm) < 6 + 2 * len(described.numbers):
        raise _damaged(path, 6)
    nanovolts, microseconds, order, bimodal = struct.unpack_from("<HHBB", rhythm)
    if bimodal:
        raise EcgFileError(
            f"{path}: got bimodal compression (other rates outside the QRS complexes), expected one rate throughout. "
            "Export the recording without it, or to another format."
        )
    if microseconds == 0 or order > 2:
        raise SamplingRateError(
            f"{path}: got a sample interval of {microseconds} us and differences of order {order}, expected more than "
            "0 and at most order 2. The file is damaged: export it again."
        )
    channels = [
        Channel(
            name=SCP_LEADS.get(number, f"SCP lead {number}"),
            unit="nV",
            sampling_rate=1e6 / microseconds,
            scale=float(nanovolts),
        )
        for number in described.numbers
    ]
    is_packed = _is_packed(path, sections)

    def decode(wanted: Sequence[int]) -> list[np.ndarray]:
        coded = _coded_leads(path, rhythm, len(described.numbers))
        return [_decode_lead(path, coded[index], described.num_samples, order, is_packed) for index in wanted]

    return make_record(path, "scp", channels, decode, leads, given)


def _sections(path: Path, content: bytes) -> dict[int, bytes]:
    """Return the data parts of the sections by number, checked against their checksums."""
    if len(content) < 6 + _SECTION_HEADER.size:
        raise EcgFileError(f"{path}: got {len(content)} bytes, expected an SCP-ECG file. It is truncated.")
    checksum, size = struct.unpack_from("<HI", content)
    if size > len(content) or size < 6 + _SECTION_HEADER.size:
        raise EcgFileError(
            f"{path}: got {len(content)} bytes, expected {size} as its header says. The file is truncated or no "
            "SCP-ECG: export it again."
        )
    content = content[:size]
    if _checksum(content[2:]) != checksum:
        raise EcgFileError(f"{path}: the file's checksum does not hold. It is corrupt: export it again.")
    found = {0: _section(path, content, 0, 6, None)}
    for number, length, place in _POINTER.iter_unpack(found[0][: len(found[0]) // _POINTER.size * _POINTER.size]):
        if length and number in (2, 3, 6):
            # Places are counted from 1.
            found[number] = _section(path, content, number, place - 1, length)
    return found


def _section(path: Path, content: bytes, number: int, place: int, length: int | None) -> bytes:
    """Return the data part of a section."""
    if place < 0 or place + _SECTION_HEADER.size > len(content):
        raise _damaged(path, number)
    checksum, stated_number, stated_length, _, protocol = _SECTION_HEADER.unpack_from(content, place)
    if stated_number != number or (length is not None and stated_length != length):
        raise _damaged(path, number)
    if not _SECTION_HEADER.size <= stated_length <= len(content) - place:
        raise _damaged(path, number)
    if protocol >= 30:
        raise EcgFileError(
            f"{path}: got SCP-ECG version {protocol / 10:g}, expected 1 or 2. Export it in version 2, or to another "
            "format."
        )
    if _checksum(content[place + 2 : place + stated_length]) != checksum:
        raise EcgFileError(f"{path}: the checksum of section {number} does not hold. It is corrupt: export it again.")
    return content[place + _SECTION_HEADER.size : place + stated_length]


def _checksum(content: bytes) -> int:
    """CRC-CCITT with all bits set at the start, as EN 1064 has it for the file and each section."""
    return binascii.crc_hqx(content, 0xFFFF)


def _damaged(path: Path, number: int) -> EcgFileError:
    """Make the error of a section that cannot be what it should."""
    return EcgFileError(
        f"{path}: section {number} is not where, as long, or what the file's pointers and leads say. The file is "
        "damaged: export it again."
    )


def _needed(path: Path, sections: dict[int, bytes], number: int) -> bytes:
    """Return a section that must be there."""
    if number not in sections:
        raise EcgFileError(f"{path}: section {number} is missing, expected leads (3) and rhythm data (6).")
    return sections[number]


def _leads(path: Path, sections: dict[int, bytes]) -> _Leads:
    """Take section 3 apart."""
    section = _needed(path, sections, 3)
    if len(section) < 2 or len(section) < 2 + section[0] * _LEAD.size or section[0] == 0:
        raise _damaged(path, 3)
    if section[1] & 1:
        raise EcgFileError(
            f"{path}: a reference beat is subtracted from the rhythm data, expected the data as recorded. Export the "
            "recording without reference beat subtraction, or to another format."
        )
    leads = list(_LEAD.iter_unpack(section[2 : 2 + section[0] * _LEAD.size]))
    spans = {(first, last) for first, last, _ in leads}
    first, last = leads[0][:2]
    if len(spans) > 1 or last < first:
        raise EcgFileError(
            f"{path}: got leads that begin or end at different samples, expected leads of one time. Export them "
            "as recorded together, or to another format."
        )
    return _Leads([number for _, _, number in leads], last - first + 1)


def _is_packed(path: Path, sections: dict[int, bytes]) -> bool:
    """Say whether the data are coded by the default Huffman table: without section 2 they are plain 16-bit numbers."""
    if 2 not in sections:
        return False
    if sections[2][:2] != struct.pack("<H", _DEFAULT_TABLE):
        raise EcgFileError(
            f"{path}: got Huffman tables of the file's own, expected the default table or none. Export the recording "
            "with the default table, or to another format."
        )
    return True


def _coded_leads(path: Path, rhythm: bytes, num_leads: int) -> list[bytes]:
    """Return the bytes of each lead in section 6."""
    lengths = struct.unpack_from(f"<{num_leads}H", rhythm, 6)
    ends = 6 + 2 * num_leads + np.cumsum(lengths)
    if ends[-1] > len(rhythm):
        raise _damaged(path, 6)
    return [rhythm[end - length : end] for end, length in zip(ends.tolist(), lengths, strict=True)]


def _decode_lead(path: Path, coded: bytes, num_samples: int, order: int, is_packed: bool) -> np.ndarray:
    """Return the samples of a lead; the first `order` numbers are samples, the others differences of that order."""
    # Before memory is asked for: a code has one bit at least.
    if num_samples > (8 * len(coded) if is_packed else len(coded) // 2):
        raise EcgFileError(
            f"{path}: got {len(coded)} bytes for a lead, expected {num_samples} samples. The file is damaged: export "
            "it again."
        )
    if is_packed:
        numbers = _unpacked(path, coded, num_samples)
    else:
        numbers = np.frombuffer(coded, dtype="<i2", count=num_samples).astype(np.int64)
    if order == 2 and num_samples > 1:
        slopes = np.cumsum(np.concatenate(([numbers[1] - numbers[0]], numbers[2:])))
        return numbers[0] + np.concatenate(([0], np.cumsum(slopes)))
    return np.cumsum(numbers) if order == 1 else numbers


def _unpacked(path: Path, coded: bytes, num_samples: int) -> np.ndarray:
    """Decode the default Huffman table.

    0 is "0"; from 1 to 8, n ones, a zero and a bit for the sign; after 9 ones and a zero, a number of 8 bits; after 10
    ones, one of 16 bits.
    """
    bits = "".join(f"{byte:08b}" for byte in coded)
    numbers = np.empty(num_samples, dtype=np.int64)
    place = 0
    for index in range(num_samples):
        zero = bits.find("0", place, place + _ONES_BEFORE_16_BITS)
        ones = _ONES_BEFORE_16_BITS if zero < 0 else zero - place
        if ones >= _ONES_BEFORE_8_BITS:
            width = 8 if ones == _ONES_BEFORE_8_BITS else 16
            start = place + 10
            place = start + width
            number = int(bits[start:place] or "0", 2)
            numbers[index] = number - (1 << width) if number >> (width - 1) else number
        elif ones:
            place += ones + 2
            numbers[index] = -ones if bits[place - 1 : place] == "1" else ones
        else:
            place += 1
            numbers[index] = 0
        if place > len(bits):
            raise EcgFileError(
                f"{path}: got {index} samples of a lead, expected {num_samples}. The file is damaged: export it again."
            )
    return numbers
