"""The plugin keeps every rule of the contract, on its own runtimes; on others', their plugins' tests ask.

A loop over time in Python, and nn.GRU, are compiled anew for every length, which takes minutes a layer:
`HARNESS_COMPILE_LOOPS=1 pytest plugins/torch/tests/test_conformance.py` asks these too.
"""

import os

import pytest

import harness.testing
from harness.catalog import discover

OTHERS = [f"*@{entry.name}" for entry in discover().entries if entry.kind == "runtime" and entry.plugin.name != "torch"]
ELSEWHERE = pytest.mark.skip(reason="asked in the tests of the plugin that gives the runtime")
LOOPS = pytest.mark.skipif("HARNESS_COMPILE_LOOPS" not in os.environ, reason="minutes a layer: HARNESS_COMPILE_LOOPS=1")

test_conformance = harness.testing.conformance(
    "torch",
    marks={
        **{pattern: [ELSEWHERE] for pattern in OTHERS},
        "torch-*lstm@compile": [pytest.mark.slow],
        "torch-*gru@compile": [pytest.mark.slow, LOOPS],
        "hand-*@compile": [pytest.mark.slow, LOOPS],
        "fused-*@compile": [pytest.mark.slow, LOOPS],
    },
)
