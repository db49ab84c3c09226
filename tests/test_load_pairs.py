"""Loads of two sides: known capacities come out, and what a search cannot tell apart is not called the same."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import Probe, Timed, five, probes_of, write_loads, write_run
from scipy import stats as scipy_stats

from harness import HarnessError, stats, verdicts
from harness.capacity import Limits, apart, paired
from harness.compare import Comparison, GateRow, Row, compare, compare_all, compare_sides, gate, interleaved
from harness.compare_report import comparison_document, comparison_lines, gate_document, gate_lines
from harness.document import WIDTH, document_markdown
from harness.drift import Drift
from harness.estimates import GENERATOR_LATE, NOT_SUSTAINED, ONE_SIDED, REFUSED, SUSTAINED, Limit
from harness.journal import Journal, read_journal
from harness.sides import Point, Side, side_of
from harness.store import load
from harness.verdicts import CARRIES_LESS, CARRIES_MORE, FAIL, PASS, SAME, UNDECIDED

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
STEP = math.log(1.04)  # of searches, unless a test says otherwise
RATES = (90.0, 95.0, 100.0, 105.0, 110.0)  # which lie further apart than that
MIDDLE = "99.7"  # their geometric mean

Found = Mapping[int, Sequence[Probe]]


def found(*limits: float, step: float = 1.04) -> Found:
    """What workers were offered whose limits these are, one a slice."""
    return {slice_: probes_of(limit, step) for slice_, limit in enumerate(limits, start=1)}


def times(factor: float) -> Found:
    return found(*(factor * rate for rate in RATES))


def run_of(path: Path, variants: Mapping[str, Found], **others: Any) -> Side:
    return side_of(load(write_loads(path, variants, **others)))


def two(tmp_path: Path, base: Found, new: Found, **others: Any) -> Comparison:
    """One variant in two runs."""
    sides = [run_of(tmp_path / name, {"a@r": own}, **others) for name, own in (("base", base), ("new", new))]
    return compare_sides(sides[0], sides[1])


def only(comparison: Comparison) -> Row:
    (row,) = comparison.loads
    return row


def half_width(row: Row) -> float:
    return math.log(row.estimate.high / row.estimate.value)


# ------------------------------------------------------------------------------------------------------- two runs


def test_the_ratio_is_new_over_base_with_welchs_interval_over_workers(tmp_path: Path) -> None:
    row = only(two(tmp_path, times(1.0), times(2.0), canary=[1e-4] * 5))
    logs = np.log(RATES)
    half = scipy_stats.t.ppf(0.975, 8) * scipy_stats.sem(logs) * math.sqrt(2)
    assert row.estimate.value == pytest.approx(2.0)
    assert half_width(row) == pytest.approx(half)
    assert (row.verdict, row.how, row.units, row.point.scenario) == (
        CARRIES_MORE,
        "separate runs",
        "5 | 5 processes",
        "server",
    )
    assert [math.exp(side.mean) for side in (row.base, row.new)] == pytest.approx(
        [math.exp(logs.mean() + x) for x in (0, math.log(2))]
    )


def test_half_the_requests_a_second_is_less_and_fails_the_gate_and_twice_as_many_pass_it(tmp_path: Path) -> None:
    less, more = (two(tmp_path / str(factor), times(1.0), times(factor)) for factor in (0.5, 2.0))
    assert [only(each).verdict for each in (less, more)] == [CARRIES_LESS, CARRIES_MORE]
    results = [gate(each, 0.05) for each in (less, more)]
    assert [(result.exit_code, result.rows[0].outcome) for result in results] == [(1, FAIL), (0, PASS)]
    assert [result.rows[0].why for result in results] == [
        "shown to carry less than 0.952× of BASE",
        "shown to carry more than 0.952× of BASE",
    ]


def test_the_limit_of_a_gate_is_on_base_over_new(tmp_path: Path) -> None:
    exact = [1000.0 * math.exp(place * 0.02) for place in (-2, -1, 0, 1, 2)]  # their steps are in their spread
    for factor, outcome in ((1 / 1.29, FAIL), (1 / 1.21, UNDECIDED), (1 / 1.11, PASS)):
        new = found(*(rate * factor for rate in exact))
        assert gate(two(tmp_path / str(factor), found(*exact), new), 0.2).rows[0].outcome == outcome


@pytest.mark.parametrize("scenario", ["server", "stream"])
def test_equal_limits_that_all_lie_on_one_load_are_neither_the_same_nor_pass(tmp_path: Path, scenario: str) -> None:
    compared = two(tmp_path, found(*[100.0] * 5), found(*[100.0] * 5), scenario=scenario)
    row = only(compared)
    assert row.estimate.value == pytest.approx(1.0)
    assert half_width(row) == pytest.approx(scipy_stats.t.ppf(0.975, 8) * STEP / ONE_SIDED)  # half a step a side
    assert row.verdict == UNDECIDED
    (said,) = gate(compared, 0.02).rows
    assert (said.outcome, said.why) == (
        UNDECIDED,
        "no number of processes would decide it beside a search that tells loads apart by no less: lower "
        f"{scenario}.precision",
    )


def test_a_finer_search_lets_equal_limits_pass_and_be_the_same(tmp_path: Path) -> None:
    fine = found(*[100.0] * 5, step=1.002)
    compared = two(tmp_path, fine, fine)
    assert only(compared).verdict == SAME
    assert gate(compared, 0.02).exit_code == 0


def test_a_search_with_wider_steps_is_told_too_low_by_half_of_the_difference_and_that_is_in_the_error(
    tmp_path: Path,
) -> None:
    wide = found(50.0, 500.0, 100.0, 20.0, 300.0, step=1.5)  # spread by more than a step
    row = only(two(tmp_path, times(1.0), wide))
    assert row.coarseness == pytest.approx((math.log(1.5) - STEP) / 2 / ONE_SIDED)


def test_one_worker_has_a_ratio_and_no_interval(tmp_path: Path) -> None:
    compared = two(tmp_path, found(100.0), found(50.0))
    assert only(compared).estimate.value == pytest.approx(0.5)
    assert math.isnan(only(compared).estimate.low)
    assert "take at least two on each side" in gate(compared, 0.05).rows[0].why


@pytest.mark.parametrize("factor", [1.2, 1 / 1.2])
def test_a_machine_that_became_slower_or_faster_widens_the_interval_of_a_capacity(
    tmp_path: Path, factor: float
) -> None:
    quiet = run_of(tmp_path / "base", {"a@r": times(1.0)}, canary=[1e-4] * 5)
    moved = run_of(tmp_path / "new", {"a@r": times(1 / factor)}, canary=[1e-4 * factor] * 5)
    compared = compare_sides(quiet, moved)
    sampled = scipy_stats.sem(np.log(RATES)) * math.sqrt(2)
    assert half_width(only(compared)) == pytest.approx(
        scipy_stats.t.ppf(0.975, 8) * math.hypot(sampled, math.log(factor))
    )
    assert only(compared).verdict == UNDECIDED  # it carries less or more by just what the machine did
    assert any(note.startswith("No canary runs while loads are offered") for note in compared.notes)


rates = st.lists(st.floats(50.0, 200.0), min_size=2, max_size=5)


def limits(sustained: Sequence[float], step: float = STEP) -> Limits:
    each = {place: Limit(rate, rate * math.exp(step)) for place, rate in enumerate(sustained)}
    return Limits(each, is_capped=False, least=1.0, refuted=2.0, bound_s=0.05, is_confirmed=True)


@given(rates, rates, st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_swapping_the_sides_inverts_the_ratio_and_mirrors_its_verdict(
    first: list[float], second: list[float], fine: float, coarse: float
) -> None:
    one, other = limits(first, fine), limits(second, coarse)
    mirrored = {CARRIES_MORE: CARRIES_LESS, CARRIES_LESS: CARRIES_MORE}
    for ratio_of in (apart, paired):
        there, back = ratio_of(one, other), ratio_of(other, one)
        assert there
        assert back
        assert (there.value.mean, there.value.standard_error) == pytest.approx(
            (-back.value.mean, back.value.standard_error), nan_ok=True
        )
        words = [verdicts.judge([each.value], 0.01, metric="capacity")[0] for each in (there, back)]
        assert words[0] == mirrored.get(words[1], words[1])


@given(rates, st.floats(0.0, 0.5), st.floats(0.0, 0.5))
def test_equal_runs_never_carry_more_or_less_and_never_fail(rates: list[float], step: float, allowed: float) -> None:
    for ratio_of in (apart, paired):
        ratio = ratio_of(limits(rates, step), limits(rates, step))
        assert ratio
        assert verdicts.judge([ratio.value], 0.01, metric="capacity")[0] in (SAME, UNDECIDED)
        assert verdicts.gate([ratio.value], allowed) != [FAIL]


@given(rates, st.floats(0.01, 0.5))
def test_a_coarser_search_is_never_surer(rates: list[float], step: float) -> None:
    errors = [apart(limits(rates, own), limits(rates, own)).value.standard_error for own in (step / 2, step)]
    assert errors[0] <= errors[1]


def searched(rng: np.random.Generator, logs: np.ndarray[Any, Any], step: float, grid: float | None) -> Limits:
    """What workers find whose true limits these are: the lower end of a step of one grid, or of each worker's own."""
    each = {}
    for place, log in enumerate(logs):
        origin = rng.uniform(0, step) if grid is None else grid
        low = origin + step * math.floor((log - origin) / step)
        each[place] = Limit(math.exp(low), math.exp(low + step))
    return Limits(each, is_capped=False, least=1.0, refuted=2.0, bound_s=0.05, is_confirmed=True)


