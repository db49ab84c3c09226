"""The LSTM as it is compiled.

At batch 1 every step reads all recurrent weights and does little with each, so its time is that of reading them from
the cache. They lie in the order in which they are read (`pack`), and a block of hidden units is taken at a time: the
sums of its four gates stay in registers until its weights are through, and while its new state is computed, the
processor already fetches the next block's weights. What does not depend on the state, the input's share of the gates,
is computed for all steps before (Appleyard et al. 2016, "Optimizing Performance of Recurrent Neural Networks on GPUs").
With more samples, a block of weights serves several of them at once.

A sum is made in the same order whatever the batch is, so a sample's result does not depend on its neighbours.

Letters for shapes: B batch, T time, I input size, H hidden size, L layers, D directions (1 or 2). A block is `lanes`
hidden units; N blocks hold them all, and the last is filled up with units whose weights are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

from harness_jit.activations import sigmoid, tanh
from harness_jit.vector import Memory, Vector, memory_of, registers, repeat, signature

if TYPE_CHECKING:
    from harness.contract import FloatArray

P = ParamSpec("P")
R = TypeVar("R")

GATES = 4
CACHE_LINE_BYTES = 64


def lanes(dtype: str) -> int:
    """How many hidden units make a block: as many numbers as a register holds."""
    return registers().size_bytes // np.dtype(dtype).itemsize


def scratch_size(batch: int, time: int, hidden: int, layers: int, directions: int, lanes: int) -> int:
    """How many numbers `run` needs room for: gates (B, T, N, 4, lanes), two h and a c (B, N, lanes), two y's."""
    padded = -(-hidden // lanes) * lanes
    between = 2 * batch * time * directions * hidden if layers > 1 else 0
    return batch * time * GATES * padded + 3 * batch * padded + between


def aligned(size: int, dtype: Any) -> FloatArray:
    """An uninitialised array (size,) that starts where a line of the cache does, so that no vector lies on two."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size + CACHE_LINE_BYTES // itemsize, dtype)
    start = -memory.ctypes.data % CACHE_LINE_BYTES // itemsize
    return memory[start : start + size]


def pack(w: FloatArray, u: FloatArray, bias: FloatArray, lanes: int) -> list[FloatArray]:
    """Lay out one direction of one layer as it is read.

    Args:
        w, u, bias: (4H, I), (4H, H) and (4H,), gates i, f, g, o.

    Returns:
        bias (N, 4, lanes), w (N, I, 4, lanes) and u (N, H, 4, lanes), all flat.
    """
    hidden = u.shape[1]
    blocks = -(-hidden // lanes)
    packed = []
    for columns in (bias[None], w.T, u.T):  # (1, 4H), (I, 4H), (H, 4H)
        whole = np.zeros((len(columns), GATES, blocks * lanes), columns.dtype)
        whole[:, :, :hidden] = columns.reshape(len(columns), GATES, hidden)
        packed.append(whole.reshape(len(columns), GATES, blocks, lanes).transpose(2, 0, 1, 3).ravel())
    return packed


@cache
def compiled(dtype: str) -> Callable[..., None]:
    """Compile the LSTM for `float32` or `float64`; once in a process. It takes seconds.

    Returns:
        `run(x, weights, scratch, y, h, c)`. x is (B, T, I); weights are those of `pack` for every layer and direction,
        one after the other; scratch has `scratch_size` numbers or more; y (B, T, D*H) is written; h and c (L*D, B, H)
        enter as the first state and leave as the last. All are C-contiguous, writeable and of the dtype; their sizes
        are not checked.
    """
    # one function, for all that it compiles shares these numbers, and they have to be constants to the compiler
    width = lanes(dtype)
    most_rows = 4 if registers().count >= 32 else 2  # four sums a row, and what is multiplied, fit into the registers
    start_one, add_one = _products(width, 1)
    start_most, add_most = _products(width, most_rows)
    update = _update(width)

    @_compiled_with_caller
    def project(x: Any, features: int, weights: Any, bias: int, blocks: int, gates: Any, rows: int) -> None:
        """Write the input's share of the gates (rows, N, 4, lanes), from x (rows, I)."""
        stride = blocks * GATES * width
        for block in range(blocks):
            to = block * GATES * width
            w = bias + stride + to * features
            row = 0
            while rows - row >= most_rows:
                at = to + row * stride
                start_most(weights, bias + to, w, features, x, row * features, features, gates, at, stride)
                row += most_rows
            while row < rows:
                at = to + row * stride
                start_one(weights, bias + to, w, features, x, row * features, features, gates, at, stride)
                row += 1

    @_compiled_with_caller
    def recur(
        gates: Any, weights: Any, u: int, blocks: int, work: Any, y: Any, y_stride: int, h: Any, c: Any, time: int,
        reverse: bool,
    ) -> None:  # fmt: skip
        """Go through time.

        gates (B, T, N, 4, lanes) are completed; y is written, `y_stride` numbers a step; h and c (B, H) enter as the
        first state and leave as the last; work has room for two h and a c, (B, N, lanes) each.
        """
        batch, hidden = h.shape
        padded = blocks * width
        stride = time * GATES * padded
        now, then, cell = 0, batch * padded, 2 * batch * padded
        for b in range(batch):
            for j in range(hidden):
                work[now + b * padded + j] = h[b, j]
                work[cell + b * padded + j] = c[b, j]
            for j in range(hidden, padded):
                work[cell + b * padded + j] = 0  # never read; but what memory happens to hold may compute slowly
        for step in range(time):
            t = time - 1 - step if reverse else step
            for count in range(blocks):
                # To and fro, because the block that was read last is still in the nearest cache.
                block = count if step % 2 else blocks - 1 - count
                at = u + block * hidden * GATES * width
                to = (t * blocks + block) * GATES * width
                row = 0
                while batch - row >= most_rows:
                    add_most(weights, at, hidden, work, now + row * padded, padded, gates, to + row * stride, stride)
                    row += most_rows
                while row < batch:
                    add_one(weights, at, hidden, work, now + row * padded, padded, gates, to + row * stride, stride)
                    row += 1
                for b in range(batch):
                    unit = b * padded + block * width
                    update(gates, to + b * stride, work, cell + unit, then + unit)
            now, then = then, now
            for b in range(batch):
                for j in range(hidden):
                    y[(b * time + t) * y_stride + j] = work[now + b * padded + j]
        for b in range(batch):
            for j in range(hidden):
                h[b, j] = work[now + b * padded + j]
                c[b, j] = work[cell + b * padded + j]

    def run(x: Any, weights: Any, scratch: Any, y: Any, h: Any, c: Any) -> None:
        batch, time, features = x.shape
        count, _, hidden = h.shape
        outputs = y.shape[2]
        directions = outputs // hidden
        layers = count // directions
        blocks = -(-hidden // width)
        padded = blocks * width
        rows = batch * time
        work = scratch[rows * GATES * padded :]
        between = work[3 * batch * padded :]
        at = 0
        for layer in range(layers):
            source = between[(layer - 1) % 2 * rows * outputs :] if layer else x.reshape(-1)
            target = between[layer % 2 * rows * outputs :] if layer < layers - 1 else y.reshape(-1)
            for direction in range(directions):
                project(source, features, weights, at, blocks, scratch, rows)
                u = at + (1 + features) * GATES * padded
                k = layer * directions + direction
                part = target[direction * hidden :]
                recur(scratch, weights, u, blocks, work, part, outputs, h[k], c[k], time, direction == 1)
                at = u + hidden * GATES * padded
            features = outputs

    number = numba.from_dtype(np.dtype(dtype))
    flat, cube = number[::1], number[:, :, ::1]
    return cast("Callable[..., None]", numba.njit((cube, flat, flat, cube, cube, cube), error_model="numpy")(run))


def _compiled_with_caller(function: Callable[P, R]) -> Callable[P, R]:
    """Compile when a caller is compiled. A division by zero gives what IEEE 754 says, which no check holds up."""
    return cast("Callable[P, R]", numba.njit(error_model="numpy")(function))


def _products(width: int, rows: int) -> tuple[Any, Any]:
    """The product of so many rows of numbers and a block of weights, for compiled code.

    Returns:
        `start(weights, bias, at, count, left, left_at, left_stride, gates, gates_at, stride)`, which makes the gates
        bias plus product, and `add(weights, at, count, ..., stride)`, which adds the product to the gates. The block of
        weights (count, 4, lanes) begins at index `at`, the rows of `left`, `count` numbers each, at `left_at`, and
        their gates (4, lanes) at `gates_at`. A stride leads from one row to the next.
    """

    def product(
        builder: Any, weights: Memory, count: Any, left: Memory, left_stride: Any, gates: Memory, stride: Any,
        before: Sequence[Vector],
    ) -> None:  # fmt: skip
        def body(k: Any, sums: Sequence[Vector]) -> list[Vector]:
            number = left.at(k).spread(left_stride)
            row = weights.at(builder.mul(k, ir.Constant(k.type, GATES * width)))
            return [row.at(j * width).same().times_plus(number, one_sum) for j, one_sum in enumerate(sums)]

        # Products are summed by themselves first: small numbers are not rounded to what is left of large ones.
        nothing = [one.constant(0) for one in before]
        for j, one_sum in enumerate(repeat(builder, count, nothing, body)):
            gates.at(j * width).store(stride, before[j] + one_sum)

    def emit_start(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        weights, left, gates = (memory_of(context, builder, sig, args, k, width, rows) for k in (0, 4, 7))
        _, bias, at, count, _, left_at, left_stride, _, gates_at, stride = args
        before = [weights.at(bias).at(j * width).same() for j in range(GATES)]
        product(builder, weights.at(at), count, left.at(left_at), left_stride, gates.at(gates_at), stride, before)
        return context.get_dummy_value()

    def emit_add(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        weights, left, gates = (memory_of(context, builder, sig, args, k, width, rows) for k in (0, 3, 6))
        _, at, count, _, left_at, left_stride, _, gates_at, stride = args
        before = [gates.at(gates_at).at(j * width).load(stride) for j in range(GATES)]
        product(builder, weights.at(at), count, left.at(left_at), left_stride, gates.at(gates_at), stride, before)
        return context.get_dummy_value()

    def start(
        typing: Any, weights: Any, bias: Any, at: Any, count: Any, left: Any, left_at: Any, left_stride: Any,
        gates: Any, gates_at: Any, stride: Any,
    ) -> Any:  # fmt: skip
        return signature(weights, bias, at, count, left, left_at, left_stride, gates, gates_at, stride), emit_start

    def add(
        typing: Any, weights: Any, at: Any, count: Any, left: Any, left_at: Any, left_stride: Any, gates: Any,
        gates_at: Any, stride: Any,
    ) -> Any:  # fmt: skip
        return signature(weights, at, count, left, left_at, left_stride, gates, gates_at, stride), emit_add

    return intrinsic(start), intrinsic(add)


def _update(width: int) -> Any:
    """`update(gates, gates_at, work, cell, then)`, for compiled code: the end of a step for a block of one row's units.

    c is read and written from index `cell` of work on, the new h is written from `then` on.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        gates, work = (memory_of(context, builder, sig, args, k, width, 1) for k in (0, 2))
        _, gates_at, _, cell, then = args
        i, f, g, o = (gates.at(gates_at).at(j * width).same() for j in range(GATES))
        c = sigmoid(f).times_plus(work.at(cell).same(), sigmoid(i) * tanh(g))
        work.at(cell).store(None, c)
        work.at(then).store(None, sigmoid(o) * tanh(c))
        return context.get_dummy_value()

    def update(typing: Any, gates: Any, gates_at: Any, work: Any, cell: Any, then: Any) -> Any:
        return signature(gates, gates_at, work, cell, then), emit

    return intrinsic(update)
