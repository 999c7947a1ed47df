"""`ecgbyte env`: what is installed here, and whether it works."""

from __future__ import annotations

import argparse
import json

from ecgbyte_hf.command_line import Adder, say


def add_commands(add: Adder) -> None:
    """Add the commands of this module."""
    command = add(
        "env",
        _env,
        "Say what is installed: versions, devices, what is missing and what it is for. No secret is shown.",
        "ecgbyte env\n  ecgbyte env --check\n  ecgbyte env --json --cache",
    )
    command.add_argument(
        "--check",
        action="store_true",
        help="also run the core against its twin in Python and a tiny model on each device; exit code 1 on a failure",
    )
    command.add_argument("--json", action="store_true", help="as JSON")
    command.add_argument("--cache", action="store_true", help="also the size of the Hub's and the data sets' caches")


def _env(options: argparse.Namespace) -> int:
    from ecgbyte_hf.environment import check_environment, environment, environment_lines

    found = environment(with_cache=options.cache)
    checks = check_environment(found) if options.check else []
    if options.json:
        report = found | ({"checks": [one.to_dict() for one in checks]} if options.check else {})
        say(json.dumps(report, indent=2))
    else:
        for line in [*environment_lines(found), *(one.line() for one in checks)]:
            say(line)
    return int(any(not one.passed for one in checks))
