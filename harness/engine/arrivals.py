"""Arrivals: requests that come when they come, served one after the other, and the highest load that is sustained.

Latency counts from the scheduled arrival and not from the start, so a queue is in it: no coordinated omission (Tene,
"How NOT to measure latency"; wrk2). The server scenario is MLPerf Inference's: single requests, Poisson arrivals,
a bound on the 99th percentile (Reddi et al., "MLPerf Inference Benchmark", ISCA 2020).

Nothing here reads a clock of its own or knows what is served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness import stats
from harness.estimates import NOT_SUSTAINED, REFUSED, SUSTAINED

PERCENTILE = 0.99
GENERATOR_SHARE = 0.1  # of the bound, that the generator may be late: a queue's latency grows like 1 / (1 - ρ) near its
# limit, so this moves the limit by a tenth of 1 - ρ, which is less than the search can tell


@dataclass(frozen=True, slots=True)
class Served:
    """One request.

    Attributes:
        arrival_s: when it was scheduled to arrive, in seconds from the beginning.
        start_s: when the call that served it began.
        finish_s: and when that had returned.
        batch: how many requests the call served.
    """

    arrival_s: float
    start_s: float
    finish_s: float
    batch: int

    @property
    def latency_s(self) -> float:
        """From the scheduled arrival to the end, in seconds."""
        return self.finish_s - self.arrival_s


def poisson(rate_per_s: float, requests: int, seed: int) -> list[float]:
    """Arrivals of independent users: exponential gaps of mean 1 / rate; seconds, ascending.

    Source: Reddi et al. 2020 (MLPerf Inference, server scenario).
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate_per_s, requests)
    times: list[float] = np.cumsum(gaps).tolist()
    return times


def staggered(streams: int, chunks: int, period_s: float) -> list[float]:
    """Chunks of streams that began evenly spread over one period; seconds, ascending.

    Arrival i is chunk i // streams of stream i % streams.
    """
    return [(index // streams + index % streams / streams) * period_s for index in range(streams * chunks)]


@dataclass(frozen=True, slots=True)
class Load:
    """A load as it is offered.

    Attributes:
        scenario: `server`, or `stream`.
        amount: requests a second, or streams.
        requests: how many in all; of streams a multiple of them.
        period_s: between two chunks of a stream; 0 for a server.
        window_s, most_batch: see `serve`.
        seed: of random arrivals.
    """

    scenario: str
    amount: float
    requests: int
    period_s: float
    window_s: float
    most_batch: int
    seed: int

    @property
    def streams(self) -> int:
        """How many streams; 0 for single requests."""
        return round(self.amount) if self.scenario == "stream" else 0

    def schedule(self) -> list[float]:
        """When requests arrive, in seconds, ascending."""
        if self.streams:
            return staggered(self.streams, self.requests // self.streams, self.period_s)
        return poisson(self.amount, self.requests, self.seed)


def serve(
    schedule: Sequence[float],
    call: Callable[[range], None],
    clock: Callable[[], float],
    wait: Callable[[float], None],
    window_s: float = 0.0,
    most_batch: int = 1,
) -> tuple[list[Served], list[float]]:
    """Serve arrivals in their order, in one thread.

    A call takes what has arrived, up to `most_batch`. If that is fewer, it waits until the window after its first
    request's arrival is over or the batch is full, as Triton's dynamic batcher does. When nothing is there it waits for
    the next arrival.

    Args:
        schedule: when requests arrive, in seconds from the beginning, ascending.
        call: serves these requests, by their places in the schedule.
        clock: seconds, monotonic.
        wait: `wait(seconds)` returns when so much time is over, or later.
        window_s: how long a request may wait for others to join it.
        most_batch: requests a call at most.

    Returns:
        every request in the order of arrival; and of every arrival that was waited for how late the wait ended, in
        seconds, which is the generator's own doing.
    """
    began = clock()
    served: list[Served] = []
    delays: list[float] = []

    def wait_until(moment: float) -> float:
        while (now := clock() - began) < moment:
            wait(moment - now)
        return now

    while len(served) < len(schedule):
        first = len(served)
        now = clock() - began
        if now < schedule[first]:
            now = wait_until(schedule[first])
            delays.append(now - schedule[first])
        end, leave = first + 1, schedule[first] + window_s
        while end - first < most_batch:
            following = schedule[end] if end < len(schedule) else math.inf
            if following <= now:
                end += 1
            elif now >= leave:
                break
            else:  # whether another will come before the window ends is not known to a server
                now = wait_until(min(following, leave))
                if following <= leave:
                    delays.append(now - following)
        start = clock() - began
        call(range(first, end))
        finish = clock() - began
        served += [Served(schedule[place], start, finish, end - first) for place in range(first, end)]
    return served, delays


def work(served: Sequence[Served]) -> tuple[int, float]:
    """How many calls served these requests, and how many seconds they took together."""
    calls, busy_s, place = 0, 0.0, 0
    while place < len(served):
        calls, busy_s = calls + 1, busy_s + served[place].finish_s - served[place].start_s
        place += served[place].batch
    return calls, busy_s


@dataclass(frozen=True, slots=True)
class Probe:
    """What one load came to; the columns of the loads table.

    Attributes:
        requests: how many were served.
        bound_s: what a latency is held against: the bound of the percentile, or the time to the next chunk.
        p50_s, p99_s: of latencies from the scheduled arrival.
        p99_bound_s: what p99 stays under with 99 % confidence (`stats.percentile_bound`); None with too few requests.
        misses: requests that took longer than `bound_s`.
        generator_p99_s: 99th percentile of how late the generator was; 0 where it never had to wait.
        mean_batch: requests a call, on average.
        busy_s: how long calls took together.
        verdict: `sustained`, `not sustained`, or `refused` where the generator was too late to tell.
    """

    requests: int
    bound_s: float
    p50_s: float
    p99_s: float
    p99_bound_s: float | None
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
) -> Probe:
    """Was a load sustained?

    With a `miss_share`: at most that share of the requests took longer than the bound. Without: p99 lies under the
    bound with 99 % confidence. A probe whose generator was late by more than a tenth of the bound, at its own p99, is
    refused: it would tell of the machine and not of what was served.

    Args:
        latencies_s: of every request, at least one, from its scheduled arrival.
        delays_s: how late the generator was, each time it had waited.
        calls: how many calls served them.
        busy_s: how long the calls took together.
        bound_s: positive.
        miss_share: from 0 to 1, or None.
    """
    p50, p99 = np.quantile(latencies_s, [0.5, PERCENTILE]).tolist()
    upper = stats.percentile_bound(latencies_s, PERCENTILE)
    misses = sum(latency > bound_s for latency in latencies_s)
    late = float(np.quantile(delays_s, PERCENTILE)) if delays_s else 0.0
    is_sustained = upper <= bound_s if miss_share is None else misses <= miss_share * len(latencies_s)
    verdict = SUSTAINED if is_sustained else NOT_SUSTAINED
    return Probe(
        requests=len(latencies_s),
        bound_s=bound_s,
        p50_s=p50,
        p99_s=p99,
        p99_bound_s=None if math.isnan(upper) else upper,
        misses=misses,
        generator_p99_s=late,
        mean_batch=len(latencies_s) / calls,
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
