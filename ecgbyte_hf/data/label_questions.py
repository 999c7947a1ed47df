"""Questions about PTB-XL's labels, in the words of ECG-QA's verify and query questions.

A label is a fact about the record, so these questions can be asked about every record of the data set, at either rate.
Of each label set only the records with at least one label of it are asked, as in PTB-XL's benchmark
(https://github.com/helme/ecg_ptbxl_benchmarking, `select_data`): a record without any is not known to have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ecgbyte_hf.data.questions import rows_of
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

#: The superclasses of PTB-XL's diagnostic statements, and how a question names them.
SUPERCLASSES = {
    "NORM": "a normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T changes",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
#: Their subclasses. A name says what PTB-XL puts there: AMI holds every anterior infarction, LMI the lateral alone.
SUBCLASSES = {
    "NORM": "a normal ECG",
    "AMI": "anterior myocardial infarction",
    "IMI": "inferior myocardial infarction",
    "LMI": "lateral myocardial infarction",
    "PMI": "posterior myocardial infarction",
    "ISCA": "ischemia in anterior or lateral leads",
    "ISCI": "ischemia in inferior leads",
    "ISC_": "non-specific ischemia",
    "NST_": "non-specific ST changes",
    "STTC": "other ST/T changes such as long QT or digitalis effect",
    "LAFB/LPFB": "left anterior or posterior fascicular block",
    "CLBBB": "complete left bundle branch block",
    "ILBBB": "incomplete left bundle branch block",
    "CRBBB": "complete right bundle branch block",
    "IRBBB": "incomplete right bundle branch block",
    "IVCD": "non-specific intraventricular conduction disturbance",
    "_AVB": "atrioventricular block",
    "WPW": "Wolff-Parkinson-White syndrome",
    "LVH": "left ventricular hypertrophy",
    "RVH": "right ventricular hypertrophy",
    "SEHYP": "septal hypertrophy",
    "LAO/LAE": "left atrial enlargement",
    "RAO/RAE": "right atrial enlargement",
}
#: The form statements.
FORMS = {
    "ABQRS": "an abnormal QRS complex",
    "QWAVE": "Q waves",
    "LVOLT": "low QRS voltage",
    "HVOLT": "high QRS voltage",
    "VCLVH": "voltage criteria for left ventricular hypertrophy",
    "PVC": "a ventricular premature complex",
    "PAC": "an atrial premature complex",
    "PRC(S)": "premature complexes of unknown origin",
    "LPR": "a prolonged PR interval",
    "LNGQT": "a long QT interval",
    "STD_": "non-specific ST depression",
    "STE_": "non-specific ST elevation",
    "NST_": "non-specific ST changes",
    "NT_": "non-specific T wave changes",
    "NDT": "non-diagnostic T wave abnormalities",
    "TAB_": "a T wave abnormality",
    "INVT": "inverted T waves",
    "LOWT": "low T waves",
    "DIG": "digitalis effect",
}
#: The rhythm statements.
RHYTHMS = {
    "SR": "sinus rhythm",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "SARRH": "sinus arrhythmia",
    "AFIB": "atrial fibrillation",
    "AFLT": "atrial flutter",
    "SVTAC": "supraventricular tachycardia",
    "PSVT": "paroxysmal supraventricular tachycardia",
    "SVARR": "supraventricular arrhythmia",
    "BIGU": "a bigeminal pattern",
    "TRIGU": "a trigeminal pattern",
    "PACE": "a pacemaker rhythm",
}


@dataclass(frozen=True)
class LabelSet:
    """Labels that are asked about one by one, and where their questions stand.

    Attributes:
        column: Of the rows of `ptb_xl`, with the labels a record has.
        attribute_type: Of the questions.
        first_template: Template of the first label's question; those of the others follow.
        names: How a question names each label.
    """

    column: str
    attribute_type: str
    first_template: int
    names: Mapping[str, str]

    def templates(self) -> dict[str, int]:
        """The template of each label's question."""
        return {label: self.first_template + index for index, label in enumerate(self.names)}


