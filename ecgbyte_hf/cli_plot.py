"""`ecgbyte plot`: figures of ECGs, their tokens and the vocabulary."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ecgbyte_hf import cli_attribution
from ecgbyte_hf.command_line import Adder, Command, add_command, add_window, load_processor, open_prepared, say
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError

# As in `interpretation/paper.py`, which imports numpy.
LAYOUTS = ("3x4", "6x2", "rows")


def add_commands(add: Adder) -> None:
    """Add `plot` with a command of its own for every kind of figure."""
    command = add(
        "plot",
        _no_figure,
        "Draw an ECG, its tokens, what they keep of it, or how a vocabulary is used.",
        "ecgbyte plot merges --tokenizer ecg-byte --record 00001_hr --output tokens.pdf\n"
        "  ecgbyte plot usage --tokenizer ecg-byte --data prepared --output usage.png",
    )
    figures = command.add_subparsers(dest="figure", metavar="figure", help="what to draw; `ecgbyte plot usage --help`")

    def add_figure(name: str, run: Command, summary: str, example: str) -> argparse.ArgumentParser:
        return add_command(figures, name, run, summary, example)

    _add_ecg(add_figure)
    _add_merges(add_figure)
    _add_usage(add_figure)
    _add_decode(add_figure)
    cli_attribution.add_attention(add_figure)


def _no_figure(options: argparse.Namespace) -> int:
    raise EcgError("give what to draw: ecg, merges, usage, decode or attention; see `ecgbyte plot --help`")


def _add_output(figure: argparse.ArgumentParser) -> None:
    cli_attribution.add_figure_file(figure)


# ---- which record ---------------------------------------------------------------------------------------------------


def _add_record(figure: argparse.ArgumentParser, *, required: bool = True) -> None:
    record = figure.add_argument_group("the record: a file, or one of a prepared folder")
    record.add_argument(
        "--record", required=required, metavar="PATH", help="the recording; with --data its number in the folder"
    )
    record.add_argument("--data", metavar="DIR", help="what `ecgbyte prepare` wrote")
    record.add_argument("--format", metavar="NAME", help="read the file as this format (default: found by the file)")
    record.add_argument("--sampling-rate", type=float, metavar="HZ", help="for a file that states none")
    record.add_argument("--lead-names", nargs="+", metavar="LEAD", help="of all channels, for a file that names none")
    record.add_argument("--units", metavar="UNIT", help="V, mV, uV or nV, for a file that states none")
    record.add_argument("--seconds", type=float, help="draw only the beginning")
    figure.add_argument("--title", help="above the figure (default: the record's name)")


def _add_paper(figure: argparse.ArgumentParser) -> None:
    paper = figure.add_argument_group("the paper")
    paper.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="3x4 with a rhythm strip, 6x2, or each lead in a row (default: 3x4 for 12 leads, 6x2 for those of more "
        "than 2.5 and less than 10 s, rows for other leads)",
    )
    paper.add_argument("--speed", type=float, default=25.0, metavar="MM", help="mm per second (default: 25)")
    paper.add_argument("--gain", type=float, default=10.0, metavar="MM", help="mm per mV (default: 10)")


def _paper(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("layout", "speed", "gain", "seconds", "title")}


def _file_options(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("format", "sampling_rate", "lead_names", "units")}


def _open_folder(options: argparse.Namespace) -> tuple[Any, int]:
    """The prepared folder and the number of the record in it."""
    from ecgbyte_hf.data.prepared import PreparedData

    if surplus := [
        f"--{name.replace('_', '-')}" for name, value in _file_options(options).items() if value is not None
    ]:
        raise EcgDataError(f"{', '.join(surplus)} is about a file; leave it out with --data")
    if not options.record.isdecimal():
        raise EcgDataError(f"got --record {options.record} with --data, expected the number of one of its records")
    return PreparedData(options.data), int(options.record)


def _read_file(options: argparse.Namespace) -> Any:
    from ecgbyte_hf.signal.records import read_ecg

    return read_ecg(options.record, **_file_options(options))


def _record(options: argparse.Namespace, processor: Any) -> Any:
    """The recording in a file; of a prepared folder the cleaned signal. Without a title, its name becomes it."""
    if options.data is None:
        return _read_file(options)
    prepared, number = _open_folder(options)
    prepared.check_processor(processor)
    if options.title is None:
        options.title = f"record {number}"
    return prepared.signal(number)


def _tokenizer(place: str) -> Any:

    return load_processor(place)


def _tokenizer_folder(place: str) -> Path:
    from ecgbyte_hf.data.hub_folder import local_or_hub_folder

    return local_or_hub_folder(place, made_by="ecgbyte train-tokenizer")


def _save(figure: Any, options: argparse.Namespace) -> int:
    from ecgbyte_hf.interpretation.figures import save_figure

    say(f"saved {save_figure(figure, options.output, dpi=options.dpi)}")
    return 0


# ---- the figures ----------------------------------------------------------------------------------------------------


def _add_ecg(add: Adder) -> None:
    figure = add(
        "ecg",
        _plot_ecg,
        "Draw a recording as it is, on ECG paper, true to scale.",
        "ecgbyte plot ecg --record records500/00000/00001_hr --output ecg.pdf",
    )
    _add_output(figure)
    _add_record(figure)
    _add_paper(figure)


def _plot_ecg(options: argparse.Namespace) -> int:
    from ecgbyte_hf.interpretation.figures import check_figure_path
    from ecgbyte_hf.interpretation.paper import plot_ecg

    check_figure_path(options.output, dpi=options.dpi)
    if options.data is None:
        return _save(plot_ecg(_read_file(options), **_paper(options)), options)
    prepared, number = _open_folder(options)
    given = _paper(options)
    if given["title"] is None:
        given["title"] = f"record {number}, cleaned"
    figure = plot_ecg(prepared.signal(number), leads=prepared.leads, sampling_rate=prepared.sampling_rate, **given)
    return _save(figure, options)


def _add_merges(add: Adder) -> None:
    figure = add(
        "merges",
        _plot_merges,
        "Draw an ECG over its tokens, or how one token grew by merges.",
        "ecgbyte plot merges --tokenizer ecg-byte --record 00001_hr --layout rows --output tokens.pdf\n"
        "  ecgbyte plot merges --tokenizer ecg-byte --token 1500 --output token.png",
    )
    _add_output(figure)
    figure.add_argument("--tokenizer", required=True, metavar="DIR", help="what `ecgbyte train-tokenizer` wrote")
    figure.add_argument("--token", type=int, metavar="ID", help="draw this token and its parts instead of a record")
    figure.add_argument("--levels", type=int, metavar="N", help="of --token, at most (default: 8)")
    _add_record(figure, required=False)
    _add_paper(figure)


def _plot_merges(options: argparse.Namespace) -> int:
    from ecgbyte_hf.interpretation.figures import check_figure_path
    from ecgbyte_hf.interpretation.token_figures import plot_tokens
    from ecgbyte_hf.interpretation.token_growth import plot_token_growth

    if (options.record is None) == (options.token is None):
        raise EcgDataError("give --record (its tokens) or --token (how it grew), one of them")
    if options.levels is not None and options.token is None:
        raise EcgDataError("--levels needs --token")
    check_figure_path(options.output, dpi=options.dpi)
    processor = _tokenizer(options.tokenizer)
    if options.token is not None:
        levels = 8 if options.levels is None else options.levels
        figure = plot_token_growth(options.token, processor.tokenizer, max_levels=levels, title=options.title or "")
    else:
        record = _record(options, processor)
        figure = plot_tokens(record, processor.tokenizer, **_paper(options))
    return _save(figure, options)


def _add_usage(add: Adder) -> None:
    figure = add(
        "usage",
        _plot_usage,
        "Draw how often tokens occur, how long they are, and what they save by lead and by vocabulary size.",
        "ecgbyte plot usage --tokenizer ecg-byte --data ptb-xl --data mimic-iv-ecg --output usage.png",
    )
    _add_output(figure)
    figure.add_argument("--tokenizer", required=True, metavar="DIR", help="what `ecgbyte train-tokenizer` wrote")
    figure.add_argument(
        "--data",
        required=True,
        action="append",
        metavar="DIR",
        help="what `ecgbyte prepare` wrote; may be given several times, to compare",
    )
    figure.add_argument(
        "--split",
        default="held-out",
        metavar="NAME",
        help="records of each folder that are counted: held-out, those that no training question refers to, so that "
        "compression is not measured on what a tokenizer is learnt from; all; or a split of the questions, such as "
        "test (default: held-out)",
    )

    add_window(figure)
    figure.add_argument(
        "--merges", type=int, nargs="+", metavar="N", help="vocabulary sizes to compare (default: 0, 10, 30, 100 ...)"
    )
    figure.add_argument("--title", help="above the figure (default: none)")
    figure.add_argument("--num-threads", type=int, help="threads of the Rust core (default: all)")


def _plot_usage(options: argparse.Namespace) -> int:
    from ecgbyte_hf.interpretation.figures import check_figure_path
    from ecgbyte_hf.interpretation.usage import measure_usage
    from ecgbyte_hf.interpretation.usage_figures import check_data_sets, plot_usage
    from ecgbyte_hf.interpretation.usage_splits import told
    from ecgbyte_hf.provenance import read_object, write_json

    numbers = check_figure_path(options.output, dpi=options.dpi).with_suffix(".json")
    names = _folder_names(options.data)
    check_data_sets(names)
    tokenizer = _tokenizer(options.tokenizer).tokenizer
    training = read_object(_tokenizer_folder(options.tokenizer) / "training.json")
    opened = {}
    for name, folder in zip(names, options.data, strict=True):
        opened[name] = open_prepared(argparse.Namespace(**{**vars(options), "data": folder}))
    usage = measure_usage(
        opened,
        tokenizer,
        split=options.split,
        training=training,
        vocabulary_sizes=options.merges,
        num_threads=options.num_threads,
    )
    sets = usage["data_sets"]
    for which, one in zip(told(sets, usage), sets.values(), strict=True):
        covered = one["coverage"]
        say(
            f"{which}: {one['records']} ECGs, {one['tokens'] / one['records']:.0f} tokens per ECG, "
            f"{one['compression']:.2f} samples per token"
        )
        say(
            f"  {covered['used']} of {covered['vocabulary']} ids in use; half of all tokens are of "
            f"{covered['ids_for_share']['0.5']} ids, 99 % of {covered['ids_for_share']['0.99']}"
        )
    write_json(numbers, usage)
    say(f"saved {numbers}")
    return _save(plot_usage(usage, title=options.title or ""), options)


def _folder_names(folders: list[str]) -> list[str]:
    """Short names of the folders that tell them apart."""
    short = [Path(folder).resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else folders
    if len(set(names)) < len(names):
        raise EcgDataError(f"got --data {' --data '.join(folders)}, expected each folder once")
    return names


def _add_decode(add: Adder) -> None:
    figure = add(
        "decode",
        _plot_decode,
        "Draw an ECG as recorded, cleaned and decoded from its tokens, with the error in mV and in bins.",
        "ecgbyte plot decode --tokenizer ecg-byte --record 00001_hr --leads II V2 --output decoded.png",
    )
    _add_output(figure)
    figure.add_argument("--tokenizer", required=True, metavar="DIR", help="what `ecgbyte train-tokenizer` wrote")
    _add_record(figure)
    figure.add_argument("--leads", nargs="+", metavar="LEAD", help="draw only these (default: all)")


def _plot_decode(options: argparse.Namespace) -> int:
    from ecgbyte_hf.interpretation.decode_figures import plot_decode
    from ecgbyte_hf.interpretation.decoding import measure_decoding
    from ecgbyte_hf.interpretation.figures import check_figure_path
    from ecgbyte_hf.provenance import provenance, write_json

    path = check_figure_path(options.output, dpi=options.dpi).with_suffix(".json")
    processor = _tokenizer(options.tokenizer)
    tokenizer = processor.tokenizer
    record = _record(options, processor)
    shown = {"seconds": options.seconds, "title": options.title, "leads": options.leads}
    figure = plot_decode(record, tokenizer, **shown)
    numbers = measure_decoding(record, tokenizer, seconds=options.seconds).numbers()
    say(
        f"{numbers['tokens']} tokens, {numbers['compression']:.2f} samples per token; largest error "
        f"{numbers['max_error_mv']:.4f} mV = {numbers['max_error_bins']:.2f} bins; {numbers['clipped']} samples "
        "outside the range of the bins"
    )
    if options.data is not None:
        say("a prepared folder has the cleaned signal alone; for the recording itself give its file as --record")
    arguments = {name: getattr(options, name) for name in ("record", "data", "tokenizer", "seconds", "leads")}
    origin = provenance("plot decode", arguments, tokenizer=tokenizer.fingerprint)
    say(f"saved {write_json(path, {**numbers, 'provenance': origin})}")
    return _save(figure, options)
