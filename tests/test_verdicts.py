"""Verdicts: what follows from which evidence, and that a longer table asks for more of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.stats import LogMean, nominal_level, p_above, p_below, p_different, p_equivalent
from harness.verdicts import (
    BETTER,
    CARRIES_LESS,
    CARRIES_MORE,
    DIRECTIONS,
    FAIL,
    FASTER,
    PASS,
    SAME,
    SLOWER,
    UNDECIDED,
    WORSE,
    gate,
    gate_exit_code,
    judge,
)

TOLERANCE = 0.01
LOOKS = st.sampled_from([(1,), (1, 2, 4), (3, 6, 12, 24)])
RATIO = st.builds(
    lambda mean, error: LogMean(mean, error, 23, 24, "instance"), st.floats(-0.05, 0.05), st.floats(1e-4, 0.02)
)
RATIOS = st.lists(RATIO, min_size=1, max_size=8)
OUTCOMES = st.lists(st.sampled_from([PASS, FAIL, UNDECIDED]), max_size=6)


def measured(percent: float, error_percent: float = 0.1) -> LogMean:
    return LogMean(math.log1p(percent / 100), error_percent / 100, 23, 24, "instance")


def slower_with_p(p: float) -> LogMean:
    """A slower ratio with this p of being different, and an error of 1 %, with which nothing is equivalent."""
    low, high = 0.0, 0.2
    for _ in range(60):
        middle = (low + high) / 2
        ratio = LogMean(middle, 0.01, 23, 24, "instance")
        low, high = (middle, high) if p_different(ratio) > p else (low, middle)
    return LogMean(high, 0.01, 23, 24, "instance")


NOTHING_KNOWN = LogMean(0.3, math.nan, 0, 1, "slice")


# ------------------------------------------------------------------------------------------------------- judge


def test_a_ratio_is_faster_slower_the_same_or_undecided() -> None:
    ratios = [measured(-3), measured(3), measured(0), measured(0.9, error_percent=0.7)]
    assert judge(ratios, TOLERANCE) == [FASTER, SLOWER, SAME, UNDECIDED]


def test_a_small_difference_that_is_certain_is_the_same_within_the_tolerance() -> None:
    ratio = measured(0.5, error_percent=0.05)
    assert p_different(ratio) < 1e-6
    assert judge([ratio], TOLERANCE) == [SAME]
    assert judge([ratio], 0.001) == [SLOWER]


@pytest.mark.parametrize(
    ("metric", "under_1", "over_1"),
    [
        ("latency", FASTER, SLOWER),
        ("throughput", SLOWER, FASTER),
        ("capacity", CARRIES_LESS, CARRIES_MORE),
        ("accuracy", WORSE, BETTER),
        ("mean squared error", BETTER, WORSE),
    ],
)
def test_which_way_is_better_is_a_property_of_the_metric(metric: str, under_1: str, over_1: str) -> None:
    ratios = [measured(-3), measured(3), measured(0)]
    assert judge(ratios, TOLERANCE, metric=metric) == [under_1, over_1, SAME]


def test_every_metric_has_a_direction_and_others_are_refused() -> None:
    for metric, direction in DIRECTIONS.items():
        (verdict,) = judge([measured(3)], TOLERANCE, metric=metric)
        assert (verdict in (BETTER, CARRIES_MORE, FASTER)) == (direction == "higher")
    with pytest.raises(ValueError, match="no metric 'speed'; there are latency, "):
        judge([measured(3)], TOLERANCE, metric="speed")


def test_one_unit_leaves_everything_undecided() -> None:
    assert judge([NOTHING_KNOWN], TOLERANCE) == [UNDECIDED]
    assert gate([NOTHING_KNOWN], 0.03) == [UNDECIDED]


def test_no_ratios_have_no_verdicts() -> None:
    assert judge([], TOLERANCE) == []
    assert gate([], 0.03) == []


def test_no_tolerance_is_refused_because_then_nothing_can_be_the_same() -> None:
    with pytest.raises(ValueError, match="tolerance is positive"):
        judge([measured(0)], 0.0)


@given(ratio=RATIO, looks=LOOKS)
def test_a_lone_ratio_is_judged_at_the_level_itself(ratio: LogMean, looks: tuple[int, ...]) -> None:
    """Its two claims share one alpha, because only one of them can be wrong."""
    (verdict,) = judge([ratio], TOLERANCE, looks)
    is_different, is_same = p_different(ratio, looks) <= 0.05, p_equivalent(ratio, TOLERANCE, looks) <= 0.05
    assert (verdict == SAME) == is_same
    assert (verdict in (FASTER, SLOWER)) == (is_different and not is_same)
    assert verdict != (FASTER if ratio.mean > 0 else SLOWER)


def test_the_same_evidence_that_decides_one_ratio_does_not_decide_fifteen() -> None:
    p = 0.01
    ratio = measured(100 * math.expm1(0.005 * 2.80734))  # t(23) with a two-sided tail of 1 %
    ratio = replace(ratio, standard_error=0.005)
    assert p_different(ratio) == pytest.approx(p, rel=1e-3)
    assert judge([ratio], TOLERANCE) == [SLOWER]
    assert judge([ratio] * 4, TOLERANCE) == [SLOWER] * 4
    assert judge([ratio] * 15, TOLERANCE) == [UNDECIDED] * 15


def test_a_decided_ratio_frees_its_share_only_when_both_its_claims_are_accepted() -> None:
    """Shaffer's S2: a ratio that was found different may still have its other null true, so it still counts."""
    clear, doubtful = measured(3, error_percent=0.1), slower_with_p(0.04)
    assert judge([doubtful], TOLERANCE) == [SLOWER]
    assert judge([clear, doubtful], TOLERANCE) == [SLOWER, UNDECIDED]
    both = measured(0.3, error_percent=0.01)  # different from 1 and within the tolerance: neither null is left
    assert judge([both, doubtful], TOLERANCE) == [SAME, SLOWER]


