"""Reports: the tables of a run as CSV files, and `report.md` for people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.contract import HarnessError
from harness.costs_report import COSTS_READING, costs_table
from harness.formatting import (
    NONE,
    code,
    details,
    inline,
    markdown_table,
    percent,
    percentage,
    seconds,
    three_digits,
    unit_of,
)
from harness.journal import write_atomically
from harness.limit_report import LIMIT_READING, limit_lines
from harness.load_report import loads_section
from harness.rounding import LEAST_AGREEMENT, LEAST_SCORE
from harness.shapes import RAGGED_COLUMNS, is_swept, place_of, ragged_rows, setting_of, shapes_table
from harness.stats import samples_needed
from harness.store import Run, load
from harness.tables import PERCENTILES, SETTING, of_setting, records

REPORT_COLUMNS = (
    *(
        "variant",
        "parity",
        "score",
        "agreement",
        "single-stream",
        "vs baseline",
        "verdict",
        "precision",
        "end-to-end",
        "end-to-end vs baseline",
    ),
    *("offline", "training step", "stream chunk", "offline seq/s"),
)
REPORT_ONLY = ("agreement", "precision", "end-to-end vs baseline")
COLUMNS = tuple(name for name in REPORT_COLUMNS if name not in REPORT_ONLY)  # of a terminal
DISAGREEMENT = 1.25
DISTURBED = 0.1  # of a row's samples; and the shares of a core's time that others took
BUSY_OTHERS = 0.2
CLOCK_CHANGE = 1.1  # of the cores' frequency at the end of one worker to that of another
UNSEEN = r"\s\x00-\x1f\x7f-\xa0\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # spreadsheets skip it
FORMULA = re.compile(rf"[{UNSEEN}]*[=+\-@＝＋－＠]|[\t\r\n]")


def write_report(path: str | Path) -> Run:
    """Derive `tables/*.csv` and `report.md` from a run's journal; what was there before is replaced.

    Raises:
        HarnessError: the folder is not a run, is damaged, or cannot be written.
    """
    run = load(path)
    tables = {
        name: getattr(run, name)
        for name in (
            *("summary", "latency", "calibration", "trials", "parity", "costs", "gradients", "audits", "scores"),
            *("curves", "instances", "processes", "matrices", "machine", "loads", "capacity"),
        )
    }
    try:
        (run.path / "tables").mkdir(exist_ok=True)
        for name, table in tables.items():
            write_atomically(
                run.path / "tables" / f"{name}.csv", _inert(table).to_csv(index=False, lineterminator="\r\n")
            )
        write_atomically(run.path / "report.md", markdown(run, tables["summary"], tables["latency"]))
    except OSError as error:
        raise HarnessError(f"the report cannot be written to '{run.path}': {error.strerror}") from error
    return run


def display_table(summary: pd.DataFrame, intervals: bool) -> list[dict[str, str]]:
    """The summary's rows in words: `REPORT_COLUMNS`. With `intervals`, both ends; otherwise ± half of them.

    Architectures stay together; within one the baseline comes first and then the fastest single-stream latency. What
    computes nothing stands at the foot.
    """
    order = {name: place for place, name in enumerate(dict.fromkeys(summary["architecture"]))}

    def place(row: dict[str, Any]) -> tuple[bool, int, bool, bool, float]:
        latency = row["single_stream_latency_s"]
        baseline = row["variant"] == row["baseline"]
        return row["is_floor"], order[row["architecture"]], not baseline, math.isnan(latency), latency

    return [_display_row(row, intervals) for row in sorted(records(summary), key=place)]


def filled(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns that say something of any row; who it is and whether it is right is always said."""
    silent = {NONE, "baseline"}
    return [name for name in columns if name in ("variant", "parity") or {row[name] for row in rows} - silent]


