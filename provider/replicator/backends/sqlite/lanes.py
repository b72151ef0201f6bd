"""The litestream processes of one agent, and which database is replicated by which of them.

Streams without settings of their own share one process for each set of credentials, because a process has one identity.
A stream with its own interval or options has a process of its own, because `/register` cannot carry them.

Every way into replication goes through `_prepare`: the WAL is emptied into the database first, or a full snapshot is
forced. The engine otherwise takes up its old position in a WAL that was restarted meanwhile, and rows are missing from
the replica without any error.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from replicator.backends.sqlite.daemon import DaemonSettings, daemon_argv, shared_daemon, single_daemon
from replicator.backends.sqlite.database import checkpoint_truncate
from replicator.backends.sqlite.litestream import CommandLine, ControlClient, EngineError
from replicator.backends.sqlite.replica import ReplicaLocation, S3Credentials, engine_environment

READY_WITHIN = 15.0
"""Seconds that a litestream process has to answer on its control socket."""

DETACH_WITHIN = 15.0
"""Seconds for uploading what is left when a database is let go; a store that is down takes them all."""

_AT_ONCE = 8


class Supervised(Protocol):
    """A child process that is started again when it dies."""

    pid: int | None
    last_error: str | None

    async def start(self) -> None: ...
    async def wait_ready(self, timeout: float) -> None: ...
    async def stop(self) -> None: ...


class Launch(Protocol):
    """How the agent starts a child; `before_start` and `on_start` are awaited around each start."""

    def __call__(
        self,
        argv: list[str],
        env: Mapping[str, str],
        *,
        folder: Path,
        marker: str,
        before_start: Callable[[], Awaitable[None]],
        on_start: Callable[[], Awaitable[None]],
    ) -> Supervised: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be replicated, and how.

    :param interval: the stream's own upload interval; `None` for the engine's second.
    :param snapshot_due: begin with a forced snapshot, whatever state the WAL is in.
    :param reset_due: forget the local replication state first.
    """

    name: str
    database: Path
    location: ReplicaLocation
    credentials: S3Credentials | None
    interval: timedelta | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    snapshot_due: bool = False
    reset_due: bool = False

    @property
    def alone(self) -> bool:
        """Whether it needs a process of its own."""
        return self.interval is not None or bool(self.options)


class Lane:
    """One litestream process and the jobs in it."""

    def __init__(self, control: ControlClient, process: Supervised) -> None:
        self.control = control
        self.process = process
        self.jobs: dict[str, Job] = {}

    async def close(self) -> None:
        """End the process."""
        await self.process.stop()
        await self.control.aclose()


