"""Timing, by a clock that moves only when the tests say so."""

from __future__ import annotations

import gc
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.contract import Inputs, LayerSize, Outputs, Split
from harness.engine.calls import Subject, Witness
from harness.engine.noise import Reading
from harness.engine.timing import (
    BOUNDARIES,
    DISTINCT_INPUTS,
    FEWEST_CALLS,
    KEPT_OUTPUTS,
    TREND_CALLS,
    TURN_CALLS,
    WARMUP_CALLS,
    FreshInputs,
    Sample,
    WarmUp,
    canary_subject,
    empty_subject,
    has_trend,
    repeat_ratios,
    sample,
    session_subject,
    trainer_subject,
    warm_up,
)

PREPARE_NS, RUN_NS, FETCH_NS = 100, 10_000, 1_000_000
UNIX_NS = 7_000_000_000  # what time it is when the turns begin
NOTHING: Callable[[], None] = lambda: None  # noqa: E731
LONG = 1e9


class Clock:
    """Nanoseconds that pass only by work; reading it takes no time."""

    def __init__(self) -> None:
        self.now = 5_000  # a clock need not start at zero

    def __call__(self) -> int:
        return self.now

    def pass_by(self, ns: int) -> None:
        self.now += ns


class Work:
    """A subject's functions: each takes a known time on the clock and is written down.

    Attributes:
        prepared: the items given to `prepare`, in order.
        calls: the stages called, in order.
        collecting: whether the garbage collector was on, at each stage.
        at_run: what else `run` does.
    """

    def __init__(
        self,
        clock: Clock,
        key: str = "a",
        run_ns: int = RUN_NS,
        items: int = 3,
        at_run: Callable[[], None] = NOTHING,
    ) -> None:
        self._clock, self._run_ns, self.at_run = clock, run_ns, at_run
        self.prepared: list[Any] = []
        self.calls: list[str] = []
        self.collecting: list[bool] = []
        make = itertools.cycle([f"{key}{k}" for k in range(items)]).__next__
        self.subject = Subject(key, make, self._prepare, self._run, self._fetch)

    def _stage(self, name: str, ns: int) -> None:
        self.calls.append(name)
        self.collecting.append(gc.isenabled())
        self._clock.now += ns

    def _prepare(self, item: Any) -> Any:
        self.prepared.append(item)
        self._stage("prepare", PREPARE_NS)
        return "prepared", item

    def _run(self, prepared: Any) -> Any:
        assert prepared == ("prepared", self.prepared[-1])
        self._stage("run", self._run_ns)
        self.at_run()
        return "raw", prepared

    def _fetch(self, raw: Any) -> Any:
        assert raw == ("raw", ("prepared", self.prepared[-1]))
        self._stage("fetch", FETCH_NS)
        return raw


def take(
    keys: str = "a", calls: int = 20, seconds: float = LONG, seed: int = 0
) -> tuple[list[Sample], dict[str, Work], Clock]:
    clock = Clock()
    works = {key: Work(clock, key, run_ns=RUN_NS * (k + 1)) for k, key in enumerate(keys)}
    return samples_of([work.subject for work in works.values()], calls, seconds, seed, clock), works, clock


def samples_of(subjects: Sequence[Subject], calls: int, seconds: float, seed: int, clock: Clock) -> list[Sample]:
    return sample(subjects, calls, seconds, seed, clock=clock)[0]


def turns(samples: list[Sample]) -> dict[int, list[tuple[str, str]]]:
    """For each block, the subjects and boundaries in the order of their turns."""
    order: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for (block, _), group in itertools.groupby(samples, lambda s: (s.block, s.turn)):
        (pair,) = {(s.key, s.boundary) for s in group}
        order[block].append(pair)
    return order


def counts(samples: list[Sample]) -> Counter[tuple[str, str]]:
    """How many calls of each subject and boundary count: all but the first of each turn."""
    return Counter((s.key, s.boundary) for s in samples if s.call > 0)


@pytest.fixture(autouse=True)
def _collections_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real collection takes a tenth of a second once torch is loaded, and there are thousands of blocks here."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _it_is_always_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engine.timing.time_ns", lambda: UNIX_NS)


# ------------------------------------------------------------------------------------------------- the boundaries


