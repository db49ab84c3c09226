"""A toy accelerator: a queue and a clock of its own, so that what is timed there is known to the nanosecond.

Its clock goes on by what each job says that it takes, and by the time for which it had nothing to do, if that was long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from strangers import PlainLayer

import harness
from harness import Accelerator, DeviceState, Inputs, Model, Outputs, SessionOptions

if TYPE_CHECKING:
    from harness.contract import FloatArray

COPY_NS, COMPUTE_NS, COLD_NS = 250_000, 1_000_000, 3_000_000
LONG_NS = 10_000_000
JOULES = 0.25  # of a call
SOURCE = """
import harness
import toy_devices

@harness.hookimpl
def harness_runtimes():
    return [toy_devices.ToyRuntime(), toy_devices.ToyRuntime("sloppy", waits=False)]
"""
CLOCK = """
@harness.hookimpl
def harness_accelerators():
    return [toy_devices.ACCELERATOR]
"""


class Toy:
    """Does one job after the other."""

    def __init__(self) -> None:
        self._queue = ThreadPoolExecutor(1)
        self._now_ns, self._rests_since = 0, perf_counter_ns()
        self._is_cold = False
        self._joules = 0.0
        self._states = 0

    def submit(self, takes_ns: int, work: Callable[[], Any]) -> Future[Any]:
        return self._queue.submit(self._job, lambda: takes_ns, work)

    def _job(self, takes_ns: Callable[[], int], work: Callable[[], Any]) -> Any:
        rested = perf_counter_ns() - self._rests_since
        self._now_ns += takes_ns() + (rested if rested > LONG_NS else 0)
        try:
            return work()
        finally:
            self._rests_since = perf_counter_ns()

    def compute(self, work: Callable[[], Any]) -> Future[Any]:
        """A job that takes three times as long where the caches hold nothing."""

        def takes_ns() -> int:
            was_cold, self._is_cold = self._is_cold, False
            self._joules += JOULES
            return COLD_NS if was_cold else COMPUTE_NS

        return self._queue.submit(self._job, takes_ns, work)

    def drain(self) -> None:
        self.submit(0, lambda: None).result()

    def mark(self) -> Future[int]:
        return self.submit(0, lambda: self._now_ns)

    def elapsed_ns(self, begin: Future[int], end: Future[int]) -> int:
        return end.result() - begin.result()

    def evict(self) -> None:
        def empty() -> None:
            self._is_cold = True

        self.submit(7_000_000, empty)  # and does not wait

    def state(self) -> DeviceState:
        self._states += 1
        return DeviceState(
            "a toy",
            1500.0 - 100 * self._states,
            800.0 + self._states,
            50.0 + self._states,
            5.0 + self._states,
            "too hot" * (self._states - 1),
        )

    def energy_j(self) -> float:
        return self._joules


TOYS: dict[str, Toy] = {}  # of this process, by name


def toy(name: str) -> Toy:
    if not name.startswith("toy"):
        raise harness.Unsupported(f"'{name}' is no toy")
    return TOYS.setdefault(name, Toy())


ACCELERATOR = Accelerator("toys", "made up", toy)


class ToySession:
    """A plain layer whose calls the toy makes; one that does not wait leaves that to whoever wants the outputs."""

    def __init__(self, device: Toy, layer: PlainLayer, weights: Mapping[str, FloatArray], waits: bool) -> None:
        self._device, self._layer, self._weights, self._waits = device, layer, weights, waits

    def prepare(self, inputs: Inputs) -> Inputs:
        self._device.submit(COPY_NS, lambda: None)  # and goes on, as copies to a device may
        return inputs

    def run(self, prepared: Inputs) -> Future[Outputs]:
        answer = self._device.compute(lambda: self._layer(self._weights, prepared))
        if self._waits:
            answer.result()
        return answer

    def fetch(self, raw: Future[Outputs]) -> Outputs:
        outputs: Outputs = raw.result()
        self._device.submit(COPY_NS, lambda: None).result()
        return outputs

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class ToyRuntime:
    """A runtime for framework `plain` that needs a toy."""

    name: str = "toy"
    waits: bool = True
    frameworks: frozenset[str] = frozenset({"plain"})
    description: str = "on a toy"
    needs_accelerator: bool = True

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> ToySession:
        size = options.size
        layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        own = {name: array.astype(options.dtype) for name, array in weights.items()}
        return ToySession(toy(options.device), layer, own, self.waits)


class Card:
    """A device whose clock is the host's, but for what a test replaces."""

    def __init__(self, **instead: Any) -> None:
        self.__dict__.update(instead)

    def drain(self) -> None:
        pass

    def mark(self) -> int:
        return perf_counter_ns()

    def elapsed_ns(self, begin: int, end: int) -> Any:
        return end - begin

    def evict(self) -> None:
        pass

    def state(self) -> Any:
        return DeviceState(name="a card")

    def energy_j(self) -> Any:
        return 3


def fails(*_: Any) -> Any:
    raise ValueError("it is broken")
