"""`replicator import`: bring the streams of an engine into a Pulumi program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator.backends import REGISTRY
from replicator.cli.options import DEFAULT_BACKEND, AddressOption, BackendOption, StackOption
from replicator.cli.output import counted, say
from replicator.cli.streams import listed
from replicator.cli.where import Where

if TYPE_CHECKING:
    from replicator.model import Stream
    from replicator.replicator import Description

BULK = "import.json"


class Language(StrEnum):
    """The language of the program."""

    YAML = "yaml"
    PYTHON = "python"


_PROGRAM = {Language.YAML: "Pulumi.yaml", Language.PYTHON: "__main__.py"}


def import_streams(
    out: Annotated[Path, typer.Option(help="The folder to write to.", metavar="DIR", show_default="here")] = Path(),
    language: Annotated[Language, typer.Option(help="What the program is written in.")] = Language.YAML,
    managed: Annotated[
        bool,
        typer.Option("--managed", help="Also streams that a resource manages, for a stack whose state was lost."),
    ] = False,
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
) -> None:
    """Write a program that declares the streams of an engine, and the file that imports them.

    `pulumi import --file` takes the file; the preview after that is clean. It changes nothing at the engine, and writes
    over no file.
    """
    import asyncio
    import json

    from replicator.errors import InvalidConfig

    where = Where(backend, address, stack)
    with where.hints():
        found = asyncio.run(_overview(where))
    streams = [item.stream for item in found if item.declaration is not None]
    for item in found:
        if item.declaration is None:
            say(f"left out: {item.name}: {item.status.last_error}")
    wanted = [stream for stream in streams if managed or stream.owner is None]
    for stream in streams:
        if stream not in wanted and stream.owner is not None:
            say(f"left out: {stream.name}, which {stream.owner.urn} manages; --managed takes it too")
    if not wanted:
        say("there is nothing to import")
        return
    files = {BULK: json.dumps(_bulk(wanted), indent=2) + "\n", _PROGRAM[language]: _WRITERS[language](out, wanted)}
    for name in files:
        if (out / name).exists():
            raise InvalidConfig(f"{out / name} exists, and is not written over", fix="give another folder: --out")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, "utf-8")
    say(f"wrote {' and '.join(str(out / name) for name in files)}: {counted(len(wanted), 'stream')}")
    if address:
        key = REGISTRY[backend or DEFAULT_BACKEND].config_key
        say(f"  → pulumi config set --path replicator:{key}.address {address}")
    say(f"  → pulumi import --file {out / BULK} --generate-code=false --protect=false")


async def _overview(where: Where) -> list[Description]:
    connections = where.connections()
    try:
        found = await listed(connections)
    finally:
        await connections.aclose()
    for error in found.away.values():
        raise error  # a program that lacks streams of one engine would be taken for whole
    return list(found.streams.values())


def _bulk(streams: list[Stream]) -> dict[str, Any]:
    from replicator.lifecycle.functions import import_entry

    return {"resources": [import_entry(stream).wire() for stream in streams]}


def _yaml(out: Path, streams: list[Stream]) -> str:
    import yaml

    from replicator.lifecycle.resource import declared

    resources = {stream.name: {"type": "replicator:index:Stream", "properties": declared(stream)} for stream in streams}
    program = {"name": out.absolute().name or "streams", "runtime": "yaml", "resources": resources}
    return str(yaml.safe_dump(program, sort_keys=False, allow_unicode=True))


def _python(out: Path, streams: list[Stream]) -> str:
    from pprint import pformat

    from replicator.lifecycle.resource import declared

    lines = ["import pulumi_replicator as replicator", ""]
    for stream in streams:
        inputs = _snake(declared(stream))
        arguments = [f"    {name}={pformat(value, sort_dicts=False)}," for name, value in inputs.items()]
        lines += ["replicator.Stream(", f"    {stream.name!r},", *arguments, ")"]
    return "\n".join(lines) + "\n"


def _snake(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs with the names of the Python SDK."""
    from replicator.model import Endpoint, Stream

    names = {field.alias or name: name for name, field in Stream.model_fields.items()}
    ends = {field.alias or name: name for name, field in Endpoint.model_fields.items()}
    found = {names[key]: value for key, value in inputs.items()}
    for end in ("source", "destination"):
        found[end] = {ends[key]: value for key, value in found[end].items()}
    return found


_WRITERS = {Language.YAML: _yaml, Language.PYTHON: _python}
