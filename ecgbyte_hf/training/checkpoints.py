"""The checkpoints of a training: which one to go on from, and the weights in it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

# The trainer's state, which it writes last.
_STATE_FILE = "trainer_state.json"


def newest_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint in a folder that was written to its end; None without one.

    A newer one that was broken off while it was written is named in a warning.
    """
    folder = Path(output_dir)
    numbered = {
        int(found[1]): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (found := re.fullmatch(r"checkpoint-(\d+)", path.name)) and path.is_dir()
    }
    for _, path in sorted(numbered.items(), reverse=True):
        if is_complete(path):
            return str(path)
        logger.warning("%s was passed over: it has no whole %s, so that its writing was broken off", path, _STATE_FILE)
    return None


def is_complete(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written to its end."""
    try:
        json.loads((Path(checkpoint) / _STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def load_saved_weights(model: Any, folder: str | Path) -> None:
    """Give a model the weights that its `save_pretrained` wrote.

    transformers 5.23 saves the layers of a ViT under other names than they have, and its Trainer does not translate
    them back: it would go on, or end, with other weights than those saved, with a warning alone.
    """
    model.load_state_dict(type(model).from_pretrained(folder).state_dict())
