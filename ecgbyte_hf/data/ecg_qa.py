"""ECG-QA (Oh et al., NeurIPS 2023): questions about PTB-XL and MIMIC-IV-ECG records, with its own splits by ECG.

Expected tree, as the `ecgqa` folder of its repository has it::

    ptbxl/answers_for_each_template.csv
    ptbxl/{train,valid,test}_ecgs.tsv
    ptbxl/{template,paraphrased}/{train,valid,test}/*.json
    mimic-iv-ecg/...
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ecgbyte_hf.data.builder import EcgBuilderConfig, EcgDatasetBuilder
from ecgbyte_hf.data.questions import QUESTION_FEATURES
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

SOURCES = ("ptbxl", "mimic-iv-ecg")
VERSIONS = ("template", "paraphrased")
# ECG-QA's folder names to the names that the Hub's viewer and trainers expect.
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
#: The kinds of question: about one ECG, about two of the same patient in a row, about two of any patients.
QUESTION_TYPES = (
    "single-verify",
    "single-choose",
    "single-query",
    "comparison_consecutive-verify",
    "comparison_consecutive-query",
    "comparison_irrelevant-verify",
    "comparison_irrelevant-query",
)
#: Those that the ECG-Byte paper trains and tests on.
PAPER_QUESTION_TYPES = QUESTION_TYPES[:3]
_REQUIRED = ("template_id", "question_id", "sample_id", "question_type", "attribute_type", "question", "answer")


@dataclass
class EcgQaConfig(EcgBuilderConfig):
    """One half and wording of ECG-QA.

    Attributes:
        question_types: Of `QUESTION_TYPES`, those to keep; `"paper"` for the three about one ECG; all by default.
    """

    question_types: Sequence[str] | str | None = None

    @property
    def source(self) -> str:
        """`ptbxl` or `mimic-iv-ecg`."""
        return self.name.rpartition("-")[0]

    @property
    def wording(self) -> str:
        """`template` or `paraphrased`."""
        return self.name.rpartition("-")[2]

    def kept_types(self) -> tuple[str, ...]:
        """The question types to keep.

        Raises:
            EcgDataError: one that ECG-QA does not have, or none at all.
        """
        if self.question_types is None:
            return QUESTION_TYPES
        kept: tuple[str, ...]
        if isinstance(self.question_types, str):
            kept = PAPER_QUESTION_TYPES if self.question_types == "paper" else (self.question_types,)
        else:
            kept = tuple(self.question_types)
        unknown = [kind for kind in kept if kind not in QUESTION_TYPES]
        if unknown or not kept:
            raise EcgDataError(
                f"got the question types {unknown or 'of an empty list'}; known: {', '.join(QUESTION_TYPES)}, or "
                "'paper' for the first three"
            )
        return kept

    def source_files(self) -> list[Path]:
        """The question files of this half and wording."""
        return [path for folder in SPLITS for path in self.question_files(folder)]

    def question_files(self, folder: str) -> list[Path]:
        """The question files of one of ECG-QA's folders `train`, `valid` and `test`."""
        return sorted((self.root() / self.source / self.wording / folder).glob("*.json"))


