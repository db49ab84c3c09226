"""The environment: every fact that could explain a number."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import psutil

from harness.contract import printable

MOST_URL_CHARACTERS = 100_000
CPU_FOLDER = Path("/sys/devices/system/cpu")


def environment(distributions: Iterable[str], command: list[str]) -> dict[str, Any]:
    """The facts, by name; units stand in the names; a fact that cannot be read is None.

    Args:
        distributions: the plugins' distributions; their versions and those of what they require are recorded.
        command: the command line.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "python": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "os": platform.platform(),
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpu_logical_count": os.cpu_count(),
        "cpu_physical_count": psutil.cpu_count(logical=False),
        "cpu_usable_count": len(affinity(0)) if affinity else None,
        "cpu_governor": _read(CPU_FOLDER / "cpu0/cpufreq/scaling_governor"),
        "cpu_max_frequency_khz": _number(_read(CPU_FOLDER / "cpu0/cpufreq/cpuinfo_max_freq")),
        "cpu_boost": _read(CPU_FOLDER / "cpufreq/boost"),
        "hypervisor": _hypervisor(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "accelerators": _accelerators(),
        "versions": versions(distributions),
    }


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of these distributions, of the harness, and of what they directly require."""
    names = {"rnn-harness", *distributions}
    for name in list(names):
        requirements: list[str] = []
        with contextlib.suppress(Exception):  # not installed, or its metadata cannot be read
            requirements = importlib.metadata.requires(name) or []
        names |= {
            re.split(r"[^A-Za-z0-9._-]", requirement)[0]
            for requirement in requirements
            if "extra ==" not in requirement
        }
    found: dict[str, str] = {}
    for name in sorted(names):
        with contextlib.suppress(Exception):
            found[name] = printable(importlib.metadata.version(name) or "unknown")
    return found


def _cpu_model() -> str | None:
    text = _read(Path("/proc/cpuinfo")) or ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or None


def _hypervisor() -> str | None:
    if "hypervisor" in (_read(Path("/proc/cpuinfo")) or ""):
        return _read(Path("/sys/class/dmi/id/sys_vendor")) or "unknown"
    return None


def _accelerators() -> list[str]:
    """What nvidia-smi names, driver version included; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return _run(query).splitlines()


def interpreter(distributions: Iterable[str]) -> dict[str, Any]:
    """What this interpreter is: Python's version, those of `versions`, commits and the engine's digest.

    Args:
        distributions: the plugins'.
    """
    names = sorted(set(distributions))
    return {
        "python": platform.python_version(),
        "versions": versions(names),
        "commits": {name: commit(name) for name in ("rnn-harness", *names)},
        "engine": engine_digest(),
    }


def engine_digest() -> str:
    """What tells two versions of the measuring code apart: SHA-256 over `harness/engine/*.py`."""
    digest = hashlib.sha256()
    for file in sorted((Path(__file__).resolve().parent / "engine").glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def commit(distribution: str = "rnn-harness") -> str | None:
    """The commit of the checkout a distribution was installed from, with `+changes` if it differs; else None.

    Where it was installed from stands in `direct_url.json` (PEP 610).
    """
    folder = Path(__file__).resolve().parent.parent if distribution == "rnn-harness" else None
    places = [folder] if folder else []
    try:
        text = importlib.metadata.distribution(distribution).read_text("direct_url.json") or "{}"
        url = json.loads(text[:MOST_URL_CHARACTERS])
        folder = Path(url2pathname(urlparse(url["url"]).path))
        places = [folder, *folder.parents]  # a plugin may be a part of a checkout
    except (importlib.metadata.PackageNotFoundError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        pass  # installed from an index, or not at all, or it cannot be told
    if not any(os.path.exists(place / ".git") for place in places):
        return None
    found = _run(["git", "-C", str(folder), "rev-parse", "HEAD"])
    changed = _run(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return (found + ("+changes" if changed else "")) or None


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
