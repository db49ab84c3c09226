"""Reports: hostile text stays text, durations are readable, and the same run gives the same bytes."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness import HarnessError
from harness.report import REPORT_COLUMNS, display_table, seconds, write_report
from harness.store import STATUSES, TRIAL_COLUMNS, RunFolder

HOSTILE = [
    "a | b",
    "a \\| b",
    "a \\",
    "one\ntwo",
    "<script>alert(1)</script>",
    "</details><img src=x onerror=alert(1)>",
    "`code",
    "=cmd()",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "&lt;",
    "![](http://example.invalid/x.png)",
    "[here](http://example.invalid)",
    "",
]
VARIANTS = ("a@r", "b@r")


def make_run(path: Path, reason: str = "because", status: str = "failed", calls: int = 2, spread: float = 2.0) -> Path:
    """A run of two variants, the second of which ends badly, with the text in every place a stranger can reach.

    The first variant has two processes with so many calls each; the second process takes `spread` times as long.
    """
    trials: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    samples: dict[str, list[list[Any]]] = {}
    for variant in VARIANTS:
        for kind in ("parity", "accuracy", "latency"):
            name = f"{len(trials) + 1:04d}-{kind}"
            model, runtime = variant.split("@")
            trials.append(
                dict.fromkeys(TRIAL_COLUMNS[:-2])
                | {"trial": name, "kind": kind, "variant": variant, "model": model, "runtime": runtime, "task": "t"}
                | {"architecture": "lstm", "input_size": 3, "hidden_size": 6, "num_layers": 1, "device": "cpu"}
                | {"dtype": "float32", "threads": 1, "distribution": reason, "distribution_version": "1"}
                | ({"seed": 0, "trained_by": variant} if kind == "accuracy" else {})
                | ({"scenario": "single-stream", "batch": 1, "time": 5} if kind == "latency" else {})
            )
            good = variant == "a@r"
            end: dict[str, Any] = {"trial": name, "status": "ok", "reason": ""}
            if not good:
                end |= {"status": status, "reason": reason}
            elif kind == "accuracy":
                row = {"metric": "accuracy", "score": 0.9, "trivial_score": 0.5, "rows": 10}
                end["scores"] = [row | {"trainer_score": None, "agreeing_rows": None}]
            elif kind == "latency":
                samples[name] = [
                    [process, "compute", 0, 0, call, 0.1, elapsed]
                    for process, elapsed in ((1, 0.001), (2, 0.001 * spread))
                    for call in range(1 + calls)
                ]
            ends.append(end)
    folder = RunFolder(
        path,
        {
            "name": reason or "no name",
            "baselines": {"lstm": "a@r"},
            "floors": [],
            "plugins": [
                {"name": "sound", "distribution": "rnn-sound", "version": "1", "failure": None},
                {"name": reason, "distribution": reason, "version": reason, "failure": reason},
            ],
            "trials": trials,
            "environment": {"command": ["harness", reason], reason or "x": reason, "versions": {"y": reason}},
        },
    )
    for name, rows in samples.items():
        folder.write_samples(name, rows)
    for end in ends:
        folder.append(end)
    folder.close()
    return path


def parse(path: Path) -> list[Token]:
    return (
        MarkdownIt("commonmark", {"html": True}).enable("table").parse((path / "report.md").read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_breaks_no_table_of_the_report(tmp_path: Path, text: str) -> None:
    write_report(make_run(tmp_path / "run", text))
    tokens = parse(tmp_path / "run")
    columns = 0
    cells = -1
    for token in tokens:
        if token.type == "thead_open":
            columns = 0
        elif token.type == "th_open":
            columns += 1
        elif token.type == "tr_open":
            cells = 0
        elif token.type == "td_open":
            cells += 1
        elif token.type == "tr_close" and cells:
            assert cells == columns
    assert sum(token.type == "table_open" for token in tokens) == 5


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_no_markup_in_the_report(tmp_path: Path, text: str) -> None:
    write_report(make_run(tmp_path / "run", text))
    tokens = parse(tmp_path / "run")
    own = ("<details><summary>", "</details>")
    assert [t.content for t in tokens if t.type == "html_block" and not t.content.startswith(own)] == []
    for token in tokens:
        for child in token.children or []:
            assert child.type not in ("html_inline", "image", "link_open"), token.content


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip() == text and "\n" not in text and text])
def test_hostile_text_is_shown_as_it_is(tmp_path: Path, text: str) -> None:
    write_report(make_run(tmp_path / "run", text))
    tokens = parse(tmp_path / "run")
    shown = {"".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"}
    assert text in shown


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_one_cell_of_the_csv_and_never_a_formula(tmp_path: Path, text: str) -> None:
    write_report(make_run(tmp_path / "run", text))
    with (tmp_path / "run" / "tables" / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        assert set(row) == set(TRIAL_COLUMNS)
        assert row["distribution"].removeprefix("'") == text
    for path in (tmp_path / "run" / "tables").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.reader(file):
                assert [cell for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


def test_a_run_gives_the_same_bytes_again_and_again_after_its_derived_files_were_deleted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    def derived() -> dict[str, bytes]:
        write_report(run)
        paths = [run / "report.md", *sorted((run / "tables").iterdir())]
        return {path.name: path.read_bytes() for path in paths}

    first = derived()
    assert set(first) == {"report.md"} | {
        f"{name}.csv" for name in ("summary", "latency", "trials", "parity", "gradients", "scores", "curves")
    }
    assert derived() == first
    (run / "report.md").unlink()
    shutil.rmtree(run / "tables")
    assert derived() == first


def test_a_report_leaves_what_was_observed_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    observed = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    write_report(run)
    assert {path: path.read_bytes() for path in observed} == observed


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ok"])
def test_what_did_not_end_well_is_listed_with_its_status_and_reason(tmp_path: Path, status: str) -> None:
    write_report(make_run(tmp_path / "run", "the reason of it", status))
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    trials = "0004-parity, 0005-accuracy, 0006-latency"  # one row for all that ended alike
    assert f"| b@r | t | {status} | the reason of it | {trials} |" in text


def test_a_plugin_that_failed_to_load_is_named_with_its_reason_and_the_others_are_not(tmp_path: Path) -> None:
    write_report(make_run(tmp_path / "run", "flu"))
    lines = (tmp_path / "run" / "report.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("Plugin ")] == ["Plugin flu failed to load and was left out: flu"]


@pytest.mark.parametrize(("spread", "noted"), [(2.0, True), (0.5, True), (1.3, True), (1.2, False), (1.0, False)])
def test_processes_that_disagree_by_more_than_a_quarter_are_noted(tmp_path: Path, spread: float, noted: bool) -> None:
    write_report(make_run(tmp_path / "run", spread=spread))
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    low, high = sorted((0.001, 0.001 * spread))
    assert ("Processes disagree by more than 25 %" in text) is noted
    assert (f"- a@r, single-stream: {seconds(low)} to {seconds(high)}\n" in text) is noted
    assert f"| {seconds(low)} to {seconds(high)} |" in text  # the processes' medians, disagreement or not


@pytest.mark.parametrize(
    ("calls", "p90", "p99"),
    [
        (2, "a bound needs 60 more samples", "a bound needs 658 more samples"),
        (31, "a bound needs 2 more samples", "a bound needs 600 more samples"),
        (32, "≤ 2 ms", "a bound needs 598 more samples"),
        (331, "≤ 2 ms", "≤ 2 ms"),
    ],
)
def test_a_percentile_has_a_bound_or_says_how_many_samples_are_missing(
    tmp_path: Path, calls: int, p90: str, p99: str
) -> None:
    write_report(make_run(tmp_path / "run", calls=calls))
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| a@r | t | single-stream | compute |")]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[-4:-1] == [f"2 ms ({p90})", f"2 ms ({p99})", f"{2 * calls} / 2"]


def test_a_variant_with_no_numbers_has_dashes_and_the_baseline_comes_first(tmp_path: Path) -> None:
    run = write_report(make_run(tmp_path / "run"))
    rows = display_table(run.summary, intervals=True)
    assert [set(row) for row in rows] == [set(REPORT_COLUMNS)] * 2
    good, bad = rows
    assert (good["variant"], good["parity"], good["score"]) == ("a@r", "exact", "90.00 %")
    assert good["vs baseline"] == "baseline"
    assert good["single-stream"].startswith("1.41 ms (")
    assert bad["variant"] == "b@r"
    assert bad["parity"] == "failed"
    measured = {"single-stream", "end-to-end"}  # the one scenario that was planned says how it ended
    assert {bad[name] for name in measured} == {"failed"}
    assert {bad[name] for name in REPORT_COLUMNS[2:] if name not in measured} == {"–"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "–"),
        (233e-6, "233 µs"),
        (1.0, "1 s"),
        (12.34, "12.3 s"),
        (0.5, "500 ms"),
        (1e-3, "1 ms"),
        (1.234e-3, "1.23 ms"),
        (1e-6, "1 µs"),
        (9.99e-7, "999 ns"),
        (1.5e-9, "1.5 ns"),
        (0.0, "0 ns"),
    ],
)
def test_a_duration_has_three_digits_in_the_unit_that_fits(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize("value", [1234.0, 0.99999, 0.99999e-3, 0.99999e-6, 999.9])
def test_a_duration_is_never_written_with_an_exponent(value: float) -> None:
    assert "e" not in seconds(value)


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "tables").write_text("in the way", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"the report cannot be written to '.*run': "):
        write_report(run)


def test_there_is_no_report_of_what_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"is not a run: run\.json cannot be read"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
