"""The environment: every fact has a name, can be stored, and one that cannot be read is left open."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from strangers import World

from harness import environment as module
from harness.environment import engine_digest, environment, interpreter, versions

FACTS = {
    *("started_utc", "command", "commit", "python", "python_implementation", "os", "machine", "cpu_model"),
    *("cpu_logical_count", "cpu_physical_count", "cpu_usable_count", "cpu_governor", "cpu_max_frequency_khz"),
    *("cpu_boost", "hypervisor", "memory_bytes", "load_average_1min", "accelerators", "versions"),
}


def test_every_fact_is_there_and_can_be_stored() -> None:
    facts = environment([], ["harness", "run"])
    assert set(facts) >= FACTS
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["command"] == ["harness", "run"]
    assert facts["memory_bytes"] > 1_000_000
    assert facts["cpu_logical_count"] >= 1
    assert datetime.fromisoformat(facts["started_utc"]).utcoffset() is not None


def test_an_interpreter_tells_its_version_and_those_and_the_commits_of_what_it_was_asked_about() -> None:
    facts = interpreter({"pluggy", "rnn-nowhere"})
    assert (facts["python"], facts["engine"]) == (platform.python_version(), engine_digest())
    assert facts["versions"] == versions(["pluggy", "rnn-nowhere"])
    assert list(facts["commits"]) == ["rnn-harness", "pluggy", "rnn-nowhere"]
    assert facts["commits"]["pluggy"] is facts["commits"]["rnn-nowhere"] is None
    assert json.loads(json.dumps(facts)) == facts


def test_a_machine_that_tells_nothing_leaves_facts_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def silent(*_: Any, **__: Any) -> Any:
        raise OSError

    class Closed(type(tmp_path)):  # type: ignore[misc]
        read_text = silent

    monkeypatch.setattr(module, "Path", Closed)
    monkeypatch.setattr(module, "CPU_FOLDER", tmp_path)
    monkeypatch.setattr(subprocess, "run", silent)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    facts = environment([], [])
    for name in ("cpu_model", "cpu_governor", "cpu_max_frequency_khz", "cpu_boost", "hypervisor", "commit"):
        assert facts[name] is None
    assert (facts["cpu_usable_count"], facts["load_average_1min"], facts["accelerators"]) == (None, None, [])


def test_a_frequency_that_is_no_number_is_left_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu0" / "cpufreq").mkdir(parents=True)
    (tmp_path / "cpu0" / "cpufreq" / "cpuinfo_max_freq").write_text("<unknown>\n", encoding="utf-8")
    (tmp_path / "cpu0" / "cpufreq" / "scaling_governor").write_text("performance\n", encoding="utf-8")
    monkeypatch.setattr(module, "CPU_FOLDER", tmp_path)
    facts = environment([], [])
    assert (facts["cpu_max_frequency_khz"], facts["cpu_governor"]) == (None, "performance")


def test_accelerators_are_named_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        text = "Card A, 550.1, 81559 MiB\nCard B, 550.1, 81559 MiB\n" if command[0] == "nvidia-smi" else ""
        return subprocess.CompletedProcess(command, 0, stdout=text)

    monkeypatch.setattr(subprocess, "run", answer)
    assert environment([], [])["accelerators"] == ["Card A, 550.1, 81559 MiB", "Card B, 550.1, 81559 MiB"]


@pytest.mark.parametrize(("changes", "ending"), [("", ""), (" M harness/stats.py\n", "+changes")])
def test_the_commit_says_whether_the_checkout_differs_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: str, ending: str
) -> None:
    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout="abc\n" if "rev-parse" in command else changes)

    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "harness" / "environment.py"))
    monkeypatch.setattr(subprocess, "run", answer)
    assert environment([], [])["commit"] == "abc" + ending


@pytest.mark.parametrize(
    "text",
    [
        "{" * 200_000,
        "[" * 200_000,
        '{"url": 3}',
        '{"url": "file:///' + "x" * 5000 + '"}',
        '{"url": "file:///\\u0000"}',
        '{"url": "file:///nowhere"' + " " * 10_000_000 + "}",
        "[]",
        "null",
        "\udcff",
    ],
)
def test_a_package_that_does_not_tell_where_it_comes_from_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    world = World(tmp_path / "plugins", monkeypatch)
    world.add("x", "")
    file = world.folder / "stranger_x-1.0.dist-info" / "direct_url.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert module.commit("stranger-x") is None


@pytest.mark.parametrize(
    ("metadata", "version"), [(None, "unknown"), (b"\xff", None), (b"Name: x\nVersion: \x1b[2J", "\\x1b[2J")]
)
def test_the_version_of_a_package_whose_metadata_cannot_be_read_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: bytes | None, version: str | None
) -> None:
    world = World(tmp_path / "plugins", monkeypatch)
    world.add("x", "")
    file = world.folder / "stranger_x-1.0.dist-info" / "METADATA"
    file.unlink()
    if metadata:
        file.write_bytes(metadata)
    assert versions(["stranger-x"]).get("stranger-x") == version


def test_versions_are_of_the_harness_the_plugins_and_what_they_require(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "plugins", monkeypatch)
    metadata = (
        "Metadata-Version: 2.1\nName: stranger-x\nVersion: 4.2\n"
        "Requires-Dist: pluggy>=1.0\nRequires-Dist: not-installed-here[a,b] (>=2)\n"
        'Requires-Dist: click; extra == "cli"\n'
    )
    world.add("x", "", metadata=metadata)
    found = versions(["stranger-x", "gone-since"])
    assert found["stranger-x"] == "4.2"
    assert found["rnn-harness"] == importlib.metadata.version("rnn-harness")
    assert found["numpy"] == importlib.metadata.version("numpy")  # the harness requires it
    assert not {"gone-since", "not-installed-here", ""} & set(found)
    assert list(found) == sorted(found)
