"""`report.html`: everything that is known of a run on one page, to be sorted, filtered and looked at."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from harness.baselines import Medians, baselines
from harness.charts import run_charts, setting_charts
from harness.contract import MOST_NAME, printable
from harness.formatting import NONE, inline, percentage
from harness.page import Cell, Commands, Grid, Log, Picture, Section, Words, write_page
from harness.report_parts import Part, SettingPart
from harness.schema import GOOD_STATUSES
from harness.store import Run
from harness.summary_report import REPORT_COLUMNS, display_row, filled
from harness.tables import instance_medians, records
from harness.vega import Chart

MOST_SETTINGS = 8  # whose charts are drawn; a sweep may have hundreds
MOST_LOG = 4000  # characters, the last ones
MOST_LOGS = 20
RAW = {
    "parity": "parity_ratio",
    "score": "score",
    "agreement": "agreeing_rows",
    "single-stream": "single_stream_latency_s",
    "vs baseline": "single_stream_ratio",
    "precision": "single_stream_half_width",
    "end-to-end": "single_stream_end_to_end_s",
    "end-to-end vs baseline": "single_stream_end_to_end_ratio",
    "offline": "offline_latency_s",
    "training step": "training_step_latency_s",
    "stream chunk": "stream_latency_s",
    "offline seq/s": "offline_throughput_per_s",
}
"""What the columns of a table are sorted by."""
SCENARIO = {
    **dict.fromkeys(("single-stream", "vs baseline", "verdict", "precision"), "single-stream"),
    "offline": "offline",
    "offline seq/s": "offline",
    "training step": "training-step",
    "stream chunk": "stream",
}
"""Whose verdict colours a cell."""
NARROWED = {"--models": 1, "--runtimes": 1, "--tasks": 1, "--out": 1, "--resume": 1, "--baselines": 1, "--quiet": 0}
"""Options of a command that name its rows or its folder, with how many values they have."""


@dataclass(frozen=True)
class Charts:
    """The charts of a report, by name: of each setting, by its number, and of the whole run."""

    of_setting: Mapping[int, Mapping[str, Chart]] = field(default_factory=dict)
    of_run: Mapping[str, Chart] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Chart]:
        """All of them."""
        return dict(chain(*(own.items() for own in (*self.of_setting.values(), self.of_run))))


def charts_of(run: Run, settings: Sequence[SettingPart]) -> Charts:
    """The charts of a run; of no more than 8 settings."""
    drawn = settings[:MOST_SETTINGS]
    of_setting = {
        number: {
            chart.name if len(settings) == 1 else f"{chart.name}-{number + 1}": chart
            for chart in setting_charts(run, part.rows)
        }
        for number, part in enumerate(drawn)
    }
    return Charts(of_setting, {chart.name: chart for chart in run_charts(run)})


def write_html(run: Run, settings: Sequence[SettingPart], parts: Sequence[Part], charts: Charts, path: Path) -> None:
    """Write the page of a run.

    Raises:
        HarnessError: the extra `html` is not installed.
        OSError: it cannot be written.
    """
    facts = run.environment
    shown = [facts.get("started_utc"), facts.get("cpu_model"), facts.get("os"), *(facts.get("accelerators") or [])]
    medians = cache(lambda: instance_medians(run.samples))  # found when they are needed first
    sections = [
        _setting_section(run, number, part, charts.of_setting.get(number, {}), medians)
        for number, part in enumerate(settings)
    ]
    if charts.of_run:
        sections.append(Section("charts", "Charts of the run", [Picture(chart) for chart in charts.of_run.values()]))
    for own in parts:
        logs = _logs(run) if own.name == "not-ok" else []
        sections.append(Section(own.name, own.title, [Words(own.lines), *logs], folded=own.folded))
    sections.insert(-1, Section("reproduce", "How to get a row again", _reproduction(run), folded=True))
    write_page(path, run.header["name"], [str(fact) for fact in shown if fact], sections)


def _setting_section(
    run: Run, number: int, part: SettingPart, charts: Mapping[str, Chart], medians: Callable[[], Medians]
) -> Section:
    rows = records(part.rows)
    shown = [display_row(row, intervals=True) for row in rows]
    columns = filled(REPORT_COLUMNS, shown)
    cells = [[_cell(row, words[name], name) for name in columns] for row, words in zip(rows, shown, strict=True)]
    chosen: dict[str, tuple[str, Sequence[str]]] = {}
    others: dict[str, dict[str, dict[str, Any]]] = {}
    for architecture, own in part.rows.groupby("architecture", sort=False):
        pairs = baselines(run, own, part.latency, medians)
        default = own["baseline"].iloc[0]
        if default in pairs:
            chosen[printable(architecture)] = (printable(default), [printable(name) for name in pairs])
            for name in pairs:
                others[printable(name)] = {
                    printable(row["variant"]): _changes(row, words, name, default, pairs[name])
                    for row, words in zip(rows, shown, strict=True)
                    if row["architecture"] == architecture
                }
    grid = Grid(columns, cells, f"{part.title}: every variant", chosen, others)
    blocks: list[Any] = [Words([inline(part.sizes)]), grid, Words([f"- {line}" for line in part.remarks])]
    blocks += [Picture(chart) for chart in charts.values()]
    return Section(f"setting-{number + 1}", part.title, [*blocks, Words(part.more)])


def _cell(row: Mapping[str, Any], text: str, column: str) -> Cell:
    name = RAW.get(column)
    value = None if name is None or pd.isna(row[name]) else float(row[name])
    tone = "bad" if _is_bad(row, text, column) else _tone(row.get(f"{_scenario(column)}_verdict"))
    changes = column if column in SCENARIO or column == "end-to-end vs baseline" else ""
    return Cell(printable(text), "" if name and value is None else value, tone, changes)


def _scenario(column: str) -> str:
    return SCENARIO.get(column, "no").replace("-", "_")


def _tone(verdict: Any) -> str:
    return verdict if isinstance(verdict, str) else ""


def _is_bad(row: Mapping[str, Any], text: str, column: str) -> bool:
    """Whether a cell tells of what went wrong."""
    if column == "parity":
        return row["parity"] not in (*GOOD_STATUSES, None) and not pd.isna(row["parity"])
    status = row.get(f"{_scenario(column)}_status")
    return isinstance(status, str) and status not in GOOD_STATUSES and text == status


def _changes(
    row: Mapping[str, Any], words: Mapping[str, str], baseline: str, default: str, pairs: Mapping[Any, Any]
) -> dict[str, Any]:
    """What another baseline makes of a row's cells, by column; the run's own baseline gives them back as they were."""
    if baseline == default:
        return {
            name: {"text": cell.text, "sort": cell.sort, "tone": cell.tone}
            for name in words
            if (cell := _cell(row, words[name], name)).column
        }
    found: dict[str, Any] = {}
    for column, scenario in SCENARIO.items():
        own = pairs.get((row["variant"], scenario, "compute"))
        found[column] = {"tone": "" if own is None else own.verdict}
        if column in ("vs baseline", "verdict", "precision"):
            found[column] |= _against(column, own, row["variant"] == baseline)
    whole = pairs.get((row["variant"], "single-stream", "end-to-end"))
    return found | {"end-to-end vs baseline": {"tone": ""} | _against("vs baseline", whole, row["variant"] == baseline)}


def _against(column: str, own: Any, is_baseline: bool) -> dict[str, Any]:
    """The text of a cell against another baseline, and what it is sorted by."""
    if is_baseline and column == "vs baseline":
        return {"text": "baseline", "sort": 1.0}
    if own is None:
        return {"text": NONE, "sort": None}
    if column == "vs baseline":
        value, low, high = own.ratio.value, own.ratio.low, own.ratio.high
        interval = "" if math.isnan(low) else f" ({low:.2f}–{high:.2f})"
        return {"text": f"{value:.2f}×{interval}", "sort": value}
    if column == "verdict":
        return {"text": own.verdict, "sort": own.verdict}
    is_known = not math.isnan(own.half_width)
    return {
        "text": f"±{percentage(own.half_width)}" if is_known else NONE,
        "sort": own.half_width if is_known else None,
    }


def _logs(run: Run) -> list[Log]:
    """The ends of the logs of what did not end well."""
    bad = run.trials[~run.trials["status"].isin(list(GOOD_STATUSES)) & run.trials["log"].notna()]
    logs: list[Log] = []
    for log, own in bad.groupby("log", sort=False):
        text = _end_of(run.path, str(log))
        if text and len(logs) < MOST_LOGS:
            first = records(own)[0]
            logs.append(Log(printable(f"{log}: {first['variant']}, {first['trial']}", 2 * MOST_NAME), text))
    return logs


def _end_of(folder: Path, log: str) -> str:
    """The last characters of a log of the run's folder; nothing of a file elsewhere, or of none."""
    path = (folder / log).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4 * MOST_LOG))
        text = file.read().decode("utf-8", errors="replace")[-MOST_LOG:]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _reproduction(run: Run) -> list[Words | Commands]:
    """The versions, then the command of the run narrowed to each row and its baseline."""
    versions = run.environment.get("versions", {})
    pinned = [f"{name}=={version}" for name, version in versions.items()]
    words = Words(
        [
            "With the same versions, on the same machine, left alone. Data sets are in the folder that `--data-dir` "
            "or `HARNESS_DATA_DIR` names. A number comes back within its interval only if processes, too, are as they "
            "were: compare with `harness compare`.",
        ]
    )
    rows = [("the versions", shlex.join(["pip", "install", *pinned])), ("the whole run", _command(run, None))]
    planned = run.trials[run.trials["kind"] == "parity"].drop_duplicates(["variant", "task"])
    for trial in records(planned):
        rows.append((printable(f"{trial['variant']} on {trial['task']}"), _command(run, trial)))
    return [words, Commands(rows)]


def _command(run: Run, trial: Mapping[str, Any] | None) -> str:
    """The run's command; of a trial, with its variant, its baseline and its task alone."""
    given = [printable(part, 1000) for part in run.environment.get("command", ["harness"])]
    if trial is None or given[1:2] != ["run"]:
        return shlex.join(given)
    kept: list[str] = []
    rest = iter(given)
    for part in rest:
        name, equals, _ = part.partition("=")
        if name not in NARROWED:
            kept.append(part)
        elif NARROWED[name] and not equals:
            next(rest, None)
    names = [str(trial["variant"]), str(run.header["baselines"].get(trial["architecture"], ""))]
    variants = [name.partition("[")[0].partition("@") for name in names if name]
    models, runtimes = (list(dict.fromkeys(name[part] for name in variants)) for part in (0, 2))
    chosen = ["--models", ",".join(models), "--runtimes", ",".join(runtimes), "--tasks", str(trial["task"])]
    return shlex.join([*kept, *(printable(part) for part in chosen)])
