"""Noise: what else happened on the machine while a process timed, and which turns it disturbed."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Self

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

CPU_FOLDER = Path("/sys/devices/system/cpu")
TASK_FOLDER = Path("/proc/self/task")
THREAD_SCHEDSTAT = Path("/proc/thread-self/schedstat")  # fields: the kernel's Documentation/scheduler/sched-stats.rst
DISTURBING_SHARE = 0.01  # of a turn's duration, spent waiting for a core
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, psutil.Error)

CpuTimes = Mapping[int, Mapping[str, float]]  # seconds since the start of the machine, by CPU number and psutil's field


class Reading(NamedTuple):
    """Counters beside a turn: involuntary switches of all threads, nanoseconds that the reader waited for a core."""

    involuntary_switches: int | None
    run_delay_ns: int | None


def involuntary_switches() -> int | None:
    """How often any thread of this process, ended ones included, lost its core to another; None on Windows."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Disturbance:
    """Reads what disturbs a turn, in microseconds; made and read by the thread that makes the calls, closed at the end.

    It keeps a file open. Once that cannot be read it is not tried again.
    """

    def __init__(
        self, switches: Callable[[], int | None] = involuntary_switches, schedstat: Path = THREAD_SCHEDSTAT
    ) -> None:
        self._switches = switches
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open(schedstat, os.O_RDONLY)

    def read(self) -> Reading:
        """The counters now; None for what this machine does not tell."""
        delay = None
        if self._file is not None:
            with suppress(OSError, ValueError):
                delay = _run_delay_ns(os.pread(self._file, 64, 0))
            if delay is None:
                self.close()
        return Reading(self._switches(), delay)

    def close(self) -> None:
        """Close the file; later readings have no run delay."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def disturbed(before: Reading, after: Reading, seconds: float) -> bool | None:
    """Did a thread lose its core, or the reader wait for one longer than 1 % of the turn's `seconds`? None if untold.

    Threads that sleep by their own will are not disturbed. What a hypervisor takes shows in neither counter.
    """
    switches, delay_ns = (_grown(a, b) for a, b in zip(before, after, strict=True))
    if switches is None and delay_ns is None:
        return None
    return (switches or 0) > 0 or (delay_ns or 0) > DISTURBING_SHARE * seconds * 1e9


@dataclass(frozen=True)
class Noise:
    """What happened in and around this process while it timed; None for what cannot be read.

    Attributes:
        run_delay_s: seconds its threads waited for a core, summed; those that ended meanwhile are not in it.
        involuntary_switches: how often a thread lost its core to another.
        voluntary_switches: how often a thread gave it up, to wait for something.
        steal_share: share of the usable CPUs' time that the hypervisor kept back, 0 to 1.
        other_busy_share: share of the usable CPUs' time that others on this machine used, 0 to 1; without steal.
        page_faults_major: page faults that had to read from storage.
        page_faults_minor: page faults that did not.
        gc_collections: garbage collections of all generations, less the timing loop's own.
        frequency_mhz: MHz, mean of the usable CPUs at the end, or the machine's where they do not tell.
        governor: the usable CPUs' frequency governors at the end, each once, separated by commas.
        temperature_c: degrees Celsius of the machine's hottest sensor at the end.
        cpus: the cores that any of its threads could use, such as `0-1,4`.
    """

    run_delay_s: float | None
    involuntary_switches: int | None
    voluntary_switches: int | None
    steal_share: float | None
    other_busy_share: float | None
    page_faults_major: int | None
    page_faults_minor: int | None
    gc_collections: int
    frequency_mhz: float | None
    governor: str | None
    temperature_c: float | None
    cpus: str | None


NOISE_COLUMNS = tuple(field.name for field in fields(Noise))


class NoiseRecord:
    """Reads the counters on entering and on leaving `with`; `noise` and `row` give what lies between."""

    def __enter__(self) -> Self:
        self._before = run_delays_ns(), cpu_times(), time.process_time(), gc_collections(), process_counts()
        return self

    def __exit__(self, *_: object) -> None:
        counts = process_counts()  # first here and last above, so that they leave out what reading the rest costs
        self._after = run_delays_ns(), cpu_times(), time.process_time(), gc_collections(), counts
        self._at_end = frequency_mhz(), governor(), temperature_c(), ranges(usable_cpus() or ())

    def noise(self, own_collections: int = 0) -> Noise:
        """The record, once `with` is left; `own_collections` of the timing loop are left out."""
        delays, cpus, own_s, collections, counts = self._before
        delays_then, cpus_then, own_then_s, collections_then, counts_then = self._after
        waited = None
        if delays is not None and delays_then is not None:
            waited = sum(max(0, ns - delays.get(thread, 0)) for thread, ns in delays_then.items()) / 1e9
        involuntary, voluntary, major, minor = map(_grown, counts, counts_then)
        steal, other = shares(cpus or {}, cpus_then or {}, own_then_s - own_s)
        made = collections_then - collections - own_collections
        return Noise(waited, involuntary, voluntary, steal, other, major, minor, made, *self._at_end)

    def row(self, own_collections: int = 0) -> dict[str, Any]:
        """The record by column."""
        return asdict(self.noise(own_collections))


def run_delays_ns() -> dict[str, int] | None:
    """Nanoseconds each living thread has waited for a core, by thread; None where the kernel keeps no account."""
    delays: dict[str, int] = {}
    for file in TASK_FOLDER.glob("*/schedstat"):
        with suppress(OSError, ValueError):  # a thread may end meanwhile
            delay = _run_delay_ns(file.read_bytes())
            delays |= {} if delay is None else {file.parts[-2]: delay}
    return delays or None


def process_counts() -> tuple[int | None, int | None, int | None, int | None]:
    """Of this process so far: involuntary and voluntary switches, major and minor page faults; None on Windows."""
    if resource is None:
        return None, None, None, None
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_nivcsw, own.ru_nvcsw, own.ru_majflt, own.ru_minflt


def gc_collections() -> int:
    """Garbage collections since the interpreter started, of all generations."""
    return sum(generation["collections"] for generation in gc.get_stats())


def cpu_times() -> CpuTimes | None:
    """Times of the usable CPUs; of all where it is not known which those are."""
    try:
        times = [one._asdict() for one in psutil.cpu_times(percpu=True)]
        online = _numbers(_read(CPU_FOLDER / "online"))  # psutil leaves the others out and does not number its list
    except UNREADABLE:
        return None
    found = dict(zip(online if len(online) == len(times) else range(len(times)), times, strict=True))
    usable = usable_cpus()
    return {cpu: one for cpu, one in found.items() if usable is None or cpu in usable} or found


def usable_cpus() -> set[int] | None:
    """The CPUs that any thread may use, for a thread pool may have bound the caller to one; None if untold."""
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is None:
        return None
    usable: set[int] = set(affinity(0))
    for folder in TASK_FOLDER.glob("*"):
        with suppress(OSError):  # a thread may end meanwhile
            usable |= affinity(int(folder.name))
    return usable


def shares(before: CpuTimes, after: CpuTimes, own_s: float) -> tuple[float | None, float | None]:
    """The steal and the other-busy share, 0 to 1, of the time between on the CPUs in both; `own_s` is not others'.

    Both are None where no time passed, the first also where there is no steal field.
    """
    passed: dict[str, float] = {}
    for cpu in before.keys() & after.keys():
        for name, seconds in after[cpu].items():  # the kernel's counters may step back
            passed[name] = passed.get(name, 0.0) + max(0.0, seconds - before[cpu].get(name, seconds))
    total = sum(seconds for name, seconds in passed.items() if "guest" not in name)  # which is in `user` and `nice` too
    if total <= 0:
        return None, None
    steal = passed.get("steal")
    busy = total - passed.get("idle", 0.0) - passed.get("iowait", 0.0) - (steal or 0.0)
    return None if steal is None else steal / total, min(1.0, max(0.0, (busy - own_s) / total))


def frequency_mhz() -> float | None:
    """The mean frequency of the usable CPUs, in MHz, else what psutil says of the machine."""
    if told := [int(text) / 1e3 for text in _told_by_usable_cpus("scaling_cur_freq") if text.isdigit()]:
        return fmean(told)
    try:
        return float(psutil.cpu_freq().current) or None
    except UNREADABLE:
        return None


def governor() -> str | None:
    """The frequency governors of the usable CPUs, each once, separated by commas."""
    return ",".join(sorted(set(_told_by_usable_cpus("scaling_governor")))) or None


def temperature_c() -> float | None:
    """The hottest sensor of the machine, in degrees Celsius."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # psutil warns of sensors that it leaves out
            chips = psutil.sensors_temperatures()
        return max((float(sensor.current) for sensors in chips.values() for sensor in sensors), default=None)
    except UNREADABLE:
        return None


def ranges(numbers: Iterable[int]) -> str | None:
    """Whole numbers as the kernel lists them, `0-1,4`; None if there are none."""
    ordered = sorted(set(numbers))
    starts = [n for n in ordered if n - 1 not in ordered]
    ends = [n for n in ordered if n + 1 not in ordered]
    return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in zip(starts, ends, strict=True)) or None


def _grown(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _run_delay_ns(schedstat: bytes) -> int | None:
    _, delay, times_run = schedstat.split()
    return int(delay) if int(times_run) else None  # who reads has run, unless the kernel keeps no account


def _told_by_usable_cpus(name: str) -> list[str]:
    usable = usable_cpus()
    files = CPU_FOLDER.glob(f"cpu[0-9]*/cpufreq/{name}")
    return [_read(file) for file in files if usable is None or int(file.parts[-3][3:]) in usable]


def _numbers(ranges: str) -> list[int]:
    ends = [part.split("-") for part in ranges.split(",") if part]
    return [number for pair in ends for number in range(int(pair[0]), int(pair[-1]) + 1)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
