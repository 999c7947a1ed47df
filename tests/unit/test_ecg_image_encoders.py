"""EcgClip, EcgVit, EcgClipVit: the same as transformers' own models, and what is ours around them."""

import pytest
import torch
from tiny_encoders import CLIP, VIT, make_inputs, seeded
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTForMaskedImageModeling

from ecgbyte_hf import (
    EcgClipConfig,
    EcgClipForPreTraining,
    EcgClipModel,
    EcgClipVitConfig,
    EcgClipVitForPreTraining,
    EcgClipVitModel,
    EcgError,
    EcgVitConfig,
    EcgVitForPreTraining,
    EcgVitModel,
)


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    return seeded(CLIPModel, CLIPConfig(**CLIP))


@pytest.fixture(scope="module")
def masked_vit() -> ViTForMaskedImageModeling:
    model = seeded(ViTForMaskedImageModeling, ViTConfig(**VIT))
    torch.nn.init.normal_(model.vit.embeddings.mask_token)
    return model


@pytest.fixture(scope="module")
def folders(clip, masked_vit, tmp_path_factory) -> tuple[str, str]:
    """Both saved, as the repositories of the paper's starting weights would be."""
    paths = tmp_path_factory.mktemp("backbones")
    clip.save_pretrained(paths / "clip")
    masked_vit.save_pretrained(paths / "vit")
    return str(paths / "clip"), str(paths / "vit")


# ---- EcgClip ---------------------------------------------------------------------------------------------------


def test_clip_is_transformers_clip(clip, folders):
    model = EcgClipForPreTraining.from_backbone_pretrained(folders[0]).eval()
    inputs = make_inputs("EcgClip")
    with torch.no_grad():
        expected, output = clip(**inputs, return_loss=True), model(**inputs)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.ecg_embeds, expected.image_embeds)
    torch.testing.assert_close(output.text_embeds, expected.text_embeds)
    torch.testing.assert_close(output.encoder_output.pooler_output, expected.image_embeds)
    assert torch.equal(output.encoder_output.last_hidden_state, expected.vision_model_output.last_hidden_state)
    assert torch.equal(model.get_text_features(inputs["input_ids"]), output.text_embeds)
    assert torch.equal(model.get_ecg_features(inputs["pixel_values"]), output.ecg_embeds)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in clip.parameters())
    base = EcgClipModel.from_backbone_pretrained(folders[0]).eval()
    assert torch.equal(base(inputs["pixel_values"]).pooler_output, output.ecg_embeds)
    assert base.config.pooler_output_size == 12 and base.config.hidden_size == 16


def test_clip_of_the_paper_has_its_size():
    with torch.device("meta"):
        model, expected = EcgClipForPreTraining(EcgClipConfig()), CLIPModel(CLIPConfig())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in expected.parameters()) == 151_277_313
    assert model.config.pooler_output_size == 512


def test_clip_starts_with_its_scale():
    model = seeded(EcgClipForPreTraining, EcgClipConfig(clip_config=CLIP | {"logit_scale_init_value": 1.5}))
    assert model.text_head.logit_scale.item() == 1.5


def test_clip_refuses(clip):
    model = seeded(EcgClipForPreTraining, EcgClipConfig(clip_config=CLIP))
    inputs = make_inputs("EcgClip")
    with pytest.raises(EcgError, match="no input_ids"):
        model(inputs["pixel_values"])
    with pytest.raises(EcgError, match=r"expected \(any, 3, 32, 32\)"):
        model(inputs["pixel_values"][..., :16], inputs["input_ids"])
    with pytest.raises(EcgError, match="one text for every ECG"):
        model(inputs["pixel_values"][:2], inputs["input_ids"])


# ---- EcgVit ----------------------------------------------------------------------------------------------------


def test_vit_is_transformers_masked_vit(masked_vit, folders):
    model = EcgVitForPreTraining.from_backbone_pretrained(folders[1]).eval()
    model.decoder.projection.load_state_dict(masked_vit.decoder[0].state_dict())
    pixels = make_inputs("EcgVit")["pixel_values"]
    mask = torch.rand(4, 64) < 0.6
    with torch.no_grad():
        expected, output = masked_vit(pixels, bool_masked_pos=mask), model(pixels, bool_masked_pos=mask)
    torch.testing.assert_close(output.reconstruction, expected.reconstruction)
    torch.testing.assert_close(output.loss, expected.loss)
    assert torch.equal(output.loss, output.reconstruction_loss)


def test_vit_embedding_is_the_mean_of_all_hidden_states_without_a_mask(masked_vit, folders):
    model = EcgVitModel.from_backbone_pretrained(folders[1]).eval()
    pixels = make_inputs("EcgVit")["pixel_values"]
    with torch.no_grad():
        expected = masked_vit.vit(pixels, output_hidden_states=True)
        output = model(pixels, output_hidden_states=True)
    assert len(expected.hidden_states) == len(output.hidden_states) == 3
    torch.testing.assert_close(output.pooler_output, torch.stack(expected.hidden_states).mean(dim=0).mean(dim=1))
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    assert output.last_hidden_state.shape == (4, 65, 16) and model(pixels).hidden_states is None


