"""Which ids carry loss, where the ECG is cut, and what the controls show."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from sft_options import sft_config

from ecgbyte_hf.data import chat
from ecgbyte_hf.data.chat import BudgetReport, EcgPrompter, RenderedPrompt, group_by_ecg
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.evaluation.controls import shuffled_ecg_ids
from ecgbyte_hf.evaluation.generate import EcgLanguageModel
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, VocabularyError
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor, encode_within_budget
from ecgbyte_hf.training.extend_llm import load_prompter


@pytest.fixture(scope="module")
def parts(small_prepared, small_llm):
    """ECG tokenizer, language model's tokenizer and prompt."""
    from transformers import AutoTokenizer

    processor = EcgByteProcessor.from_pretrained(small_llm / "ecg_byte")
    return processor.tokenizer, AutoTokenizer.from_pretrained(small_llm), EcgPrompt.load(small_llm / "ecg_byte")


@pytest.fixture
def prompter(small_prepared, parts):
    """Prompts of 384 tokens, so that an ECG of about 650 tokens is cut."""
    return EcgPrompter(*parts, small_prepared.signal)


@pytest.fixture
def roomy(small_prepared, parts):
    """Prompts of 2,048 tokens, so that no ECG is cut."""
    ecg_tokenizer, lm_tokenizer, prompt = parts
    return EcgPrompter(ecg_tokenizer, lm_tokenizer, replace(prompt, max_length=2048), small_prepared.signal)


@pytest.fixture(scope="module")
def questions(small_prepared):
    return small_prepared.questions("train")


def answers_in(tokenizer, labels):
    """The texts of the labelled runs, split after each end of sequence."""
    labelled = [label for label in labels if label != -100]
    parts, current = [], []
    for label in labelled:
        current.append(label)
        if label == tokenizer.eos_token_id:
            parts.append(tokenizer.decode(current))
            current = []
    assert not current, "loss goes on after the last end of sequence"
    return parts