def coverage(draws: int) -> dict[tuple[Any, ...], float]:
    """How often 95 % intervals hold the true ratio, by workers, spread, what slices have in common, grid and test."""
    rng, step, hits = np.random.default_rng(1), math.log(1.05), dict[tuple[Any, ...], int]()
    cases = [(n, own, common) for n in (3, 5, 10, 30) for own, common in ((0, 0), (0.1, 0), (0.3, 0), (1, 0), (0.1, 1))]
    for (workers, own, common), is_one in [(case, grid) for case in cases for grid in (True, False)]:
        for _ in range(draws):
            shift, grid = rng.uniform(-0.1, 0.1), rng.uniform(0, step) if is_one else None
            slices = step * common * rng.normal(size=workers)
            base, new = (
                searched(rng, slices + mean + step * own * rng.normal(size=workers), step, grid) for mean in (0, shift)
            )
            for name, ratio in (("apart", apart(new, base)), ("paired", paired(new, base))):
                assert ratio
                interval = stats.estimate(ratio.value)
                case = workers, own, common, is_one, name
                hits[case] = hits.get(case, 0) + (interval.low <= math.exp(shift) <= interval.high)
    return {case: count / draws for case, count in hits.items()}


def test_intervals_hold_the_true_ratio_however_coarse_the_search_is_beside_what_workers_differ_by() -> None:
    held = coverage(draws=60)
    assert np.mean(list(held.values())) > 0.95
    assert min(held.values()) > 0.95 - 5 * math.sqrt(0.95 * 0.05 / 60)


