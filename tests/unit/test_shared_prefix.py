"""Shared-prefix rows train as separate rows do: same loss, same gradient, in every kind of model and of attention."""

import json
from functools import cache

import datasets
import numpy as np
import pytest
import torch
import transformers
from sft_options import ON_CPU, words
from transformers import AutoModelForCausalLM

from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.shared_rows import shared_rows
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError
from ecgbyte_hf.training import sft
from ecgbyte_hf.training.extend_llm import load_prompter
from ecgbyte_hf.training.shared_prefix import SharedPrefixCollator, attend_by_segments, prepare_trainer

# TRL and PEFT use the old name, whatever is set; the new one is not known to all versions that setup.py allows.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
# Fewer positions than a shared row has tokens.
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 384, "initializer_range": 0.2}
GPT2 |= {"attn_pdrop": 0, "embd_pdrop": 0, "resid_pdrop": 0}
# Windows shorter than an ECG of 330 tokens: a question does not see its beginning.
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
MODELS = {
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig, SMALL),
    "qwen3": (transformers.Qwen3ForCausalLM, transformers.Qwen3Config, SMALL | {"head_dim": 8}),
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config, GPT2),
    "gemma": (transformers.GemmaForCausalLM, transformers.GemmaConfig, SMALL | {"head_dim": 8}),
    "gemma3": (transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig, SMALL | LAYERS | {"head_dim": 8}),
    "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig, SMALL | {"sliding_window": 64}),
}


@pytest.fixture(scope="module")
def prompter(small_prepared, small_llm):
    return load_prompter(small_llm, small_prepared)


@pytest.fixture(scope="module")
def questions(small_prepared):
    """Of two ECGs, so that rows of a batch differ in length."""
    rows = small_prepared.questions("validation")
    first = rows[0]["ecg_id"]
    return [row for row in rows if row["ecg_id"] == first][:6] + [row for row in rows if row["ecg_id"] != first][:2]


@pytest.fixture(scope="module")
def rows(prompter, questions):
    return list(shared_rows(prompter, questions, np.random.default_rng(0), questions_per_row=4))


