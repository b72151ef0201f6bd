"""HTTP/1.1 to an agent, with connections that are reused.

A general HTTP client takes longer to import than a plugin takes to start, and several milliseconds for each call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h11

_CHUNK = 65_536
SOCKET_PATH_MAX = 107
"""Bytes of a Unix socket's path that the kernel takes."""

_BODY_LIMIT = 64 * 1024 * 1024  # bytes of an answer; a description of a stream has about 1 kB


class ConnectError(Exception):
    """No connection was made; the cause is the system's error."""


class BrokenError(Exception):
    """The connection ended before the answer. Whether the request had an effect is unknown."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport(Protocol):
    """A transport of requests and answers."""

    async def request(self, verb: str, path: str, headers: Mapping[str, str], content: bytes) -> Response:
        """Return the answer, whatever its status; raise `ConnectError` or `BrokenError` without one."""

    async def aclose(self) -> None:
        """Close all connections."""


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection; raises `OSError`."""


class PooledTransport:
    """A transport with one connection per request in progress. Belongs to one event loop."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle: list[_Connection] = []

    async def request(self, verb: str, path: str, headers: Mapping[str, str], content: bytes) -> Response:
        """Send a request and read its answer. Cancellation closes the connection."""
        connection = await self._take()
        try:
            reply = await connection.request(verb, path, headers, content)
        except (OSError, h11.RemoteProtocolError) as error:
            connection.close()
            raise BrokenError(str(error) or type(error).__name__) from error
        except BaseException:
            connection.close()
            raise
        if connection.reusable():
            self._idle.append(connection)
        else:
            connection.close()
        return reply

    async def aclose(self) -> None:
        """Close idle connections."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.ended():
                return connection
            connection.close()
        try:
            reader, writer = await self._connect()
        except OSError as error:
            raise ConnectError(str(error)) from error
        return _Connection(reader, writer)


class UnixTransport(PooledTransport):
    """A transport to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(lambda: asyncio.open_unix_connection(str(path)))


class _Connection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def request(self, verb: str, path: str, headers: Mapping[str, str], content: bytes) -> Response:
        http = self._http
        lines = {"Host": "localhost", "Content-Length": str(len(content)), **headers}
        head = http.send(h11.Request(method=verb, target=path, headers=list(lines.items())))
        body = http.send(h11.Data(data=content))
        self._writer.write(b"".join(part for part in (head, body, http.send(h11.EndOfMessage())) if part))
        await self._writer.drain()
        answer, received = None, bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await self._reader.read(_CHUNK))
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.Data):
                received += event.data
                if len(received) > _BODY_LIMIT:
                    raise ConnectionAbortedError(f"its answer has more than {_BODY_LIMIT} bytes")
            elif isinstance(event, h11.EndOfMessage) and answer is not None:
                found = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
                return Response(answer.status_code, found, bytes(received))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("it was closed")

    def reusable(self) -> bool:
        """Tell whether both sides are ready for another request."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return not self._http.trailing_data[0]  # it would be read as the answer to the next request
        return False

    def ended(self) -> bool:
        """Tell whether the other side has closed it."""
        return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()

    def close(self) -> None:
        """Close it at once, with any request in progress."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Close it and wait until it is closed."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return
