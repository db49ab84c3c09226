"""The NumPy models agree with the oracle, and the runtime keeps the contract."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import harness_numpy
import numpy as np
import pytest
import threadpoolctl  # type: ignore[import-untyped]

from harness import BILSTM, LSTM, Architecture, Inputs, LayerSize, Model, Outputs, Session, SessionOptions, Unsupported
from harness.engine.process import WorkerProcess

pytestmark = pytest.mark.filterwarnings("error")

MODELS = {model.name: model for model in harness_numpy.harness_models()}
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
DTYPES = ("float32", "float64")


def weights_for(architecture: Architecture, size: LayerSize, dtype: str = "float64") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    bound = size.hidden_size**-0.5
    return {name: rng.uniform(-bound, bound, s).astype(dtype) for name, s in architecture.weight_shapes(size).items()}


def inputs_for(
    architecture: Architecture,
    size: LayerSize,
    batch: int,
    time: int,
    dtype: str,
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
    (runtime,) = harness_numpy.harness_runtimes()
    return runtime.open(model, weights, SessionOptions(size, **options))


def once(session: Session, inputs: Inputs) -> Outputs:
    return session.fetch(session.run(session.prepare(inputs)))


def arrays(outputs: Outputs) -> tuple[Any, ...]:
    return (outputs.y, *outputs.state)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(
    ("batch", "time", "state", "lengths"),
    [
        (3, 7, True, None),
        (3, 7, False, None),
        (3, 7, True, [7, 2, 4]),
        (3, 7, False, [1, 7, 1]),
        (1, 7, True, None),
        (3, 1, True, None),
        (1, 1, False, None),
        (2, 300, False, None),
    ],
)
def test_a_session_agrees_with_the_oracle(
    name: str, dtype: str, num_layers: int, batch: int, time: int, state: bool, lengths: Any
) -> None:
    model, size = MODELS[name], LayerSize(5, 6, num_layers)
    weights = weights_for(model.architecture, size)
    inputs = inputs_for(model.architecture, size, batch, time, dtype, state, lengths)
    session = open_session(model, weights, size, dtype=dtype)
    got = once(session, inputs)
    session.close()
    expected = model.architecture.reference(weights, inputs, size)
    for a, b in zip(arrays(got), arrays(expected), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", MODELS)
def test_huge_inputs_saturate_without_a_warning(name: str) -> None:
    model, size = MODELS[name], LayerSize(5, 6)
    weights = weights_for(model.architecture, size, "float32")
    inputs = inputs_for(model.architecture, size, 2, 4, "float32")
    huge = dataclasses.replace(inputs, x=inputs.x * np.float32(1e30))
    with np.errstate(all="raise", under="ignore"):
        got = once(open_session(model, weights, size), huge)
    np.testing.assert_allclose(got.y, model.architecture.reference(weights, huge, size).y, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_session_leaves_inputs_and_weights_as_they_were_and_gives_arrays_of_its_own(name: str) -> None:
    model, size = MODELS[name], LayerSize(5, 6, 2)
    weights = weights_for(model.architecture, size, "float32")
    inputs = inputs_for(model.architecture, size, 3, 7, "float32", lengths=[7, 2, 4])
    before = [array.copy() for array in (inputs.x, *(inputs.state or ()), inputs.lengths, *weights.values())]
    session = open_session(model, weights, size)
    first = once(session, inputs)
    kept = [array.copy() for array in arrays(first)]
    again = once(session, inputs)
    after = [inputs.x, *(inputs.state or ()), inputs.lengths, *weights.values()]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b, c in zip(arrays(first), kept, arrays(again), strict=True):
        np.testing.assert_array_equal(a, b)  # the second call wrote nothing into the first one's result
        np.testing.assert_array_equal(a, c)


def test_streaming_in_chunks_equals_one_call() -> None:
    model, size = MODELS["numpy-lstm"], LayerSize(5, 6, 2)
    weights = weights_for(LSTM, size, "float32")
    inputs = inputs_for(LSTM, size, 3, 7, "float32")
    session = open_session(model, weights, size)
    whole = once(session, inputs)
    head = once(session, Inputs(inputs.x[:, :4], inputs.state))
    tail = once(session, Inputs(inputs.x[:, 4:], head.state))
    np.testing.assert_allclose(np.concatenate([head.y, tail.y], axis=1), whole.y, atol=1e-6)
    np.testing.assert_allclose(tail.state[1], whole.state[1], atol=1e-6)


def test_a_fresh_layer_is_initialised_within_torchs_bounds() -> None:
    layer = MODELS["numpy-bilstm"].build(input_size=5, hidden_size=16, num_layers=2)
    y, (h, c) = layer(np.ones((2, 3, 5), np.float32))
    assert y.shape == (2, 3, 32)
    assert h.shape == c.shape == (4, 2, 16)
    assert y.dtype == h.dtype == c.dtype == np.float32
    assert 0.1 < np.abs(layer._passes[0].w).max() <= 0.25


class Echo:
    """A layer that gives its own input back as the state, and tries to write to what it was given."""

    def __init__(self, **size: int) -> None:
        self.calls: list[Any] = []

    def __call__(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        self.calls.append((x, state, lengths))
        with pytest.raises(ValueError, match="read-only"):
            x[...] = 0
        return x, state


def echo(takes_lengths: bool, shapes: Any = None) -> Model:
    architecture = Architecture("echo", 1, lambda _: shapes or {}, lambda _w, inputs, _s: Outputs(inputs.x, ()))
    return Model("echo", architecture, "numpy", Echo, takes_lengths=takes_lengths)


def test_a_model_cannot_write_to_the_callers_arrays_nor_hand_them_out() -> None:
    x = np.ones((1, 2, 3), np.float32)
    outputs = once(open_session(echo(takes_lengths=False), {}, LayerSize(3, 3)), Inputs(x, (x, x)))
    for array in arrays(outputs):
        assert not np.shares_memory(array, x)
        array[...] = 7
    assert (x == 1).all()


def test_prepare_copies_nothing() -> None:
    x = np.ones((1, 2, 3), np.float32)
    session = open_session(echo(takes_lengths=False), {}, LayerSize(3, 3))
    assert np.shares_memory(session.prepare(Inputs(x))[0], x)
    assert x.flags.writeable


def test_a_model_that_takes_lengths_is_given_them() -> None:
    x, lengths = np.ones((2, 3, 3), np.float32), np.array([3, 1])
    session = open_session(echo(takes_lengths=True), {}, LayerSize(3, 3))
    _, _, given = session.prepare(Inputs(x, (x,), lengths))
    np.testing.assert_array_equal(given, lengths)
    assert once(session, Inputs(x, (x,))).y.shape == x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "runtime 'numpy' runs on the cpu only, not on 'cuda'; use device cpu"),
        ({"dtype": "float16"}, "runtime 'numpy' computes in float32 or float64, not in float16"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(options: dict[str, str], message: str) -> None:
    size = LayerSize(5, 6)
    with pytest.raises(Unsupported) as caught:
        open_session(MODELS["numpy-lstm"], weights_for(LSTM, size), size, **options)
    assert str(caught.value) == message


def test_models_of_other_frameworks_and_models_that_cannot_take_weights_are_refused() -> None:
    size = LayerSize(5, 6)
    foreign = dataclasses.replace(MODELS["numpy-bilstm"], framework="torch")
    with pytest.raises(Unsupported, match="'numpy-bilstm' is a torch model"):
        open_session(foreign, weights_for(BILSTM, size), size)
    with pytest.raises(Unsupported, match="has weights but no load_parameters"):
        open_session(echo(takes_lengths=False), {"w": np.ones(3)}, size)


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_threads_are_set_while_a_session_is_open_and_set_back_afterwards() -> None:
    before = blas_threads()
    if not before:
        pytest.skip("threadpoolctl knows no BLAS here")
    size = LayerSize(5, 6)
    session = open_session(MODELS["numpy-lstm"], weights_for(LSTM, size), size, threads=1)
    assert set(blas_threads()) == {1}
    session.close()
    assert blas_threads() == before


def test_importing_the_plugin_imports_no_numpy() -> None:
    code = (
        "import sys, harness_numpy as p; p.harness_models(); p.harness_runtimes();"
        "sys.exit(bool({'numpy', 'threadpoolctl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_worker_finds_that_a_session_costs_is_little() -> None:
    size = {"input_size": 8, "hidden_size": 32, "num_layers": 1}
    variant = {"model": "numpy-lstm", "runtime": "numpy", "size": size, "device": "cpu", "dtype": "float32"}
    with WorkerProcess(threads=1, plugins=["numpy"]) as worker:
        opened = worker.ask("open", 60, key="one", threads=1, cache_dir=None, **variant)
        called = worker.ask("first_call", 60, key="one", batch=1, time=8)
        costs = worker.ask("costs", 60, key="one", batch=1, time=8)
    assert 0 < opened["import_s"] < opened["open_s"]
    assert called["first_call_s"] > 0
    matrices = 4 * 32 * (8 + 32)
    assert (opened["parameters"], costs["flops"]) == (matrices + 2 * 4 * 32, 2 * 8 * matrices)
    told = ("export_s", "compile_s", "model_bytes", "peak_device_bytes")
    assert [costs[name] for name in told] == [None] * 4  # nothing is exported, compiled or written
    assert costs["peak_memory_bytes"] is None or costs["peak_memory_bytes"] < 32 * 2**20  # NumPy itself is not in it
