"""What the runs wrote about themselves: the only source of a card's figures.

Every JSON file of this package names the command that made it (`provenance.command`); by that it is known here,
whatever its name is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.ecg_parts import EcgParts
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, PROMPT_FILE, SIGNAL_SUBFOLDER
from ecgbyte_hf.hub.private_data import scrubbed_json
from ecgbyte_hf.hub.trainers_card import is_trainers_card as is_trainers_card
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.vocabulary_ecg_byte import ECG_BYTE_FILE, read_ecg_byte_file
from ecgbyte_hf.provenance import read_object

#: Bytes of a JSON file of ours that is looked at; the report of 200,000 refused records has 60 million.
LARGEST_JSON = 1 << 28
PREPROCESSOR_FILE = "preprocessor_config.json"
#: Reports that were given for a card and lie elsewhere are kept here, so that a later card quotes them too.
REPORTS_FOLDER = "card_reports"
#: The command whose figures are what a model is judged by.
EVALUATION = "evaluate"
# Commands whose result is made from data, and not only judged on some.
_MAKERS = ("train-tokenizer", "encode", "sft", "pretrain-encoder")
_NOT_REPORTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "vocab.json")


@dataclass(frozen=True)
class CardSources:
    """The files that a card is filled from.

    Attributes:
        folder: What the card is about.
        by_command: Command -> what the files hold that it wrote, with those that were named by the user last.
        files: The files themselves, in that order.
        evaluations: Those of the evaluations that a card may show: that were named by the user, else for an earlier
            card, else that lie in the folder.
        in_folder: What those files hold that lie in the folder itself, as their commands left them.
    """

    folder: Path
    by_command: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    evaluations: tuple[Path, ...] = ()
    in_folder: tuple[dict[str, Any], ...] = ()

    @classmethod
    def find(cls, folder: str | Path, further: Iterable[str | Path] = ()) -> CardSources:
        """Look through a folder, and take further files, such as the report of an evaluation.

        Reports that an earlier card was given are found in `card_reports/`.

        Raises:
            EcgDataError: no such folder, a damaged file, a further file that no command of ours wrote, or files that
                are about other data than one another.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise EcgDataError(f"{folder} is no folder; expected a tokenizer, rows, an encoder or a language model")
        by_command: dict[str, list[dict[str, Any]]] = {}
        files: list[Path] = []
        evaluations: tuple[Path, ...] = ()
        in_folder = tuple(content for place in _root_files(folder) if (content := _report(place)))
        named = list(map(Path, further))
        for places in (_root_files(folder), _kept_files(folder), named):
            reports = {place: content for place in places if (content := _report(place))}
            for place in named if places is named else ():
                if place not in reports:
                    raise EcgDataError(
                        f"{place} is no report of an ecgbyte command, or not there; a card cannot quote it"
                    )
            for place, content in reports.items():
                earlier = by_command.setdefault(_command(content), [])
                if content in earlier:
                    earlier.remove(content)
                else:
                    files.append(place)
                earlier.append(content)
            evaluations = _different(reports, EVALUATION) or evaluations
        found = cls(folder, by_command, tuple(files), evaluations, in_folder)
        found._check_data()
        return found

    def last(self, command: str) -> dict[str, Any] | None:
        """What the command wrote; of several files the last, `None` without one."""
        contents = self.by_command.get(command)
        return contents[-1] if contents else None

    @property
    def converted(self) -> dict[str, Any] | None:
        """What the conversion of a file of the paper's repository wrote."""
        return next((self.last(command) for command in self.by_command if command.startswith("convert")), None)

    @property
    def sources(self) -> tuple[str, ...]:
        """The data sets it was made from, as `ecgbyte prepare` names them, as far as the files say it.

        Those of a tokenizer and of a model's rows may differ. What something was judged on is none of them.
        """
        named: list[Any] = [content.get("source") for content in self.by_command.get("prepare", ())]
        for command in _MAKERS:
            named += [content["provenance"].get("data_source") for content in self.by_command.get(command, ())]
        return tuple(dict.fromkeys(str(name) for name in named if name))

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets on the Hub that a training read its rows from."""
        named = (content["provenance"].get("dataset") for content in self.by_command.get("sft", ()))
        return tuple(dict.fromkeys(str(name) for name in named if is_hub_name(name)))

    @property
    def ecg_folder(self) -> Path:
        """Where the ECG tokenizer is: the folder itself, or a language model's subfolder."""
        inner = self.folder / ECG_SUBFOLDER
        return inner if inner.is_dir() else self.folder

    def tokenizer(self) -> dict[str, Any] | None:
        """What `ecg_byte.json` holds, `None` without one.

        Raises:
            VocabularyError, CalibrationError: it is no vocabulary.
        """
        place = self.ecg_folder / ECG_BYTE_FILE
        return read_ecg_byte_file(place) if place.is_file() else None

    def preprocessor(self) -> dict[str, Any] | None:
        """The feature extractor that cleans recordings, `None` without one."""
        for place in (self.ecg_folder, self.folder / SIGNAL_SUBFOLDER, self.folder):
            content = read_object(place / PREPROCESSOR_FILE)
            if content and "profile" in content:
                return content
        # A model with an encoder keeps its cleaning in its processor's file.
        inner = (read_object(self.folder / "processor_config.json") or {}).get("feature_extractor")
        return inner if isinstance(inner, dict) and "profile" in inner else None

    @property
    def has_encoder(self) -> bool:
        """Whether a language model reads ECGs through an encoder."""
        return EcgParts.at(self.folder).has_encoder

    def prompt(self) -> dict[str, Any] | None:
        """Wording and budget of a language model's prompts."""
        return read_object(self.ecg_folder / PROMPT_FILE)

    def _check_data(self) -> None:
        """Refuse reports about other data than the folder's: a card would name a data set that was not used."""
        for one, other in (("prepare", "train-tokenizer"), ("prepare", "evaluate"), ("encode", "sft")):
            first, second = self.last(one), self.last(other)
            if first is None or second is None:
                continue
            hashes = [_data_hash(first), _data_hash(second)]
            differing = [split for split in hashes[0] if split in hashes[1] and hashes[0][split] != hashes[1][split]]
            if differing:
                raise EcgDataError(
                    f"the report of `{one}` and that of `{other}` are about different data (split "
                    f"{', '.join(differing)}); name the report of the data that was used"
                )