@pytest.fixture(scope="module")
def separate(prompter, questions):
    """A padded batch of the same questions, each in a row of its own."""
    tokenizer = prompter.lm_tokenizer
    made = [prompter.training_row(row) for row in questions]
    ids = [tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"] for row in made]
    length = max(map(len, ids))
    batch = {"input_ids": torch.zeros(len(ids), length, dtype=torch.long)}
    batch["attention_mask"] = torch.zeros_like(batch["input_ids"])
    batch["labels"] = torch.full_like(batch["input_ids"], -100)
    for index, (row, one) in enumerate(zip(made, ids, strict=True)):
        start = len(tokenizer(row["prompt"])["input_ids"])
        batch["input_ids"][index, : len(one)] = torch.tensor(one)
        batch["attention_mask"][index, : len(one)] = 1
        batch["labels"][index, start : len(one)] = torch.tensor(one[start:])
    return batch


@pytest.fixture(scope="module")
def model_of(prompter):
    def make(name, attention="sdpa"):
        kind, config, sizes = MODELS[name]
        options = sizes | {"vocab_size": len(prompter.lm_tokenizer), "attn_implementation": attention}
        torch.manual_seed(0)
        return kind(config(**options))

    return make


def loss_and_gradient(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def distance(one, other):
    """Of two gradients, as a part of their length."""
    return float((one - other).norm() / other.norm())


@pytest.fixture(scope="module")
def expected_of(model_of, separate):
    """Loss and gradient of the separate rows."""
    return cache(lambda name: loss_and_gradient(model_of(name), separate))


def assert_the_same(one, other):
    (loss, gradient), (expected_loss, expected) = one, other
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert distance(gradient, expected) < 1e-5


class TestSameGradient:
    @pytest.mark.parametrize("name", MODELS)
    def test_in_every_kind_of_model(self, name, model_of, rows, expected_of):
        model = model_of(name)
        attend_by_segments(model)
        batch = SharedPrefixCollator(2, attn_implementation=None)(rows)
        assert_the_same(loss_and_gradient(model, batch), expected_of(name))

    @pytest.mark.parametrize("options", [{"pad_to_multiple_of": 64}, {"pack": True}], ids=str)
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_by_the_collators_mask_alone(self, attention, options, model_of, rows, expected_of):
        batch = SharedPrefixCollator(2, attn_implementation=attention, **options)(rows)
        assert_the_same(loss_and_gradient(model_of("llama", attention), batch), expected_of("llama"))

    def test_with_lora(self, model_of, rows, separate):
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=4, lora_dropout=0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(model_of("llama"), config)
        with torch.no_grad():  # B begins at 0, and A then has no gradient
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        expected = loss_and_gradient(model, separate)
        attend_by_segments(model)
        batch = SharedPrefixCollator(2, attn_implementation=None, pack=True)(rows)
        assert_the_same(loss_and_gradient(model, batch), expected)

    @pytest.mark.slow
    def test_flex_attention(self, model_of, rows, expected_of, monkeypatch):
        """Without a gradient, which it does not have on a CPU, and not compiled, which takes a minute."""
        from torch.nn.attention.flex_attention import flex_attention
        from transformers.integrations import flex_attention as integration

        def plain(query, key, value, training=False, **options):
            return flex_attention(query, key, value, **options)

        monkeypatch.setattr(integration, "compile_friendly_flex_attention", plain)
        model = model_of("llama", "flex_attention")
        with torch.no_grad(), pytest.warns(UserWarning, match="without torch.compile"):
            packed = model(**SharedPrefixCollator(2, attn_implementation="flex_attention", pack=True)(rows)).loss
            attend_by_segments(model)
            by_segments = model(**SharedPrefixCollator(2, attn_implementation=None)(rows)).loss
        expected = pytest.approx(expected_of("llama")[0], rel=1e-5)
        assert packed.item() == expected and by_segments.item() == expected


class TestWhatAGradientWouldShow:
    """Each of these is wrong, and far from the separate rows: the tests above would see it."""

    @pytest.mark.parametrize("name", ["llama", "gpt2"])
    def test_questions_that_see_one_another(self, name, model_of, rows, expected_of):
        model = model_of(name)
        batch = SharedPrefixCollator(2)(rows)
        length = batch["input_ids"].shape[1]
        batch["attention_mask"] = torch.ones(length, length, dtype=torch.bool).tril().expand(len(rows), 1, -1, -1)
        assert distance(loss_and_gradient(model, batch)[1], expected_of(name)[1]) > 1e-2

    def test_positions_that_go_on(self, model_of, rows, expected_of):
        model = model_of("llama")
        batch = SharedPrefixCollator(2)(rows)
        batch["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand(len(rows), -1)
        assert distance(loss_and_gradient(model, batch)[1], expected_of("llama")[1]) > 1e-2

    @pytest.mark.parametrize("name", ["gemma3", "mistral"])
    def test_a_window_that_is_forgotten(self, name, model_of, rows, expected_of):
        gradient = loss_and_gradient(model_of(name), SharedPrefixCollator(2)(rows))[1]
        assert distance(gradient, expected_of(name)[1]) > 1e-2


class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (
                transformers.MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9),
                r"layers \(linear_attention\)",
            ),
            (transformers.BloomConfig(hidden_size=8, n_layer=1, n_head=2, vocab_size=9), "counts positions by itself"),
            (
                transformers.GPTNeoConfig(
                    hidden_size=8, num_layers=2, num_heads=2, vocab_size=9, attention_types=[[["global", "local"], 1]]
                ),
                r"layers \(local\)",
            ),
        ],
        ids=["mamba", "bloom", "gpt-neo"],
    )
    def test_models_whose_questions_would_see_one_another(self, config, message):
        with pytest.raises(EcgError, match=message):
            attend_by_segments(AutoModelForCausalLM.from_config(config))

    def test_attention_without_such_a_mask(self, model_of):
        with pytest.raises(EcgError, match=r"flash_attention_2.*sdpa, eager, flex_attention"):
            SharedPrefixCollator(2, attn_implementation="flash_attention_2")
        model = model_of("llama")
        model.config._attn_implementation = "flash_attention_2"
        with pytest.raises(EcgError, match="flash_attention_2"):
            attend_by_segments(model)

    def test_rows_that_are_none(self, rows):
        collate = SharedPrefixCollator(2)
        with pytest.raises(EcgDataError, match="'segment_ids': None.*--row-format shared"):
            collate([{name: values for name, values in rows[0].items() if name != "segment_ids"}])
        with pytest.raises(EcgDataError, match="expected four of one length"):
            collate([{**rows[0], "labels": rows[0]["labels"][1:]}])

    def test_loss_that_another_question_would_predict(self, rows):
        first = rows[0]["segment_ids"].index(2)
        labels = list(rows[0]["labels"])
        labels[first] = rows[0]["token_ids"][first]
        with pytest.raises(EcgDataError, match="first token of a question has a label"):
            SharedPrefixCollator(2)([{**rows[0], "labels": labels}])


# ---- ecgbyte sft --------------------------------------------------------------------------------------------------

