"""The onnxruntime runtime: what it refuses, what it keeps, and that every torch model it takes keeps its numbers."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import onnx
import pytest
from harness_onnx import graph, runtime
from harness_onnx.runtime import OnnxRuntime
from harness_onnx.session import DeviceSession, Figures, HostSession

import harness
from harness.claims import claims

SIZE = harness.LayerSize(input_size=5, hidden_size=6, num_layers=1)
FIGURES = Figures(export_seconds=0.25, size_bytes=2048)
TORCH_MODELS = [
    entry.name for entry in harness.discover().entries if entry.kind == "model" and entry.value.framework == "torch"
]
needs_a_model = pytest.mark.skipif(not TORCH_MODELS, reason="no plugin with a torch model is installed")

PLUGIN = """
import harness

def build(input_size, hidden_size, num_layers=1):
    from stranger_layer import {layer}
    return {layer}(input_size, hidden_size)

@harness.hookimpl
def harness_models():
    return [harness.Model("stranger-lstm", harness.LSTM, "torch", build)]
"""

LAYERS = """
import torch
from torch import nn

class Loop(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.zeros(4 * hidden_size, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.zeros(4 * hidden_size, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(4 * hidden_size))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(4 * hidden_size))
        self.hidden_size = hidden_size

    def forward(self, x, state=None):
        if state is None:
            zeros = torch.zeros(1, x.shape[0], self.hidden_size, dtype=x.dtype)
            state = (zeros, zeros)
        h, c = state[0][0], state[1][0]
        outputs = []
        for t in range(x.shape[1]):
            gates = x[:, t] @ self.weight_ih_l0.T + self.bias_ih_l0 + h @ self.weight_hh_l0.T + self.bias_hh_l0
            i, f, g, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h.unsqueeze(0), c.unsqueeze(0))

class Fussy(Loop):
    def forward(self, x, state=None):
        import harness
        raise harness.Unsupported("a fussy layer runs on Tuesdays only; wait for one")

class Exporting(Loop):
    def forward(self, x, state=None):
        import harness
        if torch.compiler.is_exporting():
            raise harness.Unsupported("this layer is a kernel that no graph can hold; use runtime eager")
        return super().forward(x, state)

class Broken(Loop):
    def forward(self, x, state=None):
        return self.nothing(x)

class Opaque(Loop):
    def forward(self, x, state=None):
        numbers = x.detach().numpy()  # neither exporter can follow
        outputs = [Loop.forward(self, x[:, : t + 1], state)[0][:, -1] for t in range(len(numbers[0]))]
        return torch.stack(outputs, dim=1), Loop.forward(self, x, state)[1]
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., harness.Model]]:
    """Installs somebody's distribution with one model, whose layer is the class of that name in LAYERS."""

    def install(layer: str, plugin: str = PLUGIN) -> harness.Model:
        folder = tmp_path / "site"
        (folder / "stranger-1.0.dist-info").mkdir(parents=True)
        (folder / "stranger-1.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n"
        )
        (folder / "stranger-1.0.dist-info" / "entry_points.txt").write_text("[harness]\nstranger = stranger\n")
        (folder / "stranger.py").write_text(plugin.replace("{layer}", layer))
        (folder / "stranger_layer.py").write_text(LAYERS)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        catalog = harness.discover()
        (name,) = (entry.name for entry in catalog.entries if entry.plugin.name == "stranger")
        return catalog.model(name)

    yield install
    sys.modules.pop("stranger", None)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "harness-cache"  # the conformance kit's, so that they share exports


def random_weights(model: harness.Model, size: harness.LayerSize = SIZE, seed: int = 0) -> dict[str, Any]:
    """Float64 weights; no two biases alike."""
    random = np.random.default_rng(seed)
    return {name: random.uniform(-0.5, 0.5, shape) for name, shape in model.architecture.weight_shapes(size).items()}


def random_inputs(model: harness.Model, size: harness.LayerSize, batch: int, time: int) -> harness.Inputs:
    random = np.random.default_rng(batch * 100 + time)
    state = (size.num_layers * model.architecture.directions, batch, size.hidden_size)
    states = tuple(random.normal(size=state) for _ in model.architecture.state_names)
    return harness.Inputs(random.normal(size=(batch, time, size.input_size)), states)


