"""A matrix in words: every number, verdict and reason stands where a reader looks for it, whatever it is written on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_runs import ENVIRONMENT, Timed, five, probes_of, write_loads, write_run
from test_matrix import A, B, attempt, run, took

from harness import HarnessError
from harness.attempts import MEASURED, NOT_IMPORTED, write_attempt
from harness.cli import main
from harness.compare import compare_all
from harness.comparing import tell_matrix
from harness.document import document_markdown
from harness.history import EVERYTHING
from harness.matrix import Matrix, matrix, measured
from harness.matrix_report import matrix_document, matrix_lines
from harness.store import load


def markdown(found: Matrix, left_out: dict[Path, str] | None = None) -> str:
    return document_markdown(matrix_document(found, left_out or {}, intervals=True))


def cells(text: str, variant: str = A) -> list[str]:
    """What stands in the columns of a variant."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {variant} | ")]
    return row.strip("| ").split(" | ")[2:]


def test_a_cell_is_a_latency_with_its_interval_then_the_ratio_with_its_own_and_the_verdict(tmp_path: Path) -> None:
    text = markdown(matrix(took(tmp_path, {"1.9": 0.001, "1.10": 0.002}, spread=0.01), []))
    assert "| variant | scenario | lib 1.9 | lib 1.10 |" in text
    assert cells(text) == ["1 ms (0.981–1.02)", "2 ms (1.96–2.04), 2.000× (1.954–2.047) slower"]
    assert (
        "A column is a set of versions, by lib.\n\nA cell is the latency of a call, compute alone, with its 95 %"
        in text
    )
    assert "The same is within 1 %, and verdicts hold together, over the whole table." in text


def test_on_a_terminal_a_cell_is_short_and_no_line_is_longer_than_100_columns(tmp_path: Path) -> None:
    versions = {f"{number}.0": 0.001 * number for number in range(1, 8)}
    lines = matrix_lines(matrix(took(tmp_path, versions, spread=0.01), []), {})
    assert max(map(len, lines)) <= 100
    said = " ".join(lines)
    for number in range(2, 8):
        assert f"lib {number}.0" in said
        assert f"{number} ms ±2.0% {number / (number - 1):.2f}× slower" in said
    assert len([line for line in lines if line.startswith(A)]) > 1  # a table that is too wide is broken


def test_what_has_no_latency_says_its_status_in_the_table_and_why_below_it(tmp_path: Path) -> None:
    bad = [Timed(v, five(0.001), status="unsupported", reason=f"{v[0]} has no such operator") for v in (A, B)]
    whole = run(tmp_path / "1", {"lib": "1"}, Timed(A, five(0.001)), Timed(B, five(0.001)))
    failed = attempt(
        tmp_path / "x", "lib==0.9", outcome=NOT_IMPORTED, reason="ImportError: numpy", versions={"lib": "0.9"}
    )
    found = matrix([whole, run(tmp_path / "2", {"lib": "2"}, *bad)], [failed])
    text = markdown(found)
    assert cells(text) == ["not imported", "1 ms (1–1)", "unsupported"]
    assert "| lib 0.9 | not imported: ImportError: numpy | every row |" in text
    assert "| lib 2 | unsupported: a has no such operator | a@r (single-stream 1×5) |" in text
    assert text.count("ImportError: numpy") == 1
    said = " ".join(" ".join(matrix_lines(found, {})).split())
    assert "Not measured: lib 0.9: not imported: ImportError: numpy | every row" in said
    assert "Not measured: lib 2: unsupported: b has no such operator | b@r (single-stream 1×5)" in said


def test_every_column_is_named_with_its_folder_and_all_that_changed_before_it(tmp_path: Path) -> None:
    runs = [run(tmp_path / v, {"lib": v, "other": v}, Timed(A, five(0.001)), python=f"3.1{v}.0") for v in ("1", "2")]
    text = markdown(matrix(runs, []), {tmp_path / "y": "its run.json is damaged"})
    first, second = ("lib 1, other 1, python 3.11.0", "lib 2, other 2, python 3.12.0")
    assert f"| {first} | 2026-01-01 00:00:00 | " in text
    for name, old, new in (
        ("python", "3.11.0", "3.12.0"),
        ("version of lib", "1", "2"),
        ("version of other", "1", "2"),
    ):
        assert f"| {second}, {name} | {old} | {new} |" in text
    assert f"{second} against {first}: 3 versions changed, and a ratio is of all: python, lib, other." in text
    assert f"{second} against {first}: While t was timed, the machine itself was as fast in {second} " in text
    assert "| its run.json is damaged |" in text


