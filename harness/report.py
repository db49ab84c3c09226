"""Reports: the tables of a run as CSV files, and `report.md` for people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.contract import HarnessError
from harness.store import Run, load, write_atomically
from harness.tables import records

COLUMNS = ("variant", "parity", "score", "single-stream", "vs baseline", "offline", "training step", "seq/s")
AGREEMENT = "agreement"  # stands after the score where there is room for it
SETTING = ["task", "device", "dtype", "threads"]  # what one table of the summary has in common
NONE = "–"


def write_report(path: str | Path) -> Run:
    """Derive `tables/*.csv` and `report.md` from a run's journal; what was there before is replaced.

    Raises:
        HarnessError: the folder is not a run, is damaged, or cannot be written.
    """
    run = load(path)
    tables = {
        name: getattr(run, name) for name in ("summary", "latency", "trials", "parity", "gradients", "scores", "curves")
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
    """The summary's rows in words: `COLUMNS` and `AGREEMENT`. With `intervals`, both ends; otherwise ± half of them.

    Architectures stay together; within one the baseline comes first and then the fastest single-stream latency. What
    computes nothing stands at the foot.
    """
    order = {name: place for place, name in enumerate(dict.fromkeys(summary["architecture"]))}

    def place(row: dict[str, Any]) -> tuple[bool, int, bool, bool, float]:
        latency = row["single_stream_latency_s"]
        baseline = row["variant"] == row["baseline"]
        return row["is_floor"], order[row["architecture"]], not baseline, math.isnan(latency), latency

    return [_display_row(row, intervals) for row in sorted(records(summary), key=place)]


def markdown(run: Run, summary: pd.DataFrame, latency: pd.DataFrame) -> str:
    """The report: the table first, then what failed, details, environment and how to read it."""
    lines = [f"# {_cell(run.header['name'])}", ""]
    for _, rows in summary.groupby(SETTING, sort=False):
        task, device, dtype, threads = rows.iloc[0][SETTING]
        first = rows.iloc[0]
        size = f"input {first['input_size']}, hidden {first['hidden_size']}, layers {first['num_layers']}"
        lines += [f"## {_cell(task)} on {_cell(device)}", "", f"{size}; {dtype}; {threads} thread(s) a call.", ""]
        columns = [*COLUMNS[:3], AGREEMENT, *COLUMNS[3:]]
        lines += _table(columns, [[row[column] for column in columns] for row in display_table(rows, intervals=True)])
        lines += ["", *_legend(run, rows), ""]
    bad = run.trials[run.trials["status"] != "ok"]
    if len(bad):
        lines += ["## Not ok", "", "Every planned trial is a row; these did not end as `ok`.", ""]
        lines += _table(
            ("trial", "variant", "task", "status", "reason"),
            bad[["trial", "variant", "task", "status", "reason"]].to_numpy().tolist(),
        )
        lines.append("")
    lines += _details("Trained weights and agreement", _agreement_table(summary))
    lines += _details("Percentiles and end-to-end latency", _latency_table(latency))
    lines += _details("Environment", _table(("fact", "value"), _facts(run)))
    lines += ["## How to read it", "", *READING, ""]
    return "\n".join(lines)


READING = (
    "- **parity**: the RMSE against a float64 reference, relative to the yardstick's in the same check, at the worst "
    "check; it passes up to 2 (plus four units in the last place). A wrong variant gets no latency.",
    "- **score**: mean over seeds on the test split, with a 95 % interval.",
    "- **agreement**: on how many test rows a variant that cannot train gives the same class as the variant that "
    "trained its weights; the fewest over seeds.",
    "- **single-stream**: one sequence a call; **offline**: a batch a call; **training step**: forward, backward and "
    "optimiser; **seq/s**: sequences a second, offline. Compute boundary: inputs lie ready, results are complete. The "
    "value is the geometric mean of the processes' medians, its interval 95 % over processes.",
    "- **vs baseline**: single-stream latency over the baseline's, measured in the same rounds: below 1 is faster.",
)


def _display_row(row: dict[str, Any], intervals: bool) -> dict[str, str]:
    parity = row["parity"]
    if parity == "ok":
        parity = "exact" if math.isnan(row["parity_ratio"]) else f"ok {row['parity_ratio']:.2f}×"
    ratio = NONE
    if row["variant"] == row["baseline"]:
        ratio = NONE if row["is_floor"] else "baseline"
    elif not math.isnan(row["single_stream_ratio"]):
        value, low, high = (row[f"single_stream_{name}"] for name in ("ratio", "ratio_low", "ratio_high"))
        ratio = f"{value:.2f}× ({low:.2f}–{high:.2f})" if intervals else f"{value:.2f}× {_percent(low, high)}"
    throughput = row["offline_throughput_per_s"]
    return {
        "variant": row["variant"],
        "parity": parity,
        "score": _score(row, intervals),
        AGREEMENT: NONE if pd.isna(row["agreeing_rows"]) else f"{row['agreeing_rows']} of {row['rows']}",
        "single-stream": _duration(row, "single_stream", intervals),
        "vs baseline": ratio,
        "offline": _duration(row, "offline", intervals),
        "training step": _duration(row, "training_step", intervals),
        "seq/s": NONE if math.isnan(throughput) else f"{throughput:,.0f}",
    }


def _score(row: dict[str, Any], intervals: bool) -> str:
    if row["score"] is None or math.isnan(row["score"]):
        return NONE
    scale, digits, unit = (100, ".2f", " %") if row["metric"] == "accuracy" else (1, ".3g", "")
    value, low, high = (scale * row[name] for name in ("score", "score_low", "score_high"))
    if math.isnan(low):
        return f"{value:{digits}}{unit}"
    if intervals:
        return f"{value:{digits}}{unit} ({low:{digits}}–{high:{digits}})"
    return f"{value:{digits}}{unit} ±{(high - low) / 2:.2g}"


def _duration(row: dict[str, Any], scenario: str, intervals: bool) -> str:
    value, low, high = (row[f"{scenario}_{name}"] for name in ("latency_s", "latency_low_s", "latency_high_s"))
    if math.isnan(value):
        return NONE
    if intervals and not math.isnan(low):
        scale, unit = _unit(value)
        return f"{_three_digits(value * scale)} {unit} ({_three_digits(low * scale)}–{_three_digits(high * scale)})"
    return f"{seconds(value)} {_percent(low, high)}".strip()


def seconds(value: float) -> str:
    """A duration with three digits in the unit that fits: `233 µs`."""
    if math.isnan(value):
        return NONE
    scale, unit = _unit(value)
    return f"{_three_digits(value * scale)} {unit}"


def _unit(value: float) -> tuple[float, str]:
    rounded = float(f"{value:.3g}")
    scales = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (1e-6, 1e6, "µs"))
    return next(((scale, unit) for least, scale, unit in scales if rounded >= least), (1e9, "ns"))


def _three_digits(value: float) -> str:
    """Three significant digits, never an exponent."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def _percent(low: float, high: float) -> str:
    """Half the width of an interval of logarithms, as a percentage."""
    return "" if math.isnan(low) else f"±{100 * (math.sqrt(high / low) - 1):.1f}%"


