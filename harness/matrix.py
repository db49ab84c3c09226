"""Runs with different versions of libraries as one table: rows are what was timed, columns are sets of versions.

Columns stand in the order of the versions that differ. Every latency is compared with one to its left: of those that
differ in the fewest versions, the nearest. They are compared as any two separate runs are (`harness.compare`), and the
verdicts of the whole table hold together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import stats
from harness.attempts import Attempt
from harness.compare import NO_SAMPLES, Comparison, Places, Row, compare_pairs
from harness.contract import HarnessError, printable
from harness.history import COMPUTE, EVERYTHING, Latencies, Meant, latencies
from harness.sides import OK, Difference, Point, Side, differing, side_of
from harness.store import Run
from harness.versions import asked_version, canonical, order, parse

VERSION_OF = "version of "
NOT_THERE, NOT_LOADED = "not in it", "plugin failed"
LAST = (True, "\U0010ffff")  # after every version
Versions = Mapping[str, str]  # by canonical name; `python` is one of them


@dataclass(frozen=True)
class Measured:
    """What a matrix takes of a run.

    Attributes:
        side: what is compared of it.
        versions: of all that is known to be installed.
        failed_plugins: why a plugin could not be loaded, by its distribution.
        attempt: how it came to be; None for a run that was not made by `harness bench`.
        started: when it began, in UTC.
    """

    side: Side
    versions: Versions
    failed_plugins: Mapping[str, str]
    attempt: Attempt | None
    started: datetime


@dataclass(frozen=True)
class Column:
    """A set of versions.

    Attributes:
        label: the exact versions that tell columns apart: `onnxruntime 1.31.0`; what was asked where nothing was
            installed: `onnxruntime==1.99.*`.
        path: its folder.
        started: when it began, in UTC.
        run: what was measured, or None.
        attempt: how it came to be; None for a run that was not made by `harness bench`.
    """

    label: str
    path: Path
    started: datetime
    run: Measured | None
    attempt: Attempt | None


@dataclass(frozen=True)
class Cell:
    """A row in a column.

    Attributes:
        latency: in seconds with its 95 % interval, as the run's own table has it; None if there is none.
        against: the place of the column it is compared with; None for the first latency of its row.
        row: that comparison, its verdict over all of the table.
        status, reason: why there is no latency; empty if there is one.
    """

    latency: stats.Estimate | None = None
    against: int | None = None
    row: Row | None = None
    status: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Matrix:
    """The table.

    Attributes:
        factors: the names of what tells columns apart.
        columns: by the versions of the first factor, those first in which the others have the versions that most have;
            what was not measured stands where its versions would.
        rows: what was timed, at the compute boundary, each with a cell a column.
        changes: every fact that differs between a measured column and the one before it, by the later one's place.
        differences: what matters and is not as in the first measured column, by the other's place; empty unless that
            was allowed.
        comparisons: the pairs of columns that are compared, by their places.
        tolerance: within which ratios are the same: that of the first measured column.
        superseded: folders that are not shown, and why.
    """

    factors: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: Mapping[Point, tuple[Cell, ...]]
    changes: Mapping[int, tuple[Difference, ...]]
    differences: Mapping[int, tuple[Difference, ...]]
    comparisons: Mapping[Places, Comparison]
    tolerance: float
    superseded: Mapping[Path, str]


def measured(run: Run, attempt: Attempt | None) -> Measured:
    """What a matrix takes of a run.

    Raises:
        HarnessError: it has more than one set of versions, or does not say which, or how its latency was sampled.
    """
    if run.header.get("pythons"):
        raise HarnessError("it has several interpreters, compared within it; harness report shows that")
    if any(each.get("changed") for each in run.resumptions):
        raise HarnessError("it was gone on with after something had changed, so its rows share no set of versions")
    told, python = run.environment.get("versions"), run.environment.get("python")
    if not isinstance(told, Mapping):
        raise HarnessError("it does not say which versions were installed")
    versions = {canonical(printable(name)): printable(version) for name, version in told.items()}
    versions |= {canonical(name): version for name, version in attempt.versions.items()} if attempt else {}
    side = side_of(run)
    if side.started is None:
        raise HarnessError("it does not say when it began")
    facts = {name: value for name, value in side.changing.items() if not name.startswith(VERSION_OF)}
    facts |= {f"{VERSION_OF}{name}": version for name, version in sorted(versions.items())}
    failures = {str(p.get("distribution")): f"plugin '{p['name']}': {p['failure']}" for p in _failed(run.header)}
    versions |= {"python": printable(python)} if python else {}
    return Measured(replace(side, changing=facts), versions, failures, attempt, side.started)


def _failed(header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [plugin for plugin in header["plugins"] if plugin.get("failure")]


def matrix(
    runs: Sequence[Measured], attempts: Sequence[Attempt], meant: Meant = EVERYTHING, allow_different: bool = False
) -> Matrix:
    """Runs and attempts as one table.

    Of several runs of the same versions the newest is shown that has every row which an older one has, and so is the
    newest attempt for the same requirements. An older one that was measured stays if its versions are others.

    Args:
        runs: from `measured`, at least one, in any order.
        attempts: those of which there is no run.
        meant: which rows.
        allow_different: merge runs although the environments differ in what matters.

    Raises:
        HarnessError: what matters differs; it names what. Or the extra `matrix` is not installed.
    """
    kept, superseded = _newest(runs, attempts, meant)
    factors = _factors(kept)
    columns = _ordered(kept, factors)
    labels = _distinct([_label(each, factors) for each in columns])
    shown = tuple(_column(each, label) for each, label in zip(columns, labels, strict=True))
    measured = {place: column.run for place, column in enumerate(shown) if column.run}
    sides = {place: run.side for place, run in measured.items()}
    first, *_ = sides.values()
    differences = _differences(sides, allow_different)
    known = {place: latencies(side, meant) for place, side in sides.items()}
    told = {place: [run.versions.get(name) for name in factors] for place, run in measured.items()}
    comparisons = compare_pairs(sides, _neighbours(known, told), first.tolerance, allow_different)
    changes = {new: differing(sides[old].changing, sides[new].changing) for old, new in pairwise(sides)}
    rows = _rows(shown, known, comparisons, meant)
    return Matrix(tuple(factors), shown, rows, changes, differences, comparisons, first.tolerance, superseded)


def _column(each: Measured | Attempt, label: str) -> Column:
    if isinstance(each, Attempt):
        return Column(label, each.path, each.started, None, each)
    return Column(label, each.side.path, each.started, each, each.attempt)


def _newest(
    runs: Sequence[Measured], attempts: Sequence[Attempt], meant: Meant
) -> tuple[list[Measured | Attempt], dict[Path, str]]:
    """What is shown, oldest first; and what is not, with the reason."""
    superseded: dict[Path, str] = {}
    kept: dict[object, Measured] = {}
    for run in sorted(runs, key=lambda each: (each.started, each.side.path)):
        key = tuple(sorted(run.versions.items()))
        older = kept.get(key)
        if older and latencies(older.side, meant).keys() - latencies(run.side, meant).keys():
            superseded[run.side.path] = f"{older.side.path} has the same versions and rows that it lacks"
            continue
        if older:
            superseded[older.side.path] = f"{run.side.path} has the same versions and is newer"
            del kept[key]
        kept[key] = run
    tried: dict[object, Attempt] = {}
    made = [run.attempt for run in runs if run.attempt]
    for attempt in sorted([*made, *attempts], key=lambda each: (each.started, each.path)):
        asked = tuple(sorted(attempt.requirements))
        if (before := tried.get(asked)) and before in attempts:
            superseded[before.path] = f"{attempt.path} asks for the same and is newer"
        tried[asked] = attempt
    failed = [attempt for attempt in tried.values() if attempt in attempts]
    return [*kept.values(), *failed], superseded


def _factors(kept: Sequence[Measured | Attempt]) -> list[str]:
    """What tells columns apart: what was asked for, and further versions only where that does not suffice."""
    runs = [each for each in kept if isinstance(each, Measured)]
    attempts = [attempt for each in kept if (attempt := _attempt(each))]
    attempts.sort(key=lambda each: each.started)
    asked = list(dict.fromkeys(name for each in attempts for name in _asked(each)))
    names = dict.fromkeys([*asked, *sorted({name for run in runs for name in run.versions})])
    differ = [name for name in names if len({run.versions.get(name) for run in runs}) > 1]
    failed = {name for each in kept if isinstance(each, Attempt) for name in _asked(each)}
    found = [name for name in asked if name in differ or name in failed]
    if len({tuple(run.versions.get(name) for name in found) for run in runs}) < len(runs):
        found += [name for name in differ if name not in found]
    return found or asked or ["rnn-harness"]


def _asked(attempt: Attempt) -> dict[str, str]:
    """The requirements by canonical name, without those that are none."""
    found = {}
    for text in attempt.requirements:
        with suppress(HarnessError):
            found[canonical(parse(text).name)] = text
    return found


def _ordered(kept: Sequence[Measured | Attempt], factors: Sequence[str]) -> list[Measured | Attempt]:
    """By their versions, in groups in which all but the first that was asked for are the same; the most usual first."""
    asked = {name for each in kept if (attempt := _attempt(each)) for name in _asked(attempt)}
    usual = {}
    for name in factors[1:]:
        if name in asked:
            counts = Counter(run.versions.get(name, "") for run in kept if isinstance(run, Measured))
            usual[name] = max(counts, key=lambda version: (counts[version], order(version)))

    def place(each: Measured | Attempt) -> list[object]:
        versions = {name: _version(each, name) for name in factors}
        groups = [(versions[name] not in ("", own), order(versions[name] or own)) for name, own in usual.items()]
        rest = [versions[name] for name in factors if name not in usual]
        return [*groups, *(order(version) if version else LAST for version in rest)]

    return sorted(kept, key=place)


def _attempt(each: Measured | Attempt) -> Attempt | None:
    return each.attempt if isinstance(each, Measured) else each


def _version(each: Measured | Attempt, name: str) -> str:
    """Of a library, what was installed, or else what was asked for; empty if nothing was."""
    if version := each.versions.get(name, ""):
        return version
    asked = {} if isinstance(each, Measured) else _asked(each)
    return asked_version(parse(asked[name])) if name in asked else ""


def _label(each: Measured | Attempt, factors: Sequence[str]) -> str:
    asked = {} if isinstance(each, Measured) else _asked(each)
    parts = []
    for name in factors:
        if version := each.versions.get(name):
            parts.append(f"{name} {version}")
        elif name in asked or isinstance(each, Measured):
            parts.append(asked.get(name, f"no {name}"))
    return ", ".join(parts) or ", ".join(each.requirements if isinstance(each, Attempt) else ())


def _distinct(labels: Sequence[str]) -> list[str]:
    """The same, with a number behind those that are there twice."""
    return [
        f"{label} ({labels[:place].count(label) + 1})" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]


def _differences(sides: Mapping[int, Side], allow_different: bool) -> dict[int, tuple[Difference, ...]]:
    first, *_ = sides.values()
    found = {place: differing(first.agreeing, side.agreeing) for place, side in sides.items()}
    for place, own in found.items():
        if own and not allow_different:
            raise HarnessError(
                f"'{first.path}' and '{sides[place].path}' are not of one machine: {'; '.join(map(str, own))}; "
                "--allow-different merges them all the same"
            )
    return {place: own for place, own in found.items() if own}


def _neighbours(
    known: Mapping[int, Latencies], versions: Mapping[int, Sequence[str | None]]
) -> dict[Point, list[Places]]:
    """Every row with the pairs of columns that are compared: each that has a latency, with one to its left."""
    points = dict.fromkeys(point for own in known.values() for point in own)
    found = {}
    for point in points:
        places = [place for place, own in known.items() if point in own]
        found[point] = [(_like(new, places[:at], versions), new) for at, new in enumerate(places) if at]
    return found


def _like(new: int, others: Sequence[int], versions: Mapping[int, Sequence[str | None]]) -> int:
    """The nearest of those that differ in the fewest versions."""

    def changed(old: int) -> int:
        return sum(a != b for a, b in zip(versions[old], versions[new], strict=True))

    return min(others, key=lambda old: (changed(old), new - old))


def _rows(
    columns: Sequence[Column],
    known: Mapping[int, Latencies],
    comparisons: Mapping[Places, Comparison],
    meant: Meant,
) -> dict[Point, tuple[Cell, ...]]:
    compared = {(row.point, new): (old, row) for (old, new), each in comparisons.items() for row in each.rows}
    trials: dict[Point, list[Mapping[str, Any]]] = {}
    for column in columns:
        for point, trial in column.run.side.trials.items() if column.run else ():
            if meant.has(point.variant, point.scenario):
                trials.setdefault(replace(point, boundary=COMPUTE), []).append(trial)

    def cell(point: Point, place: int, column: Column) -> Cell:
        if found := known.get(place, {}).get(point):
            old, row = compared.get((point, place), (None, None))
            return Cell(found, old, row)
        return Cell(status=(why := _missing(column, point, trials[point]))[0], reason=why[1])

    return {point: tuple(cell(point, place, each) for place, each in enumerate(columns)) for point in trials}


def _missing(column: Column, point: Point, elsewhere: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Why a row has no latency in a column: a status, or what stands for one, and the reason."""
    if column.run is None:
        return (column.attempt.outcome, column.attempt.reason) if column.attempt else (NOT_THERE, "")
    if trial := column.run.side.trials.get(replace(point, boundary="")):
        return (NO_SAMPLES, "") if trial["status"] == OK else (str(trial["status"]), str(trial["reason"] or ""))
    parts = ("distribution", "runtime_distribution", "task_distribution")
    for name in dict.fromkeys(str(trial[part]) for trial in elsewhere for part in parts):
        if failure := column.run.failed_plugins.get(name):
            return NOT_LOADED, failure
    return NOT_THERE, ""
