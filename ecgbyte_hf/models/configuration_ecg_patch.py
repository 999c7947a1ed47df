"""Configuration of EcgPatch."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from transformers import PreTrainedConfig

from .errors_ecg_byte import EncoderError


class EcgPatchConfig(PreTrainedConfig):
    """A transformer on patches of the signal, pretrained by reconstructing masked ones.

    It follows ST-MEM (spatio-temporal masked electrocardiogram modelling, arXiv 2402.09450): every lead is cut into
    patches of time, and a decoder reconstructs each lead by itself, so that what leads tell about one another must be
    in the encoder. ST-MEM's encoder is as large as ViT-base (768, 12, 12, 3072), with patches of 75 samples at 250 Hz;
    the defaults are a smaller one, with patches of 50 samples, of which segments of 2, 5 and 10 s are multiples.

    Args:
        num_leads: rows of the input.
        patch_size: samples in a patch; inputs have a multiple of it.
        hidden_size: width of the encoder, even.
        num_hidden_layers: its depth.
        num_attention_heads: its attention heads.
        intermediate_size: width inside its feed-forward parts.
        decoder_hidden_size: width of the decoder, even.
        decoder_num_hidden_layers: its depth.
        decoder_num_attention_heads: its attention heads.
        decoder_intermediate_size: width inside its feed-forward parts.
        mask_ratio: share of each lead's patches that are masked in pretraining; none are masked in the base model.
        hidden_act: activation of the feed-forward parts.
        hidden_dropout_prob: dropout after attention and feed-forward parts.
        attention_probs_dropout_prob: dropout of the attention weights.
        qkv_bias: whether queries, keys and values have a bias.
        layer_norm_eps: of the layer norms.
        initializer_range: standard deviation of the separators and the mask token at the start.
        kwargs: what `transformers` keeps besides.

    Raises:
        EncoderError: a value that no network can be built from.

    Example:
        >>> config = EcgPatchConfig(num_leads=8)
        >>> config.num_patches(500), config.num_masked_patches(500), config.num_tokens(500)
        (10, 8, 96)
    """

    model_type = "ecg_patch"
    _auto_class = "AutoConfig"

    def __init__(
        self,
        num_leads: int = 12,
        patch_size: int = 50,
        hidden_size: int = 256,
        num_hidden_layers: int = 8,
        num_attention_heads: int = 4,
        intermediate_size: int = 1024,
        decoder_hidden_size: int = 128,
        decoder_num_hidden_layers: int = 2,
        decoder_num_attention_heads: int = 4,
        decoder_intermediate_size: int = 512,
        mask_ratio: float = 0.75,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        qkv_bias: bool = True,
        layer_norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        """Check and keep the settings."""
        sizes = {"num_leads": num_leads, "patch_size": patch_size, "num_hidden_layers": num_hidden_layers}
        for name, size in sizes.items():
            if size < 1:
                raise EncoderError(f"Got {name}={size}, expected at least 1.")
        for part, width, heads in (
            ("", hidden_size, num_attention_heads),
            ("decoder_", decoder_hidden_size, decoder_num_attention_heads),
        ):
            if heads < 1 or width < 2 or width % heads or width % 2:
                raise EncoderError(
                    f"Got {part}hidden_size={width} and {part}num_attention_heads={heads}, expected an even multiple "
                    "of the heads: half of a position are sines and half cosines."
                )
        if not 0 < mask_ratio < 1:
            raise EncoderError(f"Got mask_ratio={mask_ratio}, expected a share between 0 and 1, such as 0.75.")
        self.num_leads = num_leads
        self.patch_size = patch_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.decoder_hidden_size = decoder_hidden_size
        self.decoder_num_hidden_layers = decoder_num_hidden_layers
        self.decoder_num_attention_heads = decoder_num_attention_heads
        self.decoder_intermediate_size = decoder_intermediate_size
        self.mask_ratio = mask_ratio
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.qkv_bias = qkv_bias
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        super().__init__(**kwargs)

    @property
    def pooler_output_size(self) -> int:
        """Size of `pooler_output`."""
        return self.hidden_size

    def decoder_config(self) -> EcgPatchConfig:
        """Return this configuration with the decoder's sizes in the place of the encoder's."""
        config = deepcopy(self)
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            setattr(config, name, getattr(self, f"decoder_{name}"))
        return config

    def num_patches(self, num_samples: int) -> int:
        """Return the patches of one lead.

        Raises:
            EncoderError: not a multiple of `patch_size`.
        """
        if num_samples % self.patch_size or num_samples < 1:
            longest = num_samples // self.patch_size * self.patch_size
            raise EncoderError(
                f"Got {num_samples} samples, expected a multiple of patch_size={self.patch_size}. Cut the signals "
                f"to {longest} samples (`ecgbyte prepare --seconds`), or configure another patch_size."
                if longest
                else f"Got {num_samples} samples, expected at least one patch of {self.patch_size}."
            )
        return num_samples // self.patch_size

    def num_masked_patches(self, num_samples: int) -> int:
        """Return the masked patches of one lead.

        Raises:
            EncoderError: no patch, or every patch, would be masked.
        """
        patches = self.num_patches(num_samples)
        masked = round(self.mask_ratio * patches)
        if not 0 < masked < patches:
            raise EncoderError(
                f"Got mask_ratio={self.mask_ratio}, which masks {masked} of the {patches} patches of a lead; expected "
                "some to reconstruct and some to do it from: longer signals, or a smaller patch_size."
            )
        return masked

    def num_tokens(self, num_samples: int) -> int:
        """Return the length of `last_hidden_state`: the patches of all leads, and two separators for each."""
        return self.num_leads * (self.num_patches(num_samples) + 2)
