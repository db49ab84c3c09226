"""A new plugin is whole or not there, takes nobody's name, and works as it is: installed from its wheel, elsewhere."""

from __future__ import annotations

import ast
import errno
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from clean_environment import ROOT, CleanEnvironment, build_wheels
from click.testing import CliRunner
from strangers import World

from harness import CONTRACT_VERSION, HarnessError
from harness.catalog import OF_A_RUN, Catalog, Entry, Plugin
from harness.cli import main
from harness.new_plugin import (
    BEGINNINGS,
    check_is_free,
    check_name,
    module_name,
    next_commands,
    package_files,
    write_package,
)

NOBODY = Catalog((), ())
SHORT = """
models = ["*-lstm"]
tasks = ["digits-rows"]
seeds = 1
[latency]
scenarios = ["single-stream"]
slices = 2
max_slices = 2
instances = 2
calls = 10
seconds = 0.01
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path / "plugins", monkeypatch)


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestTheCommand:
    @pytest.mark.parametrize("kind", OF_A_RUN)
    def test_writes_the_package_and_says_what_to_type_next(self, world: World, kind: str) -> None:
        result = CliRunner().invoke(main, ["new-plugin", "my-own", "--kind", kind])
        assert (result.exit_code, result.exception) == (0, None)
        assert files_in(Path("my-own")) == package_files("my-own", kind)
        commands = [line.strip() for line in result.stdout.splitlines() if line.startswith("  ")]
        assert commands == next_commands("my-own", kind, Path("my-own"))
        assert commands[:3] == ["pip install -e './my-own[test]'", "harness list", "harness check my-own"]

    def test_begins_with_a_model_unless_told_otherwise(self, world: World) -> None:
        assert CliRunner().invoke(main, ["new-plugin", "my-own", "--out", "elsewhere"]).exit_code == 0
        assert files_in(Path("elsewhere")) == package_files("my-own", "model")
        assert not Path("my-own").exists()

    def test_refuses_a_plugins_name_and_names_its_owner(self, world: World) -> None:
        world.add_plain("plain")
        self.refused("plain", "plugin 'plain' is already provided by 'stranger-plain'; choose another name")

    def test_refuses_the_name_of_something_that_a_plugin_gives(self, world: World, monkeypatch: Any) -> None:
        world.add_plain("plain")
        monkeypatch.setenv("HARNESS_PLUGINS", "another")  # of which this command is not
        self.refused("plain-lstm", "model 'plain-lstm' is already provided by 'stranger-plain'; choose another name")

    def test_refuses_a_broken_plugins_name_too(self, world: World) -> None:
        world.add("sick", "raise ValueError('flu')")
        self.refused("sick", "plugin 'sick' is already provided by 'stranger-sick'; choose another name")

    def test_refuses_a_folder_that_is_not_empty(self, world: World) -> None:
        Path("my-own").mkdir()
        Path("my-own", "thesis.tex").touch()
        result = CliRunner().invoke(main, ["new-plugin", "my-own"])
        assert result.exit_code == 2
        assert "'my-own' exists and is not an empty folder; choose another with --out" in result.stderr
        assert [path.name for path in Path("my-own").iterdir()] == ["thesis.tex"]

    def refused(self, name: str, reason: str) -> None:
        result = CliRunner().invoke(main, ["new-plugin", name])
        assert (result.exit_code, result.stderr) == (2, f"harness: {reason}\n")
        assert not Path(name).exists()


class TestNames:
    @pytest.mark.parametrize(
        "name", ["", "My-own", "my own", "-my", "my/own", "../x", "my-", "my.", "ä", "a" * 65, "a\n"]
    )
    def test_are_made_of_what_names_are_made_of(self, name: str) -> None:
        with pytest.raises(HarnessError, match="a name is made of a-z, 0-9") as raised:
            check_name(name)
        assert str(raised.value).isprintable()

    @pytest.mark.parametrize("name", ["1lstm", "class", "4-gates"])
    def test_are_such_that_python_can_import_them(self, name: str) -> None:
        with pytest.raises(HarnessError, match=f"cannot import a module .*; choose another name, such as 'my-{name}'"):
            check_name(name)

    @pytest.mark.parametrize("name", ["json", "numpy", "harness", "rnn-harness", "click"])
    def test_hide_nothing_that_is_installed(self, name: str) -> None:
        check_name(name)
        with pytest.raises(
            HarnessError, match=f"'{name}' is already installed, which a plugin of that name would hide"
        ):
            check_is_free(name, "model", NOBODY)

    def test_may_be_those_of_another_kind(self) -> None:
        plugin = Plugin("own", "own-package", "1.0")
        catalog = Catalog((plugin,), (Entry("task", "first-symbol", None, plugin),))
        check_is_free("first-symbol", "model", catalog)
        with pytest.raises(HarnessError, match="task 'first-symbol' is already provided by 'own-package'"):
            check_is_free("first-symbol", "task", catalog)

    @pytest.mark.parametrize(("name", "module"), [("my-own.lstm_2", "my_own_lstm_2"), ("gru", "gru")])
    def test_become_modules(self, name: str, module: str) -> None:
        check_name(name)
        assert module_name(name) == module


class TestWriting:
    FILES = package_files("my-own", "task")

    def test_fills_an_empty_folder_and_leaves_it_the_folder_that_it_was(self, tmp_path: Path) -> None:
        folder = tmp_path / "empty"
        folder.mkdir()
        inode = folder.stat().st_ino
        write_package(self.FILES, folder)
        assert files_in(folder) == self.FILES
        assert folder.stat().st_ino == inode

    def test_makes_the_folders_above(self, tmp_path: Path) -> None:
        write_package(self.FILES, tmp_path / "a" / "b")
        assert files_in(tmp_path / "a" / "b") == self.FILES
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]

    def test_gives_the_folder_the_permissions_of_any_other(self, tmp_path: Path) -> None:
        (tmp_path / "usual").mkdir()
        write_package(self.FILES, tmp_path / "new")
        assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    @pytest.mark.parametrize(
        ("was_there", "method", "nth"),
        [
            (False, "write_text", 3),
            (False, "rename", 1),
            (True, "write_text", 3),
            (True, "rename", 1),
            (True, "rename", 4),
        ],
    )
    def test_leaves_nothing_behind_where_it_cannot_end(
        self, tmp_path: Path, monkeypatch: Any, was_there: bool, error: BaseException, method: str, nth: int
    ) -> None:
        folder = tmp_path / "new"
        if was_there:
            folder.mkdir()
        original, calls = getattr(Path, method), []

        def failing(path: Path, *arguments: Any, **options: Any) -> Any:
            calls.append(path)
            if len(calls) == nth:
                raise error
            return original(path, *arguments, **options)

        monkeypatch.setattr(Path, method, failing)
        with pytest.raises(HarnessError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
            write_package(self.FILES, folder)
        if isinstance(error, OSError):
            assert str(raised.value) == f"'{folder}' cannot be written: {error.strerror}; choose another with --out"
        assert [path.name for path in tmp_path.rglob("*")] == (["new"] if was_there else [])

    @pytest.mark.parametrize("obstacle", ["file", "link"])
    def test_takes_nothing_else_for_a_folder(self, tmp_path: Path, obstacle: str) -> None:
        path = tmp_path / "new"
        path.touch() if obstacle == "file" else path.symlink_to(tmp_path / "nowhere")
        with pytest.raises(HarnessError, match="exists and is not an empty folder"):
            write_package(self.FILES, path)


@pytest.mark.parametrize("kind", OF_A_RUN)
class TestThePackage:
    def test_is_named_after_the_plugin_throughout(self, kind: str) -> None:
        files = package_files("my-own.thing", kind)
        project = tomllib.loads(files["pyproject.toml"])
        assert project["project"]["name"] == "my-own.thing"
        assert project["project"]["entry-points"]["harness"] == {"my-own.thing": "my_own_thing"}
        assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/my_own_thing"]
        assert "src/my_own_thing/__init__.py" in files
        assert "src/my_own_thing/py.typed" in files
        assert 'test_conformance = harness.testing.conformance("my-own.thing")' in files["tests/test_conformance.py"]
        assert not [path for path, text in files.items() if "$" in text]

    def test_says_which_contract_and_harness_it_is_written_for(self, kind: str) -> None:
        files = package_files("my-own", kind)
        assert f"\nharness_contract = {CONTRACT_VERSION}  #" in files["src/my_own/__init__.py"]
        dependencies = tomllib.loads(files["pyproject.toml"])["project"]["dependencies"]
        assert dependencies == ["rnn-harness>=0.1.0", "numpy>=2.0"]

    def test_fits_on_a_page_and_a_half(self, kind: str) -> None:
        assert len(package_files("my-own", kind)["src/my_own/__init__.py"].splitlines()) <= 110

    def test_costs_nothing_to_import(self, kind: str) -> None:
        tree = ast.parse(package_files("my-own", kind)["src/my_own/__init__.py"])
        imported = {ast.unparse(node).split()[1] for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
        assert imported <= {"__future__", "collections.abc", "harness", "pathlib", "typing"}

    def test_tells_how_to_install_list_check_and_run_it(self, kind: str) -> None:
        readme = package_files("my-own", kind)["README.md"]
        for line in ("pip install -e '.[test]'", "harness list", "harness check my-own", "pytest", "harness run "):
            assert re.search(f"^{re.escape(line)}", readme, re.MULTILINE)

    @pytest.mark.skipif(not importlib.util.find_spec("ruff"), reason="ruff is not installed")
    def test_is_formatted_and_linted(self, kind: str, tmp_path: Path) -> None:
        for name in ("my-own", "a", "x" * 64):
            write_package(package_files(name, kind), tmp_path / name)
        for arguments in (["check"], ["format", "--check"]):
            settings = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
            tool([sys.executable, "-m", "ruff", *arguments, *settings, "."], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mypy"), reason="mypy is not installed")
def test_every_new_plugin_has_sound_types(tmp_path: Path) -> None:
    for kind in OF_A_RUN:
        write_package(package_files(f"my-{kind}", kind), tmp_path / kind)
    files = [*tmp_path.glob("*/src/*/__init__.py"), tmp_path / OF_A_RUN[0] / "tests" / "test_conformance.py"]
    assert len(files) == len(OF_A_RUN) + 1
    arguments = ["--strict", "--cache-dir", str(tmp_path / "cache"), *map(str, files)]
    tool([sys.executable, "-m", "mypy", *arguments], tmp_path)


def tool(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    """With the core, and what the READMEs of the three packages say that they need."""
    sources = [ROOT, *(ROOT / "plugins" / name for name in ("numpy", "tasks"))]
    if importlib.util.find_spec("torch"):
        sources.append(ROOT / "plugins" / "torch")
    folder = tmp_path_factory.mktemp("clean")
    return CleanEnvironment(folder, build_wheels(sources, folder))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("threadpoolctl"), reason="plugin numpy needs threadpoolctl")
@pytest.mark.parametrize("kind", OF_A_RUN)
def test_a_new_plugin_is_installed_from_its_wheel_listed_checked_run_and_passes_its_tests(
    kind: str, environment: CleanEnvironment, tmp_path: Path
) -> None:
    name = f"first-{kind}"
    environment.run("harness", "new-plugin", name, "--kind", kind, folder=tmp_path)
    environment.install(build_wheels([tmp_path / name], tmp_path))
    listed = environment.run("harness", "list")
    assert re.search(rf"^  {name} +{name} 0\.1\.0  ok$", listed, re.MULTILINE)
    assert re.search(rf"^{kind}s(\n  .*)*\n  {name} ", listed, re.MULTILINE)
    checked = environment.run("harness", "check", name)
    assert re.search(r"^ok ", checked, re.MULTILINE)
    environment.run("python", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", folder=tmp_path / name)
    (tmp_path / "short.toml").write_text(SHORT, encoding="utf-8")
    program, *arguments = BEGINNINGS[kind].run.replace("$name", name).split()
    arguments[1:1] = [str(tmp_path / "short.toml")]
    environment.run(program, *arguments, "--quiet", "--out", str(tmp_path / "run"))
    trials = pd.read_csv(tmp_path / "run" / "tables" / "trials.csv")
    assert name in set(trials.model if kind == "model" else trials.runtime if kind == "runtime" else trials.task)
    assert set(trials.status) <= {"ok", "skipped"}
