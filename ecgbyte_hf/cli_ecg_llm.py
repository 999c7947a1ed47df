"""The options of `ecgbyte extend-llm` for an encoder in front of a language model, and what they do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgError

# Options that only `--encoder` has, with what they are by default.
_ENCODER_ONLY = {"ecg_features": None, "projector": None, "num_ecg_tokens": None, "standardize_on": None}


def add_encoder_options(command: argparse.ArgumentParser) -> None:
    """Add them to the command."""
    encoder = command.add_argument_group("an encoder instead of ECG tokens: the two-stage models of the paper")
    encoder.add_argument("--encoder", metavar="DIR", help="what `ecgbyte pretrain-encoder` wrote")
    encoder.add_argument(
        "--ecg-features",
        choices=("pooled", "sequence"),
        help="one token for each ECG, as in the paper, or the encoder's sequence (default: pooled)",
    )
    encoder.add_argument("--projector", choices=("linear", "mlp"), help="from encoder to model (default: linear)")
    encoder.add_argument(
        "--num-ecg-tokens",
        type=int,
        metavar="N",
        help="of a sequence (default: as many as the encoder gives for --window-seconds, else for a record of "
        "--standardize-on, else for 10 s)",
    )
    encoder.add_argument(
        "--standardize-on",
        metavar="DIR",
        help="prepared folder: standardise the encoder's features by their mean and deviation over training records "
        "(default: --tiny-from, or not at all)",
    )


def check_encoder_options(options: argparse.Namespace) -> None:
    """Refuse what does not go together.

    Raises:
        EcgError: neither or both of encoder and ECG tokens, or an option of the one with the other.
    """
    if bool(options.encoder) == bool(options.tokenizer):
        raise EcgError("give --tokenizer (ECG tokens) or --encoder (a pretrained encoder), one of them")
    surplus = [name for name, default in _ENCODER_ONLY.items() if getattr(options, name) != default]
    if surplus and not options.encoder:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in surplus)
        raise EcgError(f"got {names} without --encoder, which they belong to")
    if options.encoder and options.init != "waveform":
        raise EcgError(f"got --init {options.init} with --encoder; it is for the rows of ECG tokens: leave it out")


def extend_by_encoder(options: argparse.Namespace, model: str, prompt: Any, say: Callable[[str], None]) -> int:
    """Run `ecgbyte extend-llm --encoder`; returns the exit code."""
    from ecgbyte_hf.data.prepared import PreparedData
    from ecgbyte_hf.data.windows import WindowedData
    from ecgbyte_hf.training.extend_ecg_llm import extend_ecg_llm

    measured_on = options.standardize_on or options.tiny_from
    data = None
    if measured_on:
        seconds = prompt.window_seconds
        data = WindowedData(measured_on, seconds) if seconds else PreparedData(measured_on)
    made = extend_ecg_llm(
        options.encoder,
        model,
        options.output,
        prompt=prompt,
        prompt_format=options.prompt_format,
        system_prompt=options.system_prompt,
        ecg_features=options.ecg_features or "pooled",
        projector_type=options.projector or "linear",
        num_ecg_tokens=options.num_ecg_tokens,
        standardize_on=data,
        seed=options.seed,
        dtype=options.dtype,
        revision=options.revision,
    )
    say(
        f"encoder of {made.encoder_parameters:,} parameters, frozen; projector of {made.projector_parameters:,}; "
        f"{made.num_ecg_tokens} tokens for each ECG; saved in {made.folder}"
    )
    if made.measured_records:
        say(f"  the encoder's features were standardised on {made.measured_records} training records")
    say(f"next: ecgbyte encode --data PREPARED --model {made.folder} --output ROWS")
    return 0
