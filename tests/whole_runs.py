"""Runs of the engine from a suite's text, without the command around it, where every planned trial has its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strangers import QUICK, World

from harness.engine.run import execute
from harness.journal import read_journal
from harness.plan import Plan, make_plan
from harness.store import Run, RunFolder, load
from harness.suite import override, parse_suite

HEADER = {"name": "engine", "floors": [], "plugins": [], "environment": {"versions": {}}}
SINGLE = QUICK + "scenarios = ['single-stream']"  # so that no trainer builds a layer besides


class Steps:
    """Progress that is written down."""

    def __init__(self) -> None:
        self.planned = 0
        self.done: list[str] = []
        self.begun: list[str] = []

    def phase(self, title: str, steps: int) -> None:
        self.planned += steps

    def step(self, what: str) -> None:
        self.done.append(what)

    def running(self, what: str) -> None:
        self.begun.append(what)

    def fewer(self, steps: int) -> None:
        self.planned -= steps


def run_all(world: World, path: Path, text: str = QUICK, steps: Steps | None = None, **changes: Any) -> Run:
    catalog = world.catalog()
    plan = make_plan(override(parse_suite(text, "suite"), **changes), catalog)
    owners = {(entry.kind, entry.name): entry.plugin for entry in catalog.entries}
    trials = [trial.row(owners) for trial in plan.trials]
    baselines = {name: str(variant) for name, variant in plan.baselines.items()}
    folder = RunFolder(path, {**HEADER, "trials": trials, "baselines": baselines})
    try:
        execute(plan, catalog, folder, None, steps)
    finally:
        folder.close()
    assert_whole(plan, path)
    return load(path)


def assert_whole(plan: Plan, path: Path) -> None:
    """Every planned trial has exactly one record."""
    found = [record["trial"] for _, _, record in read_journal(path / "journal.jsonl").records if "trial" in record]
    assert sorted(found) == [trial.id for trial in plan.trials]
