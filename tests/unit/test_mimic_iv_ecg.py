"""MIMIC-IV-ECG's builder, on its own files, on small ones of its layout, and on broken ones."""

import csv
import logging

import numpy as np
import pytest
import wfdb
from data_set_folders import INTERVALS, make_mimic, mimic_rows, write_record, write_table

import ecgbyte_hf
from ecgbyte_hf.data.mimic_iv_ecg import join_report, patients_of, read_record_paths
from ecgbyte_hf.data.questions import QUESTION_FEATURES
from ecgbyte_hf.data.splits import split_of_patient
from ecgbyte_hf.data.stored_signal import NO_VALUE, millivolts
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError


def load(config, folder, **options):
    return ecgbyte_hf.load_dataset("mimic_iv_ecg", config, data_dir=folder, **options)


def by_id(data):
    return {row["ecg_id"]: {**row, "split": split} for split, rows in data.items() for row in rows}


class TestRealFiles:
    def test_signals_are_the_stored_integers(self, test_data):
        folder = test_data / "mimic_iv_ecg"
        rows = by_id(load("records", folder))
        assert len(rows) == 70
        for study in sorted(rows)[::9] + [40130031]:
            row = rows[study]
            record = wfdb.rdrecord(str(folder / row["filename"]), physical=False)
            np.testing.assert_array_equal(np.array(row["signal"], np.int16), record.d_signal.T)
            assert row["lead_names"] == record.sig_name == "I II III aVR aVF aVL V1 V2 V3 V4 V5 V6".split()
            assert row["gain"] == [200.0] * 12 and row["baseline"] == [0] * 12 and row["sampling_rate"] == 500
        nan = rows[40130031]
        assert (np.array(nan["signal"]) == NO_VALUE).sum(axis=1).tolist() == [0] * 11 + [5]
        physical = wfdb.rdrecord(str(folder / nan["filename"])).p_signal.T
        np.testing.assert_allclose(millivolts(nan), physical, atol=1e-12)

    def test_measurements_and_reports(self, test_data):
        folder = test_data / "mimic_iv_ecg"
        rows, questions = by_id(load("metadata", folder)), load("reports", folder)
        with (folder / "machine_measurements.csv").open(encoding="utf-8") as file:
            written = {int(line["study_id"]): line for line in csv.DictReader(file)}
        assert rows.keys() == written.keys()
        for study, line in written.items():
            row = rows[study]
            for name in INTERVALS:
                number = int(line[name])
                assert row[name] == (None if number in (29999, 32767) else number)
            assert row["report_lines"] == [line[f"report_{i}"] for i in range(18) if line[f"report_{i}"]]
            assert row["patient_id"] == line["subject_id"] and "time" not in "".join(row)
        assert sum(row["p_axis"] is None for row in rows.values()) > 5
        assert all(abs(row["p_axis"] or 0) <= 360 for row in rows.values())
        assert questions["train"].features == QUESTION_FEATURES
        answers = {row["ecg_id"][0]: row["answer"] for part in questions.values() for row in part}
        assert answers == {study: [row["report"]] for study, row in rows.items()}
        assert answers[44326091] == [
            "Atrial fibrillation with PVC(s). Left axis deviation. Left bundle branch block. Abnormal ECG"
        ]
        assert all(".." not in answer for (answer,) in answers.values())

    def test_a_record_list_of_a_spreadsheet(self, test_data):
        folder = test_data / "mimic_iv_ecg"
        usual = read_record_paths(folder / "record_list.csv")
        assert usual == read_record_paths(folder / "record_list_with_backslashes.csv") and len(usual) == 70
        assert usual[44326091] == ("files/p1000/p10001884/s44326091/44326091", "10001884")
        assert all((folder / f"{path}.hea").is_file() for path, _ in usual.values())
        options = {"record_list": "record_list_with_backslashes.csv"}
        assert by_id(load("metadata", folder, **options)) == by_id(load("metadata", folder))

    def test_splits_are_by_patient(self, test_data, tmp_path):
        folder = test_data / "mimic_iv_ecg"
        rows = by_id(load("metadata", folder))
        assert {row["split"] for row in rows.values()} == {"train", "validation", "test"}
        assert all(row["split"] == split_of_patient(row["patient_id"]) for row in rows.values())
        train = next(study for study, row in rows.items() if row["split"] == "train")
        (tmp_path / "mimic-iv-ecg").mkdir()
        (tmp_path / "mimic-iv-ecg/test_ecgs.tsv").write_text(f"0\t{train}\n")
        held = by_id(load("metadata", folder, ecg_qa_dir=str(tmp_path), seed=0))
        moved = {study for study in rows if held[study]["split"] != rows[study]["split"]}
        assert moved == {study for study, row in rows.items() if row["patient_id"] == rows[train]["patient_id"]}
        assert {held[study]["split"] for study in moved} == {"test"}
        other = by_id(load("metadata", folder, seed=1))
        assert any(other[study]["split"] != rows[study]["split"] for study in rows)


