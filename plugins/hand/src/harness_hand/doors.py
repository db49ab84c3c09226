"""Weights on their way between `torch.nn.LSTM`'s layout and `HandLSTM`'s. Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.contract import FloatArray

GATES = ("i", "f", "g", "o")  # the order in which torch.nn.LSTM stacks them
WAYS = (("forward_cells", ""), ("backward_cells", "_reverse"))  # a direction here, and its ending there


def to_gates(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """From the standard names to one array per gate, for example `forward_cells.0.U_i` for layer 0.

    U is (H, I), V is (H, H), b is (H,). The equations have one bias, so b = b_ih + b_hh. Names that are not a
    layer's weights (a head's) are left out; the dtype stays.
    """
    import numpy as np

    parameters: dict[str, FloatArray] = {}
    for cells, way in WAYS:
        for layer in range(sum(f"weight_ih_l{n}{way}" in weights for n in range(len(weights)))):
            ending = f"_l{layer}{way}"
            stacked = {
                "U": weights["weight_ih" + ending],  # (4H, I)
                "V": weights["weight_hh" + ending],  # (4H, H)
                "b": weights["bias_ih" + ending] + weights["bias_hh" + ending],  # (4H,)
            }
            for letter, array in stacked.items():
                for gate, part in zip(GATES, np.split(array, 4), strict=True):
                    parameters[f"{cells}.{layer}.{letter}_{gate}"] = part
    return parameters


def to_standard(parameters: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The way back: b becomes b_ih and b_hh is zero, so that nothing is rounded. Other names are left out."""
    import numpy as np

    weights: dict[str, FloatArray] = {}
    for cells, way in WAYS:
        for layer in range(sum(f"{cells}.{n}.U_i" in parameters for n in range(len(parameters)))):
            ending = f"_l{layer}{way}"
            u, v, b = (
                np.concatenate([parameters[f"{cells}.{layer}.{letter}_{gate}"] for gate in GATES]) for letter in "UVb"
            )
            weights["weight_ih" + ending] = u  # (4H, I)
            weights["weight_hh" + ending] = v  # (4H, H)
            weights["bias_ih" + ending] = b  # (4H,)
            weights["bias_hh" + ending] = np.zeros_like(b)
    return weights
