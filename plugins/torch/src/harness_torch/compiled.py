"""Sessions of layers that `torch.compile` has compiled whole."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import torch._dynamo
import torch._inductor.config
from torch import nn
from torch._dynamo.callback import CallbackArgs, callback_handler
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

import harness
from harness_torch.session import EagerSession, find_device, one_line, open_layer

with warnings.catch_warnings():  # torch's compiler imports it when it is first needed
    warnings.filterwarnings("ignore", r"`torch\.jit\.script_method", DeprecationWarning)
    import torch.utils.mkldnn

if TYPE_CHECKING:
    from harness.contract import FloatArray

SWITCHES = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")  # with one of these torch runs everything as it is
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # torch reads it whenever it looks for compiled code
MOST_GRAPHS = 1000  # of a layer: a loop over time is another graph for every length


class Stopwatch:
    """How long torch has compiled in this process, and how often."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.graphs = 0
        self._depth = 0
        self._began = 0.0
        callback_handler.register_start_callback(self._start)
        callback_handler.register_end_callback(self._end)

    def _start(self, _: CallbackArgs) -> None:
        self._depth += 1
        if self._depth == 1:
            self._began = perf_counter()

    def _end(self, _: CallbackArgs) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += perf_counter() - self._began
            self.graphs += 1


STOPWATCH = Stopwatch()


def open_compiled(
    runtime: str, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
) -> harness.Session:
    """A session of the compiled layer; see `Compile.open`."""
    for name in SWITCHES:
        if os.environ.get(name, "0") not in ("", "0"):
            raise harness.Unsupported(f"runtime '{runtime}': {name} is set, so torch compiles nothing; unset it")
    layer = open_layer(runtime, model, weights, options).eval()
    session = CompiledSession(runtime, model, layer, find_device(f"runtime '{runtime}'", options.device), options)
    return harness.ByLength(session)  # torch cannot compile packed sequences


class CompiledSession(EagerSession):
    """Compiles at the first call and, where the code depends on it, at the first call of another shape."""

    def __init__(
        self,
        runtime: str,
        model: harness.Model,
        layer: nn.Module,
        device: torch.device,
        options: harness.SessionOptions,
    ) -> None:
        compiled: Any = torch.compile(layer, fullgraph=True, dynamic=True)
        super().__init__(compiled, device, options)
        self._who = f"runtime '{runtime}' cannot compile model '{model.name}' whole"
        self._cache = str(options.cache_dir / f"inductor-{torch.__version__}") if options.cache_dir else _own_folder()
        self._compiled_before = STOPWATCH.seconds

    @property
    def compile_seconds(self) -> float:
        """How long torch has compiled since the session was opened."""
        return STOPWATCH.seconds - self._compiled_before

    def prepare(self, inputs: harness.Inputs) -> tuple[Any, ...]:
        """As `EagerSession.prepare`; what another layer may have changed of the compiler's settings is put back."""
        settle_compiler(self._cache)
        return super().prepare(inputs)

    def run(self, prepared: tuple[Any, ...]) -> Any:
        """Call the compiled layer and wait until the device has finished.

        Raises:
            Unsupported: torch cannot compile it in one piece.
        """
        try:
            raw = super().run(prepared)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            cause = getattr(error, "inner_exception", error)  # of the compiler behind torch's own
            raise harness.Unsupported(f"{self._who}: {one_line(cause)}") from error
        if not STOPWATCH.graphs:
            raise harness.Unsupported(f"{self._who}: torch ran it and compiled nothing")
        return raw


def settle_compiler(cache: str) -> None:
    """Compile recurrent layers too, in this process alone, and rather fail than run a layer uncompiled."""
    dynamo: Any = torch._dynamo.config
    dynamo.allow_rnn = True  # or nn.LSTM and nn.GRU are left as they are
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = MOST_GRAPHS
    torch._inductor.config.compile_threads = 1  # others would be processes that stay
    if os.environ.get(CACHE) != cache:
        os.environ[CACHE] = cache


def _own_folder() -> str:
    """A folder for what is compiled, which goes with this process."""
    if not _folders:
        _folders.append(Path(tempfile.mkdtemp(prefix="harness-inductor-")))
        atexit.register(shutil.rmtree, _folders[0], ignore_errors=True)
    return str(_folders[0])


_folders: list[Path] = []
