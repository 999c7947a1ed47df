"""Supervised models of the signal that answer the yes/no questions a language model is asked, for the same report.

Each label that training questions ask about ("Does this ECG show ...?") is one output of a model that knows no words:
a residual network on the signal (`resnet1d.py`), or logistic regression on counts of neighbouring symbols
(`symbol_bigrams.py`). Their answers are written as `ecgbyte generate` writes a language model's, with the
log-probabilities of yes and no, so that everything that scores those scores these.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.evaluation.generate import report_path, write_predictions
from ecgbyte_hf.evaluation.perturbations import Perturbation, perturb
from ecgbyte_hf.evaluation.scoring import NONE, gold_answer, normalise, question_options
from ecgbyte_hf.evaluation.statistics import AreaUnderCurve
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, write_json

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
LogitsOf = Callable[[NDArray[np.float32]], NDArray[np.float64]]

KINDS = ("resnet1d", "bigram")
#: An answer is yes, or a label is named, from this probability on.
THRESHOLD = 0.5
#: Where nothing else is said. An epoch of PTB-XL's 3,848 records of folds 1-7 at 100 Hz takes one core 27 s.
DEFAULT_EPOCHS = 12
_ROW_KEYS = (
    "sample_id",
    "template_id",
    "question_id",
    "question_type",
    "attribute_type",
    "question",
    "answer",
    "ecg_id",
    "attribute",
)
_YES, _NO = frozenset({"yes"}), frozenset({"no"})


@dataclass(frozen=True)
class BaselineOptions:
    """How a baseline is trained.

    Attributes:
        epochs: Of `resnet1d`, exactly so many; by default up to `DEFAULT_EPOCHS`, of which the one with the best macro
            AUC on the validation split is kept, or the last where there is no such split.
        c: Of `bigram`, the inverse strength of the penalty; by default that of `CHOICES_OF_C` with the least log loss
            on the validation split, or `DEFAULT_C` where there is none. The AUC hardly depends on it, and the
            probabilities do.
        seed: Of `resnet1d`.
        num_threads: Of either; all by default.
        device: Of `resnet1d`, such as `"cuda"`; the best one there is by default.
    """

    epochs: int | None = None
    c: float | None = None
    seed: int = 0
    num_threads: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Label:
    """What a yes/no question asks about.

    Attributes:
        template_id: Of the question: the same words may be asked about in several ways.
        attribute: Of the question.
        attribute_type: Of the question.
    """

    template_id: int
    attribute: tuple[str, ...]
    attribute_type: str

    @classmethod
    def of(cls, row: Row) -> Label | None:
        """The label of a yes/no question about one ECG; None of any other question."""
        if row["question_type"] != "single-verify" or len(row["ecg_id"]) != 1:
            return None
        attribute = tuple(normalise(str(part)) for part in row.get("attribute") or ())
        return cls(int(row["template_id"]), attribute, str(row["attribute_type"]))


class LabelColumns:
    """The labels that training questions ask about, one column each.

    Args:
        rows: Training questions.

    Raises:
        EcgDataError: there is no yes/no question among them.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        found = {label for row in rows if (label := Label.of(row)) is not None and _truth(row) is not None}
        if not found:
            raise EcgDataError("no training question is one about one ECG with the answer yes or no; nothing to learn")
        self.labels = sorted(found, key=lambda label: (label.template_id, label.attribute))
        self._index = {label: column for column, label in enumerate(self.labels)}
        self._by_name: dict[tuple[str, str], list[int]] = {}
        for column, label in enumerate(self.labels):
            if len(label.attribute) == 1:
                self._by_name.setdefault((label.attribute_type, label.attribute[0]), []).append(column)

    def column_of(self, row: Row) -> int | None:
        """The column that a question asks about, if it is a yes/no question about a label of training."""
        label = Label.of(row)
        return None if label is None else self._index.get(label)

    def columns_of_options(self, row: Row, options: Sequence[str]) -> dict[str, int] | None:
        """For a question that is answered by names, the column of each: of the name itself, or of its code.

        A row's `attribute` may hold codes in the order of the options, as PTB-XL's "which of" questions do.

        Returns:
            Option to column; None where the question is another one, or an option has no column or several.
        """
        if row["question_type"] not in ("single-query", "single-choose") or len(row["ecg_id"]) != 1:
            return None
        names = [option for option in options if normalise(option) != NONE]
        for codes in (names, list(row.get("attribute") or ())):
            keys = [(str(row["attribute_type"]), normalise(str(code))) for code in codes]
            if len(keys) == len(names) and all(len(self._by_name.get(key, ())) == 1 for key in keys):
                return {name: self._by_name[key][0] for name, key in zip(names, keys, strict=True)}
        return None

    def targets(self, rows: Iterable[Row]) -> tuple[list[int], NDArray[np.float32]]:
        """What is known of the ECGs that questions ask about.

        Returns:
            Their numbers, sorted, and (ECGs, labels): 1 for yes, 0 for no, NaN where nothing is asked.
        """
        known = [
            (int(row["ecg_id"][0]), column, answer)
            for row in rows
            if (column := self.column_of(row)) is not None and (answer := _truth(row)) is not None
        ]
        ecg_ids = sorted({ecg_id for ecg_id, _, _ in known})
        place = {ecg_id: index for index, ecg_id in enumerate(ecg_ids)}
        values = np.full((len(ecg_ids), len(self.labels)), np.nan, np.float32)
        for ecg_id, column, answer in known:
            values[place[ecg_id], column] = answer
        return ecg_ids, values


