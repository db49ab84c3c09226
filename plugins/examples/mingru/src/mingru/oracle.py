"""The mathematics of minGRU, from the equations: weights, and an oracle in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from harness.contract import FloatArray


def weight_shapes(size: harness.LayerSize) -> dict[str, tuple[int, ...]]:
    """The weights of the gate z and of the candidate h, for example `weight_z_l0` (H, I) and `bias_z_l0` (H,)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(size.num_layers):
        features = size.hidden_size if layer else size.input_size
        for part in ("z", "h"):
            shapes[f"weight_{part}_l{layer}"] = (size.hidden_size, features)
            shapes[f"bias_{part}_l{layer}"] = (size.hidden_size,)
    return shapes


def reference(weights: Mapping[str, FloatArray], inputs: harness.Inputs, size: harness.LayerSize) -> harness.Outputs:
    """Run the layers whose weights are given, in the dtype of those weights.

    Equations: Feng et al. 2024, "Were RNNs All We Needed?", arXiv 2410.01201, section 3.1, with biases:
    z_t = sigmoid(W_z x_t + b_z), h_t = (1 - z_t) h_{t-1} + z_t (W_h x_t + b_h).

    Args:
        weights: as in `weight_shapes`; other names (a head's) are ignored.
        inputs: x (B, T, I), state one array (L, B, H) or None, lengths (B,) or None.

    Returns:
        y (B, T, H), zero at padding, and (h_n,), which is (L, B, H).
    """
    import numpy as np

    y = inputs.x.astype(weights["weight_z_l0"].dtype)
    batch, time, _ = y.shape
    h_n = np.zeros((size.num_layers, batch, size.hidden_size), y.dtype)
    if inputs.state is not None:
        h_n[:] = inputs.state[0]
    lengths = np.full(batch, time) if inputs.lengths is None else inputs.lengths
    for layer in range(size.num_layers):
        gate, candidate = (
            y @ weights[f"weight_{part}_l{layer}"].T + weights[f"bias_{part}_l{layer}"] for part in ("z", "h")
        )  # each (B, T, H)
        z = 0.5 + 0.5 * np.tanh(0.5 * gate)  # sigmoid, written so that it cannot overflow
        h = h_n[layer]
        y = np.zeros((batch, time, size.hidden_size), y.dtype)
        for t in range(time):
            real = (t < lengths)[:, None]  # (B, 1)
            h = np.where(real, (1 - z[:, t]) * h + z[:, t] * candidate[:, t], h)
            y[:, t] = np.where(real, h, 0)
        h_n[layer] = h
    return harness.Outputs(y, (h_n,))


MINGRU = harness.Architecture("mingru", 1, weight_shapes, reference, state_names=("h",))
