"""Charts of a run, made of its tables as pure functions: Vega-Lite specifications."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.formatting import bytes_in_words, seconds, three_digits, with_prefix
from harness.limits import forward_work
from harness.shapes import is_swept, place_of
from harness.store import Run
from harness.summary_report import ratio_words
from harness.tables import SETTING, counted, of_setting, records
from harness.vega import (
    EVERY,
    LOG,
    Chart,
    Rows,
    Spec,
    choice_of,
    ends,
    first_variants,
    latency_axis,
    left_out,
    nominal,
    range_along,
    ratio_spec,
    spec_of,
    texts,
    tooltip,
    variant_colours,
)

MOST_BARS = 60  # variants of a chart with a row or a point for each
QUANTILES = (0.01, *(number / 50 for number in range(1, 50)), 0.99, 0.995, 0.999)
SHAPES = {"batch": "batch", "time": "steps", "hidden_size": "hidden size", "num_layers": "layers", "threads": "threads"}
NEXT_LEVEL = 0.7  # of the bandwidth of a smaller working set: another memory


def setting_charts(run: Run, rows: pd.DataFrame) -> list[Chart]:
    """The charts of one setting (task, size, device, dtype, threads) that have something to show.

    Args:
        run: the run.
        rows: of its summary, all of the setting, in the order of the table.
    """
    latency = of_setting(run.latency, records(rows)[0])
    order = list(rows["variant"])
    made = (ratios(latency, order), accuracy_latency(rows), distributions(run, latency, order))
    return [chart for chart in made if chart]


def run_charts(run: Run, order: Sequence[str]) -> list[Chart]:
    """The charts of a whole run that have something to show.

    Args:
        run: the run.
        order: its variants as the tables have them.
    """
    made = (
        *shapes(run.latency, order),
        roofline(run, order),
        learning_curves(run, order),
        server(run, order),
        streams(run, order),
    )
    return [chart for chart in made if chart]


def ratios(latency: pd.DataFrame, order: Sequence[str]) -> Chart | None:
    """Every row's latency over its baseline's with the interval, coloured by its verdict; one scenario at a time."""
    own = _first_shapes(latency[latency["boundary"].eq("compute") & latency["verdict"].notna()])
    shown = first_variants(records(own), order, MOST_BARS)
    rows = [
        {
            "variant": row["variant"],
            "scenario": row["scenario"],
            "verdict": row["verdict"],
            "ratio": row["ratio"],
            "interval": ratio_words(row["ratio"], row["ratio_low"], row["ratio_high"], digits=3),
            "latency": seconds(row["latency_s"]),
            "against": row["baseline"],
        }
        | ends(row, "ratio")
        for row in records(own)
        if row["variant"] in shown
    ]
    if not rows:
        return None
    return Chart(
        "ratios",
        "Against the baseline",
        "The point is the ratio, the line its 95 % interval. Colour and shape say the verdict, which holds for all "
        "rows together.",
        ratio_spec(rows, shown, **choice_of("scenario", rows)),
        left_out(len(shown), own["variant"].nunique()),
    )


def accuracy_latency(rows: pd.DataFrame) -> Chart | None:
    """Score against single-stream latency, with both intervals, and the variants that none beats in both."""
    own = rows[rows["score"].notna() & rows["single_stream_latency_s"].notna()]
    if own.empty:
        return None
    metric = str(own["metric"].iloc[0])
    higher = metric == "accuracy"
    best = _unbeaten(own, higher)
    points = [
        {
            "variant": row["variant"],
            "architecture": row["architecture"],
            "latency": row["single_stream_latency_s"],
            "score": row["score"],
            "front": row["variant"] in best,
            "latency in words": seconds(row["single_stream_latency_s"]),
            "score in words": f"{100 * row['score']:.2f} %" if higher else three_digits(row["score"]),
        }
        | ends(row, "latency", *(f"single_stream_latency_{end}s" for end in ("", "low_", "high_")))
        | ends(row, "score", logarithmic=False)
        for row in records(own)
    ]
    x = latency_axis("latency", "single-stream latency")
    y: Spec = {"field": "score", "type": "quantitative", "scale": {"zero": False}, "title": metric}
    if higher:
        y["axis"] = {"format": ".2~%"}
    domain = list(dict.fromkeys(point["architecture"] for point in points))
    architecture = {**nominal("architecture"), "scale": {"domain": texts(domain)}}
    architecture["legend"] = {"orient": "top", "title": None}
    color = {"color": architecture}
    front = [{"filter": "datum.front"}]
    layers = [
        {
            "transform": front,
            "mark": {"type": "line", "strokeDash": [4, 3], "color": "#848d97", "interpolate": "step-after"},
            "encoding": {"x": x, "y": y, "order": {"field": "latency", "type": "quantitative"}},
        },
        {"mark": "rule", "encoding": {**range_along("x", "latency", x), "y": y, **color}},
        {"mark": "rule", "encoding": {"x": x, **range_along("y", "score", y), **color}},
        {
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {
                "x": x,
                "y": y,
                **color,
                "shape": architecture,
                "tooltip": tooltip("variant", "architecture", "score in words", "latency in words"),
            },
        },
        {
            "transform": front,
            "mark": {"type": "text", "align": "left", "dx": 8, "dy": -8, "limit": 220},
            "encoding": {"x": x, "y": y, "text": {"field": "variant"}},
        },
    ]
    return Chart(
        "accuracy-latency",
        "Accuracy and latency",
        f"{'Up' if higher else 'Down'} and left is better. Lines are 95 % intervals; scores of variants that train "
        "themselves differ by chance. The dashed line joins the variants whose estimates no other beats: none is at "
        "least as good in both and better in one.",
        spec_of(points, layer=layers, height=340),
    )


def distributions(run: Run, latency: pd.DataFrame, order: Sequence[str]) -> Chart | None:
    """Which share of the calls was at most so long: the empirical distribution of all counted samples."""
    own = _first_shapes(latency[latency["boundary"].eq("compute") & latency["p50_s"].notna()])
    shown = first_variants(records(own), order)
    names = {row["trial"]: (row["variant"], row["scenario"]) for row in records(own) if row["variant"] in shown}
    calls = counted(run.samples)
    calls = calls[calls["boundary"].eq("compute") & calls["trial"].isin(list(names))]
    rows: Rows = []
    for trial, elapsed in calls.groupby("trial", sort=False)["elapsed_s"]:
        known = [share for share in QUANTILES if 1 / len(elapsed) <= share <= 1 - 1 / len(elapsed)]
        for share, value in zip(known, np.quantile(elapsed, known, method="inverted_cdf"), strict=True):
            row = {"variant": names[trial][0], "scenario": names[trial][1], "share": share, "latency": float(value)}
            rows.append(row | {"latency in words": seconds(float(value)), "share in words": f"{100 * share:.1f} %"})
    rows = [row for row in rows if row["latency"] > 0]
    if not rows:
        return None
    choice = choice_of("scenario", rows)
    options = [EVERY, *texts(shown)]
    picked = {
        "name": "chosen_variant",
        "value": EVERY,
        "bind": {"input": "select", "options": options, "name": "show "},
    }
    choice["params"] = [*choice["params"], picked]
    picked_test = f"chosen_variant === '{EVERY}' || datum.variant === chosen_variant"
    encoding = {
        "x": latency_axis("latency", "latency of a call"),
        "y": {"field": "share", "type": "quantitative", "title": "share of calls", "axis": {"format": "%"}},
        "color": variant_colours(shown),
        "order": {"field": "share", "type": "quantitative"},
        "tooltip": tooltip("variant", "share in words", "latency in words"),
        "opacity": {"condition": {"test": picked_test, "value": 1}, "value": 0.12},
    }
    return Chart(
        "distributions",
        "Distribution of latency",
        "The steeper a line, the more alike are the calls; what lies far to the right is what a user waits for now and "
        "then.",
        spec_of(rows, mark={"type": "line", "interpolate": "step-after"}, encoding=encoding, height=300, **choice),
        left_out(len(shown), own["variant"].nunique()),
    )


def shapes(latency: pd.DataFrame, order: Sequence[str]) -> list[Chart]:
    """Latency with its interval along every quantity that a sweep moved, all others at their first value."""
    own = latency[latency["boundary"] == "compute"]
    charts = []
    for name, title in SHAPES.items():
        others = [other for other in (*SHAPES, "dtype", "device") if other != name]
        rows: Rows = []
        for _, group in own.groupby(["task", "scenario"], sort=False):
            first = group.iloc[0][others]
            line = group[(group[others] == first).all(axis=1)]
            if line[name].nunique() < 2:
                continue
            fixed = ", ".join(f"{SHAPES.get(other, other)} {first[other]}" for other in others)
            rows += [
                {"variant": row["variant"], "scenario": f"{row['scenario']}, {row['task']}: {fixed}", "at": row[name]}
                | {"latency": row["latency_s"], "latency in words": seconds(row["latency_s"])}
                | ends(row, "latency", "latency_s", "latency_low_s", "latency_high_s")
                for row in records(line)
            ]
        if not rows:
            continue
        shown, count = first_variants(rows, order), len({row["variant"] for row in rows})
        rows = [row for row in rows if row["variant"] in shown]
        x = {"field": "at", "type": "quantitative", "scale": {"type": "log", "base": 2}, "title": title}
        y = latency_axis("latency", "latency of a call")
        color = {"color": variant_colours(shown)}
        layers = [
            {"mark": "rule", "encoding": {"x": x, **range_along("y", "latency", y), **color}},
            {
                "mark": {"type": "line", "point": {"filled": True, "size": 50}},
                "encoding": {"x": x, "y": y, **color, "tooltip": tooltip("variant", "at", "latency in words")},
            },
        ]
        charts.append(
            Chart(
                f"latency-{name.replace('_', '-')}",
                f"Latency over {title}",
                "Both axes are logarithmic: twice as long for twice as much is a straight line. Lines at the points "
                "are 95 % intervals.",
                spec_of(rows, layer=layers, height=320, **choice_of("scenario", rows)),
                left_out(len(shown), count),
            )
        )
    return charts


def roofline(run: Run, order: Sequence[str]) -> Chart | None:
    """Every forward pass under the machine's roofs: FLOP/s over arithmetic intensity."""
    work = forward_work(records(run.matrices), records(run.trials))
    own = run.latency[run.latency["bound_s"].notna() & run.latency["trial"].isin(list(work))]
    swept = is_swept(run)
    points: Rows = [
        {
            "variant": row["variant"],
            "place": place_of(row, swept),
            "scenario": row["scenario"],
            "machine": _machine_words(row),
            "intensity": work[row["trial"]][0] / work[row["trial"]][1],
            "speed": work[row["trial"]][0] / row["latency_s"],
            "of what is attainable": f"{three_digits(100 * row['attainable'])} %",
            "limit": row["limited_by"],
            "in words": with_prefix(work[row["trial"]][0] / row["latency_s"], "FLOP/s"),
        }
        for row in records(own)
    ]
    if not points:
        return None
    shown, count = first_variants(points, order, MOST_BARS), len({point["variant"] for point in points})
    points = [point for point in points if point["variant"] in shown]
    roofs = _roofs(run.machine, points)
    x: Spec = {"field": "intensity", "type": "quantitative", "scale": LOG}
    x |= {"title": "floating-point operations a byte", "axis": {"format": ".3~g"}}
    y: Spec = {"field": "speed", "type": "quantitative", "scale": LOG}
    y |= {"title": "floating-point operations a second", "axis": {"format": ".3~s"}}
    names = list(dict.fromkeys(roof["roof"] for roof in roofs))
    below = {"orient": "bottom"}
    choice = choice_of("machine", points)
    layers = [
        {
            "data": {"values": roofs},
            "transform": choice["transform"],
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": {
                "x": x,
                "y": y,
                "strokeDash": {**nominal("roof"), "sort": names, "title": "reading again and again", "legend": below},
                "color": {"value": "#848d97"},
            },
        },
        {
            "transform": choice["transform"],
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {
                "x": x,
                "y": y,
                "color": variant_colours(shown),
                "shape": {**nominal("scenario"), "title": "scenario", "legend": below},
                "tooltip": tooltip("variant", "place", "scenario", "in words", "of what is attainable", "limit"),
            },
        },
    ]
    return Chart(
        "roofline",
        "Under the machine's roofs",
        "Flat: the best matrix product. Sloped: as fast as a working set of that size is read. A forward pass counts "
        "its products, and reads its recurrent weights at every step.",
        spec_of(points, layer=layers, height=360, params=choice["params"]),
        left_out(len(shown), count),
    )


