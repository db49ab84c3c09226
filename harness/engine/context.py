"""What every phase of a run shares: the plan, fresh workers, the journal, and who is told how far things are."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.catalog import OWN_MODEL, Catalog
from harness.engine.process import Limits, WorkerFailure, WorkerProcess
from harness.plan import Plan, Trial, Variant
from harness.store import Run, RunFolder

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
MOST_JOBS = 4  # untimed work runs this many workers side by side at most


class Progress(Protocol):
    """Who is told how far a run is. Called from several threads."""

    def phase(self, title: str, steps: int) -> None:
        """A phase of at most so many steps begins."""

    def step(self, what: str) -> None:
        """A step of the current phase is finished."""

    def running(self, what: str) -> None:
        """This is running now."""

    def fewer(self, steps: int) -> None:
        """So many of the steps of the current phase will not come."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How something ended: a status of `harness.store.STATUSES`; unless ok, why, and the file with what was printed."""

    status: str = "ok"
    reason: str = ""
    log: str | None = None


class Stopped(Exception):
    """The run is being interrupted; nothing new may begin."""


class Context:
    """One run of a plan. Without a folder nothing is recorded, and without progress nobody is told.

    Attributes:
        past: what a resumed run holds already; None for a new one.
        broken_tasks: how loading their data ended, of the tasks whose plugin fails at it.
        clock: whose clock has timed what was timed so far: `host` or `device`; None where nothing was.
        peaks: FLOP/s of the best matrix product, where it was measured, by device, dtype and threads.
    """

    def __init__(
        self,
        plan: Plan,
        catalog: Catalog,
        folder: RunFolder | None = None,
        data_dir: Path | None = None,
        progress: Progress | None = None,
        past: Run | None = None,
    ) -> None:
        self.plan = plan
        self.catalog = catalog
        self.folder = folder
        self.data_dir = str(data_dir.resolve()) if data_dir else None
        self.seconds = plan.suite.trial_seconds
        self.past = past
        self.broken_tasks: dict[str, Outcome] = {}
        self.peaks: dict[tuple[str, str, int], float] = {}
        self.clock: str | None = None
        self._limits = Limits(round(plan.suite.worker_memory_gib * 2**30), round(plan.suite.worker_output_mib * 2**20))
        self._owners = {(entry.kind, entry.name): entry.plugin.name for entry in catalog.entries}
        self._progress = progress
        self._workers: set[WorkerProcess] = set()
        self._lock = threading.Lock()
        self._is_stopping = False
        self._process = int(past.processes["process"].max()) if past is not None and len(past.processes) else 0
        self._log_number = max(map(_number, (folder.path / "logs").iterdir()), default=0) if folder else 0
        self._ended: dict[str, Outcome] = {}
        if past is not None:
            self.clock = next(iter(past.processes.loc[past.processes["trial"].isna(), "clock"].dropna()), None)
            for row in past.trials[~past.trials["trial"].isin(past.missing)].to_dict("records"):
                self._ended[row["trial"]] = Outcome(row["status"], row["reason"], row["log"])

    def ended(self, trial: Trial) -> Outcome | None:
        """How a trial of a resumed run ended, if it did."""
        return self._ended.get(trial.id)

    def next_process(self) -> int:
        """A number for a row of the processes table, which no other of the run has, not even before it was resumed."""
        self._process += 1
        return self._process

    @contextmanager
    def worker(
        self, variants: Iterable[Variant], task: str = "", threads: int | None = None
    ) -> Iterator[WorkerProcess]:
        """A fresh worker, ended at the end. It loads the plugins that give these variants and the task, and no other.

        Args:
            variants: all in one interpreter, and theirs is the worker's.
            task: the name of a task, or empty.
            threads: how many its native libraries may use; None for as many as the suite says.

        Raises:
            Stopped: the run is being interrupted.
            WorkerFailure: it cannot be started.
        """
        if self._is_stopping:
            raise Stopped
        found = list(variants)
        path = self.plan.suite.pythons.get(found[0].python) if found else None
        with self.started(path, self.plugins_of(found, task), threads) as worker:
            yield worker

    def plugins_of(self, variants: Collection[Variant], task: str = "") -> list[str]:
        """The names of the plugins that give these variants, a task if one is named, and accelerators if needed."""
        names = {("model", variant.model) for variant in variants} | {("runtime", own.runtime) for own in variants}
        if self.plan.suite.device != "cpu":  # whose clock is wanted
            names |= {of for of in self._owners if of[0] == "accelerator"}
        return sorted({self._owners[name] for name in names | {("task", task)} if name in self._owners})

    @contextmanager
    def started(
        self, python: str | None, plugins: Collection[str] | None, threads: int | None = None
    ) -> Iterator[WorkerProcess]:
        """A fresh worker in an interpreter, the engine's own if None, with these plugins; otherwise as `worker`."""
        try:
            suite = self.plan.suite
            limits, log = self._limits, self._next_log()
            worker = WorkerProcess(
                threads or suite.threads, limits, log=log, python=python, plugins=plugins, cpus=suite.cpus
            )
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

    def parallel(self, function: Callable[[Any], None], jobs: list[Any], most: int = MOST_JOBS) -> None:
        """Run untimed jobs side by side, as many as there are cores for, `most` at most.

        An interruption ends the workers.
        """
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(self.plan.suite.cpus) or (len(affinity(0)) if affinity else os.cpu_count() or 1)
        most_threads = max(setting.threads for setting in self.plan.settings())
        with ThreadPoolExecutor(max(1, min(most, cores // most_threads))) as pool:
            futures = [pool.submit(function, job) for job in jobs]
            try:
                for future in as_completed(futures):
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
            "cache_dir": self._cache(trial.variant) if self.folder else None,
        }

    def _cache(self, variant: Variant) -> str:
        """Where a variant keeps what is costly to make; of a model that may be edited, a folder for its version."""
        assert self.folder
        parts = [variant.python]
        plugin = self.catalog.entry("model", variant.model).plugin
        if plugin.name == OWN_MODEL:
            parts.append(hashlib.sha256(plugin.version.encode()).hexdigest()[:12])
        return str((self.folder.path.resolve() / "cache").joinpath(*parts))

    def failed(self, failure: WorkerFailure) -> Outcome:
        """How what a worker was asked for ended, with where it printed to.

        Raises:
            StoreError: it failed for want of room, and the run's folder has none: that is nobody's fault.
        """
        if failure.errno in NO_ROOM and self.folder:
            self.folder.check_room()
        return Outcome(failure.status, failure.reason, f"logs/{failure.log.name}" if failure.log else None)

    def record(self, trial: Trial, outcome: Outcome, **tables: list[dict[str, Any]]) -> None:
        """Append a finished trial to the journal; what ends because the run is interrupted is not finished."""
        self._append({"trial": trial.id, **asdict(outcome), **tables})

    def record_training(self, training: dict[str, Any]) -> None:
        """Append a training that is no trial's own but serves other variants."""
        self._append({"training": training})

    def record_machine(self, rows: list[dict[str, Any]]) -> None:
        """Append what the machine attains: rows of the machine table."""
        self._append({"machine": rows})

    def record_process(
        self, process: dict[str, Any], timed: list[dict[str, Any]], samples: Iterable[Sequence[Any]]
    ) -> None:
        """Keep what a worker process timed, and append what happened in and around it."""
        if self.folder and not self._is_stopping:
            with self._lock:
                self.folder.append_process(process, timed, samples)

    def _append(self, record: dict[str, Any]) -> None:
        if self.folder and not self._is_stopping:
            with self._lock:
                self.folder.append(record)

    def _next_log(self) -> Path | None:
        with self._lock:
            self._log_number += 1
            return self.folder.path / "logs" / f"{self._log_number:04d}.log" if self.folder else None

    def phase(self, title: str, steps: int) -> None:
        """Tell that a phase begins."""
        if self._progress:
            self._progress.phase(title, steps)

    def step(self, what: str) -> None:
        """Tell that a step is finished."""
        if self._progress:
            self._progress.step(what)

    def running(self, what: str) -> None:
        """Tell what is running now."""
        if self._progress:
            self._progress.running(what)

    def fewer(self, steps: int) -> None:
        """Tell that so many steps of the current phase will not come."""
        if self._progress and steps:
            self._progress.fewer(steps)


def grouped(trials: Iterable[Trial], key: Callable[[Trial], Any]) -> list[list[Trial]]:
    """Trials with equal keys together, in the order of each key's first."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial), []).append(trial)
    return list(groups.values())


def _number(log: Path) -> int:
    return int(log.stem) if log.stem.isdecimal() else 0
