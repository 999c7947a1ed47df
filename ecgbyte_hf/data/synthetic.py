"""Questions about simulated ECGs in ECG-QA's schema; every answer is what the record was made with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from ecgbyte_hf.data.questions import QUESTION_FEATURES
from ecgbyte_hf.data.simulator import (
    AXES,
    QRS_WIDTHS,
    RATES,
    RHYTHMS,
    ST_SHIFTS,
    SimulatedLabels,
    draw_labels,
    record_rng,
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "rate": RATES,
    "rhythm": RHYTHMS,
    "st": ST_SHIFTS,
    "qrs_width": QRS_WIDTHS,
    "axis": AXES,
}
_NAMES = {
    "rate": "heart rate",
    "rhythm": "rhythm",
    "st": "st segment",
    "qrs_width": "qrs complex",
    "axis": "electrical axis",
}
_TYPES = ("single-query", "single-verify", "single-choose")
# Template ids: 1001.. for query, 1101.. for verify, 1201.. for choose, far from ECG-QA's 1..70.
_FIRST_TEMPLATE = {"single-query": 1001, "single-verify": 1101, "single-choose": 1201}


def template_id(question_type: str, attribute_type: str) -> int:
    """The template of a question type and attribute."""
    return _FIRST_TEMPLATE[question_type] + list(ATTRIBUTES).index(attribute_type)


def synthetic_template_options() -> dict[int, list[str]]:
    """The valid answers of every template, as `answers_for_each_template.csv` gives them for ECG-QA."""
    options: dict[int, list[str]] = {}
    for attribute, classes in ATTRIBUTES.items():
        options[template_id("single-query", attribute)] = list(classes)
        options[template_id("single-verify", attribute)] = ["no", "yes"]
        options[template_id("single-choose", attribute)] = [*classes, "none"]
    return options


def questions_about(
    ecg_id: int, labels: SimulatedLabels, rng: np.random.Generator, attributes: tuple[str, ...] = tuple(ATTRIBUTES)
) -> list[dict[str, Any]]:
    """One question of each type for each attribute of one record.

    Verify questions ask for the true class half of the time; choose questions name the true class and another one,
    or, with three classes, in a fifth of the cases two wrong ones, whose answer is `none`.
    """
    rows: list[dict[str, Any]] = []
    for attribute in attributes:
        classes = ATTRIBUTES[attribute]
        true = str(getattr(labels, attribute))
        wrong = [name for name in classes if name != true]
        asked = true if rng.uniform() < 0.5 else str(rng.choice(wrong))
        if len(wrong) > 1 and rng.uniform() < 0.2:
            pair, chosen = list(rng.permutation(wrong)), "none"
        else:
            pair, chosen = list(rng.permutation([true, str(rng.choice(wrong))])), true
        texts = {
            "single-query": (f"What is the {_NAMES[attribute]} of this ECG?", true, None),
            "single-verify": (f"Does this ECG show {asked}?", "yes" if asked == true else "no", [asked]),
            "single-choose": (
                f"Which {_NAMES[attribute]} does this ECG show, {pair[0]} or {pair[1]}?",
                chosen,
                [str(name) for name in pair],
            ),
        }
        for question_type, (question, answer, attribute_names) in texts.items():
            template = template_id(question_type, attribute)
            rows.append(
                {
                    "sample_id": ecg_id * 100 + len(rows),
                    "template_id": template,
                    "question_id": template,
                    "question_type": question_type,
                    "attribute_type": attribute,
                    "question": question,
                    "answer": [answer],
                    "ecg_id": [ecg_id],
                    "attribute": attribute_names,
                    "ecg_path": None,
                }
            )
    return rows


@dataclass
class SyntheticConfig(datasets.BuilderConfig):
    """Size and shape of the simulated set.

    Attributes:
        num_records: Records in all splits together.
        seed: Of the simulator.
    """

    version: datasets.Version = datasets.Version("1.0.0")
    num_records: int = 1000
    seed: int = 0


def synthetic_split(ecg_id: int) -> str:
    """Of twenty records in a row eighteen train, one validates and one tests."""
    return {18: "validation", 19: "test"}.get((ecg_id - 1) % 20, "train")


class Synthetic(datasets.GeneratorBasedBuilder):
    """Builder with two configurations: `questions`, and `labels` (what every record was made with)."""

    BUILDER_CONFIG_CLASS = SyntheticConfig
    BUILDER_CONFIGS = [SyntheticConfig(name="questions"), SyntheticConfig(name="labels")]
    DEFAULT_CONFIG_NAME = "questions"

    @staticmethod
    def fingerprint(data_dir: str) -> str:
        """Simulated records depend on no file."""
        return ""

    def _info(self) -> datasets.DatasetInfo:
        if self.config.name == "questions":
            return datasets.DatasetInfo(description="Questions about simulated ECGs", features=QUESTION_FEATURES)
        numbers = {"heart_rate_bpm", "rr_variation", "st_mv", "qrs_ms", "axis_degrees", "noise_mv"}
        fields = {name: datasets.Value("float64" if name in numbers else "string") for name in _label_names()}
        return datasets.DatasetInfo(
            description="What every simulated ECG was made with",
            features=datasets.Features({"ecg_id": datasets.Value("int64"), **fields}),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        names = ("train", "validation", "test")
        return [datasets.SplitGenerator(name=name, gen_kwargs={"split": name}) for name in names]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for ecg_id in range(1, self.config.num_records + 1):
            if synthetic_split(ecg_id) != split:
                continue
            labels = draw_labels(record_rng(self.config.seed, ecg_id))
            if self.config.name == "labels":
                yield ecg_id, {"ecg_id": ecg_id, **labels.to_dict()}
                continue
            for row in questions_about(ecg_id, labels, question_rng(self.config.seed, ecg_id)):
                yield row["sample_id"], row


def question_rng(seed: int, ecg_id: int) -> np.random.Generator:
    """The generator that words the questions of one record."""
    return np.random.default_rng([seed, ecg_id, 1])


def _label_names() -> list[str]:
    return list(SimulatedLabels.__dataclass_fields__)
