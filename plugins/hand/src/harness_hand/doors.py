"""Weights on their way between the layouts of `torch.nn.LSTM` and `GRU` and those of `HandLSTM` and `HandGRU`.

Pure NumPy. The equations' letters: U (H, I) and V (H, H) are matrices, b and d (H,) biases, one per gate. A cell is
named `forward_cells.0` for layer 0; in torch the same layer's names end in `_l0`. Names that are not a layer's weights
(a head's) are left out on both ways; the dtype stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.contract import FloatArray

LSTM_GATES = ("i", "f", "g", "o")  # the order in which torch.nn.LSTM stacks them
GRU_GATES = ("r", "z", "n")  # and torch.nn.GRU
WAYS = (("forward_cells", ""), ("backward_cells", "_reverse"))  # a direction here, and its ending there


def lstm_to_gates(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """From the standard names to one array per gate, for example `forward_cells.0.U_i`.

    The equations have one bias, so b = b_ih + b_hh.
    """
    parameters: dict[str, FloatArray] = {}
    for cell, ending in _cells(lambda cell, ending: "weight_ih" + ending in weights):
        parameters |= _cut(cell, "U", LSTM_GATES, weights["weight_ih" + ending])
        parameters |= _cut(cell, "V", LSTM_GATES, weights["weight_hh" + ending])
        parameters |= _cut(cell, "b", LSTM_GATES, weights["bias_ih" + ending] + weights["bias_hh" + ending])
    return parameters


def lstm_to_standard(parameters: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The way back: b becomes b_ih and b_hh is zero, so that nothing is rounded."""
    import numpy as np

    weights: dict[str, FloatArray] = {}
    for cell, ending in _cells(lambda cell, ending: f"{cell}.U_i" in parameters):
        weights["weight_ih" + ending] = _stack(cell, "U", LSTM_GATES, parameters)  # (4H, I)
        weights["weight_hh" + ending] = _stack(cell, "V", LSTM_GATES, parameters)  # (4H, H)
        weights["bias_ih" + ending] = b = _stack(cell, "b", LSTM_GATES, parameters)  # (4H,)
        weights["bias_hh" + ending] = np.zeros_like(b)
    return weights


def gru_to_gates(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """From the standard names to one array per gate, for example `forward_cells.0.U_r`.

    The two gates have one bias each, b = b_ih + b_hh. The candidate keeps both, b_n and d_n: the reset gate stands
    between them.
    """
    parameters: dict[str, FloatArray] = {}
    for cell, ending in _cells(lambda cell, ending: "weight_ih" + ending in weights):
        b_ih, b_hh = weights["bias_ih" + ending], weights["bias_hh" + ending]  # (3H,)
        parameters |= _cut(cell, "U", GRU_GATES, weights["weight_ih" + ending])
        parameters |= _cut(cell, "V", GRU_GATES, weights["weight_hh" + ending])
        parameters |= _cut(cell, "b", GRU_GATES, b_ih + b_hh)
        parameters[f"{cell}.b_n"] = _cut(cell, "b", GRU_GATES, b_ih)[f"{cell}.b_n"]
        parameters[f"{cell}.d_n"] = _cut(cell, "d", GRU_GATES, b_hh)[f"{cell}.d_n"]
    return parameters


def gru_to_standard(parameters: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The way back: b becomes b_ih, and b_hh is zero but for d_n, so that nothing is rounded."""
    import numpy as np

    weights: dict[str, FloatArray] = {}
    for cell, ending in _cells(lambda cell, ending: f"{cell}.U_r" in parameters):
        d_n = parameters[f"{cell}.d_n"]
        weights["weight_ih" + ending] = _stack(cell, "U", GRU_GATES, parameters)  # (3H, I)
        weights["weight_hh" + ending] = _stack(cell, "V", GRU_GATES, parameters)  # (3H, H)
        weights["bias_ih" + ending] = _stack(cell, "b", GRU_GATES, parameters)  # (3H,)
        weights["bias_hh" + ending] = np.concatenate([np.zeros_like(d_n), np.zeros_like(d_n), d_n])
    return weights


def _cells(is_there: Callable[[str, str], bool]) -> Iterator[tuple[str, str]]:
    """Every cell's name here and its ending there."""
    for cells, way in WAYS:
        for layer in itertools.count():
            cell, ending = f"{cells}.{layer}", f"_l{layer}{way}"
            if not is_there(cell, ending):
                break
            yield cell, ending


def _cut(cell: str, letter: str, gates: tuple[str, ...], stacked: FloatArray) -> dict[str, FloatArray]:
    import numpy as np

    parts = np.split(stacked, len(gates))
    return {f"{cell}.{letter}_{gate}": part for gate, part in zip(gates, parts, strict=True)}


def _stack(cell: str, letter: str, gates: tuple[str, ...], parameters: Mapping[str, FloatArray]) -> FloatArray:
    import numpy as np

    return np.concatenate([parameters[f"{cell}.{letter}_{gate}"] for gate in gates])
