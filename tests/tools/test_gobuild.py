"""What the cache keeps by content: made once, and complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.gobuild import Cache, content_key


def test_what_is_kept_is_made_once_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path / "cache"), []

    def make(folder: Path) -> None:
        (folder / "part").write_text("half")
        made.append(folder)
        if len(made) == 1:
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.keep("kind", "key", make)
    assert not list((tmp_path / "cache").rglob("part"))
    kept = cache.keep("kind", "key", make)
    assert cache.keep("kind", "key", make) == kept == tmp_path / "cache" / "kind" / "key"
    assert (kept / "part").read_text() == "half"
    assert len(made) == 2
    assert cache.keep("kind", "other", make) != kept


def test_a_key_follows_names_contents_and_facts_and_no_place(tmp_path: Path) -> None:
    def key(where: str, name: str, text: str, *facts: str) -> str:
        (tmp_path / where / "sdk").mkdir(parents=True)
        (tmp_path / where / "sdk" / name).write_text(text)
        return content_key([tmp_path / where / "sdk"], *facts)

    first = key("a", "one", "text", "3.11")
    assert key("b", "one", "text", "3.11") == first
    others = [key("c", "two", "text", "3.11"), key("d", "one", "texts", "3.11"), key("e", "one", "text", "3.12")]
    assert len({first, *others}) == 4
