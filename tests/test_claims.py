"""What a session may say of itself, and what it may not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.claims import LARGEST, claims
from harness.contract import SESSION_CLAIMS, HarnessError, Session


def says(**claimed: Any) -> Any:
    return SimpleNamespace(**claimed)


class WithoutText:
    def __str__(self) -> str:
        raise ValueError("no text")


def test_a_session_that_says_nothing_claims_nothing() -> None:
    assert claims(says()) == dict.fromkeys(SESSION_CLAIMS)
    assert claims(says(**dict.fromkeys(SESSION_CLAIMS))) == dict.fromkeys(SESSION_CLAIMS)


@given(st.floats(0, LARGEST), st.integers(0, LARGEST))
def test_numbers_are_taken_as_they_are(seconds: float, size: int) -> None:
    found = claims(
        says(compile_seconds=seconds, export_seconds=size, size_bytes=size, peak_device_bytes=np.int64(size))
    )
    assert found == {
        "compile_seconds": seconds,
        "export_seconds": size,
        "size_bytes": size,
        "peak_device_bytes": size,
    }
    assert [type(value) for value in found.values()][2:] == [int, int]


def test_numbers_of_numpy_are_numbers() -> None:
    found = claims(says(compile_seconds=np.float32(0.5), size_bytes=np.uint8(7)))
    assert (found["compile_seconds"], found["size_bytes"]) == (0.5, 7)
    assert (type(found["compile_seconds"]), type(found["size_bytes"])) == (float, int)


@pytest.mark.parametrize(
    "value",
    ["soon", "1.5", b"1", float("nan"), float("inf"), -1, -0.5, 2**53 + 1, 10**400, 1e300, True, [1], {}, 1j, object()],
    ids=lambda value: repr(value).partition(" at ")[0],  # the same in every process
)
@pytest.mark.parametrize("name", SESSION_CLAIMS)
def test_what_is_no_number_from_0_on_is_refused_with_what_to_give(name: str, value: Any) -> None:
    with pytest.raises(HarnessError) as caught:
        claims(says(**{name: value}))
    text = str(caught.value)
    assert text.startswith(f"the session's {name} is '")
    assert text.endswith(f"give a number of {name.rpartition('_')[2]}, from 0 to 2**53, or None")
    assert text.isprintable()
    assert len(text) < 500


def test_bytes_are_whole_and_a_value_without_a_text_is_refused_like_any_other() -> None:
    with pytest.raises(HarnessError, match=r"size_bytes is '1\.5' \(float\); give a number of bytes"):
        claims(says(size_bytes=1.5))
    with pytest.raises(HarnessError, match=r"\(its text cannot be shown\)' \(WithoutText\)"):
        claims(says(export_seconds=WithoutText()))


def test_what_a_session_raises_when_it_is_asked_is_its_own() -> None:
    class Raises:
        @property
        def size_bytes(self) -> int:
            raise RuntimeError("the file is gone")

    session: Session = Raises()  # type: ignore[assignment]  # only its claims are asked
    with pytest.raises(RuntimeError, match="the file is gone"):
        claims(session)
