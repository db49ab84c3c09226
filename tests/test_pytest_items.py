"""A suite's variants as tests: each proved and timed, or failing in one line and without a number."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cheats import SOURCE
from click.testing import CliRunner
from pytest_runs import QUICKLY, Asked, ask
from strangers import QUICK, World
from whole_runs import run_all

from harness import load
from harness.cli import main
from harness.engine.in_process import Windows
from harness.interchange import pytest_benchmark

BROKEN = "import no_such_package"
SUITE = "loads = ['server']\n" + QUICK.replace("seeds = 2", "seeds = 1")
LATENCIES = ("single-stream", "offline", "training-step")
PLACE = "harness::tiny"
PAGE = Path(__file__).parent.parent / "docs" / "pytest.md"
pytestmark = pytest.mark.slow
JSON = ("--benchmark-json", "benchmarks.json")
OWN_TESTS = """
import pytest

def test_mine():
    pass

def test_forward(benchmark, harness_variant):
    session = harness_variant.session
    prepared = session.prepare(harness_variant.inputs(batch=4, time=20))
    benchmark(session.run, prepared)

def test_names(harness_variant):
    assert str(harness_variant) == "plain-lstm@plain"
    assert harness_variant.size.hidden_size == 6
    harness_variant.check()
"""
CONFTEST = """
import pytest

@pytest.fixture(autouse=True, scope="module")
def of_a_module(request):
    assert request.module
    yield

@pytest.fixture(autouse=True, scope="package")
def of_a_package():
    yield
"""


def strangers_in(folder: Path, patch: pytest.MonkeyPatch, **habits: str) -> World:
    world = World(folder / "plugins", patch)
    world.add_plain(**habits)
    (folder / "suite.toml").write_text(SUITE, encoding="utf-8")
    return world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A folder with a suite, in which one honest model is installed."""
    return strangers_in(tmp_path, monkeypatch)


def harness(folder: Path, *arguments: str, **files: str) -> Asked:
    return ask(folder, "--harness", "--harness-suite=suite.toml", *QUICKLY, *arguments, **files)


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """One run of the honest, the wrong, those that refuse, raise and cannot be loaded."""
    folder = tmp_path_factory.mktemp("everybody")
    with pytest.MonkeyPatch.context() as patch:
        habits = {"forgetful": "ignores its state", "late": "is wrong later", "sleepy": "refuses", "raising": "raises"}
        world = strangers_in(folder, patch, plain_lstm="", **habits)
        world.add("broken", BROKEN)
        return harness(folder, "-v", "-rfs", *JSON)


# ------------------------------------------------------------------------------------------------------- what is asked


def test_every_variant_and_latency_is_a_test_and_so_is_a_plugin_that_cannot_be_loaded(everybody: Asked) -> None:
    models = ("plain-lstm", "forgetful", "late", "sleepy", "raising")
    timed = [f"{PLACE}::{model}@plain::{scenario}" for model in models for scenario in LATENCIES]
    assert list(everybody.outcomes) == [*timed, "harness::plugins::broken"]


@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        ("plain-lstm", "PASSED"),
        ("forgetful", "FAILED"),
        ("late", "FAILED"),
        ("sleepy", "SKIPPED"),
        ("raising", "FAILED"),
    ],
)
def test_a_test_ends_as_its_variant_does(everybody: Asked, model: str, outcome: str) -> None:
    assert {everybody.outcomes[f"{PLACE}::{model}@plain::{scenario}"] for scenario in LATENCIES} == {outcome}


def test_what_is_wrong_fails_with_the_harness_own_reason_in_one_line(everybody: Asked) -> None:
    assert any(line.startswith(f"FAILED {PLACE}::forgetful@plain::offline - Failed: ") for line in everybody.lines)
    assert re.search(r"^forgetful@plain on tiny: wrong: \w+ at batch .* checks failed\)$", everybody.text, re.MULTILINE)
    assert re.search(r"^late@plain on tiny: wrong: after timing: ", everybody.text, re.MULTILINE)


def test_what_is_not_supported_is_skipped_with_its_reason(everybody: Asked) -> None:
    assert "sleepy@plain on tiny: this model runs on Sundays only" in everybody.text


def test_what_raises_shows_where(everybody: Asked) -> None:
    assert 'raise ValueError("a | pipe\\nand a <script>")' in everybody.text


