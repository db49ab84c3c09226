"""What every variant costs, in words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from harness.formatting import NONE, bytes_in_words, long_table, seconds, with_prefix
from harness.shapes import is_swept, place_of
from harness.store import Run
from harness.tables import KEY, records

FIGURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "open_s": ("opening a session", seconds),
    "import_s": ("of it importing", seconds),
    "export_s": ("of it exporting", lambda value: seconds(value) if value else "0 s"),
    "first_call_s": ("first call", seconds),
    "compile_s": ("compiling in both", seconds),
    "peak_memory_bytes": ("peak memory", bytes_in_words),
    "peak_device_bytes": ("of the device", bytes_in_words),
    "model_bytes": ("model on disk", bytes_in_words),
    "parameters": ("parameters", "{:,}".format),
    "flops": ("a call computes", partial(with_prefix, unit="FLOP")),
    "energy_j": ("energy a call", partial(with_prefix, unit="J")),
    "device_energy_j": ("device's energy a call", partial(with_prefix, unit="J")),
}
"""Columns of the costs table, their headings, and how their values are written, in the report's order."""

COSTS_READING = (
    "- **what it costs**: once, in a new process, while others may be at work beside it. **opening a session**: "
    "importing the framework, exporting and reading the model; **first call**: from arrays in to arrays out. Both "
    "together are the time to the first answer. An export that runtimes share is made by the first that comes; the "
    "others wait for it or find it. **peak memory**: the most that the process held until then, above what it held "
    "before the plugin was loaded, libraries included, processes it started not. **model on disk**, **compiling** and "
    "**exporting** are what the session says of itself. **a call computes**: the products with weight matrices. "
    "**energy a call**: of all the machine's processor packages, idle power and neighbours included.",
)


def costs_table(run: Run) -> list[str]:
    """One row a variant, task and setting, with every column in which any has a value; no lines if there is no row."""
    swept, known = is_swept(run), records(run.costs.merge(run.trials[["trial", *KEY]], on="trial"))
    shown = [name for name in FIGURES if run.costs[name].notna().any()]

    def cells(row: dict[str, Any]) -> list[str]:
        called = NONE if pd.isna(row["batch"]) else f"{row['batch']} × {row['time']}"
        figures = [NONE if pd.isna(row[name]) else FIGURES[name][1](row[name]) for name in shown]
        return [row["variant"], place_of(row, swept), called, *figures]

    header = ("variant", "task", "batch × time", *(FIGURES[name][0] for name in shown))
    return long_table(header, map(cells, known), len(known), "tables/costs.csv")
