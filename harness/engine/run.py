"""The order of a run: parity, training and scores, latency, loads; each finished trial goes into the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.catalog import Catalog
from harness.contract import RAGGED_SCENARIOS, HarnessError
from harness.engine.context import Context, Outcome, Progress
from harness.engine.load import Loads
from harness.engine.measurement import Measurement
from harness.engine.process import WorkerFailure
from harness.engine.scoring import Scoring
from harness.engine.verification import Verification
from harness.environment import engine_digest
from harness.limits import BOUNDED, machine_key, products
from harness.plan import Plan
from harness.store import Run, RunFolder


@dataclass(frozen=True)
class Preflight:
    """What was found out before a run.

    Attributes:
        pythons: the environment of each of the suite's interpreters, by its name.
        broken_tasks: how loading their data ended, of the tasks whose plugin fails at it.
    """

    pythons: dict[str, dict[str, Any]]
    broken_tasks: dict[str, Outcome]


def execute(
    plan: Plan,
    catalog: Catalog,
    folder: RunFolder,
    data_dir: Path | None,
    progress: Progress | None,
    past: Run | None = None,
    broken_tasks: Mapping[str, Outcome] | None = None,
) -> None:
    """Run every trial of a plan. Each ends as one record in the folder's journal.

    Args:
        plan, catalog: what to run.
        folder: where it is kept.
        data_dir: the user's folder of data sets.
        progress: who is told how far it is.
        past: what the folder holds already; only what is missing is done.
        broken_tasks: of `preflight`.

    Raises:
        StoreError: results cannot be written any more.
    """
    context = Context(plan, catalog, folder, data_dir, progress, past)
    context.broken_tasks.update(broken_tasks or {})
    verification = Verification(context)
    verification.check_all()
    Scoring(context, verification).score_all()
    _measure_machine(context, verification)
    Measurement(context, verification).measure_all()
    Loads(context, verification).measure_all()


def _measure_machine(context: Context, verification: Verification) -> None:
    """Find out what the machine attains in every dtype and number of threads in which forward passes will be timed.

    It is a yardstick and no trial: where it cannot be had, rows have no bound. A resumed run keeps what it has.
    """
    past = [] if context.past is None else context.past.machine.to_dict("records")
    known = {machine_key(row) for row in past}
    context.peaks.update(products(past))
    settings = dict.fromkeys(
        (trial.device, trial.dtype, trial.threads)
        for trial in context.plan.of("latency")
        if trial.device == "cpu" and trial.scenario in BOUNDED and not trial.caches and not context.ended(trial)
        if verification.outcomes[trial.variant, trial.setting].status == "ok"
    )
    left = [setting for setting in settings if setting not in known]
    if left:
        context.phase("machine", len(left))
    for device, dtype, threads in left:
        setting = {"device": device, "dtype": dtype, "threads": threads}
        try:
            with context.started(None, [], threads=1) as worker:  # it starts threads itself
                rows = worker.ask("machine", context.seconds, dtype=dtype, threads=threads)
        except WorkerFailure as failure:
            context.step(f"what the machine attains is not known: {context.failed(failure).reason}")
            continue
        rows = [setting | row for row in rows]
        context.peaks.update(products(rows))
        context.record_machine(rows)
        context.step(f"what the machine attains in {dtype}")


def preflight(plan: Plan, catalog: Catalog, data_dir: Path | None) -> Preflight:
    """Try what a user can get wrong before anything is written: interpreters, every task's data, and the device.

    Raises:
        HarnessError: an interpreter cannot be started or has another version of the harness, data is missing or
            damaged, or no runtime of the plan has the device.
    """
    context = Context(plan, catalog, data_dir=data_dir)
    pythons = {name: _interpreter(context, name, path) for name, path in plan.suite.pythons.items()}
    broken: dict[str, Outcome] = {}
    needed = {trial.task for trial in plan.trials if trial.kind == "accuracy" or trial.scenario in RAGGED_SCENARIOS}
    for task in [task for task in plan.tasks if task in needed]:
        try:
            with context.worker([], task) as worker:
                worker.ask("load", context.seconds, task=task, data_dir=context.data_dir)
        except WorkerFailure as failure:
            if failure.is_data:
                raise HarnessError(f"task '{task}': {failure.reason}") from failure
            broken[task] = context.failed(failure)
    if plan.suite.device != "cpu":
        _require_device(context)
    return Preflight(pythons, broken)


def _interpreter(context: Context, name: str, path: str) -> dict[str, Any]:
    try:
        names = [plugin.name for plugin in context.catalog.plugins if not plugin.failure]
        with context.started(path, names) as worker:
            found: dict[str, Any] = worker.ask("environment", context.seconds)
    except WorkerFailure as failure:
        if isinstance(failure.__cause__, OSError):
            raise HarnessError(
                f"--python {name}: '{path}' cannot be started: {failure.__cause__.strerror}"
            ) from failure
        raise HarnessError(
            f"--python {name}: '{path}' has no harness of this version ({failure.reason}); install rnn-harness "
            f"{harness.__version__} and the plugins there"
        ) from failure
    other = found["versions"].get("rnn-harness")
    if other != harness.__version__:
        raise HarnessError(
            f"--python {name}: '{path}' has rnn-harness {other}; both sides are timed by one version, so install "
            f"{harness.__version__} there"
        )
    if found["engine"] != engine_digest():
        raise HarnessError(
            f"--python {name}: '{path}' has rnn-harness {other} with another engine; both sides are timed by the same "
            "code, so install this checkout's harness there"
        )
    return found


def _require_device(context: Context) -> None:
    reasons: dict[str, str] = {}
    for trial in context.plan.of("parity"):
        if trial.variant.runtime not in reasons:
            try:
                with context.worker([trial.variant]) as worker:
                    worker.ask("open", context.seconds, key="", **context.variant(trial))
                return
            except WorkerFailure as failure:
                if failure.status != "unsupported":
                    return  # a broken model says nothing of the device
                reasons[trial.variant.runtime] = failure.reason
    raise HarnessError("; ".join(dict.fromkeys(reasons.values())))
