"""What other tools are given: pytest-benchmark itself reads it, and the others' files are what their pages ask for."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import ENVIRONMENT, HALF, Timed, five, write_run
from pytest_benchmark.stats import Stats

from harness import HarnessError, load
from harness.formats import BUILT_IN
from harness.interchange import bmf, github_action_benchmark, pooled_stats, pytest_benchmark
from harness.store import Run

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
SPREAD = 0.01  # of the logarithms of five processes' medians
COMPUTE = "single-stream 1×5, t on cpu: I=3 H=6 L=1, float32, 1 thread a call, compute"
WHOLE = COMPUTE.replace("compute", "end-to-end")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A baseline of 1 ms, a variant of 2 ms, and one that is wrong; end to end takes twice as long."""
    slow, wrong = Timed("b@r", five(0.002, SPREAD)), Timed("c@r", status="wrong", reason="parity failed")
    facts = ENVIRONMENT | {"started_utc": "2026-01-02T03:04:05+00:00", "commit": "abc+changes"}
    return load(write_run(tmp_path / "run", Timed("a@r", five(0.001, SPREAD)), slow, wrong, environment=facts))


@pytest.fixture
def alone(tmp_path: Path) -> Run:
    """One variant in one process: its interval is unknown."""
    return load(write_run(tmp_path / "alone", Timed("a@r", {(1, 1, 1): 0.001})))


def written(name: str, run: Run, folder: Path) -> Path:
    """The one file that a format writes."""
    folder.mkdir()
    BUILT_IN[name].write(run, folder)
    (path,) = folder.iterdir()
    return path


def compared(folder: Path, *arguments: str) -> tuple[str, list[dict[str, str]]]:
    """What `pytest-benchmark compare` prints, and the rows that it writes as CSV."""
    command = [sys.executable, "-m", "pytest_benchmark", *arguments, "--csv=rows"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (folder / "rows.csv").open(encoding="utf-8") as file:
        return done.stdout, list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------------ pytest-benchmark


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=40))
def test_statistics_are_those_that_pytest_benchmark_makes_of_the_same_calls(calls: list[float]) -> None:
    theirs = Stats()  # type: ignore[no-untyped-call]
    for value in calls:
        theirs.update(value)  # type: ignore[no-untyped-call]
    assert pooled_stats(calls) == theirs.as_dict()  # type: ignore[no-untyped-call]


def test_calls_that_took_no_time_have_no_rate() -> None:
    assert pooled_stats([0.0, 0.0])["ops"] == 0


def test_pytest_benchmark_reads_a_run_and_shows_every_row_of_its_latency_table(run: Run, tmp_path: Path) -> None:
    path = written("pytest-benchmark", run, tmp_path / "out")
    shown, rows = compared(tmp_path, "compare", str(path))
    assert f"benchmark '{COMPUTE}': 2 tests" in shown
    assert f"benchmark '{WHOLE}': 2 tests" in shown
    assert {row["name"]: float(row["median"]) for row in rows} == pytest.approx(
        {
            f"{group}::{name}": seconds * times
            for group, times in ((COMPUTE, 1), (WHOLE, 2))
            for name, seconds in (("a@r", 0.001), ("b@r", 0.002))
        }
    )
    assert {row["rounds"] for row in rows} == {"15"}  # three calls that count in each of five instances


def test_pytest_benchmark_holds_two_runs_against_each_other(run: Run, alone: Run, tmp_path: Path) -> None:
    paths = [str(written("pytest-benchmark", own, tmp_path / own.path.name[0])) for own in (run, alone)]
    shown, _ = compared(tmp_path, "compare", *paths)
    assert f"benchmark '{COMPUTE}': 3 tests" in shown
    assert re.search(r"a@r \(.*r/0001_latency\)", shown)
    assert re.search(r"a@r \(.*a/0001_latency\)", shown)


def test_pytest_benchmark_finds_a_run_in_its_storage(run: Run, tmp_path: Path) -> None:
    path = written("pytest-benchmark", run, tmp_path / "out")
    _, rows = compared(tmp_path, "--storage", str(path.parent), "compare")
    assert len(rows) == 4


def test_a_benchmark_says_what_our_estimate_is_and_that_theirs_is_not_it(run: Run) -> None:
    own = pytest_benchmark(run)["benchmarks"][0]
    info = own["extra_info"]
    assert info["estimate_value_s"] == pytest.approx(0.001)
    assert info["estimate_low_s"] == pytest.approx(0.001 * math.exp(-HALF * SPREAD))
    assert info["estimate_high_s"] == pytest.approx(0.001 * math.exp(HALF * SPREAD))
    assert (info["estimate_unit"], info["processes"], info["instances"]) == ("process", 5, 5)
    assert "neither the mean nor its stddev is our estimate" in info["stats"]
    assert info["parity"] == "ok"
    assert own["stats"]["stddev"] < 0.001 * SPREAD * 2  # which is none of these
    assert own["params"] == {
        "task": "t",
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "input_size": 3,
        "hidden_size": 6,
        "num_layers": 1,
        "scenario": "single-stream",
        "batch": 1,
        "time": 5,
        "caches": None,
        "boundary": "compute",
    }


def test_the_first_call_of_a_turn_is_no_data(run: Run) -> None:
    data = pytest_benchmark(run)["benchmarks"][0]["stats"]["data"]
    assert len(data) == 15
    assert max(data) < 0.0011  # it takes a thousand times as long


def test_machine_and_commit_are_those_of_the_run(run: Run) -> None:
    content = pytest_benchmark(run)
    machine, commit = content["machine_info"], content["commit_info"]
    assert (machine["system"], machine["release"], machine["machine"]) == ("Linux", "6.1", "x86_64")
    assert (machine["python_version"], machine["python_implementation"]) == ("3.11.9", "CPython")
    assert machine["cpu"]["brand_raw"] == "A CPU"
    assert (commit["id"], commit["dirty"]) == ("abc", True)
    assert (content["datetime"], content["version"]) == ("2026-01-02T03:04:05+00:00", "rnn-harness 0.1.0")


