"""Loads in words: how many requests a second, and how many streams, each variant sustains."""

from __future__ import annotations

import math
from typing import Any

from harness.estimates import REFUSED, amount
from harness.formatting import NONE, details, long_table, markdown_table, percentage, seconds, three_digits
from harness.shapes import is_swept, place_of
from harness.store import Run
from harness.tables import records

SERVER_COLUMNS = (
    *("variant", "task", "requests/s", "vs baseline", "verdict", "p50 there", "p99 there", "requests a call"),
    "refused",
)
STREAM_COLUMNS = (
    *("variant", "task", "streams", "vs baseline", "verdict", "streams a core", "late", "p50 there", "p99 there"),
    *("real-time factor", "refused"),
)


def load_lines(run: Run) -> list[str]:
    """What the report says of loads, in Markdown; nothing where no load trial was planned."""
    if not (run.trials["kind"] == "load").any():
        return []
    is_cold = bool(run.trials["caches"].notna().any())
    lines: list[str] = []
    for scenario, columns, rows in load_tables(run):
        own = records(run.capacity[run.capacity["scenario"] == scenario])
        lines += [_server_text(own) if scenario == "server" else _stream_text(own), ""]
        lines += [*markdown_table(columns, rows), ""]
    lines += [
        "Each worker looks for its own limit, alone on the machine; the value is the geometric mean over workers with "
        "its 95 % interval, and the ratio to the baseline is paired by slice: above 1 carries more. An interval is no "
        "narrower than the search's steps allow. Verdicts hold over all loads of the run together. **Refused** are "
        "probes in which the load generator itself was late; they count neither way. **At least**: no higher load is "
        "offered, so the limit was not reached, and there is no ratio.",
        "",
        *(["Loads found the caches as they were: only latencies were measured with cold ones.", ""] if is_cold else []),
        *details("All loads that were offered", _probes_table(run)),
    ]
    return lines


def load_tables(run: Run) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    """The scenario, the columns and the cells of every kind of load that was offered."""
    swept = is_swept(run)
    tables: list[tuple[str, tuple[str, ...], list[list[str]]]] = []
    for scenario, columns, cells in (("server", SERVER_COLUMNS, _server_row), ("stream", STREAM_COLUMNS, _stream_row)):
        own = records(run.capacity[run.capacity["scenario"] == scenario])
        if own:
            tables.append((scenario, columns, [cells(row | {"place": place_of(row, swept)}) for row in own]))
    return tables


def _server_text(rows: list[dict[str, Any]]) -> str:
    most = max(row["batch"] for row in rows)
    batches = "one a call" if most == 1 else f"up to {most} a call"
    return (
        f"**Server**: single requests arrive at random ({batches}); the highest rate whose p99, from the arrival, "
        f"stays under {seconds(rows[0]['bound_s'])} with 99 % confidence."
    )


def _stream_text(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    return (
        f"**Stream**: every stream brings a chunk of {first['time']} steps each {seconds(first['bound_s'])}, and its "
        "state goes from chunk to chunk; the largest number of streams of which one worker answers nearly all chunks "
        "before the next. **Late** is the share of chunks, at that number, that it did not."
    )


def _server_row(row: dict[str, Any]) -> list[str]:
    there = [seconds(row[name]) for name in ("p50_s", "p99_s")]
    batch = _number(row["mean_batch"])
    return [
        row["variant"],
        row["place"],
        _capacity(row),
        _ratio(row),
        _verdict(row),
        *there,
        batch,
        _refused(row),
    ]


def _stream_row(row: dict[str, Any]) -> list[str]:
    there = [seconds(row[name]) for name in ("p50_s", "p99_s")]
    a_core = _number(row["capacity"] / row["threads"])
    factor = _number(row["real_time_factor"])
    late = percentage(row["misses"])
    known = _capacity(row), _ratio(row), _verdict(row)
    return [row["variant"], row["place"], *known, a_core, late, *there, factor, _refused(row)]


def _capacity(row: dict[str, Any]) -> str:
    if row["capacity"] == 0:
        none = f"none, down to {three_digits(row['not_sustained'])}"
        if row["none_sustained"] == row["workers"]:
            return none
        return f"{none}, in {row['none_sustained']} of {row['workers']} workers; up to {three_digits(row['highest'])}"
    if row["is_capped"]:
        return f"at least {_number(row['capacity'])}"
    interval = f" ({_number(row['capacity_low'])}–{_number(row['capacity_high'])})"
    return _number(row["capacity"]) + ("" if math.isnan(row["capacity_low"]) else interval)


def _ratio(row: dict[str, Any]) -> str:
    if row["variant"] == row["baseline"]:
        return "baseline"
    if math.isnan(row["ratio"]):
        return NONE
    interval = "" if math.isnan(row["ratio_low"]) else f" ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
    return f"{row['ratio']:.2f}×{interval}"


def _verdict(row: dict[str, Any]) -> str:
    return row["verdict"] if isinstance(row["verdict"], str) else NONE


def _refused(row: dict[str, Any]) -> str:
    return f"{row['refused']} of {row['probes']}"


def _number(value: float) -> str:
    return NONE if math.isnan(value) else three_digits(value)


def _probes_table(run: Run) -> list[str]:
    known = records(run.loads.merge(run.trials[["trial", "variant", "task", "scenario"]], on="trial"))
    rows = [
        [
            *(row[name] for name in ("variant", "task", "scenario", "slice", "probe")),
            f"{three_digits(amount(row))} {'streams' if row['scenario'] == 'stream' else '/s'}",
            *(row["requests"], seconds(row["p50_s"]), seconds(row["p99_s"]), row["misses"]),
            *(f"{seconds(row['generator_p99_s'])}{', too late' if row['verdict'] == REFUSED else ''}", row["verdict"]),
            "confirmation" if row["is_confirmation"] else "search",
        ]
        for row in known
    ]
    header = ("variant", "task", "scenario", "slice", "probe", "load", "requests", "p50", "p99", "over the bound")
    return long_table((*header, "generator's delay, p99", "verdict", "of"), rows, len(rows), "tables/loads.csv")
