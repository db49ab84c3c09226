"""Reports: hostile text stays text, durations are readable, and the same run gives the same bytes."""

from __future__ import annotations

import csv
import math
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import HALF, Timed, five, process_row, trial_row, write_processes, write_run
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness import HarnessError
from harness.contract import printable
from harness.formatting import inline, markdown_table, percent, percentage, seconds
from harness.report import write_report
from harness.schema import STATUSES, TRIAL_COLUMNS
from harness.store import Run, RunFolder, load
from harness.summary_report import COLUMNS, REPORT_COLUMNS, display_table, filled, setting, visibility
from harness.terminal import Progress, calibration_lines, print_summary

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
    "https://example.invalid and www.example.invalid",
    "\n=1",
    " =1",
    "\u200b=1",
    "＝1",
    "＠SUM(A1)",
    "\x1b[31mred\x1b[0m",
    "\u202etxt.exe",
    "# heading",
    "---",
    "1. item",
    "$x$ :bomb: [red]",
    "",
]
VARIANTS = ("a@r", "b@r")


def make_run(path: Path, reason: str = "because", status: str = "failed", calls: int = 2, spread: float = 2.0) -> Path:
    """A run of two variants, the second of which ends badly, with the text in every place a stranger can reach.

    The first variant has two processes with so many calls each; the second process takes `spread` times as long.
    """
    trials: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    calls_of: dict[str, list[list[Any]]] = {}
    for variant in VARIANTS:
        for kind in ("parity", "accuracy", "latency"):
            name = f"{len(trials) + 1:04d}-{kind}"
            trained = {"seed": 0, "trained_by": variant} if kind == "accuracy" else {}
            trials.append(trial_row(name, kind, variant, distribution=reason, **trained))
            good = variant == "a@r"
            end: dict[str, Any] = {"trial": name, "status": "ok", "reason": ""}
            if not good:
                end |= {"status": status, "reason": reason}
            elif kind == "accuracy":
                row = {"metric": "accuracy", "score": 0.9, "trivial_score": 0.5, "rows": 10}
                end["scores"] = [row | {"trainer_score": None, "agreeing_rows": None}]
            elif kind == "latency":
                calls_of[name] = [
                    [1, process, 1, "compute", 0, 0, call, 1.7e9, elapsed, 0]
                    for process, elapsed in ((1, 0.001), (2, 0.001 * spread))
                    for call in range(1 + calls)
                ]
            ends.append(end)
    folder = RunFolder(
        path,
        {
            "name": reason or "no name",
            "suite": {},
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
    for end in ends:
        folder.append(end)
    told = {"process": 12, "task": reason, "runtime": reason, "python": reason, "governor": reason}
    write_processes(folder, calls_of, [process_row(1), process_row(1, **told)])
    folder.close()
    return path


def report_of(path: Path) -> str:
    write_report(path)
    return (path / "report.md").read_text(encoding="utf-8")


def parse(path: Path) -> list[Token]:
    return tokens_of((path / "report.md").read_text(encoding="utf-8"))


def tokens_of(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)


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
    assert sum(token.type == "table_open" for token in tokens) == 6


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_no_markup_in_the_report(tmp_path: Path, text: str) -> None:
    write_report(make_run(tmp_path / "run", text))
    tokens = parse(tmp_path / "run")
    own = ("<details><summary>", "</details>")
    assert [t.content for t in tokens if t.type == "html_block" and not t.content.startswith(own)] == []
    for token in tokens:
        for child in token.children or []:
            assert child.type not in ("html_inline", "link_open"), token.content
            assert child.type != "image" or re.fullmatch(r"charts/[a-z0-9-]+\.svg", str(child.attrs["src"]))


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip() == text and "\n" not in text and text])
def test_hostile_text_is_shown_as_it_is(tmp_path: Path, text: str) -> None:
    write_report(make_run(tmp_path / "run", text))
    tokens = parse(tmp_path / "run")
    shown = {"".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"}
    assert printable(text) in shown


MARKUP = [*"](#-+=*_`[<>!|\\&:.x \n~$\x1b\u202e", "1. ", "www.", "WWW.", "://", "&lt;", "<b>", "<div ", "# ", "---"]
TEXTS = st.lists(st.sampled_from(MARKUP), max_size=5).map("".join) | st.text()


@settings(max_examples=500)
@given(TEXTS)
def test_any_text_is_nothing_but_text_in_markdown(text: str) -> None:
    for markdown in (inline(f"x{text}"), "\n".join(markdown_table(["a"], [[f"x{text}"]]))):
        *_, token = [t for t in tokens_of(markdown) if t.type == "inline"]
        assert "".join(child.content for child in token.children or []) == printable(f"x{text}", 10_000)
        assert {child.type for child in token.children or []} == {"text"}
    assert "://" not in inline(text)
    assert "www." not in inline(text).lower()


@settings(max_examples=500)
@given(TEXTS)
def test_no_text_is_a_heading_a_list_or_a_rule_at_the_start_of_a_line(text: str) -> None:
    tokens = tokens_of(f"before\n{inline(text)}\n\n{inline(text)}")
    assert {token.type for token in tokens} == {"paragraph_open", "inline", "paragraph_close"}


def test_ten_megabytes_are_a_short_cell() -> None:
    started = time.process_time()
    assert len(inline("<" * 10_000_000)) <= 4 * 10_000
    assert time.process_time() - started < 0.5


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
                assert [cell for cell in line if re.match(r"[\s\u200b]*[=+\-@＝＋－＠]|[\t\r\n]", cell)] == []


def test_a_run_gives_the_same_bytes_again_and_again_after_its_derived_files_were_deleted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    def derived() -> dict[str, bytes]:
        write_report(run)
        paths = [run / "report.md", *sorted((run / "tables").iterdir())]
        return {path.name: path.read_bytes() for path in paths}

    first = derived()
    assert set(first) == {"report.md"} | {
        f"{name}.csv"
        for name in (
            *("summary", "latency", "calibration", "trials", "parity", "costs", "gradients", "audits", "scores"),
            *("curves", "instances", "processes", "matrices", "machine", "loads", "capacity"),
        )
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
    ("calls", "missing"),
    [
        (2, (7, 60, 658, 6632)),
        (5, (1, 54, 652, 6626)),
        (6, (0, 52, 650, 6624)),
        (31, (0, 2, 600, 6574)),
        (32, (0, 0, 598, 6572)),
        (331, (0, 0, 0, 5974)),
        (3318, (0, 0, 0, 0)),
    ],
)
def test_a_percentile_has_a_bound_or_says_how_many_samples_are_missing(
    tmp_path: Path, calls: int, missing: tuple[int, ...]
) -> None:
    text = report_of(make_run(tmp_path / "run", calls=calls))
    (row,) = [line for line in text.splitlines() if line.startswith("| a@r | t | single-stream | compute |")]
    cells = [cell.strip() for cell in row.split("|")]
    medians = ("1.5 ms", "2 ms", "2 ms", "2 ms")  # p50, p90, p99, p99.9 of calls of 1 ms and as many of 2 ms
    bounds = [f"a bound needs {more} more samples" if more else "≤ 2 ms" for more in missing]
    assert cells[-6:-2] == [f"{value} ({bound})" for value, bound in zip(medians, bounds, strict=True)]
    assert cells[-2] == f"{2 * calls} / 2 / 2"


# ------------------------------------------------------------------------------------- ratios, verdicts, precision

RATIOS = {"b@r": (0.8, 0.001), "c@r": (1.25, 0.001), "d@r": (1.0, 0.001), "e@r": (1.02, 0.1), "f@r": (1.5, 0.05)}
WORDS = {"b@r": "faster", "c@r": "slower", "d@r": "same", "e@r": "undecided", "f@r": "slower"}


def compared(path: Path, ratios: Mapping[str, tuple[float, float]] = RATIOS, **latency: Any) -> Run:
    """A run of variants that take so many times as long as the baseline, with their ratios' spreads."""
    baseline = Timed("a@r", five(0.001))
    others = [Timed(name, five(0.001 * ratio, spread)) for name, (ratio, spread) in ratios.items()]
    return load(write_run(path, baseline, *others, latency=latency))


def column(run: Run, name: str, intervals: bool = True) -> dict[str, str]:
    return {row["variant"]: row[name] for row in display_table(run.summary, intervals)}


def test_the_verdict_is_a_word_and_the_baseline_has_none(tmp_path: Path) -> None:
    assert column(compared(tmp_path / "run"), "verdict") == {"a@r": "–", **WORDS}


def test_without_intervals_a_star_marks_the_verdicts_whose_interval_missed_the_target(tmp_path: Path) -> None:
    starred = {name: f"{word}*" if RATIOS[name][1] > 0.01 else word for name, word in WORDS.items()}
    assert column(compared(tmp_path / "run"), "verdict", intervals=False) == {"a@r": "–", **starred}
    missed = column(compared(tmp_path / "strict", precision=1e-6), "verdict", intervals=False)
    assert missed == {"a@r": "–"} | {name: f"{word}*" for name, word in WORDS.items()}
    reached = column(compared(tmp_path / "lenient", precision=0.5), "verdict", intervals=False)
    assert reached == {"a@r": "–", **WORDS}


def test_the_precision_is_the_half_of_the_ratios_interval_and_says_whether_the_target_was_met(tmp_path: Path) -> None:
    halves = {name: math.expm1(HALF * spread) for name, (_, spread) in RATIOS.items()}
    assert [f"{100 * halves[name]:.2g}" for name in ("b@r", "e@r", "f@r")] == ["0.2", "22", "10"]
    missed = ", target not met"
    assert column(compared(tmp_path / "run"), "precision") == {
        "a@r": "–",
        **dict.fromkeys(("b@r", "c@r", "d@r"), "±0.2 %"),
        "e@r": f"±22 %{missed}",
        "f@r": f"±10 %{missed}",
    }


def test_a_ratio_is_shown_with_both_ends_or_with_half_of_them(tmp_path: Path) -> None:
    run = compared(tmp_path / "run", {"b@r": (1.5, 0.01), "c@r": (1.5, 0.1)})
    low, high = (1.5 * math.exp(sign * HALF * 0.01) for sign in (-1, 1))
    assert column(run, "vs baseline")["b@r"] == f"1.50× ({low:.2f}–{high:.2f})" == "1.50× (1.47–1.53)"
    assert column(run, "vs baseline", intervals=False) == {
        "a@r": "baseline",
        "b@r": "1.50× ±2.0%",
        "c@r": "1.50× ×÷1.22",
    }
    assert column(run, "end-to-end vs baseline")["b@r"] == "1.50× (1.47–1.53)"


def test_one_pair_alone_has_no_interval_and_decides_nothing(tmp_path: Path) -> None:
    once = {(1, 11, 1): 0.001}
    run = load(write_run(tmp_path / "run", Timed("a@r", once), Timed("b@r", {(1, 11, 1): 0.002})))
    (_, row), (_, short) = (display_table(run.summary, intervals) for intervals in (True, False))
    assert (short["vs baseline"], short["verdict"], row["precision"]) == ("2.00×", "undecided*", "–")


def test_a_variant_whose_baseline_failed_has_latencies_and_no_verdict(tmp_path: Path) -> None:
    broken = Timed("a@r", status="failed", reason="because")
    run = load(write_run(tmp_path / "run", broken, Timed("b@r", five(0.001))))
    (row,) = [row for row in display_table(run.summary, intervals=True) if row["variant"] == "b@r"]
    assert row["single-stream"] == "1 ms (1–1)"
    assert (row["vs baseline"], row["verdict"], row["precision"]) == ("–", "–", "–")


def test_in_one_run_of_two_interpreters_each_variant_is_compared_with_itself_in_the_first(tmp_path: Path) -> None:
    def both(model: str, ratio: float) -> list[Timed]:
        first = {"baseline": f"{model}@r[old]"}
        twin = [five(0.001, 0.001)]
        return [
            Timed(f"{model}@r[old]", five(0.001), first, twins=twin),
            Timed(f"{model}@r[new]", five(0.001 * ratio), first),
        ]

    run = load(write_run(tmp_path / "run", *both("a", 1.5), *both("b", 0.5)))
    assert column(run, "vs baseline", intervals=False) == {
        "a@r[old]": "baseline",
        "a@r[new]": "1.50× ±0.0%",
        "b@r[old]": "baseline",
        "b@r[new]": "0.50× ±0.0%",
    }
    text = report_of(run.path)
    assert r"| a@r\[new\] | exact |" in text
    assert r", smaller ones less often: a@r\[old\], single-stream, against itself 1.000×" in text


def test_the_terminal_shows_the_same_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(compared(tmp_path / "run"))
    lines = capsys.readouterr().out.splitlines()
    for name, word in WORDS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert (f" {word}* " if RATIOS[name][1] > 0.01 else f" {word} ") in line
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_reaches_the_terminal_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    print_summary(load(make_run(tmp_path / "run", text)))
    with Progress(quiet=False) as progress:
        progress.phase(text, 1)
        progress.step(text)
    out, err = capsys.readouterr()
    for line in (out + err).split("\n"):
        assert line.isprintable()
    assert printable(text) in out
    assert f"{printable(text)}: 1 step" in err


def test_the_terminals_columns_are_among_the_reports() -> None:
    assert [name for name in REPORT_COLUMNS if name in COLUMNS] == list(COLUMNS)
    assert "verdict" in COLUMNS


# ------------------------------------------------------------------------------------- what the machine let one see

SEEN = (
    "On this machine, in this time, a slowdown of 0.35 % between two variants timed in one worker is found 19 times in "
    "20, smaller ones less often: a@r, single-stream, against itself 1.000× (0.998–1.002)."
)


@pytest.mark.parametrize("twins", [1, 2])
def test_what_differences_are_not_visible_is_said_from_the_baseline_against_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], twins: int
) -> None:
    baseline = Timed("a@r", five(0.001), twins=[five(0.001, 0.001)] * twins)
    path = write_run(tmp_path / "run", baseline, Timed("b@r", five(0.001)))
    assert SEEN in report_of(path).splitlines()
    print_summary(load(path))
    assert SEEN in capsys.readouterr().out.splitlines()


