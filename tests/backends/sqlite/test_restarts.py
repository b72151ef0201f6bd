"""What a restart of litestream uploads: next to nothing where the WAL still holds what it has not seen."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from replicator.backends.sqlite import wal
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import parse_replica
from replicator.replicator import Severity

from tests.backends.sqlite.agents import Agent, caught_up, declare, restored_hash
from tests.backends.sqlite.conftest import BUCKET
from tests.engines import S3Server, add_rows, make_database
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

MB = 1_000_000
SIZE = 12  # megabytes of the database


@pytest.fixture
def uploaded(s3: S3Server, place: str) -> Callable[[], int]:
    """Counts the bytes of transactions at the destination. What litestream compacts of them is in other levels."""
    prefix = parse_replica(place).url_for_engine().partition("?")[0].removeprefix(f"s3://{BUCKET}/")

    def count() -> int:
        with contextlib.closing(s3.client()) as client:
            listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/0000/")
        return sum(item["Size"] for item in listed.get("Contents", []))

    return count


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = make_database(tmp_path / "shop.db")
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("CREATE TABLE photo (content)")
        shop.executemany("INSERT INTO photo VALUES (randomblob(?))", [(MB,)] * SIZE)
    return path


@contextlib.contextmanager
def application(database: Path) -> Iterator[sqlite3.Connection]:
    """An application that keeps its connection."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as shop:
        shop.execute("SELECT count(*) FROM item").fetchone()
        yield shop


Restart = Callable[[Agent, Callable[..., Awaitable[None]]], Awaitable[None]]


async def pause(agent: Agent, change: Callable[..., Awaitable[None]]) -> None:
    await agent.driver.pause("orders")
    await agent.driver.resume("orders")


async def interval(agent: Agent, change: Callable[..., Awaitable[None]]) -> None:
    await change(checkpointInterval="500ms")
    await change(checkpointInterval="700ms")
    await change()


async def option(agent: Agent, change: Callable[..., Awaitable[None]]) -> None:
    await change(options={"busy-timeout": "2s"})


async def stop(agent: Agent, change: Callable[..., Awaitable[None]]) -> None:
    await agent.stop()
    await agent.start()


async def kill(agent: Agent, change: Callable[..., Awaitable[None]]) -> None:
    pids = agent.pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: _others(agent, pids), what="litestream was started again")
    await caught_up(agent.driver, "orders")


async def _others(agent: Agent, pids: list[int]) -> bool:
    return bool(agent.pids) and not set(agent.pids) & set(pids)


RESTARTS = pytest.mark.parametrize("restart", [pause, interval, option, stop, kill], ids=lambda one: one.__name__)


@RESTARTS
@pytest.mark.parametrize("idle", [True, False], ids=["idle", "in use"])
async def test_a_restart_uploads_what_is_new(
    agent: Agent,
    command_line: CommandLine,
    database: Path,
    place: str,
    uploaded: Callable[[], int],
    restart: Restart,
    idle: bool,
) -> None:
    async def change(**changes: object) -> None:
        await agent.driver.upsert_stream(declare("orders", database, place, **changes))

    await change()
    await caught_up(agent.driver, "orders")
    assert uploaded() > SIZE * MB
    with application(database) if not idle else contextlib.nullcontext():
        if not idle:
            add_rows(database, 5)
            await caught_up(agent.driver, "orders")
        before = uploaded()
        await restart(agent, change)
        add_rows(database, 5)
        await caught_up(agent.driver, "orders")
        assert uploaded() - before < MB
        copy = database.with_name("copy.db")
        url = parse_replica(place).url_for_engine()
        assert await restored_hash(command_line, url, copy) == await content_hash(database)


async def test_a_wal_that_was_restarted_meanwhile_is_copied(
    agent: Agent, command_line: CommandLine, database: Path, place: str, uploaded: Callable[[], int]
) -> None:
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    with application(database) as shop:
        await agent.driver.pause("orders")
        add_rows(database, 20)
        shop.execute("PRAGMA wal_checkpoint(RESTART)")
        add_rows(database, 20)
        before = uploaded()
        await agent.driver.resume("orders")
        await caught_up(agent.driver, "orders")
    assert uploaded() - before > SIZE * MB
    copy = database.with_name("copy.db")
    assert await restored_hash(command_line, parse_replica(place).url_for_engine(), copy) == await content_hash(
        database
    )


