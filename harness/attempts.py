"""Attempts to measure with certain versions of libraries: what was asked, what was there, and why there is no run.

`harness bench` writes one a version, whatever came of it, so that a version that cannot be installed is not lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.contract import MOST_REASON, HarnessError, printable
from harness.journal import read_json, write_atomically
from harness.schema import RUN_FILE

ATTEMPT_FILE = "attempt.json"
FORMAT = 1
MOST_BYTES = 2**20
MOST_REQUIREMENTS, MOST_CONFLICTS = 20, 20
MEASURED, NOT_INSTALLED, NOT_IMPORTED, NO_RUN = "measured", "not installed", "not imported", "no run"
OUTCOMES = (MEASURED, NOT_INSTALLED, NOT_IMPORTED, NO_RUN)


@dataclass(frozen=True)
class Attempt:
    """One.

    Attributes:
        path: its folder, which is that of its run if there is one.
        started: when it began, in UTC.
        requirements: what had to be installed, such as `onnxruntime==1.31.*`.
        outcome: one of `OUTCOMES`.
        reason: why there is no run; empty if there is.
        versions: of what is required, as it was found installed, by name; empty if it was not.
        conflicts: what `pip check` said of all that is installed.
    """

    path: Path
    started: datetime
    requirements: tuple[str, ...]
    outcome: str
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()


def write_attempt(attempt: Attempt) -> None:
    """Write an attempt into its folder, which is made if it is not there.

    Raises:
        OSError: it cannot be written.
    """
    facts = {
        "format": FORMAT,
        "started_utc": attempt.started.isoformat(timespec="seconds"),
        "requirements": list(attempt.requirements),
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "versions": dict(attempt.versions),
        "conflicts": list(attempt.conflicts),
    }
    attempt.path.mkdir(parents=True, exist_ok=True)
    write_atomically(attempt.path / ATTEMPT_FILE, json.dumps(facts, indent=2) + "\n")


def read_attempt(path: Path) -> Attempt | None:
    """The attempt in a folder; None if there is none. Its texts are printable, and no longer than a reason.

    Raises:
        HarnessError: it cannot be read.
    """
    file = path / ATTEMPT_FILE
    try:
        if not file.is_file():  # a pipe would be waited for
            if not os.path.lexists(file):
                return None
            raise HarnessError(f"its {ATTEMPT_FILE} is no file")
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise HarnessError(f"its {ATTEMPT_FILE} cannot be read ({error.strerror})") from error
    try:
        facts: Any = read_json(text) if len(text) <= MOST_BYTES else None
        if facts["format"] != FORMAT:
            raise HarnessError(f"its {ATTEMPT_FILE} has a format that this harness does not know")
        started = datetime.fromisoformat(facts["started_utc"])
        began = started.replace(tzinfo=UTC) if started.tzinfo is None else started.astimezone(UTC)
        outcome, requirements = facts["outcome"], _texts(facts["requirements"], MOST_REQUIREMENTS)
        if outcome not in OUTCOMES or not requirements:
            raise ValueError("it is no attempt")
        versions = {printable(name): printable(version) for name, version in facts["versions"].items()}
        if len(versions) > MOST_REQUIREMENTS:
            raise ValueError("it has versions of more than is required")
        reason, conflicts = printable(facts["reason"], MOST_REASON), _texts(facts["conflicts"], MOST_CONFLICTS)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise HarnessError(f"its {ATTEMPT_FILE} is damaged") from error
    return Attempt(path, began, requirements, outcome, reason, versions, conflicts)


def find_attempts(folder: Path) -> tuple[list[Attempt], dict[Path, str]]:
    """The attempts in a folder and below it, by the time they began, and of those that cannot be read, why not.

    What lies in a run's own folder is not looked at. Folders that cannot be read are told by `find_runs`.
    """
    found: list[Attempt] = []
    unreadable: dict[Path, str] = {}
    for name, folders, files in os.walk(folder):
        folders.sort()
        if RUN_FILE in files:
            folders.clear()
        if ATTEMPT_FILE not in files:
            continue
        try:
            if attempt := read_attempt(Path(name)):
                found.append(attempt)
        except HarnessError as error:
            unreadable[Path(name)] = str(error)
    return sorted(found, key=lambda each: (each.started, each.path)), unreadable


def _texts(values: Any, most: int) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) > most:
        raise TypeError("it is no list of so many")
    return tuple(printable(value, MOST_REASON) for value in values)
