"""The `openvino` runtime: torch models, exported to ONNX by `rnn-harness-onnx`, and run by OpenVINO on the CPU.

Importing this module imports neither torch, NumPy, onnx nor OpenVINO; opening a session does, but never torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

import harness
from harness_openvino.runtime import OpenvinoRuntime

if importlib.util.find_spec("openvino") is None:  # said here, because only what fails at once is told by `harness list`
    raise ModuleNotFoundError("No module named 'openvino'", name="openvino")

harness_contract = 1


@harness.hookimpl
def harness_runtimes() -> Iterable[harness.Runtime]:
    """One runtime, `openvino`."""
    return [OpenvinoRuntime()]
