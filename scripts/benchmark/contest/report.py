"""Tables and the figure, from the rows alone."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest.rows import Row

START, END = "<!-- benchmark:start -->", "<!-- benchmark:end -->"
CORPORA = ("simulated", "real")
FIGURE = "tokenizer.png"

# Okabe and Ito's colours, which most colour-blind readers can tell apart; one for a contestant in both panels.
_BLUE, _SKY, _RED, _GREEN = "#0072B2", "#56B4E9", "#D55E00", "#009E73"
_PURPLE, _ORANGE, _GREY = "#CC79A7", "#E69F00", "#555555"


def text_of(results: dict[str, Any], figure: str | None = None) -> str:
    """Markdown: what was measured, the tables, and the figure if its path is given."""
    parts = results["parts"]
    blocks = []
    for name, table in (("train", training_table), ("encode", encoding_table), ("scale", scale_table)):
        if parts.get(name, {}).get("rows"):
            part = parts[name]
            tokens = _tokens_per_record(part["rows"]) if name == "encode" else ""
            blocks += [_caption(name, part), table(part["rows"]), tokens, _notes(part["rows"])]
    if figure is not None:
        blocks.append(f"![Training time against the size of the corpus, and encoding speed against length]({figure})")
    return "\n\n".join(block for block in blocks if block) + "\n"


def summary_of(results: dict[str, Any], table: str, figure: str) -> str:
    """Markdown for a README: every contestant on one thread, on real records where they were measured.

    Args:
        results: of the measurements.
        table: link to the whole tables, named at the end.
        figure: link to the figure.
    """
    parts = results["parts"]
    blocks = []
    for name, one_table in (("train", _training_summary), ("encode", _encoding_summary)):
        rows = [row for row in parts.get(name, {}).get("rows", ()) if row["threads"] == 1 and row["status"] == "ok"]
        corpora = _names(rows, "corpus", CORPORA)
        if corpora:
            corpus = corpora[-1]
            blocks += [
                f"{_caption(name, parts[name])} One thread, {corpus} records.",
                one_table([row for row in rows if row["corpus"] == corpus]),
            ]
    scale = [row for row in parts.get("scale", {}).get("rows", ()) if row["contestant"] == "ours"]
    largest = max((row for row in scale if row["status"] == "ok"), key=lambda row: row["symbols"], default=None)
    if largest is not None:
        blocks.append(
            f"On {largest['records']:,} records, {largest['symbols'] / 1e9:g}e9 symbols, training takes "
            f"{_figures(largest['seconds'])} s on {_threads(largest['threads'])} and {_bytes(largest['peak_bytes'])}."
        )
    blocks.append(f"![Training time against the size of the corpus, and encoding speed against length]({figure})")
    blocks.append(f"[All corpora, threads and batches]({table}).")
    return "\n\n".join(blocks) + "\n"


def _training_summary(rows: Sequence[Row]) -> str:
    header = ["trainer", "s", "x ours", "memory", "tokens as ours"]
    lines = [
        [row["label"], _figures(row["seconds"]), _ratio(row), _bytes(_above_baseline(row)), _agreement(row)]
        for row in rows
    ]
    return _table(header, lines)


def _encoding_summary(rows: Sequence[Row]) -> str:
    header = ["encoder", "MB/s", "us per record", "x ours", "ids as ours"]
    lines = [
        [
            row["label"],
            _figures(row["symbols_per_second"] / 1e6),
            _figures(row["record_symbols"] / row["symbols_per_second"] * 1e6),
            _ratio(row),
            _same_ids(row),
        ]
        for row in rows
        if "batch" not in row["label"]
    ]
    return _table(header, lines)


def _caption(name: str, part: dict[str, Any]) -> str:
    arguments, machine = part["provenance"]["arguments"], part["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores"
    symbols = f"{arguments['records']} records of 12 x 2500 symbols"
    runs = f"median of {arguments['repeat']}" if arguments["repeat"] > 1 else "one run"
    slow = f" (what takes over {arguments['repeat_under']:g} s: one run)" if arguments["repeat"] > 1 else ""
    if name == "train":
        return (
            f"**Training**, {arguments['merges']:,} merges on {symbols}; {where}; {runs}{slow}. Time in units of ours "
            "on one thread; memory above what the process had with the records loaded."
        )
    if name == "encode":
        return (
            f"**Encoding** {arguments['held_out']} records that the vocabulary of {arguments['merges']:,} merges was "
            f"not learnt from; {where}; {runs}. A record has 12 x 2500 symbols; MB/s is million symbols per second; "
            "time in units of ours with the same algorithm on one thread."
        )
    return (
        f"**The paper's corpus**: {arguments['merges']:,} merges, records from a generator that keeps none; {where}; "
        "one run each. Training is the time outside the generator; memory is the whole process's."
    )


def training_table(rows: Sequence[Row]) -> str:
    """Contestants by corpora: time, ratio, memory, agreement with ours."""
    names = _names(rows, "corpus", CORPORA)
    header = ["trainer", "threads"]
    for name in names:
        header += [f"{name}: s", "x ours", "memory", "tokens as ours"]
    lines = []
    for group in _grouped(rows, names):
        first = next(iter(group.values()))
        line = [first["label"], str(first["threads"])]
        for name in names:
            row = group.get(name)
            line += _cells(
                row,
                lambda row: [_figures(row["seconds"]), _ratio(row), _bytes(_above_baseline(row)), _agreement(row)],
                4,
            )
        lines.append(line)
    return _table(header, lines)


def encoding_table(rows: Sequence[Row]) -> str:
    """Contestants by corpora: speed, ratio, agreement with ours."""
    names = _names(rows, "corpus", CORPORA)
    header = ["encoder", "threads"]
    for name in names:
        header += [f"{name}: MB/s", "us per record", "x ours", "ids as ours"]
    lines = []
    for group in _grouped(rows, names):
        first = next(iter(group.values()))
        line = [first["label"], str(first["threads"])]
        for name in names:
            line += _cells(
                group.get(name),
                lambda row: [
                    _figures(row["symbols_per_second"] / 1e6),
                    _figures(row["record_symbols"] / row["symbols_per_second"] * 1e6),
                    _ratio(row),
                    _same_ids(row),
                ],
                4,
            )
        lines.append(line)
    return _table(header, lines)


def scale_table(rows: Sequence[Row]) -> str:
    """Sizes: time and memory of ours, and what the plain trainer says of the merges."""
    header = [
        "records",
        "symbols",
        "trainer",
        "threads",
        "generator s",
        "training s",
        "peak memory",
        "bytes per symbol",
        "different records",
        "merges as the plain trainer's",
    ]
    plain = {row["symbols"]: row for row in rows if row["contestant"] == "plain"}
    lines = []
    for row in rows:
        line = [f"{row['records']:,}", f"{row['symbols'] / 1e9:g}e9", row["label"], str(row["threads"])]
        check = plain.get(row["symbols"], {})
        line += _cells(
            row,
            lambda row, check=check: [
                _figures(row["generator_seconds"]) if "generator_seconds" in row else "",
                _figures(row["seconds"]),
                _bytes(row["peak_bytes"]),
                f"{_above_baseline(row) / row['symbols']:.2f}",
                f"{row['distinct_records']:,}" if "distinct_records" in row else "",
                _checked(check) if row["contestant"] == "ours" else "",
            ],
            6,
        )
        lines.append(line)
    return _table(header, lines)


def _checked(check: Row) -> str:
    if "same_merges" not in check:
        return "not compared" if not check else f"not compared: {check.get('reason') or check['status']}"
    return f"{'all' if check['same_merges'] else 'NOT all'} of the first {check['learnt']:,}"


def _cells(row: Row | None, cells: Any, count: int) -> list[str]:
    """A row's cells; where there is no measurement, its status."""
    if row is None:
        return [""] * count
    if row["status"] != "ok":
        return [
            {"limit": row["reason"], "cannot": "cannot (below)"}.get(row["status"], row["status"] + " (below)"),
            *[""] * (count - 1),
        ]
    return list(cells(row))


