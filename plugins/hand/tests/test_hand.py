"""The hand-written layers against the float64 oracle and against `torch.nn.LSTM` and `GRU`."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness_hand.gru import Cell

import harness
from harness.parity import Judgement, judge, observe, observe_equations, probe_weights

READ = ["hand-lstm", "hand-bilstm", "hand-gru", "hand-bigru"]
NAMES = [*READ, "fused-lstm", "fused-bilstm"]
SIZES = [harness.LayerSize(5, 6, 1), harness.LayerSize(5, 6, 2)]
B, T = 3, 7
LENGTHS = np.array([4, 7, 2])

Arrays = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> harness.Model:
    return harness.discover().model(request.param)


@pytest.fixture(params=SIZES, ids=["one layer", "two layers"])
def size(request: pytest.FixtureRequest) -> harness.LayerSize:
    assert isinstance(request.param, harness.LayerSize)
    return request.param


def random_weights(model: harness.Model, size: harness.LayerSize) -> dict[str, np.ndarray[Any, Any]]:
    """Every array its own random numbers, so that the two biases differ too."""
    random = np.random.default_rng(0)
    return {name: random.uniform(-0.6, 0.6, shape) for name, shape in model.architecture.weight_shapes(size).items()}


def random_inputs(
    model: harness.Model, size: harness.LayerSize, batch: int = B, time: int = T, lengths: Any = None
) -> harness.Inputs:
    random = np.random.default_rng(1)
    x = random.normal(size=(batch, time, size.input_size))
    rows = size.num_layers * model.architecture.directions
    shape = (len(model.architecture.state_names), rows, batch, size.hidden_size)
    return harness.Inputs(x, tuple(random.normal(size=shape)), lengths)


def as_layers_take_it(state: Sequence[torch.Tensor]) -> Any:
    """A tuple, or as for `torch.nn.GRU` the one tensor."""
    return tuple(state) if len(state) > 1 else state[0]


def parts(state: Any) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)


def loaded(model: harness.Model, size: harness.LayerSize, weights: Arrays, dtype: torch.dtype) -> torch.nn.Module:
    layer: torch.nn.Module = model.build(size.input_size, size.hidden_size, size.num_layers).to(dtype)
    layer.load_state_dict({name: torch.tensor(array) for name, array in model.to_parameters(weights).items()})
    return layer


def call(layer: torch.nn.Module, inputs: harness.Inputs, dtype: torch.dtype) -> list[Any]:
    """y and the final state as float64 arrays."""
    state = None
    if inputs.state is not None:
        state = as_layers_take_it([torch.tensor(part, dtype=dtype) for part in inputs.state])
    lengths = () if inputs.lengths is None else (torch.tensor(inputs.lengths),)
    with torch.no_grad():
        y, last = layer(torch.tensor(inputs.x, dtype=dtype), state, *lengths)
    return [part.double().numpy() for part in (y, *parts(last))]


def assert_agrees(
    model: harness.Model, size: harness.LayerSize, inputs: harness.Inputs, dtype: torch.dtype, tolerance: float
) -> None:
    weights = random_weights(model, size)
    expected = model.architecture.reference(weights, inputs, size)
    actual = call(loaded(model, size, weights, dtype), inputs, dtype)
    for a, e in zip(actual, (expected.y, *expected.state), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance)


def test_it_agrees_with_the_oracle_in_float64(model: harness.Model, size: harness.LayerSize) -> None:
    assert_agrees(model, size, random_inputs(model, size), torch.float64, 1e-12)


def test_it_agrees_with_the_oracle_in_float32(model: harness.Model, size: harness.LayerSize) -> None:
    assert_agrees(model, size, random_inputs(model, size), torch.float32, 1e-6)


def test_no_state_means_zeros(model: harness.Model, size: harness.LayerSize) -> None:
    inputs = harness.Inputs(random_inputs(model, size).x)
    assert_agrees(model, size, inputs, torch.float64, 1e-12)


@pytest.mark.parametrize(("batch", "time"), [(1, T), (B, 1), (1, 1)])
def test_one_row_and_one_step_are_enough(model: harness.Model, size: harness.LayerSize, batch: int, time: int) -> None:
    assert_agrees(model, size, random_inputs(model, size, batch, time), torch.float64, 1e-12)


@pytest.mark.parametrize("garbage", [1e6, np.nan])
def test_padding_is_never_read(model: harness.Model, size: harness.LayerSize, garbage: float) -> None:
    inputs = random_inputs(model, size, lengths=LENGTHS)
    inputs.x[np.arange(T) >= LENGTHS[:, None]] = garbage
    assert_agrees(model, size, inputs, torch.float64, 1e-12)


def test_padding_gets_and_gives_no_gradient(model: harness.Model, size: harness.LayerSize) -> None:
    inputs = random_inputs(model, size)
    x = inputs.x.copy()
    x[np.arange(T) >= LENGTHS[:, None]] = np.nan
    layer = loaded(model, size, random_weights(model, size), torch.float64)
    x_tensor = torch.tensor(x, requires_grad=True)
    y, _ = layer(x_tensor, None, torch.tensor(LENGTHS))
    y.square().sum().backward()
    assert x_tensor.grad is not None
    assert (x_tensor.grad.numpy()[np.arange(T) >= LENGTHS[:, None]] == 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_its_gradients_are_those_of_torch(model: harness.Model, size: harness.LayerSize) -> None:
    weights, inputs = random_weights(model, size), random_inputs(model, size)
    kind = torch.nn.LSTM if "lstm" in model.name else torch.nn.GRU
    theirs = kind(
        size.input_size,
        size.hidden_size,
        size.num_layers,
        batch_first=True,
        bidirectional=model.architecture.directions == 2,
    ).double()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    ours = loaded(model, size, weights, torch.float64)
    assert inputs.state is not None

    def gradients(layer: torch.nn.Module) -> tuple[dict[str, Any], list[Any]]:
        leaves = [torch.tensor(array, requires_grad=True) for array in (inputs.x, *inputs.state)]  # type: ignore[misc]
        y, last = layer(leaves[0], as_layers_take_it(leaves[1:]))
        last = parts(last)
        (y.square().sum() + (last[0] * last[-1]).sum() + last[-1].sin().sum()).backward()
        named = {name: parameter.grad.numpy() for name, parameter in layer.named_parameters()}  # type: ignore[union-attr]
        return named, [leaf.grad.numpy() for leaf in leaves]  # type: ignore[union-attr]

    expected, expected_leaves = gradients(theirs)
    actual, actual_leaves = gradients(ours)
    for a, e in zip(actual_leaves, expected_leaves, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-11)
    standard = model.from_parameters(actual)
    for name, e in expected.items():
        actual_gradient = standard[name]
        if name.startswith("bias_hh") and model.name in READ:
            # Where there is one bias, its gradient is that of either of torch's two, and comes back as bias_ih.
            two = slice(2 * size.hidden_size, None) if kind is torch.nn.GRU else slice(0)
            actual_gradient, e = actual_gradient[two], e[two]
        np.testing.assert_allclose(actual_gradient, e, rtol=0, atol=1e-11, err_msg=name)


def test_its_weights_survive_the_door(model: harness.Model, size: harness.LayerSize) -> None:
    layer: torch.nn.Module = model.build(input_size=5, hidden_size=6, num_layers=size.num_layers)
    parameters = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    standard = model.from_parameters(parameters)
    assert {name: array.shape for name, array in standard.items()} == model.architecture.weight_shapes(size)
    back = model.to_parameters(standard)
    assert back.keys() == parameters.keys()
    for name, array in parameters.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == np.float32


@pytest.mark.parametrize("name", READ)
def test_the_door_leaves_a_head_out(name: str) -> None:
    model = harness.discover().model(name)
    weights = random_weights(model, SIZES[0])
    parameters = model.to_parameters({**weights, "head.weight": np.zeros((2, 6))})
    assert not any("head" in key for key in parameters)
    assert not any("head" in key for key in model.from_parameters({**parameters, "head.bias": np.zeros(2)}))


def test_it_starts_uniform_within_one_over_the_root_of_its_width(model: harness.Model) -> None:
    hidden_size = 64
    bound = 1 / np.sqrt(hidden_size)
    for parameter in model.build(input_size=9, hidden_size=hidden_size).parameters():
        values = parameter.detach().numpy()
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.8 * bound
        assert abs(values.mean()) < 0.3 * bound


@pytest.mark.parametrize("name", ["hand-lstm", "hand-gru", "fused-lstm"])
def test_a_sequence_in_two_parts_is_the_sequence(name: str) -> None:
    model, size = harness.discover().model(name), SIZES[1]
    layer = loaded(model, size, random_weights(model, size), torch.float64)
    x = torch.tensor(random_inputs(model, size).x)
    with torch.no_grad():
        whole, _ = layer(x)
        first, state = layer(x[:, :3])
        second, _ = layer(x[:, 3:], state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, rtol=0, atol=1e-12)


# A GRU that is nearly one


class ResetBeforeTheProduct(Cell):
    """The form of the published paper, V (r * h)."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor]:
        r = torch.sigmoid(x @ self.U_r.T + h @ self.V_r.T + self.b_r)
        z = torch.sigmoid(x @ self.U_z.T + h @ self.V_z.T + self.b_z)
        n = torch.tanh(x @ self.U_n.T + self.b_n + (r * h) @ self.V_n.T + self.d_n)
        return ((1 - z) * n + z * h,)


