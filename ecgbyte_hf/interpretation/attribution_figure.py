"""Figures of what an answer came from: colour under the traces of the leads, bars over the words."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from ecgbyte_hf.interpretation.attribution import Attribution, sums_by_kind
from ecgbyte_hf.interpretation.figures import clinical_order
from ecgbyte_hf.interpretation.reading import Reading, Word

# Of the values that are not 0: one token with ten times the others' would leave all others white.
_COLOUR_PERCENTILE = 99.0
# More words than this cannot be read beside one another.
_MOST_WORDS = 40
_ANSWER, _TEXT = "#D55E00", "#5F6B76"
_WIDEST_INCHES = 62.0


def plot_attribution(reading: Reading, attribution: Attribution, *, title: str = "") -> Any:
    """The leads over their attribution, and the words with theirs.

    Colours are per second of a lead, so that they can be compared between sampling rates and token lengths; those of
    the paper's average are whole tokens', as in the paper. Those beyond the 99th percentile have the last colour.

    Args:
        reading: What was read.
        attribution: One method's values.
        title: Above, such as the record's name.

    Returns:
        A matplotlib figure; leads in clinical order.
    """
    from matplotlib.figure import Figure

    order = clinical_order(reading.leads)
    num_samples = reading.signal.shape[1]
    seconds = num_samples / reading.sampling_rate
    width = min(max(10.0, seconds + 3.0), _WIDEST_INCHES)
    lead_height, words_height = (1.6 if len(order) <= 3 else 0.95), 2.4
    figure = Figure(figsize=(width, lead_height * len(order) + words_height + 1.5), layout="constrained")
    grid = figure.add_gridspec(len(order) + 1, 1, height_ratios=[lead_height] * len(order) + [words_height])
    axes: list[Any] = []
    for place in range(len(order)):
        shared = {"sharex": axes[0], "sharey": axes[0]} if axes else {}
        axes.append(figure.add_subplot(grid[place], **shared))
    per_second = colour_values(reading, attribution)
    colours, norm = _colours(per_second, attribution.is_signed)
    low, high = _limits(reading.signal)
    times = np.arange(num_samples) / reading.sampling_rate
    image: Any = None
    for axis, row in zip(axes, order, strict=True):
        image = axis.imshow(
            per_second[row][None],
            extent=(0.0, seconds, low, high),
            aspect="auto",
            interpolation="nearest",
            cmap=colours,
            norm=norm,
        )
        axis.plot(times, reading.signal[row], color="black", linewidth=0.9)
        axis.set_ylabel(f"{reading.leads[row]}\n(mV)", rotation=0, ha="right", va="center")
        axis.tick_params(labelbottom=axis is axes[-1])
        _without_frame(axis)
    axes[0].set_xlim(0.0, seconds)
    axes[0].set_ylim(low, high)
    axes[-1].set_xlabel("time (s)")
    extend = "both" if attribution.is_signed else "max"
    bar = figure.colorbar(image, ax=axes, extend=extend, fraction=0.03, pad=0.01, aspect=14.0 * len(order) ** 0.5)
    bar.set_label(colour_label(attribution))
    _plot_words(figure.add_subplot(grid[-1]), reading, attribution)
    figure.suptitle(_heading(reading, attribution, title, int(11 * width)), fontsize=11)
    return figure


def colour_values(reading: Reading, attribution: Attribution) -> np.ndarray:
    """What colours show, (leads, samples): % of the whole, or nats, per second of a lead or per token."""
    values = reading.to_samples(attribution.values, divide=not attribution.is_per_token)
    per = 1.0 if attribution.is_per_token else reading.sampling_rate
    return values * per if attribution.is_signed else 100.0 * per * values


def colour_label(attribution: Attribution) -> str:
    """What colours mean, with the unit."""
    if attribution.is_signed:
        return "for the answer (+) or against it (-)\n(nats per second of a lead)"
    if attribution.is_per_token:
        return "attention (% of all, of the sample's token)"
    return "attention (% of all, per second of a lead)"


def colour_limit(per_second: np.ndarray) -> float:
    """The value of the last colour."""
    seen = np.abs(per_second[per_second != 0.0])
    return float(np.percentile(seen, _COLOUR_PERCENTILE)) if len(seen) else 1.0


def _colours(per_second: np.ndarray, is_signed: bool) -> tuple[Any, Any]:
    """A colour map and its range.

    Blue and orange are told apart by all kinds of colour vision, orange speaks for the answer, and the black trace can
    be seen on both. The page's script has the same.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    limit = colour_limit(per_second)
    colours = ["#5A82C8", "white", "#F08C32"] if is_signed else ["white", "#F08C32"]
    return LinearSegmentedColormap.from_list("attribution", colours), Normalize(-limit if is_signed else 0.0, limit)


