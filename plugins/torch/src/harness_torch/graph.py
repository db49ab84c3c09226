"""Sessions that record what a layer does on an accelerator, once for every shape, and replay it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import harness
from harness_torch.session import EagerSession, find_device, one_line, open_layer

if TYPE_CHECKING:
    from harness.contract import FloatArray

WARM_UP_CALLS = 3  # before recording, as in https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
MOST_SHAPES = 1000  # of a session

_spoilt: list[Any] = []  # graphs whose recording failed: torch's allocator goes on asking them


def open_recorded(
    runtime: str, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
) -> harness.Session:
    """A session of the recorded layer; see `Graph.open`."""
    if options.device == "cpu":
        raise harness.Unsupported(
            f"runtime '{runtime}' needs an accelerator, not '{options.device}'; choose its device"
        )
    device = find_device(f"runtime '{runtime}'", options.device)
    # torch.accelerator.Graph would be one name for all of these, but torch 2.13 has it for XPU alone
    module = torch.get_device_module(device)
    new_graph = getattr(module, f"{device.type.upper()}Graph", None)
    if new_graph is None or not hasattr(module, "graph"):
        raise harness.Unsupported(
            f"runtime '{runtime}': torch {torch.__version__} records nothing on '{options.device}'; "
            "choose another runtime, or a torch that does"
        )
    layer = open_layer(runtime, model, weights, options).eval()
    who = f"runtime '{runtime}' cannot record model '{model.name}'"
    recorder = Recorder(who, layer, device, module, new_graph)
    return harness.ByLength(GraphSession(recorder, device, options))  # packing reads the lengths on the host


class GraphSession(EagerSession):
    """Records at the first call of every shape, and replays from then on."""

    def __init__(self, recorder: Recorder, device: torch.device, options: harness.SessionOptions) -> None:
        super().__init__(recorder, device, options)
        self._recorder = recorder

    @property
    def compile_seconds(self) -> float:
        """How long recording took since the session was opened, with the calls before it that warm up."""
        return self._recorder.seconds


@dataclass(frozen=True, slots=True)
class Recording:
    """What a layer does with one shape: the graph, the tensors that it reads, and the answer that it writes."""

    graph: Any
    given: list[Tensor]
    raw: tuple[Tensor, Any]


class Recorder:
    """Calls a layer by replaying a recording of it; there is one for every shape that it was called with.

    None is ever dropped: shapes that take turns would be recorded anew within the clock. Recordings of a session share
    the memory of what is computed on the way, so one more keeps its inputs, its outputs, and the driver's list of
    kernels. A layer that meets more than `MOST_SHAPES` is refused.

    Args:
        who: begins the text of every refusal.
        layer: called as `layer(x, state)`, with tensors on the device.
        device: where.
        module: torch's own for such devices: `torch.cuda`, `torch.xpu`, ...
        new_graph: makes an empty graph of that module.
    """

    def __init__(
        self, who: str, layer: Callable[..., Any], device: torch.device, module: Any, new_graph: Callable[[], Any]
    ) -> None:
        self.seconds = 0.0
        self._who = who
        self._layer = layer
        self._device = device
        self._module = module
        self._new_graph = new_graph
        self._stream = module.Stream(device=device)  # one for all: libraries set themselves up for each anew
        self._pool: Any = None
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}

    def __call__(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The layer's answer to x (B, T, I) and a state, in tensors of its own. It does not wait.

        Raises:
            Unsupported: the layer cannot be recorded, or not so often.
        """
        given = [x, *_parts(state)]
        shapes = tuple(tensor.shape for tensor in given)
        recording = self._recordings.get(shapes)
        if recording is None:
            recording = self._recordings[shapes] = self._record(x, state)
        # A recording knows one place for its inputs and one for its outputs. Who calls it has tensors of their own, so
        # the copies are a part of every call, and are timed.
        for kept, tensor in zip(recording.given, given, strict=True):
            kept.copy_(tensor)
        recording.graph.replay()
        return _copied(recording.raw)

    def _record(self, x: Tensor, state: Any) -> Recording:
        if len(self._recordings) == MOST_SHAPES:
            raise harness.Unsupported(
                f"{self._who} at more than {MOST_SHAPES} shapes; give it fewer batches and lengths"
            )
        began = perf_counter()
        x, state = _copied((x, state))
        self._module.synchronize(self._device)  # another stream reads the copies
        with self._module.device(self._device), self._module.stream(self._stream):
            for _ in range(WARM_UP_CALLS):
                self._layer(x, state)
            graph = self._new_graph()
            raw = self._captured(graph, x, state)
        self._pool = graph.pool()
        self.seconds += perf_counter() - began
        return Recording(graph, [x, *_parts(state)], raw)

    def _captured(self, graph: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        raw: Any = None
        first: Exception | None = None  # ending a recording that failed raises another
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "The .* Graph is empty", UserWarning)
                with self._module.graph(graph, pool=self._pool, stream=self._stream):
                    try:
                        raw = self._layer(x, state)
                    except Exception as error:
                        first = error
                        raise
        except (RuntimeError, UserWarning) as error:
            _spoilt.append(graph)
            cause = first or error
            if isinstance(cause, torch.OutOfMemoryError) or not isinstance(cause, RuntimeError | UserWarning):
                raise cause from None
            raise harness.Unsupported(
                f"{self._who}: {one_line(cause)}; let it read no number on the host, or choose runtime 'eager'"
            ) from error
        return raw  # type: ignore[no-any-return]


def _parts(state: Any) -> tuple[Tensor, ...]:
    """The tensors of a state: none, one, or a tuple of them."""
    if state is None:
        return ()
    return (state,) if isinstance(state, Tensor) else tuple(state)


def _copied(pair: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    """A tensor and a state in tensors of their own."""
    first, state = pair
    if state is None or isinstance(state, Tensor):
        return first.clone(), None if state is None else state.clone()
    return first.clone(), tuple(part.clone() for part in state)
