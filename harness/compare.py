"""Runs compared, or the two sides of one interleaved run: ratios, verdicts, and a gate that can stop a release.

Two runs taken at different times are less certain than one that interleaves both sides: nothing cancels what a process
or the moment did to one of them. So processes are the unit, and what the canary in every worker shows of the machine's
drift between the runs widens each interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import NormalDist, fmean

from harness import estimates, stats, verdicts
from harness.capacity import CapacityRatio, apart, paired
from harness.contract import HarnessError
from harness.drift import Drift, drift_between
from harness.formatting import plain
from harness.load_pairs import matched_loads, offered_otherwise
from harness.sides import (
    LOAD,
    NOT_THERE,
    OK,
    Difference,
    Load,
    Medians,
    Point,
    Side,
    Trial,
    differing,
    end_of,
    side_of,
    software,
)
from harness.store import Run
from harness.tables import BOUNDARIES, looks, records

MOST_NAMED = 2  # rows of a side that shares none
SEPARATE, INTERLEAVED = "separate runs", "interleaved"
NO_SAMPLES = "no samples that count"
UNITS = {"process": "processes", "instance": "instances", "slice": "slices"}
Pair = tuple[Point, Trial, Trial, Medians, Medians]  # BASE's trial and medians before NEW's
Places = tuple[int, int]  # of two among several sides, BASE before NEW
NO_CANARY = "No canary runs while loads are offered: the machine's drift is that between the timings of latencies."


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that both sides measured.

    Attributes:
        point: what was timed; of an interleaved run, the variant that is NEW.
        against: the variant that is BASE.
        base, new: the latencies, as log means of seconds; of a load the capacities, of requests a second or streams.
        ratio: the logarithm of NEW over BASE; its error contains that of `drift`, and `coarseness`.
        drift: what the machine did between the two; nothing where both were interleaved.
        estimate: NEW over BASE with its 95 % interval; above 1 is slower, or carries more.
        verdict: `faster`, `slower`, `same` or `undecided`, over all rows of its boundary; of a load, over all loads,
            `carries more` or `carries less` in place of the first two.
        how: `separate runs` or `interleaved`.
        coarseness: of a load, what of the error is how finely its search tells loads apart.
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
    coarseness: float = 0.0

    @property
    def is_load(self) -> bool:
        """Is it a capacity, of which more is better, and no latency?"""
        return self.point.boundary == LOAD

    @property
    def slowdown(self) -> stats.LogMean:
        """The ratio such that above 1 is worse: of a load, BASE over NEW."""
        return replace(self.ratio, mean=-self.ratio.mean) if self.is_load else self.ratio

    @property
    def units(self) -> str:
        """How many observations there are: `5 | 5 processes` of BASE and NEW, or `20 instances` that hold both."""
        unit = UNITS[self.ratio.unit]
        return f"{self.base.units} | {self.new.units} {unit}" if self.how == SEPARATE else f"{self.ratio.units} {unit}"


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
        loads: the capacities that both sides found, as `rows` are latencies.
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
    loads: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class GateRow:
    """What the gate says of one row: `pass`, `fail` or `undecided`, the ratio as text where there is one, and why."""

    row: str
    outcome: str
    ratio: str
    why: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """All rows, and the exit code: 0 if all pass, 1 if any fails, 2 if that is undecided or there was nothing."""

    max_slowdown: float
    rows: tuple[GateRow, ...]
    exit_code: int

    @property
    def outcome(self) -> str:
        """The exit code as a word."""
        return (verdicts.PASS, verdicts.FAIL, verdicts.UNDECIDED)[self.exit_code]


def compare(base: Run, new: Run, allow_different: bool = False) -> Comparison:
    """Compare two runs, or two files of samples, row by row; see `compare_sides`.

    Args:
        base, new: from `load_side`.
        allow_different: compare although the environments differ in what matters.

    Raises:
        HarnessError: what matters differs, no row is in both, or a run meets a file.
    """
    return compare_sides(side_of(base), side_of(new), allow_different)


def compare_all(base: Side, news: Sequence[Side], allow_different: bool = False) -> list[Comparison]:
    """Compare every further side with the first; the verdicts of a boundary hold over all of them together.

    All ratios have one side in common and so depend on each other. Verdicts hold whatever the dependence, for their
    thresholds are Bonferroni's (see `verdicts.judge`).

    Raises:
        HarnessError: as `compare_sides`; with several, it names the side.
    """
    found = []
    for new in news:
        try:
            found.append(compare_sides(base, new, allow_different))
        except HarnessError as error:
            raise HarnessError(f"{plain(str(new.path))}: {error}" if len(news) > 1 else str(error)) from error
    rows = iter(judged([row for comparison in found for row in comparison.rows], base.tolerance))
    loads = iter(judged([row for comparison in found for row in comparison.loads], base.tolerance))
    return [
        replace(each, rows=tuple(islice(rows, len(each.rows))), loads=tuple(islice(loads, len(each.loads))))
        for each in found
    ]


def judged(rows: Sequence[Row], tolerance: float) -> list[Row]:
    """The same rows with verdicts, which hold over all rows of their boundary together; loads are one of their own.

    Args:
        rows: of one or of several comparisons, each ratio once.
        tolerance: ratios within it of 1 are the same; 0.01 is 1 %.
    """
    found = list(rows)
    for boundary in (*BOUNDARIES, LOAD):
        places = [place for place, row in enumerate(found) if row.point.boundary == boundary]
        metric = "capacity" if boundary == LOAD else "latency"
        words = verdicts.judge([found[place].ratio for place in places], tolerance, metric=metric)
        for place, word in zip(places, words, strict=True):
            found[place] = replace(found[place], verdict=word)
    return found


def compare_pairs(
    sides: Mapping[int, Side],
    wanted: Mapping[Point, Iterable[Places]],
    tolerance: float,
    allow_different: bool = False,
) -> dict[Places, Comparison]:
    """Compare sides in pairs. Each comparison has the rows that are wanted of it; the verdicts of all hold together.

    Args:
        sides: from `side_of`, by their places.
        wanted: which pairs of each point, which both must have; a pair that is named twice is one ratio.
        tolerance: ratios within it of 1 are the same; 0.01 is 1 %.
        allow_different: compare although the environments differ in what matters.

    Raises:
        HarnessError: as `compare_sides`.
    """
    shown = [(point, places) for point, own in wanted.items() for places in dict.fromkeys(own)]
    pairs = {
        (old, new): compare_sides(sides[old], sides[new], allow_different)
        for old, new in dict.fromkeys(places for _, places in shown)
    }
    known = {(row.point, places): row for places, each in pairs.items() for row in each.rows}
    rows = judged([known[key] for key in shown], tolerance)
    own: dict[Places, list[Row]] = {places: [] for places in pairs}
    for (_, places), row in zip(shown, rows, strict=True):
        own[places].append(row)
    notes = {places: tuple(note for note in each.notes if note != NO_CANARY) for places, each in pairs.items()}
    return {places: replace(pairs[places], rows=tuple(own[places]), loads=(), notes=notes[places]) for places in pairs}


def compare_sides(base: Side, new: Side, allow_different: bool = False) -> Comparison:
    """Compare what two runs, or two files of samples, say of the same rows.

    Unpaired, by Welch's test over processes: instances share what was decided when their process started, and absolute
    latency differs by process. Of a load the worker is the unit. The canary's shift between the runs is added to the
    error, whichever way it is: a machine that is slower by some share carries less by about that share.

    Args:
        base, new: from `side_of`.
        allow_different: compare although the environments differ in what matters.

    Raises:
        HarnessError: what matters differs, no row is in both, or a run meets a file.
    """
    if base.has_environment != new.has_environment:
        raise HarnessError("compare a run with a run, or a file of samples with another; not one with the other")
    differences = differing(base.agreeing, new.agreeing)
    changes = differing(base.changing, new.changing) + offered_otherwise(base, new)
    if differences and not allow_different:
        listed = "; ".join(map(str, differences))
        raise HarnessError(plain(f"what matters differs: {listed}; --allow-different compares all the same"))
    if not base.has_environment:  # two files are compared whatever they are called
        new = replace(new, trials=dict(zip(base.trials, new.trials.values(), strict=True)))
    points = dict.fromkeys([*base.trials, *new.trials])
    shared = [point for point in points if point in base.trials and point in new.trials]
    served = [point for point in base.loads if point in new.loads]
    if not shared and not served:
        has = [f"{side.path} has {_some([*side.trials, *side.loads])}" for side in (base, new)]
        what = "latency row and no load" if base.loads or new.loads else "latency row"
        raise HarnessError(plain(f"no {what} is in both runs. {'. '.join(has)}"))
    drift = {task: drift_between(base, new, task) for task in dict.fromkeys(point.task for point in (*shared, *served))}
    pairs, absent = _matched({point: point for point in points}, base, new)
    rows = []
    for point, _, _, theirs, own in pairs:
        before, after, moved = _over_processes(theirs), _over_processes(own), drift[point.task]
        ratio = stats.widened(stats.difference(after, before), moved.spread)
        known = ratio, moved, stats.estimate(ratio), verdicts.UNDECIDED
        rows.append(Row(point, point.variant, before, after, *known, SEPARATE))
    rows.sort(key=lambda row: BOUNDARIES.index(row.point.boundary))
    offered, uncompared = matched_loads({point: point for point in dict.fromkeys([*base.loads, *new.loads])}, base, new)
    loads = [_separate_load(point, theirs, own, drift[point.task]) for point, theirs, own in offered]
    notes = [] if base.has_environment else ["Files have no environment: whether the machine was the same is unknown."]
    if any(each.shift for each in drift.values()):
        if {"python", "version of numpy"} & {each.what for each in changes}:
            notes.append("The canary runs on Python and NumPy, which changed: part of its shift may be theirs.")
        notes += [NO_CANARY] * bool(loads)
    return Comparison(
        str(base.path),
        str(new.path),
        tuple(judged(rows, base.tolerance)),
        (*absent, *uncompared),
        base.tolerance,
        differences=differences,
        changes=changes,
        drift=tuple(drift.values()),
        notes=tuple(notes),
        loads=tuple(judged(loads, base.tolerance)),
    )


def _some(points: Iterable[Point]) -> str:
    """The first rows of a side, and how many more there are: an error is a line."""
    names = list(map(str, points))
    more = len(names) - MOST_NAMED
    return f"{'; '.join(names[:MOST_NAMED]) or 'none'}{f' and {more} more' if more > 0 else ''}"


def interleaved(run: Run) -> Comparison:
    """The ratios within one run: every row that has a baseline is NEW, its baseline BASE, and the verdict the run's.

    Both sides were timed in turns, so what the machine did is in both.

    Raises:
        HarnessError: it is a file of samples.
    """
    if not run.environment:
        raise HarnessError(f"{run.path} is one file of samples: give a second one to compare it with")
    side = side_of(run)
    pairs, absent = _matched(_baselines(side.trials), side, side)
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
    loads, uncompared = _interleaved_loads(run, side)
    pythons = [software(facts) for facts in run.header.get("pythons", {}).values()]
    changes = differing(*pythons) if len(pythons) == 2 else ()
    return Comparison(
        f"each row's baseline in {run.path}",
        str(run.path),
        tuple(rows),
        (*absent, *uncompared),
        side.tolerance,
        looks(run),
        changes=changes,
        loads=tuple(loads),
    )


def gate(comparison: Comparison, max_slowdown: float) -> GateResult:
    """Is nothing slower than allowed, and does nothing carry less? A row that BASE has and NEW lost fails.

    Of a load the limit is on BASE / NEW: 5 % allows a capacity down to 1 / 1.05 of what it was.

    Args:
        comparison: from `compare` or `interleaved`.
        max_slowdown: 0.03 allows 3 %.
    """
    rows = [row for item in comparison.absent if (row := _absent_row(item))]
    slowdowns, once = ([row.slowdown for row in own] for own in (comparison.rows, comparison.loads))
    outcomes = verdicts.gate(slowdowns, max_slowdown, comparison.looks, once=once)
    for each, outcome in zip((*comparison.rows, *comparison.loads), outcomes, strict=True):
        planned = stats.ONE_LOOK if each.is_load else comparison.looks
        why = _shown(each, outcome, max_slowdown) or _more(each, max_slowdown, planned)
        rows.append(GateRow(str(each.point), outcome, interval_text(each.estimate), why))
    return GateResult(max_slowdown, tuple(rows), verdicts.gate_exit_code([row.outcome for row in rows]))


def parse_percent(text: str) -> float:
    """`3%` and `3 %` are 0.03.

    Raises:
        HarnessError: anything else; a number without its sign could mean 3 % or 300 %.
    """
    if found := re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", text):
        return float(found[1]) / 100
    raise HarnessError(f"{text!r} is not a percentage: write 3 % as '3%'")


def _matched(points: Mapping[Point, Point], base: Side, new: Side) -> tuple[list[Pair], list[Difference]]:
    """What both sides measured, and of all else what each side says; `points` are NEW's, each to its own of BASE."""
    before, after = base.medians, new.medians
    pairs: list[Pair] = []
    absent = []
    for point, against in points.items():
        old, young = base.trials.get(against), new.trials.get(point)
        ends = [end_of(trial) if trial else NOT_THERE for trial in (old, young)]
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


