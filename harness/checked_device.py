"""A plugin's device, whose answers are checked before anybody relies on them."""

from __future__ import annotations

import math
import numbers
import threading
from contextlib import suppress
from dataclasses import fields
from time import perf_counter_ns
from typing import Any

from harness.contract import DeviceState, HarnessError, one_line, printable

METHODS = ("drain", "mark", "elapsed_ns", "evict", "state", "energy_j")
KNOWN_SECONDS = 0.02  # which both clocks must see


class CheckedDevice:
    """A plugin's device, whose answers are checked: what is wrong is said of it, and not of who is timed there.

    Every method but `state` and `energy_j` raises HarnessError where the plugin's fails; these two say nothing then.

    Args:
        accelerator: the name of the plugin's.
        device: what it has opened.

    Raises:
        HarnessError: it is no device.
    """

    def __init__(self, accelerator: str, device: Any) -> None:
        self._who = f"accelerator '{accelerator}'"
        self._device = device
        if missing := [name for name in METHODS if not callable(getattr(device, name, None))]:
            raise HarnessError(f"{self._who}: open gave a {type(device).__name__} without {', '.join(missing)}")

    def drain(self) -> None:
        self._ask("drain")

    def mark(self) -> Any:
        return self._ask("mark")

    def elapsed_ns(self, begin: Any, end: Any) -> int:
        found = self._ask("elapsed_ns", begin, end)
        if not isinstance(found, numbers.Integral) or isinstance(found, bool) or found < 0:
            raise HarnessError(
                f"{self._who}: elapsed_ns gave {printable(found)}; it must give whole nanoseconds from 0"
            )
        return int(found)

    def evict(self) -> None:
        self._ask("evict")

    def state(self) -> DeviceState:
        told = {}
        with suppress(Exception):  # what it says of itself is no part of what was timed
            state = self._device.state()
            told = {own.name: _told(own.name, getattr(state, own.name)) for own in fields(DeviceState)}
        return DeviceState(**told)

    def energy_j(self) -> float | None:
        with suppress(Exception):
            return _number(self._device.energy_j())
        return None

    def check_clock(self) -> None:
        """Hold the clock against the host's over a wait that both see.

        Raises:
            HarnessError: it counted less than half of it, or more than twice as much.
        """
        self.drain()
        began, begin = perf_counter_ns(), self.mark()
        self.drain()
        rests = perf_counter_ns()
        threading.Event().wait(KNOWN_SECONDS)
        least = perf_counter_ns() - rests
        end = self.mark()
        self.drain()
        most = perf_counter_ns() - began
        counted = self.elapsed_ns(begin, end)
        if not least / 2 <= counted <= 2 * most:
            seen = f"{counted / 1e9:.2g} s while {(least if counted < least else most) / 1e9:.2g} s passed"
            raise HarnessError(
                f"{self._who}: its clock counted {seen}; elapsed_ns must give nanoseconds between two marks"
            )

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._device, method)(*arguments)
        except HarnessError:
            raise
        except Exception as error:  # a stranger's code
            raise HarnessError(f"{self._who}: {method} failed: {one_line(error)}") from error


def _told(name: str, value: Any) -> Any:
    """A field of a state, if it is of its type."""
    if name in ("name", "throttling"):
        return printable(value) if isinstance(value, str) else None
    return _number(value)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
