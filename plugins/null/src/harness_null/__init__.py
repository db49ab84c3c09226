"""A model that does nothing: a complete rnn-harness plugin, and the floor of the harness's own overhead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harness
from harness import Architecture, Inputs, LayerSize, Model, Outputs


def weight_shapes(size: LayerSize) -> dict[str, tuple[int, ...]]:
    """One array that nobody reads; from its shape the oracle knows the layer's size."""
    return {"unused": (size.num_layers, size.hidden_size)}


def answer(x: Any, state: Any, num_layers: int, hidden_size: int, dtype: Any) -> tuple[Any, Any]:
    """y is zero, (B, T, H); the state, two arrays (L, B, H), stays as it was, or is zero where there was none."""
    import numpy as np  # here, not above: importing a plugin is free

    batch, time, _ = x.shape
    zeros = np.zeros((num_layers, batch, hidden_size), dtype)
    return np.zeros((batch, time, hidden_size), dtype), state or (zeros, zeros)


def reference(weights: Mapping[str, Any], inputs: Inputs) -> Outputs:
    """The oracle: what the architecture computes, in the dtype of the weights."""
    num_layers, hidden_size = weights["unused"].shape
    return Outputs(*answer(inputs.x, inputs.state, num_layers, hidden_size, weights["unused"].dtype))


class Layer:
    """The model: made and called like `torch.nn.LSTM(batch_first=True)`, for NumPy arrays."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        self.num_layers, self.hidden_size = num_layers, hidden_size

    def load_parameters(self, parameters: Mapping[str, Any]) -> None:
        """There is nothing to load."""

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        return answer(x, state, self.num_layers, self.hidden_size, x.dtype)


NULL = Architecture("null", 1, weight_shapes, reference)


@harness.hookimpl
def harness_models() -> list[Model]:
    return [Model("null", NULL, "numpy", Layer, description="does nothing; the floor of every latency")]
