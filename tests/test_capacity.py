"""Capacity, from loads that are written down: what stands for a trial, how sure it is, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_runs import ENVIRONMENT, Probe, load_rows, probes_of, write_loads
from scipy import stats as scipy_stats

from harness.estimates import NOT_SUSTAINED, ONE_SIDED, REFUSED, SUSTAINED, highest_load
from harness.load_report import load_lines
from harness.report import write_report
from harness.store import Run, RunFolder, load
from harness.tables import records


def write(path: Path, found: Mapping[str, Mapping[int, Sequence[Probe]]], scenario: str = "server", **ends: str) -> Run:
    return load(write_loads(path, found, scenario, ends=ends))


FIVE = {slice_: probes_of(limit) for slice_, limit in enumerate([98.0, 100.0, 101.0, 103.0, 99.0], start=1)}


def test_the_capacity_is_the_geometric_mean_of_what_each_worker_sustained_with_its_interval(tmp_path: Path) -> None:
    (row,) = records(write(tmp_path / "run", {"a@r": FIVE}).capacity)
    logs = [math.log(limit) for limit in (98.0, 100.0, 101.0, 103.0, 99.0)]
    mean, error = sum(logs) / 5, math.hypot(scipy_stats.sem(logs), coarse(logs, STEP))
    low, high = scipy_stats.t.interval(0.95, 4, mean, error)
    found = [row[name] for name in ("capacity", "capacity_low", "capacity_high")]
    assert found == pytest.approx([math.exp(mean), math.exp(low), math.exp(high)])
    assert (row["workers"], row["probes"], row["refused"], row["unit"]) == (5, 20, 0, "requests/s")
    assert row["not_sustained"] == pytest.approx(98.0 * 1.04)
    assert (row["bound_s"], row["mean_batch"], row["ratio"], row["ratio_low"]) == (0.05, 1.5, 1.0, 1.0)
    assert (row["p50_s"], row["p99_s"]) == pytest.approx((0.003, 0.006))  # of the slices' own, at their limits
    assert math.isnan(row["real_time_factor"])


def scaled(factor: float, spread: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 1.0)) -> dict[int, list[Probe]]:
    """`FIVE`, times a factor and a part of each slice's own."""
    return {
        slice_: [(amount * factor * own, verdict) for amount, verdict in probes]
        for (slice_, probes), own in zip(FIVE.items(), spread, strict=True)
    }


