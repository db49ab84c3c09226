"""What is timed: two recurrent loops, and the same loops made slower by a few more steps of the same work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from harness.catalog import discover
from harness.contract import Inputs, LayerSize, SessionOptions
from harness.parity import probe_weights

COPIES = 18  # identical arms, so nine pairs that share no arm
SLOWED_COPIES = {1: 3, 2: 3, 5: 1}  # arms by percent of slowdown, each with an identical arm of its own to compare with
SLOWDOWNS_PERCENT = tuple(SLOWED_COPIES)


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a comparison: a session called with sequences of `time` steps."""

    name: str
    time: int


@dataclass(frozen=True, slots=True)
class Workload:
    """A variant of the installed plugins, and the sizes that it is called with.

    Attributes:
        time: steps of the unslowed arms.
        more_steps: percent of slowdown to the steps that plant it. Where a call has fixed costs it takes more than that
            percentage of the steps. What the slowdown then is in time, on the machine at hand, is measured and printed.
        instances: sessions a process; more where a process is dear to start.
        calls: counted calls of an arm and instance; more where a call is short, so that an instance outlasts a burst.
    """

    name: str
    model: str
    runtime: str
    size: LayerSize
    time: int
    more_steps: Mapping[int, int]
    instances: int
    calls: int

    def arm(self, name: str) -> Arm:
        """The arm of that name: `A1`, `A2`, ... are identical; `+2%`, `+2%-2`, ... are slower by 2 %."""
        percent = int(name[1:].partition("%")[0]) if name.startswith("+") else 0
        return Arm(name, self.time + (self.more_steps[percent] if percent else 0))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("numpy", "numpy-lstm", "numpy", LayerSize(8, 32), 300, {1: 3, 2: 6, 5: 15}, instances=4, calls=20),
        Workload("torch", "torch-lstm", "eager", LayerSize(8, 64), 200, {1: 3, 2: 5, 5: 13}, instances=8, calls=40),
        Workload("null", "null", "numpy", LayerSize(1, 1), 1, {}, instances=4, calls=35),
    )
}


def identical_arms(copies: int = COPIES) -> list[str]:
    """The names of the arms that do exactly the same."""
    return [f"A{k + 1}" for k in range(copies)]


def slowed_arm(percent: int, copy: int = 1) -> str:
    """The name of an arm that is slower by that many percent."""
    return f"+{percent}%" if copy == 1 else f"+{percent}%-{copy}"


def slowed_arms() -> list[str]:
    """The names of all of them."""
    return [slowed_arm(percent, k + 1) for percent, copies in SLOWED_COPIES.items() for k in range(copies)]


def identical_pairs(arms: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of the identical arms among these that share none: (A1, A2), (A3, A4), ..."""
    copies = [name for name in arms if name.startswith("A")]
    return list(zip(copies[::2], copies[1::2], strict=False))


def planted_pairs(arms: Collection[str], percent: int) -> list[tuple[str, str]]:
    """Pairs of an arm slowed so and an identical one, among these, that share none: (+2%, A1), (+2%-2, A2), ..."""
    pairs = [(slowed_arm(percent, k + 1), f"A{k + 1}") for k in range(SLOWED_COPIES[percent])]
    return [pair for pair in pairs if set(pair) <= set(arms)]


def opened_call(workload: Workload, arm: Arm) -> Callable[[], Any]:
    """The very call that the compute boundary times, on a session opened in this process; for the other tools."""
    catalog = discover()
    model = catalog.model(workload.model)
    options = SessionOptions(workload.size)
    weights = probe_weights(model.architecture, options.size, options.dtype)
    session = catalog.runtime(workload.runtime).open(model, weights, options)
    x = np.random.default_rng(0).standard_normal((1, arm.time, workload.size.input_size)).astype(options.dtype)
    prepared = session.prepare(Inputs(x))
    return partial(session.run, prepared)
