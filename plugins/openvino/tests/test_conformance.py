"""The plugin keeps every rule of the contract; every variant exports a graph first."""

import pytest

import harness.testing

test_conformance = harness.testing.conformance("openvino", marks={"*@*": [pytest.mark.slow]})
