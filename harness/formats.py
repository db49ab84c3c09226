"""The core's own report formats: files made of a run's tables and of nothing else. Plugins give others.

Importing this module imports nothing slow, so `harness list` can name them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.catalog import Catalog, Entry, Plugin
from harness.contract import MOST_REASON, ReportFormat, printable
from harness.schema import TABLES

if TYPE_CHECKING:
    from harness.store import Run

INTERVALS = "Intervals are 95 %, within this run."
LATEX_HEAD = """% {title}
% \\usepackage{{booktabs,graphicx}}"""
LATEX_TABLE = """
\\begin{{table*}}
\\centering
\\caption{{{caption}}}
\\label{{tab:{label}}}
\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{%
\\begin{{tabular}}{{l{columns}}}
\\toprule
{header} \\\\
\\midrule
{rows}
\\bottomrule
\\end{{tabular}}}}
\\end{{table*}}"""
# What LaTeX takes for more than itself, in any encoding of fonts. Brackets and stars act after the end of a row.
LATEX = {
    **{character: f"\\{character}" for character in "_%&$#{}"},
    **{character: f"{{{character}}}" for character in "[]*`'\""},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "–": "\\textendash{}",
    "…": "\\ldots{}",
    "×": "$\\times$",
    "÷": "$\\div$",
    "±": "$\\pm$",
    "≤": "$\\leq$",
    "µ": "$\\mu$",
}


@dataclass(frozen=True)
class Summary:
    """One printed table of the summary: the variants of a setting, in words.

    Attributes:
        title: the task and the device, and in a sweep which setting.
        sizes: and batches, dtype and threads, as a sentence.
        columns: those that say something of any row.
        rows: one a variant, a cell a column.
    """

    title: str
    sizes: str
    columns: list[str]
    rows: list[list[str]]


def write_csv(run: Run, folder: Path) -> None:
    """Write `<table>.csv` of every table: the same bytes as in the run's own `tables/`."""
    from harness.report import csv_text

    for name in TABLES:
        (folder / f"{name}.csv").write_bytes(csv_text(getattr(run, name)).encode())


def write_json(run: Run, folder: Path) -> None:
    """Write `<table>.json` of every table: the version of its columns, their types, and a record a row.

    Empty is null. JSON has no infinity, so an infinite number is the text `Infinity` or `-Infinity`.
    """
    from harness.columns import column_type
    from harness.tables import records

    for name, table in run.tables.items():
        types = {str(column): column_type(name, str(column)) for column in table.columns}
        head = json.dumps({"schema_version": run.schema_version, "table": name, "columns": types})
        rows = records(table.astype(object).where(table.notna(), None))
        finite = ({key: _without_infinity(value) for key, value in row.items()} for row in rows)
        body = ",\n".join(json.dumps(row, allow_nan=False) for row in finite)
        (folder / f"{name}.json").write_text(f'{head[:-1]}, "records": [\n{body}\n]}}\n', encoding="utf-8")


def write_latex(run: Run, folder: Path) -> None:
    """Write `summary.tex`: a table a setting, for `\\input` in a document that uses booktabs and graphicx.

    It has the columns that the terminal shows, and is shrunk to the width of a page's text if it is wider. Its
    characters are ASCII, and no text of a plugin acts.
    """
    from harness.summary_report import COLUMNS

    name = re.sub("[^a-z0-9]+", "-", printable(run.header["name"]).lower()).strip("-") or "run"
    parts = [LATEX_HEAD.format(title=_latex_comment(run.header["name"]))]
    for number, summary in enumerate(summaries(run, COLUMNS), start=1):
        rows = (" & ".join(map(latex, row)) + " \\\\" for row in summary.rows)
        parts.append(
            LATEX_TABLE.format(
                caption=latex(f"{summary.title}: {summary.sizes} {INTERVALS}"),
                label=f"{name}-{number}",
                columns="r" * (len(summary.columns) - 1),
                header=" & ".join(map(latex, summary.columns)),
                rows="\n".join(rows),
            )
        )
    (folder / "summary.tex").write_text("\n".join(parts) + "\n", encoding="ascii")


