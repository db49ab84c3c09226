"""What a run shows while it goes and when it ends."""

from __future__ import annotations

import contextlib
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from harness.contract import MOST_REASON, printable
from harness.document import WIDTH
from harness.formatting import on_device, percentage, seconds
from harness.load_report import load_tables
from harness.notices import say
from harness.shapes import ragged_table
from harness.store import Run
from harness.summary_report import COLUMNS, REPORT_COLUMNS, display_table, filled, setting, visibility
from harness.tables import by_setting, of_setting, records
from harness.verdicts import CARRIES_LESS, CARRIES_MORE, FASTER, SLOWER

LOADS = {"server": "server: the highest rate", "stream": "stream: the most at once"}
LEGEND = """
parity: rounding error, times the yardstick's; score ±: 95 % over seeds.
Other ± or ×÷: 95 %, within this run.
verdict: on the ratio to the baseline, all of a boundary together 95 %; * wider than the target.
Of loads: all of them together.
Single-stream, offline, training step: compute alone.
end-to-end: single-stream, arrays in to arrays out."""
WIDEST = 10_000  # columns of a table that is not cut
PACE_SECONDS = 3600.0  # over which the pace is taken that tells the time left; a step may take minutes
STYLES = {FASTER: "green", CARRIES_MORE: "green", SLOWER: "red", CARRIES_LESS: "red"}
VERDICT = re.compile(rf"(?<=\s)(?:{'|'.join(STYLES)})(?=\s\s|$)")  # where a cell of a table ends


class _Bars(Bars):
    """Bars with a line below them that says what is running."""

    running = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.running:
            yield Text(f"running: {self.running}", no_wrap=True, overflow="ellipsis")


