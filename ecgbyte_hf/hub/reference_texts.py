"""The tokenizer of a converted encoder's text tower, which no checkpoint holds."""

from __future__ import annotations

from typing import Any

from ecgbyte_hf.data.hub_folder import CONFIG_AND_TOKENIZER_FILES, local_or_hub_folder
from ecgbyte_hf.models.auto import Encoder
from ecgbyte_hf.models.errors_ecg_byte import EcgError, EcgFileError, EncoderError
from ecgbyte_hf.training.start_encoder import (
    EncoderStart,
    paper_text_model,
    pretraining_class,
    takes_texts,
    text_config,
    text_length,
)

#: In place of a name: the encoder is written without one.
NO_TOKENIZER = "none"
# Of CLIP's older configurations, which take the state at the highest id.
_OLD_CLIP_END = 2


def load_text_tokenizer(encoder: Encoder, name: str | None) -> Any:
    """The tokenizer of an encoder's text tower; `None` where there is no tower, or none is wanted.

    Args:
        encoder: Which encoder.
        name: A folder or a name on the Hub; by default that of the tower which the paper started from. `NO_TOKENIZER`
            for none.

    Raises:
        EcgFileError: it is not there, and cannot be fetched.
        EncoderError: the encoder reads no texts.
    """
    from transformers import AutoTokenizer

    if not takes_texts(pretraining_class(encoder)):
        if name is not None:
            raise EncoderError(f"{encoder.command_name} reads no texts; leave --text-tokenizer out")
        return None
    if name == NO_TOKENIZER:
        return None
    place = name or paper_text_model(encoder)
    try:
        folder = local_or_hub_folder(place, made_by="save_pretrained", allow_patterns=CONFIG_AND_TOKENIZER_FILES)
        return AutoTokenizer.from_pretrained(folder)
    except (EcgError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EcgFileError(
            f"no tokenizer for the text tower ({reason}); give --text-tokenizer with its folder or name, or "
            f"--text-tokenizer {NO_TOKENIZER} for an encoder that is neither compared with texts nor pretrained on"
        ) from error


def fit_text_tokenizer(encoder: Encoder, model: Any, tokenizer: Any) -> int:
    """Set how long a text may be, once it is seen that the tower reads what the tokenizer writes.

    Args:
        encoder: Which encoder.
        model: Its class for pretraining.
        tokenizer: What `load_text_tokenizer` returned.

    Returns:
        Tokens of a text.

    Raises:
        EncoderError: a tokenizer with more tokens than the tower, or with another end.
    """
    tower = text_config(model.config)
    if len(tokenizer) > tower.vocab_size:
        raise EncoderError(
            f"the text tower has {tower.vocab_size} rows, its tokenizer {len(tokenizer)} tokens; give the tokenizer "
            "that it was trained with (--text-tokenizer)"
        )
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if tower.model_type.startswith("clip") and tower.eos_token_id not in (_OLD_CLIP_END, end):
        raise EncoderError(
            f"the text tower reads a text at the token {tower.eos_token_id}, and the tokenizer ends texts with {end}; "
            "give the tokenizer that it was trained with (--text-tokenizer)"
        )
    tokenizer.model_max_length = text_length(encoder, model, EncoderStart())
    return int(tokenizer.model_max_length)
