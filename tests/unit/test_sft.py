"""`ecgbyte sft` on a tiny Llama: TRL's options, what is trained, and folders that `ecgbyte generate` takes."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sft_options import ON_CPU, words
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecgbyte_hf import cli
from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.fingerprints import weights_fingerprint
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.evaluation.generate import EcgLanguageModel
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, EcgError, EcgFileError
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.training import sft
from ecgbyte_hf.training.extend_llm import extend_llm, load_prompter
from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of

# TRL and PEFT use the old name, whatever is set; the new one is not known to all versions that setup.py allows.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

RECIPES = sorted((Path(__file__).parents[2] / "scripts" / "recipes").glob("*.yaml"))
NAMES = {"model_name_or_path": "model", "dataset_name": "rows"}
FEW_STEPS = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
LORA = {"use_peft": "true", "lora_target_modules": "q_proj v_proj", "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def rows(small_prepared, small_llm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft") / "rows"
    prompter = load_prompter(small_llm, small_prepared)
    encode_rows(small_prepared, folder, prompter, splits=["train", "validation"], question_types=["single-verify"])
    return folder


@pytest.fixture
def train(small_llm, rows, tmp_path):
    def call(name="out", *, base=small_llm, config=None, **options):
        given = {"model_name_or_path": base, "dataset_name": rows, "output_dir": tmp_path / name}
        given |= ON_CPU | FEW_STEPS | {"save_strategy": "no"} | options
        return sft.train([*(["--config", str(config)] if config else []), *words(**given)])

    return call


def ecg_ids(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [index for text, index in tokenizer.get_vocab().items() if text.startswith("<|ecg_") and "pad" not in text]


def answers(folder, prepared):
    """What a model says to two test questions, by the way of `ecgbyte generate`."""
    model = EcgLanguageModel.load(folder, device="cpu")
    prompter = load_prompter(folder, prepared)
    prompts = [prompter.prompt_for(row).text for row in prepared.questions("test")[:2]]
    return [completion.text for completion in model.complete(prompts, max_new_tokens=8)]


class TestRecipes:
    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
    def test_trl_knows_every_key(self, recipe):
        arguments = ["--config", str(recipe), *words(**ON_CPU, **NAMES)]
        options, from_file, from_line = sft.parse_options(arguments)
        assert from_file == from_line == []
        assert options.training.max_length == 1024 and options.model.use_peft
        text = recipe.read_text()
        if "trl sft --config" in text:
            assert not any(field.name in text for field in fields(sft.EcgArguments))

    def test_an_unknown_key_is_seen(self, tmp_path):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("learning_rat: 1.0e-4\n")
        _, from_file, _ = sft.parse_options(["--config", str(recipe), *words(**ON_CPU, **NAMES)])
        assert from_file == ["--learning_rat", "0.0001"]

    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
    def test_trains_and_answers(self, recipe, train, small_prepared):
        steps = {"save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
        out = train(config=recipe, **steps)
        state = json.loads((out / "checkpoint-2" / "trainer_state.json").read_text())
        losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
        assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
        assert len(answers(out, small_prepared)) == 2
        assert (out / "merged").is_dir() == ("merge: true" in recipe.read_text())


def embeddings(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


def changed_rows(before, after):
    return (before != after).any(dim=1).nonzero().flatten().tolist()


@pytest.fixture(scope="module")
def separate_llm(small_prepared, small_ecg_byte, small_llm, tmp_path_factory):
    """Like `small_llm`, with an output layer of its own."""
    folder = tmp_path_factory.mktemp("separate")
    prompt = EcgPrompt.load(small_llm / "ecg_byte")
    texts = texts_of(small_prepared, prompt)
    make_tiny_llama(folder, texts, hidden_size=32, num_layers=1, num_heads=2, tie_word_embeddings=False)
    processor = EcgByteProcessor.from_pretrained(small_ecg_byte)
    return extend_llm(str(folder), processor, folder / "extended", prompt=prompt).folder


class TestEcgRows:
    @pytest.mark.parametrize("base", ["small_llm", "separate_llm"])
    def test_they_alone_change_and_merging_keeps_the_tie(self, base, train, request, small_prepared):
        base = request.getfixturevalue(base)
        out = train(base=base, train_ecg_rows="true", merge="true", **LORA)
        inputs, outputs = embeddings(base)
        new_inputs, new_outputs = embeddings(out / "merged")
        tied = AutoModelForCausalLM.from_pretrained(base).config.tie_word_embeddings
        changed = changed_rows(inputs, new_inputs)
        assert set(changed) <= set(ecg_ids(base)) and len(changed) > 20
        assert changed_rows(outputs, new_outputs) == (changed if tied else [])
        merged = AutoModelForCausalLM.from_pretrained(out / "merged")
        assert (merged.get_input_embeddings().weight is merged.get_output_embeddings().weight) == tied

    def test_merged_model_answers_as_the_adapter(self, train, small_prepared):
        out = train(train_ecg_rows="true", merge="true", **LORA)
        row = load_prompter(out, small_prepared).prompt_for(small_prepared.questions("test")[0])
        logits = []
        for folder in (out, out / "merged"):
            loaded = EcgLanguageModel.load(folder, device="cpu")
            with torch.no_grad():
                logits.append(loaded.model(**loaded.lm_tokenizer(row.text, return_tensors="pt")).logits)
        torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
        assert answers(out, small_prepared) == answers(out / "merged", small_prepared)
        block = json.loads((out / "training_log.json").read_text())["provenance"]
        assert block["weights"] == weights_fingerprint(out) != block["merged_weights"]
        assert block["merged_weights"] == weights_fingerprint(out / "merged")
        for name in ("ecg_byte.json", "ecg_prompt.json", "preprocessor_config.json"):
            same = [folder / "ecg_byte" / name for folder in (out, out / "merged")]
            assert same[0].read_bytes() == same[1].read_bytes()

    def test_they_stay_frozen_by_default(self, train, small_llm):
        out = train(merge="true", **LORA)
        assert changed_rows(embeddings(small_llm)[0], embeddings(out / "merged")[0]) == []
        assert not any("embed_tokens" in name for name in load_file(out / "adapter_model.safetensors"))

    def test_without_lora_everything_is_trained(self, train, small_llm, small_prepared):
        out = train(learning_rate=1e-2)
        assert len(changed_rows(embeddings(small_llm)[0], embeddings(out)[0])) > 100
        assert len(answers(out, small_prepared)) == 2


class TestRuns:
    @pytest.mark.parametrize("where", ["checkpoint-1", "true"])
    def test_a_resumed_run_ends_like_a_whole_one(self, where, train, tmp_path):
        options = LORA | {"train_ecg_rows": "true", "save_strategy": "steps", "save_steps": 1, "lora_dropout": 0.1}
        whole = load_file(train("whole", **options) / "adapter_model.safetensors")
        (tmp_path / "broken").mkdir()
        shutil.copytree(tmp_path / "whole" / "checkpoint-1", tmp_path / "broken" / "checkpoint-1")
        given = where if where == "true" else tmp_path / "broken" / where
        resumed = load_file(train("broken", resume_from_checkpoint=given, **options) / "adapter_model.safetensors")
        assert whole.keys() == resumed.keys()
        for name, value in whole.items():
            torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)

    def test_early_stopping_keeps_the_best(self, train):
        """With such a learning rate every step makes it worse."""
        steps = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 9}
        best = {"load_best_model_at_end": "true", "dataset_test_split": "validation"}
        out = train(early_stopping_patience=2, **LORA | {"learning_rate": 50}, **steps, **best)
        numbers = sorted(int(path.name.partition("-")[2]) for path in out.glob("checkpoint-*"))
        assert numbers[-1] < 9
        history = json.loads((out / f"checkpoint-{numbers[-1]}" / "trainer_state.json").read_text())["log_history"]
        losses = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
        first = min(losses, key=lambda step: losses[step])
        assert numbers[-1] == first + 2
        kept, expected = (
            load_file(folder / "adapter_model.safetensors") for folder in (out, out / f"checkpoint-{first}")
        )
        assert all(torch.equal(value, expected[name]) for name, value in kept.items())

    def test_packed_rows_do_not_see_one_another(self, train, rows, tmp_path):
        table = pq.read_table(rows / "train.parquet")
        two = tmp_path / "two"
        two.mkdir()
        # Of different ECGs, so that a row could tell something by seeing the other.
        pq.write_table(table.take([0, table.num_rows - 1]), two / "train.parquet")
        seen = {}
        for packing, batch in (("false", 2), ("true", 1)):
            steps = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "logging_steps": 1, "learning_rate": 0}
            out = train(packing, dataset_name=two, packing=packing, **steps, per_device_train_batch_size=batch)
            history = json.loads((out / "checkpoint-1" / "trainer_state.json").read_text())["log_history"]
            seen[packing] = [history[0][name] for name in ("loss", "grad_norm", "num_tokens")]
        assert seen["true"] == pytest.approx(seen["false"], rel=1e-4)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"train_ecg_rows": "true"}, EcgError, "--train_ecg_rows has a meaning with --use_peft only"),
            ({"merge": "true"}, EcgError, "--merge has a meaning with --use_peft only"),
            ({"max_length": 383}, BudgetError, "answers would be cut off; give --max_length 384"),
            ({"early_stopping_patience": 0}, EcgError, "got --early_stopping_patience 0, expected at least 1"),
            ({"early_stopping_patience": 2}, EcgError, "needs --load_best_model_at_end true"),
            ({"load_best_model_at_end": "true", "save_strategy": "steps"}, EcgError, "requires the save and eval"),
            (
                {"eval_strategy": "steps"},
                EcgDataError,
                "no rows of --dataset_test_split test; there are: train, valid",
            ),
            ({"dataset_train_split": "fit"}, EcgDataError, "no rows of --dataset_train_split fit"),
            ({"resume_from_checkpoint": "true"}, EcgDataError, "has no checkpoint to go on from"),
            ({"model_name_or_path": "llama-ecg"}, EcgFileError, "llama-ecg is not there; expected a folder that"),
            ({"learning_rat": 1}, EcgError, "unknown: --learning_rat 1; try `ecgbyte sft --help`"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_what_would_be_passed_over_or_go_wrong(self, options, error, message, train):
        with pytest.raises(error, match=message):
            train(**options)

    def test_what_is_always_needed(self):
        for name in NAMES:
            others = {other: value for other, value in NAMES.items() if other != name}
            with pytest.raises(EcgError, match=f"--{name} is missing"):
                sft.parse_options(words(**ON_CPU, **others))

    def test_a_model_that_was_not_extended(self, train, tmp_path):
        with pytest.raises(EcgDataError, match="make the folder with `ecgbyte extend-llm`"):
            train(base=tmp_path)

    def test_a_value_of_another_type(self, capsys):
        with pytest.raises(SystemExit) as caught:
            sft.parse_options(words(**ON_CPU, **NAMES, max_steps="many"))
        assert caught.value.code == 2
        assert capsys.readouterr().err == (
            "ecgbyte sft: argument --max_steps/--max-steps: invalid int value: 'many'\nTry `ecgbyte sft --help`.\n"
        )

    def test_a_file_that_is_no_yaml(self, tmp_path):
        (tmp_path / "recipe.yaml").write_text("a: [")
        with pytest.raises(EcgError, match="while parsing a flow node"):
            sft.parse_options(["--config", str(tmp_path / "recipe.yaml")])

    def test_a_gated_model_names_the_login(self, monkeypatch, capsys):
        from huggingface_hub.errors import GatedRepoError

        def refuse(*_, **__):
            response = SimpleNamespace(headers={}, request=None)
            raise GatedRepoError("401 Client Error.\n\nCannot access gated repo for url a/b.", response=response)

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        given = words(**ON_CPU | NAMES | {"model_name_or_path": "a/b"})
        assert cli.main(["sft", *given]) == 1
        said = capsys.readouterr().err.strip()
        assert said.count("\n") == 0 and "a/b is gated" in said and "`hf auth login`" in said


class TestCommand:
    def test_options_of_our_own_are_in_the_help(self):
        shown = cli.build_parser()[1]["sft"].format_help()
        assert all(f"--{field.name} " in shown for field in fields(sft.EcgArguments))

    def test_words_for_the_launch_are_taken_out_once(self):
        given = ["--a", "2", "--num_processes", "2", "--b", "2"]
        assert sft._without(given, ["--num_processes", "2"]) == ["--a", "2", "--b", "2"]

    def test_trains_in_a_launch(self, small_llm, rows, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        given = {"model_name_or_path": small_llm, "dataset_name": rows, "output_dir": tmp_path / "out"}
        given |= ON_CPU | FEW_STEPS | {"save_strategy": "no", "num_processes": 1}
        assert cli.main(["sft", *words(**given)]) == 0
        assert (tmp_path / "out" / "model.safetensors").is_file()
        assert EcgPrompt.load(tmp_path / "out" / "ecg_byte").max_length == 384

    def test_what_goes_wrong_inside_is_said_once(self, small_llm, rows, capfd):
        given = {"model_name_or_path": small_llm, "dataset_name": rows, "max_length": 100}
        assert cli.main(["sft", *words(**ON_CPU, **given)]) == 1
        said = capfd.readouterr().err
        assert said.count("give --max_length 384") == 1 and "Traceback" not in said

    def test_an_option_that_nobody_knows(self, small_llm, rows, capsys):
        given = ON_CPU | {"model_name_or_path": small_llm, "dataset_name": rows, "colour": "red"}
        assert cli.main(["sft", *words(**given)]) == 1
        assert capsys.readouterr().err == "ecgbyte sft: unknown: --colour; try `ecgbyte sft --help`\n"
