"""What `harness compare`, `gate`, `history` and `matrix` do, from folders to what is printed and written."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from harness.attempts import MEASURED, find_attempts
from harness.compare import compare, compare_all, gate, interleaved, parse_percent
from harness.compare_charts import comparison_charts, history_chart, matrix_chart
from harness.compare_report import comparison_document, comparison_lines, gate_document, gate_lines, no_gate_document
from harness.contract import HarnessError
from harness.document import Document, document_markdown
from harness.document_page import write_document
from harness.history import Meant, history
from harness.history_report import history_document, history_lines
from harness.journal import write_atomically
from harness.matrix import Measured, matrix, measured
from harness.matrix_report import matrix_document, matrix_lines
from harness.run_folders import find_runs
from harness.schema import RUN_FILE
from harness.sides import Side, load_side, side_of
from harness.store import load
from harness.terminal import print_lines, tell_damage
from harness.vega import Chart


def compare_paths(base: Path, news: Sequence[Path], allow_different: bool, out: Path | None) -> None:
    """Print how every further run, or file of samples, compares with the first.

    Args:
        base, news: folders of runs, or files of samples.
        allow_different: compare although the environments differ in what matters.
        out: also a file, of HTML if its name ends in `.html`, else of Markdown.

    Raises:
        HarnessError: one of them cannot be read or compared, or the file cannot be written.
    """
    sides = [_side(path) for path in (base, *news)]
    found = compare_all(sides[0], sides[1:], allow_different)
    print_lines(comparison_lines(*found))
    _write(out, comparison_document(found, intervals=True), comparison_charts(found))


def gate_paths(base: Path, new: Path | None, max_slowdown: str, allow_different: bool, summary: Path | None) -> int:
    """Print what the gate says of NEW against BASE, or of BASE's rows against their baselines.

    Args:
        base, new: folders of runs, or files of samples.
        max_slowdown: such as `3%`.
        allow_different: compare although the environments differ in what matters.
        summary: also a file, to whose end the same is added as Markdown; also why nothing could be compared.

    Returns:
        the exit code: 0 if all pass, 1 if any fails, 2 if that is undecided.

    Raises:
        HarnessError: one of them cannot be read or compared, it is no percentage, or the file cannot be written.
    """
    try:
        allowed = parse_percent(max_slowdown)
        sides = [load_side(path) for path in (base, new) if path]
        for side in sides:
            tell_damage(side)
        found = compare(sides[0], sides[1], allow_different) if new else interleaved(sides[0])
    except HarnessError as error:
        with contextlib.suppress(HarnessError):  # the first one is told
            _append(summary, no_gate_document(str(error)))
        raise
    result = gate(found, allowed)
    print_lines(gate_lines(result, found))
    _append(summary, gate_document(result, found))
    return result.exit_code


def tell_history(folder: Path, meant: Meant, last: int | None, out: Path | None) -> None:
    """Print what became of every row in the runs below a folder.

    Of runs without such a row nothing but `run.json` is read.

    Args:
        folder: holds runs, at any depth.
        meant: which rows.
        last: the newest runs that have such a row, so many at most; None for all.
        out: also a file, of HTML if its name ends in `.html`, else of Markdown.

    Raises:
        HarnessError: no run is there or has such a row, or the file cannot be written.
    """
    runs, left_out = find_runs(folder)
    meant.check(row for run in runs for row in run.rows)
    with_rows = [run.path for run in runs if any(meant.has(*row) for row in run.rows)]
    sides: list[Side] = []
    for path in with_rows[-last:] if last else with_rows:
        try:
            run = load(path)
            tell_damage(run)
            sides.append(side_of(run))
        except HarnessError as error:
            left_out[path] = str(error)
    if not sides:
        why = next(
            (f"{path}: {text}" for path, text in left_out.items()), "none has such a row; look with fewer options"
        )
        raise HarnessError(f"no run in '{folder}' has a latency to show: {why}")
    found = history(sides, meant)
    print_lines(history_lines(found, left_out))
    chart = history_chart(found)
    _write(out, history_document(found, left_out, intervals=True), [chart] if chart else [])


def tell_matrix(folder: Path, meant: Meant, allow_different: bool, out: Path | None) -> None:
    """Print the runs below a folder as one table, a column for every set of versions.

    Args:
        folder: holds runs, and what `harness bench` wrote down, at any depth.
        meant: which rows.
        allow_different: merge runs although the environments differ in what matters.
        out: also a file, of HTML if its name ends in `.html`, else of Markdown.

    Raises:
        HarnessError: no run is there or has such a row, what matters differs, or the file cannot be written.
    """
    attempts, broken = find_attempts(folder)
    try:
        runs, left_out = find_runs(folder)
    except HarnessError as error:
        if not attempts:
            raise
        first = attempts[0]
        raise HarnessError(f"nothing was measured in '{folder}': {first.path}: {first.reason}") from error
    meant.check(row for run in runs for row in run.rows)
    made = {attempt.path: attempt for attempt in attempts}
    found: list[Measured] = []
    for run in runs:
        try:
            if run.path not in made and not any(meant.has(*row) for row in run.rows):
                raise HarnessError("it has no such row")
            loaded = load(run.path)
            tell_damage(loaded)
            found.append(measured(loaded, made.get(run.path)))
        except HarnessError as error:
            left_out[run.path] = str(error)
    if not found:
        why = next((f"{path}: {text}" for path, text in left_out.items()), "")
        raise HarnessError(f"no run in '{folder}' has a latency to show: {why}")
    known = {run.path for run in runs} | left_out.keys()
    gone = (attempt.path for attempt in attempts if attempt.outcome == MEASURED and attempt.path not in known)
    left_out |= broken | dict.fromkeys(gone, f"its {RUN_FILE} is gone")
    failed = [attempt for attempt in attempts if attempt.outcome != MEASURED]
    table = matrix(found, failed, meant, allow_different)
    print_lines(matrix_lines(table, left_out))
    chart = matrix_chart(table)
    _write(out, matrix_document(table, left_out, intervals=True), [chart] if chart else [])


def _side(path: Path) -> Side:
    run = load_side(path)
    tell_damage(run)
    return side_of(run)


def _append(summary: Path | None, document: Document) -> None:
    """As Markdown, after whatever stands there: steps of a job write into one file."""
    if summary:
        try:
            with summary.open("a", encoding="utf-8") as file:
                file.write(("\n\n" if file.tell() else "") + document_markdown(document))
        except OSError as error:
            raise HarnessError(f"'{summary}' cannot be written: {error.strerror}; choose another --summary") from error


def _write(out: Path | None, document: Document, charts: Sequence[Chart]) -> None:
    """As Markdown, or as a page where the file's name ends so."""
    if out:
        try:
            if out.suffix.lower() == ".html":
                write_document(out, document, charts)
            else:
                write_atomically(out, document_markdown(document))
        except OSError as error:
            raise HarnessError(f"'{out}' cannot be written: {error.strerror}; choose another --out") from error
