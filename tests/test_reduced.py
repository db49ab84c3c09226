"""Runtimes that compute in fewer bits: what they declare is what they are held to, and accuracy is a second proof."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from strangers import World

from harness import HarnessError
from harness.cli import main
from harness.contract import COMPUTE_DTYPES
from harness.store import Run, load
from harness.tables import records

SOURCE = """
import harness
from harness import Inputs, Outputs
from harness.rounding import rounded, rounded_arrays
from cheats import Cheat
from strangers import PlainSession

class Rounding(PlainSession):
    # multiplies what is rounded to `bits`
    bits = "bfloat16"
    compile_seconds = 1.5
    def __init__(self, layer, weights):
        weights = {name: rounded(array, self.bits).astype("float32") for name, array in weights.items()}
        super().__init__(layer, weights)
    def prepare(self, inputs):
        x, state = rounded(inputs.x, self.bits), rounded_arrays(inputs.state, self.bits)
        state = None if state is None else tuple(part.astype("float32") for part in state)
        return Inputs(x.astype("float32"), state, inputs.lengths)

class FourBits(PlainSession):
    def __init__(self, layer, weights):
        import numpy as np
        steps = {name: np.abs(array).max() / 7 for name, array in weights.items()}
        weights = {name: np.rint(a / steps[name]) * steps[name] for name, a in weights.items()}
        super().__init__(layer, weights)
    def fetch(self, raw):
        return Outputs(raw.y.astype("float32"), tuple(part.astype("float32") for part in raw.state))

class DropsRecurrence(Cheat):
    # honest to parity; a timed call leaves out the recurrent product
    def timed(self, inputs):
        kept, self._weights = self._weights, dict(self._weights)
        self._weights["weight_hh_l0"] = 0 * kept["weight_hh_l0"]
        try:
            return self.right(inputs)
        finally:
            self._weights = kept

class SwapsRows(Rounding):
    # wrong where the test split is scored, at a batch size that parity does not ask
    def fetch(self, raw):
        if len(raw.y) == 10:
            return Outputs(-raw.y, tuple(-part for part in raw.state))
        return raw

class Runtime:
    name, frameworks, description = {name!r}, frozenset({{"plain"}}), ""
    {declared}
    def open(self, model, weights, options):
        size = options.size
        layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        return {session}(layer, weights)

@harness.hookimpl
def harness_runtimes(): return [Runtime()]
"""
SUITE = """
seeds = 1
trial_seconds = 60
[latency]
scenarios = ["single-stream"]
slices = 2
instances = 2
calls = 10
seconds = 0.01
twins = 0
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path / "plugins", monkeypatch)
    found.add_plain(honest="")
    monkeypatch.chdir(tmp_path)
    return found


def add(world: World, name: str, session: str, compute_dtype: str | None) -> None:
    declared = "" if compute_dtype is None else f"compute_dtype = {compute_dtype!r}"
    head, tail = SOURCE.split("class Runtime:")
    tail = ("class Runtime:" + tail).format(name=name, session=session, declared=declared)
    world.add(name, head + tail)


def run(suite: str = SUITE) -> tuple[Result, Run]:
    Path("suite.toml").write_text(suite, encoding="utf-8")
    result = CliRunner().invoke(main, ["run", "suite.toml", "--out", "out", "--quiet"], catch_exceptions=False)
    print(result.output)  # shown if a test fails
    return result, load("out")


def rows(run: Run, runtime: str) -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in records(run.trials) if row["runtime"] == runtime}


