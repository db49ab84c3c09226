"""The walk through time that all layers share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]  # h and what else is kept, each (B, H): (h, c) of an LSTM, (h,) of a GRU
Step = Callable[..., State]  # (x_t, h, c) -> (h_t, c_t), or (x_t, h) -> (h_t,)


def over_time(
    step: Step, xs: Tensor, state: State, reverse: bool = False, real: Tensor | None = None
) -> tuple[Tensor, State]:
    """Apply `step` at every time, each time to the state that the time before left behind.

    A Python loop. While a graph is exported it becomes a `scan`, so that the graph has a loop too and takes any T;
    a Python loop would be unrolled for the T of the example. Exported graphs have no padding.

    Args:
        step: `step(x_t, *state)` returns the next state: `(h, c)` or `(h,)`, each (B, H).
        xs: (T, B, features), time first.
        state: the state before the first step.
        reverse: walk from the last time to the first. Time is reversed, never the batch.
        real: (T, B) booleans, False where the input is padding: there the state stands still and the output is 0.
            So a reverse walk starts, for every row, at that row's own last real step. None means all is real.

    Returns:
        The hidden states (T, B, H), always in time order, and the last state.

    Raises:
        ValueError: padding in an exported graph.
    """
    if torch.compiler.is_exporting():
        if real is not None:
            raise ValueError("an exported graph takes no lengths; export layer(x, state)")
        return _scan(step, xs, state, reverse)

    inputs = xs.unbind(0)  # T tensors (B, features)
    outputs = [state[0]] * len(inputs)
    for t in reversed(range(len(inputs))) if reverse else range(len(inputs)):
        new = step(inputs[t], *state)
        if real is None:
            state, outputs[t] = new, new[0]
        else:
            now = real[t, :, None]  # (B, 1)
            state = tuple(torch.where(now, part, old) for part, old in zip(new, state, strict=True))
            outputs[t] = torch.where(now, new[0], 0.0)
    return torch.stack(outputs), state


def _scan(step: Step, xs: Tensor, state: State, reverse: bool) -> tuple[Tensor, State]:
    """The same walk as one operator, which `torch.onnx.export` turns into an ONNX `Scan`."""
    from torch._higher_order_ops.scan import scan

    def body(carry: State, x_t: Tensor) -> tuple[State, Tensor]:
        new = step(x_t, *carry)
        return new, new[0].clone()  # a scan may not return one tensor twice

    last, outputs = scan(body, state, xs, dim=0, reverse=reverse)
    return outputs, last
