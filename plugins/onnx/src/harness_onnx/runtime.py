"""The runtime: finds or makes the exported graph, fills in the weights, and runs it. Never imports torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness_onnx.graph import fill, input_names, load, output_names, parameter_shapes

if TYPE_CHECKING:
    import onnxruntime  # type: ignore[import-untyped]

    from harness.contract import FloatArray

    Prepared = tuple[onnxruntime.IOBinding, list[FloatArray]]  # a binding borrows the arrays; who holds it holds them

EXPORT_LIMIT_S = 300.0
"""How long one export may take."""

VERSIONS = ("torch", "onnx", "onnxscript", "onnxruntime", "rnn-harness-onnx")
"""The distributions whose versions a kept graph depends on."""

CLOSED = "this session is closed; open a new one"


class OnnxRuntime:
    """ONNX Runtime, for models of the framework `torch`."""

    name = "onnxruntime"
    frameworks = frozenset({"torch"})
    description = "the layer exported to ONNX, run by ONNX Runtime"

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session. The first one for a model, size and dtype exports it (seconds); the others read the graph.

        Args:
            model: a torch model, known to `harness.discover()` under its name.
            weights: the standard names and layout; names that begin with `head.` are ignored.
            options: `cache_dir` keeps graphs, with a record (`.json`) and a log (`.log`) beside each.

        Raises:
            harness.Unsupported: no execution provider fits the device, or the dtype does not run.
            harness.HarnessError: the model cannot be exported, or its parameters do not fit the graph.
        """
        import onnx

        if model.framework not in self.frameworks:
            raise harness.Unsupported(f"runtime 'onnxruntime' takes torch models; '{model.name}' is {model.framework}")
        if options.dtype not in ("float32", "float64"):
            raise harness.Unsupported(f"runtime 'onnxruntime' takes float32 and float64, not {options.dtype}")
        provider, kind, index = find_provider(options.device)
        if options.cache_dir is None:
            with tempfile.TemporaryDirectory(prefix="harness-onnx-") as folder:
                graph = onnx.load(exported(model, options, Path(folder)))
        else:
            options.cache_dir.mkdir(parents=True, exist_ok=True)
            graph = onnx.load(exported(model, options, options.cache_dir))

        layer_weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
        parameters = model.to_parameters(layer_weights)
        try:
            fill(graph, parameters)
        except harness.HarnessError as error:
            raise harness.HarnessError(f"model '{model.name}': to_parameters does not fit: {error}") from error
        forgotten = sorted(parameter_shapes(graph).keys() - parameters.keys())
        if forgotten:
            raise harness.HarnessError(f"model '{model.name}': to_parameters gives no {', '.join(forgotten)}")

        settings = {"device_id": index} if ":" in options.device else {}
        if provider == "CUDAExecutionProvider":
            settings["use_tf32"] = "0"  # float32 means float32
        providers = [(provider, settings)]
        if provider != "CPUExecutionProvider":
            providers.append(("CPUExecutionProvider", {}))  # for arithmetic on shapes
        try:
            session = load(graph, options.threads, providers)
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            reason = " ".join(str(error).split())
            raise harness.HarnessError(f"model '{model.name}': ONNX Runtime cannot load its graph: {reason}") from error
        if provider not in session.get_providers():
            raise harness.Unsupported(
                f"device '{options.device}': ONNX Runtime could not start {provider}; check its driver and libraries"
            )
        return harness.ByLength(OnnxSession(session, model.architecture, options, kind, int(index)))


class OnnxSession:
    """A graph with weights, loaded. Inputs are bound to the device by `prepare` and outputs stay there until `fetch`.

    What `run` gives belongs to its prepared input: running that again writes the same values to the same place.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        architecture: harness.Architecture,
        options: harness.SessionOptions,
        kind: str,
        index: int,
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._run: Callable[[onnxruntime.IOBinding], None] = session.run_with_iobinding
        self._inputs = input_names(architecture)
        self._outputs = output_names(architecture)
        self._dtype = options.dtype
        self._layers = options.size.num_layers * architecture.directions
        self._hidden_size = options.size.hidden_size
        self._device = (kind, index) if has_memory(kind, index) else ("cpu", 0)

    def prepare(self, inputs: harness.Inputs) -> Prepared:
        """Copy nothing that already is contiguous and of the session's dtype; a state not given is zeros."""
        import numpy as np
        import onnxruntime

        if self._session is None:
            raise harness.HarnessError(CLOSED)
        state = inputs.state
        if state is None:
            zeros = np.zeros((self._layers, len(inputs.x), self._hidden_size), self._dtype)
            state = (zeros,) * (len(self._inputs) - 1)
        binding = self._session.io_binding()
        arrays = [np.ascontiguousarray(array, self._dtype) for array in (inputs.x, *state)]
        for name, array in zip(self._inputs, arrays, strict=True):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._device))
        for name in self._outputs:
            binding.bind_output(name, *self._device)
        return binding, arrays

    def run(self, prepared: Prepared) -> onnxruntime.IOBinding:
        self._run(prepared[0])
        return prepared[0]

    def fetch(self, raw: onnxruntime.IOBinding) -> harness.Outputs:
        y, *state = raw.copy_outputs_to_cpu()
        return harness.Outputs(y, tuple(state))

    def close(self) -> None:
        self._session = None
        self._run = closed