def markdown(run: Run, summary: pd.DataFrame, latency: pd.DataFrame) -> str:
    """The report: the table first, then what failed, details, environment and how to read it."""
    lines = [f"# {inline(run.header['name'])}", ""]
    swept = is_swept(run)
    told: set[str] = set()  # tasks of which has been said what is true of all their settings
    for _, rows in summary.groupby(SETTING, sort=False):
        task, device = rows.iloc[0][["task", "device"]]
        where = f", {setting_of(records(rows)[0])}" if swept else ""
        lines += [f"## {inline(task)} on {inline(device)}{where}", "", f"{inline(setting(rows, latency))}.", ""]
        shown = display_table(rows, intervals=True)
        columns = filled(REPORT_COLUMNS, shown)
        lines += markdown_table(columns, [[row[column] for column in columns] for row in shown])
        own = of_setting(latency, records(rows)[0])
        lines += ["", *_legend(run, rows)]
        if task not in told:
            lines += [*map(inline, visibility(run, task)), *_noise(run, latency[latency["task"] == task], task)]
            told.add(task)
        lines += ["", *_disagreement(own), *details("Latency over shapes", shapes_table(own))]
        if ragged := ragged_rows(own):
            lines += ["### Rows of real lengths", "", *markdown_table(RAGGED_COLUMNS, ragged), ""]
    lines += loads_section(run)
    for plugin in run.header["plugins"]:
        if plugin["failure"]:
            lines += [
                f"Plugin {inline(plugin['name'])} failed to load and was left out: {inline(plugin['failure'])}",
                "",
            ]
    bad = run.trials[run.trials["status"] != "ok"]
    if len(bad):
        lines += ["## Not ok", "", "Every planned trial is a row; these did not end as `ok`.", ""]
        same = (
            bad.groupby(["variant", "task", "status", "reason"], sort=False, dropna=False)["trial"]
            .agg(", ".join)
            .reset_index()
        )
        columns = ["variant", "task", "status", "reason", "trial"]
        lines += markdown_table(columns, same[columns].to_numpy().tolist())
        lines.append("")
    lines += details("Trained weights and agreement", _agreement_table(summary))
    lines += details("What it costs", costs_table(run))
    lines += details("All latencies, verdicts and percentiles", _latency_table(run, latency))
    lines += details("How far from the machine's limit", limit_lines(run, latency))
    lines += details("The machine meanwhile", _processes_table(run))
    lines += details("Environment", markdown_table(("fact", "value"), _facts(run)))
    lines += ["## How to read it", "", *READING, ""]
    return "\n".join(lines)


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


def setting(rows: pd.DataFrame, latency: pd.DataFrame) -> str:
    """The sizes behind one table of the summary: `I=8 H=32 L=1 T=8, offline batch 32, float32, 1 thread a call`."""
    first = records(rows)[0]
    own = of_setting(latency, first)
    parts = [f"I={first['input_size']} H={first['hidden_size']} L={first['num_layers']}"]
    whole, chunks = own[own["scenario"] != "stream"], own[own["scenario"] == "stream"]
    if len(whole):
        parts[0] += f" T={whole['time'].iloc[0]}"
    if len(chunks):
        parts.append(f"stream chunks of {chunks['time'].iloc[0]}")
    parts += [f"{s} batch {b}" for s, b in own.groupby("scenario", sort=False)["batch"].first().items() if b > 1]
    threads = first["threads"]
    return ", ".join([*parts, str(first["dtype"]), f"{threads} thread{'' if threads == 1 else 's'} a call"])