def test_the_compute_clock_times_the_run_alone() -> None:
    samples, _, _ = take("ab")
    for key, run_ns in (("a", RUN_NS), ("b", 2 * RUN_NS)):
        assert {s.elapsed_s for s in samples if (s.key, s.boundary) == (key, "compute")} == {run_ns / 1e9}


def test_the_end_to_end_clock_times_all_three() -> None:
    samples, _, _ = take("ab")
    for key, run_ns in (("a", RUN_NS), ("b", 2 * RUN_NS)):
        whole = (PREPARE_NS + run_ns + FETCH_NS) / 1e9
        assert {s.elapsed_s for s in samples if (s.key, s.boundary) == (key, "end-to-end")} == {whole}


def test_every_call_is_prepared_run_and_fetched_once_in_that_order_under_both_clocks() -> None:
    _, works, _ = take()
    calls = works["a"].calls
    assert calls == ["prepare", "run", "fetch"] * (len(calls) // 3)


def test_a_clock_that_stands_still_gives_zeros_and_not_an_error() -> None:
    clock = Clock()
    subject = Subject("a", lambda: 1, lambda x: x, lambda x: x, lambda x: x)
    assert {s.elapsed_s for s in samples_of([subject], 13, 0.0, 0, clock)} == {0.0}


# ------------------------------------------------------------------------------------------------- the order


@given(keys=st.integers(1, 5), calls=st.integers(1, 43), seed=st.integers(0, 1000))
def test_in_each_block_every_subject_and_boundary_has_one_turn(keys: int, calls: int, seed: int) -> None:
    samples, _, _ = take("abcde"[:keys], calls, seed=seed)
    everyone = sorted(itertools.product("abcde"[:keys], BOUNDARIES))
    order = turns(samples)
    assert list(order) == list(range(math.ceil(calls / TURN_CALLS)))
    for pairs in order.values():
        assert sorted(pairs) == everyone


def test_nobody_is_favoured_by_the_order() -> None:
    """In 400 blocks each of six turns comes first 67 times on average, and each before each other 200 times."""
    samples, _, _ = take("abc", calls=400 * TURN_CALLS)
    order = list(turns(samples).values())
    assert len(order) == 400
    first = Counter(pairs[0] for pairs in order)
    assert len(first) == 6
    assert 40 < min(first.values()) <= max(first.values()) < 100  # 4 standard deviations are 30
    for one, other in itertools.combinations(sorted(first), 2):
        assert 160 < sum(pairs.index(one) < pairs.index(other) for pairs in order) < 240  # 4 are 40


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    orders = [turns(take("abc", calls=50, seed=seed)[0]) for seed in (7, 7, 8)]
    assert orders[0] == orders[1] != orders[2]


def test_the_calls_of_a_turn_are_consecutive_and_numbered_and_one_more_than_count() -> None:
    samples, _, _ = take("ab", calls=13)
    for _, group in itertools.groupby(samples, lambda s: (s.block, s.turn)):
        turn = list(group)
        assert [s.call for s in turn] == list(range(len(turn)))
        assert len(turn) == 1 + (TURN_CALLS if turn[0].block < 2 else 3)


# ------------------------------------------------------------------------------------------------- how many


@given(calls=st.integers(1, 60))
def test_with_time_enough_everyone_has_exactly_the_calls_asked_for(calls: int) -> None:
    samples, _, _ = take("ab", calls)
    assert counts(samples) == dict.fromkeys(itertools.product("ab", BOUNDARIES), calls)


def test_the_first_call_of_a_turn_uses_up_neither_calls_nor_the_budget() -> None:
    clock = Clock()
    late: list[int] = []

    def is_slow_after_another() -> None:
        if not gc.isenabled() and len(late) % (1 + TURN_CALLS) == 0:
            clock.now += 1_000_000_000_000
        if not gc.isenabled():
            late.append(clock.now)

    work = Work(clock, run_ns=1_000_000_000, at_run=is_slow_after_another)
    samples = samples_of([work.subject], 1000, 20.0, 0, clock)
    assert {s.elapsed_s for s in samples if s.boundary == "compute" and s.call == 0} == {1001.0}
    assert {s.elapsed_s for s in samples if s.boundary == "compute" and s.call > 0} == {1.0}
    assert counts(samples) == dict.fromkeys(itertools.product("a", BOUNDARIES), 20)


@given(budget=st.integers(0, 60), calls=st.integers(1, 80))
def test_a_budget_ends_a_turn_that_has_at_least_ten_samples_and_its_time(budget: int, calls: int) -> None:
    clock = Clock()
    work = Work(clock, run_ns=1_000_000_000)
    samples = samples_of([work.subject], calls, float(budget), 0, clock)
    turns_needed = math.ceil(max(FEWEST_CALLS, budget) / TURN_CALLS)
    assert counts(samples)["a", "compute"] == min(calls, turns_needed * TURN_CALLS)


def test_no_time_at_all_still_gives_the_fewest_samples_that_mean_something() -> None:
    samples, _, _ = take("abc", calls=1000, seconds=0)
    assert len(counts(samples)) == 6
    assert set(counts(samples).values()) == {FEWEST_CALLS} == {10}


def test_the_budget_is_measured_time_and_not_the_time_of_others() -> None:
    """A slow subject does not use up a fast one's budget: the fast one goes on alone when the slow one has left."""
    clock = Clock()
    slow, fast = Work(clock, "slow", run_ns=1_000_000_000), Work(clock, "fast", run_ns=10_000_000)
    samples = samples_of([slow.subject, fast.subject], 1000, 1.0, 0, clock)
    taken = counts(samples)
    assert taken["slow", "compute"] == 10
    assert taken["fast", "compute"] == 100
    last = [s for s in samples if s.block >= 2]
    assert last
    assert {s.key for s in last} == {"fast"}


def test_nothing_to_time_gives_no_samples() -> None:
    assert sample([], 10, 1.0, 0, clock=Clock()) == ([], [], {})


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_boundary_that_is_not_asked_for_takes_no_turns(boundary: str) -> None:
    clock = Clock()
    works = [Work(clock, key) for key in "ab"]
    samples, _, _ = sample([work.subject for work in works], 20, LONG, 0, (boundary,), clock)
    assert counts(samples) == {("a", boundary): 20, ("b", boundary): 20}
    assert {s.turn for s in samples} == {0, 1}


def test_no_boundary_at_all_warms_up_and_times_nothing() -> None:
    clock = Clock()
    samples, warm_ups, _ = sample([Work(clock).subject], 20, LONG, 0, (), clock)
    assert (samples, len(warm_ups)) == ([], 1)


# ------------------------------------------------------------------------------------------------- the inputs


@given(items=st.integers(1, 9), calls=st.integers(1, 30))
def test_every_call_gets_the_next_input(items: int, calls: int) -> None:
    clock = Clock()
    work = Work(clock, items=items)
    samples_of([work.subject], calls, LONG, 3, clock)
    assert work.prepared == [f"a{k % items}" for k in range(len(work.prepared))]


# ------------------------------------------------------------------------------------------------- witnesses


class Echo:
    """A session on the clock of the tests: y is twice x, and what it was given is written down."""

    def __init__(self, clock: Clock, run_ns: Callable[[int], int] = lambda call: RUN_NS) -> None:
        self._clock, self._run_ns = clock, run_ns
        self.given: list[Inputs] = []
        self.y = np.zeros(0)

    def prepare(self, inputs: Inputs) -> Inputs:
        self.given.append(inputs)
        self._clock.now += PREPARE_NS
        return inputs

    def run(self, prepared: Inputs) -> Inputs:
        self._clock.now += self._run_ns(len(self.given) - 1)
        return prepared

    def fetch(self, raw: Inputs) -> Outputs:
        self._clock.now += FETCH_NS
        self.y.resize(raw.x.shape, refcheck=False)
        self.y[...] = 2 * raw.x  # every call writes to the same place
        return Outputs(self.y, (self.y,))

    def close(self) -> None:
        pass


def witness_of(echo: Echo, clock: Clock, calls: int = 20, seed: int = 0) -> Witness:
    subject = session_subject("a", echo, 2, 3, LayerSize(4, 5), "float64", seed)
    return sample([subject], calls, LONG, seed, clock=clock)[2]["a"]


@given(calls=st.integers(10, 40), seed=st.integers(0, 50))
def test_some_outputs_of_timed_calls_are_kept_with_their_own_inputs_whatever_is_written_later(
    calls: int, seed: int
) -> None:
    clock = Clock()
    witness = witness_of(Echo(clock), clock, calls, seed)
    assert len(BOUNDARIES) <= len(witness.kept) <= KEPT_OUTPUTS * len(BOUNDARIES)
    for before, after, outputs in witness.kept:
        assert before.x is not after.x
        np.testing.assert_array_equal(before.x, after.x)
        np.testing.assert_array_equal(outputs.y, 2 * before.x)


def test_which_outputs_are_kept_depends_on_the_seed_and_on_nothing_else() -> None:
    def places(seed: int) -> list[int]:
        clock = Clock()
        echo = Echo(clock)
        kept = witness_of(echo, clock, 40, seed).kept
        return [next(k for k, given in enumerate(echo.given) if given is after) for _, after, _ in kept]

    assert places(1) == places(1)
    assert len({tuple(places(seed)) for seed in range(10)}) > 5


def test_no_input_of_a_session_comes_twice_but_those_of_the_last_turn() -> None:
    clock = Clock()
    echo = Echo(clock)
    witness = witness_of(echo, clock, 40)
    contents = [given.x.tobytes() for given in echo.given[:-6]]
    assert len(set(contents)) == len(contents) == len({id(given) for given in echo.given[:-6]})
    assert len({id(given) for given in echo.given[-6:]}) == 1
    assert len(witness.repeated_s) == TURN_CALLS


def test_what_lies_around_the_calls_is_told_and_is_not_in_them() -> None:
    clock = Clock()
    witness = witness_of(Echo(clock), clock, 20)
    assert set(witness.around_s) == {(PREPARE_NS + FETCH_NS) / 1e9}
    assert len(witness.around_s) == 20


def test_a_session_that_remembers_is_fast_where_an_input_comes_again() -> None:
    clock = Clock()
    echo = Echo(clock)
    echo._run_ns = lambda call: 10 if any(echo.given[call] is given for given in echo.given[:call]) else RUN_NS
    assert set(witness_of(echo, clock).repeated_s) == {10 / 1e9}


def test_pairs_of_turns_tell_who_remembers_from_who_computes_and_say_nothing_where_no_time_passes() -> None:
    clock = Clock()

    def ratios(run_ns: Callable[[Echo, int], int]) -> list[float]:
        echo = Echo(clock)
        echo._run_ns = lambda call: run_ns(echo, call)
        return repeat_ratios(session_subject("a", echo, 2, 3, LayerSize(4, 5), "float64", 0), 3, clock)

    def remembered(echo: Echo, call: int) -> int:
        return 10 if any(echo.given[call] is given for given in echo.given[:call]) else RUN_NS

    assert ratios(lambda echo, call: RUN_NS) == [1.0] * 3
    assert ratios(remembered) == pytest.approx([10 / RUN_NS] * 3)
    assert ratios(lambda echo, call: 0) == []


def test_of_a_training_step_no_output_is_kept_and_no_batch_repeated() -> None:
    clock = Clock()
    work = Work(clock)
    witness = sample([work.subject], 20, LONG, 0, clock=clock)[2]["a"]
    assert (witness.kept, witness.repeated_s) == ([], [])


# ------------------------------------------------------------------------------------------------- warming up


def warmed(run_ns: Callable[[int], int], seconds: float = LONG) -> tuple[int, bool]:
    """How many calls, and is it steady, where call k (from 0) runs this long."""
    clock = Clock()
    work = Work(clock, run_ns=0)
    work.at_run = lambda: clock.pass_by(run_ns(len(work.prepared) - 1))
    found = warm_up(work.subject, seconds, clock)
    assert found.key == "a"
    assert work.calls == ["prepare", "run", "fetch"] * found.calls
    return found.calls, found.is_steady


def test_what_is_steady_from_the_start_is_warm_after_ten_calls() -> None:
    assert warmed(lambda k: RUN_NS) == (TREND_CALLS, True) == (10, True)


@given(late=st.integers(0, 9), factor=st.sampled_from([0.01, 0.5, 2.0, 1000.0]))
def test_one_call_unlike_the_others_does_not_keep_a_subject_from_being_steady(late: int, factor: float) -> None:
    assert warmed(lambda k: round(factor * RUN_NS) if k == late else RUN_NS) == (10, True)


@given(settling=st.integers(0, 120), step=st.sampled_from([-50, 50]))
def test_warming_up_ends_with_the_first_ten_calls_that_neither_fall_nor_rise(settling: int, step: int) -> None:
    """Of ten calls at least eight must be alike: the pairs of seven or fewer leave 24 of 45 that go one way."""
    calls = max(10, 5 * math.ceil((settling + 8) / 5))
    expected = (calls, True) if calls <= 100 else (100, False)
    assert warmed(lambda k: RUN_NS + step * (min(k, settling) - settling)) == expected


@pytest.mark.parametrize("step", [-50, 50])
def test_what_never_settles_is_given_up_after_a_hundred_calls_and_says_so(step: int) -> None:
    assert warmed(lambda k: RUN_NS + step * k) == (WARMUP_CALLS[1], False) == (100, False)


@given(calls=st.integers(10, 100))
def test_what_has_not_settled_in_the_time_that_measuring_may_take_is_given_up_and_says_so(calls: int) -> None:
    assert warmed(lambda k: 1_000_000_000 - k, seconds=calls - 0.5) == (calls, False)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 300.0])
