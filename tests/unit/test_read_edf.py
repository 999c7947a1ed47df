"""EDF: written by `pyedflib`, its bytes read here a second time by the layout of the header."""

import sys

import numpy as np
import pyedflib
import pytest
from readers import assert_anonymous, refuse, some_ecg

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.signal.records import read_ecg

STEPS = some_ecg(2, 20)


def write(path, labels=("ECG I", "V1"), units=("uV", "mV"), rates=(10, 10), kind=pyedflib.FILETYPE_EDFPLUS):
    """Digital -32768..32767 stands for -3276.8..3276.7, so a step is 0.1 of a unit."""
    with pyedflib.EdfWriter(str(path), len(labels), file_type=kind) as file:
        file.setPatientName("Jane_Doe")
        file.setPatientCode("JD4711")
        if kind != pyedflib.FILETYPE_EDF:
            file.setBirthdate("03.02.1951")
        file.setSignalHeaders(
            [
                {
                    "label": label,
                    "dimension": unit,
                    "sample_frequency": rate,
                    "physical_min": -3276.8,
                    "physical_max": 3276.7,
                    "digital_min": -32768,
                    "digital_max": 32767,
                    "transducer": "",
                    "prefilter": "",
                }
                for label, unit, rate in zip(labels, units, rates, strict=True)
            ]
        )
        file.writeSamples([STEPS[0].astype(np.int32), STEPS[1, : 2 * rates[1]].astype(np.int32)], digital=True)
        if kind != pyedflib.FILETYPE_EDF:
            file.writeAnnotation(0, -1, "seen by Doe")
    return path


def plain_reading(path):
    """Decode a file by the EDF specification, with `numpy` alone; channels of annotations are left out."""
    content = path.read_bytes()
    num_signals = int(content[252:256])
    records, duration = int(content[236:244]), float(content[244:252])

    def column(start, width):
        place = 256 + start * num_signals
        return [content[place + i * width : place + (i + 1) * width].decode().strip() for i in range(num_signals)]

    labels, units = column(0, 16), column(96, 8)
    low, high, digital_low, digital_high = (
        [float(text) for text in column(place, 8)] for place in (104, 112, 120, 128)
    )
    counts = [int(text) for text in column(216, 8)]
    data = np.frombuffer(content, "<i2", offset=256 * (num_signals + 1)).reshape(records, sum(counts))
    found = {}
    for index, label in enumerate(labels):
        start = sum(counts[:index])
        stored = data[:, start : start + counts[index]].ravel()
        share = (stored - digital_low[index]) / (digital_high[index] - digital_low[index])
        found[label] = (low[index] + share * (high[index] - low[index]), units[index], counts[index] / duration)
    return found


@pytest.mark.parametrize("kind", [pyedflib.FILETYPE_EDF, pyedflib.FILETYPE_EDFPLUS, pyedflib.FILETYPE_BDFPLUS])
def test_values(tmp_path, kind):
    path = write(tmp_path / ("ecg.bdf" if kind == pyedflib.FILETYPE_BDFPLUS else "ecg.edf"), kind=kind)
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, STEPS * [[1e-4], [0.1]], atol=1e-9)
    assert (record.sampling_rate, record.lead_names) == (10.0, ("I", "V1"))
    assert record.source["format"] == "edf" and record.source["units"] == ["uV", "mV"]
    np.testing.assert_allclose(record.source["gains"], [10, 10])
    assert_anonymous(record)
    if kind != pyedflib.FILETYPE_BDFPLUS:
        plain = plain_reading(path)
        np.testing.assert_allclose(record.signal[0], plain["ECG I"][0] * 1e-3, atol=1e-12)
        np.testing.assert_allclose(record.signal[1], plain["V1"][0], atol=1e-9)
        assert plain["V1"][1:] == ("mV", 10.0)


def test_leads_are_chosen_by_name(tmp_path):
    path = write(tmp_path / "ecg.EDF", units=("uV", "mmHg"))
    refuse(path, UnitError, "channel 'V1' is in 'mmHg'")
    record = read_ecg(path, leads=["lead i"])
    assert (record.lead_names, record.source["units"]) == (("I",), ["uV"])
    refuse(path, LeadError, "Missing lead II", leads=["II"])
    refuse(path, SamplingRateError, "got sampling_rate=11", leads=["I"], sampling_rate=11)


def test_channels_of_different_rates(tmp_path):
    path = write(tmp_path / "ecg.edf", rates=(10, 5))
    refuse(path, SamplingRateError, r"differ between leads \(\[5.0, 10.0\] Hz\)")
    assert read_ecg(path, leads=["V1"]).signal.shape == (1, 10)


def test_truncated_and_damaged_files(tmp_path):
    path = write(tmp_path / "ecg.edf")
    content = path.read_bytes()
    for size in (0, 100, 256, 600, len(content) - 1):
        path.write_bytes(content[:size])
        refuse(path, EcgFileError, "truncated")
    for records in (b"99999999", b"0       ", b"1       "):
        path.write_bytes(content[:236] + records + content[244:])
        refuse(path, EcgFileError, rf"expected \d+ for {int(records)} data records of \d+ bytes as the header says")
    for place, text in ((236, b"-1      "), (252, b"9999"), (252, b"-1  "), (252, b"0   ")):
        path.write_bytes(content[:place] + text + content[place + len(text) :])
        refuse(path, EcgFileError, "truncated")
    path.write_bytes(b"1" + content[1:])
    refuse(path, EcgFileError, "`pyedflib` cannot read it: no EDF file")
    path.write_bytes(content[:192] + b"EDF+D" + content[197:])
    refuse(path, EcgFileError, "discontinuous")
    refuse(tmp_path / "absent.edf", EcgFileError, "no such file", format="edf")


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "ecg.edf")
    monkeypatch.setitem(sys.modules, "pyedflib", None)
    refuse(path, EcgFileError, r"needs the package pyedflib.*pip install 'ecgbyte-hf\[edf\]'")
