"""New rows in a language model: only where they belong, before any training, for stock classes to load."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
)

from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, EcgError, VocabularyError
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer
from ecgbyte_hf.training.extend_llm import (
    ROW_INITS,
    ecg_token_strings,
    extend_llm,
    init_rows,
    load_prompter,
    save_ecg_parts,
)
from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of
from ecgbyte_hf.training.token_waveforms import token_waveforms

PROMPT = EcgPrompt(max_length=200, reserve=16)
COMMON = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
# (configuration, embedding rows beyond the tokenizer's)
OTHERS = {
    "gemma": (GemmaConfig(**COMMON, num_key_value_heads=1, head_dim=16, intermediate_size=64), 0),
    # Like the real one, with rows in reserve: 40 of the 88 new tokens find one.
    "qwen2": (Qwen2Config(**COMMON, num_key_value_heads=1, intermediate_size=64, tie_word_embeddings=True), 40),
    "gpt2": (GPT2Config(n_embd=32, n_head=2, n_layer=1, n_positions=256), 0),
}


@pytest.fixture(scope="module")
def processor(small_ecg_byte):
    return EcgByteProcessor.from_pretrained(small_ecg_byte)


@pytest.fixture(scope="module", params=["llama-tied", "llama-separate", *OTHERS])
def base(request, small_prepared, tmp_path_factory):
    """A tiny random model of each family with a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    tied = request.param != "llama-separate"
    texts = texts_of(small_prepared, PROMPT)
    make_tiny_llama(
        folder, texts, hidden_size=32, num_layers=1, num_heads=2, text_vocab_size=300, tie_word_embeddings=tied
    )
    if request.param in OTHERS:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config, spare = OTHERS[request.param]
        config.vocab_size = len(tokenizer) + spare
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def rows_of(model):
    return model.get_input_embeddings().weight.detach().float(), model.get_output_embeddings().weight.detach().float()


@pytest.fixture(scope="module")
def made(base, processor, tmp_path_factory):
    return extend_llm(str(base), processor, tmp_path_factory.mktemp("extended") / "out", prompt=PROMPT)


