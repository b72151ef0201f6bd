"""Write the pages that are made from the code: the reference, the capability matrix, the errors, and the command.

`python tools/docs.py` writes them; with `--check` it fails where a page is stale.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from replicator.capabilities import TABLE, Capabilities, Cell, Route, Verdict, Yes
from replicator.cli.commands import app
from replicator.cli.exits import Exit, help_text
from replicator.errors import BY_CODE, ReplicatorError
from replicator.model import EndpointKind
from replicator.plugin.schema import build_schema
from replicator.property_values import PropertyError
from typer.cli import get_docs_for_click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from tools import reference

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- capabilities: made by `make docs` -->", "<!-- end of capabilities -->"

PLANNED = {
    "hanzo-replicate": "sqlite, base → s3, nats",
    "warpstream": "kafka → kafka, s3, nats",
}
"""Backends, and routes of backends, that are not in this release; the README marks them so."""


def _cell(cell: Cell) -> str:
    if isinstance(cell, Yes):
        return f"yes{f': {cell.note}' if cell.note else ''}"
    return f"no: {cell.reason}"


def _too_low(route: Route) -> str:
    return f"at most {route.lag_resolution.total_seconds():g} s" if route.lag_resolution else "never"


def _pairs(row: Route) -> str:
    if len(row.pairs) == len(EndpointKind) ** 2:
        return "any → any"
    return ", ".join(sorted(f"{source} → {destination}" for source, destination in row.pairs))


def _of(row: Capabilities, route: Route) -> str:
    """Return what tells a route from the others of its backend."""
    return f": {_pairs(route)}" if len(row.routes) > 1 else ""


def short_table() -> str:
    """The README's table."""
    lines = ["| backend | moves | modes | replay | in this release |", "|---|---|---|---|---|"]
    for row in TABLE.values():
        for route in row.routes:
            modes = ", ".join(mode for mode, cell in route.modes.items() if isinstance(cell, Yes))
            replays = ", ".join(method for method, cell in route.replay.items() if isinstance(cell, Yes))
            lines.append(f"| {row.backend} | {_pairs(route)} | {modes} | {replays} | yes |")
    lines += [f"| {name} | {moves} | | | planned |" for name, moves in PLANNED.items()]
    return "\n".join(lines)


def _section(title: str, cells: Mapping[str, Cell]) -> Iterable[str]:
    yield f"\n### {title}\n"
    yield "| | |"
    yield "|---|---|"
    yield from (f"| `{name}` | {_cell(cell)} |" for name, cell in cells.items())


def capabilities_page() -> str:
    """docs/capabilities.md."""
    lines = [
        "# What each backend can do",
        "",
        "This page is made from the table by which a preview refuses and warns, and which the tests read. What a",
        "backend does not support is refused in `pulumi preview`, with the reason below.",
    ]
    for row, route in ((each, route) for each in TABLE.values() for route in each.routes):
        lines += [
            f"\n## {row.backend}{_of(row, route)}\n",
            f"- It moves {_pairs(route)}.",
            f"- Without `checkpointInterval` the engine uses {route.default_interval}.",
            f"- One of `lagEvents` is one {route.lag_unit}.",
            f"- `lagSeconds` is {_too_low(route)} too low.",
            f"- While a stream is paused, {route.pause_cost}.",
            f"- After a delete, {route.removal}.",
        ]
        lines += _section("mode", {str(key): cell for key, cell in route.modes.items()})
        lines += _section("conflict", {str(key): cell for key, cell in route.conflicts.items()})
        lines += _section("startFrom", {str(key): cell for key, cell in route.start_from.items()})
        lines += _section("replay methods", {str(key): cell for key, cell in route.replay.items()})
        lines += _section("other properties", {str(key): cell for key, cell in route.features.items()})
        if row.options is not None:
            lines += ["\n### options\n", "A text that is a value of the type means that value.\n"]
            lines += ["| option | type |", "|---|---|"]
            lines += [f"| `{option}` | {type} |" for option, type in sorted(row.options.items())]
        lines += ["\n### what a change does\n", "| change of | verdict | what happens |", "|---|---|---|"]
        lines += [
            f"| `{path}` | {effect.verdict.value} | {effect.text} |"
            for path, effect in route.changes.items()
            if effect.verdict is not Verdict.SAFE
        ]
        if route.access is not None:
            lines.append(f"| `uri`, of the same place | {route.access.verdict.value} | {route.access.text} |")
        safe = ", ".join(f"`{path}`" for path, effect in route.changes.items() if effect.verdict is Verdict.SAFE)
        region = f"{route.managed_at}.region"
        lines.append(f"\nHarmless: {safe}. Another `name`, `backend` or `{region}` replaces the stream.")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """docs/errors.md: cause and way out from the docstrings, examples as a test saw them."""
    meanings = {code: _paragraphs(cls) for code, cls in BY_CODE.items()} | OF_THE_PLUGIN
    examples = json.loads((ROOT / "tests" / "golden" / "errors.json").read_text("utf-8"))
    lines = [
        "# Errors",
        "",
        "Each error says what happened, to which stream and property, and after `→` what to do next. The code in",
        "brackets is stable. A preview, an `up` and the commands show the same errors. The examples are real: a test",
        "brings each error about and compares.",
        "",
        "| code | meaning |",
        "|---|---|",
    ]
    lines += [f"| [`{code}`](#{code.lower()}) | {cause} |" for code, (cause, _) in sorted(meanings.items())]
    for code, (cause, hint) in sorted(meanings.items()):
        lines += [f"\n## {code}\n", cause, "", "```", examples[code], "```", "", f"**What to do.** {hint}"]
    return "\n".join(lines) + "\n"


