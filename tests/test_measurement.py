"""Measuring, with workers that answer from a script: what is asked of them in which order, whom a death costs what, and
when it is known enough."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import FirstAnswers
from strangers import TINY, PlainRuntime, plain_model

from harness import Architecture, Outputs, estimates, stats
from harness.catalog import Catalog, Entry, Plugin
from harness.engine.process import WorkerFailure
from harness.engine.replies import checked
from harness.engine.run import execute
from harness.engine.verification import worst_of
from harness.journal import read_journal
from harness.plan import make_plan
from harness.schema import PROCESS_COLUMNS
from harness.store import Run, RunFolder, load
from harness.suite import Latency, Suite, override
from harness.tables import instance_medians, records

OWNER = Plugin("here", "rnn-here", "1.0")
NOTHING = Architecture("nothing", 1, lambda size: {}, lambda weights, inputs, size: Outputs(inputs.x, ()), ())
NOISE: dict[str, Any] = {
    "started_s": 5.0,
    "seconds": 2.0,
    "canary_s": 1e-4,
    "overhead_s": 1e-7,
    "overhead_end_to_end_s": 2e-7,
}
NOISE |= dict.fromkeys(PROCESS_COLUMNS[11:], None) | {
    "governor": "steady",
    "clock": "host",
    "page_faults_minor": 3,
    "gc_collections": 0,
}
HONEST: dict[str, Any] = {  # evidence
    "compute_s": 1e-3,
    "around_s": 0.0,
    "moved_bytes": 0,
    "flops": 0.0,
    "peak_flops_per_s": None,
    "repeated_s": 1e-3,
    "outputs": [],
    "changed_inputs": 0,
    "worker_s": 1.0,
    "engine_s": 0.0,
}
QUICKLY = Latency(scenarios=["single-stream"], slices=2, instances=2, calls=10)

Request = tuple[str, dict[str, Any]]


class Script:
    """What all workers of a run answer.

    Attributes:
        latency: seconds that a call takes: of a session and scenario, in a process (counted from 1 among those that
            time) and instance.
        rmse: how far a session is off in a process (0 for those that do not time) and instance.
        ramp: by which share of that a call of a turn takes longer than the one before it, likewise; the third takes it.
        happens: called before every answer with the worker, the request and its arguments; it may raise.
        workers: all that were started.
        counters: what counts energy on the machine.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.latency: Callable[[str, str, int, int], float] = lambda session, scenario, process, instance: 0.001
        self.ramp: Callable[[str, str, int, int], float] = lambda session, scenario, process, instance: 0.0
        self.rmse: Callable[[str, int, int], float] = lambda session, process, instance: 0.0
        self.happens: Callable[[Scripted, str, dict[str, Any]], None] = lambda worker, do, arguments: None
        self.mark: bool | None = False
        self.busy_cores: Callable[[Scripted], float] = lambda worker: 0.0
        self.workers: list[Scripted] = []
        self.counters: tuple[Any, ...] = ()
        monkeypatch.setattr(
            "harness.engine.context.WorkerProcess",
            lambda threads, *_, python=None, plugins=None, **others: Scripted(self, threads, python, plugins),
        )
        monkeypatch.setattr("harness.engine.verification.energy_counters", lambda: self.counters)

    @property
    def timing(self) -> list[Scripted]:
        """The workers that were to time something, in order."""
        return [worker for worker in self.workers if worker.process]


