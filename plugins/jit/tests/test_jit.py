"""The compiled models agree with the oracle, and the runtime keeps the contract."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import harness_jit
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import BILSTM, LSTM, Architecture, Inputs, LayerSize, Model, Outputs, Session, SessionOptions, Unsupported
from harness.claims import claims
from harness.parity import judge, observe, observe_equations, probe_weights

pytestmark = pytest.mark.filterwarnings("error")

pytest.importorskip("numba", reason="the plugin compiles with numba", exc_type=ImportError)

MODELS = {model.name: model for model in harness_jit.harness_models()}
DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def inputs_for(
    architecture: Architecture,
    size: LayerSize,
    batch: int,
    time: int,
    dtype: str = "float32",
    state: bool = True,
    lengths: Any = None,
) -> Inputs:
    rng = np.random.default_rng(1)
    shape = (size.num_layers * architecture.directions, batch, size.hidden_size)
    return Inputs(
        rng.standard_normal((batch, time, size.input_size)).astype(dtype),
        tuple(rng.standard_normal(shape).astype(dtype) for _ in range(2)) if state else None,
        None if lengths is None else np.array(lengths),
    )


def open_session(model: Model, weights: Any, size: LayerSize, **options: Any) -> Session:
    (runtime,) = harness_jit.harness_runtimes()
    return runtime.open(model, weights, SessionOptions(size, **options))


def once(session: Session, inputs: Inputs) -> Outputs:
    return session.fetch(session.run(session.prepare(inputs)))


def arrays(outputs: Outputs) -> tuple[Any, ...]:
    return (outputs.y, *outputs.state)


def agrees(model: Model, size: LayerSize, inputs: Inputs, dtype: str) -> None:
    """A new session gives what the oracle gives in float64."""
    weights = probe_weights(model.architecture, size, "float64")
    session = open_session(model, weights, size, dtype=dtype)
    got = once(session, inputs)
    session.close()
    expected = model.architecture.reference(weights, inputs, size)
    for a, b in zip(arrays(got), arrays(expected), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("time", [1, 2, 7, 40])
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 32])
def test_every_batch_and_time_agrees_with_the_oracle(name: str, dtype: str, batch: int, time: int) -> None:
    model, size = MODELS[name], LayerSize(5, 19, 2)
    for state in (True, False):
        agrees(model, size, inputs_for(model.architecture, size, batch, time, dtype, state), dtype)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("hidden_size", [1, 3, 8, 15, 16, 17, 33, 128])
def test_every_size_agrees_with_the_oracle(name: str, dtype: str, num_layers: int, hidden_size: int) -> None:
    model, size = MODELS[name], LayerSize(1 + hidden_size % 7, hidden_size, num_layers)
    agrees(model, size, inputs_for(model.architecture, size, 3, 7, dtype), dtype)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [[7, 2, 4], [1, 7, 1], [3, 3, 3]])
def test_rows_of_different_lengths_agree_with_the_oracle(name: str, dtype: str, lengths: list[int]) -> None:
    model, size = MODELS[name], LayerSize(5, 19, 2)
    for state in (True, False):
        agrees(model, size, inputs_for(model.architecture, size, 3, 7, dtype, state, lengths), dtype)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [LayerSize(28, 128), LayerSize(5, 6, 2)], ids=str)
def test_its_rounding_error_is_within_the_harness_limit(name: str, dtype: str, size: LayerSize) -> None:
    model = MODELS[name]
    weights = probe_weights(model.architecture, size)
    session = open_session(model, weights, size, dtype=dtype)
    found = observe(session, model.architecture, weights, size, dtype)
    yardstick = observe_equations(model.architecture, weights, size, dtype)
    judgement = judge(found, yardstick, dtype)
    assert judgement.passed, judgement.reason


@pytest.mark.parametrize("name", MODELS)
def test_huge_inputs_saturate_and_what_is_not_a_number_stays_so(name: str) -> None:
    model, size = MODELS[name], LayerSize(5, 19)
    weights = probe_weights(model.architecture, size)
    inputs = inputs_for(model.architecture, size, 2, 4)
    huge = dataclasses.replace(inputs, x=inputs.x * np.float32(1e30))
    session = open_session(model, weights, size)
    np.testing.assert_allclose(once(session, huge).y, model.architecture.reference(weights, huge, size).y, atol=1e-6)
    broken = inputs.x.copy()
    broken[1] = np.nan
    y = once(session, dataclasses.replace(inputs, x=broken)).y
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[0]).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    model, size = MODELS[name], LayerSize(5, 19, 2)
    session = open_session(model, probe_weights(model.architecture, size), size)
    inputs = inputs_for(model.architecture, size, 7, 9, state=False)
    together = once(session, inputs).y
    for row in range(7):
        np.testing.assert_array_equal(once(session, Inputs(inputs.x[row : row + 1])).y[0], together[row])


@pytest.mark.parametrize("batch", [1, 3])
def test_streaming_in_chunks_is_one_call_to_the_last_bit(batch: int) -> None:
    model, size = MODELS["jit-lstm"], LayerSize(5, 19, 2)
    inputs = inputs_for(LSTM, size, batch, 7)
    session = open_session(model, probe_weights(LSTM, size), size)
    whole = once(session, inputs)
    head = once(session, Inputs(inputs.x[:, :4], inputs.state))
    tail = once(session, Inputs(inputs.x[:, 4:], head.state))
    np.testing.assert_array_equal(np.concatenate([head.y, tail.y], axis=1), whole.y)
    np.testing.assert_array_equal(tail.state[1], whole.state[1])


@pytest.mark.parametrize("name", MODELS)
def test_a_session_leaves_inputs_and_weights_as_they_were_and_gives_arrays_of_its_own(name: str) -> None:
    model, size = MODELS[name], LayerSize(5, 19, 2)
    weights = probe_weights(model.architecture, size)
    inputs = inputs_for(model.architecture, size, 3, 7, lengths=[7, 2, 4])
    given_arrays = [inputs.x, *(inputs.state or ()), inputs.lengths, *weights.values()]
    before = [array.copy() for array in given_arrays]  # type: ignore[union-attr]  # lengths are given
    session = open_session(model, weights, size)
    first = once(session, inputs)
    kept = [array.copy() for array in arrays(first)]
    again = once(session, inputs)
    for a, b in zip(before, given_arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b, c in zip(arrays(first), kept, arrays(again), strict=True):
        np.testing.assert_array_equal(a, b)  # the second call wrote nothing into the first one's result
        np.testing.assert_array_equal(a, c)
        assert not np.shares_memory(a, c)


def test_two_calls_prepared_before_either_runs_keep_apart() -> None:
    model, size = MODELS["jit-lstm"], LayerSize(5, 19, 2)
    session = open_session(model, probe_weights(LSTM, size), size)
    small, large = inputs_for(LSTM, size, 1, 3), inputs_for(LSTM, size, 5, 40)
    expected = [once(session, inputs) for inputs in (small, large)]
    prepared = [session.prepare(inputs) for inputs in (small, large)]
    raw = [session.run(one) for one in prepared]
    for got, wanted in zip((session.fetch(one) for one in raw), expected, strict=True):
        np.testing.assert_array_equal(got.y, wanted.y)


def test_sessions_side_by_side_keep_their_own_weights_and_dtypes() -> None:
    model, size = MODELS["jit-bilstm"], LayerSize(5, 19)
    opened = []
    for seed, dtype in enumerate(("float32", "float32", "float64")):
        weights = probe_weights(BILSTM, size, seed=seed)
        inputs = inputs_for(BILSTM, size, 3, 7, dtype)
        opened.append((open_session(model, weights, size, dtype=dtype), weights, inputs))
    raw = [session.run(session.prepare(inputs)) for session, _, inputs in opened]
    opened[0][0].close()
    for (session, weights, inputs), one in zip(opened[1:], raw[1:], strict=True):
        expected = BILSTM.reference({n: a.astype("float64") for n, a in weights.items()}, inputs, size)
        np.testing.assert_allclose(session.fetch(one).y, expected.y, atol=1e-6)
        np.testing.assert_allclose(once(session, inputs).y, expected.y, atol=1e-6)


@pytest.mark.parametrize("kind", ["every second row", "read-only", "Fortran", "unaligned"])
def test_inputs_in_any_memory_are_taken(kind: str) -> None:
    model, size = MODELS["jit-lstm"], LayerSize(5, 19)
    x = inputs_for(LSTM, size, 6, 7).x
    session = open_session(model, probe_weights(LSTM, size), size)
    raw = np.zeros(x.nbytes + 1, np.uint8)
    odd = raw[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    other = {"every second row": x[::2], "read-only": frozen, "Fortran": np.asfortranarray(x), "unaligned": odd}[kind]
    np.testing.assert_array_equal(once(session, Inputs(other)).y, once(session, Inputs(other.copy(order="C"))).y)


def test_what_compiled_code_would_not_notice_is_refused() -> None:
    size = LayerSize(5, 19)
    layer = MODELS["jit-lstm"].build(input_size=5, hidden_size=19)
    weights = probe_weights(LSTM, size)
    with pytest.raises(ValueError, match="x has 6 features; this layer takes 5"):
        layer(np.zeros((2, 3, 6), np.float32))
    with pytest.raises(TypeError):
        layer(np.zeros((2, 3, 5), np.float64))
    with pytest.raises(ValueError, match="broadcast"):
        layer(np.zeros((2, 3, 5), np.float32), (np.zeros((1, 3, 19)), np.zeros((1, 3, 19))))
    with pytest.raises(ValueError, match=r"weight_hh_l0 is float32 \(76, 18\); give float32 \(76, 19\)"):
        layer.load_parameters({**weights, "weight_hh_l0": weights["weight_hh_l0"][:, 1:]})
    with pytest.raises(ValueError, match="bias_hh_l0 is float64"):
        layer.load_parameters({**weights, "bias_hh_l0": weights["bias_hh_l0"].astype("float64")})
    with pytest.raises(KeyError, match="bias_hh_l0"):
        layer.load_parameters({name: array for name, array in weights.items() if name != "bias_hh_l0"})


def test_a_fresh_layer_is_initialised_within_torchs_bounds() -> None:
    layer = MODELS["jit-bilstm"].build(input_size=5, hidden_size=16, num_layers=2)
    y, (h, c) = layer(np.ones((2, 3, 5), np.float32))
    assert y.shape == (2, 3, 32)
    assert h.shape == c.shape == (4, 2, 16)
    assert y.dtype == h.dtype == c.dtype == np.float32
    assert 0.1 < np.abs(layer._weights).max() <= 0.5  # a sum of two biases, each within 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "runtime 'jit' runs on the cpu only, not on 'cuda'; use device cpu"),
        ({"dtype": "float16"}, "runtime 'jit' computes in float32 or float64, not in float16"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(options: dict[str, str], message: str) -> None:
    size = LayerSize(5, 6)
    with pytest.raises(Unsupported) as caught:
        open_session(MODELS["jit-lstm"], probe_weights(LSTM, size), size, **options)
    assert str(caught.value) == message


class Doubler:
    """A layer without weights that wants to be told the lengths, and has nothing to compile."""

    def __init__(self, **size: int) -> None:
        pass

    def __call__(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        return 2 * x, (lengths,)


def doubler(framework: str = "numba") -> Model:
    architecture = Architecture("doubler", 1, lambda _: {}, lambda _w, inputs, _s: Outputs(2 * inputs.x, ()))
    return Model("doubler", architecture, framework, Doubler, takes_lengths=True)


def test_models_of_strangers_run_and_those_it_cannot_run_are_refused() -> None:
    size = LayerSize(3, 3)
    x, lengths = np.ones((2, 3, 3), np.float32), np.array([3, 1])
    outputs = once(open_session(doubler(), {}, size), Inputs(x, None, lengths))
    np.testing.assert_array_equal(outputs.y, 2 * x)
    np.testing.assert_array_equal(outputs.state[0], lengths)
    with pytest.raises(Unsupported, match="executes numba models; 'doubler' is a torch model"):
        open_session(doubler("torch"), {}, size)
    with pytest.raises(Unsupported, match="has weights but no load_parameters"):
        open_session(doubler(), {"w": np.ones(3)}, size)


def test_how_long_the_layer_took_to_compile_is_told_if_it_has_something_to_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]

    class Compiles(Doubler):
        def compile(self) -> None:
            now[0] += 2.5

    monkeypatch.setattr("harness_jit.session.perf_counter", lambda: now[0])
    size = LayerSize(3, 3)
    assert claims(open_session(dataclasses.replace(doubler(), build=Compiles), {}, size))["compile_seconds"] == 2.5
    assert claims(open_session(dataclasses.replace(doubler(), takes_lengths=False, build=Compiles), {}, size)) == {
        **dict.fromkeys(("export_seconds", "size_bytes", "peak_device_bytes")),
        "compile_seconds": 2.5,
    }
    assert claims(open_session(doubler(), {}, size))["compile_seconds"] is None


def test_without_numba_the_list_says_what_to_install() -> None:
    code = """
