"""EcgResNet: sizes as published, scaling, the losses of MERL, the frozen text tower, the classifier."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_encoders import BERT, enable_checkpointing, make_inputs, resnet_config, seeded

from ecgbyte_hf import (
    EcgError,
    EcgResNetConfig,
    EcgResNetForPreTraining,
    EcgResNetForSequenceClassification,
    EcgResNetModel,
)
from ecgbyte_hf.models.contrastive_ecg import contrastive_loss


def num_parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def model() -> EcgResNetForPreTraining:
    return seeded(EcgResNetForPreTraining, resnet_config(dropout=0.0))


# ---- sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth, expected", [(18, 3_848_832), (34, 7_223_168), (50, 15_959_168), (101, 28_266_624)])
def test_number_of_parameters(depth, expected):
    with torch.device("meta"):
        assert num_parameters(EcgResNetModel(EcgResNetConfig.of_depth(depth))) == expected


def test_number_of_parameters_of_the_merl_head():
    with torch.device("meta"):
        model = EcgResNetForPreTraining(EcgResNetConfig(text_config={"num_hidden_layers": 1}))
    assert num_parameters(model) - num_parameters(model.encoder) - num_parameters(model.text_model) == 1_255_936
    assert model.attention_pool.positions.shape == (1, 33, 256)
    assert (model.config.hidden_size, model.config.pooler_output_size) == (2048, 2048)


def test_default_text_tower_has_the_shape_of_medcpt():
    text = EcgResNetConfig().text_config
    assert (text.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size) == ("bert", 768, 12, 30522)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("num_samples", [1, 37, 64, 500])
def test_shapes_for_any_length(block, num_samples):
    config = resnet_config(block=block, blocks=[1, 2, 1])
    output = EcgResNetModel(config).eval()(torch.randn(2, 12, num_samples), output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, math.ceil(num_samples / 8), config.hidden_size)
    assert config.num_tokens(num_samples) == math.ceil(num_samples / 8)
    assert output.pooler_output.shape == (2, config.pooler_output_size)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.mean(dim=1))
    assert [states.shape[2] for states in output.hidden_states] == [
        8,
        *(8 * 2**i * config.hidden_size // 32 for i in range(3)),
    ]


def test_one_bottleneck_by_hand():
    """1x1, 3x3 with the stride, 1x1, and the shortcut, with batch normalisation at its initial state."""
    config = resnet_config(block="bottleneck", blocks=[1, 1])
    block = seeded(EcgResNetModel, config).stages[1][0]
    states = torch.randn(2, 32, 11)
    (first, _), (second, _), (third, _) = block.convolutions
    norm = 1 / math.sqrt(1 + 1e-5)
    inner = F.relu(F.conv1d(states, first.weight) * norm)
    inner = F.relu(F.conv1d(inner, second.weight, stride=2, padding=1) * norm)
    expected = F.conv1d(inner, third.weight) * norm + F.conv1d(states, block.shortcut[0].weight, stride=2) * norm
    torch.testing.assert_close(block(states), F.relu(expected))


def test_initial_weights():
    model = seeded(EcgResNetForPreTraining, resnet_config(base_channels=32, embedding_size=32))
    stem = model.encoder.stem[0].weight
    assert stem.std().item() == pytest.approx(math.sqrt(2 / (32 * 7)), rel=0.05)
    assert model.attention_pool.class_token.std().item() == pytest.approx(1, rel=0.5)
    assert model.attention_pool.positions.std().item() == pytest.approx(1 / 32, rel=0.2)
    for layer in (model.ecg_projection, model.attention_pool.value, model.text_projection[0]):
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(3 * layer.weight[0].numel()), rel=0.1)
        assert (layer.bias == 0).all()


# ---- scaling ---------------------------------------------------------------------------------------------------


def test_each_sample_is_scaled_to_0_to_1000():
    model = EcgResNetModel(resnet_config())
    scaled = model._scaled(torch.stack([torch.randn(12, 50), 0.01 * torch.randn(12, 50) + 3]))
    torch.testing.assert_close(scaled.amin(dim=(1, 2)), torch.zeros(2))
    torch.testing.assert_close(scaled.amax(dim=(1, 2)), torch.full((2,), 1000.0), rtol=1e-4, atol=0)


def test_gain_and_offset_do_not_matter_unless_scaling_is_off():
    values = make_inputs("EcgResNet")["input_values"]
    scaled, plain = (seeded(EcgResNetModel, resnet_config(input_scaling=how)) for how in ("minmax", "none"))
    torch.testing.assert_close(
        scaled(3 * values + 1).pooler_output, scaled(values).pooler_output, rtol=1e-3, atol=1e-2
    )
    assert (plain(3 * values + 1).pooler_output - plain(values).pooler_output).abs().max() > 0.1
    torch.testing.assert_close(plain._scaled(values), values)


def test_a_flat_sample_and_half_precision_stay_finite():
    model = seeded(EcgResNetModel, resnet_config())
    flat = torch.full((1, 12, 64), 0.4)
    assert torch.isfinite(model(flat).pooler_output).all()
    values = make_inputs("EcgResNet")["input_values"]
    expected = model(values).pooler_output
    for dtype in (torch.float16, torch.bfloat16):
        output = model.to(dtype)(values).pooler_output
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=expected.abs().max().item() * 0.02)


# ---- the losses ------------------------------------------------------------------------------------------------


def info_nce(first, second) -> float:
    """Both directions, row by row."""
    first, second = (part.double() / part.double().norm(dim=1, keepdim=True) for part in (first, second))
    total = 0.0
    for a, b in ((first, second), (second, first)):
        for i, row in enumerate(a):
            similarities = [float(row @ other) / 0.07 for other in b]
            total += math.log(sum(math.exp(value) for value in similarities)) - similarities[i]
    return total / len(first)


def test_losses_by_hand(model):
    inputs = make_inputs("EcgResNet")
    with torch.no_grad():
        output = model(**inputs)
        features = model.encoder(inputs["input_values"]).last_hidden_state @ model.ecg_projection.weight[..., 0].T
        views = [(features + model.ecg_projection.bias).mean(dim=1) @ view.weight.T for view in model.view_projections]
        pooled = model.text_model(inputs["input_ids"], inputs["attention_mask"]).pooler_output
        text = F.gelu(pooled @ model.text_projection[0].weight.T + model.text_projection[0].bias)
        text = text @ model.text_projection[2].weight.T + model.text_projection[2].bias
    torch.testing.assert_close(output.text_embeds, F.normalize(text, dim=1))
    torch.testing.assert_close(output.ecg_embeds.norm(dim=1), torch.ones(4))
    assert output.cross_modal_loss.item() == pytest.approx(info_nce(output.ecg_embeds, text), rel=1e-5)
    assert output.uni_modal_loss.item() == pytest.approx(info_nce(*views), rel=1e-5)
    assert output.loss.item() == pytest.approx(output.cross_modal_loss.item() + output.uni_modal_loss.item())


def test_attention_pool_by_hand(model):
    pool, features = model.attention_pool, torch.randn(2, 16, 8)
    torch.nn.init.normal_(pool.class_token)
    with torch.no_grad():
        sequence = torch.cat([pool.class_token.expand(2, 1, 8), features], dim=1) + pool.positions
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            query, key, value = (layer(sequence)[..., head] for layer in (pool.query, pool.key, pool.value))
            weights = (query[:, :1] @ key.transpose(1, 2) / math.sqrt(4)).softmax(dim=-1)
            heads.append(weights @ value)
        expected = pool.projection(pool.output(torch.cat(heads, dim=-1)))[:, 0]
        torch.testing.assert_close(pool(features), expected)


def test_positions_are_interpolated_in_time_alone(model):
    pool = model.attention_pool
    with torch.no_grad():
        pool.positions[0, 0] = 100.0
        pool.positions[0, 1:] = torch.arange(16.0)[:, None]
    assert pool._positions(16) is pool.positions
    longer = pool._positions(32)[0, :, 0]
    assert longer[0] == 100.0
    torch.testing.assert_close(longer[2:-1], torch.arange(0.25, 15, 0.5)[: len(longer) - 3])
    assert pool._positions(5).shape == (1, 6, 8)


def test_dropout_makes_two_views_and_mixed_precision_changes_little(model):
    inputs = make_inputs("EcgResNet")
    with torch.no_grad():
        expected = model(**inputs).loss
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(**inputs).loss.item() == pytest.approx(expected.item(), rel=0.02)
        model.dropout.p = 0.5
        model.dropout.train()
        output = model(**inputs)
    assert output.uni_modal_loss != model(**inputs).uni_modal_loss


def test_loss_of_many_equal_pairs_is_at_most_chance():
    embeddings = torch.eye(6)
    chance = 2 * math.log(6)
    assert contrastive_loss(embeddings, embeddings, 0.0, "sum").item() == pytest.approx(chance)
    assert contrastive_loss(embeddings, embeddings, 0.0, "mean").item() == pytest.approx(chance / 2)
    assert contrastive_loss(embeddings, 5 * embeddings, 100.0, "sum").item() == pytest.approx(0, abs=1e-6)


def test_it_learns_which_text_belongs_to_which_ecg():
    model = seeded(EcgResNetForPreTraining, resnet_config()).train()
    inputs = make_inputs("EcgResNet", batch=6)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        output = model(**inputs)
        output.loss.backward()
        optimizer.step()
        losses.append(output.cross_modal_loss.item())
    assert losses[0] > 2 * math.log(6) and losses[-1] < 1.0, losses


# ---- the text tower --------------------------------------------------------------------------------------------


def test_text_tower_is_frozen_by_default(model):
    model.train()
    assert model.training and model.encoder.training and not model.text_model.training
    model(**make_inputs("EcgResNet")).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("text_model."), name
        assert parameter.requires_grad != name.startswith("text_model."), name


def test_frozen_after_loading_and_trained_on_demand(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, _ = EcgResNetForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(parameter.requires_grad for parameter in loaded.text_model.parameters())
    trained = EcgResNetForPreTraining.from_pretrained(tmp_path, freeze_text=False).train()
    assert trained.text_model.training
    trained(**make_inputs("EcgResNet")).loss.backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_text_states_made_before_give_the_same_loss(model):
    inputs = make_inputs("EcgResNet")
    states = model.get_text_states(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    assert states.shape == (4, 16) and not states.requires_grad
    assert model(inputs["input_values"], text_states=states).loss == model(**inputs).loss
    text = model.get_text_features(inputs["input_ids"])
    torch.testing.assert_close(text, model(**inputs).text_embeds)
    torch.testing.assert_close(model.get_ecg_features(inputs["input_values"]), model(**inputs).ecg_embeds)


def test_starting_weights_of_the_text_tower(tmp_path):
    from transformers import BertConfig, BertModel

    tower = seeded(BertModel, BertConfig(**BERT))
    tower.save_pretrained(tmp_path)
    given = resnet_config(text_config={"num_hidden_layers": 1})
    model = EcgResNetForPreTraining.from_backbone_pretrained(str(tmp_path), given).eval()
    ids = make_inputs("EcgResNet")["input_ids"]
    assert torch.equal(model.get_text_states(ids), tower(ids).pooler_output)
    assert model.config.base_channels == 8 and model.config.text_config.num_hidden_layers == 2
    assert given.text_config.num_hidden_layers == 1
    assert not any(parameter.requires_grad for parameter in model.text_model.parameters())


def test_tower_without_pooler():
    tower = {"model_type": "distilbert", "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 40}
    inputs = make_inputs("EcgResNet")
    first = seeded(EcgResNetForPreTraining, resnet_config(text_config=tower, text_pooling="first"))
    expected = first.text_model(inputs["input_ids"]).last_hidden_state[:, 0]
    torch.testing.assert_close(first.get_text_states(inputs["input_ids"]), expected)
    with pytest.raises(EcgError, match="text_pooling='first'"):
        seeded(EcgResNetForPreTraining, resnet_config(text_config=tower))(**inputs)


# ---- the classifier --------------------------------------------------------------------------------------------


def test_classifier_of_several_labels():
    model = seeded(EcgResNetForSequenceClassification, resnet_config(num_labels=3))
    values, labels = torch.randn(2, 12, 64), torch.tensor([[1, 0, 1], [0, 0, 0]])
    output = model(values, labels=labels)
    # -log of the sigmoid: log(1 + exp(-x)) for a true label, and log(1 + exp(x)) for another.
    signed = torch.where(labels.bool(), -output.logits, output.logits).double()
    expected = (signed.clamp(min=0) + (-signed.abs()).exp().log1p()).mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert model(values).loss is None
    with pytest.raises(EcgError, match=r"Got labels of the shape \(2,\), expected \(2, 3\)"):
        model(values, labels=torch.tensor([0, 1]))


def test_classifier_of_one_label():
    model = seeded(
        EcgResNetForSequenceClassification, resnet_config(num_labels=3, problem_type="single_label_classification")
    )
    values, labels = torch.randn(2, 12, 64), torch.tensor([2, 0])
    output = model(values, labels=labels)
    expected = -output.logits.log_softmax(dim=1)[torch.arange(2), labels].mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_classifier_starts_from_a_pretrained_encoder(model, tmp_path):
    model.save_pretrained(tmp_path)
    classifier = EcgResNetForSequenceClassification.from_pretrained(tmp_path, num_labels=5).eval()
    values = torch.randn(2, 12, 64)
    assert torch.equal(classifier.encoder(values).pooler_output, model.encoder(values).pooler_output)
    assert classifier(values).logits.shape == (2, 5)
    assert classifier.classifier.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 16), rel=0.4)


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"block": "wide"}, "block='wide'"),
        ({"input_scaling": "zscore"}, "minmax, none"),
        ({"text_pooling": "mean"}, "pooler, first"),
        ({"blocks": []}, "at least one block"),
        ({"num_leads": 0}, "num_leads=0"),
        ({"embedding_size": 9}, "multiple of the heads"),
        ({"text_config": {"model_type": "no_such"}}, "'no_such'"),
        ({"text_config": 3}, "text_config=3"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(EcgError, match=message):
        resnet_config(**settings)


def test_unknown_depth():
    with pytest.raises(EcgError, match="18, 34, 50, 101"):
        EcgResNetConfig.of_depth(152)


def test_inputs_that_cannot_be(model):
    inputs = make_inputs("EcgResNet")
    values = inputs["input_values"]
    for wrong in (values[:, :8], values[0], values[:, :, :0]):
        with pytest.raises(EcgError, match=r"expected \(any, 12, any\): batch, leads, samples"):
            model.encoder(wrong)
    with pytest.raises(EcgError, match="Got neither"):
        model(values)
    with pytest.raises(EcgError, match="Got both"):
        model(**inputs, text_states=torch.zeros(4, 16))
    with pytest.raises(EcgError, match="one text for every ECG"):
        model(values[:3], input_ids=inputs["input_ids"])
    with pytest.raises(ValueError, match="does not support"):
        enable_checkpointing(model)