class Scripted(FirstAnswers):
    """A worker that answers from a script."""

    def __init__(self, script: Script, threads: int, python: str | None, plugins: Collection[str] | None) -> None:
        self.threads = threads
        self.python = python
        self.plugins = plugins
        self.process = 0
        self.instance = 1
        self.requests: list[Request] = []
        self.is_closed = False
        self._script = script
        script.workers.append(self)

    def ask(self, do: str, seconds: float, **arguments: Any) -> Any:
        assert not self.is_closed
        self.requests.append((do, arguments | {"limit": seconds}))
        self._script.happens(self, do, arguments)
        return checked(do, getattr(self, do)(**arguments))

    def equations(self, **_: Any) -> Any:
        return [observation(0.0)]

    def parity(self, key: str, **_: Any) -> Any:
        return [observation(self._script.rmse(key, self.process, self.instance))]

    def gradients(self, key: str, task: str) -> Any:
        return [{"what": "loss", "error": 0.0, "allowed": 0.0, "expected": 1.0}]

    def timed_trainer(self, key: str, task: str) -> Any:
        return [{"what": "loss after timing", "error": 0.0, "allowed": 0.0, "expected": 1.0}]

    def idle(self) -> Any:
        return {"busy_cores": self._script.busy_cores(self)}

    def start_timing(self) -> Any:
        self.process = 1 + len(self._script.timing)
        return {}

    def sample(self, points: list[dict[str, Any]], calls: int, **_: Any) -> Any:
        rows: list[list[Any]] = []
        for block, (index, point), boundary in itertools.product(
            range(calls // 5), enumerate(points), ("compute", "end-to-end")
        ):
            at = (point["key"], point["scenario"], self.process, self.instance)
            third, ramp = self._script.latency(*at), self._script.ramp(*at)
            turn = 2 * index + (boundary == "end-to-end")
            rows += [[index, boundary, block, turn, 0, 1e9, 1000.0, self._script.mark]]
            for call in range(1, 6):
                elapsed = third * (1 + ramp * (call - 3))
                rows.append([index, boundary, block, turn, call, 1e9, elapsed, self._script.mark])
        warm_ups = [[index, 10 + index, index % 2 == 0] for index in range(len(points))]
        work = [(point["batch"], point["batch"] * point["time"]) for point in points]
        return {"samples": rows, "warmup": warm_ups, "evidence": [HONEST] * len(points), "work": work, "clock": "host"}

    def release(self) -> Any:
        self.instance += 1
        return {}

    def finish_timing(self) -> Any:
        return NOISE

    def close(self) -> None:
        self.is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def did(self, *names: str) -> list[Request]:
        return [request for request in self.requests if request[0] in names]


def observation(rmse: float) -> dict[str, Any]:
    return {"case": "one", "part": "y", "rmse": rmse, "max_abs_error": rmse, "reference_rms": 1.0, "problem": ""}


class Steps:
    """Progress that is written down."""

    def __init__(self) -> None:
        self.planned: list[int] = []
        self.begun: list[str] = []
        self.done: list[str] = []
        self.left_out: list[int] = []

    def phase(self, title: str, steps: int) -> None:
        if title == "latency":
            self.planned.append(steps)
            self.done.clear()

    def step(self, what: str) -> None:
        self.done.append(what)

    def running(self, what: str) -> None:
        self.begun.append(what)

    def fewer(self, steps: int) -> None:
        self.left_out.append(steps)


A_CATALOG = (plain_model("a"), plain_model("b"), plain_model("c"), PlainRuntime("one"), PlainRuntime("two"), TINY)


def kind_of(value: Any) -> str:
    return "model" if hasattr(value, "architecture") else "task" if hasattr(value, "recipe") else "runtime"


def run_all(path: Path, *values: Any, latency: Latency = QUICKLY, steps: Steps | None = None, **changes: Any) -> Run:
    """A run without training of these models, runtimes and tasks; by default a, b and c on one runtime."""
    catalog = Catalog((OWNER,), tuple(Entry(kind_of(v), v.name, v, OWNER) for v in values or A_CATALOG))
    chosen = {"runtimes": ["one"], "baselines": ["a@one"]} if not values else {}
    plan = make_plan(override(Suite(seeds=0, latency=latency), **(chosen | changes)), catalog)
    header: dict[str, Any] = {"name": "scripted", "floors": list(plan.floors), "plugins": [], "environment": {}}
    owners = {(entry.kind, entry.name): entry.plugin for entry in catalog.entries}
    header |= {"trials": [trial.row(owners) for trial in plan.trials], "suite": plan.suite.model_dump()}
    folder = RunFolder(path, header | {"baselines": {name: str(variant) for name, variant in plan.baselines.items()}})
    try:
        execute(plan, catalog, folder, None, steps)
    finally:
        folder.close()
    found = [record for _, _, record in read_journal(path / "journal.jsonl").records]
    assert sorted(record["trial"] for record in found if "trial" in record) == [trial.id for trial in plan.trials]
    return load(path)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


def ends(run: Run, kind: str = "latency") -> dict[str, tuple[str, str]]:
    """How trials ended, by variant and, of several scenarios, the scenario."""
    own = records(run.trials[run.trials["kind"] == kind])
    several = len({trial["scenario"] for trial in own}) > 1
    return {trial["variant"] + f" {trial['scenario']}" * several: (trial["status"], trial["reason"]) for trial in own}


def timed(run: Run) -> pd.DataFrame:
    """Who was timed where: variant, twin, slice, process and instance."""
    merged = run.samples.merge(run.trials[["trial", "variant", "twin", "scenario"]], on="trial")
    return merged[["variant", "twin", "scenario", "slice", "process", "instance"]].drop_duplicates()


def slices(run: Run) -> int:
    return int(run.samples["slice"].max())


def processes(run: Run, variant: str) -> set[int]:
    own = timed(run)
    return set(own.loc[own["variant"] == variant, "process"])


OK = ("ok", "")
DEAD = WorkerFailure("crashed", "the worker was ended by SIGSEGV", alive=False)
HURT = WorkerFailure("failed", "MemoryError", alive=True)


def dying(
    do: str, key: str, failure: WorkerFailure = DEAD, instance: int = 1, process: int = 0, scenario: str = ""
) -> Callable[[Scripted, str, dict[str, Any]], None]:
    """In this instance of every process that times, or of one of them, a request that has to do with the key fails."""

    def happens(worker: Scripted, asked: str, arguments: dict[str, Any]) -> None:
        points = arguments.get("points", [{"key": arguments.get("key"), "scenario": scenario}])
        concerned = any(p["key"] == key and scenario in ("", p["scenario"]) for p in points)
        here = worker.instance == instance and worker.process and process in (0, worker.process)
        if asked == do and concerned and here:
            raise failure

    return happens


# ------------------------------------------------------------------------------------------------- what is asked


def test_an_instance_is_opened_and_checked_timed_and_checked_and_released_before_the_next(
    script: Script, tmp_path: Path
) -> None:
    run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"instances": 3}))
    assert len(script.timing) == 2
    instance = ["open", "parity"] * 4 + ["sample"] + ["parity"] * 4  # a, its twin, b and c
    for worker in script.timing:
        asked = [do for do, _ in worker.requests if do != "idle"]
        assert asked == ["start_timing", *instance, "release", *instance, "release", *instance, "finish_timing"]
        opened = [arguments["key"] for _, arguments in worker.did("open")]
        assert Counter(opened) == dict.fromkeys(["a@one", "a@one#1", "b@one", "c@one"], 3)
        for start in (0, 4, 8):
            (points,) = {
                tuple(point["key"] for point in arguments["points"])
                for _, arguments in worker.did("sample")[start // 4 : start // 4 + 1]
            }
            assert sorted(points) == sorted(opened[start : start + 4])


def test_the_sessions_of_an_instance_are_opened_in_another_order_each_time(script: Script, tmp_path: Path) -> None:
    run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"instances": 20}))
    orders = [
        tuple(point["key"] for point in arguments["points"])
        for worker in script.timing
        for _, arguments in worker.did("sample")
    ]
    assert len(orders) == 40
    assert len(set(orders)) > 10  # of 24
    assert {order[0] for order in orders} == {"a@one", "a@one#1", "b@one", "c@one"}


def test_every_instance_takes_turns_in_an_order_of_its_own(script: Script, tmp_path: Path) -> None:
    run_all(tmp_path / "run")
    seeds = [arguments["seed"] for worker in script.timing for _, arguments in worker.did("sample")]
    assert len(set(seeds)) == len(seeds) == 4


