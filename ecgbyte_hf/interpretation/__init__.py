"""Looking at what the tokens are, and at what they keep of an ECG.

Every function returns a matplotlib figure, without pyplot and its global state; notebooks show it by itself.
`save_figure` writes it as PNG, SVG or PDF. They need matplotlib: `pip install 'ecgbyte-hf[plot]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "measure_decoding": "ecgbyte_hf.interpretation.decoding",
    "measure_usage": "ecgbyte_hf.interpretation.usage",
    "plot_decode": "ecgbyte_hf.interpretation.decode_figures",
    "plot_ecg": "ecgbyte_hf.interpretation.paper",
    "plot_token_growth": "ecgbyte_hf.interpretation.token_growth",
    "plot_tokens": "ecgbyte_hf.interpretation.token_figures",
    "plot_usage": "ecgbyte_hf.interpretation.usage_figures",
    "save_figure": "ecgbyte_hf.interpretation.figures",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604

if TYPE_CHECKING:
    from ecgbyte_hf.interpretation.decode_figures import plot_decode as plot_decode
    from ecgbyte_hf.interpretation.decoding import measure_decoding as measure_decoding
    from ecgbyte_hf.interpretation.figures import save_figure as save_figure
    from ecgbyte_hf.interpretation.paper import plot_ecg as plot_ecg
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
