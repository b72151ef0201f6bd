"""Checks prose with Vale: pages, the descriptions in schema.json and the texts of errors. Part of `make check`.

    python tools/prose.py [PAGE …]

The rules are in `tools/vale/styles`. A source in `tools/vale/baseline.txt` is not checked, unless it is named as PAGE.
Vale is built once and kept, like the Pulumi CLI: see pulumi_cli.py.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from tools.gobuild import BuildError, Cache, GoModule, cache_root, complete, say

ROOT = Path(__file__).resolve().parents[1]
MODULE = GoModule(ROOT / "tools" / "vale", "1 to 3 minutes, once", native=True)
CONFIG = ROOT / ".vale.ini"
BASELINE = MODULE.folder / "baseline.txt"
SCHEMA = ROOT / "schema.json"
EXAMPLES = ROOT / "tests" / "golden" / "errors.json"
CATALOGUE = ROOT / "provider" / "replicator" / "errors.py"

_CODE = re.compile(r"(?<![\w'\"])(?:'[^']*'|\"[^\"]*\")|`[^`]*`|[^\s`]*[/_=*{}<>|\[\]](?:[^\s`]*[^\s`.,;:?!])?")
_SUBJECT = re.compile(r"^(?:stream '[^']*': )?(?:[a-zA-Z][\w.]*: )?")
_CODE_OF_ERROR = re.compile(r" \[RPL-[A-Z-]+\]")


@dataclass(frozen=True)
class Text:
    """A piece of Markdown, the source that has it, and where there."""

    source: str
    place: str
    markdown: str
    line: int | None = None
    """The source's line with the first line of the text, where the source has the same lines."""


@dataclass(frozen=True, order=True)
class Finding:
    source: str
    place: str
    line: int
    column: int
    rule: str
    message: str

    def __str__(self) -> str:
        at = f"{self.source}:{self.line}:{self.column}" if self.line else f"{self.source}: {self.place}"
        return f"{at}: {self.message} [{self.rule}]"


def vale(cache: Cache) -> Path:
    """The program, built where it is missing. Raises BuildError."""
    if not complete(cache.folder(MODULE), MODULE.files):
        with cache.locked():
            cache.build(MODULE, cache.go(MODULE.go_line))
    return cache.folder(MODULE) / MODULE.files[0]


def texts() -> Iterator[Text]:
    """All prose of the project that is checked."""
    names = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "examples/README.md")
    for path in (*(ROOT / name for name in names), *sorted((ROOT / "docs").rglob("*.md"))):
        yield page(path)
    yield from descriptions(_name(SCHEMA), json.loads(SCHEMA.read_text("utf-8")))
    yield from errors(_name(EXAMPLES), json.loads(EXAMPLES.read_text("utf-8")))
    yield from docstrings(_name(CATALOGUE), CATALOGUE.read_text("utf-8"))


def page(path: Path) -> Text:
    return Text(_name(path), "", path.read_text("utf-8"), 1)


def descriptions(source: str, schema: Any) -> Iterator[Text]:
    """The descriptions of a schema, each once, at the first place that has it."""
    seen: set[str] = set()
    for place, markdown in _descriptions(schema, ""):
        if markdown not in seen:
            seen.add(markdown)
            yield Text(source, place, re.sub(r"\{\{%.*?%\}\}", "", markdown))


def _descriptions(node: Any, place: str) -> Iterator[tuple[str, str]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if key in {"description", "deprecationMessage"} and isinstance(child, str):
            yield f"{place}/{key}", child
        else:
            yield from _descriptions(child, f"{place}/{key}")


def errors(source: str, examples: dict[str, str]) -> Iterator[Text]:
    """The texts of errors, message and fix apart, without subject and code, and with what is no prose as code."""
    for code, example in examples.items():
        message, _, fix = example.partition("\n  → ")
        message = _CODE_OF_ERROR.sub("", _SUBJECT.sub("", message, count=1))
        for part in (message, fix.partition("\n")[0]):
            if part:
                yield Text(source, code, _CODE.sub(lambda found: f"`{found[0].strip('`')}`", part))


def docstrings(source: str, python: str) -> Iterator[Text]:
    """The docstrings of a module's classes."""
    for node in ast.parse(python).body:
        if isinstance(node, ast.ClassDef) and (text := ast.get_docstring(node)):
            yield Text(source, node.name, text, node.body[0].lineno)


def check(program: Path, pieces: Iterable[Text]) -> list[Finding]:
    """What Vale finds, in order. Raises BuildError where it does not run."""
    with tempfile.TemporaryDirectory(prefix="prose-") as folder:
        files: dict[str, Text] = {}
        for number, piece in enumerate(pieces):
            path = Path(folder, f"{number}.md")
            path.write_text(piece.markdown, "utf-8")
            files[str(path)] = piece
        command = [str(program), "--config", str(CONFIG), "--no-global", "--output", "JSON", folder]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode > 1 or not ran.stdout.startswith("{"):
            raise BuildError(f"Vale ended with status {ran.returncode}: {(ran.stderr or ran.stdout).strip()}")
        alerts = json.loads(ran.stdout)
    return sorted(_finding(files[name], alert) for name, found in alerts.items() for alert in found)


def _finding(piece: Text, alert: dict[str, Any]) -> Finding:
    line = piece.line + alert["Line"] - 1 if piece.line else 0
    rule = alert["Check"].partition(".")[2]
    words = f" ({alert['Match']} …)" if rule == "SentenceLength" else ""
    return Finding(piece.source, piece.place, line, alert["Span"][0], rule, f"{alert['Message']}{words}")


def baseline() -> set[str]:
    return {line for line in BASELINE.read_text("utf-8").splitlines() if line and not line.startswith("#")}


def report(findings: Sequence[Finding], exempt: set[str]) -> list[str]:
    """The lines to print: each finding outside the baseline, and each line of the baseline that nothing needs."""
    lines = [str(found) for found in findings if found.source not in exempt]
    needed = {found.source for found in findings}
    return lines + [f"{_name(BASELINE)}: {each} has no finding left; take it out" for each in sorted(exempt - needed)]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def main(arguments: list[str]) -> int:
    """Print what is found; return 1 where there is anything."""
    parser = argparse.ArgumentParser(description="Check the prose of pages, schema descriptions and error texts.")
    parser.add_argument("page", nargs="*", type=Path, help="a page to check; default: everything but the baseline")
    parser.add_argument("--count", action="store_true", help="only count what each source has, the baseline's too")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        pieces = [page(path.resolve()) for path in options.page] or texts()
        findings = check(vale(Cache(cache_root(os.environ))), pieces)
    except BuildError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    if options.count:
        lines = [f"{count:5} {source}" for source, count in sorted(Counter(each.source for each in findings).items())]
    else:
        lines = report(findings, set() if options.page else baseline())
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
