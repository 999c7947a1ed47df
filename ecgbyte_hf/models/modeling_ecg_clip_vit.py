"""EcgClipVit: CLIP and a masked vision transformer on the same picture of an ECG."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_ecg_clip_vit import EcgClipVitConfig
from .errors_ecg_byte import EncoderError
from .modeling_ecg_clip import EcgClipForPreTraining, EcgClipModel, EcgClipPreTrainedModel, EcgClipTextHead
from .modeling_ecg_encoder import EcgPreTrainingOutput
from .modeling_ecg_vit import EcgVitDecoder, EcgVitModel

CLIP_NAME = "openai/clip-vit-base-patch32"
VIT_NAME = "google/vit-base-patch16-224-in21k"


class EcgClipVitPreTrainedModel(EcgClipPreTrainedModel):
    """Weights and loading of the EcgClipVit models; a text head begins as EcgClip's does."""

    config_class: Any = EcgClipVitConfig
    _no_split_modules = [*EcgClipPreTrainedModel._no_split_modules, "ViTEmbeddings", "ViTLayer"]
    auto_classes = {"AutoModel": "EcgClipVitModel", "AutoModelForPreTraining": "EcgClipVitForPreTraining"}


class EcgClipVitModel(EcgClipVitPreTrainedModel):
    """The encoders of EcgClip and EcgVit beside each other.

    Args:
        config: `EcgClipVitConfig`.
    """

    _auto_class: Any = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^(text_head|decoder)\."]

    def __init__(self, config: EcgClipVitConfig) -> None:
        super().__init__(config)
        self.clip = EcgClipModel(config.ecg_clip_config)
        self.vit = EcgVitModel(config.ecg_vit_config)
        self.post_init()

    @classmethod
    def from_backbone_pretrained(
        cls, clip_name: str = CLIP_NAME, vit_name: str = VIT_NAME, mask_ratio: float = 0.75
    ) -> EcgClipVitModel:
        """Return a model with the weights of a CLIP and a ViT repository or folder."""
        return EcgClipVitForPreTraining.from_backbone_pretrained(clip_name, vit_name, mask_ratio).encoder

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[torch.Tensor, ...]:
        """Encode pictures of ECGs.

        Args:
            pixel_values: (batch, 3, height, width), from `EcgImageProcessor`.
            bool_masked_pos: (batch, patches of the ViT), True where a patch is hidden from it; none is, by default.
            return_dict: False for a tuple.

        Returns:
            `pooler_output`: (batch, sum of `config.pooler_output_sizes`), CLIP's and then ViT's;
            `last_hidden_state`: (batch, tokens of CLIP + tokens of ViT, hidden_size).
        """
        clip, vit = self.clip(pixel_values), self.vit(pixel_values, bool_masked_pos)
        output = BaseModelOutputWithPooling(
            last_hidden_state=torch.cat([clip.last_hidden_state, vit.last_hidden_state], dim=1),
            pooler_output=torch.cat([clip.pooler_output, vit.pooler_output], dim=1),
        )
        return output.to_tuple() if return_dict is False else output


class EcgClipVitForPreTraining(EcgClipVitPreTrainedModel):
    """Pretraining by the sum of CLIP's contrastive loss and the reconstruction loss of masked patches.

    CLIP sees the whole image; the patches are masked for the ViT alone.

    Args:
        config: `EcgClipVitConfig`.
    """

    _auto_class: Any = "AutoModelForPreTraining"

    def __init__(self, config: EcgClipVitConfig) -> None:
        super().__init__(config)
        self.encoder = EcgClipVitModel(config)
        self.text_head = EcgClipTextHead(config.ecg_clip_config)
        self.decoder = EcgVitDecoder(config.ecg_vit_config)
        self.post_init()

    @classmethod
    def from_backbone_pretrained(
        cls, clip_name: str = CLIP_NAME, vit_name: str = VIT_NAME, mask_ratio: float = 0.75
    ) -> EcgClipVitForPreTraining:
        """Return a model with the weights of a CLIP and a ViT repository or folder, and a random decoder."""
        clip = EcgClipForPreTraining.from_backbone_pretrained(clip_name)
        vit = EcgVitModel.from_backbone_pretrained(vit_name, mask_ratio)
        config: dict[str, Any] = {
            "clip_config": clip.config.clip_config.to_dict(),
            "vit_config": vit.config.vit_config.to_dict(),
        }
        model = cls(EcgClipVitConfig(**config, mask_ratio=mask_ratio))
        model.encoder.clip.load_state_dict(clip.encoder.state_dict())
        model.encoder.vit.load_state_dict(vit.state_dict())
        model.text_head.load_state_dict(clip.text_head.state_dict())
        return model

    def get_ecg_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map pictures to CLIP's embeddings (batch, projection_dim) of unit length."""
        embeds: torch.Tensor = self.encoder.clip(pixel_values).pooler_output
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
        bool_masked_pos: torch.Tensor | None = None,
        return_loss: bool = True,
        return_dict: bool | None = None,
    ) -> EcgPreTrainingOutput | tuple[torch.Tensor, ...]:
        """Compare pictures of ECGs with their texts, and reconstruct them from what the mask leaves.

        Arguments as of `EcgClipForPreTraining` and `EcgVitForPreTraining`; the loss is the sum of theirs.

        Raises:
            EncoderError: no text, or not one for each ECG.
        """
        if input_ids is None:
            raise EncoderError("Got no input_ids, expected the ids of one text for each ECG.")
        if bool_masked_pos is None:
            bool_masked_pos = self.decoder.draw_mask(len(pixel_values), pixel_values.device)
        encoded = self.encoder(pixel_values, bool_masked_pos)
        ecg_embeds = encoded.pooler_output[:, : self.config.pooler_output_sizes[0]]
        text_embeds = self.text_head(input_ids, attention_mask)
        reconstruction = self.decoder(encoded.last_hidden_state[:, -(1 + self.decoder.num_patches) :])
        output = EcgPreTrainingOutput(
            ecg_embeds=ecg_embeds,
            text_embeds=text_embeds,
            reconstruction=reconstruction,
            encoder_output=encoded,
        )
        if return_loss:
            output.cross_modal_loss = self.text_head.loss(ecg_embeds, text_embeds)
            output.reconstruction_loss = self.decoder.loss(pixel_values, reconstruction, bool_masked_pos)
            output.loss = output.cross_modal_loss + output.reconstruction_loss
        return output.to_tuple() if return_dict is False else output
