"""Capacity: the highest load that a variant sustains, over the workers that each looked for their own limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import pandas as pd

from harness import estimates, stats
from harness.estimates import Limit
from harness.store import Run
from harness.tables import KEY, SETTING, records, sampling
from harness.verdicts import judge

UNITS = {"server": "requests/s", "stream": "streams"}
AT_CAPACITY = ("misses", "p50_s", "p99_s", "mean_batch", "real_time_factor")
CAPACITY_COLUMNS = [
    *("trial", *KEY, "scenario", "batch", "time", "unit", "bound_s", "workers", "probes", "refused"),
    *("capacity", "capacity_low", "capacity_high", "is_capped", "none_sustained", "highest", "not_sustained"),
    *AT_CAPACITY,
    *("baseline", "ratio", "ratio_low", "ratio_high", "verdict"),
]
NAN = stats.Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the workers of one load trial found.

    Attributes:
        by_slice: the limit of every worker that found one; a slice has one worker a trial.
        is_capped: a worker sustained the highest load that is offered at all.
        least: the lowest load that was offered; NaN where none was.
        refuted: the lowest load that was not sustained; NaN where none was.
        bound_s: what latencies were held against; NaN where no load was offered.
        is_confirmed: limits were confirmed by longer probes.
    """

    by_slice: Mapping[int, Limit]
    is_capped: bool
    least: float
    refuted: float
    bound_s: float
    is_confirmed: bool

    @property
    def none_sustained(self) -> int:
        """How many workers sustained nothing."""
        return sum(limit.sustained == 0.0 for limit in self.by_slice.values())

    @property
    def is_open(self) -> bool:
        """Is a limit only the highest load that was tried, so that the capacity is at least this?"""
        limits = self.by_slice.values()
        return self.is_capped or any(math.isinf(limit.step) for limit in limits if limit.sustained)

    @property
    def has_ratio(self) -> bool:
        """Can another capacity be held against it?"""
        return bool(self.by_slice) and not self.none_sustained and not self.is_open

    def only(self, slices: Iterable[int]) -> Limits:
        """The same of these slices' workers."""
        return replace(self, by_slice={slice_: self.by_slice[slice_] for slice_ in slices})

    @property
    def mean(self) -> stats.LogMean:
        """The mean of the logarithms of workers' limits, of which none may be 0.

        Raises:
            ValueError: no worker found its limit.
        """
        return stats.unit_mean([math.log(limit.sustained) for limit in self.by_slice.values()], "process")

    @property
    def coarseness(self) -> float:
        """By what the mean is less certain than the workers' spread says; 0 where a limit is only what was tried."""
        return 0.0 if self.is_open else estimates.coarseness(self.mean, self.step)

    @property
    def step(self) -> float:
        """How finely workers' limits are known: the root mean square of their steps, as natural logarithms."""
        return math.sqrt(fmean(limit.step**2 for limit in self.by_slice.values()))


@dataclass(frozen=True, slots=True)
class CapacityRatio:
    """One capacity over another.

    Attributes:
        value: the logarithm of the ratio; its error contains `coarseness`.
        coarseness: the part of the error that more workers would not lessen: how finely the search tells loads apart.
    """

    value: stats.LogMean
    coarseness: float


def paired(own: Limits, base: Limits) -> CapacityRatio | None:
    """The ratio of two capacities of one run, paired by slice; None where they share no slice.

    Both must have a ratio (`Limits.has_ratio`).
    """
    slices = sorted(own.by_slice.keys() & base.by_slice.keys())
    if not slices:
        return None
    mine, theirs = own.only(slices), base.only(slices)
    logs = [math.log(mine.by_slice[slice_].sustained / theirs.by_slice[slice_].sustained) for slice_ in slices]
    value = stats.unit_mean(logs, "slice")
    return _on_steps(value, mine, theirs, estimates.coarseness(value, mine.step + theirs.step))


def apart(own: Limits, base: Limits) -> CapacityRatio:
    """The ratio of two capacities of separate runs, unpaired, by Welch's test over workers.

    Both must have a ratio (`Limits.has_ratio`).
    """
    return _on_steps(stats.difference(own.mean, base.mean), own, base)


def _on_steps(value: stats.LogMean, own: Limits, base: Limits, of_pairs: float = 0.0) -> CapacityRatio:
    """The ratio, less certain by how coarse its sides or its pairs are, and by half of what the sides' steps differ.

    A limit is the lower end of its step, so the side with the wider steps is told too low by more. Pairs may agree only
    because both sides of each were moved together from step to step, which the spread of either side does not show.
    """
    steps = [fmean(limit.step for limit in side.by_slice.values()) for side in (own, base)]
    of_sides = own.coarseness + base.coarseness
    coarseness = max(of_sides, of_pairs) + abs(steps[0] - steps[1]) / 2 / estimates.ONE_SIDED
    return CapacityRatio(stats.widened(value, coarseness), coarseness)


