"""The runtime in 8 bits: that what it runs is 8-bit throughout, how close that is, and what it refuses."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness_onnx import graph, int8
from harness_onnx.int8 import Int8Runtime, float_products, quantise
from harness_onnx.runtime import OnnxRuntime, load_graph
from onnx import helper, numpy_helper

import harness
from harness.claims import claims
from harness.parity import observe, probe_weights

SIZE = harness.LayerSize(5, 6, 2)  # the conformance kit's, so that they share exports
BOUND = 0.02
"""Of the root mean square of the values: 8 bits give 0.01, a product that overflows 0.2."""

TORCH_MODELS = [
    entry.name for entry in harness.discover().entries if entry.kind == "model" and entry.value.framework == "torch"
]
needs_a_model = pytest.mark.skipif(not TORCH_MODELS, reason="no plugin with a torch model is installed")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "harness-cache"


def values(name: str, *shape: int) -> onnx.TensorProto:
    """Random weights in ±1."""
    random = np.random.default_rng(len(name) + sum(shape))
    return numpy_helper.from_array(random.uniform(-1, 1, shape).astype(np.float32), name)


def make(nodes: Sequence[onnx.NodeProto], *weights: onnx.TensorProto, x: Sequence[int | str] = ("n", 6)) -> Any:
    """A graph from `x` to `y`."""
    given = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x)]
    made = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(helper.make_graph(nodes, "g", given, made, weights), opset_imports=opsets, ir_version=10)


def scan(body_nodes: Sequence[onnx.NodeProto], states: Sequence[str] = ()) -> onnx.NodeProto:
    """A loop over the rows of `x`, called `x_t` in its body, that gives `y` of what the body calls `y_t`."""
    info, float32 = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    kept = [helper.make_node("Identity", [f"{name}_t"], [f"{name}_next"]) for name in states]
    body = helper.make_graph(
        [*body_nodes, *kept],
        "body",
        [*(info(f"{name}_t", float32, None) for name in states), info("x_t", float32, None)],
        [*(info(f"{name}_next", float32, None) for name in states), info("y_t", float32, None)],
    )
    last = [f"{name}_last" for name in states]
    return helper.make_node("Scan", [*states, "x"], [*last, "y"], body=body, num_scan_inputs=1)


def product(left: str, right: str, result: str = "y") -> onnx.NodeProto:
    return helper.make_node("MatMul", [left, right], [result])


def lstm_with_joined_weights() -> onnx.ModelProto:
    """An LSTM operator whose weights stand behind a Concat, as torch's exporter leaves them."""
    nodes = [
        helper.make_node("Concat", ["w_1", "w_2"], ["w"], axis=1),
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=8),
    ]
    weights = values("w_1", 1, 16, 6), values("w_2", 1, 16, 6), values("r", 1, 32, 8), values("b", 1, 64)
    return make(nodes, *weights, x=("time", "batch", 6))  # type: ignore[no-any-return]


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.nodes(model)}


def run(model: onnx.ModelProto, x: Any) -> Any:
    return graph.load(model, 1, ["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


def rms(array: Any) -> float:
    return float(np.sqrt(np.mean(np.square(array))))


def refusal(monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto) -> str:
    """What opening a session of this graph is refused with."""
    monkeypatch.setattr(int8, "filled_graph", lambda *_: (model, 0.0))
    with pytest.raises(harness.Unsupported) as caught:
        Int8Runtime().open(harness.Model("somebody", harness.LSTM, "torch", dict), {}, harness.SessionOptions(SIZE))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_runtime_is_found_and_says_in_what_it_computes() -> None:
    runtime: Any = harness.discover().runtime("onnxruntime-int8")
    assert runtime.frameworks == {"torch"}
    assert runtime.compute_dtype == "int8"


def test_a_session_says_how_large_the_graph_is_that_it_runs_which_is_the_one_in_8_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    floats = make([product("x", "w")], values("w", 64, 64), x=("rows", 64))
    monkeypatch.setattr(int8, "filled_graph", lambda *_: (floats, 0.25))
    session = Int8Runtime().open(harness.Model("m", harness.LSTM, "torch", dict), {}, harness.SessionOptions(SIZE))
    said = claims(session)
    assert said["export_seconds"] == 0.25
    assert said["size_bytes"] == quantise(floats).ByteSize()
    assert 64 * 64 < quantise(floats).ByteSize() < floats.ByteSize() / 2  # a byte instead of four for each


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (harness.SessionOptions(SIZE, device="cuda"), "runs on the cpu only, not on 'cuda'"),
        (harness.SessionOptions(SIZE, dtype="float64"), "takes and gives float32, not float64"),
    ],
)
def test_another_device_or_dtype_is_refused(options: harness.SessionOptions, reason: str) -> None:
    with pytest.raises(harness.Unsupported, match=f"runtime 'onnxruntime-int8' {reason}"):
        Int8Runtime().open(harness.Model("somebody", harness.LSTM, "torch", dict), {}, options)


def test_a_model_of_another_framework_is_refused_in_this_runtimes_name() -> None:
    with pytest.raises(harness.Unsupported, match="runtime 'onnxruntime-int8' takes torch models; 'nobody' is numpy"):
        Int8Runtime().open(harness.Model("nobody", harness.LSTM, "numpy", dict), {}, harness.SessionOptions(SIZE))


