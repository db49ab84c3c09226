"""A run is ended in every way there is, and goes on as if nothing had happened.

`HARNESS_KILLS=100 pytest tests/test_killed.py` kills more often than the everyday test does.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from commands import command, folder_to_work_in, living
from strangers import World

from harness.journal import read_journal
from harness.store import load
from harness.tables import records

KILLS = int(os.environ.get("HARNESS_KILLS", "6"))
PATIENCE = 60.0  # seconds; whatever takes longer has gone wrong
GUARD_SECONDS = 10.0  # after this long nothing may be left of an engine that was killed
SLICES, INSTANCES, CALLS = 3, 2, 10
SUITE = f"""
seeds = 2
trial_seconds = 60
[latency]
slices = {SLICES}
max_slices = {SLICES}
instances = {INSTANCES}
calls = {CALLS}
seconds = 0.01
offline_batch = 4
"""
SCORER = """
import os, subprocess, time
from pathlib import Path
import harness
from strangers import PlainRuntime

class Scorer:
    name, frameworks, description = "scorer", frozenset({"plain"}), "cannot train"
    def open(self, model, weights, options):
        folder = Path(os.environ["HARNESS_TEST_FOLDER"])
        file = os.open(folder / "opened", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, b".")
        if os.lseek(file, 0, os.SEEK_CUR) == int(os.environ.get("HARNESS_TEST_WAIT_AT", 0)):
            hidden = {"HARNESS_TEST_FOLDER": str(folder)}  # and nothing that the harness could know it by
            subprocess.run(["/bin/sh", "-c", "sleep 3600 &"], env=hidden, start_new_session=True, check=True)
            while not (folder / "go on").exists():
                time.sleep(0.01)
        os.close(file)
        return PlainRuntime().open(model, weights, options)

@harness.hookimpl
def harness_runtimes():
    return [Scorer()]
"""
IN_PARITY, IN_ACCURACY, IN_LATENCY = 2, 5, 12  # of the 18 sessions that the runtime `scorer` opens in a run


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to work in, a suite, and plugins: two models, a runtime that trains and one that does not."""
    with folder_to_work_in(tmp_path) as patch:
        world = World(tmp_path / "plugins", patch)
        world.add_plain(one="", other="")
        world.add("scorer", SCORER)
        Path("suite.toml").write_text(SUITE, encoding="utf-8")
        yield Path("out")


def start(*arguments: str, before: str = "pass", wait_at: int = 0) -> subprocess.Popen[str]:
    """The command in the background; the opening of the runtime's session of this number waits for `go_on`."""
    environment = {**os.environ, "HARNESS_TEST_WAIT_AT": str(wait_at)}
    line = command("run", *arguments, before=before)
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def new(before: str = "pass") -> subprocess.Popen[str]:
    return start("suite.toml", "--out=out", "--quiet", before=before)


