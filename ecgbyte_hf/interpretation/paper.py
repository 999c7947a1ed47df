"""The paper on which electrocardiographs draw: a grid of millimetres, a calibration pulse, leads in fixed places.

Everything is drawn in one coordinate system, in mm from the lower left corner of the figure, so that what is saved as
PDF or SVG is true to scale when it is printed without fitting it to the page. matplotlib alone does it: `ecg_plot` and
`pmecg` draw such paper, but know nothing of bands under a trace, and the second is under the GPL.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgbyte_hf.interpretation.figures import ShownSignal, clinical_order, recorded_signal
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS

if TYPE_CHECKING:
    from ecgbyte_hf.interpretation.canvas import MillimetreFigure

LAYOUTS = ("3x4", "6x2", "rows")
#: Leads of each line, by the name of the layout.
_GRIDS = {
    "3x4": tuple(CLINICAL_LEADS[line::3] for line in range(3)),
    "6x2": tuple(CLINICAL_LEADS[line::6] for line in range(6)),
}
_RHYTHM_LEAD = "II"
# The usual paper holds 10 s: a record that fits so often side by side is shown whole in each column.
_PAPER_SECONDS = 10.0
_LEAST_COLUMN_SECONDS = 2.5

# All in mm.
_MARGIN = 5.0
_BIG_BOX = 5.0
# Before the trace: 2.5 of baseline, a pulse of 5 (0.2 s at 25 mm/s), 2.5 of baseline.
_PULSE_AREA = 10.0
_PULSE = ((0.0, 0.0), (2.5, 0.0), (2.5, 1.0), (7.5, 1.0), (7.5, 0.0), (10.0, 0.0))
_LEAST_UP, _LEAST_DOWN = 7.0, 4.0
# Beyond, a trace is drawn into its neighbours, as on paper: one artefact must not make a page of a metre.
_MOST_UP = 50.0
_BETWEEN_LINES = 2.0
_NAME_HEIGHT, _NAME_WIDTH = 3.6, 9.0
_TEXT_LINE = 4.0
# A figure of 1,600 mm is 16,000 pixels wide, the most that viewers take.
_MOST_WIDTH = 1600.0
# Of a character in 8 points, and in 9 points bold, on average; 1.4 and 1.9 were measured.
_CHARACTER, _BOLD_CHARACTER = 1.6, 2.2

_BLACK = "#000000"


@dataclass(frozen=True)
class GridColours:
    """Lines of the grid: every mm, and every fifth."""

    thin: str
    thick: str


PAPER_GRID = GridColours("#F7DAD6", "#EBA9A1")
#: Over coloured bands: darker than any of them.
BAND_GRID = GridColours("#00000018", "#00000038")


@dataclass(frozen=True)
class Cell:
    """A part of a lead and its place on the paper.

    Attributes:
        lead: Name.
        row: Of the signal.
        line: Of the paper, the uppermost is 0.
        first: Sample with which it begins.
        stop: Sample behind its last.
        x: Where the first sample is drawn, mm.
    """

    lead: str
    row: int
    line: int
    first: int
    stop: int
    x: float


@dataclass(frozen=True)
class Line:
    """A line of the paper, in mm.

    Attributes:
        baseline: Height of 0 mV (of the lead's median) above the figure's lower edge.
        top: Upper end of what is drawn in it.
        bottom: Lower end.
    """

    baseline: float
    top: float
    bottom: float


@dataclass(frozen=True)
class PaperStyle:
    """How a paper is made.

    Attributes:
        layout: A name of `LAYOUTS`; None chooses by leads and duration.
        speed: mm per second.
        gain: mm per mV.
        grid: Colours.
        strip: Room in mm below the trace of each line, for something else.
        remark: Ends the line at the foot of the paper.
    """

    layout: str | None = None
    speed: float = 25.0
    gain: float = 10.0
    grid: GridColours = PAPER_GRID
    strip: float = 0.0
    remark: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.layout is not None and self.layout not in LAYOUTS:
            raise EcgDataError(f"got the layout {self.layout!r}, expected one of {', '.join(LAYOUTS)}")
        for name, value, unit in (("speed", self.speed, "mm/s"), ("gain", self.gain, "mm/mV")):
            if not 1.0 <= value <= 200.0:
                raise EcgDataError(f"got {name} {value:g} {unit}, expected 1 to 200, usually 25 mm/s and 10 mm/mV")


def plot_ecg(
    record: Any,
    *,
    leads: Sequence[str] | None = None,
    sampling_rate: float | None = None,
    layout: str | None = None,
    speed: float = 25.0,
    gain: float = 10.0,
    seconds: float | None = None,
    title: str | None = None,
) -> Any:
    """An ECG on paper, true to scale, leads in clinical order.

    Args:
        record: An `EcgRecord`, or a float array (leads, samples) in mV with `leads` and `sampling_rate`.
        leads: Names of an array's rows.
        sampling_rate: Hz of an array.
        layout: `"3x4"` with lead II below as rhythm strip, `"6x2"`, or `"rows"`, each lead in one line. By default
            3x4 for 12 leads of 10 s and more or of up to 2.5 s, 6x2 for those between, rows for other leads. Columns
            follow one another in time; a record that fits whole into each column is shown so.
        speed: mm per second.
        gain: mm per mV.
        seconds: Draw only the beginning.
        title: By default the record's name.

    Returns:
        A matplotlib figure. Each lead is drawn about its median.

    Raises:
        EcgError: a signal, a layout or a size that cannot be drawn.
    """
    shown = recorded_signal(record, leads=leads, sampling_rate=sampling_rate).beginning(seconds)
    paper = EcgPaper(shown, PaperStyle(layout, speed, gain), (shown.name if title is None else title,))
    paper.draw_traces()
    return paper.figure


@dataclass(frozen=True)
class EcgPaper:
    """A sheet with its grid, calibration pulses and lead names; traces are drawn by `draw_traces`.

    Args:
        shown: The signal.
        style: How it is drawn.
        heading: Paragraphs above.
    """

    shown: ShownSignal
    style: PaperStyle = PaperStyle()
    heading: tuple[str, ...] = ()

    # ---- what goes where --------------------------------------------------------------------------------------

    @cached_property
    def layout(self) -> str:
        """The layout that is taken."""
        if self.style.layout is not None:
            return self.style.layout
        if set(self.shown.leads) != set(CLINICAL_LEADS):
            return "rows"
        return "6x2" if _LEAST_COLUMN_SECONDS < self.shown.seconds < _PAPER_SECONDS else "3x4"

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All parts of leads, line by line.

        Raises:
            EcgDataError: a lead that has no place in this layout, a lead twice, or a paper that is too wide.
        """
        rows = {lead: row for row, lead in enumerate(self.shown.leads)}
        if len(rows) < len(self.shown.leads):
            raise EcgDataError(f"a lead is there twice: got {', '.join(self.shown.leads)}; draw each once")
        samples = self.shown.signal.shape[1]
        if self.layout == "rows":
            lines = [[(lead, 0, samples)] for lead in (self.shown.leads[i] for i in clinical_order(self.shown.leads))]
        else:
            lines = self._grid_lines(samples)
        cells = []
        for line, parts in enumerate(lines):
            x = _MARGIN + _PULSE_AREA
            for lead, first, stop in parts:
                if lead in rows:
                    cells.append(Cell(lead, rows[lead], line, first, stop, x))
                x += self._length(stop - first)
        width = max(cell.x + self._length(cell.stop - cell.first) for cell in cells)
        if width > _MOST_WIDTH:
            raise EcgDataError(
                f"the paper would be {width:.0f} mm wide, expected at most {_MOST_WIDTH:.0f}; give seconds"
            )
        return tuple(cells)

    def _grid_lines(self, samples: int) -> list[list[tuple[str, int, int]]]:
        """Lead, first sample and the one behind the last, of each column of each line that is not empty."""
        grid = _GRIDS[self.layout]
        if strange := [lead for lead in self.shown.leads if lead not in CLINICAL_LEADS]:
            raise EcgDataError(f"{', '.join(strange)} has no place in the layout {self.layout}; use the layout rows")
        columns = len(grid[0])
        follow = self._columns_follow
        ends = [samples * column // columns for column in range(columns + 1)]
        spans = list(zip(ends[:-1], ends[1:], strict=True)) if follow else [(0, samples)] * columns
        there = set(self.shown.leads)
        lines = [
            [(lead, *span) for lead, span in zip(leads, spans, strict=True)] for leads in grid if there & {*leads}
        ]
        if follow and _RHYTHM_LEAD in there:
            lines.append([(_RHYTHM_LEAD, 0, samples)])
        return lines

    @cached_property
    def _columns_follow(self) -> bool:
        """Whether columns follow one another in time; else each shows the whole record."""
        return self.shown.seconds * len(_GRIDS[self.layout][0]) > _PAPER_SECONDS * (1 + 1e-9)

    def _length(self, samples: float) -> float:
        return samples / self.shown.sampling_rate * self.style.speed

    @cached_property
    def medians(self) -> np.ndarray:
        """The level in mV about which each row is drawn; 0 where there is no number."""
        signal = self.shown.signal
        return np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in signal])

    def heights(self, cell: Cell) -> np.ndarray:
        """Height of each sample above the baseline, mm."""
        values = self.shown.signal[cell.row, cell.first : cell.stop].astype(np.float64)
        return (values - self.medians[cell.row]) * self.style.gain

    @cached_property
    def _extents(self) -> list[tuple[float, float]]:
        """How far each line reaches above and below its baseline, mm."""
        extents = [(max(_LEAST_UP, self.style.gain + 1.0), _LEAST_DOWN)] * (self.cells[-1].line + 1)
        for cell in self.cells:
            heights = self.heights(cell)
            heights = heights[np.isfinite(heights)]
            top = max(heights.max(initial=0.0), self._name_height(cell) + _NAME_HEIGHT) + 0.5
            up, down = extents[cell.line]
            extents[cell.line] = max(up, min(top, _MOST_UP)), max(down, min(-heights.min(initial=0.0) + 1.0, _MOST_UP))
        return extents

    def _name_height(self, cell: Cell) -> float:
        """Where the name of a cell stands: just above its trace there."""
        beginning = self.heights(cell)[: ceil(_NAME_WIDTH / self.style.speed * self.shown.sampling_rate)]
        beginning = beginning[np.isfinite(beginning)]
        return min(max(3.0, beginning.max(initial=0.0) + 1.0), _MOST_UP - _NAME_HEIGHT)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The lines from above, their baselines on thick lines of the grid."""
        depths: list[float] = []
        depth, below = 0.0, 0.0
        for line, (up, down) in enumerate(self._extents):
            depth = _up_to_box(depth + below + up + (_BETWEEN_LINES if line else 0.0))
            depths.append(depth)
            below = down + self.style.strip
        height = self._grid_bottom + _up_to_box(depth + below)
        return tuple(
            Line(height - depth, height - depth + up, height - depth - down)
            for depth, (up, down) in zip(depths, self._extents, strict=True)
        )

    @property
    def _grid_bottom(self) -> float:
        return _MARGIN + _TEXT_LINE * len(self._foot)

    @property
    def _grid_top(self) -> float:
        return _up_to_box(self.lines[0].top - self._grid_bottom) + self._grid_bottom

    @cached_property
    def _grid_right(self) -> float:
        end = max(cell.x + self._length(cell.stop - cell.first) for cell in self.cells)
        return _MARGIN + _up_to_box(end - _MARGIN + 1.0)

    @cached_property
    def _foot(self) -> list[str]:
        style = self.style
        scale = f"{style.speed:g} mm/s   {style.gain:g} mm/mV   {self.shown.sampling_rate:g} Hz"
        if self.layout != "rows":
            scale += f"   columns {'follow one another' if self._columns_follow else 'begin together'} in time"
        return self._wrapped(f"{scale}   {style.remark}".rstrip())

    @cached_property
    def _head(self) -> list[str]:
        sizes = (_BOLD_CHARACTER, *(_CHARACTER for _ in self.heading[1:]))
        pairs = zip(self.heading, sizes, strict=True) if self.heading else ()
        return [line for paragraph, size in pairs for line in self._wrapped(paragraph, size)]

    def _wrapped(self, text: str, character: float = _CHARACTER) -> list[str]:
        return textwrap.wrap(text, max(10, int((self._grid_right - _MARGIN) / character)))

    # ---- drawing ----------------------------------------------------------------------------------------------

    @cached_property
    def figure(self) -> MillimetreFigure:
        """The sheet."""
        from ecgbyte_hf.interpretation.canvas import MillimetreFigure

        top = self._grid_top + 2.0 + _TEXT_LINE * len(self._head) + (1.0 if self._head else 3.0)
        return MillimetreFigure(self._grid_right + _MARGIN, top)

    @cached_property
    def axis(self) -> Any:
        """The only axes, in mm from the lower left corner of the figure; the grid, pulses and names are in it."""
        width, height = self.figure.size_mm
        axis: Any = self.figure.add_mm_axes(0.0, 0.0, width, height)
        axis.set(xlim=(0.0, width), ylim=(0.0, height))
        axis.set_axis_off()
        self._draw_grid(axis)
        self._draw_texts(axis)
        for number, line in enumerate(self.lines):
            x, y = np.array(_PULSE).T * ((1.0,), (self.style.gain,))
            axis.plot(_MARGIN + x, line.baseline + y, color=_BLACK, linewidth=0.7, gid=f"pulse-{number}")
        return axis

    def _draw_grid(self, axis: Any) -> None:
        from matplotlib.collections import LineCollection

        left, right, bottom, top = _MARGIN, self._grid_right, self._grid_bottom, self._grid_top
        for colour, is_thick, width in ((self.style.grid.thin, False, 0.25), (self.style.grid.thick, True, 0.45)):
            across = [x for x in range(round(right - left) + 1) if (x % 5 == 0) == is_thick]
            upward = [y for y in range(round(top - bottom) + 1) if (y % 5 == 0) == is_thick]
            lines = [((left + x, bottom), (left + x, top)) for x in across]
            lines += [((left, bottom + y), (right, bottom + y)) for y in upward]
            axis.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=1.5), autolim=False)

    def _draw_texts(self, axis: Any) -> None:
        for number, text in enumerate(self._head):
            y = self._grid_top + 2.0 + _TEXT_LINE * (len(self._head) - number - 1)
            axis.text(_MARGIN, y, text, fontsize=9 if number == 0 else 8, weight="bold" if number == 0 else "normal")
        for number, text in enumerate(self._foot):
            axis.text(_MARGIN, _MARGIN - 2.5 + _TEXT_LINE * (len(self._foot) - number - 1), text, fontsize=8)

    def draw_traces(self, colour: str = _BLACK) -> None:
        """Every lead in its place, with its name, and a mark where one lead follows another in a line."""
        from matplotlib.patheffects import withStroke

        halo = [withStroke(linewidth=2.0, foreground="white")]
        for cell in self.cells:
            line, heights = self.lines[cell.line], self.heights(cell)
            x = cell.x + self._length(1.0) * np.arange(len(heights))
            self.axis.plot(
                x,
                line.baseline + heights,
                color=colour,
                linewidth=0.7,
                gid=f"trace-{cell.lead}-{cell.line}",
                zorder=3.0,
            )
            y = line.baseline + self._name_height(cell)
            self.axis.text(cell.x + 1.0, y, cell.lead, fontsize=9, weight="bold", zorder=5.0, path_effects=halo)
            if cell.x > _MARGIN + _PULSE_AREA:
                ends = line.baseline - 2.0, line.baseline + 2.0
                self.axis.plot([cell.x, cell.x], ends, color=_BLACK, linewidth=0.7, zorder=3.0)


def _up_to_box(length: float) -> float:
    """The next multiple of the grid's large boxes."""
    return ceil(length / _BIG_BOX - 1e-9) * _BIG_BOX
