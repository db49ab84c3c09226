"""What nothing costs: an empty call, and a model that does nothing, through the engine and through other tools."""

from __future__ import annotations

import time
import timeit
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks import peers
from benchmarks.peer_arm import EMPTY
from benchmarks.recording import Recording, one_process
from benchmarks.workloads import WORKLOADS

PROCESSES = 5  # a run's least number of slices
ENGINE = "this harness"


@dataclass(frozen=True, slots=True)
class NullReading:
    """What a tool reads, in seconds; None where it was not asked.

    Attributes:
        empty_s: an empty call.
        session_s: `run` of a session of the `null` model.
        wall_s: the whole measurement of the latter, or else of the former, from the start of the command.
    """

    tool: str
    empty_s: float | None
    session_s: float | None
    wall_s: float


def readings(seed: int) -> Iterator[NullReading]:
    """Every tool's reading, one after the other."""
    yield engine_reading(seed)
    for tool in filter(peers.installed, peers.PACKAGES):
        empty, session = peers.time_with(tool, EMPTY), peers.time_with(tool, "null A1")
        yield NullReading(f"{tool}, median", median(_kept(empty)), median(_kept(session)), session.wall_s)
    began = time.perf_counter()
    empty_s = timeit_empty()
    yield NullReading("timeit, best of 5", empty_s, None, time.perf_counter() - began)


def engine_reading(seed: int) -> NullReading:
    """The engine's: its own empty call, and the `null` model's session, each the median over processes."""
    recording = Recording("null-quiet", WORKLOADS["null"], "quiet", ("A1",))
    began = time.perf_counter()
    done = [one_process(recording, number, seed) for number in range(PROCESSES)]
    wall_s = time.perf_counter() - began
    empty_s = median(float(facts["overhead_s"]) for _, facts in done)
    session_s = median(float(row["median_s"]) for rows, _ in done for row in rows)
    return NullReading(ENGINE, empty_s, session_s, wall_s)


def timeit_empty() -> float:
    """What `python -m timeit` says of an empty function: the best of five, in seconds a call."""
    timer = timeit.Timer("nothing()", "def nothing(): pass")
    number, _ = timer.autorange()
    return min(timer.repeat(5, number)) / number


def _kept(run: peers.PeerRun) -> tuple[float, ...]:
    return run.values if run.tool == "pyperf" else run.values[1:2]  # pytest-benchmark's median
