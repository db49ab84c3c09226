"""The rules of the contract that a variant is asked, a function each; `harness.testing` gives them to authors.

Two answers that need not be the same to the last bit may differ by what parity allows each of them to be off, so no
rule has a tolerance of its own. Shapes use the letters of `harness.contract`. NumPy is imported by the first question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from harness.claims import claims
from harness.contract import (
    HarnessError,
    Inputs,
    LayerSize,
    Model,
    Outputs,
    Recipe,
    Runtime,
    Session,
    SessionOptions,
    Trainable,
    Unsupported,
    compute_dtype,
    one_line,
)

if TYPE_CHECKING:
    from harness.contract import Array, FloatArray, TaskKind

SIZE = LayerSize(5, 6, 2)  # no two of I, H and L alike, so that a transposed array shows


class CheckFailed(HarnessError):
    """A rule of the contract is broken. Its text says who, which rule, what was seen, and what is asked.

    Attributes:
        reason: the text without who and which rule.
    """

    def __init__(self, who: str, rule: str, reason: str) -> None:
        super().__init__(f"{who}: {rule}: {reason}")
        self.reason = reason


class Check(Protocol):
    """A rule, asked of one variant.

    Raises:
        CheckFailed: the rule is broken.
        Unsupported: the plugin refuses this variant, size, device or dtype, or the rule is not for it.
        whatever else the model or runtime raises.
    """

    def __call__(
        self,
        model: Model,
        runtime: Runtime,
        size: LayerSize = SIZE,
        dtype: str = "float32",
        threads: int = 1,
        device: str = "cpu",
        cache_dir: Path | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class _Subject:
    """The variant that a rule is asked of."""

    model: Model
    runtime: Runtime
    options: SessionOptions

    @property
    def compute_dtype(self) -> str:
        return compute_dtype(self.runtime, self.options.dtype)

    def weights(self, seed: int = 0) -> dict[str, FloatArray]:
        from harness.parity import probe_weights

        return probe_weights(self.model.architecture, self.options.size, self.options.dtype, seed)

    def inputs(self, batch: int, time: int, state: bool = True, padding: bool = False, seed: int = 0) -> Inputs:
        from harness.parity import Case, case_inputs

        case = Case(batch, time, state, padding)
        return case_inputs(case, self.model.architecture, self.options.size, self.options.dtype, seed)

    @contextmanager
    def session(self, seed: int = 0) -> Iterator[Session]:
        with closing(self.runtime.open(self.model, self.weights(seed), self.options)) as session:
            yield session

    def oracle(self, inputs: Inputs, seed: int = 0) -> tuple[list[Array], list[Array]]:
        """What the architecture computes, exactly and as the session may: y and the state arrays of each."""
        from harness.parity import equations, exact_weights

        weights, architecture, size, dtype = (
            *(self.weights(seed), self.model.architecture),
            *(self.options.size, self.options.dtype),
        )
        yardstick = equations(architecture, weights, size, dtype, self.compute_dtype)
        exact = architecture.reference(exact_weights(weights, dtype), inputs, size)
        return _arrays(exact), _call(yardstick, inputs)

    def require_close(
        self, what: str, answers: Sequence[list[Array]], exact: list[Array], equations: Sequence[list[Array]]
    ) -> None:
        """Refuse two answers that are further apart than parity allows the one and the other to be off.

        Args:
            what: what is held against what, for the text.
            answers: the two; y first, then the state arrays, of which the last may be missing.
            exact: the oracle's.
            equations: the oracle's in the session's dtype, computed as the one answer was and as the other.

        Raises:
            HarnessError: they differ in form or by more.
        """
        from harness.parity import limit

        names = ("y", *(f"{name}_n" for name in self.model.architecture.state_names))
        for name, one, other, truth, *rounded in zip(names, *answers, exact, *equations, strict=False):
            if (one.shape, one.dtype) != (other.shape, other.dtype):
                forms = f"{one.dtype} {one.shape} and {other.dtype} {other.shape}"
                raise HarnessError(f"{name} of {what} has two forms: {forms}")
            allowed = sum(limit(_rms(part - truth), _rms(truth), self.compute_dtype) for part in rounded)
            if not (error := _rms(one - other)) <= allowed:
                raise HarnessError(f"{name} of {what} differs by {error:.1e}, allowed {allowed:.1e}")


_checks: dict[str, Check] = {}
CHECKS: Mapping[str, Check] = MappingProxyType(_checks)
"""Every rule that a variant is asked, by its name, in the order in which they are best asked."""


def _rule(asked: str) -> Callable[[Callable[[_Subject], None]], Check]:
    """Make a public check of what looks at a `_Subject`: a HarnessError it raises becomes CheckFailed.

    Args:
        asked: what is asked of a plugin, which ends the text of every failure.
    """

    def of(body: Callable[[_Subject], None]) -> Check:
        rule = body.__name__.removeprefix("check_")

        def check(
            model: Model,
            runtime: Runtime,
            size: LayerSize = SIZE,
            dtype: str = "float32",
            threads: int = 1,
            device: str = "cpu",
            cache_dir: Path | None = None,
        ) -> None:
            label = f"{model.name}@{runtime.name}"
            if rule not in applicable(model, runtime):
                raise Unsupported(f"{label}: the rule {rule} is not for it")
            try:
                body(_Subject(model, runtime, SessionOptions(size, device, dtype, threads, cache_dir)))
            except Unsupported:
                raise
            except HarnessError as error:
                raise CheckFailed(label, rule, f"{one_line(error)}; {asked}") from error

        check.__name__ = check.__qualname__ = body.__name__
        check.__doc__ = body.__doc__
        _checks[rule] = check
        return check

    return of


def applicable(model: Model, runtime: Runtime) -> tuple[str, ...]:
    """The rules that are for a variant, by what it says of itself: no code of the plugin is run."""
    left_out: set[str] = set() if model.architecture.directions == 1 else {"causality", "chunked_equals_whole"}
    if not isinstance(runtime, Trainable):
        left_out.add("gradients")
    return tuple(rule for rule in CHECKS if rule not in left_out)


@_rule("y is (B, T, D*H) and every state array (L*D, B, H), all NumPy arrays in the session's dtype")
def check_shape_and_dtype(subject: _Subject) -> None:
    """Whatever goes in, the answer has the contract's shapes and the session's dtype, and is finite."""
    import numpy as np

    from harness.parity import GRID, compare

    architecture, size, dtype = subject.model.architecture, subject.options.size, subject.options.dtype
    rows = size.num_layers * architecture.directions
    with subject.session() as session:
        for case in GRID:
            y = np.zeros((case.batch, case.time, architecture.directions * size.hidden_size))
            state = np.zeros((rows, case.batch, size.hidden_size))
            outputs = _fetched(session, subject.inputs(case.batch, case.time, case.state, case.padding))
            form = Outputs(y, (state,) * len(architecture.state_names))
            for seen in compare(case.name, architecture, outputs, form, dtype):
                if seen.problem:
                    raise HarnessError(f"{seen.part} at {seen.case} is wrong: {seen.problem}")


@_rule("compute what the architecture's reference computes")
def check_parity(subject: _Subject) -> None:
    """The session agrees with the oracle over the whole grid, judged as a run judges it.

    The yardstick is the oracle's own equations in the session's dtype, so no other plugin is needed.
    """
    from harness.parity import judge, observe, observe_equations

    architecture, size, dtype = subject.model.architecture, subject.options.size, subject.options.dtype
    with subject.session() as session:
        observations = observe(session, architecture, subject.weights(), size, dtype)
    compute_dtype = subject.compute_dtype
    yardstick = observe_equations(architecture, subject.weights(), size, dtype, compute_dtype=compute_dtype)
    judgement = judge(observations, yardstick, compute_dtype)
    if not judgement.passed:
        raise HarnessError(judgement.reason)


@_rule("one question has one answer, to the last bit")
def check_determinism(subject: _Subject) -> None:
    """The same call twice gives the same bits, and so does a session opened anew."""
    inputs = subject.inputs(3, 7)
    with subject.session() as session:
        first, second = (_call(session, inputs) for _ in range(2))
    with subject.session() as session:
        anew = _call(session, inputs)
    for what, again in (("the same call twice", second), ("a session opened anew", anew)):
        if bits(first) != bits(again):
            raise HarnessError(f"{what} gives two answers")


@_rule("leave what you are given as it was")
def check_inputs_not_mutated(subject: _Subject) -> None:
    """Neither inputs nor weights are written to, by opening a session or by calling it."""
    weights = subject.weights()
    with closing(subject.runtime.open(subject.model, weights, subject.options)) as session:
        for state, padding in ((False, False), (True, False), (True, True)):
            inputs = subject.inputs(3, 7, state, padding)
            kept = deepcopy(inputs)
            _call(session, inputs)
            if bits(_given(inputs)) != bits(_given(kept)):
                raise HarnessError("the session changed its inputs")
    given = subject.weights()
    if weights.keys() != given.keys() or bits(weights.values()) != bits(given.values()):
        raise HarnessError("the session changed the weights that it was opened with")


@_rule("compute every row for itself")
def check_batch_of_n_is_n_batches_of_one(subject: _Subject) -> None:
    """A batch gives what its rows give one by one, with and without padding."""
    with subject.session() as session:
        for padding in (False, True):
            inputs = subject.inputs(4, 7, padding=padding)
            rows = [_row(inputs, row) for row in range(4)]
            alone = _rows_together([_call(session, row) for row in rows])
            exact, whole = subject.oracle(inputs)
            equations = whole, _rows_together([subject.oracle(row)[1] for row in rows])
            subject.require_close("a batch and its rows alone", (_call(session, inputs), alone), exact, equations)


@_rule("a layer in one direction reads no step before its time")
def check_causality(subject: _Subject) -> None:
    """What comes later changes nothing before: y up to a step stays when x is another after it.

    Kernels may choose their path by the values they meet, so it stays within rounding, not to the last bit.
    """
    inputs, others = subject.inputs(3, 9), subject.inputs(3, 9, seed=1)
    with subject.session() as session:
        for time in (1, 4, 8):
            x = inputs.x.copy()
            x[:, time:] = 10 * others.x[:, time:]
            pair = inputs, replace(inputs, x=x)
            answers = [[_call(session, one)[0][:, :time]] for one in pair]
            exact, *equations = [[part[0][:, :time]] for part in (*subject.oracle(inputs), subject.oracle(pair[1])[1])]
            what = f"the first {time} steps, before two different ends,"
            subject.require_close(what, answers, exact, equations)


@_rule("the state that comes out must be all that the next call needs")
def check_chunked_equals_whole(subject: _Subject) -> None:
    """A sequence in pieces, the state carried from one to the next, gives what it gives in one call."""
    with subject.session() as session:
        for state in (True, False):
            inputs = subject.inputs(3, 12, state)
            exact, equations = subject.oracle(inputs)
            whole = _call(session, inputs)
            for lengths in ((5, 7), (1, 11), (11, 1), (4, 4, 4), (1,) * 12):
                pieces = _in_pieces(partial(_call, session), inputs, lengths)
                yardstick = _in_pieces(lambda piece: subject.oracle(piece)[1], inputs, lengths)
                what = f"12 steps at once and in pieces of {', '.join(map(str, lengths))}"
                subject.require_close(what, (whole, pieces), exact, (equations, yardstick))


@_rule("never read behind a row's end, and give zeros there")
def check_padding_never_leaks(subject: _Subject) -> None:
    """Whatever stands behind a row's end (zeros, garbage, NaN, the largest numbers there are), the answer stays."""
    import numpy as np

    largest = float(np.finfo(subject.options.dtype).max)
    with subject.session() as session, np.errstate(all="ignore"):  # who masks what was computed there may compute it
        for state in (False, True):
            inputs = subject.inputs(4, 7, state, padding=True)
            padded = np.arange(7) >= np.asarray(inputs.lengths)[:, None]
            exact, equations = subject.oracle(inputs)
            clean = _call(session, replace(inputs, x=np.where(padded[:, :, None], inputs.x.dtype.type(0), inputs.x)))
            for name, filler in (("1e4", 1e4), ("NaN", np.nan), ("the largest", largest), ("the least", -largest)):
                x = inputs.x.copy()
                x[padded] = filler
                answer = _call(session, replace(inputs, x=x))
                what = f"rows with {name} and with zeros as padding"
                subject.require_close(what, (answer, clean), exact, (equations, equations))
                if answer[0][padded].any():
                    raise HarnessError("y is not zero at padding")