def _display_row(row: dict[str, Any], intervals: bool) -> dict[str, str]:
    parity = row["parity"]
    if parity == "ok":
        parity = "exact" if math.isnan(row["parity_ratio"]) else f"ok {row['parity_ratio']:.2f}×"
    if row["compute_dtype"] != row["dtype"]:
        parity += f" {row['compute_dtype']}"
    throughput = row["offline_throughput_per_s"]
    return {
        "variant": row["variant"],
        "parity": parity,
        "score": _score(row, intervals),
        "agreement": NONE if pd.isna(row["agreeing_rows"]) else f"{row['agreeing_rows']} of {row['rows']}",
        "single-stream": _duration(row, "single_stream", "latency_", intervals),
        "vs baseline": _ratio(row, "single_stream_ratio", intervals),
        "verdict": _verdict(row, "single_stream", starred=not intervals),
        "precision": _precision(row, "single_stream"),
        "end-to-end": _duration(row, "single_stream", "end_to_end_", intervals),
        "end-to-end vs baseline": _ratio(row, "single_stream_end_to_end_ratio", intervals),
        "offline": _duration(row, "offline", "latency_", intervals),
        "training step": _duration(row, "training_step", "latency_", intervals),
        "stream chunk": _duration(row, "stream", "latency_", intervals),
        "offline seq/s": NONE if math.isnan(throughput) else f"{float(f'{throughput:.3g}'):,.0f}",
    }


def _ratio(row: dict[str, Any], name: str, intervals: bool) -> str:
    if row["variant"] == row["baseline"]:
        return NONE if row["is_floor"] else "baseline"
    value, low, high = (row[name + end] for end in ("", "_low", "_high"))
    if math.isnan(value):
        return NONE
    return f"{value:.2f}× ({low:.2f}–{high:.2f})" if intervals else f"{value:.2f}× {percent(low, high)}".strip()


def _verdict(row: dict[str, Any], scenario: str, starred: bool) -> str:
    """The word, starred where the interval is wider than the target."""
    word = row[f"{scenario}_verdict"]
    if pd.isna(word):
        return NONE
    return f"{word}*" if starred and not row[f"{scenario}_precision_met"] else str(word)


def _precision(row: dict[str, Any], scenario: str) -> str:
    half = row[f"{scenario}_half_width"]
    if math.isnan(half) or pd.isna(row[f"{scenario}_verdict"]):
        return NONE
    return f"±{percentage(half)}" + ("" if row[f"{scenario}_precision_met"] else ", target not met")


def _score(row: dict[str, Any], intervals: bool) -> str:
    if row["score"] is None or math.isnan(row["score"]):
        return NONE
    scale, digits, unit = (100, ".2f", " %") if row["metric"] == "accuracy" else (1, ".3g", "")
    value, low, high = (scale * row[name] for name in ("score", "score_low", "score_high"))
    text = f"{value:{digits}}{unit}"
    if not math.isnan(low):
        text += f" ({low:{digits}}–{high:{digits}})" if intervals else f" ±{(high - low) / 2:.2g}"
    return f"{text}, trainer {row['trainer_status']}" if row["trainer_status"] in ("wrong", "failed") else text


def _duration(row: dict[str, Any], scenario: str, boundary: str, intervals: bool) -> str:
    """The latency, or the word for why there is none."""
    value, low, high = (row[f"{scenario}_{boundary}{end}"] for end in ("s", "low_s", "high_s"))
    if math.isnan(value):
        status = row[f"{scenario}_status"]
        return NONE if pd.isna(status) or status == "ok" else str(status)
    if intervals and not math.isnan(low):
        scale, unit = unit_of(value)
        return f"{three_digits(value * scale)} {unit} ({three_digits(low * scale)}–{three_digits(high * scale)})"
    return f"{seconds(value)} {percent(low, high)}".strip()


