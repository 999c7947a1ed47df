"""One measurement in a process of its own: its memory is its own, and a crash or an endless run costs one row."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TAIL_BYTES = 4000


class CannotDo(Exception):  # noqa: N818  (a finding, not an error)
    """A contestant cannot do the job; the message says why."""


def run_isolated(
    function: str,
    arguments: Mapping[str, Any],
    *,
    limit: float,
    environment: Mapping[str, str] | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Call `function` (`"module:name"`) with keyword arguments in a fresh interpreter.

    Args:
        function: What to call; it returns something that JSON can hold.
        arguments: JSON values.
        limit: Seconds until the process and its children are ended.
        environment: Variables added to this process's.
        show_progress: Pass on what the process writes to its standard error.

    Returns:
        `status`: "ok", "cannot", "failed" or "limit"; with "ok" the `result`, otherwise the `reason`.
    """
    with tempfile.TemporaryDirectory(prefix="ecgbyte-benchmark-") as folder:
        job, answer = Path(folder, "job.json"), Path(folder, "answer.json")
        job.write_text(json.dumps({"function": function, "arguments": dict(arguments)}), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-c", "from contest.isolation import main; main()", str(job), str(answer)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})},
            start_new_session=True,  # so that its children end with it
        )
        errors = _Tail(process, show_progress)
        try:
            process.wait(timeout=limit)
        except BaseException as error:
            # Not yet waited for, so the number cannot be another group's by now.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return {"status": "limit", "reason": f"over the limit of {limit:g} s"}
            raise
        finally:
            tail = errors.text()
        if answer.is_file():
            return dict(json.loads(answer.read_text(encoding="utf-8")))
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        last = (tail.strip().splitlines() or ["nothing on standard error"])[-1]
        return {"status": "failed", "reason": f"the process ended with {how}: {last}"}


class _Tail:
    """Reads a process's standard error to its end and keeps the last part."""

    def __init__(self, process: subprocess.Popen[bytes], show: bool) -> None:
        self._kept = b""
        self._show = show
        self._stream = process.stderr
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._stream is not None  # noqa: S101  (Popen was given a pipe)
        while part := os.read(self._stream.fileno(), 4096):
            self._kept = (self._kept + part)[-_TAIL_BYTES:]
            if self._show:
                sys.stderr.write(part.decode("utf-8", "replace"))
                sys.stderr.flush()

    def text(self) -> str:
        self._thread.join()
        if self._stream is not None:
            self._stream.close()
        return self._kept.decode("utf-8", "replace")


@dataclass(frozen=True)
class PeakMemory:
    """Memory of this process from here on.

    Not `ru_maxrss`: on Linux a new process inherits the highest value of the one that started it. The kernel's own
    `VmHWM` belongs to the program alone and can be set back; other systems have `ru_maxrss` only.
    """

    baseline_bytes: int

    @classmethod
    def start(cls) -> PeakMemory:
        """Set the peak back to what is in use now."""
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            pass  # the baseline is then the peak so far
        return cls(_peak_bytes())

    def report(self) -> dict[str, int]:
        """`baseline_bytes` at the start and the highest since, `peak_bytes`."""
        return {"baseline_bytes": self.baseline_bytes, "peak_bytes": _peak_bytes()}


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024


def _call(job: Path) -> dict[str, Any]:
    """What the call in `job` gave, or why it gave nothing."""
    content = json.loads(job.read_text(encoding="utf-8"))
    module, name = content["function"].split(":")
    try:
        result = getattr(importlib.import_module(module), name)(**content["arguments"])
    except CannotDo as reason:
        return {"status": "cannot", "reason": str(reason)}
    except ModuleNotFoundError as error:
        return {"status": "cannot", "reason": f"{error.name} is not installed; pip install 'ecgbyte-hf[benchmark]'"}
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    return {"status": "ok", "result": result}


def main() -> None:
    """Answer the job file of the first argument in the file of the second."""
    job, answer = Path(sys.argv[1]), Path(sys.argv[2])
    partial = answer.with_suffix(".partial")
    partial.write_text(json.dumps(_call(job)), encoding="utf-8")
    partial.replace(answer)