def test_warming_up_takes_ten_calls_however_slow_for_fewer_would_not_show_a_trend(seconds: float) -> None:
    assert warmed(lambda k: 60_000_000_000, seconds) == (WARMUP_CALLS[0], True) == (10, True)
    assert warmed(lambda k: 60_000_000_000 - k, seconds) == (10, False)


def test_a_call_that_uses_up_the_time_may_still_be_the_one_that_finds_it_steady() -> None:
    def settles_after_the_seventh(k: int) -> int:
        return 1_000_000_000 + max(0, 7 - k)

    assert warmed(settles_after_the_seventh, seconds=14.5) == (15, True)
    assert warmed(settles_after_the_seventh, seconds=13.5) == (14, False)


def test_how_everyone_was_warmed_up_is_told_in_their_order() -> None:
    clock = Clock()
    restless = Work(clock, "b")
    restless.at_run = lambda: clock.pass_by(50 * len(restless.prepared))
    subjects = [Work(clock, "c").subject, restless.subject, Work(clock, "a").subject]
    _, warm_ups, _ = sample(subjects, 1, LONG, 0, clock=clock)
    assert warm_ups == [WarmUp("c", 10, True), WarmUp("b", 100, False), WarmUp("a", 10, True)]


TEN = st.lists(st.integers(-5, 5), min_size=10, max_size=10)


