"""What a run shows while it goes and when it ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from harness.contract import MOST_REASON, printable
from harness.formatting import percentage, seconds
from harness.load_report import load_tables
from harness.notices import say
from harness.shapes import RAGGED_COLUMNS, ragged_rows
from harness.store import Run
from harness.summary_report import COLUMNS, display_table, filled, setting, visibility
from harness.tables import SETTING, of_setting, records

LOADS = {"server": "server: the highest rate", "stream": "stream: the most at once"}
LEGEND = """
parity: rounding error, times the yardstick's; score ±: 95 % over seeds; other ± or ×÷: 95 %, within this run.
verdict: on the ratio to the baseline, all of a boundary together 95 %; * its interval is wider than the target.
Single-stream, offline, training step: compute alone; end-to-end: single-stream, arrays in to arrays out."""


class Progress:
    """Progress bars with the time left on a terminal, a plain line a step elsewhere, nothing when quiet.

    Everything goes to standard error, so that standard output holds the table alone. If that cannot be written to,
    nobody is told and the run goes on.
    """

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        if self._console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self._bars = Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console)

    def __enter__(self) -> Self:
        if self._bars:
            with contextlib.suppress(OSError):
                self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bars:
            with contextlib.suppress(OSError):
                self._bars.stop()

    def phase(self, title: str, steps: int) -> None:
        """A phase of so many steps begins."""
        if self._bars:
            with contextlib.suppress(OSError):
                self._bar = self._bars.add_task(printable(title), total=steps)
        else:
            self._say(f"{printable(title)}: {steps} steps")

    def step(self, what: str) -> None:
        """A step of the current phase is finished."""
        if self._bars and self._bar is not None:
            with contextlib.suppress(OSError):
                self._bars.update(self._bar, advance=1)
        self._say(f"  {printable(what, MOST_REASON)}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(text, soft_wrap=self._bars is None)


def print_summary(run: Run) -> None:
    """Print one table a task and device, and what is not ok. Off a terminal a table is 120 columns wide."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False, emoji=False)
    latency = run.latency
    told: set[str] = set()
    for _, rows in run.summary.groupby(SETTING, sort=False):
        task, device = rows.iloc[0][["task", "device"]]
        console.print(f"\n{printable(f'{task} on {device}: {setting(rows, latency)}', MOST_REASON)}\n")
        shown = display_table(rows, intervals=False)
        columns = filled(COLUMNS, shown)
        console.print(_cells(columns, [[row[column] for column in columns] for row in shown], console.width))
        if ragged := ragged_rows(of_setting(latency, records(rows)[0])):
            console.print("", _cells(RAGGED_COLUMNS, ragged, console.width), sep="\n")
        for line in visibility(run, task) if task not in told else ():
            console.print(printable(line, MOST_REASON), soft_wrap=True)
        told.add(task)
    for scenario, names, cells in load_tables(run):
        console.print(f"\n{LOADS[scenario]}\n")
        console.print(_cells(names, cells, console.width))
    console.print(LEGEND, style="dim")
    bad = run.trials[~run.trials["status"].isin(["ok", "skipped"])]
    for trial in records(bad.drop_duplicates(["variant", "task", "status", "reason"])):
        text = f"{trial['variant']} on {trial['task']}: {trial['status']}: {trial['reason']}"
        console.print(printable(text, 2 * MOST_REASON), soft_wrap=True)


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


def _cells(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table of as many of the first columns as fit; the last ones are left to the report."""
    for count in range(len(columns), 0, -1):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for place, column in enumerate(columns[:count]):
            table.add_column(column, justify="right" if place else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row[:count]))
        if Console(width=1000).measure(table).maximum <= width:
            break
    return table
