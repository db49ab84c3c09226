"""What every phase of a run shares: the plan, fresh workers, the journal, and who is told how far things are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.catalog import Catalog
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.plan import Plan, Trial
from harness.store import RunFolder

MOST_JOBS = 4  # untimed work runs this many workers side by side at most


class Progress(Protocol):
    """Who is told how far a run is. Called from several threads."""

    def phase(self, title: str, steps: int) -> None:
        """A phase of at most so many steps begins."""

    def step(self, what: str) -> None:
        """A step of the current phase is finished."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How something ended: a status of `harness.store.STATUSES` and, unless ok, the reason."""

    status: str = "ok"
    reason: str = ""


class Stopped(Exception):
    """The run is being interrupted; nothing new may begin."""


class Context:
    """One run of a plan. Without a folder nothing is recorded, and without progress nobody is told."""

    def __init__(
        self,
        plan: Plan,
        catalog: Catalog,
        folder: RunFolder | None = None,
        data_dir: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.plan = plan
        self.catalog = catalog
        self.folder = folder
        self.data_dir = str(data_dir.resolve()) if data_dir else None
        self.seconds = plan.suite.trial_seconds
        self._progress = progress
        self._workers: set[WorkerProcess] = set()
        self._journal_lock = threading.Lock()
        self._is_stopping = False

    @contextmanager
    def worker(self, python: str = "") -> Iterator[WorkerProcess]:
        """A fresh worker, ended at the end.

        Args:
            python: the name of one of the suite's interpreters; empty for the one that runs the engine.

        Raises:
            Stopped: the run is being interrupted.
            WorkerFailure: it cannot be started.
        """
        if self._is_stopping:
            raise Stopped
        log = self.folder.path / "logs" / "workers.log" if self.folder else None
        try:
            worker = WorkerProcess(self.plan.suite.threads, log, python=self.plan.suite.pythons.get(python))
        except OSError as error:
            reason = f"a worker cannot be started: {error.strerror}"
            raise WorkerFailure("failed", reason, alive=False) from error
        self._workers.add(worker)
        if self._is_stopping:  # set in between
            worker.close()
        try:
            with worker:
                yield worker
        finally:
            self._workers.discard(worker)

    def parallel(self, function: Callable[[Any], None], jobs: list[Any]) -> None:
        """Run untimed jobs side by side, as many as there are cores for them; an interruption ends the workers."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        with ThreadPoolExecutor(max(1, min(MOST_JOBS, cores // self.plan.suite.threads))) as pool:
            futures = [pool.submit(function, job) for job in jobs]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._is_stopping = True
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in list(self._workers):
                    worker.close()
                raise

    def variant(self, trial: Trial) -> dict[str, Any]:
        """A trial's variant as the arguments of a worker's request."""
        return {
            "model": trial.variant.model,
            "runtime": trial.variant.runtime,
            "size": asdict(trial.size),
            "device": trial.device,
            "dtype": trial.dtype,
            "threads": trial.threads,
            "cache_dir": str(self.folder.path.resolve() / "cache" / trial.variant.python) if self.folder else None,
        }

    def record(self, trial: Trial, outcome: Outcome, **tables: list[dict[str, Any]]) -> None:
        """Append a finished trial to the journal; what ends because the run is interrupted is not finished."""
        if self.folder and not self._is_stopping:
            with self._journal_lock:
                self.folder.append({"trial": trial.id, "status": outcome.status, "reason": outcome.reason, **tables})

    def record_process(self, process: dict[str, Any]) -> None:
        """Append what happened in and around a worker process that timed."""
        if self.folder and not self._is_stopping:
            with self._journal_lock:
                self.folder.append({"process": process})

    def phase(self, title: str, steps: int) -> None:
        """Tell that a phase begins."""
        if self._progress:
            self._progress.phase(title, steps)

    def step(self, what: str) -> None:
        """Tell that a step is finished."""
        if self._progress:
            self._progress.step(what)


def grouped(trials: Iterable[Trial], key: Callable[[Trial], Any]) -> list[list[Trial]]:
    """Trials with equal keys together, in the order of each key's first."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial), []).append(trial)
    return list(groups.values())
