"""A store that goes away and comes back: the stream says so, goes on by itself, and has lost nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from replicator.backends.sqlite import guards
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine, find_binary
from replicator.backends.sqlite.replica import S3Credentials, engine_environment
from replicator.errors import Category, ReplicatorError
from replicator.model import StreamState

from tests.backends.sqlite.agents import Agent, caught_up, declare, replica_url, restored_hash, state_is
from tests.backends.sqlite.conftest import BUCKET
from tests.engines import S3Server, make_database

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def sell(database: Path, count: int) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as shop:
        shop.execute("PRAGMA journal_mode = wal")
        shop.execute("CREATE TABLE IF NOT EXISTS orders (item TEXT)")
        for _ in range(count):
            shop.execute("INSERT INTO orders VALUES (hex(randomblob(20)))")


async def test_a_dead_store_shows_and_heals(s3: S3Server, credentials: S3Credentials) -> None:
    environ = {
        "OWNER_ACCESS_KEY_ID": credentials.access_key_id,
        "OWNER_SECRET_ACCESS_KEY": credentials.secret_access_key,
    }
    with tempfile.TemporaryDirectory(prefix="o") as name:
        folder, binary = Path(name), (await find_binary()).path
        database = folder / "shop.db"
        sell(database, 20)
        agent = Agent(binary, folder / "agent", environ)
        driver = await agent.start()
        try:
            await driver.upsert_stream(declare("orders", database, s3.url(BUCKET, "outage")))
            await caught_up(driver, "orders")
            with s3.frozen():
                sell(database, 20)
                status = await state_is(driver, "orders", StreamState.FAILED, timeout=30)
                assert status.last_error
                refused = declare("bills", folder / "bills.db", s3.url(BUCKET, "outage-bills"))
                sell(folder / "bills.db", 1)
                with pytest.raises(ReplicatorError) as error:
                    await driver.upsert_stream(refused)
                assert error.value.category is Category.UNAVAILABLE
                assert [stream.name for stream in await driver.list_streams()] == ["orders"]
            sell(database, 20)
            await caught_up(driver, "orders", timeout=90)
            command = CommandLine(binary, engine_environment(credentials))
            copy = folder / "copy.db"
            assert await restored_hash(command, await replica_url(driver, "orders"), copy) == await content_hash(
                database
            )
        finally:
            await asyncio.shield(agent.stop())


async def test_an_idle_stream_tells_that_its_store_is_away(
    agent: Agent, tmp_path: Path, s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "STORE_EVERY", 2.0)
    monkeypatch.setattr(guards, "_STORE_AGAIN", 1.0)
    await agent.driver.upsert_stream(declare("orders", make_database(tmp_path / "shop.db"), place))
    await caught_up(agent.driver, "orders")
    with s3.frozen():
        away = await state_is(agent.driver, "orders", StreamState.FAILED, timeout=40)
        assert "its store has not answered since 20" in str(away.last_error)
    await state_is(agent.driver, "orders", StreamState.RUNNING, timeout=40)