def cast(weights: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    return {name: value.astype(dtype) for name, value in weights.items()}


def call(session: harness.Session, inputs: harness.Inputs, dtype: str = "float32") -> harness.Outputs:
    state = None if inputs.state is None else tuple(part.astype(dtype) for part in inputs.state)
    return session.fetch(session.run(session.prepare(harness.Inputs(inputs.x.astype(dtype), state, inputs.lengths))))


def difference(mine: harness.Outputs, oracle: harness.Outputs) -> float:
    pairs = zip((mine.y, *mine.state), (oracle.y, *oracle.state), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def tiny_graph() -> onnx.ModelProto:
    """An LSTM graph made by hand, with one parameter called `w`, (2, 3)."""
    value = onnx.numpy_helper.from_array(np.zeros((2, 3), np.float32), "layer.w")
    return onnx.helper.make_model(onnx.helper.make_graph([], "tiny", [], [], [value]))


def model_without_build(**changes: Any) -> harness.Model:
    return dataclasses.replace(harness.Model("nobody", harness.LSTM, "torch", build=dict), **changes)


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = "import harness_onnx, sys; print({'torch', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_plugin_is_found() -> None:
    assert harness.discover().runtime("onnxruntime").frameworks == {"torch"}


@pytest.mark.parametrize("device", ["quantum", "quantum:1", "cpu:first"])
def test_a_device_without_execution_provider_is_refused_in_one_line(device: str) -> None:
    with pytest.raises(harness.Unsupported, match=f"no execution provider for device '{device}'.*cpu") as caught:
        OnnxRuntime().open(model_without_build(), {}, harness.SessionOptions(SIZE, device=device))
    assert "\n" not in str(caught.value)


def test_a_model_of_another_framework_is_refused() -> None:
    with pytest.raises(harness.Unsupported, match="takes torch models; 'nobody' is numpy"):
        OnnxRuntime().open(model_without_build(framework="numpy"), {}, harness.SessionOptions(SIZE))


def test_another_dtype_is_refused() -> None:
    with pytest.raises(harness.Unsupported, match="float32 and float64, not float16"):
        OnnxRuntime().open(model_without_build(), {}, harness.SessionOptions(SIZE, dtype="float16"))


def test_an_export_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "EXPORT_LIMIT_S", 0.01)
    with pytest.raises(harness.HarnessError, match=r"took more than 0 s and was stopped; its log is .*\.log"):
        OnnxRuntime().open(model_without_build(), {}, harness.SessionOptions(SIZE, cache_dir=tmp_path))
    assert not list(tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob("*.verdict.json"))


def test_an_export_that_dies_gives_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    died = tmp_path / "python"
    died.write_text("#!/bin/sh\necho loading\necho out of memory\nexit 9\n")
    died.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(died))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(harness.HarnessError, match="died with status 9: out of memory; its log is "):
        OnnxRuntime().open(model_without_build(), {}, harness.SessionOptions(SIZE))


def test_a_half_written_file_is_never_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exports = []

    def export(model: harness.Model, options: harness.SessionOptions, folder: Path) -> None:
        exports.append(folder)
        (folder / "export.log").touch()
        (folder / "graph.onnx").write_bytes(tiny_graph().SerializeToString())

    monkeypatch.setattr(runtime, "export", export)
    options = harness.SessionOptions(SIZE, cache_dir=tmp_path)
    left_by_another = tmp_path / ".export-killed"
    left_by_another.mkdir()
    (left_by_another / "graph.onnx").write_bytes(b"half")
    for _ in range(2):
        path = runtime.exported(model_without_build(), options, tmp_path).path
        assert onnx.load(path).graph.initializer[0].name == "layer.w"
    assert len(exports) == 1


