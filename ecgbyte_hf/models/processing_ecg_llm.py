"""The way from recordings and a question to what EcgLlm reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from .errors_ecg_byte import EncoderError, SignalError
from .feature_extraction_ecg_byte import EcgByteFeatureExtractor
from .image_processing_ecg import EcgImageProcessor

#: In a text, the place of one ECG, and of one embedding of it.
ECG_TOKEN = "<|ecg|>"
ECG_START, ECG_END = "<|ecg_start|>", "<|ecg_end|>"


class EcgLlmProcessor(ProcessorMixin):
    """Cleans recordings, draws them where the encoder reads pictures, and writes the placeholders.

    A folder keeps cleaning and picture in `processor_config.json`: both alone would be `preprocessor_config.json`.

    Args:
        feature_extractor: An `EcgByteFeatureExtractor`.
        tokenizer: The language model's tokenizer, which knows the three tokens of an ECG.
        picture: An `EcgImageProcessor` or its settings, for an encoder that reads pictures.
        num_ecg_tokens: Placeholders of an ECG.
        kwargs: `chat_template`.

    Raises:
        EncoderError: a tokenizer that was not extended.
    """

    _auto_class: Any = "AutoProcessor"

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        picture: EcgImageProcessor | Mapping[str, Any] | None = None,
        num_ecg_tokens: int = 1,
        **kwargs: Any,
    ) -> None:
        """Keep the parts."""
        super().__init__(feature_extractor, tokenizer, **kwargs)
        missing = [token for token in (ECG_START, ECG_TOKEN, ECG_END) if token not in tokenizer.get_vocab()]
        if missing:
            raise EncoderError(
                f"Got a tokenizer without {', '.join(missing)}, expected that of a model which `ecgbyte extend-llm "
                "--encoder` made."
            )
        self.picture = EcgImageProcessor(**part_settings(picture)) if isinstance(picture, Mapping) else picture
        self.num_ecg_tokens = num_ecg_tokens

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Load the parts; the feature extractor by its class, which is beside this one where nothing is registered."""
        subfolder = kwargs.pop("subfolder", "")
        settings = part_settings((processor_dict or {}).get("feature_extractor") or {})
        tokenizer = cls._load_tokenizer_from_pretrained(
            "tokenizer", pretrained_model_name_or_path, subfolder=subfolder, **kwargs
        )
        return [EcgByteFeatureExtractor(**settings), tokenizer]

    @property
    def ecg_text(self) -> str:
        """What stands for one ECG in a text: start, placeholders, end."""
        return ECG_START + ECG_TOKEN * self.num_ecg_tokens + ECG_END

    @property
    def model_input_names(self) -> list[str]:
        """The names of what a call returns."""
        return [*self.tokenizer.model_input_names, "ecg_values"]

    def __call__(
        self, text: str | Sequence[str], ecgs: Any = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Clean recordings and write their placeholders.

        Args:
            text: One text or several, each with `<|ecg|>` where an ECG belongs.
            ecgs: One record with `.signal` (leads, samples) mV, `.sampling_rate`, `.lead_names`, or a list of them:
                the ECGs of all texts in their order.
            return_tensors: "pt" for tensors; ECGs of different lengths remain a list.
            kwargs: For the tokenizer, such as `padding`.

        Returns:
            The tokenizer's, and `ecg_values` where there are ECGs.

        Raises:
            EncoderError: another number of ECGs than of places.
            SignalError: something that is not a record; and what `EcgByteFeatureExtractor.clean` raises.
        """
        texts = [text] if isinstance(text, str) else list(text)
        records = [ecgs] if hasattr(ecgs, "signal") else list(ecgs or ())
        places = sum(one.count(ECG_TOKEN) for one in texts)
        if places != len(records):
            raise EncoderError(f"Got {places} places {ECG_TOKEN} and {len(records)} ECGs, expected as many.")
        if not all(hasattr(record, "signal") for record in records):
            raise SignalError("expected records with signal, sampling_rate and lead_names; use ecgbyte_hf.read_ecg")
        written = [one.replace(ECG_TOKEN, self.ecg_text) for one in texts]
        encoded = dict(
            self.tokenizer(written[0] if isinstance(text, str) else written, return_tensors=return_tensors, **kwargs)
        )
        if records:
            encoded["ecg_values"] = self.ecg_values([self.feature_extractor.clean(record) for record in records])
        return BatchFeature(encoded)

    def ecg_values(self, signals: Sequence[np.ndarray]) -> Any:
        """What the encoder reads of cleaned signals.

        Args:
            signals: Each float (leads, samples) in mV.

        Returns:
            A tensor (ECGs, leads, samples), or (ECGs, 3, height, width) for an encoder that reads pictures; a list of
            tensors without the first dimension where the lengths differ.
        """
        import torch

        if self.picture is not None:
            pictures: torch.Tensor = self.picture.preprocess(list(signals), return_tensors="pt")["pixel_values"]
            return pictures
        tensors = [torch.tensor(np.asarray(signal), dtype=torch.float32) for signal in signals]
        return torch.stack(tensors) if len({tensor.shape for tensor in tensors}) == 1 else tensors


def part_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a part out of its `to_dict`, without what transformers notes besides."""
    noted = ("auto_map", "processor_class", "feature_extractor_type", "image_processor_type")
    return {name: value for name, value in values.items() if name not in noted}
