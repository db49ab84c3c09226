"""rnn-harness: parity, accuracy and latency of recurrent models, side by side.

Plugins import everything they need from here. `load`, `Run`, `discover` and `wrap` import theirs when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.architectures import BIGRU, BILSTM, GRU, LSTM
from harness.contract import (
    CONTRACT_VERSION,
    Accelerator,
    Architecture,
    Data,
    DataError,
    Device,
    DeviceState,
    HarnessError,
    Inputs,
    LayerSize,
    Model,
    Outputs,
    Recipe,
    ReportFormat,
    Runtime,
    Session,
    SessionOptions,
    Split,
    Task,
    Trainable,
    Trainer,
    Unsupported,
)
from harness.hookspecs import hookimpl

if TYPE_CHECKING:
    from harness.catalog import discover
    from harness.ragged import ByLength
    from harness.store import Run, load
    from harness.wrapping import wrap

__version__ = "0.1.0"

__all__ = [
    "BIGRU",
    "BILSTM",
    "CONTRACT_VERSION",
    "GRU",
    "LSTM",
    "Accelerator",
    "Architecture",
    "ByLength",
    "Data",
    "DataError",
    "Device",
    "DeviceState",
    "HarnessError",
    "Inputs",
    "LayerSize",
    "Model",
    "Outputs",
    "Recipe",
    "ReportFormat",
    "Run",
    "Runtime",
    "Session",
    "SessionOptions",
    "Split",
    "Task",
    "Trainable",
    "Trainer",
    "Unsupported",
    "discover",
    "hookimpl",
    "load",
    "wrap",
]

_LAZY = {
    "discover": "harness.catalog",
    "ByLength": "harness.ragged",
    "Run": "harness.store",
    "load": "harness.store",
    "wrap": "harness.wrapping",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
