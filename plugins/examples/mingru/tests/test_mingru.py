"""What only this plugin promises."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from mingru.layers import MinGRU, MinGRUScan
from mingru.oracle import MINGRU

from harness import Inputs, LayerSize


def test_the_oracle_is_what_one_computes_by_hand() -> None:
    weights = {name: np.zeros(shape) for name, shape in MINGRU.weight_shapes(LayerSize(1, 1)).items()}
    weights["weight_h_l0"] += 2  # the gate is half open, the candidate twice the input
    inputs = Inputs(np.array([[[1.0], [3.0]]]), state=(np.full((1, 1, 1), 4.0),))
    outputs = MINGRU.reference(weights, inputs, LayerSize(1, 1))
    np.testing.assert_array_equal(outputs.y, [[[3.0], [4.5]]])
    np.testing.assert_array_equal(outputs.state[0], [[[4.5]]])


@pytest.mark.parametrize("time", [1, 2, 3, 8, 13, 100])
def test_the_scan_computes_what_the_loop_computes_at_any_length(time: int) -> None:
    torch.manual_seed(time)
    loop, scan = MinGRU(3, 4, 2).double(), MinGRUScan(3, 4, 2).double()
    scan.load_state_dict(loop.state_dict())
    x, state = torch.randn(2, time, 3).double(), torch.randn(2, 2, 4).double()
    torch.testing.assert_close(scan(x, state), loop(x, state))
    torch.testing.assert_close(scan(x), loop(x))


def test_importing_the_plugin_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, mingru; mingru.harness_models(); sys.exit(bool({'numpy', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
