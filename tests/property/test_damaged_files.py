"""A damaged file of any format gives a record or a typed refusal: never another exception, and never a crash."""

import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import test_read_aecg
import test_read_dicom
import test_read_edf
import test_read_muse
import test_read_scp
import test_read_sierra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from ecgbyte_hf.models.errors_ecg_byte import EcgError
from ecgbyte_hf.signal import scp_format
from ecgbyte_hf.signal.records import EcgRecord, read_ecg

EXAMPLES = settings(
    max_examples=int(os.environ.get("ECGBYTE_HYPOTHESIS_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SIGNAL = np.random.default_rng(0).normal(size=(2, 30))
GIVEN = {"sampling_rate": 500, "lead_names": ["I", "V1"], "units": "mV"}


def write_scp(path: Path) -> None:
    path.write_bytes(test_read_scp.file_of(test_read_scp.recording()))


def write_csv(path: Path) -> None:
    rows = [f"{index / 500:.3f},{one!r},{two!r}" for index, (one, two) in enumerate(SIGNAL.T.tolist())]
    path.write_text("\n".join(["time (s),I (mV),V1 (mV)", *rows]))


WRITERS: dict[str, Callable[[Path], object]] = {
    "aecg.xml": lambda path: path.write_text(test_read_aecg.document()),
    "muse.xml": lambda path: path.write_text(test_read_muse.document()),
    "sierra.xml": lambda path: path.write_text(test_read_sierra.document()),
    "ecg.scp": write_scp,
    "ecg.dcm": lambda path: test_read_dicom.write(path, test_read_dicom.group()),
    "ecg.edf": test_read_edf.write,
    "4.mat": lambda path: savemat(path, {"data": SIGNAL}, format="4"),
    "5.mat": lambda path: savemat(path, {"ECG": {"data": SIGNAL, "name": "x"}, "fs": 500}),
    "packed.mat": lambda path: savemat(path, {"data": SIGNAL, "units": "mV"}, do_compression=True),
    "ecg.npy": lambda path: np.save(path, SIGNAL),
    "ecg.npz": lambda path: np.savez_compressed(path, signal=SIGNAL, fs=500, units="mV"),
    "ecg.csv": write_csv,
}


@pytest.mark.parametrize("name", WRITERS)
@EXAMPLES
@given(
    places=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["set", "cut", "repeat"]), st.binary(max_size=8))),
    length=st.floats(0, 1) | st.just(1.0),
)
def test_a_damaged_file(tmp_path, name, places, length):
    """Bytes are overwritten, cut out or repeated, and the end cut off."""
    path, whole = tmp_path / name, tmp_path / "whole"
    if not whole.exists():
        WRITERS[name](path)
        path.rename(whole)
    content = bytearray(whole.read_bytes())
    for place, what, new in places:
        start = int(place * len(content))
        if what == "set":
            content[start : start + len(new)] = new
        elif what == "cut":
            del content[start : start + len(new)]
        else:
            content[start:start] = content[start - len(new) : start]
    path.write_bytes(content[: round(length * len(content))])
    given = GIVEN if name in ("4.mat", "packed.mat", "ecg.npy") else {}
    # SCP-ECG's checksums would refuse everything before it is looked at.
    with mock.patch.object(scp_format, "_checksum", lambda content: mock.ANY):
        try:
            record = read_ecg(path, **given)
        except EcgError as error:
            assert path.name in str(error)
        else:
            assert isinstance(record, EcgRecord) and record.signal.ndim == 2
