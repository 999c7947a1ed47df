"""`ecgbyte systems`: several systems on one test, over training seeds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ecgbyte_hf.command_line import Adder
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Options that name a file of a system -> attribute of `SystemRuns`, what the file is.
_FILES = {
    "report": ("reports", "what `ecgbyte evaluate` wrote for one of its training seeds"),
    "training": ("trainings", "training_log.json of the language model of a seed"),
    "pretraining": ("pretrainings", "training_log.json of the encoder of a seed"),
    "tried": ("tried", "training_log.json of each learning rate that was tried"),
}


def add_commands(add: Adder) -> None:
    """Add the commands of this module."""
    command = add(
        "systems",
        _systems,
        "Put several systems side by side: scores over training seeds, controls, budgets, costs. Every option may be "
        "repeated; systems come in the order of their first report, and the others are compared with the first.",
        "ecgbyte systems --report ecg-byte=ecg-byte/seed-0/report.json --report clip=clip/seed-0/report.json "
        "--training clip=clip/seed-0/model/training_log.json --output systems.json",
    )
    for option, (_, text) in _FILES.items():
        command.add_argument(f"--{option}", action="append", default=[], metavar="NAME=FILE", help=text)
    command.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="JSON file; beside it the table as .md and a figure as .png",
    )


def _systems(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.report_files import markdown_path
    from ecgbyte_hf.evaluation.system_table import SystemRuns, compare_systems, systems_markdown
    from ecgbyte_hf.provenance import write_text

    files = {kind: _by_system(option, getattr(options, option)) for option, (kind, _) in _FILES.items()}
    if not files["reports"]:
        raise EcgDataError("got no --report, expected NAME=FILE of each system")
    for option, (kind, _) in _FILES.items():
        if unknown := sorted(set(files[kind]) - set(files["reports"])):
            raise EcgDataError(f"got --{option} of {', '.join(unknown)}, of which there is no --report")
    systems = {
        name: SystemRuns(**{kind: found.get(name, []) for kind, found in files.items()}) for name in files["reports"]
    }
    markdown = markdown_path(options.output)
    comparison = compare_systems(systems, output=options.output)
    text = systems_markdown(comparison)
    written = [Path(options.output), write_text(markdown, text), *_figure(comparison, markdown.with_suffix(".png"))]
    sys.stdout.write(f"{text}\nsaved {', '.join(map(str, written))}\n")
    return 0


def _figure(comparison: dict[str, object], path: Path) -> list[Path]:
    from ecgbyte_hf.evaluation.system_table import plot_systems
    from ecgbyte_hf.interpretation.figures import save_figure

    try:
        figure = plot_systems(comparison)
    except ImportError:
        sys.stderr.write("ecgbyte systems: no figure without matplotlib: pip install 'ecgbyte-hf[plot]'\n")
        return []
    return [save_figure(figure, path)]


def _by_system(option: str, given: Sequence[str]) -> dict[str, list[str]]:
    """The files of each system, of options that are NAME=FILE.

    Raises:
        EcgDataError: one that is not.
    """
    found: dict[str, list[str]] = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path:
            raise EcgDataError(f"got --{option} {text!r}, expected NAME=FILE")
        found.setdefault(name, []).append(path)
    return found
