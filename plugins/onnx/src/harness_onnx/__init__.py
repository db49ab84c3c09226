"""Runtimes of torch models, exported to ONNX, proved against torch, and run by ONNX Runtime, in float or in 8 bits.

Importing this module imports neither torch, NumPy, onnx nor ONNX Runtime; opening a session does, but never torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

import harness
from harness_onnx.int8 import Int8Runtime
from harness_onnx.runtime import OnnxRuntime

for name in (
    "onnxruntime",
    "onnx",
    "onnxscript",
    "torch",
):  # said here, because only what fails at once is told by `harness list`
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

harness_contract = 1


@harness.hookimpl
def harness_runtimes() -> Iterable[harness.Runtime]:
    """Two runtimes, `onnxruntime` and `onnxruntime-int8`."""
    return [OnnxRuntime(), Int8Runtime()]