def ends(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return row["ratio"], row["ratio_low"], row["ratio_high"]


def test_a_ratio_is_paired_by_slice_so_that_what_the_slice_does_to_both_cancels(tmp_path: Path) -> None:
    own = [0.96, 0.98, 1.0, 1.02, 1.04]
    _, row = records(write(tmp_path / "run", {"a@r": FIVE, "b@r": scaled(2.0, own)}).capacity)
    logs = [math.log(2.0 * each) for each in own]
    error = math.hypot(scipy_stats.sem(logs), coarse(logs, 2 * STEP))
    low, high = scipy_stats.t.interval(0.95, 4, sum(logs) / 5, error)
    assert ends(row) == pytest.approx((math.exp(sum(logs) / 5), math.exp(low), math.exp(high)))
    assert row["verdict"] == "carries more"


STEP = math.log(1.04)  # of all searches here


def coarse(logs: Sequence[float], step: float) -> float:
    """Half a step as a standard error, less what limits spread of a third of its square."""
    spread = float(np.var(logs, ddof=1))
    return math.sqrt(max(0.0, 1 - 3 * spread / step**2)) * step / 2 / ONE_SIDED


def test_pairs_that_agree_are_no_surer_than_the_steps_of_the_search_allow(tmp_path: Path) -> None:
    _, row = records(write(tmp_path / "run", {"a@r": FIVE, "b@r": scaled(2.0)}).capacity)
    half = math.exp(scipy_stats.t.ppf(0.975, 4) * STEP / ONE_SIDED)
    assert ends(row) == pytest.approx((2.0, 2.0 / half, 2.0 * half))


def test_workers_that_all_stopped_at_one_load_are_no_surer_of_it_than_its_step_allows(tmp_path: Path) -> None:
    (row,) = records(write(tmp_path / "run", {"a@r": {slice_: probes_of(100.0) for slice_ in FIVE}}).capacity)
    half = math.exp(scipy_stats.t.ppf(0.975, 4) * STEP / 2 / ONE_SIDED)
    assert (row["capacity_low"], row["capacity_high"]) == pytest.approx((100.0 / half, 100.0 * half))


def test_verdicts_are_over_all_loads_together_and_a_baseline_has_none(tmp_path: Path) -> None:
    others = {"b@r": scaled(1.4), "c@r": scaled(0.6), "d@r": FIVE}
    rows = records(write(tmp_path / "few", {"a@r": FIVE, **others}).capacity)
    assert pd.isna(rows[0]["verdict"])
    assert [row["verdict"] for row in rows[1:]] == ["carries more", "carries less", "undecided"]
    near = {"b@r": scaled(1.07)}
    (alone,) = records(write(tmp_path / "alone", {"a@r": FIVE} | near).capacity)[1:]
    together = records(write(tmp_path / "all", {"a@r": FIVE} | near | {f"d{n}@r": FIVE for n in range(5)}).capacity)
    assert (alone["verdict"], together[1]["verdict"]) == ("carries more", "undecided")
    assert ends(alone) == ends(together[1])


def test_what_is_the_same_is_the_tolerance_of_the_suite(tmp_path: Path) -> None:
    suite = {"latency": {"tolerance": 0.5}}
    path = write_loads(tmp_path / "run", {"a@r": FIVE, "b@r": scaled(1.07)}, suite=suite)
    assert records(load(path).capacity)[1]["verdict"] == "same"


def test_a_side_whose_steps_are_wider_is_told_too_low_and_the_interval_says_so(tmp_path: Path) -> None:
    wide = {slice_: probes_of(limit, 1.5) for slice_, limit in enumerate([60.0, 150.0, 100.0, 220.0, 45.0], start=1)}
    _, row = records(write(tmp_path / "run", {"a@r": FIVE, "b@r": wide}).capacity)
    logs = [math.log(one[2][0] / other[2][0]) for one, other in zip(wide.values(), FIVE.values(), strict=True)]
    own = [math.log(probes[2][0]) for probes in FIVE.values()]
    error = math.hypot(scipy_stats.sem(logs), coarse(own, STEP) + (math.log(1.5) - STEP) / 2 / ONE_SIDED)
    assert math.log(row["ratio_high"] / row["ratio"]) == pytest.approx(scipy_stats.t.ppf(0.975, 4) * error)


def test_slices_that_only_one_side_finished_are_in_its_capacity_and_in_no_ratio(tmp_path: Path) -> None:
    cut_short = {**scaled(1.0, [1.0, 9.0, 1.0, 1.0, 1.0]), 2: [(100.0, SUSTAINED), (200.0, REFUSED)]}
    a, b = records(write(tmp_path / "run", {"a@r": FIVE, "b@r": cut_short}).capacity)
    assert (a["workers"], b["workers"], b["refused"]) == (5, 4, 1)
    half = math.exp(scipy_stats.t.ppf(0.975, 3) * STEP / ONE_SIDED)
    assert ends(b) == pytest.approx((1.0, 1 / half, half))


@pytest.mark.parametrize("open_ended", [{1}, {1, 2, 3, 4, 5}])
def test_a_limit_above_which_nothing_was_tried_has_no_ratio_be_it_of_one_worker(
    tmp_path: Path, open_ended: set[int]
) -> None:
    found = {"a@r": FIVE, "b@r": {**FIVE, **{slice_: [(100.0, SUSTAINED)] for slice_ in open_ended}}}
    _, row = records(write(tmp_path / "run", found).capacity)
    assert row["capacity"] == pytest.approx(100.0, rel=0.02)
    assert 90 < row["capacity_low"] <= row["capacity_high"] < 110  # of what was sustained; how much more is not known
    assert math.isnan(row["ratio"])
    assert pd.isna(row["verdict"])


def test_where_a_worker_sustained_nothing_there_is_no_capacity_and_it_is_said_down_to_what(tmp_path: Path) -> None:
    found = {"a@r": FIVE, "b@r": {**FIVE, 3: [(20.0, NOT_SUSTAINED), (10.0, NOT_SUSTAINED)]}}
    run = write(tmp_path / "run", found)
    row = records(run.capacity)[1]
    assert (row["capacity"], row["not_sustained"]) == (0.0, 10.0)
    assert (row["none_sustained"], row["workers"], row["highest"]) == (1, 5, 103.0)
    assert math.isnan(row["capacity_low"])
    assert math.isnan(row["ratio"])
    assert "| b@r | t | none, down to 10, in 1 of 5 workers; up to 103 | – | – |" in (
        write_report(run.path).path / "report.md"
    ).read_text("utf-8")


def test_one_worker_leaves_the_interval_unknown(tmp_path: Path) -> None:
    (row,) = records(write(tmp_path / "run", {"a@r": {1: probes_of(50.0)}}).capacity)
    assert row["capacity"] == pytest.approx(50.0)
    assert math.isnan(row["capacity_low"])


def test_only_trials_that_are_ok_have_a_capacity_and_all_loads_are_kept(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE, "b@r": FIVE}, b="wrong")
    assert list(run.capacity["variant"]) == ["a@r"]
    assert len(run.loads) == 40


