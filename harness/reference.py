"""The oracle: LSTM and GRU in NumPy, from the equations, for every direction, layer, initial state and length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import Inputs, Outputs

if TYPE_CHECKING:
    from harness.contract import FloatArray, IntArray

    State = tuple[FloatArray, ...]  # each (B, H), h first
    Step = Callable[[FloatArray, State, list[FloatArray]], State]  # x_t (B, I), the state before, the parameters


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
    return _layers(_lstm_step, 2, weights, inputs)


def gru(weights: Mapping[str, FloatArray], inputs: Inputs) -> Outputs:
    """Run the layer whose weights are given, in the dtype of those weights.

    Equations: Cho et al. 2014, in the form that `torch.nn.GRU` documents, where the reset gate comes after the product:
    r, z = sigmoid(W x_t + b_ih + U h_{t-1} + b_hh), n = tanh(W x_t + b_ih + r (U h_{t-1} + b_hh)),
    h_t = (1 - z) n + z h_{t-1}. Directions, layers and names are those of `lstm`.

    Args:
        weights: `weight_ih_l0` (3H, I), `weight_hh_l0` (3H, H), `bias_ih_l0` and `bias_hh_l0` (3H,), and the same with
            `_reverse` and `_l1`, ...
        inputs: x (B, T, I), state one array (L*D, B, H) or None, lengths (B,) or None.

    Returns:
        y (B, T, D*H), zero at padding, and (h_n,), (L*D, B, H).

    Raises:
        KeyError: a weight is missing.
        ValueError: the state or a length does not fit.
    """
    return _layers(_gru_step, 1, weights, inputs)


def _lstm_step(x: FloatArray, state: State, parameters: list[FloatArray]) -> State:
    (h, c), (w, u, b_ih, b_hh) = state, parameters
    gates = x @ w.T + b_ih + h @ u.T + b_hh  # (B, 4H)
    i, f, g, o = np.split(gates, 4, axis=1)  # each (B, H)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def _gru_step(x: FloatArray, state: State, parameters: list[FloatArray]) -> State:
    (h,), (w, u, b_ih, b_hh) = state, parameters
    r_x, z_x, n_x = np.split(x @ w.T + b_ih, 3, axis=1)  # each (B, H)
    r_h, z_h, n_h = np.split(h @ u.T + b_hh, 3, axis=1)  # each (B, H)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    return ((1 - z) * n + z * h,)


def _layers(step: Step, parts: int, weights: Mapping[str, FloatArray], inputs: Inputs) -> Outputs:
    """Every layer in every direction; the state has so many parts."""
    dtype = weights["weight_ih_l0"].dtype
    directions = 2 if "weight_ih_l0_reverse" in weights else 1
    num_layers = sum(name.startswith("weight_ih_l") for name in weights) // directions
    hidden_size = weights["weight_hh_l0"].shape[1]
    batch, time, _ = inputs.x.shape
    shapes = [(num_layers * directions, batch, hidden_size)] * parts
    if inputs.state is None:
        state = tuple(np.zeros(shape, dtype) for shape in shapes)
    else:
        state = tuple(part.astype(dtype) for part in inputs.state)
    if [part.shape for part in state] != shapes:
        raise ValueError(f"the state's shapes must be {shapes}, got {[part.shape for part in state]}")
    lengths = np.full(batch, time) if inputs.lengths is None else np.asarray(inputs.lengths)
    if lengths.shape != (batch,) or lengths.min() < 1 or lengths.max() > time:
        raise ValueError(f"lengths must be {batch} integers in 1..{time}, got {lengths.tolist()}")

    y = inputs.x.astype(dtype)
    last = tuple(np.empty(shape, dtype) for shape in shapes)
    for layer in range(num_layers):
        outputs = []
        for direction, suffix in enumerate(("", "_reverse")[:directions]):
            k = layer * directions + direction
            parameters = [
                weights[f"{name}_l{layer}{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            first = tuple(part[k] for part in state)
            output, end = _direction(step, parameters, y, first, lengths, reverse=bool(direction))
            outputs.append(output)
            for part, value in zip(last, end, strict=True):
                part[k] = value
        y = np.concatenate(outputs, axis=2)  # (B, T, D*H)
    return Outputs(y, last)


def _direction(
    step: Step, parameters: list[FloatArray], x: FloatArray, state: State, lengths: IntArray, reverse: bool
) -> tuple[FloatArray, State]:
    """One layer in one direction; a row's state stands still while its input is padding."""
    batch, time, _ = x.shape
    y = np.zeros((batch, time, state[0].shape[1]), x.dtype)
    for t in reversed(range(time)) if reverse else range(time):
        real = (t < lengths)[:, None]  # (B, 1)
        new = step(x[:, t], state, parameters)
        state = tuple(np.where(real, one, old) for one, old in zip(new, state, strict=True))
        y[:, t] = np.where(real, state[0], 0)
    return y, state
