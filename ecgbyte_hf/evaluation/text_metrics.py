"""Text metrics of answers, for comparison with published ones; exact match is what counts.

Two conventions, each under its name:

- `paper_per_sample`: ECG-Byte's (arXiv 2412.14373): each metric of every answer alone, then the mean. BLEU is that of
  one sentence with smoothing method 1 (Chen and Cherry 2014). A perfect one-word answer has no 2-grams and scores
  BLEU-4 0.1778, METEOR 0.5 and ROUGE-2 0.
- `corpus_level`: BLEU with n-grams counted over all answers (Papineni et al. 2002; sacrebleu), and token F1 with the
  tokens counted over all answers. Where every answer is one word there are no 2-grams, and BLEU-4 is 0.

So what perfect answers would score is stated beside both.

All values are fractions from 0 to 1. Nothing is downloaded.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from math import fsum
from pathlib import Path
from typing import Any

from ecgbyte_hf.evaluation.scoring import NONE
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError

#: What `evaluate.load` reads.
METRIC_FOLDER = Path(__file__).parent / "metrics" / "ecg_text_metrics"
_BLEU_ORDERS = (1, 2, 3, 4)
# A tokenizer that states no longest input has 10**30 here, which its Rust half cannot hold.
_NO_MAX_LENGTH = 10**6
_INSTALL = "install it with `pip install 'ecgbyte-hf[eval]'`"

Pairs = Counter[tuple[str, str]]


@dataclass(frozen=True)
class TextOptions:
    """How answers are compared as texts.

    Attributes:
        answer_separator: Between the answers of a question that has several, as the model was trained to write them;
            a space in the paper.
        bertscore_model: Folder of an encoder with its tokenizer; without one BERTScore is left out.
        bertscore_layer: The encoder's layer to compare.
    """

    answer_separator: str = ", "
    bertscore_model: str | Path | None = None
    bertscore_layer: int | None = None


def load_text_metrics() -> Any:
    """The metric as a module of Hugging Face `evaluate`, read from this package; nothing is downloaded.

    Raises:
        ImportError: the extra `eval` is not installed.

    >>> metric = load_text_metrics()
    >>> metric.compute(predictions=["yes"], references=["yes"])["corpus_level"]["token_f1"]
    1.0
    """
    with _extra():
        import evaluate
    # In memory: two runs at a time would else share a file in the user's cache.
    return evaluate.load(str(METRIC_FOLDER), keep_in_memory=True)


def compute_text_metrics(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    bertscore_model: str | Path | None = None,
    bertscore_layer: int | None = None,
) -> dict[str, Any]:
    """Every metric of texts against one reference each.

    Args:
        predictions: Texts; an empty one scores 0 everywhere and stays in.
        references: One text for each.
        bertscore_model: Folder of an encoder with its tokenizer; without one BERTScore is left out.
        bertscore_layer: The encoder's layer to compare (default: what bert-score knows of a model with the folder's
            name, such as 17 for `roberta-large`; else the last).

    Returns:
        `n`, `empty_predictions`;
        `paper_per_sample`: `bleu_1` to `bleu_4`, `rouge_1`, `rouge_2`, `rouge_l` (F1), `meteor`,
        `bertscore_precision`, `bertscore_recall`, `bertscore_f1`, and `token_f1`, which the paper does not report;
        `corpus_level`: `bleu_1` to `bleu_4`, `token_f1`;
        `perfect_answers`: both of the references themselves, without BERTScore;
        `left_out`: metric -> the reason; `settings`: what BLEU and BERTScore were computed with.

    Raises:
        EcgDataError: no texts, or not one reference for each; a layer that the encoder does not have.
        EcgFileError: `bertscore_model` is no folder.
        ImportError: the extra `eval` is not installed.
    """
    if not predictions or len(predictions) != len(references):
        raise EcgDataError(
            f"got {len(predictions)} predictions and {len(references)} references, expected one reference for each of "
            "at least one prediction"
        )
    # A questionnaire has few different answers: each pair is looked at once.
    pairs: Pairs = Counter(zip(predictions, references, strict=True))
    perfect: Pairs = Counter(zip(references, references, strict=True))
    left_out: dict[str, str] = {}
    wordnet = find_wordnet()
    if wordnet is None:
        left_out["meteor"] = (
            'METEOR needs WordNet, which is not here; get it once with `python -c "import nltk; '
            "nltk.download('wordnet')\"`"
        )
    per_sample = _per_sample(pairs, wordnet)
    corpus, signature = _corpus_level(predictions, references)
    settings: dict[str, Any] = {
        "corpus_bleu": signature,
        "sentence_bleu": "white space, smoothing method 1",
        "versions": {name: metadata.version(name) for name in ("sacrebleu", "nltk", "rouge-score")},
    }
    if bertscore_model is None:
        left_out["bertscore"] = "no model is named; give the folder of an encoder with --bertscore-model"
    else:
        scores, layer = bert_scores(pairs, bertscore_model, bertscore_layer)
        per_sample |= scores
        version = metadata.version("bert-score")
        settings["bertscore"] = {"model": str(bertscore_model), "layer": layer, "version": version}
    return {
        "n": len(predictions),
        "empty_predictions": sum(not text.strip() for text in predictions),
        "paper_per_sample": per_sample,
        "corpus_level": corpus,
        "perfect_answers": {
            "paper_per_sample": _per_sample(perfect, wordnet),
            "corpus_level": _corpus_level(references, references)[0],
        },
        "left_out": left_out,
        "settings": settings,
    }


def answer_text_metrics(
    rows: Sequence[Mapping[str, Any]], options: TextOptions, *, computed: bool = False
) -> dict[str, Any]:
    """Text metrics of prediction rows; an empty prediction scores 0 and stays in.

    Args:
        rows: What `score_rows` returned.
        options: How the right answers are written.
        computed: The predictions are sets that no model wrote, such as the majority's: they are written as the right
            answers are.

    Returns:
        As `compute_text_metrics`, with `answer_separator` among the settings.
    """
    join = options.answer_separator.join
    predictions = [
        join(row["parsed"] or [NONE]) if computed and row["parsed"] is not None else row["prediction"] or ""
        for row in rows
    ]
    result: dict[str, Any] = load_text_metrics().compute(
        predictions=predictions,
        references=[join(row["answer"]) for row in rows],
        bertscore_model=options.bertscore_model,
        bertscore_layer=options.bertscore_layer,
    )
    result["settings"]["answer_separator"] = options.answer_separator
    return result


def token_f1(prediction: str, reference: str) -> float:
    """F1 of the tokens two texts share, as SQuAD counts them (Rajpurkar et al. 2016, arXiv 1606.05250).

    Lower case, without punctuation and the words "a", "an", "the"; a token counts as often as it stands in both.

    >>> token_f1("Sinus rhythm.", "sinus bradycardia"), token_f1("", "none")
    (0.5, 0.0)
    """
    return _f1(*_token_counts(prediction, reference))


def sentence_bleu(prediction: str, reference: str) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of one text by white space, with smoothing method 1 (0.1 for a count of 0).

    >>> {name: round(100 * value, 2) for name, value in sentence_bleu("yes", "yes").items()}
    {'bleu_1': 100.0, 'bleu_2': 31.62, 'bleu_3': 21.54, 'bleu_4': 17.78}
    """
    with _extra():
        from nltk.translate import bleu_score
    weights = [tuple(1.0 / order for _ in range(order)) for order in _BLEU_ORDERS]
    smoothing = bleu_score.SmoothingFunction().method1
    values = bleu_score.corpus_bleu([[reference.split()]], [prediction.split()], weights, smoothing)
    return {f"bleu_{order}": float(value) for order, value in zip(_BLEU_ORDERS, values, strict=True)}


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L of one text, without stemming (Lin 2004; rouge-score).

    >>> rouge("old st changes", "st changes")
    {'rouge_1': 0.8, 'rouge_2': 0.6666666666666666, 'rouge_l': 0.8}
    """
    with _extra():
        from rouge_score.rouge_scorer import RougeScorer
    scores = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, prediction)
    return {f"rouge_{name[5:].lower()}": float(score.fmeasure) for name, score in scores.items()}


def find_wordnet() -> Any | None:
    """NLTK's WordNet where it was downloaded, else `None`."""
    with _extra():
        from nltk.corpus import wordnet
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


