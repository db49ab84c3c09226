"""A sweep in the report: one column a shape."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.shapes import MOST_SHAPES, ragged_table, shapes_table


def row(variant: str, batch: int, time: int, latency_s: float, scenario: str = "offline") -> dict[str, Any]:
    ends = {"latency_s": latency_s, "latency_low_s": latency_s / 1.02, "latency_high_s": latency_s * 1.02}
    return {"variant": variant, "scenario": scenario, "batch": batch, "time": time, "boundary": "compute", **ends}


def test_every_shape_is_a_column_and_what_was_not_timed_there_is_a_dash() -> None:
    rows = [row("a@x", 1, 8, 1e-3), row("a@x", 32, 8, 4e-3), row("b@x", 32, 8, 5e-3)]
    assert shapes_table(pd.DataFrame(rows)) == [
        "| offline, batch × time | 1 × 8 | 32 × 8 |",
        "| --- | --- | --- |",
        "| a@x | 1 ms ±2.0% | 4 ms ±2.0% |",
        "| b@x | – | 5 ms ±2.0% |",
    ]


def test_a_scenario_of_one_shape_needs_no_table() -> None:
    assert shapes_table(pd.DataFrame([row("a@x", 1, 8, 1e-3, "single-stream"), row("b@x", 1, 8, 1e-3)])) == []


def test_a_large_grid_is_told_in_several_tables_and_no_shape_is_left_out() -> None:
    rows = [row("a@x", batch, 8, 1e-3) for batch in range(1, 2 * MOST_SHAPES)]
    lines = shapes_table(pd.DataFrame(rows))
    headers = [line for line in lines if "batch × time" in line]
    assert len(headers) == 2
    assert sum(line.count(" × 8") for line in headers) == len(rows)


def test_speed_on_rows_of_real_lengths_is_a_row_a_variant_with_its_ratio_where_there_is_a_verdict() -> None:
    ends = {"steps_per_s": 1e6, "steps_low_per_s": 0.98e6, "steps_high_per_s": 1.02e6, "ratio": 0.5, "verdict": None}
    rows = [row("a@x", 4, 8, 1e-3, name) | ends for name in ("padded", "packed")]
    rows.append(row("b@x", 4, 8, 1e-3, "packed") | ends | {"verdict": "faster"})
    assert ragged_table(pd.DataFrame(rows)) == (
        ("real steps a second", "padded", "packed"),  # and no column of dashes for what was not timed
        [["a@x", "1,000,000 ±2.0%", "1,000,000 ±2.0%"], ["b@x", "–", "1,000,000 ±2.0%, 0.50× faster"]],
    )
    assert ragged_table(pd.DataFrame([row("a@x", 1, 8, 1e-3)]))[1] == []


def test_every_size_of_a_batch_of_real_lengths_is_a_row_of_its_own() -> None:
    speed = {"steps_low_per_s": 1e6, "steps_high_per_s": 1e6, "ratio": 1.0, "verdict": None}
    rows = [row("a@x", batch, 8, 1e-3, "packed") | speed | {"steps_per_s": batch * 1e6} for batch in (4, 8)]
    assert ragged_table(pd.DataFrame(rows)) == (
        ("real steps a second", "packed"),
        [["a@x, batch 4", "4,000,000 ±0.0%"], ["a@x, batch 8", "8,000,000 ±0.0%"]],
    )
