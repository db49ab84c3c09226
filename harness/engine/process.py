"""The engine's side of a worker: start it clean, ask it, and know how it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from harness.engine import process_tree
from harness.engine.protocol import receive, send
from harness.engine.watch import Watch

FAREWELL_SECONDS = 1.0  # how long a worker that closed its pipe has to end
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
STATUSES = ("unsupported", "failed", "out-of-memory")  # what a worker may say of a request
DESCRIPTIONS = ("plugins", "load_plugin")  # requests
CPUS = "HARNESS_CPUS"  # a worker binds itself, before it starts a thread
KERNEL_COUNTERS = Path("/proc/vmstat")


@dataclass(frozen=True)
class Limits:
    """What a worker may use before it is ended.

    Attributes:
        memory_bytes: resident memory of the worker and all its descendants.
        output_bytes: what they may print.
    """

    memory_bytes: int = 8 * 2**30
    output_bytes: int = 16 * 2**20


class WorkerFailure(Exception):
    """A request that did not give a result.

    Attributes:
        status: `unsupported`, `failed`, `crashed`, `timed-out` or `out-of-memory`.
        reason: one line.
        alive: the worker can be asked again.
        is_data: the reason is a DataError's text, so it says what the user can do about the data.
        errno: the system's number of the error, if the system raised it.
        log: the file with what the worker printed until then; None if there is none.
    """

    def __init__(self, status: str, reason: str, alive: bool, is_data: bool = False, errno: int | None = None) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.alive = alive
        self.is_data = is_data
        self.errno = errno
        self.log: Path | None = None


class WorkerProcess:
    """A freshly started Python process that serves `harness.engine.worker`.

    Its native libraries are limited to the given number of threads from the start. The engine waits blocked for a
    reply, so it takes no core from the work it times. When the worker or the engine ends, so does everything that the
    worker started.

    Args:
        threads: how many threads native libraries may use.
        limits: what it may use before it is ended.
        log: what it prints is appended to this file, which is made when something is printed. None: it is dropped.
        environ: its environment; None for the engine's own.
        python: the interpreter; None for the one that runs the engine.
        plugins: the names of the only plugins that it may load; None for what its environment says.
        cpus: the only cores that it may use, by the system's numbers; none means all.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        threads: int,
        limits: Limits = Limits(),
        log: Path | None = None,
        environ: Mapping[str, str] | None = None,
        python: str | None = None,
        plugins: Collection[str] | None = None,
        cpus: Collection[int] = (),
    ) -> None:
        self._mark = process_tree.GUARDIAN.new_mark()
        environment = dict(os.environ if environ is None else environ)
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        environment["PYTHONSAFEPATH"] = "1"  # what lies in the user's current folder is not imported
        environment[process_tree.VARIABLE] = self._mark
        if cpus:
            environment[CPUS] = ",".join(map(str, cpus))
        if plugins is not None:
            environment["HARNESS_PLUGINS"] = ",".join(plugins)
        self._line, its_end = socket.socketpair()  # unlike a pipe's, one's own end can be shut while it is read
        with its_end, ExitStack() as undo:
            undo.callback(self._line.close)
            self._process = subprocess.Popen(
                [python or sys.executable, "-m", "harness.engine.worker"],
                stdin=its_end.fileno(),
                stdout=its_end.fileno(),
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C goes to the engine alone; the engine then ends its workers
            )
            undo.pop_all()
        self._requests, self._replies = self._line.makefile("wb"), self._line.makefile("rb")
        assert self._process.stderr
        self._known = psutil.Process(self._process.pid)
        self._ending, self._closing = threading.Lock(), threading.Lock()
        self._is_ended = self._was_alive = self._is_closed = False
        self._kills = kernel_kills()
        output = self._process.stderr.fileno()
        self._watch = Watch(self._known, output, log, limits.memory_bytes, limits.output_bytes, self._end)
        self._watch.start()

    def ask(self, do: str, seconds: float, **arguments: Any) -> Any:
        """Send one request and wait for its result.

        Raises:
            WorkerFailure: the request failed, the worker died, or it was ended: because the time was up, or because it
                broke one of its limits, now or since the last request.
        """
        if self._is_closed:
            raise WorkerFailure("crashed", "the worker has been closed", alive=False)
        self._watch.begin(do, seconds)
        try:
            send(self._requests, {"do": do, "with": arguments})
            reply = _reply(receive(self._replies))
            if isinstance(reply, dict):
                reply = {"result": _checked(do, reply["result"])}
        except OSError:
            reply = None
        except ValueError as error:  # the two sides are out of step from here on
            self._end()
            reply = WorkerFailure("failed", f"the worker's reply cannot be read: {error}", alive=False)
        finally:
            breach = self._watch.finish()
        if isinstance(reply, dict) and breach is None:
            self._kills = kernel_kills()
            return reply["result"]
        failure = reply if isinstance(reply, WorkerFailure) else self._how_it_ended()
        self._watch.drain()
        if breach := self._watch.breach:
            failure = WorkerFailure(breach.status, breach.reason, alive=False)
        failure.log = self._watch.log
        raise failure

    def close(self) -> None:
        """End the worker and everything it started."""
        self._is_closed = True
        self._end()
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: nobody can end it
            self._process.wait(process_tree.ENDING_SECONDS)
        with self._closing:
            self._watch.close()
            for stream in (self._requests, self._replies, self._line, self._process.stderr):
                if stream:
                    with suppress(OSError):  # the other end is gone already
                        stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _end(self) -> None:
        with self._ending:
            if not self._is_ended:
                self._was_alive = not process_tree.is_over(self._known)
                process_tree.end(self._known, self._mark, self._watch.seen)
                self._is_ended = True  # not before: who is interrupted here tries again
        with suppress(OSError):  # whoever waits for a reply, which a survivor may keep from ending, waits no longer
            self._line.shutdown(socket.SHUT_RDWR)

    def _how_it_ended(self) -> WorkerFailure:
        deadline = time.monotonic() + FAREWELL_SECONDS
        while not process_tree.is_over(self._known) and time.monotonic() < deadline:
            time.sleep(0.005)
        self._end()
        try:
            code = self._process.wait(process_tree.ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkerFailure("crashed", "the worker is stuck in the kernel and cannot be ended", alive=False)
        status, reason = "crashed", f"the worker ended by itself with exit code {code}"
        if code == -signal.SIGKILL and self._was_alive:
            reason = "the worker has been closed" if self._is_closed else "the worker hung up and did not end"
        elif code == -signal.SIGKILL and kernel_kills() > self._kills:
            status, reason = "out-of-memory", "the kernel ended the worker for want of memory"
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            reason = f"the worker was ended by {name}"
        return WorkerFailure(status, reason, alive=False)


def kernel_kills() -> int:
    """How many processes the kernel has ended for want of memory since the machine started; 0 where it does not tell.

    Source: `oom_kill` in /proc/vmstat, which counts those of memory groups too.
    """
    with suppress(OSError, ValueError):
        for line in KERNEL_COUNTERS.read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _checked(do: str, result: Any) -> Any:
    """A result in the form that its reader relies on; `survey` checks descriptions itself.

    Raises:
        ValueError: it has another form.
    """
    if do in DESCRIPTIONS:
        return result
    from harness.engine.replies import checked  # it imports NumPy, which no listing of plugins needs

    return checked(do, result)


def _reply(message: Any) -> dict[str, Any] | WorkerFailure | None:
    """A reply with a result, a failure that the worker tells of, or None if the worker is gone.

    Raises:
        ValueError: it is none of these; a plugin may have written it.
    """
    if message is None or (isinstance(message, dict) and message.keys() == {"result"}):
        return message
    match message:
        case {"error": {"status": str(status), "reason": str(reason), "errno": int() | None as number, **rest}}:
            if status in STATUSES and isinstance(is_data := rest.get("is_data"), bool):
                return WorkerFailure(status, reason, alive=True, is_data=is_data, errno=number)
    raise ValueError("it is no reply")
