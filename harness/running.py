"""What `harness run` and `harness calibrate` do: survey, plan, try, execute, report; or go on with a run."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from harness.catalog import Catalog
from harness.contract import HarnessError
from harness.engine.run import execute, preflight
from harness.engine.survey import survey, survey_with
from harness.environment import environment
from harness.forecast import forecast, plan_lines, unused
from harness.journal import StoreError
from harness.notices import say
from harness.own_model import OwnModel
from harness.plan import Plan, make_plan
from harness.report import write_report
from harness.resumption import differences
from harness.schema import GOOD_STATUSES
from harness.store import Run, RunFolder, load
from harness.suite import Layer, Suite, override
from harness.terminal import Progress, print_summary, tell_damage


@dataclass(frozen=True)
class Resumption:
    """A run to go on with: its folder, what it holds, and whether its environment and suite may have changed."""

    folder: RunFolder
    past: Run
    allow_changed: bool


def run_suite(
    name: str,
    suite: Suite,
    baselines: list[str],
    plugins: list[str] | None,
    data_dir: Path | None,
    out: Path | None,
    quiet: bool,
    resumption: Resumption | None = None,
    own: OwnModel | None = None,
    dry_run: bool = False,
    wide: bool = False,
) -> None:
    """Survey the plugins, plan and run a suite, or what is missing of it.

    Args:
        name: of the run.
        suite: complete, with the command line's overrides.
        baselines: those that the command line names; each must be a variant of the run.
        plugins: the names of those to load; None for all.
        data_dir: the user's folder of data sets.
        out: the run's folder; None for a new one in `results/`.
        quiet: no progress on standard error.
        resumption: the run to go on with.
        own: the model that the command names. If it has one size only, layers have that size unless the suite says.
        dry_run: the plan is printed and nothing is run or written.
        wide: every column is printed, however wide the terminal.

    Raises:
        HarnessError: bad input, or nothing to run.
    """
    _check_slices(suite)
    _check_cores(suite)
    if baselines and suite.pythons:
        raise HarnessError("--baselines: with --python every variant is compared with itself; leave one of them out")
    with contextlib.ExitStack() as stack:
        if own:
            own, catalog = survey_with(own, plugins)
            stack.enter_context(own.handed_over())
            if own.size and suite.layer == Layer():
                suite = override(suite, hidden_size=own.size.hidden_size, num_layers=own.size.num_layers)
        else:
            catalog = survey(plugins)
        plan = make_plan(suite, catalog)
        for baseline in baselines:
            if baseline not in map(str, plan.variants()):
                names = ", ".join(map(str, plan.variants()))
                raise HarnessError(f"--baselines: no variant of this run is called '{baseline}'; there are: {names}")
        if dry_run:
            click.echo("\n".join(plan_lines(plan)))
            return
        execute_plan(name, plan, catalog, data_dir, out, quiet, resumption, own, wide)


def execute_plan(
    name: str,
    plan: Plan,
    catalog: Catalog,
    data_dir: Path | None,
    out: Path | None,
    quiet: bool,
    resumption: Resumption | None = None,
    own: OwnModel | None = None,
    wide: bool = False,
) -> Run:
    """Run a plan into a folder, write its report and print it; exits with 1 if a row is bad."""
    for plugin in catalog.plugins:
        if plugin.failure:
            say(f"harness: plugin '{plugin.name}' failed to load and is left out: {plugin.failure}")
    checked = preflight(plan, catalog, data_dir)
    header = _header(name, plan, catalog) | {"pythons": checked.pythons, "own_model": own.facts if own else None}
    if resumption:
        _resume(resumption, header)
    folder = resumption.folder if resumption else RunFolder(_run_path(out, name), header)
    past = resumption.past if resumption else None
    if not (quiet or resumption):
        for line in (*unused(plan), forecast(plan)):
            say(f"harness: {line}")
    progress = Progress(quiet)
    try:
        with contextlib.closing(folder), progress:
            if past is None or past.missing:
                execute(plan, catalog, folder, data_dir, progress, past, checked.broken_tasks)
    except (KeyboardInterrupt, StoreError) as error:
        kept = _kept(folder.path)
        command = ["harness", "run", "--resume", str(folder.path)]
        command += ["--data-dir", str(data_dir)] if data_dir else []
        say(f"harness: {kept} To go on: {shlex.join(command)}")
        if isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(HarnessError):
                write_report(folder.path)
        raise
    finished = write_report(folder.path)
    tell_damage(finished)
    print_summary(finished, wide)
    statuses = set(finished.trials["status"])
    if statuses <= {"unsupported", "skipped"}:
        say("harness: nothing ran: every trial is unsupported or skipped; the report says why")
        sys.exit(2)
    if not statuses <= GOOD_STATUSES:
        sys.exit(1)
    return finished


def _resume(resumption: Resumption, header: dict[str, Any]) -> None:
    """Check that a run can be gone on with, and write down that it is.

    Raises:
        HarnessError: something has changed, and it is not allowed.
    """
    folder, past = resumption.folder, resumption.past
    tell_damage(past)
    changed = differences(past.header, header)
    for difference in changed:
        say(f"harness: changed: {difference}")
    if changed and not resumption.allow_changed:
        count = f"{len(changed)} thing{'s' if len(changed) > 1 else ''} changed"
        raise HarnessError(
            f"'{folder.path}': {count} since the run began; go on with --allow-changed, which is recorded, or start a "
            "new run"
        )
    facts = {name: header["environment"][name] for name in ("started_utc", "command")}
    versions = {plugin["distribution"]: plugin["version"] for plugin in header["plugins"] if not plugin["failure"]}
    folder.append({"resumed": {**facts, "versions": versions, "changed": changed}})
    say(f"harness: {len(past.missing)} of {len(past.trials)} trials are missing")


def _kept(path: Path) -> str:
    try:
        run = load(path)
    except HarnessError as error:
        return f"{error}."
    return f"{len(run.trials) - len(run.missing)} of {len(run.trials)} trials are kept in {path}."


def _check_slices(suite: Suite) -> None:
    least, most = suite.latency.slices, suite.latency.max_slices
    if most is not None and most < least:
        raise HarnessError(
            f"{least} slices at least and {most} at most: raise max_slices (--max-slices) or lower slices"
        )


def _check_cores(suite: Suite) -> None:
    if not suite.cpus:
        return
    if not hasattr(os, "sched_getaffinity"):
        raise HarnessError("--cpus: this system binds no process to cores; leave it out")
    if missing := sorted(set(suite.cpus) - os.sched_getaffinity(0)):
        raise HarnessError(
            f"--cpus: this process may not use {', '.join(map(str, missing))}; it may use "
            f"{', '.join(map(str, sorted(os.sched_getaffinity(0))))}"
        )
    threads = max([suite.threads, *suite.sweep.threads])
    if threads > len(set(suite.cpus)):
        raise HarnessError(
            f"--cpus: {threads} threads on {len(set(suite.cpus))} cores; give more cores or fewer threads"
        )


def _run_path(out: Path | None, name: str) -> Path:
    return out or Path("results") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _header(name: str, plan: Plan, catalog: Catalog) -> dict[str, Any]:
    """What `run.json` says: everything known before the first trial."""
    owners = {(entry.kind, entry.name): entry.plugin for entry in catalog.entries}
    distributions = [plugin.distribution for plugin in catalog.plugins if not plugin.failure]
    return {
        "name": name,
        "suite": plan.suite.model_dump(),
        "baselines": {architecture: str(variant) for architecture, variant in plan.baselines.items()},
        "floors": list(plan.floors),
        "plugins": [vars(plugin) for plugin in catalog.plugins],
        "environment": environment(distributions, ["harness", *sys.argv[1:]]),
        "trials": [trial.row(owners) for trial in plan.trials],
    }
