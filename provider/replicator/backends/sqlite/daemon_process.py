"""One litestream process, and the databases that it replicates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from replicator.backends.shared.single_flight import SingleFlight
from replicator.backends.sqlite import wal
from replicator.backends.sqlite.database import DatabaseError
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.litestream import (
    ControlClient,
    EngineError,
    EngineTimeout,
    ListedDatabase,
    Synced,
    reading,
    whole_number,
)
from replicator.backends.sqlite.positions import transaction_file
from replicator.backends.sqlite.process_log import KeptLines
from replicator.backends.sqlite.replica import FolderLocation, ReplicaError, ReplicaLocation, S3Credentials
from replicator.backends.sqlite.traffic import Traffic
from replicator.backends.sqlite.uploads import Arrivals, Upload, newest_upload, next_file, next_upload
from replicator.backends.sqlite.wal_checks import WalChecks, whole_look
from replicator.backoff import Backoff

_POLL = 0.05
_LONGEST_POLL = 1.0
ASK_WITHIN = 2.0
"""Seconds that an answer of the process may take, for a look that is repeated."""
_WATCH_EVERY = 1.0  # seconds; as often as the engine looks
_TAKE_WITHIN = 10.0  # seconds; to take a large WAL is more than to answer
_ENDLESS = 7 * 86_400.0  # seconds; what moves no data is ended before
_WRITES_WITHIN = 5.0
_READ_WITHIN = 10.0  # seconds; what was printed before an answer is read soon after it
_LARGE = 64 * 1024 * 1024  # bytes; the engine reads them in some tenths of a second


LOG = "litestream.log"
"""The file with a process's output, in its folder."""


class Supervised(Protocol):
    """A child process that is restarted when it dies. After `stop` it cannot be used again."""

    last_error: str | None
    pid: int | None

    @property
    def log(self) -> KeptLines:
        """The last lines of its output over all of its starts, redacted."""

    @property
    def said(self) -> Collection[str]:
        """The last lines of its output since its start, redacted."""

    async def start(self) -> None: ...
    async def wait_ready(self, timeout: float | None) -> None: ...
    async def stop(self) -> None: ...


class Launch(Protocol):
    """The agent's way to start a child; it awaits `before_start` and `on_start` around each start.

    It keeps each line of the output as `edit` returns it.
    """

    def __call__(
        self,
        argv: list[str],
        env: Mapping[str, str],
        *,
        folder: Path,
        marker: str,
        edit: Callable[[str], str],
        before_start: Callable[[], Awaitable[None]],
        on_start: Callable[[], Awaitable[None]],
    ) -> Supervised: ...


@dataclass(frozen=True, slots=True)
class ReplicationJob:
    """A database to replicate, and the settings for it.

    :param interval: the stream's own upload interval; `None` for the engine's second.
    :param reset_due: forget the local replication state first.
    """

    name: str
    database: Path
    location: ReplicaLocation
    credentials: S3Credentials | None
    interval: timedelta | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    reset_due: bool = False

    @property
    def alone(self) -> bool:
        """Tell whether the job needs a process of its own."""
        return self.interval is not None or bool(self.options)


class Control(ControlClient):
    """The control socket, restricted to calls that do not make the engine lose changes.

    litestream binds the read transaction that prevents a restart of the WAL to the request that begins it: the first
    `/sync` of a database, and any later one that checkpoints. A request with a time-out ends the transaction on its
    return, and `wait` implies a time-out. From then on an application's checkpoint can remove changes before the engine
    has read them. So no request here sets a time-out or waits in the engine.
    """

    async def progress(self, path: Path, *, timeout: float) -> Synced:
        """Read the WAL, and return the progress of the uploads."""
        answer = await self._post("/sync", {"path": str(path), "wait": False}, timeout, limit=None)
        with reading("POST /sync"):
            return Synced(
                changed=answer["status"] != "no_change",
                txid=whole_number(answer["txid"]),
                replicated_txid=whole_number(answer["replicated_txid"]),
            )

    async def first_look(self, path: Path, *, timeout: float) -> None:
        """Wait until the engine's own check of a database, which runs each second, has succeeded."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            activity = (await self.sync_status(path)).get(path)
            if activity is not None and activity.started_at is not None and not activity.active:
                if activity.error is None:
                    return
                raise EngineError("sync", None, activity.error)
            if asyncio.get_running_loop().time() > deadline:
                raise EngineTimeout("sync", None, f"no answer from the store within {timeout:g} s: timed out")
            await asyncio.sleep(_POLL)


@dataclass(frozen=True, slots=True)
class Released:
    """A released database.

    :param txid: its last transaction, where all are uploaded.
    :param error: why not all are uploaded.
    """

    txid: int | None = None
    error: EngineError | DatabaseError | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The process that took a database over, and the side files of SQLite that it opened."""

    pid: int
    side_files: frozenset[tuple[str, int]]


