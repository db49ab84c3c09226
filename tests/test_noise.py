"""The noise record: counters that the tests own, and machines that do not tell everything."""

from __future__ import annotations

import gc
import json
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.engine import noise as module
from harness.engine.noise import NOISE_COLUMNS, Disturbance, NoiseRecord, Reading, disturbed, shares

FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
counts = st.integers(0, 10**15)
durations = st.floats(0, 1e4)
seconds_by_field = st.dictionaries(st.sampled_from(FIELDS), st.floats(0, 1e9))
cpus = st.dictionaries(st.integers(0, 3), seconds_by_field)


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError("this machine does not tell")


def series(*values: Any) -> Callable[..., Any]:
    """A counter that gives one value after the other."""
    left = iter(values)
    return lambda *_, **__: next(left)


def schedstat(folder: Path, text: str) -> Path:
    path = folder / "schedstat"
    path.write_text(text, encoding="ascii")
    return path


def cpu_file(folder: Path, cpu: int, name: str, text: str) -> None:
    path = folder / f"cpu{cpu}" / "cpufreq" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="ascii")


@pytest.fixture
def fake_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty folders in place of the system's, and CPUs 0 and 1 to use; its `cpus` and `tasks` are read."""
    monkeypatch.setattr(module, "CPU_FOLDER", tmp_path / "cpus")
    monkeypatch.setattr(module, "TASK_FOLDER", tmp_path / "tasks")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    for name in ("cpus", "tasks"):
        (tmp_path / name).mkdir()
    return tmp_path


# Turns


def test_a_reading_follows_the_counters(tmp_path: Path) -> None:
    path = schedstat(tmp_path, "900 100 3\n")
    disturbance = Disturbance(series(5, 7), path)
    first = disturbance.read()
    schedstat(tmp_path, "1900 250 4\n")
    assert (first, disturbance.read()) == (Reading(5, 100), Reading(7, 250))
    disturbance.close()


@pytest.mark.parametrize("text", ["0 0 0\n", "", "no numbers here\n", "1 2\n"])
def test_a_kernel_that_keeps_no_account_is_asked_once(tmp_path: Path, text: str) -> None:
    disturbance = Disturbance(lambda: 1, schedstat(tmp_path, text))
    assert disturbance.read() == Reading(1, None)
    schedstat(tmp_path, "900 100 3\n")
    assert disturbance.read() == Reading(1, None)


