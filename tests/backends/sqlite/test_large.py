"""A gigabyte over a narrow link, and hundreds of databases under one agent: for `make proof`.

REPLICATOR_LARGE_MB and REPLICATOR_DATABASES make them smaller.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import Binary, CommandLine
from replicator.backends.sqlite.replica import parse_replica
from replicator.model import StreamState

from tests.backends.sqlite.agents import Agent, caught_up, declare, restored_hash
from tests.backends.sqlite.conftest import TwoOwners
from tests.engines import add_rows, make_database
from tests.link import Link, link_to

pytestmark = [pytest.mark.engine, pytest.mark.proof]

MEGABYTES = int(os.environ.get("REPLICATOR_LARGE_MB", "1024"))
DATABASES = int(os.environ.get("REPLICATOR_DATABASES", "500"))
MB = 1_000_000
RATE = 2 * MB  # bytes a second
WIDE = 500 * MB
ROWS = 300_000  # bytes that each of many databases holds
AT_ONCE = 16
AFTERWARDS = 5  # databases of which the content is compared


@pytest.fixture
def link(s3: TwoOwners) -> Iterator[Link]:
    port = urlsplit(s3.endpoint).port
    assert port is not None
    with link_to(port, rate=WIDE) as made:
        yield made


def fill(database: Path, blobs: int, size: int) -> None:
    """Add rows that do not compress, a commit each."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as shop:
        shop.execute("CREATE TABLE IF NOT EXISTS photo (content)")
        for _ in range(blobs):
            shop.execute("INSERT INTO photo VALUES (randomblob(?))", (size,))


@pytest.mark.timeout(4 * MEGABYTES * MB // RATE + 600)
async def test_a_first_copy_over_a_narrow_link_is_sent_once(
    agent: Agent, command_line: CommandLine, tmp_path: Path, link: Link, place: str
) -> None:
    """It takes minutes; the application writes on, and what it has written is there as soon as the copy is."""
    database = make_database(tmp_path / "shop.db")
    await asyncio.to_thread(fill, database, MEGABYTES, MB)
    size = database.stat().st_size
    link.rate, link.delay = RATE, 0.2
    began = time.monotonic()
    await agent.driver.upsert_stream(declare("orders", database, link.url(place)))
    progress, longest = [0], 0.0
    while True:
        asked = time.monotonic()
        status = await agent.driver.get_status("orders")
        longest = max(longest, time.monotonic() - asked)
        if status.state is StreamState.RUNNING and status.lag_events == 0:
            break
        assert status.state in (StreamState.SNAPSHOT, StreamState.CATCHING_UP, StreamState.RUNNING), status
        assert status.last_error is None, status
        if status.state is StreamState.SNAPSHOT and status.uploaded_bytes is not None:
            progress.append(status.uploaded_bytes)
        await asyncio.to_thread(add_rows, database)
        await asyncio.sleep(1)
    took = time.monotonic() - began
    print(f"{size / MB:.0f} MB took {took:.0f} s, {link.sent / MB:.0f} MB were sent, a status {longest:.2f} s at most")
    assert progress == sorted(progress)
    assert progress[-1] > size / 2
    assert link.sent < 1.1 * size
    assert took > 0.8 * size / RATE, "the link was not narrow"
    assert longest < 3
    copy = tmp_path / "copy.db"
    assert await restored_hash(command_line, parse_replica(place).url_for_engine(), copy) == await content_hash(
        database
    )


@pytest.mark.timeout(8 * DATABASES + 300)
async def test_many_databases_under_one_agent(
    binary: Binary,
    short_folder: Path,
    environ: dict[str, str],
    command_line: CommandLine,
    link: Link,
    place: str,
) -> None:
    """What making, looking and a restart cost; a restart of the agent uploads next to nothing."""
    databases = [short_folder / f"db{number}.db" for number in range(DATABASES)]
    for database in databases:
        await asyncio.to_thread(make_database, database)
        await asyncio.to_thread(fill, database, 1, ROWS)
    # The application has its databases open. The last connection that closes would remove the WAL.
    with contextlib.ExitStack() as application:
        opened = [application.enter_context(contextlib.closing(sqlite3.connect(path))) for path in databases]
        for connection in opened:
            connection.execute("SELECT count(*) FROM photo").fetchone()
        async with _running(Agent(binary.path, short_folder / "a", environ)) as agent:
            gate = asyncio.Semaphore(AT_ONCE)

            async def make(database: Path) -> None:
                async with gate:
                    uri = link.url(place).replace("?", f"/{database.stem}?")
                    await agent.driver.upsert_stream(declare(database.stem, database, uri))

            began = time.monotonic()
            await asyncio.gather(*map(make, databases))
            made_in = time.monotonic() - began
            await _level(agent)
            looked_in, idle, restart = await _look(agent), link.sent, time.monotonic()
            assert idle > DATABASES * ROWS
            await agent.stop()
            await agent.start()
            await _level(agent)
            restarted_in, sent = time.monotonic() - restart, link.sent - idle
            print(
                f"{DATABASES} databases: made in {made_in:.0f} s, {idle / MB:.1f} MB sent; all looked at in "
                f"{looked_in:.2f} s; restarted in {restarted_in:.0f} s, {sent / MB:.2f} MB sent"
            )
            assert sent < 0.1 * DATABASES * ROWS
            assert made_in < 0.5 * DATABASES + 10
            assert looked_in < 0.004 * DATABASES + 1
            assert restarted_in < 0.3 * DATABASES + 15

            # The control: a restart that has to copy is counted. And content, of some of them.
            before = link.sent
            await agent.driver.pause("db0")
            opened[0].execute("INSERT INTO item (value) VALUES ('late')")
            opened[0].commit()
            assert opened[0].execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
            opened[0].execute("INSERT INTO item (value) VALUES ('later')")
            opened[0].commit()
            await agent.driver.resume("db0")
            await caught_up(agent.driver, "db0")
            assert link.sent - before > ROWS
            for database in databases[:: max(DATABASES // AFTERWARDS, 1)]:
                await caught_up(agent.driver, database.stem)
                url = parse_replica(place.replace("?", f"/{database.stem}?")).url_for_engine()
                there = await restored_hash(command_line, url, short_folder / "copy.db")
                assert there == await content_hash(database), database.stem


@contextlib.asynccontextmanager
async def _running(agent: Agent) -> AsyncIterator[Agent]:
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()


async def _level(agent: Agent) -> None:
    """Wait until all that is committed is at the destination, for every stream."""
    async with asyncio.timeout(600):
        while True:
            found = [description.status for description in await agent.driver.describe()]
            if all(status.state is StreamState.RUNNING and status.lag_events == 0 for status in found):
                return
            await asyncio.sleep(1)


async def _look(agent: Agent) -> float:
    """How long a status of all takes, in seconds."""
    began = time.monotonic()
    assert len(await agent.driver.describe()) == DATABASES
    return time.monotonic() - began
