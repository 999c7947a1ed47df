"""Llama's relatives and GPT-2, tied and untied: extend, train by LoRA, merge, answer."""

import json

import pytest
import torch
from safetensors.torch import load_file
from sft_options import ON_CPU, words
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.evaluation.generate import EcgLanguageModel
from ecgbyte_hf.models.errors_ecg_byte import EcgError, VocabularyError
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.training import sft
from ecgbyte_hf.training.extend_llm import ecg_token_strings, extend_llm, load_prompter
from ecgbyte_hf.training.tiny_llm import FAMILIES, make_tiny_llm, texts_of

# TRL and PEFT use the old name, whatever is set.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
TARGETS = {family: PROJECTIONS for family in FAMILIES} | {"gpt2": {"c_attn", "c_proj", "c_fc"}}
# Llama's own tests are in test_sft.py.
CASES = [(family, True) for family in FAMILIES if family != "llama"] + [("gpt2", False), ("gemma2", False)]
SETTINGS = ON_CPU | {
    "save_strategy": "no",
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "use_peft": "true",
    "lora_target_modules": "all-linear",
    "merge": "true",
}


@pytest.fixture(scope="module")
def rows(small_prepared, small_llm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / "rows"
    prompter = load_prompter(small_llm, small_prepared)
    encode_rows(small_prepared, folder, prompter, splits=["train"], question_types=["single-verify"])
    return folder


@pytest.fixture(scope="module")
def extended(small_prepared, small_ecg_byte, tmp_path_factory):
    made = {}

    def call(family, tied=True):
        if (family, tied) not in made:
            folder = tmp_path_factory.mktemp(family)
            prompt = EcgPrompt(max_length=384, reserve=16)
            size = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "text_vocab_size": 320}
            texts = texts_of(small_prepared, prompt)
            make_tiny_llm(folder, texts, family=family, tie_word_embeddings=tied, **size)
            processor = EcgByteProcessor.from_pretrained(small_ecg_byte)
            made[family, tied] = extend_llm(str(folder), processor, folder / "extended", prompt=prompt)
        return made[family, tied]

    return call


def train(base, rows, output_dir, **options):
    given = SETTINGS | {"model_name_or_path": base, "dataset_name": rows, "output_dir": output_dir} | options
    return sft.train(words(**given))


def tables(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


def changed_rows(before, after):
    return set((before != after).any(dim=1).nonzero().flatten().tolist())


def logits_and_answer(folder, prepared):
    """Of the first test question, by the way of `ecgbyte generate`."""
    loaded = EcgLanguageModel.load(folder, device="cpu")
    text = load_prompter(folder, prepared).prompt_for(prepared.questions("test")[0]).text
    with torch.no_grad():
        logits = loaded.model(**loaded.lm_tokenizer(text, return_tensors="pt")).logits
    return logits, loaded.complete([text], max_new_tokens=4)[0].text


class TestFamilies:
    @pytest.mark.parametrize(("family", "tied"), CASES, ids=lambda value: str(value))
    def test_ecg_rows_are_trained_and_merged(self, family, tied, extended, rows, small_prepared, tmp_path):
        base = extended(family, tied)
        assert base.tied == tied
        out = train(base.folder, rows, tmp_path / "out", train_ecg_rows="true")
        config = json.loads((out / "adapter_config.json").read_text())
        assert {name.rpartition(".")[2] for name in config["target_modules"]} == TARGETS[family]
        lm_tokenizer = AutoTokenizer.from_pretrained(out)
        ecg_tokenizer = EcgByteProcessor.from_pretrained(out / "ecg_byte").tokenizer
        ecg_ids = set(lm_tokenizer.convert_tokens_to_ids(ecg_token_strings(ecg_tokenizer)))
        (inputs, outputs), (new_inputs, new_outputs) = tables(base.folder), tables(out / "merged")
        changed = changed_rows(inputs, new_inputs)
        assert changed <= ecg_ids and len(changed) > 20
        assert changed_rows(outputs, new_outputs) == (changed if tied else set())
        # What the adapter alone says, with its trained rows and its scaled embeddings (Gemma) or Conv1D (GPT-2).
        (logits, answer), (merged_logits, merged_answer) = (
            logits_and_answer(folder, small_prepared) for folder in (out, out / "merged")
        )
        torch.testing.assert_close(logits, merged_logits, rtol=1e-4, atol=1e-4)
        assert answer == merged_answer

    @pytest.mark.parametrize("family", ["gpt2", "gemma2"])
    def test_frozen_rows_stay(self, family, extended, rows, small_prepared, tmp_path):
        base = extended(family).folder
        out = train(base, rows, tmp_path / "out")
        assert changed_rows(tables(base)[0], tables(out / "merged")[0]) == set()
        weights = load_file(out / "adapter_model.safetensors")
        assert all("lora_" in name for name in weights)
        assert all(value.any() for name, value in weights.items() if "lora_B" in name)

    def test_llamas_layers_that_gpt2_has_not(self, extended, rows, tmp_path):
        with pytest.raises(EcgError, match="Target modules .* not found.*`--lora_target_modules all-linear` takes"):
            train(extended("gpt2").folder, rows, tmp_path / "out", lora_target_modules="q_proj v_proj")

    def test_the_output_layer_as_a_target(self, extended, rows, tmp_path):
        with pytest.raises(EcgError, match="`lm_head` is not supported"):
            train(extended("gpt2", False).folder, rows, tmp_path / "out", lora_target_modules="c_attn lm_head")

    def test_an_unknown_family(self, tmp_path):
        with pytest.raises(VocabularyError, match="unknown family 'bert'; known: llama, gemma2"):
            make_tiny_llm(tmp_path, ["text"], family="bert")
