"""Reading WFDB recordings: the numbers, and every file that must be refused."""

import dataclasses
import os
import pickle
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbyte_hf.models.errors_ecg_byte import (
    EcgError,
    EcgFileError,
    LeadError,
    SamplingRateError,
    SignalError,
    UnitError,
)
from ecgbyte_hf.signal import wfdb_format
from ecgbyte_hf.signal.records import EcgRecord, find_problems, read_ecg
from ecgbyte_hf.signal.wfdb_format import MILLIVOLTS

STEPS = np.array([[0, 200, -400, 20, 7], [-100, 50, 0, 32767, 1]], dtype=np.int16)
HEADER = "rec 2 500 5\nrec.dat 16 200/mV 16 0 0 -173 0 I\nrec.dat 16 100(50)/mV 16 0 -100 32718 0 II\n"


def write_record(
    folder: Path, header: str = HEADER, steps: np.ndarray = STEPS, name: str = "rec", suffix: str = ".dat"
) -> Path:
    """Write a header as given and a signal file of format 16; return the path without a suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.hea").write_text(header)
    (folder / f"{name}{suffix}").write_bytes(steps.T.astype("<i2").tobytes())
    return folder / name


def as_wfdb_reads_it(path: Path, record: EcgRecord) -> None:
    """Compare with what `wfdb` makes of the recording by itself."""
    expected = wfdb.rdrecord(str(path), smooth_frames=False, ignore_skew=True)
    signal = np.stack(expected.e_p_signal)
    if any(expected.skew):
        assert record.signal.shape == signal.shape
    else:
        scale = [[MILLIVOLTS[unit.lower()]] for unit in record.source["units"]]
        np.testing.assert_array_equal(record.signal, signal * scale)
    assert record.sampling_rate == expected.fs * expected.samps_per_frame[0]


# ---- what is read


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_values_follow_gain_and_baseline(tmp_path, suffix):
    record = read_ecg(f"{write_record(tmp_path)}{suffix}")
    np.testing.assert_array_equal(record.signal[0], [0, 1, -2, 0.1, 0.035])
    np.testing.assert_array_equal(record.signal[1], [-1.5, 0, -0.5, 327.17, -0.49])
    assert (record.sampling_rate, record.lead_names, record.name) == (500.0, ("I", "II"), "rec")
    assert record.source == {"format": "wfdb", "units": ["mV", "mV"], "gains": [200.0, 100.0]}
    assert record.problems == ("amplitude",)


def test_format_by_name(tmp_path):
    path = write_record(tmp_path)
    assert read_ecg(path, format="wfdb").lead_names == ("I", "II")
    with pytest.raises(EcgFileError, match="got format='ecg', expected one of wfdb, mat"):
        read_ecg(path, format="ecg")


def test_leads_are_chosen_by_name(tmp_path):
    path = write_record(tmp_path)
    everything = read_ecg(path)
    chosen = read_ecg(path, leads=["lead ii", "I"])
    assert chosen.lead_names == ("II", "I")
    np.testing.assert_array_equal(chosen.signal, everything.signal[::-1])
    with pytest.raises(LeadError, match=r"rec\.hea: Missing lead V1: got the leads I, II"):
        read_ecg(path, leads=["I", "V1"])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"sampling_rate": 250}, SamplingRateError, "got sampling_rate=250, expected 500 Hz as the file states"),
        ({"units": "uV"}, UnitError, "got units='uV', expected mV as the file states"),
        ({"lead_names": ["II", "I"]}, LeadError, r"got lead_names=\['II', 'I'\], expected \['I', 'II'\] as the file"),
        ({"lead_names": ["II", "V1"], "leads": ["I"]}, LeadError, "as the file states"),
        ({"sampling_rate": 0}, SamplingRateError, "Got sampling_rate=0, expected a positive number"),
        ({"sampling_rate": "500"}, SamplingRateError, "expected a positive number"),
        ({"sampling_rate": float("nan")}, SamplingRateError, "expected a positive number"),
        ({"sampling_rate": True}, SamplingRateError, "expected a positive number"),
        ({"units": "mmHg"}, UnitError, "Got units='mmHg', expected V, mV, uV or nV"),
        ({"lead_names": "I"}, LeadError, "Got lead_names='I', expected a list"),
        ({"lead_names": ["I", "lead i"]}, LeadError, "name one lead twice"),
    ],
)
def test_what_is_given_must_agree(tmp_path, given, error, message):
    with pytest.raises(error, match=message) as caught:
        read_ecg(write_record(tmp_path), **given)
    assert type(caught.value) is error


def test_what_agrees_changes_nothing(tmp_path):
    path = write_record(tmp_path)
    record = read_ecg(path, sampling_rate=np.int64(500), units="MV", lead_names=["lead I", "ii"], leads=["II"])
    assert (record.lead_names, record.sampling_rate) == (("II",), 500.0)


def test_given_names_for_a_header_without_names(tmp_path):
    path = write_record(tmp_path, "rec 2 500 5\nrec.dat 16 200\nrec.dat 16 100\n")
    assert read_ecg(path, lead_names=["V1", "V2"]).lead_names == ("V1", "V2")
    with pytest.raises(LeadError, match="got 1 lead_names, expected 2"):
        read_ecg(path, lead_names=["V1"])


@pytest.mark.parametrize(
    ("unit", "millivolts"),
    [("mV", 1), ("mv", 1), ("uV", 1e-3), ("\u00b5V", 1e-3), ("\u03bcV", 1e-3), ("nV", 1e-6), ("V", 1e3), (None, 1)],
)
def test_units(tmp_path, unit, millivolts):
    header = HEADER.replace("/mV", "" if unit is None else f"/{unit}")
    record = read_ecg(write_record(tmp_path, header))
    np.testing.assert_allclose(record.signal[0], STEPS[0] / 200 * millivolts, rtol=1e-15)


def test_a_channel_that_is_no_voltage_must_be_left_out(tmp_path):
    path = write_record(tmp_path, HEADER.replace("100(50)/mV 16 0 -100 32718 0 II", "100/NU 16 0 -100 32718 0 PLETH"))
    with pytest.raises(UnitError, match=r"channel 'PLETH' is in 'NU' with a gain of 100, expected a voltage.*leads="):
        read_ecg(path)
    assert read_ecg(path, leads=["I"]).lead_names == ("I",)


@pytest.mark.parametrize("gain", ["0/mV", "0(0)/mV", None])
def test_a_channel_without_gain_is_refused(tmp_path, gain):
    line = "rec.dat 16" if gain is None else f"rec.dat 16 {gain} 16 0 0 -173 0 I"
    path = write_record(tmp_path, HEADER.replace("rec.dat 16 200/mV 16 0 0 -173 0 I", line))
    with pytest.raises(UnitError, match=r"channel '(I|signal 0)' is in 'mV' with a gain of (0|None), expected"):
        read_ecg(path)


def test_comments_dates_and_times_are_dropped(tmp_path):
    header = HEADER.replace("500 5", "500 5 10:09:00 01/01/1951") + "# <subject_id>: 10439781\n#Name: Ann Other\n"
    record = read_ecg(write_record(tmp_path, header))
    everything = repr(dataclasses.asdict(record))
    assert not any(secret in everything for secret in ("10439781", "Ann", "1951", "10:09"))


def test_invalid_samples_become_nan(tmp_path):
    steps = STEPS.copy()
    steps[0, 1] = -32768
    record = read_ecg(write_record(tmp_path, HEADER.replace("-173", "32395"), steps))
    assert np.isnan(record.signal[0]).tolist() == [False, True, False, False, False]
    assert "nan" in record.problems


def test_flat_leads_are_listed(tmp_path):
    steps = np.stack([STEPS[0], np.full(5, 3, np.int16)])
    assert read_ecg(write_record(tmp_path, HEADER.replace("32718", "15"), steps)).problems == ("flat",)


def test_one_rate_of_several_samples_per_frame(tmp_path):
    header = "rec 2 250 2\nrec.dat 16x2 200/mV 16 0 0 0 0 I\nrec.dat 16x2 200/mV 16 0 0 0 0 II\n"
    frames = np.array([[1, 2, -10, -20], [3, -6, 10, 20]])
    record = read_ecg(write_record(tmp_path, header, frames.T))
    assert record.sampling_rate == 500.0
    np.testing.assert_array_equal(record.signal * 200, [[1, 2, 3, -6], [-10, -20, 10, 20]])


def test_skew_moves_a_lead_and_leaves_nan(tmp_path):
    record = read_ecg(write_record(tmp_path, HEADER.replace("rec.dat 16 200", "rec.dat 16:2 200")))
    np.testing.assert_allclose(record.signal[0], [-2, 0.1, 0.035, np.nan, np.nan])
    assert "nan" in record.problems


def test_a_length_that_is_not_stated_is_that_of_the_file(tmp_path):
    assert read_ecg(write_record(tmp_path, HEADER.replace("500 5", "500"))).signal.shape == (2, 5)


def test_two_signal_files(tmp_path):
    header = "rec 2 500{}\nrec.dat 16 200/mV 16 0 0 -173 0 I\nother.dat 16 100(50)/mV 16 0 -100 32718 0 II\n"
    path = write_record(tmp_path, header.format(" 5"), STEPS[:1])
    (tmp_path / "other.dat").write_bytes(STEPS[1].astype("<i2").tobytes())
    expected = read_ecg(write_record(tmp_path / "one")).signal
    np.testing.assert_array_equal(read_ecg(path).signal, expected)
    path.with_suffix(".hea").write_text(header.format(""))
    np.testing.assert_array_equal(read_ecg(path).signal, expected)
    for size in (8, 12):
        (tmp_path / "other.dat").write_bytes(bytes(size))
        refuse(path, EcgFileError, rf"other\.dat: got {size} bytes .* expected 5 frames")


def test_a_short_header_is_enough(tmp_path):
    header = "\ufeff# made by hand\nrec 2 500.0/500(0) 5\r\nrec.dat 16 200\nrec.dat 16 1e2/mV 16 50\n\n"
    record = read_ecg(write_record(tmp_path, header))
    assert record.lead_names == ("signal 0", "signal 1")
    np.testing.assert_array_equal(record.signal[1], (STEPS[1] - 50.0) / 100)


def test_a_file_name_may_hold_a_dot(tmp_path):
    path = write_record(tmp_path, name="rec.v2")
    (tmp_path / "rec.v2.dat").rename(tmp_path / "rec.dat")
    assert read_ecg(path).name == read_ecg(f"{path}.hea").name == read_ecg(f"{path}.dat").name == "rec.v2"


def test_physionet_mat(tmp_path):
    """A MATLAB 4 matrix `val` of int16: 20 bytes of header, 4 of name, then the columns."""
    header = HEADER.replace("rec.dat 16", "rec.mat 16+24")
    path = write_record(tmp_path, header, suffix=".mat")
    content = struct.pack("<5i4s", 30, 2, 5, 0, 4, b"val\0") + STEPS.T.astype("<i2").tobytes()
    path.with_suffix(".mat").write_bytes(content)
    for name in (path, f"{path}.mat"):
        np.testing.assert_array_equal(read_ecg(name).signal[0], STEPS[0] / 200)


def test_names_and_units_are_utf8(tmp_path):
    """`wfdb` drops what is not ASCII: it would take this unit for V."""
    record = read_ecg(write_record(tmp_path, HEADER.replace("200/mV", "200/\u00b5V").replace("0 II", "0 Brust\u00fc")))
    assert (record.source["units"], record.lead_names) == (["\u00b5V", "mV"], ("I", "Brust\u00fc"))


def test_numbers_as_wfdb_gives_them(tmp_path):
    """Random bytes, so that invalid samples are among them, in a format of which none ends with a byte."""
    lines = [f"rec.dat 310 {gain}/mV 0 0 11" for gain in ("100(0)", "37.5(-7)", "200(13)")]
    path = write_record(tmp_path, "\n".join(["rec 3 500 501", *lines]))
    path.with_suffix(".dat").write_bytes(np.random.default_rng(0).bytes(3 * 4 * 167))
    signal = read_ecg(path).signal
    np.testing.assert_array_equal(signal, wfdb.rdrecord(str(path)).p_signal.T)
    assert np.isnan(signal).any()


# ---- what is refused


def refuse(path, error, message):
    with pytest.raises(error, match=message) as caught:
        read_ecg(path)
    assert type(caught.value) is error


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat", ".mat", ".xml"])
def test_nothing_there(tmp_path, suffix):
    refuse(tmp_path / f"nothing{suffix}", EcgFileError, f"nothing{suffix}|nothing.hea")


def test_a_path_that_cannot_be_one():
    refuse("x" * 5000, EcgFileError, "cannot be read")
    refuse("a\0b", EcgFileError, "NUL")


def test_a_folder_and_an_unknown_file(tmp_path):
    refuse(tmp_path, EcgFileError, "no such recording")
    (tmp_path / "notes.md").write_text("rec 2 500 5")
    refuse(tmp_path / "notes.md", EcgFileError, "of no known format. Expected one of: WFDB")


def test_missing_header_and_missing_signal(tmp_path):
    path = write_record(tmp_path)
    path.with_suffix(".dat").unlink()
    refuse(path, EcgFileError, r"rec\.dat: the signal file that rec\.hea names is missing")
    path = write_record(tmp_path)
    path.with_suffix(".hea").unlink()
    refuse(f"{path}.dat", EcgFileError, r"rec\.hea: the WFDB header is missing")
    refuse(path, EcgFileError, "no such recording")


def test_truncated_signal(tmp_path):
    path = write_record(tmp_path)
    content = path.with_suffix(".dat").read_bytes()
    for size in (19, 10, 0):
        path.with_suffix(".dat").write_bytes(content[:size])
        refuse(path, EcgFileError, rf"rec\.dat: got {size} bytes \(.*expected 5 frames .* truncated")


def test_absurd_sizes_are_refused_before_memory_is_asked_for(tmp_path):
    refuse(write_record(tmp_path, HEADER.replace("500 5", f"500 {10**17}")), EcgFileError, "truncated")
    refuse(write_record(tmp_path, HEADER.replace("500 5", "500 " + "9" * 5000)), EcgFileError, "record line|samples")
    spread = HEADER.replace("dat 16", "dat 16x999999999")
    refuse(write_record(tmp_path, spread), EcgFileError, "truncated")
    skewed = read_ecg(write_record(tmp_path, HEADER.replace("dat 16", "dat 16:999999999")))
    assert np.isnan(skewed.signal).all()
    refuse(write_record(tmp_path, HEADER.replace("rec 2", "rec 999999999")), EcgFileError, "expected 999999999")
    refuse(write_record(tmp_path, HEADER.replace("dat 16", f"dat 16+{10**15}")), EcgFileError, "truncated")
    path = write_record(tmp_path)
    with path.with_suffix(".hea").open("a") as file:
        file.write("#" * (1 << 20))
    refuse(path, EcgFileError, "larger than 1048576 bytes")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "\n# only a comment\n",
        "rec",
        "rec two 500 5",
        "rec 0 500 5",
        "rec 2 500 5\n",
        "rec 2 500 0\nrec.dat 16 200\nrec.dat 16 200",
        "rec 1 500 5\nrec.dat 16 200\nrec.dat 16 200",
        "\0\1\2",
    ]
    + [HEADER.replace("16 200/mV", field) for field in ("16", "sixteen 200/mV", "16 1e/mV", "16 nan/mV", "16 200 x")]
    + [HEADER.replace("500 5", "500 five"), HEADER.replace("-173", "sum"), HEADER[: len(HEADER) // 2]],
)
def test_a_header_that_is_none(tmp_path, header):
    with pytest.raises((EcgFileError, UnitError), match=r"rec\.hea"):
        read_ecg(write_record(tmp_path, header))


@pytest.fixture
def by_wfdb(monkeypatch):
    """Also plain format 16 is read by `wfdb`, as the others are."""
    monkeypatch.setattr(wfdb_format, "_is_plain", lambda channels: False)


def test_dates_are_not_looked_at(tmp_path):
    record = read_ecg(write_record(tmp_path, HEADER.replace("500 5", "500 5 10:09:00 31/02/1951")))
    assert "1951" not in repr(record) + repr(record.source)


def test_what_fails_in_wfdb_is_a_damaged_file_and_quotes_no_date(tmp_path, by_wfdb):
    path = write_record(tmp_path, HEADER.replace("500 5", "500 5 10:09:00 31/02/1951"))
    with pytest.raises(EcgFileError, match=r"rec\.hea: `wfdb` cannot read it \(ValueError\)") as caught:
        read_ecg(path)
    assert "1951" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_random_bytes_as_header(tmp_path):
    path = write_record(tmp_path)
    generator = np.random.default_rng(0)
    for size in (1, 100, 10_000):
        path.with_suffix(".hea").write_bytes(generator.bytes(size))
        with pytest.raises((EcgFileError, SamplingRateError)):
            read_ecg(path)


@settings(max_examples=int(os.environ.get("ECGBYTE_HYPOTHESIS_EXAMPLES", "200")), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(HEADER)),
            st.integers(0, 12),
            st.one_of(st.text("0123456789 /+-x:().eE\n#", max_size=12), st.text(max_size=4), st.just("9" * 400)),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_damaged_header_is_read_or_refused_and_nothing_else(tmp_path_factory, damages):
    header = HEADER
    for place, length, text in damages:
        header = header[:place] + text + header[place + length :]
    path = tmp_path_factory.getbasetemp() / "damaged" / "rec"
    write_record(path.parent, "")
    path.with_suffix(".hea").write_bytes(header.encode("utf-8", errors="surrogatepass"))
    try:
        record = read_ecg(path)
    except EcgError as error:
        assert "rec" in str(error)
    else:
        assert record.signal.size <= 10
        as_wfdb_reads_it(path, record)


def test_a_wrong_sum_is_a_corrupt_file(tmp_path):
    steps = STEPS.copy()
    steps[1, 2] += 1
    refuse(
        write_record(tmp_path, steps=steps), EcgFileError, "channel 'II' adds up to 32719, expected 32718 .*corrupt"
    )


def test_no_rate_is_not_guessed(tmp_path):
    path = write_record(tmp_path, HEADER.replace("rec 2 500 5", "rec 2"))
    refuse(path, SamplingRateError, "states no sampling rate.*not guessed")


@pytest.mark.parametrize("rate", ["0", "-500", "0.0", "1e999", "5e2", "nan", "fast", "9" * 400])
def test_rates_that_cannot_be(tmp_path, rate):
    refuse(write_record(tmp_path, HEADER.replace("500", rate)), SamplingRateError, "expected a positive one in Hz")


def test_rates_that_differ_between_leads(tmp_path):
    header = "rec 2 250 2\nrec.dat 16x2 200/mV 16 0 0 0 0 I\nrec.dat 16 200/mV 16 0 0 0 0 resp\n"
    refuse(write_record(tmp_path, header), SamplingRateError, r"differ between leads \(\[250.0, 500.0\] Hz\)")


def test_unsupported_records_are_named(tmp_path):
    refuse(write_record(tmp_path, "rec/3 2 500 5\nrec_1 5\n"), EcgFileError, "multi-segment")
    for storage in ("516", "61", "0"):
        header = HEADER.replace("dat 16", f"dat {storage}")
        refuse(write_record(tmp_path, header), EcgFileError, rf"rec\.dat {storage} .* a format of 8, 16, 24, 32")
    header = HEADER.replace("rec.dat 16 200", "rec.dat 212 200")
    refuse(write_record(tmp_path, header), EcgFileError, "differ in format or offset")


@pytest.mark.parametrize(
    "name",
    ["../rec.dat", "sub/rec.dat", "{folder}/rec.dat", "..", ".", "~/rec.dat", "~rec", "-", "..\\rec.dat", "C:rec.dat"]
    + ["http://localhost/rec.dat", "file://{folder}/rec.dat", "s3://bucket/rec.dat", "memory::rec.dat", "rec\0.dat"]
    + ["\u00e9rec.dat", "rec.dat.gz"],
)
def test_a_header_names_only_files_beside_it(tmp_path, name, monkeypatch):
    def too_far(*_, **__):
        raise AssertionError("a header was followed")

    monkeypatch.setattr(socket.socket, "connect", too_far)
    monkeypatch.setattr(wfdb, "rdrecord", too_far)
    write_record(tmp_path)
    (tmp_path / "header" / "sub").mkdir(parents=True)
    header = HEADER.replace("rec.dat", name.format(folder=tmp_path))
    path = write_record(tmp_path / "header", header)
    write_record(tmp_path / "header" / "sub")
    refuse(path, EcgFileError, "with a plain file name .* in the header's own folder")


def test_links_that_leave_the_folder(tmp_path):
    outside = write_record(tmp_path / "outside")
    path = write_record(tmp_path / "inside")
    path.with_suffix(".dat").unlink()
    path.with_suffix(".dat").symlink_to(outside.with_suffix(".dat"))
    refuse(path, EcgFileError, "'rec.dat' is a link that leaves the folder")
    path.with_suffix(".dat").unlink()
    path.with_suffix(".dat").symlink_to("rec.dat")
    refuse(path, EcgFileError, "missing, or no plain file|cannot be read")
    path.with_suffix(".dat").unlink()
    path.with_suffix(".dat").symlink_to("other.dat")
    path.with_name("other.dat").write_bytes(STEPS.T.astype("<i2").tobytes())
    assert read_ecg(path).signal.shape == (2, 5)


def test_links_of_the_hubs_cache(tmp_path):
    """There both files are links from REPO/snapshots/REVISION/... to REPO/blobs."""
    blobs = tmp_path / "datasets--someone--ecg" / "blobs"
    source = write_record(blobs, name="blob")
    folder = blobs.parent / "snapshots" / "0123" / "records"
    folder.mkdir(parents=True)
    for suffix in (".hea", ".dat"):
        (folder / f"rec{suffix}").symlink_to(f"../../../blobs/{source.name}{suffix}")
    np.testing.assert_array_equal(read_ecg(folder / "rec").signal, read_ecg(write_record(tmp_path)).signal)
    (folder / "rec.dat").unlink()
    elsewhere = write_record(tmp_path / "datasets--other" / "blobs").with_suffix(".dat")
    (folder / "rec.dat").symlink_to(elsewhere)
    refuse(folder / "rec", EcgFileError, "link that leaves the folder")


def test_a_path_that_wfdb_would_take_for_another(tmp_path, by_wfdb):
    """A chain of URLs, and "link/..", which is not the folder of the link."""
    refuse(write_record(tmp_path / "a::memory"), EcgFileError, "'::'")
    write_record(tmp_path / "outer" / "inner")
    (tmp_path / "link").symlink_to(tmp_path / "outer" / "inner")
    write_record(tmp_path / "outer", HEADER.replace("0 II", "0 right"))
    write_record(tmp_path, HEADER.replace("0 II", "0 wrong"), STEPS[:, ::-1])
    record = read_ecg(tmp_path / "link" / ".." / "rec")
    assert record.lead_names == ("I", "right")
    np.testing.assert_array_equal(record.signal[0], STEPS[0] / 200)


def test_the_fast_way_gives_what_wfdb_gives(test_data, monkeypatch):
    """Bit for bit, on records of every maker in format 16: gains, baselines and invalid samples included."""
    paths = [path for name in ("ptbxl", "mimic_iv_ecg", "ood") for path in sorted((test_data / name).rglob("*.hea"))]
    count = 0
    for path in paths[::5] + [path for path in paths if path.stem == "40130031"]:
        try:
            fast = read_ecg(path)
        except EcgError:
            continue
        with monkeypatch.context() as patched:
            patched.setattr(wfdb_format, "_is_plain", lambda channels: False)
            slow = read_ecg(path)
        np.testing.assert_array_equal(fast.signal, slow.signal)
        assert fast.signal.dtype == slow.signal.dtype and fast.problems == slow.problems
        count += 1
    assert count > 100


def test_what_is_no_file(tmp_path):
    path = write_record(tmp_path)
    path.with_suffix(".dat").unlink()
    os.mkfifo(path.with_suffix(".dat"))
    refuse(path, EcgFileError, r"rec\.dat: the signal file .* no plain file")
    path.with_suffix(".hea").unlink()
    os.mkfifo(path.with_suffix(".hea"))
    refuse(f"{path}.hea", EcgFileError, "no plain file")


# ---- the record


def test_find_problems_needs_a_name_for_each_row():
    with pytest.raises(LeadError, match="got 2 lead names for 3 rows"):
        find_problems(EcgRecord(np.zeros((3, 9)), 500.0, ["I", "II"]))
    with pytest.raises(SignalError, match=r"shape \(9,\)"):
        find_problems(EcgRecord(np.zeros(9), 500.0, ["I"]))
    assert find_problems(EcgRecord(np.zeros((1, 9)), 500.0, ["I"])) == ("flat",)


def test_a_record_is_frozen_and_survives_a_process_border():
    record = EcgRecord(np.arange(6.0).reshape(2, 3), 500.0, ["I", "II"], name="rec")
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.sampling_rate = 250.0
    copy = pickle.loads(pickle.dumps(record))
    np.testing.assert_array_equal(copy.signal, record.signal)
    assert (copy.lead_names, copy.name, copy.problems) == (("I", "II"), "rec", ())
    assert "signal" not in repr(record)


# ---- real recordings

REAL = [
    "ptbxl/records500/00000/00001_hr",
    "ptbxl/records100/00000/00001_lr",
    "mimic_iv_ecg/files/p1017/p10178639/s40130031/40130031",
    "ood/ptb_1000hz/s0010_re",
    "ood/ptb_1000hz/S0001",
    "ood/cpsc2018_cinc2020/A0001",
    "ood/georgia/E07500",
    "ood/chapman_ningbo/JS20004",
    "ood/ptbxl_cinc2021_mat/HR00001",
    "ood/reduced_leads/two_leads/HR06000",
    "ood/ludb/1",
    "ood/few_leads/100_3chan",
]
PROBLEMS = {"40130031": ("nan",), "S0001": ("amplitude",), "JS20004": ("flat",)}


@pytest.mark.parametrize("name", REAL)
def test_real_records_as_wfdb_reads_them(test_data, name):
    record = read_ecg(test_data / name)
    as_wfdb_reads_it(test_data / name, record)
    assert list(record.lead_names) == wfdb.rdheader(str(test_data / name)).sig_name
    assert record.problems == PROBLEMS.get(record.name, ())


def test_real_record_with_another_channel(test_data):
    path = test_data / "ood/few_leads/a103l"
    refuse(path, UnitError, "channel 'PLETH' is in 'NU'")
    assert read_ecg(path, leads=["II", "V"]).signal.shape == (2, 82500)


def test_real_header_without_its_signal(test_data):
    refuse(test_data / "ood/incart_257hz_header_only/I0001", EcgFileError, r"I0001\.mat: .* missing")


def test_sums_of_real_records_hold(test_data):
    """None of 5,719 complete records in this collection has a wrong sum; one folder of each kind is enough here."""
    headers = [*test_data.glob("ptbxl/records500/*/*.hea"), *test_data.glob("mimic_iv_ecg/files/**/*.hea")]
    assert len(headers) >= 200
    for header in headers:
        assert read_ecg(header).signal.shape == (12, 5000)
