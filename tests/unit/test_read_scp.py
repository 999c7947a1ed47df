"""SCP-ECG: recordings coded here bit by bit from the table of EN 1064, and a real one decoded by that table."""

import binascii
import struct

import numpy as np
import pytest
from readers import assert_anonymous, refuse, some_ecg

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.signal.records import read_ecg

STEPS = some_ecg(2, 60)

#: EN 1064, default Huffman table: code -> value; behind the last two stands a number of 8 or 16 bits.
TABLE = {"0": 0, "100": 1, "101": -1, "1100": 2, "1101": -2, "11100": 3, "11101": -3, "111100": 4, "111101": -4}
TABLE |= {"1111100": 5, "1111101": -5, "11111100": 6, "11111101": -6, "111111100": 7, "111111101": -7}
TABLE |= {"1111111100": 8, "1111111101": -8}
ESCAPES = {"1111111110": 8, "1111111111": 16}


def coded(values) -> bytes:
    codes = {value: code for code, value in TABLE.items()}
    bits = ""
    for value in map(int, values):
        if value in codes:
            bits += codes[value]
        elif -128 <= value < 128:
            bits += "1111111110" + f"{value & 0xFF:08b}"
        else:
            bits += "1111111111" + f"{value & 0xFFFF:016b}"
    bits += "0" * (-len(bits) % 16)
    return bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))


def decoded(content: bytes, count: int) -> list[int]:
    """Look the codes up one after another."""
    bits = "".join(f"{byte:08b}" for byte in content)
    values, place = [], 0
    while len(values) < count:
        code = next(bits[place : place + n] for n in range(1, 11) if bits[place : place + n] in TABLE | ESCAPES)
        place += len(code)
        width = ESCAPES.get(code, 0)
        number = int(bits[place : place + width], 2) if width else 0
        values.append(TABLE.get(code, number - (1 << width) if width and number >> (width - 1) else number))
        place += width
    return values


def differences(row, order):
    """The first `order` numbers are samples."""
    row = row.astype(np.int64)
    return np.concatenate((row[:order], np.diff(row, order)))


def section(number: int, content: bytes, protocol: int = 13) -> bytes:
    if not content:
        return b""
    content += b"\0" * (len(content) % 2)
    reserved = b"SCPECG" if number == 0 else bytes(6)
    rest = struct.pack("<HIBB6s", number, 16 + len(content), protocol, protocol, reserved) + content
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def file_of(sections: dict[int, bytes], protocol: int = 13) -> bytes:
    parts = {number: section(number, content, protocol) for number, content in sections.items()}
    place, pointers = 7 + 16 + 10 * 12, b""
    for number in range(12):
        part = parts.get(number, b"")
        length = 16 + 120 if number == 0 else len(part)
        pointers += struct.pack("<HII", number, length, 7 if number == 0 else place if part else 0)
        place += len(part)
    rest = section(0, pointers, protocol) + b"".join(parts[number] for number in sorted(parts))
    rest = struct.pack("<I", len(rest) + 6) + rest
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def recording(
    steps=STEPS,
    leads=(1, 62),
    order=2,
    nanovolts=2500,
    microseconds=2000,
    table=19999,
    flags=4,
    bimodal=0,
    spans=None,
    lengths=None,
) -> dict[int, bytes]:
    rows = [differences(row, order) for row in steps]
    data = [coded(row) if table else row.astype("<i2").tobytes() for row in rows]
    spans = spans or [(1, steps.shape[1])] * len(leads)
    sections = {1: b"\x00\x04\x00Doe\0\x01\x05\x00Jane\0\x02\x07\x00JD4711\0\x05\x04\x00\x9f\x07\x02\x03"}
    if table:
        sections[2] = struct.pack("<H", table)
    sections[3] = bytes([len(leads), flags]) + b"".join(
        struct.pack("<IIB", *span, lead) for span, lead in zip(spans, leads, strict=True)
    )
    sections[6] = struct.pack("<HHBB", nanovolts, microseconds, order, bimodal)
    sections[6] += struct.pack(f"<{len(leads)}H", *(lengths or map(len, data))) + b"".join(data)
    return sections


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("table", [19999, None])
@pytest.mark.parametrize("num_samples", [60, 2, 1])
def test_values(tmp_path, order, table, num_samples):
    steps = STEPS[:, :num_samples]
    path = write(tmp_path / "ecg.scp", file_of(recording(steps, order=order, table=table)))
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, steps * 2.5e-3, rtol=1e-12)
    assert (record.sampling_rate, record.lead_names) == (500.0, ("I", "aVR"))
    assert record.source == {"format": "scp", "units": ["nV", "nV"], "gains": [1 / 2500] * 2}
    assert_anonymous(record)


def test_every_code_of_the_table(tmp_path):
    steps = np.array([[*range(-10, 11), 127, 128, -128, -129, 32767, -32768, 255, 0]], dtype=np.int16)
    path = write(tmp_path / "ecg.scp", file_of(recording(steps, leads=(3,), order=0)))
    np.testing.assert_allclose(read_ecg(path).signal, steps * 2.5e-3, rtol=1e-12)
    assert decoded(coded(steps[0]), steps.shape[1]) == steps[0].tolist()