def test_the_suite_says_how_much_is_measured_and_how_long_it_may_take(script: Script, tmp_path: Path) -> None:
    latency = QUICKLY.model_copy(update={"calls": 20, "seconds": 0.125})
    run_all(tmp_path / "run", latency=latency, trial_seconds=7.0)
    for worker in script.timing:
        for _, arguments in worker.did("sample"):
            assert (arguments["calls"], arguments["budget"]) == (20, 0.125)
            assert arguments["limit"] == 7.0 * len(arguments["points"]) == 28.0
            assert {(p["scenario"], p["batch"], p["time"], p["task"]) for p in arguments["points"]} == {
                ("single-stream", 1, 5, "tiny")
            }


def test_scenarios_of_a_variant_share_a_session_and_twins_have_one_of_their_own(script: Script, tmp_path: Path) -> None:
    scenarios = ["single-stream", "offline", "training-step"]
    latency = QUICKLY.model_copy(update={"scenarios": scenarios, "twins": 2})
    run_all(tmp_path / "run", latency=latency, models=["a"])
    expected = [("a@one", scenario) for scenario in scenarios] + [(f"a@one#{k}", "single-stream") for k in (1, 2)]
    for worker in script.timing:
        for _, arguments in worker.did("sample"):
            assert sorted((p["key"], p["scenario"]) for p in arguments["points"]) == sorted(expected)
        assert len(worker.did("open")) == 2 * 3


def test_gradients_are_checked_before_the_first_instance_and_the_timed_trainer_after_every_one(
    script: Script, tmp_path: Path
) -> None:
    latency = QUICKLY.model_copy(update={"scenarios": ["single-stream", "training-step"], "instances": 3, "twins": 0})
    run = run_all(tmp_path / "run", latency=latency, models=["a"])
    instance = ["open", "parity", "sample", "parity", "timed_trainer", "release"]
    for worker in script.timing:
        asked = [do for do, _ in worker.requests if do != "idle"][1:]
        assert asked == ["open", "parity", "gradients", *instance[2:], *instance, *instance[:-1], "finish_timing"]
    found = run.gradients[["process", "what"]]
    assert sorted(found.itertuples(index=False, name=None)) == [
        (process, what) for process in (1, 2) for what in ("loss", "loss after timing")
    ]


def test_a_twin_of_a_training_step_has_its_gradients_checked_too(script: Script, tmp_path: Path) -> None:
    latency = QUICKLY.model_copy(update={"scenarios": ["training-step"]})
    run_all(tmp_path / "run", latency=latency, models=["a"])
    for worker in script.timing:
        assert {arguments["key"] for _, arguments in worker.did("gradients")} == {"a@one", "a@one#1"}
        assert {arguments["key"] for _, arguments in worker.did("timed_trainer")} == {"a@one", "a@one#1"}


def test_every_slice_gives_every_runtime_a_worker_in_an_order_that_changes(script: Script, tmp_path: Path) -> None:
    runtimes = [PlainRuntime(name) for name in ("one", "two", "three")]
    latency = QUICKLY.model_copy(update={"slices": 20, "twins": 0})
    run = run_all(tmp_path / "run", plain_model("a"), *runtimes, TINY, latency=latency)
    orders = [tuple(own["runtime"]) for _, own in run.processes.groupby("slice")]
    assert len(orders) == 20
    assert {frozenset(order) for order in orders} == {frozenset({"one", "two", "three"})}
    assert len(set(orders)) > 3  # of 6
    assert run.processes["process"].tolist() == list(range(1, 61))
    assert all(worker.is_closed for worker in script.workers)


def test_each_interpreter_has_workers_of_its_own(script: Script, tmp_path: Path) -> None:
    run = run_all(
        tmp_path / "run", models=["a"], runtimes=["one", "two"], baselines=[], pythons={"new": "/new", "old": "/old"}
    )
    assert Counter(worker.python for worker in script.timing) == {"/new": 4, "/old": 4}
    assert not processes(run, "a@one[new]") & processes(run, "a@one[old]")
    whose = set(run.processes[["slice", "runtime", "python"]].itertuples(index=False, name=None))
    assert whose == set(itertools.product((1, 2), ("one", "two"), ("new", "old")))
    for worker in script.timing:
        (_, arguments), *_ = worker.did("open")
        assert worker.python == "/" + arguments["key"].partition("[")[2].partition("]")[0]
        assert "python" not in arguments


# ------------------------------------------------------------------------------------------------- what is kept


def test_the_machine_is_measured_once_without_plugins_after_parity_and_before_anything_is_timed(
    script: Script, tmp_path: Path
) -> None:
    run = run_all(tmp_path / "run", threads=2)
    (own,) = [worker for worker in script.workers if worker.did("machine")]
    assert (own.plugins, own.python, own.threads) == ([], None, 1)  # a BLAS is not to start threads of its own
    assert own.requests == [("machine", {"dtype": "float32", "threads": 2, "limit": 3600.0})]
    assert script.workers.index(own) == len(script.workers) - 1 - len(script.timing)
    assert run.machine.to_dict("list") == {
        "device": ["cpu"] * 2,
        "dtype": ["float32"] * 2,
        "threads": [2] * 2,
        "what": ["flops", "read"],
        "working_set_bytes": [2**20] * 2,
        "flops_per_s": [1e9, pytest.approx(math.nan, nan_ok=True)],
        "bytes_per_s": [pytest.approx(math.nan, nan_ok=True), 1e10],
    }
    compute = run.latency[run.latency["boundary"] == "compute"]
    assert compute["bound_s"].tolist() == [pytest.approx(2 * 5 * 24 * (3 + 6) / 1e9)] * 3


def test_who_has_timed_first_says_whose_clock_times_the_run(script: Script, tmp_path: Path) -> None:
    run_all(tmp_path / "run", slices=2)
    asked = [arguments["clock"] for worker in script.timing for do, arguments in worker.requests if do == "sample"]
    assert asked[0] is None
    assert set(asked[1:]) == {"host"}


@pytest.mark.parametrize(
    ("scenarios", "device", "rmse"),
    [
        ([], "cpu", 0.0),
        (["training-step"], "cpu", 0.0),
        (["single-stream"], "cuda", 0.0),
        (["single-stream"], "cpu", math.inf),
    ],
)
def test_the_machine_is_not_measured_where_no_forward_pass_is_to_be_timed_on_it(
    script: Script, tmp_path: Path, scenarios: list[Any], device: str, rmse: float
) -> None:
    script.rmse = lambda session, process, instance: rmse
    run = run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"scenarios": scenarios}), device=device)
    assert [worker.did("machine") for worker in script.workers if worker.did("machine")] == []
    assert run.machine.empty
    assert run.latency["bound_s"].isna().all()


