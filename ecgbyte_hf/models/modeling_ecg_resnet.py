"""EcgResNet: the one-dimensional ResNet of MERL, its pretraining on ECG and report, and a classifier."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from .configuration_ecg_resnet import EXPANSIONS, EcgResNetConfig
from .contrastive_ecg import contrastive_loss
from .errors_ecg_byte import EncoderError
from .modeling_ecg_encoder import EcgEncoderPreTrainedModel, EcgPreTrainingOutput, check_shape, unit_length

#: mV. Keeps a flat sample from a division by zero, as in the ECG-Byte authors' own normalisation.
SMALLEST_WIDTH = 1e-6


class EcgResNetBlock(nn.Module):
    """Two convolutions ("basic") or three ("bottleneck") beside a shortcut."""

    def __init__(self, kind: str, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * EXPANSIONS[kind]
        widths, kernels, strides = {
            "basic": ((in_channels, channels, out_channels), (3, 3), (stride, 1)),
            "bottleneck": ((in_channels, channels, channels, out_channels), (1, 3, 1), (1, stride, 1)),
        }[kind]
        self.convolutions = nn.ModuleList(
            _convolution(before, after, kernel, step)
            for (before, after), kernel, step in zip(pairwise(widths), kernels, strides, strict=True)
        )
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = _convolution(in_channels, out_channels, 1, stride) if changes else nn.Identity()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, time) to (batch, out_channels, time / stride)."""
        shortcut = self.shortcut(hidden_states)
        *first, last = self.convolutions
        for convolution in first:
            hidden_states = F.relu(convolution(hidden_states))
        return F.relu(last(hidden_states) + shortcut)


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm1d(out_channels),
    )


