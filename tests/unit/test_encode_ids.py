"""Ids of whole data sets: the same as the tokenizer's, in shards, and whatever breaks the job off."""

import json
import os
import shutil
import signal as signals_of_unix
import subprocess
import sys

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets.data_files import EmptyDatasetError

from ecgbyte_hf import cli
from ecgbyte_hf.data import encode_ids as module
from ecgbyte_hf.data.encode_ids import JOB_FOLDER, encode_records
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.sources import prepare_synthetic
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, SamplingRateError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.provenance import write_json


@pytest.fixture(scope="module")
def tokenizer(small_ecg_byte):
    return EcgByteTokenizer.from_pretrained(small_ecg_byte)


@pytest.fixture(scope="module")
def whole(small_prepared, tokenizer, tmp_path_factory):
    """The folder of a job that nothing broke off, in shards of 9 records: 40 make five."""
    folder = tmp_path_factory.mktemp("whole")
    encode_records(small_prepared, tokenizer, folder, records_per_shard=9)
    return folder


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def table(folder):
    return pq.read_table(sorted(folder.glob("*.parquet")))


def stop_at(monkeypatch, num_records, error=KeyboardInterrupt):
    """Break off when more than so many records are given to the core."""
    real = EcgByteTokenizer.encode_signal_batch
    seen = []

    def stopping(self, signals, **options):
        seen.extend(signals)
        if len(seen) > num_records:
            raise error
        return real(self, signals, **options)

    monkeypatch.setattr(EcgByteTokenizer, "encode_signal_batch", stopping)


