"""Prepare a data set in many processes or on many machines, as tasks of datatrove: here, or on a Slurm cluster.

Every task takes its share of the job's parts; what they share is a file system. The folder that comes out is the same,
byte for byte, as from one process. Broken off, the same command goes on with the parts that are missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.preparation import JOB_FOLDER, Engine, PrepareJob
from ecgbyte_hf.data.workers import worker_pool
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# Seconds between two looks at what the tasks have written.
_POLL = 5.0


def on_this_machine(num_tasks: int) -> Engine:
    """An engine of `num_tasks` processes that share nothing but the folder.

    Args:
        num_tasks: Tasks, all at once.

    Raises:
        EcgDataError: there is none, or datatrove is not installed.
    """
    _check(num_tasks)

    def write(job: PrepareJob) -> None:
        folder = _checked_folder(job)
        try:
            with worker_pool(num_tasks) as pool:
                for task in [pool.submit(_run_local_task, folder, rank, num_tasks) for rank in range(num_tasks)]:
                    task.result()
        except BrokenProcessPool as error:
            raise EcgDataError(
                "a task was killed, as happens when memory runs out; use fewer tasks. The same command goes on where "
                "it was"
            ) from error

    return write


def _run_local_task(folder: str, rank: int, num_tasks: int) -> None:
    """One task of datatrove's local executor, in a process that is watched: its own pool waits for killed ones."""
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(
        [partial(write_share, folder)],
        tasks=num_tasks,
        workers=1,
        local_tasks=1,
        local_rank_offset=rank,
        # datatrove's notes go with the job's folder; what is done already is known from the parts.
        logging_dir=str(Path(folder) / JOB_FOLDER / "datatrove" / f"task-{rank:05d}"),
        skip_completed=False,
    ).run()


def on_slurm(
    num_tasks: int,
    *,
    partition: str,
    time_limit: str,
    wait: Callable[[float], None] = time.sleep,
    **executor_options: Any,
) -> Engine:
    """An engine that submits a Slurm array of `num_tasks` tasks and waits for their parts.

    Interrupted while it waits, the tasks go on; the same command later submits what is missing and finishes. Only
    what the options of the command name is passed on to Slurm: for more, see `SlurmPipelineExecutor`.

    Args:
        num_tasks: Tasks of the array.
        partition: Slurm's partition.
        time_limit: Of one task, `HH:MM:SS`.
        wait: Called with the seconds between two looks.
        executor_options: Passed to datatrove's `SlurmPipelineExecutor`.

    Raises:
        EcgDataError: there is no task, or datatrove is not installed.
    """
    _check(num_tasks)

    def write(job: PrepareJob) -> None:
        from datatrove.executor import SlurmPipelineExecutor

        folder = _checked_folder(job)
        SlurmPipelineExecutor(
            [partial(write_share, folder)],
            tasks=num_tasks,
            time=time_limit,
            partition=partition,
            job_name="ecgbyte-prepare",
            logging_dir=str(Path(folder) / JOB_FOLDER / "datatrove"),
            skip_completed=False,
            **executor_options,
        ).run()
        wait_for_parts(job, wait)

    return write


def write_share(folder: str, _: Any, rank: int, world_size: int) -> None:
    """One task: every `world_size`-th part of a job that was planned, from `rank` on."""
    job = PrepareJob.load(folder)
    job.write_parts(range(rank, job.num_parts, world_size))


def wait_for_parts(job: PrepareJob, wait: Callable[[float], None] = time.sleep) -> None:
    """Wait until tasks elsewhere have written all parts of a job; a bar counts them.

    Where a task fails no part comes of it: its log is in the folder that the line before the bar names.
    """
    from tqdm.auto import tqdm

    with tqdm(total=job.num_parts, desc="parts", unit="part") as bar:
        bar.write(f"waiting for the tasks; their logs are in {job.folder / JOB_FOLDER / 'datatrove'}", file=sys.stderr)
        while (done := job.num_parts_done()) < job.num_parts:
            bar.update(done - bar.n)
            wait(_POLL)
        bar.update(done - bar.n)


def _checked_folder(job: PrepareJob) -> str:
    if not job.is_on_files:
        raise EcgDataError("only recordings in files can be prepared by several tasks; leave --engine out")
    return str(job.folder.resolve())


def _check(num_tasks: int) -> None:
    if num_tasks < 1:
        raise EcgDataError(f"got {num_tasks} tasks, expected at least 1")
    try:
        import datatrove  # noqa: F401
    except ImportError as error:
        raise EcgDataError(
            "several tasks need datatrove, which is not installed; `pip install 'ecgbyte-hf[cluster]'`"
        ) from error
