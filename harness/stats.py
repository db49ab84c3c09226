"""Statistics: pure functions of numbers, each with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95
BOUND_CONFIDENCE = 0.99  # LoadGen's


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its two-sided 95 % confidence interval, in the unit of the data.

    `low` and `high` are NaN where one replicate leaves them unknown.
    """

    value: float
    low: float
    high: float
    replicates: int


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean with Student's t interval over independent replicates (seeds).

    Source: Student 1908, through `scipy.stats.t`.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Estimate(mean, mean - half, mean + half, len(values))


def latency_interval(medians: Sequence[float]) -> Estimate:
    """The typical latency over processes: the geometric mean of their medians, t interval over their logarithms.

    The calls of one process share its memory layout, so a process is one observation however many calls it made.
    Source: Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013 (replication at the highest level).

    Args:
        medians: one positive median per process, in seconds.

    Raises:
        ValueError: no medians, or one that is not positive.
    """
    return _exp(mean_interval(_logs(medians)))


def ratio_interval(medians: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """How many times as slow as the baseline: paired by round, t interval over the logarithms of the ratios.

    Source: Bulej et al., "Duet benchmarking", ICPE 2020 (pairing); Kalibera & Jones, ISMM 2013.

    Args:
        medians, baseline: one positive median per round, in the same order; seconds.

    Raises:
        ValueError: the two differ in length, are empty, or hold a value that is not positive.
    """
    if len(medians) != len(baseline):
        raise ValueError(f"ratios are paired: {len(medians)} medians against {len(baseline)}")
    return _exp(mean_interval([own - base for own, base in zip(_logs(medians), _logs(baseline), strict=True)]))


def percentile_bound(samples: Sequence[float], p: float) -> float:
    """An upper bound that the p-quantile stays under with 99 % confidence, whatever the distribution; NaN if too few.

    The t-th largest sample, for the largest t whose binomial tail `betainc(n - t, t + 1, p)` is at most 1 %.
    Source: MLPerf Inference LoadGen, `early_stopping.cc`. Calls are taken as independent.

    Args:
        samples: latencies, in seconds.
        p: 0.9 or 0.99, say.
    """
    over = _allowed_over(len(samples), p)
    return float(np.sort(samples)[-over]) if over else math.nan


def samples_needed(p: float) -> int:
    """The fewest samples for which `percentile_bound` knows an answer: 64 for p90, 662 for p99."""
    n = 2
    while not _allowed_over(n, p):
        n *= 2
    low, high = n // 2, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _allowed_over(middle, p) else (middle, high)
    return high


def _allowed_over(n: int, p: float) -> int:
    t = np.arange(1, n)
    return int(np.count_nonzero(special.betainc(n - t, t + 1, p) <= 1 - BOUND_CONFIDENCE))


def _logs(values: Sequence[float]) -> list[float]:
    if not all(value > 0 for value in values):
        raise ValueError("latencies must be positive")
    return [math.log(value) for value in values]


def _exp(logs: Estimate) -> Estimate:
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.replicates)
