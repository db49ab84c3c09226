"""What every plugin must pass, as tests: one for each of its variants and checks."""

import pytest

import harness.testing

COMPILED = pytest.mark.skip(reason="minutes: torch.compile unrolls the loop over time, for every length anew")

test_conformance = harness.testing.conformance("mingru", marks={"*@compile": [COMPILED]})
