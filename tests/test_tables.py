"""Tables: from known samples to exact estimates; a wrong variant has no latency; what was timed together is paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import write_processes

from harness import estimates, stats
from harness.estimates import Key
from harness.samples import SAMPLE_COLUMNS
from harness.schema import STATUSES, TRIAL_COLUMNS
from harness.store import Run, RunFolder, load
from harness.tables import (
    CALIBRATION_COLUMNS,
    LATENCY_COLUMNS,
    STATUS_ORDER,
    by_setting,
    instance_medians,
    looks,
    of_setting,
    records,
)
from harness.verdicts import FASTER, SAME, SLOWER, UNDECIDED, judge

A, B = "a@r", "b@r"
Seconds = Mapping[Any, Sequence[float]]  # by (slice, process, instance), or by process where each has a slice


def key_of(place: int | Key) -> Key:
    return (place, place, 1) if isinstance(place, int) else place


class Sheet:
    """A run made by hand."""

    def __init__(self, path: Path, floors: tuple[str, ...] = (), **latency: Any) -> None:
        self._path = path
        self.header = {"name": "made by hand", "baselines": {"lstm": A}, "floors": floors, "plugins": []}
        self.header |= {"environment": {"versions": {}}, "suite": {"latency": latency}}
        self._trials: list[dict[str, Any]] = []
        self._ends: list[dict[str, Any]] = []
        self._samples: dict[str, list[list[Any]]] = {}

    def has(self, variant: str) -> bool:
        return any(trial["variant"] == variant for trial in self._trials)

    def trial(self, kind: str, variant: str, status: str = "ok", samples: Any = None, **given: Any) -> str:
        name = f"{len(self._trials) + 1:04d}-{kind}"
        observed = ("parity", "gradients", "scores", "instances", "reason")
        record: dict[str, Any] = {key: given.pop(key) for key in observed if key in given}
        model, _, rest = variant.partition("@")
        runtime, _, python = rest.removesuffix("]").partition("[")
        self._trials.append(
            dict.fromkeys(TRIAL_COLUMNS[:-3])
            | {"trial": name, "kind": kind, "variant": variant, "model": model, "runtime": runtime, "task": "t"}
            | {"python": python or None, "architecture": "lstm", "input_size": 3, "hidden_size": 6, "num_layers": 1}
            | {"device": "cpu", "dtype": "float32", "threads": 1, "twin": 0}
            | given
        )
        self._ends.append({"trial": name, "status": status, "reason": "", **record})
        if samples:
            self._samples[name] = samples
        return name

    def latency(
        self,
        variant: str,
        seconds: Seconds,
        status: str = "ok",
        kind: str = "latency",
        disturbed: Sequence[Any] = (),
        boundaries: Sequence[str] = ("compute", "end-to-end"),
        **given: Any,
    ) -> str:
        """A latency trial: of each instance the elapsed times, end to end one second more.

        Before them stands the first call of the turn, a million seconds long, which no estimate may be made of. All
        instances are marked as disturbed in the same calls.
        """
        rows: list[list[Any]] = []
        marks = [*disturbed, *[0] * 1000]
        for place, values in seconds.items():
            for call, value in enumerate([1e6, *values]):
                at = key_of(place)
                for turn, boundary in enumerate(boundaries):
                    elapsed = value + (boundary == "end-to-end")
                    rows.append([*at, boundary, 0, turn, call, float(call), elapsed, marks[call]])
        given = {"scenario": "single-stream", "batch": 1, "time": 5, "baseline": A} | given
        return self.trial(kind, variant, status, samples=rows, **given)

    def run(self) -> Run:
        folder = RunFolder(self._path, {**self.header, "trials": self._trials})
        write_processes(folder, self._samples)
        for end in self._ends:
            folder.append(end)
        folder.close()
        return load(self._path)


def times(seconds: Mapping[Any, float], factor: float = 1.0) -> dict[Any, list[float]]:
    """Three equal calls of every instance."""
    return {place: [factor * value] * 3 for place, value in seconds.items()}


def spread_out(percents: Sequence[float], seconds: float = 1.0) -> dict[Key, float]:
    """One instance in each of as many processes and slices: the medians, so many percent slower."""
    return {(s, s, 1): seconds * (1 + percent / 100) for s, percent in enumerate(percents, start=1)}


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    return Sheet(tmp_path / "run")


def row_of(table: pd.DataFrame, **where: Any) -> dict[str, Any]:
    rows = [row for row in records(table) if all(row[name] == value for name, value in where.items())]
    assert len(rows) == 1
    return rows[0]


def score(value: float, **given: Any) -> list[dict[str, Any]]:
    return [{"metric": "accuracy", "score": value, "rows": 10, "trainer_score": None, "agreeing_rows": None} | given]


# ------------------------------------------------------------------------------------------------------- medians


INSTANCE = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 2))
CALLS = st.tuples(st.sampled_from(["x", "y"]), INSTANCE, st.sampled_from(["compute", "end-to-end"]), st.integers(0, 3))


@given(calls=st.lists(st.tuples(CALLS, st.floats(1e-7, 1e3)), min_size=1, max_size=60))
def test_instance_medians_leave_the_first_calls_out_and_keep_everything_apart(calls: list[tuple[Any, float]]) -> None:
    rows = [[trial, *at, boundary, 0, 0, call, 0.0, s, 0] for (trial, at, boundary, call), s in calls]
    expected: dict[tuple[str, str], dict[Key, list[float]]] = {}
    for (trial, at, boundary, call), seconds in calls:
        if call > 0:
            expected.setdefault((trial, boundary), {}).setdefault(at, []).append(seconds)
    assert instance_medians(pd.DataFrame(rows, columns=SAMPLE_COLUMNS)) == {
        of: {at: median(values) for at, values in own.items()} for of, own in expected.items()
    }


def test_the_first_call_of_a_turn_is_recorded_and_no_estimate_is_made_of_it(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0] * 100, 2: [1.0] * 100})
    run = sheet.run()
    assert set(run.samples.loc[run.samples["boundary"] == "compute", "elapsed_s"]) == {1.0, 1e6}
    row = row_of(run.latency, boundary="compute")
    assert row["samples"] == 200
    for name in ("latency_s", "median_s", "mean_s", "process_low_s", "process_high_s", "p50_s", "p90_bound_s", "p99_s"):
        assert row[name] == pytest.approx(1.0)


def test_an_instance_in_which_the_clock_stood_still_is_counted_and_has_no_median(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [0.0, 0.0, 1.0], 2: [1.0] * 3, 3: [1.0] * 3})
    row = row_of(sheet.run().latency, boundary="compute")
    assert (row["latency_s"], row["process_low_s"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (row["instances"], row["samples"]) == (3, 9)


def test_where_the_clock_never_moved_there_is_a_row_without_a_latency(sheet: Sheet) -> None:
    for variant in (A, B):
        sheet.trial("parity", variant)
        sheet.latency(variant, {1: [0.0] * 3, 2: [0.0] * 3})
    for row in records(sheet.run().latency.query("boundary == 'compute'")):
        assert row["samples"] == 6
        assert all(math.isnan(row[name]) for name in ("latency_s", "median_s", "throughput_per_s", "half_width"))
        assert pd.isna(row["verdict"])


# ------------------------------------------------------------------------------------------------------- latency


def test_the_latency_is_the_geometric_mean_of_the_instances_medians(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0, 2.0, 9.0], 2: [7.0, 8.0, 100.0]}, batch=4)
    row = row_of(sheet.run().latency, boundary="compute")
    assert row["latency_s"] == pytest.approx(4.0, rel=1e-12)
    half = (
        12.706204736174698 * math.log(8 / 2) / 2
    )  # t(1) at 97.5 %, times the error of two logarithms: their half range
    assert row["latency_low_s"] == pytest.approx(4 * math.exp(-half), rel=1e-9)
    assert row["latency_high_s"] == pytest.approx(4 * math.exp(half), rel=1e-9)
    assert row["latency_unit"] == "process"
    assert row["median_s"] == pytest.approx(5.0)
    assert row["mean_s"] == pytest.approx(127 / 6)
    assert (row["slices"], row["processes"], row["instances"], row["samples"]) == (2, 2, 2, 6)
    assert (row["process_low_s"], row["process_high_s"]) == (pytest.approx(2.0), pytest.approx(8.0))
    assert row["throughput_per_s"] == pytest.approx(1.0)
    assert row["throughput_low_per_s"] == pytest.approx(4 / row["latency_high_s"])
    assert row["throughput_high_per_s"] == pytest.approx(4 / row["latency_low_s"])


def test_one_process_has_a_latency_without_an_interval(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, times({(1, 1, 1): 1.0, (1, 1, 2): 4.0}))
    row = row_of(sheet.run().latency, boundary="compute")
    assert row["latency_s"] == pytest.approx(2.0)
    for name in ("latency_low_s", "latency_high_s", "throughput_low_per_s", "throughput_high_per_s", "half_width"):
        assert math.isnan(row[name])
    assert row["precision_met"] is None


def test_slices_processes_and_instances_are_counted_each(sheet: Sheet) -> None:
    """In the second slice the worker died once, so that a third process tried again."""
    places = [(1, 1, 1), (1, 1, 2), (2, 2, 1), (2, 3, 1), (2, 3, 2), (2, 3, 3)]
    sheet.trial("parity", A)
    sheet.latency(A, {place: [1.0] * 4 for place in places})
    row = row_of(sheet.run().latency, boundary="compute")
    assert (row["slices"], row["processes"], row["instances"], row["samples"]) == (2, 3, 6, 24)


def test_the_unit_of_a_latency_is_the_instance_or_the_process_as_the_data_say(sheet: Sheet) -> None:
    places = [(s, s, i) for s in range(1, 6) for i in (1, 2)]
    sheet.trial("parity", A)
    sheet.trial("parity", B)
    sheet.latency(A, times({place: 1.0 if place[2] == 1 else 4.0 for place in places}))
    sheet.latency(B, times({place: 10.0 * place[0] + 0.01 * place[2] for place in places}))
    latency = sheet.run().latency.query("boundary == 'compute'")
    alike, apart = row_of(latency, variant=A), row_of(latency, variant=B)
    assert (alike["latency_unit"], apart["latency_unit"]) == ("instance", "process")
    half = 2.2621571627409915 * math.log(2) / 3  # t(9) times √(10 / 9) · ln 2 / √10
    assert alike["latency_low_s"] == pytest.approx(2 * math.exp(-half))
    assert (alike["process_low_s"], alike["process_high_s"]) == (pytest.approx(2.0), pytest.approx(2.0))


def test_both_boundaries_are_kept_apart(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0] * 3, 2: [1.0] * 3})
    run = sheet.run()
    assert run.latency["boundary"].tolist() == ["compute", "end-to-end"]
    assert row_of(run.latency, boundary="compute")["latency_s"] == pytest.approx(1)
    assert row_of(run.latency, boundary="end-to-end")["latency_s"] == pytest.approx(2)
    summary = row_of(run.summary)
    assert summary["single_stream_latency_s"] == pytest.approx(1)
    assert summary["single_stream_end_to_end_s"] == pytest.approx(2)
    assert math.isnan(summary["offline_latency_s"])


def test_rows_stand_in_the_order_of_the_trials_compute_before_end_to_end(sheet: Sheet) -> None:
    names = [sheet.latency(variant, {1: [1.0], 2: [1.0]}) for variant in (B, A, "c@r")]
    table = sheet.run().latency
    assert table["trial"].tolist() == [name for name in names for _ in range(2)]
    assert table["boundary"].tolist() == ["compute", "end-to-end"] * 3


def test_percentiles_are_of_all_samples_and_have_a_bound_only_where_there_are_enough(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.trial("parity", B)
    few = [float(k) for k in range(1, 32)]
    sheet.latency(A, {1: few, 2: few})
    many = [float(k) for k in range(1, 401)]
    sheet.latency(B, {1: many, 2: many})
    latency = sheet.run().latency
    little = row_of(latency, variant=A, boundary="compute")
    assert little["samples"] == 62 < stats.samples_needed(0.9)
    assert little["p50_s"] == pytest.approx(16.0)
    assert little["p50_s"] < little["p50_bound_s"] <= 31
    assert little["p90_s"] == pytest.approx(28.0, abs=0.2)
    assert little["p999_s"] == pytest.approx(31.0)
    assert all(math.isnan(little[f"{name}_bound_s"]) for name in ("p90", "p99", "p999"))
    much = row_of(latency, variant=B, boundary="compute")
    assert much["p90_s"] < much["p90_bound_s"] <= 400
    assert much["p99_s"] <= much["p99_bound_s"] <= 400
    assert much["p999_s"] == pytest.approx(400, abs=0.5)
    assert much["samples"] == 800 < stats.samples_needed(0.999)
    assert math.isnan(much["p999_bound_s"])


def test_with_enough_samples_p999_has_its_bound_too(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    calls = [1.0 + k / 700 for k in range(700)]
    sheet.latency(A, {(s, s, i): calls for s in (1, 2) for i in range(1, 6)})
    row = row_of(sheet.run().latency, boundary="compute")
    assert row["samples"] == 7000 > stats.samples_needed(0.999)
    assert row["p50_s"] <= row["p90_s"] <= row["p99_s"] <= row["p999_s"] <= row["p999_bound_s"] <= 2.0
    for name in ("p50", "p90", "p99"):
        assert row[f"{name}_s"] <= row[f"{name}_bound_s"] < row["p999_bound_s"]


def test_disturbed_samples_are_counted_and_kept_and_first_calls_and_unknown_ones_are_not_counted(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0, 9.0, 1.0, 1.0], 2: [1.0, 9.0, 1.0, 1.0]}, disturbed=[1, 0, 1, "", 1])
    for row in records(sheet.run().latency):
        assert (row["samples"], row["disturbed_samples"]) == (8, 4)
        assert row["p999_s"] > 8


def test_where_nothing_is_known_of_disturbances_none_is_counted(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0, 1.0]}, disturbed=["", "", ""])
    assert sheet.run().latency["disturbed_samples"].tolist() == [0, 0]


def test_instances_that_never_settled_are_counted_by_trial(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    warm = {"slice": 1, "process": 1, "warmup_calls": 20}
    steady = [warm | {"instance": number, "is_steady": number > 2} for number in range(1, 6)]
    sheet.latency(A, {1: [1.0, 1.0]}, instances=steady)
    sheet.latency(B, {1: [1.0, 1.0]}, instances=[warm | {"instance": 1, "is_steady": True}])
    sheet.latency("c@r", {1: [1.0, 1.0]})
    assert sheet.run().latency["unsteady_instances"].tolist() == [2, 2, 0, 0, 0, 0]


def test_the_autocorrelation_is_that_of_calls_within_an_instance_and_not_of_levels(sheet: Sheet) -> None:
    """1, 2, 1, 2, 1, 2 has minus five sixths; that the second instance is ten times slower must not show."""
    sheet.trial("parity", A)
    sheet.latency(A, {(1, 1, 1): [1.0, 2.0] * 3, (1, 1, 2): [10.0, 20.0] * 3, (1, 1, 3): [5.0] * 6})
    assert row_of(sheet.run().latency, boundary="compute")["autocorrelation"] == pytest.approx(-5 / 6)


def test_calls_that_are_all_equal_have_no_autocorrelation(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0] * 6, 2: [2.0] * 6})
    assert math.isnan(row_of(sheet.run().latency, boundary="compute")["autocorrelation"])


def test_an_interval_that_knows_next_to_nothing_is_wide_and_not_an_error(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1e-300] * 3, 2: [1e300] * 3})
    row = row_of(sheet.run().latency, boundary="compute")
    assert (row["latency_low_s"], row["latency_high_s"]) == (0.0, math.inf)
    assert (row["throughput_low_per_s"], row["throughput_high_per_s"]) == (0.0, math.inf)


# ------------------------------------------------------------------------------------------------------- ratios


def test_a_ratio_is_paired_by_instance_and_not_by_place(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.trial("parity", B)
    sheet.latency(A, {1: [1.0], (2, 2, 1): [10.0], (2, 2, 2): [50.0], 3: [100.0]})
    sheet.latency(B, {3: [200.0], 1: [2.0], (2, 2, 2): [100.0], (2, 2, 1): [20.0]})
    row = row_of(sheet.run().latency, variant=B, boundary="compute")
    assert (row["baseline"], row["ratio_unit"]) == (A, "process")
    for name in ("ratio", "ratio_low", "ratio_high"):
        assert row[name] == pytest.approx(2.0, rel=1e-12)  # the same in every instance: no spread is left


def test_an_instance_that_only_one_of_the_two_has_is_left_out_of_the_ratio(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.trial("parity", B)
    sheet.latency(A, {1: [1.0], 2: [10.0]})
    sheet.latency(B, {1: [3.0], 2: [30.0], (2, 2, 2): [1e9], 3: [1e9]})
    assert row_of(sheet.run().latency, variant=B, boundary="compute")["ratio"] == pytest.approx(3.0)


def test_across_runtimes_the_slice_is_the_unit_of_a_ratio(sheet: Sheet) -> None:
    """Each slice has another ratio of geometric means: 1, 2 and 4; processes of their own, instances in any number."""
    other = "a@other"
    sheet.trial("parity", A)
    sheet.trial("parity", other)
    sheet.latency(A, times({(1, 1, 1): 1.0, (1, 1, 2): 4.0, (2, 4, 1): 3.0, (3, 5, 1): 1.0}))
    sheet.latency(other, times({(1, 2, 1): 2.0, (2, 3, 1): 6.0, (3, 6, 1): 2.0, (3, 6, 2): 8.0}))
    row = row_of(sheet.run().latency, variant=other, boundary="compute")
    assert (row["ratio"], row["ratio_unit"]) == (pytest.approx(2.0), "slice")
    half = 4.302652729911275 * math.log(2) / math.sqrt(3)  # t(2) at 97.5 %
    assert row["ratio_low"] == pytest.approx(2 * math.exp(-half))
    assert row["ratio_high"] == pytest.approx(2 * math.exp(half))
    assert row["half_width"] == pytest.approx(math.exp(half) - 1)


def test_who_tried_again_in_a_process_of_its_own_stays_in_its_slice(sheet: Sheet) -> None:
    """The shared worker died in every slice; then each was timed alone."""
    sheet.trial("parity", A)
    sheet.trial("parity", B)
    sheet.latency(A, times({(1, 2, 1): 1.0, (1, 2, 2): 1.0, (2, 5, 1): 7.0, (2, 5, 2): 7.0}))
    sheet.latency(B, times({(1, 3, 1): 2.0, (1, 3, 2): 2.0, (2, 6, 1): 14.0, (2, 6, 2): 14.0}))
    row = row_of(sheet.run().latency, variant=B, boundary="compute")
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (pytest.approx(2.0),) * 3
    assert row["ratio_unit"] == "slice"


def test_the_baseline_is_one_times_itself_and_has_no_verdict(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0], 2: [10.0]})
    row = row_of(sheet.run().latency, boundary="compute")
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (1.0, 1.0, 1.0)
    assert pd.isna(row["verdict"])
    assert pd.isna(row["ratio_unit"])


def test_every_trial_is_compared_with_its_own_baseline(sheet: Sheet) -> None:
    """Two interpreters: each variant in the new one is held against itself in the old one, and never across."""
    for variant, seconds in (("a@r[old]", 1.0), ("a@r[new]", 2.0), ("b@r[old]", 5.0), ("b@r[new]", 15.0)):
        sheet.trial("parity", variant)
        places = [(s, 2 * s + ("new" in variant), i) for s in (1, 2, 3) for i in (1, 2)]
        medians = {place: seconds * place[0] for place in places}
        sheet.latency(variant, times(medians), baseline=f"{variant[:3]}[old]")
    run = sheet.run()
    rows = {row["variant"]: row for row in records(run.latency) if row["boundary"] == "compute"}
    assert {name: row["baseline"] for name, row in rows.items()} == {name: f"{name[:3]}[old]" for name in rows}
    assert [rows[name]["ratio"] for name in rows] == [1.0, pytest.approx(2.0), 1.0, pytest.approx(3.0)]
    assert [rows[name]["ratio_unit"] for name in ("a@r[new]", "b@r[new]")] == ["slice", "slice"]
    assert run.summary["baseline"].tolist() == ["a@r[old]", "a@r[old]", "b@r[old]", "b@r[old]"]
    assert run.summary["single_stream_ratio"].tolist() == [1.0, pytest.approx(2.0), 1.0, pytest.approx(3.0)]
    assert run.trials["python"].dropna().tolist() == ["old", "old", "new", "new"] * 2


@pytest.mark.parametrize("how", ["none", "wrong", "another batch", "another task", "no samples"])
def test_without_the_baselines_own_numbers_there_is_no_ratio(sheet: Sheet, how: str) -> None:
    sheet.trial("parity", B)
    if how == "another batch":
        sheet.latency(A, {1: [1.0], 2: [1.0]}, batch=2)
    elif how == "another task":
        sheet.latency(A, {1: [1.0], 2: [1.0]}, task="u")
    elif how != "none":
        sheet.latency(A, {1: [1.0], 2: [1.0]} if how == "wrong" else {}, status="wrong" if how == "wrong" else "ok")
    sheet.latency(B, {1: [2.0], 2: [2.0]})
    row = row_of(sheet.run().latency, variant=B, boundary="compute")
    assert row["baseline"] == A
    assert all(math.isnan(row[name]) for name in ("ratio", "ratio_low", "ratio_high", "half_width"))
    assert all(pd.isna(row[name]) for name in ("ratio_unit", "precision_met", "verdict"))
    assert row["latency_s"] == pytest.approx(2.0)


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ok"])
def test_a_trial_that_is_not_ok_has_no_latency_anywhere_although_it_has_samples(sheet: Sheet, status: str) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0] * 3, 2: [1.0] * 3}, status=status)
    run = sheet.run()
    assert len(run.samples) == 16
    assert run.latency.empty
    assert run.latency.columns.tolist() == LATENCY_COLUMNS
    row = row_of(run.summary)
    assert row["status"] == status
    assert (row["single_stream_status"], row["offline_status"], row["training_step_status"]) == (status, None, None)
    scenarios = [name for name in row if str(name).startswith(("single_stream_", "offline_", "training_step_"))]
    numbers = [name for name in scenarios if not str(name).endswith("_status")]
    assert len(numbers) == 54
    assert all(pd.isna(row[name]) for name in numbers)


def test_samples_of_no_spread_at_all_have_an_interval_of_no_width(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [0.5] * 12, 2: [0.5] * 12})
    row = row_of(sheet.run().latency, boundary="compute")
    assert (row["latency_low_s"], row["latency_s"], row["latency_high_s"]) == (pytest.approx(0.5),) * 3


# ------------------------------------------------------------------------------------------------------- precision


QUIET = (-0.1, 0.1) * 4  # percent, of eight processes
WIDE = (-5.0, 5.0) * 4


def shifted(percent: float, noise: Sequence[float]) -> list[float]:
    """What is so many percent slower, beside noise of its own."""
    return [100 * ((1 + percent / 100) * (1 + each / 100) - 1) for each in noise]


def against_one(sheet: Sheet, percents: Sequence[float], variant: str = B, **given: Any) -> None:
    """A baseline of one second in as many processes, if there is none yet, and a variant so many percent slower."""
    if not sheet.has(A):
        sheet.trial("parity", A)
        sheet.latency(A, times(spread_out([0.0] * len(percents))))
    sheet.trial("parity", variant)
    sheet.latency(variant, times(spread_out(percents)), **given)


def test_planned_looks_double_up_to_the_most_slices(tmp_path: Path) -> None:
    def found(**latency: Any) -> tuple[int, ...]:
        folder = tmp_path / str(sorted(latency.items()))
        sheet = Sheet(folder, **latency)
        sheet.trial("parity", A)
        return looks(sheet.run())

    assert found() == (5,)
    assert found(slices=3) == (3,)
    assert found(slices=3, max_slices=3) == (3,)
    assert found(slices=2, max_slices=9) == (2, 4, 8, 9)


def test_a_run_whose_suite_does_not_say_how_it_sampled_took_the_defaults(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "run")
    del sheet.header["suite"]
    against_one(sheet, shifted(3.0, QUIET))
    run = sheet.run()
    assert looks(run) == (5,)
    assert row_of(run.latency, variant=B, boundary="compute")["verdict"] == SLOWER


@pytest.mark.parametrize(
    ("latency", "quantile"),
    [({"slices": 4}, 3.182446305284263), ({"slices": 2, "max_slices": 4}, 3.92714)],
    ids=["one look", "two looks"],
)
def test_the_interval_of_a_ratio_allows_for_the_planned_looks(
    tmp_path: Path, latency: dict[str, Any], quantile: float
) -> None:
    """Student's t(3): at 5 % for one look, at Pocock's 2.94 % for two equal ones."""
    sheet = Sheet(tmp_path / "run", **latency)
    against_one(sheet, (0.0, 1.0, 0.0, 1.0))
    row = row_of(sheet.run().latency, variant=B, boundary="compute")
    half = quantile * math.log(1.01) / 2 * math.sqrt(4 / 3) / 2
    assert row["ratio"] == pytest.approx(math.sqrt(1.01))
    assert row["ratio_low"] == pytest.approx(math.sqrt(1.01) * math.exp(-half), rel=1e-6)
    assert row["ratio_high"] == pytest.approx(math.sqrt(1.01) * math.exp(half), rel=1e-6)
    assert row["half_width"] == pytest.approx(math.expm1(half), rel=1e-3)


@pytest.mark.parametrize("is_met", [True, False])
def test_the_precision_is_met_where_half_of_the_ratios_interval_is_within_it(tmp_path: Path, is_met: bool) -> None:
    half = 2.3646242510102993 * math.log(1.001 / 0.999) / 2 / math.sqrt(7)  # t(7); noise of ± 0.1 % in 8 processes
    sheet = Sheet(tmp_path / "run", slices=8, precision=math.expm1(half) * (1.001 if is_met else 0.999))
    against_one(sheet, QUIET)
    row = row_of(sheet.run().latency, variant=B, boundary="compute")
    assert row["half_width"] == pytest.approx(math.expm1(half))
    assert row["precision_met"] is is_met


def test_a_baseline_that_others_are_compared_with_is_not_what_measuring_goes_on_for(sheet: Sheet) -> None:
    against_one(sheet, QUIET)
    rows = sheet.run().latency.query("variant == @A")
    assert rows["half_width"].isna().all()
    assert rows["precision_met"].isna().all()


@pytest.mark.parametrize("other", ["none", "wrong", "another scenario"])
def test_where_nothing_is_compared_with_it_the_baselines_own_latency_is_of_interest(tmp_path: Path, other: str) -> None:
    sheet = Sheet(tmp_path / "run", slices=2, max_slices=4, precision=0.0115)
    sheet.trial("parity", A)
    sheet.latency(A, times(spread_out((0.0, 1.0, 0.0, 1.0))))
    if other != "none":
        sheet.trial("parity", B)
        given = {"status": "wrong"} if other == "wrong" else {"scenario": "offline"}
        sheet.latency(B, times(spread_out((0.0, 1.0, 0.0, 1.0))), **given)
    row = row_of(sheet.run().latency, variant=A, boundary="compute")
    half = 3.92714 * math.log(1.01) / 2 * math.sqrt(4 / 3) / 2  # t(3) at Pocock's level: it was looked twice
    assert row["half_width"] == pytest.approx(math.expm1(half), rel=1e-3)
    assert row["precision_met"] is True


def test_what_computes_nothing_is_not_what_measuring_goes_on_for(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "run", floors=("nothing",))
    sheet.trial("parity", B, architecture="nothing")
    sheet.latency(B, times(spread_out(QUIET)), architecture="nothing", baseline=B)
    row = row_of(sheet.run().latency, boundary="compute")
    assert math.isnan(row["half_width"])
    assert row["precision_met"] is None


def test_one_process_of_one_instance_has_no_width_and_met_no_precision(sheet: Sheet) -> None:
    against_one(sheet, [3.0])
    row = row_of(sheet.run().latency, variant=B, boundary="compute")
    assert row["ratio"] == pytest.approx(1.03)
    assert all(math.isnan(row[name]) for name in ("ratio_low", "ratio_high", "half_width"))
    assert not row["precision_met"]
    assert row["verdict"] == UNDECIDED


# ------------------------------------------------------------------------------------------------------- verdicts


def verdicts_of(run: Run, boundary: str = "compute") -> dict[str, Any]:
    own = run.latency[run.latency["boundary"] == boundary]
    return {row["variant"]: row["verdict"] for row in records(own) if row["variant"] != A}


def test_a_row_is_faster_slower_the_same_or_undecided(sheet: Sheet) -> None:
    for variant, percents in (
        ("faster@r", shifted(-3.0, QUIET)),
        ("slower@r", shifted(3.0, QUIET)),
        ("same@r", QUIET),
        ("undecided@r", WIDE),
    ):
        against_one(sheet, percents, variant)
    run = sheet.run()
    words = {"faster@r": FASTER, "slower@r": SLOWER, "same@r": SAME, "undecided@r": UNDECIDED}
    assert verdicts_of(run) == words
    assert verdicts_of(run, "end-to-end") == words
    summary = {row["variant"]: row["single_stream_verdict"] for row in records(run.summary)}
    assert {name: word for name, word in summary.items() if name != A} == words
    assert pd.isna(summary[A])


def test_what_is_the_same_is_for_the_suite_to_say(tmp_path: Path) -> None:
    for tolerance, word in ((0.01, SLOWER), (0.05, SAME)):
        sheet = Sheet(tmp_path / str(tolerance), tolerance=tolerance)
        against_one(sheet, shifted(3.0, QUIET))
        assert verdicts_of(sheet.run()) == {B: word}


def test_the_same_evidence_decides_less_in_a_longer_table_and_boundaries_are_tables_of_their_own(
    tmp_path: Path,
) -> None:
    """7 % slower with p = 0.008: enough alone, too little among 15, which only the compute boundary has."""
    percents = shifted(7.0, WIDE)
    alone = Sheet(tmp_path / "alone")
    against_one(alone, percents)
    assert verdicts_of(alone.run()) == {B: SLOWER}
    among = Sheet(tmp_path / "among")
    against_one(among, percents)
    for number in range(14):
        against_one(among, percents, f"other{number}@r", boundaries=("compute",))
    run = among.run()
    assert set(verdicts_of(run).values()) == {UNDECIDED}
    assert verdicts_of(run, "end-to-end") == {B: SLOWER}


def test_more_looks_ask_for_more_evidence(tmp_path: Path) -> None:
    for most, word in ((2, SLOWER), (64, UNDECIDED)):
        sheet = Sheet(tmp_path / word, slices=2, max_slices=most)
        against_one(sheet, shifted(5.0, WIDE))
        assert verdicts_of(sheet.run()) == {B: word}


def test_verdicts_are_those_of_all_ratios_of_a_boundary_together(tmp_path: Path) -> None:
    """Whatever stands between them: baselines, what has no baseline, what is not ok."""
    rng = np.random.default_rng(5)
    sheet = Sheet(tmp_path / "run", slices=2, max_slices=8)
    percents = {f"v{number}@r": list(rng.normal(3 * number - 13, 4, 8)) for number in range(10)}
    for variant, own in percents.items():
        against_one(sheet, own, variant)
        sheet.latency(f"lonely-{variant}", {1: [1.0], 2: [1.0]}, baseline="nobody@r")
        sheet.latency(f"wrong-{variant}", {1: [1.0], 2: [1.0]}, status="wrong")
    base = spread_out([0.0] * 8)
    ratios = [estimates.ratio(spread_out(own), base) for own in percents.values()]
    expected = judge([ratio for ratio in ratios if ratio], 0.01, (2, 4, 8))
    found = verdicts_of(sheet.run())
    assert [found[variant] for variant in percents] == expected
    assert set(expected) == {FASTER, SLOWER, UNDECIDED}
    assert all(pd.isna(found[f"lonely-{variant}"]) for variant in percents)


# ------------------------------------------------------------------------------------------------------- calibration


PLACES = [(s, s, i) for s in range(1, 6) for i in (1, 2)]
ALIKE = dict.fromkeys(PLACES, 1.0)


def measured(instances: int, seconds: float) -> Any:
    """What an arm took: its calls that count, and of every instance the first, of a million seconds."""
    return pytest.approx(1e6 * instances + seconds, rel=0, abs=1e-3)


def twins(sheet: Sheet, *others: Mapping[Key, float], base: Mapping[Key, float] = ALIKE, **given: Any) -> Sheet:
    """A baseline, ok unless said, and twins of it."""
    sheet.trial("parity", A)
    sheet.latency(A, times(base), **given)
    for number, own in enumerate(others, start=1):
        sheet.latency(A, times(own), kind="calibration", twin=number)
    return sheet


def test_a_twin_is_compared_with_the_baseline_as_if_it_were_another_variant(sheet: Sheet) -> None:
    """Ten instances in five processes that agree; the twin is 2 % slower in one half and 4 % in the other."""
    own = {place: 1.02 if place[2] == 1 else 1.04 for place in PLACES}
    row = row_of(twins(sheet, own).run().calibration)
    assert (row["task"], row["variant"], row["scenario"], row["pairs"]) == ("t", A, "single-stream", 1)
    middle, half = math.sqrt(1.02 * 1.04), 2.2621571627409915 * math.log(1.04 / 1.02) / 2 / 3  # t(9)
    assert row["ratio"] == pytest.approx(middle)
    assert (row["ratio_low"], row["ratio_high"]) == (
        pytest.approx(middle * math.exp(-half)),
        pytest.approx(middle * math.exp(half)),
    )
    assert (row["units"], row["unit"]) == (10, "instance")
    assert row["seconds"] == measured(10, 3 * 10 * 1.03)


def test_pairs_of_twins_share_no_session(tmp_path: Path) -> None:
    """The baseline with the first, the second with the third; a fourth has nobody left."""
    slower = [dict.fromkeys(PLACES, factor) for factor in (1.1, 2.0, 2.4, 7.0)]
    found = [row_of(twins(Sheet(tmp_path / str(count)), *slower[:count]).run().calibration) for count in range(1, 5)]
    assert [row["pairs"] for row in found] == [1, 1, 2, 2]
    assert [row["ratio"] for row in found] == [pytest.approx(1.1)] * 4
    assert [row["seconds"] for row in found] == [measured(10, 30 * m) for m in (1.1, 1.55, 5.5 / 3, 12.5 / 4)]


@pytest.mark.parametrize(("count", "pairs"), [(1, 0), (2, 1), (3, 1)])
def test_where_the_baseline_failed_its_twins_are_compared_among_themselves(
    sheet: Sheet, count: int, pairs: int
) -> None:
    slower = [dict.fromkeys(PLACES, factor) for factor in (2.0, 2.4, 7.0)]
    found = twins(sheet, *slower[:count], status="crashed").run().calibration
    assert found["pairs"].tolist() == ([pairs] if pairs else [])
    if pairs:
        assert row_of(found)["ratio"] == pytest.approx(1.2)


def test_comparisons_share_no_slice_and_false_alarms_are_counted_among_them(tmp_path: Path) -> None:
    """Two of five slices each, one left over. Of the first pair the first is surely 5 % slower, all else is noise."""
    noise = {1: 1.01, 2: 0.99, 3: 0.99, 4: 1.01, 5: 3.0}
    biased = noise | {1: 1.05, 2: 1.0501}
    one, two = ({place: by_slice[place[0]] for place in PLACES} for by_slice in (biased, noise))
    sheet = twins(Sheet(tmp_path / "run", slices=2, max_slices=5), one, ALIKE, two)
    row = row_of(sheet.run().calibration)
    assert (row["pairs"], row["comparisons"], row["false_alarms"]) == (2, 4, 1)
    rate = stats.rate_interval(1, 4)
    assert (row["false_alarms_low"], row["false_alarms_high"]) == (rate.low, rate.high)
    assert rate.low < 0.05 < rate.high


def test_the_false_alarm_rate_has_clopper_and_pearsons_interval(tmp_path: Path) -> None:
    own = {place: 1.01 if place[0] % 2 else 0.99 for place in PLACES}
    row = row_of(twins(Sheet(tmp_path / "run", slices=2, max_slices=5), own).run().calibration)
    assert (row["comparisons"], row["false_alarms"], row["false_alarms_low"]) == (2, 0, 0.0)
    assert row["false_alarms_high"] == pytest.approx(1 - math.sqrt(0.025))


def test_a_run_that_ended_before_the_least_slices_has_a_ratio_and_no_comparison(tmp_path: Path) -> None:
    own = {place: 1.02 if place[2] == 1 else 1.04 for place in PLACES}
    row = row_of(twins(Sheet(tmp_path / "run", slices=6), own).run().calibration)
    assert (row["comparisons"], row["false_alarms"]) == (0, 0)
    assert row["ratio"] == pytest.approx(math.sqrt(1.02 * 1.04))
    assert row["detectable"] > 0
    for name in ("false_alarms_low", "false_alarms_high", "comparison_seconds", "comparison_detectable"):
        assert math.isnan(row[name])


def noisy(percent: float, slices: int = 5) -> dict[Key, float]:
    """Instances that scatter by about so many percent in every process alike: its mean is as the others'."""
    return {(s, s, i): math.exp(percent / 100 * sign) for s in range(1, slices + 1) for i, sign in ((1, -1), (2, 1))}


