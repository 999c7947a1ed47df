"""ECG-QA (Oh et al., NeurIPS 2023): questions about PTB-XL and MIMIC-IV-ECG records, with its own splits by ECG.

Expected tree, as the `ecgqa` folder of its repository has it::

    ptbxl/answers_for_each_template.csv
    ptbxl/{template,paraphrased}/{train,valid,test}/*.json
    mimic-iv-ecg/...
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ecgbyte_hf.data.questions import QUESTION_FEATURES, files_fingerprint
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

SOURCES = ("ptbxl", "mimic-iv-ecg")
VERSIONS = ("template", "paraphrased")
# ECG-QA's folder names to the names that the Hub's viewer and trainers expect.
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_REQUIRED = ("template_id", "question_id", "sample_id", "question_type", "attribute_type", "question", "answer")


@dataclass
class EcgQaConfig(datasets.BuilderConfig):
    """One half and wording of ECG-QA.

    Attributes:
        fingerprint: Hash of the source files; part of the cache's name.
    """

    version: datasets.Version = datasets.Version("1.0.0")
    fingerprint: str = ""

    @property
    def source(self) -> str:
        """`ptbxl` or `mimic-iv-ecg`."""
        return self.name.rpartition("-")[0]

    @property
    def wording(self) -> str:
        """`template` or `paraphrased`."""
        return self.name.rpartition("-")[2]


class EcgQa(datasets.GeneratorBasedBuilder):
    """Builder of ECG-QA's questions; the ECGs are referred to by `ecg_id`, never copied."""

    BUILDER_CONFIG_CLASS = EcgQaConfig
    BUILDER_CONFIGS = [EcgQaConfig(name=f"{source}-{version}") for source in SOURCES for version in VERSIONS]

    @staticmethod
    def fingerprint(data_dir: str) -> str:
        """Hash of all JSON files below `data_dir`."""
        return files_fingerprint(Path(data_dir).rglob("*.json"))

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="ECG-QA: a question answering data set combined with electrocardiograms",
            homepage="https://github.com/Jwoo5/ecg-qa",
            license="CC-BY-4.0",
            features=QUESTION_FEATURES,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if not self.config.data_dir:
            raise EcgDataError("ECG-QA needs data_dir=...: its `ecgqa` folder, with ptbxl/ and mimic-iv-ecg/ in it")
        root = Path(self.config.data_dir) / self.config.source / self.config.wording
        found = {folder: sorted(str(path) for path in (root / folder).glob("*.json")) for folder in SPLITS}
        if not any(found.values()):
            raise EcgDataError(f"no question files in {root}/{{{','.join(SPLITS)}}}/*.json; is data_dir right?")
        return [
            datasets.SplitGenerator(name=SPLITS[folder], gen_kwargs={"files": files})
            for folder, files in found.items()
            if files
        ]

    def _generate_examples(self, files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in files:
            for index, item in enumerate(read_question_file(path)):
                yield f"{path}-{index}", item


def read_question_file(path: str | Path) -> list[dict[str, Any]]:
    """The rows of one ECG-QA file, mapped (`ecg_path` present) or not.

    Raises:
        EcgDataError: not JSON, not a list, or a row without a required key.
    """
    try:
        items = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise EcgDataError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(items, list):
        raise EcgDataError(f"{path}: expected a list of questions, got {type(items).__name__}")
    return [_question_row(path, index, item) for index, item in enumerate(items)]


def _question_row(path: str | Path, index: int, item: dict[str, Any]) -> dict[str, Any]:
    missing = [key for key in (*_REQUIRED, "ecg_id") if key not in item]
    if missing:
        raise EcgDataError(f"{path}: item {index} lacks {', '.join(missing)}")
    paths = item.get("ecg_path")
    row = {key: item[key] for key in _REQUIRED}
    row["ecg_id"] = [int(number) for number in item["ecg_id"]]
    row["attribute"] = item.get("attribute")
    row["ecg_path"] = [paths] if isinstance(paths, str) else paths
    return row


def read_template_options(path: str | Path) -> dict[int, list[str]]:
    """`answers_for_each_template.csv`: the valid answers of every template.

    Raises:
        EcgDataError: the file or one of its lists is malformed.
    """
    options: dict[int, list[str]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                classes = ast.literal_eval(row["classes"])
                options[int(row["template_id"])] = [str(name) for name in classes]
            except (KeyError, ValueError, SyntaxError) as error:
                raise EcgDataError(f"{path}: malformed row {row!r}; expected template_id and a list") from error
    return options


def ptb_xl_path(ecg_id: int) -> str:
    """Where PTB-XL keeps a record at 500 Hz, without extension.

    Example:
        >>> ptb_xl_path(12662)
        'records500/12000/12662_hr'
    """
    return f"records500/{ecg_id // 1000 * 1000:05d}/{ecg_id:05d}_hr"
