"""The plugin keeps every rule of the contract; where a graph is exported first, that is slow."""

import pytest

import harness.testing

test_conformance = harness.testing.conformance("hand", marks={"*@onnxruntime": [pytest.mark.slow]})
