"""What is installed here, what is missing, and whether it works: `ecgbyte env`.

Nothing secret is told: of the Hub's token only whether there is one, and no environment variable by its value.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from ecgbyte_hf.provenance import versions

DISTRIBUTION = "ecgbyte-hf"
#: What the extras are for; their packages are read from the installed distribution.
EXTRAS = {
    "train": "`ecgbyte sft` and `trl sft`",
    "eval": "`ecgbyte evaluate --text-metrics`",
    "baselines": "`ecgbyte baseline`",
    "rules": "the rule beside the controls of `ecgbyte evaluate`",
    "plot": "figures",
    "interpretation": "integrated gradients of `ecgbyte plot attention` and `ecgbyte report`",
    "translate": "`ecgbyte prepare ptb_xl --translate`",
    "sampling": "`ecgbyte sample`",
    "dicom": "reading DICOM",
    "edf": "reading EDF",
    "xml": "reading aECG, MUSE and Philips XML",
    "cluster": "`ecgbyte prepare --engine`",
    "vllm": "`ecgbyte generate --backend vllm`",
    "benchmark": "the scripts in scripts/benchmark",
}


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: What was tried.
        passed: Whether it did what it should.
        detail: What came out, in one line.
    """

    name: str
    passed: bool
    detail: str

    def line(self) -> str:
        """As `ecgbyte env --check` writes it."""
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}: {self.detail}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def environment(*, with_cache: bool = False) -> dict[str, Any]:
    """What a report about a problem needs to say of a machine.

    Args:
        with_cache: Also add up the sizes of the caches, which takes a while for large ones.

    Returns:
        `versions` by distribution, `system`, `cpus`, `devices` (each with `name`, `what` and `bf16`), `extras` (each
        with `for` and the `missing` packages; none where ecgbyte-hf is not installed), `warnings`, `hub` (whether
        there is a token, and whether it is offline), and with `with_cache` `cache_bytes`.
    """
    found: dict[str, Any] = {
        "versions": versions(),
        "system": platform.platform(),
        "cpus": _num_cpus(),
        "devices": devices(),
        "extras": missing_extras(),
        "warnings": range_warnings(),
        "hub": _hub(),
    }
    if with_cache:
        found["cache_bytes"] = _cache_bytes()
    return found


def environment_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The environment for people, a line each."""
    for name, version in found["versions"].items():
        yield f"{name:20} {version or 'not installed'}"
    yield f"{'system':20} {found['system']}"
    yield f"{'CPUs':20} {found['cpus']}"
    for device in found["devices"]:
        yield f"{'device':20} {device['name']}: {device['what']}; bf16: {'yes' if device['bf16'] else 'no'}"
    if not found["devices"]:
        yield f"{'device':20} none: torch is not installed"
    for name, extra in found["extras"].items():
        if extra["missing"]:
            yield (
                f"{'missing':20} {', '.join(extra['missing'])}, for {extra['for']}: pip install 'ecgbyte-hf[{name}]'"
            )
    yield f"{'Hub':20} token: {'yes' if found['hub']['token'] else 'no'}; {_online(found['hub'])}"
    for name, size in found.get("cache_bytes", {}).items():
        yield f"{'cache':20} {name}: {size / 1e9:.2f} GB"
    for warning in found["warnings"]:
        yield f"{'warning':20} {warning}"


def devices() -> list[dict[str, Any]]:
    """Devices that torch can compute on, the CPU last; none without torch."""
    try:
        import torch
    except ImportError:
        return []
    found = [
        {
            "name": f"cuda:{index}",
            "what": torch.cuda.get_device_name(index),
            "bf16": bool(torch.cuda.is_bf16_supported()),
        }
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "what": "Apple GPU", "bf16": _computes_bf16("mps")})
    for index in range(torch.xpu.device_count() if torch.xpu.is_available() else 0):
        found.append({"name": f"xpu:{index}", "what": torch.xpu.get_device_name(index), "bf16": True})
    capability = torch.backends.cpu.get_cpu_capability()
    return [*found, {"name": "cpu", "what": f"{platform.machine()}, {capability}", "bf16": _computes_bf16("cpu")}]


def range_warnings() -> list[str]:
    """What is installed outside the range that ecgbyte-hf's own metadata gives, or is needed and not there."""
    warnings = []
    for requirement in _requirements(None):
        version = _version(requirement.name)
        if version is None:
            warnings.append(f"{requirement.name} is not installed, and ecgbyte-hf needs it")
        elif requirement.specifier and not requirement.specifier.contains(version, prereleases=True):
            warnings.append(f"{requirement.name} {version} is installed, expected {requirement.specifier}")
    for name in EXTRAS:
        for requirement in _requirements(name):
            version = _version(requirement.name)
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                warnings.append(f"{requirement.name} {version} is installed, expected {requirement.specifier}")
    if _version(DISTRIBUTION) is None:
        warnings.append(
            "ecgbyte-hf runs from a folder and is not installed: its ranges and extras are not known; pip install -e ."
        )
    return list(dict.fromkeys(warnings))


