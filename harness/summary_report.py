"""The summary in words: the cells of its table, and what must be said beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.contract import RAGGED_SCENARIOS
from harness.formatting import (
    NONE,
    code,
    inline,
    joined,
    percent,
    percentage,
    seconds,
    sizes,
    threads,
    three_digits,
    unit_of,
)
from harness.store import Run
from harness.tables import of_setting, records

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


def display_table(summary: pd.DataFrame, intervals: bool) -> list[dict[str, str]]:
    """The summary's rows in words: `REPORT_COLUMNS`, in the order of `ordered`.

    With `intervals` both ends are told, otherwise ± half of them.
    """
    return [display_row(row, intervals) for row in records(ordered(summary))]


def ordered(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary's rows as a table shows them.

    Architectures stay together; within one the baseline comes first and then the fastest single-stream latency. What
    computes nothing stands at the foot.
    """
    order = {name: place for place, name in enumerate(dict.fromkeys(summary["architecture"]))}
    rows = records(summary)

    def place(number: int) -> tuple[bool, int, bool, bool, float]:
        row = rows[number]
        latency = row["single_stream_latency_s"]
        baseline = row["variant"] == row["baseline"]
        return row["is_floor"], order[row["architecture"]], not baseline, math.isnan(latency), latency

    return summary.iloc[sorted(range(len(rows)), key=place)]


def filled(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns that say something of any row; who it is and whether it is right is always said."""
    silent = {NONE, "baseline"}
    return [name for name in columns if name in ("variant", "parity") or {row[name] for row in rows} - silent]


def setting(rows: pd.DataFrame, latency: pd.DataFrame) -> str:
    """The sizes behind one table of the summary: `I=8 H=32 L=1 T=8, offline batch 32, float32, 1 thread a call`."""
    first = records(rows)[0]
    own = of_setting(latency, first)
    whole, chunks = own[own["scenario"] != "stream"], own[own["scenario"] == "stream"]
    size = {"I": first["input_size"], "H": first["hidden_size"], "L": first["num_layers"]}
    parts = [sizes(**size, T=whole["time"].iloc[0] if len(whole) else None)]
    if len(chunks):
        parts.append(f"stream chunks of {chunks['time'].iloc[0]}")
    for scenario, batches in own.groupby("scenario", sort=False)["batch"]:
        known = list(dict.fromkeys(batches.dropna()))
        told = known if scenario in RAGGED_SCENARIOS else known[:1]  # of a sweep the summary shows the first
        parts += [f"{scenario} batch {', '.join(map(str, told))}"] if told not in ([], [1]) else []
    calls = f"{count} a call" if (count := threads(first["threads"])) else ""
    cold = "cold caches" if own["caches"].notna().any() else ""
    return joined(*parts, first["dtype"], calls, cold) or "sizes unknown"


def display_row(row: dict[str, Any], intervals: bool) -> dict[str, str]:
    """A row of the summary in words, by column of `REPORT_COLUMNS`."""
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


def ratio_words(value: float, low: float, high: float, digits: int = 2) -> str:
    """A ratio with both ends of its interval, if they are known: `0.47× (0.45–0.50)`."""
    if math.isnan(value):
        return NONE
    return f"{value:.{digits}f}×" + ("" if math.isnan(low) else f" ({low:.{digits}f}–{high:.{digits}f})")


def precision_words(half_width: float, is_met: bool) -> str:
    """Half of an interval, and whether it is as narrow as was wanted: `±6.4 %, target not met`."""
    return NONE if math.isnan(half_width) else f"±{percentage(half_width)}" + ("" if is_met else ", target not met")


def _ratio(row: dict[str, Any], name: str, intervals: bool) -> str:
    if row["variant"] == row["baseline"]:
        return NONE if row["is_floor"] else "baseline"
    value, low, high = (row[name + end] for end in ("", "_low", "_high"))
    if intervals or math.isnan(value):
        return ratio_words(value, low, high)
    return f"{value:.2f}× {percent(low, high)}".strip()


def _verdict(row: dict[str, Any], scenario: str, starred: bool) -> str:
    """The word, starred where the interval is wider than the target."""
    word = row[f"{scenario}_verdict"]
    if pd.isna(word):
        return NONE
    return f"{word}*" if starred and not row[f"{scenario}_precision_met"] else str(word)


def _precision(row: dict[str, Any], scenario: str) -> str:
    if pd.isna(row[f"{scenario}_verdict"]):
        return NONE
    return precision_words(row[f"{scenario}_half_width"], row[f"{scenario}_precision_met"])


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


def legend(run: Run, rows: pd.DataFrame) -> list[str]:
    """What a reader of one table of the summary must know, in Markdown."""
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


def noise(run: Run, latency: pd.DataFrame, task: str) -> list[str]:
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
    lines += _device_lines(workers)
    unsteady = int(latency.loc[latency["boundary"] == "compute", "unsteady_instances"].sum())
    if unsteady:
        names = latency.loc[latency["unsteady_instances"] > 0, "variant"].unique()
        lines.append(f"No steady state was seen in {unsteady} instances, of {', '.join(map(inline, names))}.")
    return lines


def _device_lines(workers: pd.DataFrame) -> list[str]:
    """Whose clock timed what ran on a device, and a warning where that was held down or changed its own."""
    timed = workers[workers["clock"].eq("device")]
    if timed.empty:
        return [f"Calls were timed by the host's clock: {inline(why)}." for why in workers["clock_reason"].dropna()[:1]]
    lines = ["Calls were timed by the clock of the device's accelerator; the device was drained before and after each."]
    throttled = timed[timed["device_throttling"].notna() & timed["device_throttling"].ne("none")]
    if len(throttled):
        reasons = dict.fromkeys(", ".join(throttled["device_throttling"]).split(", "))
        lines.append(f"**The device was throttled** in {len(throttled)} of {len(timed)} workers: {', '.join(reasons)}.")
    clocks = timed["device_clock_mhz"]
    if clocks.max() > CLOCK_CHANGE * clocks.min():
        lines.append(f"**The device's clock changed**: between {clocks.min():.0f} and {clocks.max():.0f} MHz.")
    return lines


def _others(processes: pd.DataFrame) -> tuple[float, float, list[str]]:
    """The share of the cores' time that others used, the share that was stolen, and in words what of it is known."""
    busy, steal = processes["other_busy_share"].mean(), processes["steal_share"].mean()
    told = [f"others used {100 * busy:.0f} % of the cores' time", f"{100 * steal:.1f} % were stolen"]
    return busy, steal, [text for text, value in zip(told, (busy, steal), strict=True) if not math.isnan(value)]


def disagreement(latency: pd.DataFrame) -> list[str]:
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
