"""Comparing: known truths come out, what is uncertain stays undecided, and nothing is dropped without a word."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness import HarnessError, estimates, stats, verdicts
from harness.compare import (
    INTERLEAVED,
    SEPARATE,
    Comparison,
    GateResult,
    GateRow,
    Row,
    compare,
    compare_all,
    gate,
    interleaved,
    parse_percent,
)
from harness.compare_report import (
    GATE_READING,
    TOGETHER,
    comparison_document,
    comparison_lines,
    gate_document,
    gate_lines,
    no_gate_document,
)
from harness.document import WIDTH, document_markdown
from harness.samples import SAMPLE_COLUMNS
from harness.schema import INSTANCE_COLUMNS, PROCESS_COLUMNS, STATUSES, TRIAL_COLUMNS
from harness.sides import MUST_AGREE, load_side, side_of
from harness.store import Run

A, B = "a@r", "b@r"
COMPUTE, WHOLE = "compute", "end-to-end"
MACHINE: dict[str, Any] = {
    "machine": "x86_64",
    "os": "Linux-6.1-x86_64-with-glibc2.36",
    "hypervisor": None,
    "cpu_model": "A CPU",
    "cpu_logical_count": 2,
    "cpu_physical_count": 2,
    "cpu_usable_count": 2,
    "cpu_governor": "performance",
    "cpu_max_frequency_khz": 3_000_000,
    "cpu_boost": "1",
    "accelerators": ["a card, 1.0"],
    "python_implementation": "CPython",
    "python": "3.11.9",
    "commit": "abc",
    "memory_bytes": 8_000_000_000,
    "load_average_1min": 0.1,
    "started_utc": "2025-01-01T00:00:00+00:00",
    "command": ["harness", "run"],
    "versions": {"numpy": "2.0", "rnn-fast": "1.0"},
}
Seconds = Mapping[tuple[int, int, int], float]  # by slice, process, instance


def comparison_markdown(*found: Comparison) -> str:
    return document_markdown(comparison_document(found, intervals=True))


@dataclass(frozen=True)
class Timed:
    """A latency trial made by hand: the medians of both boundaries, and whatever else its row says."""

    variant: str
    compute: Seconds
    whole: Seconds
    row: dict[str, Any]


def timed(variant: str, compute: Seconds, whole: Seconds | None = None, **row: Any) -> Timed:
    return Timed(variant, compute, compute if whole is None else whole, row)


def by_process(*seconds: float) -> Seconds:
    """One process a slice, with one instance each."""
    return {(place, 10 + place, 0): value for place, value in enumerate(seconds)}


def samples(trial: str, timings: Timed) -> list[dict[str, Any]]:
    """Of every instance the first call of a turn, a million seconds long, which counts nowhere, and one that counts."""
    return [
        {"trial": trial, "slice": slice_, "process": process, "instance": instance, "boundary": boundary, "block": 0}
        | {"turn": 0, "call": call, "start_s": 0.0, "elapsed_s": elapsed, "disturbed": 0}
        for boundary, seconds in ((COMPUTE, timings.compute), (WHOLE, timings.whole))
        for (slice_, process, instance), value in seconds.items()
        for call, elapsed in ((0, 1e6), (1, value))
    ]


def canary(*seconds: float, runtime: str = "r", task: str = "t") -> list[dict[str, Any]]:
    """One process of the runtime a slice."""
    return [
        {"slice": place, "process": 10 + place, "runtime": runtime, "task": task, "canary_s": value}
        for place, value in enumerate(seconds)
    ]


def run(
    *trials: Timed,
    name: str = "run",
    processes: Sequence[Mapping[str, Any]] = (),
    environment: Mapping[str, Any] = MACHINE,
    latency: Mapping[str, Any] | None = None,
    **header: Any,
) -> Run:
    """A run in memory."""
    rows = []
    calls = []
    for number, each in enumerate(trials, start=1):
        trial = f"{number:04d}-latency"
        row = dict.fromkeys(TRIAL_COLUMNS) | {"trial": trial, "kind": "latency", "variant": each.variant, "task": "t"}
        row |= {"architecture": "lstm", "input_size": 3, "hidden_size": 6, "num_layers": 1, "device": "cpu"}
        row |= {"dtype": "float32", "threads": 1, "scenario": "single-stream", "batch": 1, "time": 5, "baseline": A}
        rows.append(row | {"status": "ok", "reason": ""} | each.row)
        calls += samples(trial, each)
    known = {"name": name, "environment": dict(environment), "baselines": {}, "floors": [], "plugins": []}
    tables: dict[str, Any] = {field.name: pd.DataFrame() for field in fields(Run)}
    tables |= {"path": Path(name), "header": known | {"suite": {"latency": dict(latency or {})}} | header}
    tables |= {
        "trials": pd.DataFrame(rows, columns=TRIAL_COLUMNS),
        "samples": pd.DataFrame(calls, columns=SAMPLE_COLUMNS),
        "instances": pd.DataFrame(columns=INSTANCE_COLUMNS),
        "processes": pd.DataFrame(processes, columns=PROCESS_COLUMNS),
    }
    return Run(**tables)


def row_of(comparison: Comparison, variant: str = A, boundary: str = COMPUTE) -> Row:
    (found,) = [row for row in comparison.rows if (row.point.variant, row.point.boundary) == (variant, boundary)]
    return found


def ends(row: Row) -> tuple[float, float, float]:
    return row.estimate.value, row.estimate.low, row.estimate.high


def noisy(level: float, spread: float, processes: int, seed: int, instances: int = 3) -> Seconds:
    """Latencies whose processes differ, their instances less."""
    rng = np.random.default_rng(seed)
    found = {}
    for place in range(processes):
        process = rng.normal(0, spread)
        for instance in range(instances):
            found[place, 10 + place, instance] = level * math.exp(process + rng.normal(0, spread / 3))
    return found


# ------------------------------------------------------------------------------------------------------- two runs


def test_the_ratio_is_new_over_base_with_welchs_interval_over_processes() -> None:
    base = run(timed(A, by_process(math.exp(-0.01), math.exp(0.01))), processes=canary(1.0, 1.0))
    new = run(timed(A, by_process(1.5 * math.exp(-0.01), 1.5 * math.exp(0.01))), processes=canary(1.0, 1.0))
    row = row_of(compare(base, new))
    half = 4.302652729911275 * 0.01 * math.sqrt(2)  # t(2) at 97.5 %; each side's error is half its range
    assert ends(row) == pytest.approx((1.5, 1.5 * math.exp(-half), 1.5 * math.exp(half)))
    assert (row.verdict, row.how, row.against, row.units) == ("slower", SEPARATE, A, "2 | 2 processes")
    assert math.exp(row.base.mean) == pytest.approx(1.0)
    assert math.exp(row.new.mean) == pytest.approx(1.5)


def test_more_instances_of_the_same_processes_make_nothing_more_certain() -> None:
    def with_instances(count: int, *seconds: float) -> Seconds:
        return {(s, 10 + s, instance): value for s, value in enumerate(seconds) for instance in range(count)}

    few, many = (
        row_of(
            compare(run(timed(A, with_instances(n, 1.0, 1.1, 1.2))), run(timed(A, with_instances(n, 1.3, 1.2, 1.1))))
        )
        for n in (1, 20)
    )
    assert ends(many) == pytest.approx(ends(few))
    assert many.units == "3 | 3 processes"


def test_two_processes_of_one_slice_are_two_units() -> None:
    twice = {(0, 1, 0): 1.0, (0, 2, 0): 1.1, (1, 3, 0): 1.2}
    assert row_of(compare(run(timed(A, twice)), run(timed(A, twice)))).units == "3 | 3 processes"


def test_only_latency_trials_are_compared() -> None:
    others = [
        timed(B, by_process(1.0, 1.1), kind=kind, scenario=None) for kind in ("parity", "accuracy", "calibration")
    ]
    found = compare(run(timed(A, by_process(1.0, 1.1)), *others), run(timed(A, by_process(1.0, 1.1))))
    assert {row.point.variant for row in found.rows} == {A}
    assert found.absent == ()


def test_both_boundaries_are_compared_and_compute_stands_first() -> None:
    base = run(timed(A, by_process(1.0, 1.01), by_process(2.0, 2.01)), timed(B, by_process(1.0, 1.01)))
    new = run(timed(A, by_process(1.0, 1.01), by_process(6.0, 6.01)), timed(B, by_process(1.0, 1.01)))
    found = compare(base, new)
    assert [(row.point.boundary, row.point.variant) for row in found.rows] == [
        (COMPUTE, A),
        (COMPUTE, B),
        (WHOLE, A),
        (WHOLE, B),
    ]
    assert row_of(found, boundary=COMPUTE).estimate.value == pytest.approx(1.0)
    assert row_of(found, boundary=WHOLE).estimate.value == pytest.approx(3.0, rel=0.01)


def test_a_verdict_is_over_all_rows_of_its_boundary_and_of_no_other() -> None:
    clear = timed(A, by_process(1.0, 1.02, 1.04)), timed(A, by_process(1.055, 1.075, 1.095))
    unclear = timed(B, by_process(1.0, 1.5, 2.0)), timed(B, by_process(1.0, 1.5, 2.0))

    def verdict(*pairs: tuple[Timed, Timed]) -> str:
        found = compare(run(*(base for base, _ in pairs)), run(*(new for _, new in pairs)))
        assert [row.verdict for row in found.rows if row.point.boundary == COMPUTE] == verdicts.judge(
            [row.ratio for row in found.rows if row.point.boundary == COMPUTE], 0.01
        )
        return row_of(found).verdict

    assert verdict(clear) == "slower"
    assert verdict(clear, unclear) == "undecided"
    silent = (replace(unclear[0], compute={}), replace(unclear[1], compute={}))
    assert verdict(clear, silent) == "slower"


def test_the_tolerance_is_the_one_that_base_was_run_with() -> None:
    sides = [timed(A, by_process(1.0, 1.001, 1.002)), timed(A, by_process(1.03, 1.031, 1.032))]
    found = compare(run(sides[0], latency={"tolerance": 0.05}), run(sides[1], latency={"tolerance": 0.001}))
    assert (found.tolerance, row_of(found).verdict) == (0.05, "same")
    assert row_of(compare(run(sides[0]), run(sides[1]))).verdict == "slower"


def test_one_process_has_a_ratio_and_no_interval() -> None:
    row = row_of(compare(run(timed(A, by_process(1.0))), run(timed(A, by_process(9.0)))))
    assert row.estimate.value == pytest.approx(9.0)
    assert math.isnan(row.estimate.low)
    assert row.verdict == "undecided"


levels = st.lists(st.floats(0.5, 2.0), min_size=2, max_size=6)


@given(levels, levels, levels, levels)
def test_swapping_the_sides_mirrors_ratio_interval_and_verdict(
    first: list[float], second: list[float], quiet: list[float], loud: list[float]
) -> None:
    base = run(timed(A, by_process(*first)), processes=canary(*quiet))
    new = run(timed(A, by_process(*second)), processes=canary(*loud))
    there, back = row_of(compare(base, new)), row_of(compare(new, base))
    value, low, high = ends(back)
    assert ends(there) == pytest.approx((1 / value, 1 / high, 1 / low), rel=1e-9)
    mirrored = {"faster": "slower", "slower": "faster"}
    assert there.verdict == mirrored.get(back.verdict, back.verdict)
    assert there.drift.spread == pytest.approx(back.drift.spread)


@given(levels, levels)
def test_a_run_compared_with_itself_is_neither_faster_nor_slower(seconds: list[float], quiet: list[float]) -> None:
    own = run(timed(A, by_process(*seconds)), processes=canary(*quiet))
    found = compare(own, own)
    assert {row.estimate.value for row in found.rows} == {1.0}
    assert {row.verdict for row in found.rows} <= {"same", "undecided"}


def test_runs_without_any_spread_that_are_equal_are_the_same() -> None:
    own = run(timed(A, by_process(1.0, 1.0, 1.0)), processes=canary(1.0, 1.0, 1.0))
    assert row_of(compare(own, own)).verdict == "same"


def test_identical_code_in_two_drifting_runs_is_rarely_called_different() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for trial in range(150):
        base, new = (run_of_identical_code(rng, seed=2 * trial + side) for side in range(2))
        wrong += row_of(compare(base, new)).verdict in ("faster", "slower")
    assert wrong <= 0.05 * 150


def run_of_identical_code(rng: np.random.Generator, seed: int) -> Run:
    """A run on a machine that drifts, whose canary shows the drift with an error of its own."""
    drift = rng.normal(0, 0.02)
    beats = canary(*np.exp(drift + rng.normal(0, 0.003, 5)))
    return run(timed(A, noisy(math.exp(drift), 0.03, 5, seed), {}), processes=beats)


# ------------------------------------------------------------------------------------------------------- several runs


def against_the_first(*runs: Run, allow_different: bool = False) -> list[Comparison]:
    first, *others = map(side_of, runs)
    return compare_all(first, others, allow_different)


def test_every_further_run_is_compared_with_the_first_as_if_it_were_alone_but_for_the_verdicts() -> None:
    runs = [
        run(timed(A, noisy(level, 0.01, 5, seed)), processes=canary(1.0, level))
        for seed, level in enumerate((1.0, 1.1, 1.3))
    ]
    found = against_the_first(*runs)
    for own, other in zip(found, runs[1:], strict=True):
        alone = compare(runs[0], other)
        assert [row.ratio for row in own.rows] == [row.ratio for row in alone.rows]
        assert (own.base, own.new, own.drift, own.tolerance) == (alone.base, alone.new, alone.drift, alone.tolerance)


def test_one_further_run_says_what_two_runs_say() -> None:
    base, new = run(timed(A, by_process(1.0, 1.01))), run(timed(A, by_process(1.2, 1.21)))
    assert against_the_first(base, new) == [compare(base, new)]


def test_verdicts_of_a_boundary_hold_over_all_runs_together() -> None:
    base = run(timed(A, by_process(1.0, 1.02, 1.04)))
    clear, unclear = run(timed(A, by_process(1.055, 1.075, 1.095))), run(timed(A, by_process(0.5, 1.0, 2.0)))
    assert row_of(compare(base, clear)).verdict == "slower"
    found = against_the_first(base, clear, unclear)
    ratios = [row_of(each).ratio for each in found]
    assert [row_of(each).verdict for each in found] == verdicts.judge(ratios, 0.01) == ["undecided", "undecided"]


def test_several_runs_are_one_table_a_setting_with_a_column_each() -> None:
    base = run(timed(A, by_process(1.0, 1.0)), timed(B, by_process(3.0, 3.0)), name="base")
    same, other = run(timed(A, by_process(1.0, 1.0)), name="same"), run(timed(A, by_process(2.0, 2.0)), name="other")
    found = against_the_first(base, same, other)
    lines = comparison_lines(*found)
    assert lines[:3] == ["BASE  base", "NEW 1 same", "NEW 2 other"]
    header, _ = [" ".join(line.split()) for line in lines if line.startswith("variant")]
    assert header == "variant scenario BASE NEW 1 / BASE NEW 2 / BASE"
    compute, _ = [" ".join(line.split()) for line in lines if line.startswith("a@r  ")]
    assert compute == "a@r single-stream 1×5 1 s 1.000× ±0.0% same 2.000× ±0.0% slower"
    assert TOGETHER in lines
    assert [line for line in lines if line.startswith("Not compared in NEW 2: b@r")]
    text = comparison_markdown(*found)
    assert "| a@r | single-stream 1×5 | 1 s | 1.000× (1.000–1.000) same | 2.000× (2.000–2.000) slower |" in text
    assert text.count("| variant |") == 2
    assert TOGETHER not in comparison_lines(found[0])


def test_a_row_that_a_run_lacks_is_empty_there_and_kept_for_the_others() -> None:
    base = run(timed(A, by_process(1.0, 1.0), {}), timed(B, by_process(3.0, 3.0), {}))
    one, two = run(timed(A, by_process(1.0, 1.0), {})), run(timed(B, by_process(3.0, 3.0), {}))
    text = comparison_markdown(*against_the_first(base, one, two))
    assert "| a@r | single-stream 1×5 | 1 s | 1.000× (1.000–1.000) same | – |" in text
    assert "| b@r | single-stream 1×5 | 3 s | – | 1.000× (1.000–1.000) same |" in text


def test_the_drift_of_every_run_is_told_by_its_name() -> None:
    side = timed(A, by_process(1.0, 1.01))
    quiet, slow = (run(side, processes=canary(level, level)) for level in (1.0, 1.5))
    lines = "\n".join(comparison_lines(*against_the_first(quiet, slow, quiet, run(side))))
    assert "the machine itself was 50.0 % slower in NEW 1 (" in lines
    assert "the machine itself was as fast in NEW 2 (" in lines
    assert "NEW 3: While t was timed, how the machine drifted is unknown" in lines


def test_of_several_runs_the_one_that_cannot_be_compared_is_named() -> None:
    side = timed(A, by_process(1.0, 1.01))
    other = run(side, name="elsewhere", environment=MACHINE | {"cpu_model": "another"})
    with pytest.raises(HarnessError, match=r"^elsewhere: what matters differs: cpu_model"):
        against_the_first(run(side), run(side), other)
    found = against_the_first(run(side), run(side), other, allow_different=True)
    assert "Matters and differs in NEW 2: cpu_model: A CPU | another" in comparison_lines(*found)


# ------------------------------------------------------------------------------------------------------- drift


def test_the_canarys_shift_and_its_error_are_added_to_the_error_and_said() -> None:
    quiet = canary(math.exp(-0.001), math.exp(0.001))
    slow = canary(1.021 * math.exp(-0.001), 1.021 * math.exp(0.001))
    base, new = timed(A, by_process(1.0, 1.01)), timed(A, by_process(1.2, 1.21))
    still = compare(run(base, processes=quiet), run(new, processes=quiet))
    moved = compare(run(base, processes=quiet), run(new, processes=slow))
    (drift,) = moved.drift
    assert drift.spread == pytest.approx(math.hypot(math.log(1.021), 0.001 * math.sqrt(2)))
    own = stats.difference(row_of(moved).new, row_of(moved).base)
    assert row_of(moved).ratio.standard_error == pytest.approx(math.hypot(own.standard_error, drift.spread))
    assert ends(row_of(moved))[0] == ends(row_of(still))[0]
    assert ends(row_of(moved))[1] < ends(row_of(still))[1]
    assert ends(row_of(moved))[2] > ends(row_of(still))[2]
    assert str(drift).startswith("While t was timed, the machine itself was 2.1 % slower in NEW (+")
    assert "machine itself was as fast in NEW (-" in str(still.drift[0])
    once = compare(run(base, processes=canary(1.0)), run(new, processes=canary(1.021)))
    assert "2.1 % slower in NEW (its error unknown)" in str(once.drift[0])
    back = compare(run(new, processes=slow), run(base, processes=quiet))
    assert "machine itself was 2.1 % faster in NEW (-" in str(back.drift[0])


@pytest.mark.parametrize("missing", ["base", "new", "both", "another runtime", "another task", "empty"])
def test_without_a_canary_in_both_the_drift_is_unknown_and_that_is_said(missing: str) -> None:
    own = canary(1.0, 1.0)
    other = {"another runtime": canary(1.0, 1.0, runtime="s"), "another task": canary(1.0, 1.0, task="u")}
    other["empty"] = canary(math.nan, math.nan)
    base = run(timed(A, by_process(1.0, 1.01)), processes=() if missing in ("base", "both") else own)
    new = run(timed(A, by_process(1.0, 1.01)), processes=other.get(missing, () if missing != "base" else own))
    found = compare(base, new)
    assert [(drift.shift, drift.spread) for drift in found.drift] == [(None, 0.0)]
    assert "how the machine drifted is unknown" in comparison_markdown(found)
    assert row_of(found).ratio == stats.difference(row_of(found).new, row_of(found).base)


def test_the_canary_is_read_where_both_runs_have_it_runtime_by_runtime_and_task_by_task() -> None:
    both = [timed(A, by_process(1.0, 1.01)), timed(A, by_process(1.0, 1.01), task="u")]
    base = run(*both, processes=[*canary(1.0, 1.1), *canary(9.0, 9.0, runtime="s"), *canary(1.0, 1.1, task="u")])
    new = run(*both, processes=[*canary(1.0, 1.1), *canary(0.1, 0.1, runtime="q"), *canary(2.0, 2.2, task="u")])
    shifts = {drift.task: drift.shift for drift in compare(base, new).drift}
    assert {task: math.exp(shift.mean) for task, shift in shifts.items() if shift} == pytest.approx(
        {"t": 1.0, "u": 2.0}
    )


def test_workers_of_loads_have_no_canary_and_change_nothing() -> None:
    both = timed(A, by_process(1.0, 1.01)), timed(A, by_process(1.02, 1.03))
    served = [row | {"process": 90, "trial": "0009-load"} for row in canary(math.nan, math.nan)]
    alone = compare(run(both[0], processes=canary(1.0, 1.1)), run(both[1], processes=canary(1.0, 1.2)))
    beside = compare(
        run(both[0], processes=[*canary(1.0, 1.1), *served]), run(both[1], processes=[*canary(1.0, 1.2), *served])
    )
    assert beside.drift == alone.drift
    assert alone.drift[0].shift is not None
    assert row_of(beside).ratio == row_of(alone).ratio


def test_processes_of_one_slice_share_its_moment() -> None:
    alone = run(timed(A, by_process(1.0, 1.01)), processes=canary(1.0, 1.1))
    doubled = run(timed(A, by_process(1.0, 1.01)), processes=[*canary(1.0, 1.1), *canary(1.0, 1.1)])
    assert compare(doubled, doubled).drift == compare(alone, alone).drift


@pytest.mark.parametrize("fact", ["python", "numpy"])
def test_a_canary_that_runs_on_another_numpy_or_python_is_noted(fact: str) -> None:
    side = timed(A, by_process(1.0, 1.01))
    other = MACHINE | ({"python": "3.12.0"} if fact == "python" else {"versions": {"numpy": "2.1", "rnn-fast": "1.0"}})
    base, new = run(side, processes=canary(1.0, 1.0)), run(side, processes=canary(1.0, 1.0), environment=other)
    assert any("part of its shift may be theirs" in note for note in compare(base, new).notes)
    assert compare(base, base).notes == ()


@pytest.mark.parametrize("between", [0.0, 0.03], ids=["processes alike", "processes differ"])
def test_two_runs_are_less_certain_than_the_same_measurements_interleaved(between: float) -> None:
    wider = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base: dict[tuple[int, int, int], float] = {}
        new: dict[tuple[int, int, int], float] = {}
        for slice_ in range(5):
            process = rng.normal(0, between)
            for instance in range(4):
                base[slice_, slice_, instance] = math.exp(process + rng.normal(0, 0.01))
                new[slice_, slice_, instance] = 1.02 * math.exp(process + rng.normal(0, 0.01))
        beats = [canary(*np.exp(rng.normal(0, 0.004, 5))) for _ in range(2)]
        apart = row_of(compare(run(timed(A, base), processes=beats[0]), run(timed(A, new), processes=beats[1])))
        together = estimates.ratio(new, base)
        assert together is not None
        assert apart.ratio.mean == pytest.approx(together.mean)
        whole = stats.estimate(together)
        wider.append(math.log(apart.estimate.high / apart.estimate.low) / math.log(whole.high / whole.low))
    assert np.median(wider) > 1.1
    assert np.mean(np.array(wider) > 1) >= (1.0 if between else 0.8)


# ------------------------------------------------------------------------------------------------------- refusal


def test_what_matters_and_differs_is_refused_with_every_difference_and_the_way_out() -> None:
    side = timed(A, by_process(1.0, 1.01))
    other = {name: "another" for name in MUST_AGREE if name != "os family"} | {"os": "Darwin-23-arm64"}
    base, new = run(side), run(side, environment=MACHINE | other)
    with pytest.raises(HarnessError) as caught:
        compare(base, new)
    text = str(caught.value)
    for name in MUST_AGREE:
        assert f"{name}: " in text
    assert "cpu_model: A CPU | another" in text
    assert "hypervisor: – | another" in text
    assert "accelerators: a card, 1.0 | another" in text
    assert "os family: Linux | Darwin" in text
    assert "--allow-different" in text
    found = compare(base, new, allow_different=True)
    assert {item.what for item in found.differences} == set(MUST_AGREE)
    assert "| cpu\\_model | A CPU | another |" in comparison_markdown(found)
    assert "Matters and differs: cpu_model: A CPU | another" in comparison_lines(found)


def test_latencies_of_two_kinds_of_device_are_refused_as_those_of_two_machines() -> None:
    side = timed(A, by_process(1.0, 1.01))

    def on(*names: str | None) -> Run:
        return run(side, processes=[{"slice": 1, "canary_s": 1.0, "device_name": name} for name in names])

    with pytest.raises(HarnessError, match=r"what matters differs: device: card one, card two \| card one; "):
        compare(on("card two", None, "card one"), on("card one"))
    with pytest.raises(HarnessError, match=r"what matters differs: device: – \| card one; "):
        compare(on(None), on("card one"))
    assert not compare(on("card one", None), on("card one", "card one")).differences


def test_latencies_by_two_clocks_are_refused_and_who_does_not_say_was_timed_by_the_hosts() -> None:
    side = timed(A, by_process(1.0, 1.01))

    def by(*clocks: str | None) -> Run:
        return run(side, processes=[{"slice": 1, "canary_s": 1.0, "clock": clock} for clock in clocks])

    with pytest.raises(HarnessError, match=r"what matters differs: clock: host \| device; "):
        compare(by("host"), by("device", "host"))
    assert not compare(by("device"), by("device")).differences
    assert not compare(by(None), by("host")).differences


@pytest.mark.parametrize("name", [name for name in MUST_AGREE if name != "os family"])
def test_each_fact_that_matters_refuses_alone_even_if_one_side_could_not_read_it(name: str) -> None:
    side = timed(A, by_process(1.0, 1.01))
    unknown = {fact: value for fact, value in MACHINE.items() if fact != name}
    with pytest.raises(HarnessError, match=rf"{name}: "):
        compare(run(side), run(side, environment=unknown | ({name: "KVM"} if name == "hypervisor" else {})))


def test_what_is_compared_is_no_reason_to_refuse_and_is_listed() -> None:
    side = timed(A, by_process(1.0, 1.01))
    newer = MACHINE | {"python": "3.12.0", "commit": "def", "os": "Linux-6.2-x86_64", "memory_bytes": 9}
    newer |= {"versions": {"rnn-fast": "1.1", "onnx": "1.0"}, "load_average_1min": 3.0, "command": []}
    found = compare(run(side, latency={"calls": 35}), run(side, environment=newer, latency={"calls": 70}))
    assert found.differences == ()
    assert {str(item) for item in found.changes} == {
        "os: Linux-6.1-x86_64-with-glibc2.36 | Linux-6.2-x86_64",
        "memory_bytes: 8000000000 | 9",
        "python: 3.11.9 | 3.12.0",
        "commit: abc | def",
        "version of numpy: 2.0 | –",
        "version of rnn-fast: 1.0 | 1.1",
        "version of onnx: – | 1.0",
        "latency.calls: 35 | 70",
    }
    assert "Changed: version of rnn-fast: 1.0 | 1.1" in comparison_lines(found)


# ------------------------------------------------------------------------------------------------------- what is absent


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ok"])
def test_a_row_that_is_not_ok_is_listed_with_its_reason_and_not_compared_although_it_has_samples(status: str) -> None:
    good, bad = timed(A, by_process(1.0, 1.01)), timed(A, by_process(1.0, 1.01), status=status, reason="because")
    other = timed(B, by_process(1.0, 1.01))
    for base, new, said in (
        (good, bad, ("ok", f"{status}: because")),
        (bad, good, (f"{status}: because", "ok")),
        (bad, bad, (f"{status}: because",) * 2),
    ):
        found = compare(run(base, other), run(new, other))
        assert {row.point.variant for row in found.rows} == {B}
        (absent,) = found.absent
        assert absent.what.startswith(f"{A}, single-stream 1×5, t on cpu: I=3 H=6 L=1, float32, 1 thread a call")
        assert (absent.base, absent.new) == said
        assert "because" in comparison_markdown(found)


def test_a_row_of_one_run_alone_is_listed() -> None:
    both, one = timed(A, by_process(1.0, 1.01)), timed(B, by_process(1.0, 1.01))
    (lost,) = compare(run(both, one), run(both)).absent
    (fresh,) = compare(run(both), run(both, one)).absent
    assert (lost.what[:3], lost.base, lost.new) == (B, "ok", "not in it")
    assert (fresh.what[:3], fresh.base, fresh.new) == (B, "not in it", "ok")


def test_a_boundary_that_only_one_has_samples_of_is_listed_and_so_is_a_row_without_any() -> None:
    whole, half = timed(A, by_process(1.0, 1.01)), timed(A, by_process(1.0, 1.01), {})
    found = compare(run(whole), run(half))
    assert [row.point.boundary for row in found.rows] == [COMPUTE]
    (absent,) = found.absent
    assert absent.what.endswith(WHOLE)
    assert (absent.base, absent.new) == ("ok", "no samples that count")
    (nothing,) = compare(run(timed(A, {})), run(timed(A, {}))).absent
    assert (nothing.base, nothing.new) == ("no samples that count", "no samples that count")


@pytest.mark.parametrize(
    "other",
    [
        {"task": "u"},
        {"device": "cuda"},
        {"dtype": "float64"},
        {"threads": 2},
        {"input_size": 4},
        {"hidden_size": 7},
        {"num_layers": 2},
        {"scenario": "offline"},
        {"batch": 2},
        {"time": 6},
    ],
)
def test_another_setting_is_another_row_and_where_nothing_matches_both_say_what_they_have(
    other: dict[str, Any],
) -> None:
    base, new = (
        run(timed(A, by_process(1.0, 1.01)), name="old"),
        run(timed(A, by_process(1.0, 1.01), **other), name="new"),
    )
    expected = r"^no latency row is in both runs\. old has a@r, single-stream .* new has a@r"
    with pytest.raises(HarnessError, match=expected) as caught:
        compare(base, new)
    assert str(next(iter(other.values()))) in str(caught.value)


def test_a_run_without_latency_has_none() -> None:
    with pytest.raises(HarnessError, match=r"old has none\. new has none"):
        compare(run(name="old"), run(name="new"))


# ------------------------------------------------------------------------------------------------------- files


def write(path: Path, seconds: Seconds, **columns: Any) -> Path:
    frame = pd.DataFrame(samples("x", timed(A, seconds))).drop(columns="trial").assign(**columns)
    frame.to_csv(path, index=False)
    return path


def test_two_files_of_samples_are_compared_by_position_under_the_first_ones_name(tmp_path: Path) -> None:
    old, new = (
        write(tmp_path / "before.csv", by_process(1.0, 1.01)),
        write(tmp_path / "after.csv", by_process(2.0, 2.02)),
    )
    found = compare(load_side(old), load_side(new))
    row = row_of(found, "before")
    assert row.estimate.value == pytest.approx(2.0)
    assert (found.base, found.new) == (str(old), str(new))
    assert any("no environment" in note for note in found.notes)
    assert [drift.shift for drift in found.drift] == [None]
    assert "no environment" in comparison_markdown(found)
    assert len({row.estimate for row in found.rows}) == 1
    assert [row.point.boundary for row in found.rows] == [COMPUTE, WHOLE]


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", by_process(1.0, 1.01))
    frame = pd.read_csv(path)
    frame[frame.columns[::-1]].to_csv(path, index=False)
    assert row_of(compare(load_side(path), load_side(path)), "a").estimate.value == 1.0


def test_a_file_is_not_compared_with_a_run(tmp_path: Path) -> None:
    side = load_side(write(tmp_path / "a.csv", by_process(1.0, 1.01)))
    for sides in ((side, run(timed(A, by_process(1.0)))), (run(timed(A, by_process(1.0))), side)):
        with pytest.raises(HarnessError, match="compare a run with a run"):
            compare(*sides, allow_different=True)


@pytest.mark.parametrize(
    "damage",
    [
        {"elapsed_s": 0.0},
        {"elapsed_s": -1.0},
        {"elapsed_s": math.nan},
        {"elapsed_s": math.inf},
        {"elapsed_s": "soon"},
        {"boundary": "elsewhere"},
        {"boundary": math.nan},
        {"call": 0},
        {"process": math.nan},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_file_is_named_with_what_is_expected(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = write(tmp_path / "a.csv", by_process(1.0, 1.01), **damage)
    with pytest.raises(HarnessError, match=r"a\.csv' is not a file of samples: .*expected is CSV.* elapsed_s"):
        load_side(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"a,b\n1,2\n", b"\xff\xfe\x00", b"\x00", b'"', b"a,b\n1,2,3,4\n1\n", b"{}", b"\x1b[31mred\n1\n"],
    ids=repr,
)
def test_a_foreign_file_is_named_with_what_is_expected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match="is not a file of samples") as caught:
        load_side(path)
    assert str(caught.value).isprintable()


def test_what_is_no_file_is_read_as_a_run(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"is not a run: run\.json cannot be read"):
        load_side(tmp_path / "nowhere.csv")


# ------------------------------------------------------------------------------------------------------- one run


def test_an_interleaved_run_gives_the_ratios_and_verdicts_of_its_own_table() -> None:
    base = {(s, s, i): 1.0 + 0.01 * s * i for s in range(3) for i in range(4)}
    own = {key: 1.2 * value * math.exp(0.001 * key[2]) for key, value in base.items()}
    settings = {"slices": 3, "max_slices": 12, "tolerance": 0.02}
    one = run(timed(A, base, {}), timed(B, own, {}), latency=settings)
    found = interleaved(one)
    (row,) = found.rows
    table = one.latency.set_index("variant").loc[B]
    assert (row.point.variant, row.against, row.verdict, row.how) == (B, A, "slower", INTERLEAVED)
    assert ends(row) == (table["ratio"], table["ratio_low"], table["ratio_high"])
    assert row.ratio == estimates.ratio(own, base)
    assert stats.estimate(row.ratio, found.looks) == row.estimate
    assert (row.drift.spread, row.units) == (
        0.0,
        {"process": "3 processes", "instance": "12 instances"}[row.ratio.unit],
    )
    assert (found.tolerance, found.looks, found.absent, found.drift) == (0.02, (3, 6, 12), (), ())
    assert any(line.endswith("compute, against a@r") for line in comparison_lines(found))
    result = gate(found, 0.03)
    assert ([row.outcome for row in result.rows], result.exit_code) == (["fail"], 1)
    assert gate(found, 0.3).exit_code == 0


def test_what_two_interpreters_of_an_interleaved_run_differ_in_is_what_changed() -> None:
    pythons = {
        "old": {"python": "3.11.9", "versions": {"rnn-fast": "1.0", "numpy": "2.0"}},
        "new": {"python": "3.11.9", "versions": {"rnn-fast": "1.1", "numpy": "2.0"}},
    }
    sides = [timed(f"a@r[{name}]", by_process(1.0, 1.1), baseline="a@r[old]") for name in pythons]
    found = interleaved(run(*sides, pythons=pythons))
    assert [str(item) for item in found.changes] == ["version of rnn-fast: 1.0 | 1.1"]
    assert [(row.point.variant, row.against) for row in found.rows] == [("a@r[new]", "a@r[old]")] * 2
    other = run(*sides, pythons=pythons | {"new": pythons["old"]})
    assert [str(item) for item in compare(run(*sides, pythons=pythons), other).changes] == [
        "version of rnn-fast in new: 1.1 | 1.0"
    ]


def test_an_interleaved_run_needs_two_sides(tmp_path: Path) -> None:
    side = load_side(write(tmp_path / "a.csv", by_process(1.0, 1.1)))
    with pytest.raises(HarnessError, match=r"a\.csv is one file of samples: give a second one"):
        interleaved(side)
    alone = gate(interleaved(run(timed(A, by_process(1.0, 1.1)))), 0.03)
    assert (alone.rows, alone.exit_code) == ((), 2)


def test_the_rows_of_an_interleaved_run_stand_by_boundary() -> None:
    rows = interleaved(run(*(timed(variant, by_process(1.0, 1.1)) for variant in (A, B, "c@r")))).rows
    order = [(row.point.boundary, row.point.variant) for row in rows]
    assert order == [(COMPUTE, B), (COMPUTE, "c@r"), (WHOLE, B), (WHOLE, "c@r")]


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ok"])
def test_a_row_of_an_interleaved_run_that_failed_where_its_baseline_did_not_fails_the_gate(status: str) -> None:
    trials = timed(A, by_process(1.0, 1.01)), timed(B, {}, status=status, reason="because")
    result = gate(interleaved(run(*trials)), 0.03)
    assert [(row.outcome, row.why) for row in result.rows] == [
        ("fail", f"BASE has it, NEW does not: {status}: because")
    ]
    assert result.exit_code == 1


def test_a_row_whose_baseline_failed_is_listed_and_decides_nothing() -> None:
    trials = timed(A, {}, status="crashed", reason="signal 11"), timed(B, by_process(1.0, 1.01))
    found = interleaved(run(*trials))
    assert [(item.base, item.new) for item in found.absent] == [("crashed: signal 11", "ok")]
    assert gate(found, 0.03).exit_code == 2


def test_a_row_that_shares_nothing_with_its_baseline_fails_the_gate() -> None:
    found = interleaved(run(timed(A, {(0, 0, 0): 1.0}, {}), timed(B, {(1, 1, 0): 1.0}, {})))
    assert [(item.base, item.new) for item in found.absent] == [("ok", "shares no slice with BASE")]
    assert gate(found, 0.03).exit_code == 1


# ------------------------------------------------------------------------------------------------------- the gate


def sides(ratio: float, spread: float = 0.001, processes: int = 5) -> tuple[Run, Run]:
    base = by_process(*(math.exp(spread * place) for place in range(processes)))
    return (
        run(timed(A, base, {}), processes=canary(1.0, 1.0)),
        run(timed(A, {key: ratio * value for key, value in base.items()}, {}), processes=canary(1.0, 1.0)),
    )


@pytest.mark.parametrize(
    ("ratio", "spread", "outcome", "code"),
    [
        (1.0, 0.001, "pass", 0),
        (0.5, 0.001, "pass", 0),
        (1.02, 0.001, "pass", 0),
        (1.04, 0.001, "fail", 1),
        (1.04, 0.05, "undecided", 2),
        (1.0, 0.05, "undecided", 2),
        (1.03, 0.001, "undecided", 2),
    ],
)
def test_the_gate_passes_fails_or_says_that_it_does_not_know(
    ratio: float, spread: float, outcome: str, code: int
) -> None:
    result = gate(compare(*sides(ratio, spread)), 0.03)
    assert [row.outcome for row in result.rows] == [outcome]
    assert result.exit_code == code
    assert result.outcome == outcome
    assert result.rows[0].ratio.startswith(f"{ratio:.3f}× (")
    limit = {"pass": "shown to be under the limit", "fail": "shown to be over the limit"}
    assert (result.rows[0].why == limit.get(outcome)) is (outcome != "undecided")


def test_one_row_that_fails_fails_the_gate_and_one_that_is_undecided_leaves_it_open() -> None:
    base = [timed(name, by_process(1.0, 1.001, 1.002), {}) for name in "abc"]
    new = [
        timed("a", by_process(1.0, 1.001, 1.002), {}),
        timed("b", by_process(0.5, 1.0, 1.5), {}),
        timed("c", by_process(2.0, 2.001, 2.002), {}),
    ]
    compared = compare(run(*base), run(*new))
    result = gate(compared, 0.03)
    assert [row.outcome for row in result.rows] == ["pass", "undecided", "fail"]
    assert result.exit_code == 1
    assert gate(compare(run(*base[:2]), run(*new[:2])), 0.03).exit_code == 2
    lines = gate_lines(result, compared)
    assert all(str(drift) in " ".join(" ".join(lines).split()) for drift in compared.drift)
    words = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert words[:3] == ["fail", "undecided", "pass"]
    assert lines[-1] == "at most 3 % slower: 1 fail, 1 undecided, 1 pass"


def three_outcomes() -> tuple[GateResult, Comparison]:
    """Rows `a`, which passes, `b`, which is undecided, and `c`, which fails; Python changed."""
    base = [timed(name, by_process(1.0, 1.001, 1.002), {}) for name in "abc"]
    new = [timed("a", by_process(1.0, 1.001, 1.002), {}), timed("b", by_process(0.5, 1.0, 1.5), {})]
    slow = timed("c", by_process(2.0, 2.001, 2.002), {})
    compared = compare(run(*base), run(*new, slow, environment=MACHINE | {"python": "3.12.1"}))
    return gate(compared, 0.03), compared


def test_a_page_of_a_job_has_the_outcome_first_then_what_failed_then_what_changed_then_folded_details() -> None:
    text = document_markdown(gate_document(*three_outcomes()))
    assert text.startswith(
        "# Gate: fail\n\nat most 3 % slower: 1 fail, 1 undecided, 1 pass\n\nBASE is run, NEW is run.\n"
    )
    folded = "<details><summary>t on cpu: I=3 H=6 L=1, float32, 1 thread a call, compute</summary>"
    parts = ("| outcome | row | NEW / BASE | why |", "| fail | c, ", "| undecided | b, ", "| pass | a, ", "canary")
    places = [text.index(part) for part in (*parts, "| python | 3.11.9 | 3.12.1 |", folded, "How to read it")]
    assert places == sorted(places)
    assert re.search(r"\| 1\.999× \(1\.\d{3}–2\.\d{3}\) \| shown to be over the limit \|", text)
    assert text.count("<details>") == text.count("</details>") == 2
    assert text.index("| c | single-stream 1×5 | 1 s | 2 s |") > text.index(folded)


def test_a_terminal_and_the_page_of_a_job_say_the_same() -> None:
    result, compared = three_outcomes()
    document = gate_document(result, compared)
    printed = " ".join(" ".join(gate_lines(result, compared)).split())
    for section in document.sections:
        for row in section.rows if not section.folded else ():
            assert all(cell in printed for cell in row), row
        assert all(said in printed for said in section.remarks if not section.folded)
    assert document.remarks[0] in printed


def test_a_page_of_a_job_says_what_every_outcome_and_exit_code_means() -> None:
    result, compared = three_outcomes()
    for row in result.rows:
        assert any(said.startswith(f"{row.outcome}: ") for said in GATE_READING)
    assert [digit for digit in GATE_READING[-1] if digit.isdigit()] == ["0", "1", "2"]
    assert gate_document(result, compared).sections[-1].remarks == GATE_READING


def test_of_more_rows_than_anybody_reads_the_first_500_are_shown_what_fails_before_all() -> None:
    names = [f"v{number}" for number in range(502)]
    base = run(*(timed(name, by_process(1.0, 1.001), {}) for name in names))
    new = run(*(timed(name, by_process(1.0, 1.001), {}) for name in names[:-1]))
    compared = compare(base, new)
    rows = gate_document(gate(compared, 0.03), compared).sections[0]
    assert (len(rows.rows), rows.rows[0][0], rows.remarks) == (500, "fail", ("The first 500 of 502 rows.",))


def test_a_gate_that_could_not_look_is_undecided_and_says_why() -> None:
    text = document_markdown(no_gate_document("what matters differs"))
    assert text.startswith("# Gate: undecided\n\nnothing was compared: what matters differs\n")
    assert "its exit code is 2" in text


@pytest.mark.parametrize("how", ["missing", "crashed", "no samples"])
def test_a_row_that_new_lost_fails_the_gate_and_says_so(how: str) -> None:
    both, one = timed(A, by_process(1.0, 1.0001)), timed(B, by_process(1.0, 1.0001))
    lost = {"missing": (), "crashed": (replace(one, row={"status": "crashed", "reason": "signal 11"}),)}
    new = lost.get(how, (timed(B, {}),))
    result = gate(compare(run(both, one), run(both, *new)), 0.03)
    assert result.exit_code == 1
    failed = [row for row in result.rows if row.outcome == "fail"]
    assert {row.row[:3] for row in failed} == {B}
    words = {"missing": "not in it", "crashed": "crashed: signal 11", "no samples": "no samples that count"}
    assert {row.why for row in failed} == {f"BASE has it, NEW does not: {words[how]}"}


def test_a_row_that_base_lacks_does_not_fail_the_gate_and_a_gate_of_nothing_is_open() -> None:
    both, one = timed(A, by_process(1.0, 1.0001)), timed(B, by_process(1.0, 1.0001))
    assert gate(compare(run(both), run(both, one)), 0.03).exit_code == 0
    bad = timed(A, {}, status="unsupported", reason="no")
    compared = compare(run(bad), run(bad))
    nothing = gate(compared, 0.03)
    assert (nothing.rows, nothing.exit_code) == ((), 2)
    lines = gate_lines(nothing, compared)
    assert any("unsupported: no" in line for line in lines)
    assert lines[-1] == "at most 3 % slower: nothing was compared"


def test_a_row_that_the_base_run_never_reached_leaves_the_gate_undecided() -> None:
    both, one = timed(A, by_process(1.0, 1.0001)), timed(B, by_process(1.0, 1.0001))
    cut_off = timed(B, {}, status="skipped", reason="the run ended before this trial")
    result = gate(compare(run(both, cut_off), run(both, one)), 0.03)
    assert result.exit_code == 2
    assert {row.outcome for row in result.rows if row.row[:3] == B} == {"undecided"}


def why(result_rows: tuple[GateRow, ...]) -> str:
    (row,) = result_rows
    assert row.outcome == "undecided"
    return row.why


def test_an_undecided_row_says_how_much_more_measuring_would_decide() -> None:
    base, new = sides(1.0, 0.02)
    found = compare(base, new)
    needed = stats.units_needed(row_of(found).ratio, math.log(1.03)) / 10
    assert needed > 1
    text = why(gate(found, 0.03).rows)
    assert text == f"about {needed:.2g} times as many processes would decide (there were 5 | 5 processes)"
    again = by_process(*[math.exp(0.02 * place) for place in range(5)] * math.ceil(needed))
    more = run(timed(A, again, {}), processes=canary(1.0, 1.0))
    assert gate(compare(more, more), 0.03).exit_code == 0


def with_canary(side: Run, *seconds: float) -> Run:
    return replace(side, processes=pd.DataFrame(canary(*seconds)))


def test_drift_that_reaches_the_limit_cannot_be_measured_away() -> None:
    base, new = sides(1.0, 0.02)
    text = why(gate(compare(base, with_canary(new, 1.05, 1.05)), 0.03).rows)
    assert text == "no number of processes would decide it beside the machine's drift: interleave both in one run"


def test_what_is_left_beside_a_smaller_drift_is_what_more_measuring_must_reach() -> None:
    base, new = sides(1.0, 0.02)
    found = compare(base, with_canary(new, 1.01, 1.01))
    row = row_of(found)
    left = math.sqrt(math.log(1.03) ** 2 - (1.959963984540054 * math.log(1.01)) ** 2)
    needed = stats.units_needed(stats.difference(row.new, row.base), left) / 10
    assert why(gate(found, 0.03).rows).startswith(f"about {needed:.2g} times as many processes would decide")


def test_a_shift_within_the_canarys_own_noise_lessens_with_more_measuring() -> None:
    base, new = sides(1.0)
    found = compare(with_canary(base, 1.0, 1.6, 1.3), with_canary(new, 1.1, 1.7, 1.4))
    assert found.drift[0].spread > math.log(1.03)
    assert found.drift[0].lasting == 0.0
    needed = stats.units_needed(row_of(found).ratio, math.log(1.03)) / 10
    text = why(gate(found, 0.03).rows)
    assert text == f"about {float(f'{needed:.2g}'):g} times as many processes would decide (there were 5 | 5 processes)"
    assert needed > 100


def test_what_lies_on_the_limit_cannot_be_measured_away_either() -> None:
    assert "too near the limit" in why(gate(compare(*sides(1.03, 0.02)), 0.03).rows)


def test_what_only_the_number_of_rows_leaves_undecided_needs_a_little_more() -> None:
    base, _ = sides(1.0, 0.02)
    error = row_of(compare(base, base)).ratio.standard_error
    _, slower = sides(1.03 * math.exp(2.45 * error), 0.02)  # one-sided p = 0.02, between 5 % / 3 and 5 % / 2
    assert gate(compare(base, slower), 0.03).exit_code == 1
    first, second = timed("b", by_process(1.0, 1.5, 2.0), {}), timed("c", by_process(1.0, 1.5, 2.0), {})

    def among(side: Run) -> Run:
        own = side.samples.loc[side.samples["boundary"] == COMPUTE]
        seconds = {(int(r["slice"]), int(r["process"]), 0): r["elapsed_s"] for _, r in own[own["call"] > 0].iterrows()}
        return run(timed(A, seconds, {}), first, second)

    result = gate(compare(among(base), among(slower)), 0.03)
    assert why(result.rows[:1]) == "a little more would decide"


def test_one_process_is_told_to_take_more() -> None:
    assert "take at least two" in why(gate(compare(*sides(1.0, processes=1)), 0.03).rows)


@pytest.mark.parametrize(
    ("text", "value"), [("3%", 0.03), ("3 %", 0.03), (" 0.5% ", 0.005), ("100%", 1.0), ("0%", 0.0)]
)
def test_a_percentage_has_its_sign(text: str, value: float) -> None:
    assert parse_percent(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["3", "0.03", "", "%", "-3%", "3%%", "3,5%", "three%", "nan%", "inf%", "1e3%", "٣%", "3% x"]
)
def test_a_number_without_its_sign_could_mean_anything(text: str) -> None:
    with pytest.raises(HarnessError, match="is not a percentage: write 3 % as '3%'"):
        parse_percent(text)


# ------------------------------------------------------------------------------------------------------- text


HOSTILE = [
    "a | b",
    "a \\| b",
    "one\ntwo",
    "<script>alert(1)</script>",
    "`code",
    "# x",
    "![](http://x.invalid/x.png)",
    "\x1b[31m",
]


def hostile(text: str) -> Comparison:
    """A comparison with the text in every place a stranger can reach."""
    other = MACHINE | {"cpu_model": text, "python": text, "versions": {text: text}}
    trials = timed(text, by_process(1.0, 1.01), task=text), timed(B, {}, task=text, status="failed", reason=text)
    base = run(*trials, name=text, processes=canary(1.0, 1.01, task=text))
    new = run(*trials, name=text, processes=canary(1.0, 1.01, task=text), environment=other, latency={"calls": 70})
    return compare(base, new, allow_different=True)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_neither_markup_nor_the_end_of_a_cell(text: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(comparison_markdown(hostile(text)))
    assert sum(token.type == "table_open" for token in tokens) == 5
    assert {token.type for token in tokens} & {"html_block", "code_block", "fence"} == set()
    for token in tokens:
        for child in token.children or []:
            assert child.type not in ("html_inline", "image", "link_open", "code_inline"), token.content
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert len(headings) == 6


@pytest.mark.parametrize("text", [*HOSTILE, "long" * 100, "long words " * 50])
def test_a_terminal_gets_printable_lines_of_at_most_100_columns(text: str) -> None:
    found = hostile(text)
    for line in [*comparison_lines(found), *comparison_lines(found, found), *gate_lines(gate(found, 0.03), found)]:
        assert line.isprintable()
        assert len(line) <= WIDTH == 100


def test_the_markdown_has_the_verdicts_first_then_the_machine_then_the_changes_then_what_is_absent() -> None:
    base = run(timed(A, by_process(1.0, 1.001)), timed(B, by_process(1.0)), processes=canary(1.0, 1.0))
    new = run(timed(A, by_process(2.0, 2.002)), environment=MACHINE | {"commit": "def"}, processes=canary(1.0, 1.0))
    text = comparison_markdown(compare(base, new))
    row = "| slower | 2 \\| 2 processes | separate runs |"
    places = [
        text.index(part) for part in (row, "the machine itself", "## Changed", "| commit | abc | def |", "not in it")
    ]
    assert places == sorted(places)
    lines = comparison_lines(compare(base, new))
    assert any(
        line.startswith("a@r       single-stream 1×5  1 s   2 s  2.000× ±") and "slower" in line for line in lines
    )
