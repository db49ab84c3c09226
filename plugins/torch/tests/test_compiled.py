"""The `compile` runtime: the layer is compiled whole or refused, and how long that took is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness_torch import compiled
from torch import Tensor, nn

import harness
from harness.parity import probe_weights

pytestmark = pytest.mark.slow
SIZE = harness.LayerSize(3, 4)


def inputs(batch: int, time: int) -> harness.Inputs:
    return harness.Inputs(np.random.default_rng(0).standard_normal((batch, time, 3)).astype(np.float32))


def open_session(model: harness.Model, folder: Path) -> Any:
    options = harness.SessionOptions(SIZE, cache_dir=folder)
    runtime = harness.discover().runtime("compile")
    return runtime.open(model, probe_weights(model.architecture, SIZE), options)


def call(session: harness.Session, given: harness.Inputs) -> harness.Outputs:
    return session.fetch(session.run(session.prepare(given)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_layer_is_compiled_once_for_every_batch_and_length_and_how_long_it_took_is_told(folder: Path) -> None:
    model = harness.discover().model("torch-lstm")
    session, eager = open_session(model, folder), harness.discover().runtime("eager")
    assert session.compile_seconds == 0.0
    for batch, time in ((2, 5), (3, 7), (4, 6)):
        exact = eager.open(model, probe_weights(model.architecture, SIZE), harness.SessionOptions(SIZE))
        expected, found = call(exact, inputs(batch, time)), call(session, inputs(batch, time))
        np.testing.assert_allclose(found.y, expected.y, rtol=0, atol=1e-6)
    taken = session.compile_seconds
    assert taken > 0
    call(session, inputs(7, 9))
    assert session.compile_seconds == taken
    assert any((folder / f"inductor-{torch.__version__}").rglob("*.so"))


class Peeks(nn.Module):
    """Looks at a number, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, state: Any = None) -> Any:
        return self.lstm(x if x.sum().item() > 1e9 else x + 0, state)


def peeks(**_: int) -> Peeks:
    return Peeks()


def prefixed(weights: Any) -> dict[str, Any]:
    return {f"lstm.{name}": array for name, array in weights.items()}


def test_a_layer_that_cannot_be_compiled_in_one_piece_is_refused_and_not_run_in_pieces(folder: Path) -> None:
    model = harness.Model("peeks", harness.LSTM, "torch", peeks, to_parameters=prefixed)
    session = open_session(model, folder)
    with pytest.raises(harness.Unsupported, match="runtime 'compile' cannot compile model 'peeks' whole: "):
        call(session, inputs(2, 3))


@pytest.mark.parametrize("name", compiled.SWITCHES)
def test_a_switch_that_keeps_torch_from_compiling_is_refused_by_name(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(harness.Unsupported, match=f"runtime 'compile': {name} is set, so torch compiles nothing"):
        open_session(harness.discover().model("torch-lstm"), folder)


def test_a_layer_that_ran_and_was_not_compiled_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda layer, **_: layer)
    monkeypatch.setattr(compiled.STOPWATCH, "graphs", 0)
    session = open_session(harness.discover().model("torch-lstm"), folder)
    with pytest.raises(harness.Unsupported, match="torch ran it and compiled nothing"):
        call(session, inputs(2, 3))


def test_what_another_layer_sets_for_the_compiler_is_put_back_before_every_call(folder: Path) -> None:
    session = open_session(harness.discover().model("torch-lstm"), folder)
    dynamo: Any = torch._dynamo.config
    dynamo.allow_rnn, dynamo.recompile_limit = False, 1
    os.environ[compiled.CACHE] = "elsewhere"
    session.prepare(inputs(2, 3))
    assert (dynamo.allow_rnn, dynamo.recompile_limit) == (True, compiled.MOST_GRAPHS)
    assert os.environ[compiled.CACHE] == str(folder / f"inductor-{torch.__version__}")


def test_a_loop_over_time_is_compiled_anew_for_a_length_and_is_as_right(folder: Path) -> None:
    pytest.importorskip("harness_hand")
    model = harness.discover().model("fused-lstm")
    session, eager = open_session(model, folder), harness.discover().runtime("eager")
    taken = [0.0]
    for batch, time in ((4, 2), (5, 2), (4, 3)):  # a batch as large as another dimension would be taken for it
        exact = eager.open(model, probe_weights(model.architecture, SIZE), harness.SessionOptions(SIZE))
        expected, found = call(exact, inputs(batch, time)), call(session, inputs(batch, time))
        np.testing.assert_allclose(found.y, expected.y, rtol=0, atol=1e-6)
        taken.append(session.compile_seconds)
    assert taken[1] > taken[0]
    assert taken[2] == taken[1]  # another batch, the same graph
    assert taken[3] > taken[2]
