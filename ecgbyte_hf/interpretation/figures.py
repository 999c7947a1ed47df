"""Figures of ECGs and their tokens, leads as clinicians read them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

# Steps of the golden angle keep the hues of ids that follow one another far apart, whatever the vocabulary's size.
_GOLDEN = 0.6180339887498949
# Three lightnesses repeat with the ids, so that neighbours also differ where hues are hard to tell apart.
_LIGHTNESS = (0.80, 0.66, 0.88)
# A minute of ECG; what is longer becomes narrower.
_WIDEST_INCHES = 62.0
_FORMATS = (".png", ".svg", ".pdf")


def token_colour(index: int) -> tuple[float, float, float]:
    """A stable light colour (red, green, blue in 0..1) for a token id."""
    return colorsys.hls_to_rgb((index * _GOLDEN) % 1.0, _LIGHTNESS[index % 3], 0.75)


def plot_tokens(signal: np.ndarray, tokenizer: EcgByteTokenizer, *, title: str = "") -> Any:
    """One row per lead: the trace in mV over bands, each band one token, each colour one id.

    A token that goes on in the next lead is a band at the end of one row and another at the start of the next.

    Args:
        signal: Float array (leads, samples) in mV, cleaned, as the tokenizer takes it.
        tokenizer: The tokenizer.
        title: Shown above, with the number of tokens.

    Returns:
        A matplotlib figure; leads in clinical order, all of the same height and on one mV scale.
    """
    from matplotlib.figure import Figure

    encoding = tokenizer(signal, return_offsets_mapping=True)
    rate, num_samples = tokenizer.sampling_rate, signal.shape[1]
    spans: dict[str, list[tuple[int, int, int]]] = {lead: [] for lead in tokenizer.leads}
    for index, offset in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        for lead, start, stop in tokenizer.lead_spans(offset, num_samples):
            spans[lead].append((index, start, stop))

    order = clinical_order(tokenizer.leads)
    # 2.5 cm per second at least, so that a QRS complex can be told from a line.
    width = min(max(9.0, num_samples / rate + 2.0), _WIDEST_INCHES)
    figure = Figure(figsize=(width, (2.2 if len(order) <= 3 else 1.0) * len(order) + 1.2), layout="constrained")
    axes = figure.subplots(len(order), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    times = np.arange(num_samples) / rate
    for axis, row in zip(axes, order, strict=True):
        lead = tokenizer.leads[row]
        axis.broken_barh(
            [(start / rate, (stop - start) / rate) for _, start, stop in spans[lead]],
            (0.0, 1.0),
            transform=axis.get_xaxis_transform(),
            facecolors=[token_colour(index) for index, _, _ in spans[lead]],
            linewidth=0,
        )
        axis.plot(times, signal[row], color="black", linewidth=0.9)
        axis.set_ylabel(f"{lead}\n(mV)", rotation=0, ha="right", va="center")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_xlim(0.0, num_samples / rate)
    axes[0].set_ylim(*_limits(signal))
    axes[-1].set_xlabel("time (s)")
    count = len(encoding["input_ids"])
    heading = f"{count} tokens, {signal.size / max(count, 1):.1f} samples per token; a band is a token, a colour an id"
    figure.suptitle(f"{title}\n{heading}" if title else heading, fontsize=11)
    return figure


def clinical_order(leads: Sequence[str]) -> list[int]:
    """Rows in the order in which clinicians read leads; others follow as they are.

    Example:
        >>> clinical_order(["V1", "aVF", "Vx", "II"])
        [3, 1, 0, 2]
    """
    known = {lead: place for place, lead in enumerate(CLINICAL_LEADS)}
    return sorted(range(len(leads)), key=lambda row: known.get(leads[row], len(known)))


def _limits(signal: np.ndarray) -> tuple[float, float]:
    """The range of a signal in mV with a margin; at least 1 mV, or the noise of a flat line would look like an ECG."""
    low, high = float(signal.min()), float(signal.max())
    middle, half = (low + high) / 2.0, max((high - low) * 0.55, 0.5)
    return middle - half, middle + half


def save_figure(figure: Any, path: str | Path) -> Path:
    """Save as PNG, SVG or PDF, by the file's ending.

    Raises:
        EcgDataError: another ending.
    """
    path = check_figure_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def check_figure_path(path: str | Path) -> Path:
    """Refuse a name under which no figure can be saved, before work is put into it.

    Raises:
        EcgDataError: the name does not end in .png, .svg or .pdf.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise EcgDataError(f"cannot draw to {path}: expected a name that ends in {', '.join(_FORMATS)}")
    return path