class BiasOutsideTheReset(Cell):
    """The product is reset, and its bias is not."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor]:
        r = torch.sigmoid(x @ self.U_r.T + h @ self.V_r.T + self.b_r)
        z = torch.sigmoid(x @ self.U_z.T + h @ self.V_z.T + self.b_z)
        n = torch.tanh(x @ self.U_n.T + self.b_n + r * (h @ self.V_n.T) + self.d_n)
        return ((1 - z) * n + z * h,)


class UpdateTheOtherWayRound(Cell):
    """z is the share that is new."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor]:
        r = torch.sigmoid(x @ self.U_r.T + h @ self.V_r.T + self.b_r)
        z = torch.sigmoid(x @ self.U_z.T + h @ self.V_z.T + self.b_z)
        n = torch.tanh(x @ self.U_n.T + self.b_n + r * (h @ self.V_n.T + self.d_n))
        return (z * n + (1 - z) * h,)


def parity_with(model: harness.Model, cell: type[Cell], size: harness.LayerSize, dtype: str) -> Judgement:
    """What parity makes of the model with another cell in place of its own."""

    def build(**sizes: int) -> torch.nn.Module:
        layer: torch.nn.Module = model.build(**sizes)
        for own in (module for module in layer.modules() if isinstance(module, Cell)):
            own.__class__ = cell
        return layer

    options = harness.SessionOptions(size, dtype=dtype)
    weights = probe_weights(model.architecture, size)
    exact = {name: array.astype(dtype) for name, array in weights.items()}
    session = harness.discover().runtime("eager").open(dataclasses.replace(model, build=build), exact, options)
    observations = observe(session, model.architecture, weights, size, dtype)
    return judge(observations, observe_equations(model.architecture, weights, size, dtype), dtype)


