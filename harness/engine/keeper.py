"""The keeper of a worker: its parent, which runs nobody's code, so that it is there to end what a dead worker leaves.

On Linux what outlives its own parent becomes the child of the nearest living ancestor that asked for it: of the worker
while it lives, and of its keeper after that. So nothing gets away, whatever the worker died of and however short after
it had started something.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>
STREAMS = 3  # input, output and errors
ENDING_SECONDS = 5.0  # what lives longer is stuck in the kernel
CHILDREN = Path("/proc/self/task")


def under_a_keeper() -> None:
    """Fork: the child goes on, and the parent is its keeper. It ends what the child leaves, and then as the child did.

    There may be no other thread yet. On systems other than Linux nothing happens.
    """
    if sys.platform != "linux":
        return
    _adopt()
    if worker := os.fork():
        _keep(worker)
    _adopt()  # a fork does not inherit it


def _adopt() -> None:
    """Become the parent of every descendant that outlives its own; see PR_SET_CHILD_SUBREAPER in prctl(2)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _keep(worker: int) -> NoReturn:
    os.closerange(0, STREAMS)  # the engine must see that the worker has closed its own
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # some plugins signal their whole group
    _, status = os.waitpid(worker, 0)
    deadline = time.monotonic() + ENDING_SECONDS
    with contextlib.suppress(ChildProcessError):  # nobody is left
        while time.monotonic() < deadline:
            for child in _children():
                with contextlib.suppress(PermissionError):
                    os.kill(child, signal.SIGKILL)  # not waited for yet, so its number is nobody else's
            while os.waitpid(-1, os.WNOHANG)[0]:  # what it leaves becomes a child in its place
                pass
            time.sleep(0.001)
    _end_as(os.waitstatus_to_exitcode(status))


def _children() -> Iterator[int]:
    """Source: /proc/PID/task/TID/children in proc_pid_task(5)."""
    for file in CHILDREN.glob("*/children"):
        yield from map(int, file.read_text(encoding="ascii").split())


def _end_as(code: int) -> NoReturn:
    """End with an exit code, or by the signal of which it is the negative."""
    if code < 0:
        import resource  # there is none on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the worker's own core file is enough
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)  # Python has a handler for SIGINT, and ignores SIGPIPE
        os.kill(os.getpid(), -code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
    os._exit(code)
