"""ECG-QA's builder, on its own files and on broken ones."""

import json
import shutil

import pytest

import ecgbyte_hf
from ecgbyte_hf.data.ecg_qa import (
    PAPER_QUESTION_TYPES,
    QUESTION_TYPES,
    mapped_path,
    ptb_xl_path,
    read_ecg_ids,
    read_question_file,
    read_template_options,
)
from ecgbyte_hf.data.mimic_iv_ecg import read_record_paths
from ecgbyte_hf.data.questions import QUESTION_FEATURES, add_text_columns
from ecgbyte_hf.data.sources import HELD_OUT_SPLIT, prepare_ecg_qa, read_patients
from ecgbyte_hf.data.splits import hold_out_patients, overlap_report
from ecgbyte_hf.evaluation import scoring
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

ITEM = {
    "template_id": 1,
    "question_id": 2,
    "sample_id": 3,
    "question_type": "single-verify",
    "attribute_type": "noise",
    "question": "Is there noise?",
    "answer": ["yes"],
    "ecg_id": [5],
    "attribute": ["noise"],
}


def write(folder, items, split="train", version="template"):
    path = folder / "ptbxl" / version / split / "0.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(items if isinstance(items, str) else json.dumps(items), encoding="utf-8")
    return path


class TestRealFiles:
    @pytest.mark.parametrize("version", ["template", "paraphrased"])
    def test_counts_and_own_splits(self, test_data, version):
        data = ecgbyte_hf.load_dataset("ecg_qa", f"ptbxl-{version}", data_dir=test_data / "ecg_qa/ecgqa")
        assert {split: len(rows) for split, rows in data.items()} == {"train": 335, "validation": 38, "test": 22}
        types = [row["question_type"] for split in data for row in data[split]]
        assert types.count("single-verify") == 295 and len(types) == 395
        assert data["train"].features == QUESTION_FEATURES
        folder = {"train": "train", "validation": "valid", "test": "test"}
        for split in data:
            files = sorted((test_data / f"ecg_qa/ecgqa/ptbxl/{version}" / folder[split]).glob("*.json"))
            items = [item for path in files for item in json.loads(path.read_text())]
            assert [{**item, "ecg_path": None} for item in items] == data[split].to_list()

    def test_streaming_gives_the_same_rows(self, test_data):
        options = {"data_dir": test_data / "ecg_qa/ecgqa", "split": "test"}
        streamed = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", streaming=True, **options)
        assert list(streamed) == ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", **options).to_list()

    def test_own_splits_share_no_ecg_and_no_patient(self, test_data):
        data = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=test_data / "ecg_qa/ecgqa")
        names = ("ptbxl_database.csv", "ptbxl_database_extra_rows.csv")
        patients = read_patients([test_data / "ptbxl" / name for name in names])
        rows = {split: data[split].to_list() for split in data}
        ecg_ids = [row["ecg_id"] for row in rows["train"]]
        sides = hold_out_patients(ecg_ids, patients, fraction=0.25, seed=0)
        numbered = list(zip(rows["train"], sides, strict=True))
        divided = [[row for row, side in numbered if side == name] for name in ("kept", "held_out", "straddling")]
        rows["train"], rows[HELD_OUT_SPLIT], straddling = divided
        assert len(rows["train"]) + len(rows[HELD_OUT_SPLIT]) + len(straddling) == 335
        assert len(rows[HELD_OUT_SPLIT]) > 40 and straddling
        report = overlap_report({name: [row["ecg_id"] for row in rows[name]] for name in rows}, patients)
        assert len(report) == 6 + 1
        for pair, shared in report.items():
            if pair != "unknown_patients":
                assert shared == {"ecgs": [], "patients": []}, pair

    def test_mapped_files_with_a_path_as_text(self, test_data):
        path = test_data / "ecg_qa/from_heartllm/ptbxl/template_test_background.json"
        rows = read_question_file(path)
        assert len(rows) == 106
        assert rows[0]["ecg_path"] == ["records500/10000/10127_hr"] == [ptb_xl_path(rows[0]["ecg_id"][0])]
        assert all(row["ecg_path"] == [ptb_xl_path(row["ecg_id"][0])] for row in rows)
        assert set(rows[0]) == set(QUESTION_FEATURES)

    def test_mimic_schema_and_comparisons(self, test_data):
        path = next((test_data / "ecg_qa/schema_only_no_signals").rglob("*.json"))
        rows = read_question_file(path)
        assert len(rows) == 25 and {row["question_type"] for row in rows} == {"comparison_irrelevant-query"}
        assert rows[0]["ecg_id"] == [43402541, 41006988] and rows[0]["answer"] == ["none"]

    def test_question_types_of_the_paper(self, test_data):
        options = {"data_dir": test_data / "ecg_qa/ecgqa", "question_types": "paper"}
        data = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", **options)
        # The other 100, and with them all of validation and test, compare two ECGs.
        assert {split: len(rows) for split, rows in data.items()} == {"train": 295}
        assert set(data["train"]["question_type"]) == {"single-verify"}
        options["question_types"] = ["comparison_irrelevant-query"]
        data = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", **options)
        assert sum(len(rows) for rows in data.values()) == 100
        assert {len(row["ecg_id"]) for rows in data.values() for row in rows} == {2}

    def test_lists_of_ecgs(self, test_data):
        folder = test_data / "ecg_qa/ecgqa/ptbxl"
        ecgs = {name: read_ecg_ids(folder / f"{name}_ecgs.tsv") for name in ("train", "valid", "test")}
        assert {name: len(ids) for name, ids in ecgs.items()} == {"train": 11566, "valid": 1274, "test": 3214}
        assert not ecgs["train"] & ecgs["test"] and {1, 4, 9} < ecgs["test"]

    def test_there_is_one_reader_of_template_options(self, test_data):
        assert scoring.read_template_options is read_template_options
        assert len(read_template_options(test_data / "ecg_qa/ecgqa/ptbxl/answers_for_each_template.csv")) == 70