class Progress:
    """Progress bars with the time left and what is running on a terminal, a plain line a step elsewhere.

    Nothing when quiet. Everything goes to standard error, so that standard output holds the table alone. If that cannot
    be written to, nobody is told and the run goes on. Bars are drawn when something begins or ends and at no other
    time: whoever draws ten times a second does so beside a clock. The time left is as of the last step, if all come.
    """

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
        self._bars: _Bars | None = None
        self._bar: TaskID | None = None
        if self._console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            times = TimeElapsedColumn(), TimeRemainingColumn()
            how: dict[str, Any] = {"console": self._console, "auto_refresh": False}
            self._bars = _Bars(*columns, *times, speed_estimate_period=PACE_SECONDS, **how)

    def __enter__(self) -> Self:
        if self._bars:
            with contextlib.suppress(OSError):
                self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bars:
            self._bars.running = ""
            with contextlib.suppress(OSError):
                self._bars.stop()

    def phase(self, title: str, steps: int) -> None:
        """A phase of so many steps begins; nothing is said of one that has none."""
        if steps == 0:
            return
        if self._bars:
            with contextlib.suppress(OSError):
                self._bars.running = ""
                self._bar = self._bars.add_task(printable(title), total=steps)
                self._bars.refresh()
        else:
            self._say(f"{printable(title)}: {steps} step{'s' * (steps != 1)}")

    def running(self, what: str) -> None:
        """This is running now; only a terminal shows it."""
        if self._bars:
            self._bars.running = printable(what, MOST_REASON)
            with contextlib.suppress(OSError):
                self._bars.refresh()

    def fewer(self, steps: int) -> None:
        """So many steps of the current phase will not come."""
        if self._bars and self._bar is not None:
            task = next(task for task in self._bars.tasks if task.id == self._bar)
            with contextlib.suppress(OSError):
                self._bars.update(self._bar, total=(task.total or 0) - steps)
                self._bars.refresh()

    def step(self, what: str) -> None:
        """A step of the current phase is finished."""
        if self._bars and self._bar is not None:
            with contextlib.suppress(OSError):
                self._bars.update(self._bar, advance=1, refresh=True)
        self._say(f"  {printable(what, MOST_REASON)}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(text, soft_wrap=self._bars is None)


def print_summary(run: Run, wide: bool = False) -> None:
    """Print one table a task and device, what is not ok, and where the report lies.

    Args:
        run: a finished one.
        wide: every column of the report, however wide the terminal; otherwise as many as fit, 100 columns off a
            terminal, and it is said which do not.
    """
    width = WIDEST if wide else None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    latency = run.latency
    told: set[str] = set()
    for rows in by_setting(run.summary):
        task, device = rows.iloc[0][["task", "device"]]
        console.print(f"\n{printable(f'{on_device(task, device)}: {setting(rows, latency)}', MOST_REASON)}\n")
        shown = display_table(rows, intervals=False)
        columns, everything = (filled(names, shown) for names in (COLUMNS, REPORT_COLUMNS))
        columns = everything if wide else columns
        _print_table(console, columns, [[row[column] for column in columns] for row in shown], everything)
        ways, ragged = ragged_table(of_setting(latency, records(rows)[0]))
        if ragged:
            console.print()
            _print_table(console, ways, ragged)
        for line in visibility(run, task) if task not in told else ():
            console.print(printable(line, MOST_REASON), soft_wrap=True)
        told.add(task)
    for scenario, names, cells in load_tables(run):
        console.print(f"\n{LOADS[scenario]}\n")
        _print_table(console, names, cells)
    console.print(LEGEND, style="dim")
    bad = run.trials[~run.trials["status"].isin(["ok", "skipped"])]
    for trial in records(bad.drop_duplicates(["variant", "task", "status", "reason"])):
        text = f"{trial['variant']} on {trial['task']}: {trial['status']}: {trial['reason']}"
        console.print(printable(text, 2 * MOST_REASON), soft_wrap=True)
    console.print(f"\nReport: {run.path / 'report.md'}", soft_wrap=True)
    if (run.path / "report.html").exists():
        console.print(f"Page:   {run.path / 'report.html'}", soft_wrap=True)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they are; on a terminal, verdicts at the end of a cell are coloured."""
    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        text = Text(line)
        for found in VERDICT.finditer(line):
            text.stylize(STYLES[found[0]], *found.span())
        console.print(text, soft_wrap=True)


def tell_damage(run: Run) -> None:
    """Say on standard error what of a run cannot be read."""
    for damage in run.damage:
        say(f"harness: {printable(damage)}")


def calibration_lines(row: dict[str, Any]) -> list[str]:
    """A row of the calibration table in words."""
    found = [f"{percentage(row['detectable'])} in {seconds(row['seconds'])}"]
    if row["comparisons"]:
        rate, low, high = row["false_alarms"] / row["comparisons"], row["false_alarms_low"], row["false_alarms_high"]
        ends = f"{100 * rate:.1f} % ({100 * low:.1f}–{100 * high:.1f} %); 5 % is meant"
        alarms = f"the interval excludes 1 in {row['false_alarms']} of {row['comparisons']} comparisons: {ends}"
        found.insert(0, f"{percentage(row['comparison_detectable'])} in {seconds(row['comparison_seconds'])}")
    else:
        alarms = "too few slices for a comparison: give it more time"
    return [
        "",
        printable(f"{row['variant']} on {row['task']}, {row['scenario']}, against itself:"),
        f"  {alarms}",
        f"  smallest slowdown found with 95 % power, by how long each is measured: {', '.join(found)}",
    ]


def _print_table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], everything: Sequence[str] | None = None
) -> None:
    """Print what fits of a table, and which of all its columns are left out."""
    table = _cells(columns, rows, console.width)
    there = {column.header for column in table.columns}
    console.print(table)
    if missing := [name for name in everything or columns if name not in there]:
        console.print()
        console.print(textwrap.shorten(f"--wide shows {', '.join(missing)}", console.width, placeholder=" …"))


def _cells(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table of as many of the first columns as fit."""
    for count in range(len(columns), 0, -1):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for place, column in enumerate(columns[:count]):
            table.add_column(column, justify="right" if place else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(printable(cell), STYLES.get(cell.rstrip("*"), "")) for cell in row[:count]))
        if Console(width=WIDEST).measure(table).maximum <= width:
            break
    return table
