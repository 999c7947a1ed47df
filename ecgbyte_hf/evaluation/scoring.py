"""Exact match of answer sets, as ECG-QA defines them, for a model that writes free text.

An answer is a set of options and "none" is the empty set (Oh et al., ECG-QA, arXiv 2306.15681). What a model wrote is
turned back into such a set by finding the question's valid options in it; the order does not matter. A text without
any option is wrong, and counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ecgbyte_hf.data.ecg_qa import QUESTION_TYPES
from ecgbyte_hf.data.ecg_qa import read_template_options as read_template_options
from ecgbyte_hf.evaluation.statistics import bootstrap_interval
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

#: The word for the empty set.
NONE = "none"
# Question types whose answers are written, not chosen.
FREE_TEXT_TYPES = ("report", "conversation")


def question_options(row: Mapping[str, Any], template_options: Mapping[int, Sequence[str]]) -> list[str]:
    """Return the valid options of one question, in the template's order.

    A `choose` question offers only the options it names ("which noise does this ECG show, static noise or baseline
    drift?"), plus "none" where its template allows it; its gold answer may be both, one or none. The names are looked
    up in the question and in `attribute`, which repeats them, so a paraphrase that bends a name does no harm.

    Raises:
        EcgDataError: an unknown template, or a `choose` question that names fewer than two options.

    >>> question_options(
    ...     {"template_id": 7, "question_type": "single-choose", "question": "Is it flutter or fibrillation?"},
    ...     {7: ["fibrillation", "flutter", "none", "sinus rhythm"]})
    ['fibrillation', 'flutter', 'none']
    """
    template = int(row["template_id"])
    if template not in template_options:
        known = sorted(template_options)
        raise EcgDataError(
            f"{_name(row)} has template {template}, which has no list of options; "
            f"{len(known)} templates are known, {known[:3]} to {known[-1:]}: is the list of the same data set?"
        )
    options = list(template_options[template])
    if not str(row["question_type"]).endswith("-choose"):
        return options
    choices = [option for option in options if normalise(option) != NONE]
    named: set[str] = set()
    for text in (row["question"], *(row.get("attribute") or ())):
        named |= _find_options(str(text), tuple(choices))
    if len(named) < 2:
        raise EcgDataError(
            f"{_name(row)} is a choose question that names {sorted(named)} of template {template}'s options, "
            f"expected at least two: {row['question']!r}"
        )
    return [option for option in options if normalise(option) in named or normalise(option) == NONE]


def valid_answers(row: Mapping[str, Any], template_options: Mapping[int, Sequence[str]]) -> list[str]:
    """The valid options of a question, as `question_options`; none where the answer is free text, such as a report.

    Raises:
        EcgDataError: as `question_options`.
    """
    return [] if row["question_type"] in FREE_TEXT_TYPES else question_options(row, template_options)


def parse_answer(text: str, options: Iterable[str]) -> frozenset[str] | None:
    """Find the options in what a model wrote.

    Upper and lower case and runs of white space do not matter. An option counts where it stands as whole words ("no"
    is not in "normal"), the longest options are looked for first, and each stretch of the text is used once ("st
    changes" is not found again inside "non-specific st changes").

    Args:
        text: what the model wrote.
        options: the valid options of the question.

    Returns:
        the options found, in lower case; the empty set where "none" is an option and is written, and no other option
        is; None where no option is found. Where "none" stands beside other options these count and "none" does not:
        it then belongs to a phrase ("none besides ..."), and a set with members is not empty. "none of ..." and "not
        sure" are ordinary options.

    >>> sorted(parse_answer("Sinus rhythm, old st changes", ["sinus rhythm", "st changes", "old st changes"]))
    ['old st changes', 'sinus rhythm']
    >>> parse_answer("None.", ["none", "yes"]), parse_answer("abnormal", ["no", "yes"])
    (frozenset(), None)
    """
    found = _find_options(text, tuple(options))
    if not found:
        return None
    return frozenset(found - {NONE})


def gold_answer(row: Mapping[str, Any]) -> frozenset[str]:
    """Return the right answer as a set in lower case; "none" is the empty set.

    Raises:
        EcgDataError: the row has no answer at all, which is not the same as "none".
    """
    answer = row["answer"]
    if not answer or isinstance(answer, str):
        raise EcgDataError(f"{_name(row)} has the answer {answer!r}, expected a list such as ['yes'] or ['none']")
    return frozenset(normalise(option) for option in answer) - {NONE}


def answer_text(answer: Iterable[str]) -> str:
    """Write an answer set as a model is trained to: its options, sorted, joined by a space; "none" if empty."""
    return " ".join(sorted(answer)) or NONE


def score_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Score prediction rows: question rows with `options` and `prediction`.

    Returns:
        the rows with `parsed` (sorted list of options, or None), `correct`, `unparsed`, and `gold_outside_options`:
        the right answer is not among the options, so that no prediction can be correct. An empty prediction is wrong
        and stays in. Where a question has no options, such as one for a report, the whole text must be the answer's,
        but for case and white space.

    Raises:
        EcgDataError: a row without `options` or `prediction`.
    """
    scored = []
    for row in rows:
        missing = {"options", "prediction"} - set(row)
        if missing:
            raise EcgDataError(f"{_name(row)} lacks {sorted(missing)}: score the rows that generation wrote")
        gold = gold_answer(row)
        if not row["options"]:
            is_same = normalise(row["prediction"] or "") == normalise(" ".join(row["answer"]))
            flags = {"parsed": None, "correct": is_same, "unparsed": False, "gold_outside_options": False}
            scored.append({**row, **flags})
            continue
        parsed = parse_answer(row["prediction"] or "", row["options"])
        scored.append(
            {
                **row,
                "parsed": None if parsed is None else sorted(parsed),
                "correct": parsed == gold,
                "unparsed": parsed is None,
                "gold_outside_options": not gold <= {normalise(option) for option in row["options"]},
            }
        )
    return scored


def cluster_key(row: Mapping[str, Any]) -> int:
    """The ECG a question is counted under in the bootstrap: its only one, or the first of a comparison.

    Windows of one recording count as one ECG: `record_id` names it.
    """
    return int((row.get("record_id") or row["ecg_id"])[0])


def summarise(scored: Sequence[Mapping[str, Any]], *, n_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Exact match of scored rows, overall, by question type and by attribute type.

    Args:
        scored: what `score_rows` returned.
        n_resamples: bootstrap resamples of each interval.
        seed: of the bootstrap.

    Returns:
        `{"exact_match": {overall, ci95, n, n_ecgs, unparsed, gold_outside_options, by_type, by_attribute}}`. Values
        and `unparsed` are fractions from 0 to 1, `gold_outside_options` is a count, `ci95` a 95 % percentile interval
        by ECG; `n_ecgs` counts the ECGs that were resampled (the first one of a comparison). `by_type` and
        `by_attribute`: name -> {value, n, ci95}.

    Raises:
        EcgDataError: no rows.
    """
    if not scored:
        raise EcgDataError("there is no scored row to summarise")

    def group(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        correct = [bool(row["correct"]) for row in rows]
        clusters = [cluster_key(row) for row in rows]
        interval = bootstrap_interval(correct, clusters, n_resamples=n_resamples, seed=seed)
        return {"value": sum(correct) / len(correct), "n": len(correct), "ci95": list(interval)}

    def groups(key: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
        members: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in scored:
            members[key(row)].append(row)
        order = {name: index for index, name in enumerate(QUESTION_TYPES)}
        names = sorted(members, key=lambda name: (order.get(name, len(order)), name))
        return {name: group(members[name]) for name in names}

    overall = group(scored)
    counts = Counter(flag for row in scored for flag in ("unparsed", "gold_outside_options") if row.get(flag))
    return {
        "exact_match": {
            "overall": overall["value"],
            "ci95": overall["ci95"],
            "n": overall["n"],
            "n_ecgs": len({cluster_key(row) for row in scored}),
            "unparsed": counts["unparsed"] / overall["n"],
            "gold_outside_options": counts["gold_outside_options"],
            "by_type": groups(lambda row: str(row["question_type"])),
            "by_attribute": groups(lambda row: str(row["attribute_type"])),
        }
    }


def normalise(text: str) -> str:
    """Lower case, and one space for each run of white space."""
    return " ".join(text.lower().split())


@lru_cache(maxsize=1024)
def _longest_first(options: tuple[str, ...]) -> tuple[str, ...]:
    # A questionnaire repeats the options of its templates tens of thousands of times.
    return tuple(sorted({normalise(option) for option in options} - {""}, key=lambda option: (-len(option), option)))


def _find_options(text: str, options: tuple[str, ...]) -> set[str]:
    """The options that stand in the text as whole words, longest first, each stretch used once."""
    text = normalise(text)
    used = bytearray(len(text))
    found = set()
    for option in _longest_first(options):
        start = text.find(option)
        while start >= 0:
            end = start + len(option)
            if _is_whole(text, start, end) and not any(used[start:end]):
                used[start:end] = b"\x01" * len(option)
                found.add(option)
            start = text.find(option, start + 1)
    return found


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] neither begins nor ends inside a word."""
    begins = start == 0 or not (_in_word(text[start - 1]) and _in_word(text[start]))
    ends = end == len(text) or not (_in_word(text[end - 1]) and _in_word(text[end]))
    return begins and ends


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _name(row: Mapping[str, Any]) -> str:
    return f"question {row.get('sample_id', '?')} (ECG {row.get('ecg_id', '?')})"