def capacity(run: Run) -> pd.DataFrame:
    """One row per load trial that is ok.

    Columns: `trial`, `variant`, `task`, `hidden_size`, `num_layers`, `device`, `dtype`, `threads`, `scenario`, `batch`
    (requests a call at most), `time`; `unit` of a load; `bound_s`; `workers` that found their limit; `probes` of all
    workers and how many of them were `refused`; `capacity` with `capacity_low` and `capacity_high`: the geometric mean
    of the workers' highest sustained loads, with Student's 95 % interval of the logarithms, not narrower than the
    search's steps allow (`harness.estimates.coarseness`); 0 if a worker sustained
    nothing; `is_capped` if a worker sustained the highest load that is offered at all, so that the capacity is at
    least this; `none_sustained`, how many workers sustained nothing, and `highest`, the highest limit of any;
    `not_sustained`, the lowest load that a worker did not sustain; at the limit of each worker, the medians of
    `misses` (a share), `p50_s`, `p99_s`, `mean_batch` and `real_time_factor`; `baseline`, and `ratio` to its capacity
    with `ratio_low` and `ratio_high`, paired by slice: above 1 carries more; none where either is capped; `verdict`,
    which holds over all rows of this table together.
    """
    wanted = run.trials["kind"].eq("load") & run.trials["status"].eq("ok") & run.trials["scenario"].isin(list(UNITS))
    trials = records(run.trials[wanted])
    rows, limits = _rows(run), limits_by_trial(run)
    points = {(trial["variant"], *_point(trial)): trial["trial"] for trial in trials}
    found: list[dict[str, Any]] = []
    ratios: dict[int, stats.LogMean] = {}
    for trial in trials:
        own, base = limits[trial["trial"]], points.get((trial["baseline"], *_point(trial)))
        row = _row(trial, rows.get(trial["trial"], []), own)
        if base == trial["trial"]:
            row |= dict.fromkeys(("ratio", "ratio_low", "ratio_high"), 1.0)
        elif base and own.has_ratio and limits[base].has_ratio and (ratio := paired(own, limits[base])):
            ratios[len(found)] = ratio.value
            interval = stats.estimate(ratio.value)
            row |= {"ratio": interval.value, "ratio_low": interval.low, "ratio_high": interval.high}
        found.append(row)
    words = judge(list(ratios.values()), sampling(run).tolerance, metric="capacity")
    for place, word in zip(ratios, words, strict=True):
        found[place]["verdict"] = word
    return pd.DataFrame(found, columns=CAPACITY_COLUMNS)


def limits_by_trial(run: Run) -> dict[str, Limits]:
    """What the workers of every load trial found, whatever became of the trial."""
    rows = _rows(run)
    return {trial: _limits(rows.get(trial, [])) for trial in run.trials.loc[run.trials["kind"].eq("load"), "trial"]}


def _rows(run: Run) -> dict[str, list[dict[str, Any]]]:
    return {str(trial): records(own) for trial, own in run.loads.groupby("trial")} if len(run.loads) else {}


def _point(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(trial[name] for name in (*SETTING, "scenario", "batch", "time"))


def _limits(rows: list[dict[str, Any]]) -> Limits:
    slices: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["slice"], row["probe"])):
        slices.setdefault(int(row["slice"]), []).append(row)
    known = {slice_: estimates.worker_limit(own) for slice_, own in slices.items()}
    found = {slice_: limit for slice_, limit in known.items() if limit is not None}
    is_capped = any(row["is_capped"] for row in _at_limits(rows, found))
    bound_s = rows[0]["bound_s"] if rows else math.nan
    refuted = [row for row in rows if row["verdict"] == estimates.NOT_SUSTAINED]
    least, least_refuted = (min(map(estimates.amount, own), default=math.nan) for own in (rows, refuted))
    is_confirmed = any(row.get("is_confirmation") for row in rows)
    return Limits(found, is_capped, least, least_refuted, bound_s, is_confirmed)


def _row(trial: dict[str, Any], rows: list[dict[str, Any]], own: Limits) -> dict[str, Any]:
    """A row without its ratio and verdict."""
    at_limit = _at_limits(rows, own.by_slice)
    lost = [estimates.amount(row) for row in rows if row["verdict"] == estimates.NOT_SUSTAINED]
    estimate = _estimate(own)
    return {
        **{name: trial[name] for name in ("trial", *KEY, "scenario", "batch", "time", "baseline")},
        "unit": UNITS[trial["scenario"]],
        "bound_s": own.bound_s,
        "workers": len(own.by_slice),
        "probes": len(rows),
        "refused": sum(row["verdict"] == estimates.REFUSED for row in rows),
        "capacity": estimate.value,
        "capacity_low": estimate.low,
        "capacity_high": estimate.high,
        "is_capped": own.is_capped,
        "none_sustained": own.none_sustained,
        "highest": max((limit.sustained for limit in own.by_slice.values()), default=math.nan),
        "not_sustained": min(lost, default=math.nan),
        **{name: median([row[name] for row in at_limit]) if at_limit else math.nan for name in AT_CAPACITY},
        **dict.fromkeys(("ratio", "ratio_low", "ratio_high"), math.nan),
        "verdict": None,
    }


def _at_limits(rows: list[dict[str, Any]], limits: Mapping[int, Limit]) -> list[dict[str, Any]]:
    """Of each worker the probe that its limit comes from, with its misses as a share; the last, as it was confirmed."""
    found = []
    for slice_, limit in limits.items():
        own = [row for row in rows if row["slice"] == slice_ and row["verdict"] == estimates.SUSTAINED]
        own = sorted((row for row in own if estimates.amount(row) == limit.sustained), key=lambda row: row["probe"])
        found += [row | {"misses": row["misses"] / row["judged"]} for row in own[-1:]]
    return found


def _estimate(own: Limits) -> stats.Estimate:
    if not own.by_slice:
        return NAN
    if own.none_sustained:  # 0 is their geometric mean too; a logarithm there is none
        return stats.Estimate(0.0, math.nan, math.nan, len(own.by_slice))
    return stats.estimate(stats.widened(own.mean, own.coarseness))
