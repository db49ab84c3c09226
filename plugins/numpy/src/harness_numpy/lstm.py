"""A fused LSTM in NumPy: one matrix product over all steps for the inputs, then one a step for the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness import BILSTM, LSTM, LayerSize

if TYPE_CHECKING:
    from harness.contract import FloatArray


class LSTMLayer:
    """An LSTM of any number of layers, in one direction or two.

    Equations: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, in the form that `torch.nn.LSTM`
    documents.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, directions: int = 1) -> None:
        """A layer initialised as `torch.nn.LSTM` is: float32, uniform in ±1/sqrt(H), from a fresh random seed."""
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.directions = directions
        rng = np.random.default_rng()
        bound = 1 / np.sqrt(hidden_size)
        architecture = BILSTM if directions == 2 else LSTM
        shapes = architecture.weight_shapes(LayerSize(input_size, hidden_size, num_layers))
        self.load_parameters({name: rng.uniform(-bound, bound, s).astype(np.float32) for name, s in shapes.items()})

    def load_parameters(self, parameters: Mapping[str, FloatArray]) -> None:
        """Take weights in the names, layout and gate order of `torch.nn.LSTM`, and keep them in a faster layout.

        Raises:
            KeyError: a weight is missing.
        """
        suffixes = [
            f"_l{layer}{suffix}" for layer in range(self.num_layers) for suffix in ("", "_reverse")[: self.directions]
        ]
        self._passes = [_Pass(parameters, suffix) for suffix in suffixes]

    def __call__(
        self, x: FloatArray, state: tuple[FloatArray, ...] | None = None
    ) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
        """Run over x (B, T, I) from (h_0, c_0), each (L*D, B, H), or from zeros.

        Returns:
            y (B, T, D*H) and (h_n, c_n), each (L*D, B, H), in the dtype of the weights.
        """
        batch, time, _ = x.shape
        hidden = self.hidden_size
        shape = (self.num_layers * self.directions, batch, hidden)
        dtype = self._passes[0].u.dtype
        h_n, c_n = np.zeros(shape, dtype), np.zeros(shape, dtype)
        if state is not None:
            h_n[...], c_n[...] = state
        steps = np.ascontiguousarray(x.transpose(1, 0, 2))  # (T, B, I): each step's rows lie together
        for layer in range(self.num_layers):
            output = np.empty((time, batch, self.directions * hidden), dtype)
            for direction in range(self.directions):
                k = layer * self.directions + direction
                order = slice(None, None, -1) if direction else slice(None)
                y = output[order, :, direction * hidden : (direction + 1) * hidden]
                self._passes[k].run(steps[order], y, h_n[k], c_n[k])
            steps = output
        return np.ascontiguousarray(steps.transpose(1, 0, 2)), (h_n, c_n)


class _Pass:
    """One layer in one direction.

    Gates are reordered from i, f, g, o to i, f, o, g. Because sigmoid(a) = 1/2 + tanh(a/2)/2, and halving is exact, the
    weights of i, f and o are halved once, here; then one tanh serves all four gates, and it cannot overflow.
    """

    def __init__(self, parameters: Mapping[str, FloatArray], suffix: str) -> None:
        self.w = self._arrange(parameters["weight_ih" + suffix])  # (I, 4H)
        self.u = self._arrange(parameters["weight_hh" + suffix])  # (H, 4H)
        self.b = self._arrange(parameters["bias_ih" + suffix] + parameters["bias_hh" + suffix])  # (4H,)

    @staticmethod
    def _arrange(weights: FloatArray) -> FloatArray:
        i, f, g, o = np.split(weights, 4)
        half = weights.dtype.type(0.5)
        return np.ascontiguousarray(np.concatenate([half * i, half * f, half * o, g]).T)

    def run(self, x: FloatArray, y: FloatArray, h: FloatArray, c: FloatArray) -> None:
        """Read x (T, B, I); write y (T, B, H); h and c (B, H) enter as the first state and leave as the last."""
        time, batch, features = x.shape
        hidden = h.shape[1]
        projected = (x.reshape(time * batch, features) @ self.w).reshape(time, batch, 4 * hidden)
        projected += self.b
        gates = np.empty((batch, 4 * hidden), h.dtype)
        squash = gates[:, : 3 * hidden]
        i, f, o, g = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))  # views, each (B, H)
        half = h.dtype.type(0.5)
        for t in range(time):
            np.matmul(h, self.u, out=gates)
            gates += projected[t]
            np.tanh(gates, out=gates)
            squash *= half
            squash += half  # i, f, o are sigmoids now, g is a tanh
            c *= f
            g *= i
            c += g
            np.tanh(c, out=h)
            h *= o
            y[t] = h
