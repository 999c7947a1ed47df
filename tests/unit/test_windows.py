"""Windows of prepared records: views, numbered, with the questions of their record."""

import json

import numpy as np
import pytest

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.sampling import read_record_list
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.evaluation.controls import shuffled_ecg_ids
from ecgbyte_hf.evaluation.scoring import cluster_key
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.training.train_tokenizer import train_tokenizer


@pytest.fixture
def windows(small_prepared):
    return WindowedData(small_prepared.folder, 3.0)


def test_numbers_patients_and_what_is_left_over(small_prepared, windows):
    assert (windows.windows_per_record, windows.samples_left_over) == (3, 100)
    assert windows.ecg_ids == [ecg_id * 3 + window for ecg_id in small_prepared.ecg_ids for window in range(3)]
    assert windows.patients[7 * 3 + 2] == small_prepared.patients[7]
    assert windows.fingerprint != small_prepared.fingerprint
    assert windows.fingerprint != WindowedData(small_prepared.folder, 2.0).fingerprint


def test_signals_are_views_of_the_record(small_prepared, windows):
    record = small_prepared.signal(5)
    for window in range(3):
        cut = windows.signal(15 + window)
        np.testing.assert_array_equal(cut, record[:, window * 300 : window * 300 + 300])
        assert cut.base is not None and not cut.flags.owndata
    assert np.shares_memory(windows.signal(15), windows.signal(15))


def test_iterating(small_prepared, windows):
    for wanted in (None, [16, 3, 17, 120]):
        got = dict(windows.iter_signals(wanted))
        assert list(got) == (windows.ecg_ids if wanted is None else sorted(wanted))
        for number, signal in got.items():
            np.testing.assert_array_equal(signal, windows.signal(number))


def test_every_question_is_asked_about_every_window(small_prepared, windows):
    rows, whole = windows.questions("test"), small_prepared.questions("test")
    assert len(rows) == 3 * len(whole) and len({row["sample_id"] for row in rows}) == len(rows)
    for index, row in enumerate(rows):
        original = whole[index // 3]
        assert row["question"] == original["question"] and row["answer"] == original["answer"]
        assert row["ecg_id"] == [3 * ecg_id + index % 3 for ecg_id in original["ecg_id"]]


def test_a_tokenizer_learns_from_the_windows_of_training_records(small_prepared, windows, tmp_path):
    assert set(windows.train_ecg_ids()) == {3 * n + w for n in small_prepared.train_ecg_ids() for w in range(3)}
    report = train_tokenizer(windows, tmp_path, num_merges=40)
    assert (report["records_trained_on"], report["records"]) == (3 * 36, 3 * 4)


def test_drawn_records_stand_for_their_windows(small_prepared, windows, tmp_path):
    from ecgbyte_hf import cli

    def run(*arguments):
        return cli.main([str(part) for part in arguments])

    data = ("--data", small_prepared.folder)
    assert run("sample", *data, "--num-records", 5, "--output", tmp_path / "sample") == 0
    drawn = json.loads((tmp_path / "sample/sample.json").read_text())["ecg_ids"]
    assert windows.ids_of_records([4, 2]) == [12, 13, 14, 6, 7, 8]
    command = ("train-tokenizer", *data, "--window-seconds", 3, "--num-merges", 20, "--output", tmp_path / "made")
    assert run(*command, "--records", tmp_path / "sample/sample.json") == 0
    report = json.loads((tmp_path / "made/training.json").read_text())
    assert report["records_trained_on"] == 3 * len(drawn) == 15
    assert report["provenance"]["arguments"]["window_seconds"] == 3.0


def test_a_draw_from_another_folder_is_refused(small_prepared, tmp_path):
    path = tmp_path / "sample.json"
    path.write_text(json.dumps({"ecg_ids": [1], "provenance": {"data": "another"}}))
    with pytest.raises(EcgDataError, match="drawn from another prepared folder"):
        read_record_list(path, data=small_prepared.folder_fingerprint)


def test_bootstrap_and_shuffling_go_by_record(windows):
    rows = windows.questions("test")
    assert {cluster_key(row) for row in rows} == {row["record_id"][0] for row in rows}
    substitutes = shuffled_ecg_ids(rows, seed=0)
    assert sorted(substitutes) == sorted(substitutes.values())
    for ecg_id, other in substitutes.items():
        assert ecg_id // 3 != other // 3 and ecg_id % 3 == other % 3


def test_one_window_is_the_record(small_prepared):
    whole = WindowedData(small_prepared.folder, 10.0)
    assert whole.ecg_ids == PreparedData(small_prepared.folder).ecg_ids and whole.samples_left_over == 0


@pytest.mark.parametrize("seconds", [0.0, -1.0, 10.01, 0.001])
def test_lengths_that_cannot_be(small_prepared, seconds):
    with pytest.raises(EcgDataError, match="windows of"):
        WindowedData(small_prepared.folder, seconds)


def test_no_such_window(windows):
    with pytest.raises(EcgDataError, match="holds no record"):
        windows.signal(10_000)


def test_overlapping_windows(small_prepared):
    windows = WindowedData(small_prepared.folder, 3.0, stride_seconds=0.5)
    assert (windows.windows_per_record, windows.samples_left_over) == (15, 0)
    record = small_prepared.signal(5)
    for number, signal in windows.iter_signals(range(75, 90)):
        start = 50 * (number - 75)
        np.testing.assert_array_equal(signal, record[:, start : start + 300])
        np.testing.assert_array_equal(windows.signal(number), signal)
    assert windows.fingerprint != WindowedData(small_prepared.folder, 3.0).fingerprint
    assert len(windows.questions("test")) == 15 * len(small_prepared.questions("test"))


def test_a_stride_that_tiles_the_record_is_the_default(small_prepared, windows):
    same = WindowedData(small_prepared.folder, 3.0, stride_seconds=3.0)
    assert same.fingerprint == windows.fingerprint and same.ecg_ids == windows.ecg_ids


@pytest.mark.parametrize("stride", [0.0, -1.0, 0.001, 3.5])
def test_strides_that_are_none(small_prepared, stride):
    with pytest.raises(EcgDataError, match="stride of at least one sample and at most the length"):
        WindowedData(small_prepared.folder, 3.0, stride_seconds=stride)