class TestIds:
    def test_are_those_of_the_tokenizer(self, small_prepared, tokenizer, whole):
        assert list(shards(whole)) == [f"ids-{number:05d}.parquet" for number in range(5)]
        assert table(whole).column("ecg_id").to_pylist() == small_prepared.ecg_ids
        ids = table(whole).column("input_ids").to_pylist()
        for ecg_id, got in zip(small_prepared.ecg_ids, ids, strict=True):
            np.testing.assert_array_equal(got, tokenizer.encode_signal(small_prepared.signal(ecg_id)))
        report = json.loads((whole / "encode.json").read_text())
        assert (report["records"], report["samples"], report["tokens"]) == (40, 40 * 2000, sum(map(len, ids)))
        assert report["compression"] == 80_000 / report["tokens"] and report["resumed_at_record"] == 0
        assert [shard["records"] for shard in report["shards"]] == [9, 9, 9, 9, 4]
        assert set(report["seconds"]) == {"total", "core", "reading", "writing"}
        assert report["symbols_per_second"] > 0 and report["job"]["tokenizer"] == tokenizer.fingerprint
        assert not (whole / JOB_FOLDER).exists()

    def test_threads_and_batches_change_nothing(self, small_prepared, tokenizer, whole, tmp_path, monkeypatch):
        for number, num_threads in enumerate((1, 3)):
            encode_records(
                small_prepared, tokenizer, tmp_path / str(number), num_threads=num_threads, records_per_shard=9
            )
            assert shards(tmp_path / str(number)) == shards(whole)
        monkeypatch.setattr(module, "_BATCH", 1)
        encode_records(small_prepared, tokenizer, tmp_path / "one", records_per_shard=9)
        assert table(tmp_path / "one").equals(table(whole))

    @pytest.mark.parametrize("name", ["whole", "one"])
    def test_datasets_opens_the_folder(self, name, whole, small_prepared, tokenizer, tmp_path):
        folder = whole
        if name == "one":
            folder = tmp_path / "one"
            encode_records(small_prepared, tokenizer, folder)
        rows = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        assert list(rows) == ["train"] and rows["train"]["ecg_id"][:] == small_prepared.ecg_ids
        assert rows["train"][3]["input_ids"] == table(whole).column("input_ids")[3].as_py()

    def test_minmax(self, small_prepared, tmp_path):
        own = EcgByteTokenizer(calibration=EcgCalibration.minmax(), sampling_rate=100, leads=["I", "aVF"])
        encode_records(small_prepared, own, tmp_path)
        got = table(tmp_path).column("input_ids")[39].as_py()
        assert got == own.encode_signal(small_prepared.signal(small_prepared.ecg_ids[39])).tolist()

    def test_data_of_another_rate_is_refused(self, small_prepared, tmp_path):
        other = EcgByteTokenizer(calibration=EcgCalibration.minmax(), sampling_rate=250, leads=["I", "aVF"])
        with pytest.raises(SamplingRateError, match="gives 100 Hz, the tokenizer expects 250 Hz"):
            encode_records(small_prepared, other, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_shards_without_records_are_refused(self, small_prepared, tokenizer, tmp_path):
        with pytest.raises(EcgDataError, match="got 0 records per shard, expected at least 1"):
            encode_records(small_prepared, tokenizer, tmp_path / "out", records_per_shard=0)
        assert not (tmp_path / "out").exists()

    def test_a_few_row_groups_are_held_at_a_time(self, small_prepared, tokenizer, tmp_path):
        """Every row group is read once, and the records that wait to be encoded are those of one call."""
        opened = PreparedData(small_prepared.folder)
        encode_records(opened, tokenizer, tmp_path, records_per_shard=9)
        assert opened.records.groups_read == 3  # of 16 records each


class TestBrokenOff:
    @pytest.mark.parametrize("num_records", [0, 9, 20, 39])
    def test_goes_on_behind_the_last_whole_shard(
        self, small_prepared, tokenizer, whole, tmp_path, monkeypatch, num_records
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, num_records)
            encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        assert not shards(tmp_path) and not (tmp_path / "encode.json").exists()
        with pytest.raises(EmptyDatasetError):
            datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path.with_name("cache")))
        report = encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        assert report["resumed_at_record"] == num_records // 9 * 9
        assert shards(tmp_path) == shards(whole)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["encode.json", *shards(whole)]
        finished = json.loads((whole / "encode.json").read_text())
        for name in ("records", "samples", "tokens", "compression", "shards", "job"):
            assert report[name] == finished[name]

    def test_records_of_a_whole_shard_are_not_read_again(self, small_prepared, tokenizer, tmp_path, monkeypatch):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, 36)
            encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        opened = PreparedData(small_prepared.folder)
        encode_records(opened, tokenizer, tmp_path, records_per_shard=9)
        assert opened.records.groups_read == 1

    def test_while_the_shards_are_put_in_place(self, small_prepared, tokenizer, whole, tmp_path, monkeypatch):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "write_json", self.broken_write_json)
            encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        assert len(shards(tmp_path)) == 5 and not (tmp_path / "encode.json").exists()
        moved = tmp_path / "ids-00003.parquet"
        moved.replace(tmp_path / JOB_FOLDER / moved.name)  # as if the last had not been reached
        report = encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        assert report["resumed_at_record"] == 40 == report["records"]
        assert shards(tmp_path) == shards(whole) and not (tmp_path / JOB_FOLDER).exists()

    @staticmethod
    def broken_write_json(path, content):
        if path.name == "encode.json":
            raise KeyboardInterrupt
        return write_json(path, content)

    def test_a_shard_that_was_cut_is_made_again(self, small_prepared, tokenizer, whole, tmp_path, monkeypatch):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, 30)
            encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        os.truncate(tmp_path / JOB_FOLDER / "ids-00001.parquet", 100)
        report = encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        assert report["resumed_at_record"] == 9 and shards(tmp_path) == shards(whole)

    def test_a_full_disk_leaves_nothing_that_looks_whole(
        self, small_prepared, tokenizer, whole, tmp_path, monkeypatch
    ):
        class Full(pq.ParquetWriter):
            def write_table(self, table):
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(module.pq, "ParquetWriter", Full)
            encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        assert not shards(tmp_path) and not shards(tmp_path / JOB_FOLDER)
        encode_records(small_prepared, tokenizer, tmp_path, records_per_shard=9)
        assert shards(tmp_path) == shards(whole)

    def test_a_finished_job_is_not_done_again(self, small_prepared, tokenizer, whole, tmp_path, monkeypatch):
        folder = shutil.copytree(whole, tmp_path / "copy")
        stop_at(monkeypatch, 0)
        report = encode_records(small_prepared, tokenizer, folder, records_per_shard=9)
        assert report == {**json.loads((folder / "encode.json").read_text()), "resumed_at_record": 40}