def test_a_file_that_can_be_opened_but_not_read_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disturbance = Disturbance(lambda: 1, schedstat(tmp_path, "900 100 3\n"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", refuse)
        assert disturbance.read() == Reading(1, None)
    assert disturbance.read() == Reading(1, None)


def test_without_the_file_the_switches_are_still_read(tmp_path: Path) -> None:
    disturbance = Disturbance(lambda: 1, tmp_path / "missing")
    assert disturbance.read() == Reading(1, None)
    disturbance.close()


def test_a_closed_one_holds_no_file_and_may_be_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    close = os.close

    def write_down_and_close(file: int) -> None:
        closed.append(file)
        close(file)

    monkeypatch.setattr(os, "close", write_down_and_close)
    disturbance = Disturbance(lambda: 1, schedstat(tmp_path, "900 100 3\n"))
    disturbance.close()
    disturbance.close()
    assert len(closed) == 1
    assert disturbance.read() == Reading(1, None)


def test_a_real_reading_never_goes_back() -> None:
    disturbance = Disturbance()
    before, after = disturbance.read(), disturbance.read()
    disturbance.close()
    for earlier, later in zip(before, after, strict=True):
        assert (earlier is None) == (later is None)
        assert earlier is None or later is None or 0 <= earlier <= later


def test_a_turn_that_lost_its_core_is_disturbed() -> None:
    assert disturbed(Reading(3, 50), Reading(4, 50), 1.0) is True


def test_a_turn_may_wait_for_one_percent_of_its_time_and_no_longer() -> None:
    assert disturbed(Reading(3, 50), Reading(3, 50 + 10_000_000), 1.0) is False
    assert disturbed(Reading(3, 50), Reading(3, 51 + 10_000_000), 1.0) is True


@given(counts, counts, durations)
def test_a_turn_without_switches_and_waiting_is_not_disturbed(switches: int, delay_ns: int, seconds: float) -> None:
    assert disturbed(Reading(switches, delay_ns), Reading(switches, delay_ns), seconds) is False


@given(counts, counts, counts, counts, durations)
def test_more_of_either_never_takes_the_mark_away(
    switches: int, delay_ns: int, more_switches: int, more_delay_ns: int, seconds: float
) -> None:
    before, after = Reading(0, 0), Reading(switches, delay_ns)
    worse = Reading(switches + more_switches, delay_ns + more_delay_ns)
    assert disturbed(before, after, seconds) is not True or disturbed(before, worse, seconds) is True


def test_what_one_counter_does_not_tell_the_other_may() -> None:
    assert disturbed(Reading(None, 0), Reading(None, 10**9), 1.0) is True
    assert disturbed(Reading(3, None), Reading(4, None), 1.0) is True
    assert disturbed(Reading(None, 0), Reading(None, 0), 1.0) is False
    assert disturbed(Reading(3, 0), Reading(3, None), 1.0) is False  # the file went away during the turn


def test_where_neither_is_told_nobody_knows() -> None:
    assert disturbed(Reading(None, None), Reading(None, None), 1.0) is None


# Shares


def test_shares_are_of_all_time_that_passed_on_the_cpus() -> None:
    before = {0: {"user": 10.0, "idle": 5.0, "steal": 1.0}, 1: {"user": 7.0, "idle": 0.0, "steal": 0.0}}
    after = {0: {"user": 14.0, "idle": 10.0, "steal": 2.0}, 1: {"user": 8.0, "idle": 9.0, "steal": 0.0}}
    assert shares(before, after, own_s=3.0) == (1 / 20, 2 / 20)


@given(cpus, cpus, st.floats(0, 1e9))
def test_shares_lie_between_0_and_1_and_so_does_their_sum(before: Any, after: Any, own_s: float) -> None:
    steal, other = shares(before, after, own_s)
    assert steal is None or 0 <= steal <= 1
    assert other is None or 0 <= other <= 1
    assert (steal or 0) + (other or 0) <= 1 + 1e-9
    assert other is not None or steal is None


@given(*[st.integers(0, 10**6)] * 4)
def test_shares_find_what_was_put_in(own: int, others: int, steal: int, idle: int) -> None:
    total = own + others + steal + idle
    assume(total > 0)
    after = {0: {"user": float(own), "system": float(others), "steal": float(steal), "iowait": float(idle)}}
    steal_share, other_busy_share = shares({0: dict.fromkeys(after[0], 0.0)}, after, float(own))
    assert steal_share == pytest.approx(steal / total)
    assert other_busy_share == pytest.approx(others / total)


def test_a_guest_is_counted_once() -> None:
    before = {0: {"user": 0.0, "idle": 0.0, "guest": 0.0}}
    assert shares(before, {0: {"user": 5.0, "idle": 5.0, "guest": 5.0}}, 0.0) == (None, 0.5)


def test_counters_that_step_back_count_as_standing_still() -> None:
    before = {0: {"user": 0.0, "idle": 9.0, "steal": 0.0}}
    assert shares(before, {0: {"user": 4.0, "idle": 8.0, "steal": 0.0}}, 2.0) == (0.0, 0.5)


def test_only_cpus_that_were_there_all_the_time_count() -> None:
    one = {"user": 1.0, "idle": 1.0}
    assert shares({0: one}, {0: {"user": 2.0, "idle": 4.0}, 1: {"user": 99.0, "idle": 0.0}}, 0.0) == (None, 0.25)
    assert shares({0: one}, {1: one}, 0.0) == (None, None)


def test_without_time_there_are_no_shares() -> None:
    times = {0: {"user": 1.0, "idle": 1.0, "steal": 1.0}}
    assert shares(times, times, 0.0) == (None, None)


# Which CPUs


def per_cpu(*users: float) -> Callable[..., Any]:
    return lambda percpu: [SimpleNamespace(_asdict=lambda user=user: {"user": user}) for user in users]


def test_only_the_usable_cpus_are_looked_at(fake_system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", per_cpu(0.0, 1.0, 2.0, 3.0))
    assert module.cpu_times() == {0: {"user": 0.0}, 1: {"user": 1.0}}


def test_cpus_keep_their_numbers_when_others_are_offline(fake_system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake_system / "cpus" / "online").write_text("0,4-6\n", encoding="ascii")
    monkeypatch.setattr(psutil, "cpu_times", per_cpu(0.0, 40.0, 50.0, 60.0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 6})
    assert module.cpu_times() == {4: {"user": 40.0}, 6: {"user": 60.0}}


def test_all_cpus_are_looked_at_where_the_usable_ones_are_not_told(
    fake_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_times", per_cpu(0.0, 1.0, 2.0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert set(module.cpu_times() or {}) == {0, 1, 2}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7}, raising=False)  # a container that renumbers
    assert set(module.cpu_times() or {}) == {0, 1, 2}


def test_a_bound_caller_does_not_hide_the_cpus_of_its_thread_pool(
    fake_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for thread in (11, 12, 13):
        (fake_system / "tasks" / str(thread)).mkdir()

    def affinity(thread: int) -> set[int]:
        if thread == 13:
            raise ProcessLookupError("it ended")
        return {0: {2}, 11: {2}, 12: {5}}[thread]

    monkeypatch.setattr(os, "sched_getaffinity", affinity)
    assert module.usable_cpus() == {2, 5}


# Frequency, governor, temperature


def test_frequency_and_governor_are_those_of_the_usable_cpus(fake_system: Path) -> None:
    for cpu, khz, kind in ((0, "2000000", "powersave"), (1, "3000000", "performance"), (2, "9000000", "userspace")):
        cpu_file(fake_system / "cpus", cpu, "scaling_cur_freq", khz)
        cpu_file(fake_system / "cpus", cpu, "scaling_governor", kind)
    assert module.frequency_mhz() == 2500.0
    assert module.governor() == "performance,powersave"


def test_a_frequency_that_is_no_number_is_left_to_psutil(fake_system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_file(fake_system / "cpus", 0, "scaling_cur_freq", "<unknown>")
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2600.5))
    assert module.frequency_mhz() == 2600.5


@pytest.mark.parametrize("psutil_says", [lambda: None, lambda: SimpleNamespace(current=0.0), refuse, None])
def test_an_unknown_frequency_is_none(fake_system: Path, monkeypatch: pytest.MonkeyPatch, psutil_says: Any) -> None:
    if psutil_says is None:
        monkeypatch.delattr(psutil, "cpu_freq")
    else:
        monkeypatch.setattr(psutil, "cpu_freq", psutil_says)
    assert module.frequency_mhz() is None


def test_the_temperature_is_the_hottest_sensors_and_its_warnings_are_swallowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sensors() -> Any:
        warnings.warn("ignoring a sensor", RuntimeWarning, stacklevel=1)
        return {"core": [SimpleNamespace(current=41.0), SimpleNamespace(current=67.5)], "disk": []}

    monkeypatch.setattr(psutil, "sensors_temperatures", sensors, raising=False)
    assert module.temperature_c() == 67.5


@pytest.mark.parametrize("psutil_says", [dict, refuse, None])
def test_an_unknown_temperature_is_none(monkeypatch: pytest.MonkeyPatch, psutil_says: Any) -> None:
    if psutil_says is None:
        monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    else:
        monkeypatch.setattr(psutil, "sensors_temperatures", psutil_says, raising=False)
    assert module.temperature_c() is None


# Run delay of threads


def test_run_delay_is_read_of_every_thread_that_has_an_account(fake_system: Path) -> None:
    for thread, text in (("11", "900 100 3\n"), ("12", "5 7 1\n"), ("13", "0 0 0\n"), ("14", "broken")):
        (fake_system / "tasks" / thread).mkdir()
        schedstat(fake_system / "tasks" / thread, text)
    assert module.run_delays_ns() == {"11": 100, "12": 7}


def test_without_any_account_there_is_no_run_delay(fake_system: Path) -> None:
    assert module.run_delays_ns() is None


# The record


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two readings of every counter; gives the order in which they are read."""
    order: list[str] = []

    def fake(name: str, *values: Any, owner: Any = module) -> None:
        left = iter(values)

        def read() -> Any:
            order.append(name)
            return next(left)

        monkeypatch.setattr(owner, name, read)

    fake("run_delays_ns", {"11": 1_000, "12": 500, "14": 900_000}, {"11": 2_001_000, "13": 4_000_000, "14": 0})
    fake("cpu_times", {0: {"user": 0.0, "idle": 0.0, "steal": 0.0}}, {0: {"user": 6.0, "idle": 3.0, "steal": 1.0}})
    fake("process_time", 1.0, 5.0, owner=time)
    fake("gc_collections", 10, 17)
    fake("process_counts", (1, 20, 300, 4000), (3, 25, 301, 4500))
    fake("frequency_mhz", 2600.5)
    fake("governor", "performance")
    fake("temperature_c", 50.0)
    fake("usable_cpus", {4, 0, 1})
    return order


def test_the_row_holds_what_lies_between_the_readings(counters: list[str]) -> None:
    with NoiseRecord() as record:
        pass
    assert record.row(own_collections=5) == {
        "run_delay_s": 0.006,  # thread 12 ended, 13 came, and 14 is a new one under an old number
        "involuntary_switches": 2,
        "voluntary_switches": 5,
        "steal_share": 0.1,
        "other_busy_share": 0.2,
        "page_faults_major": 1,
        "page_faults_minor": 500,
        "gc_collections": 2,
        "frequency_mhz": 2600.5,
        "governor": "performance",
        "temperature_c": 50.0,
        "cpus": "0-1,4",
    }


@pytest.mark.parametrize(("numbers", "text"), [((), None), ((3,), "3"), ((2, 0, 1), "0-2"), ((7, 0, 2, 3), "0,2-3,7")])
def test_cores_are_listed_as_the_kernel_lists_them(numbers: tuple[int, ...], text: str | None) -> None:
    assert module.ranges(numbers) == text


def test_the_columns_are_those_of_the_row_in_order(counters: list[str]) -> None:
    with NoiseRecord() as record:
        pass
    assert tuple(record.row()) == NOISE_COLUMNS
    assert record.noise().gc_collections == 7


def test_what_reading_costs_the_process_is_not_in_its_counts(counters: list[str]) -> None:
    with NoiseRecord():
        counters.append("timing")
    at = counters.index("timing")
    assert (counters[at - 1], counters[at + 1]) == ("process_counts", "process_counts")


def test_a_machine_that_tells_nothing_gives_a_row_of_none(fake_system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cpu_times", "cpu_freq", "sensors_temperatures"):
        monkeypatch.setattr(psutil, name, refuse, raising=False)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(module, "resource", None)
    with NoiseRecord() as record:
        gc.collect()
    assert record.row(own_collections=1) == {**dict.fromkeys(NOISE_COLUMNS), "gc_collections": 0}
    assert module.involuntary_switches() is None


def test_collections_made_while_timing_are_counted() -> None:
    was_enabled = gc.isenabled()
    gc.disable()
    with NoiseRecord() as record:
        for _ in range(3):
            gc.collect()
    if was_enabled:
        gc.enable()
    assert (record.row()["gc_collections"], record.row(own_collections=3)["gc_collections"]) == (3, 0)


def test_this_machine_gives_every_column_in_a_plausible_range() -> None:
    with NoiseRecord() as record:
        sum(range(1000))
    row = record.row()
    assert tuple(row) == NOISE_COLUMNS
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    for name in ("steal_share", "other_busy_share"):
        assert row[name] is None or 0 <= row[name] <= 1
    for name in ("involuntary_switches", "voluntary_switches", "page_faults_major", "page_faults_minor"):
        assert row[name] is None or (isinstance(row[name], int) and row[name] >= 0)
    assert row["gc_collections"] >= 0
    assert row["run_delay_s"] is None or 0 <= row["run_delay_s"] < math.inf
    assert row["frequency_mhz"] is None or 10 < row["frequency_mhz"] < 20_000
    assert row["governor"] is None or row["governor"]
    assert row["temperature_c"] is None or -50 < row["temperature_c"] < 200
