"""Questions about PTB-XL's labels, in the words of ECG-QA's verify questions: for records without questions of others.

A label is a fact about the record, so these questions can be asked about every record of the data set, at either rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: The superclasses of PTB-XL's diagnostic statements, and how a question names them.
SUPERCLASSES = {
    "NORM": "a normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T changes",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
# Template ids next to those of the report questions, far from ECG-QA's 1..70.
_FIRST_TEMPLATE = 2101
_ANSWERS = ("no", "yes")


def label_template_options() -> dict[int, list[str]]:
    """The valid answers of every template."""
    return {_FIRST_TEMPLATE + index: list(_ANSWERS) for index in range(len(SUPERCLASSES))}


def label_questions(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each record and superclass, whether the ECG shows it.

    Args:
        records: Rows of the builder `ptb_xl`, with `ecg_id` and `superclass`. A record without any diagnostic
            statement has no superclass; nothing is asked about it.

    Yields:
        Rows of `QUESTION_FEATURES`.

    Example:
        >>> rows = list(label_questions([{"ecg_id": 7, "superclass": ["MI"]}]))
        >>> rows[1]["question"], rows[1]["answer"], rows[0]["answer"]
        ('Does this ECG show myocardial infarction?', ['yes'], ['no'])
    """
    for record in records:
        if not record["superclass"]:
            continue
        for index, (label, name) in enumerate(SUPERCLASSES.items()):
            yield {
                "sample_id": record["ecg_id"] * len(SUPERCLASSES) + index,
                "template_id": _FIRST_TEMPLATE + index,
                "question_id": _FIRST_TEMPLATE + index,
                "question_type": "single-verify",
                "attribute_type": "diagnostic_superclass",
                "question": f"Does this ECG show {name}?",
                "answer": [_ANSWERS[label in record["superclass"]]],
                "ecg_id": [record["ecg_id"]],
                "attribute": [label],
                "ecg_path": None,
            }
