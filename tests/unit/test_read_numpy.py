"""NumPy files: arrays by name, which axis is time, and no object is ever loaded."""

import io
import struct
import zipfile

import numpy as np
import pytest
from readers import GIVEN, assert_anonymous, refuse

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.signal.records import read_ecg

SIGNAL = np.array([[0.5, -1.25, 2.0, 0.0], [1.0, 3.5, -0.75, 1e-3]])
NAMES = ["I", "V1"]
FULL = {"sampling_rate": 360, "lead_names": NAMES, "units": "uV"}


def npy(header: dict | str, content: bytes = b"", version=(1, 0)) -> bytes:
    text = (header if isinstance(header, str) else repr(header)).encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + content


@pytest.mark.parametrize("array", [SIGNAL, SIGNAL.T, SIGNAL.astype(">f4"), np.asfortranarray(SIGNAL)])
def test_an_array(tmp_path, array):
    np.save(tmp_path / "ecg.npy", array)
    record = read_ecg(tmp_path / "ecg.npy", lead_names=NAMES, **GIVEN)
    np.testing.assert_allclose(record.signal, SIGNAL, rtol=1e-6)
    assert (record.lead_names, record.sampling_rate) == (("I", "V1"), 500.0)
    assert record.source == {"format": "numpy", "units": ["mV", "mV"], "gains": [1.0, 1.0]}


def test_integers_and_one_lead(tmp_path):
    np.save(tmp_path / "ecg.npy", np.array([1, -2, 3], dtype=np.int16))
    record = read_ecg(tmp_path / "ecg.npy", lead_names=["II"], sampling_rate=100, units="uV")
    np.testing.assert_allclose(record.signal, [[0.001, -0.002, 0.003]])
    assert record.signal.dtype == np.float64


def test_what_must_be_given(tmp_path):
    np.save(tmp_path / "ecg.npy", SIGNAL)
    refuse(tmp_path / "ecg.npy", SamplingRateError, "no sampling rate and no lead names and no units")
    refuse(tmp_path / "ecg.npy", LeadError, "got 3 lead names for a signal of shape", lead_names=["I", "II", "V1"])
    np.save(tmp_path / "ecg.npy", SIGNAL[:, :2])
    refuse(tmp_path / "ecg.npy", LeadError, "which of the axes is time cannot be known", lead_names=NAMES, **GIVEN)
    np.save(tmp_path / "ecg.npy", SIGNAL[None])
    refuse(tmp_path / "ecg.npy", EcgFileError, r"signal of shape \(1, 2, 4\)", lead_names=NAMES, **GIVEN)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_that_states_everything(tmp_path, save):
    save(tmp_path / "ecg.npz", x=SIGNAL * 1000, fs=360, lead_names=NAMES, units="uV", patient="Jane Doe", id=[4711])
    record = read_ecg(tmp_path / "ecg.npz")
    np.testing.assert_allclose(record.signal, SIGNAL, rtol=1e-15)
    assert (record.sampling_rate, record.lead_names, record.source["units"]) == (360.0, ("I", "V1"), ["uV", "uV"])
    assert_anonymous(record)
    refuse(tmp_path / "ecg.npz", SamplingRateError, "got sampling_rate=500", sampling_rate=500)


def test_an_archive_that_states_some(tmp_path):
    np.savez(tmp_path / "ecg.npz", signal=SIGNAL, units=["mV", "uV"], other=SIGNAL)
    record = read_ecg(tmp_path / "ecg.npz", sampling_rate=500, lead_names=NAMES, leads=["V1"])
    np.testing.assert_allclose(record.signal, SIGNAL[1:] / 1000)
    refuse(tmp_path / "ecg.npz", UnitError, "got units='mV'", units="mV", sampling_rate=500, lead_names=NAMES)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"a": SIGNAL, "b": SIGNAL}, EcgFileError, "got 2 matrices of numbers and none named signal"),
        ({"a": SIGNAL[0]}, EcgFileError, "got 0 matrices"),
        ({"ecg": SIGNAL, "val": SIGNAL}, EcgFileError, "got ecg, val, expected one of them"),
        ({"ecg": SIGNAL, "fs": [500, 500]}, SamplingRateError, "got a sampling rate of shape"),
        ({"ecg": SIGNAL, "leads": [1, 2]}, LeadError, "got lead_names of type int64, expected texts"),
        ({"ecg": SIGNAL, "units": ["mV", "mV", "mV"]}, LeadError, "got 3 units"),
        ({"ecg": SIGNAL + 1j}, EcgFileError, "of type complex128"),
    ],
)
def test_archives_that_are_refused(tmp_path, arrays, error, message):
    np.savez(tmp_path / "ecg.npz", **arrays)
    given = {key: value for key, value in FULL.items() if key == "lead_names" or "units" not in arrays}
    refuse(tmp_path / "ecg.npz", error, message, **given)


