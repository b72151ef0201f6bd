"""Adoption of a database that another litestream has replicated. The stream continues the existing prefix."""

from __future__ import annotations

import asyncio
from pathlib import Path

from replicator.backends.sqlite.locations import parse_location, same_place, source_path
from replicator.backends.sqlite.lock_owners import holders, still_running
from replicator.backends.sqlite.positions import Position
from replicator.backends.sqlite.preflight import contents
from replicator.backends.sqlite.reconciler import Reconciler
from replicator.backends.sqlite.record import FORMAT, Phase, StreamRecord
from replicator.backends.sqlite.replica import PrefixContents
from replicator.backends.sqlite.stream_lock import StreamLock
from replicator.backends.sqlite.stream_manager import StreamManager
from replicator.errors import DestinationInUse
from replicator.model import Checkpoint, Stream
from replicator.replicator import Adoption

_LATER_GENERATIONS = "r2"  # the sub-prefix of an agent's first re-seed; no litestream of its own writes there


async def look(reconciler: Reconciler, stream: Stream, record: StreamRecord | None) -> Adoption:
    """Return what an adoption would take over. Raise where the source, the store or its data do not allow it."""
    if record is not None and record.phase is Phase.ACTIVE:
        if source_path(record.stream) == source_path(stream) and await same_place(record.stream, stream):
            return Adoption(known=True)
        raise DestinationInUse(
            f"the agent has a stream of this name, of {source_path(record.stream)}",
            stream=stream.name,
            fix="choose another name",
        )
    await reconciler.reservations.check(stream)
    await reconciler.guards.claims.check(stream)
    await reconciler.inspect(stream)
    found = await _contents(reconciler, stream)
    newest = None
    if found.newest_txid is not None:
        newest = Checkpoint(lsn=str(Position(1, found.newest_txid)), wall=found.newest_time)
    return Adoption(known=False, objects=found.objects, newest=newest)


async def take_over(
    reconciler: Reconciler,
    manager: StreamManager,
    lock: StreamLock,
    stream: Stream,
    unfinished: StreamRecord | None,
    *,
    ours: Path,
) -> None:
    """Create the stream. Save a tombstone for existing data first, so that a retry after a crash is not refused.

    :param ours: the folder of the agent's own litestream processes.
    """
    if running := await asyncio.to_thread(holders, [source_path(stream)], but=ours):
        raise still_running(running, stream.name)
    found = await _contents(reconciler, stream)
    left = await reconciler.tombstones.find(stream)
    if found.objects and (left is None or left.version < FORMAT):
        record = StreamRecord(stream=stream, phase=Phase.CREATING)
        await reconciler.tombstones.save_tombstone(record, found.newest_txid)
    await manager.create(lock, stream, unfinished)


async def _contents(reconciler: Reconciler, stream: Stream) -> PrefixContents:
    """Return what is at the destination; raise `DestinationInUse` where it is not what litestream 0.5 left."""
    place, credentials = parse_location(stream), await reconciler.identities.of(stream)
    found = await contents(stream, place, credentials)
    if (await contents(stream, place.child(_LATER_GENERATIONS), credentials)).objects:
        raise DestinationInUse(
            f"{place} was written by an agent, which has re-seeded it",
            stream=stream.name,
            property="destination.uri",
            fix="restore that agent's registry, or choose another prefix",
        )
    if found.objects and found.newest_txid is None:
        raise DestinationInUse(
            f"{place} holds {found.objects} objects, and none is a transaction file of litestream 0.5",
            stream=stream.name,
            property="destination.uri",
            fix="upgrade that litestream to 0.5 and let it replicate first, or choose an empty prefix",
        )
    return found
