"""Whether reports are about the very model, encoder or tokenizer that a card is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecgbyte_hf.data.ecg_parts import EcgParts
from ecgbyte_hf.data.fingerprints import (
    ecg_fingerprint,
    ecg_tokenizer_fingerprint,
    model_fingerprints,
    weights_fingerprint,
)
from ecgbyte_hf.hub.card_sources import EVALUATION, REPORTS_FOLDER, CardSources
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import read_object

_WORDS = {
    "weights": "weights",
    "base_weights": "base model's weights",
    "tokenizer": "tokenizer of texts",
    "ecg": "ECG tokenizer and cleaning",
    "prompt": "prompt",
}


def check_subjects(kind: str, found: CardSources) -> None:
    """Refuse reports about something else than the folder, whose figures would stand on its card.

    Args:
        kind: What the folder holds.
        found: Its reports.

    Raises:
        EcgDataError: a report is about another model, or does not say about which one; or there are several
            evaluations.
    """
    checks = {"language_model": _check_language_model, "encoder": _check_encoder, "tokenizer": _check_tokenizer}
    if kind in checks:
        checks[kind](found)


def _check_language_model(found: CardSources) -> None:
    _check_training("sft", found, "model")
    encoding, evaluation = found.last("encode"), found.last("evaluate")
    if encoding is not None and (noted := encoding["provenance"].get("ecg")):
        _compare("encode", {"ecg": noted}, {"ecg": ecg_fingerprint(EcgParts.find(found.folder))}, "model")
    if evaluation is None:
        return
    if len(found.evaluations) > 1:
        names = ", ".join(place.name for place in found.evaluations)
        raise EcgDataError(
            f"there are {len(found.evaluations)} reports of `{EVALUATION}` ({names}), and a card shows one: name "
            "that one alone with --from"
        )
    asked = evaluation["provenance"].get("model")
    if not asked:
        raise EcgDataError(
            "the report of `evaluate` does not say which model it is about (its answers are of an older version, of "
            "another program, or without the report that `generate` writes beside them), so a card cannot quote it; "
            "run `ecgbyte generate` and `ecgbyte evaluate` anew"
        )
    _compare("evaluate", asked["fingerprints"], _here(found.folder), "model")


def _here(folder: Path) -> dict[str, str]:
    """What the folder has of a model; the base of an adapter only where that is a folder here."""
    base = (read_object(folder / "adapter_config.json") or {}).get("base_model_name_or_path")
    return model_fingerprints(folder, base=base if isinstance(base, str) and Path(base).is_dir() else None)


def _check_training(command: str, found: CardSources, kind: str) -> None:
    """A training notes the weights that it saved; of an older version one that lies with them is believed."""
    logs = found.by_command.get(command, ())
    here = weights_fingerprint(found.folder) if logs else None
    for log in logs:
        block = log["provenance"]
        noted = [block[name] for name in ("weights", "merged_weights") if block.get(name) is not None]
        if not noted and log not in found.in_folder:
            raise EcgDataError(
                f"the log of `{command}` is of an older version and does not say which weights it is about, so a card "
                "quotes it from the folder of these alone; train anew, or leave it out"
            )
        if noted and here is not None and here not in noted:
            raise _refusal(command, [_WORDS["weights"]], kind)


def check_base_weights(found: CardSources, base: Path) -> None:
    """Refuse an evaluation of an adapter on another base than a folder, which its published copy no longer names.

    Args:
        found: The adapter's reports.
        base: The folder that it was trained on.

    Raises:
        EcgDataError: the report of `evaluate` is about another base.
    """
    asked = ((found.last("evaluate") or {}).get("provenance") or {}).get("model") or {}
    noted = asked.get("fingerprints", {}).get("base_weights")
    if noted is not None:
        _compare("evaluate", {"base_weights": noted}, {"base_weights": weights_fingerprint(base)}, "model")


def _check_encoder(found: CardSources) -> None:
    _check_training("pretrain-encoder", found, "encoder")
    report = found.last("probe-encoder")
    if report is not None:
        noted = {"weights": str(report["provenance"].get("weights"))}
        _compare("probe-encoder", noted, {"weights": weights_fingerprint(found.folder)}, "encoder")


def _check_tokenizer(found: CardSources) -> None:
    report = found.last("train-tokenizer")
    if report is None:
        return
    noted = report["provenance"].get("ecg")
    if noted is not None:
        _compare("train-tokenizer", {"ecg": noted}, {"ecg": ecg_tokenizer_fingerprint(found.folder)}, "tokenizer")
        return
    tokenizer = found.tokenizer() or {}  # of an older version, or one that does not load
    if tokenizer and (
        report["merges"] != len(tokenizer["merges"]) or report["calibration"]["low"] != tokenizer["calibration"].low
    ):
        raise _refusal("train-tokenizer", ["merges or calibration"], "tokenizer")


def _compare(command: str, noted: Mapping[str, str], here: Mapping[str, str | None], kind: str) -> None:
    """Refuse where a part that both have is another one."""
    differing = [name for name, value in noted.items() if here.get(name) not in (None, value)]
    if differing:
        raise _refusal(command, [_WORDS.get(name, name) for name in differing], kind)


def _refusal(command: str, differing: list[str], kind: str) -> EcgDataError:
    return EcgDataError(
        f"the report of `{command}` is about another {kind} (other {', '.join(differing)}), so a card cannot quote "
        f"it; name the report of this one with --from, or remove it from the folder ({REPORTS_FOLDER}/ keeps what "
        "--from named)"
    )
