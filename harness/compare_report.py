"""Comparisons and gates in words: Markdown, and lines for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable

from harness.compare import SEPARATE, Comparison, Difference, GateResult, Row, interval_text, plain
from harness.formatting import inline, markdown_table, percent, seconds

WIDTH = 120  # columns of a terminal
HEADER = ("variant", "scenario", "BASE", "NEW", "NEW / BASE", "verdict", "units")


def comparison_markdown(comparison: Comparison) -> str:
    """The verdicts first, then what the machine did, what changed, and what was not compared."""
    lines = ["# Comparison", "", f"BASE is {inline(comparison.base)}, NEW is {inline(comparison.new)}.", ""]
    same = f"the same is within {100 * comparison.tolerance:g} %"
    lines += [f"NEW / BASE is a ratio of latencies with its 95 % interval: below 1, NEW is faster; {same}.", ""]
    for title, rows in _tables(comparison):
        cells = [[*_cells(row, interval_text(row.estimate)), row.how] for row in rows]
        lines += [f"## {inline(title)}", "", *markdown_table((*HEADER, "how"), cells), ""]
    for remark in (*comparison.drift, *comparison.notes):
        lines += [inline(remark), ""]
    for title, found in _lists(comparison):
        cells = [[item.what, item.base, item.new] for item in found]
        lines += [f"## {title}", "", *markdown_table(("", "BASE", "NEW"), cells), ""]
    return "\n".join(lines)


def comparison_lines(comparison: Comparison) -> list[str]:
    """The same for a terminal of 120 columns."""
    lines = [f"BASE {comparison.base}", f"NEW  {comparison.new}", ""]
    for title, rows in _tables(comparison):
        ratios = [f"{row.estimate.value:.3f}× {percent(row.estimate.low, row.estimate.high)}" for row in rows]
        lines += [title, "", *_aligned([list(HEADER), *map(_cells, rows, ratios)]), ""]
    lines += _remarks(comparison)
    return _wrapped(lines)


def gate_lines(result: GateResult, comparison: Comparison) -> list[str]:
    """Every row's outcome and why, what they rest on, then their sum, for a terminal of 120 columns."""
    outcomes = [row.outcome for row in result.rows]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes)) or "nothing was compared"
    lines = [f"{row.outcome:<9} {row.row}: {row.why}" for row in result.rows]
    lines += _remarks(comparison)
    return _wrapped([*lines, f"at most {100 * result.max_slowdown:g} % slower: {counts}"])


def _remarks(comparison: Comparison) -> list[str]:
    lines = [str(remark) for remark in (*comparison.drift, *comparison.notes)]
    return lines + [f"{title}: {item}" for title, found in _lists(comparison) for item in found]


def _lists(comparison: Comparison) -> list[tuple[str, tuple[Difference, ...]]]:
    titles = {"Matters and differs": comparison.differences, "Changed": comparison.changes}
    return [(title, found) for title, found in (titles | {"Not compared": comparison.absent}).items() if found]


def _tables(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    """The rows that share a setting, under it."""
    found: dict[str, list[Row]] = {}
    for row in comparison.rows:
        against = "" if row.how == SEPARATE else f", against {row.against}"
        found.setdefault(row.point.setting + against, []).append(row)
    return list(found.items())


def _cells(row: Row, ratio: str) -> list[str]:
    latencies = seconds(math.exp(row.base.mean)), seconds(math.exp(row.new.mean))
    return [row.point.variant, row.point.shape, *latencies, ratio.strip(), row.verdict, row.units]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns under each other; the first is shortened if the terminal is too narrow."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(8, min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths[1:])))
    short = [[row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…", *row[1:]] for row in rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in short]


def _wrapped(lines: Iterable[str]) -> list[str]:
    """No line is longer than the terminal."""
    wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    printable = map(plain, lines)
    return [part for line in printable for part in (wrapper.wrap(line) if len(line) > WIDTH else [line])]
