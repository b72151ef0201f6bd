"""`replicator list`: the streams of an engine, and their owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.cli.options import DEFAULT_BACKEND, AddressOption, BackendOption, JsonOption
from replicator.cli.output import UNKNOWN, say, say_json, say_table, words

if TYPE_CHECKING:
    from replicator.lifecycle.function_types import ListedStream, ListedStreams, StatusFailure
    from replicator.replicator import Unmanaged


def list_streams(
    backend: BackendOption = DEFAULT_BACKEND, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """List streams, and who manages each.

    The owner is shown as PROJECT/STACK/RESOURCE; `-` stands for a stream that no resource manages and that can be
    imported. Connectors that are no streams, and that `replicator adopt` may take over, follow as `not managed`.
    """
    import asyncio

    found = asyncio.run(listed(backend, address))
    others = asyncio.run(_unmanaged(backend, address))
    if as_json:
        rows = [item.model_dump(mode="json") for item in (*found.streams, *found.failures)]
        say_json([*rows, *({**item.model_dump(mode="json"), "unmanaged": True} for item in others)])
    elif found.streams or found.failures:
        say_table(_HEADING, [*map(_row, found.streams), *map(_unreadable_row, found.failures)])
    else:
        say("there are no streams")
    for item in found.failures:
        say(f"{item.stream}: {item.message} [{item.code}]")
    for other in () if as_json else others:
        say(f"not managed: {other.name} ({other.what}, {other.state})")


async def listed(backend: str, address: str | None) -> ListedStreams:
    """Return the streams of one engine, sorted by id."""
    from replicator.cli.clients import block_of
    from replicator.lifecycle.config import ProviderConfig
    from replicator.lifecycle.connections import Connections
    from replicator.lifecycle.function_types import ListStreamsArgs
    from replicator.lifecycle.functions import list_streams

    connections = Connections(ProviderConfig(backends={backend: block_of(backend, address)}))
    try:
        return await list_streams(connections, ListStreamsArgs(backend=backend))
    finally:
        await connections.aclose()


async def _unmanaged(backend: str, address: str | None) -> list[Unmanaged]:
    """Return what runs at an engine and is no stream. Under an agent, nothing does."""
    from replicator.backends import REGISTRY
    from replicator.cli.clients import connected

    if REGISTRY[backend].via_agent:
        return []
    async with connected(backend, address) as client:
        return await client.unmanaged()


_HEADING = ("name", "state", "mode", "source", "destination", "owner")


def _row(item: ListedStream) -> tuple[str, ...]:
    ends = (item.source.uri, item.destination.uri)
    return (item.name, words(item.state), item.mode, *ends, _owner(item.owner))


def _unreadable_row(item: StatusFailure) -> tuple[str, ...]:
    name = item.stream.rpartition("/")[2]
    return (name, "failed", *[UNKNOWN] * (len(_HEADING) - 2))


def _owner(urn: str | None) -> str:
    from replicator.lifecycle.check import Identity

    if urn is None:
        return UNKNOWN
    owner = Identity.of_urn(urn)
    return f"{owner.project}/{owner.stack}/{owner.name}" if owner.project else urn
