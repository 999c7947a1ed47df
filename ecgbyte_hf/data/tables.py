"""CSV tables of data sets: read line by line, and again at a known place, so that no table needs to be in memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError


class CsvTable:
    """A CSV file in UTF-8 with a line of column names.

    Args:
        path: The file.
        columns: Names that must be among its columns.
        hint: What to do where they are not; the end of the message.

    Raises:
        EcgDataError: the file cannot be read, or lacks a column.

    Example::

        with CsvTable("record_list.csv", ("study_id",)) as table:
            places = [place for place, row in table]
            table.at(places[3])["study_id"]
    """

    def __init__(
        self, path: str | Path, columns: tuple[str, ...] = (), *, hint: str = "is it the right file?"
    ) -> None:
        self.path = Path(path)
        try:
            self._file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise EcgDataError(f"cannot read {path}: {error.strerror or error}; {hint}") from error
        try:
            self.columns = self._next_fields(_Lines(self._file)) or []
            self._first, self._last = self._file.tell(), "line 1"
            missing = [name for name in columns if name not in self.columns]
            if missing:
                raise EcgDataError(
                    f"{path} has the columns {self.columns!r:.200}, it lacks {', '.join(missing)}; {hint}"
                )
        except EcgError:
            self._file.close()
            raise

    def __enter__(self) -> CsvTable:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Every line from the first, with its place for `at`."""
        self._file.seek(self._first)
        lines = _Lines(self._file)
        reader = csv.reader(lines)
        while True:
            place, self._last = lines.place, f"line {reader.line_num + 2}"  # 1 is the line of names
            fields = self._next_fields(lines, reader)
            if fields is None:
                return
            if fields:
                yield place, self._row(fields)

    def at(self, place: int) -> dict[str, str]:
        """The line at a place that the iteration gave."""
        self._last = f"byte {place}"
        self._file.seek(place)
        return self._row(self._next_fields(_Lines(self._file)) or [])

    @property
    def where(self) -> str:
        """The file and the line that was read last, for a message."""
        return f"{self.path}, {self._last}"

    def _row(self, fields: list[str]) -> dict[str, str]:
        if len(fields) != len(self.columns):
            raise EcgDataError(
                f"{self.where}: got {len(fields)} fields, expected {len(self.columns)} as the first line has. The "
                "file is damaged: download it again"
            )
        return dict(zip(self.columns, fields, strict=True))

    def _next_fields(self, lines: _Lines, reader: Iterator[list[str]] | None = None) -> list[str] | None:
        try:
            return next(reader or csv.reader(lines), None)
        except UnicodeDecodeError as error:
            raise EcgDataError(f"{self.path} is not UTF-8 text: {error}") from error
        except csv.Error as error:
            raise EcgDataError(f"{self.path}: not a CSV table near byte {lines.place}: {error}") from error
        except OSError as error:
            raise EcgDataError(f"cannot read {self.path}: {error.strerror or error}") from error


class _Lines:
    """Lines of a file as text, and the place of the next one: `csv` takes no more of them than a row needs."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.place = file.tell()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        start, self.place = self.place, self.place + len(raw)
        return raw.decode("utf-8-sig" if start == 0 else "utf-8")


def whole_number(text: str, where: str, column: str) -> int | None:
    """A whole number, also as tables that were made from floating-point columns write it ("15709.0"); None if empty.

    Raises:
        EcgDataError: it is none.

    Example:
        >>> whole_number("15709.0", "ptbxl_database.csv, line 2", "patient_id")
        15709
    """
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
        if value.is_integer():
            return int(value)
    except ValueError:
        pass
    raise EcgDataError(f"{where}: {column} is {text!r:.60}, expected a whole number")


def required_number(row: dict[str, str], column: str, where: str) -> int:
    """The whole number in a column that may not be empty."""
    value = whole_number(row[column], where, column)
    if value is None:
        raise EcgDataError(f"{where}: {column} is empty, expected a whole number")
    return value


def record_path(text: str, where: str) -> str:
    r"""A record's path as a table has it, with slashes, if it stays in the data set's folder.

    Raises:
        EcgDataError: it is empty or leads elsewhere.

    Example:
        >>> record_path(r"files\p1000\p10000032\s40689238\40689238", "record_list.csv, line 2")
        'files/p1000/p10000032/s40689238/40689238'
    """
    path = PurePosixPath(text.strip().replace("\\", "/"))
    if not path.name or path.is_absolute() or ".." in path.parts or ":" in str(path):
        raise EcgDataError(f"{where}: got the path {text!r:.100}, expected one inside the data set's folder")
    return str(path)
