"""MATLAB files without a WFDB header: written here by `scipy`, and real ones of two makers."""

import io
import struct
import zlib

import numpy as np
import pytest
from readers import GIVEN, assert_anonymous, refuse
from scipy.io import loadmat, savemat

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.signal.records import read_ecg

SIGNAL = np.array([[0.5, -1.25, 2.0, 0.0], [1.0, 3.5, -0.75, 1e-3]])
FULL = {**GIVEN, "lead_names": ["I", "V1"]}


@pytest.mark.parametrize("name", ["data", "val", "ecg", "anything"])
@pytest.mark.parametrize("settings", [{"format": "4"}, {"format": "5"}, {"do_compression": True}])
def test_a_matrix(tmp_path, name, settings):
    savemat(tmp_path / "ecg.mat", {name: SIGNAL}, **settings)
    record = read_ecg(tmp_path / "ecg.mat", **FULL)
    np.testing.assert_array_equal(record.signal, SIGNAL)
    assert (record.sampling_rate, record.lead_names) == (500.0, ("I", "V1"))
    assert record.source == {"format": "mat", "units": ["mV", "mV"], "gains": [1.0, 1.0]}
    refuse(tmp_path / "ecg.mat", SamplingRateError, "states no sampling rate and no lead names and no units")


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_that_states_everything(tmp_path, compress):
    names = np.array(["I", "V1"], dtype=object)
    fields = {"val": SIGNAL.T * 1000, "fs": 250, "leads": names, "units": "uV", "name": "Jane Doe", "born": 19510203}
    savemat(tmp_path / "ecg.mat", fields, do_compression=compress)
    record = read_ecg(tmp_path / "ecg.mat")
    np.testing.assert_allclose(record.signal, SIGNAL, rtol=1e-15)
    assert (record.sampling_rate, record.lead_names, record.source["units"]) == (250.0, ("I", "V1"), ["uV", "uV"])
    assert_anonymous(record)
    savemat(tmp_path / "ecg.mat", {"val": SIGNAL, "lead_names": np.array(["I ", "V1"])})
    assert read_ecg(tmp_path / "ecg.mat", **GIVEN).lead_names == ("I", "V1")


def test_a_struct(tmp_path):
    savemat(tmp_path / "ecg.mat", {"ECG": {"sex": "Male", "age": 52, "data": SIGNAL, "name": "Jane Doe"}})
    record = read_ecg(tmp_path / "ecg.mat", **FULL)
    np.testing.assert_array_equal(record.signal, SIGNAL)
    assert_anonymous(record, ["Male", "52", "Doe"])
    savemat(tmp_path / "ecg.mat", {"ECG": {"data": SIGNAL}, "data": SIGNAL})
    refuse(tmp_path / "ecg.mat", EcgFileError, "got 'data' twice", **FULL)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"a": SIGNAL, "b": SIGNAL}, "got 2 matrices of numbers"),
        ({"a": 5}, "got 0 matrices"),
        ({"data": "text"}, "got a signal of shape"),
        ({"data": SIGNAL + 1j}, "got 0 matrices of numbers"),
    ],
)
def test_variables_that_are_refused(tmp_path, variables, message):
    savemat(tmp_path / "ecg.mat", variables)
    refuse(tmp_path / "ecg.mat", EcgFileError, message, **FULL)


def test_what_no_recording_needs_is_passed_over(tmp_path):
    others = {"patient": {"name": "Jane Doe", "born": {"year": 1951}}, "mixed": np.array([1, "a"], dtype=object)}
    others |= {"empty": [], "nested": {"inner": {"data": SIGNAL}}, "complex": np.array([[1j, 2], [3, 4]])}
    others |= {"cube": np.zeros((2, 2, 2)), "many": np.array([(1,), (2,)], dtype=[("data", "f8")])}
    savemat(tmp_path / "ecg.mat", others | {"val": SIGNAL.astype(np.float32), "fs": np.uint16(500), "unit": "uV"})
    record = read_ecg(tmp_path / "ecg.mat", lead_names=["I", "V1"])
    np.testing.assert_allclose(record.signal, SIGNAL.astype(np.float32) * 1e-3)
    assert_anonymous(record)


VERSION_4 = ("u1", "i2", "u2", "i4", "f4", "f8")


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [(dtype, {"format": "4"}) for dtype in VERSION_4]
    + [(dtype, {"do_compression": True}) for dtype in (*VERSION_4, "i1", "u4", "i8", "u8")],
)
def test_types_of_numbers(tmp_path, dtype, settings):
    steps = np.arange(2, 12).reshape(2, 5).astype(dtype)
    savemat(tmp_path / "ecg.mat", {"val": steps}, **settings)
    np.testing.assert_array_equal(read_ecg(tmp_path / "ecg.mat", **FULL).signal, steps)


