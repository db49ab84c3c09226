"""The built-in suites. Reading them imports nothing heavy, so that `harness list` stays quick."""

from __future__ import annotations

import tomllib
from importlib import resources

_FOLDER = resources.files("harness.suites")


def builtin_suites() -> dict[str, str]:
    """The name and the description of each."""
    names = sorted(path.name.removesuffix(".toml") for path in _FOLDER.iterdir() if path.name.endswith(".toml"))
    return {name: tomllib.loads(builtin_text(name))["description"] for name in names}


def builtin_text(name: str) -> str:
    """The TOML text of a built-in suite."""
    return _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8")