def _legend(run: Run, rows: pd.DataFrame) -> list[str]:
    audited = rows[rows["audits"].notna()]
    failed = records(audited[audited["audits"].ne("ok")])
    baselines = ", ".join(map(code, dict.fromkeys(rows.loc[~rows["is_floor"], "baseline"].dropna())))
    lines = [f"Baseline of each architecture: {baselines or NONE}."]
    if failed:
        found = "; ".join(f"{inline(row['variant'])} ({inline(row['audits'])})" for row in failed)
        lines.append(f"Failed [audits](#how-to-read-it) of timed calls, whose latency is withheld: {found}.")
    elif len(audited):
        lines.append(f"All {len(audited)} variants that were timed passed the audits of their timed calls.")
    scored = records(rows[rows["metric"].notna()])
    if scored:
        best = max(scored, key=lambda row: int(row["seeds"]))
        scale, unit, note = (100, " %", "") if best["metric"] == "accuracy" else (1, "", ", lower is better")
        seeds = f"{best['seeds']} seed{'s' if best['seeds'] > 1 else ''}"
        lines.append(
            f"Score: {inline(best['metric'])}{note}, mean over {seeds}; "
            f"always answering the same scores {scale * best['trivial_score']:.3g}{unit}."
        )
    reduced = rows[rows["compute_dtype"].ne(rows["dtype"]) & rows["single_stream_latency_s"].notna()]
    if unproved := [inline(row["variant"]) for row in records(reduced[reduced["score"].isna()])]:
        lines.append(f"Computed in fewer bits and not scored, so proved by parity alone: {', '.join(unproved)}.")
    lines.append("Intervals hold within this run; another run, and another machine, may differ by more.")
    floor = rows[rows["is_floor"] & rows["single_stream_latency_s"].notna()]
    for row in records(floor):
        compute, whole = row["single_stream_latency_s"], row["single_stream_end_to_end_s"]
        lines.append(
            f"A model that does nothing ({code(row['variant'])}) takes {seconds(compute)}, end to end "
            f"{seconds(whole)}: the harness's own overhead, included in every row and never subtracted."
        )
    return lines


def visibility(run: Run, task: str) -> list[str]:
    """What this machine let one see, from the baseline measured against itself; nothing where that was not done.

    Nor with several interpreters: these are compared across processes, and the twin is not.
    """
    if len(run.header.get("pythons") or {}) > 1:
        return []
    lines = []
    for row in records(run.calibration[run.calibration["task"] == task]):
        if math.isnan(row["detectable"]):
            continue
        lines.append(
            f"On this machine, in this time, a slowdown of {percentage(row['detectable'])} between two variants "
            "timed in one worker is found 19 times in 20, smaller ones less often: "
            f"{row['variant']}, {row['scenario']}, against itself "
            f"{row['ratio']:.3f}× ({row['ratio_low']:.3f}–{row['ratio_high']:.3f})."
        )
    return lines


def _noise(run: Run, latency: pd.DataFrame, task: str) -> list[str]:
    """The harness's own overhead, and a warning where the machine was busy with something else."""
    workers = run.processes[run.processes["task"] == task]
    if workers.empty:
        return []
    serves = workers["trial"].notna()
    processes = workers[~serves]
    whole, compute = (processes[name].median() for name in ("overhead_end_to_end_s", "overhead_s"))
    lines = []
    if not math.isnan(compute):
        lines.append(f"An empty call reads {seconds(compute)}, end to end {seconds(whole)}; this is in every row.")
    busy, steal, told = _others(processes)
    taken = latency["samples"].sum()
    share = latency["disturbed_samples"].sum() / taken if taken else 0.0
    if busy > BUSY_OTHERS or steal > 0.01 or share > DISTURBED:
        told.append(f"{100 * share:.1f} % of the samples are marked as disturbed (and kept)")
        lines.append(f"**The machine was not quiet**: {', '.join(told)}.")
    busy, steal, told = _others(workers[serves])
    if busy > BUSY_OTHERS or steal > 0.01:
        lines.append(f"**The machine was not quiet while loads were offered**: {', '.join(told)}.")
    clocks = workers["frequency_mhz"]
    if clocks.max() > CLOCK_CHANGE * clocks.min():
        lines.append(f"**The cores' clock changed**: between {clocks.min():.0f} and {clocks.max():.0f} MHz.")
    unsteady = int(latency.loc[latency["boundary"] == "compute", "unsteady_instances"].sum())
    if unsteady:
        names = latency.loc[latency["unsteady_instances"] > 0, "variant"].unique()
        lines.append(f"No steady state was seen in {unsteady} instances, of {', '.join(map(inline, names))}.")
    return lines


