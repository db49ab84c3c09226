"""Parity: what is right passes, what is wrong in any known way is rejected by a wide margin."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrong_models import NumpySession, mistakes

from harness.architectures import BILSTM, LSTM
from harness.contract import Architecture, HarnessError, Inputs, LayerSize, Outputs
from harness.parity import (
    CHUNKS,
    GRID,
    Case,
    Judgement,
    Observation,
    case_inputs,
    cases_of,
    compare,
    judge,
    limit,
    observe,
    observe_equations,
    probe_weights,
)

if TYPE_CHECKING:
    from harness.contract import FloatArray

ARCHITECTURES = (LSTM, BILSTM)
DTYPES = ("float32", "float64")
MARGIN = 10  # a mistake must exceed its limit by this factor; the least seen is 359, for weights in half precision
REFUSED = {  # what is not even measured
    "inputs changed": "changed its inputs",
    "initial state changed": "changed its inputs",
    "no final c": "1 state arrays; (bi)?lstm has 2",
    "a tuple instead of outputs": r"fetch gave a tuple; it must give harness\.Outputs",
}


def size_of(num_layers: int) -> LayerSize:
    return LayerSize(5, 6, num_layers)


@functools.cache
def yardstick_of(architecture: Architecture, num_layers: int, dtype: str) -> list[Observation]:
    size = size_of(num_layers)
    return observe_equations(architecture, probe_weights(architecture, size), size, dtype)


def observed(
    architecture: Architecture, num_layers: int, dtype: str, mistake: str | None
) -> tuple[list[Observation], Judgement]:
    size = size_of(num_layers)
    weights = probe_weights(architecture, size)
    observations = observe(NumpySession(weights, dtype, mistake), architecture, weights, size, dtype)
    return observations, judge(observations, yardstick_of(architecture, num_layers, dtype), dtype)


def excess(observations: list[Observation], yardstick: list[Observation], dtype: str) -> float:
    """How many times its limit the worst error is."""
    yard = {(o.case, o.part): o.rmse for o in yardstick}
    return max(o.rmse / limit(yard[o.case, o.part], o.reference_rms, dtype) for o in observations)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_a_correct_implementation_that_shares_no_code_with_the_oracle_passes(
    architecture: Architecture, num_layers: int, dtype: str
) -> None:
    observations, judgement = observed(architecture, num_layers, dtype, mistake=None)
    assert judgement.passed, judgement.reason
    assert judgement.reason == ""
    assert 0 < judgement.max_abs_error < 100 * np.finfo(dtype).eps
    assert not any(o.problem for o in observations)


@pytest.mark.parametrize(
    ("architecture", "num_layers", "dtype", "mistake"),
    [
        pytest.param(architecture, num_layers, dtype, mistake, id=f"{architecture.name}-{num_layers}-{dtype}-{mistake}")
        for architecture in ARCHITECTURES
        for num_layers in (1, 2)
        for dtype in DTYPES
        for mistake in mistakes(architecture.directions, num_layers, dtype)
    ],
)
def test_a_mistake_is_rejected(architecture: Architecture, num_layers: int, dtype: str, mistake: str) -> None:
    if mistake in REFUSED:
        with pytest.raises(HarnessError, match=REFUSED[mistake]):
            observed(architecture, num_layers, dtype, mistake)
        return
    observations, judgement = observed(architecture, num_layers, dtype, mistake)
    assert not judgement.passed
    assert judgement.reason
    assert excess(observations, yardstick_of(architecture, num_layers, dtype), dtype) >= MARGIN


def test_a_batch_reversed_instead_of_time_is_rejected() -> None:
    _, judgement = observed(BILSTM, 1, "float32", "batch reversed instead of time")
    assert not judgement.passed


def test_gates_in_another_order_hide_from_nobody() -> None:
    """Every case and part sees it: the random weights leave no blind spot."""
    _, judgement = observed(LSTM, 1, "float32", "gates in the order i, o, f, g")
    assert judgement.reason.endswith("(30 of 30 checks failed)")


def test_a_layer_never_flipped_back_is_seen_in_the_output_alone() -> None:
    observations, _ = observed(BILSTM, 1, "float32", "backward output not flipped back")
    yardstick = {(o.case, o.part): o.rmse for o in yardstick_of(BILSTM, 1, "float32")}
    failing = {o.part for o in observations if o.rmse > limit(yardstick[o.case, o.part], o.reference_rms, "float32")}
    assert failing == {"y"}


@pytest.mark.parametrize("mistake", ["lengths ignored", "padding flipped to the front"])
def test_padding_mistakes_are_seen_only_because_the_grid_has_padding(mistake: str) -> None:
    size = size_of(1)
    weights = probe_weights(BILSTM, size)
    cases = [case for case in GRID if not case.padding]
    observations = observe(NumpySession(weights, mistake=mistake), BILSTM, weights, size, "float32", cases)
    assert judge(observations, yardstick_of(BILSTM, 1, "float32"), "float32").passed


def test_a_reason_names_the_part_the_case_and_the_size_of_the_error() -> None:
    _, judgement = observed(LSTM, 1, "float32", "state carried over between calls")
    assert "at batch 3, time 7, no state: error" in judgement.reason
    assert "allowed" in judgement.reason
    assert "(3 of 30 checks failed)" in judgement.reason


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("output of another dtype", "dtype float64 instead of float32"),
        ("output time first", "shape (12, 32, 6) instead of (32, 12, 6)"),
        ("not finite in one place", "not finite"),
        ("a list instead of an array", "a list instead of an array"),
    ],
)
def test_an_output_of_the_wrong_form_is_rejected_in_words(mistake: str, words: str) -> None:
    observations, judgement = observed(LSTM, 1, "float32", mistake)
    assert words in {o.problem for o in observations}
    assert judgement.max_abs_error == math.inf
    assert any(word in judgement.reason for word in ("dtype", "shape", "not finite", "list"))


def test_what_a_session_raises_is_not_hidden() -> None:
    class Broken(NumpySession):
        def run(self, prepared: Inputs) -> Outputs:
            raise RuntimeError("no kernel image is available")

    size = size_of(1)
    weights = probe_weights(LSTM, size)
    with pytest.raises(RuntimeError, match="no kernel image"):
        observe(Broken(weights), LSTM, weights, size, "float32")


def test_float64_sessions_are_held_against_a_longer_float() -> None:
    """The equations in float64 have an error of their own, so the oracle they are held against is not float64."""
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("this machine has no float longer than float64")
    assert all(o.rmse > 0 for o in yardstick_of(BILSTM, 2, "float64"))


# ------------------------------------------------------------------------------------------------------- probe


def test_the_grid_has_every_shape_that_hides_a_mistake_from_the_others() -> None:
    assert any(case.batch >= 3 and case.time >= 3 and case.state for case in GRID)
    assert any(case.padding and case.state for case in GRID)
    assert any(case.padding and not case.state for case in GRID)
    assert {1} < {case.batch for case in GRID}
    assert {1} < {case.time for case in GRID}
    assert len({case.name for case in GRID}) == len(GRID)


def test_a_stateless_case_follows_one_of_the_same_shape_with_a_state() -> None:
    assert any(before.state and after == replace(before, state=False) for before, after in pairwise(GRID))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_probe_weights_are_all_different_and_in_the_range_of_an_initialisation(architecture: Architecture) -> None:
    size = LayerSize(7, 16, 2)
    weights = probe_weights(architecture, size)
    assert {name: array.shape for name, array in weights.items()} == dict(architecture.weight_shapes(size))
    values = np.concatenate([array.ravel() for array in weights.values()])
    assert values.dtype == np.float32
    assert 0.95 * 0.25 < np.abs(values).max() <= 0.25
    arrays = [array.tobytes() for array in weights.values()]
    assert len(set(arrays)) == len(arrays)


def test_probe_weights_and_inputs_are_the_same_on_every_call() -> None:
    size = size_of(1)
    for first, second in zip(probe_weights(LSTM, size).values(), probe_weights(LSTM, size).values(), strict=True):
        np.testing.assert_array_equal(first, second)
    one, other = (case_inputs(GRID[0], LSTM, size, "float32") for _ in range(2))
    np.testing.assert_array_equal(one.x, other.x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
def test_a_case_has_the_inputs_it_says(case: Case, dtype: str) -> None:
    size = LayerSize(5, 6, 2)
    inputs = case_inputs(case, BILSTM, size, dtype)
    assert inputs.x.shape == (case.batch, case.time, 5)
    assert inputs.x.dtype == dtype
    assert (inputs.state is not None) == case.state
    assert (inputs.lengths is not None) == case.padding
    if inputs.state is not None:
        assert [part.shape for part in inputs.state] == [(4, case.batch, 6)] * 2
        assert [part.dtype for part in inputs.state] == [dtype] * 2
        assert not np.array_equal(inputs.state[0], inputs.state[1])
    if inputs.lengths is not None:
        assert set(inputs.lengths.tolist()) <= set(range(1, case.time + 1))
        assert {1, case.time} <= set(inputs.lengths.tolist())
        padded = np.arange(case.time) >= inputs.lengths[:, None]
        assert np.std(inputs.x[padded]) > 4 * np.std(inputs.x[~padded])


def test_both_dtypes_meet_the_same_inputs() -> None:
    for case in GRID:
        single, double = (case_inputs(case, LSTM, size_of(1), dtype) for dtype in DTYPES)
        np.testing.assert_array_equal(single.x, double.x.astype(np.float32))


# ------------------------------------------------------------------------------------------------------- compare


def outputs_of(*values: float) -> Outputs:
    return Outputs(np.array([[values]], "float32"), (np.ones((1, 1, 1), "float32"),) * 2)


def test_errors_are_measured_as_root_mean_square_and_as_the_largest() -> None:
    y, h_n, c_n = compare("a case", LSTM, outputs_of(3, 0), outputs_of(0, 4), "float32")
    assert (y.part, h_n.part, c_n.part) == ("y", "h_n", "c_n")
    assert y.rmse == pytest.approx(math.sqrt((9 + 16) / 2))
    assert y.max_abs_error == 4
    assert y.reference_rms == pytest.approx(math.sqrt(8))
    assert (h_n.rmse, h_n.max_abs_error, h_n.reference_rms) == (0, 0, 1)


# ------------------------------------------------------------------------------------------------------- judge

POSITIVE = st.floats(1e-9, 1e3)


def seen(rmse: float, reference_rms: float = 1.0, case: str = "a", part: str = "y", problem: str = "") -> Observation:
    return Observation(case, part, rmse, rmse, reference_rms, problem)


@given(yardstick=POSITIVE, rms=POSITIVE)
def test_an_error_exactly_at_the_limit_passes_and_the_next_float_fails(yardstick: float, rms: float) -> None:
    allowed = limit(yardstick, rms, "float32")
    assert judge([seen(allowed, rms)], [seen(yardstick)], "float32").passed
    assert not judge([seen(math.nextafter(allowed, math.inf), rms)], [seen(yardstick)], "float32").passed


@given(yardstick=POSITIVE, rms=POSITIVE, factor=st.floats(1, 100))
def test_the_limit_is_twice_the_yardstick_plus_four_ulps_and_scales_with_both(
    yardstick: float, rms: float, factor: float
) -> None:
    for dtype in DTYPES:
        eps = float(np.finfo(dtype).eps)
        assert limit(yardstick, rms, dtype) == pytest.approx(2 * yardstick + 4 * eps * rms, rel=1e-12)
        assert limit(factor * yardstick, factor * rms, dtype) == pytest.approx(factor * limit(yardstick, rms, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exact_yardstick_still_allows_four_units_in_the_last_place(dtype: str) -> None:
    eps = float(np.finfo(dtype).eps)
    judgement = judge([seen(8 * eps, reference_rms=2.0)], [seen(0.0)], dtype)
    assert judgement.passed
    assert math.isnan(judgement.ratio)
    assert not judge([seen(8.1 * eps, reference_rms=2.0)], [seen(0.0)], dtype).passed


def test_an_output_that_must_be_zero_and_is_not_fails_in_words() -> None:
    judgement = judge([seen(1e-30, reference_rms=0.0)], [seen(0.0)], "float32")
    assert not judgement.passed
    assert judgement.reason == "y at a: error 1.0e-30, allowed 0.0e+00 (1 of 1 checks failed)"


def test_the_ratio_is_the_largest_error_relative_to_the_yardstick_of_the_same_check() -> None:
    observations = [seen(3e-7, part="y"), seen(1e-7, part="h_n"), seen(9e-7, part="c_n")]
    yardstick = [seen(1e-7, part="y"), seen(1e-6, part="h_n"), seen(0.0, part="c_n")]
    assert judge(observations, yardstick, "float32").ratio == pytest.approx(3)


def test_a_yardstick_held_against_itself_has_ratio_one() -> None:
    yardstick = yardstick_of(BILSTM, 2, "float32")
    judgement = judge(yardstick, yardstick, "float32")
    assert judgement.passed
    assert judgement.ratio == 1


def test_one_failure_among_many_fails_and_the_worst_is_named() -> None:
    names = "abcde"
    observations = [seen(1e-7, case=name) for name in names]
    observations[1], observations[3] = seen(1e-2, case="b"), seen(1e-1, case="d")
    judgement = judge(observations, [seen(1e-7, case=name) for name in names], "float32")
    assert not judgement.passed
    assert judgement.reason.startswith("y at d: error 1.0e-01")
    assert judgement.reason.endswith("(2 of 5 checks failed)")
    assert judgement.max_abs_error == 0.1


@pytest.mark.parametrize("rmse", [math.nan, math.inf])
def test_an_error_that_is_no_number_never_passes(rmse: float) -> None:
    assert not judge([seen(rmse, problem="not finite")], [seen(1e-7)], "float32").passed


def test_a_yardstick_without_the_case_is_an_error_in_the_harness() -> None:
    with pytest.raises(ValueError, match="no observation of y in 'b'"):
        judge([seen(0.0, case="b")], [seen(1e-7, case="a")], "float32")


def test_a_yardstick_without_the_part_is_an_error_in_the_harness() -> None:
    with pytest.raises(ValueError, match="no observation of c_n"):
        judge([seen(0.0, part="c_n")], [seen(1e-7, part="y")], "float32")


def test_no_observations_are_not_a_pass() -> None:
    with pytest.raises(ValueError, match="never checked"):
        judge([], [seen(1e-7)], "float32")


def test_a_yardstick_that_is_not_finite_itself_lets_nothing_through() -> None:
    broken, wrong = seen(math.inf, problem="not finite"), seen(math.inf, problem="shape (1,) instead of (2,)")
    assert not judge([wrong], [broken], "float32").passed


def test_a_wrong_yardstick_is_found_out_by_the_equations() -> None:
    observations, judgement = observed(LSTM, 1, "float32", "gates in the order i, o, f, g")
    assert judge(observations, observations, "float32").passed  # against itself anything passes
    assert not judgement.passed  # so a run judges its yardstick against the equations first


# ------------------------------------------------------------------------------------------------------- torch


class TorchSession:
    """`torch.nn.LSTM` with packed sequences."""

    def __init__(
        self, weights: Mapping[str, FloatArray], architecture: Architecture, size: LayerSize, dtype: str
    ) -> None:
        torch: Any = pytest.importorskip("torch")
        self._torch = torch
        self._layer = torch.nn.LSTM(
            size.input_size,
            size.hidden_size,
            size.num_layers,
            batch_first=True,
            bidirectional=architecture.directions == 2,
            dtype=getattr(torch, dtype),
        )
        self._layer.load_state_dict({name: torch.from_numpy(array.astype(dtype)) for name, array in weights.items()})

    def prepare(self, inputs: Inputs) -> Any:
        return inputs

    def run(self, prepared: Any) -> Any:
        torch, rnn = self._torch, self._torch.nn.utils.rnn
        x = torch.tensor(prepared.x)
        state = None if prepared.state is None else tuple(torch.tensor(part) for part in prepared.state)
        with torch.inference_mode():
            if prepared.lengths is None:
                return self._layer(x, state)
            packed = rnn.pack_padded_sequence(x, torch.tensor(prepared.lengths), batch_first=True, enforce_sorted=False)
            y, final = self._layer(packed, state)
            return rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], final

    def fetch(self, raw: Any) -> Outputs:
        y, state = raw
        return Outputs(y.numpy(), tuple(part.numpy() for part in state))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [LayerSize(5, 6, 2), LayerSize(8, 64), LayerSize(28, 128)], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_the_equations_are_no_looser_a_yardstick_than_torch(
    architecture: Architecture, size: LayerSize, dtype: str
) -> None:
    """Measured (10 layers, 2 dtypes, 4 seeds): overall 0.76 to 1.11 times torch's error, limits 0.77 to 1.23 times."""
    weights = probe_weights(architecture, size)
    torch = observe(TorchSession(weights, architecture, size, dtype), architecture, weights, size, dtype)
    equations = observe_equations(architecture, weights, size, dtype)
    assert judge(torch, equations, dtype).passed
    assert judge(equations, torch, dtype).passed

    def overall(observations: list[Observation]) -> float:
        return math.sqrt(sum(o.rmse**2 for o in observations) / len(observations))

    assert 0.5 < overall(equations) / overall(torch) < 1.25
    for own, other in zip(equations, torch, strict=True):
        ratio = limit(own.rmse, own.reference_rms, dtype) / limit(other.rmse, other.reference_rms, dtype)
        assert 0.5 < ratio < 1.5, own


