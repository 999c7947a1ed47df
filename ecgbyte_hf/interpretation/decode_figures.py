"""A recording as it came, cleaned, and decoded from its tokens, with the error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgbyte_hf.interpretation.decoding import Decoding, measure_decoding
from ecgbyte_hf.interpretation.figures import ShownSignal, clinical_order, recorded_signal
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError
from ecgbyte_hf.models.leads_ecg_byte import order_leads

if TYPE_CHECKING:
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

# All in mm. 25 mm for a second, as on paper, where the figure is not too narrow or too wide by that.
_LEFT, _RIGHT, _HEAD, _FOOT = 20.0, 18.0, 28.0, 14.0
_ERROR, _WITHIN, _BETWEEN = 12.0, 3.0, 6.0
_MM_PER_MV, _MOST_TRACE, _LEAST_RANGE_MV = 20.0, 60.0, 0.8
_SECOND, _LEAST_WIDTH, _MOST_WIDTH = 25.0, 150.0, 1500.0
# Okabe and Ito's palette; the decoded trace is on top of the cleaned one, which is wider.
_ORIGINAL, _CLEANED, _DECODED = "#8A8A8A", "#56B4E9", "#000000"
# A recorder's offset of more would leave no room for the trace.
_MOST_OFFSET_MV = 1.0


def plot_decode(
    record: Any,
    tokenizer: EcgByteTokenizer,
    *,
    leads: Sequence[str] | None = None,
    seconds: float | None = None,
    title: str | None = None,
) -> Any:
    """Each lead as recorded, cleaned and decoded, and below the error in mV and in bins.

    Args:
        record: An `EcgRecord`, or a cleaned array (leads, samples) in mV, of which there is nothing as recorded.
        tokenizer: The tokenizer.
        leads: Draw only these; all by default. The numbers in the heading are of all.
        seconds: Encode and draw only the beginning.
        title: By default the record's name.

    Returns:
        A matplotlib figure, leads in clinical order, of one scale but for leads of more than 3 mV. The error is
        decoded less cleaned; within half a bin (dashed lines) it is what quantising takes, beyond a sample was outside
        the range of the bins.

    Raises:
        LeadError: a lead that the tokenizer does not have.
        EcgError: a record that cannot be cleaned or encoded, or a size that cannot be drawn.
    """
    from ecgbyte_hf.interpretation.canvas import MillimetreFigure

    decoding = measure_decoding(record, tokenizer, seconds=seconds)
    cleaned = decoding.cleaned
    rows = order_leads(cleaned.leads, cleaned.leads if leads is None else leads)
    rows = [rows[place] for place in clinical_order([cleaned.leads[row] for row in rows])]
    original = recorded_signal(record).beginning(seconds) if hasattr(record, "signal") else None
    across = max(_LEAST_WIDTH, cleaned.seconds * _SECOND)
    if across > _MOST_WIDTH:
        raise EcgDataError(
            f"the figure would be {across:.0f} mm wide, expected at most {_MOST_WIDTH:.0f}; give seconds"
        )
    recorded = [_as_recorded(original, cleaned.leads[row]) for row in rows]
    limits = [_limits(decoding, row, one) for row, one in zip(rows, recorded, strict=True)]
    tall = [min(_MM_PER_MV * (high - low), _MOST_TRACE) for low, high in limits]
    below_traces = _WITHIN + _ERROR + _BETWEEN
    top = _FOOT + sum(tall) + len(rows) * below_traces - _BETWEEN
    figure = MillimetreFigure(_LEFT + across + _RIGHT, top + _HEAD)
    most = 1.15 * max(float(np.abs(decoding.error[rows]).max()), decoding.bin_mv / 2)
    for place, row in enumerate(rows):
        top -= tall[place]
        above = figure.add_mm_axes(_LEFT, top, across, tall[place])
        below = figure.add_mm_axes(_LEFT, top - _WITHIN - _ERROR, across, _ERROR)
        _draw_traces(above, decoding, row, recorded[place], limits[place])
        _draw_error(below, decoding, row, most, is_last=place == len(rows) - 1)
        top -= below_traces
    _draw_heading(figure, decoding, cleaned.name if title is None else title, any(one is not None for one in recorded))
    return figure


def _as_recorded(original: ShownSignal | None, lead: str) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Times and values of a lead of the recording, and what was added to draw it; None where it has no such lead."""
    if original is None:
        return None
    try:
        (row,) = order_leads(original.leads, [lead])
    except LeadError:  # derived from others, or missing and allowed to be
        return None
    values = original.signal[row].astype(np.float64)
    finite = values[np.isfinite(values)]
    offset = float(np.median(finite)) if finite.size else 0.0
    moved = -offset if abs(offset) > _MOST_OFFSET_MV else 0.0
    return np.arange(len(values)) / original.sampling_rate, values + moved, moved


