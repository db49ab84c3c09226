"""Latency: freshly started workers in random order, every variant of a runtime in turns within one of them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from harness.engine.context import Context, Outcome, grouped
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.engine.verification import Verification
from harness.plan import Trial


class Measurement:
    """The latency trials of a run. A session is checked for parity right before and right after it is timed."""

    def __init__(self, context: Context, verification: Verification) -> None:
        self._context = context
        self._verification = verification
        self._outcomes: dict[str, Outcome] = {}
        self._samples: dict[str, dict[int, list[list[Any]]]] = {}  # trial, process, rows
        self._checks: dict[str, dict[tuple[str, int, str], list[dict[str, Any]]]] = {}  # table, process, moment

    def measure_all(self) -> None:
        """Time every trial whose variant passed parity; one record a latency trial, its samples beside it."""
        latency = self._context.plan.of("latency")
        processes = self._context.plan.suite.latency.processes
        self._context.phase("latency", len({(t.task, t.variant.runtime) for t in latency}) * processes)
        for task in self._context.plan.tasks:
            self._measure_task(task, [t for t in latency if t.task == task], processes)

    def _measure_task(self, task: str, trials: list[Trial], processes: int) -> None:
        for trial in trials:
            self._outcomes[trial.id] = self._verification.outcomes[trial.variant, task]
            self._samples[trial.id], self._checks[trial.id] = {}, {}
        order = random.Random(task)
        runtimes = list(dict.fromkeys(t.variant.runtime for t in trials))
        for process in range(1, processes + 1):
            order.shuffle(runtimes)
            for runtime in runtimes:
                self._measure([t for t in trials if t.variant.runtime == runtime], process)
                self._context.step(f"{task}, {runtime}, process {process} of {processes}")
        for trial in trials:
            if self._context.folder and self._samples[trial.id]:
                rows = [row for process_rows in self._samples[trial.id].values() for row in process_rows]
                self._context.folder.write_samples(trial.id, rows)
            tables: dict[str, list[dict[str, Any]]] = {"parity": [], "gradients": []}
            for (table, process, _), checks in self._checks[trial.id].items():
                tables[table].extend({"process": process, **check} for check in checks)
            self._context.record(trial, self._outcomes[trial.id], **tables)

    def _measure(self, trials: list[Trial], process: int) -> None:
        """One worker opens, checks and times these trials in turns. If it dies, its innocent variants try again."""
        groups = grouped([t for t in trials if self._outcomes[t.id].status == "ok"], lambda t: t.variant)
        if not groups:
            return
        random.Random(f"{process} {groups}").shuffle(groups)
        with self._context.worker() as worker:
            for group in groups:
                if not self._verified(worker, group, process, "before"):
                    self._measure(trials, process)  # the worker died; the guilty variant's outcome now says so
                    return
            points = [t for group in groups for t in group if self._outcomes[t.id].status == "ok"]
            if not points:
                return
            try:
                samples = self._sample(worker, points, process)
            except WorkerFailure as failure:
                self._disentangle(groups, points, process, failure)
                return
            for group in grouped(points, lambda t: t.variant):
                if not self._verified(worker, group, process, "after"):
                    self._measure(trials, process)
                    return
            for trial, rows in samples:
                self._samples[trial.id][process] = rows

    def _disentangle(
        self, groups: list[list[Trial]], points: list[Trial], process: int, failure: WorkerFailure
    ) -> None:
        """Timing failed. A trial alone is guilty; a variant alone has its scenarios tried again one by one."""
        if len(points) == 1:
            self._outcomes[points[0].id] = Outcome(failure.status, failure.reason)
            return
        several = len({trial.variant for trial in points}) > 1
        for part in groups if several else [[trial] for trial in points]:
            self._measure(part, process)

    def _verified(self, worker: WorkerProcess, group: list[Trial], process: int, moment: str) -> bool:
        """Check the very session that is timed and set its trials' outcome. False if the worker died of it."""
        steps = [trial for trial in group if trial.scenario == "training-step"]
        try:
            outcome, rows = self._verification.check(worker, group[0], moment)
            self._settle(group, ("parity", process, moment), outcome, rows)
            group = steps  # what fails from here on is the training step's alone
            if steps and outcome.status == "ok":
                outcome, rows = self._verification.check_training(worker, steps[0], moment)
                self._settle(steps, ("gradients", process, moment), outcome, rows)
        except WorkerFailure as failure:
            for trial in group:
                self._outcomes[trial.id] = Outcome(failure.status, failure.reason)
            return failure.alive
        return True

    def _settle(
        self, trials: list[Trial], check: tuple[str, int, str], outcome: Outcome, rows: list[dict[str, Any]]
    ) -> None:
        """Set the trials' outcome; the observations behind it stand with the first of them."""
        if outcome.status != "ok" and check[2] == "after":
            outcome = replace(outcome, reason=f"after timing: {outcome.reason}")
        for trial in trials:
            self._outcomes[trial.id] = outcome
        self._checks[trials[0].id][check] = rows

    def _sample(self, worker: WorkerProcess, trials: list[Trial], process: int) -> list[tuple[Trial, list[list[Any]]]]:
        """Each trial with its rows of the samples table."""
        points = [
            {"key": str(t.variant), "scenario": t.scenario, "batch": t.batch, "time": t.time, "task": t.task}
            for t in trials
        ]
        latency = self._context.plan.suite.latency
        limit = self._context.seconds * len(trials)
        rows = worker.ask("sample", limit, points=points, calls=latency.calls, budget=latency.seconds, seed=process)
        found: list[list[list[Any]]] = [[] for _ in trials]
        for index, *values in rows:
            found[index].append([process, *values])
        return list(zip(trials, found, strict=True))