# ------------------------------------------------------------------------------------------------- in chunks


class Recording(NumpySession):
    """A right session, or one with a mistake, that keeps what it was given."""

    def __init__(self, weights: Mapping[str, FloatArray], mistake: str | None = None) -> None:
        super().__init__(weights, "float32", mistake)
        self.given: list[Inputs] = []

    def prepare(self, inputs: Inputs) -> Any:
        self.given.append(inputs)
        return super().prepare(inputs)


def in_chunks(mistake: str | None = None, steps: int = 3) -> tuple[Recording, Judgement]:
    """What is found of a session by the one case in chunks."""
    weights, size = probe_weights(LSTM, size_of(1)), size_of(1)
    (case,) = cases_of([], steps)[len(GRID) :]
    session = Recording(weights, mistake)
    observations = observe(session, LSTM, weights, size, "float32", [case])
    return session, judge(observations, observe_equations(LSTM, weights, size, "float32", [case]), "float32")


def test_a_whole_in_chunks_is_one_case_more_where_chunks_are_timed() -> None:
    assert cases_of([(2, 9)]) == [*GRID, Case(2, 9, state=False)]
    more = cases_of([(2, 9)], chunk_steps=3)[-1]
    assert more == Case(1, 3 * CHUNKS, state=False, chunk_steps=3)
    assert more.name == "batch 1, time 12, no state, in chunks of 3"


