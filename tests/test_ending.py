"""How a command ends: signals become one exception, once, and a stream that nobody reads costs no exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from harness.ending import Terminated, ended_by_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test leaves behind, signals are handled as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_is_inside_and_says_which_it_was(number: signal.Signals) -> None:
    signal.signal(number, signal.default_int_handler)
    with pytest.raises(Terminated) as ended, ended_by_signals():
        os.kill(os.getpid(), number)
    assert ended.value.number == number
    assert signal.getsignal(number) is signal.default_int_handler


def test_a_second_signal_does_not_disturb_who_puts_things_in_order() -> None:
    tidy = False

    def interrupted() -> None:
        nonlocal tidy
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            tidy = True

    with pytest.raises(Terminated), ended_by_signals():
        interrupted()
    assert tidy


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_full_stream_leaves_the_exit_code_as_it_is() -> None:
    code = "import sys, harness.ending as e; print('x'); e.drop_what_cannot_be_written(); sys.exit(3)"
    with open("/dev/full", "w", encoding="utf-8") as full:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        how: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "check": False, "env": kept}
        done = subprocess.run([sys.executable, "-c", code], stdout=full, **how)
    assert (done.returncode, done.stderr) == (3, "")
