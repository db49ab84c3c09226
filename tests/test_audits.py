"""Audits: every cheat is told from the evidence, and no honest call is."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cheats import SOURCE
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from strangers import World

from harness.audits import (
    AUDITS,
    BOUND_FACTOR,
    FREE_SECONDS,
    LEAST_RATIO,
    OUTPUTS_FACTOR,
    RESTING_CORES,
    Evidence,
    Finding,
    examine,
    examine_served,
    repeats_ratio,
    rest,
)
from harness.cli import main
from harness.engine.audit import flops_of, peak_flops_per_s
from harness.parity import Observation, limit
from harness.store import Run, load
from harness.tables import records

RIGHT = Observation("a timed call", "y", rmse=1e-8, max_abs_error=2e-8, reference_rms=0.3)
YARDSTICK = [replace(RIGHT, case="one"), replace(RIGHT, case="two", rmse=2e-8)]
HONEST = Evidence(
    compute_s=100e-6,
    around_s=5e-6,
    moved_bytes=4000,
    flops=1e6,
    peak_flops_per_s=5e10,
    repeated_s=99e-6,
    outputs=[RIGHT],
    worker_s=1.0,
    engine_s=1.1,
)


def found(*evidence: Evidence, ratios: tuple[float, ...] = (1.0, 0.99, 1.01)) -> dict[str, Finding]:
    return {finding.audit: finding for finding in examine(evidence, ratios, YARDSTICK, "float32")}


def failed(*evidence: Evidence, **options: Any) -> set[str]:
    return {name for name, finding in found(*evidence, **options).items() if finding.problem}


def test_what_is_honest_passes_every_audit() -> None:
    assert set(found(HONEST)) | {"rest"} == set(AUDITS)
    assert failed(HONEST) == set()
    assert failed(*[HONEST] * 4) == set()


# ------------------------------------------------------------------------------------------------------- each audit


@given(factor=st.floats(0.01, 100))
def test_an_output_may_be_four_times_as_far_off_as_parity_allows_at_the_worst_check(factor: float) -> None:
    allowed = OUTPUTS_FACTOR * limit(2e-8, RIGHT.reference_rms, "float32")
    evidence = replace(HONEST, outputs=[RIGHT, replace(RIGHT, rmse=factor * allowed)])
    assert failed(evidence) == ({"outputs"} if factor > 1 else set())
    assert found(evidence)["outputs"].value == pytest.approx(max(factor, RIGHT.rmse / allowed))


@pytest.mark.parametrize("rmse", [math.nan, math.inf])
def test_an_output_that_is_no_number_fails(rmse: float) -> None:
    assert failed(replace(HONEST, outputs=[replace(RIGHT, rmse=rmse)])) == {"outputs"}


def test_an_output_of_another_shape_fails_and_says_so() -> None:
    wrong = replace(RIGHT, rmse=0.0, problem="shape (1, 2) instead of (1, 3)")
    assert "shape (1, 2)" in found(replace(HONEST, outputs=[wrong]))["outputs"].problem


def test_one_wrong_output_of_one_instance_is_enough() -> None:
    wrong = replace(HONEST, outputs=[replace(RIGHT, rmse=0.1)])
    assert failed(HONEST, HONEST, wrong) == {"outputs"}


def test_a_training_step_has_no_outputs_and_no_repeats_to_be_audited() -> None:
    step = replace(HONEST, outputs=[], repeated_s=None, moved_bytes=0)
    assert repeats_ratio(step) is None
    assert set(found(step, ratios=())) == {"fetch", "bound", "clock"}


def test_a_changed_input_fails() -> None:
    assert failed(HONEST, replace(HONEST, changed_inputs=1)) == {"inputs"}


@pytest.mark.parametrize(
    ("compute_s", "around_s", "moved_bytes", "fails"),
    [
        (1e-6, 40e-6, 0, False),  # nothing is free of charge
        (1e-6, 100e-6, 0, True),
        (1e-6, 100e-6, 100_000, False),  # 100 us to copy them
        (400e-6, 150e-6, 0, False),  # and it is less than half of the call itself
        (200e-6, 150e-6, 0, True),
    ],
)
def test_what_lies_around_a_call_may_not_be_the_call(
    compute_s: float, around_s: float, moved_bytes: int, fails: bool
) -> None:
    evidence = replace(HONEST, compute_s=compute_s, around_s=around_s, moved_bytes=moved_bytes, flops=0.0)
    assert failed(evidence) == ({"fetch"} if fails else set())
    assert found(evidence)["fetch"].allowed >= FREE_SECONDS


def test_where_arrays_go_to_a_device_more_time_is_free() -> None:
    on_device = replace(HONEST, compute_s=100e-6, around_s=150e-6, moved_bytes=0, peak_flops_per_s=None)
    assert failed(on_device) == set()
    assert failed(replace(on_device, around_s=600e-6)) == {"fetch"}


def test_a_repeated_input_that_is_surely_faster_fails() -> None:
    assert failed(HONEST, ratios=(0.05, 0.06, 0.05, 0.055)) == {"repeats"}
    assert failed(HONEST, ratios=(0.01, 0.012, 0.01)) == {"repeats"}


@pytest.mark.parametrize("ratios", [(0.01,), (), (0.01, 0.012), (0.4, 1.1, 0.45), (0.6, 0.6, 0.6), (3.0, 3.1)])
def test_a_repeated_input_that_may_not_be_much_faster_passes(ratios: tuple[float, ...]) -> None:
    assert failed(HONEST, ratios=ratios) == set()


@pytest.mark.slow
def test_of_honest_repeats_hardly_one_in_a_thousand_fails_however_noisy() -> None:
    """Instances that are 30 % apart, and whose repeats are a little faster: 0.8 of a fresh input's time."""
    rng = np.random.default_rng(1)
    alarms = sum(bool(failed(HONEST, ratios=tuple(0.8 * np.exp(0.3 * rng.standard_normal(20))))) for _ in range(4000))
    assert alarms <= 4


