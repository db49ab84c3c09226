"""A page of HTML that needs nothing but itself: tables, Markdown, charts and logs, none of whose text can act."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.contract import HarnessError, printable
from harness.journal import write_atomically
from harness.vega import Chart

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

FOLDER = Path(__file__).parent / "page_templates"
NEEDED = ("jinja2", "markdown_it", "vl_convert")  # the extra `html`
FOLDED, UNFOLDED = re.compile("<details><summary>(.*)</summary>"), "</details>"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:"
"""What a browser may do with the page: nothing from elsewhere. Vega makes functions of its charts' expressions."""


@dataclass(frozen=True)
class Cell:
    """One cell of a `Grid`: its text, what it is sorted by (None: as text), and its tone, a class of the page's style.

    `column` names what another baseline changes in it, and is empty for all else.
    """

    text: str
    sort: float | str | None = None
    tone: str = ""
    column: str = ""


@dataclass(frozen=True)
class Grid:
    """A table that can be sorted and filtered, with baselines to choose from.

    Attributes:
        header: the columns' names.
        rows: cells under it; the first names the row.
        caption: what the table is, for those who cannot see where it stands.
        baselines: of every architecture the baseline that is shown, and those there are.
        others: what another baseline changes: by baseline, then by row's name, the column's cell.
    """

    kind: ClassVar[str] = "grid"
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str
    baselines: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Words:
    """Lines of Markdown whose strangers' texts went through `harness.formatting.inline`."""

    kind: ClassVar[str] = "words"
    lines: Sequence[str]

    @property
    def html(self) -> str:
        """The same as HTML. What is HTML in it stays text, but for the lines of `harness.formatting.details`."""
        parts: list[str] = []
        own: list[str] = []
        for line in (*self.lines, ""):
            title = FOLDED.fullmatch(line)
            if title or line == UNFOLDED:
                parts.append(_markdown().render("\n".join(own)))
                parts.append(f"<details><summary>{escape(unescape(title[1]))}</summary>" if title else line)
                own = []
            else:
                own.append(line)
        return "".join((*parts, _markdown().render("\n".join(own))))


@dataclass(frozen=True)
class Picture:
    """A chart, drawn by the page."""

    kind: ClassVar[str] = "picture"
    chart: Chart


@dataclass(frozen=True)
class Commands:
    """Commands to copy, each with what it is for."""

    kind: ClassVar[str] = "commands"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Log:
    """What a process printed, as it is."""

    kind: ClassVar[str] = "log"
    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; one that is folded shows its heading alone until it is opened."""

    name: str
    title: str
    blocks: Sequence[Grid | Words | Picture | Commands | Log]
    folded: bool = False


def is_available() -> bool:
    """Whether the extra `html` is installed."""
    return all(importlib.util.find_spec(name) for name in NEEDED)


def write_page(path: Path, title: str, facts: Sequence[str], sections: Sequence[Section]) -> None:
    """Write a page.

    Args:
        path: the file.
        title: of the page.
        facts: short texts under it.
        sections: its parts.

    Raises:
        HarnessError: the extra `html` is not installed.
    """
    if not is_available():
        raise HarnessError("a page of HTML needs more packages; pip install 'rnn-harness[html]'")
    import jinja2

    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = any(block.kind == "picture" for section in sections for block in section.blocks)
    text = environment.get_template("page.html").render(
        title=printable(title),
        facts=[printable(fact) for fact in facts],
        sections=sections,
        policy=POLICY,
        library=drawing_library() if drawn else "",
    )
    write_atomically(path, text)


@cache
def drawing_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_grammar())
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def write_picture(path: Path, chart: Chart) -> None:
    """Write a chart as SVG, on white, with its scenario or task that comes first.

    Raises:
        HarnessError: the extra `html` is not installed.
    """
    if not is_available():
        raise HarnessError("a picture of a chart needs more packages; pip install 'rnn-harness[html]'")
    import vl_convert

    config = {
        "background": "white",
        "view": {"stroke": None},
        "font": "sans-serif",
        "legend": {"columns": 3, "orient": "bottom"},
    }
    svg: str = vl_convert.vegalite_to_svg(chart.static, vl_version=_grammar(), config=config)
    write_atomically(path, svg)


def _grammar() -> str:
    """The newest version of Vega-Lite 6 that is at hand."""
    import vl_convert

    known = [version for version in vl_convert.get_vegalite_versions() if version.startswith("6.")]
    return str(max(known, key=lambda version: [int(part) for part in version.split(".")]))


@cache
def _markdown() -> MarkdownIt:
    """Renders Markdown; tables can be scrolled on a narrow page, with the keyboard too."""
    from markdown_it import MarkdownIt

    known = MarkdownIt("commonmark", {"html": False}).enable("table")
    known.add_render_rule("table_open", _open_table)
    known.add_render_rule("table_close", _close_table)
    return known


def _open_table(*_: Any) -> str:
    return '<div class="scroll" role="region" aria-label="table" tabindex="0"><table class="plain">\n'


def _close_table(*_: Any) -> str:
    return "</table></div>\n"
