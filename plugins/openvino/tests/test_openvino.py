"""The openvino runtime: float32 means float32, results are kept, threads rest, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import onnx
import pytest
from harness_openvino import runtime
from harness_openvino.bodies import close_bodies
from harness_openvino.runtime import OpenvinoRuntime
from harness_openvino.session import compile_graph
from onnx import helper, numpy_helper

import harness
from harness.claims import claims

SIZE = harness.LayerSize(6, 6)
NOBODY = harness.Model("nobody", harness.LSTM, "torch", build=dict)
FLOAT = onnx.TensorProto.FLOAT


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def layer_graph(nodes: Sequence[onnx.NodeProto], *weights: onnx.TensorProto) -> onnx.ModelProto:
    """What an exported layer of one state array more takes and gives; the nodes make `y`, the states pass through."""
    info = helper.make_tensor_value_info
    axes: dict[str, tuple[int | str, ...]] = {"x": ("batch", "time", 6), "h_0": (1, "batch", 6), "c_0": (1, "batch", 6)}
    kept = [helper.make_node("Identity", ["h_0"], ["h_n"]), helper.make_node("Identity", ["c_0"], ["c_n"])]
    given = [info(name, FLOAT, shape) for name, shape in axes.items()]
    made = [info("y", FLOAT, axes["x"]), info("h_n", FLOAT, axes["h_0"]), info("c_n", FLOAT, axes["c_0"])]
    graph = helper.make_graph([*nodes, *kept], "layer", given, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(0).standard_normal(shape).astype(np.float32), name)


def doubling() -> onnx.ModelProto:
    """A graph whose `y` is x + x."""
    return layer_graph([helper.make_node("Add", ["x", "x"], ["y"])])


def looping(captured: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """A Scan over time, whose body multiplies by `turned`, which is made outside of it."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", "turned"], ["su"]),
            helper.make_node("Add", ["x_t", "su"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["next"]),
            helper.make_node("Identity", ["next"], ["y_t"]),
        ],
        "body",
        [info("s", FLOAT, ("batch", 6)), info("x_t", FLOAT, ("batch", 6))],
        [info("next", FLOAT, ("batch", 6)), info("y_t", FLOAT, ("batch", 6))],
    )
    nodes = [
        *captured,
        helper.make_node("Transpose", ["x"], ["x_first"], perm=[1, 0, 2]),
        helper.make_node("Squeeze", ["h_0", "zero"], ["start"]),
        helper.make_node("Scan", ["start", "x_first"], ["last", "rows"], body=body, num_scan_inputs=1),
        helper.make_node("Transpose", ["rows"], ["y"], perm=[1, 0, 2]),
    ]
    return layer_graph(nodes, weights("u", 6, 6), numpy_helper.from_array(np.array([0], np.int64), "zero"))


def open_session(monkeypatch: pytest.MonkeyPatch, graph: onnx.ModelProto, **options: Any) -> Any:
    """A session of a graph made by hand."""
    monkeypatch.setattr(runtime, "filled_graph", lambda *_: (graph, 0.25))
    return OpenvinoRuntime().open(NOBODY, {}, harness.SessionOptions(SIZE, **options))


def inputs(batch: int, time: int, seed: int = 0) -> harness.Inputs:
    random = np.random.default_rng([batch, time, seed])
    state = tuple(random.standard_normal((1, batch, 6)).astype(np.float32) for _ in range(2))
    return harness.Inputs(random.standard_normal((batch, time, 6)).astype(np.float32), state)


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'onnx', 'onnxruntime', 'openvino', 'openvino_telemetry'}"
    assert run_python(f"import harness_openvino, sys; print({heavy} & set(sys.modules))") == "set()"


def test_the_plugin_is_found() -> None:
    assert harness.discover().runtime("openvino").frameworks == {"torch"}


