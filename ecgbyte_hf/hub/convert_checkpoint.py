"""Converts checkpoints of the paper's code into folders that transformers and PEFT load.

| kind, stage | the folder holds |
| --- | --- |
| ecg-byte | `base/`, the model with our ECG tokens as `ecgbyte extend-llm` writes it, and `adapter/` |
| an encoder, 1 | the encoder with its head, what makes its input, and its text tower's tokenizer |
| an encoder, 2 | `base/`, the model with encoder as `ecgbyte extend-llm --encoder` writes it, and `adapter/` |

`adapter/` is as `ecgbyte sft --use_peft` leaves one: it names `base/`, and both hold tokenizer, processor and prompt.
A language model that was trained as a whole, or whose adapter is merged, is in `model/` instead. `conversion.json`
says where all of it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ecgbyte_hf.hub.reference_checkpoint import Checkpoint, read_checkpoint
from ecgbyte_hf.hub.reference_encoders import ENCODER_KINDS, convert_encoder, encoder_of_kind, image_processor
from ecgbyte_hf.hub.reference_llm import LORA_ALPHA, ReferenceLanguageModel, paper_prompt, read_language_model
from ecgbyte_hf.hub.reference_percentiles import read_percentiles
from ecgbyte_hf.hub.reference_second_stage import convert_second_stage, notes_of
from ecgbyte_hf.hub.reference_texts import fit_text_tokenizer, load_text_tokenizer
from ecgbyte_hf.hub.reference_tokenizer import (
    CONVERSION_FILE,
    make_processor,
    read_reference_vocabulary,
    source_report,
)
from ecgbyte_hf.hub.whole_folder import new_folder, whole_folder
from ecgbyte_hf.models.errors_ecg_byte import EcgError, EncoderError
from ecgbyte_hf.models.leads_ecg_byte import REFERENCE_LEADS
from ecgbyte_hf.models.processing_ecg_llm import EcgLlmProcessor
from ecgbyte_hf.provenance import provenance, write_json
from ecgbyte_hf.training.start_encoder import EncoderParts

KINDS = ("ecg-byte", *ENCODER_KINDS)


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
    merge: bool = False,
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
        merge: Work the adapter into the model instead of writing it beside it.
        revision: Of the base on the Hub.

    Returns:
        What `conversion.json` says.

    Raises:
        EcgError: see the readers, and `read_language_model`.
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
        model = read_language_model(
            checkpoint,
            base,
            vocabulary=vocabulary,
            prompt=paper_prompt(max_length),
            lora_alpha=lora_alpha,
            merge=merge,
            revision=revision,
        )
        checkpoint.check_empty("a language model of kind ecg-byte")
        model.save(partial, output_dir, processor)
        report |= {
            "tokenizer": source_report(vocabulary),
            "language_model": asdict(model.report),
            "provenance": _provenance(base=base, revision=revision, max_length=max_length, lora_alpha=lora_alpha),
        }
        _write_report(partial, report)
    return report


def convert_encoder_checkpoint(
    path: str | Path,
    output_dir: str | Path,
    *,
    kind: str,
    stage: int,
    base: str | None = None,
    config: Any = None,
    text_tokenizer: str | None = None,
    sampling_rate: float = 250,
    leads: Sequence[str] = REFERENCE_LEADS,
    profile: str = "reference",
    max_length: int = 1024,
    lora_alpha: int = LORA_ALPHA,
    merge: bool = False,
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
        text_tokenizer: In stage 1, of the text tower: as of `load_text_tokenizer`.
        sampling_rate: As of `make_processor`, like `leads` and `profile`.
        leads: See there: a model trained on PTB-XL has another order.
        profile: See there.
        max_length: In stage 2 tokens of prompt and answer together; the paper's `--pad_to_max` and 2.
        lora_alpha: In stage 2 the adapter's scale times its rank.
        merge: In stage 2, work the adapter into the model instead of writing it beside it.
        revision: Of the base on the Hub.

    Returns:
        What `conversion.json` says.

    Raises:
        EcgError: see the readers, `convert_encoder`, `convert_second_stage` and `read_language_model`.
    """
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

    _check_stage(stage, base, text_tokenizer)
    output_dir = new_folder(output_dir)
    extractor = EcgByteFeatureExtractor(profile=profile, sampling_rate=sampling_rate, leads=leads)
    made_with = {"base": base, "revision": revision, "profile": profile, "lora_alpha": lora_alpha}
    if base is None:
        tokenizer = load_text_tokenizer(encoder_of_kind(kind), text_tokenizer)
        made_with = {"text_tokenizer": text_tokenizer, "profile": profile}
    checkpoint = read_checkpoint(path)
    report = _report(checkpoint, path, kind, stage) | {"provenance": _provenance(**made_with)}
    with whole_folder(output_dir) as partial:
        if base is None:
            report |= _write_first_stage(checkpoint, partial, kind, config, extractor, tokenizer)
        else:
            language_model = read_language_model(
                checkpoint,
                base,
                vocabulary=None,
                prompt=paper_prompt(max_length),
                lora_alpha=lora_alpha,
                merge=merge,
                revision=revision,
            )
            report |= _write_second_stage(checkpoint, partial, output_dir, kind, config, extractor, language_model)
        _write_report(partial, report)
    return report


