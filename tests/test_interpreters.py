"""Several interpreters in one run: every variant in each of them, compared with itself in the first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from strangers import QUICK, World
from whole_runs import SINGLE, run_all

from harness import HarnessError
from harness.engine.run import preflight
from harness.plan import make_plan
from harness.suite import parse_suite


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "plugins", monkeypatch)


IN_DISGUISE = """#!/bin/sh
STRANGER_IS="{who}" exec "{python}" "$@"
"""
PARTICULAR = """
import os
import harness
from strangers import PlainRuntime

class Runtime(PlainRuntime):
    def __init__(self): super().__init__("particular")
    def open(self, *arguments):
        if os.environ.get("STRANGER_IS") == "second":
            raise harness.Unsupported("not in the second")
        return super().open(*arguments)

@harness.hookimpl
def harness_runtimes(): return [Runtime()]
"""


def disguised(folder: Path, *names: str) -> str:
    """The `pythons` table of a suite: this very interpreter under several names, which it knows."""
    lines = ["[pythons]"]
    for name in names:
        path = folder / f"{name}.sh"
        path.write_text(IN_DISGUISE.format(who=name, python=sys.executable), encoding="utf-8")
        path.chmod(0o755)
        lines.append(f'{name} = "{path}"')
    return "\n".join(lines)


def test_one_variant_in_two_interpreters_is_two_rows_of_which_the_second_is_compared_with_the_first(
    world: World, tmp_path: Path
) -> None:
    world.add_plain(plain_lstm="")
    text = QUICK + f"\n[pythons]\nzzz = '{sys.executable}'\naaa = '{sys.executable}'"
    run = run_all(world, tmp_path / "run", text, seeds=1)
    first, second = "plain-lstm@plain[zzz]", "plain-lstm@plain[aaa]"
    assert run.summary["variant"].tolist() == [first, second]
    assert set(run.trials["status"]) == {"ok"}
    assert set(run.latency["baseline"]) == {first}
    assert set(run.latency.loc[run.latency["variant"] == first, "ratio"]) == {1.0}
    other = run.latency[run.latency["variant"] == second]
    assert len(other) == 6
    assert (other["ratio"] > 0).all()
    assert set(other["ratio_unit"]) == {"slice"}
    assert run.trials.loc[run.trials["kind"] == "calibration", "variant"].tolist() == [first]
    timed = run.samples.merge(run.trials, on="trial")
    processes = timed.groupby(["slice", "python"])["process"].unique()
    assert sorted(int(number) for (number,) in processes) == [1, 2, 3, 4]
    assert set(run.processes[["process", "python"]].itertuples(index=False, name=None)) == set(
        timed[["process", "python"]].itertuples(index=False, name=None)
    )
    scored = run.trials[run.trials["kind"] == "accuracy"]
    assert scored["trained_by"].tolist() == scored["variant"].tolist() == [first, second]


def test_what_fails_in_one_interpreter_alone_costs_the_rows_in_that_one(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    world.add("particular", PARTICULAR)
    text = SINGLE + "\n" + disguised(tmp_path, "first", "second")
    run = run_all(world, tmp_path / "run", text, runtimes=["particular"], seeds=1)
    assert set(run.trials[["python", "status"]].itertuples(index=False, name=None)) == {
        ("first", "ok"),
        ("second", "unsupported"),
    }
    assert set(run.trials.loc[run.trials["python"] == "second", "reason"]) == {"not in the second"}
    assert set(run.latency["variant"]) == {"plain-lstm@particular[first]"}
    assert set(run.processes["python"]) == {"first"}


def test_interpreters_are_tried_before_anything_is_written(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    catalog = world.catalog()

    def tried(pythons: str) -> dict[str, Any]:
        return preflight(make_plan(parse_suite(f"seeds = 0\n{pythons}", "suite"), catalog), catalog, None).pythons

    assert tried("") == {}
    assert list(tried(disguised(tmp_path, "first", "second"))) == ["first", "second"]
    broken = tmp_path / "broken.sh"
    broken.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(HarnessError, match=r"'.*broken\.sh' has no harness of this version .*exit code 3"):
        tried(f"[pythons]\nok = '{sys.executable}'\nold = '{broken}'")
    with pytest.raises(HarnessError, match=r"none' cannot be started: No such file"):
        tried(f"[pythons]\nold = '{tmp_path / 'none'}'")


def test_an_interpreter_is_known_without_importing_a_plugin(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    catalog = world.catalog()
    world.add("deadly", "import os\nos._exit(9)")
    plan = make_plan(parse_suite(f"seeds = 0\n{disguised(tmp_path, 'first')}", "suite"), catalog)
    assert list(preflight(plan, catalog, None).pythons) == ["first"]
