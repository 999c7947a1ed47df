"""EcgPatch: its size, what tokens know and see, the masks, the loss, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_encoders import PATCH, make_inputs, seeded

from ecgbyte_hf import EcgError, EcgPatchConfig, EcgPatchForPreTraining, EcgPatchModel
from ecgbyte_hf.data.simulator import draw_labels, record_rng, simulate
from ecgbyte_hf.models.modeling_ecg_patch import sine_positions
from ecgbyte_hf.training.start_encoder import _tiny_settings, encoder_named


def patch_config(**changes) -> EcgPatchConfig:
    return EcgPatchConfig(**({"patch_size": 8} | PATCH | changes))


@pytest.fixture(scope="module")
def model() -> EcgPatchForPreTraining:
    """12 leads of 64 samples are 8 patches each, 6 of them masked."""
    return seeded(EcgPatchForPreTraining, patch_config())


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    return make_inputs("EcgPatch")["input_values"]


# ---- sizes -----------------------------------------------------------------------------------------------------


def transformer_size(width: int, inner: int, layers: int) -> int:
    """Queries, keys, values and output; two feed-forward layers; two norms of a layer, and one at the end."""
    return layers * (4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width) + 2 * width


@pytest.mark.parametrize("settings", [{}, {"num_leads": 8, "patch_size": 25}, {"hidden_size": 768, "qkv_bias": True}])
def test_number_of_parameters(settings):
    config = EcgPatchConfig(**settings)
    with torch.device("meta"):
        whole = EcgPatchForPreTraining(config)
    width, patch = config.hidden_size, config.patch_size
    encoder = transformer_size(width, config.intermediate_size, config.num_hidden_layers)
    encoder += patch * width + width + config.num_leads * width + width  # patches, leads, separator
    assert sum(p.numel() for p in whole.encoder.parameters()) == encoder
    small = config.decoder_hidden_size
    decoder = transformer_size(small, config.decoder_intermediate_size, config.decoder_num_hidden_layers)
    decoder += width * small + small + small * patch + patch + small  # to its width, to samples, mask token
    assert sum(p.numel() for p in whole.decoder.parameters()) == decoder


@pytest.mark.parametrize("num_leads, num_samples", [(1, 8), (3, 40), (12, 64), (12, 8 * 31)])
def test_shapes_for_any_leads_and_length(num_leads, num_samples):
    config = patch_config(num_leads=num_leads)
    output = seeded(EcgPatchModel, config)(torch.randn(2, num_leads, num_samples), output_hidden_states=True)
    tokens = num_leads * (num_samples // 8 + 2)
    assert output.last_hidden_state.shape == (2, tokens, 16) and config.num_tokens(num_samples) == tokens
    assert output.pooler_output.shape == (2, config.pooler_output_size)
    assert [states.shape for states in output.hidden_states] == [(2, tokens, 16)] * 3


def test_embedding_is_the_mean_over_the_patches_without_separators(model, values):
    output = model.encoder(values)
    by_lead = output.last_hidden_state.reshape(4, 12, 10, 16)
    torch.testing.assert_close(output.pooler_output, by_lead[:, :, 1:-1].mean(dim=(1, 2)))


# ---- what a token knows ----------------------------------------------------------------------------------------


def test_tokens_by_hand(model, values):
    """Patch times weights, plus its place in time, counted from the separator, plus its lead."""
    parts = model.encoder.embeddings
    tokens = parts(values.reshape(4, 12, 8, 8))
    positions = sine_positions(10, 16, values)
    assert positions[3, 2].item() == pytest.approx(np.sin(3 * 10_000 ** (-2 / 8)))
    assert positions[3, 10].item() == pytest.approx(np.cos(3 * 10_000 ** (-2 / 8)))
    expected = values[1, 5, 16:24] @ parts.projection.weight.T + parts.projection.bias + positions[3] + parts.leads[5]
    torch.testing.assert_close(tokens[1, 5, 3], expected)
    for place in (0, 9):
        torch.testing.assert_close(tokens[1, 5, place], parts.separator + positions[place] + parts.leads[5])


def test_the_order_of_leads_matters_by_their_embeddings_alone(values):
    model = seeded(EcgPatchModel, patch_config())
    swapped = values[:, [1, 0, *range(2, 12)]]
    difference = (model(values).pooler_output - model(swapped).pooler_output).abs().max()
    assert difference > 0.01
    with torch.no_grad():
        model.embeddings.leads[:] = model.embeddings.leads[0]
    torch.testing.assert_close(model(values).pooler_output, model(swapped).pooler_output)


def test_the_order_in_time_matters(model, values):
    turned = values.reshape(4, 12, 8, 8).flip(2).reshape(4, 12, 64)
    assert (model.encoder(values).pooler_output - model.encoder(turned).pooler_output).abs().max() > 0.01


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_every_attention_gives_the_same(implementation, values):
    model = seeded(EcgPatchModel, patch_config(attn_implementation=implementation))
    assert model.config._attn_implementation == implementation
    expected = seeded(EcgPatchModel, patch_config())(values)
    torch.testing.assert_close(model(values).last_hidden_state, expected.last_hidden_state)


# ---- masks -----------------------------------------------------------------------------------------------------


def test_masks_hide_three_quarters_of_every_lead(model):
    def draw(**options):
        return model.decoder.draw_mask(50, 64, torch.device("cpu"), **options)

    mask = draw()
    assert mask.shape == (50, 12, 8) and (mask.sum(dim=2) == 6).all()
    assert (mask.float().mean(dim=(0, 1)) - 0.75).abs().max() < 0.1
    assert len({tuple(ecg.flatten().tolist()) for ecg in mask}) == 50
    assert len({tuple(lead.tolist()) for lead in mask[0]}) > 6
    assert torch.equal(mask, draw())  # evaluation
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 3, 4)]
    first, again, other = (draw(generator=seed) for seed in seeds)
    assert torch.equal(first, again) and not torch.equal(first, other)
    model.decoder.train()
    assert not torch.equal(draw(), draw())
    model.decoder.eval()


def test_the_generator_reaches_the_masks(model, values):
    losses = [model(values, generator=torch.Generator().manual_seed(seed)).loss.item() for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_masked_patches_do_not_reach_the_encoder(model, values):
    mask = model.decoder.draw_mask(4, 64, values.device)
    changed = torch.where(mask.repeat_interleave(8, dim=2), 5 * torch.randn_like(values), values)
    first, second = model(values, mask), model(changed, mask)
    assert first.encoder_output.last_hidden_state.shape == (4, 12 * (2 + 2), 16)  # 2 visible patches, 2 separators
    assert torch.equal(first.encoder_output.last_hidden_state, second.encoder_output.last_hidden_state)
    assert torch.equal(first.encoder_output.pooler_output, second.encoder_output.pooler_output)
    assert torch.equal(first.reconstruction, second.reconstruction) and first.loss != second.loss
    seen = values.clone()
    seen[0, 0, 8 * int((~mask[0, 0]).nonzero()[0])] += 1
    assert not torch.equal(model(seen, mask).reconstruction, first.reconstruction)


def test_without_a_mask_the_encoder_sees_all(model, values):
    none = torch.zeros(4, 12, 8, dtype=torch.bool)
    expected = model.encoder(values)
    torch.testing.assert_close(model.encoder(values, none).last_hidden_state, expected.last_hidden_state)
    for patch in range(8):
        changed = values.clone()
        changed[:, 7, 8 * patch] += 1
        assert not torch.equal(model.encoder(changed).pooler_output, expected.pooler_output)


def test_visible_patches_keep_their_place(model, values):
    """Of one layer of nothing but embeddings: the tokens are those of the whole, at the visible places."""
    mask = model.decoder.draw_mask(4, 64, values.device)
    whole = model.encoder(values, output_hidden_states=True).hidden_states[0].reshape(4, 12, 10, 16)
    part = model.encoder(values, mask, output_hidden_states=True).hidden_states[0].reshape(4, 12, 4, 16)
    for ecg, lead in ((0, 0), (2, 11)):
        places = [0, *(1 + (~mask[ecg, lead]).nonzero()[:, 0]).tolist(), 9]
        torch.testing.assert_close(part[ecg, lead], whole[ecg, lead, places])


# ---- the decoder and its loss ----------------------------------------------------------------------------------


def test_the_decoder_puts_patches_back_where_they_were(model):
    """With no layers and a projection that passes its input on, a place's output tells whose state stood there."""
    decoder = seeded(EcgPatchForPreTraining, patch_config(patch_size=8)).decoder
    decoder.layers = torch.nn.ModuleList()
    decoder.layernorm = torch.nn.Identity()
    with torch.no_grad():
        decoder.embedding.weight.copy_(torch.eye(8, 16))
        decoder.projection.weight.copy_(torch.eye(8))
        decoder.projection.bias.zero_()
        decoder.embedding.bias.zero_()
        mask = decoder.draw_mask(2, 64, torch.device("cpu"))
        tokens = torch.randn(2, 12 * 4, 16)
        found = decoder(tokens, mask) - sine_positions(10, 8, tokens)[1:-1]
    by_lead = tokens.reshape(2, 12, 4, 16)[..., :8]
    for ecg, lead in ((0, 0), (1, 7)):
        torch.testing.assert_close(found[ecg, lead][~mask[ecg, lead]], by_lead[ecg, lead, 1:-1])
        torch.testing.assert_close(found[ecg, lead][mask[ecg, lead]], decoder.mask_token.expand(6, -1))


