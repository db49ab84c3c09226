"""From recorded processes to rates: the engine's own rule, run over and over on what was measured. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from benchmarks.workloads import identical_pairs, planted_pairs
from harness import estimates, stats, verdicts
from harness.drift import Drift

Pair = tuple[str, str]  # own arm, base arm
SLICES = 5  # of an absolute latency: a run's least number of slices
TOLERANCE = 0.01  # ratios within it may be judged the same
DIFFERENT = frozenset({verdicts.FASTER, verdicts.SLOWER})


@dataclass(frozen=True, slots=True)
class Cell:
    """What one arm gave in one instance, in seconds.

    Attributes:
        median_s: of the counted calls.
        measured_s: of all timed calls together.
        warmup_s: of the calls before them, as their number times the median.
    """

    median_s: float
    measured_s: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Process:
    """One recorded process: wall seconds from start to end, per arm one cell an instance, and its canary's seconds.

    The canary's are 0 where none was recorded.
    """

    wall_s: float
    cells: Mapping[str, tuple[Cell, ...]]
    canary_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """How a comparison stops and is judged: as the engine does, with one process a slice.

    Attributes:
        precision: the half-width of the ratio's interval that is enough; 0.01 is 1 %.
        first: processes at the first look; the number doubles from look to look.
        most: processes at the last.
        tolerance: ratios within it may be judged the same.
    """

    precision: float
    first: int
    most: int
    tolerance: float = TOLERANCE

    @property
    def looks(self) -> tuple[int, ...]:
        return stats.planned_looks(self.first, self.most)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of two arms, as a user would have seen it.

    Attributes:
        verdict: one of `harness.verdicts`.
        ratio: own over base.
        excludes_one: the interval does not hold 1. The verdict may be `same` all the same.
        half_width: of the interval, as a share.
        is_reached: the interval was narrow enough when measuring stopped.
        processes: how many it took; of each arm, where every arm has its own.
        measured_s, warmup_s: of both arms, in seconds.
        wall_s: of the processes, in seconds; meaningful only where the two arms were alone.
    """

    verdict: str
    ratio: stats.LogMean
    excludes_one: bool
    half_width: float
    is_reached: bool
    processes: int
    measured_s: float
    warmup_s: float
    wall_s: float


