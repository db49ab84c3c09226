"""One call: what lies inside its window and what does not, by clocks that move only when the tests say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.contract import DeviceState
from harness.engine.calls import Subject, Witness, one_call, timed_call

PREPARE_NS, RUN_NS, FETCH_NS, EVICT_NS = 100, 10_000, 1_000_000, 70_000_000
DRAIN_NS, DEVICE_NS = 30, 4_000
BOUNDARIES = ("compute", "end-to-end")


class Made:
    """A subject whose stages take known times, and a device whose clock runs while it computes.

    Attributes:
        happened: what was called, in order.
        now: nanoseconds of the host.
        device_now: of the device.
    """

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.now, self.device_now = 5_000, 900_000
        self.subject = Subject("a", lambda: "item", self._prepare, self._run, self._fetch)

    def clock(self) -> int:
        return self.now

    def _takes(self, what: str, ns: int) -> None:
        self.happened.append(what)
        self.now += ns

    def _prepare(self, item: Any) -> Any:
        self._takes("prepare", PREPARE_NS)
        return f"prepared {item}"

    def _run(self, prepared: Any) -> Any:
        self._takes("run", RUN_NS)
        self.device_now += DEVICE_NS
        return f"raw {prepared}"

    def _fetch(self, raw: Any) -> Any:
        self._takes("fetch", FETCH_NS)
        return f"outputs of {raw}"

    def evict(self) -> None:
        self._takes("evict", EVICT_NS)
        self.device_now += EVICT_NS

    def drain(self) -> None:
        self._takes("drain", DRAIN_NS)

    def mark(self) -> int:
        self.happened.append("mark")
        return self.device_now

    def elapsed_ns(self, begin: int, end: int) -> int:
        return end - begin

    def state(self) -> DeviceState:
        return DeviceState()

    def energy_j(self) -> None:
        return None


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_every_stage_comes_once_and_its_outputs_are_given(boundary: str) -> None:
    made = Made()
    assert one_call(made.subject, boundary, "item", made.clock).outputs == "outputs of raw prepared item"
    assert made.happened == ["prepare", "run", "fetch"]


def test_the_compute_window_holds_the_run_alone_and_the_rest_is_around_it() -> None:
    made = Made()
    call = one_call(made.subject, "compute", "item", made.clock)
    assert (call.start_ns, call.elapsed_ns, call.host_ns) == (5_000 + PREPARE_NS, RUN_NS, RUN_NS)
    assert call.around_ns == PREPARE_NS + FETCH_NS


def test_the_end_to_end_window_holds_all_three() -> None:
    made = Made()
    call = one_call(made.subject, "end-to-end", "item", made.clock)
    assert (call.start_ns, call.elapsed_ns, call.around_ns) == (5_000, PREPARE_NS + RUN_NS + FETCH_NS, 0)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_caches_are_emptied_last_before_the_window_and_nothing_of_that_counts(boundary: str) -> None:
    warm, cold = Made(), Made()
    expected = one_call(warm.subject, boundary, "item", warm.clock)
    call = one_call(replace(cold.subject, evict=cold.evict), boundary, "item", cold.clock)
    window = ["run"] if boundary == "compute" else ["prepare", "run"]
    assert cold.happened[-len(window) - 2 : -1] == ["evict", *window]
    assert call == expected._replace(start_ns=expected.start_ns + EVICT_NS)


def test_on_a_device_its_clock_counts_from_a_drained_device_to_a_drained_device() -> None:
    made = Made()
    call = one_call(replace(made.subject, device=made), "compute", "item", made.clock)
    assert made.happened == ["prepare", "drain", "drain", "mark", "run", "drain", "mark", "fetch"]
    assert (call.elapsed_ns, call.host_ns) == (DEVICE_NS, RUN_NS + DRAIN_NS)
    assert call.outputs == "outputs of raw prepared item"


def test_on_a_device_what_prepare_left_to_it_is_around_the_window_and_not_in_it() -> None:
    made = Made()
    call = one_call(replace(made.subject, device=made), "compute", "item", made.clock)
    assert call.around_ns == PREPARE_NS + 2 * DRAIN_NS + FETCH_NS


def test_on_a_device_the_end_to_end_window_is_the_same_clocks() -> None:
    made = Made()
    call = one_call(replace(made.subject, device=made), "end-to-end", "item", made.clock)
    assert made.happened == ["drain", "mark", "prepare", "run", "fetch", "drain", "mark"]
    assert (call.elapsed_ns, call.host_ns) == (DEVICE_NS, PREPARE_NS + RUN_NS + FETCH_NS + DRAIN_NS)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_emptying_a_devices_caches_is_finished_before_the_window_begins(boundary: str) -> None:
    made = Made()
    call = one_call(replace(made.subject, device=made, evict=made.evict), boundary, "item", made.clock)
    after = made.happened[made.happened.index("evict") + 1 :]
    assert after[:3] == ["drain", "drain", "mark"]
    assert call.elapsed_ns == DEVICE_NS
    warm = Made()
    assert call.around_ns == one_call(replace(warm.subject, device=warm), boundary, "item", warm.clock).around_ns


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_call_that_is_watched_is_kept_with_its_input_and_carried_as_any_other(boundary: str) -> None:
    made = Made()
    carried: list[Any] = []
    subject = replace(made.subject, make=lambda: (), fetch=lambda raw: (), carry=carried.append)
    witness = Witness()
    for is_watched in (True, False):
        timed_call(subject, boundary, is_watched, witness, made.clock)
    assert (witness.kept_calls, carried) == (1, [(), ()])
