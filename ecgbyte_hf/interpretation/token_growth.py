"""How a token came to be: the two that were merged to it, theirs, and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgbyte_hf.interpretation.token_colours import neighbour_colours, number_colour
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, VocabularyError

if TYPE_CHECKING:
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

# All in mm.
_WIDTH, _LEFT, _RIGHT, _BOTTOM = 200.0, 20.0, 6.0, 13.0
_LEVEL, _LEVEL_GAP, _HEAD = 22.0, 3.0, 13.0
# Of a digit in 6.5 points, with room beside it.
_DIGIT = 1.6


@dataclass(frozen=True)
class TokenPart:
    """A token within another one.

    Attributes:
        index: Its id.
        start: Samples from the beginning of the whole token.
        length: Its samples.
    """

    index: int
    start: int
    length: int


def growth_levels(index: int, tokenizer: EcgByteTokenizer, *, max_levels: int = 8) -> list[list[TokenPart]]:
    """The token, the two parts that were merged to it, their parts, ...

    A part that is a symbol is in no further level.

    Args:
        index: A token's id.
        tokenizer: Its tokenizer.
        max_levels: Most levels to return.

    Raises:
        VocabularyError: the id stands for no samples.
        EcgDataError: not even one level is wanted.

    Example:
        >>> from ecgbyte_hf import EcgByteTokenizer, EcgCalibration
        >>> calibration = EcgCalibration("percentile", -1.0, 1.0)
        >>> tokenizer = EcgByteTokenizer(merges=[(3, 3), (26, 4)], calibration=calibration)
        >>> [[part.index for part in level] for level in growth_levels(27, tokenizer)]
        [[27], [26, 4], [3, 3]]
    """
    if not 0 <= index < tokenizer.num_ecg_tokens:
        raise VocabularyError(
            f"got the token {index}, expected an id from 0 to {tokenizer.num_ecg_tokens - 1}: a symbol or a merge"
        )
    if max_levels < 1:
        raise EcgDataError(f"got {max_levels} levels to draw, expected at least 1")
    bpe = tokenizer.bpe
    merges, lengths, symbols = bpe.merges, bpe.token_lengths, bpe.num_symbols
    levels = [[TokenPart(int(index), 0, int(lengths[index]))]]
    while len(levels) < max_levels:
        parts = []
        for part in levels[-1]:
            if part.index >= symbols:
                first, second = map(int, merges[part.index - symbols])
                middle = part.start + int(lengths[first])
                parts.append(TokenPart(first, part.start, int(lengths[first])))
                parts.append(TokenPart(second, middle, int(lengths[second])))
        if not parts:
            break
        levels.append(parts)
    return levels


def plot_token_growth(index: int, tokenizer: EcgByteTokenizer, *, max_levels: int = 8, title: str = "") -> Any:
    """The waveform of a token, and below it those of its parts, level by level, each in the colour of its id.

    A part has the darker shade of its colour where the one before it has the same.

    Args:
        index: The token's id.
        tokenizer: Its tokenizer.
        max_levels: Most levels to draw; how many more there are is said above.
        title: Goes before the heading.

    Returns:
        A matplotlib figure: amplitude in mV at the centres of the bins (in bins where every record has its own
        range) over time in ms. Every part has its id, where there is room.

    Raises:
        VocabularyError: the id stands for no samples.
        EcgDataError: not even one level is wanted.
    """
    from ecgbyte_hf.interpretation.canvas import MillimetreFigure

    levels = growth_levels(index, tokenizer, max_levels=max_levels)
    heights, unit = _heights(index, tokenizer)
    step = 1000.0 / tokenizer.sampling_rate
    figure = MillimetreFigure(_WIDTH, _HEAD + _BOTTOM + len(levels) * (_LEVEL + _LEVEL_GAP))
    for number, parts in enumerate(levels):
        bottom = _BOTTOM + (len(levels) - number - 1) * (_LEVEL + _LEVEL_GAP)
        axis = figure.add_mm_axes(_LEFT, bottom, _WIDTH - _LEFT - _RIGHT, _LEVEL)
        _set_axis(axis, heights, step, unit, is_last=number == len(levels) - 1)
        for part, colour in zip(parts, neighbour_colours([part.index for part in parts]), strict=True):
            _draw_part(axis, part, colour, heights, step)
    top = figure.size_mm[1]
    for line, text in enumerate(_heading(index, levels, tokenizer, title)):
        figure.text(_LEFT / _WIDTH, 1 - (4.0 + 4.5 * line) / top, text, fontsize=9 - line, va="center")
    return figure


def _heights(index: int, tokenizer: EcgByteTokenizer) -> tuple[np.ndarray, str]:
    symbols = tokenizer.bpe.decode(np.array([index], dtype=np.uint32))
    if tokenizer.calibration.method == "minmax":
        return symbols.astype(np.float64), "bin"
    return tokenizer.decode_signal(np.array([index]), num_leads=1)[0], "mV"


def _set_axis(axis: Any, heights: np.ndarray, step: float, unit: str, *, is_last: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    least = 4.0 if unit == "bin" else 0.3  # or a step of one bin looks like an R wave
    middle, half = (heights.min() + heights.max()) / 2, max(0.65 * np.ptp(heights), least / 2)
    # More room above the waveform, for the ids.
    axis.set(xlim=(0.0, len(heights) * step), ylim=(middle - half, middle + 1.3 * half), ylabel=unit)
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=unit == "bin"))
    axis.tick_params(labelsize=7, labelbottom=is_last)
    axis.yaxis.label.set_size(8)
    if is_last:
        axis.set_xlabel("time from the beginning of the token (ms)", fontsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _draw_part(axis: Any, part: TokenPart, colour: str, heights: np.ndarray, step: float) -> None:
    start, stop = part.start * step, (part.start + part.length) * step
    axis.axvspan(start, stop, facecolor=colour, edgecolor="black", linewidth=0.5, zorder=1.0)
    ink = number_colour(colour)
    shown = heights[part.start : part.start + part.length]
    edges = step * np.arange(part.start, part.start + part.length + 1)
    axis.stairs(shown, edges, baseline=None, color=ink, linewidth=1.2, zorder=2.0)
    width = (_WIDTH - _LEFT - _RIGHT) * part.length / len(heights)
    if width > _DIGIT * (len(str(part.index)) + 0.5):
        place = axis.get_xaxis_transform()
        text = {"transform": place, "fontsize": 6.5, "ha": "center", "va": "top", "color": ink}
        axis.text((start + stop) / 2, 0.97, str(part.index), **text)


def _heading(index: int, levels: list[list[TokenPart]], tokenizer: EcgByteTokenizer, title: str) -> list[str]:
    samples, symbols = levels[0][0].length, tokenizer.bpe.num_symbols
    what = "a symbol" if index < symbols else f"merge {index - symbols + 1:,} of {tokenizer.num_merges:,}"
    duration = f"{samples} sample{'s' if samples > 1 else ''}, {1000 * samples / tokenizer.sampling_rate:g} ms"
    lines = [f"{title}{': ' if title else ''}token {index}, {what}, {duration}"]
    if index < symbols:
        return lines
    hidden = any(part.index >= symbols for part in levels[-1])
    below = "each level shows the two tokens that were merged; numbers are ids"
    return [*lines, f"{below}; further levels are not shown" if hidden else below]
