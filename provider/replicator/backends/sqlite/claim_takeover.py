"""Taking a destination over from an agent that is gone: its history stays, and a new generation begins beside it."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from replicator.backends.sqlite import database as db
from replicator.backends.sqlite import litestream_errors
from replicator.backends.sqlite.claims import Claim
from replicator.backends.sqlite.litestream import CommandLine, EngineError
from replicator.backends.sqlite.locations import check_source_path, parse_location, place_of, same_place
from replicator.backends.sqlite.positions import Position
from replicator.backends.sqlite.preflight import contents
from replicator.backends.sqlite.reconciler import Reconciler
from replicator.backends.sqlite.record import StreamRecord
from replicator.backends.sqlite.replica import PrefixContents, ReplicaError, S3Credentials
from replicator.errors import DestinationInUse, DestinationMissing, InvalidStream, PolicyRefused
from replicator.model import Checkpoint, Endpoint, EndpointKind, Stream
from replicator.replicator import Takeover

STAND_IN = "takeover/"
"""A name that no stream can have, so that it hides none from the rules."""
_UNKNOWN = "unknown"
"""The name of a former stream that no claim tells."""
_NO_DATABASE = Endpoint(kind=EndpointKind.SQLITE, uri="sqlite:///dev/null")
_PART = re.compile(r"/(?:r[1-9][0-9]*|ltx(?:/[0-9])?|[0-9a-f]{4})/*(?=$|\?)")
"""The end of a URI that may name a part of a replica: a generation, or a level in it."""


def stand_in(destination: Endpoint, database: Endpoint | None) -> Stream:
    """Return a stream for the rules of sources and destinations; it is never recorded."""
    made = Stream(name=_UNKNOWN, source=database or _NO_DATABASE, destination=destination)
    return made.model_copy(update={"name": STAND_IN})


async def own_stream(reconciler: Reconciler, destination: Endpoint) -> StreamRecord | None:
    """Return the stream of this agent that writes to the destination."""
    stream = stand_in(destination, None)
    for record in reconciler.store.records():
        if await same_place(record.stream, stream):
            return record
    return None


async def look(reconciler: Reconciler, destination: Endpoint, database: Endpoint | None, *, folder: Path) -> Takeover:
    """Return what a takeover would replace and begin. Changes nothing at the destination.

    :param database: is compared with the newest point of the replica, if given.
    :param folder: for the restored copy, which is removed. The caller lets nobody else use it.
    :raises DestinationInUse: a stream of this agent writes there, or the place belongs to another claim.
    :raises DestinationMissing: there is neither a claim nor a replica.
    """
    stream = stand_in(destination, database)
    credentials = await reconciler.identities.of(stream)
    own = await own_stream(reconciler, destination)
    claim = await _admitted(reconciler, stream, own, credentials)
    generation, found = await _newest(stream, credentials)
    return Takeover(
        former=claim.agent if claim else None,
        ours=claim is not None and claim.agent == reconciler.store.agent_id,
        host=claim.host if claim else None,
        stream=claim.stream if claim else None,
        owner=claim.owner if claim else None,
        claimed_at=claim.claimed_at if claim else None,
        own_stream=own.name if own else None,
        newest=_position(generation, found),
        next_prefix=str(place_of(stream, generation + 1)),
        same=None if database is None else await _is_same(reconciler, stream, generation, credentials, folder),
    )


async def take(reconciler: Reconciler, destination: Endpoint, former: str | None, own: StreamRecord | None) -> None:
    """Replace the claim, and let the former owner's stream begin the next generation. Idempotent.

    The claim is replaced first: a takeover that is cut off after it is completed by the same call.

    :param own: the stream of this agent that lost the destination, and begins the generation; the caller locks it.
    """
    stream = stand_in(destination, None)
    credentials = await reconciler.identities.of(stream)
    held = await _admitted(reconciler, stream, own, credentials)
    generation, _ = await _newest(stream, credentials)
    recorded = own.stream.owner.urn if own and own.stream.owner else None
    ours = Claim(
        agent=reconciler.store.agent_id,
        host=socket.gethostname(),
        stream=own.name if own else held.stream if held else _UNKNOWN,
        owner=recorded if own else held.owner if held else None,
    )
    await reconciler.guards.claims.replace(stream, former, ours)
    if own is None:
        await reconciler.tombstones.save_taken_over(stream, ours, generation + 1)
    else:
        begins = {"generation": generation + 1, "reset_due": True, "reseed_due": False, "reached": None}
        await reconciler.store.put(own.model_copy(update=begins))


async def _admitted(
    reconciler: Reconciler, stream: Stream, own: StreamRecord | None, credentials: S3Credentials | None
) -> Claim | None:
    """Return the claim of a place that may be taken over."""
    await reconciler.reservations.check(stream, replaces=[own.name] if own else [])
    await _refuse_part(reconciler, stream)
    claim = await reconciler.guards.claims.find(stream)
    place = parse_location(stream)
    if own is not None and (claim is None or claim.agent == reconciler.store.agent_id):
        raise DestinationInUse(
            f"this agent replicates its stream {own.name!r} to {place}",
            property="destination.uri",
            fix="there is nothing to take over",
        )
    if claim is None and not await _is_replica(stream, credentials):
        raise DestinationMissing(
            f"there is neither a claim nor a replica at {place}",
            property="destination.uri",
            fix="give the destination.uri of the stream, with its endpoint and region; an empty place needs none",
        )
    return claim


async def _refuse_part(reconciler: Reconciler, stream: Stream) -> None:
    """Raise where the place is a generation or a level of a replica that an agent claims."""
    uri = stream.destination.uri
    while (shorter := _PART.sub("", uri)) != uri:
        uri = shorter
        whole = stream.model_copy(update={"destination": stream.destination.model_copy(update={"uri": uri})})
        with suppress(InvalidStream, PolicyRefused):  # it is no place for a stream, so there is no claim to see
            if (claim := await reconciler.guards.claims.find(whole)) is not None:
                raise _is_part(stream, whole, claim)


def _is_part(stream: Stream, whole: Stream, claim: Claim) -> DestinationInUse:
    return DestinationInUse(
        f"{parse_location(stream)} is a part of the replica at {parse_location(whole)}, which the agent {claim.agent} "
        f"on host {claim.host} claims",
        property="destination.uri",
        fix=f"take over the whole: {whole.destination.uri}",
    )


async def _is_replica(stream: Stream, credentials: S3Credentials | None) -> bool:
    place = parse_location(stream)
    try:
        generations = await place.generations(credentials)
        return any([await place_of(stream, number).has_start(credentials) for number in generations])
    except ReplicaError as error:
        raise litestream_errors.of_replica(error, stream.name) from error


async def _newest(stream: Stream, credentials: S3Credentials | None) -> tuple[int, PrefixContents]:
    """Return the newest generation, and what is in it; the first one, which may be empty, if there is no other."""
    place = parse_location(stream)
    try:
        generation = (await place.generations(credentials))[-1]
    except ReplicaError as error:
        raise litestream_errors.of_replica(error, stream.name) from error
    return generation, await contents(stream, place_of(stream, generation), credentials)


def _position(generation: int, found: PrefixContents) -> Checkpoint | None:
    if found.newest_txid is None:
        return None
    return Checkpoint(lsn=str(Position(generation, found.newest_txid)), wall=found.newest_time)


async def _is_same(
    reconciler: Reconciler, stream: Stream, generation: int, credentials: S3Credentials | None, folder: Path
) -> bool:
    """Tell whether a database has the content of the newest point, by restoring it."""
    await reconciler.gate.admit(reconciler.gate.check_source, stream)
    path = check_source_path(stream)
    command: CommandLine = reconciler.daemons.command_line(credentials)
    work = folder / "takeover"
    await asyncio.to_thread(_make_empty, work)
    try:
        await command.restore(place_of(stream, generation).url_for_engine(), work / "copy.db")
        return await db.content_hash(work / "copy.db") == await db.content_hash(path)
    except EngineError as error:
        raise litestream_errors.meaning(reconciler.redact(error.text), stream.name) from error
    except db.DatabaseError as error:
        raise litestream_errors.of_database(error, stream.name) from error
    finally:
        await asyncio.to_thread(shutil.rmtree, work)


def _make_empty(folder: Path) -> None:
    """Make a folder, without what an agent that was killed left in it."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(0o700, parents=True)
