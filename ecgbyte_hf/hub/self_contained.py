"""Whether a stranger can use a folder with nothing else: what is missing is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from ecgbyte_hf.data.hub_folder import is_repo_id
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, PROMPT_FILE, EcgPrompt
from ecgbyte_hf.hub.kinds import TWO_STAGE
from ecgbyte_hf.models.errors_ecg_byte import EcgError
from ecgbyte_hf.provenance import read_object

#: Files that a repository gets, by their names there.
Files = Mapping[str, Path]
# What an ECG's way to ids depends on, and which file says it.
_TOKENIZER_FILES = {
    "ecg_byte.json": "vocabulary, calibration, sampling rate and lead order",
    "preprocessor_config.json": "the cleaning of recordings",
    "config.json": "what AutoTokenizer finds the tokenizer by",
    "tokenizer_config.json": "the tokenizer's class and special tokens",
}
_PROMPT = "the wording of prompts and their length budget"
_RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.MULTILINE)
_ECG_TOKEN = re.compile(r"<\|ecg_\d+\|>")


def missing_parts(kind: str, files: Files) -> list[str]:
    """What keeps a folder of this kind from being complete, a line each; empty if nothing does."""
    checks: dict[str, Callable[[Files], list[str]]] = {
        "tokenizer": lambda files: _tokenizer_problems(files, ""),
        "dataset": _dataset_problems,
        "encoder": _encoder_problems,
        "language_model": _language_model_problems,
    }
    return [*checks[kind](files), *_code_problems(files)]


def _tokenizer_problems(files: Files, prefix: str) -> list[str]:
    problems = [
        f"{prefix}{name} is missing: {what}"
        for name, what in _TOKENIZER_FILES.items()
        if f"{prefix}{name}" not in files
    ]
    if problems:
        return problems
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

    try:
        EcgByteProcessor.from_pretrained(files[f"{prefix}ecg_byte.json"].parent)
    except EcgError as error:
        return [f"{prefix or 'the folder '}does not load: {error}"]
    return []


def _dataset_problems(files: Files) -> list[str]:
    tables = {name: path for name, path in files.items() if name.endswith(".parquet")}
    if not tables:
        return ["there is no Parquet file; write the rows with `datasets`' to_parquet"]
    problems = []
    for name, path in tables.items():
        columns = set(pq.read_schema(path).names)
        # Raw signals are in the file's own integers, with their gain; what else is called so was cleaned.
        if "signal" in columns and "gain" not in columns and "preprocessor_config.json" not in files:
            problems.append(f"{name} has cleaned signals, and no preprocessor_config.json says how they were cleaned")
        if columns & {"input_ids", "completion"} and "encode.json" not in files:
            problems.append(f"{name} has rows for a model, and no encode.json says how they were written")
    return problems


def _encoder_problems(files: Files) -> list[str]:
    problems = _weights_problems(files, "model")
    if "config.json" not in files:
        return [*problems, "config.json is missing: the encoder's shape; save the model by save_pretrained"]
    preprocessor = _object(files, "preprocessor_config.json")
    if not {"feature_extractor_type", "image_processor_type"} & set(preprocessor):
        problems.append(
            "preprocessor_config.json is missing: how a recording becomes the encoder's input; save the "
            "EcgByteFeatureExtractor or EcgImageProcessor that it was trained with in the folder"
        )
    if "auto_map" not in _object(files, "config.json"):
        problems.append(
            "config.json has no auto_map, so AutoModel loads it nowhere but here; save the model by save_pretrained"
        )
    return problems


def _language_model_problems(files: Files) -> list[str]:
    is_adapter = "adapter_config.json" in files
    problems = _weights_problems(files, "adapter_model" if is_adapter else "model")
    if is_adapter:
        base = _object(files, "adapter_config.json").get("base_model_name_or_path")
        if not isinstance(base, str) or not is_repo_id(base) or Path(base).exists():
            problems.append(
                f"the adapter's base {PurePosixPath(str(base)).name!r} is a folder here: push that extended base "
                "first and give --base USER/BASE, or push one whole model with --merge"
            )
    if has_encoder(files):
        return [*problems, *_two_stage_problems(files)]
    if not is_adapter and "config.json" not in files:
        problems.append("config.json is missing: the model's shape; save the model by save_pretrained")
    if not {"tokenizer.json", "tokenizer_config.json"} <= set(files):
        problems.append("tokenizer.json or tokenizer_config.json is missing: the language model's own tokenizer")
    prefix = f"{ECG_SUBFOLDER}/"
    of_ecg = _tokenizer_problems(files, prefix)
    if f"{prefix}{PROMPT_FILE}" not in files:
        of_ecg.append(f"{prefix}{PROMPT_FILE} is missing: {_PROMPT}")
    if of_ecg:
        return [
            *problems,
            *of_ecg,
            f"name the extended base, which has {prefix}, with --ecg FOLDER or --ecg USER/NAME",
        ]
    return [*problems, *_prompt_problems(files, prefix)]


def has_encoder(files: Files) -> bool:
    """Whether files are those of a model with an encoder in front of the language model, or of its adapter."""
    config = _object(files, "config.json")
    processor = _object(files, "processor_config.json")
    return config.get("model_type") == TWO_STAGE or processor.get("processor_class") == "EcgLlmProcessor"


def _object(files: Files, name: str) -> dict[str, Any]:
    """What a JSON file holds; empty without the file."""
    return (read_object(files[name]) or {}) if name in files else {}


def _two_stage_problems(files: Files) -> list[str]:
    """An encoder in front of a language model: its processor cleans recordings and writes prompts."""
    problems = []
    if "processor_config.json" not in files:
        problems.append("processor_config.json is missing: how recordings and questions become the model's input")
    if not {"tokenizer.json", "tokenizer_config.json"} <= set(files):
        problems.append("tokenizer.json or tokenizer_config.json is missing: the language model's own tokenizer")
    if "config.json" in files and "auto_map" not in _object(files, "config.json"):
        problems.append("config.json has no auto_map; save the model by save_pretrained")
    if PROMPT_FILE not in files:
        return [*problems, f"{PROMPT_FILE} is missing: {_PROMPT}; name the base's folder with --ecg"]
    try:
        EcgPrompt.load(files[PROMPT_FILE].parent)
    except EcgError as error:
        problems.append(f"{PROMPT_FILE} does not load: {error}")
    return problems


def _prompt_problems(files: Files, prefix: str) -> list[str]:
    try:
        EcgPrompt.load(files[f"{prefix}{PROMPT_FILE}"].parent)
    except EcgError as error:
        return [f"{prefix}{PROMPT_FILE} does not load: {error}"]
    if "tokenizer.json" not in files:
        return []
    known = len(ecg_tokens(files["tokenizer.json"]))
    from ecgbyte_hf.models.vocabulary_ecg_byte import ALPHABET, read_ecg_byte_file

    wanted = len(ALPHABET) + len(read_ecg_byte_file(files[f"{prefix}ecg_byte.json"])["merges"])
    if known != wanted:
        return [f"tokenizer.json knows {known} ECG tokens and {prefix}ecg_byte.json has {wanted}: of different models"]
    return []


def ecg_tokens(tokenizer: Path) -> set[str]:
    """The ECG tokens that a `tokenizer.json` knows."""
    return set(_ECG_TOKEN.findall(tokenizer.read_text(encoding="utf-8")))


def _weights_problems(files: Files, stem: str) -> list[str]:
    """Weights that a loader would not find or not read: of every file the header is looked into, never the tensors."""
    index = f"{stem}.safetensors.index.json"
    if f"{stem}.safetensors" not in files and index not in files:
        return [f"{stem}.safetensors is missing: the weights"]
    problems: list[str] = []
    tensors: dict[str, frozenset[str]] = {}
    for name in (name for name in files if name.endswith(".safetensors")):
        tensors[name] = _tensor_names(files[name])
        if not tensors[name]:
            problems.append(f"{name} is truncated, damaged or empty: save or download it again")
    if index in files:
        problems += _shard_problems(index, _object(files, index).get("weight_map"), tensors)
    return problems


def _tensor_names(path: Path) -> frozenset[str]:
    """The tensors that a file holds to its end; none where it cannot be loaded."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            return frozenset(weights.keys())
    except (SafetensorError, OSError):  # an empty file cannot be mapped
        return frozenset()