def test_what_is_slower_by_just_the_limit_seldom_passes_wherever_the_steps_lie() -> None:
    """The error rate is 5 %, for every single ratio, although all workers may be wrong by as much."""
    rng, step, draws = np.random.default_rng(3), math.log(1.05), 60
    passed: dict[tuple[Any, ...], int] = {}
    cases = [(n, own, slow) for n in (3, 10, 30) for own in (0.0, 0.1, 0.5) for slow in (0.01, 0.035, 0.041, 0.1)]
    for workers, own, slow in cases:
        for _ in range(draws):
            grid = rng.uniform(0, step)
            logs = (mean + step * own * rng.normal(size=workers) for mean in (0.0, -math.log1p(slow)))
            base, new = (searched(rng, each, step, grid) for each in logs)
            for name, ratio in (("apart", apart(new, base)), ("paired", paired(new, base))):
                assert ratio
                slowdown = replace(ratio.value, mean=-ratio.value.mean)
                case = workers, own, slow, name
                passed[case] = passed.get(case, 0) + (verdicts.gate([slowdown], slow) == [PASS])
    assert len(passed) == 2 * len(cases)
    assert max(passed.values()) / draws < 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert sum(passed.values()) / len(passed) / draws < 0.05


# ------------------------------------------------------------------------------------- what cannot be compared