def _legend(run: Run, rows: pd.DataFrame) -> list[str]:
    baselines = ", ".join(f"`{name}`" for name in dict.fromkeys(rows.loc[~rows["is_floor"], "baseline"].dropna()))
    metric = next((m for m in rows["metric"] if m), None)
    lines = [f"Baseline of each architecture: {baselines or NONE}."]
    if metric:
        lines.append(f"Score: {metric} over {int(rows['seeds'].max())} seeds.")
    floor = rows[rows["is_floor"] & rows["single_stream_latency_s"].notna()]
    for row in records(floor):
        compute, whole = row["single_stream_latency_s"], row["single_stream_end_to_end_s"]
        lines.append(
            f"A model that does nothing (`{row['variant']}`) takes {seconds(compute)}, end to end {seconds(whole)}: "
            "the harness's own overhead, included in every row and never subtracted."
        )
    return lines


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
    return _table(header, rows) if rows else []


def _latency_table(latency: pd.DataFrame) -> list[str]:
    def bound(row: dict[str, Any], p: str) -> str:
        known = not math.isnan(row[f"{p}_bound_s"])
        return f"{seconds(row[f'{p}_s'])} (≤ {seconds(row[f'{p}_bound_s'])})" if known else seconds(row[f"{p}_s"])

    rows = [
        [
            *(row[name] for name in ("variant", "task", "scenario", "boundary", "batch", "time")),
            seconds(row["latency_s"]),
            f"{seconds(row['latency_low_s'])} to {seconds(row['latency_high_s'])}",
            bound(row, "p90"),
            bound(row, "p99"),
            f"{row['samples']} / {row['processes']}",
        ]
        for row in records(latency)
    ]
    header = ("variant", "task", "scenario", "boundary", "batch", "time", "median", "95 % interval", "p90 (bound)")
    return _table((*header, "p99 (bound)", "samples / processes"), rows) if rows else []


def _facts(run: Run) -> list[list[Any]]:
    facts = [[name, value] for name, value in run.environment.items() if name != "versions"]
    facts += [["version of " + name, version] for name, version in run.environment["versions"].items()]
    return facts


def _details(title: str, body: Sequence[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *body, "", "</details>", ""] if body else []


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [list(header), ["---"] * len(header), *[[_cell(value) for value in row] for row in rows]]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _cell(value: Any) -> str:
    """Text that stays text: it cannot end a Markdown cell or line, nor begin markup or HTML."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]!~|])", r"\\\1", text)


def _inert(table: pd.DataFrame) -> pd.DataFrame:
    """A copy in which no text can start a formula when a spreadsheet opens the CSV (OWASP, "CSV Injection")."""

    def quote(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

    return table.map(quote)
