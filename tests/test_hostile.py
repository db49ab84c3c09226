"""Strangers do their worst, and the command says what became of each, while the innocent have all their rows.

Everything runs as a user runs it: plugins installed, the command a process of its own.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import command, folder_to_work_in, living
from hostile_plugins import GALLERY, NAMES, NOT_LOADED, world_of
from made_up_runs import Timed, five, write_run

from harness.format_folders import MARK
from harness.store import Run, load
from harness.tables import records

SLICES, INSTANCES, CALLS = 2, 2, 10
SUITE = f"""
baselines = ["innocent@plain"]
seeds = 1
trial_seconds = 10
worker_memory_gib = 0.5
worker_output_mib = 1
[latency]
slices = {SLICES}
instances = {INSTANCES}
calls = {CALLS}
seconds = 0.01
offline_batch = 4
"""
FEW = (  # in the everyday part; the whole gallery is marked slow
    *("segfaults", "leaves", "raises", "answers-nan", "prints-a-gigabyte", "allocates", "refuses-with-a-formula"),
    *("segfaults-at-import", "calculates-by-name", "moves-house", "leaves-children", "segfaults-while-timed"),
)
ALL = tuple(name for name, plugin in GALLERY.items() if plugin.place not in ("load", "write"))
LOADING = tuple(name for name, plugin in GALLERY.items() if plugin.place == "load")
WRITING = tuple(name for name, plugin in GALLERY.items() if plugin.place == "write")
FEW_WRITING = ("segfaults-in-write", "raises-in-write", "moves-house-in-write", "takes-its-files-back")
INNOCENT = ("innocent", "neighbour")


@dataclass(frozen=True)
class Finished:
    """A command that has ended: what it said, the run it made, and who was still there.

    Attributes:
        guests: the hostile plugins that were installed.
        left: living processes that descend from it: status, command line and seconds of life.
    """

    guests: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes
    run: Run
    left: list[str]

    def trials(self, name: str) -> list[dict[str, Any]]:
        """The trials of a model, or on a task, of this name."""
        return [row for row in records(self.run.trials) if name in (row["model"], row["task"])]


def left_over() -> list[str]:
    """Who is still there, in words: a process that a failed assertion would show may be gone by then."""
    found = []
    for process in living():
        with contextlib.suppress(psutil.Error):
            age = time.time() - process.create_time()
            found.append(f"{process.status()}: {' '.join(process.cmdline())[:500]} ({age:.1f} s)")
    return found


def run_with(guests: tuple[str, ...], folder: Path, suite: str) -> Finished:
    """One run with all these plugins and the innocent one."""
    with folder_to_work_in(folder) as patch:
        world_of(list(guests), folder / "plugins", patch)
        Path("suite.toml").write_text(suite, encoding="utf-8")
        line = command("run", "suite.toml", "--out=out", "--quiet")
        done = subprocess.run(line, capture_output=True, check=False, timeout=1200)  # three minutes of a quick machine
        sys.stderr.write(done.stderr.decode(errors="replace")[-4000:])  # shown if a test fails
        return Finished(guests, done.returncode, done.stdout, done.stderr, load(Path("out").resolve()), left_over())


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_with(FEW, tmp_path_factory.mktemp("few"), SUITE)


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_with(ALL, tmp_path_factory.mktemp("all"), SUITE)


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    suite = SUITE.replace("[latency]", "[latency]\nscenarios = ['single-stream']")
    return run_with(LOADING, tmp_path_factory.mktemp("loading"), suite)


@pytest.fixture(
    scope="module",
    params=["few", pytest.param("everybody", marks=pytest.mark.slow), pytest.param("loading", marks=pytest.mark.slow)],
)
def finished(request: pytest.FixtureRequest) -> Finished:
    found: Finished = request.getfixturevalue(request.param)
    return found


def assert_ended_as_it_should(finished: Finished, name: str) -> None:
    plugin = GALLERY[name]
    if plugin.status == NOT_LOADED:
        (failure,) = [row["failure"] for row in finished.run.header["plugins"] if row["name"] == name]
        assert re.search(plugin.reason, failure, re.DOTALL)
        assert f"plugin '{name}' failed to load and is left out: {failure}" in finished.stderr.decode()
        assert finished.trials(name) == []
        return
    kinds = ["accuracy", "latency", "parity"]
    if plugin.status != "ok":  # what is wrong is scored all the same, and what was right before is right
        kinds = {"parity": ["parity", "latency"]}.get(plugin.kind, [plugin.kind])
    rows = [row for row in finished.trials(name) if row["kind"] in kinds]
    assert rows
    assert {row["status"] for row in rows} == {plugin.status}
    for row in rows:
        assert re.search(plugin.reason, row["reason"], re.DOTALL)
    if plugin.kind != "parity":
        assert {row["status"] for row in finished.trials(name) if row["kind"] == "parity"} == {"ok"}


@pytest.mark.parametrize("name", FEW)
def test_a_hostile_plugin_ends_as_it_should(few: Finished, name: str) -> None:
    assert_ended_as_it_should(few, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_hostile_plugin_ends_as_it_should(everybody: Finished, name: str) -> None:
    assert_ended_as_it_should(everybody, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADING)
def test_a_task_that_cannot_be_loaded_costs_its_own_rows(loading: Finished, name: str) -> None:
    plugin = GALLERY[name]
    rows = [row for row in loading.trials(name) if row["kind"] == "accuracy"]
    assert {row["status"] for row in rows} == {plugin.status}
    assert all(re.search(plugin.reason, row["reason"]) for row in rows)


def test_every_planned_trial_is_one_row(finished: Finished) -> None:
    planned = [row["trial"] for row in finished.run.header["trials"]]
    assert list(finished.run.trials["trial"]) == planned
    assert finished.run.missing == frozenset()
    assert finished.run.damage == ()
    recorded = [
        record["record"]["trial"]
        for record in map(json.loads, (finished.run.path / "journal.jsonl").read_text("utf-8").splitlines())
        if "trial" in record["record"]
    ]
    assert sorted(recorded) == sorted(planned)
    for name in finished.guests:
        if GALLERY[name].status != NOT_LOADED:
            assert finished.trials(name)


def test_the_innocent_have_every_row_and_right_ones(finished: Finished) -> None:
    run = finished.run
    for name in INNOCENT:
        trials = [row for row in finished.trials(name) if row["task"] == "tiny"]
        assert {(row["status"], row["reason"]) for row in trials} == {("ok", "")}
        (parity,) = [row["trial"] for row in trials if row["kind"] == "parity"]
        (accuracy,) = [row["trial"] for row in trials if row["kind"] == "accuracy"]
        assert (run.parity[run.parity["trial"] == parity]["problem"] == "").all()
        assert (run.parity[run.parity["trial"] == parity]["rmse"] < 1e-6).all()
        assert len(run.scores[run.scores["trial"] == accuracy]) == 1
        for trial in [row["trial"] for row in trials if row["kind"] == "latency"]:
            samples = run.samples[(run.samples["trial"] == trial) & (run.samples["call"] > 0)]
            assert (samples["elapsed_s"] > 0).all()
            counts = samples.groupby(["slice", "boundary", "instance"])["process"].agg(["count", "nunique"])
            assert len(counts) == SLICES * 2 * INSTANCES
            assert set(counts["count"]) == {CALLS}
            assert set(counts["nunique"]) == {1}
        (summary,) = [row for row in records(run.summary) if (row["variant"], row["task"]) == (f"{name}@plain", "tiny")]
        assert (summary["status"], summary["parity"]) == ("ok", "ok")
        assert summary["single_stream_latency_s"] > 0


def test_the_command_ends_as_one_with_bad_rows_and_nobody_is_left(finished: Finished) -> None:
    assert finished.code == 1
    assert b"Traceback" not in finished.stderr
    assert b"bug of the harness" not in finished.stderr
    assert finished.left == []


def test_nothing_that_plugins_say_acts_where_it_is_shown(finished: Finished) -> None:
    for text in (finished.stdout.decode(), finished.stderr.decode()):
        assert all(character.isprintable() or character == "\n" for character in text)
    report = (finished.run.path / "report.md").read_text("utf-8")
    assert "<script" not in report
    assert "\x1b" not in report
    assert len(report) < 500_000
    tables = sorted((finished.run.path / "tables").glob("*.csv"))
    assert tables
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert {len(row) for row in rows} <= {len(header)}
        for cell in (cell for row in rows for cell in row):
            assert len(cell) < 2000
            assert not cell.lstrip().startswith(("=", "+", "@")), f"{table.name}: {cell}"
            assert not cell.startswith("-") or _is_number(cell), f"{table.name}: {cell}"


def test_what_was_written_can_be_read_by_others_and_has_its_bounds(finished: Finished) -> None:
    for path in finished.run.path.rglob("*"):
        if path.parent.name != "weights" or path.suffix == ".npy":  # safetensors keeps its files to their owner
            assert path.stat().st_mode & 0o444 == 0o444, path
    for log in (finished.run.path / "logs").iterdir():
        assert log.stat().st_size <= 2**20


IN_TIME = "import harness.format_folders as folders; folders.SECONDS = 5.0"


@pytest.mark.parametrize("guests", [FEW_WRITING, pytest.param(WRITING, marks=pytest.mark.slow)], ids=["few", "all"])
def test_of_hostile_report_formats_each_is_told_of_and_nothing_is_left_of_it(
    guests: tuple[str, ...], tmp_path: Path
) -> None:
    with folder_to_work_in(tmp_path) as patch:
        world_of(list(guests), tmp_path / "plugins", patch)
        write_run(Path("run"), Timed("a@r", five(0.001)))
        before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
        line = command("report", "run", "--format", ",".join((*guests, "markdown")), "--out=out", before=IN_TIME)
        done = subprocess.run(line, capture_output=True, check=False, timeout=600)
        assert living() == []
        assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
        sound = [name for name in guests if GALLERY[name].status == "ok"]
        written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
        own = {f"{name}/{file}" for name in sound for file in ("half.txt", MARK)}
        assert written == own | {"markdown/summary.md", f"markdown/{MARK}"}
        assert {path.name for path in Path().iterdir()} == {"run", "out"}
    assert done.stdout.decode().splitlines() == [f"{name}: out/{name}" for name in (*sound, "markdown")]
    assert done.returncode == 2
    (told,) = done.stderr.decode().splitlines()
    assert told.isprintable()
    for name in set(guests) - set(sound):
        plugin = GALLERY[name]
        said = f"'{name}' of 'stranger-{name}' {plugin.status}: ((?!report format).)*{plugin.reason}"
        assert re.search(f"report format {said}", told)


def test_every_name_that_is_no_name_is_in_the_gallery() -> None:
    assert {f"{title}-by-name" for title in NAMES} <= set(GALLERY)
    assert set(FEW) <= set(ALL)
    assert set(FEW_WRITING) <= set(WRITING)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
