"""Settings of the core's tests: reproducible property tests, and the folder's own modules importable."""

from __future__ import annotations

import compileall
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

FOLDER = Path(__file__).parent

sys.path.insert(0, str(FOLDER))  # wrong_models.py, under pytest's importlib mode
for folder in (FOLDER.parent / "harness", FOLDER):  # hundreds of workers import these, and may write no bytecode
    compileall.compile_dir(folder, quiet=2)

settings.register_profile("harness", deadline=None, derandomize=True, database=None)
settings.load_profile("harness")


@pytest.fixture(autouse=True, scope="session")
def no_loss_of_power() -> Iterator[None]:
    """No test can take the power away, so none of this process's files has to reach the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, too
        yield


@pytest.fixture(autouse=True, scope="session")
def nobodys_worker() -> Iterator[None]:
    """A pytest that a test starts takes no part in this one, which may itself be one of several (pytest-xdist)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
            patch.delenv(name)
        yield
