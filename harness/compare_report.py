"""Comparisons and gates in words: a document of sections, and lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.compare import SEPARATE, Comparison, GateResult, Row, interval_text
from harness.document import Document, Section, document_lines, wrapped
from harness.formatting import MOST_ROWS, NONE, percent, seconds, three_digits
from harness.sides import Difference, Point
from harness.verdicts import FAIL, PASS, UNDECIDED

HEADER = ("variant", "scenario", "BASE", "NEW", "NEW / BASE", "verdict", "units")
GATE_HEADER = ("outcome", "row", "NEW / BASE", "why")
GATE_READING = (
    "pass: shown to be under the limit, at the 5 % level.",
    "fail: shown to be over it, with at most a 5 % chance that any row fails wrongly; or BASE has the row and NEW lost "
    "it.",
    "Of a load, which is the better the more is carried, the limit is on BASE / NEW.",
    "undecided: neither is shown; the row says how much more measuring would decide. To run it again until it passes "
    "raises the chance that a slower one does.",
    "Exit code: 0 if every row passes, 1 if any fails, 2 if that is undecided or could not be looked at.",
)
TOGETHER = "Verdicts hold together, over all runs and all rows of a boundary."
OF_LOADS = (
    "Of loads, NEW / BASE is a ratio of capacities: above 1, NEW carries more. An interval is no narrower than the "
    "steps of the search allow. Verdicts hold over all loads together."
)


def comparison_lines(*comparisons: Comparison) -> list[str]:
    """What comparisons of one BASE say, for a terminal of 100 columns; several are from `compare_all`."""
    return document_lines(comparison_document(comparisons, intervals=False))


def comparison_document(comparisons: Sequence[Comparison], intervals: bool) -> Document:
    """What comparisons with one BASE say: a table a setting, with a column for every further run if there are several.

    Args:
        comparisons: one, or several from `compare_all`.
        intervals: both ends of each, and whole sentences; otherwise ± half of them, as a terminal has little room.
    """
    names = _names(comparisons)
    sides = {"BASE": comparisons[0].base} | {name: each.new for name, each in zip(names, comparisons, strict=True)}
    if intervals:
        remarks = [", ".join(f"{name} is {path}" for name, path in sides.items()) + "."]
        same = f"the same is within {100 * comparisons[0].tolerance:g} %"
        ratio = "NEW / BASE is" if len(names) == 1 else "NEW 1 / BASE and so on are each"
        if any(each.rows for each in comparisons):
            remarks.append(f"{ratio} a ratio of latencies with its 95 % interval: below 1, NEW is faster; {same}.")
    else:
        longest = max(map(len, names), default=0)
        remarks = [f"{name:<{max(4, longest)}} {path}" for name, path in sides.items()]
    tables = _pair(comparisons[0], intervals) if len(names) == 1 else _several(comparisons, names, intervals)
    return Document("Comparison", tuple(remarks), (*tables, *_rest(comparisons, names)))


def gate_lines(result: GateResult, comparison: Comparison) -> list[str]:
    """What a gate says for a terminal of 100 columns, where the last line is read first: so the sum stands there.

    Rows are long, so each is a sentence. The sides' names, which the command line has, are left to the document.
    """
    said = gate_document(result, comparison)
    rows, *rest = said.sections
    lines = [f"{row[0]:<9} {row[1]}: {'; '.join(cell for cell in row[2:] if cell != NONE)}" for row in rows.rows]
    lines += document_lines(Document("", (), tuple(rest)))[1:]
    return wrapped([*lines, *rows.remarks, said.remarks[0]])


def gate_document(result: GateResult, comparison: Comparison) -> Document:
    """What a gate says: the outcome and the sum, rows that fail first, what they rest on, and folded details.

    Every table has at most 500 rows, and says so if there are more.
    """
    whole = comparison_document([comparison], intervals=True)
    order = [row for outcome in (FAIL, UNDECIDED, PASS) for row in result.rows if row.outcome == outcome]
    rows = tuple((row.outcome, row.row, row.ratio or NONE, row.why) for row in order)
    outcomes = [row.outcome for row in order]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes)) or "nothing was compared"
    tables = [replace(section, folded=True) for section in _pair(comparison, intervals=True)]
    sections = [
        Section(header=GATE_HEADER if rows else (), rows=rows, keys=2),
        *_rest([comparison], _names([comparison])),
        *tables,
        Section("How to read it", remarks=GATE_READING, folded=True),
    ]
    allowed = f"at most {100 * result.max_slowdown:g} % slower"
    if comparison.loads:
        allowed += f", and no less carried than {1 / (1 + result.max_slowdown):.3f}×"
    remarks = (f"{allowed}: {counts}", *whole.remarks)
    return Document(f"Gate: {result.outcome}", remarks, tuple(map(_shortened, sections)))


def no_gate_document(why: str) -> Document:
    """What is to be said where a gate could not look."""
    remarks = (f"nothing was compared: {why}", "A gate that could not look has not passed: its exit code is 2.")
    return Document(f"Gate: {UNDECIDED}", remarks, ())


def ratio_text(row: Row, intervals: bool) -> str:
    """`1.020× (1.010–1.030)`, or `1.020× ±1.0%`."""
    found = row.estimate
    return interval_text(found) if intervals else f"{found.value:.3f}× {percent(found.low, found.high)}".strip()


def value_text(row: Row, of_base: bool = False) -> str:
    """The latency of NEW, or of BASE; of a load how much it carries: `1.5 ms`, `6700/s`, `778 streams`."""
    value = math.exp(row.base.mean if of_base else row.new.mean)
    if not row.is_load:
        return seconds(value)
    return three_digits(value) + ("/s" if row.point.scenario == "server" else " streams")


def difference_section(title: str, found: Iterable[Difference], base: str = "BASE", new: str = "NEW") -> list[Section]:
    """What is not the same on two sides, as a list; no section if there is nothing."""
    rows = tuple((item.what, item.base, item.new) for item in found)
    return [Section(title, header=("", base, new), rows=rows, is_list=True)] if rows else []


def _shortened(section: Section) -> Section:
    """Its first 500 rows: a page of a job has room for a mebibyte."""
    if len(section.rows) <= MOST_ROWS:
        return section
    said = f"The first {MOST_ROWS} of {len(section.rows):,} rows."
    return replace(section, rows=section.rows[:MOST_ROWS], remarks=(*section.remarks, said))


def _names(comparisons: Sequence[Comparison]) -> list[str]:
    return ["NEW"] if len(comparisons) == 1 else [f"NEW {number}" for number in range(1, len(comparisons) + 1)]


def _pair(comparison: Comparison, intervals: bool) -> list[Section]:
    """The rows that share a setting, under it."""
    found: dict[str, list[Row]] = {}
    for row in (*comparison.rows, *comparison.loads):
        against = "" if row.how == SEPARATE else f", against {row.against}"
        found.setdefault(row.point.setting + against, []).append(row)
    header = (*HEADER, "how") if intervals else HEADER
    return [
        Section(title, header=header, rows=tuple(_pair_cells(row, intervals) for row in rows), keys=2, spare="units")
        for title, rows in found.items()
    ]


def _pair_cells(row: Row, intervals: bool) -> tuple[str, ...]:
    cells = (
        row.point.variant,
        row.point.shape,
        value_text(row, of_base=True),
        value_text(row),
        ratio_text(row, intervals),
        row.verdict,
        row.units,
    )
    return (*cells, row.how) if intervals else cells


def _several(comparisons: Sequence[Comparison], names: Sequence[str], intervals: bool) -> list[Section]:
    """The rows of all runs that share a setting, a column a run."""
    found: dict[str, dict[Point, dict[str, Row]]] = {}
    for name, comparison in zip(names, comparisons, strict=True):
        for row in (*comparison.rows, *comparison.loads):
            found.setdefault(row.point.setting, {}).setdefault(row.point, {})[name] = row
    header = ("variant", "scenario", "BASE", *(f"{name} / BASE" for name in names))
    sections = []
    for title, rows in found.items():
        cells = []
        for point, own in rows.items():
            base = value_text(next(iter(own.values())), of_base=True)
            ratios = [f"{ratio_text(own[n], intervals)} {own[n].verdict}" if n in own else NONE for n in names]
            cells.append((point.variant, point.shape, base, *ratios))
        sections.append(Section(title, header=header, rows=tuple(cells), keys=3))
    return sections


def _rest(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[Section]:
    """What the machine did, what must be known beside, and what changed and was not compared."""
    remarks = list[str]()
    for name, each in zip(names, comparisons, strict=True):
        remarks += [d.said(name) if d.shift or len(names) == 1 else f"{name}: {d}" for d in each.drift]
    remarks += dict.fromkeys(note for each in comparisons for note in each.notes)
    remarks += [TOGETHER] if len(names) > 1 else []
    remarks += [OF_LOADS] if any(each.loads for each in comparisons) else []
    sections = [Section(remarks=tuple(remarks))] if remarks else []
    for name, each in zip(names, comparisons, strict=True):
        of = f" in {name}" if len(names) > 1 else ""
        for title, found in (
            (f"Matters and differs{of}", each.differences),
            (f"Changed{of}", each.changes),
            (f"Not compared{of}", each.absent),
        ):
            sections += difference_section(title, found, new=name)
    return sections