def test_nothing_is_warned_of_and_no_reason_has_another_behind_it(everybody: Asked) -> None:
    assert "PytestBenchmarkWarning" not in everybody.text
    assert "During handling" not in everybody.text


def test_a_plugin_that_cannot_be_loaded_fails_and_says_why(everybody: Asked) -> None:
    said = "plugin 'broken' cannot be loaded: 'stranger-broken' needs 'no_such_package', which is not installed"
    assert everybody.outcomes["harness::plugins::broken"] == "FAILED"
    assert f"harness: {said}" in everybody.text  # told when it is collected, too
    assert re.search(f"^{said}", everybody.text, re.MULTILINE)


def test_what_the_suite_asks_for_besides_is_told(everybody: Asked) -> None:
    told = "not here: 5 accuracy trials, 5 load trials, 1 calibration trial; harness run has them"
    assert f"harness: suite suite, 5 variants; {told}" in everybody.lines


# ------------------------------------------------------------------------------------------------------- what is timed


def test_only_what_is_right_has_a_number(everybody: Asked) -> None:
    assert [own["name"] for own in everybody.benchmarks] == ["plain-lstm@plain"] * 3
    tables = everybody.text.partition("Legend:")[0].partition(": 1 tests")[2]
    assert "plain-lstm@plain" in tables
    assert "late@plain" not in tables


def test_a_benchmark_says_what_the_harness_says_of_its_own_export(everybody: Asked) -> None:
    for own in everybody.benchmarks:
        info = own["extra_info"]
        assert info["estimate_value_s"] == own["stats"]["median"]
        assert (info["estimate_low_s"], info["estimate_high_s"], info["estimate_unit"]) == (None, None, None)
        assert (info["parity"], info["compute_dtype"]) == ("ok", "float32")
        assert (info["processes"], info["instances"]) == (1, 1)
        assert info["estimate"] == "median of the rounds of one instance, in one process; it has no interval"
        assert "threads_not_held" not in info
        assert min(own["stats"]["data"]) > 0
        assert own["options"]["timer"] == Windows.seconds.__name__  # which stands still outside the windows


def test_names_are_those_of_an_export_of_a_run(everybody: Asked, world: World, tmp_path: Path) -> None:
    run = run_all(world, tmp_path / "run", SUITE.replace("loads = ['server']", ""))

    def names(benchmarks: Sequence[dict[str, Any]]) -> list[Any]:
        parts = ("group", "name", "fullname", "params", "param")
        return sorted((json.dumps([own[part] for part in parts]) for own in benchmarks), key=str)

    exported = pytest_benchmark(run)["benchmarks"]
    ours = [own for own in exported if own["params"]["boundary"] == "compute"]
    assert names(everybody.benchmarks) == names(ours)
    assert ours[0]["extra_info"].keys() == everybody.benchmarks[0]["extra_info"].keys()


def test_harness_import_takes_back_what_was_timed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert harness(tmp_path, "-q", *JSON).code == 0
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["import", "benchmarks.json", "--out", "run"])
    assert result.exit_code == 0, result.output
    assert "Parity is what the file says: the checks themselves are not in it." in result.output
    run = load("run")
    known = (
        "variant",
        "task",
        "scenario",
        "batch",
        "time",
        "device",
        "dtype",
        "compute_dtype",
        "threads",
        "hidden_size",
    )
    found = [tuple(row[name] for name in known) for row in run.trials.to_dict("records") if row["kind"] == "latency"]
    place = ("cpu", "float32", "float32", 1, 6)
    assert found == [
        ("plain-lstm@plain", "tiny", "single-stream", 1, 5, *place),
        ("plain-lstm@plain", "tiny", "offline", 4, 5, *place),
        ("plain-lstm@plain", "tiny", "training-step", 8, 5, *place),
    ]
    (row,) = run.summary.to_dict("records")
    assert row["reason"] == "its file says that parity was ok; the checks themselves are not in it"
    medians = [own["stats"]["median"] for own in json.loads(Path("benchmarks.json").read_text("utf-8"))["benchmarks"]]
    assert list(run.latency["latency_s"]) == pytest.approx(medians, rel=1e-12)


