"""The proof of the timing: its recordings grow row by row, and its rates are what made-up records say they are."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_runs import Timed, process_row, write_run

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks, under pytest's importlib mode

from benchmarks import analysis, peers, recording, summary, truth
from benchmarks.analysis import Cell, Process, Rule
from benchmarks.null import NullReading
from benchmarks.workloads import WORKLOADS, identical_pairs, planted_pairs
from harness import verdicts
from harness.compare import compare
from harness.sides import load_side

ARMS = ("A1", "A2", "A3", "A4", "+1%", "+2%", "+2%-2", "+5%")
RULE = Rule(precision=0.01, first=3, most=12)
RECORDING = recording.recordings(2)["numpy-quiet"]


def made_up(
    number: int, layout: float = 0.01, process: float = 0.0, seed: int = 0, arms: Sequence[str] = ARMS
) -> list[Process]:
    """Processes of 8 instances whose medians scatter by `layout`, and together by `process`; 20 ms an arm."""
    rng = np.random.default_rng(seed)

    def cells(arm: str, together: float) -> tuple[Cell, ...]:
        slow = int(arm[1]) / 100 if arm.startswith("+") else 0.0
        logs = together + math.log1p(slow) + layout * rng.standard_normal(8)
        return tuple(Cell(1e-3 * math.exp(log), 0.02, 0.005) for log in logs)

    return [
        Process(1.5, {arm: cells(arm, together) for arm in arms}) for together in process * rng.standard_normal(number)
    ]


def reply(*elapsed: tuple[int, int, float]) -> dict[str, Any]:
    """A worker's reply to `sample`: (point, call, elapsed_s) each."""
    samples = [[point, "compute", 0, 0, call, 1.0, elapsed_s, call == 2] for point, call, elapsed_s in elapsed]
    return {"samples": samples, "warmup": [[0, 7, True], [1, 9, False]]}


# ------------------------------------------------------------------------------------------------------- workloads


def test_a_planted_slowdown_is_more_steps_of_the_same_work() -> None:
    numpy = WORKLOADS["numpy"]
    assert [numpy.arm(name).time for name in ("A1", "A2", "+1%", "+2%-2", "+5%")] == [300, 300, 303, 306, 315]


def test_pairs_of_identical_arms_share_no_arm() -> None:
    assert identical_pairs(["A1", "A2", "A3", "A4", "A5", "+1%"]) == [("A1", "A2"), ("A3", "A4")]


def test_every_slowed_arm_has_an_identical_one_of_its_own() -> None:
    assert planted_pairs(ARMS, 2) == [("+2%", "A1"), ("+2%-2", "A2")]
    assert planted_pairs(["A1", "+2%"], 1) == []


# ------------------------------------------------------------------------------------------------------- recording


def test_the_first_call_of_a_turn_costs_and_does_not_count() -> None:
    first, second = recording.instance_rows(
        ["A1", "+2%"], reply((0, 0, 9.0), (0, 1, 1.0), (0, 2, 3.0), (1, 0, 5.0), (1, 1, 4.0))
    )
    assert (first["median_s"], first["measured_s"], first["counted_calls"], first["disturbed_calls"]) == (2, 13, 2, 1)
    assert (second["arm"], second["median_s"], second["measured_s"], second["is_steady"]) == ("+2%", 4, 9, 0)


