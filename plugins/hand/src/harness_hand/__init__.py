"""LSTM and GRU written by hand, one way and both ways: `hand-*` to be read, `fused-*` to be fast.

Importing this module imports neither torch nor NumPy; building a layer does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from harness_hand.fused import FusedLSTM
    from harness_hand.gru import HandGRU
    from harness_hand.lstm import HandLSTM

for name in ("torch",):  # said here, because only what fails at once is told by `harness list`
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

harness_contract = 1


def _hand(input_size: int, hidden_size: int, num_layers: int, directions: int) -> HandLSTM:
    from harness_hand.lstm import HandLSTM

    return HandLSTM(input_size, hidden_size, num_layers, directions)


def _hand_gru(input_size: int, hidden_size: int, num_layers: int, directions: int) -> HandGRU:
    from harness_hand.gru import HandGRU

    return HandGRU(input_size, hidden_size, num_layers, directions)


def _fused(input_size: int, hidden_size: int, num_layers: int, directions: int) -> FusedLSTM:
    from harness_hand.fused import FusedLSTM

    return FusedLSTM(input_size, hidden_size, num_layers, directions)


def build_hand_lstm(input_size: int, hidden_size: int, num_layers: int = 1) -> HandLSTM:
    """A freshly initialised `HandLSTM` that reads forward."""
    return _hand(input_size, hidden_size, num_layers, 1)


def build_hand_bilstm(input_size: int, hidden_size: int, num_layers: int = 1) -> HandLSTM:
    """A freshly initialised `HandLSTM` that reads both ways."""
    return _hand(input_size, hidden_size, num_layers, 2)


def build_hand_gru(input_size: int, hidden_size: int, num_layers: int = 1) -> HandGRU:
    """A freshly initialised `HandGRU` that reads forward."""
    return _hand_gru(input_size, hidden_size, num_layers, 1)


def build_hand_bigru(input_size: int, hidden_size: int, num_layers: int = 1) -> HandGRU:
    """A freshly initialised `HandGRU` that reads both ways."""
    return _hand_gru(input_size, hidden_size, num_layers, 2)


def build_fused_lstm(input_size: int, hidden_size: int, num_layers: int = 1) -> FusedLSTM:
    """A freshly initialised `FusedLSTM` that reads forward."""
    return _fused(input_size, hidden_size, num_layers, 1)


def build_fused_bilstm(input_size: int, hidden_size: int, num_layers: int = 1) -> FusedLSTM:
    """A freshly initialised `FusedLSTM` that reads both ways."""
    return _fused(input_size, hidden_size, num_layers, 2)


@harness.hookimpl
def harness_models() -> Iterable[harness.Model]:
    """Four architectures as a lesson, and the two LSTMs once more, fast."""
    from harness_hand.doors import gru_to_gates, gru_to_standard, lstm_to_gates, lstm_to_standard

    read, fast = "the equations, one gate at a time", "one product for all four gates, inputs projected in advance"
    return [
        harness.Model(
            "hand-lstm",
            harness.LSTM,
            "torch",
            build_hand_lstm,
            takes_lengths=True,
            to_parameters=lstm_to_gates,
            from_parameters=lstm_to_standard,
            description=read,
        ),
        harness.Model(
            "hand-bilstm",
            harness.BILSTM,
            "torch",
            build_hand_bilstm,
            takes_lengths=True,
            to_parameters=lstm_to_gates,
            from_parameters=lstm_to_standard,
            description=f"{read}, both ways",
        ),
        harness.Model(
            "hand-gru",
            harness.GRU,
            "torch",
            build_hand_gru,
            takes_lengths=True,
            to_parameters=gru_to_gates,
            from_parameters=gru_to_standard,
            description=read,
        ),
        harness.Model(
            "hand-bigru",
            harness.BIGRU,
            "torch",
            build_hand_bigru,
            takes_lengths=True,
            to_parameters=gru_to_gates,
            from_parameters=gru_to_standard,
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