class TestSmallFolder:
    def test_the_tables_may_be_in_any_order_and_quoted(self, tmp_path):
        studies = [mimic_rows(50_000_000 + n, 10_000_000 + n, report_1=f'a "b",\nline {n}') for n in range(30)]
        make_mimic(tmp_path, studies=studies)
        rows = by_id(load("metadata", tmp_path))
        assert all(rows[50_000_000 + n]["report_lines"][1] == f'a "b",\nline {n}' for n in range(30))

    def test_records_without_file_or_report_are_counted(self, tmp_path, caplog):
        studies = [mimic_rows(n, 10_000_000 + n) for n in range(1, 11)]
        studies[3] = mimic_rows(4, 10_000_004, report_0="", report_2=" ")
        make_mimic(tmp_path, studies=studies, signals=True)
        gone = tmp_path / f"{studies[6][0]['path']}.hea"
        gone.unlink()
        write_table(tmp_path / "machine_measurements.csv", [measured for _, measured in studies[:9]])
        with caplog.at_level(logging.WARNING):
            records, metadata = by_id(load("records", tmp_path)), by_id(load("metadata", tmp_path))
            questions = load("reports", tmp_path)
        assert set(metadata) == set(range(1, 11))
        assert set(records) == set(metadata) - {7}
        assert "1 of 10 records have no file and are left out" in caplog.text
        assert "2 of 10 records have no report and are left out" in caplog.text
        assert sum(len(rows) for rows in questions.values()) == 8
        assert metadata[10]["report"] is None and metadata[10]["rr_interval"] is None
        assert (
            metadata[4]["report"] is None and metadata[4]["report_lines"] == [] and metadata[4]["rr_interval"] == 400
        )

    def test_no_record_is_there(self, tmp_path):
        make_mimic(tmp_path, 3)
        with pytest.raises(EcgDataError, match="none of the 3 records of .*record_list.csv has a file"):
            load("records", tmp_path)
        (tmp_path / "machine_measurements.csv").unlink()
        with pytest.raises(EcgDataError, match="cannot read .*machine_measurements.csv.*name MIMIC-IV-ECG's folder"):
            load("metadata", tmp_path)
        with pytest.raises(EcgDataError, match="cannot read .*other.csv"):
            load("records", tmp_path, record_list="other.csv")

    def test_streaming_reads_no_signal_before_it_is_asked_for(self, tmp_path, monkeypatch):
        make_mimic(tmp_path, 12, signals=True)
        read = []

        def spy(path):
            read.append(path)
            return stored(path)

        stored = ecgbyte_hf.data.stored_signal.read_stored
        monkeypatch.setattr("ecgbyte_hf.data.stored_signal.read_stored", spy)
        rows = load("records", tmp_path, streaming=True, split="train")
        assert not read
        assert next(iter(rows))["signal"].shape == (12, 5000)
        assert len(read) == 1
        list(load("metadata", tmp_path, streaming=True, split="train"))
        list(load("reports", tmp_path, streaming=True, split="train"))
        assert len(read) == 1

    @pytest.mark.parametrize(
        ("listed", "measured", "message"),
        [
            ({"path": "/etc/1"}, {}, "record_list.csv, line 3: got the path '/etc/1'"),
            ({"path": "files\\..\\..\\1"}, {}, "line 3: got the path"),
            ({"study_id": 1}, {}, "line 3: study 1 is there twice"),
            ({"study_id": ""}, {}, "line 3: study_id is empty"),
            ({"subject_id": "a"}, {}, "line 3: subject_id is 'a'"),
            ({}, {"subject_id": 10_000_009}, "got the patient 10000009, expected 10000002"),
            ({}, {"rr_interval": "fast"}, "machine_measurements.csv, byte .*rr_interval is 'fast'"),
            ({}, {"study_id": "x"}, "machine_measurements.csv, line 2: study_id is 'x'"),
        ],
    )
    def test_lines_that_are_none(self, tmp_path, listed, measured, message):
        first, second = mimic_rows(1, 10_000_001), mimic_rows(2, 10_000_002)
        make_mimic(tmp_path, studies=[first, (second[0] | listed, second[1] | measured)])
        with pytest.raises(EcgDataError, match=message):
            load("metadata", tmp_path)

    def test_measured_twice_or_not_listed(self, tmp_path):
        studies = [mimic_rows(1, 10_000_001), mimic_rows(2, 10_000_002, report_0=".", report_2="")]
        make_mimic(tmp_path, studies=studies)
        reports = load("reports", tmp_path)
        assert [row["ecg_id"] for rows in reports.values() for row in rows] == [[1]]
        write_table(tmp_path / "machine_measurements.csv", [studies[0][1], studies[0][1]])
        with pytest.raises(EcgDataError, match="machine_measurements.csv, line 3: study 1 is there twice"):
            load("metadata", tmp_path)
        (tmp_path / "record_list.csv").write_text("subject_id,study_id,path\n")
        write_table(tmp_path / "machine_measurements.csv", [studies[0][1]])
        with pytest.raises(EcgDataError, match="none of the 0 records of .*record_list.csv has a line"):
            load("metadata", tmp_path)

    def test_a_record_of_another_rate(self, tmp_path):
        studies = [mimic_rows(1, 10_000_001)]
        make_mimic(tmp_path, studies=studies)
        path = tmp_path / studies[0][0]["path"]
        write_record(path, np.zeros((12, 5000), np.int16), 250)
        with pytest.raises(EcgDataError, match="at 250.0 Hz, expected 12 of 5000 at 500 Hz"):
            load("records", tmp_path)
        path.with_name("1.dat").write_bytes(b"")
        with pytest.raises(EcgFileError, match="1.dat"):
            load("records", tmp_path)

    def test_a_damaged_record_can_be_left_out(self, tmp_path, caplog):
        make_mimic(tmp_path, 10, signals=True)
        path = tmp_path / mimic_rows(40_000_004, 10_000_002)[0]["path"]
        path.with_name("40000004.hea").write_text("damaged")
        with pytest.raises(EcgFileError, match="40000004.hea: not the header of a WFDB record"):
            load("records", tmp_path)
        with caplog.at_level(logging.WARNING):
            rows = by_id(load("records", tmp_path, skip_unreadable=True))
        assert set(rows) == {40_000_000 + n for n in range(10)} - {40_000_004}
        assert "left out: " in caplog.text and "40000004.hea" in caplog.text

    @pytest.mark.parametrize("value", ["29999", "32767", "65535", "-29999", ""])
    def test_not_measured(self, tmp_path, value):
        make_mimic(tmp_path, studies=[mimic_rows(1, 10_000_001, t_axis=value, p_axis="-180")])
        row = by_id(load("metadata", tmp_path))[1]
        assert row["t_axis"] is None and row["p_axis"] == -180

    def test_test_ecgs_that_the_list_lacks_are_counted(self, tmp_path, caplog):
        make_mimic(tmp_path, 4)
        with caplog.at_level(logging.WARNING):
            found = patients_of({40_000_001, 40_000_002, 7}, tmp_path / "record_list.csv")
        assert found == {"10000000", "10000001"} and "1 of ECG-QA's 3 MIMIC test ECGs are not in" in caplog.text
        with pytest.raises(EcgDataError, match="is ecg_qa_dir right"):
            load("metadata", tmp_path, ecg_qa_dir=str(tmp_path))
        for text in ("1 x\n", "1\n", "1 2 3\n"):
            (tmp_path / "mimic-iv-ecg").mkdir(exist_ok=True)
            (tmp_path / "mimic-iv-ecg/test_ecgs.tsv").write_text("0\t5\n" + text)
            with pytest.raises(EcgDataError, match="test_ecgs.tsv, line 2"):
                load("metadata", tmp_path, ecg_qa_dir=str(tmp_path))


def test_reports_have_one_full_stop_between_lines():
    assert join_report([]) == "" and join_report(["A."]) == "A" and join_report(["A.", "b", "c."]) == "A. b. c"