@given(order=st.permutations(range(10)))
def test_there_is_a_trend_where_kendalls_exact_test_finds_one(order: list[int]) -> None:
    assert has_trend(order) == (scipy_stats.kendalltau(range(10), order, method="exact").pvalue <= 0.05)


@given(values=TEN)
def test_of_ten_values_some_equal_at_least_23_pairs_more_must_go_one_way_than_the_other(values: list[int]) -> None:
    pairs = list(itertools.combinations(values, 2))
    score = sum(a < b for a, b in pairs) - sum(a > b for a, b in pairs)
    assert has_trend(values) == (abs(score) >= 23)


@given(values=TEN)
def test_only_the_order_of_the_values_matters_and_not_which_way_it_goes(values: list[int]) -> None:
    found = has_trend(values)
    assert has_trend([1e-6 * math.exp(value) for value in values]) == found
    assert has_trend([10**12 + value for value in values]) == found
    assert has_trend(values[::-1]) == found
    assert has_trend([-value for value in values]) == found


@given(count=st.integers(5, 40), first=st.integers(-100, 100), step=st.sampled_from([-7, -1, 1, 7]))
def test_a_steady_rise_or_fall_of_five_values_or_more_is_a_trend(count: int, first: int, step: int) -> None:
    assert has_trend([first + step * k for k in range(count)])


