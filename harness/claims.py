"""What a session says of itself: the numbers of `SESSION_CLAIMS`, checked, because a plugin may say anything."""

from __future__ import annotations

from contextlib import suppress
from numbers import Integral, Real
from typing import Any

from harness.contract import SESSION_CLAIMS, HarnessError, Session, printable

LARGEST = 2**53  # up to here a float can count


def claims(session: Session) -> dict[str, float | None]:
    """What a session says of itself, by name; None for what it does not say. Seconds are floats, bytes are whole.

    Raises:
        HarnessError: it says something else than a number from 0 to 2**53, or of bytes one that is not whole.
        whatever else asking it raises.
    """
    return {name: _checked(name, getattr(session, name, None)) for name in SESSION_CLAIMS}


def _checked(name: str, value: Any) -> float | None:
    if value is None:
        return None
    unit = name.rpartition("_")[2]
    if isinstance(value, Integral if unit == "bytes" else Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            number: float = int(value) if isinstance(value, Integral) else float(value)
            if 0 <= number <= LARGEST:  # not so of what is not a number
                return number
    raise HarnessError(
        f"the session's {name} is '{printable(value)}' ({printable(type(value).__name__)}); "
        f"give a number of {unit}, from 0 to 2**53, or None"
    )
