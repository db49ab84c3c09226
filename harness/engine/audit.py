"""The worker's side of audits: what the kept outputs of timed calls are worth, and what this processor can do."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import Architecture, Outputs, SessionOptions
from harness.engine.timing import Witness
from harness.parity import Observation, compare

if TYPE_CHECKING:
    from harness.contract import FloatArray

PRODUCT_SIZE, PRODUCTS = 384, 8  # a few ms, and large enough to be near what is attainable
CASE = "a timed call"


def witnessed(
    witness: Witness, architecture: Architecture, weights: Mapping[str, FloatArray], options: SessionOptions
) -> tuple[list[Observation], int, int]:
    """How far kept outputs are from the oracle, how many of their inputs were changed, and a call's bytes."""
    exact_dtype = "longdouble" if options.dtype == "float64" else "float64"
    exact = {name: array.astype(exact_dtype) for name, array in weights.items()}
    observations: list[Observation] = []
    changed = moved = 0
    for before, after, outputs in witness.kept:
        changed += not np.array_equal(before.x, after.x)
        if not isinstance(outputs, Outputs):
            problem = f"a {type(outputs).__name__} instead of Outputs"
            observations.append(Observation(CASE, "y", np.inf, np.inf, 0.0, problem))
            continue
        observations += compare(
            CASE, architecture, outputs, architecture.reference(exact, before, options.size), options.dtype
        )
        moved = before.x.nbytes + sum(np.asarray(part).nbytes for part in (outputs.y, *outputs.state))
    return observations, changed, moved


def flops_of(weights: Mapping[str, FloatArray], batch: int, time: int) -> float:
    """The floating-point operations of a forward pass's matrix products.

    2 for every element of a weight matrix, row and step: each is read at every step, multiplied and added.
    """
    return 2.0 * batch * time * sum(array.size for array in weights.values() if array.ndim == 2)


def peak_flops_per_s(dtype: str) -> float:
    """What NumPy's product of two square matrices attains at best in this process, with the threads it has."""
    matrix = np.ones((PRODUCT_SIZE, PRODUCT_SIZE), dtype)
    fastest = float("inf")
    for _ in range(PRODUCTS):
        start = perf_counter_ns()
        matrix @ matrix
        fastest = min(fastest, (perf_counter_ns() - start) / 1e9)
    return 2.0 * PRODUCT_SIZE**3 / fastest
