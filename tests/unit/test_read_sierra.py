"""Philips Sierra XML: coded here by an LZW coder of its own, and a real one as the package `sierraecg` decodes it."""

import base64
import struct

import numpy as np
import pytest
import sierraecg
from readers import assert_anonymous, refuse, some_ecg

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, UnitError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.signal.records import read_ecg

RATE, NUM_SAMPLES = 500, 300


def twelve_leads() -> np.ndarray:
    """Integers as a recorder has them: limb leads that agree up to rounding, and independent chest leads."""
    one, two, *chest = some_ecg(8, NUM_SAMPLES, seed=3).astype(np.int64)
    noise = np.random.default_rng(4).integers(-1, 2, size=(4, NUM_SAMPLES))
    limbs = np.array([two - one, -(one + two) // 2, one - two // 2, two - one // 2]) + noise
    return np.array([one, two, *limbs, *chest])


LEADS = twelve_leads()


def lzw(content: bytes) -> bytes:
    """Longest known string first; 10 bits for each code; 1023 at the end."""
    known = {bytes([byte]): byte for byte in range(256)}
    codes, place = [], 0
    while place < len(content):
        length = 1
        while place + length < len(content) and content[place : place + length + 1] in known:
            length += 1
        codes.append(known[content[place : place + length]])
        if len(known) < 1023:
            known[content[place : place + length + 1]] = len(known)
        place += length
    bits = "".join(f"{code:010b}" for code in [*codes, 1023])
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))


def chunk(samples) -> bytes:
    """Two samples, then second differences one place late with 64 added; high bytes, then low bytes."""
    bends = -np.diff(samples, 2)
    numbers = [samples[0], samples[1], *(bends[1:] + 64), 0]
    words = [int(number) & 0xFFFF for number in numbers]
    packed = lzw(bytes(word >> 8 for word in words) + bytes(word & 255 for word in words))
    return struct.pack("<ihh", len(packed), 1, int(bends[0])) + packed


def stored(leads=LEADS) -> list[np.ndarray]:
    """III, aVR, aVL, aVF as the difference from what the leads before them give."""
    one, two, three, right, left, foot, *chest = leads
    three_stored = two - one - three
    right_stored = -right - (one + two) // 2
    return [one, two, three_stored, right_stored, (one - three) // 2 - left, (two + three) // 2 - foot, *chest]


def document(
    chunks=None, attributes="", resolution="5", acquisition="STD-12", channels=12, method="XLI", duration=600
):
    chunks = [chunk(row) for row in stored()] if chunks is None else chunks
    content = base64.b64encode(b"".join(chunks)).decode()
    return (
        '<?xml version="1.0" encoding="UTF-8"?><restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo>'
        "<documenttype>SierraECG</documenttype><documentversion>1.03</documentversion></documentinfo>"
        '<reportinfo date="1951-02-03"/><patient><patientid>JD4711</patientid><lastname>Doe</lastname></patient>'
        f"<dataacquisition><signalcharacteristics><samplingrate>{RATE}</samplingrate>"
        f"<signalresolution>{resolution}</signalresolution><acquisitiontype>{acquisition}</acquisitiontype>"
        f"<numberchannelsallocated>{channels}</numberchannelsallocated>"
        f"<numberchannelsvalid>{channels}</numberchannelsvalid></signalcharacteristics></dataacquisition><waveforms>"
        f'<parsedwaveforms compressmethod="{method}" dataencoding="Base64" durationperchannel="{duration}"'
        f"{attributes}>{content}</parsedwaveforms></waveforms></restingecgdata>"
    )


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def as_the_package_reads_it(path, record):
    leads = sierraecg.read_file(str(path)).leads
    assert [lead.label for lead in leads] == list(record.lead_names)
    assert {lead.sampling_freq for lead in leads} == {record.sampling_rate}
    np.testing.assert_allclose(record.signal, np.array([lead.samples for lead in leads]) * 5e-3, rtol=1e-12)


def test_values(tmp_path):
    path = write(tmp_path / "ecg.xml", document())
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, LEADS * 5e-3, rtol=1e-12)
    assert (record.sampling_rate, record.lead_names) == (500.0, CLINICAL_LEADS)
    assert record.source == {"format": "sierra", "units": ["uV"] * 12, "gains": [0.2] * 12}
    assert_anonymous(record)
    as_the_package_reads_it(path, record)
    np.testing.assert_array_equal(read_ecg(path, leads=["V1", "AVL"]).signal, record.signal[[6, 4]])


