"""Configuration of EcgVit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from .configuration_ecg_encoder import square_size, sub_config
from .errors_ecg_byte import EncoderError


class EcgVitConfig(PreTrainedConfig):
    """A vision transformer on pictures of ECGs, pretrained by reconstructing masked patches (arXiv 2111.09886).

    Args:
        vit_config: transformers' `ViTConfig`, or its settings; the default has the shape of
            `google/vit-base-patch16-224-in21k`, the starting weights of the ECG-Byte paper.
        mask_ratio: share of the patches that are masked in pretraining; none are masked in the base model.
        kwargs: what `transformers` keeps besides.

    Raises:
        EncoderError: a share of which no patch, or every patch, would be masked; an image that is not square.

    Example:
        >>> config = EcgVitConfig()
        >>> config.image_size, config.num_patches, config.num_masked_patches
        (224, 196, 147)
    """

    model_type = "ecg_vit"
    sub_configs = {"vit_config": PreTrainedConfig}
    _auto_class = "AutoConfig"

    def __init__(
        self,
        vit_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        mask_ratio: float = 0.75,
        **kwargs: Any,
    ) -> None:
        """Check and keep the settings."""
        self.vit_config = sub_config("vit_config", vit_config, "vit")
        self.mask_ratio = mask_ratio
        if not 0 < self.num_masked_patches < self.num_patches:
            raise EncoderError(
                f"Got mask_ratio={mask_ratio}, which masks {self.num_masked_patches} of {self.num_patches} patches; "
                "expected some to reconstruct and some to do it from, as with 0.75."
            )
        super().__init__(**kwargs)

    @property
    def image_size(self) -> int:
        """Height and width of the image."""
        return square_size("image_size", self.vit_config.image_size)

    @property
    def patch_size(self) -> int:
        """Height and width of a patch."""
        return square_size("patch_size", self.vit_config.patch_size)

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_masked_patches(self) -> int:
        """Masked patches of an image."""
        return round(self.mask_ratio * self.num_patches)

    @property
    def hidden_size(self) -> int:
        """Width of `last_hidden_state`."""
        return int(self.vit_config.hidden_size)

    @property
    def pooler_output_size(self) -> int:
        """Size of `pooler_output`."""
        return self.hidden_size
