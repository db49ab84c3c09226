"""Workers: whatever a stranger's plugin does to its process, the engine gets an answer and knows how it ended."""

from __future__ import annotations

import errno
import gc
import io
import itertools
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from strangers import World

from harness.engine import timing
from harness.engine.process import THREAD_VARIABLES, Limits, WorkerFailure, WorkerProcess
from harness.engine.protocol import MAX_MESSAGE_BYTES, receive, send, serve
from harness.engine.timing import BOUNDARIES
from harness.engine.watch import Request, Watch
from harness.engine.worker import Worker
from harness.samples import SAMPLE_COLUMNS
from harness.schema import INSTANCE_COLUMNS, PROCESS_COLUMNS

PLENTY = 60.0
VARIANT = {
    "model": "m",
    "size": {"input_size": 2, "hidden_size": 3, "num_layers": 1},
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "cache_dir": None,
}
# what `open` of a runtime does, by the runtime's name
DEEDS = {
    "fine": "return PlainSession(model.build(input_size=2, hidden_size=3, num_layers=1), weights)",
    "exits": "os._exit(5)",
    "exits-well": "os._exit(0)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "segfaults": "import ctypes; ctypes.string_at(0)",
    "rare-signal": "os.kill(os.getpid(), 40)",
    "raises": "raise ValueError('a word\\nand another')",
    "mute": "raise Mute",
    "leaves": "sys.exit('enough')",
    "interrupts": "raise KeyboardInterrupt",
    "recurses": "return self.open(model, weights, options)",
    "refuses": "raise harness.Unsupported('not on Sundays')",
    "lacks-data": "raise harness.DataError('put it there')",
    "finds-no-room": "raise OSError(28, 'No space left on device')",
    "complains": "raise harness.HarnessError('do this instead')",
    "wordy": "raise ValueError('x' * 100_000)",
    "odd-words": "raise ValueError('\\udc80 \\x00 \\x1b[31m \\u202e \\U0001f600')",
    "nameless": "raise Mute from Mute()",
    "deep": "deepest()",
    "wants-memory": "raise MemoryError('too large')",
    "wants-device-memory": "raise FrameworkOutOfMemoryError('2 GiB wanted')",
    "reads": "raise ValueError(repr(sys.stdin.read()) + repr(os.read(0, 1)))",
    "prints": "sys.stdout.write('z' * 3_000_000); print('the end', flush=True); os.write(1, b'and more')"
    "; raise ValueError('done')",
    "closes-stdout": "sys.stdout.close(); os.close(1); raise ValueError('closed')",
    "closes-stderr": "sys.stderr.close(); raise ValueError('closed')",
    "closes-all": "os.closerange(0, 100)",
    "closes-all-and-hangs": "os.closerange(0, 100)\n        while True: time.sleep(1)",
    "hangs": "while True: time.sleep(1)",
    "spins": "while True: pass",
    "sleeps": "time.sleep(1); raise ValueError('slept')",
    "eats": "eat(600)\n        while True: time.sleep(1)",
    "childs-eat": "feed(['eat(200)', 'eat(200)', 'eat(200)'])\n        while True: time.sleep(1)",
    "shares": "share(200, 4); raise ValueError('shared')",
    "eats-later": "threading.Thread(target=eat, args=[600]).start()",
    "prints-later": "threading.Thread(target=prints_on).start()",
    "prints-on": "prints_on()",
    "prints-in-a-child": "subprocess.run([sys.executable, '-c', 'while True: print(123456789)'])",
    "spins-later": "threading.Thread(target=spin, daemon=True).start()",
    "spins-in-a-child": "subprocess.Popen([sys.executable, '-c', 'while True: pass'])",
    "is-killed-by-the-kernel": "open(os.environ['COUNTERS'], 'w').write('oom_kill 6')"
    "; os.kill(os.getpid(), signal.SIGKILL)",
    "tells-score": "raise ValueError(open('/proc/self/oom_score_adj').read())",
    "tells-plugins": "raise ValueError(os.environ.get('HARNESS_PLUGINS', 'any'))",
    "leaves-a-child-with-its-line": "subprocess.Popen(['sleep', '600'], env={}, start_new_session=True, "
    "pass_fds=[n for n in range(64) if is_open(n)]); os._exit(6)",
    "hides-a-child": "hidden = subprocess.Popen(['sleep', '600'], env={}, start_new_session=True); print(hidden.pid, "
    "flush=True); time.sleep(1.5); os._exit(6)",  # longer than from one look to the next
    "leaves-a-child": "subprocess.Popen(['sleep', '600']); os._exit(6)",
    "forks-and-exits": "os.fork() and os._exit(6)\n        while True: time.sleep(1)",
    "tells-threads": "raise ValueError(' '.join(os.environ[name] for name in " + repr(THREAD_VARIABLES) + "))",
    "tells-path": "raise ValueError(os.environ['PYTHONSAFEPATH'])",
    "tells-who": "raise ValueError(os.environ.get('STRANGER_IS', 'nobody'))",
}
SOURCE = (
    """
import os, signal, subprocess, sys, threading, time
import harness
from strangers import TINY, PlainSession, plain_model

class Mute(Exception):
    def __str__(self): raise KeyboardInterrupt
    __repr__ = __str__

class FrameworkOutOfMemoryError(RuntimeError): pass

def deepest(): return deeper()
def deeper(): return deep()
def deep(): raise ValueError("here")

held = []

def eat(mib):
    for _ in range(mib): held.append(b"x" * 2**20)

def feed(meals):
    for meal in meals:
        if not os.fork():
            exec(meal)
            while True: time.sleep(1)

def share(mib, times):
    eat(mib)
    feed(["pass"] * times)
    time.sleep(1.5)  # longer than from one look to the next

def prints_on():
    while True: os.write(2, b"z" * 1000)

def spin():
    while True: pass

def is_open(number):
    try: return bool(os.fstat(number))
    except OSError: return False

class Runtime:
    frameworks = frozenset({"plain"})
    description = ""
    def __init__(self, name): self.name = name

"""
    + "".join(
        f"""
class Runtime{number}(Runtime):
    def open(self, model, weights, options):
        {deed}
"""
        for number, deed in enumerate(DEEDS.values())
    )
    + f"""
@harness.hookimpl
def harness_models(): return [plain_model("m")]

@harness.hookimpl
def harness_tasks(): return [TINY]

@harness.hookimpl
def harness_runtimes():
    return [globals()[f"Runtime{{number}}"](name) for number, name in enumerate({list(DEEDS)!r})]
"""
)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    World(tmp_path / "plugins", monkeypatch).add("deeds", SOURCE)
    with WorkerProcess(3, log=tmp_path / "workers.log") as process:
        yield process


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], WorkerProcess]]:
    """A worker that serves several tests; a new one if a test left it dead."""
    folder = tmp_path_factory.mktemp("lasting")
    workers: list[WorkerProcess] = []

    def get() -> WorkerProcess:
        if not workers or workers[-1]._process.poll() is not None:
            workers.append(WorkerProcess(3, log=folder / "workers.log"))
        return workers[-1]

    with pytest.MonkeyPatch.context() as monkeypatch:
        World(folder / "plugins", monkeypatch).add("deeds", SOURCE)
        yield get
    for worker in workers:
        worker.close()


