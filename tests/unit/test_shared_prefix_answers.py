"""An ECG is computed once for all its questions; answers and their probabilities stay those of separate prompts."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ecgbyte_hf.evaluation import shared_prefix as module
from ecgbyte_hf.evaluation.generate import (
    EcgLanguageModel,
    generate_answers,
    make_prompter,
    read_predictions,
    report_path,
)
from ecgbyte_hf.evaluation.prompt_ids import PromptTokenizer
from ecgbyte_hf.evaluation.shared_prefix import PrefixedQuestions, complete_and_score, shared_prefix_obstacle
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

KINDS = ("llama", "llama-eager", "qwen3", "gpt2")


@pytest.fixture(scope="module")
def language_model(lively_llm):
    return EcgLanguageModel.load(lively_llm, device="cpu")


@pytest.fixture(scope="module")
def models(language_model, lively_llm):
    """A lively random model of each kind, for the same tokenizer; Qwen3 has two queries to each key."""
    size = len(language_model.lm_tokenizer)
    torch.manual_seed(3)
    shape = {"vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    qwen3 = Qwen3ForCausalLM(Qwen3Config(**shape, **heads, initializer_range=0.5))
    small = {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.5}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=size, **small))
    eager = AutoModelForCausalLM.from_pretrained(lively_llm, attn_implementation="eager")
    made = dict(zip(KINDS, (language_model.model, eager, qwen3, gpt2), strict=True))
    return {name: replace(language_model, model=model.eval()) for name, model in made.items()}


@pytest.fixture(scope="module")
def rows(small_prepared):
    return small_prepared.questions("test")


@pytest.fixture(scope="module")
def prompts(language_model, small_prepared, rows):
    """Of three questions about one ECG, five about another one and, not about any, one: in turns."""
    prompter = make_prompter(language_model, small_prepared, rows)
    texts = [prompter.prompt_for(row).text for row in [*rows[:3], *rows[15:20]]]
    texts.append("Is it?")
    return [texts[index] for index in (0, 3, 4, 8, 1, 5, 6, 2, 7)]


@pytest.fixture(scope="module")
def options():
    return [["yes", "no"], None, ["sinus rhythm", "atrial fibrillation", "none"], ["no"], *[["yes", "no"]] * 5]


def plain_score(language_model, prompt, option):
    """The definition, with one forward pass for the whole text."""
    start = language_model.lm_tokenizer(prompt)["input_ids"]
    answer = language_model.lm_tokenizer(f" {option}", add_special_tokens=False)["input_ids"]
    answer.append(language_model.lm_tokenizer.eos_token_id)
    with torch.no_grad():
        logprobs = language_model.model(torch.tensor([start + answer])).logits[0].double().log_softmax(-1)
    return sum(float(logprobs[len(start) + place - 1, token]) for place, token in enumerate(answer))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_answers_are_those_of_separate_prompts(self, models, prompts, kind):
        asked = models[kind]
        assert asked.model.dtype == torch.float32 and asked.shared_prefix_obstacle() is None
        alone = [asked.complete([text], max_new_tokens=10)[0] for text in prompts]
        assert asked.complete(prompts, max_new_tokens=10, shared_prefix=True) == alone
        assert len({completion.text for completion in alone}) > 2

    def test_the_probability_of_options_is_that_of_plain_passes(self, models, prompts, options, kind):
        asked = models[kind]
        shared, separate = (
            asked.complete(prompts, max_new_tokens=3, shared_prefix=choice, options=options)
            for choice in (True, False)
        )
        for text, names, one, other in zip(prompts, options, shared, separate, strict=True):
            expected = {option: plain_score(asked, text, option) for option in names or ()} or None
            assert one.option_logprobs == pytest.approx(expected, abs=1e-3)
            assert other.option_logprobs == pytest.approx(expected, abs=1e-3)
            assert one.text == other.text


def test_new_ids_are_those_of_generate(language_model):
    """Rows of different prefix lengths, tails and answers; a prefix of nothing too."""
    generator = torch.Generator().manual_seed(1)

    def draw(length):
        return torch.randint(3, 300, (length,), generator=generator).tolist()

    rows = [
        PrefixedQuestions(draw(p), [draw(t) for t in tails], [[] for _ in tails])
        for p, tails in ((30, (1, 7, 3)), (5, (2,)), (0, (4, 9)))
    ]
    eos, pad = language_model.lm_tokenizer.eos_token_id, language_model.lm_tokenizer.pad_token_id
    made = complete_and_score(language_model.model, rows, max_new_tokens=12, eos_token_id=eos, pad_token_id=pad)
    lengths = set()
    for row, (new, scores) in zip(rows, made, strict=True):
        assert scores == [[] for _ in row.tails]
        for tail, tokens in zip(row.tails, new, strict=True):
            prompt = torch.tensor([row.prefix + tail])
            expected = language_model.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, pad_token_id=pad
            )
            assert tokens == expected[0, prompt.shape[1] :].tolist()
            lengths.add(len(tokens))
    assert len(lengths) > 1  # rows that ended early were left out


def test_the_ecg_is_computed_once(language_model, prompts, monkeypatch):
    read = []
    forward = type(language_model.model).forward

    def counted(self, input_ids, **kwargs):
        read.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(language_model.model), "forward", counted)
    head = language_model.prompt_tokenizer.head(prompts[1])
    asked = [text for text in prompts if text.startswith(head)]
    assert len(asked) > 2
    lengths = [len(language_model.lm_tokenizer(text)["input_ids"]) for text in asked]
    language_model.complete(asked, max_new_tokens=1, shared_prefix=True)
    assert sum(read) < max(lengths) + 32 * len(asked) < 0.5 * sum(lengths)


def test_few_logits_at_a_time_are_the_same_scores(language_model, prompts, options, monkeypatch):
    settings = {"max_new_tokens": 1, "shared_prefix": True, "options": options}
    whole = language_model.complete(prompts, **settings)
    monkeypatch.setattr(module, "_MOST_LOGITS", 1)
    in_parts = language_model.complete(prompts, **settings)
    for one, other in zip(whole, in_parts, strict=True):
        assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=1e-3)


def test_a_penalty_in_the_folder_changes_nothing(language_model, prompts):
    expected = language_model.complete(prompts, max_new_tokens=10)
    language_model.model.generation_config.repetition_penalty = 5.0
    try:
        assert language_model.complete(prompts, max_new_tokens=10) == expected
    finally:
        language_model.model.generation_config.repetition_penalty = None


def test_the_likeliest_option_alone(language_model, prompts, options):
    with pytest.raises(EcgDataError, match="options for every prompt"):
        language_model.complete(prompts, max_new_tokens=3, options=options, options_only=True)
    names = [each or ["no", "yes"] for each in options]
    for choice in (True, False):
        made = language_model.complete(
            prompts, max_new_tokens=3, options=names, options_only=True, shared_prefix=choice
        )
        for completion in made:
            best = max(completion.option_logprobs.values())
            assert completion.option_logprobs[completion.text] == best and not completion.reached_limit


def test_streamed_tokens_are_the_answer_s(language_model, prompts):
    class Streamer:
        def __init__(self):
            self.heard = []

        def put(self, value):
            self.heard.append(value.flatten().tolist())

        def end(self):
            self.heard.append("end")

    asked = [prompts[1], prompts[2]]
    for choice in (True, False):
        streamer = Streamer()
        made = language_model.complete(asked, max_new_tokens=6, shared_prefix=choice, streamer=streamer)
        assert made == language_model.complete(asked, max_new_tokens=6)
        first = streamer.heard.index("end")
        for text, completion, heard in zip(
            asked, made, (streamer.heard[:first], streamer.heard[first + 1 : -1]), strict=True
        ):
            assert heard[0] == language_model.lm_tokenizer(text)["input_ids"]
            new = [token for each in heard[1:] for token in each]
            assert language_model.lm_tokenizer.decode(new, skip_special_tokens=True).strip() == completion.text


class TestObstacles:
    def test_what_each_model_lacks(self, language_model, monkeypatch):
        config = MistralConfig(
            vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
            num_key_value_heads=1, sliding_window=4,
        )  # fmt: skip
        assert "does not keep all keys and values (DynamicSlidingWindowLayer)" in shared_prefix_obstacle(
            MistralForCausalLM(config)
        )
        model = language_model.model
        assert shared_prefix_obstacle(model) is None
        with monkeypatch.context() as patch:
            patch.setattr(model.generation_config, "cache_implementation", "static")
            assert "cache 'static'" in shared_prefix_obstacle(model)
        with monkeypatch.context() as patch:
            patch.setattr(model.config, "_attn_implementation", "flash_attention_2")
            assert "'flash_attention_2' does not take a mask" in shared_prefix_obstacle(model)
        with monkeypatch.context() as patch:
            patch.setattr(type(model), "_supports_attention_backend", False)
            assert "does not take the mask and the positions" in shared_prefix_obstacle(model)
        with monkeypatch.context() as patch:
            patch.setattr(model, "peft_config", {"default": SimpleNamespace(is_prompt_learning=True)}, raising=False)
            assert "a prompt of its own" in shared_prefix_obstacle(model)


class TestFile:
    @pytest.fixture(scope="class")
    @staticmethod
    def asked(language_model, small_prepared, rows):
        """What `generate_answers` takes first."""
        return language_model, rows, make_prompter(language_model, small_prepared, rows)

    @pytest.fixture(scope="class")
    @staticmethod
    def templates(small_prepared):
        return small_prepared.template_options()

    @staticmethod
    def decoding(path):
        return json.loads(report_path(path).read_text())["decoding"]

    def test_shared_or_not_the_answers_are_the_same(self, asked, templates, tmp_path):
        paths = {
            choice: generate_answers(
                *asked, templates, tmp_path / f"{choice}.jsonl", batch_size=12, max_new_tokens=6, shared_prefix=choice
            )
            for choice in ("on", "off", "auto")
        }
        assert paths["on"].read_bytes() == paths["off"].read_bytes() == paths["auto"].read_bytes()
        assert [self.decoding(paths[choice])["shared_prefix"] for choice in paths] == [True, False, True]
        assert "option_logprobs" not in read_predictions(paths["on"])[0]

    def test_auto_is_off_where_no_ecg_is_asked_about_twice(self, asked, templates, tmp_path):
        model, rows, prompter = asked
        path = generate_answers(model, [rows[0], rows[15]], prompter, templates, tmp_path / "a.jsonl")
        assert self.decoding(path)["shared_prefix"] is False

    def test_a_model_that_cannot(self, asked, templates, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr(EcgLanguageModel, "shared_prefix_obstacle", lambda self: "it has one eye")
        with pytest.raises(EcgDataError, match="cannot be shared: it has one eye; leave --shared-prefix at auto"):
            generate_answers(*asked, templates, tmp_path / "a.jsonl", max_new_tokens=2, shared_prefix="on")
        path = generate_answers(*asked, templates, tmp_path / "a.jsonl", max_new_tokens=2)
        assert "its own copy of the ECG: it has one eye" in caplog.text
        assert self.decoding(path)["shared_prefix"] is False

    def test_scores_are_written_where_asked_for(self, asked, templates, tmp_path):
        settings = {"batch_size": 15, "max_new_tokens": 3}
        paths = {
            choice: generate_answers(*asked, templates, tmp_path / f"{choice}.jsonl", **settings, score_options=choice)
            for choice in ("none", "verify", "all")
        }
        none, verify, every = (read_predictions(paths[choice]) for choice in ("none", "verify", "all"))
        model, rows, prompter = asked
        for plain, some, full, row in zip(none, verify, every, rows, strict=True):
            assert ("option_logprobs" in some) == (row["question_type"] == "single-verify")
            scores = full.pop("option_logprobs")
            assert list(scores) == sorted(scores) and set(scores) == set(row_options(full))
            assert some.pop("option_logprobs", scores) == pytest.approx(scores, abs=1e-3)
            assert plain == some == full
        text = prompter.prompt_for(rows[0]).text
        first = read_predictions(paths["all"])[0]["option_logprobs"]
        assert first == pytest.approx({name: plain_score(model, text, name) for name in first}, abs=1e-3)
        verifies = sum(row["question_type"] == "single-verify" for row in rows)
        assert [self.decoding(path)["questions_with_scored_options"] for path in paths.values()] == [0, verifies, 30]

    def test_options_only(self, asked, templates, tmp_path, monkeypatch):
        monkeypatch.setattr(EcgLanguageModel, "_generate", lambda *_: pytest.fail("wrote freely"))
        path = generate_answers(*asked, templates, tmp_path / "a.jsonl", options_only=True)
        for row in read_predictions(path):
            assert row["prediction"] == max(row["option_logprobs"], key=row["option_logprobs"].get)
            assert row["prediction"] in row["options"] and row["reached_limit"] is False
        assert self.decoding(path)["answers"] == "the likeliest option"
        first_template = asked[1][0]["template_id"]
        with pytest.raises(EcgDataError, match="has no options to choose from"):
            generate_answers(asked[0], asked[1][:1], asked[2], {first_template: []}, tmp_path / "b.jsonl",
                             options_only=True)  # fmt: skip

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"shared_prefix": "maybe"}, "known: auto, on, off"),
            ({"score_options": "some"}, "known: none, verify, all"),
        ],
    )
    def test_unknown_words(self, asked, templates, tmp_path, settings, message):
        with pytest.raises(EcgDataError, match=message):
            generate_answers(*asked, templates, tmp_path / "a.jsonl", **settings)

    def test_a_run_decoded_otherwise_is_another_run(self, asked, templates, tmp_path, monkeypatch):
        partial = tmp_path / "a.jsonl.partial"
        with monkeypatch.context() as patch:
            patch.setattr(EcgLanguageModel, "complete", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                generate_answers(*asked, templates, tmp_path / "a.jsonl", score_options="all")
        assert partial.exists()
        for settings, name in (
            ({}, "score_options"),
            ({"score_options": "all", "shared_prefix": "off"}, "shared_prefix"),
            ({"score_options": "all", "options_only": True}, "options_only"),
        ):
            with pytest.raises(EcgDataError, match=f"differs in {name};"):
                generate_answers(*asked, templates, tmp_path / "a.jsonl", **settings)


def row_options(row):
    return row["options"]


class TestPromptTokenizer:
    def test_ids_are_those_of_the_whole_text(self, language_model, prompts, monkeypatch):
        tokenizer = language_model.lm_tokenizer
        lengths = []

        def counted(text, **kwargs):
            lengths.append(len(text))
            return tokenizer(text, **kwargs)

        prompt_tokenizer = PromptTokenizer(counted, "<|ecg_end|>")
        for text in prompts:
            assert prompt_tokenizer.ids(text) == tokenizer(text)["input_ids"]
        heads = {prompt_tokenizer.head(text) for text in prompts} - {""}
        assert sum(length > 1000 for length in lengths) == len(heads) < 5

    def test_a_tokenizer_that_joins_the_parts(self, caplog):
        """One that has no boundary at an ECG's end, so that the tail depends on the head."""

        def joined(text, add_special_tokens=True):
            return {"input_ids": [len(text[:place]) for place in range(len(text))]}

        prompt_tokenizer = PromptTokenizer(joined, "|")
        for text in ("ab|cd", "ab|efg", "ab|cd"):
            assert prompt_tokenizer.ids(text) == joined(text)["input_ids"]
        assert caplog.text.count("does not divide") == 1
