"""How a command ends: by signals in good order, and without a word that nobody can read."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """The command was asked to end by a signal."""

    def __init__(self, number: int) -> None:
        self.number = number


def drop_what_cannot_be_written() -> None:
    """What is left in a stream that cannot be written would give the interpreter's end an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # none at all, full, closed
            with contextlib.suppress(AttributeError, OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP ends what is inside; those that follow meet it while it puts things in order.

    A signal that is ignored, as SIGHUP under nohup, stays ignored.
    """
    before: dict[int, Any] = {}

    def end(number: int, frame: Any) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    for number in (getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            with contextlib.suppress(ValueError):  # not the main thread: whoever runs us there handles signals
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