@given(count=st.integers(0, 40), at=st.integers(0, 39), size=st.sampled_from([0, 1, -1, 10**9]))
def test_what_is_constant_but_for_one_value_has_no_trend(count: int, at: int, size: int) -> None:
    assert not has_trend([5 + size * (k == at) for k in range(count)])


@pytest.mark.parametrize("count", range(5))
def test_fewer_than_five_values_never_show_a_trend(count: int) -> None:
    assert not has_trend(range(count))


def test_values_that_swing_have_no_trend() -> None:
    assert not has_trend([1, 2] * 5)
    assert not has_trend([1, 5, 2, 4, 3, 3, 4, 2, 5, 1])


def test_everyone_is_warm_before_anyone_is_timed() -> None:
    clock = Clock()
    log: list[str] = []
    works = [Work(clock, key, at_run=lambda key=key: log.append(key)) for key in "abc"]  # type: ignore[misc]
    samples = samples_of([work.subject for work in works], 2, 0.0, 0, clock)
    assert log[: len(log) - len(samples)] == ["a"] * 10 + ["b"] * 10 + ["c"] * 10


def test_the_warm_up_meets_the_inputs_that_will_be_timed() -> None:
    _, works, _ = take(calls=1, seconds=0)
    assert works["a"].prepared[:5] == ["a0", "a1", "a2", "a0", "a1"]


