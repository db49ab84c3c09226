"""The runtime in 8 bits: the same proved graph, its matrix products quantised when a session is opened.

Dynamic quantisation: the weights become integers once, x and the state at every call, by the range of all they hold in
that call. So a row's answer depends on the rows beside it, and a step's on the steps after it, by what 8 bits resolve.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness_onnx.graph import load, nodes, read
from harness_onnx.runtime import FRAMEWORKS, filled_graph

if TYPE_CHECKING:
    import onnx

    from harness.contract import FloatArray

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""The operators that hold matrix products with weights, whatever these come from."""

PRODUCTS = frozenset({"Conv", "Einsum", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"})
"""The other operators that compute matrix products in float."""

QUANTISED = frozenset({"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger"})
"""What they become."""


class Int8Runtime:
    """ONNX Runtime with products of 8-bit integers, for models of the framework `torch`."""

    name = "onnxruntime-int8"
    frameworks = FRAMEWORKS
    description = "the layer exported to ONNX and quantised to 8 bits, run by ONNX Runtime"
    compute_dtype = "int8"  # of the products; what goes in and comes out is float32

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session. The export is that of `onnxruntime` and is kept in the same place.

        Args:
            model, weights, options: as for `OnnxRuntime.open`.

        Raises:
            harness.Unsupported: another device than the cpu, another dtype than float32, a model that cannot be
                exported or of which a product with weights would stay in float.
            harness.HarnessError: as `OnnxRuntime.open`.
        """
        from harness_onnx.session import Figures, HostSession

        if options.device != "cpu":
            raise harness.Unsupported(f"runtime '{self.name}' runs on the cpu only, not on '{options.device}'")
        if options.dtype != "float32":
            raise harness.Unsupported(f"runtime '{self.name}' takes and gives float32, not {options.dtype}")
        graph, export_seconds = filled_graph(self.name, model, weights, options)
        try:
            graph = quantise(graph)
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            reason = " ".join(str(error).split())
            raise harness.Unsupported(f"model '{model.name}': ONNX Runtime cannot quantise it: {reason}") from error
        left = sorted(set(float_products(graph)))
        if left:
            raise harness.Unsupported(
                f"model '{model.name}': {', '.join(left)} in its graph would stay in float32, because ONNX Runtime "
                "makes no 8-bit form of it; use runtime onnxruntime"
            )
        if QUANTISED.isdisjoint(node.op_type for node in nodes(graph)):
            raise harness.Unsupported(
                f"model '{model.name}': its graph has no product with weights to quantise; use runtime onnxruntime"
            )
        session = load(graph, options.threads, ["CPUExecutionProvider"])
        figures = Figures(export_seconds, graph.ByteSize())
        return harness.ByLength(HostSession(session, model.architecture, options, figures))


def quantise(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every product that ONNX Runtime's tool can quantise, in the bodies of loops too.

    The tool takes weights only if they are values of the graph. torch's exporter puts them behind cuts and joins, where
    the tool leaves the product in float and says nothing; ONNX Runtime's basic optimisation folds those first.

    Weights have one scale a matrix and 7 bits: without AVX-VNNI or AVX-512 VNNI, a processor adds two 8-bit products in
    16 bits, which overflow. With 8-bit weights an LSTM was off by 26 % on such a machine, with 7 by 1.3 %.
    """
    import onnxruntime  # type: ignore[import-untyped]
    from onnxruntime.quantization import quantize_dynamic  # type: ignore[import-untyped]
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory(prefix="harness-onnx-") as folder:
        optimised, quantised = Path(folder, "optimised.onnx"), Path(folder, "quantised.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors, no warnings
        onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = read(optimised)
        add_pre_process_metadata(folded)  # or the tool logs the advice to do what was just done
        quantize_dynamic(
            folded, quantised, per_channel=False, reduce_range=True, extra_options={"EnableSubgraph": True}
        )
        return read(quantised)


def float_products(graph: onnx.ModelProto) -> Iterator[str]:
    """The operators that multiply by weights in float: of the graph, and of the bodies in it.

    What is computed of values of the graph alone counts as weights, and so does what a body is given of them.
    """
    yield from _float_products(graph.graph, frozenset())


def _float_products(graph: onnx.GraphProto, outer: frozenset[str]) -> Iterator[str]:
    """The same of one graph, inside which the names in `outer` are constants too."""
    constants = {*outer, *(tensor.name for tensor in graph.initializer)}
    constants.update(tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:  # in the order in which they are computed
        given = [name for name in node.input if name]
        if node.op_type in RECURRENT or (node.op_type in PRODUCTS and not constants.isdisjoint(given)):
            yield node.op_type
        bodies = [body for attribute in node.attribute for body in (attribute.g, *attribute.graphs) if body.node]
        for body in bodies:
            # Of a Scan's body the inputs are the node's own; a Loop's begins with the turn and the condition.
            own = node.input if node.op_type == "Scan" else ["", *node.input[1:]]
            pairs = zip(own, body.input, strict=False)
            passed = {inside.name for name, inside in pairs if name in constants}
            yield from _float_products(body, frozenset(constants | passed))
        if not bodies and constants.issuperset(given):
            constants.update(node.output)
