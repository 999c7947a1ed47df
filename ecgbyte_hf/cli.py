"""`ecgbyte`: every step from a recording to a scored answer as a command.

Only the standard library is imported here, so that `ecgbyte --help` answers at once; each command imports what it
needs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from ecgbyte_hf import (
    __version__,
    cli_attribution,
    cli_cards,
    cli_convert,
    cli_encoders,
    cli_env,
    cli_plot,
    cli_push,
    cli_systems,
)
from ecgbyte_hf.cli_ecg_llm import add_encoder_options, check_encoder_options, extend_by_encoder
from ecgbyte_hf.command_line import Adder, Command, add_command, say
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError

# Lines of refused records that `prepare` writes to the screen.
_REFUSALS_SHOWN = 20
# As in `feature_extraction_ecg_byte.py`, which takes a second to import.
PROFILES = ("reference", "reference-low", "sos", "none")
# As in `label_questions.py`.
LABEL_SETS = ("superclass", "subclass", "form", "rhythm", "which")
_MODEL_HELP = "what `trl sft` wrote, a model or an adapter, or its USER/NAME on the Hub"


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
        return argparse.Namespace(command="sft", run=_sft, arguments=given[1:]), []  # TRL's parser reads them
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
    _add_read(add)
    _add_prepare(add)
    _add_sample(add)
    _add_train_tokenizer(add)
    _add_encode(add)
    _add_extend_llm(add)
    _add_sft(add)
    _add_generate(add)
    _add_ask(add)
    _add_baseline(add)
    _add_evaluate(add)
    _add_compare(add)
    _add_seeds(add)
    cli_plot.add_commands(add)
    cli_encoders.add_commands(add)
    cli_systems.add_commands(add)
    cli_cards.add_commands(add)
    cli_convert.add_commands(add)
    cli_push.add_commands(add)
    cli_attribution.add_commands(add)
    return parser, commands


def _seed(text: str) -> int:
    """What numpy, torch and scikit-learn all take."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{value} is no seed, expected 0 to {2**32 - 1}")
    return value


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
    command.add_argument("--seed", type=_seed, default=0, help="of records and training")


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


def _add_read(add: Adder) -> None:
    command = add(
        "read",
        _read,
        "Read one recording and say what it holds.",
        "ecgbyte read records500/00000/00001_hr\n"
        "  ecgbyte read ecg.csv --sampling-rate 500 --units mV --lead-names I II III aVR aVL aVF V1 V2 V3 V4 V5 V6",
    )
    command.add_argument("path", help="the recording; for WFDB with or without extension")
    command.add_argument("--leads", nargs="+", metavar="LEAD", help="read only these leads")
    command.add_argument("--format", metavar="NAME", help="read the file as this format (default: found by the file)")
    command.add_argument("--sampling-rate", type=float, metavar="HZ", help="for a file that states none")
    command.add_argument(
        "--lead-names", nargs="+", metavar="LEAD", help="of all channels in the file's order, if it names none"
    )
    command.add_argument("--units", metavar="UNIT", help="V, mV, uV or nV, for a file that states none")


def _read(options: argparse.Namespace) -> int:
    from ecgbyte_hf.signal.records import read_ecg

    record = read_ecg(
        options.path,
        format=options.format,
        leads=options.leads,
        sampling_rate=options.sampling_rate,
        lead_names=options.lead_names,
        units=options.units,
    )
    source = record.source or {}
    seconds = record.signal.shape[1] / record.sampling_rate
    say(f"{record.name}: {record.signal.shape[0]} leads, {seconds:g} s at {record.sampling_rate:g} Hz")
    for name, row in zip(record.lead_names, record.signal, strict=True):
        say(f"  {name:6} {row.min():8.3f} to {row.max():7.3f} mV")
    say(f"format: {source.get('format')} ({', '.join(sorted(set(source.get('units', ()))))})")
    if source.get("derived_leads"):
        say(f"derived from I and II: {', '.join(source['derived_leads'])}")
    say("problems: " + (", ".join(record.problems) or "none"))
    return 0


