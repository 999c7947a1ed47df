"""EcgLlm: any encoder in front of any causal language model, and ECGs at their places."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_ecg_llm import PLACEHOLDER, ecg_values, make_ecg_llm, make_encoder, make_language_model, save_encoder
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from ecgbyte_hf import EcgLlmConfig, EcgLlmForConditionalGeneration, EcgLlmModel
from ecgbyte_hf.models.auto import ENCODERS
from ecgbyte_hf.models.errors_ecg_byte import EncoderError

NAMES = [encoder.prefix for encoder in ENCODERS]
FAMILIES = [
    ("llama", True),
    ("llama", False),
    ("gpt2", True),
    ("gemma2", True),
    ("gemma3_text", False),
    ("qwen3", True),
]
GREEDY = {"do_sample": False, "max_new_tokens": 8, "suppress_tokens": [PLACEHOLDER]}


def texts(count: int, places: int = 1) -> torch.Tensor:
    """Ids of texts with the places of one ECG each."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, PLACEHOLDER, (count, 5 + places), generator=generator)
    ids[:, 2 : 2 + places] = PLACEHOLDER
    return ids


def generated(model, **inputs) -> torch.Tensor:
    """New ids, behind those of the prompt where there are some."""
    first = inputs.get("input_ids", inputs.get("inputs_embeds"))
    mask = inputs.pop("attention_mask", torch.ones(first.shape[:2], dtype=torch.long))
    ids = model.generate(**inputs, attention_mask=mask, **GREEDY)
    return ids[:, first.shape[1] :] if "input_ids" in inputs else ids


@pytest.fixture(scope="module")
def model() -> EcgLlmForConditionalGeneration:
    return make_ecg_llm()


# ---- parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_text_alone_is_read_as_by_the_language_model(family, tied):
    alone, joined = make_language_model(family, tied=tied), make_ecg_llm(family=family, tied=tied)
    ids = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(alone(input_ids=ids).logits, joined(input_ids=ids).logits)
    assert (joined.get_output_embeddings().weight is joined.get_input_embeddings().weight) == tied
    assert joined.config.tie_word_embeddings == tied


@pytest.mark.parametrize(
    "settings", [{}, {"ecg_features": "sequence", "num_ecg_tokens": 3}], ids=["pooled", "sequence"]
)
@pytest.mark.parametrize("name", NAMES)
def test_projected_ecgs_stand_at_the_places_in_order(name, settings):
    model = make_ecg_llm(name, **settings)
    count = model.config.num_ecg_tokens
    ids, values = texts(2, places=count), ecg_values(name, 2)
    with torch.no_grad():
        features = model.get_ecg_features(values)
        embeds = model.get_input_embeddings()(ids)
        for row in range(2):
            embeds[row, 2 : 2 + count] = features[row]
        expected = model(inputs_embeds=embeds).logits
        assert torch.equal(model(input_ids=ids, ecg_values=values).logits, expected)
        assert torch.equal(model(input_ids=ids, ecg_features=features).logits, expected)
        assert torch.equal(model(input_ids=ids, ecg_encodings=model.model.encode(values)).logits, expected)
        swapped = model(input_ids=ids, ecg_values=values.flip(0)).logits
    assert features.shape == (2, count, 32)
    assert not torch.allclose(swapped, expected, atol=1e-3)


def test_one_part_is_projected_by_one_matrix(model):
    values = ecg_values("EcgResNet", 2)
    projector = model.model.projector
    layer = projector.projections[0]
    with torch.no_grad():
        pooled = model.model.encoder(values).pooler_output
        standard = (pooled - projector.feature_mean) / projector.feature_scale
        expected = standard @ layer.weight.T + layer.bias
        torch.testing.assert_close(model.get_ecg_features(values)[:, 0], expected)
    assert [name for name, _ in projector.named_parameters()] == ["projections.0.weight", "projections.0.bias"]


def test_two_parts_are_projected_joined_and_mixed():
    """As the paper does with CLIP and ViT."""
    model = make_ecg_llm("EcgClipVit")
    values = ecg_values("EcgClipVit", 2)
    projector, sizes = model.model.projector, model.config.encoder_config.pooler_output_sizes
    with torch.no_grad():
        pooled = model.model.encoder(values).pooler_output
        standard = (pooled - projector.feature_mean) / projector.feature_scale
        clip, vit = standard[:, : sizes[0]], standard[:, sizes[0] :]
        joined = torch.cat([projector.projections[0](clip), projector.projections[1](vit)], dim=1)
        expected = projector.output(torch.relu(projector.fusion(joined)))
        torch.testing.assert_close(model.get_ecg_features(values)[:, 0], expected)


