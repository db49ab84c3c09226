"""The architectures of the core: names, shapes and order of their weights."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.architectures import BIGRU, BILSTM, BUILT_IN, GRU, LSTM, weight_shapes
from harness.contract import Architecture, Inputs, LayerSize

SIZES = st.builds(LayerSize, st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
ALL = pytest.mark.parametrize("architecture", BUILT_IN, ids=lambda a: a.name)


@ALL
@given(size=SIZES)
def test_names_shapes_and_order_are_those_of_torch(architecture: Architecture, size: LayerSize) -> None:
    torch: Any = pytest.importorskip("torch")
    kind = torch.nn.GRU if architecture in (GRU, BIGRU) else torch.nn.LSTM
    layer = kind(
        size.input_size, size.hidden_size, size.num_layers, bidirectional=architecture.directions == 2, device="meta"
    )
    theirs = [(name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()]
    assert list(architecture.weight_shapes(size).items()) == theirs


@given(size=SIZES, directions=st.sampled_from([1, 2]), gates=st.sampled_from([3, 4]))
def test_the_number_of_parameters_is_the_textbooks(size: LayerSize, directions: int, gates: int) -> None:
    i, h, layers = size.input_size, size.hidden_size, size.num_layers
    first = gates * h * (i + h + 2)
    deeper = gates * h * (directions * h + h + 2)
    counted = sum(int(np.prod(shape)) for shape in weight_shapes(size, directions, gates).values())
    assert counted == directions * (first + (layers - 1) * deeper)


@ALL
@given(size=SIZES)
def test_the_oracle_takes_exactly_these_weights(architecture: Architecture, size: LayerSize) -> None:
    weights = {name: np.full(shape, 0.1) for name, shape in architecture.weight_shapes(size).items()}
    outputs = architecture.reference(weights, Inputs(np.ones((2, 3, size.input_size))), size)
    assert outputs.y.shape == (2, 3, architecture.directions * size.hidden_size)
    assert len(outputs.state) == len(architecture.state_names)
    for part in outputs.state:
        assert part.shape == (size.num_layers * architecture.directions, 2, size.hidden_size)


def test_the_summary_comes_first_in_the_state() -> None:
    assert LSTM.state_names == BILSTM.state_names == ("h", "c")
    assert GRU.state_names == BIGRU.state_names == ("h",)


def test_names_and_directions() -> None:
    assert (LSTM.name, LSTM.directions) == ("lstm", 1)
    assert (BILSTM.name, BILSTM.directions) == ("bilstm", 2)
    assert (GRU.name, GRU.directions) == ("gru", 1)
    assert (BIGRU.name, BIGRU.directions) == ("bigru", 2)
    assert BUILT_IN == (LSTM, BILSTM, GRU, BIGRU)


def test_importing_the_architectures_imports_nothing_heavy() -> None:
    """A plugin imports these at the top; importing a plugin must stay free."""
    heavy = "{'numpy', 'scipy', 'pandas', 'torch', 'onnxruntime'}"
    script = f"import sys, harness.architectures, harness.contract; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