def test_the_machine_is_measured_in_every_dtype_and_number_of_threads_of_a_sweep_and_rows_have_their_own(
    script: Script, tmp_path: Path
) -> None:
    sweep = {"dtype": ["float64", "float32"], "threads": [1, 2], "hidden_size": [6, 12]}
    run = run_all(tmp_path / "run", models=["a"], sweep=sweep)
    asked = [arguments for worker in script.workers for _, arguments in worker.did("machine")]
    settings = [(arguments["dtype"], arguments["threads"]) for arguments in asked]
    assert sorted(settings) == [("float32", 1), ("float32", 2), ("float64", 1), ("float64", 2)]
    found = run.machine[["dtype", "threads"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(found) == settings
    assert run.latency.loc[run.latency["boundary"] == "compute", "bound_s"].gt(0).sum() == 8


@pytest.mark.parametrize(("rate", "status"), [(3.9e9, "ok"), (4.1e9, "wrong")])
def test_a_worker_that_was_busy_when_it_multiplied_is_held_against_what_the_machine_attained_before(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, status: str
) -> None:
    """The scripted machine makes 1e9 operations a second, and four times that is allowed."""
    monkeypatch.setitem(HONEST, "peak_flops_per_s", 1e6)
    monkeypatch.setitem(HONEST, "flops", rate * HONEST["compute_s"])
    run = run_all(tmp_path / "run")
    assert {end[0] for end in ends(run).values()} == {status}
    bound = run.audits[run.audits["audit"] == "bound"]
    assert set(bound["allowed"]) == {4e9}


def test_a_machine_that_cannot_be_measured_costs_the_bounds_and_no_row(script: Script, tmp_path: Path) -> None:
    def happens(worker: Scripted, asked: str, arguments: dict[str, Any]) -> None:
        if asked == "machine":
            raise WorkerFailure("out-of-memory", "MemoryError", alive=False)

    script.happens = happens
    run = run_all(tmp_path / "run")
    assert set(run.trials["status"]) == {"ok"}
    assert run.machine.empty
    assert run.latency["bound_s"].isna().all()
    assert len(run.latency) == 6


def test_a_run_that_is_gone_on_with_does_not_measure_the_machine_again(script: Script, tmp_path: Path) -> None:
    whole = run_all(tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = [number for number, line in enumerate(lines) if '"machine":' in line]
    journal.write_text("".join(lines[: place + 1]), encoding="utf-8")
    asked = len(script.workers)
    folder, past = RunFolder.reopen(tmp_path / "run")
    assert past.machine.equals(whole.machine)
    catalog = Catalog((OWNER,), tuple(Entry(kind_of(v), v.name, v, OWNER) for v in A_CATALOG))
    plan = make_plan(Suite(**past.header["suite"]), catalog)
    execute(plan, catalog, folder, None, None, past)
    folder.close()
    assert [worker for worker in script.workers[asked:] if worker.did("machine")] == []
    run = load(tmp_path / "run")
    assert set(run.trials["status"]) == {"ok"}
    assert run.machine.equals(whole.machine)
    assert run.latency["bound_s"].notna().any()


def test_rows_are_kept_under_their_own_trial_slice_process_and_instance(script: Script, tmp_path: Path) -> None:
    def of(session: str, scenario: str, process: int, instance: int) -> float:
        return 1.0 + "abc".index(session[0]) + 10 * (scenario == "offline") + 100 * process + 1000 * instance

    script.latency = of
    latency = QUICKLY.model_copy(update={"scenarios": ["single-stream", "offline"], "slices": 3})
    run = run_all(tmp_path / "run", latency=latency)
    medians = instance_medians(run.samples)
    everywhere = [(number, number, instance) for number in (1, 2, 3) for instance in (1, 2)]
    timed_trials = records(run.trials[run.trials["kind"] != "parity"])
    assert len(timed_trials) == 7
    for trial, boundary in itertools.product(timed_trials, ("compute", "end-to-end")):
        assert medians[trial["trial"], boundary] == {
            key: of(trial["variant"], trial["scenario"], key[1], key[2]) for key in everywhere
        }
    assert set(run.samples.loc[run.samples["call"] == 0, "elapsed_s"]) == {1000.0}


def test_warm_ups_are_kept_under_their_own_trial(script: Script, tmp_path: Path) -> None:
    run = run_all(tmp_path / "run")
    assert len(run.instances) == 4 * 4
    points = {
        (worker.process, instance, point["key"]): index
        for worker in script.timing
        for instance, (_, arguments) in enumerate(worker.did("sample"), start=1)
        for index, point in enumerate(arguments["points"])
    }
    sessions = {
        trial["trial"]: trial["variant"] + (f"#{trial['twin']}" if trial["twin"] else "")
        for trial in records(run.trials)
    }
    for row in records(run.instances):
        index = points[row["process"], row["instance"], sessions[row["trial"]]]
        assert (row["warmup_calls"], row["is_steady"], row["slice"]) == (10 + index, index % 2 == 0, row["process"])


def test_a_process_is_kept_with_all_that_its_worker_tells(script: Script, tmp_path: Path) -> None:
    run = run_all(tmp_path / "run", runtimes=["one", "two"])
    assert run.processes.columns.tolist() == PROCESS_COLUMNS
    assert len(run.processes) == 4
    for row in records(run.processes):
        assert (row["task"], row["runtime"] in ("one", "two")) == ("tiny", True)
        for name, value in NOISE.items():
            assert row[name] == value or (value is None and pd.isna(row[name])), name


@pytest.mark.parametrize(("mark", "kept"), [(True, {1}), (False, {0}), (None, set())])
def test_the_marks_of_disturbed_turns_are_kept(
    script: Script, tmp_path: Path, mark: bool | None, kept: set[int]
) -> None:
    script.mark = mark
    run = run_all(tmp_path / "run", models=["a"])
    assert set(run.samples["disturbed"].dropna()) == kept


def test_the_worst_answer_of_all_instances_stands_for_a_process(script: Script, tmp_path: Path) -> None:
    script.rmse = lambda session, process, instance: 1e-9 * process * [0, 1, 3, 2][instance] * (session == "b@one")
    run = run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"instances": 3}))
    assert ends(run)["b@one"] == OK
    (trial,) = run.trials.loc[(run.trials["kind"] == "latency") & (run.trials["variant"] == "b@one"), "trial"]
    found = run.parity[run.parity["trial"] == trial][["process", "moment", "rmse"]]
    assert sorted(found.itertuples(index=False, name=None)) == [
        (process, moment, pytest.approx(3e-9 * process)) for process in (1, 2) for moment in ("after", "before")
    ]


