"""Pieces of sentences: what is unknown is not said."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from harness.formatting import joined, on_device, sizes, threads


@pytest.mark.parametrize("unknown", [None, math.nan, pd.NA])
def test_sizes_and_threads_that_are_unknown_are_left_out(unknown: object) -> None:
    assert sizes(I=8, H=unknown, L=1) == "I=8 L=1"
    assert sizes(I=unknown) == threads(unknown) == ""


def test_one_thread_is_one() -> None:
    assert [threads(count) for count in (1, 2)] == ["1 thread", "2 threads"]


def test_parts_that_say_nothing_are_left_out() -> None:
    assert joined("a", None, "", "unknown", False, "b") == "a, b"
    assert joined("a", "b", by=": ") == "a: b"
    assert [on_device("t", device) for device in ("cpu", "unknown")] == ["t on cpu", "t"]
