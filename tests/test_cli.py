"""The command: its exit codes, one line for each bad input with nothing written, and output that can be piped."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from click.testing import CliRunner, Result
from made_up_runs import (
    ENVIRONMENT,
    HALF,
    Timed,
    five,
    probes_of,
    process_row,
    samples,
    write_loads,
    write_processes,
    write_run,
)
from strangers import QUICK, World

from harness.cli import EXIT_CODES, GATE_EXIT_CODES, main
from harness.formats import BUILT_IN
from harness.journal import read_journal
from harness.samples import SAMPLE_COLUMNS
from harness.store import RunFolder, load

if TYPE_CHECKING:
    from harness.catalog import Catalog
    from harness.plan import Plan

INTERLEAVED = "seeds = 0\n[latency]\nscenarios = ['single-stream']\ninstances = 1\ncalls = 10\nseconds = 0.01\n"
IDLE = """
import harness
from harness import Architecture, Model

def build(**size): raise RuntimeError("never built")

@harness.hookimpl
def harness_models():
    idle = Architecture("idle", 1, lambda size: {}, build)
    return [Model("idle", idle, "plain", build)]
"""
SICK_FORMAT = """
import harness

def write(run, folder): raise ValueError("the flu")

@harness.hookimpl
def harness_report_formats(): return [harness.ReportFormat("sick", "", write)]
"""
PARITY_ONLY = "seeds = 0\n[latency]\nscenarios = []\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A folder of strangers' plugins, and an empty one to work in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    world = World(tmp_path / "plugins", monkeypatch)
    world.add_plain(plain_lstm="", forgetful="ignores its state", sleepy="refuses")
    return world


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def suite(text: str) -> str:
    Path("suite.toml").write_text(text, encoding="utf-8")
    return "suite.toml"


def test_help_and_list_import_nothing_that_is_slow(world: World) -> None:
    code = (
        "import sys\nsys.argv = ['harness', {argument!r}]\nfrom harness.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print('IMPORTED', *(name for name in {slow!r} if name in sys.modules))"
    )
    for argument, slow in (
        ("--help", ["pandas", "scipy", "rich", "pydantic", "torch", "numpy", "psutil", "onnxruntime", "sklearn"]),
        ("list", ["pandas", "scipy", "rich", "pydantic", "torch", "onnxruntime", "sklearn"]),
    ):
        command = [sys.executable, "-c", code.format(argument=argument, slow=slow)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "IMPORTED"


def test_importing_the_harness_imports_neither_numpy_nor_anything_that_is_slow() -> None:
    slow = ["numpy", "pandas", "scipy", "rich", "pydantic", "click", "psutil", "torch", "onnxruntime", "sklearn"]
    code = f"import sys, harness; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "codes"),
    [((), EXIT_CODES), (("run",), EXIT_CODES), (("calibrate",), EXIT_CODES), (("gate",), GATE_EXIT_CODES)],
)
def test_help_documents_the_exit_codes(command: tuple[str, ...], codes: str) -> None:
    result = harness(*command, "--help")
    assert result.exit_code == 0
    for line in codes.splitlines()[1:]:
        assert line.strip() in result.stdout


def test_a_run_of_a_sound_variant_ends_with_0_and_writes_its_folder(world: World) -> None:
    result = harness("run", suite(QUICK), "--models", "plain-lstm", "--out", "out")
    assert result.exit_code == 0
    assert "plain-lstm@plain" in result.stdout
    assert "Report: out/report.md" in result.stdout
    assert "\x1b" not in result.output  # piped: no colours, no bars
    assert "parity: 1 step" in result.stderr
    assert "plain-lstm@plain on tiny: ok" in result.stderr
    names = {path.name for path in Path("out").iterdir()}
    assert names >= {"run.json", "journal.jsonl", "samples", "weights", "logs", "tables", "report.md"}


def test_quiet_prints_the_table_and_nothing_else(world: World) -> None:
    result = harness("run", suite(PARITY_ONLY), "--models", "plain-lstm", "--out", "out", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "plain-lstm@plain" in result.stdout


def test_without_out_a_run_goes_to_a_new_folder_in_results_that_bears_the_suites_name(world: World) -> None:
    result = harness("run", suite(PARITY_ONLY), "--models", "plain-lstm")
    assert result.exit_code == 0
    (folder,) = Path("results").iterdir()
    assert folder.name.startswith("suite-")


def test_a_dry_run_prints_the_plan_and_writes_nothing(world: World) -> None:
    name = suite("models = ['plain-lstm']\nseeds = 1\n[latency]\nslices = 2\ntwins = 0\n")
    before = sorted(Path().iterdir())
    result = harness("run", name, "--dry-run", "--sweep", "batch=2,4")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    offline = [line.split()[-4:] for line in lines if " offline, " in line]
    assert offline == [["batch", batch, "time", "5"] for batch in ("2,", "4,")]
    assert lines[-1] == "6 trials, about a minute and 1 training"
    assert sorted(Path().iterdir()) == before


def test_what_a_run_holds_is_said_before_it_begins_unless_it_is_quiet(world: World) -> None:
    arguments = ("run", suite(f"models = ['plain-lstm']\n{PARITY_ONLY}"))
    assert harness(*arguments, "--out", "a").stderr.startswith("harness: 1 trial, about a minute\n")
    assert "about" not in harness(*arguments, "--quiet", "--out", "b").stderr


def test_workers_keep_to_the_cores_that_they_are_given(world: World) -> None:
    core = max(os.sched_getaffinity(0))
    name = suite("models = ['plain-lstm']\nseeds = 0\n[latency]\nslices = 2\ninstances = 1\nseconds = 0.01\n")
    assert harness("run", name, "--cpus", str(core), "--out", "out").exit_code == 0
    run = load("out")
    assert run.header["suite"]["cpus"] == [core]
    assert set(run.processes["cpus"]) == {str(core)}
    assert os.sched_getaffinity(0) != {core} or len(os.sched_getaffinity(0)) == 1  # the engine keeps its own


def test_a_wrong_row_ends_with_1_and_every_other_row_is_there(world: World) -> None:
    result = harness("run", suite(PARITY_ONLY), "--out", "out")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("forgetful@plain on tiny: wrong: ") for line in lines)
    for variant in ("plain-lstm@plain", "forgetful@plain", "sleepy@plain"):
        assert any(variant in line for line in lines)


def test_an_unsupported_row_ends_with_0(world: World) -> None:
    result = harness("run", suite(PARITY_ONLY), "--models", "plain-lstm,sleepy", "--out", "out")
    assert result.exit_code == 0
    assert "unsupported: this model runs on Sundays only" in result.stdout


NAMED = "write NAME=PATH, such as --python old=/venvs/old/bin/python"
CALIBRATE = ["calibrate", "--variant", "plain-lstm@plain", "--task", "tiny", "--minutes", "0.0001"]
PROGRAMS = {
    "full/bare": "#!/bin/sh\nexit 1\n",
    "full/talks": "#!/bin/sh\necho hello, what can I do for you today\n",
    "full/old": f"""#!{sys.executable}
