"""An environment that somebody else made: installed wheels, nothing of this checkout, and no network."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = ("rnn_harness", "_editable_impl_rnn_harness")
LEFT_OUT = ("PYTHONPATH", "VIRTUAL_ENV", "HARNESS_PLUGINS", "HARNESS_DATA_DIR")


def build_wheels(sources: Iterable[Path], folder: Path) -> list[Path]:
    """The wheels of these projects, built with what the running environment has."""
    arguments = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    before = set(folder.glob("*.whl"))
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", *arguments, *map(str, sources)], folder)
    return sorted(set(folder.glob("*.whl")) - before)


def borrow(folder: Path) -> Path:
    """A new folder with the third parties' packages of the running environment, and none of ours or a plugin."""
    folder.mkdir(parents=True)
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(OURS) and not _is_plugin(path):
            (folder / path.name).symlink_to(path)
    return folder


class CleanEnvironment:
    """A virtual environment that borrows third parties' packages from the running one, and none of ours or a plugin."""

    def __init__(self, folder: Path, wheels: Iterable[Path]) -> None:
        self.folder = folder
        self.programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        borrowed = borrow(folder / "borrowed")
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder / "environment")], folder)
        self.python = self.programs / "python"
        (site,) = _run(
            [str(self.python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder
        ).splitlines()
        (Path(site) / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
        self.install(wheels)

    def install(self, wheels: Iterable[Path]) -> None:
        """Install wheels, and nothing that they ask for."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        _run([*pip, "install", "--quiet", "--no-deps", "--no-index", *map(str, wheels)], self.folder)

    def run(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        """What a program of the environment prints; it must end with 0."""
        return _run([str(self.programs / program), *arguments], folder or self.folder)


def _is_plugin(path: Path) -> bool:
    entry_points = path / "entry_points.txt"
    return entry_points.is_file() and "[harness]" in entry_points.read_text(encoding="utf-8")


def _run(command: list[str], folder: Path) -> str:
    variables = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    done = subprocess.run(
        command, cwd=folder, env=variables, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