class TestFiles:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [(None, None), ("records500/00000/00005_hr", ["records500/00000/00005_hr"]), (["a"], ["a"])],
    )
    def test_path_as_text_or_list(self, tmp_path, given, expected):
        rows = read_question_file(write(tmp_path, [{**ITEM, "ecg_path": given}]))
        assert rows == [{**ITEM, "ecg_path": expected}]

    def test_further_keys_are_dropped_and_a_missing_attribute_is_none(self, tmp_path):
        item = {key: value for key, value in ITEM.items() if key != "attribute"}
        rows = read_question_file(write(tmp_path, [{**item, "background": "Patient Information: ..."}]))
        assert rows == [{**item, "attribute": None, "ecg_path": None}]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[{", "not a JSON file"),
            ("\udc80".encode("utf-8", "surrogateescape").decode("latin-1"), "not a JSON file"),
            ("[" * 100_000, "not a JSON file"),
            ({"a": 1}, "expected a list of questions, got dict"),
            ([ITEM, "text"], "item 1 is 'text'"),
            ([{"question": "?"}], "item 0 lacks template_id, question_id"),
            ([{**ITEM, "sample_id": "3"}], "sample_id is '3', expected an integer"),
            ([{**ITEM, "template_id": True}], "template_id is True"),
            ([{**ITEM, "question": None}], "question is None, expected text"),
            ([{**ITEM, "answer": "yes"}], "answer is 'yes', expected a list of texts"),
            ([{**ITEM, "answer": []}], "the empty answer is written"),
            ([{**ITEM, "ecg_id": 5}], "ecg_id is 5, expected a list"),
            ([{**ITEM, "ecg_id": ["5"]}], "ecg_id is"),
            ([{**ITEM, "ecg_id": []}], "no ECG"),
            ([{**ITEM, "ecg_id": [5, 6], "ecg_path": "a"}], "2 ECGs and 1 paths"),
            (
                [{**ITEM, "question_type": "single"}],
                "question_type is 'single'; ECG-QA's are single-verify, single-ch",
            ),
        ],
    )
    def test_malformed_files_are_typed_errors_that_name_the_file(self, tmp_path, content, message):
        path = write(tmp_path, content)
        with pytest.raises(EcgDataError, match=message) as caught:
            read_question_file(path)
        assert str(path) in str(caught.value)

    def test_not_utf8(self, tmp_path):
        path = write(tmp_path, "")
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(EcgDataError, match="not a JSON file"):
            read_question_file(path)
        with pytest.raises(EcgDataError, match="cannot read"):
            read_question_file(tmp_path / "absent.json")

    @pytest.mark.parametrize("num_proc", [None, 2])
    def test_an_error_in_one_of_several_processes(self, tmp_path, num_proc):
        for number in range(4):
            items = [{**ITEM, "answer": "yes"} if number == 2 else ITEM]
            path = tmp_path / "ptbxl/template/train" / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(items))
        with pytest.raises(EcgDataError, match=r"2.json: item 0: answer is 'yes'"):
            ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path, num_proc=num_proc)

    @pytest.mark.parametrize("num_proc", [None, 2])
    def test_the_builder_raises_our_error_and_not_that_of_datasets(self, tmp_path, num_proc):
        write(tmp_path, [{**ITEM, "answer": "yes"}])
        with pytest.raises(EcgDataError, match="answer is 'yes'"):
            ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path, num_proc=num_proc)

    def test_a_folder_without_questions(self, tmp_path):
        with pytest.raises(EcgDataError, match="is data_dir right"):
            ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path)
        with pytest.raises(EcgDataError, match="needs data_dir"):
            ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template")
        for config in (None, "ptbxl", "ptb-template"):
            with pytest.raises(EcgDataError, match="ptbxl-template, ptbxl-paraphrased, mimic-iv-ecg-template"):
                ecgbyte_hf.load_dataset("ecg_qa", config, data_dir=tmp_path)


