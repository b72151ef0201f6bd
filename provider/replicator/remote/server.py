"""The life of a server: from the socket to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from replicator.remote.app import build_app
from replicator.remote.listen import listen

__all__ = ["build_app", "serve"]

GRACE_SECONDS = 10
"""How long calls that are under way may take after a stop was asked for."""

_KEEP_ALIVE_SECONDS = 60
_CUT_OFF_SECONDS = 1


async def serve(
    app: ASGIApp,
    socket_path: Path,
    *,
    mode: int = 0o600,
    group: str | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve `app` on a Unix socket until SIGTERM, SIGINT or cancellation, then finish calls and remove the socket.

    A second SIGINT does not wait for the calls. The signal handlers of the caller are put back at the end.
    Raise `AgentFault` where another server runs there, `InvalidConfig` where the path cannot be used.

    :param mode: of the socket; whoever may write to it may do everything.
    :param group: the group of the socket; without it, the process's own.
    :param ready: is called when the first call would be answered.
    """
    listener = await asyncio.to_thread(listen, socket_path, mode=mode, group=group)
    try:
        server = _Server(app, ready)
        with _stop_on_signals(server):
            task = asyncio.create_task(server.serve(sockets=[listener.socket]))
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                server.should_exit = True
                await task
                raise
    finally:
        listener.socket.close()
        listener.remove()


class _Server(uvicorn.Server):
    """Uvicorn without its own ideas of signals, which would end the process before the socket is removed."""

    def __init__(self, app: ASGIApp, ready: Callable[[], None] | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # Calls that outlived the grace, or that nobody waits for any more, still answer that they were cut off.
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
    """Stop `server` on SIGTERM and SIGINT. The last server that ends puts the handlers of before back."""
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
