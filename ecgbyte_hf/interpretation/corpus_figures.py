"""What the records that a tokenizer is learnt from were drawn from: clusters of similar ECGs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgbyte_hf.data.sampling import CorpusDraw, RecordClusters
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Okabe and Ito's palette for all kinds of colour vision, without its black and its pale yellow; the markers repeat
# what the colours say.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_MARKERS = ("o", "^", "s", "D", "v", "P")
_GREY = "#8A8A8A"
_BLUE, _ORANGE = "#0072B2", "#D55E00"
# Components of outliers lie so far out that all others would be one blot.
_SHOWN_PERCENTILES = (0.5, 99.5)
# With more bars than this, neither their numbers nor gaps between them can be seen.
_WIDE_BARS = 30


def plot_corpus_draw(draw: CorpusDraw) -> Any:
    """Four panels: elbow of the inertia, silhouette, cluster sizes before and after the draw, and the clusters.

    The last one has every record at its first two principal components; those outside the middle 99 % of either are
    not shown, and counted in the title.

    Args:
        draw: A stratified draw.

    Returns:
        A matplotlib figure.

    Raises:
        EcgDataError: the draw has no clusters.
    """
    from matplotlib.figure import Figure

    if draw.clusters is None:
        raise EcgDataError(f"a {draw.method} draw has no clusters to show; draw with method 'stratified'")
    figure = Figure(figsize=(11.0, 8.4), layout="constrained")
    axes = figure.subplots(2, 2)
    _plot_curve(axes[0, 0], draw.clusters, "inertia")
    _plot_curve(axes[0, 1], draw.clusters, "silhouette")
    _plot_sizes(axes[1, 0], draw, draw.clusters)
    _plot_components(axes[1, 1], draw.clusters)
    for axis in axes.flat:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    clusters = draw.clusters
    figure.suptitle(
        f"{len(draw.ecg_ids)} of {draw.num_candidates} records drawn from {clusters.num_clusters} clusters "
        f"({clusters.algorithm}, {len(clusters.explained_variance)} principal components with "
        f"{100 * sum(clusters.explained_variance):.0f} % of the variance)",
        fontsize=11,
    )
    return figure


def _plot_curve(axis: Any, clusters: RecordClusters, name: str) -> None:
    """Inertia or silhouette of every k that was tried, and the k that was chosen."""
    tried = [(fit.k, getattr(fit, name)) for fit in clusters.fits if getattr(fit, name) is not None]
    axis.plot([k for k, _ in tried], [value for _, value in tried], color="black", marker=".", linewidth=0.9)
    is_inertia = name == "inertia"
    candidate = clusters.elbow_k if is_inertia else clusters.silhouette_k
    values = dict(tried)
    is_search = len(tried) > 1
    if is_search and candidate in values:
        label = f"{'elbow' if is_inertia else 'best'}: k = {candidate}"
        axis.plot([candidate], [values[candidate]], "D", color=_ORANGE, markersize=8, label=label)
    chosen = min(clusters.elbow_k, clusters.silhouette_k)
    is_taken = clusters.algorithm != "dbscan"
    label = f"chosen: k = {chosen}" if is_search else f"no other tried: k = {chosen}"
    label = label if is_taken else f"k = {chosen}, not taken: DBSCAN found {clusters.num_clusters}"
    axis.axvline(chosen, color=_BLUE, linestyle="--", linewidth=1.2, label=label)
    if is_inertia and len(tried) > 2:
        axis.plot([tried[0][0], tried[-1][0]], [tried[0][1], tried[-1][1]], color=_GREY, linestyle=":", linewidth=1.0)
    axis.set_xlabel("number of clusters k")
    axis.set_ylabel("inertia (squared distance to the centre)" if is_inertia else "mean silhouette")
    axis.set_title("Elbow" if is_inertia else "Silhouette", fontsize=10)
    axis.legend(frameon=False, fontsize=9)


def _plot_sizes(axis: Any, draw: CorpusDraw, clusters: RecordClusters) -> None:
    """The share of every cluster in all records and in the draw, so that both can be read on one axis."""
    sizes, drawn = np.array(clusters.sizes), np.array(draw.drawn_sizes)
    numbers = np.arange(1, len(sizes) + 1)
    before, after = 100.0 * sizes / draw.num_candidates, 100.0 * drawn / len(draw.ecg_ids)
    if len(sizes) <= _WIDE_BARS:
        axis.bar(numbers - 0.2, before, 0.4, color=_GREY, label="all records")
        axis.bar(numbers + 0.2, after, 0.4, color=_BLUE, label="drawn")
    else:
        axis.step(numbers, before, where="mid", color=_GREY, label="all records")
        axis.step(numbers, after, where="mid", color=_BLUE, label="drawn")
    if len(sizes) <= 12:
        axis.set_xticks(numbers)
    axis.set_xlabel("cluster, the largest first")
    axis.set_ylabel("share of the records (%)")
    axis.set_title("Cluster sizes before and after the draw", fontsize=10)
    axis.legend(frameon=False, fontsize=9)


def _plot_components(axis: Any, clusters: RecordClusters) -> None:
    """Every record at its first two components: the largest clusters in colours, the others grey."""
    points, labels = clusters.components, clusters.labels
    low, high = np.percentile(points, _SHOWN_PERCENTILES, axis=0)
    is_shown = np.all((points >= low) & (points <= high), axis=1)
    is_other = (labels < 0) | (labels >= len(_COLOURS))
    size = float(np.clip(20_000.0 / len(labels), 3.0, 24.0))
    for number, (colour, marker) in enumerate(zip(_COLOURS, _MARKERS, strict=True)):
        _scatter(axis, points[is_shown & (labels == number)], colour, marker, size, f"cluster {number + 1}")
    _scatter(axis, points[is_shown & is_other], _GREY, ".", size, "others")
    shares = [100.0 * share for share in (*clusters.explained_variance, 0.0)[:2]]
    axis.set_xlabel(f"component 1 ({shares[0]:.0f} % of the variance; sd)")
    axis.set_ylabel(f"component 2 ({shares[1]:.0f} % of the variance; sd)")
    hidden = int(np.count_nonzero(~is_shown))
    axis.set_title(f"First two principal components; {hidden} records lie outside", fontsize=10)
    # Below the axes: within them any place may have records.
    axis.legend(frameon=False, fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.14), markerscale=1.6)


def _scatter(axis: Any, points: np.ndarray, colour: str, marker: str, size: float, label: str) -> None:
    if len(points):
        # Thousands of vector shapes make a PDF that no viewer scrolls.
        axis.scatter(
            *points.T,
            s=size,
            c=colour,
            marker=marker,
            linewidths=0,
            alpha=0.7,
            label=label,
            rasterized=True,
            zorder=1.0 if colour == _GREY else 2.0,
        )
