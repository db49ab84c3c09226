"""Workflow files as data: the part of YAML that they are written in, read without a library for it."""

from __future__ import annotations

import re
from typing import Any

KEY = re.compile(r"([\w.-]+):(?: +(.*))?")


def read_yaml(text: str) -> Any:
    """Mappings, lists, flat `[a, b]`, strings in double quotes and blocks of text; all scalars stay strings.

    Raises:
        ValueError: anything else, a key that is given twice, or a line at no level; with its number.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1)]
    if tabbed := [number for number, line in lines if "\t" in line]:
        raise ValueError(f"line {tabbed[0]}: a tab")
    found, rest = _node(lines, 0)
    if rest:
        raise ValueError(f"line {rest[0][0]}: at no level: {rest[0][1]!r}")
    return found


Lines = list[tuple[int, str]]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _dropped(lines: Lines) -> Lines:
    """Without what says nothing at the start: empty lines and comments."""
    while lines and (not lines[0][1].strip() or lines[0][1].lstrip().startswith("#")):
        lines = lines[1:]
    return lines


def _node(lines: Lines, indent: int) -> tuple[Any, Lines]:
    """The mapping or list that begins here, at this indent, and the lines after it."""
    found: Any = None
    while (lines := _dropped(lines)) and _indent(lines[0][1]) == indent:
        number, line = lines[0]
        body = line[indent:]
        if body.startswith("- "):
            found = [] if found is None else found
            item = body[2:]
            if KEY.fullmatch(item):  # a mapping that begins on the line of its dash
                value, lines = _node([(number, " " * (indent + 2) + item), *lines[1:]], indent + 2)
            else:
                value, lines = _scalar(item, number), lines[1:]
            if not isinstance(found, list):
                raise ValueError(f"line {number}: an item in a mapping")
            found.append(value)
            continue
        found = {} if found is None else found
        match = KEY.fullmatch(body)
        if not match or not isinstance(found, dict) or match[1] in found:
            raise ValueError(f"line {number}: no key, or one that is there already: {line!r}")
        found[match[1]], lines = _value(match[2] or "", number, lines[1:], indent)
    return found, lines


def _value(text: str, number: int, lines: Lines, indent: int) -> tuple[Any, Lines]:
    """What stands behind a key at this indent."""
    if text == "|":
        block = []
        while lines and (not lines[0][1].strip() or _indent(lines[0][1]) > indent):
            block.append(lines[0][1])
            lines = lines[1:]
        least = min(_indent(line) for line in block if line.strip())
        return "\n".join(line[least:] for line in block).rstrip("\n") + "\n", lines
    if text:
        return _scalar(text, number), lines
    after = _dropped(lines)
    deeper = after and (_indent(after[0][1]) > indent or after[0][1][indent:].startswith("- "))
    return _node(after, _indent(after[0][1])) if deeper else (None, lines)


def _scalar(text: str, number: int) -> Any:
    """A string, or a flat list of them."""
    if text.startswith("["):
        if not text.endswith("]"):
            raise ValueError(f"line {number}: a list that does not end")
        return [_scalar(item.strip(), number) for item in text[1:-1].split(",")]
    if text.startswith('"'):
        if not re.fullmatch(r'"[^"\\]*"', text):
            raise ValueError(f"line {number}: a string that does not end: {text}")
        return text[1:-1]
    if text[0] in "'&*!|>{}%@`-" or ": " in text or " #" in text or text.endswith(":"):
        raise ValueError(f"line {number}: quote {text!r}")
    return text
