"""Makes an EcgLlm from a checkpoint of the paper's second stage: encoder, projection and language model in one.

| kind | what the paper's code projects | by | in EcgLlm's projector |
| --- | --- | --- | --- |
| clip | `CLIPModel`'s `image_embeds`, of unit length | `image_projection` | `projections.0` |
| vit | the mean over the hidden states, then over the tokens | `image_projection` | `projections.0` |
| resnet | the mean over time | `image_projection` | `projections.0` |
| clip-vit | CLIP's and ViT's | `clip_projection`, `vit_projection` | `projections.0`, `projections.1` |
| | both side by side: linear, ReLU, linear | `visual_fusion.0`, `visual_fusion.2` | `fusion`, `output` |

The result takes the place of `<signal>` in bos, `<sig_start><signal><sig_end>`, question, answer, eos; here it takes
that of `<|ecg|>` in `<|ecg_start|><|ecg|><|ecg_end|>`, and `ecg_prompt.json` has the rest, with nothing in between.

What is otherwise, or not known:

- The id that the paper's code looks for is written into it and lies outside its vocabulary, so the place is taken
  from the paper's words: that of the token `<signal>`. The placeholder's own row is never read.
- The paper's code hides 75 % of the patches from ViT at inference too. The projection was trained on such features;
  ours shows ViT the whole picture.
- It shows CLIP and ViT two pictures of an ECG; EcgClipVit reads one.
- In which precision it multiplies is not known. Here the encoder is float32, and the projection of the dtype that the
  language model has.

The text tower of CLIP and the decoder of ViT lie in the checkpoint too, as stage 1 left them. Their keys are checked,
and they are no part of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ecgbyte_hf.hub.reference_checkpoint import Checkpoint
from ecgbyte_hf.hub.reference_encoders import convert_encoder
from ecgbyte_hf.hub.reference_llm import ReferenceLanguageModel
from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, EncoderError
from ecgbyte_hf.training.encoder_sft import language_model_layers
from ecgbyte_hf.training.extend_ecg_llm import join

if TYPE_CHECKING:
    import torch

#: The reference's name -> ours.
_ONE_PROJECTION = {"image_projection": "projections.0"}
_TWO_PROJECTIONS = {
    "clip_projection": "projections.0",
    "vit_projection": "projections.1",
    "visual_fusion.0": "fusion",
    "visual_fusion.2": "output",
}
_PICTURES_NOTE = (
    "the paper's code shows CLIP and ViT two pictures of an ECG, each as its own processor draws it; EcgClipVit reads "
    "one, so its features are not those of the paper's code"
)
_MASK_NOTE = (
    "the paper's code hides 75 % of the patches from ViT at inference too, so the projection was trained on such "
    "features; here ViT sees the whole picture, and answers may differ"
)


def convert_second_stage(
    checkpoint: Checkpoint, kind: str, language_model: ReferenceLanguageModel, config: Any = None
) -> tuple[ReferenceLanguageModel, list[str], list[str]]:
    """The model in a checkpoint of the second stage, whose tensors are taken out of it.

    Args:
        checkpoint: What `read_checkpoint` returned, without the language model.
        kind: As of `convert_encoder`.
        language_model: What `read_language_model` took out of it.
        config: Of the encoder; by default that of the paper.

    Returns:
        The language model as a part of an `EcgLlmForConditionalGeneration`, the names of what was checked and is no
        part of that, and notes.

    Raises:
        EncoderError: weights that are not those of such a model, or a projector between others.
        EcgFileError: keys are left, or an adapter of other layers.
    """
    tensors = _take_projector(checkpoint, kind)
    encoder = convert_encoder(checkpoint, kind, 2, config)
    unused = [name for name, _ in encoder.named_children() if encoder.base_model is not encoder and name != "encoder"]
    llm = language_model.model
    _check_projector(tensors, encoder.config, language_model.report.hidden_size, checkpoint.where)
    notes = notes_of(kind, stage=2)
    stored = sorted({str(tensor.dtype) for tensor in tensors.values()})
    if stored != [str(llm.dtype)]:
        notes.append(f"the projection is {', '.join(stored)} in the checkpoint and {llm.dtype} here, like the rest")
    model = join(encoder.base_model, llm, language_model.tokenizer)
    projector = model.model.projector
    projector.load_state_dict(projector.state_dict() | tensors)
    return _as_part(language_model, model.eval(), checkpoint.where), unused, notes


def notes_of(kind: str, stage: int) -> list[str]:
    """In what a converted model is not that of the paper's code."""
    notes = [_PICTURES_NOTE] if kind == "clip-vit" else []
    return [*notes, _MASK_NOTE] if stage == 2 and kind in ("vit", "clip-vit") else notes


def _as_part(language_model: ReferenceLanguageModel, model: Any, where: str) -> ReferenceLanguageModel:
    """The language model as a part of an EcgLlm, whose layers have other names."""
    prefix = f"{language_model.model.base_model_prefix}."
    outside = [layer for layer in language_model.lora if not layer.startswith(prefix)]
    if outside:
        raise EcgFileError(
            f"{where}: LoRA weights of {outside[0][:100]}, which is not among the layers {prefix}* that an EcgLlm has"
        )
    return replace(
        language_model,
        model=model,
        lora={
            f"model.language_model.{layer.removeprefix(prefix)}": sides for layer, sides in language_model.lora.items()
        },
        lora_targets=language_model_layers(language_model.report.lora_modules),
    )


def _take_projector(checkpoint: Checkpoint, kind: str) -> dict[str, torch.Tensor]:
    """The projector's tensors under our names, taken out of a checkpoint."""
    names = _TWO_PROJECTIONS if kind == "clip-vit" else _ONE_PROJECTION
    projector = {}
    for theirs, ours in names.items():
        for part in ("weight", "bias"):
            found = checkpoint.take(f"{theirs}.{part}")
            if list(found) != [""]:
                raise EncoderError(f"{checkpoint.where}: no key {theirs}.{part}; check --kind and --stage")
            projector[f"{ours}.{part}"] = found[""].contiguous()
    return projector


def _check_projector(projector: Mapping[str, torch.Tensor], encoder_config: Any, width: int, where: str) -> None:
    """Refuse a projector that is not between this encoder and this language model."""
    sizes = getattr(encoder_config, "pooler_output_sizes", (encoder_config.pooler_output_size,))
    shapes = {f"projections.{place}.weight": (width, size) for place, size in enumerate(sizes)}
    if len(sizes) > 1:
        shapes |= {"fusion.weight": (width, len(sizes) * width), "output.weight": (width, width)}
    for key, tensor in projector.items():
        expected = shapes[key] if key.endswith("weight") else (width,)
        if tuple(tensor.shape) != expected:
            raise EncoderError(
                f"{where}: the projector's {key} has the shape {tuple(tensor.shape)}, expected {expected} between "
                "this encoder and this language model; check --kind, --base and --encoder-config"
            )