def _machine_words(row: Mapping[str, Any]) -> str:
    return f"{row['device']}, {row['dtype']}, {row['threads']} thread{'' if row['threads'] == 1 else 's'}"


def _roofs(machine: pd.DataFrame, points: Rows) -> Rows:
    """The corners of the roof of every bandwidth, of each device, dtype and number of threads."""
    roofs: Rows = []
    for _, own in machine.groupby(["device", "dtype", "threads"], sort=False):
        name = _machine_words(records(own)[0])
        below = [point for point in points if point["machine"] == name]
        if not below:
            continue
        reads = _levels(own[own["what"] == "read"].groupby("working_set_bytes")["bytes_per_s"].max())
        peak = own["flops_per_s"].max()
        top = max(point["speed"] for point in below) if math.isnan(peak) else peak
        low, high = (f(point["intensity"] for point in below) for f in (min, max))
        corners = sorted([low / 2, *(top / rate for rate in reads.values() if low / 2 < top / rate), high * 4])
        roofs += [
            {"roof": bytes_in_words(float(size)), "machine": name, "intensity": at, "speed": min(top, at * rate)}
            for size, rate in reads.items()
            for at in corners
        ]
    return roofs


def _levels(rates: pd.Series[Any]) -> dict[Any, float]:
    """Of bytes a second by working set those where the next, slower memory begins, the smallest set first."""
    kept: dict[Any, float] = {}
    for size, rate in rates.sort_index().items():
        if not kept or rate < NEXT_LEVEL * list(kept.values())[-1]:
            kept[size] = float(rate)
    return kept