def test_nothing_beats_the_processors_own_product_by_far() -> None:
    peak = HONEST.peak_flops_per_s
    assert peak
    seconds = HONEST.flops / (BOUND_FACTOR * peak)
    assert failed(replace(HONEST, compute_s=0.9 * seconds, around_s=0.0)) == {"bound"}
    assert failed(replace(HONEST, compute_s=1.1 * seconds, around_s=0.0)) == set()
    assert failed(replace(HONEST, compute_s=0.9 * seconds, around_s=0.0, peak_flops_per_s=None)) == set()


def test_a_clock_that_runs_slowly_fails_and_an_engine_that_waits_for_a_core_does_not() -> None:
    assert failed(replace(HONEST, worker_s=1.0, engine_s=10.0)) == {"clock"}
    assert failed(*[replace(HONEST, worker_s=0.1, engine_s=1.0)] * 4) == {"clock"}
    assert failed(replace(HONEST, worker_s=1.0, engine_s=2.5)) == set()


@pytest.mark.parametrize(
    ("device_s", "host_s", "is_right"),
    [
        (1.0, 1.0, True),
        (0.9, 1.0, True),
        (3.0, 1.0, True),  # it may count more finely, and a call is not faster for it
        (0.4, 1.0, False),
        (0.0, 1.0, False),
        (20e-6, 200e-6, True),  # the marks themselves take time
        (0.0, 5e-3, False),
    ],
)
def test_a_devices_clock_is_held_against_the_hosts(device_s: float, host_s: float, is_right: bool) -> None:
    evidence = replace(HONEST, compute_s=device_s, host_s=host_s, repeated_s=device_s, peak_flops_per_s=None)
    finding = found(HONEST, replace(HONEST, repeated_s=1e-3), evidence)["clock"]
    assert (finding.problem == "") == is_right
    if not is_right:
        said = f"the device's clock counted {device_s:.2g} s a call while {host_s:.2g} s passed"
        assert (finding.problem, finding.value) == (said, device_s)
        assert finding.value < finding.allowed


def test_a_worker_rests_or_says_how_busy_it_is() -> None:
    assert rest(0.01) == Finding("rest", 0.01, RESTING_CORES)
    assert "1.50 cores are busy" in rest(1.5).problem


def test_the_least_ratio_is_of_latencies() -> None:
    assert repeats_ratio(replace(HONEST, compute_s=4.0, repeated_s=1.0)) == 0.25 < LEAST_RATIO


