"""Making, changing and removing the streams of one agent, in an order that a crash cannot spoil."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from urllib.parse import unquote, urlsplit

from replicator import authref
from replicator.backends.ownership import destination_key, refuse_shared_destination
from replicator.backends.sqlite import database as db
from replicator.backends.sqlite import faults, preflight, replays
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.health import Health
from replicator.backends.sqlite.lanes import Job, Lanes, Launch
from replicator.backends.sqlite.litestream import EngineError, format_txid
from replicator.backends.sqlite.record import FileId, Phase, Record, Store, Tombstone
from replicator.backends.sqlite.replica import ReplicaError, ReplicaLocation, S3Credentials, parse_replica
from replicator.errors import (
    DestinationInUse,
    EngineUnavailable,
    InvalidStream,
    ReplicatorError,
    SourceSwapped,
    StreamNotFound,
)
from replicator.model import DesiredState, Mode, Stream

FIRST_SYNC = 10.0
"""Seconds that an upsert waits for the first upload. A longer one goes on, and the state says `snapshot` meanwhile."""

LOOK_EVERY = 2.0
"""Seconds between two looks at files and uploads."""


class Keeper:
    """Makes, changes and removes streams, and keeps them replicated. Callers hold the stream's lock.

    Each record is written before the effect that it speaks of, so that a crash leaves a record that says what to finish.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        store: Store,
        launch: Launch,
        *,
        replay_window: timedelta,
        redactor: authref.Redactor,
        environ: Mapping[str, str],
    ) -> None:
        self.store = store
        self.redact = redactor
        self.lanes = Lanes(binary, folder, launch, replay_window=replay_window, on_attach_failed=self.attach_failed)
        self._environ = environ
        self._health: dict[str, Health] = {}

    # --- making, changing, removing ------------------------------------------------------------------------------

    async def make(self, stream: Stream, half_made: Record | None) -> None:
        job = await self.job(Record(stream=stream, phase=Phase.MAKING))
        file = await self.inspect(stream)
        grave = self.store.tombstone(destination_key(stream.destination))
        if half_made is None:
            await self.refuse_foreign_data(stream, job, grave)
        record = Record(
            stream=stream,
            phase=Phase.MAKING,
            paused=stream.desired_state is DesiredState.PAUSED and stream.mode is not Mode.SNAPSHOT,
            generation=grave.generation if grave else 1,
            file=file,
            snapshot_due=grave is not None or half_made is not None,
            reset_due=grave is not None or half_made is not None,
        )
        await self.store.put(record)
        try:
            if stream.mode is Mode.SNAPSHOT:
                record = await self.copy_once(record)
            elif not record.paused:
                record = await self.attach(record, wait=True)
        except BaseException as error:
            if half_made is None and grave is None and isinstance(error, ReplicatorError):
                await self._undo_make(record)
            raise
        await self.store.put(record.model_copy(update={"phase": Phase.ACTIVE}))
        await self.store.exhume(destination_key(stream.destination))

    async def _undo_make(self, record: Record) -> None:
        await self.lanes.detach(record.name, timeout=1.0)
        await asyncio.to_thread(rmtree, side_folder(record.stream), True)
        await self.store.remove(record.name)
        self._health.pop(record.name, None)

    async def change(self, record: Record, stream: Stream) -> None:
        old, health = record.stream, self.health_of(record.name)
        new_source = old.source.uri != stream.source.uri
        new_place = destination_key(old.destination) != destination_key(stream.destination)
        file = await self.inspect(stream)
        swapped = not new_source and record.file is not None and file != record.file
        changed = record.model_copy(update={"stream": stream, "file": file})
        if new_place:
            grave = self.store.tombstone(destination_key(stream.destination))
            await self.refuse_foreign_data(stream, await self.job(changed), grave)
            changed = changed.model_copy(
                update={
                    "generation": grave.generation if grave else 1,
                    "snapshot_due": grave is not None,
                    "reset_due": True,
                }
            )
        elif new_source or swapped:
            changed = replays.new_generation(changed)
        moved = new_place or new_source or swapped
        restarts = moved or _engine_settings(old) != _engine_settings(stream)
        wants_pause = stream.desired_state is DesiredState.PAUSED
        if not restarts and not health.error:
            if changed != record:
                await self.store.put(changed)
            await self._settle(changed, wants_pause)
            return
        await self.job(changed)  # what cannot be resolved fails here, before anything is stopped
        if new_place:
            await self._bury(record)
        await self.store.put(changed)
        await self.lanes.detach(record.name)
        if new_source:
            await asyncio.to_thread(rmtree, side_folder(old), True)
        if stream.mode is Mode.SNAPSHOT:
            await self.store.put(await self.copy_once(changed))
        elif wants_pause:
            await self.store.put(changed.model_copy(update={"paused": True}))
        else:
            attached = await self.attach(changed.model_copy(update={"paused": False}), wait=True)
            await self.store.put(attached)
        if new_place:
            await self.store.exhume(destination_key(stream.destination))

    async def _settle(self, record: Record, wants_pause: bool) -> None:
        """Nothing differs but perhaps whether it runs."""
        if record.stream.mode is Mode.SNAPSHOT:
            return
        if wants_pause and not record.paused:
            await self.pause(record)
        elif not wants_pause and (record.paused or self.lanes.of(record.name) is None):
            await self.resume(record)

    async def pause(self, record: Record) -> None:
        await self.store.put(record.model_copy(update={"paused": True}))
        await self.lanes.detach(record.name)
        self.health_of(record.name).well()

    async def resume(self, record: Record) -> None:
        file = await self.inspect(record.stream)
        if record.file is not None and file != record.file:
            raise _swapped(record)
        running = record.model_copy(update={"paused": False})
        await self.store.put(running)
        try:
            await self.store.put(await self.attach(running, wait=True))
        except ReplicatorError:
            await self.store.put(record)
            raise

    async def remove(self, record: Record) -> None:
        removing = record.model_copy(update={"phase": Phase.DELETING})
        await self.store.put(removing)
        last = await self._last_txid(record)
        await self.lanes.detach(record.name)
        stream = record.stream
        if stream.purge_destination:
            job = await self.job(Record(stream=stream, phase=Phase.DELETING))
            try:
                await job.location.purge_prefix(job.credentials)
            except ReplicaError as error:
                raise faults.of_replica(error, stream.name) from error
            await self.store.exhume(destination_key(stream.destination))
        elif record.phase is not Phase.MAKING or last is not None:
            await self._bury(record, last)
        await asyncio.to_thread(rmtree, side_folder(stream), True)
        await self.store.remove(record.name)
        self._health.pop(record.name, None)

    async def _bury(self, record: Record, last: int | None = None) -> None:
        last = last if last is not None else await self._last_txid(record)
        await self.store.bury(
            Tombstone(
                destination=destination_key(record.stream.destination),
                name=record.name,
                owner=record.stream.owner,
                generation=record.generation,
                last_txid=format_txid(last) if last else None,
                removed_at=datetime.now(UTC),
            )
        )

    async def _last_txid(self, record: Record) -> int | None:
        lane = self.lanes.of(record.name)
        if lane is None:
            return None
        with suppress(EngineError):
            return await lane.control.txid(source_path(record.stream))
        return None

    async def copy_once(self, record: Record) -> Record:
        """The one copy of mode snapshot."""
        job = await self.job(record)
        try:
            await self.lanes.snapshot_once(job)
        except (EngineError, db.DatabaseError) as error:
            raise self.meaning(error, record.name) from error
        self.health_of(record.name).attached()
        return record.model_copy(update={"paused": True, "snapshot_due": False, "reset_due": False})

    # --- attaching -----------------------------------------------------------------------------------------------

    async def attach(self, record: Record, *, wait: bool = False) -> Record:
        """Begin to replicate; with `wait`, see the first upload, or the reason why there is none."""
        job = await self.job(record)
        health = self.health_of(record.name)
        try:
            lane = await self.lanes.attach(job)
            if wait:
                await self._first_sync(record.name, job)
        except (EngineError, db.DatabaseError) as error:
            await self.lanes.detach(record.name, timeout=1.0)
            failure = self.meaning(error, record.name)
            health.failed(failure.message)
            raise failure from error
        del lane
        health.attached()
        return record.model_copy(update={"snapshot_due": False, "reset_due": False})

    async def _first_sync(self, name: str, job: Job) -> None:
        lane = self.lanes.of(name)
        assert lane is not None
        try:
            await lane.control.sync(job.database, wait=True, timeout=FIRST_SYNC)
        except EngineError as error:
            if isinstance(faults.meaning(error.text, name), EngineUnavailable) and await self._reachable(job):
                return  # a large first upload: the store is there, and it goes on
            raise

    async def _reachable(self, job: Job) -> bool:
        try:
            await job.location.list_prefix(job.credentials)
        except ReplicaError:
            return False
        return True

    async def try_attach(self, record: Record) -> None:
        """Attach after a start or a failure. A failure is kept in the stream's health and tried again later."""
        health = self.health_of(record.name)
        try:
            file = await self.inspect(record.stream)
            if record.file is not None and file != record.file:
                health.failed(_swapped(record).message, by_person=True)
                return
            attached = await self.attach(record)
            if attached != record:
                await self.store.put(attached)
        except ReplicatorError as error:
            health.failed(error.message)

    def attach_failed(self, name: str, error: Exception) -> None:
        self.health_of(name).failed(self.meaning(error, name).message)

    # --- watching ------------------------------------------------------------------------------------------------

    async def look_at(self, name: str) -> None:
        record, health = self.store.get(name), self.health_of(name)
        if record is None or record.paused or record.phase is not Phase.ACTIVE:
            return
        try:
            file = await self.inspect(record.stream)
        except ReplicatorError as error:
            if health.error != error.message:
                health.failed(error.message)
            await self.lanes.detach(name, timeout=1.0)
            return
        if record.file is not None and file != record.file:
            if not health.by_person:
                health.failed(_swapped(record).message, by_person=True)
                await self.lanes.detach(name, timeout=1.0)
            return
        if self.lanes.of(name) is None and not health.by_person and time.monotonic() >= health.retry_at:
            await self.try_attach(record)

    # --- small parts ---------------------------------------------------------------------------------------------

    def health_of(self, name: str) -> Health:
        return self._health.setdefault(name, Health())

    def record(self, name: str) -> Record:
        record = self.store.get(name)
        if record is None:
            raise StreamNotFound("the agent has no such stream", stream=name)
        return record

    def location(self, record: Record) -> ReplicaLocation:
        """Where the stream writes now."""
        place = parse_location(record.stream)
        return place if record.generation == 1 else place.child(f"r{record.generation}")

    async def credentials(self, stream: Stream) -> S3Credentials | None:
        """The identity that `authRef` names, resolved on this host; `None` for the host's own role."""
        if stream.destination.auth_ref is None:
            return None
        fields = ("accessKeyId", "secretAccessKey")
        try:
            ref = authref.parse(stream.destination.auth_ref)
            found = await asyncio.to_thread(authref.resolve, ref, fields, required=fields, environ=self._environ)
        except ReplicatorError as error:
            raise type(error)(
                error.message, stream=stream.name, property="destination.authRef", fix=error.fix
            ) from None
        self.redact.add(found["secretAccessKey"])
        return S3Credentials(found["accessKeyId"], found["secretAccessKey"])

    async def job(self, record: Record) -> Job:
        stream = record.stream
        return Job(
            name=stream.name,
            database=source_path(stream),
            location=self.location(record),
            credentials=await self.credentials(stream),
            interval=stream.checkpoint_interval,
            options=stream.options,
            snapshot_due=record.snapshot_due,
            reset_due=record.reset_due,
        )

    async def inspect(self, stream: Stream) -> FileId:
        try:
            return await preflight.inspect(source_path(stream))
        except db.DatabaseError as error:
            raise faults.of_database(error, stream.name) from error

    async def refuse_foreign_data(self, stream: Stream, job: Job, grave: Tombstone | None) -> None:
        """One writer per destination: refuse a prefix that holds what this registry does not own."""
        if grave is not None:
            theirs, mine = grave.owner, stream.owner
            if theirs is None or (mine is not None and (mine.token == theirs.token or mine.urn == theirs.urn)):
                return
            raise DestinationInUse(
                f"{job.location} holds the replica of the removed stream {grave.name!r} of {theirs.urn}",
                stream=stream.name,
                property="destination.uri",
                fix="choose another prefix, or delete that replica first",
            )
        await preflight.refuse_objects(stream, job.location, job.credentials)

    def refuse_neighbours(self, stream: Stream) -> None:
        others = [record.stream for record in self.store.records() if record.name != stream.name]
        refuse_shared_destination(stream, others)
        for other in others:
            if source_path(other) == source_path(stream):
                raise InvalidStream(
                    f"stream {other.name!r} replicates this database already, and litestream writes to one place",
                    stream=stream.name,
                    property="source.uri",
                    fix="change the destination of that stream, or replicate its replica",
                )

    def meaning(self, error: Exception, name: str) -> ReplicatorError:
        if isinstance(error, ReplicatorError):
            return error
        if isinstance(error, db.DatabaseError):
            return faults.of_database(error, name)
        text = error.text if isinstance(error, EngineError) else str(error)
        return faults.meaning(self.redact(text), name)


def source_path(stream: Stream) -> Path:
    """The database file of a stream."""
    return Path(unquote(urlsplit(stream.source.uri).path))


def parse_location(stream: Stream) -> ReplicaLocation:
    """The destination of a stream; raise `InvalidStream` where it cannot be one."""
    try:
        return parse_replica(stream.destination.uri)
    except ValueError as error:
        raise InvalidStream(str(error), stream=stream.name, property="destination.uri") from None


def side_folder(stream: Stream) -> Path:
    return LITESTREAM.side_folder_of(source_path(stream))


def _engine_settings(stream: Stream) -> tuple[object, ...]:
    """What the engine's process has to be started with."""
    return (
        stream.destination.uri,
        stream.destination.auth_ref,
        stream.checkpoint_interval,
        stream.options,
        stream.mode,
    )


def _swapped(record: Record) -> SourceSwapped:
    return SourceSwapped(
        f"another file took the place of {source_path(record.stream)} since its replication began",
        stream=record.name,
        property="source.uri",
        fix="if that is right, run pulumi up: the new file is copied whole, under a new prefix",
    )
