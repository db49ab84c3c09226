"""Formats by name: whole in their folder or not there, and a plugin's only ever written by a worker."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import Timed, five, write_run
from strangers import World

import harness.format_folders
from harness import HarnessError, load
from harness.format_folders import MARK, write_formats
from harness.formats import BUILT_IN
from harness.schema import TABLES
from harness.store import Run

WRITER = """
import os, pathlib, sys
import harness

def write(run, folder):
    (folder / "half.txt").write_text("half")
    {deed}

@harness.hookimpl
def harness_report_formats():
    return [harness.ReportFormat({name!r}, "a stranger's", write)]
"""
SOUND = '(folder / "names.txt").write_text(" ".join(run.summary["variant"]))'
# what a format does after it has written a file, and what is said of it
FAILING = {
    "raises": ("raise ValueError('no room for it')", "failed: ValueError: no room for it ["),
    "refuses": ("raise harness.Unsupported('this run has no loads')", "unsupported: this run has no loads"),
    "leaves": ("os._exit(3)", "crashed: the worker ended by itself with exit code 3"),
    "asks-to-leave": ("sys.exit(3)", "failed: SystemExit: 3"),
    "segfaults": ("import ctypes\n    ctypes.string_at(0)", "crashed: the worker was ended by SIGSEGV"),
    "sleeps": ("import time\n    time.sleep(3600)", "timed-out: it took longer than 10 s"),
    "prints": ("for _ in range(64): print(2**20 * 'z')", "failed: the worker printed more than 16 MiB"),
    "talks": (
        "import harness.engine.protocol as p\n    p.ENCODE = lambda _: '{\"result\": 3}'",
        "failed: the worker's",
    ),
    "takes-back": ("(folder / 'half.txt').unlink()", "failed: it wrote no file"),
    "goes-elsewhere": (
        "(folder / 'half.txt').unlink()\n    folder.rmdir()\n    folder.symlink_to(run.path)",
        "failed: it wrote no file",
    ),
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return World(tmp_path / "plugins", monkeypatch)


@pytest.fixture
def run(world: World) -> Run:
    return load(write_run(Path("run"), Timed("a@r", five(0.001)), Timed("b@r", five(0.002))))


def add(world: World, name: str, deed: str = SOUND, before: str = "") -> None:
    """Install a plugin that gives a format of its own name."""
    world.add(name, before + WRITER.format(name=name, deed=deed))


def write(run: Run, *names: str, out: str | None = None) -> list[tuple[str, str]]:
    return [(name, str(folder)) for name, folder in write_formats(run, names, Path(out) if out else None)]


def content(folder: str | Path) -> dict[str, bytes]:
    """Every file of a folder but the mark, and every folder, by its path."""
    found = [path for path in sorted(Path(folder).rglob("*")) if path.name != MARK]
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in found}


class TestPlaces:
    def test_a_format_is_written_into_a_folder_of_the_run_that_bears_its_name(self, run: Run) -> None:
        assert write(run, "csv", "json") == [("csv", "run/csv"), ("json", "run/json")]
        assert set(content("run/csv")) == {f"run/csv/{name}.csv" for name in TABLES}
        assert set(content("run/json")) == {f"run/json/{name}.json" for name in TABLES}

    def test_out_is_the_folder_of_the_files_and_of_several_formats_that_of_their_folders(self, run: Run) -> None:
        assert write(run, "markdown", out="some/where") == [("markdown", "some/where")]
        assert set(content("some")) == {"some/where", "some/where/summary.md"}
        assert write(run, "markdown", "latex", out="both") == [("markdown", "both/markdown"), ("latex", "both/latex")]
        assert {path for path in content("both") if "." in path} == {
            "both/markdown/summary.md",
            "both/latex/summary.tex",
        }

    def test_an_empty_folder_and_a_link_to_one_are_as_good_as_none(self, run: Run) -> None:
        Path("empty").mkdir()
        Path("link").symlink_to("empty")
        write(run, "markdown", out="link")
        assert Path("link").is_symlink()
        assert set(content("empty")) == {"empty/summary.md"}

    def test_what_a_format_wrote_before_is_replaced(self, run: Run) -> None:
        write(run, "csv")
        Path("run/csv/summary.csv").write_text("old", encoding="utf-8")
        Path("run/csv/loads.csv").unlink()
        write(run, "csv")
        assert set(content("run/csv")) == {f"run/csv/{name}.csv" for name in TABLES}
        assert Path("run/csv/summary.csv").read_text(encoding="utf-8").startswith("variant,")

    def test_a_folder_says_which_format_wrote_which_files(self, run: Run) -> None:
        write(run, "latex")
        assert json.loads(Path("run/latex", MARK).read_text("utf-8")) == {"format": "latex", "files": ["summary.tex"]}

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({"mine.txt": "mine"}, "'out' is not empty and was not written by format 'csv'; choose another --out"),
            ({MARK: "{"}, "'out' is not empty and was not written by format 'csv'"),
            ({MARK: '{"format": "json", "files": []}'}, "'out' is not empty and was not written by format 'csv'"),
            ({MARK: '{"format": "csv"}'}, "'out' is not empty and was not written by format 'csv'"),
            (
                {MARK: '{"format": "csv", "files": ["a.csv"]}', "a.csv": "", "deep/mine.txt": "mine"},
                "'out' holds 'deep/mine.txt', which format 'csv' did not write; move it away",
            ),
        ],
    )
    def test_a_folder_with_anything_else_in_it_is_refused_before_anything_is_written(
        self, run: Run, files: dict[str, str], said: str
    ) -> None:
        for name, text in files.items():
            Path("out/csv", name).parent.mkdir(parents=True, exist_ok=True)
            Path("out/csv", name).write_text(text, encoding="utf-8")
        before = content(".")
        with pytest.raises(HarnessError) as raised:
            write(run, "json", "csv", out="out")
        assert str(raised.value).startswith(said.replace("'out'", "'out/csv'"))
        assert content(".") == before

    def test_a_file_in_the_way_is_refused(self, run: Run) -> None:
        Path("out").write_text("mine", encoding="utf-8")
        with pytest.raises(HarnessError, match="'out' is no folder; choose another --out"):
            write(run, "csv", out="out")
        assert Path("out").read_text(encoding="utf-8") == "mine"

    def test_a_place_that_cannot_be_written_is_one_line_and_costs_no_other_format_its_files(self, run: Run) -> None:
        Path("out").mkdir()
        Path("out/csv").symlink_to("/proc/nowhere/csv")  # where nobody can make a folder
        done = write_formats(run, ["csv", "markdown"], Path("out"))
        assert next(done) == ("markdown", Path("out/markdown"))
        with pytest.raises(HarnessError, match=r"^'out/csv' cannot be written: [\w ]+; choose another --out$"):
            next(done)
        assert set(content("out")) == {"out/csv", "out/markdown", "out/markdown/summary.md"}

    @pytest.mark.parametrize("name", ["logs", "tables", "samples"])
    def test_the_runs_own_folders_are_no_formats(self, world: World, run: Run, name: str) -> None:
        add(world, name)
        before = content("run")
        with pytest.raises(HarnessError, match=f"'run/{name}' is a part of the run itself; choose another folder with"):
            write(run, name)
        Path("again").symlink_to("run")
        with pytest.raises(HarnessError, match=f"'again/{name}' is a part of the run itself; choose another folder"):
            write(run, "csv", out=f"again/{name}")
        assert content("run") == before
        assert write(run, name, out="out") == [(name, "out")]


class TestNames:
    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("jsom", "did you mean 'json'?"),
            ("stranges", "did you mean 'strange'?"),
            ("zzz", f"there are: {', '.join(BUILT_IN)}, strange"),
        ],
    )
    def test_an_unknown_format_names_those_there_are_and_nothing_is_written(
        self, world: World, run: Run, name: str, hint: str
    ) -> None:
        add(world, "strange")
        before = content(".")
        with pytest.raises(HarnessError) as raised:
            write(run, "csv", name)
        assert str(raised.value) == f"no report format is called '{name}'; {hint}"
        assert content(".") == before

    def test_where_all_formats_are_the_cores_no_plugin_is_loaded(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(harness.format_folders, "survey", lambda plugins: pytest.fail("nobody asked for a plugin"))
        assert write(run, *BUILT_IN, out="out")

    def test_a_plugin_cannot_take_the_name_of_one_of_the_cores(self, world: World, run: Run) -> None:
        world.add("impostor", WRITER.format(name="csv", deed=SOUND))
        add(world, "sound")
        assert write(run, "csv", "sound") == [("csv", "run/csv"), ("sound", "run/sound")]
        assert set(content("run/csv")) == {f"run/csv/{name}.csv" for name in TABLES}

    def test_two_plugins_with_one_name_are_both_named(self, world: World, run: Run) -> None:
        for plugin in ("one", "two"):
            world.add(plugin, WRITER.format(name="same", deed=SOUND))
        said = "report format 'same' is provided by both 'stranger-one' and 'stranger-two'; uninstall one"
        with pytest.raises(HarnessError, match=said):
            write(run, "same")


class TestPlugins:
    def test_a_plugins_format_is_written_by_a_worker_with_that_plugin_alone(self, world: World, run: Run) -> None:
        deed = "(folder / 'seen.txt').write_text(f\"{os.getpid()} {os.environ['HARNESS_PLUGINS']} {run.path}\")"
        add(world, "sound", deed)
        add(world, "other")
        assert write(run, "sound") == [("sound", "run/sound")]
        number, plugins, path = Path("run/sound/seen.txt").read_text(encoding="utf-8").split()
        assert int(number) != os.getpid()
        assert (plugins, path) == ("sound", str(Path("run").resolve()))
        assert "stranger_sound" not in sys.modules

    def test_it_gets_the_run_as_harness_load_gives_it(self, world: World, run: Run) -> None:
        add(world, "sound", "(folder / 'n.txt').write_text(f\"{type(run).__name__} {run.tables['summary'].shape}\")")
        write(run, "sound")
        assert Path("run/sound/n.txt").read_text(encoding="utf-8") == f"Run {run.tables['summary'].shape}"

    def test_what_importing_a_plugin_changes_does_not_reach_its_files(self, world: World, run: Run) -> None:
        add(world, "sound", before="import os\nos.umask(0o777)\nos.chdir('/')\n")
        write(run, "sound", out="here")
        assert Path("here/names.txt").read_text(encoding="utf-8") == "a@r b@r"
        assert Path("here/names.txt").stat().st_mode & 0o400

    @pytest.mark.parametrize("kind", FAILING)
    def test_one_that_fails_is_one_line_and_leaves_everything_as_it_was(
        self, world: World, run: Run, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        monkeypatch.setattr(harness.format_folders, "SECONDS", 10.0)
        deed, said = FAILING[kind]
        add(world, kind, deed)
        before = content(".")
        with pytest.raises(HarnessError) as raised:
            write(run, kind, out="a/new/folder")
        assert str(raised.value).startswith(f"report format '{kind}' of 'stranger-{kind}' {said}")
        assert str(raised.value).endswith("tell its author")
        assert str(raised.value).isprintable()
        assert content(".") == before

    def test_one_that_fails_leaves_what_it_wrote_before(self, world: World, run: Run) -> None:
        add(world, "moody", f"{SOUND}\n    if os.path.exists('bad-day'): raise ValueError")
        write(run, "moody")
        before = content("run")
        Path("bad-day").touch()
        with pytest.raises(HarnessError, match="report format 'moody' of 'stranger-moody' failed: ValueError"):
            write(run, "moody")
        assert content("run") == before
        assert set(content("run/moody")) == {"run/moody/half.txt", "run/moody/names.txt"}

    def test_one_that_fails_costs_no_other_its_files(self, world: World, run: Run) -> None:
        for name in ("first", "last"):
            add(world, name, "raise ValueError(folder.name)")
        add(world, "sound")
        done = write_formats(run, ["first", "sound", "markdown", "last"])
        assert [next(done)[0], next(done)[0]] == ["sound", "markdown"]
        with pytest.raises(HarnessError, match=r"'first' of .* failed: .*; report format 'last' of .* failed: "):
            next(done)
        assert set(content("run/sound")) == {"run/sound/half.txt", "run/sound/names.txt"}
        assert set(content("run/markdown")) == {"run/markdown/summary.md"}


class TestInterruptions:
    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
    def test_one_of_the_cores_that_does_not_end_leaves_everything_as_it_was(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        write(run, "csv")
        before = content(".")

        def interrupted(given_run: Run, folder: Path) -> None:
            (folder / "half.csv").write_text("half", encoding="utf-8")
            raise error

        monkeypatch.setitem(BUILT_IN, "csv", replace(BUILT_IN["csv"], write=interrupted))
        expected = HarnessError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            write(run, "csv")
        assert content(".") == before

    def test_an_interruption_while_the_new_takes_the_place_of_the_old_brings_the_old_back(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(run, "csv")
        before, rename = content("."), Path.rename

        def interrupted(path: Path, target: Any) -> Path:
            if path.name == "new":
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(run, "csv")
        assert content(".") == before
