"""The core's own formats: what was in the tables can be read again, and no text acts where it is shown."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import Timed, five, trial_row, write_run

from harness import ReportFormat, load
from harness.catalog import Catalog, Entry, Plugin
from harness.columns import column_type
from harness.contract import printable
from harness.formats import BUILT_IN, latex, summaries, with_built_in
from harness.report import write_report
from harness.schema import SCHEMA_VERSION, TABLES
from harness.store import Run, RunFolder
from harness.summary_report import COLUMNS

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
DTYPES = {"int": "Int64", "float": "float64", "bool": "boolean", "text": "string"}
OF_A_TYPE = {"int": ["rows", "steps"], "float": ["ratio", "mean_s"], "bool": ["is_floor"], "text": ["variant", "task"]}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.none() | st.integers(-(2**53), 2**53),
    "float": st.floats(),
    "bool": st.none() | st.booleans(),
    "text": st.none() | st.text(st.characters(codec="utf-8")),
}
FOR_TOOLS = ["pytest-benchmark", "github-action-benchmark", "bmf"]
HOSTILE = r"a_b%&$#{}~^\@r[*]'`"  # everything that LaTeX takes for more than itself


@pytest.fixture(scope="module")
def run() -> Run:
    """A real run, with every kind of trial but loads."""
    return load(REFERENCE / "tutorial")


@pytest.fixture
def hostile(tmp_path: Path) -> Run:
    """A run whose variants have names that no plugin may have."""
    others = [Timed(name, five(0.002)) for name in (HOSTILE, "[0pt]@r", "*@r", "%@r", "a--b@r", "漢@r")]
    return load(write_run(tmp_path / "run", Timed("a@r", five(0.001)), *others))


def written(name: str, given_run: Any, folder: Path) -> dict[str, bytes]:
    """What a format writes, by file."""
    folder.mkdir(exist_ok=True)
    BUILT_IN[name].write(given_run, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_format_is_found_by_its_name_and_says_what_it_is() -> None:
    assert list(BUILT_IN) == ["csv", "json", "latex", "markdown", "html", *FOR_TOOLS]
    for name, own in BUILT_IN.items():
        assert own.name == name
        assert own.description.isprintable()


def test_a_catalog_names_them_before_those_of_plugins() -> None:
    plugin = Plugin("own", "own-package", "1.0")
    given_format = ReportFormat("own", "", lambda run, folder: None)
    both = with_built_in(Catalog((plugin,), (Entry("report format", "own", given_format, plugin),)))
    assert both.names("report format") == [*BUILT_IN, "own"]
    assert both.plugins == (plugin,)
    assert both.entry("report format", "csv").plugin.distribution == "rnn-harness"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_run_gives_the_same_bytes_again_and_stays_as_it_is(name: str, run: Run, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert written(name, run, tmp_path / "once") == written(name, load(run.path), tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


# ------------------------------------------------------------------------------------------------------------- csv


def test_csv_is_what_the_report_of_the_run_has(hostile: Run, tmp_path: Path) -> None:
    write_report(hostile.path)
    own = {path.name: path.read_bytes() for path in sorted((hostile.path / "tables").iterdir())}
    assert written("csv", hostile, tmp_path / "csv") == own
    assert set(own) == {f"{name}.csv" for name in TABLES}


# ------------------------------------------------------------------------------------------------------------ json


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def read_json(text: bytes) -> tuple[dict[str, Any], pd.DataFrame]:
    """A file as a reader would take it who knows what the page of tables says."""
    content = json.loads(text, parse_constant=refuse)
    columns: dict[str, Any] = {}
    for name, kind in content["columns"].items():
        values = [record[name] for record in content["records"]]
        if kind == "float":
            columns[name] = np.array([math.nan if v is None else float(v) for v in values], float)
        else:
            columns[name] = pd.Series(values, dtype=DTYPES[kind])
    return content, pd.DataFrame(columns, index=range(len(content["records"])))


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A typed table of any length with some columns of every type, as a run would have it."""
    rows = draw(st.integers(0, 5))
    columns: dict[str, Any] = {}
    for kind, names in OF_A_TYPE.items():
        for name in draw(st.lists(st.sampled_from(names), unique=True)):
            values = draw(st.lists(VALUES[kind], min_size=rows, max_size=rows))
            columns[name] = np.array(values, float) if kind == "float" else pd.Series(values, dtype=DTYPES[kind])
    return pd.DataFrame(columns, index=range(rows))


