"""The order of a run: parity first, then training and scores, then latency, each finished trial into the journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.catalog import Catalog
from harness.contract import HarnessError, LayerSize
from harness.engine.context import Context, Outcome, Progress
from harness.engine.measurement import Measurement
from harness.engine.process import WorkerFailure
from harness.engine.scoring import Scoring
from harness.engine.verification import Verification
from harness.plan import Plan, Variant, check_plan
from harness.store import RunFolder

CHECK_SIZES = (LayerSize(5, 6, 1), LayerSize(5, 6, 2))


def execute(plan: Plan, catalog: Catalog, folder: RunFolder, data_dir: Path | None, progress: Progress | None) -> None:
    """Run every trial of a plan. Each ends as one record in the folder's journal."""
    context = Context(plan, catalog, folder, data_dir, progress)
    verification = Verification(context)
    verification.check_all()
    Scoring(context, verification).score_all()
    Measurement(context, verification).measure_all()


def preflight(plan: Plan, catalog: Catalog, data_dir: Path | None) -> None:
    """Try what a user can get wrong before anything is written: every task's data, and the device.

    Raises:
        HarnessError: data is missing or damaged, or no runtime of the plan has the device.
    """
    context = Context(plan, catalog, data_dir=data_dir)
    if plan.suite.seeds:
        with context.worker() as worker:
            for task in plan.tasks:
                try:
                    worker.ask("load", context.seconds, task=task, data_dir=context.data_dir)
                except WorkerFailure as failure:
                    raise HarnessError(f"task '{task}': {failure.reason}") from failure
    if plan.suite.device != "cpu":
        _require_device(context)


def check_parity(catalog: Catalog, name: str, device: str, dtype: str) -> Iterator[tuple[Variant, str, Outcome]]:
    """The parity of the variants that a name means, with one and with two layers, as they are found out.

    Args:
        name: a variant (`model@runtime`), a model or a runtime.

    Raises:
        HarnessError: the name means nothing.
    """
    plan = check_plan(catalog, name, CHECK_SIZES, device, dtype)
    for trial in plan.trials:
        one = replace(plan, trials=(trial,))
        verification = Verification(Context(one, catalog))
        verification.check_all()
        yield trial.variant, trial.task, verification.outcomes[trial.variant, trial.task]


def _require_device(context: Context) -> None:
    reasons: dict[str, str] = {}
    for trial in context.plan.of("parity"):
        if trial.variant.runtime not in reasons:
            try:
                with context.worker() as worker:
                    worker.ask("open", context.seconds, key="", **context.variant(trial))
                return
            except WorkerFailure as failure:
                if failure.status != "unsupported":
                    return  # a broken model says nothing of the device
                reasons[trial.variant.runtime] = failure.reason
    raise HarnessError("; ".join(dict.fromkeys(reasons.values())))
