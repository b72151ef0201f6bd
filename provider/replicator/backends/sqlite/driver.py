"""The local driver of litestream: the `Replicator` interface over records, processes and replica files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from replicator import authref
from replicator.backends.shared.ownership import is_replaced, may_remove, settle_owner
from replicator.backends.shared.projections import Projections
from replicator.backends.shared.replay_keys import newest_first
from replicator.backends.shared.supported import checked, refused
from replicator.backends.sqlite import adopt, claim_takeover, preflight, replays, stream_log
from replicator.backends.sqlite import database as db
from replicator.backends.sqlite.daemon_pool import Launch
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.grants import Policies
from replicator.backends.sqlite.litestream import EngineError
from replicator.backends.sqlite.locations import (
    location_of,
    same_place,
    side_folder,
    source_path,
)
from replicator.backends.sqlite.reconciler import Reconciler
from replicator.backends.sqlite.record import FileId, Phase, Store, StreamRecord, unreadable_record
from replicator.backends.sqlite.status import Answer, ask, status_of
from replicator.backends.sqlite.stream_lock import StreamLock, StreamLocks
from replicator.backends.sqlite.stream_manager import StreamManager, engine_settings, not_found
from replicator.backends.sqlite.targets import check_target, target_path
from replicator.errors import Category, EngineUnavailable, RecordUnreadable, ReplicatorError, StreamNotFound
from replicator.model import Checkpoint, Endpoint, Mode, Owner, Stream, StreamStatus
from replicator.replicator import (
    Adoption,
    Description,
    Finding,
    LogLines,
    ReplayMethod,
    ReplayPlan,
    ReplayProgress,
    Severity,
    Takeover,
)

LOOK_EVERY = 2.0
"""Seconds between two checks of files and uploads."""

FLUSH_WITHIN = 5.0
"""Seconds that a plan waits for committed changes to be uploaded."""

START_WITHIN = 10.0
"""Seconds that a start waits for the streams to attach. The rest, such as after an outage, attach in the background."""

_ASK_AT_ONCE = 32
_THREADS = 64

T = TypeVar("T")
_log = logging.getLogger(__name__)
_TAKEOVER = "takeover/"  # no name of a stream


@contextmanager
def _of_no_stream() -> Iterator[None]:
    """Raise errors of a takeover without the name of its stand-in."""
    try:
        yield
    except ReplicatorError as error:
        if error.stream == claim_takeover.STAND_IN:
            error.stream = None
        raise


class SqliteDriver(Projections):
    """Streams of SQLite files on this host.

    :param store: the records; written before each effect, so that work can be finished after a crash.
    :param launch: starts supervised children.
    :param state: the agent's folder, in which no stream may write; without it, `folder`.
    :param replay_window: how long each single transaction stays restorable.
    :param policies: the policy; without it, everything is granted.
    """

    kind = LITESTREAM.kind

    def __init__(
        self,
        binary: Path,
        folder: Path,
        store: Store,
        launch: Launch,
        *,
        state: Path | None = None,
        replay_window: timedelta = timedelta(hours=1),
        redactor: authref.Redactor | None = None,
        environ: Mapping[str, str] = os.environ,
        policies: Policies | None = None,
    ) -> None:
        self._folder = folder
        self._state = state or folder
        self._reconciler = Reconciler(
            binary,
            folder,
            store,
            launch,
            state=self._state,
            replay_window=replay_window,
            redactor=redactor or authref.Redactor(),
            environ=environ,
            policies=policies,
        )
        self._manager = StreamManager(self._reconciler)
        self._locks = StreamLocks()
        self._upserts: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: set[str] = set()
        self._watching: asyncio.Task[None] | None = None

    # --- life of the agent ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Attach every stream in the store, and finish what a crash interrupted."""
        # A locked database or an unreachable store blocks a thread for seconds; it must not delay other streams.
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="replicator")
        asyncio.get_running_loop().set_default_executor(pool)
        work = [self._spawn(self._recover(record.name)) for record in self._reconciler.store.records()]
        self._watching = asyncio.create_task(self._watch())
        if work:
            await asyncio.wait(work, timeout=START_WITHIN)

    async def aclose(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reconciler.daemons.aclose()

    async def _recover(self, name: str) -> None:
        async with self._locks.hold(name) as lock:
            record = self._reconciler.store.get(name)
            if record is None or record.phase is Phase.CREATING:
                return  # its owner's next upsert finishes it
            if record.phase is Phase.DELETING:
                await self._manager.remove(lock, record)
                return
            if not record.paused or record.copy_due:
                await self._reconciler.try_attach(lock, record)
            else:
                with suppress(ReplicatorError):  # a resume reports the fault
                    await self._reconciler.guards.claims.take(record.stream)
        for replay in record.replays.values():
            if replay.finished_at is None:
                self._spawn(self._run_replay(name, replay.key))
            else:
                await replays.tidy(replay)

    # --- the interface -------------------------------------------------------------------------------------------

    async def upsert_stream(self, stream: Stream) -> None:
        work = self._upserts[stream.name] = self._spawn(self._upsert(stream))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if not self._is_deleted(work):
                raise
            raise EngineUnavailable(
                "a delete ended its creation", stream=stream.name, fix="run pulumi up where it is to be there"
            ) from None
        finally:
            if work.done() and self._upserts.get(stream.name) is work:
                del self._upserts[stream.name]

    def _is_deleted(self, work: asyncio.Task[None]) -> bool:
        task = asyncio.current_task()
        return work.cancelled() and task is not None and not task.cancelling()

    async def _upsert(self, stream: Stream) -> None:
        async with self._locks.hold(stream.name) as lock:
            record = self._reconciler.store.get(stream.name)
            if record is not None and record.phase is Phase.DELETING:
                settle_owner(record.stream, record.stream.model_copy(update={"owner": stream.owner}))
                await self._manager.remove(lock, record)
                record = None
            owner = settle_owner(record.stream if record else None, stream)
            stored = checked(stream.model_copy(update={"owner": owner, "backend": self.kind}))
            async with self._reconciler.reservations.hold(stored):
                if record is None or record.phase is Phase.CREATING:
                    await self._manager.create(lock, stored, record)
                else:
                    await self._manager.change(lock, record, stored)

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        adopted = checked(stream.model_copy(update={"owner": None, "backend": self.kind}))
        if dry_run:
            return await adopt.look(self._reconciler, adopted, self._reconciler.store.get(stream.name))
        return await self._whole(self._adopt(adopted))

    async def _adopt(self, stream: Stream) -> Adoption:
        async with self._locks.hold(stream.name) as lock:
            record = self._reconciler.store.get(stream.name)
            if record is not None and record.phase is Phase.DELETING:
                await self._manager.remove(lock, record)
                record = None
            found = await adopt.look(self._reconciler, stream, record)
            if not found.known:
                async with self._reconciler.reservations.hold(stream):
                    await adopt.take_over(self._reconciler, self._manager, lock, stream, record, ours=self._folder)
            return found

    async def look_at_destination(self, destination: Endpoint, database: Endpoint | None = None) -> Takeover:
        async with self._locks.hold(_TAKEOVER):
            with _of_no_stream():
                return await claim_takeover.look(self._reconciler, destination, database, folder=self._folder)

    async def take_over(self, destination: Endpoint, former: str | None) -> None:
        await self._whole(self._take_over(destination, former))

    async def _take_over(self, destination: Endpoint, former: str | None) -> None:
        async with self._locks.hold(_TAKEOVER):
            with _of_no_stream():
                own = await claim_takeover.own_stream(self._reconciler, destination)
                if own is None:
                    await claim_takeover.take(self._reconciler, destination, former, None)
                    return
            async with self._locks.hold(own.name) as lock:
                record = self._manager.record(own.name)
                with _of_no_stream():
                    await claim_takeover.take(self._reconciler, destination, former, record)
                if not record.paused:
                    await self._reconciler.try_attach(lock, self._manager.record(own.name))

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        return await self._whole(self._delete(name, owner))

    async def _delete(self, name: str, owner: Owner | None) -> bool:
        await self._end_creation(name, owner)
        async with self._locks.hold(name) as lock:
            record = self._reconciler.store.get(name)
            if record is None:
                return True
            if not may_remove(record.stream, owner):
                return False
            await self._manager.remove(lock, record)
            return True

    async def _end_creation(self, name: str, owner: Owner | None) -> None:
        """Cancel a creation before a delete: its first copy can take hours. Remove its remains as after a crash."""
        record, work = self._reconciler.store.get(name), self._upserts.get(name)
        if record is None or work is None or not may_remove(record.stream, owner):
            return
        if record.phase is Phase.CREATING or record.copy_due:
            work.cancel()
            await asyncio.wait([work])

    async def list_streams(self) -> list[Stream]:
        return [record.stream for record in self._reconciler.store.records()]

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        records = [record for record in self._reconciler.store.records() if names is None or record.name in names]
        statuses = await self._statuses(records)
        readable = [
            Description(stream=record.stream, status=status, engine_objects=self._objects(record))
            for record, status in zip(records, statuses, strict=True)
        ]
        unreadable = [
            Description.unreadable(name, unreadable_record(name, why))
            for name, why in self._reconciler.store.unreadable.items()
            if names is None or name in names
        ]
        return readable + unreadable

    def not_found(self, name: str) -> StreamNotFound:
        return not_found(name)

    async def identity(self) -> str | None:
        return None  # an address names one host, whose agent has one registry

    async def log(self, name: str, *, after: str | None = None, lines: int = 100) -> LogLines:
        return await stream_log.read(self._reconciler, self._manager.record(name), after, lines)

    async def pause(self, name: str) -> None:
        await self._whole(self._locked(name, self._manager.pause))

    async def resume(self, name: str) -> None:
        await self._whole(self._locked(name, self._manager.resume))

    async def _locked(self, name: str, work: Callable[[StreamLock, StreamRecord], Awaitable[None]]) -> None:
        async with self._locks.hold(name) as lock:
            await work(lock, self._manager.record(name))

    async def preflight(self, stream: Stream) -> list[Finding]:
        stream = stream.model_copy(update={"backend": self.kind})
        if errors := refused(stream):
            return [Finding.of(error, Severity.ERROR) for error in errors]
        try:
            record = self._reconciler.store.get(stream.name)
        except RecordUnreadable as error:
            return [Finding.of(error, Severity.ERROR)]

        async def owner() -> None:
            settle_owner(record.stream if record else None, stream)

        async def neighbours() -> None:
            mine = [other.name for other in self._reconciler.store.records() if is_replaced(other.stream, stream)]
            await self._reconciler.reservations.check(stream, replaces=mine)

        file: FileId | None = None

        async def source() -> None:
            nonlocal file
            file = await self._reconciler.inspect(stream)
            await self._reconciler.guards.refuse_others(stream)

        async def destination() -> None:
            await self._reconciler.identities.of(stream)
            await self._reconciler.guards.claims.check(stream)
            if record is None or not await same_place(record.stream, stream):
                await self._reconciler.tombstones.returning(stream)

        found = await preflight.findings(owner, neighbours, source, destination)
        found += await asyncio.to_thread(self._reconciler.gate.findings)
        if not any(item.severity is Severity.ERROR for item in found):
            found += self._reconciler.guards.claims.findings(stream)
            if (
                record is None
                or record.stream.source.uri != stream.source.uri
                or not await same_place(record.stream, stream)
            ):
                found += await preflight.room(stream)
            elif file is not None:
                restarts = engine_settings(record.stream) != engine_settings(stream)
                found += await preflight.copies_again(record, stream, file, restarts=restarts)
        return found

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        record = self._manager.record(name)
        sources = await self._replay_sources(record)
        await self._flush(record)
        return await replays.plan(record, sources, start, method=method, target=target)

    async def replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        key: str,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayProgress:
        path = None if target is None else str(await asyncio.to_thread(target_path, target))
        if (known := replays.known(self._manager.record(name), start, key, method, path)) is not None:
            if known.finished_at is None:
                self._spawn(self._run_replay(name, key))
            return await replays.as_found(known)
        plan = await self.plan_replay(name, start, method=method, target=target)
        return await self._whole(self._begin_replay(name, plan, key, method, path))

    async def _begin_replay(
        self, name: str, plan: ReplayPlan, key: str, method: ReplayMethod, path: str | None
    ) -> ReplayProgress:
        async with self._locks.hold(name):
            record = self._manager.record(name)
            if (known := replays.known(record, plan.start, key, method, path)) is not None:
                return known
            record = replays.begun(record, plan, key)
            await self._reconciler.store.put(record)
        self._spawn(self._run_replay(name, key))
        return record.replays[key]

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        return await replays.as_found(replays.find(self._manager.record(name), key))

    async def list_replays(self, name: str) -> list[ReplayProgress]:
        kept = self._manager.record(name).replays.values()
        return newest_first(await asyncio.gather(*map(replays.as_found, kept)))

    # --- watching ------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for record in self._reconciler.store.records():
                if record.name not in self._looking and not self._locks.is_held(record.name):
                    self._looking.add(record.name)
                    self._spawn(self._look_at(record.name))

    async def _look_at(self, name: str) -> None:
        """Check one stream. A slow check delays only its own stream."""
        try:
            async with self._locks.hold(name) as lock:
                await self._reconciler.look_at(lock, name)
        finally:
            self._looking.discard(name)

    # --- status --------------------------------------------------------------------------------------------------

    async def _statuses(self, records: Sequence[StreamRecord]) -> list[StreamStatus]:
        # Work that runs now may have ended when the answers arrive; the records describe the present state.
        moving_now = {record.name for record in records if self._reconciler.daemons.moving(record.name)}
        made_now = set(self._upserts)
        daemons = {id(daemon): daemon for record in records if (daemon := self._reconciler.daemons.of(record.name))}
        listings = await asyncio.gather(*(daemon.listing() for daemon in daemons.values()))
        listed = dict(zip(daemons, listings, strict=True))
        gate = asyncio.Semaphore(_ASK_AT_ONCE)

        async def one(record: StreamRecord) -> StreamStatus:
            daemon, path = self._reconciler.daemons.of(record.name), source_path(record.stream)
            health = self._reconciler.health_of(record.name)
            moving = record.name in moving_now or self._reconciler.daemons.moving(record.name)
            answer: Answer | None = None
            now = datetime.now(UTC)
            job = daemon.jobs.get(record.name) if daemon is not None else None
            if daemon is not None and job is not None and not record.paused and not moving:
                async with gate:
                    answer = await ask(daemon, job, listed.get(id(daemon), {}).get(path), now)
            if record.name in made_now or record.name in self._upserts:
                moving = moving or record.phase is Phase.CREATING or record.copy_due
            away = self._reconciler.guards.store_away_since(record)
            status = await status_of(record, health, path, answer, now, moving=moving, store_away_since=away)
            if status.last_error is None:
                return status
            return status.model_copy(update={"last_error": self._reconciler.redact(status.last_error)})

        return list(await asyncio.gather(*map(one, records)))

    def _objects(self, record: StreamRecord) -> dict[str, Any]:
        return {
            "replica": str(location_of(record)),
            "sideFolder": str(side_folder(record.stream)),
            "ownProcess": bool(record.stream.checkpoint_interval or record.stream.options),
        }

    # --- replays -------------------------------------------------------------------------------------------------

    async def _replay_sources(self, record: StreamRecord) -> replays.Sources:
        job = await self._reconciler.job(record)
        return replays.Sources(
            history=replays.history_of(record, self._reconciler.daemons.command_line(job.credentials)),
            check_target=partial(check_target, gate=self._reconciler.gate, state=self._state),
            gate=self._reconciler.gate,
        )

    async def _flush(self, record: StreamRecord) -> None:
        """Upload what is committed, so that a plan can reach it. The plan itself reports an unreachable store."""
        daemon = self._reconciler.daemons.of(record.name)
        if (
            daemon is not None
            and record.stream.checkpoint_interval is None
            and not self._reconciler.daemons.moving(record.name)
        ):
            with suppress(EngineError):
                await daemon.uploaded(daemon.jobs[record.name], timeout=FLUSH_WITHIN)

    async def _run_replay(self, name: str, key: str) -> None:
        async with self._locks.hold(f"replay/{name}/{key}"):
            record = self._reconciler.store.get(name)
            replay = record.replays.get(key) if record else None
            if record is None or replay is None or replay.finished_at is not None:
                return
            try:
                if replay.method is ReplayMethod.COPY:
                    sources = await self._replay_sources(record)
                    changes = await replays.copy(record, sources, replay)
                    await self._finish_replay(name, key, changes)
                else:
                    await self._reseed(name, key)
            except (ReplicatorError, EngineError, db.DatabaseError, OSError) as error:
                text = self._reconciler.redact(self._reconciler.meaning(error, name).message)
                await self._finish_replay(name, key, {"state": "failed", "error": text})
            await replays.tidy(replay)

    async def _reseed(self, name: str, key: str) -> None:
        """Write a full snapshot under a new prefix.

        The new generation is recorded first, so the work continues after a crash. From then on the stream writes only
        there, and waits for anything that is temporarily unreachable.
        """
        while not await self._try_reseed(name, key):  # noqa: ASYNC110 - no event tells when the store is back
            await asyncio.sleep(LOOK_EVERY)
        await self._finish_replay(name, key, {"state": "done"})

    async def _try_reseed(self, name: str, key: str) -> bool:
        """Tell whether the snapshot is complete; False if the engine, the store or the database was unavailable."""
        async with self._locks.hold(name) as lock:
            record = self._manager.record(name)
            if not replays.reseed_begun(record, key):
                record = replays.next_generation(record, key)
                await self._reconciler.store.put(record)
            await self._reconciler.daemons.detach(name)
            try:
                if record.stream.mode is Mode.SNAPSHOT:
                    await self._reconciler.store.put(await self._reconciler.copy_once(lock, record))
                else:
                    replays.refuse_paused(record)
                    await self._reconciler.store.put(await self._reconciler.attach(lock, record, wait=True))
            except ReplicatorError as error:
                if error.category is not Category.UNAVAILABLE:
                    raise
                return False
        return True

    async def _finish_replay(self, name: str, key: str, changes: dict[str, Any]) -> None:
        async with self._locks.hold(name):
            record = self._reconciler.store.get(name)
            if record is not None and key in record.replays:
                await self._reconciler.store.put(replays.finished(record, key, changes))

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work to its end, even if the caller is cancelled: an attach must not stop half-way."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ReplicatorError):
            _log.error("a task of the driver failed", exc_info=error)
