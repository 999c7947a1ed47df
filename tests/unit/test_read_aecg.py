"""HL7 annotated ECGs: small documents written here, and two real ones read a second time by regular expressions."""

import re

import numpy as np
import pytest
from readers import assert_anonymous, refuse, some_ecg

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.signal.records import read_ecg

STEPS = some_ecg(2, 12)
TIME = (
    '<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="19510203"/>{}'
    "</value></sequence></component>"
)


def lead(code, row, origin="0", unit="uV", scale="2.5", scale_unit="uV"):
    return (
        f'<component><sequence><code code="{code}"/><value xsi:type="SLIST_PQ">'
        f'<origin value="{origin}" unit="{unit}"/><scale value="{scale}" unit="{scale_unit}"/>'
        f"<digits>{' '.join(map(str, row))}\n</digits></value></sequence>"
        "</component>"
    )


def document(
    leads=None,
    increment='<increment value="0.002" unit="s"/>',
    series="RHYTHM",
    namespace=' xmlns="urn:hl7-org:v3"',
):
    leads = leads or [lead("MDC_ECG_LEAD_I", STEPS[0]), lead("MDC_ECG_LEAD_AVR", STEPS[1])]
    sequences = f"<component><sequenceSet>{TIME.format(increment)}{''.join(leads)}</sequenceSet></component>"
    beat = f"<derivation><derivedSeries><code code='REPRESENTATIVE_BEAT'/>{sequences}</derivedSeries></derivation>"
    return (
        f'<?xml version="1.0"?><!-- Jane Doe --><AnnotatedECG{namespace} '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><componentOf><name>Jane Doe</name><id root="JD4711"/>'
        f'<birthTime value="19510203"/></componentOf><component><series><code code="{series}"/>{sequences}{beat}'
        "</series></component></AnnotatedECG>"
    )


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("namespace", ["", ' xmlns="urn:hl7-org:v3"'])
def test_values(tmp_path, namespace):
    path = write(tmp_path / "ecg.xml", document(namespace=namespace))
    record = read_ecg(path)
    np.testing.assert_allclose(record.signal, STEPS * 2.5e-3)
    assert (record.sampling_rate, record.lead_names) == (500.0, ("I", "aVR"))
    assert record.source == {"format": "aecg", "units": ["uV", "uV"], "gains": [0.4, 0.4]}
    assert_anonymous(record)
    np.testing.assert_allclose(read_ecg(path, leads=["AVR"]).signal, STEPS[1:] * 2.5e-3)
    refuse(path, LeadError, "Missing lead V1", leads=["V1"])
    refuse(path, SamplingRateError, "got sampling_rate=250", sampling_rate=250)


def test_origin_scale_and_unit(tmp_path):
    leads = [
        lead("MDC_ECG_LEAD_I", STEPS[0], origin="-0.5", unit="mV"),
        lead("MDC_ECG_LEAD_V1", STEPS[1], scale="0.001", scale_unit="mV"),
    ]
    record = read_ecg(write(tmp_path / "ecg.xml", document(leads)))
    np.testing.assert_allclose(record.signal, [STEPS[0] * 2.5e-3 - 0.5, STEPS[1] * 1e-3])


