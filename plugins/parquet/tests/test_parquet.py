"""What is written as Parquet can be read again, to the last bit and with every type."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import harness_parquet
import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.cli import main

pytestmark = pytest.mark.filterwarnings("error")

RUN = Path(__file__).parents[3] / "results" / "reference" / "tutorial"
TYPES = {"int": "Int64", "float": "float64", "bool": "boolean", "text": "string"}
ARROW = {"Int64": pa.int64(), "float64": pa.float64(), "boolean": pa.bool_()}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.none() | st.integers(-(2**53), 2**53),
    "float": st.floats(),
    "bool": st.none() | st.booleans(),
    "text": st.none() | st.text(st.characters(codec="utf-8")),
}


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A table of any length, with columns of every type and any names."""
    rows = draw(st.integers(0, 5))
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True, min_size=1, max_size=6))
    columns = {}
    for name in names:
        kind = draw(st.sampled_from(sorted(TYPES)))
        values = draw(st.lists(VALUES[kind], min_size=rows, max_size=rows))
        columns[name] = np.array(values, float) if kind == "float" else pd.Series(values, dtype=TYPES[kind])
    return pd.DataFrame(columns, index=range(rows))


def written(given_tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Have the plugin's only format write what a run with these tables gives."""
    (own,) = harness_parquet.harness_report_formats()
    own.write(SimpleNamespace(tables=given_tables, schema_version=6), folder)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal in names, types and values; how a text lies in memory is pandas' own affair."""
    assert [str(kind) for kind in found.dtypes] == [str(kind) for kind in expected.dtypes]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)


@settings(deadline=None, derandomize=True, database=None)
@given(tables(), tables())
def test_any_table_comes_back_with_its_values_and_types(one: pd.DataFrame, other: pd.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written({"one": one, "other": other}, Path(folder))
        assert sorted(path.name for path in Path(folder).iterdir()) == ["one.parquet", "other.parquet"]
        same(pd.read_parquet(Path(folder, "one.parquet")), one)
        same(pd.read_parquet(Path(folder, "other.parquet")), other)


@pytest.mark.parametrize("kind", TYPES)
def test_a_column_has_its_type_where_it_is_empty(tmp_path: Path, kind: str) -> None:
    nothing = [np.nan if kind == "float" else None] * 2
    written({"t": pd.DataFrame({"a": pd.Series(nothing, dtype=TYPES[kind])})}, tmp_path)
    column = pq.read_table(tmp_path / "t.parquet").column("a")
    assert column.null_count == 2
    if kind == "text":
        assert pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    else:
        assert column.type == ARROW[TYPES[kind]]


def test_a_file_says_which_table_it_is_and_the_version_of_its_columns(tmp_path: Path) -> None:
    written({"loads": pd.DataFrame({"a": [1.0]})}, tmp_path)
    metadata = pq.read_schema(tmp_path / "loads.parquet").metadata
    assert metadata[b"rnn_harness_schema_version"] == b"6"
    assert metadata[b"rnn_harness_table"] == b"loads"


def test_the_command_writes_every_table_of_a_run_in_a_worker(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(RUN), "--format", "parquet", "--out", str(tmp_path / "out")])
    assert (result.exit_code, result.stdout) == (0, f"parquet: {tmp_path / 'out'}\n")
    expected = harness.load(RUN).tables
    assert len(expected["summary"]) > 0
    for name, table in expected.items():
        same(pd.read_parquet(tmp_path / "out" / f"{name}.parquet"), table)
    assert {path.stem for path in (tmp_path / "out").glob("*.parquet")} == set(expected)


def test_importing_the_plugin_imports_neither_pyarrow_nor_pandas() -> None:
    code = (
        "import sys, harness_parquet; harness_parquet.harness_report_formats(); "
        "sys.exit(bool({'pyarrow', 'pandas', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
