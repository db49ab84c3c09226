"""Statistics: pure functions of numbers, each with its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

CONFIDENCE = 0.95
BOUND_CONFIDENCE = 0.99  # LoadGen's
FEWEST_TO_POOL = 5  # processes; this and the level were chosen by simulation, see `nested_mean`
POOLING_LEVEL = 0.5
ONE_LOOK = (1,)
UNITS = ("instance", "process", "slice")  # from fine to coarse

_TINY_P = 1e-9  # down to this the recursion of `looking_p` is used
_LARGEST_EXPONENT = 709.0  # of a float64


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its two-sided 95 % confidence interval, in the unit of the data.

    `low` and `high` are NaN where one replicate leaves them unknown.
    """

    value: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True, slots=True)
class LogMean:
    """The mean of logarithms over independent units, with what its interval needs.

    `mean` and `standard_error` are natural logarithms: 0.01 is 1 %. The error is NaN with one unit.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float
    units: int
    unit: str


# ------------------------------------------------------------------------------------------------------- means


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean with Student's t interval over independent replicates (seeds).

    Source: Student 1908, through `scipy.special.stdtrit`.

    Raises:
        ValueError: no values.
    """
    mean, error = _mean_and_error(values)
    half = _quantile(1 - CONFIDENCE, len(values) - 1) * error
    return Estimate(mean, mean - half, mean + half, len(values))


def unit_mean(values: Sequence[float], unit: str) -> LogMean:
    """The plain mean over units that are independent of each other.

    Source: Student 1908.

    Args:
        values: one natural logarithm per unit.
        unit: one of `UNITS`.

    Raises:
        ValueError: no values.
    """
    mean, error = _mean_and_error(values)
    return LogMean(mean, error, len(values) - 1, len(values), unit)


def nested_mean(groups: Sequence[Sequence[float]]) -> LogMean:
    """The mean over instances that lie in processes, with the unit that the data themselves call independent.

    Processes are the units, each with its instances' mean, unless there are at least `FEWEST_TO_POOL` of them and the F
    test of a one-way analysis of variance does not even find at `POOLING_LEVEL` that they differ more than their
    instances explain. Then instances are. One process leaves no choice: its instances are the units, and what another
    process would have changed stays unknown.

    The level is one half, and fewer processes are not asked, because such a test is nearly blind: at the usual 0.05,
    with 3 processes of 8 instances and processes that differ half as much as instances, 95 % intervals cover 85 %. By
    this rule they cover 94.5 to 97.5 %, however much processes differ.

    Source: Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013 (replication at the highest level
    that varies); Bancroft, "On biases in estimation due to the use of preliminary tests of significance", 1944. The two
    numbers are this harness's own, from a simulation that its tests repeat.

    Args:
        groups: one per process, with one natural logarithm per instance. Empty ones are left out.

    Raises:
        ValueError: no values.
    """
    filled = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    if not filled:
        raise ValueError("an interval needs at least one value")
    together = np.concatenate(filled)
    means = [float(group.mean()) for group in filled]
    if len(filled) == 1 or (len(filled) >= FEWEST_TO_POOL and not _groups_differ(filled, means)):
        return unit_mean(together.tolist(), "instance")
    return unit_mean(means, "process")


def difference(own: LogMean, base: LogMean) -> LogMean:
    """The log ratio of two means that were measured apart, at different times or of different runtimes: unpaired.

    Units are those of both together, and `unit` is the coarser of the two. Where one arm has a single unit the error is
    NaN.

    Source: Welch 1947; degrees of freedom by Satterthwaite 1946.
    """
    parts = (own.standard_error**2, base.standard_error**2)
    freedoms = (own.degrees_of_freedom, base.degrees_of_freedom)
    variance = sum(parts)
    if math.isnan(variance):
        freedom = 0.0
    elif variance == 0.0:
        freedom = float(sum(freedoms))
    else:  # as shares of the variance, so that tiny variances cannot vanish when squared
        freedom = 1 / sum((part / variance) ** 2 / each for part, each in zip(parts, freedoms, strict=True))
    unit = max(own.unit, base.unit, key=UNITS.index)
    return LogMean(own.mean - base.mean, math.sqrt(variance), freedom, own.units + base.units, unit)


def widened(value: LogMean, spread: float) -> LogMean:
    """The same mean, less certain by an independent standard deviation, such as the machine's drift between two runs.

    The degrees of freedom stay: the spread is taken to be known no better than the rest, which errs on the wide side.

    Args:
        spread: natural logarithm, so that 0.01 is 1 %; 0 changes nothing.

    Raises:
        ValueError: a negative spread.
    """
    if spread < 0:
        raise ValueError(f"a spread is not negative: {spread}")
    return replace(value, standard_error=math.hypot(value.standard_error, spread))


