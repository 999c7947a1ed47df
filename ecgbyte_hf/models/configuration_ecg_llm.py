"""Configuration of EcgLlm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from .configuration_ecg_encoder import sub_config
from .encoder_ecg_llm import encoder_config as encoder_config_of
from .errors_ecg_byte import EncoderError

ECG_FEATURES = ("pooled", "sequence")
PROJECTOR_TYPES = ("linear", "mlp")


class EcgLlmConfig(PreTrainedConfig):
    """An encoder of ECGs in front of a language model, as in the second stage of the ECG-Byte paper's baselines.

    The defaults are the paper's: one token for each ECG, a linear projection, a frozen encoder.

    Args:
        encoder_config: configuration of the encoder, or its settings; any model type whose model returns
            `pooler_output` and `last_hidden_state` and says their sizes (`pooler_output_size`, `hidden_size`).
        text_config: configuration of the language model, or its settings; any model type of `AutoModelForCausalLM`.
        projector_type: "linear", or "mlp" (linear, ReLU, linear). Embeddings of several parts
            (`encoder_config.pooler_output_sizes`) are each projected, joined, and go through linear, ReLU, linear.
        ecg_features: "pooled" (`pooler_output`) or "sequence" (`last_hidden_state`).
        num_ecg_tokens: placeholders of an ECG. A sequence of another length is brought to it by averaging neighbours.
        ecg_token_id: id of the placeholder.
        freeze_encoder: the encoder is not trained, and runs as in evaluation.
        lm_head_bias: the output layer has a bias.
        kwargs: what `transformers` keeps besides.

    Raises:
        EncoderError: a value that no model can be built from.

    Example:
        >>> config = EcgLlmConfig()
        >>> config.feature_sizes, config.text_config.model_type
        ((2048,), 'llama')
    """

    model_type = "ecg_llm"
    sub_configs = {"encoder_config": PreTrainedConfig, "text_config": PreTrainedConfig}
    _auto_class = "AutoConfig"

    def __init__(
        self,
        encoder_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        text_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        projector_type: str = "linear",
        ecg_features: str = "pooled",
        num_ecg_tokens: int = 1,
        ecg_token_id: int | None = None,
        freeze_encoder: bool = True,
        lm_head_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        """Check and keep the settings."""
        for name, value, known in (
            ("projector_type", projector_type, PROJECTOR_TYPES),
            ("ecg_features", ecg_features, ECG_FEATURES),
        ):
            if value not in known:
                raise EncoderError(f"Got {name}={value!r}, expected one of {', '.join(known)}.")
        if num_ecg_tokens < 1 or (ecg_features == "pooled" and num_ecg_tokens != 1):
            raise EncoderError(
                f"Got num_ecg_tokens={num_ecg_tokens} with ecg_features={ecg_features!r}, expected 1 for pooled and "
                "at least 1 for a sequence."
            )
        self.encoder_config = encoder_config_of(encoder_config)
        self.text_config = sub_config("text_config", text_config, "llama")
        self.projector_type = projector_type
        self.ecg_features = ecg_features
        self.num_ecg_tokens = num_ecg_tokens
        self.ecg_token_id = ecg_token_id
        self.freeze_encoder = freeze_encoder
        self.lm_head_bias = lm_head_bias
        # Where a model looks for it; the language model inside has no output layer of its own.
        kwargs.setdefault("tie_word_embeddings", getattr(self.text_config, "tie_word_embeddings", True))
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, without the folders that the parts came from."""
        settings: dict[str, Any] = super().to_dict()
        for name in self.sub_configs:
            if isinstance(settings.get(name), dict):
                settings[name].pop("_name_or_path", None)
        return settings

    @property
    def feature_sizes(self) -> tuple[int, ...]:
        """Sizes of the parts of what the encoder gives for each token."""
        encoder = self.encoder_config
        if self.ecg_features == "sequence":
            return (int(encoder.hidden_size),)
        return tuple(getattr(encoder, "pooler_output_sizes", (encoder.pooler_output_size,)))
