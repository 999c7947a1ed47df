"""EcgPatch: a transformer on patches of the signal, pretrained by reconstructing masked ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.vit.modeling_vit import ViTLayer

from .configuration_ecg_patch import EcgPatchConfig
from .errors_ecg_byte import EncoderError
from .modeling_ecg_encoder import EcgEncoderPreTrainedModel, EcgPreTrainingOutput, check_shape

#: Of the masks in evaluation, so that two evaluations of one model give one loss.
EVALUATION_SEED = 0
#: mV^2. Added to the variance of a patch, so that the noise of a flat one (0.05 mV is much) does not weigh as much as
#: a wave.
SMALLEST_VARIANCE = 0.05**2
#: Times larger than Xavier's are the weights of a patch at the start: the root mean square of ECGs is about 0.2 mV,
#: which would be lost beside their positions. On 2,160 simulated ECGs and in 600 steps, this and the smallest variance
#: raised the explained share of masked patches from 0.4 to 1.2 % (11 % where half is masked).
PATCH_GAIN = 8.0
#: Wavelengths of the positions lie between 2 pi and 2 pi times this many patches (arXiv 1706.03762).
LONGEST_WAVELENGTH = 10_000.0
#: Standard deviation of the leads' embeddings at the start: as large as the positions, whose mean square is 1 / 2.
LEAD_RANGE = 0.5**0.5


class EcgPatchPreTrainedModel(EcgEncoderPreTrainedModel):
    """Weights and loading of the EcgPatch models."""

    config_class = EcgPatchConfig
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EcgPatchEmbeddings", "ViTLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    auto_classes = {"AutoModel": "EcgPatchModel", "AutoModelForPreTraining": "EcgPatchForPreTraining"}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            # As in MAE (arXiv 2111.06377): it keeps the size of the states whatever the width.
            init.xavier_uniform_(module.weight)
        elif isinstance(module, EcgPatchEmbeddings):
            init.xavier_uniform_(module.projection.weight, gain=PATCH_GAIN)
            init.normal_(module.leads, std=LEAD_RANGE)
            init.normal_(module.separator, std=self.config.initializer_range)
        elif isinstance(module, EcgPatchDecoder):
            init.normal_(module.mask_token, std=self.config.initializer_range)


class EcgPatchEmbeddings(nn.Module):
    """Patches of all leads as tokens that know their time and their lead, with a separator at both ends of a lead."""

    def __init__(self, config: EcgPatchConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.patch_size, config.hidden_size)
        self.leads = nn.Parameter(torch.empty(config.num_leads, config.hidden_size))
        self.separator = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, patches: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Embed patches.

        Args:
            patches: (batch, leads, patches, patch_size), mV.
            visible: (batch, leads, kept) which patches to keep; all by default.

        Returns:
            (batch, leads, kept + 2, hidden_size).
        """
        tokens = self.projection(patches)
        batch, num_leads, num_patches, size = tokens.shape
        positions = sine_positions(num_patches + 2, size, tokens)
        tokens = tokens + positions[1:-1]
        if visible is not None:
            tokens = tokens.gather(2, visible[..., None].expand(-1, -1, -1, size))
        ends = (self.separator + positions[[0, -1]])[:, None].expand(batch, num_leads, -1, 1, -1)
        first, last = ends.unbind(2)
        return torch.cat([first, tokens, last], dim=2) + self.leads[:, None]


