"""A history: runs in the order they began, compared as any two are, and never across machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import ENVIRONMENT, Timed, five, probes_of, process_row, write_loads, write_run

from harness import HarnessError
from harness.compare import compare
from harness.comparing import tell_history
from harness.document import document_markdown
from harness.history import Line, Meant, Series, history
from harness.history_report import history_document, history_lines
from harness.sides import Side, side_of
from harness.store import Run, load

A, B = "a@r", "b@r"
FIRST = datetime(2025, 1, 1, 12, tzinfo=UTC)
OTHER_MACHINE = {"cpu_model": "Another CPU"}


def history_markdown(series: Sequence[Series], left_out: Mapping[Path, str]) -> str:
    return document_markdown(history_document(series, left_out, intervals=True))


def begun(path: Path, day: int, *variants: Timed, **facts: Any) -> Path:
    """A run that began on this day, its variants timed in five processes, its canary as steady as can be."""
    moment = (FIRST + timedelta(days=day)).isoformat()
    quiet = [process_row(slice_) for slice_ in range(1, 6)]
    return write_run(path, *variants, processes=quiet, environment=ENVIRONMENT | {"started_utc": moment} | facts)


def side(path: Path, day: int, *variants: Timed, **facts: Any) -> Side:
    return side_of(load(begun(path, day, *variants, **facts)))


def took(tmp_path: Path, *seconds: float, spread: float = 0.001) -> list[Side]:
    """Runs of one variant, one a day, in folders whose names are in another order."""
    return [side(tmp_path / f"{9 - day}", day, Timed(A, five(value, spread))) for day, value in enumerate(seconds)]


def line_of(series: Series, variant: str = A) -> Line:
    (found,) = [line for line in series.lines if line.point.variant == variant]
    return found


def test_runs_stand_in_the_order_they_began_whatever_they_are_called(tmp_path: Path) -> None:
    sides = took(tmp_path, 0.001, 0.002, 0.004)
    (series,) = history([sides[2], sides[0], sides[1]])
    assert [(run.number, run.path) for run in series.runs] == [(n, str(tmp_path / str(10 - n))) for n in (1, 2, 3)]
    assert [run.started for run in series.runs] == [FIRST + timedelta(days=day) for day in range(3)]
    latencies = [found.value for found in line_of(series).latencies if found]
    assert latencies == pytest.approx([0.001, 0.002, 0.004])


def test_a_latency_and_its_interval_are_those_of_the_runs_own_table(tmp_path: Path) -> None:
    facts = ENVIRONMENT | {"started_utc": FIRST.isoformat()}
    several_looks = {"slices": 3, "max_slices": 12}
    timed = Timed(A, five(0.001, 0.01))
    run = load(write_run(tmp_path / "run", timed, environment=facts, latency=several_looks))
    (found,) = line_of(history([side_of(run)])[0]).latencies
    row = run.latency.set_index("boundary").loc["compute"]
    assert found
    assert (found.value, found.low, found.high) == (row["latency_s"], row["latency_low_s"], row["latency_high_s"])


def test_the_newest_is_compared_with_the_one_before_and_with_the_first_as_two_runs_are(tmp_path: Path) -> None:
    paths = [
        begun(tmp_path / str(day), day, Timed(A, five(0.001 * ratio, 0.01))) for day, ratio in enumerate((1, 2, 3))
    ]
    runs = [load(path) for path in paths]
    line = line_of(history([side_of(run) for run in runs])[0])
    assert line.before
    assert line.first
    assert (line.before.earlier, line.before.newest, line.first.earlier, line.first.newest) == (2, 3, 1, 3)
    for found, base in ((line.before, runs[1]), (line.first, runs[0])):
        (row,) = [row for row in compare(base, runs[2]).rows if row.point.boundary == "compute"]
        assert replace(found.row, verdict=row.verdict) == row
    assert (line.before.row.verdict, line.first.row.verdict) == ("slower", "slower")


SURE_ALONE = 1e-3 * math.exp(2.5 * 0.02)  # 2.5 standard errors off: 5 % is enough for one verdict, and not for two


def test_a_ratio_to_the_one_before_and_to_the_first_is_one_verdict_where_there_are_two_runs(tmp_path: Path) -> None:
    line = line_of(history(took(tmp_path, 0.001, SURE_ALONE, spread=0.02))[0])
    assert line.before == line.first
    assert line.first
    assert line.first.row.verdict == "slower"


def test_verdicts_hold_over_the_ratios_to_the_one_before_and_to_the_first_together(tmp_path: Path) -> None:
    line = line_of(history(took(tmp_path, 0.001, 0.001, SURE_ALONE, spread=0.02))[0])
    assert line.before
    assert line.first
    assert (line.before.row.verdict, line.first.row.verdict) == ("undecided", "undecided")


def test_verdicts_hold_over_all_rows_that_are_shown_and_no_others(tmp_path: Path) -> None:
    both = [
        side(tmp_path / f"{day}", day, Timed(A, five(seconds, 0.02)), Timed(B, five(0.001, 0.02)))
        for day, seconds in enumerate((0.001, SURE_ALONE))
    ]
    together, alone = line_of(history(both)[0]).before, line_of(history(both, Meant([A]))[0]).before
    assert together
    assert alone
    assert (together.row.verdict, alone.row.verdict) == ("undecided", "slower")


def test_a_row_is_followed_through_the_runs_that_have_it(tmp_path: Path) -> None:
    both, one = [Timed(A, five(0.001)), Timed(B, five(0.001))], [Timed(A, five(0.001))]
    sides = [side(tmp_path / f"{day}", day, *own) for day, own in enumerate((both, one, both, one))]
    (series,) = history(sides)
    line = line_of(series, B)
    assert [found is not None for found in line.latencies] == [True, False, True, False]
    assert line.before == line.first
    assert line.first
    assert (line.first.earlier, line.first.newest) == (1, 3)
    lonely = line_of(history(sides[:2])[0], B)
    assert (lonely.before, lonely.first) == (None, None)


@pytest.mark.parametrize("status", ["wrong", "failed", "skipped"])
def test_what_is_not_ok_is_no_latency_although_it_has_samples(tmp_path: Path, status: str) -> None:
    bad = Timed(A, five(0.002), status=status, reason="because")
    sides = [side(tmp_path / "0", 0, Timed(A, five(0.001))), side(tmp_path / "1", 1, bad)]
    line = line_of(history(sides)[0])
    assert line.latencies[1] is None
    assert line.before is None


def test_the_canarys_drift_widens_the_ratio(tmp_path: Path) -> None:
    ends = []
    for name, beat in (("still", 1e-4), ("moved", 1.1e-4)):
        slow = [process_row(slice_, canary_s=beat) for slice_ in range(1, 6)]
        base = begun(tmp_path / name / "0", 0, Timed(A, five(0.001, 0.001)))
        facts = ENVIRONMENT | {"started_utc": (FIRST + timedelta(days=1)).isoformat()}
        new = write_run(tmp_path / name / "1", Timed(A, five(0.001, 0.001)), processes=slow, environment=facts)
        (series,) = history([side_of(load(path)) for path in (base, new)])
        before = line_of(series).before
        assert before
        ends.append(before.row.estimate.high)
    assert ends[1] > 1.1 * ends[0]
    assert (
        "Run 2 against run 1: While t was timed, the machine itself was 10.0 % slower in run 2 ("
        in history_markdown([series], {})
    )


def test_what_changed_from_one_run_to_the_next_is_told_and_where_it_is_alike_nothing_is(tmp_path: Path) -> None:
    newer = {"commit": "def", "versions": {"rnn-harness": "0.2.0"}}
    sides = [side(tmp_path / f"{day}", day, Timed(A, five(0.001)), **own) for day, own in enumerate(({}, {}, newer))]
    (series,) = history(sides)
    assert [[str(change) for change in run.changes] for run in series.runs] == [
        [],
        [],
        ["commit: – | def", "version of rnn-harness: 0.1.0 | 0.2.0"],
    ]
    lines = history_lines([series], {})
    assert "Changed: run 3, version of rnn-harness: 0.1.0 | 0.2.0" in lines
    assert not [line for line in lines if line.startswith("Changed: run 2")]


def test_loads_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    rates = {slice_: probes_of(rate) for slice_, rate in enumerate((90.0, 100.0), start=1)}
    begun = ENVIRONMENT | {"started_utc": "2026-01-01T00:00:00+00:00"}
    (series,) = history([side_of(load(write_loads(tmp_path / "run", {A: rates}, environment=begun)))])
    assert series.lines == ()
    assert "Loads are left out." in " ".join(history_lines([series], {}))


def test_another_machine_is_a_series_of_its_own_that_is_gone_on_with_when_the_machine_comes_back(
    tmp_path: Path,
) -> None:
    facts: list[dict[str, Any]] = [{}, OTHER_MACHINE, {}, OTHER_MACHINE]
    sides = [side(tmp_path / f"{day}", day, Timed(A, five(0.001 * (1 + day))), **own) for day, own in enumerate(facts)]
    one, other = history(sides)
    assert [[run.number for run in series.runs] for series in (one, other)] == [[1, 3], [2, 4]]
    assert one.differences == ()
    assert [str(item) for item in other.differences] == ["cpu_model: A CPU | Another CPU"]
    found = line_of(other).before
    assert found
    assert found.row.estimate.value == pytest.approx(2.0)
    lines = history_lines([one, other], {})
    assert "Series 2, matters and differs: cpu_model: A CPU | Another CPU" in lines
    assert any("these are 2 series, and no run is compared with one of another" in line for line in lines)


@pytest.mark.parametrize(
    ("variants", "scenarios", "shown"),
    [
        (None, None, {A, B}),
        (["a*"], None, {A}),
        (["!a*"], None, {B}),
        (["*", "!b@r"], None, {A}),
        ([A, B], ["single-*"], {A, B}),
        (None, ["!single-stream"], set()),
    ],
)
def test_rows_are_chosen_by_names_and_patterns(
    tmp_path: Path, variants: list[str] | None, scenarios: list[str] | None, shown: set[str]
) -> None:
    own = side(tmp_path / "run", 0, Timed(A, five(0.001)), Timed(B, five(0.001)))
    (series,) = history([own], Meant(variants, scenarios))
    assert {line.point.variant for line in series.lines} == shown


def test_a_pattern_that_means_nothing_is_named_with_what_there_is() -> None:
    rows = [(A, "single-stream"), (B, "offline")]
    Meant(["a*", "!b@r"], ["offline"]).check(rows)
    for meant, said in (
        (Meant(["c*"]), r"--variants: no run has 'c\*'; there are: a@r, b@r"),
        (Meant(None, ["!stream"]), "--scenarios: no run has 'stream'; there are: single-stream, offline"),
    ):
        with pytest.raises(HarnessError, match=said):
            meant.check(rows)


def test_a_side_that_does_not_say_when_it_began_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not say when it began"):
        history([replace(took(tmp_path, 0.001)[0], started=None)])


# ------------------------------------------------------------------------------------------------------- in words


def test_a_table_has_the_ratios_first_and_then_a_column_a_run(tmp_path: Path) -> None:
    found = history(took(tmp_path, 0.001, 0.002, 0.001, spread=0.0))
    row = "| a@r | single-stream 1×5 | 0.500× (0.500–0.500) faster | 1.000× (1.000–1.000) same | 1 ms (1–1) | 2 ms (2"
    text = history_markdown(found, {})
    assert text.startswith("# History\n\n3 runs, oldest first.")
    assert row in text
    assert "| variant | scenario | newest / before | newest / first | run 1 | run 2 | run 3 |" in text
    rows = [line.split() for line in history_lines(found, {}) if line.startswith("a@r")]
    assert [word for line in rows for word in line if word in ("faster", "same", "2")] == ["faster", "same", "2"]
    assert "| 2 | 2025-01-02 12:00:00 |" in text


def test_a_run_and_a_ratio_that_nothing_in_a_setting_has_are_no_columns_of_it(tmp_path: Path) -> None:
    sides = [side(tmp_path / f"{day}", day, Timed(A, five(0.001), {"task": task})) for day, task in enumerate("tut")]
    lines = [" ".join(line.split()) for line in history_lines(history(sides), {})]
    assert [line for line in lines if line.startswith("variant")] == [
        "variant scenario newest / before newest / first run 1 run 3",
        "variant scenario run 2",
    ]


def test_what_was_left_out_is_named_with_its_reason(tmp_path: Path) -> None:
    found = history(took(tmp_path, 0.001))
    left_out = {Path("broken"): "it has no end"}
    assert history_lines(found, left_out)[-1] == "Left out: broken: it has no end"
    assert "| broken | it has no end |" in history_markdown(found, left_out)
    assert "Left out" not in history_markdown(found, {})


@pytest.mark.parametrize("text", ["a | b", "one\ntwo", "<script>", "\x1b[31m", "long" * 60, "long words " * 30])
def test_hostile_text_is_printable_and_no_line_is_wider_than_100_columns(tmp_path: Path, text: str) -> None:
    own = [Timed(text, five(0.001), {"task": text})]
    sides = [
        side(tmp_path / f"{day}", day, *own, versions={text: str(day)}, cpu_model=f"{text}{day % 2}")
        for day in range(4)
    ]
    found = history(sides)
    for line in history_lines(found, {Path(text): text}):
        assert line.isprintable()
        assert len(line) <= 100
    assert "<script>" not in history_markdown(found, {Path(text): text})


# ------------------------------------------------------------------------------------------------------- from a folder


def test_runs_without_a_row_that_is_meant_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for day, variant in enumerate((A, B, A, A)):
        begun(tmp_path / str(day), day, Timed(variant, five(0.001)))
    asked: list[str] = []

    def loaded(path: Path) -> Run:
        asked.append(path.name)
        return load(path)

    monkeypatch.setattr("harness.comparing.load", loaded)
    tell_history(tmp_path, Meant([A]), None, None)
    assert asked == ["0", "2", "3"]
    asked.clear()
    tell_history(tmp_path, Meant([A]), 2, None)
    assert asked == ["2", "3"]
    assert "2 runs, oldest first" in capsys.readouterr().out


def test_a_run_that_cannot_be_read_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(3):
        begun(tmp_path / str(day), day, Timed(A, five(0.001)))
    (tmp_path / "1" / "journal.jsonl").unlink()
    header = json.loads((tmp_path / "2" / "run.json").read_text(encoding="utf-8"))
    header["suite"]["latency"] = {"slices": "many"}
    (tmp_path / "2" / "run.json").write_text(json.dumps(header), encoding="utf-8")
    tell_history(tmp_path, Meant(), None, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 run, oldest first" in said
    assert f"Left out: {tmp_path / '1'}: " in said
    assert "journal.jsonl' cannot be read: No such file or directory" in said
    assert "its suite is not one" in said


def test_where_nothing_can_be_shown_it_says_why(tmp_path: Path) -> None:
    begun(tmp_path / "a", 0, Timed(A, five(0.001)))
    (tmp_path / "a" / "journal.jsonl").unlink()
    with pytest.raises(HarnessError, match=r"has a latency to show: .*journal\.jsonl' cannot be read"):
        tell_history(tmp_path, Meant(), None, None)
