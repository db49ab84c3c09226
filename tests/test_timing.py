"""Timing, by a clock that moves only when the tests say so."""

from __future__ import annotations

import gc
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract import Inputs, LayerSize, Outputs, Split
from harness.engine.timing import (
    BOUNDARIES,
    DISTINCT_INPUTS,
    FEWEST_CALLS,
    TURN_CALLS,
    WARMUP_CALLS,
    Sample,
    Subject,
    sample,
    session_subject,
    trainer_subject,
)

PREPARE_NS, RUN_NS, FETCH_NS = 100, 10_000, 1_000_000
NOTHING: Callable[[], None] = lambda: None  # noqa: E731
LONG = 1e9


class Clock:
    """Nanoseconds that pass only by `work`; reading it takes no time."""

    def __init__(self) -> None:
        self.now = 5_000  # a clock need not start at zero

    def __call__(self) -> int:
        return self.now


class Work:
    """A subject's functions: each takes a known time on the clock and is written down.

    Attributes:
        prepared: the items given to `prepare`, in order.
        calls: the stages called, in order.
        collecting: whether the garbage collector was on, at each stage.
    """

    def __init__(
        self,
        clock: Clock,
        key: str = "a",
        run_ns: int = RUN_NS,
        items: int = 3,
        at_run: Callable[[], None] = NOTHING,
    ) -> None:
        self._clock, self._run_ns, self._at_run = clock, run_ns, at_run
        self.prepared: list[Any] = []
        self.calls: list[str] = []
        self.collecting: list[bool] = []
        self.subject = Subject(key, self._prepare, self._run, self._fetch, [f"{key}{k}" for k in range(items)])

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
        self._at_run()
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
    return sample([work.subject for work in works.values()], calls, seconds, seed, clock), works, clock


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
    subject = Subject("a", lambda x: x, lambda x: x, lambda x: x, [1])
    assert {s.elapsed_s for s in sample([subject], 13, 0.0, 0, clock)} == {0.0}


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
    samples = sample([work.subject], 1000, 20.0, 0, clock)
    assert {s.elapsed_s for s in samples if s.boundary == "compute" and s.call == 0} == {1001.0}
    assert {s.elapsed_s for s in samples if s.boundary == "compute" and s.call > 0} == {1.0}
    assert counts(samples) == dict.fromkeys(itertools.product("a", BOUNDARIES), 20)


@given(budget=st.integers(0, 60), calls=st.integers(1, 80))
def test_a_budget_ends_a_turn_that_has_at_least_twelve_samples_and_its_time(budget: int, calls: int) -> None:
    clock = Clock()
    work = Work(clock, run_ns=1_000_000_000)
    samples = sample([work.subject], calls, float(budget), 0, clock)
    turns_needed = math.ceil(max(FEWEST_CALLS, budget) / TURN_CALLS)
    assert counts(samples)["a", "compute"] == min(calls, turns_needed * TURN_CALLS)


def test_no_time_at_all_still_gives_the_fewest_samples_that_mean_something() -> None:
    samples, _, _ = take("abc", calls=1000, seconds=0)
    assert len(counts(samples)) == 6
    assert min(counts(samples).values()) >= 12


def test_the_budget_is_measured_time_and_not_the_time_of_others() -> None:
    """A slow subject does not use up a fast one's budget: the fast one goes on alone when the slow one has left."""
    clock = Clock()
    slow, fast = Work(clock, "slow", run_ns=1_000_000_000), Work(clock, "fast", run_ns=10_000_000)
    samples = sample([slow.subject, fast.subject], 1000, 1.0, 0, clock)
    taken = counts(samples)
    assert taken["slow", "compute"] == 15
    assert taken["fast", "compute"] == 100
    last = [s for s in samples if s.block >= 3]
    assert last
    assert {s.key for s in last} == {"fast"}


def test_nothing_to_time_gives_no_samples() -> None:
    assert sample([], 10, 1.0, 0, Clock()) == []


# ------------------------------------------------------------------------------------------------- the inputs


@given(items=st.integers(1, 9), calls=st.integers(1, 30))
def test_the_calls_cycle_through_all_inputs_from_the_first(items: int, calls: int) -> None:
    clock = Clock()
    work = Work(clock, items=items)
    samples = sample([work.subject], calls, LONG, 3, clock)
    timed = work.prepared[-len(samples) :]
    assert timed == [f"a{k % items}" for k in range(len(samples))]


