"""What type every column of every table has, and tables in which it has that type, whatever a run left empty."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.schema import LARGEST_WHOLE

WHOLE = frozenset(
    {
        *("input_size", "hidden_size", "num_layers", "threads", "seed", "batch", "time", "twin"),
        *("parameters", "model_bytes", "peak_memory_bytes", "peak_device_bytes", "working_set_bytes"),
        *("slice", "process", "instance", "slices", "processes", "instances", "samples", "disturbed_samples"),
        *("unsteady_instances", "warmup_calls", "rows", "steps", "columns", "seeds", "agreeing_rows", "step"),
        *("involuntary_switches", "voluntary_switches", "page_faults_major", "page_faults_minor", "gc_collections"),
        *("probe", "streams", "requests", "misses", "judged", "workers", "probes", "refused", "none_sustained"),
        *("pairs", "comparisons", "false_alarms", "units"),
    }
)
TEXTS = frozenset(
    {
        *("trial", "kind", "variant", "model", "runtime", "python", "architecture", "task", "device", "dtype"),
        *("distribution", "distribution_version", "runtime_distribution", "runtime_distribution_version"),
        *("task_distribution", "task_distribution_version", "compute_dtype", "trained_by", "scenario", "baseline"),
        *("status", "reason", "log", "moment", "case", "part", "yardstick", "problem", "what", "audit", "audits"),
        *("metric", "boundary", "governor", "cpus", "matrix", "verdict", "unit", "latency_unit", "ratio_unit"),
        *("limited_by", "parity", "caches", "clock", "clock_reason", "device_name", "device_throttling"),
    }
)
TEXT_ENDS = ("_status", "_verdict")  # of a scenario's columns in the summary
FLAG_ENDS = ("is_floor", "is_steady", "is_confirmation", "is_capped", "precision_met")
SIZES = ("input_size", "hidden_size", "num_layers", "threads")  # of a trial; unknown where it was imported
OTHERWISE = {("capacity", "misses"): "float"}  # a share there, and a count of loads
WHOLE_TYPE, FLAG_TYPE, TEXT_TYPE = "Int64", "boolean", pd.StringDtype("python")


def column_type(table: str, name: str) -> str:
    """`int`, `float`, `bool` or `text`: what a column of a table holds where it is not empty."""
    if found := OTHERWISE.get((table, name)):
        return found
    if name in TEXTS or name.endswith(TEXT_ENDS) or name.startswith("audit_"):
        return "text"
    if name.endswith(FLAG_ENDS):
        return "bool"
    return "int" if name in WHOLE else "float"


def typed(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A copy of the table of that name whose columns are Int64, float64, boolean or string, in every run.

    Empty is NA, of a float NaN; so is a value that is not of its column's type, which the harness never writes.
    """
    columns = {str(column): _CAST[column_type(name, str(column))](table[column].tolist()) for column in table.columns}
    return pd.DataFrame(columns, index=range(len(table)))


def with_sizes(table: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table, in which a size that is unknown is None; pandas would make it NaN, and all others floats."""
    sizes = {name: [row.get(name) for row in rows] for name in SIZES if name in table}
    return table.assign(**{name: pd.Series(own, dtype="object") for name, own in sizes.items() if None in own})


def _whole(value: Any) -> int | None:
    if not _is_number(value) or not abs(value) <= LARGEST_WHOLE:  # which NaN is not
        return None
    return int(value) if value == int(value) else None


def _number(value: Any) -> float:
    try:
        return float(value) if _is_number(value) else math.nan
    except OverflowError:  # a whole number beyond all floats
        return math.nan


def _flag(value: Any) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool_) else None


def _text(value: Any) -> str | None:
    """A text that every encoding of Unicode can hold; what is none is shown as one."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


_CAST: dict[str, Callable[[list[Any]], Any]] = {
    "int": lambda values: pd.Series([_whole(value) for value in values], dtype=WHOLE_TYPE),
    "float": lambda values: pd.Series([_number(value) for value in values], dtype=np.float64),
    "bool": lambda values: pd.Series([_flag(value) for value in values], dtype=FLAG_TYPE),
    "text": lambda values: pd.Series([_text(value) for value in values], dtype=TEXT_TYPE),
}
