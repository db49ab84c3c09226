"""The oracle: against torch in float64, and by laws that need nobody else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import special

from harness.architectures import BIGRU, BILSTM, BUILT_IN, GRU, LSTM
from harness.contract import Architecture, Inputs, LayerSize, Outputs
from harness.reference import gru, lstm, sigmoid

if TYPE_CHECKING:
    from harness.contract import FloatArray

EXACT = 1e-12
ONE_WAY = pytest.mark.parametrize("architecture", [LSTM, GRU], ids=lambda a: a.name)
BOTH_WAYS = pytest.mark.parametrize("architecture", [BILSTM, BIGRU], ids=lambda a: a.name)


@dataclass(frozen=True)
class Problem:
    """A layer with weights and inputs, all in float64."""

    architecture: Architecture
    size: LayerSize
    weights: Mapping[str, FloatArray]
    inputs: Inputs

    def run(self, inputs: Inputs | None = None) -> Outputs:
        return self.architecture.reference(self.weights, inputs or self.inputs, self.size)


@st.composite
def problems(
    draw: st.DrawFn,
    architectures: tuple[Architecture, ...] = BUILT_IN,
    directions: tuple[int, ...] = (1, 2),
    layers: int = 3,
    lengths: bool | None = None,
) -> Problem:
    architecture = draw(st.sampled_from([a for a in architectures if a.directions in directions]))
    size = LayerSize(draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, layers)))
    batch, time = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = {name: rng.uniform(-1, 1, shape) for name, shape in architecture.weight_shapes(size).items()}
    state = None
    if draw(st.booleans()):
        shape = (size.num_layers * architecture.directions, batch, size.hidden_size)
        state = tuple(rng.standard_normal(shape) for _ in architecture.state_names)
    ragged = draw(st.booleans()) if lengths is None else lengths
    ends = rng.integers(1, time + 1, size=batch) if ragged else None
    return Problem(
        architecture, size, weights, Inputs(rng.standard_normal((batch, time, size.input_size)), state, ends)
    )


def arrays(outputs: Outputs) -> tuple[FloatArray, ...]:
    return outputs.y, *outputs.state


def assert_close(one: Outputs, other: Outputs) -> None:
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=EXACT, atol=EXACT)


def rows_of(inputs: Inputs, rows: list[int]) -> Inputs:
    state = None if inputs.state is None else tuple(part[:, rows] for part in inputs.state)
    return Inputs(inputs.x[rows], state, None if inputs.lengths is None else inputs.lengths[rows])


@settings(max_examples=300)
@given(problem=problems())
def test_it_is_torch_in_float64_for_every_size_direction_state_and_length(problem: Problem) -> None:
    torch: Any = pytest.importorskip("torch")
    rnn = torch.nn.utils.rnn
    size, inputs = problem.size, problem.inputs
    one_state = len(problem.architecture.state_names) == 1
    layer = (torch.nn.GRU if one_state else torch.nn.LSTM)(
        size.input_size,
        size.hidden_size,
        size.num_layers,
        batch_first=True,
        bidirectional=problem.architecture.directions == 2,
        dtype=torch.float64,
    )
    layer.load_state_dict({name: torch.tensor(array) for name, array in problem.weights.items()})
    state = None if inputs.state is None else tuple(torch.tensor(part) for part in inputs.state)
    state = state[0] if state and one_state else state
    x = torch.tensor(inputs.x)
    with torch.no_grad():
        if inputs.lengths is None:
            y, final = layer(x, state)
        else:
            packed = rnn.pack_padded_sequence(x, torch.tensor(inputs.lengths), batch_first=True, enforce_sorted=False)
            packed, final = layer(packed, state)
            y, _ = rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    parts = (final,) if one_state else final
    assert_close(problem.run(), Outputs(y.numpy(), tuple(part.numpy() for part in parts)))


@given(problem=problems(directions=(1,), lengths=False), cut=st.integers(1, 7))
def test_a_sequence_in_chunks_with_the_state_carried_equals_the_whole(problem: Problem, cut: int) -> None:
    x, state = problem.inputs.x, problem.inputs.state
    assume(cut < x.shape[1])
    first = problem.run(Inputs(x[:, :cut], state))
    second = problem.run(Inputs(x[:, cut:], first.state))
    assert_close(problem.run(), Outputs(np.concatenate([first.y, second.y], axis=1), second.state))


@given(problem=problems())
def test_a_batch_equals_its_rows_one_by_one(problem: Problem) -> None:
    rows = [problem.run(rows_of(problem.inputs, [row])) for row in range(len(problem.inputs.x))]
    y = np.concatenate([row.y for row in rows])
    state = tuple(np.concatenate([row.state[k] for row in rows], axis=1) for k in range(len(rows[0].state)))
    assert_close(problem.run(), Outputs(y, state))


@given(problem=problems((LSTM, BILSTM), layers=1))
def test_without_weights_the_biases_of_an_lstm_decide_in_closed_form(problem: Problem) -> None:
    """With W = U = 0 the gates never change, so c_n = f^n c_0 + i g (1 + f + ... + f^(n-1)) after n steps."""
    weights = {n: np.zeros_like(a) if n.startswith("weight") else a for n, a in problem.weights.items()}
    outputs = lstm(weights, problem.inputs)
    batch, time, _ = problem.inputs.x.shape
    lengths = np.full(batch, time) if problem.inputs.lengths is None else problem.inputs.lengths
    for k, suffix in enumerate(("", "_reverse")[: problem.architecture.directions]):
        i, f, g, o = np.split(problem.weights["bias_ih_l0" + suffix] + problem.weights["bias_hh_l0" + suffix], 4)
        i, f, g, o = special.expit(i), special.expit(f), np.tanh(g), special.expit(o)
        c_0 = (
            np.zeros((batch, problem.size.hidden_size)) if problem.inputs.state is None else problem.inputs.state[1][k]
        )
        n = lengths[:, None]
        c_n = f**n * c_0 + i * g * (1 - f**n) / (1 - f)
        np.testing.assert_allclose(outputs.state[1][k], c_n, rtol=EXACT, atol=EXACT)
        np.testing.assert_allclose(outputs.state[0][k], o * np.tanh(c_n), rtol=EXACT, atol=EXACT)


@given(problem=problems((GRU, BIGRU), layers=1))
def test_without_weights_the_biases_of_a_gru_decide_in_closed_form(problem: Problem) -> None:
    """With W = U = 0 the gates never change, so h_n = z^n h_0 + (1 - z^n) tanh(b_in + r b_hn) after n steps."""
    weights = {n: np.zeros_like(a) if n.startswith("weight") else a for n, a in problem.weights.items()}
    outputs = gru(weights, problem.inputs)
    batch, time, _ = problem.inputs.x.shape
    steps = np.full(batch, time) if problem.inputs.lengths is None else problem.inputs.lengths
    for k, suffix in enumerate(("", "_reverse")[: problem.architecture.directions]):
        (r_x, z_x, n_x), (r_h, z_h, n_h) = (
            np.split(problem.weights[f"{name}_l0{suffix}"], 3) for name in ("bias_ih", "bias_hh")
        )
        new = np.tanh(n_x + special.expit(r_x + r_h) * n_h)
        kept = special.expit(z_x + z_h) ** steps[:, None]
        h_0 = 0 if problem.inputs.state is None else problem.inputs.state[0][k]
        np.testing.assert_allclose(outputs.state[0][k], kept * h_0 + (1 - kept) * new, rtol=EXACT, atol=EXACT)


def test_one_step_of_one_unit_of_an_lstm_is_the_equation_worked_by_hand() -> None:
    weights = {
        "weight_ih_l0": np.array([[0.1], [0.2], [0.3], [0.4]]),
        "weight_hh_l0": np.array([[0.5], [0.6], [0.7], [0.8]]),
        "bias_ih_l0": np.array([0.01, 0.02, 0.03, 0.04]),
        "bias_hh_l0": np.array([0.05, 0.06, 0.07, 0.08]),
    }
    x, h, c = 2.0, 0.25, -0.5

    def s(a: float) -> float:
        return 1 / (1 + math.exp(-a))

    i, f = s(0.1 * x + 0.5 * h + 0.06), s(0.2 * x + 0.6 * h + 0.08)
    g, o = math.tanh(0.3 * x + 0.7 * h + 0.10), s(0.4 * x + 0.8 * h + 0.12)
    c_1 = f * c + i * g
    outputs = lstm(weights, Inputs(np.full((1, 1, 1), x), (np.full((1, 1, 1), h), np.full((1, 1, 1), c))))
    assert outputs.state[1].item() == pytest.approx(c_1, rel=1e-14)
    assert outputs.state[0].item() == outputs.y.item() == pytest.approx(o * math.tanh(c_1), rel=1e-14)


def test_one_step_of_two_units_of_a_gru_is_the_equation_worked_by_hand() -> None:
    """Two units, because with one the reset gate may stand on either side of the product."""
    w = {"r": (0.1, 0.2), "z": (0.3, 0.4), "n": (0.5, 0.6)}  # by unit, for the one input
    u = {"r": ((0.7, -0.6), (0.5, 0.4)), "z": ((-0.3, 0.2), (0.1, 0.9)), "n": ((0.8, -0.7), (0.6, 0.5))}
    b_ih = {"r": (0.01, 0.02), "z": (0.03, 0.04), "n": (0.05, 0.06)}
    b_hh = {"r": (0.07, 0.08), "z": (0.09, 0.10), "n": (0.11, 0.12)}
    x, h = 2.0, (0.25, -0.5)

    def from_x(gate: str, unit: int) -> float:
        return w[gate][unit] * x + b_ih[gate][unit]

    def from_h(gate: str, unit: int) -> float:
        return u[gate][unit][0] * h[0] + u[gate][unit][1] * h[1] + b_hh[gate][unit]

    def s(gate: str, unit: int) -> float:
        return 1 / (1 + math.exp(-from_x(gate, unit) - from_h(gate, unit)))

    n = [math.tanh(from_x("n", unit) + s("r", unit) * from_h("n", unit)) for unit in range(2)]
    expected = [(1 - s("z", unit)) * n[unit] + s("z", unit) * h[unit] for unit in range(2)]
    weights = {
        "weight_ih_l0": np.array([w[gate][unit] for gate in "rzn" for unit in range(2)])[:, None],
        "weight_hh_l0": np.array([u[gate][unit] for gate in "rzn" for unit in range(2)]),
        "bias_ih_l0": np.array([b_ih[gate][unit] for gate in "rzn" for unit in range(2)]),
        "bias_hh_l0": np.array([b_hh[gate][unit] for gate in "rzn" for unit in range(2)]),
    }
    outputs = gru(weights, Inputs(np.full((1, 1, 1), x), (np.array([[h]]),)))
    assert outputs.y.ravel().tolist() == outputs.state[0].ravel().tolist() == pytest.approx(expected, rel=1e-14)


@given(problem=problems(directions=(1,), lengths=False), step=st.integers(0, 7))
def test_no_output_knows_a_later_input(problem: Problem, step: int) -> None:
    assume(step < problem.inputs.x.shape[1])
    x = problem.inputs.x.copy()
    x[:, step] += 1
    before, after = problem.run(), problem.run(Inputs(x, problem.inputs.state))
    np.testing.assert_array_equal(before.y[:, :step], after.y[:, :step])
    assert not np.array_equal(before.y[:, step], after.y[:, step])


@given(problem=problems(directions=(2,), layers=1, lengths=False), step=st.integers(0, 7))
def test_the_backward_half_knows_only_later_inputs(problem: Problem, step: int) -> None:
    assume(step < problem.inputs.x.shape[1])
    hidden = problem.size.hidden_size
    x = problem.inputs.x.copy()
    x[:, step] += 1
    before, after = problem.run().y[:, :, hidden:], problem.run(Inputs(x, problem.inputs.state)).y[:, :, hidden:]
    np.testing.assert_array_equal(before[:, step + 1 :], after[:, step + 1 :])
    assert not np.array_equal(before[:, step], after[:, step])


@given(problem=problems(lengths=True), garbage=st.sampled_from([0.0, -7.0, 1e6]))
def test_the_content_of_padding_does_not_matter_and_the_output_there_is_zero(problem: Problem, garbage: float) -> None:
    x, lengths = problem.inputs.x.copy(), problem.inputs.lengths
    assert lengths is not None
    padding = np.arange(x.shape[1]) >= lengths[:, None]
    x[padding] = garbage
    one, other = problem.run(), problem.run(Inputs(x, problem.inputs.state, lengths))
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not one.y[padding].any()
    assert one.y[~padding].all()


@given(problem=problems(lengths=True))
def test_a_padded_row_equals_the_row_cut_to_its_length(problem: Problem) -> None:
    whole, lengths = problem.run(), problem.inputs.lengths
    assert lengths is not None
    for row, length in enumerate(lengths.tolist()):
        alone = rows_of(problem.inputs, [row])
        cut = problem.run(Inputs(alone.x[:, :length], alone.state))
        assert_close(cut, Outputs(whole.y[[row], :length], tuple(part[:, [row]] for part in whole.state)))


@given(problem=problems(lengths=False))
def test_full_lengths_are_the_same_as_none(problem: Problem) -> None:
    batch, time, _ = problem.inputs.x.shape
    full = problem.run(Inputs(problem.inputs.x, problem.inputs.state, np.full(batch, time)))
    for a, b in zip(arrays(problem.run()), arrays(full), strict=True):
        np.testing.assert_array_equal(a, b)


@given(problem=problems(directions=(2,), lengths=False))
def test_reversed_time_and_swapped_directions_mirror_the_outputs(problem: Problem) -> None:
    hidden, inputs = problem.size.hidden_size, problem.inputs
    swapped: dict[str, FloatArray] = {}
    for name, array in problem.weights.items():
        other = name.removesuffix("_reverse") if name.endswith("_reverse") else name + "_reverse"
        if name.startswith("weight_ih") and "_l0" not in name:
            array = np.concatenate([array[:, hidden:], array[:, :hidden]], axis=1)  # the layer below is mirrored too
        swapped[other] = array
    order = [k ^ 1 for k in range(2 * problem.size.num_layers)]
    state = None if inputs.state is None else tuple(part[order] for part in inputs.state)
    mirrored = problem.architecture.reference(swapped, Inputs(inputs.x[:, ::-1], state), problem.size)
    y = np.concatenate([mirrored.y[:, ::-1, hidden:], mirrored.y[:, ::-1, :hidden]], axis=2)
    assert_close(problem.run(), Outputs(y, tuple(part[order] for part in mirrored.state)))


@given(problem=problems())
def test_the_final_h_is_the_last_layers_output_at_each_rows_own_ends(problem: Problem) -> None:
    outputs, inputs, hidden = problem.run(), problem.inputs, problem.size.hidden_size
    batch, time, _ = inputs.x.shape
    last = np.full(batch, time - 1) if inputs.lengths is None else inputs.lengths - 1
    directions = problem.architecture.directions
    np.testing.assert_array_equal(outputs.state[0][-directions], outputs.y[np.arange(batch), last, :hidden])
    if directions == 2:
        np.testing.assert_array_equal(outputs.state[0][-1], outputs.y[:, 0, hidden:])


@given(problem=problems())
def test_nothing_it_is_given_is_changed(problem: Problem) -> None:
    inputs = problem.inputs
    given_arrays = [inputs.x, *(inputs.state or ()), *problem.weights.values()]
    kept = [array.copy() for array in given_arrays]
    problem.run()
    for array, copy in zip(given_arrays, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@BOTH_WAYS
@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_it_computes_in_the_dtype_of_the_weights_whatever_the_inputs_are(
    architecture: Architecture, dtype: str
) -> None:
    rng, size = np.random.default_rng(0), LayerSize(2, 3, 2)
    weights = {n: rng.uniform(-1, 1, s).astype(dtype) for n, s in architecture.weight_shapes(size).items()}
    outputs = architecture.reference(weights, Inputs(rng.standard_normal((2, 4, 2)).astype("float32")), size)
    assert {part.dtype for part in arrays(outputs)} == {np.dtype(dtype)}


@BOTH_WAYS
def test_float32_agrees_with_float64_to_float32(architecture: Architecture) -> None:
    rng, size = np.random.default_rng(1), LayerSize(4, 5, 2)
    weights = {n: rng.uniform(-1, 1, s).astype("float32") for n, s in architecture.weight_shapes(size).items()}
    inputs = Inputs(rng.standard_normal((3, 6, 4)).astype("float32"))
    double = architecture.reference({n: array.astype("float64") for n, array in weights.items()}, inputs, size)
    for a, b in zip(arrays(architecture.reference(weights, inputs, size)), arrays(double), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6, rtol=0)
        assert not np.array_equal(a, b)


ONE_LAYER = LayerSize(2, 3)


def one_layer(architecture: Architecture) -> tuple[dict[str, FloatArray], FloatArray]:
    rng = np.random.default_rng(0)
    weights: dict[str, FloatArray] = {
        name: rng.uniform(-1, 1, shape) for name, shape in architecture.weight_shapes(ONE_LAYER).items()
    }
    return weights, rng.standard_normal((2, 4, 2))


@ONE_WAY
def test_a_head_among_the_weights_is_ignored(architecture: Architecture) -> None:
    weights, x = one_layer(architecture)
    head = {"head.weight": np.ones((5, 3)), "head.bias": np.ones(5)}
    without = architecture.reference(weights, Inputs(x), ONE_LAYER)
    np.testing.assert_array_equal(without.y, architecture.reference(weights | head, Inputs(x), ONE_LAYER).y)


@ONE_WAY
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_a_missing_weight_is_named(architecture: Architecture, name: str) -> None:
    weights, x = one_layer(architecture)
    del weights[name]
    with pytest.raises(KeyError, match=name):
        architecture.reference(weights, Inputs(x), ONE_LAYER)


@ONE_WAY
@pytest.mark.parametrize("lengths", [[0, 4], [1, 5], [-1, 2], [4], [[1, 2]]], ids=str)
def test_lengths_that_do_not_fit_are_refused(architecture: Architecture, lengths: list[int]) -> None:
    weights, x = one_layer(architecture)
    with pytest.raises(ValueError, match=r"lengths must be 2 integers in 1\.\.4"):
        architecture.reference(weights, Inputs(x, lengths=np.array(lengths)), ONE_LAYER)


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 2, 3), (1, 2, 4), (2, 3), (1, 1, 3)])
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_state_that_does_not_fit_is_refused_rather_than_broadcast(shape: tuple[int, ...], wrong: int) -> None:
    weights, x = one_layer(LSTM)
    state = [np.zeros((1, 2, 3)), np.zeros((1, 2, 3))]
    state[wrong] = np.zeros(shape)
    with pytest.raises(ValueError, match=r"shapes must be \[\(1, 2, 3\), \(1, 2, 3\)\], got \[.*\]$"):
        lstm(weights, Inputs(x, tuple(state)))


@ONE_WAY
@pytest.mark.parametrize("parts", [0, 1, 2, 3])
def test_a_state_of_another_number_of_arrays_is_refused(architecture: Architecture, parts: int) -> None:
    weights, x = one_layer(architecture)
    inputs = Inputs(x, (np.zeros((1, 2, 3)),) * parts)
    if parts == len(architecture.state_names):
        architecture.reference(weights, inputs, ONE_LAYER)
    else:
        with pytest.raises(ValueError, match="the state's shapes must be"):
            architecture.reference(weights, inputs, ONE_LAYER)


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_the_sigmoid_overflows_nowhere(dtype: str) -> None:
    huge = np.finfo(dtype).max
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        result = sigmoid(np.array([-huge, -1e4, 0, 1e4, huge], dtype))
    np.testing.assert_array_equal(result, np.array([0, 0, 0.5, 1, 1], dtype))
    assert result.dtype == np.dtype(dtype)


@given(value=st.floats(-50, 50))
def test_the_sigmoid_is_the_logistic_function(value: float) -> None:
    a = np.array([value])
    np.testing.assert_allclose(sigmoid(a), special.expit(a), rtol=0, atol=2.3e-16)
    np.testing.assert_allclose(sigmoid(-a), 1 - sigmoid(a), rtol=0, atol=2.3e-16)
