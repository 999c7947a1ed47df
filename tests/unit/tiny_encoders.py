"""Tiny random encoders for tests, and their inputs."""

from __future__ import annotations

import torch

from ecgbyte_hf import (
    EcgClipConfig,
    EcgClipForPreTraining,
    EcgClipVitConfig,
    EcgClipVitForPreTraining,
    EcgPatchConfig,
    EcgPatchForPreTraining,
    EcgResNetConfig,
    EcgResNetForPreTraining,
    EcgVitConfig,
    EcgVitForPreTraining,
)

NUM_WORDS = 40
_TRANSFORMER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT = _TRANSFORMER | {"vocab_size": NUM_WORDS, "max_position_embeddings": 16}
CLIP = {
    "projection_dim": 12,
    "text_config": _TRANSFORMER
    | {"vocab_size": NUM_WORDS, "max_position_embeddings": 16, "bos_token_id": 38, "eos_token_id": 39},
    "vision_config": _TRANSFORMER | {"image_size": 32, "patch_size": 8},
}
VIT = _TRANSFORMER | {"image_size": 32, "patch_size": 4, "encoder_stride": 4}

PATCH = _TRANSFORMER | {
    "decoder_hidden_size": 8,
    "decoder_intermediate_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}


def text_tokenizer():
    """A tokenizer of the text towers' 40 tokens, which ends a text where CLIP's tower looks for its end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *(f"w{number}" for number in range(2, NUM_WORDS - 2)), "[CLS]", "[SEP]"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", NUM_WORDS - 2), ("[SEP]", NUM_WORDS - 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def resnet_config(**changes) -> EcgResNetConfig:
    settings = {
        "block": "basic",
        "blocks": [1, 1],
        "base_channels": 8,
        "embedding_size": 8,
        "num_attention_heads": 2,
        "num_samples": 64,
        "text_config": BERT,
    }
    return EcgResNetConfig(**(settings | changes))


def seeded(model_class, config):
    torch.manual_seed(0)
    return model_class(config).eval()


def make_pretraining_models() -> dict:
    """One model of each encoder, in evaluation."""
    return {
        "EcgResNet": seeded(EcgResNetForPreTraining, resnet_config()),
        "EcgClip": seeded(EcgClipForPreTraining, EcgClipConfig(clip_config=CLIP)),
        "EcgVit": seeded(EcgVitForPreTraining, EcgVitConfig(vit_config=VIT)),
        "EcgClipVit": seeded(EcgClipVitForPreTraining, EcgClipVitConfig(clip_config=CLIP, vit_config=VIT)),
        "EcgPatch": seeded(EcgPatchForPreTraining, EcgPatchConfig(patch_size=8, **PATCH)),
    }


def make_inputs(name: str, batch: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """ECGs as signals or pictures, with texts where the encoder compares some."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 38, (batch, 7), generator=generator)
    ids[:, -1] = 39
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name in ("EcgResNet", "EcgPatch"):
        values = {"input_values": torch.randn(batch, 12, 64, generator=generator)}
        return values | texts if name == "EcgResNet" else values
    pixels = {"pixel_values": torch.randn(batch, 3, 32, 32, generator=generator)}
    return pixels if name == "EcgVit" else pixels | texts


def enable_checkpointing(model) -> None:
    """By the name of this version of transformers; the older one warns where there is the newer."""
    name = "activation_checkpointing_enable"
    getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")()
