"""Documents: what stands in a section stands in Markdown and on a terminal, and nothing is wider than it may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.document import NARROW, Document, Section, document_lines, document_markdown

TABLE = Section(
    "Title", ("Said before.",), ("name", "value", "more"), (("a", "1", "x"), ("b", "22", "y")), spare="more"
)
LIST = Section("Changed", (), ("", "BASE", "NEW"), (("python", "3.11", "3.12"),), is_list=True)


def lines_of(*sections: Section, width: int = 100) -> list[str]:
    return document_lines(Document("Whole", ("First.",), sections), width)


def test_a_section_is_a_heading_sentences_and_a_table_in_markdown() -> None:
    text = document_markdown(Document("Whole", ("First.",), (TABLE, LIST)))
    assert text.splitlines() == [
        *("# Whole", "", "First.", "", "## Title", "", "Said before.", ""),
        *("| name | value | more |", "| --- | --- | --- |", "| a | 1 | x |", "| b | 22 | y |", ""),
        *("## Changed", "", "|  | BASE | NEW |", "| --- | --- | --- |", "| python | 3.11 | 3.12 |"),
    ]


def test_a_column_that_a_stranger_named_acts_as_little_as_any_text() -> None:
    section = Section(header=("a|b", "<b>*c*</b>"), rows=(("1", "2"),))
    assert (
        document_markdown(Document("Whole", (), (section,))).splitlines()[2] == r"| a\|b | &lt;b&gt;\*c\*&lt;/b&gt; |"
    )


def test_a_section_is_a_title_sentences_and_aligned_columns_on_a_terminal_and_a_list_a_line_a_row() -> None:
    assert lines_of(TABLE, LIST) == [
        *("First.", "", "Title", "", "Said before.", ""),
        *("name      value  more", "a         1      x", "b         22     y", ""),
        "Changed: python: 3.11 | 3.12",
    ]


def test_what_is_folded_is_details_in_markdown_whose_title_acts_as_little_as_any_text() -> None:
    section = Section("<b>More</b>\n", ("Said.",), ("name",), (("a",),), folded=True)
    assert document_markdown(Document("Whole", (), (section,))).splitlines() == [
        *("# Whole", "", "<details><summary>&lt;b&gt;More&lt;/b&gt;</summary>", "", "Said.", ""),
        *("| name |", "| --- |", "| a |", "", "</details>"),
    ]


def test_a_terminal_does_without_what_is_folded() -> None:
    assert lines_of(Section("More", ("Said.",), folded=True), LIST) == ["First.", "", "Changed: python: 3.11 | 3.12"]


def test_a_section_without_a_title_or_a_table_is_its_sentences() -> None:
    assert lines_of(Section(remarks=("One.", "Two."))) == ["First.", "", "One.", "Two."]


def wide(cells: int, width: int = 10, keys: int = 1, spare: str = "") -> Section:
    header = tuple(f"c{place}" for place in range(cells))
    return Section(
        header=header, rows=(tuple(f"{place}".rjust(width, "-") for place in range(cells)),), keys=keys, spare=spare
    )


def test_the_spare_column_goes_first_where_a_table_is_too_wide_and_that_is_said() -> None:
    section = wide(4, spare="c3")
    assert "---------3" in "".join(lines_of(section, width=46))
    lines = lines_of(section, width=45)
    assert [line for line in lines if "-" in line and line.startswith("-")] == ["---------0  ---------1  ---------2"]
    assert "Left out at 45 columns: c3; --out FILE.md has it." in " ".join(line.strip() for line in lines)


def test_a_table_that_is_still_too_wide_is_broken_and_its_first_columns_are_repeated() -> None:
    lines = lines_of(wide(5, keys=2), width=35)
    rows = [line.split() for line in lines if line.startswith("-")]
    first = ["---------0", "---------1"]
    assert rows == [[*first, f"---------{place}"] for place in (2, 3, 4)]
    assert [line.split()[:2] for line in lines if line.startswith("c0")] == [["c0", "c1"]] * 3


def test_names_that_are_too_long_lose_their_middle_before_a_table_is_broken() -> None:
    section = Section(
        header=("name", "value"), rows=(("long" * 20 + "-one", "x" * 30), ("long" * 20 + "-two", "y" * 30))
    )
    lines = lines_of(section, width=60)[3:5]
    assert [len(line) for line in lines] == [60, 60]
    assert lines[0].split()[0].startswith("longlonglong")
    assert [line.split()[0][-4:] for line in lines] == ["-one", "-two"]
    assert all("…" in line for line in lines)
    assert NARROW < 28 == len(lines[0].split()[0])


@given(
    st.lists(st.lists(st.text(max_size=60), min_size=4, max_size=4), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(40, 120),
)
def test_no_line_is_wider_than_it_may_be_and_all_are_printable(rows: list[list[str]], keys: int, width: int) -> None:
    section = Section("x" * 200, ("y z" * 80,), ("a", "b", "c", "d"), tuple(map(tuple, rows)), keys=keys, spare="d")
    for line in lines_of(section, LIST, width=width):
        assert len(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize("text", ["a | b", "<script>", "# x", "one\ntwo", "[a](http://b)"])
def test_text_of_strangers_does_nothing_in_markdown(text: str) -> None:
    section = Section(text, (text,), ("name",), ((text,),))
    plain = Section("t", ("t",), ("name",), (("t",),))
    found, same = (document_markdown(Document("p", (), (each,))).splitlines() for each in (section, plain))
    assert len(found) == len(same)
    assert found[-1].count("|") - found[-1].count("\\|") == 2
    assert "<" not in "".join(found)
