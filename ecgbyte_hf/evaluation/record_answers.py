"""One answer about each record from the answers about its windows: P(yes) averaged, anything else by vote.

The rows are then those of the whole record's questions, so that everything that scores such rows scores these, beside
systems that saw the record whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgbyte_hf.evaluation.label_scores import probabilities_of_yes
from ecgbyte_hf.evaluation.scoring import normalise, parse_answer
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

Row = Mapping[str, Any]

#: The answer to a yes/no question is yes from this mean probability on.
THRESHOLD = 0.5
# What all windows of a question have alike.
_SHARED = ("record_id", "template_id", "question_type", "attribute_type", "attribute", "question", "answer", "options")
_YES_AND_NO = frozenset({"yes", "no"})


def record_answers(rows: Sequence[Row], source: str | Path) -> list[dict[str, Any]]:
    """Answers about whole records from answers about their windows; those about whole records stay as they are.

    A verify question has P(yes) averaged over the windows in its `option_logprobs`, where the windows have them, and
    its answer is yes from `THRESHOLD` on. Any other question, one whose options are more than yes and no ("not sure"),
    and one without probabilities gets the most frequent answer of the windows; on a tie that of the earliest one. A
    text without a valid answer has no vote.

    Args:
        rows: Prediction rows in the order of `WindowedData.questions`, the windows of a question behind one another.
        source: Their file, for messages.

    Returns:
        Prediction rows in the order of `PreparedData.questions`, without `record_id`. `reached_limit` is true where an
        answer about any window was cut off.

    Raises:
        EcgDataError: some rows are about windows and some are not, a question lacks a window, or only some yes/no
            questions have probabilities.
    """
    num_windowed = sum(row.get("record_id") is not None for row in rows)
    if not num_windowed:
        return [dict(row) for row in rows]
    if num_windowed < len(rows):
        raise EcgDataError(
            f"{source} has {num_windowed} rows about windows (record_id) and {len(rows) - num_windowed} about whole "
            "records, expected one kind; answer one split of one folder"
        )
    questions = _windows_of_questions(rows)
    count = len(questions[0])
    for windows in questions:
        _check_whole(windows, count, source)
    means = _mean_probabilities(questions, source)
    return [_record_answer(windows, mean) for windows, mean in zip(questions, means, strict=True)]


def _windows_of_questions(rows: Sequence[Row]) -> list[list[Row]]:
    questions: list[list[Row]] = []
    for row in rows:
        if questions and _is_next_window(row, questions[-1][-1]):
            questions[-1].append(row)
        else:
            questions.append([row])
    return questions


def _is_next_window(row: Row, before: Row) -> bool:
    is_next = list(row["ecg_id"]) == [number + 1 for number in before["ecg_id"]]
    return is_next and all(row.get(key) == before.get(key) for key in _SHARED)


def _check_whole(windows: Sequence[Row], count: int, source: str | Path) -> None:
    """Refuse a question that was not asked about every window of its record, numbered as `WindowedData` does."""
    first = windows[0]
    expected = [[record * count + window for record in first["record_id"]] for window in range(count)]
    samples = [first["sample_id"] // count * count + window for window in range(count)]
    if [list(row["ecg_id"]) for row in windows] != expected or [row["sample_id"] for row in windows] != samples:
        raise EcgDataError(
            f"{source} answers sample {first['sample_id']} about the windows {[row['ecg_id'] for row in windows]} of "
            f"{first['record_id']}, expected {expected}: all {count} windows of a record, in order"
        )


def _mean_probabilities(questions: Sequence[Sequence[Row]], source: str | Path) -> list[float | None]:
    """P(yes) of each question, averaged over its windows; None where it is no yes/no question, or has none."""
    is_asked = [
        str(windows[0]["question_type"]).endswith("-verify") and _YES_AND_NO <= _options(windows[0])
        for windows in questions
    ]
    asked = [row for windows, asks in zip(questions, is_asked, strict=True) if asks for row in windows]
    given = probabilities_of_yes(asked, str(source)) if asked else None
    if given is None:
        return [None] * len(questions)
    means = iter(given.reshape(-1, len(questions[0])).mean(axis=1).tolist())
    return [next(means) if asks else None for asks in is_asked]


def _record_answer(windows: Sequence[Row], mean: float | None) -> dict[str, Any]:
    first = windows[0]
    answer = {key: value for key, value in first.items() if key not in ("record_id", "option_logprobs")}
    answer["sample_id"] = first["sample_id"] // len(windows)
    answer["ecg_id"] = first["record_id"]
    answer["reached_limit"] = any(row.get("reached_limit") for row in windows)
    if mean is not None:
        answer["option_logprobs"] = {"yes": _log(mean), "no": _log(1.0 - mean)}
    if mean is not None and _options(first) == _YES_AND_NO:
        answer["prediction"] = "yes" if mean >= THRESHOLD else "no"
    else:
        answer["prediction"] = _most_frequent(windows)
    return answer


def _most_frequent(windows: Sequence[Row]) -> str:
    """The text of the earliest window that gives the most frequent answer."""
    texts = [str(row["prediction"] or "") for row in windows]
    options = windows[0]["options"]
    answers = [parse_answer(text, options) if options else normalise(text) or None for text in texts]
    votes = Counter(answer for answer in answers if answer is not None)
    # Of equal counts, the one that was counted first comes first.
    return texts[answers.index(votes.most_common(1)[0][0])] if votes else texts[0]


def _options(row: Row) -> set[str]:
    return {normalise(option) for option in row["options"]}


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf
