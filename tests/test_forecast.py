"""What is said before a run: how many trials, and about how long."""

from __future__ import annotations

from pathlib import Path

import pytest
from strangers import PlainRuntime, plain_model
from test_plan import BOTH, a_catalog

import harness
from harness.forecast import (
    CONFIRMATIONS,
    PROBES,
    START_SECONDS,
    forecast,
    latency_seconds,
    load_seconds,
    plan_lines,
    unused,
)
from harness.plan import Plan, Trial, Variant, make_plan
from harness.store import Run
from harness.suite import Latency, Server, Stream, Suite, override, parse_suite_table

REFERENCE = Path(__file__).parent.parent / "results" / "reference"


def plan_of(run: Run) -> Plan:
    """The plan of a run that was kept, as far as a forecast looks at it."""
    trials = []
    for row in run.header["trials"]:
        size = harness.LayerSize(row["input_size"], row["hidden_size"], row["num_layers"])
        variant = Variant(row["model"], row["runtime"])
        trials.append(
            Trial(
                *(row["trial"], row["kind"], variant, row["task"], row["architecture"], size, row["device"]),
                *(row["dtype"], row["compute_dtype"], row["threads"]),
                scenario=row["scenario"],
            )
        )
    suite = parse_suite_table(run.header["suite"], "kept")
    return Plan(suite, tuple(trials), tuple({t.task for t in trials}), {}, (), {})


@pytest.mark.parametrize("name", ["tutorial", "deploy"])
def test_the_forecast_of_a_published_run_is_within_a_factor_of_two(name: str) -> None:
    run = harness.load(REFERENCE / name)
    plan = plan_of(run)
    taken = run.processes["seconds"].sum()
    share = run.processes["slice"].max() / plan.suite.latency.most_slices  # it may have ended before the last slice
    assert 0.5 < share * latency_seconds(plan) / taken < 2


def test_what_is_measured_longer_or_oftener_takes_longer() -> None:
    catalog = a_catalog(plain_model("a"), PlainRuntime("trains"))
    plain = latency_seconds(make_plan(Suite(), catalog))
    for changes in (
        {"slices": 10},
        {"instances": 8},
        {"seconds": 1.0},
        {"sweep": {"batch": [1, 2, 4]}},
        {"cold_cache": True},
    ):
        assert latency_seconds(make_plan(override(Suite(), **changes), catalog)) > plain


def test_no_setting_takes_much_longer_than_its_budget() -> None:
    suite = override(Suite(), slices=1000, budget_seconds=60.0)
    assert 60 < latency_seconds(make_plan(suite, BOTH)) < 60 + 7 * 12 * 1.0 + 9  # the budget, and one slice


def test_the_line_counts_trials_and_the_trainings_that_it_cannot_know() -> None:
    plan = make_plan(Suite(models=["a"], seeds=2), BOTH)
    assert forecast(plan).startswith(f"{len(plan.trials)} trials, about ")
    assert forecast(plan).endswith(" and 2 trainings")
    assert "training" not in forecast(make_plan(Suite(models=["a"], seeds=0), BOTH))


def test_the_plan_is_a_line_a_trial_and_the_forecast_last() -> None:
    plan = make_plan(override(Suite(models=["a"], seeds=1), sweep={"hidden_size": [6, 12]}), BOTH)
    lines = plan_lines(plan)
    assert len(lines) == 1 + len(plan.trials) + 2
    assert [line.split()[0] for line in lines[1:-2]] == [trial.id for trial in plan.trials]
    assert sum("tiny H=12 L=1 float32 1 thread" in line for line in lines) == sum(
        trial.size.hidden_size == 12 for trial in plan.trials
    )
    assert lines[-1] == forecast(plan)


def test_the_plan_says_which_caches_will_be_emptied() -> None:
    catalog = a_catalog(plain_model("a"), PlainRuntime("trains"))
    for cold in (True, False):
        lines = plan_lines(make_plan(override(Suite(), cold_cache=cold), catalog))
        assert any(line.endswith(", time 5, cold caches") for line in lines) == cold
        assert any("cold caches, twin 1" in line for line in lines) == cold


def test_loads_take_as_long_as_their_probes_last() -> None:
    server, stream = Server(seconds=3.0), Stream(seconds=1.0)  # and 20 chunks of a tenth of a second are 2 s
    suite = Suite(seeds=0, loads=["server", "stream"], server=server, stream=stream, latency=Latency(slices=2))
    plan = make_plan(suite, a_catalog(plain_model("a"), PlainRuntime("one")))
    assert load_seconds(plan) == 2 * (2 * START_SECONDS + PROBES * (3.0 + 2.0) + CONFIRMATIONS * 15.0)
    assert load_seconds(make_plan(Suite(), BOTH)) == 0.0


def test_a_scenario_that_nothing_has_is_told_of_and_the_others_are_planned() -> None:
    scenarios = ["single-stream", "training-step", "packed"]
    suite = override(Suite(models=["a"], runtimes=["plays"], seeds=0), scenarios=scenarios)
    plan = make_plan(suite, BOTH)
    assert unused(plan) == [
        f"scenario '{name}' is for none of these variants on these tasks" for name in ("training-step", "packed")
    ]
    assert plan_lines(plan)[-3:-1] == unused(plan)
