"""The engine, end to end, with strangers' plugins: whatever one variant does, every planned trial is one row and the
others' rows are whole."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from strangers import QUICK, World
from whole_runs import HEADER, SINGLE, Steps, run_all

from harness import HarnessError, Unsupported
from harness.engine import noise
from harness.engine.context import Context, Outcome, Stopped
from harness.engine.process import WorkerFailure
from harness.engine.run import preflight
from harness.engine.survey import survey
from harness.journal import StoreError, read_journal
from harness.plan import make_plan
from harness.samples import SAMPLE_COLUMNS
from harness.schema import PROCESS_COLUMNS
from harness.store import Run, RunFolder, load
from harness.suite import parse_suite
from harness.tables import records

COMPANY = {
    "good": "",
    "ignores": "ignores its state",
    "exits": "exits",
    "killed": "is killed",
    "raises": "raises",
    "refuses": "refuses",
    "dies_while": "dies while timed",
    "later": "is wrong later",
    "diverges": "diverges",
    "trains_wrongly": "trains wrongly",
    "other": "",
}


def ends(run: Run, model: str) -> dict[str, list[tuple[str, str]]]:
    """How a model's trials ended, status and reason, by kind."""
    own = run.trials[run.trials["model"] == model]
    found: dict[str, list[tuple[str, str]]] = {}
    for trial in records(own):
        found.setdefault(trial["kind"], []).append((trial["status"], trial["reason"]))
    return found


def statuses(run: Run, model: str) -> list[str]:
    return run.trials.loc[run.trials["model"] == model, "status"].tolist()


def row_of(run: Run, model: str) -> dict[str, Any]:
    (row,) = [row for row in records(run.summary) if row["variant"] == f"{model}@plain"]
    return row


def assert_good(run: Run, model: str) -> None:
    """The variant's rows are whole: right, scored, and timed in both boundaries in every instance of both slices."""
    assert set(statuses(run, model)) == {"ok"}
    own = run.latency[run.latency["variant"] == f"{model}@plain"]
    assert len(own) == 6
    assert set(own["slices"]) == set(own["processes"]) == {2}
    assert set(own["instances"]) == {4}
    assert set(own["samples"]) == {40}
    assert row_of(run, model)["seeds"] == 2


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "plugins", monkeypatch)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Steps]]:
    """One run with variants of every habit side by side, in the same workers."""
    folder = tmp_path_factory.mktemp("company")
    steps = Steps()
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(folder / "plugins", monkeypatch)
        world.add_plain(**COMPANY)
        yield run_all(world, folder / "run", steps=steps, baselines=["good@plain"]), steps


@pytest.fixture
def run(company: tuple[Run, Steps]) -> Run:
    return company[0]


