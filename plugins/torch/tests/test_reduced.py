"""The runtimes that compute in fewer bits: they do so, they say so, and nothing stays in float unnoticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from harness_torch.reduced import quantize
from torch import nn

import harness
from harness.parity import probe_weights

SIZE = harness.LayerSize(5, 6, 2)
OPTIONS = harness.SessionOptions(SIZE)


def model_of(name: str) -> harness.Model:
    return harness.discover().model(name)


def answer(runtime: str, model: harness.Model, inputs: harness.Inputs) -> harness.Outputs:
    session = harness.discover().runtime(runtime).open(model, probe_weights(model.architecture, SIZE), OPTIONS)
    return session.fetch(session.run(session.prepare(inputs)))


def inputs(batch: int = 3, time: int = 7) -> harness.Inputs:
    return harness.Inputs(np.random.default_rng(0).standard_normal((batch, time, 5)).astype(np.float32))


@pytest.mark.parametrize("name", ["torch-lstm", "torch-bigru", "fused-lstm"])
def test_every_number_that_bfloat16_gives_is_a_bfloat16(name: str) -> None:
    pytest.importorskip("harness_hand")
    outputs = answer("eager-bf16", model_of(name), inputs())
    for array in (outputs.y, *outputs.state):
        assert array.dtype == np.float32
        tensor = torch.from_numpy(array)
        assert torch.equal(tensor.bfloat16().float(), tensor)


@pytest.mark.parametrize("runtime", ["eager-bf16", "torch-int8"])
@pytest.mark.parametrize("name", ["torch-lstm", "torch-bilstm", "torch-gru", "torch-bigru"])
def test_fewer_bits_are_near_float32_and_not_the_same(runtime: str, name: str) -> None:
    model = model_of(name)
    reduced, exact = answer(runtime, model, inputs()), answer("eager", model, inputs())
    off = np.abs(reduced.y - exact.y).max()
    assert 1e-5 < off < 0.05


@pytest.mark.parametrize("runtime", ["eager-bf16", "torch-int8"])
def test_float64_is_refused(runtime: str) -> None:
    model = model_of("torch-lstm")
    weights = probe_weights(model.architecture, SIZE, "float64")
    with pytest.raises(harness.Unsupported, match=f"runtime '{runtime}' takes float32 arrays, not float64"):
        harness.discover().runtime(runtime).open(model, weights, harness.SessionOptions(SIZE, dtype="float64"))


def test_int8_is_for_the_cpu() -> None:
    model = model_of("torch-lstm")
    with pytest.raises(harness.Unsupported, match="runs on the cpu only, not on 'cuda'"):
        harness.discover().runtime("torch-int8").open(
            model, probe_weights(model.architecture, SIZE), harness.SessionOptions(SIZE, device="cuda")
        )


class Mixed(nn.Module):
    def __init__(self, *more: nn.Module) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.parts = nn.ModuleList([nn.Linear(6, 6), nn.LayerNorm(6), *more])


def test_what_is_quantised_holds_its_weights_in_int8_wherever_it_stands() -> None:
    layer: Any = quantize("torch-int8", model_of("torch-lstm"), Mixed())
    kinds = type(layer.lstm), type(layer.parts[0])
    assert kinds == (torch.ao.nn.quantized.dynamic.LSTM, torch.ao.nn.quantized.dynamic.Linear)
    weights = [layer.parts[0].weight(), *layer.lstm.get_weight().values()]
    assert [weight.dtype for weight in weights] == [torch.qint8] * 3


def test_a_weight_matrix_that_would_stay_in_float_is_refused_by_name() -> None:
    with pytest.raises(harness.Unsupported, match=r"in model 'torch-lstm' parts\.2\.weight would stay in float"):
        quantize("torch-int8", model_of("torch-lstm"), Mixed(nn.Embedding(3, 6)))


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.register_buffer("table", torch.zeros(2, 3))
        self.lookup = torch.zeros(2, 3)


def test_a_matrix_that_is_no_parameter_stays_in_float_as_well_and_is_refused() -> None:
    with pytest.raises(harness.Unsupported, match="in model 'torch-lstm' table, lookup would stay in float"):
        quantize("torch-int8", model_of("torch-lstm"), Hidden())


def test_what_they_compute_in_stands_in_their_contract() -> None:
    catalog = harness.discover()
    found = {name: getattr(catalog.runtime(name), "compute_dtype", None) for name in catalog.names("runtime")}
    assert (found["eager"], found["compile"]) == (None, None)
    assert (found["eager-bf16"], found["torch-int8"]) == ("bfloat16", "int8")
