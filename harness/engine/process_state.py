"""What a process shares with all its code: remembered before the first plugin, brought back after every request.

So what one variant changes does not reach the next. It keeps faults apart; it is no sandbox.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import Any

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # by file number
NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}  # NumPy's documented defaults
TIMERS = ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")


class ProcessState:
    """The state as it is when this is made. Made and used by the main thread, to which signals belong.

    It holds the current folder and the mask for new files, the environment, where modules are looked for, what signals
    and timers do, what warnings are shown, the standard streams and their files, the limit of recursion, what traces
    and profiles the code, when garbage is collected, on which CPUs the main thread may run, and what NumPy makes of a
    division by zero.
    """

    def __init__(self) -> None:
        self._folder: str | None = None
        with suppress(OSError):  # it may have been removed
            self._folder = os.getcwd()
        self._mask = os.umask(0)
        os.umask(self._mask)
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._warnings = list(warnings.filters)
        self._files = [os.dup(number) for number in range(len(STREAMS))]
        self._streams: list[Any] = [getattr(sys, name) for name, _ in STREAMS]
        self._recursion = sys.getrecursionlimit()
        self._tracing = sys.gettrace(), sys.getprofile()
        self._collection = gc.isenabled(), gc.get_threshold()
        self._cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def restore(self) -> None:
        """Bring everything back. What cannot be brought back stays; nothing is raised.

        Variables that were added to the environment stay, for libraries read their own later; so do folders of modules.
        """
        for part in (
            self._restore_files,
            self._restore_signals,
            self._restore_folder,
            lambda: os.umask(self._mask),
            lambda: os.environ.update(self._environment),
            lambda: sys.path.extend(folder for folder in self._path if folder not in sys.path),
            self._restore_warnings,
            lambda: sys.setrecursionlimit(self._recursion),
            lambda: sys.settrace(self._tracing[0]),
            lambda: sys.setprofile(self._tracing[1]),
            self._restore_collection,
            self._restore_cpus,
            lambda: sys.modules["numpy"].seterr(**NUMPY_ERRORS),
        ):
            with suppress(BaseException):
                part()

    def _restore_files(self) -> None:
        """Flush what was printed, and give every stream its file again, also to native code."""
        for number, (name, mode) in enumerate(STREAMS):
            with suppress(BaseException):
                getattr(sys, name).flush()
            with suppress(OSError):
                os.dup2(self._files[number], number, inheritable=True)
            if self._streams[number] is None or self._streams[number].closed:
                self._streams[number] = open(number, mode, closefd=False)  # noqa: SIM115  lives as long as the process
            setattr(sys, name, self._streams[number])

    def _restore_signals(self) -> None:
        for timer in TIMERS:  # before the handlers, whose default is to end the process
            with suppress(AttributeError):
                signal.setitimer(getattr(signal, timer), 0)
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                with suppress(OSError, ValueError):  # two of them cannot be caught
                    signal.signal(number, handler)

    def _restore_folder(self) -> None:
        if self._folder is not None:
            os.chdir(self._folder)

    def _restore_warnings(self) -> None:
        warnings.resetwarnings()  # so that what was shown once may be shown again
        warnings.filters = list(self._warnings)

    def _restore_collection(self) -> None:
        (gc.enable if self._collection[0] else gc.disable)()
        gc.set_threshold(*self._collection[1])

    def _restore_cpus(self) -> None:
        if self._cpus is not None and os.sched_getaffinity(0) != self._cpus:
            os.sched_setaffinity(0, self._cpus)
