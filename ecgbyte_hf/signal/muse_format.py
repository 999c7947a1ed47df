"""Reader of GE MUSE XML (RestingECG): the rhythm waveform.

MUSE stores eight leads; III, aVR, aVL and aVF follow from I and II exactly (Einthoven, Goldberger). They are derived
here where none of them is stored, and named in `EcgRecord.source["derived_leads"]`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError
from ecgbyte_hf.models.leads_ecg_byte import LIMB_LEADS_FROM_I_AND_II, canonical_lead_name, order_leads
from ecgbyte_hf.signal.channels import Channel, make_record
from ecgbyte_hf.signal.records import EcgRecord, Given
from ecgbyte_hf.signal.xml_file import from_base64, is_xml_of, number_of, parse_xml, text_of

DESCRIPTION = "GE MUSE (.xml)"

_ROOT = "RestingECG"
_UNITS = {"MICROVOLTS": "uV", "MILLIVOLTS": "mV"}


def recognises(path: Path) -> bool:
    """Say whether the file is a resting ECG of MUSE."""
    return is_xml_of(path, _ROOT)


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says; leads that are not stored may be among those asked for."""
    waveform = _rhythm(path, parse_xml(path, _ROOT))
    rate = _sampling_rate(path, waveform)
    elements = waveform.findall("LeadData")
    channels = [_channel(path, element, rate) for element in elements]
    record = make_record(
        path, "muse", channels, lambda wanted: [_samples(path, elements[index]) for index in wanted], None, given
    )
    return _chosen(path, _with_limb_leads(record), leads)


def _rhythm(path: Path, root: Element) -> Element:
    """Return the waveform that is not a median beat."""
    found = [one for one in root.findall("Waveform") if text_of(path, one, "WaveformType").upper() == "RHYTHM"]
    if len(found) != 1 or text_of(path, found[0], "SampleType") != "CONTINUOUS_SAMPLES":
        raise EcgFileError(
            f"{path}: got {len(found)} rhythm waveforms, expected one of continuous samples. Export the recording "
            "with its rhythm waveform."
        )
    return found[0]


def _sampling_rate(path: Path, waveform: Element) -> float:
    """Return samples per second: the base times a power of ten."""
    exponent = number_of(path, waveform, "SampleExponent")
    if exponent not in range(-6, 7):
        raise SamplingRateError(f"{path}: got a sample exponent of {exponent:g}, expected one of -6 to 6.")
    return float(number_of(path, waveform, "SampleBase") * 10 ** int(exponent))


def _channel(path: Path, element: Element, rate: float) -> Channel:
    """Describe a lead."""
    name, unit = text_of(path, element, "LeadID"), text_of(path, element, "LeadAmplitudeUnits")
    if any(_number_or_zero(path, element, field) for field in ("LeadTimeOffset", "LeadOffsetFirstSample")):
        raise LeadError(f"{path}: lead {name[:10]!r} begins later than others, expected leads of one time.")
    if _number_or_zero(path, element, "FirstSampleBaseline"):
        raise EcgFileError(f"{path}: lead {name[:10]!r} has a baseline, expected 0: what it means is not known.")
    return Channel(name, _UNITS.get(unit, unit), rate, scale=number_of(path, element, "LeadAmplitudeUnitsPerBit"))


def _number_or_zero(path: Path, element: Element, name: str) -> float:
    """Return an offset, which is none where the field is left out."""
    return 0.0 if element.find(name) is None else number_of(path, element, name)


def _samples(path: Path, element: Element) -> np.ndarray:
    """Return the stored numbers of a lead, checked against the size and checksum that the file states."""
    name = text_of(path, element, "LeadID")[:10]
    content = from_base64(path, f"lead {name!r}", text_of(path, element, "WaveFormData"))
    count, width = (number_of(path, element, field) for field in ("LeadSampleCountTotal", "LeadSampleSize"))
    if width != 2 or len(content) != 2 * count:
        raise EcgFileError(
            f"{path}: lead {name!r}: got {len(content)} bytes, expected {count:.0f} samples of 2 bytes, not of "
            f"{width:g}. The file is truncated or damaged: export it again."
        )
    if element.find("LeadDataCRC32") is not None and number_of(path, element, "LeadDataCRC32") != zlib.crc32(content):
        raise EcgFileError(f"{path}: the checksum of lead {name!r} does not hold. It is corrupt: export it again.")
    return np.frombuffer(content, dtype="<i2")


def _with_limb_leads(record: EcgRecord) -> EcgRecord:
    """Add the limb leads that follow from I and II, if none of them is there."""
    names = [canonical_lead_name(name) for name in record.lead_names]
    source = record.source or {}
    if any(name in LIMB_LEADS_FROM_I_AND_II for name in names) or names.count("I") != 1 or names.count("II") != 1:
        return record
    one, two = names.index("I"), names.index("II")
    derived = [a * record.signal[one] + b * record.signal[two] for a, b in LIMB_LEADS_FROM_I_AND_II.values()]
    return replace(
        record,
        signal=np.concatenate((record.signal, derived)),
        lead_names=(*record.lead_names, *LIMB_LEADS_FROM_I_AND_II),
        source={
            **source,
            "units": [*source["units"], *[source["units"][one]] * len(derived)],
            "gains": [*source["gains"], *[source["gains"][one]] * len(derived)],
            "derived_leads": list(LIMB_LEADS_FROM_I_AND_II),
        },
    )


def _chosen(path: Path, record: EcgRecord, leads: Sequence[str] | None) -> EcgRecord:
    """Keep the leads that are asked for, in their order."""
    if leads is None:
        return record
    try:
        wanted = order_leads(record.lead_names, leads)
    except LeadError as error:
        raise LeadError(f"{path}: {error}") from None
    names = tuple(record.lead_names[index] for index in wanted)
    source = dict(record.source or {})
    for key in ("units", "gains"):
        source[key] = [source[key][index] for index in wanted]
    if derived := [name for name in source.pop("derived_leads", []) if name in names]:
        source["derived_leads"] = derived
    return replace(record, signal=record.signal[wanted], lead_names=names, source=source)
