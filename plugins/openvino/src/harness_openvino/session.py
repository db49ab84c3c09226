"""Sessions: a graph with weights, compiled, ready to call. Imported when one is opened; never imports torch."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness_onnx.feeder import Closed, Feeder
from harness_onnx.graph import output_names

import harness

if TYPE_CHECKING:
    import openvino  # type: ignore[import-untyped]
    from harness_onnx.feeder import Feed

    from harness.contract import FloatArray

TELEMETRY = "openvino_telemetry"


@functools.cache
def core() -> openvino.Core:
    """OpenVINO, one for all sessions of a process, without its telemetry.

    `import openvino` starts a thread that reports the import to its maker. No thread may work beside a clock, so the
    package that does this is not to be had; OpenVINO then uses a stand-in of its own.
    """
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]  # importing it is an ImportError now
    import openvino

    return openvino.Core()


def compile_graph(graph: bytes, threads: int) -> openvino.CompiledModel:
    """Compile a graph for one call at a time on so many threads, in float32 throughout.

    Raises:
        RuntimeError: OpenVINO cannot read the graph, or not compile it.
    """
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",  # or it takes bfloat16 where the processor has it
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # where a thread runs is for the operating system, as with every other runtime
    }
    return core().compile_model(core().read_model(graph), "CPU", settings)


@dataclass(frozen=True)
class Figures:
    """What a session says of itself (see `harness.Session`).

    Attributes:
        export_seconds: how long opening it waited for the export; 0.0 where that was found.
        compile_seconds: how long OpenVINO read and compiled the graph; what it prepares in a first call is not in it.
        size_bytes: of the graph that OpenVINO read, weights included, which needs no other file.
    """

    export_seconds: float
    compile_seconds: float
    size_bytes: int


class OpenvinoSession:
    """A call copies no input; its outputs are copied out of OpenVINO's memory, which the next call writes anew."""

    def __init__(
        self,
        compiled: openvino.CompiledModel,
        architecture: harness.Architecture,
        options: harness.SessionOptions,
        figures: Figures,
    ) -> None:
        self.export_seconds, self.compile_seconds = figures.export_seconds, figures.compile_seconds
        self.size_bytes = figures.size_bytes
        self._request: Any = compiled.create_infer_request()
        self._feeder: Feeder | Closed = Feeder(architecture, options)
        self._outputs = [compiled.output(name) for name in output_names(architecture)]

    def prepare(self, inputs: harness.Inputs) -> Feed:
        return self._feeder.feed(inputs)

    def run(self, prepared: Feed) -> list[FloatArray]:
        results = self._request.infer(prepared, share_inputs=True, share_outputs=False)
        return [results[output] for output in self._outputs]

    def fetch(self, raw: list[FloatArray]) -> harness.Outputs:
        y, *state = raw
        return harness.Outputs(y, tuple(state))

    def close(self) -> None:
        self._request = self._feeder = Closed()
        self._outputs = []
