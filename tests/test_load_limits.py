"""The limits that loads find, held against the truth: real arrivals, and calls of a known time on a fake clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from strangers import plain_model
from test_arrivals import Clock
from test_load import HONEST, SUITE, Script, Scripted, run_all

from harness.engine.arrivals import Load, serve, work
from harness.estimates import NOT_SUSTAINED, SUSTAINED
from harness.store import Run
from harness.suite import Latency, Server, Stream, Suite
from harness.tables import records

CALL_S = 0.001


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


class Simulated(Scripted):
    """A worker whose calls take a known time, while nothing else takes any."""

    def under_load(self, key: str, time: int, load: dict[str, Any]) -> Any:
        own, clock = Load(**load), Clock()

        def call(places: range) -> None:
            clock.now += self._script.service_s

        served, delays = serve(own.schedule(), call, clock, clock.wait, own.window_s, own.most_batch)
        calls, busy_s = work(served)
        latencies = [request.latency_s for request in served]
        return {"latencies_s": latencies, "delays_s": delays, "calls": calls, "busy_s": busy_s, "evidence": HONEST}


def simulated(path: Path, monkeypatch: pytest.MonkeyPatch, suite: Suite, call_s: float = CALL_S) -> Run:
    """A run of loads of one variant, whose calls take so long."""
    script = Script(monkeypatch)
    script.service_s = call_s
    monkeypatch.setattr("harness.engine.context.WorkerProcess", lambda *_, **others: Simulated(script))
    return run_all(path, plain_model("a"), suite=suite)


def suite_of(load: str, slices: int, **others: Any) -> Suite:
    changes = {"loads": [load], "latency": Latency(scenarios=[], slices=slices), "server": Server(), **others}
    return SUITE.model_copy(update=changes)


def true_limit(call_s: float, bound_s: float) -> float:
    """The rate at which p99 of M/D/1 latencies is the bound, in the long run.

    P(wait > t) -> (1 - ρ) / (λ·s·exp(θ·s) - 1) · exp(-θ·t), with θ > 0 where λ·(exp(θ·s) - 1) = θ. Source: Asmussen,
    "Applied Probability and Queues", 2003, chapter XIII.5 (Cramér-Lundberg).
    """

    def excess(utilisation: float) -> float:
        rate = utilisation / call_s
        theta = brentq(lambda x: rate * math.expm1(x * call_s) - x, 1e-6 / call_s, 10 / call_s)
        constant = (1 - utilisation) / (utilisation * math.exp(theta * call_s) - 1)
        return constant * math.exp(-theta * (bound_s - call_s)) - 0.01

    return float(brentq(excess, 0.5, 0.9999)) / call_s


@pytest.mark.parametrize(("bound_s", "times"), [(0.05, 1.05), (0.01, 1.3)])
def test_a_slower_machine_carries_less_by_more_than_it_is_slower_the_nearer_calls_are_to_the_bound(
    bound_s: float, times: float
) -> None:
    less = math.log(true_limit(CALL_S, bound_s) / true_limit(1.01 * CALL_S, bound_s))
    assert less / math.log(1.01) == pytest.approx(times, abs=0.02)


def limits(run: Run) -> list[float]:
    """What each worker found."""
    own = run.loads[run.loads["is_confirmation"] & run.loads["verdict"].eq(SUSTAINED)]
    return [float(rate) for rate in own.groupby("slice")["rate_per_s"].max()]


def bias_and_scatter(found: Sequence[float], truth: float) -> tuple[float, float, float]:
    """The geometric mean of what was found over the truth, and the lowest and the highest of them."""
    shares = np.array(found) / truth
    return float(np.exp(np.mean(np.log(shares)))), float(shares.min()), float(shares.max())


def test_the_truth_that_is_held_against_is_what_a_long_queue_has() -> None:
    """Lindley's recursion, 2 million requests at the limit: about 1 % of them take longer than the bound."""
    rate = true_limit(CALL_S, 0.02)
    gaps = np.random.default_rng(1).exponential(1 / rate, 2_000_000)
    walk = np.cumsum(CALL_S - gaps)
    waits = walk - np.minimum.accumulate(np.minimum(walk, 0.0))
    assert 0.009 < np.mean(waits + CALL_S > 0.02) < 0.011


