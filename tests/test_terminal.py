"""The terminal: what fits is shown, what does not is named, and only a terminal gets colours and live lines."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import pytest
from made_up_runs import Timed, five, write_run

from harness.store import Run, load
from harness.summary_report import COLUMNS, REPORT_COLUMNS
from harness.terminal import Progress, print_lines, print_summary

ESCAPE = "\x1b["
GREEN, RED = f"{ESCAPE}32m", f"{ESCAPE}31m"
VARIANTS = {"quick-and-small@runtime": 0.5, "slow-and-large@runtime": 2.0}


class Terminal(io.StringIO):
    """What a program takes for a terminal."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 100) -> Terminal:
    """From here on standard output and standard error are a terminal that knows colours."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    found = Terminal()
    monkeypatch.setattr(sys, "stdout", found)
    monkeypatch.setattr(sys, "stderr", found)
    return found


def compared(path: Path) -> Run:
    """A run with a baseline, one that is faster and one that is slower, each timed in all there is of columns."""
    timed = [Timed("a@r", five(0.001, 0.0001), {"scenario": "single-stream"})]
    timed += [Timed(name, five(0.001 * ratio, 0.0002)) for name, ratio in VARIANTS.items()]
    timed += [
        Timed(name, five(0.01, 0.001), {"scenario": scenario, "batch": 32})
        for scenario in ("offline", "training-step")
        for name in ("a@r", *VARIANTS)
    ]
    return load(write_run(path / "run", *timed))


def headings(text: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith("variant")]
    return re.split(r"\s{2,}", line.strip())


# ------------------------------------------------------------------------------------------------------- the table


def test_off_a_terminal_the_table_fits_100_columns_and_what_does_not_fit_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(compared(tmp_path))
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    (said,) = [line for line in lines if line.startswith("--wide shows ")]
    shown = [name for name in REPORT_COLUMNS if re.search(rf"(^| ){name}( |$)", lines[lines.index(header_of(out))])]
    missing = said.removeprefix("--wide shows ").split(", ")
    assert "precision" in missing
    assert not set(missing) & set(shown)
    assert shown == list(COLUMNS[: len(shown)]) or set(shown) <= set(COLUMNS)


def header_of(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("variant")]
    return line


def test_wide_shows_every_column_that_says_something_whatever_the_width_and_leaves_nothing_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(compared(tmp_path), wide=True)
    out = capsys.readouterr().out
    assert len(header_of(out)) > 100
    for name in ("precision", "end-to-end vs baseline", "offline", "training step", "offline seq/s"):
        assert name in header_of(out)
    assert "--wide shows" not in out
    assert len([line for line in out.splitlines() if line.startswith("quick-and-small@runtime ")]) == 1


@pytest.mark.parametrize("columns", [60, 80, 100, 150])
def test_on_a_terminal_the_table_is_as_wide_as_it_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    run = compared(tmp_path)
    terminal = on_a_terminal(monkeypatch, columns)
    print_summary(run)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in terminal.getvalue().splitlines()]
    table = [line for line in lines if line.startswith(("variant", "a@r", *VARIANTS))]
    assert max(map(len, table)) <= columns
    (said,) = [line for line in lines if line.startswith("--wide shows ")]
    assert ("offline seq/s" in said or said.endswith("…")) is (columns < 150)
    assert len(said) <= columns


# ------------------------------------------------------------------------------------------------------- colours


def test_on_a_terminal_faster_is_green_and_slower_is_red_and_nothing_else_is_coloured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_a_terminal(monkeypatch)
    print_summary(compared(tmp_path))
    text = terminal.getvalue()
    assert re.findall(r"\x1b\[3[0-7]m *[^\x1b]*", text) == [f"{GREEN} faster", f"{RED} slower"]


@pytest.mark.parametrize("how", ["NO_COLOR", "a pipe"])
def test_without_colours_the_words_alone_are_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    terminal = on_a_terminal(monkeypatch)
    if how == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    print_summary(compared(tmp_path))
    print_lines(["a  1.1×  slower", "b  0.9×  faster"])
    text = terminal.getvalue()
    assert GREEN not in text
    assert RED not in text
    assert {"faster", "slower"} <= set(text.split())
    assert (ESCAPE in text) is (how == "NO_COLOR")  # a terminal may still show dim text


def test_lines_are_coloured_where_a_cell_ends_with_a_verdict_and_are_otherwise_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_a_terminal(monkeypatch)
    lines = [
        "slower-lstm  1 ms  1.100× ±1.0% slower  0.9× faster",
        "a@r  900/s  0.9× carries less  1.1× carries more",
        "a@r carries more than it did",
        "the machine itself was 2 % slower in NEW",
        "x" * 300,
    ]
    print_lines(lines)
    text = terminal.getvalue()
    marked = [f"{RED}slower", f"{GREEN}faster", f"{RED}carries less", f"{GREEN}carries more"]
    assert re.findall(r"\x1b\[3[0-7]m[^\x1b]*", text) == marked
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() == lines


# ------------------------------------------------------------------------------------------------------- progress


def test_on_a_terminal_it_is_shown_what_is_running_how_far_it_is_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_a_terminal(monkeypatch)
    with Progress(quiet=False) as progress:
        progress.phase("latency", 4)
        progress.running("t, r, slice 1 of 2–4")
        assert "running: t, r, slice 1 of 2–4" in terminal.getvalue()
        progress.step("t, r, slice 1 of 2–4; widest ±2 %, target ±1 %")
        assert "widest ±2 %, target ±1 %" in terminal.getvalue()
        assert "1/4" in terminal.getvalue()
        progress.fewer(2)
        assert "1/2" in terminal.getvalue()
        before = len(terminal.getvalue())
        progress.phase("load", 1)
        assert "running" not in terminal.getvalue()[before:]
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"latency .* 1/2 \d+:\d\d:\d\d (-|\d)+:(-|\d)+:(-|\d)+", drawn)


def test_nothing_is_drawn_but_when_something_begins_or_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with Progress(quiet=False) as progress:
        progress.phase("latency", 4)
        progress.running("slice 1")
        before = terminal.getvalue()
        time.sleep(0.35)  # three times as long as rich waits between two drawings of its own accord
        assert terminal.getvalue() == before


def test_off_a_terminal_progress_is_plain_lines_and_what_is_running_is_not_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress(quiet=False) as progress:
        progress.phase("latency", 4)
        progress.running("slice 1")
        progress.step("slice 1 of 4; widest ±2 %, target ±1 %")
        progress.fewer(3)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "latency: 4 steps\n  slice 1 of 4; widest ±2 %, target ±1 %\n")


def test_quiet_says_nothing_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with Progress(quiet=True) as progress:
        progress.phase("latency", 4)
        progress.running("slice 1")
        progress.step("slice 1")
        progress.fewer(3)
    assert terminal.getvalue() == ""


def test_a_phase_without_a_step_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=False) as progress:
        progress.phase("load", 0)
        progress.phase("latency", 1)
    assert capsys.readouterr().err == "latency: 1 step\n"