def test_the_walk_ends_at_the_first_claim_that_fails() -> None:
    """Of three, 0.030 is held against 0.05 / 3 and ends it, though 0.035 might do for a last one alone."""
    ratios = [slower_with_p(p) for p in (0.010, 0.030, 0.035)]
    assert judge(ratios, TOLERANCE) == [SLOWER, UNDECIDED, UNDECIDED]


@given(ratios=RATIOS, looks=LOOKS)
def test_a_table_decides_no_more_than_its_ratios_alone_and_no_less_than_bonferroni(
    ratios: list[LogMean], looks: tuple[int, ...]
) -> None:
    together = judge(ratios, TOLERANCE, looks)
    for ratio, verdict in zip(ratios, together, strict=True):
        alone = {SAME} if p_equivalent(ratio, TOLERANCE, looks) <= 0.05 else set()
        if p_different(ratio, looks) <= 0.05:
            alone.add(SLOWER if ratio.mean > 0 else FASTER)
        assert verdict == UNDECIDED or verdict in alone
        if verdict == UNDECIDED:
            assert min(p_different(ratio, looks), p_equivalent(ratio, TOLERANCE, looks)) > 0.05 / len(ratios)


@given(ratios=RATIOS, data=st.data())
def test_the_order_of_the_table_does_not_matter(ratios: list[LogMean], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(ratios))))
    verdicts = judge(ratios, TOLERANCE)
    assert judge([ratios[k] for k in order], TOLERANCE) == [verdicts[k] for k in order]
    outcomes = gate(ratios, 0.01)
    assert gate([ratios[k] for k in order], 0.01) == [outcomes[k] for k in order]


@given(ratios=RATIOS, looks=LOOKS)
def test_swapping_own_and_baseline_swaps_faster_and_slower(ratios: list[LogMean], looks: tuple[int, ...]) -> None:
    assume(all(ratio.mean != 0 for ratio in ratios))
    claims = [p for ratio in ratios for p in (p_different(ratio, looks), p_equivalent(ratio, TOLERANCE, looks))]
    assume(all(abs(p - 0.05 / n) > 1e-9 for p in claims for n in range(1, 9)))
    swapped = judge([replace(ratio, mean=-ratio.mean) for ratio in ratios], TOLERANCE, looks)
    mirror = {FASTER: SLOWER, SLOWER: FASTER}
    assert swapped == [mirror.get(verdict, verdict) for verdict in judge(ratios, TOLERANCE, looks)]


@given(ratios=RATIOS, looks=LOOKS)
def test_looking_less_or_allowing_more_error_never_takes_a_decision_back(
    ratios: list[LogMean], looks: tuple[int, ...]
) -> None:
    strict = judge(ratios, TOLERANCE, looks)
    for loose in (judge(ratios, TOLERANCE), judge(ratios, TOLERANCE, looks, alpha=0.2)):
        assert all(b != UNDECIDED for a, b in zip(strict, loose, strict=True) if a != UNDECIDED)


@given(ratio=RATIO, looks=LOOKS)
def test_planned_looks_ask_for_the_nominal_level(ratio: LogMean, looks: tuple[int, ...]) -> None:
    level = nominal_level(0.05, looks)
    assume(abs(p_different(ratio) - level) > 1e-9)
    assert (judge([ratio], 1e-9, looks) != [UNDECIDED]) == (p_different(ratio) < level)


