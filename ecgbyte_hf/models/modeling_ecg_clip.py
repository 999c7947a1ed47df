"""EcgClip: CLIP on pictures of ECGs and their reports."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_ecg_clip import EcgClipConfig
from .contrastive_ecg import contrastive_loss
from .errors_ecg_byte import EncoderError
from .modeling_ecg_encoder import EcgEncoderPreTrainedModel, EcgPreTrainingOutput, check_shape, unit_length


class EcgClipPreTrainedModel(EcgEncoderPreTrainedModel):
    """Weights and loading of the EcgClip models."""

    config_class = EcgClipConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CLIPTextEmbeddings", "CLIPEncoderLayer", "CLIPVisionEmbeddings"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    auto_classes = {"AutoModel": "EcgClipModel", "AutoModelForPreTraining": "EcgClipForPreTraining"}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # the towers are models of their own, which initialise themselves
        if isinstance(module, EcgClipTextHead):
            init.constant_(module.logit_scale, self.config.clip_config.logit_scale_init_value)


class EcgClipModel(EcgClipPreTrainedModel):
    """CLIP's vision tower with its projection.

    Args:
        config: `EcgClipConfig`.
    """

    _auto_class: Any = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^text_head\."]

    def __init__(self, config: EcgClipConfig) -> None:
        super().__init__(config)
        from transformers import CLIPVisionModelWithProjection

        self.vision = CLIPVisionModelWithProjection(config.clip_config.vision_config)
        self.post_init()

    @classmethod
    def from_backbone_pretrained(cls, name: str = "openai/clip-vit-base-patch32", **kwargs: Any) -> EcgClipModel:
        """Return a model with the weights of a CLIP repository or folder; `kwargs` as of `CLIPModel`."""
        return EcgClipForPreTraining.from_backbone_pretrained(name, **kwargs).encoder

    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> BaseModelOutputWithPooling | tuple[torch.Tensor, ...]:
        """Encode pictures of ECGs.

        Args:
            pixel_values: (batch, 3, height, width), from `EcgImageProcessor`.
            output_hidden_states: return the states of all layers too.
            return_dict: False for a tuple.

        Returns:
            `pooler_output`: (batch, projection_dim), the image's embedding of unit length, which `CLIPModel` calls
            `image_embeds`; `last_hidden_state`: (batch, 1 + patches, hidden_size).

        Raises:
            EncoderError: images of another size.
        """
        size = self.config.image_size
        channels = self.config.clip_config.vision_config.num_channels
        check_shape("pixel_values", pixel_values, (None, channels, size, size), "batch, channels, height, width")
        seen = self.vision(
            pixel_values=pixel_values.to(self.dtype), output_hidden_states=output_hidden_states, return_dict=True
        )
        output = BaseModelOutputWithPooling(
            last_hidden_state=seen.last_hidden_state,
            pooler_output=unit_length(seen.image_embeds),
            hidden_states=seen.hidden_states,
        )
        return output.to_tuple() if return_dict is False else output


class EcgClipTextHead(nn.Module):
    """CLIP's text tower with its projection, and the learnt factor of the similarities."""

    def __init__(self, config: EcgClipConfig) -> None:
        super().__init__()
        from transformers import CLIPTextModelWithProjection

        self.text = CLIPTextModelWithProjection(config.clip_config.text_config)
        self.logit_scale = nn.Parameter(torch.empty(()))

    @torch.no_grad()
    def take_weights(self, clip: Any) -> None:
        """Take the weights of a `CLIPModel`."""
        self.text.text_model.load_state_dict(clip.text_model.state_dict())
        self.text.text_projection.load_state_dict(clip.text_projection.state_dict())
        self.logit_scale.copy_(clip.logit_scale)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map ids (batch, tokens) to embeddings (batch, projection_dim) of unit length."""
        return unit_length(self.text(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).text_embeds)

    def loss(self, ecg_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """Return CLIP's loss of two (batch, projection_dim), over the batch of all ranks."""
        return contrastive_loss(ecg_embeds, text_embeds, self.logit_scale.float().exp(), "mean")


class EcgClipForPreTraining(EcgClipPreTrainedModel):
    """CLIP's two towers with its contrastive loss over the batch of all ranks.

    `EcgClipModel.from_pretrained` loads the vision tower alone.

    Args:
        config: `EcgClipConfig`.
    """

    _auto_class: Any = "AutoModelForPreTraining"

    def __init__(self, config: EcgClipConfig) -> None:
        super().__init__(config)
        self.encoder = EcgClipModel(config)
        self.text_head = EcgClipTextHead(config)
        self.post_init()

    @classmethod
    def from_backbone_pretrained(
        cls, name: str = "openai/clip-vit-base-patch32", **kwargs: Any
    ) -> EcgClipForPreTraining:
        """Return a model with the weights of a CLIP repository or folder, in float32.

        Args:
            name: name on the Hub, or folder.
            kwargs: for `CLIPModel.from_pretrained`, such as `revision`.
        """
        from transformers import CLIPModel

        clip = CLIPModel.from_pretrained(name, **kwargs)
        model = cls(EcgClipConfig(clip_config=clip.config.to_dict()))
        model.encoder.vision.vision_model.load_state_dict(clip.vision_model.state_dict())
        model.encoder.vision.visual_projection.load_state_dict(clip.visual_projection.state_dict())
        model.text_head.take_weights(clip)
        return model

    def get_ecg_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map pictures (batch, 3, height, width) to embeddings (batch, projection_dim) of unit length."""
        embeds: torch.Tensor = self.encoder(pixel_values).pooler_output
        return embeds

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map ids (batch, tokens) to embeddings (batch, projection_dim) of unit length."""
        embeds: torch.Tensor = self.text_head(input_ids, attention_mask)
        return embeds

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = True,
        return_dict: bool | None = None,
    ) -> EcgPreTrainingOutput | tuple[torch.Tensor, ...]:
        """Embed pictures of ECGs and their texts, and compare them.

        Args:
            pixel_values: (batch, 3, height, width), from `EcgImageProcessor`.
            input_ids: (batch, tokens) of the texts, one for each ECG; at most 77 tokens in the paper's model.
            attention_mask: (batch, tokens), 0 where there is padding.
            return_loss: False for the embeddings alone.
            return_dict: False for a tuple.

        Raises:
            EncoderError: no text, or not one for each ECG.
        """
        if input_ids is None:
            raise EncoderError("Got no input_ids, expected the ids of one text for each ECG.")
        encoded = self.encoder(pixel_values)
        text_embeds = self.text_head(input_ids, attention_mask)
        output = EcgPreTrainingOutput(
            ecg_embeds=encoded.pooler_output, text_embeds=text_embeds, encoder_output=encoded
        )
        if return_loss:
            output.loss = output.cross_modal_loss = self.text_head.loss(encoded.pooler_output, text_embeds)
        return output.to_tuple() if return_dict is False else output