def keep_reports(folder: str | Path, further: Iterable[str | Path]) -> list[Path]:
    """Copy reports that lie elsewhere into a folder, in place of earlier ones of the same commands.

    Paths of this machine and lists of patients are left out of the copies.

    Args:
        folder: What the card is about.
        further: As `CardSources.find` took them.

    Returns:
        The copies.
    """
    folder = Path(folder)
    kept = folder / REPORTS_FOLDER
    contents = {place: _report(place) or {} for place in map(Path, further)}
    in_root = {place.resolve(): _command(content) for place in _root_files(folder) if (content := _report(place))}
    several = {command for command, count in Counter(in_root.values()).items() if count > 1}
    # A report of the folder's own is found there, unless others of its command lie beside it.
    given = [
        place
        for place, content in contents.items()
        if place.resolve() not in in_root or (content and _command(content) in several)
    ]
    of_command = {place: re.sub(r"[^\w-]+", "-", _command(content)) for place, content in contents.items()}
    copies = [(of_command[place], scrubbed_json(place)[0] or place.read_bytes()) for place in given]
    for name in set(of_command.values()):
        for earlier in kept.glob(f"{name}*.json"):
            if re.fullmatch(rf"{name}(\.\d+)?\.json", earlier.name):
                earlier.unlink()
    counted: Counter[str] = Counter()
    written = []
    for name, copy in copies:
        counted[name] += 1
        target = kept / (f"{name}.json" if counted[name] == 1 else f"{name}.{counted[name]}.json")
        kept.mkdir(exist_ok=True)
        target.write_bytes(copy)
        written.append(target)
    return written


def is_report(content: Any) -> bool:
    """Whether a JSON object was written by a command of ours."""
    block = content.get("provenance") if isinstance(content, dict) else None
    return isinstance(block, dict) and isinstance(block.get("command"), str)


def made_with(provenance: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """The arguments of a run, as a card may tell them: without what is empty, and of paths the last part alone.

    Args:
        provenance: The block of a result file.
        names: Only these.
    """
    given = provenance.get("arguments")
    flat = _flat(given) if isinstance(given, dict) else {}
    chosen = list(flat) if names is None else [name for name in names if name in flat]
    return {name: _shown(flat[name]) for name in chosen if not _is_empty(flat[name])}


def looks_like_path(value: str) -> bool:
    """Whether a text is a place on somebody's machine rather than a name."""
    return bool(re.match(r"(/|~|\.{1,2}[/\\]|[A-Za-z]:[\\/]|\\\\)", value))


def is_hub_name(value: Any) -> bool:
    """Whether it is `USER/NAME` as the Hub has them, and no folder here."""
    return isinstance(value, str) and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", value)) and not Path(value).exists()


def _root_files(folder: Path) -> list[Path]:
    """JSON files of a folder itself that may be reports."""
    places = [place for one in (folder, folder / ECG_SUBFOLDER) for place in sorted(one.glob("*.json"))]
    return [place for place in places if place.is_file() and place.name not in _NOT_REPORTS]


def _kept_files(folder: Path) -> list[Path]:
    """Those that an earlier card was given, in that order: `evaluate.json` is before `evaluate.2.json`."""

    def order(place: Path) -> tuple[str, int]:
        name, _, number = place.stem.rpartition(".")
        return (name, int(number)) if name and number.isdecimal() else (place.stem, 1)

    return [place for place in sorted((folder / REPORTS_FOLDER).glob("*.json"), key=order) if place.is_file()]


def _different(reports: Mapping[Path, dict[str, Any]], command: str) -> tuple[Path, ...]:
    """The files of a command that do not say the same."""
    found: dict[Path, dict[str, Any]] = {}
    for place, content in reports.items():
        if _command(content) == command and content not in found.values():
            found[place] = content
    return tuple(found)


def _report(place: Path) -> dict[str, Any] | None:
    """A result file of ours; `None` for any other JSON file, and for one that is not there."""
    if not place.is_file():
        return None
    if place.stat().st_size > LARGEST_JSON:
        raise EcgDataError(f"{place} has {place.stat().st_size} bytes, expected at most {LARGEST_JSON}")
    content = read_object(place)
    return content if is_report(content) else None


def _command(content: Mapping[str, Any]) -> str:
    return str(content["provenance"]["command"])


def _data_hash(content: Mapping[str, Any]) -> dict[str, Any]:
    found = content.get("data_hash") or content["provenance"].get("data_hash")
    return found if isinstance(found, dict) else {}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in arguments as `outer.inner`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{key}" if key else str(name): one for key, one in inner.items()}
    return flat


def _is_empty(value: Any) -> bool:
    """Whether an option was left out; a zero is a value."""
    return value is None or value is False or value in ("", [], {})


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, str) and looks_like_path(value):
        return Path(value.replace("\\", "/")).name
    return value
