"""The streams that a command is about: one engine's, or those of every configured backend and region."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    import asyncio

    from replicator.cli.where import Where
    from replicator.errors import ReplicatorError
    from replicator.lifecycle.check import Identity
    from replicator.lifecycle.connections import Connections, StreamId
    from replicator.model import Stream, StreamState
    from replicator.replicator import Description, Replicator

T = TypeVar("T")


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

    def of_several(self) -> bool:
        """Tell whether more than one engine was asked."""
        return len(self.places) > 1

    def in_states(self, states: Iterable[StreamState]) -> Found:
        """Return the same with the streams in some states alone; with all of them if `states` is empty."""
        wanted = set(states)
        kept = {id: item for id, item in self.streams.items() if not wanted or item.status.state in wanted}
        return replace(self, streams=kept)


@dataclass(frozen=True, slots=True)
class One:
    """The stream that a command is about, with the connection to its engine."""

    id: StreamId
    client: Replicator
    _runner: asyncio.Runner

    @property
    def name(self) -> str:
        """The name of the stream at its engine."""
        return self.id.name

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run one call of the command. Its progress goes where the caller shows it."""
        return self._runner.run(call, context=copy_context())


@contextmanager
def one_stream(where: Where, text: str) -> Iterator[One]:
    """Find the stream that a command line names, and stay connected to its engine.

    :param text: its id, its name, or the name of its resource.
    :raises StreamNotFound: no stream has the name.
    :raises typer.BadParameter: several have it.
    """
    if not text:
        raise typer.BadParameter("is empty", param_hint="NAME")
    known = _parse_id(text, where.backend) if "/" in text and not _is_owner(text) else None
    with _connected(where, known) as (runner, connections):
        at = known or runner.run(_find(connections, text, where))
        yield One(at, connections.replicator(at), runner)


@contextmanager
def engine_of(where: Where, at: StreamId) -> Iterator[One]:
    """Stay connected to the engine that has a stream, or that is to have it."""
    with _connected(where, at) as (runner, connections):
        yield One(at, connections.replicator(at), runner)


@contextmanager
def _connected(where: Where, at: StreamId | None) -> Iterator[tuple[asyncio.Runner, Connections]]:
    import asyncio

    with asyncio.Runner() as runner, where.hints():
        connections = where.connections(at)
        try:
            yield runner, connections
        finally:
            runner.run(connections.aclose())


def _is_owner(text: str) -> bool:
    """Tell whether a text is PROJECT/STACK/RESOURCE, as a listing shows owners, and no id."""
    from replicator.backends import REGISTRY

    parts = text.split("/")
    return len(parts) == 3 and all(parts) and parts[0] not in REGISTRY


def _parse_id(text: str, backend: str | None) -> StreamId:
    from replicator.errors import InvalidStream
    from replicator.lifecycle.connections import StreamId

    try:
        at = StreamId.parse(text)
    except InvalidStream as error:
        raise typer.BadParameter(str(error.fix), param_hint="NAME") from None
    if backend not in (at.backend, None):
        raise typer.BadParameter(f"{text} is a stream of {at.backend}", param_hint="--backend")
    return at


async def _find(connections: Connections, name: str, where: Where) -> StreamId:
    """Return the stream with a name, or whose resource has it. In a project's folder, its stack's streams go first."""
    from replicator.lifecycle.connections import StreamId

    declared, away = await _ask_each(connections, lambda client: client.list_streams())
    owners = {StreamId.of(stream): _owner(stream) for streams in declared.values() for stream in streams}
    matching = [at for at, owner in owners.items() if name in (at.name, owner and owner.name, owner and _shown(owner))]
    if where.stack is not None:
        stack = (where.stack.project, where.stack.stack)
        own = [at for at in matching if (owner := owners[at]) and (owner.project, owner.stack) == stack]
        matching = own or matching
    if not matching:  # a listing lacks streams whose record cannot be read
        described, _ = await _ask_each(connections, lambda client: client.describe([name]))
        matching = [StreamId(at.backend, at.region, name) for at, found in described.items() if found]
    if len(matching) > 1:
        raise typer.BadParameter(
            f"{name!r} is the name of several streams or resources; give an id: "
            + ", ".join(f"{at} (of {_shown(owner)})" if (owner := owners.get(at)) else str(at) for at in matching),
            param_hint="NAME",
        )
    if matching:
        return matching[0]
    for error in away.values():
        raise error
    known = {at.name for at in owners} | {owner.name for owner in owners.values() if owner}
    raise await _not_found(connections, name, list(declared), known)


async def _not_found(connections: Connections, name: str, places: list[Place], known: set[str]) -> ReplicatorError:
    """Return the error for a name that no stream has, in the words of the engine if only one was asked."""
    from replicator.errors import StreamNotFound
    from replicator.lifecycle.connections import StreamId
    from replicator.lifecycle.failure import closest

    text = f"neither {' nor '.join(map(str, places))} has such a stream"
    if len(places) == 1:
        at = StreamId(places[0].backend, places[0].region, name)
        try:
            await connections.replicator(at).get_status(name)
        except StreamNotFound as error:
            text = error.message
    meant = closest(name, known)
    fix = "see what is there: replicator list"
    return StreamNotFound(text, stream=name, fix=f"did you mean {meant}? {fix}" if meant else fix)


def _shown(owner: Identity) -> str:
    return f"{owner.project}/{owner.stack}/{owner.name}"


def _owner(stream: Stream) -> Identity | None:
    """Return the resource that owns a stream, if it has a URN."""
    from replicator.lifecycle.check import Identity

    owner = Identity.of_urn(stream.owner.urn) if stream.owner is not None else None
    return owner if owner is not None and owner.project else None


async def measured(connections: Connections) -> Found:
    """Return every stream with its status, measured now."""
    return await _asked(connections, lambda client: client.describe())


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
    return await _asked(connections, lambda client: client.overview())


async def _asked(connections: Connections, ask: Callable[[Replicator], Awaitable[list[Description]]]) -> Found:
    answers, away = await _ask_each(connections, ask)
    streams = {str(id_of(item, place)): item for place, items in answers.items() for item in items}
    ordered = dict(sorted(streams.items(), key=lambda item: (item[1].name, item[0])))
    return Found(ordered, away, tuple(_places(connections)))


async def _ask_each(
    connections: Connections, ask: Callable[[Replicator], Awaitable[list[T]]]
) -> tuple[dict[Place, list[T]], dict[Place, ReplicatorError]]:
    """Ask every engine at once; return the answers, and the errors. If the only engine has an error, raise it."""
    import asyncio

    from replicator.errors import ReplicatorError
    from replicator.lifecycle.connections import StreamId

    clients = {at: connections.replicator(StreamId(at.backend, at.region, "*")) for at in _places(connections)}
    results = await asyncio.gather(*map(ask, clients.values()), return_exceptions=True)
    answers: dict[Place, list[T]] = {}
    away: dict[Place, ReplicatorError] = {}
    for place, result in zip(clients, results, strict=True):
        if isinstance(result, ReplicatorError):
            away[place] = result
        elif isinstance(result, BaseException):
            raise result
        else:
            answers[place] = result
    if len(clients) == len(away) == 1:
        raise next(iter(away.values()))
    return answers, away


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
    return _shown(owner) if owner.project else stream.owner.urn
