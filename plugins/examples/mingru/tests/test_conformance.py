"""What every plugin must pass, as tests: one for each of its variants and checks."""

import harness.testing

test_conformance = harness.testing.conformance("mingru")
