"""Shared-prefix rows: every question as in its separate row, behind an ECG that is written once."""

from dataclasses import replace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from ecgbyte_hf import cli
from ecgbyte_hf.data.chat import BudgetReport, EcgPrompter
from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.shared_rows import SHARED_COLUMNS, shared_rows
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, VocabularyError
from ecgbyte_hf.training.extend_llm import load_prompter


@pytest.fixture(scope="module")
def prompter(small_prepared, small_llm):
    return load_prompter(small_llm, small_prepared)


@pytest.fixture(scope="module")
def questions(small_prepared):
    return small_prepared.questions("validation")


def made(prompter, questions, *, seed=0, **options):
    prompter.report = BudgetReport()
    return list(shared_rows(prompter, questions, np.random.default_rng(seed), **options))


def separate_ids(prompter, row):
    """The ids of `training_row` and where they carry loss, as TRL makes them of its text."""
    texts = prompter.training_row(row)
    tokenizer = prompter.lm_tokenizer
    ids = tokenizer(texts["prompt"] + texts["completion"] + tokenizer.eos_token)["input_ids"]
    prompt = tokenizer(texts["prompt"])["input_ids"]
    assert ids[: len(prompt)] == prompt
    return tuple(ids), len(prompt)


def unfolded(row):
    """The separate rows that a shared one stands for: ids, first id with loss, positions."""
    columns = [np.array(row[name]) for name in SHARED_COLUMNS]
    assert len({len(column) for column in columns}) == 1
    segments = columns[-1]
    assert (np.diff(segments) >= 0).all() and set(segments) >= set(range(1, segments.max() + 1))
    for segment in range(1, segments.max() + 1):
        ids, labels, positions, _ = (column[(segments == 0) | (segments == segment)] for column in columns)
        first = int((labels != -100).argmax())
        assert (labels[:first] == -100).all() and (labels[first:] == ids[first:]).all()
        assert (positions == np.arange(len(ids))).all()
        yield tuple(ids.tolist()), first


def every_question_once(prompter, rows, questions):
    got = sorted(one for row in rows for one in unfolded(row))
    return got == sorted(separate_ids(prompter, question) for question in questions)


class TestRows:
    @pytest.mark.parametrize("options", [{}, {"questions_per_row": 4}, {"max_row_tokens": 450}], ids=str)
    def test_each_question_is_its_separate_row(self, prompter, questions, options):
        rows = made(prompter, questions, **options)
        assert every_question_once(prompter, rows, questions)

    def test_an_ecg_is_written_once_for_all_questions_that_see_the_same_of_it(self, prompter, questions):
        rows = made(prompter, questions)
        prefixes = [tuple(np.array(row["token_ids"])[np.array(row["segment_ids"]) == 0]) for row in rows]
        assert len(set(prefixes)) == len(prefixes)
        end = prompter.lm_tokenizer.convert_tokens_to_ids("<|ecg_end|>")
        assert all(prefix[-1] == end and prefix.count(end) == 1 for prefix in prefixes)

    def test_tokens_saved(self, prompter, questions):
        """Of prompts with 384 tokens; 1,024 save more (scripts/benchmark/training.py)."""
        tokens = sum(len(row["token_ids"]) for row in made(prompter, questions))
        assert tokens * 3 < sum(len(separate_ids(prompter, row)[0]) for row in questions)

    def test_bounds(self, prompter, questions):
        for row in made(prompter, questions, questions_per_row=4, max_row_tokens=450):
            assert max(row["segment_ids"]) <= 4 and len(row["token_ids"]) <= 450
        assert max(max(row["segment_ids"]) for row in made(prompter, questions, questions_per_row=4)) == 4
        lengths = [len(row["token_ids"]) for row in made(prompter, questions, max_row_tokens=450)]
        assert max(lengths) > 400

    def test_the_seed_orders_the_questions(self, prompter, questions):
        assert made(prompter, questions) == made(prompter, questions)
        assert made(prompter, questions) != made(prompter, questions, seed=1)

    def test_two_ecgs_are_shared_together(self, prompter, questions):
        about_two = [{**row, "ecg_id": [*row["ecg_id"], 5]} for row in questions[:3]]
        rows = made(prompter, about_two)
        assert every_question_once(prompter, rows, about_two)
        end = prompter.lm_tokenizer.convert_tokens_to_ids("<|ecg_end|>")
        first = rows[0]
        assert [s for t, s in zip(first["token_ids"], first["segment_ids"], strict=True) if t == end] == [0, 0]

    def test_a_question_that_names_the_end_of_an_ecg(self, prompter, questions):
        asked = [{**row, "question": f"What does <|ecg_end|> mean? {row['question']}"} for row in questions[:3]]
        assert every_question_once(prompter, made(prompter, asked), asked)

    def test_without_an_ecg_only_the_beginning_is_shared(self, small_prepared, small_llm, questions):
        blind = load_prompter(small_llm, small_prepared, view="question_only")
        rows = made(blind, questions)
        assert every_question_once(blind, rows, questions)
        assert all(row["segment_ids"].count(0) == 1 for row in rows) and len(rows) == 2

    def test_report_counts_rows(self, prompter, questions):
        rows = made(prompter, questions)
        report = prompter.report.to_dict()
        assert report["rows"] == report["rows_with_ecg_cut"] == len(rows)
        assert report["longest_row_tokens"] == max(len(row["token_ids"]) for row in rows)