def test_without_a_twin_nothing_is_said_of_what_is_visible(tmp_path: Path) -> None:
    assert "19 times in 20" not in report_of(compared(tmp_path / "run").path)


def test_a_twin_that_failed_or_has_one_pair_says_nothing_of_what_is_visible(tmp_path: Path) -> None:
    once = {(1, 11, 1): 0.001}
    run = load(write_run(tmp_path / "once", Timed("a@r", once, twins=[once])))
    assert len(run.calibration) == 1
    assert visibility(run, "t") == []
    failed = Timed("a@r", five(0.001), twins=[{}], status="failed", reason="because")
    assert visibility(load(write_run(tmp_path / "failed", failed)), "t") == []


def test_of_two_tasks_each_says_what_is_visible_in_it(tmp_path: Path) -> None:
    tasks = [
        Timed("a@r", five(0.001), {"task": task}, twins=[five(0.001, spread)])
        for task, spread in (("t", 0.001), ("u", 0.01))
    ]
    run = load(write_run(tmp_path / "run", *tasks))
    assert visibility(run, "t") == [SEEN]
    (other,) = visibility(run, "u")
    assert "a slowdown of 3.5 % " in other
    assert visibility(run, "neither") == []


CALIBRATED = {
    "task": "t",
    "variant": "a@r",
    "scenario": "single-stream",
    "comparisons": 40,
    "false_alarms": 2,
    "false_alarms_low": 0.0061,
    "false_alarms_high": 0.1692,
    "detectable": 0.0012,
    "seconds": 123.4,
    "comparison_detectable": 0.0213,
    "comparison_seconds": 0.47,
}


