"""What people read: every link leads somewhere, and every page can be found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), ROOT / "examples/README.md", ROOT / "bench/README.md"]


def parts(text: str) -> Iterator[Token]:
    """Every token of a Markdown text, those within lines too."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


def links(text: str) -> list[str]:
    return [str(token.attrs["href"]) for token in parts(text) if token.type == "link_open"]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings; one that comes again gets a number."""
    tokens = MarkdownIt("commonmark").parse(text)
    found, seen = set(), Counter[str]()
    for heading, line in pairwise(tokens):
        if heading.type == "heading_open":
            words = "".join(token.content for token in line.children or ())
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def dangling(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    found = []
    for link in links(page.read_text("utf-8")):
        parsed = urlsplit(link)
        if parsed.scheme:
            continue
        target = (page.parent / unquote(parsed.path)).resolve() if parsed.path else page
        if not target.exists() or (parsed.fragment and parsed.fragment not in anchors(target.read_text("utf-8"))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dangling(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# One `two` three.\n## Again\n## Again\n")
    good = "[a](other.md) [b](other.md#one-two-three) [c](other.md#again-1) [d](#here) [e](https://host.example/x)"
    page.write_text(f"# Here\n{good}\n| [f](gone.md) |\n|---|\n| [g](other.md#again-2) |\n\n`[h](i)` [j](#there)\n")
    assert dangling(page) == ["gone.md", "other.md#again-2", "#there"]


def test_the_index_names_every_page() -> None:
    index = DOCS / "README.md"
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links(index.read_text("utf-8"))}
    assert [str(page.relative_to(DOCS)) for page in DOCS.glob("*.md") if page not in named | {index}] == []
    assert DOCS / "reference/README.md" in named
    reference = DOCS / "reference/README.md"
    listed = {DOCS / "reference" / link for link in links(reference.read_text("utf-8"))}
    assert set((DOCS / "reference").glob("*.md")) - listed == {reference}
    assert "docs/README.md" in links((ROOT / "README.md").read_text("utf-8"))