@_rule("what a session needs belongs to that session")
def check_sessions_do_not_disturb_each_other(subject: _Subject) -> None:
    """Two open sessions with different weights, called in turns, answer as each does alone; one may be closed first."""
    inputs, alone = subject.inputs(3, 7), []
    for seed in (0, 1):
        with subject.session(seed) as session:
            alone.append(_call(session, inputs))
    with subject.session(0) as first:
        with subject.session(1) as second:
            sessions = (first, second)
            prepared = [session.prepare(inputs) for session in sessions]
            raw = [session.run(one) for session, one in zip(sessions, prepared, strict=True)]
            together = [_arrays(session.fetch(one)) for session, one in zip(sessions, raw, strict=True)]
        together.append(_call(first, inputs))
    moments = ((0, "beside another"), (1, "beside another"), (0, "when another was closed"))
    for (seed, moment), answer in zip(moments, together, strict=True):
        exact, equations = subject.oracle(inputs, seed)
        what = f"a session alone and {moment}"
        subject.require_close(what, (answer, alone[seed]), exact, (equations, equations))


@_rule("carry nothing over from one call to the next")
def check_no_state_leak(subject: _Subject) -> None:
    """After other inputs (of the same shape with a state, of other shapes, with padding) the answer is the same."""
    inputs = subject.inputs(3, 7, state=False)
    exact, equations = subject.oracle(inputs)
    with subject.session() as session:
        first = _call(session, inputs)
        for batch, time, padding in ((3, 7, False), (1, 1, False), (5, 9, True)):
            _call(session, subject.inputs(batch, time, padding=padding, seed=1))
            what = f"the same call before and after another (batch {batch}, time {time})"
            subject.require_close(what, (_call(session, inputs), first), exact, (equations, equations))


