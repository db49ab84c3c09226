"""Options that are read by hand: what is not written as they want it is refused with how to write it."""

from __future__ import annotations

import click
import pytest

from harness import HarnessError
from harness.options import cores, listed, names, swept

CONTEXT, PARAMETER = click.Context(click.Command("run")), click.Option(["--sweep"])


def test_a_sweep_is_a_key_and_its_points_whole_numbers_among_them() -> None:
    found = swept(CONTEXT, PARAMETER, ("batch=1, 8,32", "hidden-size=64", "dtype=float32,float64"))
    assert found == {"batch": [1, 8, 32], "hidden_size": [64], "dtype": ["float32", "float64"]}
    assert swept(CONTEXT, PARAMETER, ()) is None


@pytest.mark.parametrize("text", ["batch", "batch=", "=1", "batch= "])
def test_a_sweep_without_a_key_or_points_is_refused(text: str) -> None:
    with pytest.raises(HarnessError, match=r"write KEY=A,B, such as --sweep batch=1,8,32"):
        swept(CONTEXT, PARAMETER, (text,))


def test_a_key_that_is_swept_over_twice_is_refused() -> None:
    with pytest.raises(HarnessError, match="--sweep batch is given twice; give all its points at once"):
        swept(CONTEXT, PARAMETER, ("batch=1", "batch=2"))


def test_names_are_parted_by_commas_and_an_option_that_is_not_given_is_none() -> None:
    assert names(CONTEXT, PARAMETER, "a, b,,") == ["a", "b"]
    assert names(CONTEXT, PARAMETER, None) is None


def test_lists_of_an_option_that_is_repeated_are_one_list_in_which_nothing_is_twice() -> None:
    assert listed(CONTEXT, PARAMETER, ("a, b", "c,a")) == ["a", "b", "c"]
    assert listed(CONTEXT, PARAMETER, ()) == []


@pytest.mark.parametrize("values", [("",), (",", " ")])
def test_a_list_that_is_given_and_names_nothing_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(HarnessError, match=r"^--sweep: it names nothing; write --sweep NAME$"):
        listed(CONTEXT, PARAMETER, values)


def test_cores_are_numbers_and_ranges_of_them() -> None:
    assert cores(CONTEXT, PARAMETER, "0, 2-4,7") == [0, 2, 3, 4, 7]
    assert cores(CONTEXT, PARAMETER, None) is None


@pytest.mark.parametrize("text", ["", "a", "0,", "1-", "-1", "0-x", "1.5", "²"])
def test_what_is_no_core_is_refused(text: str) -> None:
    with pytest.raises(HarnessError, match="write numbers of cores, such as --cpus 0,2-3"):
        cores(CONTEXT, PARAMETER, text)


def test_a_range_that_goes_backwards_is_refused_and_does_not_mean_all_cores() -> None:
    with pytest.raises(HarnessError, match="--cpus 0,3-1: 3-1 goes backwards; write 1-3"):
        cores(CONTEXT, PARAMETER, "0,3-1")


def test_a_range_of_more_cores_than_there_can_be_is_refused_at_once() -> None:
    with pytest.raises(HarnessError, match="more cores than any machine has"):
        cores(CONTEXT, PARAMETER, "0-99999999999999999999")
