"""The architectures the core has an oracle for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.contract import Architecture, Inputs, LayerSize, Outputs

if TYPE_CHECKING:
    from harness.contract import FloatArray


def lstm_weight_shapes(size: LayerSize, directions: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of an LSTM's weights, as `torch.nn.LSTM` names them.

    Gates stand in the order i, f, g, o along the first axis (torch.nn.LSTM's documentation, "Variables").
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(size.num_layers):
        features = size.input_size if layer == 0 else size.hidden_size * directions
        for suffix in ("", "_reverse")[:directions]:
            shapes[f"weight_ih_l{layer}{suffix}"] = (4 * size.hidden_size, features)
            shapes[f"weight_hh_l{layer}{suffix}"] = (4 * size.hidden_size, size.hidden_size)
            shapes[f"bias_ih_l{layer}{suffix}"] = (4 * size.hidden_size,)
            shapes[f"bias_hh_l{layer}{suffix}"] = (4 * size.hidden_size,)
    return shapes


def _reference(weights: Mapping[str, FloatArray], inputs: Inputs, size: LayerSize) -> Outputs:
    from harness.reference import lstm  # NumPy is imported only when something is computed

    return lstm(weights, inputs)


LSTM = Architecture("lstm", 1, lambda size: lstm_weight_shapes(size, 1), _reference)
BILSTM = Architecture("bilstm", 2, lambda size: lstm_weight_shapes(size, 2), _reference)
BUILT_IN = (LSTM, BILSTM)