def test_what_is_detectable_follows_the_scatter_and_is_what_a_t_test_finds(tmp_path: Path) -> None:
    found = [row_of(twins(Sheet(tmp_path / str(p)), noisy(p)).run().calibration) for p in (1.0, 2.0)]
    one, two = (math.log1p(row["detectable"]) for row in found)
    assert two == pytest.approx(2 * one)
    # ten units, t(9): the noncentrality with 95 % power is 4.0665, the error 1 % · √(10 / 9) / √10
    assert one == pytest.approx(4.0665 * 0.01 / 3, rel=1e-3)


def test_a_pair_that_scatters_more_makes_less_detectable_on_the_whole(tmp_path: Path) -> None:
    rows = {
        name: row_of(twins(Sheet(tmp_path / name), noisy(1.0), ALIKE, noisy(second)).run().calibration)
        for name, second in (("quiet", 1.0), ("noisy", 3.0))
    }
    quiet, noise = rows["quiet"]["detectable"], rows["noisy"]["detectable"]
    assert math.log1p(noise) == pytest.approx(2 * math.log1p(quiet), rel=0.05)  # the mean of once and three times


def test_one_comparison_took_its_share_of_the_time_and_sees_less(tmp_path: Path) -> None:
    sheet = twins(Sheet(tmp_path / "run", slices=5, max_slices=20), noisy(1.0, 20), base=dict.fromkeys(noisy(1, 20), 1))
    row = row_of(sheet.run().calibration)
    assert row["comparisons"] == 4
    assert row["comparison_seconds"] == pytest.approx(row["seconds"] / 4)
    one = row_of(twins(Sheet(tmp_path / "one"), noisy(1.0)).run().calibration)
    assert row["comparison_detectable"] == pytest.approx(one["detectable"], rel=0.05)
    assert row["comparison_detectable"] > 1.5 * row["detectable"]


