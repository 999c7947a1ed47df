"""A language model that reads ECGs through an encoder, with the face of `EcgLanguageModel`."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ecgbyte_hf.data.chat import RenderedPrompt
from ecgbyte_hf.data.encoder_prompts import EncoderPrompter, Placeholders
from ecgbyte_hf.evaluation.language_model import EcgLanguageModel, text_of
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.processing_ecg_llm import ECG_TOKEN

# ECGs whose embeddings are kept, so that the questions about one encode it once.
_KEPT_ECGS = 256


class EncoderLanguageModel(EcgLanguageModel):
    """`model` is an `EcgLlmForConditionalGeneration`, adapter included, and `processor` an `EcgLlmProcessor`."""

    prompter_class = EncoderPrompter

    @cached_property
    def ecg_tokenizer(self) -> Placeholders:
        """The placeholders, in place of an ECG tokenizer."""
        return Placeholders.of(self.processor)

    def shared_head(self, prompt: RenderedPrompt) -> str:
        """Nothing: the texts of all ECGs are the same, and an ECG is few tokens."""
        return ""

    def shared_prefix_obstacle(self) -> str | None:
        """Why prefixes are not shared; the encoder reads an ECG once for all its questions anyway."""
        return "the model reads an ECG through an encoder, once for all its questions, as few tokens"

    def _ecgs(self, prompts: Sequence[str | RenderedPrompt]) -> list[Any]:
        """The embeddings of each prompt's ECGs (ECGs, tokens, width), or None."""
        return [self._embeddings(prompt) for prompt in prompts]

    def _ecg_inputs(self, ecgs: Sequence[Any]) -> dict[str, Any]:
        import torch

        shown = [each for each in ecgs if each is not None]
        return {"ecg_features": torch.cat(shown)} if shown else {}

    def _embeddings(self, prompt: str | RenderedPrompt) -> Any:
        import torch

        signals = None if isinstance(prompt, str) else prompt.signals
        if signals is None:
            if ECG_TOKEN in text_of(prompt):
                raise EcgDataError(
                    "got a text with places of ECGs and no signals, expected a prompt of this model's prompter"
                )
            return None
        return torch.stack([self._embedding(signal) for signal in signals()])

    def _embedding(self, signal: np.ndarray) -> Any:
        """The embeddings of one signal, each encoded by itself: a batch would change its last digits."""
        import torch

        contiguous = np.ascontiguousarray(signal)
        key = (contiguous.shape, hashlib.blake2b(contiguous.data, digest_size=16).digest())
        if key not in self._kept:
            with torch.inference_mode():
                self._kept[key] = self._ecg_llm.get_ecg_features(self.processor.ecg_values([contiguous]))[0]
            if len(self._kept) > _KEPT_ECGS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    @cached_property
    def _kept(self) -> OrderedDict[Any, Any]:
        return OrderedDict()

    @property
    def _ecg_llm(self) -> Any:
        """The model behind an adapter."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