@given(tables())
def test_any_table_comes_back_from_json_with_its_values_and_types(
    tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame
) -> None:
    folder = tmp_path_factory.mktemp("json")
    files = written("json", SimpleNamespace(tables={"summary": table}, schema_version=6), folder)
    content, found = read_json(files["summary.json"])
    assert (content["schema_version"], content["table"]) == (6, "summary")
    pd.testing.assert_frame_equal(found, table, check_dtype=False, check_exact=True)


def test_json_has_every_table_of_a_run_and_the_version_of_its_columns(run: Run, tmp_path: Path) -> None:
    files = written("json", run, tmp_path / "json")
    assert set(files) == {f"{name}.json" for name in TABLES}
    for name, table in run.tables.items():
        content, found = read_json(files[f"{name}.json"])
        assert (content["schema_version"], content["table"]) == (SCHEMA_VERSION, name)
        assert content["columns"] == {column: column_type(name, column) for column in table.columns}
        pd.testing.assert_frame_equal(found, table, check_dtype=False, check_exact=True)


def test_json_has_null_for_what_is_unknown_and_a_word_for_infinity(tmp_path: Path) -> None:
    table = pd.DataFrame({"ratio": [math.nan, math.inf, -math.inf], "rows": pd.array([None, 1, 2], dtype="Int64")})
    files = written("json", SimpleNamespace(tables={"summary": table}, schema_version=6), tmp_path / "json")
    content = json.loads(files["summary.json"], parse_constant=refuse)
    assert [record["ratio"] for record in content["records"]] == [None, "Infinity", "-Infinity"]
    assert [record["rows"] for record in content["records"]] == [None, 1, 2]


# ----------------------------------------------------------------------------------------------------------- latex

# Everything that may stand in text, with what a reader sees for it.
SIGNS = {
    **{f"\\{character}": character for character in "_%&$#{}"},
    **{f"{{{character}}}": character for character in "[]*`'\""},
    "\\textbackslash{}": "\\",
    "\\textasciitilde{}": "~",
    "\\textasciicircum{}": "^",
    "\\textless{}": "<",
    "\\textgreater{}": ">",
    "\\textbar{}": "|",
    "\\textendash{}": "–",
    "\\ldots{}": "…",
    "$\\times$": "×",
    "$\\div$": "÷",
    "$\\pm$": "±",
    "$\\leq$": "≤",
    "$\\mu$": "µ",
    "{}": "",
}
PIECE = re.compile("|".join(map(re.escape, SIGNS)) + r"|[A-Za-z0-9 .,:;!?()/=+@-]")


def seen(text: str) -> str:
    """What LaTeX shows for a text that has nothing in it but signs and plain characters."""
    pieces = PIECE.findall(text)
    assert "".join(pieces) == text, text
    assert not re.search("--|,,", text), "two of them are another sign"
    return "".join(SIGNS.get(piece, piece) for piece in pieces)


MARKUP = st.lists(st.sampled_from([*HOSTILE, "--", "\\input{x}", "%\n", " & ", "\\\\", "…", "µ", "×", "漢", "\x1b"]))


@given(MARKUP.map("".join) | st.text())
def test_any_text_is_nothing_but_text_in_latex(text: str) -> None:
    shown = "".join(
        character if character.isascii() or character in SIGNS.values() else f"U+{ord(character):04X}"
        for character in printable(text, 1000)
    )
    assert seen(latex(text)) == shown