def test_a_right_session_gets_chunk_after_chunk_with_the_state_it_gave() -> None:
    session, judgement = in_chunks()
    assert judgement.passed
    assert [inputs.x.shape for inputs in session.given] == [(1, 3, 5)] * CHUNKS
    assert [inputs.state is None for inputs in session.given] == [True, False, False, False]
    whole = case_inputs(Case(1, 12, state=False, chunk_steps=3), LSTM, size_of(1), "float32")
    np.testing.assert_array_equal(np.concatenate([inputs.x for inputs in session.given], axis=1), whole.x)


def test_a_last_chunk_may_be_shorter() -> None:
    weights, size, case = probe_weights(LSTM, size_of(1)), size_of(1), Case(2, 7, chunk_steps=3)
    session = Recording(weights)
    observations = observe(session, LSTM, weights, size, "float32", [case])
    assert [inputs.x.shape[1] for inputs in session.given] == [3, 3, 1]
    assert judge(observations, observe_equations(LSTM, weights, size, "float32", [case]), "float32").passed


@pytest.mark.parametrize("mistake", ["state ignored", "c_0 ignored", "h_0 and c_0 swapped", "output is c"])
def test_who_does_not_go_on_from_its_state_is_wrong_in_chunks(mistake: str) -> None:
    judgement = in_chunks(mistake)[1]
    assert not judgement.passed
    assert "in chunks of 3" in judgement.reason


@pytest.mark.parametrize("mistake", ["inputs changed", "no final c", "a tuple instead of outputs"])
def test_what_is_not_even_measured_is_refused_in_chunks_too(mistake: str) -> None:
    with pytest.raises(HarnessError, match=REFUSED[mistake]):
        in_chunks(mistake)


def test_outputs_that_cannot_be_put_side_by_side_fail_and_break_nothing() -> None:
    assert "instead of an array" in in_chunks("a list instead of an array")[1].reason
