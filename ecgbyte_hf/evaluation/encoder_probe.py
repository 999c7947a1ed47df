"""`ecgbyte probe-encoder`: what a frozen encoder knows about ECGs it was not trained on.

Linear probing: logistic regression of every label that yes/no questions ask about, on `pooler_output`, with few and
with all training records. Zero-shot: the same labels by the similarity of an ECG with a prompt, without any training.
Retrieval: the text of an ECG among all texts, and an ECG with a text among all ECGs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgbyte_hf.data.fingerprints import weights_fingerprint
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.evaluation.label_regression import LabelRegressions, fit_label_regressions
from ecgbyte_hf.evaluation.label_scores import VerifyQuestions, mean_over_labels, resampled_auc, verify_questions
from ecgbyte_hf.evaluation.report_files import markdown_path
from ecgbyte_hf.evaluation.signal_baselines import Label, LabelColumns, macro_auc
from ecgbyte_hf.evaluation.statistics import bootstrap_interval, percentile_interval
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EncoderError
from ecgbyte_hf.provenance import provenance, read_object, write_json, write_text
from ecgbyte_hf.training.encoder_data import EcgTextCollator
from ecgbyte_hf.training.encoder_texts import EcgTexts, LabelNames, default_text_kind, label_words, texts_of_split
from ecgbyte_hf.training.start_encoder import EncoderParts, load_parts, takes_texts
from ecgbyte_hf.training.training_log import LOG_FILE

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]

#: Of the training records.
FRACTIONS = (0.01, 0.1, 1.0)
#: Inverse strengths of the penalty, of which the validation split chooses one; without it the middle one is taken.
CHOICES_OF_C = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_DEFAULT_C = 1e-2
RECALL_AT = (1, 5, 10)
_RANDOM = "random"
# Similarities of so many queries at a time.
_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class ProbeOptions:
    """What is measured.

    Attributes:
        split: The ECGs that it is measured on.
        fractions: Shares of the training records that the linear probe learns from; none for no probe.
        draws: How often records are drawn for a share below 1.
        zero_shot: Classify by prompts.
        retrieval: Find texts by ECGs and ECGs by texts.
        control: "random" measures the same of an encoder of random weights beside it.
        texts: Of retrieval, one of `TEXT_KINDS`; as in pretraining by default.
        prompts: Label in words -> what stands for it in zero-shot classification; the words themselves by default.
        batch_size: ECGs encoded at a time.
        n_resamples: Of the bootstrap.
        seed: Of draws, bootstrap and random weights.
        device: Such as "cuda"; a GPU if there is one by default.
    """

    split: str = "test"
    fractions: tuple[float, ...] = FRACTIONS
    draws: int = 3
    zero_shot: bool = False
    retrieval: bool = False
    control: str | None = None
    texts: str | None = None
    prompts: Mapping[str, Any] | None = None
    batch_size: int = 64
    n_resamples: int = 2000
    seed: int = 0
    device: str | None = None


def probe_encoder(
    folder: str | Path, prepared: PreparedData, output: str | Path, options: ProbeOptions | None = None
) -> dict[str, Any]:
    """Measure a pretrained encoder; write a JSON report and, beside it, a table in Markdown.

    Args:
        folder: What `ecgbyte pretrain-encoder` wrote.
        prepared: ECGs cleaned as the encoder's, whole or in windows, with yes/no questions for probe and zero-shot.
        output: The JSON file.
        options: What is measured.

    Returns:
        The report: `systems`: "encoder", and "random" if it is asked for -> `linear` (share -> `macro_auc` with
        `value`, `ci95`, `labels`, `sd` and `each` of the draws, `records`, `c`, `c_chosen_on`, `by_label`),
        `zero_shot` (`macro_auc`, `by_label`), `retrieval` (`ecg_to_text`, `text_to_ecg`: `recall` at k with `value`,
        `ci95`, `chance`; `median_rank`, `queries`, `candidates`); `difference`: encoder less random, on the same draws
        and resamples.

    Raises:
        EcgError: an encoder, data or options that do not go together.
        ImportError: scikit-learn is absent.
    """
    options = options or ProbeOptions()
    markdown = markdown_path(output)
    _check(options)
    parts = load_parts(folder)
    _check_cleaning(prepared, parts)
    if (options.zero_shot or options.retrieval) and not takes_texts(parts.model):
        raise EncoderError(
            f"{folder} has no text tower, so that there is no zero-shot classification and no retrieval; leave "
            "--zero-shot and --retrieval out"
        )
    log = read_object(Path(folder) / LOG_FILE) or {}
    labelled = _Labelled(prepared, options) if options.fractions or options.zero_shot else None
    told = _texts(prepared, options, log) if options.retrieval else None
    systems = {"encoder": parts.model}
    if options.control == _RANDOM:
        torch.manual_seed(options.seed)
        systems[_RANDOM] = type(parts.model)(parts.model.config).eval()
    measured: dict[str, dict[str, Any]] = {}
    resamples: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, model in systems.items():
        encoding = _Encoding(prepared, parts, model, options, name)
        found: dict[str, Any] = {}
        kept: dict[str, NDArray[np.float64]] = {}
        if labelled is not None and options.fractions:
            found["linear"] = _linear(encoding, labelled, options, kept)
        if labelled is not None and options.zero_shot:
            found["zero_shot"] = _zero_shot(encoding, labelled, options, log, kept)
        if told is not None:
            found["retrieval"] = _retrieval(encoding, prepared, told, options)
        measured[name], resamples[name] = found, kept
    report = {
        "encoder": str(folder),
        "model_type": parts.model.config.model_type,
        "split": options.split,
        "systems": measured,
        "difference": _differences(measured, resamples),
        "chance": {"macro_auc": 0.5},
        "texts": None if told is None else told.kind,
        "provenance": provenance(
            "probe-encoder",
            {"encoder": str(folder), "data": str(prepared.folder), **asdict(options)},
            data_hash=prepared.report["data_hash"],
            data_source=prepared.report.get("source"),
            weights=weights_fingerprint(folder),
            window_seconds=prepared.window_seconds,
            window_stride=prepared.window_stride,
        ),
    }
    write_json(output, report)
    write_text(markdown, probe_table(report) + "\n")
    return report


def _check(options: ProbeOptions) -> None:
    if not (options.fractions or options.zero_shot or options.retrieval):
        raise EcgDataError("nothing is to be measured; give --fractions, --zero-shot or --retrieval")
    if any(not 0 < share <= 1 for share in options.fractions) or options.draws < 1:
        raise EcgDataError(
            f"got the fractions {list(options.fractions)} and {options.draws} draws, expected shares above 0 and at "
            "most 1, and a draw or more"
        )
    if options.control not in (None, _RANDOM):
        raise EcgDataError(f"got the control {options.control!r}, expected {_RANDOM!r} or none")
    if options.batch_size < 1 or options.n_resamples < 1:
        raise EcgDataError(
            f"got batches of {options.batch_size} and {options.n_resamples} resamples, expected at least 1 each"
        )


def _check_cleaning(prepared: PreparedData, parts: EncoderParts) -> None:
    theirs, ours = parts.feature_extractor.to_dict(), prepared.preprocessor
    differing = [
        f"{name} is {ours.get(name)!r} here and {theirs.get(name)!r} there"
        for name in ("profile", "sampling_rate", "leads")
        if ours.get(name) != theirs.get(name)
    ]
    if differing:
        raise EcgDataError(
            f"{prepared.folder} was not prepared as the encoder's ECGs were: {'; '.join(differing)}; prepare it so"
        )


class _Labelled:
    """The ECGs with labels, split by split, and the questions of the split that is measured.

    Args:
        prepared: The prepared folder.
        options: Which split.

    Raises:
        EcgDataError: training asks nothing about a label, or the split nothing that training asks about.
    """

    def __init__(self, prepared: PreparedData, options: ProbeOptions) -> None:
        train_rows = prepared.questions("train")
        self.columns = LabelColumns(train_rows)
        self.train = self.columns.targets(train_rows)
        self.validation: tuple[list[int], Array] | None = None
        if "validation" in prepared.splits and options.split != "validation":
            found = self.columns.targets(prepared.questions("validation"))
            self.validation = found if found[0] else None
        rows = [row for row in prepared.questions(options.split) if self.columns.column_of(row) is not None]
        questions = verify_questions(rows, n_resamples=options.n_resamples, seed=options.seed)
        if questions is None:
            raise EcgDataError(
                f"the split {options.split} of {prepared.folder} has no yes/no question about a label of training"
            )
        self.questions: VerifyQuestions = questions
        asked = [rows[place] for place in questions.rows]
        self.ecg_of_question = [int(row["ecg_id"][0]) for row in asked]
        self.column_of_question = np.array([self.columns.column_of(row) for row in asked])
        self.ecg_ids = sorted(set(self.ecg_of_question))
        leaked = set(self.ecg_ids) & set(self.train[0])
        if leaked:
            raise EcgDataError(
                f"{len(leaked)} ECGs of the split {options.split} are in training too; prepare with --splits disjoint"
            )

    def words(self, label: Label) -> str:
        """A label in words."""
        return label_words(label.template_id, " ".join(label.attribute))

    def auc(self, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """AUC of each label, and its resamples, of scores (ECGs of the split, labels)."""
        place = {ecg_id: index for index, ecg_id in enumerate(self.ecg_ids)}
        of_question = scores[[place[ecg_id] for ecg_id in self.ecg_of_question], self.column_of_question]
        return resampled_auc(self.questions, of_question)

    def by_label(self, auc: NDArray[np.float64]) -> dict[str, float | None]:
        """AUC of each label by its name; None where the split has one class only."""
        found: dict[str, float | None] = {}
        for number, (_, name) in enumerate(self.questions.names):
            mine = np.flatnonzero(self.questions.label == number)[0]
            words = self.words(self.columns.labels[self.column_of_question[mine]])
            found[words if words not in found else name] = None if math.isnan(auc[number]) else float(auc[number])
        return found


class _Encoding:
    """One encoder at work on the ECGs of a prepared folder; nothing is computed twice.

    Args:
        prepared: The ECGs.
        parts: Image processor and tokenizer.
        model: The weights.
        options: Batch and device.
        name: For the progress bar.
    """

    def __init__(
        self, prepared: PreparedData, parts: EncoderParts, model: Any, options: ProbeOptions, name: str
    ) -> None:
        self._device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._prepared, self._options, self._name = prepared, options, name
        self._model = model.to(self._device)
        self._collator = EcgTextCollator(
            model.main_input_name,
            image_processor=parts.image_processor,
            tokenizer=parts.tokenizer,
            max_length=parts.max_text_length,
        )
        self._features: dict[int, Array] = {}
        self._embeddings: dict[int, Array] = {}

    def features(self, ecg_ids: Sequence[int]) -> Array:
        """The encoder's `pooler_output`, (ECGs, size)."""
        missing = sorted(set(ecg_ids) - set(self._features))
        for numbers, inputs in self._batches(missing, "features"):
            with torch.inference_mode():
                pooled = self._model.encoder(inputs).pooler_output.float().cpu().numpy()
            self._features |= dict(zip(numbers, pooled, strict=True))
        return np.stack([self._features[ecg_id] for ecg_id in ecg_ids])

    def embeddings(self, ecg_ids: Sequence[int]) -> Array:
        """What is compared with texts, (ECGs, size) of unit length."""
        missing = sorted(set(ecg_ids) - set(self._embeddings))
        for numbers, inputs in self._batches(missing, "ECG embeddings"):
            with torch.inference_mode():
                embedded = self._model.get_ecg_features(inputs).float().cpu().numpy()
            self._embeddings |= dict(zip(numbers, embedded, strict=True))
        return np.stack([self._embeddings[ecg_id] for ecg_id in ecg_ids])

    def texts(self, texts: Sequence[str]) -> Array:
        """Embeddings of texts, (texts, size) of unit length."""
        found = []
        for first in range(0, len(texts), self._options.batch_size):
            tokens = self._collator.tokens(texts[first : first + self._options.batch_size])
            with torch.inference_mode():
                embedded = self._model.get_text_features(
                    **{key: value.to(self._device) for key, value in tokens.items()}
                )
            found.append(embedded.float().cpu().numpy())
        return np.concatenate(found)

    def _batches(self, ecg_ids: Sequence[int], what: str) -> Iterator[tuple[list[int], torch.Tensor]]:
        from tqdm.auto import tqdm

        if not ecg_ids:
            return
        shown = tqdm(
            self._prepared.iter_signals(ecg_ids), total=len(ecg_ids), desc=f"{self._name}: {what}", unit="record"
        )
        signals = iter(shown)
        while batch := list(islice(signals, self._options.batch_size)):
            inputs = self._collator.inputs([signal for _, signal in batch])
            yield [ecg_id for ecg_id, _ in batch], inputs.to(self._device)