def _baselines(trials: Mapping[Point, Trial]) -> dict[Point, Point]:
    """The points of a run that have a baseline beside themselves, with that."""
    return {p: other for p, trial in trials.items() if (other := replace(p, variant=trial["baseline"])) != p}


def _separate_load(point: Point, base: Load, new: Load, drift: Drift) -> Row:
    found = apart(new.limits, base.limits)
    ratio = stats.widened(found.value, drift.spread)
    return _load_row(point, point.variant, base, new, replace(found, value=ratio), drift, SEPARATE)


def _interleaved_loads(run: Run, side: Side) -> tuple[list[Row], list[Difference]]:
    """The capacities of a run over their baselines', with the run's own verdicts."""
    points = _baselines({point: load.trial for point, load in side.loads.items()})
    pairs, absent = matched_loads(points, side, side)
    words = {row["trial"]: row["verdict"] for row in records(run.capacity)} if pairs else {}
    rows = []
    for point, base, new in pairs:
        if ratio := paired(new.limits, base.limits):
            row = _load_row(point, base.trial["variant"], base, new, ratio, Drift(None, None), INTERLEAVED)
            rows.append(replace(row, verdict=words[new.trial["trial"]]))
        else:
            absent.append(Difference(str(point), OK, "shares no slice with BASE", verdicts.UNDECIDED))
    return rows, absent


