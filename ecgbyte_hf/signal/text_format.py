"""Reader of text tables: a row for each sample, a column for each lead, and at best a header row and a time column.

A header row names the leads, with a unit in brackets if it states one: `time (s),I (mV),II (mV)`; the units may be in
a row of their own below, as PhysioNet's tools write them. Lines before that, or before the numbers where there is no
header, are passed over: they may hold anything, a person's name too.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, LeadError, SamplingRateError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS, canonical_lead_name
from ecgbyte_hf.signal.channels import Channel, file_content, make_record, missing_statement
from ecgbyte_hf.signal.records import MILLIVOLTS, EcgRecord, Given

DESCRIPTION = "text (.csv, .tsv, .txt)"

_LARGEST = 1 << 28
_MOST_LINES_BEFORE = 100
_NAME_AND_UNIT = re.compile(r"(?P<name>.*?)\s*(?:[(\[]\s*(?P<unit>[^()\[\]]*?)\s*[)\]])?")
_TIME = re.compile(r"(?:(?:elapsed )?time|t)?[\s_]*[(\[]?(?P<unit>s|sec|seconds|ms|us)[)\]]?|(?:elapsed )?time|t")
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}
#: Pandas writes its index under an empty name, `rdsamp` of WFDB under "sample #".
_INDEX_NAMES = ("", "sample", "sample #", "index", "n")
_SIZE = re.compile(r"(\d{1,12})\s*[xX]\s*(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class _Table:
    """Numbers (samples, columns), and what the header says of each column: name and unit."""

    numbers: np.ndarray
    header: list[tuple[str, str | None]] | None


def recognises(path: Path) -> bool:
    """Say whether the path has the suffix of a text table."""
    return path.suffix.lower() in (".csv", ".tsv", ".txt") and path.is_file()


def read(path: Path, leads: Sequence[str] | None, given: Given) -> EcgRecord:
    """Read a recording, as `read_ecg` says. Empty fields are NaN."""
    table = _read_table(path)
    numbers, header = table.numbers, table.header
    if header is None:
        channels = [Channel()] * numbers.shape[1]
        _check_lead_names(path, len(channels), given)
    else:
        rate = None
        if _is_time(header[0][0]) or header[0][0].lower() in _INDEX_NAMES:
            rate = _rate_of_column(path, *header[0], numbers[:, 0], given)
            numbers, header = numbers[:, 1:], header[1:]
        channels = [Channel(name=name, unit=unit, sampling_rate=rate) for name, unit in header]
    return make_record(path, "text", channels, lambda wanted: numbers.T[list(wanted)], leads, given)


def _check_lead_names(path: Path, num_columns: int, given: Given) -> None:
    """Refuse a table without header whose columns cannot all be the given leads."""
    if given.lead_names is None:
        raise missing_statement(path, rate=given.sampling_rate is None, names=True, units=given.units is None)
    if len(given.lead_names) != num_columns:
        raise LeadError(
            f"{path}: got {len(given.lead_names)} lead_names, expected {num_columns}, one for each column. The rows "
            "must be samples and the columns leads; a column of time needs a header row."
        )


def _read_table(path: Path) -> _Table:
    """Find the header and the numbers."""
    content = file_content(path, _LARGEST)
    if b"\0" in content[:1000]:
        raise EcgFileError(f"{path}: got bytes that are no text, expected numbers in UTF-8 or Latin-1.")
    lines = [(number, line) for number, line in enumerate(_lines(content), 1) if line.strip()]
    start = next((i for i, (_, line) in enumerate(lines[: _MOST_LINES_BEFORE + 1]) if _is_numeric(line)), None)
    if start is None:
        raise EcgFileError(
            f"{path}: got no row of numbers in the first {_MOST_LINES_BEFORE} lines, expected a row for each sample "
            "and a column for each lead."
        )
    separator = _separator(lines[start][1])
    if separator is None and len(lines[start][1].split()) == 1:
        before = [[line.strip().strip("\"'")] for _, line in lines[:start]]  # one column: "II (mV)" is its name
    else:
        before = [_fields(line, separator) for _, line in lines[:start]]
    surplus = _has_surplus_column(before, lines[start:], separator)
    numbers = _numbers(path, lines[start:], separator, surplus)
    for _, line in lines[:start]:
        stated = _SIZE.search(line)
        if stated and int(stated[2]) == numbers.shape[1] and int(stated[1]) != len(numbers):
            raise EcgFileError(
                f"{path}: got {len(numbers)} rows, expected {stated[1]} as a line before them says. The file is "
                "truncated: download or export it again."
            )
    return _Table(numbers, _header(path, before, numbers.shape[1]))


def _lines(content: bytes) -> list[str]:
    """Decode a text file; only numbers, lead names and units matter, which are ASCII but for the sign for micro."""
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return content.decode("latin-1").splitlines()


def _separator(line: str) -> str | None:
    """Return what separates the fields of a row of numbers; None for white space."""
    return next((mark for mark in ("\t", ";", ",") if mark in line), None)


def _fields(line: str, separator: str | None) -> list[str]:
    """Take a line apart, without quotes."""
    return [field.strip().strip("\"'").strip() for field in line.split(separator)]


def _values(fields: Sequence[str], separator: str | None) -> list[float]:
    """Return a row's numbers; a comma in a field is a decimal one, where another mark separates the fields.

    Raises:
        ValueError: a field is no number.
    """
    values = []
    for field in fields:
        if separator in (";", "\t") and field.count(",") == 1 and "." not in field:
            field = field.replace(",", ".")
        # Python takes "1_000" for a number.
        if "_" in field:
            raise ValueError
        values.append(float(field) if field else math.nan)
    return values


def _is_numeric(line: str) -> bool:
    """Say whether a line is a row of numbers."""
    separator = _separator(line)
    try:
        return not all(map(math.isnan, _values(_fields(line, separator), separator)))
    except ValueError:
        return False


def _has_surplus_column(before: list[list[str]], lines: list[tuple[int, str]], separator: str | None) -> bool:
    """Say whether every row ends with a separator that no column follows."""
    if separator is None or not all(line.rstrip(" ").endswith(separator) for _, line in lines):
        return False
    named = bool(before) and bool(before[-1][-1]) and len(before[-1]) == len(_fields(lines[0][1], separator))
    return not named


def _numbers(path: Path, lines: list[tuple[int, str]], separator: str | None, surplus: bool) -> np.ndarray:
    """Return the rows as (samples, columns)."""
    values = array("d")
    columns = len(_fields(lines[0][1], separator)) - surplus
    for number, line in lines:
        fields = _fields(line, separator)[: -1 if surplus else None]
        if len(fields) != columns:
            raise EcgFileError(
                f"{path}: got {len(fields)} columns in line {number}, expected {columns} as in line {lines[0][0]}. "
                "The file is truncated or damaged: export it again."
            )
        try:
            values.extend(_values(fields, separator))
        except ValueError:
            # Without the text, which may be a person's name.
            raise EcgFileError(
                f"{path}: got something else than {columns} numbers in line {number}, expected a row for each sample "
                f"to the end. Remove what is no number."
            ) from None
    return np.frombuffer(values, dtype=np.float64).reshape(-1, columns)


def _header(path: Path, before: list[list[str]], num_columns: int) -> list[tuple[str, str | None]] | None:
    """Return name and unit of each column, if the lines before the numbers end with a header row."""
    units: list[str | None] = [None] * num_columns
    if len(before) > 1 and _is_unit_row(before[-1]):
        units = [field.strip("()[]") for field in before[-1]]
        before = before[:-1]
    header = before[-1] if before else []
    if len(header) == num_columns + 1 and not header[-1]:
        header = header[:-1]
    parts = [_NAME_AND_UNIT.fullmatch(field) for field in header]
    named = [(part["name"], part["unit"]) for part in parts if part is not None]
    known = sum(canonical_lead_name(name) in CLINICAL_LEADS for name, _ in named)
    begins_with_time = bool(header) and (_is_time(header[0]) or header[0].lower() in _INDEX_NAMES[1:])
    # Anything else may be a sentence about the person.
    if not begins_with_time and (known == 0 or 2 * known < len(named) - 1):
        return None
    if len(header) != num_columns or len(units) != num_columns or len(named) != num_columns:
        raise EcgFileError(
            f"{path}: got a header row of {len(header)} columns, expected {num_columns} as in the rows of numbers. "
            "Name every column, the time too."
        )
    if begins_with_time:
        named[0] = (header[0], None)
    return [(name, unit or below) for (name, unit), below in zip(named, units, strict=True)]


def _is_unit_row(fields: list[str]) -> bool:
    """Say whether a line holds units and nothing else; that of a column of sample numbers may be empty."""
    bare = [field.strip("()[]").lower() for field in fields]
    return any(unit in MILLIVOLTS for unit in bare) and all(
        unit in MILLIVOLTS or unit in _SECONDS or (index == 0 and unit == "") for index, unit in enumerate(bare)
    )


def _is_time(field: str) -> bool:
    """Say whether a header's field names a column of time."""
    return _TIME.fullmatch(field.lower()) is not None