def test_machines_that_differ_are_told_although_they_share_no_row(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "1", {"lib": "1"}, Timed(A, five(0.001))),
        run(tmp_path / "2", {"lib": "2"}, Timed(B, five(0.001)), cpu_model="Another CPU"),
    ]
    text = markdown(matrix(runs, [], allow_different=True))
    assert "| lib 2, cpu\\_model | A CPU | Another CPU |" in text
    assert "Another CPU" not in markdown(matrix(took(tmp_path / "one", {"1": 0.001, "2": 0.001}), []))


def test_whom_a_column_is_compared_with_is_said_where_that_is_not_the_one_before_it(tmp_path: Path) -> None:
    facts = [{"one": one, "other": other} for one, other in (("1", "2"), ("2", "2"), ("1", "1"))]
    runs = []
    for versions in facts:
        path = tmp_path / "-".join(versions.values())
        asked = tuple(f"{name}=={version}" for name, version in versions.items())
        made = attempt(path, *asked, outcome=MEASURED, reason="", versions=versions)
        runs.append(run(path, versions, Timed(A, five(0.001)), attempt=made))
    text = markdown(matrix(runs, []))
    assert "one 1, other 1 is compared with one 1, other 2, which is not beside it." in text
    assert text.count("which is not beside it") == 1


def test_what_was_not_measured_names_its_setting_where_there_are_several(tmp_path: Path) -> None:
    bad = [Timed(A, five(0.001), status="wrong", reason="off", row={"hidden_size": size}) for size in (3, 4)]
    good = [replace(each, status="ok", reason="") for each in bad]
    found = matrix([run(tmp_path / "1", {"lib": "1"}, *good), run(tmp_path / "2", {"lib": "2"}, *bad)], [])
    said = " ".join(" ".join(matrix_lines(found, {})).split())
    rows = [f"single-stream 1×5 [t on cpu: I=3 H={size} L=1, float32, 1 thread a call, compute]" for size in (3, 4)]
    assert f"Not measured: lib 2: wrong: off | a@r ({', '.join(rows)})" in said


def test_one_version_that_changed_needs_no_warning(tmp_path: Path) -> None:
    assert "versions changed" not in markdown(matrix(took(tmp_path, {"1": 0.001, "2": 0.001}), []))


def test_of_loads_which_are_left_out_nothing_is_said(tmp_path: Path) -> None:
    runs = []
    for version in ("1", "2"):
        facts = ENVIRONMENT | {"started_utc": "2026-01-01T00:00:00+00:00", "versions": {"lib": version}}
        loads = {"a@r": {slice_: probes_of(100.0) for slice_ in range(1, 6)}}
        path = write_loads(tmp_path / version, loads, canary=[1e-4] * 5, environment=facts)
        runs.append(measured(load(path), None))
    (noted,) = compare_all(runs[0].side, [runs[1].side])
    assert any("while loads are offered" in note for note in noted.notes)
    assert "while loads are offered" not in markdown(matrix(runs, []))


def test_what_numpy_does_to_the_canary_is_said(tmp_path: Path) -> None:
    runs = [run(tmp_path / v, {"numpy": v}, Timed(A, five(0.001))) for v in ("2.0", "2.4")]
    assert "The canary runs on Python and NumPy, which changed" in markdown(matrix(runs, []))


def test_what_pip_said_of_a_column_is_told(tmp_path: Path) -> None:
    line = "plugin 1 has requirement lib<1, but you have lib 1."
    made = attempt(tmp_path / "1", "lib==1", outcome=MEASURED, reason="", versions={"lib": "1"}, conflicts=(line,))
    found = matrix([run(made.path, {"lib": "1"}, Timed(A, five(0.001)), attempt=made)], [])
    assert f"Conflict: lib 1: {line}" in matrix_lines(found, {})


def test_text_of_a_stranger_acts_nowhere(tmp_path: Path) -> None:
    hostile = "<script>|`[x](http://y)"
    wrong = Timed(A, status="wrong", reason=hostile)
    runs = [run(tmp_path / "1", {"lib": hostile}, wrong), run(tmp_path / "2", {"lib": "2"}, Timed(A, five(0.001)))]
    text = markdown(matrix(runs, [attempt(tmp_path / "x", hostile, reason=hostile)]))
    assert "<script>" not in text
    for line in text.splitlines():
        if line.startswith(f"| {A} |"):
            assert line.count(" | ") == 4  # no cell was split
    assert not re.search(r"(?<!\\)\]\(", text)


