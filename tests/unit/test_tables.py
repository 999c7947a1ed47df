"""CSV tables: read in order, read again at a place, refused with their line."""

import csv
import random

import pytest

from ecgbyte_hf.data.tables import CsvTable, record_path, required_number, whole_number
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


def test_every_line_is_found_again_at_its_place(tmp_path):
    draw = random.Random(0)
    letters = ["a", "é", "漢", '"', ",", "\n", "\r\n", " ", "x"]
    rows = [["".join(draw.choices(letters, k=draw.randrange(8))) for _ in range(3)] for _ in range(500)]
    for newline, bom in (("\n", b""), ("\r\n", b"\xef\xbb\xbf")):
        path = tmp_path / "table.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator=newline).writerows([["one", "two", "three"], *rows])
        path.write_bytes(bom + path.read_bytes())
        with CsvTable(path, ("two",)) as table:
            assert table.columns == ["one", "two", "three"]
            read = list(table)
            assert [list(row.values()) for _, row in read] == rows
            draw.shuffle(read)
            assert [table.at(place) for place, _ in read] == [row for _, row in read]
            assert [row for _, row in table] == [dict(zip(table.columns, row, strict=True)) for row in rows]


def test_messages_name_file_and_line(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n\n3\n")
    with CsvTable(path) as table:
        lines = iter(table)
        assert next(lines)[1] == {"a": "1", "b": "2"}
        assert table.where == f"{path}, line 2"
        with pytest.raises(EcgDataError, match=r"table.csv, line 4: got 1 fields, expected 2"):
            next(lines)
    with pytest.raises(EcgDataError, match=r"it lacks c, d; try another"):
        CsvTable(path, ("a", "c", "d"), hint="try another")
    with pytest.raises(EcgDataError, match=r"cannot read .*absent.csv: No such file"):
        CsvTable(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it lacks a"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a,b\n\xff,1\n", "not UTF-8"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", "not a CSV table"),
        (b"a,b\r1,2\r3,4\r", "not a CSV table"),
    ],
)
def test_what_is_no_table(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(EcgDataError, match=message) as caught, CsvTable(path, ("a",)) as table:
        list(table)
    assert "table.csv" in str(caught.value)


@pytest.mark.parametrize(("text", "value"), [("5", 5), (" -57", -57), ("15709.0", 15709), ("", None), ("  ", None)])
def test_whole_number(text, value):
    assert whole_number(text, "here", "age") == value


@pytest.mark.parametrize("text", ["5.5", "nan", "inf", "five", "1e400", "0x10"])
def test_what_is_no_whole_number(text):
    with pytest.raises(EcgDataError, match="here: age is .*expected a whole number"):
        whole_number(text, "here", "age")
    with pytest.raises(EcgDataError, match="age is empty"):
        required_number({"age": ""}, "age", "here")


@pytest.mark.parametrize("text", ["", "/etc/passwd", "../other/1", "files\\..\\..\\1", "C:\\ecg\\1", "http://x/1"])
def test_paths_that_leave_the_folder(text):
    with pytest.raises(EcgDataError, match="inside the data set's folder"):
        record_path(text, "here")
