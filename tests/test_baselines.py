"""Every variant against every other: with the run's own baseline it is what the tables say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_up_runs import Timed, five, write_run

from harness.baselines import MOST_VARIANTS, Baselines
from harness.store import Run, load
from harness.tables import SETTING, instance_medians

REFERENCE = Path(__file__).parent.parent / "results" / "reference"


def found(run: Run) -> dict[str, dict[tuple[str, str, str], tuple[float, str]]]:
    """Ratio and verdict by baseline and row."""
    pairs = Baselines(run).pairs(run.summary, run.latency)
    return {name: {at: (own.ratio.value, own.verdict) for at, own in rows.items()} for name, rows in pairs.items()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    timed = [Timed("a@r", five(1e-3, 0.001)), Timed("b@r", five(5e-4, 0.002)), Timed("c@r", five(2e-3, 0.003))]
    return load(write_run(tmp_path / "run", *timed))


def test_with_the_runs_own_baseline_it_is_what_the_latency_table_says(run: Run) -> None:
    pairs = Baselines(run).pairs(run.summary, run.latency)["a@r"]
    rows = run.latency[run.latency["verdict"].notna()]
    assert len(rows) == len(pairs) == 4
    for _, row in rows.iterrows():
        own = pairs[row["variant"], row["scenario"], row["boundary"]]
        assert own.ratio.value == row["ratio"]
        assert (own.ratio.low, own.ratio.high) == (row["ratio_low"], row["ratio_high"])
        assert (own.verdict, own.half_width) == (row["verdict"], row["half_width"])


def test_with_another_baseline_every_ratio_is_the_quotient_of_two(run: Run) -> None:
    pairs = found(run)
    assert set(pairs) == {"a@r", "b@r", "c@r"}
    for base, others in pairs.items():
        assert {variant for variant, _, _ in others} == set(pairs) - {base}
        for (variant, scenario, boundary), (ratio, verdict) in others.items():
            back, word = pairs[variant][base, scenario, boundary]
            assert math.isclose(ratio * back, 1)
            assert {verdict, word} == {"faster", "slower"}
    assert math.isclose(pairs["b@r"]["c@r", "single-stream", "compute"][0], 4)


def test_what_was_not_timed_is_no_baseline_and_has_none(tmp_path: Path) -> None:
    timed = [Timed("a@r", five(1e-3, 0.001)), Timed("b@r", five(1e-3, 0.001)), Timed("c@r", status="failed")]
    pairs = found(load(write_run(tmp_path / "run", *timed)))
    assert set(pairs) == {"a@r", "b@r"}
    assert {variant for rows in pairs.values() for variant, _, _ in rows} == {"a@r", "b@r"}


@pytest.mark.parametrize(("count", "there"), [(1, 0), (2, 2), (MOST_VARIANTS, MOST_VARIANTS), (MOST_VARIANTS + 1, 0)])
def test_one_alone_and_too_many_have_none_to_choose_from(tmp_path: Path, count: int, there: int) -> None:
    timed = [Timed(f"{'a' if n == 0 else f'v{n}'}@r", five(1e-3, 0.001)) for n in range(count)]
    assert len(found(load(write_run(tmp_path / "run", *timed)))) == there


@pytest.mark.parametrize("name", ["deploy", "scenarios", "tutorial"])
def test_of_a_published_run_every_verdict_comes_back_with_the_baseline_it_was_made_with(name: str) -> None:
    run = load(REFERENCE / name)
    told = run.latency[run.latency["verdict"].notna()].drop_duplicates(["variant", "scenario", "boundary"])
    seen = 0
    known = Baselines(run)
    for _, rows in run.summary.groupby([*SETTING, "architecture"], sort=False):
        baseline = rows["baseline"].iloc[0]
        own = known.pairs(rows, run.latency)[baseline]
        for _, row in told[told["variant"].isin(rows["variant"])].iterrows():
            against = own[row["variant"], row["scenario"], row["boundary"]]
            assert (against.verdict, against.ratio.value) == (row["verdict"], row["ratio"])
            assert against.precision_met == row["precision_met"]
            seen += 1
    assert seen == len(told) > 10


def test_a_pair_is_no_surer_from_its_other_side(tmp_path: Path) -> None:
    """Twenty pairs share one error rate, whichever of a pair is the baseline."""
    architectures = [f"x{number}" for number in range(20)]
    timed = []
    for name in architectures:
        row = {"architecture": name, "baseline": f"{name}-a@r"}
        timed += [Timed(f"{name}-a@r", five(1e-3, 0.01), row), Timed(f"{name}-b@r", five(1.03e-3, 0.0), row)]
    own = {name: f"{name}-a@r" for name in architectures}
    run = load(write_run(tmp_path / "run", *timed, baselines=own))
    known, counts = Baselines(run), {"undecided": 0, "slower": 0}
    for name in architectures:
        rows = run.summary[run.summary["architecture"] == name]
        pairs = known.pairs(rows, run.latency)
        at = "single-stream", "compute"
        words = pairs[f"{name}-a@r"][f"{name}-b@r", *at].verdict, pairs[f"{name}-b@r"][f"{name}-a@r", *at].verdict
        assert words in (("undecided", "undecided"), ("slower", "faster"))
        counts[words[0]] += 1
    assert counts["undecided"] == 20  # alone each would be told apart


def test_alone_that_pair_is_told_apart(tmp_path: Path) -> None:
    run = load(write_run(tmp_path / "run", Timed("a@r", five(1e-3, 0.01)), Timed("b@r", five(1.03e-3, 0.0))))
    assert found(run)["a@r"]["b@r", "single-stream", "compute"][1] == "slower"


def test_medians_are_there_for_every_row_of_the_latency_table(run: Run) -> None:
    assert set(instance_medians(run.samples)) == {(row["trial"], row["boundary"]) for _, row in run.latency.iterrows()}
