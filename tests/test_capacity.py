"""Capacity, from loads that are written down: what stands for a trial, how sure it is, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import ENVIRONMENT, trial_row
from scipy import stats as scipy_stats

from harness.estimates import NOT_SUSTAINED, REFUSED, SUSTAINED, highest_load
from harness.report import write_report
from harness.store import Run, RunFolder, load
from harness.tables import records

Probe = tuple[float, str]


def probes_of(limit: float) -> list[Probe]:
    """A search that ended with this limit."""
    return [(limit / 2, SUSTAINED), (limit * 2, NOT_SUSTAINED), (limit, SUSTAINED), (limit * 1.04, NOT_SUSTAINED)]


def rows_of(slice_: int, probes: Sequence[Probe], scenario: str) -> list[dict[str, Any]]:
    stream = scenario == "stream"
    return [
        {"slice": slice_, "probe": number, "rate_per_s": None if stream else amount}
        | {"streams": int(amount) if stream else None, "requests": 700, "bound_s": 0.05, "p50_s": 0.001 * slice_}
        | {"p99_s": 0.002 * slice_, "p99_bound_s": 0.003, "misses": 7, "generator_p99_s": 1e-5, "mean_batch": 1.5}
        | {"busy_s": 1.0, "real_time_factor": 0.01 if stream else None, "verdict": verdict}
        for number, (amount, verdict) in enumerate(probes, start=1)
    ]


def write(path: Path, found: Mapping[str, Mapping[int, Sequence[Probe]]], scenario: str = "server", **ends: str) -> Run:
    """A run with one load trial a variant, and what each of its workers was offered, by slice."""
    trials: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for number, (variant, slices) in enumerate(found.items(), start=1):
        own = {"scenario": scenario, "batch": 1, "time": 5, "baseline": "a@r"}
        trials.append(trial_row(f"{number:04d}-parity", "parity", variant))
        trials.append(trial_row(f"{number:04d}-load", "load", variant, **own))
        rows = [row for slice_, probes in slices.items() for row in rows_of(slice_, probes, scenario)]
        kept.append({"trial": f"{number:04d}-parity", "status": "ok", "reason": ""})
        status = ends.get(variant.partition("@")[0], "ok")
        kept.append({"trial": f"{number:04d}-load", "status": status, "reason": "", "loads": rows})
    header = {"name": "made up", "baselines": {"lstm": "a@r"}, "floors": [], "plugins": [], "environment": ENVIRONMENT}
    for row in trials:
        for column in ("status", "reason", "log"):
            row.pop(column, None)
    folder = RunFolder(path, header | {"trials": trials})
    for record in kept:
        folder.append(record)
    folder.close()
    return load(path)


FIVE = {slice_: probes_of(limit) for slice_, limit in enumerate([98.0, 100.0, 101.0, 103.0, 99.0], start=1)}


def test_the_capacity_is_the_geometric_mean_of_what_each_worker_sustained_with_its_interval(tmp_path: Path) -> None:
    (row,) = records(write(tmp_path / "run", {"a@r": FIVE}).capacity)
    logs = [math.log(limit) for limit in (98.0, 100.0, 101.0, 103.0, 99.0)]
    mean, error = sum(logs) / 5, scipy_stats.sem(logs)
    low, high = scipy_stats.t.interval(0.95, 4, mean, error)
    found = [row[name] for name in ("capacity", "capacity_low", "capacity_high")]
    assert found == pytest.approx([math.exp(mean), math.exp(low), math.exp(high)])
    assert (row["workers"], row["probes"], row["refused"], row["unit"]) == (5, 20, 0, "requests/s")
    assert row["not_sustained"] == pytest.approx(98.0 * 1.04)
    assert (row["bound_s"], row["mean_batch"], row["ratio"], row["ratio_low"]) == (0.05, 1.5, 1.0, 1.0)
    assert (row["p50_s"], row["p99_s"]) == pytest.approx((0.003, 0.006))  # of the slices' own, at their limits
    assert math.isnan(row["real_time_factor"])


def test_a_ratio_is_paired_by_slice_so_that_what_the_slice_does_to_both_cancels(tmp_path: Path) -> None:
    twice = {slice_: [(2 * amount, verdict) for amount, verdict in probes] for slice_, probes in FIVE.items()}
    _, row = records(write(tmp_path / "run", {"a@r": FIVE, "b@r": twice}).capacity)
    assert [row[name] for name in ("ratio", "ratio_low", "ratio_high")] == pytest.approx([2.0, 2.0, 2.0])
    assert row["capacity_high"] / row["capacity_low"] > 1.01


def test_slices_that_only_one_side_finished_are_in_its_capacity_and_in_no_ratio(tmp_path: Path) -> None:
    cut_short = {**FIVE, 2: [(100.0, SUSTAINED), (200.0, REFUSED)]}
    a, b = records(write(tmp_path / "run", {"a@r": FIVE, "b@r": cut_short}).capacity)
    assert (a["workers"], b["workers"], b["refused"]) == (5, 4, 1)
    assert [b[name] for name in ("ratio", "ratio_low", "ratio_high")] == pytest.approx([1.0, 1.0, 1.0])


def test_where_a_worker_sustained_nothing_there_is_no_capacity_and_it_is_said_down_to_what(tmp_path: Path) -> None:
    found = {"a@r": FIVE, "b@r": {**FIVE, 3: [(20.0, NOT_SUSTAINED), (10.0, NOT_SUSTAINED)]}}
    run = write(tmp_path / "run", found)
    row = records(run.capacity)[1]
    assert (row["capacity"], row["not_sustained"]) == (0.0, 10.0)
    assert (row["none_sustained"], row["workers"], row["highest"]) == (1, 5, 103.0)
    assert math.isnan(row["capacity_low"])
    assert math.isnan(row["ratio"])
    assert "| b@r | t | none, down to 10, in 1 of 5 workers; up to 103 | – |" in (
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
    assert "| b@r | t | 100 (97.8–103) | 1.00× (1.00–1.00) | 100 | 1 % | 3 ms | 6 ms | 0.01 | 0 of 20 |" in text
    assert "| a@r | t | stream | 1 | 1 | 49 streams | 700 |" in text
    assert (run.path / "tables" / "loads.csv").is_file()


def test_one_shared_slice_gives_a_ratio_without_an_interval(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": {1: probes_of(50.0)}, "b@r": {1: probes_of(100.0)}})
    text = (write_report(run.path).path / "report.md").read_text(encoding="utf-8")
    assert "| b@r | t | 100 | 2.00× | 1 ms | 2 ms |" in text
    assert "nan" not in text.partition("## Load")[2].partition("##")[0]


def test_where_every_worker_sustained_nothing_that_is_all_that_is_said(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE, "b@r": {1: [(10.0, NOT_SUSTAINED)], 2: [(10.0, NOT_SUSTAINED)]}})
    assert "| b@r | t | none, down to 10 | – |" in (write_report(run.path).path / "report.md").read_text("utf-8")


def confirming(slice_: int, probes: Sequence[Probe], **others: Any) -> list[dict[str, Any]]:
    """A search that ended at 100, and what was offered to confirm it."""
    rows = [*rows_of(slice_, probes_of(100.0), "server"), *rows_of(slice_, probes, "server")]
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
    assert "| b@r | t | at least 100 | – |" in (write_report(run.path).path / "report.md").read_text("utf-8")


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


def test_a_record_whose_loads_are_no_numbers_is_named_as_damage(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"a@r": FIVE})
    folder = RunFolder(
        tmp_path / "other",
        {name: run.header[name] for name in ("name", "baselines", "floors", "plugins", "environment", "trials")},
    )
    folder.append({"trial": "0001-load", "status": "ok", "reason": "", "loads": [{"slice": 1, "p99_s": "soon"}]})
    folder.close()
    (damage,) = load(tmp_path / "other").damage
    assert damage.endswith("its p99_s is no number")