@pytest.mark.parametrize(
    ("call_s", "lowest_mean", "lowest", "highest"),
    [(0.001, 0.97, 0.95, 1.05), (0.01, 0.88, 0.75, 1.10)],
    ids=["a bound of 50 calls", "a bound of 5 calls"],
)
def test_the_limit_of_a_server_is_the_queues_own_within_what_the_methodology_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_s: float, lowest_mean: float, lowest: float, highest: float
) -> None:
    """M/D/1, the defaults of a suite, ten workers with seeds of their own."""
    run = simulated(tmp_path / "run", monkeypatch, suite_of("server", slices=10), call_s)
    mean, least, most = bias_and_scatter(limits(run), true_limit(call_s, 0.05))
    assert len(limits(run)) == 10
    assert lowest_mean < mean < 1.03
    assert (lowest < least, most < highest) == (True, True)


def test_a_confirmation_lasts_a_hundred_bounds_and_has_arrivals_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulated(tmp_path / "run", monkeypatch, suite_of("server", slices=3))
    for row in records(run.loads):
        bounds = row["requests"] / row["rate_per_s"] / row["bound_s"]
        assert bounds >= (100 if row["is_confirmation"] else 20)
        assert row["judged"] == row["requests"] - (row["requests"] // 5 if row["is_confirmation"] else 0)
        assert row["verdict"] == NOT_SUSTAINED or row["rate_per_s"] * row["busy_s"] <= row["requests"] * (1 + 1e-6)
    (found,) = records(run.capacity)
    assert found["capacity"] == pytest.approx(math.exp(np.mean(np.log(limits(run)))))
    assert not found["is_capped"]


def test_no_probe_is_cut_short_so_the_highest_rate_that_is_offered_is_a_cap_and_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.load.MOST_REQUESTS", 800)  # in 20 bounds, which are a second
    run = simulated(tmp_path / "run", monkeypatch, suite_of("server", slices=2))
    assert all(row["requests"] / row["rate_per_s"] >= 0.999 for row in records(run.loads))
    (found,) = records(run.capacity)
    assert (found["capacity"], found["is_capped"]) == (pytest.approx(800.0), True)


def test_a_call_of_a_few_microseconds_under_a_long_bound_is_never_called_sustained_above_what_it_can_serve(
    script: Script, tmp_path: Path
) -> None:
    """200,000 requests of 8 µs are 1.6 s; under a bound of 0.5 s an overload of 44 % does not show so soon."""
    script.service_s, script.limit = 8e-6, lambda session, scenario: math.inf
    script.busy_s = lambda load: load["requests"] * 8e-6
    run = run_all(tmp_path / "run", plain_model("a"), suite=suite_of("server", 2, server=Server(p99_seconds=0.5)))
    (found,) = records(run.capacity)
    assert (found["capacity"], found["is_capped"]) == (pytest.approx(200_000 / (20 * 0.5)), True)
    assert run.loads["rate_per_s"].max() < 1 / 8e-6


# ------------------------------------------------------------------------------------------------- streams

STREAM = Stream(chunk_steps=10, step_seconds=0.01, precision=0.05)  # a chunk a tenth of a second: 100 streams of 1 ms


def test_the_limit_of_streams_is_within_the_precision_of_those_that_can_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulated(tmp_path / "run", monkeypatch, suite_of("stream", 2, stream=STREAM))
    (found,) = records(run.capacity)
    assert 100 / 1.05 <= found["capacity"] <= 100
    assert (found["misses"], found["is_capped"]) == (0.0, False)
    assert not run.loads["is_confirmation"].any()


@pytest.mark.parametrize("call_s", [0.00103, 0.00101])
def test_streams_that_overload_a_worker_by_a_little_are_not_sustained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_s: float
) -> None:
    stream = STREAM.model_copy(update={"precision": 0.001})  # to one stream
    run = simulated(tmp_path / "run", monkeypatch, suite_of("stream", 2, stream=stream), call_s)
    (found,) = records(run.capacity)
    assert found["capacity"] == pytest.approx(math.floor(0.1 / call_s))
    assert found["not_sustained"] == math.floor(0.1 / call_s) + 1
    near = [row for row in records(run.loads) if row["streams"] == found["not_sustained"]]
    assert [row["misses"] for row in near] == [0, 0]  # no chunk was late yet, in 20


def test_the_most_streams_that_are_offered_are_a_cap_and_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.load.MOST_REQUESTS", 1000)  # of 20 chunks a stream
    run = simulated(tmp_path / "run", monkeypatch, suite_of("stream", 2, stream=STREAM))
    (found,) = records(run.capacity)
    assert (found["capacity"], found["is_capped"]) == (pytest.approx(50.0), True)