def test_what_declares_its_format_passes_by_it_and_the_same_undeclared_is_wrong(world: World) -> None:
    add(world, "declares", "Rounding", "bfloat16")
    add(world, "hides", "Rounding", None)
    result, finished = run()
    assert result.exit_code == 1
    declares, hides = rows(finished, "declares"), rows(finished, "hides")
    assert {kind: row["status"] for kind, row in declares.items()} == dict.fromkeys(declares, "ok")
    assert {row["compute_dtype"] for row in declares.values()} == {"bfloat16"}
    assert {row["compute_dtype"] for row in hides.values()} == {"float32"}
    assert (hides["parity"]["status"], hides["latency"]["status"]) == ("wrong", "wrong")
    checks = finished.parity.merge(finished.trials, on="trial")
    yardsticks = checks.groupby("runtime")["yardstick"].unique().map(list).to_dict()
    assert yardsticks == {"declares": ["equations in bfloat16"], "hides": ["equations"], "plain": ["equations"]}
    report = (finished.path / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| honest@declares \| ok \d\.\d\d× bfloat16 \|", report)


def test_fewer_bits_than_are_declared_are_wrong(world: World) -> None:
    add(world, "rough", "FourBits", "int8")
    _, finished = run()
    assert {kind: row["status"] for kind, row in rows(finished, "rough").items()}["parity"] == "wrong"
    assert rows(finished, "rough")["latency"]["status"] == "wrong"


def test_what_passes_parity_and_loses_accuracy_is_wrong_and_is_not_timed(world: World) -> None:
    add(world, "loses", "SwapsRows", "bfloat16")
    result, finished = run()
    assert result.exit_code == 1
    found = rows(finished, "loses")
    assert found["parity"]["status"] == "ok"
    for kind in ("accuracy", "latency"):
        assert found[kind]["status"] == "wrong"
        assert found[kind]["reason"].startswith("bfloat16: its accuracy is 0.")
    assert "loses" not in set(finished.latency["variant"].str.partition("@")[2])
    (row,) = [row for row in records(finished.summary) if row["variant"] == "honest@loses"]
    assert row["score"] < 0.5  # it is still told how badly it does
    assert (row["agreeing_rows"], row["rows"]) == (0, 10)


def test_a_timed_call_without_its_recurrent_product_is_found_out_in_any_format(world: World) -> None:
    for compute_dtype in COMPUTE_DTYPES:
        add(world, f"drops-{compute_dtype}", "DropsRecurrence", compute_dtype)
    _, finished = run(SUITE.replace("seeds = 1", "seeds = 0"))
    for compute_dtype in COMPUTE_DTYPES:
        row = rows(finished, f"drops-{compute_dtype}")["latency"]
        assert (row["status"], row["reason"][:14]) == ("wrong", "audit outputs:"), row


def test_what_is_not_scored_is_named_below_the_table(world: World) -> None:
    add(world, "declares", "Rounding", "bfloat16")
    _, finished = run(SUITE.replace("seeds = 1", "seeds = 0"))
    report = (finished.path / "report.md").read_text(encoding="utf-8")
    assert "Computed in fewer bits and not scored, so proved by parity alone: honest@declares." in report


def test_a_runtime_with_a_compute_dtype_that_trains_is_refused(world: World) -> None:
    source = "import harness\nfrom strangers import PlainRuntime\n@harness.hookimpl\ndef harness_runtimes():\n"
    source += "    class Runtime(PlainRuntime):\n        compute_dtype = 'int8'\n    return [Runtime('trains')]"
    world.add("trains", source)
    (plugin,) = [plugin for plugin in world.catalog().plugins if plugin.name == "trains"]
    assert plugin.failure
    assert "runtime 'trains': its compute_dtype is of a runtime that does not train" in plugin.failure


def test_a_run_that_is_gone_on_with_still_does_not_time_what_lost_accuracy(world: World) -> None:
    add(world, "loses", "SwapsRows", "bfloat16")
    _, finished = run()
    journal = finished.path / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    (last,) = [number for number, line in enumerate(lines) if "bfloat16: its accuracy" in line and "-accuracy" in line]
    journal.write_text("".join(lines[: last + 1]), encoding="utf-8")
    result = CliRunner().invoke(main, ["run", "--resume", "out", "--quiet"])
    assert result.exit_code == 1, result.output
    latency = rows(load("out"), "loses")["latency"]
    assert (latency["status"], latency["reason"][:24]) == ("wrong", "bfloat16: its accuracy i")


def test_what_it_costs_to_start_is_a_row_a_variant_and_compiling_is_a_column(world: World) -> None:
    add(world, "declares", "Rounding", "bfloat16")
    _, finished = run()
    costs = {row["variant"]: row for row in records(finished.costs.merge(finished.trials, on="trial"))}
    assert set(costs) == {"honest@plain", "honest@declares"}
    for row in costs.values():
        assert row["open_s"] > 0
        assert row["first_call_s"] > 0
        assert (row["batch_x"], row["time_x"]) == (1, 5)
    assert costs["honest@declares"]["compile_s"] == 1.5
    assert costs["honest@plain"]["compile_s"] != costs["honest@plain"]["compile_s"]  # NaN: it does not say
    summary = {row["variant"]: row for row in records(finished.summary)}
    assert summary["honest@declares"]["compile_s"] == 1.5
    assert "| honest@declares | tiny |" in (finished.path / "report.md").read_text(encoding="utf-8")
    assert (finished.path / "tables" / "costs.csv").read_text(encoding="utf-8").startswith("trial,open_s,import_s,")


@pytest.mark.parametrize("declared", ["float32", "int4", ("int8",), 8])
def test_a_format_that_the_contract_does_not_know_is_refused_with_those_it_knows(world: World, declared: Any) -> None:
    add(world, "odd", "Rounding", declared)
    (plugin,) = [plugin for plugin in world.catalog().plugins if plugin.name == "odd"]
    assert plugin.failure
    assert "runtime 'odd': its compute_dtype must be one of bfloat16, float16, int8, or not be there" in plugin.failure
    with pytest.raises(HarnessError):
        world.catalog().runtime("odd")
