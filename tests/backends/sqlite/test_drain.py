"""A delete while changes are not at the destination: it uploads them, or fails and leaves the stream as it is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import parse_replica
from replicator.errors import EngineUnavailable
from replicator.model import Owner, Stream, StreamState

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, restored_hash, state_is
from tests.backends.sqlite.conftest import BUCKET, SECRET
from tests.engines import S3Identity, S3Server, add_rows, make_database

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

OWNER = Owner(urn=URN)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.db", rows=5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Server]:
    """A store of this test alone, whose owner is the agent's."""
    server = S3Server(tmp_path / "s3", owner=S3Identity("OWNERKEY", SECRET))
    server.start()
    server.make_bucket(BUCKET)
    yield server
    server.kill()


@contextmanager
def down(store: S3Server, how: str) -> Iterator[None]:
    """The store hangs, or refuses connections."""
    if how == "hangs":
        with store.frozen():
            yield
    else:
        store.kill()
        yield
        store.start()


async def assert_whole(command: CommandLine, stream: Stream, database: Path) -> None:
    url = parse_replica(stream.destination.uri).url_for_engine()
    copy = database.with_name("copy.db")
    assert await restored_hash(command, url, copy) == await content_hash(database)


@pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "500ms"}], ids=["shared", "own"])
@pytest.mark.parametrize("how", ["hangs", "refuses"])
async def test_a_delete_without_its_last_changes_fails_and_the_stream_goes_on(
    agent: Agent, command_line: CommandLine, database: Path, store: S3Server, how: str, changes: dict[str, str]
) -> None:
    stream = declare("orders", database, store.url(BUCKET, "orders"), **changes)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    with down(store, how):
        add_rows(database, 20)
        with pytest.raises(EngineUnavailable, match="last changes are not at the destination") as refused:
            await agent.driver.delete_stream("orders", owner=OWNER)
        assert "drainBeforeDelete: skip" in str(refused.value.fix)
        (kept,) = await agent.driver.list_streams()
        assert kept.owner is not None and kept.owner.urn == URN
        await state_is(agent.driver, "orders", StreamState.FAILED)
    await caught_up(agent.driver, "orders", timeout=90)
    await assert_whole(command_line, stream, database)
    add_rows(database, 20)
    await agent.driver.delete_stream("orders", owner=OWNER)
    assert await agent.driver.list_streams() == []
    await assert_whole(command_line, stream, database)


async def test_what_an_agent_could_not_take_up_is_not_deleted_either(
    agent: Agent, command_line: CommandLine, database: Path, store: S3Server
) -> None:
    """The agent was started while the store was down, so no process has the database."""
    stream = declare("orders", database, store.url(BUCKET, "orders"))
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    with down(store, "refuses"):
        add_rows(database, 20)
        await agent.stop()
        await agent.start()
        with pytest.raises(EngineUnavailable, match="last changes are not at the destination"):
            await agent.driver.delete_stream("orders", owner=OWNER)
    await agent.driver.delete_stream("orders", owner=OWNER)
    await assert_whole(command_line, stream, database)


@pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "500ms"}], ids=["shared", "own"])
async def test_a_delete_uploads_with_another_process_where_litestream_has_just_died(
    agent: Agent, command_line: CommandLine, database: Path, place: str, changes: dict[str, str]
) -> None:
    stream = declare("orders", database, place, **changes)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    add_rows(database, 20)
    for pid in agent.pids:
        os.kill(pid, signal.SIGKILL)
    await agent.driver.delete_stream("orders", owner=OWNER)
    assert await agent.driver.list_streams() == []
    await assert_whole(command_line, stream, database)


async def test_skip_deletes_without_the_store_also_where_the_update_that_says_so_fails(
    agent: Agent, database: Path, store: S3Server
) -> None:
    stream = declare("orders", database, store.url(BUCKET, "orders"))
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    with down(store, "refuses"):
        add_rows(database, 20)
        with pytest.raises(EngineUnavailable):
            await agent.driver.delete_stream("orders", owner=OWNER)
        with pytest.raises(EngineUnavailable):
            settings = {"drainBeforeDelete": "skip", "checkpointInterval": "2s"}
            await agent.driver.upsert_stream(declare("orders", database, store.url(BUCKET, "orders"), **settings))
        began = time.monotonic()
        await agent.driver.delete_stream("orders", owner=OWNER)
        assert time.monotonic() - began < 10
        assert await agent.driver.list_streams() == []


async def test_a_purge_that_cannot_reach_the_store_leaves_the_stream(
    agent: Agent, command_line: CommandLine, database: Path, store: S3Server
) -> None:
    stream = declare("orders", database, store.url(BUCKET, "orders"), purgeDestination=True)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    with down(store, "refuses"):
        with pytest.raises(EngineUnavailable):
            await agent.driver.delete_stream("orders", owner=OWNER)
        add_rows(database, 20)
    await caught_up(agent.driver, "orders", timeout=90)
    await assert_whole(command_line, stream, database)
    await agent.driver.delete_stream("orders", owner=OWNER)
    assert [key for key in store.keys(BUCKET, "orders/") if key.endswith(".ltx")] == []


@pytest.mark.parametrize("file", ["gone", "swapped"])
async def test_a_stream_whose_database_is_gone_is_deleted(agent: Agent, database: Path, place: str, file: str) -> None:
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    for side in ("", "-wal", "-shm"):
        database.with_name(f"shop.db{side}").unlink(missing_ok=True)
    if file == "swapped":
        make_database(database.with_name("other.db")).rename(database)
    await state_is(agent.driver, "orders", StreamState.FAILED)
    await agent.driver.delete_stream("orders", owner=OWNER)
    assert await agent.driver.list_streams() == []
