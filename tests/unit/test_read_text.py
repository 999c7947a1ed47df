"""Text tables: what the file states, what must be given, and what is refused."""

import numpy as np
import pytest
from readers import assert_anonymous, refuse

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.signal.records import read_ecg

SIGNAL = np.array([[0.5, -1.25, 2.0, 0.0], [1.0, 3.5, -0.75, 1e-3]])
BARE = {"sampling_rate": 500, "lead_names": ["I", "V1"], "units": "mV"}


def write(folder, text, name="ecg.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def rows(separator=",", end="\n"):
    return "".join(separator.join(repr(float(value)) for value in row) + end for row in SIGNAL.T)


@pytest.mark.parametrize("separator", [",", "\t", ";", " ", "   ", ", ", ";\t"[:1]])
@pytest.mark.parametrize("name", ["ecg.csv", "ecg.tsv", "ecg.TXT"])
def test_bare_numbers(tmp_path, separator, name):
    record = read_ecg(write(tmp_path, rows(separator), name), **BARE)
    np.testing.assert_array_equal(record.signal, SIGNAL)
    assert (record.sampling_rate, record.lead_names, record.name) == (500.0, ("I", "V1"), "ecg")
    assert record.source == {"format": "text", "units": ["mV", "mV"], "gains": [1.0, 1.0]}


def test_all_that_is_missing_is_said_at_once(tmp_path):
    path = write(tmp_path, rows())
    names = {key: BARE[key] for key in ("lead_names",)}
    refuse(path, SamplingRateError, r"no sampling rate and no lead names and no units.*sampling_rate=500, lead_names=")
    refuse(path, SamplingRateError, "states no sampling rate and no units, and", **names)
    refuse(path, UnitError, r"no units, and nothing is guessed.*units='mV'.*--units", **names, sampling_rate=500)
    refuse(path, LeadError, "states no lead names, and", sampling_rate=500, units="mV")


def test_a_header_names_the_leads(tmp_path):
    path = write(tmp_path, "I,V1\n" + rows())
    assert read_ecg(path, sampling_rate=250, units="uV").lead_names == ("I", "V1")
    chosen = read_ecg(path, sampling_rate=250, units="mV", leads=["V1"])
    np.testing.assert_array_equal(chosen.signal, SIGNAL[1:])
    refuse(path, LeadError, "got lead_names=.*as the file states", **{**BARE, "lead_names": ["I", "V2"]})
    refuse(path, LeadError, "Missing lead II", sampling_rate=250, units="mV", leads=["II"])


def test_units_in_the_header(tmp_path):
    path = write(tmp_path, 'time [ms],"lead I (uV)",V1 [mV]\n0,1,2\n2,3,4\n4,5,-6\n')
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, [[0.001, 0.003, 0.005], [2, 4, -6]])
    assert (record.sampling_rate, record.lead_names) == (500.0, ("lead I", "V1"))
    assert record.source["units"] == ["uV", "mV"]
    refuse(path, UnitError, "got units='mV', expected mV, uV as the file states", units="mV")
    bad = write(tmp_path, "I (mmHg),V1 (mV)\n1,2\n")
    refuse(bad, UnitError, "channel 'I' is in 'mmHg'", sampling_rate=1)
    assert read_ecg(bad, sampling_rate=1, leads=["V1"]).source["units"] == ["mV"]


def test_a_row_of_units_as_physionet_writes_it(tmp_path):
    path = write(tmp_path, "'sample #','MLII','V5'\n'seconds','mV','mV'\n0,1,2\n0.5,3,4\n1.0,3,5\n")
    record = read_ecg(path, leads=["V5"])
    np.testing.assert_array_equal(record.signal, [[2, 4, 5]])
    assert record.sampling_rate == 2.0


@pytest.mark.parametrize(
    ("head", "ticks", "digits", "rate"),
    [
        ("time (s)", 1, 3, 500.0),
        ("t_ms", 1e3, 0, 500.0),
        ("seconds", 1, 6, 360.0),
        ("Time [us]", 1e6, 1, 257.0),
        ("Elapsed time (ms)", 1e3, 17, 128.5),
    ],
)
def test_the_rate_of_a_time_column(tmp_path, head, ticks, digits, rate):
    """A step of 1/360 s is no decimal: the rate is the shortest one that fits the times as they are written."""
    lines = [f"{ticks * index / rate:.{digits}f},{index % 3}" for index in range(1000)]
    path = write(tmp_path, "\n".join([f"{head},II (mV)", *lines]))
    record = read_ecg(path)
    assert (record.sampling_rate, record.lead_names) == (rate, ("II",))
    refuse(path, SamplingRateError, "samples off", sampling_rate=2 * rate)


def test_times_that_are_rounded(tmp_path):
    lines = [f"{index / 360:.3f},{index % 3}" for index in range(3600)]
    path = write(tmp_path, "\n".join(["time (s),II", *lines]))
    assert read_ecg(path, sampling_rate=360, units="mV").signal.shape == (1, 3600)
    refuse(path, SamplingRateError, "the times are rounded", units="mV")
    refuse(path, SamplingRateError, "the times are rounded", units="mV", sampling_rate=361)
    del lines[1000]
    path = write(tmp_path, "\n".join(["time (s),II", *lines]))
    refuse(path, SamplingRateError, "Samples are missing", units="mV", sampling_rate=360)


@pytest.mark.parametrize("column", [(0, 1, 2), (0, 0.002, 0.004), (0, 2, 4)])
def test_times_without_unit_state_no_rate_but_must_fit(tmp_path, column):
    path = write(tmp_path, "time,II\n" + "".join(f"{t},{t}\n" for t in column))
    refuse(path, SamplingRateError, "states no sampling rate, and", units="mV")
    assert read_ecg(path, units="mV", sampling_rate=500).sampling_rate == 500
    if column != (0, 1, 2):
        refuse(path, SamplingRateError, "got sampling_rate=360", units="mV", sampling_rate=360)