def ended(rows: Found, status: str = "ok", **row: Any) -> tuple[Found, dict[str, Any]]:
    return rows, {"ends": {"a": status}, "row": row}


NOTHING: list[Probe] = [(20.0, NOT_SUSTAINED), (10.0, NOT_SUSTAINED)]
LATE: list[Probe] = [(20.0, SUSTAINED), (40.0, REFUSED)]
CARRIES = ended(times(1.0))
SOME_NOTHING = ended({**times(1.0), 3: NOTHING})
ALL_NOTHING = ended(dict.fromkeys(range(1, 6), NOTHING))
CAPPED = ended(times(1.0), is_capped=True)
UNTRIED = ended({slice_: [(100.0, SUSTAINED)] for slice_ in range(1, 6)})
WAS_LATE = f"failed: {GENERATOR_LATE} in 5 of 10 probes"
ALL_LATE = ended(dict.fromkeys(range(1, 6), LATE), WAS_LATE)
RAISED = ended({1: LATE}, "failed: ValueError: no")  # in its second worker
CRASHED = ended({1: probes_of(100.0)}, "crashed")
SKIPPED = ended({}, "skipped")
BOUND = ended(times(1.0), bound_s=0.01)
NOTHING_IN_BOUND = ended(dict.fromkeys(range(1, 6), NOTHING), bound_s=0.01)
CRASHED_IN_BOUND = ended({1: probes_of(100.0)}, "crashed", bound_s=0.01)
NOTHING_AS_LOW = ended({slice_: [(400.0, NOT_SUSTAINED), (200.0, NOT_SUSTAINED)] for slice_ in range(1, 6)})
TERMS = "a bound of {} ms, a wait of 0 ms for others"


@pytest.mark.parametrize(
    ("base", "new", "said", "outcome"),
    [
        (CARRIES, SOME_NOTHING, ("ok", "1 of 5 workers sustained nothing, down to 10 requests/s"), UNDECIDED),
        (SOME_NOTHING, CARRIES, ("1 of 5 workers sustained nothing, down to 10 requests/s", "ok"), UNDECIDED),
        (CARRIES, ALL_NOTHING, ("ok", "5 of 5 workers sustained nothing, down to 10 requests/s"), FAIL),
        (ALL_NOTHING, CARRIES, ("5 of 5 workers sustained nothing, down to 10 requests/s", "ok"), None),
        (CARRIES, NOTHING_AS_LOW, ("ok", "5 of 5 workers sustained nothing, down to 200 requests/s"), UNDECIDED),
        (CARRIES, NOTHING_IN_BOUND, (TERMS.format(50), TERMS.format(10)), UNDECIDED),
        (CARRIES, CRASHED_IN_BOUND, ("ok", "crashed"), FAIL),
        (CARRIES, CAPPED, ("ok", f"at least {MIDDLE} requests/s"), UNDECIDED),
        (CAPPED, CARRIES, (f"at least {MIDDLE} requests/s", "ok"), UNDECIDED),
        (CAPPED, CAPPED, (f"at least {MIDDLE} requests/s", f"at least {MIDDLE} requests/s"), UNDECIDED),
        (CAPPED, CRASHED, (f"at least {MIDDLE} requests/s", "crashed"), FAIL),
        (CARRIES, UNTRIED, ("ok", "at least 100 requests/s"), UNDECIDED),
        (CARRIES, ALL_LATE, ("ok", WAS_LATE), UNDECIDED),
        (CARRIES, RAISED, ("ok", "failed: ValueError: no"), FAIL),
        (ALL_LATE, CARRIES, (WAS_LATE, "ok"), UNDECIDED),
        (ALL_LATE, CRASHED, (WAS_LATE, "crashed"), UNDECIDED),
        (CARRIES, CRASHED, ("ok", "crashed"), FAIL),
        (CRASHED, CARRIES, ("crashed", "ok"), None),
        (SKIPPED, CARRIES, ("skipped", "ok"), UNDECIDED),
        (CARRIES, SKIPPED, ("ok", "skipped"), FAIL),
        (
            CARRIES,
            BOUND,
            (TERMS.format(50), TERMS.format(10)),
            UNDECIDED,
        ),
    ],
)
def test_limits_that_cannot_be_compared_are_listed_and_the_gate_says_what_it_makes_of_them(
    tmp_path: Path, base: Any, new: Any, said: tuple[str, str], outcome: str | None
) -> None:
    sides = [run_of(tmp_path / name, {"a@r": rows}, **how) for name, (rows, how) in (("base", base), ("new", new))]
    compared = compare_sides(sides[0], sides[1])
    assert compared.loads == ()
    (item,) = compared.absent
    assert (item.base, item.new) == said
    assert str(item.what) == "a@r, server 1×5, t on cpu: I=3 H=6 L=1, float32, 1 thread a call, load"
    rows = gate(compared, 0.05).rows
    assert [row.outcome for row in rows] == ([outcome] if outcome else [])
    assert all(said[1] in row.why or said[0] == "skipped" for row in rows)