class TestCompany:
    @pytest.mark.parametrize("model", ["good", "other"])
    def test_the_rows_of_a_good_variant_are_whole_whatever_the_others_do(self, run: Run, model: str) -> None:
        assert_good(run, model)

    def test_a_variant_that_ignores_its_state_is_wrong_has_no_latency_and_is_scored_all_the_same(
        self, run: Run
    ) -> None:
        found = ends(run, "ignores")
        assert {status for status, _ in found["parity"] + found["latency"]} == {"wrong"}
        assert "random state" in found["parity"][0][1]
        assert [status for status, _ in found["accuracy"]] == ["ok", "ok"]
        row = row_of(run, "ignores")
        assert row["parity"] == "wrong"
        assert row["parity_ratio"] > 1000
        assert 0 <= row["score"] <= 1
        assert pd.isna(row["single_stream_latency_s"])
        assert run.samples[run.samples["trial"].isin(run.trials.loc[run.trials["model"] == "ignores", "trial"])].empty

    @pytest.mark.parametrize(
        ("model", "status", "reason"),
        [
            ("exits", "crashed", "the worker ended by itself with exit code 7"),
            ("killed", "crashed", "the worker was ended by SIGKILL"),
            ("raises", "failed", "ValueError: a | pipe and a <script> [strangers.py:"),
            ("refuses", "unsupported", "this model runs on Sundays only"),
        ],
    )
    def test_a_variant_that_cannot_be_run_says_so_in_every_row(
        self, run: Run, model: str, status: str, reason: str
    ) -> None:
        for kind in ("parity", "accuracy", "latency"):
            for end in ends(run, model)[kind]:
                assert end[0] == status
                assert end[1].startswith(reason)

    def test_a_variant_that_dies_while_it_is_timed_in_company_is_crashed_and_was_right_before(self, run: Run) -> None:
        found = ends(run, "dies-while")
        assert found["parity"] == [("ok", "")]
        assert set(found["latency"]) == {("crashed", "the worker ended by itself with exit code 7")}

    def test_a_variant_that_is_right_at_first_and_wrong_later_is_caught_after_timing(self, run: Run) -> None:
        found = ends(run, "later")
        assert found["parity"] == [("ok", "")]
        assert {status for status, _ in found["latency"]} == {"wrong"}
        assert all(reason.startswith("after timing: ") for _, reason in found["latency"])
        assert row_of(run, "later")["parity"] == "wrong"
        assert "later@plain" not in set(run.latency["variant"])

    def test_a_training_that_diverges_fails_with_its_step_and_the_rest_of_the_variant_stands(self, run: Run) -> None:
        found = ends(run, "diverges")
        assert set(found["accuracy"]) == {("failed", "training diverged: the loss was nan at step 1")}
        assert found["parity"] == [("ok", "")]
        forward = run.latency[run.latency["variant"] == "diverges@plain"]
        assert set(forward["scenario"]) == {"single-stream", "offline"}

    @pytest.mark.parametrize("model", ["trains-wrongly", "diverges"])
    def test_a_wrong_training_step_is_withheld_and_forward_passes_are_not(self, run: Run, model: str) -> None:
        trials = run.trials[(run.trials["model"] == model) & (run.trials["kind"] == "latency")]
        found = {trial["scenario"]: (trial["status"], trial["reason"]) for trial in records(trials)}
        assert found["single-stream"] == found["offline"] == ("ok", "")
        assert found["training-step"][0] == "wrong"
        assert found["training-step"][1].startswith("training step: ")

    def test_progress_ends_where_it_was_said_to(self, company: tuple[Run, Steps]) -> None:
        steps = company[1]
        assert len(steps.done) == steps.planned

    def test_parity_stands_beside_every_latency_for_every_process_once(self, run: Run) -> None:
        good = run.trials[(run.trials["model"] == "good") & (run.trials["kind"] == "latency")]
        processes = set(run.samples.loc[run.samples["trial"].isin(good["trial"]), "process"])
        assert len(processes) == 2
        checks = run.parity[run.parity["trial"].isin(good["trial"])]
        assert set(zip(checks["process"], checks["moment"], strict=True)) >= {
            (process, moment) for process in processes for moment in ("before", "after")
        }
        assert not checks.duplicated(["process", "moment", "case", "part"]).any()
        questions = set(run.gradients.loc[run.gradients["trial"].isin(good["trial"]), "what"])
        assert questions > {"loss", "gradient of weight_hh_l0", "loss after timing", "movement after timing"}
        parity = run.parity[run.parity["trial"].isin(run.trials.loc[run.trials["kind"] == "parity", "trial"])]
        assert set(parity["process"]) == {0}
        assert set(parity["moment"]) == {"first"}
        assert {"batch 1, time 5, no state", "batch 4, time 5, no state"} <= set(parity["case"])

    def test_the_baseline_is_the_one_that_was_asked_for(self, run: Run) -> None:
        assert set(run.latency["baseline"]) == {"good@plain"}
        good = run.latency[run.latency["variant"] == "good@plain"]
        assert set(good["ratio"]) == {1.0}
        other = run.latency[run.latency["variant"] == "other@plain"]
        assert other["ratio"].notna().all()

    def test_whoever_died_or_was_wrong_left_every_process_with_a_number_and_a_noise_record_of_its_own(
        self, run: Run
    ) -> None:
        sound = run.trials.loc[run.trials["status"] == "ok", "trial"]
        timed = run.samples[run.samples["trial"].isin(sound)]
        assert run.processes["process"].is_unique
        assert set(timed["process"]) <= set(run.processes["process"])
        assert (timed.groupby("process")["slice"].nunique() == 1).all()

    def test_the_baselines_twin_is_timed_beside_it_as_a_row_of_its_own(self, run: Run) -> None:
        (twin,) = records(run.trials[run.trials["kind"] == "calibration"])
        assert (twin["variant"], twin["scenario"], twin["twin"], twin["status"]) == (
            "good@plain",
            "single-stream",
            1,
            "ok",
        )
        assert len(run.samples[(run.samples["trial"] == twin["trial"]) & (run.samples["call"] > 0)]) == 2 * 40
        assert twin["trial"] in set(run.parity["trial"])
        assert twin["trial"] not in set(run.latency["trial"])
        assert len(run.summary[run.summary["variant"] == "good@plain"]) == 1


