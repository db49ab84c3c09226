"""Runs of pytest as a user makes them: in a process of their own, in a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICKLY = ("--benchmark-max-time=0.002", "--benchmark-min-rounds=3")


@dataclass(frozen=True)
class Asked:
    """What came of it: the exit code, what was printed, and the benchmarks that were written."""

    code: int
    text: str
    benchmarks: list[dict[str, Any]]

    @property
    def outcomes(self) -> dict[str, str]:
        """Of every test its outcome, by its node id, where `-v` was given."""
        words = {"PASSED", "FAILED", "SKIPPED", "ERROR"}
        lines = [line.split() for line in self.text.splitlines() if line.startswith(("harness::", "test_"))]
        return {line[0]: line[1] for line in lines if len(line) > 1 and line[1] in words}

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def ask(folder: Path, *arguments: str, script: str = "", **files: str) -> Asked:
    """Run pytest in a folder with `--harness` or what else is given, after these files were written there.

    Args:
        folder: the current one of the run.
        arguments: of pytest.
        script: Python that calls pytest, instead of `python -m pytest`.
        files: text by name without `.py`.
    """
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    written = folder / "benchmarks.json"
    written.unlink(missing_ok=True)
    program = ["-c", script] if script else ["-m", "pytest"]
    command = [sys.executable, *program, "--rootdir=.", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = json.loads(written.read_text(encoding="utf-8"))["benchmarks"] if written.is_file() else []
    return Asked(done.returncode, done.stdout + done.stderr, found)
