"""Probes: what a load that was offered came to, and the search for the highest that is sustained. The engine's side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness import stats
from harness.estimates import NOT_SUSTAINED, REFUSED, SUSTAINED

PERCENTILE = 0.99
FILLING = 5  # of a probe that confirms, the first of so many parts is not judged: a queue begins empty
GROWTH_SHARE = 0.25  # of the bound, by which latencies of streams may grow within a probe
ROUNDING = 1e-9  # of a utilisation of 1
GENERATOR_SHARE = 0.1  # of the bound, that the generator may be late: a queue's latency grows like 1 / (1 - ρ) near its
# limit, so this moves the limit by a tenth of 1 - ρ, which is less than the search can tell


@dataclass(frozen=True, slots=True)
class Probe:
    """What one load came to; the columns of the loads table.

    Attributes:
        requests: how many were served.
        judged: how many of them, the last, the latencies and misses are of.
        bound_s: what a latency is held against: the bound of the percentile, or the time to the next chunk.
        p50_s, p99_s: of latencies from the scheduled arrival.
        p99_bound_s: what p99 stays under with 99 % confidence (`stats.percentile_bound`); None with too few requests.
        growth_s: from the median of the first fifth of the judged to that of the last.
        misses: of the judged, requests that took longer than `bound_s`.
        generator_p99_s: 99th percentile of how late the generator was; 0 where it never had to wait.
        mean_batch: requests a call, on average.
        busy_s: how long calls took together.
        verdict: `sustained`, `not sustained`, or `refused` where the generator was too late to tell.
    """

    requests: int
    judged: int
    bound_s: float
    p50_s: float
    p99_s: float
    p99_bound_s: float | None
    growth_s: float
    misses: int
    generator_p99_s: float
    mean_batch: float
    busy_s: float
    verdict: str


def judged(
    latencies_s: Sequence[float],
    delays_s: Sequence[float],
    calls: int,
    busy_s: float,
    bound_s: float,
    miss_share: float | None = None,
    offered_s: float = math.inf,
    is_confirmation: bool = False,
) -> Probe:
    """Was a load sustained?

    With a `miss_share`: at most that share of the requests took longer than the bound, and the median of the last
    fifth is not above that of the first by more than a quarter of the bound. Without: p99 lies under the bound, in a
    confirmation with 99 % confidence. Who worked for longer than the time for which the requests stand sustained
    nothing. A probe whose generator was late by more than a tenth of the bound, at its own p99, is refused: it would
    tell of the machine and not of what was served.

    Args:
        latencies_s: of every request, at least one, from its scheduled arrival.
        delays_s: how late the generator was, each time it had waited.
        calls: how many calls served them.
        busy_s: how long the calls took together.
        bound_s: positive.
        miss_share: from 0 to 1, or None.
        offered_s: for how long the requests stand: their number over the rate. Infinite where a call may serve several,
            for it may always be busy and serve more of them a call.
        is_confirmation: the first fifth of the latencies is not judged, and p99 has to be sure.
    """
    requests = len(latencies_s)
    if is_confirmation:
        latencies_s = latencies_s[requests // FILLING :]
    p50, p99 = np.quantile(latencies_s, [0.5, PERCENTILE]).tolist()
    upper = stats.percentile_bound(latencies_s, PERCENTILE)
    part = max(1, len(latencies_s) // 5)
    growth_s = float(np.median(latencies_s[-part:]) - np.median(latencies_s[:part]))
    misses = sum(latency > bound_s for latency in latencies_s)
    late = float(np.quantile(delays_s, PERCENTILE)) if delays_s else 0.0
    if miss_share is None:
        is_sustained = (upper if is_confirmation else p99) <= bound_s
    else:
        is_sustained = misses <= miss_share * len(latencies_s) and growth_s <= GROWTH_SHARE * bound_s
    is_sustained = is_sustained and busy_s <= offered_s * (1 + ROUNDING)
    verdict = SUSTAINED if is_sustained else NOT_SUSTAINED
    return Probe(
        requests=requests,
        judged=len(latencies_s),
        bound_s=bound_s,
        p50_s=p50,
        p99_s=p99,
        p99_bound_s=None if math.isnan(upper) else upper,
        growth_s=growth_s,
        misses=misses,
        generator_p99_s=late,
        mean_batch=requests / calls,
        busy_s=busy_s,
        verdict=REFUSED if late > GENERATOR_SHARE * bound_s else verdict,
    )


@dataclass(frozen=True, slots=True)
class Bracket:
    """Between which loads the limit lies.

    Attributes:
        sustained: the highest load that was; 0 if none was.
        not_sustained: the lowest load that was not; infinite if all were.
    """

    sustained: float
    not_sustained: float


def highest(
    sustains: Callable[[float], bool], first: float, least: float, most: float, precision: float, whole: bool = False
) -> Bracket:
    """The highest load that is sustained, by doubling and bisection.

    From the first load it goes up by doubling while loads are sustained, or down by halving until one is; then the gap
    is halved, on a scale of logarithms, until the upper end is at most 1 + `precision` times the lower.

    Args:
        sustains: tries a load; whatever it raises ends the search.
        first: where to begin; brought between `least` and `most`.
        least, most: the lowest and the highest load that may be tried, positive.
        precision: 0.05 is 5 %, positive.
        whole: loads are whole numbers, and a gap of 1 is none.
    """

    def fit(load: float) -> float:
        bounded = min(max(load, least), most)
        return float(round(bounded)) if whole else bounded

    low, high, load = 0.0, math.inf, fit(first)
    while low == 0.0 or math.isinf(high):
        if sustains(load):
            low = load
        else:
            high = load
        if low == most or high == least:
            return Bracket(low, high)
        load = fit(load * 2 if math.isinf(high) else load / 2 if low == 0.0 else load)
    while high > low * (1 + precision) and not (whole and high - low <= 1):
        load = fit(math.sqrt(low * high))
        if sustains(load):
            low = load
        else:
            high = load
    return Bracket(low, high)


def confirmed(sustains: Callable[[float], bool], load: float, least: float, precision: float, times: int) -> float:
    """The highest load that a second look confirms, going down from what a search found; 0 if none is.

    Args:
        sustains: tries a load for longer; whatever it raises ends this.
        load: what the search found; 0 if nothing, and then nothing is tried.
        least: the lowest load that may be tried.
        precision: by what share it goes down each time.
        times: how many loads are tried at most.
    """
    for _ in range(times):
        if load == 0.0 or sustains(load):
            return load
        if load <= least:
            break
        load = max(least, load / (1 + precision))
    return 0.0