def test_a_load_that_only_one_run_has_is_listed_and_one_that_new_lost_fails(tmp_path: Path) -> None:
    both = run_of(tmp_path / "both", {"a@r": times(1.0), "b@r": times(1.0)})
    one = run_of(tmp_path / "one", {"a@r": times(1.0)})
    lost, gained = compare_sides(both, one), compare_sides(one, both)
    assert [(item.base, item.new) for item in lost.absent] == [("ok", "not in it")]
    assert [(item.base, item.new) for item in gained.absent] == [("not in it", "ok")]
    assert [gate(each, 0.5).exit_code for each in (lost, gained)] == [1, 0]


@pytest.mark.parametrize(
    ("scenario", "suite"),
    [("stream", {"stream": {"miss_share": 0.1}}), ("server", {"server": {"window_seconds": 0.01}})],
)
def test_loads_that_were_judged_or_served_by_another_rule_are_not_compared(
    tmp_path: Path, scenario: str, suite: dict[str, Any]
) -> None:
    base = run_of(tmp_path / "base", {"a@r": times(1.0)}, scenario=scenario)
    new = run_of(tmp_path / "new", {"a@r": times(1.0)}, scenario=scenario, suite=suite)
    compared = compare_sides(base, new)
    assert (compared.loads, len(compared.absent)) == ((), 1)
    assert gate(compared, 0.5).exit_code == 2
    ((table, changed),) = suite.items()
    assert [item.what for item in compared.changes] == [f"{table}.{name}" for name in changed]


def test_a_limit_of_a_search_alone_is_not_compared_with_one_that_was_confirmed(tmp_path: Path) -> None:
    sides = [
        run_of(tmp_path / str(confirmed), {"a@r": times(1.0)}, row={"is_confirmation": confirmed})
        for confirmed in (True, False)
    ]
    compared = compare_sides(sides[0], sides[1])
    (item,) = compared.absent
    assert (item.base, item.new) == (TERMS.format(50), f"{TERMS.format(50)}, not confirmed")
    assert gate(compared, 0.5).exit_code == 2


def test_how_finely_was_searched_may_differ_and_is_listed(tmp_path: Path) -> None:
    base = run_of(tmp_path / "base", {"a@r": times(1.0)})
    new = run_of(tmp_path / "new", {"a@r": times(0.5)}, suite={"server": {"precision": 0.1}})
    compared = compare_sides(base, new)
    assert only(compared).verdict == CARRIES_LESS
    assert [str(item) for item in compared.changes] == ["server.precision: 0.05 | 0.1"]


