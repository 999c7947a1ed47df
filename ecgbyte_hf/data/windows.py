"""Windows of prepared records, as views: nothing is stored twice, whatever lengths are tried.

The paper cuts records into windows of 2, 5 or 10 s and asks every question about every window. In 2 s, questions about
rate, rhythm and intervals often have no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


class WindowedData(PreparedData):
    """A prepared folder whose records are cut into windows.

    Everything that takes a `PreparedData` takes it too. Window `w` of record `r` has the number
    `r * windows_per_record + w`; questions, and their `sample_id`, are repeated for each window in the same way. A
    comparison is asked about the same window of both records.

    Args:
        folder: What `prepare` wrote.
        seconds: Length of a window.
        stride_seconds: From the start of one window to that of the next; the length by default, so that windows do
            not overlap. Less shows a model every beat at several places: more training rows of the same recordings.

    Attributes:
        windows_per_record: Whole windows in a record.
        samples_left_over: Samples of each lead at the end of a record that fill no window.

    Raises:
        EcgDataError: the folder is not a prepared one, its records are shorter than a window, or windows would leave
            samples out between them.
    """

    def __init__(self, folder: str | Path, seconds: float, *, stride_seconds: float | None = None) -> None:
        super().__init__(folder)
        stored = round(float(self.report["duration_seconds"]) * self.sampling_rate)
        self._width = round(seconds * self.sampling_rate) if seconds > 0 else 0
        if not 0 < self._width <= stored:
            raise EcgDataError(
                f"got windows of {seconds:g} s, expected more than 0 s and at most the "
                f"{self.report['duration_seconds']:g} s of the records in {self.folder}"
            )
        self._stride = self._width if stride_seconds is None else round(stride_seconds * self.sampling_rate)
        if not 0 < self._stride <= self._width:
            raise EcgDataError(
                f"got windows of {seconds:g} s every {stride_seconds:g} s, expected a stride of at least one sample "
                "and at most the length"
            )
        self.window_seconds = seconds
        self.window_stride = self._stride / self.sampling_rate
        further, self.samples_left_over = divmod(stored - self._width, self._stride)
        self.windows_per_record = further + 1
        count = self.windows_per_record
        self._record_ids = self.ecg_ids
        self.ecg_ids = [ecg_id * count + window for ecg_id in self._record_ids for window in range(count)]
        self.patients = {number: self.patients[number // count] for number in self.ecg_ids}

    @property
    def fingerprint(self) -> str:
        """SHA-256 that tells these windows from others."""
        overlap = "" if self._stride == self._width else f":{self._stride}"
        return hashlib.sha256(f"{super().fingerprint}:{self._width}{overlap}".encode()).hexdigest()

    def signal(self, ecg_id: int) -> np.ndarray:
        """One window: float32 (leads, samples) in mV, read-only; a view of its record.

        Raises:
            EcgDataError: no such record, or the file is damaged there.
        """
        record, window = divmod(ecg_id, self.windows_per_record)
        return self._cut(self.records.signal(record), window)

    def iter_signals(self, ecg_ids: Iterable[int] | None = None) -> Generator[tuple[int, np.ndarray], None, None]:
        """Number and signal of windows in the order of the file; see `PreparedData.iter_signals`."""
        count = self.windows_per_record
        wanted: dict[int, set[int]] | None = None
        if ecg_ids is not None:
            wanted = {}
            for number in ecg_ids:
                wanted.setdefault(number // count, set()).add(number % count)
        for record, signal in self.records.iter_signals(wanted):
            for window in range(count) if wanted is None else sorted(wanted[record]):
                yield record * count + window, self._cut(signal, window)

    def questions(self, split: str) -> list[dict[str, Any]]:
        """The rows of one split, each once for every window; `record_id` names the records that the windows are of.

        Raises:
            EcgDataError: no such split.
        """
        count = self.windows_per_record
        return [
            {
                **row,
                "sample_id": row["sample_id"] * count + window,
                "ecg_id": [ecg_id * count + window for ecg_id in row["ecg_id"]],
                "record_id": row["ecg_id"],
            }
            for row in super().questions(split)
            for window in range(count)
        ]

    def metadata(self) -> dict[int, dict[str, Any]]:
        """What the data set tells about the record of each window; see `PreparedData.metadata`."""
        count = self.windows_per_record
        known = super().metadata()
        return {record * count + window: facts for record, facts in known.items() for window in range(count)}

    def ecg_ids_of_split(self, split: str) -> list[int]:
        """Windows of the records that the questions of a split refer to."""
        return self.ids_of_records(super().ecg_ids_of_split(split))

    def ids_of_records(self, records: Iterable[int]) -> list[int]:
        """The windows of some records."""
        count = self.windows_per_record
        return [ecg_id * count + window for ecg_id in records for window in range(count)]

    def _cut(self, signal: np.ndarray, window: int) -> np.ndarray:
        start = window * self._stride
        return signal[:, start : start + self._width]
