"""A narrow link to the store: what moves is left alone, however long it takes, and what stands still is not."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from replicator.backends.sqlite import daemon_pool, daemon_process, reconciler, traffic, uploads, wal
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.positions import transaction_file
from replicator.backends.sqlite.replica import parse_replica
from replicator.model import Owner, StreamState

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, restored_hash, state_is
from tests.backends.sqlite.conftest import BUCKET, TwoOwners
from tests.engines import make_database
from tests.link import Link, link_to
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

OWNER = Owner(urn=URN)
MB = 1_000_000
RATE = 2 * MB  # bytes a second
SHAPES = pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "500ms"}], ids=["shared", "own"])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of time are short, so that only the data that moves can keep an upload going."""
    monkeypatch.setattr(reconciler, "FIRST_UPLOAD", 2.0)
    monkeypatch.setattr(daemon_pool, "COPY_WITHIN", 2.0)
    monkeypatch.setattr(reconciler, "_REACHED_IN_VAIN", 1.0)
    monkeypatch.setattr(uploads, "_SLACK", 2.0)
    monkeypatch.setattr(uploads, "_SLOWEST", 10 * MB)
    monkeypatch.setattr(traffic, "STILL_FOR", 6.0)


@pytest.fixture
def link(s3: TwoOwners) -> Iterator[Link]:
    port = urlsplit(s3.endpoint).port
    assert port is not None
    with link_to(port, rate=RATE, delay=0.1) as link:
        yield link


@pytest.fixture
def narrow(link: Link, place: str) -> str:
    """The URI of an empty prefix by way of the link."""
    return link.url(place)


def fill(database: Path, megabytes: int) -> None:
    """Add rows that do not compress, in one transaction."""
    with contextlib.closing(sqlite3.connect(database)) as shop, shop:
        shop.execute("CREATE TABLE IF NOT EXISTS photo (content)")
        shop.executemany("INSERT INTO photo VALUES (randomblob(?))", [(MB,)] * megabytes)


async def assert_whole(command: CommandLine, place: str, database: Path) -> None:
    copy = database.with_name("copy.db")
    assert await restored_hash(command, parse_replica(place).url_for_engine(), copy) == await content_hash(database)


@SHAPES
async def test_a_first_copy_goes_on_as_long_as_it_moves(
    agent: Agent,
    command_line: CommandLine,
    tmp_path: Path,
    link: Link,
    narrow: str,
    place: str,
    changes: dict[str, str],
) -> None:
    database = make_database(tmp_path / "shop.db")
    fill(database, 26)
    began = time.monotonic()
    await agent.driver.upsert_stream(declare("orders", database, narrow, **changes))
    assert time.monotonic() - began < 25, "the rest is done in the background"
    seen = []
    for _ in range(8):
        seen.append(await agent.driver.get_status("orders"))
        await asyncio.sleep(0.5)
    assert {status.state for status in seen} == {StreamState.SNAPSHOT}
    total = seen[-1].upload_total_bytes
    assert total is not None and 26 * MB < total < 27 * MB
    assert all(0 <= (status.uploaded_bytes or 0) <= total for status in seen)
    await caught_up(agent.driver, "orders", timeout=60)
    assert link.sent < 1.1 * total, "it was sent once"
    await assert_whole(command_line, place, database)


@SHAPES
async def test_a_large_transaction_is_catching_up(
    agent: Agent,
    command_line: CommandLine,
    tmp_path: Path,
    link: Link,
    narrow: str,
    place: str,
    changes: dict[str, str],
) -> None:
    database = make_database(tmp_path / "shop.db")
    await agent.driver.upsert_stream(declare("orders", database, narrow, **changes))
    await caught_up(agent.driver, "orders")
    sent = link.sent
    await asyncio.to_thread(fill, database, 26)
    began = time.monotonic()
    while time.monotonic() - began < 11:
        status = await agent.driver.get_status("orders")
        assert status.state in (StreamState.RUNNING, StreamState.CATCHING_UP), status
        await asyncio.sleep(0.5)
    assert status.state is StreamState.CATCHING_UP
    assert status.upload_total_bytes is not None and status.upload_total_bytes > 25 * MB
    assert status.last_error is None
    await caught_up(agent.driver, "orders", timeout=60)
    assert link.sent - sent < 2.2 * status.upload_total_bytes, "once, and once more where litestream has compacted it"
    await assert_whole(command_line, place, database)


