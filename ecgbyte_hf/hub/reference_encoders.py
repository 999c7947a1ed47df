"""Makes our encoders from checkpoints of the paper's two-stage baselines.

`reference_checkpoint` lists the keys. What has another form in our classes:

- The reference's attention pool adds the class token's position twice, ours once: the class token takes up one.
- Its `nn.MultiheadAttention` holds query, key and value in one matrix.
- transformers 5 names the layers of `ViTModel` otherwise than transformers 4 did.
- The second stage keeps the ResNet alone, without the head of the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ecgbyte_hf.hub.reference_checkpoint import Checkpoint, load_exactly
from ecgbyte_hf.models.auto import Encoder
from ecgbyte_hf.models.errors_ecg_byte import EncoderError
from ecgbyte_hf.training.start_encoder import encoder_named

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]

#: Name in the paper's code -> in our commands.
ENCODER_KINDS = {"clip": "clip", "vit": "vit", "clip-vit": "clip-vit", "resnet": "merl-resnet"}
#: transformers 4 -> transformers 5, in this order.
_VIT_NAMES = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(?<!\.attention)\.output\.dense\.", ".mlp.fc2."),
)
_VIT_MEAN = (0.5, 0.5, 0.5)


def encoder_of_kind(kind: str) -> Encoder:
    """The encoder that the paper's code calls so.

    Raises:
        EncoderError: an unknown kind.
    """
    if kind not in ENCODER_KINDS:
        raise EncoderError(f"got the kind {kind!r}, expected one of {', '.join(ENCODER_KINDS)}")
    return encoder_named(ENCODER_KINDS[kind])


def convert_encoder(checkpoint: Checkpoint, kind: str, stage: int, config: Any = None) -> Any:
    """The encoder in a checkpoint of a two-stage baseline, whose tensors are taken out of it.

    Args:
        checkpoint: What `read_checkpoint` returned; in stage 2 without the language model and the projections.
        kind: `"clip"`, `"vit"`, `"clip-vit"` or `"resnet"`.
        stage: 1 for a model of pretraining, with text towers and heads; 2 for what the second stage uses.
        config: Of the encoder, such as an `EcgClipConfig`; by default that of the paper.

    Returns:
        `EcgClipForPreTraining`, `EcgVitForPreTraining`, `EcgClipVitForPreTraining` or `EcgResNetForPreTraining` (in
        stage 2 `EcgResNetModel`) in float32.

    Raises:
        EncoderError: an unknown kind, a configuration of another, or weights that are not those of the model.
        EcgFileError: keys are left.
    """
    makers: dict[str, Callable[[Checkpoint, int, Any], Any]] = {
        "EcgClip": _clip,
        "EcgVit": _vit,
        "EcgClipVit": _clip_vit,
        "EcgResNet": _resnet,
    }
    model = makers[encoder_of_kind(kind).prefix](checkpoint, stage, config)
    checkpoint.check_empty(f"a model of kind {kind}, stage {stage}")
    return model.eval()


def image_processor(kind: str, num_leads: int, size: int) -> Any:
    """What draws the pictures that an encoder was trained on, as far as one picture can; `None` for signals.

    CLIP's own processor cuts the middle out of the stretched picture, ViT's squeezes all of it. The reference's
    clip-vit gives each its own; ours reads one picture, and gets the whole one with CLIP's colours.
    """
    from ecgbyte_hf.models.image_processing_ecg import EcgImageProcessor

    if kind == "resnet":
        return None
    if kind == "vit":
        return EcgImageProcessor(num_leads=num_leads, size=size, image_mean=_VIT_MEAN, image_std=_VIT_MEAN)
    return EcgImageProcessor(mode="reference" if kind == "clip" else "resize", num_leads=num_leads, size=size)


def _clip(checkpoint: Checkpoint, stage: int, config: Any) -> Any:
    from ecgbyte_hf.models.configuration_ecg_clip import EcgClipConfig
    from ecgbyte_hf.models.modeling_ecg_clip import EcgClipForPreTraining

    model = EcgClipForPreTraining(_checked(config, EcgClipConfig))
    _fill_clip(model.encoder, model.text_head, checkpoint, "clip.")
    return model


def _vit(checkpoint: Checkpoint, stage: int, config: Any) -> Any:
    from ecgbyte_hf.models.configuration_ecg_vit import EcgVitConfig
    from ecgbyte_hf.models.modeling_ecg_vit import EcgVitForPreTraining

    model = EcgVitForPreTraining(_checked(config, EcgVitConfig))
    _fill_vit(model.encoder, model.decoder, checkpoint, "vit.")
    return model


def _clip_vit(checkpoint: Checkpoint, stage: int, config: Any) -> Any:
    from ecgbyte_hf.models.configuration_ecg_clip_vit import EcgClipVitConfig
    from ecgbyte_hf.models.modeling_ecg_clip_vit import EcgClipVitForPreTraining

    model = EcgClipVitForPreTraining(_checked(config, EcgClipVitConfig))
    _fill_clip(model.encoder.clip, model.text_head, checkpoint, "clip.clip.")
    _fill_vit(model.encoder.vit, model.decoder, checkpoint, "vit.vit.")
    return model


def _resnet(checkpoint: Checkpoint, stage: int, config: Any) -> Any:
    from ecgbyte_hf.models.configuration_ecg_resnet import EcgResNetConfig
    from ecgbyte_hf.models.modeling_ecg_resnet import EcgResNetForPreTraining, EcgResNetModel

    config = _checked(config, EcgResNetConfig)
    prefix = "resnet." if stage == 1 else "resnet.resnet."
    backbone = {_resnet_name(key): tensor for key, tensor in checkpoint.take(prefix).items()}
    if stage == 2:
        encoder = EcgResNetModel(config)
        load_exactly(encoder, backbone, checkpoint.where, prefix)
        return encoder
    model = EcgResNetForPreTraining(config)
    load_exactly(model.encoder, backbone, checkpoint.where, prefix)
    load_exactly(model.text_model, checkpoint.take("lm."), checkpoint.where, "lm.")
    parts = {
        "downconv.": model.ecg_projection,
        "linear1.": model.view_projections[0],
        "linear2.": model.view_projections[1],
        "proj_t.": model.text_projection,
    }
    for name, part in parts.items():
        load_exactly(part, checkpoint.take(name), checkpoint.where, name)
    pool = _pool(checkpoint.take("att_pool_head."), checkpoint.where)
    load_exactly(model.attention_pool, pool, checkpoint.where, "att_pool_head.")
    return model


def _checked(config: Any, wanted: type) -> Any:
    """The paper's configuration, or the one given."""
    if config is None:
        return wanted()
    if not isinstance(config, wanted):
        raise EncoderError(f"got a configuration of type {type(config).__name__}, expected {wanted.__name__}")
    return config


