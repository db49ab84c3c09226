"""Training, and the scores of every variant on trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.engine.accuracy import METRICS
from harness.engine.context import Context, Outcome, grouped
from harness.engine.process import WorkerFailure
from harness.engine.verification import Verification
from harness.plan import Trial, Variant
from harness.rounding import accuracy_problem


class Scoring:
    """The accuracy trials of a run. A variant that cannot train is scored on the weights of one that can."""

    def __init__(self, context: Context, verification: Verification) -> None:
        self._context = context
        self._verification = verification
        self._trials = context.plan.of("accuracy")
        self._planned = {(t.variant, t.task, t.seed): t for t in self._trials}
        self._trained: dict[tuple[Variant, str, int | None], tuple[Outcome, dict[str, Any]]] = {}

    def score_all(self) -> None:
        """Train, then score; one record an accuracy trial. What a resumed run holds is not done again."""
        self._recall()
        todo = [t for t in self._trials if not self._context.ended(t)]
        trainings = {(t.trained_by, t.task, t.seed): t for t in todo if t.trained_by}
        jobs = [
            replace(trial, variant=key[0])
            for key, trial in trainings.items()
            if key[0] and (key[0], *key[1:]) not in self._trained
        ]
        others = [t for t in todo if t.trained_by != t.variant]
        self._context.phase("accuracy", len(jobs) + len(others))
        self._context.parallel(self._train, grouped(jobs, lambda t: (t.variant, t.task)))
        self._context.parallel(self._evaluate, grouped(others, lambda t: (t.variant, t.task)))

    def _recall(self) -> None:
        """The trainings that a resumed run holds."""
        past = self._context.past
        if past is None:
            return
        scores = past.scores.set_index("trial")["score"].to_dict()
        for key, trial in self._planned.items():
            outcome = self._context.ended(trial)
            if outcome and trial.trained_by == trial.variant:
                self._trained[key] = (outcome, {"score": scores.get(trial.id)})
            elif outcome and outcome.status == "wrong":
                self._withhold(trial, outcome)
        trainers = {str(t.trained_by): t.trained_by for t in self._trials if t.trained_by}
        for row in past.trainings:
            if trainer := trainers.get(row["variant"]):
                result = {"score": row["score"]}
                self._trained[trainer, row["task"], row["seed"]] = (Outcome(row["status"], row["reason"]), result)

    def _train(self, trials: list[Trial]) -> None:
        """Train these seeds of one variant on one task; some are no rows of their own but serve others."""
        untrainable = self._verification.outcomes.get((trials[0].variant, trials[0].setting), Outcome())
        untrainable = self._context.broken_tasks.get(trials[0].task, untrainable)
        if untrainable.status in ("ok", "wrong"):
            answers = self._ask_each("train", trials, self._training)
        else:  # it could not even be opened or run
            answers = ((trial, untrainable, {}) for trial in trials)
        for trial, outcome, result in answers:
            key = (trial.variant, trial.task, trial.seed)
            self._trained[key] = (outcome, result)
            if key not in self._planned:
                facts = {"variant": str(trial.variant), "task": trial.task, "seed": trial.seed}
                facts |= {"status": outcome.status, "reason": outcome.reason, "score": result.get("score")}
                self._context.record_training(facts)
            self._finish(self._planned.get(key, trial), outcome, result, record=key in self._planned)

    def _evaluate(self, trials: list[Trial]) -> None:
        ready = []
        for trial in trials:
            problem = self._obstacle(trial)
            if problem:
                self._finish(trial, problem, {})
            else:
                ready.append(trial)
        for trial, outcome, result in self._ask_each("evaluate", ready, self._evaluation):
            if result and trial.trained_by:
                result["trainer_score"] = self._trained[trial.trained_by, trial.task, trial.seed][1]["score"]
                if trial.compute_dtype != trial.dtype and (text := self._loss(trial, result)):
                    outcome = Outcome("wrong", f"{trial.compute_dtype}: {text}")
                    self._withhold(trial, outcome)
            self._finish(trial, outcome, result)

    def _loss(self, trial: Trial, result: dict[str, Any]) -> str:
        """What a variant that computes in fewer bits loses more than it may, if it does."""
        agreeing = result["agreeing_rows"]
        return accuracy_problem(
            self._context.catalog.task(trial.task).kind,
            result["score"],
            result["trainer_score"],
            result["trivial_score"],
            None if agreeing is None else agreeing / result["rows"],
        )

    def _withhold(self, trial: Trial, outcome: Outcome) -> None:
        """A variant whose accuracy is wrong is not timed in any setting of the task; what was found before stands."""
        for variant, setting in self._verification.outcomes:
            if (variant, setting.task) == (trial.variant, trial.task):
                self._verification.withhold(variant, setting, outcome)

    def _obstacle(self, trial: Trial) -> Outcome | None:
        """Why a trial cannot be scored, if it cannot."""
        if trial.trained_by is None:
            return Outcome("skipped", f"nothing installed can train architecture '{trial.architecture}'")
        parity = self._verification.outcomes[trial.variant, trial.setting]
        if parity.status not in ("ok", "wrong"):  # a wrong variant is scored: the table shows what accuracy hides
            return parity
        outcome, _ = self._trained[trial.trained_by, trial.task, trial.seed]
        if outcome.status != "ok":
            return Outcome("skipped", f"training {trial.trained_by} ended as {outcome.status}: {outcome.reason}")
        if missing := [path for path in self._files(trial.trained_by, trial) if not Path(path).exists()]:
            return Outcome("skipped", f"{trial.trained_by} was trained, but {Path(missing[0]).name} is gone")
        return None

    def _ask_each(
        self, do: str, trials: list[Trial], arguments: Callable[[Trial], dict[str, Any]]
    ) -> Iterator[tuple[Trial, Outcome, dict[str, Any]]]:
        """Ask one worker for each trial in turn; a worker that dies costs only the trial it was at."""
        rest = list(trials)
        while rest:
            try:
                with self._context.worker([rest[0].variant], rest[0].task, rest[0].threads) as worker:
                    while rest:
                        trial = rest.pop(0)
                        self._context.running(f"{trial.variant} on {trial.task}, seed {trial.seed}")
                        request = {"task": trial.task, "data_dir": self._context.data_dir, **arguments(trial)}
                        request |= self._context.variant(trial)
                        try:
                            yield trial, Outcome(), worker.ask(do, self._context.seconds, **request)
                        except WorkerFailure as failure:
                            yield trial, self._context.failed(failure), {}
                            if not failure.alive:
                                break
            except WorkerFailure as failure:  # it could not be started
                yield rest.pop(0), self._context.failed(failure), {}

    def _training(self, trial: Trial) -> dict[str, Any]:
        weights, predictions = self._files(trial.variant, trial)
        return {"seed": trial.seed, "weights_path": weights, "predictions_path": predictions}

    def _evaluation(self, trial: Trial) -> dict[str, Any]:
        assert trial.trained_by
        weights, predictions = self._files(trial.trained_by, trial)
        return {"weights_path": weights, "trainer_predictions_path": predictions}

    def _files(self, trainer: Variant, trial: Trial) -> tuple[str, str]:
        assert self._context.folder
        stem = self._context.folder.path.resolve() / "weights" / f"{trial.task}.{trainer}.seed{trial.seed}"
        return f"{stem}.safetensors", f"{stem}.predictions.npy"

    def _finish(self, trial: Trial, outcome: Outcome, result: dict[str, Any], record: bool = True) -> None:
        scores: list[dict[str, Any]] = []
        if result:
            names = ("score", "trivial_score", "rows", "trainer_score", "agreeing_rows")
            metric = METRICS[self._context.catalog.task(trial.task).kind]
            scores = [{"metric": metric, **{name: result.get(name) for name in names}}]
        if record:
            self._context.record(trial, outcome, scores=scores, curves=result.get("curve", []))
        text = f"{result['score']:.4f}" if result else outcome.status
        self._context.step(f"{trial.variant} on {trial.task}, seed {trial.seed}: {text}")
