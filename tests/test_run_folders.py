"""The runs below a folder: all are found, in the order they began, and what cannot be read is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import ENVIRONMENT, Timed, five, write_run

from harness import HarnessError
from harness.run_folders import find_runs

LATE, EARLY = "2025-03-01T10:00:00+00:00", "2025-02-01T10:00:00+00:00"


def begun(path: Path, started: object, **header: Any) -> Path:
    facts = ENVIRONMENT | {"started_utc": started}
    return write_run(path, Timed("a@r", five(0.001)), environment=facts, **header)


def test_runs_are_found_at_any_depth_in_the_order_they_began(tmp_path: Path) -> None:
    begun(tmp_path / "a", LATE)
    begun(tmp_path / "b" / "c", EARLY)
    begun(tmp_path / "d", "2025-02-01T13:00:00+04:00")  # an hour before EARLY
    found, unreadable = find_runs(tmp_path)
    assert [run.path.relative_to(tmp_path).as_posix() for run in found] == ["d", "b/c", "a"]
    assert {run.rows for run in found} == {(("a@r", "single-stream"),)}
    assert unreadable == {}
    assert [run.path for run in find_runs(tmp_path / "a")[0]] == [tmp_path / "a"]


def test_what_a_run_holds_is_not_searched_and_models_that_compute_nothing_are_no_rows(tmp_path: Path) -> None:
    path = begun(tmp_path / "runs" / "a", LATE, floors=["lstm"])
    shutil.copytree(begun(tmp_path / "b", EARLY), path / "cache" / "copy")
    (run,), unreadable = find_runs(tmp_path / "runs")
    assert (run.path, run.rows, unreadable) == (path, (), {})


@pytest.mark.parametrize("started", [None, "yesterday", 5, ""])
def test_a_run_that_does_not_say_when_it_began_is_named(tmp_path: Path, started: object) -> None:
    begun(tmp_path / "a", started)
    found, unreadable = find_runs(tmp_path)
    assert found == []
    assert unreadable == {tmp_path / "a": "its run.json does not say when it began"}


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema_version": 1}'])
def test_a_run_that_cannot_be_read_is_named_and_harms_no_other(tmp_path: Path, damage: str) -> None:
    begun(tmp_path / "a", LATE)
    begun(tmp_path / "b", EARLY)
    (tmp_path / "b" / "run.json").write_text(damage, encoding="utf-8")
    found, unreadable = find_runs(tmp_path)
    assert [run.path.name for run in found] == ["a"]
    assert [path.name for path in unreadable] == ["b"]


@pytest.mark.parametrize("facts", [{"trials": [{"trial": "x", "kind": "latency"}]}, {"environment": []}, {"floors": 3}])
def test_a_header_of_another_form_is_damage(tmp_path: Path, facts: dict[str, object]) -> None:
    begun(tmp_path / "a", LATE)
    path = begun(tmp_path / "b", EARLY) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | facts), encoding="utf-8")
    found, unreadable = find_runs(tmp_path)
    assert [run.path.name for run in found] == ["a"]
    assert [path.name for path in unreadable] == ["b"]


def test_a_folder_without_a_run_and_one_that_is_none_say_what_to_give(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "no run lies in"), (tmp_path / "nowhere", "is no folder")):
        with pytest.raises(HarnessError, match=said) as caught:
            find_runs(path)
        assert "give " in str(caught.value)