@pytest.mark.parametrize(
    ("probes", "found"),
    [
        ([], None),
        ([(1.0, REFUSED)], None),
        ([(1.0, SUSTAINED), (2.0, REFUSED)], None),
        ([(1.0, REFUSED), (1.0, NOT_SUSTAINED)], 0.0),
        ([(1.0, SUSTAINED), (4.0, NOT_SUSTAINED), (2.0, SUSTAINED)], 2.0),
    ],
)
def test_a_search_has_an_end_if_its_last_load_was_judged(probes: list[Probe], found: float | None) -> None:
    assert highest_load(probes) == found


def test_the_report_says_how_many_streams_a_core_carries_and_how_fast_a_chunk_is(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE, "b@r": FIVE}, scenario="stream")
    text = (write_report(run.path).path / "report.md").read_text(encoding="utf-8")
    assert "a chunk of 5 steps each 50 ms" in text
    assert (
        "| b@r | t | 100 (97.6–103) | 1.00× (0.94–1.06) | undecided | 100 | 1 % | 3 ms | 6 ms | 0.01 | 0 of 20 |"
        in text
    )
    assert "| a@r | t | stream | 1 | 1 | 49 streams | 700 |" in text
    assert (run.path / "tables" / "loads.csv").is_file()


def test_one_shared_slice_gives_a_ratio_without_an_interval(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": {1: probes_of(50.0)}, "b@r": {1: probes_of(100.0)}})
    text = (write_report(run.path).path / "report.md").read_text(encoding="utf-8")
    assert "| b@r | t | 100 | 2.00× | undecided | 1 ms | 2 ms |" in text
    assert "nan" not in text.partition("## Load")[2].partition("##")[0]
    assert "Loads found the caches" not in text


def test_beside_latencies_with_cold_caches_it_is_said_that_loads_found_them_as_they_were(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE})
    run.trials.loc[len(run.trials)] = {"kind": "latency", "caches": "cold"}
    assert "Loads found the caches as they were: only latencies were measured with cold ones." in load_lines(run)


def test_where_every_worker_sustained_nothing_that_is_all_that_is_said(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE, "b@r": {1: [(10.0, NOT_SUSTAINED)], 2: [(10.0, NOT_SUSTAINED)]}})
    assert "| b@r | t | none, down to 10 | – | – |" in (write_report(run.path).path / "report.md").read_text("utf-8")


def confirming(slice_: int, probes: Sequence[Probe], **others: Any) -> list[dict[str, Any]]:
    """A search that ended at 100, and what was offered to confirm it."""
    rows = [*load_rows(slice_, probes_of(100.0), "server"), *load_rows(slice_, probes, "server")]
    last = {"is_confirmation": True, "requests": 1000, "judged": 800, "is_capped": False} | others
    return [row | {"probe": number} | (last if number > 4 else {}) for number, row in enumerate(rows, start=1)]


