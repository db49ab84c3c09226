"""The plugin's import is free; its variants keep every rule in the tests of the plugins whose runtimes they use."""

import pytest

import harness.testing

ELSEWHERE = pytest.mark.skip(reason="asked in the tests of the plugin that gives the runtime")

test_conformance = harness.testing.conformance("hand", marks={"*@*": [ELSEWHERE]})