def opening(worker: WorkerProcess, runtime: str, seconds: float = PLENTY) -> WorkerFailure:
    with pytest.raises(WorkerFailure) as raised:
        worker.ask("open", seconds, key="k", runtime=runtime, **VARIANT)
    return raised.value


def is_of_use(worker: WorkerProcess) -> bool:
    """Whether the worker still opens and checks a session."""
    worker.ask("open", PLENTY, key="k", runtime="fine", **VARIANT)
    return len(worker.ask("parity", PLENTY, key="k", shapes=[])) == 30


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        ("exits", "the worker ended by itself with exit code 5"),
        ("exits-well", "the worker ended by itself with exit code 0"),
        ("killed", "the worker was ended by SIGKILL"),
        ("segfaults", "the worker was ended by SIGSEGV"),
        ("leaves-a-child", "the worker ended by itself with exit code 6"),
    ],
)
def test_a_worker_that_dies_is_crashed_and_says_how(worker: WorkerProcess, runtime: str, reason: str) -> None:
    failure = opening(worker, runtime)
    assert (failure.status, failure.reason, failure.alive) == ("crashed", reason, False)


def test_a_worker_that_was_ended_by_a_signal_without_a_name_is_crashed(worker: WorkerProcess) -> None:
    failure = opening(worker, "rare-signal")
    assert (failure.status, failure.alive) == ("crashed", False)
    assert "40" in failure.reason


def test_a_dead_worker_that_is_asked_again_is_still_crashed(worker: WorkerProcess) -> None:
    opening(worker, "exits")
    failure = opening(worker, "fine")
    assert (failure.status, failure.alive) == ("crashed", False)
    assert "exit code 5" in failure.reason