def test_a_calibration_is_told_in_words() -> None:
    assert calibration_lines(CALIBRATED) == [
        "",
        "a@r on t, single-stream, against itself:",
        "  the interval excludes 1 in 2 of 40 comparisons: 5.0 % (0.6–16.9 %); 5 % is meant",
        "  smallest slowdown found with 95 % power, by how long each is measured: 2.1 % in 470 ms, 0.12 % in 123 s",
    ]


def test_a_calibration_too_short_for_a_comparison_says_so_and_knows_no_rate() -> None:
    none = {"comparisons": 0, "false_alarms": 0, "false_alarms_low": math.nan, "false_alarms_high": math.nan}
    assert calibration_lines(CALIBRATED | none | {"detectable": 1.234})[2:] == [
        "  too few slices for a comparison: give it more time",
        "  smallest slowdown found with 95 % power, by how long each is measured: 120 % in 123 s",
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((0.0, "0 %"), (0.00123, "0.12 %"), (0.01, "1 %"), (0.0999, "10 %"), (0.996, "100 %"), (12.34, "1200 %")),
        *((math.inf, "inf %"), (math.nan, "–")),
    ],
)
def test_a_share_has_two_digits(share: float, text: str) -> None:
    assert percentage(share) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        *((math.nan, math.nan, ""), (0.0, 1.0, ""), (0.99, 1.01, "±1.0%"), (0.25, 4.0, "×÷4.00")),
        (1.0, math.inf, "×÷inf"),
    ],
)
def test_an_interval_is_a_percentage_a_factor_or_nothing(low: float, high: float, text: str) -> None:
    assert percent(low, high) == text


