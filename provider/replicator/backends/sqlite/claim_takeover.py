"""Taking a destination over from an agent that is gone: its history stays, and a new generation begins beside it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from replicator.backends.sqlite import database as db
from replicator.backends.sqlite import litestream_errors
from replicator.backends.sqlite.claims import Claim
from replicator.backends.sqlite.litestream import CommandLine, EngineError
from replicator.backends.sqlite.locations import check_source_path, parse_location, place_of
from replicator.backends.sqlite.positions import Position
from replicator.backends.sqlite.preflight import contents
from replicator.backends.sqlite.reconciler import Reconciler
from replicator.backends.sqlite.replica import PrefixContents, ReplicaError, S3Credentials
from replicator.model import Checkpoint, Endpoint, EndpointKind, Stream
from replicator.replicator import Takeover

_NAME = "takeover"
_NO_DATABASE = Endpoint(kind=EndpointKind.SQLITE, uri="sqlite:///dev/null")


def stand_in(destination: Endpoint, database: Endpoint | None) -> Stream:
    """Return a stream for the rules of sources and destinations; it is never recorded."""
    return Stream(name=_NAME, source=database or _NO_DATABASE, destination=destination)


async def look(reconciler: Reconciler, destination: Endpoint, database: Endpoint | None, *, folder: Path) -> Takeover:
    """Return what a takeover would replace and begin. Changes nothing at the destination.

    :param database: is compared with the newest point of the replica, if given.
    :param folder: for the restored copy, which is removed. The caller lets nobody else use it.
    :raises DestinationInUse: a stream of this agent has the destination.
    """
    stream = stand_in(destination, database)
    credentials = await reconciler.identities.of(stream)
    await reconciler.reservations.check(stream)
    claim = await reconciler.guards.claims.find(stream)
    generation, found = await _newest(stream, credentials)
    return Takeover(
        former=claim.agent if claim else None,
        ours=claim is not None and claim.agent == reconciler.store.agent_id,
        host=claim.host if claim else None,
        stream=claim.stream if claim else None,
        owner=claim.owner if claim else None,
        claimed_at=claim.claimed_at if claim else None,
        newest=_position(generation, found),
        next_prefix=str(place_of(stream, generation + 1)),
        same=None if database is None else await _is_same(reconciler, stream, generation, credentials, folder),
    )


async def take(reconciler: Reconciler, destination: Endpoint, former: str | None) -> None:
    """Replace the claim, and let the former owner's stream begin the next generation. Idempotent.

    The claim is replaced first: a takeover that is cut off after it is completed by the same call.
    """
    stream = stand_in(destination, None)
    credentials = await reconciler.identities.of(stream)
    await reconciler.reservations.check(stream)
    claims = reconciler.guards.claims
    held = await claims.find(stream)
    generation, _ = await _newest(stream, credentials)
    ours = Claim(
        agent=reconciler.store.agent_id,
        host=socket.gethostname(),
        stream=held.stream if held else stream.name,
        owner=held.owner if held else None,
    )
    await claims.replace(stream, former, ours)
    await reconciler.tombstones.save_taken_over(stream, held, generation + 1)


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
