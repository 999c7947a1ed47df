"""`ecgbyte card`: the README.md of a repository on the Hub."""

from __future__ import annotations

import argparse
import sys

from ecgbyte_hf.command_line import Adder

# As in `hub/cards.py`, whose imports take a second.
KINDS = ("tokenizer", "dataset", "encoder", "language_model")


def add_commands(add: Adder) -> None:
    """Add the commands of this module."""
    command = add(
        "card",
        _card,
        "Write the card (README.md) of a tokenizer, a data set, an encoder or a language model for the Hub.",
        "ecgbyte card ecg-byte --repo-id user/ecg-byte --license apache-2.0 --from prepared/report.json\n"
        "  ecgbyte card sft --repo-id user/ecg-llm --base-model meta-llama/Llama-3.2-1B --license llama3.2 "
        "--from report.json rows/encode.json",
    )
    command.add_argument("folder", metavar="FOLDER", help="what the card is about")
    command.add_argument("--repo-id", metavar="USER/NAME", help="its place on the Hub, for the examples")
    command.add_argument("--kind", choices=("auto", *KINDS), default="auto", help="what it is (default: by its files)")
    command.add_argument(
        "--from",
        dest="sources",
        nargs="+",
        default=[],
        metavar="FILE",
        help="further reports of the same run: of prepare, train-tokenizer, encode, probe-encoder or evaluate; kept "
        "in card_reports/ for later cards",
    )
    command.add_argument("--license", metavar="ID", help="the Hub's name of its licence, such as apache-2.0")
    command.add_argument("--license-name", metavar="NAME", help="with --license other")
    command.add_argument("--license-link", metavar="URL", help="with --license other: its address, or LICENSE")
    command.add_argument(
        "--base-model", metavar="USER/NAME", help="the model on the Hub that a language model began as"
    )
    command.add_argument(
        "--dataset-id",
        dest="datasets",
        nargs="+",
        default=[],
        metavar="USER/NAME",
        help="data sets on the Hub that were used",
    )
    command.add_argument("--output", metavar="FILE", help="the card (default: README.md in the folder)")
    command.add_argument(
        "--overwrite", action="store_true", help="replace a card that somebody wrote or changed by hand"
    )


def _card(options: argparse.Namespace) -> int:
    from ecgbyte_hf.hub.cards import write_card

    path = write_card(
        options.folder,
        kind=options.kind,
        repo_id=options.repo_id,
        license=options.license,
        license_name=options.license_name,
        license_link=options.license_link,
        base_model=options.base_model,
        datasets=options.datasets,
        sources=options.sources,
        output=options.output,
        overwrite=options.overwrite,
    )
    sys.stdout.write(f"saved {path}\n")
    return 0
