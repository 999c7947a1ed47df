"""The commands `ecgbyte pretrain-encoder` and `ecgbyte probe-encoder`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ecgbyte_hf.command_line import Adder, add_window, open_prepared, say, seed
from ecgbyte_hf.models.auto import ENCODERS
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# As in `encoder_texts.py` and `pretrain_encoder.py`, which take seconds to import.
TEXT_KINDS = ("report", "answers", "labels")
SCHEDULES = ("noam", "linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial")


def add_commands(add: Adder) -> None:
    """Add the commands to the parser of `ecgbyte`."""
    _add_pretrain_encoder(add)
    _add_probe_encoder(add)


def _add_pretrain_encoder(add: Adder) -> None:

    command = add(
        "pretrain-encoder",
        _pretrain_encoder,
        "Pretrain an encoder of ECGs on their reports, answered questions or labels.",
        "ecgbyte pretrain-encoder --encoder merl-resnet --data prepared --output merl --tiny --epochs 5\n"
        "  ecgbyte pretrain-encoder --encoder clip --data prepared --texts report --output clip --precision bf16",
    )
    names = [encoder.command_name for encoder in ENCODERS]
    command.add_argument("--encoder", required=True, choices=names, help="which one")
    command.add_argument("--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote")
    command.add_argument("--output", required=True, metavar="DIR", help="folder of the encoder, for AutoModel")
    command.add_argument(
        "--texts",
        choices=TEXT_KINDS,
        help="what an ECG is paired with: its report; all its questions with their answers; the labels it has of "
        "those that verify questions ask about (default: reports where there are some, else labels, else answers)",
    )
    add_window(command)
    _add_start(command.add_argument_group("weights (default: those of the paper, from the Hub)"))
    _add_training(command.add_argument_group("training"))


def _add_start(group: Any) -> None:
    group.add_argument(
        "--init-from",
        nargs="+",
        default=[],
        metavar="NAME",
        help="a folder that this command wrote; or for clip and vit another model of the kind, for clip-vit two",
    )
    group.add_argument("--text-model", metavar="NAME", help="text tower of merl-resnet (default: the paper's MedCPT)")
    group.add_argument("--depth", type=int, choices=(18, 34, 50, 101), help="of merl-resnet (default: 101)")
    group.add_argument("--model-config", metavar="FILE", help="JSON: arguments of the encoder's configuration class")
    group.add_argument("--tokenizer", metavar="NAME", help="for random weights (default: the words of the texts)")
    group.add_argument("--tiny", action="store_true", help="a small random model: nothing is downloaded")
    group.add_argument(
        "--tiny-size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "LAYERS"),
        help="of --tiny (default: 128 4)",
    )
    group.add_argument("--max-text-length", type=int, metavar="N", help="tokens (default: 77, of merl-resnet 64)")
    group.add_argument(
        "--train-text",
        action=argparse.BooleanOptionalAction,
        help="train merl-resnet's text tower (default: only if its weights are random)",
    )
    group.add_argument(
        "--image-mode",
        choices=("resize", "reference"),
        help="the whole ECG as a picture, or its middle 48 ms as in the paper (default: resize)",
    )


def _add_training(group: Any) -> None:

    group.add_argument("--epochs", type=float, default=20, help="default: 20")
    group.add_argument("--max-steps", type=int, default=-1, metavar="N", help="instead of --epochs")
    group.add_argument("--batch-size", type=int, default=64, help="ECGs, in each process (default: 64)")
    group.add_argument(
        "--gradient-accumulation",
        type=int,
        default=1,
        metavar="N",
        help="batches in a step; ECGs are compared within a batch only (default: 1)",
    )
    group.add_argument("--lr-scheduler", choices=SCHEDULES, default="noam", help="default: noam, as in the paper")
    group.add_argument("--learning-rate", type=float, metavar="RATE", help="of the other schedules, their highest")
    group.add_argument("--noam-factor", type=float, default=1.0, help="multiplies Noam's rate (default: 1)")
    group.add_argument(
        "--noam-width",
        type=int,
        metavar="D_MODEL",
        help="Noam's highest rate is (D_MODEL * WARMUP)^-0.5 (default: the model's; 256 for merl-resnet, else 768)",
    )
    group.add_argument("--warmup-steps", type=int, default=500, help="default: 500")
    group.add_argument("--weight-decay", type=float, default=0.01, help="default: 0.01")
    group.add_argument("--max-grad-norm", type=float, default=1.0, help="default: 1")
    group.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="mixed (default: no)")
    group.add_argument("--eval-steps", type=int, metavar="N", help="between evaluations (default: an epoch)")
    group.add_argument("--logging-steps", type=int, default=10, metavar="N", help="default: 10")
    group.add_argument(
        "--early-stopping-patience",
        type=int,
        default=5,
        metavar="N",
        help="stop after N evaluations without a lower validation loss; 0 for never (default: 5, as in the paper)",
    )
    group.add_argument("--seed", type=seed, default=0, help="of weights, order, texts and dropout")
    group.add_argument("--num-workers", type=int, default=0, help="processes that make batches (default: none)")
    group.add_argument("--stream", action="store_true", help="read signals from disk instead of holding them all")
    group.add_argument("--report-to", default="none", metavar="NAME", help="such as wandb (default: none)")
    group.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --output")
    group.add_argument("--cpu", action="store_true", help="train on the CPU where there is a GPU too")


def _pretrain_encoder(options: argparse.Namespace) -> int:
    from ecgbyte_hf.training.pretrain_encoder import PretrainOptions, pretrain_encoder
    from ecgbyte_hf.training.start_encoder import EncoderStart, encoder_named

    if options.tiny_size and not options.tiny:
        say("ecgbyte pretrain-encoder: --tiny-size needs --tiny", stream=sys.stderr)
        return 2
    start = EncoderStart(
        init_from=tuple(options.init_from),
        text_model=options.text_model,
        depth=options.depth,
        settings=_json_object(options.model_config) if options.model_config else None,
        tokenizer=options.tokenizer,
        tiny=tuple(options.tiny_size or (128, 4)) if options.tiny else None,
        max_text_length=options.max_text_length,
        train_text=options.train_text,
        image_mode=options.image_mode,
    )
    training = PretrainOptions(
        epochs=options.epochs,
        max_steps=options.max_steps,
        batch_size=options.batch_size,
        gradient_accumulation=options.gradient_accumulation,
        schedule=options.lr_scheduler,
        learning_rate=options.learning_rate,
        noam_factor=options.noam_factor,
        noam_width=options.noam_width,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        precision=options.precision,
        eval_steps=options.eval_steps,
        logging_steps=options.logging_steps,
        early_stopping_patience=options.early_stopping_patience or None,
        seed=options.seed,
        num_workers=options.num_workers,
        in_memory=not options.stream,
        report_to=options.report_to,
        resume=options.resume,
        use_cpu=options.cpu,
    )
    report = pretrain_encoder(
        open_prepared(options),
        options.output,
        encoder_named(options.encoder),
        texts=options.texts,
        start=start,
        options=training,
    )
    if os.environ.get("RANK", "0") != "0":
        return 0  # one of several processes says it
    for line in _lines(report):
        say(line)
    say(f"saved in {options.output}")
    return 0


def _lines(report: dict[str, Any]) -> list[str]:
    """What a person wants to know of a finished training."""
    kind = f" with texts of the kind {report['texts']!r}" if report["texts"] else ""
    train = report["ecgs"]["train"]
    lines = [f"{report['encoder']}: {train['used']} ECGs{kind}, {report['steps']} steps"]
    for split, counts in report["ecgs"].items():
        if counts["without_text"]:
            lines.append(f"  {split}: {counts['without_text']} ECGs have no such text and were left out")
    if train["in_other_splits"]:
        lines.append(f"  train: {train['in_other_splits']} ECGs are in other splits too and were left out")
    if report["texts_cut"]:
        lines.append(f"  {report['texts_cut']} training texts were cut at the text tower's length")
    if report["steps"] < report["warmup_steps"]:
        lines.append(
            f"  the learning rate was still rising at the end; give fewer --warmup-steps than {report['warmup_steps']}"
        )
    if report["best_step"] is None:
        lines.append("  there is no validation split: the last step is kept")
    else:
        lines.append(f"  kept: step {report['best_step']}, validation loss {report['best_loss']:.4f}")
    return lines


def _add_probe_encoder(add: Adder) -> None:

    command = add(
        "probe-encoder",
        _probe_encoder,
        "Measure a frozen encoder: linear probes of labels, zero-shot classification, retrieval.",
        "ecgbyte probe-encoder --encoder merl --data labels --output probe.json --zero-shot --control random\n"
        "  ecgbyte probe-encoder --encoder merl --data reports --output retrieval.json --fractions --retrieval",
    )
    command.add_argument("--encoder", required=True, metavar="DIR", help="what `ecgbyte pretrain-encoder` wrote")
    command.add_argument(
        "--data", required=True, metavar="DIR", help="what `ecgbyte prepare` wrote, with yes/no questions about labels"
    )
    command.add_argument("--output", required=True, metavar="FILE", help="JSON report; its table is beside it as .md")
    add_window(command)
    command.add_argument("--split", default="test", help="the ECGs that it is measured on (default: test)")
    command.add_argument(
        "--fractions",
        type=float,
        nargs="*",
        default=[0.01, 0.1, 1.0],
        metavar="SHARE",
        help="shares of the training records that the linear probe learns from; none for no probe (default: 0.01 "
        "0.1 1)",
    )
    command.add_argument("--draws", type=int, default=3, help="of the records of a share below 1 (default: 3)")
    command.add_argument(
        "--zero-shot", action="store_true", help="classify by the similarity of an ECG with the name of each label"
    )
    command.add_argument(
        "--prompts", metavar="FILE", help="JSON for --zero-shot: label -> a prompt, or several (default: its name)"
    )
    command.add_argument("--retrieval", action="store_true", help="find texts by ECGs, and ECGs by texts")
    command.add_argument("--texts", choices=TEXT_KINDS, help="of --retrieval (default: as in pretraining)")
    command.add_argument("--control", choices=("random",), help="the same of random weights beside it")
    command.add_argument("--batch-size", type=int, default=64, help="ECGs encoded at a time (default: 64)")
    command.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples")
    command.add_argument("--seed", type=seed, default=0, help="of draws, bootstrap and random weights")
    command.add_argument("--device", help="such as cuda (default: a GPU if there is one)")


def _probe_encoder(options: argparse.Namespace) -> int:
    from ecgbyte_hf.evaluation.encoder_probe import ProbeOptions, probe_encoder, probe_table

    for name, needed in (("prompts", "zero_shot"), ("texts", "retrieval")):
        if getattr(options, name) and not getattr(options, needed):
            say(f"ecgbyte probe-encoder: --{name} needs --{needed.replace('_', '-')}", stream=sys.stderr)
            return 2
    report = probe_encoder(
        options.encoder,
        open_prepared(options),
        options.output,
        ProbeOptions(
            split=options.split,
            fractions=tuple(options.fractions),
            draws=options.draws,
            zero_shot=options.zero_shot,
            retrieval=options.retrieval,
            control=options.control,
            texts=options.texts,
            prompts=_json_object(options.prompts) if options.prompts else None,
            batch_size=options.batch_size,
            n_resamples=options.resamples,
            seed=options.seed,
            device=options.device,
        ),
    )
    say(probe_table(report))
    say(f"saved {options.output}")
    return 0


def _json_object(path: str) -> dict[str, Any]:
    from ecgbyte_hf.provenance import read_object

    found = read_object(Path(path))
    if not found:
        raise EcgDataError(f'{path} is missing or holds no JSON object; write one such as {{"name": value}}')
    return found
