"""Capacity: the highest load that a variant sustains, over the workers that each looked for their own limit."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from statistics import median
from typing import Any

import pandas as pd

from harness import estimates, stats
from harness.store import Run
from harness.tables import KEY, SETTING, records

UNITS = {"server": "requests/s", "stream": "streams"}
AT_CAPACITY = ("misses", "p50_s", "p99_s", "mean_batch", "real_time_factor")
CAPACITY_COLUMNS = [
    *("trial", *KEY, "scenario", "batch", "time", "unit", "bound_s", "workers", "probes", "refused"),
    *("capacity", "capacity_low", "capacity_high", "is_capped", "none_sustained", "highest", "not_sustained"),
    *AT_CAPACITY,
    *("baseline", "ratio", "ratio_low", "ratio_high"),
]
NAN = stats.Estimate(math.nan, math.nan, math.nan, 0)


def capacity(run: Run) -> pd.DataFrame:
    """One row per load trial that is ok.

    Columns: `trial`, `variant`, `task`, `hidden_size`, `num_layers`, `device`, `dtype`, `threads`, `scenario`, `batch`
    (requests a call at most), `time`; `unit` of a load; `bound_s`; `workers` that found their limit; `probes` of all
    workers and how many of them were `refused`; `capacity` with `capacity_low` and `capacity_high`: the geometric mean
    of the workers' highest sustained loads, with Student's 95 % interval of the logarithms; 0 if a worker sustained
    nothing; `is_capped` if a worker sustained the highest load that is offered at all, so that the capacity is at
    least this; `none_sustained`, how many workers sustained nothing, and `highest`, the highest limit of any;
    `not_sustained`, the lowest load that a worker did not sustain; at the limit of each worker, the medians of
    `misses` (a share), `p50_s`, `p99_s`, `mean_batch` and `real_time_factor`; `baseline`, and `ratio` to its capacity
    with `ratio_low` and `ratio_high`, paired by slice: above 1 carries more; none where either is capped.
    """
    trials = records(run.trials[run.trials["kind"].eq("load") & run.trials["status"].eq("ok")])
    rows = {str(trial): records(own) for trial, own in run.loads.groupby("trial")} if len(run.loads) else {}
    limits = {trial["trial"]: _limits(rows.get(trial["trial"], [])) for trial in trials}
    points = {(trial["variant"], *_point(trial)): trial["trial"] for trial in trials}
    capped = {of for of, own in limits.items() if any(row["is_capped"] for row in _at_limits(rows.get(of, []), own))}
    found = []
    for trial in trials:
        base = points.get((trial["baseline"], *_point(trial)))
        found.append(_row(trial, rows.get(trial["trial"], []), limits, base, capped))
    return pd.DataFrame(found, columns=CAPACITY_COLUMNS)


def _point(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(trial[name] for name in (*SETTING, "scenario", "batch", "time"))


def _limits(rows: list[dict[str, Any]]) -> dict[estimates.Key, float]:
    """The limit that each worker found, by slice; no two workers share a process."""
    slices: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["slice"], row["probe"])):
        slices.setdefault(int(row["slice"]), []).append(row)
    highest = {slice_: estimates.worker_limit(own) for slice_, own in slices.items()}
    return {(slice_, slice_, 1): limit for slice_, limit in highest.items() if limit is not None}


def _row(
    trial: dict[str, Any],
    rows: list[dict[str, Any]],
    limits: Mapping[str, Mapping[estimates.Key, float]],
    base: Any,
    capped: Collection[str],
) -> dict[str, Any]:
    own = limits[trial["trial"]]
    at_limit = _at_limits(rows, own)
    lost = [estimates.amount(row) for row in rows if row["verdict"] == estimates.NOT_SUSTAINED]
    estimate = _estimate(list(own.values()))
    ratio = NAN if base is None or {base, trial["trial"]} & set(capped) else _ratio(own, limits[base])
    is_baseline = base == trial["trial"]
    return {
        **{name: trial[name] for name in ("trial", *KEY, "scenario", "batch", "time", "baseline")},
        "unit": UNITS[trial["scenario"]],
        "bound_s": rows[0]["bound_s"] if rows else math.nan,
        "workers": len(own),
        "probes": len(rows),
        "refused": sum(row["verdict"] == estimates.REFUSED for row in rows),
        "capacity": estimate.value,
        "capacity_low": estimate.low,
        "capacity_high": estimate.high,
        "is_capped": trial["trial"] in capped,
        "none_sustained": sum(limit == 0.0 for limit in own.values()),
        "highest": max(own.values(), default=math.nan),
        "not_sustained": min(lost, default=math.nan),
        **{name: median([row[name] for row in at_limit]) if at_limit else math.nan for name in AT_CAPACITY},
        "ratio": 1.0 if is_baseline else ratio.value,
        "ratio_low": 1.0 if is_baseline else ratio.low,
        "ratio_high": 1.0 if is_baseline else ratio.high,
    }


def _at_limits(rows: list[dict[str, Any]], limits: Mapping[estimates.Key, float]) -> list[dict[str, Any]]:
    """Of each worker the probe that its limit comes from, with its misses as a share; the last, as it was confirmed."""
    found = []
    for (slice_, _, _), limit in limits.items():
        own = [row for row in rows if row["slice"] == slice_ and row["verdict"] == estimates.SUSTAINED]
        own = sorted((row for row in own if estimates.amount(row) == limit), key=lambda row: row["probe"])
        found += [row | {"misses": row["misses"] / row["judged"]} for row in own[-1:]]
    return found


def _estimate(limits: list[float]) -> stats.Estimate:
    if not limits:
        return NAN
    if min(limits) == 0.0:  # as is their geometric mean; a logarithm there is none
        return stats.Estimate(0.0, math.nan, math.nan, len(limits))
    return stats.estimate(stats.unit_mean([math.log(limit) for limit in limits], "process"))


def _ratio(own: Mapping[estimates.Key, float], base: Mapping[estimates.Key, float]) -> stats.Estimate:
    slices = sorted({key for key in own if key in base})
    if not slices or min(*(own[key] for key in slices), *(base[key] for key in slices)) == 0.0:
        return NAN
    return stats.estimate(stats.unit_mean([math.log(own[key] / base[key]) for key in slices], "slice"))
