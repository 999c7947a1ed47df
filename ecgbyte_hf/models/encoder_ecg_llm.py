"""Which encoder an ECG language model has.

Here the Auto classes know. A saved model's folder holds a file of the same name in place of this one, written by
`encoder_source`: it names the encoder whose code is beside it, so that it loads where nothing is registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from .configuration_ecg_encoder import sub_config

# The imports are put in later: transformers takes any line that begins like one for a file to copy.
_SOURCE = '''"""The encoder of this ECG language model; written when the model was saved."""

{import_config}


def encoder_config(value):
    """Return the encoder's configuration from its settings."""
    return value if isinstance(value, {config}) else {config}.from_dict(dict(value or {{}}))


def encoder_model(config):
    """Return an encoder of this configuration."""
    {import_model}

    return {model}(config)


def encoder_source(model):
    """Return the text of this file."""
    with open(__file__, encoding="utf-8") as file:
        return file.read()
'''


def encoder_config(value: PreTrainedConfig | Mapping[str, Any] | None) -> Any:
    """Return the encoder's configuration from its settings.

    Raises:
        EncoderError: a type that transformers does not know.
    """
    return sub_config("encoder_config", value, "ecg_resnet")


def encoder_model(config: PreTrainedConfig) -> Any:
    """Return an encoder of this configuration."""
    from transformers import AutoModel  # not above: it takes seconds, and a configuration must not

    return AutoModel.from_config(config)


def encoder_source(model: Any) -> str | None:
    """Return this file's text for the folder of a model with this encoder; None for one of transformers itself."""
    kind, config = type(model), type(model.config)
    if kind.__module__.startswith("transformers."):
        return None
    import_config, import_model = (
        f"from .{part.__module__.rsplit('.', 1)[-1]} import {part.__name__}" for part in (config, kind)
    )
    return _SOURCE.format(
        import_config=import_config, import_model=import_model, config=config.__name__, model=kind.__name__
    )
