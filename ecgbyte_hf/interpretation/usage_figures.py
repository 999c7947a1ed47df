"""How a tokenizer's vocabulary is used, as six panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ecgbyte_hf.interpretation.figures import clinical_order
from ecgbyte_hf.interpretation.usage_splits import told
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Okabe and Ito's palette for all kinds of colour vision; dashes and markers repeat what the colours say.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1)), (0, (3, 3)))
_MARKERS = ("o", "^", "s", "D", "v", "P")
_MOST_BINS = 40


def plot_usage(usage: Mapping[str, Any], *, title: str = "") -> Any:
    """Rank and frequency, tokens per ECG, token lengths, coverage, compression by lead and by vocabulary size.

    Args:
        usage: What `measure_usage` returned, or its JSON.
        title: Above all panels.

    Returns:
        A matplotlib figure; a colour, a dash and a marker for every data set.

    Raises:
        EcgDataError: more data sets than can be told apart.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    sets = usage["data_sets"]
    check_data_sets(sets)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(12.0, 7.6), layout=layout)
    panels: tuple[Callable[[Any, Any, Any], None], ...] = (
        _plot_ranks,
        _plot_coverage,
        _plot_tokens_per_ecg,
        _plot_lengths,
        _plot_leads,
        _plot_merges,
    )
    for axis, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        panel(axis, sets, usage)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.title.set_size(10)
    names = [
        f"{which}: {one['records']:,} ECGs, {one['tokens']:,} tokens, {one['compression']:.2f} samples per token"
        for which, one in zip(told(sets, usage), sets.values(), strict=True)
    ]
    handles = [_handle(number) for number in range(len(sets))]
    figure.legend(handles, names, loc="outside lower center", frameon=False, fontsize=9, ncols=1)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def check_data_sets(names: Collection[str]) -> None:
    """Refuse more data sets than can be told apart, before they are counted.

    Raises:
        EcgDataError: none, or more than there are colours.
    """
    if not 0 < len(names) <= len(_COLOURS):
        raise EcgDataError(f"got {len(names)} data sets for one figure, expected 1 to {len(_COLOURS)}")


def _style(number: int) -> dict[str, Any]:
    return {"color": _COLOURS[number], "linestyle": _DASHES[number], "linewidth": 1.4}


def _handle(number: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=_MARKERS[number], markersize=5, **_style(number))


def _plot_ranks(axis: Any, sets: Any, usage: Any) -> None:
    for number, one in enumerate(sets.values()):
        counts = np.sort(np.array(one["counts"]))[::-1]
        counts = counts[counts > 0]
        axis.plot(np.arange(1, len(counts) + 1), 100.0 * counts / one["tokens"], **_style(number))
    axis.set(xscale="log", yscale="log", xlabel="rank of the id", ylabel="share of all tokens (%)")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_title("How often each id occurs")


def _plot_coverage(axis: Any, sets: Any, usage: Any) -> None:
    for number, one in enumerate(sets.values()):
        cumulative = np.cumsum(np.sort(np.array(one["counts"]))[::-1]) / one["tokens"]
        axis.plot(np.arange(1, len(cumulative) + 1), 100.0 * cumulative, **_style(number))
    axis.set(xscale="log", ylim=(0.0, 102.0), xlabel="most frequent ids", ylabel="share of all tokens (%)")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    used = ", ".join(f"{100 * one['coverage']['share_used']:.1f}" for one in sets.values())
    size = next(iter(sets.values()))["coverage"]["vocabulary"]
    axis.set_title(f"Coverage; in use: {used} % of {size:,} ids")


def _plot_tokens_per_ecg(axis: Any, sets: Any, usage: Any) -> None:
    pairs = [np.array(one["tokens_per_ecg"]).T for one in sets.values()]
    low, high = min(values[0] for values, _ in pairs), max(values[-1] for values, _ in pairs)
    # In bins for thousands of ECGs a few dozen would be a comb.
    largest = max(int(records.sum()) for _, records in pairs)
    bins = min(_MOST_BINS, int(high - low + 1), max(5, 2 * math.isqrt(largest)))
    edges = np.linspace(low - 0.5, high + 0.5, bins + 1)
    for number, (values, records) in enumerate(pairs):
        shares, _ = np.histogram(values, edges, weights=100.0 * records / records.sum())
        axis.stairs(shares, edges, **_style(number))
        mean = float(values @ records / records.sum())
        axis.plot([mean], [0.0], _MARKERS[number], color=_COLOURS[number], clip_on=False, markersize=7)
    axis.set(xlabel="tokens per ECG (marker: mean)", ylabel="share of the ECGs (%)", ylim=(0.0, None))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.locator_params(axis="x", nbins=5)
    axis.set_title("Tokens per ECG")


def _plot_lengths(axis: Any, sets: Any, usage: Any) -> None:
    step = 1000.0 / usage["sampling_rate"]
    for number, one in enumerate(sets.values()):
        lengths, tokens = np.array(one["token_length"]).T
        share = 100.0 * np.cumsum(tokens * lengths) / one["samples"]
        axis.step(lengths * step, share, where="post", **_style(number))
        mean = step * one["compression"]
        axis.plot([mean], [0.0], _MARKERS[number], color=_COLOURS[number], clip_on=False, markersize=7)
    axis.set(xscale="log", ylim=(0.0, 102.0), xlabel="token length (ms; marker: mean)")
    axis.set_ylabel("samples in tokens up to this length (%)")
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.set_title("Length of the tokens")


def _plot_leads(axis: Any, sets: Any, usage: Any) -> None:
    leads = list(next(iter(sets.values()))["by_lead"])
    order = [leads[row] for row in clinical_order(leads)]
    for number, one in enumerate(sets.values()):
        places = np.arange(len(order)) + 0.15 * (number - (len(sets) - 1) / 2)
        values = [one["by_lead"][lead]["compression"] for lead in order]
        axis.plot(places, values, _MARKERS[number], color=_COLOURS[number], markersize=6)
    axis.set_xticks(range(len(order)), order, fontsize=8)
    axis.set(xlabel="lead", ylabel="samples per token", xlim=(-0.5, len(order) - 0.5), ylim=(0.0, None))
    axis.locator_params(axis="y", integer=True)
    axis.set_title("Compression by lead")


def _plot_merges(axis: Any, sets: Any, usage: Any) -> None:
    for number, one in enumerate(sets.values()):
        points = [(point["merges"], point["compression"]) for point in one["by_merges"]]
        axis.plot(*zip(*points, strict=True), marker=_MARKERS[number], markersize=5, **_style(number))
    axis.set_xscale("symlog", linthresh=10, linscale=0.4)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set(xlabel="merges: the first so many of the tokenizer", ylabel="samples per token", ylim=(0.0, None))
    axis.set_xlim(left=0.0)
    axis.set_title("Compression by vocabulary size")