@given(keys=st.integers(1, 5), seed=st.integers(0, 100))
def test_every_subject_and_boundary_is_counted_on_every_input(keys: int, seed: int) -> None:
    clock = Clock()
    works = {key: Work(clock, key, items=DISTINCT_INPUTS) for key in "abcde"[:keys]}
    samples = sample([work.subject for work in works.values()], 140, LONG, seed, clock)
    timed = {key: work.prepared[WARMUP_CALLS[1] :] for key, work in works.items()}
    for key, boundary in itertools.product(works, BOUNDARIES):
        own = [s for s in samples if s.key == key]
        met = zip(timed[key], own, strict=True)
        assert len({item for item, s in met if s.boundary == boundary and s.call > 0}) == DISTINCT_INPUTS


# ------------------------------------------------------------------------------------------------- warming up


def warm_up_calls(seconds: float, run_ns: int) -> int:
    clock = Clock()
    work = Work(clock, run_ns=run_ns - PREPARE_NS - FETCH_NS)
    samples = sample([work.subject], 1, seconds, 0, clock)
    return work.calls.count("run") - len(samples)


def test_warming_up_takes_at_least_five_calls_however_slow() -> None:
    assert warm_up_calls(seconds=0, run_ns=60_000_000_000) == WARMUP_CALLS[0] == 5


def test_warming_up_takes_at_most_a_hundred_calls_however_fast() -> None:
    assert warm_up_calls(seconds=LONG, run_ns=2_000_000) == WARMUP_CALLS[1] == 100


@given(calls=st.integers(5, 100))
def test_warming_up_takes_a_quarter_of_the_measuring_time(calls: int) -> None:
    assert warm_up_calls(seconds=4 * (calls - 0.5) * 0.002, run_ns=2_000_000) == calls


def test_everyone_is_warm_before_anyone_is_timed() -> None:
    clock = Clock()
    log: list[str] = []
    works = [Work(clock, key, at_run=lambda key=key: log.append(key)) for key in "abc"]  # type: ignore[misc]
    samples = sample([work.subject for work in works], 2, 0.0, 0, clock)
    assert log[: len(log) - len(samples)] == ["a"] * 5 + ["b"] * 5 + ["c"] * 5


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
    samples = sample([work.subject], 12, LONG, 0, clock)
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
        sample([work.subject], 20, LONG, 0, clock)
    assert not work.collecting[-1]
    assert gc.isenabled()


# ------------------------------------------------------------------------------------------------- the records


@given(keys=st.integers(1, 4), calls=st.integers(1, 30), seed=st.integers(0, 100))
def test_samples_follow_each_other_in_time_block_and_turn(keys: int, calls: int, seed: int) -> None:
    samples, _, clock = take("abcd"[:keys], calls, seed=seed)
    for one, other in itertools.pairwise(samples):
        assert (one.block, one.turn, one.call) < (other.block, other.turn, other.call)
        assert one.start_s + one.elapsed_s <= other.start_s + 1e-12
    assert {s.turn for s in samples} == set(range(2 * keys))
    assert samples[0].start_s in (0.0, PREPARE_NS / 1e9)  # since sampling began, not since the clock or the warm-up
    end = samples[-1].start_s + samples[-1].elapsed_s
    assert end <= (clock.now - 5_000) / 1e9


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
    assert len(subject.inputs) == DISTINCT_INPUTS == len({item.x.tobytes() for item in subject.inputs})
    for item in subject.inputs:
        assert item.x.shape == (2, 3, 4)
        assert item.x.dtype == dtype
        assert item.state is None
        assert item.lengths is None
    values = np.concatenate([item.x.ravel() for item in subject.inputs])
    assert abs(values.mean()) < 4 / math.sqrt(values.size)
    assert abs(values.std() - 1) < 4 / math.sqrt(2 * values.size)


def test_all_variants_are_timed_on_the_same_inputs_of_a_shape() -> None:
    def inputs(key: str, seed: int, dtype: str = "float32") -> list[bytes]:
        subject = session_subject(key, Recorder(), 2, 3, LayerSize(4, 5), dtype, seed)
        return [item.x.astype("float32").tobytes() for item in subject.inputs]

    assert inputs("a", 1) == inputs("b", 1) == inputs("a", 1, "float64")
    assert inputs("a", 1) != inputs("a", 2)


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
    assert list(subject.inputs) == batches
    assert [subject.fetch(subject.run(subject.prepare(batch))) for batch in subject.inputs] == [3.0, 4.0]
    assert counts(sample([subject], 3, LONG, 0, Clock())) == dict.fromkeys(itertools.product("a", BOUNDARIES), 3)