@_rule("an answer and a prepared input stay as they are when the session is called again")
def check_results_are_kept(subject: _Subject) -> None:
    """Fetched outputs are not written to by later calls, and what was prepared survives them."""
    inputs, others = subject.inputs(3, 7), subject.inputs(3, 7, seed=1)
    exact, equations = subject.oracle(inputs)
    with subject.session() as session:
        first = _call(session, inputs)
        kept = bits(first)
        prepared = session.prepare(inputs)
        _call(session, others)
        if bits(first) != kept:
            raise HarnessError("a later call changed the outputs that were fetched before")
        late = _arrays(session.fetch(session.run(prepared)))
    subject.require_close("an input run at once and after another", (late, first), exact, (equations, equations))


@_rule("compile_seconds and the like are numbers, or not there")
def check_claims(subject: _Subject) -> None:
    """What a session says of itself once it was called is a number, finite and not negative; bytes are whole."""
    with subject.session() as session:
        _call(session, subject.inputs(1, 3))
        claims(session)


@_rule("a step moves every weight by its gradient, and tells the loss before it")
def check_gradients(subject: _Subject) -> None:
    """A training step has the oracle's loss and gradients: in float64 or, where there is none, the dtype asked for."""
    from harness.gradients import check_gradients as gradients
    from harness.gradients import judge_gradients

    assert isinstance(subject.runtime, Trainable)
    kinds: tuple[tuple[TaskKind, int], ...] = (("classification", 4), ("regression", 3))
    for kind, outputs in kinds:
        ask = partial(gradients, subject.model, subject.runtime, kind, outputs)
        try:
            found = ask(replace(subject.options, dtype="float64"))
        except Unsupported:
            found = ask(subject.options)
        if reason := judge_gradients(found):
            raise HarnessError(f"{kind}: {reason}")


