"""The engine's side of a worker: start it clean, ask it, and know how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.engine.worker import receive, send

FAREWELL_SECONDS = 1.0  # how long a worker that closed its pipe has to end
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)


class WorkerFailure(Exception):
    """A request that did not give a result.

    Attributes:
        status: `unsupported`, `failed`, `crashed` or `timed-out`.
        reason: one line.
        alive: the worker can be asked again.
    """

    def __init__(self, status: str, reason: str, alive: bool) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.alive = alive


class WorkerProcess:
    """A freshly started Python process that serves `harness.engine.worker`.

    It runs in the given interpreter, or in the one that runs the engine. Its native libraries are limited to the given
    number of threads from the start. The engine waits blocked for a reply, so it takes no core from the work it times.
    """

    def __init__(
        self,
        threads: int,
        log: Path | None = None,
        environ: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> None:
        environment = dict(os.environ if environ is None else environ)
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        environment["PYTHONSAFEPATH"] = "1"  # what lies in the user's current folder is not imported
        self._log = log.open("ab") if log else None
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", "harness.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log or subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C goes to the engine alone; the engine then ends its workers
        )
        self._timed_out = False

    def ask(self, do: str, seconds: float, **arguments: Any) -> Any:
        """Send one request and wait for its result.

        Raises:
            WorkerFailure: the request failed, the worker died, or the time was up (the worker is then ended).
        """
        assert self._process.stdin
        assert self._process.stdout
        timer = threading.Timer(seconds, self._time_out)
        timer.start()
        try:
            send(self._process.stdin, {"do": do, "with": arguments})
            reply = receive(self._process.stdout)
        except OSError:
            reply = None
        except ValueError as error:  # the two sides are out of step from here on
            self._kill()
            raise WorkerFailure("failed", f"the worker's reply cannot be read: {error}", alive=False) from error
        finally:
            timer.cancel()
        if reply is None:
            if self._timed_out:
                raise WorkerFailure("timed-out", f"'{do}' took longer than {seconds:g} s", alive=False)
            raise WorkerFailure("crashed", self._how_it_ended(), alive=False)
        if "error" in reply:
            raise WorkerFailure(reply["error"]["status"], reply["error"]["reason"], alive=True)
        return reply["result"]

    def close(self) -> None:
        """End the worker and everything it started."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                try:
                    stream.close()
                except OSError:
                    continue  # the pipe's other end is gone already

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _time_out(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            return "the worker hung up and did not end"
        if code >= 0:
            return f"the worker ended by itself with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"the worker was ended by {name}"
