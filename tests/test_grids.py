"""Runs of more than one point: tasks, sweeps over shapes and settings, and rows of real lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from strangers import World
from whole_runs import run_all

from harness.report import write_report
from harness.tables import records


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "plugins", monkeypatch)


LONGER = """
import harness
from dataclasses import replace
from strangers import TINY

@harness.hookimpl
def harness_tasks(): return [replace(TINY, name="longer", time=8)]
"""


RAGGED = """
from dataclasses import replace
import harness
import numpy as np
from strangers import TINY

def load(data_dir):
    whole = TINY.load(data_dir)
    lengths = 1 + np.arange(10) % 5
    test = replace(whole.test, lengths=lengths)
    return harness.Data(whole.train, test)

@harness.hookimpl
def harness_tasks(): return [replace(TINY, name="ragged", ragged=True, load=load)]
"""
PLAIN_THREADS = """
import os
import harness
from strangers import TINY, PlainRuntime, plain_model

class Counts(PlainRuntime):
    def open(self, model, weights, options):
        if os.environ["OMP_NUM_THREADS"] != str(options.threads):
            raise ValueError("the worker has another number of threads")
        return super().open(model, weights, options)

@harness.hookimpl
def harness_models(): return [plain_model("plain-lstm")]

@harness.hookimpl
def harness_runtimes(): return [Counts("counts")]

@harness.hookimpl
def harness_tasks(): return [TINY]
"""


def test_two_tasks_that_share_a_layer_but_not_a_length_have_parity_at_the_shapes_of_each(
    world: World, tmp_path: Path
) -> None:
    world.add_plain(plain_lstm="")
    world.add("longer", LONGER)
    run = run_all(world, tmp_path / "run", seeds=0)
    assert set(run.trials["status"]) == {"ok"}
    assert set(zip(run.trials["hidden_size"], run.trials["input_size"], strict=True)) == {(6, 3)}
    for task, time in (("tiny", 5), ("longer", 8)):
        timed = run.latency[run.latency["task"] == task]
        assert set(timed["scenario"]) == {"single-stream", "offline", "training-step"}
        for kind, processes in (("parity", 1), ("latency", 2)):
            trials = run.trials.loc[(run.trials["task"] == task) & (run.trials["kind"] == kind), "trial"]
            checks = run.parity[run.parity["trial"].isin(trials)]
            assert checks["process"].nunique() == processes
            for _, own in checks.groupby("process"):
                assert {f"batch {batch}, time {time}, no state" for batch in (1, 4)} <= set(own["case"])


def test_a_sweep_checks_and_times_every_variant_in_every_setting_beside_the_baseline_there(
    world: World, tmp_path: Path
) -> None:
    world.add_plain(good="", other="")
    sweep = {"hidden_size": [6, 9], "batch": [2, 4], "time": [3, 5]}
    run = run_all(world, tmp_path / "run", seeds=1, sweep=sweep)
    assert set(run.trials["status"]) == {"ok"}
    assert len(run.summary) == 4
    assert run.summary.groupby("hidden_size")["metric"].count().to_dict() == {6: 2, 9: 0}
    for (variant, hidden_size), own in run.latency.groupby(["variant", "hidden_size"]):
        assert len(own) == 2 * (2 + 4 + 1)  # boundaries; single-stream, offline, training step
        assert own["ratio"].notna().all(), (variant, hidden_size)
    for _, timed in run.samples.merge(run.trials[["trial", "hidden_size"]], on="trial").groupby("process"):
        assert timed["hidden_size"].nunique() == 1
    parity = run.parity.merge(run.trials, on="trial")
    for hidden_size in (6, 9):
        own = parity[parity["hidden_size"].eq(hidden_size) & parity["kind"].eq("parity")]
        assert {f"batch {b}, time {t}, no state" for b in (1, 2, 4) for t in (3, 5)} <= set(own["case"])
    assert len(run.calibration) == 1
    write_report(run.path)
    text = (run.path / "report.md").read_text(encoding="utf-8")
    for hidden_size in (6, 9):
        assert f"## tiny on cpu, H={hidden_size} L=1 float32 1 thread\n" in text
        assert f"| good@plain | tiny H={hidden_size} L=1 float32 1 thread | offline | compute | 4 | 5 |" in text
    assert "| offline, batch × time | 2 × 3 | 2 × 5 | 4 × 3 | 4 × 5 |" in text


def test_rows_of_real_lengths_are_timed_as_they_are_batched_and_told_in_real_steps(
    world: World, tmp_path: Path
) -> None:
    world.add_plain(good="")
    world.add("ragged", RAGGED)
    scenarios = ["padded", "bucketed", "packed"]
    run = run_all(world, tmp_path / "run", seeds=0, tasks=["ragged"], scenarios=scenarios, twins=0)
    assert set(run.trials["status"]) == {"ok"}
    compute = run.latency[run.latency["boundary"] == "compute"]
    assert compute["scenario"].tolist() == scenarios
    assert compute["rows"].tolist() == [16] * 3  # four batches of four
    assert len(set(compute["steps"])) == 1
    assert 16 < compute["steps"].iloc[0] < 16 * 5
    np.testing.assert_allclose(compute["steps_per_s"], compute["steps"] / compute["latency_s"])
    np.testing.assert_allclose(compute["throughput_per_s"], 16 / compute["latency_s"])
    write_report(run.path)
    text = (run.path / "report.md").read_text(encoding="utf-8")
    assert "| real steps a second | padded | bucketed | packed |" in text


def test_a_ragged_task_without_lengths_costs_its_own_rows_and_says_why(world: World, tmp_path: Path) -> None:
    world.add_plain(good="")
    world.add("ragged", RAGGED.replace("lengths=lengths", "lengths=None"))
    run = run_all(world, tmp_path / "run", seeds=0, scenarios=["single-stream", "packed"], twins=0)
    timed = {(row["task"], row["scenario"]): row for row in records(run.trials) if row["kind"] == "latency"}
    assert {key: row["status"] for key, row in timed.items()} == {
        ("tiny", "single-stream"): "ok",
        ("ragged", "single-stream"): "ok",
        ("ragged", "packed"): "failed",
    }
    said = timed["ragged", "packed"]["reason"]
    assert said.startswith("task 'ragged' says that its rows are ragged, and gives no lengths")


def test_threads_that_are_swept_over_are_those_of_the_workers(world: World, tmp_path: Path) -> None:
    world.add("counts", PLAIN_THREADS)
    run = run_all(world, tmp_path / "run", seeds=0, sweep={"threads": [1, 2]})
    assert set(run.trials["status"]) == {"ok"}
    assert sorted(set(run.trials["threads"])) == [1, 2]
