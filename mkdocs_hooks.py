"""What MkDocs is told about this repository, whose pages are written for a checkout and for GitHub.

The site's tree is the repository's: `docs/plugins.md` and `plugins/torch/README.md` stand as they do here, so every
relative link means what it says. What no page leads to is not on the site.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.resolve()
LINK = re.compile(r"\]\(([^)\s]+)\)")
ENTRANCES = ("README.md", "CONTRIBUTING.md", "results/README.md")  # beside all of docs/
WIDE_TABLES = "table { display: block; overflow-x: auto; }"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def slug(heading: str, separator: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def links(text: str) -> Iterator[str]:
    """The files, by relative path, that a page links to or shows."""
    for target in LINK.findall(FENCE.sub("", text)):
        name = target.partition("#")[0]
        if name and "://" not in target:
            yield name


def reached(start: list[Path]) -> list[Path]:
    """Every file that a reader can get to from these pages."""
    found: dict[Path, None] = {}
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found[path] = None
        if path.suffix == ".md":
            waiting += [(path.parent / name).resolve() for name in links(path.read_text(encoding="utf-8"))]
    return sorted(found)


def as_python_markdown(text: str, folder: Path) -> str:
    """A page in GitHub's Markdown as one in Python's.

    What is folded is Markdown inside, a fence has one word, and a folder, which has no page, is no link.
    """
    text = text.replace("<details>", '<details markdown="1">')
    text = re.sub(r"^```(\w+) [^\n]*$", r"```\1", text, flags=re.MULTILINE)
    return re.sub(
        r"\[([^\]]+)\]\(([^)\s#]+)\)", lambda found: found[1] if (folder / found[2]).is_dir() else found[0], text
    )


def on_config(config: Any) -> Any:
    """Anchors as on GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Any, config: Any) -> Any:
    """The repository's files under their own names, in place of those of `docs/` under theirs."""
    kinds = importlib.import_module("mkdocs.structure.files")
    formatters = importlib.import_module("pygments.formatters")
    pages = [*(ROOT / name for name in ENTRANCES), *(ROOT / "docs").glob("*.md")]
    names = [path.relative_to(ROOT).as_posix() for path in reached(pages)]
    made = [kinds.File.generated(config, name, abs_src_path=str(ROOT / name)) for name in names]
    style = f"{formatters.HtmlFormatter().get_style_defs('.highlight')}\n{WIDE_TABLES}\n"
    made.append(kinds.File.generated(config, "site.css", content=style))
    ours = str(ROOT / "docs")
    return kinds.Files([file for file in files if not str(file.abs_src_path).startswith(ours)] + made)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The text that is rendered."""
    return as_python_markdown(markdown, ROOT / Path(page.file.src_uri).parent)