@pytest.mark.parametrize("truths", [*itertools.combinations_with_replacement(["1", "at the tolerance", "2 %"], 3)])
def test_the_chance_of_any_wrong_verdict_in_a_table_is_5_percent(truths: tuple[str, ...]) -> None:
    """Three ratios with known truth, 4,000 tables; the limit is 5 % plus four standard deviations."""
    values = {"1": 0.0, "at the tolerance": math.log1p(TOLERANCE), "2 %": math.log1p(0.02)}
    right = {"1": {SAME, UNDECIDED}, "at the tolerance": {SLOWER, UNDECIDED}, "2 %": {SLOWER, UNDECIDED}}
    rng = np.random.default_rng(sum(map(ord, "".join(truths))))
    units, tables = 24, 4000
    logs = rng.normal(0, 0.02, (tables, 3, units)) + np.array([values[truth] for truth in truths])[:, None]
    errors = logs.std(axis=-1, ddof=1) / math.sqrt(units)
    wrong = 0
    for means, deviations in zip(logs.mean(axis=-1).tolist(), errors.tolist(), strict=True):
        table = [LogMean(m, e, units - 1, units, "instance") for m, e in zip(means, deviations, strict=True)]
        verdicts = judge(table, TOLERANCE)
        wrong += any(verdict not in right[truth] for verdict, truth in zip(verdicts, truths, strict=True))
    assert wrong / tables < 0.05 + 4 * math.sqrt(0.05 * 0.95 / tables)


# ------------------------------------------------------------------------------------------------------- gate


def test_a_gate_passes_fails_or_leaves_undecided() -> None:
    ratios = [measured(1), measured(5), measured(3)]
    assert gate(ratios, 0.03) == [PASS, FAIL, UNDECIDED]
    assert gate([measured(-20)], 0.0) == [PASS]


@given(ratio=RATIO, limit=st.floats(-0.02, 0.05), looks=LOOKS)
def test_a_lone_row_fails_or_passes_by_its_one_sided_tests(
    ratio: LogMean, limit: float, looks: tuple[int, ...]
) -> None:
    (outcome,) = gate([ratio], limit, looks)
    assert (outcome == FAIL) == (p_above(ratio, 1 + limit, looks) <= 0.05)
    assert (outcome == PASS) == (p_below(ratio, 1 + limit, looks) <= 0.05)


def test_what_is_looked_at_once_is_held_together_with_the_rest_and_pays_for_no_looks() -> None:
    row = LogMean(math.log(1.03) + 0.005 * 1.8325, 0.005, 23, 24, "instance")  # 4 %
    assert gate([], 0.03, (5, 10, 20), once=[row]) == [FAIL]
    assert gate([row], 0.03, (5, 10, 20)) == [UNDECIDED]
    assert gate([row] * 14, 0.03, once=[row]) == gate([row] * 15, 0.03) == [UNDECIDED] * 15
    assert gate([measured(10)], 0.03, once=[measured(1)]) == [FAIL, PASS]


def test_the_same_evidence_that_fails_one_row_does_not_fail_fifteen() -> None:
    row = LogMean(math.log(1.03) + 0.005 * 2.1770, 0.005, 23, 24, "instance")  # t(23) with a one-sided tail of 2 %
    assert p_above(row, 1.03) == pytest.approx(0.02, rel=1e-3)
    assert gate([row], 0.03) == gate([row] * 2, 0.03)[:1] == [FAIL]
    assert gate([row] * 15, 0.03) == [UNDECIDED] * 15
    clear = measured(10)
    assert gate([clear, clear, row, row], 0.03) == [FAIL] * 4  # Holm: what is shown frees its share


@given(ratios=RATIOS, limit=st.floats(0, 0.05))
def test_passing_is_not_corrected_for_the_rows_and_failing_is(ratios: list[LogMean], limit: float) -> None:
    for ratio, outcome in zip(ratios, gate(ratios, limit), strict=True):
        (alone,) = gate([ratio], limit)
        assert (outcome == PASS) == (alone == PASS)
        if outcome == FAIL:
            assert alone == FAIL
        if p_above(ratio, 1 + limit) <= 0.05 / len(ratios):
            assert outcome == FAIL


@given(ratios=RATIOS, limit=st.floats(0, 0.03), more=st.floats(1e-3, 0.03))
def test_a_wider_gate_lets_no_fewer_through(ratios: list[LogMean], limit: float, more: float) -> None:
    narrow, wide = gate(ratios, limit), gate(ratios, limit + more)
    assert all(b == PASS for a, b in zip(narrow, wide, strict=True) if a == PASS)
    assert all(a == FAIL for a, b in zip(narrow, wide, strict=True) if b == FAIL)


@pytest.mark.parametrize("slowdown", [-1.0, -2.0, math.nan])
def test_a_slowdown_that_leaves_no_time_is_refused(slowdown: float) -> None:
    with pytest.raises(ValueError, match="above -1"):
        gate([measured(0)], slowdown)


@given(outcomes=OUTCOMES)
def test_one_failure_is_1_all_passes_are_0_and_anything_else_is_2(outcomes: list[str]) -> None:
    expected = 1 if FAIL in outcomes else 2 if UNDECIDED in outcomes or not outcomes else 0
    assert gate_exit_code(outcomes) == expected
