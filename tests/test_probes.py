"""Probes: which load is sustained, which cannot be judged, and which is the highest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.probes import GENERATOR_SHARE, Bracket, Probe, confirmed, highest, judged
from harness.estimates import NOT_SUSTAINED, REFUSED, SUSTAINED

# ------------------------------------------------------------------------------------------------- judging


def confirming(latencies_s: list[float]) -> Probe:
    """A confirmation of which these latencies are judged."""
    filling = [9.0] * (len(latencies_s) // 4)
    return judged([*filling, *latencies_s], [], 10, 1.0, bound_s=0.05, is_confirmation=True)


def test_a_server_is_confirmed_if_p99_is_under_the_bound_with_confidence() -> None:
    """Of 2,000 requests p99 is surely under the ninth largest, so eight may be over; 20 are over p99 itself."""
    fast, slow = [0.01] * 1992, [0.09] * 8
    assert confirming([*fast, *slow]).verdict == SUSTAINED
    probe = confirming([*fast[:-1], *slow, 0.09])
    assert (probe.p99_s, probe.p99_bound_s, probe.misses, probe.verdict) == (0.01, 0.09, 9, NOT_SUSTAINED)


def test_while_it_is_searched_p99_itself_decides_or_few_requests_would_end_the_search_too_low() -> None:
    assert judged([0.01] * 1985 + [0.09] * 15, [], 2000, 1.0, bound_s=0.05).verdict == SUSTAINED
    assert judged([0.01] * 1975 + [0.09] * 25, [], 2000, 1.0, bound_s=0.05).verdict == NOT_SUSTAINED


def test_too_few_requests_confirm_nothing_for_there_is_no_bound() -> None:
    probe = confirming([0.01] * 661)
    assert (probe.judged, probe.p99_bound_s, probe.verdict) == (661, None, NOT_SUSTAINED)
    probe = confirming([0.01] * 662)
    assert (probe.judged, probe.verdict) == (662, SUSTAINED)


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


def test_who_works_longer_than_the_requests_stand_for_sustains_nothing() -> None:
    assert judged([0.01] * 700, [], 700, 1.0, bound_s=0.05, offered_s=1.0).verdict == SUSTAINED
    assert judged([0.01] * 700, [], 700, 1.001, bound_s=0.05, offered_s=1.0).verdict == NOT_SUSTAINED
    streams = judged([0.01] * 700, [], 700, 1.001, bound_s=0.05, miss_share=0.01, offered_s=1.0)
    assert streams.verdict == NOT_SUSTAINED


def test_streams_whose_latencies_grow_are_not_sustained_though_no_chunk_is_late_yet() -> None:
    grown = [0.01 + 0.0004 * place for place in range(100)]  # by 32 ms from fifth to fifth
    assert max(grown) < 0.1
    probe = judged(grown, [], 100, 1.0, bound_s=0.1, miss_share=0.01)
    assert probe.verdict == NOT_SUSTAINED
    assert probe.growth_s == pytest.approx(0.032)
    assert judged(grown[::-1], [], 100, 1.0, bound_s=0.1, miss_share=0.01).verdict == SUSTAINED


def test_while_the_queue_of_a_confirmation_fills_it_is_not_judged() -> None:
    latencies = [0.09] * 200 + [0.01] * 800
    probe = judged(latencies, [], 500, 1.0, bound_s=0.05, is_confirmation=True)
    assert (probe.requests, probe.judged, probe.misses, probe.mean_batch) == (1000, 800, 0, 2.0)
    assert probe.verdict == SUSTAINED
    assert judged(latencies, [], 500, 1.0, bound_s=0.05).verdict == NOT_SUSTAINED


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


# ------------------------------------------------------------------------------------------------- confirming


def test_what_is_not_confirmed_is_lowered_by_the_precision_until_it_is() -> None:
    tried: list[float] = []

    def sustains(load: float) -> bool:
        tried.append(load)
        return load <= 90.0

    assert confirmed(sustains, 100.0, 1.0, 0.1, times=8) == pytest.approx(100 / 1.1**2)
    assert tried == pytest.approx([100.0, 100 / 1.1, 100 / 1.1**2])


@pytest.mark.parametrize(("load", "least", "times", "tries"), [(0.0, 1.0, 8, 0), (1.05, 1.0, 8, 2), (100.0, 1.0, 3, 3)])
def test_nothing_is_confirmed_where_nothing_was_found_or_all_that_may_be_tried_fails(
    load: float, least: float, times: int, tries: int
) -> None:
    tried: list[float] = []

    def sustains(load: float) -> bool:
        tried.append(load)
        return False

    assert confirmed(sustains, load, least, 0.1, times) == 0.0
    assert len(tried) == tries
