"""Reader of HL7 annotated ECGs (aECG, PORT_MT020001): the rhythm series.

The representative beat lies in the series' derivation, which is not looked at, nor is the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, SamplingRateError, UnitError
from ecgbyte_hf.models.leads_ecg_byte import canonical_lead_name
from ecgbyte_hf.signal.channels import Channel, make_record
from ecgbyte_hf.signal.records import MILLIVOLTS, EcgRecord, Given
from ecgbyte_hf.signal.xml_file import is_xml_of, parse_xml, to_number

DESCRIPTION = "HL7 aECG (.xml)"

_ROOT = "AnnotatedECG"
_LEAD_PREFIX = "MDC_ECG_LEAD_"
_TIMES = ("TIME_ABSOLUTE", "TIME_RELATIVE")
_SECONDS = {"s": Fraction(1), "ms": Fraction(1, 1_000), "us": Fraction(1, 1_000_000)}


def recognises(path: Path) -> bool:
    """Say whether the file is an annotated ECG."""
    return is_xml_of(path, _ROOT)


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says."""
    sequences = _sequences(path, parse_xml(path, _ROOT))
    rate = _sampling_rate(path, [value for code, value in sequences if code in _TIMES])
    values = [(code, value) for code, value in sequences if code.startswith(_LEAD_PREFIX)]
    channels = [_channel(path, code, value, rate) for code, value in values]
    return make_record(
        path, "aecg", channels, lambda wanted: [_digits(path, *values[index]) for index in wanted], leads, given
    )


def _sequences(path: Path, root: Element) -> list[tuple[str, Element]]:
    """Return code and value of each sequence of the rhythm series."""
    series = [one for one in root.findall("{*}component/{*}series") if _code(one) == "RHYTHM"]
    sets = [one for rhythm in series for one in rhythm.findall("{*}component/{*}sequenceSet")]
    if len(sets) != 1:
        raise EcgFileError(
            f"{path}: got {len(series)} rhythm series with {len(sets)} sets of sequences, expected one of each. Split "
            "the file: a recording is one series."
        )
    found = []
    for sequence in sets[0].findall("{*}component/{*}sequence"):
        value = sequence.find("{*}value")
        if value is not None:
            found.append((_code(sequence), value))
    return found


def _code(element: Element) -> str:
    """Return the code of a series or sequence."""
    code = element.find("{*}code")
    return "" if code is None else code.get("code", "")


def _sampling_rate(path: Path, times: Sequence[Element]) -> float:
    """Return samples per second by the increment of the sequence of times, a decimal."""
    increments = [increment for value in times for increment in value.findall("{*}increment")]
    if len(increments) != 1 or increments[0].get("unit") not in _SECONDS:
        raise SamplingRateError(
            f"{path}: got {len(increments)} increments of time, expected one in {', '.join(_SECONDS)}. Times that are "
            "listed one by one cannot be read: export evenly sampled leads."
        )
    step = Fraction(str(to_number(path, "increment", increments[0].get("value"))))
    if step <= 0:
        raise SamplingRateError(f"{path}: got an increment of time of {float(step)}, expected a positive one.")
    return float(1 / (step * _SECONDS[increments[0].get("unit", "")]))


def _channel(path: Path, code: str, value: Element, rate: float) -> Channel:
    """Describe a lead: its values are origin + digits * scale."""
    name = canonical_lead_name(code)
    origin, scale = value.find("{*}origin"), value.find("{*}scale")
    if origin is None or scale is None:
        raise EcgFileError(
            f"{path}: lead {name} has no origin and scale, expected a list of digits with both (SLIST_PQ). Export it "
            "as such."
        )
    unit, offset = scale.get("unit", ""), to_number(path, "origin", origin.get("value"))
    if offset:
        units = [text.lower() for text in (origin.get("unit", ""), unit)]
        if not set(units) <= set(MILLIVOLTS):
            raise UnitError(f"{path}: lead {name} has origin and scale in {units}, expected V, mV, uV or nV.")
        offset *= MILLIVOLTS[units[0]] / MILLIVOLTS[units[1]]
    return Channel(name, unit, rate, scale=to_number(path, "scale", scale.get("value")), offset=offset)


def _digits(path: Path, code: str, value: Element) -> np.ndarray:
    """Return the stored numbers of a lead."""
    digits = value.find("{*}digits")
    text = "" if digits is None else digits.text or ""
    try:
        # Python takes "1_000" for a number.
        return np.array([float(number) for number in text.replace("_", "?").split()])
    except ValueError:
        raise EcgFileError(
            f"{path}: lead {canonical_lead_name(code)} has digits that are no numbers. The file is damaged: export it "
            "again."
        ) from None
