"""Connections to a server: their maximum number, and the time for which a client may keep one waiting.

Any client of the socket can open connections and send nothing, or half a request. uvicorn waits for that without a
limit, and asyncio logs an error hundreds of times a second when no descriptor is left. So connections are accepted
here, up to a limit. At the limit, the connection that has waited longest for its client is closed for the next one. A
connection with a complete request is never closed for another.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any

import h11
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

_MOST = 512  # connections; each client opens 64 at most
_SHARE = 4  # one in this many of the process's descriptors is for connections
_LEAST = 4
_PAUSE = 0.25  # seconds until the next accept after the system ran out of descriptors
_SPARED = 0.2  # seconds for which a client may always keep the server waiting
_SILENT_FOR = 60.0  # seconds after a line in the log
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger(__name__)


class Waiting(Enum):
    """The event that the server waits for."""

    HEAD = "the first request, or the rest of the head of one"
    BODY = "the rest of a body"
    NEXT = "another request"
    READER = "the client, to read more of its answer"


WITHIN: dict[Waiting, float] = {Waiting.HEAD: 10.0, Waiting.BODY: 30.0, Waiting.NEXT: 60.0, Waiting.READER: 30.0}
"""Seconds after which the connection is closed."""


def most_connections() -> int:
    """Return the maximum number of connections under the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(_LEAST, min(_MOST, soft // _SHARE))


class Inbound(H11Protocol):
    """One connection. It is closed if the client keeps the server waiting for too long.

    :ivar waiting: what it waits for; `None` while the server handles a complete request.
    :ivar since: when the wait began, by `time.monotonic`.
    """

    def __init__(self, *, changed: Callable[[], None], refuse: Callable[[], Response], **settings: Any) -> None:
        """Create a connection.

        :param changed: called when it waits for something else, or has ended.
        :param refuse: returns the answer to a malformed request.
        """
        super().__init__(**settings)
        self._changed = changed
        self._refuse = refuse
        self.waiting: Waiting | None = None
        self.since = 0.0
        self._subject: object = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait(None, None)
        super().connection_lost(exc)
        self._changed()

    def data_received(self, data: bytes) -> None:
        """Receive data from the client."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Wait until the client reads its answer."""
        super().pause_writing()
        self._wait(Waiting.READER, object())

    def resume_writing(self) -> None:
        """Continue the answer."""
        super().resume_writing()
        self._look()

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP, or too long a head, in the format of other refusals."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            refusal = self._refuse()
            answer = h11.Response(status_code=refusal.status_code, headers=refusal.raw_headers)
            for event in (answer, h11.Data(data=bytes(refusal.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # a call that still runs cannot answer any more
            self.cycle.message_event.set()
        self.transport.close()

    def _look(self) -> None:
        """Update the current wait. The same wait continues: one byte a second must not keep a connection open."""
        if self.flow.write_paused:
            return
        if self.conn.our_state is h11.ERROR or self.conn.their_state is h11.ERROR:
            self._wait(Waiting.BODY, self.conn)
        elif self.conn.their_state is h11.SEND_BODY:
            self._wait(Waiting.BODY, self.cycle)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._wait(None, self.cycle)
        elif self.cycle is None or self.conn.trailing_data[0]:
            self._wait(Waiting.HEAD, self.cycle)
        else:
            self._wait(Waiting.NEXT, self.cycle)

    def _wait(self, waiting: Waiting | None, subject: object) -> None:
        """Begin a wait, unless the same wait is already running.

        :param subject: distinguishes one request from the next.
        """
        if (waiting, subject) == (self.waiting, self._subject):
            return
        self.waiting, self._subject, self.since = waiting, subject, time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(WITHIN[waiting], self._give_up) if waiting else None
        self._changed()

    def _give_up(self) -> None:
        _log.debug("closed a connection that waited for %s", self.waiting and self.waiting.value)
        self.transport.abort()


class Acceptor:
    """An acceptor of connections on a listening socket, which it closes at the end.

    It replaces an `asyncio.Server`, with the two methods that uvicorn calls.

    :param make: creates the protocol of a connection.
    :param open_now: the open connections.
    :param most: their maximum number.
    """

    def __init__(self, listening: socket.socket, make: Callable[[], Inbound], open_now: set[Any], *, most: int) -> None:
        self._make = make
        self._open = open_now
        self._most = most
        self._changed = asyncio.Event()
        self._silent_until = 0.0
        self._listening = listening
        self._task = asyncio.create_task(self._accept())

    def changed(self) -> None:
        """Note that a connection waits for something else, or has ended."""
        self._changed.set()

    async def replace(self, listening: socket.socket) -> None:
        """Continue with another socket; open connections stay."""
        self.close()
        await self.wait_closed()
        self._listening = listening
        self._task = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Stop accepting connections."""
        self._task.cancel()
        self._listening.close()

    async def wait_closed(self) -> None:
        """Wait until accepting has stopped."""
        await asyncio.wait([self._task])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wait_for_room()
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._tell(f"no connection can be accepted: {error.strerror}")
                    self._close_one()
                await asyncio.sleep(_PAUSE)
                continue
            try:
                await loop.connect_accepted_socket(self._make, accepted)
            except OSError:
                accepted.close()

    async def _wait_for_room(self) -> None:
        while len(self._open) >= self._most:
            self._tell(f"all of {self._most} connections are open")
            self._changed.clear()
            self._close_one()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _SPARED)

    def _close_one(self) -> None:
        """Close the connection that has waited for its client the longest. It is gone in the next turn of the loop.

        A new one is spared for a moment, since its request may have arrived but not been read yet.
        """
        before = time.monotonic() - _SPARED
        waiting = [each for each in self._open if each.waiting is not None and each.since < before]
        if waiting:
            min(waiting, key=lambda each: each.since).transport.abort()

    def _tell(self, text: str) -> None:
        """Log a warning, at most once a minute."""
        if time.monotonic() > self._silent_until:
            self._silent_until = time.monotonic() + _SILENT_FOR
            _log.warning("%s; those that wait for their client the longest are closed", text)
