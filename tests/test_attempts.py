"""Attempts: what is written is read again, and what a stranger wrote there is text or damage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.attempts import ATTEMPT_FILE, MEASURED, NOT_INSTALLED, Attempt, find_attempts, read_attempt, write_attempt

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def attempt(path: Path, **changes: Any) -> Attempt:
    found = Attempt(path, BEGAN, ("lib==1.9.*",), NOT_INSTALLED, "No matching distribution found for lib==1.9.*")
    return replace(found, **changes)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    whole = attempt(
        tmp_path / "a" / "b", outcome=MEASURED, reason="", versions={"lib": "1.9"}, conflicts=("x needs y",)
    )
    for each in (whole, attempt(tmp_path / "c")):
        write_attempt(each)
        assert read_attempt(each.path) == each
    assert read_attempt(tmp_path) is None


def test_attempts_are_found_at_any_depth_in_the_order_they_began_and_not_within_a_run(tmp_path: Path) -> None:
    late = attempt(tmp_path / "a", started=BEGAN.replace(year=2027))
    early = attempt(tmp_path / "b" / "c")
    above = attempt(tmp_path / "b", started=BEGAN.replace(year=2028))  # which hides nothing below it
    for each in (late, early, above, attempt(tmp_path / "a" / "cache" / "copy")):
        write_attempt(each)
    (tmp_path / "a" / "run.json").touch()
    assert find_attempts(tmp_path) == ([early, late, above], {})


def test_texts_of_strangers_are_printable_and_bounded(tmp_path: Path) -> None:
    hostile = "\x1b[2J<script>\n" * 1000
    write_attempt(attempt(tmp_path, reason=hostile, versions={hostile: hostile}, conflicts=(hostile,)))
    found = read_attempt(tmp_path)
    assert found
    for text in (found.reason, *found.versions, *found.versions.values(), *found.conflicts):
        assert text.isprintable()
        assert len(text) <= 1000


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"started_utc": "yesterday"},
        {"started_utc": None},
        {"started_utc": "0001-01-01T00:00:00+14:00"},
        {"outcome": "well"},
        {"outcome": []},
        {"requirements": []},
        {"requirements": "lib"},
        {"versions": ["lib"]},
        {"conflicts": None},
        {"requirements": ["lib"] * 21},
        {"versions": {f"lib{number}": "1" for number in range(21)}},
        {"conflicts": ["x needs y"] * 21},
    ],
)
def test_a_record_of_another_form_is_named_and_harms_no_other(tmp_path: Path, change: dict[str, Any]) -> None:
    good, bad = attempt(tmp_path / "good"), attempt(tmp_path / "bad")
    for each in (good, bad):
        write_attempt(each)
    file = bad.path / ATTEMPT_FILE
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    found, unreadable = find_attempts(tmp_path)
    assert found == [good]
    assert [path.name for path in unreadable] == ["bad"]
    assert unreadable[bad.path].startswith(f"its {ATTEMPT_FILE} ")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b" " * (2**20 + 1)])
def test_what_is_no_record_at_all_is_damage(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ATTEMPT_FILE).write_bytes(text)
    with pytest.raises(HarnessError, match="is damaged"):
        read_attempt(tmp_path)


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)], ids=["folder", "pipe"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None] | None) -> None:
    if not make:
        pytest.skip("this system has no named pipes")
    make(tmp_path / ATTEMPT_FILE)
    with pytest.raises(HarnessError, match=r"its attempt\.json is no file"):
        read_attempt(tmp_path)


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / ATTEMPT_FILE).symlink_to(tmp_path / "gone")
    with pytest.raises(HarnessError, match=r"its attempt\.json is no file"):
        read_attempt(tmp_path)
