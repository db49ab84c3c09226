"""A clock for another tool's loop, and variants that are proved in the process that asks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest
import threadpoolctl  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from strangers import QUICK, World

from harness import LayerSize, SessionOptions, Unsupported
from harness.engine import audit, in_process, timing
from harness.engine.calls import Call, Clock, Subject, Witness
from harness.engine.in_process import BLOCK_CALLS, CALLS_BEFORE_COUNTED, Calls, InProcess, OpenVariant, Windows, Wrong
from harness.engine.survey import survey
from harness.engine.worker import Worker
from harness.plan import make_plan
from harness.suite import parse_suite


class Ticking:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path / "plugins", monkeypatch)
    wrong = {"forgetful": "ignores its state", "late": "is wrong later", "rash": "trains wrongly", "lost": "diverges"}
    found.add_plain(plain_lstm="", sleepy="refuses", **wrong)
    return found


def opened(
    tmp_path: Path, model: str, scenario: str = "single-stream"
) -> tuple[InProcess, AbstractContextManager[OpenVariant]]:
    catalog = survey()
    plan = make_plan(parse_suite(QUICK, "suite"), catalog)
    (trial,) = (t for t in plan.of("latency") if (t.variant.model, t.scenario) == (model, scenario))
    worker = InProcess(plan, catalog, tmp_path, None)
    return worker, worker.opened(trial)


# -------------------------------------------------------------------------------------------------------- the clock


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.booleans()), max_size=30))
def test_between_two_readings_only_windows_count_and_where_there_was_none_all_time(
    steps: list[tuple[int, int, bool]],
) -> None:
    clock = Ticking()
    windows = Windows(clock)
    before = windows.seconds()
    for around_ns, window_ns, is_timed in steps:
        clock.now_ns += around_ns + window_ns
        if is_timed:
            windows.add(window_ns)
        reading = windows.seconds()
        assert reading - before == pytest.approx((window_ns if is_timed else around_ns + window_ns) / 1e9, abs=1e-12)
        before = reading


def test_several_windows_between_two_readings_add_up() -> None:
    clock = Ticking()
    windows = Windows(clock)
    for elapsed_ns in (3, 4, 5):
        clock.now_ns += 100
        windows.add(elapsed_ns)
    assert windows.seconds() == pytest.approx(12e-9)


def test_a_window_in_which_no_time_passed_is_no_time_that_passed() -> None:
    clock = Ticking()
    windows = Windows(clock)
    clock.now_ns += 100
    windows.add(0)
    assert windows.seconds() == 0


# ------------------------------------------------------------------------------------------------- what a loop calls


class Counting(Windows):
    """Says in a record of what happened when a call was counted."""

    def __init__(self, happened: list[str]) -> None:
        super().__init__()
        self._happened = happened

    def add(self, elapsed_ns: int) -> None:
        super().add(elapsed_ns)
        self._happened[-1] = f"counted {self._happened[-1]}"


def subject_that(run: Callable[[Any], Any], is_session: bool = False) -> Subject:
    return Subject("own", object, lambda item: item, run, lambda raw: raw, is_session)


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Everything that is timed, and when garbage is collected."""
    happened: list[str] = []

    def timed(subject: Any, boundary: str, is_kept: bool, witness: Witness, clock: Clock) -> Any:
        assert (boundary, clock) == ("compute", perf_counter_ns)
        happened.append("kept" if is_kept else "call")
        return Call(0, 1, 1, 1, None)

    def collecting(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            happened.append("collects")

    monkeypatch.setattr(in_process, "timed_call", timed)
    with timing.no_garbage_collection():
        gc.callbacks.append(collecting)
        try:
            yield happened
        finally:
            gc.callbacks.remove(collecting)
            gc.unfreeze()


def test_before_the_first_counted_call_garbage_is_collected_outputs_are_kept_and_calls_are_made_that_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with recorded(monkeypatch) as happened:
        call = Calls(subject_that(id, is_session=True), Counting(happened), is_timed=True)
        call()
        call()
    before = ["call"] * CALLS_BEFORE_COUNTED
    assert CALLS_BEFORE_COUNTED > 0
    assert happened == ["collects", "kept", *before, "counted call", "kept", *before, "counted call"]
    assert len(call.elapsed_ns) == len(call.witness.around_s) == 2


def test_no_counted_call_is_kept_and_none_comes_right_after_one_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 2 * BLOCK_CALLS + 1
    with recorded(monkeypatch) as happened:
        loop_of(calls)(Calls(subject_that(id, is_session=True), Counting(happened), is_timed=True))
    assert happened.count("counted call") == calls
    assert "counted kept" not in happened
    disturbing = [index for index, what in enumerate(happened) if what in ("kept", "collects")]
    assert not any(happened[index + 1].startswith("counted") for index in disturbing)
    assert 2 <= happened.count("kept") < calls / 4  # fewer and fewer, and nobody knows which


def test_where_nothing_is_timed_there_are_no_calls_but_those_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch) as happened:
        loop_of(1)(Calls(subject_that(id, is_session=True), Counting(happened), is_timed=False))
    assert happened == ["counted kept"]


