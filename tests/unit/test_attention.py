"""Watched attention is the model's own, whatever its family, and a model is left as it was."""

import pytest
import torch
from attribution_models import bare_reading
from transformers import AutoConfig, AutoModelForCausalLM

from ecgbyte_hf.interpretation import attention
from ecgbyte_hf.interpretation.attention import answer_rows, watch_attention
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

_SHAPE = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
CONFIGS = {
    "llama": {**_SHAPE, "num_attention_heads": 4, "num_key_value_heads": 2},
    # A window of 6 tokens in the first layer, and soft caps.
    "gemma2": {**_SHAPE, "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 6},
    "gpt2": {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4},
}


def tiny(family: str):
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, initializer_range=0.4, **CONFIGS[family])
    return AutoModelForCausalLM.from_config(config).eval()


def eager_attention(model, ids):
    """(layers, heads, tokens, tokens), as transformers gives it."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        made = model(input_ids=torch.from_numpy(ids[None]), output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation(before)
    return torch.cat(made).double()


@pytest.mark.parametrize("family", CONFIGS)
def test_the_same_as_all_layers_at_once(family, monkeypatch):
    # Five rows at a time: 23 tokens take five turns.
    monkeypatch.setattr(attention, "_MOST_NUMBERS", 5 * 4 * 23)
    monkeypatch.setattr(attention, "_ROWS", 6)
    model, reading = tiny(family), bare_reading()
    whole = eager_attention(model, reading.ids)
    summary = watch_attention(model, reading)
    rows = answer_rows(reading)
    assert (rows.start, rows.stop) == (18, 21)  # predict tokens 19, 20, 21; 22 is the end of sequence
    expected = {"from_answer": whole[:, :, rows].mean(2), "from_ecg": whole[:, :, reading.ecg].mean(2)}
    for name, values in expected.items():
        assert torch.allclose(torch.from_numpy(getattr(summary, name)).double(), values, atol=1e-6)
    rolled = torch.eye(23, dtype=torch.double)
    for layer in whole.mean(1):
        rolled = (layer / 2 + torch.eye(23) / 2) @ rolled
    assert torch.allclose(torch.from_numpy(summary.rollout), rolled[rows].mean(0), atol=1e-6)
    assert summary.rollout.sum() == pytest.approx(1.0, abs=1e-5)
    if family == "gemma2":
        assert summary.from_answer[0, :, : rows.start - 6].max() == 0.0  # beyond the window
        assert summary.from_answer[1, :, : rows.start - 6].max() > 0.0


@pytest.mark.parametrize("causal", [(), (1,), (1, 2)], ids=["none is causal", "the second is", "the last two are"])
def test_attention_to_later_tokens_is_rolled_out_too(causal, monkeypatch):
    """Some models let a prompt's tokens see one another both ways, and may do so in some layers only."""
    monkeypatch.setattr(attention, "_ROWS", 2)
    watcher = attention._Watcher(slice(3, 5), slice(0, 3))
    made = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0))
    for number in causal:
        made[number] = made[number].tril()
    rolled = torch.eye(5)
    for mean in made / made.sum(dim=-1, keepdim=True):
        rolled = (mean / 2 + torch.eye(5) / 2) @ rolled
    for mean in made:
        watcher._roll(mean.clone())
    assert torch.allclose(watcher._rollout, rolled, atol=1e-6)


def test_layers_and_heads_are_chosen_by_number():
    summary = watch_attention(tiny("llama"), bare_reading())
    assert summary.of_answer().sum() == pytest.approx(1.0)
    assert summary.of_answer(layer=1, head=3) == pytest.approx(summary.from_answer[1, 3])
    assert summary.of_ecg(head=2) == pytest.approx(summary.from_ecg[:, 2].mean(axis=0))
    with pytest.raises(EcgDataError, match="got layer 2, the model has layers 0 to 1"):
        summary.of_answer(layer=2)
    with pytest.raises(EcgDataError, match="got head -1"):
        summary.of_ecg(head=-1)


def test_the_model_is_left_as_it_was(monkeypatch):
    model, reading = tiny("llama"), bare_reading()
    ids = torch.from_numpy(reading.ids[None])
    before = model(input_ids=ids).logits
    watch_attention(model, reading)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(input_ids=ids).logits, before)

    def broken(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(attention._Watcher, "attend", broken)
    with pytest.raises(KeyboardInterrupt):
        watch_attention(model, reading)
    assert model.config._attn_implementation == "sdpa"


def test_what_cannot_be_looked_at_is_refused(monkeypatch):
    model, reading = tiny("llama"), bare_reading()
    model.peft_config = {"default": type("Prompt", (), {"is_prompt_learning": True})()}
    with pytest.raises(EcgDataError, match="adds a prompt of its own"):
        watch_attention(model, reading)
    del model.peft_config
    model.config.num_hidden_layers = 3  # as in a model of which some layers have no attention
    with pytest.raises(EcgDataError, match="2 of 3 layers .* gradient method"):
        watch_attention(model, reading)
    model.config.num_hidden_layers = 2
    monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    with pytest.raises(EcgDataError, match="no attention that can be exchanged"):
        watch_attention(model, reading)