def test_without_openvino_the_list_says_what_to_install_and_everything_else_is_there() -> None:
    code = """
import importlib.metadata, sys
sys.modules["openvino"] = None
real = importlib.metadata.distribution
def distribution(name):
    if name == "openvino":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.distribution = distribution
import harness
catalog = harness.discover()
print(*(f"{plugin.name}: {plugin.failure}" for plugin in catalog.plugins if plugin.failure), sep="\\n")
print("onnxruntime" in [entry.name for entry in catalog.entries])
"""
    failure, rest = run_python(code).splitlines()
    assert failure == "openvino: 'rnn-harness-openvino' needs 'openvino', which is not installed: pip install openvino"
    assert rest == "True"


def test_another_device_is_refused_with_what_openvino_finds() -> None:
    with pytest.raises(harness.Unsupported, match=r"runs on the cpu only, not on 'cuda' \(OpenVINO finds CPU"):
        OpenvinoRuntime().open(NOBODY, {}, harness.SessionOptions(SIZE, device="cuda"))


def test_float64_is_refused_because_it_would_be_computed_in_float32() -> None:
    with pytest.raises(harness.Unsupported, match="takes float32, not float64: OpenVINO computes float64 in float32"):
        OpenvinoRuntime().open(NOBODY, {}, harness.SessionOptions(SIZE, dtype="float64"))


def test_a_model_of_another_framework_is_refused() -> None:
    model = harness.Model("nobody", harness.LSTM, "numpy", build=dict)
    with pytest.raises(harness.Unsupported, match="runtime 'openvino' takes torch models; 'nobody' is numpy"):
        OpenvinoRuntime().open(model, {}, harness.SessionOptions(SIZE))


def test_more_threads_than_openvino_uses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(harness.Unsupported, match=r"uses \d+ threads here where 4096 are asked for"):
        open_session(monkeypatch, doubling(), threads=4096)