import sys
sys.modules["numba"] = None
import harness
print(next(plugin.failure for plugin in harness.discover().plugins if plugin.name == "jit"))
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "'rnn-harness-jit' needs 'numba', which is not installed" in ran.stdout


def test_a_numba_that_cannot_be_imported_is_refused_with_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(Unsupported, match=r"runtime 'jit' needs numba \(.*numba.*\); pip install numba"):
        open_session(doubler(), {}, LayerSize(3, 3))


def test_importing_the_plugin_imports_neither_numpy_nor_numba() -> None:
    code = (
        "import sys, harness_jit as p; p.harness_models(); p.harness_runtimes();"
        "sys.exit(bool({'numpy', 'numba', 'llvmlite'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_call_compiles() -> None:
    import numba

    model, size = MODELS["jit-lstm"], LayerSize(5, 19, 2)
    session = open_session(model, probe_weights(LSTM, size), size)

    class Compiled(Exception):
        pass

    def refuse(event: Any, data: Any = None) -> None:
        raise Compiled

    listener = type("Listener", (numba.core.event.Listener,), {"on_start": refuse, "on_end": refuse})
    with numba.core.event.install_listener("numba:compile", listener()):
        for batch, time in ((1, 1), (1, 28), (32, 3)):
            once(session, inputs_for(LSTM, size, batch, time))
        with pytest.raises(Compiled):
            numba.njit(lambda: 1)()  # type: ignore[call-arg]  # numba is partly typed


def compiled_over_arrays(dtype: str, formula: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of vectors as a function of arrays of 16 numbers."""
    import numba
    from harness_jit.kernel import lanes
    from harness_jit.vector import memory_of, signature
    from numba.extending import intrinsic

    width = lanes(dtype)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, target = (memory_of(context, builder, sig, args, k, width, 1) for k in (0, 1))
        target.at(args[2]).store(None, formula(source.at(args[2]).same()))
        return context.get_dummy_value()

    def one(typing: Any, source: Any, target: Any, at: Any) -> Any:
        return signature(source, target, at), emit

    step: Any = intrinsic(one)

    def every(source: Any, target: Any) -> None:
        for at in range(0, len(source), width):
            step(source, target, at)

    run: Any = numba.njit(every)

    def call(a: Any) -> Any:
        result = np.empty(16, dtype)
        run(np.ascontiguousarray(np.resize(a, 16), dtype), result)
        return result[: len(a)]

    return call


@pytest.fixture(scope="module")
def functions() -> dict[tuple[str, str], Any]:
    from harness_jit.activations import sigmoid, tanh

    formulas = {"sigmoid": sigmoid, "tanh": tanh}
    return {(d, n): compiled_over_arrays(d, formula) for d in DTYPES for n, formula in formulas.items()}


ULPS = 3.0


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_an_activation_is_right_to_a_few_units_in_the_last_place(
    functions: dict[tuple[str, str], Any], dtype: str, name: str, data: st.DataObject
) -> None:
    width = int(dtype.removeprefix("float"))
    most = {"sigmoid": {32: 87.0, 64: 708.0}, "tanh": {32: 2.0**100, 64: 2.0**1000}}[name][width]
    numbers = st.one_of(st.floats(-most, most, width=width), st.floats(-4, 4, width=width))  # type: ignore[arg-type]  # 32 or 64
    a = np.array(data.draw(st.lists(numbers, min_size=1, max_size=16)), dtype)
    longer: Any = a.astype(np.longdouble)
    exact = np.tanh(longer) if name == "tanh" else 1 / (1 + np.exp(-longer))
    got = functions[dtype, name](a)
    smallest = np.finfo(dtype).smallest_normal
    unit = np.maximum(np.abs(exact), smallest) * np.finfo(dtype).eps
    assert (np.abs(got - exact) <= ULPS * unit).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_keep_their_limits_their_signs_and_what_is_not_a_number(
    functions: dict[tuple[str, str], Any], dtype: str
) -> None:
    a = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30], dtype)
    tanh, sigmoid = functions[dtype, "tanh"](a), functions[dtype, "sigmoid"](a)
    np.testing.assert_array_equal(tanh, [0, 0, 1, -1, np.nan, 1, -1])
    np.testing.assert_array_equal(np.signbit(tanh[:2]), [False, True])
    np.testing.assert_allclose(sigmoid, [0.5, 0.5, 1, 0, np.nan, 1, 0], atol=2 * float(np.finfo(dtype).smallest_normal))


@pytest.mark.parametrize("registers", [(16, 16), (16, 32), (32, 16), (64, 32)], ids=str)
def test_other_processors_registers_give_right_results_too(registers: tuple[int, int]) -> None:
    code = f"""
import harness_jit.vector as vector
vector.registers = lambda: vector.Registers{registers}
import sys
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
import test_jit
for model in test_jit.MODELS.values():
    for batch in (1, 2, 3, 5):
        size = test_jit.LayerSize(5, 19, 2)
        test_jit.agrees(model, size, test_jit.inputs_for(model.architecture, size, batch, 7), "float32")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