ROW = {"case": "one", "part": "y", "rmse": 0.0}


@given(errors=st.lists(st.one_of(st.floats(0, 10), st.just(math.inf)), min_size=1))
def test_the_worst_of_several_answers_is_the_one_that_is_farthest_off(errors: list[float]) -> None:
    worst: list[dict[str, Any]] = []
    for number, error in enumerate(errors):
        worst = worst_of(worst, [ROW | {"rmse": error, "number": number}])
    (row,) = worst
    assert row["rmse"] == max(errors)
    assert row["number"] == errors.index(max(errors))


@pytest.mark.parametrize("errors", list(itertools.permutations([1.0, math.nan, 2.0])))
def test_what_is_not_even_a_number_is_the_worst_wherever_it_comes(errors: tuple[float, ...]) -> None:
    worst: list[dict[str, Any]] = []
    for error in errors:
        worst = worst_of(worst, [ROW | {"rmse": error}])
    assert math.isnan(worst[0]["rmse"])


def test_answers_to_different_questions_are_all_kept_in_the_order_they_were_first_asked() -> None:
    known = [ROW | {"part": "h_n", "rmse": 1.0}, ROW | {"case": "two"}, {"what": "loss", "error": 3.0}]
    rows = [ROW | {"rmse": 5.0}, {"what": "loss", "error": 2.0}, ROW | {"part": "h_n", "rmse": 2.0}]
    assert worst_of(known, rows) == [rows[2], known[1], known[2], rows[0]]
    assert worst_of([], []) == []


# ------------------------------------------------------------------------------------------------- whom it costs


@pytest.mark.parametrize("failure", [DEAD, HURT], ids=["dead", "alive"])
@pytest.mark.parametrize("instance", [1, 2, 3])
def test_who_fails_while_timed_in_any_instance_is_tried_again_alone_and_takes_nobody_with_it(
    script: Script, tmp_path: Path, failure: WorkerFailure, instance: int
) -> None:
    script.happens = dying("sample", "b@one", failure, instance)
    run = run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"instances": 3}))
    assert ends(run) == {"a@one": OK, "b@one": (failure.status, failure.reason), "c@one": OK}
    assert ends(run, "calibration") == {"a@one": OK}
    rows = timed(run)
    assert set(rows["variant"]) == {"a@one", "c@one"}
    assert (rows.groupby(["variant", "twin", "slice"])["instance"].agg(sorted).map(tuple) == (1, 2, 3)).all()
    whole = [{p["key"] for p in w.did("sample")[0][1]["points"]} for w in script.timing if w.did("sample")]
    assert whole[0] == whole[-1] | {"b@one"}  # together at first, without the guilty at last
    assert sorted(whole[1:-1], key=sorted) == [{"a@one"}, {"a@one#1"}, {"b@one"}, {"c@one"}]
    assert run.processes["process"].is_unique
    assert set(rows["process"]) == set(run.processes["process"])


def test_who_fails_in_one_scenario_loses_that_scenario_alone(script: Script, tmp_path: Path) -> None:
    script.happens = dying("sample", "b@one", instance=2, scenario="offline")
    latency = QUICKLY.model_copy(update={"scenarios": ["single-stream", "offline"]})
    run = run_all(tmp_path / "run", latency=latency)
    found = ends(run)
    assert found.pop("b@one offline") == (DEAD.status, DEAD.reason)
    assert set(found.values()) == {OK}
    rows = timed(run)
    counts = rows.groupby(["variant", "twin", "scenario"]).size()
    assert len(counts) == 6
    assert set(counts) == {4}  # slices and instances
    assert len(processes(run, "c@one")) == 2  # its scenarios stayed together


def test_who_fails_in_a_later_slice_has_no_latency_and_the_others_lose_nothing(script: Script, tmp_path: Path) -> None:
    script.happens = dying("sample", "b@one", process=3)
    run = run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"slices": 4}))
    assert ends(run)["b@one"] == OK  # the third process was to blame: alone, in a process of its own, nothing happened
    assert set(run.latency["slices"]) == {4}
    assert set(run.latency["instances"]) == {8}
    script.happens = dying("sample", "b@one", instance=2)
    later = run_all(tmp_path / "later", latency=QUICKLY.model_copy(update={"slices": 4}))
    assert set(later.latency["variant"]) == {"a@one", "c@one"}


@pytest.mark.parametrize("failure", [DEAD, HURT], ids=["dead", "alive"])
@pytest.mark.parametrize("do", ["open", "parity"])
@pytest.mark.parametrize("instance", [1, 2])
def test_who_fails_a_check_is_tried_again_alone_and_the_others_together(
    script: Script, tmp_path: Path, do: str, instance: int, failure: WorkerFailure
) -> None:
    script.happens = dying(do, "b@one", failure, instance)
    run = run_all(tmp_path / "run")
    assert ends(run) == {"a@one": OK, "b@one": (failure.status, failure.reason), "c@one": OK}
    assert ends(run, "calibration") == {"a@one": OK}
    assert [opened(worker) & {"b@one", "c@one"} for worker in script.timing[1:]] == [{"b@one"}, {"c@one"}, {"c@one"}]
    rows = timed(run)
    assert set(rows["process"]) == {3, 4} <= set(run.processes["process"])
    assert all(set(own["variant"]) == {"a@one", "c@one"} for _, own in rows.groupby("process"))
    assert set(run.latency["instances"]) == {4}


