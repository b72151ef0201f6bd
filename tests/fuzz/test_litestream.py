"""Damaged answers of litestream: each is read or is an error of the engine, and a stream always has a status."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from replicator.backends.sqlite.daemon_process import Control, DaemonProcess, ReplicationJob
from replicator.backends.sqlite.health import Health
from replicator.backends.sqlite.litestream import EngineError
from replicator.backends.sqlite.process_log import KeptLines
from replicator.backends.sqlite.record import StreamRecord
from replicator.backends.sqlite.replica import parse_replica
from replicator.backends.sqlite.status import ask, status_of
from replicator.http_unix import BrokenError, ConnectError, Response, UnixTransport
from replicator.model import StreamStatus

from tests.fuzz.damage import damaged, run, texts
from tests.fuzz.test_records import RECORD

AT = "2026-01-31T12:00:00.5Z"
DATABASE = Path("/nowhere/shop.db")
LISTED = {"path": str(DATABASE), "status": "replicating", "last_sync_at": AT}
ACTIVITY = {
    "path": str(DATABASE),
    "active": False,
    "operation": "sync",
    "phase": "upload",
    "started_at": AT,
    "updated_at": AT,
    "txid": 7,
    "wal_size": 4152,
    "error": None,
}
ANSWERS: dict[str, dict[str, Any]] = {
    "/list": {"databases": [LISTED, {**LISTED, "path": "/nowhere/other.db", "last_sync_at": None}]},
    "/sync": {"status": "synced", "path": str(DATABASE), "txid": 7, "replicated_txid": 6},
    "/txid": {"txid": 7},
    "/info": {"version": "0.5.17", "pid": 7, "started_at": AT, "database_count": 2},
    "/debug/sync-status": {"databases": [ACTIVITY]},
    "/register": {"status": "registered", "path": str(DATABASE)},
    "/unregister": {"status": "unregistered", "path": str(DATABASE), "txid": 7},
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
MANY = pytest.mark.parametrize(
    ("count", "seeded"),
    [(200, True), pytest.param(10_000, False, marks=[pytest.mark.proof, pytest.mark.timeout(1800)])],
)


class Said(UnixTransport):
    """What the process says to each question, without a process."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere/socket"))
        self.says: dict[str, tuple[int, bytes]] = {}

    async def request(self, verb: str, path: str, headers: Mapping[str, str], content: bytes) -> Response:
        del verb, headers, content
        status, said = self.says[path.partition("?")[0]]
        return Response(status, {}, said)


class Away:
    """A process that moves no data."""

    last_error: str | None = None
    pid: int | None = None
    said = ()
    log: KeptLines

    async def start(self) -> None: ...

    async def wait_ready(self, timeout: float | None) -> None: ...

    async def stop(self) -> None: ...


@MANY
def test_a_damaged_answer_is_read_or_an_error(count: int, seeded: bool) -> None:
    said = Said()
    control = Control(Path("/nowhere/socket"))
    control._http = said
    job = ReplicationJob("orders", DATABASE, parse_replica("file:///nowhere/orders"), None)
    record = StreamRecord.model_validate({**RECORD, "paused": False, "replays": {}})

    async def look() -> StreamStatus:
        for question in (
            control.txid(DATABASE),
            control.info(),
            control.sync_status(),
            control.register(DATABASE, "file:///nowhere/orders"),
            control.unregister(DATABASE, timeout=1),
        ):
            with suppress(EngineError):
                await question
        daemon, now = DaemonProcess("key", control), datetime.now(UTC)
        daemon.process = Away()
        daemon.jobs["orders"] = job
        daemon.enter(job, 0)
        listed = (await daemon.listing(1.0)).get(DATABASE)
        answer = await ask(daemon, job, listed, now)
        return await status_of(record, Health("orders"), DATABASE, answer, now, moving=False)

    with asyncio.Runner() as runner:

        def check(says: dict[str, tuple[int, bytes]]) -> None:
            said.says = says
            status = runner.run(look())
            assert StreamStatus.model_validate_json(status.model_dump_json()) == status

        statuses = st.sampled_from([200] * 8 + [400, 500])
        answers = st.fixed_dictionaries({path: st.tuples(statuses, texts(whole)) for path, whole in ANSWERS.items()})
        run(answers, check, count, seeded=seeded)


@contextmanager
def saying(path: Path, says: dict[str, bytes]) -> Iterator[None]:
    """A server on a Unix socket that answers each connection once, and closes it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(says["now"])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@MANY
def test_damaged_http_is_an_answer_or_an_error(tmp_path: Path, count: int, seeded: bool) -> None:
    says: dict[str, bytes] = {}
    body = json.dumps(ANSWERS["/txid"]).encode()
    path = tmp_path / "s"
    exchange = UnixTransport(path)

    async def ask_once() -> None:
        async with asyncio.timeout(20):
            try:
                reply = await exchange.request("GET", "/txid", {}, b"")
            except (ConnectError, BrokenError):
                return
        assert len(reply.content) <= len(says["now"])

    async def close() -> None:
        await exchange.aclose()

    with saying(path, says), asyncio.Runner() as runner:

        def check(content: bytes) -> None:
            says["now"] = content
            runner.run(ask_once())

        run(damaged(HEAD % len(body) + body), check, count, seeded=seeded)
        runner.run(close())
