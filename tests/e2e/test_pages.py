"""How pages are read: what is a command, and which differences of an output count."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.pages import Block, Command, blocks, commands, essence

PREVIEW = """Previewing update (dev):
@ previewing update....
 +  replicator:index:Stream store create
 +  replicator:index:Stream store create warning: something
    pulumi:pulumi:Stack store-dev
Diagnostics:
  replicator:index:Stream (store):
    warning: something
Resources:
    + 1 to create
"""


def test_blocks_know_their_section(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n```sh\na\n```\n## One\n1. Do:\n\n   ```console\n   $ b\n   ```\n### Part\n```yaml\nc: 1\n```\n"
    )
    assert blocks(page) == [Block("sh", "a\n", ""), Block("console", "$ b\n", "One"), Block("yaml", "c: 1\n", "One")]


def test_a_command_has_its_further_lines_and_its_output() -> None:
    text = "$ one \\\n    --two\nsaid\n\nmore\n$ three <<'END'\nfour\nEND\n$ five\n"
    assert list(commands(text)) == [
        Command("one \\\n    --two", ["said", "", "more"]),
        Command("three <<'END'\nfour\nEND", []),
        Command("five", []),
    ]


def test_progress_does_not_count_and_what_is_said_does() -> None:
    shown = PREVIEW.replace(" warning: something\n    pulumi:pulumi:Stack store-dev", "").partition("....\n")[2]
    assert essence(PREVIEW) == essence(shown)
    for changed in ("create", "warning: something", "1 to create", "store create"):
        assert essence(PREVIEW.replace(changed, "other")) != essence(shown)


def test_widths_do_not_count_and_order_does() -> None:
    assert essence("a   b\n\nc") == essence("a b\nc") != essence("c\na b")
