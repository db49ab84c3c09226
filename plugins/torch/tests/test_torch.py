"""The torch models, the eager runtime and training."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from harness_torch.memory import forget_peak
from harness_torch.process_state import settle_all
from harness_torch.session import find_device

import harness
from harness.claims import claims

SIZES = [harness.LayerSize(5, 6, 1), harness.LayerSize(5, 6, 2)]
B, T = 3, 7
LENGTHS = np.array([4, 7, 2])
NOT_HERE = "cuda" if torch.accelerator.current_accelerator() is None else "xpu:99"


@pytest.fixture(params=["torch-lstm", "torch-bilstm", "torch-gru", "torch-bigru"])
def model(request: pytest.FixtureRequest) -> harness.Model:
    return harness.discover().model(request.param)


@pytest.fixture(params=SIZES, ids=["one layer", "two layers"])
def size(request: pytest.FixtureRequest) -> harness.LayerSize:
    assert isinstance(request.param, harness.LayerSize)
    return request.param


@pytest.fixture
def eager() -> Any:
    return harness.discover().runtime("eager")


def random_weights(model: harness.Model, size: harness.LayerSize, dtype: str = "float64") -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = model.architecture.weight_shapes(size)
    return {name: random.uniform(-0.6, 0.6, shape).astype(dtype) for name, shape in shapes.items()}


def random_inputs(
    model: harness.Model, size: harness.LayerSize, dtype: str = "float64", batch: int = B, time: int = T
) -> harness.Inputs:
    random = np.random.default_rng(1)
    x = random.normal(size=(batch, time, size.input_size)).astype(dtype)
    rows = size.num_layers * model.architecture.directions
    shape = (len(model.architecture.state_names), rows, batch, size.hidden_size)
    return harness.Inputs(x, tuple(random.normal(size=shape).astype(dtype)))


def nn_class(model: harness.Model) -> type[torch.nn.LSTM | torch.nn.GRU]:
    return torch.nn.LSTM if "lstm" in model.name else torch.nn.GRU


def answer(session: harness.Session, inputs: harness.Inputs) -> list[Any]:
    outputs = session.fetch(session.run(session.prepare(inputs)))
    session.close()
    return [outputs.y, *outputs.state]


def assert_agrees(
    eager: Any, model: harness.Model, size: harness.LayerSize, inputs: harness.Inputs, atol: float
) -> None:
    weights = random_weights(model, size, inputs.x.dtype.name)
    options = harness.SessionOptions(size, dtype=inputs.x.dtype.name)
    exact = harness.Inputs(
        inputs.x.astype(np.float64),
        None if inputs.state is None else tuple(part.astype(np.float64) for part in inputs.state),
        inputs.lengths,
    )
    double = {name: array.astype(np.float64) for name, array in weights.items()}
    expected = model.architecture.reference(double, exact, size)
    actual = answer(eager.open(model, weights, options), inputs)
    for a, e in zip(actual, (expected.y, *expected.state), strict=True):
        assert a.dtype == inputs.x.dtype
        np.testing.assert_allclose(a, e, rtol=0, atol=atol)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize(("batch", "time"), [(B, T), (1, T), (B, 1)])
def test_a_session_agrees_with_the_oracle(
    eager: Any, model: harness.Model, size: harness.LayerSize, dtype: str, tolerance: float, batch: int, time: int
) -> None:
    assert_agrees(eager, model, size, random_inputs(model, size, dtype, batch, time), tolerance)


def test_no_state_means_zeros(eager: Any, model: harness.Model, size: harness.LayerSize) -> None:
    assert_agrees(eager, model, size, harness.Inputs(random_inputs(model, size).x), 1e-12)


@pytest.mark.parametrize("takes_lengths", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
def test_padding_is_never_read(
    eager: Any, model: harness.Model, size: harness.LayerSize, takes_lengths: bool, with_state: bool
) -> None:
    inputs = random_inputs(model, size)
    inputs.x[np.arange(T) >= LENGTHS[:, None]] = np.nan
    inputs = harness.Inputs(inputs.x, inputs.state if with_state else None, LENGTHS)
    assert_agrees(eager, dataclasses.replace(model, takes_lengths=takes_lengths), size, inputs, 1e-12)


def test_the_inputs_are_left_as_they_were(eager: Any, model: harness.Model) -> None:
    size = SIZES[1]

    def overwrite(_layer: torch.nn.Module, arguments: tuple[Any, ...], _result: Any) -> None:
        arguments[0].zero_()

    def build(**sizes: int) -> torch.nn.Module:
        layer: torch.nn.Module = model.build(**sizes)
        layer.register_forward_hook(overwrite)
        return layer

    careless = dataclasses.replace(model, build=build)
    inputs = random_inputs(model, size)
    inputs.x.flags.writeable = False
    before = inputs.x.copy()
    answer(eager.open(careless, random_weights(model, size), harness.SessionOptions(size, dtype="float64")), inputs)
    np.testing.assert_array_equal(inputs.x, before)


def test_without_lengths_the_layer_is_torchs_own(model: harness.Model) -> None:
    layer, x = model.build(input_size=5, hidden_size=6), torch.ones(B, T, 5)
    plain = nn_class(model)(5, 6, batch_first=True, bidirectional=model.architecture.directions == 2)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["torch-gru", "torch-bigru"])
def test_torchs_own_gru_is_called_with_its_one_state_and_no_tuple(eager: Any, name: str) -> None:
    model = harness.discover().model(name)

    def build(**sizes: int) -> torch.nn.Module:
        return torch.nn.GRU(**sizes, batch_first=True, bidirectional=model.architecture.directions == 2)

    plain = dataclasses.replace(model, build=build, takes_lengths=False)
    inputs = dataclasses.replace(random_inputs(model, SIZES[1]), lengths=LENGTHS)
    assert_agrees(eager, plain, SIZES[1], inputs, 1e-12)


@pytest.mark.parametrize("name", [NOT_HERE, "toaster", "meta"])
def test_a_device_that_is_not_here_is_refused_in_one_line(eager: Any, model: harness.Model, name: str) -> None:
    options = harness.SessionOptions(SIZES[0], device=name)
    with pytest.raises(
        harness.Unsupported, match=rf"^runtime 'eager' finds no device '{name}' here; choose one of cpu.*$"
    ):
        eager.open(model, random_weights(model, SIZES[0]), options)


def test_an_accelerator_is_found_by_its_kind_and_gets_the_number_that_is_current(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def empty(size: int, device: str) -> Any:
        return SimpleNamespace(device=torch.device(device if ":" in device or device == "cpu" else f"{device}:1"))

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", empty)
    for name, expected in (("xpu", "xpu:1"), ("xpu:0", "xpu:0"), ("xpu:1", "xpu:1"), ("cpu", "cpu")):
        assert find_device("someone", name) == torch.device(expected)
    with pytest.raises(
        harness.Unsupported, match=r"^someone finds .* 'xpu:2' here; choose one of cpu, xpu, xpu:0, xpu:1$"
    ):
        find_device("someone", "xpu:2")


def test_another_dtype_is_refused(eager: Any, model: harness.Model) -> None:
    options = harness.SessionOptions(SIZES[0], dtype="float16")
    with pytest.raises(harness.Unsupported, match="in float16; choose one of float32, float64"):
        eager.open(model, random_weights(model, SIZES[0]), options)


def test_weights_that_do_not_fit_are_named(eager: Any, model: harness.Model) -> None:
    def rename(weights: Any) -> dict[str, Any]:
        renamed = {name.replace("bias_ih", "b"): array for name, array in weights.items()}
        return {**renamed, "weight_hh_l0": np.zeros((2, 2))}

    broken = dataclasses.replace(model, to_parameters=rename)
    with pytest.raises(harness.HarnessError) as caught:
        eager.open(broken, random_weights(model, SIZES[0]), harness.SessionOptions(SIZES[0]))
    said = str(caught.value)
    assert f"model '{model.name}'" in said
    assert "missing: bias_ih_l0" in said
    assert "unexpected: b_l0" in said
    gates = 4 if "lstm" in model.name else 3
    assert f"weight_hh_l0 (2, 2) for ({gates * 6}, 6)" in said
    assert "to_parameters" in said
    assert "\n" not in said


def test_a_head_is_no_part_of_the_layer(eager: Any, model: harness.Model) -> None:
    weights = {**random_weights(model, SIZES[0]), "head.weight": np.zeros((2, 6)), "head.bias": np.zeros(2)}
    eager.open(model, weights, harness.SessionOptions(SIZES[0])).close()


def test_what_a_models_own_code_raises_is_not_hidden(eager: Any, model: harness.Model) -> None:
    def build(**sizes: int) -> Any:
        raise ZeroDivisionError("of its own making")

    with pytest.raises(ZeroDivisionError, match="of its own making"):
        eager.open(dataclasses.replace(model, build=build), {}, harness.SessionOptions(SIZES[0]))


def test_initial_weights_follow_the_seed_and_nothing_else(eager: Any, model: harness.Model) -> None:
    size = harness.LayerSize(9, 64, 2)
    torch.manual_seed(7)
    untouched = torch.random.get_rng_state()
    first, again = eager.initial_weights(model, size, 3), eager.initial_weights(model, size, 3)
    other = eager.initial_weights(model, size, 4)
    assert torch.equal(torch.random.get_rng_state(), untouched)
    assert {name: array.shape for name, array in first.items()} == model.architecture.weight_shapes(size)
    for name, array in first.items():
        assert array.dtype == np.float32
        assert 0.8 / np.sqrt(64) < np.abs(array).max() <= 1 / np.sqrt(64)
        np.testing.assert_array_equal(array, again[name])
        assert not np.array_equal(array, other[name])


# What a process shares

SHARED: dict[
    str, tuple[Callable[[], Any], Callable[[], Any], Any]
] = {  # what torch keeps once for the whole process: how a layer may change it, and how it is read
    "threads": (lambda: torch.set_num_threads(3), torch.get_num_threads, 1),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype, torch.float32),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled, True),
    "denormals": (lambda: torch.set_flush_denormal(True), lambda: (torch.tensor([1e-40]) / 2).item() > 0, True),
    "device": (lambda: torch.set_default_device("meta"), torch.get_default_device, torch.device("cpu")),
    "precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
        "highest",
    ),
    "kernels": (lambda: setattr(torch.backends.mkldnn, "enabled", False), lambda: torch.backends.mkldnn.enabled, True),
    "determinism": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
        False,
    ),
    "anomalies": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled, False),
}
AT_EVERY_CALL = ("threads", "dtype", "gradients", "denormals")


@pytest.fixture
def settled() -> Iterator[None]:
    yield
    settle_all(1)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("what", AT_EVERY_CALL)
def test_what_one_layer_changes_in_torch_its_neighbour_does_not_meet(
    eager: Any, model: harness.Model, what: str
) -> None:
    size = SIZES[0]
    change, read, expected = SHARED[what]
    neighbour = eager.open(model, random_weights(model, size), harness.SessionOptions(size, dtype="float64"))
    inputs = random_inputs(model, size)
    before = neighbour.fetch(neighbour.run(neighbour.prepare(inputs)))
    change()
    assert read() != expected
    prepared = neighbour.prepare(inputs)
    assert read() == expected
    np.testing.assert_array_equal(neighbour.fetch(neighbour.run(prepared)).y, before.y)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("what", SHARED)
def test_what_a_model_changes_when_it_is_built_is_put_back_before_a_session_is_opened(
    eager: Any, model: harness.Model, what: str
) -> None:
    change, read, expected = SHARED[what]

    def build(**sizes: int) -> Any:
        layer = model.build(**sizes)
        change()
        return layer

    size = SIZES[0]
    unruly = dataclasses.replace(model, build=build)
    eager.open(unruly, random_weights(model, size), harness.SessionOptions(size))
    assert read() == expected


@pytest.mark.usefixtures("settled")
def test_initial_weights_have_the_same_dtype_whatever_another_model_left(eager: Any, model: harness.Model) -> None:
    before = eager.initial_weights(model, SIZES[0], seed=1)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    for name, array in eager.initial_weights(model, SIZES[0], seed=1).items():
        np.testing.assert_array_equal(array, before[name])


# Training

RECIPE = harness.Recipe(hidden_size=6, learning_rate=0.05)


def with_head(eager: Any, model: harness.Model, size: harness.LayerSize, outputs: int) -> dict[str, Any]:
    random = np.random.default_rng(2)
    features = size.hidden_size * model.architecture.directions
    return {
        **eager.initial_weights(model, size, 0),
        "head.weight": random.uniform(-0.3, 0.3, (outputs, features)).astype(np.float32),
        "head.bias": np.zeros(outputs, np.float32),
    }


def rows(kind: str, lengths: Any = None) -> harness.Split:
    random = np.random.default_rng(3)
    x = random.normal(size=(B, T, 5)).astype(np.float32)
    targets = np.array([2, 0, 1]) if kind == "classification" else random.normal(size=(B, 2)).astype(np.float32)
    return harness.Split(x, targets, lengths)


def open_trainer(eager: Any, model: harness.Model, kind: str, recipe: harness.Recipe, dtype: str = "float32") -> Any:
    weights = with_head(eager, model, SIZES[0], 3 if kind == "classification" else 2)
    return eager.open_trainer(model, weights, kind, recipe, harness.SessionOptions(SIZES[0], dtype=dtype))


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_learns_three_rows_by_heart(eager: Any, model: harness.Model, kind: str, optimizer: Any) -> None:
    rate = 0.05 if optimizer == "adam" else 0.5
    trainer = open_trainer(eager, model, kind, dataclasses.replace(RECIPE, optimizer=optimizer, learning_rate=rate))
    batch = trainer.prepare(rows(kind, LENGTHS))
    losses = [trainer.step(batch) for _ in range(200)]
    assert losses[-1] < 0.05 < losses[0]


def test_the_same_start_gives_the_same_weights(eager: Any, model: harness.Model) -> None:
    def trained() -> dict[str, Any]:
        trainer = open_trainer(eager, model, "classification", dataclasses.replace(RECIPE, clip_norm=1.0))
        batch = trainer.prepare(rows("classification"))
        for _ in range(5):
            trainer.step(batch)
        return dict(trainer.weights())

    first, second = trained(), trained()
    assert first.keys() == {*model.architecture.weight_shapes(SIZES[0]), "head.weight", "head.bias"}
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_the_weights_handed_out_do_not_change_any_more(eager: Any, model: harness.Model) -> None:
    trainer = open_trainer(eager, model, "classification", RECIPE)
    before = trainer.weights()
    kept = {name: array.copy() for name, array in before.items()}
    trainer.step(trainer.prepare(rows("classification")))
    for name, array in before.items():
        np.testing.assert_array_equal(array, kept[name])


def test_the_weights_given_do_not_change(eager: Any, model: harness.Model) -> None:
    weights = with_head(eager, model, SIZES[0], 3)
    kept = {name: array.copy() for name, array in weights.items()}
    trainer = eager.open_trainer(model, weights, "classification", RECIPE, harness.SessionOptions(SIZES[0]))
    trainer.step(trainer.prepare(rows("classification")))
    for name, array in weights.items():
        np.testing.assert_array_equal(array, kept[name])


def test_a_model_without_lengths_trains_as_one_with_them(eager: Any, model: harness.Model) -> None:
    def trained(takes_lengths: bool) -> tuple[list[float], dict[str, Any]]:
        asked = dataclasses.replace(model, takes_lengths=takes_lengths)
        trainer = open_trainer(eager, asked, "classification", RECIPE, "float64")
        batch = trainer.prepare(rows("classification", LENGTHS))
        return [trainer.step(batch) for _ in range(5)], dict(trainer.weights())

    (losses, weights), (other_losses, other_weights) = trained(True), trained(False)
    np.testing.assert_allclose(losses, other_losses, rtol=1e-9)
    for name, array in weights.items():
        np.testing.assert_allclose(array, other_weights[name], rtol=0, atol=1e-8)


def test_the_summary_is_the_last_layers_final_state_of_every_direction(eager: Any, model: harness.Model) -> None:
    size = SIZES[1]
    weights = {name: array.astype(np.float64) for name, array in with_head(eager, model, size, 2).items()}
    options = harness.SessionOptions(size, dtype="float64")
    trainer = eager.open_trainer(model, weights, "regression", RECIPE, options)
    batch = rows("regression", LENGTHS)
    h_n = model.architecture.reference(weights, harness.Inputs(batch.x, None, LENGTHS), size).state[0]
    summary = np.concatenate(list(h_n[-model.architecture.directions :]), axis=1)  # (B, D*H)
    predicted = summary @ weights["head.weight"].T + weights["head.bias"]
    expected = np.mean((predicted - batch.targets) ** 2)
    assert trainer.step(trainer.prepare(batch)) == pytest.approx(expected, rel=1e-12)


def test_clipping_bounds_the_first_step(eager: Any, model: harness.Model) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=1.0, clip_norm=1e-3)
    trainer = open_trainer(eager, model, "classification", recipe)
    before = trainer.weights()
    trainer.step(trainer.prepare(rows("classification")))
    after = trainer.weights()
    moved = np.sqrt(sum(np.sum((after[name] - before[name]) ** 2) for name in before))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_training_without_a_head_is_refused(eager: Any, model: harness.Model) -> None:
    weights = eager.initial_weights(model, SIZES[0], 0)
    with pytest.raises(harness.HarnessError, match=r"lack head\.weight or head\.bias"):
        eager.open_trainer(model, weights, "classification", RECIPE, harness.SessionOptions(SIZES[0]))


@pytest.mark.usefixtures("settled")
def test_a_training_step_meets_nothing_that_another_layer_changed(eager: Any, model: harness.Model) -> None:
    def losses() -> list[float]:
        trainer = open_trainer(eager, model, "classification", RECIPE)
        found = []
        for change in changes:
            change()
            found.append(trainer.step(trainer.prepare(rows("classification"))))
        return found

    changes: list[Any] = [lambda: None] * len(AT_EVERY_CALL)
    undisturbed = losses()
    changes = [SHARED[what][0] for what in AT_EVERY_CALL]
    assert losses() == undisturbed


def test_a_session_needs_none_of_torchs_compiler() -> None:
    code = (
        "import sys, harness, numpy as np\n"
        "model, size = harness.discover().model('torch-lstm'), harness.LayerSize(5, 6)\n"
        "weights = {n: np.ones(s, np.float32) for n, s in model.architecture.weight_shapes(size).items()}\n"
        "session = harness.discover().runtime('eager').open(model, weights, harness.SessionOptions(size))\n"
        "session.fetch(session.run(session.prepare(harness.Inputs(np.ones((2, 3, 5), np.float32)))))\n"
        "print({'sympy', 'torch._inductor'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"


def test_what_the_device_held_at_most_is_told_where_torch_counts_it_and_not_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, eager: Any
) -> None:
    model, held = harness.discover().model("torch-lstm"), {"peak": 900}

    def forget(device: torch.device) -> None:
        held["peak"] = 100

    def not_counted(device: torch.device) -> int:
        raise RuntimeError("Allocator for cuda is not a DeviceAllocator.")

    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", forget)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: held["peak"])
    session = eager.open(model, random_weights(model, SIZES[0]), harness.SessionOptions(SIZES[0], dtype="float64"))
    assert set(claims(session).values()) == {None}
    assert held["peak"] == 900  # not even asked
    device = torch.device("cuda")  # a name: nothing is placed there
    forget_peak(device)
    held["peak"] += 50
    session._device = device
    assert claims(session)["peak_device_bytes"] == 150
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", not_counted)
    assert claims(session)["peak_device_bytes"] is None
    monkeypatch.delattr(torch.accelerator, "max_memory_allocated")  # an older torch
    assert claims(session)["peak_device_bytes"] is None
    session.close()
    assert set(claims(session).values()) == {None}


@pytest.mark.skipif(torch.accelerator.current_accelerator() is None, reason="no accelerator is here")
def test_what_an_accelerator_held_is_at_least_the_weights(eager: Any) -> None:
    model, size = harness.discover().model("torch-lstm"), harness.LayerSize(64, 256)
    weights = random_weights(model, size, "float32")
    device = str(torch.accelerator.current_accelerator())
    session = eager.open(model, weights, harness.SessionOptions(size, device=device))
    session.fetch(session.run(session.prepare(random_inputs(model, size, "float32"))))
    peak = claims(session)["peak_device_bytes"]
    assert peak is not None
    assert peak >= sum(array.nbytes for array in weights.values())


def test_importing_the_plugin_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, harness_torch as p; p.harness_models(); p.harness_runtimes(); "
        "p.harness_accelerators(); "
        "print({'torch', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