#: Templates begin next to those of the report questions, far from ECG-QA's 1..70. A prepared folder and a model's
#: answers are known by them, so a label keeps its place.
VERIFY_SETS = {
    "superclass": LabelSet("superclass", "diagnostic_superclass", 2101, SUPERCLASSES),
    "subclass": LabelSet("subclass", "diagnostic_subclass", 2111, SUBCLASSES),
    "form": LabelSet("form", "form", 2141, FORMS),
    "rhythm": LabelSet("rhythm", "rhythm", 2161, RHYTHMS),
}
#: The one question that is answered by names: which superclasses a record has.
WHICH, WHICH_TEMPLATE = "which", 2181
#: What can be asked, in the order in which it is asked about a record.
LABEL_SETS = (*VERIFY_SETS, WHICH)
DEFAULT_LABEL_SETS = ("superclass",)

_FIRST_TEMPLATE = 2101
# Sample ids are 100 apart, room for the templates 2101 to 2200: a question has its number whatever else is asked.
_TEMPLATES = 100
_ANSWERS = ("no", "yes")


def superclass_names() -> dict[str, str]:
    """How a "which of" question and its answer name each superclass: without the article.

    Example:
        >>> superclass_names()["NORM"]
        'normal ECG'
    """
    return {label: name.removeprefix("a ") for label, name in SUPERCLASSES.items()}


def label_template_options(label_sets: Sequence[str] = DEFAULT_LABEL_SETS) -> dict[int, list[str]]:
    """The valid answers of every template.

    Args:
        label_sets: Some of `LABEL_SETS`.

    Raises:
        EcgDataError: an unknown one.
    """
    options: dict[int, list[str]] = {}
    for name in _in_order(label_sets):
        if name == WHICH:
            options[WHICH_TEMPLATE] = [*superclass_names().values(), "none"]
        else:
            options |= {template: list(_ANSWERS) for template in VERIFY_SETS[name].templates().values()}
    return options


def label_questions(
    records: Iterable[Mapping[str, Any]],
    label_sets: Sequence[str] = DEFAULT_LABEL_SETS,
    *,
    negatives: int | None = None,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """For each record, whether the ECG shows each label of some sets, and which superclasses it shows.

    Args:
        records: Rows of the builder `ptb_xl`, with `ecg_id` and the labels. A record without any label of a set is
            not asked about that set.
        label_sets: Some of `LABEL_SETS`; whatever their order, the questions have that of `LABEL_SETS`.
        negatives: At most so many questions of each set and record whose answer is no, drawn at random; all by
            default. For training alone, where otherwise nine of ten answers are no.
        seed: Of the draw, which depends on nothing else but record and set.

    Yields:
        Rows of `QUESTION_FEATURES`.

    Raises:
        EcgDataError: an unknown set or label, or less than one negative.

    Example:
        >>> rows = list(label_questions([{"ecg_id": 7, "superclass": ["MI"]}], ["superclass", "which"]))
        >>> rows[1]["question"], rows[1]["answer"], rows[0]["answer"], rows[5]["answer"]
        ('Does this ECG show myocardial infarction?', ['yes'], ['no'], ['myocardial infarction'])
    """
    if negatives is not None and negatives < 1:
        raise EcgDataError(
            f"got {negatives} negative questions of each label set, expected at least 1, or None for all"
        )
    chosen = _in_order(label_sets)
    for record in records:
        for name in chosen:
            if name == WHICH:
                yield from _which_question(record)
            else:
                yield from _verify_questions(record, VERIFY_SETS[name], negatives, seed)


def count_labels(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, Any]]:
    """Of each split and label set the records and questions, and for each label how often the answer is yes.

    Args:
        tables: Label questions by split.

    Returns:
        `{"train": {"superclass": {"records": 1, "questions": 5, "yes": {"MI": 1, ...}}, ...}, ...}`; a label that is
        never asked about is not in `yes`. For `"which"` it counts the names in the answers.
    """
    set_of = {template: name for name, labels in VERIFY_SETS.items() for template in labels.templates().values()}
    label_of = {name: label for label, name in superclass_names().items()}
    counts: dict[str, dict[str, Any]] = {}
    for split, table in tables.items():
        records: dict[str, set[int]] = {}
        questions: Counter[str] = Counter()
        positive: dict[str, Counter[str]] = {}
        for row in rows_of(table):
            name = set_of.get(row["template_id"], WHICH)
            records.setdefault(name, set()).update(row["ecg_id"])
            questions[name] += 1
            of_set = positive.setdefault(name, Counter())
            if name == WHICH:
                of_set.update(label_of[answer] for answer in row["answer"])
            else:
                of_set[row["attribute"][0]] += row["answer"] == ["yes"]
        counts[split] = {
            name: {"records": len(records[name]), "questions": questions[name], "yes": dict(positive[name])}
            for name in LABEL_SETS
            if name in records
        }
    return counts