@pytest.mark.parametrize("name", ["hand-gru", "hand-bigru"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parity_catches_a_gru_that_is_nearly_one(name: str, size: harness.LayerSize, dtype: str) -> None:
    model = harness.discover().model(name)
    right = parity_with(model, Cell, size, dtype)
    assert right.passed, right.reason
    for wrong in (ResetBeforeTheProduct, BiasOutsideTheReset, UpdateTheOtherWayRound):
        judgement = parity_with(model, wrong, size, dtype)
        assert not judgement.passed, wrong.__name__
        assert judgement.max_abs_error > 0.01, wrong.__name__


def test_importing_the_plugin_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, harness_hand; harness_hand.harness_models(); print({'torch', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


EXPORT = """
import sys
import numpy as np, torch, onnx, onnxruntime
import harness

class States(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, *state):
        if len(state) == 1:
            return self.layer(x, *state)
        y, state = self.layer(x, state)
        return y, *state

torch.manual_seed(0)
model = harness.discover().model(sys.argv[1])
names = model.architecture.state_names
directions = model.architecture.directions
num_layers = 3 - directions  # two loops either way
module = States(model.build(input_size=5, hidden_size=6, num_layers=num_layers)).eval()

def example(batch, time):
    return torch.randn(batch, time, 5), *(torch.randn(2, batch, 6) for _ in names)

torch.onnx.export(
    module, example(3, 7), sys.argv[2], dynamo=True, optimize=False, external_data=False, verbose=False,
    input_names=["x", *names], output_names=["y", *(name + "_n" for name in names)],
    dynamic_shapes=({0: "batch", 1: "time"}, tuple({1: "batch"} for _ in names)),
)
graph = onnx.load(sys.argv[2]).graph
assert sum(node.op_type == "Scan" for node in graph.node) == 2, "one loop per layer and direction"
found = {initializer.name for initializer in graph.initializer}
assert {"layer." + name for name in module.layer.state_dict()} <= found, found
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
for batch, time in [(1, 1), (2, 7), (1, 20), (32, 3), (3, 40)]:
    arguments = example(batch, time)
    with torch.no_grad():
        expected = module(*arguments)
    actual = session.run(None, dict(zip(("x", *names), (part.numpy() for part in arguments))))
    for a, e in zip(actual, expected):
        np.testing.assert_allclose(a, e.numpy(), rtol=0, atol=2e-6)
print("exported")
"""


@pytest.mark.slow
def test_it_exports_for_batches_and_lengths_never_seen(model: harness.Model, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    command = [sys.executable, "-W", "ignore", "-c", EXPORT, model.name, str(tmp_path / "graph.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("exported")