def _notes(rows: Sequence[Row]) -> str:
    """Why a cell has no number, each reason once."""
    notes: dict[str, None] = {}
    for row in rows:
        if row["status"] not in ("ok", "limit"):
            reason = str(row["reason"]).replace("\n", " ")
            notes[f"- {row['label']}: {reason.rstrip('.')}."] = None
    return "\n".join(notes)


def _names(rows: Sequence[Row], key: str, order: Sequence[str]) -> list[str]:
    there = {row[key] for row in rows}
    return [name for name in order if name in there]


def _grouped(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Row]]:
    """The corpora's rows of each contestant, in the order of appearance."""
    groups: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        if row["corpus"] in names:
            groups.setdefault((row["contestant"], row["threads"]), {})[row["corpus"]] = row
    return list(groups.values())


def _above_baseline(row: Row) -> int:
    return int(row["peak_bytes"] - row["baseline_bytes"])


def _agreement(row: Row) -> str:
    if row.get("same_merges"):
        return "all, same merges"
    if "same_vocabulary" not in row:
        return "not compared"
    share = row["same_vocabulary"]
    return "all" if share == 1 else f"{math.floor(1000 * share) / 10:.1f} %"


def _tokens_per_record(rows: Sequence[Row]) -> str:
    """One sentence: what both of our encodings make of a record."""
    said = [
        f"{row['tokens_per_record']:,.0f} ({row['corpus']}, {words})"
        for row in rows
        for name, words in (("ours_greedy", "greedy"), ("ours_bpe", "rank order"))
        if row["contestant"] == name and row["status"] == "ok"
    ]
    return f"Tokens per record: {', '.join(said)}." if said else ""


