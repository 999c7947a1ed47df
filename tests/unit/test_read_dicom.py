"""DICOM waveforms: written here by `pydicom` from given bytes, and `pydicom`'s own real one."""

import sys

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian
from readers import assert_anonymous, refuse, some_ecg

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.signal.records import read_ecg

STEPS = some_ecg(2, 21)


def channel(code="2:1", scheme="MDC", meaning="Lead I", sensitivity="2.5", unit="uV", **fields):
    source = Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = code, scheme, meaning
    definition = Dataset()
    definition.ChannelSourceSequence = [source]
    if sensitivity is not None:
        definition.ChannelSensitivity = sensitivity
        units = Dataset()
        units.CodeValue = unit
        definition.ChannelSensitivityUnitsSequence = [units]
    for name, value in fields.items():
        setattr(definition, name, value)
    return definition


def group(steps=STEPS, channels=None, dtype="<i2", kind="SS", rate="250", **fields):
    waveform = Dataset()
    waveform.WaveformOriginality, waveform.MultiplexGroupLabel = "ORIGINAL", "RHYTHM"
    waveform.SamplingFrequency = rate
    waveform.NumberOfWaveformChannels, waveform.NumberOfWaveformSamples = steps.shape
    waveform.WaveformBitsAllocated, waveform.WaveformSampleInterpretation = 8 * np.dtype(dtype).itemsize, kind
    waveform.ChannelDefinitionSequence = channels or [channel(), channel("5.6.3-9-62", "SCPECG", "Lead aVR")]
    content = steps.T.astype(dtype).tobytes()
    waveform.add_new(
        "WaveformData", "OB" if np.dtype(dtype).itemsize == 1 else "OW", content + b"\0" * (len(content) % 2)
    )
    for name, value in fields.items():
        setattr(waveform, name, value)
    return waveform


def write(path, *groups, syntax=ExplicitVRLittleEndian):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", "JD4711", "19510203"
    dataset.WaveformSequence = list(groups)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_values(tmp_path):
    channels = [
        channel(sensitivity="2.5", ChannelSensitivityCorrectionFactor="2", ChannelBaseline="100"),
        channel("5.6.3-9-62", "SCPECG", "Lead aVR", sensitivity="0.001", unit="mV"),
    ]
    path = write(tmp_path / "ecg.dcm", group(channels=channels))
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, [(STEPS[0] * 5.0 + 100) * 1e-3, STEPS[1] * 1e-3])
    assert (record.sampling_rate, record.lead_names) == (250.0, ("I", "aVR"))
    assert record.source == {"format": "dicom", "units": ["uV", "mV"], "gains": [0.2, 1000.0]}
    assert_anonymous(record)
    assert read_ecg(path, leads=["AVR"]).signal.shape == (1, 21)
    path.rename(tmp_path / "without_suffix")
    assert read_ecg(tmp_path / "without_suffix").lead_names == ("I", "aVR")
    refuse(tmp_path / "without_suffix", LeadError, "Missing lead V1", leads=["V1"])


@pytest.mark.parametrize(
    ("kind", "dtype"), [("SB", "i1"), ("UB", "u1"), ("SS", "<i2"), ("US", "<u2"), ("SL", "<i4"), ("UL", "<u4")]
)
def test_kinds_of_samples(tmp_path, kind, dtype):
    steps = np.abs(STEPS) % 100 if kind[0] == "U" else STEPS % 100 - 50
    record = read_ecg(write(tmp_path / "ecg.dcm", group(steps, dtype=dtype, kind=kind)))
    np.testing.assert_allclose(record.signal, steps * 2.5e-3)


def test_big_endian(tmp_path):
    path = write(tmp_path / "ecg.dcm", group(dtype=">i2"), syntax=ExplicitVRBigEndian)
    np.testing.assert_allclose(read_ecg(path).signal, STEPS * 2.5e-3)


def test_the_rhythm_is_chosen(tmp_path):
    beat = group(STEPS[:, :5], WaveformOriginality="DERIVED", MultiplexGroupLabel="MEDIAN BEAT")
    for groups in ([group(), beat], [beat, group(MultiplexGroupLabel="")]):
        assert read_ecg(write(tmp_path / "ecg.dcm", *groups)).signal.shape == (2, 21)
    refuse(write(tmp_path / "ecg.dcm", group(), group()), EcgFileError, r"got 2 recorded waveforms .*\(2, 21\)")
    refuse(write(tmp_path / "ecg.dcm", beat), EcgFileError, "got 0 recorded waveforms")
    refuse(write(tmp_path / "ecg.dcm"), EcgFileError, "got 0 recorded waveforms")


