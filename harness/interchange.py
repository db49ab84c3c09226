"""A run's latencies in the forms that other tools read: pure functions of a run that give plain data for JSON.

Sources: what pytest-benchmark 5.3 writes with `--benchmark-json` and reads with `pytest-benchmark compare`;
github-action-benchmark's page on `customSmallerIsBetter`; Bencher's page on the Bencher Metric Format, with its schema.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import mean, median, stdev
from typing import Any

import pandas as pd

import harness
from harness.contract import MOST_REASON, HarnessError, printable
from harness.formatting import seconds
from harness.samples import iterations
from harness.sides import Point
from harness.store import Run
from harness.tables import KEY, instance_calls, records

NANOSECONDS = 1e9  # in a second: the unit of Bencher's own measure `latency`
WHISKER = 1.5  # interquartile ranges
OURS = "geometric mean of the instances' medians, with its 95 % interval within this run"
THEIRS = "of all counted calls, pooled; neither the mean nor its stddev is our estimate or its error"


@dataclass(frozen=True)
class Timed:
    """A row of the latency table with what another tool must know beside it.

    Attributes:
        name: the variant.
        group: what rows have in common that may be compared: shape, task, setting and boundary, in words.
        point: the same, and the variant, as values.
        row: of the latency table.
        parity: what came of the variant's parity trial.
        compute_dtype: the format in which it computes.
        calls: those that count, in the order they were made, in seconds.
        iterations: calls behind each of these, which is their mean.
    """

    name: str
    group: str
    point: Point
    row: dict[str, Any]
    parity: str
    compute_dtype: str
    calls: list[float]
    iterations: int

    @property
    def fullname(self) -> str:
        """One name for both, the same in every run."""
        return f"{self.group}::{self.name}"


def pytest_benchmark(run: Run) -> dict[str, Any]:
    """What pytest-benchmark would have written of these calls: one benchmark a row of the latency table, in seconds.

    Its statistics are those of pooled calls. Our estimate and interval are in `extra_info`.

    Raises:
        HarnessError: the run has no latency.
    """
    facts = run.environment
    commit = facts.get("commit")
    system, _, release = str(facts.get("os") or "").partition("-")
    return {
        "machine_info": {
            "node": "",
            "processor": facts.get("cpu_model") or "",
            "machine": facts.get("machine"),
            "python_implementation": facts.get("python_implementation"),
            "python_implementation_version": facts.get("python"),
            "python_version": facts.get("python"),
            "release": release,
            "system": system,
            "cpu": {"brand_raw": facts.get("cpu_model"), "count": facts.get("cpu_logical_count")},
        },
        "commit_info": {
            "id": str(commit).removesuffix("+changes") if commit else "unversioned",
            "time": None,
            "author_time": None,
            "dirty": str(commit).endswith("+changes"),
            "project": "" if "imported" in run.header else "rnn-harness",
            "branch": "(unknown)",
        },
        "benchmarks": [_benchmark(timed) for timed in _timed(run)],
        "datetime": facts.get("started_utc"),
        "version": f"rnn-harness {harness.__version__}",
    }


def github_action_benchmark(run: Run) -> list[dict[str, Any]]:
    """What github-action-benchmark takes as `customSmallerIsBetter`: one entry a row of the latency table.

    `value` is our estimate in nanoseconds. `range` is half of its interval, left out where that is unknown.

    Raises:
        HarnessError: the run has no latency.
    """
    entries = []
    for timed in _timed(run):
        row = timed.row
        if not _is_number(row["latency_s"]):
            continue
        entry = {"name": timed.fullname, "unit": "ns", "value": NANOSECONDS * row["latency_s"]}
        interval = "95 % interval: unknown"
        if _has_interval(row):
            low, high = row["latency_low_s"], row["latency_high_s"]
            entry["range"] = f"± {NANOSECONDS * (high - low) / 2:.6g}"
            interval = f"95 % interval: {seconds(low)} to {seconds(high)}, over {row['latency_unit']} medians"
        verdict = "" if pd.isna(row["verdict"]) else f"\nagainst {printable(row['baseline'])}: {row['verdict']}"
        counts = f"{row['samples']} calls in {row['processes']} processes"
        entry["extra"] = f"{interval}\nparity: {timed.parity}\n{counts}{verdict}"
        entries.append(entry)
    return entries


def bmf(run: Run) -> dict[str, dict[str, dict[str, float]]]:
    """The Bencher Metric Format: of every row of the latency table the measure `latency`, in nanoseconds.

    `lower_value` and `upper_value` are the ends of our interval, left out where it is unknown.

    Raises:
        HarnessError: the run has no latency.
    """
    found = {}
    for timed in _timed(run):
        row = timed.row
        if not _is_number(row["latency_s"]):
            continue
        names = {"value": "latency_s"}
        if _has_interval(row):
            names |= {"lower_value": "latency_low_s", "upper_value": "latency_high_s"}
        found[timed.fullname] = {"latency": {name: NANOSECONDS * row[column] for name, column in names.items()}}
    return found


def pooled_stats(calls: Sequence[float]) -> dict[str, Any]:
    """The statistics that pytest-benchmark 5.3 keeps of a benchmark, in seconds and by its definitions.

    Quartiles of an even number of calls are the medians of its halves. Of an odd number they lie between two calls, a
    quarter or three quarters of the way. Outliers are further than `stddev` from the mean, or further than 1.5 times
    `iqr` beyond a quartile.

    Args:
        calls: at least one.
    """
    ordered = sorted(calls)
    middle, spread, total = mean(ordered), stdev(ordered) if len(ordered) > 1 else 0.0, sum(calls)
    q1, q3 = _quartiles(ordered)
    low, high = q1 - WHISKER * (q3 - q1), q3 + WHISKER * (q3 - q1)
    far = sum(not middle - spread <= value <= middle + spread for value in ordered)
    beyond = sum(not low <= value <= high for value in ordered)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": middle,
        "stddev": spread,
        "rounds": len(ordered),
        "median": median(ordered),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": far,
        "outliers": f"{far};{beyond}",
        "ld15iqr": ordered[min(bisect_left(ordered, low), len(ordered) - 1)],
        "hd15iqr": ordered[max(bisect_right(ordered, high) - 1, 0)],
        "ops": len(ordered) / total if total else 0,
        "total": total,
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    count = len(ordered)
    if count == 1:
        return ordered[0], ordered[0]
    if count % 2 == 0:
        return median(ordered[: count // 2]), median(ordered[count // 2 :])
    n, rest = divmod(count, 4)
    if rest == 1:
        return 0.25 * ordered[n - 1] + 0.75 * ordered[n], 0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1]
    return 0.75 * ordered[n] + 0.25 * ordered[n + 1], 0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2]


def names_of(point: Point) -> tuple[str, str]:
    """What pytest-benchmark calls a benchmark: its name, the variant's, and its group, all else in words."""
    return printable(point.variant), printable(f"{point.shape}, {point.setting}", MOST_REASON)


