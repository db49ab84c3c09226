"""The plugin keeps every rule of the contract."""

import harness.testing

test_conformance = harness.testing.conformance("parquet")