class TestEveryFamily:
    def test_every_ecg_token_is_one_id_between_any_neighbours(self, made, processor):
        tokenizer = AutoTokenizer.from_pretrained(made.folder)
        texts = ecg_token_strings(processor.tokenizer)
        assert len(texts) == 88 == made.num_added
        ids = tokenizer.convert_tokens_to_ids(texts)
        assert len(set(ids)) == 88 and tokenizer.unk_token_id not in ids
        order = np.random.default_rng(0).integers(0, 88, 2000).tolist()
        assert tokenizer("".join(texts[i] for i in order), add_special_tokens=False)["input_ids"] == [
            ids[i] for i in order
        ]
        for around in ("a{}b", " {} ", "\n{}\n", ".{}Question"):
            before, after = around.split("{}")
            got = tokenizer(around.format(texts[5]), add_special_tokens=False)["input_ids"]
            outside = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
            assert got == [*outside[0], ids[5], *outside[1]], around
        assert tokenizer.decode([ids[0], ids[40], ids[1]], skip_special_tokens=True) == texts[0] + texts[40] + texts[1]

    def test_old_ids_and_old_rows_are_unchanged(self, base, made, small_prepared):
        before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(made.folder)
        for text in [*texts_of(small_prepared, PROMPT)[:20], "Ünïcode 12-lead\n\n  ECG"]:
            assert before(text)["input_ids"] == after(text)["input_ids"]
        old, new = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, made.folder))
        for was, now in zip(rows_of(old), rows_of(new), strict=True):
            torch.testing.assert_close(now[: len(before)], was[: len(before)], rtol=0, atol=0)
        other = {
            name: value for name, value in old.state_dict().items() if "embed" not in name and "lm_head" not in name
        }
        for name, value in other.items():
            if "wte" not in name:
                torch.testing.assert_close(new.state_dict()[name], value, rtol=0, atol=0)

    def test_new_rows_differ(self, base, made):
        """Rows that are all alike would leave a model with frozen embeddings blind to the ECG."""
        num_old = len(AutoTokenizer.from_pretrained(base))
        for dtype in (torch.float32, torch.bfloat16):
            model = AutoModelForCausalLM.from_pretrained(made.folder, dtype=dtype)
            inputs, _ = rows_of(model)
            old, new = inputs[:num_old], inputs[num_old : made.vocab_size]
            assert len(new) >= 88
            distances = torch.pdist(new)
            assert distances.median() > 0.5 * torch.pdist(old).median()
            assert distances.min() > 0.005 * torch.pdist(old).median()
            assert new.std(0).mean() == pytest.approx(old.std(0).mean().item(), rel=0.2)

    def test_stock_classes_load_it_and_it_runs(self, made):
        tokenizer, model = (
            AutoTokenizer.from_pretrained(made.folder),
            AutoModelForCausalLM.from_pretrained(made.folder),
        )
        assert len(tokenizer) == made.vocab_size <= model.get_input_embeddings().weight.shape[0]
        inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert made.tied == (inputs is outputs) == model.config.tie_word_embeddings
        assert inputs.shape == outputs.shape
        assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
        with torch.no_grad():
            logits = model(**tokenizer("<|ecg_start|><|ecg_85|><|ecg_end|>\nQuestion", return_tensors="pt")).logits
        assert logits.isfinite().all()

    def test_the_ecg_parts_are_beside_it(self, made, processor, small_prepared):
        again = EcgByteProcessor.from_pretrained(made.folder / "ecg_byte")
        signal = small_prepared.signal(1)
        np.testing.assert_array_equal(again.tokenizer.encode_signal(signal), processor.tokenizer.encode_signal(signal))
        assert EcgPrompt.load(made.folder / "ecg_byte") == PROMPT
        row = load_prompter(made.folder, small_prepared).training_row(small_prepared.questions("train")[0])
        assert row["prompt"].startswith("<|ecg_start|><|ecg_")

    def test_an_extended_model_is_refused(self, made, processor, tmp_path):
        with pytest.raises(VocabularyError, match="already has 88 ECG tokens"):
            extend_llm(str(made.folder), processor, tmp_path, prompt=PROMPT)
        assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def llama(small_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return make_tiny_llama(
        folder,
        texts_of(small_prepared, PROMPT),
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        text_vocab_size=300,
        max_positions=256,
        tie_word_embeddings=False,
    )


def changed_tokenizer(llama, folder, **tokens):
    """A copy of the model whose tokenizer has other special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(llama)
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    AutoModelForCausalLM.from_pretrained(llama).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class TestRows:
    @pytest.mark.parametrize("init", sorted(set(ROW_INITS) - {"mean"}))
    def test_the_seed_decides(self, llama, processor, tmp_path, init):
        def new_rows(name, **options):
            made = extend_llm(str(llama), processor, tmp_path / name, prompt=PROMPT, init=init, **options)
            return rows_of(AutoModelForCausalLM.from_pretrained(made.folder))[0][300:]

        before = torch.random.get_rng_state()
        first, again, other = new_rows("a"), new_rows("b"), new_rows("c", seed=1)
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert init == "resize" or (first - other).abs().mean() > 0.1 * first.std()
        assert torch.equal(before, torch.random.get_rng_state())

    @pytest.mark.parametrize("init", ROW_INITS)
    def test_rows_of_a_separate_output_layer_are_the_mean_of_the_old(self, llama, processor, tmp_path, init):
        made = extend_llm(str(llama), processor, tmp_path / "a", prompt=PROMPT, init=init)
        _, outputs = rows_of(AutoModelForCausalLM.from_pretrained(made.folder))
        # transformers adds 1e-9 of the covariance.
        near = {"rtol": 0, "atol": 3e-4 * outputs[:300].std().item()} if init == "resize" else {}
        torch.testing.assert_close(outputs[300:], outputs[:300].mean(0).expand(88, -1), **near)

    def test_spread_rows_differ_as_words_do(self, llama, processor, tmp_path):
        made = extend_llm(str(llama), processor, tmp_path / "a", prompt=PROMPT, init="spread")
        inputs, _ = rows_of(AutoModelForCausalLM.from_pretrained(made.folder))
        assert torch.pdist(inputs[300:]).min() > 0.3 * torch.pdist(inputs[:300]).median()

    def test_mean_and_resize_leave_the_tokens_alike(self, llama, processor, tmp_path):
        for init, closeness in (("mean", 0.0), ("resize", 1e-3)):
            made = extend_llm(str(llama), processor, tmp_path / init, prompt=PROMPT, init=init)
            inputs, _ = rows_of(AutoModelForCausalLM.from_pretrained(made.folder))
            assert torch.pdist(inputs[300:]).max() <= closeness * torch.pdist(inputs[:300]).median()
            torch.testing.assert_close(inputs[300:].mean(0), inputs[:300].mean(0), rtol=0, atol=1e-4)

    def test_an_unknown_start_is_refused(self, llama, processor, tmp_path):
        with pytest.raises(VocabularyError, match="known: waveform, spread, mean, resize"):
            extend_llm(str(llama), processor, tmp_path / "b", init="zero")

    def test_dtype_is_kept(self, llama, processor, tmp_path):
        half = tmp_path / "half"
        AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).save_pretrained(half)
        AutoTokenizer.from_pretrained(llama).save_pretrained(half)
        made = extend_llm(str(half), processor, tmp_path / "out", prompt=PROMPT)
        assert json.loads((made.folder / "config.json").read_text())["dtype"] == "bfloat16"
        assert AutoModelForCausalLM.from_pretrained(made.folder, dtype="auto").dtype == torch.bfloat16


@pytest.fixture(scope="module")
def many_tokens(small_prepared, processor):
    """626 tokens: enough for each to have others that look alike."""
    return EcgByteTokenizer.train_from_iterator(
        (signal for _, signal in small_prepared.iter_signals(small_prepared.ecg_ids)),
        600,
        calibration=processor.tokenizer.calibration,
        sampling_rate=100,
        leads=processor.tokenizer.leads,
    )


@pytest.fixture(scope="module")
def uneven():
    """A model of 3,000 old rows that vary ten times as much in 16 of 64 directions, and 628 new ones."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=3628, hidden_size=64, intermediate_size=8, num_hidden_layers=1)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, :16] *= 10
        model.get_input_embeddings().weight[:3000] += 0.05
    return model


def started(model, tokenizer, init):
    """Old rows and new ones."""
    init_rows(model, tokenizer, 3000, 3628, init=init, seed=0)
    table = model.get_input_embeddings().weight.detach().clone()
    return table[:3000], table[3000:]


@pytest.fixture(scope="module")
def rows(uneven, many_tokens):
    return started(uneven, many_tokens, "waveform")


class TestWaveformRows:
    def test_have_the_old_rows_mean_and_norm(self, rows):
        old, new = rows
        tokens = new[2:] - old.mean(0)
        assert tokens.square().sum(1).mean() == pytest.approx((old - old.mean(0)).square().sum(1).mean().item())
        torch.testing.assert_close(tokens.mean(0), torch.zeros(64), rtol=0, atol=1e-5)
        norms = tokens.norm(dim=1) / (old - old.mean(0)).norm(dim=1).mean()
        assert norms.min() > 0.3 and norms.max() < 2.5

    def test_have_the_old_rows_covariance(self, rows):
        old, new = rows
        for part in (old, new):
            shares = part.var(0) / part.var(0).sum()
            assert shares[:16].sum() == pytest.approx(1600 / 1648, abs=0.02)

    def test_are_near_each_other_where_the_waveforms_are(self, rows, many_tokens):
        """By another measure than the features: the mean distance in mV of waveforms of the same length."""
        _, new = rows
        waves = token_waveforms(many_tokens)
        apart = torch.cdist(new[2:], new[2:]).numpy()
        near, others = [], []
        for token, wave in enumerate(waves):
            same = [other for other, theirs in enumerate(waves) if len(theirs) == len(wave) and other != token]
            if len(same) > 10:
                nearest = min(same, key=lambda other: np.abs(waves[other] - wave).mean())
                near.append(apart[token, nearest])
                others.append(np.median(np.delete(apart[token], token)))
        assert len(near) > 400
        assert np.mean(near) < 0.35 * np.mean(others)
        assert np.mean(np.less(near, others)) > 0.95

    def test_start_and_end_are_no_waveforms(self, uneven, many_tokens, rows):
        _, new = rows
        _, spread = started(uneven, many_tokens, "spread")
        torch.testing.assert_close(new[:2], spread[:2])
        assert not torch.isclose(new[2:], spread[2:]).all(dim=1).any()


class TestTokens:
    @pytest.mark.parametrize("pad", [None, "<|eos|>"])
    def test_a_pad_token_that_is_none_or_the_end_is_replaced(self, llama, processor, tmp_path, pad):
        made = extend_llm(
            changed_tokenizer(llama, tmp_path / "in", pad_token=pad), processor, tmp_path / "out", prompt=PROMPT
        )
        tokenizer = AutoTokenizer.from_pretrained(made.folder)
        assert tokenizer.pad_token == "<|ecg_pad|>" and tokenizer.pad_token_id == made.vocab_size - 1 == 388
        assert tokenizer.pad_token_id != tokenizer.eos_token_id and made.num_added == 88

    def test_a_pad_token_of_its_own_stays(self, llama, processor, tmp_path):
        made = extend_llm(str(llama), processor, tmp_path / "out", prompt=PROMPT)
        assert AutoTokenizer.from_pretrained(made.folder).pad_token == "<|pad|>" and made.vocab_size == 388

    def test_no_end_of_sequence(self, llama, processor, tmp_path):
        with pytest.raises(VocabularyError, match="no end-of-sequence token"):
            extend_llm(
                changed_tokenizer(llama, tmp_path / "in", eos_token=None), processor, tmp_path / "out", prompt=PROMPT
            )

    def test_a_prompt_longer_than_the_model_reads(self, llama, processor, tmp_path):
        with pytest.raises(BudgetError, match="reads at most 256 tokens, the prompt's max_length is 257"):
            extend_llm(str(llama), processor, tmp_path / "out", prompt=replace(PROMPT, max_length=257))


class TestKilled:
    def test_a_folder_without_the_last_file_is_refused(self, llama, processor, tmp_path, small_prepared, monkeypatch):
        made = extend_llm(str(llama), processor, tmp_path / "out", prompt=PROMPT)

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("ecgbyte_hf.training.extend_llm.save_ecg_parts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extend_llm(str(llama), processor, tmp_path / "out", prompt=PROMPT)
        with pytest.raises(EcgDataError, match="make the folder with `ecgbyte extend-llm`"):
            load_prompter(made.folder, small_prepared)

    def test_parts_are_saved_beside_a_trained_model(self, processor, tmp_path):
        assert save_ecg_parts(tmp_path, processor, PROMPT) == tmp_path / "ecg_byte"
        assert EcgPrompt.load(tmp_path / "ecg_byte") == PROMPT


def test_prompter_refuses_data_that_was_prepared_otherwise(small_llm, tmp_path):
    from ecgbyte_hf.data.sources import prepare_synthetic
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=125, leads=["I", "aVF"])
    other = prepare_synthetic(tmp_path, feature_extractor=extractor, num_records=20)
    with pytest.raises(EcgError, match="sampling_rate is 125 here and 100 there"):
        load_prompter(small_llm, other)