def _limits(decoding: Decoding, row: int, recorded: Any) -> tuple[float, float]:
    """The range of a lead's traces in mV with a margin, or the noise of a flat line would look like an ECG."""
    drawn = [decoding.cleaned.signal[row], decoding.decoded[row], *([] if recorded is None else [recorded[1]])]
    values = np.concatenate(drawn)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    middle, half = (low + high) / 2.0, max(0.54 * (high - low), _LEAST_RANGE_MV / 2)
    return middle - half, middle + half


def _draw_traces(axis: Any, decoding: Decoding, row: int, recorded: Any, limits: tuple[float, float]) -> None:
    cleaned = decoding.cleaned
    times = np.arange(cleaned.signal.shape[1]) / cleaned.sampling_rate
    label = cleaned.leads[row]
    if recorded is not None:
        axis.plot(recorded[0], recorded[1], color=_ORIGINAL, linewidth=0.6, gid=f"original-{label}")
        if recorded[2]:
            moved = f"as recorded, moved by {recorded[2]:+.2f} mV"
            axis.text(0.995, 0.97, moved, transform=axis.transAxes, fontsize=7, ha="right", va="top", color="#555555")
    axis.plot(times, cleaned.signal[row], color=_CLEANED, linewidth=2.4, gid=f"cleaned-{label}")
    axis.plot(times, decoding.decoded[row], color=_DECODED, linewidth=0.6, gid=f"decoded-{label}")
    axis.set(xlim=(0.0, cleaned.seconds), ylim=limits, ylabel="mV")
    axis.yaxis.label.set_size(8)
    axis.tick_params(labelsize=7, labelbottom=False)
    axis.text(-0.035, 1.02, label, transform=axis.transAxes, fontsize=10, weight="bold", ha="right", va="bottom")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _draw_error(axis: Any, decoding: Decoding, row: int, most: float, *, is_last: bool) -> None:
    times = np.arange(decoding.cleaned.signal.shape[1]) / decoding.cleaned.sampling_rate
    label = decoding.cleaned.leads[row]
    for half in (-decoding.bin_mv / 2, decoding.bin_mv / 2):
        axis.axhline(half, color="#555555", linewidth=0.5, linestyle=(0, (4, 3)))
    axis.plot(times, decoding.error[row], color="#D55E00", linewidth=0.5, gid=f"error-{label}")
    axis.set(xlim=(0.0, decoding.cleaned.seconds), ylim=(-most, most), ylabel="error\n(mV)")
    bins = axis.twinx()
    bins.set(ylim=(-most / decoding.bin_mv, most / decoding.bin_mv), ylabel="error\n(bins)")
    for one in (axis, bins):
        one.locator_params(axis="y", nbins=3)
        one.yaxis.label.set_size(7)
        one.tick_params(labelsize=7, labelbottom=is_last)
        one.spines["top"].set_visible(False)
    if is_last:
        axis.set_xlabel("time (s)", fontsize=8)


def _draw_heading(figure: Any, decoding: Decoding, title: str, has_original: bool) -> None:
    from matplotlib.lines import Line2D

    numbers = decoding.numbers()
    worst = max(numbers["by_lead"], key=lambda lead: numbers["by_lead"][lead]["max_error_mv"])
    width, height = figure.size_mm
    lines = [
        title,
        f"{numbers['tokens']:,} tokens for {numbers['samples']:,} samples: {numbers['compression']:.1f} samples per "
        "token",
        f"largest error {numbers['max_error_mv']:.3f} mV = {numbers['max_error_bins']:.2f} bins (lead {worst}); "
        f"mean {numbers['mean_error_mv']:.3f} mV",
        f"{numbers['clipped']:,} samples outside the range of the bins, {numbers['low_mv']:.2f} to "
        f"{numbers['high_mv']:.2f} mV",
    ]
    for number, text in enumerate(text for text in lines if text):
        weight = "bold" if number == 0 and title else "normal"
        y = 1 - (4.0 + 4.2 * number) / height
        figure.text(5.0 / width, y, text, fontsize=9 if weight == "bold" else 8, weight=weight, va="center")
    shown = [("as recorded", _ORIGINAL, 0.8)] if has_original else []
    shown += [("cleaned", _CLEANED, 2.4), ("decoded", _DECODED, 0.8)]
    handles = [Line2D([], [], color=colour, linewidth=size, label=name) for name, colour, size in shown]
    place = (1 - _RIGHT / width, 1 - 22.0 / height)
    figure.legend(handles=handles, loc="center right", bbox_to_anchor=place, ncols=3, fontsize=8, frameon=False)
