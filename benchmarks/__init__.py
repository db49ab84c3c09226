"""The proof that the harness's timing can be believed; run by `python benchmarks/truth.py`, no part of the package."""