def test_what_a_variant_leaves_behind_is_collected_every_so_many_calls_and_never_in_a_window() -> None:
    left: list[weakref.ref[Any]] = []
    is_open = False
    seen: list[bool] = []

    class Left:
        def __init__(self) -> None:
            self.own = self  # a cycle

    def run(prepared: Any) -> None:
        nonlocal is_open
        is_open = True
        left.append(weakref.ref(Left()))
        is_open = False

    def collecting(phase: str, info: dict[str, int]) -> None:
        seen.append(is_open)

    def alive() -> int:
        return sum(own() is not None for own in left)

    windows = Windows()
    before = windows.seconds()
    with timing.no_garbage_collection():
        gc.callbacks.append(collecting)
        try:
            call = Calls(subject_that(run), windows, is_timed=True)
            most = 0
            for _ in range(5 * BLOCK_CALLS):
                call()
                most = max(most, alive())
        finally:
            gc.callbacks.remove(collecting)
            gc.unfreeze()
    assert len(left) == 5 * (BLOCK_CALLS + CALLS_BEFORE_COUNTED)
    assert most <= BLOCK_CALLS + CALLS_BEFORE_COUNTED
    assert len(seen) == 5 * 2  # begin and end
    assert not any(seen)
    assert windows.seconds() - before == pytest.approx(sum(call.elapsed_ns) / 1e9)


# ----------------------------------------------------------------------------------------------------------- variants


def loop_of(calls: int) -> Callable[[Callable[[], None]], None]:
    def loop(call: Callable[[], None]) -> None:
        for _ in range(calls):
            call()

    return loop


def test_what_a_loop_calls_is_counted_by_its_clock(world: World, tmp_path: Path) -> None:
    _, variant = opened(tmp_path, "plain-lstm")
    readings = []
    windows = Windows()

    def loop(call: Callable[[], None]) -> None:
        for _ in range(5):
            start = windows.seconds()
            call()
            readings.append(windows.seconds() - start)

    with variant as own:
        own.time(loop, windows, is_timed=True)
        assert own.problem == ""
    assert len(readings) == 5
    assert min(readings) > 0


@pytest.mark.parametrize("is_timed", [True, False])
@pytest.mark.parametrize("scenario", ["single-stream", "offline", "training-step"])
def test_an_honest_variant_passes_in_every_scenario(
    world: World, tmp_path: Path, scenario: str, is_timed: bool
) -> None:
    _, variant = opened(tmp_path, "plain-lstm", scenario)
    with variant as own:
        own.time(loop_of(3), Windows(), is_timed)
        assert (str(own), own.size.hidden_size, own.problem) == ("plain-lstm@plain", 6, "")


def test_calls_are_warmed_up_before_the_loop_where_it_times_and_no_garbage_is_collected_in_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    warm_up = timing.warm_up

    def warmed(*arguments: Any) -> Any:
        happened.append("warm-up")
        return warm_up(*arguments)

    def loop(call: Callable[[], None]) -> None:
        happened.append(f"loop, collecting: {gc.isenabled()}")
        call()

    monkeypatch.setattr(timing, "warm_up", warmed)
    _, variant = opened(tmp_path, "plain-lstm")
    with variant as own:
        own.time(loop, Windows(), is_timed=True)
        own.time(loop, Windows(), is_timed=False)
    assert happened == ["warm-up", "loop, collecting: False", "loop, collecting: False"]
    assert gc.isenabled()


def test_pools_that_were_there_have_the_trials_threads_while_it_is_open_and_their_own_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pools() -> set[int]:
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}

    worker, variant = opened(tmp_path, "plain-lstm")
    opens = worker.open
    seen: list[set[int]] = []

    def watched(*key: Any, **options: Any) -> Any:
        seen.append(pools())
        return opens(*key, **options)

    monkeypatch.setattr(worker, "open", watched)
    with threadpoolctl.threadpool_limits(2):
        assert pools() == {2}
        with variant as own:
            assert seen == [{1}]  # what makes threads when it is opened makes as many
            assert own.threads_not_held() == []
            assert pools() == {1}
        assert pools() == {2}


def test_what_is_wrong_before_it_is_timed_is_not_timed(world: World, tmp_path: Path) -> None:
    _, variant = opened(tmp_path, "forgetful")
    calls: list[Callable[[], None]] = []
    with variant as own:
        with pytest.raises(Wrong, match=r"^wrong: .* checks failed\)$") as caught:
            own.time(calls.append, Windows(), is_timed=True)
        assert own.problem == str(caught.value)
    assert calls == []


