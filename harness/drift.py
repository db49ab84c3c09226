"""What the machine did between two runs, as the canary in every worker saw it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness import stats
from harness.sides import Side


@dataclass(frozen=True, slots=True)
class Drift:
    """What the canary did between two runs while a task was timed: the logarithm of NEW over BASE; None is unknown."""

    task: str | None
    shift: stats.LogMean | None

    @property
    def spread(self) -> float:
        """The standard error that intervals are widened by: the shift and its own error together."""
        return math.hypot(self.shift.mean, self.shift.standard_error) if self.shift else 0.0

    @property
    def lasting(self) -> float:
        """The part of it that more measuring would not lessen: a shift that is more than the canary's own noise."""
        return abs(self.shift.mean) if self.shift and stats.p_different(self.shift) < 1 - stats.CONFIDENCE else 0.0

    def said(self, new: str = "NEW") -> str:
        """What it did, as a sentence in which NEW has this name."""
        where = f"While {self.task} was timed, " if self.task else ""
        if self.shift is None:
            return f"{where}how the machine drifted is unknown (no canary in both): the intervals hold if it did not."
        found = stats.estimate(self.shift)
        moved, low, high = (100 * (value - 1) for value in (found.value, found.low, found.high))
        what = f"{abs(moved):.1f} % {'slower' if moved > 0 else 'faster'}" if abs(moved) >= 0.05 else "as fast"
        known = "its error unknown" if math.isnan(low) else f"{low:+.1f} to {high:+.1f} %"
        return f"{where}the machine itself was {what} in {new} ({known}), which widens the intervals."

    def __str__(self) -> str:
        return self.said()


def drift_between(base: Side, new: Side, task: str | None) -> Drift:
    """The canary's shift, over the runtimes that both have; a slice is the unit, as its processes share the moment."""
    sides = [[row for row in side.canaries if row["task"] == task] for side in (base, new)]
    runtimes = {row["runtime"] for row in sides[0]} & {row["runtime"] for row in sides[1]}
    if not runtimes:
        return Drift(task, None)
    means = []
    for side in sides:
        canaries = pd.DataFrame(side).query("runtime in @runtimes").set_index("slice")["canary_s"]
        means.append(stats.unit_mean(np.log(canaries).groupby(level=0).mean().tolist(), "slice"))
    return Drift(task, stats.difference(means[1], means[0]))
