"""A document as a page: every cell is there as text, and verdicts have their colours."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_runs import ENVIRONMENT, Timed, five, write_run

from harness.cli import main
from harness.document import Document, Section
from harness.document_page import write_document

pytest.importorskip("vl_convert", reason="the extra `html` is not installed")
HOSTILE = "<script>alert(1)</script> faster"


def page_of(path: Path, *sections: Section) -> str:
    write_document(path / "page.html", Document("Title", ("First.", HOSTILE), sections), [])
    return (path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("word", "tone"),
    [
        *((word, word) for word in ("faster", "slower", "same", "undecided")),
        *(("carries more", "faster"), ("carries less", "slower")),
    ],
)
def test_a_cell_that_is_a_verdict_or_ends_with_one_has_its_colour(tmp_path: Path, word: str, tone: str) -> None:
    rows = (("a", word, f"1.02× (1.01–1.03) {word}", f"{word} or not", f"un{word}"),)
    text = page_of(tmp_path, Section("S", header=("v", "1", "2", "3", "4"), rows=rows))
    assert text.count(f'<td class="{tone}">') == 2
    assert f"<td>{word} or not</td>" in text


def test_text_of_a_stranger_is_text_and_what_is_long_is_folded(tmp_path: Path) -> None:
    facts = Section("Changed", header=("", "BASE", "NEW"), rows=((HOSTILE, HOSTILE, ""),), is_list=True)
    text = page_of(tmp_path, Section(HOSTILE, (HOSTILE,)), facts)
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt; faster") >= 5
    assert '<details class="section" id="part-2">' in text


class TestTheCommands:
    @pytest.fixture
    def runs(self, tmp_path: Path) -> Path:
        for number, factor in enumerate((1.0, 1.5), start=1):
            facts = ENVIRONMENT | {"started_utc": f"2026-01-0{number}T00:00:00+00:00"}
            timed = (Timed("a@r", five(1e-3, 0.001)), Timed("b@r", five(factor * 1e-3, 0.001)))
            write_run(tmp_path / f"run{number}", *timed, environment=facts)
        return tmp_path

    def test_compare_writes_a_page_with_ratios_as_a_table_and_as_a_chart(self, runs: Path) -> None:
        out = runs / "compared.html"
        main(["compare", str(runs / "run1"), str(runs / "run2"), "--out", str(out)], standalone_mode=False)
        text = out.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert "1.500× (" in text
        assert '"ratio": 1.5' in text

    def test_history_writes_a_page_with_every_run(self, runs: Path) -> None:
        out = runs / "history.html"
        main(["history", str(runs), "--out", str(out)], standalone_mode=False)
        text = out.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert '"began": "2026-01-02T00:00:00Z"' in text
        assert "1.5 ms (" in text

    def test_any_other_name_is_markdown(self, runs: Path) -> None:
        out = runs / "compared.txt"
        main(["compare", str(runs / "run1"), str(runs / "run2"), "--out", str(out)], standalone_mode=False)
        assert out.read_text(encoding="utf-8").startswith("# Comparison")