def test_sample_numbers_are_no_lead(tmp_path):
    for head in ("", "sample", "index"):
        path = write(tmp_path, f"{head},I,II\n5,1,2\n6,3,4\n")
        record = read_ecg(path, sampling_rate=2, units="mV")
        np.testing.assert_array_equal(record.signal, [[1, 3], [2, 4]])
    refuse(write(tmp_path, "n,I\n5,1\n7,2\n"), SamplingRateError, "step of 2, expected 1", sampling_rate=2, units="mV")
    refuse(write(tmp_path, "n,I\n5,1\n5,2\n"), SamplingRateError, "even step", sampling_rate=2, units="mV")


def test_lines_before_the_numbers_are_passed_over_and_dropped(tmp_path):
    text = "Patient: Doe, Jane\nborn 19510203\n\n# JD4711\nI,V1\n" + rows()
    path = write(tmp_path, text)
    record = read_ecg(path, sampling_rate=500, units="mV")
    np.testing.assert_array_equal(record.signal, SIGNAL)
    assert_anonymous(record)


def test_a_name_is_no_header(tmp_path):
    path = write(tmp_path, "Doe,Jane\n" + rows())
    error = refuse(path, LeadError, "states no lead names", sampling_rate=500, units="mV")
    assert "Doe" not in str(error)
    assert_anonymous(read_ecg(path, **BARE))


def test_a_stated_size_must_hold(tmp_path):
    path = write(tmp_path, "\nRhythm: 4 X 2\n" + rows(" "), "ecg.txt")
    assert read_ecg(path, **BARE).signal.shape == (2, 4)
    path.write_text("\nRhythm: 5 X 2\n" + rows(" "))
    refuse(path, EcgFileError, "got 4 rows, expected 5 as a line before them says. The file is truncated", **BARE)


def test_decimal_commas_and_surplus_separators(tmp_path):
    text = rows(";").replace(".", ",")
    np.testing.assert_array_equal(read_ecg(write(tmp_path, text), **BARE).signal, SIGNAL)
    for end in (",\n", ", \n"):
        for header in ("", "I,V1\n", "I,V1,\n"):
            path = write(tmp_path, header + rows(end=end))
            np.testing.assert_array_equal(read_ecg(path, **BARE).signal, SIGNAL)


def test_empty_fields_and_nan_are_nan(tmp_path):
    record = read_ecg(write(tmp_path, "I,V1\n1,\n,2\nnan,3\n4,NaN\n"), sampling_rate=1, units="mV")
    assert np.isnan(record.signal).tolist() == [[False, True, True, False], [True, False, False, True]]
    assert record.problems == ("nan",)
    record = read_ecg(write(tmp_path, "I,V1\n1,\n2,\n"), sampling_rate=1, units="mV")
    assert np.isnan(record.signal[1]).all()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", EcgFileError, "no row of numbers"),
        ("I,V1\n", EcgFileError, "no row of numbers"),
        ("word\n" * 101 + "1,2\n", EcgFileError, "no row of numbers in the first 100 lines"),
        ("1,2\n3,4\n5\n", EcgFileError, "got 1 columns in line 3, expected 2 as in line 1"),
        ("I,V1\n1,2,3\n", EcgFileError, "header row of 2 columns, expected 3"),
        ("1,2\n3,Doe\n", EcgFileError, "something else than 2 numbers in line 2"),
        ("1,2\n3,1_000\n", EcgFileError, "something else than 2 numbers in line 2"),
        ("1,2\n\0\0\n", EcgFileError, "bytes that are no text"),
        ("1,2,3\n4,5,6\n", LeadError, "got 2 lead_names, expected 3, one for each column"),
    ],
)
def test_what_is_refused(tmp_path, text, error, message):
    assert "Doe" not in str(refuse(write(tmp_path, text), error, message, **BARE))


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "ecg.csv"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    refuse(path, EcgFileError, "got 1099511627776 bytes, expected at most", **BARE)


def test_latin_1_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "ecg.csv"
    path.write_bytes("J\u00fcrgen\nI (\u00b5V),V1 (\u00b5V)\n1,2\n3,4\n".encode("latin-1"))
    assert read_ecg(path, sampling_rate=1).source["units"] == ["\u00b5V"] * 2
    path.write_bytes(b"\xef\xbb\xbfI (uV),V1 (uV)\n1,2\n3,4\n")
    assert read_ecg(path, sampling_rate=1).lead_names == ("I", "V1")


def test_a_real_one(test_data):
    """`text/testing_ecg.txt`: rows of twelve integers after lines with the size, parsed here by `numpy` alone."""
    path = test_data / "ood/text/testing_ecg.txt"
    record = read_ecg(path, sampling_rate=500, units="uV", lead_names=CLINICAL_LEADS)
    expected = np.loadtxt(path, skiprows=6)
    assert expected.shape == (5000, 12)
    np.testing.assert_array_equal(record.signal, expected.T * 1e-3)
    np.testing.assert_allclose(record.signal[0] + record.signal[2], record.signal[1], atol=0.003)


def test_one_column_with_its_unit(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("II (uV)\n" + "\n".join(map(str, range(0, 2000, 10))) + "\n")
    record = read_ecg(path, sampling_rate=250)
    assert record.lead_names == ("II",) and record.signal.shape == (1, 200)
    np.testing.assert_allclose(record.signal[0], np.arange(0, 2000, 10) / 1000)
