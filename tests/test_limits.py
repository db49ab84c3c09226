"""The machine's limit: bounds computed by hand, what binds, and the share that a run's tables make of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import Timed, five, trial_row, write_run

from harness import BIGRU, BILSTM, GRU, LSTM, Architecture, LayerSize
from harness.cli import main
from harness.limits import (
    BYTES,
    LIMIT_COLUMNS,
    Limit,
    Machine,
    Pass,
    limit,
    limit_columns,
    limits,
    passes,
)
from harness.report import write_report
from harness.store import Run, load
from harness.tables import records

KIB = 2**10
EVEN = Machine(1e9, {16 * KIB: 1e9})  # everything takes a nanosecond: an operation and a byte


def near(seconds: float) -> Any:
    return pytest.approx(seconds)


def bound(machine: Machine = EVEN, *parts: Pass, **changes: Any) -> Limit:
    """A layer of I=3 and H=2 with four gates, over two rows of five steps, unless said otherwise."""
    asked: dict[str, Any] = {"batch": 2, "time": 5, "dtype": "float32", "compute_dtype": "float32"} | changes
    found = limit(list(parts) or [Pass(8, 3, 2)], machine=machine, **asked)
    assert found
    return found


class TestTheBound:
    def test_is_what_the_products_take_where_that_is_longer(self) -> None:
        flops = 2 * 5 * 2 * 8 * (3 + 2)
        assert bound(Machine(1e6, {16 * KIB: 1e9})) == Limit(near(flops / 1e6), "compute")

    def test_is_what_reading_takes_where_that_is_longer(self) -> None:
        read = 5 * (8 * 2 * 4) + 8 * 3 * 4 + 5 * 2 * (3 + 2) * 4
        assert bound(Machine(1e12, {16 * KIB: 1e9})) == Limit(near(read / 1e9), "recurrent weights")

    def test_reads_input_weights_once_and_recurrent_ones_at_every_step(self) -> None:
        far = Machine(1e15, {16 * KIB: 1e9})
        longer = bound(far, Pass(8, 3, 2), time=6).bound_s - bound(far, Pass(8, 3, 2), time=5).bound_s
        assert longer == pytest.approx((8 * 2 * 4 + 2 * (3 + 2) * 4) / 1e9)
        assert bound(far, Pass(8, 300, 2), batch=1, time=1).binds == "input weights"
        assert bound(far, Pass(8, 3, 2), batch=100).binds == "inputs and outputs"

    def test_adds_up_layers_and_directions_each_with_what_binds_it(self) -> None:
        one, other = Pass(8, 3, 2), Pass(8, 4000, 2)
        alone = [bound(EVEN, part) for part in (one, other)]
        assert [own.binds for own in alone] == ["compute", "compute"]
        assert bound(EVEN, one, other) == Limit(near(sum(own.bound_s for own in alone)), "compute")
        slow = Machine(1e10, {16 * KIB: 1e9})
        mixed = bound(slow, one, other, batch=1, time=1)
        assert mixed.bound_s == pytest.approx(sum(bound(slow, p, batch=1, time=1).bound_s for p in (one, other)))
        assert mixed.binds == "input weights"

    @pytest.mark.parametrize("format_", ["bfloat16", "float16", "int8"])
    def test_in_fewer_bits_has_smaller_weights_and_no_products(self, format_: str) -> None:
        weights, moved = (5 * 8 * 2 + 8 * 3) * BYTES[format_], 5 * 2 * (3 + 2) * 4
        assert bound(Machine(1.0, {16 * KIB: 1e9}), compute_dtype=format_).bound_s == pytest.approx(
            (weights + moved) / 1e9
        )

    def test_in_float64_reads_twice_as_much(self) -> None:
        far = Machine(1e15, {16 * KIB: 1e9})
        twice = bound(far, dtype="float64", compute_dtype="float64").bound_s
        assert twice == pytest.approx(2 * bound(far).bound_s)

    def test_of_a_machine_whose_products_are_not_known_is_that_of_reading(self) -> None:
        assert bound(Machine(None, EVEN.bytes_per_s)) == bound(Machine(1e15, EVEN.bytes_per_s))

    def test_of_what_has_no_recurrent_weights_is_not_known(self) -> None:
        assert limit([], 1, 5, EVEN, "float32", "float32") is None

    @given(
        st.dictionaries(st.integers(1, 2**20), st.floats(1, 1e12), min_size=1, max_size=6),
        st.integers(1, 2**21),
        st.integers(1, 2**21),
    )
    def test_reads_a_smaller_working_set_no_slower_than_a_larger_one(
        self, rates: dict[int, float], one: int, other: int
    ) -> None:
        machine = Machine(None, rates)
        assert machine.read(min(one, other)) >= machine.read(max(one, other))
        assert all(machine.read(size) >= rate for size, rate in rates.items())

    def test_reads_at_the_speed_of_the_largest_set_measured_that_is_no_larger(self) -> None:
        machine = Machine(None, {10: 7.0, 20: 5.0, 40: 6.0, 80: 1.0})
        assert [machine.read(size) for size in (1, 10, 19, 20, 39, 40, 79, 80, 1000)] == [7, 7, 7, 6, 6, 6, 6, 1, 1]


SIZE = LayerSize(input_size=3, hidden_size=6, num_layers=2)


@pytest.mark.parametrize(
    ("architecture", "gates", "directions"), [(LSTM, 4, 1), (BILSTM, 4, 2), (GRU, 3, 1), (BIGRU, 3, 2)]
)
def test_the_passes_of_the_cores_architectures_are_their_layers_and_directions(
    architecture: Architecture, gates: int, directions: int
) -> None:
    shapes = architecture.weight_shapes(SIZE)
    found = passes({name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2})
    rows = gates * 6
    assert found == [Pass(rows, 3, 6)] * directions + [Pass(rows, 6 * directions, 6)] * directions


def test_a_wrapped_layers_names_may_begin_with_who_owns_them_and_other_matrices_do_not_count() -> None:
    shapes = {"encoder.rnn.weight_ih_l0": (8, 3), "encoder.rnn.weight_hh_l0": (8, 2), "decoder.weight_ih_l0": (8, 9)}
    shapes |= {"encoder.projection.weight": (5, 2), "weight_z_l0": (6, 3), "decoder.weight_hh_l1": (8, 2)}
    shapes |= {"weight_ih_l7": (8, 1), "weight_hh_l7": (9, 2), "weight_hr_l0": (1, 2)}
    assert passes(shapes) == [Pass(8, 3, 2)]


class TestTheShare:
    def test_is_the_bound_over_the_latency_and_its_interval_that_of_the_latency(self) -> None:
        row = limit_columns(Limit(3.0, "compute"), 6.0, 5.0, 12.0)
        assert list(row.values()) == [3.0, "compute", 0.5, 0.25, 0.6]
        assert tuple(row) == LIMIT_COLUMNS

    def test_above_one_is_not_clipped(self) -> None:
        assert limit_columns(Limit(3.0, "compute"), 2.0, 1.0, 4.0)["attainable"] == 1.5

    def test_is_unknown_where_the_latency_or_the_bound_is(self) -> None:
        row = limit_columns(Limit(3.0, "compute"), 6.0, math.nan, math.nan)
        assert row["attainable"] == 0.5
        assert math.isnan(row["attainable_low"])
        assert math.isnan(row["attainable_high"])
        none = limit_columns(None, 6.0, 5.0, 7.0)
        assert none.pop("limited_by") is None
        assert all(math.isnan(value) for value in none.values())

    def test_of_an_interval_that_reaches_to_zero_has_no_end(self) -> None:
        assert limit_columns(Limit(3.0, "compute"), 6.0, 0.0, 7.0)["attainable_high"] == math.inf


# ------------------------------------------------------------------------------------------------- from a run's tables

SHAPES = [{"matrix": "weight_ih_l0", "rows": 24, "columns": 3}, {"matrix": "weight_hh_l0", "rows": 24, "columns": 6}]


def machine_rows(**changes: Any) -> list[dict[str, Any]]:
    """Two products, of which the second is better, and reading of 16 KiB twice and of 1 MiB."""
    setting = {"device": "cpu", "dtype": "float32", "threads": 1, "flops_per_s": None, "bytes_per_s": None} | changes
    measured: list[dict[str, Any]] = [
        {"what": "flops", "working_set_bytes": 100, "flops_per_s": 1e8},
        {"what": "flops", "working_set_bytes": 200, "flops_per_s": 2e8},
        {"what": "read", "working_set_bytes": 16 * KIB, "bytes_per_s": 3e9},
        {"what": "read", "working_set_bytes": 16 * KIB, "bytes_per_s": 4e9},
        {"what": "read", "working_set_bytes": 2**20, "bytes_per_s": 1e9},
    ]
    return [setting | row for row in measured]


COMPUTE_S = 2 * 5 * 24 * (3 + 6) / 2e8  # of one row and five steps on that machine
READ_S = (5 * 24 * 6 * 4 + 24 * 3 * 4 + 5 * (3 + 6) * 4) / 4e9


def found(machine: list[dict[str, Any]], *trials: dict[str, Any], shapes: Any = SHAPES) -> dict[str, Limit]:
    parity = trial_row("0001-parity", "parity", "a@r")
    return limits(machine, [{"trial": "0001-parity", **row} for row in shapes], [parity, *trials])


LATENCY = trial_row("0002-latency", "latency", "a@r")


def test_a_latency_trial_has_the_bound_of_its_shapes_on_the_machine_at_its_best() -> None:
    assert COMPUTE_S > READ_S
    assert found(machine_rows(), LATENCY) == {"0002-latency": Limit(near(COMPUTE_S), "compute")}


def test_a_variant_has_the_shapes_that_were_seen_of_its_architecture_and_size() -> None:
    sibling = trial_row("0003-latency", "latency", "b@other")
    larger = trial_row("0004-latency", "latency", "c@r", hidden_size=7)
    other = trial_row("0005-latency", "latency", "d@r", architecture="gru")
    assert set(found(machine_rows(), LATENCY, sibling, larger, other)) == {"0002-latency", "0003-latency"}


@pytest.mark.parametrize(
    "changes",
    [
        {"scenario": "training-step"},
        {"scenario": "packed"},
        {"kind": "calibration"},
        {"device": "cuda"},
        {"dtype": "float64"},
        {"threads": 2},
        {"batch": None},
        {"compute_dtype": "float8"},
        {"caches": "cold"},
    ],
    ids=str,
)
def test_what_was_not_measured_or_is_no_forward_pass_has_no_bound(changes: dict[str, Any]) -> None:
    assert found(machine_rows(), LATENCY | changes) == {}


@pytest.mark.parametrize("name", ["bytes_per_s", "working_set_bytes", "what"])
def test_without_reading_there_is_no_bound(name: str) -> None:
    broken = [row | {name: None if name == "bytes_per_s" else math.nan} for row in machine_rows()]
    assert found(broken, LATENCY) == {}


def test_shapes_that_cannot_be_read_give_no_bound() -> None:
    assert found(machine_rows(), LATENCY, shapes=[row | {"rows": None} for row in SHAPES]) == {}
    assert found(machine_rows(), LATENCY, shapes=[row | {"matrix": 3} for row in SHAPES]) == {}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two variants, one of which computes in int8, and a training step."""
    rows = [
        Timed("a@r", five(1e-3, spread=0.01)),
        Timed("b@r", five(2.5e-6), {"compute_dtype": "int8"}),
        Timed("c@r", five(1e-3), {"scenario": "training-step", "baseline": "c@r"}),
    ]
    return load(write_run(tmp_path / "run", *rows, records=[{"machine": machine_rows()}], matrices=SHAPES))


