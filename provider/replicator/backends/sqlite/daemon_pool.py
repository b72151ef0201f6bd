"""The pool of one agent's litestream processes, and the assignment of databases to them.

Streams without settings of their own share one process per identity and store: a process has one identity, and while
it waits for an unreachable store it does not even list its databases. A stream with its own interval or options has a
process of its own, because `/register` cannot set them.

Every attach goes through `_prepare`, which ensures that litestream cannot miss a change (`wal.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from replicator.backends.sqlite import wal
from replicator.backends.sqlite.daemon_config import DaemonSettings, daemon_argv, shared_daemon, single_daemon
from replicator.backends.sqlite.daemon_process import (
    LOG,
    Control,
    DaemonProcess,
    Launch,
    Released,
    ReplicationJob,
    Supervised,
)
from replicator.backends.sqlite.database import DatabaseError, DatabaseLocked, checkpoint_truncate, use_wal
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.disk_space import file_size, refuse_a_copy, remove_a_part
from replicator.backends.sqlite.litestream import (
    CommandLine,
    ControlClient,
    EngineError,
    EngineNotStarted,
    EngineTimeout,
    EngineUnreachable,
)
from replicator.backends.sqlite.process_log import with_path
from replicator.backends.sqlite.replica import ReplicaError, S3Credentials, S3Location, engine_environment
from replicator.backends.sqlite.uploads import newest_upload
from replicator.lockfile import open_private
from replicator.model import format_upload
from replicator.progress import tell

__all__ = ["DaemonPool", "DaemonProcess", "Launch", "Released", "ReplicationJob", "Supervised"]

READY_WITHIN = 15.0
"""Seconds that a litestream process has to answer on its control socket."""

DETACH_WITHIN = 15.0
"""Seconds for the last upload when a database is released; with an unreachable store, all of them pass."""

COPY_WITHIN = 10.0
"""Seconds after which the first upload of a stream's own process continues in the background."""

TAKE_WITHIN = 10.0
"""Seconds for the first contact with the store and the first check of the WAL; more for a large database."""

_BYTES_PER_SECOND = 50e6  # a slow disk's, for the first copy of a whole database
_AT_ONCE = 32
_TELL_EVERY = 2.0  # seconds; each check queries the store