def test_lead_names(tmp_path):
    for code, scheme, meaning, name in [
        ("2:64", "MDC", "", "aVF"),
        ("5.6.3-9-8", "SCPECG", "", "V6"),
        ("x", "99LOCAL", "Lead III (Einthoven)", "III"),
        ("2:999", "MDC", "Lead X1", "Lead X1"),
    ]:
        channels = [channel(code, scheme, meaning), channel("2:7")]
        assert read_ecg(write(tmp_path / "ecg.dcm", group(channels=channels))).lead_names == (name, "V5")


def test_padding_is_nan(tmp_path):
    steps = STEPS.copy()
    steps[1, 3] = -32768
    waveform = group(steps)
    waveform.add_new("WaveformPaddingValue", "OW", b"\x00\x80")
    record = read_ecg(write(tmp_path / "ecg.dcm", waveform))
    assert np.argwhere(np.isnan(record.signal)).tolist() == [[1, 3]] and "nan" in record.problems


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"NumberOfWaveformSamples": 22}, EcgFileError, "got 84 bytes of a waveform, expected 88"),
        ({"NumberOfWaveformSamples": 0xFFFFFFFF}, EcgFileError, "got 84 bytes of a waveform, expected 17179869180"),
        ({"NumberOfWaveformSamples": 0}, EcgFileError, "expected 0 for 2 channels"),
        ({"NumberOfWaveformSamples": 20}, EcgFileError, "got 84 bytes of a waveform, expected 80"),
        ({"WaveformBitsAllocated": 8}, EcgFileError, "got 8 bits for a sample of kind SS"),
        ({"WaveformSampleInterpretation": "MB"}, EcgFileError, "got samples of kind 'MB'"),
        ({"ChannelDefinitionSequence": [channel()]}, EcgFileError, "got 1 channel definitions, expected 2"),
        ({"ChannelDefinitionSequence": []}, EcgFileError, "got 0 channel definitions, expected 2"),
        ({"SamplingFrequency": "0"}, SamplingRateError, "expected a positive one"),
        ({"SamplingFrequency": None}, EcgFileError, "TypeError"),
        (
            {"ChannelDefinitionSequence": [channel(sensitivity=None)] * 2},
            UnitError,
            "no units, and nothing is guessed",
        ),
        ({"ChannelDefinitionSequence": [channel(unit="mm[Hg]")] * 2}, UnitError, r"is in 'mm\[Hg\]'"),
        ({"ChannelDefinitionSequence": [channel(sensitivity="0")] * 2}, UnitError, "scale of 0"),
        ({"ChannelDefinitionSequence": [channel(ChannelSampleSkew="1")] * 2}, LeadError, "skewed in time"),
    ],
)
def test_what_is_refused(tmp_path, change, error, message):
    refuse(write(tmp_path / "ecg.dcm", group(**change)), error, message)


def test_truncated_and_other_files(tmp_path):
    path = write(tmp_path / "ecg.dcm", group())
    content = path.read_bytes()
    for size in (0, 100, 132, 300, len(content) - 100, len(content) - 1):
        path.write_bytes(content[:size])
        assert "Doe" not in str(refuse(path, EcgFileError, "truncated|got 0 recorded waveforms"))
    refuse(write(path, group(), syntax=DeflatedExplicitVRLittleEndian), EcgFileError, "got a deflated file")


def test_an_absurd_length_is_refused(tmp_path):
    path = write(tmp_path / "ecg.dcm", group())
    content = bytearray(path.read_bytes())
    place = content.index(b"\x00\x54\x10\x10OW") + 8
    content[place : place + 4] = b"\xfe\xff\xff\x7f"
    path.write_bytes(content[:-20])
    refuse(path, EcgFileError, "truncated")


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "ecg.dcm", group())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    refuse(path, EcgFileError, r"needs the package pydicom.*pip install 'ecgbyte-hf\[dicom\]'")


def test_a_real_one(test_data):
    """`waveform_ecg.dcm` as `pydicom` decodes it: 12 leads at 1000 Hz in uV, and a median beat beside them."""
    path = test_data / "ood/dicom/waveform_ecg.dcm"
    dataset = pydicom.dcmread(path)
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, dataset.waveform_array(0).T * 1e-3, rtol=1e-12)
    assert record.signal.shape == (12, 10000) and record.sampling_rate == 1000.0
    assert record.lead_names == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert record.source == {"format": "dicom", "units": ["uV"] * 12, "gains": [0.8] * 12}
    np.testing.assert_allclose(record.signal[0] + record.signal[2], record.signal[1], atol=0.003)
    patient = [dataset.PatientID, dataset.PatientBirthDate, "Anonymous", "Mortara", "20130125", "Galliera", "13002689"]
    assert_anonymous(record, patient)
