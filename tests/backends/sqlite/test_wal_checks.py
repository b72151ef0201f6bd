"""A lag where litestream did not look for a while: its process was stopped, or was told to look seldom."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from replicator.backends.sqlite import daemon_process, wal
from replicator.backends.sqlite.litestream import SyncActivity
from replicator.backends.sqlite.wal_checks import WalChecks, whole_look
from replicator.capabilities import TABLE
from replicator.model import StreamStatus

from tests.backends.sqlite.agents import Agent, caught_up, declare
from tests.engines import make_database
from tests.waiting import until

RESOLUTION = TABLE["litestream"].routes[0].lag_resolution.total_seconds()
STOPPED_FOR = 4.0
THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return THEN + timedelta(seconds=seconds)


def test_the_last_look_before_the_next_file_is_known() -> None:
    looks = WalChecks()
    assert looks.until(7) is None
    for second in range(5):
        looks.note(after(second), 7)
    looks.note(after(9), 8)
    assert looks.until(6) is None
    assert looks.until(7) == after(4)
    assert looks.until(8) == after(9)
    assert looks.until(7) is None, "what came before the file that has arrived is forgotten"
    looks.note(after(8), 8)
    assert looks.until(9) == after(9), "an answer that comes late changes nothing"
    looks.note(after(20), 1)
    assert (looks.until(8), looks.until(0)) == (after(20), None), "the engine counts from the start again"


def test_a_long_outage_keeps_the_look_of_the_last_file_that_arrived_and_the_newest_ones() -> None:
    looks = WalChecks()
    for second in range(2_000):
        looks.note(after(second), second)
    assert looks.until(0) == after(0)
    assert looks.until(1_000) == after(0), "it is too early, never too late"
    assert looks.until(1_990) == after(1_990)


def test_only_a_look_that_came_to_the_end_of_the_wal_counts() -> None:
    whole = SyncActivity(Path("/o.db"), False, "sync", "update_metrics", THEN, after(1), 7, 0, None)
    assert whole_look(whole) == (THEN, 7)
    large = 64 * 1024 * 1024
    for change in (
        {"active": True},
        {"operation": "checkpoint"},
        {"phase": "sync_page_map"},
        {"error": "disk full"},
        {"started_at": None},
        {"txid": None},
        {"wal_size": large},
    ):
        assert whole_look(replace(whole, **change)) is None, change


def write(database: Path, size: int = 100) -> float:
    """Commit a row; when it was committed."""
    with contextlib.closing(sqlite3.connect(database)) as shop, shop:
        shop.execute("CREATE TABLE IF NOT EXISTS written (content)")
        shop.execute("INSERT INTO written VALUES (randomblob(?))", (size,))
    return time.time()


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """As a machine does it that is starved or sleeps."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def assert_honest(status: StreamStatus, written: float, asked: float) -> None:
    """The row has not arrived."""
    assert status.lag_seconds is None or status.lag_seconds >= asked - written - RESOLUTION - 0.01, status


@pytest.mark.engine
async def test_what_was_written_while_litestream_did_not_look_is_as_old_as_it_is(agent: Agent, tmp_path: Path) -> None:
    """It uploads once in a minute, so that nothing arrives in this test after the stop."""
    database = make_database(tmp_path / "orders.db")
    stream = declare("orders", database, f"file://{tmp_path}/replica", checkpointInterval="60s")
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    await asyncio.sleep(3)  # long enough for it to be seen to look
    with stopped(agent.pids):
        written = write(database)
        await asyncio.sleep(STOPPED_FOR)
        asked = time.time()
        assert_honest(await agent.driver.get_status("orders"), written, asked)
    for _ in range(10):
        asked = time.time()
        status = await agent.driver.get_status("orders")
        assert status.lag_events, "it does not arrive in this test"
        assert_honest(status, written, asked)
        assert status.lag_seconds is not None
        assert status.lag_seconds < asked - written + 3, "nor is it much less than said"
        await asyncio.sleep(0.1)


@pytest.mark.engine
async def test_an_interval_of_looks_is_no_lower_lag(agent: Agent, tmp_path: Path) -> None:
    database = make_database(tmp_path / "orders.db")
    options = {"monitor-interval": "10s"}
    stream = declare("orders", database, f"file://{tmp_path}/replica", checkpointInterval="60s", options=options)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    await asyncio.sleep(11)
    written = write(database)
    await asyncio.sleep(STOPPED_FOR)
    asked = time.time()
    status = await agent.driver.get_status("orders")
    assert status.lag_events
    assert_honest(status, written, asked)


@pytest.mark.engine
async def test_what_comes_after_a_large_file_is_not_taken_for_arrived(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """litestream is not asked while its last file is large, since it would read that one whole."""
    monkeypatch.setattr(daemon_process, "_LARGE", 100_000)
    database = make_database(tmp_path / "orders.db")
    await agent.driver.upsert_stream(declare("orders", database, f"file://{tmp_path}/replica"))
    await caught_up(agent.driver, "orders")
    write(database, 300_000)

    async def level() -> bool:
        status = await agent.driver.get_status("orders")
        return wal.newest_size(database) > 100_000 and status.lag_events == 0

    await until(level, what="the large file has arrived")
    for _ in range(5):
        await asyncio.sleep(0.5)
        lag = (await agent.driver.get_status("orders")).lag_seconds
        assert lag is not None
        assert lag < 2, "it is level, and litestream looks"
    with stopped(agent.pids):
        written = write(database)
        await asyncio.sleep(STOPPED_FOR)
        asked = time.time()
        assert_honest(await agent.driver.get_status("orders"), written, asked)