# ------------------------------------------------------------------------------------------------------- looks


def planned_looks(first: int, most: int) -> tuple[int, ...]:
    """How many slices there are at each planned look: `first`, twice that, and so on by doubling, and `most` at last.

    Raises:
        ValueError: either is under 1.
    """
    if first < 1 or most < 1:
        raise ValueError(f"looks come after at least one slice: first {first}, most {most}")
    looks = []
    while first < most:
        looks.append(first)
        first *= 2
    return (*looks, most)


def looking_p(p: float, looks: Sequence[int], sides: Literal[1, 2] = 2) -> float:
    """The p-value of a test that might have stopped at any of the planned looks.

    It is the chance that a test of a true null hypothesis reaches, at one look or another, the value z that has the
    tail `p` at a single look: P(some |Z_k| >= z). One look leaves p alone. A t statistic enters by its own p-value (the
    significance level approach of Jennison & Turnbull, "Group sequential methods", 2000). That is close: 5 % become
    5.3 % with a first look at 5 units, and 5.6 % with one at 3.

    Source: Armitage, McPherson & Rowe, "Repeated significance tests on accumulating data", 1969: the density of what
    has not yet crossed, from look to look by numerical integration. Under 1e-9 Bonferroni's bound takes its place.

    Args:
        p: of a single look.
        looks: units at each planned look, ascending. Only their proportions count.
        sides: 2, or 1 for a one-sided p.

    Raises:
        ValueError: `p` is no probability, or `looks` do not ascend from 1 or more.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"no probability: {p}")
    plan = _plan(looks)
    if len(plan) == 1 or p in (0.0, 1.0):
        return float(p)
    if p < _TINY_P:
        return min(len(plan) * p, _crossing(_TINY_P, plan, sides))
    return _crossing(p, plan, sides)


def nominal_level(alpha: float, looks: Sequence[int], sides: Literal[1, 2] = 2) -> float:
    """The level to test at every planned look so that the error over all of them is `alpha`. Inverse of `looking_p`.

    Source: Pocock, "Group sequential methods in the design and analysis of clinical trials", 1977 (one level for all
    looks); for unequal steps by the recursion of Armitage, McPherson & Rowe 1969.

    Raises:
        ValueError: `alpha` is not between 0 and 1, or `looks` do not ascend from 1 or more.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"a level lies between 0 and 1: {alpha}")
    return _nominal(alpha, _plan(looks), sides)


def _plan(looks: Sequence[int]) -> tuple[int, ...]:
    plan = tuple(looks)
    if not plan or plan[0] < 1 or any(later <= earlier for earlier, later in pairwise(plan)):
        raise ValueError(f"looks ascend from 1 or more: {plan}")
    return plan


@lru_cache(maxsize=256)
def _nominal(alpha: float, plan: tuple[int, ...], sides: Literal[1, 2]) -> float:
    if len(plan) == 1:
        return alpha
    if alpha <= _crossing(_TINY_P, plan, sides):
        return alpha / len(plan)

    def excess(log_p: float) -> float:
        return math.log(_crossing(math.exp(log_p), plan, sides) / alpha)

    return math.exp(float(optimize.brentq(excess, math.log(_TINY_P), math.log(alpha), xtol=1e-13)))


@lru_cache(maxsize=4096)
def _crossing(p: float, plan: tuple[int, ...], sides: Literal[1, 2]) -> float:
    """The chance that a standard Brownian motion, seen at the times of the plan, ever lies beyond z(p) · √time.

    Sums, and no matrix products: those would wake the threads of a linear algebra library while workers are timed.
    """
    bound = -float(special.ndtri(p / sides))
    low = -bound if sides == 2 else min(bound, 0.0) - 9.0  # one-sided: what lies lower does not come back
    before = plan[0]
    points, weights = _grid(low, bound, before, plan[1] - before)
    density = np.exp(-(points**2) / (2 * before)) / math.sqrt(2 * math.pi * before)
    crossed = p
    for step, now in enumerate(plan[1:], start=1):
        deviation = math.sqrt(now - before)
        mass = weights * density
        upper = bound * math.sqrt(now)
        crossed += float(np.sum(mass * special.ndtr((points - upper) / deviation)))
        if sides == 2:
            crossed += float(np.sum(mass * special.ndtr((-upper - points) / deviation)))
        if step + 1 < len(plan):
            following = min(now - before, plan[step + 1] - now)
            next_points, weights = _grid(low, bound, now, following)
            kernel = np.exp(-(((next_points[:, None] - points) / deviation) ** 2) / 2)
            density = np.sum(kernel * mass, axis=1) / (deviation * math.sqrt(2 * math.pi))
            points = next_points
        before = now
    return min(crossed, 1.0)