import sys
from harness.engine.protocol import receive, send
assert receive(sys.stdin.buffer)["do"] == "environment"
send(sys.stdout.buffer, {{"result": {{"python": "3.11.0", "versions": {{"rnn-harness": "0.0.1"}}}}}})
""",
}
BAD: dict[str, tuple[list[str], str]] = {
    "unknown suite": (["run", "quik"], "no suite is called 'quik'; did you mean 'quick'?"),
    "missing suite": (["run", "none.toml"], "suite 'none.toml' cannot be read: No such file"),
    "suite with a wrong key": (["run", "wrong-key.toml"], "suite 'wrong-key.toml', line 2: unknown key 'model'"),
    "suite with a wrong value": (["run", "wrong-value.toml"], "suite 'wrong-value.toml', line 1: 'threads' is 0"),
    "suite that is no TOML": (["run", "no-toml.toml"], "suite 'no-toml.toml' is not valid TOML"),
    "unknown model": (["run", "good.toml", "--models", "plain-lstn"], "no model is called 'plain-lstn'; did you mean"),
    "pattern of nothing": (["run", "good.toml", "--models", "zzz*"], "no model matches 'zzz*'; there are: plain-lstm"),
    "no model": (["run", "good.toml", "--models", ""], "nothing to run: no model"),
    "unknown baseline": (
        ["run", "good.toml", "--baselines", "plain-lstn@plain"],
        "no model is called 'plain-lstn'; did you mean",
    ),
    "baseline on an unknown runtime": (
        ["run", "good.toml", "--baselines", "plain-lstm@plane"],
        "no runtime is called 'plane'; did you mean 'plain'?",
    ),
    "baseline that is not in this run": (
        ["run", "good.toml", "--baselines", "sleepy@plain"],
        "--baselines: no variant of this run is called 'sleepy@plain'; there are: plain-lstm@plain",
    ),
    "unknown runtime": (["run", "good.toml", "--runtimes", "plane"], "no runtime is called 'plane'; did you mean"),
    "unknown task": (["run", "good.toml", "--tasks", "tinny"], "no task is called 'tinny'; did you mean 'tiny'?"),
    "path for a model": (["run", "good.toml", "--models", "../x"], "--models: "),
    "no threads": (["run", "good.toml", "--threads", "0"], "--threads: input should be greater than or equal to 1"),
    "negative seeds": (["run", "good.toml", "--seeds", "-1"], "--seeds: input should be greater than or equal to 0"),
    "unknown dtype": (["run", "good.toml", "--dtype", "half"], "--dtype: input should be 'float32' or 'float64'"),
    "device not there": (["run", "good.toml", "--device", "cuda"], "runtime 'plain' has no device 'cuda'"),
    "out in the way": (["run", "good.toml", "--out", "full"], "'full' exists and is not empty; choose another --out"),
    "out not writable": (["run", "good.toml", "--out", "good.toml/out"], "'good.toml/out' cannot be written: "),
    "precision of nothing": (["run", "good.toml", "--precision", "0"], "--precision: input should be greater than 0"),
    "sweep of nothing": (["run", "good.toml", "--sweep", "batch="], "--sweep batch=: write KEY=A,B, such as"),
    "sweep over something else": (
        ["run", "good.toml", "--sweep", "seeds=1,2"],
        "--sweep seeds: nothing of that name can be swept over; there are: batch, time",
    ),
    "too large a plan": (
        ["run", "good.toml", "--models", "*", "--most-trials", "2"],
        "the plan has more than 2 trials: choose fewer models",
    ),
    "dry run of a resumption": (["run", "--resume", "full", "--dry-run"], "--dry-run: a run to resume has its plan"),
    "cores that are none": (["run", "good.toml", "--cpus", "x"], "--cpus x: write numbers of cores"),
    "cores that are not there": (["run", "good.toml", "--cpus", "60000"], "--cpus: this process may not use 60000; it"),
    "more threads than cores": (
        ["run", "good.toml", "--cpus", f"{min(os.sched_getaffinity(0))}", "--threads", "2"],
        "--cpus: 2 threads on 1 cores; give more cores or fewer threads",
    ),
    "one slice": (["run", "good.toml", "--slices", "1"], "--slices: input should be greater than or equal to 2"),
    "no budget": (["run", "good.toml", "--budget", "0"], "--budget: input should be greater than 0"),
    "too few slices at most": (
        ["run", "good.toml", "--slices", "9", "--max-slices", "8"],
        "9 slices at least and 8 at most: ",
    ),
    "interpreter without a name": (
        ["run", "good.toml", "--python", "/usr/bin/python"],
        f"--python /usr/bin/python: {NAMED}",
    ),
    "interpreter without a path": (["run", "good.toml", "--python", "a="], f"--python a=: {NAMED}"),
    "interpreter with an empty name": (["run", "good.toml", "--python", "=x"], f"--python =x: {NAMED}"),
    "interpreter with a bad name": (["run", "good.toml", "--python", "A[]=x"], "--python: string should match pattern"),
    "interpreter that is there twice": (
        ["run", "good.toml", "--python", f"a={sys.executable}", "--python", f"a={sys.executable}"],
        "--python a is given twice; names must differ",
    ),
    "interpreter that is missing": (
        ["run", "good.toml", "--python", f"a={sys.executable}", "--python", "b=none/python"],
        "--python b: 'none/python' cannot be started: No such file or directory",
    ),
    "interpreter that is a folder": (
        ["run", "good.toml", "--python", "a=full"],
        "--python a: 'full' cannot be started: ",
    ),
    "interpreter that is no program": (
        ["run", "good.toml", "--python", "a=good.toml"],
        "--python a: 'good.toml' cannot be started: ",
    ),
    "interpreter without the harness": (
        ["run", "good.toml", "--python", "a=full/bare"],
        "--python a: 'full/bare' has no harness of this version (the worker ended by itself with exit code 1); install",
    ),
    "interpreter that talks": (
        ["run", "good.toml", "--python", "a=full/talks"],
        "--python a: 'full/talks' has no harness",
    ),
    "interpreter with another harness": (
        ["run", "good.toml", "--python", "a=full/old"],
        "--python a: 'full/old' has rnn-harness 0.0.1; both sides are timed by one version, so install ",
    ),
    "interpreters and a baseline": (
        ["run", "good.toml", "--python", f"a={sys.executable}", "--baselines", "plain-lstm@plain"],
        "--baselines: with --python every variant is compared with itself; ",
    ),
    "calibrate of a model": (
        ["calibrate", "--variant", "plain-lstm"],
        "--variant plain-lstm: write model@runtime, such as",
    ),
    "calibrate of a runtime": (["calibrate", "--variant", "@plain"], "--variant @plain: write model@runtime, such as"),
    "calibrate of a pattern": (
        ["calibrate", "--variant", "*@plain"],
        "--variant *@plain: write model@runtime, such as",
    ),
    "calibrate of two lines": (["calibrate", "--variant", "a@b\nc"], "--variant a@b\\nc: write model@runtime, such as"),
    "calibrate of nothing": (
        ["calibrate", "--variant", "plain-lstn@plain"],
        "no model is called 'plain-lstn'; did you mean 'plain-lstm'?",
    ),
    "calibrate on no task": (
        ["calibrate", "--variant", "plain-lstm@plain", "--task", "tinny"],
        "no task is called 'tinny'; did you mean 'tiny'?",
    ),
    "calibrate for no time": (["calibrate", "--minutes", "0"], "--minutes 0: more than 0 and at most 10080"),
    "calibrate for less": (["calibrate", "--minutes", "-1"], "--minutes -1: more than 0"),
    "calibrate for ever": (["calibrate", "--minutes", "inf"], "--minutes inf: more than 0"),
    "calibrate for nobody knows": (["calibrate", "--minutes", "nan"], "--minutes nan: more than 0"),
    "calibrate into a full folder": (
        [*CALIBRATE, "--out", "full"],
        "'full' exists and is not empty; choose another --out",
    ),
    "compare of nothing": (["compare", "nowhere", "nowhere"], "'nowhere' is not a run: run.json cannot be read"),
    "compare of a folder": (["compare", "full", "full"], "'full' is not a run: run.json cannot be read"),
    "compare of text": (["compare", "good.toml", "good.toml"], "'good.toml' is not a file of samples: "),
    "gate of nothing": (["gate", "nowhere", "--max-slowdown", "3%"], "'nowhere' is not a run: run.json cannot be read"),
    "gate of text": (["gate", "good.toml", "full", "--max-slowdown", "3%"], "'good.toml' is not a file of samples: "),
    **{
        f"gate at {text!r}": (
            ["gate", "nowhere", "--max-slowdown", text],
            f"'{text}' is not a percentage: write 3 % as '3%'",
        )
        for text in ("", "3", "0.03", "-3%", "3%%", "nan%", "three%", "1e1%")
    },
    "report of a name with a line break": (["report", "a\nb"], "'a\\nb' is not a run: run.json cannot be read"),
    "report of nothing": (["report", "nowhere"], "'nowhere' is not a run: run.json cannot be read"),
    "report of a folder": (["report", "full"], "'full' is not a run: run.json cannot be read"),
    "report of nothing in a format": (["report", "nowhere", "--format", "csv"], "'nowhere' is not a run: run.json"),
    "report in no format": (["report", "nowhere", "--format", ","], "--format: it names nothing; write --format NAME"),
    "report elsewhere in no format": (["report", "full", "--out", "there"], "--out: it goes with --format NAME"),
    "import of nothing": (["import", "nowhere"], "'nowhere' cannot be read: No such file or directory"),
    "import of a folder": (["import", "full"], "'full' cannot be read: Is a directory"),
    "import of text": (["import", "good.toml"], "'good.toml' is no JSON ("),
    "check of nothing": (["check", "plain-lstn"], "no model is called 'plain-lstn'; did you mean"),
    "check in capitals": (["check", "Plain-lstm"], "no model is called 'Plain-lstm'; did you mean 'plain-lstm'?"),
    "check of an unknown runtime": (["check", "@plane"], "no runtime is called 'plane'; did you mean 'plain'?"),
    "check of a path": (["check", "../x"], "--models: "),
    "check of an unknown rule": (
        ["check", "plain-lstm", "--checks", "parit"],
        "--checks: no check is called 'parit'; did you mean 'parity'?",
    ),
    "check of a rule that is not for it": (
        ["check", "tiny", "--checks", "parity"],
        "nothing to check: parity is not for 'tiny'",
    ),
    "check on no device": (["check", "plain-lstm", "--device", "a b"], "--device: "),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_clear_line_and_nothing_is_written(world: World, kind: str) -> None:
    arguments, said = BAD[kind]
    for name, text in {
        "good.toml": f"models = ['plain-lstm']\n{PARITY_ONLY}",
        "wrong-key.toml": "seeds = 0\nmodel = 1",
        "wrong-value.toml": "threads = 0",
        "no-toml.toml": "=",
        "full/precious": "mine",
        **PROGRAMS,
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        Path(name).chmod(0o755 if name in PROGRAMS else 0o644)
    before = {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = harness(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"harness: {said}")
    assert result.stderr.count("\n") == 1
    assert {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert {path.name for path in Path().iterdir() if path.is_dir()} == {"full"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--speed"],
        ["sprint"],
        ["run", "--threads", "two"],
        ["run", "--data-dir", "nowhere"],
        ["check"],
        ["report"],
        ["calibrate", "torch-lstm@eager"],
        ["import"],
        ["import", "one", "two"],
        ["compare"],
        ["compare", "one"],
        ["gate"],
        ["gate", "one", "two"],
        ["gate", "one", "two", "three", "--max-slowdown", "3%"],
    ],
)
def test_a_wrong_way_to_call_the_command_ends_with_2(world: World, arguments: list[str]) -> None:
    result = harness(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr
    assert list(Path().iterdir()) == []


def test_damaged_data_is_one_line_that_says_where_to_put_it(world: World) -> None:
    world.add(
        "sick",
        "import harness\nfrom dataclasses import replace\nfrom strangers import TINY\n"
        "def load(data_dir): raise harness.DataError(f'x.gz is damaged; put a whole one into {data_dir}')\n"
        "@harness.hookimpl\ndef harness_tasks(): return [replace(TINY, name='sick', load=load)]\n",
    )
    path = suite("models = ['plain-lstm']")
    Path("data").mkdir()
    result = harness("run", path, "--out", "out", "--data-dir", "data")
    assert result.exit_code == 2
    assert result.stderr == f"harness: task 'sick': x.gz is damaged; put a whole one into {Path('data').resolve()}\n"
    assert not Path("out").exists()


def test_a_run_of_two_interpreters_interleaves_them_and_compares_each_variant_with_itself(world: World) -> None:
    pythons = [f"--python={name}={sys.executable}" for name in ("old", "new")]
    result = harness("run", suite(f"{INTERLEAVED}slices = 2"), "--models", "plain-lstm", *pythons, "--out", "out")
    assert result.exit_code == 0, result.output
    old, new = (f"plain-lstm@plain[{name}]" for name in ("old", "new"))
    run = load("out")
    assert run.trials["variant"].value_counts().to_dict() == {old: 3, new: 2}  # one more is the twin
    assert set(run.trials["status"]) == {"ok"}
    latency = run.latency[run.latency["boundary"] == "compute"].set_index("variant")
    assert latency["baseline"].to_dict() == dict.fromkeys((old, new), old)
    assert latency.loc[new, "ratio_unit"] == "slice"
    assert sorted(zip(run.processes["slice"], run.processes["python"], strict=True)) == [
        *((1.0, "new"), (1.0, "old"), (2.0, "new"), (2.0, "old"))
    ]
    assert set(run.header["pythons"]) == {"old", "new"}
    assert run.header["suite"]["pythons"] == dict.fromkeys(("old", "new"), sys.executable)
    for facts in run.header["pythons"].values():
        assert facts["python"] == run.environment["python"]
        assert facts["versions"]["rnn-harness"] == run.environment["versions"]["rnn-harness"]
    report = Path("out/report.md").read_text(encoding="utf-8")
    for name in ("old", "new"):
        assert re.search(rf"^\| tiny \| latency \| plain\\\[{name}\\\] \| [-,\d]+ \| 2 \|", report, re.MULTILINE)
        assert f"tiny, plain of {name}, slice 2 of 2" in result.stderr
    gate = harness("gate", "out", "--max-slowdown", "3%")
    assert gate.exit_code in (0, 1, 2)  # who knows how long it took
    assert f"{new}, single-stream 1×5, tiny on cpu" in gate.stdout
    assert gate.stderr == ""


def test_options_of_sampling_reach_the_suite_and_leave_the_rest_of_it(world: World) -> None:
    text = "seeds = 0\n[latency]\nscenarios = []\ninstances = 7\n"
    options = ["--precision=0.02", "--slices=3", "--max-slices=12", "--budget=5"]
    assert harness("run", suite(text), "--models=plain-lstm", "--out=out", *options).exit_code == 0
    latency = load("out").header["suite"]["latency"]
    wanted = {"precision": 0.02, "slices": 3, "max_slices": 12, "budget_seconds": 5.0, "instances": 7}
    assert {name: latency[name] for name in wanted} == wanted
    assert load("out").header["pythons"] == {}


# ------------------------------------------------------------------------------------------------------ calibrate


def test_the_shortest_calibration_measures_one_slice_and_says_that_it_knows_no_rate(world: World) -> None:
    result = harness(*CALIBRATE, "--out", "out")
    assert result.exit_code == 0, result.output
    run = load("out")
    assert run.trials["kind"].value_counts().to_dict() == {"calibration": 5, "parity": 1, "latency": 1}
    assert set(run.trials["status"]) == {"ok"}
    assert set(run.samples["slice"]) == {1}
    (row,) = run.calibration.to_dict("records")
    assert (row["variant"], row["task"], row["pairs"], row["comparisons"]) == ("plain-lstm@plain", "tiny", 3, 0)
    *_, blank, title, alarms, slowdown = result.stdout.splitlines()
    assert (blank, title) == ("", "plain-lstm@plain on tiny, single-stream, against itself:")
    assert alarms == "  too few slices for a comparison: give it more time"
    assert slowdown.startswith("  smallest slowdown found with 95 % power, by how long each is measured: ")
    assert "nan" not in result.stdout
    said = (
        "a slowdown of .* between two variants timed in one worker is found 19 times in 20, smaller ones less often: "
    )
    said += "plain-lstm@plain, single-stream, "
    assert re.search(said, result.stdout)
    assert re.search(said, Path("out/report.md").read_text(encoding="utf-8"))


def test_a_quiet_calibration_prints_its_table_and_nothing_else(world: World) -> None:
    result = harness(*CALIBRATE, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    (folder,) = Path("results").iterdir()
    assert folder.name.startswith("calibrate-")


def test_a_calibration_with_enough_slices_says_how_often_the_same_was_called_different(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(plan: Plan, catalog: Catalog, folder: RunFolder, *_: object) -> None:
        calls = {}
        for trial in plan.trials:
            if trial.kind != "parity":
                level = 0.00101 if trial.twin == 1 else 0.001
                calls[trial.id] = samples(five(level, 0.001 * trial.twin))
            folder.append({"trial": trial.id, "status": "ok"})
        write_processes(folder, calls)

    monkeypatch.setattr("harness.running.execute", execute)
    result = harness(*CALIBRATE, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-3:-1] == [
        "plain-lstm@plain on tiny, single-stream, against itself:",
        "  the interval excludes 1 in 1 of 3 comparisons: 33.3 % (0.8–90.6 %); 5 % is meant",
    ]
    assert ": 0.35 % in 5.03 s, " in result.stdout.splitlines()[-1]  # the first calls of turns cost time too


@pytest.mark.parametrize(("model", "code"), [("forgetful", 1), ("sleepy", 2)])
def test_what_is_wrong_or_unsupported_is_not_calibrated(world: World, model: str, code: int) -> None:
    result = harness("calibrate", "--variant", f"{model}@plain", "--task", "tiny", "--minutes", "0.0001")
    assert result.exit_code == code
    assert "against itself" not in result.stdout
    assert "Traceback" not in result.stderr


def test_a_model_that_computes_nothing_is_not_calibrated(world: World) -> None:
    world.add("idle", IDLE)
    result = harness("calibrate", "--variant", "idle@plain", "--task", "tiny")
    assert result.exit_code == 2
    assert result.stderr == "harness: --variant idle@plain: it computes nothing, so it says nothing of what is timed\n"
    assert list(Path().iterdir()) == []


# ------------------------------------------------------------------------------------------------ compare and gate


def two_runs(ratio: float = 1.0, spread: float = 0.0, processes: int = 5) -> None:
    """Runs `base` and `new` of one variant; NEW takes so many times as long, its processes' logarithms lie apart."""
    quiet = [process_row(slice_) for slice_ in range(1, 1 + processes)]
    write_run(Path("base"), Timed("a@r", five(0.001)), processes=quiet)
    write_run(Path("new"), Timed("a@r", five(0.001 * ratio, spread)), processes=quiet)


