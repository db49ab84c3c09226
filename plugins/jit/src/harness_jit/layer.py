"""The LSTM as a layer: where weights are laid out for the compiled code, and arrays are made for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness import BILSTM, LSTM, LayerSize
from harness_jit.kernel import aligned, compiled, lanes, pack, scratch_size

if TYPE_CHECKING:
    from harness.contract import FloatArray


class LSTMLayer:
    """An LSTM of any number of layers, in one direction or two. One call at a time.

    Equations: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, in the form that `torch.nn.LSTM`
    documents.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, directions: int = 1) -> None:
        """A layer initialised as `torch.nn.LSTM` is: float32, uniform in ±1/sqrt(H), from a fresh random seed."""
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.directions = directions
        architecture = BILSTM if directions == 2 else LSTM
        self._shapes = architecture.weight_shapes(LayerSize(input_size, hidden_size, num_layers))
        rng = np.random.default_rng()
        bound = 1 / np.sqrt(hidden_size)
        self.load_parameters({n: rng.uniform(-bound, bound, s).astype(np.float32) for n, s in self._shapes.items()})

    def load_parameters(self, parameters: Mapping[str, FloatArray]) -> None:
        """Take weights in the names, layout and gate order of `torch.nn.LSTM`, and keep a copy in the compiled layout.

        Raises:
            KeyError: a weight is missing.
            ValueError: a weight has another shape or dtype, which the compiled code would not notice.
        """
        self._dtype = parameters["weight_ih_l0"].dtype
        for name, shape in self._shapes.items():
            found = parameters[name]
            if found.shape != tuple(shape) or found.dtype != self._dtype:
                raise ValueError(f"{name} is {found.dtype} {found.shape}; give {self._dtype} {tuple(shape)}")
        self._lanes = lanes(self._dtype.name)
        parts: list[FloatArray] = []
        for layer in range(self.num_layers):
            for direction in ("", "_reverse")[: self.directions]:
                names = (f"{name}_l{layer}{direction}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
                w, u, b_ih, b_hh = (parameters[name] for name in names)
                parts += pack(w, u, b_ih + b_hh, self._lanes)
        self._weights = aligned(sum(part.size for part in parts), self._dtype)
        np.concatenate(parts, out=self._weights)
        self._scratch = aligned(0, self._dtype)
        self._has_room_for = (0, 0)
        self._run: Callable[..., None] | None = None

    def compile(self) -> None:
        """Compile for the dtype of the weights, unless this process has done so. It takes seconds."""
        self._run = compiled(self._dtype.name)

    def __call__(
        self, x: FloatArray, state: tuple[FloatArray, ...] | None = None
    ) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
        """Run over x (B, T, I), C-contiguous and writeable, from (h_0, c_0), each (L*D, B, H), or from zeros.

        Returns:
            y (B, T, D*H) and (h_n, c_n), each (L*D, B, H), in the dtype of the weights.

        Raises:
            ValueError: the shape of x or of the state does not fit.
            TypeError: the dtype of x is not that of the weights, or its memory cannot be used as it is.
        """
        batch, time, features = x.shape
        if features != self.input_size:
            raise ValueError(f"x has {features} features; this layer takes {self.input_size}")
        if self._run is None:
            self.compile()
        if self._has_room_for != (batch, time):
            self._make_room_for(batch, time)
        shape = (self.num_layers * self.directions, batch, self.hidden_size)
        y = np.empty((batch, time, self.directions * self.hidden_size), self._dtype)
        h, c = np.zeros(shape, self._dtype), np.zeros(shape, self._dtype)
        if state is not None:
            h[...], c[...] = state
        self._run(x, self._weights, self._scratch, y, h, c)  # type: ignore[misc]  # compile has set it
        return y, (h, c)

    def _make_room_for(self, batch: int, time: int) -> None:
        size = scratch_size(batch, time, self.hidden_size, self.num_layers, self.directions, self._lanes)
        if self._scratch.size < size:
            self._scratch = aligned(size, self._dtype)
        self._has_room_for = (batch, time)
