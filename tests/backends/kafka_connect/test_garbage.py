"""A worker, or what stands at its address, that answers slowly, without end, or with garbage."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.kafka_connect import rest as rest_module
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.rest import Repeat
from replicator.errors import EngineRefused, EngineUnavailable, WaitTimeout

from tests.backends.kafka_connect.conftest import OpenCluster, OpenRest

Answers = Callable[[str], bytes]
SOON = 10.0  # seconds; without an end of its own, a call waits far longer


def http(body: bytes, *, status: int = 200, kind: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def fake(
    answers: Answers, *, every: float = 0.0, at_once: int = 0, path: Path | None = None
) -> AsyncIterator[str]:
    """The URL of a server that answers each path with these bytes; with `path`, it listens on that Unix socket.

    :param every: seconds between two bytes; 0 sends all at once.
    :param at_once: bytes of each answer that come before the first pause.
    """
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((line.split()[1] for line in head.lower().split("\r\n") if "content-length" in line), "0")
                await reader.readexactly(int(length))
                answer = answers(head.split()[1])
                whole = at_once if every else len(answer)
                for piece in (answer[:whole], *(answer[at : at + 1] for at in range(whole, len(answer)))):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(every)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            serving.discard(task)
            writer.close()

    start = asyncio.start_server(serve, "127.0.0.1", 0) if path is None else asyncio.start_unix_server(serve, path)
    server = await start
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" if path is None else str(path)
    finally:
        server.close()
        for task in serving:
            task.cancel()


@pytest.mark.parametrize("at_once", [0, 100], ids=["its head too", "its body alone"])
async def test_an_answer_that_drips_has_an_end(
    open_rest: OpenRest, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    assert rest_module._WHOLE_WITHIN == 60
    monkeypatch.setattr(rest_module, "_WHOLE_WITHIN", 0.5)
    async with fake(lambda _: http(b" " * 10_000), every=0.02, at_once=at_once) as url:
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match="did not end its answer within") as late:
            async with asyncio.timeout(SOON):
                await open_rest(url).call("GET", "/", repeat=Repeat.SAFE, patience=0)
        assert time.monotonic() - started < SOON / 2
        assert url in late.value.message


async def test_the_next_worker_is_asked_where_one_drips(open_rest: OpenRest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_module, "_WHOLE_WITHIN", 0.5)
    async with fake(lambda _: http(b" " * 10_000), every=0.02) as slow, fake(lambda _: http(b"{}")) as good:
        async with asyncio.timeout(SOON):
            answer = await open_rest(slow, good).call("GET", "/", repeat=Repeat.SAFE, patience=0)
        assert answer.worker == good


def bomb(size: int) -> bytes:
    packer, piece = zlib.compressobj(9, wbits=zlib.MAX_WBITS + 16), bytes(1 << 20)
    return b"".join([*(packer.compress(piece) for _ in range(size >> 20)), packer.flush()])


@pytest.mark.parametrize("packed", [True, False])
async def test_an_answer_without_end_takes_bounded_memory(open_rest: OpenRest, packed: bool) -> None:
    assert rest_module._BODY_LIMIT == 64 << 20
    answer = http(bomb(400 << 20), Content_Encoding="gzip") if packed else http(bytes(80 << 20))
    async with fake(lambda _: answer) as url:
        tracemalloc.start()
        try:
            with pytest.raises(
                EngineRefused, match=r"does not answer as Kafka Connect does \(HTTP 200, and more than 64"
            ):
                await open_rest(url).call("GET", "/", repeat=Repeat.SAFE, patience=0)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 256 << 20


async def test_a_packed_answer_is_read(open_rest: OpenRest) -> None:
    async with fake(lambda _: http(gzip.compress(b'{"version":"4"}'), Content_Encoding="gzip")) as url:
        assert (await open_rest(url).call("GET", "/", repeat=Repeat.SAFE, patience=0)).body == {"version": "4"}


GARBAGE = {
    "text": http(b"hello"),
    "HTML": http(b"<html>hello</html>", kind="text/html"),
    "bytes": http(bytes(range(256))),
    "a number": http(b"7"),
    "null": http(b"null"),
    "a text": http(b'"hello"'),
    "a list": http(b'[{"a": 1}]'),
    "null inside": http(b'{"a": null, "offsets": null, "configs": null}'),
    "numbers inside": http(b'{"a": 7, "offsets": 7, "version": 7, "connector": 7, "config": 7}'),
    "half of an object": http(b'{"a": {"info": '),
    "lists in lists": http(b"[" * 200_000),
    "a number without end": http(b"9" * 10_000),
    "no gzip": http(b"hello", Content_Encoding="gzip"),
    "half of a gzip": http(gzip.compress(b'{"a": 7}')[:12], Content_Encoding="gzip"),
    "an encoding that nobody asked for": http(b"hello", Content_Encoding="br"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an error that is none": http(b'{"error_code": {"a": 7}, "message": ["b"]}', status=500),
}
QUESTIONS: dict[str, Callable[[ConnectCluster], Awaitable[object]]] = {
    "identity": lambda cluster: cluster.identity(),
    "listing": lambda cluster: cluster.listing(),
    "get": lambda cluster: cluster.get("a"),
    "offsets": lambda cluster: cluster.offsets("a"),
    "wait": lambda cluster: cluster.wait_running("a", 2),
    "validate": lambda cluster: cluster.validate("A", {"name": "a"}),
    "resolves": lambda cluster: cluster.resolves(["${env:A}"], "A", "a"),
    "put": lambda cluster: cluster.put_config("a", {"connector.class": "A"}, 1),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_an_error_of_ours(
    open_cluster: OpenCluster, monkeypatch: pytest.MonkeyPatch, garbage: str, question: str
) -> None:
    """Or an answer without what is garbage in it; never an error that nobody expects."""
    monkeypatch.setattr(rest_module, "_FAULTS_FOR", 0.2)
    async with fake(lambda _: GARBAGE[garbage]) as url:
        cluster = open_cluster(url, patience=0.2)
        try:
            async with asyncio.timeout(SOON):
                found = await QUESTIONS[question](cluster)
        except (EngineRefused, EngineUnavailable, WaitTimeout) as error:
            assert url in str(error) or "Kafka Connect" in str(error) or "connector 'a'" in str(error)
        else:
            assert question == "listing" and all(item.failed for item in found.values()), found  # type: ignore[attr-defined]


def item(name: str, **changes: Any) -> dict[str, Any]:
    status = {"name": name, "type": "source", "connector": {"state": "RUNNING"}, "tasks": []}
    return {"info": {"name": name, "type": "source", "config": {"name": name}}, "status": status} | changes


async def test_what_is_malformed_of_one_connector_hides_no_other(open_cluster: OpenCluster) -> None:
    listed = {
        "good": item("good"),
        "no-status": item("no-status", status={"connector": 7}),
        "no-info": item("no-info", info=[1]),
        "nothing": 7,
        "null-config": item("null-config", info={"name": "null-config", "type": "source", "config": None}),
        "no-config": item("no-config", info={"name": "no-config", "type": "source", "config": {"a": {"b": 7}}}),
    }
    answers = {"/health": {"status": "healthy"}, "/connectors": listed}
    async with fake(lambda path: http(json.dumps(answers[path.partition("?")[0]]).encode())) as url:
        found = await open_cluster(url).listing()
    assert not found["good"].failed and found["good"].config == {"name": "good"}
    assert {name for name, connector in found.items() if connector.failed} == listed.keys() - {"good"}
    assert found["no-status"].config == {"name": "no-status"}
    assert found["no-status"].trace == "what Kafka Connect tells of this connector cannot be read"