class Bomb:
    """Leaves a mark if it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("an object was loaded",))


def test_objects_are_never_loaded(tmp_path):
    array = np.empty((2, 4), dtype=object)
    array[:] = Bomb()
    np.save(tmp_path / "ecg.npy", array, allow_pickle=True)
    refuse(tmp_path / "ecg.npy", EcgFileError, "Objects are pickles and are not read", **FULL)
    np.savez(tmp_path / "ecg.npz", signal=array)
    refuse(tmp_path / "ecg.npz", EcgFileError, "Objects are pickles and are not read", **FULL)
    np.savez(tmp_path / "ecg.npz", signal=SIGNAL, notes=array)
    assert read_ecg(tmp_path / "ecg.npz", **FULL).signal.shape == (2, 4)


HEADER = {"descr": "<f8", "fortran_order": False, "shape": (2, 4)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(HEADER, SIGNAL.tobytes()[:-1]), "got 63 bytes of an array, expected 64"),
        (npy(HEADER, SIGNAL.tobytes() + b"1"), "got 65 bytes of an array, expected 64"),
        (npy(HEADER | {"shape": (2, 1 << 40)}, SIGNAL.tobytes()), "got 64 bytes of an array, expected 17592186044416"),
        (npy(HEADER | {"shape": (1 << 62, 1 << 62)}, SIGNAL.tobytes()), "got 64 bytes of an array"),
        (npy(HEADER | {"shape": (-2, -4)}, SIGNAL.tobytes()), "got 64 bytes of an array"),
        (npy(HEADER | {"shape": (0, 1 << 62)}), "got 0 bytes of an array"),
        (npy(HEADER | {"descr": "<U0"}), "got 0 bytes of an array"),
        (npy(HEADER | {"descr": [("a", "<f8")]}, SIGNAL.tobytes()), "got an array of type"),
        (npy(HEADER | {"descr": "|V8"}, SIGNAL.tobytes()), "got an array of type"),
        (npy("{'descr': __import__('os')}"), "header of a NumPy array cannot be read"),
        (npy("(" * 5000), "header of a NumPy array cannot be read"),
        (npy(HEADER, version=(3, 0)), "header of a NumPy array cannot be read"),
        (b"\x93NUM", "header of a NumPy array cannot be read"),
        (b"", "header of a NumPy array cannot be read"),
        (b"PK\x03\x04 no archive", "not a NumPy archive"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    (tmp_path / "ecg.npy").write_bytes(content)
    refuse(tmp_path / "ecg.npy", EcgFileError, message, **FULL)


def test_version_2(tmp_path):
    (tmp_path / "ecg.npy").write_bytes(npy(HEADER, SIGNAL.tobytes(), version=(2, 0)))
    assert read_ecg(tmp_path / "ecg.npy", **FULL).signal.shape == (2, 4)


def test_a_truncated_archive_and_a_bomb(tmp_path):
    path = tmp_path / "ecg.npz"
    np.savez(path, signal=SIGNAL)
    content = path.read_bytes()
    for size in (10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        refuse(path, EcgFileError, "not a NumPy archive", **FULL)
    place = content.index(SIGNAL.tobytes())
    path.write_bytes(content[:place] + b"!" + content[place + 1 :])
    refuse(path, EcgFileError, "not a NumPy archive", **FULL)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("signal.npy", npy(HEADER, SIGNAL.tobytes()))
    # The directory claims a terabyte: what it says is looked at before anything is unpacked.
    directory = bytearray(stream.getvalue())
    entry = directory.index(b"PK\x01\x02")
    directory[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(directory)
    refuse(path, EcgFileError, "the arrays take 4294967280 bytes unpacked, expected at most", **FULL)