def learning_curves(run: Run, order: Sequence[str]) -> Chart | None:
    """Training loss over epochs, a line a training."""
    known = run.trials[["trial", "variant", "task", "seed"]]
    own = run.curves.merge(known, on="trial")
    own = own[own["training_loss"].notna()]
    if own.empty:
        return None
    shown = first_variants(records(own), order)
    rows = [
        {"variant": row["variant"], "task": row["task"], "seed": int(row["seed"]), "trial": row["trial"]}
        | {"epoch": row["epoch"], "loss": row["training_loss"]}
        for row in records(own[own["variant"].isin(shown)])
    ]
    scale = LOG if all(row["loss"] > 0 for row in rows) else {"zero": False}
    encoding = {
        "x": {"field": "epoch", "type": "quantitative", "title": "epochs"},
        "y": {"field": "loss", "type": "quantitative", "title": "training loss", "scale": scale},
        "color": variant_colours(shown),
        "detail": nominal("trial"),
        "tooltip": tooltip("variant", "seed", "epoch", "loss"),
    }
    return Chart(
        "learning-curves",
        "Learning curves",
        "One line a seed: the mean training loss since the point before.",
        spec_of(rows, mark={"type": "line", "opacity": 0.8}, encoding=encoding, height=300, **choice_of("task", rows)),
        left_out(len(shown), own["variant"].nunique()),
    )


