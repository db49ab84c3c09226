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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from harness.limits import Attained

if TYPE_CHECKING:
    from harness.contract import FloatArray

Clock = Callable[[], int]  # in nanoseconds
Work = Callable[[], object]
PRODUCT_SIZES = (256, 384, 512, 768, 1024)
WORKING_SETS_BYTES = tuple(2**power for power in range(14, 29))  # 16 KiB to 256 MiB
READ_BYTES = 2**26  # a thread reads so much in one timed call: some 0.3 ms at the least, so that starting it is little
ROW = 2048  # numbers of a dot product: no BLAS gives parts of so few to other threads
PRODUCT_SECONDS, READ_SECONDS = 0.1, 0.05  # for each of these
LEAST_CALLS = 3


def attained(dtype: str, threads: int) -> list[Attained]:
    """Products of square matrices of every size, and reading of every working set, in some 2 s.

    Args:
        dtype: of the numbers.
        threads: how many multiply and read at once, each for itself. A BLAS must not start its own in this process:
            on a busy machine these wait for each other so long that products look ten times as slow as they are.
    """
    item = np.dtype(dtype).itemsize
    rows = []
    for size in PRODUCT_SIZES:
        flops_per_s = product_flops_per_s(size, dtype, threads, LEAST_CALLS, PRODUCT_SECONDS)
        rows.append(Attained("flops", threads * 3 * size**2 * item, flops_per_s=flops_per_s))
    memory = np.ones(max(WORKING_SETS_BYTES) // item, dtype)
    for working_set in WORKING_SETS_BYTES:
        bytes_per_s = read_bytes_per_s(memory[: working_set // item], threads, READ_SECONDS)
        rows.append(Attained("read", working_set, bytes_per_s=bytes_per_s))
    return rows


def product_flops_per_s(
    size: int, dtype: str, threads: int, least_calls: int, seconds: float = 0.0, clock: Clock = perf_counter_ns
) -> float:
    """What NumPy's products of two square matrices attain together at best, in 2 n³ operations a product.

    Args:
        size: n.
        dtype: of the numbers.
        threads: how many multiply at once, each its own matrices.
        least_calls: so many products of each at least.
        seconds: and more, until so much time is over.
        clock: in nanoseconds.
    """

    def multiplier() -> Work:
        matrix, result = np.ones((size, size), dtype), np.empty((size, size), dtype)
        return lambda: np.matmul(matrix, matrix, out=result)

    return threads * 2.0 * size**3 / _least_s([multiplier() for _ in range(threads)], least_calls, seconds, clock)


def read_bytes_per_s(memory: FloatArray, threads: int, seconds: float, clock: Clock = perf_counter_ns) -> float:
    """How many bytes a second threads read together at best, each its own part of an array again and again.

    They read by dot products of short rows, which is the fastest that NumPy has: a dot product makes the least of what
    it reads, keeps nothing, and one call makes many, so no Python runs between them. NumPy lets go of the interpreter's
    lock meanwhile.

    Args:
        memory: the working set.
        threads: how many.
        seconds: it is repeated until so much time is over.
        clock: in nanoseconds.
    """
    half = max(1, len(memory) // (2 * threads))
    row = min(ROW, half)
    rows = half // row
    half = rows * row
    times = max(1, READ_BYTES // (2 * half * memory.itemsize))

    def reader(thread: int) -> Work:
        own = memory[2 * half * thread : 2 * half * (thread + 1)].reshape(2, 1, rows, row)
        one, other = (np.broadcast_to(side, (times, rows, row)) for side in own)
        result = np.empty((times, rows), memory.dtype)
        return lambda: np.vecdot(one, other, out=result)

    read = 2 * half * threads * times * memory.itemsize
    return read / _least_s([reader(thread) for thread in range(threads)], LEAST_CALLS, seconds, clock)


def _least_s(works: Sequence[Work], least_calls: int, seconds: float, clock: Clock) -> float:
    """The least time in seconds from the first start to the last end, when each is done once by a thread of its own.

    Threads are tried each on a processor of its own, for a busy system leaves them one after the other on the same, and
    also where the system puts them, for it knows which processors share a core.
    """
    barrier = threading.Barrier(len(works))

    def alone(work: Work) -> tuple[int, int]:
        barrier.wait()
        start = clock()
        work()
        return start, clock()

    def timed(do: Callable[..., Iterable[tuple[int, int]]]) -> float:
        spans = list(do(alone, works))
        return (max(end for _, end in spans) - min(start for start, _ in spans)) / 1e9

    if len(works) == 1:
        return _least(lambda: timed(map), least_calls, seconds, clock)
    found = []
    for places in (_usable_cpus(), [None]):
        with ThreadPoolExecutor(len(works), initializer=_stay, initargs=(itertools.cycle(places),)) as pool:
            found.append(_least(partial(timed, pool.map), least_calls, seconds, clock))
    return min(found)


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


def _least(timed: Callable[[], float], least_calls: int, seconds: float, clock: Clock) -> float:
    """The least of what it gives, called at least so often and until so much time is over."""
    end, calls, least = clock() + round(seconds * 1e9), 0, math.inf
    while calls < least_calls or clock() < end:
        least, calls = min(least, timed()), calls + 1
    return max(least, 1e-9)  # a clock that has not moved on
