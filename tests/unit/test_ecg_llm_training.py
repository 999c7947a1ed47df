"""The second stage by the same commands: extended, encoded, trained, asked and compared with the controls."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sft_options import ON_CPU, break_off_after_a_batch, words
from tiny_ecg_llm import LEADS, ecg_values, fast_or_slow, make_ecg_llm, save_encoder
from tiny_encoders import PATCH, enable_checkpointing
from transformers import AutoModelForCausalLM

from ecgbyte_hf import EcgByteFeatureExtractor, EcgPatchConfig, EcgPatchModel, cli
from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.encoder_prompts import EncoderPrompter
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.data.row_signals import open_row_signals
from ecgbyte_hf.data.sources import prepare_synthetic
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.evaluation.backends import load_language_model
from ecgbyte_hf.evaluation.encoder_language_model import EncoderLanguageModel
from ecgbyte_hf.evaluation.generate import generate_answers, make_prompter
from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
from ecgbyte_hf.evaluation.perturbations import perturb
from ecgbyte_hf.models.auto import ENCODERS
from ecgbyte_hf.models.errors_ecg_byte import (
    BudgetError,
    EcgDataError,
    EcgError,
    EcgFileError,
    EncoderError,
    VocabularyError,
)
from ecgbyte_hf.models.modeling_ecg_llm import EcgLlmModel
from ecgbyte_hf.training import sft
from ecgbyte_hf.training.encoder_sft import EcgEncodings, EcgSignalCollator, adapt_lora, check_training
from ecgbyte_hf.training.extend_ecg_llm import extend_ecg_llm, load_encoder
from ecgbyte_hf.training.extend_llm import load_prompter
from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of

# TRL and PEFT use the old name, whatever is set; the new one is not known to all versions that setup.py allows.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

PROMPT = EcgPrompt(max_length=192, reserve=16)
HERE = ON_CPU | {"max_length": 192, "save_strategy": "no"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "resnet")


@pytest.fixture(scope="module")
def tiny_llama(small_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "text_vocab_size": 320}
    return str(make_tiny_llama(folder, texts_of(small_prepared, PROMPT), **sizes))


@pytest.fixture(scope="module")
def ecg_llm(encoder, tiny_llama, small_prepared, tmp_path_factory):
    """The folder of a ResNet in front of a Llama, whose features were standardised."""
    folder = tmp_path_factory.mktemp("ecg-llm") / "llm"
    return extend_ecg_llm(encoder, tiny_llama, folder, prompt=PROMPT, standardize_on=small_prepared).folder


@pytest.fixture(scope="module")
def rows(ecg_llm, small_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "rows"
    prompter = load_prompter(ecg_llm, small_prepared)
    encode_rows(small_prepared, folder, prompter, splits=["train", "validation"], question_types=["single-verify"])
    return folder


@pytest.fixture(scope="module")
def lively(ecg_llm, tmp_path_factory):
    """The model with a language model ten times as lively, so that its answers differ."""
    folder = shutil.copytree(ecg_llm, tmp_path_factory.mktemp("lively") / "llm")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "encoder" not in name:
                parameter.mul_(5.0)
    model.save_pretrained(folder)
    return EcgLanguageModel.load(folder, device="cpu")


class TestExtend:
    def test_the_command_makes_the_same_folder(self, encoder, ecg_llm, tiny_llama, small_prepared, tmp_path, capsys):
        given = {"encoder": encoder, "model": tiny_llama, "standardize-on": small_prepared.folder}
        given |= {"max-length": 192, "reserve": 16, "output": tmp_path / "llm"}
        assert cli.main(["extend-llm", *words(**given)]) == 0
        said = capsys.readouterr().out
        assert "frozen; projector of" in said and "1 tokens for each ECG" in said
        assert "standardised on 36 training records" in said
        mine, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "llm", ecg_llm))
        assert mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())
        assert json.loads((ecg_llm / "config.json").read_text())["model_type"] == "ecg_llm"
        assert EcgPrompt.load(ecg_llm) == PROMPT
        # No folder of this machine goes to the Hub with it.
        assert not any(str(encoder.parent) in path.read_text() for path in ecg_llm.glob("*.json"))

    def test_features_have_mean_zero_and_deviation_one(self, ecg_llm, small_prepared):
        asked = EcgLanguageModel.load(ecg_llm, device="cpu")
        inner = asked.model.model
        signals = [small_prepared.signal(ecg_id) for ecg_id in small_prepared.train_ecg_ids()]
        with torch.no_grad():
            features = inner.encode(asked.processor.ecg_values(signals))[:, 0]
        standard = (features - inner.projector.feature_mean) / inner.projector.feature_scale
        alive = features.std(dim=0) > 1e-3 * features.std(dim=0).max()
        assert alive.sum() > 4
        torch.testing.assert_close(standard.mean(dim=0), torch.zeros(16), atol=1e-3, rtol=0)
        torch.testing.assert_close(
            standard.std(dim=0, correction=0)[alive], torch.ones(int(alive.sum())), rtol=1e-3, atol=1e-3
        )

    def test_a_sequence_has_as_many_tokens_as_the_encoder_gives_for_a_record(self, encoder, tiny_llama, tmp_path):
        prompt = EcgPrompt(max_length=512, reserve=16)
        made = extend_ecg_llm(encoder, tiny_llama, tmp_path / "a", prompt=prompt, ecg_features="sequence")
        assert made.num_ecg_tokens == 250  # 1,000 samples, halved twice
        prompt = EcgPrompt(max_length=512, reserve=16, window_seconds=2.0)
        made = extend_ecg_llm(encoder, tiny_llama, tmp_path / "b", prompt=prompt, ecg_features="sequence")
        assert made.num_ecg_tokens == 50
        with pytest.raises(BudgetError, match="an ECG of 250 placeholders.*fewer --num-ecg-tokens"):
            extend_ecg_llm(encoder, tiny_llama, tmp_path / "c", prompt=PROMPT, ecg_features="sequence")

    def test_an_encoder_of_patches_is_shown_records_that_it_takes(self, tiny_llama, tmp_path):
        """At 50 Hz records of 3 s are 25 patches of 6 samples, and the 500 samples of 10 s are none."""
        extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=50, leads=LEADS)
        patches = EcgPatchModel(EcgPatchConfig(num_leads=len(LEADS), patch_size=6, **PATCH))
        patches.save_pretrained(tmp_path / "patch")
        extractor.save_pretrained(tmp_path / "patch")
        given = {"encoder_dir": tmp_path / "patch", "model_name_or_path": tiny_llama}
        extend_ecg_llm(**given, output_dir=tmp_path / "pooled", prompt=PROMPT)
        prepare_synthetic(tmp_path / "data", feature_extractor=extractor, num_records=12, duration=3.0)
        known = PreparedData(tmp_path / "data")
        made = {"ecg_features": "sequence", "standardize_on": known, "prompt": PROMPT}
        seen = known.signal(known.train_ecg_ids()[0])[None]
        with torch.no_grad():
            expected = patches(torch.tensor(seen)).last_hidden_state.shape[1]
        assert seen.shape[2] == 150
        assert extend_ecg_llm(**given, output_dir=tmp_path / "known", **made).num_ecg_tokens == expected
        windows = EcgPrompt(max_length=192, reserve=16, window_seconds=2.0)
        with pytest.raises(EncoderError, match="Got 100 samples, expected a multiple of patch_size=6"):
            extend_ecg_llm(**given, output_dir=tmp_path / "windows", prompt=windows)

    def test_pictures_are_cleaned_and_drawn_as_the_encoder_was_pretrained(self, tiny_llama, tmp_path):
        folder = save_encoder(tmp_path / "vit", "EcgVit")
        extend_ecg_llm(folder, tiny_llama, tmp_path / "llm", prompt=PROMPT)
        asked = EcgLanguageModel.load(tmp_path / "llm", device="cpu")
        signal = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
        assert asked.processor.ecg_values([signal]).shape == (1, 3, 32, 32)
        record = SimpleNamespace(signal=signal, sampling_rate=100, lead_names=LEADS)
        assert isinstance(asked.answer(record, "Is it regular?", max_new_tokens=2), str)

    def test_generation_never_writes_a_token_of_ecgs(self, ecg_llm):
        asked = EcgLanguageModel.load(ecg_llm, device="cpu")
        suppressed = asked.model.generation_config.suppress_tokens
        assert asked.lm_tokenizer.convert_ids_to_tokens(suppressed) == ["<|ecg_start|>", "<|ecg_end|>", "<|ecg|>"]

    def test_what_cannot_be_joined_is_refused(self, encoder, tiny_llama, ecg_llm, small_llm, tmp_path):
        with pytest.raises(EcgFileError, match=r"holds no config\.json; expected an encoder"):
            load_encoder(tmp_path)
        lost = shutil.copytree(encoder, tmp_path / "lost")
        (lost / "preprocessor_config.json").unlink()
        with pytest.raises(EcgFileError, match="which says how the encoder's signals are cleaned"):
            load_encoder(lost)
        EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=["I"]).save_pretrained(lost)
        with pytest.raises(EncoderError, match="does not take what its feature extractor gives"):
            extend_ecg_llm(lost, tiny_llama, tmp_path / "a", prompt=PROMPT)
        with pytest.raises(EcgError, match="with pooled features, which are one"):
            extend_ecg_llm(encoder, tiny_llama, tmp_path / "a", prompt=PROMPT, num_ecg_tokens=3)
        other = fast_or_slow(tmp_path / "other", num_records=12)
        config = json.loads((other.folder / "preprocessor_config.json").read_text())
        (other.folder / "preprocessor_config.json").write_text(json.dumps(config | {"sampling_rate": 50}))
        with pytest.raises(EcgDataError, match="sampling_rate is 50 here and 100 there"):
            extend_ecg_llm(
                encoder, tiny_llama, tmp_path / "a", prompt=PROMPT, standardize_on=PreparedData(other.folder)
            )
        assert not (tmp_path / "a" / "ecg_prompt.json").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "give --tokenizer (ECG tokens) or --encoder"),
            ({"encoder": "a", "tokenizer": "b"}, "give --tokenizer (ECG tokens) or --encoder"),
            (
                {"tokenizer": "b", "projector": "mlp", "num-ecg-tokens": 3},
                "--projector, --num-ecg-tokens without",
            ),
            ({"encoder": "a", "init": "mean"}, "got --init mean with --encoder"),
        ],
    )
    def test_options_that_do_not_go_together(self, options, message, capsys):
        assert cli.main(["extend-llm", *words(**options, output="o")]) == 1
        assert message in capsys.readouterr().err


class TestRows:
    def test_text_rows_are_prompts_with_places(self, ecg_llm, rows, small_prepared):
        row = pq.read_table(rows / "train.parquet").to_pylist()[0]
        assert row["prompt"].startswith("<|ecg_start|><|ecg|><|ecg_end|>\nQuestion: ")
        assert row["prompt"].count("<|ecg|>") == len(row["ecg_id"]) == 1
        report = json.loads((rows / "encode.json").read_text())
        assert report["signals"]["fingerprint"] == small_prepared.fingerprint
        assert open_row_signals(rows).signal(row["ecg_id"][0]).shape == (2, 1000)

    def test_grouped_rows_name_their_ecgs(self, ecg_llm, small_prepared, tmp_path):
        prompter = load_prompter(ecg_llm, small_prepared)
        encode_rows(small_prepared, tmp_path, prompter, splits=["test"], row_format="grouped", questions_per_row=3)
        made = pq.read_table(tmp_path / "test.parquet").to_pylist()
        place = prompter.lm_tokenizer.convert_tokens_to_ids("<|ecg|>")
        assert all(row["input_ids"].count(place) == len(row["ecg_id"]) for row in made)
        ends = [row["labels"].count(prompter.lm_tokenizer.eos_token_id) for row in made]
        assert max(ends) == 3 and sum(ends) == len(small_prepared.questions("test"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"row_format": "shared"}, "rows of the format shared for a model with an encoder"),
            ({"row_format": "ecg"}, "rows of the format ecg for a model with an encoder"),
            ({"augmentation": lambda ecg_id, signal: signal}, "an augmentation for a model with an encoder"),
        ],
    )
    def test_what_only_rows_of_ecg_tokens_can_be_is_refused(self, options, message, ecg_llm, small_prepared, tmp_path):
        prompter = load_prompter(ecg_llm, small_prepared)
        with pytest.raises(EcgDataError, match=message):
            encode_rows(small_prepared, tmp_path, prompter, splits=["test"], **options)

    def test_prompts_that_cannot_be_written_are_refused(self, ecg_llm, small_llm, small_prepared):
        prompter = load_prompter(ecg_llm, small_prepared)
        row = small_prepared.questions("test")[0]
        with pytest.raises(BudgetError, match="sample .* 60 ECGs of 1 placeholders.* do not fit in"):
            prompter.prompt_for(row | {"ecg_id": row["ecg_id"] * 60})
        others = load_prompter(small_llm, small_prepared).lm_tokenizer
        with pytest.raises(VocabularyError, match=r"tokenizer lacks <\|ecg\|>"):
            EncoderPrompter(prompter.ecg_tokenizer, others, prompter.prompt, small_prepared.signal)

    def test_windows_are_found_again(self, encoder, tiny_llama, small_prepared, tmp_path):
        windows = WindowedData(small_prepared.folder, 2.0, stride_seconds=1.0)
        extend_ecg_llm(encoder, tiny_llama, tmp_path / "llm", prompt=PROMPT)
        prompter = load_prompter(tmp_path / "llm", windows)
        encode_rows(windows, tmp_path / "rows", prompter, splits=["test"], question_types=["single-verify"])
        row = pq.read_table(tmp_path / "rows" / "test.parquet").to_pylist()[-1]
        found = open_row_signals(tmp_path / "rows")
        assert np.array_equal(found.signal(row["ecg_id"][0]), windows.signal(row["ecg_id"][0]))
        assert found.signal(row["ecg_id"][0]).shape == (2, 200)

    def test_moved_or_other_signals_are_refused_by_name(self, rows, small_prepared, small_ecg_byte, tmp_path):
        moved = shutil.copytree(rows, tmp_path / "rows")
        report = json.loads((rows / "encode.json").read_text())
        report["signals"]["folder"] = str(tmp_path / "gone")
        (moved / "encode.json").write_text(json.dumps(report))
        with pytest.raises(EcgDataError, match="gone, which is not there; name the prepared folder with --ecg_data"):
            open_row_signals(moved)
        assert open_row_signals(moved, small_prepared.folder).ecg_ids == small_prepared.ecg_ids
        other = fast_or_slow(tmp_path / "other", num_records=12)
        with pytest.raises(EcgDataError, match="holds other signals than when the rows"):
            open_row_signals(moved, other.folder)
        (moved / "encode.json").unlink()
        with pytest.raises(EcgDataError, match="does not name the signals of its rows"):
            open_row_signals(moved)


class TestCollator:
    def test_exact_ids_labels_and_signals(self, ecg_llm, small_prepared):
        prompter = load_prompter(ecg_llm, small_prepared)
        processor = EcgLanguageModel.load(ecg_llm, device="cpu").processor
        tokenizer = processor.tokenizer
        asked = small_prepared.questions("train")[:3]
        others = small_prepared.train_ecg_ids()
        asked[1] = asked[1] | {"ecg_id": [others[5], others[2]]}  # a comparison
        rows = []
        for row in asked:
            made = prompter.training_row(row)
            ids = tokenizer(made["prompt"])["input_ids"]
            answer = [*tokenizer(made["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            rows.append({"input_ids": ids + answer, "labels": [-100] * len(ids) + answer, "ecg_id": row["ecg_id"]})
        batch = EcgSignalCollator(processor, small_prepared)(rows)
        longest = max(len(row["input_ids"]) for row in rows)
        for number, row in enumerate(rows):
            padding = longest - len(row["input_ids"])
            assert batch["input_ids"][number].tolist() == row["input_ids"] + [tokenizer.pad_token_id] * padding
            assert batch["labels"][number].tolist() == row["labels"] + [-100] * padding
            assert batch["attention_mask"][number].tolist() == [1] * len(row["input_ids"]) + [0] * padding
        signals = [small_prepared.signal(ecg_id) for row in asked for ecg_id in row["ecg_id"]]
        assert torch.equal(batch["ecg_values"], torch.from_numpy(np.stack(signals)))
        # Loss on the answer and its end alone.
        kept = batch["labels"][0][batch["labels"][0] != -100].tolist()
        assert tokenizer.decode(kept) == prompter.training_row(asked[0])["completion"] + tokenizer.eos_token

    def test_rows_that_show_no_ecg_have_no_signals(self, ecg_llm, small_prepared):
        processor = EcgLanguageModel.load(ecg_llm, device="cpu").processor
        collator = EcgSignalCollator(processor, None)
        row = {"input_ids": [5, 6], "labels": [-100, 6], "ecg_id": [1]}
        assert "ecg_values" not in collator([row])
        place = processor.tokenizer.convert_tokens_to_ids("<|ecg|>")
        with pytest.raises(EcgDataError, match="got rows with ECGs and no prepared folder"):
            collator([row | {"input_ids": [place, 6]}])
        with pytest.raises(EcgDataError, match=r"1 placeholders for the ECGs \[1, 2\], expected 1 for each"):
            collator([row | {"input_ids": [place, 6], "ecg_id": [1, 2]}])


@pytest.fixture(scope="module")
def questions(small_prepared):
    return [row for row in small_prepared.questions("test") if row["question_type"] == "single-verify"][:8]


class TestViews:
    """What the encoder is given, in each of the controls."""

    def test_they_change_what_the_model_sees(self, lively, small_prepared, questions):
        assert isinstance(lively, EncoderLanguageModel)
        made = {}
        for view in ("true", "zero_signal", "shuffled", "question_only"):
            prompter = make_prompter(lively, small_prepared, questions, view=view, seed=1)
            assert isinstance(prompter, EncoderPrompter)
            made[view] = [prompter.prompt_for(row) for row in questions]
        first = questions[0]["ecg_id"][0]
        assert np.array_equal(made["true"][0].signals()[0], small_prepared.signal(first))
        assert not made["zero_signal"][0].signals()[0].any()
        other = made["shuffled"][0].signals()[0]
        assert not np.array_equal(other, small_prepared.signal(first))
        assert any(np.array_equal(other, small_prepared.signal(row["ecg_id"][0])) for row in questions)
        assert made["question_only"][0].signals is None and "<|ecg" not in made["question_only"][0].text
        scores = {
            view: [
                one.option_logprobs["yes"]
                for one in lively.complete(prompts, max_new_tokens=1, options=[["yes", "no"]] * len(prompts))
            ]
            for view, prompts in made.items()
        }
        assert all(scores[view] != scores["true"] for view in scores if view != "true")

    def test_a_batch_answers_as_one_by_one(self, lively, small_prepared, questions):
        prompter = make_prompter(lively, small_prepared, questions)
        prompts = [prompter.prompt_for(row) for row in small_prepared.questions("test")]
        together = lively.complete(prompts, max_new_tokens=6)
        assert together == [lively.complete([prompt], max_new_tokens=6)[0] for prompt in prompts]
        assert len({one.text for one in together}) > 3
        options = [["yes", "no", "sinus rhythm"]] * len(prompts)
        scored = lively.complete(prompts, max_new_tokens=1, options=options)
        alone = [lively.complete([prompt], max_new_tokens=1, options=options[:1])[0] for prompt in prompts]
        for one, other in zip(scored, alone, strict=True):
            assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=1e-4)

    def test_an_ecg_is_encoded_once_for_all_its_questions(self, lively, small_prepared, monkeypatch):
        asked = small_prepared.questions("test")
        prompter = make_prompter(lively, small_prepared, asked)
        lively._kept.clear()
        encoded = []
        real = type(lively.model.model).encode
        monkeypatch.setattr(
            type(lively.model.model), "encode", lambda self, v: (encoded.append(len(v)), real(self, v))[1]
        )
        lively.complete([prompter.prompt_for(row) for row in asked], max_new_tokens=1)
        assert encoded == [1] * len({ecg_id for row in asked for ecg_id in row["ecg_id"]})

    def test_texts_without_their_signals_are_refused(self, lively, small_prepared, questions, tmp_path):
        prompt = make_prompter(lively, small_prepared, questions).prompt_for(questions[0])
        with pytest.raises(EcgDataError, match="places of ECGs and no signals"):
            lively.complete([prompt.text], max_new_tokens=1)
        with pytest.raises(EcgDataError, match="cannot be shared: the model reads an ECG through an"):
            generate_answers(
                lively,
                questions,
                make_prompter(lively, small_prepared, questions),
                small_prepared.template_options(),
                tmp_path / "never.jsonl",
                shared_prefix="on",
            )

    def test_a_broken_run_goes_on(self, lively, small_prepared, questions, tmp_path):
        prompter = make_prompter(lively, small_prepared, questions)
        options = small_prepared.template_options()
        settings = {"batch_size": 3, "max_new_tokens": 4}
        whole = generate_answers(lively, questions, prompter, options, tmp_path / "a.jsonl", **settings).read_bytes()
        break_off_after_a_batch(lively, questions, prompter, options, tmp_path / "b.jsonl", **settings)
        resumed = generate_answers(lively, questions, prompter, options, tmp_path / "b.jsonl", **settings)
        assert resumed.read_bytes() == whole
        worse = make_prompter(lively, perturb(PreparedData(small_prepared.folder), ["noise=0.5"], seed=0), questions)
        assert not np.array_equal(
            worse.prompt_for(questions[0]).signals()[0], prompter.prompt_for(questions[0]).signals()[0]
        )

    def test_a_file_is_asked_about_by_pipeline_and_ask(self, lively, small_prepared):
        from transformers import pipeline

        ecg_id = small_prepared.questions("test")[0]["ecg_id"][0]
        record = SimpleNamespace(signal=small_prepared.signal(ecg_id), sampling_rate=100, lead_names=LEADS)
        asked = ["Is it regular?", "Is it fast?"]
        expected = [one.text for one in lively.answer_all(record, asked, max_new_tokens=4)]
        pipe = pipeline("ecg-question-answering", model=lively)
        given = [{"ecg": record, "question": question} for question in asked]
        assert [one["answer"] for one in pipe(given, max_new_tokens=4)] == expected


@pytest.fixture(scope="module")
def train(ecg_llm, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")

    def call(name="out", **options):
        given = {"model_name_or_path": ecg_llm, "dataset_name": rows, "output_dir": folder / name}
        given |= HERE | {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2} | options
        return sft.train(words(**given))

    return call


class TestSft:
    def test_lora_on_the_language_model_the_projector_whole_and_the_encoder_not(self, train, ecg_llm, small_prepared):
        out = train("lora", use_peft="true", lora_target_modules="q_proj v_proj", merge="true")
        adapter = load_file(out / "adapter_model.safetensors")
        assert adapter and not any("encoder" in name for name in adapter)
        assert {name for name in adapter if "projector" not in name} == {
            f"base_model.model.model.language_model.layers.0.self_attn.{layer}.lora_{part}.weight"
            for layer in ("q_proj", "v_proj")
            for part in "AB"
        }
        before, merged = (load_file(folder / "model.safetensors") for folder in (ecg_llm, out / "merged"))
        changed = {name for name, value in merged.items() if not torch.equal(value, before[name])}
        assert changed == {
            "model.projector.projections.0.weight",
            "model.projector.projections.0.bias",
            "model.language_model.layers.0.self_attn.q_proj.weight",
            "model.language_model.layers.0.self_attn.v_proj.weight",
        }
        asked = small_prepared.questions("test")[:4]
        answers = []
        for folder in (out, out / "merged"):
            model = EcgLanguageModel.load(folder, device="cpu")
            assert type(model) is EncoderLanguageModel
            prompter = make_prompter(model, small_prepared, asked)
            made = model.complete([prompter.prompt_for(row) for row in asked], max_new_tokens=4, options=[["yes"]] * 4)
            answers.append([(one.text, pytest.approx(one.option_logprobs["yes"], abs=1e-3)) for one in made])
        assert answers[0] == answers[1]

    def test_without_lora_all_but_the_encoder_is_trained(self, train, ecg_llm):
        out = train("full")
        before, after = (load_file(folder / "model.safetensors") for folder in (ecg_llm, out))
        assert before.keys() == after.keys()
        for name, value in after.items():
            kept = "encoder" in name or "feature_" in name
            assert torch.equal(value, before[name]) == kept, name
        assert (out / "training_log.json").is_file() and EcgPrompt.load(out) == PROMPT
        with pytest.raises(EcgDataError, match="reads ECGs through an encoder, which vllm does not have"):
            load_language_model("vllm", out)

    def test_the_encoder_can_be_trained_too(self, train, ecg_llm):
        out = train("whole", train_encoder="true")
        before, after = (load_file(folder / "model.safetensors") for folder in (ecg_llm, out))
        assert not torch.equal(after["model.encoder.stem.0.weight"], before["model.encoder.stem.0.weight"])

    def test_a_resumed_run_ends_like_a_whole_one(self, train):
        options = {"use_peft": "true", "lora_target_modules": "q_proj", "lora_dropout": 0.1}
        options |= {"save_strategy": "steps", "save_steps": 1}
        whole = train("steps", **options)
        resumed = train("resumed", resume_from_checkpoint=whole / "checkpoint-1", **options)
        kept, again = (load_file(folder / "adapter_model.safetensors") for folder in (whole, resumed))
        assert kept.keys() == again.keys()
        for name, value in kept.items():
            # An ECG may be encoded in another batch, which changes its last digits.
            torch.testing.assert_close(value, again[name], rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("case", ["kept", "not-asked-for", "workers", "trained"])
    def test_a_frozen_encoder_reads_each_ecg_once_whatever_the_epochs(self, case, train, rows, monkeypatch):
        encoded = []
        real = EcgLlmModel.encode

        def encode(self, values):
            encoded.append(len(values))
            return real(self, values)

        monkeypatch.setattr(EcgLlmModel, "encode", encode)
        options = {
            "kept": {"use_peft": "true", "lora_target_modules": "q_proj"},
            "not-asked-for": {"keep_encodings": "false"},
            "workers": {"dataloader_num_workers": 1},
            "trained": {"train_encoder": "true"},
        }[case]
        shown = [ecg_id for row in pq.read_table(rows / "train.parquet").to_pylist() for ecg_id in row["ecg_id"]]
        steps = 2 * len(shown) // 12  # two epochs
        options |= {"max_steps": steps, "per_device_train_batch_size": 12}
        out = train(f"once-{case}", logging_steps=1, **options)
        assert sum(encoded) == (len(set(shown)) if case == "kept" else 2 * len(shown))
        assert len(set(shown)) < len(shown)
        if case == "kept":
            encoded.clear()
            plain = train("every-time", logging_steps=1, keep_encodings="false", **options)
            found, expected = (
                [entry["loss"] for entry in json.loads((folder / "training_log.json").read_text())["history"][:steps]]
                for folder in (out, plain)
            )
            assert found == pytest.approx(expected, rel=1e-4) and sum(encoded) == 2 * len(shown)

    def test_encodings_that_do_not_fit_are_made_anew(self, lively, small_prepared, caplog):
        collator = EcgSignalCollator(lively.processor, small_prepared)
        ecg_ids = small_prepared.train_ecg_ids()[:3]
        expected = lively.model.model.encode(collator.ecg_values(ecg_ids))
        encodings = EcgEncodings(lively.model, collator.ecg_values, max_bytes=2 * expected[0].nbytes)
        for asked in (ecg_ids, ecg_ids, ecg_ids[::-1] + ecg_ids[:1]):
            places = [ecg_ids.index(ecg_id) for ecg_id in asked]
            torch.testing.assert_close(encodings(asked), expected[places], rtol=1e-4, atol=1e-5)
        assert len(encodings._kept) == 2
        assert [record.getMessage() for record in caplog.records if "encodings" in record.getMessage()] == [
            "the encodings of 2 ECGs fill their memory; other ECGs are encoded whenever they are shown"
        ]
        assert not expected.requires_grad and not torch.allclose(expected[0], expected[1])

    @pytest.mark.parametrize("name", [encoder.prefix for encoder in ENCODERS])
    def test_lora_beside_a_trained_encoder_is_merged_and_loaded_whole(self, name, tmp_path):
        """Whatever is trained is in the adapter and in the merged model, of an encoder in an encoder too."""
        from peft import LoraConfig, PeftModel, get_peft_model

        make_ecg_llm(name).save_pretrained(tmp_path / "base")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", freeze_encoder=False)
        config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
        adapt_lora(config, model.config, train_encoder=True)
        adapted = get_peft_model(model, config)
        generator = torch.Generator().manual_seed(4)
        trained = {key: value for key, value in adapted.named_parameters() if value.requires_grad}
        number = sum(value.numel() for key, value in trained.items() if ".encoder." in key)
        assert number == sum(value.numel() for value in make_ecg_llm(name).model.encoder.parameters())
        with torch.no_grad():
            for value in trained.values():
                value += 0.05 * torch.randn(value.shape, generator=generator)
        ids = torch.tensor([[5, 49, 6, 7], [8, 49, 9, 5]])
        values = ecg_values(name, 2)
        before = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        adapted.save_pretrained(tmp_path / "adapter")
        loaded = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
        )
        with torch.no_grad():
            features = adapted.get_ecg_features(values)
            logits = adapted.eval()(input_ids=ids, ecg_values=values).logits
            assert not torch.allclose(before.model.encode(values), adapted.get_base_model().model.encode(values))
            assert torch.equal(loaded.eval()(input_ids=ids, ecg_values=values).logits, logits)
            loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
            merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
            assert torch.equal(merged.get_ecg_features(values), features)
            torch.testing.assert_close(merged(input_ids=ids, ecg_values=values).logits, logits, rtol=1e-4, atol=1e-4)

    def test_an_encoder_that_peft_cannot_name_is_refused(self, monkeypatch):
        from peft import LoraConfig

        nested = torch.nn.Module()
        nested.encoder = torch.nn.Linear(2, 2)
        nested.token = torch.nn.Parameter(torch.zeros(2))
        monkeypatch.setattr("ecgbyte_hf.models.encoder_ecg_llm.encoder_model", lambda config: nested)
        config = LoraConfig(target_modules=["q_proj"])
        settings = SimpleNamespace(encoder_config=None)
        with pytest.raises(EcgError, match="train without --use_peft, or leave --train_encoder out"):
            adapt_lora(config, settings, train_encoder=True)
        adapt_lora(config, settings, train_encoder=False)
        assert config.modules_to_save == ["projector"]

    def test_a_trained_vit_is_resumed_and_its_best_kept(self, train, tiny_llama, tmp_path):
        extend_ecg_llm(save_encoder(tmp_path / "vit", "EcgVit"), tiny_llama, tmp_path / "llm", prompt=PROMPT)
        options = {"model_name_or_path": tmp_path / "llm", "train_encoder": "true"}
        options |= {"save_strategy": "steps", "save_steps": 1}
        best = {
            "dataset_test_split": "validation",
            "eval_strategy": "steps",
            "eval_steps": 1,
            "load_best_model_at_end": "true",
        }
        # The worst, which is the first: the last would be there already.
        best |= {"metric_for_best_model": "eval_loss", "greater_is_better": "true"}
        whole = train("vit", **options)
        resumed = train("vit-resumed", resume_from_checkpoint=whole / "checkpoint-1", **options)
        kept = train("vit-best", **options, **best)
        state = json.loads((kept / "checkpoint-2" / "trainer_state.json").read_text())
        assert state["best_global_step"] == 1
        for folder, expected in ((resumed, whole), (kept, whole / "checkpoint-1")):
            found, wanted = (load_file(path / "model.safetensors") for path in (folder, expected))
            assert found.keys() == wanted.keys()
            assert [name for name, value in found.items() if not torch.equal(value, wanted[name])] == []

    def test_a_checkpoint_whose_writing_was_broken_off_is_passed_over(self, train, caplog):
        options = {"use_peft": "true", "lora_target_modules": "q_proj", "save_strategy": "steps", "save_steps": 1}
        whole = train("killed", **options)
        kept = load_file(whole / "adapter_model.safetensors")
        (whole / "checkpoint-2" / "trainer_state.json").unlink()
        train("killed", resume_from_checkpoint="true", **options)
        assert "checkpoint-2 was passed over: it has no whole trainer_state.json" in caplog.text
        again = load_file(whole / "adapter_model.safetensors")
        assert kept.keys() == again.keys() and all(torch.equal(value, again[name]) for name, value in kept.items())
        for number in (1, 2):
            (whole / f"checkpoint-{number}" / "trainer_state.json").write_text("{")
        with pytest.raises(EcgDataError, match="has no checkpoint to go on from"):
            train("killed", resume_from_checkpoint="true", **options)
        with pytest.raises(EcgDataError, match="checkpoint-2 is no checkpoint that was written to its end"):
            train("killed", resume_from_checkpoint=whole / "checkpoint-2", **options)

    def test_several_processes_take_batches_without_ecgs(self, tmp_path):
        """DDP refuses the second step where the first left a parameter without gradient, unless it is told."""
        model = make_ecg_llm().train()
        training = SimpleNamespace(packing=False, padding_free=False, remove_unused_columns=True)
        training.gradient_checkpointing_kwargs, training.ddp_find_unused_parameters = None, None
        check_training(training, None)
        assert training.remove_unused_columns is False
        enable_checkpointing(model)
        ids = torch.tensor([[5, 6, 7]])
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
        try:
            shared = torch.nn.parallel.DistributedDataParallel(
                model, find_unused_parameters=training.ddp_find_unused_parameters
            )
            for _ in range(2):
                shared(input_ids=ids, labels=ids).loss.backward()
            shared(
                input_ids=torch.tensor([[5, 49, 7]]), ecg_values=ecg_values("EcgResNet", 1), labels=ids
            ).loss.backward()
        finally:
            torch.distributed.destroy_process_group()
        assert training.gradient_checkpointing_kwargs == {"use_reentrant": False}
        for given, found in ((True, None), (False, True)):
            training.gradient_checkpointing_kwargs = {"use_reentrant": given}
            training.ddp_find_unused_parameters = None
            check_training(training, None)
            assert training.ddp_find_unused_parameters is found

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"packing": "true"}, EcgError, "--packing and --padding_free put rows behind one another"),
            ({"pack_shared_rows": "true"}, EcgError, "--pack_shared_rows is for rows of ECG tokens"),
            ({"max_length": 100}, BudgetError, "give --max_length 192"),
            ({"dataset_name": "small_rows"}, EcgDataError, "needs rows that name their ECGs"),
            ({"ecg_data": "nowhere"}, EcgDataError, "nowhere, which is not there; name the prepared folder with"),
        ],
    )
    def test_what_would_go_wrong_is_refused(self, options, error, message, train, tmp_path):
        if "dataset_name" in options:
            other = {"input_ids": [[5, 6]], "labels": [[-100, 6]]}
            pq.write_table(pa.table(other), tmp_path / "train.parquet")
            options = {"dataset_name": tmp_path}
        with pytest.raises(error, match=message):
            train(**options)

    def test_options_of_an_encoder_are_refused_for_ecg_tokens(self, train, small_llm):
        with pytest.raises(EcgError, match="are for a model of `ecgbyte extend-llm --encoder`"):
            train(model_name_or_path=small_llm, max_length=384, train_encoder="true")

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            (None, {"q_proj", "v_proj"}),
            (["o_proj"], {"o_proj"}),
            ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ],
    )
    def test_lora_finds_layers_of_the_language_model_only(self, given, names, ecg_llm):
        from peft import LoraConfig, get_peft_model

        model = AutoModelForCausalLM.from_pretrained(ecg_llm)
        config = LoraConfig(target_modules=given)
        adapt_lora(config, model.config, train_encoder=False)
        adapted = get_peft_model(model, config)
        found = {name for name, _ in adapted.named_modules() if name.endswith(".lora_A.default")}
        assert {name.split(".")[-3] for name in found} == names
        assert all(".language_model." in name for name in found)
        whole = {name for name, _ in adapted.named_modules() if name.endswith("modules_to_save.default")}
        assert {name.split(".")[-3] for name in whole} == {"projector"}


@pytest.mark.slow
def test_training_finds_an_answer_that_is_in_the_signal_alone(tmp_path):
    """Whether waves are fast, by a random frozen encoder: right on unseen records, and half right without them."""
    prepared = fast_or_slow(tmp_path / "prepared", num_records=300)
    data, llm = ["--data", str(prepared.folder)], tmp_path / "llm"
    given = {"encoder": save_encoder(tmp_path / "encoder"), "tiny-from": prepared.folder, "output": llm}
    run = [*words(**given, reserve=16), "--max-length", "192", "--tiny-size", "32", "1", "300"]
    assert cli.main(["extend-llm", *run]) == 0
    answers = {}
    for shown in ("true", "question_only"):
        rows, trained = tmp_path / shown, tmp_path / f"{shown}-llm"
        assert cli.main(["encode", *data, *words(model=llm, view=shown, output=rows, splits="train")]) == 0
        options = HERE | {"max_steps": 60, "per_device_train_batch_size": 16, "learning_rate": 5e-3}
        sft.train(words(model_name_or_path=llm, dataset_name=rows, output_dir=trained, **options))
        for view in ("question_only",) if shown == "question_only" else ("true", "zero_signal", "shuffled"):
            answers[view] = tmp_path / f"{view}.jsonl"
            asked = words(model=trained, split="test", view=view, output=answers[view], device="cpu")
            assert cli.main(["generate", *data, *asked, "--max-new-tokens", "3"]) == 0
    controls = [word for name in answers if name != "true" for word in ("--control", f"{name}={answers[name]}")]
    scored = words(predictions=answers["true"], output=tmp_path / "report.json")
    assert cli.main(["evaluate", *data, *scored, *controls]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exact_match"]["overall"] > 0.95
    assert all(control["overall"] < 0.8 for control in report["controls"].values())
