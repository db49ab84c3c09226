"""The null model does nothing, correctly."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import harness_null
import numpy as np
import pytest

from harness import Inputs, LayerSize

pytestmark = pytest.mark.filterwarnings("error")

SIZE = LayerSize(input_size=3, hidden_size=4, num_layers=2)
X = np.ones((2, 5, 3), np.float32)
STATE = (np.full((2, 2, 4), 2, np.float32), np.full((2, 2, 4), 3, np.float32))


def layer() -> Any:
    (model,) = harness_null.harness_models()
    return model.build(input_size=3, hidden_size=4, num_layers=2)


def test_the_answer_is_zero() -> None:
    y, _ = layer()(X)
    assert y.shape == (2, 5, 4)
    assert y.dtype == np.float32
    assert not y.any()


def test_a_state_comes_back_as_it_went_in() -> None:
    _, (h, c) = layer()(X, STATE)
    np.testing.assert_array_equal(h, STATE[0])
    np.testing.assert_array_equal(c, STATE[1])


def test_without_a_state_the_state_is_zero() -> None:
    _, (h, c) = layer()(X)
    assert h.shape == c.shape == (2, 2, 4)
    assert not h.any()
    assert not c.any()


@pytest.mark.parametrize("state", [None, STATE])
def test_the_model_agrees_with_its_oracle(state: Any) -> None:
    expected = harness_null.NULL.reference({}, Inputs(X, state), SIZE)
    y, parts = layer()(X, state)
    for got, wanted in zip((y, *parts), (expected.y, *expected.state), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def test_it_is_found_by_the_name_null() -> None:
    (model,) = harness_null.harness_models()
    assert (model.name, model.framework, model.architecture.name) == ("null", "numpy", "null")


def test_importing_the_plugin_imports_no_numpy() -> None:
    code = "import sys, harness_null; harness_null.harness_models(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