def test_what_was_wrong_afterwards_says_when(world: World, tmp_path: Path) -> None:
    _, variant = opened(tmp_path, "late")
    with variant as own, pytest.raises(Wrong, match=r"^wrong: after timing: "):
        own.time(loop_of(20), Windows(), is_timed=False)


@pytest.mark.parametrize(("model", "said"), [("rash", "gradient"), ("lost", "loss")])
def test_a_training_step_is_held_against_the_oracle_too(world: World, tmp_path: Path, model: str, said: str) -> None:
    _, variant = opened(tmp_path, model, "training-step")
    with variant as own, pytest.raises(Wrong, match=said):
        own.time(loop_of(3), Windows(), is_timed=True)


def test_what_is_unsupported_is_raised_as_it_is(world: World, tmp_path: Path) -> None:
    _, variant = opened(tmp_path, "sleepy")
    with pytest.raises(Unsupported, match="this model runs on Sundays only"), variant:
        pass


def test_inputs_are_new_ones_each_time_and_of_the_sizes_asked_for(world: World, tmp_path: Path) -> None:
    _, variant = opened(tmp_path, "plain-lstm")
    with variant as own:
        first, second = own.inputs(2, 5), own.inputs(2, 5)
        assert first.x.shape == second.x.shape == (2, 5, own.size.input_size)
        assert own.inputs(3, 1).x.shape == (3, 1, own.size.input_size)
        assert not (first.x == second.x).any()


def test_work_that_goes_on_is_blamed_only_on_who_began_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seen, is_blamed in ((0.0, True), (1.5, False)):
        monkeypatch.setattr(in_process, "busy_cores", lambda seen=seen: seen)
        worker, variant = opened(tmp_path, "plain-lstm")
        monkeypatch.setattr(worker, "idle", lambda: {"busy_cores": 1.5})
        with variant as own:
            if is_blamed:
                with pytest.raises(Wrong, match=r"^failed: audit rest: 1\.50 cores are busy"):
                    own.time(loop_of(3), Windows(), is_timed=True)
            else:
                own.time(loop_of(3), Windows(), is_timed=True)


def test_pools_with_another_number_of_threads_are_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = [{"filepath": "/lib/libgomp.so", "num_threads": 4}, {"filepath": "/lib/libblas.so", "num_threads": 1}]
    monkeypatch.setattr(in_process, "threadpool_info", lambda: pools)
    _, variant = opened(tmp_path, "plain-lstm")
    with variant as own:
        assert own.threads_not_held() == ["libgomp.so: 4"]


def test_what_this_machine_attains_is_found_out_for_every_variant_and_number_of_threads(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def peak(dtype: str, threads: int) -> float:
        asked.append((dtype, threads))
        return 1e15 * threads

    monkeypatch.setattr(audit, "peak_flops_per_s", peak)
    catalog = survey()
    plan = make_plan(parse_suite(f"{QUICK}[sweep]\nthreads = [1, 2]\n", "suite"), catalog)
    trials = [t for t in plan.of("latency") if (t.variant.model, t.scenario) == ("plain-lstm", "offline")]
    worker = InProcess(plan, catalog, tmp_path, None)
    for trial in [*trials, trials[-1]]:
        with worker.opened(trial):
            own = worker.evidence(trial, 1.0, 1, Witness())
            assert own.peak_flops_per_s == 1e15 * trial.threads
            worker.evidence(trial, 1.0, 1, Witness())  # once a variant is enough
    assert asked == [("float32", 1), ("float32", 2), ("float32", 2)]


def test_a_worker_knows_what_every_number_of_threads_attains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "peak_flops_per_s", lambda dtype, threads: float(threads))
    worker = Worker()

    def peak(threads: int, device: str = "cpu") -> float | None:
        return worker._peak(SessionOptions(LayerSize(1, 1, 1), device, "float32", threads))

    assert [peak(1), peak(8), peak(1), peak(1, "cuda")] == [1, 8, 1, None]


def test_the_oracles_answers_are_kept_for_one_setting_alone(world: World, tmp_path: Path) -> None:
    catalog = survey()
    plan = make_plan(parse_suite(f"{QUICK}[sweep]\nhidden_size = [3, 6]\n", "suite"), catalog)
    small, large = (t for t in plan.of("parity") if t.variant.model == "plain-lstm")
    worker = InProcess(plan, catalog, tmp_path, None)
    known = []
    for trial in (small, small, large):
        with worker.opened(trial) as own:
            own.check()
        known.append({size.hidden_size for _, size, *_ in worker._oracle})
    assert known == [{3}, {3}, {6}]