async def test_a_large_file_has_not_arrived_because_one_before_it_has(
    agent: Agent, s3: TwoOwners, tmp_path: Path, link: Link, narrow: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine notes the time of an upload when it ends, which may be after the next file was written."""
    monkeypatch.setattr(daemon_process, "_LARGE", MB // 2)
    database = make_database(tmp_path / "shop.db")
    await agent.driver.upsert_stream(declare("orders", database, narrow))
    await caught_up(agent.driver, "orders")
    prefix = place.partition("?")[0].removeprefix(f"s3://{BUCKET}/")
    link.rate = MB // 4
    for _ in range(2):
        sent = link.sent
        await asyncio.to_thread(fill, database, 1)  # too little for a checkpoint, which would write another file
        await asyncio.sleep(1)
        while link.sent < sent + MB // 8:  # the first upload has begun when the second file is written
            await asyncio.sleep(0.02)
    newest = wal.newest_transaction(database)
    assert newest is not None
    name = transaction_file(database, newest).name
    while not (there := await asyncio.to_thread(s3.keys, BUCKET, f"{prefix}/0000/{name}")):
        status = await agent.driver.get_status("orders")
        there = await asyncio.to_thread(s3.keys, BUCKET, f"{prefix}/0000/{name}")
        assert status.lag_events != 0 or there, status
        await asyncio.sleep(0.1)
    assert (await caught_up(agent.driver, "orders")).lag_events == 0


@SHAPES
async def test_a_delete_waits_for_the_last_changes_as_long_as_they_move(
    agent: Agent, command_line: CommandLine, tmp_path: Path, narrow: str, place: str, changes: dict[str, str]
) -> None:
    database = make_database(tmp_path / "shop.db")
    await agent.driver.upsert_stream(declare("orders", database, narrow, **changes))
    await caught_up(agent.driver, "orders")
    await asyncio.to_thread(fill, database, 22)
    await agent.driver.delete_stream("orders", owner=OWNER)
    assert await agent.driver.list_streams() == []
    await assert_whole(command_line, place, database)


async def test_the_copy_of_mode_snapshot_is_seen_while_it_lasts(
    agent: Agent, command_line: CommandLine, tmp_path: Path, link: Link, narrow: str, place: str
) -> None:
    database = make_database(tmp_path / "shop.db")
    fill(database, 12)
    made = asyncio.create_task(agent.driver.upsert_stream(declare("orders", database, narrow, mode="snapshot")))
    await until(lambda: _moves(link), what="the copy has begun")
    await asyncio.sleep(3)
    assert (await agent.driver.get_status("orders")).state is StreamState.SNAPSHOT
    await made
    await state_is(agent.driver, "orders", StreamState.PAUSED)
    await assert_whole(command_line, place, database)


@SHAPES
async def test_an_upload_that_stands_still_is_failed_and_goes_on_when_the_link_does(
    agent: Agent,
    command_line: CommandLine,
    tmp_path: Path,
    link: Link,
    narrow: str,
    place: str,
    changes: dict[str, str],
) -> None:
    database = make_database(tmp_path / "shop.db")
    fill(database, 22)
    await agent.driver.upsert_stream(declare("orders", database, narrow, **changes))
    link.rate = 0
    failed = await state_is(agent.driver, "orders", StreamState.FAILED, timeout=60)
    assert failed.last_error is not None
    link.rate = 40 * MB
    await caught_up(agent.driver, "orders", timeout=60)
    await assert_whole(command_line, place, database)


@pytest.mark.parametrize(
    "changes", [{"mode": "snapshot"}, {"checkpointInterval": "500ms"}, {}], ids=["copy", "own", "shared"]
)
async def test_a_delete_does_not_wait_for_a_first_copy_that_may_be_skipped(
    agent: Agent, tmp_path: Path, link: Link, narrow: str, changes: dict[str, str]
) -> None:
    database = make_database(tmp_path / "shop.db")
    fill(database, 26)
    stream = declare("orders", database, narrow, drainBeforeDelete="skip", **changes)
    made = asyncio.create_task(agent.driver.upsert_stream(stream))
    await until(lambda: _moves(link), what="the copy has begun")
    began = time.monotonic()
    await agent.driver.delete_stream("orders", owner=OWNER)
    assert time.monotonic() - began < 12
    assert await agent.driver.list_streams() == []
    await asyncio.gather(made, return_exceptions=True)
    assert await agent.driver.list_streams() == []


async def _moves(link: Link) -> bool:
    return link.sent > MB
