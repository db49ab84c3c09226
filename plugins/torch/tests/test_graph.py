"""The `graph` runtime. Without an accelerator, on the CPU as one: it records operators, and replays them in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from harness_torch import graph as recorded
from harness_torch import session as sessions
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import harness
import harness.testing
from harness.claims import claims
from harness.contract import needs_accelerator
from harness.parity import probe_weights

SIZE = harness.LayerSize(3, 4)
MODELS = ("torch-lstm", "torch-bilstm", "torch-gru", "torch-bigru")


class OperatorGraph(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What torch.cuda.CUDAGraph is, of operators on the CPU.

    While recording, nothing is computed that anybody may read: results are overwritten with NaN at its end. A replay
    computes every operator again, in the very tensors that were there when it was recorded. Reading a number on the
    host breaks the recording.
    """

    def __init__(self, log: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._log = log
        self._operators: list[tuple[Any, Any, Any, Any]] = []
        self._is_broken = False
        self.pool_given: Any = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() in ("aten::item", "aten::_local_scalar_dense"):
            self._is_broken = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand a second line")
        result = func(*args, **(kwargs or {}))
        self._operators.append((func, args, kwargs or {}, result))
        return result

    def end(self) -> None:
        if self._is_broken:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        if not self._operators:
            warnings.warn("The CUDA Graph is empty. This usually means that ...", UserWarning, stacklevel=2)
        there = {
            leaf.untyped_storage().data_ptr()
            for _, args, kwargs, _ in self._operators
            for leaf in tensors((args, kwargs))
        }
        made: set[int] = set()
        for _, args, kwargs, result in self._operators:
            came_in = {leaf.untyped_storage().data_ptr() for leaf in tensors((args, kwargs))}
            made |= {leaf.untyped_storage().data_ptr() for leaf in tensors(result)} - came_in - (there - made)
        for leaf in [leaf for *_, result in self._operators for leaf in tensors(result)]:
            if leaf.untyped_storage().data_ptr() in made and leaf.is_floating_point():
                leaf.fill_(torch.nan)

    def replay(self) -> None:
        self._log.append("replay")
        for func, args, kwargs, result in self._operators:
            for place, value in zip(tensors(result), tensors(func(*args, **kwargs)), strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)

    def pool(self) -> str:
        return "the pool"


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Accelerator:
    """The CPU as a device that records: what torch.cuda and torch.xpu have, and a log of what was asked of it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.pools: list[Any] = []
        self.graphs: list[OperatorGraph] = []

    def module(self) -> Any:
        return SimpleNamespace(
            CPUGraph=self.new_graph,
            graph=self.graph,
            Stream=lambda device: "side",
            stream=self.stream,
            device=self.device,
            synchronize=lambda device: self.log.append("synchronize"),
        )

    def new_graph(self) -> OperatorGraph:
        self.graphs.append(OperatorGraph(self.log))
        return self.graphs[-1]

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.log.append(f"at {device}")
        yield

    @contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        self.log.append(f"onto {stream}")
        try:
            yield
        finally:
            self.log.append(f"off {stream}")

    @contextmanager
    def graph(self, graph: OperatorGraph, pool: Any, stream: str) -> Iterator[None]:
        self.log.append(f"record on {stream}")
        self.pools.append(pool)
        try:
            with graph:
                yield
        finally:
            graph.end()


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    made = Accelerator()
    for module in (recorded, sessions):
        monkeypatch.setattr(module, "find_device", lambda who, name: torch.device("cpu"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: made.module())
    monkeypatch.setattr(recorded, "_spoilt", [])
    return made


def open_session(name: str | harness.Model, device: str = "recording", runtime: str = "graph") -> Any:
    model = harness.discover().model(name) if isinstance(name, str) else name
    weights = probe_weights(model.architecture, SIZE)
    return harness.discover().runtime(runtime).open(model, weights, harness.SessionOptions(SIZE, device))


def inputs(batch: int, time: int, seed: int = 0, lengths: Sequence[int] | None = None) -> harness.Inputs:
    x = np.random.default_rng(seed).standard_normal((batch, time, 3)).astype(np.float32)
    return harness.Inputs(x, None, None if lengths is None else np.array(lengths))


def call(session: harness.Session, given: harness.Inputs) -> harness.Outputs:
    return session.fetch(session.run(session.prepare(given)))


def custom(forward: Callable[[Any, Tensor, Any], Any]) -> harness.Model:
    """An LSTM whose call does something more."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.calls = 0

        def forward(self, x: Tensor, state: Any = None) -> Any:
            self.calls += 1
            return forward(self, x, state)

    def prefixed(weights: Any) -> dict[str, Any]:
        return {f"lstm.{name}": array for name, array in weights.items()}

    return harness.Model("custom", harness.LSTM, "torch", lambda **_: Layer(), to_parameters=prefixed)


@pytest.mark.parametrize("rule", [rule for rule in harness.testing.CHECKS if rule != "gradients"])
@pytest.mark.parametrize("name", MODELS)
def test_a_replayed_layer_keeps_every_rule(accelerator: Accelerator, name: str, rule: str) -> None:
    model, runtime = harness.discover().model(name), harness.discover().runtime("graph")
    if rule not in harness.testing.applicable(model, runtime):
        pytest.skip("the rule is not for it")
    harness.testing.CHECKS[rule](model, runtime, device="recording")
    assert rule == "weights_round_trip" or "replay" in accelerator.log


def test_a_shape_is_recorded_once_and_every_call_replays_it(accelerator: Accelerator) -> None:
    session, eager = open_session("torch-lstm"), open_session("torch-lstm", "cpu", "eager")
    for seed in range(4):
        given = inputs(2, 5, seed)
        np.testing.assert_allclose(call(session, given).y, call(eager, given).y, rtol=0, atol=1e-6)
    assert len(accelerator.graphs) == 1
    assert accelerator.log.count("replay") == 4


def test_another_batch_length_or_state_is_recorded_for_itself_and_all_of_them_are_kept(
    accelerator: Accelerator,
) -> None:
    session = open_session("torch-lstm")
    state = tuple(np.zeros((1, 2, 4), np.float32) for _ in range(2))
    shapes = [inputs(2, 5), inputs(3, 5), inputs(2, 6), harness.Inputs(inputs(2, 5).x, state)]
    for _ in range(3):
        for given in shapes:
            call(session, given)
    assert len(accelerator.graphs) == 4
    assert accelerator.pools == [None, *["the pool"] * 3]


def test_a_layer_is_warmed_up_on_the_stream_that_records_once_its_inputs_are_there(accelerator: Accelerator) -> None:
    def forward(layer: Any, x: Tensor, state: Any) -> Any:
        accelerator.log.append("layer")
        return layer.lstm(x, state)

    call(open_session(custom(forward)), inputs(2, 3))
    warm_up = ["layer"] * recorded.WARM_UP_CALLS
    assert accelerator.log == [
        *("synchronize", "at cpu", "onto side", *warm_up),
        *("record on side", "layer", "off side", "replay"),
    ]


def test_an_answer_is_not_written_to_by_the_next_call(accelerator: Accelerator) -> None:
    session = open_session("torch-lstm")
    first = session.run(session.prepare(inputs(2, 5, 0)))
    before = [tensor.clone() for tensor in tensors(first)]
    session.run(session.prepare(inputs(2, 5, 1)))
    for kept, was in zip(tensors(first), before, strict=True):
        assert torch.equal(kept, was)


def test_what_was_prepared_may_be_written_to_by_no_call(accelerator: Accelerator) -> None:
    session = open_session(custom(lambda layer, x, state: layer.lstm(x.mul_(2), state)))
    prepared = session.prepare(inputs(2, 5))
    first, second = session.fetch(session.run(prepared)), session.fetch(session.run(prepared))
    np.testing.assert_array_equal(prepared[0].numpy(), inputs(2, 5).x)
    np.testing.assert_array_equal(first.y, second.y)


def test_a_call_returns_when_the_device_has_finished(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: accelerator.log.append(f"wait for {device}"))
    session = open_session("torch-lstm")
    session._session._is_asynchronous = True
    call(session, inputs(2, 5))
    assert accelerator.log[-2:] == ["replay", "wait for cpu"]


def test_rows_of_different_lengths_are_recorded_a_length_at_a_time(accelerator: Accelerator) -> None:
    session, eager = open_session("torch-lstm"), open_session("torch-lstm", "cpu", "eager")
    given = inputs(3, 5, lengths=(5, 2, 5))
    np.testing.assert_allclose(call(session, given).y, call(eager, given).y, rtol=0, atol=1e-6)
    assert len(accelerator.graphs) == 2


def test_how_long_recording_took_is_told_and_replaying_adds_nothing(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 10.5, 20.0, 22.0])
    monkeypatch.setattr(recorded, "perf_counter", lambda: next(clock))
    session = open_session("torch-lstm")
    assert claims(session)["compile_seconds"] == 0.0
    call(session, inputs(2, 5))
    call(session, inputs(2, 5))
    assert claims(session)["compile_seconds"] == 0.5
    call(session, inputs(2, 6))
    assert claims(session)["compile_seconds"] == 2.5