def params_of(point: Point) -> dict[str, str | int | None]:
    """Everything of a point but its variant."""
    return {field.name: getattr(point, field.name) for field in fields(Point) if field.name != "variant"}


def extra_info(row: Mapping[str, Any], parity: str, compute_dtype: str) -> dict[str, Any]:
    """What pytest-benchmark does not know of a benchmark.

    Args:
        row: of the latency table, or as much of it.
        parity: what came of the variant's.
        compute_dtype: the format in which it computes.
    """
    ours = {name: row.get(f"latency{end}_s") for name, end in (("value", ""), ("low", "_low"), ("high", "_high"))}
    unit = row.get("latency_unit")
    return {
        **{
            f"estimate_{name}_s": None if pd.isna(value) or not _is_number(value) else value
            for name, value in ours.items()
        },
        "estimate": OURS,
        "estimate_unit": None if pd.isna(unit) else unit,
        "stats": THEIRS,
        "parity": parity,
        "compute_dtype": compute_dtype,
        "processes": row["processes"],
        "instances": row["instances"],
    }


def _benchmark(timed: Timed) -> dict[str, Any]:
    return {
        "group": timed.group,
        "name": timed.name,
        "fullname": timed.fullname,
        "params": params_of(timed.point),
        "param": None,
        "extra_info": extra_info(timed.row, timed.parity, timed.compute_dtype),
        "options": {},
        "stats": {**pooled_stats(timed.calls), "data": timed.calls, "iterations": timed.iterations},
    }


def _timed(run: Run) -> Iterator[Timed]:
    """The rows of the latency table, in its order.

    Raises:
        HarnessError: there is none.
    """
    rows = records(run.latency)
    if not rows:
        raise HarnessError(f"'{run.path}' has no latency to write: no latency trial in it is ok; see its report")
    calls, means = instance_calls(run.samples), iterations(run.header)
    trials = {trial["trial"]: trial for trial in records(run.trials)}
    parity = {tuple(row[name] for name in KEY): str(row["parity"]) for row in records(run.summary)}
    for row in rows:
        trial = trials[row["trial"]]
        values = {"input_size": trial["input_size"], **row}
        point = Point(**{f.name: _plain(values[f.name]) for f in fields(Point)})
        own = [value for elapsed in calls[row["trial"], row["boundary"]].values() for value in elapsed]
        said = parity[tuple(row[name] for name in KEY)], str(trial["compute_dtype"] or trial["dtype"])
        yield Timed(*names_of(point), point, row, *said, own, means.get(row["trial"], 1))


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: nothing of NumPy's, and None where it is unknown."""
    if pd.isna(value):
        return None
    return value if isinstance(value, str) else int(value)


def _is_number(value: float) -> bool:
    return math.isfinite(value)


def _has_interval(row: dict[str, Any]) -> bool:
    return _is_number(row["latency_low_s"]) and _is_number(row["latency_high_s"])