def server(run: Run, order: Sequence[str]) -> Chart | None:
    """The 99th percentile over the rate that was offered, probe by probe."""
    return _load_chart(
        run,
        order,
        "server",
        "rate_per_s",
        "Offered load and latency",
        "requests a second that were offered",
        "Every point is a probe. Left of a variant's last sustained probe it serves; right of it the queue grows. The "
        "dashed line is the bound.",
    )


def streams(run: Run, order: Sequence[str]) -> Chart | None:
    """The 99th percentile over the number of concurrent streams, probe by probe."""
    return _load_chart(
        run,
        order,
        "stream",
        "streams",
        "Streams and latency",
        "concurrent streams",
        "Every point is a probe. The dashed line is when the next chunk arrives.",
    )


def _load_chart(
    run: Run, order: Sequence[str], scenario: str, amount: str, title: str, axis: str, reading: str
) -> Chart | None:
    known = run.trials.loc[run.trials["scenario"].eq(scenario), ["trial", "variant", *SETTING]]
    own = run.loads.merge(known, on="trial")
    own = own[own[amount].notna() & own["p99_s"].gt(0)]
    if own.empty:
        return None
    shown, swept = first_variants(records(own), order), is_swept(run)
    rows: Rows = [
        {"variant": row["variant"], "task": place_of(row, swept), "offered": float(row[amount])}
        | {"latency": row["p99_s"], "verdict": row["verdict"], "bound": row["bound_s"]}
        | {"p99": seconds(row["p99_s"]), "slice": int(row["slice"])}
        for row in records(own[own["variant"].isin(shown)])
    ]
    x = {"field": "offered", "type": "quantitative", "scale": LOG, "title": axis, "axis": {"format": ".3~s"}}
    y = latency_axis("latency", "99th percentile, from the arrival")
    layers = [
        {
            "mark": {"type": "rule", "strokeDash": [4, 3], "color": "#848d97"},
            "encoding": {"y": y | {"field": "bound", "aggregate": "max"}},
        },
        {
            "mark": {"type": "point", "size": 60},
            "encoding": {
                "x": x,
                "y": y,
                "color": variant_colours(shown),
                "shape": {**nominal("verdict"), "title": "verdict", "legend": {"orient": "bottom"}},
                "tooltip": tooltip("variant", "offered", "p99", "verdict", "slice"),
            },
        },
    ]
    spec = spec_of(rows, layer=layers, height=340, **choice_of("task", rows))
    return Chart(f"load-{scenario}", title, reading, spec, left_out(len(shown), own["variant"].nunique()))


def _first_shapes(latency: pd.DataFrame) -> pd.DataFrame:
    """Of a sweep the first batch and length of every variant and scenario."""
    return latency.drop_duplicates(["variant", "scenario"])


def _unbeaten(rows: pd.DataFrame, higher: bool) -> set[str]:
    """The variants that no other beats: none is at least as good in latency and score and better in one."""
    known = [
        (row["single_stream_latency_s"], -row["score"] if higher else row["score"], row["variant"])
        for row in records(rows)
    ]
    return {
        name
        for latency, loss, name in known
        if not any(a <= latency and b <= loss and (a, b) != (latency, loss) for a, b, _ in known)
    }
