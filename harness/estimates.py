"""From the medians of instances to estimates; the stopping rule and the tables use the same functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any

from harness import stats

ONE_SIDED = NormalDist().inv_cdf(stats.CONFIDENCE)  # standard errors
Key = tuple[int, int, int]  # slice, process, instance
SUSTAINED, NOT_SUSTAINED, REFUSED = "sustained", "not sustained", "refused"  # of a load that was offered
GENERATOR_LATE = "the load generator was late"  # how the reason begins where that is why there is no limit


@dataclass(frozen=True, slots=True)
class Limit:
    """Where the limit of one worker lies.

    Attributes:
        sustained: the highest load that was, requests a second or streams; 0 if none was.
        not_sustained: the lowest above it that was not; infinite if no such load was tried.
    """

    sustained: float
    not_sustained: float

    @property
    def step(self) -> float:
        """How finely it is known: the logarithm of one load over the other; infinite where either is missing."""
        return math.log(self.not_sustained / self.sustained) if self.sustained else math.inf


def latency(medians: Mapping[Key, float]) -> stats.LogMean:
    """The typical latency: the mean of the logarithms of instances' medians.

    Instances of one process share what was decided when it started; `stats.nested_mean` looks whether that matters.

    Args:
        medians: of one trial and boundary, in seconds, positive.

    Raises:
        ValueError: no medians.
    """
    processes = _by_process({key: math.log(value) for key, value in medians.items()})
    if len(processes) == 1:  # what another process would have changed is unknown
        return stats.unit_mean([fmean(processes[0])], "process")
    return stats.nested_mean(processes)


def ratio(own: Mapping[Key, float], base: Mapping[Key, float]) -> stats.LogMean | None:
    """How many times as slow as the baseline, as the mean of logarithms of ratios; None where nothing can be paired.

    Sessions that were timed in turns within an instance are paired there, which cancels what the process and the
    moment do to both. Sessions of different runtimes never share a process; they share slices, and so the slice is
    the unit. Source: Bulej et al., "Duet benchmarking", ICPE 2020 (pairing); Kalibera & Jones, ISMM 2013 (units).

    Args:
        own, base: medians in seconds, positive.
    """
    shared = sorted(own.keys() & base.keys())
    if shared:
        return stats.nested_mean(_by_process({key: math.log(own[key] / base[key]) for key in shared}))
    mine, theirs = _by_slice(own), _by_slice(base)
    slices = sorted(mine.keys() & theirs.keys())
    return stats.unit_mean([mine[k] - theirs[k] for k in slices], "slice") if slices else None


def highest_load(probes: Sequence[tuple[float, str]]) -> float | None:
    """The highest load that was sustained; 0 if none was, None if the search came to no end.

    A search ends with a load that was judged. If its last probe was refused, the generator was too late to go on.

    Args:
        probes: each load with its verdict, in the order they were tried.
    """
    if not probes or probes[-1][1] == REFUSED:
        return None
    return max((load for load, verdict in probes if verdict == SUSTAINED), default=0.0)


def worker_limit(rows: Sequence[Mapping[str, Any]]) -> Limit | None:
    """The limit that one worker found: the highest load it confirmed, or of a search without confirmations sustained.

    Args:
        rows: of the loads table, of one worker, in the order they were offered.
    """
    judged = [row for row in rows if row.get("is_confirmation")] or rows
    found = highest_load([(amount(row), row["verdict"]) for row in judged])
    if found is None:
        return None
    above = [load for row in rows if row["verdict"] == NOT_SUSTAINED and (load := amount(row)) > found]
    return Limit(found, min(above, default=math.inf))


def coarseness(value: stats.LogMean, step: float) -> float:
    """What a mean over workers' limits is less certain by than their spread says, because limits lie on steps.

    A true limit lies anywhere within a step, so up to half a step from its middle. Where workers' steps lie
    differently, or their true limits differ by a step, the mean of many is better than that. Where all stopped at one
    load, or at two beside each other, all may be off by as much, and no further worker lessens it. So half a step is a
    bound of the error, in full if the limits do not spread at all, and less the nearer their variance is to step² / 3,
    which is more than two loads beside each other can have. As a standard error it is that which reaches the bound at
    the level of a gate.

    Source: this harness's own rule; its tests simulate how often intervals hold and gates pass what they should not.

    Args:
        value: the mean over workers.
        step: the root mean square of their steps; a natural logarithm.

    Returns:
        a standard error to widen by; a natural logarithm.
    """
    seen = value.standard_error**2 * value.units
    missing = math.sqrt(max(0.0, 1 - 3 * seen / step**2)) if step else 0.0
    return missing * step / 2 / ONE_SIDED


def amount(row: Mapping[str, Any]) -> float:
    """The load of a row of the loads table: requests a second, or streams."""
    rate = row["rate_per_s"]
    return float(row["streams"] if rate is None or math.isnan(rate) else rate)


def half_width(interval: stats.Estimate) -> float:
    """Half of an interval of logarithms, as a share: sqrt(high / low) - 1; NaN where its low end is not above 0."""
    return math.sqrt(interval.high / interval.low) - 1 if interval.low > 0 else math.nan


def _by_process(logs: Mapping[Key, float]) -> list[list[float]]:
    groups: dict[tuple[int, int], list[float]] = {}
    for (slice_, process, _), value in sorted(logs.items()):
        groups.setdefault((slice_, process), []).append(value)
    return list(groups.values())


def _by_slice(medians: Mapping[Key, float]) -> dict[int, float]:
    groups: dict[int, list[float]] = {}
    for (slice_, _, _), value in medians.items():
        groups.setdefault(slice_, []).append(math.log(value))
    return {slice_: fmean(values) for slice_, values in groups.items()}
