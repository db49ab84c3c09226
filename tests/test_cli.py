"""The command: its exit codes, one line for each bad input with nothing written, and output that can be piped."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result
from strangers import QUICK, World

from harness.cli import EXIT_CODES, main

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


@pytest.mark.parametrize("command", [(), ("run",)])
def test_help_documents_the_exit_codes(command: tuple[str, ...]) -> None:
    result = harness(*command, "--help")
    assert result.exit_code == 0
    for line in EXIT_CODES.splitlines()[1:]:
        assert line.strip() in result.stdout


def test_a_run_of_a_sound_variant_ends_with_0_and_writes_its_folder(world: World) -> None:
    result = harness("run", suite(QUICK), "--models", "plain-lstm", "--out", "out")
    assert result.exit_code == 0
    assert "plain-lstm@plain" in result.stdout
    assert "Report: out/report.md" in result.stdout
    assert "\x1b" not in result.output  # piped: no colours, no bars
    assert "parity: 1 steps" in result.stderr
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


BAD = {
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
    "report of nothing": (["report", "nowhere"], "'nowhere' is not a run: run.json cannot be read"),
    "report of a folder": (["report", "full"], "'full' is not a run: run.json cannot be read"),
    "check of nothing": (["check", "plain-lstn"], "no model is called 'plain-lstn'; did you mean"),
    "check in capitals": (["check", "Plain-lstm"], "no model is called 'Plain-lstm'; did you mean 'plain-lstm'?"),
    "check of an unknown runtime": (["check", "@plane"], "no runtime is called 'plane'; did you mean 'plain'?"),
    "check of a path": (["check", "../x"], "--models: "),
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
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
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


CHECKED = (("ok", "plain-lstm"), ("wrong", "forgetful"), ("unsupported", "sleepy"))


@pytest.mark.parametrize(
    ("name", "code", "lines"),
    [
        ("plain-lstm@plain", 0, ["ok           plain-lstm@plain             1 layer", "ok           plain-lstm@plain"]),
        ("sleepy", 0, ["unsupported  sleepy@plain"] * 2),
        ("@plain", 1, [f"{status:<12} {model}@plain" for status, model in CHECKED for _ in range(2)]),
        ("forgetful", 1, ["wrong        forgetful@plain"] * 2),
    ],
)
def test_check_prints_a_line_for_one_and_for_two_layers(world: World, name: str, code: int, lines: list[str]) -> None:
    result = harness("check", name)
    assert result.exit_code == code
    found = result.stdout.splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))
    assert list(Path().iterdir()) == []


def test_an_interruption_ends_with_130_and_keeps_what_was_finished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.engine.scoring import Scoring

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scoring, "score_all", interrupt)
    result = harness("run", suite(QUICK), "--models", "plain-lstm", "--out", "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "harness: interrupted"
    text = Path("out/tables/trials.csv").read_text(encoding="utf-8")
    assert text.count(",ok,") == 1
    assert text.count("the run ended before this trial") == 5


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
    assert stderr.splitlines()[-1] == "harness: interrupted"
    assert "Traceback" not in stderr
    planned = {trial["trial"]: trial for trial in json.loads(Path("out/run.json").read_text("utf-8"))["trials"]}
    journal = [json.loads(line) for line in Path("out/journal.jsonl").read_text("utf-8").splitlines()]
    ended = {(planned[r["trial"]]["model"], planned[r["trial"]]["seed"]): r["status"] for r in journal}
    assert ended.pop(("plain-lstm", None)) == "ok"  # parity
    assert ended.pop(("forgetful", None)) == "wrong"
    assert ended[model, 0] == "ok"
    assert {(seed, status) for (_, seed), status in ended.items()} == {(0, "ok")}
    assert "the run ended before this trial" in Path("out/report.md").read_text("utf-8")


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
