"""What a worker started ends with it, and every worker ends with its engine, however the engine ends.

A worker and all it starts carry a mark in their environment: the engine's, a dot and the worker's number. A process
that leaves the worker's session or outlives its own parent still carries it. One that hides it is found as a descendant
of the worker, or, once that is dead, ended by its keeper: the process that the engine starts and knows, see
`harness.engine.keeper`. Run as a program, this module is the guardian: it waits until the engine is gone and then ends
whatever carries the engine's mark.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

VARIABLE = "HARNESS_WORKER"
ENDING_SECONDS = 5.0  # what lives longer is stuck in the kernel


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and what descends from it; nothing if it is gone."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def is_over(process: psutil.Process) -> bool:
    """Whether a process has ended, even if nobody has asked how."""
    try:
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return True


def resident_bytes(processes: Iterable[psutil.Process], shared_once: bool = False) -> int:
    """The memory that processes hold together, in bytes.

    Args:
        processes: those that are gone hold none.
        shared_once: count what processes share once and not for each, where the system tells; takes some ms per GiB.
    """
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            memory = process.memory_full_info() if shared_once else process.memory_info()
            total += getattr(memory, "pss", memory.rss)
    return total


def cpu_seconds(processes: Iterable[psutil.Process]) -> dict[psutil.Process, float]:
    """The processor time that each process has used, in seconds; without those that are gone."""
    used = {}
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            used[process] = times.user + times.system
    return used


def end(root: psutil.Process, mark: str, seen: Iterable[psutil.Process] = ()) -> None:
    """End the leader of a process group, its group, its descendants, and everything that carries the mark.

    They are stopped first, parents before children, until nobody new is found: who is stopped starts nothing more, and
    what a stopped parent leaves behind is still known as its child. The leader must not have been waited for, or its
    number could be another's by now.

    Args:
        root: the leader.
        mark: see `end_marked`.
        seen: what is known to have descended from it, for once it has ended, its children are no longer its children.
    """
    found: set[psutil.Process] = set()
    deadline = time.monotonic() + ENDING_SECONDS
    while new := {member for process in (*seen, root) for member in tree(process)} - found:
        for process in new:
            with suppress(psutil.Error):
                process.suspend()
        found |= new
        if time.monotonic() > deadline:
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(root.pid, signal.SIGKILL)
    _kill(found)
    end_marked(mark)


def end_marked(mark: str) -> None:
    """End every process but this one whose environment at its start carried the mark, or the mark and a number.

    What descends from it ends too. One that forks while it is looked for can be missed, so nothing must be found twice
    in a row.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    empty_rounds = 0
    while empty_rounds < 2 and time.monotonic() < deadline:
        found = list(_marked(mark))
        _kill([member for process in found for member in tree(process)])
        empty_rounds = 0 if found else empty_rounds + 1
        if found:
            time.sleep(0.002)  # they need a moment to go


def _marked(mark: str) -> Iterator[psutil.Process]:
    for number in psutil.pids():
        try:
            process = psutil.Process(number)
            carried = process.environ().get(VARIABLE, "")
        except (psutil.Error, OSError):
            continue  # gone, or another user's
        if number != os.getpid() and (carried == mark or carried.startswith(f"{mark}.")):
            yield process


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


class Guardian:
    """The process that ends this one's workers if this one cannot. One is enough, and it starts with the first mark.

    It sleeps in a read from a pipe that only this process can write to, so its end shows as the end of the file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._mark = ""
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def new_mark(self) -> str:
        """A mark for a new worker, which the guardian knows.

        Raises:
            OSError: the guardian cannot be started.
        """
        with self._lock:
            if self._owner != os.getpid():  # a fork has workers of its own
                self._owner, self._mark, self._process = os.getpid(), os.urandom(8).hex(), None
            if self._process is None or self._process.poll() is not None:
                self._hang_up()
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__, self._mark],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={name: value for name, value in os.environ.items() if name != VARIABLE},
                    start_new_session=True,
                )
            return f"{self._mark}.{next(self._numbers)}"

    def dismiss(self) -> None:
        """Let it end what is left, and go."""
        if self._process and self._owner == os.getpid():
            self._hang_up()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_SECONDS + 1)

    def _hang_up(self) -> None:
        if self._process and self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()


GUARDIAN = Guardian()
atexit.register(GUARDIAN.dismiss)


def main() -> None:
    """Wait until standard input ends, then end what carries the mark that is the only argument."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the engine politely must not end its guardian first
    while os.read(0, 1):
        pass
    end_marked(sys.argv[1])


if __name__ == "__main__":
    main()