def _same_ids(row: Row) -> str:
    answer = "yes" if row["same_ids"] else "no"
    return answer if row["compared"] == row["held_out_records"] else f"{answer} ({row['compared']} compared)"


def _ratio(row: Row) -> str:
    return _figures(row["times_ours"]) if "times_ours" in row else "not compared"


def _figures(value: float) -> str:
    """Three significant figures and no powers of ten; from 100 on, whole numbers."""
    decimals = 0 if value >= 100 or value <= 0 else 2 - math.floor(math.log10(value))
    return f"{value:,.{decimals}f}"


def _bytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    ruled = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in ruled)


def replace_between_markers(text: str, block: str) -> str:
    """`text` with `block` between the markers.

    Raises:
        ValueError: the markers are not there once each, in order.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end or START in rest or END in after:
        raise ValueError(f"expected one line {START} and after it one line {END}; add them where the table belongs")
    return f"{before}{START}\n{block.strip()}\n{END}{after}"


def write_readme(readme: Path, results: dict[str, Any], table: Path, figure: Path) -> None:
    """Put the summary, with links to the tables and of the figure, between the markers of a README."""
    from ecgbyte_hf.provenance import write_text

    links = [os.path.relpath(path.resolve(), readme.resolve().parent).replace(os.sep, "/") for path in (table, figure)]
    text = readme.read_text(encoding="utf-8")
    write_text(readme, replace_between_markers(text, summary_of(results, *links)))


# ---- figure -----------------------------------------------------------------------------------------------------

_TRAINERS = {
    "ours": ("rust_bpe", _BLUE, "-"),
    "plain": ("plain", _GREY, "-"),
    "rustbpe": ("rustbpe", _PURPLE, "-"),
    "sentencepiece": ("sentencepiece", _ORANGE, "-"),
    "tokenizers": ("tokenizers", _RED, "-"),
    "tokenizers_leads": ("tokenizers, leads as words", _RED, "--"),
}
_ENCODERS = {
    "ours_greedy": ("rust_bpe greedy", _BLUE, "-"),
    "ours_bpe": ("rust_bpe rank order", _SKY, "-"),
    "stock": ("tokenizers, tokenizer.json", _RED, "-"),
    "tokenizers_bpe": ("tokenizers, BPE model", _RED, "--"),
    "tiktoken": ("tiktoken", _GREEN, "-"),
}


def draw(results: dict[str, Any], path: Path) -> Path:
    """Log-log panels for simulated records: training and encoding, and below them the paper's corpus if measured."""
    from matplotlib.figure import Figure

    from ecgbyte_hf.interpretation.figures import save_figure

    rows = [row for part in results["parts"].values() for row in part["rows"] if "symbols_per_second" in row]
    rows = [row for row in rows if row.get("corpus", "simulated") == "simulated"]
    scale = [row for row in rows if row["part"] == "scale" and row["contestant"] == "ours"]
    figure = Figure(figsize=(11.0, 7.8 if scale else 4.4), layout="constrained")
    axes = figure.subplots(2 if scale else 1, 2, squeeze=False, height_ratios=(4, 3) if scale else (1,))

    training = [row for row in rows if row["part"] in ("train", "train-lengths")]
    _panel(axes[0, 0], _training_lines(training), "symbols in the corpus", "training time (s)")
    encoding = [row for row in rows if row["part"] == "encode-lengths"]
    lines = [
        _Line(label, colour, style, _points(encoding, name, lambda row: row["symbols_per_second"] / 1e6))
        for name, (label, colour, style) in _ENCODERS.items()
    ]
    _panel(axes[0, 1], lines, "symbols in one sequence", "encoding speed (million symbols/s)")
    if scale:
        label = f"rust_bpe, {_threads(scale[0]['threads'])}"
        seconds = _Line(label, _BLUE, "-", _points(scale, "ours", lambda row: row["seconds"]))
        making = _Line("making the records", _GREY, "-", _points(scale, "ours", lambda row: row["generator_seconds"]))
        _panel(axes[1, 0], [seconds, making], "symbols in the corpus", "time (s)")
        memory = _Line(label, _BLUE, "-", _points(scale, "ours", lambda row: row["peak_bytes"] / 1e9))
        _panel(axes[1, 1], [memory], "symbols in the corpus", "peak memory (GB)")
    return save_figure(figure, path)


