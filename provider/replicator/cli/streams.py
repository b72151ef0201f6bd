"""The streams that a command is about: one engine's, or those of every configured backend and region."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from replicator.cli.options import DEFAULT_BACKEND

if TYPE_CHECKING:
    from replicator.errors import ReplicatorError
    from replicator.lifecycle.connections import Connections, StreamId
    from replicator.model import Stream, StreamState
    from replicator.replicator import Description, Replicator


@dataclass(frozen=True, slots=True)
class Place:
    """One engine that is asked.

    :param region: one of those whose streams it manages.
    """

    backend: str
    region: str

    def __str__(self) -> str:
        return self.backend if self.region == "default" else f"{self.backend} in {self.region}"


@dataclass(frozen=True, slots=True)
class Found:
    """The streams that answered, by id, and the engines that did not."""

    streams: dict[str, Description]
    away: dict[Place, ReplicatorError]
    places: tuple[Place, ...] = ()

    def in_states(self, states: Iterable[StreamState]) -> Found:
        """Return the same with the streams in some states alone; with all of them if `states` is empty."""
        wanted = set(states)
        kept = {id: item for id, item in self.streams.items() if not wanted or item.status.state in wanted}
        return replace(self, streams=kept)


@dataclass(frozen=True, slots=True)
class Named:
    """A stream as a command line names it: by its name, or by its id."""

    name: str
    backend: str
    region: str = "default"


def named(text: str, backend: str) -> Named:
    """Return the stream that a command line names; a resource's id has a backend of its own."""
    from replicator.errors import InvalidStream
    from replicator.lifecycle.connections import StreamId

    if "/" not in text:
        return Named(text, backend)
    try:
        at = StreamId.parse(text)
    except InvalidStream as error:
        raise typer.BadParameter(str(error.fix), param_hint="NAME") from None
    if backend not in (at.backend, DEFAULT_BACKEND):
        raise typer.BadParameter(f"{text} is a stream of {at.backend}", param_hint="--backend")
    return Named(at.name, at.backend, at.region)


def connections_of(backend: str, address: str | None, *, everywhere: bool, region: str = "default") -> Connections:
    """Return the connections to one engine, or to all that are configured. Raise `InvalidConfig`."""
    import os

    from replicator.cli.clients import block_of
    from replicator.lifecycle.config import ProviderConfig, configured
    from replicator.lifecycle.connections import Connections

    if not everywhere:
        return Connections(ProviderConfig(backends={backend: block_of(backend, address, region)}))
    if address is not None or backend != DEFAULT_BACKEND:
        raise typer.BadParameter("names every backend and region itself", param_hint="--all")
    return Connections(configured({}, environ=os.environ))


async def measured(connections: Connections, name: str | None = None) -> Found:
    """Return every stream with its status, measured now; only one, if it has a name.

    :raises StreamNotFound: no stream has the name.
    """

    async def ask(at: StreamId) -> list[Description]:
        client = connections.replicator(at)
        return await client.describe() if name is None else [await described(client, name)]

    return await _asked(connections, ask)


async def described(client: Replicator, name: str) -> Description:
    """Return one stream. Raise `StreamNotFound` with the engine's own message if it does not exist."""
    from replicator.errors import StreamNotFound

    found = await client.describe([name])
    if not found:
        await client.get_status(name)
        raise StreamNotFound("it was removed meanwhile", stream=name, fix="see what is there: replicator list")
    return found[0]


async def listed(connections: Connections) -> Found:
    """Return every stream from the listings of the engines alone."""
    return await _asked(connections, lambda at: connections.replicator(at).overview())


async def _asked(connections: Connections, ask: Callable[[StreamId], Awaitable[list[Description]]]) -> Found:
    import asyncio

    from replicator.errors import ReplicatorError
    from replicator.lifecycle.connections import StreamId

    places = _places(connections)
    answers = await asyncio.gather(
        *(ask(StreamId(place.backend, place.region, "*")) for place in places), return_exceptions=True
    )
    streams: dict[str, Description] = {}
    away: dict[Place, ReplicatorError] = {}
    for place, answer in zip(places, answers, strict=True):
        if isinstance(answer, ReplicatorError):
            away[place] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            streams |= {str(id_of(item, place)): item for item in answer}
    if len(places) == len(away) == 1:
        raise next(iter(away.values()))
    return Found(dict(sorted(streams.items(), key=lambda item: (item[1].name, item[0]))), away, tuple(places))


def _places(connections: Connections) -> list[Place]:
    from replicator.backends import REGISTRY

    config = connections.config
    return [Place(kind, region) for kind in config.kinds() for region in config.places(REGISTRY[kind], None)]


def id_of(found: Description, place: Place) -> StreamId:
    """Return a stream's id; where its record cannot be read, the one that it would have in that place."""
    from replicator.lifecycle.connections import StreamId

    if found.declaration is not None:
        return StreamId.of(found.declaration)
    return StreamId(place.backend, place.region, found.name)


def as_json(id: str, found: Description) -> dict[str, Any]:
    """Return a stream with its status as plain JSON values."""
    stream, backend = found.declaration, id.partition("/")[0]
    owner = stream.owner.urn if stream is not None and stream.owner is not None else None
    ends = ("source", "destination")
    return {
        "id": id,
        "backend": backend,
        "owner": owner,
        **{end: None if stream is None else getattr(stream, end).wire() for end in ends},
        **found.status.model_dump(mode="json"),
        "findings": [finding.model_dump(mode="json", exclude_none=True) for finding in found.findings],
    }


def owner_of(stream: Stream) -> str | None:
    """Return the owner as PROJECT/STACK/RESOURCE; a text that is no URN as it is."""
    from replicator.lifecycle.check import Identity

    if stream.owner is None:
        return None
    owner = Identity.of_urn(stream.owner.urn)
    return f"{owner.project}/{owner.stack}/{owner.name}" if owner.project else stream.owner.urn
