"""Latency over the shapes of a sweep: one row a variant and scenario, one column a shape."""

from __future__ import annotations

import pandas as pd

from harness.formatting import NONE, markdown_table, percent, seconds
from harness.tables import records

MOST_SHAPES = 12  # columns of one table; a larger grid is told in several


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
