"""Pieces of Vega-Lite that charts are made of: a specification with its data, axes, colours and lists to choose from.

The grammar: Satyanarayan, Moritz, Wongsuphasawat & Heer, "Vega-Lite: a grammar of interactive graphics", IEEE TVCG
2017. What strangers call their things is data in it, never a field, an expression or a title.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contract import printable

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
MOST_LINES = 20  # variants whose lines in one chart a reader can still tell apart
SECONDS = (
    "datum.value >= 1 ? format(datum.value, '.3~g') + ' s' : datum.value >= 9.99e-4 ? "
    "format(datum.value * 1e3, '.3~g') + ' ms' : datum.value >= 9.99e-7 ? format(datum.value * 1e6, '.3~g') + ' µs' : "
    "format(datum.value * 1e9, '.3~g') + ' ns'"
)
BETTER, WORSE = "#2da44e", "#e5534b"
NEITHER = {"same": "#848d97", "undecided": "#bf8700"}
VERDICTS = {  # of a metric, with their colours
    "latency": {"faster": BETTER, "slower": WORSE, **NEITHER},
    "capacity": {"carries more": BETTER, "carries less": WORSE, **NEITHER},
}
RATIOS = {
    "latency": ["ratio of latencies:", "left of 1 is faster"],
    "capacity": ["ratio of capacities:", "right of 1 carries more"],
}
STATIC_WIDTH = 720  # pixels of a picture; on a page a chart is as wide as its place

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

LOG: Spec = {"type": "log", "nice": False, "padding": 16}
EVERY = "all"  # of a list of variants


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: for files and anchors, such as `accuracy-latency`.
        title: what it shows.
        reading: one or two sentences: how to read it.
        spec: the Vega-Lite specification, data included; its width is that of its place.
        left_out: what of the table it does not show, or empty.
    """

    name: str
    title: str
    reading: str
    spec: Spec
    left_out: str = ""

    @property
    def shown_first(self) -> str:
        """Of what can be chosen, what is shown until somebody does: `single-stream`; empty where there is no choice."""
        chosen = [param["value"] for param in self.spec.get("params", []) if "bind" in param]
        return ", ".join(value for value in chosen if value != EVERY)

    @property
    def static(self) -> Spec:
        """The specification for a picture: a fixed width, nothing to choose with, and what is shown in words."""
        spec = copy.deepcopy(self.spec) | {"width": STATIC_WIDTH}
        for chosen in spec.get("params", []):
            chosen.pop("bind", None)
        return spec | ({"title": {"text": self.shown_first, "anchor": "start"}} if self.shown_first else {})


def spec_of(rows: Rows, **parts: Any) -> Spec:
    """A specification with its data in it."""
    tidy = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return {"$schema": SCHEMA, "width": "container", "data": {"values": tidy}, **parts}


def _plain(value: Any) -> Any:
    """What JSON can carry, with as many digits as a picture shows."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def ratio_spec(rows: Rows, shown: Sequence[str], metric: str = "latency", **parts: Any) -> Spec:
    """Ratios with their intervals, a row a variant, coloured and shaped by their verdicts.

    Args:
        rows: each with `variant`, `ratio`, `ratio_low`, `ratio_high`, `verdict`, and for its tooltip `interval`,
            `scenario`, `against` and one of the metric's name.
        shown: the variants, from above.
        metric: `latency` or `capacity`.
        parts: what else the specification has.
    """
    words, colours = list(VERDICTS[metric]), list(VERDICTS[metric].values())
    legend = {"orient": "top", "title": None}
    base: Spec = {
        "y": {"field": "variant", "type": "nominal", "sort": texts(shown), "title": None, "axis": {"labelLimit": 240}},
        "color": {
            **nominal("verdict"),
            "scale": {"domain": words, "range": colours},
            "legend": legend,
        },
    }
    x = {
        "field": "ratio",
        "type": "quantitative",
        "scale": LOG,
        "title": RATIOS[metric],
        "axis": {"format": ".3~g"},
    }
    layers = [
        {"mark": {"type": "rule", "strokeDash": [4, 3], "color": "#848d97"}, "encoding": {"x": {"datum": 1}}},
        {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {**base, **range_along("x", "ratio", x)}},
        {
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {
                **base,
                "x": x,
                "shape": {**nominal("verdict"), "scale": {"domain": words}, "legend": legend},
                "tooltip": tooltip("variant", "scenario", "interval", "verdict", metric, "against"),
            },
        },
    ]
    return spec_of(rows, layer=layers, height=24 * len(shown), **parts)


def texts(names: Sequence[str]) -> list[str]:
    """Names as they stand in the data."""
    return [printable(name) for name in names]


def nominal(name: str) -> Spec:
    """A field of names."""
    return {"field": name, "type": "nominal"}


def variant_colours(shown: Sequence[str]) -> Spec:
    """The colours of variants, whichever of them a chart shows at the moment, with a legend below."""
    scheme = "tableau10" if len(shown) <= 10 else "tableau20"
    legend = {"orient": "bottom", "title": None, "labelLimit": 220}
    return {**nominal("variant"), "scale": {"domain": texts(shown), "scheme": scheme}, "legend": legend}


def first_variants(rows: Rows, order: Sequence[str], most: int = MOST_LINES) -> list[str]:
    """The variants of rows, in the order of the tables, as many lines as a reader can tell apart."""
    there = {row["variant"] for row in rows}
    return [name for name in order if name in there][:most]


def latency_axis(field: str, title: str) -> Spec:
    """A logarithmic axis of seconds, told in the unit that fits."""
    axis = {"labelExpr": SECONDS, "tickCount": 6}
    return {"field": field, "type": "quantitative", "scale": LOG, "title": title, "axis": axis}


def range_along(channel: str, name: str, axis: Mapping[str, Any]) -> Spec:
    """Both ends of an interval along an axis."""
    return {channel: dict(axis) | {"field": f"{name}_low"}, f"{channel}2": {"field": f"{name}_high"}}


def ends(row: Mapping[str, Any], name: str, *columns: str, logarithmic: bool = True) -> dict[str, Any]:
    """The ends of a row's interval, or its value where it has none or where a logarithmic axis has no place for it."""
    value, low, high = columns or (name, f"{name}_low", f"{name}_high")

    def end(column: str) -> Any:
        return row[value] if math.isnan(row[column]) or (logarithmic and row[column] <= 0) else row[column]

    return {f"{name}_low": end(low), f"{name}_high": end(high)}


def tooltip(*names: str) -> list[Spec]:
    """What is told of a mark that is pointed at."""
    return [{"field": name, "title": name} for name in names]


def choice_of(name: str, rows: Rows) -> Spec:
    """A list to choose from where there are several, and the rows of the one that is chosen."""
    options = [printable(value) for value in dict.fromkeys(row[name] for row in rows)]
    chosen: Spec = {"name": f"chosen_{name}", "value": options[0]}
    if len(options) > 1:
        chosen["bind"] = {"input": "select", "options": options, "name": f"{name} "}
    return {"params": [chosen], "transform": [{"filter": f"datum.{name} === chosen_{name}"}]}


def left_out(shown: int, there: int) -> str:
    """What a chart that shows the first variants says of the others."""
    return f"The first {shown} of {there} variants, in the order of the table." if there > shown else ""