def opened(worker: Scripted) -> set[str]:
    return {arguments["key"] for _, arguments in worker.did("open")}


@pytest.mark.parametrize("others", [{"a@one"}, {"a@one", "a@one#1", "c@one"}], ids=["one", "several"])
@pytest.mark.parametrize("failure", [DEAD, HURT, None], ids=["dead", "alive", "wrong"])
@pytest.mark.parametrize("instance", [1, 2])
def test_who_fails_a_check_only_beside_others_is_not_to_blame_and_is_measured_alone_from_then_on(
    script: Script, tmp_path: Path, failure: WorkerFailure | None, instance: int, others: set[str]
) -> None:
    """Sessions of a process share its memory, its threads and its libraries' settings."""

    def is_spoiled(worker: Scripted) -> bool:
        return worker.process > 0 and opened(worker) != {"b@one"}

    if failure:
        fail = dying("parity", "b@one", failure, instance)
        script.happens = lambda worker, *rest: fail(worker, *rest) if is_spoiled(worker) else None
    else:
        script.rmse = lambda session, process, own: float(
            session == "b@one" and own == instance and is_spoiled(script.workers[-1])
        )
    models = ["a", "b", "c"][: len(others) + 1]
    latency = QUICKLY.model_copy(update={"slices": 3, "twins": int("a@one#1" in others)})
    run = run_all(tmp_path / "run", latency=latency, models=models)
    assert ends(run) == {f"{model}@one": OK for model in models}
    assert [opened(worker) for worker in script.timing[1:]] == [{"b@one"}, others] * 3
    assert set(run.latency["instances"]) == {6}
    assert not processes(run, "b@one") & processes(run, "a@one")
    units = run.latency[["variant", "ratio_unit"]].dropna().itertuples(index=False, name=None)
    assert set(units) == {("b@one", "slice"), *[("c@one", "process")] * ("c" in models)}
    assert (run.parity["rmse"] == 0).all()  # what was seen beside others says nothing of it
    assert 1 not in set(run.parity["process"])  # nor does a process that does not count say anything of anyone


@pytest.mark.parametrize("failure", [DEAD, HURT], ids=["dead", "alive"])
@pytest.mark.parametrize("do", ["gradients", "timed_trainer"])
def test_who_fails_a_check_of_its_training_step_loses_that_alone_and_is_then_measured_beside_the_others_again(
    script: Script, tmp_path: Path, do: str, failure: WorkerFailure
) -> None:
    script.happens = dying(do, "b@one", failure)
    latency = QUICKLY.model_copy(update={"scenarios": ["single-stream", "training-step"]})
    run = run_all(tmp_path / "run", latency=latency)
    found = ends(run)
    assert found.pop("b@one training-step") == (failure.status, failure.reason)
    assert set(found.values()) == {OK}
    assert set(run.latency["instances"]) == {4}
    rows = timed(run)
    last = rows[rows["slice"] == 2]
    assert last["process"].nunique() == 1
    assert set(last["variant"]) == {"a@one", "b@one", "c@one"}


def test_who_dies_while_it_is_closed_costs_no_other(script: Script, tmp_path: Path) -> None:
    def happens(worker: Scripted, do: str, arguments: dict[str, Any]) -> None:
        if do == "release" and any(a["key"] == "b@one" for _, a in worker.did("open")):
            raise DEAD

    script.happens = happens
    run = run_all(tmp_path / "run")
    assert ends(run) == {"a@one": OK, "b@one": (DEAD.status, DEAD.reason), "c@one": OK}
    assert set(run.latency["instances"]) == {4}


@pytest.mark.parametrize(("instance", "moment"), [(1, "after"), (2, "before"), (2, "after")])
def test_who_becomes_wrong_in_any_instance_of_any_slice_has_no_latency(
    script: Script, tmp_path: Path, instance: int, moment: str
) -> None:
    """In the second slice. A session is asked twice in an instance: before it is timed and after."""

    def rmse(session: str, process: int, own: int) -> float:
        asked = sum(arguments["key"] == session for _, arguments in script.workers[-1].did("parity"))
        place = (own, "before" if asked == 2 * own - 1 else "after")
        return float(session == "b@one" and process >= 2 and place == (instance, moment))

    script.rmse = rmse
    run = run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"slices": 3}))
    status, reason = ends(run)["b@one"]
    assert status == "wrong"
    assert reason.startswith("after timing: y at one") == (moment == "after")
    assert set(run.latency["variant"]) == {"a@one", "c@one"}
    assert set(run.latency["instances"]) == {6}
    assert processes(run, "b@one") <= {1}  # neither the process that saw it nor those after it
    wrong = run.parity.loc[run.parity["rmse"] == 1.0, ["process", "moment"]]
    assert list(wrong.itertuples(index=False, name=None)) == [(3, moment)]  # alone, after the second beside the others


def test_who_becomes_wrong_and_does_not_rest_either_ends_once(script: Script, tmp_path: Path) -> None:
    def rmse(session: str, process: int, own: int) -> float:
        asked = sum(arguments["key"] == session for _, arguments in script.workers[-1].did("parity"))
        return float(session == "b@one" and process >= 1 and asked == 2 * own)

    script.rmse = rmse
    script.busy_cores = lambda worker: 1.0 if worker.did("sample") and {"b@one"} == opened(worker) else 0.0
    run = run_all(tmp_path / "run", latency=QUICKLY.model_copy(update={"instances": 1}))
    assert run.damage == ()
    status, reason = ends(run)["b@one"]
    assert (status, reason[:13]) == ("wrong", "after timing:")
    assert ends(run)["a@one"] == ends(run)["c@one"] == OK


@pytest.mark.parametrize(
    "reply",
    [
        {"samples": [], "warmup": [], "evidence": [HONEST], "work": [(1, 5)], "clock": "host"},
        {"samples": [], "warmup": [[7, 10, True]], "evidence": [HONEST], "work": [(1, 5)], "clock": "host"},
        {"samples": [], "warmup": [], "evidence": [], "work": [], "clock": "host"},
        {"samples": [], "warmup": [], "evidence": [HONEST], "work": [], "clock": "host"},
    ],
)
def test_who_answers_without_samples_or_with_others_is_not_ok(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: dict[str, Any]
) -> None:
    real = Scripted.sample

    def sample(worker: Scripted, points: list[dict[str, Any]], calls: int, **others: Any) -> Any:
        return reply if any(p["key"] == "b@one" for p in points) else real(worker, points, calls, **others)

    monkeypatch.setattr(Scripted, "sample", sample)
    run = run_all(tmp_path / "run", models=["b"], baselines=["b@one"])
    assert {status for status, _ in ends(run).values()} == {"failed"}