class TestAnotherJob:
    @pytest.fixture(params=["begun", "finished"])
    def folder(self, request, small_prepared, tokenizer, whole, tmp_path, monkeypatch):
        if request.param == "finished":
            return shutil.copytree(whole, tmp_path / "ids")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, 20)
            encode_records(small_prepared, tokenizer, tmp_path / "ids", records_per_shard=9)
        return tmp_path / "ids"

    @staticmethod
    def files(folder):
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def test_is_refused_and_left_alone(self, folder, small_prepared, tokenizer, tmp_path):
        other = EcgByteTokenizer(calibration=EcgCalibration.minmax(), sampling_rate=100, leads=["I", "aVF"])
        extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["I", "aVF"])
        others = prepare_synthetic(tmp_path / "others", feature_extractor=extractor, num_records=40, seed=4)
        before = self.files(folder)
        for arguments, differing in (
            ((small_prepared, other, folder, 9), "tokenizer"),
            ((others, tokenizer, folder, 9), "data"),
            ((small_prepared, tokenizer, folder, 10), "records_per_shard"),
            ((others, other, folder, 10), "tokenizer, data, records_per_shard"),
        ):
            with pytest.raises(EcgDataError, match=f"with other {differing}; choose another folder"):
                encode_records(*arguments[:3], records_per_shard=arguments[3])
            assert self.files(folder) == before

    def test_is_replaced_only_when_asked_for(self, folder, small_prepared, tokenizer, tmp_path):
        other = EcgByteTokenizer(calibration=EcgCalibration.minmax(), sampling_rate=100, leads=["I", "aVF"])
        report = encode_records(small_prepared, other, folder, records_per_shard=20, overwrite=True)
        assert report["resumed_at_record"] == 0
        encode_records(small_prepared, other, tmp_path / "fresh", records_per_shard=20)
        assert shards(folder) == shards(tmp_path / "fresh") and len(shards(folder)) == 2
        assert not (folder / JOB_FOLDER).exists()

    def test_overwrite_does_not_undo_the_same_job(self, folder, small_prepared, tokenizer, whole):
        report = encode_records(small_prepared, tokenizer, folder, records_per_shard=9, overwrite=True)
        assert report["resumed_at_record"] in (18, 40) and shards(folder) == shards(whole)

    def test_missing_and_changed_files(self, small_prepared, tokenizer, whole, tmp_path):
        folder = shutil.copytree(whole, tmp_path / "ids")
        (folder / "ids-00002.parquet").unlink()
        with pytest.raises(EcgDataError, match=r"not all the files that its encode.json names"):
            encode_records(small_prepared, tokenizer, folder, records_per_shard=9)
        encode_records(small_prepared, tokenizer, folder, records_per_shard=9, overwrite=True)
        assert shards(folder) == shards(whole)

    def test_files_of_somebody_else(self, small_prepared, tokenizer, tmp_path):
        (tmp_path / "mine.parquet").write_bytes(b"mine")
        for overwrite in (False, True):
            with pytest.raises(EcgDataError, match="mine.parquet, which `ecgbyte encode` did not write"):
                encode_records(small_prepared, tokenizer, tmp_path, overwrite=overwrite)
        (tmp_path / "encode.json").write_text("{")
        with pytest.raises(EcgDataError, match="encode.json: not JSON"):
            encode_records(small_prepared, tokenizer, tmp_path)
        (tmp_path / "encode.json").write_text('{"splits": {}}')
        with pytest.raises(EcgDataError, match="holds rows for a language model"):
            encode_records(small_prepared, tokenizer, tmp_path)
        assert (tmp_path / "mine.parquet").read_bytes() == b"mine"


class TestKilled:
    """The process itself is killed, or interrupted, while it waits inside the fourth shard."""

    SCRIPT = """
import sys
from ecgbyte_hf import cli
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

real, calls = EcgByteTokenizer.encode_signal_batch, []

def waiting(self, signals, **options):
    calls.append(1)
    if len(calls) == 4:
        print("going", flush=True)
        sys.stdin.read()
    return real(self, signals, **options)

EcgByteTokenizer.encode_signal_batch = waiting
sys.exit(cli.main(sys.argv[1:]))
"""

    @pytest.mark.parametrize("number", [signals_of_unix.SIGKILL, signals_of_unix.SIGINT])
    def test_and_started_again(self, number, small_prepared, small_ecg_byte, whole, tmp_path, capsys):
        arguments = [
            *("encode", "--data", str(small_prepared.folder), "--tokenizer", str(small_ecg_byte)),
            *("--records-per-shard", "9", "--output", str(tmp_path)),
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", self.SCRIPT, *arguments], text=True, **pipes) as process:
            assert process.stdout.readline() == "going\n"
            process.send_signal(number)
            error = process.communicate()[1]
        assert process.returncode == (130 if number == signals_of_unix.SIGINT else -number)
        assert "Traceback" not in error and not shards(tmp_path)
        assert cli.main(arguments) == 0
        assert "27 of these records were there from a run that was broken off" in capsys.readouterr().out
        assert shards(tmp_path) == shards(whole)
        assert cli.main(arguments) == 0
        assert "nothing was left to do" in capsys.readouterr().out
