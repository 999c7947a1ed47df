"""What all encoders share: how they are saved, and what pretraining returns."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from .errors_ecg_byte import EncoderError
from .weights_ecg import refuse_damaged_weights


class EcgEncoderPreTrainedModel(PreTrainedModel):
    """Base class of the encoders.

    A base model takes ECGs under the name `main_input_name` and returns `last_hidden_state` (batch, tokens,
    `config.hidden_size`) and `pooler_output` (batch, `config.pooler_output_size`). Models with a head keep it as
    `encoder`.

    Attributes:
        auto_classes: name of an Auto class -> name of the class of the same file that it loads.
    """

    base_model_prefix = "encoder"
    auto_classes: ClassVar[dict[str, str]] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as ever.

        Raises:
            EcgFileError: the weights are truncated or damaged.
        """
        with refuse_damaged_weights(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Save as ever, with the code, and with an `auto_map` that names all classes of the code.

        So `AutoModel.from_pretrained(folder, trust_remote_code=True)` loads the base model of one saved by pretraining
        too. What the map held before may point to the repository that the weights once came from.
        """
        file = _file_of(type(self))
        config = type(self.config)
        self.config.auto_map = {"AutoConfig": f"{_file_of(config)}.{config.__name__}"} | {
            auto: f"{file}.{name}" for auto, name in self.auto_classes.items()
        }
        super().save_pretrained(save_directory, *args, **kwargs)


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
