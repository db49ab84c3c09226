"""A page of HTML: it is whole, its Markdown is what it was, and text stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import page
from harness.contract import HarnessError, printable
from harness.formatting import details, inline, markdown_table
from harness.page import Cell, Commands, Grid, Log, Picture, Section, Words, write_page, write_picture
from harness.vega import Chart, spec_of

pytest.importorskip("vl_convert", reason="the extra `html` is not installed")
HOSTILE = "</script></title><img src=x onerror=alert(1)>\" onclick='x'"
CHART = Chart("c", "Title", "Reading.", spec_of([{"x": 1, "n": HOSTILE}], mark="point", encoding={"x": {"field": "x"}}))


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def written(tmp_path: Path, *blocks: Grid | Words | Picture | Commands | Log, title: str = "Title") -> str:
    write_page(tmp_path / "page.html", title, ["a fact"], [Section("one", "One", blocks)])
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_asks_nothing_of_anybody(tmp_path: Path) -> None:
    text = written(tmp_path, Words(["*Words*"]), Picture(CHART))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src &#39;none&#39;;")
    for tag, attributes in Reader(text).tags:
        assert tag not in ("link", "iframe", "object", "img", "base")
        assert "src" not in attributes
        assert not (attributes.get("href") or "#").startswith("http")


def test_what_is_hostile_is_text_wherever_it_stands(tmp_path: Path) -> None:
    grid = Grid(["variant"], [[Cell(HOSTILE), Cell(HOSTILE, HOSTILE)]], HOSTILE, {HOSTILE: (HOSTILE, [HOSTILE])}, {})
    others = Grid([HOSTILE], [[Cell(HOSTILE)]], "c", {}, {HOSTILE: {HOSTILE: {HOSTILE: {"text": HOSTILE}}}})
    blocks = (
        grid,
        others,
        Words([inline(HOSTILE)]),
        Picture(CHART),
        Commands([(HOSTILE, HOSTILE)]),
        Log(HOSTILE, HOSTILE),
    )
    read = Reader(written(tmp_path, *blocks, title=HOSTILE))
    assert "img" not in {tag for tag, _ in read.tags}
    assert not [attributes for _, attributes in read.tags if "onclick" in attributes or "onerror" in attributes]
    assert read.text.count(HOSTILE) >= 8


@given(text=st.text())
def test_any_text_in_markdown_is_that_text_on_the_page(text: str) -> None:
    read = Reader(Words(markdown_table(["name"], [[text], ["end"]])).html)
    assert {tag for tag, _ in read.tags} <= {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert read.text.split() == ["name", *printable(text, 10_000).split(), "end"]


def test_what_is_folded_in_markdown_is_folded_on_the_page_and_nothing_else_is_html() -> None:
    lines = ["before", "", *details("A & B", ["inside"]), inline("<details><summary>x</summary>"), "<b>raw</b>"]
    read = Reader(Words(lines).html)
    assert [tag for tag, _ in read.tags] == ["p", "details", "summary", "p", "p"]
    assert "A & B" in read.text
    assert "<b>raw</b>" in read.text


def test_what_cannot_be_seen_has_a_name(tmp_path: Path) -> None:
    text = written(tmp_path, Grid(["variant", "n"], [[Cell("a"), Cell("1", 1.0)]], "all of them"), Picture(CHART))
    regions = [attributes for _, attributes in Reader(text).tags if attributes.get("role") == "region"]
    assert len(regions) == 3
    assert all(attributes["aria-label"] for attributes in regions)
    assert '<html lang="en">' in text


def test_the_library_is_there_only_where_something_is_drawn(tmp_path: Path) -> None:
    assert len(written(tmp_path, Picture(CHART))) > 500_000 > 10 * len(written(tmp_path, Words(["no picture"])))


def test_a_picture_is_svg_with_the_names_as_text(tmp_path: Path) -> None:
    encoding = {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "n", "type": "nominal"}}
    write_picture(
        tmp_path / "c.svg", Chart("c", "T", "R", spec_of([{"x": 1, "n": "<b>&"}], mark="point", encoding=encoding))
    )
    text = (tmp_path / "c.svg").read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "&lt;b&gt;&amp;" in text


@pytest.mark.parametrize("write", [lambda path: write_page(path, "t", [], []), lambda path: write_picture(path, CHART)])
def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    monkeypatch.setattr(page, "NEEDED", ("a_package_that_nobody_has",))
    assert not page.is_available()
    with pytest.raises(HarnessError, match=r"pip install 'rnn-harness\[html\]'"):
        write(tmp_path / "x")  # type: ignore[operator]
    assert not (tmp_path / "x").exists()
