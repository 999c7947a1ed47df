"""A tiny ECG language model with an encoder, and a data set whose answers lie in the signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tiny_encoders import CLIP, VIT, make_pretraining_models, resnet_config, seeded
from transformers import AutoConfig, AutoModelForCausalLM

from ecgbyte_hf import (
    EcgByteFeatureExtractor,
    EcgClipConfig,
    EcgClipModel,
    EcgClipVitConfig,
    EcgClipVitModel,
    EcgImageProcessor,
    EcgResNetModel,
    EcgVitConfig,
    EcgVitModel,
)
from ecgbyte_hf.models.auto import ENCODERS
from ecgbyte_hf.models.modeling_ecg_llm import EcgLlmForConditionalGeneration

LEADS = ["I", "aVF"]
PLACEHOLDER = 49
PICTURE_SIZE = 32


def make_encoder(name: str, num_leads: int = 12):
    """The base model of an encoder; of those registered besides, that of `tiny_encoders`."""
    if name == "EcgResNet":
        return seeded(EcgResNetModel, resnet_config(num_leads=num_leads))
    if name == "EcgClip":
        return seeded(EcgClipModel, EcgClipConfig(clip_config=CLIP))
    if name == "EcgVit":
        return seeded(EcgVitModel, EcgVitConfig(vit_config=VIT))
    if name == "EcgClipVit":
        return seeded(EcgClipVitModel, EcgClipVitConfig(clip_config=CLIP, vit_config=VIT))
    return make_pretraining_models()[name].encoder


def make_language_model(family: str = "llama", *, tied: bool = True, vocab_size: int = 50):
    """A random causal language model of width 32."""
    if family == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    else:
        shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape |= {"num_key_value_heads": 2, "head_dim": 16}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        family, vocab_size=vocab_size, tie_word_embeddings=tied, initializer_range=0.3, **ids, **shape
    )
    return AutoModelForCausalLM.from_config(config).eval()


def make_ecg_llm(name: str = "EcgResNet", family: str = "llama", *, tied: bool = True, **settings):
    """The two joined, in evaluation, with features that differ as much as those of a trained encoder."""
    encoder, language_model = make_encoder(name), make_language_model(family, tied=tied)
    torch.manual_seed(2)
    model = EcgLlmForConditionalGeneration.from_parts(encoder, language_model, ecg_token_id=PLACEHOLDER, **settings)
    values = ecg_values(name, 8)
    features = model.model.encode(values).flatten(0, 1)
    # The tiny encoders tell random ECGs apart in the third digit.
    model.model.projector.feature_mean.copy_(features.mean(dim=0))
    model.model.projector.feature_scale.copy_(features.std(dim=0).clamp(min=1e-3))
    return model


def ecg_values(name: str, count: int, seed: int = 5) -> torch.Tensor:
    """Inputs of an encoder."""
    generator = torch.Generator().manual_seed(seed)
    if next(encoder for encoder in ENCODERS if encoder.prefix == name).takes_images:
        return torch.randn(count, 3, PICTURE_SIZE, PICTURE_SIZE, generator=generator)
    return torch.randn(count, 12, 64, generator=generator)


def save_encoder(folder: Path, name: str = "EcgResNet", extractor: EcgByteFeatureExtractor | None = None) -> Path:
    """Write the folder of an encoder of two leads as `ecgbyte pretrain-encoder` does."""
    extractor = extractor or EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=LEADS)
    encoder = make_encoder(name, len(extractor.leads))
    encoder.save_pretrained(folder)
    if encoder.main_input_name == "pixel_values":
        EcgImageProcessor(size=PICTURE_SIZE, num_leads=len(extractor.leads)).save_pretrained(folder)
        extractor.save_pretrained(folder / "signal")
    else:
        extractor.save_pretrained(folder)
    return folder


def fast_or_slow(folder: Path, *, num_records: int = 60, seed: int = 0):
    """Write a prepared folder whose one question is whether the waves are fast: those of every other record are.

    Patients, names and everything else say nothing, so that a model without the signal is right half the time.
    """
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.data.sources import prepare_synthetic

    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=LEADS)
    prepare_synthetic(folder, feature_extractor=extractor, num_records=num_records, seed=seed)
    is_fast = _ask_one_question(folder)
    rng = np.random.default_rng(seed)
    for path in sorted((folder / "records").glob("*.parquet")):
        table = pq.read_table(path)
        rows = table.to_pylist()
        for row in rows:
            row["signal"] = _waves(is_fast[row["ecg_id"]], rng)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return PreparedData(folder)


def _ask_one_question(folder: Path) -> dict[int, bool]:
    """Leave one question about each record in the folder; returns its answers."""
    is_fast = {}
    for path in sorted((folder / "questions").glob("*.parquet")):
        table = pq.read_table(path)
        first = {}
        for row in table.to_pylist():
            if row["question_type"] == "single-verify":
                first.setdefault(row["ecg_id"][0], row)
        rows = []
        for place, (ecg_id, row) in enumerate(sorted(first.items())):
            is_fast[ecg_id] = bool(place % 2)
            rows.append(row | {"question": "Is it fast?", "answer": ["yes" if place % 2 else "no"]})
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return is_fast


def _waves(is_fast: bool, rng: np.random.Generator) -> list[list[float]]:
    """Ten seconds of a sine of 12 or 2 Hz with a random phase, upside down in the second lead, in noise."""
    seconds = np.arange(1000) / 100
    wave = np.sin(2 * np.pi * ((12.0 if is_fast else 2.0) * seconds + rng.random()))
    return (np.stack([wave, -wave]) + rng.normal(0, 0.05, (2, 1000))).astype(np.float32).tolist()
