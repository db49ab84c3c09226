"""The command as a process of its own, and who lives on its account."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

VARIABLE = "HARNESS_TEST_FOLDER"
PREPARED = (
    "import os, signal; os.umask(0o022); "
    "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell may have ignored it
)


@contextmanager
def folder_to_work_in(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty current folder below this one; what starts in it can be found, and is ended when it is left."""
    (folder / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "work")
        patch.setenv(VARIABLE, str(folder))
        patch.delenv("HARNESS_DATA_DIR", raising=False)
        try:
            yield patch
        finally:
            for process in living():
                process.kill()


def command(*arguments: str, before: str = "pass") -> list[str]:
    """The command line of `harness` with these arguments; the code `before` runs first."""
    return [sys.executable, "-c", f"{PREPARED}; {before}; from harness.cli import main; main()", *arguments]


def living() -> list[psutil.Process]:
    """Every living process that was started in the current `folder_to_work_in`, also indirectly."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == os.environ[VARIABLE]:
                found.append(process)
        except psutil.Error:
            continue  # gone, or somebody else's
    return psutil.wait_procs(found, timeout=1.0)[1]  # who has been killed may take a moment to be gone