def test_a_latex_table_is_a_row_a_variant_with_a_cell_a_column(hostile: Run, tmp_path: Path) -> None:
    text = written("latex", hostile, tmp_path / "latex")["summary.tex"].decode("ascii")
    (summary,) = summaries(hostile, COLUMNS)
    lines = text.splitlines()
    begin, end = (lines.index(f"\\{word}") for word in ("midrule", "bottomrule"))
    assert [line.removesuffix(" \\\\").split(" & ") for line in lines[begin + 1 : end]] == [
        [latex(cell) for cell in row] for row in summary.rows
    ]
    assert lines[begin - 1].removesuffix(" \\\\").split(" & ") == [latex(name) for name in summary.columns]
    assert f"\\begin{{tabular}}{{l{'r' * (len(summary.columns) - 1)}}}" in lines
    assert "a\\_b\\%\\&\\$\\#\\{\\}\\textasciitilde{}\\textasciicircum{}\\textbackslash{}@r" in text
    assert "\nU+6F22@r & " in text
    assert (
        "\\caption{t on cpu: I=3 H=6 L=1 T=5, float32, 1 thread a call. Intervals are 95 \\%, within this run.}"
        in lines
    )


def test_latex_begins_with_what_it_needs_and_the_name_of_the_run_ends_no_comment(tmp_path: Path) -> None:
    named = load(write_run(tmp_path / "run", Timed("a@r", five(0.001)), name="x\n\\input{y} 漢"))
    text = written("latex", named, tmp_path / "latex")["summary.tex"].decode("ascii")
    assert text.splitlines()[:2] == ["% x \\input{y} \\u6f22", "% \\usepackage{booktabs,graphicx}"]


@pytest.mark.parametrize(
    ("name", "label"),
    [("tutorial", "tab:tutorial-1"), ("My run}_2%", "tab:my-run-2-1"), ("漢", "tab:run-1"), ("", "tab:run-1")],
)
def test_a_label_bears_the_name_of_the_run_so_that_two_runs_fit_into_one_paper(
    tmp_path: Path, name: str, label: str
) -> None:
    named = load(write_run(tmp_path / "run", Timed("a@r", five(0.001)), name=name))
    assert f"\n\\label{{{label}}}\n" in written("latex", named, tmp_path / "latex")["summary.tex"].decode("ascii")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_in_a_document(hostile: Run, tmp_path: Path) -> None:
    written("latex", hostile, tmp_path / "latex")
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n"
        "\\begin{document}\n\\input{latex/summary}\n\\end{document}\n"
    )
    (tmp_path / "paper.tex").write_text(document, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000


# -------------------------------------------------------------------------------------------------------- markdown


def test_markdown_has_the_first_tables_of_the_report(run: Run, tmp_path: Path) -> None:
    lines = written("markdown", run, tmp_path / "markdown")["summary.md"].decode("utf-8").splitlines()
    report = (run.path / "report.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) > 4
    begin = report.index(table[0])
    assert report[begin : begin + len(table)] == table
    assert lines[0] == report[0] == "# tutorial"
    assert lines[2] == report[2]


@pytest.mark.parametrize("name", ["latex", "markdown"])
def test_every_setting_of_a_sweep_has_a_table_of_its_own(name: str, tmp_path: Path) -> None:
    sizes = (6, 12)
    trials = [trial_row(f"{size:04d}-parity", "parity", "a@r", hidden_size=size) for size in sizes]
    header = {"name": "swept", "suite": {}, "baselines": {}, "floors": [], "plugins": [], "environment": {}}
    folder = RunFolder(tmp_path / "run", {**header, "trials": trials})
    for trial in trials:
        folder.append({"trial": trial["trial"], "status": "ok", "reason": ""})
    folder.close()
    swept = load(tmp_path / "run")
    titles = [summary.title for summary in summaries(swept, COLUMNS)]
    assert titles == [f"t on cpu, H={size} L=1 float32 1 thread" for size in sizes]
    (text,) = (content.decode("utf-8") for content in written(name, swept, tmp_path / name).values())
    for title in titles:
        assert title in text