def test_each_lead_is_reconstructed_from_its_own_tokens(model):
    mask = model.decoder.draw_mask(1, 64, torch.device("cpu"))
    tokens = torch.randn(1, 12 * 4, 16)
    changed = tokens.clone()
    changed[:, 4:8] += 1  # the second lead
    first, second = model.decoder(tokens, mask), model.decoder(changed, mask)
    assert (first - second).abs().amax(dim=(0, 2, 3)).nonzero().flatten().tolist() == [1]


def test_loss_by_hand_over_masked_patches_alone(model, values):
    mask = model.decoder.draw_mask(4, 64, values.device)
    output = model(values, mask)
    patches = values.double().reshape(4, 12, 8, 8).numpy()
    found = output.reconstruction.detach().double().reshape(4, 12, 8, 8).numpy()
    targets = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, keepdims=True) + 0.05**2)
    expected = np.mean(((targets - found) ** 2)[mask.numpy()])
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(output.loss, output.reconstruction_loss)
    assert output.reconstruction.shape == values.shape
    assert model(values, mask, return_loss=False).loss is None


def test_predicting_the_mean_costs_one_for_waves_less_for_noise_and_nothing_for_a_flat_patch(model, values):
    patches, everything = values.reshape(4, 12, 8, 8), torch.ones(4, 12, 8, dtype=torch.bool)
    patches = patches - patches.mean(dim=-1, keepdim=True)
    patches = patches / patches.square().mean(dim=-1, keepdim=True).sqrt()
    zeros = torch.zeros_like(patches)
    for height, cost in ((1.0, 1 / 1.0025), (0.05, 1 / 2), (0.005, 1 / 101)):  # mV
        assert model.decoder.loss(height * patches, zeros, everything).item() == pytest.approx(cost, rel=1e-5)
    assert model.decoder.loss(torch.full_like(patches, 0.4), zeros, everything).item() == pytest.approx(0, abs=1e-6)