def record_made_up(folder: Path, processes: int, monkeypatch: pytest.MonkeyPatch, arm: str = "A1") -> int:
    """Record without a worker; gives how many processes were added."""

    def one_process(each: recording.Recording, number: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        row = dict.fromkeys(recording.INSTANCE_COLUMNS, 1) | {"process": number, "instance": 0}
        return [row | {"arm": name} for name in (arm, *each.arms[1:])], {"process": number, "wall_s": 2.0}

    monkeypatch.setattr(recording, "one_process", one_process)
    return len(list(recording.record(RECORDING, folder, processes, seed=1)))


def test_a_recording_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [record_made_up(tmp_path, number, monkeypatch) for number in (2, 2, 5)] == [2, 0, 3]
    assert recording.recorded(RECORDING, tmp_path) == [0, 1, 2, 3, 4]


def test_a_process_that_was_stopped_within_a_row_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_made_up(tmp_path, 1, monkeypatch)
    instances, processes = RECORDING.files(tmp_path)
    with instances.open("a", encoding="utf-8") as stream:
        stream.write("1,0,A1,0.0")
    record_made_up(tmp_path, 2, monkeypatch)
    found = analysis.processes_of(recording.read_rows(instances), recording.read_rows(processes))
    assert [sorted(process.cells) for process in found] == [sorted(RECORDING.arms)] * 2


def test_a_recording_of_other_arms_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_made_up(tmp_path, 1, monkeypatch, arm="B1")
    with pytest.raises(ValueError, match="has other arms than A1, A2"):
        record_made_up(tmp_path, 2, monkeypatch)


# ------------------------------------------------------------------------------------------------------- comparisons


def test_a_comparison_stops_at_the_first_look_that_is_narrow_enough() -> None:
    narrow = analysis.compare(made_up(12, layout=0.001), ("+2%", "A1"), RULE)
    assert (narrow.processes, narrow.is_reached, narrow.verdict) == (3, True, verdicts.SLOWER)
    assert narrow.measured_s == pytest.approx(3 * 2 * 8 * 0.02)  # processes, arms, instances
    assert narrow.wall_s == pytest.approx(3 * 1.5)
    wide = analysis.compare(made_up(12, layout=0.2), ("+2%", "A1"), RULE)
    assert (wide.processes, wide.is_reached) == (12, False)


def test_a_comparison_needs_as_many_processes_as_its_last_look() -> None:
    with pytest.raises(ValueError, match="up to 12 processes, there are 11"):
        analysis.compare(made_up(11), ("+2%", "A1"), RULE)


def test_disjoint_comparisons_follow_each_other_and_begin_only_where_enough_is_left() -> None:
    processes = made_up(20, layout=0.001)
    found = analysis.disjoint(processes, ("A1", "A2"), RULE)
    assert [comparison.ratio.mean for comparison in found] == [
        analysis.log_ratio(processes[start : start + 3], ("A1", "A2")).mean
        for start in (0, 3, 6)  # from 9 there are 11
    ]


def test_identical_code_is_called_different_as_seldom_as_promised_and_a_slowdown_is_found() -> None:
    processes = made_up(800, layout=0.015, process=0.03)
    alarms = analysis.share(analysis.identical_comparisons(processes, RULE), analysis.DIFFERENT)
    found = analysis.share(analysis.planted_comparisons(processes, 2, RULE), {verdicts.SLOWER})
    assert alarms is not None
    assert found is not None
    assert alarms.replicates > 150
    assert alarms.low <= 0.05
    assert found.low > 0.85


def test_an_interval_that_excludes_one_is_a_false_alarm_although_the_verdict_is_the_same() -> None:
    processes = [
        Process(1.0, {"A1": (Cell(1e-3 * level, 0.1, 0.0),), "A2": (Cell(1e-3, 0.1, 0.0),)})
        for level in (1.0035, 1.004, 1.0045) * 4
    ]
    (found,) = analysis.identical_comparisons(processes, Rule(precision=0.0, first=12, most=12))
    assert (found.verdict, found.excludes_one) == (verdicts.SAME, True)
    shares = analysis.share_excluding_one([found]), analysis.share([found], analysis.DIFFERENT)
    assert [share and share.value for share in shares] == [1.0, 0.0]
    assert "the interval excludes 1 in 100.0 % [2.5, 100.0], 1 of 1" in summary._pooled_text([found])
    assert summary._pooled_text([found]).endswith("is not shown.")


def test_arms_in_processes_of_their_own_are_paired_by_slice_and_share_no_process() -> None:
    processes = [Process(1.0, {"A1": (Cell(1e-3 * (number + 1), 0.5, 0.0),)}) for number in range(13)]
    found = analysis.across_processes(processes, ("A1", "A1"), Rule(precision=0.0, first=3, most=3), seed=1)
    assert [(each.ratio.unit, each.ratio.units, each.measured_s, each.wall_s) for each in found] == [
        ("slice", 3, 3.0, 6.0)
    ] * 2
    own, base = ([math.log(number + 1) for number in numbers] for numbers in ((0, 2, 4), (1, 3, 5)))
    signs = product((1, -1), repeat=3)  # which of two neighbours is which is drawn
    means = {sum(sign * (x - y) for sign, x, y in zip(s, own, base, strict=True)) / 3 for s in signs}
    assert any(found[0].ratio.mean == pytest.approx(mean) for mean in means)


def test_arms_in_processes_of_their_own_alarm_as_seldom_as_promised_and_a_slowdown_is_found() -> None:
    processes = made_up(1600, process=0.015, arms=["A1", "+5%"])
    rule = Rule(precision=0.01, first=5, most=10)
    alarms = analysis.share_excluding_one(analysis.across_processes(processes, ("A1", "A1"), rule, seed=1))
    found = analysis.share(analysis.across_processes(processes, ("+5%", "A1"), rule, seed=1), {verdicts.SLOWER})
    assert alarms is not None
    assert found is not None
    assert alarms.replicates >= 80
    assert alarms.low <= 0.05
    assert found.low > 0.85


def test_two_runs_are_compared_as_the_command_compares_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    processes = [
        Process(
            1.0, {"A1": tuple(Cell(float(s), 0.1, 0.0) for s in rng.uniform(1, 1.1, 4))}, float(rng.uniform(1, 1.1))
        )
        for _ in range(13)
    ]
    (found,) = analysis.separate_runs(processes, ("A1", "A1"), block=5)
    assert found.processes == 5
    assert found.measured_s == pytest.approx(2 * 5 * 4 * 0.1)
    sides = []
    for name, start in (("base", 0), ("new", 5)):
        part = processes[start : start + 5]
        medians = {(k, 10 + k, i): cell.median_s for k, p in enumerate(part, 1) for i, cell in enumerate(p.cells["A1"])}
        rows = [process_row(k, canary_s=process.canary_s) for k, process in enumerate(part, 1)]
        sides.append(load_side(write_run(tmp_path / name, Timed("a@r", medians), processes=rows)))
    row = compare(sides[0], sides[1]).rows[0]
    assert (found.ratio.mean, found.ratio.standard_error) == pytest.approx((row.ratio.mean, row.ratio.standard_error))
    assert (found.ratio.units, found.verdict) == (row.ratio.units, row.verdict)
    unknown = [Process(each.wall_s, each.cells) for each in processes]
    assert analysis.separate_runs(unknown, ("A1", "A1"), block=5)[0].half_width < found.half_width


def test_resampled_comparisons_repeat_under_their_seed() -> None:
    processes = made_up(12, layout=0.02)
    means = [
        [each.ratio.mean for each in analysis.resampled(processes, ("+1%", "A1"), RULE, 5, seed)] for seed in (1, 1, 2)
    ]
    assert means[0] == means[1] != means[2]
    assert analysis.resampled(processes[1:], ("+1%", "A1"), RULE, 5, seed=1) == []


def test_a_budget_of_seconds_becomes_one_look_after_the_processes_that_fit() -> None:
    rule = analysis.budget_rule(made_up(4), ("+1%", "A1"), seconds=1.0)  # 2 · 8 · 0.02 = 0.32 s a process
    assert rule.looks == (3,)
    assert analysis.budget_rule(made_up(4), ("+1%", "A1"), seconds=0.1).looks == (1,)


def test_the_interval_of_a_latency_covers_as_often_as_promised_where_processes_differ() -> None:
    rate = analysis.latency_coverage(made_up(1000, process=0.03, arms=["A1"]), "A1", seed=1)
    assert rate is not None
    assert rate.replicates == 200
    assert 0.9 < rate.value < 0.99


def test_what_drifts_is_seen_by_neighbours_and_averaged_by_a_spread() -> None:
    drifting = [
        Process(1.0, {"A1": tuple(Cell(cell.median_s * (1 + k / 500), 0.02, 0.0) for cell in process.cells["A1"])})
        for k, process in enumerate(made_up(100, arms=["A1"]))
    ]
    spread, neighbours = (analysis.latency_coverage(drifting, "A1", seed) for seed in (1, None))
    assert spread is not None
    assert neighbours is not None
    assert neighbours.value < 0.5 < spread.value


def test_nothing_recorded_gives_no_rate() -> None:
    assert analysis.share([], {verdicts.SAME}) is None
    assert analysis.share_excluding_one([]) is None
    assert analysis.separate_runs(made_up(9), ("A1", "A1"), block=5) == []
    assert analysis.latency_coverage(made_up(4), "A1", seed=1) is None


# ------------------------------------------------------------------------------------------------------- other tools


def peer_runs(tool: str, scatter: float, runs: int = 14) -> list[peers.PeerRun]:
    """Runs whose level scatters, with the slowdowns that their arms are named after."""
    rng = np.random.default_rng(0)
    found = []
    for arm in peers.ARMS:
        slow = int(arm[1]) / 100 if arm.startswith("+") else 0.0
        for level in (1 + slow) * np.exp(scatter * rng.standard_normal(runs)):
            values = tuple(float(level) * (1 + 0.001 * k) for k in range(3))
            found.append(peers.PeerRun(tool, arm, values, measured_s=1.0, wall_s=2.0))
    return found


@pytest.mark.parametrize("tool", peers.PACKAGES)
def test_a_tuned_threshold_gives_the_false_alarms_it_was_tuned_to(tool: str) -> None:
    tuned = [rates for rates in peers.rates(tool, peer_runs(tool, scatter=0.01)) if "tuned" in rates.rule]
    for rates in tuned:
        assert rates.false_alarms == pytest.approx(0.05, abs=0.01)
        assert rates.detections[1] < 0.6 < rates.detections[5]
        assert (rates.measured_s, rates.wall_s, rates.pairs) == (1.0, 2.0, 28 * 27 // 2)


def test_a_t_test_of_the_calls_alarms_at_every_shift_of_a_whole_run() -> None:
    (own_rule, _) = peers.rates("pyperf", peer_runs("pyperf", scatter=0.05))
    assert own_rule.rule == "its t test"
    assert own_rule.false_alarms > 0.8


def test_runs_of_the_other_tools_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def time_with(tool: str, call: str) -> peers.PeerRun:
        return peers.PeerRun(tool, call.split()[1], (1.5e-3, 2.5e-3), measured_s=1.0, wall_s=3.0)

    monkeypatch.setattr(peers, "time_with", time_with)
    taken = [len(list(peers.record(tmp_path, "pyperf", "numpy", "quiet", rounds, seed=1))) for rounds in (1, 3)]
    runs = peers.read_runs(peers.run_file(tmp_path, "pyperf", "numpy", "quiet"), "pyperf")
    assert taken == [5, 10]
    assert sorted(run.arm for run in runs) == sorted(3 * peers.ARMS)
    assert {(run.values, run.wall_s) for run in runs} == {((1.5e-3, 2.5e-3), 3.0)}


def test_seconds_inside_the_clock_of_another_tool_include_what_it_repeats() -> None:
    values, measured_s = peers.of_pyperf(
        {
            "metadata": {"loops": 4},
            "benchmarks": [{"runs": [{"warmups": [[1, 0.5], [2, 0.25]]}, {"values": [0.5, 0.25]}]}],
        }
    )
    assert (values, measured_s) == ((0.5, 0.25), 4.0)
    found = {"min": 1.0, "median": 2.0, "mean": 3.0, "total": 30.0, "iterations": 2}
    assert peers.of_pytest_benchmark({"benchmarks": [{"stats": found}]}) == ((1.0, 2.0, 3.0), 60.0)


# ------------------------------------------------------------------------------------------------------- the page


def test_the_page_has_a_row_for_everything_recorded_and_the_command_beside_each_table() -> None:
    recorded = {
        "numpy-quiet": made_up(30),
        "torch-quiet": made_up(3),
        "numpy-quiet-pair": made_up(30, arms=["A1", "+2%"]),
    }
    page = summary.summary(
        recorded,
        {"numpy-quiet": peers.rates("pyperf", peer_runs("pyperf", 0.01, runs=3))},
        [NullReading("timeit", 2e-8, None, 1.0)],
        ["- python: 3.11"],
        summary.Resampling(trials=3, seed=1),
    )
    tables = page.count("\n| --- |")
    assert tables == page.count(f"`{summary.SCRIPT} ") == 9
    assert page.count("| numpy-quiet |") == 5 + 3 + 2  # three ways of one arm a process, two rules of the other tool
    assert page.count("| torch-quiet |") == 5 + 3
    assert page.count("All recordings together, ") == 3
    assert "| timeit | 20 ns | – | 1.0 |" in page
    assert "nan" not in page


def test_analysing_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    result = CliRunner().invoke(truth.main, ["analyse", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "begin with: python benchmarks/truth.py record" in result.output


def test_a_count_of_an_unknown_recording_is_refused_by_name(tmp_path: Path) -> None:
    result = CliRunner().invoke(truth.main, ["record", "--out", str(tmp_path), "--count", "numpy=3"])
    assert result.exit_code == 2
    assert "'numpy=3' is not RECORDING=N; recordings are numpy-quiet, " in result.output