def row_of(result: Result, start: str) -> str:
    """The one line of the output that begins so, without the blanks between its columns."""
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(start)]
    return " ".join(line.split())


def test_compare_prints_the_ratio_of_two_runs_with_its_interval_and_verdict(runs: Path) -> None:
    two_runs(1.5, 0.001)
    result = harness("compare", "base", "new")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[:2] == ["BASE base", "NEW  new"]
    rows = [" ".join(line.split()) for line in lines if line.startswith("a@r ")]
    half = f"±{100 * math.expm1(HALF * 0.001):.1f}%"
    assert rows == [
        f"a@r single-stream 1×5 1 ms 1.5 ms 1.500× {half} slower 5 | 5 processes",
        f"a@r single-stream 1×5 2 ms 3 ms 1.500× {half} slower 5 | 5 processes",
    ]


def test_compare_writes_it_as_markdown_too(runs: Path) -> None:
    two_runs(0.5, 0.001)
    result = harness("compare", "base", "new", "--out", "found.md")
    assert result.exit_code == 0
    assert "0.500×" in result.stdout
    text = Path("found.md").read_text(encoding="utf-8")
    assert text.startswith("# Comparison\n")
    assert "| a@r | single-stream 1×5 | 1 ms | 500 µs | 0.500× (0.499–0.501) | faster |" in text