def test_an_mlp_has_a_relu_between():
    model = make_ecg_llm(projector_type="mlp")
    projector = model.model.projector
    features = torch.randn(3, 1, 16)
    with torch.no_grad():
        standard = (features - projector.feature_mean) / projector.feature_scale
        expected = projector.output(torch.relu(projector.projections[0](standard)))
        torch.testing.assert_close(projector(features), expected)


def test_a_sequence_is_brought_to_its_number_of_tokens():
    """Sixteen states of the encoder: eight neighbours are averaged for two tokens; sixteen are left alone."""
    values = ecg_values("EcgResNet", 1)
    states = {}
    for count in (2, 16):
        model = make_ecg_llm(ecg_features="sequence", num_ecg_tokens=count)
        with torch.no_grad():
            states[count] = model.model.encode(values)
            whole = model.model.encoder(values).last_hidden_state
    assert whole.shape[1] == 16
    assert torch.equal(states[16], whole)
    torch.testing.assert_close(states[2], whole.unflatten(1, (2, 8)).mean(dim=2))


def test_ecgs_may_differ_in_length(model):
    short, long = ecg_values("EcgResNet", 1)[0, :, :48], ecg_values("EcgResNet", 1)[0]
    with torch.no_grad():
        together = model.get_ecg_features([short, long])
        alone = [model.get_ecg_features(one[None])[0] for one in (short, long)]
    assert torch.equal(together, torch.stack(alone))


# ---- training --------------------------------------------------------------------------------------------------


def test_a_frozen_encoder_stays_as_it_is_and_the_projector_learns():
    model = make_ecg_llm().train()
    before = {name: value.clone() for name, value in model.model.encoder.state_dict().items()}
    assert model.training and model.model.language_model.training
    assert not any(module.training for module in model.model.encoder.modules())
    ids = texts(2)
    model(input_ids=ids, ecg_values=ecg_values("EcgResNet", 2), labels=ids).loss.backward()
    torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1.0).step()
    assert all(torch.equal(value, before[name]) for name, value in model.model.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in model.model.encoder.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.model.projector.parameters())


def test_an_encoder_can_be_trained_too():
    model = make_ecg_llm(freeze_encoder=False).train()
    statistics = model.model.encoder.stem[1].running_mean.clone()
    ids = texts(2)
    model(input_ids=ids, ecg_values=ecg_values("EcgResNet", 2), labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.model.encoder.parameters())
    assert not torch.equal(model.model.encoder.stem[1].running_mean, statistics)
    model.model.freeze_encoder()
    assert not model.model.encoder.training and not any(p.requires_grad for p in model.model.encoder.parameters())


