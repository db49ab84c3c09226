"""The conformance kit asked by the command: every variant, plugin and task in a worker of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog import Catalog
from harness.contract import MOST_REASON, HarnessError, LayerSize, printable
from harness.engine.context import Context, Outcome
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.engine.verification import Verification
from harness.plan import check_plan
from harness.testing import EVERY_CHECK, applicable, require_known

SIZES = (LayerSize(5, 6, 1), LayerSize(5, 6, 2))


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking one thing.

    Attributes:
        name: of a variant, plugin, task or accelerator.
        what: `1 layer`, `2 layers`, `plugin`, `task` or `accelerator`.
        outcome: `ok`; `unsupported` if every check was; else how the first that failed ended, and what each said.
    """

    name: str
    what: str
    outcome: Outcome


def check_conformance(
    catalog: Catalog,
    name: str,
    device: str,
    dtype: str,
    only: Collection[str] | None = None,
    data_dir: Path | None = None,
) -> Iterator[Checked]:
    """Ask the rules of everything that bears a name, as they are found out; see `harness.plan.check_plan`.

    Args:
        only: the rules to ask; None for all.
        data_dir: the user's folder of data sets.

    Raises:
        HarnessError: the name, or that of a rule, means nothing, or none of the rules is for what it means.
    """
    require_known("--checks", "check", only or (), list(EVERY_CHECK))
    plan = check_plan(catalog, name, SIZES, device, dtype)
    context = Context(plan, catalog, data_dir=data_dir)
    found = False

    def chosen(rules: Sequence[str]) -> list[str]:
        nonlocal found
        rest = [rule for rule in rules if only is None or rule in only]
        found = found or bool(rest)
        return rest

    with tempfile.TemporaryDirectory(prefix="harness-check-") as folder:
        if name in {plugin.name for plugin in catalog.plugins} and (rules := chosen(["import_is_free"])):
            yield Checked(name, "plugin", _ask(context, context.started(None, [name]), rules, {"name": name}))
        for trial in plan.trials:
            variant = trial.variant
            if rules := chosen(applicable(catalog.model(variant.model), catalog.runtime(variant.runtime))):
                request = context.variant(trial) | {"name": "", "cache_dir": folder}
                outcome = _ask(context, context.worker([variant]), rules, request)
                yield Checked(str(variant), trial.task, outcome)
        for task in plan.tasks:
            if rules := chosen(["task_data"]):
                yield Checked(task, "task", _ask(context, context.worker([], task), rules, {"name": task}))
        for own in (e for e in catalog.entries if e.kind == "accelerator" and name in (e.name, e.plugin.name)):
            if rules := chosen(["accelerator"]):
                asked = {"name": own.name, "device": device}
                worker = context.started(None, [own.plugin.name])
                yield Checked(own.name, "accelerator", _ask(context, worker, rules, asked))
    if not found:
        raise HarnessError(f"nothing to check: {', '.join(only or EVERY_CHECK)} is not for '{name}'")


def _ask(
    context: Context, starting: AbstractContextManager[WorkerProcess], rules: Sequence[str], request: dict[str, Any]
) -> Outcome:
    """Ask one rule after the other, as long as the worker lives, and whether it rests afterwards."""
    outcomes: dict[str, Outcome] = {}
    rule = rules[0]
    try:
        with starting as worker:
            for rule in rules:
                try:
                    row = worker.ask("conformance", context.seconds, check=rule, data_dir=context.data_dir, **request)
                    outcomes[rule] = Outcome(row["status"], row["reason"])
                except WorkerFailure as failure:
                    outcomes[rule] = context.failed(failure)
                    if not failure.alive:
                        break
            else:
                outcomes["idle"] = Verification(context).unrest(worker)[0] or Outcome()
    except WorkerFailure as failure:
        outcomes[rule] = context.failed(failure)
    return _together(outcomes)


def _together(outcomes: dict[str, Outcome]) -> Outcome:
    bad = {rule: outcome for rule, outcome in outcomes.items() if outcome.status not in ("ok", "unsupported")}
    if bad:
        said: dict[str, list[str]] = {}
        for rule, outcome in bad.items():
            said.setdefault(outcome.reason, []).append(rule)
        reason = "; ".join(f"{', '.join(rules)}: {reason}" for reason, rules in said.items())
        return Outcome(next(iter(bad.values())).status, printable(reason, MOST_REASON))
    refused = [outcome for rule, outcome in outcomes.items() if rule != "idle" and outcome.status == "unsupported"]
    return refused[0] if len(refused) == len(outcomes) - ("idle" in outcomes) else Outcome()
