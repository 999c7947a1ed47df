"""One self-contained HTML page about a record: trace, tokens, question, answer, and what the answer came from.

Nothing is loaded from anywhere: style and script are in the page, and its content security policy names their hashes,
so that no other script in it would run. Every text is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from math import ceil
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ecgbyte_hf.interpretation.attribution import Attribution
from ecgbyte_hf.interpretation.attribution_figure import colour_label, colour_limit, colour_values, summary_line
from ecgbyte_hf.interpretation.figures import clinical_order
from ecgbyte_hf.interpretation.reading import Reading
from ecgbyte_hf.interpretation.token_colours import neighbour_colours
from ecgbyte_hf.provenance import versions, write_text

# ECG paper.
_MM_PER_SECOND, _MM_PER_MV = 25.0, 10.0
# Room for the lead's name and the pulse of 1 mV.
_LEFT = 22.0
_MARGIN = 4.0
_LARGE = 5.0
# Of a short ECG, which would otherwise be as wide as the window, with one lead to be seen at a time.
_MOST_PIXELS_PER_MM = 8
# A pacing spike or an artefact may reach into the next lead, as on paper; it must not push all leads apart.
_MOST_UP = 30.0
_ROW_PERCENTILES = (0.1, 99.9)


def report_page(
    reading: Reading, attributions: Sequence[Attribution], *, title: str = "ECG", model_name: str = ""
) -> str:
    """The page as HTML.

    Args:
        reading: What was read.
        attributions: What is shown of it; the first is shown at first.
        title: Such as the record's name.
        model_name: Of the model, for the page's foot.
    """
    style, script = _file("report.css"), _file("report.js")
    page = _Paper(reading)
    facts = (
        f"{len(reading.leads)} leads; {reading.signal.shape[1] / reading.sampling_rate:.2f} s of "
        f"{reading.seconds:.2f} s shown to the model; {reading.sampling_rate:g} Hz; {len(reading.ecg_ids)} ECG tokens "
        f"of {reading.num_tokens} tokens"
    )
    made_by = f"ecgbyte-hf {versions()['ecgbyte-hf'] or ''}".strip()
    return Template(_file("report.html")).substitute(
        policy=html.escape(_policy(style, script), quote=True),
        title=html.escape(title),
        style=style,
        question=html.escape(reading.question),
        answer=html.escape(reading.answer),
        answer_source="given" if reading.is_given else "written by the model",
        facts=html.escape(facts),
        choices=_choices(attributions),
        svg=page.svg(),
        footer=html.escape(f"Made by {made_by}" + (f" with the model {model_name}" if model_name else "") + "."),
        data=_json(page.data(attributions)),
        script=script,
    )


def save_report(path: str | Path, reading: Reading, attributions: Sequence[Attribution], **given: Any) -> Path:
    """Write the page of `report_page`, whole or not at all."""
    return write_text(path, report_page(reading, attributions, **given))


def _file(name: str) -> str:
    return (resources.files("ecgbyte_hf.interpretation") / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A content security policy under which this style and this script work, and nothing else does."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; base-uri 'none'; "
        "form-action 'none'"
    )


def _json(content: Any) -> str:
    """JSON that can stand in a script element: no text of it can end the element or begin a comment."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _choices(attributions: Sequence[Attribution]) -> str:
    options = [(one.method, one.title) for one in attributions]
    options += [("tokens", "tokens, a colour for each id"), ("nothing", "nothing")]
    return "".join(f'<option value="{html.escape(key)}">{html.escape(text)}</option>' for key, text in options)