def _others(processes: pd.DataFrame) -> tuple[float, float, list[str]]:
    """The share of the cores' time that others used, the share that was stolen, and in words what of it is known."""
    busy, steal = processes["other_busy_share"].mean(), processes["steal_share"].mean()
    told = [f"others used {100 * busy:.0f} % of the cores' time", f"{100 * steal:.1f} % were stolen"]
    return busy, steal, [text for text, value in zip(told, (busy, steal), strict=True) if not math.isnan(value)]


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
            ]
        )
    header = (
        *("task", "kind", "runtime", "cores", "processes", "time", "canary", "samples disturbed"),
        *("cores used by others", "steal", "waited for a core", "involuntary switches", "major faults"),
    )
    return markdown_table(header, rows) if rows else []


def _disagreement(latency: pd.DataFrame) -> list[str]:
    """A warning where the processes' medians lie so far apart that one number cannot stand for them."""
    wide = latency[
        (latency["process_high_s"] > DISAGREEMENT * latency["process_low_s"]) & (latency["boundary"] == "compute")
    ]
    ranges = [f"{seconds(row['process_low_s'])} to {seconds(row['process_high_s'])}" for row in records(wide)]
    items = [
        f"- {inline(row['variant'])}, {inline(row['scenario'])}: {text}"
        for row, text in zip(records(wide), ranges, strict=True)
    ]
    text = "Processes disagree by more than 25 %, so one number cannot stand for them; their medians range:"
    return [text, "", *items, ""] if items else []


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
    return markdown_table(header, rows) if rows else []


def _latency_table(run: Run, latency: pd.DataFrame) -> list[str]:
    def percentile(row: dict[str, Any], p: str, quantile: float) -> str:
        missing = samples_needed(quantile) - row["samples"]
        bound = f"≤ {seconds(row[f'{p}_bound_s'])}" if missing <= 0 else f"a bound needs {missing} more samples"
        return f"{seconds(row[f'{p}_s'])} ({bound})"

    swept = is_swept(run)
    rows = [
        [
            *(row["variant"], place_of(row, swept), *(row[name] for name in ("scenario", "boundary", "batch", "time"))),
            seconds(row["latency_s"]),
            f"{seconds(row['latency_low_s'])} to {seconds(row['latency_high_s'])}",
            f"{seconds(row['process_low_s'])} to {seconds(row['process_high_s'])}",
            _compared(row),
            *(percentile(row, name, p) for name, p in PERCENTILES.items()),
            f"{row['samples']} / {row['instances']} / {row['processes']}",
        ]
        for row in records(latency)
    ]
    header = (
        "variant",
        "task",
        "scenario",
        "boundary",
        "batch",
        "time",
        "latency",
        "95 % interval",
        "processes' medians",
        "vs baseline, verdict, precision",
    )
    ends = ("p50 (bound)", "p90 (bound)", "p99 (bound)", "p99.9 (bound)", "samples / instances / processes")
    return markdown_table((*header, *ends), rows) if rows else []


def _compared(row: dict[str, Any]) -> str:
    """The ratio with its interval and verdict, and whether the row's interval is as narrow as was wanted."""
    parts = []
    if not pd.isna(row["verdict"]):
        parts = [f"{row['ratio']:.3f}× ({row['ratio_low']:.3f}–{row['ratio_high']:.3f})", row["verdict"]]
    if not math.isnan(row["half_width"]):
        parts.append(f"±{percentage(row['half_width'])}" + ("" if row["precision_met"] else ", target not met"))
    return ", ".join(parts) or NONE


def _facts(run: Run) -> list[list[Any]]:
    facts = [[name, value] for name, value in run.environment.items() if name != "versions"]
    facts += [["version of " + name, version] for name, version in run.environment["versions"].items()]
    return facts


def _inert(table: pd.DataFrame) -> pd.DataFrame:
    """A copy in which no text can start a formula when a spreadsheet opens the CSV (OWASP, "CSV Injection")."""

    def quote(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value

    return table.map(quote)