def test_leads_that_the_file_lists(tmp_path):
    names = " ".join((*CLINICAL_LEADS[:6], "V3R", "V7", "", ""))
    text = document(attributes=f' leadlabels="{names}" numberofleads="8"', channels=16)
    record = read_ecg(write(tmp_path / "ecg.xml", text))
    assert record.lead_names == (*CLINICAL_LEADS[:6], "V3R", "V7")
    np.testing.assert_allclose(record.signal, LEADS[:8] * 5e-3, rtol=1e-12)


def test_version_1_04(tmp_path):
    """The resolution has another name there, and what stands with the waveforms is what holds for them."""
    text = document().replace("signalresolution", "resolution").replace("compressmethod", "compression")
    assert read_ecg(write(tmp_path / "ecg.xml", text)).source["gains"] == [0.2] * 12
    attributes = ' samplespersecond="250" resolution="2.5" signaloffset="0" durationperchannel="1200"'
    text = text.replace(' durationperchannel="600"', attributes)
    record = read_ecg(write(tmp_path / "ecg.xml", text))
    np.testing.assert_allclose(record.signal, LEADS * 2.5e-3, rtol=1e-12)
    assert record.sampling_rate == 250.0
    text = text.replace('signaloffset="0"', 'signaloffset="2048"')
    refuse(write(tmp_path / "ecg.xml", text), EcgFileError, "the samples have an offset")


CHUNKS = [chunk(row) for row in stored()]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"chunks": CHUNKS[:11]}, EcgFileError, "the data of lead V6 are cut short"),
        ({"chunks": [*CHUNKS[:11], CHUNKS[11][:-5]]}, EcgFileError, "the data of lead V6 are cut short"),
        ({"chunks": [struct.pack("<ihh", -1, 1, 0), *CHUNKS]}, EcgFileError, "the data of lead I are cut short"),
        ({"chunks": [struct.pack("<ihh", 4, 1, 0) + b"\xf0\xf0\xf0\xf0"] * 12}, EcgFileError, "lead I are cut short"),
        ({"duration": 602}, EcgFileError, "the data of lead I are cut short"),
        ({"duration": 598}, EcgFileError, "the data of lead I are cut short"),
        ({"duration": 1 << 40}, EcgFileError, "got 5.49756e.11 samples"),
        ({"duration": 601}, EcgFileError, "got 300.5 samples"),
        ({"duration": 0}, EcgFileError, "got 0 samples"),
        ({"duration": "long"}, EcgFileError, "'durationperchannel' is no number"),
        ({"resolution": "fine"}, EcgFileError, "'signalresolution' is no number"),
        ({"resolution": "0"}, UnitError, "scale of 0"),
        ({"acquisition": "STD-16"}, LeadError, "the file names no leads"),
        ({"channels": 8}, LeadError, "got 8 channels for 12 leads"),
        ({"attributes": ' leadlabels="V1 V2" numberofleads="2"'}, LeadError, "the limb leads first"),
        ({"method": "Huffman"}, EcgFileError, "not XLI in base64"),
    ],
)
def test_what_is_refused(tmp_path, change, error, message):
    refuse(write(tmp_path / "ecg.xml", document(**change)), error, message)


def test_truncated_files(tmp_path):
    text = document()
    for size in (len(text) // 2, len(text) - 1):
        refuse(write(tmp_path / "ecg.xml", text[:size]), EcgFileError, "not XML, or truncated")
    refuse(write(tmp_path / "ecg.xml", text.replace("</parsed", "?</parsed")), EcgFileError, "is not base64")
    refuse(write(tmp_path / "ecg.xml", "<restingecgdata/>"), EcgFileError, "no parsed waveforms")


def test_a_real_one(test_data):
    """Behind ten seconds of ECG the recorder has put its calibration pulse: 1 mV in all leads if a step is 5 uV."""
    path = test_data / "ood/philips_sierra/129DYPRG.XML"
    record = read_ecg(path)
    as_the_package_reads_it(path, record)
    assert (record.signal.shape, record.sampling_rate) == ((12, 5500), 500.0)
    np.testing.assert_array_equal(record.signal[:, 5350:5450], np.ones((12, 100)))
    np.testing.assert_allclose((record.signal[0] + record.signal[2] - record.signal[1])[:5000], 0, atol=0.0101)
    assert_anonymous(record, ["1112010721168bdc", "2011", "HeartstartMRx", "GE EMS", "Male", "GEILM"])