def _rate_of_column(path: Path, name: str, unit: str | None, column: np.ndarray, given: Given) -> float | None:
    """Return the rate that a column of times states; None for times without unit and for sample numbers.

    Raises:
        SamplingRateError: the column does not count evenly, or not at the given rate.
    """
    match = _TIME.fullmatch(name.lower())
    seconds = _SECONDS.get(((match["unit"] if match else None) or unit or "").lower())
    step = (column[-1] - column[0]) / max(len(column) - 1, 1)
    if given.sampling_rate is not None and seconds is not None:
        # Times that are rounded to milliseconds fit no even step of their own.
        step = 1 / (given.sampling_rate * seconds)
        tolerance = 0.5
    else:
        tolerance = 1e-3
    off = np.abs(column - column[0] - step * np.arange(len(column))).max()
    if not (step > 0 and off <= tolerance * step):
        raise SamplingRateError(
            f"{path}: got times or sample numbers in the first column that are {off / abs(step or 1):.2g} samples "
            f"off an even step of {step:g}, expected at most {tolerance:g}. Samples are missing, the times are "
            "rounded, or sampling_rate is another: remove the column, or give sampling_rate."
        )
    if match is None and seconds is None:
        if abs(step - 1) > 1e-9:
            raise SamplingRateError(f"{path}: got sample numbers with a step of {step:g}, expected 1.")
        return None
    if seconds is not None:
        return None if given.sampling_rate is not None else _shortest(1 / (step * seconds), off / (step * len(column)))
    if given.sampling_rate is not None and not any(
        math.isclose(step, ticks, rel_tol=1e-3) for ticks in (1, *(t / given.sampling_rate for t in (1, 1e3, 1e6)))
    ):
        raise SamplingRateError(
            f"{path}: got sampling_rate={given.sampling_rate:g}, expected one that fits the step of {step:g} in the "
            "column of times, whatever its unit. Check the rate, or remove the column."
        )
    return None


def _shortest(rate: float, error: float) -> float:
    """Return the decimal of fewest digits that lies within the error of a rate: times are written with few digits."""
    tolerance = rate * max(2 * error, 1e-9)
    return next((r for r in (round(rate, digits) for digits in range(9)) if abs(r - rate) <= tolerance), rate)
