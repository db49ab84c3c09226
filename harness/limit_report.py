"""How far latencies are from the machine's limit, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.formatting import NONE, bytes_in_words, long_table, markdown_table, seconds, three_digits, with_prefix
from harness.shapes import is_swept, place_of
from harness.store import Run
from harness.tables import records

LIMIT_READING = (
    "- **how far from the machine's limit**: the bound is the least time in which this machine can make the matrix "
    "products of a forward pass, or read the weights, the recurrent ones at every step; both at the best speed that "
    "was measured just before. The share is bound over latency: 50 % means that nothing could be more than twice as "
    "fast. What is above 100 % shows that the bound is too high here, and is not cut off."
)


def limit_lines(run: Run, latency: pd.DataFrame) -> list[str]:
    """A table of every row that has a bound, and what the machine attains; nothing where no row has one."""
    rows, swept = records(latency[latency["bound_s"].notna()]), is_swept(run)
    formats = {trial["trial"]: trial["compute_dtype"] or trial["dtype"] for trial in records(run.trials)}
    shown = [
        [
            *(row["variant"], place_of(row, swept), *(row[name] for name in ("scenario", "batch", "time"))),
            *(seconds(row[name]) for name in ("latency_s", "bound_s")),
            _share(row),
            row["limited_by"] + ("" if formats[row["trial"]] == row["dtype"] else ", products not counted"),
        ]
        for row in rows
    ]
    header = (
        "variant",
        "task",
        "scenario",
        "batch",
        "time",
        "latency",
        "bound",
        "share of what is attainable",
        "limit",
    )
    table = long_table(header, shown, len(shown), "tables/latency.csv")
    return [*table, "", *_machine_table(records(run.machine))] if shown else []


def _share(row: Mapping[str, Any]) -> str:
    value, low, high = (row[name] for name in ("attainable", "attainable_low", "attainable_high"))
    text = f"{three_digits(100 * value)} %"
    return text if math.isnan(low) else f"{text} ({three_digits(100 * low)}–{three_digits(100 * high)})"


def _machine_table(machine: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was measured: of products the best, of reading every working set."""
    best: dict[tuple[Any, ...], float] = {}
    for row in machine:
        setting = (row["device"], row["dtype"], row["threads"])
        if row["what"] == "flops":
            key, rate = (*setting, "matrix products", NONE), row["flops_per_s"]
        else:
            key, rate = (*setting, "reading", bytes_in_words(row["working_set_bytes"])), row["bytes_per_s"]
        best[key] = max(best.get(key, 0.0), rate)
    rows = [[*key, with_prefix(rate, "B/s" if key[3] == "reading" else "FLOP/s")] for key, rate in best.items()]
    return markdown_table(("device", "dtype", "threads", "what", "working set", "at best"), rows)