# ----------------------------------------------------------------------------------------- github-action-benchmark


def test_the_action_gets_an_array_of_its_entries(run: Run, tmp_path: Path) -> None:
    found = json.loads(written("github-action-benchmark", run, tmp_path / "out").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in found] == [
        f"{group}::{name}" for name in ("a@r", "b@r") for group in (COMPUTE, WHOLE)
    ]
    for entry in found:  # name, unit and value are required, range and extra may be there
        assert {name: type(value) for name, value in entry.items()} == {
            "name": str,
            "unit": str,
            "value": float,
            "range": str,
            "extra": str,
        }
        assert entry["unit"] == "ns"  # the same in every run, for values are compared as they are


def test_an_entry_is_our_estimate_with_half_of_its_interval(run: Run) -> None:
    first, _, slow, _ = github_action_benchmark(run)
    assert slow["value"] == pytest.approx(2e6)
    half = 2e6 * math.sinh(HALF * SPREAD)
    found = re.fullmatch(r"± (\d+(?:\.\d+)?)", slow["range"])
    assert found
    assert float(found[1]) == pytest.approx(half, rel=1e-4)
    low, high = (2 * math.exp(sign * HALF * SPREAD) for sign in (-1, 1))
    assert slow["extra"].splitlines() == [
        f"95 % interval: {low:.3g} ms to {high:.3g} ms, over process medians",
        *("parity: ok", "15 calls in 5 processes", "against a@r: slower"),
    ]
    assert "against" not in first["extra"]  # the baseline itself


def test_an_entry_whose_interval_is_unknown_has_no_range(alone: Run) -> None:
    entry = github_action_benchmark(alone)[0]
    assert "range" not in entry
    assert entry["extra"].splitlines()[0] == "95 % interval: unknown"


# ------------------------------------------------------------------------------------------------------------- bmf


def test_bencher_gets_a_latency_in_nanoseconds_with_the_ends_of_its_interval(run: Run, tmp_path: Path) -> None:
    found = json.loads(written("bmf", run, tmp_path / "out").read_text(encoding="utf-8"))
    assert found[f"{COMPUTE}::b@r"] == {
        "latency": {
            "value": pytest.approx(2e6),
            "lower_value": pytest.approx(2e6 * math.exp(-HALF * SPREAD)),
            "upper_value": pytest.approx(2e6 * math.exp(HALF * SPREAD)),
        }
    }
    assert len(found) == 4


def test_a_metric_whose_interval_is_unknown_is_its_value_alone(alone: Run) -> None:
    assert bmf(alone)[f"{COMPUTE}::a@r"] == {"latency": {"value": pytest.approx(1e6)}}


def test_a_file_of_metrics_keeps_benchers_schema_and_limits_of_names() -> None:
    found = bmf(load(REFERENCE / "tutorial"))
    assert found
    for name, measures in found.items():
        assert 0 < len(name) <= 1024
        for measure, metric in measures.items():
            assert re.fullmatch("[a-z0-9-]{1,64}", measure)
            assert "value" in metric
            assert metric.keys() <= {"value", "lower_value", "upper_value"}
            assert all(isinstance(value, float) and math.isfinite(value) for value in metric.values())


# ------------------------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("suite", ["tutorial", "scenarios", "deploy"])
def test_every_row_of_a_real_run_has_a_name_of_its_own(suite: str) -> None:
    real = load(REFERENCE / suite)
    names = [own["fullname"] for own in pytest_benchmark(real)["benchmarks"]]
    assert len(names) == len(real.latency)
    assert len(set(names)) == len(names)
    assert [entry["name"] for entry in github_action_benchmark(real)] == list(bmf(real)) == names


def test_settings_of_a_sweep_have_names_of_their_own_and_a_row_keeps_its_name_without_the_others(
    tmp_path: Path,
) -> None:
    def names(*sizes: int) -> list[str]:
        timed = [Timed("a@r", five(0.001), {"hidden_size": size}) for size in sizes]
        path = write_run(tmp_path / "-".join(map(str, sizes)), *timed)
        header = json.loads((path / "run.json").read_text(encoding="utf-8"))
        for trial in header["trials"]:  # parity is of the same size
            trial["hidden_size"] = sizes[int(trial["trial"][:4]) > 2]
        (path / "run.json").write_text(json.dumps(header), encoding="utf-8")
        return [name for name in bmf(load(path)) if "compute" in name]

    both = names(6, 12)
    assert [name.replace("H=12", "H=6") for name in both] == [f"{COMPUTE}::a@r"] * 2
    assert len(set(both)) == 2
    assert names(6, 6) == both[:1]


@pytest.mark.parametrize("write", [pytest_benchmark, github_action_benchmark, bmf])
def test_a_run_without_latency_is_refused(write: Any, tmp_path: Path) -> None:
    empty = load(write_run(tmp_path / "run", Timed("a@r", status="failed", reason="it fell over")))
    with pytest.raises(HarnessError, match="has no latency to write: no latency trial in it is ok; see its report"):
        write(empty)


@pytest.mark.parametrize("write", [github_action_benchmark, bmf])
def test_a_latency_that_a_clock_did_not_see_is_left_out(write: Any, tmp_path: Path) -> None:
    still = load(write_run(tmp_path / "run", Timed("a@r", five(0.001)), Timed("b@r", five(0.0))))
    assert len(write(still)) == 2  # both boundaries of the other
    assert len(pytest_benchmark(still)["benchmarks"]) == 4
