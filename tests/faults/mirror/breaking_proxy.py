"""A line to a Connect worker that counts what changes something, and breaks at one of these calls."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

Breaks = Callable[[int], bool]
"""Whether the line breaks after an effect, counted from 1: the worker has answered, and the caller never hears it."""
Strike = Callable[[], Awaitable[None]]

_READS = re.compile(r"GET |PUT /connector-plugins/")  # a validation changes nothing
_HEAD_END = b"\r\n\r\n"


class Line:
    """Relays calls, one a connection.

    :ivar worker: the base URL of its REST interface.
    :ivar url: the base URL of this line.
    :ivar effects: the calls since `arm` that change something, in order.
    :ivar broken: how often it broke since then.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._breaks: Breaks = never
        self._strike: Strike = nothing
        self._last = b""
        self.url = ""
        self.effects: list[str] = []
        self.broken = 0

    def arm(self, breaks: Breaks, strike: Strike | None = None) -> None:
        """Count from now on, and break where `breaks` says so.

        :param strike: done when the line breaks; then the caller's connection is closed.
        """
        self._breaks, self._strike, self._last = breaks, strike or nothing, b""
        self.effects, self.broken = [], 0

    def disarm(self) -> None:
        """Break no more."""
        self.arm(never)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            call = await _read_call(reader)
            place = self._count(call)
            reply = await self._relay(call)
            if place and self._breaks(place):
                self.broken += 1
                await self._strike()
                return
            writer.write(reply)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # one of the two is gone, and the other one learns it
        finally:
            writer.close()

    def _count(self, call: bytes) -> int:
        """The number of a call that changes something; 0 for any other, and for one that is sent again."""
        first = call.split(b"\r\n", 1)[0].decode()
        if _READS.match(first) or call == self._last:
            return 0
        self._last = call
        self.effects.append(_effect(first))
        return len(self.effects)

    async def _relay(self, call: bytes) -> bytes:
        parts = urlsplit(self.worker)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(call)
            return await reader.read()
        finally:
            writer.close()


def never(place: int) -> bool:
    """The line does not break."""
    return False


def after(effect: int) -> Breaks:
    """The line breaks after one effect."""
    return lambda place: place == effect


async def nothing() -> None:
    """The connection breaks, and that is all."""


async def _read_call(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(_HEAD_END)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", head) + body


def _effect(first_line: str) -> str:
    """`POST /connectors HTTP/1.1` as `POST connectors`, `PUT /connectors/orders/stop` as `PUT stop`."""
    verb, path, _ = first_line.split(" ")
    parts = urlsplit(path).path.strip("/").split("/")
    return f"{verb} {parts[2] if len(parts) > 2 else 'connector' if len(parts) == 2 else parts[0]}"


@asynccontextmanager
async def line_to(worker: str) -> AsyncIterator[Line]:
    """A line on a free port of 127.0.0.1."""
    line = Line(worker)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