def test_who_means_to_look_several_times_sees_less_in_the_same_time(tmp_path: Path) -> None:
    found = []
    for slices in (20, 5):
        sheet = Sheet(tmp_path / str(slices), slices=slices, max_slices=20)
        found.append(row_of(twins(sheet, noisy(1.0, 20), base=dict.fromkeys(noisy(1.0, 20), 1.0)).run().calibration))
    once, thrice = found
    assert 1.1 * once["detectable"] < thrice["detectable"] < 1.3 * once["detectable"]
    assert thrice["ratio_high"] > once["ratio_high"]


def test_every_task_has_its_own_calibration(sheet: Sheet) -> None:
    for task, factor in (("t", 1.0), ("u", 1.5)):
        sheet.trial("parity", A, task=task)
        sheet.latency(A, times(ALIKE), task=task)
        sheet.latency(A, times(ALIKE, factor), kind="calibration", twin=1, task=task)
    found = sheet.run().calibration
    assert found["task"].tolist() == ["t", "u"]
    assert found["ratio"].tolist() == [1.0, pytest.approx(1.5)]
    assert found["seconds"].tolist() == [measured(10, 30.0), measured(10, 45.0)]


@pytest.mark.parametrize("how", ["no twin", "a wrong twin", "no samples", "no slice in common"])
def test_without_two_that_share_slices_there_is_no_calibration(sheet: Sheet, how: str) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, times(ALIKE))
    if how == "a wrong twin":
        sheet.latency(A, times(ALIKE), status="wrong", kind="calibration", twin=1)
    elif how != "no twin":
        own = {} if how == "no samples" else {(9, 9, 1): 1.0}
        sheet.latency(A, times(own), kind="calibration", twin=1)
    found = sheet.run().calibration
    assert found.empty
    assert found.columns.tolist() == CALIBRATION_COLUMNS


