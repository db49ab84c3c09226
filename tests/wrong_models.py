"""An LSTM session that is right, or wrong in exactly one named way.

Each mistake was seen in somebody's code, most of them in published repositories. The implementation shares nothing
with the harness's oracle, so that two independent readings of the equations are held against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.contract import Inputs, Outputs

if TYPE_CHECKING:
    from harness.contract import Array, FloatArray

EXPORT_TIME = 7  # how many steps the example of a careless exporter has

CELL = {
    "gates in the order i, o, f, g": "iofg",
    "gates in the order i, f, o, g": "ifog",
    "gates i and f swapped": "figo",
}
ANYWHERE = (
    *CELL,
    "h from the previous c",
    "h without the tanh of c",
    "g through a sigmoid",
    "sigmoids by Keras's hard sigmoid",
    "sigmoids by torch's hard sigmoid",
    "b_hh dropped",
    "b_ih dropped",
    "forget bias plus one",
    "recurrent matrix transposed",
    "h_0 and c_0 swapped",
    "state ignored",
    "c_0 ignored",
    "state carried over between calls",
    "lengths ignored",
    "padding zeroed but final state taken at the end",
    "time looped at the export example's length",
    "time cut off at the export example's length",
    "half precision inside",
    "weights rounded to half precision",
    "dropout left on",
    "final states of the batch reversed",
    "output is c",
    "not finite in one place",
    "output of another dtype",
    "state of another dtype",
    "output time first",
    "state batch first",
    "inputs changed",
    "initial state changed",
    "no final c",
    "a tuple instead of outputs",
    "a list instead of an array",
)
BIDIRECTIONAL = (
    "backward reads forward",
    "backward output not flipped back",
    "batch reversed instead of time",
    "features reversed instead of time",
    "both directions share the forward weights",
    "directions swapped in the output",
    "directions swapped in the state",
    "directions swapped in the weights",
    "backward final h from the last output",
    "padding flipped to the front",
    "backward direction ignores its state",
    "directions added instead of side by side",
)
STACKED = (
    "every layer starts from the first layer's state",
    "final state of the last layer only",
    "layers in reverse order in the state",
    "second layer uses the first layer's recurrent weights",
    "output of the first layer",
)
STACKED_BIDIRECTIONAL = (
    "states ordered by direction, then layer",
    "second layer reads the forward half twice",
)


def mistakes(directions: int, num_layers: int, dtype: str) -> list[str]:
    """The mistakes that a layer of this kind can have."""
    names = [*ANYWHERE]
    if dtype == "float64":
        names.remove("weights rounded to half precision")  # the probe's weights are float32, so nothing is lost
    if directions == 2:
        names += BIDIRECTIONAL
    if num_layers > 1:
        names += STACKED
    if directions == 2 and num_layers > 1:
        names += STACKED_BIDIRECTIONAL
    return names


class NumpySession:
    """A session of an LSTM in NumPy; `mistake` is one of `mistakes(...)`, or None for the correct one.

    Attributes:
        closed: how often `close` was called.
        seen: the shape of every x that was prepared.
    """

    def __init__(self, weights: Mapping[str, FloatArray], dtype: str = "float32", mistake: str | None = None) -> None:
        self._mistake = mistake
        self._dtype = np.dtype(dtype)
        inside = dtype
        if mistake == "half precision inside":
            inside = "float16" if dtype == "float32" else "float32"
        if mistake == "weights rounded to half precision":
            half = "float16" if dtype == "float32" else "float32"
            weights = {name: array.astype(half) for name, array in weights.items()}
        self._weights = {name: array.astype(inside) for name, array in weights.items()}
        self._directions = 2 if "weight_ih_l0_reverse" in weights else 1
        self._num_layers = sum(name.startswith("weight_ih_l") for name in weights) // self._directions
        self._hidden = weights["weight_hh_l0"].shape[1]
        self._inside = np.dtype(inside)
        self._carried: tuple[FloatArray, ...] | None = None
        self._random = np.random.default_rng(0)
        self.closed = 0
        self.seen: list[tuple[int, ...]] = []

    def prepare(self, inputs: Inputs) -> Inputs:
        self.seen.append(inputs.x.shape)
        return inputs

    def run(self, prepared: Inputs) -> Outputs:
        x, lengths = prepared.x, prepared.lengths
        h_0, c_0 = self._initial(prepared)
        if self._mistake == "inputs changed":
            x[0, 0, 0] += 1
        if self._mistake == "initial state changed" and prepared.state is not None:
            prepared.state[1][...] = 0
        batch, time, _ = x.shape
        ends = np.full(batch, time) if lengths is None or self._is("lengths ignored") else lengths
        if self._is("time looped at the export example's length"):
            x = x[:, np.arange(time) % EXPORT_TIME]
        y = x.astype(self._inside)
        h_n, c_n = np.zeros_like(h_0), np.zeros_like(c_0)
        first: FloatArray | None = None
        for layer in range(self._num_layers):
            halves = []
            for direction in range(self._directions):
                k = layer * self._directions + direction
                start = direction if self._is("every layer starts from the first layer's state") else k
                half, h_n[k], c_n[k] = self._pass(layer, direction, y, h_0[start], c_0[start], ends)
                halves.append(half)
            if self._is("directions swapped in the output") and layer == self._num_layers - 1:
                halves.reverse()
            if self._is("second layer reads the forward half twice") and layer == 0:
                halves[1] = halves[0]
            y = np.concatenate(halves, axis=2)
            if self._is("directions added instead of side by side") and layer == self._num_layers - 1:
                y = halves[0] + halves[1]
            if self._is("dropout left on"):
                y = y * (self._random.random(y.shape) > 0.1) / 0.9
            first = y if first is None else first
        if self._is("backward final h from the last output"):
            h_n[-1] = y[:, -1, self._hidden :]
        if self._is("output of the first layer") and first is not None:
            y = first
        self._carried = (h_n, c_n)
        return self._finish(y, h_n, c_n)

    def fetch(self, raw: Outputs) -> Outputs:
        y, (h_n, c_n) = raw.y, raw.state
        if self._is("no final c"):
            return Outputs(y, (h_n,))
        if self._is("a tuple instead of outputs"):
            return (y, (h_n, c_n))  # type: ignore[return-value]
        if self._is("a list instead of an array"):
            return Outputs(y.tolist(), (h_n, c_n))
        return raw

    def close(self) -> None:
        self.closed += 1

    def _is(self, mistake: str) -> bool:
        return self._mistake == mistake

    def _initial(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        shape = (self._num_layers * self._directions, len(inputs.x), self._hidden)
        state = inputs.state
        if self._is("state carried over between calls") and state is None and self._carried is not None:
            state = self._carried if self._carried[0].shape == shape else None
        if state is None or self._is("state ignored"):
            return np.zeros(shape, self._inside), np.zeros(shape, self._inside)
        h_0, c_0 = (part.astype(self._inside) for part in state)
        if self._is("h_0 and c_0 swapped"):
            return c_0, h_0
        if self._is("c_0 ignored"):
            c_0[...] = 0
        if self._is("backward direction ignores its state"):
            h_0[1::2], c_0[1::2] = 0, 0
        return h_0, c_0

    def _pass(
        self, layer: int, direction: int, x: FloatArray, h: FloatArray, c: FloatArray, ends: Array
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """One layer in one direction: y (B, T, H), and the last h and c (B, H)."""
        time = x.shape[1]
        if direction == 0:
            return self._steps(layer, 0, x, h, c, ends)
        if self._is("backward reads forward"):
            return self._steps(layer, 1, x, h, c, ends)
        if self._is("batch reversed instead of time"):
            y, h, c = self._steps(layer, 1, x[::-1], h, c, ends)
            return y[::-1], h, c
        if self._is("features reversed instead of time"):
            return self._steps(layer, 1, x[:, :, ::-1], h, c, ends)
        source = np.maximum(ends[:, None] - 1 - np.arange(time), 0)  # (B, T): where each step of the flip comes from
        if self._is("padding flipped to the front"):
            source = np.broadcast_to(np.arange(time)[::-1], source.shape)
            ends = np.full_like(ends, time)
        rows = np.arange(len(x))[:, None]
        y, h, c = self._steps(layer, 1, x[rows, source], h, c, ends)
        if not self._is("backward output not flipped back"):
            y = y[rows, source]
        return y * (np.arange(time) < ends[:, None])[:, :, None], h, c

    def _steps(
        self, layer: int, direction: int, x: FloatArray, h: FloatArray, c: FloatArray, ends: Array
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        weights = self._weights
        reverse = direction == 1
        if self._is("both directions share the forward weights"):
            reverse = False
        if self._is("directions swapped in the weights") and self._directions == 2:
            reverse = not reverse
        suffix = f"_l{layer}" + "_reverse" * reverse
        w, u = weights["weight_ih" + suffix], weights["weight_hh" + suffix]
        if self._is("second layer uses the first layer's recurrent weights"):
            u = weights["weight_hh_l0" + "_reverse" * reverse]
        if self._is("recurrent matrix transposed"):
            u = np.concatenate([block.T for block in np.split(u, 4)])
        b = sum(
            (weights[name + suffix] for name in ("bias_ih", "bias_hh") if self._mistake != f"b_{name[5:]} dropped"),
            np.zeros(4 * self._hidden, self._inside),
        )
        y = np.zeros((*x.shape[:2], self._hidden), self._inside)
        for t in range(x.shape[1]):
            if self._is("time cut off at the export example's length") and t >= EXPORT_TIME:
                break
            h_t, c_t = self._cell(x[:, t] @ w.T + h @ u.T + b, c)
            real = t < ends
            y[real, t] = c_t[real] if self._is("output is c") else h_t[real]
            if self._is("padding zeroed but final state taken at the end"):
                real = np.ones_like(real)
            h, c = np.where(real[:, None], h_t, h), np.where(real[:, None], c_t, c)
        return y, h, c

    def _cell(self, gates: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        order = CELL.get(self._mistake or "", "ifgo")
        parts = dict(zip(order, np.split(gates, 4, axis=1), strict=True))
        if self._is("forget bias plus one"):
            parts["f"] = parts["f"] + 1
        i, f, o = (self._sigmoid(parts[name]) for name in "ifo")
        g = self._sigmoid(parts["g"]) if self._is("g through a sigmoid") else np.tanh(parts["g"])
        new = f * c + i * g
        if self._is("h from the previous c"):
            return o * np.tanh(c), new
        if self._is("h without the tanh of c"):
            return o * new, new
        return o * np.tanh(new), new

    def _sigmoid(self, a: FloatArray) -> FloatArray:
        one = self._inside.type(1)
        if self._is("sigmoids by Keras's hard sigmoid"):
            return self._clip(a / 5 + one / 2)
        if self._is("sigmoids by torch's hard sigmoid"):
            return self._clip(a / 6 + one / 2)
        with np.errstate(over="ignore"):  # in half precision; 1 / (1 + inf) is the right answer
            result: FloatArray = one / (one + np.exp(-a))
        return result

    def _clip(self, a: FloatArray) -> FloatArray:
        result: FloatArray = np.clip(a, 0, 1).astype(self._inside)
        return result

    def _finish(self, y: FloatArray, h_n: FloatArray, c_n: FloatArray) -> Outputs:
        directions, layers = self._directions, self._num_layers
        if self._is("directions swapped in the state"):
            order = [k ^ 1 for k in range(2 * layers)]
            h_n, c_n = h_n[order], c_n[order]
        if self._is("states ordered by direction, then layer"):
            order = [layer * directions + direction for direction in range(directions) for layer in range(layers)]
            h_n, c_n = h_n[order], c_n[order]
        if self._is("layers in reverse order in the state"):
            order = [layer * directions + d for layer in reversed(range(layers)) for d in range(directions)]
            h_n, c_n = h_n[order], c_n[order]
        if self._is("final state of the last layer only"):
            h_n, c_n = h_n[-directions:], c_n[-directions:]
        if self._is("final states of the batch reversed"):
            h_n, c_n = h_n[:, ::-1], c_n[:, ::-1]
        y, h_n, c_n = (np.ascontiguousarray(part, self._dtype) for part in (y, h_n, c_n))
        other = "float64" if self._dtype == "float32" else "float32"
        if self._is("output of another dtype"):
            y = y.astype(other)
        if self._is("state of another dtype"):
            c_n = c_n.astype(other)
        if self._is("not finite in one place"):
            y[-1, -1, -1] = np.nan
        if self._is("output time first"):
            y = y.transpose(1, 0, 2)
        if self._is("state batch first"):
            h_n = h_n.transpose(1, 0, 2)
        return Outputs(y, (h_n, c_n))


BEHAVIOURS = {
    "reads ahead": "every step sees the mean of all",
    "mixes the rows": "the mean of the batch is taken off y",
    "answers in its own buffer": "every y of one shape is the same array",
    "prepares in its own buffer": "every x of one shape is the same array once it is prepared",
    "keeps its weights for all": "every session computes with the weights of the last that was opened",
    "differs by instance": "the last bit of y, from session to session",
    "changes its weights": "those that it was opened with, in the caller's arrays",
    "says nonsense of itself": "its compile_seconds is a word",
}


class Misbehaving(NumpySession):
    """A correct LSTM whose session breaks one rule, one of BEHAVIOURS, beside the equations."""

    opened: ClassVar[int] = 0
    last: ClassVar[Mapping[str, FloatArray]] = {}

    def __init__(self, weights: Mapping[str, FloatArray], dtype: str, behaviour: str) -> None:
        super().__init__(weights, dtype)
        self._behaviour = behaviour
        self._buffers: dict[Any, FloatArray] = {}
        Misbehaving.opened += 1
        self._number = self.opened
        Misbehaving.last = self._weights
        if behaviour == "says nonsense of itself":
            self.compile_seconds = "soon"
        if behaviour == "changes its weights":
            for array in weights.values():
                array += 1

    def prepare(self, inputs: Inputs) -> Inputs:
        if self._behaviour == "prepares in its own buffer":
            return replace(inputs, x=self._in_buffer(inputs.x))
        return inputs

    def run(self, prepared: Inputs) -> Outputs:
        if self._behaviour == "reads ahead":
            prepared = replace(prepared, x=prepared.x + prepared.x.mean(axis=1, keepdims=True))
        if self._behaviour == "keeps its weights for all":
            self._weights = dict(self.last)
        outputs = super().run(prepared)
        y = outputs.y
        if self._behaviour == "mixes the rows":
            y = y - y.mean(axis=0)
        if self._behaviour == "differs by instance" and self._number % 2:
            y = np.where(y != 0, np.nextafter(y, y.dtype.type(1)), y)
        if self._behaviour == "answers in its own buffer":
            y = self._in_buffer(y)
        return replace(outputs, y=y)

    def _in_buffer(self, array: FloatArray) -> FloatArray:
        buffer = self._buffers.setdefault(array.shape, np.empty_like(array))
        buffer[...] = array
        return buffer