class Lanes:
    """All litestream processes of an agent.

    :param folder: for configurations, sockets, pid files and logs.
    :param on_attach_failed: told when a database could not be taken up again after its process had died.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        launch: Launch,
        *,
        replay_window: timedelta,
        on_attach_failed: Callable[[str, Exception], None],
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._launch = launch
        self._replay_window = replay_window
        self._on_attach_failed = on_attach_failed
        self._lanes: dict[str, Lane] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._of: dict[str, str] = {}

    def of(self, name: str) -> Lane | None:
        """The process that replicates a stream; `None` where none does."""
        return self._lanes.get(self._of.get(name, ""))

    def command_line(self, credentials: S3Credentials | None) -> CommandLine:
        """The engine's commands with an identity."""
        return CommandLine(self._binary, engine_environment(credentials))

    async def attach(self, job: Job) -> Lane:
        """Begin to replicate. The first upload goes on in the background: ask `sync` of the lane's control."""
        key = self._key(job)
        async with self._opening.setdefault(key, asyncio.Lock()):
            lane = self._lanes.get(key)
            if lane is None:
                lane = await self._open(key, job)
        if not job.alone:
            await self._prepare(job)
            await lane.control.register(job.database, job.location.url_for_engine())
        lane.jobs[job.name] = Job(**{**_fields(job), "snapshot_due": False, "reset_due": False})
        self._of[job.name] = key
        return lane

    async def detach(self, name: str, *, timeout: float = DETACH_WITHIN) -> None:
        """Upload what is left, and let the database go. It is let go also when the upload fails."""
        key = self._of.pop(name, None)
        lane = self._lanes.get(key) if key else None
        if lane is None or key is None:
            return
        job = lane.jobs.pop(name)
        if job.alone:
            del self._lanes[key]
            with suppress(EngineError):
                await lane.control.sync(job.database, wait=True, timeout=timeout)
            await lane.close()
            return
        with suppress(EngineError):
            await lane.control.unregister(job.database, timeout=timeout)

    async def snapshot_once(self, job: Job) -> None:
        """One full copy, with no process left behind."""
        await self._prepare(Job(**{**_fields(job), "snapshot_due": True}))

    async def aclose(self) -> None:
        """End every process. The streams' records say what to start again."""
        lanes, self._lanes, self._of = list(self._lanes.values()), {}, {}
        await asyncio.gather(*(lane.close() for lane in lanes))

    def _key(self, job: Job) -> str:
        if job.alone:
            return f"own-{_digest(job.name)}"
        identity = (job.credentials.access_key_id, job.credentials.secret_access_key) if job.credentials else ()
        return f"all-{_digest(*identity)}"

    async def _open(self, key: str, job: Job) -> Lane:
        folder = self._folder / key
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = DaemonSettings(socket=folder / "socket", replay_window=self._replay_window)
        if job.alone:
            text = single_daemon(
                settings, job.database, job.location, job.interval or timedelta(seconds=1), options=job.options
            )
        else:
            text = shared_daemon(settings)
        config = folder / "litestream.yml"
        await asyncio.to_thread(_write_private, config, text)
        control = ControlClient(settings.socket)
        lane: Lane | None = None
        pending: Job | None = job  # its first start has what is due; a later one only has to empty the WAL

        async def before_start() -> None:
            nonlocal pending
            await asyncio.to_thread(settings.socket.unlink, missing_ok=True)
            if job.alone:
                await self._prepare(pending or Job(**{**_fields(job), "snapshot_due": False, "reset_due": False}))
                pending = None

        async def on_start() -> None:
            await _answering(control)
            if lane is not None:
                await self._take_up_again(lane)

        process = self._launch(
            daemon_argv(self._binary, config),
            engine_environment(job.credentials),
            folder=folder,
            marker=str(config),
            before_start=before_start,
            on_start=on_start,
        )
        await process.start()
        try:
            await process.wait_ready(READY_WITHIN)
        except TimeoutError:
            await process.stop()
            await control.aclose()
            why = process.last_error or f"no answer within {READY_WITHIN:g} s"
            raise EngineError("start", None, why) from None
        lane = self._lanes[key] = Lane(control, process)
        return lane

    async def _take_up_again(self, lane: Lane) -> None:
        """A process that died has forgotten its databases."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(job: Job) -> None:
            async with gate:
                try:
                    await self._prepare(job)
                    await lane.control.register(job.database, job.location.url_for_engine())
                except Exception as error:  # one database must not hold up the others
                    lane.jobs.pop(job.name, None)
                    self._of.pop(job.name, None)
                    self._on_attach_failed(job.name, error)

        await asyncio.gather(*(one(job) for job in list(lane.jobs.values()) if not job.alone))

    async def _prepare(self, job: Job) -> None:
        """Make local state and WAL such that the engine cannot miss a change."""
        command = self.command_line(job.credentials)
        if job.reset_due:
            await command.reset(job.database)
        emptied = await checkpoint_truncate(job.database)
        if job.snapshot_due or not emptied:
            await command.replicate_once(job.database, job.location.url_for_engine(), force_snapshot=True)


def _fields(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


async def _answering(control: ControlClient) -> None:
    """Wait until the control socket answers; the supervisor gives up when the process ends."""
    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    while True:
        try:
            await control.info(timeout=2.0)
            return
        except EngineError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.02)


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