def test_only_the_compute_boundary_and_the_twins_own_scenario_are_calibrated(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, times(ALIKE, 9.0), scenario="offline")
    sheet.latency(A, times(ALIKE), scenario="single-stream")
    sheet.latency(A, times(ALIKE, 3.0), kind="calibration", twin=1)
    row = row_of(sheet.run().calibration)
    assert (row["scenario"], row["ratio"]) == ("single-stream", pytest.approx(3.0))


def test_twins_are_in_no_other_table(sheet: Sheet) -> None:
    """Neither their latency nor how they ended: a wrong twin is nobody's row."""
    against_one(sheet, QUIET)
    sheet.latency(A, {1: [77.0] * 3, 2: [77.0] * 3}, kind="calibration", twin=1)
    wrong = observation(rmse=9.0, max_abs_error=9.0, moment="after")
    sheet.latency(A, {}, status="wrong", kind="calibration", twin=2, reason="wrong", parity=[wrong])
    run = sheet.run()
    assert run.latency["variant"].tolist() == [A, A, B, B]
    assert run.latency["latency_s"].max() < 3
    summary = run.summary
    assert summary["status"].tolist() == ["ok", "ok"]
    assert summary["parity_ratio"].isna().all()
    assert summary["single_stream_latency_s"].max() < 2


