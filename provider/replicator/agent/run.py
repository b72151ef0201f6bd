"""The agent: it supervises litestream beside the databases, and serves the `Replicator` interface on a Unix socket."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from replicator import __version__
from replicator.agent.child import launcher
from replicator.agent.log import Level, start_logging
from replicator.agent.policy_file import PolicyFile, default_policy
from replicator.agent.registry import FileStore
from replicator.agent.state import StateFolder
from replicator.authref import Redactor
from replicator.backends.sqlite import litestream_errors
from replicator.backends.sqlite.driver import SqliteDriver
from replicator.backends.sqlite.grants import missing
from replicator.backends.sqlite.litestream import Binary, EngineMissing, find_binary
from replicator.errors import AgentFault
from replicator.model import format_duration
from replicator.remote.routes import INFO_PATH
from replicator.remote.server import build_app, serve

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The settings of an agent.

    :param socket: the socket on which it listens.
    :param state: its folder, not shared with another agent.
    :param socket_group: a group that may use the socket; without it, only the agent's own user may.
    :param replay_window: how long each single transaction stays restorable.
    :param log_file: the log file, instead of stderr.
    :param policy: its policy file, which must exist; without it, the default file, if that exists.
    """

    socket: Path
    state: Path
    socket_group: str | None = None
    replay_window: timedelta = timedelta(hours=1)
    log_level: Level = Level.INFO
    log_file: Path | None = None
    policy: Path | None = None


async def run(settings: AgentSettings, *, ready: Callable[[], None] | None = None) -> None:
    """Run an agent until SIGTERM, SIGINT or cancellation; then finish calls and upload remaining changes.

    Raise `AgentFault` if another agent uses the folder or the socket, `InvalidConfig` if one of them cannot be
    used, `PolicyUnusable` for its policy file, `EngineUnavailable` if litestream is missing.

    :param ready: called when the agent answers calls. Streams are attached after that.
    """
    redactor = Redactor()
    start_logging(settings.log_level, redactor, settings.log_file)
    folder = StateFolder(settings.state.absolute())
    policies = PolicyFile(settings.policy or default_policy(), required=settings.policy is not None)
    await asyncio.to_thread(_see, policies)
    async with folder.locked(settings.socket):
        store = await asyncio.to_thread(FileStore, folder.registry)
        binary = await _find_litestream()
        _raise_file_limit()
        driver = SqliteDriver(
            binary.path,
            folder.daemons,
            store,
            launcher(redactor),
            state=folder.path,
            replay_window=settings.replay_window,
            redactor=redactor,
            policies=policies,
        )
        _log.info("agent %s with litestream %s, state in %s", __version__, binary.version, folder.path)
        agent = _Agent(
            driver, settings, {"state": str(folder.path), "litestream": binary.version, "policy": str(policies.path)}
        )
        await agent.run(len(store.records()), ready)
    _log.info("stopped")


class _Agent:
    """A driver on a socket. The driver starts when the agent has the socket, and stops after the last call."""

    def __init__(self, driver: SqliteDriver, settings: AgentSettings, info: dict[str, Any]) -> None:
        self._driver = driver
        self._settings = settings
        self._info = {**info, "replayWindow": format_duration(settings.replay_window), "ready": False}
        self._started = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None

    async def run(self, streams: int, ready: Callable[[], None] | None) -> None:
        settings = self._settings

        def begin() -> None:
            self._starting = asyncio.create_task(self._start(streams))
            if ready is not None:
                ready()

        app = build_app({self._driver.kind: self._driver}, info=self._info)
        mode = 0o660 if settings.socket_group else 0o600
        self._serving = asyncio.create_task(
            serve(
                WaitForStart(app, self._started),
                settings.socket,
                mode=mode,
                group=settings.socket_group,
                ready=begin,
            )
        )
        try:
            await self._serving
        except asyncio.CancelledError:
            if (failure := self._failure()) is None:
                raise
            raise AgentFault(
                f"the streams cannot be taken up: {type(failure).__name__}: {failure}", fix="read the agent's log"
            ) from failure
        finally:
            with _deaf_to_sigterm():
                await self._stop()

    async def _start(self, streams: int) -> None:
        clock = asyncio.get_running_loop().time
        before = clock()
        try:
            await self._driver.start()
        except Exception:
            _log.exception("the streams cannot be attached")
            assert self._serving is not None
            self._serving.cancel()
            raise
        self._info["ready"] = True
        self._started.set()
        _log.info("started with %d streams on record in %.1f s", streams, clock() - before)

    def _failure(self) -> BaseException | None:
        starting = self._starting
        return starting.exception() if starting and starting.done() and not starting.cancelled() else None

    async def _stop(self) -> None:
        _log.info("stopping")
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await self._driver.aclose()


class WaitForStart:
    """Middleware that delays calls until `started`; a request for the agent's identity is answered at once."""

    def __init__(self, app: ASGIApp, started: asyncio.Event) -> None:
        self._app = app
        self._started = started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != INFO_PATH:
            await self._started.wait()
            _log.debug("%s %s", scope["method"], scope["path"])
        await self._app(scope, receive, send)


def _see(policies: PolicyFile) -> None:
    """Log a warning if there is no policy; raise `PolicyUnusable` for a file that cannot be used."""
    if policies.current() is None:
        error = missing(policies.path)
        _log.warning("%s [%s]; %s", error.message, error.code, error.fix)


async def _find_litestream() -> Binary:
    try:
        return await find_binary()
    except EngineMissing as error:
        raise litestream_errors.not_installed(error) from error


def _raise_file_limit() -> None:
    """Raise the limit of open files to the system's maximum: litestream has five or six open for each database."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems report a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _log.debug("limit of open files: %d, was %d", hard, soft)


@contextmanager
def _deaf_to_sigterm() -> Iterator[None]:
    """Ignore further SIGTERMs within the block: the last uploads take bounded time, and must not be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
