"""Loads, with workers that answer from a script: what is offered in which order, and what a failure costs.

And once with real ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner
from scripted import FirstAnswers
from strangers import TINY, PlainRuntime, World, plain_model

from harness import BILSTM, Architecture, Model, Outputs, stats
from harness.catalog import Catalog, Entry, Plugin
from harness.cli import main
from harness.engine.process import WorkerFailure
from harness.engine.replies import checked
from harness.engine.run import execute
from harness.estimates import NOT_SUSTAINED, REFUSED, SUSTAINED
from harness.plan import make_plan
from harness.schema import PROCESS_COLUMNS
from harness.store import Run, RunFolder, load
from harness.suite import Latency, Server, Stream, Suite
from harness.tables import records

OWNER = Plugin("here", "rnn-here", "1.0")
NOTHING = Architecture("nothing", 1, lambda size: {}, lambda weights, inputs, size: Outputs(inputs.x, ()), ())
SUITE = Suite(
    seeds=0,
    latency=Latency(scenarios=[], slices=2),
    loads=["server", "stream"],
    server=Server(p99_seconds=0.01, seconds=1.0, most_seconds=10.0, precision=0.1),
    stream=Stream(chunk_steps=4, step_seconds=0.005, seconds=0.1, precision=0.1),
)
HONEST: dict[str, Any] = {"compute_s": 1.0, "around_s": 0.0, "moved_bytes": 0, "flops": 0.0, "peak_flops_per_s": None}
HONEST |= {"repeated_s": None, "outputs": [], "changed_inputs": 0, "worker_s": 1.0, "engine_s": 0.0}
TOLD: dict[str, Any] = dict.fromkeys(PROCESS_COLUMNS[6:], None)  # by a worker of the machine
TOLD |= {"started_s": 5.0, "seconds": 2.0, "other_busy_share": 0.3, "gc_collections": 0, "cpus": "0-1", "clock": "host"}
FEWEST = stats.samples_needed(0.99)


class Script:
    """What all workers of a run answer.

    Attributes:
        service_s: how long a request takes while no other waits.
        limit: the highest load that a session sustains in a scenario: requests a second, or streams.
        delay_s: how late the generator is, of a session at a load, the how many-th it is offered.
        busy_s: how long all calls under a load take.
        rmse: how far a session that is to serve is off, the how many-th time it is checked.
        evidence: what is seen beside a load.
        happens: called before every answer with the request and its arguments; it may raise.
        workers: the requests of all workers that were started.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service_s = 0.001
        self.limit: Callable[[str, str], float] = lambda session, scenario: 1000.0
        self.delay_s: Callable[[str, float, int], float] = lambda session, amount, time: 0.0
        self.busy_s: Callable[[dict[str, Any]], float] = lambda load: 0.25
        self.rmse: Callable[[str, int], float] = lambda session, time: 0.0
        self.evidence = HONEST
        self.busy_cores = 0.0
        self.happens: Callable[[str, dict[str, Any]], None] = lambda do, arguments: None
        self.workers: list[list[tuple[str, dict[str, Any]]]] = []
        monkeypatch.setattr("harness.engine.context.WorkerProcess", lambda *_, **others: Scripted(self))

    def loads(self) -> list[list[tuple[str, dict[str, Any]]]]:
        """The requests of the workers that served, without what they were before asked of."""
        return [asked for asked in self.workers if any(do == "unloaded" for do, _ in asked)]


