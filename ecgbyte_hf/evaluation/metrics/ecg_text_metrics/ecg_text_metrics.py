"""BLEU, ROUGE, METEOR, token F1 and BERTScore as a module of Hugging Face `evaluate`.

`evaluate` copies this file and imports the copy, so the formulas are in `ecgbyte_hf.evaluation.text_metrics`.
"""

from typing import Any

import datasets
import evaluate

from ecgbyte_hf.evaluation.text_metrics import compute_text_metrics

_DESCRIPTION = """
Texts against one reference each, under two conventions that must not be mixed: `paper_per_sample` (ECG-Byte, arXiv
2412.14373: each metric of every text alone, averaged) and `corpus_level` (n-grams and tokens counted over all texts).
"""
_INPUTS = """
Args:
    predictions: texts; an empty one scores 0 and stays in.
    references: one text for each.
    bertscore_model: folder of an encoder; BERTScore is left out without one.
    bertscore_layer: the encoder's layer to compare.
Returns: see `ecgbyte_hf.evaluation.text_metrics.compute_text_metrics`.
"""


class EcgTextMetrics(evaluate.Metric):
    """The metric; nothing is downloaded."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str], **options: Any) -> dict[str, Any]:
        return compute_text_metrics(predictions, references, **options)
