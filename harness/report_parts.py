"""What a report consists of: one part for every setting, then those that are about the whole run; all in Markdown."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.costs_report import COSTS_READING, costs_table
from harness.formatting import (
    MOST_ROWS,
    NONE,
    details,
    inline,
    joined,
    long_table,
    markdown_table,
    on_device,
    seconds,
)
from harness.limit_report import LIMIT_READING, limit_lines
from harness.load_report import load_lines
from harness.rounding import LEAST_AGREEMENT, LEAST_SCORE
from harness.shapes import is_swept, place_of, ragged_table, setting_of, shapes_table
from harness.stats import samples_needed
from harness.store import Run
from harness.summary_report import (
    disagreement,
    display_row,
    filled,
    legend,
    noise,
    ordered,
    precision_words,
    ratio_words,
    setting,
    visibility,
)
from harness.tables import PERCENTILES, by_setting, of_setting, records

MOST_NAMED = 20  # trials that ended alike


@dataclass(frozen=True)
class SettingPart:
    """The table of one task, size, device, dtype and number of threads, and what is said beside it.

    Attributes:
        title: plain text.
        sizes: the sizes behind the table, plain text.
        rows: of the summary, in the table's order.
        latency: of the latency table, all of the setting.
        remarks: Markdown that stands below the table.
        more: Markdown with further tables.
    """

    title: str
    sizes: str
    rows: pd.DataFrame
    latency: pd.DataFrame
    remarks: list[str]
    more: list[str]

    def words(self, names: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
        """The rows in words, with both ends of intervals, and those of the columns that say something of any row."""
        shown = [display_row(row, intervals=True) for row in records(self.rows)]
        return filled(names, shown), shown


@dataclass(frozen=True)
class Part:
    """A part about the whole run: its title and its Markdown; some are folded until they are asked for."""

    name: str
    title: str
    lines: list[str]
    folded: bool = True


def setting_parts(run: Run) -> list[SettingPart]:
    """The parts of a run's settings, in the order in which they were planned."""
    swept, parts = is_swept(run), []
    told: set[str] = set()  # tasks of which has been said what is true of all their settings
    for rows in by_setting(run.summary):
        first = records(rows)[0]
        task, own = first["task"], of_setting(run.latency, first)
        remarks = legend(run, rows)
        if task not in told:
            remarks += [
                *map(inline, visibility(run, task)),
                *noise(run, run.latency[run.latency["task"] == task], task),
            ]
            told.add(task)
        more = [*disagreement(own), *details("Latency over shapes", shapes_table(own))]
        ways, ragged = ragged_table(own)
        if ragged:
            more += ["### Rows of real lengths", "", *markdown_table(ways, ragged), ""]
        title = joined(on_device(task, first["device"]), swept and setting_of(first))
        parts.append(SettingPart(title, f"{setting(rows, run.latency)}.", ordered(rows), own, remarks, more))
    return parts


def run_parts(run: Run) -> list[Part]:
    """The parts about the whole run that have something to say, what went wrong first."""
    made = (
        Part("load", "Load", load_lines(run), folded=False),
        Part("not-ok", "Not ok", _failures(run), folded=False),
        Part("agreement", "Trained weights and agreement", _agreement_table(run.summary)),
        Part("costs", "What it costs", costs_table(run)),
        Part("latencies", "All latencies, verdicts and percentiles", _latency_table(run, run.latency)),
        Part("limit", "How far from the machine's limit", limit_lines(run, run.latency)),
        Part("machine", "The machine meanwhile", _processes_table(run)),
        Part("environment", "Environment", markdown_table(("fact", "value"), _facts(run))),
        Part("how-to-read-it", "How to read it", list(READING), folded=False),
    )
    return [part for part in made if part.lines]


