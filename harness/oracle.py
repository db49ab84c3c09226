"""The oracle of a wrapped layer: the layer itself, in the dtype of the weights, in a process of its own.

A process that times one framework must not hold another's threads, so it asks this one, which sleeps in a read between
two questions and ends when its asker does. There the layer is opened as a session of a runtime that trains its
framework, on the CPU. Run as a program, this module is that process: `python -m harness.oracle QUESTIONS`.

A message is two lengths, JSON, and arrays as safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from harness.contract import (
    Architecture,
    HarnessError,
    Inputs,
    LayerSize,
    Model,
    Outputs,
    Runtime,
    Session,
    SessionOptions,
    Trainable,
    Unsupported,
    one_line,
)
from harness.named_layer import NamedLayer

if TYPE_CHECKING:
    from harness.contract import FloatArray

LENGTHS = struct.Struct("!IQ")
MOST_JSON, MOST_ARRAYS = 2**20, 2**36  # bytes of a message
PLUGINS, OWN_MODEL = "HARNESS_PLUGINS", "HARNESS_OWN_MODEL"  # variables that mean other processes
FAREWELL_SECONDS = 1.0  # how long it has to end by itself once it does not answer
BATCH, TIME = 2, 3  # of the call that finds out what a layer is
TRIED = (LayerSize(5, 6), LayerSize(8, 16), LayerSize(28, 128))  # some layers take few sizes only


@dataclass(frozen=True)
class Subject:
    """Whose oracle it is.

    Attributes:
        name: of the model, for texts.
        layer: how it is built.
        framework: what it is made of.
        plugin: the plugin whose runtime runs it; empty for the first installed one that trains the framework.
        state_names, directions: of its architecture.
    """

    name: str
    layer: NamedLayer
    framework: str
    plugin: str = ""
    state_names: tuple[str, ...] = ("h", "c")
    directions: int = 1


class Oracle:
    """The asker's side. The process starts with the first question."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._process: subprocess.Popen[bytes] | None = None
        self._known = ""  # the weights that it has
        self._lock = threading.Lock()

    def look(self) -> dict[str, Any]:
        """What the layer is: `directions`, `states` (how many state arrays) and `size` (the only one, or None)."""
        found: dict[str, Any] = self._ask({"do": "look"})[0]
        return found

    def is_native(self) -> bool:
        """Whether the layer's class is derived from one of the framework's; no, if it cannot be built."""
        with suppress(HarnessError):
            return bool(self._ask({"do": "is_native"})[0])
        return False

    def close(self) -> None:
        """Let the process go."""
        process, self._process, self._known = self._process, None, ""
        if process:
            _end(process)

    def know(self, subject: Subject) -> None:
        """Go on with the same process, now that more is known of the subject."""
        self._subject = subject

    def weight_shapes(self, size: LayerSize) -> dict[str, tuple[int, ...]]:
        """The names and shapes of its weights at this size; raises as `reference` does."""
        self._subject.layer.require(size)
        return {name: tuple(shape) for name, shape in self._ask({"do": "shapes", "size": asdict(size)})[0].items()}

    def reference(self, weights: Mapping[str, FloatArray], inputs: Inputs, size: LayerSize) -> Outputs:
        """What the layer computes: in float32 with float32 weights, otherwise in float64.

        Raises:
            Unsupported: it has another size.
            HarnessError: it cannot be built or called.
        """
        import numpy as np

        self._subject.layer.require(size)
        dtype = "float32" if all(array.dtype == np.float32 for array in weights.values()) else "float64"
        exact = {name: np.ascontiguousarray(array, dtype) for name, array in weights.items()}
        key = _digest(exact)
        given = {"x": inputs.x, "lengths": inputs.lengths} | _numbered("state", inputs.state)
        arrays = {name: np.ascontiguousarray(array) for name, array in given.items() if array is not None}
        arrays = {name: array if name == "lengths" else array.astype(dtype) for name, array in arrays.items()}
        question = {"do": "compute", "size": asdict(size), "dtype": dtype, "weights": key}
        with self._lock:
            if self._known != key:
                arrays |= {f"weights.{name}": array for name, array in exact.items()}
            answer, found = self._answer(question, arrays)
            self._known = key
        return Outputs(found["y"], tuple(found[f"state{number}"] for number in range(answer["states"])))

    def _ask(self, question: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        with self._lock:
            return self._answer(question, {})

    def _answer(self, question: dict[str, Any], arrays: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        process = self._process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        try:
            _send(process.stdin, question, arrays)
            message = _receive(process.stdout)
        except (OSError, ValueError):
            message = None
        if message is None:
            self._process, self._known = None, ""
            code = _end(process)
            raise HarnessError(
                f"the oracle of model '{self._subject.name}' ended with exit code {code}; its log says why"
            )
        answer, found = message
        if "error" in answer:
            self._known = ""
            raise (Unsupported if answer["unsupported"] else HarnessError)(answer["error"])
        return answer["result"], found

    def _start(self) -> subprocess.Popen[bytes]:
        subject = self._subject
        environment = {name: value for name, value in os.environ.items() if name not in (PLUGINS, OWN_MODEL)}
        environment["PYTHONSAFEPATH"] = "1"
        if subject.plugin:
            environment[PLUGINS] = subject.plugin
        facts = json.dumps({"subject": asdict(subject), "path": [entry for entry in sys.path if entry]})
        command = [sys.executable, "-m", "harness.oracle", facts]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        weakref.finalize(self, _end, process)  # when nobody holds the oracle any more, and when this process ends
        return process


class Answers:
    """The other side: what is asked of the layer. A public method is a question."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._runtime = _trainer(subject)
        self._open: tuple[Any, Session] | None = None

    def look(self, arrays: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Oracle.look`."""
        layer = self._subject.layer
        found: LayerSize | None = None
        if layer.has_one_size:
            found, outputs = self._only_size()
        else:
            outputs = self._first_that_runs([replace(size, num_layers=layer.depth) for size in TRIED])[1]
        hidden_size = outputs.state[0].shape[2]
        directions = outputs.y.shape[2] // hidden_size
        if found:
            found = LayerSize(found.input_size, hidden_size, outputs.state[0].shape[0] // directions)
        facts = {"directions": directions, "states": len(outputs.state), "size": asdict(found) if found else None}
        return facts, {}

    def is_native(self, arrays: Any) -> tuple[bool, dict[str, Any]]:
        """See `Oracle.is_native`."""
        layer = self._subject.layer
        found = layer.attribute()
        for size in () if isinstance(found, type) else TRIED:
            with suppress(Exception):  # the user's code may raise anything
                found = type(layer(size.input_size, size.hidden_size, layer.depth))
                break
        bases = found.__mro__ if isinstance(found, type) else ()
        return self._subject.framework in {base.__module__.partition(".")[0] for base in bases}, {}

    def shapes(self, arrays: Any, size: dict[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Oracle.weight_shapes`."""
        return {name: array.shape for name, array in self._initial(LayerSize(**size)).items()}, {}

    def compute(
        self, arrays: dict[str, Any], size: dict[str, int], dtype: str, weights: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Oracle.reference`."""
        key = (weights, dtype, LayerSize(**size))
        if self._open is None or self._open[0] != key:
            own = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith("weights.")}
            if not own and self._open:
                raise HarnessError("the weights were not given")
            self._close()
            self._open = key, self._session(own, LayerSize(**size), dtype)
        state = [arrays[name] for name in sorted(arrays) if name.startswith("state")]
        outputs = _call(self._open[1], Inputs(arrays["x"], tuple(state) or None, arrays.get("lengths")))
        return {"states": len(outputs.state)}, {"y": outputs.y} | _numbered("state", outputs.state)

    def _only_size(self) -> tuple[LayerSize, Outputs]:
        """The size of a layer of which nobody can choose it: by its attributes, or by what input it takes."""
        width = getattr(self._subject.layer(1, 1), "input_size", None)
        if isinstance(width, int):
            return self._first_that_runs([LayerSize(width, 1)])
        weights = self._initial(LayerSize(1, 1))
        widths = sorted({array.shape[-1] for array in weights.values() if array.ndim > 1})
        if not widths:
            raise HarnessError(f"'{self._subject.layer.target}' does not tell its input size; give it input_size")
        return self._first_that_runs([LayerSize(width, 1) for width in widths])

    def _first_that_runs(self, sizes: Sequence[LayerSize]) -> tuple[LayerSize, Outputs]:
        """The first of these sizes at which the layer runs, and what it gives."""
        first: BaseException | None = None
        for size in sizes:
            try:
                return size, self._run_twice(size)
            except Exception as error:  # the user's code may raise anything
                first = first or error
        assert first
        raise first

    def _run_twice(self, size: LayerSize) -> Outputs:
        """Run the layer without a state and with the one it gave, and see that the shapes are those of the contract."""
        import numpy as np

        session = self._session(self._initial(size), size, "float32")
        x = np.random.default_rng(0).standard_normal((BATCH, TIME, size.input_size)).astype(np.float32)
        outputs = _call(session, Inputs(x))
        self._check(outputs, size)
        again = _call(session, Inputs(x, outputs.state))
        if [part.shape for part in again.state] != [part.shape for part in outputs.state]:
            raise HarnessError(f"'{self._subject.layer.target}' gives a state of another shape when it is given one")
        session.close()
        return outputs

    def _check(self, outputs: Outputs, size: LayerSize) -> None:
        y, states = outputs.y.shape, [part.shape for part in outputs.state]
        fits = len(y) == 3 and y[:2] == (BATCH, TIME) and bool(states) and len(set(states)) == 1 and len(states[0]) == 3
        if not (fits and states[0][1] == BATCH and y[2] in (states[0][2], 2 * states[0][2])):
            raise HarnessError(
                f"'{self._subject.layer.target}' gives y {y} and state {', '.join(map(str, states)) or 'nothing'} for "
                f"x {(BATCH, TIME, size.input_size)}; y must be (B, T, D*H) and every state array (L*D, B, H), as "
                "torch.nn.LSTM(batch_first=True) gives them"
            )
        if states[0][0] % (y[2] // states[0][2]):
            raise HarnessError(f"'{self._subject.layer.target}' gives state {states[0]}, which is not (L*D, B, H)")

    def _initial(self, size: LayerSize) -> Mapping[str, FloatArray]:
        assert isinstance(self._runtime, Trainable)
        found = dict(self._runtime.initial_weights(self._model, size, 0))
        if any(name.startswith("head.") for name in found):
            raise HarnessError(
                f"'head.*' names the harness's own head; rename the submodule of '{self._subject.layer.target}'"
            )
        if others := [f"{name} ({array.dtype})" for name, array in found.items() if array.dtype.kind != "f"]:
            raise Unsupported(f"'{self._subject.layer.target}' keeps {', '.join(others)}; weights are real numbers")
        return found

    def _session(self, weights: Mapping[str, FloatArray], size: LayerSize, dtype: str) -> Session:
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        options = SessionOptions(size, "cpu", dtype, int(threads) if threads.isdecimal() else 1)
        runtime: Runtime = self._runtime
        return runtime.open(self._model, weights, options)

    @property
    def _model(self) -> Model:
        def nobody(*_: Any, **__: Any) -> Any:
            raise HarnessError(
                f"framework '{self._subject.framework}' cannot be wrapped: its runtime asks for an oracle"
            )

        subject = self._subject
        architecture = Architecture(subject.name, subject.directions, nobody, nobody, subject.state_names)
        return Model(subject.name, architecture, subject.framework, subject.layer)

    def _close(self) -> None:
        if self._open:
            with suppress(Exception):
                self._open[1].close()
        self._open = None


def _trainer(subject: Subject) -> Any:
    """The first installed runtime that trains the framework; plugins are loaded one by one until it is found."""
    from harness.catalog import chosen_names, installed_plugins, load_plugin

    chosen = chosen_names(None)
    for plugin, point in installed_plugins():
        if chosen is None or plugin.name in chosen:
            for entry in load_plugin(plugin, point)[1]:
                is_runtime = entry.kind == "runtime" and isinstance(entry.value, Trainable)
                if is_runtime and subject.framework in entry.value.frameworks:
                    return entry.value
    raise HarnessError(
        f"model '{subject.name}': no installed runtime trains framework '{subject.framework}', so nothing can be its "
        "reference; install one that does"
    )


def _end(process: subprocess.Popen[bytes]) -> int:
    """Let an oracle's process go, or end it; its exit code."""
    for stream in (process.stdin, process.stdout):
        if stream:
            with suppress(OSError):  # it is gone already
                stream.close()
    with suppress(subprocess.TimeoutExpired):
        return process.wait(FAREWELL_SECONDS)
    process.kill()
    return process.wait()


def _call(session: Session, inputs: Inputs) -> Outputs:
    return session.fetch(session.run(session.prepare(inputs)))


def _numbered(name: str, arrays: Sequence[Any] | None) -> dict[str, Any]:
    return {f"{name}{number}": array for number, array in enumerate(arrays or ())}


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()


def _send(stream: IO[bytes], message: dict[str, Any], arrays: Mapping[str, Any]) -> None:
    import numpy as np
    from safetensors.numpy import save

    text = json.dumps(message).encode()
    packed = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}) if arrays else b""
    stream.write(LENGTHS.pack(len(text), len(packed)) + text + packed)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    from safetensors.numpy import load

    header = stream.read(LENGTHS.size)
    if len(header) < LENGTHS.size:
        return None
    text_length, packed_length = LENGTHS.unpack(header)
    if text_length > MOST_JSON or packed_length > MOST_ARRAYS:
        raise ValueError("a message that is too long")
    text, packed = stream.read(text_length), stream.read(packed_length)
    if len(text) < text_length or len(packed) < packed_length:
        return None
    return json.loads(text), load(packed) if packed else {}


def main() -> None:
    """Answer until the asker is gone. What the layer prints goes to standard error."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    facts = json.loads(sys.argv[1])
    sys.path.extend(entry for entry in facts["path"] if entry not in sys.path)
    given = facts["subject"]
    size = given["layer"]["size"]
    layer = NamedLayer(**given.pop("layer") | {"size": LayerSize(**size) if size else None})
    subject = Subject(layer=layer, **given | {"state_names": tuple(given["state_names"])})
    target: Answers | None = None
    while (message := _receive(questions)) is not None:
        question, arrays = message
        found: dict[str, Any] = {}
        try:
            target = target or Answers(subject)
            result, found = getattr(target, question.pop("do"))(arrays, **question)
            reply = {"result": result}
        except BaseException as error:  # a stranger's code may raise anything, SystemExit included
            traceback.print_exc(file=sys.stderr)
            reply = {"error": one_line(error), "unsupported": isinstance(error, Unsupported)}
        _send(answers, reply, found)


if __name__ == "__main__":
    main()
