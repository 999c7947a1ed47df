"""What the configurations of all encoders share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from .errors_ecg_byte import EncoderError


def sub_config(name: str, value: PreTrainedConfig | Mapping[str, Any] | None, default_type: str) -> Any:
    """Return the configuration of a part of a model.

    Args:
        name: name of the argument, for the message of an error.
        value: a configuration; its settings (as in `config.json`); None for the type's defaults.
        default_type: `model_type` where the settings name none.

    Raises:
        EncoderError: a value of another kind, or a type that transformers does not know.
    """
    from transformers import AutoConfig  # not above: registration with it imports the files that import this one

    if isinstance(value, PreTrainedConfig):
        return value
    if value is not None and not isinstance(value, Mapping):
        raise EncoderError(f"Got {name}={value!r}, expected a configuration, its settings as a dictionary, or None.")
    settings = dict(value or {})
    model_type = settings.pop("model_type", default_type)
    try:
        return AutoConfig.for_model(model_type, **settings)
    except ValueError as error:
        raise EncoderError(
            f"Got {name} of the model_type {model_type!r}, expected one that transformers knows such as "
            f"{default_type!r}. If it is from another package, import that first."
        ) from error


def square_size(name: str, value: Any) -> int:
    """Return the side of a square given as an integer or as two equal ones."""
    sides = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(side, int) and side > 0 for side in sides) or len(set(sides)) != 1:
        raise EncoderError(f"Got {name}={value!r}, expected the side of a square in pixels, such as 224.")
    return int(sides[0])