def missing_extras() -> dict[str, dict[str, Any]]:
    """Each extra of the installed distribution with what it is for and what of it is not there."""
    if _version(DISTRIBUTION) is None:
        return {}
    return {
        name: {
            "for": purpose,
            "missing": [one.name for one in _requirements(name) if _version(one.name) is None],
        }
        for name, purpose in EXTRAS.items()
    }


def check_environment(found: Mapping[str, Any]) -> list[Check]:
    """Run the core against its twin in Python, and a tiny model forward and backward on each device.

    Args:
        found: What `environment` returned.
    """
    checks = [_tried("core", check_core)]
    for device in found["devices"]:
        for dtype in ("float32", "bfloat16") if device["bf16"] else ("float32",):
            checks.append(_tried(f"{device['name']}, {dtype}", partial(check_device, device["name"], dtype)))
    if not found["devices"]:
        checks.append(Check("devices", False, "torch is not installed"))
    return checks


def check_core() -> str:
    """Train and encode by the Rust core, and compare with the plain definition.

    Returns:
        What was compared.

    Raises:
        ArithmeticError: ids or symbols differ.
    """
    import numpy as np

    import rust_bpe

    rng = np.random.default_rng(0)
    records = [np.abs(np.cumsum(rng.integers(-1, 2, 500))).astype(np.uint8) % 26 for _ in range(4)]
    merges = rust_bpe.train(records, 50)
    core = rust_bpe.Bpe(merges)
    for record in records:
        ids = core.encode_greedy(record)
        if ids.tolist() != greedy_twin(record.tolist(), merges.tolist()):
            raise ArithmeticError("the core's greedy ids are not those of its twin")
        if core.decode(ids).tolist() != record.tolist():
            raise ArithmeticError("decoded ids do not give the symbols back")
    return f"{len(merges)} merges, {len(records)} records: ids and symbols as the twin in Python has them"


def greedy_twin(symbols: Sequence[int], merges: Sequence[Sequence[int]], num_symbols: int = 26) -> list[int]:
    """The longest token that matches, from left to right, in Python.

    Example:
        >>> greedy_twin([0, 1, 0, 1, 2], [[0, 1], [26, 2]])
        [26, 27]
    """
    tokens: list[tuple[int, ...]] = [(symbol,) for symbol in range(num_symbols)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    ids_of = {token: index for index, token in enumerate(tokens)}
    longest = max(map(len, tokens))
    ids, place = [], 0
    while place < len(symbols):
        ends = range(min(len(symbols), place + longest), place, -1)
        end = next(end for end in ends if tuple(symbols[place:end]) in ids_of)
        ids.append(ids_of[tuple(symbols[place:end])])
        place = end
    return ids


def check_device(name: str, dtype: str) -> str:
    """A tiny language model forward and backward on a device.

    Returns:
        Its loss.

    Raises:
        ArithmeticError: loss or gradient are not finite, or the gradient is zero.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
        model: Any = LlamaForCausalLM(config)
    model.to(device=name, dtype=getattr(torch, dtype))
    ids = torch.arange(32, device=name).reshape(2, 16)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    size = sum(float(one.grad.float().square().sum()) for one in model.parameters() if one.grad is not None)
    if not (math.isfinite(loss.item()) and math.isfinite(size) and size > 0.0):
        raise ArithmeticError(f"got the loss {loss.item()} and a squared gradient of {size}")
    return f"forward and backward, loss {loss.item():.3f}"


def _tried(name: str, run: Callable[[], str]) -> Check:
    try:
        return Check(name, True, run())
    # Whatever fails here is the finding: drivers, compiled extensions and memory fail in ways of their own.
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _computes_bf16(device: str) -> bool:
    import torch

    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return bool((ones @ ones).sum().item() == 8.0)
    except (RuntimeError, TypeError):  # how a back end says that it has no such type
        return False


def _num_cpus() -> int:
    """CPUs that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements(extra: str | None) -> list[Any]:
    """What the installed distribution needs; with an extra, what that adds."""
    from packaging.requirements import Requirement

    try:
        stated = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(text) for text in stated]
    plain = [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]
    if extra is None:
        return plain
    return [one for one in parsed if one not in plain and one.marker and one.marker.evaluate({"extra": extra})]


def _hub() -> dict[str, bool]:
    from huggingface_hub import constants, get_token

    return {"token": get_token() is not None, "offline": bool(constants.HF_HUB_OFFLINE)}


def _online(hub: Mapping[str, bool]) -> str:
    return "offline (HF_HUB_OFFLINE)" if hub["offline"] else "online"


def _cache_bytes() -> dict[str, int]:
    from datasets import config
    from huggingface_hub import constants

    return {
        "models and data sets of the Hub": _size(Path(constants.HF_HUB_CACHE)),
        "built data sets": _size(Path(config.HF_DATASETS_CACHE)),
    }


def _size(folder: Path) -> int:
    """Bytes of all files; a link's file is counted where it lies."""
    return sum(place.stat().st_size for place in folder.rglob("*") if place.is_file() and not place.is_symlink())
