"""Sessions that compute in fewer bits: in bfloat16, and in int8 with torch's dynamic quantisation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.ao.nn.quantized.dynamic as quantized
from torch import Tensor, nn
from torch.ao.quantization import default_dynamic_qconfig

import harness
from harness_torch.layers import TorchGRU, TorchLSTM
from harness_torch.session import EagerSession, find_device, open_layer

if TYPE_CHECKING:
    from harness.contract import FloatArray

RECURRENT = {nn.LSTM: quantized.LSTM, TorchLSTM: quantized.LSTM, nn.GRU: quantized.GRU, TorchGRU: quantized.GRU}
PLAIN = {TorchLSTM: nn.LSTM, TorchGRU: nn.GRU}  # what these are when nobody gives them lengths


def open_bfloat16(
    runtime: str, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
) -> harness.Session:
    """A session whose layer has weights, inputs and states in bfloat16; see `EagerBfloat16.open`."""
    require_float32(runtime, options)
    layer = open_layer(runtime, model, weights, options).eval().to(torch.bfloat16)
    session = Bfloat16Session(layer, find_device(f"runtime '{runtime}'", options.device), options)
    return session if model.takes_lengths else harness.ByLength(session)


def open_int8(
    runtime: str, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
) -> harness.Session:
    """A session whose layer multiplies in int8; see `TorchInt8.open`."""
    require_float32(runtime, options)
    if options.device != "cpu":
        raise harness.Unsupported(f"runtime '{runtime}' runs on the cpu only, not on '{options.device}'")
    layer = quantize(runtime, model, open_layer(runtime, model, weights, options).eval())
    return harness.ByLength(EagerSession(layer, torch.device("cpu"), options))


class Bfloat16Session(EagerSession):
    """Rounds what goes in to bfloat16 in `prepare`, and gives float32 from `fetch`."""

    def prepare(self, inputs: harness.Inputs) -> tuple[Any, ...]:
        """The layer's arguments on the device, floats rounded to the nearest bfloat16."""
        x, state, *lengths = super().prepare(inputs)
        if state is not None:
            state = to_bfloat16(state) if isinstance(state, Tensor) else tuple(map(to_bfloat16, state))
        return to_bfloat16(x), state, *lengths

    def fetch(self, raw: Any) -> harness.Outputs:
        """The layer's `(y, state)` as NumPy arrays in float32, which has every bfloat16."""
        y, state = raw
        parts = (state.float(),) if isinstance(state, Tensor) else tuple(part.float() for part in state)
        return super().fetch((y.float(), parts))


def to_bfloat16(tensor: Tensor) -> Tensor:
    """The nearest bfloat16 of every element."""
    return tensor.to(torch.bfloat16)


def quantize(runtime: str, model: harness.Model, layer: nn.Module) -> nn.Module:
    """The layer with every recurrent and linear module quantised: weights in int8, activations anew at each call.

    Raises:
        Unsupported: a weight matrix would stay in float.
    """
    with warnings.catch_warnings():  # torch 2.13 has it and says that it will go
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        converted = _converted(layer)
    left = [name for name, tensor in _tensors(converted) if tensor.is_floating_point() and tensor.ndim > 1]
    if left:
        raise harness.Unsupported(
            f"runtime '{runtime}' quantises nn.LSTM, nn.GRU and nn.Linear; in model '{model.name}' "
            f"{', '.join(left[:3])}{' and others' if len(left) > 3 else ''} would stay in float"
        )
    return converted


def _tensors(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a layer, and the tensors that are plain attributes of its modules."""
    yield from layer.named_parameters()
    yield from layer.named_buffers()
    for path, module in layer.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}".lstrip("."), value


def _converted(module: nn.Module) -> nn.Module:
    kind = RECURRENT.get(type(module), quantized.Linear if type(module) is nn.Linear else None)
    if kind is not None:
        module.__class__ = PLAIN.get(type(module), type(module))
        setattr(module, "qconfig", default_dynamic_qconfig)  # noqa: B010  where `from_float` looks for it
        return kind.from_float(module)  # type: ignore[no-any-return, no-untyped-call]
    for name, child in module.named_children():
        setattr(module, name, _converted(child))
    return module


def require_float32(runtime: str, options: harness.SessionOptions) -> None:
    """Refuse other arrays than float32, of which nothing would be left.

    Raises:
        Unsupported: the options ask for another dtype.
    """
    if options.dtype != "float32":
        raise harness.Unsupported(f"runtime '{runtime}' takes float32 arrays, not {options.dtype}")
