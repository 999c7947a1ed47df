"""Configuration of EcgClipVit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from .configuration_ecg_clip import EcgClipConfig
from .configuration_ecg_encoder import sub_config
from .configuration_ecg_vit import EcgVitConfig
from .errors_ecg_byte import EncoderError


class EcgClipVitConfig(PreTrainedConfig):
    """CLIP and a masked vision transformer side by side on the same picture of an ECG.

    Args:
        clip_config: as of `EcgClipConfig`.
        vit_config: as of `EcgVitConfig`; images and hidden states must be as large as CLIP's.
        mask_ratio: as of `EcgVitConfig`.
        kwargs: what `transformers` keeps besides.

    Raises:
        EncoderError: two parts that cannot share an image or a sequence.

    Example:
        >>> EcgClipVitConfig().pooler_output_size
        1280
    """

    model_type = "ecg_clip_vit"
    sub_configs = {"clip_config": PreTrainedConfig, "vit_config": PreTrainedConfig}
    _auto_class = "AutoConfig"

    def __init__(
        self,
        clip_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        vit_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        mask_ratio: float = 0.75,
        **kwargs: Any,
    ) -> None:
        """Check and keep the settings."""
        self.clip_config = sub_config("clip_config", clip_config, "clip")
        self.vit_config = sub_config("vit_config", vit_config, "vit")
        self.mask_ratio = mask_ratio
        super().__init__(**kwargs)
        clip, vit = self.ecg_clip_config, self.ecg_vit_config
        for name in ("image_size", "hidden_size"):
            if getattr(clip, name) != getattr(vit, name):
                raise EncoderError(
                    f"Got {name} {getattr(clip, name)} of CLIP and {getattr(vit, name)} of ViT, expected the same: "
                    "both read one image and their tokens make one sequence."
                )

    @property
    def ecg_clip_config(self) -> EcgClipConfig:
        """Configuration of the part that is CLIP."""
        return EcgClipConfig(clip_config=self.clip_config, attn_implementation=self._attn_implementation)

    @property
    def ecg_vit_config(self) -> EcgVitConfig:
        """Configuration of the part that is the masked vision transformer."""
        return EcgVitConfig(
            vit_config=self.vit_config, mask_ratio=self.mask_ratio, attn_implementation=self._attn_implementation
        )

    @property
    def image_size(self) -> int:
        """Height and width of the image."""
        return self.ecg_clip_config.image_size

    @property
    def hidden_size(self) -> int:
        """Width of `last_hidden_state`."""
        return self.ecg_clip_config.hidden_size

    @property
    def pooler_output_sizes(self) -> tuple[int, int]:
        """Sizes of CLIP's and of ViT's part of `pooler_output`."""
        return self.ecg_clip_config.pooler_output_size, self.ecg_vit_config.pooler_output_size

    @property
    def pooler_output_size(self) -> int:
        """Size of `pooler_output`."""
        return sum(self.pooler_output_sizes)
