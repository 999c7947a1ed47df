"""The files of a folder as they would be published, laid out in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq

from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, PROMPT_FILE
from ecgbyte_hf.hub.base_model import local_base
from ecgbyte_hf.hub.card_sources import REPORTS_FOLDER, is_report
from ecgbyte_hf.hub.kinds import is_two_stage
from ecgbyte_hf.hub.private_data import (
    has_token,
    local_paths,
    scrubbed_json,
    table_notes,
    table_problems,
    without_columns,
)
from ecgbyte_hf.hub.private_files import binary_problems, name_problems, text_problems
from ecgbyte_hf.models.errors_ecg_byte import EcgError
from ecgbyte_hf.provenance import read_object

CARD = "README.md"
# What a repository of any kind may hold. Anything else is left out with a message, rather than published unseen.
_WELCOME = (
    "README.md LICENSE* NOTICE* CITATION.cff *.jinja merges.txt vocab.txt *.model *.png *.svg *.pdf "
    ".eval_results/*.yaml"
).split()
_WELCOME_PLACES = (".eval_results/*.yaml", f"{REPORTS_FOLDER}/*.json")
_OF_KIND = {
    "tokenizer": ["*.json"],
    # By name only: a JSON file of any other name may hold records.
    "dataset": (
        "*.parquet report.json encode.json training.json training_log.json conversion.json config.json "
        "preprocessor_config.json processor_config.json dataset_info.json dataset_infos.json template_options.json "
        "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json ecg_byte.json "
        "ecg_prompt.json"
    ).split(),
    "encoder": ["*.json", "*.safetensors", "*.py"],
    "language_model": ["*.json", "*.safetensors"],
}
# What a model with an encoder has besides: its code, for those who have not installed the package.
_OF_TWO_STAGE = ["*.py"]
_PICKLE_STARTS = (b"\x80", b"PK")
_INNER_MODEL = "a model of its own: push this folder by itself"
# Of a model these are in its root; elsewhere they are another's.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin", "adapter_config.json")
# Left out by these names, each for its reason; the first that fits.
_LEFT_OUT = (
    ("checkpoint-*/*", "a checkpoint of the training"),
    ("*/checkpoint-*/*", "a checkpoint of the training"),
    ("merged/*", _INNER_MODEL),
    (".*", "hidden"),
    ("*/.*", "hidden"),
    ("__pycache__/*", "compiled code"),
    ("*/__pycache__/*", "compiled code"),
    ("trainer_state.json", "of the training; training_log.json says how the loss went"),
    *((f"*.{end}", "may hold a pickle") for end in ("bin", "pt", "pth", "pkl", "pickle", "ckpt", "npy", "joblib")),
)
_BINARY = (".parquet", ".safetensors", ".model", ".png", ".pdf")
# Programs, where much looks like a path: only places below a root of a machine count.
_PROGRAMS = (".py", ".jinja", ".svg")
# In Markdown and in HTML.
_HUB_LINK = re.compile(r"(?<=\]\()/[^\s)]*|(?<=src=[\"'])/[^\"']*|(?<=href=[\"'])/[^\"']*")
# Their paths were cut, or they are vocabularies.
_WITHOUT_PATHS = (".json", ".txt")


@dataclass
class Stage:
    """What would be published.

    Attributes:
        folder: The files as they would be; unchanged ones are links.
        kind: One of `kinds.REPO_TYPES`.
        left_out: Files that stay here, with the reason.
        notes: What was changed, for the user to know.
        problems: What forbids to publish it.
        local_base: What an adapter was trained on, where that is a folder here; its published copy may name another.
    """

    folder: Path
    kind: str
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    local_base: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files by their names in the repository, sorted."""
        places = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in places}