# ------------------------------------------------------------------------------------------------------- summary


def test_a_row_shows_the_numbers_of_its_own_trials(sheet: Sheet) -> None:
    """Two variants, two tasks, three scenarios: twelve latencies, each in its place."""
    expected: dict[tuple[str, str], dict[str, float]] = {}
    for task in ("t", "u"):
        for variant in (A, B):
            sheet.trial("parity", variant, task=task)
            for scenario in ("single-stream", "offline", "training-step"):
                seconds = 1.0 + sum(map(len, expected.values()))
                expected.setdefault((task, variant), {})[scenario.replace("-", "_")] = seconds
                sheet.latency(variant, {1: [seconds] * 3, 2: [seconds] * 3}, task=task, scenario=scenario, batch=2)
    run = sheet.run()
    for (task, variant), scenarios in expected.items():
        row = row_of(run.summary, task=task, variant=variant)
        for prefix, seconds in scenarios.items():
            assert row[f"{prefix}_status"] == "ok"
            assert row[f"{prefix}_latency_s"] == pytest.approx(seconds)
            assert row[f"{prefix}_throughput_per_s"] == pytest.approx(2 / seconds)
            assert row[f"{prefix}_end_to_end_s"] == pytest.approx(seconds + 1)
            assert row[f"{prefix}_ratio"] == pytest.approx(seconds / expected[task, A][prefix])
            base = expected[task, A][prefix] + 1
            assert row[f"{prefix}_end_to_end_ratio"] == pytest.approx((seconds + 1) / base)
            half_width = row[f"{prefix}_half_width"]
            assert math.isnan(half_width) if variant == A else half_width == pytest.approx(0.0, abs=1e-12)
            assert pd.isna(row[f"{prefix}_precision_met"]) if variant == A else row[f"{prefix}_precision_met"]


