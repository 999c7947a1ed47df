"""What all encoders share: how they are saved, and what pretraining returns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, cached_file

from .errors_ecg_byte import EncoderError
from .weights_ecg import refuse_damaged_weights

# How an encoder's input is made: its preprocessor, and the cleaning of recordings where that is an image processor.
_INPUT_FILES = ("preprocessor_config.json", "signal/preprocessor_config.json")
_OF_PUSH = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr", "tags")
_PLACES = ("cache_dir", "local_files_only", "revision", "subfolder", "token")


class EcgEncoderPreTrainedModel(PreTrainedModel):
    """Base class of the encoders.

    A base model takes ECGs under the name `main_input_name` and returns `last_hidden_state` (batch, tokens,
    `config.hidden_size`) and `pooler_output` (batch, `config.pooler_output_size`). Models with a head keep it as
    `encoder`.

    Attributes:
        auto_classes: name of an Auto class -> name of the class of the same file that it loads.
        input_files: name -> content of the files that lay beside the weights and say how the input is made; they are
            saved and pushed with the weights.
    """

    base_model_prefix = "encoder"
    auto_classes: ClassVar[dict[str, str]] = {}
    input_files: Mapping[str, bytes] = MappingProxyType({})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as ever.

        Raises:
            EcgFileError: the weights are truncated or damaged.
        """
        place = pretrained_model_name_or_path
        where = {name: kwargs[name] for name in _PLACES if kwargs.get(name) is not None}
        with refuse_damaged_weights(place):
            loaded = super().from_pretrained(place, *args, **kwargs)
        if place is not None:
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model.input_files = _input_files(place, where)
        return loaded

    def save_pretrained(self, save_directory: str | PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Save as ever, with the code, an `auto_map` that names all classes of the code, and `input_files`.

        So `AutoModel.from_pretrained(folder, trust_remote_code=True)` loads the base model of one saved by pretraining
        too. What the map held before may point to the repository that the weights once came from.
        """
        # transformers would upload the folder before the input files are in it.
        is_pushed = kwargs.pop("push_to_hub", False)
        push = {name: kwargs.pop(name) for name in _OF_PUSH if is_pushed and name in kwargs}
        file = _file_of(type(self))
        config = type(self.config)
        self.config.auto_map = {"AutoConfig": f"{_file_of(config)}.{config.__name__}"} | {
            auto: f"{file}.{name}" for auto, name in self.auto_classes.items()
        }
        super().save_pretrained(save_directory, *args, **kwargs)
        is_main_process = kwargs.get("is_main_process", True)
        for name, content in self.input_files.items() if is_main_process else ():
            target = Path(save_directory, name)
            if not target.exists():  # what is there may be newer
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content)
        if is_pushed and is_main_process:
            repo_id = push.pop("repo_id", Path(save_directory).name)
            self.push_to_hub(repo_id, token=kwargs.get("token"), **push)


def _input_files(place: Any, where: dict[str, Any]) -> dict[str, bytes]:
    """Return those of a folder or a repository, by name, with the code that they name.

    What is not there, or cannot be reached, is left out.
    """
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}
    found: dict[str, bytes] = {}
    waiting = list(_INPUT_FILES)
    while waiting:
        name = waiting.pop()
        path = None if name in found else cached_file(place, name, **where, **quiet)
        if path is not None:
            found[name] = Path(path).read_bytes()
            folder, slash, _ = name.rpartition("/")
            waiting += [f"{folder}{slash}{module}.py" for module in _modules_named_in(name, found[name])]
    return found


def _modules_named_in(name: str, content: bytes) -> list[str]:
    """Return the modules beside a file that it needs: a configuration by its `auto_map`, code by its imports.

    Who needs a damaged file says so; weights load without it.
    """
    text = content.decode("utf-8", errors="replace")
    if name.endswith(".py"):
        return re.findall(r"^\s*from \.(\w+) import", text, re.MULTILINE)
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return []
    named = settings.get("auto_map") if isinstance(settings, dict) else None
    groups = named.values() if isinstance(named, dict) else ()
    classes = [one for each in groups for one in (each if isinstance(each, list) else [each])]
    return [one.partition(".")[0] for one in classes if isinstance(one, str) and one and "--" not in one]


def _file_of(its_class: type) -> str:
    """Return the name of the file that defines a class, without folder and ending."""
    return its_class.__module__.rsplit(".", 1)[-1]


@dataclass
class EcgPreTrainingOutput(ModelOutput):
    """What a model returns in pretraining; what it has not is None.

    Attributes:
        loss: what is minimised: the sum of the losses below.
        cross_modal_loss: between ECGs and texts.
        uni_modal_loss: between two views of each ECG.
        reconstruction_loss: of the masked patches.
        ecg_embeds: (batch, size), unit length.
        text_embeds: (batch, size), unit length.
        reconstruction: of the input, of its shape.
        encoder_output: what the encoder returned.
    """

    loss: torch.Tensor | None = None
    cross_modal_loss: torch.Tensor | None = None
    uni_modal_loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    ecg_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    encoder_output: BaseModelOutputWithPooling | None = None


def unit_length(embeddings: torch.Tensor) -> torch.Tensor:
    """Return embeddings (batch, size) divided by their length, which is taken in float32."""
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).to(embeddings.dtype)


def check_shape(name: str, values: torch.Tensor, expected: tuple[int | None, ...], meaning: str) -> None:
    """Refuse a tensor of another shape; None stands for any size.

    Raises:
        EncoderError: says what was got and what the sizes mean.
    """
    shape = tuple(values.shape)
    fits = len(shape) == len(expected) and all(want in (None, got) for got, want in zip(shape, expected, strict=True))
    if not fits or 0 in shape:
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise EncoderError(f"Got {name} of the shape {shape}, expected ({wanted}): {meaning}.")
