"""Latency: slices of freshly started workers in random order; in each, instances of every variant of a runtime.

A slice gives every runtime one process. A process times several instances: all its sessions opened afresh, checked,
timed in turns and checked again. After the planned slices it is looked whether the ratios are precise enough.
"""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter
from typing import Any

from harness import audits, estimates, stats
from harness.audits import Evidence
from harness.engine.context import Context, Outcome, grouped
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.engine.verification import Verification, worst_of
from harness.parity import Observation
from harness.plan import Setting, Trial
from harness.samples import SAMPLE_COLUMNS


@dataclass
class _Found:
    """What one process found out of one trial: rows of tables, without the trial."""

    samples: list[list[Any]] = field(default_factory=list)
    instances: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)  # table, moment
    medians: dict[estimates.Key, float] = field(default_factory=dict)  # of the compute boundary, in seconds
    evidence: list[Evidence] = field(default_factory=list)  # one an instance
    audits: list[dict[str, Any]] = field(default_factory=list)

    def checked(self, process: int) -> dict[str, list[dict[str, Any]]]:
        """The rows of the parity, gradients and audits tables."""
        tables: dict[str, list[dict[str, Any]]] = {"parity": [], "gradients": []}
        for (table, _), rows in self.checks.items():
            tables[table].extend({"process": process, **row} for row in rows)
        return tables | {"audits": [{"process": process, **row} for row in self.audits]}

    def ratios(self) -> list[float]:
        """Of every instance, how long a repeated input took, over a fresh one."""
        found = [audits.repeats_ratio(own) for own in self.evidence]
        return [ratio for ratio in found if ratio is not None]


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
        self._medians: dict[str, dict[estimates.Key, float]] = {}  # by trial
        self._timed: set[str] = set()  # trials of which there are samples
        self._spent: dict[Setting, float] = {}  # seconds that a resumed run has measured already
        self._ratios: dict[str, list[float]] = {}  # repeated over fresh latency of the instances so far, by trial
        self._alone: set[str] = set()  # sessions that failed a check beside others

    def measure_all(self) -> None:
        """Time every trial whose variant passed parity; one record a process and its samples, and one a trial."""
        trials = [t for t in self._context.plan.trials if t.kind in ("latency", "calibration")]
        self._medians = {trial.id: {} for trial in trials}
        self._recall()
        left = {t.setting for t in trials if not self._context.ended(t)}
        workers = {(t.setting, t.variant.runtime, t.variant.python) for t in trials if t.setting in left}
        self._context.phase("latency", len(workers) * self._looks[-1])
        for setting in self._context.plan.settings():
            if setting in left:
                self._measure_setting(setting, [t for t in trials if t.setting == setting])
        for trial in trials:  # who is wrong beside the clock serves no load
            outcome = self._context.ended(trial) or self._outcomes[trial.id]
            if outcome.status == "wrong" and trial.scenario != "training-step":
                self._verification.withhold(trial.variant, trial.setting, outcome)

    def _recall(self) -> None:
        """What a resumed run has measured."""
        past = self._context.past
        if past is None:
            return
        counted = past.samples[(past.samples["boundary"] == "compute") & (past.samples["call"] > 0)]
        medians: dict[Any, float] = counted.groupby(["trial", *SAMPLE_COLUMNS[1:4]])["elapsed_s"].median().to_dict()
        for (trial, slice_, process, instance), median in medians.items():
            if trial in self._medians and median > 0:
                self._medians[trial][slice_, process, instance] = median
        self._timed.update(past.samples["trial"])
        planned = {trial.id: trial.setting for trial in self._context.plan.trials}
        settings = {process: planned.get(trial) for (trial, _, process, _) in medians}
        for row in past.processes.to_dict("records"):
            setting = settings.get(row["process"])
            if setting is not None:
                self._spent[setting] = self._spent.get(setting, 0.0) + row["seconds"]

    def _measure_setting(self, setting: Setting, trials: list[Trial]) -> None:
        self._alone.clear()
        for trial in trials:
            ended = self._context.ended(trial)
            self._outcomes[trial.id] = ended or self._verification.outcomes[trial.variant, setting]
            if not ended and self._outcomes[trial.id].status != "ok":
                self._context.record(trial, self._outcomes[trial.id])
        is_measured = any(o.status == "ok" for o in map(self._context.ended, trials) if o)
        if not is_measured:  # otherwise the run was cut off between the last slice and the last record
            self._measure_slices(setting, trials)
        for trial in trials:
            if self._outcomes[trial.id].status == "ok" and not self._context.ended(trial):
                is_timed = trial.id in self._timed
                self._context.record(trial, Outcome() if is_timed else Outcome("failed", "nothing of it was timed"))

    def _measure_slices(self, setting: Setting, trials: list[Trial]) -> None:
        order = random.Random(str(setting))
        shared = grouped(trials, lambda t: (t.variant.runtime, t.variant.python))
        first, last = self._looks[0], self._looks[-1]
        most = f"{first}–{last}" if first < last else str(last)
        started = monotonic() - self._spent.get(setting, 0.0)
        is_swept = len(self._context.plan.settings()) > len(self._context.plan.tasks)
        where = str(setting) if is_swept else setting.task
        seen = ""
        for slice_ in range(1, last + 1):
            if slice_ > 1 and monotonic() - started > self._latency.budget_seconds:
                self._context.fewer((last + 1 - slice_) * len(shared))
                break
            order.shuffle(shared)
            for group in shared:
                runtime, python = group[0].variant.runtime, group[0].variant.python
                step = f"{where}, {f'{runtime} of {python}' if python else runtime}, slice {slice_} of {most}"
                self._context.running(step + seen)
                self._measure([t for t in group if not self._has(t, slice_)], slice_)
                if group is not shared[-1]:
                    self._context.step(step)
            half = self._half_width(trials)  # between workers, while no clock runs
            seen = self._closing_in(half)
            self._context.step(step + seen)
            if slice_ in self._looks and half <= self._latency.precision:
                self._context.fewer((last - slice_) * len(shared))
                break

    def _has(self, trial: Trial, slice_: int) -> bool:
        return any(key[0] == slice_ for key in self._medians[trial.id])

    def _end(self, trial: Trial, outcome: Outcome, **tables: list[dict[str, Any]]) -> None:
        """A trial that is not to be timed further: its record is written at once."""
        self._outcomes[trial.id] = outcome
        self._context.record(trial, outcome, **tables)

    def _half_width(self, trials: list[Trial]) -> float:
        """The widest half of an interval of interest, as a share: of ratios, and of the latency of who has no other."""
        sound = [t for t in trials if self._outcomes[t.id].status == "ok" and self._medians[t.id]]
        own = {(str(t.variant), t.point): self._medians[t.id] for t in sound if t.kind == "latency"}
        compared = {(t.baseline, t.point) for t in sound if t.baseline != str(t.variant)}
        widest = 0.0
        for trial in sound:
            base = own.get((trial.baseline or "", trial.point))
            if trial.kind == "calibration" or trial.architecture in self._context.plan.floors:
                continue
            is_baseline = trial.baseline == str(trial.variant)
            if is_baseline and (trial.baseline, trial.point) in compared:
                continue
            medians = self._medians[trial.id]
            ratio = None if is_baseline or base is None else estimates.ratio(medians, base)
            interval = stats.estimate(ratio or estimates.latency(medians), self._looks)
            half = estimates.half_width(interval)
            widest = max(widest, math.inf if math.isnan(half) else half)
        return widest if sound else 0.0

    def _closing_in(self, half: float) -> str:
        """How wide the widest interval is after a slice, and the target. It decides nothing but at a planned look."""
        target = f"target ±{100 * self._latency.precision:.3g} %"
        return f"; widest ±{100 * half:.2g} %, {target}" if 0 < half < 1 else ""

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
        process = self._context.next_process()
        trials = [trial for group in groups for trial in group]
        found = {trial.id: _Found() for trial in trials}
        variants = list(dict.fromkeys(trial.variant for trial in trials))
        try:
            with self._context.worker(variants, trials[0].task, trials[0].threads) as worker:
                worker.ask("start_timing", self._context.seconds)
                for instance in range(1, self._latency.instances + 1):
                    self._measure_instance(worker, trials, (slice_, process, instance), found)
                noise = worker.ask("finish_timing", self._context.seconds)
        except _TryAgain:
            return [trials]
        except WorkerFailure as failure:
            return self._parts(trials, failure)
        timed = [t for t in trials if self._outcomes[t.id].status == "ok" and found[t.id].samples]
        if timed:
            variant = variants[0]
            row = {"slice": slice_, "process": process, "task": trials[0].task, "runtime": variant.runtime}
            self._context.record_process(
                {**row, "python": variant.python, **noise},  # what the worker says has none of these keys
                [{"trial": t.id, "instances": found[t.id].instances, **found[t.id].checked(process)} for t in timed],
                ([t.id, *sample] for t in timed for sample in found[t.id].samples),
            )
        self._timed.update(trial.id for trial in timed)
        for trial in timed:
            self._medians[trial.id] |= found[trial.id].medians
            self._ratios.setdefault(trial.id, []).extend(found[trial.id].ratios())
        return []

    def _groups(self, trials: list[Trial]) -> list[list[Trial]]:
        """The trials that are still sound, those of one session together."""
        return grouped([t for t in trials if self._outcomes[t.id].status == "ok"], lambda t: t.session)

    def _parts(self, trials: list[Trial], failure: WorkerFailure) -> list[list[Trial]]:
        """Timing failed. A trial alone is guilty; a session alone has its scenarios tried again one by one."""
        groups = self._groups(trials)
        points = [trial for group in groups for trial in group]
        if len(points) == 1:
            self._end(points[0], self._context.failed(failure))
            return []
        return groups if len(groups) > 1 else [[trial] for trial in points]

    def _measure_instance(
        self, worker: WorkerProcess, trials: list[Trial], at: estimates.Key, found: dict[str, _Found]
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
            self._verify(worker, group, at, "before", found, is_alone)
        points = [t for group in groups for t in group if self._outcomes[t.id].status == "ok"]
        if points:
            self._sample(worker, points, at, found)
        for group in grouped(points, lambda t: t.session):
            self._verify(worker, group, at, "after", found, is_alone)
        self._audit([t for t in points if self._outcomes[t.id].status == "ok"], at, found, is_alone)
        sound = [trial for trial in points if self._outcomes[trial.id].status == "ok"]
        if not sound or at[2] < self._latency.instances:
            return
        outcome, row = self._verification.unrest(worker)
        if outcome and not is_alone:  # whose work goes on cannot be told
            self._alone.update(group[0].session for group in groups)
            raise _TryAgain
        for trial in sound:
            found[trial.id].audits.append(row)
            if outcome:
                self._end(trial, outcome, **found[trial.id].checked(at[1]))

    def _verify(
        self,
        worker: WorkerProcess,
        group: list[Trial],
        at: estimates.Key,
        moment: str,
        found: dict[str, _Found],
        is_alone: bool,
    ) -> None:
        """Check the very session that is timed; what a session does alone is its outcome.

        Beside others it may be their fault, for they share a process: then it is tried again alone, now and later.
        """
        steps = [trial for trial in group if trial.scenario == "training-step"]
        _, process, instance = at
        rows: list[dict[str, Any]] = []

        def settle(trials: list[Trial], table: str, outcome: Outcome, rows: list[dict[str, Any]]) -> None:
            """The observations behind an outcome, the worst of the process, stand with the first of the trials."""
            if outcome.status != "ok" and not is_alone:
                self._alone.add(group[0].session)
                raise _TryAgain
            own = found[trials[0].id]
            own.checks[table, moment] = worst_of(own.checks.get((table, moment), []), rows)
            if outcome.status == "ok":
                return
            if rows and moment == "after":
                outcome = replace(outcome, reason=f"after timing: {outcome.reason}")
            self._alone.discard(group[0].session)  # the guilty ones are known; the others may go back
            for trial in trials:
                self._end(trial, outcome, **(own.checked(process) if trial is trials[0] else {}))

        blamed = group
        try:
            outcome, rows = self._verification.check(worker, group[0], moment)
            if outcome.status == "ok" and (instance, moment) == (1, "before"):
                outcome = self._verification.unrest(worker)[0] or outcome
            settle(group, "parity", outcome, rows)
            blamed = steps  # what fails from here on is the training step's alone
            if steps and outcome.status == "ok" and (moment == "after" or instance == 1):
                outcome, rows = self._verification.check_training(worker, steps[0], moment)
                settle(steps, "gradients", outcome, rows)
        except WorkerFailure as failure:
            settle(blamed, "parity", self._context.failed(failure), [])
            if not failure.alive:
                raise _TryAgain from failure  # the guilty trials' outcome now says so

    def _audit(self, trials: list[Trial], at: estimates.Key, found: dict[str, _Found], is_alone: bool) -> None:
        """Judge what was seen beside the calls that this process has timed so far.

        Raises:
            _TryAgain: an audit failed beside other sessions.
        """
        for trial in trials:
            own = found[trial.id]
            is_last = at[2] == self._latency.instances  # so that few looks are taken at what grows
            ratios = [*self._ratios.get(trial.id, []), *own.ratios()] if is_last else []
            outcome, own.audits = self._verification.audit(trial, own.evidence, ratios)
            if outcome.status != "ok":
                if not is_alone:
                    self._alone.add(trial.session)
                    raise _TryAgain
                self._end(trial, outcome, **own.checked(at[1]))

    def _sample(self, worker: WorkerProcess, trials: list[Trial], at: estimates.Key, found: dict[str, _Found]) -> None:
        """Time the open sessions and add the rows of the samples and instances tables to what was found."""
        slice_, process, instance = at
        points = [
            {"key": t.session, **{n: getattr(t, n) for n in ("scenario", "batch", "time", "task", "caches")}}
            for t in trials
        ]
        latency = self._latency
        limit = self._context.seconds * len(trials)
        seed, asked = 1000 * slice_ + instance, perf_counter()
        how = {
            "calls": latency.calls,
            "budget": latency.seconds,
            "data_dir": self._context.data_dir,
            "clock": self._context.clock,
        }
        reply = worker.ask("sample", limit, points=points, seed=seed, **how)
        waited = perf_counter() - asked
        self._context.clock = reply["clock"]
        is_whole = len(reply["evidence"]) == len(reply["work"]) == len(trials)
        if not is_whole or any(row[0] >= len(trials) for name in ("samples", "warmup") for row in reply[name]):
            raise WorkerFailure("failed", "the worker's reply cannot be read: it is of other trials", alive=False)
        for trial, seen in zip(trials, reply["evidence"], strict=True):
            outputs = [Observation(**row) for row in seen["outputs"]]
            found[trial.id].evidence.append(Evidence(**seen | {"outputs": outputs, "engine_s": waited}))
        counted: dict[str, list[float]] = {}
        for index, boundary, block, turn, call, start_s, elapsed_s, is_disturbed in reply["samples"]:
            row = [*at, boundary, block, turn, call, f"{start_s:.6f}", elapsed_s]
            name = trials[index].id
            found[name].samples.append([*row, "" if is_disturbed is None else int(is_disturbed)])
            if boundary == "compute" and call > 0:
                counted.setdefault(name, []).append(elapsed_s)
        for name, elapsed in counted.items():
            if (median := statistics.median(elapsed)) > 0:
                found[name].medians[at] = median
        for index, calls, is_steady in reply["warmup"]:
            settled: dict[str, Any] = {"slice": slice_, "process": process, "instance": instance}
            rows, steps = reply["work"][index]
            settled |= {"warmup_calls": calls, "is_steady": is_steady, "rows": rows, "steps": steps or None}
            found[trials[index].id].instances.append(settled)