def test_a_benchmark_is_held_against_a_stored_one_by_pytest_benchmark(world: World, tmp_path: Path) -> None:
    only = (f"{PLACE}::plain-lstm@plain::offline", "-q")
    assert harness(tmp_path, *only, "--benchmark-save=before").code == 0
    (path,) = tmp_path.glob(".benchmarks/*/*_before.json")
    stored = json.loads(path.read_text(encoding="utf-8"))
    for times, code in ((1e-6, 1), (1e6, 0)):  # a thing of the past that was much faster, and one that was much slower
        other = copy.deepcopy(stored)
        stats = other["benchmarks"][0]["stats"]
        stats.update({name: stats[name] * times for name in ("min", "max", "mean", "median")})
        path.write_text(json.dumps(other), encoding="utf-8")
        done = harness(tmp_path, *only, "--benchmark-compare", "--benchmark-compare-fail=median:50%")
        assert (done.code, "Performance has regressed" in done.text) == (code, code == 1)


def test_options_of_pytest_benchmark_hold(world: World, tmp_path: Path) -> None:
    done = harness(
        tmp_path, "-q", "-k", "offline", *JSON, "--benchmark-min-rounds=37", "--benchmark-group-by=param:batch"
    )
    (own,) = done.benchmarks
    assert own["options"]["min_rounds"] == 37
    assert own["stats"]["rounds"] >= 37
    assert "benchmark 'batch=4': 1 tests" in done.text


# ------------------------------------------------------------------------------------------------------------- audits

CHEATS = {  # a session's class, and what finds it out
    "Remembers": "wrong: audit repeats: the same input again takes",
    "ComputesWhenConverted": "wrong: audit outputs: ",
    "Lazy": "wrong: audit fetch: prepare and fetch take",
    "Eager": "wrong: audit fetch: prepare and fetch take",
    "Zeros": "wrong: audit outputs: .* of a timed call: error",
    "Spoils": "wrong: audit inputs: a timed call changed its inputs",
    "HalfPrecision": "wrong: .* at .*: error",
}
CHEATED = QUICK + "scenarios = ['single-stream']"  # a cheat knows parity by the number of its calls
WORKS_ON = """
import harness
from strangers import PlainRuntime, PlainSession
import threading

class WorksOn(PlainSession):
    def run(self, prepared):
        if not hasattr(self, "worker"):
            def work():
                while not self.is_closed.wait(0):
                    pass
            self.is_closed = threading.Event()
            self.worker = threading.Thread(target=work, daemon=True)
            self.worker.start()
        return super().run(prepared)
    def close(self):
        self.is_closed.set()
        self.worker.join()

class Busy(PlainRuntime):
    def open(self, *arguments):
        honest = super().open(*arguments)
        return WorksOn(honest._layer, honest._weights)

@harness.hookimpl
def harness_runtimes():
    return [Busy("busy")]
"""


