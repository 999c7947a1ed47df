"""Reads the checkpoints that the paper's code wrote, `best_model.pth`.

All of its scripts save `{"model": state_dict, "epoch": ...}` with `torch.save`, the state dictionary of the bare model
(of `.module` in distributed training). The first part of a key says what it belongs to:

| kind | stage | keys |
| --- | --- | --- |
| ecg-byte | | `llm.` + the language model |
| clip | 1 | `clip.` + `CLIPModel` |
| vit | 1 | `vit.` + `ViTForMaskedImageModeling` |
| clip-vit | 1 | `clip.clip.` + `CLIPModel`, `vit.vit.` + `ViTForMaskedImageModeling` |
| resnet | 1 | `resnet.` + the ResNet, `lm.` + `BertModel`, MERL's `downconv`, `att_pool_head`, `linear1/2`, `proj_t` |
| clip, vit | 2 | as in stage 1, `image_projection`, `llm.` |
| clip-vit | 2 | as in stage 1, `clip_projection`, `vit_projection`, `visual_fusion`, `llm.` |
| resnet | 2 | `resnet.resnet.` + the ResNet, `image_projection`, `llm.` |

With LoRA the language model's keys begin with `llm.base_model.model.`, and an adapted layer has `base_layer`,
`lora_A.default` and `lora_B.default`.

That is the layout of the released code (willxxy/ECG-Byte at 66dcde7, with transformers 4 and peft 0.13). The authors
have released no checkpoint, so none was tried: tests build state dictionaries of this layout.

The file is read by `torch.load(weights_only=True)`, which knows tensors and plain containers only. Every key is used,
or on the list of those that hold nothing a model needs; any other is an error.
"""

from __future__ import annotations

import hashlib
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgbyte_hf.models.errors_ecg_byte import EcgFileError, EncoderError

if TYPE_CHECKING:
    import torch

#: Of the pickle inside a checkpoint, which only holds names, shapes and types; that of Llama-3.2-1B has some 100 kB.
LARGEST_PICKLE = 16 << 20
#: Names of the state dictionary in what was saved.
STATE_NAMES = ("model", "model_state_dict", "state_dict")
#: Counters and constants that older versions of transformers kept among the weights, and the ResNet's classifier,
#: which the paper's code makes and never uses.
HARMLESS = (
    r"(^|\.)position_ids$",
    r"(^|\.)embeddings\.token_type_ids$",
    r"(^|\.)rotary_emb\.inv_freq$",
    r"\.attn\.(bias|masked_bias)$",
    r"(^|\.)resnet\.linear\.(weight|bias)$",
)
_NAMED_IN_ERRORS = 10
_SHAPE_OPTIONS = "--encoder-config, or --base for a language model"
_OTHER_NAMES = (
    ". If it was saved with other names than those of transformers 4 and 5, load it where they are known and save it "
    "with their names"
)
# What `torch.save` writes of tensors. The reader of torch admits more, among it `bytearray`, which makes as many bytes
# as it is told.
_TENSOR_GLOBALS = re.compile(
    r"torch\._utils (_rebuild_tensor_v2|_rebuild_parameter)|torch \w+Storage|torch\.storage \w+|"
    r"collections OrderedDict"
)