def test_a_forward_pass_reads_every_matrix_at_every_step() -> None:
    weights = {"w": np.zeros((8, 3)), "u": np.zeros((8, 2)), "b": np.zeros(8)}
    assert flops_of(weights, batch=5, time=7) == 2 * 5 * 7 * (8 * 3 + 8 * 2)


def test_the_peak_is_that_of_a_product() -> None:
    assert 1e7 < peak_flops_per_s("float32", 1) < 1e14


# ------------------------------------------------------------------------------------------------------------ cheats

MORE = """
import harness
from strangers import plain_model

@harness.hookimpl
def harness_models():
    return [plain_model("second"), plain_model("third")]
"""
SUITE = """
seeds = 0
trial_seconds = 60
[latency]
scenarios = ["single-stream"]
slices = 2
instances = 3
calls = 20
seconds = 0.05
twins = 0
"""
CHEATS = {  # a session's class, and what finds it out
    "Remembers": "audit repeats: the same input again takes",
    "RemembersObjects": "audit (repeats|outputs): ",
    "RemembersForAll": "audit repeats: the same input again takes",
    "ComputesWhenConverted": "audit outputs: ",
    "Lazy": "audit fetch: prepare and fetch take",
    "Eager": "audit fetch: prepare and fetch take",
    "OnTheSide": "audit fetch: prepare and fetch take",
    "Zeros": "audit outputs: .* of a timed call: error",
    "Constant": "audit outputs: .* of a timed call: error",
    "FirstStepOnly": "audit outputs: .* of a timed call: error",
    "Spoils": "audit inputs: a timed call changed its inputs",
    "FrozenTime": ".* at .*: error",
    "HalfPrecision": ".* at .*: error",
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path / "plugins", monkeypatch)
    found.add_plain(honest="")
    monkeypatch.chdir(tmp_path)
    return found


def run(suite: str = SUITE) -> tuple[Result, Run]:
    Path("suite.toml").write_text(suite, encoding="utf-8")
    result = CliRunner().invoke(main, ["run", "suite.toml", "--out", "out", "--quiet"])
    return result, load("out")


def cheat(world: World, name: str, session: str = "PlainSession", deed: str = "") -> None:
    world.add(name, SOURCE.format(name=name, session=session, deed=deed))


