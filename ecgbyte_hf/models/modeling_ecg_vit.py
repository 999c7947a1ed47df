"""EcgVit: a vision transformer on pictures of ECGs, pretrained by reconstructing masked patches."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_ecg_vit import EcgVitConfig
from .modeling_ecg_encoder import EcgEncoderPreTrainedModel, EcgPreTrainingOutput, check_shape

#: Of the masks in evaluation, so that two evaluations of one model give one loss.
EVALUATION_SEED = 0


class EcgVitPreTrainedModel(EcgEncoderPreTrainedModel):
    """Weights and loading of the EcgVit models."""

    config_class = EcgVitConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ViTEmbeddings", "ViTLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    auto_classes = {"AutoModel": "EcgVitModel", "AutoModelForPreTraining": "EcgVitForPreTraining"}


class EcgVitModel(EcgVitPreTrainedModel):
    """A vision transformer whose embedding is the mean of all its hidden states.

    Args:
        config: `EcgVitConfig`.
    """

    _auto_class: Any = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]

    def __init__(self, config: EcgVitConfig) -> None:
        super().__init__(config)
        from transformers import ViTModel

        self.vit: Any = ViTModel(config.vit_config, add_pooling_layer=False, use_mask_token=True)
        self.post_init()

    @classmethod
    def from_backbone_pretrained(
        cls, name: str = "google/vit-base-patch16-224-in21k", mask_ratio: float = 0.75, **kwargs: Any
    ) -> EcgVitModel:
        """Return a model with the weights of a ViT repository or folder, in float32.

        Args:
            name: name on the Hub, or folder.
            mask_ratio: as of `EcgVitConfig`.
            kwargs: for `ViTModel.from_pretrained`, such as `revision`.
        """
        from transformers import ViTModel

        vit = ViTModel.from_pretrained(name, add_pooling_layer=False, use_mask_token=True, **kwargs)
        model = cls(EcgVitConfig(vit_config=vit.config.to_dict(), mask_ratio=mask_ratio))
        model.vit.load_state_dict(vit.state_dict())
        return model

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[torch.Tensor, ...]:
        """Encode pictures of ECGs.

        Args:
            pixel_values: (batch, channels, height, width), from `EcgImageProcessor`.
            bool_masked_pos: (batch, patches), True where a patch is hidden from the model; no patch is, by default.
            output_hidden_states: return the states of all layers too.
            return_dict: False for a tuple.

        Returns:
            `last_hidden_state`: (batch, 1 + patches, hidden_size); `pooler_output`: (batch, hidden_size), the mean
            over the embeddings' and all layers' hidden states, then over the tokens.

        Raises:
            EncoderError: images of another size, or another number of patches.
        """
        config = self.config
        channels = config.vit_config.num_channels
        check_shape(
            "pixel_values",
            pixel_values,
            (None, channels, config.image_size, config.image_size),
            "batch, channels, height, width",
        )
        if bool_masked_pos is not None:
            check_shape("bool_masked_pos", bool_masked_pos, (len(pixel_values), config.num_patches), "batch, patches")
        seen = self.vit(
            pixel_values=pixel_values.to(self.dtype),
            bool_masked_pos=bool_masked_pos,
            output_hidden_states=True,
            return_dict=True,
        )
        means = [states.mean(dim=1) for states in seen.hidden_states]
        wants_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutputWithPooling(
            last_hidden_state=seen.last_hidden_state,
            pooler_output=torch.stack(means).mean(dim=0),
            hidden_states=seen.hidden_states if wants_states else None,
        )
        return output.to_tuple() if return_dict is False else output


class EcgVitDecoder(nn.Module):
    """Reconstructs an image from the tokens of its patches, and compares the masked ones."""

    def __init__(self, config: EcgVitConfig) -> None:
        super().__init__()
        self.num_masked, self.num_patches = config.num_masked_patches, config.num_patches
        self.side, self.patch_size = config.image_size // config.patch_size, config.patch_size
        channels = config.vit_config.num_channels
        self.projection = nn.Conv2d(config.hidden_size, channels * config.patch_size**2, 1)

    def draw_mask(self, batch: int, device: torch.device) -> torch.Tensor:
        """Draw which patches to hide: bool (batch, patches), the same number in every image.

        In evaluation the masks of a batch are always the same.
        """
        generator = None if self.training else torch.Generator().manual_seed(EVALUATION_SEED)
        ranks = torch.rand(batch, self.num_patches, generator=generator).argsort(dim=1).argsort(dim=1)
        return (ranks < self.num_masked).to(device)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map the tokens (batch, 1 + patches, hidden_size) of a class and the patches to pixels."""
        patches = tokens[:, 1:].transpose(1, 2).unflatten(-1, (self.side, self.side))
        return F.pixel_shuffle(self.projection(patches), self.patch_size)

    def loss(self, pixel_values: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean absolute difference over the masked pixels, in units of the normalised image.

        Args:
            pixel_values: (batch, channels, height, width).
            reconstruction: of the same shape.
            mask: bool (batch, patches).
        """
        pixels = mask.unflatten(1, (self.side, self.side))
        for dimension in (1, 2):
            pixels = pixels.repeat_interleave(self.patch_size, dimension)
        difference = (pixel_values.float() - reconstruction.float()).abs().mean(dim=1)
        return (difference * pixels).sum() / pixels.sum()


class EcgVitForPreTraining(EcgVitPreTrainedModel):
    """A vision transformer that reconstructs masked patches from the others.

    It is transformers' `ViTForMaskedImageModeling` around an encoder that loads by itself, and draws the masks: the
    same loss for the same weights and masks.

    Args:
        config: `EcgVitConfig`.
    """

    _auto_class: Any = "AutoModelForPreTraining"

    def __init__(self, config: EcgVitConfig) -> None:
        super().__init__(config)
        self.encoder = EcgVitModel(config)
        self.decoder = EcgVitDecoder(config)
        self.post_init()

    @classmethod
    def from_backbone_pretrained(
        cls, name: str = "google/vit-base-patch16-224-in21k", mask_ratio: float = 0.75, **kwargs: Any
    ) -> EcgVitForPreTraining:
        """Return `EcgVitModel.from_backbone_pretrained` with a random decoder."""
        encoder = EcgVitModel.from_backbone_pretrained(name, mask_ratio, **kwargs)
        model = cls(cast(EcgVitConfig, encoder.config))
        model.encoder.load_state_dict(encoder.state_dict())
        return model

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        return_loss: bool = True,
        return_dict: bool | None = None,
    ) -> EcgPreTrainingOutput | tuple[torch.Tensor, ...]:
        """Reconstruct pictures of ECGs from what the mask leaves.

        Args:
            pixel_values: (batch, channels, height, width), from `EcgImageProcessor`.
            bool_masked_pos: (batch, patches), True where a patch is hidden; drawn where it is not given, in evaluation
                always the same.
            return_loss: False for the reconstruction alone.
            return_dict: False for a tuple.
        """
        if bool_masked_pos is None:
            bool_masked_pos = self.decoder.draw_mask(len(pixel_values), pixel_values.device)
        encoded = self.encoder(pixel_values, bool_masked_pos)
        reconstruction = self.decoder(encoded.last_hidden_state)
        output = EcgPreTrainingOutput(reconstruction=reconstruction, encoder_output=encoded)
        if return_loss:
            output.reconstruction_loss = self.decoder.loss(pixel_values, reconstruction, bool_masked_pos)
            output.loss = output.reconstruction_loss
        return output.to_tuple() if return_dict is False else output