@dataclass
class Checkpoint:
    """The tensors of a checkpoint that nothing has been made of yet.

    Attributes:
        where: The file, for messages.
        tensors: By key; converters take them out.
        epoch: Of training, if the file says so.
        sha256: Of the file.
        dropped: Keys that hold nothing a model needs.
    """

    where: str
    tensors: dict[str, torch.Tensor]
    epoch: int | None = None
    sha256: str = ""
    dropped: list[str] = field(default_factory=list)

    def take(self, prefix: str) -> dict[str, torch.Tensor]:
        """Take out the tensors whose keys begin with a prefix, and cut it off."""
        keys = [key for key in self.tensors if key.startswith(prefix)]
        return {key.removeprefix(prefix): self.tensors.pop(key) for key in keys}

    def drop_harmless(self) -> None:
        """Take out what no model needs, and note it."""
        for key in [key for key in self.tensors if any(re.search(pattern, key) for pattern in HARMLESS)]:
            del self.tensors[key]
            self.dropped.append(key)

    def check_empty(self, what: str) -> None:
        """Refuse a checkpoint of which something is left.

        Args:
            what: What it was read as.

        Raises:
            EcgFileError: keys are left; the message lists them.
        """
        if self.tensors:
            raise EcgFileError(
                f"{self.where}: {len(self.tensors)} keys do not belong to {what}: {_names(self.tensors)}. Check "
                "--kind and --stage"
            )


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Raises:
        EcgFileError: no checkpoint of `torch.save`, damaged, one that asks for more than tensors, or without a state
            dictionary; or a tensor with NaN or infinity.
    """
    where = str(path)
    path = Path(path)
    if not path.is_file():
        raise EcgFileError(f"{where}: no such file; give the best_model.pth that the paper's code wrote")
    _check_archive(path)
    _check_globals(path)
    content = _load(path)
    epoch = content.get("epoch") if isinstance(content, dict) else None
    state = _state_of(content, where)
    _check_tensors(state, where)
    checkpoint = Checkpoint(where, state, epoch if type(epoch) is int else None, _sha256(path))
    checkpoint.drop_harmless()
    return checkpoint


def load_exactly(module: Any, tensors: Mapping[str, torch.Tensor], where: str, prefix: str) -> None:
    """Give a module weights that must be all of its own, in its dtype.

    Args:
        module: The module.
        tensors: Its state dictionary.
        where: The checkpoint, for messages.
        prefix: Of the keys there.

    Raises:
        EncoderError: a key is missing, unknown, or of another shape; the message lists them.
    """
    own = module.state_dict()
    if not tensors:
        raise EncoderError(
            f"{where}: no keys {prefix}*, where {type(module).__name__} should be; check --kind and --stage"
        )
    missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    if missing or unknown:
        raise EncoderError(
            f"{where}: of {type(module).__name__} ({prefix}*) {len(missing)} keys are missing ({_names(missing)}) and "
            f"{len(unknown)} unknown ({_names(unknown)}); check --kind and --stage, and that the model's shape is "
            f"that of the checkpoint ({_SHAPE_OPTIONS}){_OTHER_NAMES if missing and unknown else ''}"
        )
    for key, tensor in tensors.items():
        if tensor.shape != own[key].shape:
            raise EncoderError(
                f"{where}: {prefix}{key} has the shape {tuple(tensor.shape)}, expected {tuple(own[key].shape)}; give "
                f"the configuration of the model that was trained ({_SHAPE_OPTIONS})"
            )
    module.load_state_dict(dict(tensors))


def _names(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - _NAMED_IN_ERRORS} more" if len(names) > _NAMED_IN_ERRORS else ""
    return (", ".join(name[:100] for name in names[:_NAMED_IN_ERRORS]) + more) or "none"


def _check_archive(path: Path) -> None:
    """Refuse what is no archive of `torch.save`, or one that unpacks to more than it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    # On a damaged archive anything may fail in `zipfile` (BadZipFile, ValueError, NotImplementedError were seen).
    except Exception as error:
        raise EcgFileError(
            f"{path}: not a checkpoint as torch.save has written since version 1.6 ({type(error).__name__}); copy or "
            "download it again, or give a tokenizer's .pkl to `ecgbyte convert tokenizer`"
        ) from error
    packed = next((member.filename for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None or sum(member.file_size for member in members) > path.stat().st_size:
        raise EcgFileError(f"{path}: the archive is compressed or its sizes are wrong, which torch.save never does")
    pickles = [member for member in members if member.filename.endswith("data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
        raise EcgFileError(
            f"{path}: not a checkpoint of torch.save; expected one data.pkl below {LARGEST_PICKLE} bytes"
        )


def _check_globals(path: Path) -> None:
    """Refuse a pickle that asks for anything but tensors, before anything reads it."""
    with zipfile.ZipFile(path) as archive:
        content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    try:
        asked = next(filter(None, map(_refused, pickletools.genops(content))), None)
    except Exception as error:  # on damaged opcodes `pickletools` raises ValueError, IndexError and others
        raise _no_tensors(path, type(error).__name__) from error
    if asked is not None:
        raise _no_tensors(path, f"the pickle in it asks for {asked}")


def _refused(operation: tuple[Any, Any, Any]) -> str | None:
    """What an operation of a pickle asks for that no tensor needs."""
    code, argument, _ = operation
    if code.name == "GLOBAL":
        return None if _TENSOR_GLOBALS.fullmatch(argument) else str(argument).replace(" ", ".")[:200]
    is_other = code.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
    return f"{code.name} {argument or ''}".strip().replace(" ", ".", 2)[:200] if is_other else None


def _no_tensors(path: Path, what: str) -> EcgFileError:
    return EcgFileError(
        f"{path}: not a checkpoint of tensors only ({what}). Nothing of it was run; do not open it with other "
        "programs, and copy or download it again if it should be one"
    )


def _load(path: Path) -> Any:
    import torch

    try:
        # Mapped: a checkpoint of a language model is as large as the model.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # On a damaged or hostile file anything may fail in `torch` (UnpicklingError, RuntimeError, EOFError, KeyError,
    # AttributeError were seen); none of it may reach the user as a traceback.
    except Exception as error:
        asked = re.search(r"GLOBAL (\S+)", str(error)) or re.search(
            r"[Uu]nsupported (?:class|operand|global) (\S+)", str(error)
        )
        what = f"the pickle in it asks for {asked[1]}" if asked else type(error).__name__
        raise _no_tensors(path, what) from error


def _state_of(content: Any, where: str) -> dict[str, torch.Tensor]:
    import torch

    state = content
    if isinstance(content, dict):
        state = next((content[name] for name in STATE_NAMES if isinstance(content.get(name), dict)), content)
    if not isinstance(state, dict) or not state:
        got = "an empty dictionary" if isinstance(state, dict) else f"a {type(state).__name__}"
        raise EcgFileError(f"{where}: got {got}, expected a state dictionary under {', '.join(STATE_NAMES)}, or alone")
    for key, value in state.items():
        if type(key) is not str or not isinstance(value, torch.Tensor):
            raise EcgFileError(
                f"{where}: got a {type(value).__name__} under {str(key)[:50]!a}, expected tensors by name; it is not "
                "a state dictionary"
            )
    # DistributedDataParallel names everything `module.`; the paper's code saves without it, others do not.
    keys = list(state)
    prefix = "module." if all(key.startswith("module.") for key in keys) else ""
    return {key.removeprefix(prefix): state[key] for key in keys}


def _check_tensors(state: Mapping[str, torch.Tensor], where: str) -> None:
    import torch

    for key, tensor in state.items():
        stored = tensor.untyped_storage().nbytes() if tensor.layout is torch.strided else 0
        # A view with a stride of 0 can claim any shape.
        if tensor.layout is not torch.strided or tensor.nbytes > stored:
            raise EcgFileError(
                f"{where}: {key[:100]} is no dense tensor of its own size; such is not a model's weight"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise EcgFileError(f"{where}: {key[:100]} has NaN or infinity; the training had diverged")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