def test_the_encoder_and_the_features_stay_in_float32(tmp_path):
    model = make_ecg_llm()
    model.model.projector.feature_mean += 1000.123
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.model.encoder.parameters()} == {torch.float32}
    assert loaded.lm_head.weight.dtype == loaded.model.projector.projections[0].weight.dtype == torch.bfloat16
    assert torch.equal(loaded.model.projector.feature_mean, model.model.projector.feature_mean)
    half = EcgLlmForConditionalGeneration.from_parts(make_encoder("EcgResNet"), make_language_model().bfloat16())
    assert half.model.projector.projections[0].weight.dtype == torch.bfloat16
    assert half.model.projector.feature_mean.dtype == half.model.encoder.dtype == torch.float32
    ids, values = texts(1), ecg_values("EcgResNet", 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert loaded.eval()(input_ids=ids, ecg_values=values).logits.dtype == torch.bfloat16
        assert loaded.model.encode(values).dtype == torch.float32


# ---- generation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_placeholders_generate_what_embeddings_alone_do(family, cache):
    model = make_ecg_llm(family=family)
    ids, values = texts(3), ecg_values("EcgResNet", 3)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
        embeds[:, 2] = model.get_ecg_features(values)[:, 0]
    by_places = generated(model, input_ids=ids, ecg_values=values, use_cache=cache)
    assert by_places.tolist() == generated(model, inputs_embeds=embeds).tolist()
    with torch.no_grad():
        encodings = model.model.encode(values)
    for given in ({"ecg_features": embeds[:, 2:3]}, {"ecg_encodings": encodings}):
        assert by_places.tolist() == generated(model, input_ids=ids, use_cache=cache, **given).tolist()
    others = [generated(model, input_ids=ids, ecg_values=values.roll(shift, 0)).tolist() for shift in (1, 2)]
    assert all(other != by_places.tolist() for other in others)


def test_a_padded_batch_generates_as_each_alone(model):
    ids, values = texts(2), ecg_values("EcgResNet", 2)
    padded = torch.cat([torch.tensor([[0, 0, 0], [7, 8, 9]]), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[0, :3] = 0
    together = generated(model, input_ids=padded, ecg_values=values, attention_mask=mask)
    alone = [generated(model, input_ids=ids[:1], ecg_values=values[:1])]
    alone.append(generated(model, input_ids=padded[1:], ecg_values=values[1:]))
    for row, expected in zip(together.tolist(), alone, strict=True):
        assert row[: expected.shape[1]] == expected[0].tolist()


@pytest.mark.parametrize("name", ["values", "encodings", "features", "list"])
def test_beams_and_answers_keep_the_ecgs_of_each_row_in_order(name):
    """A row with two ECGs and one with one: as with embeddings, which need no repeating of ECGs."""
    model = make_ecg_llm(ecg_features="sequence", num_ecg_tokens=2)
    ids = torch.tensor([[5, *[PLACEHOLDER] * 2, 6, *[PLACEHOLDER] * 2, 7], [5, 8, 9, *[PLACEHOLDER] * 2, 6, 7]])
    values = ecg_values("EcgResNet", 3)
    beams = {"num_beams": 2, "num_return_sequences": 2}
    with torch.no_grad():
        features = model.get_ecg_features(values)
        embeds = model.model._embed(ids, None, features, None)
        given = {
            "values": {"ecg_values": values},
            "encodings": {"ecg_encodings": model.model.encode(values)},
            "features": {"ecg_features": features},
            "list": {"ecg_values": list(values)},
        }[name]
        expected = model.generate(inputs_embeds=embeds, attention_mask=torch.ones_like(ids), **GREEDY, **beams)
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given, **GREEDY, **beams)
        swapped = model.model._embed(ids, None, features[[0, 0, 1]], None)
        other = model.generate(inputs_embeds=swapped, attention_mask=torch.ones_like(ids), **GREEDY, **beams)
    assert found[:, ids.shape[1] :].tolist() == expected.tolist() != other.tolist()
    repeated, more = model._expand_inputs_for_generation(expand_size=2, input_ids=ids, ecg_features=features)
    assert repeated[:, 1].tolist() == [PLACEHOLDER] * 2 + [8] * 2
    assert torch.equal(more["ecg_features"], features[[0, 1, 0, 1, 2, 2]])
    with pytest.raises(EncoderError, match="Got 6 placeholders and 2 ECGs"):
        model.generate(input_ids=ids, ecg_values=values[:2], **GREEDY, **beams)
    with pytest.raises(EncoderError, match=r"Got rows with \[1, 1\] placeholders, expected a multiple of 2"):
        model.generate(input_ids=texts(2), ecg_values=values[:1], **GREEDY, **beams)


# ---- what does not match ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": texts(2)}, "Got 2 placeholders and 0 ECGs.*remove_unused_columns=False"),
        ({"input_ids": texts(2), "ecg_values": ecg_values("EcgResNet", 1)}, "Got 2 placeholders and 1 ECGs"),
        ({"input_ids": texts(1)[:, :2], "ecg_values": ecg_values("EcgResNet", 1)}, "Got 0 placeholders and 1 ECGs"),
        ({"inputs_embeds": torch.zeros(1, 3, 32), "ecg_values": ecg_values("EcgResNet", 1)}, "beside inputs_embeds"),
        ({"ecg_values": ecg_values("EcgResNet", 1)}, "both or none of input_ids and inputs_embeds"),
        ({"input_ids": texts(1), "ecg_values": torch.zeros(1, 3, 64)}, "Got input_values of the shape"),
        (
            {"input_ids": texts(1), "ecg_values": ecg_values("EcgResNet", 1), "ecg_features": torch.zeros(1, 1, 32)},
            "several of ecg_values, ecg_encodings and ecg_features",
        ),
    ],
    ids=["no ECGs", "too few", "no place", "embeddings", "no text", "leads", "features"],
)
def test_inputs_that_do_not_match_are_refused(model, inputs, message):
    with pytest.raises(EncoderError, match=message):
        model(**inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"projector_type": "conv"}, "Got projector_type='conv', expected one of linear, mlp"),
        ({"ecg_features": "first"}, "Got ecg_features='first', expected one of pooled, sequence"),
        ({"num_ecg_tokens": 2}, "Got num_ecg_tokens=2 with ecg_features='pooled', expected 1"),
        ({"num_ecg_tokens": 0, "ecg_features": "sequence"}, "expected 1 for pooled and at least 1"),
        ({"text_config": {"model_type": "lama"}}, "Got text_config of the model_type 'lama'"),
        ({"encoder_config": {"model_type": "ecg_mystery"}}, "Got encoder_config of the model_type 'ecg_mystery'"),
    ],
)
def test_settings_of_no_model_are_refused(settings, message):
    with pytest.raises(EncoderError, match=message):
        EcgLlmConfig(**settings)


def test_a_language_model_that_scales_its_logits_is_refused():
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("cohere", vocab_size=50, logit_scale=0.5, num_key_value_heads=2, **text)
    with pytest.raises(EncoderError, match="whose logits are more than its output layer's"):
        EcgLlmForConditionalGeneration.from_parts(make_encoder("EcgResNet"), AutoModelForCausalLM.from_config(config))