def test_the_latency_table_has_bound_share_and_interval_at_the_compute_boundary_alone(run: Run) -> None:
    rows = {(row["variant"], row["boundary"]): row for row in records(run.latency)}
    own = rows["a@r", "compute"]
    assert (own["bound_s"], own["limited_by"]) == (pytest.approx(COMPUTE_S), "compute")
    assert own["attainable"] == pytest.approx(COMPUTE_S / own["latency_s"])
    assert own["attainable_low"] == pytest.approx(COMPUTE_S / own["latency_high_s"])
    assert own["attainable_high"] == pytest.approx(COMPUTE_S / own["latency_low_s"])
    assert own["attainable_low"] < own["attainable"] < own["attainable_high"]
    reduced = rows["b@r", "compute"]
    assert reduced["bound_s"] == pytest.approx((5 * 24 * 6 + 24 * 3 + 5 * (3 + 6) * 4) / 4e9)
    assert reduced["limited_by"] == "recurrent weights"
    for row in (rows["a@r", "end-to-end"], rows["c@r", "compute"]):
        assert math.isnan(row["bound_s"])
        assert pd.isna(row["limited_by"])


def test_the_report_says_how_far_each_row_is_from_the_limit_and_what_the_machine_attains(run: Run) -> None:
    write_report(run.path)
    text = (run.path / "report.md").read_text(encoding="utf-8")
    section = text.partition("How far from the machine's limit</summary>")[2].partition("</details>")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert "| a@r | t | single-stream | 1 | 5 | 1 ms | 10.8 µs | 1.08 % (1.06–1.1) | compute |" in lines
    shown = "| b@r | t | single-stream | 1 | 5 | 2.5 µs | 243 ns | 9.72 % (9.72–9.72) "
    assert shown + "| recurrent weights, products not counted |" in lines
    assert "| cpu | float32 | 1 | matrix products | – | 200 MFLOP/s |" in lines
    assert "| cpu | float32 | 1 | reading | 16 KiB | 4 GB/s |" in lines
    assert "| cpu | float32 | 1 | reading | 1 MiB | 1 GB/s |" in lines
    assert len(lines) == 2 + 2 + 2 + 3


