"""Text of strangers: any of it becomes one short line that a terminal shows as it is."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError
from harness.contract import MOST_NAME, MOST_REASON, NAME, one_line, printable

ANY_TEXT = st.text(st.characters() | st.sampled_from("\x1b\u202e\u2028\n\t\x00\ud800 "))


@given(ANY_TEXT, st.integers(1, 300))
def test_any_text_becomes_one_printable_line_of_bounded_length(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    assert shown == " ".join(shown.split())


@given(st.text(st.sampled_from("aé漢- |<`\\"), max_size=MOST_NAME))
def test_what_can_be_printed_stays(text: str) -> None:
    assert printable(text) == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("abc\u202edef", "abc\\u202edef"),
        ("one\r\n\n two\u2028three", "one two three"),
        ("\x00\x07", "\\x00\\x07"),
        ("\ud800", "\\ud800"),
        ("x" * (MOST_NAME + 1), "x" * (MOST_NAME - 1) + "…"),
        ("  ", ""),
        (3, "3"),
        (None, "None"),
    ],
)
def test_what_cannot_be_printed_is_an_escape(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_ten_megabytes_cost_no_more_than_a_few_letters() -> None:
    for text in ("x" * 10_000_000, "\x1b" * 10_000_000, " " * 10_000_000 + "x"):
        started = time.process_time()
        assert printable(text).endswith("…")
        assert time.process_time() - started < 0.1


class Mute(Exception):
    """Its text cannot be asked for."""

    def __init__(self, mood: BaseException) -> None:
        self.mood = mood

    def __str__(self) -> str:
        raise self.mood


@pytest.mark.parametrize("mood", [ValueError(), SystemExit(1), KeyboardInterrupt(), RecursionError()])
def test_an_exception_that_cannot_say_what_it_means_has_its_kind_told(mood: BaseException) -> None:
    assert one_line(Mute(mood)) == "Mute: (its text cannot be shown)"


@given(ANY_TEXT)
def test_an_exceptions_line_begins_with_its_kind_unless_it_is_meant_for_the_user(text: str) -> None:
    assert one_line(ValueError(text)) == f"ValueError: {printable(text, MOST_REASON) or 'no message'}"
    assert one_line(HarnessError(text)) == (printable(text, MOST_REASON) or "no message")


def test_an_exceptions_line_is_bounded() -> None:
    assert len(one_line(ValueError("x" * 10_000_000))) == MOST_REASON


@given(st.from_regex(NAME, fullmatch=True))
def test_a_name_is_safe_in_a_path_a_shell_and_a_table(name: str) -> None:
    assert 1 <= len(name) <= 64
    assert name not in (".", "..")
    assert name[0] not in "-."
    assert not set(name) & set("/\\ |<>`'\"$=*?@\n")
    assert re.fullmatch(NAME, f"{name}\n") is None