def _add_prepare(add: Adder) -> None:
    command = add(
        "prepare",
        _prepare,
        "Read, clean and store every record once, with the questions about it. Broken off, the same command goes on.",
        "ecgbyte prepare ecg_qa --data-dir ecg-qa/ecgqa --signals-dir ptb-xl --output prepared\n"
        "  ecgbyte prepare ptb_xl --data-dir ptb-xl --check",
    )
    sources = ("ecg_qa", "ptb_xl", "mimic_iv_ecg", "ecg_chat", "synthetic")
    command.add_argument("source", choices=sources, help="the data set")
    command.add_argument("--output", metavar="DIR", help="folder to write")
    command.add_argument("--check", action="store_true", help="say what files are there and what is missing; no more")
    files = command.add_argument_group("files that you downloaded")
    files.add_argument("--data-dir", metavar="DIR", help="folder of the data set; ECG-QA's is `ecgqa`")
    files.add_argument(
        "--signals-dir", metavar="DIR", help="the recordings of ecg_qa and ecg_chat: PTB-XL's or MIMIC-IV-ECG's folder"
    )
    files.add_argument(
        "--metadata",
        nargs="+",
        default=[],
        metavar="CSV",
        help="tables with ecg_id and patient_id (default: ptbxl_database.csv), or MIMIC-IV-ECG's record_list.csv",
    )
    files.add_argument(
        "--ecg-qa-dir", metavar="DIR", help="for MIMIC-IV-ECG: test the patients that this `ecgqa` folder tests on"
    )
    questions = command.add_argument_group("questions")
    questions.add_argument(
        "--dataset-config",
        nargs="+",
        choices=[f"{half}-{wording}" for half in ("ptbxl", "mimic-iv-ecg") for wording in ("template", "paraphrased")],
        default=["ptbxl-template"],
        help="half and wording of ECG-QA; two wordings are pooled, each in its own split (default: ptbxl-template)",
    )
    questions.add_argument(
        "--question-types", nargs="+", metavar="TYPE", help="only these; `paper` for the paper's three (default: all)"
    )
    questions.add_argument(
        "--splits",
        choices=("disjoint", "published", "reference"),
        default="disjoint",
        help="the data set's own without shared patients, its own as they are, or the paper's (default: disjoint)",
    )
    questions.add_argument(
        "--fraction", type=float, default=1.0, metavar="SHARE", help="share of the patients (the paper: 0.25)"
    )
    questions.add_argument(
        "--held-out-fraction",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the training patients whose questions become the split train_patient_disjoint (default: none)",
    )
    questions.add_argument("--seed", type=_seed, default=0, help="of the simulator, and of every draw of patients")
    questions.add_argument(
        "--questions", choices=("reports", "labels"), default="reports", help="about PTB-XL (default: reports)"
    )
    questions.add_argument(
        "--label-sets",
        nargs="+",
        choices=LABEL_SETS,
        default=["superclass"],
        help="with --questions labels: whether the ECG shows each label of these sets, and `which` superclasses it "
        "shows (default: superclass)",
    )
    questions.add_argument(
        "--negatives",
        type=int,
        metavar="N",
        help="with --questions labels: in training at most N questions of each set and record with the answer no, "
        "drawn by --seed (default: all)",
    )
    questions.add_argument("--test-fold", type=int, metavar="FOLD", help="PTB-XL's fold to test on (default: 10)")
    questions.add_argument(
        "--validation-fold", type=int, metavar="FOLD", help="with --test-fold: to validate on (default: none)"
    )
    questions.add_argument(
        "--train-folds",
        type=int,
        nargs="+",
        metavar="FOLD",
        help="with --test-fold: to train on (default: those of 1 to 8 that are not tested or validated on)",
    )
    questions.add_argument(
        "--file",
        default="pretrain_mimic.json",
        metavar="NAME",
        help="ECG-Chat's conversations in --data-dir (default: pretrain_mimic.json)",
    )
    questions.add_argument(
        "--translate",
        nargs="?",
        const="Helsinki-NLP/opus-mt-de-en",
        metavar="MODEL",
        help="PTB-XL's reports in English, by this model (default: as they are; without a name opus-mt-de-en)",
    )
    cleaning = command.add_argument_group("records")
    cleaning.add_argument("--records", type=int, default=1000, help="simulated records (synthetic)")
    cleaning.add_argument("--rate", type=int, choices=(500, 100), default=500, help="PTB-XL's files (default: 500)")
    cleaning.add_argument(
        "--profile",
        choices=PROFILES,
        help="cleaning (default: reference; none for synthetic; reference-low for --rate 100)",
    )
    cleaning.add_argument("--sampling-rate", type=float, default=250.0, help="Hz of the stored signals (default: 250)")
    cleaning.add_argument("--leads", nargs="+", metavar="LEAD", help="default: all 12")
    cleaning.add_argument(
        "--seconds", type=float, default=10.0, help="kept of each record, from its start (default: 10)"
    )
    cleaning.add_argument(
        "--on-problem",
        nargs="+",
        default=[],
        choices=("nan", "flat", "amplitude"),
        help="keep records with these problems instead of refusing them",
    )
    cleaning.add_argument(
        "--missing-leads",
        choices=("refuse", "zero", "derive"),
        default="refuse",
        help="refuse a record that lacks a lead, make it zeros, or derive limb leads from I and II (default: refuse)",
    )
    work = command.add_argument_group("work")
    work.add_argument("--num-proc", type=int, default=1, help="processes that read and clean (default: 1)")
    work.add_argument("--records-per-part", type=int, default=2048, help="records in each file (default: 2048)")
    work.add_argument("--overwrite", action="store_true", help="begin anew where another job was begun or finished")
    work.add_argument(
        "--engine", choices=("local", "slurm"), help="several tasks by datatrove: here, or on a Slurm cluster"
    )
    work.add_argument("--tasks", type=int, default=2, help="tasks of --engine (default: 2)")
    work.add_argument("--slurm-partition", metavar="NAME", help="with --engine slurm")
    work.add_argument("--slurm-time", default="24:00:00", metavar="HH:MM:SS", help="of one task (default: 24:00:00)")


#: Options of `prepare` that not every data set has.
_PREPARE_OPTIONS = {
    "data_dir": ("ecg_qa", "ptb_xl", "mimic_iv_ecg", "ecg_chat"),
    "signals_dir": ("ecg_qa", "ecg_chat"),
    "metadata": ("ecg_qa", "ptb_xl", "mimic_iv_ecg", "ecg_chat"),
    "ecg_qa_dir": ("mimic_iv_ecg", "ecg_chat"),
    "dataset_config": ("ecg_qa",),
    "question_types": ("ecg_qa", "ptb_xl", "mimic_iv_ecg", "ecg_chat"),
    "splits": ("ecg_qa", "ptb_xl", "mimic_iv_ecg", "ecg_chat"),
    "fraction": ("ecg_qa", "ptb_xl", "mimic_iv_ecg", "ecg_chat"),
    "held_out_fraction": ("ecg_qa", "ptb_xl", "mimic_iv_ecg", "ecg_chat"),
    "questions": ("ptb_xl",),
    "label_sets": ("ptb_xl",),
    "negatives": ("ptb_xl",),
    "test_fold": ("ptb_xl",),
    "validation_fold": ("ptb_xl",),
    "train_folds": ("ptb_xl",),
    "translate": ("ptb_xl",),
    "file": ("ecg_chat",),
    "rate": ("ptb_xl",),
    "records": ("synthetic",),
}


def _surplus_options(options: argparse.Namespace) -> list[str]:
    """What was given and would be passed over."""
    usual = build_parser()[1]["prepare"]
    surplus = [
        name
        for name, sources in _PREPARE_OPTIONS.items()
        if options.source not in sources and getattr(options, name) != usual.get_default(name)
    ]
    if options.engine is None:
        surplus += [name for name in ("tasks", "slurm_partition") if getattr(options, name) != usual.get_default(name)]
    elif options.num_proc != 1:
        surplus.append("num_proc")
    if options.translate is not None and options.questions != "reports":
        surplus.append("translate")
    if options.questions != "labels":
        surplus += [name for name in ("label_sets", "negatives") if getattr(options, name) != usual.get_default(name)]
    if options.test_fold is None:
        surplus += [name for name in ("validation_fold", "train_folds") if getattr(options, name) is not None]
    return [f"--{name.replace('_', '-')}" for name in dict.fromkeys(surplus)]


