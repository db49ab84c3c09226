"""One arm as the other tools time it: a pytest-benchmark test, and a pyperf script when run by itself.

Which arm, the variable `TRUTH_ARM` says: a workload and an arm (`numpy +2%`), or `empty` for a call that does nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run by tools that do not know where it lies

from benchmarks.workloads import WORKLOADS, opened_call

VARIABLE = "TRUTH_ARM"
EMPTY = "empty"


def nothing() -> None:
    """The empty call."""


def chosen_call() -> Callable[[], Any]:
    """The call that the environment variable names."""
    name, _, arm = os.environ[VARIABLE].partition(" ")
    if name == EMPTY:
        return nothing
    return opened_call(WORKLOADS[name], WORKLOADS[name].arm(arm))


def test_arm(benchmark: Any) -> None:
    benchmark(chosen_call())


def main() -> None:
    """Let pyperf time it; only its workers open the session."""
    runner = importlib.import_module("pyperf").Runner()  # an optional package
    runner.bench_func("arm", chosen_call() if runner.parse_args().worker else nothing)


if __name__ == "__main__":
    main()
