"""Grids in words: what tells a sweep's settings apart, latency over its shapes, and speed on rows of real lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from harness.contract import RAGGED_SCENARIOS
from harness.formatting import NONE, joined, markdown_table, percent, seconds, sizes, threads
from harness.store import Run
from harness.tables import SETTING, records

MOST_SHAPES = 12  # columns of one table; a larger grid is told in several


def is_swept(run: Run) -> bool:
    """Whether a run has several settings of one task."""
    return len(run.trials[SETTING].drop_duplicates()) > run.trials["task"].nunique()


def setting_of(row: Mapping[str, Any]) -> str:
    """What a sweep may change of a row's setting: `H=128 L=1 float32 1 thread`."""
    size = sizes(H=row["hidden_size"], L=row["num_layers"])
    return joined(size, row["dtype"], threads(row["threads"]), by=" ")


def place_of(row: Mapping[str, Any], swept: bool) -> str:
    """The task of a row, and its setting if there are several of one task."""
    return f"{row['task']} {setting_of(row)}" if swept else str(row["task"])


def shapes_table(latency: pd.DataFrame) -> list[str]:
    """Markdown tables of the compute latency with half of its interval, for scenarios of more than one shape.

    Args:
        latency: rows of the latency table, all of one setting.
    """
    lines: list[str] = []
    for scenario, own in latency[latency["boundary"] == "compute"].groupby("scenario", sort=False):
        shapes = list(dict.fromkeys(zip(own["batch"], own["time"], strict=True)))
        for start in range(0, len(shapes) if len(shapes) > 1 else 0, MOST_SHAPES):
            shown = shapes[start : start + MOST_SHAPES]
            cells: dict[str, dict[tuple[int, int], str]] = {}
            for row in records(own):
                text = f"{seconds(row['latency_s'])} {percent(row['latency_low_s'], row['latency_high_s'])}".strip()
                cells.setdefault(row["variant"], {})[row["batch"], row["time"]] = text
            header = (f"{scenario}, batch × time", *(f"{batch} × {time}" for batch, time in shown))
            body = [[variant, *(known.get(shape, NONE) for shape in shown)] for variant, known in cells.items()]
            lines += [*markdown_table(header, body), ""]
    return lines[:-1]


def ragged_table(latency: pd.DataFrame) -> tuple[tuple[str, ...], list[list[str]]]:
    """Real time steps a second, and latency over the baseline's, one column a way to batch that was timed.

    A row is a variant or, where several sizes of a batch were timed, a variant and a size; there is none where rows of
    real lengths were not timed.

    Args:
        latency: rows of the latency table, all of one setting.

    Returns:
        the columns, and the rows under them.
    """
    own = latency[(latency["boundary"] == "compute") & latency["scenario"].isin(RAGGED_SCENARIOS)]
    is_one_size = own["batch"].nunique() == 1
    cells: dict[str, dict[str, str]] = {}
    for row in records(own):
        text = f"{row['steps_per_s']:,.0f} {percent(row['steps_low_per_s'], row['steps_high_per_s'])}".strip()
        if not pd.isna(row["verdict"]):
            text += f", {row['ratio']:.2f}× {row['verdict']}"
        who = row["variant"] if is_one_size else f"{row['variant']}, batch {row['batch']}"
        cells.setdefault(who, {})[row["scenario"]] = text
    ways = [name for name in RAGGED_SCENARIOS if name in set(own["scenario"])]
    rows = [[who, *(known.get(name, NONE) for name in ways)] for who, known in cells.items()]
    return ("real steps a second", *ways), rows
