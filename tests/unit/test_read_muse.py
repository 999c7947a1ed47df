"""GE MUSE XML: small documents written here, and a real one read a second time by regular expressions."""

import base64
import re
import textwrap
import zlib

import numpy as np
import pytest
from readers import assert_anonymous, refuse, some_ecg

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.signal.records import read_ecg

STEPS = some_ecg(3, 12)
NAMES = ("I", "II", "V1")


def lead(name, row, **changes):
    content = np.asarray(row).astype("<i2").tobytes()
    fields = {
        "LeadTimeOffset": 0,
        "LeadSampleCountTotal": len(row),
        "LeadAmplitudeUnitsPerBit": 4.88,
        "LeadAmplitudeUnits": "MICROVOLTS",
        "LeadID": name,
        "LeadOffsetFirstSample": 0,
        "FirstSampleBaseline": 0,
        "LeadSampleSize": 2,
        "LeadDataCRC32": zlib.crc32(content),
        "WaveFormData": "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 20)),
    }
    return "<LeadData>" + "".join(f"<{k}>{v}</{k}>" for k, v in (fields | changes).items()) + "</LeadData>"


def waveform(leads, kind="Rhythm", samples="CONTINUOUS_SAMPLES", base=500, exponent=0):
    return (
        f"<Waveform><WaveformType>{kind}</WaveformType><SampleType>{samples}</SampleType><SampleBase>{base}</SampleBase>"
        f"<SampleExponent>{exponent}</SampleExponent>{''.join(leads)}</Waveform>"
    )


def document(*waveforms, doctype='<!DOCTYPE RestingECG SYSTEM "restecg.dtd">'):
    waveforms = waveforms or (
        waveform([lead(name, row[:4]) for name, row in zip(NAMES, STEPS, strict=True)], "Median"),
        waveform([lead(name, row) for name, row in zip(NAMES, STEPS, strict=True)]),
    )
    return (
        f'<?xml version="1.0" encoding="ISO-8859-1"?>\n{doctype}\n<RestingECG><PatientDemographics><PatientID>JD4711'
        "</PatientID><DateofBirth>02-03-1951</DateofBirth><PatientLastName>Doe</PatientLastName></PatientDemographics>"
        f"<Diagnosis><StmtText>Confirmed by Jane</StmtText></Diagnosis>{''.join(waveforms)}</RestingECG>"
    )


def write(path, text):
    path.write_text(text, encoding="latin-1")
    return path


