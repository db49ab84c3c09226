"""What is said in sections, whatever it is written on: Markdown, a terminal and a page are made of one document."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.contract import printable
from harness.formatting import details, inline, markdown_table, plain

WIDTH = 100  # columns of a table where nobody says how wide it may be
LEAST = 8  # columns that a cell keeps, however narrow the terminal
NARROW = 20  # columns to which names are shortened before a table is broken


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document: some sentences, and a table.

    Attributes:
        title: stands over it; may be empty.
        remarks: sentences, before the table.
        header: the names of the table's columns; none where there is no table.
        rows: cells, one a column, as text that nothing has been done to.
        keys: how many of the first columns say which row it is; they are repeated where a table is broken.
        spare: a column that is left out, and named, where a terminal is too narrow; empty for none.
        is_list: its rows are facts: a terminal writes each as a line, `title: first: second | third`.
        folded: hidden until it is asked for; a terminal does without.
    """

    title: str = ""
    remarks: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    keys: int = 1
    spare: str = ""
    is_list: bool = False
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """What a command has to say.

    Attributes:
        title: of the whole; a terminal does without.
        remarks: sentences before the first section.
        sections: in the order in which they are read.
    """

    title: str
    remarks: tuple[str, ...]
    sections: tuple[Section, ...]


def document_markdown(document: Document) -> str:
    """The document as Markdown in which no text of a stranger acts."""
    lines = [f"# {inline(document.title)}", ""]
    for remark in document.remarks:
        lines += [inline(remark), ""]
    for section in document.sections:
        body = [line for remark in section.remarks for line in (inline(remark), "")]
        if section.header:
            body += [*markdown_table([inline(name) for name in section.header], section.rows), ""]
        if section.folded:
            lines += details(html.escape(printable(section.title)), body[:-1])
        else:
            lines += [f"## {inline(section.title)}", "", *body] if section.title else body
    return "\n".join(lines)


def document_lines(document: Document, width: int = WIDTH) -> list[str]:
    """The document as printable lines for a terminal, none longer than this many columns."""
    lines = [*document.remarks, ""]
    for section in document.sections:
        if section.folded:
            continue
        if section.is_list:
            lines += [f"{section.title}: {first}: {' | '.join(rest)}" for first, *rest in section.rows]
            continue
        lines += [section.title, ""] if section.title else []
        lines += section.remarks
        if section.header:
            lines += [""] if section.remarks else []
            lines += [*_table(section, width), ""]
    return wrapped(lines, width)


def wrapped(lines: Iterable[str], width: int = WIDTH) -> list[str]:
    """The lines, printable, and none longer than this many columns."""
    wrapper = textwrap.TextWrapper(width, subsequent_indent="    ", break_on_hyphens=False)
    return [part for line in map(plain, lines) for part in (wrapper.wrap(line) if len(line) > width else [line])]


def _table(section: Section, width: int) -> list[str]:
    """Columns under each other. What is too wide loses its spare column first, and is then broken into several."""
    rows = [section.header, *section.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns, said = list(range(len(widths))), list[str]()
    if section.spare and _needed(columns, widths) > width:
        columns.remove(section.header.index(section.spare))
        said = ["", f"Left out at {width} columns: {section.spare}; --out FILE.md has it."]
    keys = columns[: section.keys]
    parts = [list(keys)]
    for column in columns[section.keys :]:
        if _needed([*parts[-1], column], widths) > width and len(parts[-1]) > len(keys):
            parts.append(list(keys))
        parts[-1].append(column)
    tables = [_aligned([[row[column] for column in part] for row in rows], width) for part in parts]
    return [line for table in tables for line in ("", *table)][1:] + said


def _needed(columns: Sequence[int], widths: Sequence[int]) -> int:
    """How wide a table of these columns is at least, the names in its first column shortened."""
    return min(widths[columns[0]], NARROW) + sum(2 + widths[column] for column in columns[1:])


def _aligned(rows: list[list[str]], width: int) -> list[str]:
    """Columns of one width each; where that is too wide, names lose their middle first, and then the widest cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(widths[0], LEAST)
    over = sum(widths) + 2 * (len(widths) - 1) - width
    widths[0] -= max(0, min(over, widths[0] - NARROW))
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > LEAST:
        widths[widths.index(max(widths))] -= 1
    short = [[_shortened(cell, most) for cell, most in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(cell.ljust(most) for cell, most in zip(row, widths, strict=True)).rstrip() for row in short]


def _shortened(text: str, most: int) -> str:
    """Names that begin alike differ at their ends, so it is the middle that goes."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
