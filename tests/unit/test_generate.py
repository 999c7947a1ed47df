"""Answers: the same in a batch as alone, resumed as if never broken, and never cut off in silence."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sft_options import break_off_after_a_batch
from transformers import AutoModelForCausalLM

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.evaluation.generate import (
    Completion,
    EcgLanguageModel,
    generate_answers,
    make_prompter,
    read_predictions,
    report_path,
)
from ecgbyte_hf.evaluation.perturbations import perturb
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, VocabularyError


@pytest.fixture(scope="module")
def model(lively_llm):
    return EcgLanguageModel.load(lively_llm, device="cpu")


@pytest.fixture(scope="module")
def rows(small_prepared):
    return small_prepared.questions("test")


@pytest.fixture
def prompter(model, small_prepared, rows):
    return make_prompter(model, small_prepared, rows)


@pytest.fixture(scope="module")
def options(small_prepared):
    return small_prepared.template_options()


class TestComplete:
    def test_a_padded_batch_answers_as_each_alone(self, model, prompter, rows):
        assert model.model.dtype == torch.float32
        prompts = [prompter.prompt_for(row).text for row in rows]
        prompts += [text[: len(text) // 2] for text in prompts[:5]]  # of very different length
        together = model.complete(prompts, max_new_tokens=12)
        alone = [model.complete([text], max_new_tokens=12)[0] for text in prompts]
        assert together == alone
        assert len({completion.text for completion in alone}) > 5
        assert {completion.reached_limit for completion in alone} == {True, False}

    def test_it_is_greedy_whatever_the_folder_says(self, model, prompter, rows):
        prompt = prompter.prompt_for(rows[0]).text
        expected = model.complete([prompt], max_new_tokens=8)
        ids = model.lm_tokenizer(prompt, return_tensors="pt")["input_ids"]
        for _ in range(8):
            with torch.no_grad():
                ids = torch.cat([ids, model.model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
            if ids[0, -1] == model.lm_tokenizer.eos_token_id:
                break
        length = len(model.lm_tokenizer(prompt)["input_ids"])
        assert expected[0].text == model.lm_tokenizer.decode(ids[0, length:], skip_special_tokens=True).strip()
        sampling = model.model.generation_config
        sampling.do_sample, sampling.temperature, sampling.top_p = True, 5.0, 0.9
        try:
            assert model.complete([prompt], max_new_tokens=8) == expected
        finally:
            sampling.do_sample, sampling.temperature, sampling.top_p = False, None, None

    def test_the_limit_is_told(self, model):
        class Scripted:
            device = "cpu"

            def generate(self, input_ids, **_):
                eos, pad = model.lm_tokenizer.eos_token_id, model.lm_tokenizer.pad_token_id
                word = model.lm_tokenizer(" yes", add_special_tokens=False)["input_ids"][0]
                new = torch.tensor([[word, eos, pad], [word, word, eos], [word, word, word]])
                return torch.cat([input_ids, new], dim=1)

        completions = replace(model, model=Scripted()).complete(["a", "b b b", "c"], max_new_tokens=3)
        assert [completion.reached_limit for completion in completions] == [False, False, True]
        assert completions[0].text == completions[0].text.strip()


class TestAnswers:
    def test_rows_are_in_order_and_hold_what_scoring_needs(self, model, prompter, rows, options, tmp_path, caplog):
        path = generate_answers(model, rows, prompter, options, tmp_path / "a.jsonl", batch_size=7, max_new_tokens=6)
        written = read_predictions(path)
        assert [row["sample_id"] for row in written] == [row["sample_id"] for row in rows]
        for row, question in zip(written, rows, strict=True):
            expected = model.complete([prompter.prompt_for(question).text], max_new_tokens=6)[0]
            assert (row["prediction"], row["reached_limit"]) == (expected.text, expected.reached_limit)
            assert row["answer"] == question["answer"] and row["ecg_id"] == question["ecg_id"]
        assert set(written[2]["options"]) == {*rows[2]["attribute"], "none"}
        at_limit = sum(row["reached_limit"] for row in written)
        report = json.loads(report_path(path).read_text())
        assert report["answers_at_limit"] == at_limit > 0
        assert f"{at_limit} of 30 answers were cut off after 6 tokens" in caplog.text
        assert (report["questions"], report["prompts_with_ecg_cut"]) == (30, 30)
        assert 0 < report["least_seconds_of_ecg"] < 10
        assert report["provenance"]["arguments"]["view"] == "true"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jsonl", "a.report.json"]

    @pytest.mark.parametrize(("batch_size", "stop_after"), [(4, 1), (4, 5), (7, 2), (30, 0)])
    def test_a_broken_run_goes_on_as_if_it_had_not(
        self, model, prompter, rows, options, tmp_path, monkeypatch, batch_size, stop_after
    ):
        settings = {"batch_size": batch_size, "max_new_tokens": 6, "score_options": "verify"}
        whole = generate_answers(model, rows, prompter, options, tmp_path / "whole.jsonl", **settings)
        calls = []
        real = EcgLanguageModel.complete

        def broken(self, prompts, **kwargs):
            calls.append(len(prompts))
            if len(calls) == stop_after + 1:
                raise KeyboardInterrupt
            return real(self, prompts, **kwargs)

        monkeypatch.setattr(EcgLanguageModel, "complete", broken)
        with pytest.raises(KeyboardInterrupt):
            generate_answers(model, rows, prompter, options, tmp_path / "broken.jsonl", **settings)
        assert not (tmp_path / "broken.jsonl").exists()
        partial = tmp_path / "broken.jsonl.partial"
        assert len(partial.read_text().splitlines()) == 1 + sum(calls[:-1])
        with partial.open("a") as file:
            file.write('{"index": 3, "text": "ye')  # the machine went down while it was writing
        generate_answers(model, rows, prompter, options, tmp_path / "broken.jsonl", **settings)
        assert sum(calls) - calls[stop_after] == 30  # nothing was asked twice
        assert (tmp_path / "broken.jsonl").read_bytes() == whole.read_bytes()
        reports = [report_path(tmp_path / name).read_bytes() for name in ("broken.jsonl", "whole.jsonl")]
        assert reports[0] == reports[1]
        assert not partial.exists()

    def test_half_a_batch_is_completed(self, model, prompter, rows, options, tmp_path):
        settings = {"batch_size": 10, "max_new_tokens": 6}
        whole = generate_answers(model, rows, prompter, options, tmp_path / "a.jsonl", **settings).read_bytes()
        partial = self.broken_after(model, prompter, rows, options, tmp_path, settings)
        lines = partial.read_text().splitlines(keepends=True)
        partial.write_text("".join(lines[:5]))
        generate_answers(model, rows, prompter, options, tmp_path / "b.jsonl", **settings)
        assert (tmp_path / "b.jsonl").read_bytes() == whole

    @staticmethod
    def broken_after(model, prompter, rows, options, folder, settings):
        """The partial file of a run that was broken after its first batch."""
        break_off_after_a_batch(model, rows, prompter, options, folder / "b.jsonl", **settings)
        return folder / "b.jsonl.partial"

    def test_answers_of_another_run_are_not_mixed_in(self, model, prompter, rows, options, small_prepared, tmp_path):
        settings = {"batch_size": 10, "max_new_tokens": 6}
        partial = self.broken_after(model, prompter, rows, options, tmp_path, settings)
        before = partial.read_bytes()
        zero = make_prompter(model, small_prepared, rows, view="zero_signal")
        others = {
            "view": (model, rows, zero, settings),
            "questions": (model, rows[1:], prompter, settings),
            "model": (replace(model, source="another"), rows, prompter, settings),
            "max_new_tokens": (model, rows, prompter, {**settings, "max_new_tokens": 7}),
        }
        for name, (asked, asked_rows, shown, chosen) in others.items():
            with pytest.raises(EcgDataError, match=f"another run, which differs in {name}; delete it"):
                generate_answers(asked, asked_rows, shown, options, tmp_path / "b.jsonl", **chosen)
        assert partial.read_bytes() == before
        for content in ("[1]\n", "text\n", '{"run": {}}\n{"index": 1}\n'):
            partial.write_text(content)
            with pytest.raises(EcgDataError, match="b.jsonl.partial holds"):
                generate_answers(model, rows, prompter, options, tmp_path / "b.jsonl", **settings)

    def test_shuffles_of_different_seeds_are_different_runs(self, model, rows, options, small_prepared, tmp_path):
        settings = {"batch_size": 10, "max_new_tokens": 6}
        train = small_prepared.questions("train")[:75]
        first, second = (make_prompter(model, small_prepared, train, view="shuffled", seed=seed) for seed in (0, 1))
        self.broken_after(model, first, train, options, tmp_path, settings)
        assert first.substitutes != second.substitutes
        with pytest.raises(EcgDataError, match="differs in substitutes"):
            generate_answers(model, train, second, options, tmp_path / "b.jsonl", **settings)

    def test_no_rows_are_no_answers(self, model, prompter, options, tmp_path):
        path = generate_answers(model, [], prompter, options, tmp_path / "a.jsonl")
        assert path.read_bytes() == b"" and read_predictions(path) == []
        assert json.loads(report_path(path).read_text())["questions"] == 0
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jsonl", "a.report.json"]

    def test_a_question_without_valid_answers_stops_before_the_first(
        self, model, prompter, rows, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(EcgLanguageModel, "complete", lambda *_, **__: pytest.fail("asked"))
        with pytest.raises(EcgDataError, match="has no list of options"):
            generate_answers(model, rows, prompter, {1: ["yes"]}, tmp_path / "a.jsonl")

    def test_the_longest_come_first_by_tokens(self, model, prompter, rows, options, tmp_path, monkeypatch):
        lengths = []
        real = EcgLanguageModel.complete

        def watched(self, prompts, **kwargs):
            lengths.extend(len(self.lm_tokenizer(prompt.text)["input_ids"]) for prompt in prompts)
            return real(self, prompts, **kwargs)

        monkeypatch.setattr(EcgLanguageModel, "complete", watched)
        settings = {"batch_size": 4, "max_new_tokens": 1, "shared_prefix": "off"}
        generate_answers(model, rows, prompter, options, tmp_path / "a.jsonl", **settings)
        assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) > 5

    @pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_new_tokens": 0}])
    def test_sizes_that_are_none(self, model, prompter, rows, options, tmp_path, settings):
        with pytest.raises(EcgDataError, match="expected at least 1"):
            generate_answers(model, rows, prompter, options, tmp_path / "a.jsonl", **settings)


class TestOneQuestion:
    def test_it_is_that_of_the_prepared_record(self, model, prompter, rows, small_prepared, caplog):
        from ecgbyte_hf.signal.records import EcgRecord

        record = EcgRecord(small_prepared.signal(20), 100.0, ("I", "aVF"), "twenty")
        expected = model.complete([prompter.prompt_for(rows[0]).text], max_new_tokens=6)[0]
        assert model.answer(record, rows[0]["question"], max_new_tokens=6) == expected.text
        assert "the model was shown the first" in caplog.text
        assert ("the answer was cut off after 6 tokens" in caplog.text) == expected.reached_limit


class TestLoad:
    # Of peft 0.21 with transformers 5.23, in nobody's hands here.
    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
    def test_an_adapter_finds_the_ecg_parts_and_tokenizer_of_its_base(
        self, lively_llm, model, prompter, rows, tmp_path
    ):
        from peft import LoraConfig, get_peft_model

        base = AutoModelForCausalLM.from_pretrained(lively_llm)
        torch.manual_seed(5)
        adapter = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        adapter.save_pretrained(tmp_path / "adapter")
        assert not (tmp_path / "adapter/ecg_byte").exists()
        loaded = EcgLanguageModel.load(tmp_path / "adapter")
        assert loaded.prompt == model.prompt
        prompts = [prompter.prompt_for(row).text for row in rows[:8]]
        expected = replace(model, model=adapter.eval()).complete(prompts, max_new_tokens=6)
        assert loaded.complete(prompts, max_new_tokens=6) == expected != model.complete(prompts, max_new_tokens=6)

    def test_missing_parts_say_where_they_were_looked_for(self, small_llm, tmp_path):
        folder = shutil.copytree(small_llm, tmp_path / "model")
        shutil.rmtree(folder / "ecg_byte")
        with pytest.raises(EcgDataError, match="looked for ecg_prompt.json in .*model/ecg_byte; copy `ecg_byte/`"):
            EcgLanguageModel.load(folder)
        loaded = EcgLanguageModel.load(folder, ecg=small_llm / "ecg_byte")
        assert loaded.prompt == EcgPrompt.load(small_llm / "ecg_byte")
        with pytest.raises(EcgDataError, match="is not a folder with a language model"):
            EcgLanguageModel.load(tmp_path / "absent")

    def test_a_malformed_adapter(self, tmp_path):
        for content in ("{", "{}", "[]"):
            (tmp_path / "adapter_config.json").write_text(content)
            with pytest.raises(EcgDataError, match="base_model_name_or_path"):
                EcgLanguageModel.load(tmp_path)

    def test_a_model_without_the_ecg_tokens_is_refused(self, small_llm, small_prepared, rows):
        base = EcgLanguageModel.load(small_llm.with_name("tiny-llama"), ecg=small_llm / "ecg_byte")
        with pytest.raises(VocabularyError, match="has 86 tokens and the language model knows 0"):
            make_prompter(base, small_prepared, rows)

    def test_other_weights_are_another_source(self, lively_llm, small_llm):
        assert EcgLanguageModel.load(lively_llm).source == EcgLanguageModel.load(lively_llm).source
        assert EcgLanguageModel.load(lively_llm).source != EcgLanguageModel.load(small_llm).source


class TestFile:
    def test_lines_that_are_no_answers(self, tmp_path):
        path = tmp_path / "a.jsonl"
        for content, message in (
            ("{\n", "line 1: not JSON"),
            ("[]\n", "line 1: not of `ecgbyte generate`"),
            ('{"sample_id": 1}\n', "it lacks template_id, question_id"),
        ):
            path.write_text(content)
            with pytest.raises(EcgDataError, match=message):
                read_predictions(path)
        path.write_bytes(b"\xff\n")
        with pytest.raises(EcgDataError, match="not UTF-8"):
            read_predictions(path)
        with pytest.raises(EcgDataError, match="cannot read"):
            read_predictions(tmp_path / "absent.jsonl")


def test_completion_is_a_value():
    assert Completion("yes", False) == Completion("yes", False) != Completion("yes", True)


class TestShownSignals:
    def test_a_recording_is_cut_to_the_window_the_model_knows(self, model, small_prepared, caplog):
        windowed = replace(model, prompt=replace(model.prompt, window_seconds=3.0))
        signal = small_prepared.signal(small_prepared.ecg_ids[0])
        asked = {"sample_id": 0, "question": "Is it regular?", "ecg_id": [0]}
        assert windowed.prompter_for([signal], [{}]).prompt_for(asked) == model.prompter_for(
            [signal[:, :300]], [{}]
        ).prompt_for(asked)
        assert "windows of 3 s: it is shown the first one" in caplog.text

    def test_a_prepared_folder_of_other_windows_is_refused(self, model, small_prepared, rows):
        windowed = replace(model, prompt=replace(model.prompt, window_seconds=3.0))
        with pytest.raises(EcgDataError, match="give --window-seconds 3"):
            make_prompter(windowed, small_prepared, rows)

    def test_what_is_known_of_the_patient_is_told(self, model, small_prepared, caplog):
        telling = replace(model, prompt=replace(model.prompt, context=["age", "sex"]))
        signal = small_prepared.signal(small_prepared.ecg_ids[0])
        asked = {"sample_id": 0, "question": "Is it regular?", "ecg_id": [0]}
        text = telling.prompter_for([signal], [{"age": np.int64(63), "sex": "female"}]).prompt_for(asked).text
        assert "Patient: 63 years, female. Is it regular?" in text
        assert not caplog.records
        assert "Patient" not in telling.prompter_for([signal], [{}]).prompt_for(asked).text
        assert "trained with age and sex of the patient, which is not given" in caplog.text
        caplog.clear()
        model.prompter_for([signal], [{"age": 63}])
        assert "do not tell all that was given of the patient" in caplog.text

    def test_answers_to_changed_signals_are_another_run(self, model, small_prepared, rows, options, tmp_path):
        made = {}
        for name, changes in {"plain": [], "noisy": ["noise=0.3"]}.items():
            prepared = perturb(PreparedData(small_prepared.folder), changes) if changes else small_prepared
            prompter = make_prompter(model, prepared, rows[:4])
            path = generate_answers(model, rows[:4], prompter, options, tmp_path / f"{name}.jsonl", max_new_tokens=4)
            made[name] = json.loads(report_path(path).read_text())["provenance"]["arguments"]["perturbations"]
        assert made == {"plain": [], "noisy": ["noise=0.3", "seed=0"]}


def test_answers_about_other_signals_are_not_gone_on_with(model, small_prepared, options, tmp_path):
    """Windows of other places have the same questions."""
    output = tmp_path / "a.jsonl"
    for stride in (4.0, 3.5):
        windows = WindowedData(small_prepared.folder, 4.0, stride_seconds=stride)
        rows = windows.questions("test")[:2]
        prompter = make_prompter(model, windows, rows)
        if stride == 4.0:
            generate_answers(model, rows, prompter, options, output, max_new_tokens=2)
            run = json.loads(report_path(output).read_text())["provenance"]["arguments"]
            output.with_name("a.jsonl.partial").write_text(json.dumps({"run": run}) + "\n")
    with pytest.raises(EcgDataError, match="another run, which differs in data"):
        generate_answers(model, rows, prompter, options, output, max_new_tokens=2)


def test_conversations_that_go_on_are_counted(model, small_prepared, rows, prompter, options, tmp_path, caplog):
    turns = [{"role": role, "content": "text"} for role in ("user", "assistant")]
    talk = [{**rows[0], "question_type": "conversation", "messages": turns * count} for count in (1, 2)]
    path = generate_answers(model, talk, prompter, options, tmp_path / "a.jsonl", max_new_tokens=2)
    assert "1 of 2 conversations go on" in caplog.text
    assert json.loads(report_path(path).read_text())["conversations_that_go_on"] == 1


def test_free_text_has_no_options(model, small_prepared, rows, prompter, options, tmp_path):
    report = [{**rows[0], "question_type": "report", "template_id": 2001, "answer": ["sinus rhythm"]}]
    path = generate_answers(model, report, prompter, options, tmp_path / "a.jsonl", max_new_tokens=4)
    assert read_predictions(path)[0]["options"] == []
    with pytest.raises(EcgDataError, match="template 2001, which has no list of options"):
        generate_answers(
            model, [{**report[0], "question_type": "single-query"}], prompter, options, tmp_path / "b.jsonl"
        )
