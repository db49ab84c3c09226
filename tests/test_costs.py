"""What a variant costs: the clock of imports, memory above an empty worker's, and the table that a run makes of it."""

from __future__ import annotations

import _frozen_importlib
import importlib
import importlib.util
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made_up_runs import Timed, trial_row, write_run
from strangers import World

from harness.cli import main
from harness.costs_report import FIGURES, costs_table
from harness.engine.context import Context
from harness.engine.costs import ImportClock, PeakMemory, Resident, forget_peak, resident
from harness.engine.replies import checked
from harness.schema import COST_COLUMNS
from harness.store import Run, RunFolder, load
from harness.tables import records

# ------------------------------------------------------------------------------------------------- the clock of imports


class Bench:
    """Modules in a folder, whose bodies take time of a clock of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.now_ns = 0
        clock: Any = ModuleType("made_up_clock")
        clock.passes = self.passes
        monkeypatch.setitem(sys.modules, "made_up_clock", clock)
        monkeypatch.setattr("harness.engine.costs.perf_counter_ns", lambda: self.now_ns)
        monkeypatch.syspath_prepend(str(folder))

    def passes(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def add(self, name: str, seconds: float, body: str = "") -> None:
        text = f"import made_up_clock\nmade_up_clock.passes({seconds})\n{body}\n"
        (self._folder / f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    before = set(sys.modules)
    yield Bench(tmp_path, monkeypatch)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_imports_are_summed_and_one_inside_another_counts_once(bench: Bench) -> None:
    bench.add("inner_module", 3)
    bench.add("outer_module", 2, "import inner_module")
    bench.add("another_module", 1, "")
    with ImportClock() as imports:
        bench.passes(100)
        import outer_module  # type: ignore[import-not-found]  # noqa: F401

        bench.passes(100)
        importlib.import_module("another_module")
    assert imports.seconds == 6


def test_a_module_that_is_there_already_and_one_that_is_only_looked_for_take_no_time(bench: Bench) -> None:
    bench.add("early_module", 3)
    importlib.import_module("early_module")
    bench.add("found_module", 3)
    with ImportClock() as imports:
        importlib.import_module("early_module")
        assert importlib.util.find_spec("found_module")
    assert imports.seconds == 0


def test_nothing_is_counted_before_and_after_and_python_imports_as_it_did(bench: Bench) -> None:
    before = _frozen_importlib._find_and_load  # type: ignore[attr-defined]
    bench.add("inside_module", 2)
    bench.add("later_module", 5)
    with ImportClock() as imports:
        importlib.import_module("inside_module")
        assert _frozen_importlib._find_and_load != before  # type: ignore[attr-defined]
    assert _frozen_importlib._find_and_load == before  # type: ignore[attr-defined]
    importlib.import_module("later_module")
    assert imports.seconds == 2


def test_what_other_threads_import_is_not_counted(bench: Bench) -> None:
    bench.add("other_module", 7)
    with ImportClock() as imports:
        thread = threading.Thread(target=importlib.import_module, args=("other_module",))
        thread.start()
        thread.join()
    assert "other_module" in sys.modules
    assert imports.seconds == 0


def test_an_import_that_fails_took_its_time_and_its_traceback_is_pythons_own(bench: Bench) -> None:
    bench.add("failing_module", 4, "import no_such_module")
    with pytest.raises(ModuleNotFoundError) as caught, ImportClock() as imports:
        importlib.import_module("failing_module")
    assert imports.seconds == 4
    places = [(Path(frame.filename).name, frame.name) for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "costs.py" not in {name for name, _ in places}
    assert places[-1] == ("failing_module.py", "<module>")


def test_what_wraps_importing_meanwhile_stays_and_works(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frozen_importlib, "_find_and_load", _frozen_importlib._find_and_load)  # type: ignore[attr-defined]  # put back
    seen = []
    with ImportClock():
        wrapped = _frozen_importlib._find_and_load  # type: ignore[attr-defined]

        def theirs(name: str, *others: Any) -> Any:
            seen.append(name)
            return wrapped(name, *others)

        monkeypatch.setattr(_frozen_importlib, "_find_and_load", theirs)
    bench.add("late_module", 1)
    importlib.import_module("late_module")
    assert "late_module" in seen
    assert "late_module" in sys.modules


# --------------------------------------------------------------------------------------------------------------- memory

MIB = 2**20


def holds(folder: Path, now_mib: int, peak_mib: int) -> None:
    text = f"Name:\tpython\nVmPeak:\t 9 kB\nVmHWM:\t {peak_mib * 1024} kB\nVmRSS:\t  {now_mib * 1024} kB\nThreads:\t1\n"
    (folder / "status").write_text(text, encoding="utf-8")


def test_memory_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    holds(tmp_path, 40, 55)
    assert resident(tmp_path) == Resident(40 * MIB, 55 * MIB)


def test_the_peak_is_what_was_held_at_most_above_what_was_held_before(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").touch()
    holds(tmp_path, 40, 40)
    memory = PeakMemory(tmp_path)
    assert (tmp_path / "clear_refs").read_bytes() == b"5"
    holds(tmp_path, 45, 300)
    assert memory.risen_bytes() == 260 * MIB


def test_a_process_that_holds_less_than_before_has_not_risen(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").touch()
    holds(tmp_path, 40, 40)
    memory = PeakMemory(tmp_path)
    holds(tmp_path, 20, 39)
    assert memory.risen_bytes() == 0


def test_a_peak_that_cannot_be_forgotten_counts_only_if_it_is_new(tmp_path: Path) -> None:
    holds(tmp_path, 40, 90)
    memory = PeakMemory(tmp_path)
    assert not (tmp_path / "clear_refs").exists()
    holds(tmp_path, 80, 90)
    assert memory.risen_bytes() is None  # it may be from before
    holds(tmp_path, 80, 95)
    assert memory.risen_bytes() == 55 * MIB


def test_a_system_that_does_not_tell_gives_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engine.costs.resource", None)
    assert resident(tmp_path) is None
    assert PeakMemory(tmp_path).risen_bytes() is None


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd", 1024)])
def test_where_there_is_no_proc_the_peak_is_getrusages_in_its_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    usage = SimpleNamespace(getrusage=lambda _: SimpleNamespace(ru_maxrss=3 * MIB), RUSAGE_SELF=0)
    monkeypatch.setattr("harness.engine.costs.resource", usage)
    monkeypatch.setattr("sys.platform", platform)
    found = resident(tmp_path)
    assert found
    assert found.peak_bytes == 3 * MIB * unit
    assert found.now_bytes > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be forgotten here")
def test_the_peak_of_this_very_process_is_what_it_held_for_a_moment() -> None:
    if not forget_peak():
        pytest.skip("not permitted")
    memory = PeakMemory()
    size = 64 * MIB
    np.ones(size, np.uint8).sum()
    risen = memory.risen_bytes()
    assert risen
    assert 0.9 * size < risen < 2 * size


# --------------------------------------------------------------------------------------------------------------- a run

SOURCE = """
import json, sys
from pathlib import Path
import harness
from strangers import PlainSession
{top}

