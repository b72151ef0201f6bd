"""The reconciler: it keeps streams attached to litestream processes, and records why one is not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from replicator import authref
from replicator.backends.shared.reservations import Ends
from replicator.backends.shared.supported import refused_options
from replicator.backends.sqlite import database as db
from replicator.backends.sqlite import litestream_errors, preflight, wal
from replicator.backends.sqlite.daemon_pool import DaemonPool, DaemonProcess, Launch, ReplicationJob
from replicator.backends.sqlite.grants import Gate, Policies
from replicator.backends.sqlite.guards import Guards
from replicator.backends.sqlite.health import Health
from replicator.backends.sqlite.litestream import (
    EngineError,
    EngineGarbled,
    EngineNotStarted,
    EngineTimeout,
    EngineUnreachable,
)
from replicator.backends.sqlite.locations import Identities, check_source_path, location_of, source_path
from replicator.backends.sqlite.positions import position_at
from replicator.backends.sqlite.record import FileId, Phase, Store, StreamRecord
from replicator.backends.sqlite.replica import ReplicaError, S3Location
from replicator.backends.sqlite.reserved import SqliteReservations
from replicator.backends.sqlite.status import age_of, stale_after
from replicator.backends.sqlite.stream_lock import StreamLock
from replicator.backends.sqlite.tombstones import Tombstones
from replicator.capabilities import LITESTREAM as CAPABILITIES
from replicator.errors import (
    DestinationMissing,
    EngineRefused,
    EngineUnavailable,
    ReplicatorError,
    SourceFull,
    SourceSwapped,
)
from replicator.model import Stream
from replicator.progress import tell

FIRST_UPLOAD = 10.0
"""Seconds after which an upsert checks the first upload. A large one continues, with the state `snapshot`."""

_PROBE_WITHIN = 3.0
_RESEEDS = "if the file is right, run pulumi up --refresh: it is copied whole, under a new prefix"
_LISTING_AGE = 0.5  # seconds; the streams of one process are checked together, and share its listing
_REACHED_IN_VAIN = 20.0  # seconds; litestream's own pauses between attempts grow to 5 minutes


class Reconciler:
    """A reconciler that attaches streams, and attaches them again."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        store: Store,
        launch: Launch,
        *,
        state: Path,
        replay_window: timedelta,
        redactor: authref.Redactor,
        environ: Mapping[str, str],
        policies: Policies | None,
    ) -> None:
        self.store = store
        self.gate = Gate(policies, lambda: [record.stream for record in store.records()])
        self.reservations = SqliteReservations(state, store.ends)
        self._attached = SqliteReservations(state, self._ends_of_attached)
        self.redact = redactor
        self.identities = Identities(redactor, environ, partial(self.gate.admit, self.gate.check_destination))
        self.tombstones = Tombstones(store, self.identities.of)
        self.daemons = DaemonPool(binary, folder, launch, replay_window=replay_window, on_change=self._changed)
        self.guards = Guards(store, self.identities.of, ours=folder)
        self._health: dict[str, Health] = {}

    async def attach(self, lock: StreamLock, record: StreamRecord, *, wait: bool = False) -> StreamRecord:
        """Begin to replicate; with `wait`, wait for the first upload, or the reason why there is none.

        Records of release 0.1 may share a destination, and a changed link may lead to another stream's: one attaches.
        """
        lock.require(record.name)
        async with self._attached.hold(record.stream):
            return await self._attach(await self._admitted(record), wait=wait)

    async def _attach(self, record: StreamRecord, *, wait: bool) -> StreamRecord:
        job = await self.job(record)
        health = self.health_of(record.name)
        try:
            if wait:
                await _reach(job)
            await self.daemons.attach(job, reached=wait)
            if wait and await self._first_upload(record.name, job):
                record = record.model_copy(update={"arrived": record.generation})
        except (EngineError, ReplicaError, db.DatabaseError, OSError) as error:
            await self.daemons.detach(record.name, timeout=1.0)
            failure = self.meaning(error, record.name)
            if isinstance(failure, SourceFull):
                await self.daemons.filled(job.database)
            health.failed(failure.message, passing=isinstance(error, EngineUnreachable))
            raise failure from error
        health.attached()
        return record.model_copy(update={"reset_due": False, "reached": None})

    async def _admitted(self, record: StreamRecord) -> StreamRecord:
        try:
            _refuse_options(record)
            return await self.guards.admit(record)
        except ReplicatorError as error:
            self.health_of(record.name).failed(f"{error.message}; {error.fix}")
            raise

    async def _first_upload(self, name: str, job: ReplicationJob) -> bool:
        """Tell whether everything is at the destination. A multipart upload continues after this returns."""
        daemon = self.daemons.of(name)
        if daemon is None:
            raise EngineError("sync", None, "its litestream process has ended")
        if job.alone:
            return daemon.copy is None  # its process has begun with an upload
        while not await daemon.uploaded(job, timeout=FIRST_UPLOAD):
            if not await daemon.gets_on(job):
                released = await self.daemons.detach(name, timeout=_PROBE_WITHIN)
                raise released.error or EngineError("sync", None, "its first upload does not get on")
            upload = await daemon.upload(job, None)
            if upload is not None and upload.in_parts:
                return False
            tell("waiting for the first upload")
        return True

    async def reach(self, record: StreamRecord) -> None:
        """Raise where the secret cannot be resolved, or the store does not accept it."""
        try:
            await _reach(await self.job(record))
        except ReplicaError as error:
            raise litestream_errors.of_replica(error, record.name) from error

    async def copy_once(self, lock: StreamLock, record: StreamRecord) -> StreamRecord:
        """Upload the one copy of mode snapshot, and return the record."""
        lock.require(record.name)
        async with self._attached.hold(record.stream):
            return await self._copy_once(await self._admitted(record))

    async def _copy_once(self, record: StreamRecord) -> StreamRecord:
        job = await self.job(record)
        try:
            await self.daemons.snapshot_once(job)
        except (EngineError, db.DatabaseError, OSError) as error:
            failure = self.meaning(error, record.name)
            self.health_of(record.name).failed(failure.message)
            raise failure from error
        self.health_of(record.name).attached()
        last = wal.newest_transaction(job.database)
        reached = position_at(record.generation, job.database, last) if last else None
        return record.model_copy(update={"paused": True, "copy_due": False, "reset_due": False, "reached": reached})

    async def try_attach(self, lock: StreamLock, record: StreamRecord) -> None:
        """Attach after a start or a failure. Keep a new failure in the stream's health, and retry later."""
        health = self.health_of(record.name)
        try:
            file = await self.inspect(record.stream)
            if record.file is not None and file != record.file:
                health.failed(_with_fix(self.swapped(record)), by_person=True)
                return
            attached = await (self.copy_once(lock, record) if record.copy_due else self.attach(lock, record))
            if attached != record:
                await self.store.put(attached)
        except ReplicatorError as error:
            if health.error != error.message:
                health.failed(error.message)

    def _changed(self, name: str, error: Exception | None) -> None:
        """Note that a process died and was restarted."""
        if error is None:
            self.health_of(name).attached()
        else:
            passing = isinstance(error, EngineUnreachable)
            self.health_of(name).failed(self.meaning(error, name).message, passing=passing)

    # --- watching ------------------------------------------------------------------------------------------------

    async def look_at(self, lock: StreamLock, name: str) -> None:
        """Check one stream's file and uploads, and attach it again where that is due."""
        record, health = self.store.get(name), self.health_of(name)
        if record is None or record.phase is not Phase.ACTIVE or (record.paused and not record.copy_due):
            return
        try:
            file = await self.file_of(record.stream)
        except ReplicatorError as error:
            if health.error != error.message:
                health.failed(error.message)
            await self.daemons.detach(name, timeout=1.0)
            return
        if record.file is not None and file != record.file:
            if not health.by_person:
                health.failed(_with_fix(self.swapped(record)), by_person=True)
                await self.daemons.detach(name, timeout=1.0)
            return
        daemon = self.daemons.of(name)
        if daemon is not None:
            try:
                await self._guard(record, daemon)
            except ReplicatorError as error:
                await self._stop(record, error)
                return
            await self._look_at_uploads(lock, record, daemon, health)
        elif not health.by_person and time.monotonic() >= health.retry_at:
            await self.try_attach(lock, record)

    async def _guard(self, record: StreamRecord, daemon: DaemonProcess) -> None:
        """Raise where the stream must stop."""
        if await daemon.lost_side_files(daemon.jobs[record.name]):
            raise SourceSwapped(
                f"{source_path(record.stream)}-wal or -shm was removed while it was replicated: "
                "another database was copied over it, or its last changes were deleted",
                stream=record.name,
                property="source.uri",
                fix=_RESEEDS,
            )
        await self.guards.look(record)

    async def _stop(self, record: StreamRecord, error: ReplicatorError) -> None:
        """Release the database; the replica at the destination cannot be continued."""
        await self.store.put(record.model_copy(update={"reseed_due": True}))
        by_person = isinstance(error, DestinationMissing | SourceSwapped)
        self.health_of(record.name).failed(_with_fix(error), by_person=by_person)
        await self.daemons.detach(record.name, timeout=1.0)

    async def _look_at_uploads(
        self, lock: StreamLock, record: StreamRecord, daemon: DaemonProcess, health: Health
    ) -> None:
        """Ask why nothing was uploaded for too long. The request makes the engine retry earlier than by itself."""
        path = source_path(record.stream)
        listed = (await daemon.listing(_LISTING_AGE)).get(path)
        limit = stale_after(record.stream.checkpoint_interval)
        age = age_of(listed, datetime.now(UTC))
        fresh = age is not None and age <= limit
        new = time.monotonic() - (health.attached_at or 0.0) <= limit.total_seconds()
        quiet_for = age.total_seconds() if age else 0.0
        if fresh or new or await daemon.gets_on(daemon.jobs[record.name], quiet_for=quiet_for):
            health.flows()
        elif time.monotonic() >= health.retry_at:
            await self._ask_why(lock, record, health)

    async def _ask_why(self, lock: StreamLock, record: StreamRecord, health: Health) -> None:
        """Find out why the engine does not upload, which it does not report. Attach again if the store answers.

        Do not attach at once: the engine retries by itself, and a new attach may upload the whole database.
        """
        try:
            await _reach(await self.job(record))
        except (ReplicaError, ReplicatorError) as error:
            health.stalls(self.meaning(error, record.name).message)
            return
        health.answers()
        if health.answered_for() > _REACHED_IN_VAIN:
            async with self.daemons.kept(source_path(record.stream)):
                released = await self.daemons.detach(record.name, timeout=_PROBE_WITHIN)
                if released.error:
                    health.failed(self.meaning(released.error, record.name).message)
                await self.try_attach(lock, record)

    # --- small parts ---------------------------------------------------------------------------------------------

    def _ends_of_attached(self) -> list[Ends]:
        return [Ends.of(record.stream) for record in self.store.records() if self.daemons.of(record.name) is not None]

    def health_of(self, name: str) -> Health:
        return self._health.setdefault(name, Health(name))

    def forget(self, name: str) -> None:
        """Forget a removed stream."""
        self._health.pop(name, None)

    async def job(self, record: StreamRecord) -> ReplicationJob:
        stream = record.stream
        await self.gate.admit(self.gate.check_source, stream)
        return ReplicationJob(
            name=stream.name,
            database=check_source_path(stream),
            location=location_of(record),
            credentials=await self.identities.of(stream),
            interval=stream.checkpoint_interval,
            options=stream.options,
            reset_due=record.reset_due,
        )

    async def inspect(self, stream: Stream) -> FileId:
        """Return the file's identity before it is opened; raise where it is not granted, or cannot be replicated."""
        check_source_path(stream)
        await self.gate.admit(self.gate.check_source, stream)
        return await self.file_of(stream)

    async def file_of(self, stream: Stream) -> FileId:
        """Return the file's identity now, for a stream that was granted at its start; raise if the file is unusable."""
        try:
            return await preflight.inspect(check_source_path(stream))
        except db.DatabaseError as error:
            raise litestream_errors.of_database(error, stream.name) from error

    def meaning(self, error: Exception, name: str) -> ReplicatorError:
        if isinstance(error, ReplicatorError):
            return error
        if isinstance(error, db.DatabaseError):
            return litestream_errors.of_database(error, name)
        if isinstance(error, ReplicaError):
            return litestream_errors.of_replica(error, name)
        if isinstance(error, EngineUnreachable | EngineTimeout):
            return EngineUnavailable(
                f"its litestream process does not answer: {error.text}",
                stream=name,
                fix="the agent starts it again; do the same once more",
            )
        if isinstance(error, EngineGarbled):
            return EngineRefused(
                f"what listens on the socket of its litestream process is not litestream: {error.text}",
                stream=name,
                fix="look at what else uses the agent's folder, and restart the agent",
            )
        return litestream_errors.meaning(
            self.redact(error.text if isinstance(error, EngineError) else str(error)),
            name,
            f"correct what it names; {error.log} on the agent's host has all that it said"
            if isinstance(error, EngineNotStarted)
            else None,
        )

    @staticmethod
    def swapped(record: StreamRecord) -> SourceSwapped:
        """Return the error for another file under the name of the replicated one."""
        return SourceSwapped(
            f"another file took the place of {source_path(record.stream)} since its replication began",
            stream=record.name,
            property="source.uri",
            fix=_RESEEDS,
        )


def _with_fix(error: ReplicatorError) -> str:
    return f"{error.message}; {error.fix}"


def _refuse_options(record: StreamRecord) -> None:
    """Refuse invalid options in a record of an older release or one edited by hand: they go into litestream's YAML."""
    for error in refused_options(record.stream.options, CAPABILITIES):
        error.stream, error.fix = record.name, "declare it without this option, and run pulumi up"
        raise error


async def _reach(job: ReplicationJob) -> None:
    """Ask the store for an object that does not exist; raise ReplicaError if it does not answer."""
    if isinstance(job.location, S3Location):
        await job.location.child("reached").list_prefix(job.credentials)
