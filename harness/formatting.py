"""Numbers in words, and pieces of Markdown in which no text of a stranger acts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import pandas as pd

from harness.contract import printable
from harness.schema import UNKNOWN

NONE = "–"
MOST_ROWS = 500  # of a table that lists everything
LONGEST_TEXT = 10_000  # characters of one; a cell that lists trials is long


def seconds(value: float) -> str:
    """A duration with three digits in the unit that fits: `233 µs`."""
    if math.isnan(value):
        return NONE
    scale, unit = unit_of(value)
    return f"{three_digits(value * scale)} {unit}"


def unit_of(value: float) -> tuple[float, str]:
    """What to multiply a duration in seconds by, and the unit that fits it then."""
    rounded = float(f"{value:.3g}")
    scales = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (1e-6, 1e6, "µs"))
    return next(((scale, unit) for least, scale, unit in scales if rounded >= least), (1e9, "ns"))


def three_digits(value: float) -> str:
    """Three significant digits, never an exponent."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def bytes_in_words(value: float) -> str:
    """A size or an amount of memory with three digits in the binary unit that fits: `1.5 MiB`."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**power:
            return f"{three_digits(value / 1024**power)} {unit}"
    return f"{value:.0f} bytes"


def with_prefix(value: float, unit: str) -> str:
    """An amount with three digits and the decimal prefix that fits: `12.3 mJ`, `1.2 MFLOP`."""
    rounded = float(f"{value:.3g}")
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m")):
        if rounded >= scale:
            return f"{three_digits(value / scale)} {prefix}{unit}"
    return f"{three_digits(value / 1e-6)} µ{unit}" if value else f"0 {unit}"


def sizes(**known: Any) -> str:
    """Sizes by their letters, without those that are unknown: `I=8 H=32 L=1`."""
    return " ".join(f"{name}={value}" for name, value in known.items() if not pd.isna(value))


def threads(count: Any) -> str:
    """`1 thread`, `2 threads`; nothing where that is unknown."""
    return "" if pd.isna(count) else f"{count} thread{'' if count == 1 else 's'}"


def joined(*parts: Any, by: str = ", ") -> str:
    """The parts that say something."""
    return by.join(str(part) for part in parts if part and part != UNKNOWN)


def on_device(task: str, device: str) -> str:
    """A task and where it was run, if that is known: `digits-rows on cpu`."""
    return joined(task, device, by=" on ")


def percent(low: float, high: float) -> str:
    """An interval of logarithms around its middle: ± a percentage, or the factor where that would mislead."""
    if not low > 0:
        return ""
    factor = math.sqrt(high / low)
    return f"±{100 * (factor - 1):.1f}%" if factor < 1.1 else f"×÷{factor:.2f}"


def percentage(share: float) -> str:
    """A share with two digits: 0.0083 is `0.83 %`."""
    if math.isnan(share):
        return NONE
    rounded = float(f"{100 * share:.2g}")
    return f"{rounded:.0f} %" if rounded >= 100 else f"{rounded:g} %"


def details(title: str, body: Sequence[str]) -> list[str]:
    """Markdown that is folded until it is asked for; nothing if there is none."""
    return [f"<details><summary>{title}</summary>", "", *body, "", "</details>", ""] if body else []


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table whose cells are texts; the header's own stand as they are."""
    lines = [list(header), ["---"] * len(header), *[[inline(value) for value in row] for row in rows]]
    return ["| " + " | ".join(line) + " |" for line in lines]


def long_table(header: Sequence[str], rows: Iterable[Sequence[Any]], count: int, where: str) -> list[str]:
    """The first 500 of so many rows as a table, and where all are; no lines if there is no row.

    A browser takes seconds for tens of thousands of rows, and nobody reads them.
    """
    lines = markdown_table(header, list(islice(rows, MOST_ROWS))) if count else []
    return (
        [*lines, "", f"The first {MOST_ROWS} of {count:,} rows; all are in `{where}`."] if count > MOST_ROWS else lines
    )


def inline(value: Any) -> str:
    """Text that stays text: it cannot end a Markdown cell or line, nor begin markup, HTML or a link."""
    text = printable(value, LONGEST_TEXT)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]!~|$])", r"\\\1", text)
    text = re.sub(r"^([-+=#])(?=[-+=#\s]|$)", r"\\\1", text)  # at the start of a line: a heading, a list or a rule
    text = re.sub(r"^(\d{1,9})(?=[.)](?:\s|$))", r"\1\\", text)
    return re.sub(r"(?i)(www)\.", r"\1&#46;", text.replace("://", ":&#47;&#47;"))  # no link of GitHub's own making


def plain(text: str) -> str:
    """Printable text alone, whatever strangers called their things; as long as it was."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def code(name: str) -> str:
    """A name in Markdown's type for code."""
    return f"`{printable(name).replace('`', chr(39))}`"
