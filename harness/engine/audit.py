"""The worker's side of audits: what the kept outputs of timed calls are worth, and what this processor can do."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

import psutil

from harness.audits import RESTING_CORES, Evidence
from harness.contract import Architecture, HarnessError, SessionOptions
from harness.engine.calls import Witness
from harness.engine.machine import product_flops_per_s
from harness.engine.process_tree import cpu_seconds, tree
from harness.parity import Observation, compare, exact_weights, same

if TYPE_CHECKING:
    from harness.contract import FloatArray

IDLE_WINDOW_SECONDS, IDLE_MOST_SECONDS = 0.02, 1.0
CHILDREN_WINDOW_SECONDS = 0.2  # the system counts other processes' time in steps of 10 ms
PRODUCT_SIZE, PRODUCTS = 384, 8  # a few ms, and large enough to be near what is attainable
CASE = "a timed call"


def witnessed(
    witness: Witness, architecture: Architecture, weights: Mapping[str, FloatArray], options: SessionOptions
) -> tuple[list[Observation], int, int]:
    """How far kept outputs are from the oracle, how many of their inputs were changed, and a call's bytes."""
    exact = exact_weights(weights, options.dtype)
    observations: list[Observation] = []
    changed = moved = 0
    for before, after, outputs in witness.kept:
        changed += not same(before, after)
        try:
            reference = architecture.reference(exact, before, options.size)
            observations += compare(CASE, architecture, outputs, reference, options.dtype)
        except HarnessError as error:
            observations.append(Observation(CASE, "y", math.inf, math.inf, 0.0, str(error)))
            continue
        arrays = (before.x, *(before.state or ()), outputs.y, *outputs.state)
        moved += sum(getattr(part, "nbytes", 0) for part in arrays)
    return observations, changed, moved // max(1, witness.kept_calls)


def evidence_of(
    witness: Witness,
    compute_s: float,
    steps: int,
    architecture: Architecture,
    weights: Mapping[str, FloatArray],
    options: SessionOptions,
    peak_flops_per_s: float | None,
) -> Evidence:
    """What was seen beside calls that took so long and computed so many steps; see `Evidence`."""
    outputs, changed, moved = witnessed(witness, architecture, weights, options)
    return Evidence(
        compute_s=compute_s,
        around_s=median(witness.around_s) if witness.around_s else 0.0,
        moved_bytes=moved,
        flops=flops_of(weights, 1, steps),
        peak_flops_per_s=peak_flops_per_s,
        repeated_s=median(witness.repeated_s) if witness.repeated_s else None,
        outputs=outputs,
        changed_inputs=changed,
        host_s=median(witness.host_s) if witness.host_s else None,
    )


def flops_of(weights: Mapping[str, FloatArray], batch: int, time: int) -> float:
    """The floating-point operations of a forward pass's matrix products.

    2 for every element of a weight matrix, row and step: each is read at every step, multiplied and added.
    """
    return 2.0 * batch * time * sum(array.size for array in weights.values() if array.ndim == 2)


def peak_flops_per_s(dtype: str, threads: int) -> float:
    """What NumPy's product of two square matrices attains at best in this process, with as many threads."""
    return product_flops_per_s(PRODUCT_SIZE * math.isqrt(threads), dtype, 1, PRODUCTS)  # more threads need more work


def busy_cores() -> float:
    """How many cores this process and its descendants keep busy while nothing is asked of it.

    Threads may spin for a moment after a call. So it waits for a window of 20 ms, or 200 ms with descendants, below
    0.2 cores, for 1 s at most; the last window counts.
    """
    this, end = psutil.Process(), time.monotonic() + IDLE_MOST_SECONDS
    while True:
        below = cpu_seconds(tree(this)[1:])
        begin, own = time.monotonic(), time.process_time()
        threading.Event().wait(CHILDREN_WINDOW_SECONDS if below else IDLE_WINDOW_SECONDS)
        used, seconds = time.process_time() - own, time.monotonic() - begin
        used += sum(now - below.get(process, 0.0) for process, now in cpu_seconds(tree(this)[1:]).items())
        if used < RESTING_CORES * seconds or begin + seconds >= end:
            return used / seconds
