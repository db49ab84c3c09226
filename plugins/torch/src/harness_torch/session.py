"""Sessions: a torch layer with weights, on a device, ready to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import harness
from harness_torch.memory import forget_peak, peak_device_bytes
from harness_torch.process_state import settle, settle_all

if TYPE_CHECKING:
    from harness.contract import Array, FloatArray

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def open_session(
    runtime: str, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
) -> harness.Session:
    """A session of the model with these weights; see `Eager.open`."""
    layer = open_layer(runtime, model, weights, options).eval()
    session = EagerSession(layer, find_device(f"runtime '{runtime}'", options.device), options)
    return session if model.takes_lengths else harness.ByLength(session)


class EagerSession:
    """Calls a layer under `torch.inference_mode`.

    An architecture with one state array gets and gives it as `torch.nn.GRU` does: a tensor, not a tuple of one.
    """

    def __init__(self, layer: Callable[..., Any], device: torch.device, options: harness.SessionOptions) -> None:
        self._layer = layer
        self._device = device
        self._dtype = options.dtype
        self._threads = options.threads
        self._is_asynchronous = device.type != "cpu"

    @property
    def peak_device_bytes(self) -> int | None:
        """The most memory that all of torch's tensors have held on the device since a session was last opened there.

        None on the CPU, and for a device whose memory torch does not count.
        """
        return peak_device_bytes(self._device)

    def prepare(self, inputs: harness.Inputs) -> tuple[Any, ...]:
        """The layer's arguments on the device: (x, state), and lengths if there are any."""
        settle(self._threads)
        x = to_tensor(inputs.x, self._device, self._dtype)
        state: Any = None
        if inputs.state is not None:
            state = tuple(to_tensor(part, self._device, self._dtype) for part in inputs.state)
            state = state if len(state) > 1 else state[0]
        if inputs.lengths is None:
            return x, state
        return x, state, to_tensor(inputs.lengths, self._device, "int64")

    def run(self, prepared: tuple[Any, ...]) -> Any:
        """Call the layer and wait until the device has finished."""
        with torch.inference_mode():
            raw = self._layer(*prepared)
        if self._is_asynchronous:
            torch.accelerator.synchronize(self._device)
        return raw

    def fetch(self, raw: Any) -> harness.Outputs:
        """The layer's `(y, state)` as NumPy arrays."""
        y, state = raw
        parts = (state,) if isinstance(state, Tensor) else state
        return harness.Outputs(y.cpu().numpy(), tuple(part.cpu().numpy() for part in parts))

    def close(self) -> None:
        """Let go of the layer and its weights."""
        self.__dict__.clear()


def open_layer(
    runtime: str, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
) -> nn.Module:
    """The layer, built, with these weights, on the device and in the dtype of the options; see `settle_all`."""
    if options.dtype not in DTYPES:
        raise harness.Unsupported(
            f"runtime '{runtime}' cannot run model '{model.name}' in {options.dtype}; choose one of {', '.join(DTYPES)}"
        )
    device = find_device(f"runtime '{runtime}'", options.device)
    settle_all(options.threads)
    layer = build(model, options.size)
    settle_all(options.threads)  # after the model's own code
    forget_peak(device)
    try:
        layer.to(device, DTYPES[options.dtype])  # before the weights come, so that they are not rounded on the way
    except TypeError as error:  # some accelerators have no float64
        raise harness.Unsupported(
            f"runtime '{runtime}' cannot run model '{model.name}' in {options.dtype} on '{options.device}' "
            f"({one_line(error)}); choose another dtype or device"
        ) from error
    load_weights(layer, model, weights)
    return layer


def build(model: harness.Model, size: harness.LayerSize) -> nn.Module:
    """The model's layer on the CPU, with its own initialisation."""
    layer: nn.Module = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
    return layer


def load_weights(layer: nn.Module, model: harness.Model, weights: Mapping[str, FloatArray]) -> None:
    """Bring weights in the standard layout into the layer, through the model's door; a head's are left out.

    Raises:
        HarnessError: names or shapes are not those of the layer.
    """
    parameters = model.to_parameters({name: array for name, array in weights.items() if not is_head(name)})
    given = {name: torch.from_numpy(np.array(array)) for name, array in parameters.items()}
    wanted = layer.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} for {tuple(wanted[name].shape)}"
            for name in sorted(wanted.keys() & given.keys())
            if given[name].shape != wanted[name].shape
        ],
    }
    found = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
    if found:
        raise harness.HarnessError(
            f"the weights do not fit the layer of model '{model.name}' ({found}); check the size asked for and give "
            "its Model the to_parameters and from_parameters that turn torch.nn.LSTM's weights into its own"
        )
    layer.load_state_dict(given, strict=True)


def is_head(name: str) -> bool:
    """Whether a weight belongs to the harness's head and not to the layer."""
    return name.startswith("head.")


def find_device(who: str, name: str) -> torch.device:
    """The device of that name, with its number: `cuda` is the one of these that is current now.

    Args:
        who: asks for it, such as `runtime 'eager'`.
        name: of the device.

    Raises:
        Unsupported: it is not here; the text names those that are.
    """
    here = ["cpu"]
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is not None:
        here += [accelerator.type, *(f"{accelerator.type}:{n}" for n in range(torch.accelerator.device_count()))]
    if name not in here:
        raise harness.Unsupported(f"{who} finds no device '{name}' here; choose one of {', '.join(here)}")
    return torch.empty(0, device=name).device


def to_tensor(array: Array, device: torch.device, dtype: str) -> Tensor:
    """A copy of the array on the device, so that whatever a layer does to it, the caller's array stays."""
    return torch.from_numpy(np.array(array, dtype=dtype, order="C")).to(device)


def to_array(tensor: Tensor) -> Array:
    """A copy of the tensor as a NumPy array."""
    return np.array(tensor.detach().cpu().numpy())


def one_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return str(error).partition("\n")[0]
