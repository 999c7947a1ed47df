"""Configuration of ECG-Byte: what makes a tokenizer folder recognisable to `AutoTokenizer`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig


class EcgByteConfig(PreTrainedConfig):
    """The root `config.json` of a tokenizer folder.

    ECG-Byte has no weights. The file exists because `AutoTokenizer` reads `model_type` from it, and because loading
    from an offline cache fails without it. Everything that decides the ids is in `ecg_byte.json`.

    Args:
        vocab_size: Number of ids: symbols, merges and special tokens.

    Example:
        >>> EcgByteConfig(vocab_size=3530).model_type
        'ecg_byte'
    """

    model_type = "ecg_byte"

    def __init__(self, vocab_size: int = 30, **kwargs: Any) -> None:
        """Keep the number of ids."""
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
