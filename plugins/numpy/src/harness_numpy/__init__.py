"""NumPy for rnn-harness: an LSTM, a bidirectional LSTM, and the runtime that executes NumPy models.

Importing this package imports no NumPy; that happens when a layer is built or a session is opened.

**What a NumPy model is.** A model with framework `numpy` gives a `build(input_size=, hidden_size=, num_layers=)` that
returns an object with

- `load_parameters(parameters)`: take these arrays, a mapping from the model's own names (see `Model.to_parameters`);
  not needed where the architecture has no weights. They have the session's dtype; the object must not write to them.
- `__call__(x, state=None) -> (y, state)`, called as `torch.nn.LSTM(batch_first=True)` is: x (B, T, I), y (B, T, D*H),
  state a tuple of arrays (L*D, B, H) or None for zeros. It computes and answers in the dtype of x. x and state are
  read-only views of the caller's arrays. With `Model.takes_lengths` it also takes `lengths`, (B,) or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import harness
from harness import BILSTM, LSTM, Model, Runtime, Session, SessionOptions

if TYPE_CHECKING:
    from harness.contract import FloatArray

harness_contract = 1


def _build_lstm(input_size: int, hidden_size: int, num_layers: int = 1) -> Any:
    from harness_numpy.lstm import LSTMLayer

    return LSTMLayer(input_size, hidden_size, num_layers)


def _build_bilstm(input_size: int, hidden_size: int, num_layers: int = 1) -> Any:
    from harness_numpy.lstm import LSTMLayer

    return LSTMLayer(input_size, hidden_size, num_layers, directions=2)


class NumpyRuntime:
    """Executes models that are NumPy code, on the CPU."""

    name = "numpy"
    frameworks = frozenset({"numpy"})
    description = "NumPy on the CPU"

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
        """Open a session; `harness_numpy.session.open_session` says how and what it refuses."""
        from harness_numpy.session import open_session

        return open_session(model, weights, options)


@harness.hookimpl
def harness_models() -> list[Model]:
    return [
        Model("numpy-lstm", LSTM, "numpy", _build_lstm, description="LSTM in NumPy, one matrix product a step"),
        Model("numpy-bilstm", BILSTM, "numpy", _build_bilstm, description="bidirectional LSTM in NumPy"),
    ]


@harness.hookimpl
def harness_runtimes() -> list[Runtime]:
    return [NumpyRuntime()]