def closed(prepared: onnxruntime.IOBinding) -> None:
    """What a closed session runs."""
    raise harness.HarnessError(CLOSED)


def find_provider(device: str) -> tuple[str, str, str]:
    """The execution provider for a device, the device's kind and its number.

    `cuda:1` is the provider whose name begins with CUDA and the number 1. Every provider ONNX Runtime was built with
    can be named so.

    Raises:
        harness.Unsupported: there is none.
    """
    import onnxruntime

    kind, _, index = device.partition(":")
    providers = {name.removesuffix("ExecutionProvider").lower(): name for name in onnxruntime.get_available_providers()}
    if kind not in providers or not (index or "0").isdecimal():
        raise harness.Unsupported(
            f"ONNX Runtime has no execution provider for device '{device}', only for {', '.join(sorted(providers))}; "
            "install the build of ONNX Runtime that has it"
        )
    return providers[kind], kind, index or "0"


def has_memory(kind: str, index: int) -> bool:
    """Whether arrays can be placed on the device; some providers take theirs from the host."""
    import onnxruntime

    try:
        onnxruntime.OrtValue.ortvalue_from_shape_and_type([1], "float32", kind, index)
    except Exception:  # ONNX Runtime's exceptions share no other base class
        return False
    return True


def exported(model: harness.Model, options: harness.SessionOptions, folder: Path) -> Path:
    """The path of the model's proved graph in a folder, exporting it first if it is not there.

    Two processes may do so at once: each works in a folder of its own and moves whole files into place, the graph
    last. A verdict that the model cannot be exported is kept too.

    Raises:
        harness.Unsupported, harness.HarnessError: as `OnnxRuntime.open`.
    """
    size = options.size
    versions = "-".join(importlib.metadata.version(name) for name in VERSIONS)
    key = f"{model.name}-{size.input_size}x{size.hidden_size}x{size.num_layers}-{options.dtype}-{versions}"
    graph, verdict = folder / f"{key}.onnx", folder / f"{key}.verdict.json"
    if not graph.exists() and not verdict.exists():
        log = folder / f"{key}.log"
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as work:
            try:
                export(model, options, Path(work))
            except harness.HarnessError as error:
                kept = "" if options.cache_dir is None else f"; its log is {log}"
                raise harness.HarnessError(f"{error}{kept}") from error
            finally:
                os.replace(Path(work, "export.log"), log)
            for name, target in (
                ("record.json", folder / f"{key}.json"),
                ("verdict.json", verdict),
                ("graph.onnx", graph),
            ):
                if Path(work, name).exists():
                    os.replace(Path(work, name), target)
    if graph.exists():
        return graph
    found = json.loads(verdict.read_text())
    kind = harness.Unsupported if found["unsupported"] else harness.HarnessError
    raise kind(f"model '{model.name}' cannot be exported to ONNX in {options.dtype}: {found['reason']}")


def export(model: harness.Model, options: harness.SessionOptions, folder: Path) -> None:
    """Run the export in a process of its own; it leaves a graph or a verdict in the folder, and a log always.

    Raises:
        harness.HarnessError: it took too long, or died without a verdict.
    """
    size = options.size
    command = [sys.executable, "-m", "harness_onnx.export", "--model", model.name]
    command += ["--input-size", str(size.input_size), "--hidden-size", str(size.hidden_size)]
    command += ["--num-layers", str(size.num_layers), "--dtype", options.dtype, "--out", str(folder)]
    log = folder / "export.log"
    with log.open("wb") as stream:
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, timeout=EXPORT_LIMIT_S, check=False
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise harness.HarnessError(
                f"model '{model.name}': the export to ONNX took more than {EXPORT_LIMIT_S:.0f} s and was stopped"
            ) from error
    if not (folder / ("verdict.json" if status else "graph.onnx")).exists():
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1] if lines else "no message"
        raise harness.HarnessError(f"model '{model.name}': the export to ONNX died with status {status}: {last}")