@_rule("in through the door, out and in again changes nothing: no name, no bit, no dtype")
def check_weights_round_trip(subject: _Subject) -> None:
    """The model's doors lose nothing, and a trainer that has taken no step gives back the weights it was given."""
    model, size, dtype = subject.model, subject.options.size, subject.options.dtype
    weights = subject.weights()
    own = dict(model.to_parameters(weights))
    standard = dict(model.from_parameters(own))
    shapes = {name: tuple(shape) for name, shape in model.architecture.weight_shapes(size).items()}
    if {name: array.shape for name, array in standard.items()} != shapes:
        raise HarnessError("from_parameters does not give the architecture's names and shapes")
    _require_same("to_parameters after from_parameters", own, model.to_parameters(standard))
    for door, arrays in (("to_parameters", own), ("from_parameters", standard)):
        if wrong := [f"{name} in {array.dtype}" for name, array in arrays.items() if array.dtype != dtype]:
            raise HarnessError(f"{door} was given {dtype} and gives {', '.join(wrong)}")
    with subject.session():
        pass  # the layer takes what the door gives
    if isinstance(subject.runtime, Trainable):
        features = model.architecture.directions * size.hidden_size
        head = {"head.weight": (4, features), "head.bias": (4,)}
        weights |= {name: _counting(shape, dtype) for name, shape in head.items()}
        recipe = Recipe(size.hidden_size, size.num_layers)
        try:
            trainer = subject.runtime.open_trainer(model, weights, "classification", recipe, subject.options)
        except Unsupported:
            return  # that it does not train here is said where gradients are checked
        given = dict(trainer.weights())
        _require_same(
            "the head of an untrained trainer", {n: weights[n] for n in head}, {n: given.pop(n) for n in head}
        )
        _require_same("the weights of an untrained trainer", own, model.to_parameters(given))