# ---- saving and loading ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One model of each encoder, of different language models, with inputs and outputs beside it."""
    path = tmp_path_factory.mktemp("ecg-llms")
    for number, name in enumerate(NAMES):
        family, tied = FAMILIES[number % len(FAMILIES)]
        model = make_ecg_llm(name, family, tied=tied)
        model.save_pretrained(path / name, max_shard_size="30KB")
        ids, values = texts(2), ecg_values(name, 2)
        with torch.no_grad():
            logits = model(input_ids=ids, ecg_values=values).logits
        new = generated(model, input_ids=ids, ecg_values=values)
        torch.save({"ids": ids, "values": values, "logits": logits, "new": new}, path / f"{name}.pt")
    return {name: path / name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_auto_classes_load_the_same_model(name, folders):
    assert len(list(folders[name].glob("model-*.safetensors"))) > 1
    saved = torch.load(folders[name].with_suffix(".pt"))
    model, info = AutoModelForCausalLM.from_pretrained(folders[name], output_loading_info=True)
    assert type(model) is EcgLlmForConditionalGeneration and not any(info.values()), info
    with torch.no_grad():
        assert torch.equal(model(input_ids=saved["ids"], ecg_values=saved["values"]).logits, saved["logits"])
    assert model.config.freeze_encoder and not any(p.requires_grad for p in model.model.encoder.parameters())
    tied = model.config.tie_word_embeddings
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    base, info = AutoModel.from_pretrained(folders[name], output_loading_info=True)
    assert type(base) is EcgLlmModel and not any(info.values()), info


def test_trl_loads_it_by_name(folders):
    from trl.trainer.utils import create_model_from_path

    assert type(create_model_from_path(str(folders["EcgResNet"]))) is EcgLlmForConditionalGeneration


def test_resized_embeddings_reach_both_parts(folders):
    model = AutoModelForCausalLM.from_pretrained(folders["EcgResNet"])
    model.resize_token_embeddings(60, mean_resizing=False)
    assert model.get_input_embeddings().weight.shape[0] == model.lm_head.weight.shape[0] == 60
    assert model.model.language_model.get_input_embeddings() is model.get_input_embeddings()


WITHOUT_THE_PACKAGE = """
import importlib.util, json, sys, torch
from pathlib import Path
assert importlib.util.find_spec("ecgbyte_hf") is None
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor
same = {}
for folder in map(Path, sys.argv[2:]):
    saved = torch.load(folder.with_suffix(".pt"))
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    assert type(model.model.encoder).__module__.startswith("transformers_modules."), type(model.model.encoder)
    inputs = {"input_ids": saved["ids"], "ecg_values": saved["values"]}
    mask = torch.ones_like(saved["ids"])
    new = model.generate(**inputs, attention_mask=mask, do_sample=False, max_new_tokens=8, suppress_tokens=[49])
    with torch.no_grad():
        same[folder.name] = [
            torch.equal(model(**inputs).logits, saved["logits"]),
            torch.equal(new[:, mask.shape[1]:], saved["new"]),
        ]
model.save_pretrained(folder.with_name("again"))
again = AutoModel.from_pretrained(folder.with_name("again"), trust_remote_code=True)
same["again"] = type(again.encoder).__name__
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
same["processor"] = [type(processor).__name__, type(processor.picture).__name__, processor.num_ecg_tokens]
assert "ecgbyte_hf" not in sys.modules
print(json.dumps(same))
"""


@pytest.mark.slow
def test_code_in_the_folder_works_without_the_package(folders, tmp_path, small_prepared):
    """The venv of the tests may have the package installed: then its name is kept away."""
    from ecgbyte_hf import cli

    encoder = save_encoder(tmp_path / "encoder", "EcgVit")
    made = ["--encoder", encoder, "--tiny-from", small_prepared.folder, "--output", tmp_path / "llm"]
    tiny = ["--tiny-size", "32", "1", "300", "--max-length", "256", "--reserve", "16"]
    assert cli.main(["extend-llm", *map(str, made), *tiny]) == 0
    code = "import sys\nsys.modules['ecgbyte_hf'] = None\n" + WITHOUT_THE_PACKAGE.replace(
        'importlib.util.find_spec("ecgbyte_hf") is None', "True"
    ).replace('"ecgbyte_hf" not in sys.modules', 'sys.modules["ecgbyte_hf"] is None')
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "llm"), *map(str, folders.values())],
        cwd=tmp_path,
        env=inherited | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    same = json.loads(done.stdout.splitlines()[-1])
    last = f"{NAMES[-1]}Model"
    assert same == {name: [True, True] for name in NAMES} | {
        "again": last,
        "processor": ["EcgLlmProcessor", "EcgImageProcessor", 1],
    }
