"""Charts of comparisons, histories and matrices: pure functions of their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.charts import MOST_BARS
from harness.compare import Comparison, Row, interval_text
from harness.compare_report import value_text
from harness.formatting import seconds
from harness.history import Series
from harness.matrix import Matrix
from harness.stats import Estimate
from harness.vega import (
    MOST_LINES,
    Chart,
    choice_of,
    ends,
    latency_axis,
    left_out,
    nominal,
    range_along,
    ratio_spec,
    spec_of,
    tooltip,
    variant_colours,
)


def comparison_charts(comparisons: Sequence[Comparison]) -> list[Chart]:
    """The ratios of latencies, and those of capacities, where there are any."""
    return [chart for chart in (comparison_chart(comparisons), load_chart(comparisons)) if chart]


def comparison_chart(comparisons: Sequence[Comparison]) -> Chart | None:
    """Every ratio of latencies with its interval and verdict; one scenario of one setting at a time, and one run."""
    return _ratio_chart(comparisons, [each.rows for each in comparisons], "latency", "ratios", "Ratios")


def load_chart(comparisons: Sequence[Comparison]) -> Chart | None:
    """The same of the ratios of capacities."""
    named = "capacity", "load-ratios", "Ratios of capacities"
    return _ratio_chart(comparisons, [each.loads for each in comparisons], *named)


def _ratio_chart(
    comparisons: Sequence[Comparison], of: Sequence[Sequence[Row]], metric: str, name: str, title: str
) -> Chart | None:
    rows = [
        {
            "variant": row.point.variant,
            "scenario": ", ".join(
                filter(None, (row.point.shape, row.point.setting, each.new * (len(comparisons) > 1)))
            ),
            "ratio": row.estimate.value,
            "verdict": row.verdict,
            "interval": interval_text(row.estimate),
            metric: value_text(row),
            "against": value_text(row, of_base=True),
        }
        | _interval("ratio", row.estimate)
        for each, own in zip(comparisons, of, strict=True)
        for row in own
    ]
    if not rows:
        return None
    names = list(dict.fromkeys(str(row["variant"]) for row in rows))
    shown = names[:MOST_BARS]
    return Chart(
        name,
        title,
        "The point is NEW over BASE, the line its 95 % interval. Colour and shape say the verdict.",
        ratio_spec([row for row in rows if row["variant"] in shown], shown, metric, **choice_of("scenario", rows)),
        left_out(len(shown), len(names)),
    )


def history_chart(series: Sequence[Series]) -> Chart | None:
    """The latencies of every row over the time at which the runs began; one scenario of one setting at a time."""
    rows = [
        {
            "variant": line.point.variant,
            "scenario": f"{line.point.shape}, {line.point.setting}",
            "series": number,
            "began": f"{run.started:%Y-%m-%dT%H:%M:%SZ}",
            "run": run.number,
            "latency": found.value,
            "in words": seconds(found.value),
        }
        | _interval("latency", found)
        for number, each in enumerate(series, start=1)
        for line in each.lines
        for run, found in zip(each.runs, line.latencies, strict=True)
        if found and found.value > 0
    ]
    if not rows:
        return None
    x = {"field": "began", "type": "temporal", "title": "when the run began (UTC)", "scale": {"type": "utc"}}
    said = "One line a variant and series; lines at the points are 95 % intervals within each run."
    return _latency_lines(
        "history", "Latency over time", said, rows, x, "series", ("variant", "run", "began", "in words")
    )


def matrix_chart(found: Matrix) -> Chart | None:
    """The latencies of every row over the columns; one scenario of one setting at a time."""
    factor = found.factors[0] if len(found.factors) == 1 else ""
    labels = [column.label.removeprefix(factor).strip() for column in found.columns]
    rows = [
        {
            "variant": point.variant,
            "scenario": f"{point.shape}, {point.setting}",
            "versions": label,
            "latency": cell.latency.value,
            "in words": seconds(cell.latency.value),
            "verdict": cell.row.verdict if cell.row else "",
        }
        | _interval("latency", cell.latency)
        for point, cells in found.rows.items()
        for label, cell in zip(labels, cells, strict=True)
        if cell.latency and cell.latency.value > 0
    ]
    if not rows:
        return None
    x: dict[str, Any] = {
        "field": "versions",
        "type": "ordinal",
        "title": factor or None,
        "sort": labels,
        "scale": {"domain": labels},
    }
    x |= {"axis": {"labelAngle": 0, "labelLimit": 160}}
    said = "One line a variant; lines at the points are 95 % intervals within each run."
    return _latency_lines(
        "matrix", "Latency over versions", said, rows, x, "variant", ("variant", "versions", "in words", "verdict")
    )


def _latency_lines(
    name: str,
    title: str,
    said: str,
    rows: list[dict[str, Any]],
    x: dict[str, Any],
    detail: str,
    told: Sequence[str],
) -> Chart:
    """Latencies with their intervals over something, a line a variant; `detail` is what further tells lines apart."""
    names = list(dict.fromkeys(str(row["variant"]) for row in rows))
    shown = names[:MOST_LINES]
    y = latency_axis("latency", "latency of a call")
    colour = {"color": variant_colours(shown), "detail": nominal(detail)}
    layers = [
        {"mark": "rule", "encoding": {"x": x, **range_along("y", "latency", y), **colour}},
        {
            "mark": {"type": "line", "point": {"filled": True, "size": 50}},
            "encoding": {"x": x, "y": y, **colour, "tooltip": tooltip(*told)},
        },
    ]
    return Chart(
        name,
        title,
        said,
        spec_of(
            [row for row in rows if row["variant"] in shown], layer=layers, height=320, **choice_of("scenario", rows)
        ),
        left_out(len(shown), len(names)),
    )


def _interval(name: str, found: Estimate) -> dict[str, float]:
    return ends({"value": found.value, "low": found.low, "high": found.high}, name, "value", "low", "high")
