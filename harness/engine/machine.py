"""What this machine attains at best, measured in a worker without plugins: matrix products, and reading memory.

Latencies are held against it (`harness.limits`). Nothing is taken from a data sheet, and of several repetitions the
best counts: a limit is what can be reached, not what was reached while others were at work.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from harness.limits import Attained

if TYPE_CHECKING:
    from harness.contract import FloatArray

Clock = Callable[[], int]  # in nanoseconds
PRODUCT_SIZES = (256, 384, 512, 768, 1024)
WORKING_SETS_BYTES = tuple(2**power for power in range(14, 29))  # 16 KiB to 256 MiB
READ_BYTES = 2**26  # a thread reads so much in one timed call: some 0.3 ms at the least, so that starting it is little
ROW = 2048  # numbers of a dot product: no BLAS gives parts of so few to other threads
MOST_LARGER = 4  # times these sizes: a product of 4096 takes a second where threads have no cores
PRODUCT_SECONDS, READ_SECONDS = 0.1, 0.05  # for each of these
LEAST_CALLS = 3


def attained(dtype: str, threads: int) -> list[Attained]:
    """Products of square matrices of every size, and reading of every working set, in some 2 s."""
    larger = min(MOST_LARGER, math.isqrt(threads))  # more threads need more work
    rows = []
    for size in PRODUCT_SIZES:
        side = size * larger
        working_set = 3 * side**2 * np.dtype(dtype).itemsize
        flops_per_s = product_flops_per_s(side, dtype, LEAST_CALLS, PRODUCT_SECONDS)
        rows.append(Attained("flops", working_set, flops_per_s=flops_per_s))
    memory = np.ones(max(WORKING_SETS_BYTES) // np.dtype(dtype).itemsize, dtype)
    for working_set in WORKING_SETS_BYTES:
        part = memory[: working_set // memory.itemsize]
        rows.append(Attained("read", working_set, bytes_per_s=read_bytes_per_s(part, threads, READ_SECONDS)))
    return rows


def product_flops_per_s(
    size: int, dtype: str, least_calls: int, seconds: float = 0.0, clock: Clock = perf_counter_ns
) -> float:
    """What NumPy's product of two square matrices attains at best, in 2 n³ operations a product.

    Args:
        size: n.
        least_calls: so many products at least.
        seconds: and more, until so much time is over.
        clock: in nanoseconds.
    """
    matrix, result = np.ones((size, size), dtype), np.empty((size, size), dtype)

    def multiply() -> float:
        start = clock()
        np.matmul(matrix, matrix, out=result)
        return (clock() - start) / 1e9

    return 2.0 * size**3 / _least(multiply, least_calls, seconds, clock)


def read_bytes_per_s(memory: FloatArray, threads: int, seconds: float, clock: Clock = perf_counter_ns) -> float:
    """How many bytes a second threads read together at best, each its own part of an array again and again.

    They read by dot products of short rows, which is the fastest that NumPy has: a dot product makes the least of what
    it reads, keeps nothing, and one call makes many, so no Python runs between them. NumPy lets go of the interpreter's
    lock meanwhile. The BLAS's own threads are not used: what they read would depend on how it divides the work.

    Threads are tried each on a processor of its own, for a busy system leaves them one after the other on the same, and
    also where the system puts them, for it knows which processors share a core.

    Args:
        memory: the working set.
        threads: how many.
        seconds: it is repeated until so much time is over.
        clock: in nanoseconds.
    """
    readers, read = _readers(memory, threads)
    if threads == 1:

        def together() -> float:
            start = clock()
            readers[0]()
            return (clock() - start) / 1e9

        return read / _least(together, LEAST_CALLS, seconds, clock)
    barrier = threading.Barrier(threads)

    def alone(reader: Callable[[], object]) -> tuple[int, int]:
        barrier.wait()
        start = clock()
        reader()
        return start, clock()

    fastest = math.inf
    for places in (_usable_cpus(), [None]):
        with ThreadPoolExecutor(threads, initializer=_stay, initargs=(itertools.cycle(places),)) as pool:

            def side_by_side(pool: ThreadPoolExecutor = pool) -> float:
                spans = list(pool.map(alone, readers))
                return (max(end for _, end in spans) - min(start for start, _ in spans)) / 1e9

            fastest = min(fastest, _least(side_by_side, LEAST_CALLS, seconds, clock))
    return read / fastest


def _usable_cpus() -> Sequence[int | None]:
    """The processors that this process may use; one None where the system does not tell."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else [None]


def _stay(places: Iterator[int | None]) -> None:
    """Keep the calling thread on the next processor; None leaves it where it is."""
    place = next(places)
    if place is not None:
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.sched_setaffinity(0, {place})


def _readers(memory: FloatArray, threads: int) -> tuple[Sequence[Callable[[], object]], int]:
    """What each thread does in one timed call, and how many bytes all of them read in it."""
    half = max(1, len(memory) // (2 * threads))
    row = min(ROW, half)
    rows = half // row
    half = rows * row
    times = max(1, READ_BYTES // (2 * half * memory.itemsize))

    def reader(thread: int) -> Callable[[], object]:
        own = memory[2 * half * thread : 2 * half * (thread + 1)].reshape(2, 1, rows, row)
        one, other = (np.broadcast_to(side, (times, rows, row)) for side in own)
        result = np.empty((times, rows), memory.dtype)
        return lambda: np.vecdot(one, other, out=result)

    return [reader(thread) for thread in range(threads)], 2 * half * threads * times * memory.itemsize


def _least(timed: Callable[[], float], least_calls: int, seconds: float, clock: Clock) -> float:
    """The least of what it gives, called at least so often and until so much time is over."""
    end, calls, least = clock() + round(seconds * 1e9), 0, math.inf
    while calls < least_calls or clock() < end:
        least, calls = min(least, timed()), calls + 1
    return max(least, 1e-9)  # a clock that has not moved on
