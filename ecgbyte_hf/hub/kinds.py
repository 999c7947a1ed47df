"""What a folder holds: a tokenizer, a data set, an encoder or a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgHubError

#: Kind -> what the Hub calls such a repository.
REPO_TYPES = {"tokenizer": "model", "dataset": "dataset", "encoder": "model", "language_model": "model"}

#: `model_type` of the models with an encoder in front of the language model.
TWO_STAGE = "ecg_llm"


def kind_of(folder: str | Path) -> str:
    """The kind of a folder, one of `REPO_TYPES`.

    Raises:
        EcgHubError: it is none of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EcgHubError(f"{folder} is not there; expected a folder to push")
    if (folder / "adapter_config.json").is_file():
        return "language_model"
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type in _encoder_types():
        return "encoder"
    has_weights = any(folder.glob("*.safetensors"))
    if (folder / "ecg_byte.json").is_file() and not has_weights:
        return "tokenizer"
    if model_type is not None and has_weights:
        return "language_model"
    if any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet")):
        return "dataset"
    raise EcgHubError(
        f"{folder} holds nothing that can be pushed; expected what `ecgbyte train-tokenizer`, `prepare`, `encode`, "
        "`extend-llm` or `sft` wrote, an encoder saved by save_pretrained, or a data set as Parquet files"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        EcgHubError: the file is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise EcgHubError(f"{path} is not JSON ({error}); make it anew") from error
    if not isinstance(content, dict):
        raise EcgHubError(f"{path}: got {type(content).__name__}, expected an object; make it anew")
    return content


def is_two_stage(folder: str | Path) -> bool:
    """Whether it is a model with an encoder in front of the language model, or an adapter of one.

    An adapter is one by its processor, or by its base where that is a folder here.
    """
    folder = Path(folder)
    if read_json(folder / "config.json").get("model_type") == TWO_STAGE:
        return True
    if read_json(folder / "processor_config.json").get("processor_class") == "EcgLlmProcessor":
        return True
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    return isinstance(base, str) and read_json(Path(base) / "config.json").get("model_type") == TWO_STAGE


def _encoder_types() -> set[str]:
    from ecgbyte_hf.models.auto import ENCODERS

    return {encoder.stem for encoder in ENCODERS}