def _failures(run: Run) -> list[str]:
    """Plugins that failed to load, and every trial that did not end as `ok`."""
    lines = []
    for plugin in run.header["plugins"]:
        if plugin["failure"]:
            name = inline(plugin["name"])
            lines += [f"Plugin {name} failed to load and was left out: {inline(plugin['failure'])}", ""]
    bad = run.trials[run.trials["status"] != "ok"]
    if len(bad):
        columns = ["variant", "task", "status", "reason"]
        same = bad.groupby(columns, sort=False, dropna=False)["trial"].agg(list).reset_index()
        rows = [
            [*row[:-1], f"{', '.join(row[-1][:MOST_NAMED])}{f' and {more} more' if more > 0 else ''}"]
            for row in same[[*columns, "trial"]].to_numpy().tolist()
            for more in [len(row[-1]) - MOST_NAMED]
        ]
        lines += ["Every planned trial is a row; these did not end as `ok`.", ""]
        lines += long_table((*columns, "trial"), rows, len(rows), "tables/trials.csv")
    return lines


READING = (
    "- **parity**: the RMSE against a float64 reference, relative to the yardstick's in the same check, at the worst "
    "check; it passes up to 2 (plus four units in the last place). A wrong variant gets no latency, and a training "
    "step with wrong gradients no training-step latency. A format behind it (`bfloat16`, `int8`) is the one in which "
    "the variant computes: its yardstick is the reference itself, of weights and inputs rounded to that format. Where "
    f"it is scored, it must keep {LEAST_SCORE:.0%} of the trainer's accuracy and agree on {LEAST_AGREEMENT:.0%} of the "
    "rows.",
    "- **score**: mean over seeds on the test split, with a 95 % interval. Variants that train themselves start from "
    "random weights of their own, so their scores differ by chance even where they compute the same. A variant that "
    "cannot train repeats the score of the one whose weights it uses.",
    "- **agreement**: on how many test rows a variant that cannot train gives the same class as the variant that "
    "trained its weights; the fewest over seeds.",
    "- **single-stream**: one sequence a call; **offline**: a batch a call; **training step**: forward, backward and "
    "optimiser; **stream chunk**: one chunk a call, its state carried; **seq/s**: sequences a second. Compute "
    "boundary: inputs lie ready, results are complete. The value is the geometric mean of the instances' medians; its "
    "interval is 95 %, over instances or, where processes differ, over processes.",
    "- **end-to-end**: single-stream, from arrays in to arrays out. **vs baseline**: latency over the baseline's, "
    "paired where both were measured side by side: below 1 is faster. **verdict**: `faster` or `slower` where the "
    "ratio is surely not 1, `same` where it is surely within the tolerance, else `undecided`; 95 % for all verdicts of "
    "a boundary together. **precision**: the half of that ratio's interval.",
    *COSTS_READING,
    "- **audits**: while calls were timed, each got a fresh input, a random part of the timed outputs was held against "
    "the reference, a repeated input was not faster, work was not put outside the window, nothing beat the processor's "
    "own matrix product by far, the clock was right, and nothing worked on afterwards.",
    LIMIT_READING,
    "- **percentiles**: of all samples of a row; their bounds hold with 99 % confidence if calls were independent.",
)


def _processes_table(run: Run) -> list[str]:
    """How the machine fared while each runtime was timed, and while it served loads, over its processes."""

    def share(value: float) -> str:
        return NONE if math.isnan(value) else f"{100 * value:.1f} %"

    def count(values: pd.Series[Any]) -> str:
        return NONE if values.isna().all() else f"{values.sum():.0f}"

    def canary(values: pd.Series[float]) -> str:
        return NONE if values.isna().all() else f"{seconds(values.min())} to {seconds(values.max())}"

    def cores(values: pd.Series[Any]) -> str:
        return "; ".join(dict.fromkeys(str(value) for value in values.dropna() if value)) or NONE

    def between(values: pd.Series[float], unit: str) -> str:
        ends = dict.fromkeys(f"{value:.0f}" for value in (values.min(), values.max()))
        return NONE if values.isna().all() else f"{' to '.join(ends)} {unit}"

    is_on_device = run.processes["clock"].eq("device").any()
    rows = []
    processes = run.processes.assign(kind=run.processes["trial"].notna().map({False: "latency", True: "load"}))
    for (task, kind, runtime, python), own in processes.groupby(["task", "kind", "runtime", "python"], sort=False):
        total = own["seconds"].sum()
        rows.append(
            [
                *(task, kind, f"{runtime}[{python}]" if python else runtime, cores(own["cpus"]), len(own)),
                *(seconds(total), canary(own["canary_s"])),
                *(share(own[name].mean()) for name in ("disturbed_share", "other_busy_share", "steal_share")),
                share(own["run_delay_s"].sum(min_count=1) / total),
                *(count(own[name]) for name in ("involuntary_switches", "page_faults_major")),
                *(
                    (
                        cores(own["device_name"]),
                        between(own["device_clock_mhz"], "MHz"),
                        between(own["device_temperature_c"], "°C"),
                        cores(own["device_throttling"]),
                    )
                    if is_on_device
                    else ()
                ),
            ]
        )
    header = (
        *("task", "kind", "runtime", "cores", "processes", "time", "canary", "samples disturbed"),
        *("cores used by others", "steal", "waited for a core", "involuntary switches", "major faults"),
        *(("device", "its clock", "its temperature", "its throttling") if is_on_device else ()),
    )
    return markdown_table(header, rows) if rows else []