@dataclass(frozen=True)
class _Line:
    label: str
    colour: str
    style: str
    points: list[tuple[float, float]]


def _points(rows: Sequence[Row], contestant: str, value: Callable[[Row], float]) -> list[tuple[float, float]]:
    """(symbols, value) of a contestant's rows, by symbols."""
    return sorted({row["symbols"]: value(row) for row in rows if row["contestant"] == contestant}.items())


def _training_lines(rows: Sequence[Row]) -> list[_Line]:
    """One line for a contestant on one thread, and ours on the most threads as well."""
    most = max((row["threads"] for row in rows if row["contestant"] == "ours"), default=1)
    lines = []
    for name, (label, colour, style) in _TRAINERS.items():
        for threads in sorted({1, most}) if name == "ours" else [1]:
            chosen = [row for row in rows if row["threads"] == threads]
            is_several = name == "ours" and most > 1
            lines.append(
                _Line(
                    f"{label}, {_threads(threads)}" if is_several else label,
                    _SKY if is_several and threads > 1 else colour,
                    style,
                    _points(chosen, name, lambda row: row["seconds"]),
                )
            )
    return lines


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _panel(axis: Any, lines: Sequence[_Line], across: str, up: str) -> None:
    """Lines with their names at their ends."""
    lines = [line for line in lines if line.points]
    axis.set_xlabel(across)
    axis.set_ylabel(up)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if not lines:
        axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes, color=_GREY)
        return
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(lambda value, _: "")
    axis.grid(True, which="major", color="#E5E5E5", linewidth=0.6)
    axis.set_axisbelow(True)
    lengths, values = zip(*(point for line in lines for point in line.points), strict=True)
    axis.set_xlim(min(lengths) / 1.3, max(lengths) * 1.3)
    axis.set_ylim(min(values) / 2, max(values) * 2)
    for line in lines:
        width = 2.2 if line.label.startswith("rust_bpe") else 1.4
        axis.plot(
            *zip(*line.points, strict=True), line.style, color=line.colour, linewidth=width, marker="o", markersize=3.5
        )
    # A name takes about a fifteenth of the axis' height.
    heights = _spread([line.points[-1][1] for line in lines], math.log10(4 * max(values) / min(values)) / 15)
    beside = (max(lengths) / min(lengths)) ** 0.03
    for line, height in zip(lines, heights, strict=True):
        place = (line.points[-1][0] * max(beside, 1.05), height)
        axis.annotate(line.label, xy=place, va="center", fontsize=9, color=line.colour, annotation_clip=False)


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Heights near the values, in their order, and at least `gap` (a power of ten) apart."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    heights = [math.log10(values[index]) for index in order]
    for _ in range(200):
        for below in range(len(heights) - 1):
            push = (gap - (heights[below + 1] - heights[below])) / 2
            if push > 0:
                heights[below] -= push
                heights[below + 1] += push
    return [10**height for _, height in sorted(zip(order, heights, strict=True))]
