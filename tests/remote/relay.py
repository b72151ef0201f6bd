"""A relay before a server, which can lose answers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path


class Relay:
    """Passes requests on; the answers to the first `losses` requests are received, and not passed back."""

    def __init__(self, target: Path, losses: int) -> None:
        self.losses = losses
        self.requests = 0
        self._target = target

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                request = await _read_message(reader)
                self.requests += 1
                answer = await self._ask(request)
                if self.losses > 0:
                    self.losses -= 1
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._target))
        writer.write(request)
        answer = await _read_message(reader)
        writer.close()
        await writer.wait_closed()
        return answer


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


@contextlib.asynccontextmanager
async def relaying(path: Path, target: Path, losses: int) -> AsyncIterator[Relay]:
    relay = Relay(target, losses)
    server = await asyncio.start_unix_server(relay.handle, str(path))
    try:
        yield relay
    finally:
        server.close()
        await server.wait_closed()