def _plot_words(axis: Any, reading: Reading, attribution: Attribution) -> None:
    """Bars over the words that are no special tokens; the answer's in a colour of their own."""
    factor = 1.0 if attribution.is_signed else 100.0
    values = factor * reading.to_words(attribution.values)
    pairs = [(word, value) for word, value in zip(reading.words, values, strict=True) if word.kind != "special"]
    count = len(pairs)
    if count > _MOST_WORDS:
        largest = sorted(range(count), key=lambda place: -abs(pairs[place][1]))[:_MOST_WORDS]
        pairs = [pairs[place] for place in sorted(largest)]
    places = np.arange(len(pairs))
    kinds = np.array([word.kind for word, _ in pairs])
    heights = np.array([value for _, value in pairs])
    for kind, colour, label in (("text", _TEXT, "question"), ("answer", _ANSWER, "answer")):
        axis.bar(places[kinds == kind], heights[kinds == kind], 0.7, color=colour, label=label)
    axis.set_xticks(places, [_shown(word) for word, _ in pairs], rotation=40, ha="right", rotation_mode="anchor")
    axis.axhline(0.0, color="black", linewidth=0.6)
    axis.set_ylabel("nats" if attribution.is_signed else "attention\n(% of all)")
    shown = f"the {_MOST_WORDS} words of {count} with the most" if count > _MOST_WORDS else "words"
    axis.set_xlabel(shown)
    axis.set_xlim(-0.6, max(len(pairs), 12) - 0.4)
    # Above the axes: within them any place may have a bar.
    axis.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.0)
    _without_frame(axis)


def _shown(word: Word) -> str:
    # A dollar would begin a formula.
    return textwrap.shorten(word.text, 18, placeholder="...").replace("$", r"\$") or "(space)"


def _heading(reading: Reading, attribution: Attribution, title: str, width: int) -> str:
    source = "given" if reading.is_given else "written by the model"
    question = f'"{reading.question}" Answer ({source}): "{reading.answer}"'
    summary = f"{summary_line(reading, attribution)} Research use only."
    lines = [title, *textwrap.wrap(question, width)[:3], attribution.title, summary]
    return "\n".join(line.replace("$", r"\$") for line in lines if line)


def summary_line(reading: Reading, attribution: Attribution) -> str:
    """How much goes to the ECG, the words and the special tokens, and how much of the ECG was shown."""
    sums = sums_by_kind(reading, attribution.values)
    if attribution.is_signed:
        parts = f"ECG {sums['ecg']:+.2f} nats, question {sums['text']:+.2f} nats"
    else:
        parts = (
            f"ECG {100 * sums['ecg']:.0f} %, question {100 * sums['text']:.0f} %, "
            f"answer {100 * sums['answer']:.0f} %, special tokens {100 * sums['special']:.0f} %"
        )
    shown = reading.signal.shape[1] / reading.sampling_rate
    cut = f"; {shown:.2f} s of {reading.seconds:.2f} s were shown" if shown < reading.seconds - 1e-9 else ""
    return f"{parts}{cut}."


def _limits(signal: np.ndarray) -> tuple[float, float]:
    """The range of a signal in mV with a margin, at least 1 mV."""
    low, high = float(signal.min()), float(signal.max())
    middle, half = (low + high) / 2.0, max((high - low) * 0.55, 0.5)
    return middle - half, middle + half


def _without_frame(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