def test_a_comparison_that_cannot_be_written_is_printed_and_says_so(runs: Path) -> None:
    two_runs()
    result = harness("compare", "base", "new", "--out", "nowhere/found.md")
    assert result.exit_code == 2
    assert "a@r" in result.stdout
    said = "harness: 'nowhere/found.md' cannot be written: No such file or directory; choose another --out\n"
    assert result.stderr == said


def test_compare_takes_more_runs_and_holds_each_against_the_first(runs: Path) -> None:
    two_runs(1.5, 0.001)
    write_run(Path("third"), Timed("a@r", five(0.0005, 0.001)), processes=[process_row(s) for s in range(1, 6)])
    result = harness("compare", "base", "new", "third", "--out", "found.md")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:3] == ["BASE  base", "NEW 1 new", "NEW 2 third"]
    compute = " ".join(next(line for line in result.stdout.splitlines() if line.startswith("a@r ")).split())
    assert re.fullmatch(r"a@r single-stream 1×5 1 ms 1\.500× ±\S+ slower 0\.500× ±\S+ faster", compute)
    assert "NEW 2 is third" in Path("found.md").read_text(encoding="utf-8")


def month(number: int, seconds: float, *others: Timed) -> None:
    facts = ENVIRONMENT | {"started_utc": f"2025-{number:02d}-01T00:00:00+00:00"}
    quiet = [process_row(slice_) for slice_ in range(1, 6)]
    write_run(Path(f"runs/{number}"), Timed("a@r", five(seconds, 0.001)), *others, processes=quiet, environment=facts)