def sine_positions(length: int, size: int, like: torch.Tensor) -> torch.Tensor:
    """Return fixed positions (length, size), half sines and half cosines, of another tensor's type and device."""
    exponents = torch.arange(size // 2, device=like.device, dtype=torch.float32) / (size // 2)
    times = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = times[:, None] * LONGEST_WAVELENGTH**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


class EcgPatchModel(EcgPatchPreTrainedModel):
    """A transformer on the patches of all leads, whose embedding is their mean.

    Args:
        config: `EcgPatchConfig`.

    Example:
        >>> config = EcgPatchConfig(hidden_size=32, num_hidden_layers=1)
        >>> output = EcgPatchModel(config).eval()(input_values=torch.randn(2, 12, 500))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([2, 144, 32]), torch.Size([2, 32]))
    """

    _auto_class: Any = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]

    def __init__(self, config: EcgPatchConfig) -> None:
        super().__init__(config)
        self.embeddings = EcgPatchEmbeddings(config)
        self.layers = _layers(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[torch.Tensor, ...]:
        """Encode ECGs.

        Args:
            input_values: (batch, leads, samples), mV, as `EcgByteFeatureExtractor` gives them; the samples are a
                multiple of `config.patch_size`.
            bool_masked_pos: bool (batch, leads, patches), True where a patch is left out, as often in every lead; no
                patch is, by default.
            output_hidden_states: return the states before the first and after every layer too.
            return_dict: False for a tuple.

        Returns:
            `last_hidden_state`: (batch, tokens, hidden_size), lead after lead a separator, the lead's visible patches
            in their order, and another separator; `pooler_output`: (batch, hidden_size), the mean over all visible
            patches.

        Raises:
            EncoderError: another number of leads, samples that are no multiple of a patch, or another mask.
        """
        patches = _patches(input_values, self.config).to(self.dtype)
        visible = None if bool_masked_pos is None else _visible(bool_masked_pos, patches)
        embedded = self.embeddings(patches, visible)
        hidden_states = embedded.flatten(1, 2)
        all_states = [hidden_states]
        for layer in self.layers:
            hidden_states = layer(hidden_states)
            all_states.append(hidden_states)
        hidden_states = self.layernorm(hidden_states)
        by_lead = hidden_states.unflatten(1, embedded.shape[1:3])
        wants_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutputWithPooling(
            last_hidden_state=hidden_states,
            pooler_output=by_lead[:, :, 1:-1].mean(dim=(1, 2)),
            hidden_states=tuple(all_states) if wants_states else None,
        )
        return output.to_tuple() if return_dict is False else output


def _layers(config: Any) -> nn.ModuleList:
    """Layers of transformers' ViT, whose configuration calls all that they read as ours does."""
    return nn.ModuleList(ViTLayer(config) for _ in range(config.num_hidden_layers))


def _patches(input_values: torch.Tensor, config: Any) -> torch.Tensor:
    """Cut signals (batch, leads, samples) into (batch, leads, patches, patch_size)."""
    check_shape("input_values", input_values, (None, config.num_leads, None), "batch, leads, samples")
    return input_values.unflatten(-1, (config.num_patches(input_values.shape[-1]), config.patch_size))


def _visible(mask: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Return which patches a mask leaves, in their order: (batch, leads, kept)."""
    check_shape("bool_masked_pos", mask, tuple(patches.shape[:3]), "batch, leads, patches")
    fewest, most = (int(count) for count in (~mask).sum(dim=2).aminmax())
    if not 0 < fewest == most:
        raise EncoderError(
            f"Got bool_masked_pos that leaves from {fewest} to {most} patches of a lead, expected the same number in "
            "every lead of every ECG, and at least one."
        )
    return mask.byte().argsort(dim=2, stable=True)[..., :most]


class EcgPatchDecoder(nn.Module):
    """Reconstructs every lead from its own tokens, and compares the masked patches."""

    def __init__(self, config: EcgPatchConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.decoder_config()
        self.mask_token = nn.Parameter(torch.empty(inner.hidden_size))
        self.embedding = nn.Linear(config.hidden_size, inner.hidden_size)
        self.layers = _layers(inner)
        self.layernorm = nn.LayerNorm(inner.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(inner.hidden_size, config.patch_size)

    def draw_mask(
        self, batch: int, num_samples: int, device: torch.device, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Draw which patches to leave out: bool (batch, leads, patches), for every ECG and lead anew, as many in each.

        Args:
            batch: number of ECGs.
            num_samples: of each.
            device: of the mask.
            generator: of the draw, on the CPU; torch's own by default. In evaluation the masks of a batch are always
                the same without one.
        """
        if generator is None and not self.training:
            generator = torch.Generator().manual_seed(EVALUATION_SEED)
        shape = (batch, self.config.num_leads, self.config.num_patches(num_samples))
        ranks = torch.rand(shape, generator=generator).argsort(dim=2).argsort(dim=2)
        return (ranks < self.config.num_masked_patches(num_samples)).to(device)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Reconstruct all patches.

        Args:
            tokens: (batch, leads * (kept + 2), hidden_size), what the encoder made of the visible patches.
            mask: bool (batch, leads, patches), True where a patch was left out.

        Returns:
            (batch, leads, patches, patch_size), in units of each patch's deviation from its mean.
        """
        num_leads, num_patches = mask.shape[1:]
        # Each lead is a sequence of its own.
        states = self.embedding(tokens).unflatten(1, (num_leads, -1)).flatten(0, 1)
        first, visible, last = states[:, :1], states[:, 1:-1], states[:, -1:]
        hidden = self.mask_token.to(visible.dtype).expand(len(visible), num_patches - visible.shape[1], -1)
        order = mask.flatten(0, 1).byte().argsort(dim=1, stable=True)  # the visible ones, then the masked ones
        in_order = torch.cat([visible, hidden], dim=1)
        places = order.argsort(dim=1)[..., None].expand(-1, -1, in_order.shape[-1])
        states = torch.cat([first, in_order.gather(1, places), last], dim=1)
        states = states + sine_positions(num_patches + 2, states.shape[-1], states)
        for layer in self.layers:
            states = layer(states)
        return self.projection(self.layernorm(states[:, 1:-1])).unflatten(0, (-1, num_leads))

    def loss(self, patches: torch.Tensor, reconstruction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean squared difference over the samples of masked patches.

        Every patch is brought to mean 0 and variance 1 first, so that its shape counts and not its height, which would
        be learnt from the QRS complexes alone; a reconstruction of zeros costs 1 for a wave and less for noise
        (`SMALLEST_VARIANCE`).

        Args:
            patches: (batch, leads, patches, patch_size), mV.
            reconstruction: of the same shape.
            mask: bool (batch, leads, patches).
        """
        patches = patches.float()
        variance, mean = torch.var_mean(patches, dim=-1, correction=0, keepdim=True)
        targets = (patches - mean) / (variance + SMALLEST_VARIANCE).sqrt()
        squares = (targets - reconstruction.float()).square().mean(dim=-1)
        return (squares * mask).sum() / mask.sum()


class EcgPatchForPreTraining(EcgPatchPreTrainedModel):
    """A transformer on patches of the signal that reconstructs masked ones from the others.

    Args:
        config: `EcgPatchConfig`.
    """

    _auto_class: Any = "AutoModelForPreTraining"

    def __init__(self, config: EcgPatchConfig) -> None:
        super().__init__(config)
        self.encoder = EcgPatchModel(config)
        self.decoder = EcgPatchDecoder(config)
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        return_loss: bool = True,
        return_dict: bool | None = None,
    ) -> EcgPreTrainingOutput | tuple[torch.Tensor, ...]:
        """Reconstruct ECGs from what the mask leaves.

        Args:
            input_values: as of `EcgPatchModel`.
            bool_masked_pos: as of `EcgPatchModel`; drawn where it is not given, in evaluation always the same.
            generator: of that draw.
            return_loss: False for the reconstruction alone.
            return_dict: False for a tuple.

        Returns:
            `reconstruction` (batch, leads, samples), in units of each patch's deviation from its mean, and the `loss`.

        Raises:
            EncoderError: what the encoder refuses, or signals too short to mask some patches of a lead and leave some.
        """
        if bool_masked_pos is None:
            check_shape("input_values", input_values, (None, self.config.num_leads, None), "batch, leads, samples")
            batch, _, num_samples = input_values.shape
            bool_masked_pos = self.decoder.draw_mask(batch, num_samples, input_values.device, generator)
        encoded = self.encoder(input_values, bool_masked_pos)
        reconstruction = self.decoder(encoded.last_hidden_state, bool_masked_pos)
        output = EcgPreTrainingOutput(reconstruction=reconstruction.flatten(2), encoder_output=encoded)
        if return_loss:
            patches = _patches(input_values, self.config)
            output.reconstruction_loss = self.decoder.loss(patches, reconstruction, bool_masked_pos)
            output.loss = output.reconstruction_loss
        return output.to_tuple() if return_dict is False else output
