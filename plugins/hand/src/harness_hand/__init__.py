"""LSTM and BiLSTM written by hand: `hand-*` to be read, `fused-*` to be fast.

Importing this module imports neither torch nor NumPy; building a layer does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from harness_hand.fused import FusedLSTM
    from harness_hand.lstm import HandLSTM


def _hand(input_size: int, hidden_size: int, num_layers: int, directions: int) -> HandLSTM:
    from harness_hand.lstm import HandLSTM

    return HandLSTM(input_size, hidden_size, num_layers, directions)


def _fused(input_size: int, hidden_size: int, num_layers: int, directions: int) -> FusedLSTM:
    from harness_hand.fused import FusedLSTM

    return FusedLSTM(input_size, hidden_size, num_layers, directions)


def build_hand_lstm(input_size: int, hidden_size: int, num_layers: int = 1) -> HandLSTM:
    """A freshly initialised `HandLSTM` that reads forward."""
    return _hand(input_size, hidden_size, num_layers, 1)


def build_hand_bilstm(input_size: int, hidden_size: int, num_layers: int = 1) -> HandLSTM:
    """A freshly initialised `HandLSTM` that reads both ways."""
    return _hand(input_size, hidden_size, num_layers, 2)


def build_fused_lstm(input_size: int, hidden_size: int, num_layers: int = 1) -> FusedLSTM:
    """A freshly initialised `FusedLSTM` that reads forward."""
    return _fused(input_size, hidden_size, num_layers, 1)


def build_fused_bilstm(input_size: int, hidden_size: int, num_layers: int = 1) -> FusedLSTM:
    """A freshly initialised `FusedLSTM` that reads both ways."""
    return _fused(input_size, hidden_size, num_layers, 2)


@harness.hookimpl
def harness_models() -> Iterable[harness.Model]:
    """Four models: two architectures, each once as a lesson and once fast."""
    from harness_hand.doors import to_gates, to_standard

    read, fast = "the equations, one gate at a time", "one product for all four gates, inputs projected in advance"
    return [
        harness.Model(
            "hand-lstm",
            harness.LSTM,
            "torch",
            build_hand_lstm,
            takes_lengths=True,
            to_parameters=to_gates,
            from_parameters=to_standard,
            description=read,
        ),
        harness.Model(
            "hand-bilstm",
            harness.BILSTM,
            "torch",
            build_hand_bilstm,
            takes_lengths=True,
            to_parameters=to_gates,
            from_parameters=to_standard,
            description=f"{read}, both ways",
        ),
        harness.Model("fused-lstm", harness.LSTM, "torch", build_fused_lstm, takes_lengths=True, description=fast),
        harness.Model(
            "fused-bilstm",
            harness.BILSTM,
            "torch",
            build_fused_bilstm,
            takes_lengths=True,
            description=f"{fast}, both ways",
        ),
    ]