def test_gradients_come_from_masked_patches_alone(model, values):
    mask = model.decoder.draw_mask(4, 64, values.device)
    reconstruction = torch.randn(4, 12, 8, 8, requires_grad=True)
    model.decoder.loss(values.reshape(4, 12, 8, 8), reconstruction, mask).backward()
    assert torch.equal((reconstruction.grad != 0).any(dim=-1), mask)


def test_waves_are_not_lost_beside_their_positions_at_the_start():
    embeddings = seeded(EcgPatchModel, patch_config(hidden_size=128, patch_size=16)).embeddings
    with torch.no_grad():
        contents = embeddings.projection(0.2 * torch.randn(2, 12, 10, 16))
    assert 0.3 < contents.square().mean().sqrt().item() < 3  # positions: 0.7


def test_gradients_are_right():
    """Against finite differences, in double precision, of one weight of every kind."""
    model = seeded(EcgPatchForPreTraining, patch_config(num_leads=2, num_hidden_layers=1)).double()
    values = torch.randn(1, 2, 32, dtype=torch.float64)
    mask = model.decoder.draw_mask(1, 32, values.device)
    model(values, mask).loss.backward()
    for name, parameter in model.named_parameters():
        place = int(parameter.grad.abs().argmax())
        flat, step = parameter.data.view(-1), 1e-5
        before = flat[place].item()
        losses = []
        for moved in (before + step, before - step):
            flat[place] = moved
            # As the loss is in float32, the reconstruction's own error is taken in double precision.
            targets, reconstruction = _double_targets(values), model(values, mask).reconstruction.reshape(1, 2, 4, 8)
            losses.append(((targets - reconstruction).square().mean(dim=-1) * mask).sum().item() / mask.sum().item())
        flat[place] = before
        slope = (losses[0] - losses[1]) / (2 * step)
        assert parameter.grad.view(-1)[place].item() == pytest.approx(slope, rel=1e-3, abs=1e-7), name