def _prepare(options: argparse.Namespace) -> int:
    if surplus := _surplus_options(options):
        say(
            f"ecgbyte prepare {options.source}: {', '.join(surplus)} has no meaning here; leave it out",
            stream=sys.stderr,
        )
        return 2
    if options.source in ("mimic_iv_ecg", "ecg_chat") and len(options.metadata) > 1:
        say(f"ecgbyte prepare {options.source}: give one --metadata, a list of records", stream=sys.stderr)
        return 2
    if options.check:
        return _check_files(options)
    needs = {"ecg_qa": ("data_dir", "signals_dir"), "ecg_chat": ("data_dir", "signals_dir"), "synthetic": ()}
    missing = [
        f"--{name.replace('_', '-')}"
        for name in ("output", *needs.get(options.source, ("data_dir",)))
        if not getattr(options, name)
    ]
    if missing:
        say(f"ecgbyte prepare {options.source}: needs {', '.join(missing)}", stream=sys.stderr)
        return 2
    was_finished = (Path(options.output) / "report.json").is_file() and not options.overwrite
    prepared = _prepared(options)
    report = prepared.report
    if was_finished:
        say("an earlier run of the same command had finished it; nothing was left to do")
    say(f"{report['records']} records in {prepared.folder}, {len(report['refused'])} refused")
    for refusal in report["refused"][:_REFUSALS_SHOWN]:
        say(f"  refused: {refusal['reason']}")
    if len(report["refused"]) > _REFUSALS_SHOWN:
        say(f"  and {len(report['refused']) - _REFUSALS_SHOWN} more: all are in {prepared.folder / 'report.json'}")
    for split, count in report["questions"].items():
        say(f"  {split}: {count} questions, {report['questions_without_their_record'][split]} without their record")
    if report.get("records_without_question"):
        say(f"  {report['records_without_question']} records of the tables have no question and were not read")
    for split, count in report.get("questions_of_patients_in_a_later_split", {}).items():
        if count:
            say(f"  {split}: {count} questions left out since their patient is in a later split")
    for pair, shared_ids in report["overlap"].items():
        if pair != "unknown_patients":
            say(f"  shared by {pair}: {len(shared_ids['ecgs'])} ECGs, {len(shared_ids['patients'])} patients")
    for split, count in report["overlap"]["unknown_patients"].items():
        if count:
            say(f"  {split}: the patient of {count} ECGs is unknown, so they are not checked")
    return 0


def _check_files(options: argparse.Namespace) -> int:
    from ecgbyte_hf.data.check import check_data_set, check_lines

    if options.source == "synthetic" or not options.data_dir:
        say(f"ecgbyte prepare {options.source} --check: needs --data-dir, of files to check", stream=sys.stderr)
        return 2
    tables = [str(Path(path).resolve()) for path in options.metadata]
    record_list = {"record_list": tables[0]} if tables else {}
    more: dict[str, dict[str, Any]] = {
        "ptb_xl": {"metadata": tables, "sampling_rate": options.rate},
        "mimic_iv_ecg": record_list,
        "ecg_qa": {"configs": options.dataset_config},
    }
    findings = check_data_set(options.source, options.data_dir, **more.get(options.source, {}))
    if options.signals_dir:
        on_mimic = options.source == "ecg_chat" or options.dataset_config[0].startswith("mimic")
        if on_mimic:
            findings += check_data_set("mimic_iv_ecg", options.signals_dir, **record_list)
        else:
            findings += check_data_set("ptb_xl", options.signals_dir, sampling_rate=500)
    lines, is_complete = check_lines(findings)
    for line in lines:
        say(line)
    return 0 if is_complete else 1


def _prepared(options: argparse.Namespace) -> Any:
    from ecgbyte_hf.data import sources

    shared: dict[str, Any] = {
        "feature_extractor": _extractor(options),
        "duration": options.seconds,
        "num_proc": options.num_proc,
        "records_per_part": options.records_per_part,
        "overwrite": options.overwrite,
        "engine": _engine(options),
    }
    if options.source == "synthetic":
        return sources.prepare_synthetic(options.output, num_records=options.records, seed=options.seed, **shared)
    shared["division"] = sources.Division(
        splits=options.splits,
        fraction=options.fraction,
        held_out_fraction=options.held_out_fraction,
        question_types=options.question_types,
        seed=options.seed,
    )
    shared["data_dir"] = options.data_dir
    if options.source == "ecg_qa":
        more = {"signals_dir": options.signals_dir, "config": options.dataset_config, "metadata": options.metadata}
        return sources.prepare_ecg_qa(options.output, **shared, **more)
    if options.source == "ptb_xl":
        more = {"sampling_rate": options.rate, "questions": options.questions, "metadata": options.metadata}
        more["labels"] = sources.LabelOptions(tuple(options.label_sets), options.negatives)
        if options.test_fold is not None:
            more["folds"] = sources.Folds(options.test_fold, options.validation_fold, options.train_folds)
        return sources.prepare_ptb_xl(options.output, translation_model=options.translate, **shared, **more)
    shared["record_list"] = options.metadata[0] if options.metadata else None
    shared["ecg_qa_dir"] = options.ecg_qa_dir
    if options.source == "mimic_iv_ecg":
        return sources.prepare_mimic_iv_ecg(options.output, **shared)
    return sources.prepare_ecg_chat(options.output, signals_dir=options.signals_dir, file=options.file, **shared)


def _extractor(options: argparse.Namespace) -> Any:
    from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

    low_rate = options.source == "ptb_xl" and options.rate == 100
    usual = "none" if options.source == "synthetic" else "reference-low" if low_rate else "reference"
    settings: dict[str, Any] = {
        "profile": options.profile or usual,
        "sampling_rate": int(options.sampling_rate) if options.sampling_rate % 1 == 0 else options.sampling_rate,
        "on_problem": options.on_problem,
        "missing_leads": options.missing_leads,
    }
    if options.leads:
        settings["leads"] = options.leads
    return EcgByteFeatureExtractor(**settings)


