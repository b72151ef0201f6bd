"""Keeping streams attached to a litestream process, and knowing why one is not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from replicator import authref
from replicator.backends.sqlite import database as db
from replicator.backends.sqlite import faults, preflight, wal
from replicator.backends.sqlite.health import Health
from replicator.backends.sqlite.lanes import Job, Lane, Lanes, Launch
from replicator.backends.sqlite.litestream import EngineError, EngineUnreachable
from replicator.backends.sqlite.places import Identities, check_source_path, location_of, source_path
from replicator.backends.sqlite.positions import position_at
from replicator.backends.sqlite.record import FileId, Phase, Record, Store
from replicator.backends.sqlite.replica import ReplicaError
from replicator.backends.sqlite.status import ASK_WITHIN, stale_after
from replicator.errors import EngineUnavailable, ReplicatorError, SourceSwapped
from replicator.model import Stream

FIRST_SYNC = 10.0
"""Seconds that an upsert waits for the first upload. A longer one goes on, and the state says `snapshot` meanwhile."""

_PROBE_WITHIN = 3.0


class Attachment:
    """Attaches streams, and attaches them again. Callers hold the stream's lock."""

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
        self.identities = Identities(redactor, environ)
        self.lanes = Lanes(binary, folder, launch, replay_window=replay_window, on_change=self._changed)
        self._health: dict[str, Health] = {}

    async def attach(self, record: Record, *, wait: bool = False) -> Record:
        """Begin to replicate; with `wait`, see the first upload, or the reason why there is none."""
        job = await self.job(record)
        health = self.health_of(record.name)
        try:
            await self.lanes.attach(job)
            if wait:
                await self._first_sync(record.name, job)
        except (EngineError, db.DatabaseError, OSError) as error:
            await self.lanes.detach(record.name, timeout=1.0)
            failure = self.meaning(error, record.name)
            health.failed(failure.message)
            raise failure from error
        health.attached()
        return record.model_copy(update={"reset_due": False, "reached": None})

    async def _first_sync(self, name: str, job: Job) -> None:
        lane = self.lanes.of(name)
        if lane is None:
            raise EngineError("sync", None, "its litestream process has ended")
        try:
            await lane.control.sync(job.database, wait=True, timeout=FIRST_SYNC)
        except EngineError as error:
            if isinstance(faults.meaning(error.text, name), EngineUnavailable) and await _answers(job):
                return  # a large first upload: the store is there, and it goes on
            raise

    async def copy_once(self, record: Record) -> Record:
        """The one copy of mode snapshot."""
        job = await self.job(record)
        try:
            await self.lanes.snapshot_once(job)
        except (EngineError, db.DatabaseError, OSError) as error:
            failure = self.meaning(error, record.name)
            self.health_of(record.name).failed(failure.message)
            raise failure from error
        self.health_of(record.name).attached()
        last = wal.newest_transaction(job.database)
        reached = position_at(record.generation, job.database, last) if last else None
        return record.model_copy(update={"paused": True, "copy_due": False, "reset_due": False, "reached": reached})

    async def try_attach(self, record: Record) -> None:
        """Attach after a start or a failure. A failure is kept in the stream's health and tried again later."""
        health = self.health_of(record.name)
        try:
            file = await self.inspect(record.stream)
            if record.file is not None and file != record.file:
                health.failed(self.swapped(record).message, by_person=True)
                return
            attached = await (self.copy_once(record) if record.copy_due else self.attach(record))
            if attached != record:
                await self.store.put(attached)
        except ReplicatorError as error:
            if health.error != error.message:
                health.failed(error.message)

    def _changed(self, name: str, error: Exception | None) -> None:
        """A process died and came up again."""
        if error is None:
            self.health_of(name).attached()
        else:
            self.health_of(name).failed(self.meaning(error, name).message)

    # --- watching ------------------------------------------------------------------------------------------------

    async def look_at(self, name: str) -> None:
        """Look at one stream's file and uploads, and attach it again where that is due."""
        record, health = self.store.get(name), self.health_of(name)
        if record is None or record.phase is not Phase.ACTIVE or (record.paused and not record.copy_due):
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
                health.failed(self.swapped(record).message, by_person=True)
                await self.lanes.detach(name, timeout=1.0)
            return
        lane = self.lanes.of(name)
        if lane is not None:
            await self._look_at_uploads(record, lane, health)
        elif not health.by_person and time.monotonic() >= health.retry_at:
            await self.try_attach(record)

    async def _look_at_uploads(self, record: Record, lane: Lane, health: Health) -> None:
        """Where nothing was uploaded for too long, ask why. To ask is to try, before the engine would by itself."""
        path = source_path(record.stream)
        listed = (await lane.listing(ASK_WITHIN)).get(path)
        limit = stale_after(record.stream.checkpoint_interval)
        last = listed.last_sync_at if listed else None
        fresh = last is not None and datetime.now(UTC) - last.astimezone(UTC) <= limit
        if fresh or time.monotonic() - (health.attached_at or 0.0) <= limit.total_seconds():
            health.flows()
        elif time.monotonic() >= health.retry_at:
            try:
                await lane.control.sync(path, wait=True, timeout=_PROBE_WITHIN)
                health.flows()
            except EngineError as error:
                health.stalls(self.meaning(error, record.name).message)

    # --- small parts ---------------------------------------------------------------------------------------------

    def health_of(self, name: str) -> Health:
        return self._health.setdefault(name, Health())

    def forget(self, name: str) -> None:
        """It is removed."""
        self._health.pop(name, None)

    async def job(self, record: Record) -> Job:
        stream = record.stream
        return Job(
            name=stream.name,
            database=check_source_path(stream),
            location=location_of(record),
            credentials=await self.identities.of(stream),
            interval=stream.checkpoint_interval,
            options=stream.options,
            reset_due=record.reset_due,
        )

    async def inspect(self, stream: Stream) -> FileId:
        try:
            return await preflight.inspect(check_source_path(stream))
        except db.DatabaseError as error:
            raise faults.of_database(error, stream.name) from error

    def meaning(self, error: Exception, name: str) -> ReplicatorError:
        if isinstance(error, ReplicatorError):
            return error
        if isinstance(error, db.DatabaseError):
            return faults.of_database(error, name)
        if isinstance(error, EngineUnreachable):
            return EngineUnavailable(
                f"its litestream process does not answer: {error.text}",
                stream=name,
                fix="the agent starts it again; do the same once more",
            )
        return faults.meaning(self.redact(error.text if isinstance(error, EngineError) else str(error)), name)

    @staticmethod
    def swapped(record: Record) -> SourceSwapped:
        """Another file has the name of the one that is replicated."""
        return SourceSwapped(
            f"another file took the place of {source_path(record.stream)} since its replication began",
            stream=record.name,
            property="source.uri",
            fix="if that is right, run pulumi up: the new file is copied whole, under a new prefix",
        )


async def _answers(job: Job) -> bool:
    try:
        await job.location.list_prefix(job.credentials)
    except ReplicaError:
        return False
    return True