def test_the_report_of_a_run_without_bounds_says_nothing_of_them(tmp_path: Path) -> None:
    write_report(write_run(tmp_path / "run", Timed("a@r", five(1e-3))))
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "How far from" not in text


# ------------------------------------------------------------------------------------------------- the real command


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two of our own models and one that does nothing, timed by the command on a small layer."""
    for name in ("harness_numpy", "harness_null", "harness_tasks"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("command")
    suite = "seeds = 0\ntasks = ['digits-rows']\nlayer = {hidden_size = 16, num_layers = 2}\n"
    suite += "[latency]\nscenarios = ['single-stream', 'offline']\nslices = 2\ninstances = 1\ncalls = 10\ntwins = 0\n"
    (folder / "suite.toml").write_text(suite, encoding="utf-8")
    chosen = ["--plugins", "null,numpy,tasks", "--models", "null,numpy-lstm,numpy-bilstm"]
    arguments = ["run", str(folder / "suite.toml"), *chosen, "--quiet", "--out", str(folder / "run")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return load(folder / "run")


def test_the_command_measures_the_machine_from_its_first_cache_to_its_memory(measured: Run) -> None:
    machine = measured.machine
    assert set(machine[["device", "dtype", "threads"]].itertuples(index=False, name=None)) == {("cpu", "float32", 1)}
    sizes = machine.loc[machine["what"] == "read", "working_set_bytes"].tolist()
    assert sizes == [2**power for power in range(14, 29)]
    assert (machine.loc[machine["what"] == "flops", "flops_per_s"] > 0).sum() == 5
    assert (machine.loc[machine["what"] == "read", "bytes_per_s"] > 0).all()


@pytest.mark.parametrize(("variant", "directions"), [("numpy-lstm@numpy", 1), ("numpy-bilstm@numpy", 2)])
@pytest.mark.parametrize(("scenario", "batch"), [("single-stream", 1), ("offline", 32)])
def test_the_commands_bound_is_the_formula_over_what_it_measured(
    measured: Run, variant: str, directions: int, scenario: str, batch: int
) -> None:
    rates = measured.machine.set_index("working_set_bytes")["bytes_per_s"].dropna().sort_index()
    peak, features, hidden, time = measured.machine["flops_per_s"].max(), 8, 16, 8

    def read(size_bytes: float) -> float:
        smaller = [at for at in rates.index if at <= size_bytes]
        return float(rates[rates.index >= (smaller or [rates.index[0]])[-1]].max())

    expected = 0.0
    for inputs in (features, directions * hidden):
        u, w, moved = 4 * hidden * hidden * 4, 4 * hidden * inputs * 4, time * batch * (inputs + hidden) * 4
        flops = 2 * time * batch * 4 * hidden * (inputs + hidden)
        reading = time * u / read(u) + w / read(w) + moved / read(moved)
        expected += directions * max(flops / peak, reading)
    rows = [row for row in records(measured.latency) if (row["variant"], row["scenario"]) == (variant, scenario)]
    compute, whole = rows
    assert compute["bound_s"] == pytest.approx(expected)
    assert 0 < compute["bound_s"] < math.inf
    assert compute["attainable"] == pytest.approx(expected / compute["latency_s"])
    assert compute["limited_by"] in {"compute", "recurrent weights", "input weights", "inputs and outputs"}
    assert math.isnan(whole["bound_s"])


def test_what_computes_nothing_has_no_bound(measured: Run) -> None:
    own = measured.latency[measured.latency["variant"].str.startswith("null@")]
    assert len(own) == 4
    assert own[list(LIMIT_COLUMNS)].isna().all(axis=None)


def test_the_commands_tables_and_report_hold_the_machine(measured: Run) -> None:
    assert len(pd.read_csv(measured.path / "tables" / "machine.csv")) == len(measured.machine) == 20
    assert len(pd.read_csv(measured.path / "tables" / "matrices.csv")) == 4 + 8
    text = (measured.path / "report.md").read_text(encoding="utf-8")
    section = text.partition("How far from the machine's limit</summary>")[2].partition("</details>")[0]
    assert section.count("numpy-lstm@numpy") == section.count("numpy-bilstm@numpy") == 2
    assert "null@" not in section
