"""Reader of Philips Sierra XML (restingecgdata, versions 1.03 and 1.04) with XLI compression.

Written after the public description in github.com/sixlettervariables/sierra-ecg-tools. Its package `sierraecg` is not
used: it takes a truncated or damaged chunk for a shorter lead, has no limit of size, and leaves the resolution out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.signal.channels import MOST_COMPRESSED_SAMPLES, Channel, make_record
from ecgbyte_hf.signal.records import EcgRecord, Given
from ecgbyte_hf.signal.xml_file import from_base64, is_xml_of, number_of, parse_xml, to_number

DESCRIPTION = "Philips Sierra (.xml)"

_ROOT = "restingecgdata"
_STANDARD_SETS = ("STD-12", "10-WIRE")
_CHUNK = struct.Struct("<ihh")
_LIMB = CLINICAL_LEADS[:6]

_CODE_BITS = 10
_LAST_CODE = (1 << _CODE_BITS) - 2
_END = _LAST_CODE + 1


def recognises(path: Path) -> bool:
    """Say whether the file is a Sierra ECG."""
    return is_xml_of(path, _ROOT)


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says."""
    root = parse_xml(path, _ROOT)
    characteristics = root.find("{*}dataacquisition/{*}signalcharacteristics")
    waveforms = root.find("{*}waveforms/{*}parsedwaveforms")
    if characteristics is None or waveforms is None:
        raise EcgFileError(f"{path}: there are no parsed waveforms with signal characteristics. Export them too.")
    names = _lead_names(path, characteristics, waveforms)
    rate = _stated(path, "samplespersecond", waveforms, "samplingrate", characteristics)
    # "All amplitudes are in microvolts", says the schema.
    in_characteristics = "resolution" if characteristics.find("{*}resolution") is not None else "signalresolution"
    resolution = _stated(path, "resolution", waveforms, in_characteristics, characteristics)
    channels = [Channel(name, "uV", rate, scale=resolution) for name in names]
    num_samples = _num_samples(path, waveforms, rate, len(names))

    def decode(wanted: Sequence[int]) -> list[np.ndarray]:
        stored = _leads(path, waveforms, names, num_samples)
        return [stored[index] for index in wanted]

    return make_record(path, "sierra", channels, decode, leads, given)


def _stated(path: Path, attribute: str, waveforms: Element, name: str, characteristics: Element) -> float:
    """Return what version 1.04 states of the waveforms; they may have been changed since they were acquired."""
    if attribute in waveforms.attrib:
        return to_number(path, attribute, waveforms.get(attribute))
    return number_of(path, characteristics, name)


def _lead_names(path: Path, characteristics: Element, waveforms: Element) -> list[str]:
    """Return the leads: those that version 1.04 lists, or in version 1.03 those of the standard set."""
    labels = waveforms.get("leadlabels")
    if labels is not None:
        count = to_number(path, "numberofleads", waveforms.get("numberofleads"))
        names = labels.split()[: max(int(count), 0)]
    else:
        used = (characteristics.findtext("{*}acquisitiontype") or "").strip()
        if used not in _STANDARD_SETS:
            raise LeadError(
                f"{path}: the file names no leads, expected a list or one of the sets {', '.join(_STANDARD_SETS)}."
            )
        count = number_of(path, characteristics, "numberchannelsvalid")
        names = list(CLINICAL_LEADS)
    if len(names) != count or tuple(names[:6]) != _LIMB:
        raise LeadError(
            f"{path}: got {count:g} channels for {len(names)} leads, expected one for each, and the limb leads first: "
            "four of them are stored as differences from others."
        )
    return names


def _num_samples(path: Path, waveforms: Element, rate: float, num_leads: int) -> int:
    """Return the samples of each lead, after a look at how they are stored."""
    if to_number(path, "signaloffset", waveforms.get("signaloffset", "0")):
        raise EcgFileError(f"{path}: the samples have an offset, expected 0: what it means is not known.")
    method = waveforms.get("compressmethod", waveforms.get("compression", "none"))
    if method != "XLI" or waveforms.get("dataencoding") != "Base64":
        raise EcgFileError(
            f"{path}: got waveforms that are not XLI in base64, expected that: no recording stored otherwise was at "
            "hand to check. Export it compressed."
        )
    count = to_number(path, "durationperchannel", waveforms.get("durationperchannel")) / 1000 * rate
    if not 2 <= count * num_leads <= MOST_COMPRESSED_SAMPLES or count != round(count):
        raise EcgFileError(
            f"{path}: got {count:g} samples for each of {num_leads} leads, expected a whole number of at most "
            f"{MOST_COMPRESSED_SAMPLES} together. The file is damaged: export it again."
        )
    return round(count)


def _leads(path: Path, waveforms: Element, names: Sequence[str], num_samples: int) -> list[np.ndarray]:
    """Return all leads as recorded; III, aVR, aVL and aVF are stored as what they differ from I and II by."""
    content = from_base64(path, "the waveform", waveforms.text or "")
    stored, place = [], 0
    for name in names:
        if place + _CHUNK.size > len(content):
            raise _truncated(path, name)
        size, _, first = _CHUNK.unpack_from(content, place)
        place += _CHUNK.size
        if not 0 <= size <= len(content) - place:
            raise _truncated(path, name)
        stored.append(_samples(path, name, content[place : place + size], first, num_samples))
        place += size
    one, two, three, right, left, foot = stored[:6]
    three = two - one - three
    right = -right - (one + two) // 2
    left = (one - three) // 2 - left
    foot = (two + three) // 2 - foot
    return [one, two, three, right, left, foot, *stored[6:]]


def _truncated(path: Path, name: str) -> EcgFileError:
    """Make the error of data that end too early."""
    return EcgFileError(f"{path}: the data of lead {name} are cut short or damaged. Export the recording again.")


def _samples(path: Path, name: str, packed: bytes, first: int, num_samples: int) -> np.ndarray:
    """Decode one lead: two samples, then second differences, each one place late, with 64 added.

    The high bytes come first, then the low bytes.
    """
    plain = _unpacked(path, name, packed, 2 * num_samples)
    halves = np.frombuffer(plain, dtype=np.uint8).reshape(2, num_samples).astype(np.uint16)
    numbers = (halves[0] << 8 | halves[1]).view(np.int16).astype(np.int64)
    if num_samples < 3:
        return numbers
    bends = np.concatenate(([first], numbers[2:-1] - 64))
    slopes = np.cumsum(np.concatenate(([numbers[1] - numbers[0]], -bends)))
    samples = numbers[0] + np.concatenate(([0], np.cumsum(slopes)))
    if np.abs(samples).max() > 1 << 15:
        raise _truncated(path, name)
    return samples


def _unpacked(path: Path, name: str, packed: bytes, size: int) -> bytes:
    """Decode LZW with codes of 10 bits, high bit first: bytes, then strings in the order they are met, an end."""
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    codes = bits[: len(bits) // _CODE_BITS * _CODE_BITS].reshape(-1, _CODE_BITS) @ (1 << np.arange(_CODE_BITS)[::-1])
    strings = [bytes([byte]) for byte in range(256)]
    plain, previous = bytearray(), b""
    for code in codes.tolist():
        if code == _END:
            break
        if code > len(strings) or (code == len(strings) and not previous):
            raise _truncated(path, name)
        string = strings[code] if code < len(strings) else previous + previous[:1]
        if previous and len(strings) <= _LAST_CODE:
            strings.append(previous + string[:1])
        plain += string
        previous = string
        if len(plain) > size:
            raise _truncated(path, name)
    if len(plain) != size:
        raise _truncated(path, name)
    return bytes(plain)