@pytest.fixture(scope="module")
def cheated(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """One run of an honest runtime, of every cheat, and of one that works on, in one process."""
    folder = tmp_path_factory.mktemp("cheated")
    with pytest.MonkeyPatch.context() as patch:
        world = strangers_in(folder, patch, honest="")
        (folder / "suite.toml").write_text(CHEATED, encoding="utf-8")
        for session in CHEATS:
            world.add(session.lower(), SOURCE.format(name=session.lower(), session=session, deed=""))
        world.add("busy", WORKS_ON)
        return harness(folder, "-v", *JSON)


@pytest.mark.parametrize("session", CHEATS)
def test_a_cheat_fails_and_the_reason_says_why(cheated: Asked, session: str) -> None:
    assert cheated.outcomes[f"{PLACE}::honest@{session.lower()}::single-stream"] == "FAILED"
    assert re.search(f"^honest@{session.lower()} on tiny: {CHEATS[session]}", cheated.text, re.MULTILINE)


def test_what_works_on_after_its_calls_fails_and_nobody_else_for_it(cheated: Asked) -> None:
    assert re.search(r"^honest@busy on tiny: failed: audit rest: \d\.\d\d cores are busy", cheated.text, re.MULTILINE)
    assert cheated.outcomes[f"{PLACE}::honest@plain::single-stream"] == "PASSED"


def test_no_cheat_has_a_number(cheated: Asked) -> None:
    assert [own["name"] for own in cheated.benchmarks] == ["honest@plain"]


def test_what_is_computed_is_audited_where_nothing_is_timed(tmp_path: Path, world: World) -> None:
    world.add("zeros", SOURCE.format(name="zeros", session="Zeros", deed=""))
    (tmp_path / "suite.toml").write_text(CHEATED, encoding="utf-8")
    done = harness(tmp_path, "-v", "--benchmark-disable")
    assert done.outcomes == {
        f"{PLACE}::plain-lstm@plain::single-stream": "PASSED",
        f"{PLACE}::plain-lstm@zeros::single-stream": "FAILED",
    }
    assert "audit outputs: " in done.text


# --------------------------------------------------------------------------------------------------- pytest's own ways


def test_a_node_id_from_the_output_chooses_a_test_and_its_beginning_all_below(world: World, tmp_path: Path) -> None:
    def collected(*arguments: str) -> list[str]:
        done = harness(tmp_path, "--collect-only", "-q", *arguments, test_own="def test_mine(): pass\n")
        return [line for line in done.lines if "::" in line]

    everything = [f"{PLACE}::plain-lstm@plain::{scenario}" for scenario in LATENCIES]
    assert collected() == ["test_own.py::test_mine", *everything]
    assert collected(everything[1]) == everything[1:2]
    assert collected("harness::") == collected(PLACE) == collected(f"{PLACE}::plain-lstm@plain") == everything
    assert collected("test_own.py", everything[2]) == ["test_own.py::test_mine", everything[2]]
    assert collected("-m", "harness") == everything
    assert collected("-m", "not harness") == ["test_own.py::test_mine"]
    assert collected("-k", "plain and offline") == everything[1:2]


def test_below_the_root_folder_an_id_from_the_output_chooses_its_test_too(world: World, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()

    def collected(*arguments: str) -> list[str]:
        options = ("--harness", "--harness-suite=../suite.toml", "--rootdir=..", "-v", "--benchmark-disable")
        done = ask(tmp_path / "below", *options, *arguments)
        return [line.split()[0] for line in done.lines if line.split()[1:2] == ["PASSED"]]

    printed = collected()
    assert printed == [f"../{PLACE}::plain-lstm@plain::{scenario}" for scenario in LATENCIES]
    assert collected(printed[1]) == printed[1:2]
    assert collected(f"{PLACE}::plain-lstm@plain::offline") == printed[1:2]
    assert collected("../harness::", "-k", "offline") == printed[1:2]


def test_an_id_of_another_test_alone_chooses_that_test_alone(world: World, tmp_path: Path) -> None:
    own = "def test_mine(): pass\n\ndef test_other(): pass\n"
    only = harness(tmp_path, "-v", "test_own.py::test_mine", test_own=own)
    assert only.outcomes == {"test_own.py::test_mine": "PASSED"}
    both = harness(tmp_path, "--collect-only", "-q", "test_own.py::test_mine", PLACE)
    assert [line for line in both.lines if "::" in line][:2] == [
        "test_own.py::test_mine",
        f"{PLACE}::plain-lstm@plain::single-stream",
    ]


def test_a_node_id_that_is_none_is_one_line(world: World, tmp_path: Path) -> None:
    done = harness(tmp_path, "-q", f"{PLACE}::plain-lstm@plain::off")
    assert done.code == 2
    assert f"not found: {PLACE}::plain-lstm@plain::off; did you mean '{PLACE}::plain-lstm@plain::offline'" in done.text


def test_beside_ones_own_tests_and_fixtures_what_failed_last_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers_in(tmp_path, monkeypatch, plain_lstm="", forgetful="ignores its state")
    own = "def test_mine(): pass\n\ndef test_broken():\n    assert 0\n"
    first = harness(tmp_path, "-v", "-k", "not training", conftest=CONFTEST, test_own=own)
    failed = ["test_own.py::test_broken", *(f"{PLACE}::forgetful@plain::{s}" for s in LATENCIES[:2])]
    assert [name for name, outcome in first.outcomes.items() if outcome == "FAILED"] == failed
    assert list(first.outcomes.values()).count("PASSED") == 3
    again = harness(tmp_path, "-v", "--lf")
    asked_twice = {name: outcome for name, outcome in again.outcomes.items() if name in first.outcomes}
    assert asked_twice == dict.fromkeys(failed, "FAILED"), again.text  # whether what was never asked is, is pytest's
    stopped = harness(tmp_path, "-v", "-x", PLACE)
    assert list(stopped.outcomes.values()) == ["PASSED"] * 3 + ["FAILED"]


def test_benchmarks_can_be_skipped(world: World, tmp_path: Path) -> None:
    done = harness(tmp_path, "-v", "--benchmark-skip", test_own="def test_mine(): pass\n")
    assert list(done.outcomes.values()) == ["PASSED"] + ["SKIPPED"] * 3


def test_with_xdist_everything_is_checked_and_nothing_timed(world: World, tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    done = harness(tmp_path, "-n2", *JSON, PLACE)
    assert "3 passed" in done.text
    assert done.benchmarks == []


def test_shapes_and_settings_of_a_sweep_have_ids_of_their_own(world: World, tmp_path: Path) -> None:
    sweep = "[sweep]\nbatch = [2, 4]\nhidden_size = [3, 6]\nthreads = [1]\n"
    (tmp_path / "suite.toml").write_text(SUITE + sweep, encoding="utf-8")
    done = harness(tmp_path, "--collect-only", "-q", "-k", "offline")
    places = [f"harness::tiny-H{hidden}-L1-float32-1t" for hidden in (3, 6)]
    wanted = [f"{place}::plain-lstm@plain::offline-{batch}x5" for place in places for batch in (2, 4)]
    assert [line for line in done.lines if "::" in line] == wanted


def test_where_no_latency_is_asked_for_parity_is_a_test_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers_in(tmp_path, monkeypatch, plain_lstm="", forgetful="ignores its state")
    suite = QUICK.replace("[latency]", "[latency]\nscenarios = []")
    (tmp_path / "suite.toml").write_text(suite, encoding="utf-8")
    done = harness(tmp_path, "-v")
    assert done.outcomes == {
        f"{PLACE}::plain-lstm@plain::parity": "PASSED",
        f"{PLACE}::forgetful@plain::parity": "FAILED",
    }


def test_a_suite_of_which_nothing_is_left_is_one_line(world: World, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text("models = ['plane-lstm']", encoding="utf-8")
    for options, who in ((["--harness"], "--harness"), ([], "harness_variant")):
        done = ask(tmp_path, *options, "-q", "--harness-suite=suite.toml", test_own=OWN_TESTS)
        assert done.code == 2
        assert f"{who}: no model is called 'plane-lstm'; did you mean 'plain-lstm'?" in done.text
        assert "Traceback" not in done.text


def test_another_interpreter_is_skipped_with_the_reason(world: World, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text("pythons = {old = 'python'}\n" + SUITE, encoding="utf-8")
    done = harness(tmp_path, "-v", "-rs", "-k", "offline")
    assert done.outcomes == {f"{PLACE}::plain-lstm@plain[old]::offline": "SKIPPED"}
    assert "another interpreter needs a process of its own; harness run has it" in done.text


GREEDY = """
import harness
from strangers import PlainRuntime, PlainSession

class Greedy(PlainSession):
    def run(self, prepared):
        import threadpoolctl
        threadpoolctl.threadpool_limits(2)
        return super().run(prepared)

class GreedyRuntime(PlainRuntime):
    def open(self, *arguments):
        honest = super().open(*arguments)
        return Greedy(honest._layer, honest._weights)

@harness.hookimpl
def harness_runtimes():
    return [GreedyRuntime("greedy")]
"""


def test_threads_that_are_not_held_are_told(world: World, tmp_path: Path) -> None:
    world.add("greedy", GREEDY)
    done = harness(tmp_path, "-q", "-k", "greedy and offline", *JSON)
    (own,) = done.benchmarks
    pools = own["extra_info"]["threads_not_held"]
    assert pools
    assert all(re.fullmatch(r"\S+: 2", pool) for pool in pools)
    assert f"harness: number of threads not held: {', '.join(pools)}; see extra_info" in done.lines


def test_they_are_told_of_a_benchmark_that_was_asked_for_late_too(world: World, tmp_path: Path) -> None:
    world.add("greedy", GREEDY)
    done = ask(tmp_path, "-q", *JSON, "-k", "greedy", "--harness-suite=suite.toml", test_own=LATE)
    (own,) = done.benchmarks
    assert own["extra_info"]["threads_not_held"]


# ----------------------------------------------------------------------------------------------------- harness_variant


def test_ones_own_test_is_asked_with_every_variant_without_the_option_too(world: World, tmp_path: Path) -> None:
    done = ask(tmp_path, "-v", *QUICKLY, *JSON, "--harness-suite=suite.toml", test_own=OWN_TESTS)
    names = ["test_mine", "test_forward[plain-lstm@plain]", "test_names[plain-lstm@plain]"]
    assert done.outcomes == {f"test_own.py::{name}": "PASSED" for name in names}
    assert [own["params"] for own in done.benchmarks] == [{"harness_variant": "plain-lstm@plain"}]
    assert [own["name"] for own in done.benchmarks] == ["test_forward[plain-lstm@plain]"]


LATE = """
def test_forward(request, harness_variant):
    benchmark = request.getfixturevalue("benchmark")
    session = harness_variant.session
    prepared = session.prepare(harness_variant.inputs(batch=4, time=20))
    benchmark.pedantic(session.run, (prepared,), rounds=20)
"""
PEDANTIC = """
def test_forward(benchmark, harness_variant):
    session = harness_variant.session
    prepared = session.prepare(harness_variant.inputs(batch=4, time=20))
    benchmark.pedantic(session.run, (prepared,), rounds=20)
"""


def test_the_example_of_the_page_runs(world: World, tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python pytest\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    done = ask(tmp_path, "-v", *QUICKLY, *JSON, "--harness-suite=suite.toml", test_page=example)
    assert done.outcomes == {"test_page.py::test_a_long_sequence[plain-lstm@plain]": "PASSED"}
    assert len(done.benchmarks) == 1


def test_of_a_variant_that_is_wrong_before_or_after_no_number_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers_in(tmp_path, monkeypatch, forgetful="ignores its state", late="is wrong later", sleepy="refuses")
    done = ask(tmp_path, "-v", "-rs", *JSON, "--harness-suite=suite.toml", test_own=PEDANTIC)
    assert "forgetful@plain on tiny: wrong: " in done.text
    assert "late@plain on tiny: wrong: " in done.text
    assert "sleepy@plain on tiny: this model runs on Sundays only" in done.text
    assert done.outcomes["test_own.py::test_forward[sleepy@plain]"] == "SKIPPED"
    assert done.benchmarks == []
    assert "Legend:" not in done.text


@pytest.mark.parametrize("renamed", ["", "    benchmark.fullname = 'other'\n"])
def test_none_is_kept_of_a_benchmark_that_was_asked_for_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: str
) -> None:
    strangers_in(tmp_path, monkeypatch, plain_lstm="", late="is wrong later")
    test = LATE.replace("    session =", f"{renamed}    session =")
    done = ask(tmp_path, "-v", *JSON, "--harness-suite=suite.toml", test_own=test)
    assert "late@plain on tiny: wrong: " in done.text
    assert [own["params"]["harness_variant"] for own in done.benchmarks] == ["plain-lstm@plain"]
    assert "1 tests" in done.text


def test_what_ones_own_test_finds_unsupported_is_skipped_with_the_reason_and_has_no_number(
    world: World, tmp_path: Path
) -> None:
    test = "import harness\n" + PEDANTIC + "    raise harness.{error}('no masks here')\n"
    for error, code, outcome in (
        ("Unsupported", 0, "SKIPPED"),
        ("DataError", 0, "SKIPPED"),
        ("HarnessError", 1, "FAILED"),
    ):
        done = ask(tmp_path, "-v", "-rs", *JSON, "--harness-suite=suite.toml", test_own=test.format(error=error))
        assert (done.code, done.outcomes) == (code, {"test_own.py::test_forward[plain-lstm@plain]": outcome})
        assert ("test_forward[plain-lstm@plain]: no masks here" in done.text) == (outcome == "SKIPPED")
        assert len(done.benchmarks) == (outcome == "FAILED")  # whatever else a test finds is not of the variant


def test_a_test_that_does_not_name_the_fixture_is_told_to(world: World, tmp_path: Path) -> None:
    own = "def test_late(request):\n    request.getfixturevalue('harness_variant')\n"
    done = ask(tmp_path, "-q", "--tb=short", "--harness-suite=suite.toml", test_own=own)
    assert done.code == 1
    assert "harness_variant can't be asked for while a test runs; name it among the test's arguments" in done.lines
    assert "Traceback" not in done.text
    assert "AttributeError" not in done.text


def test_a_test_that_finds_it_wrong_itself_keeps_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strangers_in(tmp_path, monkeypatch, late="is wrong later")
    test = f"{PEDANTIC}    harness_variant.check()\n"
    done = ask(tmp_path, "-v", *JSON, "--harness-suite=suite.toml", test_own=test)
    assert done.outcomes == {"test_own.py::test_forward[late@plain]": "FAILED"}
    assert re.search(r"=== 1 failed in ", done.text)  # and no error beside it: it is not said twice
    assert done.benchmarks == []
