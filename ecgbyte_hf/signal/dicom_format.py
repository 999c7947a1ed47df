"""Reader of DICOM waveforms: the rhythm of a 12-lead, general or ambulatory ECG, by `pydicom`.

Of the file only the waveform sequence is kept; the patient's data are never looked at. Fields: DICOM PS3.3 C.10.9.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgError, EcgFileError, LeadError
from ecgbyte_hf.models.leads_ecg_byte import canonical_lead_name
from ecgbyte_hf.signal.channels import Channel, file_content, import_extra, make_record, start_of
from ecgbyte_hf.signal.records import EcgRecord, Given
from ecgbyte_hf.signal.scp_format import SCP_LEADS

DESCRIPTION = "DICOM waveform (.dcm)"

#: A transfer syntax that unpacks to any size.
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SAMPLE_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
#: Codes of leads: the scheme, and what stands before the number of `SCP_LEADS`.
_LEAD_CODES = {"SCPECG": "5.6.3-9-", "MDC": "2:"}


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of DICOM, or the file its mark."""
    if path.suffix.lower() in (".dcm", ".dicom") and path.is_file():
        return True
    return start_of(path, 132)[128:] == b"DICM"


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says. Of several waveforms it is the rhythm, never a median beat."""
    pydicom = import_extra(path, "pydicom", "dicom")
    content = file_content(path)
    # On damaged content anything may fail in `pydicom` (InvalidDicomError, EOFError, struct.error, KeyError, ...).
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == _DEFLATED:
            raise EcgFileError(f"{path}: got a deflated file, expected one that is not. Save it uncompressed.")
        dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=["WaveformSequence"])
        group = _rhythm(path, dataset.get("WaveformSequence") or [])
        order = "<" if dataset.original_encoding[1] else ">"
        channels = [_channel(path, definition, group) for definition in group.ChannelDefinitionSequence]
        samples = _samples(path, group, order)
    except EcgError:
        raise
    except Exception as error:
        # Without the error's own text, which may quote the file.
        raise EcgFileError(
            f"{path}: `pydicom` cannot read it ({type(error).__name__}): no DICOM waveform, or truncated. Download or "
            "export it again."
        ) from error
    if len(channels) != samples.shape[0]:
        raise EcgFileError(f"{path}: got {len(channels)} channel definitions, expected {samples.shape[0]}.")
    return make_record(path, "dicom", channels, lambda wanted: samples[list(wanted)], leads, given)


def _rhythm(path: Path, groups: Sequence[Any]) -> Any:
    """Return the multiplex group with the rhythm: the only one labelled so, or the only one as recorded."""
    recorded = [group for group in groups if group.get("WaveformOriginality", "ORIGINAL") == "ORIGINAL"]
    labelled = [group for group in recorded if str(group.get("MultiplexGroupLabel", "")).strip().upper() == "RHYTHM"]
    chosen = labelled or recorded
    if len(chosen) != 1:
        shapes = [(group.get("NumberOfWaveformChannels"), group.get("NumberOfWaveformSamples")) for group in chosen]
        raise EcgFileError(
            f"{path}: got {len(chosen)} recorded waveforms (channels, samples: {shapes}), expected one, or one that "
            "is labelled RHYTHM. Export the recording as one waveform."
        )
    return chosen[0]


def _channel(path: Path, definition: Any, group: Any) -> Channel:
    """Describe a channel: its values are (stored * sensitivity * correction) + baseline, in its unit."""
    name = _lead_name(definition)
    if float(definition.get("ChannelSampleSkew") or 0) or float(definition.get("ChannelTimeSkew") or 0):
        raise LeadError(f"{path}: channel {name!r} is skewed in time, expected all leads at the same instants.")
    units = definition.get("ChannelSensitivityUnitsSequence")
    # Without sensitivity the samples have no unit, says the standard.
    has_unit = bool(units) and definition.get("ChannelSensitivity") is not None
    return Channel(
        name=name,
        unit=str(units[0].CodeValue) if has_unit else None,
        sampling_rate=float(group.SamplingFrequency),
        scale=float(definition.ChannelSensitivity) * _number(definition, "ChannelSensitivityCorrectionFactor", 1)
        if has_unit
        else 1.0,
        offset=_number(definition, "ChannelBaseline", 0),
    )


def _number(definition: Any, field: str, default: float) -> float:
    """Return a number that may be left out or empty."""
    value = definition.get(field)
    return float(default if value is None else value)


def _lead_name(definition: Any) -> str:
    """Return the lead of a channel by its code; else by the code's meaning, as in "Lead I (Einthoven)"."""
    source = definition.ChannelSourceSequence[0]
    code, prefix = str(source.get("CodeValue", "")), _LEAD_CODES.get(str(source.get("CodingSchemeDesignator", "")))
    number = code.removeprefix(prefix) if prefix and code.startswith(prefix) else ""
    if number.isdecimal() and int(number) in SCP_LEADS:
        return SCP_LEADS[int(number)]
    # SCPECG has a last level for the kind of a lead, as in 5.6.3-9-1-0.
    meaning = str(source.get("CodeMeaning", "") or definition.get("ChannelLabel", ""))
    return canonical_lead_name(meaning.partition("(")[0])


def _samples(path: Path, group: Any, order: str) -> np.ndarray:
    """Return the stored numbers (channels, samples), with NaN where the file marks padding."""
    kind = str(group.WaveformSampleInterpretation)
    if kind not in _SAMPLE_TYPES:
        raise EcgFileError(
            f"{path}: got samples of kind {kind[:2]!r}, expected one of {', '.join(_SAMPLE_TYPES)}. Export it in 16 "
            "bits."
        )
    dtype = np.dtype(order + _SAMPLE_TYPES[kind])
    if int(group.WaveformBitsAllocated) != 8 * dtype.itemsize:
        raise EcgFileError(
            f"{path}: got {group.WaveformBitsAllocated} bits for a sample of kind {kind}, expected "
            f"{8 * dtype.itemsize}. The file is damaged: export it again."
        )
    num_channels, num_samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    content = bytes(group.WaveformData)
    expected = num_channels * num_samples * dtype.itemsize
    # A value of odd length is padded by a byte.
    if not 0 < expected <= len(content) <= expected + expected % 2:
        raise EcgFileError(
            f"{path}: got {len(content)} bytes of a waveform, expected {expected} for {num_channels} channels of "
            f"{num_samples} samples. The file is truncated or damaged: export it again."
        )
    samples = (
        np.frombuffer(content, dtype=dtype, count=num_channels * num_samples).reshape(num_samples, num_channels).T
    )
    padding = group.get("WaveformPaddingValue")
    if padding is None:
        return samples
    mark = padding if isinstance(padding, int) else np.frombuffer(bytes(padding)[: dtype.itemsize], dtype=dtype)[0]
    return np.where(samples == mark, np.nan, samples)
