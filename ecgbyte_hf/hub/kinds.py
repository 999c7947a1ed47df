"""What a folder holds: a tokenizer, a data set, an encoder or a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecgbyte_hf.data.prompts import ECG_SUBFOLDER
from ecgbyte_hf.models.auto import ENCODERS
from ecgbyte_hf.models.errors_ecg_byte import EcgHubError
from ecgbyte_hf.models.vocabulary_ecg_byte import ECG_BYTE_FILE
from ecgbyte_hf.provenance import read_object

#: Kind -> what the Hub calls such a repository.
REPO_TYPES = {"tokenizer": "model", "dataset": "dataset", "encoder": "model", "language_model": "model"}

#: `model_type` of the models with an encoder in front of the language model.
TWO_STAGE = "ecg_llm"


def kind_of(folder: str | Path) -> str:
    """The kind of a folder, one of `REPO_TYPES`; whether it is complete is not looked at.

    Raises:
        EcgHubError: it is none of them.
        EcgDataError: its config.json is not JSON.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EcgHubError(f"{folder} is not there; expected the folder of a tokenizer, data set, encoder or model")
    if (folder / ECG_BYTE_FILE).is_file():
        return "tokenizer"
    if (folder / "adapter_config.json").is_file() or (folder / ECG_SUBFOLDER).is_dir():
        return "language_model"
    model_type = _entry(folder / "config.json", "model_type")
    if model_type in {encoder.stem for encoder in ENCODERS}:
        return "encoder"
    if model_type:
        return "language_model"
    if any(folder.rglob("*.parquet")):
        return "dataset"
    raise EcgHubError(
        f"{folder} holds no {ECG_BYTE_FILE}, no config.json of a model and no Parquet file; expected what `ecgbyte "
        "train-tokenizer`, `prepare`, `encode`, `extend-llm` or `sft` wrote, an encoder saved by save_pretrained, or "
        "a data set as Parquet files"
    )


def is_two_stage(folder: str | Path) -> bool:
    """Whether it is a model with an encoder in front of the language model, or an adapter of one.

    An adapter is one by its processor, or by its base where that is a folder here.
    """
    folder = Path(folder)
    if _entry(folder / "config.json", "model_type") == TWO_STAGE:
        return True
    if _entry(folder / "processor_config.json", "processor_class") == "EcgLlmProcessor":
        return True
    base = _entry(folder / "adapter_config.json", "base_model_name_or_path")
    return isinstance(base, str) and _entry(Path(base) / "config.json", "model_type") == TWO_STAGE


def _entry(path: Path, name: str) -> Any:
    return (read_object(path) or {}).get(name)
