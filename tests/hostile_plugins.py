"""The gallery: what plugins do that nobody would wish for, each a plugin of its own, and what must become of it.

A deed gets what its place gives (the layer that was built, the outputs of a call) and gives back what the harness is to
get. In every other respect the plugin is right.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil
from strangers import CALLS_BEFORE_TIMING, TINY, PlainLayer, PlainRuntime, PlainSession, PlainTrainer, World

import harness
from harness import LSTM, Inputs, LayerSize, Model, Outputs, Recipe, ReportFormat, SessionOptions, Split, Task

if TYPE_CHECKING:
    import pytest  # not imported where a worker imports this

    from harness import Run
    from harness.contract import FloatArray, TaskKind

T = TypeVar("T")
SOURCE = """
import harness
from hostile_plugins import GALLERY

plugin = GALLERY[{name!r}]
plugin.at("import", None)

@harness.hookimpl
def harness_models():
    return plugin.at("hook", plugin.models())

@harness.hookimpl
def harness_runtimes():
    return plugin.runtimes()

@harness.hookimpl
def harness_tasks():
    return plugin.tasks()

@harness.hookimpl
def harness_report_formats():
    return plugin.report_formats()
"""
OF_A_RUNTIME = ("open", "prepare", "run", "fetch", "close", "initial_weights", "open_trainer", "step", "weights")
NOT_LOADED = "not loaded"
FORMULA = "=cmd()|'/c calc'!A0 <script>alert(1)</script>\n\x1b[2J\u202e| a | b |"
MARKUP = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Hostile:
    """A plugin and what is to become of it.

    Attributes:
        name: the plugin's and its model's; also its runtime's, if the place is a runtime's, and its task's.
        place: where the deed is done: `import`, `hook`, `build`, `call` (of the layer, on the innocents' runtime),
            `late call` (not before it is timed), `load` (of a task's data), `write` (of a report format, into a folder)
            or one of `OF_A_RUNTIME`.
        deed: what is done there.
        status: that of its trials, or `NOT_LOADED`; of a report format, what is said of it, or `ok`.
        reason: a pattern of the reason.
        kind: the first kind of trial that shows it.
    """

    name: str
    place: str
    deed: Callable[[Any], Any]
    status: str
    reason: str
    kind: str

    def at(self, place: str, value: T) -> T:
        """What the harness gets from this place instead of the value; often something else than its type says."""
        given: T = self.deed(value) if place == self.place else value
        return given

    def add_to(self, world: World) -> None:
        """Install the plugin."""
        world.add(self.name, SOURCE.format(name=self.name))

    def models(self) -> list[Model]:
        if self.place in ("load", "write"):
            return []
        framework = self.name if self.place in OF_A_RUNTIME else "plain"
        return [Model(self.name, LSTM, framework, partial(HostileLayer, self))]

    def runtimes(self) -> list[PlainRuntime]:
        return (
            [HostileRuntime(self.name, frozenset({self.name}), MARKUP, plugin=self)]
            if self.place in OF_A_RUNTIME
            else []
        )

    def tasks(self) -> list[Task]:
        if self.place != "load":
            return []
        return [replace(TINY, name=self.name, load=lambda folder: self.at("load", TINY.load(folder)))]

    def report_formats(self) -> list[ReportFormat]:
        return [ReportFormat(self.name, MARKUP, self.write)] if self.place == "write" else []

    def write(self, run: Run, folder: Path) -> None:
        (folder / "half.txt").write_text("half", encoding="utf-8")
        self.at("write", folder)


class HostileLayer(PlainLayer):
    def __init__(self, plugin: Hostile, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__("", input_size, hidden_size, num_layers)
        self._plugin = plugin
        plugin.at("build", self)

    def __call__(self, weights: Mapping[str, FloatArray], inputs: Inputs) -> Outputs:
        outputs = self._plugin.at("call", super().__call__(weights, inputs))
        return outputs if self.calls <= CALLS_BEFORE_TIMING else self._plugin.at("late call", outputs)


@dataclass(frozen=True)
class HostileRuntime(PlainRuntime):
    plugin: Hostile = field(kw_only=True)

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> PlainSession:
        session = super().open(model, weights, options)
        return self.plugin.at("open", HostileSession(self.plugin, session._layer, session._weights))

    def open_trainer(
        self, model: Model, weights: Mapping[str, FloatArray], kind: TaskKind, recipe: Recipe, options: SessionOptions
    ) -> PlainTrainer:
        trainer = HostileTrainer(weights, kind, recipe)
        trainer.plugin = self.plugin
        return self.plugin.at("open_trainer", trainer)

    def initial_weights(self, model: Model, size: LayerSize, seed: int) -> Mapping[str, FloatArray]:
        return self.plugin.at("initial_weights", super().initial_weights(model, size, seed))


class HostileSession(PlainSession):
    def __init__(self, plugin: Hostile, layer: PlainLayer, weights: Mapping[str, FloatArray]) -> None:
        super().__init__(layer, weights)
        self._plugin = plugin

    def prepare(self, inputs: Inputs) -> Inputs:
        return self._plugin.at("prepare", inputs)

    def run(self, prepared: Inputs) -> Outputs:
        return self._plugin.at("run", super().run(prepared))

    def fetch(self, raw: Outputs) -> Outputs:
        return self._plugin.at("fetch", raw)

    def close(self) -> None:
        self._plugin.at("close", None)


class HostileTrainer(PlainTrainer):
    plugin: Hostile

    def step(self, prepared: Split) -> float:
        return self.plugin.at("step", super().step(prepared))

    def weights(self) -> dict[str, FloatArray]:
        return self.plugin.at("weights", super().weights())


GALLERY: dict[str, Hostile] = {}


def hostile(
    place: str, status: str, reason: str = "", *, kind: str = "parity", name: str = ""
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Hang a deed in the gallery, under its function's name if it has no other."""

    def hang(deed: Callable[[Any], Any]) -> Callable[[Any], Any]:
        title = name or deed.__name__.replace("_", "-")
        assert title not in GALLERY
        GALLERY[title] = Hostile(title, place, deed, status, reason, kind)
        return deed

    return hang


# How a process ends


@hostile("call", "crashed", "SIGSEGV")
@hostile("late call", "crashed", "SIGSEGV", kind="latency", name="segfaults-while-timed")
@hostile("import", NOT_LOADED, "crashed: .*SIGSEGV", name="segfaults-at-import")
@hostile("hook", NOT_LOADED, "crashed: .*SIGSEGV", name="segfaults-in-its-hook")
@hostile("build", "crashed", "SIGSEGV", name="segfaults-in-build")
@hostile("step", "crashed", "SIGSEGV", kind="accuracy", name="segfaults-in-training")
@hostile("load", "crashed", "SIGSEGV", name="segfaults-in-load")
@hostile("write", "crashed", "SIGSEGV", name="segfaults-in-write")
def segfaults(value: Any) -> Any:
    return ctypes.string_at(0)


@hostile("call", "crashed", "SIGABRT")
def aborts(value: Any) -> Any:
    os.abort()


@hostile("call", "crashed", "SIGKILL")
def kills_itself(value: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@hostile("call", "crashed", "exit code 3")
@hostile("import", NOT_LOADED, "crashed: .*exit code 3", name="leaves-at-import")
@hostile("open", "crashed", "exit code 3", name="leaves-in-open")
@hostile("close", "crashed", "exit code 3", kind="accuracy", name="leaves-in-close")
@hostile("step", "crashed", "exit code 3", kind="accuracy", name="leaves-in-training")
@hostile("load", "crashed", "exit code 3", name="leaves-in-load")
@hostile("write", "crashed", "exit code 3", name="leaves-in-write")
def leaves(value: Any) -> Any:
    os._exit(3)


@hostile("call", "crashed", "exit code 0")
@hostile("write", "crashed", "exit code 0", name="leaves-in-write-as-if-all-were-well")
def leaves_as_if_all_were_well(value: Any) -> Any:
    os._exit(0)


@hostile("call", "failed", "SystemExit: 3")
@hostile("import", NOT_LOADED, "SystemExit: 3", name="asks-to-leave-at-import")
@hostile("open", "failed", "SystemExit: 3", name="asks-to-leave-in-open")
@hostile("write", "failed", "SystemExit: 3", name="asks-to-leave-in-write")
def asks_to_leave(value: Any) -> Any:
    sys.exit(3)


@hostile("call", "crashed", "")
def closes_every_file(value: Any) -> Any:
    os.closerange(0, 256)
    return value


# Work without end


@hostile("call", "timed-out", "took longer than")
@hostile("write", "timed-out", "it took longer than", name="loops-in-write")
def loops(value: Any) -> Any:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


@hostile("call", "timed-out", "took longer than")
def loops_in_native_code(value: Any) -> Any:
    return re.match(r"(a+)+$", 64 * "a" + "b")  # tries 2**64 ways and never gives up the interpreter's lock


@hostile("call", "timed-out", "took longer than")
@hostile("write", "timed-out", "it took longer than", name="sleeps-in-native-code-in-write")
def sleeps_in_native_code(value: Any) -> Any:
    ctypes.PyDLL(None).pause()  # keeps the interpreter's lock


@hostile("call", "timed-out", "took longer than")
def sleeps(value: Any) -> Any:
    while True:
        time.sleep(3600)


@hostile("call", "timed-out", "took longer than")
def stops(value: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)


@hostile("call", "out-of-memory", "worker_memory_gib")
@hostile("initial_weights", "out-of-memory", "worker_memory_gib", kind="accuracy", name="allocates-in-training")
def allocates(value: Any) -> Any:
    kept = []
    while True:
        kept.append(np.ones(2**20))


@hostile("call", "failed", "RecursionError")
def recurses(value: Any) -> Any:
    return recurses(value)


@hostile("call", "failed", "worker_output_mib")
@hostile("write", "failed", "worker_output_mib", name="prints-a-gigabyte-in-write")
def prints_a_gigabyte(value: Any) -> Any:
    for _ in range(1024):
        print(2**20 * "z")
    return value


@hostile("call", "failed", "worker_output_mib")
def prints_a_gigabyte_past_python(value: Any) -> Any:
    for _ in range(1024):
        os.write(2, 2**20 * b"z")
    return value


@hostile("hook", NOT_LOADED, "more than 1000")
def gives_models_without_end(models: list[Model]) -> Iterator[Model]:
    while True:
        yield from models


# Exceptions


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class LeavingError(Exception):
    def __str__(self) -> str:
        sys.exit(4)

    __repr__ = __str__


class OutOfMemoryError(RuntimeError):
    """As frameworks call theirs."""


@hostile("call", "failed", r"ValueError: no .*hostile_plugins\.py:\d+ in raises")
@hostile("import", NOT_LOADED, "ValueError: no", name="raises-at-import")
@hostile("hook", NOT_LOADED, "ValueError: no", name="raises-in-its-hook")
@hostile("build", "failed", "ValueError: no", name="raises-in-build")
@hostile("open", "failed", "ValueError: no", name="raises-in-open")
@hostile("prepare", "failed", "ValueError: no", name="raises-in-prepare")
@hostile("run", "failed", "ValueError: no", name="raises-in-run")
@hostile("fetch", "failed", "ValueError: no", name="raises-in-fetch")
@hostile("close", "failed", "ValueError: no", kind="accuracy", name="raises-in-close")
@hostile("initial_weights", "failed", "ValueError: no", kind="accuracy", name="raises-in-initial-weights")
@hostile("open_trainer", "failed", "ValueError: no", kind="accuracy", name="raises-in-open-trainer")
@hostile("step", "failed", "ValueError: no", kind="accuracy", name="raises-in-training")
@hostile("weights", "failed", "ValueError: no", kind="accuracy", name="raises-in-weights")
@hostile("load", "failed", "ValueError: no", name="raises-in-load")
@hostile("write", "failed", "ValueError: no", name="raises-in-write")
def raises(value: Any) -> Any:
    raise ValueError("no")


@hostile("call", "failed", "MuteError")
@hostile("import", NOT_LOADED, "MuteError", name="raises-what-cannot-be-shown-at-import")
@hostile("write", "failed", "MuteError", name="raises-what-cannot-be-shown-in-write")
def raises_what_cannot_be_shown(value: Any) -> Any:
    raise MuteError


@hostile("call", "failed", "LeavingError")
def raises_what_leaves_when_shown(value: Any) -> Any:
    raise LeavingError


@hostile("call", "failed", "KeyboardInterrupt")
@hostile("import", NOT_LOADED, "KeyboardInterrupt", name="interrupts-at-import")
@hostile("write", "failed", "KeyboardInterrupt", name="interrupts-in-write")
def interrupts(value: Any) -> Any:
    raise KeyboardInterrupt


@hostile("call", "out-of-memory", "MemoryError")
def raises_for_want_of_memory(value: Any) -> Any:
    return np.ones(2**50)


@hostile("call", "out-of-memory", "OutOfMemoryError: no room")
def raises_as_frameworks_do(value: Any) -> Any:
    raise OutOfMemoryError("no room")


@hostile("call", "failed", "ValueError: zzz")
def raises_a_book(value: Any) -> Any:
    raise ValueError(10_000_000 * "z")


@hostile("open", "unsupported", re.escape("=cmd()|'/c calc'!A0 <script>"))
def refuses_with_a_formula(value: Any) -> Any:
    raise harness.Unsupported(FORMULA)


@hostile("call", "failed", re.escape("=cmd()|'/c calc'!A0 <script>"))
@hostile("write", "failed", re.escape("=cmd()|'/c calc'!A0 <script>"), name="raises-a-formula-in-write")
def raises_a_formula(value: Any) -> Any:
    raise type(FORMULA, (Exception,), {})(FORMULA)


# Wrong answers


@hostile("call", "wrong", "not finite")
@hostile("late call", "wrong", "after timing: .*not finite", kind="latency", name="answers-nan-while-timed")
def answers_nan(outputs: Outputs) -> Outputs:
    outputs.y[...] = np.nan
    return outputs


@hostile("call", "wrong", "shape")
def answers_in_another_shape(outputs: Outputs) -> Outputs:
    return Outputs(outputs.y[:, :0], outputs.state)


@hostile("call", "wrong", "dtype float64 instead of float32")
def answers_in_another_dtype(outputs: Outputs) -> Outputs:
    return Outputs(outputs.y.astype(np.float64), outputs.state)


@hostile("call", "wrong", "dtype object instead of float32")
def answers_with_objects(outputs: Outputs) -> Outputs:
    return Outputs(outputs.y.astype(object), outputs.state)


@hostile("call", "failed", "NoneType")
def answers_nothing(outputs: Outputs) -> None:
    return None


@hostile("call", "failed", "generator")
def answers_a_generator(outputs: Outputs) -> Any:
    return (part for part in outputs.state)


@hostile("call", "failed", "lock")
def answers_what_cannot_be_pickled(outputs: Outputs) -> Any:
    return threading.Lock()


@hostile("call", "wrong", "a function instead of an array")
def answers_with_a_function(outputs: Outputs) -> Outputs:
    return Outputs(lambda: outputs.y, outputs.state)  # type: ignore[arg-type]


@hostile("call", "failed", "0 state arrays")
def answers_without_a_state(outputs: Outputs) -> Outputs:
    return Outputs(outputs.y, ())


@hostile("open", "failed", "NoneType")
def opens_nothing(session: Any) -> None:
    return None


@hostile("prepare", "failed", "changed its inputs")
def changes_its_inputs(inputs: Inputs) -> Inputs:
    inputs.x[...] = 0
    return inputs


@hostile("weights", "failed", "", kind="accuracy")
def gives_no_weights(weights: Any) -> None:
    return None


@hostile("step", "failed", "", kind="accuracy")
def loses_a_text(loss: float) -> str:
    return "a loss"


# What others share


@hostile("call", "ok")
@hostile("import", "ok", name="moves-house-at-import")
@hostile("step", "ok", name="moves-house-in-training")
@hostile("write", "ok", name="moves-house-in-write")
def moves_house(value: Any) -> Any:
    os.chdir("/")
    os.umask(0o777)
    return value


@hostile("call", "ok")
@hostile("import", "ok", name="ignores-signals-at-import")
def ignores_signals(value: Any) -> Any:
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
    return value


@hostile("call", "ok")
def blocks_signals(value: Any) -> Any:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return value


@hostile("call", "ok")
def sets_an_alarm(value: Any) -> Any:
    signal.alarm(2)
    return value


@hostile("call", "ok")
def closes_its_output(value: Any) -> Any:
    if not sys.stdout.closed:
        sys.stdout.close()
        sys.stderr.close()
        os.closerange(0, 3)
    return value


@hostile("call", "ok")
def replaces_its_output(value: Any) -> Any:
    sys.stdout = sys.stderr = io.StringIO()
    return value


@hostile("call", "ok")
def prints_what_moves_the_cursor(value: Any) -> Any:
    print("\x1b[2J\x00\u202e" + FORMULA)
    os.write(1, bytes(range(256)))
    return value


@hostile("call", "ok")
def upsets_numpy(value: Any) -> Any:
    np.seterr(all="raise")
    return value


@hostile("late call", "wrong", "after timing", kind="latency")
def breaks_numpy(value: Any) -> Any:
    np.tanh = np.sinh  # type: ignore[assignment]
    return value


@hostile("call", "ok")
def clears_the_environment(value: Any) -> Any:
    os.environ.clear()
    os.environ["OMP_NUM_THREADS"] = "64"
    return value


@hostile("call", "ok")
def makes_warnings_errors(value: Any) -> Any:
    warnings.simplefilter("error")
    return value


@hostile("call", "ok")
def keeps_garbage(value: Any) -> Any:
    gc.disable()
    gc.set_threshold(1)
    return value


@hostile("call", "ok")
def seeds_everybody(value: Any) -> Any:
    random.seed(0)
    np.random.seed(0)
    return value


@hostile("call", "ok")
def forbids_recursion(value: Any) -> Any:
    sys.setrecursionlimit(60)
    return value


@hostile("call", "ok")
def traces(value: Any) -> Any:
    sys.settrace(lambda *_: None)
    return value


@hostile("call", "ok")
def empties_the_path(value: Any) -> Any:
    sys.path.clear()
    return value


@hostile("late call", "failed", "Too many open files", kind="latency")
def forbids_files(value: Any) -> Any:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return value


# What goes on afterwards


@hostile("call", "failed", "cores are busy")
@hostile("late call", "failed", "cores are busy", kind="latency", name="spins-on-once-timed")
def spins_on(value: Any) -> Any:
    def spin() -> None:
        while True:
            zlib.crc32(zeros)

    zeros = bytes(2**20)
    if threading.active_count() == 1:
        for _ in range(4):  # so many that even a busy machine lets them spin
            threading.Thread(target=spin, daemon=True).start()
    return value


@hostile("call", "failed", "cores are busy")
def spins_on_in_a_child(value: Any) -> Any:
    if not psutil.Process().children():
        for _ in range(4):
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
    return value


@hostile("call", "ok")
@hostile("write", "ok", name="leaves-children-in-write")
def leaves_children(value: Any) -> Any:
    if psutil.Process().children():
        return value
    subprocess.Popen(["sleep", "3600"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)
    return value


@hostile("build", "ok")
def hides_a_child(value: Any) -> Any:
    marked_for_the_test = {"HARNESS_TEST_FOLDER": os.environ["HARNESS_TEST_FOLDER"]}
    subprocess.run(["/bin/sh", "-c", "sleep 3600 &"], env=marked_for_the_test, start_new_session=True, check=True)
    return value


@hostile("build", "ok")
def doubles_itself(value: Any) -> Any:
    os.fork()  # now two of them answer
    return value


@hostile("call", "ok")
def never_ends(value: Any) -> Any:
    if threading.active_count() == 1:
        atexit.register(sleeps, None)
        threading.Thread(target=sleeps, args=(None,)).start()
    return value


# What the harness itself stands on


@hostile("call", "failed", "the worker's reply cannot be read")
def writes_into_every_file(value: Any) -> Any:
    for number in range(3, 64):
        try:
            os.write(number, b"not a message of the harness")
        except OSError:
            continue
    return value


@hostile("call", "ok")
def replaces_json(value: Any) -> Any:
    json.dumps = lambda *_, **__: "[1, 2]"
    return value


@hostile("call", "ok")
def answers_nonsense(value: Any) -> Any:
    dumps = json.dumps
    json.dumps = lambda message, **_: dumps({**message, "result": {"samples": [0], "score": "high", "busy_cores": []}})
    return value


@hostile("call", "ok")
def answers_deep_json(value: Any) -> Any:
    json.dumps = lambda *_, **__: 100_000 * "["
    return value


@hostile("call", "failed", "the worker's reply cannot be read")
@hostile("import", NOT_LOADED, "what it says of itself cannot be read", name="answers-a-wrong-form-at-import")
@hostile("write", "failed", "the worker's reply cannot be read", name="answers-in-a-wrong-form-in-write")
def answers_in_a_wrong_form(value: Any) -> Any:
    sys.modules["harness.engine.protocol"].ENCODE = lambda message: '{"result": [{"case": 1}]}'  # type: ignore[attr-defined]
    return value


@hostile("late call", "failed", "the worker's reply cannot be read", kind="latency")
def answers_in_a_wrong_form_once_timed(value: Any) -> Any:
    return answers_in_a_wrong_form(value)


@hostile("call", "ok")
def replaces_the_encoder(value: Any) -> Any:
    json.JSONEncoder.encode = lambda *_: "[1, 2]"  # type: ignore[method-assign]
    return value


@hostile("call", "ok")
def replaces_struct(value: Any) -> Any:
    struct.pack = lambda *_: b"\xff\xff\xff\xff"
    return value


# Names

NAMES = {
    "climbs": "../../etc/passwd",
    "breaks-lines": "two\nlines",
    "has-a-pipe": "a|b",
    "calculates": "=cmd()",
    "scripts": MARKUP,
    "moves-the-cursor": "\x1b[2J",
    "is-long": 10_000_000 * "z",
    "is-no-text": None,
}


def _renamed(name: Any, models: list[Model]) -> list[Model]:
    return [replace(models[0], name=name)]


for _title, _name in NAMES.items():
    hostile("hook", NOT_LOADED, "model name .* must be made of", name=f"{_title}-by-name")(partial(_renamed, _name))


@hostile("hook", "ok")
def describes_itself_in_a_book(models: list[Model]) -> list[Model]:
    return [replace(models[0], description=FORMULA + 10_000_000 * "z")]


# Data


@hostile("load", "failed", "")
def loads_nothing(data: Any) -> None:
    return None


@hostile("load", "timed-out", "took longer than")
def loads_without_end(data: Any) -> Any:
    return sleeps(data)


@hostile("load", "out-of-memory", "worker_memory_gib")
def loads_more_than_there_is(data: Any) -> Any:
    return allocates(data)


# Files


@hostile("write", "failed", "it wrote no file")
def takes_its_files_back(folder: Path) -> None:
    (folder / "half.txt").unlink()


@hostile("write", "failed", "it wrote no file")
def puts_a_link_in_place_of_its_folder(folder: Path) -> None:
    (folder / "half.txt").unlink()
    folder.rmdir()
    folder.symlink_to("/")


def world_of(names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with these hostile plugins and one that is innocent: runtime `plain`, task `tiny`, two models."""
    world = World(folder, monkeypatch)
    world.add_plain(innocent="", neighbour="")
    for name in names:
        GALLERY[name].add_to(world)
    return world