# ------------------------------------------------------------------------------------------------- garbage


def test_garbage_is_never_collected_while_a_clock_runs() -> None:
    samples, works, _ = take("a", calls=23)
    assert not any(works["a"].collecting[-3 * len(samples) :])
    assert gc.isenabled()


def test_garbage_is_collected_before_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(), list[str]()
    work = Work(clock, at_run=lambda: log.append("run"))
    monkeypatch.setattr(gc, "collect", lambda *_: log.append("collect"))
    samples = samples_of([work.subject], 12, LONG, 0, clock)
    timed = log[log.index("collect") :]
    assert timed == ["collect"] + ["run"] * 12 + ["collect"] + ["run"] * 12 + ["collect"] + ["run"] * 6
    assert timed.count("run") == len(samples)


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    take(calls=1)
    assert not gc.isenabled()


def test_the_collector_is_on_again_after_a_failure() -> None:
    clock = Clock()
    work: Work

    def fail_when_timed() -> None:
        if not gc.isenabled():
            raise RuntimeError("out of memory")

    work = Work(clock, at_run=fail_when_timed)
    with pytest.raises(RuntimeError, match="out of memory"):
        samples_of([work.subject], 20, LONG, 0, clock)
    assert not work.collecting[-1]
    assert gc.isenabled()


def test_what_is_there_by_the_first_turn_is_frozen_while_others_take_theirs_and_thawed_afterwards() -> None:
    clock, frozen = Clock(), list[int]()
    work = Work(clock, at_run=lambda: frozen.append(gc.get_freeze_count()))
    samples = samples_of([work.subject], 12, LONG, 0, clock)
    assert set(frozen[: -len(samples)]) == {0}
    assert min(frozen[-len(samples) :]) > 0
    assert gc.get_freeze_count() == 0


# ------------------------------------------------------------------------------------------------- disturbances


