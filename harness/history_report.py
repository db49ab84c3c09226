"""A history in words: a document of sections, and lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import stats
from harness.compare_report import difference_section, ratio_text
from harness.document import Document, Section, document_lines
from harness.formatting import NONE, percent, seconds, three_digits, unit_of
from harness.history import Against, Line, Series
from harness.sides import Difference

RATIOS = ("newest / before", "newest / first")
LEFT_OUT = "Left out"


def history_lines(series: Sequence[Series], left_out: Mapping[Path, str]) -> list[str]:
    """What became of every row, for a terminal of 100 columns."""
    return document_lines(history_document(series, left_out, intervals=False))


def history_document(series: Sequence[Series], left_out: Mapping[Path, str], intervals: bool) -> Document:
    """What became of every row, a table a setting.

    Args:
        series: from `history`.
        left_out: why other folders are not in it.
        intervals: both ends of each; otherwise ± half of them, as a terminal has little room.
    """
    count = sum(len(each.runs) for each in series)
    remarks = [
        f"{count} run{'s' * (count != 1)}, oldest first. Newest / before and newest / first are ratios of latencies: "
        "below 1, the newest is faster. Loads are left out."
    ]
    if len(series) > 1:
        remarks.append(
            f"What matters differs, so these are {len(series)} series, and no run is compared with one of another."
        )
    sections: list[Section] = []
    for number, each in enumerate(series, start=1):
        name = f"Series {number}" if len(series) > 1 else ""
        sections += _series(each, name, intervals)
    rows = tuple((str(path), why) for path, why in left_out.items())
    if rows:
        sections.append(Section(LEFT_OUT, header=("folder", "why"), rows=rows, is_list=True))
    return Document("History", tuple(remarks), tuple(sections))


def _series(series: Series, name: str, intervals: bool) -> list[Section]:
    title = f"{name}: " if name else ""
    sections = difference_section(f"{name}, matters and differs", series.differences, "Series 1", name)
    settings: dict[str, list[Line]] = {}
    for line in series.lines:
        settings.setdefault(line.point.setting, []).append(line)
    for setting, lines in settings.items():
        header = ("variant", "scenario", *RATIOS, *(f"run {run.number}" for run in series.runs))
        rows = [_cells(line, intervals) for line in lines]
        said = [place for place in range(len(header)) if any(row[place] != NONE for row in rows)]
        cells = tuple(tuple(row[place] for place in said) for row in rows)
        sections.append(Section(f"{title}{setting}", header=tuple(header[place] for place in said), rows=cells, keys=2))
    if remarks := _remarks(series):
        sections.append(Section(remarks=tuple(remarks)))
    runs = tuple((str(run.number), f"{run.started:%Y-%m-%d %H:%M:%S}", run.path) for run in series.runs)
    sections.append(Section(f"{title}Runs", header=("run", "began (UTC)", "folder"), rows=runs))
    changes = [
        Difference(f"run {run.number}, {change.what}", change.base, change.new)
        for run in series.runs
        for change in run.changes
    ]
    return sections + difference_section(f"{title}Changed", changes, "the run before", "this run")


def _cells(line: Line, intervals: bool) -> tuple[str, ...]:
    def ratio(against: Against | None) -> str:
        return f"{ratio_text(against.row, intervals)} {against.row.verdict}" if against else NONE

    latencies = (latency_text(found, intervals) if found else NONE for found in line.latencies)
    return line.point.variant, line.point.shape, ratio(line.before), ratio(line.first), *latencies


def latency_text(found: stats.Estimate, intervals: bool) -> str:
    """`508 µs (490–526)`, or `508 µs ±3.5%`."""
    if intervals and found.low > 0:
        scale, unit = unit_of(found.value)
        low, high = (three_digits(end * scale) for end in (found.low, found.high))
        return f"{three_digits(found.value * scale)} {unit} ({low}–{high})"
    return f"{seconds(found.value)} {percent(found.low, found.high)}".strip()


def _remarks(series: Series) -> list[str]:
    """How long verdicts hold, and what the machine did between the runs that are compared."""
    pairs = [pair for line in series.lines for pair in (line.before, line.first) if pair]
    if not pairs:
        return ["No row is in two of these runs, so nothing is compared."]
    said = [
        f"Run {pair.newest} against run {pair.earlier}: {pair.row.drift.said(f'run {pair.newest}')}" for pair in pairs
    ]
    together = f"the same is within {100 * series.tolerance:g} %, and verdicts hold together, over all of them"
    return [f"Intervals are 95 %; {together}.", *dict.fromkeys(said)]