def _grid(low: float, high: float, time: int, step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre points over the values that have not crossed, dense enough for steps of this variance."""
    root = math.sqrt(time)
    eights = math.ceil(3 * (high - low) * root / math.sqrt(step) / 8)  # they are costly to find, so few numbers of them
    points, weights = _legendre(24 + 8 * eights)
    half = (high - low) * root / 2
    return (high + low) * root / 2 + half * points, half * weights


@lru_cache(maxsize=256)
def _legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(count)


# ------------------------------------------------------------------------------------------------------- intervals


def estimate(value: LogMean, looks: Sequence[int] = ONE_LOOK) -> Estimate:
    """The geometric mean, or the ratio, with its 95 % repeated confidence interval.

    The interval holds at all planned looks together, so it may be looked at, and measuring stopped, at any of them.

    Source: Jennison & Turnbull, "Interim analyses: the repeated confidence interval approach", 1989, with Pocock's
    constant level. With one look it is Student's.
    """
    half = _quantile(nominal_level(1 - CONFIDENCE, looks), value.degrees_of_freedom) * value.standard_error
    return Estimate(_exp(value.mean), _exp(value.mean - half), _exp(value.mean + half), value.units)


def rate_interval(count: int, trials: int) -> Estimate:
    """How often something happens: `count` of `trials`, with the exact 95 % interval.

    Source: Clopper & Pearson 1934, through `scipy.stats.binomtest`.

    Raises:
        ValueError: `count` is not between 0 and `trials`, or there are no trials.
    """
    from scipy import stats  # here, for it is the slow half of SciPy

    interval = stats.binomtest(count, trials).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(count / trials, float(interval.low), float(interval.high), trials)


# ------------------------------------------------------------------------------------------------------- tests


def p_different(value: LogMean, looks: Sequence[int] = ONE_LOOK) -> float:
    """Two-sided p-value of "the true ratio is 1", over the planned looks; 1 while the error is unknown.

    Source: Student's t test (Student 1908); Welch 1947 where the mean is a `difference`.
    """
    return looking_p(min(1.0, 2 * _tail(-abs(value.mean), value)), looks)


def p_equivalent(value: LogMean, tolerance: float, looks: Sequence[int] = ONE_LOOK) -> float:
    """p-value of "the true ratio is at least 1 + tolerance, or at most its reciprocal", over the planned looks.

    A small one is evidence that both are the same within the tolerance. The larger of two one-sided p-values.

    Source: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", 1987.

    Args:
        tolerance: 0.01 is 1 %.

    Raises:
        ValueError: a tolerance that is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"a tolerance is positive: {tolerance}")
    return max(p_below(value, 1 + tolerance, looks), p_above(value, 1 / (1 + tolerance), looks))


def p_above(value: LogMean, ratio: float, looks: Sequence[int] = ONE_LOOK) -> float:
    """One-sided p-value of "the true ratio is at most `ratio`": a small one is evidence that it is larger.

    Source: Student 1908.
    """
    return looking_p(_tail(math.log(ratio) - value.mean, value), looks, sides=1)


def p_below(value: LogMean, ratio: float, looks: Sequence[int] = ONE_LOOK) -> float:
    """One-sided p-value of "the true ratio is at least `ratio`": a small one is evidence that it is smaller.

    Source: Student 1908.
    """
    return looking_p(_tail(value.mean - math.log(ratio), value), looks, sides=1)


# ------------------------------------------------------------------------------------------------------- planning


def detectable_ratio(value: LogMean, power: float = 0.95, looks: Sequence[int] = ONE_LOOK) -> float:
    """The smallest slowdown that a test at the 5 % level finds this often, at the error that was met: 0.008 is 0.8 %.

    NaN while the error is unknown. With several looks it is one look's power at its nominal level: all find it oftener.

    Source: the power of the t test, by the noncentral t distribution of `scipy.stats.nct`.

    Args:
        power: how often it is to be found.
    """
    if math.isnan(value.standard_error):
        return math.nan
    from scipy import stats  # see `rate_interval`

    freedom = value.degrees_of_freedom
    critical = _quantile(nominal_level(1 - CONFIDENCE, looks), freedom)
    high = critical + 1.0
    while stats.nct.sf(critical, freedom, high) < power:
        high *= 2
    shift = optimize.brentq(lambda shift: float(stats.nct.sf(critical, freedom, shift)) - power, 0.0, high)
    return _exp(slowdown) - 1 if (slowdown := float(shift) * value.standard_error) > 1 else math.expm1(slowdown)


