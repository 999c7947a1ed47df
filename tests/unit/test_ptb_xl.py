"""PTB-XL's builder, on its own files, on small ones of its layout, and on broken ones."""

import ast
import csv
import logging

import numpy as np
import pytest
import wfdb
from data_set_folders import STATEMENTS, make_ptb_xl, ptb_xl_row, write_record, write_table

import ecgbyte_hf
from ecgbyte_hf.data.ptb_xl import LABELS, aggregate, main_table, read_records, read_statements
from ecgbyte_hf.data.questions import QUESTION_FEATURES
from ecgbyte_hf.data.stored_signal import millivolts
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError


def load(config, folder, **options):
    return ecgbyte_hf.load_dataset("ptb_xl", config, data_dir=folder, **options)


def tables(test_data):
    return [test_data / "ptbxl" / name for name in ("ptbxl_database.csv", "ptbxl_database_extra_rows.csv")]


class TestRealFiles:
    def test_aggregation_equals_labels_that_others_derived(self, test_data):
        own = {record["ecg_id"]: record for record in read_records(tables(test_data))}
        derived = {record["ecg_id"]: record for record in read_records([test_data / "ptbxl100/labels.csv"])}
        shared = own.keys() & derived.keys()
        assert len(own) == 685 and len(derived) == 5000 and len(shared) == 144
        for name in (*LABELS, "patient_id", "strat_fold", "filename_lr", "filename_hr"):
            assert {i: own[i][name] for i in shared} == {i: derived[i][name] for i in shared}, name
        assert {label for i in shared for label in own[i]["subclass"]} > {"ISC_", "NST_", "_AVB", "LAFB/LPFB"}

    def test_derived_labels_are_as_written_but_for_the_underscores(self, test_data):
        path = test_data / "ptbxl100/labels.csv"
        with path.open(encoding="utf-8") as file:
            written = {int(row["ecg_id"]): row for row in csv.DictReader(file)}
        columns = {"superclass": "super_class", "subclass": "sub_class", "form": "form", "rhythm": "rhythm"}
        for record in read_records([path]):
            for name, column in columns.items():
                got = sorted(label.strip("_") for label in record[name])
                assert got == sorted(ast.literal_eval(written[record["ecg_id"]][column] or "[]"))

    @pytest.mark.parametrize(("config", "column", "count"), [("records500", "hr", 165), ("records100", "lr", 341)])
    def test_signals_are_the_stored_integers(self, test_data, config, column, count, caplog):
        folder = test_data / "ptbxl"
        with caplog.at_level(logging.WARNING):
            data = load(config, folder, metadata=["ptbxl_database_extra_rows.csv"])
        warnings = [record.message for record in caplog.records if "left out" in record.message]
        assert len(warnings) == 1 and f"{685 - count} of 685 records" in warnings[0]
        assert sum(len(rows) for rows in data.values()) == count
        rows = data["train"].with_format("numpy", dtype=np.int16, columns=["signal"])
        for index in (0, 1, len(rows) // 2, len(rows) - 1):
            plain = data["train"].remove_columns("signal")[index]
            record = wfdb.rdrecord(str(folder / plain["filename"]), physical=False)
            assert plain["filename"].endswith(f"{plain['ecg_id']:05d}_{column}")
            assert rows[index]["signal"].dtype == np.int16
            np.testing.assert_array_equal(rows[index]["signal"], record.d_signal.T)
            assert plain["lead_names"] == record.sig_name and plain["sampling_rate"] == record.fs
            assert plain["gain"] == record.adc_gain and plain["baseline"] == record.baseline
            physical = wfdb.rdrecord(str(folder / plain["filename"])).p_signal.T
            np.testing.assert_allclose(millivolts({**plain, **rows[index]}), physical, atol=1e-12)

    def test_splits_share_no_patient(self, test_data):
        data = load("metadata", test_data / "ptbxl", metadata=["ptbxl_database_extra_rows.csv"])
        assert {split: len(rows) for split, rows in data.items()} == {"train": 489, "validation": 104, "test": 92}
        patients = {split: set(rows["patient_id"]) for split, rows in data.items()}
        assert not patients["train"] & patients["test"] and not patients["train"] & patients["validation"]
        assert set(data["validation"]["strat_fold"]) == {9} and set(data["test"]["strat_fold"]) == {10}
        reference = load("metadata", test_data / "ptbxl", reference_folds=True)
        assert set(reference["validation"]["strat_fold"]) == {8} and set(reference["test"]["strat_fold"]) == {9, 10}
        assert data["train"][0] == {
            "ecg_id": 1,
            "patient_id": "15709",
            "age": 56,
            "sex": 1,
            "device": "CS-12   E",
            "strat_fold": 3,
            "report": "sinusrhythmus periphere niederspannung",
            "scp_codes": [
                {"code": "NORM", "likelihood": 100.0},
                {"code": "LVOLT", "likelihood": 0.0},
                {"code": "SR", "likelihood": 0.0},
            ],
            "superclass": ["NORM"],
            "subclass": ["NORM"],
            "form": ["LVOLT"],
            "rhythm": ["SR"],
            "validated_by_human": True,
            "filename_lr": "records100/00000/00001_lr",
            "filename_hr": "records500/00000/00001_hr",
        }

    def test_reports(self, test_data, caplog):
        with caplog.at_level(logging.WARNING):
            data = load("reports", test_data / "ptbxl")
        assert "1 of 500 records have no report" in caplog.text
        assert data["train"].features == QUESTION_FEATURES
        assert sum(len(rows) for rows in data.values()) == 499
        row = data["train"][0]
        assert row["question"] == "Could you please help me explain my ECG?"
        assert row["answer"] == ["sinusrhythmus periphere niederspannung"]
        assert row["sample_id"] == 1 and row["ecg_id"] == [1] and row["ecg_path"] == ["records500/00000/00001_hr"]
        with pytest.raises(EcgDataError, match="reports need PTB-XL's ptbxl_database.csv"):
            load("reports", test_data / "ptbxl100")

    def test_a_folder_with_labels_alone(self, test_data):
        assert main_table(test_data / "ptbxl100").name == "labels.csv"
        rows = load("metadata", test_data / "ptbxl100")
        assert {split: len(part) for split, part in rows.items()} == {"train": 4400, "validation": 600}
        row = rows["train"][0]
        assert row["scp_codes"] is None and row["report"] is None and row["age"] is None
        assert row["superclass"] == ["NORM"] and row["form"] == [] and row["rhythm"] == ["SR"]


class TestSmallFolder:
    def test_rows_and_both_rates(self, tmp_path):
        for rate in (100, 500):
            signals = make_ptb_xl(tmp_path, rate=rate)
            data = load(f"records{rate}", tmp_path)
            found = {row["ecg_id"]: np.array(row["signal"]) for rows in data.values() for row in rows}
            assert found.keys() == signals.keys()
            assert all((found[i] == signals[i]).all() for i in signals)

    def test_folders_may_be_links(self, tmp_path):
        signals = make_ptb_xl(tmp_path / "ptb-xl", 4)
        (tmp_path / "ptb-xl/records100/00000").rename(tmp_path / "elsewhere")
        (tmp_path / "ptb-xl/records100/00000").symlink_to(tmp_path / "elsewhere")
        rows = load("records100", tmp_path / "ptb-xl", split="train")
        assert all((np.array(row["signal"]) == signals[row["ecg_id"]]).all() for row in rows) and len(rows) == 4

    def test_a_missing_value_stays_what_the_file_has(self, tmp_path):
        make_ptb_xl(tmp_path, 1)
        samples = np.zeros((12, 1000), np.int16)
        samples[3, 7], samples[4, 8] = -32768, 32767
        write_record(tmp_path / "records100/00000/00001_lr", samples, 100, gain="500(-20)/uV")
        row = load("records100", tmp_path, split="train")[0]
        assert (np.array(row["signal"]) == samples).all()
        assert row["gain"] == [500_000.0] * 12 and row["baseline"] == [-20] * 12
        signal = millivolts(row)
        assert np.isnan(signal).sum() == 1 and np.isnan(signal[3, 7])
        assert signal[4, 8] == pytest.approx((32767 + 20) / 500 / 1000) and signal[0, 0] == 20 / 500_000

    def test_translated_reports_need_the_model(self, tmp_path):
        make_ptb_xl(tmp_path, 1)
        with pytest.raises(EcgDataError, match="cannot load the translation model"):
            load("reports", tmp_path, translate=True, translation_model=str(tmp_path / "absent"))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"ecg_id": ""}, "line 3: ecg_id is empty"),
            ({"ecg_id": "x"}, "line 3: ecg_id is 'x'"),
            ({"ecg_id": 1}, "ECG 1 is in .*ptbxl_database.csv and in .*expected it once"),
            ({"patient_id": ""}, "line 3: patient_id is empty"),
            ({"strat_fold": "11"}, "line 3: got the fold 11"),
            ({"strat_fold": ""}, "line 3: strat_fold is empty"),
            ({"age": "old"}, "line 3: age is 'old'"),
            ({"scp_codes": "NORM"}, "line 3: scp_codes is 'NORM'"),
            ({"scp_codes": "['NORM']"}, "line 3: scp_codes is .*with their likelihood"),
            ({"scp_codes": "{'NORM': 'x'}"}, "with their likelihood"),
            ({"scp_codes": "__import__('os').system('true')"}, "expected a Python literal"),
            ({"validated_by_human": "maybe"}, "line 3: validated_by_human is 'maybe', expected True or False"),
            ({"filename_hr": "../00002_hr"}, "line 3: got the path '../00002_hr'"),
        ],
    )
    def test_lines_that_are_none(self, tmp_path, changes, message):
        rows = [ptb_xl_row(1), ptb_xl_row(2) | changes]
        write_table(tmp_path / "ptbxl_database.csv", rows)
        write_table(tmp_path / "scp_statements.csv", STATEMENTS, [*STATEMENTS[3], "rhythm"])
        with pytest.raises(EcgDataError, match=message):
            load("metadata", tmp_path)

    @pytest.mark.parametrize("num_proc", [None, 2])
    def test_a_record_that_cannot_be_read_is_named(self, tmp_path, num_proc, monkeypatch):
        monkeypatch.setattr("ecgbyte_hf.data.ptb_xl.SHARD", 4)
        make_ptb_xl(tmp_path)
        path = tmp_path / "records100/00000/00012_lr.dat"
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(EcgFileError, match="00012_lr.dat.*truncated"):
            load("records100", tmp_path, num_proc=num_proc)
        with pytest.raises(EcgFileError, match="00012_lr.dat.*truncated"):
            list(load("records100", tmp_path, streaming=True, split="train"))

    def test_a_record_that_cannot_be_read_is_left_out_on_request(self, tmp_path, caplog):
        make_ptb_xl(tmp_path)
        path = tmp_path / "records100/00000/00012_lr.dat"
        path.write_bytes(path.read_bytes()[:-2])
        (tmp_path / "records100/00000/00013_lr.dat").unlink()
        with caplog.at_level(logging.WARNING):
            data = load("records100", tmp_path, skip_unreadable=True)
        assert {i for rows in data.values() for i in rows["ecg_id"]} == set(range(1, 21)) - {12, 13}
        warnings = [record.message for record in caplog.records if record.message.startswith("left out: ")]
        assert len(warnings) == 2 and "00012_lr.dat" in warnings[0] and "00013_lr.dat" in warnings[1]

    @pytest.mark.parametrize(
        ("samples", "settings", "message"),
        [
            (np.zeros((12, 999), np.int16), {}, "got 12 leads of 999 samples at 100.0 Hz, expected 12 of 1000"),
            (np.zeros((2, 1000), np.int16), {"leads": ["I", "II"]}, "got 2 leads"),
            (np.full((12, 1000), 40_000, np.int32), {"storage": "32"}, "more than 16 bits"),
        ],
    )
    def test_a_record_of_another_shape(self, tmp_path, samples, settings, message):
        make_ptb_xl(tmp_path, 1)
        write_record(tmp_path / "records100/00000/00001_lr", samples, 100, **settings)
        with pytest.raises(EcgDataError, match=message):
            load("records100", tmp_path)

    def test_no_record_no_table_no_folder(self, tmp_path):
        write_table(tmp_path / "ptbxl_database.csv", [ptb_xl_row(1)])
        with pytest.raises(EcgDataError, match="scp_statements.csv belongs beside its table"):
            load("metadata", tmp_path)
        make_ptb_xl(tmp_path, 1)
        with pytest.raises(EcgDataError, match="none of the 1 records of the table is in .*records500"):
            load("records500", tmp_path)
        with pytest.raises(EcgDataError, match="neither ptbxl_database.csv nor labels.csv"):
            load("metadata", tmp_path / "records100")
        with pytest.raises(EcgDataError, match="absent is no folder"):
            load("metadata", tmp_path / "absent")
        with pytest.raises(EcgDataError, match="needs data_dir"):
            ecgbyte_hf.load_dataset("ptb_xl", "metadata")
        with pytest.raises(
            EcgDataError, match="no option folds; known: metadata, reference_folds, skip_unreadable, tr"
        ):
            load("metadata", tmp_path, folds=3)
        with pytest.raises(EcgDataError, match="no rows in the split 'test' here; it has train"):
            load("metadata", tmp_path, split="test")
        row = ptb_xl_row(1)
        for absent, message in (("filename_lr", "it lacks filename_lr"), ("scp_codes", "neither scp_codes nor")):
            write_table(tmp_path / "ptbxl_database.csv", [{name: row[name] for name in row if name != absent}])
            with pytest.raises(EcgDataError, match=message):
                load("metadata", tmp_path)

    def test_a_record_in_two_tables_counts_once_if_they_agree(self, tmp_path):
        make_ptb_xl(tmp_path, 3)
        write_table(tmp_path / "more.csv", [ptb_xl_row(3), ptb_xl_row(4)])
        assert len(load("metadata", tmp_path, metadata=["more.csv"], split="train")) == 4
        write_table(tmp_path / "more.csv", [ptb_xl_row(3, report="another")])
        with pytest.raises(EcgDataError, match="ECG 3 is in .*ptbxl_database.csv and in .*more.csv"):
            load("metadata", tmp_path, metadata=["more.csv"])


def test_aggregation(tmp_path):
    make_ptb_xl(tmp_path, 1)
    statements = read_statements(tmp_path / "scp_statements.csv")
    assert aggregate(["SR", "ASMI", "IMI", "NST_", "ABQRS", "unknown"], statements) == {
        "superclass": ["MI", "STTC"],
        "subclass": ["AMI", "IMI", "NST_"],
        "form": ["ABQRS", "NST_"],
        "rhythm": ["SR"],
    }
    assert aggregate([], statements) == {name: [] for name in LABELS}


def test_age_is_as_ptb_xl_has_it(tmp_path):
    write_table(tmp_path / "scp_statements.csv", STATEMENTS, [*STATEMENTS[3], "rhythm"])
    rows = [ptb_xl_row(1, age="300.0"), ptb_xl_row(2, age="", validated_by_human="", report=" ")]
    write_table(tmp_path / "ptbxl_database.csv", rows)
    first, second = read_records([tmp_path / "ptbxl_database.csv"])
    assert first["age"] == 300
    assert (second["age"], second["validated_by_human"], second["report"]) == (None, None, None)