@pytest.mark.parametrize(("value", "unit", "rate"), [("1", "ms", 1000), ("2000", "us", 500), ("4e-3", "s", 250)])
def test_units_of_time(tmp_path, value, unit, rate):
    path = write(tmp_path / "ecg.xml", document(increment=f'<increment value="{value}" unit="{unit}"/>'))
    assert read_ecg(path).sampling_rate == rate


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"series": "REPRESENTATIVE_BEAT"}, EcgFileError, "got 0 rhythm series with 0 sets"),
        ({"increment": ""}, SamplingRateError, "got 0 increments of time"),
        ({"increment": '<increment value="0" unit="s"/>'}, SamplingRateError, "expected a positive one"),
        ({"increment": '<increment value="1" unit="min"/>'}, SamplingRateError, "expected one in s, ms, us"),
        ({"increment": '<increment unit="s"/>'}, EcgFileError, "'increment' is no number"),
        ({"leads": [lead("MDC_ECG_LEAD_I", ["1", "Doe"])]}, EcgFileError, "lead I has digits that are no numbers"),
        ({"leads": [lead("MDC_ECG_LEAD_I", ["1_0"])]}, EcgFileError, "lead I has digits that are no numbers"),
        ({"leads": [lead("MDC_ECG_LEAD_I", [])]}, EcgFileError, "got 0 samples"),
        ({"leads": [lead("MDC_PRESS", [1])]}, EcgFileError, "got no leads"),
        ({"leads": [lead("MDC_ECG_LEAD_I", [1], scale_unit="mmHg")]}, UnitError, "channel 'I' is in 'mmHg'"),
        ({"leads": [lead("MDC_ECG_LEAD_I", [1], scale="0")]}, UnitError, "scale of 0"),
        ({"leads": [lead("MDC_ECG_LEAD_I", [1], "1", "bar")]}, UnitError, "origin and scale in"),
        (
            {"leads": [lead("MDC_ECG_LEAD_I", [1, 2]), lead("MDC_ECG_LEAD_II", [1])]},
            EcgFileError,
            "got 1 and 2 samples",
        ),
        ({"leads": [lead("MDC_ECG_LEAD_I", [1]).replace("<scale", "<scala")]}, EcgFileError, "not XML|no origin and"),
    ],
)
def test_what_is_refused(tmp_path, change, error, message):
    assert "Doe" not in str(refuse(write(tmp_path / "ecg.xml", document(**change)), error, message))


def test_a_missing_scale_and_two_series(tmp_path):
    text = document([re.sub("<scale[^>]*>", "", lead("MDC_ECG_LEAD_I", [1, 2]))])
    refuse(write(tmp_path / "ecg.xml", text), EcgFileError, "lead I has no origin and scale")
    text = document()
    start, end = text.index("<component><series>"), text.index("</AnnotatedECG>")
    path = write(tmp_path / "ecg.xml", text[:end] + text[start:end] + text[end:])
    refuse(path, EcgFileError, "got 2 rhythm series with 2 sets of sequences")


def test_truncated_files(tmp_path):
    text = document()
    for size in (300, len(text) // 2, len(text) - 1):
        refuse(write(tmp_path / "ecg.xml", text[:size]), EcgFileError, "not XML, or truncated")


@pytest.mark.parametrize(
    ("name", "rate", "shape", "scale", "secrets"),
    [
        ("FDA_Example_aECG.xml", 500.0, (12, 5000), 2.5, ["SBJ-123", "20021122", "JMK", "Clark", "ELI", "1953"]),
        ("LIRYC_hl7aecg_100hz.xml", 100.0, (12, 1000), 5.0, ["25060897140", "20250923", "1463", "Mindray", "FN-3A"]),
    ],
)
def test_real_ones(test_data, name, rate, shape, scale, secrets):
    """The first twelve lists of digits are the rhythm; those of the representative beat come later."""
    path = test_data / "ood/aecg" / name
    text = path.read_text(encoding="utf-8")
    codes = re.findall(r'<code code="MDC_ECG_LEAD_(\w+)"[^>]*>(?:</code>)?\s*<value[^>]*SLIST', text)[:12]
    digits = [np.array(row.split(), dtype=int) for row in re.findall(r"<digits>([^<]*)</digits>", text)[:12]]
    record = read_ecg(path)
    assert [name.upper() for name in record.lead_names] == codes
    assert (record.sampling_rate, record.signal.shape) == (rate, shape)
    np.testing.assert_allclose(record.signal, np.array(digits) * scale * 1e-3, rtol=1e-12)
    if name.startswith("FDA"):  # The other one is a test signal: all leads have one shape.
        rows = dict(zip(record.lead_names, record.signal, strict=True))
        np.testing.assert_allclose(rows["I"] + rows["III"], rows["II"], atol=3 * scale * 1e-3)
    assert record.source == {"format": "aecg", "units": ["uV"] * 12, "gains": [1 / scale] * 12}
    assert_anonymous(record, secrets)
