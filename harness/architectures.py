"""The architectures the core has an oracle for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.contract import Architecture, Inputs, LayerSize, Outputs

if TYPE_CHECKING:
    from harness.contract import FloatArray


def weight_shapes(size: LayerSize, directions: int, gates: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a layer's weights, as `torch.nn.LSTM` and `torch.nn.GRU` name them.

    Gates stand along the first axis: i, f, g, o of an LSTM, r, z, n of a GRU (their documentation, "Variables").
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(size.num_layers):
        features = size.input_size if layer == 0 else size.hidden_size * directions
        for suffix in ("", "_reverse")[:directions]:
            shapes[f"weight_ih_l{layer}{suffix}"] = (gates * size.hidden_size, features)
            shapes[f"weight_hh_l{layer}{suffix}"] = (gates * size.hidden_size, size.hidden_size)
            shapes[f"bias_ih_l{layer}{suffix}"] = (gates * size.hidden_size,)
            shapes[f"bias_hh_l{layer}{suffix}"] = (gates * size.hidden_size,)
    return shapes


def _lstm(weights: Mapping[str, FloatArray], inputs: Inputs, size: LayerSize) -> Outputs:
    from harness.reference import lstm  # NumPy is imported only when something is computed

    return lstm(weights, inputs)


def _gru(weights: Mapping[str, FloatArray], inputs: Inputs, size: LayerSize) -> Outputs:
    from harness.reference import gru

    return gru(weights, inputs)


LSTM = Architecture("lstm", 1, lambda size: weight_shapes(size, 1, gates=4), _lstm)
BILSTM = Architecture("bilstm", 2, lambda size: weight_shapes(size, 2, gates=4), _lstm)
GRU = Architecture("gru", 1, lambda size: weight_shapes(size, 1, gates=3), _gru, ("h",))
BIGRU = Architecture("bigru", 2, lambda size: weight_shapes(size, 2, gates=3), _gru, ("h",))
BUILT_IN = (LSTM, BILSTM, GRU, BIGRU)
