"""Whether a model on the Hub is the base that an adapter was trained on, where that is a folder here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.fingerprints import text_tokenizer_fingerprint
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER
from ecgbyte_hf.hub.private_data import scrubbed_json
from ecgbyte_hf.models.errors_ecg_byte import EcgHubError
from ecgbyte_hf.models.vocabulary_ecg_byte import ECG_BYTE_FILE
from ecgbyte_hf.provenance import read_object

_COMPARED = ("config.json", "tokenizer.json", f"{ECG_SUBFOLDER}/{ECG_BYTE_FILE}")
# What saving a model once more may write anew in its config.json.
_OF_SAVING = frozenset("_name_or_path architectures auto_map dtype torch_dtype transformers_version use_cache".split())
_SHA256_LENGTH = 64


def local_base(adapter: Path) -> Path | None:
    """The folder that an adapter names as its base; `None` where that is none, or not here.

    A name such as `runs/llama-ecg` is looked for where the adapter lies, too: it may have been trained from there.
    """
    noted = (read_object(adapter / "adapter_config.json") or {}).get("base_model_name_or_path")
    if not isinstance(noted, str) or not noted:
        return None
    here = adapter.resolve()
    places = (Path(noted), *(place / noted for place in (here, *here.parents)))
    return next((place for place in places if place.is_dir()), None)


def compare_base(api: Any, base: str, revision: str | None, folder: Path, there: Mapping[str, str]) -> list[str]:
    """Compare a model on the Hub with the folder that an adapter was trained on; no weights are downloaded.

    Args:
        api: A `huggingface_hub.HfApi`.
        base: `USER/NAME`.
        revision: Of it.
        folder: What the adapter was trained on.
        there: Files on the Hub -> their hashes as the Hub notes them.

    Returns:
        What could not be compared, a line each.

    Raises:
        EcgHubError: a part is another one.
    """
    for name in _COMPARED:
        if name in there and (folder / name).is_file():
            found = Path(api.hf_hub_download(base, name, revision=revision))
            if _meaning(found) != _meaning(folder / name):
                raise _other_base(base, name, folder)
    ours = sorted(path.name for path in folder.glob("model*.safetensors"))
    theirs = sorted(name for name in there if re.fullmatch(r"model[^/]*\.safetensors", name))
    if not ours or ours != theirs:
        return [f"the weights of {base} could not be compared with those of {folder.name}: they lie in other files"]
    for name in ours:
        if not is_the_same(folder / name, there[name]):
            raise _other_base(base, name, folder)
    return []


def is_the_same(path: Path, noted: str) -> bool:
    """Whether a file has the hash that the Hub notes: SHA-256 of a large one, git's SHA-1 of another."""
    if len(noted) == _SHA256_LENGTH:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == noted
    header = f"blob {path.stat().st_size}\0".encode()
    return hashlib.sha1(header + path.read_bytes(), usedforsecurity=False).hexdigest() == noted


def hashes_there(api: Any, repo_id: str, revision: str | None, *, repo_type: str = "model") -> dict[str, str]:
    """The files of a repository, and the hash that the Hub notes of each: see `is_the_same`."""
    return {
        entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
        for entry in api.list_repo_tree(repo_id, revision=revision, recursive=True, repo_type=repo_type)
        if hasattr(entry, "blob_id")
    }


def _meaning(path: Path) -> Any:
    """What a file says, without what depends on who saved it and when."""
    if path.name == "tokenizer.json":
        return text_tokenizer_fingerprint(path.parent)
    clean, _ = scrubbed_json(path)  # as it went to the Hub
    return _without(json.loads(path.read_bytes() if clean is None else clean), _OF_SAVING)


def _without(content: Any, names: frozenset[str]) -> Any:
    if not isinstance(content, dict):
        return content
    return {name: _without(value, names) for name, value in content.items() if name not in names}


def _other_base(base: str, name: str, folder: Path) -> EcgHubError:
    return EcgHubError(
        f"{base} is not the base that the adapter was trained on: its {name} is another one than that of the folder "
        f"{folder.name} here; push that folder first and name it with --base, or push one whole model with --merge"
    )
