"""A model that does nothing: a complete rnn-harness plugin, and the floor of the harness's own overhead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harness
from harness import Architecture, Inputs, LayerSize, Model, Outputs

harness_contract = 1


class Layer:
    """The model: made and called like `torch.nn.LSTM(batch_first=True)`, for NumPy arrays."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        self.hidden_size, self.num_layers = hidden_size, num_layers

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """y is zeros (B, T, H); the state, two arrays (L, B, H), stays as it was, or is zeros if there was none."""
        import numpy as np  # here, not above: importing a plugin is free

        batch, time, _ = x.shape
        zeros = np.zeros((self.num_layers, batch, self.hidden_size), x.dtype)
        return np.zeros((batch, time, self.hidden_size), x.dtype), state or (zeros, zeros)


def weight_shapes(size: LayerSize) -> dict[str, tuple[int, ...]]:
    """Every weight's name and shape: there are none."""
    return {}


def reference(weights: Mapping[str, Any], inputs: Inputs, size: LayerSize) -> Outputs:
    """The oracle: what the architecture computes. For want of equations, the layer itself."""
    return Outputs(*Layer(size.input_size, size.hidden_size, size.num_layers)(inputs.x, inputs.state))


NULL = Architecture("null", 1, weight_shapes, reference)


@harness.hookimpl
def harness_models() -> list[Model]:
    return [Model("null", NULL, "numpy", Layer, description="does nothing; the floor of every latency")]
