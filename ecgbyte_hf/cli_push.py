"""`ecgbyte push`: publish what another command wrote."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from ecgbyte_hf.command_line import Adder, say

_KEPT_WHEN_MERGED = ("README.md", "LICENSE", "loss.png", "conversion.json")
# As in `hub/kinds.py`.
KINDS = ("auto", "tokenizer", "dataset", "encoder", "language_model")


def add_commands(add: Adder) -> None:
    """Add the command to a parser."""
    command = add(
        "push",
        _push,
        "Check a tokenizer, data set, encoder or language model and publish it on the Hugging Face Hub. Broken off, "
        "the same command goes on.",
        "ecgbyte push ecg-byte someone/ecg-byte --dry-run\n"
        "  ecgbyte push sft someone/ecg-llm --base someone/llama-ecg --license llama3.2\n"
        "  ecgbyte push prepared someone/ecg-qa-ptbxl --drop-columns patient_id name --license cc-by-4.0",
    )
    command.add_argument("folder", metavar="FOLDER", help="what a command wrote, an encoder, or Parquet files")
    command.add_argument("repo_id", metavar="USER/NAME", help="the repository; made where it is not there")
    command.add_argument("--kind", choices=KINDS, default="auto", help="what the folder holds (default: look)")
    command.add_argument("--private", action="store_true", help="make a new repository private")
    command.add_argument("--revision", metavar="BRANCH", help="push to this branch (default: main)")
    command.add_argument("--license", metavar="NAME", help="for the card, as the Hub spells it: cc-by-4.0, apache-2.0")
    command.add_argument("--message", metavar="TEXT", help="of the commit")
    command.add_argument("--dry-run", action="store_true", help="check and list everything, upload nothing")
    command.add_argument(
        "--rewrite-card", action="store_true", help="write README.md anew even where somebody changed it"
    )
    command.add_argument(
        "--drop-columns",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="of a data set: leave these out, such as patient_id and name",
    )
    model = command.add_argument_group("language models")
    model.add_argument("--base", metavar="USER/NAME", help="where an adapter's extended base model is on the Hub")
    model.add_argument("--base-model", metavar="USER/NAME", help="for the card: the model on the Hub that it began as")
    model.add_argument(
        "--base-revision",
        metavar="COMMIT",
        help="of an adapter's base model",
    )
    model.add_argument("--merge", action="store_true", help="push an adapter and its base as one whole model")
    model.add_argument("--ecg", metavar="DIR", help="folder or USER/NAME with the ecg_byte/ of a model that has none")


def _push(options: argparse.Namespace) -> int:
    if options.merge and options.base:
        say("ecgbyte push: give --base or --merge, not both", stream=sys.stderr)
        return 2
    if not options.merge:
        return _push_folder(options, options.folder)
    from ecgbyte_hf.hub.card_sources import REPORTS_FOLDER

    with tempfile.TemporaryDirectory(prefix="ecgbyte-merge-") as place:
        merged = _merged(Path(options.folder), Path(place))
        if (Path(options.folder) / REPORTS_FOLDER).is_dir():
            say(f"left out: {REPORTS_FOLDER}/ (of the adapter; evaluate the merged model for its card)")
        return _push_folder(options, merged)


def _merged(folder: Path, place: Path) -> Path:
    """A whole model of an adapter and its base, with all its parts."""
    from ecgbyte_hf.evaluation.language_model import ModelFolder
    from ecgbyte_hf.models.errors_ecg_byte import EcgHubError
    from ecgbyte_hf.training.extend_llm import save_ecg_parts
    from ecgbyte_hf.training.sft import merge_adapter
    from ecgbyte_hf.training.training_log import copy_log_for_merged

    parts = ModelFolder.find(folder)
    if parts.base is None:
        raise EcgHubError(f"{folder} is no adapter, so there is nothing to merge; leave --merge out")
    _, processor, prompt, _ = parts.load_texts()
    merged = merge_adapter(str(parts.base), folder, place / folder.name, dtype="auto")
    save_ecg_parts(merged, processor, prompt)
    _note_base(folder, parts.base, merged)
    for name in _KEPT_WHEN_MERGED:
        if (folder / name).is_file():
            shutil.copy(folder / name, merged)
    copy_log_for_merged(folder, merged)
    return merged


def _note_base(adapter: Path, base: Path, merged: Path) -> None:
    """Note what a merged model began as: as its adapter does, else as the base's folder does, else the base's name."""
    from ecgbyte_hf.data.ecg_parts import EXTEND_FILE, note_base
    from ecgbyte_hf.provenance import read_object

    if (adapter / EXTEND_FILE).is_file():
        shutil.copy(adapter / EXTEND_FILE, merged)
        return
    note_base(merged, base)
    if not (merged / EXTEND_FILE).is_file():
        config = read_object(adapter / "adapter_config.json") or {}
        note_base(merged, str(config.get("base_model_name_or_path")), config.get("revision"))


def _push_folder(options: argparse.Namespace, folder: str | Path) -> int:
    from ecgbyte_hf.hub.push import PushOptions, push_folder

    chosen = PushOptions(
        kind=options.kind,
        private=options.private,
        revision=options.revision,
        license=options.license,
        message=options.message,
        base=options.base,
        base_revision=options.base_revision,
        ecg=options.ecg,
        dropped_columns=tuple(options.drop_columns),
        rewrite_card=options.rewrite_card,
        base_model=options.base_model,
    )
    pushed = push_folder(folder, options.repo_id, chosen, dry_run=options.dry_run)
    for name, size in pushed.sizes.items():
        say(f"  {size:>14,}  {name}")
    for name, reason in pushed.left_out.items():
        say(f"left out: {name} ({reason})")
    for note in pushed.notes:
        say(f"changed: {note}")
    what = pushed.kind.replace("_", " ")
    total = f"{len(pushed.sizes)} files, {sum(pushed.sizes.values()):,} bytes"
    if pushed.url is None:
        say(f"{total} ({what}) would be pushed to {pushed.repo_id}; every check passed, nothing was uploaded")
        return 0
    say(f"{total} ({what}) are at {pushed.url} (commit {pushed.commit}), read back and compared")
    say(pushed.how_to())
    return 0
