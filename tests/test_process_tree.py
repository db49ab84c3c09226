"""What a worker starts ends with it, and workers end with their engine, however they try to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from strangers import World

from harness.engine import process_tree
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.engine.process_tree import VARIABLE, Guardian, end_marked

PLENTY = 60.0
VARIANT = {
    "model": "m",
    "size": {"input_size": 2, "hidden_size": 3, "num_layers": 1},
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "cache_dir": None,
}
# Each runtime starts a process in its own way to leave the worker's reach, which writes its number to a file.
SOURCE = """
import os, signal, subprocess, sys, time
import harness
from strangers import plain_model

SLEEPER = "import os, sys, time; open(sys.argv[1] + str(os.getpid()), 'w').close(); time.sleep(600)"
PLACE = os.environ["PLACE"] + "/"

def sleep(**options):
    return subprocess.Popen([sys.executable, "-S", "-c", SLEEPER, PLACE], **options)

def write_and_sleep():
    open(PLACE + str(os.getpid()), "w").close()
    time.sleep(600)
    os._exit(0)

def ignore_signals():
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)

def detached():
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        write_and_sleep()

WAYS = {
    "child": sleep,
    "own-session": lambda: sleep(start_new_session=True),
    "own-session-and-environment": lambda: sleep(start_new_session=True, env={"PATH": os.environ["PATH"]}),
    "double-fork": detached,
    "own-environment": lambda: sleep(env={"PATH": os.environ["PATH"]}),
    "child-that-ignores-signals": lambda: sleep(preexec_fn=ignore_signals),
}

class Runtime:
    frameworks = frozenset({"plain"})
    description = ""
    def __init__(self, name): self.name = name
    def open(self, model, weights, options):
        before = len(os.listdir(PLACE))
        WAYS[self.name]()
        while len(os.listdir(PLACE)) == before: time.sleep(0.01)
        if os.environ.get("THEN") == "die": os._exit(3)
        while os.environ.get("THEN") == "hang": pass

@harness.hookimpl
def harness_models(): return [plain_model("m")]

@harness.hookimpl
def harness_runtimes(): return [Runtime(name) for name in WAYS]
"""
WAYS = [
    *("child", "own-session", "own-session-and-environment", "double-fork", "own-environment"),
    "child-that-ignores-signals",
]
ENGINE = f"""
import sys, threading
from harness.engine.process import WorkerProcess

def ask(way):
    with WorkerProcess(1) as worker:
        worker.ask("open", 600.0, key="k", runtime=way, **{VARIANT})

threads = [threading.Thread(target=ask, args=[way]) for way in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where every process that a plugin starts leaves its number."""
    World(tmp_path / "plugins", monkeypatch).add("ways", SOURCE)
    folder = tmp_path / "numbers"
    folder.mkdir()
    monkeypatch.setenv("PLACE", str(folder))
    return folder


@pytest.fixture
def sleeping() -> Iterator[Callable[[str], psutil.Process]]:
    """Starts a process that carries a mark."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mark: str) -> psutil.Process:
        started.append(subprocess.Popen(["sleep", "600"], env={**os.environ, VARIABLE: mark}))
        return psutil.Process(started[-1].pid)

    yield start
    for process in started:
        process.kill()
        process.wait()


def is_alive(process: psutil.Process) -> bool:
    return not process_tree.is_over(process)


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PLENTY
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def numbers_in(place: Path) -> set[int]:
    return {int(path.name) for path in place.iterdir()}


def starting(worker: WorkerProcess, way: str, place: Path) -> psutil.Process:
    """What a worker starts when it opens a session."""
    before = numbers_in(place)
    worker.ask("open", PLENTY, key="k", runtime=way, **VARIANT)
    (number,) = numbers_in(place) - before
    return psutil.Process(number)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_worker_started_ends_when_it_is_closed(place: Path, way: str) -> None:
    with WorkerProcess(1) as worker:
        started = starting(worker, way, place)
        assert is_alive(started)
    assert wait_until(lambda: not is_alive(started))


@pytest.mark.parametrize("way", WAYS)
def test_what_a_worker_started_ends_with_it_when_it_dies_right_after(
    place: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEN", "die")
    monkeypatch.setattr("harness.engine.watch.LOOKS", (PLENTY, PLENTY))  # nobody looks meanwhile
    with WorkerProcess(1) as worker:
        with pytest.raises(WorkerFailure, match="exit code 3"):
            starting(worker, way, place)
        (number,) = numbers_in(place)
        assert wait_until(lambda: not psutil.pid_exists(number) or not is_alive(psutil.Process(number)))


def test_what_other_workers_and_other_engines_started_is_left_alone(
    place: Path, sleeping: Callable[[str], psutil.Process]
) -> None:
    strangers = sleeping("of-another-engine.1")
    with WorkerProcess(1) as first:
        of_first = starting(first, "double-fork", place)
        with WorkerProcess(1) as second:
            of_second = starting(second, "double-fork", place)
        assert wait_until(lambda: not is_alive(of_second))
        assert is_alive(of_first)
        assert first.ask("release", PLENTY) == {}
    assert wait_until(lambda: not is_alive(of_first))
    assert is_alive(strangers)


def test_a_mark_means_itself_and_all_with_a_number_behind_it(sleeping: Callable[[str], psutil.Process]) -> None:
    first, eleventh, other = sleeping("ours.1"), sleeping("ours.11"), sleeping("ours2.1")
    end_marked("ours.1")
    assert [is_alive(process) for process in (first, eleventh, other)] == [False, True, True]
    end_marked("ours")
    assert [is_alive(process) for process in (first, eleventh, other)] == [False, False, True]


def test_nobody_ends_itself() -> None:
    script = "from harness.engine.process_tree import end_marked; end_marked('ours'); print('still here')"
    told = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, VARIABLE: "ours.1"}, capture_output=True, text=True
    )
    assert (told.returncode, told.stdout) == (0, "still here\n")


