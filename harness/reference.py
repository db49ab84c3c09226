"""The oracle: an LSTM in NumPy, from the equations, for every direction, layer, initial state and length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import Inputs, Outputs

if TYPE_CHECKING:
    from harness.contract import FloatArray, IntArray


def sigmoid(a: FloatArray) -> FloatArray:
    """1 / (1 + e^-a), written with tanh so that no input overflows."""
    half = a.dtype.type(0.5)
    result: FloatArray = half + half * np.tanh(half * a)
    return result


def lstm(weights: Mapping[str, FloatArray], inputs: Inputs) -> Outputs:
    """Run the layer whose weights are given, in the dtype of those weights.

    Equations: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as `torch.nn.LSTM` documents:
    i, f, o = sigmoid(W x_t + b_ih + U h_{t-1} + b_hh), g = tanh(the same), c_t = f c_{t-1} + i g, h_t = o tanh(c_t).
    The reverse direction reads each row from its own last real step to its first. Layers and directions follow
    from the names of the weights; extra names (a head's) are ignored.

    Args:
        weights: `weight_ih_l0` (4H, I), `weight_hh_l0` (4H, H), `bias_ih_l0` and `bias_hh_l0` (4H,), and the same with
            `_reverse` and `_l1`, ...
        inputs: x (B, T, I), state two arrays (L*D, B, H) or None, lengths (B,) or None.

    Returns:
        y (B, T, D*H), zero at padding, and (h_n, c_n), each (L*D, B, H).

    Raises:
        KeyError: a weight is missing.
        ValueError: the state or a length does not fit.
    """
    dtype = weights["weight_ih_l0"].dtype
    directions = 2 if "weight_ih_l0_reverse" in weights else 1
    num_layers = sum(name.startswith("weight_ih_l") for name in weights) // directions
    hidden_size = weights["weight_hh_l0"].shape[1]
    batch, time, _ = inputs.x.shape
    state_shape = (num_layers * directions, batch, hidden_size)
    if inputs.state is None:
        h_0, c_0 = np.zeros(state_shape, dtype), np.zeros(state_shape, dtype)
    else:
        h_0, c_0 = (part.astype(dtype) for part in inputs.state)
    if h_0.shape != state_shape or c_0.shape != state_shape:
        raise ValueError(f"each state array must be {state_shape}, got {h_0.shape} and {c_0.shape}")
    lengths = np.full(batch, time) if inputs.lengths is None else np.asarray(inputs.lengths)
    if lengths.shape != (batch,) or lengths.min() < 1 or lengths.max() > time:
        raise ValueError(f"lengths must be {batch} integers in 1..{time}, got {lengths.tolist()}")

    y = inputs.x.astype(dtype)
    h_n, c_n = np.empty(state_shape, dtype), np.empty(state_shape, dtype)
    for layer in range(num_layers):
        outputs = []
        for direction, suffix in enumerate(("", "_reverse")[:directions]):
            k = layer * directions + direction
            parameters = [
                weights[f"{name}_l{layer}{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            output, h_n[k], c_n[k] = _direction(parameters, y, h_0[k], c_0[k], lengths, reverse=bool(direction))
            outputs.append(output)
        y = np.concatenate(outputs, axis=2)  # (B, T, D*H)
    return Outputs(y, (h_n, c_n))


def _direction(
    parameters: list[FloatArray], x: FloatArray, h: FloatArray, c: FloatArray, lengths: IntArray, reverse: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One layer in one direction; a row's state stands still while its input is padding."""
    w, u, b_ih, b_hh = parameters
    batch, time, _ = x.shape
    y = np.zeros((batch, time, h.shape[1]), x.dtype)
    for t in reversed(range(time)) if reverse else range(time):
        gates = x[:, t] @ w.T + b_ih + h @ u.T + b_hh  # (B, 4H)
        i, f, g, o = np.split(gates, 4, axis=1)  # each (B, H)
        c_t = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h_t = sigmoid(o) * np.tanh(c_t)
        real = (t < lengths)[:, None]  # (B, 1)
        h, c = np.where(real, h_t, h), np.where(real, c_t, c)
        y[:, t] = np.where(real, h_t, 0)
    return y, h, c
