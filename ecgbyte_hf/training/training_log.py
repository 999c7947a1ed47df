"""How the loss went: `training_log.json` and `loss.png` in a trained model's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.fingerprints import weights_fingerprint
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.provenance import provenance, read_object, write_json

logger = logging.getLogger(__name__)

LOG_FILE = "training_log.json"
FIGURE_FILE = "loss.png"
# Okabe and Ito's blue and vermilion, for all kinds of colour vision.
_BLUE, _ORANGE = "#0072B2", "#D55E00"

History = Sequence[dict[str, Any]]


def write_training_log(
    folder: str | Path,
    history: History,
    arguments: dict[str, Any],
    *,
    origin: Mapping[str, Any] | None = None,
    model: Any = None,
    merged: str | Path | None = None,
) -> Path:
    """Write the trainer's log as JSON, and the curve of its losses where matplotlib is installed.

    Args:
        folder: Folder of the trained model.
        history: The trainer's `state.log_history`, from the first step on, before a break too.
        arguments: Options of the training.
        origin: Of the rows, as `origin_of_rows` has it.
        model: The trained model; how many parameters it has is noted.
        merged: Folder of the adapter and its base as one model, where that was made.

    The weights that lie in `folder` and `merged` are noted by their hashes: a card quotes the log of these alone.

    Returns:
        The JSON file.
    """
    hashed = {"data_hash": None, "data_source": None}
    noted = {"weights": weights_fingerprint(folder)}
    if merged is not None:
        noted["merged_weights"] = weights_fingerprint(merged)
    block = provenance("sft", arguments, **hashed | dict(origin or {}) | noted)
    content: dict[str, Any] = {"history": list(history), "provenance": block}
    if model is not None:
        content["parameters"] = count_parameters(model)
    path = write_json(Path(folder) / LOG_FILE, content)
    if losses(history, "loss"):
        _draw(history, Path(folder) / FIGURE_FILE)
    return path


def copy_log_for_merged(adapter: str | Path, merged: str | Path) -> Path | None:
    """Copy an adapter's log beside the model that it was merged into, and note that model's weights in the copy.

    Returns:
        The copy; `None` where the adapter has no log. In the copy of a log about another adapter, or of an older
        version that does not say which, nothing is noted.
    """
    content = read_object(Path(adapter) / LOG_FILE)
    if content is None:
        return None
    block = content.get("provenance")
    if not isinstance(block, dict):
        block = {}
    noted = block.get("weights")
    if noted is not None and noted == weights_fingerprint(adapter):
        block["merged_weights"] = weights_fingerprint(merged)
    return write_json(Path(merged) / LOG_FILE, content)


def count_parameters(model: Any) -> dict[str, int]:
    """How many numbers of a model training can change (`trainable`), and how many there are (`all`).

    Weights that two layers share count once, and a module that PEFT trains whole without its untrained original.
    """
    counted = {
        id(parameter): parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if "original_module" not in name.split(".")
    }
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in counted.values()]
    return {"trainable": sum(size for size, trained in sizes if trained), "all": sum(size for size, _ in sizes)}


def losses(history: History, name: str) -> list[tuple[int, float]]:
    """Steps and values of `loss` (training) or `eval_loss` (validation), in nats per answer token."""
    return [(entry["step"], entry[name]) for entry in history if name in entry]


def plot_loss(history: History) -> Any:
    """Training loss by step, and validation loss with its lowest value marked.

    Args:
        history: The trainer's `state.log_history`.

    Returns:
        A matplotlib figure.

    Raises:
        EcgDataError: no training loss was logged.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    training, validation = losses(history, "loss"), losses(history, "eval_loss")
    if not training:
        raise EcgDataError("no training loss was logged; set --logging_steps to less than the steps of the training")
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(*zip(*training, strict=True), color=_BLUE, linewidth=1.2, label="training")
    if len(training) == 1:
        axis.plot(*training[0], "o", color=_BLUE)
    if validation:
        best = min(validation, key=lambda point: point[1])
        axis.plot(*zip(*validation, strict=True), "o-", color=_ORANGE, markersize=4, label="validation")
        axis.plot(*best, "o", markersize=11, markerfacecolor="none", markeredgecolor=_ORANGE)
        axis.set_title(f"lowest validation loss {best[1]:.4f} at step {best[0]}", fontsize=10)
        axis.legend(frameon=False)
    axis.set_xlabel("step")
    axis.set_ylabel("loss (nats per answer token)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure


def _draw(history: History, path: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        logger.warning("%s was not drawn: it needs matplotlib, `pip install 'ecgbyte-hf[plot]'`", path)
        return
    from ecgbyte_hf.interpretation.figures import save_figure

    save_figure(plot_loss(history), path)