def count_unlabelled(records: Iterable[Mapping[str, Any]], label_sets: Sequence[str]) -> dict[str, int]:
    """How many records have no label of each set, so that nothing of it is asked about them."""
    columns = {name: "superclass" if name == WHICH else VERIFY_SETS[name].column for name in _in_order(label_sets)}
    counts = dict.fromkeys(columns, 0)
    for record in records:
        for name, column in columns.items():
            counts[name] += not record[column]
    return counts


def _in_order(label_sets: Sequence[str]) -> list[str]:
    unknown = sorted(set(label_sets) - set(LABEL_SETS))
    if unknown or not label_sets:
        raise EcgDataError(f"got the label sets {', '.join(unknown) or 'none'}; known: {', '.join(LABEL_SETS)}")
    return [name for name in LABEL_SETS if name in label_sets]


def _verify_questions(
    record: Mapping[str, Any], labels: LabelSet, negatives: int | None, seed: int
) -> Iterator[dict[str, Any]]:
    present = _labels_of(record, labels.column, labels.names)
    if not present:
        return
    asked = list(labels.names)
    absent = [label for label in asked if label not in present]
    if negatives is not None and negatives < len(absent):
        rng = np.random.default_rng([seed, record["ecg_id"], labels.first_template])
        drawn = {absent[index] for index in rng.choice(len(absent), negatives, replace=False)}
        asked = [label for label in asked if label in present or label in drawn]
    templates = labels.templates()
    for label in asked:
        yield _row(
            record["ecg_id"],
            templates[label],
            question_type="single-verify",
            attribute_type=labels.attribute_type,
            question=f"Does this ECG show {labels.names[label]}?",
            answer=[_ANSWERS[label in present]],
            attribute=[label],
        )


def _which_question(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    present = _labels_of(record, "superclass", SUPERCLASSES)
    if not present:
        return
    names = superclass_names()
    *first, last = names.values()
    yield _row(
        record["ecg_id"],
        WHICH_TEMPLATE,
        question_type="single-query",
        attribute_type="diagnostic_superclass",
        question=f"Which of {', '.join(first)} and {last} does this ECG show?",
        answer=[name for label, name in names.items() if label in present],
        attribute=list(names),
    )


def _labels_of(record: Mapping[str, Any], column: str, names: Mapping[str, str]) -> set[str]:
    present = set(record[column])
    unknown = sorted(present - set(names))
    if unknown:
        raise EcgDataError(
            f"ECG {record['ecg_id']} has the {column} {', '.join(unknown)}, which no question names; known: "
            f"{', '.join(names)}"
        )
    return present


def _row(ecg_id: int, template_id: int, **columns: Any) -> dict[str, Any]:
    return {
        "sample_id": ecg_id * _TEMPLATES + template_id - _FIRST_TEMPLATE,
        "template_id": template_id,
        "question_id": template_id,
        **columns,
        "ecg_id": [ecg_id],
        "ecg_path": None,
    }
