"""Write the pages that are made from the code: the capability matrix, the errors, and the command.

`python tools/docs.py` writes them; with `--check` it fails where a page is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import typer
from replicator.capabilities import TABLE, Capabilities, Cell, Verdict, Yes
from replicator.cli import app
from replicator.cli.exits import Exit, help_text
from replicator.errors import BY_CODE
from replicator.plugin.schema import build_schema
from replicator.values import PropertyError
from typer.cli import get_docs_for_click

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- capabilities: made by `make docs` -->", "<!-- end of capabilities -->"

PLANNED = {
    "hanzo-replicate": "sqlite, base → s3, nats",
    "debezium": "postgres → kafka, postgres",
    "kafka-mirror": "kafka → kafka",
    "warpstream": "kafka → kafka, s3, nats",
}
"""Backends that are not in this release; the README marks them so."""


def _cell(cell: Cell) -> str:
    if isinstance(cell, Yes):
        return f"yes{f': {cell.note}' if cell.note else ''}"
    return f"no: {cell.reason}"


def _pairs(row: Capabilities) -> str:
    kinds = {kind for pair in row.pairs for kind in pair}
    if len(row.pairs) == len(kinds) ** 2:
        return "any → any"
    return ", ".join(sorted(f"{source} → {destination}" for source, destination in row.pairs))


def short_table() -> str:
    """The README's table."""
    lines = ["| backend | moves | modes | replay | in this release |", "|---|---|---|---|---|"]
    for row in TABLE.values():
        modes = ", ".join(mode for mode, cell in row.modes.items() if isinstance(cell, Yes))
        replays = ", ".join(method for method, cell in row.replay.items() if isinstance(cell, Yes))
        lines.append(f"| {row.backend} | {_pairs(row)} | {modes} | {replays} | yes |")
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
        "This page is made from the table that Check, the preview's warnings and the tests read. A property that a",
        "backend does not support is refused in `pulumi preview`, with the reason below.",
    ]
    for row in TABLE.values():
        lines += [
            f"\n## {row.backend}\n",
            f"- It moves {_pairs(row)}.",
            f"- Without `checkpointInterval` the engine uses {row.default_interval}.",
            f"- One of `lagEvents` is one {row.lag_unit}.",
            f"- While a stream is paused, {row.pause_cost}.",
            f"- After a delete, {row.removal}.",
        ]
        lines += _section("mode", {str(key): cell for key, cell in row.modes.items()})
        lines += _section("conflict", {str(key): cell for key, cell in row.conflicts.items()})
        lines += _section("startFrom", {str(key): cell for key, cell in row.start_from.items()})
        lines += _section("replay methods", {str(key): cell for key, cell in row.replay.items()})
        lines += _section("other properties", {str(key): cell for key, cell in row.features.items()})
        if row.options is not None:
            lines.append(f"\n`options` takes {', '.join(f'`{option}`' for option in sorted(row.options))}.")
        lines += ["\n### what a change does\n", "| change of | verdict | what happens |", "|---|---|---|"]
        lines += [
            f"| `{path}` | {effect.verdict.value} | {effect.text} |"
            for path, effect in row.changes.items()
            if effect.verdict is not Verdict.SAFE
        ]
        safe = ", ".join(f"`{path}`" for path, effect in row.changes.items() if effect.verdict is Verdict.SAFE)
        lines.append(f"\nHarmless: {safe}. Another `name`, `backend` or `source.region` replaces the stream.")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Each error says what happened, to which stream and property, and what to do next. The code is stable.",
        "",
        "| code | meaning |",
        "|---|---|",
    ]
    meanings = {code: (cls.__doc__ or "").strip().splitlines()[0] for code, cls in BY_CODE.items()}
    meanings[PropertyError.code] = "A property cannot be carried over Pulumi's wire format."
    meanings["RPL-PLUGIN-FAULT"] = "The plugin failed in a way that it did not expect; `--debug` shows where."
    lines += [f"| `{code}` | {text} |" for code, text in sorted(meanings.items())]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """docs/cli.md."""
    command = typer.main.get_command(app)
    text: str = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="replicator"), name="replicator")
    usage = text.replace("# `replicator`", "# The command `replicator`", 1).replace(help_text(), _EXITS, 1)
    return re.sub(r"\n{3,}", "\n\n", usage).rstrip() + "\n"


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
    return {
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
    for path, text in made.items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
