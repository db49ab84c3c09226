"""The kit asked in workers: what a name means, in which dtype, what ends a worker, and what works on."""

from __future__ import annotations

from pathlib import Path

import pytest
from strangers import World

from harness.engine.conformance import Checked, check_conformance

WORKS_ON = """
import threading
import harness
from strangers import PlainRuntime, plain_model

class Busy(PlainRuntime):
    def __init__(self): super().__init__("busy")
    def open(self, model, weights, options):
        def spin():
            while True: pass
        threading.Thread(target=spin, daemon=True).start()
        return super().open(model, weights, options)

@harness.hookimpl
def harness_runtimes(): return [Busy()]
"""
WHERE = """
import harness
from strangers import PlainRuntime

class Where(PlainRuntime):
    def __init__(self): super().__init__("where")
    def open(self, model, weights, options):
        raise harness.Unsupported(f"{options.dtype} {options.size.num_layers} {options.cache_dir.is_dir()}")

@harness.hookimpl
def harness_runtimes(): return [Where()]
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "plugins", monkeypatch)
    world.add_plain(plain_lstm="", forgetful="ignores its state")
    return world


def checked(world: World, name: str, *rules: str, dtype: str = "float32") -> list[Checked]:
    return list(check_conformance(world.catalog(), name, "cpu", dtype, rules or None))


def test_every_variant_is_checked_with_one_and_with_two_layers(world: World) -> None:
    found = checked(world, "@plain", dtype="float64")
    assert [(row.name, row.what, row.outcome.status) for row in found] == [
        ("plain-lstm@plain", "1 layer", "ok"),
        ("plain-lstm@plain", "2 layers", "ok"),
        ("forgetful@plain", "1 layer", "wrong"),
        ("forgetful@plain", "2 layers", "wrong"),
    ]


def test_a_plugin_is_checked_with_all_it_gives(world: World) -> None:
    found = checked(world, "plain", "determinism", "task_data")
    assert [(row.name, row.what) for row in found] == [
        *((f"{model}@plain", what) for model in ("plain-lstm", "forgetful") for what in ("1 layer", "2 layers")),
        ("tiny", "task"),
    ]
    assert {row.outcome.status for row in found} == {"ok"}


def test_sessions_are_opened_as_was_asked_and_may_keep_what_is_costly(world: World) -> None:
    world.add("where", WHERE)
    found = checked(world, "plain-lstm@where", "parity", dtype="float64")
    assert [(row.outcome.status, row.outcome.reason) for row in found] == [
        ("unsupported", "float64 1 True"),
        ("unsupported", "float64 2 True"),
    ]


def test_a_variant_that_works_on_after_its_calls_fails(world: World) -> None:
    world.add("busy", WORKS_ON)
    for row in checked(world, "plain-lstm@busy", "determinism"):
        assert row.outcome.status == "failed"
        assert "cores are busy after its calls have returned" in row.outcome.reason