def test_leads_are_chosen_by_name_and_known_by_number(tmp_path):
    path = write(tmp_path / "without_suffix", file_of(recording(leads=(8, 200))))
    assert read_ecg(path).lead_names == ("V6", "SCP lead 200")
    np.testing.assert_allclose(read_ecg(path, leads=["v6"]).signal, STEPS[:1] * 2.5e-3)
    refuse(path, LeadError, "Missing lead I", leads=["I"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bimodal": 1}, EcgFileError, "got bimodal compression"),
        ({"flags": 5}, EcgFileError, "a reference beat is subtracted"),
        ({"table": 1}, EcgFileError, "Huffman tables of the file's own"),
        ({"microseconds": 0}, SamplingRateError, "got a sample interval of 0 us"),
        ({"nanovolts": 0}, UnitError, "scale of 0"),
        ({"spans": [(1, 60), (1, 61)]}, EcgFileError, "begin or end at different samples"),
        ({"spans": [(60, 1)] * 2}, EcgFileError, "begin or end at different samples"),
        ({"spans": [(1, 100)] * 2}, EcgFileError, r"got \d\d samples of a lead, expected 100"),
        ({"spans": [(1, 0xFFFFFFFF)] * 2}, EcgFileError, "bytes for a lead, expected 4294967295 samples"),
        ({"spans": [(1, 1 << 31)] * 2, "table": None}, EcgFileError, "120 bytes for a lead, expected 2147483648"),
        ({"lengths": [60000, 60000]}, EcgFileError, "section 6 is not where"),
        ({"lengths": [0, 0]}, EcgFileError, "got 0 bytes for a lead"),
    ],
)
def test_what_is_refused(tmp_path, change, error, message):
    refuse(write(tmp_path / "ecg.scp", file_of(recording(**change))), error, message)


@pytest.mark.parametrize(
    ("number", "content", "message"),
    [
        (3, b"", "section 3 is missing"),
        (6, b"", "section 6 is missing"),
        (3, b"\0\4", "section 3 is not where"),
        (3, b"\xff\4" + bytes(18), "section 3 is not where"),
        (6, b"\1\2\3\4", "section 6 is not where"),
    ],
)
def test_sections_that_are_missing_or_too_short(tmp_path, number, content, message):
    refuse(write(tmp_path / "ecg.scp", file_of(recording() | {number: content})), EcgFileError, message)


def test_checksums(tmp_path):
    content = file_of(recording())
    place = len(content) - 10
    corrupt = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    refuse(write(tmp_path / "ecg.scp", corrupt), EcgFileError, "the file's checksum does not hold")
    checksum = struct.pack("<H", binascii.crc_hqx(corrupt[2:], 0xFFFF))
    refuse(write(tmp_path / "ecg.scp", checksum + corrupt[2:]), EcgFileError, "checksum of section 6 does not hold")


def test_truncated_files_and_other_versions(tmp_path):
    content = file_of(recording())
    for size in (0, 5, 21, 100, len(content) - 1):
        refuse(write(tmp_path / "ecg.scp", content[:size]), EcgFileError, "truncated")
    np.testing.assert_allclose(read_ecg(write(tmp_path / "ecg.scp", content + b"\0\0")).signal, STEPS * 2.5e-3)
    newer = file_of(recording(), protocol=30)
    refuse(write(tmp_path / "ecg.scp", newer), EcgFileError, "got SCP-ECG version 3, expected 1 or 2")


def test_pointers_that_lead_elsewhere(tmp_path):
    content = file_of(recording())
    for place, length in ((len(content), 40), (7, 136), (0, 40), (1 << 31, 1 << 31)):
        changed = bytearray(content)
        changed[22 + 60 + 2 : 22 + 60 + 10] = struct.pack("<II", length, place)
        changed[6:8] = struct.pack("<H", binascii.crc_hqx(bytes(changed[8:142]), 0xFFFF))
        changed[:2] = struct.pack("<H", binascii.crc_hqx(bytes(changed[2:]), 0xFFFF))
        refuse(write(tmp_path / "ecg.scp", bytes(changed)), EcgFileError, "section 6 is not where")


def test_a_real_one(test_data):
    """`ECGToolkit_Example.scp`, section 6 at byte 0xEEA: 2500 nV, 2000 us, second differences, twelve lengths."""
    path = test_data / "ood/scp/ECGToolkit_Example.scp"
    content = path.read_bytes()
    place = 0xEEA + 16
    assert struct.unpack_from("<HHBB", content, place) == (2500, 2000, 2, 0)
    lengths = struct.unpack_from("<12H", content, place + 6)
    ends = place + 30 + np.cumsum(lengths)
    rows = []
    for end, length in zip(ends, lengths, strict=True):
        first, second, *bends = decoded(content[end - length : end], 5000)
        row = [first, second]
        for bend in bends:
            row.append(bend + 2 * row[-1] - row[-2])
        rows.append(row)
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, np.array(rows) * 2.5e-3, rtol=1e-12)
    assert record.signal.shape == (12, 5000) and record.sampling_rate == 500.0
    assert record.lead_names == ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "III", "aVR", "aVL", "aVF")
    np.testing.assert_allclose(record.signal[0] + record.signal[8], record.signal[1], atol=0.006)
    assert_anonymous(record, ["Clark", "SBJ-123", "2002", "ELI250", "ECGConversion"])
