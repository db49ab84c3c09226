"""What an exported graph looks like, and how weights are put into it. Shared by the export and by the sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness import Architecture, HarnessError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    from harness.contract import FloatArray

LAYER = "layer."
"""Stands before the name of every parameter, so that none can clash with an input's name."""

LOOPS = frozenset({"GRU", "LSTM", "Loop", "RNN", "Scan"})
"""The operators that walk through time, however long it is."""


def input_names(architecture: Architecture) -> list[str]:
    """`x` (B, T, I), then one name per initial state array (L*D, B, H)."""
    return ["x", *(f"{name}_0" for name in architecture.state_names)]


def output_names(architecture: Architecture) -> list[str]:
    """`y` (B, T, D*H), then one name per final state array (L*D, B, H)."""
    return ["y", *(f"{name}_n" for name in architecture.state_names)]


def parameter_shapes(graph: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The name and shape of every parameter the graph holds."""
    return {
        tensor.name.removeprefix(LAYER): tuple(tensor.dims)
        for tensor in graph.graph.initializer
        if tensor.name.startswith(LAYER)
    }


def fill(graph: onnx.ModelProto, parameters: Mapping[str, FloatArray]) -> None:
    """Replace the values of the graph's parameters, in place.

    Args:
        graph: an exported graph.
        parameters: the layer's own names and shapes; the values are cast to the graph's dtype.

    Raises:
        HarnessError: a name is not in the graph, or its shape there is another.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name, value in parameters.items():
        tensor = tensors.get(LAYER + name)
        if tensor is None:
            known = ", ".join(sorted(parameter_shapes(graph))) or "none"
            raise HarnessError(f"the exported graph has no parameter '{name}'; it has: {known}")
        if tuple(tensor.dims) != value.shape:
            raise HarnessError(f"parameter '{name}' is {tuple(tensor.dims)} in the exported graph, not {value.shape}")
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, dtype), tensor.name))


def read(path: Path) -> onnx.ModelProto:
    """Read an exported graph. It is one file: tensors that lie in other files are refused, wherever those are.

    Raises:
        HarnessError: a tensor lies in another file.
    """
    import onnx
    from onnx.external_data_helper import uses_external_data

    graph = onnx.load(path, load_external_data=False)
    outside = next((tensor for tensor in tensors(graph) if uses_external_data(tensor)), None)
    if outside is not None:
        entries = {entry.key: entry.value for entry in outside.external_data}
        raise HarnessError(
            f"'{path}' keeps tensor {outside.name!r} in another file ({entries.get('location')!r}), which is not read; "
            "remove it, so that it is exported again"
        )
    return graph


def tensors(graph: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor: the values of the graph and of the bodies in it, and the attributes of nodes."""
    yield from _values(graph.graph)
    for node in nodes(graph):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for body in (attribute.g, *attribute.graphs):
                yield from _values(body)


def _values(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def nodes(graph: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of its functions, and of the bodies of loops."""
    waiting = [*graph.graph.node, *(node for function in graph.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting.extend(attribute.g.node)
            waiting.extend(node for body in attribute.graphs for node in body.node)


def load(graph: onnx.ModelProto, threads: int, providers: list[Any]) -> onnxruntime.InferenceSession:
    """Load a graph into ONNX Runtime.

    Args:
        graph: the graph, its parameters filled in.
        threads: how many threads one call may use; they sleep, never spin, between calls.
        providers: execution providers in order of preference, as `onnxruntime.InferenceSession` takes them.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors, no warnings
    # Idle threads that spin steal the processor from whatever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=providers)
    session.disable_fallback()  # an error must not turn into a silent run on another device
    return session
