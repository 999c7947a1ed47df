"""Processes that work for this one, and end with it."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor

# Seconds between two looks at whether the process that asked for the work is still there.
_POLL = 1.0


def worker_pool(num_proc: int) -> ProcessPoolExecutor:
    """A pool of processes. They end when this one is killed: those of a plain pool would wait for ever."""
    return ProcessPoolExecutor(num_proc, initializer=_end_with_parent)


def _end_with_parent() -> None:
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="watch-parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
