"""The vocabulary of an ECG-Byte tokenizer as a file: what `ecg_byte.json` holds, read, checked and written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .calibration_ecg_byte import EcgCalibration, is_finite_number
from .errors_ecg_byte import CalibrationError, LeadError, SamplingRateError, VocabularyError

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
ECG_BYTE_FILE = "ecg_byte.json"
FORMAT_VERSION = 1
#: Version -> what makes a file's content that of the next version. There has been none before 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
#: Bytes of a JSON file that is read; 100,000 merges take 2 million.
LARGEST_JSON = 1 << 26
LEAD_BOUNDARIES = ("cross", "split")
ALGORITHMS = ("greedy", "bpe")
# The last four ids of every vocabulary. A user may give a role to another token (`tokenizer.pad_token = ...`), as with
# any tokenizer, but no id moves by that.
SPECIAL_TOKENS = {
    "pad_token": "<|ecg_pad|>",
    "unk_token": "<|ecg_unk|>",
    "bos_token": "<|ecg_start|>",
    "eos_token": "<|ecg_end|>",
}


def check_choice(name: str, got: Any, known: tuple[str, ...]) -> None:
    """Refuse, with a `VocabularyError`, what is not one of the known names."""
    if not isinstance(got, str) or got not in known:
        raise VocabularyError(f"{name}: got {got!r}, expected one of {', '.join(known)}")


def check_count(name: str, got: Any, least: int) -> None:
    """Refuse, with a `VocabularyError`, what is not an integer of at least `least`."""
    if isinstance(got, bool) or not isinstance(got, (int, np.integer)) or got < least:
        raise VocabularyError(f"{name}: got {got!r}, expected an integer of at least {least}")


def checked_rate(rate: Any, where: str) -> float:
    """A sampling rate in Hz, whole numbers as `int`, or a `SamplingRateError` that begins with `where`."""
    if isinstance(rate, bool) or not is_finite_number(rate) or rate <= 0:
        raise SamplingRateError(f"{where}sampling_rate: got {rate!r}, expected a positive number of Hz")
    return int(rate) if float(rate).is_integer() else float(rate)


def checked_leads(leads: Any, where: str) -> tuple[str, ...]:
    """Lead names, or a `LeadError` that begins with `where`."""
    names = () if isinstance(leads, str) or not isinstance(leads, Iterable) else tuple(leads)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise LeadError(f"{where}leads: got {leads!r}, expected a list of different lead names")
    return names


def read_json_object(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The text of a JSON file, and the object in it."""
    try:
        # Not through an OSError: transformers would replace it by one that names no file.
        with open(path, encoding="utf-8", newline="") as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_JSON:
                raise VocabularyError(f"{path}: got {size} bytes, expected at most {LARGEST_JSON}; is it this file?")
            text = file.read()
        content = json.loads(text)
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror or error})") from error
    except VocabularyError:
        raise
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{path}: not a JSON file ({error}); save or download it again") from error
    if not isinstance(content, dict):
        raise VocabularyError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return text, content


def read_ecg_byte_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What ecg_byte.json holds, with the calibration as an `EcgCalibration`.

    Raises:
        VocabularyError: not such a file, or of another version.
        CalibrationError: its calibration is malformed.
    """
    stored = _of_this_version(path, read_json_object(path)[1])
    wanted = {"version", "alphabet", "algorithm", "lead_boundary", "sampling_rate", "leads", "calibration", "merges"}
    if not wanted <= stored.keys():
        raise VocabularyError(
            f"{path}: not an ECG-Byte vocabulary; missing {', '.join(sorted(wanted - stored.keys()))}"
        )
    if stored["alphabet"] != ALPHABET:
        raise VocabularyError(f"{path}: alphabet {stored['alphabet']!r}, expected {ALPHABET!r}")
    if not isinstance(stored["merges"], list):
        raise VocabularyError(f"{path}: merges: expected a list of pairs, got {type(stored['merges']).__name__}")
    calibration = stored["calibration"]
    if not isinstance(calibration, dict) or not {"method"} <= calibration.keys() <= {"method", "low", "high"}:
        raise CalibrationError(f"{path}: calibration: expected method, low and high, got {calibration!r}")
    try:
        stored["calibration"] = EcgCalibration(**calibration)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    return stored


def _of_this_version(path: str | os.PathLike[str], stored: dict[str, Any]) -> dict[str, Any]:
    """The content as this version writes it: an older one is migrated where that is known, a newer one refused."""
    if "version" not in stored:
        return stored  # what is missing is named with the rest
    version = stored["version"]
    while isinstance(version, int) and version < FORMAT_VERSION and version in MIGRATIONS:
        stored = {**MIGRATIONS[version](stored), "version": version + 1}
        version += 1
    if isinstance(version, bool) or version != FORMAT_VERSION:
        is_older = isinstance(version, int) and not isinstance(version, bool) and version < FORMAT_VERSION
        advice = "save it again with the ecgbyte-hf that wrote it, or train it anew" if is_older else "upgrade"
        raise VocabularyError(
            f"{path}: version {version!r}; this ecgbyte_hf reads version {FORMAT_VERSION}; "
            f"{advice}{'' if is_older else ' ecgbyte-hf'}"
        )
    return stored


def ecg_byte_json(
    *,
    algorithm: str,
    lead_boundary: str,
    sampling_rate: float,
    leads: Iterable[str],
    calibration: EcgCalibration,
    merges: np.ndarray,
) -> str:
    """The text of ecg_byte.json: one merge a line; the same text for the same tokenizer."""
    stored = {
        "version": FORMAT_VERSION,
        "alphabet": ALPHABET,
        "algorithm": algorithm,
        "lead_boundary": lead_boundary,
        "sampling_rate": sampling_rate,
        "leads": list(leads),
        "calibration": {"method": calibration.method, "low": calibration.low, "high": calibration.high},
        "merges": [],
    }
    head = json.dumps(stored, indent=2)
    pairs = ",\n".join(f"    [{left}, {right}]" for left, right in merges.tolist())
    return head.replace('"merges": []', f'"merges": [\n{pairs}\n  ]' if pairs else '"merges": []') + "\n"


def write_whole(path: str, content: str) -> None:
    """Write beside and rename: a killed job leaves the old file or the new one, never half of one."""
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        remove_if_there(beside)
        raise


def remove_if_there(path: str) -> None:
    """Remove a file that need not be there."""
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def stored_model_type(path: str) -> str | None:
    """The model type in a config.json; None without one."""
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file).get("model_type", "unknown"))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        return "unknown"
