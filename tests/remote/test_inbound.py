"""Clients that send nothing, half of a request, too much or garbage: the others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from replicator.errors import AgentFault, InvalidStream
from replicator.remote import inbound, pending, routes, server
from replicator.remote.inbound import WITHIN, Inbound, Waiting
from replicator.remote.routes import BODY_LIMIT, HEAD_LIMIT, PROTOCOL_HEADER
from replicator.remote.server import build_app
from replicator.replicator import Description
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.remote.support import DESCRIPTION, START, STATUS, Recorder, connected, serving

SOON = 0.3  # seconds that a client may keep the server waiting here
INFO = b"GET /v1/info HTTP/1.1\r\nHost: a\r\n\r\n"
STATUS_OF_ORDERS = b"GET /v1/recorder/streams/orders/status HTTP/1.1\r\nHost: a\r\n\r\n"
HALF_BODY = b"POST /v1/recorder/describe HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{"
HALF_CHUNK = b"POST /v1/recorder/describe HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short."""
    assert list(WITHIN.values()) == [10, 30, 60, 30]
    for what in Waiting:
        monkeypatch.setitem(WITHIN, what, SOON)


@contextlib.asynccontextmanager
async def raw(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection without a client of ours."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(path: Path, request: bytes) -> tuple[int, dict[str, str], Any]:
    """The answer to a request on a connection of its own: status, headers in small letters, JSON."""
    async with asyncio.timeout(10), raw(path) as (reader, writer):
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, json.loads(body)


async def drip(writer: asyncio.StreamWriter, more: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0.05)


async def is_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"", b""),
        (b"GET /v1/info HTTP/1.1\r\nHo", b""),
        (b"GET /v1/info HTTP/1.1\r\nX: ", b"a"),
        (HALF_BODY, b""),
        (HALF_BODY, b" "),
        (HALF_CHUNK, b"1\r\n \r\n"),
        (INFO, b""),
        (INFO + b"GET", b""),
        (INFO + HALF_BODY, b" "),
    ],
    ids=["nothing", "half a head", "a head that drips", "half a body", "a body that drips", "chunks that drip",
         "nothing after an answer", "half a head after an answer", "a body after an answer that drips"],
)  # fmt: skip
async def test_who_keeps_the_server_waiting_is_cut_off(socket_path: Path, first: bytes, more: bytes) -> None:
    async with serving(build_app({"recorder": Recorder()}), socket_path), raw(socket_path) as (reader, writer):
        began = time.monotonic()
        writer.write(first)
        dripping = asyncio.create_task(drip(writer, more)) if more else None
        async with asyncio.timeout(10):
            await is_closed(reader)
        assert time.monotonic() - began >= SOON * 0.9
        if dripping is not None:
            dripping.cancel()


class Telling(Recorder):
    """Has an answer that fits into no buffer."""

    async def describe(self, names: object = None) -> list[Description]:
        return [DESCRIPTION.model_copy(update={"engine_objects": {"text": "x" * 16_000_000}})]


@pytest.mark.usefixtures("soon")
async def test_who_does_not_read_the_answer_is_cut_off(socket_path: Path) -> None:
    body = b"{}"
    async with serving(build_app({"recorder": Telling()}), socket_path) as task, raw(socket_path) as (reader, writer):
        reader._limit = 1024  # type: ignore[attr-defined] # the transport stops reading then
        writer.write(b"POST /v1/recorder/describe HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n" + body)
        await asyncio.sleep(4 * SOON)
        async with asyncio.timeout(10):
            assert len(await read_all(reader)) < 16_000_000
        assert not task.done()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65536):
            found += part
    return bytes(found)