# ------------------------------------------------------------------------------------------------------- the guardian


def engine(*ways: str) -> subprocess.Popen[bytes]:
    """An engine of its own, whose workers are each asked for one thing; it stays until its input ends."""
    return subprocess.Popen([sys.executable, "-c", ENGINE, *ways], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def guardian_of(process: psutil.Process) -> psutil.Process:
    (found,) = (child for child in process.children() if "process_tree" in " ".join(child.cmdline()))
    return found


def test_an_engine_that_is_killed_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEN", "hang")
    ways = ["child", "own-session", "double-fork"]
    with engine(*ways) as process:
        assert wait_until(lambda: len(numbers_in(place)) == len(ways))
        everything = psutil.Process(process.pid).children(recursive=True)
        everything += [psutil.Process(number) for number in numbers_in(place)]
        assert len({*everything}) >= 1 + 2 * len(ways)  # the guardian, and each worker with what it started
        process.kill()
    assert wait_until(lambda: not any(map(is_alive, everything)))


def test_an_engine_that_ends_takes_its_guardian_with_it(place: Path) -> None:
    with engine("child") as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == b"done\n"
        guardian = guardian_of(psutil.Process(process.pid))
        process.stdin.close()
        assert process.wait(PLENTY) == 0
        assert not is_alive(guardian)


def test_a_guardian_waits_asleep_and_takes_no_signal_for_its_engine_s_end(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "of-an-engine-around-this-one.1")
    with engine("child") as process:
        assert process.stdout
        assert process.stdout.readline() == b"done\n"
        guardian = guardian_of(psutil.Process(process.pid))
        assert VARIABLE not in guardian.environ()
        assert os.getsid(guardian.pid) == guardian.pid
        used = guardian.cpu_times()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            guardian.send_signal(number)
        assert wait_until(lambda: guardian.status() == psutil.STATUS_SLEEPING)
        assert guardian.cpu_times().user - used.user < 0.1
        process.kill()
    assert wait_until(lambda: not is_alive(guardian))


def test_every_worker_has_a_mark_of_its_own_and_a_guardian_that_was_ended_is_replaced() -> None:
    guardian = Guardian()
    here = psutil.Process()
    before = {*here.children()}
    first = guardian.new_mark()
    (process,) = {*here.children()} - before
    second = guardian.new_mark()
    assert {*here.children()} - before == {process}
    process.kill()
    assert wait_until(lambda: not is_alive(process))
    third = guardian.new_mark()
    (another,) = {*here.children()} - before - {process}
    assert len({first, second, third}) == 3
    assert len({mark.rpartition(".")[0] for mark in (first, second, third)}) == 1
    guardian.dismiss()
    assert not is_alive(another)
    guardian.dismiss()
