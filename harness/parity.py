"""Parity: does a session compute what the float64 oracle computes, at every shape it may meet?

A session is asked, its errors are written down (`observe`); whether they are small enough is decided elsewhere and
later (`judge`), against the rounding error of a yardstick, so that no tolerance has to be invented.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import COMPUTE_DTYPES, Architecture, HarnessError, Inputs, LayerSize, Outputs, Session
from harness.rounding import epsilon, rounded, rounded_arrays

if TYPE_CHECKING:
    from harness.contract import Array, FloatArray

YARDSTICK_FACTOR = 2.0  # a variant may round twice as badly as torch.nn.LSTM in the same dtype
ULPS = 4.0  # plus this many units in the last place of the reference's own size
EQUATIONS = "equations"  # the yardstick's name where no yardstick model is installed
CHUNKS = 4  # of a sequence that is run in chunks: the first without a state, and more than one after a carried one


@dataclass(frozen=True, slots=True)
class Case:
    """One point of the grid.

    Attributes:
        batch, time: B and T.
        state: a random initial state, its parts unequal; otherwise zeros by default.
        padding: every row has its own length, and garbage behind it.
        chunk_steps: the session gets so many steps a call, and the state that a call gave with the next; None: all in
            one call. The oracle gets the whole.
    """

    batch: int
    time: int
    state: bool = True
    padding: bool = False
    chunk_steps: int | None = None

    @property
    def name(self) -> str:
        """The case in words, for tables."""
        state = "random state" if self.state else "no state"
        chunks = f", in chunks of {self.chunk_steps}" if self.chunk_steps else ""
        return f"batch {self.batch}, time {self.time}, {state}{', padding' if self.padding else ''}{chunks}"


GRID = (
    Case(3, 7),
    Case(3, 7, state=False),  # after a call with a state: a session must not carry it over
    Case(1, 7),
    Case(3, 1),
    Case(1, 1, state=False),
    Case(2, 20),  # longer than the example an exporter sees
    Case(4, 2),  # shorter
    Case(32, 12, state=False),
    Case(3, 7, padding=True),
    Case(5, 9, state=False, padding=True),
)


@dataclass(frozen=True, slots=True)
class Observation:
    """How far one part of the output was from the oracle in one case.

    Attributes:
        case: the case in words.
        part: `y`, `h_n`, `c_n`.
        rmse: root mean square error; infinite where the output was not finite or had the wrong shape.
        max_abs_error: the largest absolute error.
        reference_rms: the root mean square of the oracle's own values.
        problem: what was wrong with the output itself (shape, dtype, not finite), or empty.
    """

    case: str
    part: str
    rmse: float
    max_abs_error: float
    reference_rms: float
    problem: str = ""


def probe_weights(
    architecture: Architecture, size: LayerSize, dtype: str = "float32", seed: int = 0
) -> dict[str, FloatArray]:
    """Random weights under which no known mistake hides: uniform in ±1/sqrt(H), and all biases different.

    The range is that of `torch.nn.LSTM`'s initialisation, so that rounding errors have the size they have in use.
    An architecture that has weights of its own is probed with those, unless another seed is asked for.
    """
    if architecture.weights is not None and seed == 0:
        own = architecture.weights(size)
        return {name: array.astype(dtype) for name, array in own.items() if not name.startswith("head.")}
    rng = np.random.default_rng([seed, size.input_size, size.hidden_size, size.num_layers])
    bound = 1 / math.sqrt(size.hidden_size)
    shapes = architecture.weight_shapes(size)
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}


def case_inputs(case: Case, architecture: Architecture, size: LayerSize, dtype: str, seed: int = 0) -> Inputs:
    """The inputs of one case: standard normal x and states, and where rows are padded, values ten times as large."""
    rng = np.random.default_rng([seed, case.batch, case.time, case.state, case.padding])
    x = rng.standard_normal((case.batch, case.time, size.input_size))
    lengths = None
    if case.padding:
        lengths = rng.permutation(np.linspace(1, case.time, case.batch).astype(np.int64))
        padded = np.arange(case.time) >= lengths[:, None]
        x[padded] = 10 * rng.standard_normal((int(padded.sum()), size.input_size))
    state = None
    if case.state:
        shape = (size.num_layers * architecture.directions, case.batch, size.hidden_size)
        state = tuple((rng.standard_normal(shape) / 2).astype(dtype) for _ in architecture.state_names)
    return Inputs(x.astype(dtype), state, lengths)


def cases_of(shapes: Sequence[tuple[int, int]], chunk_steps: int | None = None) -> list[Case]:
    """The grid, and the (batch, time) shapes that will be timed, without repeats.

    Args:
        shapes: the shapes.
        chunk_steps: of chunks that will be timed with their state carried; None if none will be.
    """
    timed = [Case(batch, time, state=False) for batch, time in shapes]
    if chunk_steps:
        timed.append(Case(1, CHUNKS * chunk_steps, state=False, chunk_steps=chunk_steps))
    return list(dict.fromkeys([*GRID, *timed]))


def observe(
    session: Session,
    architecture: Architecture,
    weights: Mapping[str, FloatArray],
    size: LayerSize,
    dtype: str,
    cases: Sequence[Case] = GRID,
) -> list[Observation]:
    """Run the cases through a session and measure its distance to the oracle.

    Float32 sessions are held against float64, float64 sessions against the longest float NumPy has here.

    Raises:
        whatever the session raises.
    """
    exact = exact_weights(weights, dtype)
    observations: list[Observation] = []
    for case in cases:
        inputs = case_inputs(case, architecture, size, dtype)
        kept = copied(inputs)
        outputs = _in_chunks(session, architecture, inputs, case) if case.chunk_steps else _call(session, inputs, case)
        observations.extend(compare(case.name, architecture, outputs, architecture.reference(exact, kept, size), dtype))
    return observations


def _call(session: Session, inputs: Inputs, case: Case) -> Outputs:
    kept = copied(inputs)
    outputs = session.fetch(session.run(session.prepare(inputs)))
    if not same(inputs, kept):
        raise HarnessError(f"the session changed its inputs ({case.name}); it must leave them as they were")
    return outputs


def _in_chunks(session: Session, architecture: Architecture, inputs: Inputs, case: Case) -> Outputs:
    """What a session gives for a sequence in pieces: y of all of them side by side, and the last state.

    A piece that has no time axis or no whole state is given as it is, and fails where outputs are compared.
    """
    assert case.chunk_steps
    pieces: list[Array] = []
    state = inputs.state
    for start in range(0, case.time, case.chunk_steps):
        outputs = _call(session, Inputs(inputs.x[:, start : start + case.chunk_steps].copy(), state), case)
        is_whole = isinstance(outputs, Outputs) and len(outputs.state) == len(architecture.state_names)
        if not is_whole or not isinstance(outputs.y, np.ndarray) or outputs.y.ndim != 3:
            return outputs
        pieces.append(outputs.y)
        state = outputs.state
    return Outputs(np.concatenate(pieces, axis=1), outputs.state)


def exact_weights(weights: Mapping[str, FloatArray], dtype: str) -> dict[str, FloatArray]:
    """The weights in the dtype in which the oracle computes what a session in `dtype` is held against."""
    return _as(weights, "longdouble" if dtype == "float64" else "float64")


def observe_equations(
    architecture: Architecture,
    weights: Mapping[str, FloatArray],
    size: LayerSize,
    dtype: str,
    cases: Sequence[Case] = GRID,
    compute_dtype: str | None = None,
) -> list[Observation]:
    """The yardstick where no model is one: the oracle's own equations, computed in the dtype of the session.

    With a `compute_dtype` of fewer bits: computed exactly, from weights and inputs that are rounded to it.
    """
    session = equations(architecture, weights, size, dtype, compute_dtype or dtype)
    return observe(session, architecture, weights, size, dtype, cases)


def equations(
    architecture: Architecture, weights: Mapping[str, FloatArray], size: LayerSize, dtype: str, compute_dtype: str
) -> Session:
    """A session of the oracle itself: in a dtype, or with everything that goes in rounded to a compute dtype."""
    if compute_dtype not in COMPUTE_DTYPES:
        return _Equations(architecture, _as(weights, dtype), size)
    return _Rounded(architecture, weights, size, dtype, compute_dtype)


def compare(
    case: str, architecture: Architecture, outputs: Outputs, reference: Outputs, dtype: str
) -> Iterator[Observation]:
    """The distance of outputs to a reference, one observation per part."""
    if not isinstance(outputs, Outputs):
        raise HarnessError(f"fetch gave a {type(outputs).__name__}; it must give harness.Outputs")
    if len(outputs.state) != len(reference.state):
        raise HarnessError(
            f"fetch gave {len(outputs.state)} state arrays; {architecture.name} has {len(reference.state)}"
        )
    parts = ("y", *(f"{name}_n" for name in architecture.state_names))
    for part, got, expected in zip(parts, (outputs.y, *outputs.state), (reference.y, *reference.state), strict=True):
        rms = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
        problem = _problem(got, expected.shape, dtype)
        if problem:
            yield Observation(case, part, math.inf, math.inf, rms, problem)
        else:
            error = np.abs(got - expected)
            yield Observation(case, part, float(np.sqrt(np.mean(error**2))), float(error.max()), rms)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the observations of one variant amount to.

    Attributes:
        passed: every part of every case is within its limit.
        ratio: the largest RMSE relative to the yardstick's in the same case and part; NaN where the yardstick is exact.
        max_abs_error: the largest absolute error anywhere.
        reason: the worst failure in words, or empty.
    """

    passed: bool
    ratio: float
    max_abs_error: float
    reason: str