class EcgQa(EcgDatasetBuilder):
    """Builder of ECG-QA's questions; the ECGs are referred to by `ecg_id`, never copied."""

    BUILDER_CONFIG_CLASS = EcgQaConfig
    BUILDER_CONFIGS = [EcgQaConfig(name=f"{source}-{version}") for source in SOURCES for version in VERSIONS]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="ECG-QA: a question answering data set combined with electrocardiograms",
            homepage="https://github.com/Jwoo5/ecg-qa",
            license="CC-BY-4.0",
            features=QUESTION_FEATURES,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        self.config.kept_types()
        found = {folder: [str(path) for path in self.config.question_files(folder)] for folder in SPLITS}
        if not any(found.values()):
            root = self.config.root() / self.config.source / self.config.wording
            raise EcgDataError(f"no question files in {root}/{{{','.join(SPLITS)}}}/*.json; is data_dir right?")
        return [
            datasets.SplitGenerator(name=SPLITS[folder], gen_kwargs={"files": files})
            for folder, files in found.items()
            if files
        ]

    def _generate_examples(self, files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        kept = self.config.kept_types()
        for path in files:
            for index, item in enumerate(read_question_file(path)):
                if item["question_type"] in kept:
                    yield f"{path}-{index}", item


def read_question_file(path: str | Path) -> list[dict[str, Any]]:
    """The rows of one ECG-QA file, mapped (`ecg_path` present) or not.

    Raises:
        EcgDataError: not JSON, not a list, a row without a required key, or a question of an unknown type.
    """
    try:
        items = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise EcgDataError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(items, list):
        raise EcgDataError(f"{path}: expected a list of questions, got {type(items).__name__}")
    return [_question_row(path, index, item) for index, item in enumerate(items)]


def _question_row(path: str | Path, index: int, item: Any) -> dict[str, Any]:
    where = f"{path}: item {index}"
    if not isinstance(item, dict):
        raise EcgDataError(f"{where} is {item!r:.60}, expected a question with its keys")
    missing = [key for key in (*_REQUIRED, "ecg_id") if key not in item]
    if missing:
        raise EcgDataError(f"{where} lacks {', '.join(missing)}")
    answer, ecg_ids = _texts(item["answer"], f"{where}: answer"), _ecg_ids(item["ecg_id"], where)
    if not answer or not ecg_ids:
        raise EcgDataError(f"{where} has no answer or no ECG; the empty answer is written ['none']")
    if item["question_type"] not in QUESTION_TYPES:
        raise EcgDataError(
            f"{where}: question_type is {item['question_type']!r:.60}; ECG-QA's are {', '.join(QUESTION_TYPES)}"
        )
    paths = item.get("ecg_path")
    if paths is not None:
        paths = _texts([paths] if isinstance(paths, str) else paths, f"{where}: ecg_path")
        if len(paths) != len(ecg_ids):
            raise EcgDataError(f"{where} has {len(ecg_ids)} ECGs and {len(paths)} paths")
    return {
        **{key: _integer(item, key, where) for key in ("template_id", "question_id", "sample_id")},
        **{key: _text(item, key, where) for key in ("question_type", "attribute_type", "question")},
        "answer": answer,
        "ecg_id": ecg_ids,
        "attribute": None if item.get("attribute") is None else _texts(item["attribute"], f"{where}: attribute"),
        "ecg_path": paths,
    }


def _integer(item: Mapping[str, Any], key: str, where: str) -> int:
    value = item[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise EcgDataError(f"{where}: {key} is {value!r:.60}, expected an integer")
    return value


def _text(item: Mapping[str, Any], key: str, where: str) -> str:
    value = item[key]
    if not isinstance(value, str):
        raise EcgDataError(f"{where}: {key} is {value!r:.60}, expected text")
    return value


def _texts(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise EcgDataError(f"{what} is {value!r:.60}, expected a list of texts")
    return value


def _ecg_ids(value: Any, where: str) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in value):
        raise EcgDataError(f"{where}: ecg_id is {value!r:.60}, expected a list of ECG numbers")
    return value


def read_template_options(path: str | Path) -> dict[int, list[str]]:
    """Read ECG-QA's `answers_for_each_template.csv`: template id -> valid options.

    Args:
        path: A CSV with the columns `template_id` and `classes`, the latter a Python list of strings as text.

    Raises:
        EcgDataError: the file is missing, has other columns, or a line that does not hold an id and a list of strings.
    """
    path = Path(path)
    options: dict[int, list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not {"template_id", "classes"} <= set(reader.fieldnames or ()):
                raise EcgDataError(
                    f"{path} has the columns {reader.fieldnames}, expected template_id and classes; "
                    "pass ECG-QA's answers_for_each_template.csv"
                )
            for line in reader:
                template, classes = _parse_template_line(line, f"{path}, line {reader.line_num}")
                if template in options:
                    raise EcgDataError(f"{path}, line {reader.line_num}: template {template} is there twice")
                options[template] = classes
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise EcgDataError(f"{path} is not UTF-8 text: {error}") from error
    if not options:
        raise EcgDataError(f"{path} holds no template")
    return options


def _parse_template_line(line: Mapping[str, Any], where: str) -> tuple[int, list[str]]:
    try:
        template = int(line["template_id"])
        classes = ast.literal_eval(line["classes"])
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise EcgDataError(
            f"{where}: got {str(line['template_id'])[:20]!r} and {str(line['classes'])[:60]!r}, expected a template "
            "id and a list of strings"
        ) from error
    if not isinstance(classes, list) or not classes or not all(isinstance(option, str) for option in classes):
        raise EcgDataError(f"{where}: template {template} has {classes!r:.80}, expected a list of strings")
    return template, classes


def ptb_xl_path(ecg_id: int) -> str:
    """Where PTB-XL keeps a record at 500 Hz, without extension.

    Example:
        >>> ptb_xl_path(12662)
        'records500/12000/12662_hr'
    """
    return f"records500/{ecg_id // 1000 * 1000:05d}/{ecg_id:05d}_hr"


def mapped_path(source: str, ecg_id: int, record_paths: Mapping[int, tuple[str, str]] | None = None) -> str:
    """Where the signal of a question's ECG lies below its data set's folder, without extension.

    Args:
        source: `"ptbxl"` or `"mimic-iv-ecg"`.
        ecg_id: PTB-XL's `ecg_id`, or MIMIC-IV-ECG's `study_id`.
        record_paths: For MIMIC-IV-ECG, what `mimic_iv_ecg.read_record_paths` gives.

    Raises:
        EcgDataError: there is no such half of ECG-QA, or the record list lacks the study.

    Example:
        >>> mapped_path("ptbxl", 12662)
        'records500/12000/12662_hr'
    """
    if source == "ptbxl":
        return ptb_xl_path(ecg_id)
    if source != "mimic-iv-ecg":
        raise EcgDataError(f"got the source {source!r}, expected one of {', '.join(SOURCES)}")
    if record_paths is None or ecg_id not in record_paths:
        raise EcgDataError(
            f"study {ecg_id} is not in MIMIC-IV-ECG's record list; pass what read_record_paths gives for the whole one"
        )
    return record_paths[ecg_id][0]


def read_ecg_ids(path: str | Path) -> set[int]:
    """The ECGs of one of ECG-QA's lists, such as `test_ecgs.tsv`: a number and an ECG on each line.

    Raises:
        EcgDataError: the file cannot be read, or a line holds something else.
    """
    ids: set[int] = set()
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                parts = line.split()
                if len(parts) != 2 or not all(part.isdecimal() for part in parts):
                    raise EcgDataError(
                        f"{path}, line {number}: got {line.strip()!r:.60}, expected a number and an ECG"
                    )
                ids.add(int(parts[1]))
    except OSError as error:
        raise EcgDataError(f"cannot read {path}: {error.strerror or error}; is ecg_qa_dir right?") from error
    except UnicodeDecodeError as error:
        raise EcgDataError(f"{path} is not UTF-8 text: {error}") from error
    return ids
