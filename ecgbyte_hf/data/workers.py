"""Processes that work for this one, and end with it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

# Seconds between two looks at whether the process that asked for the work is still there.
_POLL = 1.0


def worker_pool(num_proc: int) -> ProcessPoolExecutor:
    """A pool of processes. They end when this one is killed: those of a plain pool would wait for ever."""
    return ProcessPoolExecutor(num_proc, initializer=_end_with_parent)


def in_order(
    pool: ProcessPoolExecutor,
    work: Callable[[list[Item]], list[Made]],
    items: Iterable[Item],
    *,
    num_proc: int,
    chunk_size: int,
) -> Iterator[Made]:
    """`pool.map` by chunks, but reading ahead a few of them only: it would ask for all items, and signals, at once.

    Args:
        pool: Of `num_proc` processes.
        work: What is made of a chunk, one for each item.
        items: Read as they are needed.
        num_proc: Processes.
        chunk_size: Items that a process works on at a time.
    """
    iterator = iter(items)
    waiting: deque[Future[list[Made]]] = deque()
    while chunk := list(islice(iterator, chunk_size)):
        waiting.append(pool.submit(work, chunk))
        if len(waiting) > 2 * num_proc:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _end_with_parent() -> None:
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="watch-parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
