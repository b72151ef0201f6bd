"""What answers on litestream's socket and is no litestream, or one that answers garbage."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from replicator import http_unix
from replicator.backends.sqlite.daemon_process import Control
from replicator.backends.sqlite.litestream import CommandLine, EngineError, EngineGarbled, EngineUnreachable
from replicator.errors import EngineRefused, ReplicatorError
from replicator.model import Checkpoint, StreamState

from tests.backends.kafka_connect.test_garbage import GARBAGE as WHOLE_ANSWERS
from tests.backends.kafka_connect.test_garbage import fake, http
from tests.backends.sqlite.agents import Agent, caught_up, declare, state_is
from tests.engines import add_rows, make_database

DATABASE = Path("/srv/shop.db")
QUESTIONS: dict[str, Callable[[Control], Awaitable[object]]] = {
    "register": lambda control: control.register(DATABASE, "file:///r"),
    "unregister": lambda control: control.unregister(DATABASE, timeout=1),
    "txid": lambda control: control.txid(DATABASE),
    "list": lambda control: control.list_databases(),
    "info": lambda control: control.info(),
    "sync status": lambda control: control.sync_status(),
    "progress": lambda control: control.progress(DATABASE, timeout=1),
}
TIMES = ["not a time", "0001-01-01T00:00:00+14:00", 7, {}]
GARBAGE = WHOLE_ANSWERS | {
    "wrong types": http(
        b'{"path": 7, "status": [], "txid": "7", "replicated_txid": [], "databases": 7, "pid": "7", "started_at": 7}'
    ),
    "fractions": http(b'{"path": null, "status": "ok", "txid": 1.5, "replicated_txid": true, "pid": 1.5}'),
    "numbers out of range": http(
        b'{"path": null, "status": "ok", "txid": -1, "replicated_txid": 9223372036854775808, "pid": -7, '
        b'"started_at": "2026-01-31T12:00:00Z", "database_count": 1, "databases": null}'
    ),
    "more than it needs": http(b'{"a": 7}') + http(b'{"b": 7}'),
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "an error without a text": http(b'{"error": {"a": 7}, "details": 7}', status=500),
    "an error in depth": http(b"[" * 200_000, status=500),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_an_error_of_the_engine(short_folder: Path, garbage: str, question: str) -> None:
    async with fake(lambda _: GARBAGE[garbage], path=short_folder / "s"), Control(short_folder / "s") as control:
        for _ in range(2):  # the second request may find the rest of the first answer
            with pytest.raises(EngineError) as refused:
                await QUESTIONS[question](control)
            assert len(str(refused.value)) < 3000
            expected = EngineUnreachable if garbage in UNHEARD else EngineGarbled
            assert type(refused.value) is (EngineError if refused.value.status == 500 else expected)


UNHEARD = {"no HTTP", "a switch of protocols"}


async def test_an_answer_without_end_is_given_up(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert http_unix._BODY_LIMIT == 64 << 20
    monkeypatch.setattr(http_unix, "_BODY_LIMIT", 10_000)
    async with fake(lambda _: http(b" " * 1_000_000), path=short_folder / "s"), Control(short_folder / "s") as control:
        with pytest.raises(EngineUnreachable, match="more than 10000 bytes"):
            await control.info()


async def test_the_rest_of_an_answer_is_not_taken_for_the_next_one(short_folder: Path) -> None:
    both = http(b'{"txid": 7}') + http(b'{"txid": 8}')
    async with fake(lambda _: both, path=short_folder / "s"), Control(short_folder / "s") as control:
        assert [await control.txid(DATABASE) for _ in range(3)] == [7, 7, 7]


async def test_what_is_malformed_of_one_database_hides_no_other(short_folder: Path) -> None:
    def listed(**changes: Any) -> dict[str, Any]:
        return {"path": "/srv/good.db", "status": "replicating", "last_sync_at": None} | changes

    bad: list[Any] = [
        listed(path=None),
        listed(path=7),
        7,
        None,
        [],
        {},
        *(listed(last_sync_at=time) for time in TIMES[:3]),
    ]
    body = json.dumps({"databases": [*bad, listed()]}).encode()
    async with fake(lambda _: http(body), path=short_folder / "s"), Control(short_folder / "s") as control:
        assert [item.path for item in await control.list_databases()] == [Path("/srv/good.db")]
        # Without `active` it says nothing of a sync.
        assert await control.sync_status() == {}


@pytest.mark.parametrize(
    "said", ["hello", "[7]", '[{"level": 0}]', '{"files": [7]}', '{"txid": "x"}', "[" * 100_000, "null", "7"]
)
async def test_garbage_of_a_command_is_an_error_of_the_engine(tmp_path: Path, said: str) -> None:
    program = tmp_path / "litestream"
    program.write_text(f"#!/bin/sh\nprintf %s '{said}'\n")
    program.chmod(0o755)
    command = CommandLine(program, {})
    with pytest.raises(EngineGarbled):
        await command.plan_restore("file:///r")
    with pytest.raises(EngineGarbled):
        await command.restore("file:///r", tmp_path / "copy.db")
    if said == "null":
        assert await command.ltx("file:///r") == []
    else:
        with pytest.raises(EngineGarbled):
            await command.ltx("file:///r")


@pytest.fixture
def answers() -> Iterator[dict[str, bytes]]:
    """What a process that answers garbage says to whatever it is asked."""
    yield {"now": b""}


@pytest.mark.engine
async def test_garbage_of_one_process_fails_its_own_stream_alone(
    agent: Agent, tmp_path: Path, answers: dict[str, bytes]
) -> None:
    shop, users = (make_database(tmp_path / f"{name}.db", rows=3) for name in ("shop", "users"))
    driver = agent.driver
    await driver.upsert_stream(declare("orders", shop, f"file://{tmp_path}/replicas/orders"))
    own = declare("users", users, f"file://{tmp_path}/replicas/users", checkpointInterval="2s")
    await driver.upsert_stream(own)
    daemon = driver._reconciler.daemons.of("orders")
    assert daemon is not None
    path = daemon.control._socket
    path.rename(path.with_name("away"))
    await daemon.control.aclose()
    async with fake(lambda _: answers["now"], path=path):
        for name in ("bytes", "a list", "wrong types", "lists in lists", "no HTTP", "null inside"):
            answers["now"] = GARBAGE[name]
            add_rows(users, 1)
            statuses = {item.status.name: item.status for item in await driver.describe()}
            assert statuses.keys() == {"orders", "users"}
            assert statuses["orders"].state in (StreamState.FAILED, StreamState.SNAPSHOT), name
            assert (await driver.get_status("orders")).lag_events is None
            await state_is(driver, "users", StreamState.RUNNING)
        with pytest.raises(ReplicatorError):
            await driver.plan_replay("orders", Checkpoint(lsn="00000000000000ff"))
        status = await state_is(driver, "orders", StreamState.FAILED)
        assert status.last_error
        with pytest.raises(ReplicatorError) as refused:
            await driver.upsert_stream(declare("orders", shop, f"file://{tmp_path}/replicas/other"))
        assert refused.value.stream == "orders"
        assert [stream.name for stream in await driver.list_streams()] == ["orders", "users"]
    await agent.stop()
    driver = await agent.start()
    await caught_up(driver, "orders")
    await caught_up(driver, "users")


@pytest.mark.engine
def test_the_error_names_what_is_wrong(agent: Agent) -> None:
    failure = agent.driver._reconciler.meaning(EngineGarbled("POST /sync", None, "its answer cannot be read"), "orders")
    assert isinstance(failure, EngineRefused)
    assert "is not litestream: its answer cannot be read" in failure.message
