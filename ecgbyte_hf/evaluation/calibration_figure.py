"""The reliability diagram: how often "yes" is right where a system gives it some probability."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgbyte_hf.interpretation.figures import save_figure

# The first for the model; from Okabe and Ito's palette, which people with colour blindness can tell apart.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


# A bin of fewer questions is drawn hollow: its share may be far off by chance.
_FEW = 20


def plot_calibration(labels: Mapping[str, Any]) -> Any:
    """A line for each system over the diagonal of perfect calibration, and below how many questions are in each bin.

    Args:
        labels: Part `labels` of a report; systems without probabilities are left out.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    fits = {name: one["calibration"] for name, one in labels["systems"].items() if "calibration" in one}
    figure = Figure(figsize=(6.0, 7.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1.0, linestyle="--", label="perfect")
    width = 0.8 / max(len(fits), 1)
    for number, (name, fit) in enumerate(fits.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        filled = [one for one in fit["bins"] if one["n"]]
        above.plot(
            [one["mean_probability"] for one in filled],
            [one["share_of_yes"] for one in filled],
            color=colour,
            linewidth=2.0 if number == 0 else 1.2,
            label=f"{name}: ECE {fit['ece']:.3f}, Brier {fit['brier']:.3f}",
        )
        above.scatter(
            [one["mean_probability"] for one in filled],
            [one["share_of_yes"] for one in filled],
            s=30,
            edgecolors=colour,
            facecolors=[colour if one["n"] >= _FEW else "white" for one in filled],
            zorder=3,
        )
        size = fit["bins"][0]["to"] - fit["bins"][0]["from"]
        places = [one["from"] + size * (0.1 + width * (number + 0.5)) for one in fit["bins"]]
        below.bar(places, [one["n"] for one in fit["bins"]], width=size * width, color=colour)
    above.set_ylabel(f"share of questions whose answer is yes (hollow: fewer than {_FEW})")
    above.set_ylim(-0.02, 1.02)
    above.legend(loc="upper left", frameon=False, fontsize=9)
    below.set_xlabel("probability of yes")
    below.set_ylabel("questions")
    below.set_xlim(0.0, 1.0)
    for axis in (above, below):
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.suptitle(f"Calibration on {next(iter(fits.values()))['n']} yes/no questions", fontsize=11)
    return figure


def save_calibration(labels: Mapping[str, Any], path: str | Path) -> Path:
    """Draw and save; the ending of the path decides the format."""
    return save_figure(plot_calibration(labels), path)