def _check_stage(stage: int, base: str | None, text_tokenizer: str | None) -> None:
    if stage not in (1, 2):
        raise EncoderError(f"got stage {stage}, expected 1 (pretraining) or 2 (with a language model)")
    if (base is None) == (stage == 2):
        raise EcgError("--base is the language model of stage 2: give it there, and leave it out in stage 1")
    if stage == 2 and text_tokenizer is not None:
        raise EcgError("--text-tokenizer is that of stage 1, whose text tower stage 2 does not have: leave it out")


def _write_first_stage(
    checkpoint: Checkpoint, folder: Path, kind: str, config: Any, extractor: Any, tokenizer: Any
) -> dict[str, Any]:
    """Write an encoder as `ecgbyte pretrain-encoder` does; returns its part of the report."""
    model = convert_encoder(checkpoint, kind, 1, config)
    length = None if tokenizer is None else fit_text_tokenizer(encoder_of_kind(kind), model, tokenizer)
    model.save_pretrained(folder)
    EncoderParts(model, extractor, _pictures(kind, model, extractor), tokenizer, length).save_pretrained(folder)
    return {"encoder": _size(model), "max_text_length": length, "notes": notes_of(kind, stage=1)}


def _write_second_stage(
    checkpoint: Checkpoint,
    folder: Path,
    final_folder: Path,
    kind: str,
    config: Any,
    extractor: Any,
    language_model: ReferenceLanguageModel,
) -> dict[str, Any]:
    """Write encoder, projector and language model in one, with its adapter; returns its part of the report."""
    whole, unused, notes = convert_second_stage(checkpoint, kind, language_model, config)
    encoder = whole.model.model.encoder
    processor = EcgLlmProcessor(extractor, whole.tokenizer, picture=_pictures(kind, encoder, extractor))
    whole.save(folder, final_folder, processor)
    return {
        "encoder": _size(encoder),
        "parts_left_out": unused,
        "language_model": asdict(whole.report),
        "notes": notes,
    }


def _pictures(kind: str, encoder: Any, extractor: Any) -> Any:
    return image_processor(kind, len(extractor.leads), getattr(encoder.config, "image_size", 0))


def _size(model: Any) -> dict[str, Any]:
    return {"class": type(model).__name__, "parameters": sum(weight.numel() for weight in model.parameters())}


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write it beside what was made, and into each part, which may go its own way."""
    for place in (folder, *(path for path in folder.iterdir() if path.name in ("base", "adapter", "model"))):
        write_json(place / CONVERSION_FILE, report)


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
    places = ("base", "text_tokenizer")
    named = {name: Path(value).name if name in places and value else value for name, value in arguments.items()}
    return provenance("convert checkpoint", named)
