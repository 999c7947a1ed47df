"""The statements that reports make, and whether a written report makes those of the real one.

A report is free text, so its words can differ where its findings do not. Phrases of a list (`statements.yaml`, or a
file of the user's) are looked for in both texts; a label is found where one of its phrases stands as whole words and
is not negated. Words that weaken ("possible", "consider", "cannot rule out") change nothing.

A phrase is negated by "no", "not", "without", "absence of", "negative for", "free of" or "denies" up to four words
before it, or by "absent", "excluded", "ruled out", "not seen" or "not present" right behind it ("is" may stand
between). A negation ends at a full stop, comma, colon, semicolon, the end of a line, "but" or "however", and at the
first phrase found; it goes on behind that only over "or" and "nor": "no ST elevation or ischemia" negates both, "no
ischemia left axis deviation" the first one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbyte_hf.evaluation.scoring import cluster_key
from ecgbyte_hf.evaluation.statistics import ClusterResamples, percentile_interval
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

Row = Mapping[str, Any]

#: Our own list, for English reports.
DEFAULT_STATEMENTS = Path(__file__).with_name("statements.yaml")

_WORDS = re.compile(r"[^\W_]+|[.,;:\n]")
_STOPS = frozenset({".", ",", ";", ":", "\n", "but", "however"})
_JOINS = frozenset({"or", "nor"})
# The last words of what negates what follows, and words that turn "not" into a doubt ("cannot rule out" is one word).
_BEFORE = (("no",), ("not",), ("without",), ("absence", "of"), ("negative", "for"), ("free", "of"), ("denies",))
_BEHIND = (("absent",), ("excluded",), ("ruled", "out"), ("not", "seen"), ("not", "present"))
_DOUBT = frozenset({"rule", "ruled", "exclude", "excluded"})
_REACH = 4


class StatementList:
    """Labels and the phrases that name them.

    Args:
        phrases: Label -> phrases.

    Raises:
        EcgDataError: no label, or a label without a phrase that has a word.

    Example:
        >>> found = StatementList({"ischemia": ["ischemia"], "LBBB": ["left bundle branch block"]})
        >>> sorted(found.find("No ischemia. Left bundle-branch block"))
        ['LBBB']
    """

    def __init__(self, phrases: Mapping[str, Iterable[str]]) -> None:
        self.labels = list(phrases)
        self._labels_of: dict[tuple[str, ...], set[str]] = {}
        for label, texts in phrases.items():
            known = [tuple(_words(text)) for text in texts]
            if not known or not all(known):
                raise EcgDataError(f"statement {label!r} has no phrase, or one without a word; give each at least one")
            for phrase in known:
                self._labels_of.setdefault(phrase, set()).add(label)
        if not self.labels:
            raise EcgDataError("got no statement, expected at least one label with its phrases")
        by_first: dict[str, list[tuple[str, ...]]] = {}
        for phrase in self._labels_of:
            by_first.setdefault(phrase[0], []).append(phrase)
        self._by_first = {word: sorted(found, key=len, reverse=True) for word, found in by_first.items()}
        self.find = lru_cache(maxsize=65536)(self._find)  # machine reports repeat

    @classmethod
    def load(cls, path: str | Path | None = None) -> StatementList:
        """Read a YAML file (label: list of phrases) or a CSV file (columns label and phrase); ours by default.

        Raises:
            EcgDataError: the file is missing or holds something else.
        """
        path = DEFAULT_STATEMENTS if path is None else Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise EcgDataError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise EcgDataError(f"{path} is not UTF-8 text: {error}") from error
        return cls(_from_csv(text, path) if path.suffix.lower() == ".csv" else _from_yaml(text, path))

    def _find(self, text: str) -> frozenset[str]:
        """The labels that a text states."""
        words = _tokens(text)
        found: set[str] = set()
        is_negated, last_end = False, -1
        for start, end in self._spans(words):
            between = words[last_end:start] if last_end >= 0 else []
            goes_on = is_negated and bool(between) and all(word in _JOINS for word in between)
            is_negated = goes_on or _negated_before(words, max(last_end, 0), start) or _negated_behind(words, end)
            if not is_negated:
                found |= self._labels_of[tuple(words[start:end])]
            last_end = end
        return frozenset(found)

    def _spans(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Where phrases stand, in order: longer ones first, each word used once."""
        candidates = [
            (start, start + len(phrase))
            for start, word in enumerate(words)
            for phrase in self._by_first.get(word, ())
            if tuple(words[start : start + len(phrase)]) == phrase
        ]
        used = bytearray(len(words))
        chosen = []
        for start, end in sorted(candidates, key=lambda span: (span[0] - span[1], span[0])):
            if not any(used[start:end]):
                used[start:end] = b"\x01" * (end - start)
                chosen.append((start, end))
        return sorted(chosen)


