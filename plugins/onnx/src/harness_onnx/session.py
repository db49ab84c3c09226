"""Sessions: a graph with weights, loaded, ready to call. Imported when one is opened; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

import harness
from harness_onnx.graph import input_names, output_names

if TYPE_CHECKING:
    from harness.contract import FloatArray

    Feed = dict[str, FloatArray]
    Bound = tuple[onnxruntime.IOBinding, Feed]  # a binding borrows the arrays; who holds it holds them


class Feeder:
    """Makes of `Inputs` what the graph takes: one contiguous array of the session's dtype per name."""

    def __init__(self, architecture: harness.Architecture, options: harness.SessionOptions) -> None:
        self._names = input_names(architecture)
        self._dtype = np.dtype(options.dtype)
        self._layers = options.size.num_layers * architecture.directions
        self._hidden_size = options.size.hidden_size
        self._zeros = np.zeros((self._layers, 0, self._hidden_size), self._dtype)

    def feed(self, inputs: harness.Inputs) -> Feed:
        """Copy nothing that already is contiguous and of the dtype; a state not given is zeros."""
        state = inputs.state
        if state is None:
            batch = len(inputs.x)
            if self._zeros.shape[1] != batch:  # made once per batch size: a graph's inputs are never written
                self._zeros = np.zeros((self._layers, batch, self._hidden_size), self._dtype)
            state = (self._zeros,) * (len(self._names) - 1)
        arrays = (np.ascontiguousarray(array, self._dtype) for array in (inputs.x, *state))
        return dict(zip(self._names, arrays, strict=True))


class HostSession:
    """Arrays stay in the host's memory: a call is ONNX Runtime's own `session.run(names, feed)` and costs the same."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        architecture: harness.Architecture,
        options: harness.SessionOptions,
    ) -> None:
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
        device: tuple[str, int],
    ) -> None:
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
        return binding, feed

    def run(self, prepared: Bound) -> onnxruntime.IOBinding:
        self._session.run_with_iobinding(prepared[0])
        return prepared[0]

    def fetch(self, raw: onnxruntime.IOBinding) -> harness.Outputs:
        y, *state = raw.copy_outputs_to_cpu()
        return harness.Outputs(y, tuple(state))

    def close(self) -> None:
        self._session = self._feeder = Closed()


class Closed:
    """Stands where a closed session's graph was."""

    def __getattr__(self, name: str) -> NoReturn:
        raise harness.HarnessError("this session is closed; open a new one")


def has_memory(kind: str, index: int) -> bool:
    """Whether arrays can be placed on the device; some providers take theirs from the host."""
    if kind == "cpu":
        return False  # that is the host
    try:
        onnxruntime.OrtValue.ortvalue_from_shape_and_type([1], "float32", kind, index)
    except Exception:  # ONNX Runtime's exceptions share no other base class
        return False
    return True
