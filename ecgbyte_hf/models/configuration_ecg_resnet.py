"""Configuration of EcgResNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from .configuration_ecg_encoder import sub_config
from .errors_ecg_byte import EncoderError

#: Depth -> (kind of block, blocks in each of the four stages), as for images (He et al., arXiv 1512.03385).
DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}
#: Kind of block -> channels at its end in units of those at its beginning.
EXPANSIONS = {"basic": 1, "bottleneck": 4}
INPUT_SCALINGS = ("minmax", "none")
TEXT_POOLINGS = ("pooler", "first")


class EcgResNetConfig(PreTrainedConfig):
    """The one-dimensional ResNet of MERL (arXiv 2403.06659), and its head for pretraining on ECG and report.

    The defaults are those of the ECG-Byte paper's baseline: ResNet-101, records of 500 samples, the text tower in the
    shape of `ncbi/MedCPT-Query-Encoder` (BERT base).

    Args:
        block: "basic" (two convolutions) or "bottleneck" (three).
        blocks: number of blocks in each stage; every stage but the first halves the time.
        base_channels: channels of the first convolution and stage; they double with every stage.
        num_leads: rows of the input.
        input_scaling: "minmax": every sample is brought to 0..`input_scale` by its own minimum and maximum over leads
            and time, as the paper does; "none": mV as they are.
        input_scale: largest value after "minmax".
        embedding_size: size of the embeddings that are compared.
        num_attention_heads: heads of the attention pool.
        num_samples: input length that the pool has positions for; they are interpolated for other lengths.
        text_config: configuration of the text tower, or its settings; any model type of `AutoModel`.
        text_pooling: what of the text tower is the text's embedding: "pooler" (`pooler_output`) or "first" (its last
            hidden state at the first token).
        freeze_text: the text tower is not trained, and runs without dropout.
        dropout: dropout of the two projections that the uni-modal loss compares.
        contrastive_temperature: of both losses (`temperature` alone means that of generation to transformers).
        classifier_dropout: dropout before the classifier of `EcgResNetForSequenceClassification`.
        kwargs: what `transformers` keeps besides, such as `num_labels`, `id2label`.

    Raises:
        EncoderError: a value that no network can be built from.

    Example:
        >>> EcgResNetConfig.of_depth(18, num_leads=8).hidden_size
        512
    """

    model_type = "ecg_resnet"
    sub_configs = {"text_config": PreTrainedConfig}
    _auto_class = "AutoConfig"

    def __init__(
        self,
        block: str = "bottleneck",
        blocks: Sequence[int] = (3, 4, 23, 3),
        base_channels: int = 64,
        num_leads: int = 12,
        input_scaling: str = "minmax",
        input_scale: float = 1000.0,
        embedding_size: int = 256,
        num_attention_heads: int = 4,
        num_samples: int = 500,
        text_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        text_pooling: str = "pooler",
        freeze_text: bool = True,
        dropout: float = 0.1,
        contrastive_temperature: float = 0.07,
        classifier_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Check and keep the settings."""
        for name, value, known in (
            ("block", block, tuple(EXPANSIONS)),
            ("input_scaling", input_scaling, INPUT_SCALINGS),
            ("text_pooling", text_pooling, TEXT_POOLINGS),
        ):
            if value not in known:
                raise EncoderError(f"Got {name}={value!r}, expected one of {', '.join(known)}.")
        sizes = {"base_channels": base_channels, "num_leads": num_leads, "num_samples": num_samples}
        for name, size in sizes.items():
            if size < 1:
                raise EncoderError(f"Got {name}={size}, expected at least 1.")
        if not blocks or min(blocks) < 1:
            raise EncoderError(f"Got blocks={list(blocks)}, expected at least one block in every stage.")
        if num_attention_heads < 1 or embedding_size % num_attention_heads:
            raise EncoderError(
                f"Got embedding_size={embedding_size} and num_attention_heads={num_attention_heads}, expected a "
                "multiple of the heads."
            )
        self.block = block
        self.blocks = list(blocks)
        self.base_channels = base_channels
        self.num_leads = num_leads
        self.input_scaling = input_scaling
        self.input_scale = input_scale
        self.embedding_size = embedding_size
        self.num_attention_heads = num_attention_heads
        self.num_samples = num_samples
        self.text_config = sub_config("text_config", text_config, "bert")
        self.text_pooling = text_pooling
        self.freeze_text = freeze_text
        self.dropout = dropout
        self.contrastive_temperature = contrastive_temperature
        self.classifier_dropout = classifier_dropout
        super().__init__(**kwargs)

    @classmethod
    def of_depth(cls, depth: int, **kwargs: Any) -> EcgResNetConfig:
        """Return the configuration of ResNet-18, 34, 50 or 101."""
        if depth not in DEPTHS:
            raise EncoderError(f"Got depth={depth}, expected one of {', '.join(map(str, DEPTHS))}.")
        block, blocks = DEPTHS[depth]
        return cls(block=block, blocks=blocks, **kwargs)

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage: the width of `last_hidden_state`."""
        return self.base_channels * 2 ** (len(self.blocks) - 1) * EXPANSIONS[self.block]

    @property
    def pooler_output_size(self) -> int:
        """Size of `pooler_output`."""
        return self.hidden_size

    def num_tokens(self, num_samples: int) -> int:
        """Return the length of `last_hidden_state` for an input of this many samples.

        Example:
            >>> EcgResNetConfig().num_tokens(500)
            32
        """
        for _ in range(len(self.blocks)):  # the first convolution, and every stage but the first
            num_samples = -(-num_samples // 2)
        return num_samples