def _load_row(point: Point, against: str, base: Load, new: Load, found: CapacityRatio, drift: Drift, how: str) -> Row:
    known = base.limits.mean, new.limits.mean, found.value, drift, stats.estimate(found.value)
    return Row(point, against, *known, verdicts.UNDECIDED, how, found.coarseness)


def _absent_row(item: Difference) -> GateRow | None:
    """What a gate says of what was not compared; nothing of what BASE never had."""
    if item.outcome == verdicts.UNDECIDED:
        return GateRow(item.what, item.outcome, "", f"it cannot be compared: BASE: {item.base}; NEW: {item.new}")
    if item.base == OK or item.outcome == verdicts.FAIL:
        return GateRow(item.what, verdicts.FAIL, "", f"BASE has it, NEW does not: {item.new}")
    if item.base.startswith("skipped"):
        return GateRow(item.what, verdicts.UNDECIDED, "", "BASE never measured it: its run was cut off")
    return None


def _shown(row: Row, outcome: str, max_slowdown: float) -> str:
    """What is shown where a row passes or fails."""
    if outcome == verdicts.UNDECIDED:
        return ""
    if row.is_load:
        than = f"than {1 / (1 + max_slowdown):.3f}× of BASE"
        return f"shown to carry {'more' if outcome == verdicts.PASS else 'less'} {than}"
    return f"shown to be {'under' if outcome == verdicts.PASS else 'over'} the limit"


