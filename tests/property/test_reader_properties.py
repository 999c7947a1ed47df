"""What is written comes back: any float signal as text and NumPy exactly, as EDF to half a step of its 16 bits."""

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyedflib
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.signal.records import read_ecg

EXAMPLES = settings(
    max_examples=int(os.environ.get("ECGBYTE_HYPOTHESIS_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # on a machine that is busy with other things
)
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 30))
ANY_FLOATS = st.floats(-1e6, 1e6) | st.just(np.nan)


def signals(elements):
    return SHAPES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=elements))


@EXAMPLES
@given(
    signal=signals(ANY_FLOATS),
    separator=st.sampled_from([",", "\t", ";", " "]),
    has_header=st.booleans(),
    has_time=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_text(signal, separator, has_header, has_time, end):
    signal[0, 0] = 1.5  # a row without any number is no table's beginning
    names = CLINICAL_LEADS[: len(signal)]
    has_time = has_time and has_header and signal.shape[1] > 1
    lines = [separator.join(repr(float(value)) for value in column) for column in signal.T]
    if has_time:
        lines = [f"{index / 250!r}{separator}{line}" for index, line in enumerate(lines)]
    if has_header:
        # "time(s)" without a blank, which would separate the columns of a table of blanks.
        lines = [separator.join((*(["time(s)"] if has_time else []), *names)), *lines]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ecg.csv"
        path.write_bytes(end.join(lines).encode())
        stated = {} if has_time else {"sampling_rate": 250}
        if not has_header:
            stated["lead_names"] = names
        record = read_ecg(path, units="mV", **stated)
    np.testing.assert_array_equal(record.signal, signal)
    assert (record.lead_names, record.sampling_rate) == (names, 250.0)


@EXAMPLES
@given(
    signal=signals(ANY_FLOATS),
    dtype=st.sampled_from(["<f8", ">f8", "<f4"]),
    is_transposed=st.booleans(),
    by_columns=st.booleans(),
    suffix=st.sampled_from([".npy", ".npz"]),
)
def test_numpy(signal, dtype, is_transposed, by_columns, suffix):
    # A square says nothing of its axes: `test_read_numpy.py` sees that it is refused.
    assume(signal.shape[0] != signal.shape[1] or len(signal) == 1)
    names = CLINICAL_LEADS[: len(signal)]
    array = np.array(signal, dtype=dtype)
    stored = array.T if is_transposed else array
    stored = np.asfortranarray(stored) if by_columns else np.ascontiguousarray(stored)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"ecg{suffix}"
        if suffix == ".npy":
            np.save(path, stored)
        else:
            np.savez_compressed(path, signal=stored)
        record = read_ecg(path, sampling_rate=250, units="mV", lead_names=names)
    np.testing.assert_array_equal(record.signal, array)


@EXAMPLES
@given(
    signal=signals(st.floats(-30, 30)).filter(lambda array: array.shape[1] >= 2),
    rate=st.sampled_from([1, 50, 250]),
    unit=st.sampled_from(["mV", "uV"]),
)
def test_edf(signal, rate, unit):
    """One record of data holds a second, and `pyedflib` fills the last one up; what was written is its beginning."""
    names = CLINICAL_LEADS[: len(signal)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `pyedflib` warns of sizes that are no whole seconds
        path = Path(folder) / "ecg.edf"
        with pyedflib.EdfWriter(str(path), len(signal), file_type=pyedflib.FILETYPE_EDFPLUS) as file:
            for index, name in enumerate(names):
                file.setLabel(index, f"ECG {name}")
                file.setPhysicalDimension(index, unit)
                file.setSamplefrequency(index, rate)
                file.setPhysicalMinimum(index, -30)
                file.setPhysicalMaximum(index, 30)
                file.setDigitalMinimum(index, -32768)
                file.setDigitalMaximum(index, 32767)
            file.writeSamples(list(signal))
        record = read_ecg(path)
    assert (record.lead_names, record.sampling_rate) == (names, rate)
    factor = 1 if unit == "mV" else 1e-3
    # `pyedflib` cuts to a whole step instead of rounding.
    step = 60 / 65535
    np.testing.assert_allclose(
        record.signal[:, : signal.shape[1]], signal * factor, rtol=0, atol=step * factor * 1.001
    )
