"""A document as a page of HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness import document, page
from harness.formatting import inline
from harness.vega import Chart
from harness.verdicts import CARRIES_LESS, CARRIES_MORE, FASTER, SAME, SLOWER, UNDECIDED

TONES = {FASTER: FASTER, CARRIES_MORE: FASTER, SLOWER: SLOWER, CARRIES_LESS: SLOWER, SAME: SAME, UNDECIDED: UNDECIDED}
VERDICT = re.compile(rf"(?:.* )?({'|'.join(TONES)})")  # a cell that is one, or ends with one


def write_document(path: Path, what: document.Document, charts: Sequence[Chart]) -> None:
    """Write a document with its charts, which stand first.

    Raises:
        HarnessError: the extra `html` is not installed.
        OSError: the file cannot be written.
    """
    parts = [page.Section("charts", "Charts", [page.Picture(chart) for chart in charts])] if charts else []
    for number, section in enumerate(what.sections, start=1):
        blocks: list[page.Words | page.Grid] = [page.Words([f"- {inline(said)}" for said in section.remarks])]
        if section.header:
            cells = [[_cell(text) for text in row] for row in section.rows]
            blocks.append(page.Grid(section.header, cells, section.title or what.title))
        title = section.title or "To know beside"
        parts.append(page.Section(f"part-{number}", title, blocks, folded=section.is_list or section.folded))
    page.write_page(path, what.title, what.remarks, parts)


def _cell(text: str) -> page.Cell:
    found = VERDICT.fullmatch(text)
    return page.Cell(text, tone=TONES[found[1]] if found else "")
