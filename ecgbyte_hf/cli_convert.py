"""`ecgbyte convert`: what the paper's code wrote becomes what this package reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ecgbyte_hf.command_line import Adder, say
from ecgbyte_hf.models.errors_ecg_byte import EcgError

# As in `hub/convert_checkpoint.py` and `feature_extraction_ecg_byte.py`, which take a second to import.
KINDS = ("ecg-byte", "clip", "vit", "clip-vit", "resnet")
PROFILES = ("reference", "reference-low", "sos", "none")
_OF_LANGUAGE_MODELS = ("base", "max_length", "lora_alpha", "merge", "revision")
_OF_CHECKPOINTS = ("kind", "stage", "tokenizer", "text_tokenizer", "encoder_config", *_OF_LANGUAGE_MODELS)


def add_commands(add: Adder) -> None:
    """Add `convert`."""
    command = add(
        "convert",
        _convert,
        "Convert a tokenizer or a checkpoint that the ECG-Byte paper's code wrote; nothing in it is run.",
        "ecgbyte convert tokenizer tokenizer_3500.pkl --percentiles stats.npy --output ecg-byte\n"
        "  ecgbyte convert checkpoint best_model.pth --kind ecg-byte --base meta-llama/Llama-3.2-1B "
        "--tokenizer tokenizer_3500.pkl --percentiles stats.npy --output llama-ecg\n"
        "  ecgbyte convert checkpoint best_model.pth --kind resnet --stage 1 --output ecg-resnet\n"
        "  ecgbyte convert checkpoint best_model.pth --kind clip --stage 2 --base meta-llama/Llama-3.2-1B "
        "--output llama-clip",
    )
    command.add_argument("what", choices=("tokenizer", "checkpoint"), help="the kind of the file")
    command.add_argument("file", metavar="FILE", help="a tokenizer's .pkl, or best_model.pth")
    command.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    signals = command.add_argument_group("signals it was trained on")
    signals.add_argument(
        "--percentiles",
        metavar="FILE",
        help="the .npy of its preprocessing (default: each record's own minimum and maximum, as the released "
        "tokenizers were made)",
    )
    signals.add_argument("--sampling-rate", type=float, default=250.0, metavar="HZ", help="default: 250")
    signals.add_argument(
        "--leads",
        nargs="+",
        metavar="LEAD",
        help="their order (default: that of the paper, in which its code puts MIMIC-IV-ECG; PTB-XL it leaves as I II "
        "III aVR aVL aVF V1 to V6)",
    )
    signals.add_argument("--profile", choices=PROFILES, default="reference", help="cleaning (default: reference)")
    models = command.add_argument_group("checkpoints")
    models.add_argument("--kind", choices=KINDS, help="what was trained")
    models.add_argument("--stage", type=int, choices=(1, 2), help="of clip, vit, clip-vit, resnet")
    models.add_argument(
        "--base", metavar="MODEL", help="the language model that was trained; its configuration and tokenizer are read"
    )
    models.add_argument("--tokenizer", metavar="FILE", help="with --kind ecg-byte: the .pkl it was trained with")
    models.add_argument(
        "--text-tokenizer",
        metavar="NAME",
        help="with --stage 1: folder or name of the text tower's tokenizer, or none (default: that of the tower which "
        "the paper started from)",
    )
    models.add_argument("--encoder-config", metavar="FILE", help="config.json of an encoder of another size")
    models.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="the paper's --pad_to_max and 4; stage 2: and 2 (default: 1024)",
    )
    models.add_argument("--lora-alpha", type=int, metavar="ALPHA", help="a checkpoint does not say it (default: 32)")
    # None where it is not given, as of the others.
    models.add_argument(
        "--merge", action="store_true", default=None, help="work LoRA into the model; default: an adapter beside it"
    )
    models.add_argument("--revision", help="of --base on the Hub")


def _convert(options: argparse.Namespace) -> int:
    if options.what == "tokenizer":
        return _convert_tokenizer(options)
    return _convert_language_model(options) if options.kind == "ecg-byte" else _convert_encoder(options)


def _convert_tokenizer(options: argparse.Namespace) -> int:
    from ecgbyte_hf.hub.reference_tokenizer import convert_tokenizer

    _refuse(options, _OF_CHECKPOINTS, "convert tokenizer")
    report = convert_tokenizer(options.file, options.output, percentiles=options.percentiles, **_signals(options))
    say(
        f"{report['merges']} merges (given as {report['merge_form']}), longest token {report['longest_token']} "
        f"samples; {report['dead_ids']} ids that never occur left out; saved in {options.output}"
    )
    _say_calibration(report["calibration"])
    return 0


def _convert_language_model(options: argparse.Namespace) -> int:
    from ecgbyte_hf.hub.convert_checkpoint import convert_ecg_byte_checkpoint

    _refuse(options, ("stage", "encoder_config", "text_tokenizer"), "convert checkpoint --kind ecg-byte")
    _require(options, ("base", "tokenizer"), "convert checkpoint --kind ecg-byte")
    report = convert_ecg_byte_checkpoint(
        options.file,
        options.output,
        tokenizer=options.tokenizer,
        percentiles=options.percentiles,
        **_given(options, _OF_LANGUAGE_MODELS),
        **_signals(options),
    )
    _say_model(report["language_model"])
    _say_next(options, report)
    return 0


def _convert_encoder(options: argparse.Namespace) -> int:
    from ecgbyte_hf.hub.convert_checkpoint import convert_encoder_checkpoint

    _require(options, ("kind", "stage"), "convert checkpoint")
    _refuse(options, ("tokenizer", "percentiles"), f"convert checkpoint --kind {options.kind}")
    if options.stage == 1:
        _refuse(options, ("max_length", "lora_alpha", "merge", "revision"), "convert checkpoint --stage 1")
    config = _encoder_config(options.encoder_config) if options.encoder_config else None
    report = convert_encoder_checkpoint(
        options.file,
        options.output,
        config=config,
        **_given(options, ("kind", "stage", "text_tokenizer", *_OF_LANGUAGE_MODELS)),
        **_signals(options),
    )
    encoder = report["encoder"]
    say(f"{encoder['class']} with {encoder['parameters']} parameters")
    if "language_model" in report:
        _say_model(report["language_model"])
    for note in report["notes"]:
        say(f"note: {note}")
    _say_next(options, report)
    return 0


def _say_next(options: argparse.Namespace, report: dict[str, Any]) -> None:
    """What of the file was left out, where the rest is, and what it can be used for."""
    if left_out := report["keys_left_out"] + report.get("parts_left_out", []):
        say(f"left out: {', '.join(left_out)}")
    model = report.get("language_model")
    if model is None:
        say(f"saved in {options.output}; next: ecgbyte probe-encoder --encoder {options.output} ...")
        return
    place = "adapter" if model["lora_rank"] and not model["merged"] else "model"
    say(f"saved in {options.output}; next: ecgbyte generate --model {options.output}/{place} ...")


def _encoder_config(path: str) -> Any:
    from transformers import AutoConfig

    import ecgbyte_hf.models.auto  # noqa: F401  (registers the encoders)

    if not Path(path).exists():
        raise EcgError(f"--encoder-config {path}: not there; expected the config.json of an encoder, or its folder")
    try:
        return AutoConfig.from_pretrained(path)
    except ValueError as error:
        raise EcgError(f"--encoder-config {path}: not the config.json of an encoder ({str(error)[:200]})") from error


def _signals(options: argparse.Namespace) -> dict[str, Any]:
    """What to pass on; leads only where some were named, since their default takes numpy to import."""
    return {"sampling_rate": options.sampling_rate, "profile": options.profile, **_given(options, ("leads",))}


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of these options that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _refuse(options: argparse.Namespace, names: tuple[str, ...], what: str) -> None:
    for name in _given(options, names):
        raise EcgError(f"--{name.replace('_', '-')} does not apply to {what}; leave it out")


def _require(options: argparse.Namespace, names: tuple[str, ...], what: str) -> None:
    missing = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is None]
    if missing:
        raise EcgError(f"{what} needs {', '.join(missing)}")


def _say_calibration(calibration: dict[str, Any]) -> None:
    if calibration["method"] == "minmax":
        say(
            "no --percentiles: every record is scaled by its own minimum and maximum, as the released tokenizers were "
            "made; give the .npy if this one was made with percentiles"
        )
    else:
        say(f"the symbols divide {calibration['low']:g} to {calibration['high']:g} mV")


def _say_model(model: dict[str, Any]) -> None:
    adapter = (
        f"LoRA of rank {model['lora_rank']} on {', '.join(model['lora_modules'])}" if model["lora_rank"] else "no LoRA"
    )
    adapter += ", merged" if model["merged"] else ""
    say(
        f"{model['tokens_taken_over']} token rows taken over, {model['rows_left_out']} of tokens that do not occur "
        f"here left out; {adapter}"
    )