def test_an_lstm_becomes_the_8_bit_one_though_its_weights_are_joined_first() -> None:
    exact = lstm_with_joined_weights()
    quantised = quantise(exact)
    assert "LSTM" not in operators(quantised)
    assert [node.domain for node in graph.nodes(quantised) if node.op_type == "DynamicQuantizeLSTM"] == [
        "com.microsoft"
    ]
    assert list(float_products(quantised)) == []
    x = np.random.default_rng(0).standard_normal((9, 4, 6)).astype(np.float32)
    expected = run(exact, x)
    assert 0 < rms(run(quantised, x) - expected) < BOUND * rms(expected)


def test_the_largest_products_there_are_do_not_overflow() -> None:
    """Two products of 8 by 8 bits do not fit into the 16 that processors without VNNI add them in."""
    exact = make([product("x", "w")], numpy_helper.from_array(np.ones((6, 6), np.float32), "w"))
    quantised = quantise(exact)
    assert "MatMulInteger" in operators(quantised)
    x = np.ones((3, 6), np.float32)
    assert np.allclose(run(quantised, x), 6, rtol=0.01)


def test_weights_take_7_bits() -> None:
    quantised = quantise(lstm_with_joined_weights())
    matrices = [numpy_helper.to_array(t) for t in quantised.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert [int(np.abs(m.astype(int)).max()) for m in matrices if m.size > 1] == [64, 64]


def test_products_in_the_body_of_a_loop_become_8_bit_too() -> None:
    exact = make([scan([product("x_t", "w", "y_t")])], values("w", 6, 6), x=("time", "batch", 6))
    quantised = quantise(exact)
    assert "MatMul" not in operators(quantised)
    x = np.random.default_rng(0).standard_normal((9, 4, 6)).astype(np.float32)
    expected = run(exact, x)
    assert 0 < rms(run(quantised, x) - expected) < BOUND * rms(expected)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (make([product("x", "w")], values("w", 6, 6)), ["MatMul"]),
        (make([product("x", "x")], values("w", 6, 6)), []),
        (make([helper.make_node("Transpose", ["w"], ["t"]), product("x", "t")], values("w", 6, 6)), ["MatMul"]),
        (make([helper.make_node("Neg", ["x"], ["t"]), product("x", "t")], values("w", 6, 6)), []),
        (make([scan([product("x_t", "w", "y_t")])], values("w", 6, 6)), ["MatMul"]),
        (make([scan([product("x_t", "w_t", "y_t")], states=["w"])], values("w", 6, 6)), ["MatMul"]),
        (make([scan([product("x_t", "x_t", "y_t")], states=["w"])], values("w", 6, 6)), []),
    ],
    ids=[
        "weights",
        "no weights",
        "turned weights",
        "turned x",
        "in a body",
        "handed to a body",
        "no weights in a body",
    ],
)
def test_a_product_counts_as_float_where_weights_are_in_it(model: onnx.ModelProto, found: list[str]) -> None:
    assert list(float_products(model)) == found


def test_a_gru_is_refused_because_there_is_no_8_bit_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gru = helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=8)
    model = make([gru], values("w", 1, 24, 6), values("r", 1, 24, 8), x=("time", "batch", 6))
    assert refusal(monkeypatch, model).startswith("model 'somebody': GRU in its graph would stay in float32")


def test_a_product_whose_weights_a_loop_hands_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make([scan([product("x_t", "w_t", "y_t")], states=["w"])], values("w", 6, 6), x=("time", "batch", 6))
    assert refusal(monkeypatch, model).startswith("model 'somebody': MatMul in its graph would stay in float32")


def test_a_graph_without_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make([helper.make_node("Neg", ["x"], ["y"])])
    assert "has no product with weights to quantise" in refusal(monkeypatch, model)


def test_what_the_tool_cannot_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make([helper.make_node("NoSuchOperator", ["x"], ["y"])])
    assert "ONNX Runtime cannot quantise it: " in refusal(monkeypatch, model)


def test_quantising_leaves_no_file_and_no_log_handler_and_the_graph_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    handlers = list(logging.getLogger().handlers)
    model = lstm_with_joined_weights()
    before = model.SerializeToString()
    quantise(model)
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger().handlers == handlers
    assert model.SerializeToString() == before


@pytest.mark.slow
@needs_a_model
@pytest.mark.parametrize("name", TORCH_MODELS)
def test_a_torch_model_is_within_what_8_bits_resolve_or_says_what_stays_in_float(name: str, cache: Path) -> None:
    model = harness.discover().model(name)
    weights, options = probe_weights(model.architecture, SIZE), harness.SessionOptions(SIZE, cache_dir=cache)
    exported = operators(load_graph(model, options)[0])
    if "GRU" in exported:
        with pytest.raises(harness.Unsupported, match="GRU in its graph would stay in float32"):
            Int8Runtime().open(model, weights, options)
        return
    session = Int8Runtime().open(model, weights, options)
    observations = observe(session, model.architecture, weights, SIZE, "float32")
    assert not [seen for seen in observations if seen.problem]
    assert max(seen.rmse / seen.reference_rms for seen in observations) < BOUND


@pytest.mark.slow
@needs_a_model
def test_both_runtimes_use_one_export(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    model = harness.discover().model(TORCH_MODELS[0])
    weights, options = probe_weights(model.architecture, SIZE), harness.SessionOptions(SIZE, cache_dir=cache)
    OnnxRuntime().open(model, weights, options)
    monkeypatch.setattr(subprocess, "run", None)
    Int8Runtime().open(model, weights, options)