class Session(PlainSession):
{body}

class Runtime:
    name, frameworks, description = {name!r}, frozenset({{"plain"}}), ""
    def open(self, model, weights, options):
        import stranger_framework
        size = options.size
        layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        return {wrapped}

@harness.hookimpl
def harness_runtimes(): return [Runtime()]
"""
SUITE = """
seeds = 0
trial_seconds = 60
[latency]
scenarios = ["single-stream"]
slices = 2
instances = 2
calls = 10
seconds = 0.01
twins = 0
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path / "plugins", monkeypatch)
    found.add_plain(honest="")
    (found.folder / "stranger_framework.py").write_text("kept = bytearray(48 * 2**20)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return found


def add(world: World, name: str, body: str = "pass", top: str = "", by_length: bool = False) -> None:
    wrapped = "harness.ByLength(Session(layer, weights))" if by_length else "Session(layer, weights)"
    body = "".join(f"    {line}\n" for line in body.splitlines())
    world.add(name, SOURCE.format(name=name, body=body, top=top, wrapped=wrapped))


def run(*arguments: str) -> tuple[int, Run]:
    Path("suite.toml").write_text(SUITE, encoding="utf-8")
    command = ["run", "suite.toml", "--out", "out", "--quiet", *arguments]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    print(result.output)  # shown if a test fails
    return result.exit_code, load("out")


def by_runtime(finished: Run, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    trials = finished.trials[["trial", "runtime"]]
    return {row["runtime"]: row for row in records(table.merge(trials, on="trial"))}


def test_a_run_has_every_cost_of_a_variant_and_its_report_every_column_with_a_value(world: World) -> None:
    says = "compile_seconds, export_seconds, size_bytes = 1.5, 0.0, 2048"
    add(world, "says-much", f"{says}\npeak_device_bytes = 3 * 2**20", by_length=True)
    add(world, "says-nothing")
    code, finished = run()
    assert code == 0
    assert list(finished.costs.columns) == COST_COLUMNS
    costs = by_runtime(finished, finished.costs)
    assert set(costs) == {"plain", "says-much", "says-nothing"}
    for row in costs.values():
        assert 0 < row["import_s"] <= row["open_s"] or row["runtime"] == "plain"  # which imports nothing
        assert row["first_call_s"] > 0
        assert (row["batch"], row["time"]) == (1, 5)
        weights = 4 * 6 * (3 + 6)  # of the matrices: I is 3, H is 6
        assert row["parameters"] == weights + 2 * 4 * 6
        assert row["flops"] == 2 * weights * 5
    much, nothing, plain = costs["says-much"], costs["says-nothing"], costs["plain"]
    assert (much["compile_s"], much["export_s"], much["model_bytes"]) == (1.5, 0.0, 2048)
    assert much["peak_device_bytes"] == 3 * 2**20
    told = ("compile_s", "export_s", "model_bytes", "peak_device_bytes")
    assert [pd.isna(nothing[name]) for name in told] == [True] * 4
    if not pd.isna(nothing["peak_memory_bytes"]):  # what a framework holds is a variant's own, and only that one's
        assert 44 * MIB <= nothing["peak_memory_bytes"] < 80 * MIB
        assert plain["peak_memory_bytes"] < 32 * MIB
    summary = {row["variant"]: row for row in records(finished.summary)}
    assert {n: summary["honest@says-much"][n] for n in told} == {n: much[n] for n in told}
    assert summary["honest@says-nothing"]["parameters"] == 264
    assert str(finished.summary["parameters"].dtype) == "Int64"
    report = (finished.path / "report.md").read_text(encoding="utf-8")
    assert "<summary>What it costs</summary>" in report
    header = next(line for line in report.splitlines() if "opening a session" in line and line.startswith("|"))
    shown = [name for name in FIGURES if finished.costs[name].notna().any()]
    assert header.split(" | ")[3:] == [*(FIGURES[name][0] for name in shown[:-1]), f"{FIGURES[shown[-1]][0]} |"]
    assert "| 1.5 s | 2 KiB | 264 |" not in report  # in the order of the header
    assert " | 2 KiB | 264 | 2.16 kFLOP |" in report


def test_what_the_harness_imports_for_itself_is_not_in_a_variants_memory(world: World) -> None:
    code = """
import sys
from harness.engine import costs, worker

seen = []
class Peeks(costs.PeakMemory):
    def __init__(self):
        super().__init__()
        seen.append(set(sys.modules))
    def risen_bytes(self):
        seen.append(set(sys.modules))
        return super().risen_bytes()
costs.PeakMemory = Peeks
at = worker.Worker()
size = {"input_size": 3, "hidden_size": 4, "num_layers": 1}
variant = {"model": "honest", "runtime": "plain", "device": "cpu", "dtype": "float32", "threads": 1}
at.open("key", size=size, cache_dir=None, **variant)
at.first_call("key", batch=1, time=5)
at.costs("key", batch=1, time=5)
before, after = seen
print(*sorted(after - before))
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = ran.stdout.split()
    assert "stranger_plain" in found
    of_the_harness = ("harness.engine", "harness.stats", "harness.audits", "numpy", "scipy")
    assert [name for name in found if name.startswith(of_the_harness)] == []


def test_nonsense_that_a_session_says_of_itself_is_a_row_with_the_reason_and_no_other_rows(world: World) -> None:
    raises = "@property\ndef size_bytes(self): raise OSError('the file is gone')"
    add(world, "says-a-word", "compile_seconds = 'soon'")
    add(world, "says-nan", "export_seconds = float('nan')", by_length=True)
    add(world, "says-less", "peak_device_bytes = -1")
    add(world, "says-a-lot", "size_bytes = 10**5000")
    add(world, "raises", raises, by_length=True)
    add(world, "hides", raises.replace("OSError", "AttributeError"))
    add(world, "ends", "@property\ndef size_bytes(self): sys.exit(3)")
    code, finished = run()
    assert code == 1
    ends = by_runtime(finished, finished.trials[finished.trials["kind"] == "parity"].drop(columns="runtime"))
    assert {name: row["status"] for name, row in ends.items()} == {
        **dict.fromkeys(["plain", "hides"], "ok"),
        **dict.fromkeys(["says-a-word", "says-nan", "says-less", "says-a-lot", "raises", "ends"], "failed"),
    }
    said = {
        "says-a-word": "the session's compile_seconds is 'soon' (str); give a number of seconds, from 0",
        "says-nan": "the session's export_seconds is 'nan' (float); give a number of seconds",
        "says-less": "the session's peak_device_bytes is '-1' (int); give a number of bytes",
        "says-a-lot": "the session's size_bytes is '",
        "raises": "OSError: the file is gone",
        "ends": "SystemExit: 3",
    }
    assert {name: ends[name]["reason"][: len(text)] for name, text in said.items()} == said
    assert set(by_runtime(finished, finished.costs)) == {"plain", "hides"}
    assert pd.isna(by_runtime(finished, finished.costs)["hides"]["model_bytes"])


COUNTING = """
import harness.engine.energy as energy
COUNTER = Path("counter.txt").absolute()
if not COUNTER.exists():
    COUNTER.write_text("0")
energy.energy_counters = lambda: (energy.EnergyCounter(COUNTER, 10**12),)
"""
USES = """
def fetch(self, raw):
    COUNTER.write_text(str(int(COUNTER.read_text()) + 1500))
    return super().fetch(raw)
"""


def test_energy_is_counted_where_there_is_a_counter_and_a_session_that_fails_then_loses_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(world, "uses", USES, COUNTING)
    late = "def fetch(self, raw):\n    self.calls = getattr(self, 'calls', 0) + 1\n"
    add(world, "gives-up", late + "    return super().fetch(raw) if self.calls < 15 else 1 / 0", COUNTING)
    monkeypatch.setattr("harness.engine.verification.energy_counters", lambda: (1,))
    asked: list[int] = []
    real = Context.parallel

    def parallel(self: Context, function: Any, jobs: list[Any], *most: int) -> None:
        asked.extend(most)
        real(self, function, jobs, *most)

    monkeypatch.setattr(Context, "parallel", parallel)
    _, finished = run("--runtimes", "uses,gives-up")
    costs = by_runtime(finished, finished.costs)
    assert costs["uses"]["energy_j"] == pytest.approx(1500e-6)
    assert pd.isna(costs["gives-up"]["energy_j"])
    assert costs["gives-up"]["parameters"] == 264
    parity = by_runtime(finished, finished.trials[finished.trials["kind"] == "parity"].drop(columns="runtime"))
    assert {row["status"] for row in parity.values()} == {"ok"}
    assert asked == [1]  # one after another, for the counter is the machine's
    assert "1.5 mJ" in "\n".join(costs_table(finished))


def test_a_run_whose_machine_counts_nothing_is_asked_for_no_energy(world: World) -> None:
    add(world, "uses", USES, COUNTING)
    _, finished = run("--runtimes", "uses")
    assert pd.isna(by_runtime(finished, finished.costs)["uses"]["energy_j"])


def test_an_older_run_lacks_what_it_could_not_know(tmp_path: Path) -> None:
    old = {"open_s": 3.5, "batch": 1, "time": 8, "first_call_s": 0.25, "compile_s": None}
    header = {"name": "old", "suite": {}, "baselines": {}, "floors": [], "plugins": [], "environment": {"versions": {}}}
    trials = [trial_row(f"000{n}-parity", "parity", f"{model}@r") for n, model in ((1, "a"), (2, "b"))]
    folder = RunFolder(tmp_path / "run", {**header, "trials": trials})
    folder.append({"trial": "0001-parity", "status": "ok", "costs": [old]})
    folder.append({"trial": "0002-parity", "status": "ok"})
    folder.close()
    found = load(tmp_path / "run")
    assert list(found.costs.columns) == COST_COLUMNS
    (row,) = records(found.costs)
    assert {name: row[name] for name in ("open_s", "first_call_s", "batch", "time")} == {
        name: old[name] for name in ("open_s", "first_call_s", "batch", "time")
    }
    assert all(pd.isna(row[name]) for name in COST_COLUMNS if name not in ("trial", *old) or name == "compile_s")
    assert [pd.isna(one["import_s"]) for one in records(found.summary)] == [True, True]
    lines = costs_table(found)
    assert lines[0] == "| variant | task | batch × time | opening a session | first call |"
    assert lines[2] == "| a@r | t | 1 × 8 | 3.5 s | 250 ms |"


def test_a_run_without_costs_has_no_table_of_them(tmp_path: Path) -> None:
    assert costs_table(load(write_run(tmp_path / "run", Timed("a@r")))) == []


GOOD: dict[str, dict[str, Any]] = {
    "open": {"open_s": 1.0, "import_s": 0.5, "parameters": 10},
    "first_call": {"first_call_s": 0.1},
    "costs": {
        **dict.fromkeys(("export_s", "compile_s", "model_bytes", "peak_memory_bytes", "peak_device_bytes")),
        "flops": 20.0,
    },
    "energy": {"energy_j": None, "device_energy_j": None},
}


@pytest.mark.parametrize(("do", "name"), [(do, name) for do, reply in GOOD.items() for name in reply])
@pytest.mark.parametrize("value", ["soon", float("nan"), float("inf"), -1, [1], 10**400], ids=str)
def test_an_answer_that_is_no_number_is_not_an_answer(do: str, name: str, value: Any) -> None:
    assert checked(do, GOOD[do]) == GOOD[do]
    with pytest.raises(ValueError, match=f"^{name}: "):
        checked(do, GOOD[do] | {name: value})
