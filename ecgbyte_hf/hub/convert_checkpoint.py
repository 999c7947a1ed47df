"""Converts checkpoints of the paper's code into folders that transformers and PEFT load.

| kind, stage | the folder holds |
| --- | --- |
| ecg-byte | `base/`, the model with our ECG tokens as `ecgbyte extend-llm` writes it, and `adapter/` |
| an encoder, 1 | the encoder with its head, and what makes its input |
| an encoder, 2 | `encoder/`, `base/`, `adapter/`, `projector.safetensors` |

A language model that was trained as a whole is in `model/` instead of `base/` and `adapter/`. `conversion.json` says
where all of it came from. The tensors in `projector.safetensors` are `projections.N`, one for each embedding of the
encoder, and for clip-vit `fusion` and `output`: projections side by side -> fusion -> ReLU -> output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgbyte_hf.hub.reference_checkpoint import Checkpoint, read_checkpoint
from ecgbyte_hf.hub.reference_encoders import convert_encoder, image_processor
from ecgbyte_hf.hub.reference_llm import LORA_ALPHA, convert_language_model, paper_prompt
from ecgbyte_hf.hub.reference_percentiles import read_percentiles
from ecgbyte_hf.hub.reference_tokenizer import (
    CONVERSION_FILE,
    make_processor,
    read_reference_vocabulary,
    source_report,
)
from ecgbyte_hf.hub.whole_folder import new_folder, whole_folder
from ecgbyte_hf.models.errors_ecg_byte import EcgError, EncoderError
from ecgbyte_hf.models.leads_ecg_byte import REFERENCE_LEADS
from ecgbyte_hf.provenance import provenance, write_json

if TYPE_CHECKING:
    import torch

KINDS = ("ecg-byte", "clip", "vit", "clip-vit", "resnet")
PROJECTOR_FILE = "projector.safetensors"
#: The reference's name -> ours.
_ONE_PROJECTION = {"image_projection": "projections.0"}
_TWO_PROJECTIONS = {
    "clip_projection": "projections.0",
    "vit_projection": "projections.1",
    "visual_fusion.0": "fusion",
    "visual_fusion.2": "output",
}
_CLIP_VIT_NOTE = (
    "the paper's code shows CLIP and ViT two pictures of an ECG, each as its own processor draws it; EcgClipVit reads "
    "one, so its features are not those of the paper's code"
)


def convert_ecg_byte_checkpoint(
    path: str | Path,
    output_dir: str | Path,
    *,
    base: str,
    tokenizer: str | Path,
    percentiles: str | Path | None = None,
    sampling_rate: float = 250,
    leads: Sequence[str] = REFERENCE_LEADS,
    profile: str = "reference",
    max_length: int = 1024,
    lora_alpha: int = LORA_ALPHA,
    revision: str | None = None,
) -> dict[str, Any]:
    """Convert a language model that reads ECG tokens.

    Args:
        path: `best_model.pth` of the paper's `main.py`.
        output_dir: A new folder.
        base: The model that was trained: a folder or a name on the Hub, of which configuration and tokenizer are read.
        tokenizer: The `.pkl` it was trained with: the order of its dictionary is that of the embeddings' rows.
        percentiles: The `.npy` it was trained with.
        sampling_rate: As of `make_processor`, like `leads` and `profile`.
        leads: See there: a model trained on PTB-XL has another order.
        profile: See there.
        max_length: Tokens of prompt and answer together; the paper's `--pad_to_max` and 4.
        lora_alpha: The adapter's scale times its rank.
        revision: Of the base on the Hub.

    Returns:
        What `conversion.json` says.

    Raises:
        EcgError: see the readers, and `convert_language_model`.
    """
    output_dir = new_folder(output_dir)
    vocabulary = read_reference_vocabulary(tokenizer)
    processor = make_processor(
        vocabulary,
        calibration=read_percentiles(percentiles) if percentiles is not None else None,
        sampling_rate=sampling_rate,
        leads=leads,
        profile=profile,
    )
    checkpoint = read_checkpoint(path)
    report = _report(checkpoint, path, "ecg-byte", None)
    with whole_folder(output_dir) as partial:
        converted = convert_language_model(
            checkpoint,
            base,
            partial,
            vocabulary=vocabulary,
            processor=processor,
            prompt=paper_prompt(max_length),
            final_folder=output_dir,
            lora_alpha=lora_alpha,
            revision=revision,
        )
        checkpoint.check_empty("a language model of kind ecg-byte")
        report |= {
            "tokenizer": source_report(vocabulary),
            "language_model": asdict(converted),
            "provenance": _provenance(base=base, revision=revision, max_length=max_length, lora_alpha=lora_alpha),
        }
        write_json(partial / CONVERSION_FILE, report)
    return report


def convert_encoder_checkpoint(
    path: str | Path,
    output_dir: str | Path,
    *,
    kind: str,
    stage: int,
    base: str | None = None,
    config: Any = None,
    sampling_rate: float = 250,
    leads: Sequence[str] = REFERENCE_LEADS,
    profile: str = "reference",
    lora_alpha: int = LORA_ALPHA,
    revision: str | None = None,
) -> dict[str, Any]:
    """Convert a model of the two-stage baselines.

    Args:
        path: `best_model.pth` of the paper's `pretrain.py` (stage 1) or `finetune.py` (stage 2).
        output_dir: A new folder.
        kind: `"clip"`, `"vit"`, `"clip-vit"` or `"resnet"`.
        stage: 1 or 2.
        base: In stage 2 the language model that was trained, as of `convert_ecg_byte_checkpoint`.
        config: Of the encoder; by default the paper's.
        sampling_rate: As of `make_processor`, like `leads` and `profile`.
        leads: See there: a model trained on PTB-XL has another order.
        profile: See there.
        lora_alpha: The adapter's scale times its rank.
        revision: Of the base on the Hub.

    Returns:
        What `conversion.json` says.

    Raises:
        EcgError: see the readers, `convert_encoder` and `convert_language_model`.
    """
    if stage not in (1, 2):
        raise EncoderError(f"got stage {stage}, expected 1 (pretraining) or 2 (with a language model)")
    if (base is None) == (stage == 2):
        raise EcgError("--base is the language model of stage 2: give it there, and leave it out in stage 1")
    output_dir = new_folder(output_dir)
    checkpoint = read_checkpoint(path)
    report = _report(checkpoint, path, kind, stage)
    with whole_folder(output_dir) as partial:
        if base is not None:
            converted = convert_language_model(
                checkpoint,
                base,
                partial,
                vocabulary=None,
                final_folder=output_dir,
                lora_alpha=lora_alpha,
                revision=revision,
            )
            projector = _take_projector(checkpoint, kind)
            report["language_model"] = asdict(converted)
        encoder = convert_encoder(checkpoint, kind, stage, config)
        report["encoder"] = {"class": type(encoder).__name__, "parameters": _num_parameters(encoder)}
        if base is not None:
            _check_projector(projector, encoder, converted.hidden_size, checkpoint.where)
            _save_tensors(partial / PROJECTOR_FILE, projector)
        _save_encoder(partial / "encoder" if stage == 2 else partial, encoder, kind, sampling_rate, leads, profile)
        report["notes"] = [_CLIP_VIT_NOTE] if kind == "clip-vit" else []
        report["provenance"] = _provenance(base=base, revision=revision, lora_alpha=lora_alpha, profile=profile)
        write_json(partial / CONVERSION_FILE, report)
    return report


def _report(checkpoint: Checkpoint, path: str | Path, kind: str, stage: int | None) -> dict[str, Any]:
    return {
        "source": Path(path).name,
        "sha256": checkpoint.sha256,
        "kind": kind,
        "stage": stage,
        "epoch": checkpoint.epoch,
        "keys": len(checkpoint.tensors) + len(checkpoint.dropped),
        "keys_left_out": sorted(checkpoint.dropped),
    }


def _provenance(**arguments: Any) -> dict[str, Any]:
    """Arguments without the machine's folders."""
    named = {name: Path(value).name if name == "base" and value else value for name, value in arguments.items()}
    return provenance("convert checkpoint", named)


def _num_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


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


def _check_projector(projector: Mapping[str, torch.Tensor], encoder: Any, width: int, where: str) -> None:
    """Refuse a projector that is not between this encoder and this language model."""
    sizes = getattr(encoder.config, "pooler_output_sizes", (encoder.config.pooler_output_size,))
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


def _save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata={"format": "pt"})


def _save_encoder(
    folder: Path, encoder: Any, kind: str, sampling_rate: float, leads: Sequence[str], profile: str
) -> None:
    """Write an encoder and what makes its input; that of a picture's signal lies in `signal/`."""
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

    encoder.save_pretrained(folder)
    extractor = EcgByteFeatureExtractor(profile=profile, sampling_rate=sampling_rate, leads=leads)
    pictures = image_processor(kind, len(extractor.leads), getattr(encoder.config, "image_size", 0))
    if pictures is None:
        extractor.save_pretrained(folder)
    else:
        pictures.save_pretrained(folder)
        extractor.save_pretrained(folder / "signal")