class EcgResNetAttentionPool(nn.Module):
    """Attention of one learnt class token to a sequence with learnt positions."""

    def __init__(self, config: EcgResNetConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.num_heads = config.num_attention_heads
        self.class_token = nn.Parameter(torch.empty(1, 1, size))
        self.positions = nn.Parameter(torch.empty(1, 1 + config.num_tokens(config.num_samples), size))
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))
        self.projection = nn.Linear(size, size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (batch, tokens, size), of any number of tokens, to (batch, size)."""
        batch = len(features)
        sequence = torch.cat([self.class_token.expand(batch, -1, -1), features], dim=1)
        sequence = sequence + self._positions(features.shape[1]).to(sequence.dtype)
        query = self._heads(self.query(sequence[:, :1]))
        attended = F.scaled_dot_product_attention(
            query, self._heads(self.key(sequence)), self._heads(self.value(sequence))
        )
        pooled: torch.Tensor = self.projection(self.output(attended.transpose(1, 2).flatten(1)))
        return pooled

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _positions(self, num_tokens: int) -> torch.Tensor:
        """Return the positions for the class and this many tokens; those in time are interpolated to the number."""
        of_class, in_time = self.positions[:, :1], self.positions[:, 1:]
        if in_time.shape[1] == num_tokens:
            return self.positions
        resized = F.interpolate(in_time.float().transpose(1, 2), size=num_tokens, mode="linear", align_corners=False)
        return torch.cat([of_class, resized.transpose(1, 2).to(of_class.dtype)], dim=1)


class EcgResNetPreTrainedModel(EcgEncoderPreTrainedModel):
    """Weights and loading of the EcgResNet models.

    Gradient checkpointing is not supported: it runs every block twice, and with it the running statistics of batch
    normalisation.
    """

    config_class = EcgResNetConfig
    main_input_name = "input_values"
    _no_split_modules = ["EcgResNetBlock"]
    # Of the text tower; the attention pool always takes PyTorch's own choice.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    auto_classes = {
        "AutoModel": "EcgResNetModel",
        "AutoModelForPreTraining": "EcgResNetForPreTraining",
        "AutoModelForSequenceClassification": "EcgResNetForSequenceClassification",
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d) and module.bias is None:
            # In front of batch normalisation and ReLU (He et al., arXiv 1502.01852), as in torchvision's ResNets.
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear | nn.Conv1d):
            # PyTorch's own, as in MERL: it keeps the size of the states whatever the width. transformers' usual 0.02
            # shrinks them through the head's layers until the biases, the same for every ECG, outweigh them.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, EcgResNetAttentionPool):
            init.normal_(module.class_token)
            init.normal_(module.positions, std=1 / self.config.embedding_size)


class EcgResNetModel(EcgResNetPreTrainedModel):
    """A one-dimensional ResNet without max pooling, which halves the time once per stage.

    Args:
        config: `EcgResNetConfig`.

    Example:
        >>> config = EcgResNetConfig.of_depth(18, base_channels=4)
        >>> output = EcgResNetModel(config).eval()(input_values=torch.randn(2, 12, 500))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([2, 32, 32]), torch.Size([2, 32]))
    """

    _auto_class: Any = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [
        r"^(text_model|text_projection|ecg_projection|attention_pool|view_projections|classifier)\."
    ]

    def __init__(self, config: EcgResNetConfig) -> None:
        super().__init__(config)
        channels = config.base_channels
        self.stem = _convolution(config.num_leads, channels, 7, 2)
        self.stages = nn.ModuleList()
        in_channels = channels
        for stage, num_blocks in enumerate(config.blocks):
            width = channels * 2**stage
            blocks = nn.Sequential()
            for block in range(num_blocks):
                stride = 2 if stage and not block else 1
                blocks.append(EcgResNetBlock(config.block, in_channels, width, stride))
                in_channels = width * EXPANSIONS[config.block]
            self.stages.append(blocks)
        self.post_init()

    def forward(
        self, input_values: torch.Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> BaseModelOutputWithPooling | tuple[torch.Tensor, ...]:
        """Encode ECGs.

        Args:
            input_values: (batch, leads, samples), mV, of any length, as `EcgByteFeatureExtractor` gives them; scaled
                here by `config.input_scaling`.
            output_hidden_states: return the states after the first convolution and after each stage too.
            return_dict: False for a tuple.

        Returns:
            `last_hidden_state` (batch, tokens, hidden_size) and its mean over the tokens as `pooler_output`.

        Raises:
            EncoderError: another number of leads or dimensions, or no sample.
        """
        check_shape("input_values", input_values, (None, self.config.num_leads, None), "batch, leads, samples")
        hidden_states = F.relu(self.stem(self._scaled(input_values)))
        all_states = [hidden_states]
        for blocks in self.stages:
            hidden_states = blocks(hidden_states)
            all_states.append(hidden_states)
        wants_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutputWithPooling(
            last_hidden_state=hidden_states.transpose(1, 2),
            pooler_output=hidden_states.mean(dim=-1),
            hidden_states=tuple(state.transpose(1, 2) for state in all_states) if wants_states else None,
        )
        return output.to_tuple() if return_dict is False else output

    def _scaled(self, input_values: torch.Tensor) -> torch.Tensor:
        """Scale the input as configured, in float32, and give it the type of the weights."""
        values = input_values.float()
        if self.config.input_scaling == "minmax":
            lowest, highest = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
            values = (values - lowest) / (highest - lowest + SMALLEST_WIDTH) * self.config.input_scale
        return values.to(self.dtype)


class EcgResNetForPreTraining(EcgResNetPreTrainedModel):
    """EcgResNet beside a text tower, with the two losses of MERL.

    Cross-modal: the ECG's embedding (a 1x1 convolution, then an attention pool) and the text's (two linear layers with
    GELU on the tower's) are each other's positives. Uni-modal: the mean of the convolution's output through two
    separate linear layers with dropout. Both are symmetric InfoNCE over the ECGs of all ranks.

    The text tower is saved with the model, frozen or not. `EcgResNetModel.from_pretrained` loads the encoder alone.

    Args:
        config: `EcgResNetConfig`.
    """

    _auto_class: Any = "AutoModelForPreTraining"

    def __init__(self, config: EcgResNetConfig) -> None:
        super().__init__(config)
        from transformers import AutoModel

        size = config.embedding_size
        self.encoder = EcgResNetModel(config)
        self.text_model = AutoModel.from_config(config.text_config)
        self.ecg_projection = nn.Conv1d(config.hidden_size, size, 1)
        self.attention_pool = EcgResNetAttentionPool(config)
        self.text_projection = nn.Sequential(
            nn.Linear(config.text_config.hidden_size, size), nn.GELU(), nn.Linear(size, size)
        )
        self.view_projections = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()
        self._freeze_text()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as ever; the text tower comes back frozen where the configuration says so."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze_text()
        return loaded

    @classmethod
    def from_backbone_pretrained(
        cls,
        text_model: str = "ncbi/MedCPT-Query-Encoder",
        config: EcgResNetConfig | None = None,
        **kwargs: Any,
    ) -> EcgResNetForPreTraining:
        """Return a model whose text tower has the weights of a repository or folder, and all else random ones.

        Args:
            text_model: name on the Hub, or folder, of an `AutoModel`.
            config: all but `text_config`, which comes with the weights; the paper's ResNet-101 where there is none.
            kwargs: for `AutoModel.from_pretrained`, such as `revision`.
        """
        from transformers import AutoModel

        text = AutoModel.from_pretrained(text_model, **kwargs)
        config = copy.deepcopy(config or EcgResNetConfig())
        config.text_config = text.config
        model = cls(config)
        model.text_model.load_state_dict(text.state_dict())
        return model

    def train(self, mode: bool = True) -> EcgResNetForPreTraining:
        """Switch dropout and batch normalisation; a frozen text tower stays as in evaluation."""
        super().train(mode)
        if self.config.freeze_text:
            self.text_model.eval()
        return self

    def get_ecg_features(self, input_values: torch.Tensor) -> torch.Tensor:
        """Map (batch, leads, samples) to embeddings (batch, embedding_size) of unit length."""
        return unit_length(self._ecg_embeds(self._features(self.encoder(input_values).last_hidden_state)))

    def get_text_features(self, input_ids: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        """Map ids (batch, tokens), with their `attention_mask`, to embeddings (batch, embedding_size), unit length."""
        return unit_length(self.text_projection(self.get_text_states(input_ids, **kwargs)))

    def get_text_states(self, input_ids: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        """Map ids (batch, tokens) to what the text tower alone makes of them, (batch, its hidden size).

        With a frozen tower that can be computed once for all epochs and given to `forward` as `text_states`.

        Raises:
            EncoderError: the tower has no `pooler_output`, and `config.text_pooling` asks for it.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_text):
            output = self.text_model(input_ids=input_ids, **kwargs)
        if self.config.text_pooling == "first":
            states: torch.Tensor = output.last_hidden_state[:, 0]
            return states
        pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
        if pooled is None:
            raise EncoderError(
                f"Got a text tower of the type {self.config.text_config.model_type!r} without pooler_output, expected "
                "one with it. Use another tower, or text_pooling='first'."
            )
        return pooled

    def forward(
        self,
        input_values: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        text_states: torch.Tensor | None = None,
        return_loss: bool = True,
        return_dict: bool | None = None,
    ) -> EcgPreTrainingOutput | tuple[torch.Tensor, ...]:
        """Embed ECGs and their texts, and compare them.

        Args:
            input_values: (batch, leads, samples), mV.
            input_ids: (batch, tokens) of the texts, one for each ECG.
            attention_mask: (batch, tokens), 0 where there is padding.
            token_type_ids: (batch, tokens), for towers that take them.
            text_states: (batch, hidden size of the tower), from `get_text_states`, instead of the three above.
            return_loss: False for the embeddings alone.
            return_dict: False for a tuple.

        Returns:
            `EcgPreTrainingOutput`; loss = cross_modal_loss + uni_modal_loss.

        Raises:
            EncoderError: neither or both of texts and text states, or not one for each ECG.
        """
        if (input_ids is None) == (text_states is None):
            got = "both" if text_states is not None else "neither"
            raise EncoderError(f"Got {got} of input_ids and text_states, expected one: the text of each ECG.")
        encoded = self.encoder(input_values)
        features = self._features(encoded.last_hidden_state)
        ecg_embeds = self._ecg_embeds(features)
        if text_states is None:
            of_text = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
            given = {name: value for name, value in of_text.items() if value is not None}
            text_states = self.get_text_states(cast(torch.Tensor, input_ids), **given)
        text_embeds = self.text_projection(text_states.to(self.dtype))
        output = EcgPreTrainingOutput(
            ecg_embeds=unit_length(ecg_embeds), text_embeds=unit_length(text_embeds), encoder_output=encoded
        )
        if return_loss:
            scale = 1 / self.config.contrastive_temperature
            first, second = (self.dropout(project(features.mean(dim=1))) for project in self.view_projections)
            output.cross_modal_loss = contrastive_loss(ecg_embeds, text_embeds, scale, "sum")
            output.uni_modal_loss = contrastive_loss(first, second, scale, "sum")
            output.loss = output.cross_modal_loss + output.uni_modal_loss
        return output.to_tuple() if return_dict is False else output

    def _features(self, sequence: torch.Tensor) -> torch.Tensor:
        """Project the encoder's (batch, tokens, hidden_size) to (batch, tokens, embedding_size)."""
        projected: torch.Tensor = self.ecg_projection(sequence.transpose(1, 2)).transpose(1, 2)
        return projected

    def _ecg_embeds(self, features: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.attention_pool(features)
        return pooled

    def _freeze_text(self) -> None:
        if self.config.freeze_text:
            self.text_model.requires_grad_(False).eval()


class EcgResNetForSequenceClassification(EcgResNetPreTrainedModel):
    """EcgResNet with a linear classifier on its mean: supervised training, or a linear probe with a frozen encoder.

    Several labels can be true of one ECG, unless `config.problem_type` is "single_label_classification".

    Args:
        config: `EcgResNetConfig` with `num_labels` or `id2label`.
    """

    _auto_class: Any = "AutoModelForSequenceClassification"

    def __init__(self, config: EcgResNetConfig) -> None:
        super().__init__(config)
        self.encoder = EcgResNetModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, cast(int, config.num_labels))
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[torch.Tensor, ...]:
        """Classify ECGs.

        Args:
            input_values: (batch, leads, samples), mV.
            labels: (batch, num_labels) of zeros and ones; for one label per ECG (batch,) of its number.
            output_hidden_states: as of `EcgResNetModel`.
            return_dict: False for a tuple.

        Returns:
            `logits` (batch, num_labels), and with labels the `loss`.

        Raises:
            EncoderError: labels of another shape.
        """
        encoded = self.encoder(input_values, output_hidden_states=output_hidden_states)
        logits = self.classifier(self.dropout(encoded.pooler_output))
        output = SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
        )
        return output.to_tuple() if return_dict is False else output

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.problem_type == "single_label_classification":
            check_shape("labels", labels, (len(logits),), "the number of each ECG's label")
            return F.cross_entropy(logits.float(), labels)
        check_shape("labels", labels, tuple(logits.shape), "zeros and ones for batch, labels")
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())