def _linear(
    encoding: _Encoding, labelled: _Labelled, options: ProbeOptions, kept: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """The linear probe with each share of the training records."""
    ecg_ids, targets = labelled.train
    train, test = encoding.features(ecg_ids), encoding.features(labelled.ecg_ids)
    judge = _judge(encoding, labelled)
    found: dict[str, Any] = {}
    for share in options.fractions:
        number = max(2, round(share * len(ecg_ids)))
        draws = options.draws if number < len(ecg_ids) else 1
        aucs, resampled, chosen = [], [], []
        for draw in range(draws):
            # The same records for every encoder.
            rng = np.random.default_rng([options.seed, draw, number])
            places = np.sort(rng.permutation(len(ecg_ids))[:number])
            fitted = fit_label_regressions(
                train[places],
                targets[places],
                what="encoder's features",
                choices=(_DEFAULT_C,) if judge is None else CHOICES_OF_C,
                judge=judge,
            )
            auc, of_resamples = labelled.auc(fitted.logits(test))
            aucs.append(auc)
            resampled.append(mean_over_labels(of_resamples, auc))
            chosen.append(fitted.c)
        key = f"{share:g}"
        kept[f"linear {key}"] = np.mean(resampled, axis=0)
        found[key] = {
            "records": number,
            "draws": draws,
            "c": chosen,
            "c_chosen_on": _chosen_on(labelled),
            "macro_auc": _macro(aucs, kept[f"linear {key}"]),
            "by_label": labelled.by_label(np.mean(aucs, axis=0)),
        }
    return found


def _chosen_on(labelled: _Labelled) -> dict[str, Any] | None:
    """What C is chosen on, which is more than a small share of the training records."""
    if labelled.validation is None:
        return None
    return {"split": "validation", "records": len(labelled.validation[0])}


def _judge(encoding: _Encoding, labelled: _Labelled) -> Any:
    """Macro AUC of a fit on the validation split; None without one that has both classes of some label."""
    if labelled.validation is None:
        return None
    ecg_ids, targets = labelled.validation
    features = encoding.features(ecg_ids)

    def judge(fitted: LabelRegressions) -> float:
        value = macro_auc(labelled.columns, targets, fitted.logits(features))["value"]
        return -math.inf if value is None else float(value)

    return judge


def _macro(aucs: Sequence[NDArray[np.float64]], resampled: NDArray[np.float64]) -> dict[str, Any]:
    """Mean over labels, and draws, with the interval over ECGs and the deviation of the draws."""
    each = [float(mean_over_labels(auc[:, None])[0]) for auc in aucs]
    interval = percentile_interval(resampled)
    return {
        "value": float(np.mean(each)),
        "ci95": None if interval is None else list(interval),
        "sd": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        "each": each,
        "labels": int(np.isfinite(aucs[0]).sum()),
    }


def _zero_shot(
    encoding: _Encoding,
    labelled: _Labelled,
    options: ProbeOptions,
    log: Mapping[str, Any],
    kept: dict[str, NDArray[np.float64]],
) -> dict[str, Any]:
    """AUC of each label by the similarity of ECG and prompt.

    An encoder that was pretrained on answered questions is asked the question: "... yes." less "... no.".
    """
    prompts = _prompts(labelled, options, log)
    ecgs = encoding.embeddings(labelled.ecg_ids)
    scores = np.zeros((len(ecgs), len(prompts)))
    for column, (positive, negative) in enumerate(prompts):
        scores[:, column] = ecgs @ encoding.texts(positive).mean(axis=0)
        if negative:
            scores[:, column] -= ecgs @ encoding.texts(negative).mean(axis=0)
    auc, resampled = labelled.auc(scores)
    kept["zero_shot"] = mean_over_labels(resampled, auc)
    return {
        "macro_auc": _macro([auc], kept["zero_shot"]),
        "by_label": labelled.by_label(auc),
        "prompts": {
            labelled.words(label): list(positive)
            for label, (positive, _) in zip(labelled.columns.labels, prompts, strict=True)
        },
    }


def _prompts(labelled: _Labelled, options: ProbeOptions, log: Mapping[str, Any]) -> list[tuple[list[str], list[str]]]:
    """For each label the texts for it, and those against it."""
    given = dict(options.prompts or {})
    words = [labelled.words(label) for label in labelled.columns.labels]
    unknown = sorted(set(given) - set(words))
    if unknown:
        raise EcgDataError(
            f"got prompts for {', '.join(unknown)}, which no training question asks about; known: {', '.join(words)}"
        )
    asks = (log.get("report") or {}).get("texts") == "answers"
    found: list[tuple[list[str], list[str]]] = []
    for name in words:
        prompt = given.get(name)
        if prompt is None:
            question = f"Does this ECG show {name}?"
            found.append(([f"{question} yes."], [f"{question} no."]) if asks else ([name], []))
            continue
        several = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(several, list) or not several or not all(isinstance(one, str) for one in several):
            raise EcgDataError(f"got the prompt {prompt!r:.80} for {name!r}, expected a text or a list of texts")
        found.append((several, []))
    return found


def _texts(prepared: PreparedData, options: ProbeOptions, log: Mapping[str, Any]) -> EcgTexts:
    """The texts of the ECGs that retrieval is measured on."""
    train_rows = prepared.questions("train") if "train" in prepared.splits else prepared.questions(options.split)
    kind = options.texts or (log.get("report") or {}).get("texts") or default_text_kind(train_rows)
    told = texts_of_split(prepared, options.split, kind, LabelNames(train_rows))
    if len(told.parts) < 2:
        raise EcgDataError(
            f"{len(told.parts)} ECGs of the split {options.split} of {prepared.folder} have a text of the kind "
            f"{kind!r}, expected at least 2 to tell apart"
        )
    if told.num_without:
        logger.warning("retrieval: %d of %d ECGs have no text", told.num_without, len(told.ecg_ids))
    return told


def _retrieval(encoding: _Encoding, prepared: PreparedData, told: EcgTexts, options: ProbeOptions) -> dict[str, Any]:
    """How high the right text, or an ECG that has it, is ranked. ECGs with the same text are all right."""
    ecg_ids = list(told.parts)
    text_of_ecg = [told.text(ecg_id) for ecg_id in ecg_ids]
    distinct = sorted(set(text_of_ecg))
    number = {text: place for place, text in enumerate(distinct)}
    right = np.array([number[text] for text in text_of_ecg])
    ecgs, texts = encoding.embeddings(ecg_ids), encoding.texts(distinct)
    of_ecgs = right_ranks(ecgs, texts, right[:, None] == np.arange(len(distinct)))
    of_texts = right_ranks(texts, ecgs, np.arange(len(distinct))[:, None] == right)
    counts = np.bincount(right, minlength=len(distinct))
    records = _records(prepared, ecg_ids)
    return {
        "ecgs": len(ecg_ids),
        "ecgs_without_text": told.num_without,
        "distinct_texts": len(distinct),
        "ecg_to_text": _ranked(of_ecgs, np.ones(len(ecg_ids), int), len(distinct), records, options),
        "text_to_ecg": _ranked(of_texts, counts, len(ecg_ids), list(range(len(distinct))), options),
    }


def _records(prepared: PreparedData, ecg_ids: Sequence[int]) -> list[int]:
    """The recording of each ECG or window, by which intervals are drawn."""
    count = getattr(prepared, "windows_per_record", 1)
    return [ecg_id // count for ecg_id in ecg_ids]


def right_ranks(queries: Array, candidates: Array, is_right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rank of the most similar right candidate of each query, from 1; wrong ones that are as similar count half.

    Args:
        queries: (queries, size).
        candidates: (candidates, size).
        is_right: (queries, candidates), at least one in each row.

    Example:
        >>> right_ranks(np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.eye(2, 3, dtype=bool))
        array([1. , 1.5])
    """
    ranks = []
    for first in range(0, len(queries), _QUERIES_AT_ONCE):
        similar = queries[first : first + _QUERIES_AT_ONCE] @ candidates.T
        right = is_right[first : first + _QUERIES_AT_ONCE]
        best = np.where(right, similar, -np.inf).max(axis=1, keepdims=True)
        above, level = (~right & (similar > best)).sum(axis=1), (~right & (similar == best)).sum(axis=1)
        ranks.append(1.0 + above + level / 2.0)
    return np.concatenate(ranks)


def chance_recall(num_right: NDArray[np.int64], num_candidates: int, k: int) -> float:
    """Mean probability that one of the right candidates is among k drawn at random.

    Example:
        >>> chance_recall(np.array([1, 2]), 4, 1)
        0.375
    """
    every = math.comb(num_candidates, min(k, num_candidates))
    missed = [math.comb(num_candidates - int(count), min(k, num_candidates)) / every for count in num_right]
    return float(1.0 - np.mean(missed))


def _ranked(
    ranks: NDArray[np.float64],
    num_right: NDArray[np.int64],
    num_candidates: int,
    clusters: Sequence[int],
    options: ProbeOptions,
) -> dict[str, Any]:
    recall = {}
    for k in RECALL_AT:
        hits = ranks <= k
        low, high = bootstrap_interval(hits, clusters, n_resamples=options.n_resamples, seed=options.seed)
        recall[str(k)] = {
            "value": float(hits.mean()),
            "ci95": [low, high],
            "chance": chance_recall(num_right, num_candidates, k),
        }
    return {
        "recall": recall,
        "median_rank": float(np.median(ranks)),
        # Of m right ones among N in random order the first is at (N + 1) / (m + 1) on average.
        "chance_median_rank": float(np.median((num_candidates + 1) / (num_right + 1))),
        "queries": len(ranks),
        "candidates": num_candidates,
    }


def _differences(
    measured: Mapping[str, Mapping[str, Any]], resamples: Mapping[str, Mapping[str, NDArray[np.float64]]]
) -> dict[str, Any] | None:
    """Macro AUC of the encoder less that of random weights, on the same draws and resamples."""
    if _RANDOM not in measured:
        return None
    found: dict[str, Any] = {}
    for key, resampled in resamples["encoder"].items():
        first, second = (_macro_auc(measured[name], key) for name in ("encoder", _RANDOM))
        interval = percentile_interval(resampled - resamples[_RANDOM][key])
        found[key] = {"value": first - second, "ci95": None if interval is None else list(interval)}
    return found


def _macro_auc(found: Mapping[str, Any], key: str) -> float:
    kind, _, share = key.partition(" ")
    entry = found[kind][share] if share else found[kind]
    return float(entry["macro_auc"]["value"])


def probe_table(report: Mapping[str, Any]) -> str:
    """The report as tables in Markdown.

    Args:
        report: What `probe_encoder` returned.
    """
    systems = report["systems"]
    lines = [f"Encoder `{Path(report['encoder']).name}` ({report['model_type']}), split {report['split']}.", ""]
    rows = list(_auc_rows(report))
    if rows:
        names = [*systems, *(["difference"] if report["difference"] else []), "chance"]
        lines += [f"| macro AUC | records | labels | {' | '.join(names)} |", "|" + " --- |" * (3 + len(names))]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    if linear := systems["encoder"].get("linear"):
        lines += [_choice_of_c(next(iter(linear.values()))), ""]
    for name, found in systems.items():
        if "retrieval" in found:
            lines += [*_retrieval_lines(name, found["retrieval"], report["texts"]), ""]
    return "\n".join(lines).rstrip()


def _auc_rows(report: Mapping[str, Any]) -> Iterator[list[str]]:
    systems, difference = report["systems"], report["difference"] or {}
    for share, entry in systems["encoder"].get("linear", {}).items():
        cells = [_interval(found["linear"][share]["macro_auc"]) for found in systems.values()]
        more = [_interval(difference[f"linear {share}"])] if difference else []
        drawn = f"{entry['records']}" + (f", {entry['draws']} draws" if entry["draws"] > 1 else "")
        labels = str(entry["macro_auc"]["labels"])
        yield [f"linear probe, {100 * float(share):g} %", drawn, labels, *cells, *more, "0.500"]
    if "zero_shot" in systems["encoder"]:
        cells = [_interval(found["zero_shot"]["macro_auc"]) for found in systems.values()]
        more = [_interval(difference["zero_shot"])] if difference else []
        labels = str(systems["encoder"]["zero_shot"]["macro_auc"]["labels"])
        yield ["zero-shot", "0", labels, *cells, *more, "0.500"]


def _choice_of_c(entry: Mapping[str, Any]) -> str:
    chosen = entry["c_chosen_on"]
    if chosen is None:
        return f"C of the linear probe is {_DEFAULT_C:g}: there is no validation split to choose it on."
    return (
        f"C of the linear probe was chosen on the whole {chosen['split']} split ({chosen['records']} records), "
        "whatever the share of the training records."
    )


def _retrieval_lines(name: str, found: Mapping[str, Any], kind: str) -> Iterable[str]:
    yield (
        f"Retrieval, {name}: {found['ecgs']} ECGs with {found['distinct_texts']} distinct texts ({kind}); % of the "
        "queries, with what chance gives."
    )
    yield ""
    yield f"| {name} | {' | '.join(f'recall@{k}' for k in RECALL_AT)} | median rank | queries | candidates |"
    yield "|" + " --- |" * (4 + len(RECALL_AT))
    for key, words in (("ecg_to_text", "ECG to text"), ("text_to_ecg", "text to ECG")):
        entry = found[key]
        cells = [
            f"{100 * one['value']:.1f} ({100 * one['ci95'][0]:.1f} to {100 * one['ci95'][1]:.1f}; "
            f"chance {100 * one['chance']:.1f})"
            for one in entry["recall"].values()
        ]
        rank = f"{entry['median_rank']:g} (chance {entry['chance_median_rank']:g})"
        yield f"| {words} | {' | '.join(cells)} | {rank} | {entry['queries']} | {entry['candidates']} |"


def _interval(entry: Mapping[str, Any]) -> str:
    interval = entry["ci95"]
    return f"{entry['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
