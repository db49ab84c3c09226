"""Workers: whatever a stranger's plugin does to its process, the engine gets an answer and knows how it ended."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from strangers import World

from harness.engine.process import THREAD_VARIABLES, WorkerFailure, WorkerProcess
from harness.engine.worker import MAX_MESSAGE_BYTES, receive, send, serve

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
    "complains": "raise harness.HarnessError('do this instead')",
    "wordy": "raise ValueError('x' * 100_000)",
    "odd-words": "raise ValueError('\\udc80 \\x00 \\U0001f600')",
    "reads": "raise ValueError(repr(sys.stdin.read()) + repr(os.read(0, 1)))",
    "prints": "sys.stdout.write('z' * 3_000_000); print('the end', flush=True); os.write(1, b'and more')"
    "; raise ValueError('done')",
    "closes-stdout": "sys.stdout.close(); os.close(1); raise ValueError('closed')",
    "closes-stderr": "sys.stderr.close(); raise ValueError('closed')",
    "closes-all": "os.closerange(0, 100)",
    "closes-all-and-hangs": "os.closerange(0, 100)\n        while True: time.sleep(1)",
    "hangs": "while True: time.sleep(1)",
    "spins": "while True: pass",
    "leaves-a-child": "subprocess.Popen(['sleep', '600']); os._exit(6)",
    "forks-and-exits": "os.fork() and os._exit(6)\n        while True: time.sleep(1)",
    "tells-threads": "raise ValueError(' '.join(os.environ[name] for name in " + repr(THREAD_VARIABLES) + "))",
    "tells-path": "raise ValueError(os.environ['PYTHONSAFEPATH'])",
}
SOURCE = (
    """
import os, signal, subprocess, sys, time
import harness
from strangers import TINY, PlainSession, plain_model

class Mute(Exception):
    def __str__(self): raise RuntimeError("no")

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
    with WorkerProcess(3, tmp_path / "workers.log") as process:
        yield process


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], WorkerProcess]]:
    """A worker that serves several tests; a new one if a test left it dead."""
    folder = tmp_path_factory.mktemp("lasting")
    workers: list[WorkerProcess] = []

    def get() -> WorkerProcess:
        if not workers or workers[-1]._process.poll() is not None:
            workers.append(WorkerProcess(3, folder / "workers.log"))
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
        ("mute", "failed", "Mute: (its message cannot be shown)"),
        ("leaves", "failed", "SystemExit: enough"),
        ("interrupts", "failed", "KeyboardInterrupt"),
        ("recurses", "failed", "RecursionError: maximum recursion depth exceeded"),
        ("refuses", "unsupported", "not on Sundays"),
        ("complains", "failed", "do this instead"),
        ("wordy", "failed", "ValueError: xxx"),
        ("odd-words", "failed", "ValueError: \udc80 \x00 \U0001f600"),
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


@pytest.mark.parametrize("runtime", ["hangs", "spins", "forks-and-exits"])
def test_a_worker_that_does_not_answer_is_ended_when_the_time_is_up(worker: WorkerProcess, runtime: str) -> None:
    failure = opening(worker, runtime, seconds=2)
    assert (failure.status, failure.alive) == ("timed-out", False)
    assert failure.reason == "'open' took longer than 2 s"


def test_a_worker_that_closes_everything_is_crashed(worker: WorkerProcess) -> None:
    assert opening(worker, "closes-all").status == "crashed"


def test_a_worker_that_closes_everything_and_hangs_does_not_hang_the_engine(worker: WorkerProcess) -> None:
    ended = threading.Event()

    def end() -> None:
        ended.set()
        worker._kill()

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
    with WorkerProcess(3, tmp_path / "here.log") as here:
        assert is_of_use(here)
        assert opening(here, "tells-path").reason.startswith("ValueError: 1 [")


def test_a_worker_that_works_observes_every_case_of_the_grid(lasting: Callable[[], WorkerProcess]) -> None:
    worker = lasting()
    worker.ask("open", PLENTY, key="k", runtime="fine", **VARIANT)
    rows = worker.ask("parity", PLENTY, key="k", shapes=[(1, 5), (32, 5)])
    assert len(rows) == 3 * 12
    assert all(row["rmse"] < 1e-6 for row in rows)
    equations = worker.ask("equations", PLENTY, shapes=[(1, 5), (32, 5)], runtime="fine", **VARIANT)
    assert [(row["case"], row["part"]) for row in equations] == [(row["case"], row["part"]) for row in rows]


def test_an_unknown_name_is_refused_by_the_worker_too(lasting: Callable[[], WorkerProcess]) -> None:
    worker = lasting()
    failure = opening(worker, "fin")
    assert failure.reason.startswith("no runtime is called 'fin'; did you mean")


def test_what_a_worker_started_ends_with_it(worker: WorkerProcess) -> None:
    opening(worker, "leaves-a-child")
    group = worker._process.pid
    children = [process for process in psutil.process_iter() if is_alive(process) and os.getpgid(process.pid) == group]
    assert [child.name() for child in children] == ["sleep"]
    worker.close()
    deadline = time.monotonic() + PLENTY
    while any(is_alive(child) for child in children) and time.monotonic() < deadline:
        pass
    assert not any(is_alive(child) for child in children)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def test_a_worker_can_be_closed_twice(worker: WorkerProcess) -> None:
    worker.close()
    worker.close()


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