def test_history_prints_every_row_run_after_run_and_writes_it_as_markdown_too(runs: Path) -> None:
    for number, seconds in ((3, 0.002), (1, 0.001), (2, 0.001)):
        month(number, seconds, Timed("b@r", five(0.001)))
    result = harness("history", "runs", "--variants", "a*", "--scenarios", "single-stream", "--out", "found.md")
    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert re.search(r"^a@r +single-stream 1×5 +2\.000× ±\S+ slower +2\.000× ±\S+ slower", result.stdout, re.MULTILINE)
    assert "b@r" not in result.stdout
    text = Path("found.md").read_text(encoding="utf-8")
    assert text.startswith("# History\n")
    assert all(f"| {number} | 2025-0{number}-01 00:00:00 | runs/{number} |" in text for number in (1, 2, 3))
    newest = harness("history", "runs", "--last", "1")
    assert newest.exit_code == 0
    assert "1 run, oldest first" in newest.stdout
    assert "2 ms" in newest.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["history", "nowhere"], "'nowhere' is no folder; give one that holds runs, such as results"),
        (["history", "."], "no run lies in '.' or below it; give a folder that holds runs, such as results"),
        (["history", "runs", "--variants", "c*"], "--variants: no run has 'c*'; there are: a@r"),
        (["history", "runs", "--out", "nowhere/x.md"], "'nowhere/x.md' cannot be written: "),
    ],
)
def test_a_history_that_cannot_be_told_is_one_line(runs: Path, arguments: list[str], said: str) -> None:
    if "runs" in arguments:
        month(1, 0.001)
    result = harness(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"harness: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("wide", [False, True])
def test_run_hands_on_whether_every_column_is_wanted(monkeypatch: pytest.MonkeyPatch, wide: bool) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("harness.running.run_suite", lambda *_, wide, **__: asked.append(wide))
    assert harness("run", *(["--wide"] if wide else [])).exit_code == 0
    assert asked == [wide]


def test_report_prints_every_column_if_it_is_asked_to(runs: Path) -> None:
    two_runs()
    write_run(Path("wide"), Timed("a@r", five(0.001)), Timed("b@r" + "b" * 50, five(0.002, 0.001)))
    narrow, wide = harness("report", "wide"), harness("report", "wide", "--wide")
    assert (narrow.exit_code, wide.exit_code) == (0, 0)
    assert "--wide shows " in narrow.stdout
    assert "--wide shows " not in wide.stdout
    assert "end-to-end vs baseline" in wide.stdout
    assert max(map(len, narrow.stdout.splitlines())) <= 100 < max(map(len, wide.stdout.splitlines()))


OTHER = ENVIRONMENT | {"cpu_model": "Another CPU", "machine": "arm64", "python": "3.12.1"}


@pytest.mark.parametrize("command", [("compare",), ("gate", "--max-slowdown", "3%")])
def test_runs_of_two_machines_are_refused_with_what_differs_unless_it_is_allowed(
    runs: Path, command: tuple[str, ...]
) -> None:
    write_run(Path("base"), Timed("a@r", five(0.001)))
    write_run(Path("new"), Timed("a@r", five(0.001, 0.001)), environment=OTHER)
    result = harness(*command, "base", "new", "--allow-different")
    assert result.exit_code == 0
    assert "a@r" in result.stdout
    result = harness(*command, "base", "new")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "machine: x86_64 | arm64; " in result.stderr
    assert "cpu_model: A CPU | Another CPU" in result.stderr
    assert "3.12.1" not in result.stderr  # a version may change
    assert "--allow-different" in result.stderr


def test_a_release_that_halves_the_requests_a_second_fails_the_gate_and_says_so_on_all_three_faces(runs: Path) -> None:
    for name, factor in (("base", 1.0), ("new", 0.5)):
        found = {slice_: probes_of(factor * rate) for slice_, rate in enumerate((90.0, 95.0, 105.0, 110.0), start=1)}
        write_loads(Path(name), {"a@r": found})
    gated = harness("gate", "base", "new", "--max-slowdown", "5%", "--summary", "job.md")
    assert gated.exit_code == 1
    assert gated.stdout.splitlines()[-1] == "at most 5 % slower, and no less carried than 0.952×: 1 fail"
    assert "# Gate: fail" in Path("job.md").read_text("utf-8")
    assert harness("gate", "new", "base", "--max-slowdown", "5%").exit_code == 0
    compared = harness("compare", "base", "new", "--out", "said.md")
    assert " server 1×5 99.7/s 49.8/s 0.500× " in row_of(compared, "a@r ")
    assert "| carries less |" in Path("said.md").read_text("utf-8")
    pytest.importorskip("vl_convert", reason="the extra `html` is not installed")
    assert harness("compare", "base", "new", "--out", "said.html").exit_code == 0
    page = Path("said.html").read_text("utf-8")
    assert '<td class="slower">carries less</td>' in page
    assert "Ratios of capacities" in page


def write_file(name: str, seconds: float) -> None:
    """A file of samples: five processes of one session, the compute boundary alone."""
    with Path(name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([SAMPLE_COLUMNS[1:], *samples(five(seconds, 0.001), ["compute"])])


def test_two_files_of_samples_are_compared_and_gated(runs: Path) -> None:
    write_file("old.csv", 0.001)
    write_file("new.csv", 0.002)
    result = harness("compare", "old.csv", "new.csv")
    assert result.exit_code == 0
    assert " samples 1 ms 2 ms 2.000× ±" in row_of(result, "old ")
    assert harness("gate", "old.csv", "new.csv", "--max-slowdown", "3%").exit_code == 1
    assert harness("gate", "new.csv", "old.csv", "--max-slowdown", "3%").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "base", "old.csv"], "compare a run with a run, or a file of samples with another"),
        (
            ["gate", "old.csv", "base", "--max-slowdown=3%"],
            "compare a run with a run, or a file of samples with another",
        ),
        (["gate", "old.csv", "--max-slowdown=3%"], "old.csv is one file of samples: give a second one"),
        (["compare", "base", "alien"], "no latency row is in both runs"),
        (["compare", "base", "broken"], "'broken/run.json' is damaged: "),
        (["gate", "base", "ancient", "--max-slowdown=3%"], "'ancient' has schema version 1; this harness reads 5"),
    ],
)
def test_what_cannot_be_compared_is_one_line(runs: Path, arguments: list[str], said: str) -> None:
    write_run(Path("base"), Timed("a@r", five(0.001)))
    write_run(Path("alien"), Timed("b@r", five(0.001)))
    write_file("old.csv", 0.001)
    for name, text in (("broken", "{"), ("ancient", '{"schema_version": 1}')):
        Path(name).mkdir()
        Path(name, "run.json").write_text(text, encoding="utf-8")
    result = harness(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"harness: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("ratio", "spread", "allowed", "code", "outcome"),
    [
        (1.0, 0.001, "3%", 0, "pass"),
        (0.5, 0.001, "0%", 0, "pass"),
        (1.5, 0.001, "3%", 1, "fail"),
        (1.5, 0.001, "60 %", 0, "pass"),
        (1.02, 0.001, "1.5%", 1, "fail"),
        (1.0, 0.2, "3%", 2, "undecided"),
    ],
)
def test_the_gate_ends_with_0_1_or_2(
    runs: Path, ratio: float, spread: float, allowed: str, code: int, outcome: str
) -> None:
    two_runs(ratio, spread)
    result = harness("gate", "base", "new", "--max-slowdown", allowed)
    assert result.exit_code == code
    assert result.stderr == ""
    *rows, last = result.stdout.splitlines()
    assert len([row for row in rows if row.startswith(f"{outcome:<9} a@r, single-stream 1×5, ")]) == 2
    assert last == f"at most {allowed.strip(' %')} % slower: 2 {outcome}"
    assert ("would decide" in result.stdout) is (outcome == "undecided")


