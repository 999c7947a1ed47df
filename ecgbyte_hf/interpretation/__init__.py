"""Looking at what the tokens are, at what they keep of an ECG, and at what an answer came from.

Figures are matplotlib's, without pyplot and its global state; notebooks show them after `%matplotlib inline`, and
`save_figure` writes them as PNG, SVG or PDF. They need matplotlib: `pip install 'ecgbyte-hf[plot]'`; integrated
gradients need captum too: `pip install 'ecgbyte-hf[interpretation]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "attribute": "ecgbyte_hf.interpretation.attribution",
    "deletions": "ecgbyte_hf.interpretation.faithfulness",
    "measure_decoding": "ecgbyte_hf.interpretation.decoding",
    "measure_usage": "ecgbyte_hf.interpretation.usage",
    "plot_attribution": "ecgbyte_hf.interpretation.attribution_figure",
    "plot_decode": "ecgbyte_hf.interpretation.decode_figures",
    "plot_ecg": "ecgbyte_hf.interpretation.paper",
    "plot_token_growth": "ecgbyte_hf.interpretation.token_growth",
    "plot_tokens": "ecgbyte_hf.interpretation.token_figures",
    "plot_usage": "ecgbyte_hf.interpretation.usage_figures",
    "read_question": "ecgbyte_hf.interpretation.reading",
    "save_figure": "ecgbyte_hf.interpretation.figures",
    "save_report": "ecgbyte_hf.interpretation.report_page",
    "watch_attention": "ecgbyte_hf.interpretation.attention",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604

if TYPE_CHECKING:
    from ecgbyte_hf.interpretation.attention import watch_attention as watch_attention
    from ecgbyte_hf.interpretation.attribution import attribute as attribute
    from ecgbyte_hf.interpretation.attribution_figure import plot_attribution as plot_attribution
    from ecgbyte_hf.interpretation.decode_figures import plot_decode as plot_decode
    from ecgbyte_hf.interpretation.decoding import measure_decoding as measure_decoding
    from ecgbyte_hf.interpretation.faithfulness import deletions as deletions
    from ecgbyte_hf.interpretation.figures import save_figure as save_figure
    from ecgbyte_hf.interpretation.paper import plot_ecg as plot_ecg
    from ecgbyte_hf.interpretation.reading import read_question as read_question
    from ecgbyte_hf.interpretation.report_page import save_report as save_report
    from ecgbyte_hf.interpretation.token_figures import plot_tokens as plot_tokens
    from ecgbyte_hf.interpretation.token_growth import plot_token_growth as plot_token_growth
    from ecgbyte_hf.interpretation.usage import measure_usage as measure_usage
    from ecgbyte_hf.interpretation.usage_figures import plot_usage as plot_usage


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'ecgbyte_hf.interpretation' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
