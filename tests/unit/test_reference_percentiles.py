import io
import struct

import numpy as np
import pytest

from ecgbyte_hf.hub.reference_percentiles import read_percentiles
from ecgbyte_hf.models.calibration_ecg_byte import EcgCalibration
from ecgbyte_hf.models.errors_ecg_byte import CalibrationError, EcgFileError


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def dtype(code: str, order: str) -> bytes:
    flags = b"K\x3f" if code == "O8" else b"K\x00"  # of objects: counted, and not raw bytes
    state = b"(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + flags + b"t"
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R" + state + b"b"


def scalar(value: float, module: str, code: str = "f8", order: str = "<") -> bytes:
    form = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}[code]
    content = struct.pack(order + form, value)
    return f"c{module}\nscalar\n".encode() + dtype(code, order) + b"C" + bytes([len(content)]) + content + b"\x86R"


def number(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def npy(
    items: dict[str, bytes], module: str = "numpy.core.multiarray", shape: bytes = b")", kind: str = "O8"
) -> bytes:
    """The file that `np.save` writes for a dictionary, opcode by opcode."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    table = b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"
    array = f"c{module}\n_reconstruct\n".encode() + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return file.getvalue() + b"\x80\x03" + array + b"(K\x01" + shape + dtype(kind, "|") + b"\x89](" + table + b"etb."


class TestPercentiles:
    def read(self, tmp_path, content: bytes) -> EcgCalibration:
        (tmp_path / "stats.npy").write_bytes(content)
        return read_percentiles(tmp_path / "stats.npy")

    def refuse(self, tmp_path, content: bytes, error: type, match: str) -> None:
        with pytest.raises(error, match=match) as caught:
            self.read(tmp_path, content)
        assert str(caught.value).startswith(str(tmp_path / "stats.npy"))

    @pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
    @pytest.mark.parametrize(("code", "order"), [("f8", "<"), ("f8", ">"), ("f4", "<"), ("f2", "<"), ("i8", "<")])
    def test_both_modules_and_all_number_types(self, tmp_path, module, code, order):
        low, high = (-1, 2) if code == "i8" else (-0.75, 1.25)
        items = {
            "percentile_1": scalar(low, module, code, order),
            "global_min": scalar(-9, module),
            "percentile_99": scalar(high, module, code, order),
            "skipped_instances": b"K\x05",
        }
        got = self.read(tmp_path, npy(items, module))
        assert got == EcgCalibration("percentile", low - 0.5, high + 0.5)

    def test_written_by_hand_is_what_numpy_reads(self, tmp_path):
        module = "numpy._core.multiarray" if np.__version__ >= "2" else "numpy.core.multiarray"
        content = npy({"percentile_1": scalar(-0.75, module), "percentile_99": scalar(1.25, module)}, module)
        (tmp_path / "stats.npy").write_bytes(content)
        table = np.load(tmp_path / "stats.npy", allow_pickle=True).item()
        assert table == {"percentile_1": -0.75, "percentile_99": 1.25}

    @pytest.mark.parametrize("kind", [float, np.float64, np.float32, int])
    def test_written_by_numpy(self, tmp_path, kind):
        table = {"global_min": kind(-8), "percentile_1": kind(-1), "percentile_99": kind(2), "skipped_instances": 3}
        np.save(tmp_path / "stats.npy", table)
        assert read_percentiles(tmp_path / "stats.npy") == EcgCalibration.from_percentiles(-1, 2)

    @pytest.mark.parametrize(
        ("low", "high", "match"),
        [
            (number(float("nan")), number(1), "percentile_1 is nan, expected a finite number"),
            (number(0), number(float("inf")), "percentile_99 is inf"),
            (scalar(float("nan"), "numpy.core.multiarray"), number(1), "percentile_1 is nan"),
            (number(1), number(1), "expected the 1st below the 99th"),
            (number(2), number(1), "expected the 1st below the 99th"),
            (text("0.5"), number(1), "percentile_1 is a str"),
            (b"N", number(1), "percentile_1 is a NoneType"),
            (b"\x88", number(1), "percentile_1 is a bool"),
            (b"]", number(1), "percentile_1 is a list"),
            (dtype("f8", "<"), number(1), "percentile_1 is a Call"),
            (b"cnumpy\ndtype\n", number(1), "percentile_1 is a Name"),
        ],
    )
    def test_values(self, tmp_path, low, high, match):
        self.refuse(tmp_path, npy({"percentile_1": low, "percentile_99": high}), CalibrationError, match)

    def test_scalars_that_are_none(self, tmp_path):
        module = "numpy.core.multiarray"
        good = scalar(0.0, module)
        for bad in (good.replace(b"C\x08" + bytes(8), b"C\x07" + bytes(7)), good.replace(b"f8", b"O8")):
            assert bad != good
            content = npy({"percentile_1": bad, "percentile_99": number(1)})
            self.refuse(tmp_path, content, CalibrationError, "percentile_1 is a Call")

    def test_missing(self, tmp_path):
        self.refuse(tmp_path, npy({"percentile_1": number(0)}), CalibrationError, "without 'percentile_99'")

    @pytest.mark.parametrize(
        "content",
        [
            npy({}, shape=b"J\x00\x00\x00\x40\x85"),  # 2**30 objects
            npy({}, kind="f8"),
            npy({}).replace(b"](}(ue", b"](}}e"),
            npy({}).replace(b"](}(ue", b"}"),
            npy({}).replace(b"K\x00\x85C", b"J\xff\xff\xff\x7f\x85C"),
            npy({}).replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"),
        ],
    )
    def test_other_arrays(self, tmp_path, content):
        assert content != npy({})
        self.refuse(tmp_path, content, EcgFileError, "not that of one dictionary in an array")

    @pytest.mark.parametrize("array", [np.zeros(3), np.zeros((12, 500)), np.array([None, None], dtype=object)])
    def test_other_headers(self, tmp_path, array):
        np.save(tmp_path / "stats.npy", array)
        with pytest.raises(EcgFileError, match="expected one dictionary"):
            read_percentiles(tmp_path / "stats.npy")

    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{" + b"(" * 200, b"PK\x03\x04"])
    def test_damaged_headers(self, tmp_path, content):
        self.refuse(tmp_path, content, EcgFileError, "header of a NumPy array cannot be read")

    @pytest.mark.parametrize(
        ("asked", "match"),
        [
            (b"cos\nsystem\n", "asks for 'os.system'"),
            (b"cnumpy\nload\n", "asks for 'numpy.load'"),
            (b"cnumpy.core.multiarray\narray\n", "asks for 'numpy.core.multiarray.array'"),
            (b"c_codecs\nencode\n", "asks for '_codecs.encode'"),
        ],
    )
    def test_other_globals(self, tmp_path, asked, match):
        self.refuse(tmp_path, npy({"percentile_1": asked, "percentile_99": number(1)}), EcgFileError, match)

    def test_large_files(self, tmp_path):
        self.refuse(tmp_path, npy({}) + bytes(1 << 20), EcgFileError, "more than 1048576 bytes")
