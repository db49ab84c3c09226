"""A matrix in words: a document of sections, and lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from harness.compare_report import difference_section, ratio_text
from harness.document import Document, Section, document_lines
from harness.history_report import LEFT_OUT, latency_text
from harness.matrix import VERSION_OF, Cell, Matrix
from harness.sides import Difference, Point


def matrix_lines(found: Matrix, left_out: Mapping[Path, str]) -> list[str]:
    """The table for a terminal of 100 columns."""
    return document_lines(matrix_document(found, left_out, intervals=False))


def matrix_document(found: Matrix, left_out: Mapping[Path, str], intervals: bool) -> Document:
    """The table, one a setting, and what must be said beside it.

    Args:
        found: from `matrix`.
        left_out: why other folders are not in it.
        intervals: both ends of each; otherwise ± half of a latency's and none of a ratio's, as a terminal has little
            room.
    """
    ratio = "its ratio with its interval" if intervals else "its ratio"
    remarks = (  # each short enough for the head of a page
        f"A column is a set of versions, by {', '.join(found.factors)}.",
        "A cell is the latency of a call, compute alone, with its 95 % interval.",
        f"Then comes {ratio} to a latency to its left, below 1 if this one is faster, and the verdict.",
        "That one differs in as few of these versions as there is, and is the nearest such.",
        f"The same is within {100 * found.tolerance:g} %, and verdicts hold together, over the whole table.",
    )
    settings: dict[str, list[Point]] = {}
    for point in found.rows:
        settings.setdefault(point.setting, []).append(point)
    header = ("variant", "scenario", *(column.label for column in found.columns))
    sections = [
        Section(title, header=header, rows=tuple(_cells(point, found, intervals) for point in points), keys=2)
        for title, points in settings.items()
    ]
    return Document("Matrix", remarks, (*sections, *_rest(found, left_out)))


def _cells(point: Point, found: Matrix, intervals: bool) -> tuple[str, ...]:
    return point.variant, point.shape, *(_cell(cell, intervals) for cell in found.rows[point])


def _cell(cell: Cell, intervals: bool) -> str:
    if not cell.latency:
        return cell.status
    latency = latency_text(cell.latency, intervals)
    if not cell.row:
        return latency
    ratio = ratio_text(cell.row, intervals) if intervals else f"{cell.row.estimate.value:.2f}×"
    return f"{latency}{',' * intervals} {ratio} {cell.row.verdict}"


def _remarks(found: Matrix) -> list[str]:
    """Which pairs are compared beside neighbours, what changed in more than one version, and what the machine did."""
    labels = [column.label for column in found.columns]
    neighbours = set(pairwise(place for place, column in enumerate(found.columns) if column.run))
    apart, several, rest = [], [], []
    for (old, new), each in found.comparisons.items():
        pair = f"{labels[new]} against {labels[old]}"
        if (old, new) not in neighbours:
            apart.append(f"{labels[new]} is compared with {labels[old]}, which is not beside it.")
        changed = [change.what.removeprefix(VERSION_OF) for change in each.changes if _is_version(change)]
        if len(changed) > 1:
            several.append(f"{pair}: {len(changed)} versions changed, and a ratio is of all: {', '.join(changed)}.")
        rest += [f"{pair}: {drift.said(labels[new])}" for drift in each.drift]
        rest += [f"{pair}: {note}" for note in each.notes]
    return list(dict.fromkeys([*apart, *several, *rest]))


def _is_version(change: Difference) -> bool:
    return change.what.startswith(VERSION_OF) or change.what == "python"


def _rest(found: Matrix, left_out: Mapping[Path, str]) -> list[Section]:
    labels = [column.label for column in found.columns]
    sections = [
        Section(
            "Columns",
            remarks=tuple(_remarks(found)),
            header=("versions", "began (UTC)", "folder"),
            rows=tuple((c.label, f"{c.started:%Y-%m-%d %H:%M:%S}", str(c.path)) for c in found.columns),
        )
    ]
    if rows := _whys(found):
        sections.append(Section("Not measured", header=("versions", "why", "rows"), rows=rows, is_list=True))
    changes = [
        Difference(f"{labels[place]}, {change.what}", change.base, change.new)
        for place, own in found.changes.items()
        for change in own
    ]
    sections += difference_section("Changed", changes, "the column before", "this column")
    matters = [
        Difference(f"{labels[place]}, {each.what}", each.base, each.new)
        for place, own in found.differences.items()
        for each in own
    ]
    sections += difference_section("Matters and differs", matters, "the first measured column", "this column")
    conflicts = tuple((c.label, line) for c in found.columns if c.attempt for line in c.attempt.conflicts)
    if conflicts:
        header = ("versions", "what pip check says")
        sections.append(Section("Conflict", header=header, rows=conflicts, is_list=True))
    rest = tuple((str(path), why) for path, why in {**left_out, **found.superseded}.items())
    if rest:
        sections.append(Section(LEFT_OUT, header=("folder", "why"), rows=rest, is_list=True))
    return sections


def _whys(found: Matrix) -> tuple[tuple[str, str, str], ...]:
    """Why there is no latency: columns, the reason, and rows; what several columns say alike is said once."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}  # by column and reason: the scenarios of every variant
    has_settings = len({point.setting for point in found.rows}) > 1
    for point, cells in found.rows.items():
        what = f"{point.shape} [{point.setting}]" if has_settings else point.shape
        for column, cell in zip(found.columns, cells, strict=True):
            if column.run and not cell.latency:
                why = f"{cell.status}: {cell.reason}".removesuffix(": ")
                rows.setdefault((column.label, why), {}).setdefault(point.variant, []).append(what)
    alike: dict[tuple[str, str], list[str]] = {}
    for (label, why), variants in rows.items():
        told = "; ".join(f"{variant} ({', '.join(shapes)})" for variant, shapes in variants.items())
        alike.setdefault((why, told), []).append(label)
    measured = sum(column.run is not None for column in found.columns)
    every = f"all {measured} that were measured"
    whole = [
        (c.label, f"{c.attempt.outcome}: {c.attempt.reason}", "every row")
        for c in found.columns
        if not c.run and c.attempt
    ]
    return (
        *whole,
        *((every if 1 < measured == len(own) else "; ".join(own), why, told) for (why, told), own in alike.items()),
    )