def test_a_run_without_loads_is_compared_as_ever(tmp_path: Path) -> None:
    sides = [side_of(load(write_run(tmp_path / name, Timed("a@r", five(0.001))))) for name in ("base", "new")]
    compared = compare_sides(sides[0], sides[1])
    assert (compared.loads, [side.loads for side in sides]) == ((), [{}, {}])
    shown = comparison_document([compared], intervals=True), gate_document(gate(compared, 0.05), compared)
    texts = [document_markdown(each).partition("How to read it")[0] for each in shown]
    assert not any(word in text for text in texts for word in ("of loads", "Of loads", "carr", ", load"))


def test_where_nothing_is_in_both_that_is_said(tmp_path: Path) -> None:
    loads = run_of(tmp_path / "loads", {"a@r": times(1.0)})
    latencies = side_of(load(write_run(tmp_path / "latencies", Timed("b@r", five(0.001)))))
    with pytest.raises(HarnessError, match="no latency row and no load is in both runs"):
        compare_sides(loads, latencies)


def test_a_suite_that_is_none_is_damage(tmp_path: Path) -> None:
    path = write_loads(tmp_path / "run", {"a@r": times(1.0)}, suite={"server": {"p99_seconds": "soon"}})
    with pytest.raises(HarnessError, match="is damaged: its suite is not one"):
        side_of(load(path))


# ------------------------------------------------------------------------------------- verdicts of several


def test_verdicts_hold_over_all_loads_of_all_runs_and_no_latency_counts(tmp_path: Path) -> None:
    base = run_of(tmp_path / "base", {"a@r": times(1.0)})
    near, far = (run_of(tmp_path / str(factor), {"a@r": times(factor)}) for factor in (1.14, 1.01))
    alone = compare_sides(base, near)
    assert only(alone).verdict == CARRIES_MORE
    together = compare_all(base, [near, *[far] * 6])
    ratios = [only(each).ratio for each in together]
    assert ratios[0] == only(alone).ratio
    assert [only(each).verdict for each in together] == verdicts.judge(ratios, 0.01, metric="capacity")
    assert only(together[0]).verdict == UNDECIDED


def test_within_one_run_ratios_and_verdicts_are_those_of_its_own_table(tmp_path: Path) -> None:
    run = load(write_loads(tmp_path / "run", {"a@r": times(1.0), "b@r": times(0.5), "c@r": {1: NOTHING}}))
    compared = interleaved(run)
    row, own = only(compared), run.capacity.iloc[1]
    assert (row.point.variant, row.against, row.how, row.units) == ("b@r", "a@r", "interleaved", "5 slices")
    estimate = row.estimate.value, row.estimate.low, row.estimate.high
    assert estimate == pytest.approx(tuple(own[["ratio", "ratio_low", "ratio_high"]]))
    assert row.verdict == own["verdict"] == CARRIES_LESS
    assert [row.outcome for row in gate(compared, 0.05).rows] == [FAIL, FAIL]


def test_variants_that_share_no_slice_leave_the_gate_undecided(tmp_path: Path) -> None:
    run = load(write_loads(tmp_path / "run", {"a@r": {1: probes_of(100.0)}, "b@r": {2: probes_of(100.0)}}))
    compared = interleaved(run)
    assert [item.new for item in compared.absent] == ["shares no slice with BASE"]
    assert gate(compared, 0.05).exit_code == 2


def test_loads_pay_for_no_looks_at_latencies(tmp_path: Path) -> None:
    suite = {"latency": {"slices": 3, "max_slices": 100}}
    run = load(write_loads(tmp_path / "run", {"a@r": times(1.0), "b@r": times(1.0)}, suite=suite))
    compared = interleaved(run)
    assert len(compared.looks) > 1
    assert [row.outcome for row in gate(compared, 0.05).rows] == verdicts.gate([only(compared).slowdown], 0.05)


# ------------------------------------------------------------------------------------------------------- in words