def written_as(path: Path, *found: list[dict[str, Any]]) -> Run:
    """A run whose load trials, one a variant, have these rows."""
    run = write(path / "form", {f"{name}@r": {1: []} for name, _ in zip("abc", found, strict=False)})
    names = ("name", "baselines", "floors", "plugins", "environment", "trials")
    folder = RunFolder(path / "run", {name: run.header[name] for name in names})
    for number, rows in enumerate(found, start=1):
        folder.append({"trial": f"{number:04d}-load", "status": "ok", "reason": "", "loads": rows})
    folder.close()
    return load(path / "run")


def test_where_loads_were_confirmed_the_limit_is_the_one_that_was_and_its_misses_are_a_share(tmp_path: Path) -> None:
    lower = confirming(1, [(100.0, NOT_SUSTAINED), (95.0, SUSTAINED)], misses=8)
    none = confirming(1, [(100.0, NOT_SUSTAINED)])
    late = confirming(1, [(100.0, REFUSED)])
    run = written_as(tmp_path, lower, none, late)
    rows = records(run.capacity)
    assert [row["workers"] for row in rows] == [1, 1, 0]
    assert [row["capacity"] for row in rows[:2]] == pytest.approx([95.0, 0.0])
    assert rows[0]["misses"] == pytest.approx(8 / 800)
    assert run.loads["is_confirmation"].sum() == 4
    assert "| confirmation |" in (write_report(run.path).path / "report.md").read_text("utf-8")


def test_a_limit_that_is_only_a_cap_is_said_to_be_at_least_that_and_has_no_ratio(tmp_path: Path) -> None:
    found = [confirming(1, [(100.0, SUSTAINED)]), confirming(1, [(100.0, SUSTAINED)], is_capped=True)]
    run = written_as(tmp_path, *found)
    measured, capped = records(run.capacity)
    assert (measured["is_capped"], capped["is_capped"], capped["capacity"]) == (False, True, pytest.approx(100.0))
    assert math.isnan(capped["ratio"])
    assert "| b@r | t | at least 100 | – | – |" in (write_report(run.path).path / "report.md").read_text("utf-8")


def test_loads_that_were_written_before_there_were_confirmations_are_read_as_a_search(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE})
    assert not run.loads["is_confirmation"].any()
    assert not run.loads["is_capped"].any()
    assert run.loads["judged"].tolist() == run.loads["requests"].tolist()
    assert records(run.capacity)[0]["misses"] == pytest.approx(0.01)


def test_a_run_without_load_trials_says_nothing_of_loads(tmp_path: Path) -> None:
    folder = RunFolder(
        tmp_path / "run",
        {"name": "x", "baselines": {}, "floors": [], "plugins": [], "environment": ENVIRONMENT, "trials": []},
    )
    folder.close()
    run = load(tmp_path / "run")
    assert (len(run.loads), len(run.capacity)) == (0, 0)
    assert list(run.loads.columns)[:3] == ["trial", "slice", "probe"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"p99_s": "soon"}, "its p99_s is no number"),
        ({"rate_per_s": -5.0}, "a load is not above 0"),
        ({"rate_per_s": None}, "a load is not above 0"),
        ({"slice": None}, "a load has no slice, probe or requests"),
        ({"requests": 0}, "a load has no slice, probe or requests"),
    ],
)
def test_a_record_of_a_load_that_nobody_can_have_offered_is_named_as_damage(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE})
    folder = RunFolder(
        tmp_path / "other",
        {name: run.header[name] for name in ("name", "baselines", "floors", "plugins", "environment", "trials")},
    )
    folder.append(
        {
            "trial": "0001-load",
            "status": "ok",
            "reason": "",
            "loads": [load_rows(1, [(1.0, SUSTAINED)], "server")[0] | changes],
        }
    )
    folder.close()
    (damage,) = load(tmp_path / "other").damage
    assert damage.endswith(said)
