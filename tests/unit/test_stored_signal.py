"""A record's stored integers, against wfdb."""

import numpy as np
import pytest
import wfdb
from data_set_folders import write_record

from ecgbyte_hf.data.stored_signal import millivolts, stored_columns
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError, EcgFileError
from ecgbyte_hf.signal.wfdb_format import read_stored


def equal_to_wfdb(path):
    stored = read_stored(path)
    record = wfdb.rdrecord(str(path), physical=False)
    np.testing.assert_array_equal(stored.samples, record.d_signal.T)
    assert list(stored.baselines) == record.baseline
    assert list(stored.lead_names) == [name or f"signal {i}" for i, name in enumerate(record.sig_name)]
    assert stored.sampling_rate == record.fs
    physical = wfdb.rdrecord(str(path)).p_signal.T
    scale = np.array([{"V": 1e3, "mV": 1.0, "mv": 1.0, "uV": 1e-3}[unit] for unit in record.units])
    got = (stored.samples - np.array(stored.baselines)[:, None]) / np.array(stored.gains)[:, None]
    valid = np.isfinite(physical)
    np.testing.assert_allclose(got[valid], (physical * scale[:, None])[valid], rtol=1e-12, atol=1e-12)


def test_real_recordings(test_data):
    headers = [
        *sorted(test_data.glob("ptbxl/records500/*/*.hea"))[::12],
        *sorted(test_data.glob("ptbxl/records100/*/*.hea"))[::40],
        *sorted(test_data.glob("ptbxl100/records100/*/*.hea"))[::400],
        *sorted(test_data.glob("mimic_iv_ecg/files/**/*.hea")),
        *sorted(test_data.glob("ood/ptbxl_cinc2021_mat/*.hea")),
        *sorted(test_data.glob("ood/ludb/*.hea"))[:2],
    ]
    assert len(headers) > 100
    for header in headers:
        equal_to_wfdb(header.with_suffix(""))


@pytest.mark.parametrize("storage", ["16", "32"])
@pytest.mark.parametrize("gain", ["200", "1000.0(0)/mV", "-400.5(-37)/uV", "2e2(5)/V"])
def test_formats_gains_and_baselines(tmp_path, storage, gain):
    samples = np.random.default_rng(0).integers(-30_000, 30_000, (12, 400))
    write_record(tmp_path / "a", samples, 250, gain=gain, storage=storage)
    equal_to_wfdb(tmp_path / "a")
    np.testing.assert_array_equal(read_stored(tmp_path / "a").samples, samples)


@pytest.mark.parametrize(
    "line",
    [
        "a.dat 16",
        "a.dat 16 100",
        "a.dat 16 100 12",
        "a.dat 16 100/mV 12 -7",
        "a.dat 16 100(3)/mV 12 -7 0",
        "a.dat 16+24 100(3) 16 0",
        "a.dat 16+24 100(0) 16 9",
    ],
)
def test_lines_that_leave_things_out(tmp_path, line):
    np.arange(-60, 60, dtype="<i2").tofile(tmp_path / "a.dat")
    for length in (" 20", ""):
        (tmp_path / "a.hea").write_text(f"a 2 100{length}\n{line}\n{line}\n")
        if line == "a.dat 16":  # Without a gain the voltage is unknown.
            with pytest.raises(EcgError, match="gain of None"):
                read_stored(tmp_path / "a")
        else:
            equal_to_wfdb(tmp_path / "a")


def test_what_cannot_be_taken_as_it_is(tmp_path):
    samples = np.arange(2400).reshape(12, 200)
    path = tmp_path / "a"
    write_record(path, samples, 100)
    header = path.with_suffix(".hea").read_text()
    data = np.fromfile(path.with_suffix(".dat"), "<i2")
    data[5] += 1
    data.tofile(path.with_suffix(".dat"))
    with pytest.raises(EcgFileError, match="channel 'AVF' adds up to"):
        read_stored(path)
    data[:-1].tofile(path.with_suffix(".dat"))
    with pytest.raises(EcgFileError, match="truncated"):
        read_stored(path)
    path.with_suffix(".hea").write_text(header.replace("a.dat 16 ", "a.dat 16:3 "))
    write_record(tmp_path / "b", samples, 100)
    (tmp_path / "b.dat").rename(tmp_path / "a.dat")
    with pytest.raises(EcgFileError, match="shifted in time"):
        read_stored(path)
    path.with_suffix(".hea").write_text(header.replace("a.dat", "../a.dat"))
    with pytest.raises(EcgFileError, match="plain file name"):
        read_stored(path)
    with pytest.raises(EcgFileError, match="header is missing"):
        read_stored(tmp_path / "absent")


def test_columns(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32767, (12, 1000), dtype=np.int16)
    write_record(tmp_path / "a", samples, 100, gain="250(4)/mV")
    row = stored_columns(tmp_path / "a", (12, 1000), 100)
    assert row["signal"].dtype == np.int16 and row["signal"].flags.c_contiguous
    signal = millivolts(row)
    assert signal.dtype == np.float64 and signal.shape == (12, 1000)
    np.testing.assert_array_equal(np.isnan(signal), samples == -32768)
    with pytest.raises(EcgDataError, match="got 12 leads of 1000 samples at 100.0 Hz, expected 12 of 5000 at 500 Hz"):
        stored_columns(tmp_path / "a", (12, 5000), 500)