async def resumed_while_the_wal_is_restarted(agent: Agent, database: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Resume a stream whose WAL is restarted after the look at it, and before litestream has it.

    Every frame is in the database already, so that the read transaction that holds the WAL does not keep it. Return
    whether the look said that litestream can go on.
    """
    found: list[bool] = []
    grown = wal.grown

    async def then_restarted(path: Path) -> bytes | None:
        salts = await grown(path)
        if not found:
            found.append(salts is not None)
            shop.execute("PRAGMA wal_checkpoint(PASSIVE)")
            add_rows(database, 1)  # restarts it, and leaves the frame at which litestream stands
        return salts

    with application(database) as shop:
        for _ in range(30):
            add_rows(database, 1)
        await caught_up(agent.driver, "orders")
        await agent.driver.pause("orders")
        for _ in range(20):
            add_rows(database, 1)
        shop.execute("PRAGMA wal_checkpoint(PASSIVE)")
        monkeypatch.setattr(wal, "grown", then_restarted)
        await agent.driver.resume("orders")
        await caught_up(agent.driver, "orders")
    return found[0]


@pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "500ms"}], ids=["shared", "own"])
async def test_a_wal_that_is_restarted_in_the_moment_of_the_takeover_is_copied(
    agent: Agent,
    command_line: CommandLine,
    database: Path,
    place: str,
    uploaded: Callable[[], int],
    changes: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await agent.driver.upsert_stream(declare("orders", database, place, **changes))
    await caught_up(agent.driver, "orders")
    before = uploaded()
    assert await resumed_while_the_wal_is_restarted(agent, database, monkeypatch)
    assert uploaded() - before > SIZE * MB
    copy = database.with_name("copy.db")
    assert await restored_hash(command_line, parse_replica(place).url_for_engine(), copy) == await content_hash(
        database
    )


async def test_a_takeover_that_was_not_confirmed_is_not_gone_on_with(
    agent: Agent, command_line: CommandLine, database: Path, place: str, uploaded: Callable[[], int]
) -> None:
    """The agent was killed between the takeover and the second look."""
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    with application(database):
        await agent.driver.pause("orders")
        await wal.mark(database)
        before = uploaded()
        await agent.driver.resume("orders")
        await caught_up(agent.driver, "orders")
        assert uploaded() - before > SIZE * MB
        before = uploaded()
        await agent.driver.pause("orders")
        await agent.driver.resume("orders")
        await caught_up(agent.driver, "orders")
        assert uploaded() - before < MB


async def test_a_preview_says_how_much_may_be_copied_again(
    agent: Agent, command_line: CommandLine, database: Path, place: str, uploaded: Callable[[], int]
) -> None:
    stream = declare("orders", database, place)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    assert await agent.driver.preflight(stream) == []
    (faster,) = await agent.driver.preflight(declare("orders", database, place, checkpointInterval="500ms"))
    assert (faster.severity, faster.code) == (Severity.INFO, "RPL-SOURCE-COPIED")
    assert faster.message.startswith("may re-snapshot, 12.")

    with application(database) as shop:
        await agent.driver.pause("orders")
        (kept,) = await agent.driver.preflight(stream)
        assert (kept.severity, kept.property) == (Severity.INFO, "desiredState")
        before = uploaded()
        add_rows(database, 5)
        shop.execute("PRAGMA wal_checkpoint(RESTART)")
        add_rows(database, 5)
        (lost,) = await agent.driver.preflight(stream)
        assert lost.severity is Severity.WARNING
        assert lost.message.startswith("re-snapshots, 12.")
        await agent.driver.upsert_stream(stream)
        await caught_up(agent.driver, "orders")
        assert uploaded() - before > SIZE * MB