def new_that_waits(at: int) -> subprocess.Popen[str]:
    """A run that has opened so many sessions and waits there."""
    process = start("suite.toml", "--out=out", "--quiet", wait_at=at)
    opened = Path("../opened")
    wait_until(lambda: (opened.exists() and opened.stat().st_size >= at) or process.poll() is not None)
    assert process.poll() is None
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code, and what was said on standard error."""
    _, stderr = process.communicate(timeout=5 * PATIENCE)
    return process.returncode, stderr


def steps(out: Path) -> int:
    """How many trials, trainings and processes the journal has."""
    if not (out / "run.json").exists():
        return 0
    return sum(not record.keys() & {"run", "resumed"} for _, _, record in read_journal(out / "journal.jsonl").records)


def wait_until(is_so: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"after {seconds} s it is not so"
        time.sleep(0.01)


def wait_for_steps(process: subprocess.Popen[str], out: Path, wanted: int) -> None:
    """Wait until so much has been done, or the process has ended."""
    wait_until(lambda: steps(out) >= wanted or process.poll() is not None)


def assert_whole(out: Path) -> None:
    """Every planned trial is there once and ok, and everything that was measured belongs to one process."""
    run = load(out)
    assert run.damage == ()
    assert run.missing == frozenset()
    planned = [trial["trial"] for trial in run.header["trials"]]
    table = pd.read_csv(out / "tables" / "trials.csv", keep_default_na=False)
    assert list(table["trial"]) == planned
    assert set(table["status"]) == {"ok"}
    contents = read_journal(out / "journal.jsonl")
    recorded = [record["trial"] for _, _, record in contents.records if "trial" in record]
    assert sorted(recorded) == sorted(planned)
    assert [number for number, _, _ in contents.records] == list(range(1, len(contents.records) + 1))

    kinds = {kind: set(rows["trial"]) for kind, rows in run.trials.groupby("kind")}
    assert set(kinds) == {"parity", "accuracy", "latency", "calibration"}
    assert sorted(run.scores["trial"]) == sorted(kinds["accuracy"])
    for row in records(run.scores.merge(run.trials, on="trial")):
        if row["variant"] != row["trained_by"]:
            assert row["score"] == row["trainer_score"]
            assert row["agreeing_rows"] == row["rows"]
    curves = run.curves[run.curves["score"].notna()].groupby("trial")["epoch"].agg(list)
    assert set(map(tuple, curves)) == {(1.0, 2.0)}
    assert len(curves) == sum(row["variant"] == row["trained_by"] for row in records(run.trials))

    timed = kinds["latency"] | kinds["calibration"]
    counted = run.samples[run.samples["call"] > 0]
    processes = counted.groupby(["trial", "slice"])["process"].nunique()
    assert set(processes.index) == {(trial, slice_) for trial in timed for slice_ in range(1, SLICES + 1)}
    assert set(processes) == {1}
    counts = counted.groupby(["trial", "slice", "instance", "boundary"]).size()
    assert len(counts) == len(timed) * SLICES * INSTANCES * 2
    assert set(counts) == {CALLS}
    assert sorted(run.processes["process"]) == sorted(set(run.samples["process"]))
    assert not run.instances.duplicated(["trial", "slice", "instance"]).any()


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_has_every_trial_once_when_it_ends(work: Path) -> None:
    chance = random.Random(KILLS)
    for _ in range(KILLS):
        is_run = (work / "run.json").exists()
        if not is_run:  # killed before there was anything to keep
            shutil.rmtree(work, ignore_errors=True)
        process = start("--resume=out", "--quiet") if is_run else new()
        wait_for_steps(process, work, steps(work) + chance.randrange(4))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 1.5))
        process.kill()
        code, stderr = finish(process)
        print(f"{steps(work)} steps, exit code {code}")  # shown if the test fails
        assert code in (0, -signal.SIGKILL), stderr
        wait_until(lambda: not living(), GUARD_SECONDS)
        if code == 0:  # it was faster
            assert_whole(work)
            shutil.rmtree(work)
        elif (work / "run.json").exists():
            run = load(work)  # whatever is there can be read
            assert set(run.trials["status"]) <= {"ok", "skipped"}
            assert set(run.trials[run.trials["status"] == "skipped"]["trial"]) == run.missing
    is_run = (work / "run.json").exists()
    if not is_run:
        shutil.rmtree(work, ignore_errors=True)
    code, stderr = finish(start("--resume=out", "--quiet") if is_run else new())
    assert code == 0, stderr
    assert_whole(work)
    assert living() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "at"), [(signal.SIGTERM, IN_PARITY), (signal.SIGINT, IN_ACCURACY), (signal.SIGHUP, IN_LATENCY)]
)
def test_a_run_that_is_asked_to_end_says_how_to_go_on_and_that_works(work: Path, number: int, at: int) -> None:
    process = new_that_waits(at)
    process.send_signal(number)
    code, stderr = finish(process)
    assert code == 128 + number
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == f"harness: ended by {signal.Signals(number).name}"
    wait_until(lambda: not living(), GUARD_SECONDS)
    kept = re.search(r"^harness: (\d+) of (\d+) trials are kept in out\. To go on: (harness run .*)$", stderr, re.M)
    assert kept
    run = load(work)
    assert (int(kept[1]), int(kept[2])) == (len(run.trials) - len(run.missing), len(run.trials))
    assert "the run ended before this trial" in (work / "report.md").read_text(encoding="utf-8")
    name, *arguments = shlex.split(kept[3])
    assert name == "harness"
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=5 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert_whole(work)


def test_a_folder_that_a_run_is_writing_to_is_nobody_elses(work: Path) -> None:
    process = new_that_waits(IN_PARITY)
    try:
        before = (work / "journal.jsonl").read_bytes()
        code, stderr = finish(start("--resume=out"))
        assert (code, stderr) == (2, "harness: 'out' is being written by another run; wait for it to end\n")
        code, stderr = finish(new())
        assert (code, stderr) == (2, "harness: 'out' exists and is not empty; choose another --out or remove it\n")
        assert (work / "journal.jsonl").read_bytes().startswith(before)
    finally:
        process.kill()
        finish(process)
    wait_until(lambda: not living(), GUARD_SECONDS)


@pytest.mark.parametrize("at", [IN_PARITY, IN_LATENCY])
def test_a_folder_that_is_removed_ends_the_run_with_one_clear_line(work: Path, at: int) -> None:
    process = new_that_waits(at)
    wait_until(lambda: _removed(work))
    Path("../go on").touch()
    code, stderr = finish(process)
    assert code == 74
    assert "Traceback" not in stderr
    assert re.match(r"harness: .*'out.*' (was removed|cannot be written)", stderr.splitlines()[-1])
    wait_until(lambda: not living(), GUARD_SECONDS)


@pytest.mark.slow
def test_a_run_whose_disk_is_full_keeps_what_it_has_and_goes_on_when_there_is_room(work: Path) -> None:
    limit = 60_000  # bytes a file may have: enough for run.json, not for the whole journal
    process = new(before=f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    code, stderr = finish(process)
    assert code == 74, stderr
    assert "Traceback" not in stderr
    assert re.match(r"harness: .*'out.*' cannot be written: File too large", stderr.splitlines()[-1])
    wait_until(lambda: not living(), GUARD_SECONDS)
    contents = read_journal(work / "journal.jsonl")
    assert (contents.damage, contents.half_written) == ([], 0)
    assert 0 < len(load(work).missing) < len(load(work).trials)
    code, stderr = finish(start("--resume=out", "--quiet"))
    assert code == 0, stderr
    assert_whole(work)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_may_not_be_written_is_not_gone_on_with(work: Path) -> None:
    process = new_that_waits(IN_PARITY)
    process.kill()
    finish(process)
    (work / "journal.jsonl").chmod(0o444)
    code, stderr = finish(start("--resume=out"))
    assert (code, stderr) == (2, "harness: 'out/journal.jsonl' cannot be written: Permission denied\n")


def _removed(folder: Path) -> bool:
    """Remove a folder into which workers may still be writing."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