def test_a_run_of_one_sound_variant_is_whole(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    run = run_all(world, tmp_path / "run")
    assert_good(run, "plain-lstm")
    assert run.samples.columns.tolist() == SAMPLE_COLUMNS
    assert (run.samples["elapsed_s"] > 0).all()
    assert set(run.samples["disturbed"].dropna()) <= {0, 1}
    weights = sorted((tmp_path / "run" / "weights").glob("*.safetensors"))
    assert [path.name for path in weights] == [f"tiny.plain-lstm@plain.seed{seed}.safetensors" for seed in (0, 1)]
    first, second = (load_file(path) for path in weights)
    assert first["weight_ih_l0"].shape == (24, 3)
    assert first["head.weight"].shape == (2, 6)
    assert not np.array_equal(first["head.weight"], second["head.weight"])
    epochs = run.curves[run.curves["score"].notna()]
    assert epochs["epoch"].tolist() == [1.0, 2.0, 1.0, 2.0]
    assert run.curves["training_loss"].notna().all()


def test_the_same_seed_trains_the_same_weights_again(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    text = QUICK + "scenarios = []"
    runs = [run_all(world, tmp_path / name, text, seeds=1) for name in ("one", "two")]
    files = [(tmp_path / name / "weights" / "tiny.plain-lstm@plain.seed0.safetensors") for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert runs[0].curves.equals(runs[1].curves)


def test_a_variant_that_dies_in_the_check_after_timing_takes_no_other_with_it(world: World, tmp_path: Path) -> None:
    dying = {f"dies{number}": "dies after timing" for number in range(2)}
    world.add_plain(**dying, good="", other="")
    run = run_all(world, tmp_path / "run", seeds=0)
    for model in dying:
        assert {status for status, _ in ends(run, model)["latency"]} == {"crashed"}
    assert set(statuses(run, "good")) == set(statuses(run, "other")) == {"ok"}
    assert set(run.latency["variant"]) == {"good@plain", "other@plain"}


def by_scenario(run: Run, model: str) -> dict[str, tuple[str, str]]:
    own = run.trials[(run.trials["model"] == model) & (run.trials["kind"] == "latency")]
    return {trial["scenario"]: (trial["status"], trial["reason"]) for trial in records(own)}


@pytest.mark.parametrize(
    ("habit", "end"),
    [
        ("dies offline", ("crashed", "the worker ended by itself with exit code 9")),
        ("raises offline", ("out-of-memory", "MemoryError: too large a batch [strangers.py:")),
    ],
)
def test_timing_that_fails_in_one_scenario_costs_that_scenario_of_that_variant_alone(
    world: World, tmp_path: Path, habit: str, end: tuple[str, str]
) -> None:
    world.add_plain(bad=habit, good="")
    run = run_all(world, tmp_path / "run", seeds=0)
    found = by_scenario(run, "bad")
    assert found["single-stream"] == found["training-step"] == ("ok", "")
    assert found["offline"][0] == end[0]
    assert found["offline"][1].startswith(end[1])
    assert ends(run, "bad")["parity"] == [("ok", "")]
    timed = run.latency[run.latency["variant"] == "bad@plain"]
    assert set(timed["scenario"]) == {"single-stream", "training-step"}
    assert set(timed["processes"]) == {2}
    assert set(by_scenario(run, "good").values()) == {("ok", "")}


def test_a_variant_that_fails_a_check_beside_others_is_tried_alone_and_what_it_does_alone_counts(
    world: World, tmp_path: Path
) -> None:
    world.add_plain(victim="is wrong in company", good="", bad="is wrong later")
    run = run_all(world, tmp_path / "run", SINGLE, seeds=0, baselines=["good@plain"])
    assert set(statuses(run, "victim")) == set(statuses(run, "good")) == {"ok"}
    (bad,) = ends(run, "bad")["latency"]
    assert bad[0] == "wrong"
    timed = run.samples.merge(run.trials[["trial", "model", "kind"]])
    timed = timed[timed["kind"] == "latency"]
    own, others = (set(timed.loc[timed["model"] == model, "process"]) for model in ("victim", "good"))
    assert len(own) == len(others) == 2
    assert not own & others  # in both slices
    row = run.latency[(run.latency["variant"] == "victim@plain") & (run.latency["boundary"] == "compute")]
    assert set(row["ratio_unit"]) == {"slice"}


def test_a_variant_that_is_wrong_when_it_is_opened_again_is_caught_and_its_worst_answers_stand_for_the_process(
    world: World, tmp_path: Path
) -> None:
    world.add_plain(again="is wrong when opened again", good="")
    run = run_all(world, tmp_path / "run", SINGLE, seeds=0, baselines=["good@plain"])
    found = ends(run, "again")
    assert found["parity"] == [("ok", "")]
    ((status, reason),) = found["latency"]
    assert status == "wrong"
    assert "random state" in reason
    assert not reason.startswith("after timing")  # it was caught before the second instance was timed
    (trial,) = run.trials.loc[(run.trials["model"] == "again") & (run.trials["kind"] == "latency"), "trial"]
    checks = run.parity[run.parity["trial"] == trial].set_index(["moment", "case", "part"])
    assert set(checks["process"]) == {2}  # alone, after the first beside the other and before the others without it
    assert checks.index.is_unique
    far_off = checks["rmse"] > 1000 * checks["yardstick_rmse"]
    assert far_off["before"].any()
    assert not far_off["after"].any()  # only the first instance came that far
    assert run.samples[run.samples["trial"] == trial].empty
    assert set(statuses(run, "good")) == {"ok"}
    assert set(run.latency["instances"]) == {4}


def test_a_variant_that_dies_while_its_second_instance_is_timed_takes_no_other_with_it(
    world: World, tmp_path: Path
) -> None:
    world.add_plain(again="dies while timed again", good="", other="")
    run = run_all(world, tmp_path / "run", SINGLE, seeds=0, baselines=["good@plain"])
    assert ends(run, "again")["parity"] == [("ok", "")]
    assert ends(run, "again")["latency"] == [("crashed", "the worker ended by itself with exit code 10")]
    assert set(statuses(run, "good")) == set(statuses(run, "other")) == {"ok"}
    assert set(run.latency["variant"]) == {"good@plain", "other@plain"}
    assert set(run.latency["slices"]) == set(run.latency["processes"]) == {2}
    assert set(run.latency["instances"]) == {4}
    trials = run.trials.set_index("trial")["model"]
    rows = run.samples[["trial", "slice", "process", "instance"]].drop_duplicates()
    rows = rows.assign(model=rows["trial"].map(trials))
    assert "again" not in set(rows["model"])
    for slice_, shared in ((1, 0), (2, 1)):  # in the first they were tried again one by one, in the second together
        own = rows[rows["slice"] == slice_]
        processes = {model: set(group["process"]) for model, group in own.groupby("model")}
        assert len(processes["good"] & processes["other"]) == shared
    assert run.processes["process"].is_unique
    assert set(rows["process"]) == set(run.processes["process"])


DIARY = """
import os
from collections import Counter
from pathlib import Path
import harness
from strangers import PlainRuntime, PlainSession

class Session(PlainSession):
    def __init__(self, name, *rest):
        super().__init__(*rest)
        self.name, self.calls = name, 0
        self.note("open")
    def note(self, what):
        with Path(__file__).with_name("diary.txt").open("a") as diary:
            print(os.getpid(), what, self.name, id(self), self.calls, file=diary)
    def run(self, prepared):
        self.calls += 1
        return super().run(prepared)
    def close(self): self.note("close")

class Runtime:
    name, frameworks, description = "diary", frozenset({"plain"}), ""
    def open(self, model, weights, options):
        return Session(model.name, model.build(input_size=3, hidden_size=6, num_layers=1), weights)

@harness.hookimpl
def harness_runtimes(): return [Runtime()]
"""


def test_every_instance_has_sessions_of_its_own_and_a_twin_has_one_too(world: World, tmp_path: Path) -> None:
    world.add_plain(base="", other="")
    world.add("diary", DIARY)
    text = SINGLE.replace("instances = 2", "instances = 3")
    run_all(world, tmp_path / "run", text, runtimes=["diary"], seeds=0, baselines=["base@diary"])
    diary = [line.split() for line in (world.folder / "diary.txt").read_text(encoding="utf-8").splitlines()]
    workers = {pid: [entry[1:] for entry in diary if entry[0] == pid] for pid, *_ in diary}
    timing = [entries for entries in workers.values() if any(what == "close" for what, *_ in entries)]
    assert len(timing) == 2  # one process a slice; the sessions that parity was checked on first were never closed
    for entries in timing:
        assert [what for what, *_ in entries] == (["open"] * 3 + ["close"] * 3) * 2 + ["open"] * 3
        for start in (0, 6, 12):
            opened = entries[start : start + 3]
            assert sorted(name for _, name, *_ in opened) == ["base", "base", "other"]
            assert len({session for _, _, session, _ in opened}) == 3
            closed = entries[start + 3 : start + 6]
            assert {(name, session) for _, name, session, _ in closed} in (
                {(name, session) for _, name, session, _ in opened},
                set(),
            )
            assert all(int(calls) >= 2 * 11 + 10 + 2 * (2 * 6) for *_, calls in closed)  # checks, warm-up, four turns


TRAINER = """
import numpy as np
import harness
from strangers import PlainRuntime, PlainTrainer

class Trainer(PlainTrainer):
    def step(self, prepared): return {step}

class Runtime(PlainRuntime):
    def __init__(self): super().__init__("other")
    def open_trainer(self, model, weights, kind, recipe, options):
        {deed}
        return Trainer(weights, kind, recipe)

@harness.hookimpl
def harness_runtimes(): return [Runtime()]
"""


@pytest.mark.parametrize(
    ("deed", "status", "reason"),
    [
        ("raise harness.Unsupported('no training on Sundays')", "unsupported", "no training on Sundays"),
        ("raise ValueError('no head')", "failed", "ValueError: no head [stranger_trainer.py:"),
        ("import os; os._exit(3)", "crashed", "the worker ended by itself with exit code 3"),
    ],
)
def test_a_trainer_that_cannot_be_opened_costs_the_training_step_and_no_forward_pass(
    world: World, tmp_path: Path, deed: str, status: str, reason: str
) -> None:
    world.add_plain(one="", two="")
    world.add("trainer", TRAINER.format(step="super().step(prepared)", deed=deed))
    run = run_all(world, tmp_path / "run", runtimes=["other"], seeds=0)
    for model in ("one", "two"):
        found = by_scenario(run, model)
        assert found["single-stream"] == found["offline"] == ("ok", "")
        assert found["training-step"][0] == status
        assert found["training-step"][1].startswith(reason)
        assert ends(run, model)["parity"] == [("ok", "")]
    assert set(run.latency["scenario"]) == {"single-stream", "offline"}
    assert set(run.latency["processes"]) == {2}


@pytest.mark.parametrize("kind", ["np.float32", "np.float64", "np.asarray"])
def test_a_trainer_whose_loss_is_a_number_of_numpys_is_as_good_as_any(world: World, tmp_path: Path, kind: str) -> None:
    world.add_plain(plain_lstm="")
    world.add("trainer", TRAINER.format(step=f"{kind}(super().step(prepared))", deed="pass"))
    run = run_all(world, tmp_path / "run", runtimes=["other"], seeds=1)
    assert set(statuses(run, "plain-lstm")) == {"ok"}
    assert set(run.latency["scenario"]) == {"single-stream", "offline", "training-step"}
    assert run.curves["training_loss"].notna().all()


# ------------------------------------------------------------------------------------------------- the levels


@pytest.fixture(scope="module")
def two_runtimes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two variants on each of two runtimes, three slices of two instances each."""
    folder = tmp_path_factory.mktemp("levels")
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(folder / "plugins", monkeypatch)
        world.add_plain(one="", two="")
        world.add("player", PLAYER)
        text = QUICK.replace("slices = 2", "slices = 3") + "scenarios = ['single-stream', 'offline']"
        return run_all(world, folder / "run", text, seeds=0, baselines=["one@plain"])


class TestLevels:
    @pytest.fixture
    def samples(self, two_runtimes: Run) -> pd.DataFrame:
        """The samples, with the trials they belong to."""
        return two_runtimes.samples.merge(two_runtimes.trials, on="trial")

    def test_every_slice_process_and_instance_has_samples_of_every_trial(
        self, two_runtimes: Run, samples: pd.DataFrame
    ) -> None:
        assert set(two_runtimes.trials["status"]) == {"ok"}
        for trial, own in samples[samples["call"] > 0].groupby("trial"):
            taken = own.groupby(["boundary", "slice", "instance"]).size()
            everywhere = itertools.product(["compute", "end-to-end"], [1, 2, 3], [1, 2])
            assert taken.to_dict() == dict.fromkeys(everywhere, 10), trial
        timed = two_runtimes.trials.loc[two_runtimes.trials["kind"] != "parity", "trial"]
        assert set(samples["trial"]) == set(timed)
        assert len(timed) == 2 * 2 * 2 + 1

    def test_a_slice_gives_every_runtime_a_process_of_its_own_that_its_variants_share(
        self, samples: pd.DataFrame
    ) -> None:
        processes = samples.groupby(["slice", "runtime"])["process"].unique()
        assert len(processes) == 6
        assert sorted(int(number) for (number,) in processes) == [1, 2, 3, 4, 5, 6]

    def test_slices_follow_each_other_and_so_do_the_instances_of_a_process(self, samples: pd.DataFrame) -> None:
        starts = samples.groupby(["slice", "process", "instance"])["start_s"].agg(["min", "max"]).sort_values("min")
        assert starts.index.is_monotonic_increasing
        assert (starts["max"].iloc[:-1].to_numpy() < starts["min"].iloc[1:].to_numpy()).all()

    def test_the_trials_of_an_instance_take_turns(self, samples: pd.DataFrame) -> None:
        for (slice_, process, _), own in samples.groupby(["slice", "process", "instance"]):
            turns = own[["block", "turn", "trial", "boundary"]].drop_duplicates()
            assert not turns.duplicated(["block", "turn"]).any()
            subjects = own[["trial", "boundary"]].drop_duplicates()
            assert (turns.groupby("block").size() == len(subjects)).all(), (slice_, process)
            assert own["block"].nunique() == 2

    def test_every_session_that_was_timed_tells_how_it_warmed_up(
        self, two_runtimes: Run, samples: pd.DataFrame
    ) -> None:
        place = ["trial", "slice", "process", "instance"]
        instances = two_runtimes.instances
        assert not instances.duplicated(place).any()
        assert set(instances[place].itertuples(index=False, name=None)) == set(
            samples[place].itertuples(index=False, name=None)
        )
        assert instances["warmup_calls"].between(10, 100).all()
        assert set(instances["is_steady"]) <= {True, False}

    def test_every_process_has_one_row_with_what_the_harness_itself_measured_in_it(
        self, two_runtimes: Run, samples: pd.DataFrame
    ) -> None:
        processes = two_runtimes.processes
        assert processes.columns.tolist() == PROCESS_COLUMNS
        assert processes["process"].tolist() == [1, 2, 3, 4, 5, 6]
        assert set(processes[["slice", "process", "runtime"]].itertuples(index=False, name=None)) == set(
            samples[["slice", "process", "runtime"]].itertuples(index=False, name=None)
        )
        assert set(processes["task"]) == {"tiny"}
        for column in ("canary_s", "overhead_s", "overhead_end_to_end_s"):
            assert (processes[column] > 0).all(), column
        assert processes["disturbed_share"].between(0, 1).all()
        starts = samples.groupby("process")["start_s"].agg(["min", "max"]).to_numpy()
        assert (processes["started_s"].to_numpy() < starts[:, 0]).all()
        ended = processes["started_s"].to_numpy() + processes["seconds"].to_numpy()
        assert (starts[:, 1] < ended).all()

    def test_a_row_has_noise_for_everything_that_this_machine_tells(self, two_runtimes: Run) -> None:
        here = noise.NoiseRecord()
        with here:
            pass
        for column, value in here.row().items():
            found = two_runtimes.processes[column]
            assert value is None or found.notna().all() or column.endswith("share"), column

    def test_variants_of_a_runtime_are_paired_in_their_instances_and_others_in_their_slices(
        self, two_runtimes: Run
    ) -> None:
        units = {variant: set(own["ratio_unit"].dropna()) for variant, own in two_runtimes.latency.groupby("variant")}
        assert units.pop("one@plain") == set()
        assert units == {"two@plain": {"process"}, "one@player": {"slice"}, "two@player": {"slice"}}


def test_a_process_in_which_nothing_was_timed_has_no_row(world: World, tmp_path: Path) -> None:
    world.add_plain(bad="trains wrongly")
    run = run_all(world, tmp_path / "run", QUICK + "scenarios = ['training-step']", seeds=0)
    assert {status for status, _ in ends(run, "bad")["latency"]} == {"wrong"}
    assert run.samples.empty
    assert run.processes.empty


def test_what_a_thread_was_at_when_the_run_is_interrupted_is_not_journalled(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    world.add_plain(plain_lstm="hangs")
    catalog = world.catalog()
    plan = make_plan(parse_suite("seeds = 1\n[latency]\nscenarios = []", "suite"), catalog)
    parity, accuracy = plan.trials
    folder = RunFolder(tmp_path / "run", {**HEADER, "trials": [], "baselines": {}})
    context = Context(plan, catalog, folder)
    context.record(parity, Outcome())
    started = threading.Event()
    failures: list[WorkerFailure] = []

    def hang() -> None:
        with context.worker([accuracy.variant]) as worker:
            worker.ask("open", 60, key="k", **context.variant(accuracy))
            started.set()
            try:
                worker.ask("parity", 60, key="k", shapes=[])
            except WorkerFailure as failure:
                failures.append(failure)
                context.record(accuracy, Outcome(failure.status, failure.reason))

    def interrupt() -> None:
        assert started.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        context.parallel(lambda job: job(), [interrupt, hang])
    folder.close()
    assert [failure.status for failure in failures] in (["crashed"], ["failed"])  # its worker was ended under it
    _, (_, _, record) = read_journal(tmp_path / "run" / "journal.jsonl").records
    assert record["trial"] == parity.id
    with pytest.raises(Stopped), context.worker([]):
        raise AssertionError("no worker begins any more")


@pytest.mark.slow
def test_a_variant_that_hangs_is_timed_out_and_the_others_rows_are_whole(world: World, tmp_path: Path) -> None:
    world.add_plain(hangs="hangs", good="")
    run = run_all(world, tmp_path / "run", QUICK.replace("trial_seconds = 60", "trial_seconds = 5"), seeds=0)
    assert set(statuses(run, "hangs")) == {"timed-out"}
    assert ends(run, "hangs")["parity"] == [("timed-out", "'first_call' took longer than 5 s")]
    assert set(statuses(run, "good")) == {"ok"}


PLAYER = """
import harness
from strangers import PlainRuntime, TINY, plain_model

class Player:
    name, frameworks, description = "player", frozenset({"plain"}), ""
    def open(self, *arguments): return PlainRuntime().open(*arguments)

@harness.hookimpl
def harness_runtimes(): return [Player()]
"""
GIVES_THE_REST = """
@harness.hookimpl
def harness_models(): return [plain_model()]

@harness.hookimpl
def harness_tasks(): return [TINY]
"""


def test_where_nothing_installed_can_train_accuracy_is_skipped_and_the_rest_is_there(
    world: World, tmp_path: Path
) -> None:
    world.add("player", PLAYER + GIVES_THE_REST)
    run = run_all(world, tmp_path / "run")
    found = ends(run, "plain-lstm")
    assert found["accuracy"] == [("skipped", "nothing installed can train architecture 'lstm'")] * 2
    assert found["parity"] == [("ok", "")]
    assert set(run.latency["scenario"]) == {"single-stream", "offline"}


def test_what_cannot_train_is_scored_on_the_weights_of_what_can_and_agrees_with_it(
    world: World, tmp_path: Path
) -> None:
    world.add("player", PLAYER)
    world.add_plain(plain_lstm="")
    run = run_all(world, tmp_path / "run", QUICK + "scenarios = []", runtimes=["player"])
    assert run.trials["variant"].unique().tolist() == ["plain-lstm@player"]
    assert run.scores["agreeing_rows"].tolist() == [10, 10]
    assert run.scores["score"].tolist() == run.scores["trainer_score"].tolist()
    row = records(run.summary)[0]
    assert (row["trained_by"], row["agreeing_rows"], row["rows"]) == ("plain-lstm@plain", 10, 10)
    assert row["score_difference"] == 0


@pytest.mark.parametrize("player", ["aaa-player", "zzz-player"])  # planned before the runtime that trains, or after
def test_a_training_is_the_row_of_the_variant_that_trained_whoever_else_uses_its_weights(
    world: World, tmp_path: Path, player: str
) -> None:
    world.add(player, PLAYER)
    world.add_plain(plain_lstm="")
    run = run_all(world, tmp_path / "run", QUICK + "scenarios = []")
    assert set(run.trials["status"]) == {"ok"}
    scored = run.scores.merge(run.trials[["trial", "variant"]], on="trial")
    own = scored[scored["variant"] == "plain-lstm@plain"]
    assert len(own) == 2
    assert own["trainer_score"].isna().all()
    assert set(run.curves["trial"]) == set(own["trial"])
    others = scored[scored["variant"] == "plain-lstm@player"]
    assert others["trainer_score"].tolist() == own["score"].tolist()


def test_where_training_failed_what_waits_for_its_weights_is_skipped_with_the_reason(
    world: World, tmp_path: Path
) -> None:
    world.add("player", PLAYER)
    world.add_plain(bad="diverges")
    run = run_all(world, tmp_path / "run", QUICK + "scenarios = []", runtimes=["player"])
    reason = "training bad@plain ended as failed: training diverged: the loss was nan at step 1"
    assert ends(run, "bad")["accuracy"] == [("skipped", reason)] * 2


def test_a_wrong_model_that_calls_itself_the_yardstick_is_still_wrong(world: World, tmp_path: Path) -> None:
    world.add_plain(good="")
    world.add(
        "impostor",
        "import harness\nfrom strangers import plain_model\n@harness.hookimpl\ndef harness_models():\n"
        "    return [plain_model('impostor', 'ignores its state', yardstick=True)]\n",
    )
    run = run_all(world, tmp_path / "run", QUICK + "scenarios = []", seeds=0)
    assert statuses(run, "impostor") == ["wrong"]
    assert statuses(run, "good") == ["ok"]


ODD = """
from dataclasses import replace
import harness
from strangers import plain_model

def raises(*_): raise ValueError("no idea")

ODD = replace(harness.LSTM, name="odd", {part}=raises)

@harness.hookimpl
def harness_models(): return [replace(plain_model("odd-lstm"), architecture=ODD)]
"""


@pytest.mark.parametrize("part", ["reference", "weight_shapes"])
def test_an_architecture_that_raises_costs_its_own_rows_alone(world: World, tmp_path: Path, part: str) -> None:
    world.add_plain(good="")
    world.add("odd", ODD.format(part=part))
    run = run_all(world, tmp_path / "run", QUICK + "scenarios = []", seeds=0)
    assert statuses(run, "good") == ["ok"]
    ((status, reason),) = ends(run, "odd-lstm")["parity"]
    assert status == "failed"
    assert "no idea" in reason


LIAR = """
import harness
from strangers import PlainRuntime, PlainSession

class Session(PlainSession):
    def fetch(self, raw): return {fetched}

class Runtime:
    name, frameworks, description = "liar", frozenset({{"plain"}}), ""
    def open(self, model, weights, options):
        return Session(model.build(input_size=3, hidden_size=6, num_layers=1), weights)

@harness.hookimpl
def harness_runtimes(): return [Runtime()]
"""


@pytest.mark.parametrize(
    ("fetched", "status", "reason"),
    [
        ("raw.y", "failed", "fetch gave a ndarray; it must give harness.Outputs"),
        ("None", "failed", "fetch gave a NoneType; it must give harness.Outputs"),
        ("harness.Outputs(raw.y, raw.state[:1])", "failed", "fetch gave 1 state arrays; lstm has 2"),
        ("harness.Outputs(raw.y * float('nan'), raw.state)", "wrong", "y at batch"),
        ("harness.Outputs(raw.y.astype('float64'), raw.state)", "wrong", "y at batch"),
    ],
)
def test_a_runtime_that_gives_something_else_is_found_out(
    world: World, tmp_path: Path, fetched: str, status: str, reason: str
) -> None:
    world.add_plain(plain_lstm="")
    world.add("liar", LIAR.format(fetched=fetched))
    run = run_all(world, tmp_path / "run", QUICK + "scenarios = []", runtimes=["liar"], seeds=0)
    ((got_status, got_reason),) = ends(run, "plain-lstm")["parity"]
    assert got_status == status
    assert got_reason.startswith(reason)


SPOILER = """
import numpy as np
import harness
from strangers import plain_model
tanh = np.tanh
np.tanh = lambda x: tanh(x) * np.float32(0) if np.asarray(x).dtype == np.float32 else tanh(x)

@harness.hookimpl
def harness_models(): return [plain_model("another")]
"""


def test_a_plugin_that_spoils_numpy_does_not_make_another_plugins_wrong_model_right(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("aaa-spoiler", SPOILER)
    world.add_plain("zzz-wrong", forgetful="ignores its state")
    monkeypatch.setattr(world, "catalog", survey)  # the spoiler must not be imported here
    run = run_all(world, tmp_path / "run", "tasks = ['tiny']\n[latency]\nscenarios = []", seeds=0)
    assert list(run.trials["model"]) == ["another", "forgetful"]
    assert ends(run, "forgetful")["parity"][0][0] == "wrong"


ROOMLESS = """
import harness
from strangers import PlainRuntime

class Roomless(PlainRuntime):
    def __init__(self): super().__init__("roomless")
    def initial_weights(self, *_): raise OSError(28, "No space left on device")

@harness.hookimpl
def harness_runtimes(): return [Roomless()]
"""


@pytest.mark.parametrize("is_full", [True, False])
def test_what_fails_for_want_of_room_ends_the_run_where_there_is_none_and_else_is_a_row(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    def check_room(folder: RunFolder) -> None:
        if is_full:
            raise StoreError("no room")

    world.add_plain(plain_lstm="")
    world.add("roomless", ROOMLESS)
    monkeypatch.setattr(RunFolder, "check_room", check_room)
    if is_full:
        with pytest.raises(StoreError, match="no room"):
            run_all(world, tmp_path / "run", runtimes=["roomless"])
        run = load(tmp_path / "run")
        assert "accuracy" in set(run.trials.loc[run.trials["trial"].isin(run.missing), "kind"])
    else:
        run = run_all(world, tmp_path / "run", runtimes=["roomless"])
        assert ends(run, "plain-lstm")["accuracy"][0][0] == "failed"


TASK = """
import os
import harness
from strangers import TINY
from dataclasses import replace

def load(data_dir):
    {deed}

@harness.hookimpl
def harness_tasks(): return [replace(TINY, name="sick", load=load)]
"""


def test_data_that_the_user_can_mend_is_asked_for_before_anything_is_written(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    world.add("sick", TASK.format(deed="raise harness.DataError(f'put x.gz into {data_dir}')"))
    catalog = world.catalog()
    preflight(make_plan(parse_suite("tasks = ['tiny']", "suite"), catalog), catalog, tmp_path)
    with pytest.raises(HarnessError) as raised:
        preflight(make_plan(parse_suite("", "suite"), catalog), catalog, tmp_path)
    assert str(raised.value) == f"task 'sick': put x.gz into {tmp_path}"


@pytest.mark.parametrize(
    ("deed", "end"),
    [
        ("raise harness.Unsupported('not on Sundays')", ("unsupported", "not on Sundays")),
        ("raise KeyError('train')", ("failed", "KeyError: 'train'")),
        ("os._exit(4)", ("crashed", "the worker ended by itself with exit code 4")),
        ("return None", ("failed", "AttributeError")),
    ],
)
def test_a_task_whose_plugin_fails_at_its_data_costs_its_own_rows_alone(
    world: World, tmp_path: Path, deed: str, end: tuple[str, str]
) -> None:
    world.add_plain(plain_lstm="")
    world.add("sick", TASK.format(deed=deed))
    catalog = world.catalog()
    found = preflight(make_plan(parse_suite("", "suite"), catalog), catalog, tmp_path)
    assert set(found.broken_tasks) == {"sick"}
    assert found.broken_tasks["sick"].status == end[0]
    assert found.broken_tasks["sick"].reason.startswith(end[1])


def test_a_device_that_is_not_there_is_found_out_before_anything_is_written(world: World) -> None:
    world.add_plain(plain_lstm="")
    catalog = world.catalog()
    plan = make_plan(parse_suite("device = 'cuda'", "suite"), catalog)
    with pytest.raises(HarnessError) as raised:
        preflight(plan, catalog, None)
    assert not isinstance(raised.value, Unsupported)
    assert str(raised.value) == "runtime 'plain' has no device 'cuda'"


def test_a_variant_that_is_broken_says_nothing_of_the_device_and_costs_its_own_rows_alone(world: World) -> None:
    world.add_plain(plain_lstm="")
    world.add("player", PLAYER.replace("return PlainRuntime().open(*arguments)", "raise ValueError('broken')"))
    catalog = world.catalog()
    preflight(make_plan(parse_suite("device = 'cuda'", "suite"), catalog), catalog, None)
    with pytest.raises(HarnessError, match="no device 'cuda'"):
        preflight(make_plan(parse_suite("device = 'cuda'\nruntimes = ['plain']", "suite"), catalog), catalog, None)
