"""Two runs compared, or the two sides of one interleaved run: ratios, verdicts, and a gate that can stop a release.

Two runs taken at different times are less certain than one that interleaves both sides: nothing cancels what a process
or the moment did to one of them. So processes are the unit, and what the canary in every worker shows of the machine's
drift between the runs widens each interval.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import pandas as pd

from harness import estimates, stats, verdicts
from harness.contract import HarnessError, one_line
from harness.formatting import NONE
from harness.samples import SAMPLE_COLUMNS
from harness.store import Run, load
from harness.tables import BOUNDARIES, instance_medians, looks, records, sampling

SEPARATE, INTERLEAVED = "separate runs", "interleaved"
OK, NO_SAMPLES = "ok", "no samples that count"
MUST_AGREE = (
    *("machine", "os family", "hypervisor", "python_implementation", "cpu_model", "cpu_logical_count", "accelerators"),
    *("cpu_physical_count", "cpu_usable_count", "cpu_governor", "cpu_max_frequency_khz", "cpu_boost"),
)
MAY_CHANGE = ("os", "memory_bytes", "python", "commit")  # beside the versions and how latency is sampled
UNITS = {"process": "processes", "instance": "instances", "slice": "slices"}

Medians = Mapping[estimates.Key, float]
Trial = dict[str, Any]
Pair = tuple["Point", Trial, Trial, Medians, Medians]  # BASE's trial and medians before NEW's


@dataclass(frozen=True, slots=True)
class Point:
    """What is timed: two are compared if all of it is equal. A file of samples knows its name and boundaries alone."""

    variant: str
    task: str | None
    device: str | None
    dtype: str | None
    threads: int | None
    input_size: int | None
    hidden_size: int | None
    num_layers: int | None
    scenario: str | None
    batch: int | None
    time: int | None
    boundary: str = ""

    @property
    def shape(self) -> str:
        """The scenario with batch and time: `offline 32×8`."""
        return f"{self.scenario} {self.batch}×{self.time}" if self.scenario else "samples"

    @property
    def setting(self) -> str:
        """What the rows of one printed table have in common."""
        size = f"I={self.input_size} H={self.hidden_size} L={self.num_layers}, {self.dtype}"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'} a call"
        where = self.task and f"{self.task} on {self.device}: {size}, {threads}"
        return ", ".join(filter(None, (where, self.boundary)))

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.variant, self.shape, self.setting)))


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that both sides measured.

    Attributes:
        point: what was timed; of an interleaved run, the variant that is NEW.
        against: the variant that is BASE.
        base, new: the latencies, as log means of seconds.
        ratio: the logarithm of NEW over BASE; its error contains that of `drift`.
        drift: what the machine did between the two; nothing where both were interleaved.
        estimate: NEW over BASE with its 95 % interval; above 1 is slower.
        verdict: `faster`, `slower`, `same` or `undecided`, over all rows of its boundary.
        how: `separate runs` or `interleaved`.
    """

    point: Point
    against: str
    base: stats.LogMean
    new: stats.LogMean
    ratio: stats.LogMean
    drift: Drift
    estimate: stats.Estimate
    verdict: str
    how: str

    @property
    def units(self) -> str:
        """How many observations there are: `5 | 5 processes` of BASE and NEW, or `20 instances` that hold both."""
        unit = UNITS[self.ratio.unit]
        return f"{self.base.units} | {self.new.units} {unit}" if self.how == SEPARATE else f"{self.ratio.units} {unit}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not the same in both: a fact, or a row that is not `ok` on both sides."""

    what: str
    base: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.base} | {self.new}"


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

    def __str__(self) -> str:
        where = f"While {self.task} was timed, " if self.task else ""
        if self.shift is None:
            return f"{where}how the machine drifted is unknown (no canary in both): the intervals hold if it did not."
        found = stats.estimate(self.shift)
        moved, low, high = (100 * (value - 1) for value in (found.value, found.low, found.high))
        what = f"{abs(moved):.1f} % {'slower' if moved > 0 else 'faster'}" if abs(moved) >= 0.05 else "as fast"
        known = "its error unknown" if math.isnan(low) else f"{low:+.1f} to {high:+.1f} %"
        return f"{where}the machine itself was {what} in NEW ({known}), which widens the intervals."