def units_needed(value: LogMean, distance: float, looks: Sequence[int] = ONE_LOOK) -> int:
    """How many units in all until the interval's half-width is at most `distance`, at the spread seen so far.

    If it already is, the units there are. While the error is unknown, one more than there are.

    Args:
        distance: natural logarithm, so that 0.01 is 1 %.

    Raises:
        ValueError: a distance that is not positive.
    """
    if not distance > 0:
        raise ValueError(f"a distance is positive: {distance}")
    if math.isnan(value.standard_error):
        return value.units + 1
    level = nominal_level(1 - CONFIDENCE, looks)
    deviation = value.standard_error * math.sqrt(value.units)

    def enough(units: int) -> bool:
        freedom = value.degrees_of_freedom * (units - 1) / (value.units - 1)
        return _quantile(level, freedom) * deviation / math.sqrt(units) <= distance

    return value.units if enough(value.units) else _first(enough, value.units)


def autocorrelation(values: Sequence[float]) -> float:
    """How alike neighbours are: the correlation at lag 1, from -1 to 1; NaN for fewer than 3 values or a constant.

    Source: Box & Jenkins, "Time series analysis", 1970: the sum of neighbours' products over the sum of squares.
    """
    centred = np.asarray(values, dtype=np.float64)
    if len(centred) < 3 or np.ptp(centred) == 0:
        return math.nan
    centred = centred - centred.mean()
    centred /= np.abs(centred).max()  # so that squares of tiny numbers cannot vanish
    return float(np.sum(centred[:-1] * centred[1:]) / np.sum(centred**2))


# ------------------------------------------------------------------------------------------------------- percentiles


def percentile_bound(samples: Sequence[float], p: float) -> float:
    """An upper bound that the p-quantile stays under with 99 % confidence, whatever the distribution; NaN if too few.

    The t-th largest sample, for the largest t whose binomial tail `betainc(n - t, t + 1, p)` is at most 1 %.
    Source: MLPerf Inference LoadGen, `early_stopping.cc`. Calls are taken as independent.

    Args:
        samples: latencies, in seconds.
        p: 0.5, 0.9, 0.99 or 0.999, say.
    """
    over = _allowed_over(len(samples), p)
    return float(np.partition(np.asarray(samples, dtype=np.float64), -over)[-over]) if over else math.nan


def samples_needed(p: float) -> int:
    """The fewest samples for which `percentile_bound` knows an answer: 64 for p90, 662 for p99, 6,636 for p99.9."""
    return _first(lambda n: _allowed_over(n, p) > 0, 1)


def _allowed_over(n: int, p: float) -> int:
    """The largest t from 1 to n - 1 with a tail of at most 1 %, or 0. The tail grows with t."""

    def too_many(t: int) -> bool:
        return t >= n or float(special.betainc(n - t, t + 1, p)) > 1 - BOUND_CONFIDENCE

    return _first(too_many, 0) - 1


# ------------------------------------------------------------------------------------------------------- arithmetic


def _first(holds: Callable[[int], bool], after: int) -> int:
    """The first number after this one for which something holds that goes on to hold."""
    step = 1
    while not holds(after + step):
        after += step
        step *= 2
    low, high = after, after + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if not len(values):
        raise ValueError("an interval needs at least one value")
    if len(values) == 1:
        return float(values[0]), math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _groups_differ(groups: Sequence[NDArray[np.float64]], means: Sequence[float]) -> bool:
    """The F test at `POOLING_LEVEL`. Groups of one, or without any spread, can only be told to differ."""
    count = sum(map(len, groups))
    centre = sum(len(group) * mean for group, mean in zip(groups, means, strict=True)) / count
    between = sum(len(group) * (mean - centre) ** 2 for group, mean in zip(groups, means, strict=True))
    within = sum(float(np.sum((group - mean) ** 2)) for group, mean in zip(groups, means, strict=True))
    if within == 0.0:
        return True
    freedoms = len(groups) - 1, count - len(groups)
    return float(special.fdtrc(*freedoms, (between / freedoms[0]) / (within / freedoms[1]))) < POOLING_LEVEL


def _quantile(level: float, freedom: float) -> float:
    """Student's t that has this two-sided tail; NaN without degrees of freedom."""
    return -float(special.stdtrit(freedom, level / 2)) if freedom > 0 else math.nan


def _tail(distance: float, value: LogMean) -> float:
    """Student's chance of lying below the distance, which is in logarithms; 1 while the error is unknown."""
    error = value.standard_error
    if math.isnan(error):
        return 1.0
    if error == 0.0:
        return 0.0 if distance < 0 else 1.0
    return float(special.stdtr(value.degrees_of_freedom, distance / error))


def _exp(log: float) -> float:
    return math.exp(log) if not log > _LARGEST_EXPONENT else math.inf