def test_a_layer_that_reads_a_number_on_the_host_is_refused_in_one_line_by_its_first_cause(
    accelerator: Accelerator,
) -> None:
    session = open_session(custom(lambda layer, x, state: layer.lstm(x if x.sum().item() > 1e9 else x + 0, state)))
    with pytest.raises(harness.Unsupported) as caught:
        call(session, inputs(2, 3))
    assert str(caught.value) == (
        "runtime 'graph' cannot record model 'custom': CUDA error: operation not permitted when stream is capturing; "
        "let it read no number on the host, or choose runtime 'eager'"
    )
    assert accelerator.log[-1] == "off side"
    assert recorded._spoilt == accelerator.graphs


def test_a_layer_of_which_nothing_is_recorded_is_refused(accelerator: Accelerator) -> None:
    def forward(layer: Any, x: Tensor, state: Any) -> Any:
        if layer.calls == 1:
            layer.answer = layer.lstm(x, state)
        return layer.answer  # whatever x is

    with pytest.raises(harness.Unsupported, match=r"cannot record model 'custom': The CUDA Graph is empty"):
        call(open_session(custom(forward)), inputs(2, 3))


@pytest.mark.parametrize("error", [ZeroDivisionError("of its own"), torch.OutOfMemoryError("of its own")])
@pytest.mark.parametrize("at", [1, 1 + recorded.WARM_UP_CALLS])
def test_what_a_layers_own_code_raises_is_not_hidden(accelerator: Accelerator, error: Exception, at: int) -> None:
    def forward(layer: Any, x: Tensor, state: Any) -> Any:
        if layer.calls == at:
            raise error
        return layer.lstm(x, state)

    with pytest.raises(type(error), match="of its own"):
        call(open_session(custom(forward)), inputs(2, 3))


