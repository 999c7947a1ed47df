"""Records in one Parquet file: exact, in any order, and never many of them in memory."""

import random
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgbyte_hf.data import record_file as module
from ecgbyte_hf.data.record_file import RECORD_SCHEMA, ROWS_PER_GROUP, RecordFile, RecordWriter
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

NUM_RECORDS = 100


def signal_of(number: int) -> np.ndarray:
    """Of a length and a number of leads of its own."""
    shape = (1 + number % 3, 50 + number)
    return np.random.default_rng(number).normal(size=shape).astype(np.float32)


def write(path, numbers, signal=signal_of):
    with RecordWriter(path) as writer:
        for number in numbers:
            writer.add(number, None if number % 7 == 0 else str(number // 2), f"r{number}", 250.0, signal(number))
    return RecordFile(path)


@pytest.fixture(scope="module")
def numbers():
    """Not sorted: the order of the file is that of the records' sources."""
    return random.Random(0).sample(range(1000), NUM_RECORDS)


@pytest.fixture(scope="module")
def path(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("records") / "records.parquet"
    write(path, numbers)
    return path


@pytest.fixture
def records(path):
    return RecordFile(path)


class TestReading:
    def test_every_record_comes_back_exactly(self, records, numbers):
        assert records.ecg_ids == numbers
        assert records.patients == {n: None if n % 7 == 0 else str(n // 2) for n in numbers}
        for number in numbers:
            got = records.signal(number)
            assert got.dtype == np.float32 and not got.flags.writeable
            np.testing.assert_array_equal(got, signal_of(number))

    def test_in_the_order_of_the_file(self, records, numbers):
        got = list(records.iter_signals())
        assert [number for number, _ in got] == numbers
        for number, signal in got:
            np.testing.assert_array_equal(signal, signal_of(number))

    def test_some_of_them(self, records, numbers):
        some = random.Random(1).sample(numbers, 20)
        got = dict(records.iter_signals([*some, some[0]]))
        assert list(got) == [number for number in numbers if number in some]
        assert all(np.array_equal(signal, signal_of(number)) for number, signal in got.items())
        assert list(records.iter_signals([])) == []

    def test_unknown_numbers(self, records):
        for read in (records.signal, lambda number: list(records.iter_signals([number]))):
            with pytest.raises(EcgDataError, match="holds no record 5000; it has 100 records"):
                read(5000)

    def test_a_reader_that_stops_early(self, records, numbers):
        iterator = records.iter_signals()
        assert next(iterator)[0] == numbers[0]
        iterator.close()
        assert list(iterator) == [] and records.signal(numbers[0]).size

    def test_what_datasets_sees(self, path, numbers, tmp_path):
        import datasets

        rows = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path))["train"]
        np.testing.assert_array_equal(np.float32(rows[3]["signal"]), signal_of(numbers[3]))


class TestReadOnce:
    def test_iterating_reads_every_row_group_once(self, records):
        for _ in records.iter_signals():
            pass
        assert records.groups_read == -(-NUM_RECORDS // ROWS_PER_GROUP)

    def test_only_the_row_groups_that_are_wanted(self, records, numbers):
        list(records.iter_signals([numbers[0], numbers[1], numbers[99]]))
        assert records.groups_read == 2

    def test_the_next_are_read_ahead_but_not_all(self, path, monkeypatch):
        monkeypatch.setattr(module, "_GROUPS_AHEAD", 2)
        records = RecordFile(path)
        iterator = records.iter_signals()
        for _ in range(ROWS_PER_GROUP):
            next(iterator)
        assert records.groups_read <= 3
        iterator.close()
        assert records.groups_read <= 3

    def test_neighbours_in_turn_are_read_once(self, records, numbers):
        for number in numbers:
            records.signal(number)
        assert records.groups_read == -(-NUM_RECORDS // ROWS_PER_GROUP)

    def test_any_order_is_fast_while_the_row_groups_fit(self, records, numbers):
        for number in random.Random(2).choices(numbers, k=1000):
            records.signal(number)
        assert records.groups_read <= -(-NUM_RECORDS // ROWS_PER_GROUP)

    def test_the_kept_row_groups_are_bounded(self, path, numbers, monkeypatch):
        monkeypatch.setattr(module, "_CACHE_BYTES", 0)
        records = RecordFile(path)
        records.signal(numbers[0])
        records.signal(numbers[1])
        assert records.groups_read == 1 and len(records._cache) == 1
        records.signal(numbers[99])
        records.signal(numbers[0])
        assert records.groups_read == 3 and len(records._cache) == 1


def test_memory_does_not_grow_with_the_file(tmp_path):
    """400 records of 120 kB are 48 MB; iterating holds some 9 row groups of 16 of them."""
    records = write(tmp_path / "r.parquet", range(400), lambda n: np.full((12, 2500), n, dtype=np.float32))
    size = pa.default_memory_pool().bytes_allocated()
    largest = 0
    tracemalloc.start()
    for number, signal in records.iter_signals():
        assert signal[0, 0] == number
        largest = max(largest, pa.default_memory_pool().bytes_allocated() - size)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert largest < 26e6


class TestOtherFiles:
    def test_larger_row_groups_and_values_that_may_be_null(self, tmp_path, numbers):
        """As `prepare` wrote them at first."""
        schema = pa.schema([*list(RECORD_SCHEMA)[:4], ("signal", pa.list_(pa.list_(pa.float32())))])
        columns = [numbers, ["p"] * 100, ["n"] * 100, [250.0] * 100, [signal_of(n).tolist() for n in numbers]]
        table = pa.Table.from_arrays(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )
        pq.write_table(table, tmp_path / "r.parquet", row_group_size=64)
        records = RecordFile(tmp_path / "r.parquet")
        for number, signal in records.iter_signals():
            np.testing.assert_array_equal(signal, signal_of(number))
            np.testing.assert_array_equal(records.signal(number), signal)

    def test_other_columns(self, tmp_path):
        pq.write_table(pa.table({"ecg_id": [1], "patient_id": ["a"]}), tmp_path / "r.parquet")
        with pytest.raises(EcgDataError, match="r.parquet cannot be read: its columns are not those of records"):
            RecordFile(tmp_path / "r.parquet")

    def test_damage_inside_is_an_error_with_the_files_name(self, path, numbers, tmp_path):
        damaged = tmp_path / "damaged.parquet"
        content = bytearray(path.read_bytes())
        place = pq.ParquetFile(path).metadata.row_group(2).column(4).data_page_offset
        content[place : place + 400] = b"\xff" * 400
        damaged.write_bytes(content)
        records = RecordFile(damaged)
        assert records.signal(numbers[0]).size
        for read in (lambda: records.signal(numbers[40]), lambda: list(records.iter_signals())):
            with pytest.raises(EcgDataError, match="damaged.parquet cannot be read: .*; prepare anew"):
                read()

    def test_an_error_while_writing_goes_on(self, tmp_path):
        with pytest.raises(ZeroDivisionError), RecordWriter(tmp_path / "r.parquet") as writer:
            writer.add(1, None, "one", 250.0, signal_of(1))
            raise ZeroDivisionError


class TestFingerprint:
    def test_is_that_of_the_content(self, path, numbers, tmp_path):
        first = RecordFile(path).fingerprint
        assert write(tmp_path / "again.parquet", numbers).fingerprint == first
        others = [
            write(tmp_path / "fewer.parquet", numbers[:-1]),
            write(tmp_path / "order.parquet", numbers[::-1]),
            write(tmp_path / "other.parquet", numbers, lambda n: signal_of(n) * np.float32(1.0001)),
        ]
        assert len({first, *(other.fingerprint for other in others)}) == 4

    def test_of_a_file_that_was_replaced(self, path, tmp_path):
        copy = tmp_path / "copy.parquet"
        copy.write_bytes(path.read_bytes())
        records = RecordFile(copy)
        for content in (b"x" * 1000, b"", b"PAR1"):
            copy.write_bytes(content)
            with pytest.raises(EcgDataError, match="it was replaced by something else"):
                _ = records.fingerprint