def _paragraphs(cls: type[ReplicatorError]) -> tuple[str, str]:
    """What the docstring says: the cause, and the way out."""
    cause, hint = (" ".join(text.split()) for text in inspect.cleandoc(cls.__doc__ or "").split("\n\n"))
    for words, page in _PAGES.items():
        hint = hint.replace(words, f"[{words}]({page})")
    return cause, hint


_PAGES = {
    "The reference": "reference/README.md",
    "The table of the backends": "capabilities.md",
    "the page on secrets": "secrets.md",
    "the page on the agent": "agent.md#from-another-host",
    "`replicator agent adopt`": "litestream.md#taking-over-a-litestream-that-you-run-yourself",
    "`replicator agent takeover`": "recovery.md#recover-from-a-lost-host",
}
"""What the docstrings call other pages."""

OF_THE_PLUGIN = {
    PropertyError.code: (
        "A property cannot be carried over Pulumi's wire format.",
        "Give the property a value of another kind, as the error says. Examples are text in place of a file, and a "
        "string in place of a number that is too large.",
    ),
    "RPL-PLUGIN-PYTHON": (
        "A plugin that was installed from a tarball finds no Python of the version that it is made for.",
        "Install that Python, or [the tarball for the Python that is there](installation.md).",
    ),
    "RPL-PLUGIN-FAULT": (
        "The plugin failed in a way that it did not expect.",
        "Run the command again with `--debug`, which shows where, and report it.",
    ),
}
"""Errors of the plugin alone, which are no `ReplicatorError`."""


def cli_page() -> str:
    """docs/cli.md."""
    command = typer.main.get_command(app)
    text: str = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="replicator"), name="replicator")
    text = re.sub(r"(?<=: )(.+)\.\.\.$", lambda cut: _whole(command, cut[1]), text, flags=re.MULTILINE)
    text = re.sub(r"  \[(?=default|env var|required)", " [", text)
    usage = text.replace("# `replicator`", "# The command `replicator`", 1).replace(help_text(), _EXITS, 1)
    return re.sub(r"\n{3,}", "\n\n", usage).rstrip() + "\n"


def _whole(command: Any, cut: str) -> str:
    """The first sentence of the command whose help was cut off there."""
    sentences = [re.split(r"(?<=\.)\s", inspect.cleandoc(each.help or ""), maxsplit=1)[0] for each in _below(command)]
    return next(text for text in (" ".join(each.split()) for each in sentences) if text.startswith(cut))


def _below(command: Any) -> Iterator[Any]:
    for each in getattr(command, "commands", {}).values():
        yield each
        yield from _below(each)


_EXITS = "\n".join(
    [
        "**Exit codes**:",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code:d} | {code.meaning} |" for code in Exit),
        "",
        "They are the same with `--json`, which prints for scripts.",
    ]
)


def readme(text: str) -> str:
    """The README with its table made anew."""
    return _between(text, BEGIN, END, short_table())


def _between(text: str, begin: str, end: str, made: str) -> str:
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{made}\n{end}{after}"


def configuration(text: str) -> str:
    """docs/configuration.md with its table of settings made anew."""
    schema = build_schema()
    lines = ["| setting | type | meaning |", "|---|---|---|"]
    for key, item in schema["provider"]["inputProperties"].items():
        named = schema["types"][item["$ref"].removeprefix("#/types/")]
        words = " or ".join(f"`{each['value']}`" for each in named.get("enum", ()))
        lines.append(f"| `{key}` | {words or 'object'} | {item['description']} |")
        for name, inner in named.get("properties", {}).items():
            lines.append(f"| `{key}.{name}` | {inner['type']} | {inner['description']} |")
    return _between(text, "<!-- settings: made by `make docs` -->", "<!-- end of settings -->", "\n".join(lines))


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    path, settings = ROOT / "README.md", ROOT / "docs" / "configuration.md"
    made = reference.pages(json.loads((ROOT / "schema.json").read_text("utf-8")))
    return {
        **{ROOT / "docs" / "reference" / name: text for name, text in made.items()},
        settings: configuration(settings.read_text("utf-8")),
        ROOT / "docs" / "capabilities.md": capabilities_page(),
        ROOT / "docs" / "errors.md": errors_page(),
        ROOT / "docs" / "cli.md": cli_page(),
        path: readme(path.read_text("utf-8")),
    }


def main() -> None:
    """Write the pages, or say which are stale."""
    made = pages()
    if "--check" in sys.argv:
        stale = [path for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
        if stale:
            sys.exit(f"stale: {', '.join(path.name for path in stale)}; run: make docs")
        return
    (ROOT / "docs" / "reference").mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