def test_vit_of_the_paper():
    config = EcgVitConfig()
    with torch.device("meta"):
        model, expected = EcgVitForPreTraining(config), ViTForMaskedImageModeling(ViTConfig())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in expected.parameters())
    assert (config.num_patches, config.num_masked_patches, config.pooler_output_size) == (196, 147, 768)


def test_masks_hide_three_quarters_always_the_same_in_evaluation():
    model = seeded(EcgVitForPreTraining, EcgVitConfig(vit_config=VIT))
    draw = lambda: model.decoder.draw_mask(200, torch.device("cpu"))  # noqa: E731
    first, again = draw(), draw()
    assert first.shape == (200, 64) and (first.sum(dim=1) == 48).all() and torch.equal(first, again)
    assert (first.float().mean(dim=0) - 0.75).abs().max() < 0.15 and not torch.equal(first[0], first[1])
    pixels = make_inputs("EcgVit")["pixel_values"]
    assert torch.equal(model(pixels).loss, model(pixels).loss)
    model.train()
    assert not torch.equal(draw(), draw())


def test_hidden_patches_do_not_reach_the_model():
    model = seeded(EcgVitForPreTraining, EcgVitConfig(vit_config=VIT))
    pixels = make_inputs("EcgVit")["pixel_values"]
    mask = torch.zeros(4, 64, dtype=torch.bool)
    mask[:, :8] = True  # the upper row of patches
    changed = pixels.clone()
    changed[:, :, :4] = 0.0
    assert torch.equal(model(pixels, mask).reconstruction, model(changed, mask).reconstruction)
    assert not torch.equal(model(pixels, mask).loss, model(changed, mask).loss)
    assert not torch.equal(model.encoder(pixels).pooler_output, model.encoder(changed).pooler_output)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.001])
def test_mask_ratio_that_leaves_nothing_to_do(ratio):
    with pytest.raises(EcgError, match="of 64 patches"):
        EcgVitConfig(vit_config=VIT, mask_ratio=ratio)


def test_vit_refuses():
    model = seeded(EcgVitForPreTraining, EcgVitConfig(vit_config=VIT))
    pixels = make_inputs("EcgVit")["pixel_values"]
    with pytest.raises(EcgError, match=r"bool_masked_pos of the shape \(4, 60\), expected \(4, 64\)"):
        model(pixels, torch.ones(4, 60, dtype=torch.bool))
    with pytest.raises(EcgError, match="side of a square"):
        EcgVitConfig(vit_config=VIT | {"image_size": [32, 64]})


# ---- EcgClipVit ------------------------------------------------------------------------------------------------


def test_clip_vit_is_both(folders):
    model = EcgClipVitForPreTraining.from_backbone_pretrained(*folders).eval()
    clip = EcgClipForPreTraining.from_backbone_pretrained(folders[0]).eval()
    vit = EcgVitForPreTraining.from_backbone_pretrained(folders[1]).eval()
    vit.decoder.load_state_dict(model.decoder.state_dict())
    inputs = make_inputs("EcgClipVit")
    with torch.no_grad():
        output, of_clip, of_vit = model(**inputs), clip(**inputs), vit(inputs["pixel_values"])
        encoded = model.encoder(inputs["pixel_values"])
        parts = [part(inputs["pixel_values"]) for part in (clip.encoder, vit.encoder)]
    torch.testing.assert_close(output.cross_modal_loss, of_clip.loss)
    torch.testing.assert_close(output.reconstruction_loss, of_vit.loss)
    torch.testing.assert_close(output.loss, of_clip.loss + of_vit.loss)
    torch.testing.assert_close(output.reconstruction, of_vit.reconstruction)
    assert model.config.pooler_output_sizes == (12, 16) and model.config.pooler_output_size == 28
    assert torch.equal(encoded.pooler_output, torch.cat([part.pooler_output for part in parts], dim=1))
    assert torch.equal(encoded.last_hidden_state, torch.cat([part.last_hidden_state for part in parts], dim=1))
    base = EcgClipVitModel.from_backbone_pretrained(*folders).eval()
    assert torch.equal(base(inputs["pixel_values"]).pooler_output, encoded.pooler_output)
    with pytest.raises(EcgError, match="no input_ids"):
        model(inputs["pixel_values"])


@pytest.mark.parametrize("change", [{"image_size": 64}, {"hidden_size": 32}])
def test_clip_vit_parts_must_fit(change):
    with pytest.raises(EcgError, match=next(iter(change))):
        EcgClipVitConfig(clip_config=CLIP, vit_config=VIT | change)
