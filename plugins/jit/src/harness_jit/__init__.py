"""An LSTM and a bidirectional LSTM compiled by numba, and the runtime that executes such models, for rnn-harness.

Importing this package imports neither NumPy nor numba; that happens when a layer is built or a session is opened.

**What a numba model is.** A model with framework `numba` gives a `build(input_size=, hidden_size=, num_layers=)` that
returns an object with

- `load_parameters(parameters)`: take these arrays, a mapping from the model's own names (see `Model.to_parameters`);
  not needed where the architecture has no weights. They have the session's dtype; the object must not write to them.
- `compile()`: compile what calls need, for the dtype of the weights, so that no timed call does. May be left out.
- `__call__(x, state=None) -> (y, state)`, called as `torch.nn.LSTM(batch_first=True)` is: x (B, T, I), y (B, T, D*H),
  state a tuple of arrays (L*D, B, H) or None for zeros. x is C-contiguous, aligned and marked as writeable, because
  numba compiles for such arrays; the object must not write to it or the state. It answers in the dtype of x, in arrays
  of its own. With `Model.takes_lengths` it also takes `lengths`, (B,) or None.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import harness
from harness import BILSTM, LSTM, Model, Runtime, Session, SessionOptions

if TYPE_CHECKING:
    from harness.contract import FloatArray

if importlib.util.find_spec("numba") is None:  # said here, because only what fails at once is told by `harness list`
    raise ModuleNotFoundError("No module named 'numba'", name="numba")

harness_contract = 1


def _build_lstm(input_size: int, hidden_size: int, num_layers: int = 1) -> Any:
    from harness_jit.layer import LSTMLayer

    return LSTMLayer(input_size, hidden_size, num_layers)


def _build_bilstm(input_size: int, hidden_size: int, num_layers: int = 1) -> Any:
    from harness_jit.layer import LSTMLayer

    return LSTMLayer(input_size, hidden_size, num_layers, directions=2)


class JitRuntime:
    """Executes models that numba compiles, on the CPU."""

    name = "jit"
    frameworks = frozenset({"numba"})
    description = "code compiled by numba, on the CPU, on one thread"

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
        """Open a session; `harness_jit.session.open_session` says how and what it refuses."""
        from harness_jit.session import open_session

        return open_session(model, weights, options)


@harness.hookimpl
def harness_models() -> list[Model]:
    return [
        Model("jit-lstm", LSTM, "numba", _build_lstm, description="LSTM compiled by numba, fast at batch 1"),
        Model("jit-bilstm", BILSTM, "numba", _build_bilstm, description="bidirectional LSTM compiled by numba"),
    ]


@harness.hookimpl
def harness_runtimes() -> list[Runtime]:
    return [JitRuntime()]
