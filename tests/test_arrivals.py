"""Arrivals, by a clock that moves only when the tests say so: who waits for whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.engine.arrivals import Load, Served, poisson, serve, staggered, work


class Clock:
    """Seconds that pass by waiting and by serving; it does not begin at zero."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now = 1000.0
        self.late_s = late_s
        self.waits = 0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.waits += 1
        self.now += max(seconds, 1e-9) + self.late_s  # less than that would be lost beside a thousand


def served_by(
    schedule: Sequence[float],
    service_s: float | Callable[[int], float],
    window_s: float = 0.0,
    most_batch: int = 1,
    late_s: float = 0.0,
) -> tuple[list[Served], list[float], list[range]]:
    """Serve a schedule; a call takes so long, or as long as its batch says."""
    clock = Clock(late_s)
    calls: list[range] = []

    def call(places: range) -> None:
        calls.append(places)
        clock.now += service_s(len(places)) if callable(service_s) else service_s

    served, delays = serve(schedule, call, clock, clock.wait, window_s, most_batch)
    return served, delays, calls


def rounded(served: Sequence[Served]) -> list[tuple[float, float]]:
    return [(round(request.start_s, 6), round(request.finish_s, 6)) for request in served]


# ------------------------------------------------------------------------------------------------- who waits


def test_who_comes_to_an_idle_server_starts_on_arrival() -> None:
    served, delays, _ = served_by([1.0, 2.0], 0.25)
    assert rounded(served) == [(1.0, 1.25), (2.0, 2.25)]
    assert [round(request.latency_s, 6) for request in served] == [0.25, 0.25]
    assert delays == pytest.approx([0.0, 0.0], abs=1e-9)


def test_who_comes_while_another_is_served_waits_and_the_wait_is_in_the_latency() -> None:
    served, delays, _ = served_by([0.0, 0.1, 0.2], 1.0)
    assert rounded(served) == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    assert [round(request.latency_s, 6) for request in served] == [1.0, 1.9, 2.8]
    assert delays == []  # nobody was waited for


def test_a_server_that_stalls_once_is_late_for_all_who_came_meanwhile() -> None:
    """No coordinated omission: a schedule does not wait until the server is ready for it."""
    durations = iter([5.0, 0.1, 0.1, 0.1, 0.1])
    served, _, _ = served_by([0.0, 1.0, 2.0, 3.0, 4.0], lambda batch: next(durations))
    assert [round(request.latency_s, 6) for request in served] == [5.0, 4.1, 3.2, 2.3, 1.4]


def test_how_late_the_generator_wakes_is_measured_where_it_waited_and_is_in_the_latency() -> None:
    served, delays, _ = served_by([1.0, 1.1, 3.0], 0.25, late_s=0.01)
    assert delays == pytest.approx([0.01, 0.01])  # the second was there when the first had been served
    assert [round(request.latency_s, 6) for request in served] == [0.26, 0.41, 0.26]


def test_a_wait_that_ends_early_is_gone_on_with() -> None:
    clock = Clock()

    def wait(seconds: float) -> None:
        clock.wait(seconds if seconds < 1e-3 else seconds / 2)

    served, delays = serve([1.0], lambda places: None, clock, wait)
    assert clock.waits > 5
    assert [served[0].start_s, *delays] == pytest.approx([1.0, 0.0], abs=1e-9)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.lists(st.floats(1e-3, 3), min_size=40, max_size=40))
def test_one_at_a_time_everybody_starts_when_there_and_when_the_one_before_is_done(
    gaps: list[float], durations: list[float]
) -> None:
    """Lindley, "The theory of queues with a single server", 1952."""
    schedule = np.cumsum(gaps).tolist()
    left = iter(durations)
    served, _, calls = served_by(schedule, lambda batch: next(left))
    free = 0.0
    for request, arrival, duration in zip(served, schedule, durations, strict=False):
        assert request.start_s == pytest.approx(max(arrival, free), abs=1e-6)
        free = request.finish_s
        assert free == pytest.approx(request.start_s + duration, abs=1e-6)
    assert calls == [range(place, place + 1) for place in range(len(schedule))]


