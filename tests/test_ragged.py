"""Rows of different lengths, for sessions that know only rectangles."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrong_models import NumpySession

from harness.architectures import BILSTM, LSTM
from harness.claims import claims
from harness.contract import Architecture, Inputs, LayerSize, Outputs
from harness.parity import judge, observe, observe_equations, probe_weights
from harness.ragged import ByLength

SIZE = LayerSize(3, 4, 2)
BOTH = pytest.mark.parametrize("architecture", [LSTM, BILSTM], ids=lambda a: a.name)


class Rectangles(NumpySession):
    """A session that refuses lengths, as an exported graph does."""

    def prepare(self, inputs: Inputs) -> Inputs:
        assert inputs.lengths is None
        return super().prepare(inputs)


def session_of(architecture: Architecture, dtype: str = "float64") -> Rectangles:
    return Rectangles(probe_weights(architecture, SIZE), dtype)


def inputs_of(architecture: Architecture, lengths: list[int], time: int, with_state: bool) -> Inputs:
    rng = np.random.default_rng([len(lengths), time])
    shape = (SIZE.num_layers * architecture.directions, len(lengths), SIZE.hidden_size)
    state = (rng.standard_normal(shape), rng.standard_normal(shape)) if with_state else None
    x = rng.standard_normal((len(lengths), time, SIZE.input_size))
    x[np.arange(time) >= np.array(lengths)[:, None]] = 1e3
    return Inputs(x, state, np.array(lengths))


def call(session: Any, inputs: Inputs) -> Outputs:
    outputs = session.fetch(session.run(session.prepare(inputs)))
    assert isinstance(outputs, Outputs)
    return outputs


@BOTH
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=7), more=st.integers(0, 2), with_state=st.booleans())
def test_it_equals_the_masked_oracle_for_any_lengths(
    architecture: Architecture, lengths: list[int], more: int, with_state: bool
) -> None:
    inputs = inputs_of(architecture, lengths, max(lengths) + more, with_state)
    weights = {name: array.astype("float64") for name, array in probe_weights(architecture, SIZE).items()}
    expected = architecture.reference(weights, inputs, SIZE)
    session = session_of(architecture)
    outputs = call(ByLength(session), inputs)
    for got, wanted in zip((outputs.y, *outputs.state), (expected.y, *expected.state), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)
    padding = np.arange(inputs.x.shape[1]) >= np.array(lengths)[:, None]
    assert not outputs.y[padding].any()


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9))
def test_no_padding_is_computed_and_every_distinct_length_is_one_call(lengths: list[int]) -> None:
    session = session_of(LSTM)
    call(ByLength(session), inputs_of(LSTM, lengths, 6, with_state=True))
    assert session.seen == [(lengths.count(length), length, SIZE.input_size) for length in sorted(set(lengths))]


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_session_of_rectangles_passes_parity_once_wrapped(architecture: Architecture, dtype: str) -> None:
    weights = probe_weights(architecture, SIZE)
    observations = observe(ByLength(session_of(architecture, dtype)), architecture, weights, SIZE, dtype)
    judgement = judge(observations, observe_equations(architecture, weights, SIZE, dtype), dtype)
    assert judgement.passed, judgement.reason


def test_inputs_without_lengths_pass_straight_through() -> None:
    class Recorder:
        def prepare(self, inputs: Inputs) -> Any:
            return "prepared", inputs

        def run(self, prepared: Any) -> Any:
            return "raw", prepared

        def fetch(self, raw: Any) -> Any:
            return "outputs", raw

        def close(self) -> None:
            pass

    session, inputs = ByLength(Recorder()), Inputs(np.ones((2, 3, 1)))
    assert session.prepare(inputs) == ("prepared", inputs)
    assert session.run("anything") == ("raw", "anything")
    outputs: Any = session.fetch("something")
    assert outputs == ("outputs", "something")


def test_the_outputs_keep_the_dtype_of_the_session() -> None:
    inputs = inputs_of(LSTM, [2, 1, 3], 3, with_state=False)
    outputs = call(ByLength(session_of(LSTM, "float32")), Inputs(inputs.x.astype("float32"), None, inputs.lengths))
    assert [part.dtype for part in (outputs.y, *outputs.state)] == [np.float32] * 3


def test_the_callers_arrays_stay_as_they_were() -> None:
    inputs = inputs_of(BILSTM, [2, 1, 3], 4, with_state=True)
    kept = [array.copy() for array in (inputs.x, *(inputs.state or ()))]
    call(ByLength(session_of(BILSTM)), inputs)
    for array, before in zip((inputs.x, *(inputs.state or ())), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_closing_closes_the_session_inside() -> None:
    session = session_of(LSTM)
    ByLength(session).close()
    assert session.closed == 1


def test_a_mistake_inside_stays_visible_through_the_wrapper() -> None:
    weights = probe_weights(BILSTM, SIZE)
    session = ByLength(NumpySession(weights, mistake="backward reads forward"))
    observations = observe(session, BILSTM, weights, SIZE, "float32")
    assert not judge(observations, observe_equations(BILSTM, weights, SIZE, "float32"), "float32").passed


def test_what_the_session_says_of_itself_is_passed_on_as_it_is_when_asked() -> None:
    session: Any = session_of(LSTM)
    wrapped = ByLength(session)
    assert set(claims(wrapped).values()) == {None}
    session.compile_seconds, session.size_bytes = 1.5, 2048
    assert claims(wrapped) == claims(session)
    assert (claims(wrapped)["compile_seconds"], claims(wrapped)["size_bytes"]) == (1.5, 2048)
    with pytest.raises(AttributeError):
        _ = wrapped._weights  # what the session keeps to itself stays its own
    assert copy.copy(wrapped).compile_seconds == 1.5  # copying looks for names before there is a session
