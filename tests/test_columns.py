"""Typed tables: every column has its type in every run, and no value of a run is lost on the way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import Timed, five, process_row, write_run

from harness import load
from harness.columns import column_type, typed
from harness.schema import LARGEST_WHOLE, TABLES

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
DTYPES = {"int": "Int64", "float": "float64", "bool": "boolean", "text": "string"}
NAMES = {"int": "rows", "float": "ratio", "bool": "is_floor", "text": "variant"}
ANYTHING = st.one_of(
    st.none(),
    st.just(pd.NA),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([np.int64(3), np.float64(0.5), np.bool_(True), 10**400, "\ud800"]),
)


def table(kind: str, *values: Any) -> pd.DataFrame:
    return pd.DataFrame({NAMES[kind]: pd.Series(list(values), dtype=object)})


def cast(kind: str, *values: Any) -> list[Any]:
    """What becomes of these values in a column of that type; None where it is empty."""
    found = typed("summary", table(kind, *values))[NAMES[kind]]
    return [None if pd.isna(value) else value for value in found]


@pytest.mark.parametrize("name", ["tutorial", "deploy"])
def test_every_value_of_a_real_run_is_there_under_its_columns_type(name: str) -> None:
    run = load(REFERENCE / name)
    assert tuple(run.tables) == TABLES
    for title, found in run.tables.items():
        raw = getattr(run, title)
        assert list(found.columns) == list(raw.columns)
        assert len(found) == len(raw)
        for column in found.columns:
            assert str(found[column].dtype) == DTYPES[column_type(title, column)], f"{title}.{column}"
            assert list(found[column].isna()) == list(raw[column].isna()), f"{title}.{column}"
            pairs = zip(found[column].dropna(), raw[column].dropna(), strict=True)
            assert all(new == old for new, old in pairs), f"{title}.{column}"


def test_a_run_in_which_nothing_is_known_has_the_same_types(tmp_path: Path) -> None:
    bare = load(write_run(tmp_path / "bare", Timed("a@r", status="failed", reason="because")))
    full = load(write_run(tmp_path / "full", Timed("a@r", five(0.001)), processes=[process_row(1)]))
    for title in TABLES:
        assert list(map(str, bare.tables[title].dtypes)) == list(map(str, full.tables[title].dtypes))
    assert bare.tables["latency"].empty


def test_what_the_run_holds_stays_as_it_was(tmp_path: Path) -> None:
    run = load(write_run(tmp_path / "run", Timed("a@r", five(0.001))))
    before = {title: getattr(run, title).copy() for title in TABLES}
    assert run.tables
    for title, raw in before.items():
        pd.testing.assert_frame_equal(getattr(run, title), raw)


@pytest.mark.parametrize("kind", DTYPES)
@given(values=st.lists(ANYTHING, max_size=4))
def test_whatever_stands_in_a_column_it_gets_its_type_and_keeps_it(kind: str, values: list[Any]) -> None:
    once = typed("summary", table(kind, *values))
    assert str(once[NAMES[kind]].dtype) == DTYPES[kind]
    assert len(once) == len(values)
    pd.testing.assert_frame_equal(typed("summary", once), once)


def test_whole_numbers_are_kept_and_what_is_none_is_empty() -> None:
    assert cast("int", 3, 3.0, np.int64(3), np.float64(3)) == [3, 3, 3, 3]
    assert cast("int", LARGEST_WHOLE, -LARGEST_WHOLE) == [LARGEST_WHOLE, -LARGEST_WHOLE]
    assert cast("int", 2.5, math.nan, math.inf, None, True, "3", 10**400, LARGEST_WHOLE + 1) == [None] * 8


def test_numbers_are_kept_infinite_ones_too_and_what_is_none_is_empty() -> None:
    assert cast("float", 0.1, 3, np.float32(0.5), math.inf, -math.inf) == [0.1, 3.0, 0.5, math.inf, -math.inf]
    assert cast("float", math.nan, None, pd.NA, True, "3", 10**400) == [None] * 6


def test_truths_are_kept_and_what_is_none_is_empty() -> None:
    assert cast("bool", True, np.bool_(False)) == [True, False]
    assert cast("bool", 1, 0.0, "True", None, math.nan) == [None] * 5


def test_texts_are_kept_and_what_is_none_is_shown_as_one() -> None:
    assert cast("text", "ä\n", "", 3, ["a"], "\ud800") == ["ä\n", "", "3", "['a']", "\\ud800"]
    assert cast("text", None, math.nan, pd.NA) == [None] * 3


def test_one_name_may_mean_two_things_in_two_tables() -> None:
    assert column_type("loads", "misses") == "int"  # how many
    assert column_type("capacity", "misses") == "float"  # a share