def stage_folder(
    source: Path,
    folder: Path,
    kind: str,
    *,
    base: str | None = None,
    base_revision: str | None = None,
    ecg: Path | None = None,
    dropped_columns: Sequence[str] = (),
) -> Stage:
    """Lay out what would be published of a folder, with everything private cut away or named as a problem.

    Args:
        source: The folder.
        folder: An empty folder for the layout.
        kind: One of `kinds.REPO_TYPES`.
        base: Name on the Hub of an adapter's base model, in place of the one that its training noted.
        base_revision: Of the base model, named anew or not.
        ecg: Where the ECG tokenizer and the prompt of a language model are, if not in `source`.
        dropped_columns: Columns of a data set that are not published.
    """
    stage = Stage(folder, kind, local_base=local_base(source) if kind == "language_model" else None)
    # Of an adapter whose base is on the Hub, as `trl sft` leaves it, only what --ecg names tells it.
    has_encoder = kind == "language_model" and (is_two_stage(source) or (ecg is not None and is_two_stage(ecg)))
    places = {path.relative_to(source): path for path in sorted(source.rglob("*")) if path.is_file()}
    inner = _inner_models(places) if kind in ("encoder", "language_model") else set()
    for place, path in places.items():
        name = place.as_posix()
        reason = _reason_to_leave_out(name, kind, has_encoder=has_encoder) or _reason_inside(path)
        if reason is None and inner & set(place.parents):
            reason = _INNER_MODEL
        if reason is None:
            _add(stage, name, path, dropped_columns)
        else:
            stage.left_out[name] = reason
    _look_at_links(stage, source)
    stage.problems += _not_there(source, stage.files, dropped_columns)
    if has_encoder:
        _add_processor(stage, source, ecg)
    elif kind == "language_model":
        _add_ecg_parts(stage, source, ecg)
    if kind == "language_model":
        if base is not None or base_revision is not None:
            _name_base(stage, base, base_revision)
    made_from = source_of(source) if kind == "dataset" else ""
    holds_raw_ids = _row_format(source) == "ecg"
    for name, path in stage.files.items():
        if path.suffix == ".parquet":
            stage.problems += table_problems(path, shown=name, source=made_from, holds_raw_ids=holds_raw_ids)
            stage.notes += table_notes(path, shown=name)
        elif path.suffix not in _BINARY:
            stage.problems += _text_problems(name, path)
        else:
            stage.problems += binary_problems(name, path)
        stage.problems += name_problems(name)
    return stage


def _inner_models(places: Iterable[Path]) -> set[Path]:
    """Folders in a model's folder that are models, such as the `best/` of a training."""
    return {
        place.parent
        for place in places
        if place.parent.name and any(fnmatch(place.name, pattern) for pattern in _WEIGHTS)
    }


def _look_at_links(stage: Stage, source: Path) -> None:
    """A linked folder is not followed: what lies elsewhere may be anything, and without a word it would be missing."""
    for path in sorted(path for path in source.rglob("*") if path.is_symlink() and not path.is_file()):
        name = path.relative_to(source).as_posix()
        reason = _reason_by_name(f"{name}/x" if path.is_dir() else name)
        if reason is None and path.is_dir() and path.resolve().is_relative_to(source.resolve()):
            reason = "a link to what is here already"
        if reason is not None:
            stage.left_out[name] = reason
        elif path.is_dir():
            stage.problems.append(f"{name} is a link to a folder, which is not followed: put the folder in its place")
        else:
            stage.problems.append(f"{name} is a link to what is not there: put the file in its place, or remove it")


def _not_there(source: Path, files: dict[str, Path], dropped: Sequence[str]) -> list[str]:
    """A misspelt column would be published."""
    if not dropped:
        return []
    known: set[str] = set()
    for name in files:
        if name.endswith(".parquet"):
            known |= set(pq.read_schema(source / name).names)
    return [
        f"--drop-columns {name}: no table has this column, expected one of {', '.join(sorted(known)) or 'none'}"
        for name in dropped
        if name not in known
    ]


def _row_format(folder: Path) -> str:
    arguments = (read_object(folder / "encode.json") or {}).get("provenance", {}).get("arguments", {})
    return str(arguments.get("row_format", ""))


def source_of(folder: Path) -> str:
    """The data set that `ecgbyte prepare` read, as its report or that of `ecgbyte encode` has it; empty if unknown."""
    encoded = (read_object(folder / "encode.json") or {}).get("provenance", {})
    return str((read_object(folder / "report.json") or {}).get("source") or encoded.get("data_source") or "")


def _reason_inside(path: Path) -> str | None:
    """A pickle under another name is one all the same, and any JSON file may lie among the reports."""
    if path.parent.name == REPORTS_FOLDER:
        return None if is_report(read_object(path)) else "no report of an ecgbyte command"
    if path.suffix != ".model":
        return None
    with path.open("rb") as file:
        return "may hold a pickle" if file.read(2).startswith(_PICKLE_STARTS) else None


def _reason_to_leave_out(name: str, kind: str, *, has_encoder: bool = False) -> str | None:
    welcome = [*_WELCOME, *_OF_KIND[kind], *(_OF_TWO_STAGE if has_encoder else ())]
    base = PurePosixPath(name).name
    if any(fnmatch(name, pattern) and name.count("/") == 1 for pattern in _WELCOME_PLACES):
        return None
    reason = _reason_by_name(name)
    if reason is not None or any(fnmatch(base, pattern) for pattern in welcome):
        return reason
    return f"no part of a {kind.replace('_', ' ')}"


