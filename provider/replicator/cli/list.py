"""`replicator list`: the streams of an engine, and their owners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import (
    AddressOption,
    AllOption,
    BackendOption,
    JsonOption,
    Output,
    OutputOption,
    StackOption,
    StateOption,
    form_of,
    parse_states,
)
from replicator.cli.output import UNKNOWN, say, say_data, words
from replicator.cli.status import STYLES, tell_away
from replicator.cli.streams import Found, listed, owner_of
from replicator.cli.table import Column, show
from replicator.cli.where import Where

if TYPE_CHECKING:
    from replicator.lifecycle.connections import Connections
    from replicator.replicator import Description, Unmanaged


def list_streams(
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
    everywhere: AllOption = False,
    states: StateOption = None,
    output: OutputOption = Output.TABLE,
    json_only: JsonOption = False,
) -> None:
    """List streams, and who manages each.

    The owner is shown as PROJECT/STACK/RESOURCE; `-` stands for a stream that no resource manages and that can be
    imported. Connectors that are no streams, and that `replicator adopt` may take over, follow as `not managed`. The
    state is that of the engine's objects: a running stream may be catching up, which `replicator status` tells.
    """
    import asyncio

    form, wanted = form_of(output, json_only), parse_states(states)
    if everywhere and (backend or address):
        raise typer.BadParameter("names every backend and region itself", param_hint="--all")
    where = Where(backend, address, stack)
    with where.hints():
        found, others = asyncio.run(_ask(where.connections(everywhere=everywhere)))
    found = found.in_states(wanted)
    others = [] if wanted else others
    if form in (Output.JSON, Output.YAML):
        rows = [_json(id, item) for id, item in found.streams.items()]
        more = [{**item.model_dump(mode="json"), "unmanaged": True} for item in others]
        away = [{"backend": at.backend, "region": at.region, "error": str(why)} for at, why in found.away.items()]
        say_data([*rows, *more, *away], as_yaml=form is Output.YAML)
    elif form is Output.NAME:
        for id in found.streams:
            say(id)
    else:
        _tell(found, others, wide=form is Output.WIDE)
    tell_away(found)
    if found.away:
        raise typer.Exit(Exit.FAILED)


async def _ask(connections: Connections) -> tuple[Found, list[Unmanaged]]:
    """Return the streams, and what runs at the engines and is no stream. Under an agent, nothing else does."""
    from replicator.backends import REGISTRY
    from replicator.lifecycle.connections import StreamId

    try:
        found = await listed(connections)
        others: list[Unmanaged] = []
        for at in found.places:
            if not REGISTRY[at.backend].via_agent and at not in found.away:
                others += await connections.replicator(StreamId(at.backend, at.region, "*")).unmanaged()
        return found, others
    finally:
        await connections.aclose()


def _tell(found: Found, others: list[Unmanaged], *, wide: bool) -> None:
    if found.streams:
        columns = (*_COLUMNS, *((Column("id"),) if wide else ()))
        rows = [(*_row(item), *((id,) if wide else ())) for id, item in found.streams.items()]
        show(columns, rows, STYLES, whole=wide)
    elif not found.away:
        say("there are no streams")
    for item in found.streams.values():
        if item.declaration is None:
            say(f"{item.name}: {item.findings[0].message} [{item.findings[0].code}]")
    for other in others:
        say(f"not managed: {other.name} ({other.what}, {other.state})")


_COLUMNS = (
    Column("name", cut=True),
    Column("state"),
    Column("mode", leave_out=1),
    Column("source", cut=True, leave_out=3),
    Column("destination", cut=True, leave_out=2),
    Column("owner", cut=True, leave_out=4),
)


def _row(item: Description) -> tuple[str, ...]:
    stream, state = item.declaration, words(item.status.state)
    if stream is None:
        return (item.name, state, *[UNKNOWN] * (len(_COLUMNS) - 2))
    owner = owner_of(stream) or UNKNOWN
    return (item.name, state, stream.mode, stream.source.uri, stream.destination.uri, owner)


def _json(id: str, item: Description) -> dict[str, Any]:
    """Return a stream as `listStreams` does; where its record cannot be read, why."""
    from replicator.lifecycle.function_types import StatusFailure
    from replicator.lifecycle.functions import listed_stream

    if item.declaration is None:
        return StatusFailure.of(id, item.findings[0]).model_dump(mode="json")
    return listed_stream(item.declaration, item.status).model_dump(mode="json")
