"""Tables: from known samples to exact estimates; a wrong variant has no latency; ratios are paired by process."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness import stats
from harness.store import STATUSES, TRIAL_COLUMNS, Run, RunFolder, load
from harness.tables import LATENCY_COLUMNS, STATUS_ORDER, records

A, B = "a@r", "b@r"


class Sheet:
    """A run made by hand."""

    def __init__(self, path: Path, floors: tuple[str, ...] = ()) -> None:
        self._path = path
        self._baselines = {"lstm": A}
        self._floors = floors
        self._trials: list[dict[str, Any]] = []
        self._ends: list[dict[str, Any]] = []
        self._samples: dict[str, list[list[Any]]] = {}

    def trial(self, kind: str, variant: str, status: str = "ok", samples: Any = None, **given: Any) -> str:
        name = f"{len(self._trials) + 1:04d}-{kind}"
        record: dict[str, Any] = {
            key: given.pop(key) for key in ("parity", "gradients", "scores", "reason") if key in given
        }
        model, runtime = variant.split("@")
        self._trials.append(
            dict.fromkeys(TRIAL_COLUMNS[:-2])
            | {"trial": name, "kind": kind, "variant": variant, "model": model, "runtime": runtime, "task": "t"}
            | {"architecture": "lstm", "input_size": 3, "hidden_size": 6, "num_layers": 1}
            | {"device": "cpu", "dtype": "float32", "threads": 1}
            | given
        )
        self._ends.append({"trial": name, "status": status, "reason": "", **record})
        if samples:
            self._samples[name] = samples
        return name

    def latency(self, variant: str, seconds: dict[int, list[float]], status: str = "ok", **given: Any) -> str:
        """A latency trial: of each process the elapsed times, end to end one second more.

        Before them stands the first call of the turn, a million seconds long, which no estimate may be made of.
        """
        rows: list[list[Any]] = []
        for process, values in seconds.items():
            for call, value in enumerate([1e6, *values]):
                rows.append([process, "compute", 0, 0, call, float(call), value])
                rows.append([process, "end-to-end", 0, 1, call, float(call), value + 1])
        given = {"scenario": "single-stream", "batch": 1, "time": 5} | given
        return self.trial("latency", variant, status, samples=rows, **given)

    def run(self) -> Run:
        header = {"name": "made by hand", "baselines": self._baselines, "floors": self._floors, "trials": self._trials}
        folder = RunFolder(self._path, {**header, "plugins": [], "environment": {"versions": {}}})
        for trial, rows in self._samples.items():
            folder.write_samples(trial, rows)
        for end in self._ends:
            folder.append(end)
        folder.close()
        return load(self._path)


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    return Sheet(tmp_path / "run")


def row_of(table: pd.DataFrame, **where: Any) -> dict[str, Any]:
    rows = [row for row in records(table) if all(row[name] == value for name, value in where.items())]
    assert len(rows) == 1
    return rows[0]


def score(value: float, **given: Any) -> list[dict[str, Any]]:
    return [{"metric": "accuracy", "score": value, "rows": 10, "trainer_score": None, "agreeing_rows": None} | given]


def test_the_latency_is_the_geometric_mean_of_the_processes_medians(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0, 2.0, 9.0], 2: [7.0, 8.0, 100.0]}, batch=4)
    row = row_of(sheet.run().latency, boundary="compute")
    assert row["latency_s"] == pytest.approx(4.0, rel=1e-12)
    half = (
        12.706204736174698 * math.log(8 / 2) / 2
    )  # t(1) at 97.5 %, times the error of two logarithms: their half range
    assert row["latency_low_s"] == pytest.approx(4 * math.exp(-half), rel=1e-9)
    assert row["latency_high_s"] == pytest.approx(4 * math.exp(half), rel=1e-9)
    assert row["mean_s"] == pytest.approx(127 / 6)
    assert (row["processes"], row["samples"]) == (2, 6)
    assert (row["process_low_s"], row["process_high_s"]) == (2.0, 8.0)
    assert row["throughput_per_s"] == pytest.approx(1.0)
    assert row["throughput_low_per_s"] == pytest.approx(4 / row["latency_high_s"])
    assert row["throughput_high_per_s"] == pytest.approx(4 / row["latency_low_s"])


def test_both_boundaries_are_kept_apart(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0] * 3, 2: [1.0] * 3})
    run = sheet.run()
    assert row_of(run.latency, boundary="compute")["latency_s"] == pytest.approx(1)
    assert row_of(run.latency, boundary="end-to-end")["latency_s"] == pytest.approx(2)
    summary = row_of(run.summary)
    assert summary["single_stream_latency_s"] == pytest.approx(1)
    assert summary["single_stream_end_to_end_s"] == pytest.approx(2)
    assert math.isnan(summary["offline_latency_s"])


def test_the_first_call_of_a_turn_is_recorded_and_no_estimate_is_made_of_it(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0] * 100, 2: [1.0] * 100})
    run = sheet.run()
    assert set(run.samples.loc[run.samples["boundary"] == "compute", "elapsed_s"]) == {1.0, 1e6}
    row = row_of(run.latency, boundary="compute")
    assert row["samples"] == 200
    for name in ("latency_s", "process_low_s", "process_high_s", "mean_s", "p90_s", "p90_bound_s", "p99_s"):
        assert row[name] == pytest.approx(1.0)


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
    assert math.isnan(little["p90_bound_s"])
    assert little["p90_s"] == pytest.approx(28.0, abs=0.2)
    much = row_of(latency, variant=B, boundary="compute")
    assert much["p90_s"] < much["p90_bound_s"] <= 400
    assert much["p99_s"] <= much["p99_bound_s"] <= 400


def test_a_ratio_is_paired_by_process_and_not_by_place(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.trial("parity", B)
    sheet.latency(A, {1: [1.0], 2: [10.0], 3: [100.0]})
    sheet.latency(B, {3: [200.0], 1: [2.0], 2: [20.0]})
    row = row_of(sheet.run().latency, variant=B, boundary="compute")
    assert row["baseline"] == A
    for name in ("ratio", "ratio_low", "ratio_high"):
        assert row[name] == pytest.approx(2.0, rel=1e-12)  # the same in every process: no spread is left


def test_a_process_that_only_one_of_the_two_has_is_left_out_of_the_ratio(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.trial("parity", B)
    sheet.latency(A, {1: [1.0], 2: [10.0]})
    sheet.latency(B, {1: [3.0], 2: [30.0], 3: [1e9]})
    assert row_of(sheet.run().latency, variant=B, boundary="compute")["ratio"] == pytest.approx(3.0)


def test_the_baseline_is_one_times_itself(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [1.0], 2: [10.0]})
    row = row_of(sheet.run().latency, boundary="compute")
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (1.0, 1.0, 1.0)


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
    assert all(math.isnan(row[name]) for name in ("ratio", "ratio_low", "ratio_high"))
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
    assert len(numbers) == 45
    assert all(math.isnan(row[name]) for name in numbers)


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
    for given in ({}, {"task": "u"}, {"device": "cuda"}, {"dtype": "float64"}, {"threads": 2}):
        sheet.trial("parity", A, **given)
        sheet.trial("accuracy", A, **given)
    sheet.trial("parity", B)
    summary = sheet.run().summary
    assert len(summary) == 6
    assert not summary.duplicated(["variant", "task", "device", "dtype", "threads"]).any()


def test_samples_of_no_spread_at_all_have_an_interval_of_no_width(sheet: Sheet) -> None:
    sheet.trial("parity", A)
    sheet.latency(A, {1: [0.5] * 12, 2: [0.5] * 12})
    row = row_of(sheet.run().latency, boundary="compute")
    assert (row["latency_low_s"], row["latency_s"], row["latency_high_s"]) == (pytest.approx(0.5),) * 3
