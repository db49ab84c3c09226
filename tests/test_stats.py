"""Statistics: laws that hold for all numbers, and coverage counted where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.stats import Estimate, latency_interval, mean_interval, percentile_bound, ratio_interval, samples_needed

ANY = st.floats(-1e6, 1e6)
LATENCY = st.floats(1e-6, 10)
MEANS = st.lists(ANY, min_size=1, max_size=12)
LATENCIES = st.lists(LATENCY, min_size=2, max_size=12)
PAIRS = st.lists(st.tuples(LATENCY, LATENCY), min_size=2, max_size=12)

Interval = Callable[[Sequence[float]], Estimate]


def assert_same(one: Estimate, other: Estimate, scale: float = 1.0) -> None:
    assert one.replicates == other.replicates
    for a, b in ((one.value, other.value), (one.low, other.low), (one.high, other.high)):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9 * scale, nan_ok=True)


def columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [own for own, _ in pairs], [base for _, base in pairs]


# ------------------------------------------------------------------------------------------------------- means


def test_the_t_interval_is_the_textbooks() -> None:
    """Ten numbers with mean 5.5 and deviation 3.0277; t(0.975, 9) = 2.262157 from the printed tables."""
    estimate = mean_interval(range(1, 11))
    half = 2.262157 * 3.0276504 / math.sqrt(10)
    assert estimate.value == 5.5
    assert estimate.low == pytest.approx(5.5 - half, rel=1e-6)
    assert estimate.high == pytest.approx(5.5 + half, rel=1e-6)
    assert estimate.replicates == 10


@given(values=MEANS.filter(lambda values: len(values) > 1))
def test_an_interval_contains_its_value_in_the_middle(values: list[float]) -> None:
    estimate = mean_interval(values)
    assert estimate.low <= estimate.value <= estimate.high
    scale = max(1.0, *(abs(value) for value in values))
    assert estimate.high - estimate.value == pytest.approx(estimate.value - estimate.low, rel=1e-9, abs=1e-9 * scale)


@given(values=MEANS, factor=st.floats(0.01, 100), shift=ANY)
def test_another_unit_or_origin_changes_the_interval_alike(values: list[float], factor: float, shift: float) -> None:
    estimate = mean_interval(values)
    expected = Estimate(
        factor * estimate.value + shift,
        factor * estimate.low + shift,
        factor * estimate.high + shift,
        estimate.replicates,
    )
    assert_same(mean_interval([factor * value + shift for value in values]), expected, scale=1e9)


@given(values=MEANS)
def test_a_change_of_sign_mirrors_the_interval(values: list[float]) -> None:
    estimate = mean_interval(values)
    mirrored = Estimate(-estimate.value, -estimate.high, -estimate.low, estimate.replicates)
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
    estimate = mean_interval([value] * count)
    assert estimate.low == pytest.approx(value, rel=1e-12)
    assert estimate.high == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("interval", [mean_interval, latency_interval])
def test_one_replicate_gives_a_value_and_no_interval(interval: Interval) -> None:
    estimate = interval([3.0])
    assert estimate.value == pytest.approx(3.0)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert estimate.replicates == 1


@pytest.mark.parametrize("interval", [mean_interval, latency_interval])
@pytest.mark.parametrize("nothing", [[], np.array([])], ids=["list", "array"])
def test_nothing_has_no_interval(interval: Interval, nothing: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        interval(nothing)


@given(values=LATENCIES)
def test_arrays_are_as_good_as_lists(values: list[float]) -> None:
    assert mean_interval(np.array(values)) == mean_interval(values)  # type: ignore[arg-type]
    assert latency_interval(np.array(values)) == latency_interval(values)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- latencies


@given(values=LATENCIES)
def test_the_typical_latency_is_the_geometric_mean_and_lies_inside(values: list[float]) -> None:
    estimate = latency_interval(values)
    assert estimate.value == pytest.approx(math.prod(value ** (1 / len(values)) for value in values))
    assert 0 <= estimate.low <= estimate.value * (1 + 1e-12)
    assert estimate.value <= estimate.high * (1 + 1e-12)
    assert estimate.replicates == len(values)


@given(values=LATENCIES, factor=st.floats(0.001, 1000))
def test_a_latency_in_another_unit_has_the_same_interval_in_that_unit(values: list[float], factor: float) -> None:
    assume(max(values) < 100 * min(values))
    estimate = latency_interval(values)
    scaled = latency_interval([factor * value for value in values])
    assert scaled.value == pytest.approx(factor * estimate.value, rel=1e-9)
    assert scaled.low == pytest.approx(factor * estimate.low, rel=1e-6)
    assert scaled.high == pytest.approx(factor * estimate.high, rel=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1e-3, math.nan])
def test_a_latency_that_is_not_positive_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        latency_interval([1e-3, bad])
    with pytest.raises(ValueError, match="positive"):
        ratio_interval([1e-3, bad], [1e-3, 1e-3])
    with pytest.raises(ValueError, match="positive"):
        ratio_interval([1e-3, 1e-3], [bad, 1e-3])


# ------------------------------------------------------------------------------------------------------- ratios


@given(pairs=PAIRS)
def test_swapping_a_variant_with_its_baseline_gives_the_reciprocal(pairs: list[tuple[float, float]]) -> None:
    own, base = columns(pairs)
    forward, back = ratio_interval(own, base), ratio_interval(base, own)
    assume(forward.high < 1e100)
    assert forward.value * back.value == pytest.approx(1)
    assert forward.low * back.high == pytest.approx(1, rel=1e-6)
    assert forward.high * back.low == pytest.approx(1, rel=1e-6)


@given(rounds=st.lists(st.tuples(LATENCY, LATENCY, st.floats(0.1, 10)), min_size=2, max_size=12))
def test_what_slows_both_down_in_a_round_cancels(rounds: list[tuple[float, float, float]]) -> None:
    own, base, common = ([row[k] for row in rounds] for k in range(3))
    quiet = ratio_interval(own, base)
    assume(quiet.high < 1e100)
    noisy = ratio_interval(
        [a * c for a, c in zip(own, common, strict=True)], [b * c for b, c in zip(base, common, strict=True)]
    )
    assert noisy.value == pytest.approx(quiet.value)
    assert noisy.low == pytest.approx(quiet.low, rel=1e-6)
    assert noisy.high == pytest.approx(quiet.high, rel=1e-6)


@given(values=LATENCIES, factor=st.floats(0.1, 10))
def test_a_variant_always_slower_by_one_factor_has_that_ratio_without_doubt(values: list[float], factor: float) -> None:
    estimate = ratio_interval([factor * value for value in values], values)
    for number in (estimate.value, estimate.low, estimate.high):
        assert number == pytest.approx(factor, rel=1e-9)


@given(data=st.data(), pairs=PAIRS)
def test_the_order_of_rounds_does_not_matter(data: st.DataObject, pairs: list[tuple[float, float]]) -> None:
    one, other = ratio_interval(*columns(pairs)), ratio_interval(*columns(data.draw(st.permutations(pairs))))
    assume(one.high < 1e100)
    assert other.value == pytest.approx(one.value)
    assert other.high == pytest.approx(one.high, rel=1e-6)


def test_ratios_are_paired_by_round_and_not_by_rank() -> None:
    own, base = [1.0, 2.0, 4.0], [2.0, 4.0, 8.0]
    paired, shuffled = ratio_interval(own, base), ratio_interval(own, [8.0, 2.0, 4.0])
    assert paired.value == pytest.approx(0.5)
    assert shuffled.value == pytest.approx(0.5)
    assert paired.high - paired.low < 1e-9
    assert shuffled.high - shuffled.low > 0.5


@pytest.mark.parametrize(("own", "base"), [(3, 2), (0, 1), (1, 0)])
def test_ratios_of_unequal_length_are_refused(own: int, base: int) -> None:
    with pytest.raises(ValueError, match=f"{own} medians against {base}"):
        ratio_interval([1.0] * own, [1.0] * base)


def test_no_rounds_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        ratio_interval([], [])


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
    estimates = [latency_interval(row) for row in rng.lognormal(math.log(2e-3), 0.3, (EXPERIMENTS, 5)).tolist()]
    covered = sum(e.low <= 2e-3 <= e.high for e in estimates) / EXPERIMENTS
    assert abs(covered - 0.95) < deviation(0.95)


def test_1_of_20_comparisons_of_equals_is_a_false_alarm_however_much_the_rounds_vary() -> None:
    rng = np.random.default_rng(1)
    rounds = rng.lognormal(0, 2, (EXPERIMENTS, 1, 6))
    own, base = np.moveaxis(rounds * rng.lognormal(0, 0.1, (EXPERIMENTS, 2, 6)), 1, 0)
    estimates = [ratio_interval(a, b) for a, b in zip(own, base, strict=True)]
    alarms = sum(not e.low <= 1 <= e.high for e in estimates) / EXPERIMENTS
    assert abs(alarms - 0.05) < deviation(0.05)


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


@pytest.mark.parametrize(("p", "needed"), [(0.9, 64), (0.99, 662)])
def test_p90_needs_64_samples_and_p99_662_as_in_loadgen(p: float, needed: int) -> None:
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