def _engine(options: argparse.Namespace) -> Any:
    """What writes the parts, if it is not this process."""
    if options.engine is None:
        return None
    from ecgbyte_hf.data.cluster import on_slurm, on_this_machine

    if options.engine == "local":
        return on_this_machine(options.tasks)
    if not options.slurm_partition:
        raise EcgDataError("--engine slurm needs --slurm-partition, the name of a partition of your cluster")
    return on_slurm(options.tasks, partition=options.slurm_partition, time_limit=options.slurm_time)


def _add_sample(add: Adder) -> None:
    command = add(
        "sample",
        _sample,
        "Draw the records that a tokenizer is learnt from: uniformly, or as many of every kind of ECG.",
        "ecgbyte sample --data prepared --num-records 1000 --method stratified --output sample\n"
        "  ecgbyte sample --data prepared --num-records 1000 --compare --output sample",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    command.add_argument("--num-records", required=True, type=int, help="training records to draw")
    command.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    command.add_argument(
        "--method",
        choices=("uniform", "stratified"),
        default="uniform",
        help="every record as likely as any other, or equal shares of clusters of similar ECGs, which compressed "
        "PTB-XL no better (default: uniform)",
    )
    command.add_argument(
        "--scaling",
        choices=("standardised", "reference"),
        default="standardised",
        help="whether features are standardised before their principal components, or not as in the paper",
    )
    command.add_argument("--num-clusters", type=int, help="default: found from elbow and silhouette")
    command.add_argument("--seed", type=_seed, default=42, help="of clusters and draw (default: 42)")
    command.add_argument("--num-proc", type=int, default=1, help="processes that measure features (default: 1)")
    comparison = command.add_argument_group("comparison of the two methods, on records that are not in training")
    comparison.add_argument("--compare", action="store_true", help="train a tokenizer on draws of both and compare")
    comparison.add_argument("--num-merges", type=int, default=1000, help="of these tokenizers (default: 1000)")
    comparison.add_argument(
        "--compare-seeds", type=_seed, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2"
    )
    comparison.add_argument("--num-threads", type=int, help="threads of the Rust core (default: all)")


def _sample(options: argparse.Namespace) -> int:
    from ecgbyte_hf.data.morphology import record_features
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.data.sampling import draw_clusters, draw_stratified, draw_uniform

    prepared = PreparedData(_data_folder(options.data))
    train_ids = prepared.train_ecg_ids()
    folder = Path(options.output)
    arguments = {name: value for name, value in vars(options).items() if name not in ("run", "command", "config")}
    features = None
    refused: tuple[tuple[int, str], ...] = ()
    if options.method == "stratified" or options.compare:
        features = record_features(prepared, folder / "features.parquet", ecg_ids=train_ids, num_proc=options.num_proc)
        refused = features.refused
    choice = {"scaling": options.scaling, "num_clusters": options.num_clusters}
    if features is None or options.method == "uniform":
        draw = draw_uniform(train_ids, options.num_records, seed=options.seed)
    else:
        clusters = draw_clusters(features, options.num_records, seed=options.seed, **choice)
        draw = draw_stratified(features, options.num_records, seed=options.seed, clusters=clusters)
    saved = draw.save(folder, arguments, data=prepared.fingerprint, records_without_features=dict(refused))
    say(f"{len(draw.ecg_ids)} of {draw.num_candidates} training records drawn, saved in {saved}")
    if refused:
        say(f"  {len(refused)} could not be drawn since they have no features; the reasons are there")
    if draw.clusters is not None:
        _say_clusters(draw, folder / "sample.png")
    if options.compare and features is not None:
        from ecgbyte_hf.training.compare_draws import compare_draws, comparison_table

        report = compare_draws(
            prepared,
            features,
            folder / "comparison.json",
            num_records=options.num_records,
            num_merges=options.num_merges,
            seeds=options.compare_seeds,
            num_threads=options.num_threads,
            **choice,
        )
        say(comparison_table(report))
    return 0


def _say_clusters(draw: Any, path: Path) -> None:
    """What a stratified draw was stratified by, as text and as a figure."""
    from ecgbyte_hf.interpretation.corpus_figures import plot_corpus_draw
    from ecgbyte_hf.interpretation.figures import save_figure

    clusters = draw.clusters
    counts = f"{clusters.sizes[0]} records in the largest, {clusters.sizes[-1]} in the smallest"
    say(f"  {clusters.num_clusters} clusters by {clusters.algorithm}: {counts}")
    if len(clusters.fits) > 1:
        say(f"  elbow at k = {clusters.elbow_k}, best silhouette at k = {clusters.silhouette_k}")
    say(f"  figure in {save_figure(plot_corpus_draw(draw), path)}")


def _add_window(command: argparse.ArgumentParser) -> None:
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


def _open_prepared(options: argparse.Namespace) -> Any:
    """The prepared folder, or windows of its records."""
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.data.windows import WindowedData

    if options.window_seconds is None:
        if options.window_stride is not None:
            raise EcgError("--window-stride needs --window-seconds")
        return PreparedData(_data_folder(options.data))
    windows = WindowedData(_data_folder(options.data), options.window_seconds, stride_seconds=options.window_stride)
    if windows.samples_left_over:
        seconds = windows.samples_left_over / windows.sampling_rate
        say(f"{windows.windows_per_record} windows per record; the last {seconds:g} s of each fill none")
    return windows


def _data_folder(place: str) -> Path:
    """A prepared folder, from the Hub where it is `USER/NAME` there."""
    from ecgbyte_hf.data.hub_folder import is_repo_id, local_or_hub_folder

    return (
        local_or_hub_folder(place, made_by="ecgbyte prepare", repo_type="dataset")
        if is_repo_id(place)
        else Path(place)
    )


def _add_train_tokenizer(add: Adder) -> None:
    command = add(
        "train-tokenizer",
        _train_tokenizer,
        "Learn an ECG-Byte vocabulary from the training records of a prepared folder.",
        "ecgbyte train-tokenizer --data prepared --num-merges 3500 --output ecg-byte\n"
        "  ecgbyte train-tokenizer --data prepared --records sample/sample.json --output ecg-byte",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    _add_window(command)
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
    command.add_argument("--seed", type=_seed, default=0, help="of the draws")
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
    prepared = _open_prepared(options)
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
    _add_window(command)
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
    rows.add_argument("--seed", type=_seed, default=0, help="of the grouping, and of what --augment draws")
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
    prepared = _open_prepared(options)
    if options.tokenizer:
        tokenizer = _load_processor(options.tokenizer).tokenizer
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


def _add_extend_llm(add: Adder) -> None:
    command = add(
        "extend-llm",
        _extend_llm,
        "Give a language model rows for the ECG tokens, or an encoder in front of it; then `ecgbyte sft` trains it.",
        "ecgbyte extend-llm --model meta-llama/Llama-3.2-1B --tokenizer ecg-byte --output llama-ecg\n"
        "  ecgbyte extend-llm --model meta-llama/Llama-3.2-1B --encoder encoder --output llama-encoder",
    )
    command.add_argument("--model", default="meta-llama/Llama-3.2-1B", help="any causal language model")
    command.add_argument("--tokenizer", metavar="DIR", help="what `ecgbyte train-tokenizer` wrote")
    add_encoder_options(command)
    command.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    command.add_argument("--max-length", type=int, default=1024, help="tokens of prompt and answer together")
    command.add_argument("--reserve", type=int, default=64, help="tokens of these kept free for the answer")
    command.add_argument(
        "--prompt-format",
        choices=("plain", "chat"),
        default="plain",
        help="the question as plain text, or in the chat template of an Instruct model (default: plain)",
    )
    command.add_argument("--system-prompt", metavar="TEXT", help="with --prompt-format chat: the system's message")
    command.add_argument(
        "--template",
        metavar="TEXT",
        help="wording of a plain prompt, with {ecg} and {question} (default: the ECG, a line with the question, and a "
        "line for the answer)",
    )
    command.add_argument(
        "--context",
        nargs="+",
        choices=("age", "sex"),
        help="tell the patient's before the question (default: as the first `encode` says)",
    )
    command.add_argument(
        "--window-seconds",
        type=float,
        metavar="SECONDS",
        help="the model is for windows of this length, 0 for whole records (default: as the first `encode` says)",
    )
    command.add_argument(
        "--init",
        choices=("waveform", "spread", "mean", "resize"),
        default="waveform",
        help="new rows of ECG tokens: spread like the old ones and near each other where the tokens' waveforms are; "
        "spread at random; all at the old ones' mean; as transformers resizes (default: %(default)s)",
    )
    command.add_argument("--seed", type=_seed, default=0, help="of the new rows")
    command.add_argument("--dtype", default="auto", help="dtype of the weights, as in from_pretrained")
    command.add_argument("--revision", help="revision of the model on the Hub")
    command.add_argument(
        "--tiny-from",
        metavar="DIR",
        help="make a small random Llama for this prepared folder instead of loading --model: nothing is downloaded",
    )
    command.add_argument(
        "--tiny-size",
        type=int,
        nargs=3,
        default=[128, 4, 512],
        metavar=("WIDTH", "LAYERS", "WORDS"),
        help="of --tiny-from, with the entries of its text vocabulary (default: 128 4 512)",
    )


def _extend_llm(options: argparse.Namespace) -> int:
    import tempfile

    from ecgbyte_hf.data.prompts import EcgPrompt
    from ecgbyte_hf.training.extend_llm import extend_llm

    if options.template is not None and options.prompt_format == "chat":
        raise EcgError("--template is for --prompt-format plain; a chat has the template of its tokenizer")
    prompt = EcgPrompt(
        **({} if options.template is None else {"template": options.template}),
        max_length=options.max_length,
        reserve=options.reserve,
        context=options.context,
        window_seconds=options.window_seconds,
    )
    check_encoder_options(options)
    processor = None if options.encoder else _load_processor(options.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if options.tiny_from:
            from ecgbyte_hf.data.prepared import PreparedData
            from ecgbyte_hf.training.tiny_llm import make_tiny_llama, texts_of

            width, layers, words = options.tiny_size
            sizes = {"hidden_size": width, "num_layers": layers, "text_vocab_size": words}
            model = str(make_tiny_llama(folder, texts_of(PreparedData(options.tiny_from), prompt), **sizes))
        if options.encoder:
            return extend_by_encoder(options, model, prompt, say)
        made = extend_llm(
            model,
            processor,
            options.output,
            prompt=prompt,
            prompt_format=options.prompt_format,
            system_prompt=options.system_prompt,
            init=options.init,
            seed=options.seed,
            dtype=options.dtype,
            revision=options.revision,
        )
    tied = "tied" if made.tied else "separate"
    say(f"{made.num_added} tokens added, {made.vocab_size} in all, {tied} embeddings; saved in {made.folder}")
    say(f"next: ecgbyte encode --data PREPARED --model {made.folder} --output ROWS")
    return 0


def _add_sft(add: Adder) -> None:
    from ecgbyte_hf.training.sft import EcgArguments

    command = add(
        "sft",
        _sft,
        "Train an extended model: `trl sft` with what its command line lacks for ECG tokens.\n"
        "All options but the last six are TRL's, in their spelling; `trl sft --help` lists them.",
        "ecgbyte sft --config scripts/recipes/sft_paper.yaml --model_name_or_path llama-ecg --dataset_name rows "
        "--output_dir sft",
    )
    command.add_argument("--model_name_or_path", metavar="DIR", help="what `ecgbyte extend-llm` wrote")
    command.add_argument("--dataset_name", metavar="DIR", help="what `ecgbyte encode` wrote")
    command.add_argument("--output_dir", metavar="DIR", help="folder to write; then `ecgbyte generate --model DIR`")
    command.add_argument(
        "--resume_from_checkpoint",
        metavar="DIR",
        help="go on from a checkpoint; `true` for the newest in --output_dir",
    )
    for option in fields(EcgArguments):
        metavar = "N" if option.default is None else "true|false"
        command.add_argument(f"--{option.name}", metavar=metavar, help=option.metadata["help"])


def _sft(options: argparse.Namespace) -> int:
    from ecgbyte_hf.training.sft import run_sft

    return run_sft(options.arguments)


def _add_generate(add: Adder) -> None:
    command = add(
        "generate",
        _generate,
        "Answer the questions of a split, or one question about one recording.",
        "ecgbyte generate --model sft --data prepared --split test --output answers.jsonl\n"
        "  ecgbyte generate --model sft --record 00001_hr --question 'Is the rhythm regular?'",
    )
    command.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)
    command.add_argument("--revision", help="of a model on the Hub: branch, tag or commit")
    command.add_argument("--ecg", metavar="DIR", help="folder with the ECG tokenizer (default: the model's ecg_byte/)")
    command.add_argument("--data", metavar="DIR", help="what `ecgbyte prepare` wrote")
    _add_window(command)
    _add_perturb(command)
    command.add_argument("--split", default="test", help="whose questions are asked (default: test)")
    command.add_argument("--output", metavar="FILE", help="JSON Lines file; a broken run is resumed")
    command.add_argument(
        "--view",
        choices=("true", "question_only", "zero_signal", "shuffled"),
        default="true",
        help="what the model is shown: the ECG, or a control",
    )
    command.add_argument("--record", metavar="PATH", help="one recording instead of a prepared folder")
    command.add_argument("--question", help="the question about --record")
    command.add_argument("--batch-size", type=int, help="questions at a time (default: 16; vllm: 1024)")
    command.add_argument("--max-new-tokens", type=int, default=64, help="of the longest answer (default: 64)")
    command.add_argument("--device", help="such as cuda or cpu (default: the best there is)")
    command.add_argument("--seed", type=_seed, default=0, help="of the shuffled control")
    _add_decoding(command)


def _add_decoding(command: argparse.ArgumentParser) -> None:
    decoding = command.add_argument_group("how answers are made")
    decoding.add_argument(
        "--shared-prefix",
        choices=("auto", "on", "off"),
        default="auto",
        help="compute an ECG once for all its questions: auto does where the model can and an ECG has several",
    )
    decoding.add_argument(
        "--score-options",
        choices=("none", "verify", "all"),
        default="none",
        help="also write the log-probability of every valid answer, of verify questions or of all (default: none)",
    )
    decoding.add_argument(
        "--options-only",
        action="store_true",
        help="write nothing freely: the answer is the likeliest valid one, never several",
    )
    decoding.add_argument(
        "--backend",
        choices=("transformers", "vllm"),
        default="transformers",
        help="vllm needs the extra vllm and a whole model (`ecgbyte sft --merge`) (default: transformers)",
    )


def _generate(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.backends import BATCH_SIZES, load_language_model
    from ecgbyte_hf.evaluation.generate import generate_answers, make_prompter, report_path

    if bool(options.record) == bool(options.data):
        say("ecgbyte generate: give --data and --output, or --record and --question", stream=sys.stderr)
        return 2
    needed = "question" if options.record else "output"
    if not getattr(options, needed):
        say(f"ecgbyte generate: {'--record' if options.record else '--data'} needs --{needed}", stream=sys.stderr)
        return 2
    if options.backend == "vllm" and (options.options_only or options.score_options != "none"):
        say("ecgbyte generate: --backend vllm scores no options", stream=sys.stderr)
        return 2
    language_model = load_language_model(
        options.backend,
        options.model,
        ecg=options.ecg,
        device=options.device,
        max_new_tokens=options.max_new_tokens,
        revision=options.revision,
    )
    if options.record:
        from ecgbyte_hf.signal.records import read_ecg

        record = read_ecg(options.record)
        say(language_model.answer(record, options.question, max_new_tokens=options.max_new_tokens))
        return 0
    prepared = _perturbed(_open_prepared(options), options)
    rows = prepared.questions(options.split)
    prompter = make_prompter(language_model, prepared, rows, view=options.view, seed=options.seed)
    path = generate_answers(
        language_model,
        rows,
        prompter,
        prepared.template_options(),
        options.output,
        batch_size=BATCH_SIZES[options.backend] if options.batch_size is None else options.batch_size,
        max_new_tokens=options.max_new_tokens,
        shared_prefix=options.shared_prefix,
        score_options=options.score_options,
        options_only=options.options_only,
    )
    cut = json.loads(report_path(path).read_text(encoding="utf-8"))["answers_at_limit"]
    say(f"{len(rows)} answers in {path}" + (f", {cut} of them cut off at --max-new-tokens" if cut else ""))
    return 0


def _add_perturb(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--perturb",
        nargs="+",
        metavar="KIND=VALUE",
        default=[],
        help="make the prepared signals worse: noise=MV, wander=MV, gain=FACTOR, drop=LEADS, swap=ra-la, la-ll or "
        "ra-ll (drawn by --seed)",
    )


def _perturbed(prepared: Any, options: argparse.Namespace, *, only: set[int] | None = None) -> Any:
    """The folder with the changes of `--perturb`."""
    from ecgbyte_hf.evaluation.perturbations import perturb

    return perturb(prepared, options.perturb, seed=options.seed, only=only) if options.perturb else prepared


def _add_ask(add: Adder) -> None:
    command = add(
        "ask",
        _ask,
        "Ask a model questions about one recording. Research use only.",
        "ecgbyte ask --model sft 00001_hr 'Is the rhythm regular?' 'Which leads show ST changes?'",
    )
    command.add_argument("record", metavar="RECORD", help="the recording, in any format that `ecgbyte read` knows")
    command.add_argument("questions", nargs="+", metavar="QUESTION", help="in quotes")
    command.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)
    command.add_argument("--revision", help="of a model on the Hub: branch, tag or commit")
    command.add_argument("--ecg", metavar="DIR", help="folder with the ECG tokenizer (default: the model's ecg_byte/)")
    command.add_argument("--age", type=float, help="in years, for a model that was trained with it")
    command.add_argument("--sex", choices=("male", "female"), help="for a model that was trained with it")
    command.add_argument("--max-new-tokens", type=int, default=64, help="of the longest answer (default: 64)")
    command.add_argument("--device", help="such as cuda or cpu (default: the best there is)")


def _ask(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
    from ecgbyte_hf.signal.records import read_ecg

    record = read_ecg(options.record)
    language_model = EcgLanguageModel.load(
        options.model, ecg=options.ecg, device=options.device, revision=options.revision
    )
    given: Any = {
        "max_new_tokens": options.max_new_tokens,
        "context": {"age": options.age, "sex": options.sex},
    }
    if sys.stdout.isatty():
        streamer = _answer_streamer(language_model.lm_tokenizer, options.questions)
        language_model.answer_all(record, options.questions, **given, streamer=streamer)
        return 0
    answers = language_model.answer_all(record, options.questions, **given)
    for question, answer in zip(options.questions, answers, strict=True):
        say(answer.text if len(answers) == 1 else f"{question}\n{answer.text}")
    return 0


def _answer_streamer(lm_tokenizer: Any, questions: Sequence[str]) -> Any:
    """Writes each word when it is there; of several questions each before its answer."""
    from transformers import TextStreamer

    class AnswerStreamer(TextStreamer):
        """Gets the tokens of one prompt after another."""

        _waiting = list(questions) if len(questions) > 1 else []

        def put(self, value: Any) -> None:
            if self.next_tokens_are_prompt and self._waiting:
                say(self._waiting.pop(0))
            super().put(value)

    return AnswerStreamer(lm_tokenizer, skip_prompt=True, skip_special_tokens=True)


def _add_baseline(add: Adder) -> None:
    command = add(
        "baseline",
        _baseline,
        "Train a supervised model of the signal on the labels that yes/no questions ask about, and answer with it.",
        "ecgbyte baseline --data prepared --kind resnet1d --output resnet1d.jsonl\n"
        "  ecgbyte baseline --data prepared --kind bigram --tokenizer ecg-byte --output bigram.jsonl",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    _add_window(command)
    _add_perturb(command)
    command.add_argument(
        "--kind",
        choices=("resnet1d", "bigram"),
        required=True,
        help="a one-dimensional ResNet, or logistic regression on counts of neighbouring symbols, without their order",
    )
    command.add_argument("--split", default="test", help="questions to answer (default: test)")
    command.add_argument(
        "--output", required=True, metavar="FILE", help="JSON Lines file; the report goes beside it as .report.json"
    )
    command.add_argument(
        "--worse",
        nargs="+",
        metavar="KIND=VALUE",
        default=[],
        help="once trained, also answer about recordings made worse, each change (as for --perturb) by itself, into "
        "FILE with -KIND=VALUE in its name",
    )
    command.add_argument("--tokenizer", metavar="DIR", help="bigram: what `ecgbyte train-tokenizer` wrote")
    command.add_argument(
        "--epochs",
        type=int,
        help="resnet1d: exactly so many (default: the best of 12 on validation, or 12 without it)",
    )
    command.add_argument(
        "--c",
        type=float,
        metavar="C",
        help="bigram: inverse strength of the penalty (default: the best of four on validation, or 0.001 without it)",
    )
    command.add_argument("--seed", type=_seed, default=0, help="of the ResNet")
    command.add_argument("--num-threads", type=int, help="threads (default: all)")
    command.add_argument("--device", metavar="NAME", help="resnet1d: cuda or cpu (default: the best there is)")


#: Options of `baseline` that only one kind has.
_BASELINE_OPTIONS = {"tokenizer": "bigram", "c": "bigram", "epochs": "resnet1d", "device": "resnet1d"}


def _baseline(options: argparse.Namespace) -> int:
    surplus = [
        f"--{name}"
        for name, kind in _BASELINE_OPTIONS.items()
        if kind != options.kind and getattr(options, name) is not None
    ]
    if surplus or (options.kind == "bigram" and not options.tokenizer):
        what = f"leave out {', '.join(surplus)}" if surplus else "give --tokenizer, whose symbols are counted"
        say(f"ecgbyte baseline --kind {options.kind}: {what}", stream=sys.stderr)
        return 2
    from ecgbyte_hf.evaluation.signal_baselines import BaselineOptions, answer_by_baseline

    prepared = _open_prepared(options)
    asked = prepared.questions(options.split) if options.perturb else []
    # It learns from recordings as they are.
    prepared = _perturbed(
        prepared, options, only={one for row in asked for one in row.get("record_id", row["ecg_id"])}
    )
    report = answer_by_baseline(
        prepared,
        options.output,
        kind=options.kind,
        split=options.split,
        processor=_load_processor(options.tokenizer) if options.tokenizer else None,
        options=BaselineOptions(options.epochs, options.c, options.seed, options.num_threads, options.device),
        worse=options.worse,
    )
    for split, macro in report["macro_auc"].items():
        parts = {"all labels": macro, **macro["by_attribute"]}
        for name, mean in parts.items():
            if mean["labels"]:
                say(f"{split} {name}: macro AUC {mean['value']:.3f} over {mean['labels']} labels")
    unanswered = sum(report["unanswered"].values())
    without = f", {unanswered} of them empty" if unanswered else ""
    say(f"{report['questions']} answers in {options.output}{without}; {sum(report['seconds'].values()):.0f} s")
    return 0


def _add_evaluate(add: Adder) -> None:
    command = add(
        "evaluate",
        _evaluate,
        "Score answers by exact match, beside the controls.",
        "ecgbyte evaluate --data prepared --predictions answers.jsonl --control shuffled=shuffled.jsonl "
        "--output report.json",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    _add_window(command)
    command.add_argument("--predictions", required=True, metavar="FILE", help="what `ecgbyte generate` wrote")
    command.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="answers of a control: question_only, zero_signal or shuffled; may be repeated",
    )
    command.add_argument(
        "--system",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="answers of another system, such as a supervised network, to stand beside the model; may be repeated",
    )
    command.add_argument(
        "--by-record",
        action="store_true",
        help="score one answer about each record: P(yes) averaged over its windows, other answers by vote; files of "
        "windows of any length and of whole records may stand side by side (leave out --window-seconds)",
    )
    command.add_argument("--output", required=True, metavar="FILE", help="JSON report; its tables go beside it as .md")
    command.add_argument(
        "--model-name",
        metavar="NAME",
        help="also write .model_index.yaml, the scores for this model's card on the Hub",
    )
    command.add_argument(
        "--dataset-id",
        metavar="USER/NAME",
        help="also write .eval_results.yaml, the scores on this data set of the Hub for the model's repository",
    )
    command.add_argument("--dataset-revision", metavar="COMMIT", help="of --dataset-id")
    command.add_argument("--source-url", metavar="URL", help="where this evaluation is described, for --dataset-id")
    command.add_argument(
        "--statements",
        metavar="FILE",
        help="YAML (label: phrases) or CSV (label, phrase) of what to look for in reports (default: our own list)",
    )
    command.add_argument("--no-rule", action="store_true", help="leave out the rule (it needs neurokit2)")
    _add_text_metrics(command)
    command.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples")
    command.add_argument("--seed", type=_seed, default=0, help="of the bootstrap")
    command.add_argument("--num-proc", type=int, default=1, help="processes that measure ECGs for the rule")


def _add_text_metrics(command: argparse.ArgumentParser) -> None:
    text = command.add_argument_group("answers as texts")
    text.add_argument(
        "--text-metrics", action="store_true", help="also BLEU, ROUGE, METEOR and token F1 (needs the extra eval)"
    )
    text.add_argument(
        "--bertscore-model", metavar="DIR", help="also BERTScore with this encoder, such as roberta-large"
    )
    text.add_argument(
        "--bertscore-layer", type=int, metavar="N", help="of the encoder (default: as bert-score knows it)"
    )
    text.add_argument(
        "--answer-separator",
        metavar="TEXT",
        help="between several right answers, as the model was trained to write them (default: a comma and a space)",
    )


def _given_text_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("bertscore_model", "bertscore_layer", "answer_separator")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _evaluate(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.evaluate import CONTROLS_OVER_ALL, evaluate_predictions, report_table
    from ecgbyte_hf.evaluation.predictions import asked_model, read_predictions
    from ecgbyte_hf.evaluation.report_files import (
        check_dataset_id,
        check_own_scores,
        eval_results,
        markdown_path,
        write_report_files,
    )
    from ecgbyte_hf.evaluation.text_metrics import TextOptions

    given = _given_text_options(options)
    if given and not options.text_metrics:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        say(f"ecgbyte evaluate: {flags} needs --text-metrics", stream=sys.stderr)
        return 2
    if not options.dataset_id and (options.dataset_revision or options.source_url):
        say("ecgbyte evaluate: --dataset-revision and --source-url need --dataset-id", stream=sys.stderr)
        return 2
    controls, systems = _named_files(options.control), _named_files(options.system)
    for text in options.control:
        name = text.partition("=")[0]
        if name not in controls or name not in CONTROLS_OVER_ALL or name == "majority":
            say(
                f"ecgbyte evaluate: --control {text!r} is not NAME=FILE with NAME question_only, zero_signal or "
                "shuffled (majority is computed)",
                stream=sys.stderr,
            )
            return 2
    for text in options.system:
        if text.partition("=")[0] not in systems:
            say(f"ecgbyte evaluate: --system {text!r} is not NAME=FILE", stream=sys.stderr)
            return 2
    if options.dataset_id:
        check_dataset_id(options.dataset_id)
    markdown_path(options.output)  # refused before the work
    if options.dataset_id or options.model_name:
        asked = asked_model(options.predictions, read_predictions(options.predictions))
        check_own_scores({"provenance": {"model": asked}})
    prepared = _open_prepared(options)
    report = evaluate_predictions(
        prepared,
        options.predictions,
        controls=controls,
        systems=systems,
        statements=options.statements,
        output=options.output,
        by_record=options.by_record,
        with_rule=not options.no_rule,
        text=TextOptions(**given) if options.text_metrics else None,
        n_resamples=options.resamples,
        seed=options.seed,
        num_proc=options.num_proc,
    )
    data_set = prepared.report.get("source", prepared.folder.name)
    results = None
    if options.dataset_id:
        results = eval_results(
            report,
            dataset_id=options.dataset_id,
            revision=options.dataset_revision,
            source_url=options.source_url,
            date=datetime.now(UTC).date().isoformat(),
        )
    written = write_report_files(
        report, options.output, data_set=data_set, model_name=options.model_name, results=results
    )
    say(report_table(report))
    say(f"saved {', '.join(map(str, [options.output, *written]))}")
    return 0


def _named_files(given: Sequence[str]) -> dict[str, str]:
    """Files by name, of those options that are NAME=FILE."""
    parts = [text.partition("=") for text in given]
    return {name: path for name, separator, path in parts if name and separator and path}


def _add_compare(add: Adder) -> None:
    command = add(
        "compare",
        _compare,
        "Compare two runs on the same questions, with paired intervals by ECG.",
        "ecgbyte compare --data prepared --first seed-0.jsonl --second seed-1.jsonl --output comparison.json",
    )
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    _add_window(command)
    command.add_argument("--first", required=True, metavar="FILE", help="what `ecgbyte generate` wrote")
    command.add_argument("--second", required=True, metavar="FILE", help="of another run; above 0: this one is better")
    command.add_argument("--output", required=True, metavar="FILE", help="JSON file")
    command.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples")
    command.add_argument("--seed", type=_seed, default=0, help="of the bootstrap")


def _compare(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.compare import compare_predictions, comparison_table

    comparison = compare_predictions(
        _open_prepared(options),
        options.first,
        options.second,
        output=options.output,
        n_resamples=options.resamples,
        seed=options.seed,
    )
    say(comparison_table(comparison))
    return 0


def _add_seeds(add: Adder) -> None:
    command = add(
        "seeds",
        _seeds,
        "Mean, standard deviation and t-interval of the reports of several training seeds.",
        "ecgbyte seeds seed-0/report.json seed-1/report.json seed-2/report.json --output seeds.json",
    )
    command.add_argument("reports", nargs="+", metavar="REPORT", help="what `ecgbyte evaluate` wrote for each seed")
    command.add_argument("--output", required=True, metavar="FILE", help="JSON file")


def _seeds(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.seeds import seeds_table, summarise_seeds

    say(seeds_table(summarise_seeds(options.reports, output=options.output)))
    return 0


def _load_processor(place: str) -> Any:
    """Feature extractor and tokenizer of a folder, or of `USER/NAME` on the Hub."""
    from ecgbyte_hf.data.hub_folder import local_or_hub_folder
    from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

    return EcgByteProcessor.from_pretrained(local_or_hub_folder(place, made_by="ecgbyte train-tokenizer"))


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
    is_whole = action.type in (int, _seed)
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