class DaemonProcess:
    """One litestream process and the jobs in it.

    :ivar attempts: how many starts of a single job's process were attempted.
    :ivar starts: how often the process came up; it forgets registrations from before its last start.
    :ivar entered: the start in which each job was taken over.
    :ivar looks: when the process checked each database.
    :ivar offered: what was registered since the process came up, including registrations without an answer.
    :ivar taken: the side files of each job's database at its takeover.
    :ivar failure: why the only job of a process could not be taken over.
    :ivar copy: the running upload that precedes a single job's process.
    :ivar copied: that upload is done.
    """

    def __init__(self, key: str, control: Control) -> None:
        self.key = key
        self.control = control
        self.process: Supervised
        self.jobs: dict[str, ReplicationJob] = {}
        self.attempts = 0
        self.starts = 0
        self.entered: dict[str, int] = {}
        self.looks: dict[str, WalChecks] = {}
        self.offered: set[Path] = set()
        self._released: dict[Path, float] = {}
        self.failure: Exception | None = None
        self.failed = asyncio.Event()
        self.taken: dict[str, Taken] = {}
        self.held = wal.Hold(None)
        self.copy: asyncio.Task[None] | None = None
        self.copied = False
        self._traffic = Traffic()
        self._arrivals: dict[str, Arrivals] = {}
        self._arrived: dict[str, str] = {}
        self.taking: asyncio.Task[None] | None = None
        self.watching: asyncio.Task[None] | None = None
        self._listed: dict[Path, ListedDatabase] = {}
        self._listing = SingleFlight(self._list, 0.0)

    async def listing(self, max_age: float = 0.0) -> dict[Path, ListedDatabase]:
        """Return what the process says of its databases; its last answer while it waits for a store; else nothing.

        :param max_age: seconds; all callers who accept such an old answer share one.
        """
        return await self._listing.get(max_age)

    async def _list(self) -> dict[Path, ListedDatabase]:
        try:
            self._listed = {item.path: item for item in await self.control.list_databases(timeout=ASK_WITHIN)}
        except EngineTimeout:
            return self._listed
        except EngineError:
            return {}
        return self._listed

    async def watch(self) -> None:
        """Note when the process checked its databases, with one request for all."""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            with suppress(EngineError):
                found = await self.control.sync_status(timeout=ASK_WITHIN)
                for job in self.jobs.values():
                    activity, looks = found.get(job.database), self.looks.get(job.name)
                    if activity and looks and (look := whole_look(activity)):
                        looks.note(*look)

    def enter(self, job: ReplicationJob, start: int) -> None:
        """Note that the process of start number `start` took a database over."""
        self.entered[job.name] = start
        self.looks[job.name] = WalChecks()
        self._arrivals[job.name] = Arrivals()

    def named(self, file_name: str) -> dict[Path, list[Path]]:
        """Return the databases with a file name that the output may be about, each with the paths that belong to it.

        One that was released counts for some seconds more.
        """
        since = time.monotonic() - _READ_WITHIN
        self._released = {path: at for path, at in self._released.items() if at > since}
        replicas = {job.database: job.location for job in self.jobs.values() if job.database.name == file_name}
        found = {}
        for path in self.offered | replicas.keys() | self._released.keys():
            if path.name != file_name:
                continue
            replica = replicas.get(path)
            found[path] = [path, LITESTREAM.side_folder_of(path)]
            found[path] += [replica.folder] if isinstance(replica, FolderLocation) else []
        return found

    def release(self, database: Path) -> None:
        """Note that the process has let go of a database."""
        self.offered.discard(database)
        self._released[database] = time.monotonic()

    def leave(self, name: str) -> None:
        """Forget a stream."""
        for known in (self.jobs, self.entered, self.looks, self.taken, self._arrivals, self._arrived):
            known.pop(name, None)

    async def gets_on(self, job: ReplicationJob, *, quiet_for: float = 0.0) -> bool:
        """Tell whether an upload makes progress; a slow link or a large database needs time.

        :param quiet_for: seconds since the engine's last upload.
        """
        if self.copy is not None:
            return True  # it ends where nothing moves
        arrivals = self._arrivals.get(job.name)
        if await asyncio.to_thread(wal.newest_size, job.database) > _LARGE:
            return self.moves()
        try:
            replicated = (await self.control.progress(job.database, timeout=ASK_WITHIN)).replicated_txid
        except EngineTimeout:  # it reads a large transaction from the WAL
            return self.moves()
        except EngineError:
            return False
        waiting = await asyncio.to_thread(next_file, job.database, replicated)
        return arrivals is not None and arrivals.get_on(replicated, waiting, self.moves(), quiet_for)

    async def progress(self, job: ReplicationJob, *, timeout: float = ASK_WITHIN) -> Synced:
        """Return the progress of the uploads; read the WAL first, unless the last transaction file is large.

        The engine reads that whole file for each request, which for gigabytes takes longer than an answer may. Then the
        destination tells whether the file has arrived, and `replicated_txid` is unknown until then. The time of the
        engine's last upload does not tell: it may be that of an earlier, smaller file.
        """
        newest = await asyncio.to_thread(wal.newest_file, job.database)
        if newest is None or newest.size <= _LARGE:
            began, looks = datetime.now(UTC), self.looks.get(job.name)
            synced = await self.control.progress(job.database, timeout=timeout)
            if looks and synced.txid is not None:
                looks.note(began, synced.txid)
            return synced
        arrived = await self._has_arrived(job, newest.txid, timeout)
        return Synced(changed=False, txid=newest.txid, replicated_txid=newest.txid if arrived else None, looked=False)

    async def _has_arrived(self, job: ReplicationJob, txid: int, timeout: float) -> bool:
        """Tell whether the destination holds a transaction file; False without an answer within `timeout` seconds."""
        name = transaction_file(job.database, txid).name
        whole = f"{job.location}/{name}"
        if self._arrived.get(job.name) != whole:
            try:
                async with asyncio.timeout(timeout):
                    if not await job.location.holds(name, job.credentials):
                        return False
            except (ReplicaError, TimeoutError):
                return False
            self._arrived[job.name] = whole
        return True

    async def uploaded(self, job: ReplicationJob, *, timeout: float) -> bool:
        """Wait until all that is committed now is at the destination; False if it is not within `timeout` seconds."""
        deadline, backoff = asyncio.get_running_loop().time() + timeout, Backoff(_POLL, _LONGEST_POLL, factor=1.2)
        target = (await self.progress(job, timeout=_TAKE_WITHIN)).txid
        while True:
            reached = (await self.progress(job, timeout=_TAKE_WITHIN)).replicated_txid
            if target is not None and reached is not None and reached >= target:
                return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(backoff.grow())

    async def take(self, job: ReplicationJob, *, within: float, reached: bool) -> None:
        """Wait until the engine has read the WAL and prevents its restart. The caller holds it until then.

        :param within: seconds; it may take longer while the engine writes the database's transaction file.
        :param reached: the store has just answered, so the engine can be asked; else wait for its own check.
        """
        look = self.control.progress if reached else self.control.first_look
        asked = asyncio.create_task(look(job.database, timeout=_ENDLESS))
        try:
            seen = None
            done, _ = await asyncio.wait([asked], timeout=within)
            while not done:
                before, seen = seen, await asyncio.to_thread(wal.written, job.database)
                if seen == before:
                    raise EngineTimeout("sync", None, f"no answer within {within:g} s: timed out")
                done, _ = await asyncio.wait([asked], timeout=_WRITES_WITHIN)
            await asked
        finally:
            asked.cancel()

    def moves(self) -> bool:
        """Tell whether the process moves data of any stream."""
        return self._traffic.moves(self.process.pid)

    async def upload(self, job: ReplicationJob, replicated: int | None) -> Upload | None:
        """Return the file that is being uploaded.

        :param replicated: the last transaction at the destination; `None` is taken for the newest one.
        """
        if self.copy is not None or replicated is None:
            return await newest_upload(job.database, job.location, job.credentials)
        return await next_upload(job.database, replicated, job.location, job.credentials)

    async def note_taken(self, job: ReplicationJob) -> None:
        """Remember the side files of a database that has just been taken over."""
        found = await asyncio.to_thread(wal.side_files, job.database)
        self.taken[job.name] = Taken((await self.control.info()).pid, found)

    async def lost_side_files(self, job: ReplicationJob) -> bool:
        """Tell whether the WAL or its index was removed under the process. SQLite keeps both for an open connection."""
        taken = self.taken.get(job.name)
        if taken is None or taken.side_files <= await asyncio.to_thread(wal.side_files, job.database):
            return False
        try:
            return (await self.control.info()).pid == taken.pid
        except EngineError:
            return False  # it has ended, and its connection with it

    def fail(self, error: Exception) -> None:
        """Note why the only job could not be taken over."""
        self.failure = error
        self.failed.set()

    async def close(self) -> None:
        """End the process."""
        for task in (self.taking, self.watching, self.copy):
            if task is not None:
                task.cancel()
        try:
            await self.process.stop()
        finally:
            await self.held.release()
            await self._listing.settled()  # the end of the process is an answer
            await self.control.aclose()
