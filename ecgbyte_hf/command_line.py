"""What the commands of `ecgbyte` share; only the standard library, since every start of the program loads it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgError

#: Help of an option that names a trained model.
MODEL_HELP = "what `trl sft` wrote, a model or an adapter, or its USER/NAME on the Hub"
#: Runs a command with its options; returns the exit code.
Command = Callable[[argparse.Namespace], int]
#: Adds a command: its name, what runs it, a sentence about it, and an example.
Adder = Callable[[str, Command, str, str], argparse.ArgumentParser]


def add_command(subparsers: Any, name: str, run: Command, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a command whose help shows an example, and which takes its options from a YAML file too.

    Args:
        subparsers: What `add_subparsers` returned.
        name: The word on the command line.
        run: Runs it.
        summary: A sentence.
        example: A command line, or several.
    """
    command: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    command.add_argument("--config", metavar="FILE", help="YAML file with values for these options")
    return command


def say(text: Any, *, stream: Any = None) -> None:
    """Write a line for the user; what is no text, as JSON."""
    (stream or sys.stdout).write(f"{text if isinstance(text, str) else json.dumps(text, indent=2)}\n")
    (stream or sys.stdout).flush()


def seed(text: str) -> int:
    """What numpy, torch and scikit-learn all take."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{value} is no seed, expected 0 to {2**32 - 1}")
    return value


def add_window(command: argparse.ArgumentParser) -> None:
    """Add the options of `open_prepared`."""
    command.add_argument(
        "--window-seconds",
        type=float,
        metavar="SECONDS",
        help="cut every record into windows of this length, each with all its questions, as the paper does; in 2 s "
        "those about rate, rhythm and intervals often have no answer (default: whole records)",
    )
    command.add_argument(
        "--window-stride",
        type=float,
        metavar="SECONDS",
        help="from the start of one window to that of the next; less than their length gives a model every beat at "
        "several places (default: windows do not overlap)",
    )


def open_prepared(options: argparse.Namespace) -> Any:
    """The prepared folder, or windows of its records."""
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.data.windows import WindowedData

    if options.window_seconds is None:
        if options.window_stride is not None:
            raise EcgError("--window-stride needs --window-seconds")
        return PreparedData(data_folder(options.data))
    windows = WindowedData(data_folder(options.data), options.window_seconds, stride_seconds=options.window_stride)
    if windows.samples_left_over:
        seconds = windows.samples_left_over / windows.sampling_rate
        say(f"{windows.windows_per_record} windows per record; the last {seconds:g} s of each fill none")
    return windows


def data_folder(place: str) -> Path:
    """A prepared folder, from the Hub where it is `USER/NAME` there."""
    from ecgbyte_hf.data.hub_folder import is_repo_id, local_or_hub_folder

    return (
        local_or_hub_folder(place, made_by="ecgbyte prepare", repo_type="dataset")
        if is_repo_id(place)
        else Path(place)
    )


def load_processor(place: str) -> Any:
    """Feature extractor and tokenizer of a folder, or of `USER/NAME` on the Hub."""
    from ecgbyte_hf.data.hub_folder import local_or_hub_folder
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

    return EcgByteProcessor.from_pretrained(local_or_hub_folder(place, made_by="ecgbyte train-tokenizer"))


def add_perturb(command: argparse.ArgumentParser) -> None:
    """Add the option of `perturbed`."""
    command.add_argument(
        "--perturb",
        nargs="+",
        metavar="KIND=VALUE",
        default=[],
        help="make the prepared signals worse: noise=MV, wander=MV, gain=FACTOR, drop=LEADS, swap=ra-la, la-ll or "
        "ra-ll (drawn by --seed)",
    )


def perturbed(prepared: Any, options: argparse.Namespace, *, only: set[int] | None = None) -> Any:
    """The folder with the changes of `--perturb`."""
    from ecgbyte_hf.evaluation.perturbations import perturb

    return perturb(prepared, options.perturb, seed=options.seed, only=only) if options.perturb else prepared