def as_trl_sees_them(small_llm, rows, tmp_path, **settings):
    """The rows after the unmodified SFTTrainer has prepared them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTTrainer

    config = sft_config(tmp_path, **{"max_length": 384, **settings})
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(small_llm),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(small_llm),
    )
    return trainer


class TestTextRows:
    def test_trl_puts_loss_on_the_answer_and_its_end_alone(self, prompter, questions, small_llm, tmp_path):
        chosen = questions[:60]
        rows = [prompter.training_row(row) for row in chosen]
        trainer = as_trl_sees_them(small_llm, rows, tmp_path)
        tokenizer = prompter.lm_tokenizer
        assert len(trainer.train_dataset) == 60
        for question, row, seen in zip(chosen, rows, trainer.train_dataset, strict=True):
            prompt_ids = tokenizer(row["prompt"])["input_ids"]
            answer_ids = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
            assert seen["input_ids"] == [*prompt_ids, *answer_ids, tokenizer.eos_token_id]
            assert seen["labels"] == [*[-100] * len(prompt_ids), *answer_ids, tokenizer.eos_token_id]
            assert answers_in(tokenizer, seen["labels"]) == [f" {question['answer'][0]}{tokenizer.eos_token}"]
            assert seen["input_ids"][0] == tokenizer.bos_token_id and len(seen["input_ids"]) <= 384

    def test_and_when_it_packs_them(self, prompter, questions, small_llm, tmp_path):
        chosen = questions[:30]
        rows = [prompter.training_row(row) for row in chosen]
        packed = as_trl_sees_them(small_llm, rows, tmp_path, packing=True, max_length=1200).train_dataset
        tokenizer = prompter.lm_tokenizer
        assert len(packed) < 30
        got = Counter(answer for row in packed for answer in answers_in(tokenizer, row["labels"]))
        assert got == Counter(f" {row['answer'][0]}{tokenizer.eos_token}" for row in chosen)
        lengths = sorted(length for row in packed for length in row["seq_lengths"])
        assert lengths == sorted(
            len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1 for row in rows
        )  # none was cut

    def test_the_loss_of_a_step_is_that_of_the_answers(self, prompter, questions, small_llm, tmp_path):
        import torch

        rows = [prompter.training_row(row) for row in questions[:2]]
        trainer = as_trl_sees_them(
            small_llm, rows, tmp_path, max_steps=1, per_device_train_batch_size=2, logging_steps=1
        )
        model, tokenizer = trainer.model, prompter.lm_tokenizer
        expected = []
        for row in rows:
            prompt_ids = tokenizer(row["prompt"])["input_ids"]
            answer_ids = [*tokenizer(row["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt_ids, *answer_ids]])).logits[0].float()
            predicted = logits[len(prompt_ids) - 1 : -1].log_softmax(-1)
            expected += [-predicted[place, token].item() for place, token in enumerate(answer_ids)]
        trainer.train()
        logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
        assert logged == pytest.approx(np.mean(expected), rel=1e-3)

    def test_no_row_is_longer_than_max_length_and_no_answer_is_cut(self, prompter, small_prepared):
        for split in small_prepared.splits:
            for question in small_prepared.questions(split):
                row = prompter.training_row(question)
                assert row["completion"] == f" {question['answer'][0]}"
                assert question["question"] in row["prompt"]
                length = len(prompter.lm_tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1
                assert 384 - 32 - 16 < length <= 384  # the step of the text and the reserve stay free at most
        assert prompter.report.rows == 600 and prompter.report.rows_cut == 600
        assert prompter.report.longest_row <= 384

    def test_prompts_are_the_same_in_training_and_generation(self, prompter, questions, small_prepared, small_llm):
        model = EcgLanguageModel.load(small_llm)
        asked = EcgPrompter(model.processor.tokenizer, model.lm_tokenizer, model.prompt, small_prepared.signal)
        for row in questions[:40]:
            prompt = asked.prompt_for(row)
            assert prompt.text == prompter.training_row(row)["prompt"]
            assert prompt.num_tokens == len(model.lm_tokenizer(prompt.text)["input_ids"])
            assert prompt.was_cut and 0.0 < prompt.seconds < 10.0

    def test_row_keeps_its_numbers(self, prompter, questions):
        row = prompter.training_row(questions[3])
        assert (row["sample_id"], row["ecg_id"]) == (questions[3]["sample_id"], questions[3]["ecg_id"])

    def test_a_tokenizer_that_joins_prompt_and_answer_is_refused(self, small_prepared, parts, questions):
        ecg_tokenizer, lm_tokenizer, prompt = parts
        joining = replace(prompt, template="{ecg}\n{question} Ans", completion="wer: {answer}")
        made = EcgPrompter(ecg_tokenizer, lm_tokenizer, joining, small_prepared.signal)
        with pytest.raises(
            VocabularyError, match=f"sample {questions[1]['sample_id']}.* change template or completion"
        ):
            made.training_row(questions[1])


class TestGroupedRows:
    def test_labels_are_exactly_the_answers(self, roomy, questions):
        tokenizer = roomy.lm_tokenizer
        for group in group_by_ecg(questions[:120], 5, np.random.default_rng(0)):
            (row,) = roomy.grouped_rows(group)
            assert len(row["input_ids"]) == len(row["labels"])
            assert answers_in(tokenizer, row["labels"]) == [
                f" {one['answer'][0]}{tokenizer.eos_token}" for one in group
            ]
            for token, label in zip(row["input_ids"], row["labels"], strict=True):
                assert label in (-100, token)
            text = tokenizer.decode(row["input_ids"])
            places = [text.index(f"Question: {one['question']}\nAnswer: {one['answer'][0]}<") for one in group]
            assert places == sorted(places)
            assert text.count("<|ecg_start|>") == 1 and row["input_ids"].count(tokenizer.bos_token_id) == 1

    def test_trl_leaves_them_as_they_are(self, roomy, questions, small_llm, tmp_path):
        groups = list(group_by_ecg(questions[:60], 5, np.random.default_rng(0)))
        rows = [row for group in groups for row in roomy.grouped_rows(group)]
        for settings in ({}, {"completion_only_loss": True}):
            seen = as_trl_sees_them(small_llm, rows, tmp_path, max_length=2048, **settings).train_dataset
            assert [row["labels"] for row in seen] == [row["labels"] for row in rows]
            assert [row["input_ids"] for row in seen] == [row["input_ids"] for row in rows]

    def test_the_first_question_is_the_text_row(self, prompter, roomy, questions):
        for made in (prompter, roomy):
            for row in questions[:30]:
                text = made.training_row(row)
                ids = made.lm_tokenizer(text["prompt"] + text["completion"])["input_ids"] + [
                    made.lm_tokenizer.eos_token_id
                ]
                (alone,) = made.grouped_rows([row])
                assert alone["input_ids"] == ids
                together = next(made.grouped_rows([row, questions[-1] | {"ecg_id": row["ecg_id"]}]))
                assert together["input_ids"][: len(ids)] == ids

    def test_more_questions_never_cut_the_ecg_further(self, prompter, questions):
        """Questions without room begin a row of their own, with the ECG as generation shows it."""
        tokenizer = prompter.lm_tokenizer
        answered = []
        for group in group_by_ecg(questions[:45], 5, np.random.default_rng(1)):
            rows = list(prompter.grouped_rows(group))
            assert len(rows) > 1
            for row in rows:
                answered += answers_in(tokenizer, row["labels"])
                assert len(row["input_ids"]) <= 384
            shown = tokenizer.decode(rows[0]["input_ids"])
            assert shown.startswith(tokenizer.decode(tokenizer(prompter.prompt_for(group[0]).text)["input_ids"]))
        assert len(answered) == 45

    def test_a_reserve_gives_them_room(self, small_prepared, parts, questions):
        ecg_tokenizer, lm_tokenizer, prompt = parts
        made = EcgPrompter(ecg_tokenizer, lm_tokenizer, replace(prompt, reserve=150), small_prepared.signal)
        groups = list(group_by_ecg(questions[:45], 3, np.random.default_rng(1)))
        rows = [row for group in groups for row in made.grouped_rows(group)]
        assert len(rows) < 0.6 * 45
        for group in groups:
            whole = lm_tokenizer.decode(next(made.grouped_rows(group))["input_ids"])
            for row in group[: whole.count("Question:")]:  # each sees what it will see when asked alone
                ecg = made.prompt_for(row).text.split("\n")[0]
                assert whole.startswith(lm_tokenizer.bos_token + ecg)

    def test_questions_of_another_length_step_see_another_cut_and_are_not_joined(
        self, small_prepared, parts, questions
    ):
        ecg_tokenizer, lm_tokenizer, prompt = parts
        made = EcgPrompter(ecg_tokenizer, lm_tokenizer, replace(prompt, reserve=200), small_prepared.signal)
        long = {**questions[1], "question": questions[1]["question"] + " Look closely." * 8}
        assert len(list(made.grouped_rows([questions[0], questions[1]]))) == 1
        assert len(list(made.grouped_rows([questions[0], long]))) == 2


class TestTwoEcgs:
    def test_share_equally(self, prompter, small_prepared, questions):
        row = {**questions[0], "ecg_id": [1, 2]}
        text = prompter.prompt_for(row).text
        first, second = text.split("<|ecg_end|>")[:2]
        budget = prompter.prompt.ecg_budget(
            prompter.prompt.text_tokens(prompter.lm_tokenizer, row["question"], ecg_token="<|ecg_start|>")
        )
        for ecg_id, block in ((1, first), (2, second)):
            (ids,), _ = encode_within_budget(prompter.ecg_tokenizer, [small_prepared.signal(ecg_id)], budget // 2)
            assert block + "<|ecg_end|>" == prompter.ecg_tokenizer.ecg_text(ids)
            assert 0.8 * budget / 2 < len(ids) + 2 <= budget / 2

    def test_the_order_is_that_of_the_question(self, roomy, questions):
        there = roomy.prompt_for({**questions[0], "ecg_id": [1, 2]}).text
        back = roomy.prompt_for({**questions[0], "ecg_id": [2, 1]}).text
        other = roomy.prompt_for({**questions[0], "ecg_id": [1, 3]}).text
        assert other.split("<|ecg_end|>")[0] == there.split("<|ecg_end|>")[0] and other != there
        first, second, rest = there.split("<|ecg_end|>")
        assert back == f"{second}<|ecg_end|>{first}<|ecg_end|>{rest}"


class TestTooLong:
    def test_errors_name_the_sample(self, prompter, questions):
        row = questions[0] | {"sample_id": 4711}
        with pytest.raises(BudgetError, match="sample 4711: an answer of .* raise reserve"):
            prompter.training_row({**row, "answer": ["word " * 60]})
        with pytest.raises(BudgetError, match="sample 4711: question of .* raise max_length"):
            prompter.prompt_for({**row, "question": "word " * 800})
        with pytest.raises(BudgetError, match="sample 4711: question of"):
            list(prompter.grouped_rows([row | {"question": "word " * 800}]))

    def test_an_ecg_of_which_not_one_sample_fits(self, small_prepared, parts, questions):
        ecg_tokenizer, lm_tokenizer, prompt = parts
        none = EcgPrompter(ecg_tokenizer, lm_tokenizer, replace(prompt, max_length=48), small_prepared.signal)
        with pytest.raises(BudgetError, match=r"sample 100 \(ECG \[1\]\): text of .* leave no room"):
            none.prompt_for(questions[0])
        tight = EcgPrompter(ecg_tokenizer, lm_tokenizer, replace(prompt, max_length=51), small_prepared.signal)
        with pytest.raises(BudgetError, match="sample 100 .*does not hold one sample of 2 leads"):
            tight.prompt_for(questions[0])


class TestViews:
    def view(self, small_prepared, parts, name, **options):
        return EcgPrompter(*parts, small_prepared.signal, view=name, **options)

    def test_question_only_has_no_ecg(self, small_prepared, parts, questions):
        made = self.view(small_prepared, parts, "question_only")
        prompt = made.prompt_for(questions[0])
        assert prompt.text == f"\nQuestion: {questions[0]['question']}\nAnswer:"
        assert prompt.num_tokens == len(made.lm_tokenizer(prompt.text)["input_ids"])
        assert prompt.seconds is None and not prompt.was_cut
        row = made.training_row(questions[0])
        assert row["prompt"] == prompt.text and row["completion"] == f" {questions[0]['answer'][0]}"
        assert made.report.to_dict()["least_seconds_of_ecg"] is None
        (grouped,) = made.grouped_rows(questions[:5])
        assert "ecg" not in made.lm_tokenizer.decode(grouped["input_ids"]).lower().replace("this ecg", "")

    def test_zero_signal_is_a_flat_line(self, small_prepared, parts, questions):
        made = self.view(small_prepared, parts, "zero_signal")
        ids = made.ecg_tokenizer.encode_signal(np.zeros((2, 1000), np.float32))
        assert made.prompt_for(questions[0]).text.startswith(made.ecg_tokenizer.ecg_text(ids) + "\nQuestion")

    def test_shuffled_shows_the_other_ecg(self, small_prepared, parts, prompter, questions):
        substitutes = shuffled_ecg_ids(questions, 0)
        made = self.view(small_prepared, parts, "shuffled", substitutes=substitutes)
        for row in questions[::45]:
            other = {**row, "ecg_id": [substitutes[row["ecg_id"][0]]]}
            assert made.prompt_for(row).text == prompter.prompt_for(other).text != prompter.prompt_for(row).text
        with pytest.raises(EcgDataError, match="shown instead of 999"):
            made.prompt_for({**questions[0], "ecg_id": [999]})

    def test_what_cannot_be(self, small_prepared, parts):
        with pytest.raises(ValueError, match="known: true, question_only, zero_signal, shuffled"):
            self.view(small_prepared, parts, "mirror")
        with pytest.raises(ValueError, match="substitutes"):
            self.view(small_prepared, parts, "shuffled")
        with pytest.raises(ValueError, match="substitutes"):
            self.view(small_prepared, parts, "true", substitutes={1: 2})

    def test_another_ecg_tokenizer_than_the_models_is_refused(self, small_prepared, parts):
        from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

        ecg_tokenizer, lm_tokenizer, prompt = parts
        for num_merges in (59, 61):
            other = EcgByteTokenizer.train_from_iterator(
                (small_prepared.signal(i) for i in small_prepared.ecg_ids),
                num_merges,
                calibration=ecg_tokenizer.calibration,
                sampling_rate=100,
                leads=["I", "aVF"],
            )
            message = f"has {num_merges + 26} tokens and the language model knows 86"
            with pytest.raises(VocabularyError, match=message):
                EcgPrompter(other, lm_tokenizer, prompt, small_prepared.signal)


class TestEncodingOnce:
    def test_an_ecg_is_encoded_once_for_all_questions_of_a_length(self, small_prepared, parts, monkeypatch):
        read = []
        made = EcgPrompter(*parts, lambda ecg_id: read.append(ecg_id) or small_prepared.signal(ecg_id))
        budgets = set()
        for row in small_prepared.questions("test") * 2:
            tokens = made.prompt_for(row).num_tokens
            budgets.add(made.prompt.ecg_budget(made.prompt.text_tokens(made.lm_tokenizer, row["question"])))
            assert tokens <= 368
        assert len(budgets) == 2  # 15 questions of up to 64 tokens
        assert Counter(read) == {20: 2, 40: 2}

    def test_the_oldest_leaves_first(self, small_prepared, parts, monkeypatch):
        monkeypatch.setattr(chat, "_KEPT_BLOCKS", 2)
        read = []
        made = EcgPrompter(*parts, lambda ecg_id: read.append(ecg_id) or small_prepared.signal(ecg_id))
        row = small_prepared.questions("train")[0]
        for ecg_id in (1, 2, 3, 3, 2, 1):
            made.prompt_for({**row, "ecg_id": [ecg_id]})
        assert read == [1, 2, 3, 1]


class TestGrouping:
    def test_every_row_once_and_no_attribute_twice(self, questions):
        groups = list(group_by_ecg(questions, 4, np.random.default_rng(0)))
        assert sorted(row["sample_id"] for group in groups for row in group) == [row["sample_id"] for row in questions]
        for group in groups:
            assert 1 <= len(group) <= 4
            assert len({tuple(row["ecg_id"]) for row in group}) == 1
            assert len({row["attribute_type"] for row in group}) == len(group)
        # 15 questions of 5 attributes, at most 4 together: 4 groups would do, chance may need one more.
        assert 4 * 36 <= len(groups) <= 5 * 36

    def test_one_attribute_is_one_group_each(self):
        rows = [{"ecg_id": [1], "attribute_type": "noise", "sample_id": number} for number in range(5)]
        assert [len(group) for group in group_by_ecg(rows, 10, np.random.default_rng(0))] == [1] * 5

    def test_comparisons_are_kept_apart_from_their_ecgs(self):
        rows = [{"ecg_id": ids, "attribute_type": str(n)} for n, ids in enumerate([[1], [1, 2], [2, 1], [1, 2]])]
        groups = [{tuple(row["ecg_id"]) for row in group} for group in group_by_ecg(rows, 9, np.random.default_rng(0))]
        assert groups == [{(1,)}, {(1, 2)}, {(2, 1)}]

    def test_the_seed_decides(self, questions):
        first, again, other = (
            [[row["sample_id"] for row in group] for group in group_by_ecg(questions, 4, np.random.default_rng(seed))]
            for seed in (0, 0, 1)
        )
        assert first == again != other
        with pytest.raises(EcgDataError, match="at least 1"):
            list(group_by_ecg(questions, 0, np.random.default_rng(0)))


def test_report():
    report = BudgetReport()
    assert report.to_dict()["median_seconds_of_ecg"] is None
    for seconds, was_cut in ((2.0, True), (10.0, False), (4.0, True)):
        report.add(RenderedPrompt("", 5, seconds, was_cut), int(seconds))
    assert report.to_dict() == {
        "rows": 3,
        "rows_with_ecg_cut": 2,
        "least_seconds_of_ecg": 2.0,
        "median_seconds_of_ecg": 4.0,
        "longest_row_tokens": 10,
    }


def test_real_questions_keep_their_answers(test_data, tmp_path):
    """All 790 questions of both wordings at 12 leads, comparisons of two ECGs among them, through the real way."""
    from ecgbyte_hf.data.sources import prepare_ecg_qa
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
    from ecgbyte_hf.training.extend_llm import extend_llm
    from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of
    from ecgbyte_hf.training.train_tokenizer import train_tokenizer

    names = ("ptbxl_database.csv", "ptbxl_database_extra_rows.csv")
    prepared = prepare_ecg_qa(
        tmp_path / "prepared",
        data_dir=test_data / "ecg_qa/ecgqa",
        signals_dir=test_data / "ptbxl",
        metadata=[test_data / "ptbxl" / name for name in names],
        feature_extractor=EcgByteFeatureExtractor(),
        config=["ptbxl-template", "ptbxl-paraphrased"],
    )
    train_tokenizer(prepared, tmp_path / "ecg-byte", num_merges=300, max_records=20)
    prompt = EcgPrompt(max_length=512, reserve=128)
    base = make_tiny_llama(Path(tmp_path / "tiny"), texts_of(prepared, prompt), hidden_size=32, num_layers=1)
    made = extend_llm(
        str(base), EcgByteProcessor.from_pretrained(tmp_path / "ecg-byte"), tmp_path / "llm", prompt=prompt
    )
    prompter = load_prompter(made.folder, prepared)
    tokenizer = prompter.lm_tokenizer
    count = 0
    for split in prepared.splits:
        for question in prepared.questions(split):
            row = prompter.training_row(question)
            assert row["completion"] == " " + ", ".join(question["answer"])
            assert len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1 <= 512
            assert row["prompt"].count("<|ecg_start|>") == len(question["ecg_id"])
            count += 1
    assert count == prompter.report.rows == prompter.report.rows_cut == 790
    assert min(prompter.report.seconds_kept) > 0.1
