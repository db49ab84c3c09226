"""`report.html`: everything that is known of a run on one page, to be sorted, filtered and looked at."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from harness.baselines import MOST_VARIANTS, Against, Baselines, Pairs
from harness.charts import run_charts, setting_charts
from harness.contract import MOST_NAME, printable
from harness.formatting import NONE, inline
from harness.page import Cell, Commands, Grid, Log, Picture, Section, Words, write_page
from harness.report_parts import Part, SettingPart
from harness.schema import GOOD_STATUSES
from harness.shapes import is_swept, place_of
from harness.store import Run
from harness.summary_report import REPORT_COLUMNS, precision_words, ratio_words
from harness.tables import SETTING, records
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
STATUS = {"end-to-end": "single-stream"}
"""Whose status a cell tells, where no verdict colours it."""
SCENARIO = {
    **dict.fromkeys(("single-stream", "vs baseline", "verdict", "precision"), "single-stream"),
    "offline": "offline",
    "offline seq/s": "offline",
    "training step": "training-step",
    "stream chunk": "stream",
}
"""Whose verdict colours a cell."""
ROWS = {"--models": 1, "--runtimes": 1, "--tasks": 1, "--baselines": 1}
FOLDERS = {"--out": 1, "--resume": 1, "--quiet": 0}
"""Options of a command that name its rows and its folder, with how many values they have."""


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
    order = list(dict.fromkeys(name for part in settings for name in part.rows["variant"]))
    return Charts(of_setting, {chart.name: chart for chart in run_charts(run, order)})


def write_html(run: Run, settings: Sequence[SettingPart], parts: Sequence[Part], charts: Charts, path: Path) -> None:
    """Write the page of a run.

    Raises:
        HarnessError: the extra `html` is not installed.
        OSError: it cannot be written.
    """
    facts = run.environment
    shown = [facts.get("started_utc"), facts.get("cpu_model"), facts.get("os"), *(facts.get("accelerators") or [])]
    against = Baselines(run)
    sections = [
        _setting_section(number, part, charts.of_setting.get(number, {}), against)
        for number, part in enumerate(settings)
    ]
    if charts.of_run:
        sections.append(Section("charts", "Charts of the run", [Picture(chart) for chart in charts.of_run.values()]))
    for own in parts:
        logs = _logs(run) if own.name == "not-ok" else []
        sections.append(Section(own.name, own.title, [Words(own.lines), *logs], folded=own.folded))
    sections.insert(-1, Section("reproduce", "How to get a row again", _reproduction(run), folded=True))
    write_page(path, run.header["name"], [str(fact) for fact in shown if fact], sections)


def _setting_section(number: int, part: SettingPart, charts: Mapping[str, Chart], against: Baselines) -> Section:
    rows = records(part.rows)
    columns, shown = part.words(REPORT_COLUMNS)
    cells = [[_cell(row, words[name], name) for name in columns] for row, words in zip(rows, shown, strict=True)]
    chosen: dict[str, tuple[str, Sequence[str]]] = {}
    others: dict[str, dict[str, dict[str, Any]]] = {}
    remarks = list(part.remarks)
    for architecture, own in part.rows.groupby("architecture", sort=False):
        pairs = against.pairs(own, part.latency)
        default = own["baseline"].iloc[0]
        if len(own) > MOST_VARIANTS:
            remarks.append(
                f"Another baseline of {inline(architecture)} cannot be chosen: it has more than {MOST_VARIANTS} "
                "variants. `--baselines` chooses one when a run begins."
            )
        if default in pairs:
            chosen[printable(architecture)] = (printable(default), [printable(name) for name in pairs])
            for name in pairs:
                others[printable(name)] = {
                    printable(row["variant"]): _changes(row, words, name, default, pairs[name])
                    for row, words in zip(rows, shown, strict=True)
                    if row["architecture"] == architecture
                }
    grid = Grid(columns, cells, f"{part.title}: every variant", chosen, others)
    blocks: list[Any] = [Words([inline(part.sizes)]), grid, Words([f"- {line}" for line in remarks])]
    blocks += [Picture(chart) for chart in charts.values()]
    return Section(f"setting-{number + 1}", part.title, [*blocks, Words(part.more)])


def _cell(row: Mapping[str, Any], text: str, column: str) -> Cell:
    name = RAW.get(column)
    value = None if name is None or pd.isna(row[name]) else float(row[name])
    if text.startswith("exact"):
        value = 0.0
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
    scenario = STATUS.get(column) or SCENARIO.get(column, "no")
    status = row.get(f"{scenario.replace('-', '_')}_status")
    return isinstance(status, str) and status not in GOOD_STATUSES and text == status


def _changes(
    row: Mapping[str, Any], words: Mapping[str, str], baseline: str, default: str, pairs: Pairs
) -> dict[str, Any]:
    """What another baseline makes of a row's cells, by column; the run's own baseline gives them back as they were."""
    found: dict[str, Any] = {}
    for name, text in words.items():
        cell = _cell(row, text, name)
        if not cell.column:
            continue
        found[name] = {"text": cell.text, "sort": cell.sort, "tone": cell.tone}
        if baseline != default and cell.tone != "bad":
            boundary = "end-to-end" if name == "end-to-end vs baseline" else "compute"
            own = pairs.get((row["variant"], SCENARIO.get(name, "single-stream"), boundary))
            tone = own.verdict if own and name in SCENARIO else ""
            found[name] |= {"tone": tone} | _against(name, own, row["variant"] == baseline)
    return found


def _against(column: str, own: Against | None, is_baseline: bool) -> dict[str, Any]:
    """The text of a cell against another baseline, and what it is sorted by; nothing of what no baseline changes."""
    if column not in ("vs baseline", "end-to-end vs baseline", "verdict", "precision"):
        return {}
    if own is None:
        is_ratio = is_baseline and column.endswith("vs baseline")
        return {"text": "baseline" if is_ratio else NONE, "sort": 1.0 if is_ratio else ""}
    if column == "verdict":
        return {"text": own.verdict, "sort": own.verdict}
    if column == "precision":
        return {"text": precision_words(own.half_width, own.precision_met), "sort": _known(own.half_width)}
    return {"text": ratio_words(own.ratio.value, own.ratio.low, own.ratio.high), "sort": own.ratio.value}


def _known(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _logs(run: Run) -> list[Log | Words]:
    """The ends of the logs of what did not end well."""
    bad = run.trials[~run.trials["status"].isin(list(GOOD_STATUSES)) & run.trials["log"].notna()]
    logs: list[Log | Words] = []
    for log, own in bad.groupby("log", sort=False):
        text = _end_of(run.path, str(log))
        if text:
            whose = ", ".join(f"{row['variant']}, {row['trial']}" for row in records(own))
            logs.append(Log(printable(f"{log}: {whose}", 4 * MOST_NAME), text))
    if len(logs) > MOST_LOGS:
        left = f"The ends of {MOST_LOGS} logs of {len(logs)}; all are in the run's folder."
        logs = [Words([left]), *logs[:MOST_LOGS]]
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
    facts = run.environment
    versions = facts.get("versions", {})
    others = {name: version for name, version in versions.items() if not name.startswith("rnn-harness")}
    pinned = [f"{name}=={version.partition('+')[0]}" for name, version in others.items()]
    ours = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in others)
    built = ", ".join(f"{name} {version}" for name, version in others.items() if "+" in version)
    lines = [
        f"Measured with {inline(ours or 'an unknown version')}, commit {inline(facts.get('commit') or 'unknown')}; "
        "install that first.",
        *([f"Of what stands below, these were other builds of the same version: {inline(built)}."] if built else []),
        "Data sets are in the folder that `--data-dir` or `HARNESS_DATA_DIR` names. The same machine, left alone, "
        "gives a number back within what two runs differ by: `harness compare` says whether it did.",
    ]
    rows = [("the versions", shlex.join(["pip", "install", *pinned])), ("the whole run", _command(run, None))]
    planned = run.trials[run.trials["kind"] == "parity"].drop_duplicates(["variant", *SETTING])
    swept = is_swept(run)
    for trial in records(planned):
        rows.append((printable(f"{trial['variant']} on {place_of(trial, swept)}"), _command(run, trial)))
    return [Words([f"- {line}" for line in lines]), Commands(rows)]


def _command(run: Run, trial: Mapping[str, Any] | None) -> str:
    """The run's command into a new folder; of a trial, with its variant, its baseline, its task and setting alone."""
    given = list(map(str, run.environment.get("command", ["harness"])))
    dropped = (ROWS if trial else {}) | FOLDERS
    kept: list[str] = []
    rest = iter(given)
    for part in rest:
        name, equals, _ = part.partition("=")
        if name not in dropped:
            kept.append(part)
        elif dropped[name] and not equals:
            next(rest, None)
    if trial is None or given[1:2] != ["run"]:
        return shlex.join(kept)
    baseline = str(run.header["baselines"].get(trial["architecture"], ""))
    variants = [name.partition("[")[0].partition("@") for name in (baseline, str(trial["variant"])) if name]
    models, runtimes = (",".join(dict.fromkeys(name[part] for name in variants)) for part in (0, 2))
    chosen = ["--models", models, "--runtimes", runtimes, "--tasks", str(trial["task"])]
    if baseline and not run.header.get("pythons"):
        chosen += ["--baselines", baseline]
    sweep = run.header.get("suite", {}).get("sweep", {})
    for key in ("hidden_size", "num_layers", "dtype", "threads"):
        if sweep.get(key):
            chosen += ["--sweep", f"{key.replace('_', '-')}={trial[key]}"]
    return shlex.join([*kept, *chosen])
