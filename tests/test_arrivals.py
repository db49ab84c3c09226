"""Arrivals, by a clock that moves only when the tests say so: who waits for whom, and which load is the highest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.engine.arrivals import Load, Served, poisson, serve, staggered, work
from harness.engine.probes import GENERATOR_SHARE, Bracket, highest, judged
from harness.estimates import NOT_SUSTAINED, REFUSED, SUSTAINED


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


# ------------------------------------------------------------------------------------------------- judging


def test_a_server_is_sustained_if_p99_is_under_the_bound_with_confidence() -> None:
    """Of 2,000 requests p99 is surely under the ninth largest, so eight may be over; 20 are over p99 itself."""
    fast, slow = [0.01] * 1992, [0.09] * 8
    assert judged([*fast, *slow], [], 2000, 1.0, bound_s=0.05).verdict == SUSTAINED
    probe = judged([*fast[:-1], *slow, 0.09], [], 2000, 1.0, bound_s=0.05)
    assert (probe.p99_s, probe.p99_bound_s, probe.misses, probe.verdict) == (0.01, 0.09, 9, NOT_SUSTAINED)


def test_too_few_requests_sustain_nothing_for_there_is_no_bound() -> None:
    probe = judged([0.01] * 661, [], 661, 1.0, bound_s=0.05)
    assert (probe.p99_bound_s, probe.verdict) == (None, NOT_SUSTAINED)
    assert judged([0.01] * 662, [], 662, 1.0, bound_s=0.05).verdict == SUSTAINED


def test_streams_are_sustained_if_no_more_chunks_are_late_than_may_be() -> None:
    assert judged([0.05] * 99 + [0.2], [], 100, 1.0, bound_s=0.1, miss_share=0.01).verdict == SUSTAINED
    probe = judged([0.05] * 98 + [0.2] * 2, [], 100, 1.0, bound_s=0.1, miss_share=0.01)
    assert (probe.misses, probe.verdict) == (2, NOT_SUSTAINED)
    assert judged([0.1] * 10, [], 10, 1.0, bound_s=0.1, miss_share=0.0).verdict == SUSTAINED  # just in time


@pytest.mark.parametrize("latency_s", [0.01, 0.9])
def test_a_late_generator_is_refused_whatever_came_of_the_requests(latency_s: float) -> None:
    late = [2 * GENERATOR_SHARE * 0.05] * 100
    probe = judged([latency_s] * 700, late, 700, 1.0, bound_s=0.05)
    assert probe.verdict == REFUSED
    assert probe.generator_p99_s == pytest.approx(0.01)


def test_a_generator_that_is_late_once_in_a_thousand_is_not() -> None:
    probe = judged([0.01] * 700, [0.0] * 999 + [0.04], 700, 1.0, bound_s=0.05)
    assert (probe.verdict, probe.generator_p99_s) == (SUSTAINED, 0.0)


def test_a_probe_tells_how_many_requests_a_call_had() -> None:
    probe = judged([0.01] * 700, [], 350, 2.5, bound_s=0.05)
    assert (probe.requests, probe.mean_batch, probe.busy_s, probe.p50_s) == (700, 2.0, 2.5, 0.01)


# ------------------------------------------------------------------------------------------------- the highest


def search(limit: float, **options: float | bool) -> tuple[Bracket, list[float]]:
    """Look for a known limit; what was found, and what was tried."""
    tried: list[float] = []

    def sustains(load: float) -> bool:
        tried.append(load)
        return load <= limit

    settings = {"first": 10.0, "least": 1.0, "most": 1e6, "precision": 0.05} | options
    return highest(sustains, **settings), tried  # type: ignore[arg-type]


def test_the_search_doubles_then_halves_the_gap() -> None:
    found, tried = search(57.0, precision=0.5)
    assert tried[:4] == [10.0, 20.0, 40.0, 80.0]
    assert tried[4:] == [pytest.approx(math.sqrt(40 * 80))]
    assert found == Bracket(tried[4], 80.0)


def test_a_first_load_that_is_too_high_is_halved() -> None:
    found, tried = search(3.0, precision=1.0)
    assert (found, tried) == (Bracket(2.5, 5.0), [10.0, 5.0, 2.5])


@given(st.floats(1.0, 1e5), st.floats(0.1, 1e6), st.sampled_from([0.01, 0.05, 0.5]))
def test_the_limit_lies_in_the_bracket_that_is_found_and_no_load_is_tried_twice(
    limit: float, first: float, precision: float
) -> None:
    found, tried = search(limit, first=first, precision=precision)
    assert found.sustained <= limit < found.not_sustained
    assert found.not_sustained <= found.sustained * (1 + precision)
    assert len(set(tried)) == len(tried)
    doublings = abs(math.log2(limit / min(max(first, 1.0), 1e6)))
    assert len(tried) <= doublings + 2 + math.ceil(math.log2(math.log(2) / math.log(1 + precision))) + 1


@given(st.integers(1, 3000), st.floats(0.1, 4000), st.sampled_from([0.001, 0.05]))
def test_of_whole_numbers_the_limit_itself_is_found_where_the_precision_asks_for_it(
    limit: int, first: float, precision: float
) -> None:
    found, tried = search(limit, first=first, precision=precision, whole=True)
    assert all(load == int(load) for load in tried)
    assert len(set(tried)) == len(tried)
    assert found.sustained <= limit < found.not_sustained
    assert found.not_sustained - found.sustained <= max(1, precision * found.sustained)


def test_nothing_below_the_least_and_nothing_above_the_most_is_tried() -> None:
    found, tried = search(0.5)
    assert (found, min(tried)) == (Bracket(0.0, 1.0), 1.0)
    found, tried = search(1e9)
    assert (found, max(tried)) == (Bracket(1e6, math.inf), 1e6)


def test_what_a_trial_of_a_load_raises_ends_the_search() -> None:
    with pytest.raises(ZeroDivisionError):
        highest(lambda load: 1 / 0 > 0, 1.0, 1.0, 2.0, 0.05)
