"""`ecgbyte read`, `prepare` and `sample`: recordings, data sets, and the draw that a tokenizer is learnt from.

Only the standard library is imported here; each command imports what it needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ecgbyte_hf.command_line import Adder, data_folder, say, seed
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Lines of refused records that `prepare` writes to the screen.
_REFUSALS_SHOWN = 20
# As in `feature_extraction_ecg_byte.py`, which takes a second to import.
PROFILES = ("reference", "reference-low", "sos", "none")
# As in `label_questions.py`.
LABEL_SETS = ("superclass", "subclass", "form", "rhythm", "which")


def add_commands(add: Adder) -> None:
    """Add all of them."""
    _add_read(add)
    _add_prepare(add)
    _add_sample(add)


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
    questions.add_argument("--seed", type=seed, default=0, help="of the simulator, and of every draw of patients")
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
    from ecgbyte_hf.cli import build_parser

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
    command.add_argument("--seed", type=seed, default=42, help="of clusters and draw (default: 42)")
    command.add_argument("--num-proc", type=int, default=1, help="processes that measure features (default: 1)")
    comparison = command.add_argument_group("comparison of the two methods, on records that are not in training")
    comparison.add_argument("--compare", action="store_true", help="train a tokenizer on draws of both and compare")
    comparison.add_argument("--num-merges", type=int, default=1000, help="of these tokenizers (default: 1000)")
    comparison.add_argument(
        "--compare-seeds", type=seed, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2"
    )
    comparison.add_argument("--num-threads", type=int, help="threads of the Rust core (default: all)")


def _sample(options: argparse.Namespace) -> int:
    from ecgbyte_hf.data.morphology import record_features
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.data.sampling import draw_clusters, draw_stratified, draw_uniform

    prepared = PreparedData(data_folder(options.data))
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
