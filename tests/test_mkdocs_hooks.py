"""The site's tree is the repository's: a link that leads somewhere in a checkout leads there on the site."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from test_docs import anchors, fences, without_fences

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "mkdocs_hooks.py")
assert SPEC
assert SPEC.loader
hooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hooks)

START = [*(ROOT / name for name in hooks.ENTRANCES), *sorted((ROOT / "docs").glob("*.md"))]
ON_SITE: list[Path] = hooks.reached(START)
PAGES = [path for path in ON_SITE if path.suffix == ".md"]
NAV = re.findall(r"^ +- [^:]+: (\S+)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_page_of_docs_has_its_place_in_the_navigation_and_what_has_one_is_on_the_site() -> None:
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")} <= set(NAV)
    assert len(NAV) == len(set(NAV)) > 10
    assert set(NAV) <= {path.relative_to(ROOT).as_posix() for path in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_whatever_a_page_links_to_or_shows_is_on_the_site_too_unless_it_is_a_folder(page: Path) -> None:
    for name in hooks.links(page.read_text(encoding="utf-8")):
        target = (page.parent / name).resolve()
        assert target in ON_SITE or target.is_dir(), name


def test_a_file_that_no_page_leads_to_is_not_on_the_site() -> None:
    assert ROOT / "plugins" / "hand" / "src" / "harness_hand" / "lstm.py" in ON_SITE
    assert ROOT / "results" / "reference" / "tutorial" / "charts" / "ratios.svg" in ON_SITE
    assert ROOT / "harness" / "cli.py" not in ON_SITE


def test_links_are_files_and_neither_addresses_nor_headings_nor_examples() -> None:
    text = "[a](b.md#c) [d](#e) [f](https://g.h/i) ![j](k.svg)\n\n```text\n[l](m.md)\n```\n"
    assert list(hooks.links(text)) == ["b.md", "k.svg"]


def test_a_ring_of_pages_is_walked_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one.md", tmp_path / "two.md"
    one.write_text("[two](two.md) [gone](gone.md)", encoding="utf-8")
    two.write_text("[one](one.md)", encoding="utf-8")
    assert hooks.reached([one]) == [one, two]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_headings_get_the_anchors_that_they_have_on_github(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", without_fences(text), re.MULTILINE)
    assert {hooks.slug(heading, "-") for heading in headings} == anchors(text)


def test_what_is_folded_is_markdown_inside_a_fence_has_one_word_and_a_folder_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    text = "<details><summary>x</summary>\n\n```python torch numpy\nimport a\n```\n[all](folder) [one](folder/a.md)\n"
    made = hooks.as_python_markdown(text, tmp_path)
    assert '<details markdown="1"><summary>' in made
    assert [words for words, _, _ in fences(made)] == [["python"]]
    assert made.endswith("\nall [one](folder/a.md)\n")