# ------------------------------------------------------------------------------------- what happened on the machine


def busy(path: Path, *processes: dict[str, Any], disturbed: int | None = 0, steady: bool = True) -> str:
    """The report of a run of one variant, timed in these processes."""
    return report_of(
        write_run(path, Timed("a@r", five(0.001), disturbed=disturbed, steady=steady), processes=processes)
    )


def test_the_harnesss_own_overhead_is_the_median_of_processes(tmp_path: Path) -> None:
    rows = [process_row(s, overhead_s=c, overhead_end_to_end_s=4 * c) for s, c in enumerate((1e-7, 2e-7, 9e-6))]
    text = busy(tmp_path / "run", *rows)
    assert "An empty call reads 200 ns, end to end 800 ns; this is in every row." in text.splitlines()


def test_an_overhead_that_nobody_measured_is_not_mentioned(tmp_path: Path) -> None:
    assert "An empty call" not in busy(tmp_path / "none")
    assert "An empty call" not in busy(
        tmp_path / "unknown", process_row(1, overhead_s=None, overhead_end_to_end_s=None)
    )
    assert "An empty call" not in busy(tmp_path / "another", process_row(1, task="u"))


@pytest.mark.parametrize(
    ("change", "disturbed", "said"),
    [
        ({"other_busy_share": 0.3}, 0, "others used 30 % of the cores' time, 0.0 % were stolen, 0.0 % of the samples"),
        ({"steal_share": 0.025}, 0, "others used 0 % of the cores' time, 2.5 % were stolen, 0.0 % of the samples"),
        ({}, 1, "others used 0 % of the cores' time, 0.0 % were stolen, 33.3 % of the samples"),
        ({"steal_share": None, "other_busy_share": None}, 3, "100.0 % of the samples"),
        ({"steal_share": None, "other_busy_share": 1.0}, None, "others used 100 % of the cores' time, 0.0 % of the"),
    ],
)
def test_a_machine_that_was_not_quiet_is_warned_of_with_what_is_known(
    tmp_path: Path, change: dict[str, Any], disturbed: int | None, said: str
) -> None:
    text = busy(tmp_path / "run", *(process_row(slice_, **change) for slice_ in (1, 2)), disturbed=disturbed)
    (line,) = [line for line in text.splitlines() if "not quiet" in line]
    assert line.startswith(f"**The machine was not quiet**: {said}")
    assert line.endswith(" of the samples are marked as disturbed (and kept).")


