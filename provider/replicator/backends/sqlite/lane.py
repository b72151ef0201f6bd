"""One litestream process, and what is replicated in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from replicator.backends.sqlite import wal
from replicator.backends.sqlite.litestream import ControlClient, EngineError, EngineTimeout, ListedDatabase
from replicator.backends.sqlite.replica import ReplicaLocation, S3Credentials


class Supervised(Protocol):
    """A child process that is started again when it dies. After `stop` it is done with."""

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
        """Whether it needs a process of its own."""
        return self.interval is not None or bool(self.options)


class Lane:
    """One litestream process and the jobs in it.

    :ivar attempts: how often the process of a single job was about to be started.
    :ivar starts: how often the process came up; what was registered before the last time is forgotten.
    :ivar entered: the start in which each job was taken over.
    :ivar failure: why the only job of a process could not be taken over.
    """

    def __init__(self, key: str, control: ControlClient) -> None:
        self.key = key
        self.control = control
        self.process: Supervised
        self.jobs: dict[str, Job] = {}
        self.attempts = 0
        self.starts = 0
        self.entered: dict[str, int] = {}
        self.failure: Exception | None = None
        self.failed = asyncio.Event()
        self.held = wal.Hold(None)
        self.taking: asyncio.Task[None] | None = None
        self._listed: dict[Path, ListedDatabase] = {}

    async def listing(self, timeout: float) -> dict[Path, ListedDatabase]:
        """What the process says of its databases; what it said last, while it waits for a store; else nothing."""
        try:
            self._listed = {item.path: item for item in await self.control.list_databases(timeout=timeout)}
        except EngineTimeout:
            return self._listed
        except EngineError:
            return {}
        return self._listed

    def fail(self, error: Exception) -> None:
        """Its only job could not be taken over."""
        self.failure = error
        self.failed.set()

    async def close(self) -> None:
        """End the process."""
        if self.taking is not None:
            self.taking.cancel()
        try:
            await self.process.stop()
        finally:
            await self.held.release()
            await self.control.aclose()