class Machine:
    """A machine that takes cores away when the tests say so; it stands in for `noise.Disturbance`.

    Attributes:
        switches, delay_ns: the counters, None for what cannot be read.
        at_read: what happens before the counters are read.
        reads: how often they were.
        closed: how often it was closed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, switches: int | None = 0, delay_ns: int | None = 0) -> None:
        self.switches, self.delay_ns = switches, delay_ns
        self.at_read = NOTHING
        self.reads = self.closed = 0
        monkeypatch.setattr("harness.engine.timing.Disturbance", lambda: self)

    def read(self) -> Reading:
        self.at_read()
        self.reads += 1
        return Reading(self.switches, self.delay_ns)

    def take_a_core(self) -> None:
        assert self.switches is not None
        self.switches += 1

    def keep_waiting(self, ns: int) -> None:
        assert self.delay_ns is not None
        self.delay_ns += ns

    def close(self) -> None:
        self.closed += 1


def marks(samples: list[Sample]) -> list[set[bool | None]]:
    """The marks of each turn, in order."""
    return [{s.disturbed for s in turn} for _, turn in itertools.groupby(samples, lambda s: (s.block, s.turn))]


@given(hit=st.sets(st.integers(0, 15)), call=st.integers(0, TURN_CALLS))
def test_a_turn_that_loses_its_core_in_any_of_its_calls_is_marked_whole_and_no_other(hit: set[int], call: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine, clock, done = Machine(monkeypatch), Clock(), list[int]()

        def run() -> None:
            if not gc.isenabled():
                turn, place = divmod(len(done), 1 + TURN_CALLS)
                done.append(turn)
                if turn in hit and place == call:
                    machine.take_a_core()

        works = [Work(clock, key, at_run=run) for key in "ab"]
        samples = samples_of([work.subject for work in works], 20, LONG, 0, clock)
        assert marks(samples) == [{turn in hit} for turn in range(16)]
        assert set(counts(samples).values()) == {20}  # and what was disturbed is still there


@given(hit=st.sets(st.integers(0, 1 + TURN_CALLS)))
def test_where_caches_are_emptied_a_call_that_loses_its_core_is_marked_alone_and_emptying_marks_none(
    hit: set[int],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine, clock, calls = Machine(monkeypatch), Clock(), list[bool]()

        def run() -> None:
            if not gc.isenabled():
                calls.append(len(calls) % (1 + TURN_CALLS) in hit)
                if calls[-1]:
                    machine.take_a_core()

        subject = replace(Work(clock, "a", at_run=run).subject, evict=machine.take_a_core)
        samples = samples_of([subject], 20, LONG, 0, clock)
        assert [s.disturbed for s in samples] == calls
        assert len(calls) == 8 * (1 + TURN_CALLS)


TURN_NS = (1 + TURN_CALLS) * (PREPARE_NS + 1_000_000_000 + FETCH_NS)


@pytest.mark.parametrize(("wait", "is_disturbed"), [(0, False), (TURN_NS // 100, False), (TURN_NS // 100 + 1, True)])
def test_a_turn_that_waits_longer_than_a_hundredth_of_it_for_a_core_is_marked(
    monkeypatch: pytest.MonkeyPatch, wait: int, is_disturbed: bool
) -> None:
    machine, clock = Machine(monkeypatch), Clock()
    machine.at_read = lambda: machine.keep_waiting(wait * (machine.reads % 2))  # at the end of each turn
    work = Work(clock, run_ns=1_000_000_000)
    samples = samples_of([work.subject], 10, LONG, 0, clock)
    assert marks(samples) == [{is_disturbed}] * 4


def test_what_happens_between_turns_disturbs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.at_read = lambda: machine.take_a_core() if machine.reads % 2 == 0 else None
    samples, _, _ = take("ab")
    assert set(itertools.chain(*marks(samples))) == {False}
    assert machine.switches == len(marks(samples)) == machine.reads / 2


def test_a_machine_that_tells_nothing_leaves_the_marks_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, None, None)
    samples, _, _ = take("ab")
    assert set(itertools.chain(*marks(samples))) == {None}


def test_what_reads_the_machine_is_closed_at_the_end_and_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, clock = Machine(monkeypatch), Clock()
    samples_of([Work(clock).subject], 5, LONG, 0, clock)
    assert machine.closed == 1
    work = Work(clock)
    work.at_run = lambda: None if gc.isenabled() else work.calls.remove("not there")
    with pytest.raises(ValueError, match="not in list"):
        samples_of([work.subject], 5, LONG, 0, clock)
    assert machine.closed == 2
    assert gc.get_freeze_count() == 0


# ------------------------------------------------------------------------------------------------- the records


@given(keys=st.integers(1, 4), calls=st.integers(1, 30), seed=st.integers(0, 100))
def test_samples_follow_each_other_in_time_block_and_turn(keys: int, calls: int, seed: int) -> None:
    samples, _, clock = take("abcd"[:keys], calls, seed=seed)
    for one, other in itertools.pairwise(samples):
        assert (one.block, one.turn, one.call) < (other.block, other.turn, other.call)
        assert one.start_s + one.elapsed_s <= other.start_s + 1e-12
    assert {s.turn for s in samples} == set(range(2 * keys))
    assert samples[0].start_s in (UNIX_NS / 1e9, (UNIX_NS + PREPARE_NS) / 1e9)  # Unix time, and not the clock's own
    warm_ups = keys * 10 * (PREPARE_NS + FETCH_NS) + 10 * RUN_NS * keys * (keys + 1) // 2
    end = samples[-1].start_s + samples[-1].elapsed_s
    assert end <= (UNIX_NS + clock.now - 5_000 - warm_ups) / 1e9 + 1e-12


# ------------------------------------------------------------------------------------------------- the subjects


class Recorder:
    """A session that keeps what it is given."""

    def prepare(self, inputs: Inputs) -> Any:
        return inputs

    def run(self, prepared: Any) -> Any:
        return prepared

    def fetch(self, raw: Any) -> Outputs:
        return Outputs(raw.x, (raw.x,))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_session_is_timed_over_distinct_inputs_without_state_or_lengths(dtype: str) -> None:
    subject = session_subject("a", Recorder(), 2, 3, LayerSize(4, 5), dtype, seed=1)
    assert subject.key == "a"
    items = [subject.make() for _ in range(DISTINCT_INPUTS)]
    assert len({item.x.tobytes() for item in items}) == DISTINCT_INPUTS
    for item in items:
        assert item.x.shape == (2, 3, 4)
        assert item.x.dtype == dtype
        assert item.state is None
        assert item.lengths is None
        assert item.x.flags.c_contiguous
        assert item.x.flags.owndata
    values = np.array([item.x[0, 0, 0] for item in items])
    assert abs(values.mean()) < 4 / math.sqrt(values.size)
    assert abs(values.std() - 1) < 4 / math.sqrt(2 * values.size)


def test_inputs_follow_the_seed_and_no_two_subjects_get_the_same() -> None:
    def inputs(key: str, seed: int, dtype: str = "float32") -> set[bytes]:
        subject = session_subject(key, Recorder(), 2, 3, LayerSize(4, 5), dtype, seed)
        return {subject.make().x.astype("float32").tobytes() for _ in range(20)}

    assert inputs("a", 1) == inputs("a", 1) == inputs("a", 1, "float64")
    assert not inputs("a", 1) & inputs("b", 1)
    assert not inputs("a", 1) & inputs("a", 2)


def test_when_a_pool_is_used_up_the_inputs_are_new_all_the_same() -> None:
    make = FreshInputs("a", (1, 2, 3), "float32", seed=1)
    assert len({make().x.tobytes() for _ in range(2 * DISTINCT_INPUTS)}) == 2 * DISTINCT_INPUTS


def test_what_is_no_array_is_kept_as_it_is_so_that_nobody_computes_it_for_the_session() -> None:
    class Later:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("nobody asks for it")

    class Lazy(Recorder):
        def fetch(self, raw: Any) -> Outputs:
            later: Any = Later()
            return Outputs(later, (later,))

    subject = session_subject("a", Lazy(), 2, 3, LayerSize(4, 5), "float32", 1)
    witness = sample([subject], 10, LONG, 0, clock=Clock())[2]["a"]
    assert witness.kept
    assert all(isinstance(outputs.y, Later) for _, _, outputs in witness.kept)


def test_a_training_step_is_timed_from_its_batch_to_its_loss() -> None:
    class Trainer:
        def prepare(self, batch: Split) -> Any:
            return batch

        def step(self, prepared: Any) -> float:
            return float(prepared.x[0, 0, 0])

        def weights(self) -> dict[str, Any]:
            raise AssertionError("nothing is fetched")

    batches = [Split(np.full((1, 1, 1), k), np.zeros(1)) for k in (3.0, 4.0)]
    subject = trainer_subject("a", Trainer(), batches)
    assert [subject.fetch(subject.run(subject.prepare(subject.make()))) for _ in range(3)] == [3.0, 4.0, 3.0]
    assert counts(samples_of([subject], 3, LONG, 0, Clock())) == dict.fromkeys(itertools.product("a", BOUNDARIES), 3)


def test_a_call_that_does_nothing_takes_what_reading_the_clock_takes() -> None:
    class Ticking(Clock):
        def __call__(self) -> int:
            self.now += 40
            return self.now

    samples = samples_of([empty_subject("empty")], 20, LONG, 0, Ticking())
    assert counts(samples) == dict.fromkeys(itertools.product(["empty"], BOUNDARIES), 20)
    assert {s.elapsed_s for s in samples} == {40 / 1e9}


def test_every_call_of_the_canary_does_the_same_work_and_allocates_nothing_while_it_runs() -> None:
    canary = canary_subject("canary")
    assert canary.key == "canary"
    start = canary.make()
    kept = start.copy()
    results = []
    for _ in range(3):
        prepared = canary.prepare(start)
        assert canary.run(prepared) is prepared
        results.append(canary.fetch(prepared).tobytes())
    assert len(set(results)) == 1
    assert results[0] != kept.tobytes() == start.tobytes()
    assert canary_subject("other").make().tobytes() == kept.tobytes()