def _over_processes(medians: Medians) -> stats.LogMean:
    logs: dict[tuple[int, int], list[float]] = {}
    for (slice_, process, _), value in medians.items():
        logs.setdefault((slice_, process), []).append(math.log(value))
    return stats.unit_mean([fmean(values) for values in logs.values()], "process")


def _more(row: Row, max_slowdown: float, planned: tuple[int, ...]) -> str:
    """How much more measuring would decide; what it would not lessen stays: the machine's drift, a search's steps."""
    slowdown, drift = row.slowdown, row.drift.lasting
    error, stays = slowdown.standard_error, math.hypot(drift, row.coarseness)
    if math.isnan(error):
        return "one observation has no interval: take at least two on each side"
    sampled = replace(slowdown, standard_error=math.sqrt(max(0.0, error**2 - stays**2)))
    half = math.hypot(NormalDist().inv_cdf((1 + stats.CONFIDENCE) / 2) * drift, estimates.ONE_SIDED * row.coarseness)
    left = math.sqrt(max(0.0, (slowdown.mean - math.log1p(max_slowdown)) ** 2 - half**2))
    if not left and row.coarseness > drift:
        coarse = f"a search that tells loads apart by no less: lower {row.point.scenario}.precision"
        return f"no number of {UNITS[row.ratio.unit]} would decide it beside {coarse}"
    if not left and stays:
        return "no number of processes would decide it beside the machine's drift: interleave both in one run"
    factor = stats.units_needed(sampled, left, planned) / sampled.units if left else math.inf
    if not 1 < factor < 1000:
        return "a little more would decide" if factor <= 1 else "it lies too near the limit for any number to decide"
    times = f"{float(f'{factor:.2g}'):g} times as many"
    return f"about {times} {UNITS[row.ratio.unit]} would decide (there were {row.units})"


def interval_text(found: stats.Estimate) -> str:
    """`1.020× (1.010–1.030)`."""
    ends = "interval unknown" if math.isnan(found.low) else f"{found.low:.3f}–{found.high:.3f}"
    return f"{found.value:.3f}× ({ends})"
