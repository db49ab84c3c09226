"""Opinions derived from observations: estimates, ratios and the summary, as pure functions of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from harness import estimates, stats
from harness.audits import AUDITS
from harness.columns import with_sizes
from harness.contract import HarnessError, one_line
from harness.limits import LIMIT_COLUMNS, Limit, limit_columns, limits
from harness.samples import iterations
from harness.schema import COST_COLUMNS, RUN_FILE, WHOLE_COLUMNS
from harness.store import Run
from harness.suite import Latency, Section
from harness.verdicts import judge

SCENARIOS = ("single-stream", "offline", "training-step", "stream")
STATUS_ORDER = ("wrong", "crashed", "out-of-memory", "timed-out", "failed", "unsupported", "skipped", "ok")
SETTING = ["task", "hidden_size", "num_layers", "device", "dtype", "threads"]
KEY = ["variant", *SETTING]
Of = tuple[str, str]  # trial, boundary
Settings = TypeVar("Settings", bound=Section)


def latency(run: Run) -> pd.DataFrame:
    """One row per latency trial that is ok and boundary.

    Columns: `trial`, `variant`, `task`, `hidden_size`, `num_layers`, `device`, `dtype`, `threads`, `scenario`, `batch`,
    `time`, `caches` (`cold`: emptied before each call), `boundary`; how much was measured: `slices`, `processes`,
    `instances`, `samples` (without the first call of every turn), `disturbed_samples` and `unsteady_instances` of them;
    `process_low_s` and `process_high_s`, the least and the largest median of a process; `latency_s` with
    `latency_low_s`, `latency_high_s` and `latency_unit` (geometric mean of instances' medians, 95 % interval over that
    unit); `median_s` (of instances' medians) and `mean_s` (of all samples) for information; `p50_s`, `p90_s`, `p99_s`,
    `p999_s` of all samples, each with `_bound_s` (99 % confidence; NaN with too few samples; all are NaN where a sample
    is a mean of calls); `autocorrelation` (lag 1, mean over instances); `rows` and `steps` of a call (sequences, and
    real time steps of them all), `throughput_per_s` and `steps_per_s` with their intervals (sequences and real time
    steps a second); `baseline`, and `ratio` to it with `ratio_low`, `ratio_high` and `ratio_unit` (latency over the
    baseline's, paired); `half_width` of the interval of interest (of the ratio; of a baseline's latency where nothing
    is compared with it, else NaN), as a share; `precision_met`; `verdict`, which holds over all rows of a boundary
    together; of forward passes at the compute boundary `bound_s`, `limited_by` and `attainable` with its interval (see
    `harness.limits`); and `audit_<name>` for each of `harness.audits.AUDITS`: `ok`, or None where it could not be made.
    """
    trials = run.trials[(run.trials["kind"] == "latency") & (run.trials["status"] == "ok")]
    planned, settings, known = records(trials), sampling(run), _observed(run, trials)
    rows: list[dict[str, Any]] = []
    for boundary in BOUNDARIES:
        found = [
            _latency_row(known, trial, boundary, looks(run), settings.precision)
            for trial in planned
            if (trial["trial"], boundary) in known.calls
        ]
        ratios = [ratio for _, ratio in found if ratio is not None]
        words = iter(judge(ratios, settings.tolerance, looks(run)))
        rows += [
            row
            | {"verdict": next(words) if ratio is not None else None}
            | limit_columns(known.limits.get((row["trial"], boundary)), *(row[name] for name in LATENCY_ENDS))
            | NOT_AUDITED
            | known.audits.get(row["trial"], {})
            for row, ratio in found
        ]
    place = {trial: number for number, trial in enumerate(trials["trial"])}
    rows.sort(key=lambda row: place[row["trial"]])  # stable: compute before end-to-end
    return with_sizes(pd.DataFrame(rows, columns=LATENCY_COLUMNS), rows)


BOUNDARIES = ("compute", "end-to-end")
LATENCY_ENDS = ("latency_s", "latency_low_s", "latency_high_s")
NO_COSTS = dict.fromkeys((name for name in COST_COLUMNS if name not in ("trial", "batch", "time")), math.nan)
NOT_AUDITED: dict[str, Any] = {f"audit_{name}": None for name in AUDITS}
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
LATENCY_COLUMNS = [
    *("trial", *KEY, "scenario", "batch", "time", "caches", "boundary", "slices", "processes", "instances", "samples"),
    *("disturbed_samples", "unsteady_instances", "process_low_s", "process_high_s"),
    *("latency_s", "latency_low_s", "latency_high_s", "latency_unit", "median_s", "mean_s"),
    *(f"{name}_{end}" for name in PERCENTILES for end in ("s", "bound_s")),
    *("autocorrelation", "rows", "steps", "throughput_per_s", "throughput_low_per_s", "throughput_high_per_s"),
    *("steps_per_s", "steps_low_per_s", "steps_high_per_s"),
    *("baseline", "ratio", "ratio_low", "ratio_high", "ratio_unit", "half_width", "precision_met", "verdict"),
    *LIMIT_COLUMNS,
    *NOT_AUDITED,
]
CALIBRATION_COLUMNS = [
    *("task", "variant", "scenario", "pairs", "comparisons", "false_alarms", "false_alarms_low", "false_alarms_high"),
    *("ratio", "ratio_low", "ratio_high", "units", "unit", "seconds", "detectable"),
    *("comparison_seconds", "comparison_detectable"),
]


def calibration(run: Run) -> pd.DataFrame:
    """What this machine lets one see: the baseline against itself, one row per task.

    Twins are sessions of the baseline measured as if they were other variants. Columns: `task`, `variant`, `scenario`;
    `pairs` of twins that share no session; `comparisons` that share no slice either (each of `latency.slices` slices),
    `false_alarms` among them with the ends of the rate's 95 % interval; `ratio` of the first pair with its interval,
    `units` and `unit`; `seconds` of measured time an arm; `detectable`: the smallest slowdown (0.01 is one percent)
    that a comparison of two variants of one runtime, measured as long as this, finds with 95 % power;
    `comparison_seconds` and `comparison_detectable`: the same of one of the comparisons.
    """
    rows: list[dict[str, Any]] = []
    calibrated = run.trials[run.trials["kind"].eq("calibration") & run.trials["status"].eq("ok")]
    medians = instance_medians(run.samples) if len(calibrated) else {}
    for key, twins in calibrated.groupby(["task", "variant", "scenario"], sort=False):
        task, variant, scenario = map(str, key)
        twin = {
            "kind": "latency",
            **{name: twins.iloc[0][name] for name in (*KEY, "status", "scenario", "batch", "time")},
        }
        base = run.trials.loc[run.trials[list(twin)].eq(pd.Series(twin)).all(axis=1), "trial"]
        copies = [medians[t, "compute"] for t in (*base, *twins["trial"]) if (t, "compute") in medians]
        pairs = list(zip(copies[::2], copies[1::2], strict=False))
        whole = [found for one, other in pairs if (found := estimates.ratio(other, one)) is not None]
        if not whole:
            continue
        size = sampling(run).slices
        alarms = [
            stats.p_different(found) < 1 - stats.CONFIDENCE
            for one, other in pairs
            for group in _slice_groups(one, size)
            if (found := estimates.ratio(_of(other, group), _of(one, group))) is not None
        ]
        rate = stats.rate_interval(sum(alarms), len(alarms)) if alarms else UNKNOWN
        first = stats.estimate(whole[0], looks(run))
        own = run.samples  # the first calls of turns cost time too
        own = own[own["trial"].isin(twins["trial"]) & own["boundary"].eq("compute")]
        measured = len({slice_ for slice_, _, _ in pairs[0][0]})
        taken = [look for look in looks(run) if look <= measured] or stats.ONE_LOOK
        detectable = [stats.detectable_ratio(value, looks=taken) for value in whole]
        share = size / measured if alarms else math.nan
        seconds = own["elapsed_s"].sum() / len(twins)
        parts = [stats.detectable_ratio(_shorter(value, share)) for value in whole] if alarms else [math.nan]
        rows.append(
            {"task": task, "variant": variant, "scenario": scenario, "pairs": len(pairs), "comparisons": len(alarms)}
            | {"false_alarms": sum(alarms), "false_alarms_low": rate.low, "false_alarms_high": rate.high}
            | {"ratio": first.value, "ratio_low": first.low, "ratio_high": first.high}
            | {"units": whole[0].units, "unit": whole[0].unit}
            | {"seconds": seconds, "detectable": float(np.mean(detectable))}
            | {"comparison_seconds": share * seconds, "comparison_detectable": float(np.mean(parts))}
        )
    return pd.DataFrame(rows, columns=CALIBRATION_COLUMNS)


def summary(run: Run) -> pd.DataFrame:
    """One row per variant and setting (task, size, device, dtype, threads): is it right, how accurate, how fast.

    Columns: the variant and its setting; `compute_dtype` (the format in which it computes); `status` (the worst of its
    trials) and `reason`; `parity`, `parity_ratio` (the largest RMSE over the yardstick's in the same check),
    `parity_max_abs_error`, `yardstick`; what it costs: the columns of the costs table but `batch` and `time`; `audits`
    (`ok`, or the names of those that failed, over all its timed trials); `metric`, `score`, `score_low`, `score_high`
    (mean over seeds, 95 % t interval), `trivial_score` (of always answering the same), `seeds`, `trained_by`,
    `trainer_status` (is the variant that trained the weights right itself), `score_difference` (from the variant that
    trained the weights, largest over seeds), `agreeing_rows` (fewest over seeds) of `rows`;
    `baseline`; `is_floor` (its architecture has no weights, so it computes nothing and its latency is the harness's
    overhead); then for every scenario, at the first shape of a sweep, `<scenario>_status`, and of the compute boundary
    `<scenario>_latency_s`,
    `_latency_low_s`, `_latency_high_s`, `_p90_bound_s`, `_p99_bound_s`, `_throughput_per_s`, `_ratio`, `_ratio_low`,
    `_ratio_high`, `_half_width`, `_precision_met`, `_verdict`; of the end-to-end boundary `_end_to_end_s`,
    `_end_to_end_low_s`, `_end_to_end_high_s`, `_end_to_end_ratio`, `_end_to_end_ratio_low`, `_end_to_end_ratio_high`.
    """
    planned = records(run.trials[run.trials["kind"] != "calibration"])
    groups = _grouped(planned, lambda trial: tuple(trial[name] for name in KEY))
    checks = dict(iter(run.parity.groupby("trial")))
    costs = {row["trial"]: {name: row[name] for name in NO_COSTS} for row in records(run.costs)}
    audited = _by_trial(run.audits)
    scores = _grouped(records(run.scores), lambda row: row["trial"])
    latencies = {(row["trial"], row["boundary"]): row for row in records(run.latency)}
    rows = []
    for key, trials in groups.items():
        first, bad = trials[0], _worst_trial(trials)
        row: dict[str, Any] = dict(zip(KEY, key, strict=True))
        row |= {name: first[name] for name in ("architecture", "input_size")}
        row |= {"compute_dtype": first["compute_dtype"]}
        row |= {"status": bad["status"], "reason": bad["reason"]}
        row |= next((costs[t["trial"]] for t in trials if t["trial"] in costs), NO_COSTS)
        row |= _parity_columns(trials, [checks[t["trial"]] for t in trials if t["trial"] in checks])
        row["audits"] = _audits([audited[t["trial"]] for t in trials if t["trial"] in audited])
        row |= _score_columns(trials, scores, groups)
        compared = [trial["baseline"] for trial in trials if not pd.isna(trial["baseline"])]
        row["baseline"] = compared[0] if compared else run.header["baselines"].get(first["architecture"])
        row["is_floor"] = first["architecture"] in run.header["floors"]
        for scenario in SCENARIOS:
            own = next((trial for trial in trials if trial["scenario"] == scenario), {"trial": "", "status": None})
            compute, whole = (latencies.get((own["trial"], boundary), {}) for boundary in BOUNDARIES)
            row |= _scenario_columns(scenario.replace("-", "_"), own["status"], compute, whole)
        rows.append(row)
    integers = ["agreeing_rows", "rows", *(name for name in WHOLE_COLUMNS["costs"] if name in NO_COSTS)]
    return with_sizes(pd.DataFrame(rows).astype(dict.fromkeys(integers, "Int64")), rows)


def of_setting(table: pd.DataFrame, setting: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table that were made in a setting: equal, or unknown in both, in all of `SETTING`."""
    values = [setting[name] for name in SETTING]
    same = (table[SETTING] == values).fillna(False) | (table[SETTING].isna() & [pd.isna(value) for value in values])
    return table[same.all(axis=1)]


def by_setting(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of a table, setting by setting in the order they come; what is unknown is a value like any other."""
    return (rows for _, rows in table.groupby(SETTING, sort=False, dropna=False))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by column name, of Python's own types."""
    names = [str(name) for name in table.columns]
    columns = [table.iloc[:, place].tolist() for place in range(len(names))]
    rows = zip(*columns, strict=True) if columns else [()] * len(table)
    return [dict(zip(names, row, strict=True)) for row in rows]


def instance_calls(samples: pd.DataFrame) -> dict[Of, dict[estimates.Key, list[float]]]:
    """Of every trial and boundary, the counted calls of each instance in the order they were made, in seconds."""
    own = counted(samples)
    number = own.groupby(["trial", "boundary", "slice", "process", "instance"], sort=False).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    of, at = own[["trial", "boundary"]].to_numpy(), own[["slice", "process", "instance"]].to_numpy()
    elapsed = own["elapsed_s"].to_numpy()
    found: dict[Of, dict[estimates.Key, list[float]]] = {}
    for calls in np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else []:
        trial, boundary = of[calls[0]]
        slice_, process, instance = map(int, at[calls[0]])
        found.setdefault((trial, boundary), {})[slice_, process, instance] = elapsed[calls].tolist()
    return found


def instance_medians(samples: pd.DataFrame) -> dict[Of, dict[estimates.Key, float]]:
    """Of every trial and boundary, the median of each instance by (slice, process, instance), in seconds.

    An instance whose median is no positive number, because the clock stood still, is left out.
    """
    return _medians(instance_calls(samples))


def counted(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples that estimates are made of: the first call of a turn finds another variant's data in the caches."""
    return samples[samples["call"] > 0]


def looks(run: Run) -> tuple[int, ...]:
    """After how many slices the run's rule looked, or would have looked, whether it knows enough."""
    settings = sampling(run)
    return stats.planned_looks(settings.slices, settings.most_slices)


def sampling(run: Run) -> Latency:
    """How the run's suite wanted latency to be sampled; of a run that does not say, the defaults."""
    return settings_of(run, "latency", Latency)


def settings_of(run: Run, table: str, kind: type[Settings]) -> Settings:
    """A table of the run's suite; of a run that does not say, the defaults."""
    try:
        return kind(**run.header.get("suite", {}).get(table, {}))
    except (ValueError, TypeError, AttributeError) as error:  # pydantic's errors are ValueErrors
        raise HarnessError(f"'{run.path / RUN_FILE}' is damaged: its suite is not one ({one_line(error)})") from error


def _slice_groups(medians: Mapping[estimates.Key, float], size: int) -> list[set[int]]:
    slices = sorted({slice_ for slice_, _, _ in medians})
    return [set(slices[start : start + size]) for start in range(0, len(slices) - size + 1, size)]


def _shorter(value: stats.LogMean, share: float) -> stats.LogMean:
    """What would be known of the mean after a share of the measuring, at the same spread."""
    units = max(2, round(value.units * share))
    error = value.standard_error * math.sqrt(value.units / units)
    return stats.LogMean(value.mean, error, units - 1, units, value.unit)


def _of(medians: Mapping[estimates.Key, float], slices: set[int]) -> dict[estimates.Key, float]:
    return {key: value for key, value in medians.items() if key[0] in slices}


UNKNOWN = stats.Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class _Observed:
    """What the latency table is made of, by trial and boundary; found once for all rows."""

    calls: Mapping[Of, Mapping[estimates.Key, list[float]]]
    medians: Mapping[Of, Mapping[estimates.Key, float]]
    disturbed: Mapping[Any, int]
    unsteady: Mapping[Any, int]  # by trial
    work: Mapping[Any, tuple[int, float]]  # rows and real steps of a call, by trial
    audits: Mapping[Any, dict[str, str]]  # what came of each, by trial and column
    limits: Mapping[Of, Limit]  # of the compute boundary
    trials: Mapping[tuple[Any, ...], str]  # by variant and point
    alone: frozenset[str]  # baselines that compute something and that no other is compared with
    means: frozenset[str]  # trials of which a sample is the mean of several calls, so that no call's latency is known


def _observed(run: Run, trials: pd.DataFrame) -> _Observed:
    calls = instance_calls(run.samples)
    disturbed = counted(run.samples).groupby(["trial", "boundary"])["disturbed"].sum()
    unsteady = (~run.instances["is_steady"].astype(bool)).groupby(run.instances["trial"]).sum()
    points = {(trial["variant"], *point_of(trial)): trial["trial"] for trial in records(trials)}
    sharing = Counter((trial["baseline"], *point_of(trial)) for trial in records(trials))
    alone = frozenset(
        trial["trial"]
        for trial in records(trials[~trials["architecture"].isin(run.header["floors"])])
        if trial["baseline"] == trial["variant"] and sharing[trial["baseline"], *point_of(trial)] == 1
    )
    audited = {trial: _audit_columns(rows) for trial, rows in _by_trial(run.audits).items()}
    counted_work = run.instances[run.instances["rows"].notna()].drop_duplicates("trial")
    work = {
        row["trial"]: (row["rows"], math.nan if pd.isna(row["steps"]) else row["steps"])
        for row in records(counted_work)
    }
    medians, noise = _medians(calls), (dict(disturbed.items()), dict(unsteady.items()))
    bounds = limits(records(run.machine), records(run.matrices), records(run.trials))
    own = {(trial, BOUNDARIES[0]): bound for trial, bound in bounds.items()}
    means = frozenset(trial for trial, count in iterations(run.header).items() if count > 1)
    return _Observed(calls, medians, *noise, work, audited, own, points, alone, means)


def _by_trial(rows: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    return dict(iter(rows.groupby("trial"))) if len(rows) else {}


def _audit_columns(rows: pd.DataFrame) -> dict[str, str]:
    """`ok` or `failed` for each audit of a trial, over its processes."""
    failed = rows["problem"].fillna("").ne("").groupby(rows["audit"]).any()
    return {f"audit_{name}": "failed" if is_failed else "ok" for name, is_failed in failed.items()}


def _medians(calls: Mapping[Of, Mapping[estimates.Key, list[float]]]) -> dict[Of, dict[estimates.Key, float]]:
    middles = {of: {at: median(elapsed) for at, elapsed in own.items()} for of, own in calls.items()}
    positive = {of: {at: middle for at, middle in own.items() if middle > 0} for of, own in middles.items()}
    return {of: own for of, own in positive.items() if own}


def point_of(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two latency trials have in common if they may be compared."""
    return tuple(trial[name] for name in (*SETTING, "scenario", "batch", "time"))


def _latency_row(
    known: _Observed, trial: dict[str, Any], boundary: str, plan: tuple[int, ...], precision: float
) -> tuple[dict[str, Any], stats.LogMean | None]:
    """A row without its verdict, and the ratio that the verdict will be on; none for a baseline."""
    calls, own = known.calls[trial["trial"], boundary], known.medians.get((trial["trial"], boundary), {})
    elapsed = np.concatenate(list(calls.values()))
    typical = estimates.latency(own) if own else None
    estimate = stats.estimate(typical) if typical else UNKNOWN
    base = known.trials.get((trial["baseline"], *point_of(trial)))
    is_baseline = base == trial["trial"]
    theirs = known.medians.get((base, boundary)) if base and not is_baseline else None
    compared = estimates.ratio(own, theirs) if own and theirs else None
    ratio = stats.estimate(compared, plan) if compared else UNKNOWN
    interest = ratio
    if typical and trial["trial"] in known.alone:
        interest = stats.estimate(typical, plan)
    half_width = estimates.half_width(interest)
    logs: dict[int, list[float]] = {}
    for (_, process, _), middle in own.items():
        logs.setdefault(process, []).append(math.log(middle))
    processes = [math.exp(fmean(values)) for values in logs.values()]
    correlations = [stats.autocorrelation(values) for values in calls.values()]
    rows, steps = known.work.get(trial["trial"], (trial["batch"], math.nan))
    row = {
        **{name: trial[name] for name in ("trial", *KEY, "scenario", "batch", "time", "caches")},
        "boundary": boundary,
        "slices": len({slice_ for slice_, _, _ in calls}),
        "processes": len({process for _, process, _ in calls}),
        "instances": len(calls),
        "samples": len(elapsed),
        "disturbed_samples": int(known.disturbed[trial["trial"], boundary]),
        "unsteady_instances": int(known.unsteady.get(trial["trial"], 0)),
        "process_low_s": min(processes, default=math.nan),
        "process_high_s": max(processes, default=math.nan),
        "latency_s": estimate.value,
        "latency_low_s": estimate.low,
        "latency_high_s": estimate.high,
        "latency_unit": typical.unit if typical else None,
        "median_s": median(own.values()) if own else math.nan,
        "mean_s": float(elapsed.mean()),
        "autocorrelation": _mean([value for value in correlations if not math.isnan(value)]),
        "rows": rows,
        "steps": steps,
        "throughput_per_s": _per_second(rows, estimate.value),
        "throughput_low_per_s": _per_second(rows, estimate.high),
        "throughput_high_per_s": _per_second(rows, estimate.low),
        "steps_per_s": _per_second(steps, estimate.value),
        "steps_low_per_s": _per_second(steps, estimate.high),
        "steps_high_per_s": _per_second(steps, estimate.low),
        "baseline": trial["baseline"],
        "ratio": 1.0 if is_baseline else ratio.value,
        "ratio_low": 1.0 if is_baseline else ratio.low,
        "ratio_high": 1.0 if is_baseline else ratio.high,
        "ratio_unit": compared.unit if compared else None,
        "half_width": half_width,
        "precision_met": None if math.isnan(half_width) else half_width <= precision,
    }
    shares = list(PERCENTILES.values()) if trial["trial"] not in known.means else []
    for (name, p), value in zip(PERCENTILES.items(), np.quantile(elapsed, shares), strict=False):
        row[f"{name}_s"] = float(value)
        row[f"{name}_bound_s"] = stats.percentile_bound(elapsed.tolist(), p)
    return row, compared


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan


def _per_second(count: float, seconds: float) -> float:
    if pd.isna(count):
        return math.nan
    return count / seconds if seconds else math.inf  # the low end of an interval that knows next to nothing


def _worst_trial(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return min(trials, key=lambda trial: STATUS_ORDER.index(trial["status"]))


def _trainer_status(trained: dict[str, Any], groups: Mapping[Any, list[dict[str, Any]]]) -> str | None:
    """Is the variant that trained the weights right itself: the worst of its parity and training-step trials."""
    trials = groups.get((trained["trained_by"], *(trained[name] for name in KEY[1:])), [])
    proofs = [trial for trial in trials if trial["kind"] == "parity" or trial["scenario"] == "training-step"]
    return str(_worst_trial(proofs)["status"]) if proofs else None


def _parity_columns(trials: Sequence[dict[str, Any]], checks: Sequence[pd.DataFrame]) -> dict[str, Any]:
    status = next(trial["status"] for trial in trials if trial["kind"] == "parity")
    forward = [t for t in trials if t["kind"] in ("latency", "load") and t["scenario"] != "training-step"]
    if status == "ok" and any(trial["status"] == "wrong" for trial in forward):
        status = "wrong"  # it passed at first and failed beside the clock
    row = {"parity": status, "parity_ratio": math.nan, "parity_max_abs_error": math.nan, "yardstick": None}
    if not checks:
        return row
    together = pd.concat(checks)
    usable = together[together["yardstick_rmse"] > 0]
    return row | {
        "parity_ratio": (usable["rmse"] / usable["yardstick_rmse"]).max(),
        "parity_max_abs_error": together["max_abs_error"].max(),
        "yardstick": together["yardstick"].iloc[0],
    }


def _audits(found: Sequence[pd.DataFrame]) -> str | None:
    """`ok`, or which audits failed; None if there were none."""
    if not found:
        return None
    together = pd.concat(found)
    failed = set(together.loc[together["problem"].fillna("").ne(""), "audit"])
    return ", ".join(name for name in AUDITS if name in failed) or "ok"


def _score_columns(
    trials: Sequence[dict[str, Any]],
    scores: Mapping[Any, list[dict[str, Any]]],
    groups: Mapping[Any, list[dict[str, Any]]],
) -> dict[str, Any]:
    accuracy = [trial for trial in trials if trial["kind"] == "accuracy" and trial["status"] in ("ok", "wrong")]
    own = [row for trial in accuracy for row in scores.get(trial["trial"], [])]
    columns = dict.fromkeys(("metric", "score", "score_low", "score_high", "trivial_score", "trained_by"), None)
    row: dict[str, Any] = {**columns, "seeds": len(own), "trainer_status": None, "score_difference": math.nan}
    row |= {"agreeing_rows": None, "rows": None}
    if not own:
        return row
    estimate = stats.mean_interval([score["score"] for score in own])
    differences = [score["score"] - score["trainer_score"] for score in own]
    return row | {
        **{name: own[0][name] for name in ("metric", "trivial_score", "rows")},
        "score": estimate.value,
        "score_low": np.maximum(estimate.low, 0.0),  # no accuracy is above 1, whatever Student's t says
        "score_high": np.minimum(estimate.high, 1.0 if own[0]["metric"] == "accuracy" else math.inf),
        "trained_by": accuracy[0]["trained_by"],
        "trainer_status": _trainer_status(accuracy[0], groups),
        "score_difference": max((value for value in differences if not math.isnan(value)), key=abs, default=math.nan),
        "agreeing_rows": min((s["agreeing_rows"] for s in own if not pd.isna(s["agreeing_rows"])), default=None),
    }


def _scenario_columns(
    prefix: str, status: str | None, compute: Mapping[str, Any], whole: Mapping[str, Any]
) -> dict[str, Any]:
    names = ["latency_s", "latency_low_s", "latency_high_s", "p90_bound_s", "p99_bound_s"]
    names += ["throughput_per_s", "ratio", "ratio_low", "ratio_high", "half_width"]
    row: dict[str, Any] = {f"{prefix}_status": status}
    row |= {f"{prefix}_{name}": compute.get(name, math.nan) for name in names}
    row |= {f"{prefix}_{name}": compute.get(name) for name in ("precision_met", "verdict")}
    for name in ("s", "low_s", "high_s", "ratio", "ratio_low", "ratio_high"):
        row[f"{prefix}_end_to_end_{name}"] = whole.get(f"latency_{name}" if name.endswith("s") else name, math.nan)
    return row


def _grouped(rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found