def meteor(prediction: str, reference: str, wordnet: Any) -> float:
    """METEOR of one text by white space (Lavie and Agarwal 2007; NLTK): same words, stems, then synonyms.

    Args:
        prediction: A text.
        reference: A text.
        wordnet: `find_wordnet()`; its `synsets` gives the synonyms.
    """
    with _extra():
        from nltk.translate.meteor_score import single_meteor_score
    return float(single_meteor_score(reference.split(), prediction.split(), wordnet=wordnet))


def bert_scores(pairs: Pairs, model: str | Path, layer: int | None = None) -> tuple[dict[str, float], int]:
    """Mean BERTScore of texts without idf weights and without rescaling (Zhang et al. 2020, arXiv 1904.09675).

    Args:
        pairs: (prediction, reference) -> how often. An empty prediction scores 0.
        model: Folder of an encoder with its tokenizer.
        layer: Of the encoder.

    Returns:
        `bertscore_precision`, `bertscore_recall`, `bertscore_f1`; and the layer.

    Raises:
        EcgFileError: no such folder, or one that bert-score would take for another model.
        EcgDataError: a layer that the encoder does not have.
    """
    folder = _encoder_folder(model)
    with _extra():
        from bert_score import BERTScorer
        from bert_score.utils import model2layers
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    if layer is None:
        layer = int(model2layers.get(folder.name, config.num_hidden_layers))
    if not 1 <= layer <= config.num_hidden_layers:
        raise EcgDataError(f"got layer {layer} of {folder}, expected 1 to {config.num_hidden_layers}")
    scorer = BERTScorer(model_type=str(folder), num_layers=layer, nthreads=1)
    if scorer._tokenizer.model_max_length > _NO_MAX_LENGTH:
        # RoBERTa's positions begin at 2; encoders with relative positions state none.
        scorer._tokenizer.model_max_length = getattr(config, "max_position_embeddings", 514) - 2
    written = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
    totals = dict.fromkeys(("precision", "recall", "f1"), 0.0)
    if written:
        values = scorer.score([prediction for prediction, _ in written], [reference for _, reference in written])
        counts = [pairs[pair] for pair in written]
        totals = {
            name: fsum(value * count for value, count in zip(column.tolist(), counts, strict=True))
            for name, column in zip(totals, values, strict=True)
        }
    return {f"bertscore_{name}": total / pairs.total() for name, total in totals.items()}, layer