def limit(yardstick_rmse: float, reference_rms: float, compute_dtype: str) -> float:
    """The largest RMSE that passes: twice the yardstick's, plus four units in the last place of the reference."""
    return YARDSTICK_FACTOR * yardstick_rmse + ULPS * epsilon(compute_dtype) * reference_rms


def judge(observations: Sequence[Observation], yardstick: Sequence[Observation], compute_dtype: str) -> Judgement:
    """Hold a variant's errors against the yardstick's, case by case and part by part.

    Where the yardstick itself is not finite, only the units in the last place are allowed.

    Raises:
        ValueError: the yardstick lacks a case that was observed, or nothing was observed.
    """
    if not observations:
        raise ValueError("no observations: parity was never checked")
    yard = {(o.case, o.part): o.rmse for o in yardstick}
    ratios: list[float] = []
    failures: list[tuple[float, str]] = []
    for o in observations:
        if (o.case, o.part) not in yard:
            raise ValueError(f"the yardstick has no observation of {o.part} in '{o.case}'")
        rmse = yard[o.case, o.part] if math.isfinite(yard[o.case, o.part]) else 0.0
        allowed = limit(rmse, o.reference_rms, compute_dtype)
        if rmse > 0:
            ratios.append(o.rmse / rmse)
        if not o.rmse <= allowed:
            text = o.problem or f"error {o.rmse:.1e}, allowed {allowed:.1e}"
            failures.append((o.rmse / allowed if allowed else math.inf, f"{o.part} at {o.case}: {text}"))
    reason = ""
    if failures:
        reason = f"{max(failures)[1]} ({len(failures)} of {len(observations)} checks failed)"
    worst = max((o.max_abs_error for o in observations), default=math.nan)
    return Judgement(not failures, max(ratios, default=math.nan), worst, reason)


