"""A narrow link to the store: what moves is left alone, however long it takes, and what stands still is not."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from replicator.backends.sqlite import daemon_pool, daemon_process, reconciler, traffic, uploads, wal
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.driver import SqliteDriver
from replicator.backends.sqlite.litestream import Binary, CommandLine
from replicator.backends.sqlite.positions import transaction_file
from replicator.backends.sqlite.replica import parse_replica
from replicator.model import Owner, Stream, StreamState

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, restored_hash, state_is
from tests.backends.sqlite.conftest import BUCKET, TwoOwners
from tests.engines import make_database
from tests.link import Link, link_to
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

OWNER = Owner(urn=URN)
MB = 1_000_000
RATE = 2 * MB  # bytes a second
NARROW = MB // 3  # what is looked at while it lasts lasts longer than a look on a loaded machine
WIDE = 20 * MB
SHAPES: Mapping[str, Mapping[str, str]] = {
    "shared": {},
    "own": {"checkpointInterval": "500ms"},
    "copy": {"mode": "snapshot"},
}
"""What a stream declares, by the litestream process that uploads for it."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of time are short, so that only the data that moves can keep an upload going."""
    monkeypatch.setattr(reconciler, "FIRST_UPLOAD", 2.0)
    monkeypatch.setattr(daemon_pool, "COPY_WITHIN", 2.0)
    monkeypatch.setattr(reconciler, "_REACHED_IN_VAIN", 1.0)
    monkeypatch.setattr(uploads, "_SLACK", 2.0)
    monkeypatch.setattr(uploads, "_SLOWEST", 10 * MB)
    monkeypatch.setattr(traffic, "STILL_FOR", 6.0)


@dataclass(frozen=True)
class Far:
    """An agent whose store is at the far end of a link, and a database.

    :param place: an empty prefix, as it is without the link.
    :param changes: what a stream declares besides its ends.
    """

    agent: Agent
    link: Link
    database: Path
    place: str
    changes: Mapping[str, str]
    command: CommandLine

    def declared(self, **changes: str) -> Stream:
        return declare("orders", self.database, self.link.url(self.place), **self.changes, **changes)

    @property
    def driver(self) -> SqliteDriver:
        return self.agent.driver

    async def moves(self) -> bool:
        return self.link.sent > MB

    async def assert_whole(self) -> None:
        """What is at the destination is what is in the database."""
        copy = self.database.with_name("copy.db")
        url = parse_replica(self.place).url_for_engine()
        assert await restored_hash(self.command, url, copy) == await content_hash(self.database)


Make = Callable[[str], AbstractAsyncContextManager[Far]]
InEach = Callable[[Callable[[Far], Awaitable[None]], Iterable[str]], Awaitable[None]]


@pytest.fixture
def make(s3: TwoOwners, binary: Binary, environ: dict[str, str], command_line: CommandLine) -> Make:
    """Makes an agent and a database for a shape, with a link of their own."""
    port = urlsplit(s3.endpoint).port
    assert port is not None

    @asynccontextmanager
    async def made(shape: str) -> AsyncIterator[Far]:
        with tempfile.TemporaryDirectory(prefix="rpl-") as name, link_to(port, rate=RATE, delay=0.1) as link:
            folder = Path(name)
            agent = Agent(binary.path, folder / "agent", environ)
            await agent.start()
            try:
                place = s3.url(BUCKET, f"stream/{uuid.uuid4().hex}")
                yield Far(agent, link, make_database(folder / "shop.db"), place, SHAPES[shape], command_line)
            finally:
                await agent.stop()

    return made


@pytest.fixture
def in_each(make: Make) -> InEach:
    """Runs a check in some shapes at once: each waits for its link most of the time."""

    async def run(check: Callable[[Far], Awaitable[None]], shapes: Iterable[str]) -> None:
        async def one(shape: str) -> None:
            async with make(shape) as far:
                try:
                    await check(far)
                except Exception as error:
                    error.add_note(f"in the shape {shape!r}")
                    raise

        results = await asyncio.gather(*map(one, shapes), return_exceptions=True)
        if failed := [result for result in results if result is not None]:
            raise BaseExceptionGroup("some shapes failed", failed)

    return run


async def fill(database: Path, megabytes: int) -> None:
    """Add rows that do not compress, in one transaction."""

    def insert() -> None:
        with contextlib.closing(sqlite3.connect(database)) as shop, shop:
            shop.execute("CREATE TABLE IF NOT EXISTS photo (content)")
            shop.executemany("INSERT INTO photo VALUES (randomblob(?))", [(MB,)] * megabytes)

    await asyncio.to_thread(insert)