def test_a_terminal_and_a_page_say_what_is_carried_and_by_how_much_more(tmp_path: Path) -> None:
    compared = two(tmp_path, times(1.0), times(2.0))
    lines = [" ".join(line.split()) for line in comparison_lines(compared)]
    assert "t on cpu: I=3 H=6 L=1, float32, 1 thread a call, load" in lines
    half = 100 * math.expm1(half_width(only(compared)))
    shown = f"×÷{1 + half / 100:.2f}" if half >= 10 else f"±{half:.1f}%"
    assert f"a@r server 1×5 99.7/s 199/s 2.000× {shown} carries more 5 | 5 processes" in lines
    text = document_markdown(comparison_document([compared], intervals=True))
    assert "| a@r | server 1×5 | 99.7/s | 199/s | 2.000× (" in text
    assert "above 1, NEW carries more" in text
    assert "above 1, NEW carries more" in " ".join(lines)


def test_streams_are_counted_and_several_runs_are_a_column_each(tmp_path: Path) -> None:
    base, same, less = (
        run_of(tmp_path / str(factor), {"a@r": times(factor)}, scenario="stream") for factor in (1.0, 1.1, 0.5)
    )
    text = document_markdown(comparison_document(compare_all(base, [same, less]), intervals=True))
    row = next(line for line in text.splitlines() if line.startswith("| a@r | stream 1×5 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "99.7 streams"
    assert cells[3].endswith(" undecided")
    assert cells[4].endswith(" carries less")


def test_a_gate_says_how_much_less_may_be_carried(tmp_path: Path) -> None:
    compared = two(tmp_path, times(1.0), times(0.5))
    result = gate(compared, 0.05)
    assert gate_lines(result, compared)[-1] == "at most 5 % slower, and no less carried than 0.952×: 1 fail"
    text = document_markdown(gate_document(result, compared))
    assert "# Gate: fail" in text
    assert "Of a load, which is the better the more is carried, the limit is on BASE / NEW." in text


HOSTILE = st.text(st.sampled_from("|`*_[]<>&\n\r\x1b\u202eäx "), max_size=12)


@given(text=HOSTILE)
def test_hostile_names_of_loads_are_printable_and_no_markup(text: str) -> None:
    point = Point(f"a{text}@r", "t", "cpu", "float32", 1, 3, 6, 1, "server", 1, 5, "load")
    mean = limits(RATES).mean
    row = Row(point, "a@r", mean, mean, mean, Drift("t", None), stats.estimate(mean), SAME, "separate runs")
    compared = Comparison("base", "new", (), (), 0.01, loads=(row,))
    assert all(line.isprintable() and len(line) <= WIDTH for line in comparison_lines(compared))
    table = [
        line for line in document_markdown(comparison_document([compared], True)).splitlines() if "server 1×5" in line
    ]
    assert len(table) == 1


# ------------------------------------------------------------------------------------- the published run


def scaled(source: Path, target: Path, factor: float) -> Path:
    """A copy of a run, in which all loads that were offered were so many times as high."""
    shutil.copytree(source, target)
    (target / "journal.jsonl").unlink()
    journal = Journal.create(target / "journal.jsonl")
    for _, _, record in read_journal(source / "journal.jsonl").records:
        for row in record.get("loads", []):
            for name in ("rate_per_s", "streams"):
                if row[name] is not None:
                    row[name] = round(row[name] * factor) if name == "streams" else row[name] * factor
        journal.append(record)
    journal.close()
    return target


def of_loads(rows: Sequence[GateRow]) -> list[str]:
    return [row.outcome for row in rows if row.row.endswith(", load")]


def test_the_published_run_is_no_different_from_itself_and_fails_with_half_of_its_limits(tmp_path: Path) -> None:
    path = REFERENCE / "scenarios"
    run, half = load(path), load(scaled(path, tmp_path / "half", 0.5))
    itself, halved = compare(run, run), compare(run, half)
    assert len(itself.loads) == len(run.capacity) == 12
    assert {row.verdict for row in itself.loads} <= {SAME, UNDECIDED}
    assert FAIL not in of_loads(gate(itself, 0.05).rows)
    assert {row.verdict for row in halved.loads} == {CARRIES_LESS}
    outcomes = of_loads(gate(halved, 0.05).rows)
    assert outcomes.count(FAIL) >= 10  # with three workers each, and over all 92 rows together
    assert PASS not in outcomes
    assert gate(halved, 0.05).exit_code == 1
