"""Sessions of the NumPy runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]

from harness import ByLength, Inputs, Model, Outputs, Session, SessionOptions, Unsupported

if TYPE_CHECKING:
    from harness.contract import FloatArray

DTYPES = ("float32", "float64")


def open_session(model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
    """Build the model, load its weights in the session's dtype, and set the threads of NumPy's BLAS.

    The number of BLAS threads belongs to the process, so it is set once here and costs nothing in `run`; `close` sets
    it back. Of several sessions open in one process, the one opened last decides. Close them in reverse order.

    Raises:
        Unsupported: a device other than the CPU, a dtype other than float32 and float64, a model that is not NumPy code
            or cannot take weights.
    """
    if options.device != "cpu":
        raise Unsupported(f"runtime 'numpy' runs on the cpu only, not on '{options.device}'; use device cpu")
    if options.dtype not in DTYPES:
        raise Unsupported(f"runtime 'numpy' computes in {' or '.join(DTYPES)}, not in {options.dtype}")
    if model.framework != "numpy":
        raise Unsupported(f"runtime 'numpy' executes numpy models; '{model.name}' is a {model.framework} model")
    size = options.size
    layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
    if hasattr(layer, "load_parameters"):
        parameters = model.to_parameters(weights)
        layer.load_parameters({name: np.asarray(array, options.dtype) for name, array in parameters.items()})
    elif weights:
        raise Unsupported(f"model '{model.name}' has weights but no load_parameters; give its layer that method")
    session = NumpySession(layer, model.takes_lengths, options.threads)
    return session if model.takes_lengths else ByLength(session)


class NumpySession:
    """A NumPy layer, ready to call. Inputs are not copied; the layer sees them through read-only views."""

    def __init__(self, layer: Any, takes_lengths: bool, threads: int) -> None:
        self._layer = layer
        self._takes_lengths = takes_lengths
        self._limits = threadpoolctl.threadpool_limits(limits=threads, user_api="blas")

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """The arguments of the call: x and state, and the lengths where the model takes them."""
        x = _read_only(inputs.x)
        state = None if inputs.state is None else tuple(_read_only(part) for part in inputs.state)
        if not self._takes_lengths:
            return x, state
        return x, state, None if inputs.lengths is None else _read_only(inputs.lengths)

    def run(self, prepared: tuple[Any, ...]) -> Any:
        """Call the layer."""
        return self._layer(*prepared)

    def fetch(self, raw: Any) -> Outputs:
        """The arrays the layer gave; one that is a view of the inputs is copied, so that the caller may write to it."""
        y, state = raw
        return Outputs(_own(y), tuple(_own(part) for part in state))

    def close(self) -> None:
        """Give the BLAS its former number of threads."""
        self._limits.restore_original_limits()


def _read_only(array: Any) -> Any:
    view = array.view()
    view.flags.writeable = False
    return view


def _own(array: Any) -> Any:
    return array if array.flags.writeable else array.copy()