@pytest.mark.parametrize("status", ["wrong", "failed", "crashed", "timed-out", "unsupported", "skipped"])
def test_the_gate_is_closed_to_a_row_that_new_lost(runs: Path, status: str) -> None:
    write_run(Path("base"), Timed("a@r", five(0.001)), Timed("b@r", five(0.001)))
    lost = Timed("b@r", status=status, reason="because")
    write_run(Path("new"), Timed("a@r", five(0.001, 0.001)), lost)
    result = harness("gate", "base", "new", "--max-slowdown", "3%")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())  # its lines are wrapped
    assert re.search(rf"fail b@r, single-stream 1×5, .*: BASE has it, NEW does not: {status}: because pass a@r, ", said)
    assert said.endswith(" at most 3 % slower: 1 fail, 2 pass")
    turned = harness("gate", "new", "base", "--max-slowdown", "3%")
    assert turned.exit_code == (2 if status == "skipped" else 0)  # a row more is no loss, unless BASE was cut off


def test_the_gate_holds_one_interleaved_runs_interpreters_against_the_first(runs: Path) -> None:
    first = {"baseline": "a@r[old]"}
    for name, ratio in (("sound", 1.0), ("slow", 1.5)):
        sides = [Timed("a@r[old]", five(0.001), first), Timed("a@r[new]", five(0.001 * ratio, 0.001), first)]
        write_run(Path(name), *sides, pythons={"old": {"python": "3.11.9"}, "new": {"python": "3.12.1"}})
    sound, slow = (harness("gate", name, "--max-slowdown", "3%") for name in ("sound", "slow"))
    assert (sound.exit_code, slow.exit_code) == (0, 1)
    assert sound.stdout.count("pass      a@r[new], single-stream 1×5, ") == 2
    assert slow.stdout.count("fail      a@r[new], single-stream 1×5, ") == 2
    assert "a@r[old]," not in sound.stdout + slow.stdout


def test_the_gate_adds_what_it_says_to_the_page_of_a_job(runs: Path) -> None:
    two_runs(1.5, 0.001)
    Path("page.md").write_text("# Built", encoding="utf-8")
    plain = harness("gate", "base", "new", "--max-slowdown", "3%")
    results = [harness("gate", "base", "new", "--max-slowdown", "3%", "--summary", name) for name in ("page.md",) * 2]
    assert [(result.exit_code, result.stdout) for result in results] == [(1, plain.stdout)] * 2
    text = Path("page.md").read_text(encoding="utf-8")
    assert text.startswith("# Built\n\n# Gate: fail\n\nat most 3 % slower: 2 fail\n")
    assert text.count("\n\n# Gate: fail\n") == 2
    harness("gate", "base", "new", "--max-slowdown", "60%", "--summary", "new.md")
    assert Path("new.md").read_text(encoding="utf-8").startswith("# Gate: pass\n")


