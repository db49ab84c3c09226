"""Watches a worker while it lives: its time, its memory and what it prints. One thread, which mostly waits."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from harness.engine.process_tree import is_over, resident_bytes, tree

GIB, MIB = 2**30, 2**20
GROWTH = 2 * GIB  # bytes a second: about what a process can touch for the first time
LOOKS = (0.05, 1.0)  # seconds from one look at the memory to the next
PIECE = 2**16  # bytes: what a pipe holds


@dataclass(frozen=True)
class Breach:
    """Why a worker was ended: a status of `WorkerFailure` and one line."""

    status: str
    reason: str


@dataclass(frozen=True)
class Request:
    """What the worker is asked for, how many seconds it may take, and when (`time.monotonic`) these are over."""

    do: str
    seconds: float
    deadline: float


class Watch:
    """Ends a worker that breaks a limit, and keeps what it prints.

    The thread sleeps until something is printed, the time of a request is over, or the worker, growing at 2 GiB/s,
    could have used up its memory; at least 50 ms and at most 1 s lie between two looks at that.

    Args:
        worker: a process that nobody has waited for.
        output: the reading end of a pipe; the worker prints into the other.
        log: what is printed is appended to this file, which exists only if something is. None: it is dropped.
        memory_bytes, output_bytes: the limits; see `harness.engine.process.Limits`.
        end: ends the worker and all it started; may be called more than once.

    Attributes:
        breach: why the worker was ended, if it was for a limit.
        log: the file, once there is one.
        seen: what descended from the worker when it was last looked at.
    """

    def __init__(
        self,
        worker: psutil.Process,
        output: int,
        log: Path | None,
        memory_bytes: int,
        output_bytes: int,
        end: Callable[[], None],
    ) -> None:
        self.breach: Breach | None = None
        self.log: Path | None = None
        self.seen: frozenset[psutil.Process] = frozenset()
        self._worker = worker
        self._output = output
        self._path = log
        self._memory_bytes = memory_bytes
        self._output_bytes = output_bytes
        self._end = end
        self._request: Request | None = None
        self._is_over = self._is_closed = False
        self._file: IO[bytes] | None = None
        self._printed = 0
        self._lock = threading.Lock()  # of the log and of the pipes
        self._deciding = threading.Lock()  # whether the time of a request is over or its answer has come
        os.set_blocking(output, False)
        self._wakened, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._thread = threading.Thread(target=self._watch, name=f"watch of worker {worker.pid}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def begin(self, do: str, seconds: float) -> None:
        """The time of a request starts."""
        self._request = Request(do, seconds, time.monotonic() + seconds)
        self._wake()

    def finish(self) -> Breach | None:
        """The request has been answered, or never will be; why the worker was ended, if it was."""
        with self._deciding:
            self._request = None
            return self.breach

    def drain(self) -> None:
        """Bring what has been printed so far into the log, as far as the limit allows."""
        while self._copy() and self._printed <= self._output_bytes:
            pass

    def close(self) -> None:
        """Stop watching, after the worker's end; what it printed is in the log then."""
        self._is_over = True
        self._wake()
        self._thread.join()
        self.drain()
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._wakened)
                os.close(self._waker)
                if self._file:
                    self._file.close()

    def _wake(self) -> None:
        with self._lock, suppress(BlockingIOError):  # a full pipe wakes as well
            if not self._is_closed:
                os.write(self._waker, b".")

    def _watch(self) -> None:
        look_at = 0.0
        waiting = select.poll()
        waiting.register(self._output, select.POLLIN)
        waiting.register(self._wakened, select.POLLIN)
        while not self._is_over and self.breach is None:
            request, now = self._request, time.monotonic()
            if request and now >= request.deadline and self._is_late(request):
                return self._end()
            if now >= look_at:
                if is_over(self._worker):
                    return self._end()  # what it left behind may still hold its pipes
                look_at = now + self._look()
            until = min(look_at, request.deadline if request else math.inf)
            for source, _ in waiting.poll(max(0.0, 1000 * (until - now))):
                if source == self._wakened:
                    os.read(self._wakened, PIECE)
                elif self._copy() == b"":
                    waiting.unregister(self._output)  # nobody can print any more
        return None

    def _is_late(self, request: Request) -> bool:
        with self._deciding:
            if self._request is not request:
                return False  # its answer came just now
            self.breach = Breach("timed-out", f"'{request.do}' took longer than {request.seconds:g} s")
            return True

    def _break(self, status: str, reason: str) -> None:
        self.breach = Breach(status, reason)
        self._end()

    def _look(self) -> float:
        """Look at the memory; gives the seconds until the next look."""
        found, limit = tree(self._worker), self._memory_bytes
        self.seen = frozenset(found) | {process for process in self.seen if process.is_running()}
        held = resident_bytes(found)
        if held > limit and len(found) > 1:
            held = resident_bytes(found, shared_once=True)  # what was forked shares most of its memory
        if held > limit:
            self._break(
                "out-of-memory",
                f"the worker held {held / GIB:.3g} GiB of memory; {limit / GIB:.3g} GiB is allowed (worker_memory_gib)",
            )
        return min(max((limit - held) / GROWTH, LOOKS[0]), LOOKS[1])

    def _copy(self) -> bytes | None:
        """Copy a piece of what was printed to the log: empty if there never will be one again, None if not now."""
        with self._lock:
            if self._is_closed:
                return None
            try:
                text = os.read(self._output, PIECE)
            except BlockingIOError:
                return None
            allowed = self._output_bytes
            self._write(text[: max(0, allowed - self._printed)])
            self._printed += len(text)
        if self._printed > allowed and self.breach is None:
            self._break(
                "failed",
                f"the worker printed more than {allowed / MIB:.3g} MiB; make it print less, or allow more "
                "(worker_output_mib)",
            )
        return text

    def _write(self, text: bytes) -> None:
        if self._path and text:
            with suppress(OSError):  # a full disk costs the output and nothing else
                if self._file is None:
                    self._file = self._path.open("ab", buffering=0)
                    self.log = self._path
                self._file.write(text)
