"""Cheats: runtimes whose sessions pass parity and do not do, in the timed calls, the work that is timed.

Parity asks with inputs that are the same on every check. So a cheat is honest to what it was asked before it was timed,
and recognises that when it is asked again.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from strangers import PlainLayer, PlainRuntime, PlainSession

from harness import Inputs, Model, Outputs, SessionOptions

if TYPE_CHECKING:
    from harness.contract import FloatArray

ASKED_BEFORE_IT_IS_TIMED = 11  # calls of one parity check with one scenario: ten points of the grid and its own shape


class Cheat(PlainSession):
    """Honest to the calls of parity."""

    def __init__(self, layer: PlainLayer, weights: Mapping[str, FloatArray]) -> None:
        super().__init__(layer, weights)
        self._asked: set[bytes] = set()

    def is_asked(self, inputs: Inputs) -> bool:
        """Whether this is one of parity's inputs: those of the first calls."""
        content = inputs.x.tobytes()
        if len(self._asked) < ASKED_BEFORE_IT_IS_TIMED:
            self._asked.add(content)
        return content in self._asked

    def right(self, inputs: Inputs) -> Outputs:
        return super().run(inputs)

    def run(self, prepared: Inputs) -> Any:
        return self.right(prepared) if self.is_asked(prepared) else self.timed(prepared)

    def timed(self, inputs: Inputs) -> Outputs:
        """What a timed call does."""
        return self.right(inputs)


class Remembers(Cheat):
    """Gives the answer it gave to the same numbers."""

    def __init__(self, layer: PlainLayer, weights: Mapping[str, FloatArray]) -> None:
        super().__init__(layer, weights)
        self._answers: dict[Any, Outputs] = {}

    def key(self, inputs: Inputs) -> Any:
        return inputs.x.tobytes()

    def timed(self, inputs: Inputs) -> Outputs:
        key = self.key(inputs)
        if key not in self._answers:
            self._answers[key] = self.right(inputs)
        return self._answers[key]


class RemembersObjects(Remembers):
    """Gives the answer it gave to the same object."""

    def key(self, inputs: Inputs) -> Any:
        return id(inputs.x)


class RemembersForAll(Remembers):
    """Shares what it remembers with every other session in its process."""

    everybodys: ClassVar[dict[Any, Outputs]] = {}

    def __init__(self, layer: PlainLayer, weights: Mapping[str, FloatArray]) -> None:
        super().__init__(layer, weights)
        self._answers = self.everybodys


class ComputesWhenConverted(Cheat):
    """Gives what becomes an array, and works for it, when somebody asks for one."""

    def timed(self, inputs: Inputs) -> Outputs:
        right = self.right

        class Later:
            def __array__(self, *_: Any, **__: Any) -> Any:
                return right(inputs).y

        later: Any = Later()
        zeros = np.zeros((1, len(inputs.x), self._weights["weight_hh_l0"].shape[1]), inputs.x.dtype)
        return Outputs(later, (zeros, zeros))


class Lazy(PlainSession):
    """Does everything when it is fetched."""

    def run(self, prepared: Inputs) -> Any:
        return prepared

    def fetch(self, raw: Any) -> Outputs:
        return super().run(raw)


class Eager(PlainSession):
    """Does everything when it is prepared."""

    def prepare(self, inputs: Inputs) -> Any:
        return super().run(inputs)

    def run(self, prepared: Any) -> Any:
        return prepared


class OnTheSide(PlainSession):
    """Returns while a thread works, for longer than the interpreter lets one thread run, and waits in fetch."""

    def run(self, prepared: Inputs) -> Any:
        answer: list[Outputs] = []

        def work() -> None:
            end = time.monotonic() + 0.03
            while time.monotonic() < end:
                answer.append(super(OnTheSide, self).run(prepared))

        thread = threading.Thread(target=work)
        thread.start()
        return thread, answer

    def fetch(self, raw: Any) -> Outputs:
        thread, answer = raw
        thread.join()
        outputs: Outputs = answer[0]
        return outputs


class OnAStream(PlainSession):
    """Returns while a GPU works on a stream of its own, and waits in fetch."""

    def run(self, prepared: Inputs) -> Any:
        import torch

        cuda: Any = torch.cuda
        stream = cuda.Stream()
        with cuda.stream(stream):
            cuda._sleep(100_000_000)  # cycles, some 50 ms
        return stream, super().run(prepared)

    def fetch(self, raw: Any) -> Outputs:
        stream, answer = raw
        stream.synchronize()
        outputs: Outputs = answer
        return outputs


class Zeros(Cheat):
    def timed(self, inputs: Inputs) -> Outputs:
        rows, steps, _ = inputs.x.shape
        hidden = self._weights["weight_hh_l0"].shape[1]
        y, state = np.zeros((rows, steps, hidden), inputs.x.dtype), np.zeros((1, rows, hidden), inputs.x.dtype)
        return Outputs(y, (state, state))


class Constant(Zeros):
    def __init__(self, layer: PlainLayer, weights: Mapping[str, FloatArray]) -> None:
        super().__init__(layer, weights)
        self._first: list[Outputs] = []

    def timed(self, inputs: Inputs) -> Outputs:
        if not self._first:
            self._first.append(self.right(inputs))
        return self._first[0]


class FirstStepOnly(Zeros):
    def timed(self, inputs: Inputs) -> Outputs:
        outputs = super().timed(inputs)
        outputs.y[:, :1] = self.right(replace(inputs, x=inputs.x[:, :1])).y
        return outputs


class Spoils(Cheat):
    """Writes over its inputs."""

    def timed(self, inputs: Inputs) -> Outputs:
        outputs = self.right(inputs)
        inputs.x[...] = 0
        return outputs


class FrozenTime(Cheat):
    """Knows no more steps than the ones it was made for."""

    def right(self, inputs: Inputs) -> Outputs:
        steps = inputs.x.copy()
        steps[:, 4:] = 0
        return super().right(replace(inputs, x=steps))


class HalfPrecision(Cheat):
    """Keeps its weights in half of the bits that it says."""

    def right(self, inputs: Inputs) -> Outputs:
        short = {name: array.astype(np.float16).astype(array.dtype) for name, array in self._weights.items()}
        return self._layer(short, inputs)


def slow_down_the_clock() -> None:
    """A tenth of the time passes, for everybody who asks the time module."""
    real = time.perf_counter_ns
    time.perf_counter_ns = lambda: real() // 10


def slow_down_the_workers_own_clock() -> None:
    real = time.perf_counter_ns
    sys.modules["__main__"].perf_counter_ns = lambda: real() // 10  # type: ignore[attr-defined]


@dataclass(frozen=True)
class CheatingRuntime(PlainRuntime):
    """A runtime whose sessions are of a class of this module."""

    session: Callable[[PlainLayer, Mapping[str, FloatArray]], PlainSession] = PlainSession

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> PlainSession:
        honest = super().open(model, weights, options)
        return self.session(honest._layer, honest._weights)


SOURCE = """
import harness
import cheats
{deed}

@harness.hookimpl
def harness_runtimes():
    return [cheats.CheatingRuntime({name!r}, session=cheats.{session})]
"""