def _truth(row: Row) -> bool | None:
    """The answer to a yes/no question; None where it is neither, such as "not sure"."""
    answer = gold_answer(row)
    return answer == _YES if answer in (_YES, _NO) else None


def macro_auc(columns: LabelColumns, targets: NDArray[np.float32], logits: NDArray[np.float64]) -> dict[str, Any]:
    """Mean AUC over the labels that are yes and no in these records.

    Args:
        columns: The labels.
        targets: (ECGs, labels), NaN where nothing is asked.
        logits: (ECGs, labels).

    Returns:
        `{"value", "labels", "by_attribute": {attribute type: {"value", "labels"}}}`; `labels` counts those in the
        mean, and without any the value is None.
    """
    areas: dict[str, list[float]] = {label.attribute_type: [] for label in columns.labels}
    for column, label in enumerate(columns.labels):
        places = np.flatnonzero(~np.isnan(targets[:, column]))
        area = AreaUnderCurve(logits[places, column], targets[places, column] == 1.0, places).value()
        if not np.isnan(area):
            areas[label.attribute_type].append(area)

    def mean(values: list[float]) -> dict[str, Any]:
        return {"value": float(np.mean(values)) if values else None, "labels": len(values)}

    everything = mean([area for values in areas.values() for area in values])
    return {**everything, "by_attribute": {name: mean(values) for name, values in areas.items()}}


def log_loss(targets: NDArray[np.float32], logits: NDArray[np.float64]) -> float:
    """Mean of minus the logarithm of the right answer's probability, over the labels that are asked about.

    Example:
        >>> round(log_loss(np.array([[1.0, 0.0, np.nan]], np.float32), np.zeros((1, 3))), 4)
        0.6931
    """
    is_asked = ~np.isnan(targets)
    signs = 1.0 - 2.0 * targets[is_asked].astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, signs * logits[is_asked])))


@dataclass(frozen=True)
class _Known:
    """The ECGs of one split with what is known of them."""

    ecg_ids: list[int]
    targets: NDArray[np.float32]


