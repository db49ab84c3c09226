"""A keeper ends what its worker leaves behind, and ends as the worker did."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.engine.process_tree import is_over

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to who asks for them")
PLENTY = 60.0
KEPT = """
import os, signal, subprocess, sys, time
from harness.engine.keeper import under_a_keeper

def hide(what="sleep 600"):
    subprocess.run(["/bin/sh", "-c", f"{what} >/dev/null 2>&1 & echo $!"], env={}, start_new_session=True, check=True)

under_a_keeper()
"""


def kept(deed: str) -> subprocess.CompletedProcess[str]:
    """A program that does this under a keeper; its exit code is the keeper's."""
    command = [sys.executable, "-c", KEPT + deed]
    return subprocess.run(command, capture_output=True, text=True, start_new_session=True, timeout=PLENTY)


@pytest.mark.parametrize(
    ("deed", "code"),
    [
        ("pass", 0),
        ("sys.exit(5)", 5),
        ("os._exit(255)", 255),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGPIPE)", -signal.SIGPIPE),
        ("signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        ("os.kill(os.getpid(), 40)", -40),
        ("os.killpg(0, signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); os.killpg(0, signal.SIGTERM); sys.exit(3)", 3),
    ],
)
def test_a_keeper_ends_as_its_worker_did(deed: str, code: int) -> None:
    assert kept(deed).returncode == code


@pytest.mark.parametrize("end", ["pass", "os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_hid_itself_is_gone_when_the_keeper_is(end: str) -> None:
    done = kept(f"hide(); hide(); {end}")
    hidden = [int(number) for number in done.stdout.split()]
    assert len(hidden) == 2
    assert not any(map(psutil.pid_exists, hidden))


def test_what_is_left_by_what_was_left_is_gone_too(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    script = f"trap '' TERM HUP; /usr/bin/setsid sleep 600 & echo $! $$ > {numbers}; sleep 600"
    started = f"os.path.exists({str(numbers)!r}) and os.path.getsize({str(numbers)!r})"
    assert (
        kept(f"hide({f'/bin/sh -c {shlex.quote(script)}'!r})\nwhile not ({started}): time.sleep(0.01)").returncode == 0
    )
    left = [int(number) for number in numbers.read_text(encoding="ascii").split()]
    assert len(left) == 2
    assert not any(map(psutil.pid_exists, left))


def test_a_keeper_waits_for_its_worker_alone_and_holds_none_of_its_streams() -> None:
    command = [sys.executable, "-c", KEPT + "hide(); os.close(1); os.close(2); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        hidden = psutil.Process(int(process.stdout.read()))  # to its end: nobody else can write to it
        assert not is_over(hidden)  # its worker lives
        (worker,) = psutil.Process(process.pid).children()
        assert hidden.ppid() == worker.pid
        process.stdin.close()
        assert process.wait(PLENTY) == 0
    assert not psutil.pid_exists(hidden.pid)
