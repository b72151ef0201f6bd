"""Damaged requests to an agent's socket: each has an answer of ours, or is cut off, and the next client is served."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11
import pytest
from hypothesis import strategies as st
from replicator.agent.child import launcher
from replicator.agent.registry import FileStore
from replicator.backends.memory import MemoryReplicator
from replicator.backends.sqlite.driver import SqliteDriver
from replicator.errors import BY_CODE
from replicator.remote.inbound import WITHIN, Waiting
from replicator.remote.routes import OPERATION_PATH, OPERATIONS, PROTOCOL_HEADER, Fault
from replicator.remote.server import build_app

from tests.fuzz.damage import JUNK, damaged, run, texts
from tests.fuzz.test_records import STREAM
from tests.remote.support import connected, serving

AT_ONCE = 25  # requests, each on a connection of its own
_START = {"lsn": "0000000000000007", "wall": "2026-01-31T12:00:00Z"}
BODIES: dict[str, dict[str, Any]] = {
    "upsert_stream": {"stream": STREAM},
    "adopt_stream": {"stream": STREAM, "dryRun": True},
    "propose": {"name": "orders", "source": {"authRef": "env://PG_*"}, "destination": {}},
    "delete_stream": {"owner": STREAM["owner"]},
    "plan_replay": {"start": _START, "method": "copy", "target": "/nowhere/copy.db"},
    "replay": {"start": _START, "method": "auto", "target": None, "key": "k"},
    "preflight": {"stream": STREAM},
    "describe": {"names": ["orders", "users"]},
}
WORDS = st.one_of(
    st.sampled_from(["orders", "users", "memory", "litestream", "k", "a/b", "..", "%00", "%", "ü", "a" * 3000]),
    st.text(max_size=10),
)
HEADERS = st.one_of(
    st.tuples(st.just(PROTOCOL_HEADER), st.sampled_from(["1", "2", "3", "0", "x", "9" * 5000])),
    st.tuples(st.just("Prefer"), st.sampled_from(["respond-async, wait=0", "respond-async, wait=999", "wait", ""])),
    st.tuples(st.just("Connection"), st.sampled_from(["close", "upgrade", "keep-alive"])),
    st.tuples(st.just("Upgrade"), st.just("websocket")),
    st.tuples(st.just("Expect"), st.just("100-continue")),
    st.tuples(st.just("Transfer-Encoding"), st.sampled_from(["chunked", "gzip"])),
    st.tuples(st.just("Content-Length"), st.sampled_from(["0", "7", "-1", "99999999999", "x"])),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request to one of the operations, of which something may be wrong."""
    row = draw(st.sampled_from(OPERATIONS))
    path = draw(st.sampled_from([row.path] * 8 + [OPERATION_PATH, "/", "/v2/x"]))
    good = {"{kind}": draw(st.sampled_from(["memory", "litestream"])), "{name}": "orders", "{key:path}": "k"}
    for place, word in (good | {"{operation}": "0" * 32}).items():
        if place in path:
            path = path.replace(place, quote(draw(WORDS), safe="/") if draw(st.integers(0, 9)) == 0 else word)
    body = b""
    if row.method in BODIES:
        body = draw(texts(BODIES[row.method]))
        if draw(st.integers(0, 19)) == 0:
            body = json.dumps(draw(JUNK)).encode()
    lines = [f"{draw(st.sampled_from([row.verb] * 9 + ['HEAD']))} {path} HTTP/1.1", "Host: a"]
    lines += [f"{name}: {value}" for name, value in draw(st.lists(HEADERS, max_size=2))]
    if not any(line.startswith(("Content-Length", "Transfer")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    whole = "\r\n".join([*lines, "", ""]).encode() + body
    return draw(damaged(whole)) if draw(st.integers(0, 3)) == 0 else whole


async def exchange(path: Path, request: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """The answers to what is sent on one connection, until it is closed by the server, or idle."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    received = bytearray()
    try:
        with suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
            while part := await reader.read(65536):
                received += part
    finally:
        writer.transport.abort()
    client, answers = h11.Connection(h11.CLIENT), []
    method = request.split(b" ")[0]
    client.send(h11.Request(method="HEAD" if method == b"HEAD" else "GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(bytes(received))
    if received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"):
        answer, body = None, b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, bytes(received)
            if isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        assert answer is not None
        answers.append((answer.status_code, dict(answer.headers), body if method != b"HEAD" else b""))
    return answers


def check_answer(status: int, headers: dict[bytes, bytes], body: bytes) -> None:
    """It is an answer of the agent; an error in it is one of the catalogue, and one that the agent expects."""
    assert PROTOCOL_HEADER.lower().encode() in headers, status
    if status < 400:
        json.loads(body or b"null")
    elif body:
        fault = Fault.model_validate_json(body)
        assert fault.code in BY_CODE
        assert "did not expect" not in fault.message, fault
        assert len(fault.message) < 10_000
    else:
        assert status in (410, 499) or headers.get(b"content-length") != b"0"


@pytest.mark.parametrize(
    ("count", "seeded"),
    [(1_000, True), pytest.param(40_000, False, marks=[pytest.mark.proof, pytest.mark.timeout(1800)])],
)
def test_damaged_requests_are_answered_or_cut_off(
    tmp_path: Path, count: int, seeded: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for what in Waiting:
        monkeypatch.setitem(WITHIN, what, 0.05)
    caplog.set_level(logging.WARNING)
    socket_path = tmp_path / "s"
    driver = SqliteDriver(tmp_path / "engine", tmp_path / "d", FileStore(tmp_path / "r"), launcher(str), environ={})
    app = build_app({"memory": MemoryReplicator(), "litestream": driver})

    with asyncio.Runner() as runner:
        server = serving(app, socket_path)
        runner.run(server.__aenter__())

        async def send(batch: list[bytes]) -> None:
            async with asyncio.timeout(30):
                for answers in await asyncio.gather(*(exchange(socket_path, request) for request in batch)):
                    for answer in answers:
                        check_answer(*answer)
                async with connected(socket_path, "memory") as client:
                    assert (await client.info()).kinds == ["litestream", "memory"]
            unexpected = [record.getMessage() for record in caplog.records if record.exc_info]
            assert not unexpected

        try:
            batches = st.lists(requests(), min_size=AT_ONCE, max_size=AT_ONCE)
            run(batches, lambda batch: runner.run(send(batch)), count // AT_ONCE, seeded=seeded)
        finally:
            runner.run(server.__aexit__(None, None, None))
            runner.run(driver.aclose())