class TestTheCommand:
    def made(self, path: Path, version: str, seconds: float) -> Path:
        """A run as `harness bench` leaves it."""
        facts = ENVIRONMENT | {"started_utc": "2026-01-01T00:00:00+00:00", "versions": {"lib": version}}
        write_run(path, Timed(A, five(seconds, 0.001)), environment=facts)
        write_attempt(attempt(path, f"lib=={version}", outcome=MEASURED, reason="", versions={"lib": version}))
        return path

    def test_prints_the_runs_and_attempts_below_a_folder_and_writes_them(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for version, seconds in (("1.10", 0.002), ("1.9", 0.001)):
            self.made(tmp_path / "deep" / version, version, seconds)
        write_attempt(attempt(tmp_path / "failed", "lib==2.*"))
        out = tmp_path / "matrix.md"
        main(["matrix", str(tmp_path), "--out", str(out)], standalone_mode=False)
        said, text = capsys.readouterr().out, out.read_text(encoding="utf-8")
        assert re.search("scenario +lib 1.9 +lib 1.10 +lib==2.*$", said, re.MULTILINE)
        assert "| variant | scenario | lib 1.9 | lib 1.10 | lib==2.\\* |" in text
        assert cells(text)[1:] == ["2 ms (2–2), 2.000× (1.995–2.005) slower", "not installed"]

    def test_writes_a_page_with_a_chart(self, tmp_path: Path) -> None:
        pytest.importorskip("vl_convert", reason="the extra `html` is not installed")
        self.made(tmp_path / "1", "1.9", 0.001)
        self.made(tmp_path / "2", "1.10", 0.002)
        main(["matrix", str(tmp_path), "--out", str(tmp_path / "m.html")], standalone_mode=False)
        text = (tmp_path / "m.html").read_text(encoding="utf-8")
        assert "<th" in text
        assert '<td class="slower">2 ms (2–2), 2.000× (1.995–2.005) slower</td>' in text
        assert '"versions": "1.10"' in text

    def test_names_what_is_damaged_gone_or_has_no_such_row_and_shows_the_rest(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.made(tmp_path / "good", "1", 0.001)
        (self.made(tmp_path / "damaged", "2", 0.001) / "run.json").write_text("{", encoding="utf-8")
        (self.made(tmp_path / "gone", "3", 0.001) / "run.json").unlink()
        (self.made(tmp_path / "unread", "4", 0.001) / "attempt.json").write_text("[", encoding="utf-8")
        facts = ENVIRONMENT | {"started_utc": "2026-01-01T00:00:00+00:00"}
        write_run(tmp_path / "other", Timed(B, five(0.001)), environment=facts)
        main(["matrix", str(tmp_path), "--variants", A], standalone_mode=False)
        said = " ".join(capsys.readouterr().out.split())
        assert "lib 1 lib 4" in said
        assert f"Left out: {tmp_path / 'other'}: it has no such row" in said
        assert f"Left out: {tmp_path / 'gone'}: its run.json is gone" in said
        assert f"Left out: {tmp_path / 'unread'}: its attempt.json is damaged" in said
        assert f"{tmp_path / 'damaged'}" in said

    def test_a_version_with_which_a_plugin_cannot_be_loaded_is_a_column_although_it_has_no_row(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.made(tmp_path / "1", "1", 0.001)
        failed = [{"name": "p", "distribution": "rnn-sound", "failure": "ImportError: no lib"}]
        facts = ENVIRONMENT | {"started_utc": "2026-01-01T00:00:00+00:00", "versions": {"lib": "2"}}
        write_run(tmp_path / "2", environment=facts, plugins=failed)
        write_attempt(attempt(tmp_path / "2", "lib==2", outcome=MEASURED, reason="", versions={"lib": "2"}))
        main(["matrix", str(tmp_path)], standalone_mode=False)
        said = capsys.readouterr().out
        assert re.search(f"^{A} .* plugin failed$", said, re.MULTILINE)
        assert "Not measured: lib 2: plugin failed: plugin 'p': ImportError: no lib | a@r (single-stream" in said

    def test_says_why_where_nothing_was_measured(self, tmp_path: Path) -> None:
        with pytest.raises(HarnessError, match="no run lies in"):
            tell_matrix(tmp_path, EVERYTHING, False, None)
        write_attempt(attempt(tmp_path / "x", "lib==2.*", reason="there is none"))
        with pytest.raises(HarnessError, match=r"nothing was measured in .*: there is none"):
            tell_matrix(tmp_path, EVERYTHING, False, None)
        path = self.made(tmp_path / "1", "1", 0.001)
        (path / "journal.jsonl").unlink()
        with pytest.raises(HarnessError, match=r"has a latency to show: .*journal\.jsonl' cannot be read"):
            tell_matrix(tmp_path, EVERYTHING, False, None)


def test_a_matrix_without_any_latency_is_said_and_no_error(tmp_path: Path) -> None:
    bad = Timed(A, status="crashed", reason="it was ended by SIGSEGV")
    found = matrix([run(tmp_path / v, {"lib": v}, bad) for v in ("1", "2")], [])
    assert cells(markdown(found)) == ["crashed", "crashed"]
    alike = "| all 2 that were measured | crashed: it was ended by SIGSEGV | a@r (single-stream 1×5) |"
    assert alike in markdown(found)