@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_random_arrivals_wait_as_long_as_queueing_theory_says(utilisation: float) -> None:
    """M/D/1: the mean wait is ρ·s / (2·(1 − ρ)) (Pollaczek 1930, Khinchine 1932).

    By twelve seeds and their own spread, 99.9 %.
    """
    service_s = 0.001
    waits = []
    for seed in range(12):
        served, _, _ = served_by(poisson(utilisation / service_s, 10_000, seed), service_s)
        waits.append(np.mean([request.start_s - request.arrival_s for request in served]))
    expected = utilisation * service_s / (2 * (1 - utilisation))
    error = np.std(waits, ddof=1) / math.sqrt(len(waits))
    assert abs(np.mean(waits) - expected) < scipy_stats.t.ppf(0.9995, len(waits) - 1) * error
    assert error < 0.03 * expected  # or the line before would prove nothing


# ------------------------------------------------------------------------------------------------- batches


def test_a_call_takes_what_has_arrived_up_to_the_largest_batch() -> None:
    served, _, calls = served_by([0.0, 0.1, 0.2, 0.3, 0.4], 1.0, most_batch=3)
    assert calls == [range(1), range(1, 4), range(4, 5)]
    assert [request.batch for request in served] == [1, 3, 3, 3, 1]
    assert rounded(served) == [(0.0, 1.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (2.0, 3.0)]


def test_without_a_window_nobody_waits_for_others() -> None:
    served, _, _ = served_by([1.0, 1.001], 0.5, most_batch=8)
    assert [request.batch for request in served] == [1, 1]


def test_a_window_holds_the_first_back_for_those_who_come_in_it() -> None:
    served, delays, calls = served_by([1.0, 1.1, 1.4], 0.5, window_s=0.2, most_batch=8)
    assert calls == [range(2), range(2, 3)]
    assert rounded(served) == [(1.2, 1.7), (1.2, 1.7), (1.7, 2.2)]  # the third has waited longer than a window
    assert delays == pytest.approx([0.0, 0.0], abs=1e-9)


def test_a_window_ends_when_the_batch_is_full() -> None:
    served, _, _ = served_by([1.0, 1.1, 1.15], 0.5, window_s=0.2, most_batch=2)
    assert rounded(served)[0] == (1.1, 1.6)


def test_the_last_request_waits_for_its_window_too_for_a_server_knows_of_no_end() -> None:
    served, _, _ = served_by([1.0], 0.5, window_s=0.2, most_batch=2)
    assert rounded(served) == [(1.2, 1.7)]


def test_a_batch_of_one_has_no_window() -> None:
    served, _, _ = served_by([1.0], 0.5, window_s=0.2)
    assert rounded(served) == [(1.0, 1.5)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 2), st.integers(1, 6), st.floats(0.01, 1))
def test_with_batches_everybody_is_served_once_in_order_and_nobody_is_kept_longer_than_the_window(
    gaps: list[float], window_s: float, most_batch: int, service_s: float
) -> None:
    schedule = np.cumsum(gaps).tolist()
    served, delays, calls = served_by(schedule, service_s, window_s, most_batch)
    assert [place for places in calls for place in places] == list(range(len(schedule)))
    assert all(1 <= len(places) <= most_batch for places in calls)
    assert [request.arrival_s for request in served] == schedule
    assert max(delays, default=0.0) < 1e-6
    free = 0.0
    for places in calls:
        start, ready = served[places[0]].start_s, max(schedule[places[0]], free)
        assert start >= max(schedule[place] for place in places) - 1e-9
        assert start <= max(ready, schedule[places[0]] + window_s) + 1e-6
        free = served[places[0]].finish_s
    assert work(served) == pytest.approx((len(calls), len(calls) * service_s))


# ------------------------------------------------------------------------------------------------- schedules


def test_random_arrivals_have_the_rate_and_exponential_gaps_and_follow_the_seed() -> None:
    times = poisson(200.0, 20_000, seed=1)
    gaps = np.diff([0.0, *times])
    assert gaps.min() >= 0
    assert scipy_stats.kstest(gaps, "expon", args=(0, 1 / 200)).pvalue > 0.01
    assert times == poisson(200.0, 20_000, seed=1) != poisson(200.0, 20_000, seed=2)


def test_streams_bring_a_chunk_a_period_and_begin_evenly_spread() -> None:
    assert staggered(4, 2, 0.1) == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175])


def test_a_load_knows_when_its_requests_arrive() -> None:
    server = Load("server", 50.0, 100, 0.0, 0.0, 1, seed=3)
    assert (server.streams, server.schedule()) == (0, poisson(50.0, 100, 3))
    streams = Load("stream", 3.0, 6, 0.1, 0.0, 1, seed=3)
    assert (streams.streams, streams.schedule()) == (3, staggered(3, 2, 0.1))
