"""`ecgbyte`: every step from a recording to a scored answer as a command.

Only the standard library is imported here, so that `ecgbyte --help` answers at once; each command imports what it
needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ecgbyte_hf import (
    __version__,
    cli_attribution,
    cli_cards,
    cli_convert,
    cli_data,
    cli_encoders,
    cli_env,
    cli_evaluate,
    cli_language_model,
    cli_plot,
    cli_push,
    cli_systems,
    cli_tokens,
)
from ecgbyte_hf.command_line import Adder, Command, add_command, say, seed
from ecgbyte_hf.models.errors_ecg_byte import EcgError


class _Parser(argparse.ArgumentParser):
    """A parser whose errors say where the help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry `{self.prog} --help`.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser, commands = build_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, unknown = _parse(given, parser, commands)
    if not hasattr(options, "run"):
        parser.print_help()
        return 2
    if unknown:
        commands[options.command].error(f"unknown: {' '.join(unknown)}")
    try:
        return int(options.run(options))
    except EcgError as error:
        say(f"ecgbyte {options.command}: {error}", stream=sys.stderr)
        return 1
    except OSError as error:  # a missing file, a full disk, and what transformers says of a model it cannot find
        what = f"{error.filename}: {error.strerror}" if error.filename else " ".join(str(error).split())
        if "gated repo" in what:
            what += " To get a gated model, accept its licence on its page and log in with `hf auth login`."
        say(f"ecgbyte {options.command}: {what}", stream=sys.stderr)
        return 1
    except ImportError as error:
        say(
            f"ecgbyte {options.command}: {error}\nInstall everything with `pip install 'ecgbyte-hf[all]'`.",
            stream=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        say(f"ecgbyte {options.command}: interrupted", stream=sys.stderr)
        return 130


def _parse(
    given: list[str], parser: argparse.ArgumentParser, commands: dict[str, argparse.ArgumentParser]
) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what no option takes."""
    if given[:1] == ["sft"] and not {"-h", "--help"} & set(given):
        return argparse.Namespace(
            command="sft", run=cli_language_model.sft, arguments=given[1:]
        ), []  # TRL's parser reads them
    _apply_config(given, commands)
    return parser.parse_known_args(given)


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each command by name."""
    parser = _Parser(
        prog="ecgbyte",
        description="Language models that read 12-lead ECGs as tokens.",
        epilog="Each command shows an example: `ecgbyte prepare --help`. Research use only; not a medical device.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ecgbyte-hf {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    commands: dict[str, argparse.ArgumentParser] = {}

    def add(name: str, run: Command, summary: str, example: str) -> argparse.ArgumentParser:
        command = add_command(subparsers, name, run, summary, example)
        commands[name] = command
        return command

    _add_demo(add)
    cli_env.add_commands(add)
    for module in (cli_data, cli_tokens, cli_language_model, cli_evaluate, cli_plot, cli_encoders, cli_systems):
        module.add_commands(add)
    for module in (cli_cards, cli_convert, cli_push, cli_attribution):
        module.add_commands(add)
    return parser, commands


def _add_demo(add: Adder) -> None:
    command = add(
        "demo",
        _demo,
        "The whole way on simulated ECGs: simulate, train, ask, score (about 5 minutes, no GPU).",
        "ecgbyte demo --output demo",
    )
    command.add_argument("--output", required=True, metavar="DIR", help="folder for everything the demo makes")
    command.add_argument("--records", type=int, help="simulated records (default: enough for 5 minutes)")
    command.add_argument("--steps", type=int, help="training steps (default: enough for 5 minutes)")
    command.add_argument("--seed", type=seed, default=0, help="of records and training")


def _demo(options: argparse.Namespace) -> int:
    # Read when torch is loaded. Threads that wait actively hold a core that another process needs: on two shared
    # cores a small model's generation was 20 times slower with them.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from ecgbyte_hf.demo import DemoSize, run_demo

    size = DemoSize()
    chosen = {"num_records": options.records, "max_steps": options.steps}
    size = size.replace(**{name: value for name, value in chosen.items() if value is not None})
    summary = run_demo(options.output, size=size, seed=options.seed, say=say)
    say(summary)
    return 0


def _apply_config(given: Sequence[str], commands: dict[str, argparse.ArgumentParser]) -> None:
    """Make the values of a command's YAML file its defaults; what is given on the command line wins."""
    if not given or given[0] not in commands:
        return
    command = _innermost(commands[given[0]], given[1:])
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config")
    try:
        path = finder.parse_known_args(given[1:])[0].config
    except argparse.ArgumentError:
        return  # `--config` without a file: the command's own parser says so
    if path is None:
        return
    actions = {
        action.dest: action
        for action in command._actions
        if action.option_strings and action.dest not in ("help", "config")
    }
    for name, value in _read_config(path, command).items():
        action = actions.get(str(name).replace("-", "_"))
        if action is None:
            known = ", ".join(sorted(actions))
            command.error(f"--config {path}: unknown option {name!r}; known: {known}")
        action.required = False
        # Options that may be repeated add to their default, so it must not be there.
        if not any(word.partition("=")[0] in action.option_strings for word in given):
            command.set_defaults(**{action.dest: _config_value(action, value, f"--config {path}: {name}", command)})


def _innermost(command: argparse.ArgumentParser, given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of `ecgbyte plot usage` where that is given; else the command's own."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction) and given[:1] and given[0] in action.choices:
            return action.choices[given[0]]
    return command


def _read_config(path: str, command: argparse.ArgumentParser) -> dict[Any, Any]:
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        command.error(f"--config {path}: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        command.error(f"--config {path}: not YAML ({' '.join(str(error).split())})")
    if values is None:
        return {}
    if not isinstance(values, dict):
        command.error(f"--config {path}: expected `option: value` lines")
    return values


def _config_value(action: argparse.Action, value: Any, where: str, command: argparse.ArgumentParser) -> Any:
    """A value of a YAML file as the command line would give it: of the option's type, a list where several may be."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            command.error(f"{where} is {value!r}, expected true or false")
        return value
    if action.nargs == "?" and isinstance(value, bool):
        return action.const if value else action.default
    takes_many = action.nargs == "+" or isinstance(action, argparse._AppendAction)
    items = value if takes_many and isinstance(value, list) else [value]
    convert: Callable[[Any], Any] = action.type if callable(action.type) else str
    is_whole = action.type in (int, seed)
    converted = []
    for item in items:
        if item is None or isinstance(item, (bool, list, dict)) or (is_whole and isinstance(item, float)):
            expected = "int" if is_whole else getattr(action.type, "__name__", "text")
            command.error(f"{where} is {item!r}, expected {expected}")
        try:
            converted.append(convert(item))
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            command.error(f"{where}: {error}")
    for item in converted:
        if action.choices is not None and item not in action.choices:
            command.error(f"{where} is {item!r}; known: {', '.join(map(str, action.choices))}")
    return converted if takes_many else converted[0]


if __name__ == "__main__":
    sys.exit(main())
