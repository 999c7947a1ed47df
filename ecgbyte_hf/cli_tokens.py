"""`ecgbyte train-tokenizer` and `encode`: tokens learnt from prepared records, and rows written with them.

Only the standard library is imported here; each command imports what it needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ecgbyte_hf.command_line import Adder, add_window, load_processor, open_prepared, say, seed


def add_commands(add: Adder) -> None:
    """Add all of them."""
    _add_train_tokenizer(add)
    _add_encode(add)


def _add_train_tokenizer(add: Adder) -> None:
    command = add(
        "train-tokenizer",
        _train_tokenizer,
        "Learn an ECG-Byte vocabulary from the training records of a prepared folder.",
        "ecgbyte train-tokenizer --data prepared --num-merges 3500 --output ecg-byte\n"
        "  ecgbyte train-tokenizer --data prepared --records sample/sample.json --output ecg-byte",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    add_window(command)
    command.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    command.add_argument("--num-merges", type=int, default=3500, help="merges to learn (default: 3500)")
    command.add_argument(
        "--calibration",
        choices=("percentile", "minmax"),
        default="percentile",
        help="range of the amplitude bins: of all training records, or of each record (default: percentile)",
    )
    command.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        metavar=("LOWER", "UPPER"),
        help="with --calibration percentile: the range is from one to the other and half a millivolt on either side "
        "(default: 1 99, as in the paper; 0.1 99.9 cuts fewer high R waves off)",
    )
    command.add_argument(
        "--lead-boundary",
        choices=("cross", "split"),
        default="cross",
        help="whether a token may go on in the next lead, as in the paper, or not (default: cross)",
    )
    command.add_argument("--max-token-length", type=int, default=1024, help="longest token in samples")
    command.add_argument("--max-records", type=int, help="learn from a uniform draw of this many records")
    command.add_argument(
        "--records",
        metavar="FILE",
        help="learn from these records: a sample.json of `ecgbyte sample`, or a text file with a number on each line",
    )
    command.add_argument("--seed", type=seed, default=0, help="of the draws")
    command.add_argument("--num-threads", type=int, help="threads of the Rust core (default: all)")


def _train_tokenizer(options: argparse.Namespace) -> int:
    from ecgbyte_hf.data.calibration import PERCENTILES
    from ecgbyte_hf.data.sampling import read_record_list
    from ecgbyte_hf.training.train_tokenizer import train_tokenizer

    if options.records and options.max_records is not None:
        say("ecgbyte train-tokenizer: give --records or --max-records, not both", stream=sys.stderr)
        return 2
    if options.percentiles and options.calibration == "minmax":
        say("ecgbyte train-tokenizer: --percentiles has no meaning with --calibration minmax", stream=sys.stderr)
        return 2
    prepared = open_prepared(options)
    records = read_record_list(options.records, data=prepared.folder_fingerprint) if options.records else None
    report = train_tokenizer(
        prepared,
        options.output,
        num_merges=options.num_merges,
        calibration=options.calibration,
        percentiles=tuple(options.percentiles or PERCENTILES),
        lead_boundary=options.lead_boundary,
        max_token_length=options.max_token_length,
        max_records=options.max_records,
        ecg_ids=None if records is None else prepared.ids_of_records(records),
        seed=options.seed,
        num_threads=options.num_threads,
    )
    trained = f"{report['merges']} merges from {report['records_trained_on']} records"
    say(f"{trained} in {sum(report['seconds'].values()):.1f} s, saved in {options.output}")
    if report["merges"] < options.num_merges:
        say(f"  {options.num_merges} were wanted, but no pair is left to merge")
    interval = report["calibration"]
    if interval["method"] == "percentile":
        say(f"  amplitude range     {interval['low']:.3f} to {interval['high']:.3f} mV in 26 bins")
    say(f"  longest token       {report['longest_token']} samples")
    say(f"on {report['records']} {'held-out' if report['held_out'] else 'training (there are no others)'} records:")
    per_ecg = f"{report['tokens_per_ecg']:.0f} tokens per ECG"
    say(f"  compression         {report['compression']:.2f} samples per token, {per_ecg}")
    say(f"  round trip          {100 * report['round_trip']:.1f} % of records come back exactly")
    say(f"  largest error       {report['max_error_mv']:.4f} mV (half a bin is {report['half_bin_mv']:.4f} mV)")
    say(f"  outside the range   {100 * report['clipped']:.3f} % of samples")
    say(f"  vocabulary in use   {100 * report['vocabulary_used']:.1f} %")
    say(f"all of this is in {Path(options.output) / 'training.json'}")
    return 0


def _add_encode(add: Adder) -> None:
    command = add(
        "encode",
        _encode,
        "Write ids of records, or with --model the rows that a trainer reads.",
        "ecgbyte encode --data prepared --tokenizer ecg-byte --output ids\n"
        "  ecgbyte encode --data prepared --model llama-ecg --output rows",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    add_window(command)
    command.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    command.add_argument("--model", metavar="DIR", help="what `ecgbyte extend-llm` wrote; writes training rows")
    command.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="an ECG tokenizer, or its USER/NAME on the Hub; writes the ids of every record",
    )
    rows = command.add_argument_group("training rows, with --model")
    rows.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: train and validation")
    rows.add_argument("--question-types", nargs="+", metavar="TYPE", help="default: all")
    rows.add_argument(
        "--row-format",
        choices=("text", "grouped", "messages", "shared", "ecg"),
        help="text or messages: a question each, as text or for the model's chat template; grouped: several behind "
        "one another; shared: all of an ECG, which do not see one another, for `ecgbyte sft`; ecg: no question, for "
        "next-token training before the questions (default: text, or grouped for more than 1 question per row)",
    )
    rows.add_argument(
        "--questions-per-row", type=int, metavar="N", help="at most (default: 1 of text, all that fit of shared)"
    )
    rows.add_argument(
        "--max-row-tokens", type=int, default=4096, metavar="N", help="of shared rows, at most (default: 4096)"
    )
    rows.add_argument(
        "--turns",
        choices=("first", "separate", "history", "all"),
        default="first",
        help="of ECG-Chat's conversations: the first question, as in the paper; each question by itself, or behind "
        "those before it; or all in one row with loss on every answer (default: first)",
    )
    rows.add_argument(
        "--context",
        nargs="+",
        choices=("age", "sex"),
        help="tell the patient's before the question (default: as given to extend-llm, or nothing)",
    )
    rows.add_argument("--view", choices=("true", "question_only"), default="true", help="what the model is shown")
    rows.add_argument(
        "--augment",
        nargs="+",
        metavar="KIND=MOST",
        default=[],
        help="change the signals of the split train at random, each record or window by itself: noise=MV and "
        "wander=MV from 0 to so much, gain=FACTOR from 1/FACTOR to FACTOR, drop=LEADS from 0 to so many",
    )
    rows.add_argument("--seed", type=seed, default=0, help="of the grouping, and of what --augment draws")
    ids = command.add_argument_group("ids, with --tokenizer; started again after a break, the job goes on")
    ids.add_argument("--num-threads", type=int, help="threads of the Rust core (default: all)")
    ids.add_argument("--records-per-shard", type=int, default=5000, help="records in each file (default: 5000)")
    ids.add_argument("--overwrite", action="store_true", help="begin anew where another job was begun or finished")


def _encode(options: argparse.Namespace) -> int:
    from ecgbyte_hf.data.encode import encode_rows
    from ecgbyte_hf.data.encode_ids import encode_records

    if (options.model is None) == (options.tokenizer is None):
        say("ecgbyte encode: give --model (training rows) or --tokenizer (ids), one of them", stream=sys.stderr)
        return 2
    prepared = open_prepared(options)
    if options.tokenizer:
        tokenizer = load_processor(options.tokenizer).tokenizer
        report = encode_records(
            prepared,
            tokenizer,
            options.output,
            num_threads=options.num_threads,
            records_per_shard=options.records_per_shard,
            overwrite=options.overwrite,
        )
        say(f"{report['records']} records, {report['tokens']} tokens, {report['compression']:.2f} samples per token")
        if report["resumed_at_record"] == report["records"]:
            say(f"  an earlier run had finished it; nothing was left to do in {options.output}")
            return 0
        if report["resumed_at_record"]:
            say(f"  {report['resumed_at_record']} of these records were there from a run that was broken off")
        seconds = report["seconds"]
        shares = ", ".join(
            f"{100 * seconds[name] / seconds['total']:.0f} % {what}"
            for name, what in (("core", "encoding"), ("reading", "waiting to read"), ("writing", "waiting to write"))
        )
        symbols = f"{report['symbols_per_second'] / 1e6:.1f} M symbols"
        say(f"  {report['records_per_second']:.0f} records and {symbols} a second")
        say(f"  {seconds['total']:.1f} s: {shares}")
        return 0
    from ecgbyte_hf.training.augmentation import Augmentation
    from ecgbyte_hf.training.extend_llm import keep_settings, load_prompter

    augmentation = Augmentation(options.augment, sampling_rate=prepared.sampling_rate, seed=options.seed)
    prompter = load_prompter(options.model, prepared, view=options.view, context=options.context)
    splits = options.splits or [split for split in ("train", "validation") if split in prepared.splits]
    report = encode_rows(
        prepared,
        options.output,
        prompter,
        splits=splits,
        row_format=options.row_format,
        questions_per_row=options.questions_per_row,
        max_row_tokens=options.max_row_tokens,
        turns=options.turns,
        question_types=options.question_types,
        augmentation=augmentation if options.augment else None,
        seed=options.seed,
    )
    keep_settings(options.model, prompter.prompt)
    for split, counts in report["splits"].items():
        what = "ECGs" if options.row_format == "ecg" else f"{counts['questions']} questions"
        say(f"{split}: {what} in {counts['rows']} rows")
        if counts["rows_with_ecg_cut"]:
            say(
                f"  the ECG was cut in time in {counts['rows_with_ecg_cut']} rows: median "
                f"{counts['median_seconds_of_ecg']:.2f} s, least {counts['least_seconds_of_ecg']:.2f} s kept of all "
                "leads; no text was cut"
            )
        say(f"  longest row: {counts['longest_row_tokens']} tokens")
    if options.turns == "all" and options.row_format == "messages":
        say("train on these rows with --assistant_only_loss true: else the prompts carry loss too")
    return 0
