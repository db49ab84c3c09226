"""Charts: what they show is what the tables say, each is a specification the grammar takes, and no text acts in it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up_runs import Timed, five, write_run

from harness.charts import (
    MOST_BARS,
    accuracy_latency,
    distributions,
    ratios,
    roofline,
    run_charts,
    server,
    setting_charts,
    shapes,
)
from harness.store import Run, load
from harness.vega import MOST_LINES, Chart

vl_convert = pytest.importorskip("vl_convert")
REFERENCE = Path(__file__).parent.parent / "results" / "reference"
ORDER = ["a@r", "b@r", "c@r"]
HOSTILE = "a'\"]</script><b>@{datum.x}"


def values(chart: Chart | None) -> list[dict[str, Any]]:
    """The rows that a chart draws."""
    assert chart is not None
    rows: list[dict[str, Any]] = chart.spec["data"]["values"]
    return rows


def made_up(path: Path, *timed: Timed) -> Run:
    return load(write_run(path / "run", *timed))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    timed = [Timed("a@r", five(1e-3, 0.001)), Timed("b@r", five(5e-4, 0.002)), Timed("c@r", five(2e-3, 0.003))]
    return made_up(tmp_path, *timed)


def named(spec: Any, key: str) -> Iterator[Any]:
    """Every value of a key, wherever it stands outside of the data."""
    if isinstance(spec, dict):
        for name, value in spec.items():
            if name == key:
                yield value
            if name != "data":
                yield from named(value, key)
    elif isinstance(spec, list):
        for part in spec:
            yield from named(part, key)


class TestRatios:
    def test_every_row_with_a_verdict_has_its_ratio_and_both_ends(self, run: Run) -> None:
        drawn = {row["variant"]: row for row in values(ratios(run.latency, ORDER))}
        assert set(drawn) == {"b@r", "c@r"}
        known = run.latency[run.latency["boundary"].eq("compute") & run.latency["verdict"].notna()]
        for _, row in known.iterrows():
            shown = drawn[row["variant"]]
            assert shown["verdict"] == row["verdict"]
            for name in ("ratio", "ratio_low", "ratio_high"):
                assert math.isclose(shown[name], row[name], rel_tol=1e-5)

    def test_more_variants_than_a_reader_can_tell_apart_are_left_out_and_it_says_so(self, tmp_path: Path) -> None:
        names = ["a@r", *(f"v{number}@r" for number in range(MOST_BARS + 5))]
        run = made_up(tmp_path, *(Timed(name, five(1e-3, 0.001)) for name in names))
        chart = ratios(run.latency, names)
        assert chart is not None
        assert len(values(chart)) == MOST_BARS
        assert chart.left_out == f"The first {MOST_BARS} of {MOST_BARS + 5} variants, in the order of the table."

    def test_without_a_verdict_there_is_none(self, tmp_path: Path) -> None:
        assert ratios(made_up(tmp_path, Timed("a@r", five(1e-3))).latency, ["a@r"]) is None


class TestAccuracyLatency:
    COLUMNS = ("variant", "score", "single_stream_latency_s")

    def chart(self, *rows: tuple[str, float, float], metric: str = "accuracy", **ends: Any) -> Chart | None:
        table = pd.DataFrame(rows, columns=self.COLUMNS)
        names = ("single_stream_latency_low_s", "single_stream_latency_high_s", "score_low", "score_high")
        unknown = dict.fromkeys(names, math.nan) | ends
        return accuracy_latency(table.assign(metric=metric, architecture="lstm", **unknown))

    @pytest.mark.parametrize(("metric", "front"), [("accuracy", ["a", "c", "e"]), ("mean squared error", ["a", "b"])])
    def test_the_line_joins_those_that_none_beats_in_both(self, metric: str, front: list[str]) -> None:
        chart = self.chart(
            ("a", 0.90, 1e-3), ("b", 0.80, 2e-3), ("c", 0.95, 3e-3), ("d", 0.90, 4e-3), ("e", 0.95, 3e-3), metric=metric
        )
        assert [row["variant"] for row in values(chart) if row["front"]] == front

    @pytest.mark.parametrize("other", [0.9568, 0.951, 0.9622 + 1e-3])
    def test_scores_that_lie_close_together_have_an_axis_without_two_equal_labels(self, other: float) -> None:
        chart = self.chart(("a", 0.9622, 1e-3), ("b", other, 2e-3))
        assert chart
        labels = re.findall(r">([\d.]+%)<", vl_convert.vegalite_to_svg(chart.static))
        assert len(labels) > 3
        assert len(set(labels)) == len(labels)

    def test_an_interval_that_is_not_known_is_a_point(self) -> None:
        (row,) = values(self.chart(("a", 0.9, 1e-3)))
        assert (row["score_low"], row["score_high"], row["latency_low"], row["latency_high"]) == (0.9, 0.9, 1e-3, 1e-3)

    def test_a_score_may_have_an_interval_below_zero_and_a_latency_may_not(self) -> None:
        ends: dict[str, Any] = {
            "single_stream_latency_low_s": 0.0,
            "single_stream_latency_high_s": 2e-3,
            "score_low": -0.03,
        }
        (row,) = values(self.chart(("a", 0.02, 1e-3), score_high=0.07, **ends))
        assert (row["score_low"], row["score_high"]) == (-0.03, 0.07)
        assert (row["latency_low"], row["latency_high"]) == (1e-3, 2e-3)

    def test_who_has_no_score_or_no_latency_is_not_in_it(self) -> None:
        assert len(values(self.chart(("a", 0.9, 1e-3), ("b", math.nan, 1e-3), ("c", 0.9, math.nan)))) == 1
        assert self.chart(("b", math.nan, 1e-3)) is None


class TestDistributions:
    def test_each_line_rises_and_half_of_the_calls_lie_at_its_middle(self, run: Run) -> None:
        drawn = values(distributions(run, run.latency, ORDER))
        for variant, middle in (("a@r", 1e-3), ("b@r", 5e-4), ("c@r", 2e-3)):
            line = [(row["share"], row["latency"]) for row in drawn if row["variant"] == variant]
            assert line == sorted(line)
            assert math.isclose(dict(line)[0.5], middle, rel_tol=1e-4)

    def test_no_quantile_is_drawn_that_so_few_calls_do_not_hold(self, run: Run) -> None:
        calls = 15  # of each variant
        shares = {row["share"] for row in values(distributions(run, run.latency, ORDER))}
        assert 1 / calls <= min(shares) < max(shares) <= 1 - 1 / calls

    def test_the_first_calls_of_turns_do_not_count(self, run: Run) -> None:
        assert max(row["latency"] for row in values(distributions(run, run.latency, ORDER))) < 1.1 * 2e-3

    def test_no_more_lines_than_can_be_told_apart(self, tmp_path: Path) -> None:
        names = ["a@r", *(f"v{number}@r" for number in range(MOST_LINES))]
        run = made_up(tmp_path, *(Timed(name, five(1e-3, 0.001)) for name in names))
        chart = distributions(run, run.latency, names)
        assert {row["variant"] for row in values(chart)} == set(names[:MOST_LINES])
        assert chart
        assert chart.left_out.startswith(f"The first {MOST_LINES} of {MOST_LINES + 1}")


def swept(path: Path, **moved: list[int]) -> Run:
    """A run in which latency is a microsecond times all that is moved."""
    ((name, places),) = moved.items()
    timed = [
        Timed(variant, five(at * scale * 1e-6, 0.001), {"scenario": "offline", name: at})
        for variant, scale in (("a@r", 1), ("b@r", 2))
        for at in places
    ]
    return made_up(path, *timed)


class TestShapes:
    @pytest.mark.parametrize(("name", "chart"), [("batch", "latency-batch"), ("hidden_size", "latency-hidden-size")])
    def test_what_a_sweep_moved_has_a_chart_of_its_own(self, tmp_path: Path, name: str, chart: str) -> None:
        (found,) = shapes(swept(tmp_path, **{name: [1, 8, 64]}).latency, ["a@r", "b@r"])
        assert found.name == chart
        assert {(row["variant"], row["at"]): row["latency"] for row in values(found)} == {
            (variant, at): pytest.approx(at * scale * 1e-6, rel=1e-5)
            for variant, scale in (("a@r", 1), ("b@r", 2))
            for at in (1, 8, 64)
        }

    def test_every_task_has_its_line_and_it_is_said_what_stays_the_same(self, tmp_path: Path) -> None:
        timed = [
            Timed("a@r", five(at * 1e-6, 0.001), {"scenario": "offline", "batch": at, "task": task})
            for task in ("t", "u")
            for at in (1, 8)
        ]
        (found,) = shapes(made_up(tmp_path, *timed).latency, ["a@r"])
        labels = {row["scenario"] for row in values(found)}
        assert len(labels) == 2
        assert all("hidden size 6" in label and "threads 1" in label for label in labels)

    def test_without_a_sweep_there_is_none(self, run: Run) -> None:
        assert shapes(run.latency, ["a@r"]) == []


def test_what_a_run_does_not_know_has_no_chart(run: Run) -> None:
    assert run_charts(run, ORDER) == []
    assert [chart.name for chart in setting_charts(run, run.summary)] == ["ratios", "distributions"]


def all_charts(run: Run) -> list[Chart]:
    return [*setting_charts(run, run.summary), *run_charts(run, list(run.summary["variant"]))]


@pytest.mark.parametrize("name", ["tutorial", "scenarios"])
def test_the_grammar_takes_every_chart_of_a_published_run(name: str) -> None:
    run = load(REFERENCE / name)
    charts = all_charts(run)
    assert len(charts) >= 4
    for chart in charts:
        assert vl_convert.vegalite_to_vega(chart.static)["marks"]
        assert json.loads(json.dumps(chart.spec)) == chart.spec
        assert "NaN" not in json.dumps(chart.spec)


def test_the_scenarios_have_a_roof_and_a_queue() -> None:
    run = load(REFERENCE / "scenarios")
    order = list(run.summary["variant"])
    assert {"roofline", "learning-curves", "load-server", "load-stream"} <= {
        chart.name for chart in run_charts(run, order)
    }
    bounds = run.latency[run.latency["bound_s"].notna()]
    drawn = values(roofline(run, order))
    assert len(drawn) == len(bounds)
    products = run.machine["flops_per_s"].max()
    assert all(row["speed"] < products for row in drawn)
    probes = run.loads[run.loads["rate_per_s"].notna() & run.loads["p99_s"].gt(0)]
    assert len(values(server(run, order))) == len(probes)


def test_what_strangers_call_their_things_is_data_and_nothing_else(tmp_path: Path) -> None:
    run = made_up(tmp_path, Timed("a@r", five(1e-3, 0.001)), Timed(HOSTILE, five(2e-3, 0.001)))
    charts = all_charts(run)
    assert charts
    for chart in charts:
        assert HOSTILE in {row["variant"] for row in values(chart)}
        acting = [text for key in ("field", "filter", "labelExpr", "title", "name") for text in named(chart.spec, key)]
        assert acting
        assert not [text for text in acting if HOSTILE in str(text)]
        assert vl_convert.vegalite_to_svg(chart.static).count("</script") == 0


def test_a_picture_has_a_width_of_its_own_and_nothing_to_choose_with(run: Run) -> None:
    for chart in all_charts(run):
        assert chart.spec["width"] == "container"
        title = chart.static.get("title", {"text": ""})["text"]
        assert title == chart.shown_first
        assert isinstance(chart.static["width"], int)
        assert not list(named(chart.static, "bind"))


def test_a_picture_says_which_of_several_it_shows(tmp_path: Path) -> None:
    both = [Timed(name, five(1e-3, 0.001), row) for row in ({}, {"scenario": "offline"}) for name in ("a@r", "b@r")]
    chart = ratios(made_up(tmp_path, *both).latency, ORDER)
    assert chart
    assert chart.shown_first == "single-stream"
    assert "single-stream" in vl_convert.vegalite_to_svg(chart.static)


def test_a_variant_keeps_its_colour_whatever_is_chosen(run: Run) -> None:
    chart = distributions(run, run.latency, ORDER)
    assert chart
    assert chart.spec["encoding"]["color"]["scale"]["domain"] == ORDER
