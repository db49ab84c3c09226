"""Versions and requirements mean what pip takes them for."""

from __future__ import annotations

import importlib.util
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError
from harness.versions import asked_version, canonical, order, require, without_pins

IN_ORDER = ["0.9", "1.9", "1.10.dev1", "1.10a1", "1.10rc1", "1.10", "1.10.post1", "1.10.1", "2!0.1"]


def test_versions_stand_in_the_order_in_which_they_came_and_what_is_none_stands_last() -> None:
    assert sorted(["unknown", *reversed(IN_ORDER), "a|b"], key=order) == [*IN_ORDER, "a|b", "unknown"]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))))
def test_numbers_are_compared_as_numbers(parts: list[tuple[int, int, int]]) -> None:
    found = sorted((".".join(map(str, part)) for part in parts), key=order)
    assert [tuple(map(int, version.split("."))) for version in found] == sorted(parts)


@given(st.lists(st.text(), min_size=2))
def test_any_text_has_a_place(texts: list[str]) -> None:
    assert all(order(a) <= order(b) for a, b in pairwise(sorted(texts, key=order)))


def test_names_have_one_spelling() -> None:
    assert {canonical(name) for name in ("A.b_C", "a-b-c", "A--b..C")} == {"a-b-c"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no requirement"),
        ("a b", "is no requirement"),
        ("--index-url=https://x", "is no requirement"),
        ("a==1\n--pre", "is no requirement"),
        ("a" * 201, "longer than 200"),
        ("a==1; python_version < '3'", "not meant for this interpreter"),
    ],
)
def test_what_is_no_requirement_here_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(HarnessError, match=said) as caught:
        require(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "lowest"),
    [("a==1.31.*", "1.31"), ("a>=1.9,<1.10", "1.9"), ("a<1.10,>=1.9", "1.9"), ("a", ""), ("a @ file:///x.whl", "")],
)
def test_the_version_that_is_asked_for_is_the_lowest_that_is_named(text: str, lowest: str) -> None:
    assert asked_version(require(text)) == lowest


def test_pins_of_what_is_required_are_left_out_however_they_are_spelt_and_no_others() -> None:
    text = "# all\nnumpy==2.4.6\nTyping_Extensions==4.16.0  # pinned\n\nnumpy-typing-compat==1\nonnxruntime==1.32.0"
    kept = without_pins(text, {"typing-extensions", "onnxruntime"}, "c.txt")
    assert kept == "numpy==2.4.6\nnumpy-typing-compat==1\n"


@pytest.mark.parametrize("line", ["-c other.txt", "--pre", "numpy==2 \\"])
def test_options_in_constraints_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(HarnessError, match=r"'c\.txt', line 2: options are not read"):
        without_pins(f"a==1\n{line}\n", set(), "c.txt")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ask in (lambda: order("1"), lambda: require("a==1")):
        with pytest.raises(HarnessError, match=r"pip install 'rnn-harness\[matrix\]'"):
            ask()
