"""Hashes of what a model's files hold, by which a report says which model it is about."""

from __future__ import annotations

import hashlib
import json
import mmap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.ecg_parts import EcgParts
from ecgbyte_hf.data.prompts import PROMPT_FILE
from ecgbyte_hf.models.errors_ecg_byte import EcgFileError
from ecgbyte_hf.models.vocabulary_ecg_byte import ECG_BYTE_FILE
from ecgbyte_hf.provenance import read_object

_HEADER_LENGTH = 8
# Half a header of a damaged file may say that it has any length.
_LONGEST_HEADER = 100_000_000


def weights_fingerprint(folder: str | Path) -> str | None:
    """SHA-256 of all tensors of a folder's own safetensors files, by their names; `None` where it has none.

    It is the same however the tensors are divided into files, and whatever is noted beside them.

    Raises:
        EcgFileError: a file is truncated or damaged.
    """
    places: dict[str, tuple[Path, dict[str, Any], int]] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        header, start = _header(path)
        places |= {name: (path, tensor, start) for name, tensor in header.items() if name != "__metadata__"}
    if not places:
        return None
    digest = hashlib.sha256()
    for name in sorted(places):
        path, tensor, start = places[name]
        digest.update(json.dumps([name, tensor["dtype"], tensor["shape"]]).encode())
        first, last = tensor["data_offsets"]
        _add_bytes(digest, path, start + first, start + last)
    return digest.hexdigest()


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH), "little")
        start = _HEADER_LENGTH + length
        if length > _LONGEST_HEADER or start > size:
            raise EcgFileError(f"{path}: its weights cannot be read; it is truncated or damaged: save it again")
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EcgFileError(f"{path}: no header of safetensors; it is damaged: save it again") from error
    if start + max(ends, default=0) > size:
        raise EcgFileError(f"{path}: its weights end before they should; it is truncated: save or download it again")
    return header, start


def _add_bytes(digest: Any, path: Path, first: int, last: int) -> None:
    if first == last:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        with memoryview(content) as view:
            digest.update(view[first:last])


def text_tokenizer_fingerprint(folder: str | Path) -> str | None:
    """SHA-256 of what decides the ids of a text in `tokenizer.json`; `None` without that file.

    Padding and truncation, which a call may leave behind there, are no part of it.
    """
    content = read_object(Path(folder) / "tokenizer.json")
    if content is None:
        return None
    parts = {name: value for name, value in content.items() if name not in ("padding", "truncation")}
    return _json_hash(parts)


def ecg_tokenizer_fingerprint(folder: str | Path) -> str | None:
    """The `fingerprint` of the ECG tokenizer in a folder; `None` without one.

    Raises:
        EcgError: it does not load.
    """
    if not (Path(folder) / ECG_BYTE_FILE).is_file():
        return None
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

    tokenizer = EcgByteTokenizer.from_pretrained(folder)
    return str(tokenizer.fingerprint)


def ecg_fingerprint(parts: EcgParts) -> str | None:
    """The `fingerprint` of what ECGs go through on their way to a language model; `None` where it is not there.

    Raises:
        EcgError: it does not load.
    """
    if not parts.has_encoder:
        return ecg_tokenizer_fingerprint(parts.folder)
    return str(parts.ecg_tokenizer(parts.load_processor()).fingerprint)


def model_fingerprints(
    folder: str | Path, *, base: str | Path | None = None, parts: EcgParts | None = None
) -> dict[str, str]:
    """What a language model's answers depend on, each part as a hash.

    Args:
        folder: The model, or an adapter.
        base: The adapter's base model, where it is here.
        parts: The ECG's parts; those of the folder by default.

    Returns:
        `weights`, `base_weights`, `tokenizer` of texts, `ecg` (what ECGs go through on their way to the model) and
        `prompt`, each as far as it is there.

    Raises:
        EcgError: a part does not load.
    """
    folder = Path(folder)
    parts = parts or EcgParts.find(folder)
    has_own_tokenizer = base is None or (folder / "tokenizer.json").is_file()
    found = {
        "weights": weights_fingerprint(folder),
        "base_weights": None if base is None else weights_fingerprint(base),
        "tokenizer": text_tokenizer_fingerprint(folder if has_own_tokenizer else str(base)),
        "ecg": ecg_fingerprint(parts),
    }
    if (parts.folder / PROMPT_FILE).is_file():
        found["prompt"] = _json_hash(asdict(parts.load_prompt()))
    return {name: value for name, value in found.items() if value is not None}


def _json_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
