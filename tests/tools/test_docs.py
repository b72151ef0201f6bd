"""Pages that are made from the code are fresh."""

from __future__ import annotations

from pathlib import Path

import pytest
from replicator.capabilities import TABLE

from tools import docs

PAGES = docs.pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_fresh(path: Path) -> None:
    assert path.read_text("utf-8") == PAGES[path], "run: make docs"


def test_the_readme_marks_what_is_planned() -> None:
    text = docs.short_table()
    assert all(f"| {name} |" in text and "planned" in text for name in docs.PLANNED)
    assert not set(docs.PLANNED) & set(TABLE)