def test_big_endian_files(tmp_path):
    """Both versions, written here byte by byte: `savemat` writes the machine's order."""
    path = tmp_path / "ecg.mat"
    path.write_bytes(struct.pack(">5i", 1000, 2, 4, 0, 5) + b"data\0" + SIGNAL.T.astype(">f8").tobytes())
    np.testing.assert_array_equal(read_ecg(path, **FULL).signal, SIGNAL)
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 2, 4) + struct.pack(">HH4s", 4, 1, b"data")
    body += struct.pack(">II", 9, 64) + SIGNAL.T.astype(">f8").tobytes()
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body)
    np.testing.assert_array_equal(read_ecg(path, **FULL).signal, SIGNAL)


@pytest.mark.parametrize("settings", [{"format": "4"}, {"format": "5"}, {"do_compression": True}])
def test_truncated_files(tmp_path, settings):
    path = tmp_path / "ecg.mat"
    savemat(path, {"data": SIGNAL, "other": SIGNAL}, **settings)
    content = path.read_bytes()
    for size in (0, 4, 19, 100, 127, 130, len(content) // 2 + 40, len(content) - 1):
        path.write_bytes(content[: min(size, len(content) - 1)])
        refuse(path, EcgFileError, "truncated or damaged|cut short|got 0 matrices", **FULL)


def test_no_matlab_file(tmp_path):
    path = tmp_path / "ecg.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(126) + b"IM" + b"\x89HDF")
    refuse(path, EcgFileError, "got a MATLAB 7.3 file, expected version 7.2 or older. Save it with '-v7'", **FULL)
    path.write_bytes(b"not a matrix at all, but a text that goes on for a while" * 10)
    refuse(path, EcgFileError, "It is no MATLAB file", **FULL)


def test_absurd_sizes_are_refused_before_memory_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "ecg.mat"
    path.write_bytes(struct.pack("<5i", 0, 1 << 30, 1 << 30, 0, 5) + b"data\0" + bytes(100))
    refuse(path, EcgFileError, "got 125 bytes, expected 9223372036854775833 for a matrix", **FULL)
    savemat(path, {"data": SIGNAL})
    content = path.read_bytes()
    sized = content.replace(struct.pack("<II", 2, 4), struct.pack("<II", 1 << 20, 1 << 20))
    assert sized != content
    path.write_bytes(sized)
    refuse(path, EcgFileError, "got 64 bytes of numbers, expected 8796093022208", **FULL)
    path.write_bytes(content[:132] + struct.pack("<I", 0xFFFFFF00) + content[136:])
    refuse(path, EcgFileError, "expected 4294967048 as the tag of an element says", **FULL)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    from ecgbyte_hf.signal import mat_format

    monkeypatch.setattr(mat_format, "_LARGEST_UNPACKED", 1 << 16)
    path = tmp_path / "ecg.mat"
    savemat(path, {"data": np.zeros((2, 1 << 16))}, do_compression=True)
    assert path.stat().st_size < 4096
    refuse(path, EcgFileError, "its content is larger than 65536 bytes", **FULL)
    content = path.read_bytes()
    path.write_bytes(content[:150] + b"!!" + content[152:])
    refuse(path, EcgFileError, "a compressed variable (is|cannot)", **FULL)


def test_the_struct_of_cpsc_2018(test_data):
    """`A1980.mat`, its one compressed variable unpacked here by `zlib` and searched for the matrix (12, 5000)."""
    path = test_data / "ood/cpsc2018_original_mat/A1980.mat"
    content = path.read_bytes()
    plain = zlib.decompress(content[136:])
    place = plain.index(struct.pack("<IIII", 5, 8, 12, 5000))
    size = struct.unpack_from("<I", plain, place + 28)[0]
    assert plain[place + 24 : place + 28] == struct.pack("<I", 9) and size == 8 * 60000
    expected = np.frombuffer(plain, "<f8", 60000, place + 32).reshape(5000, 12).T
    record = read_ecg(path, **GIVEN, lead_names=CLINICAL_LEADS)
    np.testing.assert_array_equal(record.signal, expected)
    np.testing.assert_allclose(record.signal[0] + record.signal[2], record.signal[1], atol=0.02)
    assert_anonymous(record, ["Male", "52"])
    refuse(path, LeadError, "got 3 lead names", **GIVEN, lead_names=["I", "II", "III"])


def test_a_plain_matrix(test_data):
    """`example_ecg.mat`: a matrix `data` of doubles that ends the file, column after column."""
    path = test_data / "ood/mat_plain/example_ecg.mat"
    content = path.read_bytes()
    expected = np.frombuffer(content, "<f8", 60000, len(content) - 480000).reshape(5000, 12).T
    record = read_ecg(path, **GIVEN, lead_names=CLINICAL_LEADS)
    np.testing.assert_array_equal(record.signal, expected)
    np.testing.assert_array_equal(expected, loadmat(io.BytesIO(content))["data"])


def test_a_challenge_file_without_its_header(test_data, tmp_path):
    source = test_data / "ood/georgia/E07500.mat"
    (tmp_path / "E07500.mat").write_bytes(source.read_bytes())
    record = read_ecg(tmp_path / "E07500.mat", sampling_rate=500, units="uV", lead_names=CLINICAL_LEADS)
    np.testing.assert_allclose(record.signal, read_ecg(source).signal, rtol=1e-12)
    assert (record.source["format"], read_ecg(source).source["format"]) == ("mat", "wfdb")