class TestQuestionTypes:
    def test_each_is_kept_when_named(self, tmp_path):
        write(tmp_path, [{**ITEM, "sample_id": i, "question_type": kind} for i, kind in enumerate(QUESTION_TYPES)])
        for kinds, kept in (
            (None, range(7)),
            ("paper", range(3)),
            (PAPER_QUESTION_TYPES, range(3)),
            ("comparison_consecutive-query", [4]),
            (["single-query", "comparison_irrelevant-verify"], [2, 5]),
        ):
            options = {"data_dir": tmp_path, "question_types": kinds}
            rows = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", split="train", **options)
            assert rows["sample_id"][:] == list(kept)
            streamed = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", split="train", streaming=True, **options)
            assert [row["sample_id"] for row in streamed] == list(kept)

    def test_processes_that_keep_nothing(self, tmp_path):
        for number in range(4):
            kind = "single-query" if number == 3 else "single-verify"
            path = tmp_path / "ptbxl/template/train" / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps([{**ITEM, "question_type": kind, "sample_id": number}]))
        options = {"data_dir": tmp_path, "question_types": "single-query", "num_proc": 2, "split": "train"}
        assert ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", **options)["sample_id"][:] == [3]

    @pytest.mark.parametrize("kinds", [["single-verify", "double"], "double", []])
    def test_unknown_types_name_the_known(self, tmp_path, kinds):
        write(tmp_path, [ITEM])
        with pytest.raises(EcgDataError, match="known: single-verify, .*comparison_irrelevant-query, or 'paper'"):
            ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path, question_types=kinds)

    def test_no_question_of_a_type(self, tmp_path):
        write(tmp_path, [ITEM])
        with pytest.raises(EcgDataError, match="no rows for these options"):
            ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path, question_types="single-query")


class TestCache:
    def test_a_changed_file_is_read_anew(self, tmp_path):
        write(tmp_path, [ITEM])
        assert len(ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path, split="train")) == 1
        write(tmp_path, [ITEM, {**ITEM, "sample_id": 4}])
        rows = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path, split="train")
        assert rows["sample_id"] == [3, 4]

    def test_an_added_file_is_read(self, tmp_path):
        write(tmp_path, [ITEM])
        ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path)
        write(tmp_path, [{**ITEM, "sample_id": 9}], split="valid")
        data = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path)
        assert data["validation"]["sample_id"] == [9]