class Scripted(FirstAnswers):
    """A worker that answers from a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._offered = self._checked = 0
        self.requests: list[tuple[str, dict[str, Any]]] = []
        script.workers.append(self.requests)

    def ask(self, do: str, seconds: float, **arguments: Any) -> Any:
        self.requests.append((do, arguments))
        self._script.happens(do, arguments)
        return checked(do, getattr(self, do)(**arguments))

    def equations(self, chunk_steps: int | None = None, **_: Any) -> Any:
        return [observation("one", 0.0)]

    def parity(self, key: str, **_: Any) -> Any:
        if any(do == "first_call" for do, _ in self.requests):
            return [observation("one", 0.0)]  # before anything serves
        self._checked += 1
        return [observation("one", self._script.rmse(key, self._checked))]

    def idle(self) -> Any:
        return {"busy_cores": self._script.busy_cores}

    def start_timing(self) -> Any:
        return {}

    def finish_timing(self) -> Any:
        return TOLD

    def unloaded(self, **_: Any) -> Any:
        return {"service_s": self._script.service_s}

    def under_load(self, key: str, time: int, load: dict[str, Any]) -> Any:
        self._offered += 1
        is_sustained = load["amount"] <= self._script.limit(key, load["scenario"])
        reply: dict[str, Any] = {"latencies_s": [0.001 if is_sustained else 5.0] * load["requests"]}
        reply |= {"delays_s": [self._script.delay_s(key, load["amount"], self._offered)] * 100}
        return reply | {
            "calls": load["requests"],
            "busy_s": self._script.busy_s(load),
            "evidence": self._script.evidence,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def observation(case: str, rmse: float) -> dict[str, Any]:
    return {"case": case, "part": "y", "rmse": rmse, "max_abs_error": rmse, "reference_rms": 1.0, "problem": ""}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


def run_all(path: Path, *models: Model, suite: Suite = SUITE) -> Run:
    values: list[Any] = [*(models or (plain_model("a"), plain_model("b"))), PlainRuntime("one"), TINY]
    kinds = ["model"] * (len(values) - 2) + ["runtime", "task"]
    entries = tuple(Entry(kind, v.name, v, OWNER) for kind, v in zip(kinds, values, strict=True))
    catalog = Catalog((OWNER,), entries)
    plan = make_plan(suite, catalog)
    owners = {(entry.kind, entry.name): entry.plugin for entry in entries}
    header: dict[str, Any] = {"name": "scripted", "floors": list(plan.floors), "plugins": [], "environment": {}}
    header |= {"trials": [trial.row(owners) for trial in plan.trials], "suite": plan.suite.model_dump()}
    header |= {"baselines": {name: str(variant) for name, variant in plan.baselines.items()}}
    if (path / "run.json").exists():
        folder, past = RunFolder.reopen(path)
    else:
        folder, past = RunFolder(path, header), None
    try:
        execute(plan, catalog, folder, None, None, past)
    finally:
        folder.close()
    return load(path)


def ends(run: Run) -> dict[str, tuple[str, str]]:
    own = records(run.trials[run.trials["kind"] == "load"])
    return {f"{trial['variant']} {trial['scenario']}": (trial["status"], trial["reason"]) for trial in own}


def rows(run: Run, variant: str, scenario: str, slice_: int = 1) -> list[dict[str, Any]]:
    (trial,) = run.trials.loc[
        run.trials["kind"].eq("load") & run.trials["variant"].eq(variant) & run.trials["scenario"].eq(scenario), "trial"
    ]
    return records(run.loads[run.loads["trial"].eq(trial) & run.loads["slice"].eq(slice_)])


SERVERS = SUITE.model_copy(update={"loads": ["server"]})
OK = ("ok", "")
DEAD = WorkerFailure("crashed", "the worker was ended by SIGSEGV", alive=False)


# ------------------------------------------------------------------------------------------------- what is offered


def test_each_slice_gives_every_trial_a_worker_alone_that_is_checked_before_and_after_it_serves(
    script: Script, tmp_path: Path
) -> None:
    run = run_all(tmp_path / "run")
    assert set(ends(run).values()) == {OK}
    served = script.loads()
    assert len(served) == 2 * 2 * 2  # variants, scenarios, slices
    for asked in served:
        names = [do for do, _ in asked]
        assert names[:5] == ["open", "parity", "idle", "start_timing", "unloaded"]
        assert names[-3:] == ["finish_timing", "parity", "idle"]
        assert set(names[5:-3]) == {"under_load"}
        assert len({arguments["key"] for _, arguments in asked if "key" in arguments}) == 1
    assert set(run.parity["moment"]) == {"first", "before", "after"}
    assert set(run.audits["audit"]) == {"clock", "rest"}
    assert set(run.loads["slice"]) == {1, 2}


def test_rates_double_and_close_in_until_the_precision_is_reached(script: Script, tmp_path: Path) -> None:
    script.limit = lambda session, scenario: 1500.0
    own = rows(run_all(tmp_path / "run", suite=SERVERS), "a@one", "server")
    assert [row["rate_per_s"] for row in own[:2]] == pytest.approx([750.0, 1500.0])  # 0.75 / service time, doubled
    assert [row["probe"] for row in own] == list(range(1, len(own) + 1))
    highest = max(row["rate_per_s"] for row in own if row["verdict"] == SUSTAINED)
    lowest = min(row["rate_per_s"] for row in own if row["verdict"] == NOT_SUSTAINED)
    assert highest <= 1500.0 < lowest <= 1.1 * highest
    *search, confirmation = own
    assert all(row["requests"] == max(FEWEST, math.ceil(row["rate_per_s"])) for row in search)  # a second of them
    assert confirmation["requests"] == math.ceil(5 * confirmation["rate_per_s"])
    assert [row["is_confirmation"] for row in own] == [False] * len(search) + [True]
    assert all(math.isnan(row["real_time_factor"]) and row["bound_s"] == 0.01 for row in own)


def test_streams_are_whole_numbers_and_begin_near_the_real_time_factors_reciprocal(
    script: Script, tmp_path: Path
) -> None:
    script.limit = lambda session, scenario: 17.0
    own = rows(run_all(tmp_path / "run"), "a@one", "stream")
    assert own[0]["streams"] == 15  # 0.75 · 20 ms / 1 ms
    assert max(row["streams"] for row in own if row["verdict"] == SUSTAINED) in (16, 17)
    assert all(row["requests"] == 20 * row["streams"] and row["bound_s"] == 0.02 for row in own)
    assert own[0]["real_time_factor"] == pytest.approx(0.25 / (15 * 20 * 0.02))


def test_no_rate_is_tried_at_which_too_few_requests_would_come(script: Script, tmp_path: Path) -> None:
    script.limit = lambda session, scenario: 0.0
    own = rows(run_all(tmp_path / "run", suite=SERVERS), "a@one", "server")
    assert min(row["rate_per_s"] for row in own) == pytest.approx(FEWEST / 10.0)
    assert {row["verdict"] for row in own} == {NOT_SUSTAINED}


def test_a_rate_is_offered_for_twenty_bounds_also_where_662_requests_do_not_come_in_time(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.load.MOST_REQUESTS", 700)
    server = Server(p99_seconds=1.0, most_seconds=1.0)  # 662 a second, while 700 in 20 s are 35 a second
    own = rows(run_all(tmp_path / "run", suite=SERVERS.model_copy(update={"server": server})), "a@one", "server")
    assert {row["rate_per_s"] for row in own} == {35.0}
    assert [row["requests"] / row["rate_per_s"] for row in own] == [20.0, 100.0]
    assert all(row["is_capped"] for row in own)


def test_no_two_probes_have_the_same_arrivals(script: Script, tmp_path: Path) -> None:
    run_all(tmp_path / "run", suite=SERVERS)
    seeds = [[arguments["load"]["seed"] for do, arguments in asked if do == "under_load"] for asked in script.loads()]
    assert len(set(itertools.chain(*seeds))) == len(seeds[0] + seeds[-1])  # variants get the same, slices others


def test_a_batching_server_says_so_to_the_worker_and_has_its_largest_batch_checked(
    script: Script, tmp_path: Path
) -> None:
    server = SERVERS.server.model_copy(update={"window_seconds": 0.002, "most_batch": 16})
    run = run_all(tmp_path / "run", suite=SERVERS.model_copy(update={"server": server}))
    asked = [arguments for do, arguments in itertools.chain(*script.loads()) if do == "under_load"]
    assert {(own["load"]["window_s"], own["load"]["most_batch"]) for own in asked} == {(0.002, 16)}
    shapes = [arguments["shapes"] for do, arguments in itertools.chain(*script.workers) if do == "parity"]
    assert shapes[0] == [(16, 5)]
    assert set(run.trials.loc[run.trials["kind"] == "load", "batch"]) == {16}


def test_where_chunks_are_timed_parity_is_asked_of_a_whole_in_chunks_and_so_is_the_yardstick(
    script: Script, tmp_path: Path
) -> None:
    run_all(tmp_path / "run")
    asked = [own for own in itertools.chain(*script.workers) if own[0] in ("parity", "equations")]
    assert {do for do, _ in asked} == {"parity", "equations"}
    assert {arguments["chunk_steps"] for _, arguments in asked} == {4}


def test_a_layer_in_two_directions_serves_requests_and_no_streams_and_one_that_does_nothing_neither(
    script: Script, tmp_path: Path
) -> None:
    models = [plain_model("a"), Model("bi", BILSTM, "plain", lambda **size: None)]
    run = run_all(tmp_path / "run", *models, Model("nothing", NOTHING, "plain", lambda **size: None))
    assert set(ends(run)) == {"a@one server", "a@one stream", "bi@one server"}


# ------------------------------------------------------------------------------------------------- the machine


def test_each_worker_that_served_has_a_row_of_what_happened_on_the_machine(script: Script, tmp_path: Path) -> None:
    run = run_all(tmp_path / "run")
    names = {trial["trial"] for trial in records(run.trials) if trial["kind"] == "load"}
    assert sorted(zip(run.processes["trial"], run.processes["slice"], strict=True)) == [
        (name, slice_) for name in sorted(names) for slice_ in (1, 2)
    ]
    assert sorted(run.processes["process"]) == list(range(1, 9))  # variants, scenarios, slices
    for row in records(run.processes):
        assert (row["task"], row["runtime"], row["cpus"]) == (TINY.name, "one", "0-1")
        assert (row["other_busy_share"], row["seconds"]) == (0.3, 2.0)
        assert math.isnan(row["canary_s"])
    assert run.damage == ()


def test_a_worker_that_died_under_a_load_has_no_row_and_those_before_it_have(script: Script, tmp_path: Path) -> None:
    def happens(do: str, arguments: dict[str, Any]) -> None:
        if do == "under_load" and arguments["key"] == "a@one" and arguments["load"]["seed"] == 2002:
            raise DEAD

    script.happens = happens
    run = run_all(tmp_path / "run", plain_model("a"), suite=SERVERS)
    assert run.processes["slice"].tolist() == [1]
    assert set(run.loads["slice"]) == {1, 2}


def test_a_worker_that_was_wrong_after_it_served_keeps_its_row(script: Script, tmp_path: Path) -> None:
    script.rmse = lambda session, checked: 1.0 if checked == 2 else 0.0
    run = run_all(tmp_path / "run", plain_model("a"), suite=SERVERS)
    assert ends(run)["a@one server"][0] == "wrong"
    assert run.processes["slice"].tolist() == [1]


# ------------------------------------------------------------------------------------------------- a late generator


def test_a_late_generator_is_refused_and_the_load_offered_again(script: Script, tmp_path: Path) -> None:
    script.delay_s = lambda session, amount, time: 0.1 if time <= 2 else 0.0
    run = run_all(tmp_path / "run", suite=SERVERS)
    own = rows(run, "a@one", "server")
    assert [row["verdict"] for row in own[:3]] == [REFUSED, REFUSED, SUSTAINED]
    assert len({row["rate_per_s"] for row in own[:3]}) == 1
    assert ends(run)["a@one server"] == OK
    assert set(run.capacity["refused"]) == {2 * 2}


def test_a_trial_whose_generator_was_always_late_is_failed_with_the_reason(script: Script, tmp_path: Path) -> None:
    script.delay_s = lambda session, amount, time: 0.25 if session == "a@one" else 0.0
    run = run_all(tmp_path / "run", suite=SERVERS)
    status, reason = ends(run)["a@one server"]
    assert (status, len(rows(run, "a@one", "server"))) == ("failed", 3)
    assert reason.startswith("the load generator was late in 6 of 6 probes, at its p99 by up to 0.25 s where 0.01 s")
    assert ends(run)["b@one server"] == OK
    assert list(run.capacity["variant"]) == ["b@one"]


def test_a_worker_whose_search_the_generator_cut_short_has_no_capacity_and_the_others_have(
    script: Script, tmp_path: Path
) -> None:
    late = iter([0.0, 0.1, 0.1, 0.1])
    script.delay_s = lambda session, amount, time: next(late, 0.0)
    run = run_all(tmp_path / "run", plain_model("a"), suite=SERVERS)
    first, second = (rows(run, "a@one", "server", slice_) for slice_ in (1, 2))
    assert [row["verdict"] for row in first] == [SUSTAINED, REFUSED, REFUSED, REFUSED]
    assert second[-1]["verdict"] != REFUSED
    (row,) = records(run.capacity)
    assert (row["workers"], row["refused"]) == (1, 3)
    highest = max(own["rate_per_s"] for own in second if own["verdict"] == SUSTAINED)
    assert row["capacity"] == pytest.approx(highest)


# ------------------------------------------------------------------------------------------------- failures


def test_a_worker_that_dies_under_a_load_ends_its_trial_alone(script: Script, tmp_path: Path) -> None:
    def happens(do: str, arguments: dict[str, Any]) -> None:
        if do == "under_load" and arguments["key"] == "a@one" and arguments["load"]["seed"] == 2002:
            raise DEAD

    script.happens = happens
    run = run_all(tmp_path / "run", suite=SERVERS)
    assert ends(run) == {"a@one server": ("crashed", "the worker was ended by SIGSEGV"), "b@one server": OK}
    assert len(rows(run, "a@one", "server", 2)) == 1  # what was offered before is kept
    assert list(run.capacity["variant"]) == ["b@one"]


@pytest.mark.parametrize(("time", "said"), [(1, "y at one: error"), (2, "after serving: y at one: error")])
def test_who_is_wrong_before_or_after_it_serves_has_no_capacity(
    script: Script, tmp_path: Path, time: int, said: str
) -> None:
    script.rmse = lambda session, checked: 1.0 if (session, checked) == ("a@one", time) else 0.0
    run = run_all(tmp_path / "run", suite=SERVERS)
    status, reason = ends(run)["a@one server"]
    assert (status, ends(run)["b@one server"]) == ("wrong", OK)
    assert reason.startswith(said)
    assert (run.parity["rmse"] == 1.0).sum() == 1
    assert list(run.capacity["variant"]) == ["b@one"]


def test_served_requests_are_audited(script: Script, tmp_path: Path) -> None:
    wrong = observation("a timed call", 0.5)
    script.evidence = HONEST | {"outputs": [wrong]}
    run = run_all(tmp_path / "run", plain_model("a"), suite=SERVERS)
    status, reason = ends(run)["a@one server"]
    assert (status, reason[:39]) == ("wrong", "audit outputs: y of a timed call: error")
    assert len(run.audits[run.audits["audit"] == "outputs"]) == 1
    assert run.summary["audits"].tolist() == ["outputs"]


def test_who_works_on_after_its_calls_is_failed(script: Script, tmp_path: Path) -> None:
    def happens(do: str, arguments: dict[str, Any]) -> None:
        if do == "under_load":
            script.busy_cores = 0.5

    script.happens = happens
    run = run_all(tmp_path / "run", plain_model("a"), suite=SERVERS)
    assert ends(run)["a@one server"][0] == "failed"
    assert "0.50 cores are busy" in ends(run)["a@one server"][1]


@pytest.mark.parametrize(
    "forged",
    [
        {"latencies_s": [0.001]},
        {"latencies_s": []},
        {"calls": 10**9},
        {"calls": 0},
        {"busy_s": math.inf},
        {"delays_s": [-1.0]},
        {"delays_s": ["late"]},
        {"evidence": {}},
    ],
    ids=str,
)
def test_an_answer_that_cannot_be_is_the_variants_failure(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forged: dict[str, Any]
) -> None:
    honest = Scripted.under_load

    def answer(self: Scripted, key: str, **others: Any) -> Any:
        return honest(self, key, **others) | (forged if key == "a@one" else {})

    def ask(self: Scripted, do: str, seconds: float, **arguments: Any) -> Any:
        self.requests.append((do, arguments))
        try:
            return checked(do, getattr(self, do)(**arguments))
        except ValueError as error:  # as `WorkerProcess.ask` says it
            raise WorkerFailure("failed", f"the worker's reply cannot be read: {error}", alive=False) from error

    monkeypatch.setattr(Scripted, "under_load", answer)
    monkeypatch.setattr(Scripted, "ask", ask)
    run = run_all(tmp_path / "run", suite=SERVERS)
    status, reason = ends(run)["a@one server"]
    assert (status, ends(run)["b@one server"]) == ("failed", OK)
    assert reason.startswith("the worker's reply cannot be read: ")


# ------------------------------------------------------------------------------------------------- going on


def test_a_trial_that_has_not_ended_is_done_again_whole_and_one_that_has_is_not(script: Script, tmp_path: Path) -> None:
    interrupted = KeyboardInterrupt()

    def happens(do: str, arguments: dict[str, Any]) -> None:
        if do == "under_load" and arguments["key"] == "b@one" and arguments["load"]["seed"] == 2002:
            raise interrupted
        if do == "under_load" and arguments["key"] == "a@one":
            raise DEAD

    script.happens = happens
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path / "run", suite=SERVERS)
    before = load(tmp_path / "run")
    assert (len(before.missing), len(before.loads)) == (1, 0)
    script.happens = lambda do, arguments: None
    script.workers.clear()
    run = run_all(tmp_path / "run", suite=SERVERS)
    assert (ends(run)["a@one server"][0], ends(run)["b@one server"]) == ("crashed", OK)
    assert {own[0][1]["key"] for own in script.loads()} == {"b@one"}
    assert set(run.loads["slice"]) == {1, 2}
    assert run.processes["slice"].tolist() == [1, 2]  # as its loads, none from before
    assert run.processes["process"].is_unique
    assert set(run.processes["trial"]) == set(run.loads["trial"])


def test_a_run_that_is_gone_on_with_gives_no_number_of_a_process_twice(script: Script, tmp_path: Path) -> None:
    suite = SERVERS.model_copy(update={"latency": SUITE.latency.model_copy(update={"slices": 1})})
    run_all(tmp_path / "run", suite=suite)
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if '"process":{' in line.replace(" ", "")]
    journal.write_text("".join(lines[: places[1]]), encoding="utf-8")  # the first trial has ended
    (first,) = load(tmp_path / "run").processes["process"]
    run = run_all(tmp_path / "run", suite=suite)
    assert set(ends(run).values()) == {OK}
    assert run.processes["process"].tolist() == [first, first + 1]


# ------------------------------------------------------------------------------------------------- for real

REAL = """
seeds = 0
loads = ["server", "stream"]
[latency]
scenarios = ["stream"]
slices = 2
instances = 1
calls = 10
seconds = 0.01
twins = 0
[server]
p99_seconds = 0.02
seconds = 0.2
most_seconds = 1
precision = 0.5
[stream]
chunk_steps = 2
step_seconds = 0.005
seconds = 0.1
precision = 0.5
"""


@pytest.mark.slow
def test_through_the_command_every_load_has_its_row_and_its_verdict_follows_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "plugins", monkeypatch)
    world.add_plain(good="", forgets="ignores its state")
    (tmp_path / "loads.toml").write_text(REAL, encoding="utf-8")
    arguments = ["run", str(tmp_path / "loads.toml"), "--quiet", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1, result.output  # one of them is wrong
    run = load(tmp_path / "run")
    own = ends(run)
    assert {own[f"forgets@plain {scenario}"][0] for scenario in ("server", "stream")} == {"wrong"}
    for scenario in ("server", "stream"):
        status, reason = own[f"good@plain {scenario}"]
        assert status == "ok" or "the load generator was late" in reason  # on a machine that is too busy
        assert len(rows(run, "good@plain", scenario))
    for row in records(run.loads):
        late = row["generator_p99_s"] > 0.1 * row["bound_s"]
        if math.isnan(row["real_time_factor"]):
            p99_s = row["p99_bound_s" if row["is_confirmation"] else "p99_s"]
            lost = p99_s > row["bound_s"] or row["busy_s"] * row["rate_per_s"] > row["requests"]
        else:
            lost = row["misses"] > 0.01 * row["requests"] or row["growth_s"] > 0.25 * row["bound_s"]
            lost = lost or row["real_time_factor"] * row["streams"] > 1
        assert row["verdict"] == (REFUSED if late else NOT_SUSTAINED if lost else SUSTAINED)
        assert 0 < row["p50_s"] <= row["p99_s"]
        assert row["busy_s"] > 0
    cases = run.parity.loc[run.parity["problem"].eq(""), "case"]
    assert cases.str.endswith("in chunks of 2").any()
    processes = run.processes.assign(serves=run.processes["trial"].notna())
    assert processes["process"].is_unique
    assert processes["process"][~processes["serves"]].max() < processes["process"][processes["serves"]].min()
    assert processes.loc[processes["serves"], "canary_s"].isna().all()
    assert processes.loc[~processes["serves"], "canary_s"].gt(0).all()
    assert set(run.loads["trial"]) == set(processes["trial"].dropna())
    (timed,) = run.latency["scenario"].unique()
    assert (timed, run.latency["audit_outputs"].unique().tolist()) == ("stream", ["ok"])
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "## Load" in report
    assert (tmp_path / "run" / "tables" / "capacity.csv").is_file()
