"""PyTorch: `torch.nn.LSTM` and `GRU` as yardsticks, and runtimes for every torch model: `eager`, which also trains,
`compile`, `graph`, `eager-bf16` and `torch-int8`; and the clock of every accelerator that torch knows.

Importing this module imports neither torch nor NumPy; building a layer or opening a session does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING

import harness
from harness_torch.runtime import Compile, Eager, EagerBfloat16, Graph, TorchInt8

if TYPE_CHECKING:
    from harness_torch.layers import TorchGRU, TorchLSTM

for name in ("torch",):  # said here, because only what fails at once is told by `harness list`
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

harness_contract = 1

ACCELERATOR = "torch-accelerator"


def build_lstm(input_size: int, hidden_size: int, num_layers: int = 1) -> TorchLSTM:
    """A freshly initialised `torch.nn.LSTM`."""
    from harness_torch.layers import TorchLSTM

    return TorchLSTM(input_size, hidden_size, num_layers, batch_first=True)


def build_bilstm(input_size: int, hidden_size: int, num_layers: int = 1) -> TorchLSTM:
    """A freshly initialised bidirectional `torch.nn.LSTM`."""
    from harness_torch.layers import TorchLSTM

    return TorchLSTM(input_size, hidden_size, num_layers, batch_first=True, bidirectional=True)


def build_gru(input_size: int, hidden_size: int, num_layers: int = 1) -> TorchGRU:
    """A freshly initialised `torch.nn.GRU`."""
    from harness_torch.layers import TorchGRU

    return TorchGRU(input_size, hidden_size, num_layers, batch_first=True)


def build_bigru(input_size: int, hidden_size: int, num_layers: int = 1) -> TorchGRU:
    """A freshly initialised bidirectional `torch.nn.GRU`."""
    from harness_torch.layers import TorchGRU

    return TorchGRU(input_size, hidden_size, num_layers, batch_first=True, bidirectional=True)


@harness.hookimpl
def harness_models() -> Iterable[harness.Model]:
    """`torch.nn.LSTM` and `torch.nn.GRU`, in one direction and in both: the yardsticks."""
    return [
        harness.Model(
            "torch-lstm",
            harness.LSTM,
            "torch",
            build_lstm,
            takes_lengths=True,
            yardstick=True,
            description="torch.nn.LSTM",
        ),
        harness.Model(
            "torch-bilstm",
            harness.BILSTM,
            "torch",
            build_bilstm,
            takes_lengths=True,
            yardstick=True,
            description="torch.nn.LSTM(bidirectional=True)",
        ),
        harness.Model(
            "torch-gru",
            harness.GRU,
            "torch",
            build_gru,
            takes_lengths=True,
            yardstick=True,
            description="torch.nn.GRU",
        ),
        harness.Model(
            "torch-bigru",
            harness.BIGRU,
            "torch",
            build_bigru,
            takes_lengths=True,
            yardstick=True,
            description="torch.nn.GRU(bidirectional=True)",
        ),
    ]


@harness.hookimpl
def harness_runtimes() -> Iterable[harness.Runtime]:
    """PyTorch as it runs when nothing is compiled, compiled, recorded and replayed, and in fewer bits."""
    return [Eager(), Compile(), Graph(), EagerBfloat16(), TorchInt8()]


def open_accelerator(name: str) -> harness.Device:
    """The accelerator of that name, with its clock."""
    from harness_torch.accelerator import open_device

    return open_device(ACCELERATOR, name)


@harness.hookimpl
def harness_accelerators() -> Iterable[harness.Accelerator]:
    """Every accelerator that this torch knows."""
    return [harness.Accelerator(ACCELERATOR, "every accelerator that PyTorch knows, by its events", open_accelerator)]
