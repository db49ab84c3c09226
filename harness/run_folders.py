"""The runs below a folder: which there are and when they began, found out without reading what they measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.contract import HarnessError
from harness.schema import RUN_FILE
from harness.store import read_header, started


@dataclass(frozen=True, slots=True)
class Found:
    """A run, as its `run.json` tells it.

    Attributes:
        path: its folder.
        started: when it began, in UTC.
        rows: variant and scenario of every latency trial it planned, without models that compute nothing.
    """

    path: Path
    started: datetime
    rows: tuple[tuple[str, str | None], ...]


def find_runs(folder: Path) -> tuple[list[Found], dict[Path, str]]:
    """The runs in a folder and below it, by the time they began, and of those that cannot be read, why not.

    What lies in a run's own folder is not looked at.

    Raises:
        HarnessError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise HarnessError(f"'{folder}' is no folder; give one that holds runs, such as results")
    found: list[Found] = []
    unreadable: dict[Path, str] = {}

    def note(error: OSError) -> None:
        unreadable[Path(error.filename or folder)] = f"it cannot be read ({error.strerror})"

    for name, folders, files in os.walk(folder, onerror=note):
        folders.sort()
        if RUN_FILE not in files:
            continue
        folders.clear()
        path = Path(name)
        try:
            header = read_header(path)
            if (began := started(header)) is None:
                raise HarnessError(f"its {RUN_FILE} does not say when it began")
            found.append(Found(path, began, _latency_rows(header)))
        except HarnessError as error:
            unreadable[path] = str(error)
        except (AttributeError, KeyError, TypeError):
            unreadable[path] = f"its {RUN_FILE} is damaged"
    if not (found or unreadable):
        raise HarnessError(f"no run lies in '{folder}' or below it; give a folder that holds runs, such as results")
    return sorted(found, key=lambda run: (run.started, run.path)), unreadable


def _latency_rows(header: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    planned = [row for row in header["trials"] if row.get("kind") == "latency"]
    return tuple(
        (str(r["variant"]), r.get("scenario")) for r in planned if r.get("architecture") not in header["floors"]
    )