def test_a_gate_that_could_not_look_says_so_on_the_page_of_a_job_too(runs: Path) -> None:
    write_run(Path("base"), Timed("a@r", five(0.001)))
    write_run(Path("new"), Timed("a@r", five(0.001, 0.001)), environment=OTHER)
    result = harness("gate", "base", "new", "--max-slowdown", "3%", "--summary", "page.md")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    text = Path("page.md").read_text(encoding="utf-8")
    assert text.startswith("# Gate: undecided\n\nnothing was compared: what matters differs: machine: ")
    unwritable = harness("gate", "base", "new", "--max-slowdown", "3%", "--summary", "nowhere/page.md")
    assert unwritable.stderr == result.stderr


def test_a_page_of_a_job_that_cannot_be_written_opens_no_gate(runs: Path) -> None:
    two_runs(1.0, 0.001)
    result = harness("gate", "base", "new", "--max-slowdown", "3%", "--summary", "nowhere/page.md")
    assert result.exit_code == 2
    assert "2 pass" in result.stdout
    said = "harness: 'nowhere/page.md' cannot be written: No such file or directory; choose another --summary\n"
    assert result.stderr == said


def test_a_gate_that_compared_nothing_is_not_open(runs: Path) -> None:
    write_run(Path("alone"), Timed("a@r", five(0.001)))
    result = harness("gate", "alone", "--max-slowdown", "3%")
    assert (result.exit_code, result.stdout) == (2, "at most 3 % slower: nothing was compared\n")


def test_nothing_that_compares_changes_a_run(runs: Path) -> None:
    two_runs()
    before = {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}
    assert harness("compare", "base", "new").exit_code == 0
    assert harness("gate", "base", "new", "--max-slowdown", "3%").exit_code == 0
    assert {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()} == before


# ------------------------------------------------------------------------------------------------ report, check, ends


def test_report_makes_the_same_tables_again_and_prints_the_summary(world: World) -> None:
    ran = harness("run", suite(QUICK), "--models", "plain-lstm", "--out", "out")
    files = [Path("out/report.md"), *sorted(Path("out/tables").iterdir())]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    result = harness("report", "out")
    assert result.exit_code == 0
    assert result.stdout == ran.stdout
    assert [path.read_bytes() for path in files] == before


def test_report_in_other_formats_writes_these_and_nothing_else_and_says_where(runs: Path) -> None:
    write_run(runs / "run", Timed("a@r", five(0.001)))
    before = {path: path.stat().st_mtime_ns for path in (runs / "run").rglob("*") if path.is_file()}
    result = harness("report", "run", "--format", "csv,latex", "--format", "markdown")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "csv: run/csv\nlatex: run/latex\nmarkdown: run/markdown\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    new = {path for path in (runs / "run").rglob("*") if path.is_file()} - before.keys()
    assert {path.parent.name for path in new} == {"csv", "latex", "markdown"}
    assert harness("report", "run", "--format", "csv", "--out", "elsewhere").stdout == "csv: elsewhere\n"
    assert Path("elsewhere/summary.csv").read_bytes() == Path("run/csv/summary.csv").read_bytes()


def test_report_in_formats_of_which_one_fails_writes_the_others_and_ends_with_2(world: World) -> None:
    write_run(Path("run"), Timed("a@r", five(0.001)))
    world.add("sick", SICK_FORMAT)
    result = harness("report", "run", "--format", "sick,markdown", "--out", "out", "--plugins", "sick")
    assert result.exit_code == 2
    assert result.stdout == "markdown: out/markdown\n"
    assert result.stderr.startswith("harness: report format 'sick' of 'stranger-sick' failed: ValueError: the flu [")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in Path("out").iterdir()] == ["markdown"]


def test_report_in_an_unknown_format_names_those_there_are(world: World) -> None:
    write_run(Path("run"), Timed("a@r", five(0.001)))
    result = harness("report", "run", "--format", "word")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"harness: no report format is called 'word'; there are: {', '.join(BUILT_IN)}\n"


CHECKED = (("ok", "plain-lstm"), ("wrong", "forgetful"), ("unsupported", "sleepy"))


@pytest.mark.parametrize(
    ("name", "code", "lines"),
    [
        ("plain-lstm@plain", 0, ["ok           plain-lstm@plain             1 layer", "ok           plain-lstm@plain"]),
        ("sleepy", 0, ["unsupported  sleepy@plain"] * 2),
        ("@plain", 1, [f"{status:<12} {model}@plain" for status, model in CHECKED for _ in range(2)]),
        ("forgetful", 1, ["wrong        forgetful@plain"] * 2),
        ("tiny", 0, ["ok           tiny                         task"]),
        (
            "plain",
            1,
            [
                "wrong        plain                        plugin  import_is_free: importing it loads ",
                *(f"{status:<12} {model}@plain" for status, model in CHECKED for _ in range(2)),
                "ok           tiny                         task",
            ],
        ),
    ],
)
def test_check_prints_a_line_for_one_and_for_two_layers(world: World, name: str, code: int, lines: list[str]) -> None:
    result = harness("check", name)
    assert result.exit_code == code
    found = result.stdout.splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))
    assert list(Path().iterdir()) == []


def test_check_says_which_rules_are_broken_and_why(world: World) -> None:
    result = harness("check", "forgetful")
    for line in result.stdout.splitlines():
        assert "layer" in line
        assert "  parity: " in line
        assert "; compute what the architecture's reference computes; chunked_equals_whole: " in line


def test_check_asks_no_other_rule_than_was_chosen(world: World) -> None:
    result = harness("check", "forgetful", "--checks", "determinism,causality")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["ok", "forgetful@plain", "1", "layer"],
        ["ok", "forgetful@plain", "2", "layers"],
    ]


MORE = """
import harness
from strangers import plain_model

@harness.hookimpl
def harness_models(): return [plain_model("broken", {habit!r})]
"""


def test_check_tells_once_what_many_rules_meet(world: World) -> None:
    world.add("more", MORE.format(habit="raises"))
    result = harness("check", "broken@plain")
    assert result.exit_code == 1
    for line in result.stdout.splitlines():
        assert line.startswith("failed       broken@plain")
        assert line.count("ValueError: ") <= 2  # parity calls from a place of its own
        assert "shape_and_dtype, determinism, inputs_not_mutated, " in line


def test_check_says_at_which_rule_a_worker_ended(world: World) -> None:
    world.add("more", MORE.format(habit="exits"))
    result = harness("check", "broken@plain")
    assert result.exit_code == 1
    for line in result.stdout.splitlines():
        assert line.startswith("crashed      broken@plain")
        assert line.endswith("shape_and_dtype: the worker ended by itself with exit code 7")