async def test_a_first_copy_goes_on_as_long_as_it_moves(in_each: InEach) -> None:
    async def check(far: Far) -> None:
        far.link.rate = NARROW
        await fill(far.database, 26)
        began = time.monotonic()
        await far.driver.upsert_stream(far.declared())
        assert time.monotonic() - began < 25, "the rest is done in the background"
        seen = []
        for _ in range(8):
            seen.append(await far.driver.get_status("orders"))
            await asyncio.sleep(0.5)
        assert {status.state for status in seen} == {StreamState.SNAPSHOT}
        total = seen[-1].upload_total_bytes
        assert total is not None and 26 * MB < total < 27 * MB
        assert all(0 <= (status.uploaded_bytes or 0) <= total for status in seen)
        far.link.rate = WIDE
        await caught_up(far.driver, "orders", timeout=60)
        assert far.link.sent < 1.1 * total, "it was sent once"
        await far.assert_whole()

    await in_each(check, ("shared", "own"))


async def test_a_large_transaction_is_catching_up(in_each: InEach) -> None:
    async def check(far: Far) -> None:
        await far.driver.upsert_stream(far.declared())
        await caught_up(far.driver, "orders")
        sent = far.link.sent
        far.link.rate = NARROW
        await fill(far.database, 26)
        began = time.monotonic()
        while time.monotonic() - began < 11:
            status = await far.driver.get_status("orders")
            assert status.state in (StreamState.RUNNING, StreamState.CATCHING_UP), status
            await asyncio.sleep(0.5)
        assert status.state is StreamState.CATCHING_UP
        assert status.upload_total_bytes is not None and status.upload_total_bytes > 25 * MB
        assert status.last_error is None
        far.link.rate = WIDE
        await caught_up(far.driver, "orders", timeout=60)
        once_more = "once, and once more where litestream has compacted it"
        assert far.link.sent - sent < 2.2 * status.upload_total_bytes, once_more
        await far.assert_whole()

    await in_each(check, ("shared", "own"))


async def test_a_large_file_has_not_arrived_because_one_before_it_has(
    make: Make, s3: TwoOwners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine notes the time of an upload when it ends, which may be after the next file was written."""
    monkeypatch.setattr(daemon_process, "_LARGE", MB // 2)
    async with make("shared") as far:
        await far.driver.upsert_stream(far.declared())
        await caught_up(far.driver, "orders")
        prefix = far.place.partition("?")[0].removeprefix(f"s3://{BUCKET}/")
        far.link.rate = MB // 4
        for _ in range(2):
            sent = far.link.sent
            await fill(far.database, 1)  # too little for a checkpoint, which would write another file
            await asyncio.sleep(1)
            while far.link.sent < sent + MB // 8:  # the first upload has begun when the second file is written
                await asyncio.sleep(0.02)
        newest = wal.newest_transaction(far.database)
        assert newest is not None
        name = transaction_file(far.database, newest).name
        while not (there := await asyncio.to_thread(s3.keys, BUCKET, f"{prefix}/0000/{name}")):
            status = await far.driver.get_status("orders")
            there = await asyncio.to_thread(s3.keys, BUCKET, f"{prefix}/0000/{name}")
            assert status.lag_events != 0 or there, status
            await asyncio.sleep(0.1)
        assert (await caught_up(far.driver, "orders")).lag_events == 0


async def test_a_delete_waits_for_the_last_changes_as_long_as_they_move(in_each: InEach) -> None:
    async def check(far: Far) -> None:
        await far.driver.upsert_stream(far.declared())
        await caught_up(far.driver, "orders")
        await fill(far.database, 22)
        await far.driver.delete_stream("orders", owner=OWNER)
        assert await far.driver.list_streams() == []
        await far.assert_whole()

    await in_each(check, ("shared", "own"))


async def test_the_copy_of_mode_snapshot_is_seen_while_it_lasts(make: Make) -> None:
    async with make("copy") as far:
        far.link.rate = NARROW
        await fill(far.database, 12)
        made = asyncio.create_task(far.driver.upsert_stream(far.declared()))
        await until(far.moves, what="the copy has begun")
        await asyncio.sleep(3)
        assert (await far.driver.get_status("orders")).state is StreamState.SNAPSHOT
        far.link.rate = WIDE
        await made
        await state_is(far.driver, "orders", StreamState.PAUSED)
        await far.assert_whole()


async def test_an_upload_that_stands_still_is_failed_and_goes_on_when_the_link_does(in_each: InEach) -> None:
    async def check(far: Far) -> None:
        await fill(far.database, 22)
        await far.driver.upsert_stream(far.declared())
        far.link.rate = 0
        failed = await state_is(far.driver, "orders", StreamState.FAILED, timeout=60)
        assert failed.last_error is not None
        far.link.rate = 40 * MB
        await caught_up(far.driver, "orders", timeout=60)
        await far.assert_whole()

    await in_each(check, ("shared", "own"))


async def test_a_delete_does_not_wait_for_a_first_copy_that_may_be_skipped(in_each: InEach) -> None:
    async def check(far: Far) -> None:
        await fill(far.database, 26)
        made = asyncio.create_task(far.driver.upsert_stream(far.declared(drainBeforeDelete="skip")))
        await until(far.moves, what="the copy has begun")
        began = time.monotonic()
        await far.driver.delete_stream("orders", owner=OWNER)
        assert time.monotonic() - began < 12
        assert await far.driver.list_streams() == []
        await asyncio.gather(made, return_exceptions=True)
        assert await far.driver.list_streams() == []

    await in_each(check, SHAPES)
