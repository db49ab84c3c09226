"""Statistics: laws that hold for all numbers, published tables, and coverage counted where the truth is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special
from scipy import stats as scipy_stats

from harness.stats import (
    FEWEST_TO_POOL,
    ONE_LOOK,
    POOLING_LEVEL,
    UNITS,
    Estimate,
    LogMean,
    autocorrelation,
    detectable_ratio,
    difference,
    estimate,
    looking_p,
    mean_interval,
    nested_mean,
    nominal_level,
    p_above,
    p_below,
    p_different,
    p_equivalent,
    percentile_bound,
    planned_looks,
    rate_interval,
    samples_needed,
    unit_mean,
    units_needed,
    widened,
)

ANY = st.floats(-1e6, 1e6)
MEANS = st.lists(ANY, min_size=1, max_size=12)
LOG = st.floats(-10, 3).map(lambda value: round(value, 6))  # of latencies from 45 µs to 20 s
LOGS = st.lists(LOG, min_size=2, max_size=12).filter(lambda values: max(values) - min(values) > 1e-3)
GROUPS = st.lists(st.lists(LOG, min_size=1, max_size=8), min_size=1, max_size=6)
SHIFT = st.floats(-3, 3).map(lambda value: round(value, 6))
LOOKS = st.lists(st.integers(1, 60), min_size=1, max_size=6, unique=True).map(lambda looks: tuple(sorted(looks)))
PROBABILITY = st.floats(1e-12, 1)
SIDES: st.SearchStrategy[Literal[1, 2]] = st.sampled_from([1, 2])
MEASURED = st.builds(
    lambda mean, error, units: LogMean(mean, error, units - 1, units, "instance"),
    st.floats(-0.5, 0.5),
    st.floats(1e-5, 0.2),
    st.integers(2, 200),
)
UNKNOWN = LogMean(0.1, math.nan, 0, 1, "process")


def assert_same(one: Estimate, other: Estimate, scale: float = 1.0) -> None:
    assert one.replicates == other.replicates
    for a, b in ((one.value, other.value), (one.low, other.low), (one.high, other.high)):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9 * scale, nan_ok=True)


def assert_alike(one: LogMean, other: LogMean) -> None:
    assert (one.units, one.unit) == (other.units, other.unit)
    assert one.degrees_of_freedom == pytest.approx(other.degrees_of_freedom, rel=1e-6)
    assert one.mean == pytest.approx(other.mean, rel=1e-9, abs=1e-9)
    assert one.standard_error == pytest.approx(other.standard_error, rel=1e-6, abs=1e-12, nan_ok=True)


# ------------------------------------------------------------------------------------------------------- means


def test_the_t_interval_is_the_textbooks() -> None:
    """Ten numbers with mean 5.5 and deviation 3.0277; t(0.975, 9) = 2.262157 from the printed tables."""
    found = mean_interval(range(1, 11))
    half = 2.262157 * 3.0276504 / math.sqrt(10)
    assert found.value == 5.5
    assert found.low == pytest.approx(5.5 - half, rel=1e-6)
    assert found.high == pytest.approx(5.5 + half, rel=1e-6)
    assert found.replicates == 10


@given(values=MEANS.filter(lambda values: len(values) > 1))
def test_an_interval_contains_its_value_in_the_middle(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.low <= found.value <= found.high
    scale = max(1.0, *(abs(value) for value in values))
    assert found.high - found.value == pytest.approx(found.value - found.low, rel=1e-9, abs=1e-9 * scale)


@given(values=MEANS, factor=st.floats(0.01, 100), shift=ANY)
def test_another_unit_or_origin_changes_the_interval_alike(values: list[float], factor: float, shift: float) -> None:
    found = mean_interval(values)
    expected = Estimate(
        factor * found.value + shift,
        factor * found.low + shift,
        factor * found.high + shift,
        found.replicates,
    )
    assert_same(mean_interval([factor * value + shift for value in values]), expected, scale=1e9)


@given(values=MEANS)
def test_a_change_of_sign_mirrors_the_interval(values: list[float]) -> None:
    found = mean_interval(values)
    mirrored = Estimate(-found.value, -found.high, -found.low, found.replicates)
    assert_same(mean_interval([-value for value in values]), mirrored, scale=1e6)


@given(data=st.data(), values=MEANS)
def test_the_order_of_replicates_does_not_matter(data: st.DataObject, values: list[float]) -> None:
    assert_same(mean_interval(data.draw(st.permutations(values))), mean_interval(values), scale=1e6)


@given(values=MEANS.filter(lambda values: len(values) > 1), times=st.integers(2, 5))
def test_more_replicates_of_the_same_spread_shrink_the_interval(values: list[float], times: int) -> None:
    assume(max(values) - min(values) > 1e-3)
    few, many = mean_interval(values), mean_interval(values * times)
    assert many.high - many.low < (few.high - few.low) / math.sqrt(times)


@given(value=ANY, count=st.integers(2, 9))
def test_replicates_that_agree_leave_no_doubt(value: float, count: int) -> None:
    found = mean_interval([value] * count)
    assert found.low == pytest.approx(value, rel=1e-12)
    assert found.high == pytest.approx(value, rel=1e-12)


def test_one_replicate_gives_a_value_and_no_interval() -> None:
    for found in (mean_interval([3.0]), estimate(unit_mean([math.log(3.0)], "process"))):
        assert found.value == pytest.approx(3.0)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.replicates == 1


@pytest.mark.parametrize("nothing", [[], np.array([])], ids=["list", "array"])
def test_nothing_has_no_interval(nothing: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval(nothing)
    with pytest.raises(ValueError, match="at least one value"):
        unit_mean(nothing, "slice")
    for groups in ([], [nothing], [nothing, nothing]):
        with pytest.raises(ValueError, match="at least one value"):
            nested_mean(groups)


@given(values=LOGS)
def test_arrays_are_as_good_as_lists(values: list[float]) -> None:
    array: Sequence[float] = np.array(values)  # type: ignore[assignment]
    assert mean_interval(array) == mean_interval(values)
    assert unit_mean(array, "slice") == unit_mean(values, "slice")
    assert nested_mean([array, array[:1]]) == nested_mean([values, values[:1]])


@given(values=LOGS)
def test_a_mean_over_units_is_the_one_sample_t_test(values: list[float]) -> None:
    mean = unit_mean(values, "instance")
    test = scipy_stats.ttest_1samp(values, 0.0)
    assert p_different(mean) == pytest.approx(float(test.pvalue), rel=1e-9)
    interval = test.confidence_interval(0.95)
    assert math.log(estimate(mean).low) == pytest.approx(float(interval.low), rel=1e-6, abs=1e-9)
    assert math.log(estimate(mean).high) == pytest.approx(float(interval.high), rel=1e-6, abs=1e-9)
    greater = scipy_stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    less = scipy_stats.ttest_1samp(values, 0.0, alternative="less").pvalue
    assert p_above(mean, 1.0) == pytest.approx(float(greater), rel=1e-9)
    assert p_below(mean, 1.0) == pytest.approx(float(less), rel=1e-9)


@given(values=LOGS)
def test_the_typical_latency_is_the_geometric_mean(values: list[float]) -> None:
    latencies = [math.exp(value) for value in values]
    found = estimate(unit_mean(values, "process"))
    assert found.value == pytest.approx(math.prod(value ** (1 / len(values)) for value in latencies))
    assert found.low < found.value < found.high
    assert found.replicates == len(values)


@given(values=LOGS, factor=st.floats(0.001, 1000))
def test_a_latency_in_another_unit_has_the_same_interval_in_that_unit(values: list[float], factor: float) -> None:
    found = estimate(unit_mean(values, "process"))
    scaled = estimate(unit_mean([value + math.log(factor) for value in values], "process"))
    assume(found.high < 1e100)
    assert scaled.value == pytest.approx(factor * found.value, rel=1e-9)
    assert scaled.low == pytest.approx(factor * found.low, rel=1e-6)
    assert scaled.high == pytest.approx(factor * found.high, rel=1e-6)


def test_an_end_that_no_float_can_hold_is_infinite() -> None:
    found = estimate(LogMean(0.0, 100.0, 1, 2, "process"))
    assert found.low == 0.0
    assert found.high == math.inf
    assert detectable_ratio(LogMean(0.0, 100.0, 1, 2, "process")) == math.inf


# ------------------------------------------------------------------------------------------------------- nesting


def test_instances_are_the_units_where_processes_agree() -> None:
    alike = [[0.0, 0.1, 0.2], [0.2, 0.0, 0.1], [0.1, 0.2, 0.0], [0.0, 0.2, 0.1], [0.2, 0.1, 0.0]]
    mean = nested_mean(alike)
    assert (mean.unit, mean.units, mean.degrees_of_freedom) == ("instance", 15, 14)
    assert mean.mean == pytest.approx(0.1)


def test_fewer_than_five_processes_are_not_trusted_to_agree() -> None:
    mean = nested_mean([[0.0, 0.1, 0.2], [0.2, 0.0, 0.1], [0.1, 0.2, 0.0], [0.1, 0.1, 0.2]])
    assert (mean.unit, mean.units, mean.degrees_of_freedom) == ("process", 4, 3)


def test_processes_are_the_units_where_they_differ() -> None:
    mean = nested_mean([[value, value + 0.01, value + 0.02] for value in (0.0, 0.5, 0.9, 0.2, 0.4)])
    assert (mean.unit, mean.units, mean.degrees_of_freedom) == ("process", 5, 4)
    assert_alike(mean, unit_mean([0.01, 0.51, 0.91, 0.21, 0.41], "process"))


@given(groups=st.lists(st.lists(LOG, min_size=1, max_size=8), min_size=FEWEST_TO_POOL, max_size=9))
def test_the_unit_follows_from_the_analysis_of_variance(groups: list[list[float]]) -> None:
    assume(any(max(group) - min(group) > 1e-3 for group in groups))
    p = float(scipy_stats.f_oneway(*groups).pvalue)
    assume(abs(p - POOLING_LEVEL) > 1e-6)
    assert nested_mean(groups).unit == ("process" if p < POOLING_LEVEL else "instance")


@given(groups=GROUPS)
def test_a_nested_mean_is_a_plain_one_over_instances_or_over_processes(groups: list[list[float]]) -> None:
    mean = nested_mean(groups)
    if mean.unit == "instance":
        assert_alike(mean, unit_mean([*itertools.chain(*groups)], "instance"))
    else:
        assert_alike(mean, unit_mean([sum(group) / len(group) for group in groups], "process"))


@given(groups=GROUPS, shift=SHIFT)
def test_a_factor_shifts_a_nested_mean_and_changes_nothing_else(groups: list[list[float]], shift: float) -> None:
    assume(min(max(group) - min(group) for group in groups) > 1e-3)
    assume(len(groups) < FEWEST_TO_POOL or abs(float(scipy_stats.f_oneway(*groups).pvalue) - POOLING_LEVEL) > 1e-6)
    mean = nested_mean(groups)
    moved = nested_mean([[value + shift for value in group] for group in groups])
    assert_alike(moved, replace(mean, mean=mean.mean + shift))


@given(groups=GROUPS)
def test_the_order_of_processes_does_not_matter_and_empty_ones_are_left_out(groups: list[list[float]]) -> None:
    assert_alike(nested_mean([[], *reversed(groups), []]), nested_mean(groups))


@given(values=LOGS)
def test_one_process_leaves_its_instances_as_units_and_lone_instances_their_processes(values: list[float]) -> None:
    assert nested_mean([values]) == unit_mean(values, "instance")
    assert nested_mean([[value] for value in values]) == unit_mean(values, "process")


def test_one_instance_has_no_error() -> None:
    mean = nested_mean([[0.25]])
    assert (mean.mean, mean.units, mean.degrees_of_freedom) == (0.25, 1, 0)
    assert math.isnan(mean.standard_error)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_instances_without_any_spread_are_no_trouble(value: float) -> None:
    same = nested_mean([[value] * 3, [value] * 3])
    assert same.mean == pytest.approx(value)
    assert same.standard_error == pytest.approx(0.0, abs=1e-15)
    apart = nested_mean([[value] * 3, [value + 1] * 3])
    assert (apart.unit, apart.units) == ("process", 2)


EFFECTS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)  # deviation of processes over that of instances


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(("processes", "instances"), [(2, 8), (3, 2), (3, 8), (5, 1), (5, 4), (5, 8), (10, 2), (10, 8)])
def test_nested_intervals_cover_however_much_processes_differ(processes: int, instances: int, effect: float) -> None:
    rng = np.random.default_rng([processes, instances, int(4 * effect)])
    logs = effect * rng.normal(size=(EXPERIMENTS, processes, 1)) + rng.normal(size=(EXPERIMENTS, processes, instances))
    means = [nested_mean(groups) for groups in logs.tolist()]
    covered = sum(p_different(mean) > 0.05 for mean in means) / EXPERIMENTS
    assert 0.935 <= covered <= 0.98


def test_nested_intervals_cover_where_processes_have_unequal_numbers_of_instances() -> None:
    rng = np.random.default_rng(5)
    sizes = (2, 8, 3, 8, 8)
    for effect in EFFECTS:
        misses = 0
        for _ in range(1000):
            groups = [(effect * rng.normal() + rng.normal(size=size)).tolist() for size in sizes]
            misses += p_different(nested_mean(groups)) <= 0.05
        assert 0.015 < misses / 1000 < 0.085


def test_a_test_that_overlooks_processes_does_not_cover() -> None:
    """Why the level is not 0.05: what such a preliminary test does not find is still there."""
    rng = np.random.default_rng(6)
    logs = 0.5 * rng.normal(size=(EXPERIMENTS, 3, 1)) + rng.normal(size=(EXPERIMENTS, 3, 8))
    usual = [
        unit_mean([*itertools.chain(*groups)], "instance")
        if scipy_stats.f_oneway(*groups).pvalue > 0.05
        else unit_mean([sum(group) / 8 for group in groups], "process")
        for groups in logs[:1000].tolist()
    ]
    assert sum(p_different(mean) > 0.05 for mean in usual) / 1000 < 0.88


# ------------------------------------------------------------------------------------------------------- two arms


@given(own=LOGS, base=LOGS)
def test_a_difference_is_welchs_test(own: list[float], base: list[float]) -> None:
    mean = difference(unit_mean(own, "process"), unit_mean(base, "process"))
    test = scipy_stats.ttest_ind(own, base, equal_var=False)
    assert mean.degrees_of_freedom == pytest.approx(float(test.df), rel=1e-9)
    assert p_different(mean) == pytest.approx(float(test.pvalue), rel=1e-6, abs=1e-12)
    interval = test.confidence_interval(0.95)
    found = estimate(mean)
    assume(found.high < 1e300)
    assert math.log(found.low) == pytest.approx(float(interval.low), rel=1e-6, abs=1e-9)
    assert math.log(found.high) == pytest.approx(float(interval.high), rel=1e-6, abs=1e-9)
    assert mean.units == len(own) + len(base)


@given(own=LOGS, base=LOGS, looks=LOOKS)
def test_swapping_a_variant_with_its_baseline_mirrors_everything(
    own: list[float], base: list[float], looks: tuple[int, ...]
) -> None:
    forward = difference(unit_mean(own, "process"), unit_mean(base, "process"))
    back = difference(unit_mean(base, "process"), unit_mean(own, "process"))
    assert_alike(back, replace(forward, mean=-forward.mean))
    there, here = estimate(forward, looks), estimate(back, looks)
    assume(there.low > 1e-100 and there.high < 1e100)
    assert there.value * here.value == pytest.approx(1)
    assert there.low * here.high == pytest.approx(1, rel=1e-6)
    assert there.high * here.low == pytest.approx(1, rel=1e-6)
    assert p_different(forward, looks) == pytest.approx(p_different(back, looks), rel=1e-6)
    assert p_above(forward, 1.02, looks) == pytest.approx(p_below(back, 1 / 1.02, looks), rel=1e-6)
    assert p_equivalent(forward, 0.01, looks) == pytest.approx(p_equivalent(back, 0.01, looks), rel=1e-6)


@given(own=LOGS, base=LOGS)
def test_two_arms_are_never_more_certain_than_one(own: list[float], base: list[float]) -> None:
    arms = unit_mean(own, "process"), unit_mean(base, "process")
    mean = difference(*arms)
    assert mean.standard_error >= max(arm.standard_error for arm in arms)
    freedoms = [arm.degrees_of_freedom for arm in arms]
    assert min(freedoms) * (1 - 1e-9) <= mean.degrees_of_freedom <= sum(freedoms) * (1 + 1e-9)


@pytest.mark.parametrize(("own", "base"), [*itertools.product(UNITS, UNITS)])
def test_a_difference_is_known_by_the_coarser_unit(own: str, base: str) -> None:
    mean = difference(unit_mean([0.0, 0.1], own), unit_mean([0.0, 0.1], base))
    assert mean.unit == UNITS[max(UNITS.index(own), UNITS.index(base))]


def test_an_arm_with_one_unit_leaves_the_error_unknown() -> None:
    for mean in (difference(UNKNOWN, unit_mean([0, 1], "slice")), difference(unit_mean([0, 1], "slice"), UNKNOWN)):
        assert math.isnan(mean.standard_error)
        assert math.isnan(estimate(mean).low)
        assert p_different(mean) == 1.0


def test_arms_without_any_spread_differ_without_doubt() -> None:
    mean = difference(unit_mean([0.5, 0.5], "process"), unit_mean([0.0, 0.0], "process"))
    assert mean.standard_error == 0.0
    assert p_different(mean) == 0.0
    assert estimate(mean).low == estimate(mean).high == pytest.approx(math.exp(0.5))


@given(value=MEASURED, spread=st.floats(0, 1))
def test_drift_adds_as_independent_errors_do(value: LogMean, spread: float) -> None:
    wide = widened(value, spread)
    assert wide.standard_error**2 == pytest.approx(value.standard_error**2 + spread**2)
    assert replace(wide, standard_error=value.standard_error) == value
    assert widened(value, 0.0) == value
    assert widened(wide, 0.3) == widened(widened(value, 0.3), spread) or spread > 0


def test_drift_cannot_be_negative_and_does_not_make_up_an_error() -> None:
    with pytest.raises(ValueError, match="not negative"):
        widened(UNKNOWN, -0.1)
    assert math.isnan(widened(UNKNOWN, 0.1).standard_error)


# ------------------------------------------------------------------------------------------------------- looks

POCOCK = {1: 0.05, 2: 0.0294, 3: 0.0221, 4: 0.0182, 5: 0.0158, 10: 0.0106}  # Pocock 1977, table 1
AGAIN = {2: 0.083, 3: 0.107, 4: 0.126, 5: 0.142, 10: 0.193, 20: 0.248}  # Armitage, McPherson & Rowe 1969, table 2


@pytest.mark.parametrize(("count", "level"), [*POCOCK.items()])
def test_nominal_levels_are_pococks(count: int, level: float) -> None:
    assert nominal_level(0.05, range(1, count + 1)) == pytest.approx(level, abs=5.1e-5)


@pytest.mark.parametrize(("count", "error"), [*AGAIN.items()])
def test_repeated_tests_at_5_percent_err_as_often_as_armitage_mcpherson_and_rowe_found(
    count: int, error: float
) -> None:
    assert looking_p(0.05, range(1, count + 1)) == pytest.approx(error, abs=6e-4)


@pytest.mark.parametrize("looks", [(1, 2), (1, 2, 3), (3, 6, 12, 24), (10, 11, 30)])
@pytest.mark.parametrize("p", [0.9, 0.5, 0.05, 0.01])
@pytest.mark.parametrize("sides", [1, 2])
def test_looking_is_the_multivariate_normal_integral(looks: tuple[int, ...], p: float, sides: Literal[1, 2]) -> None:
    times = np.array(looks, dtype=float)
    covariance = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    bound = np.full(len(looks), -float(special.ndtri(p / sides)))
    low = -bound if sides == 2 else np.full(len(looks), -np.inf)
    stays = scipy_stats.multivariate_normal.cdf(
        bound, cov=covariance, lower_limit=low, abseps=1e-6, rng=np.random.default_rng(0)
    )
    assert looking_p(p, looks, sides) == pytest.approx(1 - float(stays), abs=1e-5)


@given(later=st.integers(2, 100))
def test_two_looks_one_sided_at_one_half_are_sheppards_arcsine(later: int) -> None:
    """For z = 0 the chance is known in closed form: 3/4 - arcsin(correlation) / (2 pi)."""
    expected = 0.75 - math.asin(math.sqrt(1 / later)) / (2 * math.pi)
    assert looking_p(0.5, (1, later), sides=1) == pytest.approx(expected, rel=1e-9)


@given(p=PROBABILITY, looks=LOOKS, sides=SIDES)
def test_looking_costs_something_and_never_more_than_bonferroni(
    p: float, looks: tuple[int, ...], sides: Literal[1, 2]
) -> None:
    found = looking_p(p, looks, sides)
    assert p * (1 - 1e-12) <= found <= min(1.0, len(looks) * p) * (1 + 1e-9)
    if len(looks) == 1:
        assert found == p


@given(one=PROBABILITY, other=PROBABILITY, looks=LOOKS, sides=SIDES)
def test_a_smaller_p_stays_smaller(one: float, other: float, looks: tuple[int, ...], sides: Literal[1, 2]) -> None:
    small, large = sorted((one, other))
    assert looking_p(small, looks, sides) <= looking_p(large, looks, sides) * (1 + 1e-9)


@given(p=PROBABILITY, looks=LOOKS, sides=SIDES, data=st.data())
def test_another_look_costs_more(p: float, looks: tuple[int, ...], sides: Literal[1, 2], data: st.DataObject) -> None:
    fewer = tuple(data.draw(st.permutations(looks))[1:])
    assume(fewer)
    assert looking_p(p, sorted(fewer), sides) <= looking_p(p, looks, sides) * (1 + 1e-9)


@given(p=PROBABILITY, looks=LOOKS, factor=st.integers(1, 1000), sides=SIDES)
def test_only_the_proportions_of_looks_count(
    p: float, looks: tuple[int, ...], factor: int, sides: Literal[1, 2]
) -> None:
    more = [factor * look for look in looks]
    assert looking_p(p, more, sides) == pytest.approx(looking_p(p, looks, sides), rel=1e-9)


@given(p=st.floats(1e-12, 0.3), looks=LOOKS)
def test_two_sides_cost_at_most_twice_one(p: float, looks: tuple[int, ...]) -> None:
    both, one = looking_p(2 * p, looks), looking_p(p, looks, sides=1)
    assert one * (1 - 1e-9) <= both <= 2 * one * (1 + 1e-9)


@given(alpha=st.floats(1e-11, 0.99), looks=LOOKS, sides=SIDES)
def test_a_nominal_level_looked_at_costs_its_alpha(alpha: float, looks: tuple[int, ...], sides: Literal[1, 2]) -> None:
    level = nominal_level(alpha, looks, sides)
    assert alpha / len(looks) * (1 - 1e-9) <= level <= alpha
    assert looking_p(level, looks, sides) == pytest.approx(alpha, rel=1e-6)


def test_nothing_and_certainty_stay_what_they_are() -> None:
    assert looking_p(0.0, (1, 2, 3)) == 0.0
    assert looking_p(1.0, (1, 2, 3)) == 1.0


@pytest.mark.parametrize("looks", [(), (0, 1), (2, 2), (3, 1)])
def test_looks_that_do_not_ascend_are_refused(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="looks ascend"):
        looking_p(0.05, looks)
    with pytest.raises(ValueError, match="looks ascend"):
        nominal_level(0.05, looks)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="no probability"):
        looking_p(p, ONE_LOOK)
    with pytest.raises(ValueError, match="between 0 and 1"):
        nominal_level(p, ONE_LOOK)


@pytest.mark.parametrize(
    ("first", "most", "looks"),
    [(3, 24, (3, 6, 12, 24)), (5, 30, (5, 10, 20, 30)), (1, 1, (1,)), (4, 4, (4,)), (9, 4, (4,)), (2, 3, (2, 3))],
)
def test_looks_double_until_the_most(first: int, most: int, looks: tuple[int, ...]) -> None:
    assert planned_looks(first, most) == looks


@given(first=st.integers(1, 50), most=st.integers(1, 1000))
def test_planned_looks_ascend_to_the_most_and_are_few(first: int, most: int) -> None:
    looks = planned_looks(first, most)
    assert looks[-1] == most
    assert all(0 < earlier < later <= 2 * earlier for earlier, later in itertools.pairwise(looks))
    assert looks[0] == min(first, most)
    assert 0 < nominal_level(0.05, looks) <= 0.05


@pytest.mark.parametrize(("first", "most"), [(0, 5), (3, 0)])
def test_there_is_no_look_at_nothing(first: int, most: int) -> None:
    with pytest.raises(ValueError, match="at least one slice"):
        planned_looks(first, most)


# ------------------------------------------------------------------------------------------------------- tests


@given(value=MEASURED, looks=LOOKS)
def test_the_interval_excludes_1_exactly_when_the_difference_is_significant(
    value: LogMean, looks: tuple[int, ...]
) -> None:
    found, p = estimate(value, looks), p_different(value, looks)
    assume(abs(p - 0.05) > 1e-6)
    assert (p < 0.05) == (not found.low <= 1 <= found.high)


@given(value=MEASURED, looks=LOOKS)
def test_an_interval_that_may_be_looked_at_is_wider(value: LogMean, looks: tuple[int, ...]) -> None:
    plain, repeated = estimate(value), estimate(value, looks)
    assert repeated.low <= plain.low * (1 + 1e-12)
    assert repeated.high >= plain.high * (1 - 1e-12)
    assert repeated.value == plain.value == math.exp(value.mean)


@given(value=MEASURED, ratio=st.floats(0.5, 2), looks=LOOKS)
def test_above_and_below_are_two_ends_of_one_scale(value: LogMean, ratio: float, looks: tuple[int, ...]) -> None:
    above, below = p_above(value, ratio), p_below(value, ratio)
    assert above + below == pytest.approx(1)
    assert (above < 0.5) == (value.mean > math.log(ratio)) or above == pytest.approx(0.5)
    assert p_above(value, ratio, looks) >= above * (1 - 1e-12)
    assert p_above(value, ratio * 1.1, looks) >= p_above(value, ratio, looks) * (1 - 1e-9)
    assert p_below(value, ratio * 1.1, looks) <= p_below(value, ratio, looks) * (1 + 1e-9)


@given(value=MEASURED, tolerance=st.floats(1e-3, 0.5), looks=LOOKS)
def test_equivalence_is_two_one_sided_tests(value: LogMean, tolerance: float, looks: tuple[int, ...]) -> None:
    p = p_equivalent(value, tolerance, looks)
    assert p == max(p_below(value, 1 + tolerance, looks), p_above(value, 1 / (1 + tolerance), looks))
    assert p_equivalent(value, 2 * tolerance, looks) <= p * (1 + 1e-9)
    narrow = estimate(value)
    if p_equivalent(value, tolerance) <= 0.025:  # the 95 % interval lies inside
        assert 1 / (1 + tolerance) <= narrow.low * (1 + 1e-9)
        assert narrow.high <= (1 + tolerance) * (1 + 1e-9)


def test_equivalence_is_schuirmanns_example_by_hand() -> None:
    """Mean 0.001 with error 0.003 and 23 degrees of freedom: t = (0.00995 - 0.001) / 0.003 = 2.9834."""
    value = LogMean(0.001, 0.003, 23, 24, "instance")
    assert p_equivalent(value, 0.01) == pytest.approx(float(scipy_stats.t.sf(2.98344, 23)), rel=1e-4)


@pytest.mark.parametrize("tolerance", [0.0, -0.01, math.nan])
def test_a_tolerance_of_nothing_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance is positive"):
        p_equivalent(UNKNOWN, tolerance)


@pytest.mark.parametrize("looks", [ONE_LOOK, (1, 2, 4)])
def test_an_unknown_error_is_evidence_of_nothing(looks: tuple[int, ...]) -> None:
    assert p_different(UNKNOWN, looks) == 1.0
    assert p_equivalent(UNKNOWN, 0.01, looks) == 1.0
    assert p_above(UNKNOWN, 0.5, looks) == 1.0
    assert p_below(UNKNOWN, 2.0, looks) == 1.0


@pytest.mark.parametrize("looks", [ONE_LOOK, (1, 2, 4)])
def test_no_error_at_all_is_certainty(looks: tuple[int, ...]) -> None:
    exactly_one, two_percent = LogMean(0.0, 0.0, 3, 4, "slice"), LogMean(math.log(1.02), 0.0, 3, 4, "slice")
    assert p_different(exactly_one, looks) == 1.0
    assert p_equivalent(exactly_one, 0.01, looks) == 0.0
    assert p_different(two_percent, looks) == 0.0
    assert p_equivalent(two_percent, 0.01, looks) == 1.0
    assert p_above(two_percent, 1.01, looks) == p_below(two_percent, 1.03, looks) == 0.0
    assert p_above(two_percent, 1.03, looks) == p_below(two_percent, 1.01, looks) == 1.0


# ------------------------------------------------------------------------------------------------------- planning


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("units", [3, 8, 24])
@pytest.mark.parametrize("looks", [ONE_LOOK, (1, 2, 4)])
def test_a_detectable_slowdown_is_found_as_often_as_promised(power: float, units: int, looks: tuple[int, ...]) -> None:
    deviation_of_units = 0.02
    error = deviation_of_units / math.sqrt(units)
    slowdown = detectable_ratio(LogMean(0.0, error, units - 1, units, "instance"), power, looks)
    rng = np.random.default_rng([units, int(100 * power), len(looks)])
    logs = rng.normal(math.log1p(slowdown), deviation_of_units, (EXPERIMENTS, units))
    # the error of the plan is the true one, so t follows the noncentral distribution
    errors = logs.std(axis=1, ddof=1) / math.sqrt(units)
    critical = scipy_stats.t.isf(nominal_level(0.05, looks) / 2, units - 1)
    found = float(np.mean(logs.mean(axis=1) / errors > critical))
    assert abs(found - power) < deviation(power)


@given(value=MEASURED)
def test_less_is_detectable_with_a_smaller_error_fewer_looks_and_less_power(value: LogMean) -> None:
    assume(value.units < 60)
    slowdown = detectable_ratio(value)
    assert slowdown > 0
    assert detectable_ratio(replace(value, standard_error=value.standard_error / 2)) < slowdown
    assert detectable_ratio(value, power=0.8) < slowdown
    assert detectable_ratio(value, looks=(1, 2)) > slowdown


def test_what_is_detectable_is_unknown_with_one_unit_and_nothing_without_an_error() -> None:
    assert math.isnan(detectable_ratio(UNKNOWN))
    assert detectable_ratio(LogMean(0.0, 0.0, 3, 4, "slice")) == 0.0


@given(value=MEASURED, distance=st.floats(1e-4, 0.1), looks=LOOKS)
def test_the_units_needed_are_enough_and_one_fewer_is_not(
    value: LogMean, distance: float, looks: tuple[int, ...]
) -> None:
    needed = units_needed(value, distance, looks)

    def half(units: int) -> float:
        error = value.standard_error * math.sqrt(value.units / units)
        found = estimate(LogMean(0.0, error, units - 1, units, "instance"), looks)
        return math.log(found.high)

    assert needed >= value.units
    assert half(needed) <= distance * (1 + 1e-9)
    if needed > value.units:
        assert half(needed - 1) > distance * (1 - 1e-9)


@given(value=MEASURED, looks=LOOKS)
def test_a_narrower_interval_needs_no_fewer_units(value: LogMean, looks: tuple[int, ...]) -> None:
    assert units_needed(value, 0.005, looks) >= units_needed(value, 0.01, looks)
    reached = math.log(estimate(value, looks).high / estimate(value, looks).value)
    assert units_needed(value, reached * 1.001, looks) == value.units
    assert units_needed(value, reached * 0.999, looks) > value.units


def test_an_unknown_error_needs_one_more_unit_and_no_distance_is_refused() -> None:
    assert units_needed(UNKNOWN, 0.01) == 2
    assert units_needed(LogMean(0.3, 0.0, 3, 4, "slice"), 0.01) == 4
    for distance in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="distance is positive"):
            units_needed(UNKNOWN, distance)


@given(own=LOGS, base=LOGS)
def test_the_units_of_a_difference_can_be_planned_too(own: list[float], base: list[float]) -> None:
    mean = difference(unit_mean(own, "process"), unit_mean(base, "process"))
    half = math.log(estimate(mean).high / estimate(mean).value) if estimate(mean).high < 1e300 else math.inf
    assume(half < 100)
    assert units_needed(mean, half / 2) > mean.units


# ------------------------------------------------------------------------------------------------------- rates


@given(data=st.data(), trials=st.integers(1, 2000))
def test_the_ends_of_a_rate_are_where_the_binomial_tails_are_2_and_a_half_percent(
    data: st.DataObject, trials: int
) -> None:
    count = data.draw(st.integers(0, trials))
    rate = rate_interval(count, trials)
    assert rate.value == count / trials
    assert rate.replicates == trials
    if count:
        assert float(scipy_stats.binom.sf(count - 1, trials, rate.low)) == pytest.approx(0.025, rel=1e-5)
    else:
        assert rate.low == 0.0
    if count < trials:
        assert float(scipy_stats.binom.cdf(count, trials, rate.high)) == pytest.approx(0.025, rel=1e-5)
    else:
        assert rate.high == 1.0


def test_none_of_n_is_the_rule_of_three() -> None:
    assert rate_interval(0, 500).high == pytest.approx(1 - 0.025 ** (1 / 500))


@pytest.mark.parametrize(("count", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(count: int, trials: int) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot be|not be|positive|k"):
        rate_interval(count, trials)


# ------------------------------------------------------------------------------------------------------- neighbours


def test_neighbours_that_alternate_and_neighbours_that_drift() -> None:
    assert autocorrelation([1.0, -1.0] * 50) == pytest.approx(-0.99)
    assert autocorrelation(range(1000)) == pytest.approx(1, abs=0.01)
    assert autocorrelation([1.0, 2.0, 4.0]) == pytest.approx(-1 / 42)  # from the mean: -4/3, -1/3, 5/3


def test_an_autoregressive_stream_has_the_correlation_it_was_made_with() -> None:
    rng = np.random.default_rng(8)
    stream = [0.0]
    for noise in rng.normal(size=20_000):
        stream.append(0.5 * stream[-1] + noise)
    assert autocorrelation(stream) == pytest.approx(0.5, abs=0.03)
    assert autocorrelation(rng.permutation(stream).tolist()) == pytest.approx(0.0, abs=0.03)


@given(values=st.lists(st.integers(-1000, 1000), min_size=3, max_size=30), factor=st.floats(1e-9, 1e3), shift=ANY)
def test_correlation_has_no_unit_and_lies_within_1(values: list[int], factor: float, shift: float) -> None:
    assume(len(set(values)) > 1)
    found = autocorrelation(values)
    assert -1 <= found <= 1
    assert autocorrelation([factor * value for value in values]) == pytest.approx(found, rel=1e-6, abs=1e-9)
    assert autocorrelation([value + round(shift) for value in values]) == pytest.approx(found, rel=1e-6, abs=1e-6)
    assert autocorrelation(values[::-1]) == pytest.approx(found, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 10])
def test_too_few_or_constant_values_have_no_correlation(values: list[float]) -> None:
    assert math.isnan(autocorrelation(values))


# ------------------------------------------------------------------------------------------------------- coverage

EXPERIMENTS = 3000


def deviation(share: float) -> float:
    """Four standard deviations of a share counted over the experiments: by chance once in 16,000 seeds."""
    return 4 * math.sqrt(share * (1 - share) / EXPERIMENTS)


@pytest.mark.parametrize("replicates", [2, 3, 5, 20])
def test_19_of_20_intervals_contain_the_mean(replicates: int) -> None:
    rng = np.random.default_rng(replicates)
    estimates = [mean_interval(row) for row in rng.normal(7, 2, (EXPERIMENTS, replicates)).tolist()]
    covered = sum(e.low <= 7 <= e.high for e in estimates) / EXPERIMENTS
    assert abs(covered - 0.95) < deviation(0.95)


def test_19_of_20_intervals_contain_the_typical_latency() -> None:
    rng = np.random.default_rng(0)
    logs = rng.normal(math.log(2e-3), 0.3, (EXPERIMENTS, 5)).tolist()
    estimates = [estimate(unit_mean(row, "process")) for row in logs]
    covered = sum(e.low <= 2e-3 <= e.high for e in estimates) / EXPERIMENTS
    assert abs(covered - 0.95) < deviation(0.95)


def test_1_of_20_comparisons_of_equals_is_a_false_alarm_however_much_the_rounds_vary() -> None:
    rng = np.random.default_rng(1)
    rounds = rng.normal(0, 2, (EXPERIMENTS, 1, 6))
    own, base = np.moveaxis(rounds + rng.normal(0, 0.1, (EXPERIMENTS, 2, 6)), 1, 0)
    estimates = [estimate(unit_mean(row, "slice")) for row in (own - base).tolist()]
    alarms = sum(not e.low <= 1 <= e.high for e in estimates) / EXPERIMENTS
    assert abs(alarms - 0.05) < deviation(0.05)


def test_19_of_20_streams_never_leave_their_repeated_intervals() -> None:
    """Looks at 12, 24, 48 and 96 units; counted is whether any of the four intervals misses."""
    rng = np.random.default_rng(2)
    looks = planned_looks(12, 96)
    streams = rng.normal(0, 0.02, (EXPERIMENTS, 96)).tolist()
    missed = sum(any(p_different(unit_mean(row[:n], "instance"), looks) < 0.05 for n in looks) for row in streams)
    assert abs(missed / EXPERIMENTS - 0.05) < deviation(0.05)


# ------------------------------------------------------------------------------------------------------- percentiles


def tail(n: int, t: int, p: Fraction) -> Fraction:
    """The chance that at most t of n samples lie above the p-quantile, in exact arithmetic."""
    return sum((math.comb(n, k) * (1 - p) ** k * p ** (n - k) for k in range(t + 1)), Fraction(0))


def allowed_over(n: int, p: Fraction) -> int:
    """The largest t >= 1 with a tail of at most 1 %, or 0."""
    t = 0
    while t + 1 < n and tail(n, t + 1, p) <= Fraction(1, 100):
        t += 1
    return t


@given(n=st.integers(1, 220), p=st.sampled_from([Fraction(1, 2), Fraction(9, 10), Fraction(19, 20)]))
def test_the_bound_is_the_order_statistic_that_exact_binomials_name(n: int, p: Fraction) -> None:
    t = allowed_over(n, p)
    samples = np.random.default_rng(n).permutation(n) + 1.0  # 1..n, so that the t-th largest is n + 1 - t
    bound = percentile_bound(samples.tolist(), float(p))
    assert math.isnan(bound) if t == 0 else bound == n + 1 - t


@pytest.mark.parametrize(("p", "needed"), [(0.5, 11), (0.9, 64), (0.99, 662), (0.999, 6636)])
def test_p90_needs_64_samples_p99_662_and_p99_9_6636_as_in_loadgen(p: float, needed: int) -> None:
    assert samples_needed(p) == needed
    assert math.isnan(percentile_bound([*map(float, range(needed - 1))], p))
    assert percentile_bound([*map(float, range(needed))], p) == needed - 1  # the largest
    exact = Fraction(str(p))
    assert tail(needed, 1, exact) <= Fraction(1, 100) < tail(needed - 1, 1, exact)


@pytest.mark.parametrize("p", [0.5, 0.75, 0.95, 0.97])
def test_the_fewest_samples_are_enough_and_one_fewer_is_not(p: float) -> None:
    needed = samples_needed(p)
    assert not math.isnan(percentile_bound([1.0] * needed, p))
    assert math.isnan(percentile_bound([1.0] * (needed - 1), p))


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("n", [6636, 20_000, 100_000])
def test_the_bound_of_many_samples_is_the_binomial_quantile(n: int, p: float) -> None:
    allowed = int(scipy_stats.binom.ppf(0.01, n, 1 - p))  # the first count with a tail of 1 % or more
    allowed -= float(scipy_stats.binom.cdf(allowed, n, 1 - p)) > 0.01
    assert percentile_bound(np.arange(1.0, n + 1).tolist(), p) == n + 1 - allowed


@given(n=st.integers(0, 63))
def test_too_few_samples_have_no_bound(n: int) -> None:
    assert math.isnan(percentile_bound([1.0] * n, 0.9))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(64, 500), factor=st.floats(0.001, 1000))
def test_a_bound_ignores_order_and_follows_the_unit(seed: int, n: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.exponential(1e-3, n).tolist()
    kept = list(samples)
    bound = percentile_bound(samples, 0.9)
    assert samples == kept
    assert percentile_bound(rng.permutation(samples).tolist(), 0.9) == bound
    assert percentile_bound([factor * value for value in samples], 0.9) == pytest.approx(factor * bound)
    assert bound in samples
    assert bound >= np.quantile(samples, 0.9, method="inverted_cdf")


@pytest.mark.parametrize(("p", "n"), [(0.9, 64), (0.9, 300), (0.99, 662), (0.99, 1500)])
def test_99_of_100_bounds_hold_whatever_the_distribution(p: float, n: int) -> None:
    """An order statistic fails exactly when fewer than t samples lie above the quantile, so the rate is known."""
    rng = np.random.default_rng(n)
    truth = -math.log(1 - p)  # of the exponential distribution
    bounds = np.array([percentile_bound(row, p) for row in rng.exponential(1, (EXPERIMENTS, n)).tolist()])
    failed = float(np.mean(bounds < truth))
    exact = Fraction(str(p))
    expected = float(tail(n, allowed_over(n, exact) - 1, exact))
    assert expected < 0.01
    assert abs(failed - expected) < deviation(expected)