def test_values_and_derived_leads(tmp_path):
    path = write(tmp_path / "ecg.xml", document())
    record = read_ecg(path)
    assert record.lead_names == ("I", "II", "V1", "III", "aVR", "aVL", "aVF")
    one, two, chest = STEPS * 4.88e-3
    expected = [one, two, chest, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    np.testing.assert_allclose(record.signal, expected, rtol=1e-12, atol=1e-12)
    assert record.sampling_rate == 500.0
    assert record.source == {
        "format": "muse",
        "units": ["uV"] * 7,
        "gains": [1 / 4.88] * 7,
        "derived_leads": ["III", "aVR", "aVL", "aVF"],
    }
    assert_anonymous(record)


def test_chosen_leads(tmp_path):
    path = write(tmp_path / "ecg.xml", document())
    chosen = read_ecg(path, leads=["aVF", "V1"])
    np.testing.assert_array_equal(chosen.signal, read_ecg(path).signal[[6, 2]])
    assert (chosen.lead_names, chosen.source["derived_leads"]) == (("aVF", "V1"), ["aVF"])
    assert len(chosen.source["gains"]) == 2
    assert "derived_leads" not in read_ecg(path, leads=["V1", "I"]).source
    refuse(path, LeadError, "Missing lead V2", leads=["V2"])


def test_nothing_is_derived_where_one_of_the_four_or_i_is_stored(tmp_path):
    for names in (("I", "II", "AVR"), ("II", "V1", "V2")):
        leads = [lead(name, row) for name, row in zip(names, STEPS, strict=True)]
        record = read_ecg(write(tmp_path / "ecg.xml", document(waveform(leads))))
        assert record.lead_names == names and "derived_leads" not in record.source


def test_units_and_rate(tmp_path):
    leads = [lead("V1", STEPS[0], LeadAmplitudeUnits="MILLIVOLTS", LeadAmplitudeUnitsPerBit=0.001)]
    record = read_ecg(write(tmp_path / "ecg.xml", document(waveform(leads, base=25, exponent=1), doctype="")))
    np.testing.assert_allclose(record.signal, STEPS[:1] * 1e-3)
    assert record.sampling_rate == 250.0


def test_offsets_may_be_left_out(tmp_path):
    text = document()
    for name in ("LeadTimeOffset", "LeadOffsetFirstSample", "FirstSampleBaseline", "LeadDataCRC32"):
        text = re.sub(f"<{name}>[^<]*</{name}>", "", text)
    np.testing.assert_allclose(read_ecg(write(tmp_path / "ecg.xml", text)).signal[:3], STEPS * 4.88e-3)


ONE = "V1", STEPS[0]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (document(waveform([lead(*ONE)], "Median")), EcgFileError, "got 0 rhythm waveforms"),
        (document(waveform([lead(*ONE)]), waveform([lead(*ONE)])), EcgFileError, "got 2 rhythm waveforms"),
        (document(waveform([lead(*ONE)], samples="BEATS")), EcgFileError, "of continuous samples"),
        (document(waveform([lead(*ONE)], base=0)), SamplingRateError, "expected a positive one"),
        (document(waveform([lead(*ONE)], base="fast")), EcgFileError, "'SampleBase' is no number"),
        (document(waveform([lead(*ONE)], exponent=999)), SamplingRateError, "sample exponent of 999"),
        (document(waveform([])), EcgFileError, "got no leads"),
        (document(waveform([lead(*ONE, LeadTimeOffset=5)])), LeadError, "begins later"),
        (document(waveform([lead(*ONE, FirstSampleBaseline=5)])), EcgFileError, "has a baseline"),
        (document(waveform([lead(*ONE, LeadSampleSize=4)])), EcgFileError, "not of 4"),
        (
            document(waveform([lead(*ONE, LeadSampleCountTotal=1 << 40)])),
            EcgFileError,
            "got 24 bytes, expected 1099511",
        ),
        (document(waveform([lead(*ONE, LeadDataCRC32=7)])), EcgFileError, "checksum of lead 'V1' does not hold"),
        (document(waveform([lead(*ONE, WaveFormData="AAB")])), EcgFileError, "lead 'V1' is not base64"),
        (document(waveform([lead(*ONE, WaveFormData="?!")])), EcgFileError, "lead 'V1' is not base64"),
        (document(waveform([lead(*ONE, LeadAmplitudeUnits="MMHG")])), UnitError, "is in 'MMHG'"),
        (
            document(waveform([lead(*ONE) * 2])).replace("<LeadID>V1</LeadID>", "", 1),
            EcgFileError,
            "got 0 elements 'Le",
        ),
        (document()[:-30], EcgFileError, "not XML, or truncated"),
    ],
)
def test_what_is_refused(tmp_path, text, error, message):
    assert "Doe" not in str(refuse(write(tmp_path / "ecg.xml", text), error, message))


def test_a_real_one(test_data):
    """The waveform after `<WaveformType>Rhythm`: base64 of 16-bit numbers, with CRC-32 of `zlib` over their bytes."""
    path = test_data / "ood/ge_muse/musePHI_muse_ecg1.xml"
    text = path.read_text(encoding="latin-1")
    rhythm = text.partition("<WaveformType>Rhythm")[2]
    names = re.findall(r"<LeadID>(\w+)</LeadID>", rhythm)
    data = [base64.b64decode(block) for block in re.findall(r"<WaveFormData>([^<]*)</WaveFormData>", rhythm)]
    assert [zlib.crc32(block) for block in data] == [int(crc) for crc in re.findall(r"CRC32>(\d+)<", rhythm)]
    steps = np.array([np.frombuffer(block, dtype="<i2") for block in data])
    record = read_ecg(path)
    assert names == ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert record.lead_names == (*names, "III", "aVR", "aVL", "aVF")
    np.testing.assert_allclose(record.signal[:8], steps * 4.88e-3, rtol=1e-12)
    rows = dict(zip(record.lead_names, record.signal, strict=True))
    np.testing.assert_allclose(rows["aVR"] + rows["aVL"] + rows["aVF"], 0, atol=1e-12)
    assert (record.signal.shape, record.sampling_rate) == ((12, 5000), 500.0)
    assert_anonymous(record, ["JAX01234", "TEST 05", "05-10-2021", "Doe", "LAST", "FIRST", "Research", "MALE"])
