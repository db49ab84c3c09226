"""The walk through time that both layers share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, Tensor]  # (h, c), each (B, H)
Step = Callable[[Tensor, Tensor, Tensor], State]  # (x_t, h, c) -> (h_t, c_t)


def over_time(
    step: Step, xs: Tensor, state: State, reverse: bool = False, real: Tensor | None = None
) -> tuple[Tensor, State]:
    """Apply `step` at every time, each time to the state that the time before left behind.

    A Python loop. While a graph is exported it becomes a `scan`, so that the graph has a loop too and takes any T;
    a Python loop would be unrolled for the T of the example. Exported graphs have no padding.

    Args:
        step: `step(x_t, h, c)` returns the next `(h, c)`; every h and c is (B, H).
        xs: (T, B, features), time first.
        state: `(h, c)` before the first step.
        reverse: walk from the last time to the first. Time is reversed, never the batch.
        real: (T, B) booleans, False where the input is padding: there the state stands still and the output is 0.
            So a reverse walk starts, for every row, at that row's own last real step. None means all is real.

    Returns:
        The hidden states (T, B, H), always in time order, and the last `(h, c)`.

    Raises:
        ValueError: padding in an exported graph.
    """
    if torch.compiler.is_exporting():
        if real is not None:
            raise ValueError("an exported graph takes no lengths; export layer(x, state)")
        return _scan(step, xs, state, reverse)

    h, c = state
    inputs = xs.unbind(0)  # T tensors (B, features)
    outputs = [h] * len(inputs)
    for t in reversed(range(len(inputs))) if reverse else range(len(inputs)):
        h_t, c_t = step(inputs[t], h, c)
        if real is None:
            h, c, outputs[t] = h_t, c_t, h_t
        else:
            now = real[t, :, None]  # (B, 1)
            h, c = torch.where(now, h_t, h), torch.where(now, c_t, c)
            outputs[t] = torch.where(now, h_t, 0.0)
    return torch.stack(outputs), (h, c)


def _scan(step: Step, xs: Tensor, state: State, reverse: bool) -> tuple[Tensor, State]:
    """The same walk as one operator, which `torch.onnx.export` turns into an ONNX `Scan`."""
    from torch._higher_order_ops.scan import scan

    def body(carry: State, x_t: Tensor) -> tuple[State, Tensor]:
        h, c = step(x_t, *carry)
        return (h, c), h.clone()  # a scan may not return one tensor twice

    last, outputs = scan(body, state, xs, dim=0, reverse=reverse)
    return outputs, last
