"""The signals that rows of a model with an encoder name: where they are, and that they are still the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import read_object

ROWS_REPORT = "encode.json"


def signals_of(prepared: PreparedData) -> dict[str, Any]:
    """What `encode.json` says of the signals of its rows; `open_row_signals` reads it."""
    return {
        "folder": str(prepared.folder.resolve()),
        "window_seconds": prepared.window_seconds,
        "window_stride": prepared.window_stride,
        "fingerprint": prepared.fingerprint,
    }


def open_row_signals(rows_folder: str | Path, data: str | Path | None = None) -> PreparedData:
    """Open the prepared folder whose signals rows name.

    Args:
        rows_folder: What `ecgbyte encode` wrote for a model with an encoder.
        data: The prepared folder, where it is not where it was.

    Raises:
        EcgDataError: rows of another kind, a folder that is not there, or one with other signals.
    """
    noted = (read_object(Path(rows_folder) / ROWS_REPORT) or {}).get("signals")
    if not isinstance(noted, dict):
        raise EcgDataError(
            f"{rows_folder} does not name the signals of its rows; write them with `ecgbyte encode --model` for this "
            "model, which has an encoder"
        )
    folder = Path(data or noted["folder"])
    if not folder.is_dir():
        raise EcgDataError(
            f"the signals of the rows in {rows_folder} were in {folder}, which is not there; name the prepared folder "
            "with --ecg_data"
        )
    seconds = noted["window_seconds"]
    stride = noted["window_stride"]
    prepared = PreparedData(folder) if not seconds else WindowedData(folder, seconds, stride_seconds=stride)
    if prepared.fingerprint != noted["fingerprint"]:
        raise EcgDataError(
            f"{folder} holds other signals than when the rows in {rows_folder} were written; write the rows anew with "
            "`ecgbyte encode`, or name the folder as it was with --ecg_data"
        )
    return prepared