def score_statements(
    rows: Sequence[Row],
    statements: StatementList,
    systems: Mapping[str, Sequence[Row]],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """F1 of the statements found in written reports, against those of the real ones.

    Args:
        rows: The report questions: `answer` is the real report.
        statements: What to look for.
        systems: The same rows with the `prediction` of each system.
        n_resamples: Bootstrap resamples of each interval.
        seed: Of the bootstrap.

    Returns:
        `n`, `references_without_statement` (reports in which none of the phrases stands: nothing can be found there),
        `labels` (those in the references, with `n`), and `systems`: name -> `micro_f1` and `macro_f1` (`{value,
        ci95}`; None without any statement), `by_label` (label -> `precision`, `recall`, `f1`). Macro F1 is the mean
        over the labels that are in the references; a label found in predictions alone costs micro F1 only.
    """
    labels = statements.labels
    gold = _indicators([statements.find(" ".join(row["answer"])) for row in rows], labels)
    resamples = ClusterResamples([cluster_key(row) for row in rows], n_resamples=n_resamples, seed=seed)
    present = np.flatnonzero(gold.any(axis=0))
    found: dict[str, Any] = {}
    for name, answered in systems.items():
        said = _indicators([statements.find(row["prediction"] or "") for row in answered], labels)
        found[name] = _f1_report(gold, said, present, labels, resamples)
    return {
        "n": len(rows),
        "references_without_statement": int((~gold.any(axis=1)).sum()),
        "labels": {label: int(count) for label, count in zip(labels, gold.sum(axis=0), strict=True) if count},
        "systems": found,
    }


def _f1_report(
    gold: NDArray[np.bool_],
    said: NDArray[np.bool_],
    present: NDArray[np.int64],
    labels: Sequence[str],
    resamples: ClusterResamples,
) -> dict[str, Any]:
    number = gold.shape[1]
    # Right ones; right ones and those of the reference and the prediction: F1 = 2 * first / second.
    counts = [gold & said, gold.astype(int) + said.astype(int)]
    sums = np.concatenate([resamples.sums_of_rows(one) for one in counts], axis=1)
    drawn = resamples.resampled_sums(sums)
    right, both = drawn[:, :number], drawn[:, number:]
    total_right, total_both = sums[:, :number].sum(axis=0), sums[:, number:].sum(axis=0)
    f1 = _share(2 * total_right, total_both)
    micro = _share(2 * total_right.sum(), total_both.sum())
    macro = _mean(f1[present][:, None])
    return {
        "micro_f1": _with_interval(micro, _share(2 * right.sum(axis=1), both.sum(axis=1))),
        "macro_f1": _with_interval(macro, _mean(_share(2 * right, both).T[present])),
        "by_label": {
            labels[int(place)]: {
                "precision": _or_none(_share(total_right[place], said[:, place].sum())),
                "recall": float(total_right[place] / gold[:, place].sum()),
                "f1": float(f1[place]),
            }
            for place in present
        },
    }


def _indicators(found: Sequence[frozenset[str]], labels: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([[label in one for label in labels] for one in found], dtype=bool).reshape(-1, len(labels))


def _share(above: Any, below: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(above, below)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column means without NaN: a label that a resample does not hold is not in its mean."""
    there = np.isfinite(values)
    mean: NDArray[np.float64] = _share(np.where(there, values, 0.0).sum(axis=0), there.sum(axis=0))
    return mean


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _with_interval(value: Any, drawn: Any) -> dict[str, Any] | None:
    single = _or_none(np.ravel(value)[0])
    interval = percentile_interval(drawn)
    return None if single is None else {"value": single, "ci95": None if interval is None else list(interval)}


def _words(text: str) -> list[str]:
    return [word for word in _tokens(text) if word not in _STOPS]


def _tokens(text: str) -> list[str]:
    """Words and stops; the German abbreviation, which translations keep, is the English one."""
    return ["ecg" if match.group() == "ekg" else match.group() for match in _WORDS.finditer(text.lower())]


def _negated_before(words: Sequence[str], first: int, start: int) -> bool:
    """Whether a negation stands before the phrase at `start`, behind the phrase that ends at `first`."""
    begin = max(first, start - _REACH - 1)
    for place in range(start - 1, begin - 1, -1):
        if words[place] in _STOPS:
            return False
        for cue in _BEFORE:
            if place + 1 - len(cue) >= first and tuple(words[place + 1 - len(cue) : place + 1]) == cue:
                return not _DOUBT & set(words[place + 1 : start])
    return False


def _negated_behind(words: Sequence[str], end: int) -> bool:
    if words[end : end + 1] in (["is"], ["are"], ["was"], ["were"]):
        end += 1
    return any(tuple(words[end : end + len(cue)]) == cue for cue in _BEHIND)


def _from_yaml(text: str, path: Path) -> dict[str, list[str]]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise EcgDataError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise EcgDataError(f"{path}: expected lines `label: [phrase, phrase]`")
    phrases = {}
    for label, value in content.items():
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in (label, *texts)):
            raise EcgDataError(f"{path}: {label!r} has {value!r:.60}, expected phrases; quote no, yes and numbers")
        phrases[str(label)] = texts
    return phrases


def _from_csv(text: str, path: Path) -> dict[str, list[str]]:
    reader = csv.DictReader(text.splitlines())
    if not {"label", "phrase"} <= set(reader.fieldnames or ()):
        raise EcgDataError(f"{path} has the columns {reader.fieldnames}, expected label and phrase")
    phrases: dict[str, list[str]] = {}
    for row in reader:
        phrases.setdefault((row["label"] or "").strip(), []).append(row["phrase"] or "")
    return phrases