@pytest.mark.parametrize(
    ("runtime", "status", "reason"),
    [
        ("raises", "failed", "ValueError: a word and another [stranger_deeds.py:"),
        ("mute", "failed", "Mute: (its text cannot be shown) ["),
        ("nameless", "failed", "Mute: (its text cannot be shown) ["),
        ("leaves", "failed", "SystemExit: enough"),
        ("interrupts", "failed", "KeyboardInterrupt"),
        ("recurses", "failed", "RecursionError: maximum recursion depth exceeded"),
        ("refuses", "unsupported", "not on Sundays"),
        ("complains", "failed", "do this instead"),
        ("wordy", "failed", "ValueError: xxx"),
        ("odd-words", "failed", r"ValueError: \udc80 \x00 \x1b[31m \u202e " + "\U0001f600 ["),
        ("wants-memory", "out-of-memory", "MemoryError: too large ["),
        ("wants-device-memory", "out-of-memory", "FrameworkOutOfMemoryError: 2 GiB wanted ["),
        ("reads", "failed", "ValueError: ''b''"),
        ("prints", "failed", "ValueError: done"),
        ("closes-stdout", "failed", "ValueError: closed"),
        ("closes-stderr", "failed", "ValueError: closed"),
    ],
)
def test_an_exception_is_one_line_and_the_worker_lives_on(
    lasting: Callable[[], WorkerProcess], runtime: str, status: str, reason: str
) -> None:
    worker = lasting()
    failure = opening(worker, runtime)
    assert (failure.status, failure.alive) == (status, True)
    assert failure.reason.startswith(reason)
    assert "\n" not in failure.reason
    assert len(failure.reason) <= 1000
    assert is_of_use(worker)


def test_what_plugins_print_and_how_they_failed_is_in_the_log(worker: WorkerProcess, tmp_path: Path) -> None:
    opening(worker, "prints")
    log = (tmp_path / "workers.log").read_text(encoding="utf-8")
    assert log.count("z") >= 3_000_000
    assert "the end\nand more" in log
    assert "Traceback (most recent call last)" in log
    assert "ValueError: done" in log


@pytest.mark.parametrize("runtime", ["hangs", "spins"])
def test_a_worker_that_does_not_answer_is_ended_when_the_time_is_up(worker: WorkerProcess, runtime: str) -> None:
    failure = opening(worker, runtime, seconds=2)
    assert (failure.status, failure.alive) == ("timed-out", False)
    assert failure.reason == "'open' took longer than 2 s"


def test_a_reason_ends_with_the_last_three_places_where_it_was_raised_the_innermost_first(
    lasting: Callable[[], WorkerProcess],
) -> None:
    at = r"stranger_deeds\.py:\d+"
    reason = opening(lasting(), "deep").reason
    assert re.fullmatch(rf"ValueError: here \[{at} in deep < {at} in deeper < {at} in deepest\]", reason)
    assert " in open < " in opening(lasting(), "wordy").reason


def test_it_is_known_what_is_about_data_and_what_the_system_raised(lasting: Callable[[], WorkerProcess]) -> None:
    assert opening(lasting(), "lacks-data").is_data
    assert not opening(lasting(), "refuses").is_data
    assert not opening(lasting(), "raises").is_data
    assert opening(lasting(), "finds-no-room").errno == errno.ENOSPC
    assert opening(lasting(), "raises").errno is None


def test_what_a_worker_left_behind_does_not_keep_its_death_from_being_seen(worker: WorkerProcess) -> None:
    failure = opening(worker, "forks-and-exits")
    assert failure.status == "crashed"
    assert failure.reason == "the worker ended by itself with exit code 6"


def test_a_survivor_that_holds_the_line_does_not_keep_the_engine_waiting(worker: WorkerProcess, tmp_path: Path) -> None:
    failure = opening(worker, "leaves-a-child-with-its-line", seconds=30)
    assert failure.reason == "the worker ended by itself with exit code 6"


def test_a_child_that_hides_from_the_harness_ends_with_the_worker_that_died(worker: WorkerProcess) -> None:
    failure = opening(worker, "hides-a-child")
    assert failure.reason == "the worker ended by itself with exit code 6"
    worker.close()
    assert failure.log
    hidden = int(failure.log.read_text(encoding="utf-8"))
    assert not psutil.pid_exists(hidden) or psutil.Process(hidden).status() == psutil.STATUS_ZOMBIE