@pytest.fixture(scope="module")
def cheated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Run]:
    """One run of an honest runtime and of every cheat, each of which has workers of its own."""
    folder = tmp_path_factory.mktemp("cheated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        world = World(folder / "plugins", patch)
        world.add_plain(honest="")
        for session in CHEATS:
            cheat(world, session.lower(), session)
        return run()


@pytest.mark.parametrize("session", CHEATS)
def test_a_cheat_has_no_latency_and_the_reason_says_why(cheated: tuple[Result, Run], session: str) -> None:
    (row,) = [r for r in records(cheated[1].trials) if (r["runtime"], r["kind"]) == (session.lower(), "latency")]
    assert row["status"] == "wrong"
    assert re.match(CHEATS[session], row["reason"]), row["reason"]


def test_a_cheat_that_is_found_out_serves_no_load_either_also_when_the_run_is_gone_on_with(world: World) -> None:
    cheat(world, "cheats", "Remembers")
    result, finished = run(f"runtimes = ['cheats']\nloads = ['server', 'stream']\n{SUITE.lstrip()}")
    assert result.exit_code == 1
    for _ in range(2):
        rows = [row for row in records(finished.trials) if row["kind"] in ("latency", "load")]
        assert [row["kind"] for row in rows] == ["latency", "load", "load"]
        assert {row["status"] for row in rows} == {"wrong"}
        assert {row["reason"] for row in rows} == {rows[0]["reason"]}
        assert finished.loads.empty
        journal = finished.path / "journal.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        journal.write_text("".join(line for line in lines if "-load" not in line), encoding="utf-8")
        assert CliRunner().invoke(main, ["run", "--resume", "out", "--quiet"]).exit_code == 1
        finished = load("out")


def test_beside_every_cheat_the_honest_alone_have_latencies(cheated: tuple[Result, Run]) -> None:
    result, finished = cheated
    assert result.exit_code == 1
    assert set(finished.latency["variant"]) == {"honest@plain"}
    assert {r["status"] for r in records(finished.trials) if r["runtime"] == "plain"} == {"ok"}
    (summary,) = [row for row in records(finished.summary) if row["variant"] == "honest@plain"]
    assert summary["audits"] == "ok"


def test_work_on_a_side_stream_of_a_gpu_has_no_latency(world: World) -> None:
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("no GPU is here")
    cheat(world, "cheat", "OnAStream")
    result, finished = run()
    assert result.exit_code == 1
    (row,) = [r for r in records(finished.trials) if (r["runtime"], r["kind"]) == ("cheat", "latency")]
    assert (row["status"], row["reason"][:12]) == ("wrong", "audit fetch:")


def test_of_the_honest_every_audit_is_a_row_a_process_and_a_column(world: World) -> None:
    result, finished = run()
    assert result.exit_code == 0, result.output
    assert set(finished.audits["audit"]) == set(AUDITS)
    assert (finished.audits["problem"] == "").all()
    (trial,) = finished.latency["trial"].unique()
    assert len(finished.audits) == len(AUDITS) * 2
    assert finished.audits["process"].nunique() == 2
    assert (finished.latency[[f"audit_{name}" for name in AUDITS]] == "ok").all(axis=None)
    assert set(finished.audits["trial"]) == {trial}
    report = (finished.path / "report.md").read_text(encoding="utf-8")
    assert "All 1 variants that were timed passed the audits of their timed calls." in report


def test_a_failed_audit_is_in_the_tables_and_in_the_report(world: World) -> None:
    cheat(world, "cheat", "Zeros")
    _, finished = run()
    (summary,) = [row for row in records(finished.summary) if row["variant"] == "honest@cheat"]
    assert summary["audits"] == "outputs"
    assert math.isnan(summary["single_stream_latency_s"])
    (row,) = records(finished.audits[finished.audits["problem"] != ""])
    assert (row["audit"], row["value"] > row["allowed"]) == ("outputs", True)
    report = (finished.path / "report.md").read_text(encoding="utf-8")
    assert "whose latency is withheld: honest@cheat (outputs)." in report


@pytest.mark.parametrize("company", [True, False])
def test_a_cheat_costs_the_others_of_its_runtime_nothing(world: World, company: bool) -> None:
    cheat(world, "cheat", "Lazy")
    if company:
        world.add("more", MORE)
    _, finished = run()
    by_runtime = finished.trials[finished.trials["kind"] == "latency"].groupby("runtime")["status"].agg(set)
    assert by_runtime["plain"] == {"ok"}
    assert by_runtime["cheat"] == {"wrong"}


def test_a_clock_that_was_patched_before_is_not_the_one_that_is_read(world: World) -> None:
    cheat(world, "cheat", deed="cheats.slow_down_the_clock()")
    result, finished = run()
    assert result.exit_code == 0, result.output
    compute = finished.latency[finished.latency["boundary"] == "compute"].set_index("variant")["latency_s"]
    assert compute["honest@cheat"] > 0.5 * compute["honest@plain"]


def test_the_workers_own_clock_that_was_patched_is_told_by_the_engines(world: World) -> None:
    cheat(world, "cheat", deed="cheats.slow_down_the_workers_own_clock()")
    slow = SUITE.replace("calls = 20", "calls = 2500").replace("seconds = 0.05", "seconds = 0.4")
    _, finished = run("runtimes = ['cheat']\n" + slow.replace("instances = 3", "instances = 1"))
    (row,) = [r for r in records(finished.trials) if (r["runtime"], r["kind"]) == ("cheat", "latency")]
    assert (row["status"], row["reason"][:12]) == ("wrong", "audit clock:")


def test_of_a_load_outputs_inputs_bound_and_clock_are_audited() -> None:
    served = replace(HONEST, compute_s=2.0, flops=1e10, repeated_s=None)  # all calls together

    def asked(evidence: Evidence) -> dict[str, str]:
        return {finding.audit: finding.problem for finding in examine_served([evidence], YARDSTICK, "float32")}

    assert asked(served) == dict.fromkeys(("outputs", "inputs", "bound", "clock"), "")
    cheats = {
        "outputs": replace(served, outputs=[replace(RIGHT, rmse=1.0)]),
        "inputs": replace(served, changed_inputs=1),
        "bound": replace(served, flops=1e12),
        "clock": replace(served, worker_s=1.0, engine_s=10.0),
    }
    for name, evidence in cheats.items():
        assert {audit for audit, problem in asked(evidence).items() if problem} == {name}
