"""Tokens over an ECG: every token a coloured band where it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgbyte_hf.interpretation.figures import cleaned_signal
from ecgbyte_hf.interpretation.paper import BAND_GRID, Cell, EcgPaper, PaperStyle
from ecgbyte_hf.interpretation.token_colours import neighbour_colours, number_colour

if TYPE_CHECKING:
    from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

# Below each trace, in mm: the bar with the tokens' colours and numbers.
_BAR = 2.6
# Share of the colour behind the trace; the rest is white.
_TINT = 0.5
# Of a digit in 4 points.
_DIGIT = 0.95


@dataclass(frozen=True)
class TokenSpans:
    """The tokens, or parts of tokens, that lie in one lead.

    Attributes:
        ids: (tokens,) ids.
        colours: (tokens,) of each, `#RRGGBB`; no two neighbours have the same.
        starts: (tokens,) first sample of each in the lead.
        stops: (tokens,) the sample behind its last.
    """

    ids: np.ndarray
    colours: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    def within(self, first: int, stop: int) -> TokenSpans:
        """What of them lies between two samples."""
        kept = (self.stops > first) & (self.starts < stop)
        starts, stops = self.starts[kept].clip(first, stop), self.stops[kept].clip(first, stop)
        return TokenSpans(self.ids[kept], self.colours[kept], starts, stops)


def token_spans(ids: np.ndarray, tokenizer: EcgByteTokenizer, num_samples: int) -> dict[str, TokenSpans]:
    """Where the tokens of a signal lie, by lead; a token that goes on in the next lead is in both.

    Args:
        ids: (tokens,) of the whole signal, lead after lead.
        tokenizer: The tokenizer that gave them.
        num_samples: Samples of each lead.
    """
    lengths = tokenizer.bpe.token_lengths.astype(np.int64)[ids]
    stops = np.cumsum(lengths)
    whole = TokenSpans(ids, np.array(neighbour_colours(ids)), stops - lengths, stops)
    spans = {}
    for row, lead in enumerate(tokenizer.leads):
        offset = row * num_samples
        part = whole.within(offset, offset + num_samples)
        spans[lead] = TokenSpans(part.ids, part.colours, part.starts - offset, part.stops - offset)
    return spans


def plot_tokens(
    record: Any,
    tokenizer: EcgByteTokenizer,
    *,
    layout: str | None = None,
    speed: float = 25.0,
    gain: float = 10.0,
    seconds: float | None = None,
    title: str | None = None,
) -> Any:
    """The cleaned ECG on paper, true to scale, over its tokens.

    In the bar below the trace a token has the colour of its id (`token_colour`), or its darker shade where the token
    before it has the same colour, and its number where there is room; behind the trace the colour is paler. A token
    that goes on in the next lead ends one bar and begins another.

    Args:
        record: An `EcgRecord`, which is cleaned as the tokenizer expects, or a cleaned array (leads, samples) in mV.
        tokenizer: The tokenizer.
        layout: As for `plot_ecg`; `"rows"` shows every token, columns that follow one another in time do not.
        speed: mm per second.
        gain: mm per mV.
        seconds: Encode and draw only the beginning.
        title: By default the record's name.

    Returns:
        A matplotlib figure.

    Raises:
        EcgError: a record, a layout or a size that cannot be drawn.
    """
    shown = cleaned_signal(record, tokenizer).beginning(seconds)
    ids = tokenizer.encode_signal(shown.signal)
    count, samples = len(ids), shown.signal.size
    counted = f"{count:,} tokens for {samples:,} samples: {samples / max(count, 1):.1f} samples per token"
    style = PaperStyle(
        layout,
        speed,
        gain,
        grid=BAND_GRID,
        strip=_BAR,
        remark="colour and number: id of the token; darker: as the one before it",
    )
    name = shown.name if title is None else title
    paper = EcgPaper(shown, style, (name, counted) if name else (counted,))
    spans = token_spans(ids, tokenizer, shown.signal.shape[1])
    for cell in paper.cells:
        _draw_tokens(paper, cell, spans[cell.lead].within(cell.first, cell.stop))
    paper.draw_traces()
    return paper.figure


def _draw_tokens(paper: EcgPaper, cell: Cell, spans: TokenSpans) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba_array

    scale = paper.style.speed / paper.shown.sampling_rate
    left, right = (cell.x + scale * (ends - cell.first) for ends in (spans.starts, spans.stops))
    line = paper.lines[cell.line]
    foot = line.bottom - _BAR
    colours = to_rgba_array(spans.colours)
    for name, bottom, top, faces in (
        ("tints", line.bottom, line.top, 1.0 - _TINT * (1.0 - colours)),
        ("tokens", foot, line.bottom, colours),
    ):
        boxes = PolyCollection(
            list(_boxes(left, right, bottom, top)),
            facecolors=faces,
            linewidths=0,
            antialiaseds=False,  # or the paper shines through between two boxes
            zorder=1.0 if name == "tints" else 2.0,
            gid=f"{name}-{cell.lead}-{cell.line}",
        )
        paper.axis.add_collection(boxes, autolim=False)
    for index, colour, start, stop in zip(spans.ids, spans.colours, left, right, strict=True):
        if stop - start > _DIGIT * (len(str(index)) + 0.6):
            middle = (start + stop) / 2
            text = {"fontsize": 4, "ha": "center", "va": "bottom", "color": number_colour(colour), "zorder": 2.5}
            paper.axis.text(middle, foot + 0.6, str(index), **text)


def _boxes(left: np.ndarray, right: np.ndarray, bottom: float, top: float) -> np.ndarray:
    """Rectangles (boxes, 4, 2)."""
    x = np.stack((left, right, right, left), axis=1)
    y = np.broadcast_to((bottom, bottom, top, top), x.shape)
    return np.stack((x, y), axis=2)
