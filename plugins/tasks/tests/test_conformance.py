"""The plugin keeps every rule of the contract; where HARNESS_DATA_DIR names no folder, MNIST is downloaded."""

import pytest

import harness.testing

test_conformance = harness.testing.conformance("tasks", marks={"mnist-*": [pytest.mark.slow]})
