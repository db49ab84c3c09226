"""What a session of an exported graph is fed with. Imports no runtime, so that another one can share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

import harness
from harness_onnx.graph import input_names

if TYPE_CHECKING:
    from harness.contract import FloatArray

    Feed = dict[str, FloatArray]


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


class Closed:
    """Stands where a closed session's graph was."""

    def __getattr__(self, name: str) -> NoReturn:
        raise harness.HarnessError("this session is closed; open a new one")
