"""What made a result: versions, arguments, seeds. Every result file carries it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

PACKAGES = (
    "ecgbyte-hf",
    "ecgbyte-rust-bpe",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "peft",
    "trl",
    "accelerate",
    "evaluate",
    "huggingface-hub",
    "wfdb",
    "neurokit2",
    "numpy",
    "scipy",
    "PyWavelets",
    "scikit-learn",
)


def versions() -> dict[str, str | None]:
    """Installed versions by distribution name; `None` where a package is absent."""
    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def provenance(command: str, arguments: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """The block to store beside a result.

    Args:
        command: Name of the command or function.
        arguments: Its arguments; values that JSON does not know are stored as text.
        extra: Data hashes, seeds, counts.
    """
    plain = json.loads(json.dumps(arguments, default=str, sort_keys=True))
    return {"command": command, "arguments": plain, "versions": versions(), **extra}


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON beside the target and rename: a killed job never leaves half a file under the final name."""
    return write_text(path, json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def read_object(path: str | Path) -> dict[str, Any] | None:
    """The object in a JSON file of an earlier run; `None` if there is no such file.

    Raises:
        EcgDataError: the file is not JSON.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise EcgDataError(f"{path}: not JSON ({error}); delete it, make it anew, or choose another folder") from error
    return content if isinstance(content, dict) else {}


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text beside the target and rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
