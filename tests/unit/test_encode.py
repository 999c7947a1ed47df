"""Rows and ids as files: whole, of one run, and as `datasets` opens them."""

import json

import datasets
import pyarrow.parquet as pq
import pytest

from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.encode_ids import encode_records
from ecgbyte_hf.evaluation.scoring import question_options
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer
from ecgbyte_hf.training.extend_llm import load_prompter

TEXT_ROW = ("prompt", "completion", "sample_id", "ecg_id")


@pytest.fixture(scope="module")
def prompter(small_prepared, small_llm):
    return load_prompter(small_llm, small_prepared)


def opened(folder, tmp_path):
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


class TestRows:
    def test_text_rows_are_those_of_the_prompter(self, small_prepared, prompter, tmp_path):
        report = encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["train", "validation"])
        rows = opened(tmp_path / "rows", tmp_path)
        assert {split: len(rows[split]) for split in rows} == {"train": 540, "validation": 30}
        for split in rows:
            questions = small_prepared.questions(split)
            got = rows[split].to_list()
            assert [{name: row[name] for name in TEXT_ROW} for row in got] == [
                prompter.training_row(row) for row in questions
            ]
            assert [row["answer"] for row in got] == [row["answer"] for row in questions]
            options = small_prepared.template_options()
            assert [row["options"] for row in got] == [question_options(row, options) for row in questions]
        counts = report["splits"]["validation"]
        assert (counts["questions"], counts["rows"], counts["rows_with_ecg_cut"]) == (30, 30, 30)
        assert 0 < counts["least_seconds_of_ecg"] <= counts["median_seconds_of_ecg"] < 10
        assert counts["longest_row_tokens"] <= 384
        assert report == json.loads((tmp_path / "rows/encode.json").read_text())
        arguments = report["provenance"]["arguments"]
        assert arguments["prompt"]["max_length"] == 384 and arguments["seed"] == 0
        assert report["provenance"]["data_hash"]["train"] == small_prepared.report["data_hash"]["train"]

    def test_grouped_rows_hold_every_question_once(self, small_prepared, prompter, tmp_path):
        report = encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["validation"], questions_per_row=5)
        rows = opened(tmp_path / "rows", tmp_path)["validation"]
        ends = sum(row.count(prompter.lm_tokenizer.eos_token_id) for row in rows["labels"])
        assert ends == 30 == report["splits"]["validation"]["questions"]
        assert report["splits"]["validation"]["rows"] == len(rows)
        assert all(len(row["labels"]) == len(row["input_ids"]) <= 384 for row in rows)

    def test_rows_of_ecgs_alone(self, small_prepared, prompter, tmp_path):
        report = encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["train"], row_format="ecg")
        rows = opened(tmp_path / "rows", tmp_path)["train"].to_list()
        ecg_ids = small_prepared.train_ecg_ids()
        assert len(rows) == len(ecg_ids) == report["splits"]["train"]["rows"]
        question = next(row for row in small_prepared.questions("train") if row["ecg_id"] == [ecg_ids[0]])
        first, asked = rows[0]["input_ids"], list(prompter.divided_row(question).shared)
        # The same beginning as before a question, for which the ECG is cut a little earlier in each lead.
        start, end, known = prompter._lm_ecg_ids
        assert first[:5] == asked[:5] and asked[1] == start and first[-1] == end
        assert len(asked) <= len(first) <= prompter.prompt.max_length
        assert set(first[2:-1]) <= set(known.tolist())
        for row in rows:
            assert row["labels"] == [-100, -100, *row["input_ids"][2:]]

    def test_rows_of_ecgs_alone_have_no_questions(self, small_prepared, small_llm, prompter, tmp_path):
        for given in ({"questions_per_row": 3}, {"turns": "all"}):
            with pytest.raises(EcgDataError, match="hold no question"):
                encode_rows(small_prepared, tmp_path, prompter, splits=["train"], row_format="ecg", **given)
        blind = load_prompter(small_llm, small_prepared, view="question_only")
        with pytest.raises(EcgDataError, match="nothing to show"):
            encode_rows(small_prepared, tmp_path, blind, splits=["train"], row_format="ecg")

    def test_free_text_has_no_options(self, small_prepared, prompter, tmp_path, monkeypatch):
        monkeypatch.setattr(small_prepared, "template_options", dict)
        encode_rows(small_prepared, tmp_path, prompter, splits=["test"], question_types=["single-verify"])
        table = pq.read_table(tmp_path / "test.parquet")
        assert table.column("options").to_pylist() == [[]] * 10
        assert {tuple(answer) for answer in table.column("answer").to_pylist()} == {("yes",), ("no",)}

    def test_a_choice_of_nothing_is_trained_on_without_options(self, small_prepared, prompter, tmp_path, monkeypatch):
        row = next(row for row in small_prepared.questions("test") if row["question_type"] == "single-choose")
        asked = [row, {**row, "question": "Which of these?", "attribute": []}]
        monkeypatch.setattr(small_prepared, "questions", lambda split: asked)
        encode_rows(small_prepared, tmp_path, prompter, splits=["test"])
        named, unnamed = pq.read_table(tmp_path / "test.parquet").column("options").to_pylist()
        assert len(named) >= 2 and unnamed == []

    def test_question_types(self, small_prepared, prompter, tmp_path):
        report = encode_rows(
            small_prepared, tmp_path, prompter, splits=["test"], question_types=["single-verify", "single-query"]
        )
        assert report["splits"]["test"]["questions"] == 20
        completions = set(pq.read_table(tmp_path / "test.parquet").column("completion").to_pylist())
        assert {" yes", " no"} < completions
        with pytest.raises(EcgDataError, match="no questions to encode in split 'test'"):
            encode_rows(small_prepared, tmp_path, prompter, splits=["test"], question_types=["single"])


class TestFolder:
    def test_an_earlier_run_leaves_nothing_behind(self, small_prepared, prompter, tmp_path):
        encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["validation", "test"])
        encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["test"], questions_per_row=3)
        assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["encode.json", "test.parquet"]
        assert list(opened(tmp_path / "rows", tmp_path)) == ["test"]

    def test_a_broken_run_leaves_no_rows_that_a_trainer_would_take(
        self, small_prepared, prompter, tmp_path, monkeypatch
    ):
        def broken(row):
            if row["ecg_id"] == [20]:
                raise KeyboardInterrupt
            return real(row)

        real = prompter.training_row
        monkeypatch.setattr(prompter, "training_row", broken)
        with pytest.raises(KeyboardInterrupt):
            encode_rows(small_prepared, tmp_path, prompter, splits=["train", "test"])
        assert not list(tmp_path.glob("*.parquet")) and not (tmp_path / "encode.json").exists()

    def test_rows_of_something_else_are_not_mixed_in_nor_deleted(self, small_prepared, prompter, tmp_path):
        (tmp_path / "mine.parquet").write_bytes(b"mine")
        with pytest.raises(EcgDataError, match="mine.parquet, which `ecgbyte encode` did not write"):
            encode_rows(small_prepared, tmp_path, prompter, splits=["test"])
        assert (tmp_path / "mine.parquet").read_bytes() == b"mine"

    def test_ids_are_not_replaced_by_rows(self, small_prepared, small_ecg_byte, prompter, tmp_path):
        encode_records(small_prepared, EcgByteTokenizer.from_pretrained(small_ecg_byte), tmp_path)
        with pytest.raises(EcgDataError, match="holds the ids of records; choose another folder for rows"):
            encode_rows(small_prepared, tmp_path, prompter, splits=["test"])
        assert (tmp_path / "ids-00000.parquet").exists()