def test_a_clock_that_changed_between_workers_is_warned_of(tmp_path: Path) -> None:
    rows = [process_row(slice_, frequency_mhz=mhz) for slice_, mhz in ((1, 2000.0), (2, 2500.0))]
    assert "**The cores' clock changed**: between 2000 and 2500 MHz." in busy(tmp_path / "run", *rows)
    rows = [process_row(slice_, frequency_mhz=mhz) for slice_, mhz in ((1, 2400.0), (2, 2500.0))]
    assert "clock changed" not in busy(tmp_path / "other", *rows)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"other_busy_share": 0.2, "steal_share": 0.01},
        {"other_busy_share": None, "steal_share": None},
        {"task": "u"},
    ],
)
def test_a_quiet_machine_is_not_warned_of(tmp_path: Path, change: dict[str, Any]) -> None:
    loud = {"other_busy_share": 1.0, "steal_share": 1.0} if change.get("task") else {}
    assert "not quiet" not in busy(tmp_path / "run", process_row(1, **change, **loud))


def test_instances_that_never_were_steady_are_counted_once_with_their_variants(tmp_path: Path) -> None:
    rough = [
        Timed(name, five(0.001), steady=steady) for name, steady in (("a@r", False), ("b@r", True), ("c@r", False))
    ]
    text = report_of(write_run(tmp_path / "run", *rough, processes=[process_row(1)]))
    assert "No steady state was seen in 10 instances, of a@r, c@r." in text.splitlines()
    assert "steady" not in busy(tmp_path / "calm", process_row(1)).split("## How to read it")[0]