def _problem(got: Any, shape: tuple[int, ...], dtype: str) -> str:
    if not isinstance(got, np.ndarray):
        return f"a {type(got).__name__} instead of an array"
    if got.shape != shape:
        return f"shape {got.shape} instead of {shape}"
    if got.dtype != dtype:
        return f"dtype {got.dtype} instead of {dtype}"
    return "" if np.isfinite(got).all() else "not finite"


class _Equations:
    """A session that is the oracle itself, in a chosen dtype."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, FloatArray], size: LayerSize) -> None:
        self._reference = architecture.reference
        self._weights = weights
        self._size = size

    def prepare(self, inputs: Inputs) -> Inputs:
        return inputs

    def run(self, prepared: Inputs) -> Outputs:
        return self._reference(self._weights, prepared, self._size)

    def fetch(self, raw: Outputs) -> Outputs:
        return raw

    def close(self) -> None:
        pass


class _Rounded(_Equations):
    """A session that is the oracle itself in float64, of weights and inputs rounded to a compute dtype."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, FloatArray],
        size: LayerSize,
        dtype: str,
        compute_dtype: str,
    ) -> None:
        super().__init__(architecture, {name: rounded(array, compute_dtype) for name, array in weights.items()}, size)
        self._dtype, self._compute_dtype = dtype, compute_dtype

    def prepare(self, inputs: Inputs) -> Inputs:
        x = inputs.x
        if inputs.lengths is not None:  # what is behind a row's end must not stretch the scale
            x = np.where((np.arange(x.shape[1]) < inputs.lengths[:, None])[:, :, None], x, x.dtype.type(0))
        return Inputs(
            rounded(x, self._compute_dtype), rounded_arrays(inputs.state, self._compute_dtype), inputs.lengths
        )

    def fetch(self, raw: Outputs) -> Outputs:
        return Outputs(raw.y.astype(self._dtype), tuple(part.astype(self._dtype) for part in raw.state))


def _as(weights: Mapping[str, FloatArray], dtype: str) -> dict[str, FloatArray]:
    return {name: array.astype(dtype) for name, array in weights.items()}


def _arrays(inputs: Inputs) -> list[Array]:
    return [array for array in (inputs.x, *(inputs.state or ()), inputs.lengths) if array is not None]


def copied(inputs: Inputs) -> Inputs:
    """The same inputs in arrays of their own."""
    state = None if inputs.state is None else tuple(part.copy() for part in inputs.state)
    return Inputs(inputs.x.copy(), state, None if inputs.lengths is None else inputs.lengths.copy())


def same(a: Inputs, b: Inputs) -> bool:
    """Are two inputs of one shape equal, states and lengths too?"""
    return all(np.array_equal(one, other) for one, other in zip(_arrays(a), _arrays(b), strict=True))