def _fill_clip(encoder: Any, text_head: Any, checkpoint: Checkpoint, prefix: str) -> None:
    """Give EcgClip's parts the weights of a `CLIPModel`."""
    parts = {
        "vision_model.": encoder.vision.vision_model,
        "visual_projection.": encoder.vision.visual_projection,
        "text_model.": text_head.text.text_model,
        "text_projection.": text_head.text.text_projection,
    }
    for name, part in parts.items():
        load_exactly(part, checkpoint.take(prefix + name), checkpoint.where, prefix + name)
    scale = checkpoint.take(f"{prefix}logit_scale")
    if [tuple(value.shape) for value in scale.values()] != [()]:
        raise EncoderError(f"{checkpoint.where}: {prefix}logit_scale is missing or no single number; check --kind")
    text_head.logit_scale.data.copy_(scale[""])


def _fill_vit(encoder: Any, decoder: Any, checkpoint: Checkpoint, prefix: str) -> None:
    """Give EcgVit's parts the weights of a `ViTForMaskedImageModeling`."""
    known = encoder.vit.state_dict().keys()
    tensors = {_vit_name(key, known): value for key, value in checkpoint.take(f"{prefix}vit.").items()}
    load_exactly(encoder.vit, tensors, checkpoint.where, f"{prefix}vit.")
    pixels = f"{prefix}decoder.0."
    load_exactly(decoder.projection, checkpoint.take(pixels), checkpoint.where, pixels)


def _vit_name(key: str, known: Any) -> str:
    """The name of a weight of `ViTModel` in the transformers that is installed."""
    if key in known:
        return key
    for pattern, name in _VIT_NAMES:
        key = re.sub(pattern, name, key)
    return key


def _resnet_name(key: str) -> str:
    """Our name of a weight of the reference's ResNet.

    Example:
        >>> _resnet_name("layer2.0.bn1.weight"), _resnet_name("conv1.weight")
        ('stages.1.0.convolutions.0.1.weight', 'stem.0.weight')
    """
    stem = re.fullmatch(r"(conv|bn)1\.(\w+)", key)
    if stem:
        return f"stem.{int(stem[1] == 'bn')}.{stem[2]}"
    block = re.fullmatch(r"layer(\d+)\.(\d+)\.(?:(conv|bn)(\d+)|shortcut\.(\d))\.(\w+)", key)
    if not block:
        return key  # unknown, which `load_exactly` says
    stage, place, kind, number, shortcut, rest = block.groups()
    part = f"shortcut.{shortcut}" if shortcut else f"convolutions.{int(number) - 1}.{int(kind == 'bn')}"
    return f"stages.{int(stage) - 1}.{place}.{part}.{rest}"


def _pool(tensors: Mapping[str, torch.Tensor], where: str) -> Tensors:
    """The weights of our attention pool, from those of the reference's."""
    whole = {"mhsa.in_proj_weight": 2, "mhsa.in_proj_bias": 1, "cls_token": 3, "positional_embedding": 3}
    for key, dimensions in whole.items():
        if key not in tensors or tensors[key].dim() != dimensions or (dimensions < 3 and len(tensors[key]) % 3):
            raise EncoderError(
                f"{where}: att_pool_head.{key} is missing or of another shape; check --kind and --stage"
            )
    weights, biases = (tensors[f"mhsa.in_proj_{name}"].chunk(3) for name in ("weight", "bias"))
    renamed: Tensors = {
        "class_token": tensors["cls_token"] + tensors["positional_embedding"][:, :1],
        "positions": tensors["positional_embedding"],
    }
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        renamed |= {f"{name}.weight": weight, f"{name}.bias": bias}
    others = {"mhsa.out_proj.": "output.", "c_proj.": "projection."}
    for key, tensor in tensors.items():
        if key not in whole:
            old = next((name for name in others if key.startswith(name)), None)
            renamed[key if old is None else others[old] + key.removeprefix(old)] = tensor
    return renamed
