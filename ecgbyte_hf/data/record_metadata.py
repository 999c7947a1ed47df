"""What a data set tells about the records besides their signal: age and sex of the patient, device and site."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecgbyte_hf.data.tables import CsvTable, required_number
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

#: In a prepared folder; absent where the data set tells nothing.
METADATA_FILE = "metadata.parquet"
#: Age of everybody above 89: PTB-XL writes 300 there, as HIPAA's rule of 18 identifiers asks for.
ABOVE_89 = 90.0
_HIDDEN_AGE = 300.0
_SEXES = {"": None, "0": "male", "1": "female"}
_SCHEMA = pa.schema(
    [
        ("ecg_id", pa.int64()),
        ("age", pa.float64()),
        ("sex", pa.string()),
        ("device", pa.string()),
        ("site", pa.string()),
    ]
)
#: What is known of a record: `age` in years, `sex` ("male" or "female"), `device` and `site` (names); None if unknown.
FIELDS = tuple(_SCHEMA.names[1:])


def read_ptb_xl_metadata(tables: Sequence[str | Path]) -> dict[int, dict[str, Any]]:
    """Age, sex, device and site from tables like PTB-XL's `ptbxl_database.csv`.

    Args:
        tables: CSV files with `ecg_id`; columns that one lacks are unknown for its records.

    Returns:
        `FIELDS` by ECG; age is 90 for everybody above 89. Records of whom nothing is known are left out, so of a table
        without these columns nothing comes.

    Raises:
        EcgDataError: a table is missing or damaged, or an age or a sex is none.
    """
    known: dict[int, dict[str, Any]] = {}
    for path in tables:
        with CsvTable(path, ("ecg_id",)) as table:
            for _, row in table:
                facts = _facts(row, table.where)
                if any(value is not None for value in facts.values()):
                    known[required_number(row, "ecg_id", table.where)] = facts
    return known


def metadata_table(known: Mapping[int, Mapping[str, Any]], ecg_ids: Iterable[int]) -> pa.Table:
    """What is known of these records, in their order; `FIELDS` and `ecg_id` as columns."""
    listed = [ecg_id for ecg_id in ecg_ids if ecg_id in known]
    columns: dict[str, list[Any]] = {name: [known[ecg_id].get(name) for ecg_id in listed] for name in FIELDS}
    return pa.table({"ecg_id": listed, **columns}, schema=_SCHEMA)


def read_metadata(path: str | Path) -> dict[int, dict[str, Any]]:
    """What `metadata_table` was written from; nothing where there is no such file.

    Raises:
        EcgDataError: the file is damaged.
    """
    if not Path(path).is_file():
        return {}
    try:
        rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise EcgDataError(f"{path} is damaged ({error}); prepare anew with --overwrite") from error
    return {row.pop("ecg_id"): row for row in rows}


def _facts(row: Mapping[str, str], where: str) -> dict[str, Any]:
    sex = row.get("sex", "").strip().removesuffix(".0")
    if sex not in _SEXES:
        raise EcgDataError(f"{where}: sex is {sex!r:.60}, expected 0 (male), 1 (female) or nothing")
    return {
        "age": _age(row.get("age", ""), where),
        "sex": _SEXES[sex],
        "device": row.get("device", "").strip() or None,
        "site": row.get("site", "").strip().removesuffix(".0") or None,
    }


def _age(text: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if age == _HIDDEN_AGE:
        return ABOVE_89
    if not 0.0 <= age < 130.0:
        raise EcgDataError(f"{where}: age is {text!r:.60}, expected years, 300 for more than 89, or nothing")
    return age
