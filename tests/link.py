"""A link to a server that is narrow and long: a proxy on 127.0.0.1 with a bandwidth and a delay."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK = 16_384


class Link:
    """Passes bytes on to a port of 127.0.0.1. All connections share the bandwidth of their direction.

    :ivar rate: bytes a second in each direction; 0 holds everything up.
    :ivar delay: seconds that each byte is under way.
    :ivar sent: bytes that went to the server.
    """

    def __init__(self, target: int, *, rate: float, delay: float = 0.0) -> None:
        self.rate = rate
        self.delay = delay
        self.sent = 0
        self.port = 0
        self._target = target
        self._free = {True: 0.0, False: 0.0}
        self._lines: set[asyncio.Task[None]] = set()

    def url(self, url: str) -> str:
        """The same URL by way of the link."""
        return url.replace(f":{self._target}", f":{self.port}", 1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            near, far = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pass(reader, far, up=True), self._pass(near, writer, up=False))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._lines.discard(task)
            for side in (writer, far):
                if side is not None:
                    side.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)

        async def arrive() -> None:
            while (item := await under_way.get())[1]:
                due, data = item
                await asyncio.sleep(due - loop.time())
                writer.write(data)
                await writer.drain()
                if up:
                    self.sent += len(data)
            writer.write_eof()

        async with asyncio.TaskGroup() as both:
            both.create_task(arrive())
            while data := await reader.read(_CHUNK):
                while not self.rate:
                    await asyncio.sleep(0.05)
                self._free[up] = max(loop.time(), self._free[up]) + len(data) / self.rate
                await asyncio.sleep(self._free[up] - loop.time())
                await under_way.put((self._free[up] + self.delay, data))
            await under_way.put((0.0, b""))

    def cut(self) -> None:
        """End every connection."""
        for task in list(self._lines):
            task.cancel()


@contextmanager
def link_to(target: int, *, rate: float, delay: float = 0.0) -> Iterator[Link]:
    """A link in a thread of its own, so that a test may block."""
    link = Link(target, rate=rate, delay=delay)
    loop = asyncio.new_event_loop()

    async def start() -> asyncio.Server:
        server = await asyncio.start_server(link.serve, "127.0.0.1", 0, limit=_CHUNK)
        link.port = server.sockets[0].getsockname()[1]
        return server

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield link
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(link.cut)
        loop.call_soon_threadsafe(loop.call_later, 0.1, loop.stop)
        thread.join()
        loop.close()
