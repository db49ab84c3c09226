"""The worker's side of costs: how long imports took while a session was opened, and what memory it came to hold."""

from __future__ import annotations

import _frozen_importlib
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from time import perf_counter_ns  # bound before any plugin is imported
from types import TracebackType
from typing import Any, Self

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PROCESS_FOLDER = Path("/proc/self")
FORGET_PEAK = b"5"  # the kernel's Documentation/filesystems/proc.rst, of clear_refs


class ImportClock:
    """Sums the wall time of imports between entering and leaving `with`, of the thread that entered.

    An import inside another is part of that one and counts once. A module that is there already takes no time. The time
    is taken where Python's own `-X importtime` takes it: around finding and loading, however an import is written.

    Attributes:
        seconds: the sum.
    """

    def __init__(self) -> None:
        self._total_ns = self._depth = 0
        self._bootstrap: Any = _frozen_importlib

    @property
    def seconds(self) -> float:
        return self._total_ns / 1e9

    def __enter__(self) -> Self:
        self._thread, self._original = get_ident(), self._bootstrap._find_and_load
        self._bootstrap._find_and_load = self._timed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bootstrap._find_and_load == self._timed:  # else a plugin has wrapped it, and may go on to
            self._bootstrap._find_and_load = self._original
        while tb is not None:  # a failure reads as if nobody had timed it
            while tb.tb_next is not None and tb.tb_next.tb_frame.f_code is ImportClock._timed.__code__:
                tb.tb_next = tb.tb_next.tb_next
            tb = tb.tb_next

    def _timed(self, *arguments: Any) -> Any:
        if self._depth or get_ident() != self._thread:
            return self._original(*arguments)
        self._depth = 1
        began = perf_counter_ns()
        try:
            return self._original(*arguments)
        finally:
            self._total_ns += perf_counter_ns() - began
            self._depth = 0


@dataclass(frozen=True, slots=True)
class Resident:
    """A process's resident memory: pages of its own and of files that it has mapped, libraries too.

    Attributes:
        now_bytes: what it holds.
        peak_bytes: the most it ever held, or since the peak was forgotten.
    """

    now_bytes: int
    peak_bytes: int


def resident(folder: Path = PROCESS_FOLDER) -> Resident | None:
    """This process's resident memory; None where the system does not tell.

    Source: VmRSS and VmHWM of /proc/self/status (proc_pid_status(5)), or else psutil and `ru_maxrss` (getrusage(2)).
    """
    with suppress(OSError, LookupError, ValueError):
        text = (folder / "status").read_text(encoding="utf-8")
        kib = {name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB$", text, re.MULTILINE)}
        return Resident(kib["VmRSS"] * 1024, kib["VmHWM"] * 1024)
    with suppress(psutil.Error, OSError):
        memory = psutil.Process().memory_info()
        peak = getattr(memory, "peak_wset", None)  # Windows
        if peak is None and resource is not None:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if peak is not None:
            return Resident(memory.rss, peak)
    return None


def forget_peak(folder: Path = PROCESS_FOLDER) -> bool:
    """Let the peak of this process's resident memory begin at what it holds now; False where that cannot be done."""
    try:
        file = os.open(folder / "clear_refs", os.O_WRONLY)  # which makes none where there is none
        try:
            os.write(file, FORGET_PEAK)
        finally:
            os.close(file)
    except OSError:
        return False
    return True


class PeakMemory:
    """How far this process's resident memory has risen since this was made, above what it held then.

    Args:
        folder: the system's folder of this process.
    """

    def __init__(self, folder: Path = PROCESS_FOLDER) -> None:
        self._folder = folder
        self._is_forgotten = forget_peak(folder)
        self._before = resident(folder)

    def risen_bytes(self) -> int | None:
        """Bytes; None where the system does not tell, or its peak may be older than this."""
        before, after = self._before, resident(self._folder)
        if before is None or after is None:
            return None
        if not self._is_forgotten and after.peak_bytes <= before.peak_bytes:
            return None
        return max(0, after.peak_bytes - before.now_bytes)
