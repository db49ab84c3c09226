"""The runtime: has the graph made by `rnn-harness-onnx`, and compiles it with OpenVINO. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from harness_onnx.runtime import FRAMEWORKS, filled_graph

import harness
from harness_openvino.bodies import close_bodies

if TYPE_CHECKING:
    from harness.contract import FloatArray

LONGEST_REASON = 300
"""What OpenVINO says may be long."""


class OpenvinoRuntime:
    """OpenVINO on the CPU, for models of the framework `torch`."""

    name = "openvino"
    frameworks = FRAMEWORKS
    description = "the layer exported to ONNX, run by OpenVINO on the CPU"

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session. The first one for a model and size exports it (seconds); the others read the graph.

        Args:
            model: a torch model, known to `harness.discover()` under its name.
            weights: the standard names and layout; names that begin with `head.` are ignored.
            options: `cache_dir` keeps graphs; those of the runtime `onnxruntime` are the same.

        Raises:
            harness.Unsupported: another device than the cpu, another dtype than float32, more threads than OpenVINO
                uses here, a model that cannot be exported, or whose graph OpenVINO does not take.
            harness.HarnessError: the model itself fails, its parameters do not fit the graph, or an export died.
        """
        from harness_openvino.session import Figures, OpenvinoSession, compile_graph, core

        if options.device != "cpu":
            found = ", ".join(core().available_devices)
            raise harness.Unsupported(
                f"runtime '{self.name}' runs on the cpu only, not on '{options.device}' (OpenVINO finds {found} here); "
                "use device cpu"
            )
        if options.dtype != "float32":
            raise harness.Unsupported(
                f"runtime '{self.name}' takes float32, not {options.dtype}: OpenVINO computes float64 in float32 on a "
                "cpu; use dtype float32"
            )
        graph, export_seconds = filled_graph(self.name, model, weights, options)
        close_bodies(graph)
        text = graph.SerializeToString()
        core()  # what importing OpenVINO takes is not compiling
        began = perf_counter()
        try:
            compiled = compile_graph(text, options.threads)
        except RuntimeError as error:
            raise harness.Unsupported(
                f"model '{model.name}': OpenVINO does not take its graph: {reason(error)}; use runtime onnxruntime"
            ) from error
        compile_seconds = perf_counter() - began
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
        if threads != options.threads:
            raise harness.Unsupported(
                f"runtime '{self.name}': OpenVINO uses {threads} threads here where {options.threads} are asked for; "
                f"use --threads {threads}"
            )
        figures = Figures(export_seconds, compile_seconds, len(text))
        return harness.ByLength(OpenvinoSession(compiled, model.architecture, options, figures))


def reason(error: RuntimeError) -> str:
    """What matters of what OpenVINO raised: the first node or operator that it names and why, or else the last line."""
    text = str(error)
    found = re.search(r"^-- (.*?)(?:\n\n|\nTo facilitate|\Z)", text, re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.strip()]
    said = found[1] if found else lines[-1] if lines else "no message"
    short = " ".join(said.split())
    return short if len(short) <= LONGEST_REASON else f"{short[:LONGEST_REASON]}..."