def answer_by_baseline(
    prepared: PreparedData,
    output: str | Path,
    *,
    kind: str,
    split: str = "test",
    processor: Any = None,
    options: BaselineOptions | None = None,
    worse: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a baseline on the training questions' labels and answer the questions of a split.

    A yes/no question is answered by its label's probability, one that is answered by names by those of its options
    (where none is likely: "none" if that is an option, else the likeliest). Any other question, and one about a label
    that training never asks about, has an empty answer and is counted; to yes and no it gives the same probability.

    Args:
        prepared: The prepared folder, whole or in windows. Its signals of the splits used must fit in memory.
        output: JSON Lines file as `ecgbyte generate` writes it, with `option_logprobs` of yes and no; the report goes
            to `report_path(output)`.
        kind: One of `KINDS`.
        split: Whose questions are answered.
        processor: Of `bigram`, the `EcgByteProcessor` whose tokenizer quantises.
        options: How it is trained.
        worse: Changes of the recordings asked about, as `Perturbation.parse` reads them: the trained model answers
            once more for each, into `worse_path(output, change)`.

    Returns:
        The report: `kind`, `split`, `questions`, `unanswered` (by question type), `labels`, `threshold`, `parameters`,
        `chosen`, `macro_auc` (of the validation split, where there is one, and of `split`), `seconds`, `provenance`.

    Raises:
        EcgDataError: an unknown kind or split, no yes/no question in training, or options that cannot be.
        LeadError: a change that the leads do not allow.
        ImportError: scikit-learn is absent (`bigram`).
    """
    options = options or BaselineOptions()
    if kind not in KINDS or (processor is None) != (kind != "bigram"):
        raise EcgDataError(
            f"got the kind {kind!r}, expected one of {', '.join(KINDS)}; bigram alone needs a tokenizer"
        )
    for change in worse:
        Perturbation.parse(change)
    rows = prepared.questions(split)
    train_rows = prepared.questions("train")
    columns = LabelColumns(train_rows)
    known = {"train": _Known(*columns.targets(train_rows))}
    if "validation" in prepared.splits:
        known["validation"] = _Known(*columns.targets(prepared.questions("validation")))
    known.setdefault(split, _Known(*columns.targets(rows)))
    asked = sorted({int(row["ecg_id"][0]) for row in rows if len(row["ecg_id"]) == 1})
    used = set(asked).union(*(part.ecg_ids for part in known.values()))
    seconds = _Seconds()
    with seconds.of("read"):
        seen = _Seen.signals(prepared, used)
    with _threads(options.num_threads):
        if kind == "bigram":
            with seconds.of("count"):
                seen = _Seen(seen.ecg_ids, _bigrams_of(prepared, seen.values, processor))
        with seconds.of("train"):
            train = _by_bigrams if kind == "bigram" else _by_resnet1d
            logits_of, chosen = train(seen, columns, known, options)
        judged = {name: known[name] for name in dict.fromkeys(("validation", split)) if name in known}
        with seconds.of("answer"):
            shown = seen.part({*asked}.union(*(part.ecg_ids for part in judged.values())))
            logits = logits_of(shown.values)
        about = {
            "kind": kind,
            "labels": len(columns.labels),
            "records": {name: len(part.ecg_ids) for name, part in known.items()},
            **chosen,
        }
        answering = _Answering(prepared, split, rows, columns, about, processor, options)
        report = answering.write(output, shown.ecg_ids, logits, judged, seconds)
        records = {one for row in rows for one in row.get("record_id", row["ecg_id"])}
        for change in worse:
            with _worse(prepared, change, records, options.seed):
                seconds = _Seconds()
                with seconds.of("answer"):
                    values = _Seen.signals(prepared, asked).values
                    values = _bigrams_of(prepared, values, processor) if kind == "bigram" else values
                    logits = logits_of(values)
                judged = {split: known[split]} if set(known[split].ecg_ids) <= set(asked) else {}
                answering.write(worse_path(output, change), asked, logits, judged, seconds)
    return report


def worse_path(output: str | Path, change: str) -> Path:
    """The file of a baseline's answers for changed recordings, beside that for recordings as they are.

    Example:
        >>> worse_path("resnet1d.jsonl", "noise=0.1").name
        'resnet1d-noise=0.1.jsonl'
    """
    path = Path(output)
    return path.with_name(f"{path.stem}-{change}{path.suffix}")


@contextmanager
def _worse(prepared: PreparedData, change: str, records: set[int], seed: int) -> Iterator[None]:
    """For a while the folder shows these records changed."""
    as_they_are = prepared.records
    perturb(prepared, [change], seed=seed, only=records)
    try:
        yield
    finally:
        prepared.records = as_they_are


@dataclass(frozen=True)
class _Answering:
    """What the answers of a trained baseline are written with."""

    prepared: PreparedData
    split: str
    rows: list[dict[str, Any]]
    columns: LabelColumns
    about: Mapping[str, Any]
    processor: Any
    options: BaselineOptions

    def write(
        self,
        output: str | Path,
        ecg_ids: Sequence[int],
        logits: NDArray[np.float64],
        judged: Mapping[str, _Known],
        seconds: _Seconds,
    ) -> dict[str, Any]:
        """Write answers and report; logits (ECGs, labels) are in the order of `ecg_ids`."""
        by_ecg = dict(zip(ecg_ids, logits, strict=True))
        valid_options = self.prepared.template_options()
        valid = [question_options(row, valid_options) for row in self.rows]
        written, unanswered = _answered(self.rows, valid, self.columns, by_ecg)
        write_predictions(output, written)
        report = {
            **self.about,
            "split": self.split,
            "questions": len(self.rows),
            "unanswered": unanswered,
            "answers_at_limit": 0,
            "threshold": THRESHOLD,
            "macro_auc": {
                name: macro_auc(self.columns, part.targets, np.stack([by_ecg[one] for one in part.ecg_ids]))
                for name, part in judged.items()
                if part.ecg_ids
            },
            "seconds": seconds.taken,
            "provenance": _provenance(
                self.prepared, str(self.about["kind"]), self.split, self.processor, self.options
            ),
        }
        write_json(report_path(output), report)
        if unanswered:
            logger.warning("questions that this baseline has no answer to: %s", unanswered)
        return report


def _by_resnet1d(
    signals: _Seen, columns: LabelColumns, known: Mapping[str, _Known], options: BaselineOptions
) -> tuple[LogitsOf, dict[str, Any]]:
    import torch

    from ecgbyte_hf.evaluation.resnet1d import TrainedResnet1d, train_resnet1d

    validation = _judging(known)
    judged = None if validation is None else signals.of(validation)

    def judge(trained: TrainedResnet1d) -> float:
        if validation is None or judged is None:
            raise EcgDataError("there is no validation split to judge on")
        return _number(macro_auc(columns, validation.targets, trained.logits(judged))["value"])

    trained = train_resnet1d(
        signals.of(known["train"]),
        known["train"].targets,
        epochs=DEFAULT_EPOCHS if options.epochs is None else options.epochs,
        seed=options.seed,
        device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        judge=None if validation is None else judge,
        keep_best=options.epochs is None,
    )
    by = "validation macro AUC" if options.epochs is None and validation is not None else "given"
    chosen = {"epoch": trained.epoch, "by": by, "losses": trained.losses, "validation_macro_auc": trained.scores}
    return trained.logits, {"parameters": trained.num_parameters, "chosen": chosen}


def _by_bigrams(
    features: _Seen, columns: LabelColumns, known: Mapping[str, _Known], options: BaselineOptions
) -> tuple[LogitsOf, dict[str, Any]]:
    from ecgbyte_hf.evaluation.label_regression import LabelRegressions, fit_label_regressions
    from ecgbyte_hf.evaluation.symbol_bigrams import CHOICES_OF_C, DEFAULT_C

    validation = _judging(known)

    def judge(trained: LabelRegressions) -> float:
        if validation is None:
            raise EcgDataError("there is no validation split to judge on")
        return -log_loss(validation.targets, trained.logits(features.of(validation)))

    is_choice = options.c is None and validation is not None
    trained = fit_label_regressions(
        features.of(known["train"]),
        known["train"].targets,
        what="bigram counts",
        choices=CHOICES_OF_C if is_choice else (DEFAULT_C if options.c is None else options.c,),
        judge=judge if is_choice else None,
    )
    chosen = {
        "c": trained.c,
        "by": "validation log loss" if is_choice else "given",
        "validation_log_loss": {str(c): -score for c, score in trained.scores.items()},
        "not_converged": trained.not_converged,
    }
    return trained.logits, {"parameters": trained.num_parameters, "chosen": chosen}


def _judging(known: Mapping[str, _Known]) -> _Known | None:
    """The validation split, where it has questions about labels."""
    validation = known.get("validation")
    return validation if validation is not None and validation.ecg_ids else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _answered(
    rows: Sequence[dict[str, Any]],
    valid: Sequence[list[str]],
    columns: LabelColumns,
    logits: Mapping[int, NDArray[np.float64]],
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Prediction rows, and of how many questions of each type the answer is empty."""
    written, unanswered = [], dict[str, int]()
    for row, options in zip(rows, valid, strict=True):
        is_verify = str(row["question_type"]).endswith("-verify") and {"yes", "no"} <= set(options)
        column, named = columns.column_of(row), columns.columns_of_options(row, options)
        text, of_yes = "", 0.0
        if is_verify and column is not None:
            of_yes = float(logits[row["ecg_id"][0]][column])
            text = "yes" if of_yes >= 0.0 else "no"  # a logit of 0 is THRESHOLD
        elif named:
            text = _named({name: float(logits[row["ecg_id"][0]][place]) for name, place in named.items()}, options)
        if not text:
            unanswered[row["question_type"]] = unanswered.get(row["question_type"], 0) + 1
        written.append(
            {
                **{key: row.get(key) for key in _ROW_KEYS},
                **({"record_id": row["record_id"]} if "record_id" in row else {}),
                "options": options,
                "prediction": text,
                "reached_limit": False,
                **({"option_logprobs": _logprobs(of_yes)} if is_verify else {}),
            }
        )
    return written, unanswered


def _named(logits: Mapping[str, float], options: Sequence[str]) -> str:
    """The options whose label is likely, in the options' order."""
    likely = [name for name, value in logits.items() if value >= 0.0]
    if not likely:
        likely = [option for option in options if normalise(option) == NONE] or [max(logits, key=lambda n: logits[n])]
    return ", ".join(likely)


def _logprobs(logit: float) -> dict[str, float]:
    """The logarithms of p and 1 - p, finite for any logit."""
    return {"yes": -float(np.logaddexp(0.0, -logit)), "no": -float(np.logaddexp(0.0, logit))}


class _Seen:
    """What a baseline sees of each ECG.

    Args:
        ecg_ids: The ECGs.
        values: (ECGs, ...), signals or features.
    """

    def __init__(self, ecg_ids: list[int], values: NDArray[np.float32]) -> None:
        self.ecg_ids = ecg_ids
        self.values = values
        self._place = {ecg_id: index for index, ecg_id in enumerate(ecg_ids)}

    @classmethod
    def signals(cls, prepared: PreparedData, ecg_ids: Iterable[int]) -> _Seen:
        """Signals (ECGs, leads, samples) in mV."""
        from tqdm.auto import tqdm

        listed = sorted(ecg_ids)
        values = np.empty((len(listed), *prepared.signal(listed[0]).shape), np.float32)
        seen = cls(listed, values)
        for ecg_id, signal in tqdm(prepared.iter_signals(listed), total=len(listed), desc="signals", unit="record"):
            values[seen._place[ecg_id]] = signal
        return seen

    def part(self, ecg_ids: Iterable[int]) -> _Seen:
        """Some of the ECGs."""
        listed = sorted(ecg_ids)
        return _Seen(listed, self.values[self.places(listed)])

    def places(self, ecg_ids: Sequence[int]) -> list[int]:
        """Rows of some ECGs."""
        return [self._place[ecg_id] for ecg_id in ecg_ids]

    def of(self, part: _Known) -> NDArray[np.float32]:
        """The values of a split's ECGs."""
        return self.values[self.places(part.ecg_ids)]


def _bigrams_of(prepared: PreparedData, signals: NDArray[np.float32], processor: Any) -> NDArray[np.float32]:
    from ecgbyte_hf.evaluation.symbol_bigrams import bigram_features

    prepared.check_processor(processor)
    return bigram_features(signals, processor.tokenizer)


class _Seconds:
    """How long each step took."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.taken[step] = time.perf_counter() - start


@contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    """So many threads of torch, and of the linear algebra below scikit-learn; then as many as before."""
    if num_threads is None:
        yield
        return
    if num_threads < 1:
        raise EcgDataError(f"got {num_threads} threads, expected at least 1")
    import torch

    before = torch.get_num_threads()  # asked first: the limit below holds for torch's threads too
    try:
        limits: Any = import_module("threadpoolctl").threadpool_limits(num_threads)
    except ImportError:  # it comes with scikit-learn, without which only torch is at work
        limits = nullcontext()
    torch.set_num_threads(num_threads)
    try:
        with limits:
            yield
    finally:
        torch.set_num_threads(before)


def _provenance(
    prepared: PreparedData, kind: str, split: str, processor: Any, options: BaselineOptions
) -> dict[str, Any]:
    extra: dict[str, Any] = {"perturbations": list(getattr(prepared.records, "changes", ()))}
    if kind == "bigram":
        extra["tokenizer"] = processor.tokenizer.fingerprint
    return provenance(
        "baseline",
        {"data": str(prepared.folder), "kind": kind, "split": split, **asdict(options)},
        data_hash=prepared.report["data_hash"],
        data_source=prepared.report.get("source"),
        window_seconds=prepared.window_seconds,
        window_stride=prepared.window_stride,
        **extra,
    )