def _double_targets(values: torch.Tensor) -> torch.Tensor:
    patches = values.reshape(1, 2, 4, 8)
    variance, mean = torch.var_mean(patches, dim=-1, correction=0, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def test_mixed_precision_changes_little(model, values):
    with torch.no_grad():
        expected = model(values).loss.item()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(values).loss.item() == pytest.approx(expected, rel=0.02)


def test_starting_weights():
    model = seeded(EcgPatchForPreTraining, patch_config(hidden_size=64, decoder_hidden_size=32))
    weight = model.encoder.layers[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.1)
    assert model.encoder.embeddings.leads.std().item() == pytest.approx(0.5**0.5, rel=0.1)
    assert model.encoder.embeddings.separator.std().item() == pytest.approx(0.02, rel=0.3)
    assert model.decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.4)


def regular_ecgs(count: int) -> torch.Tensor:
    """ECGs of 60 beats a minute without any variation: at 20 Hz every patch of 20 samples holds the same beat."""
    signals = []
    for number in range(count):
        rng = record_rng(0, number)
        labels = replace(draw_labels(rng), rhythm="regular", heart_rate_bpm=60.0, rr_variation=0.0)
        signals.append(simulate(labels, rng, duration=6.0, sampling_rate=20.0, leads=("I", "II")))
    return torch.from_numpy(np.stack(signals))


def test_it_learns_ecgs():
    """Beats the mean, which costs 1, clearly on ECGs that it has not seen."""
    signals = regular_ecgs(288)
    known, unseen = signals[:256], signals[256:]
    sizes = {"hidden_size": 32, "decoder_hidden_size": 32, "decoder_intermediate_size": 64, "num_hidden_layers": 1}
    model = seeded(EcgPatchForPreTraining, patch_config(num_leads=2, patch_size=20, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    before = model(unseen).loss.item()
    for _ in range(240):
        batch = known[torch.randint(len(known), (16,), generator=generator)]
        loss = model.train()(batch, generator=generator).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = model.eval()(unseen).loss.item()
    assert before > 1 and after < 0.6, (before, after)


@pytest.mark.parametrize("num_samples, patch_size", [(250, 10), (500, 25), (1000, 50), (2500, 50), (13, 1)])
def test_a_tiny_one_has_patches_enough_to_mask_and_to_see(num_samples, patch_size):
    encoder = encoder_named("patch-transformer")
    settings = _tiny_settings(encoder, (3, num_samples), (16, 1), 64)
    assert settings["patch_size"] == patch_size
    EcgPatchForPreTraining(EcgPatchConfig(num_leads=3, **settings))(torch.randn(1, 3, num_samples))


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_leads": 0}, "num_leads=0"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"hidden_size": 18, "num_attention_heads": 4}, "hidden_size=18 and num_attention_heads=4"),
        ({"hidden_size": 15, "num_attention_heads": 3}, "even multiple"),
        ({"decoder_hidden_size": 10, "decoder_num_attention_heads": 4}, "decoder_hidden_size=10"),
        ({"mask_ratio": 0.0}, "mask_ratio=0.0"),
        ({"mask_ratio": 1.0}, "mask_ratio=1.0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(EcgError, match=message):
        patch_config(**settings)


def test_inputs_that_cannot_be(model, values):
    for wrong in (values[:, :8], values[0], values[:, :, :0]):
        for part in (model, model.encoder):
            with pytest.raises(EcgError, match=r"expected \(any, 12, any\): batch, leads, samples"):
                part(wrong)
    with pytest.raises(EcgError, match="Got 63 samples, expected a multiple of patch_size=8. Cut the signals to 56"):
        model.encoder(values[:, :, :63])
    with pytest.raises(EcgError, match="Got 7 samples, expected at least one patch of 8"):
        model(values[:, :, :7])
    with pytest.raises(EcgError, match="masks 1 of the 1 patches"):
        model(values[:, :, :8])


def test_masks_that_cannot_be(model, values):
    mask = model.decoder.draw_mask(4, 64, values.device)
    with pytest.raises(EcgError, match=r"bool_masked_pos of the shape \(4, 12, 7\), expected \(4, 12, 8\)"):
        model(values, mask[..., :7])
    uneven = mask.clone()
    uneven[1, 3, int((~mask[1, 3]).nonzero()[0])] = True
    with pytest.raises(EcgError, match="leaves from 1 to 2 patches of a lead"):
        model(values, uneven)
    with pytest.raises(EcgError, match="leaves from 0 to 0 patches"):
        model(values, torch.ones_like(mask))