STEPS = {"dataset_train_split": "validation", "logging_steps": 1, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def folders(small_prepared, prompter, tmp_path_factory):
    made = {}
    for row_format in ("text", "shared"):
        made[row_format] = tmp_path_factory.mktemp("rows") / row_format
        options = {"row_format": row_format, "question_types": ["single-verify"]}
        encode_rows(small_prepared, made[row_format], prompter, splits=["validation", "test"], **options)
    return made


@pytest.fixture(scope="module")
def train(small_llm, folders, tmp_path_factory):
    def call(*, rows="shared", **options):
        given = {"model_name_or_path": small_llm, "dataset_name": folders[rows]}
        given |= {"output_dir": tmp_path_factory.mktemp("sft")} | ON_CPU | STEPS | options
        return sft.train(words(**given))

    return call


@pytest.fixture(scope="module")
def whole_step(train):
    """What one step and evaluation log that have all rows in one batch."""
    whole = {"max_steps": 1, "learning_rate": 0, "eval_strategy": "steps", "eval_steps": 1}
    whole |= {"per_device_train_batch_size": 10, "per_device_eval_batch_size": 10, "max_length": 384}
    return cache(lambda **options: log_of(train(**whole, **options)))


def log_of(out, step=1):
    return json.loads((out / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]


class TestSft:
    @pytest.mark.parametrize("options", [{}, {"pack_shared_rows": "true"}], ids=str)
    def test_first_step_and_evaluation_are_those_of_separate_rows(self, options, whole_step, folders):
        logs = [whole_step(rows="text"), whole_step(**options)]
        for name in ("loss", "grad_norm", "mean_token_accuracy", "entropy"):
            assert logs[1][0][name] == pytest.approx(logs[0][0][name], rel=1e-5), name
        assert logs[1][1]["eval_loss"] == pytest.approx(logs[0][1]["eval_loss"], rel=1e-5)
        ids = datasets.load_dataset(str(folders["shared"]))["validation"]["token_ids"]
        assert logs[1][0]["num_tokens"] == sum(map(len, ids)) < logs[0][0]["num_tokens"] / 2

    def test_accumulated_steps_are_those_of_one_batch(self, train, whole_step):
        """Rows with different numbers of answers: the mean is over tokens, not over rows."""
        whole = whole_step()[0]
        parts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 10}
        parts |= {"train_sampling_strategy": "group_by_length"}
        accumulated = log_of(train(max_steps=1, learning_rate=0, **parts))[0]
        for name in ("loss", "grad_norm", "num_tokens"):
            assert accumulated[name] == pytest.approx(whole[name], rel=1e-5), name

    @pytest.mark.slow
    def test_a_resumed_run_ends_like_a_whole_one(self, train):
        from safetensors.torch import load_file

        lora = {"use_peft": "true", "lora_target_modules": "q_proj v_proj", "learning_rate": 1e-2}
        options = lora | {"max_steps": 2, "per_device_train_batch_size": 1}
        out = train(**options)
        resumed = train(resume_from_checkpoint=out / "checkpoint-1", **options)
        whole, resumed = (load_file(folder / "adapter_model.safetensors") for folder in (out, resumed))
        assert all(torch.equal(resumed[name], value) for name, value in whole.items()) and len(whole) == 8

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"packing": "true"}, "--packing has no meaning for shared-prefix rows"),
            ({"eval_packing": "true"}, "--eval_packing has no meaning"),
            ({"padding_free": "true"}, "--padding_free has no meaning"),
            ({"attn_implementation": "flex_attention"}, "cannot train on a CPU"),
            ({"rows": "text", "pack_shared_rows": "true"}, "needs rows of `ecgbyte encode --row-format shared`"),
        ],
        ids=str,
    )
    def test_refusals(self, options, message, train):
        with pytest.raises(EcgError, match=message):
            train(max_steps=1, **options)

    def test_rows_of_two_kinds(self, train, folders, monkeypatch):
        kinds = {"validation": "shared", "test": "text"}
        mixed = {split: datasets.load_dataset(str(folders[kind]))[split] for split, kind in kinds.items()}
        monkeypatch.setattr(sft, "_load_rows", lambda options: mixed)
        with pytest.raises(EcgDataError, match="encode all in one --row-format"):
            train(eval_strategy="steps", eval_steps=1, max_steps=1)

    def test_parallel_sequences_are_refused(self):
        class Parallel:
            cp_enabled, sp_enabled = True, False

        class Trainer:
            accelerator = type("Accelerator", (), {"parallelism_config": Parallel})

        with pytest.raises(EcgError, match="drop the attention mask"):
            prepare_trainer(Trainer)

    def test_the_unmodified_trainer_does_not_take_the_rows(self, small_llm, folders, tmp_path):
        """It would train on `input_ids` with a plain causal mask."""
        from trl import SFTConfig, SFTTrainer

        given = {"use_cpu": True, "bf16": False, "report_to": "none"}
        rows = datasets.load_dataset(str(folders["shared"]))["validation"]
        with pytest.raises(KeyError, match="text"):
            SFTTrainer(str(small_llm), args=SFTConfig(str(tmp_path), **given), train_dataset=rows)
