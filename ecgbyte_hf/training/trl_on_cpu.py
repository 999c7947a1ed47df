"""Training by TRL on a CPU: the output layer is applied only where there is a label, as TRL does on GPUs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)


@contextmanager
def labelled_positions_only() -> Iterator[None]:
    """For a while let TRL score on CPUs too only the positions that carry loss.

    TRL 1.16 picks them out on devices with Triton and multiplies all positions with the output layer elsewhere, so
    that compilers of other accelerators see one shape. A shared-prefix row has a label at a tenth of its positions; a
    step of a small model took 3.2 times as long (1.26 s for 0.39 s). Loss and gradient stay the same. A TRL without
    that switch is left as it is.
    """
    from trl.trainer import utils

    switch: Any = getattr(utils, "_use_triton", None)
    if switch is None:
        logger.info("this TRL picks positions in another way; it is left as it is")
        yield
        return

    def picks_positions(device: Any) -> bool:
        return device.type == "cpu" or bool(switch(device))

    utils._use_triton = picks_positions
    try:
        yield
    finally:
        utils._use_triton = switch
