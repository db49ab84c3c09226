"""`report.html` and the pictures of `report.md`: what is in them, and what a command of a row is."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import ENVIRONMENT, Timed, five, trial_row, write_run

from harness import page
from harness.formatting import MOST_ROWS
from harness.html_report import MOST_LOG, MOST_SETTINGS
from harness.report import write_report
from harness.store import RunFolder

pytest.importorskip("vl_convert", reason="the extra `html` is not installed")
PAIR = (Timed("a@r", five(1e-3, 0.001)), Timed("b@s", five(5e-4, 0.001)))


def report_of(path: Path, *timed: Timed, **header: Any) -> str:
    """The page of a made-up run."""
    write_report(write_run(path, *(timed or PAIR), **header))
    return (path / "report.html").read_text(encoding="utf-8")


def row_of(text: str, name: str) -> str:
    """One row of the first table."""
    found = re.search(rf'<tr data-name="{re.escape(name)}">(.*?)</tr>', text, re.DOTALL)
    assert found
    return found[1]


def commands(text: str) -> dict[str, str]:
    found = re.findall(r"<dt>(.*?)</dt>\s*<dd><code>(.*?)</code>", text, re.DOTALL)
    return {unescape(what): unescape(command) for what, command in found}


def ran(*words: str) -> dict[str, Any]:
    return {"environment": ENVIRONMENT | {"command": ["harness", "run", *words]}}


def test_cells_have_the_colour_of_their_own_scenarios_verdict(tmp_path: Path) -> None:
    offline = {"scenario": "offline", "batch": 32}
    timed = (*PAIR, Timed("a@r", five(1e-3, 0.001), offline), Timed("b@s", five(3e-3, 0.001), offline))
    row = row_of(report_of(tmp_path / "run", *timed), "b@s")
    assert re.search(r'<td class="faster"[^>]*>500 µs', row)
    assert re.search(r'<td class="slower"[^>]*>3 ms', row)
    assert "class" not in row_of(report_of(tmp_path / "again", *timed), "a@r")


def test_a_cell_that_tells_of_a_failure_is_marked_and_what_is_missing_is_not(tmp_path: Path) -> None:
    text = report_of(tmp_path / "run", *PAIR, Timed("c@r", status="crashed", reason="it fell"))
    assert '<td class="bad" data-sort="" data-column="single-stream">crashed</td>' in row_of(text, "c@r")
    assert '"bad"' not in row_of(text, "a@r")
    assert "it fell" in text


def test_a_failure_stays_one_with_another_baseline_and_a_missed_target_too(tmp_path: Path) -> None:
    wide = (
        Timed("a@r", five(1e-3, 0.1)),
        Timed("b@s", five(5e-4, 0.0)),
        Timed("c@r", status="crashed", reason="it fell"),
    )
    found = re.search(r'class="others">(.*?)</script>', report_of(tmp_path / "run", *wide), re.DOTALL)
    assert found
    others = json.loads(found[1])["b@s"]
    assert others["c@r"]["single-stream"] == {"text": "crashed", "sort": "", "tone": "bad"}
    assert others["a@r"]["precision"]["text"].endswith(", target not met")


def test_what_one_process_leaves_unknown_is_not_written_as_nan(tmp_path: Path) -> None:
    once = (Timed("a@r", {(1, 11, 1): 1e-3}), Timed("b@s", {(1, 12, 1): 2e-3}))
    text = report_of(tmp_path / "run", *once)
    assert "2.00×" in row_of(text, "b@s")
    assert not re.search(r"\bnan\b", text.partition("<script>")[0])


def test_cells_are_sorted_by_what_was_measured_and_not_by_how_it_is_written(tmp_path: Path) -> None:
    found = re.search(r'data-sort="([^"]*)"[^>]*>500 µs', row_of(report_of(tmp_path / "run"), "b@s"))
    assert found
    assert float(found[1]) == pytest.approx(5e-4)


def test_every_other_baseline_is_there_with_its_ratios(tmp_path: Path) -> None:
    text = report_of(tmp_path / "run")
    found = re.search(r'class="others">(.*?)</script>', text, re.DOTALL)
    assert found
    others = json.loads(found[1])
    assert set(others) == {"a@r", "b@s"}
    assert others["b@s"]["a@r"]["vs baseline"]["text"].startswith("2.00× (")
    assert others["b@s"]["a@r"]["verdict"] == {"text": "slower", "sort": "slower", "tone": "slower"}
    assert others["b@s"]["b@s"]["vs baseline"]["text"] == "baseline"
    assert others["a@r"]["b@s"]["vs baseline"]["text"].startswith("0.50× (")


class TestCommands:
    def test_the_runs_command_is_narrowed_to_the_row_and_its_baseline(self, tmp_path: Path) -> None:
        found = commands(
            report_of(tmp_path / "run", **ran("quick", "--models", "a,b", "--seeds=2", "--out=x", "--quiet"))
        )
        assert found["b@s on t"] == "harness run quick --seeds=2 --models a,b --runtimes r,s --tasks t --baselines a@r"
        assert found["a@r on t"] == "harness run quick --seeds=2 --models a --runtimes r --tasks t --baselines a@r"
        assert found["the whole run"] == "harness run quick --models a,b --seeds=2"

    def test_the_versions_come_first(self, tmp_path: Path) -> None:
        versions = {"rnn-harness": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"}
        facts = ENVIRONMENT | {"versions": versions, "commit": "abc"}
        text = report_of(tmp_path / "run", environment=facts)
        assert commands(text)["the versions"] == "pip install torch==2.13.0 numpy==2.4.6"
        assert "Measured with rnn-harness 0.1.0, commit abc; install that first." in text
        assert "torch 2.13.0+cpu" in text

    def test_a_setting_of_a_sweep_is_one_value_of_it(self, tmp_path: Path) -> None:
        timed = [Timed("a@r", five(1e-3, 0.001), {"hidden_size": size}) for size in (6, 12)]
        suite = {"latency": {}, "sweep": {"hidden_size": [6, 12], "batch": [1, 2]}}
        found = commands(report_of(tmp_path / "run", *timed, suite=suite, **ran("sweep.toml")))
        row = next(command for what, command in found.items() if "H=12" in what)
        assert row.endswith("--baselines a@r --sweep hidden-size=12")

    def test_what_a_shell_would_act_on_is_quoted(self, tmp_path: Path) -> None:
        found = commands(report_of(tmp_path / "run", **ran("my suite; rm -rf ~.toml")))
        assert shlex.split(found["a@r on t"])[2] == "my suite; rm -rf ~.toml"

    def test_of_another_command_nothing_is_narrowed(self, tmp_path: Path) -> None:
        text = report_of(tmp_path / "run", environment=ENVIRONMENT | {"command": ["harness", "calibrate"]})
        assert commands(text)["a@r on t"] == "harness calibrate"


class TestLogs:
    @staticmethod
    def page_of(path: Path, log: str, content: bytes) -> str:
        """The page of a run whose only trial failed and names a log; the content is that of `logs/3.log`."""
        facts = {"name": "run", "suite": {}, "baselines": {}, "floors": [], "plugins": [], "environment": ENVIRONMENT}
        folder = RunFolder(path, {**facts, "trials": [trial_row("0001-parity", "parity", "c@r")]})
        folder.append({"trial": "0001-parity", "status": "failed", "reason": "why", "log": log})
        folder.close()
        (path / "logs").mkdir(exist_ok=True)
        (path / "logs" / "3.log").write_bytes(content)
        write_report(path)
        return (path / "report.html").read_text(encoding="utf-8")

    def test_the_end_of_a_failures_log_is_there_as_text(self, tmp_path: Path) -> None:
        text = self.page_of(
            tmp_path / "run", "logs/3.log", b"start" + b"." * MOST_LOG + b"\n<b>the end</b>\x1b[0m \xff"
        )
        assert "&lt;b&gt;the end&lt;/b&gt;" in text
        assert "start" not in text[text.index('class="log"') :].partition("</pre>")[0]
        assert "\x1b" not in text

    @pytest.mark.parametrize("log", ["logs/4.log", "../secret.log", "logs"])
    def test_a_log_that_is_not_there_or_elsewhere_is_left_out(self, tmp_path: Path, log: str) -> None:
        (tmp_path / "secret.log").write_text("secret", encoding="utf-8")
        text = self.page_of(tmp_path / "run", log, b"other")
        assert "why" in text
        assert 'class="log"' not in text
        assert "secret</pre>" not in text


def test_the_pictures_of_the_report_are_beside_it_and_those_of_an_earlier_one_go(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *PAIR)
    (run / "charts").mkdir()
    (run / "charts" / "old.svg").write_text("old", encoding="utf-8")
    write_report(run)
    named = re.findall(r"!\[[^\]]*\]\((charts/[a-z-]+\.svg)\)", (run / "report.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(f"charts/{path.name}" for path in (run / "charts").iterdir())
    assert {"charts/ratios.svg", "charts/distributions.svg"} <= set(named)


def test_of_many_settings_the_first_have_charts_and_all_have_a_table(tmp_path: Path) -> None:
    count = MOST_SETTINGS + 2
    timed = [
        Timed(variant, five(1e-3, 0.001), {"task": f"t{number}"})
        for number in range(count)
        for variant in ("a@r", "b@s")
    ]
    text = report_of(tmp_path / "run", *timed)
    assert text.count('<div class="grid">') == count
    assert len(list((tmp_path / "run" / "charts").glob("ratios-*.svg"))) == MOST_SETTINGS


def test_a_table_of_everything_ends_and_says_where_the_rest_is(tmp_path: Path) -> None:
    timed = [
        Timed("a@r", five(1e-3, 0.001), {"scenario": "offline", "batch": batch})
        for batch in range(1, MOST_ROWS // 2 + 2)
    ]
    text = report_of(tmp_path / "run", *timed)
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 2} rows; all are in <code>tables/latency.csv</code>." in text


def test_without_the_extra_there_are_tables_and_words_and_no_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "NEEDED", ("a_package_that_nobody_has",))
    run = write_run(tmp_path / "run", *PAIR)
    write_report(run)
    assert (run / "tables" / "summary.csv").exists()
    assert "](charts/" not in (run / "report.md").read_text(encoding="utf-8")
    assert not (run / "report.html").exists()
    assert not (run / "charts").exists()


def test_what_an_earlier_report_left_goes_and_what_others_put_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", *PAIR)
    write_report(run)
    (run / "charts" / "mine.txt").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(page, "NEEDED", ("a_package_that_nobody_has",))
    write_report(run)
    assert not (run / "report.html").exists()
    assert [path.name for path in (run / "charts").iterdir()] == ["mine.txt"]


def test_more_variants_than_can_be_baselines_are_told_of(tmp_path: Path) -> None:
    timed = [Timed(f"{'a' if number == 0 else f'v{number}'}@r", five(1e-3, 0.001)) for number in range(26)]
    text = report_of(tmp_path / "run", *timed)
    assert 'class="baseline"' not in text
    assert "Another baseline of lstm cannot be chosen" in text