class DaemonPool:
    """All litestream processes of an agent.

    :param folder: for configurations, sockets, pid files and logs.
    :param on_change: called after a process died: with `None` when a database is attached again, else with the error.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        launch: Launch,
        *,
        replay_window: timedelta,
        on_change: Callable[[str, Exception | None], None],
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._launch = launch
        self._replay_window = replay_window
        self._on_change = on_change
        self._daemons: dict[str, DaemonProcess] = {}
        self._alive: set[DaemonProcess] = set()
        self._opening: dict[str, asyncio.Lock] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._of: dict[str, str] = {}
        self._kept: dict[Path, wal.Hold] = {}
        self._filled: set[Path] = set()

    def of(self, name: str) -> DaemonProcess | None:
        """Return the process that replicates a stream, or `None`."""
        return self._daemons.get(self._of.get(name, ""))

    def last_of(self, job: ReplicationJob) -> tuple[DaemonProcess | None, Path]:
        """Return the process that a job would run in, `None` if there is none now, and the log file in its folder."""
        key = self._key(job)
        return next((daemon for daemon in self._alive if daemon.key == key), None), self._folder / key / LOG

    def moving(self, name: str) -> bool:
        """Tell whether the stream is being attached or detached now."""
        return self._turn(name).locked()

    def command_line(self, credentials: S3Credentials | None) -> CommandLine:
        """Return the engine's commands with an identity."""
        return CommandLine(self._binary, engine_environment(credentials))

    async def filled(self, database: Path) -> None:
        """Remember that a copy has filled the disk, and remove the incomplete file."""
        self._filled.add(database)
        await remove_a_part(database)

    async def attach(self, job: ReplicationJob, *, reached: bool) -> None:
        """Begin to replicate. When it returns, litestream holds the WAL; the upload continues in the background.

        Raise EngineError or DatabaseError; the database is released then.

        :param reached: the store has just answered, so litestream can be told to begin at once. It then waits for the
            store without a limit; otherwise it begins by itself within a second.
        """
        async with self._turn(job.name):
            await (self._attach_alone(job) if job.alone else self._attach_shared(job, reached))
        self._filled.discard(job.database)

    async def detach(self, name: str, *, timeout: float = DETACH_WITHIN, patient: bool = False) -> Released:
        """Upload what is left, and release the database, even if the upload fails.

        :param timeout: seconds for the upload.
        :param patient: for a stream with its own process, wait as long as data moves instead.
        """
        async with self._turn(name):
            daemon = self.of(name)
            self._of.pop(name, None)
            if daemon is None:
                return Released()
            job = daemon.jobs[name]
            try:
                if patient and job.alone:
                    return await self._let_go_alone(daemon, job)
                return await self._let_go(daemon, job, timeout)
            except (EngineError, DatabaseError) as error:
                return Released(error=error)
            finally:
                daemon.leave(name)
                await self._close_if_empty(daemon)

    async def snapshot_once(self, job: ReplicationJob) -> None:
        """Upload one full copy, and leave no process behind."""
        async with self._turn(job.name):
            held = await self._prepare(job)
            try:
                await self._replicate_once(job, force_snapshot=True)
            finally:
                await held.release()

    async def _replicate_once(self, job: ReplicationJob, *, force_snapshot: bool = False) -> None:
        command = self.command_line(job.credentials)
        telling = asyncio.create_task(_tell_upload(job))
        try:
            await command.replicate_once(job.database, job.location.url_for_engine(), force_snapshot=force_snapshot)
        finally:
            telling.cancel()

    async def aclose(self) -> None:
        """End every process. The streams' records tell what to start again."""
        self._daemons, self._of = {}, {}
        async with AsyncExitStack() as stack:
            for daemon in list(self._alive):
                for job in list(daemon.jobs.values()):
                    await stack.enter_async_context(self.kept(job.database))
            await asyncio.gather(*(self._close(daemon) for daemon in list(self._alive)))

    @asynccontextmanager
    async def kept(self, database: Path) -> AsyncIterator[None]:
        """Hold the WAL while one process releases a database and another takes it over, so that no new copy is needed.

        Otherwise SQLite removes the WAL with the last connection.
        """
        held = await wal.hold_if_possible(database)
        self._kept[database] = held
        try:
            yield
        finally:
            if self._kept.get(database) is held:
                del self._kept[database]
            await held.release()

    # --- one database in a process ---------------------------------------------------------------------------------

    async def _attach_shared(self, job: ReplicationJob, reached: bool) -> None:
        key = self._key(job)
        async with self._opening.setdefault(key, asyncio.Lock()):
            daemon = self._daemons.get(key)
            if daemon is None:
                daemon = await self._open(key, job)
                self._daemons[key] = daemon
            daemon.jobs[job.name] = job  # from now on the process is in use
        try:
            try:
                await daemon.process.wait_ready(READY_WITHIN)
            except TimeoutError:
                raise self._not_started(daemon) from None
            await self._enter(daemon, job, reached)
        except BaseException:
            daemon.jobs.pop(job.name, None)
            await self._close_if_empty(daemon)
            raise
        self._of[job.name] = key

    async def _enter(self, daemon: DaemonProcess, job: ReplicationJob, reached: bool) -> None:
        try:
            await self._enter_once(daemon, job, reached)
        except wal.WalRestarted:
            await self._enter_once(daemon, job, reached)

    async def _enter_once(self, daemon: DaemonProcess, job: ReplicationJob, reached: bool) -> None:
        start = daemon.starts
        if job.database in daemon.offered:  # by a call without an answer
            await self._let_go(daemon, job, DETACH_WITHIN)
        held = await self._prepare(job)
        try:
            daemon.offered.add(job.database)
            answer = await daemon.control.register(job.database, job.location.url_for_engine())
            if answer.already:
                raise EngineError("register", None, f"litestream has not let go of {job.database}")
            await self._take(daemon, job, reached)
            await wal.confirm(job.database, held.salts)
            await daemon.note_taken(job)
        except BaseException:
            with suppress(EngineError):
                await self._let_go(daemon, job, 1.0)
            raise
        finally:
            await held.release()
        daemon.jobs[job.name] = replace(job, reset_due=False)
        daemon.enter(job, start)

    async def _take(self, daemon: DaemonProcess, job: ReplicationJob, reached: bool) -> None:
        """Wait until litestream has read the WAL and prevents its restart. The caller holds it until then."""
        within = TAKE_WITHIN + await asyncio.to_thread(file_size, job.database) / _BYTES_PER_SECOND
        await daemon.take(job, within=within, reached=reached)

    async def _let_go(self, daemon: DaemonProcess, job: ReplicationJob, timeout: float) -> Released:
        """Unregister. Raise EngineUnreachable where the process is gone, EngineTimeout where it had to be ended."""
        if daemon not in self._alive:
            raise EngineUnreachable("unregister", None, "its litestream process was ended")
        # The engine ends its own transaction before it reads the WAL for the last time.
        held = await wal.hold_if_possible(job.database)
        try:
            released = Released(txid=(await daemon.control.unregister(job.database, timeout=timeout)).txid)
        except EngineTimeout as error:
            await self._give_up(daemon)  # it may still hold the database, and nothing else would show that
            raise EngineTimeout("unregister", None, f"{error.text}; its process was ended") from error
        except EngineUnreachable:
            raise
        except EngineError as error:
            released = Released(error=error)
        finally:
            await held.release()
        daemon.release(job.database)
        return released

    async def _let_go_alone(self, daemon: DaemonProcess, job: ReplicationJob) -> Released:
        """End the process, and upload what it left. Unregistering would limit the upload to a fixed time."""
        held = await wal.hold(job.database)
        try:
            self._daemons.pop(daemon.key, None)
            await self._close(daemon)
            await self._replicate_once(job)
            return Released(txid=await asyncio.to_thread(wal.newest_transaction, job.database))
        finally:
            await held.release()

    async def _give_up(self, daemon: DaemonProcess) -> None:
        """End a process that does not answer. The watcher attaches its other databases again."""
        if self._daemons.get(daemon.key) is daemon:
            del self._daemons[daemon.key]
        for name in list(daemon.jobs):
            if self._of.pop(name, None):
                self._on_change(name, EngineError("unregister", None, "its litestream process had to be ended"))
        await self._close(daemon)

    async def _prepare(self, job: ReplicationJob) -> wal.Hold:
        """Bring local state and WAL into a state in which the engine cannot miss a change, and hold them there.

        The caller confirms the hold when the engine has taken the database over.
        """
        side = LITESTREAM.side_folder_of(job.database)
        if job.reset_due and await asyncio.to_thread(side.exists):
            await self.command_line(job.credentials).reset(job.database)
        held = await wal.hold(job.database)
        if not held.held:
            await use_wal(job.database)
        elif await self._goes_on(held, job):
            return held
        await held.release()
        if (kept := self._kept.get(job.database)) is not None:
            await kept.release()
        await refuse_a_copy(job.database, job.location, failed=job.database in self._filled)
        emptied = await checkpoint_truncate(job.database)
        held = await wal.hold(job.database)
        if emptied or await self._goes_on(held, job) or await self._is_fresh(held, job):
            return held
        await held.release()
        raise DatabaseLocked(
            job.database,
            "a transaction has kept the WAL for 5 s, and it was restarted while litestream was away; "
            "to continue now would lose what was written meanwhile",
        )

    async def _goes_on(self, held: wal.Hold, job: ReplicationJob) -> bool:
        """Tell whether the engine can continue without a copy, because the WAL holds all that it has not read."""
        try:
            held.salts = await wal.grown(job.database)
            if held.salts is not None:
                await wal.mark(job.database)
        except BaseException:
            await held.release()
            raise
        return held.salts is not None

    async def _is_fresh(self, held: wal.Hold, job: ReplicationJob) -> bool:
        """Tell whether the engine begins with a full copy, because it has no transaction file to continue from."""
        try:
            if await asyncio.to_thread(wal.newest_transaction, job.database) is not None:
                return False
            return (await job.location.list_prefix(job.credentials)).objects == 0
        except ReplicaError:
            return False
        except BaseException:
            await held.release()
            raise

    # --- processes -------------------------------------------------------------------------------------------------

    async def _attach_alone(self, job: ReplicationJob) -> None:
        """Start the process. Its first upload may still run when this returns."""
        key = self._key(job)
        daemon = await self._open(key, job)
        size = await asyncio.to_thread(file_size, job.database)
        deadline = asyncio.get_running_loop().time() + READY_WITHIN + 2 * TAKE_WITHIN + size / _BYTES_PER_SECOND
        ready = asyncio.create_task(daemon.process.wait_ready(None))
        failed = asyncio.create_task(daemon.failed.wait())
        try:
            done, _ = await asyncio.wait([ready, failed], timeout=COPY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if not done and daemon.copy is None:
                rest = deadline - asyncio.get_running_loop().time()
                await asyncio.wait([ready, failed], timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done() and daemon.copy is None:
                raise daemon.failure or self._not_started(daemon)
        except BaseException:
            daemon.jobs.pop(job.name, None)
            await self._close_if_empty(daemon)
            raise
        finally:
            ready.cancel()
            failed.cancel()
            await asyncio.gather(ready, failed, return_exceptions=True)
        self._daemons[key] = daemon
        self._of[job.name] = key

    async def _close_if_empty(self, daemon: DaemonProcess) -> None:
        """Close a process without databases, which would keep an identity that no stream uses."""
        async with self._opening.setdefault(daemon.key, asyncio.Lock()):
            if daemon in self._alive and not daemon.jobs:
                if self._daemons.get(daemon.key) is daemon:
                    del self._daemons[daemon.key]
                await self._close(daemon)

    async def _close(self, daemon: DaemonProcess) -> None:
        await daemon.close()
        self._alive.discard(daemon)

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    def _key(self, job: ReplicationJob) -> str:
        if job.alone:
            return f"own-{_digest(job.name)}"
        identity = (job.credentials.access_key_id, job.credentials.secret_access_key) if job.credentials else ("", "")
        place = job.location
        store = (place.endpoint or "", place.region or "") if isinstance(place, S3Location) else ("file",)
        return f"all-{_digest(*identity, *store)}"

    async def _open(self, key: str, job: ReplicationJob) -> DaemonProcess:
        """Return a process that has been started, but may not be ready."""
        folder = self._folder / key
        config = folder / "litestream.yml"
        try:
            await asyncio.to_thread(folder.mkdir, 0o700, True, True)
            settings = DaemonSettings(socket=folder / "socket", replay_window=self._replay_window)
            if job.alone:
                interval = job.interval or timedelta(seconds=1)
                text = single_daemon(settings, job.database, job.location, interval, options=job.options)
            else:
                text = shared_daemon(settings)
            await asyncio.to_thread(_write_private, config, text)
        except (OSError, ValueError) as error:
            raise EngineError("start", None, str(error)) from error
        daemon = DaemonProcess(key, Control(settings.socket))
        if job.alone:
            daemon.jobs[job.name] = job

        async def before_start() -> None:
            daemon.looks.clear()
            await asyncio.to_thread(settings.socket.unlink, missing_ok=True)
            if job.alone:
                await self._before_alone(daemon, job.name)

        async def on_start() -> None:
            await _answering(daemon.control)
            daemon.starts += 1
            daemon.offered.clear()
            if job.alone:
                await self._on_alone(daemon, job.name)
            else:
                daemon.taking = asyncio.create_task(self._take_up_again(daemon))

        daemon.process = self._launch(
            daemon_argv(self._binary, config),
            engine_environment(job.credentials),
            folder=folder,
            marker=str(config),
            edit=lambda line: with_path(line, daemon.named),
            before_start=before_start,
            on_start=on_start,
        )
        self._alive.add(daemon)
        try:
            await daemon.process.start()
        except BaseException:
            await self._close(daemon)
            raise
        daemon.watching = asyncio.create_task(daemon.watch())
        return daemon

    def _not_started(self, daemon: DaemonProcess) -> EngineNotStarted:
        return EngineNotStarted(_why_not_started(daemon), self._folder / daemon.key / LOG)

    async def _before_alone(self, daemon: DaemonProcess, name: str) -> None:
        await daemon.held.release()
        daemon.attempts += 1
        if daemon.attempts > 1 and daemon.starts == 0:
            self._lost(daemon, name, self._not_started(daemon))
        try:
            job = daemon.jobs[name]
            daemon.held = await self._prepare(job)
            if not daemon.copied:  # else the daemon's first upload comes after one interval
                await self._copy(daemon, job)
                await wal.confirm(job.database, daemon.held.salts)
                if not await self._goes_on(daemon.held, job):
                    raise wal.WalRestarted(job.database)
        except wal.WalRestarted:
            daemon.attempts -= 1  # the next attempt begins with a copy
            raise
        except Exception as error:
            self._lost(daemon, name, error)
            raise

    async def _copy(self, daemon: DaemonProcess, job: ReplicationJob) -> None:
        daemon.copy = asyncio.create_task(self._replicate_once(job))
        try:
            await asyncio.wait([daemon.copy])
            if daemon.copy.cancelled():
                raise EngineError("replicate", None, "it was ended before its first upload was")
            await daemon.copy
        finally:
            daemon.copy.cancel()
            await asyncio.gather(daemon.copy, return_exceptions=True)
            daemon.copy = None
        daemon.copied = True

    async def _on_alone(self, daemon: DaemonProcess, name: str) -> None:
        try:
            await self._take(daemon, daemon.jobs[name], reached=True)
            await wal.confirm(daemon.jobs[name].database, daemon.held.salts)
            await daemon.note_taken(daemon.jobs[name])
            daemon.enter(daemon.jobs[name], daemon.starts)
        except wal.WalRestarted:
            raise  # the next start begins with a copy
        except Exception as error:
            self._lost(daemon, name, error)
            raise
        finally:
            await daemon.held.release()
        daemon.jobs[name] = replace(daemon.jobs[name], reset_due=False)
        daemon.failure = None
        daemon.failed.clear()
        if self._of.get(name) == daemon.key:
            self._on_change(name, None)

    def _lost(self, daemon: DaemonProcess, name: str, error: Exception) -> None:
        daemon.fail(error)
        if self._of.get(name) == daemon.key:
            self._on_change(name, error)

    async def _take_up_again(self, daemon: DaemonProcess) -> None:
        """Register the databases again after a process died: it has forgotten them."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(job: ReplicationJob) -> None:
            async with self._turn(job.name), gate:
                if daemon.jobs.get(job.name) is not job or daemon.entered.get(job.name) == daemon.starts:
                    return
                try:
                    await self._enter(daemon, job, reached=False)
                except (EngineError, DatabaseError, OSError) as error:  # one must not delay the others
                    daemon.jobs.pop(job.name, None)
                    self._of.pop(job.name, None)
                    self._on_change(job.name, error)
                else:
                    self._on_change(job.name, None)

        await asyncio.gather(*(one(job) for job in list(daemon.jobs.values())))


async def _tell_upload(job: ReplicationJob) -> None:
    while True:
        upload = await newest_upload(job.database, job.location, job.credentials)
        tell(f"snapshot, {format_upload(upload.arrived, upload.total)}" if upload else "snapshot")
        await asyncio.sleep(_TELL_EVERY)


def _why_not_started(daemon: DaemonProcess) -> str:
    """Return what litestream printed before it ended: at the start, it does not write its errors to its JSON log."""
    printed = " ".join(line.strip() for line in daemon.process.said if not line.startswith("{"))
    return daemon.process.last_error or printed.removeprefix("Error: ") or "nothing, and its process does not run"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


async def _answering(control: ControlClient) -> None:
    """Wait until the control socket answers; the supervisor gives up when the process ends."""
    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    while True:
        try:
            await control.info(timeout=2.0)
            return
        except EngineUnreachable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.02)


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(open_private(path, os.O_TRUNC), "w", encoding="utf-8") as file:
        file.write(text)