def test_without_latency_trials_the_baseline_is_that_of_the_architecture(sheet: Sheet) -> None:
    sheet.trial("parity", B)
    sheet.trial("parity", "c@r", architecture="unheard of")
    found = sheet.run().summary["baseline"].tolist()
    assert found[0] == A
    assert pd.isna(found[1])


@pytest.mark.parametrize(
    ("parity", "step", "expected"),
    [("ok", "ok", "ok"), ("wrong", "ok", "wrong"), ("ok", "wrong", "wrong"), ("ok", None, "ok")],
)
def test_who_trained_the_weights_is_as_right_as_its_parity_and_its_training_step(
    sheet: Sheet, parity: str, step: str | None, expected: str
) -> None:
    sheet.trial("parity", A, parity)
    sheet.latency(A, {}, status="crashed")
    if step:
        sheet.latency(A, {}, status=step, scenario="training-step")
    sheet.trial("parity", A, "failed", task="u")
    sheet.trial("parity", B)
    sheet.trial("accuracy", B, seed=0, trained_by=A, scores=score(0.5))
    assert row_of(sheet.run().summary, variant=B)["trainer_status"] == expected


def test_of_a_trainer_that_is_not_in_the_run_nothing_is_known(sheet: Sheet) -> None:
    sheet.trial("parity", B)
    sheet.trial("accuracy", B, seed=0, trained_by=A, scores=score(0.5))
    assert pd.isna(row_of(sheet.run().summary)["trainer_status"])


