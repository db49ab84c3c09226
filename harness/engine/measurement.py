"""Latency: slices of freshly started workers in random order; in each, instances of every variant of a runtime.

A slice gives every runtime one process. A process times several instances: all its sessions opened afresh, checked,
timed in turns and checked again. After the planned slices it is looked whether the ratios are precise enough.
"""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from harness import estimates, stats
from harness.engine.context import Context, Outcome, grouped
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.engine.verification import Verification, worst_of
from harness.plan import Trial


@dataclass
class _Timed:
    """What is known of one trial so far: rows without the trial, by the process they were made in."""

    samples: dict[int, list[list[Any]]] = field(default_factory=dict)
    instances: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    checks: dict[tuple[str, int, str], list[dict[str, Any]]] = field(default_factory=dict)  # table, process, moment
    medians: dict[estimates.Key, float] = field(default_factory=dict)  # of the compute boundary, in seconds


class _TryAgain(Exception):
    """A worker is not to be used further; what it was to time is tried again."""


class Measurement:
    """The latency trials of a run. A session is checked for parity right before and right after it is timed."""

    def __init__(self, context: Context, verification: Verification) -> None:
        self._context = context
        self._verification = verification
        self._latency = context.plan.suite.latency
        self._looks = stats.planned_looks(self._latency.slices, self._latency.most_slices)
        self._outcomes: dict[str, Outcome] = {}
        self._timed: dict[str, _Timed] = {}
        self._process = 0
        self._alone: set[str] = set()  # sessions that failed a check beside others

    def measure_all(self) -> None:
        """Time every trial whose variant passed parity; one record a trial, its samples beside it."""
        trials = [t for t in self._context.plan.trials if t.kind in ("latency", "calibration")]
        workers = {(t.task, t.variant.runtime, t.variant.python) for t in trials}
        self._context.phase("latency", len(workers) * self._looks[-1])
        for task in self._context.plan.tasks:
            self._measure_task(task, [t for t in trials if t.task == task])

    def _measure_task(self, task: str, trials: list[Trial]) -> None:
        self._alone.clear()
        for trial in trials:
            self._outcomes[trial.id] = self._verification.outcomes[trial.variant, task]
            self._timed[trial.id] = _Timed()
        order = random.Random(task)
        shared = grouped(trials, lambda t: (t.variant.runtime, t.variant.python))
        most = f"{'at most ' if len(self._looks) > 1 else ''}{self._looks[-1]}"
        started = monotonic()
        for slice_ in range(1, self._looks[-1] + 1):
            if slice_ > 1 and monotonic() - started > self._latency.budget_seconds:
                break
            order.shuffle(shared)
            for group in shared:
                self._measure(group, slice_)
                runtime, python = group[0].variant.runtime, group[0].variant.python
                name = f"{runtime} of {python}" if python else runtime
                self._context.step(f"{task}, {name}, slice {slice_} of {most}{self._widest(trials)}")
            if slice_ in self._looks and self._half_width(trials) <= self._latency.precision:
                break
        for trial in trials:
            timed = self._timed[trial.id]
            if self._context.folder and timed.samples:
                rows = [row for process_rows in timed.samples.values() for row in process_rows]
                self._context.folder.write_samples(trial.id, rows)
            tables: dict[str, list[dict[str, Any]]] = {"parity": [], "gradients": []}
            for (table, process, _), checks in timed.checks.items():
                tables[table].extend({"process": process, **check} for check in checks)
            instances = [row for rows in timed.instances.values() for row in rows]
            self._context.record(trial, self._outcomes[trial.id], instances=instances, **tables)

    def _half_width(self, trials: list[Trial]) -> float:
        """The widest half of an interval of interest, as a share: of ratios, and of the latency of who has no other."""
        sound = [t for t in trials if self._outcomes[t.id].status == "ok" and self._timed[t.id].medians]
        own = {(str(t.variant), t.scenario): self._timed[t.id].medians for t in sound if t.kind == "latency"}
        compared = {(t.baseline, t.scenario) for t in sound if t.baseline != str(t.variant)}
        widest = 0.0
        for trial in sound:
            base = own.get((trial.baseline or "", trial.scenario))
            if trial.kind == "calibration" or trial.architecture in self._context.plan.floors:
                continue
            is_baseline = trial.baseline == str(trial.variant)
            if is_baseline and (trial.baseline, trial.scenario) in compared:
                continue
            medians = self._timed[trial.id].medians
            ratio = None if is_baseline or base is None else estimates.ratio(medians, base)
            interval = stats.estimate(ratio or estimates.latency(medians), self._looks)
            half = estimates.half_width(interval)
            widest = max(widest, math.inf if math.isnan(half) else half)
        return widest if sound else 0.0

    def _widest(self, trials: list[Trial]) -> str:
        half = self._half_width(trials)
        return f"; widest interval ±{100 * half:.2g} %" if 0 < half < 1 else ""

    def _measure(self, trials: list[Trial], slice_: int) -> None:
        """Time these trials in one worker; what fails beside others is tried again alone, so that it costs no other."""
        groups = self._groups(trials)
        alone = [group for group in groups if group[0].session in self._alone]
        if alone and len(groups) > 1:
            together = [trial for group in groups if group not in alone for trial in group]
            for part in (*alone, together):
                self._measure(part, slice_)
        elif groups:
            for part in self._measure_together(groups, slice_):  # the failed worker is gone by now
                self._measure(part, slice_)

    def _measure_together(self, groups: list[list[Trial]], slice_: int) -> list[list[Trial]]:
        """One worker opens, checks and times these trials in turns; if that failed, the parts to try again."""
        self._process = process = self._process + 1
        trials = [trial for group in groups for trial in group]
        found = {trial.id: _Timed() for trial in trials}
        variant = trials[0].variant
        try:
            with self._context.worker(variant.python) as worker:
                worker.ask("start_timing", self._context.seconds)
                for instance in range(1, self._latency.instances + 1):
                    self._measure_instance(worker, trials, (slice_, process, instance), found)
                noise = worker.ask("finish_timing", self._context.seconds)
        except (_TryAgain, WorkerFailure) as failure:
            for trial in trials:  # the process does not count, so neither do its checks
                checks = self._timed[trial.id].checks
                self._timed[trial.id].checks = {check: rows for check, rows in checks.items() if check[1] != process}
            return self._parts(trials, failure) if isinstance(failure, WorkerFailure) else [trials]
        for trial in trials:
            if self._outcomes[trial.id].status == "ok":
                timed = self._timed[trial.id]
                timed.samples |= found[trial.id].samples
                timed.instances |= found[trial.id].instances
                timed.medians |= found[trial.id].medians
        if not any(timed.samples for timed in found.values()):
            return []
        place = {"slice": slice_, "process": process, "task": trials[0].task}
        self._context.record_process({**place, "runtime": variant.runtime, "python": variant.python, **noise})
        return []

    def _groups(self, trials: list[Trial]) -> list[list[Trial]]:
        """The trials that are still sound, those of one session together."""
        return grouped([t for t in trials if self._outcomes[t.id].status == "ok"], lambda t: t.session)

    def _parts(self, trials: list[Trial], failure: WorkerFailure) -> list[list[Trial]]:
        """Timing failed. A trial alone is guilty; a session alone has its scenarios tried again one by one."""
        groups = self._groups(trials)
        points = [trial for group in groups for trial in group]
        if len(points) == 1:
            self._outcomes[points[0].id] = Outcome(failure.status, failure.reason)
            return []
        return groups if len(groups) > 1 else [[trial] for trial in points]

    def _measure_instance(
        self, worker: WorkerProcess, trials: list[Trial], at: estimates.Key, found: dict[str, _Timed]
    ) -> None:
        """Open, check, time and check again.

        Raises:
            _TryAgain: a check failed beside other sessions, or took the worker with it.
            WorkerFailure: timing failed; whose fault it was is not known.
        """
        groups = self._groups(trials)
        random.Random(f"{at} {groups}").shuffle(groups)
        is_alone = len(groups) == 1
        if at[2] > 1:
            worker.ask("release", self._context.seconds)
        for group in groups:
            self._verify(worker, group, at, "before", is_alone)
        points = [t for group in groups for t in group if self._outcomes[t.id].status == "ok"]
        if points:
            self._sample(worker, points, at, found)
        for group in grouped(points, lambda t: t.session):
            self._verify(worker, group, at, "after", is_alone)

    def _verify(
        self, worker: WorkerProcess, group: list[Trial], at: estimates.Key, moment: str, is_alone: bool
    ) -> None:
        """Check the very session that is timed; what a session does alone is its outcome.

        Beside others it may be their fault, for they share a process: then it is tried again alone, now and later.
        """
        steps = [trial for trial in group if trial.scenario == "training-step"]
        _, process, instance = at
        try:
            outcome, rows = self._verification.check(worker, group[0], moment)
            self._settle(group, ("parity", process, moment), outcome, rows, is_alone)
            group = steps  # what fails from here on is the training step's alone
            if steps and outcome.status == "ok" and (moment == "after" or instance == 1):
                outcome, rows = self._verification.check_training(worker, steps[0], moment)
                self._settle(steps, ("gradients", process, moment), outcome, rows, is_alone)
        except WorkerFailure as failure:
            self._settle(group, None, Outcome(failure.status, failure.reason), [], is_alone)
            if not failure.alive:
                raise _TryAgain from failure  # the guilty trials' outcome now says so

    def _settle(
        self,
        trials: list[Trial],
        check: tuple[str, int, str] | None,
        outcome: Outcome,
        rows: list[dict[str, Any]],
        is_alone: bool,
    ) -> None:
        """Set the trials' outcome; the observations behind it, the worst of the process, stand with the first."""
        if outcome.status != "ok" and not is_alone:
            self._alone.add(trials[0].session)
            raise _TryAgain
        if check:
            checks = self._timed[trials[0].id].checks
            checks[check] = worst_of(checks.get(check, []), rows)
            if outcome.status != "ok" and check[2] == "after":
                outcome = replace(outcome, reason=f"after timing: {outcome.reason}")
        if outcome.status != "ok":
            self._alone.discard(trials[0].session)  # the guilty ones are known; the others may go back
        for trial in trials:
            self._outcomes[trial.id] = outcome

    def _sample(self, worker: WorkerProcess, trials: list[Trial], at: estimates.Key, found: dict[str, _Timed]) -> None:
        """Time the open sessions and add the rows of the samples and instances tables to what was found."""
        slice_, process, instance = at
        points = [
            {"key": t.session, "scenario": t.scenario, "batch": t.batch, "time": t.time, "task": t.task} for t in trials
        ]
        latency = self._latency
        limit = self._context.seconds * len(trials)
        seed = 1000 * slice_ + instance
        reply = worker.ask("sample", limit, points=points, calls=latency.calls, budget=latency.seconds, seed=seed)
        counted: dict[str, list[float]] = {}
        for index, boundary, block, turn, call, start_s, elapsed_s, is_disturbed in reply["samples"]:
            row = [*at, boundary, block, turn, call, f"{start_s:.6f}", elapsed_s]
            trial = trials[index].id
            found[trial].samples.setdefault(process, []).append(
                [*row, "" if is_disturbed is None else int(is_disturbed)]
            )
            if boundary == "compute" and call > 0:
                counted.setdefault(trial, []).append(elapsed_s)
        for trial, elapsed in counted.items():
            if (median := statistics.median(elapsed)) > 0:
                found[trial].medians[at] = median
        for index, calls, is_steady in reply["warmup"]:
            settled = {"slice": slice_, "process": process, "instance": instance}
            settled |= {"warmup_calls": calls, "is_steady": is_steady}
            found[trials[index].id].instances.setdefault(process, []).append(settled)