def test_who_comes_while_another_exports_waits_and_takes_that_graph(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, may_end, exports = threading.Event(), threading.Event(), []

    def export(model: harness.Model, options: harness.SessionOptions, folder: Path) -> None:
        exports.append(folder)
        begun.set()
        assert may_end.wait(60)
        (folder / "export.log").touch()
        (folder / "graph.onnx").write_bytes(tiny_graph().SerializeToString())

    monkeypatch.setattr(runtime, "export", export)
    options, found = harness.SessionOptions(SIZE, cache_dir=tmp_path), []

    def ask() -> None:
        found.append(runtime.exported(model_without_build(), options, tmp_path))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert len(exports) == 1
    assert len({one.path for one in found}) == 1
    assert max(one.seconds for one in found) > 0  # who came when it was there waited for nothing
    assert runtime.exported(model_without_build(), options, tmp_path).seconds == 0.0


def elsewhere(location: str) -> onnx.TensorProto:
    """A tensor whose values lie in another file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2, 3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def pointing(tensor: onnx.TensorProto, place: str) -> onnx.ModelProto:
    """A graph with a tensor in one of the places where a graph may hold one."""
    helper = onnx.helper
    if place == "initializer":
        return helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    if place == "constant":
        return helper.make_model(helper.make_graph([constant], "g", [], []))
    body = (
        helper.make_graph([constant], "b", [], [])
        if "constant" in place
        else helper.make_graph([], "b", [], [], [tensor])
    )
    return helper.make_model(helper.make_graph([helper.make_node("Loop", ["m", "c"], [], body=body)], "g", [], []))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "beside.data"])
@pytest.mark.parametrize("place", ["initializer", "constant", "initializer of a body", "constant of a body"])
def test_a_graph_that_points_to_another_file_is_refused(tmp_path: Path, place: str, location: str) -> None:
    (tmp_path / "beside.data").write_bytes(24 * b"x")
    path = tmp_path / "graph.onnx"
    path.write_bytes(pointing(elsewhere(location), place).SerializeToString())
    with pytest.raises(harness.HarnessError, match=f"keeps tensor 'w' in another file \\('{location}'\\)"):
        graph.read(path)


def test_a_graph_of_one_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(tiny_graph().SerializeToString())
    assert graph.read(path) == tiny_graph()


def test_filling_in_a_parameter_the_graph_lacks_names_it() -> None:
    with pytest.raises(harness.HarnessError, match="has no parameter 'u'; it has: w"):
        graph.fill(tiny_graph(), {"u": np.zeros((2, 3))})


def test_filling_in_another_shape_names_both() -> None:
    with pytest.raises(harness.HarnessError, match=r"'w' is \(2, 3\) in the exported graph, not \(3, 2\)"):
        graph.fill(tiny_graph(), {"w": np.zeros((3, 2))})


def test_filling_in_takes_the_dtype_of_the_graph() -> None:
    filled = tiny_graph()
    graph.fill(filled, {"w": np.arange(6, dtype=np.float64).reshape(3, 2).T})
    value = onnx.numpy_helper.to_array(filled.graph.initializer[0])
    assert value.dtype == np.float32
    assert value.tolist() == [[0, 2, 4], [1, 3, 5]]


def echo_graph(dtype: str) -> onnx.ModelProto:
    """A graph made by hand of one layer, size 2, that gives what it takes, y being x."""
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    axes: dict[str, tuple[int | str, ...]] = {"x": ("batch", "time", 2), "h_0": (1, "batch", 2), "c_0": (1, "batch", 2)}
    pairs = [("x", "y"), ("h_0", "h_n"), ("c_0", "c_n")]
    echo = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [given], [made]) for given, made in pairs],
        "echo",
        [onnx.helper.make_tensor_value_info(given, element, axes[given]) for given, _ in pairs],
        [onnx.helper.make_tensor_value_info(made, element, axes[given]) for given, made in pairs],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(echo, opset_imports=opsets, ir_version=10)


def open_echo(kind: type[HostSession] | type[DeviceSession], dtype: str = "float32") -> Any:
    """A session of that graph."""
    loaded = graph.load(echo_graph(dtype), 1, ["CPUExecutionProvider"])
    options = harness.SessionOptions(harness.LayerSize(2, 2), dtype=dtype)
    if kind is DeviceSession:
        return DeviceSession(loaded, harness.LSTM, options, FIGURES, ("cpu", 0))
    return HostSession(loaded, harness.LSTM, options, FIGURES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_session_says_how_large_the_graph_is_that_it_runs_and_how_long_its_export_was_waited_for(
    monkeypatch: pytest.MonkeyPatch, dtype: str, tmp_path: Path
) -> None:
    asked = echo_graph(dtype)
    monkeypatch.setattr(runtime, "filled_graph", lambda *_: (asked, 0.25))
    options = harness.SessionOptions(harness.LayerSize(2, 2), dtype=dtype)
    session = OnnxRuntime().open(model_without_build(), {}, options)
    onnx.save(asked, tmp_path / "graph.onnx")
    said = claims(session)
    assert said["size_bytes"] == (tmp_path / "graph.onnx").stat().st_size
    assert said["export_seconds"] == 0.25
    assert said["compile_seconds"] is None


both_sessions = pytest.mark.parametrize("kind", [HostSession, DeviceSession])


@both_sessions
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_session_passes_every_array_on_in_its_dtype(kind: type[Any], dtype: str) -> None:
    session = open_echo(kind, dtype)
    inputs = random_inputs(harness.Model("", harness.LSTM, "", dict), harness.LayerSize(2, 2), 3, 4)
    turned = dataclasses.replace(inputs, x=np.asfortranarray(inputs.x))
    outputs = session.fetch(session.run(session.prepare(turned)))
    for mine, theirs in zip((outputs.y, *outputs.state), (inputs.x, *(inputs.state or ())), strict=True):
        assert mine.dtype == dtype
        assert np.array_equal(mine, theirs.astype(dtype))


@both_sessions
def test_a_state_not_given_is_zeros_of_the_batch_at_every_turn(kind: type[Any]) -> None:
    session = open_echo(kind)
    several = [session.prepare(harness.Inputs(np.ones((batch, 4, 2), np.float32))) for batch in (3, 1, 3)]
    for batch, prepared in zip((3, 1, 3), several, strict=True):
        h, c = session.fetch(session.run(prepared)).state
        assert h.shape == c.shape == (1, batch, 2)
        assert not h.any()
        assert not c.any()


@both_sessions
def test_outputs_are_no_view_of_a_state_that_is_used_again(kind: type[Any]) -> None:
    session = open_echo(kind)
    inputs = harness.Inputs(np.ones((3, 4, 2), np.float32))
    for _ in range(2):
        outputs = session.fetch(session.run(session.prepare(inputs)))
        assert not outputs.state[0].any()
        outputs.state[0][:] = 7
        outputs.y[:] = 7
    assert np.array_equal(inputs.x, np.ones((3, 4, 2)))


@both_sessions
def test_a_closed_session_says_so(kind: type[Any]) -> None:
    session = open_echo(kind)
    inputs = harness.Inputs(np.ones((3, 4, 2), np.float32))
    prepared = session.prepare(inputs)
    session.close()
    for method, argument in ((session.prepare, inputs), (session.run, prepared)):
        with pytest.raises(harness.HarnessError, match="this session is closed; open a new one"):
            method(argument)


def test_copies_to_a_device_end_before_a_call_and_the_call_when_its_outputs_are_there() -> None:
    session = open_echo(DeviceSession)
    happened: list[str] = []

    class Binding:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: happened.append(name)

    class Loaded:
        def io_binding(self) -> Any:
            return Binding()

        def run_with_iobinding(self, binding: Any) -> None:
            happened.append("run")

    session._session = Loaded()
    prepared = session.prepare(harness.Inputs(np.ones((3, 4, 2), np.float32)))
    assert happened == ["bind_ortvalue_input"] * 3 + ["bind_output"] * 3 + ["synchronize_inputs"]
    session.run(prepared)
    assert happened[-2:] == ["run", "synchronize_outputs"]


def test_on_the_host_what_is_prepared_is_what_onnx_runtime_takes() -> None:
    x = np.ones((3, 4, 2), np.float32)
    prepared = open_echo(HostSession).prepare(harness.Inputs(x))
    assert list(prepared) == ["x", "h_0", "c_0"]
    assert prepared["x"] is x


def test_the_threads_of_a_session_use_no_processor_time_between_calls() -> None:
    """By default they spin on after a call and steal a core from whatever is timed next."""
    info, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    product = onnx.helper.make_node("MatMul", ["x", "x"], ["y"])
    square = onnx.helper.make_graph([product], "g", [info("x", float32, (512, 512))], [info("y", float32, (512, 512))])
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(square, opset_imports=opsets, ir_version=10)
    session = graph.load(model, 2, ["CPUExecutionProvider"])
    used = []
    for _ in range(5):
        session.run(["y"], {"x": np.ones((512, 512), np.float32)})
        before = process_time()
        threading.Event().wait(0.02)
        used.append((process_time() - before) / 0.02)
    assert max(used) < 0.2  # of a core, as the harness asks of every idle worker


@pytest.mark.slow
@needs_a_model
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", TORCH_MODELS)
def test_a_torch_model_agrees_with_the_oracle_at_shapes_the_export_never_saw(
    name: str, layers: int, cache: Path
) -> None:
    model = harness.discover().model(name)
    size = dataclasses.replace(SIZE, num_layers=layers)
    weights = random_weights(model, size)
    head = {"head.weight": np.zeros((2, 6)), "head.bias": np.zeros(2)}
    session = OnnxRuntime().open(model, cast(weights | head, "float32"), harness.SessionOptions(size, cache_dir=cache))
    for batch, time in [(1, 1), (1, 40), (4, 13), (33, 2)]:
        inputs = random_inputs(model, size, batch, time)
        before = inputs.x.copy()
        assert difference(call(session, inputs), model.architecture.reference(weights, inputs, size)) < 1e-6
        assert np.array_equal(inputs.x, before)
        stateless = dataclasses.replace(inputs, state=None)
        assert difference(call(session, stateless), model.architecture.reference(weights, stateless, size)) < 1e-6
    ragged = dataclasses.replace(random_inputs(model, size, 4, 13), lengths=np.array([13, 2, 7, 2]))
    assert difference(call(session, ragged), model.architecture.reference(weights, ragged, size)) < 1e-6
    session.close()
    with pytest.raises(harness.HarnessError, match="closed"):
        session.prepare(inputs)


@pytest.mark.slow
@needs_a_model
@pytest.mark.parametrize("name", TORCH_MODELS)
def test_a_graph_holds_a_loop_and_free_axes_and_comes_with_a_record(name: str, cache: Path) -> None:
    path = runtime.exported(harness.discover().model(name), harness.SessionOptions(SIZE, cache_dir=cache), cache).path
    exported = onnx.load(path)
    assert not graph.LOOPS.isdisjoint(node.op_type for node in graph.nodes(exported))
    for value in (*exported.graph.input, *exported.graph.output):
        axes = [axis.dim_param for axis in value.type.tensor_type.shape.dim]
        assert axes == (["batch", "time", ""] if value.name in ("x", "y") else ["", "batch", ""])
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["route"] == "dynamo"
    assert record["nodes"] == sum(record["operators"].values()) == len(list(graph.nodes(exported)))
    assert record["size_bytes"] == path.stat().st_size
    assert path.with_suffix(".log").exists()


@pytest.mark.slow
@needs_a_model
@pytest.mark.parametrize("name", TORCH_MODELS)
def test_float64_agrees_with_the_oracle_or_is_refused_with_the_reason(name: str, cache: Path) -> None:
    model = harness.discover().model(name)
    weights = random_weights(model)
    try:
        session = OnnxRuntime().open(model, weights, harness.SessionOptions(SIZE, dtype="float64", cache_dir=cache))
    except harness.Unsupported as refusal:
        reason = str(refusal)
    else:
        reason = ""
    if reason:
        operator = "LSTM" if len(model.architecture.state_names) == 2 else "GRU"
        start = f"model '{name}': cannot be exported to ONNX in float64: ONNX Runtime's {operator} has no float64; "
        assert start in reason
        return
    inputs = random_inputs(model, SIZE, 4, 13)
    assert difference(call(session, inputs, "float64"), model.architecture.reference(weights, inputs, SIZE)) < 1e-12


@pytest.mark.slow
@needs_a_model
def test_the_weights_of_an_lstm_operator_are_constants_after_optimisation(cache: Path, tmp_path: Path) -> None:
    import onnxruntime  # type: ignore[import-untyped]

    for name in TORCH_MODELS:
        path = runtime.exported(
            harness.discover().model(name), harness.SessionOptions(SIZE, cache_dir=cache), cache
        ).path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(tmp_path / "optimised.onnx").graph
        constants = {tensor.name for tensor in optimised.initializer}
        for node in optimised.node:
            assert node.op_type != "LSTM" or set(node.input[1:4]) <= constants


@pytest.mark.slow
@needs_a_model
def test_two_sets_of_weights_use_one_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = []
    real = subprocess.run

    def count(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", count)
    model = harness.discover().model(TORCH_MODELS[0])
    inputs = random_inputs(model, SIZE, 4, 13)
    answers, exporting = [], []
    for seed in (1, 2):
        weights = random_weights(model, seed=seed)
        session = OnnxRuntime().open(model, cast(weights, "float32"), harness.SessionOptions(SIZE, cache_dir=tmp_path))
        answers.append(call(session, inputs))
        said = claims(session)
        (path,) = tmp_path.glob("*.onnx")
        assert said["size_bytes"] == pytest.approx(path.stat().st_size, rel=0.05)  # the file with other weights in it
        exporting.append(said["export_seconds"])
        assert difference(answers[-1], model.architecture.reference(weights, inputs, SIZE)) < 1e-6
    assert len(started) == 1
    assert [seconds != 0.0 for seconds in exporting] == [True, False]  # the second found what the first had paid for
    assert difference(*answers) > 0.01


@pytest.mark.slow
@needs_a_model
def test_parameters_that_do_not_fit_the_graph_are_one_clear_error(cache: Path) -> None:
    model = harness.discover().model(TORCH_MODELS[0])
    weights, options = random_weights(model), harness.SessionOptions(SIZE, cache_dir=cache)

    def misspelt(given: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(model.to_parameters(given))
        parameters["misspelt"] = parameters.popitem()[1]
        return parameters

    def forgetful(given: Mapping[str, Any]) -> dict[str, Any]:
        return dict(list(model.to_parameters(given).items())[1:])

    with pytest.raises(
        harness.HarnessError, match=f"'{model.name}': to_parameters does not fit.*no parameter 'misspelt'"
    ):
        OnnxRuntime().open(dataclasses.replace(model, to_parameters=misspelt), weights, options)
    with pytest.raises(harness.HarnessError, match=f"'{model.name}': to_parameters gives no "):
        OnnxRuntime().open(dataclasses.replace(model, to_parameters=forgetful), weights, options)


@pytest.mark.slow
def test_a_plain_python_loop_by_a_stranger_is_kept_as_a_loop(
    stranger: Callable[..., harness.Model], tmp_path: Path
) -> None:
    model = stranger("Loop")
    weights = random_weights(model)
    session = OnnxRuntime().open(model, cast(weights, "float32"), harness.SessionOptions(SIZE, cache_dir=tmp_path))
    for batch, time in [(1, 1), (4, 13), (33, 40)]:
        inputs = random_inputs(model, SIZE, batch, time)
        assert difference(call(session, inputs), model.architecture.reference(weights, inputs, SIZE)) < 1e-6
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert record["route"] == "script"
    assert record["operators"]["Loop"] == 1


def log_of(error: BaseException) -> Path:
    """The log that a message names at its end."""
    return Path(str(error).rpartition("; log: ")[2])


@pytest.mark.slow
def test_a_model_that_cannot_be_exported_is_unsupported_with_what_to_do_and_is_tried_once(
    stranger: Callable[..., harness.Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = stranger("Opaque")
    for _ in range(2):
        with pytest.raises(harness.Unsupported) as caught:
            OnnxRuntime().open(model, random_weights(model), harness.SessionOptions(SIZE, cache_dir=tmp_path))
        text = str(caught.value)
        assert text.startswith("model 'stranger-lstm': cannot be exported to ONNX in float32: TorchScript stops at `")
        assert "; write the loop so that TorchScript can read it, or with torch's scan; see docs/plugins.md; " in text
        assert "\n" not in text
        assert len(text.partition("; log: ")[0]) < 400
        assert log_of(caught.value).parent == tmp_path
        monkeypatch.setattr(runtime, "export", None)
    log = log_of(caught.value).read_text()
    assert "Route dynamo:\nTraceback" in log
    assert "Route script:\nTraceback" in log
    assert "def forward(self, x: Tensor, state: Tuple[Tensor, Tensor])" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        ("Fussy", "a fussy layer runs on Tuesdays only; wait for one"),
        ("Exporting", "this layer is a kernel that no graph can hold; use runtime eager"),
    ],
)
def test_what_a_layer_says_itself_is_given_once_and_alone(
    stranger: Callable[..., harness.Model], tmp_path: Path, layer: str, sentence: str
) -> None:
    model = stranger(layer)
    with pytest.raises(harness.Unsupported) as caught:
        OnnxRuntime().open(model, random_weights(model), harness.SessionOptions(SIZE, cache_dir=tmp_path))
    assert str(caught.value).partition("; log: ")[0] == f"model 'stranger-lstm': {sentence}"


@pytest.mark.slow
def test_a_layer_that_fails_in_torch_has_failed_and_its_log_stays_without_a_cache(
    stranger: Callable[..., harness.Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = stranger("Broken")
    with pytest.raises(harness.HarnessError, match=r"does not run in torch: AttributeError: .*'nothing'") as caught:
        OnnxRuntime().open(model, random_weights(model), harness.SessionOptions(SIZE))
    assert not isinstance(caught.value, harness.Unsupported)
    assert "in forward" in log_of(caught.value).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2])
def test_the_documented_torch_layer_runs_as_it_is_written(
    stranger: Callable[..., harness.Model], tmp_path: Path, layers: int
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text()
    (code,) = re.findall(r"^```python[^\n]*\n((?:(?!```).)*^class CellLSTM.*?)^```", page, re.MULTILINE | re.DOTALL)
    hook = "\n\n@harness.hookimpl\ndef harness_models():\n    return [cell_lstm]\n"
    model = stranger("", "import harness\n" + code + hook)
    size = dataclasses.replace(SIZE, num_layers=layers)
    weights = random_weights(model, size)
    session = OnnxRuntime().open(model, cast(weights, "float32"), harness.SessionOptions(size, cache_dir=tmp_path))
    for batch, time in [(1, 1), (4, 13), (33, 40)]:
        for inputs in (given := random_inputs(model, size, batch, time), dataclasses.replace(given, state=None)):
            assert difference(call(session, inputs), model.architecture.reference(weights, inputs, size)) < 1e-6


@pytest.mark.slow
def test_a_layer_with_one_state_array_takes_it_as_torch_gru_does(
    stranger: Callable[..., harness.Model], tmp_path: Path
) -> None:
    plugin = """
import harness

def build(input_size, hidden_size, num_layers=1):
    import torch
    return torch.nn.GRU(input_size, hidden_size, num_layers, batch_first=True)

@harness.hookimpl
def harness_models():
    return [harness.Model("stranger-gru", harness.GRU, "torch", build)]
"""
    model = stranger("", plugin)
    weights, inputs = random_weights(model), random_inputs(model, SIZE, 4, 13)
    session = OnnxRuntime().open(model, cast(weights, "float32"), harness.SessionOptions(SIZE, cache_dir=tmp_path))
    assert difference(call(session, inputs), model.architecture.reference(weights, inputs, SIZE)) < 1e-6


@pytest.mark.slow
def test_two_processes_that_export_one_model_at_once_both_succeed(
    stranger: Callable[..., harness.Model], tmp_path: Path
) -> None:
    model, graphs = stranger("Loop"), tmp_path / "graphs"
    code = (
        "import sys, pathlib, numpy as np, harness\n"
        "catalog, size = harness.discover(), harness.LayerSize(5, 6)\n"
        "model = catalog.model(sys.argv[1])\n"
        "shapes = model.architecture.weight_shapes(size)\n"
        "weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}\n"
        "options = harness.SessionOptions(size, cache_dir=pathlib.Path(sys.argv[2]))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "session = catalog.runtime('onnxruntime').open(model, weights, options)\n"
        "outputs = session.fetch(session.run(session.prepare(harness.Inputs(np.ones((2, 3, 5), np.float32)))))\n"
        "print(outputs.y.tolist())\n"
    )
    command = [sys.executable, "-c", code, model.name, str(graphs)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0] == answers[1]
    assert sorted(path.suffix for path in graphs.iterdir()) == [".json", ".lock", ".log", ".onnx"]


@pytest.mark.slow
@needs_a_model
def test_a_process_that_opens_sessions_never_imports_torch(cache: Path) -> None:
    code = (
        "import sys, pathlib, numpy as np, harness\n"
        "catalog = harness.discover()\n"
        "model, size = catalog.model(sys.argv[1]), harness.LayerSize(5, 6)\n"
        "shapes = model.architecture.weight_shapes(size)\n"
        "weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}\n"
        "options = harness.SessionOptions(size, cache_dir=pathlib.Path(sys.argv[2]))\n"
        "session = catalog.runtime('onnxruntime').open(model, weights, options)\n"
        "outputs = session.fetch(session.run(session.prepare(harness.Inputs(np.ones((2, 3, 5), np.float32)))))\n"
        "print(outputs.y.shape[:2], 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, TORCH_MODELS[0], str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 3) False"
    assert done.stderr == ""
