"""Opinions derived from observations: estimates, ratios and the summary, as pure functions of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from harness import stats
from harness.store import Run

SCENARIOS = ("single-stream", "offline", "training-step")
STATUS_ORDER = ("wrong", "crashed", "timed-out", "failed", "unsupported", "skipped", "ok")
KEY = ["variant", "task", "device", "dtype", "threads"]


def latency(run: Run) -> pd.DataFrame:
    """One row per latency trial that is ok and boundary.

    Columns: `trial`, `variant`, `task`, `device`, `dtype`, `threads`, `scenario`, `batch`, `time`, `boundary`,
    `processes`, `samples` (without the first call of every turn); `process_low_s` and `process_high_s`, the least and
    the largest median of a process; `latency_s` with `latency_low_s` and `latency_high_s` (geometric mean of the
    processes' medians, 95 % interval); `mean_s`; `p90_s`, `p99_s` (of all samples) with `p90_bound_s`, `p99_bound_s`
    (99 % confidence; NaN with too few samples: 64 and 662); `throughput_per_s` with its interval (sequences a second);
    `baseline`, and `ratio` to it with `ratio_low` and `ratio_high` (latency over the baseline's, paired by process).
    """
    trials = run.trials[(run.trials["kind"] == "latency") & (run.trials["status"] == "ok")]
    medians = _medians(run)
    rows = [
        _latency_row(run, trial, boundary, medians)
        for trial in records(trials)
        for boundary in ("compute", "end-to-end")
        if (trial["trial"], boundary) in medians
    ]
    return pd.DataFrame(rows, columns=LATENCY_COLUMNS)


LATENCY_COLUMNS = [
    *(
        "trial",
        *KEY,
        "scenario",
        "batch",
        "time",
        "boundary",
        "processes",
        "samples",
        "process_low_s",
        "process_high_s",
    ),
    *("latency_s", "latency_low_s", "latency_high_s", "mean_s", "p90_s", "p90_bound_s", "p99_s", "p99_bound_s"),
    *("throughput_per_s", "throughput_low_per_s", "throughput_high_per_s"),
    *("baseline", "ratio", "ratio_low", "ratio_high"),
]


def summary(run: Run) -> pd.DataFrame:
    """One row per variant, task and device: is it right, how accurate, how fast.

    Columns: the variant and its setting; `status` (the worst of its trials) and `reason`; `parity`, `parity_ratio` (the
    largest RMSE over the yardstick's in the same check), `parity_max_abs_error`, `yardstick`; `metric`, `score` with
    `score_low` and `score_high` (mean over seeds, 95 % t interval), `trivial_score` (of always answering the same),
    `seeds`, `trained_by`, `trainer_status` (is the variant that trained the weights right itself), `score_difference`
    (from the variant that trained the weights, largest over seeds), `agreeing_rows` (fewest over seeds) of `rows`;
    `baseline`; `is_floor` (its architecture has no weights, so it computes nothing and its latency is the harness's
    overhead); then for every scenario `<scenario>_status`, and of the compute boundary `<scenario>_latency_s`,
    `_latency_low_s`, `_latency_high_s`, `_p90_bound_s`, `_p99_bound_s`, `_throughput_per_s`, `_ratio`, `_ratio_low`,
    `_ratio_high`; of the end-to-end boundary `_end_to_end_s`, `_end_to_end_low_s`, `_end_to_end_high_s`,
    `_end_to_end_ratio`, `_end_to_end_ratio_low`, `_end_to_end_ratio_high`.
    """
    latencies = latency(run)
    rows = []
    for key, trials in run.trials.groupby(KEY, sort=False):
        first = trials.iloc[0]
        bad = _worst_trial(trials)
        row: dict[str, Any] = dict(zip(KEY, key, strict=True))
        row |= {name: first[name] for name in ("architecture", "input_size", "hidden_size", "num_layers")}
        row |= {"status": bad["status"], "reason": bad["reason"]}
        row |= _parity_columns(run, trials) | _score_columns(run, trials)
        row["baseline"] = run.header["baselines"].get(first["architecture"])
        row["is_floor"] = first["architecture"] in run.header["floors"]
        own = latencies[latencies["trial"].isin(trials["trial"])]
        for scenario in SCENARIOS:
            ends = trials.loc[trials["scenario"] == scenario, "status"]
            row[f"{scenario.replace('-', '_')}_status"] = ends.iloc[0] if len(ends) else None
            row |= _scenario_columns(own[own["scenario"] == scenario], scenario.replace("-", "_"))
        rows.append(row)
    return pd.DataFrame(rows).astype({"agreeing_rows": "Int64", "rows": "Int64"})


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _medians(run: Run) -> dict[tuple[str, str], dict[int, float]]:
    """Of every trial and boundary, each process's median, in seconds."""
    samples = _counted(run.samples)
    if samples.empty:
        return {}
    grouped = samples.groupby(["trial", "boundary", "process"])["elapsed_s"].median()
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in records(grouped.reset_index()):
        found.setdefault((row["trial"], row["boundary"]), {})[int(row["process"])] = float(row["elapsed_s"])
    return found


def _counted(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples that estimates are made of: the first call of a turn finds another variant's data in the caches."""
    return samples[samples["call"] > 0]


def _latency_row(
    run: Run, trial: dict[str, Any], boundary: str, medians: dict[tuple[str, str], dict[int, float]]
) -> dict[str, Any]:
    own = medians[trial["trial"], boundary]
    samples = _counted(run.samples)
    samples = samples[(samples["trial"] == trial["trial"]) & (samples["boundary"] == boundary)]
    elapsed = samples["elapsed_s"].to_numpy()
    estimate = stats.latency_interval(list(own.values()))
    baseline, ratio = _ratio(run, trial, boundary, medians)
    return {
        **{name: trial[name] for name in ("trial", *KEY, "scenario", "batch", "time")},
        "boundary": boundary,
        "processes": len(own),
        "process_low_s": min(own.values()),
        "process_high_s": max(own.values()),
        "samples": len(elapsed),
        "latency_s": estimate.value,
        "latency_low_s": estimate.low,
        "latency_high_s": estimate.high,
        "mean_s": float(elapsed.mean()),
        "p90_s": float(np.quantile(elapsed, 0.90)),
        "p90_bound_s": stats.percentile_bound(elapsed.tolist(), 0.90),
        "p99_s": float(np.quantile(elapsed, 0.99)),
        "p99_bound_s": stats.percentile_bound(elapsed.tolist(), 0.99),
        "throughput_per_s": trial["batch"] / estimate.value,
        "throughput_low_per_s": trial["batch"] / estimate.high,
        "throughput_high_per_s": trial["batch"] / estimate.low,
        "baseline": baseline,
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
    }


def _ratio(
    run: Run, trial: dict[str, Any], boundary: str, medians: dict[tuple[str, str], dict[int, float]]
) -> tuple[str | None, stats.Estimate]:
    """The baseline's name and the ratio to it; NaN where the baseline has no numbers of its own."""
    unknown = stats.Estimate(math.nan, math.nan, math.nan, 0)
    name = run.header["baselines"].get(trial["architecture"])
    same = run.trials["status"].eq("ok") & run.trials["variant"].eq(name)
    for column in ("kind", "task", "device", "dtype", "threads", "scenario", "batch", "time"):
        same &= run.trials[column].eq(trial[column])
    found = run.trials.loc[same, "trial"]
    if found.empty or (found.iloc[0], boundary) not in medians:
        return name, unknown
    if found.iloc[0] == trial["trial"]:
        return name, stats.Estimate(1.0, 1.0, 1.0, len(medians[trial["trial"], boundary]))
    own, base = medians[trial["trial"], boundary], medians[found.iloc[0], boundary]
    both = sorted(own.keys() & base.keys())
    if not both:
        return name, unknown
    return name, stats.ratio_interval([own[process] for process in both], [base[process] for process in both])


def _worst_trial(trials: pd.DataFrame) -> dict[str, Any]:
    return min(records(trials), key=lambda trial: STATUS_ORDER.index(trial["status"]))


def _trainer_status(run: Run, accuracy: pd.DataFrame) -> str | None:
    """Is the variant that trained the weights right itself: the worst of its parity and training-step trials."""
    first = accuracy.iloc[0]
    own = run.trials["variant"].eq(first["trained_by"])
    for column in ("task", "device", "dtype", "threads"):
        own &= run.trials[column].eq(first[column])
    proofs = run.trials[own & (run.trials["kind"].eq("parity") | run.trials["scenario"].eq("training-step"))]
    return str(_worst_trial(proofs)["status"]) if len(proofs) else None


def _parity_columns(run: Run, trials: pd.DataFrame) -> dict[str, Any]:
    checks = run.parity[run.parity["trial"].isin(trials["trial"])]
    status = trials.loc[trials["kind"] == "parity", "status"].iloc[0]
    forward = trials[(trials["kind"] == "latency") & (trials["scenario"] != "training-step")]
    if status == "ok" and (forward["status"] == "wrong").any():
        status = "wrong"  # it passed at first and failed beside the clock
    usable = checks[checks["yardstick_rmse"] > 0]
    return {
        "parity": status,
        "parity_ratio": (usable["rmse"] / usable["yardstick_rmse"]).max(),
        "parity_max_abs_error": checks["max_abs_error"].max(),
        "yardstick": checks["yardstick"].iloc[0] if len(checks) else None,
    }


def _score_columns(run: Run, trials: pd.DataFrame) -> dict[str, Any]:
    accuracy = trials[(trials["kind"] == "accuracy") & (trials["status"] == "ok")]
    scores = run.scores[run.scores["trial"].isin(accuracy["trial"])]
    columns = dict.fromkeys(("metric", "score", "score_low", "score_high", "trivial_score", "trained_by"), None)
    row: dict[str, Any] = {**columns, "seeds": len(scores), "trainer_status": None, "score_difference": math.nan}
    row |= {"agreeing_rows": None, "rows": None}
    if scores.empty:
        return row
    estimate = stats.mean_interval(scores["score"].tolist())
    most = 1.0 if scores["metric"].iloc[0] == "accuracy" else math.inf
    difference = scores["score"] - scores["trainer_score"]
    return row | {
        "metric": scores["metric"].iloc[0],
        "score": estimate.value,
        "score_low": np.maximum(estimate.low, 0.0),  # no accuracy is above 1, whatever Student's t says
        "score_high": np.minimum(estimate.high, most),
        "trivial_score": scores["trivial_score"].iloc[0],
        "trained_by": accuracy["trained_by"].iloc[0],
        "trainer_status": _trainer_status(run, accuracy),
        "score_difference": max(difference.dropna(), key=abs, default=math.nan),
        "agreeing_rows": scores["agreeing_rows"].min(),
        "rows": scores["rows"].iloc[0],
    }


def _scenario_columns(latencies: pd.DataFrame, prefix: str) -> dict[str, Any]:
    names = ["latency_s", "latency_low_s", "latency_high_s", "p90_bound_s", "p99_bound_s"]
    names += ["throughput_per_s", "ratio", "ratio_low", "ratio_high"]
    compute = latencies[latencies["boundary"] == "compute"]
    whole = latencies[latencies["boundary"] == "end-to-end"]
    row: dict[str, Any] = {f"{prefix}_{name}": compute[name].iloc[0] if len(compute) else math.nan for name in names}
    for name in ("s", "low_s", "high_s", "ratio", "ratio_low", "ratio_high"):
        source = f"latency_{name}" if name.endswith("s") else name
        row[f"{prefix}_end_to_end_{name}"] = whole[source].iloc[0] if len(whole) else math.nan
    return row