class _Paper:
    """Where everything lies on the paper, in mm."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._order = clinical_order(reading.leads)
        middles = np.median(reading.signal, axis=1, keepdims=True)
        centred = reading.signal - middles
        low, high = np.percentile(centred, _ROW_PERCENTILES, axis=1)
        # Of each lead, from the pulse's 1 mV above the line, or its highest wave, to its deepest.
        above = np.minimum(_MM_PER_MV * np.maximum(high, 1.0)[self._order] + 1.0, _MOST_UP)
        below = np.minimum(_MM_PER_MV * np.maximum(-low, 0.3)[self._order] + 1.0, _MOST_UP)
        self._tops, self._lines = [_MARGIN], []
        for up, down in zip(above.tolist(), below.tolist(), strict=True):
            # Lines lie on thick ones of the grid, as on paper.
            self._lines.append(_LARGE * ceil((self._tops[-1] + up) / _LARGE))
            self._tops.append(self._lines[-1] + down)
        self._middles = middles[:, 0]
        self._mm_per_sample = _MM_PER_SECOND / reading.sampling_rate
        self._width = _LEFT + reading.signal.shape[1] * self._mm_per_sample + _MARGIN
        self._height = self._tops[-1] + _MARGIN

    def svg(self) -> str:
        """Grid, pulses, names and traces; the tokens' rectangles are made by the script."""
        names = ", ".join(html.escape(self._reading.leads[row]) for row in self._order)
        parts = [
            f'<svg id="ecg" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._width:.3f} {self._height:.3f}" '
            f'width="{self._width * _MOST_PIXELS_PER_MM:.0f}" '
            f'role="img" aria-label="ECG, leads {names}" preserveAspectRatio="xMidYMid meet">',
            self._grid(1.0, "small"),
            '<g id="tokens" fill-opacity="0.85"></g>',
            self._grid(_LARGE, "large"),
        ]
        for place, row in enumerate(self._order):
            line = self._lines[place]
            parts.append(f'<text x="1.5" y="{line - 1.5:.2f}">{html.escape(self._reading.leads[row])}</text>')
            pulse = f"M{_LEFT - 10:.2f} {line:.2f}h1.5v-{_MM_PER_MV:g}h5v{_MM_PER_MV:g}h1.5"
            parts.append(f'<path class="pulse" d="{pulse}"/>')
            parts.append(f'<path class="trace" d="{self._trace(row, line)}"/>')
        return "\n".join([*parts, "</svg>"])

    def _grid(self, step: float, name: str) -> str:
        """Lines every `step` mm, as one path."""
        across = np.arange(0.0, self._width, step)
        down = np.arange(0.0, self._height, step)
        lines = [f"M{x:g} 0V{self._height:.2f}" for x in across] + [f"M0 {y:g}H{self._width:.2f}" for y in down]
        return f'<path class="{name}" d="{"".join(lines)}"/>'

    def _trace(self, row: int, line: float) -> str:
        heights = line - _MM_PER_MV * (self._reading.signal[row] - self._middles[row])
        points = (f"{_LEFT + x * self._mm_per_sample:.2f} {y:.2f}" for x, y in enumerate(heights.tolist()))
        return "M" + "L".join(points)

    def data(self, attributions: Sequence[Attribution]) -> dict[str, Any]:
        """What the script colours and tells."""
        reading = self._reading
        places = {row: place for place, row in enumerate(self._order)}
        num_samples = reading.signal.shape[1]
        spans = []
        for token, (start, stop) in enumerate(reading.offsets.tolist()):
            while start < stop:
                row, first = divmod(start, num_samples)
                last = min(num_samples, first + stop - start)
                spans.append([places[row], first, last, token])
                start += last - first
        return {
            "leads": [reading.leads[row] for row in self._order],
            "sampling_rate": reading.sampling_rate,
            "mm_per_sample": self._mm_per_sample,
            "left": _LEFT,
            "tops": self._tops[:-1],
            "row_heights": [below - above for above, below in pairwise(self._tops)],
            "spans": spans,
            "ids": reading.ecg_ids.tolist(),
            "colours": neighbour_colours(reading.ecg_ids),
            "words": [{"text": word.text, "kind": word.kind} for word in reading.words],
            "methods": {one.method: _method(reading, one) for one in attributions},
        }


def _method(reading: Reading, one: Attribution) -> dict[str, Any]:
    """One method's values, for tokens as colours show them and for words."""
    factor = 1.0 if one.is_signed else 100.0
    per_second = colour_values(reading, one)
    lengths = (reading.offsets[:, 1] - reading.offsets[:, 0]) / reading.sampling_rate
    values = factor * one.values[reading.ecg]
    return {
        "title": one.title,
        "signed": one.is_signed,
        "unit": colour_label(one).replace("\n", " "),
        "word_unit": "nats" if one.is_signed else "% of all",
        "limit": colour_limit(per_second),
        "values": _rounded(values),
        "density": _rounded(values if one.is_per_token else values / lengths),
        "words": _rounded(factor * reading.to_words(one.values)),
        "summary": summary_line(reading, one),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]
