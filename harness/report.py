"""Reports: the tables of a run as CSV files, `report.md` with its pictures, and `report.html`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.contract import HarnessError
from harness.formatting import details, inline, markdown_table
from harness.html_report import Charts, charts_of, write_html
from harness.journal import write_atomically
from harness.page import is_available, write_picture
from harness.report_parts import Part, SettingPart, run_parts, setting_parts
from harness.schema import TABLES
from harness.store import Run, load
from harness.summary_report import REPORT_COLUMNS
from harness.vega import Chart

UNSEEN = r"\s\x00-\x1f\x7f-\xa0\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # spreadsheets skip it
FORMULA = re.compile(rf"[{UNSEEN}]*[=+\-@＝＋－＠]|[\t\r\n]")


def write_report(path: str | Path) -> Run:
    """Derive `tables/*.csv`, `report.md`, and with the extra `html` its `charts/*.svg` and `report.html`, from a run's
    journal; what was there before is replaced.

    Raises:
        HarnessError: the folder is not a run, is damaged, or cannot be written.
    """
    run = load(path)
    settings, parts = setting_parts(run), run_parts(run)
    charts = charts_of(run, settings) if is_available() else Charts()
    try:
        (run.path / "tables").mkdir(exist_ok=True)
        for name in TABLES:
            write_atomically(run.path / "tables" / f"{name}.csv", csv_text(getattr(run, name)))
        _write_pictures(run.path / "charts", charts)
        write_atomically(run.path / "report.md", markdown(run, settings, parts, charts))
        if is_available():
            write_html(run, settings, parts, charts, run.path / "report.html")
        else:
            (run.path / "report.html").unlink(missing_ok=True)  # an older one would say something else
    except OSError as error:
        raise HarnessError(f"the report cannot be written to '{run.path}': {error.strerror}") from error
    return run


def csv_text(table: pd.DataFrame) -> str:
    """A table as RFC 4180 has it, in which no text starts a formula."""
    return _inert(table).to_csv(index=False, lineterminator="\r\n")


def markdown(run: Run, settings: Sequence[SettingPart], parts: Sequence[Part], charts: Charts) -> str:
    """The report: the tables first, then what failed, details, environment and how to read it."""
    lines = [f"# {inline(run.header['name'])}", ""]
    for number, part in enumerate(settings):
        lines += [f"## {inline(part.title)}", "", inline(part.sizes), ""]
        columns, shown = part.words(REPORT_COLUMNS)
        lines += markdown_table(columns, [[row[column] for column in columns] for row in shown])
        lines += ["", *part.remarks, "", *_pictures(charts.of_setting.get(number, {})), *part.more]
    lines += _pictures(charts.of_run)
    for own in parts:
        lines += details(own.title, own.lines) if own.folded else [f"## {own.title}", "", *own.lines, ""]
    return "\n".join(lines)


def _pictures(charts: Mapping[str, Chart]) -> list[str]:
    """Every picture with its title, which of several it shows, and how to read it."""
    lines = []
    for name, chart in charts.items():
        title = inline(f"{chart.title}, {chart.shown_first}" if chart.shown_first else chart.title)
        lines += [f"![{title}](charts/{name}.svg)", ""]
        lines += [" ".join(filter(None, (f"*{title}.*", chart.reading, chart.left_out))), ""]
    return lines


def _write_pictures(folder: Path, charts: Charts) -> None:
    """Every chart as SVG; pictures of an earlier report go, and nothing else."""
    found = charts.by_name
    if found:
        folder.mkdir(exist_ok=True)
    for name, chart in found.items():
        write_picture(folder / f"{name}.svg", chart)
    if folder.is_dir():
        for picture in folder.glob("*.svg"):
            if picture.stem not in found:
                picture.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _inert(table: pd.DataFrame) -> pd.DataFrame:
    """A copy in which no text can start a formula when a spreadsheet opens the CSV (OWASP, "CSV Injection")."""

    def quote(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value

    return table.map(quote)