def _reason_by_name(name: str) -> str | None:
    return next((reason for pattern, reason in _LEFT_OUT if fnmatch(name, pattern)), None)


def _add(stage: Stage, name: str, path: Path, dropped_columns: Sequence[str]) -> None:
    target = stage.folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet" and dropped_columns:
        # The reader of a prepared folder looks for all columns of its records.
        without_columns(path, dropped_columns, target, keep_names=name.startswith("records/"))
        return
    content: bytes | None = None
    changes: list[str] = []
    if path.suffix == ".json":
        try:
            content, changes = scrubbed_json(path)
        except EcgError as error:
            stage.problems.append(str(error))
            return
    if content is None:
        _link(path, target)
    else:
        target.write_bytes(content)
        more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
        stage.notes.append(f"{name}: {changes[0]}{more}")


def _link(path: Path, target: Path) -> None:
    """A file of many gigabytes is not copied where the system has links."""
    try:
        os.symlink(path.resolve(), target)
    except OSError:  # Windows gives them to administrators only
        shutil.copyfile(path, target)


def _add_ecg_parts(stage: Stage, source: Path, ecg: Path | None) -> None:
    """`trl sft` writes weights and tokenizer alone: the rest is the extended base model's."""
    if (source / ECG_SUBFOLDER).is_dir() and ecg is None:
        return
    if ecg is None:
        noted = (read_object(source / "adapter_config.json") or {}).get("base_model_name_or_path")
        ecg = Path(str(noted)) / ECG_SUBFOLDER
    elif (ecg / ECG_SUBFOLDER).is_dir():
        ecg = ecg / ECG_SUBFOLDER
    if not ecg.is_dir():
        return  # what is missing is said by the check of the parts
    for path in sorted(path for path in ecg.iterdir() if path.is_file()):
        name = f"{ECG_SUBFOLDER}/{path.name}"
        if _reason_to_leave_out(name, stage.kind) is None:
            (stage.folder / name).unlink(missing_ok=True)
            _add(stage, name, path, ())
    stage.notes.append(f"{ECG_SUBFOLDER}/ was taken from the base model's folder")


def _add_processor(stage: Stage, source: Path, ecg: Path | None) -> None:
    """Processor, prompt and code of a model with an encoder, from its base where they are not in the folder."""
    noted = (read_object(source / "adapter_config.json") or {}).get("base_model_name_or_path")
    place = ecg if ecg is not None else Path(str(noted)) if noted else None
    for name in ("processor_config.json", PROMPT_FILE):
        if name in stage.files or place is None or not (place / name).is_file():
            continue
        _add(stage, name, place / name, ())
        stage.notes.append(f"{name} was taken from the base model's folder")
    # TRL saves the tokenizer, which names the processor's code, and none of that code.
    code = [path for path in sorted(place.glob("*.py")) if path.name not in stage.files] if place else []
    for path in code:
        _add(stage, path.name, path, ())
    if code:
        stage.notes.append(f"{len(code)} files of code were taken from the base model's folder")


def _name_base(stage: Stage, base: str | None, revision: str | None) -> None:
    """Name an adapter's base in the published copy only: training here goes on with the folder."""
    path = stage.folder / "adapter_config.json"
    if not path.is_file():
        option = "--base-revision" if base is None else "--base"
        stage.problems.append(f"{option} is for an adapter, and the folder has no adapter_config.json; leave it out")
        return
    config = read_object(path) or {}
    base = base or config.get("base_model_name_or_path")
    if stage.local_base is None and config.get("base_model_name_or_path") != base:
        stage.notes.append(f"{base} could not be compared with what the adapter was trained on, which is not here")
    config["base_model_name_or_path"] = base
    config["revision"] = revision
    path.unlink()  # a link would be written through
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    at = f" at the revision {revision}" if revision is not None else ""
    stage.notes.append(f"adapter_config.json: the base model is {base}{at}")


def _text_problems(name: str, path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    problems = []
    if has_token(text):
        problems.append(f"{name} holds a token of the Hub or of another service; take it out, and revoke it there")
    problems += text_problems(name, text)
    is_program = path.suffix in _PROGRAMS
    # A card's links into the Hub begin with a slash too.
    paths = local_paths(text, rooted=True) if path.suffix == ".md" else []
    text = _HUB_LINK.sub("", text) if path.suffix == ".md" else text
    if path.suffix not in _WITHOUT_PATHS and (paths := paths or local_paths(text, rooted=is_program)):
        problems.append(f"{name} names {len(paths)} places on a machine, such as {PurePosixPath(paths[0]).name}")
    return problems