def _encoder_folder(model: str | Path) -> Path:
    folder = Path(model).resolve()
    if not (folder / "config.json").is_file():
        raise EcgFileError(f"{model} is not a folder with an encoder (it has no config.json); nothing is downloaded")
    if "t5" in str(folder):
        raise EcgFileError(f"bert-score takes {folder} for a T5 model since its path has 't5' in it; rename it")
    return folder


def _per_sample(pairs: Pairs, wordnet: Any | None) -> dict[str, float]:
    """Means over the texts, each scored alone."""
    values = {pair: _one_sample(*pair, wordnet) for pair in pairs}
    names = next(iter(values.values()))
    return {name: fsum(values[pair][name] * count for pair, count in pairs.items()) / pairs.total() for name in names}


def _one_sample(prediction: str, reference: str, wordnet: Any | None) -> dict[str, float]:
    scores = {**sentence_bleu(prediction, reference), **rouge(prediction, reference)}
    if wordnet is not None:
        scores["meteor"] = meteor(prediction, reference, wordnet)
    return {**scores, "token_f1": token_f1(prediction, reference)}


def _corpus_level(predictions: Sequence[str], references: Sequence[str]) -> tuple[dict[str, float], str]:
    """BLEU-1 to BLEU-4 and token F1, and sacrebleu's signature, which says how BLEU was computed."""
    with _extra():
        from sacrebleu.metrics.bleu import BLEU
    scores = {}
    for order in _BLEU_ORDERS:
        bleu = BLEU(max_ngram_order=order)
        scores[f"bleu_{order}"] = bleu.corpus_score(list(predictions), [list(references)]).score / 100.0
    scores["token_f1"] = _pooled_f1(Counter(zip(predictions, references, strict=True)))
    return scores, bleu.get_signature().format()


def _pooled_f1(pairs: Mapping[tuple[str, str], int]) -> float:
    counts = [(_token_counts(*pair), number) for pair, number in pairs.items()]
    shared, predicted, expected = (sum(each[part] * number for each, number in counts) for part in range(3))
    return _f1(shared, predicted, expected)


def _token_counts(prediction: str, reference: str) -> tuple[int, int, int]:
    """Tokens in both, in the prediction, in the reference."""
    ours, theirs = Counter(_tokens(prediction)), Counter(_tokens(reference))
    return (ours & theirs).total(), ours.total(), theirs.total()


def _tokens(text: str) -> list[str]:
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _f1(shared: int, predicted: int, expected: int) -> float:
    return 2.0 * shared / (predicted + expected) if shared else 0.0


@contextmanager
def _extra() -> Iterator[None]:
    """Names the extra where a package is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"text metrics need {error.name}; {_INSTALL}") from error