@dataclass(frozen=True)
class Comparison:
    """What two sides say of each other.

    Attributes:
        base, new: what the sides are called.
        rows: what both measured, compute boundary first.
        absent: what only one has, or what is not ok in one of them.
        tolerance: ratios within it of 1 are the same.
        looks: planned looks at an interleaved run; one for separate runs, whose length their comparison did not decide.
        differences, changes: facts that matter, which differ only where that was allowed; facts that may, as versions.
        drift: of every task; empty in an interleaved run, where it cancels.
        notes: what else a reader must know.
    """

    base: str
    new: str
    rows: tuple[Row, ...]
    absent: tuple[Difference, ...]
    tolerance: float
    looks: tuple[int, ...] = stats.ONE_LOOK
    differences: tuple[Difference, ...] = ()
    changes: tuple[Difference, ...] = ()
    drift: tuple[Drift, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateRow:
    """What the gate says of one row: `pass`, `fail` or `undecided`, and why."""

    row: str
    outcome: str
    why: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """All rows, and the exit code: 0 if all pass, 1 if any fails, 2 if that is undecided or there was nothing."""

    max_slowdown: float
    rows: tuple[GateRow, ...]
    exit_code: int


def compare(base: Run, new: Run, allow_different: bool = False) -> Comparison:
    """Compare two runs, or two files of samples, row by row.

    Unpaired, by Welch's test over processes: instances share what was decided when their process started, and absolute
    latency differs by process. The canary's shift between the runs is added to the error.

    Args:
        base, new: from `load_side`.
        allow_different: compare although the environments differ in what matters.

    Raises:
        HarnessError: what matters differs, no row is in both, or a run meets a file.
    """
    if bool(base.environment) != bool(new.environment):
        raise HarnessError("compare a run with a run, or a file of samples with another; not one with the other")
    differences, changes = map(_differences, _facts(base), _facts(new))
    if differences and not allow_different:
        listed = "; ".join(map(str, differences))
        raise HarnessError(plain(f"what matters differs: {listed}; --allow-different compares all the same"))
    old, young = _trials(base), _trials(new)
    if not base.environment:  # two files are compared whatever they are called
        young = dict(zip(old, young.values(), strict=True))
    points = dict.fromkeys([*old, *young])
    shared = [point for point in points if point in old and point in young]
    if not shared:
        has = [f"{run.path} has {'; '.join(map(str, _trials(run))) or 'none'}" for run in (base, new)]
        raise HarnessError(plain(f"no latency row is in both runs. {'. '.join(has)}"))
    drift = {point.task: _drift(base, new, point.task) for point in shared}
    pairs, absent = _matched({point: point for point in points}, (base, new), (old, young))
    rows = []
    for point, _, _, theirs, own in pairs:
        before, after, moved = _over_processes(theirs), _over_processes(own), drift[point.task]
        ratio = stats.widened(stats.difference(after, before), moved.spread)
        known = ratio, moved, stats.estimate(ratio), verdicts.UNDECIDED
        rows.append(Row(point, point.variant, before, after, *known, SEPARATE))
    tolerance, judged = sampling(base).tolerance, list[Row]()
    for boundary in BOUNDARIES:
        family = [row for row in rows if row.point.boundary == boundary]
        found = verdicts.judge([row.ratio for row in family], tolerance)
        judged += [replace(row, verdict=verdict) for row, verdict in zip(family, found, strict=True)]
    notes = [] if base.environment else ["Files have no environment: whether the machine was the same is unknown."]
    if any(each.shift for each in drift.values()) and {"python", "version of numpy"} & {each.what for each in changes}:
        notes.append("The canary runs on Python and NumPy, which changed: part of its shift may be theirs.")
    rest = differences, changes, tuple(drift.values()), tuple(notes)
    return Comparison(str(base.path), str(new.path), tuple(judged), tuple(absent), tolerance, stats.ONE_LOOK, *rest)


def interleaved(run: Run) -> Comparison:
    """The ratios within one run: every row that has a baseline is NEW, its baseline BASE, and the verdict the run's.

    Both sides were timed in turns, so what the machine did is in both.

    Raises:
        HarnessError: it is a file of samples.
    """
    if not run.environment:
        raise HarnessError(f"{run.path} is one file of samples: give a second one to compare it with")
    trials = _trials(run)
    others = {p: other for p, t in trials.items() if (other := replace(p, variant=t["baseline"])) != p}
    pairs, absent = _matched(others, (run, run), (trials, trials))
    latency = {(row["trial"], row["boundary"]): row for row in records(run.latency)}
    rows = []
    for point, base, new, theirs, own in pairs:
        ratio, row = estimates.ratio(own, theirs), latency[new["trial"], point.boundary]
        if ratio is None:
            absent.append(Difference(str(point), OK, "shares no slice with BASE"))
            continue
        found = stats.Estimate(row["ratio"], row["ratio_low"], row["ratio_high"], ratio.units), row["verdict"]
        latencies = estimates.latency(theirs), estimates.latency(own)
        rows.append(Row(point, base["variant"], *latencies, ratio, Drift(None, None), *found, INTERLEAVED))
    rows.sort(key=lambda row: BOUNDARIES.index(row.point.boundary))
    pythons = [_software(facts) for facts in run.header.get("pythons", {}).values()]
    changes = _differences(*pythons) if len(pythons) == 2 else ()
    known = sampling(run).tolerance, looks(run), (), changes
    return Comparison("its baselines", str(run.path), tuple(rows), tuple(absent), *known)


def gate(comparison: Comparison, max_slowdown: float) -> GateResult:
    """Is nothing slower than allowed? A row that BASE has and NEW lost fails: a crash is not a pass.

    Args:
        comparison: from `compare` or `interleaved`.
        max_slowdown: 0.03 allows 3 %.
    """
    lost = ((item.what, item.new) for item in comparison.absent if item.base == OK)
    rows = [GateRow(what, verdicts.FAIL, f"BASE has it, NEW does not: {end}") for what, end in lost]
    unknown = (item.what for item in comparison.absent if item.base.startswith("skipped"))
    rows += [GateRow(what, verdicts.UNDECIDED, "BASE never measured it: its run was cut off") for what in unknown]
    outcomes = verdicts.gate([row.ratio for row in comparison.rows], max_slowdown, comparison.looks)
    for row, outcome in zip(comparison.rows, outcomes, strict=True):
        more = f"; {_more(row, max_slowdown, comparison.looks)}" if outcome == verdicts.UNDECIDED else ""
        rows.append(GateRow(str(row.point), outcome, interval_text(row.estimate) + more))
    return GateResult(max_slowdown, tuple(rows), verdicts.gate_exit_code([row.outcome for row in rows]))


def parse_percent(text: str) -> float:
    """`3%` and `3 %` are 0.03.

    Raises:
        HarnessError: anything else; a number without its sign could mean 3 % or 300 %.
    """
    if found := re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", text):
        return float(found[1]) / 100
    raise HarnessError(f"{text!r} is not a percentage: write 3 % as '3%'")


def load_side(path: str | Path) -> Run:
    """A run's folder, or a CSV file with the columns of the samples table (without `trial`) as a run of one row.

    Raises:
        HarnessError: it is neither, or is damaged.
    """
    path = Path(path)
    if not os.path.isfile(path):  # for which a name that is too long is no file either
        return load(path)
    columns = SAMPLE_COLUMNS[1:]
    numbers = [name for name in columns if name not in ("boundary", "disturbed")]  # the mark may be unknown
    try:
        frame = pd.read_csv(path, low_memory=False)
        if sorted(map(str, frame.columns)) != sorted(columns):
            raise HarnessError("it has other columns")
        values = frame[numbers].astype("float64")
        finite = bool(np.isfinite(values.to_numpy()).all()) and set(frame["boundary"]) <= set(BOUNDARIES)
        if not (finite and (values["elapsed_s"] > 0).all() and (values["call"] > 0).any()):
            raise HarnessError("a value is not what it should be")
    except (OSError, ValueError, HarnessError) as error:  # a parser's own errors are ValueErrors
        expected = f"expected is CSV, a timed call a row, its columns {', '.join(columns)}; boundary is compute or "
        expected += "end-to-end, elapsed_s is above 0, and the calls 0 do not count"
        raise HarnessError(plain(f"'{path}' is not a file of samples: {one_line(error)}; {expected}")) from error
    frame[numbers] = values
    trial = dict.fromkeys((field.name for field in fields(Point)), None) | {"variant": path.stem, "trial": path.stem}
    trial |= {"kind": "latency", "status": OK, "reason": ""}
    tables: dict[str, Any] = {field.name: pd.DataFrame() for field in fields(Run) if field.default is MISSING}
    tables |= {"path": path, "header": {"name": path.stem, "environment": {}, "baselines": {}}}
    tables |= {"trials": pd.DataFrame([trial]), "samples": frame.assign(trial=path.stem)[SAMPLE_COLUMNS]}
    return Run(**tables)


def _trials(run: Run) -> dict[Point, Trial]:
    names = [field.name for field in fields(Point) if field.name != "boundary"]
    floors = run.header.get("floors", [])  # they compute nothing, so there is nothing to compare
    timed = [t for t in records(run.trials) if t["kind"] == "latency" and t.get("architecture") not in floors]
    told: list[dict[str, Any]] = [{name: None if pd.isna(t[name]) else t[name] for name in names} for t in timed]
    return {Point(**values): trial for values, trial in zip(told, timed, strict=True)}


def _matched(
    points: Mapping[Point, Point], runs: tuple[Run, Run], trials: tuple[dict[Point, Trial], dict[Point, Trial]]
) -> tuple[list[Pair], list[Difference]]:
    """What both sides measured, and of all else what each side says; `points` are NEW's, each to its own of BASE."""
    before, after = (instance_medians(run.samples) for run in runs)
    pairs: list[Pair] = []
    absent = []
    for point, against in points.items():
        old, young = trials[0].get(against), trials[1].get(point)
        ends = [f"{t['status']}: {t['reason']}".removesuffix(": ") if t else "not in it" for t in (old, young)]
        if not old or not young or ends != [OK, OK]:
            absent.append(Difference(str(point), *ends))
            continue
        timed = [b for b in BOUNDARIES if (old["trial"], b) in before or (young["trial"], b) in after]
        for boundary in timed or [""]:
            at = replace(point, boundary=boundary)
            theirs, own = before.get((old["trial"], boundary)), after.get((young["trial"], boundary))
            if theirs and own:
                pairs.append((at, old, young, theirs, own))
            else:
                absent.append(Difference(str(at), OK if theirs else NO_SAMPLES, OK if own else NO_SAMPLES))
    return pairs, absent


def _over_processes(medians: Medians) -> stats.LogMean:
    logs: dict[tuple[int, int], list[float]] = {}
    for (slice_, process, _), value in medians.items():
        logs.setdefault((slice_, process), []).append(math.log(value))
    return stats.unit_mean([fmean(values) for values in logs.values()], "process")


def _drift(base: Run, new: Run, task: str | None) -> Drift:
    """The canary's shift, over the runtimes that both have; a slice is the unit, as its processes share the moment."""
    sides = [[r for r in records(run.processes) if r["task"] == task and r["canary_s"] > 0] for run in (base, new)]
    runtimes = {row["runtime"] for row in sides[0]} & {row["runtime"] for row in sides[1]}
    if not runtimes:
        return Drift(task, None)
    means = []
    for side in sides:
        canaries = pd.DataFrame(side).query("runtime in @runtimes").set_index("slice")["canary_s"]
        means.append(stats.unit_mean(np.log(canaries).groupby(level=0).mean().tolist(), "slice"))
    return Drift(task, stats.difference(means[1], means[0]))


def _more(row: Row, max_slowdown: float, planned: tuple[int, ...]) -> str:
    """How much more measuring would decide; what the machine did between two runs stays, however much is measured."""
    error, stays = row.ratio.standard_error, row.drift.lasting
    if math.isnan(error):
        return "one observation has no interval: take at least two on each side"
    sampled = replace(row.ratio, standard_error=math.sqrt(max(0.0, error**2 - stays**2)))
    half = NormalDist().inv_cdf((1 + stats.CONFIDENCE) / 2) * stays
    left = math.sqrt(max(0.0, (row.ratio.mean - math.log1p(max_slowdown)) ** 2 - half**2))
    if not left and stays:
        return "no number of processes would decide it beside the machine's drift: interleave both in one run"
    factor = stats.units_needed(sampled, left, planned) / sampled.units if left else math.inf
    if not 1 < factor < 1000:
        return "a little more would decide" if factor <= 1 else "it lies too near the limit for any number to decide"
    times = f"{float(f'{factor:.2g}'):g} times as many"
    return f"about {times} {UNITS[row.ratio.unit]} would decide (there were {row.units})"


def _facts(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """What two runs must share, and what they may differ in: software, and how latency was sampled."""
    facts = run.environment | {"os family": str(run.environment.get("os")).split("-")[0]}  # `Linux`
    changing = _software(facts) | {f"latency.{name}": value for name, value in sampling(run).model_dump().items()}
    inner = {f"{w} in {p}": v for p, told in run.header.get("pythons", {}).items() for w, v in _software(told).items()}
    return {name: facts.get(name) for name in MUST_AGREE}, changing | inner


def _software(facts: Mapping[str, Any]) -> dict[str, Any]:
    versions = {f"version of {name}": version for name, version in facts.get("versions", {}).items()}
    commits = {f"commit of {name}": commit for name, commit in facts.get("commits", {}).items()}
    return {name: facts.get(name) for name in MAY_CHANGE} | versions | commits


def _differences(base: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Difference, ...]:
    def said(value: Any) -> str:
        text = (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
        return NONE if value is None else text

    names = [name for name in {**base, **new} if base.get(name) != new.get(name)]
    return tuple(Difference(name, said(base.get(name)), said(new.get(name))) for name in names)


def interval_text(found: stats.Estimate) -> str:
    """`1.020× (1.010–1.030)`."""
    ends = "interval unknown" if math.isnan(found.low) else f"{found.low:.3f}–{found.high:.3f}"
    return f"{found.value:.3f}× ({ends})"


def plain(text: str) -> str:
    """Printable text alone, whatever strangers called their things."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