def machine_table(text: str) -> list[list[str]]:
    """The cells of the table of processes, header first."""
    lines = text.split("<summary>The machine meanwhile</summary>")[1].split("</details>")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return [rows[0], *rows[2:]]


def test_what_happened_meanwhile_stands_in_a_table_by_runtime_and_interpreter(tmp_path: Path) -> None:
    loud = {"disturbed_share": 0.02, "other_busy_share": 0.5, "steal_share": 0.001, "run_delay_s": 0.1}
    loud |= {"involuntary_switches": 7, "page_faults_major": 2, "canary_s": 2e-4}
    rows = [process_row(1), process_row(2, **loud), process_row(1, python="old"), process_row(1, runtime="s")]
    header, *found = machine_table(busy(tmp_path / "run", *rows))
    quiet = ["0.0 %", "0.0 %", "0.0 %", "0.0 %", "0", "0"]
    assert header[:7] == ["task", "kind", "runtime", "cores", "processes", "time", "canary"]
    assert found == [
        ["t", "latency", "r", "0-1", "2", "4 s", "100 µs to 200 µs", "1.0 %", "25.0 %", "0.1 %", "2.5 %", "7", "2"],
        ["t", "latency", r"r\[old\]", "0-1", "1", "2 s", "100 µs to 100 µs", *quiet],
        ["t", "latency", "s", "0-1", "1", "2 s", "100 µs to 100 µs", *quiet],
    ]