def test_a_run_without_a_single_sample_has_empty_tables_and_a_summary(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    run = sheet.run()
    assert instance_medians(run.samples) == {}
    assert run.latency.empty
    assert run.calibration.empty
    assert row_of(run.summary)["status"] == "ok"


def test_a_variant_that_is_wrong_beside_the_clock_is_wrong_in_its_parity_column(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {}, status="wrong", reason="after timing: y")
    row = row_of(sheet.run().summary)
    assert (row["parity"], row["status"], row["reason"]) == ("wrong", "wrong", "after timing: y")


@pytest.mark.parametrize("worst", STATUS_ORDER)
def test_the_status_of_a_row_is_its_worst_trials(sheet: Sheet, worst: str) -> None:
    rank = STATUS_ORDER.index(worst)
    for status in reversed(STATUS_ORDER[rank:]):
        sheet.trial("parity" if status == "ok" else "accuracy", A, status, reason=f"because {status}")
    if worst == "ok":
        assert row_of(sheet.run().summary)["status"] == "ok"
        return
    row = row_of(sheet.run().summary)
    assert (row["status"], row["reason"]) == (worst, f"because {worst}")


def test_every_status_has_its_place_in_the_order() -> None:
    assert sorted(STATUS_ORDER) == sorted(STATUSES)


def test_the_score_is_the_mean_over_seeds_with_students_interval(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    for seed, value in enumerate((0.5, 0.6, 0.7)):
        sheet.trial("accuracy", A, seed=seed, trained_by=A, scores=score(value))
    row = row_of(sheet.run().summary)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # t(2) at 97.5 %
    assert row["score"] == pytest.approx(0.6)
    assert (row["score_low"], row["score_high"]) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert (row["metric"], row["seeds"], row["trained_by"], row["rows"]) == ("accuracy", 3, A, 10)
    assert math.isnan(row["score_difference"])
    assert pd.isna(row["agreeing_rows"])


def test_an_accuracy_interval_stays_between_nothing_and_everything(sheet: Sheet) -> None:
    for variant, values in ((A, (1.0, 0.8)), (B, (0.0, 0.2))):
        sheet.trial("parity", variant)
        for seed, value in enumerate(values):
            sheet.trial("accuracy", variant, seed=seed, trained_by=variant, scores=score(value))
    summary = sheet.run().summary
    assert row_of(summary, variant=A)["score_high"] == 1.0
    assert row_of(summary, variant=B)["score_low"] == 0.0


def test_a_squared_error_may_be_above_one_but_not_below_zero(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    for seed, value in enumerate((0.1, 3.0)):
        sheet.trial("accuracy", A, seed=seed, trained_by=A, scores=score(value, metric="mean squared error"))
    row = row_of(sheet.run().summary)
    assert row["score_low"] == 0.0
    assert row["score_high"] > 3.0


def test_one_seed_has_no_interval(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.trial("accuracy", A, seed=0, trained_by=A, scores=score(0.9))
    row = row_of(sheet.run().summary)
    assert row["score"] == 0.9
    assert math.isnan(row["score_low"])
    assert math.isnan(row["score_high"])


def test_agreement_is_the_fewest_rows_and_the_difference_the_largest_either_way(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    for seed, (own, trainer, agreeing) in enumerate(((0.9, 0.9, 10), (0.7, 0.8, 9), (0.95, 0.9, 10))):
        sheet.trial(
            "accuracy", A, seed=seed, trained_by=B, scores=score(own, trainer_score=trainer, agreeing_rows=agreeing)
        )
    row = row_of(sheet.run().summary)
    assert (row["agreeing_rows"], row["rows"], row["trained_by"]) == (9, 10, B)
    assert row["score_difference"] == pytest.approx(-0.1)


def test_a_seed_that_failed_is_left_out_of_the_score_and_shows_in_the_status(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.trial("accuracy", A, seed=0, trained_by=A, scores=score(0.9))
    sheet.trial("accuracy", A, "failed", seed=1, trained_by=A, reason="diverged")
    row = row_of(sheet.run().summary)
    assert (row["score"], row["seeds"], row["status"], row["reason"]) == (0.9, 1, "failed", "diverged")


def observation(part: str = "y", case: str = "c", **given: Any) -> dict[str, Any]:
    row = {
        "process": 0,
        "moment": "first",
        "case": case,
        "part": part,
        "rmse": 1e-7,
        "yardstick_rmse": 1e-7,
        "reference_rms": 1.0,
    }
    return row | {"max_abs_error": 2e-7, "yardstick": B, "problem": ""} | given


def test_the_parity_ratio_is_the_largest_of_any_check_and_leaves_out_exact_yardsticks(sheet: Sheet) -> None:
    checks = [
        observation(),
        observation("h_n", rmse=1.5e-7, max_abs_error=9e-7),
        observation("c_n", yardstick_rmse=0.0),
    ]
    sheet.trial("parity", A, parity=checks)
    row = row_of(sheet.run().summary)
    assert row["parity_ratio"] == pytest.approx(1.5)
    assert row["parity_max_abs_error"] == pytest.approx(9e-7)
    assert (row["parity"], row["yardstick"]) == ("ok", B)


def test_the_parity_error_is_that_of_outputs_and_not_of_gradients(sheet: Sheet) -> None:
    sheet.trial("parity", A, parity=[observation()])
    gradient = {"process": 1, "what": "gradient of bias_ih_l0", "error": 0.5, "allowed": 1.0, "expected": 2.0}
    sheet.latency(A, {1: [1.0], 2: [1.0]}, scenario="training-step", gradients=[gradient])
    run = sheet.run()
    assert run.gradients["error"].tolist() == [0.5]
    row = row_of(run.summary)
    assert row["parity_ratio"] == pytest.approx(1.0)
    assert row["parity_max_abs_error"] == pytest.approx(2e-7)


def test_the_worst_check_counts_whether_it_was_made_first_or_beside_the_clock(sheet: Sheet) -> None:
    sheet.trial("parity", A, parity=[observation()])
    beside = [observation(process=1, moment="before"), observation(process=1, moment="after", rmse=1.9e-7)]
    sheet.latency(A, {1: [1.0], 2: [1.0]}, parity=beside)
    assert row_of(sheet.run().summary)["parity_ratio"] == pytest.approx(1.9)


def test_an_architecture_without_weights_is_a_floor(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "run", floors=("nothing",))
    sheet.trial("parity", A)
    sheet.trial("parity", B, architecture="nothing")
    summary = sheet.run().summary
    assert not row_of(summary, variant=A)["is_floor"]
    assert row_of(summary, variant=B)["is_floor"]


def test_a_part_that_was_not_finite_leaves_no_small_ratio_behind(sheet: Sheet) -> None:
    checks = [observation(), observation("h_n", rmse=math.inf, max_abs_error=math.inf, problem="not finite")]
    sheet.trial("parity", A, "wrong", parity=checks)
    row = row_of(sheet.run().summary)
    assert row["parity"] == "wrong"
    assert not row["parity_ratio"] <= 2
    assert not row["parity_max_abs_error"] <= 1


def test_variants_tasks_devices_dtypes_and_threads_are_rows_of_their_own(sheet: Sheet) -> None:
    settings: list[dict[str, Any]] = [{}, {"task": "u"}, {"device": "cuda"}, {"dtype": "float64"}, {"threads": 2}]
    for setting in settings:
        sheet.trial("parity", A, **setting)
        sheet.trial("accuracy", A, **setting)
    sheet.trial("parity", B)
    summary = sheet.run().summary
    assert len(summary) == 6
    assert not summary.duplicated(["variant", "task", "device", "dtype", "threads"]).any()


def test_settings_of_which_sizes_are_unknown_are_settings_like_any_other(sheet: Sheet) -> None:
    unknown: dict[str, Any] = {"hidden_size": None, "num_layers": None, "threads": None}
    for variant in (A, B):
        sheet.trial("parity", variant)
        sheet.trial("parity", variant, **unknown)
        sheet.trial("parity", variant, **unknown, task="u")
    summary = sheet.run().summary
    groups = list(by_setting(summary))
    assert [list(rows["variant"]) for rows in groups] == [[A, B]] * 3
    for rows in groups:
        assert list(of_setting(summary, records(rows)[0]).index) == list(rows.index)
