"""Sessions: a graph with weights, loaded, ready to call. Imported when one is opened; never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnxruntime  # type: ignore[import-untyped]

import harness
from harness_onnx.feeder import Closed, Feeder
from harness_onnx.graph import output_names

if TYPE_CHECKING:
    from harness.contract import FloatArray
    from harness_onnx.feeder import Feed

    Bound = tuple[onnxruntime.IOBinding, Feed]  # a binding borrows the arrays; who holds it holds them


@dataclass(frozen=True)
class Figures:
    """What a session says of itself (see `harness.Session`).

    Attributes:
        export_seconds: how long opening it waited for the export; 0.0 where that was found.
        size_bytes: of the graph that was loaded, weights included: what it is as one file, which needs no other.
    """

    export_seconds: float
    size_bytes: int


class HostSession:
    """Arrays stay in the host's memory: a call is ONNX Runtime's own `session.run(names, feed)` and costs the same."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        architecture: harness.Architecture,
        options: harness.SessionOptions,
        figures: Figures,
    ) -> None:
        self.export_seconds, self.size_bytes = figures.export_seconds, figures.size_bytes
        self._session = session
        self._feeder: Feeder | Closed = Feeder(architecture, options)
        self._outputs = output_names(architecture)

    def prepare(self, inputs: harness.Inputs) -> Feed:
        return self._feeder.feed(inputs)

    def run(self, prepared: Feed) -> list[FloatArray]:
        outputs: list[FloatArray] = self._session.run(self._outputs, prepared)
        return outputs

    def fetch(self, raw: list[FloatArray]) -> harness.Outputs:
        y, *state = raw
        return harness.Outputs(y, tuple(state))

    def close(self) -> None:
        self._session = self._feeder = Closed()


class DeviceSession:
    """Inputs are bound to the device's memory by `prepare`, and outputs stay there until `fetch`.

    What `run` gives belongs to its prepared input: running that again writes the same values to the same place.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        architecture: harness.Architecture,
        options: harness.SessionOptions,
        figures: Figures,
        device: tuple[str, int],
    ) -> None:
        self.export_seconds, self.size_bytes = figures.export_seconds, figures.size_bytes
        self._session = session
        self._feeder: Feeder | Closed = Feeder(architecture, options)
        self._outputs = output_names(architecture)
        self._device = device

    def prepare(self, inputs: harness.Inputs) -> Bound:
        feed = self._feeder.feed(inputs)
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._device))
        for name in self._outputs:
            binding.bind_output(name, *self._device)
        binding.synchronize_inputs()  # a copy may still be on its way, and is no part of a call
        return binding, feed

    def run(self, prepared: Bound) -> onnxruntime.IOBinding:
        self._session.run_with_iobinding(prepared[0])
        prepared[0].synchronize_outputs()  # CUDA's provider has waited by now; another may have put them in a queue
        return prepared[0]

    def fetch(self, raw: onnxruntime.IOBinding) -> harness.Outputs:
        y, *state = raw.copy_outputs_to_cpu()
        return harness.Outputs(y, tuple(state))

    def close(self) -> None:
        self._session = self._feeder = Closed()


def has_memory(kind: str, index: int) -> bool:
    """Whether arrays can be placed on the device; some providers take theirs from the host."""
    if kind == "cpu":
        return False  # that is the host
    try:
        onnxruntime.OrtValue.ortvalue_from_shape_and_type([1], "float32", kind, index)
    except Exception:  # ONNX Runtime's exceptions share no other base class
        return False
    return True
