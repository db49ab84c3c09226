"""Loads: how many requests a second, and how many streams, a variant sustains; each worker looks for its own limit.

A trial has as many workers as there are slices, one a slice, alone in its process and alone on the machine. In it the
session is checked, loads are offered by doubling and bisection, and the session is checked again.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any

from harness import estimates, stats
from harness.audits import Evidence
from harness.engine.arrivals import Load
from harness.engine.context import Context, Outcome
from harness.engine.probes import FILLING, PERCENTILE, Probe, confirmed, highest, judged
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.engine.verification import Verification
from harness.parity import Observation
from harness.plan import Trial
from harness.suite import CONFIRMED_TIMES, FEWEST_BOUNDS

START_SHARE = 0.75  # of the load at which a worker would never rest: mostly sustained, and twice as much never is
ATTEMPTS = 3  # at a load, while the generator is late
MOST_REQUESTS = 200_000  # of a probe of the search, which is never cut short: no load is offered that would need more
MOST_RATE = 1e6  # requests a second
CONFIRMATIONS = 12  # loads that are tried at most, each lower than the one before by the search's precision


@dataclass
class _Found:
    """What came of one trial so far: rows of tables, without the trial."""

    loads: list[dict[str, Any]] = field(default_factory=list)
    parity: list[dict[str, Any]] = field(default_factory=list)
    audits: list[dict[str, Any]] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)


class _GeneratorLate(Exception):
    """A load could not be judged, however often it was offered."""


class Loads:
    """The load trials of a run. A session is checked for parity right before and right after it serves."""

    def __init__(self, context: Context, verification: Verification) -> None:
        self._context = context
        self._verification = verification
        self._suite = context.plan.suite
        self._found: dict[str, _Found] = {}
        self._outcomes: dict[str, Outcome] = {}

    def measure_all(self) -> None:
        """Find every trial's limits; one record a trial. What a resumed run has no record of is done again whole."""
        trials = [t for t in self._context.plan.of("load") if not self._context.ended(t)]
        slices = self._suite.latency.slices
        self._context.phase("load", slices * len(trials))
        for setting in self._context.plan.settings():
            own = [t for t in trials if t.setting == setting]
            for trial in own:
                self._found[trial.id] = _Found()
                self._outcomes[trial.id] = self._verification.outcomes[trial.variant, setting]
                if self._outcomes[trial.id].status != "ok":
                    self._end(trial, self._outcomes[trial.id])
            order, shuffled = random.Random(str(setting)), list(own)
            for slice_ in range(1, slices + 1):
                order.shuffle(shuffled)
                for trial in shuffled:
                    step = f"{trial.variant} on {trial.task}, {trial.scenario}, slice {slice_} of {slices}"
                    if self._outcomes[trial.id].status == "ok":
                        self._context.running(step)
                        self._measure(trial, slice_)
                    self._context.step(step)
            for trial in own:
                if self._outcomes[trial.id].status == "ok":
                    self._end(trial, self._outcome(trial))

    def _outcome(self, trial: Trial) -> Outcome:
        """`ok` if a worker found its limit, or `failed` because the generator was late in all of them."""
        rows = self._found[trial.id].loads
        slices = {row["slice"] for row in rows}
        searches = ([row for row in rows if row["slice"] == slice_] for slice_ in slices)
        if any(estimates.worker_limit(own) is not None for own in searches):
            return Outcome()
        late = [row["generator_p99_s"] for row in rows if row["verdict"] == estimates.REFUSED]
        return Outcome(
            "failed",
            f"{estimates.GENERATOR_LATE} in {len(late)} of {len(rows)} probes, at its p99 by up to "
            f"{max(late, default=0.0):.2g} s where {rows[0]['bound_s']:.2g} s are the bound, so no limit was found: "
            "the machine is too busy; try again when it is quiet, or with a larger bound",
        )

    def _measure(self, trial: Trial, slice_: int) -> None:
        """One worker: check, search, check again. What fails ends the trial.

        What happened on the machine is recorded while loads are offered, and not while outputs are checked.
        """
        process = self._context.next_process()
        try:
            with self._context.worker([trial.variant], trial.task, trial.threads) as worker:
                outcome = self._check(worker, trial, slice_, "before")
                if outcome.status == "ok":
                    worker.ask("start_timing", self._context.seconds)
                    evidence = self._search(worker, trial, slice_)
                    noise = worker.ask("finish_timing", self._context.seconds)
                    row = {"slice": slice_, "process": process, "task": trial.task, "trial": trial.id}
                    row |= {"runtime": trial.variant.runtime, "python": trial.variant.python}
                    self._found[trial.id].processes.append({**row, **noise})
                    outcome = self._check(worker, trial, slice_, "after")
                if outcome.status == "ok":
                    outcome = self._audit(worker, trial, slice_, evidence)
        except WorkerFailure as failure:
            outcome = self._context.failed(failure)
        if outcome.status != "ok":
            self._end(trial, outcome)

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        self._outcomes[trial.id] = outcome
        found = self._found[trial.id]
        for row in found.processes:  # not before, or a trial that is done again whole would leave rows without loads
            self._context.record_process(row, [], [])
        self._context.record(trial, outcome, loads=found.loads, parity=found.parity, audits=found.audits)

    def _check(self, worker: WorkerProcess, trial: Trial, slice_: int, moment: str) -> Outcome:
        outcome, rows = self._verification.check(worker, trial, moment)
        self._found[trial.id].parity += [{"process": slice_, **row} for row in rows]
        if outcome.status == "wrong" and moment == "after":
            return replace(outcome, reason=f"after serving: {outcome.reason}")
        if outcome.status == "ok" and moment == "before":
            return self._verification.unrest(worker)[0] or outcome
        return outcome

    def _audit(self, worker: WorkerProcess, trial: Trial, slice_: int, evidence: list[Evidence]) -> Outcome:
        outcome, rows = self._verification.audit_served(trial, evidence)
        restless, row = self._verification.unrest(worker)
        self._found[trial.id].audits += [{"process": slice_, **row} for row in [*rows, row]]
        return restless or outcome

    def _search(self, worker: WorkerProcess, trial: Trial, slice_: int) -> list[Evidence]:
        """Offer loads until the limit is found, or the generator was too late to go on."""
        settings = {"scenario": trial.scenario, "time": trial.time, "most_batch": trial.batch, "task": trial.task}
        seconds = self._context.seconds
        reply = worker.ask("unloaded", seconds, key=trial.session, seed=slice_, **settings)
        service_s = max(reply["service_s"], 1e-9)
        evidence: list[Evidence] = []
        rows, (_, most) = self._found[trial.id].loads, self._range(trial)

        def sustains(amount: float, is_confirmation: bool) -> bool:
            for _ in range(ATTEMPTS):
                number = 1 + sum(row["slice"] == slice_ for row in rows)
                load = self._load(trial, amount, 1000 * slice_ + number, is_confirmation)
                probe = self._probe(worker, trial, load, evidence, is_confirmation)
                flags = {"is_confirmation": is_confirmation, "is_capped": amount >= most}
                rows.append({"slice": slice_, "probe": number, **_row(load, probe), **flags})
                if probe.verdict != estimates.REFUSED:
                    return probe.verdict == estimates.SUSTAINED
            raise _GeneratorLate

        with contextlib.suppress(_GeneratorLate):  # the last row says so
            self._find(trial, sustains, service_s)
        return evidence

    def _find(self, trial: Trial, sustains: Callable[[float, bool], bool], service_s: float) -> None:
        """Look for the limit; of a server, whose queue is a matter of chance, confirm it."""
        least, most = self._range(trial)
        stream, server = self._suite.stream, self._suite.server
        if trial.scenario == "stream":
            first = START_SHARE * stream.period_s / service_s
            highest(lambda amount: sustains(amount, False), first, least, most, stream.precision, whole=True)
            return
        found = highest(lambda rate: sustains(rate, False), START_SHARE / service_s, least, most, server.precision)
        confirmed(lambda rate: sustains(rate, True), found.sustained, least, server.precision, CONFIRMATIONS)

    def _range(self, trial: Trial) -> tuple[float, float]:
        """The lowest and the highest load that may be offered: 662 requests in time, and no probe below 20 bounds."""
        if trial.scenario == "stream":
            return 1, max(1, MOST_REQUESTS // self._suite.stream.chunks)
        server = self._suite.server
        most = min(MOST_RATE, MOST_REQUESTS / (FEWEST_BOUNDS * server.p99_seconds))
        return min(most, stats.samples_needed(PERCENTILE) / server.most_seconds), most

    def _load(self, trial: Trial, amount: float, seed: int, is_confirmation: bool) -> Load:
        if trial.scenario == "stream":
            stream = self._suite.stream
            return Load("stream", amount, round(amount) * stream.chunks, stream.period_s, 0.0, 1, seed)
        server = self._suite.server
        fewest, most, seconds = stats.samples_needed(PERCENTILE), MOST_REQUESTS, server.probe_seconds
        if is_confirmation:  # of which a part is not judged
            in_time = math.floor(amount * server.most_seconds)
            fewest = max(math.ceil(fewest * FILLING / (FILLING - 1)), min(CONFIRMED_TIMES * fewest, in_time))
            most, seconds = CONFIRMED_TIMES * MOST_REQUESTS, server.confirmation_seconds
        requests = max(fewest, min(most, math.ceil(amount * seconds)))
        return Load("server", amount, requests, 0.0, server.window_seconds, server.most_batch, seed)

    def _probe(
        self, worker: WorkerProcess, trial: Trial, load: Load, evidence: list[Evidence], is_confirmation: bool
    ) -> Probe:
        asked = perf_counter()
        reply = worker.ask("under_load", self._context.seconds, key=trial.session, time=trial.time, load=asdict(load))
        waited = perf_counter() - asked
        if len(reply["latencies_s"]) != load.requests or reply["calls"] > load.requests:
            raise WorkerFailure("failed", "the worker's reply cannot be read: it is of another load", alive=False)
        outputs = [Observation(**row) for row in reply["evidence"]["outputs"]]
        evidence.append(Evidence(**reply["evidence"] | {"outputs": outputs, "engine_s": waited}))
        is_stream, suite = load.scenario == "stream", self._suite
        bound_s = suite.stream.period_s if is_stream else suite.server.p99_seconds
        miss_share = suite.stream.miss_share if is_stream else None
        seen = {name: reply[name] for name in ("latencies_s", "delays_s", "calls", "busy_s")}
        offered_s = load.requests / load.amount if load.most_batch == 1 else math.inf
        if is_stream:
            offered_s = load.requests / load.streams * load.period_s
        return judged(
            **seen, bound_s=bound_s, miss_share=miss_share, offered_s=offered_s, is_confirmation=is_confirmation
        )


def _row(load: Load, probe: Probe) -> dict[str, Any]:
    """A probe as a row of the loads table."""
    is_stream = load.scenario == "stream"
    amount = {"rate_per_s": None if is_stream else load.amount, "streams": load.streams if is_stream else None}
    factor = probe.busy_s / (load.requests * load.period_s) if is_stream else None
    return {**amount, **asdict(probe), "real_time_factor": factor}
