"""A way to a Connect worker on which calls and answers can be lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import httpx

HTML = b"<html><body>Not Found</body></html>"


@dataclass(frozen=True)
class Fault:
    """What happens to a call.

    :param reaches: whether the worker gets the call.
    :param status: what is answered instead of what the worker says; None closes the connection without an answer.
    """

    reaches: bool
    status: int | None = None
    body: bytes = b""
    type: str = "application/json"


def spoken(status: int, text: str = "a fault of the test") -> bytes:
    """An error as Connect writes it."""
    return b'{"error_code":%d,"message":"%s"}' % (status, text.encode())


def said(status: int, *, reaches: bool = False, text: str = "a fault of the test") -> Fault:
    """An error of Connect itself."""
    return Fault(reaches, status, spoken(status, text))


LOST = Fault(reaches=True)
NEVER_ARRIVED = Fault(reaches=False)
NOT_READY = Fault(reaches=False, status=404, body=HTML, type="text/html")
STOPPING = Fault(reaches=True, status=500, type="text/plain")

Chooser = Callable[[str, str], Fault | None]


@dataclass
class Proxy:
    """Forwards calls to a worker; `fault` says which go wrong.

    :ivar calls: verb and path of each call, in order, whatever became of it.
    :ivar most: the most calls of one kind that were under way at once, by verb and the last part of the path.
    :ivar faults: what happens to the next calls of a path or a verb; each is used once.
    :ivar delay: seconds before each call is passed on.
    :ivar chooser: says the same by code, where `faults` has nothing.
    """

    worker: str
    url: str = ""
    calls: list[str] = field(default_factory=list)
    most: Counter[str] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    delay: float = 0.0
    chooser: Chooser | None = None
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    def fail(self, which: str, *faults: Fault) -> None:
        """The next calls go wrong in these ways, in this order.

        :param which: calls of one path, `GET /connectors/x`, or of one verb, `GET`.
        """
        self.faults += [(which, fault) for fault in faults]

    def count(self, which: str) -> int:
        """How many calls were made of one path or one verb."""
        return sum(_is(call, which) for call in self.calls)

    def _fault(self, call: str) -> Fault | None:
        for kafka_endpoint, (which, fault) in enumerate(self.faults):
            if _is(call, which):
                del self.faults[kafka_endpoint]
                return fault
        return self.chooser(*call.split(" ", 1)) if self.chooser else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its end."""
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the other side has gone, or the test has ended
        finally:
            self.serving.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one call; False where the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        verb, path, _ = first.split(" ")
        self.calls.append(f"{verb} {path}")
        fault = self._fault(f"{verb} {path}")
        with self._counted(f"{verb} {path.rpartition('/')[2]}"):
            await asyncio.sleep(self.delay)
            return await self._answer(writer, verb, path, headers, body, fault)

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        self.under_way[kind] += 1
        self.most[kind] = max(self.most[kind], self.under_way[kind])
        try:
            yield
        finally:
            self.under_way[kind] -= 1

    async def _answer(
        self,
        writer: asyncio.StreamWriter,
        verb: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        fault: Fault | None,
    ) -> bool:
        if fault is None or fault.reaches:
            kept: dict[str, str] = {name: headers[name] for name in ("content-type",) if name in headers}
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                reply = await client.request(verb, self.worker + path, headers=kept, content=body)
            answer = (reply.status_code, reply.headers.get("content-type", "text/plain"), reply.content)
        if fault is not None:
            if fault.status is None:
                return False
            answer = (fault.status, fault.type, fault.body)
        status, kind, content = answer
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n".encode())
        if status != httpx.codes.NO_CONTENT:
            writer.write(f"Content-Length: {len(content)}\r\n".encode())
        writer.write(b"\r\n" + content)
        await writer.drain()
        return True


def _is(call: str, which: str) -> bool:
    return which in (call.partition("?")[0], call.partition(" ")[0])


@asynccontextmanager
async def proxy_to(worker: str) -> AsyncIterator[Proxy]:
    """A proxy on a free port of 127.0.0.1."""
    proxy = Proxy(worker)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in proxy.serving:
            task.cancel()
        if proxy.serving:
            await asyncio.wait(proxy.serving)