@pytest.mark.usefixtures("soon")
async def test_a_call_may_last_longer_than_its_client_may_keep_the_server_waiting(socket_path: Path) -> None:
    recorder = Recorder(gate=(gate := asyncio.Event()))
    async with serving(build_app({"recorder": recorder}), socket_path):
        asking = asyncio.create_task(ask(socket_path, STATUS_OF_ORDERS))
        await asyncio.wait_for(recorder.entered.wait(), 5)
        await asyncio.sleep(4 * SOON)
        gate.set()
        assert (await asking)[0] == 200


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than four connections."""
    monkeypatch.setattr(server, "most_connections", lambda: 4)


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("first", [b"", b"GET /v1", HALF_BODY, INFO], ids=["nothing", "a head", "a body", "an answer"])
async def test_what_waits_for_its_client_makes_room(socket_path: Path, first: bytes) -> None:
    async with serving(build_app({"recorder": Recorder()}), socket_path), contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            _, writer = await stack.enter_async_context(raw(socket_path))
            writer.write(first)
        assert (await ask(socket_path, INFO))[0] == 200


@pytest.mark.usefixtures("four")
async def test_a_call_under_way_makes_no_room_and_the_next_one_waits_for_it(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(gate=(gate := asyncio.Event()))
    async with serving(build_app({"recorder": recorder}), socket_path):
        calls = [asyncio.create_task(ask(socket_path, STATUS_OF_ORDERS)) for _ in range(12)]
        await asyncio.sleep(0.5)
        assert len(recorder.calls) == 4
        assert not any(call.done() for call in calls)
        gate.set()
        assert [status for status, _, _ in await asyncio.gather(*calls)] == [200] * 12
    assert len(recorder.calls) == 12
    assert [record.getMessage()[:33] for record in caplog.records if record.name == inbound.__name__] == [
        "all of 4 connections are open; th"
    ]


@pytest.mark.usefixtures("four")
async def test_a_client_of_ours_goes_on_where_its_connection_made_room(socket_path: Path) -> None:
    async with (
        serving(build_app({"recorder": Recorder()}), socket_path),
        connected(socket_path) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(3):
            assert await client.get_status("orders") == STATUS
            for _ in range(8):
                await stack.enter_async_context(raw(socket_path))
            await asyncio.sleep(SOON)


async def test_a_body_that_says_it_is_too_large_is_not_read(socket_path: Path) -> None:
    recorder = Recorder()
    async with serving(build_app({"recorder": recorder}), socket_path):
        head = f"POST /v1/recorder/describe HTTP/1.1\r\nHost: a\r\nContent-Length: {50 << 20}\r\n\r\n".encode()
        status, headers, body = await ask(socket_path, head)
        assert (status, body["code"], headers["connection"]) == (413, InvalidStream.code, "close")
        assert str(BODY_LIMIT) in body["message"]
    assert recorder.calls == []


async def test_a_body_that_grows_is_cut_off(socket_path: Path) -> None:
    recorder = Recorder()
    async with serving(build_app({"recorder": recorder}), socket_path), raw(socket_path) as (_, writer):
        writer.write(HALF_CHUNK)
        sent, chunk = 0, b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while sent < 400 << 20:
                    writer.write(chunk)
                    await writer.drain()
                    sent += len(chunk)
        assert BODY_LIMIT < sent < 4 * BODY_LIMIT
    assert recorder.calls == []


async def test_a_body_of_the_greatest_size_is_read(socket_path: Path) -> None:
    recorder = Recorder()
    async with serving(build_app({"recorder": recorder}), socket_path):
        body = b"{}".ljust(BODY_LIMIT)
        head = f"POST /v1/recorder/describe HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert (await ask(socket_path, head + body))[0] == 200
    assert len(recorder.calls) == 1


def post(path: str, **body: object) -> bytes:
    content = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


@pytest.mark.parametrize(
    ("request_", "property"),
    [
        (post("/v1/recorder/streams/orders/replays", start={"lsn": "1"}, key="k" * 2001), "key"),
        (post("/v1/recorder/streams/orders/replays", start={"lsn": "1"}, key="k", target="/" * 2001), "target"),
        (post("/v1/recorder/describe", names=["a" * 2001]), "names.0"),
        (f"GET /v1/recorder/streams/{'a' * 2001}/status HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "name"),
        (f"GET /v1/recorder/streams/a/replays/{'k' * 2001} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "key"),
        (f"GET /v1/{'k' * 2001}/streams HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "kind"),
    ],
    ids=["a key", "a target", "one of several names", "a name", "a key that is asked for", "a backend"],
)
async def test_what_is_too_long_is_refused_by_its_name(socket_path: Path, request_: bytes, property: str) -> None:
    recorder = Recorder()
    async with serving(build_app({"recorder": recorder}), socket_path):
        status, _, body = await ask(socket_path, request_)
    assert (status, body["code"], body["property"]) == (422, InvalidStream.code, property)
    assert len(json.dumps(body)) < 500
    assert recorder.calls == []


async def test_a_client_of_ours_sends_nothing_that_is_too_large(socket_path: Path) -> None:
    recorder = Recorder()
    async with serving(build_app({"recorder": recorder}), socket_path), connected(socket_path) as client:
        for call in (
            client.replay("orders", START, key="k" * 20_000_000),
            client.get_replay("orders", "k" * 20_000_000),
            client.get_status("o" * 20_000_000),
            client.describe([f"stream-{number}" for number in range(100_000)]),
        ):
            with pytest.raises(InvalidStream) as refused:
                await call
            assert len(str(refused.value)) < 500
        with pytest.raises(InvalidStream, match="cannot be a key"):
            await client.get_replay("orders", "\ud800")
    assert recorder.calls == []


@pytest.mark.parametrize(
    "garbage",
    [b"hello\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01" * 50,
     b"GET / HTTP/1.1\r\nX: " + b"a" * (HEAD_LIMIT + 10)],
)  # fmt: skip
async def test_what_is_no_request_has_an_answer_of_ours(
    socket_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(build_app({}), socket_path):
        status, headers, body = await ask(socket_path, garbage)
    assert (status, body["code"], headers["connection"]) == (400, InvalidStream.code, "close")
    assert headers[PROTOCOL_HEADER.lower()]
    assert not caplog.records


@pytest.mark.parametrize("pause", [0.0, 0.1])
@pytest.mark.parametrize("head", [HALF_CHUNK, INFO.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")])
async def test_a_body_that_breaks_while_its_call_runs_is_answered_once(
    socket_path: Path, caplog: pytest.LogCaptureFixture, head: bytes, pause: float
) -> None:
    async with serving(build_app({"recorder": Recorder()}), socket_path), raw(socket_path) as (reader, writer):
        if pause:
            writer.write(head)
            await asyncio.sleep(pause)  # the call begins before its body breaks
        writer.write(b"no number\r\n" if pause else head + b"no number\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    assert answer.count(b"HTTP/1.1") == 1
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("spoken", ["9" * 5000, "²", "-1", "1.5", "", "٣"])
async def test_a_protocol_that_is_no_number_is_refused(socket_path: Path, spoken: str) -> None:
    async with serving(build_app({}), socket_path):
        head = f"GET /v1/info HTTP/1.1\r\nHost: a\r\n{PROTOCOL_HEADER}: {spoken}\r\n\r\n"
        status, _, body = await ask(socket_path, head.encode())
    assert (status, body["code"]) == (409, "RPL-AGENT-VERSION")


async def test_operations_that_nobody_asks_for_have_a_limit(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 3)
    recorder = Recorder(gate=(gate := asyncio.Event()))
    begin = STATUS_OF_ORDERS[:-2] + b"Prefer: respond-async, wait=0\r\n\r\n"
    async with serving(build_app({"recorder": recorder}), socket_path):
        assert [(await ask(socket_path, begin))[0] for _ in range(3)] == [routes.ACCEPTED] * 3
        status, _, body = await ask(socket_path, begin)
        assert (status, body["code"]) == (503, AgentFault.code)
        gate.set()
        await asyncio.sleep(0.1)
        assert (await ask(socket_path, begin))[0] in (200, routes.ACCEPTED)
    assert len(recorder.calls) == 4


@pytest.mark.parametrize(("limit", "most"), [(60, 15), (8, 4), (100_000, 512), (-1, 512)])
def test_connections_are_a_share_of_the_descriptors(monkeypatch: pytest.MonkeyPatch, limit: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert inbound.most_connections() == most


async def test_an_error_of_the_system_while_accepting_is_logged_once_and_passes(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    accept, fail = loop.sock_accept, True

    async def exhausted(sock: socket.socket) -> Any:
        if fail:
            raise OSError(24, "Too many open files")
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", exhausted)
    monkeypatch.setattr(inbound, "_PAUSE", 0.01)
    async with serving(build_app({}), socket_path):
        asking = asyncio.create_task(ask(socket_path, INFO))
        await asyncio.sleep(0.5)
        fail = False
        assert (await asking)[0] == 200
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert "Too many open files" in caplog.text


@pytest.fixture
def without_limits(monkeypatch: pytest.MonkeyPatch, soon: None) -> Iterator[Callable[[], None]]:
    """Connections as uvicorn has them."""
    for name in ("connection_made", "data_received", "on_response_complete", "pause_writing", "resume_writing"):
        monkeypatch.setattr(Inbound, name, getattr(H11Protocol, name))
    return iter([lambda: None])


@pytest.mark.usefixtures("without_limits")
async def test_uvicorn_alone_waits_without_end(socket_path: Path) -> None:
    """The negative control."""
    async with serving(build_app({"recorder": Recorder()}), socket_path), raw(socket_path) as (reader, writer):
        writer.write(HALF_BODY)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5 * SOON):
                await is_closed(reader)