def _fetched(session: Session, inputs: Inputs) -> Outputs:
    return session.fetch(session.run(session.prepare(inputs)))


def _call(session: Session, inputs: Inputs) -> list[Array]:
    return _arrays(_fetched(session, inputs))


def _arrays(outputs: Outputs) -> list[Array]:
    return [outputs.y, *outputs.state]


def _given(inputs: Inputs) -> list[Any]:
    return [array for array in (inputs.x, *(inputs.state or ()), inputs.lengths) if array is not None]


def bits(arrays: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Arrays as what can be compared to the last bit, dtype and shape too."""
    return [(str(array.dtype), array.shape, array.tobytes()) for array in arrays]


def _rms(array: Any) -> float:
    import numpy as np

    return float(np.sqrt(np.mean(np.square(array.astype(np.longdouble)))))


def _row(inputs: Inputs, row: int) -> Inputs:
    """One row of a batch, as a batch."""
    state = None if inputs.state is None else tuple(part[:, row : row + 1] for part in inputs.state)
    lengths = None if inputs.lengths is None else inputs.lengths[row : row + 1]
    return Inputs(inputs.x[row : row + 1], state, lengths)


def _rows_together(rows: list[list[Array]]) -> list[Array]:
    import numpy as np

    return [np.concatenate(parts, axis=min(place, 1)) for place, parts in enumerate(zip(*rows, strict=True))]


def _in_pieces(call: Callable[[Inputs], list[Array]], inputs: Inputs, lengths: Sequence[int]) -> list[Array]:
    """The answer to a sequence that is read in pieces of these lengths."""
    import numpy as np

    y: list[Array] = []
    start, state = 0, inputs.state
    for length in lengths:
        piece, *carried = call(Inputs(inputs.x[:, start : start + length], state))
        y.append(piece)
        start, state = start + length, tuple(carried)
    return [np.concatenate(y, axis=1), *(state or ())]


def _counting(shape: tuple[int, ...], dtype: str) -> Any:
    import numpy as np

    return (np.arange(1, 1 + np.prod(shape)) / 3).reshape(shape).astype(dtype)


def _require_same(what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    if expected.keys() != found.keys():
        raise HarnessError(f"{what}: {', '.join(sorted(expected.keys() ^ found.keys()))} is not in both")
    for name, array in expected.items():
        if bits([array]) != bits([found[name]]):
            raise HarnessError(f"{what}: {name} is not what went in")