def test_a_worker_is_ended_by_the_second_try_if_the_first_was_interrupted(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = psutil.Process(worker._process.pid)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("harness.engine.process_tree.end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.close()
    assert process.is_running()
    worker.close()
    assert not process.is_running()


def test_a_worker_that_closes_everything_is_crashed(worker: WorkerProcess) -> None:
    assert opening(worker, "closes-all").status == "crashed"


def test_a_worker_that_closes_everything_and_hangs_does_not_hang_the_engine(worker: WorkerProcess) -> None:
    ended = threading.Event()

    def end() -> None:
        ended.set()
        worker.close()

    watchdog = threading.Timer(6, end)
    watchdog.start()
    failure = opening(worker, "closes-all-and-hangs", seconds=2)
    watchdog.cancel()
    assert not ended.is_set()
    assert failure.alive is False


def test_every_native_library_is_told_its_threads(lasting: Callable[[], WorkerProcess]) -> None:
    worker = lasting()
    assert opening(worker, "tells-threads").reason.startswith("ValueError: 3 3 3 3 3 3 [")


def test_what_lies_in_the_current_folder_does_not_disturb_a_worker(
    worker: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("harness/__init__.py", "numpy.py", "json.py", "sitecustomize.py"):
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise SystemExit('the wrong one')", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    with WorkerProcess(3, log=tmp_path / "here.log") as here:
        assert is_of_use(here)
        assert opening(here, "tells-path").reason.startswith("ValueError: 1 [")


def test_a_worker_that_works_observes_every_case_of_the_grid(lasting: Callable[[], WorkerProcess]) -> None:
    worker = lasting()
    worker.ask("open", PLENTY, key="k", runtime="fine", **VARIANT)
    rows = worker.ask("parity", PLENTY, key="k", shapes=[(1, 5), (32, 5)])
    assert len(rows) == 3 * 12
    assert all(row["rmse"] < 1e-6 for row in rows)
    request = {"shapes": [(1, 5), (32, 5)], "size": VARIANT["size"], "dtype": "float32", "compute_dtype": "float32"}
    of_the_model, of_the_core = (
        worker.ask("equations", PLENTY, **request, **which) for which in ({"model": "m"}, {"built_in": "lstm"})
    )
    assert of_the_model == of_the_core
    assert [(row["case"], row["part"]) for row in of_the_core] == [(row["case"], row["part"]) for row in rows]


def test_a_worker_runs_in_the_interpreter_that_it_is_given_and_else_in_the_engines(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    other = tmp_path / "other-python"
    other.write_text(f"#!/bin/sh\nSTRANGER_IS=other exec '{sys.executable}' \"$@\"\n", encoding="utf-8")
    other.chmod(0o755)
    with WorkerProcess(3, log=tmp_path / "other.log", python=str(other)) as there:
        assert opening(there, "tells-who").reason.startswith("ValueError: other [")
        assert is_of_use(there)
    assert opening(worker, "tells-who").reason.startswith("ValueError: nobody [")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\nexit 9", "the worker ended by itself with exit code 9"),
        ("#!/bin/sh\necho welcome; exec cat", "the worker's reply cannot be read: a message of 2003135587 bytes"),
        ("#!/bin/sh\nprintf '\\0\\0\\0\\3[1]'; exec cat", "the worker's reply cannot be read: it is no reply"),
        ("#!/bin/sh\nprintf '\\0\\0\\0\\3[1['; exec cat", "the worker's reply cannot be read: Expecting ','"),
        ("#!/bin/sh\nprintf '\\0\\0\\0\\3\\377[]'; exec cat", "the worker's reply cannot be read: 'utf-8' codec"),
        (
            "#!/bin/sh\n"
            """printf '\\0\\0\\0\\102{"error":{"status":"ok","reason":"","is_data":true,"errno":12345}}'; exec cat""",
            "the worker's reply cannot be read: it is no reply",
        ),
    ],
)
def test_an_interpreter_that_is_none_is_crashed_or_failed(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "python"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    with WorkerProcess(1, python=str(path)) as worker, pytest.raises(WorkerFailure) as raised:
        worker.ask("release", PLENTY)
    assert reason in raised.value.reason
    assert raised.value.alive is False


def test_an_unknown_name_is_refused_by_the_worker_too(lasting: Callable[[], WorkerProcess]) -> None:
    worker = lasting()
    failure = opening(worker, "fin")
    assert failure.reason.startswith("no runtime is called 'fin'; did you mean")


def test_a_worker_can_be_closed_twice_and_gives_no_answer_after_that(worker: WorkerProcess) -> None:
    worker.close()
    worker.close()
    failure = opening(worker, "fine")
    assert (failure.status, failure.reason, failure.alive) == ("crashed", "the worker has been closed", False)


def test_a_worker_may_load_the_plugins_that_it_is_told(worker: WorkerProcess) -> None:
    with WorkerProcess(1, plugins=["deeds", "others"]) as told:
        assert opening(told, "tells-plugins").reason.startswith("ValueError: deeds,others [")
    assert opening(worker, "tells-plugins").reason.startswith("ValueError: any [")


# ------------------------------------------------------------------------------------------------------------- limits


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts a worker with limits in MiB."""
    World(tmp_path / "plugins", monkeypatch).add("deeds", SOURCE)
    with ExitStack() as stack:

        def start(memory: float = 8192, output: float = 16, log: Path | None = None) -> WorkerProcess:
            limits = Limits(round(memory * 2**20), round(output * 2**20))
            return stack.enter_context(WorkerProcess(1, limits, log=log or tmp_path / "worker.log"))

        yield start


def failing(worker: WorkerProcess, do: str = "release") -> WorkerFailure:
    """Ask until it fails."""
    deadline = time.monotonic() + PLENTY
    while time.monotonic() < deadline:
        try:
            worker.ask(do, PLENTY)
        except WorkerFailure as failure:
            return failure
    raise AssertionError("it never failed")


@pytest.mark.parametrize("runtime", ["eats", "childs-eat"])
def test_a_worker_that_holds_more_memory_than_is_allowed_is_ended_with_all_that_it_started(
    limited: Callable[..., WorkerProcess], runtime: str
) -> None:
    worker = limited(memory=400)
    failure = opening(worker, runtime)
    assert (failure.status, failure.alive) == ("out-of-memory", False)
    held = re.fullmatch(
        r"the worker held (\S+) GiB of memory; 0.391 GiB is allowed \(worker_memory_gib\)", failure.reason
    )
    assert held
    assert 0.39 < float(held[1]) < 2
    assert not psutil.pid_exists(worker._process.pid)


def test_what_processes_share_is_counted_once(limited: Callable[..., WorkerProcess]) -> None:
    worker = limited(memory=600)
    assert opening(worker, "shares").reason.startswith("ValueError: shared")


def test_a_worker_that_prints_without_end_is_ended_and_its_log_holds_what_is_allowed(
    limited: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    for number, runtime in enumerate(["prints-on", "prints-in-a-child"]):
        log = tmp_path / f"{number}.log"
        failure = opening(limited(output=0.5, log=log), runtime)
        assert (failure.status, failure.alive, failure.log) == ("failed", False, log)
        assert failure.reason == (
            "the worker printed more than 0.5 MiB; make it print less, or allow more (worker_output_mib)"
        )
        assert log.stat().st_size == 2**19


@pytest.mark.parametrize(("runtime", "status"), [("eats-later", "out-of-memory"), ("prints-later", "failed")])
def test_what_a_worker_does_between_requests_is_told_at_the_next(
    limited: Callable[..., WorkerProcess], runtime: str, status: str
) -> None:
    worker = limited(memory=400, output=1)
    with suppress(WorkerFailure):
        worker.ask("open", PLENTY, key="k", runtime=runtime, **VARIANT)
    first, second = failing(worker), failing(worker)
    assert (first.status, first.alive) == (status, False)
    assert "worker_" in first.reason
    assert (second.status, second.reason) == (first.status, first.reason)


def test_a_worker_that_prints_nothing_has_no_log(limited: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    worker = limited()
    assert is_of_use(worker)
    failure = opening(worker, "exits")
    worker.close()
    assert failure.log is None
    assert not (tmp_path / "worker.log").exists()


def test_a_full_disk_costs_what_was_printed_and_nothing_else(limited: Callable[..., WorkerProcess]) -> None:
    worker = limited(log=Path("/dev/full"))
    assert opening(worker, "prints").reason.startswith("ValueError: done")
    assert is_of_use(worker)
    unwritable = limited(output=1, log=Path("/nowhere/worker.log"))
    assert "printed more than 1 MiB" in opening(unwritable, "prints").reason


def test_what_the_kernel_ended_for_want_of_memory_is_no_crash(
    tmp_path: Path, limited: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 7\noom_kill 5\n", encoding="ascii")
    monkeypatch.setenv("COUNTERS", str(counters))
    monkeypatch.setattr("harness.engine.process.KERNEL_COUNTERS", counters)
    failure = opening(limited(), "is-killed-by-the-kernel")
    assert (failure.status, failure.alive) == ("out-of-memory", False)
    assert failure.reason == "the kernel ended the worker for want of memory"
    failure = opening(limited(), "is-killed-by-the-kernel")  # nothing was counted this time
    assert (failure.status, failure.reason) == ("crashed", "the worker was ended by SIGKILL")
    counters.unlink()
    assert opening(limited(), "killed").status == "crashed"


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="this system has no such score")
def test_the_kernel_is_told_to_end_a_worker_before_the_engine(lasting: Callable[[], WorkerProcess]) -> None:
    assert opening(lasting(), "tells-score").reason.startswith("ValueError: 1000 [")


def test_an_engine_that_waits_uses_no_processor(limited: Callable[..., WorkerProcess]) -> None:
    worker = limited()
    assert is_of_use(worker)
    begin, used = time.monotonic(), time.process_time()
    opening(worker, "sleeps")
    assert time.monotonic() - begin >= 1
    assert time.process_time() - used < 0.05


@pytest.mark.parametrize("runtime", ["spins-later", "spins-in-a-child"])
def test_a_worker_that_is_busy_while_nothing_is_asked_of_it_tells_so(
    limited: Callable[..., WorkerProcess], runtime: str
) -> None:
    worker = limited()
    assert is_of_use(worker)
    assert worker.ask("idle", PLENTY)["busy_cores"] < 0.2
    worker.ask("open", PLENTY, key="k2", runtime=runtime, **VARIANT)
    looks = (worker.ask("idle", PLENTY)["busy_cores"] for _ in range(5))  # others may have the cores for a moment
    assert any(busy >= 0.2 for busy in looks)


def test_an_answer_that_comes_as_the_time_is_up_counts_and_so_does_no_later_limit(tmp_path: Path) -> None:
    class Hesitant(Watch):
        def _is_late(self, request: Request) -> bool:
            answered.wait(PLENTY)  # the answer comes just before it is decided
            try:
                return super()._is_late(request)
            finally:
                decided.set()

    answered, decided, ended = threading.Event(), threading.Event(), threading.Event()
    reader, writer = os.pipe()
    with subprocess.Popen(["sleep", "600"]) as process:
        watch = Hesitant(psutil.Process(process.pid), reader, None, 2**40, 2**20, ended.set)
        watch.start()
        watch.begin("answer", 0.01)
        threading.Event().wait(0.05)
        assert watch.finish() is None
        watch.begin("answer the next", PLENTY)
        answered.set()
        assert decided.wait(PLENTY)
        assert watch.finish() is None
        assert not ended.is_set()
        process.kill()
        process.wait()
        watch.close()
    os.close(reader)
    os.close(writer)


# ----------------------------------------------------------------------------------------------------------- messages


def test_a_message_comes_back_as_it_was_sent() -> None:
    messages: list[Any] = [{"a": [1, 2.5, None, "é\n\udc80"]}, [], "x" * 100_000, float("inf")]
    for message in messages:
        stream = io.BytesIO()
        send(stream, message)
        stream.seek(0)
        assert receive(stream) == message


def test_a_message_that_was_cut_off_is_no_message() -> None:
    whole = io.BytesIO()
    send(whole, {"a": 1})
    for length in range(len(whole.getvalue())):
        assert receive(io.BytesIO(whole.getvalue()[:length])) is None


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="a message of 4294967295 bytes"):
        receive(io.BytesIO(b"\xff\xff\xff\xff"))
    assert MAX_MESSAGE_BYTES < 0xFFFFFFFF


def test_a_message_that_is_nested_too_deeply_is_refused() -> None:
    stream = io.BytesIO(struct.pack("!I", 200_000) + b"[" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        receive(stream)


def test_handlers_that_cannot_be_made_are_a_reply_and_are_tried_again() -> None:
    attempts: list[int] = []

    class Handlers:
        def double(self, number: int) -> int:
            return 2 * number

    def make() -> Handlers:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("not yet")
        return Handlers()

    requests, replies = io.BytesIO(), io.BytesIO()
    for number in (1, 2, 3):
        send(requests, {"do": "double", "with": {"number": number}})
    requests.seek(0)
    serve(make, requests, replies)
    replies.seek(0)
    answers: list[Any] = [receive(replies) for _ in range(3)]
    assert answers[0]["error"]["reason"].startswith("RuntimeError: not yet")
    assert answers[1:] == [{"result": 4}, {"result": 6}]
    assert len(attempts) == 2


@pytest.mark.parametrize("value", [np.float32(0.5), Path("x"), {1, 2}, object()], ids=lambda v: type(v).__name__)
def test_a_reply_that_json_does_not_know_is_failed_and_not_taken_for_a_text(value: Any) -> None:
    class Handlers:
        def give(self, what: int) -> Any:
            return [{"a": 1}, {"a": value}][what]

    requests, replies = io.BytesIO(), io.BytesIO()
    for what in (1, 0):
        send(requests, {"do": "give", "with": {"what": what}})
    requests.seek(0)
    serve(Handlers, requests, replies)
    replies.seek(0)
    answers: list[Any] = [receive(replies) for _ in range(3)]
    assert answers[0]["error"]["status"] == "failed"
    assert f"TypeError: Object of type {type(value).__name__} is not JSON serializable" in answers[0]["error"]["reason"]
    assert answers[1:] == [{"result": {"a": 1}}, None]


# -------------------------------------------------------------------------------------------- timing, without a process

DIARY = """
import harness
from strangers import TINY, PlainRuntime, PlainSession, plain_model

opened, diary, stuck = [], [], set()

class Session(PlainSession):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        opened.append(self)
        self.number = len(opened)
    def run(self, prepared):
        diary.append(("run", prepared.x.shape))
        return super().run(prepared)
    def close(self):
        diary.append(("close", self.number))
        if self.number in stuck: raise OSError("not on Sundays")

class Runtime(PlainRuntime):
    def __init__(self): super().__init__("diary")
    def open(self, model, weights, options):
        return Session(model.build(input_size=3, hidden_size=6, num_layers=1), weights)

@harness.hookimpl
def harness_models(): return [plain_model("m")]

@harness.hookimpl
def harness_tasks(): return [TINY]

@harness.hookimpl
def harness_runtimes(): return [Runtime()]
"""
HERE = {**VARIANT, "runtime": "diary", "size": {"input_size": 3, "hidden_size": 6, "num_layers": 1}}
POINT = {"scenario": "single-stream", "batch": 1, "time": 5, "task": "tiny"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker's handlers without a process around them. Collections, which are slow after many tests, do nothing."""
    world = World(tmp_path / "plugins", monkeypatch)
    world.add("diary", DIARY)
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    return Worker()


def diary() -> list[tuple[str, Any]]:
    """What sessions did: ran an input of a shape, or were closed, by the number under which they were opened."""
    found: list[tuple[str, Any]] = sys.modules["stranger_diary"].diary
    return found


def closed() -> list[int]:
    return [number for what, number in diary() if what == "close"]


def test_a_row_of_samples_is_its_points_index_and_then_the_columns_of_the_samples_table(here: Worker) -> None:
    for key in ("k", "k2"):
        here.open(key, **HERE)
    points = [POINT | {"key": "k"}, POINT | {"key": "k", "batch": 4}, POINT | {"key": "k2", "time": 7}]
    reply = here.sample(points, 10, 60.0, seed=1)
    own = [dict(zip(["index", *SAMPLE_COLUMNS[4:]], row, strict=True)) for row in reply["samples"]]
    for index, boundary in itertools.product(range(3), BOUNDARIES):
        counted = [r for r in own if (r["index"], r["boundary"]) == (index, boundary) and r["call"] > 0]
        assert len(counted) == 10
    assert {row["index"] for row in own} == {0, 1, 2}  # the harness's own subjects are no points
    assert {row["block"] for row in own} == {0, 1}
    assert {row["turn"] for row in own} <= set(range(10))
    assert len({(row["block"], row["turn"]) for row in own}) == 12
    assert all(row["elapsed_s"] > 0 and row["disturbed"] in (True, False, None) for row in own)
    assert {shape for what, shape in diary() if what == "run"} == {(1, 5, 3), (4, 5, 3), (1, 7, 3)}
    warm = [dict(zip(["index", *INSTANCE_COLUMNS[4:6]], row, strict=True)) for row in reply["warmup"]]
    assert [row["index"] for row in warm] == [0, 1, 2]
    assert all(10 <= row["warmup_calls"] <= 100 and row["is_steady"] in (True, False) for row in warm)
    runs = Counter(shape for what, shape in diary() if what == "run")
    repeats = 6
    assert list(runs.values()) == [row["warmup_calls"] + 2 * 2 * 6 + repeats for row in warm]
    assert reply["work"] == [(1, 5), (4, 20), (1, 7)]
    assert [len(own["outputs"]) > 0 and own["repeated_s"] > 0 for own in reply["evidence"]] == [True] * 3


@pytest.mark.parametrize("boundaries", [["compute"], ["end-to-end"], ["compute", "end-to-end"], None])
def test_a_worker_samples_the_boundaries_that_are_asked_for_and_else_both(
    here: Worker, boundaries: list[str] | None
) -> None:
    here.open("k", **HERE)
    reply = here.sample([POINT | {"key": "k"}], 10, 60.0, 1, boundaries)
    assert {row[1] for row in reply["samples"]} == set(boundaries or BOUNDARIES)


def test_what_a_process_tells_at_the_end_fills_the_table_of_processes(here: Worker) -> None:
    here.start_timing()
    here.open("k", **HERE)
    for seed in (1, 2):
        here.sample([POINT | {"key": "k"}], 10, 60.0, seed)
    told = here.finish_timing()
    assert {"slice", "process", "task", "runtime", "python", "trial", *told} == set(PROCESS_COLUMNS)
    assert told["overhead_s"] > 0
    assert told["overhead_end_to_end_s"] > 0
    assert told["canary_s"] > 0
    assert 0 <= told["disturbed_share"] <= 1


def test_a_process_tells_the_median_of_what_was_counted_of_canary_and_empty_calls(
    here: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(subjects: Any, *_: Any) -> Any:
        assert [subject.key for subject in subjects] == ["canary", "empty"]
        given = [("canary", "compute", 100.0), ("empty", "compute", 1.0), ("empty", "end-to-end", 2.0)]
        given += [("canary", "end-to-end", 900.0)]
        values = [(key, boundary, 0, 5000.0) for key, boundary, _ in given]  # call 0 follows another's turn
        values += [(key, boundary, call, value + call) for key, boundary, value in given for call in (1, 2, 9)]
        made = [timing.Sample(k, b, 6, 0, call, 1e9, value, call == 9) for k, b, call, value in values]
        return made, [timing.WarmUp("canary", 10, True), timing.WarmUp("empty", 10, True)], {}

    monkeypatch.setattr(timing, "sample", sample)
    monkeypatch.setattr("harness.engine.noise.gc_collections", iter([100, 200]).__next__)
    here.start_timing()
    assert (
        here.sample([], 10, 60.0, 1)
        == here.sample([], 10, 60.0, 2)
        == {
            "samples": [],
            "warmup": [],
            "evidence": [],
            "work": [],
            "clock": "host",
        }
    )
    told = here.finish_timing()
    assert (told["canary_s"], told["overhead_s"], told["overhead_end_to_end_s"]) == (102.0, 3.0, 4.0)
    assert told["disturbed_share"] == 0.25  # of all calls
    assert told["gc_collections"] == 100 - 2 * 7  # a collection before each block is the harness's own


def test_the_collection_before_each_load_is_the_harnesss_own(here: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engine.noise.gc_collections", iter([100, 110]).__next__)
    here.open("k", **HERE)
    here.start_timing()
    load = {"scenario": "server", "amount": 1e5, "requests": 5, "period_s": 0.0, "window_s": 0.0, "most_batch": 1}
    for seed in (1, 2):
        here.under_load("k", 5, load | {"seed": seed})
    assert here.finish_timing()["gc_collections"] == 8


def test_a_process_that_timed_nothing_tells_so(here: Worker) -> None:
    here.start_timing()
    told = here.finish_timing()
    for name in ("canary_s", "overhead_s", "overhead_end_to_end_s", "disturbed_share"):
        assert told[name] is None
    assert told["seconds"] >= 0


def test_releasing_closes_every_session_once_the_last_opened_first_and_forgets_it(here: Worker) -> None:
    for key in ("k", "k2"):
        here.open(key, **HERE)
    here.sample([POINT | {"key": "k", "scenario": "training-step", "batch": 8}], 10, 60.0, 1)
    assert len(here.timed_trainer("k", "tiny")) == 2
    here.release()
    assert closed() == [2, 1]
    with pytest.raises(KeyError):
        here.sample([POINT | {"key": "k"}], 10, 60.0, 1)
    here.release()
    assert closed() == [2, 1]
    here.open("k", **HERE)
    with pytest.raises(KeyError):  # nor is there a trainer left from before
        here.timed_trainer("k", "tiny")


def test_a_session_that_cannot_be_closed_is_told_of_and_the_others_are_closed(
    here: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("k", "k2", "k3"):
        here.open(key, **HERE)
    monkeypatch.setattr(sys.modules["stranger_diary"], "stuck", {2})
    here.release()
    assert closed() == [3, 2, 1]
    assert "OSError: not on Sundays" in capsys.readouterr().err
    here.release()
    assert closed() == [3, 2, 1]


def test_every_instance_is_opened_beside_other_allocations_whatever_seed_a_plugin_sets(here: Worker) -> None:
    """So that no memory layout is the only one that is ever measured."""
    sizes: list[list[int]] = []
    for _ in range(2):
        random.seed(1)
        here.open("k", **HERE)
        sizes.append([len(piece) for piece in here._ballast][-8:])
        here.release()
    assert len(here._ballast) == 16
    assert sizes[0] != sizes[1]
