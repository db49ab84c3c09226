"""A suite run with other versions of a library: whatever comes of it is written down, and only one runs at a time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from clean_environment import ROOT, borrow, build_wheels
from click.testing import CliRunner
from commands import command
from strangers import PLAIN, QUICK, World

from harness.attempts import MEASURED, NO_RUN, NOT_IMPORTED, NOT_INSTALLED, Attempt, find_attempts
from harness.benching import LOCK_FILE, bench
from harness.cli import main
from harness.contract import HarnessError
from harness.journal import take_lock

HERE = Path(__file__).parent
ABSENT = "no-such-distribution==1.*"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched, whatever pip is asked for."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def only_attempt(folder: Path) -> Attempt:
    (found,), unreadable = find_attempts(folder)
    assert unreadable == {}
    return found


def test_a_version_that_cannot_be_installed_is_written_down_with_pips_own_reason(tmp_path: Path) -> None:
    assert bench([ABSENT], tmp_path, [], ["no-such-suite"]) == 1
    found = only_attempt(tmp_path)
    assert (found.outcome, found.requirements, found.versions) == (NOT_INSTALLED, (ABSENT,), {})
    assert found.reason == f"No matching distribution found for {ABSENT}"
    assert re.fullmatch(r"no-such-distribution-1-\d{8}-\d{6}", found.path.name)
    assert sorted(path.name for path in found.path.iterdir()) == ["attempt.json"]


def test_a_run_that_never_began_is_written_down_with_the_last_line_of_harness_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bench(["click", "pluggy>=1"], tmp_path, [], ["no-such-suite"]) == 1
    found = only_attempt(tmp_path)
    assert (found.outcome, set(found.versions)) == (NO_RUN, {"click", "pluggy"})
    assert "'no-such-suite'" in found.reason
    assert not found.reason.startswith("harness:")
    assert f"harness: click, pluggy>=1: no run: {found.reason}" in capfd.readouterr().err


KILLED = (
    "import os, signal, sys; print('terminating', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
)


@pytest.mark.parametrize(
    ("imported", "reason"),
    [
        (KILLED, r"click \S+: it was ended by SIGKILL \(it said before: terminating\)"),
        ("import os; os._exit(3)", r"click \S+: it ended with 3"),
        ("while True: pass", r"click \S+: it took longer than 0\.5 s"),
    ],
)
def test_an_import_that_dies_or_never_ends_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: str, reason: str
) -> None:
    monkeypatch.setattr("harness.benching.IMPORT", imported)
    monkeypatch.setattr("harness.benching.IMPORT_SECONDS", 0.5 if "while" in imported else 60.0)
    assert bench(["click"], tmp_path, [], ["no-such-suite"]) == 1
    found = only_attempt(tmp_path)
    assert found.outcome == NOT_IMPORTED
    assert re.fullmatch(reason, found.reason)


def wheel(folder: Path, name: str, version: str, source: str = "", needs: str = "") -> None:
    """A wheel in a folder, of one module."""
    module = name.replace("-", "_")
    project = folder / f"{name}-{version}"
    project.mkdir(parents=True)
    (project / f"{module}.py").write_text(source, encoding="utf-8")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = [{needs}]\n'
        f'[tool.hatch.build.targets.wheel]\nonly-include = ["{module}.py"]\n',
        encoding="utf-8",
    )
    build_wheels([project], folder)


@pytest.mark.parametrize(
    ("name", "requirement", "reason"),
    [
        ("stand-in", "stand-in", r"pip installed stand-in where this interpreter does not look"),
        ("click", "click==0.1", r"pip installed click==0\.1, and this interpreter finds [1-9]\S+"),
    ],
)
def test_what_pip_installs_where_this_interpreter_does_not_look_or_sees_something_else_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, requirement: str, reason: str
) -> None:
    wheel(tmp_path / "wheels", name, "0.1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    assert bench([requirement], tmp_path / "results", [], ["no-such-suite"]) == 1
    found = only_attempt(tmp_path / "results")
    assert found.outcome == NOT_INSTALLED
    assert re.fullmatch(reason, found.reason)


@pytest.mark.parametrize("pinned", ["no-such-distribution==2", "No_Such.Distribution==2"])
def test_a_pin_of_what_is_required_is_no_conflict(tmp_path: Path, pinned: str) -> None:
    (tmp_path / "c.txt").write_text(f"{pinned}\n", encoding="utf-8")
    assert bench([ABSENT], tmp_path, [tmp_path / "c.txt"], ["no-such-suite"]) == 1
    assert only_attempt(tmp_path).reason == f"No matching distribution found for {ABSENT}"


def test_a_pin_of_anything_else_holds(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("click==0.1\n", encoding="utf-8")
    wheel(tmp_path / "wheels", "stand-in", "1.0", needs='"click>=8"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
        assert bench(["stand-in"], tmp_path / "results", [tmp_path / "c.txt"], ["no-such-suite"]) == 1
    reason = only_attempt(tmp_path / "results").reason
    assert reason.startswith(
        "Cannot install stand-in==1.0 because these package versions have conflicting dependencies"
    )
    assert "stand-in 1.0 depends on click>=8; The user requested (constraint) click==0.1" in reason


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--with", "a b", "--", "quick"], "'a b' is no requirement"),
        (["--with", "click", "-c", "nowhere.txt"], "'nowhere.txt' is no file of constraints"),
        (["--with", "click", "--", "quick", "--out", "x"], "--out: it does not go with harness bench"),
        (["--with", "click", "--", "--resume", "x"], "--resume: it does not go with harness bench"),
        (["--with", "click", "--", "--dry-run"], "--dry-run: it does not go with harness bench"),
        (["--with", "click", "--", "--python", "a=b"], "--python: it does not go with harness bench"),
        (["--with", "click", "--", "--modles", "x"], "No such option"),
        (["--with", "click", "--", "quik"], "'quik'"),
        (["--", "quick"], "Missing option '--with'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_installed_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("something was started"))
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == 2
    assert said in result.output
    assert list(tmp_path.iterdir()) == []


def test_without_pip_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pip" else object())
    with pytest.raises(HarnessError, match="ensurepip"):
        bench(["click"], tmp_path, [], [])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"cannot be written: .*choose another --into"):
        bench(["click"], tmp_path / "file", [], [])


@pytest.mark.slow
def test_who_comes_second_says_so_and_waits_for_the_first(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no locks on this system")
    with (tmp_path / LOCK_FILE).open("ab") as held:
        assert take_lock(held)
        second = subprocess.Popen(
            command("bench", "--with", ABSENT, "--into", str(tmp_path), "--", "quick"),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert second.stderr
        assert second.stderr.readline() == (
            f"harness: another version is being measured into '{tmp_path}'; this one waits for it to end\n"
        )
        assert find_attempts(tmp_path) == ([], {})
        assert second.poll() is None
    second.communicate()
    assert second.returncode == 1
    assert only_attempt(tmp_path).outcome == NOT_INSTALLED


@pytest.mark.slow
def test_a_signal_ends_the_run_in_order_and_nothing_is_said_to_have_come_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    World(tmp_path / "world", monkeypatch).add_plain()
    (tmp_path / "suite.toml").write_text(QUICK, encoding="utf-8")
    arguments = ["--with", "click", "--into", str(tmp_path / "results"), "--", str(tmp_path / "suite.toml")]
    running = subprocess.Popen(
        command("bench", *arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert running.stderr
    lines = iter(running.stderr.readline, "")
    assert any("parity" in line.lower() for line in lines)  # the run has begun
    running.send_signal(signal.SIGTERM)
    said = "".join(lines)
    running.stderr.close()
    assert running.wait() == 143
    (path,) = [path for path in (tmp_path / "results").iterdir() if path.is_dir()]
    assert f"To go on: harness run --resume {path}" in said
    assert (path / "report.md").is_file()
    assert find_attempts(tmp_path / "results") == ([], {})


PLUGIN = PLAIN.replace("{habits!r}", "MODELS").replace(
    "from strangers import", "from stand_in import MODELS\nfrom stand_in_strangers import"
)
UNIMPORTABLE = """
import sys
print("built for another\\nNumPy", file=sys.stderr)
raise ImportError("numpy.core failed\\nto import")
"""
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "plain-plugin"
version = "1.0"
dependencies = ["stand-in<1.10"]
[project.entry-points.harness]
plain = "plain_plugin"
[tool.hatch.build.targets.wheel]
only-include = ["plain_plugin.py", "stand_in_strangers.py"]
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness, a plugin that wants `stand-in` below 1.10, and versions of that, of which 2.0 cannot be imported."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheels([ROOT], folder)
    plugin = folder / "plugin"
    plugin.mkdir()
    (plugin / "plain_plugin.py").write_text(PLUGIN, encoding="utf-8")
    strangers = (HERE / "strangers.py").read_text(encoding="utf-8")
    (plugin / "stand_in_strangers.py").write_text(strangers, encoding="utf-8")
    (plugin / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    build_wheels([plugin], folder)
    wheel(folder, "stand-in", "1.9", "MODELS = {'lstm-0': '', 'lstm-1': ''}")
    wheel(folder, "stand-in", "1.10", "MODELS = {'lstm-0': ''}")
    wheel(folder, "stand-in", "2.0", UNIMPORTABLE)
    return folder


def section_of_the_page(replaced: Mapping[str, str]) -> str:
    """What docs/matrix.md gives a plugin's author to copy, with other names in it."""
    page = (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```ini\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return str(text)


@pytest.mark.slow
def test_the_section_of_the_page_measures_every_version_that_can_be_and_writes_down_the_others(
    wheels: Path, tmp_path: Path
) -> None:
    borrowed = borrow(tmp_path / "borrowed")
    section = section_of_the_page(
        {
            "{ort117,ort122,ort131,ort132}": "{a19,a110,a20,a99}",
            "ort117: --with onnxruntime==1.17.*": "a19: --with stand-in==1.9",
            "ort122: --with onnxruntime==1.22.*": "a110: --with stand-in==1.10.*",
            "ort131: --with onnxruntime==1.31.*": "a20: --with stand-in==2.*",
            "ort132: --with onnxruntime==1.32.*": "a99: --with stand-in==99",
            "    -r requirements-bench.txt\n": "    rnn-harness\n    plain-plugin\n    stand-in\n",
            "bench.toml": "suite.toml",
        }
    )
    install = f"python -I -m pip install --no-index --no-deps --find-links {wheels}"
    (tmp_path / "tox.ini").write_text(
        f"[tox]\nno_package = true\n{section}\n[testenv]\n"
        f"install_command = {install} {{opts}} {{packages}}\n"
        f"set_env =\n    PYTHONPATH = {borrowed}\n    PIP_FIND_LINKS = {wheels}\n    PIP_NO_INDEX = 1\n",
        encoding="utf-8",
    )
    (tmp_path / "constraints.txt").write_text("stand-in==1.9\n", encoding="utf-8")
    (tmp_path / "suite.toml").write_text(QUICK, encoding="utf-8")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TOX", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [sys.executable, "-m", "tox", "run", "-m", "bench"],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    results = tmp_path / "results" / "matrix"
    found, unreadable = find_attempts(results)
    assert unreadable == {}, done.stdout
    assert [(each.requirements, each.outcome) for each in found] == [
        (("stand-in==1.9",), MEASURED),
        (("stand-in==1.10.*",), MEASURED),
        (("stand-in==2.*",), NOT_IMPORTED),
        (("stand-in==99",), NOT_INSTALLED),
    ], done.stdout
    assert found[2].reason == (
        "stand-in 2.0: ImportError: numpy.core failed to import (it said before: built for another NumPy)"
    )
    assert found[2].versions == {"stand-in": "2.0"}
    assert found[3].reason == "No matching distribution found for stand-in==99"
    wants = "plain-plugin 1.0 has requirement stand-in<1.10, but you have stand-in"
    assert [each.conflicts for each in found] == [(), (f"{wants} 1.10.",), (f"{wants} 2.0.",), ()]
    assert [re.search(rf"bench-{name}: (OK|FAIL)", done.stdout)[1] for name in ("a19", "a110", "a20", "a99")] == [  # type: ignore[index]
        *("OK", "OK", "FAIL", "FAIL")
    ]
    out = tmp_path / "matrix.md"
    result = CliRunner().invoke(main, ["matrix", str(results), "--out", str(out)])
    assert result.exit_code == 0, result.output
    text = out.read_text(encoding="utf-8")
    header = "| variant | scenario | stand-in 1.9 | stand-in 1.10 | stand-in 2.0 | stand-in==99 |"
    assert header in text
    rows = {
        tuple(line.strip("| ").split(" | ")[:2]): line.strip("| ").split(" | ")[2:]
        for line in text.splitlines()
        if "@plain | " in line and line.startswith("| lstm-")
    }
    both = rows["lstm-0@plain", "single-stream 1×5"]
    assert re.fullmatch(r".+ [mµ]?s \(.+\), .+× \(.+\) (faster|slower|same|undecided)", both[1])
    assert both[2:] == ["not imported", "not installed"]
    assert rows["lstm-1@plain", "single-stream 1×5"][1:] == ["not in it", "not imported", "not installed"]
    assert "| stand-in 1.10, version of stand-in | 1.9 | 1.10 |" in text