def test_a_graph_is_compiled_for_float32_one_stream_and_the_threads_asked_for() -> None:
    compiled = compile_graph(doubling().SerializeToString(), threads=1)
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def squares(threads: int) -> Any:
    """A call that multiplies large matrices."""
    info = helper.make_tensor_value_info
    product = helper.make_node("MatMul", ["x", "x"], ["y"])
    graph = helper.make_graph([product], "g", [info("x", FLOAT, (512, 512))], [info("y", FLOAT, (512, 512))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    request = compile_graph(model.SerializeToString(), threads).create_infer_request()
    x = np.ones((512, 512), np.float32)
    return lambda: request.infer({"x": x}, share_inputs=True)


def test_one_thread_takes_no_more_processor_time_than_passes() -> None:
    call = squares(threads=1)
    call()
    start, used = perf_counter(), process_time()
    for _ in range(20):
        call()
    assert process_time() - used <= 1.1 * (perf_counter() - start)


def test_the_threads_of_a_session_use_no_processor_time_between_calls() -> None:
    call, used = squares(threads=2), []
    for _ in range(5):
        call()
        before = process_time()
        threading.Event().wait(0.02)
        used.append((process_time() - before) / 0.02)
    assert sorted(used)[2] < 0.2  # of a core, as the harness asks of every idle worker


def test_a_session_takes_every_shape_and_gives_what_the_graph_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(monkeypatch, doubling())
    for batch, time in [(3, 4), (1, 1), (2, 9), (3, 4)]:
        given = inputs(batch, time)
        outputs = session.fetch(session.run(session.prepare(given)))
        assert np.array_equal(outputs.y, 2 * given.x)
        assert outputs.y.dtype == np.float32
        for mine, theirs in zip(outputs.state, given.state or (), strict=True):
            assert np.array_equal(mine, theirs)


def test_a_state_not_given_is_zeros_and_x_may_be_read_only_and_lie_in_any_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = open_session(monkeypatch, doubling())
    x = np.asfortranarray(inputs(3, 4).x)
    x.flags.writeable = False
    outputs = session.fetch(session.run(session.prepare(harness.Inputs(x))))
    assert np.array_equal(outputs.y, 2 * x)
    assert not outputs.state[0].any()


def test_what_a_call_gave_stays_when_the_session_is_called_again_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(monkeypatch, doubling())
    first, second = inputs(3, 4, seed=1), inputs(3, 4, seed=2)
    prepared = session.prepare(first)
    raw = session.run(prepared)
    session.run(session.prepare(second))
    outputs = session.fetch(raw)
    session.run(session.prepare(second))
    assert np.array_equal(session.fetch(session.run(prepared)).y, 2 * first.x)
    session.close()
    assert np.array_equal(outputs.y, 2 * first.x)
    assert outputs.y.flags.writeable
    outputs.y[:] = 7
    with pytest.raises(harness.HarnessError, match="closed"):
        session.prepare(first)


def test_a_session_says_what_it_read_how_long_that_was_compiled_and_its_export_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = looping([helper.make_node("Transpose", ["u"], ["turned"])])
    before = graph.ByteSize()
    moments = iter([100.0, 102.5])
    monkeypatch.setattr(runtime, "perf_counter", lambda: next(moments))
    said = claims(open_session(monkeypatch, graph))
    assert said["export_seconds"] == 0.25
    assert said["compile_seconds"] == 2.5
    assert said["size_bytes"] == graph.ByteSize()
    assert graph.ByteSize() > before  # the body has copies of the weights now


def test_a_loop_that_takes_weights_from_outside_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = looping([helper.make_node("Transpose", ["u"], ["turned"])])
    given = inputs(3, 4)
    session = open_session(monkeypatch, graph)
    y = session.fetch(session.run(session.prepare(given))).y
    assert given.state is not None
    s, u = given.state[0][0], numpy_helper.to_array(graph.graph.initializer[0])
    for t in range(4):
        s = np.tanh(given.x[:, t] + s @ u.T)
        assert np.allclose(y[:, t], s, atol=1e-6)


def test_only_weights_are_put_into_a_body_and_only_once() -> None:
    graph = looping([helper.make_node("Transpose", ["u"], ["turned"])])
    close_bodies(graph)
    once = graph.SerializeToString()
    close_bodies(graph)
    assert graph.SerializeToString() == once
    of_x = looping(
        [helper.make_node("Gather", ["h_0", "zero"], ["all"]), helper.make_node("Squeeze", ["all"], ["turned"])]
    )
    before = of_x.SerializeToString()
    close_bodies(of_x)
    assert of_x.SerializeToString() == before


def test_a_graph_that_openvino_does_not_take_is_refused_in_one_line_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        harness.Unsupported, match=r"'nobody': OpenVINO does not take its graph: No conversion .*NoSuch"
    ) as caught:
        open_session(monkeypatch, layer_graph([helper.make_node("NoSuch", ["x"], ["y"])]))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; use runtime onnxruntime")


@pytest.mark.slow
def test_a_process_that_opens_sessions_holds_no_other_runtime_and_no_telemetry(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    models = [e.name for e in harness.discover().entries if e.kind == "model" and e.value.framework == "torch"]
    if not models:
        pytest.skip("no plugin with a torch model is installed")
    code = (
        "import os, sys, pathlib, numpy as np, harness\n"
        "affinity = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else None\n"
        "catalog = harness.discover()\n"
        "model, size = catalog.model(sys.argv[1]), harness.LayerSize(5, 6, 2)\n"
        "shapes = model.architecture.weight_shapes(size)\n"
        "weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}\n"
        "options = harness.SessionOptions(size, cache_dir=pathlib.Path(sys.argv[2]))\n"
        "session = catalog.runtime('openvino').open(model, weights, options)\n"
        "outputs = session.fetch(session.run(session.prepare(harness.Inputs(np.ones((2, 3, 5), np.float32)))))\n"
        "assert affinity is None or os.sched_getaffinity(0) == affinity\n"
        "others = {'torch', 'onnxruntime', 'openvino_telemetry.main'} & set(sys.modules)\n"
        "print(outputs.y.shape[:2], others)\n"
    )
    cache: Path = tmp_path_factory.getbasetemp() / "harness-cache"
    assert run_python(code, models[0], str(cache)) == "(2, 3) set()"