def test_what_one_runtime_suffers_costs_the_other_no_process(script: Script, tmp_path: Path) -> None:
    script.happens = dying("sample", "b@one")
    run = run_all(tmp_path / "run", runtimes=["one", "two"])
    assert ends(run)["b@one"] == (DEAD.status, DEAD.reason)
    assert len(processes(run, "a@two")) == 2
    assert processes(run, "a@two") == processes(run, "b@two") == processes(run, "c@two")
    by_process = run.samples.merge(run.trials, on="trial").groupby("process")["runtime"].nunique()
    assert (by_process == 1).all()


# ------------------------------------------------------------------------------------------------- when to stop


def noisy(spread: float) -> Callable[[str, str, int, int], float]:
    """A latency of about a millisecond that depends on everything, the same each time it is asked for."""

    def latency(session: str, scenario: str, process: int, instance: int) -> float:
        return 0.001 * math.exp(random.Random(f"{session} {scenario} {process} {instance}").gauss(0, spread))

    return latency


EIGHT = QUICKLY.model_copy(update={"slices": 2, "max_slices": 8, "twins": 0})


def test_measuring_ends_at_the_first_look_that_finds_every_interval_narrow_enough(
    script: Script, tmp_path: Path
) -> None:
    steps = Steps()
    run = run_all(tmp_path / "run", latency=EIGHT, steps=steps)
    assert slices(run) == 2
    assert steps.planned == [8]
    assert len(steps.done) == 2
    assert steps.left_out == [6]
    assert slices(run_all(tmp_path / "later", latency=EIGHT.model_copy(update={"slices": 3}))) == 3


@pytest.mark.parametrize(
    ("least", "most", "measured"), [(2, None, 2), (2, 2, 2), (2, 3, 3), (2, 8, 8), (3, 7, 7), (5, 3, 5)]
)
def test_where_no_look_does_it_ends_at_the_most_slices_and_never_before_the_least(
    script: Script, tmp_path: Path, least: int, most: int | None, measured: int
) -> None:
    script.latency = noisy(0.5)
    steps = Steps()
    latency = EIGHT.model_copy(update={"slices": least, "max_slices": most})
    run = run_all(tmp_path / "run", latency=latency, steps=steps)
    assert slices(run) == measured
    assert steps.planned == [measured] == [len(steps.done)]
    assert steps.left_out == []


def test_a_budget_that_ends_says_how_many_steps_will_not_come(script: Script, tmp_path: Path) -> None:
    script.latency = noisy(0.5)
    steps = Steps()
    run_all(tmp_path / "run", latency=EIGHT.model_copy(update={"budget_seconds": 1e-9}), steps=steps)
    assert (len(steps.done), steps.left_out) == (1, [7])


def half_width(found: stats.LogMean | None, looks: tuple[int, ...]) -> float:
    assert found
    interval = stats.estimate(found, looks)
    return math.sqrt(interval.high / interval.low) - 1


def test_after_every_slice_it_is_said_how_wide_the_widest_interval_is_and_the_target_and_until_the_next_it_stands(
    script: Script, tmp_path: Path
) -> None:
    script.latency = noisy(0.02)
    steps, looks = Steps(), (3, 6)
    latency = EIGHT.model_copy(update={"slices": 3, "max_slices": 6, "precision": 0.005})
    run = run_all(tmp_path / "run", models=["a", "b"], runtimes=["one", "two"], latency=latency, steps=steps)
    medians = instance_medians(run.samples)
    base, *others = (medians[trial, "compute"] for trial in run.trials.query("kind == 'latency'")["trial"])

    def said(count: int) -> str:
        if count < 2:  # of one slice nobody knows how the next will be
            return ""
        own, *rest = ({key: m for key, m in all_.items() if key[0] <= count} for all_ in (base, *others))
        halves = [half_width(estimates.ratio(each, own), looks) for each in rest]
        return f"; widest ±{100 * max(halves):.2g} %, target ±0.5 %"

    done = [re.fullmatch(r"tiny, (?:one|two), slice (\d) of 3–6(.*)", words) for words in steps.done]
    assert [(int(found[1]), found[2]) for found in done if found] == [
        (count, end) for count in range(1, 7) for end in ("", said(count))
    ]
    assert said(2) != said(6) != ""
    begun = [words.removeprefix("tiny, ") for words in steps.begun if "slice" in words]
    assert [words[3:] for words in begun] == [
        f", slice {count} of 3–6{said(count - 1)}" for count in range(1, 7) for _ in range(2)
    ]


def test_it_ends_at_the_planned_look_whose_repeated_intervals_are_narrow_enough_and_at_no_other(
    script: Script, tmp_path: Path
) -> None:
    """The widest interval after two, four and eight slices is worked out from a run that went on to the end."""
    script.latency = noisy(0.01)
    script.ramp = lambda *at: 0.1 * random.Random(repr(at)).random()  # the first call of a turn counts nowhere
    whole = run_all(tmp_path / "whole", latency=EIGHT.model_copy(update={"precision": 1e-9}))
    assert slices(whole) == 8
    medians = instance_medians(whole.samples)
    trials = {t["variant"]: t["trial"] for t in records(whole.trials) if t["kind"] == "latency"}

    def widest(count: int) -> float:
        a, b, c = (
            {key: value for key, value in medians[trials[f"{name}@one"], "compute"].items() if key[0] <= count}
            for name in "abc"
        )
        return max(half_width(estimates.ratio(own, a), (2, 4, 8)) for own in (b, c))

    widths = {count: widest(count) for count in range(2, 9)}
    assert widths[2] > widths[4] > widths[8]
    assert widths[3] < widths[2]  # three slices would often do, but nobody looks then
    above, below = 1 + 1e-9, 1 - 1e-9
    for precision, measured in (
        (widths[2] * above, 2),
        (widths[2] * below, 4),
        (widths[3] * above, 4),
        (widths[4] * above, 4),
        (widths[4] * below, 8),
        (widths[8] * above, 8),
    ):
        script.workers.clear()
        latency = EIGHT.model_copy(update={"precision": precision})
        assert slices(run_all(tmp_path / f"{precision}", latency=latency)) == measured


