"""Arrivals: requests that come when they come, served one after the other. The worker's side of a load.

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
