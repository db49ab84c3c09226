"""Parity of every variant, before anything is trained, scored or timed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from harness import audits
from harness.architectures import BUILT_IN
from harness.audits import Evidence, Finding
from harness.contract import LayerSize
from harness.engine.context import MOST_JOBS, Context, Outcome, grouped
from harness.engine.energy import energy_counters
from harness.engine.process import WorkerFailure
from harness.gradients import GradientCheck, judge_gradients
from harness.parity import EQUATIONS, Observation, judge
from harness.plan import Setting, Trial, Variant


class Answers(Protocol):
    """Where sessions are opened and asked: a worker, or this process."""

    def ask(self, do: str, seconds: float, **arguments: Any) -> Any:
        """Answer one request of `harness.engine.worker.Worker`."""


class Verification:
    """The yardsticks of a run, and what came of holding each variant against them.

    Attributes:
        outcomes: how each variant fared in each setting.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        has_clock = context.plan.suite.device != "cpu" and bool(context.catalog.names("accelerator"))
        self._counts_energy = has_clock or bool(energy_counters())  # a device may count its own
        self._yardsticks: dict[tuple[str, LayerSize, str, str], tuple[str, list[Observation]] | WorkerFailure] = {}
        self.outcomes: dict[tuple[Variant, Setting], Outcome] = {}

    def check_all(self) -> None:
        """Check every variant of the plan, each in a worker of its own; one record each.

        What a resumed run knows already is not checked again, and a yardstick that nothing needs is not observed. Where
        the machine counts energy they are checked one after another, or the energy would be that of several.
        """
        context = self._context
        trials = []
        for trial in context.plan.of("parity"):
            if outcome := context.ended(trial):
                self.outcomes[trial.variant, trial.setting] = outcome
            else:
                trials.append(trial)
        needed = [t for t in context.plan.trials if t.kind != "accuracy" and not context.ended(t)]
        context.phase("parity", len(trials))
        context.parallel(self.find_yardstick, list({_yard(t): t for t in needed}.values()))
        most = 1 if self._counts_energy else MOST_JOBS
        context.parallel(self._check_variant, grouped(trials, lambda t: t.variant), most)

    def check(self, worker: Answers, trial: Trial, moment: str) -> tuple[Outcome, list[dict[str, Any]]]:
        """Check one session in a worker; if the moment is `before`, it is opened first.

        Args:
            moment: `first`, before everything; `before` and `after` the session is timed.

        Returns:
            the outcome, `ok` or `wrong`, and the rows of the parity table.

        Raises:
            WorkerFailure: it could not be opened or run, or its architecture's oracle could not.
        """
        found = self._yardsticks[_yard(trial)]
        if isinstance(found, WorkerFailure):
            raise found
        name, yardstick = found
        observations = self._observe(worker, trial, opened=moment != "before")
        try:
            judgement = judge(observations, yardstick, trial.compute_dtype)
        except ValueError as error:  # other cases than were asked for
            raise WorkerFailure("failed", f"the worker's reply cannot be read: {error}", alive=False) from error
        yard = {(o.case, o.part): o.rmse for o in yardstick}
        rows = [
            {"moment": moment, **asdict(o), "yardstick_rmse": yard[o.case, o.part], "yardstick": name}
            for o in observations
        ]
        return Outcome() if judgement.passed else Outcome("wrong", judgement.reason), rows

    def check_training(self, worker: Answers, trial: Trial, moment: str) -> tuple[Outcome, list[dict[str, Any]]]:
        """Check the training step of the variant that is open in a worker; returns and raises as `check` does.

        Before timing its gradients are checked, after timing the very trainer that was timed.
        """
        request = "timed_trainer" if moment == "after" else "gradients"
        rows = worker.ask(request, self._context.seconds, key=trial.session, task=trial.task)
        reason = judge_gradients([GradientCheck(**row) for row in rows])
        return Outcome("wrong", reason) if reason else Outcome(), rows

    def withhold(self, variant: Variant, setting: Setting, outcome: Outcome) -> None:
        """What was found of a variant since it was checked: nothing of it is timed in that setting from now on."""
        if self.outcomes[variant, setting].status == "ok":
            self.outcomes[variant, setting] = outcome

    def unrest(self, worker: Answers) -> tuple[Outcome | None, dict[str, Any]]:
        """What is wrong with a worker that should be idle, work that goes on after a call has returned, if it does.

        Also gives the row of the audits table.
        """
        finding = audits.rest(worker.ask("idle", self._context.seconds)["busy_cores"])
        return Outcome("failed", f"audit rest: {finding.problem}") if finding.problem else None, asdict(finding)

    def audit_served(self, trial: Trial, evidence: Sequence[Evidence]) -> tuple[Outcome, list[dict[str, Any]]]:
        """Judge what was seen beside the requests of a load trial; see `harness.audits.examine_served`."""
        own = self._with_peak(trial, evidence)
        return _audited(audits.examine_served(own, self._yardstick(trial), trial.compute_dtype))

    def audit(
        self, trial: Trial, evidence: Sequence[Evidence], ratios: Sequence[float]
    ) -> tuple[Outcome, list[dict[str, Any]]]:
        """Judge what was seen beside the timed calls of a trial; see `harness.audits.examine`.

        Returns:
            the outcome, `ok` or `wrong`, and the rows of the audits table.
        """
        own = self._with_peak(trial, evidence)
        return _audited(audits.examine(own, ratios, self._yardstick(trial), trial.compute_dtype))

    def _with_peak(self, trial: Trial, evidence: Sequence[Evidence]) -> list[Evidence]:
        """The evidence with the best peak that is known: the worker may have been busy when it measured its own."""
        peak = self._context.peaks.get((trial.device, trial.dtype, trial.threads), 0.0)
        return [
            replace(own, peak_flops_per_s=max(own.peak_flops_per_s, peak)) if own.peak_flops_per_s else own
            for own in evidence
        ]

    def _yardstick(self, trial: Trial) -> list[Observation]:
        found = self._yardsticks[_yard(trial)]
        if isinstance(found, WorkerFailure):
            raise found
        return found[1]

    def _check_variant(self, trials: list[Trial]) -> None:
        for trial in trials:
            rows: list[dict[str, Any]] = []
            costs: list[dict[str, Any]] = []
            matrices: list[dict[str, Any]] = []
            self._context.running(f"{trial.variant} on {trial.task}")
            try:
                with self._context.worker([trial.variant], threads=trial.threads) as worker:
                    costs = [self._start(worker, trial)]
                    matrices = worker.ask("matrices", self._context.seconds, key=trial.session)
                    outcome, rows = self.check(worker, trial, "first")
                    if outcome.status == "ok":
                        outcome = self.unrest(worker)[0] or outcome
                    if outcome.status == "ok":
                        costs[0] |= self._energy(worker, trial)
            except WorkerFailure as failure:
                outcome = self._context.failed(failure)
            self.outcomes[trial.variant, trial.setting] = outcome
            parity = [{"process": 0, **row} for row in rows]
            self._context.record(trial, outcome, parity=parity, costs=costs, matrices=matrices)
            self._context.step(f"{trial.variant} on {trial.task}: {outcome.status}")

    def _start(self, worker: Answers, trial: Trial) -> dict[str, Any]:
        """Open a session and call it once, at the first shape that will be timed: the row of the costs table."""
        key, seconds = trial.session, self._context.seconds
        costs = worker.ask("open", seconds, key=key, **self._context.variant(trial))
        for batch, time in self._shapes(trial)[:1]:
            costs |= {"batch": batch, "time": time}
            costs |= worker.ask("first_call", seconds, key=key, batch=batch, time=time)
            costs |= worker.ask("costs", seconds, key=key, batch=batch, time=time)
        return dict(costs)

    def _energy(self, worker: Answers, trial: Trial) -> dict[str, Any]:
        """The energy of a call at that shape, for the same row; nothing where no machine counts or no call ends.

        A session that fails here has been found right; it fails again where it is timed, and there it is told of.
        """
        for batch, time in self._shapes(trial)[:1] if self._counts_energy else ():
            with contextlib.suppress(WorkerFailure):
                found: dict[str, Any] = worker.ask(
                    "energy", self._context.seconds, key=trial.session, batch=batch, time=time
                )
                return found
        return {}

    def find_yardstick(self, trial: Trial) -> None:
        """Observe the yardstick of the trial's architecture and size.

        A yardstick that cannot be had here, or fails parity against the equations computed in its dtype, is replaced by
        those equations; the tables say which it was. What is known already is not observed again.
        """
        key = _yard(trial)
        if key in self._yardsticks:
            return
        yardstick = self._context.plan.yardsticks.get(trial.architecture)
        found = self._equations(trial, yardstick)
        if isinstance(found, WorkerFailure):
            self._yardsticks[key] = found
            return
        if trial.compute_dtype != trial.dtype:
            self._yardsticks[key] = (f"{EQUATIONS} in {trial.compute_dtype}", found)
            return
        self._yardsticks[key] = (EQUATIONS, found)
        if yardstick is not None:
            with contextlib.suppress(WorkerFailure), self._context.worker([yardstick], threads=trial.threads) as worker:
                observations = self._observe(worker, replace(trial, variant=yardstick))
                if judge(observations, found, trial.dtype).passed:
                    self._yardsticks[key] = (str(yardstick), observations)

    def _equations(self, trial: Trial, yardstick: Variant | None) -> list[Observation] | WorkerFailure:
        """The oracle's own equations in the trial's dtype, or rounded to its compute dtype.

        Those of the core are asked of a worker without any plugin; others of the first plugin that can be asked.
        """
        architecture = self._context.catalog.model(trial.variant.model).architecture
        request: dict[str, Any] = {"shapes": self._shapes(trial), **self._chunks(trial)}
        request |= {"size": asdict(trial.size), "dtype": trial.dtype, "compute_dtype": trial.compute_dtype}
        if architecture in BUILT_IN:
            return self._ask_for_equations([], {**request, "built_in": architecture.name})
        same = [t.variant.model for t in self._context.plan.trials if t.architecture == trial.architecture]
        failure: WorkerFailure | None = None
        for model in dict.fromkeys([*([yardstick.model] if yardstick else []), *same]):
            found = self._ask_for_equations([Variant(model, runtime="")], {**request, "model": model})
            if not isinstance(found, WorkerFailure):
                return found
            failure = failure or found
        assert failure
        return failure

    def _ask_for_equations(self, variants: list[Variant], request: dict[str, Any]) -> list[Observation] | WorkerFailure:
        try:
            with self._context.worker(variants) as worker:
                rows = worker.ask("equations", self._context.seconds, **request)
        except WorkerFailure as failure:
            return failure
        return [Observation(**row) for row in rows]

    def _observe(self, worker: Answers, trial: Trial, opened: bool = False) -> list[Observation]:
        key, seconds = trial.session, self._context.seconds
        if not opened:
            worker.ask("open", seconds, key=key, **self._context.variant(trial))
        rows = worker.ask("parity", seconds, key=key, shapes=self._shapes(trial), **self._chunks(trial))
        return [Observation(**row) for row in rows]

    def _shapes(self, trial: Trial) -> list[tuple[int, int]]:
        """The shapes (batch, time) at which a layer of this architecture and size will be timed, on whatever task."""
        forward = [t for t in self._timed_like(trial) if t.scenario != "training-step"]
        return list(dict.fromkeys((t.batch or 1, t.time or 1) for t in forward))

    def _chunks(self, trial: Trial) -> dict[str, int]:
        """How many steps a chunk has, where such a layer will be timed on chunks; as an argument of a request."""
        found = {t.time for t in self._timed_like(trial) if t.scenario == "stream" and t.time}
        return {"chunk_steps": found.pop()} if found else {}

    def _timed_like(self, trial: Trial) -> list[Trial]:
        """The latency and load trials of layers of this architecture and size."""
        timed = [*self._context.plan.of("latency"), *self._context.plan.of("load")]
        return [t for t in timed if (t.architecture, t.size) == (trial.architecture, trial.size)]


def _audited(findings: Sequence[Finding]) -> tuple[Outcome, list[dict[str, Any]]]:
    failed = next((finding for finding in findings if finding.problem), None)
    outcome = Outcome("wrong", f"audit {failed.audit}: {failed.problem}") if failed else Outcome()
    return outcome, [asdict(finding) for finding in findings]


def _yard(trial: Trial) -> tuple[str, LayerSize, str, str]:
    """What trials that share a yardstick have in common."""
    return trial.architecture, trial.size, trial.dtype, trial.compute_dtype


def worst_of(known: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each question asked of several instances the answer that is farthest off, in the order first asked."""
    found: dict[Any, dict[str, Any]] = {}
    for row in [*known, *rows]:
        question = (row["case"], row["part"]) if "case" in row else row["what"]
        error = "rmse" if "case" in row else "error"
        if question not in found or row[error] > found[question][error] or math.isnan(row[error]):
            found[question] = row
    return list(found.values())
