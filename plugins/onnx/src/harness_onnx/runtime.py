"""The runtime: finds or makes the exported graph, fills in the weights, and runs it. Never imports torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import harness
from harness_onnx.graph import fill, load, parameter_shapes, read

if TYPE_CHECKING:
    import onnx

    from harness.contract import FloatArray

EXPORT_LIMIT_S = 300.0
"""How long one export may take."""

VERSIONS = ("torch", "onnx", "onnxscript", "onnxruntime", "rnn-harness-onnx")
"""The distributions whose versions a kept graph depends on."""

FRAMEWORKS = frozenset({"torch"})
"""What can be exported."""


@dataclass(frozen=True)
class Export:
    """Where a proved graph lies.

    Attributes:
        path: the file, which holds all its tensors.
        seconds: how long it was waited for: for the export that was made, here or by another process at that moment;
            0.0 where it was found.
    """

    path: Path
    seconds: float


class OnnxRuntime:
    """ONNX Runtime, for models of the framework `torch`."""

    name = "onnxruntime"
    frameworks = FRAMEWORKS
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
            harness.Unsupported: no execution provider fits the device, or the model cannot be exported in the dtype.
            harness.HarnessError: the model itself fails, its parameters do not fit the graph, or an export died.
        """
        from harness_onnx.session import DeviceSession, Figures, HostSession, has_memory

        if options.dtype not in ("float32", "float64"):
            raise harness.Unsupported(f"runtime 'onnxruntime' takes float32 and float64, not {options.dtype}")
        provider, kind, index = find_provider(options.device)
        graph, export_seconds = filled_graph(self.name, model, weights, options)

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
        figures = Figures(export_seconds, graph.ByteSize())
        if has_memory(kind, int(index)):
            return harness.ByLength(DeviceSession(session, model.architecture, options, figures, (kind, int(index))))
        return harness.ByLength(HostSession(session, model.architecture, options, figures))


def find_provider(device: str) -> tuple[str, str, str]:
    """The execution provider for a device, the device's kind and its number.

    `cuda:1` is the provider whose name begins with CUDA and the number 1. Every provider ONNX Runtime was built with
    can be named so.

    Raises:
        harness.Unsupported: there is none.
    """
    import onnxruntime  # type: ignore[import-untyped]

    kind, _, index = device.partition(":")
    providers = {name.removesuffix("ExecutionProvider").lower(): name for name in onnxruntime.get_available_providers()}
    if kind not in providers or not (index or "0").isdecimal():
        raise harness.Unsupported(
            f"ONNX Runtime has no execution provider for device '{device}', only for {', '.join(sorted(providers))}; "
            "install the build of ONNX Runtime that has it"
        )
    return providers[kind], kind, index or "0"


def filled_graph(
    runtime: str, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
) -> tuple[onnx.ModelProto, float]:
    """The model's proved graph with these weights in it, and how many seconds its export was waited for.

    It is what every runtime of exported graphs begins with.

    Args:
        runtime: the name of the runtime that asks, for messages.
        model, weights, options: as for `OnnxRuntime.open`.

    Raises:
        harness.Unsupported, harness.HarnessError: as `OnnxRuntime.open`.
    """
    if model.framework not in FRAMEWORKS:
        raise harness.Unsupported(f"runtime '{runtime}' takes torch models; '{model.name}' is {model.framework}")
    graph, export_seconds = load_graph(model, options)
    layer_weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
    parameters = model.to_parameters(layer_weights)
    try:
        fill(graph, parameters)
    except harness.HarnessError as error:
        raise harness.HarnessError(f"model '{model.name}': to_parameters does not fit: {error}") from error
    forgotten = sorted(parameter_shapes(graph).keys() - parameters.keys())
    if forgotten:
        raise harness.HarnessError(f"model '{model.name}': to_parameters gives no {', '.join(forgotten)}")
    return graph, export_seconds


def load_graph(model: harness.Model, options: harness.SessionOptions) -> tuple[onnx.ModelProto, float]:
    """The model's proved graph, kept in `cache_dir` if there is one, and how many seconds its export was waited for.

    Raises:
        harness.Unsupported, harness.HarnessError: as `OnnxRuntime.open`. The text names a log, which stays there.
    """
    if options.cache_dir is not None:
        options.cache_dir.mkdir(parents=True, exist_ok=True)
        found = exported(model, options, options.cache_dir)
        return read(found.path), found.seconds
    folder = Path(tempfile.mkdtemp(prefix="harness-onnx-"))
    found = exported(model, options, folder)
    graph = read(found.path)
    shutil.rmtree(folder)  # not after an error: the log is in it
    return graph, found.seconds


def exported(model: harness.Model, options: harness.SessionOptions, folder: Path) -> Export:
    """The model's proved graph in a folder, exporting it first if it is not there.

    Of several processes one does so and the others wait for it, where files can be locked. Where not, each works in a
    folder of its own and moves whole files into place, the graph last. A verdict that the model cannot be exported is
    kept too.

    Raises:
        harness.Unsupported, harness.HarnessError: as `OnnxRuntime.open`.
    """
    size = options.size
    versions = "-".join(importlib.metadata.version(name) for name in VERSIONS)
    key = f"{model.name}-{size.input_size}x{size.hidden_size}x{size.num_layers}-{options.dtype}-{versions}"
    graph, verdict = folder / f"{key}.onnx", folder / f"{key}.verdict.json"
    seconds = 0.0
    if not graph.exists() and not verdict.exists():
        began = perf_counter()
        with alone(folder / f"{key}.lock"):
            if not graph.exists() and not verdict.exists():
                export_into(model, options, folder, key)
        seconds = perf_counter() - began
    if graph.exists():
        return Export(graph, seconds)
    found = json.loads(verdict.read_text())
    kind = harness.Unsupported if found["unsupported"] else harness.HarnessError
    raise kind(f"model '{model.name}': {found['reason']}; log: {folder / key}.log")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which ends with this process at the latest."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def export_into(model: harness.Model, options: harness.SessionOptions, folder: Path, key: str) -> None:
    """Export, and move what came of it into the folder, the graph or the verdict last; a log is there in any case.

    Raises:
        harness.HarnessError: it took too long, or died without a verdict.
    """
    log = folder / f"{key}.log"
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as work:
        try:
            export(model, options, Path(work))
        except harness.HarnessError as error:
            raise harness.HarnessError(f"{error}; its log is {log}") from error
        finally:
            os.replace(Path(work, "export.log"), log)
        for name, suffix in (("record.json", ".json"), ("verdict.json", ".verdict.json"), ("graph.onnx", ".onnx")):
            if Path(work, name).exists():
                os.replace(Path(work, name), folder / f"{key}{suffix}")


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