class TestPrepare:
    def test_both_wordings_are_pooled_within_their_splits(self, test_data, tmp_path):
        ecgqa, signals = tmp_path / "ecgqa", tmp_path / "signals"
        options = test_data / "ecg_qa/ecgqa/ptbxl/answers_for_each_template.csv"
        write(ecgqa, [ITEM])
        write(ecgqa, [{**ITEM, "ecg_id": [6], "sample_id": 8}], split="test")
        write(ecgqa, [{**ITEM, "question": "Any noise?"}], version="paraphrased")
        shutil.copy(options, ecgqa / "ptbxl")
        (signals / "records500/00000").mkdir(parents=True)
        for name in ("00005_hr", "00006_hr"):
            for ending in (".hea", ".dat"):
                shutil.copy(test_data / f"ptbxl/records500/00000/{name}{ending}", signals / "records500/00000")
        (signals / "ptbxl_database.csv").write_text("ecg_id,patient_id\n5,13243.0\n6,\n")
        prepared = prepare_ecg_qa(
            tmp_path / "prepared",
            data_dir=ecgqa,
            signals_dir=signals,
            feature_extractor=EcgByteFeatureExtractor(),
            config=["ptbxl-template", "ptbxl-paraphrased"],
        )
        assert [row["question"] for row in prepared.questions("train")] == ["Is there noise?", "Any noise?"]
        assert [row["ecg_id"] for row in prepared.questions("test")] == [[6]]
        assert prepared.patients == {5: "13243", 6: None}
        assert prepared.report["source"] == "ecg_qa ptbxl-template ptbxl-paraphrased"
        assert prepared.report["overlap"]["unknown_patients"] == {"train": 0, "test": 1}
        assert prepared.signal(5).shape == (12, 2500)

    def test_no_record_and_no_metadata(self, test_data, tmp_path):
        write(tmp_path, [ITEM])
        shutil.copy(test_data / "ecg_qa/ecgqa/ptbxl/answers_for_each_template.csv", tmp_path / "ptbxl")
        settings = {"data_dir": tmp_path, "signals_dir": tmp_path, "feature_extractor": EcgByteFeatureExtractor()}
        with pytest.raises(EcgDataError, match="no split can be checked. Name the table with --metadata"):
            prepare_ecg_qa(tmp_path / "out", **settings)
        (tmp_path / "ptbxl_database.csv").write_text("ecg_id,patient_id\n5,1\n")
        with pytest.raises(EcgDataError, match="none of the 1 records asked about"):
            prepare_ecg_qa(tmp_path / "out", **settings)
        with pytest.raises(EcgDataError, match="one half of ECG-QA"):
            prepare_ecg_qa(tmp_path / "out", config=["ptbxl-template", "mimic-iv-ecg-template"], **settings)
        assert not (tmp_path / "out").exists()


def test_ptb_xl_path():
    assert ptb_xl_path(1) == "records500/00000/00001_hr"
    assert ptb_xl_path(21837) == "records500/21000/21837_hr"


def test_mapped_path(test_data):
    paths = read_record_paths(test_data / "mimic_iv_ecg/record_list.csv")
    assert mapped_path("ptbxl", 12662) == ptb_xl_path(12662)
    assert mapped_path("mimic-iv-ecg", 44326091, paths) == "files/p1000/p10001884/s44326091/44326091"
    with pytest.raises(EcgDataError, match="study 7 is not in MIMIC-IV-ECG's record list"):
        mapped_path("mimic-iv-ecg", 7, paths)
    with pytest.raises(EcgDataError, match="study 44326091 is not in"):
        mapped_path("mimic-iv-ecg", 44326091)
    with pytest.raises(EcgDataError, match="got the source 'mimic', expected one of ptbxl, mimic-iv-ecg"):
        mapped_path("mimic", 1)


def test_columns_of_text_for_the_viewer(tmp_path):
    write(tmp_path, [{**ITEM, "answer": ["i", "v2"], "ecg_id": [5, 6]}, ITEM])
    for streaming in (False, True):
        data = ecgbyte_hf.load_dataset("ecg_qa", "ptbxl-template", data_dir=tmp_path, streaming=streaming)
        rows = list(add_text_columns(data)["train"])
        assert [(row["answer_text"], row["ecg_id_text"]) for row in rows] == [("i, v2", "5, 6"), ("yes", "5")]
        assert [row["answer"] for row in rows] == [["i", "v2"], ["yes"]]