def test_an_interruption_ends_with_130_and_keeps_what_was_finished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.engine.scoring import Scoring

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scoring, "score_all", interrupt)
    result = harness("run", suite(QUICK), "--models", "plain-lstm", "--out", "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "harness: ended by SIGINT"
    text = Path("out/tables/trials.csv").read_text(encoding="utf-8")
    assert text.count(",ok,") == 1
    assert text.count("the run ended before this trial") == 6


ENDLESS = """
import os, time
import harness
from strangers import PlainRuntime

class Endless(PlainRuntime):
    def __init__(self): super().__init__("endless")
    def initial_weights(self, model, size, seed):
        if seed == 1:
            with open(os.environ["STRANGER_PIPE"], "wb", buffering=0) as pipe:
                pipe.write(model.name.encode() + b"\\n")
        while seed >= 1:
            time.sleep(1)
        return super().initial_weights(model, size, seed)

@harness.hookimpl
def harness_runtimes(): return [Endless()]
"""


def marked(pipe: Path) -> list[psutil.Process]:
    """The living processes that know this pipe: a run and its workers."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("STRANGER_PIPE") == str(pipe):
                found.append(process)
        except psutil.Error:
            continue  # gone, a zombie, or somebody else's
    return found


def test_a_real_interruption_ends_the_workers_and_keeps_what_was_finished_and_nothing_else(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("endless", ENDLESS)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setenv("STRANGER_PIPE", str(pipe))
    text = QUICK.replace("trial_seconds = 60", "trial_seconds = 3600").replace("seeds = 2", "seeds = 3")
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have ignored it
    code += "from harness.cli import main; main()"
    command = [sys.executable, "-c", code, "run", suite(text), "--models=plain-lstm,forgetful", "--runtimes=endless"]
    process = subprocess.Popen([*command, "--out=out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert select.select([reader], [], [], 60)[0], "no training got as far as its second seed"
        model = os.read(reader, 100).decode().splitlines()[0]
        assert len(marked(pipe)) >= 2
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert marked(pipe) == []
    finally:
        os.close(reader)
        for left in marked(pipe):
            left.kill()
        process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "harness: ended by SIGINT"
    assert "Traceback" not in stderr
    planned = {trial["trial"]: trial for trial in json.loads(Path("out/run.json").read_text("utf-8"))["trials"]}
    journal = [record for _, _, record in read_journal(Path("out/journal.jsonl")).records if "trial" in record]
    ended = {(planned[r["trial"]]["model"], planned[r["trial"]]["seed"]): r["status"] for r in journal}
    assert ended.pop(("plain-lstm", None)) == "ok"  # parity
    assert ended.pop(("forgetful", None)) == "wrong"
    assert ended[model, 0] == "ok"
    assert {(seed, status) for (_, seed), status in ended.items()} == {(0, "ok")}
    assert "the run ended before this trial" in Path("out/report.md").read_text("utf-8")


def test_only_the_first_of_several_signals_interrupts_and_those_before_are_back_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.engine.scoring import Scoring

    survived = []

    def interrupt(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.raise_signal(number)
                survived.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(Scoring, "score_all", interrupt)
    result = harness("run", suite(QUICK), "--models", "plain-lstm", "--out", "out")
    assert result.exit_code == 128 + signal.SIGTERM
    assert len(survived) == 3
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_that_was_ignored_stays_ignored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.engine.scoring import Scoring

    monkeypatch.setattr(Scoring, "score_all", lambda _: signal.raise_signal(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        result = harness("run", suite(PARITY_ONLY), "--models", "plain-lstm", "--out", "out")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.exit_code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize(("full", "code"), [("stderr", 0), ("stdout", 74)])
def test_a_run_whose_words_cannot_be_written_is_finished_all_the_same(world: World, full: str, code: int) -> None:
    line = [sys.executable, "-c", "from harness.cli import main; main()", "run", suite(PARITY_ONLY)]
    with open("/dev/full", "w", encoding="utf-8") as device:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, full: device}
        done = subprocess.run(
            [*line, "--models=plain-lstm", "--out=out"],
            text=True,
            check=False,
            **streams,  # type: ignore[call-overload]
        )
    assert done.returncode == code
    if full == "stdout":
        assert done.stderr.splitlines()[-1] == "harness: the output cannot be written: No space left on device"
    assert ",ok," in Path("out/tables/trials.csv").read_text(encoding="utf-8")


def test_plugins_that_are_not_chosen_are_not_imported_in_another_interpreter_either(
    world: World, tmp_path: Path
) -> None:
    world.add("deadly", f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    chosen = ["--plugins=plain", f"--python=same={sys.executable}", "--models=plain-lstm", "--out=out"]
    result = harness("run", suite(PARITY_ONLY), *chosen)
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "imported").exists()


def test_a_bug_of_the_harness_ends_with_70_its_traceback_and_one_last_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.engine.scoring import Scoring

    def fail(*_: object) -> None:
        raise RuntimeError("one\ntwo")

    monkeypatch.setattr(Scoring, "score_all", fail)
    result = harness("run", suite(QUICK), "--models", "plain-lstm", "--out", "out")
    assert result.exit_code == 70
    assert "Traceback (most recent call last)" in result.stderr
    assert "in fail" in result.stderr
    last = "harness: this is a bug of the harness: RuntimeError: one two; please report it"
    assert result.stderr.splitlines()[-1] == last
    assert harness("report", "out").exit_code == 0
    text = Path("out/tables/trials.csv").read_text(encoding="utf-8")
    assert text.count(",ok,") == 1  # what was finished before is kept


def test_a_reader_that_went_away_is_no_bug_of_the_harness(world: World) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from harness.cli import main; main()", "list"]
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_plugin_that_failed_to_load_is_named_by_every_run_and_in_its_report(world: World, quiet: list[str]) -> None:
    world.add("sick", "raise ValueError('the flu')")
    result = harness("run", suite(PARITY_ONLY), "--models", "plain-lstm", "--out", "out", *quiet)
    assert result.exit_code == 0
    said = "harness: plugin 'sick' failed to load and is left out: ValueError: the flu"
    assert result.stderr.splitlines()[0] == said
    report = Path("out/report.md").read_text(encoding="utf-8").splitlines()
    assert "Plugin sick failed to load and was left out: ValueError: the flu" in report
    assert harness("report", "out").exit_code == 0
    assert Path("out/report.md").read_text(encoding="utf-8").splitlines() == report


def test_the_command_runs_as_a_program_of_its_own(world: World) -> None:
    command = [sys.executable, "-c", "from harness.cli import main; main()", "run", suite(PARITY_ONLY)]
    done = subprocess.run([*command, "--models=plain-lstm", "--out=out"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "plain-lstm@plain" in done.stdout
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
