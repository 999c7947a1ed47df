"""Figures of ECGs and their tokens, leads as clinicians read them."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np

from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

# Steps of the golden angle keep the hues of ids that follow one another far apart, whatever the vocabulary's size.
_GOLDEN = 0.6180339887498949
# Three lightnesses repeat with the ids, so that neighbours also differ where hues are hard to tell apart.
_LIGHTNESS = (0.80, 0.66, 0.88)


def token_colour(index: int) -> tuple[float, float, float]:
    """A stable light colour (red, green, blue in 0..1) for a token id."""
    return colorsys.hls_to_rgb((index * _GOLDEN) % 1.0, _LIGHTNESS[index % 3], 0.75)


def plot_tokens(signal: np.ndarray, tokenizer: EcgByteTokenizer, *, title: str = "") -> Any:
    """One row per lead: the trace in mV over bands, each band one token, each colour one id.

    Args:
        signal: Float array (leads, samples) in mV, cleaned, as the tokenizer takes it.
        tokenizer: The tokenizer.
        title: Shown above, with the number of tokens.

    Returns:
        A matplotlib figure; at least 2.2 cm per second wide and the same height for every lead, all on one mV scale.
    """
    from matplotlib.figure import Figure

    encoding = tokenizer(signal, return_offsets_mapping=True)
    num_samples = signal.shape[1]
    seconds = num_samples / tokenizer.sampling_rate
    order = sorted(
        range(len(tokenizer.leads)),
        key=lambda row: (
            CLINICAL_LEADS.index(tokenizer.leads[row]) if tokenizer.leads[row] in CLINICAL_LEADS else len(CLINICAL_LEADS)
        ),
    )
    bands: dict[str, list[tuple[int, int, int]]] = {lead: [] for lead in tokenizer.leads}
    for index, offset in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        for lead, start, stop in tokenizer.lead_spans(offset, num_samples):
            bands[lead].append((index, start, stop))

    row_inches = 1.7 if len(order) <= 3 else 0.95
    figure = Figure(figsize=(max(8.0, 0.9 * seconds + 2.0), row_inches * len(order) + 1.1), layout="constrained")
    axes = figure.subplots(len(order), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    times = np.arange(num_samples) / tokenizer.sampling_rate
    for axis, row in zip(axes, order, strict=True):
        lead = tokenizer.leads[row]
        for index, start, stop in bands[lead]:
            left, right = start / tokenizer.sampling_rate, stop / tokenizer.sampling_rate
            axis.axvspan(left, right, color=token_colour(index), linewidth=0)
        axis.plot(times, signal[row], color="black", linewidth=0.8)
        axis.set_ylabel(f"{lead}\n(mV)", rotation=0, ha="right", va="center")
        axis.margins(x=0)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[-1].set_xlabel("time (s)")
    compression = signal.size / max(len(encoding["input_ids"]), 1)
    heading = f"{len(encoding['input_ids'])} tokens, {compression:.1f} samples per token; one band per token, one colour per id"
    figure.suptitle(f"{title}: {heading}" if title else heading, fontsize=10)
    return figure


def save_figure(figure: Any, path: str | Path) -> Path:
    """Save as PNG, SVG or PDF, by the file's ending."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
