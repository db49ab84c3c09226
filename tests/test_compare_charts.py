"""Charts of comparisons and histories show what their records say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_up_runs import ENVIRONMENT, Timed, five, probes_of, write_loads, write_run

from harness.attempts import NOT_INSTALLED, Attempt
from harness.compare import Comparison, compare_all
from harness.compare_charts import comparison_chart, comparison_charts, history_chart, load_chart, matrix_chart
from harness.history import Meant, history
from harness.matrix import Matrix, matrix, measured
from harness.sides import Side, side_of
from harness.store import load

vl_convert = pytest.importorskip("vl_convert", reason="the extra `html` is not installed")


@pytest.fixture
def sides(tmp_path: Path) -> list[Side]:
    """Three runs in which b is as fast as a, twice as slow, and three times as slow."""
    found = []
    for number in (1, 2, 3):
        facts = ENVIRONMENT | {"started_utc": datetime(2026, 1, number, tzinfo=UTC).isoformat()}
        timed = (Timed("a@r", five(1e-3, 0.001)), Timed("b@r", five(number * 1e-3, 0.001)))
        found.append(side_of(load(write_run(tmp_path / f"run{number}", *timed, environment=facts))))
    return found


def test_every_ratio_of_every_further_run_is_drawn_with_its_verdict(sides: list[Side]) -> None:
    compared: list[Comparison] = list(compare_all(sides[0], sides[1:], allow_different=False))
    chart = comparison_chart(compared)
    assert chart
    drawn = chart.spec["data"]["values"]
    rows = [row for each in compared for row in each.rows]
    assert [(row["variant"], row["verdict"]) for row in drawn] == [(r.point.variant, r.verdict) for r in rows]
    assert [row["ratio"] for row in drawn] == pytest.approx([row.estimate.value for row in rows], rel=1e-5)
    assert all(row["ratio_low"] < row["ratio"] < row["ratio_high"] for row in drawn)
    assert len({row["scenario"] for row in drawn}) == 4  # two boundaries in two further runs
    assert vl_convert.vegalite_to_vega(chart.static)


def test_capacities_have_a_chart_of_their_own_with_their_own_words(tmp_path: Path) -> None:
    found = []
    for factor in (1.0, 0.5):
        own = {slice_: probes_of(factor * rate) for slice_, rate in enumerate((90.0, 100.0, 110.0), start=1)}
        found.append(side_of(load(write_loads(tmp_path / str(factor), {"a@r": own}))))
    compared = compare_all(found[0], found[1:], allow_different=False)
    chart = load_chart(compared)
    assert chart
    assert comparison_charts(compared) == [chart]  # of latencies there are none
    (drawn,) = chart.spec["data"]["values"]
    assert (drawn["ratio"], drawn["verdict"]) == (pytest.approx(0.5), "carries less")
    assert (drawn["capacity"], drawn["against"]) == ("49.8/s", "99.7/s")
    text = str(chart.spec)
    assert "right of 1 carries more" in text
    assert "faster" not in text
    assert vl_convert.vegalite_to_vega(chart.static)


def test_a_history_has_a_point_for_every_latency(sides: list[Side]) -> None:
    chart = history_chart(history(sides, Meant()))
    assert chart
    drawn = {(row["variant"], row["began"][:10]): row["latency"] for row in chart.spec["data"]["values"]}
    assert drawn == {
        (variant, f"2026-01-0{number}"): pytest.approx(1e-3 * (number if variant == "b@r" else 1), rel=1e-5)
        for variant in ("a@r", "b@r")
        for number in (1, 2, 3)
    }
    assert vl_convert.vegalite_to_vega(chart.static)


def matrix_of(tmp_path: Path, *versions: dict[str, str]) -> Matrix:
    """Runs in which a call takes 1, 2, 3 ms, of which the second is not ok; and a version that was not installed."""
    runs = []
    for number, own in enumerate(versions, start=1):
        facts = ENVIRONMENT | {"started_utc": datetime(2026, 1, number, tzinfo=UTC).isoformat(), "versions": own}
        timed = Timed("a@r", five(number * 1e-3, 0.001), status="wrong" if number == 2 else "ok")
        runs.append(measured(load(write_run(tmp_path / f"m{number}", timed, environment=facts)), None))
    failed = Attempt(tmp_path / "x", datetime(2026, 1, 9, tzinfo=UTC), ("lib==0.9",), NOT_INSTALLED, "there is none")
    return matrix(runs, [failed])


def test_a_matrix_has_a_point_for_every_latency_and_a_place_for_every_column(tmp_path: Path) -> None:
    chart = matrix_chart(matrix_of(tmp_path, {"lib": "1.9"}, {"lib": "1.10"}, {"lib": "2.0"}))
    assert chart
    drawn = [(row["variant"], row["versions"], row["verdict"]) for row in chart.spec["data"]["values"]]
    assert drawn == [("a@r", "1.9", ""), ("a@r", "2.0", "slower")]
    x = chart.spec["layer"][1]["encoding"]["x"]
    assert (x["title"], x["sort"]) == ("lib", ["==0.9", "1.9", "1.10", "2.0"])
    assert vl_convert.vegalite_to_vega(chart.static)


def test_of_nothing_there_is_no_chart(tmp_path: Path) -> None:
    empty = matrix_of(tmp_path, {"lib": "1"})
    assert matrix_chart(replace(empty, rows={})) is None
    assert comparison_chart([]) is None
    assert history_chart([]) is None