def serving_row(slice_: int, **changes: Any) -> dict[str, Any]:
    """What a quiet machine says of a worker of a load trial."""
    unseen = dict.fromkeys(("canary_s", "overhead_s", "overhead_end_to_end_s", "disturbed_share"))
    return process_row(slice_, process=20 + slice_, trial="0009-load", **unseen) | changes


def test_workers_of_loads_stand_in_rows_of_their_own_and_have_no_canary(tmp_path: Path) -> None:
    rows = [process_row(1, cpus="0-1"), serving_row(1, cpus="0-1", other_busy_share=0.5), serving_row(2, cpus="3")]
    _, *found = machine_table(busy(tmp_path / "run", *rows))
    assert [row[:8] for row in found] == [
        ["t", "latency", "r", "0-1", "1", "2 s", "100 µs to 100 µs", "0.0 %"],
        ["t", "load", "r", "0-1; 3", "2", "4 s", "–", "–"],
    ]
    assert [row[8] for row in found] == ["0.0 %", "25.0 %"]


def test_loads_and_latencies_are_warned_of_apart(tmp_path: Path) -> None:
    calm, loud = {"other_busy_share": 0.0}, {"other_busy_share": 0.3, "steal_share": 0.025}
    for name, timed, served in (("loads", calm, loud), ("latencies", loud, calm)):
        text = busy(tmp_path / name, process_row(1, **timed), *(serving_row(s, **served) for s in (1, 2, 3)))
        (line,) = [line for line in text.splitlines() if "not quiet" in line]
        while_loaded = "**The machine was not quiet while loads were offered**: "
        assert line.startswith(while_loaded) == (name == "loads")
        assert "others used 30 % of the cores' time, 2.5 % were stolen" in line
    assert "An empty call reads 100 ns, end to end 400 ns; this is in every row." in text.splitlines()


def test_of_a_run_that_only_served_nothing_is_said_of_empty_calls(tmp_path: Path) -> None:
    text = busy(tmp_path / "run", serving_row(1, steal_share=None, other_busy_share=0.3))
    assert "**The machine was not quiet while loads were offered**: others used 30 % of the cores' time." in text
    assert "An empty call" not in text


def test_what_the_machine_does_not_tell_is_a_dash_and_no_zero(tmp_path: Path) -> None:
    told = ("task", "runtime", "python", "slice", "process", "seconds")
    row = {name: value if name in told else None for name, value in process_row(1).items()}
    assert machine_table(busy(tmp_path / "run", row))[1] == ["t", "latency", "r", "–", "1", "2 s", *["–"] * 7]


def test_a_run_that_timed_nothing_has_no_table_of_processes(tmp_path: Path) -> None:
    assert "The machine meanwhile" not in busy(tmp_path / "run")


# ------------------------------------------------------------------------------------- the rest


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


def test_a_column_that_says_nothing_of_any_row_is_left_out() -> None:
    rows = [
        {"variant": "a@x", "parity": "–", "score": "–", "offline": "1 ms", "vs baseline": "baseline"},
        {"variant": "b@x", "parity": "–", "score": "–", "offline": "–", "vs baseline": "–"},
    ]
    assert filled(list(rows[0]), rows) == ["variant", "parity", "offline"]
    rows[1]["vs baseline"] = "2.00×"
    assert filled(list(rows[0]), rows) == ["variant", "parity", "offline", "vs baseline"]


def test_of_rows_of_real_lengths_every_size_of_a_batch_is_told_and_of_others_the_one_that_is_shown(
    tmp_path: Path,
) -> None:
    swept = [
        Timed("a@r", five(1e-3), {"scenario": scenario, "batch": batch})
        for scenario in ("offline", "padded")
        for batch in (1, 8)
    ]
    run = load(write_run(tmp_path / "run", *swept))
    assert setting(run.summary, run.latency) == "I=3 H=6 L=1 T=5, padded batch 1, 8, float32, 1 thread a call"