class TestRefusals:
    def changed(self, prompter, small_prepared, **changes):
        prompt = replace(prompter.prompt, **changes)
        return EcgPrompter(prompter.ecg_tokenizer, prompter.lm_tokenizer, prompt, small_prepared.signal)

    def test_rows_shorter_than_one_question_may_be(self, prompter, questions):
        with pytest.raises(BudgetError, match="at most 383 tokens, and one question alone may have 384"):
            made(prompter, questions, max_row_tokens=383)

    def test_no_questions_in_a_row(self, prompter, questions):
        with pytest.raises(EcgDataError, match="got 0 questions per row"):
            made(prompter, questions, questions_per_row=0)

    def test_a_long_answer_names_its_row(self, prompter, questions):
        row = {**questions[0], "answer": ["x " * 40]}
        with pytest.raises(BudgetError, match=f"sample {row['sample_id']}: an answer of"):
            made(prompter, [row])

    def test_a_question_before_its_ecg(self, prompter, questions, small_prepared):
        turned = self.changed(prompter, small_prepared, template="{question}\n{ecg}\nAnswer:")
        with pytest.raises(EcgDataError, match="only where it comes before the question"):
            made(turned, questions)

    def test_an_answer_right_behind_the_ecg(self, prompter, questions, small_prepared):
        bare = self.changed(prompter, small_prepared, template="{ecg}{question}")
        with pytest.raises(EcgDataError, match="no text stands between"):
            made(bare, [{**questions[0], "question": " "}])

    def test_a_tokenizer_that_joins_prompt_and_answer(self, prompter, questions, small_prepared):
        joining = self.changed(prompter, small_prepared, template="{ecg}\n{question} Ans", completion="wer: {answer}")
        with pytest.raises(VocabularyError, match=r"sample \d+: .* change template or completion"):
            made(joining, questions)


class TestEncode:
    def test_files_open_as_rows(self, small_prepared, prompter, questions, tmp_path):
        report = encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["validation"], row_format="shared")
        rows = datasets.load_dataset(str(tmp_path / "rows"), cache_dir=str(tmp_path / "cache"))["validation"]
        assert rows.to_list() == made(prompter, questions)
        assert {str(rows.features[name]) for name in SHARED_COLUMNS} == {"List(Value('int32'))"}
        counts = report["splits"]["validation"]
        assert (counts["questions"], counts["rows"]) == (30, len(rows))
        arguments = report["provenance"]["arguments"]
        assert (arguments["row_format"], arguments["max_row_tokens"]) == ("shared", 4096)

    def test_by_the_command(self, small_prepared, small_llm, prompter, questions, tmp_path, capsys):
        options = ["--row-format", "shared", "--questions-per-row", "4", "--max-row-tokens", "500"]
        data = ["--data", str(small_prepared.folder), "--model", str(small_llm), "--splits", "validation"]
        assert cli.main(["encode", *data, "--output", str(tmp_path), *options]) == 0
        rows = pq.read_table(tmp_path / "validation.parquet").to_pylist()
        assert rows == made(prompter, questions, questions_per_row=4, max_row_tokens=500)
        assert f"30 questions in {len(rows)} rows" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"row_format": "text", "questions_per_row": 2}, "got 2 questions per row of text, expected 1"),
            ({"row_format": "grouped"}, "got None questions per grouped row, expected at least 2"),
            ({"row_format": "grouped", "questions_per_row": 1}, "got 1 questions per grouped row"),
            ({"row_format": "packed"}, "unknown row format 'packed'; known: text, grouped, messages, shared"),
        ],
        ids=str,
    )
    def test_formats_that_are_none(self, options, message, small_prepared, prompter, tmp_path):
        with pytest.raises(EcgDataError, match=message):
            encode_rows(small_prepared, tmp_path, prompter, splits=["test"], **options)
        assert not list(tmp_path.iterdir())
