"""What the machine attains: operations and bytes over a clock that the test owns, and one measurement end to end."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strangers import World

from harness.engine import machine
from harness.engine.machine import attained, product_flops_per_s, read_bytes_per_s
from harness.engine.replies import checked
from harness.engine.worker import Worker

SMALL = {"PRODUCT_SIZES": (8, 16), "WORKING_SETS_BYTES": (2**10, 2**12), "READ_BYTES": 2**14}
SMALL |= {"PRODUCT_SECONDS": 0.0, "READ_SECONDS": 0.0}


class Clock:
    """Every reading is later than the last, by what is given, and then by a second."""

    def __init__(self, *steps: int) -> None:
        self._steps = [*steps]
        self._now = 0
        self.readings = 0

    def __call__(self) -> int:
        self.readings += 1
        self._now += self._steps.pop(0) if self._steps else 10**9
        return self._now


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(machine, name, value)


def test_products_are_two_operations_for_every_element_and_step_over_the_fastest_of_all_calls() -> None:
    clock = Clock(0, 7, 4000, 7, 1000, 7, 2000)
    assert product_flops_per_s(5, "float32", 1, least_calls=3, clock=clock) == 2 * 5**3 / 1000e-9


def test_products_are_repeated_until_the_time_is_over() -> None:
    clock = Clock()
    product_flops_per_s(5, "float32", 1, least_calls=1, seconds=10.0, clock=clock)
    assert clock.readings == 1 + 4 * 3  # a start; of every call its two ends, and then whether to go on


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reading_is_the_bytes_of_the_working_set_times_how_often_it_was_read(dtype: str, small: None) -> None:
    memory = np.ones(2**12 // np.dtype(dtype).itemsize, dtype)
    clock = Clock(0, 7, 4000, 7, 1000, 7, 2000)
    assert read_bytes_per_s(memory, 1, 0.0, clock) == 2**14 / 1000e-9


def test_a_working_set_larger_than_a_call_reads_is_read_once(small: None) -> None:
    memory = np.ones(2**16 // 4, "float32")
    assert read_bytes_per_s(memory, 1, 0.0, Clock(0, 7, 1000, 7, 1000, 7, 1000)) == 2**16 / 1000e-9


def test_threads_read_a_part_each_and_the_time_is_from_the_first_start_to_the_last_end(small: None) -> None:
    memory = np.ones(2**12 // 4, "float32")
    clock = Clock(0, *[100] * 1000)
    assert read_bytes_per_s(memory, 3, 0.0, clock) == pytest.approx(_read_by(3, 2**12) / (5 * 100e-9))


def _read_by(threads: int, working_set: int) -> int:
    """What three threads read of so many bytes of float32, in pairs of halves that are whole."""
    half = working_set // 4 // (2 * threads)
    return threads * 2 * half * 4 * (SMALL["READ_BYTES"] // (2 * half * 4))  # type: ignore[operator]


def test_threads_are_tried_on_a_processor_each_and_then_free_and_this_one_stays_as_it_was(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 3}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cpus: kept.append((thread, cpus)), raising=False)
    memory = np.ones(2**12 // 4, "float32")
    read_bytes_per_s(memory, 1, 0.0, Clock(0, *[100] * 1000))
    assert kept == []
    read_bytes_per_s(memory, 3, 0.0, Clock(0, *[100] * 1000))
    assert sorted(kept, key=str) == [(0, {3}), (0, {3}), (0, {5})]  # 0 is the thread that calls


def test_threads_that_may_not_be_kept_on_a_processor_read_all_the_same(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: int, cpus: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    memory = np.ones(2**12 // 4, "float32")
    clock = Clock(0, *[100] * 1000)
    assert read_bytes_per_s(memory, 3, 0.0, clock) == pytest.approx(_read_by(3, 2**12) / (5 * 100e-9))


def test_every_number_of_the_working_set_is_read_and_by_one_thread_each(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = np.ones(2**12 // 4, "float32")
    seen: list[Any] = []
    monkeypatch.setattr(np, "vecdot", lambda one, other, out: seen.append((one, other)))
    read_bytes_per_s(memory, 2, 0.0, Clock(0, *[100] * 1000))
    addresses = [
        {side.__array_interface__["data"][0] + 4 * number for number in range(side[0].size)}
        for sides in {id(one): (one, other) for one, other in seen}.values()
        for side in sides
    ]
    assert len(addresses) == 4
    assert len(set.union(*addresses)) == sum(map(len, addresses)) == len(memory)


def test_what_is_attained_is_a_row_for_every_product_and_working_set_that_a_reply_may_hold(small: None) -> None:
    rows = Worker().machine("float64", 2)
    assert checked("machine", rows) == rows
    assert [row["what"] for row in rows] == ["flops", "flops", "read", "read"]
    assert [row["working_set_bytes"] for row in rows] == [2 * 3 * 8**2 * 8, 2 * 3 * 16**2 * 8, 2**10, 2**12]
    assert [row["bytes_per_s"] is None for row in rows] == [row["flops_per_s"] is not None for row in rows]
    assert all((row["flops_per_s"] or row["bytes_per_s"]) > 0 for row in rows)


def test_threads_multiply_matrices_of_their_own_at_once() -> None:
    clock = Clock(0, *[100] * 1000)
    assert product_flops_per_s(5, "float32", 3, least_calls=2, clock=clock) == pytest.approx(3 * 2 * 5**3 / 500e-9)


def test_a_machine_of_many_threads_is_measured_too(small: None) -> None:
    found = attained("float32", 100)
    assert [row.working_set_bytes for row in found] == [100 * 3 * 8**2 * 4, 100 * 3 * 16**2 * 4, 2**10, 2**12]
    assert all((row.flops_per_s or row.bytes_per_s or 0) > 0 for row in found)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, "fast"])
def test_a_reply_with_what_no_machine_attains_is_refused(value: Any) -> None:
    row = {"what": "read", "working_set_bytes": 1024, "flops_per_s": None, "bytes_per_s": value}
    with pytest.raises(ValueError, match="bytes_per_s"):
        checked("machine", [row])


def test_a_worker_tells_the_weight_matrices_of_an_open_session_and_no_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    World(tmp_path / "plugins", monkeypatch).add_plain()
    worker = Worker()
    size = {"input_size": 3, "hidden_size": 6, "num_layers": 1}
    setting = {"device": "cpu", "dtype": "float32", "threads": 1, "cache_dir": None}
    worker.open("k", model="plain-lstm", runtime="plain", size=size, **setting)
    assert checked("matrices", worker.matrices("k")) == [
        {"matrix": "weight_ih_l0", "rows": 24, "columns": 3},
        {"matrix": "weight_hh_l0", "rows": 24, "columns": 6},
    ]