def test_what_the_machine_does_to_all_variants_alike_does_not_keep_it_measuring(script: Script, tmp_path: Path) -> None:
    drift = noisy(0.5)
    script.latency = lambda session, scenario, process, instance: drift("all", scenario, process, instance)
    assert slices(run_all(tmp_path / "run", latency=EIGHT)) == 2


@pytest.mark.parametrize("models", [["a", "b"], ["a"]])
def test_the_noise_of_a_twin_does_not_keep_it_measuring(script: Script, tmp_path: Path, models: list[str]) -> None:
    wild = noisy(0.5)
    script.latency = lambda session, *rest: wild(session, *rest) if "#" in session else 0.001
    run = run_all(tmp_path / "run", models=models, latency=EIGHT.model_copy(update={"twins": 3}))
    assert slices(run) == 2
    assert len(run.trials[run.trials["kind"] == "calibration"]) == 3


def test_the_noise_of_what_computes_nothing_does_not_keep_it_measuring(script: Script, tmp_path: Path) -> None:
    wild = noisy(0.5)
    script.latency = lambda session, *rest: wild(session, *rest) if session == "zero@one" else 0.001
    zero = replace(plain_model("zero"), architecture=NOTHING)
    run = run_all(tmp_path / "run", zero, plain_model("a"), plain_model("b"), PlainRuntime("one"), TINY, latency=EIGHT)
    assert slices(run) == 2
    assert run.header["floors"] == ["nothing"]


def test_the_noise_of_any_other_variant_or_scenario_does_keep_it_measuring(script: Script, tmp_path: Path) -> None:
    wild = noisy(0.5)
    latency = EIGHT.model_copy(update={"scenarios": ["single-stream", "offline"]})
    for variant, scenario in itertools.product(["a@one", "b@one", "c@one"], latency.scenarios):
        script.workers.clear()
        script.latency = lambda *of, at=(variant, scenario): wild(*of) if of[:2] == at else 0.001
        assert slices(run_all(tmp_path / f"{variant} {scenario}", latency=latency)) == 8


def test_who_has_none_to_be_compared_with_is_measured_until_its_latency_is_known(
    script: Script, tmp_path: Path
) -> None:
    assert slices(run_all(tmp_path / "steady", models=["a"], latency=EIGHT)) == 2
    script.workers.clear()
    script.latency = noisy(0.5)
    assert slices(run_all(tmp_path / "noisy", models=["a"], latency=EIGHT)) == 8


def test_where_the_baseline_fails_the_others_are_measured_until_their_latencies_are_known(
    script: Script, tmp_path: Path
) -> None:
    script.latency = noisy(0.5)
    script.happens = dying("sample", "a@one")
    run = run_all(tmp_path / "run", latency=EIGHT)
    assert ends(run) == {"a@one": (DEAD.status, DEAD.reason), "b@one": OK, "c@one": OK}
    assert slices(run) == 8


def test_where_nothing_is_sound_any_more_it_ends_at_the_first_look(script: Script, tmp_path: Path) -> None:
    script.happens = dying("sample", "a@one")
    steps = Steps()
    latency = EIGHT.model_copy(update={"slices": 3})
    run = run_all(tmp_path / "run", models=["a"], latency=latency, steps=steps)
    assert ends(run) == {"a@one": (DEAD.status, DEAD.reason)}
    assert run.samples.empty
    assert len(steps.done) == 3


def test_a_clock_that_stands_still_gives_no_estimate_and_no_error(script: Script, tmp_path: Path) -> None:
    script.latency = lambda *_: 0.0
    run = run_all(tmp_path / "run", latency=EIGHT)
    assert ends(run) == {"a@one": OK, "b@one": OK, "c@one": OK}
    assert slices(run) == 2
    assert run.latency["latency_s"].isna().all()


class Watch:
    """A clock that moves by a second with every slice of one worker."""

    def __init__(self, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("harness.engine.measurement.monotonic", lambda: self.now)
        script.happens = self._happens
        script.latency = noisy(0.5)  # never known enough

    def _happens(self, worker: Scripted, do: str, arguments: dict[str, Any]) -> None:
        self.now += do == "finish_timing"


@pytest.mark.parametrize(("budget", "measured"), [(0.5, 1), (1.0, 2), (1.5, 2), (3.0, 4), (6.5, 7), (100.0, 8)])
def test_no_slice_begins_once_the_budget_is_used_up_whatever_the_plan(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float, measured: int
) -> None:
    Watch(script, monkeypatch)
    for least in (2, 8):  # also where the budget ends before the first look
        latency = EIGHT.model_copy(update={"slices": least, "budget_seconds": budget})
        run = run_all(tmp_path / f"{least}", latency=latency)
        assert slices(run) == measured
        assert set(ends(run).values()) == {OK}


def test_a_slice_that_has_begun_is_measured_on_every_runtime(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Watch(script, monkeypatch)
    run = run_all(tmp_path / "run", runtimes=["one", "two"], latency=EIGHT.model_copy(update={"budget_seconds": 2.5}))
    assert run.processes.groupby("slice")["runtime"].agg(sorted).tolist() == [["one", "two"]] * 2


def test_every_task_has_a_budget_of_its_own(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Watch(script, monkeypatch)
    tasks = [replace(TINY, name=name) for name in ("first", "second")]
    latency = EIGHT.model_copy(update={"budget_seconds": 2.0})
    run = run_all(tmp_path / "run", plain_model("a"), PlainRuntime("one"), *tasks, latency=latency)
    assert run.processes.groupby("task").size().to_dict() == {"first": 3, "second": 3}
    assert run.processes["process"].tolist() == [1, 2, 3, 4, 5, 6]
