"""Configuration of EcgClip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from .configuration_ecg_encoder import square_size, sub_config


class EcgClipConfig(PreTrainedConfig):
    """CLIP (arXiv 2103.00020) on pictures of ECGs and their reports.

    Args:
        clip_config: transformers' `CLIPConfig`, or its settings; the default has the shape of
            `openai/clip-vit-base-patch32`, the starting weights of the ECG-Byte paper.
        kwargs: what `transformers` keeps besides.

    Example:
        >>> config = EcgClipConfig()
        >>> config.image_size, config.hidden_size, config.pooler_output_size
        (224, 768, 512)
    """

    model_type = "ecg_clip"
    sub_configs = {"clip_config": PreTrainedConfig}
    _auto_class = "AutoConfig"

    def __init__(self, clip_config: PreTrainedConfig | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Keep CLIP's configuration."""
        self.clip_config = sub_config("clip_config", clip_config, "clip")
        # CLIPModel projects to its own projection_dim and does not look at those of its towers, which are used here.
        self.clip_config.text_config.projection_dim = self.clip_config.projection_dim
        self.clip_config.vision_config.projection_dim = self.clip_config.projection_dim
        super().__init__(**kwargs)

    @property
    def image_size(self) -> int:
        """Height and width of the image."""
        return square_size("image_size", self.clip_config.vision_config.image_size)

    @property
    def hidden_size(self) -> int:
        """Width of `last_hidden_state`."""
        return int(self.clip_config.vision_config.hidden_size)

    @property
    def pooler_output_size(self) -> int:
        """Size of `pooler_output`."""
        return int(self.clip_config.projection_dim)
