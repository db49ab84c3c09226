"""Sessions of the runtime `jit`."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import ByLength, Inputs, Model, Outputs, Session, SessionOptions, Unsupported

if TYPE_CHECKING:
    from harness.contract import FloatArray

DTYPES = ("float32", "float64")


def open_session(model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
    """Build the model, load its weights in the session's dtype, and compile it.

    Raises:
        Unsupported: a device other than the CPU, a dtype other than float32 and float64, a model that is not numba code
            or cannot take weights, a numba that cannot be imported.
    """
    if options.device != "cpu":
        raise Unsupported(f"runtime 'jit' runs on the cpu only, not on '{options.device}'; use device cpu")
    if options.dtype not in DTYPES:
        raise Unsupported(f"runtime 'jit' computes in {' or '.join(DTYPES)}, not in {options.dtype}")
    if model.framework != "numba":
        raise Unsupported(f"runtime 'jit' executes numba models; '{model.name}' is a {model.framework} model")
    try:
        import numba  # noqa: F401  also refuses a NumPy that is too new for it
    except ImportError as error:
        raise Unsupported(f"runtime 'jit' needs numba ({error}); pip install numba") from error
    size = options.size
    layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
    if hasattr(layer, "load_parameters"):
        exact = {name: np.asarray(array, options.dtype) for name, array in weights.items()}
        layer.load_parameters(model.to_parameters(exact))
    elif weights:
        raise Unsupported(f"model '{model.name}' has weights but no load_parameters; give its layer that method")
    compile_seconds = None
    if hasattr(layer, "compile"):
        began = perf_counter()
        layer.compile()
        compile_seconds = perf_counter() - began
    session = JitSession(layer, model.takes_lengths, compile_seconds)
    return session if model.takes_lengths else ByLength(session)


class JitSession:
    """A layer whose code is compiled, ready to call.

    Attributes:
        compile_seconds: how long its `compile` took, hardly anything where this process had compiled its code before;
            None if it has none, so that it is not known when it compiles.
    """

    def __init__(self, layer: Any, takes_lengths: bool, compile_seconds: float | None = None) -> None:
        self.compile_seconds = compile_seconds
        self._layer = layer
        self._takes_lengths = takes_lengths

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """The arguments of the call: x, copied if it must be, and state, and the lengths where the model takes them."""
        x: Any = inputs.x
        if not x.flags.carray:  # C-contiguous, aligned and writeable, as compiled code is typed for
            x = np.array(x, order="C")
        return (x, inputs.state, inputs.lengths) if self._takes_lengths else (x, inputs.state)

    def run(self, prepared: tuple[Any, ...]) -> Any:
        """Call the layer."""
        return self._layer(*prepared)

    def fetch(self, raw: Any) -> Outputs:
        """The arrays the layer gave."""
        y, state = raw
        return Outputs(y, tuple(state))

    def close(self) -> None:
        """Let go of the layer and its memory. The compiled code stays in the process, for the next session."""
        self._layer = None