def _agreement_table(summary: pd.DataFrame) -> list[str]:
    scored = summary[summary["score"].notna()]
    rows = [
        [
            row["variant"],
            row["task"],
            row["trained_by"],
            NONE if pd.isna(row["agreeing_rows"]) else f"{row['agreeing_rows']} of {row['rows']}",
            NONE if pd.isna(row["score_difference"]) else f"{row['score_difference']:+.4g}",
        ]
        for row in records(scored)
    ]
    header = ("variant", "task", "weights trained by", "same top-1 as the trainer", "score difference")
    return long_table(header, rows, len(rows), "tables/summary.csv")


def _latency_table(run: Run, latency: pd.DataFrame) -> list[str]:
    def percentile(row: dict[str, Any], p: str, quantile: float) -> str:
        if math.isnan(row[f"{p}_s"]):
            return NONE
        missing = samples_needed(quantile) - row["samples"]
        bound = f"≤ {seconds(row[f'{p}_bound_s'])}" if missing <= 0 else f"a bound needs {missing} more samples"
        return f"{seconds(row[f'{p}_s'])} ({bound})"

    swept = is_swept(run)
    rows = (
        [
            *(row["variant"], place_of(row, swept), row["scenario"], row["boundary"]),
            *(NONE if pd.isna(row[name]) else row[name] for name in ("batch", "time")),
            seconds(row["latency_s"]),
            f"{seconds(row['latency_low_s'])} to {seconds(row['latency_high_s'])}",
            f"{seconds(row['process_low_s'])} to {seconds(row['process_high_s'])}",
            _compared(row),
            *(percentile(row, name, p) for name, p in PERCENTILES.items()),
            f"{row['samples']} / {row['instances']} / {row['processes']}",
        ]
        for row in records(latency.head(MOST_ROWS))
    )
    header = (
        *("variant", "task", "scenario", "boundary", "batch", "time", "latency", "95 % interval"),
        *("processes' medians", "vs baseline, verdict, precision"),
    )
    ends = ("p50 (bound)", "p90 (bound)", "p99 (bound)", "p99.9 (bound)", "samples / instances / processes")
    return long_table((*header, *ends), rows, len(latency), "tables/latency.csv")


def _compared(row: dict[str, Any]) -> str:
    """The ratio with its interval and verdict, and whether the row's interval is as narrow as was wanted."""
    parts = []
    if not pd.isna(row["verdict"]):
        parts = [ratio_words(row["ratio"], row["ratio_low"], row["ratio_high"], digits=3), row["verdict"]]
    if not math.isnan(row["half_width"]):
        parts.append(precision_words(row["half_width"], row["precision_met"]))
    return ", ".join(parts) or NONE


def _facts(run: Run) -> list[list[Any]]:
    facts = {name: value for name, value in run.environment.items() if name != "versions"}
    facts |= {f"version of {name}": version for name, version in run.environment["versions"].items()}
    return [[name, _fact(value)] for name, value in facts.items()]


def _fact(value: Any) -> Any:
    """A fact in words: what is unknown is a dash, and a list of words a command's."""
    if isinstance(value, list):
        return shlex.join(map(str, value)) or NONE
    return NONE if value is None else value