def _shard_problems(index: str, places: Any, tensors: Mapping[str, frozenset[str]]) -> list[str]:
    """What an index promises and the files beside it lack.

    Args:
        index: Its name.
        places: Its `weight_map`: tensor -> file.
        tensors: Of each file that is there.
    """
    if not isinstance(places, dict) or not places:
        return [f"{index} has no weight_map, which says where the weights are: save the model again"]
    wanted: dict[str, set[str]] = {}
    for tensor, name in places.items():
        wanted.setdefault(str(name), set()).add(tensor)
    again = "save or download the model again"
    problems = [f"{index} names {name}, which is missing: {again}" for name in wanted if name not in tensors]
    for name, expected in wanted.items():
        lacking = sorted(expected - tensors[name]) if tensors.get(name) else []
        if lacking:
            problems.append(f"{name} lacks {len(lacking)} tensors that {index} names, such as {lacking[0]}: {again}")
    return problems


def _code_problems(files: Files) -> list[str]:
    """Code that a stranger's `trust_remote_code=True` would look for elsewhere, or not find."""
    problems = []
    for name, path in files.items():
        if PurePosixPath(name).name not in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
            continue
        for reference in _references((read_object(path) or {}).get("auto_map", {})):
            if "--" in reference:
                problems.append(
                    f"{name}: its auto_map names the code of {reference.partition('--')[0]}; save anew by "
                    "save_pretrained, so that the code is in the folder"
                )
            elif (missing := _missing_code(files, str(PurePosixPath(name).parent), reference)) is not None:
                problems.append(f"{name}: its auto_map needs {missing}, which is not in the folder")
    return problems


def _references(auto_map: Any) -> list[str]:
    """The classes that an `auto_map` names, as `module.Class`."""
    values = auto_map.values() if isinstance(auto_map, dict) else []
    listed = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return [each for each in listed if isinstance(each, str)]


def _missing_code(files: Files, folder: str, reference: str) -> str | None:
    """The first file that a class needs and the folder lacks; its relative imports are followed."""
    waiting, seen = [reference.partition(".")[0]], set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        name = str(PurePosixPath(folder) / f"{module}.py")
        if name not in files:
            return name
        waiting += _RELATIVE_IMPORT.findall(files[name].read_text(encoding="utf-8"))
    return None
