"""The lifecycle of a server: from the socket to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from replicator.errors import ReplicatorError
from replicator.remote.app import build_app, refuse_garbage
from replicator.remote.inbound import Acceptor, Inbound, most_connections
from replicator.remote.listen import Listener, listen
from replicator.remote.routes import HEAD_LIMIT

__all__ = ["build_app", "serve"]

GRACE_SECONDS = 10
"""How long running calls may take after a stop request."""

LOOK_EVERY = 2.0
"""Seconds between two checks that the socket still exists."""

_KEEP_ALIVE_SECONDS = 60
_CUT_OFF_SECONDS = 1

_log = logging.getLogger(__name__)


async def serve(
    app: ASGIApp,
    socket_path: Path,
    *,
    mode: int = 0o600,
    group: str | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve `app` on a Unix socket until SIGTERM, SIGINT or cancellation, then finish calls and remove the socket.

    A removed socket is created again. A second SIGINT does not wait for the calls. The signal handlers of
    the caller are restored at the end.
    Raise `AgentFault` if another server runs there, `InvalidConfig` if the path cannot be used.

    :param mode: the mode of the socket; a user who may write to it has full access.
    :param group: the group of the socket; without it, the process's own.
    :param ready: called when the server answers calls.
    """
    make = functools.partial(listen, socket_path, mode=mode, group=group)
    listener = await _listen(make)
    server = _Server(app, listener, ready)
    try:
        with _stop_on_signals(server):
            task = asyncio.create_task(server.serve())
            watching = asyncio.create_task(server.keep_listening(make))
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                server.should_exit = True
                await task
                raise
            finally:
                watching.cancel()
                await asyncio.wait([watching])
    finally:
        server.listener.socket.close()
        await asyncio.to_thread(server.listener.remove)


async def _listen(make: Callable[[], Listener]) -> Listener:
    """Call `make` in a thread. Remove the listener if the caller is cancelled meanwhile."""
    task = asyncio.create_task(asyncio.to_thread(make))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        for made in await asyncio.gather(task, return_exceptions=True):
            if isinstance(made, Listener):
                made.socket.close()
                await asyncio.to_thread(made.remove)
        raise


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handling, which would end the process before the socket is removed.

    :ivar listener: the socket that it listens on now.
    """

    def __init__(self, app: ASGIApp, listener: Listener, ready: Callable[[], None] | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # uvicorn warns about each malformed request
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEAD_LIMIT,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self.listener = listener
        self._ready = ready
        self._acceptor: Acceptor | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        del sockets
        await self.lifespan.startup()
        self._acceptor = Acceptor(
            self.listener.socket, self._connection, self.server_state.connections, most=most_connections()
        )
        self.servers = [self._acceptor]  # type: ignore[list-item]
        self.started = True
        if self._ready is not None:
            self._ready()

    def _connection(self) -> Inbound:
        assert self._acceptor is not None
        return Inbound(
            changed=self._acceptor.changed,
            refuse=refuse_garbage,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def keep_listening(self, make: Callable[[], Listener]) -> None:
        """Listen again if the socket was removed, since no client could connect any more."""
        told = False
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._acceptor is None or self.should_exit or await asyncio.to_thread(self.listener.is_there):
                continue
            try:
                again = await _listen(make)
            except ReplicatorError as error:
                if not told:
                    _log.error("the socket %s was removed, and cannot be made again: %s", self.listener.path, error)
                told = True
                continue
            told = False
            _log.warning("the socket %s was removed; it is there again", self.listener.path)
            self.listener = again
            await self._acceptor.replace(again.socket)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # Calls that outlived the grace period, or lost their client, still answer that they were cancelled.
        if tasks := self.server_state.tasks.copy():
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CUT_OFF_SECONDS)

    def stop(self, number: signal.Signals) -> None:
        self.force_exit |= self.should_exit and number is signal.SIGINT
        self.should_exit = True


_on_signals: set[_Server] = set()
_before: dict[signal.Signals, Any] = {}


@contextlib.contextmanager
def _stop_on_signals(server: _Server) -> Generator[None, None, None]:
    """Stop `server` on SIGTERM and SIGINT. The last server to end restores the previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    if not _on_signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            _before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, _stop_all, number)
    _on_signals.add(server)
    try:
        yield
    finally:
        _on_signals.discard(server)
        if not _on_signals:
            for number, handler in _before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


def _stop_all(number: signal.Signals) -> None:
    for server in _on_signals:
        server.stop(number)
