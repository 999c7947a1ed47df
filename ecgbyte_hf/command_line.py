"""What the commands of `ecgbyte` share; only the standard library, since every start of the program loads it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

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
