"""Creation, change and removal of one agent's streams, in a crash-safe order."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from replicator.backends.shared.declarations import canonical
from replicator.backends.sqlite import litestream_errors, replays
from replicator.backends.sqlite.drain import drain
from replicator.backends.sqlite.handles import opened
from replicator.backends.sqlite.locations import parse_location, same_place, side_folder, source_path
from replicator.backends.sqlite.positions import position_at
from replicator.backends.sqlite.reconciler import Reconciler
from replicator.backends.sqlite.record import FileId, Phase, StreamRecord, Tombstone
from replicator.backends.sqlite.replica import ReplicaError
from replicator.backends.sqlite.reserved import replicated_already
from replicator.backends.sqlite.stream_lock import StreamLock
from replicator.errors import DestinationInUse, EngineRefused, ReplicatorError, StreamNotFound
from replicator.model import DesiredState, Mode, Stream

_log = logging.getLogger(__name__)


class StreamManager:
    """Creates, changes and removes streams. Callers also hold the stream's reservation to create or change it.

    Each record is written before the effect that it describes; after a crash it says what to finish.
    """

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self._store = reconciler.store
        self._daemons = reconciler.daemons
        self._guards = reconciler.guards
        self._tombstones = reconciler.tombstones
        self._identities = reconciler.identities

    # --- creation ---------------------------------------------------------------------------------------------------

    async def create(self, lock: StreamLock, stream: Stream, unfinished: StreamRecord | None) -> None:
        lock.require(stream.name)
        if unfinished is not None:
            await self._daemons.detach(stream.name)
            elsewhere = not await same_place(unfinished.stream, stream)
            if elsewhere or source_path(unfinished.stream) != source_path(stream):
                await self._abandon(unfinished)
                unfinished = None
        await self._identities.of(stream)
        file = await self._inspect_alone(stream)
        await self._guards.refuse_others(stream)
        left = None if unfinished else await self._left_at(stream)
        claimed = await self._claim(stream, checked=left is not None or unfinished is not None)
        record = StreamRecord(
            stream=stream,
            phase=Phase.CREATING,
            paused=stream.desired_state is DesiredState.PAUSED or stream.mode is Mode.SNAPSHOT,
            generation=unfinished.generation if unfinished else left.generation if left else 1,
            file=file,
            copy_due=stream.mode is Mode.SNAPSHOT,
            reset_due=True,
        )
        await self._store.put(record)
        try:
            if record.copy_due:
                record = await self._reconciler.copy_once(lock, record)
            elif not record.paused:
                record = await self._reconciler.attach(lock, record, wait=True)
        except ReplicatorError:
            await self._abandon(record, claimed=claimed)
            raise
        await self._store.put(record.model_copy(update={"phase": Phase.ACTIVE}))
        await self._tombstones.delete_tombstone(stream, left)

    async def _left_at(self, stream: Stream) -> Tombstone | None:
        """Return the tombstone that the stream continues at its destination; raise where it may not write there."""
        await self._guards.claims.check(stream)
        return await self._tombstones.returning(stream)

    async def _claim(self, stream: Stream, *, checked: bool) -> bool:
        """Claim the destination; tell whether the claim is new.

        :param checked: the content is known to be this agent's; else another agent may have written since a check.
        """
        claimed = await self._guards.claims.take(stream)
        if claimed and not checked:
            try:
                await self._tombstones.returning(stream)
            except ReplicatorError:
                await self._guards.claims.release(stream)
                raise
        return claimed

    async def _abandon(self, record: StreamRecord, *, claimed: bool = False) -> None:
        """Undo a creation. A tombstone keeps what reached the destination for this owner.

        An upload may arrive after its process has ended, so the destination's content does not decide.

        :param claimed: this attempt created the claim on the destination.
        """
        await self._daemons.detach(record.name, timeout=1.0)
        await self._tombstones.save_tombstone(record)
        if claimed:
            with suppress(ReplicatorError):  # a remaining claim is still this agent's
                await self._guards.claims.release(record.stream)
        await self._remove_side_folder(record.stream)
        await self._store.remove(record.name)
        self._reconciler.forget(record.name)

    # --- change -----------------------------------------------------------------------------------------------------

    async def change(self, lock: StreamLock, record: StreamRecord, stream: Stream) -> None:
        lock.require(record.name)
        record = await self._change_removal(record, stream)
        old = record.stream
        new_source = source_path(old) != source_path(stream)
        new_place = not await same_place(old, stream)
        file = await self._inspect_alone(stream)
        swapped = not new_source and record.file is not None and file != record.file
        moved = new_place or new_source or swapped
        changed = record.model_copy(update={"stream": stream, "file": file})
        if not moved and engine_settings(old) == engine_settings(stream):
            if changed != record:
                await self._store.put(changed)
            await self._settle(lock, changed)
            await self._tombstones.delete_tombstone(stream)  # a crash may have left one when the stream returned
            return
        left = None
        if new_place:
            left = await self._left_at(stream)
            changed = changed.model_copy(
                update={
                    "generation": left.generation if left else 1,
                    "reset_due": True,
                    "reseed_due": False,
                    "arrived": None,
                    "reached": None,
                }
            )
        elif moved:
            changed = replays.new_generation(changed)
        copies = stream.mode is Mode.SNAPSHOT
        changed = changed.model_copy(
            update={"paused": copies or stream.desired_state is DesiredState.PAUSED, "copy_due": copies}
        )
        await self._reconciler.reach(changed)  # an unresolved secret or a denied list fails before anything is stopped
        if new_place:
            await self._claim(stream, checked=left is not None)
            await self._tombstones.save_tombstone(record, (await self._daemons.detach(record.name)).txid)
        await self._store.put(changed)
        async with self._daemons.kept(source_path(old)):
            await self._daemons.detach(record.name)
            if new_source:
                await self._remove_side_folder(old)
            try:
                await self._start(lock, changed)
            except ReplicatorError:
                if not moved:  # the old settings worked
                    await self._store.put(record)
                    if not record.paused:
                        await self._reconciler.try_attach(lock, record)
                raise
        await self._tombstones.delete_tombstone(stream, left)

    async def _change_removal(self, record: StreamRecord, stream: Stream) -> StreamRecord:
        """Record the deletion settings first: they must apply even if the rest of the update fails."""
        wanted = {"purge_destination": stream.purge_destination, "drain_before_delete": stream.drain_before_delete}
        changed = record.model_copy(update={"stream": record.stream.model_copy(update=wanted)})
        if changed != record:
            await self._store.put(changed)
        return changed

    async def _start(self, lock: StreamLock, record: StreamRecord) -> None:
        if record.copy_due:
            await self._store.put(await self._reconciler.copy_once(lock, record))
        elif not record.paused:
            await self._store.put(await self._reconciler.attach(lock, record, wait=True))

    async def _settle(self, lock: StreamLock, record: StreamRecord) -> None:
        """Apply a declaration that changes nothing, except perhaps whether the stream runs."""
        if record.copy_due:
            await self._store.put(await self._reconciler.copy_once(lock, record))
        elif record.stream.mode is Mode.SNAPSHOT:
            return
        elif record.stream.desired_state is DesiredState.PAUSED:
            await self.pause(lock, record)
        elif record.paused or self._daemons.of(record.name) is None or self._reconciler.health_of(record.name).error:
            await self.resume(lock, record)

    async def pause(self, lock: StreamLock, record: StreamRecord) -> None:
        lock.require(record.name)
        self._refuse_unfinished(record)
        if record.paused and self._daemons.of(record.name) is None:
            return
        paused = record.model_copy(update={"paused": True})
        await self._store.put(paused)
        released = await self._daemons.detach(record.name)
        self._reconciler.health_of(record.name).well()
        if released.txid is not None:
            reached = position_at(record.generation, source_path(record.stream), released.txid)
            await self._store.put(paused.model_copy(update={"reached": reached}))

    async def resume(self, lock: StreamLock, record: StreamRecord) -> None:
        lock.require(record.name)
        self._refuse_unfinished(record)
        if record.stream.mode is Mode.SNAPSHOT:
            await self._store.put(await self._reconciler.copy_once(lock, record))
            return
        if not record.paused and self._daemons.of(record.name) and not self._reconciler.health_of(record.name).error:
            return
        file = await self._reconciler.inspect(record.stream)
        if record.file is not None and file != record.file:
            raise self._reconciler.swapped(record)
        running = record.model_copy(update={"paused": False})
        async with self._daemons.kept(source_path(record.stream)):
            await self._daemons.detach(record.name)
            await self._store.put(running)
            try:
                await self._store.put(await self._reconciler.attach(lock, running, wait=True))
            except ReplicatorError:
                await self._store.put(record)
                raise

    # --- removal ----------------------------------------------------------------------------------------------------

    async def remove(self, lock: StreamLock, record: StreamRecord) -> None:
        """Remove a stream. Leave it unchanged if its last changes cannot be uploaded or its replica not be purged."""
        lock.require(record.name)
        stream = record.stream
        if stream.purge_destination:
            await self._claim_to_purge(stream)
        last = await drain(self._reconciler, lock, record)
        await self._store.put(record.model_copy(update={"phase": Phase.DELETING}))
        if stream.purge_destination:
            await self._purge(stream)
            await self._guards.claims.release(stream)
            await self._tombstones.delete_tombstone(stream)
        else:
            await self._tombstones.save_tombstone(record, last)
        await self._remove_side_folder(stream)
        await self._store.remove(record.name)
        self._reconciler.forget(record.name)

    async def _claim_to_purge(self, stream: Stream) -> None:
        try:
            await self._guards.claims.take(stream)
        except DestinationInUse as error:
            raise DestinationInUse(
                f"the purge would remove what another writer has there: {error.message}",
                stream=stream.name,
                property="purgeDestination",
                fix="set it to false, run pulumi up, and delete the stream then",
            ) from error

    async def _purge(self, stream: Stream) -> None:
        place = parse_location(stream)
        try:
            purged = await place.purge_prefix(await self._identities.of(stream))
        except ReplicaError as error:
            raise litestream_errors.of_replica(error, stream.name) from error
        if purged.kept:
            count = "1 object" if purged.kept == 1 else f"{purged.kept} objects"
            _log.warning(
                "stream %s: its replica is purged; %s of others stay at %s: %s", stream.name, count, place, purged
            )

    async def _remove_side_folder(self, stream: Stream) -> None:
        try:
            await self._guards.refuse_others(stream)
        except DestinationInUse as error:
            _log.warning("stream %s: %s stays: %s", stream.name, side_folder(stream), error.message)
        else:
            await asyncio.to_thread(_remove_folder, side_folder(stream))

    # --- refusals --------------------------------------------------------------------------------------------------

    def record(self, name: str) -> StreamRecord:
        record = self._store.get(name)
        if record is None:
            raise not_found(name)
        return record

    async def _inspect_alone(self, stream: Stream) -> FileId:
        """Return the file's identity; refuse a file that another stream has under any path."""
        file = await self._reconciler.inspect(stream)
        for other in self._store.records():
            if other.name != stream.name and other.file == file:
                raise replicated_already(stream.name, other.name)
        return file

    def _refuse_unfinished(self, record: StreamRecord) -> None:
        if record.phase is not Phase.ACTIVE:
            done = "created" if record.phase is Phase.CREATING else "removed"
            raise EngineRefused(f"it is partially {done}", stream=record.name, fix="run pulumi up, which finishes that")


def _remove_folder(folder: Path) -> None:
    with suppress(OSError), opened(folder.parent) as parent:
        rmtree(folder.name, ignore_errors=True, dir_fd=parent)


def engine_settings(stream: Stream) -> tuple[object, ...]:
    """Return the settings with which the engine's process is started."""
    declared = canonical(stream)
    return (
        declared.destination.uri,
        declared.destination.auth_ref,
        declared.checkpoint_interval,
        declared.options,
        declared.mode,
    )


def not_found(name: str) -> StreamNotFound:
    """Return the error for a stream that does not exist."""
    return StreamNotFound("the agent has no such stream", stream=name, fix="see what is there: replicator list")