def test_more_shapes_than_can_be_kept_are_refused_and_those_that_are_kept_go_on(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MOST_SHAPES", 2)
    session = open_session("torch-lstm")
    for time in (3, 4):
        call(session, inputs(2, time))
    with pytest.raises(harness.Unsupported, match=r"cannot record model 'torch-lstm' at more than 2 shapes; give it"):
        call(session, inputs(2, 5))
    call(session, inputs(2, 3))
    assert len(accelerator.graphs) == 2


def test_a_closed_session_lets_go_of_what_it_recorded(accelerator: Accelerator) -> None:
    session = open_session("torch-lstm")
    call(session, inputs(2, 3))
    session.close()
    assert not vars(session._session)


def test_the_cpu_is_refused_in_one_line() -> None:
    with pytest.raises(
        harness.Unsupported, match=r"^runtime 'graph' needs an accelerator, not 'cpu'; choose its device$"
    ):
        open_session("torch-lstm", "cpu")
    assert needs_accelerator(harness.discover().runtime("graph"))


def test_a_device_that_is_not_here_is_refused_in_one_line() -> None:
    with pytest.raises(
        harness.Unsupported, match=r"^runtime 'graph' finds no device 'toaster' here; choose one of cpu"
    ):
        open_session("torch-lstm", "toaster")


@pytest.mark.parametrize("missing", ["CPUGraph", "graph"])
def test_an_accelerator_on_which_torch_records_nothing_is_refused_in_one_line(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    module = accelerator.module()
    delattr(module, missing)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    with pytest.raises(harness.Unsupported) as caught:
        open_session("torch-lstm")
    assert str(caught.value) == (
        f"runtime 'graph': torch {torch.__version__} records nothing on 'recording'; "
        "choose another runtime, or a torch that does"
    )


# On an accelerator

HERE = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
ON_ONE = pytest.mark.skipif(HERE is None, reason="no accelerator is here")


@ON_ONE
@pytest.mark.parametrize("rule", [rule for rule in harness.testing.CHECKS if rule != "gradients"])
@pytest.mark.parametrize("name", MODELS)
def test_a_layer_replayed_by_an_accelerator_keeps_every_rule(name: str, rule: str) -> None:
    model, runtime = harness.discover().model(name), harness.discover().runtime("graph")
    if rule not in harness.testing.applicable(model, runtime):
        pytest.skip("the rule is not for it")
    harness.testing.CHECKS[rule](model, runtime, device=str(HERE))


@ON_ONE
def test_an_accelerator_refuses_what_cannot_be_recorded_and_goes_on_recording() -> None:
    device = str(HERE)
    peeks = open_session(
        custom(lambda layer, x, state: layer.lstm(x if x.sum().item() > 1e9 else x + 0, state)), device
    )
    with pytest.raises(harness.Unsupported, match="cannot record model 'custom'"):
        call(peeks, inputs(2, 3))
    session, eager = open_session("torch-lstm", device), open_session("torch-lstm", device, "eager")
    for seed in range(3):
        given = inputs(2, 3, seed)
        np.testing.assert_allclose(call(session, given).y, call(eager, given).y, rtol=0, atol=1e-6)
    assert claims(session)["compile_seconds"] > 0  # type: ignore[operator]