def write_markdown(run: Run, folder: Path) -> None:
    """Write `summary.md`: a table a setting, the first ones of `report.md`, for an issue or a page."""
    from harness.formatting import inline, markdown_table
    from harness.summary_report import REPORT_COLUMNS

    lines = [f"# {inline(run.header['name'])}", ""]
    for summary in summaries(run, REPORT_COLUMNS):
        lines += [f"## {inline(summary.title)}", "", f"{inline(summary.sizes)} {INTERVALS}", ""]
        lines += [*markdown_table(summary.columns, summary.rows), ""]
    (folder / "summary.md").write_text("\n".join(lines), encoding="utf-8")


def write_html(run: Run, folder: Path) -> None:
    """Write `report.html`, the page that stands in the run's folder too.

    Raises:
        HarnessError: the extra `html` is not installed.
    """
    from harness.html_report import charts_of
    from harness.html_report import write_html as write_page_of
    from harness.report_parts import run_parts, setting_parts

    settings = setting_parts(run)
    write_page_of(run, settings, run_parts(run), charts_of(run, settings), folder / "report.html")


def write_pytest_benchmark(run: Run, folder: Path) -> None:
    """Write `0001_latency.json`, which `pytest-benchmark compare` reads, as a file or in its `--storage`.

    Raises:
        HarnessError: the run has no latency.
    """
    from harness.interchange import pytest_benchmark

    _write_data(folder / "0001_latency.json", pytest_benchmark(run))


def write_github_action_benchmark(run: Run, folder: Path) -> None:
    """Write `latency.json`, the `output-file-path` of github-action-benchmark with the tool `customSmallerIsBetter`.

    Raises:
        HarnessError: the run has no latency.
    """
    from harness.interchange import github_action_benchmark

    _write_data(folder / "latency.json", github_action_benchmark(run))


def write_bmf(run: Run, folder: Path) -> None:
    """Write `bmf.json`, for `bencher run --adapter json --file bmf.json`.

    Raises:
        HarnessError: the run has no latency.
    """
    from harness.interchange import bmf

    _write_data(folder / "bmf.json", bmf(run))


BUILT_IN = {
    own.name: own
    for own in (
        ReportFormat("csv", "a file a table, the same as a run's own", write_csv),
        ReportFormat("json", "a file a table, with the types of its columns", write_json),
        ReportFormat("latex", "the summary for a paper, with booktabs", write_latex),
        ReportFormat("markdown", "the summary for an issue or a page", write_markdown),
        ReportFormat("html", "the whole report as one page that opens offline", write_html),
        ReportFormat("pytest-benchmark", "latencies for `pytest-benchmark compare`", write_pytest_benchmark),
        ReportFormat("github-action-benchmark", "latencies for that action", write_github_action_benchmark),
        ReportFormat("bmf", "latencies in the Bencher Metric Format", write_bmf),
    )
}


def with_built_in(catalog: Catalog) -> Catalog:
    """The catalog, with the core's own formats before those of plugins."""
    core = Plugin("harness", "rnn-harness", harness.__version__)
    own = (Entry("report format", known.name, known, core) for known in BUILT_IN.values())
    return Catalog(catalog.plugins, (*own, *catalog.entries))


def summaries(run: Run, names: Sequence[str]) -> Iterator[Summary]:
    """The summary as it is printed: one table a setting, with both ends of its intervals.

    Args:
        names: of `summary_report.REPORT_COLUMNS`; those that say nothing of any row are left out.
    """
    from harness.report_parts import setting_parts

    for part in setting_parts(run):
        columns, shown = part.words(names)
        yield Summary(part.title, part.sizes, columns, [[row[column] for column in columns] for row in shown])


def latex(value: Any) -> str:
    """Text that stays text in LaTeX, of ASCII characters; what is not among them and has no sign is its code point."""
    text = "".join(_latex_character(character) for character in printable(value, MOST_REASON))
    return re.sub(r"([-,])(?=\1)", r"\1{}", text)  # or two of them become another sign


def _write_data(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _latex_character(character: str) -> str:
    return LATEX.get(character) or (character if character.isascii() else f"U+{ord(character):04X}")


def _latex_comment(value: Any) -> str:
    """Text for a comment, which ends with its line."""
    return printable(value).encode("ascii", "backslashreplace").decode("ascii")


def _without_infinity(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