def processes_of(instances: Iterable[Mapping[str, str]], processes: Iterable[Mapping[str, str]]) -> list[Process]:
    """The recorded processes that are whole, in order, from the rows of both tables."""
    cells: dict[str, dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for row in instances:
        median_s = float(row["median_s"])
        cell = Cell(median_s, float(row["measured_s"]), median_s * int(row["warmup_calls"]))
        cells[row["process"]][row["arm"]].append(cell)
    return [
        Process(
            float(row["wall_s"]),
            {arm: tuple(found) for arm, found in cells[row["process"]].items()},
            float(row.get("canary_s") or 0.0),
        )
        for row in processes
    ]


# ------------------------------------------------------------------------------------------------------- one comparison


def medians(processes: Sequence[Process], arm: str, side: int = 0) -> dict[estimates.Key, float]:
    """An arm's medians by slice, process and instance; every process is a slice of its own, whichever it is.

    Args:
        side: 0 or 1; a slice has two processes where every arm has its own.
    """
    return {
        (number, 2 * number + side, instance): cell.median_s
        for number, process in enumerate(processes)
        for instance, cell in enumerate(process.cells[arm])
    }


def log_ratio(processes: Sequence[Process], pair: Pair, bases: Sequence[Process] | None = None) -> stats.LogMean:
    """Own over base, paired within instances, or within slices where the base arm has processes of its own.

    Args:
        bases: the base arm's, slice by slice.
    """
    base = medians(processes, pair[1]) if bases is None else medians(bases, pair[1], side=1)
    ratio = estimates.ratio(medians(processes, pair[0]), base)
    assert ratio is not None  # both arms took part in every slice
    return ratio


def half_width(ratio: stats.LogMean, looks: Sequence[int]) -> float:
    """Half the width of the ratio's interval over the planned looks, as a share, as the engine reckons it."""
    interval = stats.estimate(ratio, looks)
    return math.sqrt(interval.high / interval.low) - 1 if interval.low > 0 else math.inf


def compare(processes: Sequence[Process], pair: Pair, rule: Rule, bases: Sequence[Process] | None = None) -> Comparison:
    """Look after each planned number of processes; stop when the interval is narrow enough, or at the last look.

    Args:
        bases: the base arm's own, slice by slice, as of two interpreters in one run; None where arms share processes.

    Raises:
        ValueError: fewer processes than the last look has.
    """
    if len(processes) < rule.looks[-1]:
        raise ValueError(f"the rule looks at up to {rule.looks[-1]} processes, there are {len(processes)}")
    for look in rule.looks:
        ratio = log_ratio(processes[:look], pair, bases and bases[:look])
        if half_width(ratio, rule.looks) <= rule.precision:
            break
    return _judged(ratio, rule, pair, processes[:look], bases and bases[:look])


def compare_runs(old: Sequence[Process], new: Sequence[Process], pair: Pair) -> Comparison:
    """What `harness compare` says of two runs, one process a slice: own is NEW's, base is BASE's.

    Processes are the units, and the canary's shift widens the interval.
    """
    before, after = _over_processes(old, pair[1]), _over_processes(new, pair[0])
    ratio = stats.widened(stats.difference(after, before), _drift(old, new).spread)
    return _judged(ratio, Rule(precision=math.inf, first=len(new), most=len(new)), pair, new, old)


def _judged(
    ratio: stats.LogMean, rule: Rule, pair: Pair, processes: Sequence[Process], bases: Sequence[Process] | None
) -> Comparison:
    (verdict,) = verdicts.judge([ratio], rule.tolerance, rule.looks)
    interval = stats.estimate(ratio, rule.looks)
    sides = zip(pair, (processes, processes if bases is None else bases), strict=True)
    cells = [cell for arm, taken in sides for process in taken for cell in process.cells[arm]]
    half = half_width(ratio, rule.looks)
    return Comparison(
        verdict=verdict,
        ratio=ratio,
        excludes_one=interval.low > 1 or interval.high < 1,
        half_width=half,
        is_reached=half <= rule.precision,
        processes=len(processes),
        measured_s=sum(cell.measured_s for cell in cells),
        warmup_s=sum(cell.warmup_s for cell in cells),
        wall_s=sum(process.wall_s for process in (*processes, *(bases or ()))),
    )


def _over_processes(processes: Sequence[Process], arm: str) -> stats.LogMean:
    logs = [fmean(math.log(cell.median_s) for cell in process.cells[arm]) for process in processes]
    return stats.unit_mean(logs, "process")


def _drift(old: Sequence[Process], new: Sequence[Process]) -> Drift:
    logs = [[math.log(process.canary_s) for process in run if process.canary_s > 0] for run in (old, new)]
    if not all(logs):
        return Drift(None, None)
    before, after = (stats.unit_mean(values, "slice") for values in logs)
    return Drift(None, stats.difference(after, before))


# ------------------------------------------------------------------------------------------------------- many of them


def disjoint(
    processes: Sequence[Process], pair: Pair, rule: Rule, bases: Sequence[Process] | None = None
) -> list[Comparison]:
    """Comparisons that share no process, in the order of recording: each begins where the last one stopped.

    The last begins where as many processes are left as it may need; dropping those that do not come to an end would
    drop the long ones.
    """
    found: list[Comparison] = []
    start = 0
    while start + rule.most <= len(processes):
        part = slice(start, start + rule.most)
        found.append(compare(processes[part], pair, rule, bases and bases[part]))
        start += found[-1].processes
    return found


def across_processes(processes: Sequence[Process], pair: Pair, rule: Rule, seed: int) -> list[Comparison]:
    """Comparisons that share no process, of arms that share none either, as two interpreters of one run.

    Neighbours in time are a slice; which of them comes first is drawn, as the engine draws it.
    """
    rng = np.random.default_rng(seed)
    slices = [rng.permutation(2) + start for start in range(0, len(processes) - 1, 2)]
    own, bases = ([processes[places[side]] for places in slices] for side in (0, 1))
    return disjoint(own, pair, rule, bases)


def separate_runs(processes: Sequence[Process], pair: Pair, block: int) -> list[Comparison]:
    """Comparisons that share no process, each of so many processes, BASE, with as many that followed them, NEW."""
    return [
        compare_runs(processes[start : start + block], processes[start + block : start + 2 * block], pair)
        for start in range(0, len(processes) - 2 * block + 1, 2 * block)
    ]


def resampled(processes: Sequence[Process], pair: Pair, rule: Rule, trials: int, seed: int) -> list[Comparison]:
    """Comparisons of processes drawn with replacement: a smoother rate, but not of independent comparisons.

    None where there are fewer processes than a comparison may need.
    """
    rng = np.random.default_rng(seed)
    if len(processes) < rule.most:
        return []
    return [
        compare([processes[k] for k in rng.integers(len(processes), size=rule.most)], pair, rule) for _ in range(trials)
    ]


def over_pairs(processes: Sequence[Process], pairs: Iterable[Pair], rule: Rule) -> list[Comparison]:
    """The disjoint comparisons of several pairs that share no arm."""
    return [comparison for pair in pairs for comparison in disjoint(processes, pair, rule)]


def identical_comparisons(processes: Sequence[Process], rule: Rule) -> list[Comparison]:
    """Comparisons of identical arms; no two share both a process and an arm."""
    return over_pairs(processes, identical_pairs(processes[0].cells) if processes else [], rule)


def planted_comparisons(processes: Sequence[Process], percent: int, rule: Rule) -> list[Comparison]:
    """Comparisons of arms slowed by so many percent with identical ones; no two share both a process and an arm."""
    return over_pairs(processes, planted_pairs(processes[0].cells, percent) if processes else [], rule)


def budget_rule(processes: Sequence[Process], pair: Pair, seconds: float) -> Rule:
    """One look after as many processes as fit into the seconds of measuring both arms; at least one."""
    each = fmean(cell.measured_s for process in processes for arm in pair for cell in process.cells[arm])
    instances = len(processes[0].cells[pair[0]])
    most = max(1, int(seconds / (each * 2 * instances)))
    return Rule(precision=math.inf, first=most, most=most)


def share(comparisons: Sequence[Comparison], wanted: Iterable[str]) -> stats.Estimate | None:
    """How often the verdict is one of these, with the exact interval; None of no comparisons."""
    words = frozenset(wanted)
    return _rate([comparison.verdict in words for comparison in comparisons])


def share_excluding_one(comparisons: Sequence[Comparison]) -> stats.Estimate | None:
    """How often the interval does not hold 1, with the exact interval; None of no comparisons.

    Of identical arms this is the promise itself. Verdicts differ from it by those where `same` was accepted as well.
    """
    return _rate([comparison.excludes_one for comparison in comparisons])


def _rate(happened: Sequence[bool]) -> stats.Estimate | None:
    return stats.rate_interval(sum(happened), len(happened)) if happened else None


# ------------------------------------------------------------------------------------------------------- latency


def absolute_groups(processes: Sequence[Process], seed: int | None) -> Iterator[Sequence[Process]]:
    """Disjoint groups of `SLICES` processes: neighbours in time, or with a seed, drawn from all over the recording."""
    order = np.arange(len(processes)) if seed is None else np.random.default_rng(seed).permutation(len(processes))
    for start in range(0, len(processes) - SLICES + 1, SLICES):
        yield [processes[k] for k in order[start : start + SLICES]]


def latency_coverage(processes: Sequence[Process], arm: str, seed: int | None) -> stats.Estimate | None:
    """How often the 95 % interval of an arm's latency holds the truth, over disjoint groups; None of no groups.

    The truth is not known. What stands for it is the geometric mean of all medians of the recording, which a group is
    a part of.
    """
    truth = math.exp(fmean(math.log(median_s) for median_s in medians(processes, arm).values())) if processes else 0.0
    hits = []
    for group in absolute_groups(processes, seed):
        interval = stats.estimate(estimates.latency(medians(group, arm)))
        hits.append(interval.low <= truth <= interval.high)
    return _rate(hits)


def instance_spread(processes: Sequence[Process], pair: Pair) -> float:
    """The standard deviation of the log ratio from instance to instance; natural logarithm."""
    own, base = medians(processes, pair[0]), medians(processes, pair[1])
    logs = [math.log(own[key] / base[key]) for key in own]
    return float(np.std(logs, ddof=1)) if len(logs) > 1 else math.nan
