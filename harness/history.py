"""Many runs over time: every row's latencies in the order they were measured, and how the newest compares.

Two runs far apart are compared as any two separate runs are (`harness.compare`). Runs on machines that differ in what
matters are not: each such environment is a series of its own.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from harness import estimates, stats
from harness.compare import Places, Row, compare_pairs
from harness.contract import HarnessError
from harness.sides import OK, Difference, Point, Side, differing

COMPUTE = "compute"
Latencies = dict[Point, stats.Estimate]  # of one run, in seconds


@dataclass(frozen=True, slots=True)
class Moment:
    """A run of a series.

    Attributes:
        number: its place among all runs, by the time they began, counted from 1.
        started: when it began, in UTC.
        path: its folder.
        changes: facts that may differ and do, from the run before it in the series.
    """

    number: int
    started: datetime
    path: str
    changes: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Against:
    """The newest run that has a row against an earlier one.

    Attributes:
        earlier, newest: their numbers.
        row: as two runs are compared; its verdict holds over all of the series together.
    """

    earlier: int
    newest: int
    row: Row


@dataclass(frozen=True, slots=True)
class Line:
    """What a series knows of one row.

    Attributes:
        point: what was timed, at the compute boundary.
        latencies: one a run, in seconds with its 95 % interval, as its own table has it; None where a run lacks it.
        before, first: the newest against the one before it, and against the first; None where only one run has it.
    """

    point: Point
    latencies: tuple[stats.Estimate | None, ...]
    before: Against | None
    first: Against | None


@dataclass(frozen=True, slots=True)
class Series:
    """Runs that can be compared with each other.

    Attributes:
        runs: by the time they began.
        lines: a row each, in the order in which runs first had them.
        tolerance: within which ratios are the same: that of its first run.
        differences: what matters and is not as in the first series; none for that one itself.
    """

    runs: tuple[Moment, ...]
    lines: tuple[Line, ...]
    tolerance: float
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Meant:
    """Which rows are meant: names or patterns such as `hand-*`; with `!` before it, what is left out. None is all."""

    variants: Sequence[str] | None = None
    scenarios: Sequence[str] | None = None

    def has(self, variant: str, scenario: str | None) -> bool:
        """Is this row meant?"""
        return _matches(variant, self.variants) and _matches(scenario or "", self.scenarios)

    def check(self, rows: Iterable[tuple[str, str | None]]) -> None:
        """See that every pattern means something in these rows.

        Raises:
            HarnessError: one means nothing; it names what there is.
        """
        known = list(rows)
        for option, patterns, there in (
            ("variants", self.variants, dict.fromkeys(variant for variant, _ in known)),
            ("scenarios", self.scenarios, dict.fromkeys(scenario or "" for _, scenario in known)),
        ):
            for pattern in patterns or ():
                if not any(fnmatch.fnmatchcase(name, pattern.removeprefix("!")) for name in there):
                    names = ", ".join(there) or "none"
                    raise HarnessError(f"--{option}: no run has '{pattern.removeprefix('!')}'; there are: {names}")


EVERYTHING = Meant()


def history(sides: Sequence[Side], meant: Meant = EVERYTHING) -> tuple[Series, ...]:
    """All runs in the order they began, in series that share what matters.

    Of every row, the newest run that has it is compared with the one before and with the first, drift of the canary
    included (see `harness.compare.compare_sides`). Verdicts hold over all these ratios of a series together.

    Args:
        sides: the runs, in any order; each must say when it began.
        meant: which rows.

    Raises:
        ValueError: a side does not say when it began.
    """
    ordered = sorted(((_moment(side), str(side.path), side) for side in sides), key=lambda each: each[:2])
    series: list[list[tuple[int, datetime, Side]]] = []
    for number, (moment, _, side) in enumerate(ordered, start=1):
        for runs in series:
            if runs[0][2].agreeing == side.agreeing:
                runs.append((number, moment, side))
                break
        else:
            series.append([(number, moment, side)])
    return tuple(_series(runs, series[0][0][2], meant) for runs in series)


def _moment(side: Side) -> datetime:
    if side.started is None:
        raise ValueError(f"{side.path} does not say when it began")
    return side.started


def _series(runs: Sequence[tuple[int, datetime, Side]], first: Side, meant: Meant) -> Series:
    numbers, moments, sides = [n for n, _, _ in runs], [m for _, m, _ in runs], [s for _, _, s in runs]
    known = [latencies(side, meant) for side in sides]
    lines = _lines(numbers, sides, known)
    before = [None, *sides[:-1]]
    changes = [differing(old.changing, new.changing) if old else () for old, new in zip(before, sides, strict=True)]
    told = zip(numbers, moments, (str(side.path) for side in sides), changes, strict=True)
    differences = differing(first.agreeing, sides[0].agreeing)
    return Series(tuple(Moment(*each) for each in told), tuple(lines), sides[0].tolerance, differences)


def _lines(numbers: Sequence[int], sides: Sequence[Side], known: Sequence[Latencies]) -> list[Line]:
    """Every row with its latencies, and the newest against the one before and the first; a pair is compared once."""
    wanted: dict[Point, list[Places]] = {}
    for point in dict.fromkeys(point for own in known for point in own):
        have = [place for place, own in enumerate(known) if point in own]
        wanted[point] = [(have[-2], have[-1]), (have[0], have[-1])] if len(have) > 1 else []
    found = {
        (row.point, places): Against(numbers[places[0]], numbers[places[1]], row)
        for places, comparison in compare_pairs(dict(enumerate(sides)), wanted, sides[0].tolerance).items()
        for row in comparison.rows
    }
    return [
        Line(
            point,
            tuple(each.get(point) for each in known),
            *([found[point, places] for places in own] if own else (None, None)),
        )
        for point, own in wanted.items()
    ]


def latencies(side: Side, meant: Meant) -> Latencies:
    """The latencies of the rows that are meant and ok, at the compute boundary, as the run's own table has them."""
    found = {}
    for point, trial in side.trials.items():
        medians = side.medians.get((trial["trial"], COMPUTE))
        if medians and trial["status"] == OK and meant.has(point.variant, point.scenario):
            found[replace(point, boundary=COMPUTE)] = stats.estimate(estimates.latency(medians))
    return found


def _matches(name: str, patterns: Sequence[str] | None) -> bool:
    if patterns is None:
        return True
    out = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")] or ["*"]
    return any(fnmatch.fnmatchcase(name, p) for p in wanted) and not any(fnmatch.fnmatchcase(name, p) for p in out)
